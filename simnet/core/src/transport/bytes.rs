//! Connections that are plain streams of bytes, like TCP's.
//!
//! Owns: the stream of that layer. Must not: model bytes; the network does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite};

use super::{End, ModelTransport, finish, read, write};
use crate::network::{self, Layer, Stream};
use crate::node::NodeIndex;
use crate::slab::Id;

/// A transport of plain streams of bytes, like TCP, to be upgraded with the real noise and yamux.
///
/// Its streams are ordered as a whole, so that one lost packet holds up all that is multiplexed over
/// it. What is multiplexed is encrypted already, so all of it counts under the security protocol.
pub type ByteTransport = ModelTransport<ByteStream>;

/// The transport of `node` at this layer.
pub(crate) fn transport(node: NodeIndex) -> ByteTransport {
    ModelTransport::new(node, Layer::Bytes, None, |end| {
        let stream = network::with(|network| network.only_stream(end.connection)).flatten()?;
        Some(ByteStream { stream, end })
    })
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
