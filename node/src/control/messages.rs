//! What a user can ask a running node, and what it answers.
//!
//! Owns: the JSON on the control socket, which is also the JSON that `--json` prints.
//! Must not: carry a prompt, a completion or a secret.
//! Amounts are nanoTON and say so in their names; times are milliseconds since the Unix epoch.

use cocoon_protocol::attest::{Tier, Trust};
use cocoon_protocol::identity::{JobId, ModelHash, Network, NodeId, ReceiptHash, TonAddress};
use cocoon_protocol::units::{NanoTon, Timestamp, Tokens};
use serde::{Deserialize, Serialize};

use crate::proof::ProofFile;

/// Version of the messages. A node answers its own version only: node and command line come in
/// one binary, and a mix of two means that an old node still runs.
pub const VERSION: u32 = 1;

/// A request and the version that it is written in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// What is asked.
    pub request: Request,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the node is; answered by [`Answer::Status`].
    Status,
    /// Its payment channels; answered by [`Answer::Channels`].
    ChannelList,
    /// Redeem the best voucher of every channel; answered by [`Answer::Settlements`].
    ChannelSettle,
    /// Give an allocation back to the vault; answered by [`Answer::Channels`].
    ChannelRelease {
        /// The channel's other end.
        peer: NodeId,
    },
    /// The newest receipts; answered by [`Answer::Receipts`].
    ReceiptList {
        /// How many at most.
        limit: u32,
    },
    /// One receipt; answered by [`Answer::Receipt`].
    ReceiptShow {
        /// Which.
        receipt: ReceiptHash,
    },
    /// A receipt's proof; answered by [`Answer::Proof`].
    ReceiptProve {
        /// Which.
        receipt: ReceiptHash,
    },
    /// Proofs of the receipts whose names follow one; answered by [`Answer::Proofs`].
    ReceiptExport {
        /// The last one that is known; none to begin.
        after: Option<ReceiptHash>,
    },
    /// What was earned or spent; answered by [`Answer::Accounts`].
    Accounts(AccountQuery),
    /// The wallet and its vault; answered by [`Answer::Wallet`].
    WalletShow,
    /// Coins from the devnet's faucet; answered by [`Answer::Wallet`].
    WalletFund {
        /// How many.
        #[serde(rename = "amount_nano")]
        amount: NanoTon,
    },
    /// Something about coins that does not need a running node; answered by [`Answer::Money`].
    Money(super::MoneyRequest),
    /// Finish the running jobs and end; answered by [`Answer::Accepted`] at once.
    Shutdown,
}

/// What a node answers: one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// What was asked for.
    Ok(Answer),
    /// Why not.
    Error(Refusal),
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// How the node is.
    Status(Box<Status>),
    /// Channels, in the order of their peers.
    Channels(Vec<ChannelStatus>),
    /// What was settled.
    Settlements(Vec<Settlement>),
    /// Receipts, newest first.
    Receipts(Vec<ReceiptFile>),
    /// One receipt.
    Receipt(ReceiptFile),
    /// A receipt's proof.
    Proof {
        /// The file.
        file: Box<ProofFile>,
        /// How far the root in it is.
        standing: ProofStanding,
    },
    /// Proofs, in the order of the receipts' names; none when there are no more.
    Proofs(Vec<ProofFile>),
    /// Sums, in the order of their groups.
    Accounts(Vec<AccountLine>),
    /// The wallet and its vault.
    Wallet(WalletStatus),
    /// About coins.
    Money(super::MoneyAnswer),
    /// It will be done.
    Accepted,
}

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Refusal {
    /// The request is not one of ours, or too long.
    #[error("the node did not understand the request: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// The node runs another version of the program.
    #[error("the running node speaks control version {node}")]
    OtherVersion {
        /// The node's version.
        node: u32,
    },
    /// There is no such channel, receipt or peer.
    #[error("the node knows no such {what}")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The node's roles or network do not allow it.
    #[error("the node cannot do that: {reason}")]
    NotPossible {
        /// Why.
        reason: String,
    },
    /// It was tried and did not work.
    #[error("it did not work: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
    /// The node took too long.
    #[error("the node took too long to answer")]
    TimedOut,
    /// Too many requests at a time.
    #[error("the node answers too many requests already")]
    Busy,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// The node's identity.
    pub node: NodeId,
    /// The process.
    pub process: u32,
    /// The network that money is on.
    pub network: Network,
    /// Whether it serves a model.
    pub provides: bool,
    /// Whether it asks for others' service.
    pub consumes: bool,
    /// When it started.
    #[serde(rename = "started_ms")]
    pub started: Timestamp,
    /// Whether it no longer accepts new work.
    pub draining: bool,
    /// Addresses at which peers reach it, with its peer id.
    pub addresses: Vec<String>,
    /// Address of the OpenAI-compatible endpoint, when it consumes.
    pub gateway: Option<String>,
    /// The protection that it offers, when it provides.
    pub offered_tier: Option<Tier>,
    /// Its evidence is simulated and protects nothing.
    pub simulated_tee: bool,
    /// The lowest protection that it accepts, when it consumes.
    pub minimum_tier: Option<Tier>,
    /// What it accepts as evidence, when it consumes.
    pub policy: Option<PolicyStatus>,
    /// The ledger: `embedded` or a URL.
    pub ledger: String,
    /// Address at which it serves its embedded ledger to others.
    pub ledger_listen: Option<String>,
    /// Connected peers.
    pub peers: usize,
    /// Attested sessions that it opened.
    pub sessions: Vec<SessionStatus>,
    /// Its own offer's models, then those of others that it knows.
    pub offers: Vec<OfferStatus>,
    /// Payment channels.
    pub channels: Vec<ChannelStatus>,
    /// Jobs that run now.
    pub jobs: Vec<JobStatus>,
    /// How its prices move, when it provides and lets them.
    pub pricing: Option<PricingStatus>,
}

