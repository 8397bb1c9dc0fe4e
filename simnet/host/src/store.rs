//! A host's store: what survives a crash, how long a commit takes, and where a process dies.
//!
//! Owns: the durable records and the disk's faults, each drawn from the seed.
//! Must not: tear a transaction. What is committed is there as a whole; what is not is lost.

use std::time::Duration;

use cocoon_protocol::channel::{ChannelId, PayeeState, PayerState};
use cocoon_protocol::identity::JobId;
use cocoon_protocol::layout::RecordError;
use cocoon_protocol::record::{Interrupted, Logged, Posting, Record, StoredReceipt};
use cocoon_protocol::units::NanoTon;
use simnet_scenario::Seed;

use crate::fabric::HostId;
use crate::mutation::{Mutation, planted};

/// A probability, in millionths: exact on every machine.
pub type PerMillion = u32;

/// A disk, and what is wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSpec {
    /// What a commit takes at least. Zero is durable at once and costs no event.
    pub commit: Duration,
    /// A commit takes up to this much longer, evenly distributed.
    pub spread: Duration,
    /// How many commits in a million are slow.
    pub slow: PerMillion,
    /// What a slow one takes more.
    pub slow_commit: Duration,
    /// How many commits in a million are the process's last act.
    pub crash: PerMillion,
    /// After such a crash the host starts again when this has passed.
    pub restart_after: Duration,
    /// Whether receipts are kept whole. Without, they are counted and hashed: a long run's memory
    /// does not grow with its jobs.
    pub keep_receipts: bool,
    /// Whether every record is decoded from its bytes again and compared. For tests.
    pub check: bool,
}

/// Where, in the life of a commit, a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// The records are lost.
    BeforeDurable,
    /// The records are kept, and no effect has left.
    BeforeEffects,
    /// The records are kept, and so many effects have left.
    AfterEffects(u32),
}

/// What the disk does with one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) takes: Duration,
    pub(crate) crash: Option<CrashPoint>,
}

/// Receipts that a store has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// A hash over them, in order.
    pub hash: u64,
}

/// What survives a crash.
#[derive(Debug, Default)]
pub struct Store {
    payers: Vec<PayerState>,
    payees: Vec<PayeeState>,
    receipts: Option<Vec<StoredReceipt>>,
    tally: Tally,
    interrupted: NanoTon,
    commits: u64,
    planned: Option<(u64, CrashPoint)>,
}

/// A record that does not survive its own encoding: a defect of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record does not decode to itself; look at `encode` and `decode` of its type")]
pub struct Unfaithful;

