//! Whoever watches a run of the command line: the recorder and the invariants.
//!
//! Owns: making both once the hosts are known, and what they found. Must not: change the run.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use simnet_host::invariant::{Bounds, Invariants, Violation};
use simnet_host::{BlockReport, HostId, HostSpec, Ledger, Observation, Observer, Outcome, Sample};
use simnet_report::{Description, Destination, Options, Recorder, Results, TableError};
use simnet_scenario::{Moment, Scenario, Seed};

use crate::identity::COMMIT;

/// Records a run and judges it.
#[derive(Debug)]
pub(crate) struct Watch {
    scenario: Scenario,
    seed: Seed,
    variant: String,
    destination: Destination,
    recorder: Option<Result<Recorder, TableError>>,
    invariants: Option<Invariants>,
}

impl Watch {
    /// For a run that is about to start.
    pub(crate) const fn new(
        scenario: Scenario,
        seed: Seed,
        variant: String,
        destination: Destination,
    ) -> Self {
        Self { scenario, seed, variant, destination, recorder: None, invariants: None }
    }

    /// What was recorded, and the first invariant that did not hold.
    pub(crate) fn finish(self, outcome: &Outcome) -> Result<(Results, Option<Violation>)> {
        let mut recorder = self.recorder.context("the run ended before it began")??;
        let violation = self.invariants.and_then(|it| it.violation().cloned());
        if let Some(found) = &violation {
            recorder.violation(simnet_report::Violation {
                at: found.at,
                host: found.host,
                invariant: found.invariant,
                detail: &found.what,
            });
        }
        Ok((recorder.finish(outcome)?, violation))
    }
}

impl Observer for Watch {
    fn begin(&mut self, hosts: &[Arc<HostSpec>]) {
        let about = Description::of(&self.scenario, self.seed, hosts, &self.variant, COMMIT);
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
