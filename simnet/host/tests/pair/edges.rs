//! Peers that break the grammar of a session, or stand still: what the edges do about them.
//!
//! Owns: one case for each rule of an edge. Must not: repeat what the protocol checks by itself.

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::channel::{JobTotal, SignedVoucher, Voucher};
use cocoon_protocol::identity::{JobId, TonAddress};
use cocoon_protocol::job::{JobSpec, Prompt, Sampling};
use cocoon_protocol::units::{NanoTon, Tokens};
use cocoon_protocol::wire::{JobRequest, SessionMessage};
use simnet_host::{FailureKind, Observation, Queue, SessionId, Stimulus};

use crate::world::{MODEL, World, consumer, provider};

/// The first session of a world, as its provider and as its consumer call it.
const ACCEPTED: SessionId = SessionId::accepted(1);
const DIALLED: SessionId = SessionId::dialled(1);

/// A consumer and a provider in the middle of a job.
fn in_the_middle() -> (World, JobId) {
    let mut world = World::new(vec![consumer(1), provider(2)]);
    let job = world.submit(0, 1);
    world.run_for(Duration::from_secs(3));
    assert_eq!((world.end(job), world.lines()), (None, 2));
    (world, job)
}

fn voucher(signature: [u8; 64]) -> SignedVoucher {
    let vault = TonAddress { workchain: 0, hash: [1; 32] };
    let provider = provider(2).key.id();
    let cumulative = NanoTon::from_nano(1_000_000);
    let voucher = Voucher { vault, provider, epoch: 1, cumulative, receipts_root: [0; 32] };
    SignedVoucher { voucher, signature }
}

fn request(job: u8) -> SessionMessage {
    let spec = JobSpec {
        model: MODEL,
        prompt: Prompt::Text("10 10".into()),
        sampling: Sampling::with_seed(0),
        stop: Vec::new(),
        max_completion: Tokens::new(10),
    };
    let job = JobId::from_bytes([job; 32]);
    SessionMessage::JobRequest(JobRequest { job, offer_sequence: 0, spec, salt: [0; 32] })
}

#[test]
fn a_voucher_that_nobody_signed_costs_the_session() {
    let (mut world, job) = in_the_middle();
    let total = Some(JobTotal { job, total: NanoTon::from_nano(1_000_000) });
    let message = SessionMessage::Payment { voucher: voucher([7; 64]), total };
    world.give(1, Stimulus::Heard { session: ACCEPTED, message: Box::new(message) });
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::ProviderLost);
    assert!(world.held(1) <= world.promised(0));
}

#[test]
fn a_message_of_the_wrong_role_costs_the_session_on_either_side() {
    let started = |job| SessionMessage::JobStarted { job, prompt: Tokens::new(1) };
    let (mut world, job) = in_the_middle();
    world.give(1, Stimulus::Heard { session: ACCEPTED, message: Box::new(started(job)) });
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::ProviderLost);

    let (mut world, job) = in_the_middle();
    let message = SessionMessage::JobCancel { job };
    world.give(0, Stimulus::Heard { session: DIALLED, message: Box::new(message) });
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::ProviderLost);
}

#[test]
fn a_payment_before_the_vault_was_named_costs_the_session() {
    let mut world = World::new(vec![consumer(1), provider(2)]);
    world.run_for(Duration::from_secs(1));
    let peer = world.hosts[0].node();
    world.give(1, Stimulus::SessionAccepted { session: SessionId::accepted(77), peer });
    let message = SessionMessage::Payment { voucher: voucher([7; 64]), total: None };
    world.give(1, Stimulus::Heard { session: SessionId::accepted(77), message: Box::new(message) });
    // Nothing is understood in it any more.
    let before = world.facts.len();
    let message = request(1);
    world.give(1, Stimulus::Heard { session: SessionId::accepted(77), message: Box::new(message) });
    assert_eq!(world.facts.len(), before);
}

#[test]
fn text_of_a_job_that_was_not_taken_breaks_the_job() {
    let mut world = World::new(vec![consumer(1), provider(2)]);
    let job = world.submit(0, 1);
    let sent = |world: &World| {
        world.facts.iter().any(|(_, _, fact)| matches!(fact, Observation::PromptSent { .. }))
    };
    while !sent(&world) {
        assert!(world.step());
    }
    let chunk =
        SessionMessage::JobChunk { job, text: "injected".into(), completion: Tokens::new(1) };
    world.give(0, Stimulus::Heard { session: DIALLED, message: Box::new(chunk) });
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::Misbehaved);
    assert_eq!(world.held(1), NanoTon::ZERO);
}

