//! Providers that take a job and do not do it, or do it badly.
//!
//! Owns: what they gain and what users lose, under the network's own policy and under others. Must
//! not: judge an honest provider.

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::pricing::Level;
use cocoon_protocol::units::{Millis, NanoTon, Tokens};
use simnet_host::behaviour::{Act, Gouging};
use simnet_host::{HostSpec, Observation};
use simnet_scenario::quantity::Share;

use crate::measure::{
    ask_many, consumer_by, dishonest, income, locked, prompts_to_hostile, provider_at, served,
    slowest_first_token,
};
use crate::world::{PROMPT, World, consumer, prices};

const JOBS: u8 = 40;
const EVERY: Duration = Duration::from_secs(10);

/// One consumer, one adversary at half the price, two honest providers.
fn run(policy: &str, hostile: HostSpec) -> World {
    let specs = vec![consumer_by(1, policy), hostile, provider_at(3, 100), provider_at(4, 110)];
    let mut world = World::new(specs);
    ask_many(&mut world, 0, JOBS, EVERY);
    world
}

fn fast_fail() -> HostSpec {
    let act = Act::FastFail { delay: Duration::from_millis(20), share: Share::ALL };
    dishonest(provider_at(2, 50), act)
}

/// Bound: every job is served; the magnet is tried a few times and left.
#[test]
fn a_fast_failure_attracts_nobody_here_and_many_elsewhere() {
    let ours = run("cocoon-node", fast_fail());
    assert_eq!(served(&ours), usize::from(JOBS));
    assert!(prompts_to_hostile(&ours) <= 3, "{}", prompts_to_hostile(&ours));
    let cheapest = run("cheapest", fast_fail());
    assert_eq!(prompts_to_hostile(&cheapest), usize::from(JOBS), "its price is all that counts");
    // Cocoon's policy cannot tell it from a fast provider. Whether it comes first is a matter of
    // the order of connections; over some proxies it does.
    let mut magnet = 0;
    for order in 1..=4 {
        let specs = vec![
            consumer_by(order, "cocoon-proxy"),
            dishonest(provider_at(12, 50), fast_fail().behaviour.unwrap().act),
            provider_at(13, 100),
        ];
        let mut world = World::new(specs);
        ask_many(&mut world, 0, JOBS, EVERY);
        magnet += usize::from(JOBS) - served(&world);
    }
    assert!(magnet >= usize::from(JOBS), "{magnet} of 160 jobs failed");
}

/// Bound: a drip above the pace is finished and remembered; the policy leaves after one answer.
#[test]
fn a_slow_loris_gets_no_second_job() {
    let mut slow = dishonest(provider_at(2, 50), Act::Nothing);
    let parts = slow.provider.as_mut().unwrap();
    (parts.decode_per_second, parts.contention) = (0.5, 0.0);
    let ours = run("cocoon-node", slow);
    assert_eq!(served(&ours), usize::from(JOBS));
    // Jobs that came before the first half step of the first one had shown its pace.
    assert!(prompts_to_hostile(&ours) <= 6, "{}", prompts_to_hostile(&ours));
}

/// Bound: a drip under the pace is cut off after the stall time-out, and what came is all that is
/// paid.
#[test]
fn a_drip_just_under_the_time_out_of_silence_is_cut_off() {
    let mut slow = dishonest(provider_at(2, 50), Act::Nothing);
    // A token each 50 s: never silent for the minute that was allowed.
    slow.provider.as_mut().unwrap().decode_per_second = 0.02;
    let mut world = World::new(vec![consumer(1), slow]);
    let job = crate::measure::ask(&mut world, 0, 1);
    assert!(world.finish());
    let Some(Observation::JobFailed { after, .. }) = world.end(job) else {
        panic!("{:?}", world.end(job));
    };
    assert!(after.as_secs() <= 130, "{after:?}");
}

/// Bound: one prompt a job, and the job is served by another. Its price is the gain.
#[test]
fn a_silent_provider_gains_some_prompts_and_loses_its_custom() {
    let silent = || dishonest(provider_at(2, 50), Act::Silent { delay: Duration::ZERO });
    let ours = run("cocoon-node", silent());
    assert_eq!(served(&ours), usize::from(JOBS));
    let prompts = prompts_to_hostile(&ours);
    assert!(prompts <= 4, "{prompts}");
    let each = Level::from_parts(500_000).apply(prices()).cost(PROMPT, Tokens::ZERO).unwrap();
    let bound = NanoTon::from_nano(each.as_nano() * u64::try_from(prompts).unwrap());
    // Every consumer pays one prompt to learn it, or two.
    assert_eq!((prompts, ours.held(1)), (2, bound), "the figure");
    // A first token's time-out and an honest answer.
    assert!(
        slowest_first_token(&ours) < Duration::from_secs(25),
        "{:?}",
        slowest_first_token(&ours)
    );
}

