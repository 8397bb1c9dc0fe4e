//! What the exact tier shows of the overlay: times, sizes and rates, for the abstract tier's
//! calibration and for the tables of the documentation.
//!
//! Owns: which figures, their units, and the part of a run that counts. Must not: write files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cocoon_overlay::Measured;
use cocoon_protocol::identity::NodeId;
use simnet_host::{Control, HostId, HostSpec, Observation, Observer, Outcome, Sample};
use simnet_scenario::{Moment, Regions, Scenario, Seed};

use crate::run::{Run, RunError};

/// Round trips of the attested channel's handshake, which every session needs.
const ATTESTATION_ROUND_TRIPS: f64 = 2.0;

/// What a run showed of the overlay. Times are in milliseconds of virtual time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurement {
    /// Nodes of the run.
    pub nodes: u32,
    /// From a want to its first offer: the least, the deciles, the most. Eleven, or none if nobody
    /// wanted anything.
    pub route_ready_ms: Vec<f64>,
    /// From the beginning of a want's first look-up to the first providers' names, in the same way.
    pub look_up_ms: Vec<f64>,
    /// Providers that a look-up named, on average.
    pub found: f64,
    /// From the decision to contact a provider to its offer, the dial included where one was
    /// needed, in round trips between the two nodes: the least, the deciles, the most.
    pub contact_round_trips: Vec<f64>,
    /// From the wish for a session to its evidence, beyond the attestation's two round trips, in
    /// round trips between the two nodes; the median.
    pub dial_round_trips: f64,
    /// Connections for each node, each counted at one of its ends, on average after the warm-up.
    pub connections: f64,
    /// Offers in consumers' warm tables at the end, for each node.
    pub warm: f64,
    /// Bytes on the wire for each node and second after the warm-up, by protocol.
    pub bytes_per_second: BTreeMap<&'static str, f64>,
    /// Jobs finished and submitted.
    pub jobs: (u32, u32),
    /// How the run ended.
    pub outcome: Option<Outcome>,
}

/// Runs a scenario and measures. As [`crate::run`]: on a fresh thread, once in a process.
pub fn measure(
    scenario: &Scenario,
    seed: Seed,
    control: Control<'_>,
) -> Result<Measurement, RunError> {
    measure_with(scenario, seed, &mut Silent, control)
}

/// As [`measure`], with somebody who watches.
pub fn measure_with(
    scenario: &Scenario,
    seed: Seed,
    observer: &mut dyn Observer,
    control: Control<'_>,
) -> Result<Measurement, RunError> {
    let mut run = Run::new(scenario, seed)?;
    let mut sums = Sums::new(scenario, &run.hosts);
    let mut both = (&mut sums, observer);
    let interrupted = run.go(&mut both, control)?;
    let mut measurement = sums.result();
    run.overlays(|host, overlay| {
        measurement.warm +=
            overlay.status().warm.iter().map(|(_, count)| real(*count)).sum::<f64>();
        sums.overlay(host, overlay.take_measured());
    });
    measurement.warm /= f64::from(measurement.nodes.max(1));
    sums.complete(&mut measurement);
    measurement.outcome = Some(run.outcome(interrupted));
    Ok(measurement)
}

struct Silent;

impl Observer for Silent {
    fn observe(&mut self, _: Moment, _: HostId, _: &Observation) {}
}

/// What is added up in a run.
struct Sums {
    nodes: u32,
    regions: Regions,
    warm_up: Moment,
    hosts: BTreeMap<NodeId, Arc<HostSpec>>,
    by_id: Vec<Arc<HostSpec>>,
    routes: Vec<f64>,
    look_ups: Vec<f64>,
    found: Vec<f64>,
    contacts: Vec<f64>,
    dials: Vec<f64>,
    connections: Vec<f64>,
    first: Option<Sample>,
    last: Option<Sample>,
    finished: u32,
    submitted: u32,
}

impl Sums {
    fn new(scenario: &Scenario, hosts: &[Arc<HostSpec>]) -> Self {
        Self {
            nodes: u32::try_from(hosts.len()).unwrap_or(u32::MAX),
            regions: Regions::of(scenario.network.topology),
            warm_up: Moment::START.after(scenario.warm_up.duration()),
            hosts: hosts.iter().map(|spec| (spec.key.id(), Arc::clone(spec))).collect(),
            by_id: hosts.to_vec(),
            routes: Vec::new(),
            look_ups: Vec::new(),
            found: Vec::new(),
            contacts: Vec::new(),
            dials: Vec::new(),
            connections: Vec::new(),
            first: None,
            last: None,
            finished: 0,
            submitted: 0,
        }
    }

