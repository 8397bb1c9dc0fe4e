//! Consumers that take and do not pay.
//!
//! Owns: their gains, in tokens and nanoTON, against what they cost themselves. Must not: judge an
//! honest consumer.

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::channel::Payee;
use cocoon_protocol::limits;
use cocoon_protocol::units::{NanoTon, Tokens};
use simnet_host::behaviour::{Act, Patient};
use simnet_scenario::quantity::Share;

use crate::measure::{ask, ask_many, dishonest, income, provider_at, served, unpaid};
use crate::world::{World, consumer, prices};

fn free_rider(id: u32) -> simnet_host::HostSpec {
    dishonest(consumer(id), Act::FreeRider { after: Tokens::ZERO, share: Share::ALL })
}

/// What a provider has served and cannot redeem, in nanoTON.
fn gain(world: &mut World, provider: usize) -> NanoTon {
    // Jobs that nobody pays end one time-out after another.
    world.run_for(Duration::from_secs(300));
    let provider = world.hosts[provider].protocol().and_then(|node| node.provider()).unwrap();
    provider.payees().map(Payee::owed).fold(NanoTon::ZERO, NanoTon::saturating_add)
}

/// What so many steps of credit cost.
fn steps(count: u32) -> NanoTon {
    let step = prices().cost(Tokens::ZERO, limits::CREDIT_STEP).unwrap();
    NanoTon::from_nano(step.as_nano() * u64::from(count))
}

/// Bound: one step a job, [`limits::DEBT_STEPS`] steps and the one that crosses them a channel.
#[test]
fn a_free_rider_gets_a_step_a_job_and_seventeen_a_channel() {
    let mut world = World::new(vec![free_rider(1), provider_at(2, 100)]);
    ask_many(&mut world, 0, 40, Duration::from_secs(30));
    let most = unpaid(&world).values().map(|(tokens, _)| *tokens).max();
    assert!(most <= Some(limits::CREDIT_STEP), "{most:?}");
    let gain = gain(&mut world, 1);
    assert!(gain <= steps(limits::DEBT_STEPS + 1), "{gain}");
    assert_eq!(gain, steps(17), "the figure");
}

/// Bound: the same for all at once, whatever the number of jobs that it opens.
#[test]
fn a_burst_of_a_free_rider_is_no_larger() {
    let mut spec = provider_at(2, 100);
    spec.provider.as_mut().unwrap().places = 64;
    let mut world = World::new(vec![free_rider(1), spec]);
    ask_many(&mut world, 0, 64, Duration::ZERO);
    let gain = gain(&mut world, 1);
    assert!(gain <= steps(limits::DEBT_STEPS), "{gain}");
    assert_eq!(gain, steps(16), "the figure");
}

/// Every identity needs a vault and an allocation of its own, and they cost more gas than what it
/// steals is worth, at prices up to about 5 TON a million.
#[test]
fn identities_of_a_free_rider_cost_more_than_they_bring() {
    let riders = 6;
    let mut specs: Vec<_> = (1..=riders).map(free_rider).collect();
    let mut provider = provider_at(20, 100);
    provider.provider.as_mut().unwrap().places = 64;
    specs.push(provider);
    let mut world = World::new(specs);
    for number in 1..=20 {
        for rider in 0..usize::try_from(riders).unwrap() {
            let number = u8::try_from(rider).unwrap() * 40 + number;
            ask(&mut world, rider, number);
        }
        world.run_for(Duration::from_secs(2));
    }
    assert!(world.finish());
    let value = gain(&mut world, usize::try_from(riders).unwrap());
    let gas = NanoTon::from_nano(u64::from(riders) * 3_048_737);
    assert!(value > NanoTon::ZERO && value < gas, "{value} for {gas} of gas");
}

/// Bound: nothing. A provider reads the vault itself.
#[test]
fn a_double_spender_is_served_nothing() {
    let double = Act::DoubleSpender { share: Share::ALL };
    let specs = vec![
        dishonest(consumer(1), double),
        provider_at(2, 100),
        provider_at(3, 100),
        provider_at(4, 100),
    ];
    let mut world = World::new(specs);
    ask_many(&mut world, 0, 10, Duration::from_secs(1));
    assert_eq!(served(&world), 0);
    assert_eq!(unpaid(&world).len(), 0, "not a token was written");
}

/// Bound: a place stands idle for at most a payment's time-out for each half step that is paid.
#[test]
fn a_withholder_pays_for_the_places_that_it_keeps() {
    let withholder = Act::Withholder { delay: Duration::from_secs(55) };
    let mut spec = dishonest(consumer(1), withholder);
    let parts = spec.consumer.as_mut().unwrap();
    parts.policy = Arc::new(Patient(Arc::clone(&parts.policy)));
    let mut world = World::new(vec![spec, provider_at(2, 100)]);
    let job = ask(&mut world, 0, 1);
    assert!(world.finish());
    let Some(simnet_host::Observation::JobFinished { after, cost, .. }) = world.end(job) else {
        panic!("{:?}", world.end(job));
    };
    assert_eq!(*cost, prices().cost(crate::world::PROMPT, crate::world::COMPLETION).unwrap());
    let payments = 1 + crate::world::COMPLETION.get().div_ceil(limits::PAY_EVERY.get());
    assert!(after.as_secs() <= u64::from(payments) * 60, "{after:?}");
    assert!(after.as_secs() > 110, "it does hold the place: {after:?}");
}

/// Bound: what is not worth a settlement's gas. A provider looks at its channels many times within
/// a release's delay, and redeems.
#[test]
fn a_release_does_not_outrun_a_settlement() {
    let mut provider = provider_at(2, 100);
    // It would not redeem so little by itself.
    provider.provider.as_mut().unwrap().settle_threshold = NanoTon::from_nano(1_000_000_000);
    let mut world = World::new(vec![consumer(1), provider]);
    ask_many(&mut world, 0, 30, Duration::from_secs(10));
    assert_eq!(income(&world, 1), NanoTon::ZERO);
    let (from, to) = (world.hosts[0].spec().clone(), world.hosts[1].node());
    world.release(&from, to);
    world.run_for(Duration::from_secs(120));
    let held = world.held(1);
    assert!(held > NanoTon::ZERO);
    // What is missing is the settlement's gas.
    let lost = held.saturating_sub(income(&world, 1));
    assert!(lost < NanoTon::from_nano(1_000_000), "{lost} of {held}");
}
