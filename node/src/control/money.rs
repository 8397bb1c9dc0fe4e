//! What can be asked about coins: of a running node, or of a data folder whose node does not run.
//!
//! Owns: the JSON. Must not: carry a secret. Amounts are nanoTON and say so in their names; times
//! are milliseconds since the Unix epoch.

use cocoon_protocol::identity::{Network, NodeId, TonAddress};
use cocoon_protocol::units::{NanoTon, Timestamp};
use serde::{Deserialize, Serialize};

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MoneyRequest {
    /// An account, the wallet's own by default; answered by [`MoneyAnswer::Account`].
    Account {
        /// Whose.
        address: Option<TonAddress>,
    },
    /// Pay from the wallet; answered by [`MoneyAnswer::Payment`]. To ask for the same payment again
    /// before it was acknowledged never pays twice.
    Send {
        /// Whom.
        to: TonAddress,
        /// How much.
        #[serde(rename = "amount_nano")]
        amount: NanoTon,
        /// A text for the receiver, or nothing.
        comment: String,
        /// Whether the coins come back when no contract takes them.
        bounce: bool,
    },
    /// The payment with this hash was reported to its owner; answered by [`MoneyAnswer::Done`].
    Acknowledge {
        /// The payment's.
        hash: String,
    },
    /// An account's transactions, newest first; answered by [`MoneyAnswer::History`].
    History {
        /// Whose, the wallet's by default.
        address: Option<TonAddress>,
        /// How many at most.
        limit: u16,
        /// Only older ones than this.
        before: Option<String>,
    },
    /// The vaults of this node's hot key; answered by [`MoneyAnswer::Vaults`].
    Vaults,
    /// Any vault; answered by [`MoneyAnswer::Vaults`] with one or none.
    Vault {
        /// Where it is.
        address: TonAddress,
    },
    /// The best vouchers for watchtowers; answered by [`MoneyAnswer::Bundle`].
    Export,
    /// Open the vault that the settings name, with this deposit; answered by [`MoneyAnswer::Vaults`].
    VaultOpen {
        /// How much.
        #[serde(rename = "amount_nano")]
        amount: NanoTon,
    },
    /// Pay into the vault from the wallet; answered as [`MoneyRequest::Send`].
    VaultTopUp {
        /// How much.
        #[serde(rename = "amount_nano")]
        amount: NanoTon,
    },
    /// Send free coins of a vault to its owner; answered by [`MoneyAnswer::Vaults`].
    VaultWithdraw {
        /// Which, the settings' by default.
        vault: Option<TonAddress>,
        /// How much; everything that is free by default.
        #[serde(rename = "amount_nano")]
        amount: Option<NanoTon>,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoneyAnswer {
    /// An account.
    Account(AccountStatus),
    /// A payment.
    Payment(Payment),
    /// Transactions.
    History(HistoryPage),
    /// Vaults.
    Vaults(Vec<VaultStatus>),
    /// Vouchers for watchtowers.
    Bundle(crate::bundle::Bundle),
    /// It is done.
    Done,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountStatus {
    /// The network.
    pub network: Network,
    /// The account.
    pub address: TonAddress,
    /// What it holds.
    #[serde(rename = "balance_nano")]
    pub balance: NanoTon,
    /// Whether it has a contract.
    pub active: bool,
    /// Whether a proof was checked; otherwise a server said so.
    pub verified: bool,
    /// Address of the same key's wallet of version 4, release 2; only for the own wallet.
    pub version_4: Option<TonAddress>,
}

/// What became of a payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PaymentState {
    /// Not known yet: ask again.
    Pending,
    /// It is on the ledger.
    Executed {
        /// When.
        #[serde(rename = "at_ms")]
        at: Timestamp,
        /// What the wallet paid besides.
        #[serde(rename = "fees_nano")]
        fees: NanoTon,
    },
    /// It never happened and never will.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// By which explorers know its message.
    pub hash: String,
    /// To whom.
    pub to: TonAddress,
    /// How much.
    #[serde(rename = "amount_nano")]
    pub amount: NanoTon,
    /// Its text.
    pub comment: String,
    /// What became of it.
    #[serde(flatten)]
    pub state: PaymentState,
    /// It was asked for before, and not acknowledged: nothing was sent again.
    pub asked_before: bool,
}

/// Coins that moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// From or to whom; absent for a message from outside.
    pub peer: Option<TonAddress>,
    /// How much.
    #[serde(rename = "amount_nano")]
    pub amount: NanoTon,
    /// The text with it. Whoever sent it chose it.
    pub comment: Option<String>,
    /// It came back from an account that did not take it.
    pub bounced: bool,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// Which: logical time and hash, as `before` takes it.
    pub id: String,
    /// When.
    #[serde(rename = "at_ms")]
    pub at: Timestamp,
    /// What came in.
    pub received: Option<Moved>,
    /// What went out.
    pub sent: Vec<Moved>,
    /// What the account paid.
    #[serde(rename = "fees_nano")]
    pub fees: NanoTon,
    /// Whether the contract refused.
    pub failed: bool,
}

/// A part of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// Whose.
    pub address: TonAddress,
    /// Newest first.
    pub lines: Vec<HistoryLine>,
    /// Whether there may be older ones.
    pub more: bool,
}

/// A vault as the ledger shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultStatus {
    /// Where it is.
    pub address: TonAddress,
    /// Whether the settings name it.
    pub current: bool,
    /// Whether it is open; the amounts are zero otherwise.
    pub open: bool,
    /// Where withdrawals go.
    pub owner: TonAddress,
    /// How long a provider may settle after a release was requested, in seconds.
    pub release_delay_seconds: u32,
    /// The network's fee on what providers are paid, in hundredths of a percent.
    pub fee_basis_points: u16,
    /// Where the fee goes.
    pub treasury: TonAddress,
    /// All coins in it.
    #[serde(rename = "balance_nano")]
    pub balance: NanoTon,
    /// Set aside for providers.
    #[serde(rename = "reserved_nano")]
    pub reserved: NanoTon,
    /// What may be allocated or withdrawn.
    #[serde(rename = "free_nano")]
    pub free: NanoTon,
    /// Whether a proof was checked; otherwise a server said so.
    pub verified: bool,
    /// The ledger's time at which this was so.
    #[serde(rename = "as_of_ms")]
    pub as_of: Timestamp,
    /// What is set aside for whom.
    pub allocations: Vec<AllocationStatus>,
}

/// What is set aside for a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationStatus {
    /// Who.
    pub provider: NodeId,
    /// Where it is paid out.
    pub payout: TonAddress,
    /// Which allocation.
    pub epoch: u32,
    /// What it can pay in all.
    #[serde(rename = "limit_nano")]
    pub limit: NanoTon,
    /// What it has paid.
    #[serde(rename = "paid_nano")]
    pub paid: NanoTon,
    /// When the rest can be taken back, once that was asked for.
    #[serde(rename = "unlock_at_ms")]
    pub unlock_at: Option<Timestamp>,
    /// Root of the receipts, 64 hexadecimal digits; zeros before the first settlement.
    pub receipts_root: String,
}
