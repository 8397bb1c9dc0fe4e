//! The overlay of one node: a stream of events that its owner polls, and commands in between.
//!
//! Owns: the swarm, the event loop, and who may know whom inside this crate.
//! Must not: spawn, sleep, or read the clock of a runtime. Whoever polls it decides the runtime:
//! tokio in the node, virtual time in the simulator.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::Future as _;
use std::num::NonZeroU8;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cocoon_protocol::identity::NodeId;
use cocoon_protocol::units::Timestamp;
use futures::Stream;
use futures::stream::{SelectAll, StreamExt as _};
use futures_timer::Delay;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, ListenerId};
use libp2p::core::upgrade::Version;
use libp2p::core::{self, Transport as _};
use libp2p::swarm::{DialError, Executor, SwarmEvent, dial_opts::DialOpts};
use libp2p::{Multiaddr, PeerId, Swarm, TransportError, kad};

use crate::address::{self, Scope};
use crate::behaviour::{Behaviour, BehaviourEvent, keypair};
use crate::command::{
    Anchor, Command, Config, Event, ListenError, Measured, Refused, StartError, Status, Want,
};
use crate::control::{Link, LinkId, LinkStream};
use crate::entry::{EntryPoints, named_peer};
use crate::gossip::{NoticeCheck, NoticeVerdict, Topic};
use crate::limits;
use crate::linger::Lingering;
use crate::offering::Offering;
use crate::slim::Slim;
use crate::streams::{PeerStream, Protocol, RequestId};
use crate::warm::Tables;

/// A transport that yields authenticated, multiplexed connections.
pub type Transport = Boxed<(PeerId, StreamMuxerBox)>;

/// A look-up under way.
#[derive(Debug)]
pub(crate) struct LookUp {
    pub(crate) query: kad::QueryId,
    pub(crate) want: Want,
    pub(crate) begun: Instant,
    /// From its beginning to the first names.
    pub(crate) first: Option<Duration>,
    pub(crate) found: BTreeSet<PeerId>,
}

/// The overlay of one node. Poll it as a [`Stream`]; it never ends. After [`Self::handle`] or
/// [`Self::open_session`] it must be polled again for the command to take effect.
pub struct Overlay {
    pub(crate) swarm: Swarm<Slim<Behaviour>>,
    pub(crate) node: NodeId,
    pub(crate) clock: Box<dyn Fn() -> Timestamp + Send>,
    notice_check: NoticeCheck,
    pub(crate) events: VecDeque<Event>,
    pub(crate) refused: BTreeMap<Refused, u64>,
    /// What each listener was asked to listen on.
    listeners: HashMap<ListenerId, Multiaddr>,
    pub(crate) tables: Tables,
    pub(crate) offering: Offering,
    /// Look-ups under way; one a table and shard.
    pub(crate) look_ups: Vec<LookUp>,
    measured: VecDeque<Measured>,
    /// Control streams that were asked for.
    pub(crate) contacts: BTreeMap<RequestId, PeerId>,
    pub(crate) links: SelectAll<LinkStream<PeerStream>>,
    /// Control streams of peers that did not subscribe yet; bounded by the quota of streams.
    pub(crate) unsubscribed: BTreeMap<LinkId, Link>,
    pub(crate) next_link: u64,
    pub(crate) index_peers: BTreeSet<PeerId>,
    pub(crate) serves_index: bool,
    /// When the routing table's buckets were refreshed last.
    pub(crate) refreshed: Option<Instant>,
    /// When the routing table was filled from an earlier run.
    pub(crate) remembered: Option<Instant>,
    /// Whether the bootstrap that runs refreshes them.
    pub(crate) refreshing: bool,
    entry_points: EntryPoints,
    sweep_at: Option<Instant>,
    timer: Delay,
    armed: Option<Instant>,
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay")
            .field("node", &self.node)
            .field("links", &self.links.len())
            .field("index_peers", &self.index_peers.len())
            .finish_non_exhaustive()
    }
}

