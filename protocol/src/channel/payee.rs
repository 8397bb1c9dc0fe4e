//! Payee side of a payment channel: how much has been promised, and for which job.
//!
//! Owns: the highest valid voucher, what of it belongs to which job, and what is still owed.
//! Must not: read a clock, reach the ledger, check a signature, or know what a token costs.
//! Invariant: a record is durable before the credit that it stands for is used.
//!
//! Money is divided without loss: at any time the credited amount (the best voucher, up to the
//! limit) is what ended jobs used, plus what running jobs have, plus the surplus.

use crate::channel::{
    Allocation, ChannelId, JobTotal, SignedVoucher, VaultPublicKey, VerifiedVoucher,
};
use crate::flat::FlatMap;
use crate::identity::{JobId, TonAddress};
use crate::layout::{Reader, RecordError, Writer};
use crate::limits;
use crate::units::{NanoTon, Timestamp};

const KIND: [u8; 4] = *b"CPe1";

/// The highest voucher, less what it shares with the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Best {
    cumulative: NanoTon,
    receipts_root: [u8; 32],
    signature: [u8; 64],
}

/// What must survive a crash. Running jobs are not in it: they end with the process, and what they
/// had counts as used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayeeState {
    channel: ChannelId,
    vault_key: VaultPublicKey,
    allocation: Allocation,
    best: Option<Best>,
    /// Promised, and for no job yet.
    surplus: NanoTon,
    /// Served in jobs that ended unpaid. Surplus covers it as soon as no job runs.
    owed: NanoTon,
}

impl PayeeState {
    /// The channel that this is about: the record's key in a store.
    pub const fn channel(&self) -> ChannelId {
        self.channel
    }

    /// The highest voucher: what the contract is shown.
    pub fn best(&self) -> Option<SignedVoucher> {
        let Best { cumulative, receipts_root, signature } = self.best?;
        let voucher = self.channel.voucher(cumulative, receipts_root);
        Some(SignedVoucher { voucher, signature })
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let record = self.channel.write(Writer::new(KIND)).bytes(self.vault_key.as_bytes());
        let record = self
            .allocation
            .write(record)
            .u64(self.surplus.as_nano())
            .u64(self.owed.as_nano())
            .u8(u8::from(self.best.is_some()));
        match &self.best {
            Some(best) => record
                .u64(best.cumulative.as_nano())
                .bytes(&best.receipts_root)
                .bytes(&best.signature),
            None => record,
        }
        .finish()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::open(bytes, KIND)?;
        let channel = ChannelId::read(&mut reader)?;
        let vault_key = VaultPublicKey::from_bytes(reader.array()?);
        let allocation = Allocation::read(&mut reader)?;
        let surplus = NanoTon::from_nano(reader.u64()?);
        let owed = NanoTon::from_nano(reader.u64()?);
        let best = match reader.flag("best")? {
            false => None,
            true => Some(Best {
                cumulative: NanoTon::from_nano(reader.u64()?),
                receipts_root: reader.array()?,
                signature: reader.array()?,
            }),
        };
        reader.finish()?;
        if allocation.epoch != channel.epoch {
            return Err(RecordError::BadField("epoch"));
        }
        Ok(Self { channel, vault_key, allocation, best, surplus, owed })
    }
}

/// Why an allocation on the ledger is no channel to serve in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayeeError {
    /// It pays somebody else: the consumer chose another payout than this provider announces.
    #[error("the allocation pays out to {found}, not to this provider's {expected}")]
    WrongPayout {
        /// Where it pays.
        found: TonAddress,
        /// Where it must pay.
        expected: TonAddress,
    },
    /// It is another allocation than the channel's.
    #[error("the allocation is of epoch {found}, the channel of epoch {expected}")]
    WrongEpoch {
        /// The allocation's.
        found: u32,
        /// The channel's.
        expected: u32,
    },
}

