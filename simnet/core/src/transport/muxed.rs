//! Connections that are authenticated and multiplexed, like QUIC's.
//!
//! Owns: the muxer and stream of that layer. Must not: model bytes; the network does.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};

use super::{End, ModelTransport, finish, gone, read, write};
use crate::network::{self, Layer, Side, Stream};
use crate::node::NodeIndex;
use crate::slab::Id;

/// A transport of authenticated, multiplexed connections, like QUIC: one round trip of handshake,
/// streams that do not wait for each other, nothing negotiated. Peer ids travel in the handshake.
///
/// [`Simulation::transport`](crate::Simulation::transport) makes one, boxed as a swarm wants it.
pub type MuxedTransport = ModelTransport<(PeerId, Muxer)>;

/// The transport of `node` at this layer, as `peer`.
pub(crate) fn transport(node: NodeIndex, peer: PeerId) -> MuxedTransport {
    ModelTransport::new(node, Layer::Muxed, Some(peer), |end| {
        Some((end.remote_peer()?, Muxer(end)))
    })
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
