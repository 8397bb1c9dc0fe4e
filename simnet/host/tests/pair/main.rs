//! Whole jobs between hosts over a fabric in memory.
//!
//! Owns: what shows that a host does what the node's shell does.
//! Must not: test a rule of the protocol that its own tests can show.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod edges;
mod healing;
mod interleavings;
mod mutations;
#[expect(dead_code, reason = "the adversaries' tests use the rest")]
mod world;

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::job::FinishReason;
use cocoon_protocol::limits;
use cocoon_protocol::units::{NanoTon, PricePerMillion, Tokens};
use simnet_host::{FailureKind, Observation, Stimulus};
use world::{COMPLETION, PROMPT, World, consumer, prices, provider, sum};

#[test]
fn a_job_is_found_served_paid_and_receipted() {
    let mut world = World::new(vec![consumer(1), provider(2)]);
    let job = world.submit(0, 1);
    assert!(world.finish());
    let expected = prices().cost(PROMPT, COMPLETION).unwrap();
    let Some(Observation::JobFinished { reason, completion, cost, attempts, vouchers, .. }) =
        world.end(job)
    else {
        panic!("{:?}", world.facts);
    };
    assert_eq!((*reason, *completion, *cost), (FinishReason::Stop, COMPLETION, expected));
    assert_eq!(*attempts, 1);
    assert!(*vouchers >= 6, "a voucher each half step");
    assert_eq!((world.promised(0), world.held(1)), (expected, expected));
    assert_eq!(world.hosts[0].store().tally().count, 1);
    assert_eq!(world.hosts[1].store().tally(), world.hosts[0].store().tally());
    // Four bytes a token, and some hundred for each of the messages.
    let text = u64::from(4 * (PROMPT.get() + COMPLETION.get()));
    assert!(world.bytes > text + 2_000 && world.bytes < text + 20_000, "{}", world.bytes);
}

#[test]
fn several_jobs_share_the_engine_and_add_up_to_the_nanoton() {
    let mut world = World::new(vec![consumer(1), consumer(3), provider(2)]);
    let jobs: Vec<_> = (1..=4).map(|seed| world.submit(usize::from(seed % 2), seed)).collect();
    assert!(world.finish());
    let cost = sum(jobs.iter().map(|job| world.cost(*job)));
    assert_eq!(sum([world.promised(0), world.promised(1)].into_iter()), cost);
    assert_eq!(world.held(2), cost);
}

#[test]
fn a_second_job_needs_no_new_session_and_no_ledger() {
    let mut world = World::new(vec![consumer(1), provider(2)]);
    world.submit(0, 1);
    assert!(world.finish());
    let opened = |world: &World| {
        let count = world.facts.iter();
        count.filter(|(_, _, fact)| matches!(fact, Observation::SessionOpened { .. })).count()
    };
    assert_eq!(opened(&world), 1);
    let submitted = world.now;
    let job = world.submit(0, 2);
    assert!(world.finish());
    world.cost(job);
    assert_eq!(opened(&world), 1);
    let first = world.facts.iter().find_map(|(at, _, fact)| match fact {
        Observation::FirstToken { job: of, .. } if *of == job => Some(at.since(submitted)),
        _ => None,
    });
    // Two round trips of 40 ms, the prompt at 500 tokens/s, one token at 40 tokens/s.
    let expected = Duration::from_millis(2 * 40 + 100 + 25);
    assert_eq!(first, Some(expected));
}

/// Every commit of either side, and every point in it; then the same job again.
#[test]
fn a_crash_at_any_persist_point_loses_no_voucher_and_the_next_job_works() {
    use simnet_host::CrashPoint;
    let points = [
        CrashPoint::BeforeDurable,
        CrashPoint::BeforeEffects,
        CrashPoint::AfterEffects(1),
        CrashPoint::AfterEffects(2),
    ];
    let mut died = 0;
    let last = World::order(3).job;
    for side in [0, 1] {
        for commit in 1..=14 {
            for point in points {
                let mut world = World::new(vec![consumer(1), provider(2)]);
                world.hosts[side].plan_crash(commit, point);
                let first = world.submit(0, 1);
                let case = format!("side {side}, commit {commit}, {point:?}");
                assert!(world.finish(), "{case}");
                assert!(world.end(first).is_some(), "{case}");
                assert!(world.held(1) <= world.promised(0), "{case}");
                // What is remembered of a provider that failed fades; a commit that the first job
                // did not reach may be one of the second.
                let mut cost = NanoTon::ZERO;
                for job in 2..=3 {
                    world.run_for(Duration::from_secs(700));
                    let job = world.submit(0, job);
                    assert!(world.finish(), "{case}");
                    if !matches!(world.end(job), Some(Observation::JobFailed { .. })) || job == last
                    {
                        cost = world.cost(job);
                    }
                }
                assert_eq!(world.held(1), world.promised(0), "{case}");
                assert!(world.promised(0) >= cost, "{case}");
                let crashes = world.facts.iter();
                died += crashes.filter(|(_, _, it)| matches!(it, Observation::Crashed)).count();
                assert!(!has_defect(&world), "{case}");
            }
        }
    }
    assert_eq!(died, 2 * 14 * points.len(), "every commit exists");
}

