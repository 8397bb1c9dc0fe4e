//! One inference job: what is asked, how it can end, and (in the machines beside) how it proceeds.
//!
//! Owns: the words that consumer, provider, engine and gateway share about a job.
//! Must not: hold prompt or completion text in any machine's state; text flows past the core.

pub mod consumer;
pub mod meter;
pub mod provider;
mod refusal;
mod spec;

/// A job that runs, as a display shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningJob {
    /// Which.
    pub job: crate::identity::JobId,
    /// The other end.
    pub peer: crate::identity::NodeId,
    /// Which weights.
    pub model: crate::identity::ModelHash,
    /// Tokens of the completion so far.
    pub completion: crate::units::Tokens,
    /// What it cost so far.
    pub cost: crate::units::NanoTon,
}

pub use refusal::{JobError, ProviderRefusal};
pub use spec::{FinishReason, JobSpec, Prompt, Role, Sampling, SpecError, Turn, Usage};
