//! The watcher against a ledger that fails in every way, is killed at every step, and still pays.

use std::collections::BTreeMap;

use cocoon_protocol::channel::{Allocation, ChannelId, SignedVoucher, Voucher};
use cocoon_protocol::identity::{NodeId, TonAddress};
use cocoon_protocol::units::{Millis, NanoTon, Timestamp};
use proptest::prelude::*;

use super::{Action, Claim, Event, Rules, Seen, Watcher};

const VAULT: TonAddress = TonAddress { workchain: 0, hash: [1; 32] };
const PAYOUT: TonAddress = TonAddress { workchain: 0, hash: [2; 32] };
const DELAY: Millis = Millis::from_secs(6 * 3_600);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

fn provider(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn claim(number: u8, cumulative: u64) -> Claim {
    let voucher = Voucher {
        vault: VAULT,
        provider: provider(number),
        epoch: 1,
        cumulative: NanoTon::from_nano(cumulative),
        receipts_root: [0; 32],
    };
    Claim { voucher: SignedVoucher { voucher, signature: [0; 64] }, consent: [0; 64] }
}

/// What becomes of one action.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It works.
    Works,
    /// It fails, without effect.
    Fails,
    /// It has its effect, but the answer is lost.
    AnswerLost,
    /// The watcher is killed while it is under way; it has its effect.
    KilledAfter,
    /// The watcher is killed while it is under way; it has no effect.
    KilledBefore,
}

/// A vault on a ledger, and the watcher before it.
struct World {
    now: u64,
    allocations: BTreeMap<NodeId, Allocation>,
    /// The claims that a store holds: a new watcher gets them again.
    store: Vec<Claim>,
    watcher: Watcher,
    rules: Rules,
    reads: u32,
    settlements: u32,
    under_way: Vec<ChannelId>,
}

impl World {
    fn new(rules: Rules, store: Vec<Claim>, limit: u64) -> Self {
        let allocation = Allocation::new(PAYOUT, NanoTon::from_nano(limit), 1);
        let allocations = store.iter().map(|it| (it.channel().provider, allocation)).collect();
        let watcher = Watcher::new(rules);
        let (reads, settlements, under_way) = (0, 0, Vec::new());
        Self { now: 0, allocations, store, watcher, rules, reads, settlements, under_way }
    }

    fn start(&mut self) -> Vec<Action> {
        self.watcher = Watcher::new(self.rules);
        self.under_way.clear();
        let (now, mut actions) = (at(self.now), Vec::new());
        for claim in self.store.clone() {
            actions.extend(self.watcher.handle(Event::Claim(claim), now, self.now));
        }
        actions
    }

    fn seen(&self) -> Seen {
        let (as_of, allocations) = (at(self.now), self.allocations.clone());
        Seen { as_of, release_delay: DELAY, allocations }
    }

    /// What the contract does with a claim.
    fn pay(&mut self, claim: &Claim) {
        let now = at(self.now);
        let allocation = self.allocations.get_mut(&claim.channel().provider).unwrap();
        if allocation.unlock_at.is_none_or(|unlock_at| now < unlock_at) {
            let worth = claim.voucher.voucher.cumulative.min(allocation.limit);
            allocation.paid = allocation.paid.max(worth);
        }
    }

    /// Carries one action out; the actions that follow.
    fn carry_out(&mut self, action: Action, fate: Fate) -> Vec<Action> {
        let (works, killed) = match fate {
            Fate::Works => (true, false),
            Fate::Fails | Fate::AnswerLost => (false, false),
            Fate::KilledAfter | Fate::KilledBefore => (false, true),
        };
        let event = match action {
            Action::Read(vault) => {
                self.reads += 1;
                match works {
                    true => Event::Read { vault, seen: Some(self.seen()) },
                    false => Event::ReadFailed { vault },
                }
            }
            Action::Settle(claim) => {
                let channel = claim.channel();
                assert!(!self.under_way.contains(&channel), "two settlements of {channel:?}");
                let allocation = self.allocations[&channel.provider];
                let worth = claim.voucher.voucher.cumulative.min(allocation.limit);
                assert!(works || worth >= allocation.paid);
                self.under_way.push(channel);
                self.settlements += 1;
                if matches!(fate, Fate::Works | Fate::AnswerLost | Fate::KilledAfter) {
                    self.pay(&claim);
                }
                self.under_way.retain(|it| *it != channel);
                match works {
                    true => Event::Settled { channel },
                    false => Event::SettleFailed { channel, too_small: false },
                }
            }
        };
        if killed { self.start() } else { self.watcher.handle(event, at(self.now), self.now) }
    }

