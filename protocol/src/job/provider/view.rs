//! A provider's jobs as a display shows them: which step each is at, and what was granted.
//!
//! Owns: the words for a job's phase. Must not: be asked by a rule, or change anything.

use super::{Provider, Stage};
use crate::identity::{JobId, ModelHash, NodeId, TonAddress};
use crate::job::Usage;
use crate::units::{NanoTon, Prices, Timestamp, Tokens};

/// The step that a provider's job is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The engine counts the prompt.
    Admitting,
    /// Tokens may flow up to the grant.
    Running {
        /// Tokens of the prompt.
        prompt: Tokens,
        /// Tokens of the completion that it may write; none before the prompt is paid.
        granted: Option<Tokens>,
        /// Tokens of the completion that went out.
        generated: Tokens,
    },
    /// The receipt is out; the last voucher is awaited.
    Closing {
        /// What it cost.
        price: NanoTon,
        /// Tokens read and written.
        usage: Usage,
    },
}

/// A job that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobView {
    /// Whose.
    pub consumer: NodeId,
    /// Which.
    pub job: JobId,
    /// Which weights.
    pub model: ModelHash,
    /// What it costs.
    pub prices: Prices,
    /// The vault that pays.
    pub vault: TonAddress,
    /// When it was taken.
    pub taken: Timestamp,
    /// Its step.
    pub phase: Phase,
}

impl Provider {
    /// The jobs that are not over, in the order of their consumers; for displays.
    pub fn job_views(&self) -> impl Iterator<Item = JobView> {
        self.jobs.iter().map(|((consumer, job), serving)| JobView {
            consumer: *consumer,
            job: *job,
            model: serving.request.model,
            prices: serving.prices,
            vault: serving.vault,
            taken: serving.started,
            phase: serving.stage.phase(),
        })
    }

    /// Whether a settlement with this vault is under way, for displays.
    pub fn is_settling(&self, vault: TonAddress) -> bool {
        self.settling.contains(&vault)
    }
}

impl Stage {
    const fn phase(&self) -> Phase {
        match *self {
            Self::Admitting => Phase::Admitting,
            Self::Running { prompt, granted, generated, .. } => {
                Phase::Running { prompt, granted, generated }
            }
            Self::Closing { price, usage, .. } => Phase::Closing { price, usage },
        }
    }
}
