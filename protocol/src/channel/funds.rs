//! The consumer's money: its vault, and one payer for each provider that it has an allocation for.
//!
//! Owns: when a vault is opened, an allocation made or grown, and a provider told about it.
//! Must not: reach the ledger or a session; it says what to do and waits for the answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::channel::{
    Allocation, ChannelId, HolderClaim, Payer, PayerState, VaultKey, VaultPublicKey,
};
use crate::flat::FlatMap;
use crate::identity::{NodeId, TonAddress};
use crate::input::{ChannelView, LedgerFailure};
use crate::output::{Effect, LedgerCommand, Output};
use crate::record::{Posting, Purpose, Record};
use crate::units::{Millis, NanoTon, Timestamp};
use crate::wire::SessionMessage;

/// A provider whose ledger is behind is asked again after this time, this many times.
const GREETING_RETRY: Millis = Millis::new(500);
/// Ten seconds in all: a ledger read over HTTP is at most some blocks behind.
const GREETING_TRIES: u32 = 20;
/// A provider reads the ledger once before it answers a greeting. One that takes longer than this
/// counts as one that does not see the allocation, so that no job waits for its word for ever.
const GREETING_TIMEOUT: Millis = Millis::from_secs(15);

/// What an operator decides about a consumer's money.
#[derive(Clone, Copy, Debug)]
pub struct FundsConfig {
    /// Whose money it is: providers are shown that this node holds the vault.
    pub consumer: NodeId,
    /// Deposited when the vault is opened.
    pub deposit: NanoTon,
    /// Allocated to a provider at a time.
    pub allocation: NanoTon,
}

/// Whether a channel can take a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// Something is under way; ask again when an input came.
    Waiting,
    /// It cannot.
    Failed(LedgerFailure),
    /// The provider does not see the allocation, although it is on the ledger.
    Unseen,
}

#[derive(Debug)]
enum Vault {
    /// Not asked yet, or the last attempt failed.
    Unknown,
    /// Asked for.
    Opening,
    /// It exists, and this much is free.
    Open { address: TonAddress, free: NanoTon },
}

/// How far a provider knows what the channel can pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    /// It was told nothing in this session.
    None,
    /// It was asked, `tries` times so far, and must answer until this time.
    Asked { tries: u32, until: Timestamp },
    /// Its ledger is behind; it is asked again at this time.
    Retry { at: Timestamp, tries: u32 },
    /// It sees this limit.
    Seen { limit: NanoTon },
    /// At this time it still did not see the allocation.
    Unseen { at: Timestamp },
}

#[derive(Debug)]
struct Funded {
    payer: Payer,
    greeting: Greeting,
}

/// The consumer's vault and channels.
#[derive(Debug)]
pub struct Funds {
    config: FundsConfig,
    key: Arc<VaultKey>,
    vault: Vault,
    channels: FlatMap<NodeId, Funded>,
    /// When the next greeting is due, over all channels: at most as many as a vault's allocations.
    next_greeting: Option<Timestamp>,
    /// What the store remembered, until the ledger says which of it still holds.
    restored: BTreeMap<ChannelId, PayerState>,
    /// The provider that an allocation is being made for: one at a time, by the vault's seqno.
    allocating: Option<NodeId>,
}

impl Funds {
    /// Continues with what the store remembered.
    pub fn new(config: FundsConfig, key: Arc<VaultKey>, restored: Vec<PayerState>) -> Self {
        let restored = restored.into_iter().map(|state| (state.channel(), state)).collect();
        Self {
            config,
            key,
            vault: Vault::Unknown,
            channels: FlatMap::new(),
            next_greeting: None,
            restored,
            allocating: None,
        }
    }