/// The attestation policy that a consumer goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its identity, as `tee policy check` prints it.
    pub id: String,
    /// Whom it trusts to make hardware.
    pub trust: Trust,
    /// It accepts simulated TEEs, which protect nothing.
    pub accepts_simulated: bool,
    /// The maintainers whom it follows.
    pub advisories: Vec<AdvisoryStatus>,
}

/// A maintainer whose advisories a policy follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvisoryStatus {
    /// Whose.
    pub maintainer: NodeId,
    /// Without a list in force nothing is accepted.
    pub required: bool,
    /// The list in force; null when there is none.
    pub version: Option<u64>,
    /// When it ends.
    #[serde(rename = "expires_ms")]
    pub expires: Option<Timestamp>,
}

/// Prices that follow demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PricingStatus {
    /// Present prices in millionths of the owner's.
    pub level_per_million: u32,
    /// The lowest price of a million completion tokens.
    #[serde(rename = "minimum_nano")]
    pub minimum: NanoTon,
    /// The highest.
    #[serde(rename = "maximum_nano")]
    pub maximum: NanoTon,
}

/// An attested session that this node opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// With whom.
    pub node: NodeId,
    /// The tier that it has proved.
    pub tier: Tier,
    /// Its evidence is simulated and protects nothing.
    pub simulated: bool,
}

/// A model on offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferStatus {
    /// Who offers it.
    pub provider: NodeId,
    /// It is this node's own.
    pub own: bool,
    /// The name that the provider gives it.
    pub name: String,
    /// Which weights.
    pub model: ModelHash,
    /// The protection that is offered.
    pub tier: Tier,
    /// Price of a million prompt tokens.
    #[serde(rename = "prompt_price_nano")]
    pub prompt_price: NanoTon,
    /// Price of a million completion tokens.
    #[serde(rename = "completion_price_nano")]
    pub completion_price: NanoTon,
    /// Longest context.
    #[serde(rename = "context_tokens")]
    pub context: Tokens,
    /// Until when the offer holds.
    #[serde(rename = "expires_ms")]
    pub expires: Timestamp,
}

/// Which end of a channel this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelRole {
    /// It pays.
    Payer,
    /// It is paid.
    Payee,
}

/// A payment channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// The other end; absent for a payer whose node is not connected and was never named.
    pub peer: Option<NodeId>,
    /// Which end this node is.
    pub role: ChannelRole,
    /// The vault that pays.
    pub vault: TonAddress,
    /// The allocation's epoch.
    pub epoch: u32,
    /// What the allocation can pay in all.
    #[serde(rename = "limit_nano")]
    pub limit: NanoTon,
    /// The highest voucher.
    #[serde(rename = "promised_nano")]
    pub promised: NanoTon,
    /// What was paid on the ledger.
    #[serde(rename = "settled_nano")]
    pub settled: NanoTon,
}

