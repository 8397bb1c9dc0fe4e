//! Exposure is one step: no job is served further than that beyond what is paid, and no consumer
//! owes more than a provider tolerates.
//!
//! Owns: the bounds, from the protocol's limits. Must not: ask the protocol whether it kept them.

use cocoon_protocol::limits;
use cocoon_protocol::units::{NanoTon, Tokens};

use super::Verdict;
use super::place::ByHost;
use crate::fabric::HostId;

pub(super) const NAME: &str = "exposure";

/// A provider that has been paid so much tolerates one part of it.
const TOLERATED_PART: u64 = 16;

/// A job as far as it is not paid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    pub(super) unpaid: Tokens,
    pub(super) value: NanoTon,
    /// What a step of it costs.
    pub(super) step: NanoTon,
}

/// A consumer's account at a provider.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) owes: NanoTon,
    pub(super) credited: NanoTon,
}

#[derive(Debug, Default)]
pub(super) struct Exposure {
    /// The dearest step that each provider has sold.
    steps: ByHost<NanoTon>,
}

impl Exposure {
    /// Names the memory of a provider's entry.
    pub(super) fn place(&self, provider: HostId) -> *const u8 {
        self.steps.get(provider).map_or(std::ptr::null(), |step| std::ptr::from_ref(step).cast())
    }

    pub(super) fn exposed(&mut self, provider: HostId, job: Served, peer: Account) -> Verdict {
        let Served { unpaid, value, step } = job;
        if unpaid > limits::CREDIT_STEP {
            let most = limits::CREDIT_STEP;
            return Err(format!("{unpaid} tokens worth {value} are unpaid in a job, of {most}"));
        }
        let Some(dearest) = self.steps.entry(provider) else { return Ok(()) };
        *dearest = step.max(*dearest);
        let steps = dearest.as_nano().saturating_mul(u64::from(limits::DEBT_STEPS));
        let part = peer.credited.checked_fraction(1, TOLERATED_PART).unwrap_or(NanoTon::ZERO);
        // Who owes as much as is tolerated still gets one job at a time, and its step.
        let tolerated = NanoTon::from_nano(steps).max(part).saturating_add(*dearest);
        if peer.owes > tolerated {
            let owes = peer.owes;
            return Err(format!(
                "a consumer owes {owes} in running and ended jobs; {tolerated} is tolerated"
            ));
        }
        Ok(())
    }
}
