//! After healing, the network works: every consumer that still asks gets a job done.
//!
//! Owns: the phase at the end of a run with faults, and who has been served in it.
//! Must not: judge while faults last.

use std::collections::BTreeMap;
use std::time::Duration;

use simnet_scenario::Moment;

use crate::fabric::HostId;
use crate::observation::FailureKind;

pub(super) const NAME: &str = "live-after-healing";

/// The end of a run's faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Healing {
    /// From then on nothing is lost, cut off or killed.
    pub at: Moment,
    /// A consumer that asks for jobs from then on has one done within this time.
    pub within: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Asking {
    since: Moment,
    /// When it had one done.
    served: Option<Moment>,
    /// It failed for a reason that no healing removes: no money, nobody who offers it.
    excused: bool,
}

#[derive(Debug)]
pub(super) struct Liveness {
    healing: Option<Healing>,
    asking: BTreeMap<HostId, Asking>,
}

impl Liveness {
    pub(super) const fn new(healing: Option<Healing>) -> Self {
        Self { healing, asking: BTreeMap::new() }
    }

    pub(super) fn submitted(&mut self, at: Moment, host: HostId) {
        if self.healing.is_some_and(|healing| at >= healing.at) {
            let asking = Asking { since: at, served: None, excused: false };
            self.asking.entry(host).or_insert(asking);
        }
    }

    pub(super) fn finished(&mut self, at: Moment, host: HostId) {
        if let Some(asking) = self.asking.get_mut(&host) {
            asking.served.get_or_insert(at);
        }
    }

    pub(super) fn failed(&mut self, host: HostId, kind: FailureKind) {
        let excused = match kind {
            FailureKind::FundsExhausted
            | FailureKind::NoProvider
            | FailureKind::NoTier
            | FailureKind::PriceTooHigh
            | FailureKind::Cancelled => true,
            FailureKind::Refused
            | FailureKind::Unreachable
            | FailureKind::AttestationRefused
            | FailureKind::ProviderLost
            | FailureKind::Misbehaved
            | FailureKind::LedgerUnavailable
            | FailureKind::OwnNode
            | FailureKind::Crashed => false,
        };
        if let Some(asking) = self.asking.get_mut(&host) {
            asking.excused |= excused;
        }
    }

    /// At the end of a run: everybody who has asked for long enough was served in time.
    pub(super) fn finish(&self, now: Moment) -> Result<(), (HostId, String)> {
        let Some(healing) = self.healing else { return Ok(()) };
        for (host, asking) in &self.asking {
            let took = asking.served.unwrap_or(now).since(asking.since);
            if took > healing.within && !asking.excused {
                let seconds = took.as_secs();
                let what = match asking.served {
                    Some(_) => format!("a consumer waited {seconds} s for a job after healing"),
                    None => format!("a consumer had no job done {seconds} s after healing"),
                };
                return Err((*host, what));
            }
        }
        Ok(())
    }
}
