//! Everything that can happen to a node.
//!
//! Owns: the list. Must not: carry anything unchecked. Offers, vouchers and receipts come as
//! `Verified…`, evidence as a verdict; the edge has done the expensive cryptography.

use std::sync::Arc;

use crate::attest::Tier;
use crate::channel::{Allocation, JobTotal, SignedVoucher, VaultPublicKey, VerifiedVoucher};
use crate::identity::{JobId, ModelHash, NodeId, TonAddress};
use crate::job::{FinishReason, ProviderRefusal, Usage};
use crate::offer::VerifiedOffer;
use crate::receipt::VerifiedReceipt;
use crate::selection::Demand;
use crate::units::{NanoTon, Tokens};

/// What a session has proved about the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proved {
    /// The tier that the evidence earned.
    pub tier: Tier,
    /// Whether it is a simulated TEE's.
    pub simulated: bool,
    /// Digest of the evidence, for the receipt.
    pub evidence_digest: [u8; 32],
    /// Digest of what the provider serves, as the evidence is bound to it.
    pub manifest: Option<[u8; 32]>,
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionFailure {
    /// The peer could not be reached or did not answer in words that we know.
    Unreachable {
        /// What happened, for the user.
        reason: String,
    },
    /// The peer has no room for another session.
    Busy,
    /// The peer's evidence does not satisfy the policy.
    Refused {
        /// The check that failed, in words.
        reason: String,
    },
}

/// A provider's view of the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelView {
    /// The allocation's epoch and limit; `None` when the ledger shows it no allocation.
    pub allocation: Option<(u32, NanoTon)>,
    /// The highest voucher that it holds, checked against our own key.
    pub latest: Option<VerifiedVoucher>,
    /// What ended jobs left unpaid and it wants repaid before it serves another, by its count.
    pub owed: NanoTon,
}

/// What a consumer asks a provider for; the body waits at the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedJob {
    /// Which job.
    pub job: JobId,
    /// Which weights.
    pub model: ModelHash,
    /// The offer whose prices hold.
    pub offer_sequence: u64,
    /// The completion's limit.
    pub max_completion: Tokens,
    /// Commitment to the prompt, for the receipt.
    pub prompt_commitment: [u8; 32],
    /// Digest of the sampling, for the receipt.
    pub sampling_digest: [u8; 32],
    /// Key of the commitments.
    pub salt: [u8; 32],
}

