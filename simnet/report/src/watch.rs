//! Whoever watches a run: the recorder and the invariants.
//!
//! Owns: making both once the hosts are known, and what they found. Must not: change the run.

use std::sync::Arc;

use simnet_host::invariant::{Bounds, Invariants, Violation};
use simnet_host::{
    BlockReport, HostId, HostSpec, Ledger, NOWHERE, Observation, Observer, Outcome, Places, Sample,
};
use simnet_scenario::{Moment, Scenario, Seed};

use crate::{Description, Destination, Options, Recorder, Results, TableError};

/// Records a run and judges it.
#[derive(Debug)]
pub struct Watch {
    scenario: Scenario,
    seed: Seed,
    variant: String,
    commit: String,
    destination: Destination,
    recorder: Option<Result<Recorder, TableError>>,
    invariants: Option<Invariants>,
}

impl Watch {
    /// For a run that is about to start, of a program that was built from this commit.
    pub const fn new(
        scenario: Scenario,
        seed: Seed,
        variant: String,
        commit: String,
        destination: Destination,
    ) -> Self {
        Self { scenario, seed, variant, commit, destination, recorder: None, invariants: None }
    }

    /// What was recorded, and the first invariant that did not hold. `None` of a run that ended
    /// before it began.
    ///
    /// # Errors
    ///
    /// The files could not be made or written.
    pub fn finish(
        self,
        outcome: &Outcome,
    ) -> Option<Result<(Results, Option<Violation>), TableError>> {
        let mut recorder = match self.recorder? {
            Ok(recorder) => recorder,
            Err(error) => return Some(Err(error)),
        };
        let violation = self.invariants.and_then(|it| it.violation().cloned());
        if let Some(found) = &violation {
            recorder.violation(crate::Violation {
                at: found.at,
                host: found.host,
                invariant: found.invariant,
                detail: &found.what,
            });
        }
        Some(recorder.finish(outcome).map(|results| (results, violation)))
    }
}

impl Observer for Watch {
    fn begin(&mut self, hosts: &[Arc<HostSpec>]) {
        let about = Description::of(&self.scenario, self.seed, hosts, &self.variant, &self.commit);
        // Files and their writers are made on a thread of their own: each hash map that is made on
        // the simulation's thread would move the keys of all that come after it, and a run that is
        // recorded would differ from one that is not.
        let destination = self.destination.clone();
        let make = || Recorder::new(about, destination, Options::default());
        self.recorder = std::thread::scope(|scope| scope.spawn(make).join().ok());
        self.invariants = Some(Invariants::new(Bounds::of(&self.scenario, hosts)));
    }

    fn observe(&mut self, at: Moment, host: HostId, fact: &Observation) {
        if let Some(Ok(recorder)) = &mut self.recorder {
            recorder.observe(at, host, fact);
        }
        if let Some(invariants) = &mut self.invariants {
            invariants.observe(at, host, fact);
        }
    }

    fn block(&mut self, at: Moment, block: &BlockReport<'_>) {
        if let Some(Ok(recorder)) = &mut self.recorder {
            recorder.block(at, block);
        }
        if let Some(invariants) = &mut self.invariants {
            invariants.block(at, block);
        }
    }

    fn sample(&mut self, sample: &Sample) {
        if let Some(Ok(recorder)) = &mut self.recorder {
            recorder.sample(sample);
        }
    }

    fn places(&self, host: HostId, step: u8) -> Places {
        let [mut recorded, mut judged] = NOWHERE;
        if let Some(Ok(recorder)) = &self.recorder {
            [recorded, _] = recorder.places(host, step);
        }
        if let Some(invariants) = &self.invariants {
            [judged, _] = invariants.places(host, step);
        }
        [recorded, judged]
    }

    fn is_over(&self) -> bool {
        // Without its files a run is of no use.
        let blind = matches!(self.recorder, Some(Err(_)));
        blind || self.invariants.as_ref().is_some_and(Observer::is_over)
    }

    fn end(&mut self, at: Moment, interrupted: bool, ledger: &Ledger) {
        if let Some(invariants) = &mut self.invariants {
            invariants.end(at, interrupted, ledger);
        }
    }
}
