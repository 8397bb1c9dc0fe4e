//! The port through which the gateway reaches the node: models, jobs, health.
//!
//! Owns: what the gateway needs from a node, in the protocol's own types.
//! Must not: know HTTP, or how a provider is chosen and paid.

use std::collections::BTreeSet;
use std::fmt;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{JobId, ModelHash, NodeId, ReceiptHash};
use cocoon_protocol::job::{FinishReason, JobError, Prompt, Sampling, Usage};
use cocoon_protocol::units::{NanoTon, Prices, Tokens};
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a gateway asks of its node.
pub trait Jobs: Send + Sync + fmt::Debug {
    /// Every model that can be asked for: known to the catalogue, offered by a provider, or both.
    fn models(&self) -> BoxFuture<'_, Vec<ModelListing>>;

    /// Starts a job. Resolves when a provider has accepted it and begun, or with the last refusal.
    /// Dropping the future before that cancels the job: the HTTP client has gone.
    fn submit(&self, request: JobRequest) -> BoxFuture<'_, Result<JobStream, JobError>>;

    /// How the node is doing.
    fn health(&self) -> BoxFuture<'_, Health>;
}

/// What a request may say in front of a model's hash.
const HASH_PREFIX: &str = "blake3:";

/// The text begins with `blake3:` but no hash follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`blake3:` must be followed by the 64 hexadecimal digits of a model's hash")]
pub struct ParseModelError;

/// The hash in a request's `model`, if it has the form `blake3:<64 hexadecimal digits>`; `None`
/// for a name, which the consumer's own catalogue resolves.
pub fn model_hash_in(model: &str) -> Result<Option<ModelHash>, ParseModelError> {
    match model.strip_prefix(HASH_PREFIX) {
        None => Ok(None),
        Some(digits) => ModelHash::from_hex(digits).map(Some).ok_or(ParseModelError),
    }
}

/// The spelling that [`model_hash_in`] reads back.
pub(crate) fn model_hash_text(hash: ModelHash) -> String {
    format!("{HASH_PREFIX}{hash}")
}

/// One model that this node can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelListing {
    /// The name in the consumer's catalogue; `None` when it is known by its hash only.
    pub name: Option<String>,
    /// What the name stands for.
    pub hash: ModelHash,
    /// Current offers that this node has heard of.
    pub offers: u32,
    /// The cheapest prices on offer; `None` without an offer.
    pub cheapest: Option<Prices>,
    /// The tiers on offer.
    pub tiers: BTreeSet<Tier>,
    /// The longest context on offer; `None` without an offer.
    pub context: Option<Tokens>,
}

impl ModelListing {
    /// What a request's `model` says to mean this one.
    pub fn id(&self) -> String {
        self.name.clone().unwrap_or_else(|| model_hash_text(self.hash))
    }
}

/// A request as the node takes it: checked against the bounds of `cocoon_protocol::limits`.
#[derive(Clone, PartialEq)]
pub struct JobRequest {
    /// A name for the catalogue, or `blake3:<64 hexadecimal digits>`; see [`model_hash_in`].
    pub model: String,
    /// The text to continue.
    pub prompt: Prompt,
    /// How tokens are drawn; the seed is the client's, or random.
    pub sampling: Sampling,
    /// The completion ends before the first of these.
    pub stop: Vec<String>,
    /// The completion ends after this many tokens; `None` leaves it to the node and the context.
    pub max_completion: Option<Tokens>,
    /// The lowest tier that may see the prompt; `None` leaves it to the node's configuration.
    pub minimum_tier: Option<Tier>,
    /// The most that the answer may cost; `None` leaves it to the node's configuration.
    pub max_cost: Option<NanoTon>,
    /// Hash of the API key that asks; `None` where none is needed.
    pub caller: Option<[u8; 32]>,
}

impl fmt::Debug for JobRequest {
    /// Never the text, nor the stop strings, which are the user's words as well.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobRequest")
            .field("model", &self.model)
            .field("prompt", &self.prompt)
            .field("stop", &self.stop.len())
            .field("max_completion", &self.max_completion)
            .field("minimum_tier", &self.minimum_tier)
            .field("max_cost", &self.max_cost)
            .finish_non_exhaustive()
    }
}