/// A job that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Which.
    pub job: JobId,
    /// The other end.
    pub peer: NodeId,
    /// Whether this node serves it.
    pub provided: bool,
    /// Which weights.
    pub model: ModelHash,
    /// Completion tokens so far.
    #[serde(rename = "completion_tokens")]
    pub completion: Tokens,
    /// What it cost so far.
    #[serde(rename = "cost_nano")]
    pub cost: NanoTon,
}

/// A redeemed voucher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The vault that paid.
    pub vault: TonAddress,
    /// What this settlement paid.
    #[serde(rename = "amount_nano")]
    pub amount: NanoTon,
    /// What the channel has paid on the ledger in all.
    #[serde(rename = "settled_nano")]
    pub settled: NanoTon,
}

/// A receipt as it is shown, exported and verified.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptFile {
    /// The receipt's name.
    pub receipt: ReceiptHash,
    /// The signed bytes and the signature, in hexadecimal digits.
    pub signed: String,
    /// Key of the commitments to prompt and completion, in hexadecimal digits. Whoever has it and
    /// guesses a text can check the guess, so it goes only to those who may know the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Whether this node was the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provided: Option<bool>,
}

impl std::fmt::Debug for ReceiptFile {
    /// Without the salt.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiptFile").field("receipt", &self.receipt).finish_non_exhaustive()
    }
}

/// Which accounts are added up, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountQuery {
    /// What was earned as a provider; otherwise what was spent as a consumer.
    pub provided: bool,
    /// Jobs that began then or later.
    #[serde(rename = "from_ms")]
    pub from: Timestamp,
    /// Jobs that began before; all when absent.
    #[serde(rename = "until_ms")]
    pub until: Option<Timestamp>,
    /// What a line stands for.
    pub by: Vec<Grouping>,
}

/// What a line of a report stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// A day in UTC.
    Day,
    /// A model.
    Model,
    /// The other end.
    Peer,
    /// An API key.
    Key,
}

impl Grouping {
    /// Its column's title.
    pub const fn column(self) -> &'static str {
        match self {
            Self::Day => "DAY",
            Self::Model => "MODEL",
            Self::Peer => "PEER",
            Self::Key => "KEY",
        }
    }
}

/// What money was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinePurpose {
    /// Jobs.
    Job,
    /// Text of earlier jobs that was not paid then.
    Debt,
    /// Promises that a lost store has forgotten.
    Forgotten,
}

/// A line of a report. What is not grouped by is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLine {
    /// The begin of the day in UTC.
    #[serde(rename = "day_start_ms")]
    pub day_start: Option<Timestamp>,
    /// The model.
    pub model: Option<ModelHash>,
    /// The other end; where a provider does not know whose node it is, its vault's key.
    pub peer: Option<NodeId>,
    /// The API key's name, or its tag where it has none any more.
    pub key: Option<String>,
    /// What the money was for.
    pub purpose: LinePurpose,
    /// How many jobs.
    pub jobs: u64,
    /// How many of them have no receipt: they broke off, or run.
    pub without_receipt: u64,
    /// Prompt tokens.
    #[serde(rename = "prompt_tokens")]
    pub prompt: u64,
    /// Completion tokens.
    #[serde(rename = "completion_tokens")]
    pub completion: u64,
    /// What they cost, or brought.
    #[serde(rename = "amount_nano")]
    pub amount: NanoTon,
}

/// How far the root of a proof is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofStanding {
    /// The vault stores it.
    Settled {
        /// Whether that was proved to this node, and not only said by a server.
        verified: bool,
    },
    /// The vault stores an older root, under which the receipt is not yet.
    NotSettled,
    /// The vault stores another root, or has no such allocation any more.
    OtherRoot,
    /// The ledger did not answer.
    Unread,
    /// This node does not know the channel's log: the consumer keeps it.
    NoLog,
}

/// A wallet and the vault that it owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletStatus {
    /// The network.
    pub network: Network,
    /// The wallet's address.
    pub address: TonAddress,
    /// What the wallet holds; absent when the ledger was not asked.
    #[serde(rename = "balance_nano")]
    pub balance: Option<NanoTon>,
    /// The vault's address, once it is known.
    pub vault: Option<TonAddress>,
    /// What the vault holds, reserved amounts and reserve included.
    #[serde(rename = "vault_balance_nano")]
    pub vault_balance: Option<NanoTon>,
}
