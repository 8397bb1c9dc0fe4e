//! Payer side of a payment channel: what has been promised, and what may still be.
//!
//! Owns: the highest amount signed in this epoch, each running job's share of it, and reservations.
//! Must not: read a clock, reach the ledger, or know how a job's cost is computed.
//! Invariant: a record is durable before its voucher leaves the node. Then no crash can make the
//! next voucher lower than one that the provider may already hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::channel::{Allocation, ChannelId, JobTotal, SignedVoucher, VaultKey, VerifiedVoucher};
use crate::identity::{JobId, ReceiptHash};
use crate::layout::{Reader, RecordError, Writer};
use crate::limits;
use crate::receipt::Peaks;
use crate::units::NanoTon;

const KIND: [u8; 4] = *b"CPr1";

/// What must survive a crash. Jobs are not in it: they end with the process, and what was promised
/// for them stays promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayerState {
    channel: ChannelId,
    limit: NanoTon,
    cumulative: NanoTon,
    releasing: bool,
    receipts: Peaks,
}

impl PayerState {
    /// The channel that this is about: the record's key in a store.
    pub const fn channel(&self) -> ChannelId {
        self.channel
    }

    /// Everything promised in this epoch.
    pub const fn cumulative(&self) -> NanoTon {
        self.cumulative
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let record = self
            .channel
            .write(Writer::new(KIND))
            .u64(self.limit.as_nano())
            .u64(self.cumulative.as_nano())
            .u8(u8::from(self.releasing));
        self.receipts.write(record).finish()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::open(bytes, KIND)?;
        let channel = ChannelId::read(&mut reader)?;
        let limit = NanoTon::from_nano(reader.u64()?);
        let cumulative = NanoTon::from_nano(reader.u64()?);
        if cumulative > limit {
            return Err(RecordError::BadField("cumulative"));
        }
        let releasing = reader.flag("releasing")?;
        let receipts = Peaks::read(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            channel,
            limit,
            cumulative,
            releasing,
            receipts,
        })
    }
}

/// Why nothing was reserved. The job goes to another provider or waits for a larger allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// The channel cannot promise that much more.
    #[error("the channel can promise {headroom} more; the job may cost {needed}")]
    NoHeadroom {
        /// What is neither promised nor reserved.
        headroom: NanoTon,
        /// What the job may cost beyond what it has reserved.
        needed: NanoTon,
    },
    /// The channel is being released.
    #[error("the channel is being released; allocate again to use it")]
    Releasing,
    /// As many jobs as a provider takes from one consumer run already.
    #[error(
        "{} jobs run in this channel; wait for one to end",
        limits::JOBS_PER_PEER
    )]
    TooManyJobs,
}

/// Why no voucher was signed. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    /// Nothing is reserved for the job, or it has ended.
    #[error("nothing is reserved for this job")]
    UnknownJob,
    /// The job's total is lower than what was already promised for it.
    #[error("{paid} is already promised for this job; its total cannot fall to {total}")]
    NotMonotone {
        /// What was promised.
        paid: NanoTon,
        /// What was asked for.
        total: NanoTon,
    },
    /// The job's total is higher than what was reserved for it.
    #[error("{reserved} is reserved for this job; it asks for {total}")]
    BeyondReservation {
        /// What was reserved.
        reserved: NanoTon,
        /// What was asked for.
        total: NanoTon,
    },
}

/// Why a voucher that a provider presents does not move the payer on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatchUpError {
    /// It is of another channel, or not signed by this vault's key.
    #[error("the voucher is not one of this channel")]
    Foreign,
    /// It promises more than the limit: no payer of this channel signed it.
    #[error("the voucher promises {cumulative}, beyond the channel's limit of {limit}")]
    BeyondLimit {
        /// What it promises.
        cumulative: NanoTon,
        /// What the channel is limited to.
        limit: NanoTon,
    },
}

/// A voucher to send, and what must be durable first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a voucher that is not sent stalls its job"]
pub struct Payment {
    /// Persist this before the voucher leaves the node.
    pub record: PayerState,
    /// Send this.
    pub voucher: SignedVoucher,
    /// With this beside it.
    pub job: JobTotal,
}

/// One running job's account.
#[derive(Clone, Copy, Debug)]
struct Account {
    /// The most that it may cost.
    reserved: NanoTon,
    /// What was promised for it. Never above `reserved`.
    paid: NanoTon,
}

