//! Two honest ends without a TEE: the flow, the frames, the end.
//!
//! Owns: what works. Must not: need the feature `dev-tee`.

use super::*;
use cocoon_protocol::attest::{EvidenceKind, Rules, Trust};
use cocoon_protocol::limits;

#[tokio::test]
async fn an_open_session_proves_the_peer_and_carries_frames_both_ways() {
    let world = World::open();
    let (near, far) = world.try_open(Tier::Open).await;
    let (near, far) = (near.unwrap(), far.unwrap());
    assert_eq!(far.peer(), consumer());

    let verdict = near.verdict();
    assert_eq!((verdict.peer, verdict.tier), (world.key.id(), Tier::Open));
    assert_eq!((verdict.kind, verdict.simulated), (EvidenceKind::None, false));
    assert_eq!((verdict.model_manifest, verdict.capabilities), (Some([5; 32]), [3; 32]));
    assert!(verdict.image.is_none() && verdict.measurements.is_none());
    assert_eq!(verdict.expires, verdict.attested_at.after(limits::REATTEST_AFTER));

    let echo = tokio::spawn(echo(far));
    let (mut sender, mut receiver) = near.split();
    for (size, seed) in [(0, 0), (1, 1), (5_000, 2), (limits::FRAME_BYTES, 3), (17, 4)] {
        sender.send(frame(size, seed)).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), frame(size, seed));
    }
    drop(sender);
    assert_eq!(receiver.recv().await, Ok(None));
    assert_eq!(echo.await.unwrap(), Ok(5));

    world.tasks.tracker.close();
    drop(receiver);
    world.tasks.tracker.wait().await;
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum() {
    let world = World::open();
    let (near, far) = duplex(64 * 1024);
    let identity = world.identity();
    let accepting = tokio::spawn(accept(far, identity, world.accept_options()));
    let tls = fake_consumer(near, world.key.id()).await;
    let group = tls.key_exchange();
    assert_eq!(group, Some(rustls::NamedGroup::X25519MLKEM768));
    accepting.abort();
}

#[tokio::test]
async fn an_evidence_tier_is_refused_to_a_provider_without_a_tee() {
    let world = World::open();
    assert_eq!(world.refusal(Tier::Attested).await, Refusal::EvidenceMissing);
    assert_eq!(world.refusal(Tier::Confidential).await, Refusal::EvidenceMissing);
}

#[tokio::test]
async fn a_policy_s_minimum_holds_against_a_request_for_less() {
    let policy = Policy::new(Trust::Production, Tier::Attested, Rules::default());
    let world = World { policy: policy.unwrap(), ..World::open() };
    assert_eq!(world.refusal(Tier::Open).await, Refusal::EvidenceMissing);
}

#[tokio::test]
async fn frames_queued_before_a_drop_arrive_and_then_the_goodbye() {
    let world = World::open();
    let (near, far) = world.try_open(Tier::Open).await;
    let (mut sender, receiver) = near.unwrap().split();
    for seed in 0..20 {
        sender.send(frame(30_000, seed)).await.unwrap();
    }
    drop((sender, receiver));
    let (_, mut receiver) = far.unwrap().split();
    for seed in 0..20 {
        assert_eq!(receiver.recv().await.unwrap().unwrap(), frame(30_000, seed));
    }
    assert_eq!(receiver.recv().await, Ok(None));
}

#[tokio::test]
async fn flush_waits_until_the_stream_below_has_everything() {
    let world = World::open();
    let (near, far) = world.try_open(Tier::Open).await;
    let (mut sender, _receiver) = near.unwrap().split();
    let (_sender, mut incoming) = far.unwrap().split();
    sender.send(frame(1_000, 1)).await.unwrap();
    sender.flush().await.unwrap();
    assert_eq!(incoming.recv().await.unwrap().unwrap(), frame(1_000, 1));
}

#[tokio::test]
async fn a_frame_above_the_bound_is_the_caller_s_error() {
    let world = World::open();
    let (near, _far) = world.try_open(Tier::Open).await;
    let (mut sender, _receiver) = near.unwrap().split();
    let long = Bytes::from(vec![0; limits::FRAME_BYTES + 1]);
    assert_eq!(sender.send(long).await, Err(ChannelError::FrameTooLong));
    assert_eq!(sender.send(Bytes::new()).await, Ok(()));
}