/// A vault as the ledger shows it to a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultSnapshot {
    /// The vault's hot key.
    pub key: VaultPublicKey,
    /// Our allocation and its epoch, if there is one.
    pub allocation: Option<Allocation>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A checked offer was received. Shared: whoever hands it on keeps it too.
    Offer(Arc<VerifiedOffer>),
    /// A provider left.
    OfferGone(NodeId),

    /// A user wants a job done.
    Submit {
        /// Its random id.
        job: JobId,
        /// What it needs.
        demand: Demand,
        /// Random, for the choice among equals.
        draw: u64,
    },
    /// The user no longer wants it.
    Cancel {
        /// Which.
        job: JobId,
    },
    /// Text of a job reached its reader.
    Delivered {
        /// Which job.
        job: JobId,
        /// Tokens of the completion so far.
        completion: Tokens,
    },
    /// A job's reader takes no text at the moment: until some is delivered again, silence is not its
    /// provider's.
    ReaderWaits {
        /// Which job.
        job: JobId,
    },
    /// A lost provider's text has reached its reader as far as it had come, and no more of it will:
    /// the answer to `Effect::Halt`.
    Halted {
        /// Which job.
        job: JobId,
        /// Tokens of the completion that this provider had written.
        completion: Tokens,
        /// Bytes of text that came for them.
        bytes: usize,
    },

    /// A session that we asked for is attested and open.
    SessionReady {
        /// With whom.
        peer: NodeId,
        /// What it proved.
        proved: Proved,
    },
    /// A session that we asked for did not come about.
    SessionFailed {
        /// With whom.
        peer: NodeId,
        /// Why.
        failure: SessionFailure,
    },
    /// A consumer opened a session with us; this is what we proved to it.
    SessionAccepted {
        /// Who.
        peer: NodeId,
        /// What we proved.
        proved: Proved,
    },
    /// A session is over.
    SessionClosed {
        /// With whom.
        peer: NodeId,
        /// Whether it was the peer that had opened it, as a consumer.
        accepted: bool,
    },

    /// A provider told its view of the channel.
    ChannelState {
        /// Who.
        peer: NodeId,
        /// Its view.
        view: ChannelView,
    },
    /// A provider took the job.
    JobStarted {
        /// Who.
        peer: NodeId,
        /// Which.
        job: JobId,
        /// Tokens of the prompt, by its count.
        prompt: Tokens,
    },
    /// A provider refused the job.
    JobRefused {
        /// Who.
        peer: NodeId,
        /// Which.
        job: JobId,
        /// Why.
        refusal: ProviderRefusal,
    },
    /// A provider ended the job; the receipt's signature and commitments hold.
    JobFinished {
        /// Who.
        peer: NodeId,
        /// Which.
        job: JobId,
        /// The receipt; boxed, because it is once a job and three times as large as what comes all
        /// the time.
        receipt: Box<VerifiedReceipt>,
        /// Key of its commitments.
        salt: [u8; 32],
    },
    /// The edge saw a provider break a rule in this job.
    JobBroken {
        /// Who.
        peer: NodeId,
        /// Which.
        job: JobId,
        /// The rule.
        rule: &'static str,
    },
    /// A provider refused a voucher.
    PaymentRefused {
        /// Who.
        peer: NodeId,
        /// For which job.
        job: Option<JobId>,
    },

    /// A consumer named the vault that pays.
    ChannelHello {
        /// Who.
        peer: NodeId,
        /// Its vault.
        vault: TonAddress,
        /// That it holds the vault, unchecked: the vault's key is not known before it is read.
        proof: [u8; 64],
    },
    /// A consumer asks for a job.
    JobRequested {
        /// Who.
        peer: NodeId,
        /// What.
        request: RequestedJob,
    },
    /// A consumer paid; the signature holds.
    Paid {
        /// Who.
        peer: NodeId,
        /// For which job, and how much in all.
        total: Option<JobTotal>,
        /// The voucher.
        voucher: VerifiedVoucher,
    },
    /// A consumer no longer wants a job.
    CancelRequested {
        /// Who.
        peer: NodeId,
        /// Which.
        job: JobId,
    },

    /// The engine took the job and counted its prompt; nothing is computed yet.
    EngineStarted {
        /// Whose job.
        peer: NodeId,
        /// Which.
        job: JobId,
        /// Tokens of the prompt.
        prompt: Tokens,
    },
    /// The engine refused the job.
    EngineRefused {
        /// Whose job.
        peer: NodeId,
        /// Which.
        job: JobId,
        /// Why.
        refusal: ProviderRefusal,
    },
    /// Tokens went out.
    Generated {
        /// Whose job.
        peer: NodeId,
        /// Which.
        job: JobId,
        /// Tokens of the completion so far.
        completion: Tokens,
    },
    /// The job is over and its last text went out.
    EngineFinished {
        /// Whose job.
        peer: NodeId,
        /// Which.
        job: JobId,
        /// Why it ended.
        reason: FinishReason,
        /// Tokens that went out.
        usage: Usage,
        /// Commitment to the completion.
        completion_commitment: [u8; 32],
    },

    /// The consumer's vault exists.
    VaultReady {
        /// Where.
        vault: TonAddress,
        /// What it can still allocate.
        free: NanoTon,
        /// Allocations that it has, by provider.
        allocations: Vec<(NodeId, Allocation)>,
    },
    /// The consumer's vault could not be opened.
    VaultFailed {
        /// Why.
        failure: LedgerFailure,
    },
    /// An allocation is on the ledger.
    Allocated {
        /// For whom.
        provider: NodeId,
        /// The allocation.
        allocation: Allocation,
        /// What the vault can still allocate.
        free: NanoTon,
    },
    /// An allocation did not come about.
    AllocationFailed {
        /// For whom.
        provider: NodeId,
        /// Why.
        failure: LedgerFailure,
    },
    /// The operator asked the vault to take an allocation back.
    Released {
        /// Whose.
        provider: NodeId,
        /// What the vault can still allocate: the rest of a released allocation included.
        free: NanoTon,
    },
    /// A vault as the ledger shows it; `None` when there is no such vault.
    VaultRead {
        /// Which.
        vault: TonAddress,
        /// What it shows; an error text when the ledger did not answer.
        snapshot: Result<Option<VaultSnapshot>, String>,
    },
    /// A settlement is on the ledger.
    Settled {
        /// The voucher that was redeemed.
        voucher: SignedVoucher,
        /// What the allocation has paid in all.
        paid: NanoTon,
    },
    /// A settlement did not come about.
    SettleFailed {
        /// The voucher.
        voucher: SignedVoucher,
        /// Why.
        reason: String,
    },

    /// The operator asks to settle now.
    SettleNow,
    /// The operator's places: how many jobs run and fit.
    Capacity {
        /// Jobs that run or wait.
        taken: usize,
        /// Jobs that fit.
        places: usize,
    },
    /// What sessions with this provider can prove has changed.
    Proves {
        /// The highest tier.
        tier: Tier,
    },
    /// Take nothing new; finish, settle, and say when done.
    Drain,
}

impl Input {
    /// Whether it concerns a provider; otherwise it concerns a consumer, or both.
    pub(crate) const fn is_for_provider(&self) -> bool {
        matches!(
            self,
            Self::SessionAccepted { .. }
                | Self::SessionClosed { accepted: true, .. }
                | Self::ChannelHello { .. }
                | Self::JobRequested { .. }
                | Self::Paid { .. }
                | Self::CancelRequested { .. }
                | Self::EngineStarted { .. }
                | Self::EngineRefused { .. }
                | Self::Generated { .. }
                | Self::EngineFinished { .. }
                | Self::VaultRead { .. }
                | Self::Settled { .. }
                | Self::SettleFailed { .. }
                | Self::SettleNow
                | Self::Capacity { .. }
                | Self::Proves { .. }
        )
    }
}

/// Why the ledger did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerFailure {
    /// There is not enough money.
    NoFunds {
        /// What was needed.
        needed: NanoTon,
        /// What is there.
        available: NanoTon,
    },
    /// The ledger could not be reached or refused.
    Unavailable {
        /// What happened.
        reason: String,
    },
}