/// The consumer's side of one channel; all its jobs with that provider share it.
#[derive(Debug)]
pub struct Payer {
    key: Arc<VaultKey>,
    state: PayerState,
    jobs: BTreeMap<JobId, Account>,
    /// Σ (reserved − paid) over `jobs`. Together with `cumulative` never above the limit.
    outstanding: NanoTon,
}

impl Payer {
    /// A channel that was never paid in from this store. What the chain has already paid out is
    /// taken as promised.
    pub fn new(channel: ChannelId, allocation: &Allocation, key: Arc<VaultKey>) -> Self {
        Self::restore(
            PayerState {
                channel,
                limit: allocation.limit,
                cumulative: allocation.paid.min(allocation.limit),
                releasing: allocation.unlock_at.is_some(),
                receipts: Peaks::default(),
            },
            key,
        )
    }

    /// Continues from the last durable record. Jobs that ran are gone; what was promised is not.
    pub const fn restore(state: PayerState, key: Arc<VaultKey>) -> Self {
        Self {
            key,
            state,
            jobs: BTreeMap::new(),
            outstanding: NanoTon::ZERO,
        }
    }

    /// What must survive a crash.
    pub const fn state(&self) -> &PayerState {
        &self.state
    }

    /// The channel.
    pub const fn channel(&self) -> ChannelId {
        self.state.channel
    }

    /// The most that may ever be promised in this epoch.
    pub const fn limit(&self) -> NanoTon {
        self.state.limit
    }

    /// Everything promised so far.
    pub const fn cumulative(&self) -> NanoTon {
        self.state.cumulative
    }

    /// The receipts of finished jobs.
    pub const fn receipts(&self) -> &Peaks {
        &self.state.receipts
    }

    /// Jobs that have a reservation.
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// What was promised for a running job.
    pub fn paid(&self, job: JobId) -> Option<NanoTon> {
        self.jobs.get(&job).map(|account| account.paid)
    }

    /// What is neither promised nor reserved: what a further job may cost. Zero while the channel
    /// is being released.
    pub const fn headroom(&self) -> NanoTon {
        if self.state.releasing {
            return NanoTon::ZERO;
        }
        self.state
            .limit
            .saturating_sub(self.state.cumulative)
            .saturating_sub(self.outstanding)
    }

    /// Sets aside what the job may cost at most. Called again for the same job it raises the
    /// reservation; a lower `max_cost` changes nothing.
    pub fn reserve(&mut self, job: JobId, max_cost: NanoTon) -> Result<(), ReserveError> {
        if self.state.releasing {
            return Err(ReserveError::Releasing);
        }
        let account = self.jobs.get(&job).copied();
        if account.is_none() && self.jobs.len() >= limits::JOBS_PER_PEER {
            return Err(ReserveError::TooManyJobs);
        }
        let Account { reserved, paid } = account.unwrap_or(Account {
            reserved: NanoTon::ZERO,
            paid: NanoTon::ZERO,
        });
        let needed = max_cost.saturating_sub(reserved);
        let headroom = self.headroom();
        let outstanding = self
            .outstanding
            .checked_add(needed)
            .filter(|_| needed <= headroom);
        let Some(outstanding) = outstanding else {
            return Err(ReserveError::NoHeadroom { headroom, needed });
        };
        self.outstanding = outstanding;
        self.jobs.insert(
            job,
            Account {
                reserved: reserved.max(max_cost),
                paid,
            },
        );
        Ok(())
    }

    /// Promises `total` for the job, all in all: the channel grows by exactly what is new. The same
    /// total again gives the same amount again, so repeating a call costs nothing.
    pub fn pay(&mut self, job: JobId, total: NanoTon) -> Result<Payment, PayError> {
        let total = self.promise(job, total)?;
        Ok(self.payment(total))
    }

