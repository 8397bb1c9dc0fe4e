//! A consumer and a provider wired directly: whole jobs through the real machines, in no time.
//!
//! Owns: the scenarios that show that the machines fit together.
//! Must not: test a rule that a machine's own tests can show.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod world;

use std::sync::Arc;

use cocoon_protocol::Input;
use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{ModelHash, NodeId};
use cocoon_protocol::job::consumer::view::Phase;
use cocoon_protocol::job::{FinishReason, JobError};
use cocoon_protocol::limits;
use cocoon_protocol::offer::Offer;
use cocoon_protocol::output::JobNews;
use cocoon_protocol::record::Purpose;
use cocoon_protocol::selection::Demand;
use cocoon_protocol::units::{Millis, NanoTon, Tokens};
use world::{PROMPT, Side, World, key, prices, vault_key};

#[test]
fn a_job_is_found_served_paid_and_receipted() {
    let mut world = World::new();
    let job = world.submit(1);
    world.run();
    let expected = prices().cost(PROMPT, Tokens::new(100)).unwrap();
    match world.last_news(job) {
        JobNews::Finished { reason, usage, cost, vouchers, receipt } => {
            assert_eq!(*reason, FinishReason::Stop);
            assert_eq!(usage.completion, Tokens::new(100));
            assert_eq!(*cost, expected);
            assert!(*vouchers >= 6, "a voucher each half step");
            let receipt = receipt.unwrap();
            assert!(world.consumer_store.receipts.contains_key(receipt.as_bytes().as_slice()));
            assert!(world.provider_store.receipts.contains_key(receipt.as_bytes().as_slice()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.promised(), expected);
    assert_eq!(world.held(), expected);
}

#[test]
fn eight_jobs_at_a_time_add_up_to_the_nanoton() {
    let mut world = World::new();
    let jobs: Vec<_> = (1..=8).map(|seed| world.submit(seed)).collect();
    world.run();
    let sum =
        jobs.iter().fold(NanoTon::ZERO, |sum, job| sum.checked_add(world.cost(*job)).unwrap());
    assert_eq!(world.promised(), sum);
    assert_eq!(world.held(), sum);
    let receipts = world.consumer_store.receipts.values();
    let receipted = receipts.fold(NanoTon::ZERO, |sum, stored| {
        sum.checked_add(stored.receipt.verify().unwrap().receipt().price).unwrap()
    });
    assert_eq!(receipted, sum);
}

#[test]
fn a_second_job_needs_no_look_up_and_no_ledger() {
    let mut world = World::new();
    world.submit(1);
    world.run();
    let free = world.free;
    let job = world.submit(2);
    assert!(world.mail.iter().all(|(_, input)| !matches!(
        input,
        Input::SessionReady { .. } | Input::Allocated { .. } | Input::VaultReady { .. }
    )));
    world.run();
    world.cost(job);
    assert_eq!(world.free, free);
}

#[test]
fn a_display_shows_a_consumers_job_at_every_step() {
    let mut world = World::new();
    let job = world.submit(1);
    let mut steps: Vec<&str> = Vec::new();
    loop {
        let consumer = world.consumer.consumer().unwrap();
        if let Some(view) = consumer.job_views().next() {
            assert_eq!((view.job, view.tried), (job, 0));
            let step = match view.phase {
                Phase::Looking => "looking",
                Phase::Waiting => "waiting",
                Phase::Preparing => "preparing",
                Phase::Requested => "requested",
                Phase::Running(progress) => {
                    assert_eq!(progress.prompt, PROMPT);
                    assert!(progress.paid_for <= progress.received);
                    let cost = prices().cost(PROMPT, progress.paid_for).unwrap();
                    assert_eq!(progress.promised, cost);
                    "running"
                }
            };
            assert_eq!(view.provider.is_some(), step != "looking");
            if steps.last() != Some(&step) {
                steps.push(step);
            }
        }
        if !world.step() {
            break;
        }
    }
    assert_eq!(steps, ["looking", "preparing", "requested", "running"]);
    assert_eq!(world.consumer.consumer().unwrap().job_views().count(), 0);
}

#[test]
fn a_crash_of_either_side_at_any_step_loses_no_voucher_and_the_next_job_works() {
    for side in [Side::Consumer, Side::Provider] {
        for steps in 0..140 {
            let mut world = World::new();
            let first = world.submit(1);
            for _ in 0..steps {
                world.step();
            }
            world.crash(side);
            assert!(world.held() <= world.promised(), "{side:?} at {steps}");
            world.tick(Millis::new(600));
            let job = world.submit(2);
            world.run();
            let cost = world.cost(job);
            assert_eq!(world.held(), world.promised(), "{side:?} at {steps}");
            assert!(world.promised() >= cost);
            world.accounts_add_up(&format!("{side:?} at {steps}"));
            // What was promised is receipted or known to have been interrupted, if we survived.
            if side == Side::Provider {
                let receipts = world.consumer_store.receipts.values();
                let receipted = receipts.fold(NanoTon::ZERO, |sum, stored| {
                    sum.checked_add(stored.receipt.verify().unwrap().receipt().price).unwrap()
                });
                let lost = world
                    .consumer_store
                    .interrupted
                    .iter()
                    .fold(NanoTon::ZERO, |sum, it| sum.checked_add(*it).unwrap());
                assert_eq!(receipted.checked_add(lost), Some(world.promised()), "at {steps}");
                let news = &world.readers[&first].news;
                assert!(news.len() <= 2, "{news:?}");
            }
        }
    }
}

#[test]
fn a_cancelled_job_is_paid_for_what_was_delivered() {
    let mut world = World::new();
    let job = world.submit(1);
    while world.readers.get(&job).is_none_or(|reader| reader.received < Tokens::new(20)) {
        assert!(world.step());
    }
    world.give(Side::Consumer, Input::Cancel { job });
    world.run();
    let JobNews::Finished { reason, usage, cost, .. } = world.last_news(job) else {
        panic!("{:?}", world.last_news(job));
    };
    assert_eq!(*reason, FinishReason::Cancelled);
    assert!(usage.completion < Tokens::new(100));
    assert_eq!(*cost, prices().cost(PROMPT, usage.completion).unwrap());
    assert_eq!(world.held(), *cost);
}

#[test]
fn a_job_that_is_given_up_before_it_ran_ends_for_whoever_keeps_its_text() {
    let mut world = World::new();
    world.offer = None;
    let job = world.submit_with(1, |demand| demand.model = ModelHash::from_bytes([8; 32]));
    world.give(Side::Consumer, Input::Cancel { job });
    assert!(matches!(world.failure(job), JobError::Unreachable { .. }));
}

#[test]
fn a_reader_that_stands_still_stops_the_provider_after_one_step() {
    let mut world = World::new();
    world.slow_reader = true;
    let job = world.submit(1);
    world.run();
    assert_eq!(world.readers[&job].received, limits::CREDIT_STEP);
    assert_eq!(world.held(), prices().cost(PROMPT, Tokens::ZERO).unwrap());
    world.tick(limits::PAYMENT_TIMEOUT);
    assert!(world.engine.is_empty(), "the engine is free again");
    assert!(matches!(world.failure(job), JobError::ProviderLost { .. }));
}

#[test]
fn a_provider_whose_ledger_is_behind_is_greeted_again() {
    let mut world = World::new();
    world.ledger_lag = 3;
    let job = world.submit(1);
    world.run();
    for _ in 0..3 {
        assert!(!world.readers.contains_key(&job));
        world.tick(Millis::new(500));
    }
    world.cost(job);
}

#[test]
fn refused_evidence_ends_the_job_with_the_reason_and_sends_nothing() {
    let mut world = World::new();
    world.refuse_from = Some(Tier::Open);
    let job = world.submit(1);
    world.run();
    assert_eq!(world.consumer.consumer().unwrap().jobs(), 1, "others may yet be found");
    world.tick(Millis::from_secs(5));
    assert_eq!(
        *world.failure(job),
        JobError::AttestationRefused { provider: key(2).id(), reason: "debug guest".into() }
    );
    assert!(world.engine.is_empty() && world.allocation.is_none());
}

#[test]
fn an_empty_vault_is_named() {
    let mut world = World::new();
    world.free = NanoTon::from_nano(10);
    let job = world.submit(1);
    world.run();
    assert!(matches!(
        world.failure(job),
        JobError::FundsExhausted { available, .. } if *available == NanoTon::from_nano(10)
    ));
}

#[test]
fn nobody_offering_is_said_after_a_while() {
    let mut world = World::new();
    world.offer = None;
    let job = world.submit_with(1, |demand| demand.model = ModelHash::from_bytes([8; 32]));
    world.run();
    assert!(!world.readers.contains_key(&job));
    world.tick(Millis::from_secs(5));
    assert_eq!(*world.failure(job), JobError::NoProvider { name: "m".into() });
}

#[test]
fn a_model_that_exists_in_a_lower_tier_only_is_told_from_one_that_does_not_exist() {
    let mut world = World::new();
    world.run();
    let offer = world.offer.take().unwrap().verify(world.now).unwrap();
    let open = Offer { tier: Tier::Open, evidence_digest: None, ..offer.offer().clone() };
    world.offer = Some(open.sign(&key(2)));
    let job = world.submit(1);
    world.run();
    world.tick(Millis::from_secs(3));
    world.run();
    assert!(!world.readers.contains_key(&job), "another may still come");
    world.tick(Millis::from_secs(2));
    let error = JobError::TierNotAvailable { asked: Tier::Attested, best: Tier::Open };
    assert_eq!(*world.failure(job), error);
}

#[test]
fn a_session_that_was_asked_for_less_gives_way_to_one_that_proves_more() {
    let mut world = World::new();
    let of = |tier| move |demand: &mut Demand| demand.minimum_tier = tier;
    let open = world.submit_with(1, of(Tier::Open));
    world.run();
    let attested = world.submit_with(2, of(Tier::Attested));
    world.run();
    let again = world.submit_with(3, of(Tier::Open));
    world.run();
    for (job, proved) in [(open, Tier::Open), (attested, Tier::Attested), (again, Tier::Attested)] {
        let started = world.readers[&job].news.first();
        assert!(matches!(started, Some(JobNews::Started { tier, .. }) if *tier == proved));
        world.cost(job);
    }
    assert_eq!(world.opened, [Tier::Open, Tier::Attested], "what proves more serves all");
    assert_eq!(world.held(), world.promised());
}

#[test]
fn a_job_that_runs_is_not_interrupted_for_one_that_needs_a_better_session() {
    let mut world = World::new();
    world.slow_reader = true;
    let running = world.submit_with(1, |demand| demand.minimum_tier = Tier::Open);
    world.run();
    assert!(matches!(world.last_news(running), JobNews::Started { .. }));
    let success = world.success();
    let waiting = world.submit(2);
    world.run();
    assert!(!world.readers.contains_key(&waiting));
    assert_eq!(world.success().to_bits(), success.to_bits(), "nobody asked it for more");
    assert_eq!(world.opened, [Tier::Open]);
    world.slow_reader = false;
    let completion = world.readers[&running].received;
    world.give(Side::Consumer, Input::Delivered { job: running, completion });
    world.run();
    world.cost(running);
    world.tick(Millis::from_secs(2));
    world.cost(waiting);
    assert_eq!(world.opened, [Tier::Open, Tier::Attested]);
}

fn confidential(demand: &mut Demand) {
    demand.minimum_tier = Tier::Confidential;
}

/// A provider that offers tier `confidential`, and proves less.
fn boaster() -> World {
    let mut world = World::new();
    world.proves(Tier::Confidential);
    world.refuse_from = Some(Tier::Confidential);
    world
}

fn refused() -> JobError {
    JobError::AttestationRefused { provider: key(2).id(), reason: "debug guest".into() }
}

#[test]
fn a_failed_raise_takes_along_who_needed_it_and_nobody_else() {
    let mut world = boaster();
    let served = world.submit(1);
    world.run();
    world.cost(served);
    let better = world.submit_with(2, confidential);
    let waits = world.submit(3);
    world.run();
    world.cost(waits);
    let dials = [Tier::Attested, Tier::Confidential, Tier::Attested];
    assert_eq!(world.opened, dials);
    world.tick(Millis::from_secs(5));
    assert_eq!(*world.failure(better), refused());
    assert_eq!(world.avoided, 0, "it serves well what it proves");
    // Nobody asks it again for a while, and who would have is told why.
    let again = world.submit_with(4, confidential);
    world.run();
    world.tick(Millis::from_secs(5));
    assert_eq!(*world.failure(again), refused());
    assert_eq!(world.opened, dials);
    let content = world.submit(5);
    world.run();
    world.cost(content);
    // It may have become better.
    world.refuse_from = None;
    world.tick(limits::OFFER_LIFETIME);
    let later = world.submit_with(6, confidential);
    world.run();
    world.cost(later);
    assert_eq!(world.opened.last(), Some(&Tier::Confidential));
}

#[test]
fn who_waits_for_a_first_session_of_a_higher_tier_is_served_in_its_own() {
    let mut world = boaster();
    let better = world.submit_with(1, confidential);
    while world.opened.is_empty() {
        world.step();
    }
    let open = world.submit_with(2, |demand| demand.minimum_tier = Tier::Open);
    let attested = world.submit(3);
    world.run();
    world.cost(open);
    world.cost(attested);
    assert_eq!(world.opened, [Tier::Confidential, Tier::Attested], "what proves more serves all");
    world.tick(Millis::from_secs(5));
    assert_eq!(*world.failure(better), refused());
}

#[test]
fn who_proves_nothing_of_what_it_offers_is_let_go() {
    let mut world = boaster();
    let job = world.submit_with(1, confidential);
    world.run();
    assert_eq!(world.avoided, 1);
    world.tick(Millis::from_secs(5));
    assert_eq!(*world.failure(job), refused());
}

#[test]
fn a_provider_that_offers_less_meanwhile_is_not_dialled_for_more() {
    let mut world = boaster();
    let attested = world.submit(2);
    while world.opened.is_empty() {
        world.step();
    }
    let success = world.success();
    let better = world.submit_with(1, confidential);
    world.proves(Tier::Attested);
    world.offer_arrives();
    world.run();
    world.cost(attested);
    assert_eq!(world.opened, [Tier::Attested]);
    assert!(world.success() > success * 0.9, "honest: {} {success}", world.success());
    world.tick(Millis::from_secs(5));
    let error = JobError::TierNotAvailable { asked: Tier::Confidential, best: Tier::Attested };
    assert_eq!(*world.failure(better), error);
}

#[test]
fn a_provider_that_offers_less_while_it_is_dialled_is_not_blamed() {
    let mut world = boaster();
    let better = world.submit_with(1, confidential);
    while world.opened.is_empty() {
        world.step();
    }
    let success = world.success();
    world.proves(Tier::Attested);
    world.offer_arrives();
    world.run();
    assert!(world.success() > success * 0.8, "honest: {} {success}", world.success());
    assert_eq!(world.avoided, 0);
    let attested = world.submit(2);
    world.run();
    world.cost(attested);
    world.tick(Millis::from_secs(5));
    assert_eq!(*world.failure(better), refused());
}

#[test]
fn an_allocation_grows_before_it_runs_dry() {
    let mut world = World::new();
    let mut total = NanoTon::ZERO;
    for seed in 1..=60 {
        let job = world.submit(seed);
        world.run();
        total = total.checked_add(world.cost(job)).unwrap();
    }
    assert!(total > NanoTon::from_nano(10_000_000), "more than the first allocation");
    assert_eq!(world.held(), total);
}

#[test]
fn draining_settles_everything_and_takes_nothing_new() {
    let mut world = World::new();
    let job = world.submit(1);
    world.run();
    let cost = world.cost(job);
    world.give(Side::Provider, Input::Drain);
    world.run();
    assert!(world.provider.is_drained());
    assert_eq!(world.settled.last().unwrap().voucher.cumulative, cost);
    assert_eq!(world.allocation.unwrap().paid, cost);
    // The root of the log that the settlement carries is the consumer's.
    let payer = world.consumer_store.payers.values().next().unwrap();
    let restored = cocoon_protocol::channel::Payer::restore(payer.clone(), Arc::new(vault_key()));
    assert_eq!(world.settled.last().unwrap().voucher.receipts_root, restored.receipts().root());
}

#[test]
fn a_provider_that_counts_more_tokens_than_bytes_is_not_paid() {
    let mut world = World::new();
    let job = world.submit_with(1, |demand| demand.prompt_at_most = Tokens::new(5));
    world.run();
    assert!(matches!(world.failure(job), JobError::ProviderMisbehaved { .. }));
    assert_eq!(world.held(), NanoTon::ZERO);
}

#[test]
fn strangers_cannot_touch_a_job() {
    let mut world = World::new();
    let job = world.submit(1);
    while world.readers.get(&job).is_none_or(|reader| reader.received < Tokens::new(8)) {
        assert!(world.step());
    }
    let stranger = NodeId::from_bytes([0x55; 32]);
    world.give(Side::Provider, Input::CancelRequested { peer: stranger, job });
    world.give(Side::Consumer, Input::JobStarted { peer: stranger, job, prompt: PROMPT });
    world.give(Side::Consumer, Input::SessionClosed { peer: stranger, accepted: false });
    world.run();
    world.cost(job);
}

/// It ignores the cancellation and streams on; the user has left and nobody reads.
#[test]
fn a_provider_that_ignores_a_cancellation_is_paid_for_one_step_at_most() {
    let mut world = World::new();
    let job = world.submit(1);
    while world.readers.get(&job).is_none_or(|reader| reader.received < Tokens::new(20)) {
        assert!(world.step());
    }
    let before = world.promised();
    world.give(Side::Consumer, Input::Cancel { job });
    world.wire.retain(|(to, _)| *to == Side::Consumer);
    for completion in 21..=120 {
        let completion = Tokens::new(completion);
        world.give(Side::Consumer, Input::Delivered { job, completion });
    }
    assert_eq!(world.promised(), before, "nothing more on the way");
}

#[test]
fn a_provider_that_was_tried_before_cannot_break_the_job_of_another() {
    let mut world = World::new();
    let job = world.submit(1);
    while world.readers.get(&job).is_none_or(|reader| reader.received < Tokens::new(8)) {
        assert!(world.step());
    }
    let earlier = NodeId::from_bytes([0x55; 32]);
    world.give(Side::Consumer, Input::PaymentRefused { peer: earlier, job: Some(job) });
    world.give(Side::Consumer, Input::JobBroken { peer: earlier, job, rule: "any" });
    world.run();
    world.cost(job);
}

#[test]
fn a_consumer_that_broke_off_too_often_repays_and_is_served_again() {
    let mut world = World::new();
    let (mut repaid, mut jobs) = (false, 0);
    for round in 1..=120u8 {
        let job = world.submit(round);
        while world.readers.get(&job).is_none_or(|reader| reader.received < Tokens::new(1)) {
            assert!(world.step(), "round {round}: not served: {:?}", world.last_news(job));
        }
        jobs += 1;
        world.disconnect();
        world.run();
        world.tick(Millis::from_secs(1));
        let lines = world.consumer_store.postings.values();
        let debts = lines.filter(|line| line.purpose == Purpose::Debt);
        let debts: u64 = debts.map(|line| line.amount.as_nano()).sum();
        repaid |= debts > 0;
        let step = prices().cost(Tokens::ZERO, limits::CREDIT_STEP).unwrap().as_nano();
        assert!(debts <= jobs * step, "never more than a step for each job that broke off");
    }
    assert!(repaid, "the debt never reached the bound: the test tests nothing");
    let last = world.submit(200);
    world.run();
    world.cost(last);
    assert_eq!(world.held(), world.promised());
    world.accounts_add_up("after the last job");
}

#[test]
fn what_was_received_before_the_session_broke_is_paid_with_the_next_greeting() {
    let mut world = World::new();
    let job = world.submit(1);
    while world.readers.get(&job).is_none_or(|reader| reader.received < Tokens::new(28)) {
        assert!(world.step());
    }
    world.disconnect();
    world.run();
    // Another one that goes on with it may yet be found.
    world.tick(Millis::from_secs(5));
    assert!(matches!(world.failure(job), JobError::ProviderLost { .. }));
    let received = prices().cost(PROMPT, Tokens::new(28)).unwrap();
    assert_eq!(world.promised(), received);
    assert!(world.held() < received);
    let second = world.submit(2);
    world.run();
    let both = received.checked_add(world.cost(second)).unwrap();
    assert_eq!((world.held(), world.promised()), (both, both));
}
