//! Two consumers and three providers at a ledger, and what each of them was told.
//!
//! Owns: the count of commands and answers. Must not: choose what happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::Input;
use cocoon_protocol::attest::Tier;
use cocoon_protocol::channel::{Allocation, ChannelId, Voucher};
use cocoon_protocol::identity::{NodeKey, TonAddress};
use cocoon_protocol::input::LedgerFailure;
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::pricing::Fixed;
use cocoon_protocol::selection::Balanced;
use cocoon_protocol::units::NanoTon;
use proptest::prelude::*;
use simnet_host::ledger::{Ledger, LedgerTerms, vault_address};
use simnet_host::{
    BlockReport, Bounds, ConsumerSpec, HostId, HostSpec, HotKey, Invariants, LedgerFact,
    Observation, Observer, ProviderSpec,
};
use simnet_scenario::population::ChurnClass;
use simnet_scenario::{Link, Moment, Seed};

pub(crate) const CONSUMERS: usize = 2;
pub(crate) const PROVIDERS: usize = 3;
const TON: u64 = 1_000_000_000;
/// Longer than any wait of a host: its patience, a server's silence, an order's last second.
const QUIET: Duration = Duration::from_secs(700);

fn nano(nano: u64) -> NanoTon {
    NanoTon::from_nano(nano)
}

fn host(number: u32) -> HostSpec {
    HostSpec {
        id: HostId(number),
        key: NodeKey::from_secret(&Seed(1).bytes("node", number.into())),
        seed: Seed(1),
        region: 0,
        class: 0,
        link: Link::default(),
        churn: ChurnClass::None,
        skew_ms: 0,
        store: Arc::default(),
        hostile: false,
        behaviour: None,
        adversary: None,
        victim_of: None,
        consumer: None,
        provider: None,
    }
}

fn consumer(number: u32) -> HostSpec {
    let consumer = ConsumerSpec {
        vault_key: HotKey::Drawn,
        deposit: nano(2 * TON),
        allocation: nano(TON / 10),
        patience: None,
        policy: Arc::new(Balanced),
    };
    HostSpec { consumer: Some(consumer), ..host(number) }
}

fn payout(number: u32) -> TonAddress {
    TonAddress { workchain: 0, hash: Seed(1).bytes("payout", number.into()) }
}

fn provider(number: u32) -> HostSpec {
    let provider = ProviderSpec {
        models: Vec::new(),
        tier: Tier::Open,
        genuine: Tier::Open,
        payout: payout(number),
        places: 1,
        queue: 0,
        pricing: Arc::new(Fixed),
        prefill_per_second: 1.0,
        decode_per_second: 1.0,
        contention: 0.0,
        flush: ProviderSpec::FLUSH,
        settle_threshold: nano(1),
    };
    HostSpec { provider: Some(Box::new(provider)), ..host(number) }
}

/// What a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Open,
    Allocate,
    Read,
    Settle,
    Release,
}

fn kind(input: &Input) -> Kind {
    match input {
        Input::VaultReady { .. } | Input::VaultFailed { .. } => Kind::Open,
        Input::Allocated { .. } | Input::AllocationFailed { .. } => Kind::Allocate,
        Input::VaultRead { .. } => Kind::Read,
        Input::Settled { .. } | Input::SettleFailed { .. } => Kind::Settle,
        Input::Released { .. } => Kind::Release,
        other => panic!("not the ledger's to say: {other:?}"),
    }
}

/// What must come about in a set of histories.
pub(crate) const OUTCOMES: [&str; 16] = [
    "vault ready",
    "no vault",
    "allocated",
    "not allocated",
    "no funds",
    "read",
    "read nothing",
    "not read",
    "settled",
    "not settled",
    "released",
    "block: settled",
    "block: refused",
    "block: released",
    "block: withdrawn",
    "block: undone",
];

fn outcome(input: &Input) -> &'static str {
    match input {
        Input::VaultReady { .. } => "vault ready",
        Input::VaultFailed { .. } => "no vault",
        Input::Allocated { .. } => "allocated",
        Input::AllocationFailed { failure: LedgerFailure::NoFunds { .. }, .. } => "no funds",
        Input::AllocationFailed { .. } => "not allocated",
        Input::VaultRead { snapshot: Ok(Some(_)), .. } => "read",
        Input::VaultRead { snapshot: Ok(None), .. } => "read nothing",
        Input::VaultRead { .. } => "not read",
        Input::Settled { .. } => "settled",
        Input::SettleFailed { .. } => "not settled",
        _ => "released",
    }
}

/// Counts what blocks did.
struct Tally<'a>(&'a mut BTreeMap<&'static str, u64>);

