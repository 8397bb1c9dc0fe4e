//! Whole overlays on an in-memory network: finding, pushing, losing, and hostile peers.
//!
//! Owns: what only several nodes together can show. Must not: measure time.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test waits for one event among many")]

use cocoon_protocol::attest::Tier;
use cocoon_protocol::limits::CONTROL_FRAME_BYTES;
use cocoon_protocol::units::Millis;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::swarm::SwarmEvent;
use libp2p::{PeerId, Swarm};
use tokio::task::JoinHandle;

use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::streams::{self, PeerStream, Protocol};
use crate::testing::{START, TestNode, key, memory, model, offer, offer_in, want};
use crate::{
    Anchor, Command, Config, Event, LinkEnd, Refusal, Role, Topic, Want, address, keypair, limits,
};

#[tokio::test]
async fn a_fresh_consumer_finds_an_offer_through_an_entry_point() {
    let entry = TestNode::start(1, Role::Relay).await;
    let provider = TestNode::start(2, Role::Provider).await;
    // Published before the network is known: it reaches the index as soon as there is one.
    provider.publish(7, &[model(1)]).await;
    provider.join(&entry).await;
    entry.until(|status| status.index_records == 1).await;

    let mut consumer = TestNode::start(3, Role::Consumer).await;
    consumer.tell(Command::Want(want(1))).await;
    consumer.join(&entry).await;
    assert_eq!(consumer.next_offer().await, (provider.id(), 7));
    let status = consumer.status().await;
    assert_eq!(status.warm, [(want(1), 1)]);
    assert_eq!(status.index_records, 0, "a consumer stores nothing for others");
    let anchors: Vec<_> = status.anchors.iter().map(|anchor| anchor.node).collect();
    assert!(anchors.contains(&provider.id()), "worth remembering: {anchors:?}");
    assert_eq!(provider.status().await.subscribers, 1);
    let view = consumer.ask(|overlay| overlay.view()).await;
    let [table] = view.tables[..] else { panic!("one is wanted: {view:?}") };
    assert_eq!((table.want, table.warm, table.on_the_way), (want(1), 1, 0));
    let [known] = view.providers[..] else { panic!("one is known: {view:?}") };
    assert_eq!((known.node, known.warm, known.tables), (provider.id(), true, 1));
    assert!(view.connections.iter().any(|(peer, _)| *peer == provider.id()), "{view:?}");
    assert!(!view.serves_index);
}

#[tokio::test]
async fn who_must_have_a_tee_is_named_nobody_else() {
    let entry = TestNode::start(1, Role::Relay).await;
    let (open, attested) =
        (TestNode::start(2, Role::Provider).await, TestNode::start(3, Role::Provider).await);
    open.join(&entry).await;
    open.publish(1, &[model(1)]).await;
    attested.join(&entry).await;
    let offer = offer_in(Tier::Attested, &attested.key, 1, &[model(1)], attested.clock.now());
    attested.tell(Command::PublishOffer(offer)).await;
    // The open one's key, and two of the attested one, who serves both.
    entry.until(|status| status.index_records == 3).await;

    let mut consumer = TestNode::start(4, Role::Consumer).await;
    let safe = Want { minimum_tier: Tier::Attested, ..want(1) };
    consumer.tell(Command::Want(safe)).await;
    consumer.join(&entry).await;
    assert_eq!(consumer.next_offer().await.0, attested.id());
    consumer.tell(Command::Want(want(1))).await;
    assert_eq!(consumer.next_offer().await.0, open.id());
    consumer.until(|status| status.warm == [(want(1), 2), (safe, 1)]).await;
}

#[tokio::test]
async fn an_offer_is_found_across_a_chain_of_nodes() {
    let mut nodes = Vec::new();
    for secret in 1..=5 {
        let node = TestNode::start(secret, Role::Relay).await;
        if let Some(last) = nodes.last() {
            node.join(last).await;
            node.until(|status| status.index_peers > 0).await;
        }
        nodes.push(node);
    }
    let provider = TestNode::start(10, Role::Provider).await;
    provider.join(&nodes[0]).await;
    provider.publish(1, &[model(1)]).await;
    let mut consumer = TestNode::start(11, Role::Consumer).await;
    consumer.join(&nodes[4]).await;
    consumer.tell(Command::Want(want(1))).await;
    assert_eq!(consumer.next_offer().await.0, provider.id());
}

