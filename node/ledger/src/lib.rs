//! The TON ledger behind one port: an embedded chain, its HTTP interface, wallets, the treasury.
//!
//! Owns: everything that knows TON's cells, messages, addresses and fees.
//! Must not: keep keys (they come in as arguments), read the environment, or decide what to pay:
//! that is `cocoon_protocol::channel`.
//!
//! Start at [`Ledger`], the port. [`embedded::EmbeddedLedger`] runs real contract code in this
//! process, [`server`] shows it to others as toncenter does, [`toncenter::Toncenter`] is the client.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod account;
pub mod address;
mod chain_config;
pub mod embedded;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod get_method;
pub mod liteserver;
pub mod message;
pub mod operations;
mod port;
pub mod registry;
pub mod server;
pub mod toncenter;
mod transaction;
pub mod vault;
pub mod wallet;
pub mod watch;

pub use port::{AccountState, AccountStatus, Ledger, LedgerError, LedgerFuture, Page};
pub use transaction::{MessageSummary, Outcome, TransactionId, TransactionSummary};

/// The crate whose cells and state inits stand in this crate's interface.
pub use tycho_types;