/// What is known when a provider has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The job, as in the receipt.
    pub job: JobId,
    /// Who serves it.
    pub provider: NodeId,
    /// The tier that the provider's evidence earned.
    pub tier: Tier,
    /// The evidence is from the test root and protects nothing.
    pub simulated: bool,
    /// The model that is served.
    pub model: ModelHash,
    /// What is charged.
    pub prices: Prices,
    /// Tokens of the prompt after the template, as the provider counted them.
    pub prompt: Tokens,
}

/// A running job. Dropping it cancels the job, so that a closed HTTP connection stops the spending.
#[derive(Debug)]
pub struct JobStream {
    /// What is known at the start.
    pub accepted: Accepted,
    /// The answer as it comes: any number of texts, then exactly one end. The channel is bounded
    /// and is read only as fast as the HTTP client reads; a full one must slow the job.
    pub events: mpsc::Receiver<JobEvent>,
    _cancel_on_drop: DropGuard,
}

impl JobStream {
    /// `cancel` is cancelled when the stream is dropped, also after the end, where it means
    /// nothing any more.
    pub fn new(
        accepted: Accepted,
        events: mpsc::Receiver<JobEvent>,
        cancel: CancellationToken,
    ) -> Self {
        Self { accepted, events, _cancel_on_drop: cancel.drop_guard() }
    }
}

/// What happens to a running job.
#[derive(Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// More of the answer.
    Text {
        /// Whole characters.
        text: String,
        /// Completion tokens so far, this text included.
        completion: Tokens,
    },
    /// The provider was lost, and another one goes on where its text ended, or begins anew where there
    /// was none.
    TakenOver(Accepted),
    /// The answer has ended. Nothing follows.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// Tokens read and written.
        usage: Usage,
        /// What was paid, to all who had a part in it.
        cost: NanoTon,
        /// The last provider's signed receipt, when it came.
        receipt: Option<ReceiptHash>,
        /// Vouchers that paid for it.
        vouchers: u32,
    },
    /// The job is lost. Nothing follows.
    Failed(JobError),
}

impl fmt::Debug for JobEvent {
    /// Never the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { text, completion } => {
                write!(f, "Text({} bytes, {completion} tokens so far)", text.len())
            }
            Self::TakenOver(accepted) => f.debug_tuple("TakenOver").field(accepted).finish(),
            Self::Finished { reason, usage, cost, receipt, vouchers } => f
                .debug_struct("Finished")
                .field("reason", reason)
                .field("usage", usage)
                .field("cost", cost)
                .field("receipt", receipt)
                .field("vouchers", vouchers)
                .finish(),
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}

/// How a node is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// This node.
    pub node: NodeId,
    /// What keeps jobs from being served and what to do about it; `None` when nothing does.
    pub problem: Option<String>,
    /// Peers it is connected to.
    pub peers: u32,
    /// Current offers that it knows.
    pub offers: u32,
    /// Jobs that run for its clients.
    pub jobs: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_name_or_a_whole_hash() {
        let hash = ModelHash::from_bytes([0xab; 32]);
        assert_eq!(model_hash_in("smollm2-135m"), Ok(None));
        assert_eq!(model_hash_in(&model_hash_text(hash)), Ok(Some(hash)));
        assert_eq!(model_hash_in("blake3:abcd"), Err(ParseModelError));
        assert_eq!(model_hash_in("blake3:"), Err(ParseModelError));
    }

    #[test]
    fn debug_output_never_holds_a_users_words() {
        let request = JobRequest {
            model: "m".into(),
            prompt: Prompt::Text("secret".into()),
            sampling: Sampling::with_seed(1),
            stop: vec!["secret".into()],
            max_completion: None,
            minimum_tier: None,
            max_cost: None,
            caller: None,
        };
        let event = JobEvent::Text { text: "secret".into(), completion: Tokens::new(1) };
        assert!(!format!("{request:?} {event:?}").contains("secret"));
    }
}