#[tokio::test]
async fn a_change_is_pushed_and_the_end_is_told() {
    let mut provider = TestNode::start(1, Role::Provider).await;
    let mut consumer = TestNode::start(2, Role::Consumer).await;
    provider.publish(1, &[model(1)]).await;
    consumer.join(&provider).await;
    consumer.tell(Command::Want(want(1))).await;
    assert_eq!(consumer.next_offer().await, (provider.id(), 1));
    provider.publish(2, &[model(1), model(2)]).await;
    assert_eq!(consumer.next_offer().await, (provider.id(), 2));
    provider.tell(Command::WithdrawOffer).await;
    assert_eq!(consumer.next_gone().await, provider.id());
    // The connection is still there: withdrawing an offer is no goodbye.
    assert_eq!(provider.status().await.peers, 1);
    assert!(!provider.status().await.offering);
    provider.wait(|event| matches!(event, Event::PeerConnected(_)).then_some(())).await;
}

#[tokio::test]
async fn a_dead_provider_is_noticed_and_the_living_one_stays() {
    let entry = TestNode::start(1, Role::Relay).await;
    let doomed = TestNode::start(2, Role::Provider).await;
    let living = TestNode::start(3, Role::Provider).await;
    for provider in [&doomed, &living] {
        provider.join(&entry).await;
        provider.publish(1, &[model(1)]).await;
    }
    let mut consumer = TestNode::start(4, Role::Consumer).await;
    consumer.join(&entry).await;
    consumer.tell(Command::Want(want(1))).await;
    consumer.until(|status| status.warm == [(want(1), 2)]).await;
    let dead = doomed.id();
    drop(doomed);
    assert_eq!(consumer.next_gone().await, dead);
    assert_eq!(consumer.status().await.warm, [(want(1), 1)]);
}

#[tokio::test]
async fn a_remembered_peer_of_the_index_is_as_good_as_an_entry_point() {
    let old = TestNode::start(1, Role::Relay).await;
    let mut node = TestNode::start(2, Role::Relay).await;
    let peer = address::peer_id(&old.id()).unwrap();
    let anchor =
        Anchor { node: old.id(), addresses: vec![old.address.clone().with_p2p(peer).unwrap()] };
    node.tell(Command::Remember(vec![anchor])).await;
    node.until(|status| status.index_peers == 1).await;
    node.tell(Command::Want(want(1))).await;
    let id = old.id();
    node.wait(|event| matches!(event, Event::PeerConnected(it) if it == id).then_some(())).await;
}

#[tokio::test]
async fn a_provider_that_comes_back_at_another_address_is_found_again() {
    let entry = TestNode::start(1, Role::Relay).await;
    let provider = TestNode::start(2, Role::Provider).await;
    provider.join(&entry).await;
    provider.publish(1, &[model(1)]).await;
    let mut consumer = TestNode::start(3, Role::Consumer).await;
    consumer.join(&entry).await;
    consumer.tell(Command::Want(want(1))).await;
    assert_eq!(consumer.next_offer().await, (provider.id(), 1));
    let id = provider.id();
    drop(provider);
    assert_eq!(consumer.next_gone().await, id);

    let restarted = TestNode::start(2, Role::Provider).await;
    restarted.join(&entry).await;
    restarted.publish(2, &[model(1)]).await;
    assert_eq!(consumer.next_offer().await, (id, 2));
    let peer = address::peer_id(&id).unwrap();
    let key = crate::index::key(&want(1), 0);
    let kept = entry
        .ask(move |overlay| overlay.swarm.behaviour_mut().kad.store_mut().addresses(&key, &peer));
    assert_eq!(kept.await, std::slice::from_ref(&restarted.address), "the old one is forgotten");
}

#[tokio::test]
async fn a_model_that_is_no_longer_wanted_lets_its_providers_go() {
    let provider = TestNode::start(1, Role::Provider).await;
    let mut consumer = TestNode::start(2, Role::Consumer).await;
    provider.publish(1, &[model(1), model(2)]).await;
    consumer.join(&provider).await;
    consumer.tell(Command::Want(want(1))).await;
    consumer.tell(Command::Want(want(2))).await;
    consumer.until(|status| status.warm == [(want(1), 1), (want(2), 1)]).await;
    consumer.tell(Command::Unwant(want(1))).await;
    assert_eq!(consumer.status().await.warm, [(want(2), 1)]);
    consumer.tell(Command::Unwant(want(2))).await;
    assert_eq!(consumer.next_gone().await, provider.id());
    provider.until(|status| status.subscribers == 0).await;
}

#[tokio::test]
async fn an_entry_point_that_is_connected_already_counts_as_such() {
    let node = TestNode::start(1, Role::Relay).await;
    let other = TestNode::start(2, Role::Relay).await;
    node.join(&other).await;
    node.until(|status| status.entry_points == (1, 1)).await;
    let peer = address::peer_id(&other.id()).unwrap();
    let named = other.address.clone().with_p2p(peer).unwrap();
    node.tell(Command::Dial(named)).await;
    assert_eq!(node.status().await.entry_points, (2, 2));
    assert_eq!(node.status().await.peers, 1);
}

