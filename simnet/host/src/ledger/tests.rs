//! The ledger by hand: one thing at a time, on a chain without surprises.
//!
//! Owns: what each command comes to, in time and money. Must not: search; histories do.

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::channel::{Allocation, VaultKey, Voucher};
use cocoon_protocol::identity::NodeKey;
use cocoon_protocol::pricing::Fixed;
use cocoon_protocol::selection::Balanced;

use super::*;
use crate::host::{ConsumerSpec, HotKey, ProviderSpec};

const TON: u64 = 1_000_000_000;

fn nano(nano: u64) -> NanoTon {
    NanoTon::from_nano(nano)
}

fn consumer(number: u8) -> HostSpec {
    let vault_key = Arc::new(VaultKey::from_secret(&[number + 100; 32]));
    let consumer = ConsumerSpec {
        vault_key: HotKey::Given(vault_key),
        deposit: nano(TON),
        allocation: nano(TON / 10),
        patience: None,
        policy: Arc::new(Balanced),
    };
    let key = NodeKey::from_secret(&[number; 32]);
    let id = HostId(u32::from(number));
    HostSpec {
        id,
        key,
        seed: Seed(1),
        region: 0,
        class: 0,
        link: simnet_scenario::Link::default(),
        churn: simnet_scenario::population::ChurnClass::None,
        skew_ms: 0,
        store: Arc::default(),
        hostile: false,
        behaviour: None,
        adversary: None,
        victim_of: None,
        consumer: Some(consumer),
        provider: None,
    }
}

fn provider(number: u8) -> HostSpec {
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
    HostSpec { consumer: None, provider: Some(Box::new(provider)), ..consumer(number) }
}

fn payout(number: u8) -> TonAddress {
    TonAddress { workchain: 0, hash: [number; 32] }
}

struct Bench {
    ledger: Ledger,
    now: Moment,
}

impl Bench {
    fn new(change: impl FnOnce(&mut LedgerTerms)) -> Self {
        let mut terms = LedgerTerms { inclusion: 0, ..LedgerTerms::default() };
        change(&mut terms);
        Self { ledger: Ledger::new(terms, Seed(1)), now: Moment::START }
    }

    fn submit(&mut self, from: &HostSpec, command: LedgerCommand) {
        self.ledger.submit(from, command, self.now);
    }

    /// Goes on until the next answer; how long that took comes with it.
    fn answer(&mut self) -> (HostId, Input, Duration) {
        let asked = self.now;
        while let Some(at) = self.ledger.next_block() {
            self.now = at;
            let mut answers = self.ledger.advance(at);
            assert!(self.ledger.books().balance(), "{:?}", self.ledger.books());
            assert_eq!(self.ledger.books(), self.ledger.audit());
            assert!(answers.len() < 2, "{answers:?}");
            if let Some((host, input)) = answers.pop() {
                return (host, input, at.since(asked));
            }
        }
        panic!("no answer comes");
    }

    fn ask(&mut self, from: &HostSpec, command: LedgerCommand) -> Input {
        self.submit(from, command);
        let (host, input, _) = self.answer();
        assert_eq!(host, from.id);
        input
    }

    fn open(&mut self, from: &HostSpec) -> NanoTon {
        let answer = self.ask(from, LedgerCommand::OpenVault { deposit: nano(TON) });
        let Input::VaultReady { vault, free, allocations } = answer else { panic!("{answer:?}") };
        assert_eq!(vault, vault_address(from));
        assert!(allocations.is_empty());
        free
    }

    fn allocate(&mut self, from: &HostSpec, to: u8, amount: u64) -> (Allocation, NanoTon) {
        let provider = NodeKey::from_secret(&[to; 32]).id();
        let (payout, amount) = (payout(to), nano(amount));
        let answer = self.ask(from, LedgerCommand::Allocate { provider, payout, amount });
        let Input::Allocated { provider: whose, allocation, free } = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(whose, provider);
        (allocation, free)
    }

    fn settle(&mut self, from: &HostSpec, of: &HostSpec, epoch: u32, amount: u64) -> Input {
        let (vault, provider) = (vault_address(of), from.key.id());
        let (cumulative, receipts_root) = (nano(amount), [7; 32]);
        let voucher = Voucher { vault, provider, epoch, cumulative, receipts_root };
        let voucher = of.vault_key().unwrap().sign(voucher);
        self.ask(from, LedgerCommand::Settle { voucher })
    }

    fn settled(&mut self, from: &HostSpec, of: &HostSpec, epoch: u32, amount: u64) -> u64 {
        let answer = self.settle(from, of, epoch, amount);
        let Input::Settled { paid, .. } = answer else { panic!("{answer:?}") };
        paid.as_nano()
    }
}

#[test]
fn a_deposit_is_allocated_settled_and_the_rest_comes_back() {
    let mut bench = Bench::new(|terms| terms.release_delay = Duration::from_secs(60));
    let (alice, bob) = (consumer(1), provider(2));
    let free = bench.open(&alice);
    assert_eq!(free, nano(TON - 50_068 - 50_000_000), "less the reserve");
    let (allocation, left) = bench.allocate(&alice, 2, TON / 10);
    assert_eq!((allocation.limit, allocation.epoch), (nano(TON / 10), 1));
    assert_eq!(left, nano(TON - 50_068 - 50_000_000 - TON / 10 - 779_002));
    assert_eq!(bench.settled(&bob, &alice, 1, TON / 20), TON / 20);
    let income = TON / 20 - 721_490 - 111_133 - 66_667;
    assert_eq!(bench.ledger.income(payout(2)), nano(income));
    assert_eq!(bench.ledger.spent(&alice), nano(income));
    // The same again is answered without another message.
    assert_eq!(bench.settled(&bob, &alice, 1, TON / 20), TON / 20);
    assert_eq!(bench.ledger.income(payout(2)), nano(income));
    bench.ledger.retire(&alice, bench.now);
    while let Some(at) = bench.ledger.next_block() {
        bench.now = at;
        assert!(bench.ledger.advance(at).is_empty());
        assert!(bench.ledger.books().balance());
    }
    assert_eq!(bench.ledger.vault_of(&alice).unwrap().allocations().len(), 0);
    let back = bench.ledger.wallet_of(&alice);
    assert!(back > nano(TON - TON / 20 - TON / 10), "{back} came back");
}

#[test]
fn an_allocation_is_final_in_about_a_second() {
    let mut bench = Bench::new(|_| ());
    let alice = consumer(1);
    bench.open(&alice);
    let provider = provider(2).key.id();
    let (payout, amount) = (payout(2), nano(TON / 10));
    bench.submit(&alice, LedgerCommand::Allocate { provider, payout, amount });
    let (_, _, took) = bench.answer();
    assert!((1_000..2_000).contains(&took.as_millis()), "{took:?}");
}
