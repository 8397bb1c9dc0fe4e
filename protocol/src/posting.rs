//! One job's line in a node's accounts: what it cost its consumer, or brought its provider.
//!
//! Owns: the line, its key and its stored form.
//! Must not: add anything up, or decide what is paid.
//!
//! A line is written with the voucher that changes it, in one durable step, so the accounts can
//! neither lag behind the money nor run ahead of it. Per channel they add up exactly:
//!
//! * consumer: the sum of the amounts is the highest voucher that was signed;
//! * provider: the sum is what was credited, less the surplus that no job has claimed, plus what
//!   ended jobs still owe.

use crate::channel::ChannelId;
use crate::identity::{JobId, ModelHash, NodeId, ReceiptHash};
use crate::job::Usage;
use crate::layout::{Reader, RecordError, Writer};
use crate::units::{NanoTon, Timestamp, Tokens};

const KIND: [u8; 4] = *b"CPo1";
/// What stands in the place of a receipt where there is none.
const NO_RECEIPT: [u8; 32] = [0; 32];

/// To whose charge a consumer's job is, in its operator's own books: a tag that only this node
/// reads. Zeros for nobody in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account([u8; 16]);

impl Account {
    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// What money was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// A job.
    Job,
    /// Text of an earlier job that had arrived, or had been sent, and was not paid then.
    Debt,
    /// Promised by a store that was lost since: the other end or the ledger says so.
    Forgotten,
}

/// How far a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The job runs, or ran when the process was killed.
    Running,
    /// It ended without a receipt.
    Interrupted,
    /// It ended with this receipt.
    Receipted(ReceiptHash),
}

/// One line. A later one of the same key replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting {
    /// When the job began, by this node's clock; the day that it counts to.
    pub began: Timestamp,
    /// Whether this node was the provider.
    pub provided: bool,
    /// What the money was for.
    pub purpose: Purpose,
    /// The job; for anything else a number that no job has.
    pub job: JobId,
    /// The other end of the channel.
    pub peer: NodeId,
    /// The channel that paid.
    pub channel: ChannelId,
    /// The weights; zeros where no job is meant.
    pub model: ModelHash,
    /// To whose charge it is; zeros on a provider.
    pub account: Account,
    /// Tokens so far.
    pub usage: Usage,
    /// Consumer: what was promised for it. Provider: what was paid for it and, once it has ended,
    /// what it cost; the difference is owed.
    pub amount: NanoTon,
    /// How far it is.
    pub standing: Standing,
}

impl Posting {
    /// The time first, so that a span of time is a range of keys.
    pub fn key(&self) -> Vec<u8> {
        let began = self.began.as_unix_millis().to_be_bytes();
        let side = [u8::from(self.provided)];
        [&began[..], &side, self.job.as_bytes(), self.peer.as_bytes()].concat()
    }

    /// What the keys of everything that began at `time` or later follow.
    pub fn keys_from(time: Timestamp) -> [u8; 8] {
        time.as_unix_millis().to_be_bytes()
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let purpose = match self.purpose {
            Purpose::Job => 0,
            Purpose::Debt => 1,
            Purpose::Forgotten => 2,
        };
        let (standing, receipt) = match self.standing {
            Standing::Running => (0, NO_RECEIPT),
            Standing::Interrupted => (1, NO_RECEIPT),
            Standing::Receipted(receipt) => (2, *receipt.as_bytes()),
        };
        let writer = Writer::new(KIND)
            .u64(self.began.as_unix_millis())
            .u8(u8::from(self.provided))
            .u8(purpose)
            .bytes(self.job.as_bytes())
            .bytes(self.peer.as_bytes());
        self.channel
            .write(writer)
            .bytes(self.model.as_bytes())
            .bytes(&self.account.0)
            .u32(self.usage.prompt.get())
            .u32(self.usage.completion.get())
            .u64(self.amount.as_nano())
            .u8(standing)
            .bytes(&receipt)
            .finish()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::open(bytes, KIND)?;
        let posting = Self {
            began: Timestamp::from_unix_millis(reader.u64()?),
            provided: reader.flag("provided")?,
            purpose: match reader.u8()? {
                0 => Purpose::Job,
                1 => Purpose::Debt,
                2 => Purpose::Forgotten,
                _ => return Err(RecordError::BadField("purpose")),
            },
            job: JobId::from_bytes(reader.array()?),
            peer: NodeId::from_bytes(reader.array()?),
            channel: ChannelId::read(&mut reader)?,
            model: ModelHash::from_bytes(reader.array()?),
            account: Account(reader.array()?),
            usage: Usage {
                prompt: Tokens::new(reader.u32()?),
                completion: Tokens::new(reader.u32()?),
            },
            amount: NanoTon::from_nano(reader.u64()?),
            standing: match (reader.u8()?, reader.array::<32>()?) {
                (0, NO_RECEIPT) => Standing::Running,
                (1, NO_RECEIPT) => Standing::Interrupted,
                (2, receipt) => Standing::Receipted(ReceiptHash::from_bytes(receipt)),
                _ => return Err(RecordError::BadField("standing")),
            },
        };
        reader.finish()?;
        Ok(posting)
    }
}

