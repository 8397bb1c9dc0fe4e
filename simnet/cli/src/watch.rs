//! Whoever watches a run of the command line: the recorder and the invariants.
//!
//! Owns: making both once the hosts are known, and what they found. Must not: change the run.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use simnet_host::invariant::{Bounds, Invariants, Violation};
use simnet_host::population::{classes, models};
use simnet_host::{BlockReport, HostId, HostSpec, Ledger, Observation, Observer, Outcome, Sample};
use simnet_report::{
    Description, Destination, HostLabel, Options, Recorder, Region, Results, TableError,
};
use simnet_scenario::{AdversaryKind, Moment, Regions, Scenario, Seed};

use crate::identity::COMMIT;

/// Records a run and judges it.
#[derive(Debug)]
pub struct Watch {
    scenario: Scenario,
    seed: Seed,
    variant: String,
    destination: Destination,
    recorder: Option<Result<Recorder, TableError>>,
    invariants: Option<Invariants>,
}

impl Watch {
    /// For a run that is about to start.
    pub const fn new(
        scenario: Scenario,
        seed: Seed,
        variant: String,
        destination: Destination,
    ) -> Self {
        Self { scenario, seed, variant, destination, recorder: None, invariants: None }
    }

    /// What was recorded, and the first invariant that did not hold.
    pub fn finish(self, outcome: &Outcome) -> Result<(Results, Option<Violation>)> {
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

    fn describe(&self, hosts: &[Arc<HostSpec>]) -> Description {
        let scenario = &self.scenario;
        let regions = Regions::of(scenario.network.topology);
        let places = regions.places();
        let region = |(index, name): (usize, &String)| {
            let place = places.and_then(|it| it.get(index)).copied();
            let (latitude, longitude) = place.unwrap_or_default();
            Region { name: name.clone(), latitude, longitude }
        };
        let label = |host: &Arc<HostSpec>| HostLabel {
            node: host.key.id(),
            consumer: host.consumer.is_some(),
            provider: host.provider.is_some(),
            region: host.region,
            class: host.class,
            adversary: host.adversary.as_ref().and_then(|it| {
                let place = AdversaryKind::ALL.iter().position(|kind| *kind == it.kind)?;
                u16::try_from(place).ok()
            }),
        };
        Description {
            scenario: scenario.name.clone(),
            scenario_text: scenario.to_toml(),
            variant: self.variant.clone(),
            seed: self.seed.0,
            tier: scenario.tier.to_string(),
            commit: COMMIT.to_owned(),
            regions: regions.names().iter().enumerate().map(region).collect(),
            classes: classes(scenario),
            behaviours: AdversaryKind::ALL.iter().map(|kind| kind.as_str().to_owned()).collect(),
            models: models(scenario).into_iter().map(|it| (it.hash, it.name)).collect(),
            hosts: hosts.iter().map(label).collect(),
        }
    }
}

impl Observer for Watch {
    fn begin(&mut self, hosts: &[Arc<HostSpec>]) {
        let about = self.describe(hosts);
        self.recorder = Some(Recorder::new(about, self.destination.clone(), Options::default()));
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
