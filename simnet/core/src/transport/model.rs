//! The transport of both layers: libp2p's trait over a socket of the simulated network.
//!
//! Owns: dialling, listening, and the future of a connection that comes into being. Must not: know
//! what a connection is to its user; each layer says so.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::{Multiaddr, PeerId};

use super::{Dialling, End, Socket, gone};
use crate::network::{Layer, Side};
use crate::node::NodeIndex;

/// A transport whose connections yield a `T`: [`ByteTransport`](super::ByteTransport) or
/// [`MuxedTransport`](super::MuxedTransport).
pub struct ModelTransport<T> {
    socket: Socket,
    established: Established<T>,
}

/// What a connection is to its user, once its handshake is over; nothing if it is gone by then.
type Established<T> = fn(End) -> Option<T>;

impl<T> ModelTransport<T> {
    pub(super) fn new(
        node: NodeIndex,
        layer: Layer,
        peer: Option<PeerId>,
        established: Established<T>,
    ) -> Self {
        Self { socket: Socket::new(node, layer, peer), established }
    }
}

impl<T> fmt::Debug for ModelTransport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ModelTransport").field(&self.socket).finish()
    }
}

/// A connection of a [`ModelTransport`] that comes into being.
pub struct Establishing<T> {
    dialling: Option<Dialling>,
    end: Option<End>,
    established: Established<T>,
}

impl<T> fmt::Debug for Establishing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Establishing")
            .field("dialling", &self.dialling)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl<T> Future for Establishing<T> {
    type Output = io::Result<T>;

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
        let established = this.end.take().and_then(this.established);
        Poll::Ready(established.ok_or_else(gone))
    }
}

impl<T> libp2p::Transport for ModelTransport<T> {
    type Output = T;
    type Error = io::Error;
    type ListenerUpgrade = Establishing<T>;
    type Dial = Establishing<T>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.socket.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.socket.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Establishing<T>, TransportError<io::Error>> {
        let dialling = self.socket.dial(address, options)?;
        Ok(Establishing { dialling: Some(dialling), end: None, established: self.established })
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Establishing<T>, io::Error>> {
        let Self { socket, established } = &mut *self;
        socket.poll(context).map(|happened| {
            happened.event(socket, |connection| Establishing {
                dialling: None,
                end: Some(End { connection, side: Side::Listener }),
                established: *established,
            })
        })
    }
}
