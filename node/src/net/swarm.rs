//! The overlay on tokio: QUIC and TCP transports, and one task that drives the overlay.
//!
//! Owns: the transports' settings, the task, and the handle through which the node talks to it.
//! Must not: decide anything about peers, offers or jobs.
//! Back-pressure: while the node does not take events, the overlay is not polled and its peers
//! wait; commands are still taken. So never wait for an answer of [`NetHandle`] in the task that
//! takes the events.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use cocoon_overlay::{
    Command, Config, Event, Multiaddr, OpenError, Overlay, PeerStream, RequestId, StartError,
    Status, Topic, Transport, Want,
};
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::offer::{SignedOffer, VerifiedOffer};
use futures::StreamExt as _;
use futures::future::Either;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Transport as _, dns, noise, quic, tcp, yamux};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Commands that may wait for the task. When full, callers wait in turn.
const COMMANDS: usize = 256;
/// Events that may wait for the node. When full, the overlay stands still until some are taken.
const EVENTS: usize = 1_024;
/// Streams of one peer on one QUIC connection. The default, 256, breaks bursts: the excess dies
/// with an unrelated error. Ours are capped far below by quotas that answer BUSY.
const QUIC_STREAMS: u32 = 4_096;

/// A stream to a peer, for tokio.
pub type SessionStream = Compat<PeerStream>;

/// What the node hears from the network.
#[derive(Debug)]
pub enum NetEvent {
    /// Connections are accepted at this address.
    Listening(Multiaddr),
    /// A first connection with the node exists.
    PeerConnected(NodeId),
    /// The last connection with the node ended.
    PeerDisconnected(NodeId),
    /// A provider's current offer, verified, from the provider itself.
    Offer(Arc<VerifiedOffer>),
    /// The provider's offer is no longer kept current.
    OfferGone(NodeId),
    /// A peer opened a session stream.
    InboundSession {
        /// Who.
        peer: NodeId,
        /// The stream; dropping it resets it.
        stream: SessionStream,
    },
    /// A gossiped notice that the node's check accepted.
    Notice(Topic, Vec<u8>),
}

/// Why the network did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The task has ended, because the node shuts down.
    #[error("the network is shut down")]
    Stopped,
    /// The address cannot be listened on.
    #[error("cannot listen")]
    Listen(#[source] cocoon_overlay::ListenError),
    /// The stream could not be opened.
    #[error("cannot open a stream to the peer")]
    Open(#[source] OpenError),
}

/// The network at a glance.
pub type NetStatus = Status;

enum Request {
    Tell(Command),
    Listen(Multiaddr, oneshot::Sender<Result<Multiaddr, NetError>>),
    OpenSession(NodeId, oneshot::Sender<Result<SessionStream, NetError>>),
    Status(oneshot::Sender<NetStatus>),
}

/// Talks to the network task. Cheap to clone; every method may be called from any task but the one
/// that takes the events.
#[derive(Clone, Debug)]
pub struct NetHandle {
    node: NodeId,
    requests: mpsc::Sender<Request>,
}

impl NetHandle {
    /// This node.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Listens at `address`; the answer has the port that port 0 became. An unspecified host
    /// listens on every interface, of which the first is answered.
    pub async fn listen(&self, address: Multiaddr) -> Result<Multiaddr, NetError> {
        self.ask(|answer| Request::Listen(address, answer)).await?
    }

    /// Joins through an entry point, and dials it again whenever it is lost.
    pub async fn dial(&self, address: Multiaddr) -> Result<(), NetError> {
        self.tell(Command::Dial(address)).await
    }

    /// Offers this from now on; it must be this node's and valid. Send the next before it expires.
    pub async fn publish_offer(&self, offer: SignedOffer) -> Result<(), NetError> {
        self.tell(Command::PublishOffer(offer)).await
    }

    /// Offers nothing any more and tells all subscribers: the first step of draining.
    pub async fn withdraw_offer(&self) -> Result<(), NetError> {
        self.tell(Command::WithdrawOffer).await
    }

    /// Keeps a warm table of such providers; their offers come as events.
    pub async fn want(&self, want: Want) -> Result<(), NetError> {
        self.tell(Command::Want(want)).await
    }

    /// Ends that warm table.
    pub async fn unwant(&self, want: Want) -> Result<(), NetError> {
        self.tell(Command::Unwant(want)).await
    }

    /// Lets a provider go that is not what its offer says, and looks for others.
    pub async fn avoid(&self, peer: NodeId) -> Result<(), NetError> {
        self.tell(Command::Avoid(peer)).await
    }

    /// Gossips a notice; it must pass this node's own check.
    pub async fn publish_notice(&self, topic: Topic, notice: Vec<u8>) -> Result<(), NetError> {
        self.tell(Command::PublishNotice(topic, notice)).await
    }

    /// Opens a session stream to `node`, which is dialled when it is not connected, within ten
    /// seconds. Whether the peer takes the stream shows with the first read: see
    /// [`cocoon_overlay::Refusal::of`]. Dropping the future gives the stream up.
    pub async fn open_session(&self, node: NodeId) -> Result<SessionStream, NetError> {
        self.ask(|answer| Request::OpenSession(node, answer)).await?
    }

    /// The network at a glance.
    pub async fn status(&self) -> Result<NetStatus, NetError> {
        self.ask(Request::Status).await
    }

    async fn tell(&self, command: Command) -> Result<(), NetError> {
        self.requests.send(Request::Tell(command)).await.map_err(|_| NetError::Stopped)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, NetError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| NetError::Stopped)?;
        answered.await.map_err(|_| NetError::Stopped)
    }
}

