//! Planted bugs: each is caught by the invariant that is meant for it, in a scenario in which
//! nothing is wrong without it.
//!
//! Owns: one scenario for each bug. Must not: leave a bug planted.

use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::units::{NanoTon, PricePerMillion};
use simnet_host::mutation::{Mutation, plant};
use simnet_host::reproduction::{Attempt, Hashes, Reproduction};
use simnet_host::{HostSpec, Observation, Stimulus, Violation};
use simnet_scenario::Seed;

use crate::world::{CALM, Weather, World, consumer, provider};

/// A bug that is planted as long as this lives.
struct Planted;

impl Planted {
    fn new(mutation: Mutation) -> Self {
        plant(Some(mutation));
        Self
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        plant(None);
    }
}

/// The scenario passes without the bug and breaks this invariant with it.
fn caught(mutation: Mutation, invariant: &str, scenario: impl Fn() -> World) {
    let judged = || {
        let mut world = scenario();
        world.invariants.finish(world.now, false, &world.ledger);
        world.invariants.violation().cloned()
    };
    assert_eq!(judged(), None, "{mutation:?} is not planted");
    let planted = Planted::new(mutation);
    let violation = judged();
    drop(planted);
    let Some(Violation { invariant: broken, what, facts, .. }) = violation else {
        panic!("{mutation:?} is not caught");
    };
    assert_eq!(broken, invariant, "{mutation:?}: {what}");
    assert!(!facts.is_empty());
}

/// A consumer and a provider whose jobs are worth a settlement each.
fn dear() -> Vec<HostSpec> {
    let (mut rich, mut dear) = (consumer(1), provider(2));
    rich.consumer.as_mut().unwrap().allocation = NanoTon::from_nano(500_000_000);
    let provider = dear.provider.as_mut().unwrap();
    provider.models[0].prices.completion = PricePerMillion::from_nano(100_000_000_000);
    provider.settle_threshold = NanoTon::from_nano(8_000_000);
    vec![rich, dear]
}

/// A job, and in the middle of it a crash of this side; then another job.
fn crash(side: usize) -> World {
    let mut world = World::new(vec![consumer(1), provider(2)]);
    world.submit(0, 1);
    world.run_for(Duration::from_secs(3));
    world.crash(side);
    world.run_for(Duration::from_secs(2));
    world.give(side, Stimulus::Start);
    world.run_for(Duration::from_secs(700));
    world.submit(0, 2);
    world.run_for(Duration::from_secs(60));
    world
}

#[test]
fn a_promise_or_voucher_that_a_crash_loses_is_caught() {
    for side in [0, 1] {
        caught(Mutation::VoucherLost, "vouchers-monotone", || crash(side));
    }
}

fn two_settlements() -> World {
    let mut world = World::new(dear());
    for job in 1..=2 {
        world.submit(0, job);
        // Longer than a provider waits for a settlement.
        world.run_for(Duration::from_secs(200));
    }
    let settled = |(_, _, fact): &&(_, _, Observation)| matches!(fact, Observation::Settled { .. });
    let broken = world.invariants.violation().is_some();
    assert!(broken || world.facts.iter().filter(settled).count() == 2, "{:?}", world.facts);
    world
}

#[test]
fn a_payment_that_is_credited_twice_is_caught() {
    caught(Mutation::PaidTwice, "money-conserved", two_settlements);
}

#[test]
fn a_voucher_that_is_paid_again_is_caught_even_if_the_books_balance() {
    caught(Mutation::SettlementReplayed, "settled-once", two_settlements);
}

#[test]
fn an_engine_that_ignores_its_grant_is_caught() {
    caught(Mutation::Overserving, "exposure", || {
        // The next voucher is further away than a step.
        let far = Weather { delay: Duration::from_secs(1), ..CALM };
        let mut world = World::with(vec![consumer(1), provider(2)], Seed(1), far);
        world.submit(0, 1);
        world.run_for(Duration::from_secs(60));
        world
    });
}

#[test]
fn a_queue_without_its_bound_is_caught() {
    caught(Mutation::DoorOpen, "queues-bounded", || {
        let mut small = provider(2);
        small.provider.as_mut().unwrap().places = 1;
        let mut world = World::new(vec![consumer(1), small]);
        for job in 1..=4 {
            world.submit(0, job);
        }
        world.run_for(Duration::from_secs(200));
        world
    });
}

#[test]
fn a_prompt_that_leaves_before_the_evidence_is_judged_is_caught() {
    caught(Mutation::PromptEarly, "tier-asked", || {
        let mut forger = provider(2);
        forger.provider.as_mut().unwrap().genuine = Tier::Open;
        let mut world = World::new(vec![consumer(1), forger]);
        world.submit(0, 1);
        world.run_for(Duration::from_secs(60));
        world
    });
}

/// Four jobs at a time that fall into step, so that the engine has text of several at one moment.
fn several_at_once(seed: u64) -> Hashes {
    let weather = Weather { jitter: Duration::from_millis(5), ..CALM };
    let mut world = World::with(vec![consumer(1), consumer(3), provider(2)], Seed(seed), weather);
    for job in 1..=4 {
        world.submit(usize::from(job % 2), job);
    }
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.invariants.violation(), None);
    let trace = world.facts.iter().map(|fact| format!("{fact:?}\n")).collect();
    let result = format!("{} {}", world.bytes, world.now);
    // What it came to is the same in most orders; how it came to that is not.
    Hashes { trace, result: format!("{seed} {result}") }
}

/// The very judgement of `simnet check`, over runs in this process; the command line's own test
/// plants the same bug in the whole program.
#[test]
fn an_order_that_the_machine_decides_is_what_check_finds() {
    let faults = || {
        let run = |attempt: Attempt| Ok(several_at_once(attempt.seed(1)));
        let made: Result<_, std::convert::Infallible> = Reproduction::attempt(run);
        made.unwrap().faults()
    };
    assert_eq!(faults(), [""; 0], "nothing is wrong without it");
    let planted = Planted::new(Mutation::RandomOrder);
    let found = faults();
    drop(planted);
    assert_eq!(
        found,
        ["a second run of the same seed differs", "a run of the same seed under load differs"]
    );
}

/// The node ends a job and its user is never told: found when it happens, not hours later.
#[test]
fn a_job_whose_end_nobody_hears_is_caught() {
    caught(Mutation::NewsLost, "jobs-end-once", || {
        let mut world = World::new(vec![consumer(1), provider(2)]);
        world.submit(0, 1);
        world.run_for(Duration::from_secs(60));
        world
    });
}

#[test]
fn every_bug_has_a_name_of_its_own() {
    for mutation in Mutation::ALL {
        assert_eq!(Mutation::named(mutation.name()), Some(mutation));
    }
    assert_eq!(Mutation::named("none"), None);
}
