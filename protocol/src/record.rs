//! What a node must not forget: the records of its store and their layout.
//!
//! Owns: which changes are durable, their keys and their bytes.
//! Must not: know the store; whoever has one keeps these bytes under these keys.

use crate::channel::{ChannelId, PayeeState, PayerState};
use crate::identity::{JobId, NodeId};
use crate::layout::{Reader, RecordError, Writer};
use crate::receipt::SignedReceipt;
use crate::units::{NanoTon, Timestamp};

/// Kind and version of a stored receipt.
const RECEIPT_KIND: [u8; 4] = *b"CRs1";
/// Kind and version of an interrupted job.
const INTERRUPTED_KIND: [u8; 4] = *b"CIj1";

/// A change that must survive a crash. A later record of the same key replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "moved once, never kept; a box costs more")]
pub enum Record {
    /// Consumer's side of a channel; key: the channel.
    Payer(PayerState),
    /// Provider's side of a channel; key: the channel.
    Payee(PayeeState),
    /// A finished job's receipt; key: its hash.
    Receipt(StoredReceipt),
    /// A job that was paid for in part and has no receipt; key: the job.
    Interrupted(Interrupted),
}

/// A receipt and what its holder needs to open its commitments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReceipt {
    /// The signed bytes.
    pub receipt: SignedReceipt,
    /// Key of the commitments to prompt and completion.
    pub salt: [u8; 32],
    /// Whether this node was the provider.
    pub provided: bool,
}

/// What was promised for a job that ended without a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The job.
    pub job: JobId,
    /// Its provider.
    pub provider: NodeId,
    /// What was promised for it.
    pub paid: NanoTon,
    /// When it ended.
    pub at: Timestamp,
}

impl Record {
    /// The key under which it is kept, unique among records of its kind.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Self::Payer(state) => channel_key(state.channel()),
            Self::Payee(state) => channel_key(state.channel()),
            Self::Receipt(stored) => stored.receipt.hash().as_bytes().to_vec(),
            Self::Interrupted(interrupted) => interrupted.job.as_bytes().to_vec(),
        }
    }

    /// Its stored form.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Payer(state) => state.encode(),
            Self::Payee(state) => state.encode(),
            Self::Receipt(stored) => stored.encode(),
            Self::Interrupted(interrupted) => interrupted.encode(),
        }
    }
}

fn channel_key(channel: ChannelId) -> Vec<u8> {
    let workchain = channel.vault.workchain.to_be_bytes();
    let epoch = channel.epoch.to_be_bytes();
    [&workchain[..], &channel.vault.hash, channel.provider.as_bytes(), &epoch].concat()
}

impl StoredReceipt {
    /// The stored form: kind, role, salt, then the receipt.
    pub fn encode(&self) -> Vec<u8> {
        let header = Writer::new(RECEIPT_KIND).u8(u8::from(self.provided)).bytes(&self.salt);
        header.bytes(&self.receipt.encode()).finish()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::open(bytes, RECEIPT_KIND)?;
        let provided = reader.flag("provided")?;
        let salt = reader.array()?;
        let receipt = SignedReceipt::decode(reader.rest())?;
        Ok(Self { receipt, salt, provided })
    }
}

impl Interrupted {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        Writer::new(INTERRUPTED_KIND)
            .bytes(self.job.as_bytes())
            .bytes(self.provider.as_bytes())
            .u64(self.paid.as_nano())
            .u64(self.at.as_unix_millis())
            .finish()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::open(bytes, INTERRUPTED_KIND)?;
        let interrupted = Self {
            job: JobId::from_bytes(reader.array()?),
            provider: NodeId::from_bytes(reader.array()?),
            paid: NanoTon::from_nano(reader.u64()?),
            at: Timestamp::from_unix_millis(reader.u64()?),
        };
        reader.finish()?;
        Ok(interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_interrupted_job_survives_the_store() {
        let interrupted = Interrupted {
            job: JobId::from_bytes([1; 32]),
            provider: NodeId::from_bytes([2; 32]),
            paid: NanoTon::from_nano(3),
            at: Timestamp::from_unix_millis(4),
        };
        assert_eq!(Interrupted::decode(&interrupted.encode()), Ok(interrupted));
    }

    proptest! {
        #[test]
        fn random_records_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(StoredReceipt::decode(&bytes).is_err());
            prop_assert!(Interrupted::decode(&bytes).is_err());
        }
    }
}