/// A network ready to run: spawn or await `run`, keep `handle`, take `events`.
pub struct Net {
    handle: NetHandle,
    events: mpsc::Receiver<NetEvent>,
    task: Task,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("node", &self.handle.node).finish_non_exhaustive()
    }
}

impl Net {
    /// A network over QUIC and TCP. Nothing happens before it runs. Call it within a tokio runtime.
    pub fn new(config: Config) -> Result<Self, StartError> {
        let transport = transport(&cocoon_overlay::keypair(&config.key)?)?;
        let connections = TaskTracker::new();
        let stop = CancellationToken::new();
        let (tracker, token) = (connections.clone(), stop.clone());
        let spawn = move |connection: Pin<Box<dyn Future<Output = ()> + Send>>| {
            let token = token.clone();
            tracker.spawn(async move {
                token.run_until_cancelled_owned(connection).await;
            });
        };
        let overlay = Overlay::new(config, transport, spawn)?;
        let (requests, inbox) = mpsc::channel(COMMANDS);
        let (outbox, events) = mpsc::channel(EVENTS);
        let handle = NetHandle { node: overlay.node(), requests };
        let task = Task {
            overlay,
            inbox,
            outbox,
            undelivered: None,
            listening: BTreeMap::new(),
            opening: BTreeMap::new(),
            connections,
            stop,
        };
        Ok(Self { handle, events, task })
    }

    /// The handle, the events, and the work itself, to be spawned and awaited by the caller. The
    /// work ends when `shutdown` is cancelled, after every connection's task has ended.
    pub fn split(
        self,
        shutdown: CancellationToken,
    ) -> (NetHandle, mpsc::Receiver<NetEvent>, impl Future<Output = ()> + Send) {
        (self.handle, self.events, self.task.run(shutdown))
    }
}

