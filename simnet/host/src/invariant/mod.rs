//! What must hold in every run, whatever is lost, late, hostile or killed.
//!
//! Owns: the list of invariants, who hears which fact, and what a violation says.
//! Must not: change a run, or know how a host or a tier works: it hears facts and judges them.
//!
//! One file each. Every one is cheap (a look-up or less for a fact), so that all are on in every
//! run of both tiers. The first violation ends the run; all are counted.

mod exposure;
mod jobs;
mod liveness;
mod money;
mod place;
mod queues;
mod settlements;
#[cfg(test)]
mod tests;
mod tiers;
mod vouchers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::channel::ChannelId;
use simnet_scenario::population::ChurnClass;
use simnet_scenario::quantity::Share;
use simnet_scenario::{AdversaryKind, Moment, Scenario};

use crate::fabric::HostId;
use crate::host::HostSpec;
use crate::ledger::{BlockReport, Ledger, LedgerFact};
use crate::observation::{NOWHERE, Observation, Observer, Places};

pub use liveness::Healing;
pub use place::short;

/// Facts that a violation carries.
const FACTS: usize = 64;
/// After faults a consumer that asks is served within this time: the protocol's longest wait for a
/// provider that is gone, twice, and a job.
const HEALED_WITHIN: Duration = Duration::from_secs(180);

/// What an invariant may not be judged without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Hosts that may break the protocol: what they promise, hold or risk is not judged; what they
    /// do to others is.
    pub hostile: BTreeSet<HostId>,
    /// How old a job may become. A job that is forgotten is found when that happens; this is for one
    /// that is put off again and again.
    pub oldest_job: Duration,
    /// When faults stop, and what must work again by when; `None` in runs that have no such end.
    pub healing: Option<Healing>,
}

impl Bounds {
    /// Those of a scenario with these hosts. Liveness is judged where all that breaks is over at
    /// some time of the run.
    pub fn of(scenario: &Scenario, hosts: &[Arc<HostSpec>]) -> Self {
        let hostile = hosts.iter().filter(|host| host.hostile).map(|host| host.id).collect();
        let faults = &scenario.faults;
        let lasting = !faults.crash.is_never()
            || faults.crash_at_persist > Share::NONE
            || !scenario.churn.provider_loss.is_never()
            || scenario.adversaries.iter().any(|it| it.kind != AdversaryKind::Partition)
            || hosts.iter().any(|host| host.churn != ChurnClass::None);
        let foul = scenario.adversaries.iter().map(|it| it.until.unwrap_or(scenario.duration));
        let cuts = faults.partitions.iter().map(|it| it.until);
        let outages = scenario.ledger.outages.iter().map(|it| it.until);
        let last = cuts.chain(outages).chain(foul).max();
        let healing = last
            .filter(|at| !lasting && *at < scenario.duration)
            .map(|at| Healing { at: Moment::START.after(at.duration()), within: HEALED_WITHIN });
        Self { hostile, healing, ..Self::default() }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        let oldest_job = Duration::from_secs(2 * 3_600);
        Self { hostile: BTreeSet::new(), oldest_job, healing: None }
    }
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// What is wrong, in words that do not depend on the seed but for the numbers in them.
    pub what: String,
    /// When.
    pub at: Moment,
    /// On which host; `None` when it is nobody's in particular.
    pub host: Option<HostId>,
    /// The last facts before it, oldest first.
    pub facts: Vec<String>,
}

/// The names of all invariants.
pub const NAMES: [&str; 9] = [
    money::NAME,
    vouchers::NAME,
    settlements::NAME,
    exposure::NAME,
    tiers::NAME,
    jobs::NAME,
    queues::NAME,
    liveness::NAME,
    DEFECT,
];
/// The node's own checks.
const DEFECT: &str = "no-defect";

/// What is wrong, if something is.
type Verdict = Result<(), String>;

/// A fact as it was stated, for the report.
#[derive(Clone, Debug)]
enum Heard {
    Host(HostId, Observation),
    Ledger(LedgerFact),
}

/// All invariants of a run.
#[derive(Debug)]
pub struct Invariants {
    money: money::Money,
    vouchers: vouchers::Vouchers,
    settlements: settlements::Settlements,
    exposure: exposure::Exposure,
    jobs: jobs::Jobs,
    liveness: liveness::Liveness,
    hostile: place::ByHost<bool>,
    heard: Vec<(Moment, Heard)>,
    /// Where in it the next fact goes.
    next: usize,
    first: Option<Violation>,
    counts: BTreeMap<&'static str, u64>,
}

impl Invariants {
    /// Watches a run from its start.
    pub fn new(bounds: Bounds) -> Self {
        let mut hostile = place::ByHost::default();
        for host in &bounds.hostile {
            if let Some(marked) = hostile.entry(*host) {
                *marked = true;
            }
        }
        Self {
            jobs: jobs::Jobs::new(bounds.oldest_job),
            liveness: liveness::Liveness::new(bounds.healing),
            money: money::Money,
            vouchers: vouchers::Vouchers::default(),
            settlements: settlements::Settlements::default(),
            exposure: exposure::Exposure::default(),
            hostile,
            heard: Vec::with_capacity(FACTS),
            next: 0,
            first: None,
            counts: BTreeMap::new(),
        }
    }

    /// The first violation.
    pub const fn violation(&self) -> Option<&Violation> {
        self.first.as_ref()
    }

