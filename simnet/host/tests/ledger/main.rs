//! Generated histories of a ledger: commands in any order, crashes, outages, late blocks and blocks
//! that never were.
//!
//! Owns: what must hold after every event, and once everything is quiet. Must not: look inside.
//!
//! The books balance after every event and are what the accounts say; every command of a host that
//! lives is answered once; what a host was told stays true unless a reorganisation was deeper than
//! the confirmations; and after all of it the money comes back.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it wants and fails by panicking"
)]

mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use simnet_host::ledger::{LedgerFaults, LedgerTerms, Outage, Reorganisation, Slowness, Window};
use simnet_scenario::Moment;
use world::{CONSUMERS, PROVIDERS, World};

/// Something that happens.
#[derive(Clone, Debug)]
enum Action {
    Open(usize),
    Allocate(usize, usize, u64),
    Read(usize, usize),
    /// Settles a voucher for so many thousandths of the limit that was seen last.
    Settle(usize, usize, u64),
    /// Settles a voucher for the epoch before.
    SettleOld(usize, usize),
    Release(usize, usize),
    Crash(usize),
    Wait(u64),
}

fn action() -> impl Strategy<Value = Action> {
    let (consumer, provider) = (0..CONSUMERS, 0..PROVIDERS);
    prop_oneof![
        2 => consumer.clone().prop_map(Action::Open),
        5 => (consumer.clone(), provider.clone(), 1..900_u64)
            .prop_map(|(c, p, milli)| Action::Allocate(c, p, milli)),
        3 => (consumer.clone(), provider.clone()).prop_map(|(c, p)| Action::Read(c, p)),
        5 => (consumer.clone(), provider.clone(), 0..1_200_u64)
            .prop_map(|(c, p, part)| Action::Settle(c, p, part)),
        1 => (consumer.clone(), provider.clone()).prop_map(|(c, p)| Action::SettleOld(c, p)),
        2 => (consumer, provider).prop_map(|(c, p)| Action::Release(c, p)),
        1 => (0..CONSUMERS + PROVIDERS).prop_map(Action::Crash),
        8 => (0..4_000_u64).prop_map(Action::Wait),
        1 => (20_000..90_000_u64).prop_map(Action::Wait),
    ]
}

fn window() -> impl Strategy<Value = Window> {
    (0..400_000_u64, 100..100_000_u64).prop_map(|(from, length)| Window {
        from: Moment::from_millis(from),
        until: Moment::from_millis(from + length),
    })
}

fn faults(deepest: u32) -> impl Strategy<Value = LedgerFaults> {
    let outage = (window(), 0..1_001_u16)
        .prop_map(|(window, hosts_per_thousand)| Outage { window, hosts_per_thousand });
    let slow =
        |most: u32| (window(), 0..most).prop_map(|(window, blocks)| Slowness { window, blocks });
    let reorganisation = (0..120_000_u64, 0..=deepest)
        .prop_map(|(at, depth)| Reorganisation { at: Moment::from_millis(at), depth });
    let many = 0..3_usize;
    (
        prop::collection::vec(outage, many.clone()),
        prop::collection::vec(slow(20), many.clone()),
        prop::collection::vec(slow(200), many),
        prop::collection::vec(reorganisation, 0..60),
    )
        .prop_map(|(outages, lags, delays, reorganisations)| LedgerFaults {
            outages,
            lags,
            delays,
            reorganisations,
        })
}

fn terms(faults: LedgerFaults) -> LedgerTerms {
    LedgerTerms { release_delay: Duration::from_secs(60), faults, ..LedgerTerms::default() }
}

/// How often each thing came about, so that histories in which nothing does fail.
type Counts = RefCell<BTreeMap<&'static str, u64>>;

fn run(
    faults: LedgerFaults,
    seed: u64,
    actions: &[Action],
    deep: bool,
    counts: &Counts,
) -> Result<(), TestCaseError> {
    let mut world = World::new(terms(faults), seed, deep);
    for action in actions {
        match *action {
            Action::Open(consumer) => world.open(consumer),
            Action::Allocate(consumer, provider, milli) => {
                world.allocate(consumer, provider, milli);
            }
            Action::Read(consumer, provider) => world.read(consumer, provider),
            Action::Settle(consumer, provider, part) => world.settle(consumer, provider, part, 0),
            Action::SettleOld(consumer, provider) => world.settle(consumer, provider, 500, 1),
            Action::Release(consumer, provider) => world.release(consumer, provider),
            Action::Crash(host) => world.crash(host),
            Action::Wait(millis) => world.wait(Duration::from_millis(millis))?,
        }
    }
    world.quiet()?;
    world.everything_comes_back()?;
    let mut counts = counts.borrow_mut();
    for (what, often) in &world.counts {
        *counts.entry(*what).or_default() += often;
    }
    Ok(())
}

/// Runs generated histories, and sees to it that everything came about in them.
fn histories(deepest: u32, deep: bool, regressions: &'static str) -> BTreeMap<&'static str, u64> {
    let counts = Counts::default();
    let config = Config::default();
    let mut runner = TestRunner::new(Config {
        cases: config.cases.max(192),
        // Committed, so that a history that once failed is tried first for ever.
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(regressions))),
        ..config
    });
    let strategy = (faults(deepest), any::<u64>(), prop::collection::vec(action(), 1..120));
    let result =
        runner.run(&strategy, |(faults, seed, actions)| run(faults, seed, &actions, deep, &counts));
    if let Err(error) = result {
        panic!("{error}");
    }
    let counts = counts.into_inner();
    for what in world::OUTCOMES {
        assert!(
            counts.get(what).is_some_and(|often| *often >= 5),
            "{what} hardly ever: {counts:?}"
        );
    }
    counts
}

#[test]
fn books_balance_and_every_command_is_answered_once() {
    println!("{:#?}", histories(2, false, "tests/ledger/regressions-shallow"));
}

#[test]
fn also_when_blocks_are_undone_that_hosts_have_seen() {
    println!("{:#?}", histories(40, true, "tests/ledger/regressions-deep"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_same_seed_gives_the_same_answers(
        faults in faults(2),
        seed in any::<u64>(),
        actions in prop::collection::vec(action(), 1..40),
    ) {
        let tell = || -> Result<Vec<String>, TestCaseError> {
            let mut world = World::new(terms(faults.clone()), seed, false);
            for action in &actions {
                if let Action::Allocate(consumer, provider, milli) = *action {
                    world.open(consumer);
                    world.allocate(consumer, provider, milli);
                }
                world.wait(Duration::from_millis(700))?;
            }
            world.quiet()?;
            Ok(world.told)
        };
        prop_assert_eq!(tell()?, tell()?);
    }
}