struct Task {
    overlay: Overlay,
    inbox: mpsc::Receiver<Request>,
    outbox: mpsc::Sender<NetEvent>,
    /// An event that found the outbox full; nothing else is polled before it is delivered.
    undelivered: Option<NetEvent>,
    listening: BTreeMap<Multiaddr, Vec<oneshot::Sender<Result<Multiaddr, NetError>>>>,
    opening: BTreeMap<RequestId, oneshot::Sender<Result<SessionStream, NetError>>>,
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Task {
    async fn run(mut self, shutdown: CancellationToken) {
        let outbox = self.outbox.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                room = outbox.reserve(), if self.undelivered.is_some() => {
                    let event = self.undelivered.take();
                    // Without a receiver the node is going down, and nobody misses the event.
                    if let (Ok(room), Some(event)) = (room, event) {
                        room.send(event);
                    }
                }
                request = self.inbox.recv() => match request {
                    Some(request) => self.on_request(request),
                    None => break,
                },
                event = self.overlay.next(), if self.undelivered.is_none() => {
                    if let Some(event) = event {
                        self.on_event(event);
                    }
                }
            }
        }
        let Self { overlay, connections, stop, .. } = self;
        drop(overlay);
        stop.cancel();
        connections.close();
        connections.wait().await;
        tracing::info!("network stopped");
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Tell(command) => self.overlay.handle(command),
            Request::Listen(address, answer) => {
                self.listening.entry(address.clone()).or_default().push(answer);
                self.overlay.handle(Command::Listen(address));
            }
            Request::OpenSession(node, answer) => match self.overlay.open_session(&node) {
                Some(request) => {
                    self.opening.insert(request, answer);
                }
                None => give(answer, Err(NetError::Open(OpenError::NotAPeer))),
            },
            Request::Status(answer) => give(answer, self.overlay.status()),
        }
    }

    fn on_event(&mut self, event: Event) {
        let event = match event {
            Event::Listening { requested, address } => {
                self.answer_listen(&requested, &Ok(address.clone()));
                NetEvent::Listening(address)
            }
            Event::ListenFailed { address, error } => {
                self.answer_listen(&address, &Err(NetError::Listen(error)));
                return;
            }
            Event::SessionOpened { request, stream, .. } => {
                if let Some(answer) = self.opening.remove(&request) {
                    give(answer, Ok(stream.compat()));
                }
                return;
            }
            Event::SessionFailed { request, error, .. } => {
                if let Some(answer) = self.opening.remove(&request) {
                    give(answer, Err(NetError::Open(error)));
                }
                return;
            }
            Event::ListenEnded(address) => {
                tracing::warn!(%address, "no longer listening");
                return;
            }
            Event::PeerConnected(node) => NetEvent::PeerConnected(node),
            Event::PeerDisconnected(node) => NetEvent::PeerDisconnected(node),
            Event::Offer(offer) => NetEvent::Offer(offer),
            Event::OfferGone(node) => NetEvent::OfferGone(node),
            Event::InboundSession { peer, stream } => {
                NetEvent::InboundSession { peer, stream: stream.compat() }
            }
            Event::Notice(topic, notice) => NetEvent::Notice(topic, notice),
        };
        match self.outbox.try_send(event) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(event)) => self.undelivered = Some(event),
        }
    }

    fn answer_listen(&mut self, requested: &Multiaddr, result: &Result<Multiaddr, NetError>) {
        for answer in self.listening.remove(requested).unwrap_or_default() {
            give(answer, result.clone());
        }
    }
}

/// Answers a caller, unless it stopped waiting.
fn give<T>(answer: oneshot::Sender<T>, value: T) {
    if answer.send(value).is_err() {
        tracing::debug!("a caller did not wait for its answer");
    }
}

/// QUIC and TCP, with names resolved as the system does.
fn transport(keypair: &Keypair) -> Result<Transport, StartError> {
    match dns::tokio::Transport::system(sockets(keypair)?) {
        Ok(resolving) => Ok(resolving.boxed()),
        Err(error) => {
            tracing::warn!(%error, "no DNS configuration: only numeric addresses can be dialled");
            sockets(keypair)
        }
    }
}

