//! The tables of the store: a line for every kind of record that a node keeps.
//!
//! Owns: the tables' names in the file and what their keys are.
//! Must not: read or write a record.

use redb::TableDefinition;

/// A kind of record. Keys and values are bytes; their layout belongs to whoever writes them, and
/// begins with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Consumer's side of a channel: the highest voucher signed. Key: the channel.
    Payer,
    /// Provider's side of a channel: the highest voucher held. Key: the channel.
    Payee,
    /// Receipts, given and taken. Key: the receipt's hash.
    Receipt,
    /// Jobs that were paid in part and have no receipt. Key: the job.
    Interrupted,
    /// Places in channels' logs of receipts. Key: the channel and the place.
    Log,
    /// The accounts: one line a job. Key: when it began, the side, the job, the peer.
    Posting,
    /// Secret seeds of wallets. Key: the network's name.
    Wallet,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 7] = [
        Self::Payer,
        Self::Payee,
        Self::Receipt,
        Self::Interrupted,
        Self::Log,
        Self::Posting,
        Self::Wallet,
    ];

    /// The table's name in the file; never reused for anything else.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Payer => "payer",
            Self::Payee => "payee",
            Self::Receipt => "receipt",
            Self::Interrupted => "interrupted",
            Self::Log => "log",
            Self::Posting => "posting",
            Self::Wallet => "wallet",
        }
    }

    pub(crate) const fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name())
    }
}
