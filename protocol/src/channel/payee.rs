//! Payee side of a payment channel: how much has been promised, and for which job.
//!
//! Owns: the highest valid voucher, what of it belongs to which job, and what is still owed.
//! Must not: read a clock, reach the ledger, check a signature, or know what a token costs.
//! Invariant: a record is durable before the credit that it stands for is used.
//!
//! Money is divided without loss: at any time the credited amount (the best voucher, up to the
//! limit) is what ended jobs used, plus what running jobs have, plus the surplus.

use std::collections::BTreeMap;

use crate::channel::{
    Allocation, ChannelId, JobTotal, SignedVoucher, VaultPublicKey, VerifiedVoucher,
};
use crate::identity::{JobId, TonAddress};
use crate::layout::{Reader, RecordError, Writer};
use crate::limits;
use crate::units::{NanoTon, Timestamp};

const KIND: [u8; 4] = *b"CPe1";

/// What must survive a crash. Running jobs are not in it: they end with the process, and what they
/// had counts as used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayeeState {
    channel: ChannelId,
    vault_key: VaultPublicKey,
    allocation: Allocation,
    best: Option<SignedVoucher>,
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
    pub const fn best(&self) -> Option<&SignedVoucher> {
        self.best.as_ref()
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let record = self
            .channel
            .write(Writer::new(KIND))
            .bytes(self.vault_key.as_bytes());
        let record = self
            .allocation
            .write(record)
            .u64(self.surplus.as_nano())
            .u64(self.owed.as_nano())
            .u8(u8::from(self.best.is_some()));
        match &self.best {
            Some(best) => record
                .u64(best.voucher.cumulative.as_nano())
                .bytes(&best.voucher.receipts_root)
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
            true => Some(SignedVoucher {
                voucher: channel.voucher(NanoTon::from_nano(reader.u64()?), reader.array()?),
                signature: reader.array()?,
            }),
        };
        reader.finish()?;
        if allocation.epoch != channel.epoch {
            return Err(RecordError::BadField("epoch"));
        }
        Ok(Self {
            channel,
            vault_key,
            allocation,
            best,
            surplus,
            owed,
        })
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
            Self::Lower { .. } => VoucherBlame::Nobody,
            // A new epoch begins while messages of the old one are under way.
            Self::WrongEpoch { found, expected } if *found < *expected => VoucherBlame::Nobody,
            Self::WrongVault { .. }
            | Self::WrongProvider
            | Self::WrongEpoch { .. }
            | Self::WrongKey => VoucherBlame::Peer,
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
    jobs: BTreeMap<JobId, NanoTon>,
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
            return Err(PayeeError::WrongPayout {
                found: allocation.payout,
                expected: payout,
            });
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
        Self {
            state,
            jobs: BTreeMap::new(),
        }
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
    pub const fn best(&self) -> Option<&SignedVoucher> {
        self.state.best.as_ref()
    }

    /// Everything promised so far, also beyond the limit; at least what the chain has paid out.
    pub fn promised(&self) -> NanoTon {
        let best = self
            .state
            .best
            .map_or(NanoTon::ZERO, |best| best.voucher.cumulative);
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
        Closed {
            record: self.state.clone(),
            unpaid,
        }
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
            self.state.best = Some(*verified.signed());
        }
        let credited = self.credited().saturating_sub(before);
        self.add_surplus(credited);
        let job_paid = claim.map_or(NanoTon::ZERO, |claim| self.draw(claim));
        let uncovered = cumulative.saturating_sub(self.state.allocation.limit);
        Ok(Accepted {
            record: self.state.clone(),
            credited,
            uncovered,
            job_paid,
        })
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
        let (limit, paid) = (
            current.limit.max(allocation.limit),
            current.paid.max(allocation.paid),
        );
        self.state.allocation = Allocation {
            limit,
            paid,
            ..allocation
        };
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
        self.jobs
            .get(&claim.job)
            .map_or(NanoTon::ZERO, |paid| claim.total.saturating_sub(*paid))
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
        let covered = if self.jobs.is_empty() {
            surplus.min(self.state.owed)
        } else {
            NanoTon::ZERO
        };
        self.state.surplus = surplus.saturating_sub(covered);
        self.state.owed = self.state.owed.saturating_sub(covered);
    }
}