impl Store {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self {
            payers: Vec::new(),
            payees: Vec::new(),
            receipts: None,
            tally: Tally { count: 0, hash: 0 },
            interrupted: NanoTon::ZERO,
            commits: 0,
            planned: None,
        }
    }

    /// Channels that this host pays in, in the order of their ids.
    pub fn payers(&self) -> &[PayerState] {
        &self.payers
    }

    /// Channels that this host is paid in, in the order of their ids.
    pub fn payees(&self) -> &[PayeeState] {
        &self.payees
    }

    /// Receipts so far.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// The receipts themselves, if they are kept.
    pub fn receipts(&self) -> &[StoredReceipt] {
        self.receipts.as_deref().unwrap_or_default()
    }

    /// What was promised for jobs without a receipt, all in all.
    pub const fn interrupted(&self) -> NanoTon {
        self.interrupted
    }

    /// Commits begun so far.
    pub const fn commits(&self) -> u64 {
        self.commits
    }

    /// Makes the process die in this commit, counted from the first ever.
    pub const fn plan_crash(&mut self, commit: u64, point: CrashPoint) {
        self.planned = Some((commit, point));
    }

    /// Begins a commit: how long it takes, and whether the process dies in it.
    pub(crate) fn begin(&mut self, spec: &StoreSpec, seed: Seed, host: HostId) -> Fate {
        self.commits += 1;
        let planned = self.planned.take_if(|(commit, _)| *commit == self.commits);
        let crash = planned.map(|(_, point)| point);
        let certain = spec.spread.is_zero() && spec.slow == 0 && spec.crash == 0;
        if certain {
            return Fate { takes: spec.commit, crash };
        }
        // One hash for each commit instead of a stream for each host: a stream is 300 bytes.
        let index = u64::from(host.0) << 40 | self.commits;
        let drawn = seed.bytes("store", index);
        let (words, _) = drawn.as_chunks::<8>();
        let word = |at: usize| words.get(at).map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let spread = u64::try_from(spec.spread.as_nanos()).unwrap_or(u64::MAX);
        let mut takes = spec.commit + Duration::from_nanos(scaled(word(0), spread));
        if scaled(word(1), MILLION) < u64::from(spec.slow) {
            takes += spec.slow_commit;
        }
        let dies = scaled(word(2), MILLION) < u64::from(spec.crash);
        let point = match scaled(word(3), 3) {
            0 => CrashPoint::BeforeDurable,
            1 => CrashPoint::BeforeEffects,
            _ => CrashPoint::AfterEffects(u32::try_from(word(3) % MOST_EFFECTS).unwrap_or(0) + 1),
        };
        Fate { takes, crash: crash.or_else(|| dies.then_some(point)) }
    }

    /// Names the memory that it points to; see [`crate::Host::approach`].
    pub(crate) fn approach(&self, ask: &mut impl FnMut(*const u8, usize)) {
        crate::host::near_list(&self.payers, ask);
        crate::host::near_list(&self.payees, ask);
    }

    /// Whether a commit that was under way when the process died reached the disk.
    pub(crate) fn reached_disk(&self, seed: Seed, host: HostId) -> bool {
        let index = u64::from(host.0) << 40 | self.commits;
        let [first, ..] = seed.bytes("store, cut short", index);
        first & 1 == 0
    }

    /// The records are durable, all at once. States the promises that follow.
    pub(crate) fn keep(
        &mut self,
        spec: &StoreSpec,
        records: impl IntoIterator<Item = Record>,
        mut state: impl FnMut(Kept),
    ) -> Result<(), Unfaithful> {
        for record in records {
            if spec.check && !is_faithful(&record) {
                return Err(Unfaithful);
            }
            match record {
                Record::Payer(payer) if forgets(payer.cumulative()) => {
                    let (channel, cumulative) = (payer.channel(), payer.cumulative());
                    state(Kept::Promised { channel, cumulative });
                }
                Record::Payer(payer) => {
                    let (channel, cumulative) = (payer.channel(), payer.cumulative());
                    let before = put(&mut self.payers, payer, PayerState::channel);
                    if before.is_none_or(|before| before.cumulative() != cumulative) {
                        state(Kept::Promised { channel, cumulative });
                    }
                }
                Record::Payee(payee) if cumulative(&payee).is_some_and(forgets) => {
                    let (channel, best) = (payee.channel(), cumulative(&payee));
                    let cumulative = best.unwrap_or_default();
                    state(Kept::Held { channel, cumulative });
                }
                Record::Payee(payee) => {
                    let (channel, best) = (payee.channel(), cumulative(&payee));
                    let before = put(&mut self.payees, payee, PayeeState::channel);
                    let before = before.as_ref().and_then(cumulative);
                    if let Some(cumulative) = best.filter(|_| best != before) {
                        state(Kept::Held { channel, cumulative });
                    }
                }
                Record::Receipt(receipt) => self.keep_receipt(spec, receipt),
                // For proofs and reports, which no host asks for.
                Record::Logged(_) | Record::Posting(_) => {}
                Record::Interrupted(it) => {
                    self.interrupted = self.interrupted.saturating_add(it.paid);
                    state(Kept::Interrupted { job: it.job, paid: it.paid });
                }
            }
        }
        Ok(())
    }

    fn keep_receipt(&mut self, spec: &StoreSpec, receipt: StoredReceipt) {
        let (head, _) =
            receipt.receipt.signature.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        self.tally.count += 1;
        // The signature is a function of the whole receipt, so its first bytes are a hash of it.
        self.tally.hash = self.tally.hash.rotate_left(7) ^ u64::from_be_bytes(*head);
        if spec.keep_receipts {
            self.receipts.get_or_insert_default().push(receipt);
        }
    }

    /// States every channel that is kept: what a restart begins with.
    pub(crate) fn recall(&self, mut state: impl FnMut(Kept)) {
        for payer in &self.payers {
            let (channel, cumulative) = (payer.channel(), payer.cumulative());
            state(Kept::Promised { channel, cumulative });
        }
        for payee in &self.payees {
            if let Some(best) = payee.best() {
                let (channel, cumulative) = (payee.channel(), best.voucher.cumulative);
                state(Kept::Held { channel, cumulative });
            }
        }
    }

    /// The consumer's channels as a restart reads them.
    pub(crate) fn restore_payers(&self) -> Result<Vec<PayerState>, RecordError> {
        self.payers.iter().map(|state| PayerState::decode(&state.encode())).collect()
    }

    /// The provider's channels as a restart reads them.
    pub(crate) fn restore_payees(&self) -> Result<Vec<PayeeState>, RecordError> {
        self.payees.iter().map(|state| PayeeState::decode(&state.encode())).collect()
    }
}

