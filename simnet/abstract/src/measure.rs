//! What a run shows of the overlay, in the same words for both tiers.
//!
//! Owns: the figures that the calibration is made of and those that must agree. Must not: run.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use simnet_host::{HostId, Observation, Observer, Sample};
use simnet_scenario::{Moment, Scenario, Seed};

/// What a run showed. Times in milliseconds of virtual time; the least, the deciles, the most.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Nodes.
    pub nodes: u32,
    /// The seed of the run.
    pub seed: u64,
    /// From a want to its first offer.
    pub route_ready_ms: Vec<f64>,
    /// From a look-up's beginning to the first providers' names. Exact tier only.
    #[serde(default)]
    pub look_up_ms: Vec<f64>,
    /// Round trips of a contact, from the decision to the first offer. Exact tier only.
    #[serde(default)]
    pub contact_round_trips: Vec<f64>,
    /// Round trips of a session's dial, its attestation aside. Exact tier only.
    #[serde(default)]
    pub dial_round_trips: f64,
    /// Connections for each node.
    pub connections: f64,
    /// Jobs that finished.
    pub finished: u32,
    /// Jobs that were submitted.
    pub submitted: u32,
    /// Bytes on the wire for each node and second after the warm-up, by protocol.
    pub bytes_per_second: BTreeMap<String, f64>,
}

impl Measured {
    /// What several runs of one size show together: means, each run counting the same, and sums of
    /// jobs. Nothing of nothing.
    pub fn together(runs: &[Self]) -> Self {
        let count = real(u64::try_from(runs.len()).unwrap_or(1)).max(1.0);
        let mean = |of: &dyn Fn(&Self) -> f64| runs.iter().map(of).sum::<f64>() / count;
        let means = |of: &dyn Fn(&Self) -> &[f64]| {
            let places = runs.iter().map(|run| of(run).len()).min().unwrap_or(0);
            let at = |place| mean(&|run| of(run).get(place).copied().unwrap_or(0.0));
            (0..places).map(at).collect()
        };
        let names: BTreeSet<_> = runs.iter().flat_map(|run| run.bytes_per_second.keys()).collect();
        let rate =
            |name: &String| mean(&|run| run.bytes_per_second.get(name).copied().unwrap_or(0.0));
        Self {
            nodes: runs.first().map_or(0, |run| run.nodes),
            seed: runs.first().map_or(0, |run| run.seed),
            route_ready_ms: means(&|run| &run.route_ready_ms),
            look_up_ms: means(&|run| &run.look_up_ms),
            contact_round_trips: means(&|run| &run.contact_round_trips),
            dial_round_trips: mean(&|run| run.dial_round_trips),
            connections: mean(&|run| run.connections),
            finished: runs.iter().map(|run| run.finished).sum(),
            submitted: runs.iter().map(|run| run.submitted).sum(),
            bytes_per_second: names.into_iter().map(|it| (it.clone(), rate(it))).collect(),
        }
    }

    /// The three figures that must agree between the tiers: route-ready time in the median, bytes
    /// a node and second, and the share of jobs that finished.
    pub fn figures(&self) -> [(&'static str, f64); 3] {
        let route = self.route_ready_ms.get(5).copied().unwrap_or(0.0);
        let success = f64::from(self.finished) / f64::from(self.submitted.max(1));
        [
            ("route-ready time (ms, median)", route),
            ("traffic (bytes a node and second)", self.bytes_per_second.values().sum()),
            ("success rate", success),
        ]
    }

    /// How far each figure is from the other's, as a share of the other's.
    pub fn deviations(&self, other: &Self) -> [(&'static str, f64, f64, f64); 3] {
        let mut theirs = other.figures().into_iter();
        self.figures().map(|(name, ours)| {
            let theirs = theirs.next().map_or(0.0, |(_, theirs)| theirs);
            (name, ours, theirs, (ours - theirs).abs() / theirs.abs().max(f64::MIN_POSITIVE))
        })
    }
}

/// An observer that measures a run of any tier.
#[derive(Debug)]
pub struct Gauge {
    measured: Measured,
    warm_up: Moment,
    first: Option<Sample>,
    last: Option<Sample>,
    connections: Vec<f64>,
}

impl Gauge {
    /// For a run of this scenario.
    pub fn new(scenario: &Scenario, seed: Seed) -> Self {
        let nodes = scenario.population.nodes;
        Self {
            measured: Measured { nodes, seed: seed.0, ..Measured::default() },
            warm_up: Moment::START.after(scenario.warm_up.duration()),
            first: None,
            last: None,
            connections: Vec::new(),
        }
    }

    /// What the run showed.
    pub fn finish(mut self) -> Measured {
        let nodes = f64::from(self.measured.nodes.max(1));
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            let seconds = last.at.since(first.at).as_secs_f64().max(f64::MIN_POSITIVE);
            for (name, sum) in &last.traffic {
                let before = first.traffic.iter().find(|(known, _)| known == name);
                let sent = real(sum.saturating_sub(before.map_or(0, |(_, sum)| *sum)));
                self.measured.bytes_per_second.insert((*name).to_owned(), sent / seconds / nodes);
            }
        }
        let count = real(u64::try_from(self.connections.len()).unwrap_or(1)).max(1.0);
        self.measured.connections = self.connections.iter().sum::<f64>() / count / nodes;
        self.measured.route_ready_ms = deciles(self.measured.route_ready_ms);
        self.measured
    }
}

impl Observer for Gauge {
    fn observe(&mut self, _: Moment, _: HostId, fact: &Observation) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "four facts are measured")]
        match fact {
            Observation::RouteReady { after, .. } => {
                self.measured.route_ready_ms.push(after.as_secs_f64() * 1e3);
            }
            Observation::JobSubmitted { .. } => self.measured.submitted += 1,
            Observation::JobFinished { .. } => self.measured.finished += 1,
            _ => {}
        }
    }

    fn sample(&mut self, sample: &Sample) {
        if sample.at >= self.warm_up {
            self.connections.push(real(sample.connections));
            self.first.get_or_insert_with(|| sample.clone());
            self.last = Some(sample.clone());
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
const fn real(count: u64) -> f64 {
    count as f64
}

/// The least, the deciles and the most; nothing of nothing.
pub(crate) fn deciles(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    (0..=10).filter_map(|decile| values.get(last * decile / 10).copied()).collect()
}
