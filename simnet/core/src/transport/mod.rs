//! What libp2p holds of the network: transports, muxers and streams.
//!
//! Owns: libp2p's traits, and addresses as multiaddrs. Must not: hold state beyond names of entries
//! in the network's tables.

pub(crate) mod bytes;
mod model;
pub(crate) mod muxed;

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::task::{Context, Poll};

pub use bytes::{ByteStream, ByteTransport};
use libp2p::core::Endpoint;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
pub use model::{Establishing, ModelTransport};
pub use muxed::{MuxedStream, MuxedTransport, Muxer};

use crate::network::{self, Connection, Dial, Layer, Side, Stream, Target};
use crate::node::{Nat, NodeIndex, private_ip};
use crate::slab::Id;

/// The address at which something listens on `ip` and `port`: QUIC over UDP, or TCP.
fn address(layer: Layer, ip: Ipv4Addr, port: u16) -> Multiaddr {
    let address = Multiaddr::empty().with(Protocol::Ip4(ip));
    match layer {
        Layer::Muxed => address.with(Protocol::Udp(port)).with(Protocol::QuicV1),
        Layer::Bytes => address.with(Protocol::Tcp(port)),
    }
}

/// The target behind an address of this layer, with or without a peer id behind it.
fn target(layer: Layer, address: &Multiaddr) -> Option<Target> {
    let mut parts = address.iter();
    let Protocol::Ip4(ip) = parts.next()? else { return None };
    let port = match (layer, parts.next()?) {
        (Layer::Muxed, Protocol::Udp(port)) => {
            parts.next().filter(|part| *part == Protocol::QuicV1)?;
            port
        }
        (Layer::Bytes, Protocol::Tcp(port)) => port,
        _ => return None,
    };
    let is_plain = parts.all(|part| matches!(part, Protocol::P2p(_)));
    is_plain.then_some(Target { ip, port, layer })
}

/// The public address of a node at a layer.
pub(crate) fn public_address(node: NodeIndex, layer: Layer) -> Option<Multiaddr> {
    network::with(|network| network.node(node).map(|it| address(layer, it.ip, it.port)))?
}

/// `node` as `peer` sees it.
fn seen_address(node: NodeIndex, peer: NodeIndex, layer: Layer) -> Multiaddr {
    let seen = network::with(|network| {
        let port = network.public_port(node, peer);
        network.node(node).map(|it| address(layer, it.ip, port))
    });
    seen.flatten().unwrap_or_else(Multiaddr::empty)
}

fn gone() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "the simulated network, or the node, is gone")
}

/// A node's socket at a layer: what both transports have in common.
#[derive(Debug)]
struct Socket {
    node: NodeIndex,
    life: u32,
    layer: Layer,
    /// Listeners, and whether each has been announced.
    listeners: Vec<(ListenerId, bool)>,
    closed: Vec<ListenerId>,
}

/// What a socket has to tell.
enum Happened {
    Listening(ListenerId, Multiaddr),
    Closed(ListenerId),
    Incoming { listener: ListenerId, connection: Id<Connection>, from: NodeIndex },
}

impl Socket {
    fn new(node: NodeIndex, layer: Layer, peer: Option<PeerId>) -> Self {
        let life = network::with(|network| {
            let node = network.node_mut(node)?;
            if peer.is_some() {
                node.peer = peer;
            }
            Some(node.life)
        });
        let life = life.flatten().unwrap_or(0);
        Self { node, life, layer, listeners: Vec::new(), closed: Vec::new() }
    }

    /// Whether the node still lives the life in which this socket was made.
    fn is_alive(&self) -> bool {
        let alive = network::with(|network| {
            network.node(self.node).is_some_and(|node| node.is_up && node.life == self.life)
        });
        alive == Some(true)
    }

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        let Some(target) = target(self.layer, &address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        if !self.is_alive() {
            return Err(TransportError::Other(gone()));
        }
        network::with(|network| {
            if let Some(node) = network.node_mut(self.node) {
                if target.port != 0 {
                    node.port = target.port;
                }
                node.listener.get_or_insert(id);
            }
        });
        self.listeners.push((id, false));
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let before = self.listeners.len();
        self.listeners.retain(|(listener, _)| *listener != id);
        if self.listeners.len() == before {
            return false;
        }
        self.closed.push(id);
        let next = self.listeners.first().map(|(listener, _)| *listener);
        if self.is_alive() {
            network::with(|network| {
                if let Some(node) = network.node_mut(self.node) {
                    node.listener = next;
                }
            });
        }
        true
    }

