//! The engine port: what the node asks of anything that can continue a prompt.
//!
//! Owns: the trait, its values, and the rules of grants that money depends on.
//! Must not: name an engine, or show a prompt or completion in any error or debug output.

use std::fmt;

use cocoon_protocol::identity::{ModelHash, NodeId};
use cocoon_protocol::job::{FinishReason, JobSpec, ProviderRefusal, SpecError, Usage};
use cocoon_protocol::units::{Millis, Timestamp, Tokens};
use tokio::sync::mpsc;

/// Something that continues prompts with one model.
///
/// **Grants.** Nothing is computed for a job before its first grant above zero: tokenising is all
/// that `submit` causes. A grant of `n` lets the engine generate `n` completion tokens in total;
/// an engine never generates token `n + 1`, not even to hold it back. A job that used up its grant
/// keeps its place and its memory and waits, while others go on.
pub trait Engine: Send + Sync + fmt::Debug {
    /// What this engine serves. Does not change while it lives.
    fn capabilities(&self) -> Capabilities;

    /// How busy it is now.
    fn load(&self) -> Load;

    /// Takes a job or refuses it at once; there is no queue behind a full engine, because another
    /// provider is a better place to wait.
    fn submit(&self, job: EngineJob) -> Result<Generation, SubmitError>;
}

/// What an engine serves, and up to which size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The only model whose jobs are taken.
    pub model: ModelHash,
    /// Tokens of prompt and completion together that one job may use.
    pub context: Tokens,
    /// Jobs at a time.
    pub slots: u32,
    /// Which engine, in which version: part of what a provider states about itself.
    pub build: String,
    /// Text of a prompt, in bytes.
    pub prompt_bytes: usize,
}

/// How busy an engine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs that have tokens left to generate under their grant.
    pub running: u32,
    /// Jobs that hold a place and wait for their next grant.
    pub waiting: u32,
    /// Places in all.
    pub slots: u32,
}

impl Load {
    /// Places that a new job could take.
    pub const fn free(self) -> u32 {
        self.slots.saturating_sub(self.running).saturating_sub(self.waiting)
    }
}

/// Which jobs may share the computed beginning of their prompts.
///
/// Reuse makes the first token come sooner, so sharing it between strangers would let one of them
/// find out what another has asked. A provider gives each consumer a scope of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PrefixScope([u8; 32]);

impl PrefixScope {
    /// Everybody who is served without an identity: tests, and a node's own jobs.
    pub const LOCAL: Self = Self([0; 32]);