/// Why a voucher was refused. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoucherError {
    /// It is for another vault than the channel's.
    #[error("the voucher is for the vault {found}")]
    WrongVault {
        /// The voucher's.
        found: TonAddress,
    },
    /// It pays another provider.
    #[error("the voucher pays another provider")]
    WrongProvider,
    /// It is for another allocation of this vault.
    #[error("the voucher is for epoch {found}, the channel is in epoch {expected}")]
    WrongEpoch {
        /// The voucher's.
        found: u32,
        /// The channel's.
        expected: u32,
    },
    /// It was verified against another key than the vault's.
    #[error("the voucher was not signed by this vault's key")]
    WrongKey,
    /// It promises less than an earlier one and claims nothing that is there: a late or repeated
    /// message, or a payer that lost its store.
    #[error("the voucher promises {cumulative}, less than the {best} promised before")]
    Lower {
        /// What it promises.
        cumulative: NanoTon,
        /// What was promised before.
        best: NanoTon,
    },
}

/// What to do about a refused voucher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoucherBlame {
    /// Nothing: networks repeat and reorder.
    Nobody,
    /// End the session: no honest payer sends this in this channel.
    Peer,
}

impl VoucherError {
    /// Whether an honest payer can have sent it.
    pub const fn blame(&self) -> VoucherBlame {
        match self {
            // A new epoch begins while messages of the old one are under way, or before this side
            // has read it from the ledger.
            Self::Lower { .. } | Self::WrongEpoch { .. } => VoucherBlame::Nobody,
            Self::WrongVault { .. } | Self::WrongProvider | Self::WrongKey => VoucherBlame::Peer,
        }
    }
}

/// Why no job was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The consumer asked for its money back, and what is promised from now on may come too late.
    #[error("the channel is being released; allocate again to use it")]
    Releasing,
    /// The job runs already.
    #[error("this job is running already")]
    AlreadyOpen,
    /// As many jobs as are taken from one consumer run already.
    #[error("{} jobs run in this channel", limits::JOBS_PER_PEER)]
    TooManyJobs,
}

/// What a voucher brought.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "credit may be used only when the record is durable"]
pub struct Accepted {
    /// Persist this before any of the credit is used or acknowledged.
    pub record: PayeeState,
    /// New money in the channel, of which the limit covers every nanoTON.
    pub credited: NanoTon,
    /// What the voucher promises beyond the limit: worth nothing unless the allocation grows.
    pub uncovered: NanoTon,
    /// What the claimed job has now, all in all.
    pub job_paid: NanoTon,
}

/// How a job ended for the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a debt that is not remembered is a gift"]
pub struct Closed {
    /// Persist this.
    pub record: PayeeState,
    /// Served and not paid: for the peer's reputation.
    pub unpaid: NanoTon,
}

/// The provider's side of one channel; all jobs of that consumer share it.
#[derive(Clone, Debug)]
pub struct Payee {
    state: PayeeState,
    jobs: FlatMap<JobId, NanoTon>,
}

impl Payee {
    /// A channel as the ledger shows it, when the store knows nothing of it. `payout` is the
    /// address that this provider wants its money at: the consumer chose the allocation's.
    pub fn new(
        channel: ChannelId,
        allocation: Allocation,
        vault_key: VaultPublicKey,
        payout: TonAddress,
    ) -> Result<Self, PayeeError> {
        if allocation.payout != payout {
            return Err(PayeeError::WrongPayout { found: allocation.payout, expected: payout });
        }
        if allocation.epoch != channel.epoch {
            let (found, expected) = (allocation.epoch, channel.epoch);
            return Err(PayeeError::WrongEpoch { found, expected });
        }
        Ok(Self::restore(PayeeState {
            channel,
            vault_key,
            allocation,
            best: None,
            surplus: NanoTon::ZERO,
            owed: NanoTon::ZERO,
        }))
    }

