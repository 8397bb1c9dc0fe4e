//! Everything that a node does about an input: first what must be durable, then what to do.
//!
//! Owns: the order "persist, then speak" as data.
//! Must not: carry prompt or completion text; bodies wait at the edge under the job's id.

use crate::attest::Tier;
use crate::channel::{SignedVoucher, VaultPublicKey};
use crate::identity::{JobId, ModelHash, NodeId, ReceiptHash, TonAddress};
use crate::job::{FinishReason, JobError, Usage};
use crate::offer::SignedOffer;
use crate::record::Record;
use crate::units::{NanoTon, Prices, Timestamp, Tokens};
use crate::wire::SessionMessage;

/// What follows from an input. `persist` is durable before any effect leaves the node.
#[derive(Debug, Default)]
#[must_use = "an unexecuted output loses messages or money"]
pub struct Output {
    /// Written in one transaction, in order.
    pub persist: Vec<Record>,
    /// Carried out in order, after `persist` is durable. Each is answered by a later input.
    pub effects: Vec<Effect>,
    /// Call `handle_timeout` then, if nothing happens before.
    pub wake_at: Option<Timestamp>,
}

/// Something to do in the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Find providers of a model; answered by `Input::Offer`.
    Look {
        /// Which weights.
        model: ModelHash,
        /// Those that say they reach at least this tier.
        minimum_tier: Tier,
    },
    /// A provider is not what its offer says: let it go, and look for others in its place.
    Avoid {
        /// Who.
        peer: NodeId,
    },
    /// Make this the offer that peers get.
    Publish(SignedOffer),
    /// Open an attested session; answered by `SessionReady` or `SessionFailed`.
    OpenSession {
        /// With whom.
        peer: NodeId,
        /// The evidence must earn at least this tier.
        minimum_tier: Tier,
    },
    /// Close a session that is of no more use.
    CloseSession {
        /// With whom.
        peer: NodeId,
    },
    /// Send a message in the session with this peer.
    Send {
        /// To whom.
        peer: NodeId,
        /// What.
        message: SessionMessage,
    },
    /// Send the job's request; its body waits at the edge under the job's id. After a `Halt` the prompt
    /// ends with what has come of the answer.
    SendJob {
        /// To whom.
        peer: NodeId,
        /// Which job.
        job: JobId,
        /// The offer whose prices hold.
        offer_sequence: u64,
        /// The completion's limit at this provider.
        max_completion: Tokens,
    },
    /// The job's provider is lost. Pass on what is here of its text, take no more of it, and say how
    /// far the answer has come; answered by `Input::Halted`.
    Halt {
        /// Which job.
        job: JobId,
    },
    /// Tell whoever waits for this job.
    Inform {
        /// Which job.
        job: JobId,
        /// What happened.
        news: JobNews,
    },
    /// Something to do on the ledger.
    Ledger(LedgerCommand),
    /// The session with this peer may verify vouchers against this key from now on.
    TrustVault {
        /// Whose session.
        peer: NodeId,
        /// The vault's hot key, as the ledger shows it.
        key: VaultPublicKey,
    },
    /// Something for the engine.
    Engine(EngineCommand),
}

/// What a waiting user learns about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobNews {
    /// A provider took it; text follows at the edge. A second time when another one begins anew or
    /// goes on.
    Started {
        /// Who.
        provider: NodeId,
        /// What the session has proved.
        tier: Tier,
        /// Whether the evidence is a simulated TEE's.
        simulated: bool,
        /// What it costs.
        prices: Prices,
        /// Tokens of the prompt, as charged.
        prompt: Tokens,
    },
    /// It is complete and paid.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// Tokens of the prompt as its first provider charged them, and of the whole answer.
        usage: Usage,
        /// What it cost, with what providers got that were lost on the way.
        cost: NanoTon,
        /// The receipt of the provider that ended it. `None` when that one was lost between the
        /// answer's last token and its receipt.
        receipt: Option<ReceiptHash>,
        /// Vouchers signed for it.
        vouchers: u32,
    },
    /// It failed.
    Failed(JobError),
}

/// What the ledger port is asked for. At most one command for a vault runs at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerCommand {
    /// Make sure the consumer's vault exists; answered by `VaultReady` or `VaultFailed`.
    OpenVault {
        /// What is deposited when it does not exist yet.
        deposit: NanoTon,
    },
    /// Create or grow an allocation; answered by `Allocated` or `AllocationFailed`.
    Allocate {
        /// For whom.
        provider: NodeId,
        /// Where its settlements go.
        payout: TonAddress,
        /// By how much.
        amount: NanoTon,
    },
    /// Read a vault as a provider; answered by `VaultRead`.
    ReadVault {
        /// Which.
        vault: TonAddress,
    },
    /// Redeem a voucher; answered by `Settled` or `SettleFailed`.
    Settle {
        /// The best voucher.
        voucher: SignedVoucher,
    },
}

/// What the engine port is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineCommand {
    /// Submit the job, whose body waits at the edge; answered by `EngineStarted` or `EngineRefused`.
    Admit {
        /// Whose job.
        peer: NodeId,
        /// Which.
        job: JobId,
    },
    /// Allow this many completion tokens in all.
    Grant {
        /// Whose job.
        peer: NodeId,
        /// Which.
        job: JobId,
        /// Tokens in all.
        total: Tokens,
    },
    /// Stop; answered by `EngineFinished` if it had started.
    Cancel {
        /// Whose job.
        peer: NodeId,
        /// Which.
        job: JobId,
        /// What the receipt says.
        reason: FinishReason,
    },
    /// Forget the job and its body: it is over or was never admitted.
    Forget {
        /// Whose job.
        peer: NodeId,
        /// Which.
        job: JobId,
    },
}