/// Bound: an allocation of the consumer's is locked until it is released; nothing is lost.
#[test]
fn who_never_settles_locks_one_allocation() {
    let hostile = dishonest(provider_at(2, 100), Act::NeverSettles);
    let mut world = World::new(vec![consumer(1), hostile]);
    ask_many(&mut world, 0, 10, EVERY);
    assert_eq!(served(&world), 10);
    assert_eq!(income(&world, 1), NanoTon::ZERO);
    assert_eq!(locked(&world, 0), NanoTon::from_nano(20_000_000));
}

/// Bound: no prompt leaves.
#[test]
fn forged_evidence_and_a_cheaper_model_see_no_prompt_of_an_attested_job() {
    let mut forger = dishonest(provider_at(2, 10), Act::Nothing);
    forger.provider.as_mut().unwrap().genuine = Tier::Open;
    for hostile in [forger, dishonest(provider_at(2, 10), Act::CheaperModel)] {
        let ours = run("cocoon-node", hostile);
        assert_eq!((prompts_to_hostile(&ours), served(&ours)), (0, usize::from(JOBS)));
        assert_eq!(income(&ours, 1), NanoTon::ZERO);
    }
}

/// Bound: the time of a session for each liar and consumer. Offers cost nothing, so that there may be
/// more liars than attempts of a job.
#[test]
fn liars_in_any_number_end_no_job() {
    let forger = |id| {
        let mut spec = dishonest(provider_at(id, 10), Act::Nothing);
        spec.provider.as_mut().unwrap().genuine = Tier::Open;
        spec
    };
    let mut specs = vec![consumer_by(1, "cocoon-node"), provider_at(2, 100)];
    specs.extend((10..30).map(forger));
    let mut world = World::new(specs);
    ask_many(&mut world, 0, 10, EVERY);
    assert_eq!((prompts_to_hostile(&world), served(&world)), (0, 10));
    let refused = |fact: &Observation| matches!(fact, Observation::SessionFailed { .. });
    let refused = world.facts.iter().filter(|(_, _, fact)| refused(fact)).count();
    assert_eq!(refused, 20, "each is tried once");
    let slowest = slowest_first_token(&world);
    assert!(slowest < Duration::from_secs(8), "{slowest:?}");
}

/// Bound: what others ask. Whoever raises a price together leaves the custom to the rest.
#[test]
fn colluders_leave_the_custom_to_the_rest() {
    let dear = |id| dishonest(provider_at(id, 500), Act::Nothing);
    let specs = vec![consumer(1), dear(2), dear(3), provider_at(4, 100)];
    let mut world = World::new(specs);
    ask_many(&mut world, 0, JOBS, EVERY);
    assert_eq!(served(&world), usize::from(JOBS));
    // The first offer that came, before there was another.
    assert!(prompts_to_hostile(&world) <= 1, "{}", prompts_to_hostile(&world));
}

/// Bound: the price that it offered. In the open tier nothing proves which weights run, so that a
/// cheaper model earns as an honest one, with a quarter of its engine's time.
#[test]
fn a_cheaper_model_in_the_open_tier_earns_its_offer_and_no_more() {
    let open = |act| {
        let mut spec = dishonest(provider_at(2, 100), act);
        let parts = spec.provider.as_mut().unwrap();
        (parts.tier, parts.genuine) = (Tier::Open, Tier::Open);
        spec
    };
    let earned = |spec| {
        let mut world = World::new(vec![consumer(1), spec]);
        for number in 1..=10 {
            let order = simnet_host::Order { minimum_tier: Tier::Open, ..World::order(number) };
            world.give(0, simnet_host::Stimulus::Submit(Box::new(order)));
            world.run_for(EVERY);
        }
        assert!(world.finish() && served(&world) == 10);
        world.held(1)
    };
    let mut lazy = open(Act::CheaperModel);
    lazy.provider.as_mut().unwrap().decode_per_second *= 4.0;
    assert_eq!(earned(lazy), earned(open(Act::Nothing)), "the figure");
}

/// Bound: the offer's price, which the consumer chose. Over time the gouger loses its custom.
#[test]
fn a_gouger_earns_less_than_an_honest_provider() {
    let mut gouger = dishonest(provider_at(2, 90), Act::Nothing);
    let review_every = Millis::from_secs(60);
    let most = Level::from_parts(5_000_000);
    gouger.provider.as_mut().unwrap().pricing = Arc::new(Gouging { most, review_every });
    let honest = run("cocoon-node", provider_at(2, 90));
    let ours = run("cocoon-node", gouger);
    assert_eq!(served(&ours), usize::from(JOBS));
    let (with, without) = (ours.held(1), honest.held(1));
    assert!(with <= without, "{with} by gouging, {without} honestly");
    let cost = |world: &World| crate::world::sum((1..=3).map(|host| world.held(host)));
    let (dearer, usual) = (cost(&ours).as_nano(), cost(&honest).as_nano());
    assert!(dearer * 100 <= usual * 130, "users pay {dearer} instead of {usual}");
}