/// Whether the disk says that it has a promise of this much and has not.
fn forgets(cumulative: NanoTon) -> bool {
    planted(Mutation::VoucherLost) && cumulative > NanoTon::ZERO
}

/// A fact that became durable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    Promised { channel: ChannelId, cumulative: NanoTon },
    Held { channel: ChannelId, cumulative: NanoTon },
    Interrupted { job: JobId, paid: NanoTon },
}

/// What probabilities are counted in.
const MILLION: u64 = 1_000_000;
/// A crash in the middle of the effects comes after at most so many of them; few outputs have more.
const MOST_EFFECTS: u64 = 6;

/// A number below `bound`, evenly, from 64 random bits.
fn scaled(random: u64, bound: u64) -> u64 {
    u64::try_from((u128::from(random) * u128::from(bound)) >> 64).unwrap_or(0)
}

/// What a provider's best voucher promises.
fn cumulative(payee: &PayeeState) -> Option<NanoTon> {
    payee.best().map(|best| best.voucher.cumulative)
}

/// Puts a channel's state in its place; the one before comes back.
fn put<T>(list: &mut Vec<T>, item: T, channel: fn(&T) -> ChannelId) -> Option<T> {
    match list.binary_search_by_key(&channel(&item), channel) {
        Ok(at) => list.get_mut(at).map(|known| std::mem::replace(known, item)),
        Err(at) => {
            // A million hosts would have a million spare rooms.
            crate::host::grow(list);
            list.insert(at, item);
            None
        }
    }
}