    fn dial(
        &self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Dialling, TransportError<io::Error>> {
        let Some(target) = target(self.layer, &address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        if !self.is_alive() {
            return Err(TransportError::Other(gone()));
        }
        let punches = options.role == Endpoint::Listener;
        let dial = network::with(|network| network.dial(self.node, target, punches));
        dial.map(|dial| Dialling(Some(dial))).ok_or_else(|| TransportError::Other(gone()))
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Happened> {
        if let Some(listener) = self.closed.pop() {
            return Poll::Ready(Happened::Closed(listener));
        }
        if !self.is_alive() {
            return Poll::Pending;
        }
        if let Some((listener, announced)) = self.listeners.iter_mut().find(|it| !it.1) {
            *announced = true;
            let listener = *listener;
            let own = network::with(|network| network.node(self.node).map(|it| self.local(it)));
            let own = own.flatten().unwrap_or_else(Multiaddr::empty);
            return Poll::Ready(Happened::Listening(listener, own));
        }
        let polled = network::with(|network| {
            let polled = network.poll_listen(self.node, context);
            polled.map(|connection| {
                let from = network.connection(connection).map(|it| *it.nodes.at(Side::Dialler));
                (connection, from)
            })
        });
        match (polled, self.listeners.first()) {
            (Some(Poll::Ready((connection, Some(from)))), Some((listener, _))) => {
                Poll::Ready(Happened::Incoming { listener: *listener, connection, from })
            }
            _ => Poll::Pending,
        }
    }

    /// Where the node itself believes to listen.
    fn local(&self, node: &network::Node) -> Multiaddr {
        let ip = if node.spec.nat == Nat::Open { node.ip } else { private_ip(self.node) };
        address(self.layer, ip, node.port)
    }

    fn local_address(&self) -> Multiaddr {
        let own = network::with(|network| network.node(self.node).map(|it| self.local(it)));
        own.flatten().unwrap_or_else(Multiaddr::empty)
    }
}

impl Happened {
    /// As libp2p has it; `upgrade` makes the future of an incoming connection.
    fn event<U>(
        self,
        socket: &Socket,
        upgrade: impl FnOnce(Id<Connection>) -> U,
    ) -> TransportEvent<U, io::Error> {
        match self {
            Self::Listening(listener_id, listen_addr) => {
                TransportEvent::NewAddress { listener_id, listen_addr }
            }
            Self::Closed(listener_id) => {
                TransportEvent::ListenerClosed { listener_id, reason: Ok(()) }
            }
            Self::Incoming { listener, connection, from } => TransportEvent::Incoming {
                listener_id: listener,
                upgrade: upgrade(connection),
                local_addr: socket.local_address(),
                send_back_addr: seen_address(from, socket.node, socket.layer),
            },
        }
    }
}

/// A dial under way. Dropped, it gives the dial up.
#[derive(Debug)]
struct Dialling(Option<Id<Dial>>);

impl Dialling {
    fn poll(&mut self, context: &Context<'_>) -> Poll<io::Result<(Id<Connection>, Side)>> {
        let Some(dial) = self.0 else { return Poll::Ready(Err(gone())) };
        match network::with(|network| network.poll_dial(dial, context)) {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(outcome)) => {
                self.0 = None;
                Poll::Ready(outcome.map_err(io::Error::from))
            }
            None => Poll::Ready(Err(gone())),
        }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        if let Some(dial) = self.0 {
            network::with(|network| network.drop_dial(dial));
        }
    }
}

/// One end of a connection. Dropped, it closes the connection.
#[derive(Debug)]
struct End {
    connection: Id<Connection>,
    side: Side,
}

impl End {
    fn remote_peer(&self) -> Option<PeerId> {
        let peers = network::with(|network| {
            network.connection(self.connection).map(|it| *it.peers.at(self.side.other()))
        });
        peers??
    }

    /// At the dialled side the handshake is over one way later than at the other.
    fn poll_finished(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if self.side == Side::Dialler {
            return Poll::Ready(Ok(()));
        }
        let polled = network::with(|network| network.poll_finished(self.connection, context));
        polled.map_or_else(|| Poll::Ready(Err(gone())), |poll| poll.map_err(io::Error::from))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        network::with(|network| network.drop_connection(self.connection, self.side));
    }
}

fn read(
    stream: Id<Stream>,
    side: Side,
    context: &Context<'_>,
    into: &mut [u8],
) -> Poll<io::Result<usize>> {
    let polled = network::with(|network| network.poll_read(stream, side, context, into));
    polled.map_or_else(|| Poll::Ready(Err(gone())), |poll| poll.map_err(io::Error::from))
}

fn write(
    stream: Id<Stream>,
    side: Side,
    context: &Context<'_>,
    from: &[u8],
) -> Poll<io::Result<usize>> {
    let polled = network::with(|network| network.poll_write(stream, side, context, from));
    polled.map_or_else(|| Poll::Ready(Err(gone())), |poll| poll.map_err(io::Error::from))
}

fn finish(stream: Id<Stream>, side: Side) -> Poll<io::Result<()>> {
    network::with(|network| network.finish(stream, side));
    Poll::Ready(Ok(()))
}
