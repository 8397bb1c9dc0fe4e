//! An answer whose provider is lost goes on with another: nothing is lost, repeated or paid twice.
//!
//! Owns: the scenarios of a lost provider, and a property over generated ones.
//! Must not: know text; the edge's own tests show what it passes on.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod world;

use cocoon_protocol::Input;
use cocoon_protocol::attest::Tier;
use cocoon_protocol::job::{FinishReason, JobError, ProviderRefusal, Usage};
use cocoon_protocol::limits;
use cocoon_protocol::output::JobNews;
use cocoon_protocol::selection::Retry;
use cocoon_protocol::units::{Millis, Tokens};
use proptest::prelude::*;
use world::{LIMIT, PROMPT, World, cost, key};

/// Providers that are followed by another although they brought text.
const TAKEOVERS: usize = limits::TAKEOVERS_PER_JOB as usize;

fn usage(prompt: u32, completion: u32) -> Usage {
    Usage { prompt: Tokens::new(prompt), completion: Tokens::new(completion) }
}

#[test]
fn another_provider_goes_on_where_the_first_was_lost() {
    let (mut world, job, first) = World::writing(20);
    world.loses(first);
    assert_eq!((world.sent.len(), world.halts), (1, 1), "first it is asked how far the text came");
    // Two more tokens had come, and were passed on.
    world.halted(job, 22);
    assert_eq!(world.promised[&first], cost(10, 22), "what was passed on is paid, once");
    assert_eq!(world.interrupted, [(first, cost(10, 22))]);
    let second = world.chosen();
    assert_ne!(second, first);
    assert_eq!(
        world.sent[1].1,
        LIMIT.saturating_sub(Tokens::new(22)),
        "no more than was asked for"
    );
    // It reads the prompt and what came of the answer, by its own tokenizer.
    world.starts(job, Tokens::new(10 + 23));
    world.delivers(job, 30);
    world.finishes(job, second, usage(33, 30), FinishReason::Stop);
    let both = cost(10, 22).checked_add(cost(33, 30)).unwrap();
    let (whole, price, vouchers, receipted) = world.finished();
    assert_eq!((whole, price, receipted), (usage(10, 52), both, true));
    assert!(vouchers >= 6, "{vouchers}: both providers' count");
    assert_eq!(world.paid(), both);
    assert_eq!(world.node.consumer().unwrap().jobs(), 0);
}

#[test]
fn whoever_goes_on_may_count_the_text_behind_the_prompt_and_no_more() {
    for (prompt, is_too_much) in [(60 + 22 * 4, false), (60 + 22 * 4 + 1, true)] {
        let mut world = World::new(&[2, 3]);
        let job = world.submit();
        world.writes_and_is_lost(job, 10, 22);
        let second = world.starts(job, Tokens::new(prompt));
        assert_eq!(world.cancels == [second], is_too_much, "{prompt}");
    }
}

#[test]
fn an_end_that_was_on_the_way_when_the_session_closed_is_the_end() {
    let (mut world, job, peer) = World::writing(40);
    world.loses(peer);
    world.finishes(job, peer, usage(10, 40), FinishReason::Stop);
    assert_eq!(world.finished(), (usage(10, 40), cost(10, 40), 3, true));
    world.halted(job, 40);
    assert_eq!((world.sent.len(), world.news.len()), (1, 2), "nothing follows");
    assert_eq!(world.paid(), cost(10, 40));
}

#[test]
fn text_that_was_on_the_way_with_the_end_is_in_its_receipt() {
    let (mut world, job, peer) = World::writing(40);
    world.loses(peer);
    // Both lay behind the news that the session is over.
    world.delivers(job, 43);
    world.finishes(job, peer, usage(10, 43), FinishReason::Stop);
    assert_eq!(world.finished().0, usage(10, 43));
    assert_eq!((world.sent.len(), world.paid()), (1, cost(10, 43)));
}

