//! Connections that are plain streams of bytes, like TCP's.
//!
//! Owns: the transport and stream of that layer. Must not: model bytes; the network does.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite};
use libp2p::Multiaddr;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};

use super::{Dialling, End, Socket, finish, gone, read, write};
use crate::network::{self, Layer, Side, Stream};
use crate::node::NodeIndex;
use crate::slab::Id;

/// A transport of plain streams of bytes, like TCP, to be upgraded with the real noise and yamux.
///
/// Its streams are ordered as a whole, so that one lost packet holds up all that is multiplexed over
/// it. What is multiplexed is encrypted already, so all of it counts under the security protocol.
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
