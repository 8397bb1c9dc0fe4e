//! Payer side of a payment channel: what has been promised, and what may still be.
//!
//! Owns: the highest amount signed in this epoch, each running job's share of it, and reservations.
//! Must not: read a clock, reach the ledger, or know how a job's cost is computed.
//! Invariant: a record is durable before its voucher leaves the node. Then no crash can make the
//! next voucher lower than one that the provider may already hold.

use std::sync::Arc;

use crate::channel::{Allocation, ChannelId, JobTotal, SignedVoucher, VaultKey, VerifiedVoucher};
use crate::flat::FlatMap;
use crate::identity::{JobId, ReceiptHash};
use crate::layout::{Reader, RecordError, Writer};
use crate::limits;
use crate::receipt::Peaks;
use crate::units::NanoTon;

const KIND: [u8; 4] = *b"CPr2";
/// The same without what may be owed.
const FIRST_KIND: [u8; 4] = *b"CPr1";

/// What must survive a crash. Jobs are not in it: they end with the process, and what was promised
/// for them stays promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayerState {
    channel: ChannelId,
    limit: NanoTon,
    cumulative: NanoTon,
    releasing: bool,
    /// What was served at most and is not promised: a step for each job that has been paid for and
    /// has no receipt. It bounds the debt that is repaid on a provider's word.
    may_owe: NanoTon,
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

    /// What was served at most and is not promised.
    pub const fn may_owe(&self) -> NanoTon {
        self.may_owe
    }

    /// The receipts of finished jobs.
    pub const fn receipts(&self) -> &Peaks {
        &self.receipts
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let record = self
            .channel
            .write(Writer::new(KIND))
            .u64(self.limit.as_nano())
            .u64(self.cumulative.as_nano())
            .u8(u8::from(self.releasing))
            .u64(self.may_owe.as_nano());
        self.receipts.write(record).finish()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let first = bytes.starts_with(&FIRST_KIND);
        let mut reader = Reader::open(bytes, if first { FIRST_KIND } else { KIND })?;
        let channel = ChannelId::read(&mut reader)?;
        let limit = NanoTon::from_nano(reader.u64()?);
        let cumulative = NanoTon::from_nano(reader.u64()?);
        if cumulative > limit {
            return Err(RecordError::BadField("cumulative"));
        }
        let releasing = reader.flag("releasing")?;
        let may_owe = if first { NanoTon::ZERO } else { NanoTon::from_nano(reader.u64()?) };
        let receipts = Peaks::read(&mut reader)?;
        reader.finish()?;
        Ok(Self { channel, limit, cumulative, releasing, may_owe, receipts })
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
    #[error("{} jobs run in this channel; wait for one to end", limits::JOBS_PER_PEER)]
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

/// A voucher for what earlier jobs left unpaid, and what must be durable first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a debt that is not repaid keeps the provider from serving"]
pub struct Repayment {
    /// Persist this before the voucher leaves the node.
    pub record: PayerState,
    /// Send this.
    pub voucher: SignedVoucher,
    /// What it promises anew.
    pub amount: NanoTon,
}

/// One running job's account.
#[derive(Clone, Copy, Debug)]
struct Account {
    /// The most that it may cost.
    reserved: NanoTon,
    /// What was promised for it. Never above `reserved`.
    paid: NanoTon,
    /// What it may leave unpaid when it breaks off; part of the state's `may_owe` once the provider
    /// was paid for the first time, before which it serves nothing.
    step: NanoTon,
    /// Whether it is part of it.
    served: bool,
}

/// The consumer's side of one channel; all its jobs with that provider share it.
#[derive(Debug)]
pub struct Payer {
    key: Arc<VaultKey>,
    state: PayerState,
    jobs: FlatMap<JobId, Account>,
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
                may_owe: NanoTon::ZERO,
                receipts: Peaks::default(),
            },
            key,
        )
    }

    /// Continues from the last durable record. Jobs that ran are gone; what was promised is not.
    pub const fn restore(state: PayerState, key: Arc<VaultKey>) -> Self {
        Self { key, state, jobs: FlatMap::new(), outstanding: NanoTon::ZERO }
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

    /// Whether the consumer has asked for its money back.
    pub const fn is_releasing(&self) -> bool {
        self.state.releasing
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
        self.state.limit.saturating_sub(self.state.cumulative).saturating_sub(self.outstanding)
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
        let account = account.unwrap_or(Account {
            reserved: NanoTon::ZERO,
            paid: NanoTon::ZERO,
            step: NanoTon::ZERO,
            served: false,
        });
        let reserved = account.reserved;
        let needed = max_cost.saturating_sub(reserved);
        let headroom = self.headroom();
        let outstanding = self.outstanding.checked_add(needed).filter(|_| needed <= headroom);
        let Some(outstanding) = outstanding else {
            return Err(ReserveError::NoHeadroom { headroom, needed });
        };
        self.outstanding = outstanding;
        self.jobs.insert(job, Account { reserved: reserved.max(max_cost), ..account });
        Ok(())
    }

    /// What the job may leave unpaid when it breaks off: one step of credit at its own prices. Said
    /// before its first payment; later it changes nothing.
    pub fn risk(&mut self, job: JobId, step: NanoTon) {
        if let Some(account) = self.jobs.get_mut(&job)
            && !account.served
        {
            account.step = step;
        }
    }

    /// Promises `total` for the job, all in all: the channel grows by exactly what is new. The same
    /// total again gives the same amount again, so repeating a call costs nothing.
    pub fn pay(&mut self, job: JobId, total: NanoTon) -> Result<Payment, PayError> {
        let total = self.promise(job, total)?;
        Ok(self.payment(total))
    }

    fn promise(&mut self, job: JobId, total: NanoTon) -> Result<JobTotal, PayError> {
        let account = self.jobs.get_mut(&job).ok_or(PayError::UnknownJob)?;
        let Account { reserved, paid, step, served } = *account;
        let growth = total.checked_sub(paid).ok_or(PayError::NotMonotone { paid, total })?;
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
        account.served = true;
        if !served {
            self.state.may_owe = self.state.may_owe.saturating_add(step);
        }
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
        if let Some(account) = self.jobs.get(&job) {
            // All that it was served is promised.
            self.state.may_owe = self.state.may_owe.saturating_sub(account.step);
        }
        self.abandon(job);
        Ok(self.payment(total))
    }

    /// Promises what the provider says is owed for jobs that have ended, as far as this side knows
    /// that it may be: never more than a step for each job that broke off. `None` when that is
    /// nothing, or nothing is left to promise.
    pub fn repay(&mut self, owed: NanoTon) -> Option<Repayment> {
        let running = self.jobs.values().filter(|account| account.served);
        let running = running.fold(NanoTon::ZERO, |sum, it| sum.saturating_add(it.step));
        let ended = self.state.may_owe.saturating_sub(running);
        let amount = owed.min(ended).min(self.headroom());
        if amount == NanoTon::ZERO {
            return None;
        }
        self.state.cumulative = self.state.cumulative.checked_add(amount)?;
        self.state.may_owe = self.state.may_owe.saturating_sub(amount);
        Some(Repayment { record: self.state.clone(), voucher: self.sign(), amount })
    }

    /// Ends a job that has no receipt. What was promised for it stays promised, and is returned;
    /// the rest of its reservation is free. `None` when the job is not known.
    pub fn abandon(&mut self, job: JobId) -> Option<NanoTon> {
        let Account { reserved, paid, .. } = self.jobs.remove(&job)?;
        self.outstanding = self.outstanding.saturating_sub(reserved.saturating_sub(paid));
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
        Payment { record: self.state.clone(), voucher: self.sign(), job }
    }

    fn sign(&self) -> SignedVoucher {
        let (channel, root) = (self.state.channel, self.state.receipts.root());
        self.key.sign(channel.voucher(self.state.cumulative, root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{JobTotal, VaultPublicKey};
    use crate::identity::{NodeId, TonAddress};
    use crate::units::Timestamp;
    use proptest::prelude::*;

    fn nano(nano: u64) -> NanoTon {
        NanoTon::from_nano(nano)
    }

    fn job(number: u8) -> JobId {
        JobId::from_bytes([number; 32])
    }

    fn receipt(number: u8) -> ReceiptHash {
        ReceiptHash::from_bytes([number; 32])
    }

    const fn channel() -> ChannelId {
        ChannelId {
            vault: TonAddress { workchain: 0, hash: [1; 32] },
            provider: NodeId::from_bytes([2; 32]),
            epoch: 3,
        }
    }

    const fn allocation(limit: u64) -> Allocation {
        let payout = TonAddress { workchain: 0, hash: [4; 32] };
        Allocation::new(payout, NanoTon::from_nano(limit), 3)
    }

    fn key() -> Arc<VaultKey> {
        Arc::new(VaultKey::from_secret(&[9; 32]))
    }

    fn payer(limit: u64) -> Payer {
        Payer::new(channel(), &allocation(limit), key())
    }

    fn public() -> VaultPublicKey {
        key().public()
    }

    fn cumulative(payment: &Payment) -> u64 {
        assert!(payment.voucher.verify(&public()).is_ok());
        assert_eq!(payment.voucher.voucher.cumulative, payment.record.cumulative());
        payment.voucher.voucher.cumulative.as_nano()
    }

    #[test]
    fn jobs_share_the_channel_and_its_amount_is_their_sum() {
        let mut payer = payer(1_000);
        payer.reserve(job(1), nano(300)).unwrap();
        payer.reserve(job(2), nano(500)).unwrap();
        assert_eq!(payer.headroom(), nano(200));
        assert_eq!(cumulative(&payer.pay(job(1), nano(100)).unwrap()), 100);
        assert_eq!(cumulative(&payer.pay(job(2), nano(50)).unwrap()), 150);
        let payment = payer.pay(job(1), nano(130)).unwrap();
        assert_eq!(cumulative(&payment), 180);
        assert_eq!(payment.job, JobTotal { job: job(1), total: nano(130) });
        assert_eq!(payer.headroom(), nano(200), "paying draws on reservations");
        let payment = payer.finish(job(1), nano(140), receipt(1)).unwrap();
        assert_eq!(cumulative(&payment), 190);
        assert_eq!(payer.headroom(), nano(360), "the rest of job 1 is free");
        assert_eq!(payer.abandon(job(2)), Some(nano(50)));
        assert_eq!(payer.headroom(), nano(810));
        assert_eq!(payer.cumulative(), nano(190));
    }

    #[test]
    fn the_closing_voucher_carries_the_receipt() {
        let mut payer = payer(1_000);
        payer.reserve(job(1), nano(300)).unwrap();
        let before = payer.pay(job(1), nano(10)).unwrap();
        assert_eq!(before.voucher.voucher.receipts_root, [0; 32]);
        let closing = payer.finish(job(1), nano(10), receipt(7)).unwrap();
        let root = Peaks::default().root_with(receipt(7));
        assert_eq!(closing.voucher.voucher.receipts_root, root);
        assert_eq!(cumulative(&closing), 10);
        assert_eq!(
            payer.finish(job(1), nano(10), receipt(7)),
            Err(PayError::UnknownJob),
            "a receipt is taken once"
        );
        assert_eq!(payer.receipts().count(), 1);
    }

    #[test]
    fn a_refusal_signs_nothing_and_changes_nothing() {
        let mut payer = payer(100);
        payer.reserve(job(1), nano(60)).unwrap();
        let first = payer.pay(job(1), nano(20)).unwrap();
        assert_eq!(payer.pay(job(2), nano(1)), Err(PayError::UnknownJob));
        assert_eq!(
            payer.pay(job(1), nano(19)),
            Err(PayError::NotMonotone { paid: nano(20), total: nano(19) })
        );
        let beyond = PayError::BeyondReservation { reserved: nano(60), total: nano(61) };
        assert_eq!(payer.pay(job(1), nano(61)), Err(beyond));
        assert_eq!(payer.finish(job(1), nano(61), receipt(1)), Err(beyond));
        assert_eq!(payer.jobs(), 1, "the job goes on");
        assert_eq!(
            payer.reserve(job(2), nano(41)),
            Err(ReserveError::NoHeadroom { headroom: nano(40), needed: nano(41) })
        );
        assert_eq!(payer.latest_voucher(), Some(first.voucher));
        assert_eq!(payer.pay(job(1), nano(20)), Ok(first), "the same again");
    }

    #[test]
    fn a_reservation_can_be_raised_and_is_never_lowered() {
        let mut payer = payer(100);
        payer.reserve(job(1), nano(60)).unwrap();
        payer.reserve(job(1), nano(10)).unwrap();
        assert_eq!(payer.headroom(), nano(40));
        payer.reserve(job(1), nano(100)).unwrap();
        assert_eq!(payer.headroom(), NanoTon::ZERO);
        let refused = payer.reserve(job(1), nano(101));
        let (headroom, needed) = (NanoTon::ZERO, nano(1));
        assert_eq!(refused, Err(ReserveError::NoHeadroom { headroom, needed }));
    }

    #[test]
    fn jobs_in_one_channel_are_bounded() {
        let mut payer = payer(1_000);
        for number in 0..limits::JOBS_PER_PEER {
            payer.reserve(job(u8::try_from(number).unwrap()), nano(1)).unwrap();
        }
        assert_eq!(payer.reserve(job(200), nano(1)), Err(ReserveError::TooManyJobs));
        assert_eq!(payer.reserve(job(0), nano(2)), Ok(()), "but one may grow");
    }

    #[test]
    fn a_restart_forgets_jobs_but_no_promise() {
        let mut payer = payer(1_000);
        assert_eq!(payer.latest_voucher(), None);
        payer.reserve(job(1), nano(900)).unwrap();
        let payment = payer.pay(job(1), nano(40)).unwrap();
        let record = PayerState::decode(&payment.record.encode()).unwrap();
        let mut restored = Payer::restore(record, key());
        assert_eq!(restored.latest_voucher(), Some(payment.voucher));
        assert_eq!(restored.headroom(), nano(960));
        restored.reserve(job(2), nano(10)).unwrap();
        assert_eq!(cumulative(&restored.pay(job(2), nano(5)).unwrap()), 45);
    }

    #[test]
    fn a_release_stops_new_jobs_until_the_allocation_grows() {
        let mut payer = payer(100);
        payer.reserve(job(1), nano(10)).unwrap();
        let record = payer.release().clone();
        assert_eq!(payer.reserve(job(2), nano(1)), Err(ReserveError::Releasing));
        assert_eq!(payer.headroom(), NanoTon::ZERO);
        assert!(payer.pay(job(1), nano(5)).is_ok(), "a running job is paid");
        let restored = Payer::restore(record, key());
        assert_eq!(restored.headroom(), NanoTon::ZERO);
        let _ = payer.grow(nano(90));
        assert_eq!(payer.headroom(), NanoTon::ZERO, "an old view of the ledger");
        let _ = payer.grow(nano(150));
        assert_eq!(payer.headroom(), nano(140));
    }

    #[test]
    fn the_ledger_tells_of_releases_and_of_forgotten_promises() {
        let mut payer = payer(100);
        let unlock_at = Some(Timestamp::from_unix_secs(5));
        let _ = payer.observe(&Allocation { unlock_at, ..allocation(100) });
        assert_eq!(payer.headroom(), NanoTon::ZERO);
        let paid = nano(30);
        let _ = payer.observe(&Allocation { paid, ..allocation(100) });
        assert_eq!(payer.cumulative(), paid, "the contract paid it: it was promised");
        let other_epoch = Allocation { epoch: 4, ..allocation(900) };
        let _ = payer.observe(&other_epoch);
        assert_eq!(payer.limit(), nano(100));
    }

    #[test]
    fn a_lost_store_catches_up_from_the_providers_voucher() {
        let mut before = payer(100);
        before.reserve(job(1), nano(100)).unwrap();
        let held = before.pay(job(1), nano(70)).unwrap().voucher;
        let held = held.verify(&public()).unwrap();

        let mut after = payer(100);
        assert_eq!(after.catch_up(&held).map(PayerState::cumulative), Ok(nano(70)));
        after.reserve(job(2), nano(30)).unwrap();
        assert_eq!(cumulative(&after.pay(job(2), nano(1)).unwrap()), 71);
        assert_eq!(after.catch_up(&held).map(PayerState::cumulative), Ok(nano(71)), "never back");

        let mut other =
            Payer::new(channel(), &allocation(100), Arc::new(VaultKey::from_secret(&[8; 32])));
        assert_eq!(other.catch_up(&held), Err(CatchUpError::Foreign));
        let mut small = payer(69);
        let (cumulative, limit) = (nano(70), nano(69));
        assert_eq!(small.catch_up(&held), Err(CatchUpError::BeyondLimit { cumulative, limit }));
    }

    #[test]
    fn a_debt_is_repaid_up_to_a_step_for_each_job_that_broke_off() {
        let mut payer = payer(1_000);
        payer.reserve(job(1), nano(300)).unwrap();
        payer.reserve(job(2), nano(300)).unwrap();
        payer.reserve(job(3), nano(100)).unwrap();
        for number in 1..=3 {
            payer.risk(job(number), nano(20));
        }
        assert_eq!(payer.repay(nano(5)), None, "nothing was served yet");
        let _ = payer.pay(job(1), nano(50)).unwrap();
        let _ = payer.pay(job(2), nano(50)).unwrap();
        assert_eq!(payer.state().may_owe(), nano(40));
        assert_eq!(payer.repay(nano(5)), None, "both still run");
        let _ = payer.abandon(job(1));
        let _ = payer.abandon(job(3));
        let repayment = payer.repay(nano(1_000)).unwrap();
        assert_eq!((repayment.amount, payer.cumulative()), (nano(20), nano(120)));
        assert_eq!(repayment.voucher.voucher.cumulative, nano(120));
        assert_eq!(payer.repay(nano(1_000)), None, "no more than one step a job, ever");
        let _ = payer.finish(job(2), nano(60), receipt(2)).unwrap();
        assert_eq!(payer.state().may_owe(), NanoTon::ZERO, "a receipt leaves nothing owed");
    }

    #[test]
    fn a_crash_leaves_running_jobs_as_possible_debts() {
        let mut before = payer(1_000);
        before.reserve(job(1), nano(300)).unwrap();
        before.risk(job(1), nano(20));
        let record = before.pay(job(1), nano(50)).unwrap().record;
        let mut after = Payer::restore(PayerState::decode(&record.encode()).unwrap(), key());
        assert_eq!(after.repay(nano(12)).map(|it| it.amount), Some(nano(12)));
        assert_eq!(after.repay(nano(12)).map(|it| it.amount), Some(nano(8)));
        assert_eq!(after.repay(nano(12)), None);
    }

    #[test]
    fn a_record_of_the_first_version_is_read() {
        let state = payer(1_000).state().clone();
        let bytes = state.encode();
        let (head, tail) = bytes.split_at(4);
        let (head_fields, receipts) = tail.split_at(tail.len() - 16);
        assert_eq!(head, KIND);
        let first = [&FIRST_KIND[..], head_fields, &receipts[8..]].concat();
        assert_eq!(PayerState::decode(&first), Ok(state));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_vouchers_only_grow_and_never_pass_the_limit(
            limit in 0u64..2_000,
            asked in prop::collection::vec((0u8..6, 0u8..4, 0u64..1_500), 1..60),
        ) {
            let mut payer = payer(limit);
            let (mut highest, mut limit) = (0, limit);
            for (what, number, amount) in asked {
                let payment = match what {
                    0 => { let _ = payer.reserve(job(number), nano(amount)); None }
                    1 | 2 => payer.pay(job(number), nano(amount)).ok(),
                    3 => payer.finish(job(number), nano(amount), receipt(number)).ok(),
                    4 => { let _ = payer.abandon(job(number)); None }
                    _ => { limit = limit.max(amount); let _ = payer.grow(nano(amount)); None }
                };
                if let Some(payment) = payment {
                    let signed = payment.voucher.voucher.cumulative.as_nano();
                    prop_assert!(signed >= highest && signed <= limit);
                    highest = signed;
                }
                let reserved: u64 = payer.jobs.values().map(|a| a.reserved.as_nano() - a.paid.as_nano()).sum();
                prop_assert_eq!(payer.outstanding, nano(reserved));
                prop_assert!(payer.cumulative().as_nano() + reserved <= limit);
            }
        }

        #[test]
        fn a_record_survives_the_store_and_hostile_bytes_do_not(
            limit: u64, cumulative: u64, releasing: bool, may_owe: u64, count in 0u8..40,
            cut: prop::sample::Index, junk in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let state = PayerState {
                channel: channel(),
                limit: nano(limit.max(cumulative)),
                cumulative: nano(cumulative),
                releasing,
                may_owe: nano(may_owe),
                receipts: (0..count).map(receipt).collect(),
            };
            let bytes = state.encode();
            prop_assert_eq!(PayerState::decode(&bytes), Ok(state));
            prop_assert!(PayerState::decode(&bytes[..cut.index(bytes.len())]).is_err());
            prop_assert!(PayerState::decode(&[&bytes[..], &[0]].concat()).is_err());
            let _ = PayerState::decode(&[&KIND[..], &junk].concat());
        }
    }

    #[test]
    fn a_record_that_promises_more_than_its_limit_is_damaged() {
        let mut state = payer(10).state().clone();
        state.cumulative = nano(11);
        let refused = PayerState::decode(&state.encode());
        assert_eq!(refused, Err(RecordError::BadField("cumulative")));
    }

    #[test]
    fn the_stored_form_is_fixed() {
        let mut payer = payer(1_000);
        payer.reserve(job(1), nano(300)).unwrap();
        let record = payer.finish(job(1), nano(140), receipt(1)).unwrap().record;
        let golden = concat!(
            "43507232", // CPr2
            "000101010101010101010101010101010101010101010101010101010101010101",
            "0202020202020202020202020202020202020202020202020202020202020202",
            "00000003",                         // epoch
            "00000000000003e8000000000000008c", // limit, cumulative
            "00",                               // not releasing
            "0000000000000000",                 // nothing may be owed
            "0000000000000001",                 // one receipt, one peak
            "dcffe786ded16d283c663846ad0c4ff26558fccde36ca9d30b2ea19eade9fc0e",
        );
        assert_eq!(hex::encode(record.encode()), golden);
    }
}
