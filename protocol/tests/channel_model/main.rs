//! Generated histories of two channels in one vault: both ends, the network between, the contract.
//!
//! Owns: what must hold after every step, whatever is lost, repeated, reordered or killed.
//! Must not: look inside the machines; it drives what the node drives and reads what it can read.
//!
//! A history is a list of actions. An action that makes no sense in its place is skipped and counted,
//! and at the end every kind of action must have happened often enough, so that a history that
//! tests nothing fails. Everything is in the units of one token's price.

#![expect(
    clippy::expect_used,
    reason = "a test says what it relies on, and fails where that does not hold"
)]

mod action;
mod channel;
mod invariants;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;

use action::{Action, KINDS, Money, action};
use cocoon_protocol::channel::settlement::Message;
use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::limits;
use cocoon_protocol::units::NanoTon;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestError, TestRunner};
use world::World;

/// Price of one token: 0.05 TON, far above any, so that fees add up to something worth sweeping.
const TOKEN: u64 = 50_000_000;
/// The most that a provider generates beyond what is paid.
const STEP: u64 = limits::CREDIT_STEP.get() as u64;
/// Tokens that a consumer of these histories pays ahead at most; a node's pays none.
const AHEAD: u64 = 8;
const CHANNELS: usize = 2;
const RELEASE_DELAY: u32 = 30;
const BASIS_POINTS: u16 = 1_000;
/// At least; `PROPTEST_CASES` asks for more.
const CASES: u32 = 256;
const ACTIONS: std::ops::Range<usize> = 60..300;

/// Whether an action did anything.
type Outcome = Result<bool, TestCaseError>;

fn nano(tokens: u64) -> NanoTon {
    NanoTon::from_nano(tokens * TOKEN)
}

const fn address(byte: u8) -> TonAddress {
    TonAddress { workchain: 0, hash: [byte; 32] }
}

/// How often each kind of action happened, and how often it made no sense in its place.
#[derive(Default)]
struct Counts(BTreeMap<&'static str, (u64, u64)>);

fn run(costly: bool, actions: &[Action], counts: &RefCell<Counts>) -> Result<(), TestCaseError> {
    let mut world = World::new(costly);
    world.contract(&Message::TopUp(nano(1_000))).expect("a transfer always arrives");
    for index in 0..CHANNELS {
        world.act(&Action::Money(Money::Allocate(index, 200)))?;
        world.act(&Action::Money(Money::Observe(index)))?;
    }
    world.invariants()?;
    for action in actions {
        let done = world.act(action)?;
        let mut counts = counts.borrow_mut();
        let (happened, skipped) = counts.0.entry(action.name()).or_default();
        *(if done { happened } else { skipped }) += 1;
        world.invariants()?;
    }
    world.heal()
}

#[test]
fn no_history_loses_money_or_makes_any() {
    let counts = RefCell::new(Counts::default());
    let config = Config::default();
    let mut runner = TestRunner::new(Config {
        cases: config.cases.max(CASES),
        // Committed, so that a history that once failed is tried first for ever.
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/channel_model/regressions",
        ))),
        max_shrink_iters: 4_000,
        ..config
    });
    let histories = (any::<bool>(), prop::collection::vec(action(), ACTIONS));
    let result = runner.run(&histories, |(costly, actions)| run(costly, &actions, &counts));
    if let Err(error) = result {
        match error {
            TestError::Fail(reason, (costly, actions)) => {
                let actions: Vec<_> = actions.iter().map(|action| format!("{action:?}")).collect();
                panic!("{reason}\ncostly: {costly}\n{}", actions.join("\n"));
            }
            TestError::Abort(reason) => panic!("aborted: {reason}"),
        }
    }
    let counts = counts.into_inner().0;
    assert_eq!(counts.len(), KINDS, "a kind of action was never generated");
    let (mut all_happened, mut all) = (0, 0);
    for (name, (happened, skipped)) in &counts {
        println!("{name:>18}: {happened:>6} happened, {skipped:>6} skipped");
        all_happened += happened;
        all += happened + skipped;
    }
    println!("{all_happened} of {all} actions happened");
    for (name, (happened, _)) in &counts {
        assert!(*happened >= 5, "`{name}` happened only {happened} times");
    }
    assert!(all_happened * 5 > all * 2, "only {all_happened} of {all} actions happened");
}