#[test]
fn tokens_without_text_are_not_paid_because_their_provider_left() {
    let (mut world, job, peer) = World::writing(20);
    let before = world.promised[&peer];
    world.loses(peer);
    // The edge finds what it counts while it passes on what is there.
    let rule = "it counts more tokens than its text can hold";
    world.give(Input::JobBroken { peer, job, rule });
    world.halted(job, 20);
    assert_eq!((world.promised[&peer], world.sent.len()), (before, 2), "and another goes on");
    // Nor are more than were asked for.
    let (mut world, job, peer) = World::writing(20);
    let before = world.promised[&peer];
    world.loses(peer);
    world.halted(job, 201);
    assert_eq!(world.promised[&peer], before);
    assert!(matches!(world.failure(), JobError::ProviderMisbehaved { .. }));
}

#[test]
fn who_was_left_for_its_silence_and_ends_the_job_is_followed_by_another() {
    let (mut world, job, first) = World::writing(20);
    world.tick(Millis::from_secs(60));
    assert_eq!((world.cancels.as_slice(), world.halts), (&[first][..], 1));
    // It was there all the time, and does as it was told.
    world.finishes(job, first, usage(10, 20), FinishReason::Cancelled);
    while world.halts > 0 {
        let passed = if world.halts == 2 { 20 } else { 0 };
        world.halted(job, passed);
    }
    assert!(world.interrupted.is_empty(), "it is receipted");
    assert_eq!((world.sent.len(), world.paid()), (2, cost(10, 20)));
}

#[test]
fn a_whole_answer_without_its_receipt_is_whole() {
    let mut world = World::new(&[2, 3]);
    let job = world.submit();
    world.writes_and_is_lost(job, 10, 200);
    let (whole, price, _, receipted) = world.finished();
    assert_eq!((whole, price, receipted), (usage(10, 200), cost(10, 200), false));
    assert_eq!(world.sent.len(), 1, "there is nothing to go on with");
}

#[test]
fn a_failed_engine_signs_for_what_it_did_and_another_goes_on() {
    for reason in [FinishReason::Failed, FinishReason::Draining] {
        let (mut world, job, first) = World::writing(12);
        world.finishes(job, first, usage(10, 12), reason);
        world.halted(job, 12);
        assert!(world.interrupted.is_empty(), "it is receipted");
        let second = world.starts(job, Tokens::new(22));
        assert_ne!(second, first);
        world.delivers(job, 8);
        world.finishes(job, second, usage(22, 8), FinishReason::Stop);
        let both = cost(10, 12).checked_add(cost(22, 8)).unwrap();
        assert_eq!((world.finished().0, world.finished().1), (usage(10, 20), both));
        assert_eq!(world.paid(), both);
    }
}

#[test]
fn a_policy_says_which_failures_are_followed_by_another_attempt() {
    for (retry, written, goes_on) in [
        (Retry::Never, 0, false),
        (Retry::Never, 20, false),
        (Retry::BeforeText, 0, true),
        (Retry::BeforeText, 20, false),
        (Retry::Resume, 0, true),
        (Retry::Resume, 20, true),
    ] {
        let mut world = World::trying(retry).with(2, Tier::Attested).with(3, Tier::Attested);
        let job = world.submit();
        let peer = world.writes_and_is_lost(job, 10, written);
        assert_eq!(world.sent.len() == 2, goes_on, "{retry:?} after {written}");
        if !goes_on {
            assert_eq!(*world.failure(), JobError::ProviderLost { provider: peer });
        }
    }
}

#[test]
fn only_so_many_providers_are_tried() {
    // Those that bring nothing, and those that bring some of the answer.
    for (written, most) in [(0, limits::ATTEMPTS_PER_JOB), (20, 1 + TAKEOVERS)] {
        let mut world = World::new(&[2, 3, 4, 5, 6, 7, 8, 9]);
        let job = world.submit();
        let lost: Vec<_> = (0..most).map(|_| world.writes_and_is_lost(job, 10, written)).collect();
        assert_eq!(world.sent.len(), most);
        assert_eq!(*world.failure(), JobError::ProviderLost { provider: lost[most - 1] });
        assert_eq!(world.interrupted.len(), most);
        let each = cost(10, written).as_nano();
        assert_eq!(world.paid().as_nano(), each * u64::try_from(most).unwrap());
    }
}

