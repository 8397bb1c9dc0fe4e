//! Why a job was not served, in words that a user can act on.
//!
//! Owns: the provider's refusals on the wire and the consumer's errors towards the gateway.
//! Must not: carry prompt text or a peer's free text unbounded.

use crate::attest::Tier;
use crate::identity::NodeId;
use crate::units::{Millis, NanoTon, PricePerMillion, Tokens};

/// Why a provider refused a job at the door. Nothing was computed and nothing is owed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderRefusal {
    /// All places are taken.
    #[error("the provider is busy; try again in {} ms", retry_after.get())]
    Busy {
        /// When a place is likely to be free.
        retry_after: Millis,
    },
    /// The provider does not serve this model.
    #[error("the provider does not serve this model")]
    UnknownModel,
    /// The prompt does not fit the model's context with the asked completion.
    #[error("the prompt needs {prompt} tokens; the context holds {context}")]
    ContextExceeded {
        /// Tokens of the prompt.
        prompt: Tokens,
        /// Tokens that the context holds.
        context: Tokens,
    },
    /// The request breaks a bound or the chat template refuses it.
    #[error("the provider refused the request as malformed: {reason}")]
    BadRequest {
        /// The provider's words, bounded by `limits::PEER_TEXT_BYTES`.
        reason: String,
    },
    /// The channel has no room for the job, or the ledger does not show it.
    #[error("the payment channel has {headroom} left; the job needs {needed}")]
    NoHeadroom {
        /// What the channel can still pay.
        headroom: NanoTon,
        /// What the prompt and the first step cost.
        needed: NanoTon,
    },
    /// The offer that the job refers to is no longer current.
    #[error("the provider's prices have changed")]
    StaleOffer,
    /// The provider is shutting down.
    #[error("the provider is shutting down")]
    Draining,
    /// The engine could not take it.
    #[error("the provider's engine failed")]
    EngineFailed,
}

/// Why a consumer's job failed: what the gateway turns into an HTTP error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The model's name is in no catalogue and is not a hash.
    #[error("the model `{name}` is not known here; `GET /v1/models` lists the known ones")]
    UnknownModel {
        /// The name that was asked for.
        name: String,
    },
    /// Nobody offers the model.
    #[error("no provider offers `{name}` at the moment")]
    NoProvider {
        /// The name that was asked for.
        name: String,
    },
    /// Everyone who offers it asks more than the cap.
    #[error("the cheapest offer for this request is {cheapest}; the cap is {cap}")]
    PriceTooHigh {
        /// Expected cost at the cheapest provider.
        cheapest: NanoTon,
        /// The consumer's cap.
        cap: NanoTon,
    },
    /// Everyone who offers it asks more for a million tokens than the cap.
    #[error(
        "the cheapest offer asks {cheapest} for a million tokens; the cap is {cap}: raise \
         `max_price`, or wait for another provider"
    )]
    PriceAboveCap {
        /// The higher of the cheapest provider's two prices.
        cheapest: PricePerMillion,
        /// The consumer's cap.
        cap: PricePerMillion,
    },
    /// What may be spent in a day is spent, or set aside for requests that run.
    #[error("{what}: {cap} a day, of which {spent} is spent and {reserved} is set aside; {remedy}")]
    SpendingCap {
        /// Whose cap it is.
        what: String,
        /// What may be spent in a day.
        cap: NanoTon,
        /// What is spent today.
        spent: NanoTon,
        /// What the running requests may still cost.
        reserved: NanoTon,
        /// What to do about it.
        remedy: &'static str,
        /// When to try again; `None` when only another day or another cap helps.
        retry_after: Option<Millis>,
    },
    /// Nobody offers it at the asked tier.
    #[error("the tier `{asked}` is not available; the best offered for this model is `{best}`")]
    TierNotAvailable {
        /// The lowest tier that the consumer accepts.
        asked: Tier,
        /// The best tier on offer.
        best: Tier,
    },
    /// The consumer's own policy can be satisfied by nobody at the asked tier. Nobody was asked.
    #[error(
        "this node's attestation policy accepts nothing of tier `{asked}`: it lists no state of a \
         GPU; add [gpu] with golden values, or ask for a lower tier"
    )]
    PolicyForbidsTier {
        /// The lowest tier that the consumer accepts.
        asked: Tier,
    },
    /// A provider's evidence did not satisfy the consumer's policy. No prompt byte was sent.
    #[error("provider {provider} was refused by the attestation policy: {reason}")]
    AttestationRefused {
        /// Who was refused.
        provider: NodeId,
        /// The check that failed, in words.
        reason: String,
    },
    /// The vault cannot reserve enough for this job.
    #[error(
        "the vault can reserve {available}, the request needs {needed}; add funds with `cocoon-node wallet fund`"
    )]
    FundsExhausted {
        /// What the request may cost.
        needed: NanoTon,
        /// What is free.
        available: NanoTon,
    },
    /// The ledger could not be reached or refused.
    #[error("the ledger is not available: {reason}")]
    LedgerUnavailable {
        /// What the ledger client reported.
        reason: String,
    },
    /// The last provider's refusal, after all attempts.
    #[error("no provider took the job; the last one said: {0}")]
    Refused(ProviderRefusal),
    /// The provider was lost before the answer began, on every attempt.
    #[error("no provider could be reached; the last one failed with: {reason}")]
    Unreachable {
        /// What happened.
        reason: String,
    },
    /// The provider was lost in the middle of the answer.
    #[error("provider {provider} was lost in the middle of the answer")]
    ProviderLost {
        /// Who was lost.
        provider: NodeId,
    },
    /// The provider broke the protocol or asked for more than it may.
    #[error("provider {provider} broke the protocol: {reason}")]
    ProviderMisbehaved {
        /// Who did.
        provider: NodeId,
        /// Which rule.
        reason: &'static str,
    },
    /// This node runs as many jobs as it can.
    #[error("this node is at its limit of concurrent jobs; try again shortly")]
    TooManyJobs,
    /// This node is shutting down.
    #[error("this node is shutting down")]
    ShuttingDown,
}
