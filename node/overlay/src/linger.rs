//! Streams that are let go before their negotiation is confirmed: kept until the other end is done.
//!
//! Owns: such streams of one connection. Must not: read what they bring, or keep them for long.
//!
//! With `Version::V1Lazy` an opener writes its request together with the name of its protocol, and
//! may close and drop the stream before the other end has confirmed the name. Kademlia's
//! `ADD_PROVIDER` and Identify's push do so. Over QUIC the drop says `STOP_SENDING`; the other end then
//! fails to write its confirmation, gives the stream up, and never looks at the request: no record
//! would ever reach the index. Over TCP Yamux knows a half-closed stream, and nothing is lost.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::StreamMuxer;
use libp2p::core::muxing::StreamMuxerEvent;

/// Streams of one connection that linger at a time; the next lets the oldest go. A handler of
/// Kademlia has as many requests out.
const STREAMS: usize = 32;
/// Bytes that are read off one: two lines of a negotiation have less. Who sends more has confirmed.
const BYTES: usize = 1_024;

/// A connection whose streams linger.
#[derive(Debug)]
pub(crate) struct Lingering<M: StreamMuxer> {
    inner: M,
    left: Shared<M::Substream>,
}

/// A stream of such a connection.
#[derive(Debug)]
pub(crate) struct Stream<S> {
    /// Taken by the drop only.
    inner: Option<S>,
    /// Where it goes when it is dropped; nowhere if the other end opened it.
    left: Option<Shared<S>>,
    is_closed: bool,
    has_ended: bool,
}

type Shared<S> = Arc<Mutex<Left<S>>>;

/// Streams that nobody has any more.
#[derive(Debug)]
struct Left<S> {
    /// Each with the bytes that were read off it.
    streams: VecDeque<(S, usize)>,
    connection: Option<Waker>,
}

fn lock<S>(left: &Mutex<Left<S>>) -> MutexGuard<'_, Left<S>> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: StreamMuxer> Lingering<M> {
    pub(crate) fn new(inner: M) -> Self {
        let left = Left { streams: VecDeque::new(), connection: None };
        Self { inner, left: Arc::new(Mutex::new(left)) }
    }
}

impl<S: AsyncRead + Unpin> Left<S> {
    /// Lets go of the streams whose other end is done.
    fn poll(&mut self, context: &mut Context<'_>) {
        match &mut self.connection {
            Some(known) => known.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        let mut bytes = [0; 128];
        self.streams.retain_mut(|(stream, read)| {
            while *read < BYTES {
                match Pin::new(&mut *stream).poll_read(context, &mut bytes) {
                    Poll::Ready(Ok(count)) if count > 0 => *read = read.saturating_add(count),
                    Poll::Ready(_) => return false,
                    Poll::Pending => return true,
                }
            }
            false
        });
    }
}

impl<S> Drop for Stream<S> {
    fn drop(&mut self) {
        let (Some(inner), Some(left)) = (self.inner.take(), &self.left) else { return };
        if !self.is_closed || self.has_ended {
            return;
        }
        let (oldest, connection) = {
            let mut left = lock(left);
            let full = left.streams.len() >= STREAMS;
            let oldest = if full { left.streams.pop_front() } else { None };
            left.streams.push_back((inner, 0));
            (oldest, left.connection.take())
        };
        drop(oldest);
        if let Some(connection) = connection {
            connection.wake();
        }
    }
}

impl<M> StreamMuxer for Lingering<M>
where
    M: StreamMuxer + Unpin,
    M::Substream: AsyncRead + AsyncWrite + Unpin,
{
    type Substream = Stream<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        Pin::new(&mut self.inner).poll_inbound(context).map_ok(|stream| Stream::new(stream, None))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let this = &mut *self;
        Pin::new(&mut this.inner)
            .poll_outbound(context)
            .map_ok(|stream| Stream::new(stream, Some(Arc::clone(&this.left))))
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.inner).poll_close(context)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        lock(&self.left).poll(context);
        Pin::new(&mut self.inner).poll(context)
    }
}

impl<S> Stream<S> {
    const fn new(inner: S, left: Option<Shared<S>>) -> Self {
        Self { inner: Some(inner), left, is_closed: false, has_ended: false }
    }
}

