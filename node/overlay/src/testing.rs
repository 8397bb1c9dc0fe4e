//! What several tests of this crate need: signed offers and nodes on an in-memory network.
//!
//! Owns: fixtures. Must not: assert anything.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test waits for one event among many")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{ModelHash, NodeId, NodeKey, TonAddress};
use cocoon_protocol::offer::{Load, ModelOffer, Offer, SignedOffer};
use cocoon_protocol::units::{Millis, PricePerMillion, Prices, Timestamp, Tokens};
use futures::StreamExt as _;
use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::MemoryTransport;
use libp2p::core::upgrade::Version;
use libp2p::{Multiaddr, noise, yamux};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::{Command, Config, Event, Overlay, Role, Status, Transport, Want, keypair};

/// When every test begins.
pub(crate) const START: Timestamp = Timestamp::from_unix_secs(1_800_000_000);
/// A wait that only a broken test reaches.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn model(byte: u8) -> ModelHash {
    ModelHash::from_bytes([byte; 32])
}

/// Providers of a model in any tier.
pub(crate) fn want(byte: u8) -> Want {
    Want { model: model(byte), minimum_tier: Tier::Open }
}

pub(crate) fn key(secret: u8) -> NodeKey {
    NodeKey::from_secret(&[secret; 32])
}

/// An offer of `models` by `key` in tier open, made at `issued` and valid for five minutes.
pub(crate) fn offer(
    key: &NodeKey,
    sequence: u64,
    models: &[ModelHash],
    issued: Timestamp,
) -> SignedOffer {
    offer_in(Tier::Open, key, sequence, models, issued)
}

/// The same in any tier.
pub(crate) fn offer_in(
    tier: Tier,
    key: &NodeKey,
    sequence: u64,
    models: &[ModelHash],
    issued: Timestamp,
) -> SignedOffer {
    let model = |model: &ModelHash| ModelOffer {
        model: *model,
        name: "test".to_owned(),
        quantisation: "Q4_1".to_owned(),
        context: Tokens::new(4_096),
        prices: Prices { prompt: PricePerMillion::FREE, completion: PricePerMillion::FREE },
    };
    let offer = Offer {
        provider: key.id(),
        sequence,
        issued,
        expires: issued.after(Millis::from_secs(300)),
        network: -7_337,
        models: models.iter().map(model).collect(),
        tier,
        evidence_digest: (tier > Tier::Open).then_some([7; 32]),
        payout: TonAddress { workchain: 0, hash: [1; 32] },
        load: Load::Idle,
        region: String::new(),
        engine: String::new(),
    };
    offer.sign(key)
}

/// An in-process transport with the encryption and multiplexing of TCP.
pub(crate) fn memory(key: &NodeKey) -> Transport {
    let keypair = keypair(key).unwrap();
    MemoryTransport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&keypair).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}

/// A wall clock that a test moves.
#[derive(Clone, Debug)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START.as_unix_millis())))
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.0.load(Ordering::SeqCst))
    }
}

type Work = Box<dyn FnOnce(&mut Overlay) + Send>;

/// An overlay that runs as a task and listens in memory. Dropping it kills it like a power cut.
pub(crate) struct TestNode {
    pub(crate) key: NodeKey,
    pub(crate) address: Multiaddr,
    pub(crate) clock: Clock,
    work: mpsc::Sender<Work>,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestNode {
    pub(crate) async fn start(secret: u8, role: Role) -> Self {
        let key = key(secret);
        let clock = Clock::new();
        let wall = clock.clone();
        let mut config = Config::new(key.clone(), role, [secret; 32], move || wall.now());
        config.notice_check = Box::new(|_, notice| match notice.first() {
            Some(b'!') => crate::NoticeVerdict::Accept,
            _ => crate::NoticeVerdict::Reject,
        });
        let spawn = |connection| drop(tokio::spawn(connection));
        let overlay = Overlay::new(config, memory(&key), spawn).unwrap();
        let (work, inbox) = mpsc::channel(64);
        let (outbox, events) = mpsc::channel(1_024);
        let task = tokio::spawn(run(overlay, inbox, outbox));
        let mut node = Self { key, address: Multiaddr::empty(), clock, work, events, task };
        node.tell(Command::Listen("/memory/0".parse().unwrap())).await;
        node.address = node
            .wait(|event| match event {
                Event::Listening { address, .. } => Some(address),
                _ => None,
            })
            .await;
        node
    }

    pub(crate) fn id(&self) -> NodeId {
        self.key.id()
    }

    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Overlay) -> T + Send + 'static,
    ) -> T {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |overlay| {
            let _ = answer.send(question(overlay));
        });
        self.work.send(work).await.ok().unwrap();
        answered.await.unwrap()
    }

    pub(crate) async fn tell(&self, command: Command) {
        self.ask(|overlay| overlay.handle(command)).await;
    }

    pub(crate) async fn status(&self) -> Status {
        self.ask(Overlay::status).await
    }

    pub(crate) async fn join(&self, entry: &Self) {
        self.tell(Command::Dial(entry.address.clone())).await;
    }

    pub(crate) async fn publish(&self, sequence: u64, models: &[ModelHash]) {
        let offer = offer(&self.key, sequence, models, self.clock.now());
        self.tell(Command::PublishOffer(offer)).await;
    }

    /// The first event that `pick` picks; others are dropped.
    pub(crate) async fn wait<T>(&mut self, pick: impl Fn(Event) -> Option<T>) -> T {
        let picked = async {
            loop {
                if let Some(picked) = pick(self.events.recv().await.unwrap()) {
                    return picked;
                }
            }
        };
        tokio::time::timeout(PATIENCE, picked).await.expect("the event came")
    }

    /// Waits until the status is as `expected`.
    pub(crate) async fn until(&self, expected: impl Fn(&Status) -> bool) -> Status {
        let reached = async {
            loop {
                let status = self.status().await;
                if expected(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("the status was reached")
    }

    pub(crate) async fn next_offer(&mut self) -> (NodeId, u64) {
        self.wait(|event| match event {
            Event::Offer(offer) => Some((offer.offer().provider, offer.offer().sequence)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn next_gone(&mut self) -> NodeId {
        self.wait(|event| match event {
            Event::OfferGone(node) => Some(node),
            _ => None,
        })
        .await
    }
}

async fn run(mut overlay: Overlay, mut inbox: mpsc::Receiver<Work>, outbox: mpsc::Sender<Event>) {
    loop {
        tokio::select! {
            work = inbox.recv() => match work {
                Some(work) => work(&mut overlay),
                None => return,
            },
            event = overlay.next() => {
                if let Some(event) = event {
                    outbox.try_send(event).expect("the test takes its events");
                }
            }
        }
    }
}