    /// Continues from the last durable record. Jobs that ran are gone.
    pub const fn restore(state: PayeeState) -> Self {
        Self { state, jobs: FlatMap::new() }
    }

    /// What must survive a crash.
    pub const fn state(&self) -> &PayeeState {
        &self.state
    }

    /// The channel.
    pub const fn channel(&self) -> ChannelId {
        self.state.channel
    }

    /// The key that vouchers are verified against.
    pub const fn vault_key(&self) -> &VaultPublicKey {
        &self.state.vault_key
    }

    /// The allocation as last read from the ledger.
    pub const fn allocation(&self) -> &Allocation {
        &self.state.allocation
    }

    /// The highest voucher: what the contract is shown.
    pub fn best(&self) -> Option<SignedVoucher> {
        self.state.best()
    }

    /// Everything promised so far, also beyond the limit; at least what the chain has paid out.
    pub fn promised(&self) -> NanoTon {
        let best = self.state.best.map_or(NanoTon::ZERO, |best| best.cumulative);
        best.max(self.state.allocation.paid)
    }

    /// Everything promised so far that the limit covers.
    pub fn credited(&self) -> NanoTon {
        self.promised().min(self.state.allocation.limit)
    }

    /// What further vouchers may still bring.
    pub fn headroom(&self) -> NanoTon {
        self.state.allocation.limit.saturating_sub(self.promised())
    }

    /// Promised and not yet paid out by the contract.
    pub fn unsettled(&self) -> NanoTon {
        self.credited().saturating_sub(self.state.allocation.paid)
    }

    /// Whether the best voucher is worth showing to the contract: `threshold` is due, or the
    /// consumer takes its money back and anything at all is due.
    pub fn should_settle(&self, threshold: NanoTon) -> bool {
        let due = self.unsettled();
        due > NanoTon::ZERO && (due >= threshold || self.release_at().is_some())
    }

    /// When the consumer may take back what is not settled by then; `None` while nobody asked.
    /// From the first sign of it no job is opened.
    pub const fn release_at(&self) -> Option<Timestamp> {
        self.state.allocation.unlock_at
    }

    /// Promised and for no running job: a reordered message's, or one that arrived after a crash.
    pub const fn surplus(&self) -> NanoTon {
        self.state.surplus
    }

    /// Served in jobs that ended unpaid, and not made good since.
    pub const fn owed(&self) -> NanoTon {
        self.state.owed
    }

    /// Jobs that run.
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// What was promised for a running job: the meter lets it run one step beyond this. Nothing for
    /// a job that is not open.
    pub fn paid(&self, job: JobId) -> NanoTon {
        self.jobs.get(&job).copied().unwrap_or(NanoTon::ZERO)
    }

    /// A job begins. Not durable: a crash ends it.
    pub fn open(&mut self, job: JobId) -> Result<(), OpenError> {
        if self.release_at().is_some() {
            return Err(OpenError::Releasing);
        }
        if self.jobs.contains_key(&job) {
            return Err(OpenError::AlreadyOpen);
        }
        if self.jobs.len() >= limits::JOBS_PER_PEER {
            return Err(OpenError::TooManyJobs);
        }
        self.jobs.insert(job, NanoTon::ZERO);
        Ok(())
    }

    /// A job ended, having been served for `cost`. What it had beyond that returns to the surplus;
    /// what it lacked is owed.
    pub fn close(&mut self, job: JobId, cost: NanoTon) -> Closed {
        let paid = self.jobs.remove(&job).unwrap_or(NanoTon::ZERO);
        let unpaid = cost.saturating_sub(paid);
        self.state.owed = self.state.owed.saturating_add(unpaid);
        self.add_surplus(paid.saturating_sub(cost));
        Closed { record: self.state.clone(), unpaid }
    }

