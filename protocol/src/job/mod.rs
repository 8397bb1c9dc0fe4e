//! One inference job: what is asked, how it can end, and (in the machines beside) how it proceeds.
//!
//! Owns: the words that consumer, provider, engine and gateway share about a job.
//! Must not: hold prompt or completion text in any machine's state; text flows past the core.

pub mod consumer;
pub mod meter;
pub mod provider;
mod refusal;
mod spec;

pub use refusal::{JobError, ProviderRefusal};
pub use spec::{FinishReason, JobSpec, Prompt, Role, Sampling, SpecError, Turn, Usage};