    /// Sees to it that `provider` can be paid `needed` more, as far as that is possible now.
    pub fn prepare(
        &mut self,
        provider: NodeId,
        payout: TonAddress,
        needed: NanoTon,
        now: Timestamp,
        out: &mut Output,
    ) -> Readiness {
        let free = match self.vault {
            Vault::Unknown => {
                self.vault = Vault::Opening;
                let deposit = self.config.deposit;
                out.effects.push(Effect::Ledger(LedgerCommand::OpenVault { deposit }));
                return Readiness::Waiting;
            }
            Vault::Opening => return Readiness::Waiting,
            Vault::Open { free, .. } => free,
        };
        let room = self.channels.get(&provider).map(|funded| funded.payer.headroom());
        match room {
            Some(room) if room >= needed => self.greet(provider, now, out),
            known => {
                let missing = needed.saturating_sub(known.unwrap_or(NanoTon::ZERO));
                self.allocate(provider, payout, missing, free, out)
            }
        }
    }

    fn greet(&mut self, provider: NodeId, now: Timestamp, out: &mut Output) -> Readiness {
        let (Vault::Open { address, .. }, Some(funded)) =
            (&self.vault, self.channels.get_mut(&provider))
        else {
            return Readiness::Waiting;
        };
        match funded.greeting {
            Greeting::Seen { limit } if limit >= funded.payer.limit() => Readiness::Ready,
            // Every job that waited goes elsewhere; a later one starts afresh.
            Greeting::Unseen { at } if at == now => Readiness::Unseen,
            Greeting::None | Greeting::Seen { .. } | Greeting::Unseen { .. } => {
                funded.greeting = Greeting::Asked { tries: 1, until: now.after(GREETING_TIMEOUT) };
                let message = hello(&self.key, *address, provider, self.config.consumer);
                out.effects.push(Effect::Send { peer: provider, message });
                self.plan_greetings();
                Readiness::Waiting
            }
            Greeting::Asked { .. } | Greeting::Retry { .. } => Readiness::Waiting,
        }
    }

    fn allocate(
        &mut self,
        provider: NodeId,
        payout: TonAddress,
        missing: NanoTon,
        free: NanoTon,
        out: &mut Output,
    ) -> Readiness {
        if self.allocating.is_some() {
            return Readiness::Waiting;
        }
        if free < missing || free == NanoTon::ZERO {
            let (needed, available) = (missing, free);
            return Readiness::Failed(LedgerFailure::NoFunds { needed, available });
        }
        let amount = self.config.allocation.max(missing).min(free);
        self.allocating = Some(provider);
        let command = LedgerCommand::Allocate { provider, payout, amount };
        out.effects.push(Effect::Ledger(command));
        Readiness::Waiting
    }

    /// Makes the allocation larger in the background when under 30 % of it is left, so that a
    /// stream never waits for a block.
    pub fn grow_if_low(&mut self, provider: NodeId, payout: TonAddress, out: &mut Output) {
        let Vault::Open { free, .. } = self.vault else {
            return;
        };
        let Some(funded) = self.channels.get(&provider) else {
            return;
        };
        if funded.payer.is_releasing() {
            // To allocate would cancel what the operator has asked for.
            return;
        }
        let low = funded.payer.limit().checked_fraction(30, 100).unwrap_or(NanoTon::ZERO);
        if funded.payer.headroom() < low && free >= self.config.allocation {
            // A refusal only means that it is not grown now.
            let _not_now = self.allocate(provider, payout, NanoTon::ZERO, free, out);
        }
    }

    /// The vault exists. Channels that the store remembers continue where they were.
    pub fn vault_ready(
        &mut self,
        address: TonAddress,
        free: NanoTon,
        allocations: Vec<(NodeId, Allocation)>,
        out: &mut Output,
    ) {
        self.vault = Vault::Open { address, free };
        for (provider, allocation) in allocations {
            self.take_allocation(provider, address, &allocation, out);
        }
    }