impl Overlay {
    /// An overlay over `transport`, whose connections run on `executor`.
    pub fn new(
        config: Config,
        transport: Transport,
        executor: impl Executor + Send + 'static,
    ) -> Result<Self, StartError> {
        let keypair = keypair(&config.key)?;
        let behaviour = Slim(Behaviour::new(&config, &keypair)?);
        let own = keypair.public().to_peer_id();
        let settings = libp2p::swarm::Config::with_executor(executor)
            // QUIC before TCP, and the next address soon when one does not answer.
            .with_smart_dial()
            .with_dial_concurrency_factor(NonZeroU8::MIN.saturating_add(3))
            // Saves the round trip that negotiating each stream would cost; see `linger`.
            .with_substream_upgrade_protocol_override(Version::V1Lazy)
            .with_idle_connection_timeout(limits::IDLE_CONNECTION);
        let transport = core::Transport::map(transport, |(peer, muxer), _| {
            (peer, StreamMuxerBox::new(Lingering::new(muxer)))
        });
        let mut swarm = Swarm::new(transport.boxed(), behaviour, own, settings);
        for address in config.external_addresses {
            swarm.add_external_address(address);
        }
        tracing::info!(node = %config.key.id(), role = ?config.role, "overlay starts");
        Ok(Self {
            swarm,
            node: config.key.id(),
            clock: config.clock,
            notice_check: config.notice_check,
            events: VecDeque::new(),
            refused: BTreeMap::new(),
            listeners: HashMap::new(),
            tables: Tables::new(&config.seed),
            offering: Offering::default(),
            look_ups: Vec::new(),
            measured: VecDeque::new(),
            contacts: BTreeMap::new(),
            links: SelectAll::new(),
            unsubscribed: BTreeMap::new(),
            next_link: 0,
            index_peers: BTreeSet::new(),
            serves_index: config.serves_index,
            refreshed: None,
            remembered: None,
            refreshing: false,
            entry_points: EntryPoints::default(),
            sweep_at: None,
            timer: Delay::new(Duration::from_secs(3600)),
            armed: None,
        })
    }