/// `kill -9` by the world at any event.
#[test]
fn a_crash_of_either_side_at_any_event_loses_no_voucher_and_the_next_job_works() {
    for side in [0, 1] {
        for steps in (0..150).step_by(3) {
            let mut world = World::new(vec![consumer(1), provider(2)]);
            world.submit(0, 1);
            for _ in 0..steps {
                world.step();
            }
            world.crash(side);
            world.run_for(Duration::from_secs(3));
            world.give(side, Stimulus::Start);
            world.run_for(Duration::from_secs(700));
            let job = world.submit(0, 2);
            assert!(world.finish(), "{side} at {steps}");
            world.cost(job);
            assert_eq!(world.held(1), world.promised(0), "{side} at {steps}");
        }
    }
}

#[test]
fn a_slow_disk_makes_a_job_slower_and_nothing_else() {
    let mut took = Vec::new();
    for commit in [Duration::ZERO, Duration::from_millis(5), Duration::from_millis(80)] {
        let mut specs = vec![consumer(1), provider(2)];
        for spec in &mut specs {
            Arc::make_mut(&mut spec.store).commit = commit;
            Arc::make_mut(&mut spec.store).spread = commit / 2;
        }
        let mut world = World::new(specs);
        let job = world.submit(0, 1);
        assert!(world.finish());
        let Some(Observation::JobFinished { after, cost, .. }) = world.end(job) else {
            panic!("{:?}", world.end(job));
        };
        assert_eq!(*cost, prices().cost(PROMPT, COMPLETION).unwrap());
        took.push(*after);
    }
    assert!(took.is_sorted() && took[0] < took[2], "{took:?}");
}

#[test]
fn random_crashes_and_slow_disks_end_in_working_hosts() {
    let mut crashes = 0;
    for seed in 0..6 {
        let mut specs = vec![consumer(1), provider(2), provider(3)];
        for spec in &mut specs {
            spec.seed = simnet_scenario::Seed(seed);
            Arc::make_mut(&mut spec.store).commit = Duration::from_millis(1);
            Arc::make_mut(&mut spec.store).slow = 100_000;
            Arc::make_mut(&mut spec.store).slow_commit = Duration::from_millis(200);
            Arc::make_mut(&mut spec.store).crash = 20_000;
        }
        let mut world = World::new(specs);
        for job in 1..=20 {
            world.submit(0, job);
            world.run_for(Duration::from_secs(20));
        }
        assert!(world.finish(), "seed {seed}");
        assert!(!has_defect(&world), "seed {seed}");
        let held = sum([world.held(1), world.held(2)].into_iter());
        assert!(held <= world.promised(0), "seed {seed}");
        let died = world.facts.iter();
        crashes += died.filter(|(_, _, fact)| matches!(fact, Observation::Crashed)).count();
    }
    assert!(crashes > 10, "{crashes}");
}

#[test]
fn forged_evidence_is_found_and_no_prompt_is_sent() {
    let mut forger = provider(2);
    forger.provider.as_mut().unwrap().genuine = Tier::Open;
    let mut world = World::new(vec![consumer(1), forger]);
    let job = world.submit(0, 1);
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::AttestationRefused);
    let sent = |fact: &Observation| matches!(fact, Observation::PromptSent { .. });
    assert!(!world.facts.iter().any(|(_, _, fact)| sent(fact)));
    let refused =
        |fact: &Observation| matches!(fact, Observation::SessionFailed { refused, .. } if *refused);
    assert!(world.facts.iter().any(|(_, _, fact)| refused(fact)));
}

/// Eight jobs at once for one place: each is asked for again when the provider said, and none fails.
#[test]
fn a_full_provider_is_asked_again_when_it_said() {
    let mut narrow = provider(2);
    narrow.provider.as_mut().unwrap().places = 1;
    let mut world = World::new(vec![consumer(1), narrow]);
    let jobs: Vec<_> = (1..=8).map(|seed| world.submit(0, seed)).collect();
    assert!(world.finish());
    let served = |job: &&_| matches!(world.end(**job), Some(Observation::JobFinished { .. }));
    assert_eq!(jobs.iter().filter(served).count(), jobs.len());
}

