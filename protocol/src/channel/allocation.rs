//! A provider's part of a vault, as the ledger shows it.
//!
//! Owns: the allocation's fields and their stored form.
//! Must not: read a ledger, or decide what an allocation is good for.

use crate::identity::TonAddress;
use crate::layout::{Reader, RecordError, Writer};
use crate::units::{NanoTon, Timestamp};

/// Money of a vault that is set aside for one provider, as the contract stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Where the provider's money goes: an account of the basechain. The consumer names it when it
    /// allocates, so a provider compares it with its own.
    pub payout: TonAddress,
    /// The most that was ever set aside in this epoch. Only rises.
    pub limit: NanoTon,
    /// What was paid out of it, the network's fee included. Only rises.
    pub paid: NanoTon,
    /// Never used twice in a vault.
    pub epoch: u32,
    /// Whole seconds: from then on the consumer may take the rest back, and nothing is settled any
    /// more. `None` while it has not asked.
    pub unlock_at: Option<Timestamp>,
    /// The receipts root of the last settled voucher; zeros before.
    pub receipts_root: [u8; 32],
}

impl Allocation {
    /// As the contract makes it.
    pub const fn new(payout: TonAddress, limit: NanoTon, epoch: u32) -> Self {
        Self { payout, limit, paid: NanoTon::ZERO, epoch, unlock_at: None, receipts_root: [0; 32] }
    }

    /// What may still be paid out of it.
    pub const fn remainder(&self) -> NanoTon {
        self.limit.saturating_sub(self.paid)
    }

    pub(crate) fn write(&self, writer: Writer) -> Writer {
        // The contract's own spelling of "not asked for" is second 0.
        let unlock_at = self.unlock_at.unwrap_or(Timestamp::EPOCH);
        writer
            .address(self.payout)
            .u64(self.limit.as_nano())
            .u64(self.paid.as_nano())
            .u32(self.epoch)
            .u64(unlock_at.as_unix_millis())
            .bytes(&self.receipts_root)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let allocation = Self {
            payout: reader.address()?,
            limit: NanoTon::from_nano(reader.u64()?),
            paid: NanoTon::from_nano(reader.u64()?),
            epoch: reader.u32()?,
            unlock_at: Some(Timestamp::from_unix_millis(reader.u64()?))
                .filter(|unlock_at| *unlock_at != Timestamp::EPOCH),
            receipts_root: reader.array()?,
        };
        if allocation.paid > allocation.limit {
            return Err(RecordError::BadField("paid"));
        }
        Ok(allocation)
    }
}
