//! A consumer's jobs as a display shows them: which step each is at, and what it has come to.
//!
//! Owns: the words for a job's phase. Must not: be asked by a rule, or change anything.

use super::{Consumer, Running, Stage};
use crate::attest::Tier;
use crate::identity::{JobId, ModelHash, NodeId};
use crate::units::{NanoTon, Prices, Timestamp, Tokens};

/// The step that a consumer's job is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has no offer that fits.
    Looking,
    /// Everybody who fits is busy.
    Waiting,
    /// A provider is chosen; its session or channel is not ready yet.
    Preparing,
    /// The request is out.
    Requested,
    /// The answer is coming.
    Running(Progress),
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tokens of the prompt, as the provider has counted them.
    pub prompt: Tokens,
    /// Tokens of the completion that came.
    pub received: Tokens,
    /// Those of them that are paid.
    pub paid_for: Tokens,
    /// Vouchers signed for it.
    pub vouchers: u32,
    /// What they promise, all in all.
    pub promised: NanoTon,
    /// What the session proved.
    pub tier: Tier,
    /// Whether its user has left: the receipt is still paid.
    pub cancelled: bool,
}

/// A job that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobView {
    /// Which.
    pub job: JobId,
    /// Which weights.
    pub model: ModelHash,
    /// The lowest acceptable tier.
    pub minimum_tier: Tier,
    /// When it was submitted.
    pub submitted: Timestamp,
    /// Providers that were tried before.
    pub tried: usize,
    /// Who has it, or is to have it, and at which prices.
    pub provider: Option<(NodeId, Prices)>,
    /// Its step.
    pub phase: Phase,
    /// When it is given up, or tried elsewhere.
    pub deadline: Timestamp,
}

impl Consumer {
    /// The jobs that are not over, in the order of their ids; for displays.
    pub fn job_views(&self) -> impl Iterator<Item = JobView> {
        let patience = self.policy.patience();
        self.jobs.iter().map(move |(job, found)| JobView {
            job: *job,
            model: found.demand.model,
            minimum_tier: found.demand.minimum_tier,
            submitted: found.submitted,
            tried: found.tried.len(),
            provider: found.candidate().map(|it| (it.provider, it.prices)),
            phase: found.stage.phase(),
            deadline: found.deadline(&patience),
        })
    }

    /// Whether it takes nothing new, for displays.
    pub const fn is_draining(&self) -> bool {
        self.draining
    }
}

impl Stage {
    fn phase(&self) -> Phase {
        match self {
            Self::Looking { .. } => Phase::Looking,
            Self::Waiting { .. } => Phase::Waiting,
            Self::Preparing { .. } => Phase::Preparing,
            Self::Requested { .. } => Phase::Requested,
            Self::Running(running) => Phase::Running(running.view()),
            Self::Broken(broken) => Phase::Running(broken.running.view()),
        }
    }
}

impl Running {
    const fn view(&self) -> Progress {
        Progress {
            prompt: self.prompt,
            received: self.received,
            paid_for: self.paid_for,
            vouchers: self.vouchers,
            promised: self.promised,
            tier: self.proved.tier,
            cancelled: self.cancelled,
        }
    }
}