#[tokio::test]
async fn a_receiver_that_does_not_take_frames_holds_the_sender_up() {
    let world = World::open();
    let (near, far) = world.try_open(Tier::Open).await;
    let (mut sender, _receiver) = near.unwrap().split();
    let (_sender, mut incoming) = far.unwrap().split();
    let sending = tokio::spawn(async move {
        for seed in 0..8 {
            sender.send(frame(limits::FRAME_BYTES, seed)).await.unwrap();
        }
        sender
    });
    // One in the receiver's inbox, one on the way, one in the sender's queue: not eight.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(!sending.is_finished());
    for seed in 0..8 {
        assert_eq!(incoming.recv().await.unwrap().unwrap(), frame(limits::FRAME_BYTES, seed));
    }
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn shutdown_ends_every_task() {
    let world = World::open();
    let (near, far) = world.try_open(Tier::Open).await;
    let (mut sender, mut receiver) = near.unwrap().split();
    let far = far.unwrap();
    world.tasks.cancel.cancel();
    world.tasks.tracker.close();
    world.tasks.tracker.wait().await;
    assert_eq!(receiver.recv().await, Err(ChannelError::Closed));
    assert_eq!(sender.send(Bytes::new()).await, Err(ChannelError::Closed));
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_re_attested_while_frames_flow() {
    let world = World::open();
    let (near, far) = world.try_open(Tier::Open).await;
    let echo = tokio::spawn(echo(far.unwrap()));
    let (mut sender, mut receiver) = near.unwrap().split();
    let first = sender.verdict().unwrap();
    // An hour of a frame every seven seconds; without new evidence it ends after ten minutes.
    for round in 0..515_u32 {
        let payload = frame(2_000, u8::try_from(round % 256).unwrap());
        sender.send(payload.clone()).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), payload);
        tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    }
    let last = sender.verdict().unwrap();
    assert!(last.attested_at.since(first.attested_at) > Millis::from_secs(3000));
    drop(sender);
    assert_eq!(receiver.recv().await, Ok(None));
    assert_eq!(echo.await.unwrap(), Ok(515));
}

#[tokio::test]
async fn nothing_is_sent_on_the_strength_of_an_old_verdict() {
    let world = World::open();
    let (near, _far) = world.try_open(Tier::Open).await;
    let (mut sender, _receiver) = near.unwrap().split();
    world.consumer_clock.skip(limits::REATTEST_AFTER);
    let refused = Err(ChannelError::Refused(Refusal::TimedOut));
    assert_eq!(sender.send(Bytes::new()).await, refused);
}

#[tokio::test]
async fn a_certificate_serves_many_sessions_and_is_replaced_before_it_ends() {
    let world = World::open();
    let identity = world.identity();
    let first = identity.current().await.unwrap();
    assert!(Arc::ptr_eq(&first, &identity.current().await.unwrap()));
    world.provider_clock.skip(Millis::from_secs(5 * 3600));
    let second = identity.current().await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    // A clock that was set back makes the present one invalid for everybody else.
    world.provider_clock.skip(Millis::new(u64::MAX - 7200 * 1000 + 1));
    assert!(!Arc::ptr_eq(&second, &identity.current().await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_its_certificate() {
    let world = World::open();
    let (near, _far) = world.try_open(Tier::Open).await;
    let begin = world.consumer_clock.clock.now();
    let (_sender, mut receiver) = near.unwrap().split();
    // Re-attested every ten minutes all the while, and then no more.
    let ended = ChannelError::Refused(Refusal::CertificateExpired);
    assert_eq!(receiver.recv().await, Err(ended));
    let lasted = world.consumer_clock.clock.now().since(begin);
    assert!(lasted > Millis::from_secs(5 * 3600) && lasted < Millis::from_secs(7 * 3600));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_never_made_holds_up_no_session() {
    let (tee, mut began, go_on) = Slow::new();
    let world = World { attester: Arc::new(tee), ..World::open() };
    let (_near, far) = duplex(64 * 1024);
    let accepting = tokio::spawn(accept(far, world.identity(), world.accept_options()));
    began.recv().await.unwrap();
    tokio::time::advance(cocoon_protocol::limits::ATTEST_TIMEOUT.to_duration()).await;
    let timed_out = ChannelError::Quote(QuoteError::TimedOut);
    assert_eq!(accepting.await.unwrap().unwrap_err(), timed_out);
    drop(go_on);
}