    /// This node.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Takes a command.
    pub fn handle(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Listen(address) => self.listen(address),
            Command::Dial(address) => {
                self.entry_points.add(address, now);
                self.dial_entry_points(now);
            }
            Command::Remember(anchors) => self.remember(anchors, now),
            Command::PublishOffer(offer) => self.publish_offer(&offer, now),
            Command::WithdrawOffer => self.withdraw_offer(),
            Command::Want(want) => {
                if !self.tables.want(want, now) {
                    tracing::warn!(%want, "there are too many tables of providers; this is none");
                }
            }
            Command::Unwant(want) => self.tables.unwant(want),
            Command::Avoid(node) => {
                if let Some(peer) = address::peer_id(&node) {
                    self.tables.avoid(peer, now);
                }
            }
            Command::PublishNotice(topic, notice) => self.publish_notice(topic, notice),
        }
        self.act(now);
    }

    /// Asks for a session stream to `node`, which is dialled when it is not connected. The answer
    /// is an [`Event::SessionOpened`] or [`Event::SessionFailed`] with the returned number; `None`
    /// when `node` cannot be a peer: no key, or this node itself.
    pub fn open_session(&mut self, node: &NodeId) -> Option<RequestId> {
        let peer = address::peer_id(node).filter(|_| *node != self.node)?;
        let behaviour = self.swarm.behaviour_mut();
        behaviour.connections.touch(&peer, Instant::now());
        Some(behaviour.streams.open(peer, Protocol::Session))
    }

    /// The overlay at a glance.
    pub fn status(&mut self) -> Status {
        let index_records = self.swarm.behaviour_mut().kad.store_mut().len();
        Status {
            node: self.node,
            peers: self.swarm.behaviour().connections.count(),
            listeners: self.swarm.listeners().cloned().collect(),
            external_addresses: self.swarm.external_addresses().cloned().collect(),
            index_peers: self.index_peers.len(),
            index_records,
            entry_points: self.entry_points.count(),
            warm: self.tables.counts(),
            subscribers: self.offering.subscribers(),
            offering: self.offering.is_offering(),
            refused: self.refused.clone(),
            anchors: self.anchors(),
        }
    }

    /// How long discovery's steps took since this was asked last, the latest [`limits::MEASURED`].
    pub fn take_measured(&mut self) -> Vec<Measured> {
        self.measured.drain(..).collect()
    }

    pub(crate) fn note(&mut self, measured: Measured) {
        if self.measured.len() >= limits::MEASURED {
            self.measured.pop_front();
        }
        self.measured.push_back(measured);
    }

    fn anchors(&self) -> Vec<Anchor> {
        let behaviour = self.swarm.behaviour();
        let peers: BTreeSet<_> =
            self.tables.warm_peers().chain(self.entry_points.peers()).collect();
        let anchor = |peer: PeerId| {
            let addresses = behaviour.book.addresses(&peer).into_iter();
            let addresses: Vec<_> =
                addresses.filter_map(|address| address.with_p2p(peer).ok()).collect();
            let node = address::node_id(&peer)?;
            (!addresses.is_empty()).then_some(Anchor { node, addresses })
        };
        peers.into_iter().filter_map(anchor).collect()
    }

    pub(crate) fn count(&mut self, what: Refused) {
        let count = self.refused.entry(what).or_default();
        *count = count.saturating_add(1);
    }

    fn listen(&mut self, address: Multiaddr) {
        let error = match self.swarm.listen_on(address.clone()) {
            Ok(listener) => {
                self.listeners.insert(listener, address);
                return;
            }
            Err(TransportError::MultiaddrNotSupported(_)) => ListenError::Unsupported,
            Err(TransportError::Other(error)) => {
                tracing::error!(%address, %error, "cannot listen");
                ListenError::Refused
            }
        };
        self.events.push_back(Event::ListenFailed { address, error });
    }

    /// Whether the node can do without its entry points: it knows nodes of the index, and is
    /// connected to others.
    fn knows_enough(&self) -> bool {
        self.index_peers.len() >= limits::ENOUGH_INDEX_PEERS
            && self.swarm.behaviour().connections.count() >= limits::ENOUGH_CONNECTIONS
    }

    fn dial_entry_points(&mut self, now: Instant) {
        for address in self.entry_points.due(now) {
            let options = match named_peer(&address) {
                Some(peer) => DialOpts::peer_id(peer).addresses(vec![address.clone()]).build(),
                None => DialOpts::unknown_peer_id().address(address.clone()).build(),
            };
            self.entry_points.dialling(&address, options.connection_id());
            if let Some(peer) = named_peer(&address)
                && self.swarm.is_connected(&peer)
            {
                self.entry_points.connected(options.connection_id(), peer);
                continue;
            }
            if let Err(error) = self.swarm.dial(options) {
                tracing::debug!(%address, %error, "entry point not dialled");
                self.entry_points.postpone(&address, now);
            }
        }
    }

    fn publish_notice(&mut self, topic: Topic, notice: Vec<u8>) {
        if (self.notice_check)(topic, &notice) != NoticeVerdict::Accept {
            tracing::error!(?topic, "a notice of this node fails its own check; not published");
        } else if let Err(error) =
            self.swarm.behaviour_mut().gossip.publish(topic.ident().hash(), notice)
        {
            tracing::warn!(?topic, %error, "notice not published");
        }
    }

    fn on_notice(
        &mut self,
        from: PeerId,
        id: &libp2p::gossipsub::MessageId,
        message: libp2p::gossipsub::Message,
    ) {
        let topic = Topic::of(&message.topic);
        let verdict =
            topic.map_or(NoticeVerdict::Reject, |topic| (self.notice_check)(topic, &message.data));
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(id, &from, verdict.acceptance());
        match (verdict, topic) {
            (NoticeVerdict::Accept, Some(topic)) => {
                self.events.push_back(Event::Notice(topic, message.data));
            }
            (NoticeVerdict::Reject, _) => self.count(Refused::Notice),
            (NoticeVerdict::Accept | NoticeVerdict::Ignore, _) => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "libp2p's list of events is open")]
    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>, now: Instant) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event, now),
            SwarmEvent::ConnectionEstablished {
                peer_id, connection_id, num_established, ..
            } => {
                self.entry_points.connected(connection_id, peer_id);
                self.on_connected(peer_id, num_established.get() == 1, now);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.entry_points.disconnected(peer_id, self.knows_enough(), now);
                if !self.knows_enough() {
                    self.entry_points.wake(now);
                }
                if let Some(node) = address::node_id(&peer_id) {
                    self.events.push_back(Event::PeerDisconnected(node));
                }
            }
            // A bootstrap begins without a word; its first dial is what shows.
            SwarmEvent::Dialing { .. } if !self.needs_bootstrap(now) => self.end_bootstraps(),
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if matches!(error, DialError::LocalPeerId { .. }) {
                    self.entry_points.forget_own(connection_id);
                }
                self.entry_points.failed(connection_id, now);
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                // An interface with a public address is reachable there.
                if address::scope(&address) == Some(Scope::Internet) {
                    self.swarm.add_external_address(address.clone());
                }
                tracing::info!(%address, "listening");
                let requested = self.listeners.get(&listener_id).unwrap_or(&address).clone();
                self.events.push_back(Event::Listening { requested, address });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.swarm.remove_external_address(&address);
                self.events.push_back(Event::ListenEnded(address));
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.listeners.remove(&listener_id);
                if let Err(error) = reason {
                    tracing::error!(?addresses, %error, "a listener failed");
                }
            }
            // Handshakes that fail are the business of whoever started them.
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, first: bool, now: Instant) {
        let Some(node) = address::node_id(&peer) else {
            // Its key is of another kind, so it is no node. The error says "not connected".
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        };
        if first {
            self.events.push_back(Event::PeerConnected(node));
        }
        if self.sweep_at.is_none() {
            self.sweep_at = now.checked_add(limits::IDLE_CONNECTION);
        }
        if self.swarm.behaviour().connections.is_above_high_water() {
            let protected = self.protected();
            let closed = self.swarm.behaviour_mut().connections.trim(&protected, now);
            for _ in 0..closed {
                self.count(Refused::ConnectionTrimmed);
            }
        }
    }

    /// Closes what is of no use, and says when to look again: not while nobody is connected.
    fn sweep_if_due(&mut self, now: Instant) {
        if self.sweep_at.is_none_or(|at| at > now) {
            return;
        }
        let connected = self.swarm.behaviour().connections.count() > 0;
        self.sweep_at = now.checked_add(limits::SWEEP_EVERY).filter(|_| connected);
        let mut protected = self.protected();
        let behaviour = self.swarm.behaviour_mut();
        protected.extend(behaviour.streams.active(Protocol::Control));
        for _ in 0..behaviour.connections.sweep(&protected, now) {
            self.count(Refused::ConnectionTrimmed);
        }
    }

    /// Peers whose connections are worth keeping: gossip mesh, warm tables, entry points, the
    /// neighbourhood in the index of who serves it, and everyone with a session.
    pub(crate) fn protected(&mut self) -> BTreeSet<PeerId> {
        let own = kad::KBucketKey::from(*self.swarm.local_peer_id());
        let behaviour = self.swarm.behaviour_mut();
        let mut protected = behaviour.streams.active(Protocol::Session);
        protected.extend(behaviour.gossip.all_mesh_peers().copied());
        if self.serves_index {
            let near = behaviour.kad.get_closest_local_peers(&own);
            protected.extend(near.take(limits::REPLICATION).map(kad::KBucketKey::into_preimage));
        }
        protected.extend(self.tables.peers());
        protected.extend(self.entry_points.peers());
        protected
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent, now: Instant) {
        match event {
            BehaviourEvent::Kad(event) => self.on_index_event(event, now),
            BehaviourEvent::Streams(event) => self.on_stream_event(event, now),
            BehaviourEvent::Identify(libp2p::identify::Event::Received {
                peer_id, info, ..
            }) => self.on_identified(peer_id, &info),
            BehaviourEvent::Ping(libp2p::ping::Event { peer, result: Ok(time), .. }) => {
                self.tables.round_trip(peer, time);
            }
            BehaviourEvent::Gossip(libp2p::gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            }) => self.on_notice(propagation_source, &message_id, message),
            BehaviourEvent::Limits(never)
            | BehaviourEvent::Connections(never)
            | BehaviourEvent::Book(never) => match never {},
            BehaviourEvent::Identify(_) | BehaviourEvent::Ping(_) | BehaviourEvent::Gossip(_) => {}
        }
    }

    fn on_tick(&mut self, now: Instant) {
        self.tables.tick(now);
        let publish = self.offering.tick(self.index_peers.len(), now);
        self.publish(publish);
        self.dial_entry_points(now);
        self.sweep_if_due(now);
    }

    fn wake_at(&self) -> Option<Instant> {
        let wakes = [
            self.tables.wake_at(),
            self.offering.wake_at(),
            self.entry_points.wake_at(),
            self.sweep_at,
        ];
        wakes.into_iter().flatten().min()
    }

    /// Arms the timer for the next thing that is due. True when that is now.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let next = self.wake_at();
        if next.is_some_and(|at| at <= now) {
            self.armed = None;
            return true;
        }
        if next != self.armed {
            self.armed = next;
            if let Some(at) = next {
                self.timer.reset(at.saturating_duration_since(now));
            }
        }
        if self.armed.is_some() && Pin::new(&mut self.timer).poll(cx).is_ready() {
            // The timer's clock is coarser than ours, or something moved: look again.
            self.armed = None;
            cx.waker().wake_by_ref();
        }
        false
    }
}

impl Stream for Overlay {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = &mut *self;
        for _ in 0..limits::POLL_BUDGET {
            if let Some(event) = this.events.pop_front() {
                return Poll::Ready(Some(event));
            }
            let now = Instant::now();
            let mut progress = false;
            if let Poll::Ready(Some(event)) = this.swarm.poll_next_unpin(cx) {
                this.on_swarm_event(event, now);
                progress = true;
            }
            if let Poll::Ready(Some(event)) = this.links.poll_next_unpin(cx) {
                this.on_link_event(event, now);
                progress = true;
            }
            if this.poll_timer(cx, now) {
                this.on_tick(now);
                progress = true;
            }
            this.act(now);
            if !progress && this.events.is_empty() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