    /// Runs until `end`, with what `fate` says about each action.
    fn run(&mut self, end: u64, mut fate: impl FnMut(u64) -> Fate) {
        let mut actions = self.watcher.handle_timeout(at(self.now));
        // A look every half second, for whoever is killed again and again and forgets its failures.
        for _ in 0..400_000 {
            // Nobody is killed for ever at one moment: after so many steps everything fails.
            let mut steps = 0;
            while let Some(action) = actions.pop() {
                steps += 1;
                let fate = if steps > 1_000 { Fate::Fails } else { fate(self.now) };
                if matches!(fate, Fate::KilledAfter | Fate::KilledBefore) {
                    // What else the dead one had begun ends with it.
                    actions.clear();
                }
                actions.extend(self.carry_out(action, fate));
            }
            let next = self.watcher.next_timeout().map_or(end, |at| at.as_unix_millis());
            assert!(next > self.now || end == self.now, "it spins at {next}");
            if next >= end {
                self.now = end;
                return;
            }
            self.now = next;
            actions = self.watcher.handle_timeout(at(self.now));
        }
        panic!("it never rests");
    }

    fn begin(&mut self) {
        let actions = self.start();
        for action in actions {
            let more = self.carry_out(action, Fate::Works);
            for action in more {
                let none = self.carry_out(action, Fate::Works);
                assert!(none.iter().all(|it| matches!(it, Action::Read(_))));
                for action in none {
                    self.carry_out(action, Fate::Works);
                }
            }
        }
    }

    fn request_release(&mut self) -> u64 {
        let unlock_at = self.now + DELAY.get();
        for allocation in self.allocations.values_mut() {
            allocation.unlock_at = Some(at(unlock_at));
        }
        unlock_at
    }
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Works),
        2 => Just(Fate::Fails),
        2 => Just(Fate::AnswerLost),
        1 => Just(Fate::KilledAfter),
        1 => Just(Fate::KilledBefore),
    ]
}

#[test]
fn without_a_release_and_below_the_threshold_nothing_is_settled() {
    let rules = Rules { threshold: Some(NanoTon::from_nano(100)), ..Rules::default() };
    let mut world = World::new(rules, vec![claim(1, 99)], 1_000);
    world.begin();
    world.run(30 * DELAY.get(), |_| Fate::Works);
    assert_eq!(world.settlements, 0);
    // But it goes on looking, often enough to see a request when most of the time is left.
    assert!(u64::from(world.reads) >= 30 * 12);
    world.store = vec![claim(1, 100)];
    world.begin();
    assert_eq!(world.settlements, 1);
    assert!(world.watcher.is_idle());
}

#[test]
fn what_is_settled_is_left_alone_until_a_better_claim_comes() {
    let rules = Rules { threshold: Some(NanoTon::from_nano(1)), ..Rules::default() };
    let mut world = World::new(rules, vec![claim(1, 50)], 80);
    world.begin();
    let reads = world.reads;
    world.run(100 * DELAY.get(), |_| Fate::Works);
    assert_eq!((world.settlements, world.reads), (1, reads));
    // A repeated and a lower claim change nothing; a better one is looked at at once.
    let now = at(world.now);
    assert_eq!(world.watcher.handle(Event::Claim(claim(1, 50)), now, 0), []);
    assert_eq!(world.watcher.handle(Event::Claim(claim(1, 40)), now, 0), []);
    let actions = world.watcher.handle(Event::Claim(claim(1, 60)), now, 0);
    assert_eq!(actions, [Action::Read(VAULT)]);
}

#[test]
fn a_promise_beyond_the_limit_is_redeemed_when_the_limit_grows() {
    let mut world = World::new(Rules::default(), vec![claim(1, 150)], 100);
    world.begin();
    let unlock_at = world.request_release();
    world.run(unlock_at - DELAY.get() / 2, |_| Fate::Works);
    assert_eq!(world.allocations[&provider(1)].paid, NanoTon::from_nano(100));
    // The consumer allocates more, which cancels the release; no voucher comes; it asks again.
    let allocation = world.allocations.get_mut(&provider(1)).unwrap();
    (allocation.limit, allocation.unlock_at) = (NanoTon::from_nano(200), None);
    let unlock_at = world.request_release();
    world.run(unlock_at, |_| Fate::Works);
    assert_eq!(world.allocations[&provider(1)].paid, NanoTon::from_nano(150));
    assert!(world.watcher.is_idle());
}

#[test]
fn an_amount_that_the_contract_calls_too_small_is_not_tried_again_before_it_grows() {
    let mut world = World::new(Rules::default(), vec![claim(1, 5)], 100);
    world.begin();
    world.request_release();
    let now = at(world.now);
    let seen = world.seen();
    let read = |seen: &Seen| Event::Read { vault: VAULT, seen: Some(seen.clone()) };
    let actions = world.watcher.handle(read(&seen), now, 0);
    assert_eq!(actions.len(), 1);
    let channel = claim(1, 5).channel();
    // A better claim came while the first was refused: it is another matter.
    assert_eq!(world.watcher.handle(Event::Claim(claim(1, 50)), now, 0), []);
    let failed = Event::SettleFailed { channel, too_small: true };
    world.watcher.handle(failed, now, 0);
    let again = world.watcher.handle(read(&seen), now, 0);
    assert_eq!(again, [Action::Settle(Box::new(claim(1, 50)))]);
    world.watcher.handle(Event::SettleFailed { channel, too_small: true }, now, 0);
    assert_eq!(world.watcher.handle(read(&seen), now, 0), []);
    assert!(world.watcher.is_idle());
}