    /// Takes a voucher, and the total that its message claims for a job.
    ///
    /// Only the highest voucher is kept; an equal amount with another receipts root replaces it. A
    /// lower one is refused, unless its claim draws on surplus that an overtaking voucher brought.
    pub fn accept(
        &mut self,
        claim: Option<JobTotal>,
        verified: &VerifiedVoucher,
    ) -> Result<Accepted, VoucherError> {
        self.check(verified)?;
        let cumulative = verified.voucher().cumulative;
        let best = self.promised();
        let drawable = claim.map_or(NanoTon::ZERO, |claim| self.lacking(claim));
        if cumulative < best && drawable.min(self.state.surplus) == NanoTon::ZERO {
            return Err(VoucherError::Lower { cumulative, best });
        }
        let before = self.credited();
        if cumulative >= best {
            let SignedVoucher { voucher, signature } = *verified.signed();
            let receipts_root = voucher.receipts_root;
            self.state.best = Some(Best { cumulative, receipts_root, signature });
        }
        let credited = self.credited().saturating_sub(before);
        self.add_surplus(credited);
        let job_paid = claim.map_or(NanoTon::ZERO, |claim| self.draw(claim));
        let uncovered = cumulative.saturating_sub(self.state.allocation.limit);
        Ok(Accepted { record: self.state.clone(), credited, uncovered, job_paid })
    }

    /// The ledger shows the allocation anew: raised, settled, being released, or no longer so. What
    /// was promised beyond the old limit and is covered by the new one becomes surplus.
    pub fn observe(&mut self, allocation: Allocation) -> Result<&PayeeState, PayeeError> {
        let current = &self.state.allocation;
        if allocation.epoch != current.epoch {
            let (found, expected) = (allocation.epoch, current.epoch);
            return Err(PayeeError::WrongEpoch { found, expected });
        }
        if allocation.payout != current.payout {
            let (found, expected) = (allocation.payout, current.payout);
            return Err(PayeeError::WrongPayout { found, expected });
        }
        let before = self.credited();
        // Limit and paid only ever rise within an epoch; a lower one is an older view.
        let (limit, paid) =
            (current.limit.max(allocation.limit), current.paid.max(allocation.paid));
        self.state.allocation = Allocation { limit, paid, ..allocation };
        let grown = self.credited().saturating_sub(before);
        self.add_surplus(grown);
        Ok(&self.state)
    }

    fn check(&self, verified: &VerifiedVoucher) -> Result<(), VoucherError> {
        let (found, expected) = (verified.voucher().channel(), self.state.channel);
        if found.vault != expected.vault {
            return Err(VoucherError::WrongVault { found: found.vault });
        }
        if found.provider != expected.provider {
            return Err(VoucherError::WrongProvider);
        }
        if *verified.key() != self.state.vault_key {
            return Err(VoucherError::WrongKey);
        }
        if found.epoch != expected.epoch {
            let (found, expected) = (found.epoch, expected.epoch);
            return Err(VoucherError::WrongEpoch { found, expected });
        }
        Ok(())
    }

    /// What an open job lacks of the total claimed for it.
    fn lacking(&self, claim: JobTotal) -> NanoTon {
        self.jobs.get(&claim.job).map_or(NanoTon::ZERO, |paid| claim.total.saturating_sub(*paid))
    }

    /// Moves what the job lacks from the surplus to the job, as far as it goes.
    fn draw(&mut self, claim: JobTotal) -> NanoTon {
        let drawn = self.lacking(claim).min(self.state.surplus);
        let Some(paid) = self.jobs.get_mut(&claim.job) else {
            return NanoTon::ZERO;
        };
        *paid = paid.saturating_add(drawn);
        self.state.surplus = self.state.surplus.saturating_sub(drawn);
        *paid
    }