impl<S: Unpin> Stream<S> {
    /// The stream itself; it is there until the drop.
    fn inner(&mut self) -> io::Result<Pin<&mut S>> {
        self.inner.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let is_asked = !bytes.is_empty();
        let read = self.inner()?.poll_read(context, bytes);
        self.has_ended |=
            matches!(read, Poll::Ready(Err(_))) || (is_asked && matches!(read, Poll::Ready(Ok(0))));
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write_vectored(context, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = self.inner()?.poll_close(context);
        self.is_closed |= matches!(closed, Poll::Ready(Ok(())));
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker;
    use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _};

    /// What the other end sends on each stream, and whether it is done after it.
    #[derive(Debug)]
    struct Fake {
        says: Vec<Poll<usize>>,
        _alive: Arc<()>,
    }

    impl AsyncRead for Fake {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.says.pop().unwrap_or(Poll::Pending).map(Ok)
        }
    }

    impl AsyncWrite for Fake {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A connection that opens such streams.
    #[derive(Debug)]
    struct Opener {
        says: Vec<Poll<usize>>,
        alive: Arc<()>,
    }

    impl StreamMuxer for Opener {
        type Substream = Fake;
        type Error = io::Error;

        fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Fake>> {
            self.poll_outbound(cx)
        }
        fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Fake>> {
            let (says, _alive) = (self.says.clone(), Arc::clone(&self.alive));
            Poll::Ready(Ok(Fake { says, _alive }))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Result<StreamMuxerEvent, io::Error>> {
            Poll::Pending
        }
    }

    struct World {
        muxer: Lingering<Opener>,
        alive: Arc<()>,
    }

    impl World {
        /// `says` comes in reverse.
        fn new(says: Vec<Poll<usize>>) -> Self {
            let alive = Arc::new(());
            let muxer = Lingering::new(Opener { says, alive: Arc::clone(&alive) });
            Self { muxer, alive }
        }

        fn open(&mut self) -> Stream<Fake> {
            let waker = noop_waker();
            let opened = Pin::new(&mut self.muxer).poll_outbound(&mut Context::from_waker(&waker));
            let Poll::Ready(Ok(stream)) = opened else { unreachable!("it opens at once") };
            stream
        }

        fn poll(&mut self) {
            let waker = noop_waker();
            let _ = Pin::new(&mut self.muxer).poll(&mut Context::from_waker(&waker));
        }

        /// Streams that have not been dropped.
        fn living(&self) -> usize {
            Arc::strong_count(&self.alive) - 2
        }
    }

    fn close(stream: &mut Stream<Fake>) {
        stream.close().now_or_never().unwrap().unwrap();
    }

    #[test]
    fn a_request_without_an_answer_stays_until_the_other_end_is_done() {
        // Two lines of a negotiation, a pause, and the end.
        let mut world =
            World::new(vec![Poll::Ready(0), Poll::Pending, Poll::Ready(20), Poll::Ready(20)]);
        let mut stream = world.open();
        close(&mut stream);
        drop(stream);
        assert_eq!(world.living(), 1);
        world.poll();
        assert_eq!(world.living(), 1, "confirmed, and not done");
        world.poll();
        assert_eq!(world.living(), 0);
    }

    #[test]
    fn who_gives_a_stream_up_means_it() {
        let mut world = World::new(vec![Poll::Ready(0)]);
        drop(world.open());
        assert_eq!(world.living(), 0, "not closed: a reset");
        let mut stream = world.open();
        close(&mut stream);
        assert_eq!(stream.read(&mut [0; 4]).now_or_never().unwrap().unwrap(), 0);
        drop(stream);
        assert_eq!(world.living(), 0, "the other end is done already");
        let waker = noop_waker();
        let accepted = Pin::new(&mut world.muxer).poll_inbound(&mut Context::from_waker(&waker));
        let Poll::Ready(Ok(mut accepted)) = accepted else { unreachable!("it opens at once") };
        close(&mut accepted);
        drop(accepted);
        assert_eq!(world.living(), 0, "the other end opened it: its negotiation is over");
    }

    #[test]
    fn nobody_makes_us_keep_much() {
        let mut world = World::new(vec![Poll::Ready(128); 1_000]);
        for _ in 0..STREAMS * 2 {
            let mut stream = world.open();
            close(&mut stream);
        }
        assert_eq!(world.living(), STREAMS);
        world.poll();
        assert_eq!(world.living(), 0, "who talks on and on has confirmed");
    }
}
