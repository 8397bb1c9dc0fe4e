//! Raw streams between peers: open one by identity, take theirs within quotas, refuse explicitly.
//!
//! Owns: our two stream protocols, requests under way, and which connection a stream uses.
//! Must not: read or write what the streams carry.
//! Why not `libp2p-stream`: it drops inbound streams in a burst, and nobody learns why.

mod handler;
mod peer_stream;
mod quota;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_timer::Delay;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol as AddressPart;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, NotifyHandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

pub(crate) use handler::Handler;
use handler::{Open, Report};
pub use peer_stream::{PeerStream, Refusal};
use quota::{NodeQuota, PeerQuota};

use crate::limits;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Offers and signs of life; handled inside this crate.
    Control,
    /// An attested session; handed to the node as raw bytes.
    Session,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 2] = [Self::Control, Self::Session];

    /// Its name in multistream-select.
    pub const fn name(self) -> StreamProtocol {
        match self {
            Self::Control => StreamProtocol::new("/cocoon/control/1"),
            Self::Session => StreamProtocol::new("/cocoon/session/1"),
        }
    }

    fn from_name(name: &StreamProtocol) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == *name)
    }

    const fn most_per_peer(self) -> usize {
        match self {
            Self::Control => limits::CONTROL_STREAMS_PER_PEER,
            Self::Session => limits::SESSION_STREAMS_PER_PEER,
        }
    }

    const fn most_per_node(self) -> usize {
        match self {
            Self::Control => limits::CONTROL_STREAMS,
            Self::Session => limits::SESSION_STREAMS,
        }
    }
}

/// A request to open a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a stream could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The identity is no Ed25519 key, or our own.
    #[error("the identity is not that of a peer: check it")]
    NotAPeer,
    /// No address of the peer is known.
    #[error("no address of the peer is known: wait until it is found, or add one")]
    NoAddress,
    /// No known address of the peer could be reached.
    #[error("the peer could not be reached at any known address: try another peer")]
    Unreachable,
    /// The peer could not be reached in time.
    #[error("the peer did not answer in time: try another peer")]
    TimedOut,
    /// The connection ended while the stream was being opened.
    #[error("the connection ended while the stream was being opened: try again")]
    ConnectionLost,
    /// The peer does not speak the protocol.
    #[error("the peer does not speak this protocol: try another peer")]
    Unsupported,
    /// Too many streams with this peer are being opened already.
    #[error("too many streams with this peer are being opened: wait for those")]
    TooManyRequests,
}

/// What the behaviour reports.
#[derive(Debug)]
pub(crate) enum Event {
    /// A peer opened a stream, which was admitted.
    Inbound {
        /// Who opened it.
        peer: PeerId,
        /// What it is for.
        protocol: Protocol,
        /// The stream; dropping it resets it.
        stream: PeerStream,
    },
    /// A peer's stream was refused with BUSY.
    Refused {
        /// Who tried.
        peer: PeerId,
        /// What it was for.
        protocol: Protocol,
    },
    /// A stream that was asked for is open. The peer's verdict comes with the first read.
    Opened {
        /// Which request this answers.
        request: RequestId,
        /// The other end.
        peer: PeerId,
        /// The stream.
        stream: PeerStream,
    },
    /// A stream that was asked for could not be opened.
    Failed {
        /// Which request this answers.
        request: RequestId,
        /// The other end.
        peer: PeerId,
        /// Why.
        error: OpenError,
    },
}

#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    relayed: bool,
}

#[derive(Debug)]
struct Peer {
    quota: PeerQuota,
    /// In the order in which they were established.
    connections: Vec<Connection>,
}

impl Peer {
    /// The newest direct connection, else the newest.
    fn best(&self) -> Option<ConnectionId> {
        let direct = self.connections.iter().rev().find(|connection| !connection.relayed);
        direct.or_else(|| self.connections.last()).map(|connection| connection.id)
    }
}