#[tokio::test]
async fn a_burst_of_streams_is_answered_stream_by_stream() {
    let provider = TestNode::start(1, Role::Provider).await;
    let mut consumer = TestNode::start(2, Role::Consumer).await;
    consumer.join(&provider).await;
    provider.until(|status| status.peers == 1).await;
    let id = provider.id();
    let burst = limits::OPEN_REQUESTS_PER_PEER;
    for _ in 0..burst {
        consumer.ask(move |overlay| overlay.open_session(&id)).await.unwrap();
    }
    let (mut accepted, mut busy) = (Vec::new(), 0);
    for _ in 0..burst {
        let mut stream = consumer
            .wait(|event| match event {
                Event::SessionOpened { stream, .. } => Some(stream),
                Event::SessionFailed { error, .. } => panic!("{error}"),
                _ => None,
            })
            .await;
        match stream.accepted().await {
            Ok(()) => accepted.push(stream),
            Err(Refusal::Busy) => busy += 1,
            // More than VERDICTS_IN_FLIGHT at once are reset instead.
            Err(Refusal::Ended | Refusal::NotAVerdict) => panic!("unexplained"),
        }
    }
    assert_eq!(accepted.len(), limits::SESSION_STREAMS_PER_PEER);
    assert_eq!(accepted.len() + busy, burst);
}

#[tokio::test]
async fn notices_are_checked_before_they_are_passed_on() {
    let middle = TestNode::start(1, Role::Relay).await;
    let source = TestNode::start(2, Role::Relay).await;
    let mut sink = TestNode::start(3, Role::Relay).await;
    source.join(&middle).await;
    sink.join(&middle).await;
    middle.until(|status| status.peers == 2).await;
    // Until the mesh has formed a notice reaches nobody; gossip has no answer to wait for.
    let heard = loop {
        source.tell(Command::PublishNotice(Topic::Catalogue, b"!new".to_vec())).await;
        source.tell(Command::PublishNotice(Topic::Catalogue, b"bad".to_vec())).await;
        let next = sink.wait(|event| match event {
            Event::Notice(topic, notice) => Some((topic, notice)),
            _ => None,
        });
        match tokio::time::timeout(std::time::Duration::from_millis(200), next).await {
            Ok(heard) => break heard,
            Err(_) => continue,
        }
    };
    assert_eq!(heard, (Topic::Catalogue, b"!new".to_vec()));
}

/// A peer that speaks every protocol of ours but obeys none of our rules: it offers `model(1)` in
/// the index and sends `frames` to whoever opens a control stream.
fn hostile_provider(secret: u8, entry: &TestNode, frames: Vec<u8>) -> (PeerId, JoinHandle<()>) {
    let mut swarm = hostile(secret, entry);
    let peer = *swarm.local_peer_id();
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => {
                    let key = crate::index::key(&want(1), 0);
                    swarm.behaviour_mut().kad.start_providing(key).unwrap();
                }
                SwarmEvent::Behaviour(BehaviourEvent::Identify(
                    libp2p::identify::Event::Received { peer_id, info, .. },
                )) => {
                    for address in info.listen_addrs {
                        swarm.behaviour_mut().kad.add_address(&peer_id, address);
                    }
                    let key = crate::index::key(&want(1), 0);
                    swarm.behaviour_mut().kad.start_providing(key).unwrap();
                }
                SwarmEvent::Behaviour(BehaviourEvent::Streams(streams::Event::Inbound {
                    mut stream,
                    ..
                })) => {
                    stream.write_all(&frames).await.unwrap();
                    stream.flush().await.unwrap();
                    held.push(stream);
                }
                _ => {}
            }
        }
    });
    (peer, task)
}

