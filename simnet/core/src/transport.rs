//! What libp2p holds of the network: transports, muxers and streams.
//!
//! Owns: libp2p's traits, and addresses as multiaddrs. Must not: hold state beyond names of entries
//! in the network's tables.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

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

/// A transport of authenticated, multiplexed connections, like QUIC: one round trip of handshake,
/// streams that do not wait for each other, nothing negotiated. Peer ids travel in the handshake.
///
/// [`Simulation::transport`](crate::Simulation::transport) makes one, boxed as a swarm wants it.
#[derive(Debug)]
pub struct MuxedTransport(Socket);

impl MuxedTransport {
    pub(crate) fn new(node: NodeIndex, peer: PeerId) -> Self {
        Self(Socket::new(node, Layer::Muxed, Some(peer)))
    }
}

/// A connection of [`MuxedTransport`] that comes into being.
#[derive(Debug)]
pub struct MuxedUpgrade {
    dialling: Option<Dialling>,
    end: Option<End>,
}

impl Future for MuxedUpgrade {
    type Output = io::Result<(PeerId, Muxer)>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(dialling) = &mut this.dialling {
            match dialling.poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok((connection, side))) => {
                    this.dialling = None;
                    this.end = Some(End { connection, side });
                }
            }
        }
        let Some(end) = &this.end else { return Poll::Ready(Err(gone())) };
        match end.poll_finished(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
        }
        match (end.remote_peer(), this.end.take()) {
            (Some(peer), Some(end)) => Poll::Ready(Ok((peer, Muxer(end)))),
            _ => Poll::Ready(Err(gone())),
        }
    }
}

impl libp2p::Transport for MuxedTransport {
    type Output = (PeerId, Muxer);
    type Error = io::Error;
    type ListenerUpgrade = MuxedUpgrade;
    type Dial = MuxedUpgrade;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<MuxedUpgrade, TransportError<io::Error>> {
        let dialling = self.0.dial(address, options)?;
        Ok(MuxedUpgrade { dialling: Some(dialling), end: None })
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<MuxedUpgrade, io::Error>> {
        let socket = &mut self.0;
        socket.poll(context).map(|happened| {
            happened.event(socket, |connection| MuxedUpgrade {
                dialling: None,
                end: Some(End { connection, side: Side::Listener }),
            })
        })
    }
}

/// An end of a multiplexed connection.
#[derive(Debug)]
pub struct Muxer(End);

impl StreamMuxer for Muxer {
    type Substream = MuxedStream;
    type Error = io::Error;

    fn poll_inbound(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<MuxedStream>> {
        let End { connection, side } = self.0;
        let polled = network::with(|network| network.poll_accept(connection, side, context));
        MuxedStream::polled(polled, side)
    }

    fn poll_outbound(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<MuxedStream>> {
        let End { connection, side } = self.0;
        let polled = network::with(|network| network.poll_open(connection, side, context));
        MuxedStream::polled(polled, side)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let End { connection, side } = self.0;
        network::with(|network| network.close(connection, side));
        Poll::Ready(Ok(()))
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let End { connection, side } = self.0;
        match network::with(|network| network.poll_watch(connection, side, context)) {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(why)) => Poll::Ready(Err(why.into())),
            None => Poll::Ready(Err(gone())),
        }
    }
}

/// A stream of a multiplexed connection. Dropped, it is finished, and whoever writes to it hears
/// that nobody reads.
#[derive(Debug)]
pub struct MuxedStream {
    stream: Id<Stream>,
    side: Side,
}

impl MuxedStream {
    fn polled(
        polled: Option<Poll<Result<Id<Stream>, ErrorKind>>>,
        side: Side,
    ) -> Poll<io::Result<Self>> {
        match polled {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(Ok(stream))) => Poll::Ready(Ok(Self { stream, side })),
            Some(Poll::Ready(Err(why))) => Poll::Ready(Err(why.into())),
            None => Poll::Ready(Err(gone())),
        }
    }
}

impl Drop for MuxedStream {
    fn drop(&mut self) {
        network::with(|network| network.drop_stream(self.stream, self.side));
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

impl AsyncRead for MuxedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        read(self.stream, self.side, context, into)
    }
}

impl AsyncWrite for MuxedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        write(self.stream, self.side, context, from)
    }

    /// Nothing to do: what was written leaves when the moment is over.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        finish(self.stream, self.side)
    }
}

/// A transport of plain streams of bytes, like TCP, to be upgraded with the real noise and yamux.
///
/// Its streams are ordered as a whole, so that one lost packet holds up all that is multiplexed over
/// it. What is written is encrypted already: traffic is not told apart by protocol.
#[derive(Debug)]
pub struct ByteTransport(Socket);

impl ByteTransport {
    pub(crate) fn new(node: NodeIndex) -> Self {
        Self(Socket::new(node, Layer::Bytes, None))
    }
}

/// A connection of [`ByteTransport`] that comes into being.
#[derive(Debug)]
pub struct ByteUpgrade {
    dialling: Option<Dialling>,
    end: Option<End>,
}

impl Future for ByteUpgrade {
    type Output = io::Result<ByteStream>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(dialling) = &mut this.dialling {
            match dialling.poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok((connection, side))) => {
                    this.dialling = None;
                    this.end = Some(End { connection, side });
                }
            }
        }
        let Some(end) = &this.end else { return Poll::Ready(Err(gone())) };
        match end.poll_finished(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
        }
        let stream = network::with(|network| network.only_stream(end.connection)).flatten();
        match (stream, this.end.take()) {
            (Some(stream), Some(end)) => Poll::Ready(Ok(ByteStream { stream, end })),
            _ => Poll::Ready(Err(gone())),
        }
    }
}

impl libp2p::Transport for ByteTransport {
    type Output = ByteStream;
    type Error = io::Error;
    type ListenerUpgrade = ByteUpgrade;
    type Dial = ByteUpgrade;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<ByteUpgrade, TransportError<io::Error>> {
        let dialling = self.0.dial(address, options)?;
        Ok(ByteUpgrade { dialling: Some(dialling), end: None })
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<ByteUpgrade, io::Error>> {
        let socket = &mut self.0;
        socket.poll(context).map(|happened| {
            happened.event(socket, |connection| ByteUpgrade {
                dialling: None,
                end: Some(End { connection, side: Side::Listener }),
            })
        })
    }
}

/// One end of a connection of [`ByteTransport`]. Dropped, it closes the connection.
#[derive(Debug)]
pub struct ByteStream {
    stream: Id<Stream>,
    end: End,
}

impl AsyncRead for ByteStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        read(self.stream, self.end.side, context, into)
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        write(self.stream, self.end.side, context, from)
    }

    /// Nothing to do: what was written leaves when the moment is over.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        finish(self.stream, self.end.side)
    }
}
