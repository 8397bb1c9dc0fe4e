//! A raw stream to a peer, with the verdict byte that opens every stream of ours taken care of.
//!
//! Owns: the verdict on the wire. The accepting side sends one byte first: 1 accepted, 0 busy,
//! and closes after "busy". The opening side may write at once and learns the verdict with its
//! first read, so that opening a stream costs no round trip of its own.
//! Must not: buffer or interpret what follows.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};
use libp2p::Stream;

use super::quota::Permit;

/// Sent first by the accepting side of a stream that goes ahead.
pub(super) const ACCEPTED: u8 = 1;
/// Sent first, and alone, by the accepting side of a stream that does not.
pub(super) const BUSY: u8 = 0;

/// Why a peer did not take a stream. Travels as the inner error of an [`io::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer holds as many streams as it wants: try another, or later.
    #[error("the peer is busy and takes no further stream: try another peer, or later")]
    Busy,
    /// The stream ended before a verdict: the peer does not speak the protocol, or went away.
    #[error("the peer ended the stream before it took it: try another peer")]
    Ended,
    /// The first byte is no verdict.
    #[error("the peer answered with something else than a verdict: it does not speak our protocol")]
    NotAVerdict,
}

impl Refusal {
    /// The refusal behind an error of a [`PeerStream`], if it is one.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().copied()
    }

    fn error(self) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionRefused, self)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Awaited,
    Accepted,
    Refused(Refusal),
}

/// A stream to or from a peer: bytes in order, both ways, until closed. Dropping it resets it.
#[derive(Debug)]
pub struct PeerStream {
    stream: Stream,
    verdict: Verdict,
    _permit: Permit,
}

impl PeerStream {
    pub(super) fn inbound(stream: Stream, permit: Permit) -> Self {
        Self { stream, verdict: Verdict::Accepted, _permit: permit }
    }

    pub(super) fn outbound(stream: Stream, permit: Permit) -> Self {
        Self { stream, verdict: Verdict::Awaited, _permit: permit }
    }

    /// Waits until the peer has taken the stream. Reading does the same; this is for a caller
    /// who wants to know before it sends anything.
    pub async fn accepted(&mut self) -> Result<(), Refusal> {
        let verdict = std::future::poll_fn(|cx| self.poll_verdict(cx)).await;
        verdict.map_err(|error| Refusal::of(&error).unwrap_or(Refusal::Ended))
    }

    fn poll_verdict(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.verdict {
            Verdict::Accepted => return Poll::Ready(Ok(())),
            Verdict::Refused(refusal) => return Poll::Ready(Err(refusal.error())),
            Verdict::Awaited => {}
        }
        let mut byte = [0xff];
        let refusal = match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut byte)) {
            Ok(0) | Err(_) => Refusal::Ended,
            Ok(_) => match byte {
                [ACCEPTED] => {
                    self.verdict = Verdict::Accepted;
                    return Poll::Ready(Ok(()));
                }
                [BUSY] => Refusal::Busy,
                [_] => Refusal::NotAVerdict,
            },
        };
        self.verdict = Verdict::Refused(refusal);
        Poll::Ready(Err(refusal.error()))
    }

    /// A write that failed because the peer said "busy" and closed shall say so.
    fn explain(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        match self.poll_verdict(cx) {
            Poll::Ready(Err(refused)) => refused,
            Poll::Ready(Ok(())) | Poll::Pending => error,
        }
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_verdict(cx))?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buffer));
        Poll::Ready(written.map_err(|error| self.explain(cx, error)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.explain(cx, error)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