    /// The scope of one consumer.
    pub const fn of(consumer: NodeId) -> Self {
        Self(*consumer.as_bytes())
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// A request for an engine.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineJob {
    /// What is asked.
    pub spec: JobSpec,
    /// With whose earlier jobs computed prompts may be shared.
    pub scope: PrefixScope,
    /// The date that chat templates may write into the prompt.
    pub now: Timestamp,
}

/// Why a job was not taken. Nothing was computed and nothing is owed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// All places, or the memory for computed tokens, are taken.
    #[error("the engine is full; try again when a job has ended")]
    Busy,
    /// The engine serves another model.
    #[error("the engine does not serve this model")]
    UnknownModel,
    /// The request breaks a bound of the protocol.
    #[error("the request breaks a bound")]
    BadSpec(#[source] SpecError),
    /// The model's chat template refuses this dialogue.
    #[error("the model's chat template refuses the dialogue: {reason}")]
    BadDialogue {
        /// The template's own words, or the rule that it broke; never text of the prompt.
        reason: String,
    },
    /// The prompt leaves no room for a single token of completion.
    #[error("the prompt needs {prompt} tokens; the context holds {context}")]
    ContextExceeded {
        /// Tokens of the prompt.
        prompt: Tokens,
        /// Tokens that the context holds.
        context: Tokens,
    },
    /// The engine is starting, or restarting after a crash.
    #[error("the engine is not ready; try again shortly")]
    NotReady,
    /// The engine is shutting down.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

impl SubmitError {
    /// The same in the words of the wire. `retry_after` is the caller's guess of when a place will
    /// be free.
    pub fn to_refusal(&self, retry_after: Millis) -> ProviderRefusal {
        match self {
            Self::Busy => ProviderRefusal::Busy { retry_after },
            Self::UnknownModel => ProviderRefusal::UnknownModel,
            Self::BadSpec(error) => ProviderRefusal::BadRequest { reason: error.to_string() },
            Self::BadDialogue { reason } => ProviderRefusal::BadRequest { reason: reason.clone() },
            Self::ContextExceeded { prompt, context } => {
                ProviderRefusal::ContextExceeded { prompt: *prompt, context: *context }
            }
            Self::NotReady => ProviderRefusal::EngineFailed,
            Self::ShuttingDown => ProviderRefusal::Draining,
        }
    }
}

/// Why a job that was taken came to nothing, or to less than was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineFailure {
    /// Refused after its prompt was tokenised. Comes instead of `Started`: nothing was computed.
    #[error("the engine refused the job")]
    Refused(#[source] SubmitError),
    /// The engine's process died. What was streamed so far stands.
    #[error("the engine's process died; it is being restarted")]
    Crashed,
    /// The engine's process stopped answering and was killed.
    #[error("the engine's process stopped answering and is being restarted")]
    Hung,
    /// The engine could not compute a step.
    #[error("the engine could not compute the next token")]
    Compute,
}

/// What an engine reports about a job, in this order: `Started`, any number of `Text`, and one of
/// `Finished` and `Failed`, after which the channel is closed. A job that is refused late reports
/// `Failed` alone.
#[derive(Clone, PartialEq, Eq)]
pub enum Generated {
    /// The prompt is tokenised and a place is kept. Nothing is computed before the first grant.
    Started {
        /// Tokens of the prompt, with the chat template around it.
        prompt: Tokens,
    },
    /// One more token was generated. Every token is reported, so that a meter can never lag behind.
    Text {
        /// The text that became certain: empty while a character is incomplete or a stop string
        /// may be forming, and then longer than one token.
        text: String,
        /// Tokens generated so far, this one included.
        completion: Tokens,
    },
    /// The end.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Exact: generated tokens are counted whether or not their text was delivered (a stop
        /// string is not); the model's own end-of-generation token is not counted.
        usage: Usage,
    },
    /// The end, by failure.
    Failed(EngineFailure),
}

impl fmt::Debug for Generated {
    /// Never the text: debug output may reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { prompt } => write!(f, "Started({prompt} tokens)"),
            Self::Text { text, completion } => {
                write!(f, "Text({} bytes, token {completion})", text.len())
            }
            Self::Finished { reason, usage } => {
                write!(f, "Finished({}, {usage:?})", reason.as_str())
            }
            Self::Failed(failure) => write!(f, "Failed({failure:?})"),
        }
    }
}

/// A job that an engine has taken. Dropping either half cancels it.
#[derive(Debug)]
pub struct Generation {
    /// What the engine reports. Holds a whole answer, so that a slow reader never holds up the
    /// engine: `max_completion` is bounded by the context before it becomes a capacity.
    pub events: mpsc::Receiver<Generated>,
    /// How far the engine may go.
    pub control: GenerationControl,
}

/// How an engine lets a running job be steered; [`GenerationControl`] calls it.
pub trait Steer: Send + Sync + fmt::Debug {
    /// Raises the total to `total_completion`; a lower one changes nothing.
    fn grant(&self, total_completion: Tokens);
    /// Ends the job within a few tokens. May be called at any time, and more than once.
    fn cancel(&self);
}

/// How far an engine may go with a job. Dropping it cancels the job.
#[derive(Debug)]
pub struct GenerationControl(Box<dyn Steer>);

impl GenerationControl {
    /// For engines: the control of one job.
    pub fn new(steer: impl Steer + 'static) -> Self {
        Self(Box::new(steer))
    }

    /// Lets the engine generate up to `total_completion` tokens in total. Grants only grow: a
    /// smaller one changes nothing. The first above zero starts the computation.
    pub fn grant(&self, total_completion: Tokens) {
        self.0.grant(total_completion);
    }

    /// Ends the job within a few tokens; `Finished` then says `Cancelled`, with exact usage.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl Drop for GenerationControl {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Room for every event that a job of `limit` tokens can have: one for each token, one for text
/// that was held back, `Started`, and the end.
pub(crate) fn event_capacity(limit: Tokens) -> usize {
    usize::try_from(limit.saturating_add(Tokens::new(3)).get()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_never_holds_the_completion() {
        let event = Generated::Text { text: "secret".into(), completion: Tokens::new(3) };
        assert_eq!(format!("{event:?}"), "Text(6 bytes, token 3)");
    }

    #[test]
    fn free_places_never_go_below_none() {
        assert_eq!(Load { running: 3, waiting: 1, slots: 8 }.free(), 4);
        assert_eq!(Load { running: 9, waiting: 1, slots: 8 }.free(), 0);
    }
}