impl Posting {
    /// A line that is for no job. Its number is the channel's epoch and its total after this line,
    /// which only rises, so that no two are the same.
    pub(crate) fn other(
        (purpose, began): (Purpose, Timestamp),
        (channel, peer): (ChannelId, NodeId),
        provided: bool,
        (amount, total): (NanoTon, NanoTon),
    ) -> Self {
        let (epoch, total) = (channel.epoch.to_be_bytes(), total.as_nano().to_be_bytes());
        let mut number = [0; 32];
        for (to, from) in number.iter_mut().rev().zip(epoch.iter().chain(&total).rev()) {
            *to = *from;
        }
        Self {
            began,
            provided,
            purpose,
            job: JobId::from_bytes(number),
            peer,
            channel,
            model: ModelHash::from_bytes([0; 32]),
            account: Account::default(),
            usage: Usage::default(),
            amount,
            standing: Standing::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::TonAddress;

    fn posting(began: u64) -> Posting {
        let provider = NodeId::from_bytes([5; 32]);
        Posting {
            began: Timestamp::from_unix_millis(began),
            provided: true,
            purpose: Purpose::Debt,
            job: JobId::from_bytes([1; 32]),
            peer: NodeId::from_bytes([2; 32]),
            channel: ChannelId {
                vault: TonAddress { workchain: 0, hash: [3; 32] },
                provider,
                epoch: 4,
            },
            model: ModelHash::from_bytes([6; 32]),
            account: Account::from_bytes([7; 16]),
            usage: Usage { prompt: Tokens::new(8), completion: Tokens::new(9) },
            amount: NanoTon::from_nano(10),
            standing: Standing::Receipted(ReceiptHash::from_bytes([11; 32])),
        }
    }

    #[test]
    fn a_line_survives_the_store() {
        for standing in [Standing::Running, Standing::Interrupted, posting(0).standing] {
            for purpose in [Purpose::Job, Purpose::Debt, Purpose::Forgotten] {
                let line = Posting { standing, purpose, ..posting(12) };
                assert_eq!(Posting::decode(&line.encode()), Ok(line));
            }
        }
    }

    #[test]
    fn lines_are_kept_in_the_order_of_time() {
        assert!(posting(255).key() < posting(256).key());
        let from = Posting::keys_from(Timestamp::from_unix_millis(256));
        assert!(posting(255).key().as_slice() < from.as_slice());
        assert!(posting(256).key().as_slice() > from.as_slice());
    }

    #[test]
    fn lines_for_no_job_have_numbers_of_their_own() {
        let channel = posting(0).channel;
        let other = |channel, total| {
            let (one, total) = (NanoTon::from_nano(1), NanoTon::from_nano(total));
            let when = (Purpose::Debt, Timestamp::EPOCH);
            Posting::other(when, (channel, channel.provider), false, (one, total))
        };
        assert_ne!(other(channel, 1).key(), other(channel, 2).key());
        let next = ChannelId { epoch: 5, ..channel };
        assert_ne!(other(channel, 1).key(), other(next, 1).key());
        assert_eq!(Posting::decode(&other(next, 1).encode()), Ok(other(next, 1)));
    }
}