    /// An allocation is on the ledger, and this much is left to allocate.
    pub fn allocated(
        &mut self,
        provider: NodeId,
        allocation: &Allocation,
        left: NanoTon,
        out: &mut Output,
    ) {
        self.allocating = None;
        let Vault::Open { address, ref mut free } = self.vault else {
            return;
        };
        *free = left;
        self.take_allocation(provider, address, allocation, out);
    }

    fn take_allocation(
        &mut self,
        provider: NodeId,
        vault: TonAddress,
        allocation: &Allocation,
        out: &mut Output,
    ) {
        let channel = ChannelId { vault, provider, epoch: allocation.epoch };
        let known = self.channels.get_mut(&provider).filter(|f| f.payer.channel() == channel);
        let (before, state) = if let Some(funded) = known {
            (funded.payer.cumulative(), funded.payer.observe(allocation).clone())
        } else {
            let (before, mut payer) = match self.restored.remove(&channel) {
                Some(state) => (state.cumulative(), Payer::restore(state, Arc::clone(&self.key))),
                None => (NanoTon::ZERO, Payer::new(channel, allocation, Arc::clone(&self.key))),
            };
            let state = payer.observe(allocation).clone();
            self.channels.insert(provider, Funded { payer, greeting: Greeting::None });
            self.plan_greetings();
            (before, state)
        };
        remember(before, state, out);
    }

    /// A release was asked for on the ledger, or is complete: nothing new is promised in this
    /// channel, and this much is left to allocate.
    pub fn released(&mut self, provider: NodeId, left: NanoTon, out: &mut Output) {
        if let Vault::Open { ref mut free, .. } = self.vault {
            *free = left;
        }
        if let Some(funded) = self.channels.get_mut(&provider) {
            out.persist.push(Record::Payer(funded.payer.release().clone()));
        }
    }

    /// The vault could not be opened; the next job tries again.
    pub fn vault_failed(&mut self) {
        self.vault = Vault::Unknown;
    }

    /// An allocation did not come about; the next job tries again.
    pub const fn allocation_failed(&mut self) {
        self.allocating = None;
    }

    /// The session with a provider is over: it has to be greeted again.
    pub fn session_closed(&mut self, provider: NodeId) {
        if let Some(funded) = self.channels.get_mut(&provider) {
            funded.greeting = Greeting::None;
            self.plan_greetings();
        }
    }

    /// A provider told what it sees and holds.
    pub fn channel_state(
        &mut self,
        provider: NodeId,
        view: &ChannelView,
        now: Timestamp,
        out: &mut Output,
    ) {
        let Some(funded) = self.channels.get_mut(&provider) else {
            return;
        };
        let Greeting::Asked { tries, .. } = funded.greeting else {
            return;
        };
        let epoch = funded.payer.channel().epoch;
        let limit = view.allocation.filter(|(seen, _)| *seen == epoch).map(|(_, limit)| limit);
        funded.greeting = match limit {
            Some(limit) if limit >= funded.payer.limit() => Greeting::Seen { limit },
            Some(_) | None if tries < GREETING_TRIES => {
                Greeting::Retry { at: now.after(GREETING_RETRY), tries }
            }
            Some(_) | None => Greeting::Unseen { at: now },
        };
        let before = funded.payer.cumulative();
        if let Some(latest) = &view.latest
            && funded.payer.catch_up(latest).is_ok()
        {
            remember(before, funded.payer.state().clone(), out);
        }
        let held = view.latest.as_ref().map(|held| held.voucher().cumulative);
        // What the provider has not got yet is for these debts too.
        let missing = funded.payer.cumulative().saturating_sub(held.unwrap_or(NanoTon::ZERO));
        let owed = if limit.is_some() { view.owed.saturating_sub(missing) } else { NanoTon::ZERO };
        if let Some(repayment) = funded.payer.repay(owed) {
            let channel = funded.payer.channel();
            let (voucher, total) = (repayment.voucher, funded.payer.cumulative());
            let (when, whom) = ((Purpose::Debt, now), (channel, provider));
            let posting = Posting::other(when, whom, false, (repayment.amount, total));
            out.persist.push(Record::Payer(repayment.record));
            out.persist.push(Record::Posting(posting));
            let message = SessionMessage::Payment { voucher, total: None };
            out.effects.push(Effect::Send { peer: provider, message });
        } else if held < Some(funded.payer.cumulative())
            && let Some(voucher) = funded.payer.latest_voucher()
        {
            let message = SessionMessage::Payment { voucher, total: None };
            out.effects.push(Effect::Send { peer: provider, message });
        }
        self.plan_greetings();
    }