#[test]
fn tokens_without_text_are_not_believed() {
    let (mut world, job) = in_the_middle();
    let completion = Tokens::new(100 + 256 + 64 + 200);
    let chunk = SessionMessage::JobChunk { job, text: "x".into(), completion };
    world.give(0, Stimulus::Heard { session: DIALLED, message: Box::new(chunk) });
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::Misbehaved);
}

#[test]
fn a_text_that_was_changed_on_the_way_breaks_the_receipt() {
    let (mut world, job) = in_the_middle();
    let count = |world: &World| {
        let exposed = world.facts.iter().filter_map(|(_, _, fact)| match fact {
            Observation::Exposed { .. } => Some(1),
            _ => None,
        });
        exposed.sum::<u32>()
    };
    // One token at a time, so this one has been sent before.
    let completion = Tokens::new(count(&world) + 1);
    let chunk = SessionMessage::JobChunk { job, text: "changed".into(), completion };
    world.give(0, Stimulus::Heard { session: DIALLED, message: Box::new(chunk) });
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::Misbehaved);
}

#[test]
fn the_same_job_twice_costs_the_session() {
    let (mut world, job) = in_the_middle();
    let SessionMessage::JobRequest(twice) = request(1) else { unreachable!() };
    assert_eq!(twice.job, job);
    let message = SessionMessage::JobRequest(twice);
    world.give(1, Stimulus::Heard { session: ACCEPTED, message: Box::new(message) });
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::ProviderLost);
}

#[test]
fn a_session_that_is_idle_for_a_quarter_of_an_hour_is_closed() {
    let mut world = World::new(vec![consumer(1), provider(2)]);
    world.submit(0, 1);
    assert!(world.finish());
    world.run_for(Duration::from_secs(800));
    assert_eq!(world.lines(), 2);
    world.run_for(Duration::from_secs(150));
    assert_eq!(world.lines(), 0);
    let job = world.submit(0, 2);
    assert!(world.finish());
    world.cost(job);
}

#[test]
fn a_newer_session_of_the_same_consumer_replaces_the_older() {
    let (mut world, job) = in_the_middle();
    let peer = world.hosts[0].node();
    world.give(1, Stimulus::SessionAccepted { session: SessionId::accepted(77), peer });
    assert!(world.finish());
    assert_eq!(world.failure(job), FailureKind::ProviderLost);
}

#[test]
fn strangers_sessions_and_stale_alarms_are_nothing() {
    let (mut world, job) = in_the_middle();
    let before = world.facts.len();
    for host in [0, 1] {
        for session in [SessionId::dialled(9), SessionId::accepted(9)] {
            let message = SessionMessage::JobCancel { job };
            world.give(host, Stimulus::Heard { session, message: Box::new(message) });
            world.give(host, Stimulus::SessionDown { session });
        }
        for alarm in [
            simnet_host::Alarm::Protocol(u32::MAX),
            simnet_host::Alarm::Engine(u32::MAX),
            simnet_host::Alarm::Store(u32::MAX),
            simnet_host::Alarm::Patience,
            simnet_host::Alarm::Idle,
        ] {
            world.give(host, Stimulus::Alarm(alarm));
        }
    }
    assert_eq!(world.facts.len(), before);
    assert!(world.finish());
    world.cost(job);
}

/// A disk that stands still fills the inbox; whoever goes on talking loses its session, and the
/// inbox never holds more than it may.
#[test]
fn a_flood_behind_a_slow_disk_costs_the_session() {
    let mut slow = provider(2);
    Arc::make_mut(&mut slow.store).commit = Duration::from_secs(30);
    let mut world = World::new(vec![consumer(1), slow]);
    let job = world.submit(0, 1);
    // The allocation that it has read is being committed.
    world.run_for(Duration::from_secs(5));
    let other = JobId::from_bytes([0xee; 32]);
    for _ in 0..3_000 {
        let message = SessionMessage::JobCancel { job: other };
        world.give(1, Stimulus::Heard { session: ACCEPTED, message: Box::new(message) });
    }
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.lines(), 0, "the session is over");
    let deepest = world.facts.iter().filter_map(|(_, _, fact)| match fact {
        Observation::Queued { queue: Queue::Inbox, depth, bound } => Some((*depth, *bound)),
        _ => None,
    });
    let (depth, bound) = deepest.max().unwrap();
    assert_eq!(depth, bound);
    assert!(world.finish());
    assert!(world.end(job).is_some());
}
