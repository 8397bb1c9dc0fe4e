//! The local control socket: how the command line talks to a running node.
//!
//! Owns: the socket, its messages and bounds, and the port that answers them.
//! Must not: be reachable over a network; whoever can open the socket may spend the node's money,
//! so it lives in the private data folder with mode 0600.
//!
//! One connection carries one request and one reply, each a line of JSON.

mod client;
mod messages;
mod money;
mod server;

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;

pub use client::{Client, ControlError};
pub use messages::{
    AccountLine, AccountQuery, AdvisoryStatus, Answer, ChannelRole, ChannelStatus, Envelope,
    Grouping, JobStatus, LinePurpose, OfferStatus, PolicyStatus, PricingStatus, ProofStanding,
    ReceiptFile, Refusal, Reply, Request, SessionStatus, Settlement, Status, VERSION, WalletStatus,
};
pub use money::{
    AccountStatus, AllocationStatus, HistoryLine, HistoryPage, MoneyAnswer, MoneyRequest, Moved,
    Payment, PaymentState, VaultStatus,
};
pub use server::{BindError, Server};

/// Longest request. The largest, with a 32-byte id in hexadecimal digits, has under 200 bytes.
const REQUEST_BYTES: usize = 4_096;
/// Longest reply: a status with thousands of peers and offers, of some 300 bytes each.
const REPLY_BYTES: u64 = 8 << 20;
/// Connections at a time. More are told that the node is busy; people and scripts need one.
const CONNECTIONS: usize = 16;
/// How long a client may take to send its request, and to take the reply.
const TRANSFER_TIME: Duration = Duration::from_secs(10);
/// How long the node may take to answer: a settlement waits for the ledger.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Whoever answers requests: the driver of a running node.
pub trait ControlHandler: fmt::Debug + Send + Sync {
    /// Answers one request. Dropping the future gives the request up.
    fn handle(&self, request: Request) -> BoxFuture<'_, Result<Answer, Refusal>>;
}
