//! The port: what the node asks of a ledger, whichever one stands behind it.
//!
//! Owns: the trait, the state of an account as callers see it, and the errors.
//! Must not: know HTTP, databases or virtual machines.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::{NanoTon, Timestamp};
use tycho_types::cell::Cell;

use crate::message::{InvalidMessage, Message, MessageHash};
use crate::transaction::{TransactionId, TransactionSummary};

/// What a ledger's methods return: boxed, so that the trait stays object-safe.
pub type LedgerFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, LedgerError>> + Send + 'a>>;

/// A TON ledger. Every method may be called from many tasks at once.
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Which network's money this is.
    fn network(&self) -> Network;

    /// The ledger's own clock: the time that contracts would see now. Deadlines inside messages
    /// are computed from it, never from the local clock.
    fn now(&self) -> LedgerFuture<'_, Timestamp>;

    /// The state of an account; an address that was never used has [`AccountStatus::Absent`].
    fn account(&self, address: TonAddress) -> LedgerFuture<'_, AccountState>;

    /// Transactions of an account, newest first.
    fn transactions(
        &self,
        address: TonAddress,
        page: Page,
    ) -> LedgerFuture<'_, Vec<TransactionSummary>>;

    /// Hands an external message to the ledger. `Ok` says that it was taken, not that it had its
    /// effect: read the account for that. After [`LedgerError::Unreachable`] it may have been
    /// taken all the same; the contract's sequence number decides.
    fn send(&self, message: Message) -> LedgerFuture<'_, MessageHash>;
}

/// Which part of an account's history to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most this many transactions.
    pub limit: u16,
    /// Only transactions older than this one; `None` starts with the newest.
    pub before: Option<TransactionId>,
}

impl Page {
    /// The newest `limit` transactions.
    pub const fn newest(limit: u16) -> Self {
        Self { limit, before: None }
    }
}

/// Whether an account exists and has code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountStatus {
    /// Never used, or deleted since.
    Absent,
    /// Has a balance but no code.
    Uninitialised,
    /// Has code and data.
    Active,
    /// Lost its state to unpaid rent; only the hash of the state is left.
    Frozen,
}

/// The state of an account at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// Whose state this is.
    pub address: TonAddress,
    /// What it holds.
    pub balance: NanoTon,
    /// Whether it exists and has code.
    pub status: AccountStatus,
    /// The contract's code, when active.
    pub code: Option<Cell>,
    /// The contract's data, when active.
    pub data: Option<Cell>,
    /// The newest transaction of the account.
    pub last_transaction: Option<TransactionId>,
    /// The ledger's time at which this was the state.
    pub as_of: Timestamp,
    /// Whether the state was computed or proved here. `false` means that a server said so.
    pub verified: bool,
}

impl AccountState {
    /// The hash of the contract's code, when active.
    pub fn code_hash(&self) -> Option<[u8; 32]> {
        self.code.as_ref().map(|code| code.repr_hash().0)
    }

    /// Whether the account has code and data.
    pub fn is_active(&self) -> bool {
        self.status == AccountStatus::Active
    }
}

/// Why a ledger could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No answer. A message may have been taken all the same.
    #[error("the ledger cannot be reached; check the connection and the configured ledger")]
    Unreachable(#[source] Box<dyn StdError + Send + Sync>),
    /// The server wants fewer requests.
    #[error("the ledger's server limits requests; wait, or configure an API key")]
    RateLimited,
    /// The server answered with a failure that is none of the others.
    #[error("the ledger's server answered with status {status}; try another server if it persists")]
    ServerFailed {
        /// HTTP status code.
        status: u16,
    },
    /// The server's answer lacks something or has it in another form.
    #[error("the ledger's answer has no usable `{field}`; is the URL a toncenter v2 interface?")]
    BadAnswer {
        /// What could not be read.
        field: &'static str,
    },
    /// Too few liteservers of different operators name the same newest block.
    #[error(
        "{needed} liteservers must agree on the newest block, and of {answered} that answered too \
         few do; the log names those that differ; add servers, or wait"
    )]
    NoAgreement {
        /// Voices that are needed.
        needed: usize,
        /// Voices that answered.
        answered: usize,
    },
    /// The newest block that the liteservers agree on is old.
    #[error(
        "the newest block that the liteservers agree on is {seconds} s old; check this machine's \
         clock, or use other liteservers"
    )]
    OutOfDate {
        /// How old it is by this machine's clock.
        seconds: u64,
    },
    /// A liteserver refused, for a reason that is not the message's.
    #[error("the liteserver refused (code {code}); try again, or use other liteservers")]
    LiteserverRefused {
        /// Its code.
        code: i32,
    },
    /// The ledger is of another network than the settings say.
    #[error(
        "the ledger is not on {}: its network id or first state is another one; check `network` \
         and the ledger's address",
        expected.as_str()
    )]
    OtherNetwork {
        /// The network of the settings.
        expected: Network,
    },
    /// The contract did not take the message: nothing happened and nothing was paid.
    #[error("the contract did not accept the message (exit code {})", ExitCode(*exit_code))]
    NotAccepted {
        /// The contract's exit code, where the ledger tells.
        exit_code: Option<i32>,
    },
    /// The message cannot be sent as it is.
    #[error("the message cannot be sent")]
    InvalidMessage(#[source] InvalidMessage),
    /// Too many messages wait for the next block. Nothing was sent.
    #[error("too many messages wait for the next block; try again after it")]
    Full,
    /// Coins from nowhere are not to be had here.
    #[error("this ledger has no faucet: send coins to the wallet's address")]
    NoFaucet,
    /// The faucet would mint more than can exist.
    #[error("the faucet is empty: the devnet's supply is used up")]
    FaucetEmpty,
    /// The database of the embedded ledger failed; the chain on disk is as before the call.
    #[error("the ledger's database failed; check the disk, then restart")]
    Storage(#[source] Box<dyn StdError + Send + Sync>),
    /// The database holds something that this version did not write.
    #[error("the ledger's database is damaged or from another version ({part}); start a new one")]
    Damaged {
        /// Which record.
        part: &'static str,
    },
    /// The virtual machine failed in a way that no contract can cause.
    #[error("the ledger could not execute the message")]
    Execution(#[source] Box<dyn StdError + Send + Sync>),
    /// The process is shutting down.
    #[error("the ledger is shutting down")]
    Stopped,
}

impl LedgerError {
    /// Whether the message of a failed `send` may have reached the chain.
    pub const fn may_have_been_sent(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::BadAnswer { .. }
                | Self::LiteserverRefused { .. }
                | Self::ServerFailed { .. }
                | Self::Stopped
        )
    }
}

struct ExitCode(Option<i32>);

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(code) => write!(f, "{code}"),
            None => f.write_str("unknown"),
        }
    }
}
