//! Transactions as callers see them, read from their cells.
//!
//! Owns: the one way from a transaction's cell to a summary, for every ledger.
//! Must not: trust the cell; a server may have sent anything.

use std::fmt;

use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::{NanoTon, Timestamp};
use tycho_types::cell::{Cell, CellBuilder};
use tycho_types::error::Error as CellError;
use tycho_types::models::{ComputePhase, MsgInfo, OwnedMessage, Transaction, TxInfo};
use tycho_types::num::Tokens;

use crate::address::from_int;
use crate::message::MessageHash;

/// Which transaction: logical time on its account, and hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId {
    /// Logical time; grows along an account's history.
    pub lt: u64,
    /// Hash of the transaction's cell.
    pub hash: [u8; 32],
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransactionId({}, {})", self.lt, hex::encode(self.hash))
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The contract ran and its actions were carried out.
    Succeeded,
    /// The contract ran and refused; the exit code says why.
    Failed {
        /// The contract's exit code.
        exit_code: i32,
    },
    /// The contract ran, but its actions could not be carried out.
    ActionFailed {
        /// The action phase's result code; 37 is too little money.
        result_code: i32,
    },
    /// There was no code to run; money was only credited (or sent back).
    NotExecuted,
}

/// A message that went in or out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageSummary {
    /// Hash of the message's cell.
    pub hash: MessageHash,
    /// Who sent it; `None` from outside.
    pub source: Option<TonAddress>,
    /// Whom it is for; `None` for an event to the outside.
    pub destination: Option<TonAddress>,
    /// Money that it carries.
    pub value: NanoTon,
    /// What is left of its forwarding fee.
    pub forward_fee: NanoTon,
    /// Logical time of its creation; zero from outside.
    pub created_lt: u64,
    /// Whether it came back from an account that failed.
    pub bounced: bool,
    /// What it says.
    pub body: Cell,
}

/// One transaction of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionSummary {
    /// Which.
    pub id: TransactionId,
    /// When, in the ledger's time.
    pub at: Timestamp,
    /// All that the account paid: gas, storage, actions, and forwarding of what it sent.
    pub fees: NanoTon,
    /// The part of `fees` that is rent.
    pub storage_fees: NanoTon,
    /// Gas that the contract used.
    pub gas_used: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The message that caused it.
    pub received: Option<MessageSummary>,
    /// The messages that it sent, in order.
    pub sent: Vec<MessageSummary>,
    /// The transaction itself.
    pub cell: Cell,
}

impl TransactionSummary {
    /// Reads a transaction's cell.
    ///
    /// # Errors
    ///
    /// When the cell is no ordinary transaction.
    pub fn from_cell(cell: Cell) -> Result<Self, CellError> {
        let transaction = cell.parse::<Transaction>()?;
        let received = transaction.in_msg.as_ref().map(summarise).transpose()?;
        let mut sent = Vec::new();
        for message in transaction.out_msgs.values() {
            sent.push(summarise(&message?)?);
        }
        let (outcome, gas_used, storage_fees) = match transaction.load_info()? {
            TxInfo::Ordinary(info) => {
                let storage = info.storage_phase.map_or(Tokens::ZERO, |p| p.storage_fees_collected);
                let (outcome, gas) = match &info.compute_phase {
                    ComputePhase::Skipped(_) => (Outcome::NotExecuted, 0),
                    ComputePhase::Executed(phase) => {
                        let outcome = match &info.action_phase {
                            // A contract that commits and then throws, as a vault does with a batch
                            // that has a bad entry, counts as successful to the chain.
                            _ if !phase.success || !matches!(phase.exit_code, 0 | 1) => {
                                Outcome::Failed { exit_code: phase.exit_code }
                            }
                            Some(action) if !action.success => {
                                Outcome::ActionFailed { result_code: action.result_code }
                            }
                            _ => Outcome::Succeeded,
                        };
                        (outcome, phase.gas_used.into_inner())
                    }
                };
                (outcome, gas, nano(storage))
            }
            TxInfo::TickTock(_) => return Err(CellError::InvalidTag),
        };
        let mut fees = nano(transaction.total_fees.tokens);
        for message in &sent {
            fees = fees.saturating_add(message.forward_fee);
        }
        let id = TransactionId { lt: transaction.lt, hash: cell.repr_hash().0 };
        let at = Timestamp::from_unix_secs(u64::from(transaction.now));
        Ok(Self { id, at, fees, storage_fees, gas_used, outcome, received, sent, cell })
    }
}

fn summarise(cell: &Cell) -> Result<MessageSummary, CellError> {
    let message = cell.parse::<OwnedMessage>()?;
    let (range, body_cell) = message.body;
    let body = CellBuilder::build_from(range.apply(&body_cell)?)?;
    let hash = MessageHash(cell.repr_hash().0);
    let outside = MessageSummary {
        hash,
        source: None,
        destination: None,
        value: NanoTon::ZERO,
        forward_fee: NanoTon::ZERO,
        created_lt: 0,
        bounced: false,
        body,
    };
    Ok(match message.info {
        MsgInfo::Int(info) => MessageSummary {
            source: from_int(&info.src),
            destination: from_int(&info.dst),
            value: nano(info.value.tokens),
            forward_fee: nano(info.fwd_fee),
            created_lt: info.created_lt,
            bounced: info.bounced,
            ..outside
        },
        MsgInfo::ExtIn(info) => MessageSummary { destination: from_int(&info.dst), ..outside },
        MsgInfo::ExtOut(info) => {
            MessageSummary { source: from_int(&info.src), created_lt: info.created_lt, ..outside }
        }
    })
}

/// Amounts on the chain have 120 bits; more than 64 would be more than exists, so only a lying
/// server can show them, and the largest amount is then as good as any.
pub(crate) fn nano(tokens: Tokens) -> NanoTon {
    NanoTon::from_nano(u64::try_from(tokens.into_inner()).unwrap_or(u64::MAX))
}
