//! One run of a subject in this process, recorded and judged.
//!
//! Owns: the observer. Must not: write files.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use simnet_host::invariant::{Bounds, Invariants};
use simnet_host::{BlockReport, HostId, HostSpec, Ledger, Observation, Observer, Sample};
use simnet_report::{Description, Destination, Options, Recorder, TableError};
use simnet_scenario::{Moment, RunTier, Scenario, Seed};

use crate::subject::Subject;

/// The recorder and the invariants, once the hosts are known.
struct Watch {
    scenario: Scenario,
    seed: Seed,
    recorder: Option<Result<Recorder, TableError>>,
    invariants: Option<Invariants>,
}

impl Observer for Watch {
    fn begin(&mut self, hosts: &[Arc<HostSpec>]) {
        let about = Description::of(&self.scenario, self.seed, hosts, "", "");
        let make = || Recorder::new(about, Destination::Nowhere, Options::default());
        // On a thread of its own, as the program does it: what draws randomness there moves nothing
        // on the simulation's.
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

    fn end(&mut self, at: Moment, interrupted: bool, ledger: &Ledger) {
        if let Some(invariants) = &mut self.invariants {
            invariants.end(at, interrupted, ledger);
        }
    }
}

/// `result.json` of the run.
pub(crate) fn run(subject: &Subject, seed: u64, attack: bool) -> Result<String> {
    let (scenario, seed) = (subject.load(attack)?, Seed(seed));
    let work = move || -> Result<String> {
        let mut watch =
            Watch { scenario: scenario.clone(), seed, recorder: None, invariants: None };
        let mut on = |_| ControlFlow::Continue(());
        let outcome = match scenario.tier {
            RunTier::Exact => simnet_exact::run(&scenario, seed, &mut watch, &mut on)?,
            RunTier::Abstract => simnet_abstract::run(&scenario, seed, &mut watch, &mut on)?,
        };
        let mut recorder = watch.recorder.context("the run did not begin")??;
        if let Some(found) = watch.invariants.as_ref().and_then(Invariants::violation) {
            let (at, host) = (found.at, found.host);
            let (invariant, detail) = (found.invariant, found.what.as_str());
            recorder.violation(simnet_report::Violation { at, host, invariant, detail });
        }
        Ok(recorder.finish(&outcome)?.to_json())
    };
    simnet_core::on_fresh_thread(work).context("no thread for the simulation")?
}
