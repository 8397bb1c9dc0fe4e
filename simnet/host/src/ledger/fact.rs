//! What happened on the ledger, for invariants and tables.
//!
//! Owns: the list. Must not: be an answer to a host; those are the protocol's inputs.

use cocoon_protocol::channel::ChannelId;
use cocoon_protocol::channel::settlement::VaultError;
use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::NanoTon;

use super::books::Books;
use crate::fabric::HostId;

/// Something that a block did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerFact {
    /// The faucet gave a consumer's wallet money.
    Funded {
        /// Whose.
        host: HostId,
        /// How much.
        amount: NanoTon,
    },
    /// A consumer's vault was opened.
    Opened {
        /// Whose.
        host: HostId,
        /// Its address.
        vault: TonAddress,
        /// What is in it.
        deposit: NanoTon,
    },
    /// An allocation was made, or grew.
    Allocated {
        /// Which.
        channel: ChannelId,
        /// Its limit now.
        limit: NanoTon,
    },
    /// A voucher was redeemed.
    Settled {
        /// Of which channel.
        channel: ChannelId,
        /// What the voucher promised.
        promised: NanoTon,
        /// What the allocation had paid before.
        before: NanoTon,
        /// What it has paid now.
        paid: NanoTon,
        /// Its limit.
        limit: NanoTon,
        /// What arrived at the payout address.
        arrived: NanoTon,
    },
    /// A consumer asked for what is left of an allocation.
    ReleaseRequested {
        /// Which.
        channel: ChannelId,
    },
    /// An allocation ended.
    Released {
        /// Which.
        channel: ChannelId,
        /// What of it was not paid, and is free again.
        returned: NanoTon,
    },
    /// A consumer took free money out of its vault.
    Withdrawn {
        /// Who.
        host: HostId,
        /// What arrived in its wallet.
        arrived: NanoTon,
    },
    /// A message was in the pool and no block could take it.
    Refused {
        /// Who sent it.
        host: HostId,
        /// Why, in the contract's words.
        error: VaultError,
    },
    /// A reorganisation took this back.
    Undone(Box<Self>),
}

/// What the ledger did since it last told: facts in order, and where all money is after them.
#[derive(Clone, Copy, Debug)]
pub struct BlockReport<'a> {
    /// The newest block's number.
    pub height: u64,
    /// Where all money is.
    pub books: Books,
    /// What happened.
    pub facts: &'a [LedgerFact],
}
