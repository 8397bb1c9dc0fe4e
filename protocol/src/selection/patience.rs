//! How long a consumer waits for a provider, and what it does then.
//!
//! Owns: the time-outs of an attempt, as values that a policy chooses. Must not: read a clock.

use crate::limits;
use crate::units::Millis;

/// Which failed attempts are followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// None: the user gets the first failure.
    Never,
    /// Those that failed before any text was streamed. The prompt may have been paid by then; it is
    /// paid again, within the job's cap.
    BeforeText,
    /// Those too that failed in the middle of an answer: the next provider reads what has come of it
    /// behind the prompt, and goes on.
    Resume,
}

/// When to give up on a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Providers that one job tries at most.
    pub attempts: usize,
    /// From the choice of a provider until its session and channel are ready.
    pub prepare: Millis,
    /// From the request until the provider has counted the prompt, or refuses.
    pub start: Millis,
    /// From there until the first token, beside `each_prompt_token`.
    pub first_token: Millis,
    /// The same, for each token of the prompt.
    pub each_prompt_token: Millis,
    /// Time in which an answer must bring [`limits::JOB_PACE`] tokens.
    pub stall: Millis,
    /// Time without a token after which an answer counts as broken off, where
    /// [`limits::SILENT_TOKENS`] take less; and [`Self::first_token`] until [`limits::JOB_PACE`] tokens
    /// have shown its pace.
    pub silence: Millis,
    /// From the request until the whole answer is there; `None` while it goes on.
    pub answer: Option<Millis>,
    /// From the submission, how long a job waits while everybody who fits is busy.
    pub queue: Millis,
    /// What is tried again.
    pub retry: Retry,
}

impl Default for Patience {
    /// As [`limits`] has it.
    fn default() -> Self {
        Self {
            attempts: limits::ATTEMPTS_PER_JOB,
            prepare: limits::JOB_PREPARE_TIMEOUT,
            start: limits::JOB_START_TIMEOUT,
            first_token: limits::FIRST_TOKEN_TIMEOUT,
            each_prompt_token: limits::PREFILL_EACH,
            stall: limits::JOB_STALL_TIMEOUT,
            silence: limits::JOB_SILENCE,
            answer: None,
            queue: limits::QUEUE_TIMEOUT,
            retry: Retry::Resume,
        }
    }
}