    fn promise(&mut self, job: JobId, total: NanoTon) -> Result<JobTotal, PayError> {
        let account = self.jobs.get_mut(&job).ok_or(PayError::UnknownJob)?;
        let Account { reserved, paid } = *account;
        let growth = total
            .checked_sub(paid)
            .ok_or(PayError::NotMonotone { paid, total })?;
        if total > reserved {
            return Err(PayError::BeyondReservation { reserved, total });
        }
        // Both hold because of `outstanding`'s invariant; were it broken, no voucher is signed.
        let beyond = PayError::BeyondReservation { reserved, total };
        let cumulative = self.state.cumulative.checked_add(growth).ok_or(beyond)?;
        let outstanding = self.outstanding.checked_sub(growth).ok_or(beyond)?;
        if cumulative > self.state.limit {
            return Err(beyond);
        }
        account.paid = total;
        self.state.cumulative = cumulative;
        self.outstanding = outstanding;
        Ok(JobTotal { job, total })
    }

    /// Pays the job's final total, takes its receipt into the log and frees the rest of its
    /// reservation. The voucher carries the log's new root.
    pub fn finish(
        &mut self,
        job: JobId,
        total: NanoTon,
        receipt: ReceiptHash,
    ) -> Result<Payment, PayError> {
        let total = self.promise(job, total)?;
        self.state.receipts.append(receipt);
        self.abandon(job);
        Ok(self.payment(total))
    }

    /// Ends a job that has no receipt. What was promised for it stays promised, and is returned;
    /// the rest of its reservation is free. `None` when the job is not known.
    pub fn abandon(&mut self, job: JobId) -> Option<NanoTon> {
        let Account { reserved, paid } = self.jobs.remove(&job)?;
        self.outstanding = self
            .outstanding
            .saturating_sub(reserved.saturating_sub(paid));
        Some(paid)
    }

    /// The allocation was raised (which also cancels a release). A lower limit is an old view of
    /// the ledger and changes nothing: within an epoch the contract only ever raises it.
    #[must_use = "the record must be durable before anything is promised against the new limit"]
    pub fn grow(&mut self, limit: NanoTon) -> &PayerState {
        if limit > self.state.limit {
            self.state.limit = limit;
            self.state.releasing = false;
        }
        &self.state
    }

    /// The ledger shows the allocation anew. A payout beyond what was promised here means that this
    /// store has forgotten promises: they are taken over, as far as running jobs leave room.
    #[must_use = "the record must be durable before anything is promised"]
    pub fn observe(&mut self, allocation: &Allocation) -> &PayerState {
        if allocation.epoch == self.state.channel.epoch {
            self.state.limit = self.state.limit.max(allocation.limit);
            self.state.releasing = allocation.unlock_at.is_some();
            let room = self.state.limit.saturating_sub(self.outstanding);
            self.state.cumulative = self.state.cumulative.max(allocation.paid.min(room));
        }
        &self.state
    }

    /// The consumer asks for its money back: nothing new is reserved. Running jobs are paid on.
    #[must_use = "the record must be durable before the contract is told"]
    pub const fn release(&mut self) -> &PayerState {
        self.state.releasing = true;
        &self.state
    }

    /// Learns of a promise that this store has forgotten (it was lost, or is an old copy), from the
    /// voucher that the provider holds. Without it every new voucher would be too low. The receipts
    /// behind that voucher stay forgotten: the log goes on from what is known here.
    pub fn catch_up(&mut self, voucher: &VerifiedVoucher) -> Result<&PayerState, CatchUpError> {
        let promised = voucher.voucher();
        if promised.channel() != self.state.channel || *voucher.key() != self.key.public() {
            return Err(CatchUpError::Foreign);
        }
        let (cumulative, limit) = (promised.cumulative, self.state.limit);
        let open = limit.saturating_sub(self.outstanding);
        if cumulative > limit || cumulative > open {
            return Err(CatchUpError::BeyondLimit { cumulative, limit });
        }
        self.state.cumulative = self.state.cumulative.max(cumulative);
        Ok(&self.state)
    }

    /// The highest voucher, signed again, to send after a reconnect; `None` when nothing was
    /// promised yet. Its record is durable already: it was before the voucher was sent first.
    pub fn latest_voucher(&self) -> Option<SignedVoucher> {
        let untouched = self.state.cumulative == NanoTon::ZERO && self.state.receipts.is_empty();
        (!untouched).then(|| self.sign())
    }

    fn payment(&self, job: JobTotal) -> Payment {
        Payment {
            record: self.state.clone(),
            voucher: self.sign(),
            job,
        }
    }

    fn sign(&self) -> SignedVoucher {
        let (channel, root) = (self.state.channel, self.state.receipts.root());
        self.key.sign(channel.voucher(self.state.cumulative, root))
    }
}