    /// Adds money that belongs to no job. It covers what is owed only while no job runs: an
    /// overtaken message may be about to claim it, and an old debt must not starve a paid job.
    fn add_surplus(&mut self, amount: NanoTon) {
        let surplus = self.state.surplus.saturating_add(amount);
        let covered =
            if self.jobs.len() == 0 { surplus.min(self.state.owed) } else { NanoTon::ZERO };
        self.state.surplus = surplus.saturating_sub(covered);
        self.state.owed = self.state.owed.saturating_sub(covered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{VaultKey, Voucher};
    use crate::identity::NodeId;
    use proptest::prelude::*;

    fn nano(nano: u64) -> NanoTon {
        NanoTon::from_nano(nano)
    }

    fn job(number: u8) -> JobId {
        JobId::from_bytes([number; 32])
    }

    const fn claim(number: u8, total: u64) -> Option<JobTotal> {
        let job = JobId::from_bytes([number; 32]);
        Some(JobTotal { job, total: NanoTon::from_nano(total) })
    }

    const PAYOUT: TonAddress = TonAddress { workchain: 0, hash: [4; 32] };
    const CHANNEL: ChannelId = ChannelId {
        vault: TonAddress { workchain: 0, hash: [1; 32] },
        provider: NodeId::from_bytes([2; 32]),
        epoch: 3,
    };

    const fn allocation(limit: u64) -> Allocation {
        Allocation::new(PAYOUT, NanoTon::from_nano(limit), 3)
    }

    fn key() -> VaultKey {
        VaultKey::from_secret(&[9; 32])
    }

    fn payee(limit: u64) -> Payee {
        Payee::new(CHANNEL, allocation(limit), key().public(), PAYOUT).unwrap()
    }

    fn verified(voucher: Voucher) -> VerifiedVoucher {
        key().sign(voucher).verify(&key().public()).unwrap()
    }

    fn promise(cumulative: u64) -> VerifiedVoucher {
        verified(CHANNEL.voucher(nano(cumulative), [0; 32]))
    }

    #[test]
    fn a_voucher_credits_what_is_new_to_its_job() {
        let mut payee = payee(1_000);
        payee.open(job(1)).unwrap();
        let accepted = payee.accept(claim(1, 40), &promise(40)).unwrap();
        assert_eq!((accepted.credited, accepted.job_paid), (nano(40), nano(40)));
        let accepted = payee.accept(claim(1, 55), &promise(55)).unwrap();
        assert_eq!((accepted.credited, accepted.job_paid), (nano(15), nano(55)));
        assert_eq!(accepted.record.best(), Some(*promise(55).signed()));
        assert_eq!(payee.headroom(), nano(945));
        assert_eq!(payee.unsettled(), nano(55));
        assert_eq!(payee.surplus(), NanoTon::ZERO);
    }

    #[test]
    fn a_repeated_voucher_changes_nothing() {
        let mut payee = payee(1_000);
        payee.open(job(1)).unwrap();
        let first = payee.accept(claim(1, 40), &promise(40)).unwrap();
        let again = payee.accept(claim(1, 40), &promise(40)).unwrap();
        assert_eq!(again.credited, NanoTon::ZERO);
        assert_eq!(again.record, first.record);
        assert_eq!(again.job_paid, nano(40));
    }

    #[test]
    fn an_equal_amount_with_another_root_replaces_the_voucher() {
        let mut payee = payee(1_000);
        let _ = payee.accept(None, &promise(40)).unwrap();
        let with_root = verified(CHANNEL.voucher(nano(40), [7; 32]));
        let accepted = payee.accept(None, &with_root).unwrap();
        assert_eq!(accepted.credited, NanoTon::ZERO);
        assert_eq!(payee.best(), Some(*with_root.signed()));
    }

    #[test]
    fn overtaken_messages_divide_the_money_rightly() {
        // Job 1 is promised 10, then job 2 15: the second message arrives first.
        let mut payee = payee(1_000);
        payee.open(job(1)).unwrap();
        payee.open(job(2)).unwrap();
        let accepted = payee.accept(claim(2, 15), &promise(25)).unwrap();
        assert_eq!((accepted.credited, accepted.job_paid), (nano(25), nano(15)));
        assert_eq!(payee.surplus(), nano(10));
        let accepted = payee.accept(claim(1, 10), &promise(10)).unwrap();
        assert_eq!((accepted.credited, accepted.job_paid), (NanoTon::ZERO, nano(10)));
        assert_eq!(payee.surplus(), NanoTon::ZERO);
        assert_eq!(payee.best(), Some(*promise(25).signed()), "the highest is kept");
        let (cumulative, best) = (nano(10), nano(25));
        assert_eq!(
            payee.accept(claim(1, 10), &promise(10)),
            Err(VoucherError::Lower { cumulative, best })
        );
    }

    #[test]
    fn a_claim_cannot_exceed_the_money() {
        let mut payee = payee(1_000);
        payee.open(job(1)).unwrap();
        let accepted = payee.accept(claim(1, 1_000), &promise(40)).unwrap();
        assert_eq!(accepted.job_paid, nano(40));
        let accepted = payee.accept(claim(1, 0), &promise(50)).unwrap();
        assert_eq!(accepted.job_paid, nano(40), "nor take any away");
        assert_eq!(payee.surplus(), nano(10));
    }

    #[test]
    fn foreign_vouchers_are_refused_with_the_reason() {
        let mut payee = payee(1_000);
        let _ = payee.accept(None, &promise(40)).unwrap();
        let before = payee.state().clone();
        let voucher = CHANNEL.voucher(nano(50), [0; 32]);
        let vault = TonAddress { workchain: -1, ..CHANNEL.vault };
        let provider = NodeId::from_bytes([3; 32]);
        let mut refused = |voucher| payee.accept(None, &voucher).unwrap_err();
        let error = refused(verified(Voucher { vault, ..voucher }));
        assert_eq!(error, VoucherError::WrongVault { found: vault });
        assert_eq!(error.blame(), VoucherBlame::Peer);
        let error = refused(verified(Voucher { provider, ..voucher }));
        assert_eq!(error, VoucherError::WrongProvider);
        for found in [2, 4] {
            let error = refused(verified(Voucher { epoch: found, ..voucher }));
            let expected = 3;
            assert_eq!(error, VoucherError::WrongEpoch { found, expected });
            assert_eq!(error.blame(), VoucherBlame::Nobody);
        }
        let stranger = VaultKey::from_secret(&[8; 32]);
        let by_stranger = stranger.sign(voucher).verify(&stranger.public()).unwrap();
        assert_eq!(refused(by_stranger), VoucherError::WrongKey);
        let error = refused(promise(39));
        let (cumulative, best) = (nano(39), nano(40));
        assert_eq!(error, VoucherError::Lower { cumulative, best });
        assert_eq!(error.blame(), VoucherBlame::Nobody);
        assert_eq!(*payee.state(), before);
    }

    #[test]
    fn only_what_the_limit_covers_is_credit() {
        let mut payee = payee(100);
        payee.open(job(1)).unwrap();
        let accepted = payee.accept(claim(1, 130), &promise(130)).unwrap();
        assert_eq!((accepted.credited, accepted.uncovered), (nano(100), nano(30)));
        assert_eq!(accepted.job_paid, nano(100));
        assert_eq!(payee.headroom(), NanoTon::ZERO);
        assert_eq!(payee.unsettled(), nano(100));
        // The allocation grows, and the promise becomes worth more without another voucher.
        payee.observe(allocation(120)).unwrap();
        assert_eq!(payee.surplus(), nano(20));
        let accepted = payee.accept(claim(1, 130), &promise(130)).unwrap();
        assert_eq!(accepted.job_paid, nano(120));
    }

    #[test]
    fn money_without_a_job_waits_for_a_claim() {
        let mut payee = payee(1_000);
        let _ = payee.accept(None, &promise(30)).unwrap();
        let _ = payee.accept(claim(9, 20), &promise(50)).unwrap();
        assert_eq!(payee.surplus(), nano(50), "job 9 is not open");
        payee.open(job(1)).unwrap();
        let accepted = payee.accept(claim(1, 60), &promise(60)).unwrap();
        assert_eq!((accepted.credited, accepted.job_paid), (nano(10), nano(60)));
    }

    #[test]
    fn a_late_payment_covers_the_debt_it_was_for() {
        let mut payee = payee(1_000);
        payee.open(job(1)).unwrap();
        let _ = payee.accept(claim(1, 40), &promise(40)).unwrap();
        let closed = payee.close(job(1), nano(47));
        assert_eq!(closed.unpaid, nano(7));
        assert_eq!(payee.owed(), nano(7));
        let _ = payee.accept(claim(1, 47), &promise(47)).unwrap();
        assert_eq!((payee.owed(), payee.surplus()), (NanoTon::ZERO, NanoTon::ZERO));
    }

    #[test]
    fn an_old_debt_does_not_starve_a_paid_job() {
        let mut payee = payee(1_000);
        payee.open(job(1)).unwrap();
        payee.open(job(2)).unwrap();
        payee.open(job(3)).unwrap();
        let _ = payee.close(job(1), nano(5));
        let _ = payee.accept(claim(3, 15), &promise(25)).unwrap();
        let accepted = payee.accept(claim(2, 10), &promise(10)).unwrap();
        assert_eq!(accepted.job_paid, nano(10));
        assert_eq!(payee.owed(), nano(5));
    }

    #[test]
    fn what_a_job_did_not_use_is_surplus_again() {
        let mut payee = payee(1_000);
        payee.open(job(1)).unwrap();
        let _ = payee.accept(claim(1, 40), &promise(40)).unwrap();
        let closed = payee.close(job(1), nano(25));
        assert_eq!(closed.unpaid, NanoTon::ZERO);
        assert_eq!(payee.surplus(), nano(15));
        assert_eq!(payee.paid(job(1)), NanoTon::ZERO);
    }

    #[test]
    fn jobs_are_opened_once_and_boundedly_and_not_during_a_release() {
        let mut payee = payee(1_000);
        for number in 0..limits::JOBS_PER_PEER {
            payee.open(job(u8::try_from(number).unwrap())).unwrap();
        }
        assert_eq!(payee.open(job(0)), Err(OpenError::AlreadyOpen));
        assert_eq!(payee.open(job(200)), Err(OpenError::TooManyJobs));
        let _ = payee.close(job(0), NanoTon::ZERO);
        let unlock_at = Some(Timestamp::from_unix_secs(9));
        payee.observe(Allocation { unlock_at, ..allocation(1_000) }).unwrap();
        assert_eq!(payee.open(job(200)), Err(OpenError::Releasing));
        assert!(payee.accept(claim(1, 5), &promise(5)).is_ok(), "running jobs are paid on");
        payee.observe(allocation(1_000)).unwrap();
        assert_eq!(payee.open(job(200)), Ok(()), "the release was cancelled");
    }

    #[test]
    fn settling_is_worth_it_from_the_threshold_or_when_time_runs_out() {
        let mut payee = payee(1_000);
        assert!(!payee.should_settle(NanoTon::ZERO), "nothing is due");
        let _ = payee.accept(None, &promise(120)).unwrap();
        assert!(payee.should_settle(nano(120)));
        assert!(!payee.should_settle(nano(121)));
        let releasing =
            Allocation { unlock_at: Some(Timestamp::from_unix_secs(9)), ..allocation(1_000) };
        payee.observe(releasing).unwrap();
        assert!(payee.should_settle(nano(121)));
        payee.observe(Allocation { paid: nano(120), ..releasing }).unwrap();
        assert!(!payee.should_settle(nano(1)), "all is settled");
        payee.observe(allocation(1_000)).unwrap();
        assert_eq!(payee.unsettled(), NanoTon::ZERO, "an older view unsettles nothing");
    }

    #[test]
    fn an_allocation_that_pays_somebody_else_is_no_channel() {
        let payout = TonAddress { workchain: 0, hash: [5; 32] };
        let wrong = PayeeError::WrongPayout { found: PAYOUT, expected: payout };
        let made = Payee::new(CHANNEL, allocation(10), key().public(), payout);
        assert_eq!(made.map(|payee| payee.state().clone()), Err(wrong));
        let other_epoch = Allocation { epoch: 4, ..allocation(10) };
        let wrong = PayeeError::WrongEpoch { found: 4, expected: 3 };
        assert_eq!(payee(10).observe(other_epoch).cloned(), Err(wrong));
    }

    #[test]
    fn what_the_chain_paid_was_promised_even_if_the_store_forgot() {
        let paid = Allocation { paid: nano(60), ..allocation(100) };
        let mut payee = Payee::new(CHANNEL, paid, key().public(), PAYOUT).unwrap();
        assert_eq!(payee.headroom(), nano(40));
        let (cumulative, best) = (nano(59), nano(60));
        assert_eq!(payee.accept(None, &promise(59)), Err(VoucherError::Lower { cumulative, best }));
        assert_eq!(payee.accept(None, &promise(61)).map(|a| a.credited), Ok(nano(1)));
    }

    fn decoded(state: &PayeeState) -> Payee {
        Payee::restore(PayeeState::decode(&state.encode()).unwrap())
    }

    #[test]
    fn a_restart_keeps_the_voucher_the_surplus_and_the_debt() {
        let mut payee = payee(1_000);
        payee.open(job(1)).unwrap();
        payee.open(job(2)).unwrap();
        let accepted = payee.accept(claim(1, 40), &promise(55)).unwrap();
        let mut restored = decoded(&accepted.record);
        assert_eq!(restored.best(), Some(*promise(55).signed()));
        assert_eq!(restored.surplus(), nano(15));
        assert_eq!(restored.jobs(), 0);
        let closed = restored.close(job(7), nano(20));
        let restored = decoded(&closed.record);
        assert_eq!((restored.owed(), restored.surplus()), (nano(5), NanoTon::ZERO));
    }

    proptest! {
        #[test]
        fn money_is_divided_without_loss(
            limit in 0u64..400,
            events in prop::collection::vec((0u8..6, 0u8..4, 0u64..300, 0u64..300), 1..60),
        ) {
            let mut payee = payee(limit);
            // Used by ended jobs, debts and all: what they were served, less what is still owed.
            let mut served = 0u64;
            for (what, number, total, cumulative) in events {
                match what {
                    0 => { let _ = payee.open(job(number)); }
                    1 if payee.jobs.contains_key(&job(number)) => {
                        served += total;
                        let _ = payee.close(job(number), nano(total));
                    }
                    2 => { let _ = payee.observe(allocation(total)); }
                    _ => { let _ = payee.accept(claim(number, total), &promise(cumulative)); }
                }
                let running: u64 = payee.jobs.values().map(|paid| paid.as_nano()).sum();
                let used = served - payee.owed().as_nano();
                prop_assert_eq!(
                    payee.credited().as_nano(),
                    used + running + payee.surplus().as_nano()
                );
                prop_assert!(payee.credited() <= payee.allocation().limit);
                let stored = decoded(payee.state());
                prop_assert_eq!(stored.state(), payee.state());
            }
        }

        #[test]
        fn hostile_bytes_do_not_decode(cut: prop::sample::Index, junk in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut payee = payee(100);
            let bytes = payee.accept(None, &promise(5)).unwrap().record.encode();
            prop_assert!(PayeeState::decode(&bytes[..cut.index(bytes.len())]).is_err());
            prop_assert!(PayeeState::decode(&[&bytes[..], &[0]].concat()).is_err());
            let _ = PayeeState::decode(&[&KIND[..], &junk].concat());
        }
    }
}
