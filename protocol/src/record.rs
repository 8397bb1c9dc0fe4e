//! What a node must not forget: the records of its store and their layout.
//!
//! Owns: which changes are durable, their keys and their bytes.
//! Must not: know the store; whoever has one keeps these bytes under these keys.

use crate::channel::{ChannelId, PayeeState, PayerState};
use crate::identity::{JobId, NodeId, ReceiptHash};
use crate::layout::{Reader, RecordError, Writer};
use crate::receipt::SignedReceipt;
use crate::units::{NanoTon, Timestamp};

pub use crate::posting::{Account, Posting, Purpose, Standing};

/// Kind and version of a stored receipt.
const RECEIPT_KIND: [u8; 4] = *b"CRs1";
/// Kind and version of an interrupted job.
const INTERRUPTED_KIND: [u8; 4] = *b"CIj1";
/// Kind and version of a place in a channel's log of receipts.
const LOGGED_KIND: [u8; 4] = *b"CLg1";

/// A change that must survive a crash. A later record of the same key replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Consumer's side of a channel; key: the channel.
    Payer(PayerState),
    /// Provider's side of a channel; key: the channel.
    Payee(PayeeState),
    /// A finished job's receipt; key: its hash.
    Receipt(StoredReceipt),
    /// A job that was paid for in part and has no receipt; key: the job and its provider, because
    /// a job that lost its first provider may lose the next one too.
    Interrupted(Interrupted),
    /// A place in a channel's log of receipts; key: the channel and the place.
    Logged(Logged),
    /// One job's line in this node's accounts; key: when it began, the side, the job, the peer.
    Posting(Posting),
}

/// Which receipt stands at a place in a channel's log. The log's root is in every voucher; its
/// leaves are kept for proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Whose log.
    pub channel: ChannelId,
    /// The place, from 0.
    pub index: u64,
    /// The receipt at it.
    pub receipt: ReceiptHash,
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
            Self::Interrupted(interrupted) => {
                let (job, provider) = (interrupted.job, interrupted.provider);
                [*job.as_bytes(), *provider.as_bytes()].concat()
            }
            Self::Logged(logged) => logged.key(),
            Self::Posting(posting) => posting.key(),
        }
    }

    /// Its stored form.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Payer(state) => state.encode(),
            Self::Payee(state) => state.encode(),
            Self::Receipt(stored) => stored.encode(),
            Self::Interrupted(interrupted) => interrupted.encode(),
            Self::Logged(logged) => logged.encode(),
            Self::Posting(posting) => posting.encode(),
        }
    }
}

/// The key of a channel's own records, and what the keys of its log begin with.
pub fn channel_key(channel: ChannelId) -> Vec<u8> {
    let workchain = channel.vault.workchain.to_be_bytes();
    let epoch = channel.epoch.to_be_bytes();
    [&workchain[..], &channel.vault.hash, channel.provider.as_bytes(), &epoch].concat()
}

impl Logged {
    /// The channel, then the place, so that a log is a range of keys in its own order.
    pub fn key(&self) -> Vec<u8> {
        [channel_key(self.channel), self.index.to_be_bytes().to_vec()].concat()
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let writer = self.channel.write(Writer::new(LOGGED_KIND));
        writer.u64(self.index).bytes(self.receipt.as_bytes()).finish()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::open(bytes, LOGGED_KIND)?;
        let channel = ChannelId::read(&mut reader)?;
        let (index, receipt) = (reader.u64()?, ReceiptHash::from_bytes(reader.array()?));
        reader.finish()?;
        Ok(Self { channel, index, receipt })
    }
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

    #[test]
    fn a_logs_keys_are_in_the_logs_order() {
        let channel = ChannelId {
            vault: crate::identity::TonAddress { workchain: 0, hash: [1; 32] },
            provider: NodeId::from_bytes([2; 32]),
            epoch: 3,
        };
        let receipt = ReceiptHash::from_bytes([4; 32]);
        let at = |index| Logged { channel, index, receipt };
        assert_eq!(Logged::decode(&at(7).encode()), Ok(at(7)));
        assert!(at(255).key() < at(256).key());
        assert!(at(9).key().starts_with(&channel_key(channel)));
    }

    proptest! {
        #[test]
        fn random_records_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(StoredReceipt::decode(&bytes).is_err());
            prop_assert!(Interrupted::decode(&bytes).is_err());
            prop_assert!(Logged::decode(&bytes).is_err());
            prop_assert!(Posting::decode(&bytes).is_err());
        }
    }
}