#[derive(Debug)]
struct Request {
    peer: PeerId,
    protocol: Protocol,
    /// The connection that was asked; `None` while the peer is being dialled.
    asked: Option<ConnectionId>,
}

/// The stream behaviour of a node.
pub(crate) struct Behaviour {
    quota: NodeQuota,
    peers: BTreeMap<PeerId, Peer>,
    requests: BTreeMap<RequestId, Request>,
    /// All requests have the same time limit, so they end in the order of their numbers.
    deadlines: VecDeque<(Instant, RequestId)>,
    timer: Option<Delay>,
    next_request: u64,
    to_swarm: VecDeque<ToSwarm<Event, Open>>,
    waker: Option<Waker>,
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour")
            .field("peers", &self.peers.len())
            .field("requests", &self.requests.len())
            .finish_non_exhaustive()
    }
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::new()
    }
}

impl Behaviour {
    /// A behaviour without streams.
    pub(crate) fn new() -> Self {
        Self {
            quota: NodeQuota::new(),
            peers: BTreeMap::new(),
            requests: BTreeMap::new(),
            deadlines: VecDeque::new(),
            timer: None,
            next_request: 0,
            to_swarm: VecDeque::new(),
            waker: None,
        }
    }

    /// Asks for a stream to `peer`; dials it when it is not connected. The answer is an
    /// [`Event::Opened`] or [`Event::Failed`] with the returned number, never both, never none.
    pub(crate) fn open(&mut self, peer: PeerId, protocol: Protocol) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request = self.next_request.saturating_add(1);
        let under_way = self.requests.values().filter(|request| request.peer == peer).count();
        if under_way >= limits::OPEN_REQUESTS_PER_PEER {
            self.emit(Event::Failed { request: id, peer, error: OpenError::TooManyRequests });
            return id;
        }
        let asked = self.peers.get(&peer).and_then(Peer::best);
        self.requests.insert(id, Request { peer, protocol, asked });
        self.deadlines.push_back((later(limits::OPEN_TIMEOUT), id));
        match asked {
            Some(connection) => self.ask(id, peer, protocol, connection),
            None => {
                self.to_swarm.push_back(ToSwarm::Dial { opts: DialOpts::peer_id(peer).build() });
            }
        }
        self.wake();
        id
    }

    /// Peers with open streams of `protocol`, in either direction.
    pub(crate) fn active(&self, protocol: Protocol) -> BTreeSet<PeerId> {
        let active = self.peers.iter().filter(|(_, peer)| peer.quota.live(protocol) > 0);
        active.map(|(id, _)| *id).collect()
    }

    fn ask(&mut self, request: RequestId, peer: PeerId, protocol: Protocol, on: ConnectionId) {
        self.to_swarm.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(on),
            event: Open { request, protocol },
        });
    }

    fn emit(&mut self, event: Event) {
        self.to_swarm.push_back(ToSwarm::GenerateEvent(event));
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn fail(&mut self, request: RequestId, error: OpenError) {
        if let Some(Request { peer, .. }) = self.requests.remove(&request) {
            self.emit(Event::Failed { request, peer, error });
        }
    }

    fn fail_where(&mut self, error: OpenError, failed: impl Fn(&Request) -> bool) {
        let ids: Vec<_> =
            self.requests.iter().filter(|(_, it)| failed(it)).map(|(id, _)| *id).collect();
        for id in ids {
            self.fail(id, error);
        }
    }

    fn peer_quota(&mut self, peer: PeerId) -> PeerQuota {
        let quota = &self.quota;
        let known = self
            .peers
            .entry(peer)
            .or_insert_with(|| Peer { quota: quota.peer(), connections: Vec::new() });
        known.quota.clone()
    }

    fn on_established(&mut self, established: ConnectionEstablished<'_>) {
        let relayed = match established.endpoint {
            libp2p::core::ConnectedPoint::Dialer { address, .. } => is_relayed(address),
            libp2p::core::ConnectedPoint::Listener { local_addr, .. } => is_relayed(local_addr),
        };
        self.peer_quota(established.peer_id);
        if let Some(peer) = self.peers.get_mut(&established.peer_id) {
            peer.connections.push(Connection { id: established.connection_id, relayed });
        }
        let mut waiting = Vec::new();
        for (id, request) in &mut self.requests {
            if request.peer == established.peer_id && request.asked.is_none() {
                request.asked = Some(established.connection_id);
                waiting.push((*id, request.protocol));
            }
        }
        for (id, protocol) in waiting {
            self.ask(id, established.peer_id, protocol, established.connection_id);
        }
    }

    fn on_closed(&mut self, closed: ConnectionClosed<'_>) {
        if let Some(peer) = self.peers.get_mut(&closed.peer_id) {
            peer.connections.retain(|connection| connection.id != closed.connection_id);
        }
        if closed.remaining_established == 0 {
            self.peers.remove(&closed.peer_id);
        }
        self.fail_where(OpenError::ConnectionLost, |request| {
            request.asked == Some(closed.connection_id)
        });
    }

    /// A connection that another behaviour denied leaves a peer without connections behind.
    fn forget_unconnected(&mut self, peer: PeerId) {
        if self.peers.get(&peer).is_some_and(|known| known.connections.is_empty()) {
            self.peers.remove(&peer);
        }
    }

    fn on_dial_failure(&mut self, failure: DialFailure<'_>) {
        let Some(peer) = failure.peer_id else { return };
        self.forget_unconnected(peer);
        let error = match failure.error {
            // Somebody else's dial to the same peer is under way and will end in an event too.
            DialError::DialPeerConditionFalse(_) => return,
            DialError::NoAddresses => OpenError::NoAddress,
            DialError::LocalPeerId { .. } => OpenError::NotAPeer,
            DialError::Aborted
            | DialError::WrongPeerId { .. }
            | DialError::Denied { .. }
            | DialError::Transport(_) => OpenError::Unreachable,
        };
        self.fail_where(error, |request| request.peer == peer && request.asked.is_none());
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
        while let Some((at, id)) = self.deadlines.front().copied() {
            if self.requests.contains_key(&id) {
                if at > now {
                    break;
                }
                self.fail(id, OpenError::TimedOut);
            }
            self.deadlines.pop_front();
        }
        let Some((at, _)) = self.deadlines.front() else {
            self.timer = None;
            return;
        };
        let left = at.saturating_duration_since(now);
        let timer = self.timer.get_or_insert_with(|| Delay::new(left));
        if Pin::new(&mut *timer).poll(cx).is_ready() {
            // It fired early, or for a request that was answered meanwhile: arm it anew.
            timer.reset(left);
            if Pin::new(timer).poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
    }
}

fn later(by: std::time::Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(by).unwrap_or(now)
}

fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, AddressPart::P2pCircuit))
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::new(self.peer_quota(peer)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::new(self.peer_quota(peer)))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "libp2p's list of events is open")]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => self.on_established(established),
            FromSwarm::ConnectionClosed(closed) => self.on_closed(closed),
            FromSwarm::DialFailure(failure) => self.on_dial_failure(failure),
            FromSwarm::ListenFailure(failure) => {
                if let Some(peer) = failure.peer_id {
                    self.forget_unconnected(peer);
                }
            }
            // Listeners and our own addresses do not concern streams.
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        match report {
            Report::Inbound(protocol, stream) => {
                self.emit(Event::Inbound { peer, protocol, stream });
            }
            Report::Refused(protocol) => self.emit(Event::Refused { peer, protocol }),
            Report::Opened(request, stream) => {
                // A stream that comes after its request timed out is dropped, which resets it.
                if self.requests.remove(&request).is_some() {
                    self.emit(Event::Opened { request, peer, stream });
                }
            }
            Report::Failed(request, error) => self.fail(request, error),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.poll_deadlines(cx);
        if let Some(action) = self.to_swarm.pop_front() {
            return Poll::Ready(action);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