impl Observer for Tally<'_> {
    fn observe(&mut self, _: Moment, _: HostId, _: &Observation) {}

    fn block(&mut self, _: Moment, block: &BlockReport<'_>) {
        for fact in block.facts {
            let what = match fact {
                LedgerFact::Settled { .. } => "block: settled",
                LedgerFact::Refused { .. } => "block: refused",
                LedgerFact::Released { .. } => "block: released",
                LedgerFact::Withdrawn { .. } => "block: withdrawn",
                LedgerFact::Undone(_) => "block: undone",
                _ => "block: another",
            };
            *self.0.entry(what).or_default() += 1;
        }
    }
}

pub(crate) struct World {
    hosts: Vec<HostSpec>,
    ledger: Ledger,
    invariants: Invariants,
    now: Moment,
    /// Whether hosts may have been told what was undone later.
    deep: bool,
    waiting: BTreeMap<(HostId, Kind), u32>,
    /// The newest allocation that anybody was told of.
    seen: BTreeMap<(usize, usize), Allocation>,
    promised: BTreeMap<ChannelId, NanoTon>,
    /// What was answered, for a comparison.
    pub(crate) told: Vec<String>,
    /// How often what came about.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(terms: LedgerTerms, seed: u64, deep: bool) -> Self {
        let consumers = (0..CONSUMERS).map(|at| consumer(u32::try_from(at).unwrap()));
        let providers = CONSUMERS..CONSUMERS + PROVIDERS;
        let providers = providers.map(|at| provider(u32::try_from(at).unwrap()));
        Self {
            hosts: consumers.chain(providers).collect(),
            ledger: Ledger::new(terms, Seed(seed)),
            invariants: Invariants::new(Bounds::default()),
            now: Moment::START,
            deep,
            waiting: BTreeMap::new(),
            seen: BTreeMap::new(),
            promised: BTreeMap::new(),
            told: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    fn submit(&mut self, host: usize, command: LedgerCommand, kind: Kind) {
        let spec = &self.hosts[host];
        *self.waiting.entry((spec.id, kind)).or_default() += 1;
        self.ledger.submit(spec, command, self.now);
    }

    pub(crate) fn open(&mut self, consumer: usize) {
        let command = LedgerCommand::OpenVault { deposit: nano(2 * TON) };
        self.submit(consumer, command, Kind::Open);
    }

    pub(crate) fn allocate(&mut self, consumer: usize, provider: usize, milli: u64) {
        let spec = &self.hosts[CONSUMERS + provider];
        let (payout, amount) = (payout(spec.id.0), nano(milli * TON / 1_000));
        let command = LedgerCommand::Allocate { provider: spec.key.id(), payout, amount };
        self.submit(consumer, command, Kind::Allocate);
    }

    pub(crate) fn read(&mut self, consumer: usize, provider: usize) {
        let vault = vault_address(&self.hosts[consumer]);
        self.submit(CONSUMERS + provider, LedgerCommand::ReadVault { vault }, Kind::Read);
    }

    /// Redeems a voucher over some thousandths of the limit, of an epoch `back` before the newest.
    pub(crate) fn settle(&mut self, consumer: usize, provider: usize, part: u64, back: u32) {
        let Some(allocation) = self.seen.get(&(consumer, provider)).copied() else { return };
        let spec = &self.hosts[CONSUMERS + provider];
        let payer = &self.hosts[consumer];
        let (vault, provider_id) = (vault_address(payer), spec.key.id());
        let epoch = allocation.epoch.saturating_sub(back);
        let channel = ChannelId { vault, provider: provider_id, epoch };
        // A payer never promises less than before.
        let promised = self.promised.entry(channel).or_default();
        let asked = nano(allocation.limit.as_nano() * part / 1_000);
        *promised = asked.max(*promised);
        let fact = Observation::Promised { channel, cumulative: *promised };
        self.invariants.observe(self.now, payer.id, &fact);
        let (cumulative, receipts_root) = (*promised, [3; 32]);
        let voucher = Voucher { vault, provider: provider_id, epoch, cumulative, receipts_root };
        let voucher = payer.vault_key().unwrap().sign(voucher);
        self.submit(CONSUMERS + provider, LedgerCommand::Settle { voucher }, Kind::Settle);
    }

    pub(crate) fn release(&mut self, consumer: usize, provider: usize) {
        let provider = self.hosts[CONSUMERS + provider].key.id();
        self.ledger.release(&self.hosts[consumer], provider, self.now);
    }

    pub(crate) fn crash(&mut self, host: usize) {
        let id = self.hosts[host].id;
        self.ledger.crashed(id);
        self.waiting.retain(|(waits, _), _| *waits != id);
    }

    /// Lets time pass, one event after the other.
    pub(crate) fn wait(&mut self, length: Duration) -> Result<(), TestCaseError> {
        let until = self.now.after(length);
        while let Some(at) = self.ledger.next_block().filter(|at| *at <= until) {
            prop_assert!(at >= self.now, "time runs backwards");
            self.now = at;
            let answers = self.ledger.advance(at);
            let mut tally = Tally(&mut self.counts);
            self.ledger.report(at, &mut (&mut self.invariants, &mut tally));
            prop_assert_eq!(self.ledger.books(), self.ledger.audit());
            prop_assert!(self.ledger.books().balance());
            prop_assert_eq!(self.invariants.violation(), None);
            for (host, input) in answers {
                self.hear(host, &input)?;
            }
        }
        self.now = until;
        Ok(())
    }

    fn hear(&mut self, host: HostId, input: &Input) -> Result<(), TestCaseError> {
        self.told.push(format!("{} {host:?} {input:?}", self.now));
        *self.counts.entry(outcome(input)).or_default() += 1;
        let kind = kind(input);
        if kind != Kind::Release {
            let waits = self.waiting.get_mut(&(host, kind)).filter(|waits| **waits > 0);
            prop_assert!(waits.is_some(), "nobody waits for {input:?}");
            *waits.unwrap() -= 1;
        }
        let index = usize::try_from(host.0).unwrap();
        match input {
            Input::VaultReady { allocations, .. } => {
                for (provider, allocation) in allocations {
                    let mut hosts = self.hosts.iter();
                    let at = hosts.position(|spec| spec.key.id() == *provider).unwrap();
                    self.see(index, at - CONSUMERS, *allocation);
                }
            }
            Input::Allocated { provider, allocation, .. } => {
                let mut hosts = self.hosts.iter();
                let at = hosts.position(|spec| spec.key.id() == *provider).unwrap();
                self.see(index, at - CONSUMERS, *allocation);
            }
            Input::VaultRead { vault, snapshot: Ok(Some(snapshot)) } => {
                let mut hosts = self.hosts.iter();
                let at = hosts.position(|spec| vault_address(spec) == *vault).unwrap();
                if let Some(allocation) = snapshot.allocation {
                    self.see(at, index - CONSUMERS, allocation);
                }
            }
            Input::Settled { voucher, paid } => {
                let mut hosts = self.hosts.iter();
                let vault = voucher.voucher.vault;
                let at = hosts.position(|spec| vault_address(spec) == vault).unwrap();
                let key = (at, index - CONSUMERS);
                if let Some(known) = self.seen.get(&key).copied()
                    && known.epoch == voucher.voucher.epoch
                {
                    self.see(at, index - CONSUMERS, Allocation { paid: *paid, ..known });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Keeps the newest view: what an honest node would.
    fn see(&mut self, consumer: usize, provider: usize, allocation: Allocation) {
        let known = self.seen.entry((consumer, provider)).or_insert(allocation);
        if allocation.epoch > known.epoch {
            *known = allocation;
        } else if allocation.epoch == known.epoch {
            known.limit = known.limit.max(allocation.limit);
            known.paid = known.paid.max(allocation.paid);
        }
    }

    /// Everything under way is over: nobody waits any more, and what was told is true.
    pub(crate) fn quiet(&mut self) -> Result<(), TestCaseError> {
        self.wait(QUIET)?;
        prop_assert_eq!(self.ledger.under_way(), 0);
        let open: Vec<_> = self.waiting.iter().filter(|(_, waits)| **waits > 0).collect();
        prop_assert!(open.is_empty(), "never answered: {open:?}");
        if self.deep {
            return Ok(());
        }
        for ((consumer, provider), told) in &self.seen {
            let provider = self.hosts[CONSUMERS + provider].key.id();
            let vault = self.ledger.vault_of(&self.hosts[*consumer]);
            prop_assert!(vault.is_some(), "an allocation of no vault");
            let now = vault.and_then(|vault| vault.allocation(&provider));
            // Gone, or made anew, is what its consumer asked for.
            if let Some(now) = now.filter(|now| now.epoch == told.epoch) {
                prop_assert!(now.limit >= told.limit, "{told:?} was told, {now:?} is");
                prop_assert!(now.paid >= told.paid, "{told:?} was told, {now:?} is");
            }
        }
        Ok(())
    }

    /// Both consumers leave: all that is not spent, paid as fees or kept for rent is in wallets.
    pub(crate) fn everything_comes_back(&mut self) -> Result<(), TestCaseError> {
        for consumer in 0..CONSUMERS {
            self.ledger.retire(&self.hosts[consumer], self.now);
        }
        self.wait(QUIET)?;
        for (_, vault) in self.ledger.vaults() {
            prop_assert_eq!(vault.allocations().len(), 0);
            prop_assert_eq!(vault.reserved(), NanoTon::ZERO);
            prop_assert!(vault.balance() < nano(TON / 10), "{:?} stays", vault.balance());
        }
        let books = self.ledger.books();
        prop_assert!(books.balance());
        prop_assert_eq!(books, self.ledger.audit());
        self.invariants.finish(self.now, true, &self.ledger);
        prop_assert_eq!(self.invariants.violation(), None);
        Ok(())
    }
}
