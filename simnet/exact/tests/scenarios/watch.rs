//! Who watches a test's run: the invariants, and what the tests ask about.
//!
//! Owns: sums. Must not: judge; `check` repeats what the invariants found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cocoon_protocol::channel::ChannelId;
use cocoon_protocol::identity::NodeId;
use simnet_host::invariant::{Bounds, Invariants};
use simnet_host::ledger::BlockReport;
use simnet_host::{HostId, HostSpec, Ledger, Observation, Observer, Sample};
use simnet_scenario::{Moment, Scenario};

#[derive(Default)]
pub(crate) struct Watch {
    scenario: Scenario,
    invariants: Option<Invariants>,
    hosts: BTreeMap<NodeId, HostId>,
    pub(crate) submitted: u32,
    pub(crate) finished: u32,
    pub(crate) failed: u32,
    failures: BTreeMap<String, u32>,
    pub(crate) restarts: u32,
    pub(crate) cost: u64,
    pub(crate) prompts_to_hostile: u32,
    hostile: BTreeSet<NodeId>,
    /// Offers that came in, each provider as often as it was met; those of adversaries.
    pub(crate) met: u32,
    pub(crate) met_hostile: u32,
    promised: BTreeMap<ChannelId, u64>,
    held: BTreeMap<ChannelId, u64>,
    submissions: Vec<u64>,
    completions: Vec<u64>,
    /// Providers that came back and have not served since, with the time of their return.
    back: BTreeMap<HostId, u64>,
    returns: Vec<u64>,
    pub(crate) served_again: u32,
    /// How many samples were taken, and how many of them not at their time.
    pub(crate) samples: u64,
    pub(crate) late_samples: u64,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Watch");
        shown.field("submitted", &self.submitted).field("finished", &self.finished);
        shown.field("failures", &self.failures).field("restarts", &self.restarts);
        shown.field("met", &self.met).field("met_hostile", &self.met_hostile);
        shown.field("served_again", &self.served_again).field("returns", &self.returns);
        shown.finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self { scenario: scenario.clone(), ..Self::default() }
    }

    pub(crate) fn check(&self) {
        let violation = self.invariants.as_ref().and_then(Invariants::violation);
        assert!(violation.is_none(), "{violation:#?}");
    }

    pub(crate) fn promised(&self) -> u64 {
        self.promised.values().sum()
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.values().sum()
    }

    pub(crate) fn submitted_after(&self, millis: u64) -> usize {
        self.submissions.iter().filter(|at| **at >= millis).count()
    }

    pub(crate) fn finished_after(&self, millis: u64) -> usize {
        self.completions.iter().filter(|at| **at >= millis).count()
    }

    /// The longest time from a provider's return to the first prompt that reached it, in ms.
    pub(crate) fn slowest_return(&self) -> Option<u64> {
        self.returns.iter().max().copied()
    }
}

impl Observer for Watch {
    fn begin(&mut self, hosts: &[Arc<HostSpec>]) {
        let mut invariants = Invariants::new(Bounds::of(&self.scenario, hosts));
        invariants.begin(hosts);
        self.invariants = Some(invariants);
        let hostile = hosts.iter().filter(|spec| spec.hostile);
        self.hostile = hostile.map(|spec| spec.key.id()).collect();
        self.hosts = hosts.iter().map(|spec| (spec.key.id(), spec.id)).collect();
    }

    fn observe(&mut self, at: Moment, host: HostId, fact: &Observation) {
        if let Some(invariants) = &mut self.invariants {
            invariants.observe(at, host, fact);
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "sums of what the tests ask about")]
        match fact {
            Observation::JobSubmitted { .. } => {
                self.submitted += 1;
                self.submissions.push(at.as_millis());
            }
            Observation::JobFinished { cost, .. } => {
                self.finished += 1;
                self.completions.push(at.as_millis());
                self.cost += cost.as_nano();
            }
            Observation::JobFailed { kind, .. } => {
                self.failed += 1;
                *self.failures.entry(format!("{kind:?}")).or_default() += 1;
            }
            Observation::Started { restart: true } => {
                self.restarts += 1;
                self.back.insert(host, at.as_millis());
            }
            Observation::Crashed => {
                self.back.remove(&host);
            }
            Observation::Met { provider } => {
                self.met += 1;
                self.met_hostile += u32::from(self.hostile.contains(provider));
            }
            Observation::PromptSent { provider, hostile, .. } => {
                self.prompts_to_hostile += u32::from(*hostile);
                let returned = self.hosts.get(provider).and_then(|it| self.back.remove(it));
                if let Some(returned) = returned {
                    self.served_again += 1;
                    self.returns.push(at.as_millis() - returned);
                }
            }
            Observation::Promised { channel, cumulative } => {
                self.promised.insert(*channel, cumulative.as_nano());
            }
            Observation::Held { channel, cumulative } => {
                self.held.insert(*channel, cumulative.as_nano());
            }
            _ => {}
        }
    }

    fn block(&mut self, at: Moment, block: &BlockReport<'_>) {
        if let Some(invariants) = &mut self.invariants {
            invariants.block(at, block);
        }
    }

    fn is_over(&self) -> bool {
        self.invariants.as_ref().is_some_and(Observer::is_over)
    }

    fn sample(&mut self, sample: &Sample) {
        self.samples += 1;
        let due = self.scenario.sample_every.duration().as_nanos() * u128::from(self.samples);
        self.late_samples += u64::from(u128::from(sample.at.as_nanos()) != due);
        if let Some(invariants) = &mut self.invariants {
            invariants.sample(sample);
        }
    }

    fn end(&mut self, at: Moment, interrupted: bool, ledger: &Ledger) {
        if let Some(invariants) = &mut self.invariants {
            invariants.end(at, interrupted, ledger);
        }
    }
}