/// QUIC, and TCP with Noise and Yamux for networks that block UDP.
fn sockets(keypair: &Keypair) -> Result<Transport, StartError> {
    let mut quic_config = quic::Config::new(keypair);
    quic_config.max_concurrent_stream_limit = QUIC_STREAMS;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair).map_err(|_| StartError::Key)?)
        .multiplex(yamux::Config::default());
    let both = quic::tokio::Transport::new(quic_config).or_transport(tcp);
    Ok(both
        .map(|output, _| match output {
            Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
            Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
        })
        .boxed())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cocoon_overlay::{Refusal, Role};
    use cocoon_protocol::attest::Tier;
    use cocoon_protocol::identity::{ModelHash, NodeKey, TonAddress};
    use cocoon_protocol::offer::{Load, ModelOffer, Offer};
    use cocoon_protocol::units::{Millis, PricePerMillion, Prices, Timestamp, Tokens};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;

    use super::*;

    /// The time in these tests: offers need one, nothing else does.
    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);
    const MODEL: ModelHash = ModelHash::from_bytes([5; 32]);
    const WANT: Want = Want { model: MODEL, minimum_tier: Tier::Open };

    struct Node {
        key: NodeKey,
        net: NetHandle,
        events: mpsc::Receiver<NetEvent>,
        task: JoinHandle<()>,
        shutdown: CancellationToken,
    }

    fn start(secret: u8, role: Role) -> Node {
        let key = NodeKey::from_secret(&[secret; 32]);
        let config = Config::new(key.clone(), role, [secret; 32], || NOW);
        let shutdown = CancellationToken::new();
        let (net, events, work) = Net::new(config).unwrap().split(shutdown.clone());
        Node { key, net, events, task: tokio::spawn(work), shutdown }
    }

    impl Node {
        /// The first event that `pick` picks. The generous limit only ends a broken test.
        async fn wait<T>(&mut self, pick: impl Fn(NetEvent) -> Option<T>) -> T {
            let found = async {
                loop {
                    if let Some(found) = pick(self.events.recv().await.unwrap()) {
                        return found;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(60), found).await.expect("event")
        }

        fn offer(&self, sequence: u64) -> SignedOffer {
            let offer = Offer {
                provider: self.key.id(),
                sequence,
                issued: NOW,
                expires: NOW.after(Millis::from_secs(300)),
                network: -7_337,
                models: vec![ModelOffer {
                    model: MODEL,
                    name: "test".to_owned(),
                    quantisation: "Q4_1".to_owned(),
                    context: Tokens::new(4_096),
                    prices: Prices {
                        prompt: PricePerMillion::FREE,
                        completion: PricePerMillion::FREE,
                    },
                }],
                tier: Tier::Open,
                evidence_digest: None,
                payout: TonAddress { workchain: 0, hash: [1; 32] },
                load: Load::Idle,
                region: String::new(),
                engine: String::new(),
            };
            offer.sign(&self.key)
        }
    }

    async fn two_nodes_meet_trade_and_part(listen: &str) {
        let mut provider = start(1, Role::Provider);
        let mut consumer = start(2, Role::Consumer);
        let address = provider.net.listen(listen.parse().unwrap()).await.unwrap();
        provider.net.publish_offer(provider.offer(1)).await.unwrap();
        consumer.net.dial(address).await.unwrap();
        consumer.net.want(WANT).await.unwrap();
        let found = consumer
            .wait(|event| if let NetEvent::Offer(offer) = event { Some(offer) } else { None })
            .await;
        assert_eq!(found.offer().provider, provider.key.id());

        let mut near = consumer.net.open_session(provider.key.id()).await.unwrap();
        near.write_all(b"ping").await.unwrap();
        near.flush().await.unwrap();
        let (peer, mut far) = provider
            .wait(|event| {
                let NetEvent::InboundSession { peer, stream } = event else { return None };
                Some((peer, stream))
            })
            .await;
        assert_eq!(peer, consumer.key.id());
        let mut bytes = [0; 4];
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");
        far.write_all(b"pong").await.unwrap();
        far.shutdown().await.unwrap();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"pong");

        let status = consumer.net.status().await.unwrap();
        assert_eq!((status.peers, status.warm), (1, vec![(WANT, 1)]));
        assert_eq!(status.anchors.len(), 1);

        provider.shutdown.cancel();
        provider.task.await.unwrap();
        let gone = consumer
            .wait(|event| if let NetEvent::OfferGone(node) = event { Some(node) } else { None })
            .await;
        assert_eq!(gone, provider.key.id());
        consumer.shutdown.cancel();
        consumer.task.await.unwrap();
        assert_eq!(consumer.net.status().await, Err(NetError::Stopped));
    }

    #[tokio::test]
    async fn over_quic() {
        two_nodes_meet_trade_and_part("/ip4/127.0.0.1/udp/0/quic-v1").await;
    }

    #[tokio::test]
    async fn over_tcp() {
        two_nodes_meet_trade_and_part("/ip4/127.0.0.1/tcp/0").await;
    }

    /// The index is worth nothing unless its nodes take what providers entrust to them.
    async fn a_record_reaches_the_index(listen: &str) {
        let relay = start(6, Role::Relay);
        let mut provider = start(7, Role::Provider);
        let address = relay.net.listen(listen.parse().unwrap()).await.unwrap();
        provider.net.listen(listen.parse().unwrap()).await.unwrap();
        provider.net.publish_offer(provider.offer(1)).await.unwrap();
        provider.net.dial(address).await.unwrap();
        provider.wait(|event| matches!(event, NetEvent::PeerConnected(_)).then_some(())).await;
        let kept = async {
            while relay.net.status().await.unwrap().index_records == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), kept).await.expect("the record is kept");
    }

    #[tokio::test]
    async fn a_record_reaches_the_index_over_quic() {
        a_record_reaches_the_index("/ip4/127.0.0.1/udp/0/quic-v1").await;
    }

    #[tokio::test]
    async fn a_record_reaches_the_index_over_tcp() {
        a_record_reaches_the_index("/ip4/127.0.0.1/tcp/0").await;
    }

    #[tokio::test]
    async fn a_ninth_session_of_one_peer_is_told_busy() {
        let mut provider = start(3, Role::Provider);
        let consumer = start(4, Role::Consumer);
        let address =
            provider.net.listen("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).await.unwrap();
        consumer.net.dial(address).await.unwrap();
        provider.wait(|event| matches!(event, NetEvent::PeerConnected(_)).then_some(())).await;
        let mut held = Vec::new();
        for _ in 0..cocoon_overlay::limits::SESSION_STREAMS_PER_PEER {
            let mut stream = consumer.net.open_session(provider.key.id()).await.unwrap();
            stream.get_mut().accepted().await.unwrap();
            held.push(stream);
        }
        let mut ninth = consumer.net.open_session(provider.key.id()).await.unwrap();
        let error = ninth.read_u8().await.unwrap_err();
        assert_eq!(Refusal::of(&error), Some(Refusal::Busy));
        assert_eq!(provider.net.status().await.unwrap().refused.values().sum::<u64>(), 1);
    }

    #[tokio::test]
    async fn what_cannot_work_fails_with_its_reason() {
        let node = start(5, Role::Consumer);
        let own = node.net.open_session(node.key.id()).await;
        assert!(matches!(own, Err(NetError::Open(OpenError::NotAPeer))));
        let stranger = NodeKey::from_secret(&[99; 32]).id();
        let unknown = node.net.open_session(stranger).await;
        assert!(matches!(unknown, Err(NetError::Open(OpenError::NoAddress))));
        let listen = node.net.listen("/ip4/127.0.0.1/sctp/1".parse().unwrap()).await;
        assert_eq!(listen, Err(NetError::Listen(cocoon_overlay::ListenError::Unsupported)));
    }
}