    /// How often each invariant was broken; empty when none was.
    pub const fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// The run is over at `at`; `interrupted` when its user had ended it, so that jobs may be
    /// unfinished. What can only be judged now is.
    pub fn finish(&mut self, at: Moment, interrupted: bool, ledger: &Ledger) {
        let verdict = self.money.audit(ledger);
        self.judge(at, None, money::NAME, verdict);
        if !interrupted {
            let verdict = self.jobs.finish(at);
            self.judge(at, None, jobs::NAME, verdict);
            if let Err((host, what)) = self.liveness.finish(at) {
                self.judge(at, Some(host), liveness::NAME, Err(what));
            }
        }
    }

    #[inline]
    fn judge(&mut self, at: Moment, host: Option<HostId>, name: &'static str, verdict: Verdict) {
        if let Err(what) = verdict {
            self.broken(at, host, name, what);
        }
    }

    #[cold]
    fn broken(&mut self, at: Moment, host: Option<HostId>, name: &'static str, what: String) {
        let count = self.counts.entry(name).or_default();
        *count = count.saturating_add(1);
        if self.first.is_none() {
            let (newer, older) = self.heard.split_at_checked(self.next).unwrap_or_default();
            let facts = older.iter().chain(newer).map(|(at, heard)| match heard {
                Heard::Host(host, fact) => format!("{at} host {}: {fact:?}", host.0),
                Heard::Ledger(fact) => format!("{at} ledger: {fact:?}"),
            });
            let facts = facts.collect();
            self.first = Some(Violation { invariant: name, what, at, host, facts });
        }
    }

    fn remember(&mut self, at: Moment, heard: Heard) {
        match self.heard.get_mut(self.next) {
            Some(oldest) => *oldest = (at, heard),
            None => self.heard.push((at, heard)),
        }
        self.next = if self.next + 1 < FACTS { self.next + 1 } else { 0 };
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most facts concern no invariant")]
    fn hear(&mut self, at: Moment, host: HostId, fact: &Observation) {
        let honest = self.hostile.get(host) != Some(&true);
        let (name, verdict) = match fact {
            Observation::Started { restart: true } if honest => {
                (vouchers::NAME, self.vouchers.restarted(host))
            }
            Observation::Crashed => {
                self.vouchers.crashed(host);
                return;
            }
            Observation::Promised { channel, cumulative } if honest => {
                (vouchers::NAME, self.vouchers.promised(host, channel, *cumulative))
            }
            Observation::Held { channel, cumulative } if honest => {
                (vouchers::NAME, self.vouchers.held(host, channel, *cumulative))
            }
            Observation::Settled { channel, paid } => {
                (settlements::NAME, self.settlements.seen(channel, *paid))
            }
            Observation::Exposed { unpaid, value, peer_owes, step, credited, .. } if honest => {
                let job = exposure::Served { unpaid: *unpaid, value: *value, step: *step };
                let peer = exposure::Account { owes: *peer_owes, credited: *credited };
                (exposure::NAME, self.exposure.exposed(host, job, peer))
            }
            Observation::PromptSent { asked, genuine, .. } if honest => {
                (tiers::NAME, tiers::sent(*asked, *genuine))
            }
            Observation::JobSubmitted { job, .. } => {
                self.liveness.submitted(at, host);
                (jobs::NAME, self.jobs.submitted(at, *job))
            }
            Observation::JobFinished { job, .. } => {
                self.liveness.finished(at, host);
                (jobs::NAME, self.jobs.ended(*job))
            }
            Observation::JobFailed { job, kind, .. } => {
                self.liveness.failed(host, *kind);
                (jobs::NAME, self.jobs.ended(*job))
            }
            Observation::JobsAdrift { waiting, held, attended } => {
                (jobs::NAME, jobs::adrift(*waiting, *held, *attended))
            }
            Observation::Queued { queue, depth, bound } if honest => {
                (queues::NAME, queues::queued(*queue, *depth, *bound))
            }
            Observation::Defect { rule } => (DEFECT, Err((*rule).to_owned())),
            _ => return,
        };
        self.judge(at, Some(host), name, verdict);
    }

    fn hear_ledger(&mut self, at: Moment, fact: &LedgerFact) {
        if let LedgerFact::Opened { host, vault, .. } = fact
            && self.hostile.get(*host) == Some(&true)
        {
            self.vouchers.distrust(*vault);
        }
        let promised = |channel: &ChannelId| self.vouchers.promised_in(channel);
        let verdict = self.settlements.ledger(fact, promised);
        self.judge(at, None, settlements::NAME, verdict);
    }
}

impl Observer for Invariants {
    fn places(&self, host: HostId, step: u8) -> Places {
        let [place, none] = NOWHERE;
        [if step == 0 { self.exposure.place(host) } else { place }, none]
    }

    fn end(&mut self, at: Moment, interrupted: bool, ledger: &Ledger) {
        self.finish(at, interrupted, ledger);
    }

    fn observe(&mut self, at: Moment, host: HostId, fact: &Observation) {
        self.remember(at, Heard::Host(host, fact.clone()));
        self.hear(at, host, fact);
        let verdict = self.jobs.age(at);
        self.judge(at, None, jobs::NAME, verdict);
    }

    fn block(&mut self, at: Moment, block: &BlockReport<'_>) {
        for fact in block.facts {
            self.remember(at, Heard::Ledger(fact.clone()));
            self.hear_ledger(at, fact);
        }
        let verdict = self.money.balance(&block.books);
        self.judge(at, None, money::NAME, verdict);
    }

    fn is_over(&self) -> bool {
        self.first.is_some()
    }
}