    /// Asks providers again whose time has come. True when it gave up on one, whose jobs then have
    /// to go elsewhere.
    pub fn handle_timeout(&mut self, now: Timestamp, out: &mut Output) -> bool {
        let Vault::Open { address, .. } = self.vault else {
            return false;
        };
        if self.next_greeting.is_none_or(|at| at > now) {
            return false;
        }
        let mut gave_up = false;
        for (provider, funded) in self.channels.iter_mut() {
            match funded.greeting {
                Greeting::Retry { at, tries } if at <= now => {
                    let (tries, until) = (tries.saturating_add(1), now.after(GREETING_TIMEOUT));
                    funded.greeting = Greeting::Asked { tries, until };
                    let message = hello(&self.key, address, *provider, self.config.consumer);
                    out.effects.push(Effect::Send { peer: *provider, message });
                }
                Greeting::Asked { until, .. } if until <= now => {
                    funded.greeting = Greeting::Unseen { at: now };
                    gave_up = true;
                }
                Greeting::None
                | Greeting::Asked { .. }
                | Greeting::Retry { .. }
                | Greeting::Seen { .. }
                | Greeting::Unseen { .. } => {}
            }
        }
        self.plan_greetings();
        gave_up
    }

    /// When `handle_timeout` has something to do.
    pub const fn next_timeout(&self) -> Option<Timestamp> {
        self.next_greeting
    }

    /// After a greeting has changed.
    fn plan_greetings(&mut self) {
        let times = self.channels.values().filter_map(|funded| match funded.greeting {
            Greeting::Retry { at, .. } => Some(at),
            Greeting::Asked { until, .. } => Some(until),
            Greeting::None | Greeting::Seen { .. } | Greeting::Unseen { .. } => None,
        });
        self.next_greeting = times.min();
    }

    /// What the channel with a provider can still promise; nothing without a channel.
    pub fn headroom(&self, provider: NodeId) -> NanoTon {
        self.channels.get(&provider).map_or(NanoTon::ZERO, |funded| funded.payer.headroom())
    }

    /// The payer for a provider.
    pub fn payer(&mut self, provider: NodeId) -> Option<&mut Payer> {
        self.channels.get_mut(&provider).map(|funded| &mut funded.payer)
    }

    /// The vault's hot public key, against which our own vouchers verify.
    pub fn key(&self) -> VaultPublicKey {
        self.key.public()
    }

    /// The vault's address and what is free in it, once it is open.
    pub const fn vault(&self) -> Option<(TonAddress, NanoTon)> {
        match self.vault {
            Vault::Open { address, free } => Some((address, free)),
            Vault::Unknown | Vault::Opening => None,
        }
    }

    /// Whether the vault is being opened, for displays.
    pub const fn is_opening(&self) -> bool {
        matches!(self.vault, Vault::Opening)
    }

    /// The provider that an allocation is being made for, for displays.
    pub const fn allocating(&self) -> Option<NodeId> {
        self.allocating
    }

    /// The limit that a provider has said it sees, in the session that stands; for displays.
    pub fn seen_limit(&self, provider: NodeId) -> Option<NanoTon> {
        match self.channels.get(&provider)?.greeting {
            Greeting::Seen { limit } => Some(limit),
            Greeting::None
            | Greeting::Asked { .. }
            | Greeting::Retry { .. }
            | Greeting::Unseen { .. } => None,
        }
    }