#[test]
fn a_drain_settles_everything_that_is_worth_it_once() {
    let mut world = World::new(Rules::default(), vec![claim(1, 5), claim(2, 7)], 100);
    world.begin();
    assert_eq!(world.settlements, 0);
    let actions = world.watcher.handle(Event::Drain, at(world.now), 0);
    assert_eq!(actions, [Action::Read(VAULT)]);
    for action in actions {
        let settle = world.carry_out(action, Fate::Works);
        assert_eq!(settle.len(), 2);
        for action in settle {
            for look in world.carry_out(action, Fate::Works) {
                world.carry_out(look, Fate::Works);
            }
        }
    }
    assert_eq!(world.settlements, 2);
    assert!(world.watcher.is_idle());
}

#[test]
fn hours_without_a_ledger_cost_few_attempts_and_no_claim() {
    let mut world = World::new(Rules::default(), vec![claim(1, 60)], 100);
    world.begin();
    let before = world.reads;
    let unlock_at = world.request_release();
    // Nothing answers for five of the six hours.
    let back = unlock_at - DELAY.get() / 6;
    world.run(unlock_at, |now| if now < back { Fate::Fails } else { Fate::Works });
    assert_eq!(world.allocations[&provider(1)].paid, NanoTon::from_nano(60));
    assert_eq!(world.settlements, 1);
    let attempts = world.reads - before;
    assert!((20..400).contains(&attempts), "{attempts} attempts in six hours");
}

proptest! {
    /// The main promise: whatever fails and whoever is killed, as long as the ledger works for a
    /// tenth of the release delay, everything that was promised is paid before the consumer may
    /// take it back, and once.
    #[test]
    fn every_claim_is_paid_in_time(
        mut fates in prop::collection::vec(any_fate(), 1..200),
        amounts in prop::collection::vec(1u64..200, 1..6),
        good_from in 0u64..9,
        release_after in 0u64..100_000_000,
    ) {
        let store: Vec<_> = (1u8..).zip(&amounts).map(|(n, nano)| claim(n, *nano)).collect();
        let mut world = World::new(Rules::default(), store, 100);
        // Whoever is killed at every step for ever does nothing, and no time passes.
        fates.push(Fate::Fails);
        let mut chance = fates.iter().cycle().copied();
        let first = world.start();
        for action in first {
            world.carry_out(action, Fate::Works);
        }
        world.run(release_after, |_| chance.next().unwrap());
        let unlock_at = world.request_release();
        let from = world.now + DELAY.get() * good_from / 10;
        let until = from + DELAY.get() / 10;
        world.run(unlock_at, |now| {
            if (from..until).contains(&now) { Fate::Works } else { chance.next().unwrap() }
        });
        for (number, nano) in (1u8..).zip(amounts) {
            let paid = world.allocations[&provider(number)].paid;
            prop_assert_eq!(paid, NanoTon::from_nano(nano.min(100)));
        }
    }

    #[test]
    fn no_order_of_events_breaks_it(
        events in prop::collection::vec((0u8..6, 1u8..4, 0u64..200, any::<u64>()), 0..200),
    ) {
        let mut watcher = Watcher::new(Rules::default());
        let mut settling: Vec<ChannelId> = Vec::new();
        for (step, (kind, number, nano, draw)) in (0u64..).zip(events) {
            let channel = claim(number, nano).channel();
            let mut allocation = Allocation::new(PAYOUT, NanoTon::from_nano(100), 1);
            allocation.paid = NanoTon::from_nano(nano.min(100));
            allocation.unlock_at = (nano % 2 == 0).then(|| at(nano * 1_000));
            let allocations = [(provider(number), allocation)].into();
            let seen = Seen { as_of: at(step), release_delay: DELAY, allocations };
            let event = match kind {
                0 => Event::Claim(claim(number, nano)),
                1 => Event::Read { vault: VAULT, seen: (nano != 7).then_some(seen) },
                2 => Event::ReadFailed { vault: VAULT },
                3 => Event::Settled { channel },
                4 => Event::SettleFailed { channel, too_small: nano % 3 == 0 },
                _ => Event::Drain,
            };
            if kind == 3 || kind == 4 {
                settling.retain(|it| *it != channel);
            }
            for action in watcher.handle(event, at(step), draw) {
                if let Action::Settle(claim) = action {
                    prop_assert!(!settling.contains(&claim.channel()));
                    settling.push(claim.channel());
                }
            }
        }
    }
}