fn is_faithful(record: &Record) -> bool {
    let bytes = record.encode();
    match record {
        Record::Payer(state) => PayerState::decode(&bytes).as_ref() == Ok(state),
        Record::Payee(state) => PayeeState::decode(&bytes).as_ref() == Ok(state),
        Record::Receipt(stored) => StoredReceipt::decode(&bytes).as_ref() == Ok(stored),
        Record::Interrupted(it) => Interrupted::decode(&bytes).as_ref() == Ok(it),
        Record::Logged(it) => Logged::decode(&bytes).as_ref() == Ok(it),
        Record::Posting(it) => Posting::decode(&bytes).as_ref() == Ok(it),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cocoon_protocol::channel::{Allocation, Payer, VaultKey};
    use cocoon_protocol::identity::{NodeId, TonAddress};
    use cocoon_protocol::units::Timestamp;

    use super::*;

    const HOST: HostId = HostId(7);

    fn payer(epoch: u32, paid: u64) -> Record {
        let vault = TonAddress { workchain: 0, hash: [1; 32] };
        let channel = ChannelId { vault, provider: NodeId::from_bytes([2; 32]), epoch };
        let key = Arc::new(VaultKey::from_secret(&[3; 32]));
        let allocation = Allocation::new(vault, NanoTon::from_nano(100), epoch);
        let mut payer = Payer::new(channel, &allocation, key);
        let job = JobId::from_bytes([4; 32]);
        payer.reserve(job, NanoTon::from_nano(paid)).unwrap();
        Record::Payer(payer.pay(job, NanoTon::from_nano(paid)).unwrap().record)
    }

    fn keep(store: &mut Store, records: Vec<Record>) -> Vec<u64> {
        let mut promised = Vec::new();
        let spec = StoreSpec { check: true, ..StoreSpec::default() };
        let kept = store.keep(&spec, records, |kept| {
            if let Kept::Promised { cumulative, .. } = kept {
                promised.push(cumulative.as_nano());
            }
        });
        assert_eq!(kept, Ok(()));
        promised
    }

    #[test]
    fn the_latest_state_of_each_channel_is_kept_and_each_new_promise_stated_once() {
        let mut store = Store::default();
        assert_eq!(keep(&mut store, vec![payer(2, 5), payer(1, 3)]), [5, 3]);
        assert_eq!(keep(&mut store, vec![payer(2, 5)]), [0; 0], "nothing new");
        assert_eq!(keep(&mut store, vec![payer(2, 9)]), [9]);
        let kept: Vec<_> = store.payers().iter().map(|it| it.channel().epoch).collect();
        assert_eq!(kept, [1, 2]);
        let restored = store.restore_payers().unwrap();
        assert_eq!(restored, store.payers());
    }

    #[test]
    fn what_was_interrupted_is_added_up() {
        let mut store = Store::default();
        let interrupted = |paid| {
            Record::Interrupted(Interrupted {
                job: JobId::from_bytes([1; 32]),
                provider: NodeId::from_bytes([2; 32]),
                paid: NanoTon::from_nano(paid),
                at: Timestamp::EPOCH,
            })
        };
        keep(&mut store, vec![interrupted(3), interrupted(4)]);
        assert_eq!(store.interrupted(), NanoTon::from_nano(7));
    }

    #[test]
    fn a_disk_without_faults_draws_nothing_and_faults_come_as_often_as_was_asked() {
        let spec = StoreSpec { commit: Duration::from_millis(2), ..StoreSpec::default() };
        let mut store = Store::default();
        let fate = store.begin(&spec, Seed(1), HOST);
        assert_eq!(fate, Fate { takes: spec.commit, crash: None });

        let spec = StoreSpec {
            spread: Duration::from_millis(3),
            slow: 100_000,
            slow_commit: Duration::from_secs(1),
            crash: 250_000,
            ..spec
        };
        let fates: Vec<_> = (0..10_000).map(|_| store.begin(&spec, Seed(1), HOST)).collect();
        let count = |wanted: &dyn Fn(&Fate) -> bool| fates.iter().filter(|it| wanted(it)).count();
        assert!((900..1_100).contains(&count(&|it| it.takes >= spec.slow_commit)));
        assert!((2_300..2_700).contains(&count(&|it| it.crash.is_some())));
        for point in [CrashPoint::BeforeDurable, CrashPoint::BeforeEffects] {
            assert!((700..1_000).contains(&count(&|it| it.crash == Some(point))));
        }
        let quick = |it: &&Fate| it.takes < spec.slow_commit;
        let longest = fates.iter().filter(quick).map(|it| it.takes).max();
        assert!(
            longest < Some(Duration::from_millis(5)) && longest > Some(Duration::from_millis(4))
        );
        let mut again = Store { commits: 1, ..Store::default() };
        assert!(fates.iter().all(|fate| *fate == again.begin(&spec, Seed(1), HOST)));
    }

    #[test]
    fn a_planned_crash_comes_once() {
        let mut store = Store::default();
        store.plan_crash(2, CrashPoint::BeforeEffects);
        let spec = StoreSpec::default();
        let crashes: Vec<_> =
            (0..3).map(|_| store.begin(&spec, Seed(1), HOST).crash.is_some()).collect();
        assert_eq!(crashes, [false, true, false]);
    }

    #[test]
    fn receipts_that_are_not_kept_cost_no_memory_and_are_still_told_apart() {
        use cocoon_protocol::receipt::SignedReceipt;
        let stored = |byte: u8| {
            let receipt = SignedReceipt { bytes: vec![byte], signature: [byte; 64] };
            StoredReceipt { receipt, salt: [0; 32], provided: true }
        };
        let tally = |keep_receipts, bytes: [u8; 2]| {
            let spec = StoreSpec { keep_receipts, ..StoreSpec::default() };
            let mut store = Store::default();
            let records = bytes.map(|byte| Record::Receipt(stored(byte))).to_vec();
            assert_eq!(store.keep(&spec, records, |_| {}), Ok(()));
            (store.tally(), store.receipts().len())
        };
        assert_eq!(tally(true, [1, 2]).1, 2);
        assert_eq!(tally(false, [1, 2]).1, 0);
        assert_eq!(tally(false, [1, 2]).0, tally(true, [1, 2]).0);
        assert_ne!(tally(false, [1, 2]).0.hash, tally(false, [2, 1]).0.hash);
    }
}