    /// All channels, for displays.
    pub fn payers(&self) -> impl Iterator<Item = (&NodeId, &Payer)> {
        self.channels.iter().map(|(provider, funded)| (provider, &funded.payer))
    }
}

/// Persists a channel whose promises are `before` or, when its store has forgotten some, more.
fn remember(before: NanoTon, state: PayerState, out: &mut Output) {
    let (channel, total) = (state.channel(), state.cumulative());
    let forgotten = total.saturating_sub(before);
    out.persist.push(Record::Payer(state));
    if forgotten > NanoTon::ZERO {
        // Nobody knows any more when it was promised.
        let when = (Purpose::Forgotten, Timestamp::EPOCH);
        let whom = (channel, channel.provider);
        out.persist.push(Record::Posting(Posting::other(when, whom, false, (forgotten, total))));
    }
}

fn hello(key: &VaultKey, vault: TonAddress, provider: NodeId, consumer: NodeId) -> SessionMessage {
    let proof = HolderClaim { vault, provider, consumer }.prove(key);
    SessionMessage::ChannelHello { vault, proof }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::VerifiedVoucher;
    use crate::identity::JobId;

    const VAULT: TonAddress = TonAddress { workchain: 0, hash: [0xaa; 32] };
    const PAYOUT: TonAddress = TonAddress { workchain: 0, hash: [0xbb; 32] };
    const PROVIDER: NodeId = NodeId::from_bytes([2; 32]);
    const OTHER: NodeId = NodeId::from_bytes([3; 32]);
    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

    const fn nano(nano: u64) -> NanoTon {
        NanoTon::from_nano(nano)
    }

    fn key() -> Arc<VaultKey> {
        Arc::new(VaultKey::from_secret(&[4; 32]))
    }

    fn funds(restored: Vec<PayerState>) -> Funds {
        let consumer = NodeId::from_bytes([1; 32]);
        let config = FundsConfig { consumer, deposit: nano(1_000), allocation: nano(100) };
        Funds::new(config, key(), restored)
    }

    const fn allocation(limit: u64, epoch: u32) -> Allocation {
        Allocation::new(PAYOUT, nano(limit), epoch)
    }

    /// An [`Output`] that a test may leave alone.
    struct Came {
        persist: Vec<Record>,
        effects: Vec<Effect>,
    }

    /// Calls, and gives what came out beside the answer.
    fn with<T>(call: impl FnOnce(&mut Output) -> T) -> (T, Came) {
        let mut out = Output::default();
        let answer = call(&mut out);
        let Output { persist, effects, wake_at: _ } = out;
        (answer, Came { persist, effects })
    }

    fn prepare(
        funds: &mut Funds,
        provider: NodeId,
        needed: u64,
        now: Timestamp,
    ) -> (Readiness, Came) {
        with(|out| funds.prepare(provider, PAYOUT, nano(needed), now, out))
    }

    fn sees(limit: u64, epoch: u32, latest: Option<VerifiedVoucher>) -> ChannelView {
        ChannelView { allocation: Some((epoch, nano(limit))), latest, owed: NanoTon::ZERO }
    }

    fn is_hello(out: &Came) -> bool {
        matches!(
            out.effects[..],
            [Effect::Send { message: SessionMessage::ChannelHello { vault: VAULT, .. }, .. }]
        )
    }

    fn allocates(out: &Came) -> Option<(NodeId, NanoTon)> {
        match out.effects[..] {
            [Effect::Ledger(LedgerCommand::Allocate { provider, amount, .. })] => {
                Some((provider, amount))
            }
            _ => None,
        }
    }

    /// Funds with an open vault and one channel that its provider sees.
    fn ready(limit: u64) -> Funds {
        let mut funds = funds(Vec::new());
        prepare(&mut funds, PROVIDER, 10, NOW);
        let allocations = vec![(PROVIDER, allocation(limit, 1))];
        with(|out| funds.vault_ready(VAULT, nano(1_000), allocations, out));
        assert!(is_hello(&prepare(&mut funds, PROVIDER, 10, NOW).1));
        with(|out| funds.channel_state(PROVIDER, &sees(limit, 1, None), NOW, out));
        assert_eq!(prepare(&mut funds, PROVIDER, 10, NOW).0, Readiness::Ready);
        assert_eq!(funds.seen_limit(PROVIDER), Some(nano(limit)));
        assert_eq!(funds.seen_limit(OTHER), None);
        funds
    }

    fn spend(funds: &mut Funds, number: u8, amount: u64) {
        let (job, payer) = (JobId::from_bytes([number; 32]), funds.payer(PROVIDER).unwrap());
        payer.reserve(job, nano(amount)).unwrap();
        let _sent_by_the_job = payer.pay(job, nano(amount)).unwrap();
        payer.abandon(job);
    }

    #[test]
    fn many_jobs_open_the_vault_once_and_a_failure_lets_the_next_try() {
        let mut funds = funds(Vec::new());
        let opened = Effect::Ledger(LedgerCommand::OpenVault { deposit: nano(1_000) });
        let (readiness, out) = prepare(&mut funds, PROVIDER, 10, NOW);
        assert_eq!((readiness, out.effects), (Readiness::Waiting, vec![opened.clone()]));
        assert!(funds.is_opening());
        for provider in [PROVIDER, OTHER] {
            let (readiness, out) = prepare(&mut funds, provider, 10, NOW);
            assert_eq!((readiness, out.effects), (Readiness::Waiting, vec![]));
        }
        funds.vault_failed();
        assert!(!funds.is_opening());
        assert_eq!(prepare(&mut funds, OTHER, 10, NOW).1.effects, [opened]);
    }

    #[test]
    fn allocations_are_made_one_at_a_time() {
        let mut funds = funds(Vec::new());
        prepare(&mut funds, PROVIDER, 10, NOW);
        with(|out| funds.vault_ready(VAULT, nano(150), Vec::new(), out));
        let (_, out) = prepare(&mut funds, PROVIDER, 10, NOW);
        assert_eq!(allocates(&out), Some((PROVIDER, nano(100))));
        assert_eq!(funds.allocating(), Some(PROVIDER));
        let (readiness, out) = prepare(&mut funds, OTHER, 60, NOW);
        assert_eq!((readiness, out.effects), (Readiness::Waiting, vec![]));
        let (_, out) = with(|out| funds.allocated(PROVIDER, &allocation(100, 1), nano(50), out));
        assert!(matches!(out.persist[..], [Record::Payer(_)]), "durable before it is used");
        assert_eq!(funds.allocating(), None);
        // What is left does not cover the other job, but it covers a smaller one.
        let (needed, available) = (nano(60), nano(50));
        let failed = Readiness::Failed(LedgerFailure::NoFunds { needed, available });
        assert_eq!(prepare(&mut funds, OTHER, 60, NOW).0, failed);
        let (_, out) = prepare(&mut funds, OTHER, 40, NOW);
        assert_eq!(allocates(&out), Some((OTHER, nano(50))));
        funds.allocation_failed();
        let (_, out) = prepare(&mut funds, OTHER, 40, NOW);
        assert_eq!(allocates(&out), Some((OTHER, nano(50))), "the next job tries again");
    }

    #[test]
    fn an_allocation_grows_when_under_thirty_percent_are_left() {
        let mut funds = ready(100);
        spend(&mut funds, 1, 70);
        let (_, out) = with(|out| funds.grow_if_low(PROVIDER, PAYOUT, out));
        assert_eq!(allocates(&out), None, "thirty are left");
        spend(&mut funds, 2, 1);
        let (_, out) = with(|out| funds.grow_if_low(PROVIDER, PAYOUT, out));
        assert_eq!(allocates(&out), Some((PROVIDER, nano(100))));
        let (_, out) = with(|out| funds.grow_if_low(PROVIDER, PAYOUT, out));
        assert_eq!(allocates(&out), None, "it is under way");
        with(|out| funds.allocated(PROVIDER, &allocation(200, 1), nano(99), out));
        // The provider has to see the new limit before a job counts on it.
        assert!(is_hello(&prepare(&mut funds, PROVIDER, 10, NOW).1));
        spend(&mut funds, 3, 100);
        let (_, out) = with(|out| funds.grow_if_low(PROVIDER, PAYOUT, out));
        assert_eq!(allocates(&out), None, "there is not a whole allocation left");
    }

    #[test]
    fn a_provider_whose_ledger_is_behind_is_asked_again_and_then_given_up() {
        let mut funds = ready(100);
        funds.session_closed(PROVIDER);
        assert!(is_hello(&prepare(&mut funds, PROVIDER, 10, NOW).1));
        let mut now = NOW;
        let blind = ChannelView { allocation: None, latest: None, owed: NanoTon::ZERO };
        for _ in 1..GREETING_TRIES {
            with(|out| funds.channel_state(PROVIDER, &blind, now, out));
            assert_eq!(prepare(&mut funds, PROVIDER, 10, now).0, Readiness::Waiting);
            let at = now.after(GREETING_RETRY);
            assert_eq!(funds.next_timeout(), Some(at));
            now = at;
            assert!(is_hello(&with(|out| funds.handle_timeout(now, out)).1));
        }
        with(|out| funds.channel_state(PROVIDER, &blind, now, out));
        for _ in 0..3 {
            assert_eq!(
                prepare(&mut funds, PROVIDER, 10, now).0,
                Readiness::Unseen,
                "each that waits"
            );
        }
        let later = now.after(Millis::new(1));
        assert!(is_hello(&prepare(&mut funds, PROVIDER, 10, later).1), "a later job starts afresh");
    }

    #[test]
    fn a_provider_that_does_not_answer_a_greeting_is_given_up() {
        let mut funds = ready(100);
        funds.session_closed(PROVIDER);
        prepare(&mut funds, PROVIDER, 10, NOW);
        let at = NOW.after(GREETING_TIMEOUT);
        assert_eq!(funds.next_timeout(), Some(at));
        assert!(!with(|out| funds.handle_timeout(NOW, out)).0);
        assert!(with(|out| funds.handle_timeout(at, out)).0);
        assert_eq!(prepare(&mut funds, PROVIDER, 10, at).0, Readiness::Unseen);
        // Its late answer changes nothing.
        with(|out| funds.channel_state(PROVIDER, &sees(100, 1, None), at, out));
        assert_eq!(prepare(&mut funds, PROVIDER, 10, at).0, Readiness::Unseen);
    }

    #[test]
    fn a_smaller_limit_or_another_epoch_is_not_seen() {
        let mut funds = ready(100);
        for view in [sees(99, 1, None), sees(100, 2, None)] {
            funds.session_closed(PROVIDER);
            prepare(&mut funds, PROVIDER, 10, NOW);
            with(|out| funds.channel_state(PROVIDER, &view, NOW, out));
            assert_eq!(prepare(&mut funds, PROVIDER, 10, NOW).0, Readiness::Waiting);
        }
    }

    #[test]
    fn a_restored_channel_continues_in_its_epoch_and_repeats_its_promise() {
        let mut before = ready(100);
        spend(&mut before, 1, 60);
        let stored = before.payer(PROVIDER).unwrap().state().clone();
        let mut funds = funds(vec![stored]);
        prepare(&mut funds, PROVIDER, 10, NOW);
        let allocations = vec![(PROVIDER, allocation(100, 1))];
        with(|out| funds.vault_ready(VAULT, nano(1_000), allocations, out));
        assert_eq!(funds.payer(PROVIDER).unwrap().headroom(), nano(40));
        prepare(&mut funds, PROVIDER, 10, NOW);
        let (_, out) = with(|out| funds.channel_state(PROVIDER, &sees(100, 1, None), NOW, out));
        let [Effect::Send { message: SessionMessage::Payment { voucher, total: None }, .. }] =
            &out.effects[..]
        else {
            panic!("the provider holds nothing, so the promise is repeated: {:?}", out.effects);
        };
        assert_eq!(voucher.voucher.cumulative, nano(60));
    }

    #[test]
    fn a_store_that_forgot_learns_its_promise_from_the_provider() {
        let mut funds = ready(100);
        funds.session_closed(PROVIDER);
        prepare(&mut funds, PROVIDER, 10, NOW);
        let channel = ChannelId { vault: VAULT, provider: PROVIDER, epoch: 1 };
        let voucher = key().sign(channel.voucher(nano(80), [0; 32]));
        let held = voucher.verify(&key().public()).unwrap();
        let view = sees(100, 1, Some(held));
        let (_, out) = with(|out| funds.channel_state(PROVIDER, &view, NOW, out));
        let [Record::Payer(_), Record::Posting(forgotten)] = &out.persist[..] else {
            panic!("{:?}", out.persist);
        };
        assert_eq!((forgotten.purpose, forgotten.amount), (Purpose::Forgotten, nano(80)));
        assert_eq!(funds.payer(PROVIDER).unwrap().cumulative(), nano(80));
    }

    #[test]
    fn an_allocation_made_again_starts_anew() {
        let mut before = ready(100);
        spend(&mut before, 1, 60);
        let stored = before.payer(PROVIDER).unwrap().state().clone();
        let mut funds = funds(vec![stored]);
        prepare(&mut funds, PROVIDER, 10, NOW);
        let allocations = vec![(PROVIDER, allocation(100, 2))];
        with(|out| funds.vault_ready(VAULT, nano(1_000), allocations, out));
        let payer = funds.payer(PROVIDER).unwrap();
        let anew = (2, NanoTon::ZERO, nano(100));
        assert_eq!((payer.channel().epoch, payer.cumulative(), payer.headroom()), anew);
    }

    #[test]
    fn a_released_channel_is_allocated_again_for_the_next_job_alone() {
        let mut funds = ready(100);
        spend(&mut funds, 1, 90);
        let (_, out) = with(|out| funds.released(PROVIDER, nano(1_000), out));
        assert!(matches!(out.persist[..], [Record::Payer(_)]));
        let (_, out) = with(|out| funds.grow_if_low(PROVIDER, PAYOUT, out));
        assert_eq!(allocates(&out), None, "a running job does not undo the release");
        let (readiness, out) = prepare(&mut funds, PROVIDER, 10, NOW);
        assert_eq!((readiness, allocates(&out)), (Readiness::Waiting, Some((PROVIDER, nano(100)))));
        with(|out| funds.allocated(PROVIDER, &allocation(200, 1), nano(0), out));
        assert_eq!(funds.payer(PROVIDER).unwrap().headroom(), nano(110));
    }

    #[test]
    fn what_a_release_gives_back_can_be_allocated_to_another() {
        let mut funds = ready(100);
        with(|out| funds.allocated(PROVIDER, &allocation(100, 1), nano(0), out));
        let (needed, available) = (nano(60), nano(0));
        let failed = Readiness::Failed(LedgerFailure::NoFunds { needed, available });
        assert_eq!(prepare(&mut funds, OTHER, 60, NOW).0, failed);
        // Asked for, and once the delay is over taken back.
        with(|out| funds.released(PROVIDER, nano(0), out));
        assert_eq!(prepare(&mut funds, OTHER, 60, NOW).0, failed);
        with(|out| funds.released(PROVIDER, nano(90), out));
        assert_eq!(allocates(&prepare(&mut funds, OTHER, 60, NOW).1), Some((OTHER, nano(90))));
    }
}