#[test]
fn a_provider_that_falls_silent_is_left_soon_and_a_slow_one_is_not() {
    for (each, pause, is_left) in [
        (20, 4_900, false),
        (20, 5_100, true),
        // At this pace 32 tokens take 16 seconds.
        (500, 15_900, false),
        (500, 16_100, true),
    ] {
        let mut world = World::new(&[2, 3]);
        let job = world.submit();
        world.starts(job, PROMPT);
        for written in 1..=40 {
            world.tick(Millis::new(each));
            world.delivers(job, written);
        }
        world.tick(Millis::new(pause));
        assert_eq!(world.halts > 0, is_left, "{pause} ms at {each} ms a token");
    }
}

#[test]
fn a_reader_that_takes_nothing_is_not_its_providers_silence() {
    let mut world = World::new(&[2, 3]);
    let job = world.submit();
    world.starts(job, PROMPT);
    for written in 1..=20 {
        world.tick(Millis::new(20));
        world.delivers(job, written);
    }
    world.give(Input::ReaderWaits { job });
    world.tick(Millis::from_secs(30));
    assert_eq!(world.halts, 0);
    // Nor is a minute of it, in which the job is given up.
    let (mut given_up, waits, peer) = World::writing(20);
    let before = given_up.success(peer);
    given_up.give(Input::ReaderWaits { job: waits });
    given_up.tick(Millis::from_secs(60));
    assert_eq!((given_up.halts, given_up.cancels.as_slice()), (1, &[peer][..]));
    assert!(given_up.success(peer) >= before, "it is not held against it");
    // From when it takes text again, silence is the provider's.
    world.delivers(job, 21);
    world.tick(Millis::from_secs(60));
    assert_eq!(world.halts, 1);
}

#[test]
fn the_cap_is_for_the_whole_answer() {
    let mut world = World::new(&[2, 3]);
    // Enough for the whole at one provider, but not for the prompt a second time.
    let cap = cost(60, 200);
    let job = world.submit_with(|demand| demand.max_cost = Some(cap));
    let peer = world.writes_and_is_lost(job, 60, 150);
    world.tick(Millis::from_secs(5));
    assert_eq!(*world.failure(), JobError::ProviderLost { provider: peer });
    assert_eq!(world.sent.len(), 1);
    assert!(world.paid() <= cap);
}

#[test]
fn whoever_goes_on_proves_as_much_as_the_first() {
    let mut world = World::new(&[2]);
    let job = world.submit();
    let peer = world.starts(job, PROMPT);
    let mut world = world.with(3, Tier::Open);
    world.delivers(job, 20);
    world.loses(peer);
    world.halted(job, 20);
    assert_eq!(world.sent.len(), 1, "its reader was told a tier");
    world.tick(Millis::from_secs(2));
    assert_eq!(world.sent.len(), 1);
    // One that does is found while the reader waits.
    let world = world.with(4, Tier::Attested);
    assert_eq!(world.chosen(), key(4).id());
}

#[test]
fn a_reader_that_leaves_meanwhile_ends_the_job() {
    let (mut world, job, peer) = World::writing(20);
    world.loses(peer);
    world.give(Input::Cancel { job });
    assert_eq!(world.node.consumer().unwrap().jobs(), 1, "what came is not counted yet");
    world.halted(job, 25);
    assert_eq!(*world.failure(), JobError::ProviderLost { provider: peer });
    assert_eq!((world.sent.len(), world.paid()), (1, cost(10, 25)));
}

#[test]
fn an_edge_that_says_nothing_ends_the_job() {
    let (mut world, _, peer) = World::writing(20);
    world.loses(peer);
    world.tick(limits::JOB_STALL_TIMEOUT);
    assert_eq!(*world.failure(), JobError::ProviderLost { provider: peer });
    assert_eq!((world.sent.len(), world.paid()), (1, cost(10, 20)));
}

#[test]
fn a_provider_that_broke_a_rule_is_paid_no_more_and_another_goes_on() {
    let (mut world, job, first) = World::writing(20);
    let before = world.promised[&first];
    world.give(Input::JobBroken { peer: first, job, rule: "its count of tokens runs backwards" });
    world.halted(job, 25);
    assert_eq!(world.promised[&first], before);
    assert_eq!((world.cancels.as_slice(), world.sent.len()), (&[first][..], 2));
    assert_eq!(world.sent[1].1, LIMIT.saturating_sub(Tokens::new(25)), "its reader has them");
}