fn hostile(secret: u8, entry: &TestNode) -> Swarm<Behaviour> {
    let key = key(secret);
    let config = Config::new(key.clone(), Role::Provider, [secret; 32], || START);
    let keypair = keypair(&key).unwrap();
    let behaviour = Behaviour::new(&config, &keypair).unwrap();
    let peer = keypair.public().to_peer_id();
    let settings = libp2p::swarm::Config::with_executor(|it| drop(tokio::spawn(it)));
    let mut swarm = Swarm::new(memory(&key), behaviour, peer, settings);
    swarm.listen_on("/memory/0".parse().unwrap()).unwrap();
    swarm.dial(entry.address.clone()).unwrap();
    swarm
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len() + 1).unwrap().to_be_bytes().to_vec();
    frame.push(kind);
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test]
async fn offers_that_are_not_the_peers_own_current_ones_never_leave_the_overlay() {
    let own = |sequence, issued| offer(&key(20), sequence, &[model(1)], issued);
    let long_ago = cocoon_protocol::units::Timestamp::from_unix_millis(
        START.as_unix_millis() - Millis::from_secs(3_600).get(),
    );
    let mut forged = own(1, START).as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let foreign = offer(&key(21), 1, &[model(1)], START);
    let cases = [
        (frame(2, own(1, long_ago).as_bytes()), LinkEnd::InvalidOffer),
        (frame(2, &forged), LinkEnd::InvalidOffer),
        (frame(2, b"no offer at all"), LinkEnd::InvalidOffer),
        (frame(2, foreign.as_bytes()), LinkEnd::ForeignOffer),
        (frame(2, &vec![0; CONTROL_FRAME_BYTES]), LinkEnd::FrameTooLarge),
        (frame(9, &[]), LinkEnd::Malformed),
        (frame(3, &[]).repeat(100), LinkEnd::TooFast),
    ];
    for (frames, expected) in cases {
        let entry = TestNode::start(1, Role::Relay).await;
        let mut consumer = TestNode::start(2, Role::Consumer).await;
        let (_, hostile) = hostile_provider(20, &entry, frames);
        entry.until(|status| status.index_records == 1).await;
        consumer.join(&entry).await;
        consumer.tell(Command::Want(want(1))).await;
        let refused = crate::Refused::Control(expected);
        consumer.until(|status| status.refused.contains_key(&refused)).await;
        hostile.abort();
        // The consumer is unharmed, and the first offer that it lets out is the honest one.
        let honest = TestNode::start(3, Role::Provider).await;
        honest.publish(5, &[model(1)]).await;
        honest.join(&entry).await;
        assert_eq!(consumer.next_offer().await, (honest.id(), 5), "{expected:?}");
    }
}

/// Opens a stream of `protocol` to `victim` from a peer that is not a node.
async fn raw_stream(
    swarm: &mut Swarm<Behaviour>,
    victim: PeerId,
    protocol: Protocol,
) -> PeerStream {
    swarm.behaviour_mut().streams.open(victim, protocol);
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Streams(streams::Event::Opened {
                stream,
                ..
            })) => return stream,
            SwarmEvent::Behaviour(BehaviourEvent::Streams(streams::Event::Failed {
                error,
                ..
            })) => panic!("{error}"),
            _ => {}
        }
    }
}

async fn connected(swarm: &mut Swarm<Behaviour>) -> PeerId {
    loop {
        if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await {
            return peer_id;
        }
    }
}

#[tokio::test]
async fn random_bytes_on_every_protocol_hurt_nobody() {
    let mut victim = TestNode::start(1, Role::Provider).await;
    victim.publish(1, &[model(1)]).await;
    let mut swarm = hostile(2, &victim);
    let peer = connected(&mut swarm).await;
    assert_eq!(address::node_id(&peer), Some(victim.id()));
    let noise: Vec<u8> =
        (0..10_000u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();

    let mut control = raw_stream(&mut swarm, peer, Protocol::Control).await;
    let mut session = raw_stream(&mut swarm, peer, Protocol::Session).await;
    let driver = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    // Either may be cut off at any point; what matters is that the victim lives.
    let _ = control.write_all(&noise).await;
    let _ = control.flush().await;
    let _ = session.write_all(&noise).await;
    let _ = session.flush().await;
    let ended = control.read(&mut [0; 1]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "the control stream is closed");
    let mut taken = victim
        .wait(|event| match event {
            Event::InboundSession { stream, .. } => Some(stream),
            _ => None,
        })
        .await;
    let mut through = vec![0; noise.len()];
    taken.read_exact(&mut through).await.unwrap();
    assert_eq!(through, noise, "session streams carry bytes unread");
    let status = victim.status().await;
    assert!(status.refused.contains_key(&crate::Refused::Control(LinkEnd::FrameTooLarge)));
    driver.abort();
    let mut consumer = TestNode::start(3, Role::Consumer).await;
    consumer.join(&victim).await;
    consumer.tell(Command::Want(want(1))).await;
    assert_eq!(consumer.next_offer().await.0, victim.id());
}

#[tokio::test]
async fn a_third_control_stream_is_told_busy() {
    let victim = TestNode::start(1, Role::Provider).await;
    let mut swarm = hostile(2, &victim);
    let peer = connected(&mut swarm).await;
    let mut held = Vec::new();
    for _ in 0..=limits::CONTROL_STREAMS_PER_PEER {
        held.push(raw_stream(&mut swarm, peer, Protocol::Control).await);
    }
    let driver = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let mut verdicts = Vec::new();
    for stream in &mut held {
        verdicts.push(stream.accepted().await);
    }
    let busy = verdicts.iter().filter(|verdict| **verdict == Err(Refusal::Busy)).count();
    assert_eq!((busy, verdicts.iter().filter(|verdict| verdict.is_ok()).count()), (1, 2));
    drop(held);
    driver.abort();
}