    /// A time in round trips between two hosts, jitter and processors aside.
    fn round_trips(&self, from: HostId, to: NodeId, time: Duration) -> Option<f64> {
        let from = self.by_id.get(usize::try_from(from.0).ok()?)?;
        let to = self.hosts.get(&to)?;
        let way =
            self.regions.one_way(from.region, to.region) + from.link.last_mile + to.link.last_mile;
        Some(time.as_secs_f64() / (2.0 * way.as_secs_f64()))
    }

    fn overlay(&mut self, host: HostId, measured: Vec<Measured>) {
        let mut asked = BTreeSet::new();
        for step in measured {
            match step {
                // Who asks again knows the way: only the first answer is what a user waits for.
                Measured::LookUp { want, first, found } if asked.insert(want) => {
                    self.look_ups.push(first.as_secs_f64() * 1e3);
                    self.found.push(real(found));
                }
                Measured::LookUp { .. } => {}
                Measured::Contact { provider, after } => {
                    self.contacts.extend(self.round_trips(host, provider, after));
                }
            }
        }
    }

    fn result(&self) -> Measurement {
        let mut rates = BTreeMap::new();
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            let seconds = last.at.since(first.at).as_secs_f64();
            for (name, sum) in &last.traffic {
                let before = first.traffic.iter().find(|(known, _)| known == name);
                let sent = sum.saturating_sub(before.map_or(0, |(_, sum)| *sum));
                #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
                let sent = sent as f64;
                rates.insert(*name, sent / seconds.max(f64::MIN_POSITIVE) / f64::from(self.nodes));
            }
        }
        Measurement {
            nodes: self.nodes,
            route_ready_ms: deciles(self.routes.clone()),
            connections: mean(&self.connections),
            bytes_per_second: rates,
            jobs: (self.finished, self.submitted),
            ..Measurement::default()
        }
    }

    fn complete(&self, measurement: &mut Measurement) {
        let median = |of: &[f64]| deciles(of.to_vec()).get(5).copied().unwrap_or(0.0);
        measurement.look_up_ms = deciles(self.look_ups.clone());
        measurement.found = mean(&self.found);
        measurement.contact_round_trips = deciles(self.contacts.clone());
        measurement.dial_round_trips = (median(&self.dials) - ATTESTATION_ROUND_TRIPS).max(0.0);
    }
}

impl Observer for Sums {
    fn observe(&mut self, _: Moment, host: HostId, fact: &Observation) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "a measurement of the overlay")]
        match fact {
            Observation::RouteReady { after, .. } => self.routes.push(after.as_secs_f64() * 1e3),
            Observation::SessionOpened { peer, after } => {
                self.dials.extend(self.round_trips(host, *peer, *after));
            }
            Observation::JobSubmitted { .. } => self.submitted = self.submitted.saturating_add(1),
            Observation::JobFinished { .. } => self.finished = self.finished.saturating_add(1),
            _ => {}
        }
    }

    fn sample(&mut self, sample: &Sample) {
        if sample.at < self.warm_up {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53 connections")]
        let connections = sample.connections as f64;
        self.connections.push(connections / f64::from(self.nodes));
        self.first.get_or_insert_with(|| sample.clone());
        self.last = Some(sample.clone());
    }
}

/// The least, the deciles and the most; nothing of nothing.
fn deciles(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = |decile: usize| values.get(last.saturating_mul(decile) / 10).copied();
    (0..=10).filter_map(at).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / real(values.len().max(1))
}

fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eleven_values_describe_many() {
        assert_eq!(deciles((0..=100).map(f64::from).collect())[..3], [0.0, 10.0, 20.0]);
        assert_eq!(deciles(vec![3.0, 1.0, 2.0]).len(), 11);
        assert_eq!(deciles(vec![3.0, 1.0, 2.0])[10], 3.0);
        assert!(deciles(Vec::new()).is_empty());
        assert!((mean(&[1.0, 2.0, 6.0]) - 3.0).abs() < 1e-12);
    }
}