/// Something that happens to the job.
#[derive(Clone, Copy, Debug)]
enum Act {
    Starts(u32),
    Refuses,
    Delivers(u32),
    Loses,
    Breaks,
    Halted(u32),
    Finishes(FinishReason),
    Cancel,
    Tick(u32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1_u32..90).prop_map(Act::Starts),
        1 => Just(Act::Refuses),
        6 => (1_u32..40).prop_map(Act::Delivers),
        3 => Just(Act::Loses),
        1 => Just(Act::Breaks),
        5 => (0_u32..5).prop_map(Act::Halted),
        2 => prop_oneof![
            Just(FinishReason::Stop),
            Just(FinishReason::Failed),
            Just(FinishReason::Draining),
            Just(FinishReason::Length),
        ].prop_map(Act::Finishes),
        1 => Just(Act::Cancel),
        1 => (0_u32..70_000).prop_map(Act::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_a_job_ends_once_within_its_bounds(acts in prop::collection::vec(act(), 1..40)) {
        let mut world = World::new(&[2, 3, 4, 5, 6, 7, 8, 9]);
        let cap = cost(400, 400);
        let job = world.submit_with(|demand| demand.max_cost = Some(cap));
        // What the edge has: tokens of the present provider and of those before, and its prompt.
        let (mut here, mut before, mut prompt) = (0_u32, 0_u32, 0_u32);
        let mut requests = world.sent.len();
        // Whether it reads anybody: after its first answer it has forgotten whom it read.
        let mut reads = true;
        for act in acts {
            let peer = world.chosen();
            match act {
                Act::Starts(tokens) => {
                    prompt = tokens;
                    world.starts(job, Tokens::new(tokens));
                }
                Act::Refuses => world.give(Input::JobRefused { peer, job, refusal: ProviderRefusal::Draining }),
                Act::Delivers(more) => {
                    // Of a lost provider, what was on the way.
                    let runs = world.node.consumer().unwrap().running().next().is_some();
                    if reads && (runs || world.halts > 0) {
                        here += more;
                        world.delivers(job, here);
                    }
                }
                Act::Loses => world.loses(peer),
                Act::Breaks => world.give(Input::JobBroken { peer, job, rule: "a test's" }),
                Act::Halted(more) => if world.halts > 0 {
                    // The edge passes on what is there, and forgets whom it was from.
                    let fits = reads && here + before + more <= LIMIT.get();
                    let passed = if fits { here + more } else { here };
                    reads = false;
                    before += passed;
                    here = 0;
                    world.halted(job, passed);
                },
                Act::Finishes(reason) => {
                    let runs = world.node.consumer().unwrap().running().next().is_some();
                    if reads && (runs || world.halts > 0) {
                        world.finishes(job, peer, usage(prompt, here), reason);
                    }
                }
                Act::Cancel => world.give(Input::Cancel { job }),
                Act::Tick(millis) => world.tick(Millis::new(u64::from(millis))),
            }
            if world.sent.len() > requests {
                requests = world.sent.len();
                // Its orders come in their order: what it was asked before, it answers before.
                while world.halts > 0 {
                    world.halted(job, 0);
                }
                reads = true;
                let left = world.sent.last().unwrap().1;
                prop_assert!(left.get() + before <= LIMIT.get(), "more is asked for than was wanted");
            }
        }
        let mut asked: Vec<_> = world.sent.iter().map(|(peer, _)| *peer).collect();
        asked.sort_unstable();
        asked.dedup();
        prop_assert_eq!(asked.len(), world.sent.len(), "nobody is asked twice");
        prop_assert!(world.sent.len() <= limits::ATTEMPTS_PER_JOB + TAKEOVERS);
        prop_assert!(world.paid() <= cap);
        let ends = world.news.iter().filter(|news| !matches!(news, JobNews::Started { .. })).count();
        let open = world.node.consumer().unwrap().jobs();
        prop_assert_eq!(ends + open, 1, "it ends once, or goes on");
        if let Some(JobNews::Finished { cost, .. }) = world.news.last() {
            prop_assert_eq!(*cost, world.paid(), "the user is told all that was paid");
        }
        // Whatever is still open ends by itself.
        for _ in 0..20 {
            world.tick(Millis::from_secs(60));
            while world.halts > 0 {
                world.halted(job, 0);
            }
        }
        prop_assert_eq!(world.node.consumer().unwrap().jobs(), 0);
        prop_assert!(world.paid() <= cap);
    }
}