#[test]
fn a_provider_that_cannot_be_reached_or_is_full_is_named() {
    let mut world = World::new(vec![consumer(1), provider(2)]);
    world.weather.dials_fail = true;
    let job = world.submit(0, 1);
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::Unreachable);

    let mut full = provider(2);
    full.provider.as_mut().unwrap().places = 0;
    let mut world = World::new(vec![consumer(1), full]);
    let job = world.submit(0, 1);
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::Refused);
}

#[test]
fn a_cancelled_job_is_paid_for_what_was_delivered() {
    let mut world = World::new(vec![consumer(1), provider(2)]);
    let job = world.submit(0, 1);
    world.run_for(Duration::from_secs(2));
    world.give(0, Stimulus::Cancel(job));
    assert!(world.finish());
    let Some(Observation::JobFinished { reason, completion, cost, .. }) = world.end(job) else {
        panic!("{:?}", world.end(job));
    };
    assert_eq!(*reason, FinishReason::Cancelled);
    assert!(*completion > Tokens::ZERO && *completion < COMPLETION);
    assert_eq!(*cost, prices().cost(PROMPT, *completion).unwrap());
    assert_eq!((world.held(1), world.promised(0)), (*cost, *cost));
}

#[test]
fn an_impatient_user_leaves_before_the_first_token() {
    let mut hasty = consumer(1);
    hasty.consumer.as_mut().unwrap().patience = Some(Duration::from_millis(500));
    let mut world = World::new(vec![hasty, provider(2)]);
    let job = world.submit(0, 1);
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::Cancelled);
}

#[test]
fn a_session_that_is_lost_in_the_middle_loses_the_job_and_not_the_money() {
    let mut world = World::new(vec![consumer(1), provider(2)]);
    let first = world.submit(0, 1);
    world.run_for(Duration::from_secs(3));
    world.crash(1);
    world.run_for(Duration::from_secs(1));
    world.give(1, Stimulus::Start);
    assert!(world.finish());
    assert_eq!(world.failure(first), FailureKind::ProviderLost);
    // What is remembered of a provider that failed fades.
    world.run_for(Duration::from_secs(700));
    let second = world.submit(0, 2);
    assert!(world.finish());
    world.cost(second);
    assert_eq!(world.held(1), world.promised(0));
}

#[test]
fn a_peer_that_does_not_read_loses_its_session() {
    let mut world = World::new(vec![consumer(1), provider(2)]);
    let job = world.submit(0, 1);
    world.run_for(Duration::from_secs(2));
    world.weather.backlog = 256;
    world.run_for(Duration::from_secs(5));
    world.weather.backlog = 0;
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::ProviderLost);
}

#[test]
fn a_drained_host_settles_and_leaves() {
    // A settlement below 0.0044 TON would not pay for itself.
    let (mut rich, mut dear) = (consumer(1), provider(2));
    rich.consumer.as_mut().unwrap().allocation = NanoTon::from_nano(500_000_000);
    let completion = PricePerMillion::from_nano(100_000_000_000);
    dear.provider.as_mut().unwrap().models[0].prices.completion = completion;
    let mut world = World::new(vec![rich, dear]);
    let job = world.submit(0, 1);
    world.run_for(Duration::from_secs(2));
    world.give(1, Stimulus::Drain);
    assert!(world.finish());
    let cost = world.cost(job);
    world.run_for(Duration::from_secs(60));
    let settled = world.facts.iter().rev().find_map(|(_, _, fact)| match fact {
        Observation::Settled { paid, .. } => Some(*paid),
        _ => None,
    });
    assert_eq!(settled, Some(cost));
    assert!(world.facts.iter().any(|(_, _, fact)| matches!(fact, Observation::Left)));
    assert!(!world.hosts[1].runs());
}

#[test]
fn nothing_is_served_beyond_one_step() {
    let mut world = World::new(vec![consumer(1), provider(2)]);
    world.submit(0, 1);
    assert!(world.finish());
    let unpaid = world.facts.iter().filter_map(|(_, _, fact)| match fact {
        Observation::Exposed { unpaid, .. } => Some(*unpaid),
        _ => None,
    });
    let most = unpaid.max().unwrap();
    assert!(most > Tokens::ZERO && most <= limits::CREDIT_STEP, "{most:?}");
}

#[test]
fn clocks_that_differ_by_less_than_a_minute_do_no_harm() {
    for skew_ms in [-50_000, 50_000] {
        let mut world = World::new(vec![consumer(1), provider(2)]);
        world = World::new(vec![
            simnet_host::HostSpec { skew_ms, ..world.hosts[0].spec().clone() },
            provider(2),
        ]);
        let job = world.submit(0, 1);
        assert!(world.finish());
        assert!(world.cost(job) > NanoTon::ZERO);
    }
}

fn has_defect(world: &World) -> bool {
    world.facts.iter().any(|(_, _, fact)| matches!(fact, Observation::Defect { .. }))
}
