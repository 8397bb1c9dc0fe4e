//! The control stream: how a provider keeps its subscribers up to date.
//!
//! Owns: four messages and their frames, `u32be length ‖ kind ‖ payload`, a stream of them with
//! bounded buffers both ways, and the rate that a peer may send at.
//! Must not: verify offers or decide what follows from a message; the warm table does.
//! Order: the consumer opens and subscribes; the provider sends its offer, and again when it
//! changes, and signs of life in between. Unknown kinds end the stream: a newer control protocol
//! has a newer name.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use cocoon_protocol::limits::CONTROL_FRAME_BYTES;
use futures::{AsyncRead, AsyncWrite, Stream};
use libp2p::PeerId;

use crate::limits::CONTROL_BURST;
use crate::streams::Refusal;

const SUBSCRIBE: u8 = 1;
const OFFER: u8 = 2;
const KEEP_ALIVE: u8 = 3;
const DRAINING: u8 = 4;

/// Bytes of a frame's length.
const HEADER_BYTES: usize = 4;
/// One more frame is allowed each time this has passed.
const REFILL: Duration = Duration::from_secs(1);
/// How much is read at once: two frames, so that a burst needs few reads.
const READ_BYTES: usize = 4_096;

/// What peers tell each other on a control stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// From a consumer: send your offer now, and whenever it changes.
    Subscribe,
    /// From a provider: the current signed offer, unchecked.
    Offer(Vec<u8>),
    /// From a provider: nothing changed, and I live.
    KeepAlive,
    /// From a provider: I take no new jobs.
    Draining,
}

/// Why a control stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkEnd {
    /// The peer or the connection went away.
    Closed,
    /// The peer did not take the stream.
    Refused,
    /// A frame is larger than `CONTROL_FRAME_BYTES`.
    FrameTooLarge,
    /// A frame is empty, of an unknown kind, or carries what its kind does not.
    Malformed,
    /// Frames came faster than allowed.
    TooFast,
    /// An offer did not verify.
    InvalidOffer,
    /// An offer was signed by somebody else than the peer.
    ForeignOffer,
}

impl Message {
    /// The frame that travels.
    fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len().saturating_add(1);
        let mut frame = Vec::with_capacity(length.saturating_add(HEADER_BYTES));
        frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        frame.push(kind);
        frame.extend_from_slice(payload);
        frame
    }

    fn decode(body: &[u8]) -> Result<Self, LinkEnd> {
        match body {
            [SUBSCRIBE] => Ok(Self::Subscribe),
            [KEEP_ALIVE] => Ok(Self::KeepAlive),
            [DRAINING] => Ok(Self::Draining),
            [OFFER, offer @ ..] if !offer.is_empty() => Ok(Self::Offer(offer.to_vec())),
            _ => Err(LinkEnd::Malformed),
        }
    }
}

/// Collects bytes until a frame is complete. Holds one frame and one read at most.
#[derive(Debug, Default)]
struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Result<Option<Message>, LinkEnd> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length > CONTROL_FRAME_BYTES {
            return Err(LinkEnd::FrameTooLarge);
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = Message::decode(body)?;
        self.buffer.drain(..length.saturating_add(HEADER_BYTES));
        Ok(Some(message))
    }
}

/// What is to be sent. Not a queue: a newer offer replaces an unsent one, and a sign of life is
/// said once, so that a peer that does not read costs one offer of memory.
#[derive(Debug, Default)]
struct Outgoing {
    subscribe: bool,
    offer: Option<Arc<[u8]>>,
    keep_alive: bool,
    draining: bool,
    close: bool,
    waker: Option<Waker>,
}

impl Outgoing {
    fn next_frame(&mut self) -> Option<Vec<u8>> {
        if std::mem::take(&mut self.subscribe) {
            Some(Message::encode(SUBSCRIBE, &[]))
        } else if let Some(offer) = self.offer.take() {
            Some(Message::encode(OFFER, &offer))
        } else if std::mem::take(&mut self.draining) {
            Some(Message::encode(DRAINING, &[]))
        } else if std::mem::take(&mut self.keep_alive) {
            Some(Message::encode(KEEP_ALIVE, &[]))
        } else {
            None
        }
    }
}

/// The sending end of a control stream. Dropping it closes the stream after what is to be sent.
#[derive(Debug)]
pub(crate) struct Link {
    outgoing: Arc<Mutex<Outgoing>>,
}

fn lock(outgoing: &Mutex<Outgoing>) -> MutexGuard<'_, Outgoing> {
    // Every change is a single assignment, so a poisoned lock guards a sound value.
    outgoing.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    fn change(&self, change: impl FnOnce(&mut Outgoing)) {
        let mut outgoing = lock(&self.outgoing);
        change(&mut outgoing);
        if let Some(waker) = outgoing.waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn subscribe(&self) {
        self.change(|outgoing| outgoing.subscribe = true);
    }

    pub(crate) fn offer(&self, offer: &Arc<[u8]>) {
        self.change(|outgoing| {
            outgoing.offer = Some(Arc::clone(offer));
            outgoing.draining = false;
        });
    }

    pub(crate) fn keep_alive(&self) {
        self.change(|outgoing| outgoing.keep_alive = true);
    }

    pub(crate) fn draining(&self) {
        self.change(|outgoing| {
            outgoing.offer = None;
            outgoing.draining = true;
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.change(|outgoing| outgoing.close = true);
    }
}

/// A number for each control stream, so that an end is not mistaken for that of its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub(crate) u64);

/// What a control stream yields.
#[derive(Debug)]
pub(crate) struct LinkEvent {
    pub(crate) id: LinkId,
    pub(crate) peer: PeerId,
    /// The last item of a stream is its end.
    pub(crate) item: Result<Message, LinkEnd>,
}

/// The receiving end of a control stream; also moves what is to be sent.
#[derive(Debug)]
pub(crate) struct LinkStream<S> {
    id: LinkId,
    peer: PeerId,
    stream: S,
    decoder: Decoder,
    outgoing: Arc<Mutex<Outgoing>>,
    sending: Vec<u8>,
    unflushed: bool,
    allowance: u32,
    refilled: Instant,
    ended: bool,
}

/// Wraps an open stream into its two ends.
pub(crate) fn link<S>(id: LinkId, peer: PeerId, stream: S, now: Instant) -> (Link, LinkStream<S>) {
    let outgoing = Arc::new(Mutex::new(Outgoing::default()));
    let receiving = LinkStream {
        id,
        peer,
        stream,
        decoder: Decoder::default(),
        outgoing: Arc::clone(&outgoing),
        sending: Vec::new(),
        unflushed: false,
        allowance: CONTROL_BURST,
        refilled: now,
        ended: false,
    };
    (Link { outgoing }, receiving)
}

impl<S: AsyncRead + AsyncWrite + Unpin> LinkStream<S> {
    /// Sends what there is. Ready with an end when the stream is closed, by us or by an error.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        loop {
            if self.sending.is_empty() {
                let mut outgoing = lock(&self.outgoing);
                if let Some(frame) = outgoing.next_frame() {
                    self.sending = frame;
                } else {
                    outgoing.waker = Some(cx.waker().clone());
                    let close = outgoing.close;
                    drop(outgoing);
                    if self.unflushed {
                        match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
                            Ok(()) => self.unflushed = false,
                            Err(error) => return Poll::Ready(end_of(&error)),
                        }
                    }
                    return if close { Poll::Ready(LinkEnd::Closed) } else { Poll::Pending };
                }
            }
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.sending)) {
                Ok(0) => return Poll::Ready(LinkEnd::Closed),
                Ok(sent) => {
                    self.sending.drain(..sent.min(self.sending.len()));
                    self.unflushed = true;
                }
                Err(error) => return Poll::Ready(end_of(&error)),
            }
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, LinkEnd>> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Poll::Ready(self.spend().map(|()| message));
            }
            let mut bytes = [0; READ_BYTES];
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut bytes)) {
                Ok(0) => return Poll::Ready(Err(LinkEnd::Closed)),
                Ok(read) => self.decoder.push(bytes.get(..read).unwrap_or_default()),
                Err(error) => return Poll::Ready(Err(end_of(&error))),
            }
        }
    }

    /// Takes one frame from the peer's allowance.
    fn spend(&mut self) -> Result<(), LinkEnd> {
        let now = Instant::now();
        while self.allowance < CONTROL_BURST
            && now.saturating_duration_since(self.refilled) >= REFILL
        {
            self.allowance = self.allowance.saturating_add(1);
            self.refilled = self.refilled.checked_add(REFILL).unwrap_or(now);
        }
        if self.allowance == CONTROL_BURST {
            self.refilled = now;
        }
        self.allowance = self.allowance.checked_sub(1).ok_or(LinkEnd::TooFast)?;
        Ok(())
    }
}

fn end_of(error: &std::io::Error) -> LinkEnd {
    match Refusal::of(error) {
        Some(Refusal::Busy | Refusal::Ended | Refusal::NotAVerdict) => LinkEnd::Refused,
        None => LinkEnd::Closed,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for LinkStream<S> {
    type Item = LinkEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LinkEvent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = match self.poll_send(cx) {
            Poll::Ready(end) => Err(end),
            Poll::Pending => ready!(self.poll_receive(cx)),
        };
        self.ended = item.is_err();
        Poll::Ready(Some(LinkEvent { id: self.id, peer: self.peer, item }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use futures::io::Cursor;
    use proptest::prelude::*;

    /// A peer that sends fixed bytes and swallows what it gets.
    struct Peer(Cursor<Vec<u8>>);

    impl AsyncRead for Peer {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<std::io::Result<usize>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Peer {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            Poll::Ready(Ok(buffer.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn received(bytes: Vec<u8>) -> Vec<Result<Message, LinkEnd>> {
        let peer = Peer(Cursor::new(bytes));
        let (_link, stream) = link(LinkId(0), PeerId::random(), peer, Instant::now());
        futures::executor::block_on(stream.map(|event| event.item).collect())
    }

    #[test]
    fn frames_are_frozen() {
        assert_eq!(Message::encode(SUBSCRIBE, &[]), [0, 0, 0, 1, 1]);
        assert_eq!(Message::encode(OFFER, &[7, 8]), [0, 0, 0, 3, 2, 7, 8]);
        assert_eq!(Message::encode(KEEP_ALIVE, &[]), [0, 0, 0, 1, 3]);
        assert_eq!(Message::encode(DRAINING, &[]), [0, 0, 0, 1, 4]);
    }

    #[test]
    fn messages_arrive_in_order_and_the_end_is_last() {
        let bytes = [0, 0, 0, 1, 1, 0, 0, 0, 3, 2, 7, 8, 0, 0, 0, 1, 4].to_vec();
        assert_eq!(
            received(bytes),
            [
                Ok(Message::Subscribe),
                Ok(Message::Offer(vec![7, 8])),
                Ok(Message::Draining),
                Err(LinkEnd::Closed)
            ]
        );
    }

    #[test]
    fn hostile_frames_end_the_stream_with_their_reason() {
        assert_eq!(received(vec![0, 0, 8, 1, 2]), [Err(LinkEnd::FrameTooLarge)]);
        assert_eq!(received(vec![0xff; 64]), [Err(LinkEnd::FrameTooLarge)]);
        assert_eq!(received(vec![0, 0, 0, 0]), [Err(LinkEnd::Malformed)], "empty");
        assert_eq!(received(vec![0, 0, 0, 1, 9]), [Err(LinkEnd::Malformed)], "unknown kind");
        assert_eq!(received(vec![0, 0, 0, 1, 2]), [Err(LinkEnd::Malformed)], "offer without offer");
        assert_eq!(received(vec![0, 0, 0, 2, 1, 1]), [Err(LinkEnd::Malformed)], "payload");
        assert_eq!(received(vec![0, 0, 0, 5, 2]), [Err(LinkEnd::Closed)], "truncated");
    }

    #[test]
    fn a_flood_ends_the_stream() {
        let items = received([0, 0, 0, 1, 3].repeat(1000));
        assert_eq!(items.last(), Some(&Err(LinkEnd::TooFast)));
        assert_eq!(items.len(), usize::try_from(CONTROL_BURST).unwrap() + 1);
    }

    #[test]
    fn a_newer_offer_replaces_an_unsent_one_and_draining_replaces_both() {
        let unsent = Some(Arc::from([1u8].as_slice()));
        let outgoing = Outgoing { offer: unsent, ..Outgoing::default() };
        let outgoing = Arc::new(Mutex::new(outgoing));
        let link = Link { outgoing: Arc::clone(&outgoing) };
        link.offer(&Arc::from([2u8].as_slice()));
        assert_eq!(lock(&outgoing).next_frame(), Some(vec![0, 0, 0, 2, 2, 2]));
        link.offer(&Arc::from([3u8].as_slice()));
        link.draining();
        assert_eq!(lock(&outgoing).next_frame(), Some(vec![0, 0, 0, 1, 4]));
        assert_eq!(lock(&outgoing).next_frame(), None);
    }

    /// A peer that says nothing and keeps what it gets.
    struct Listener(Arc<Mutex<Vec<u8>>>);

    impl AsyncRead for Listener {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<std::io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Listener {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            // Half of it at a time, so that partial writes are exercised.
            let taken = buffer.len().div_ceil(2);
            self.0.lock().unwrap().extend_from_slice(&buffer[..taken]);
            Poll::Ready(Ok(taken))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_dropped_link_sends_what_is_due_and_then_ends() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = Listener(Arc::clone(&heard));
        let (link, mut stream) = link(LinkId(0), PeerId::random(), listener, Instant::now());
        link.draining();
        drop(link);
        let end = futures::executor::block_on(stream.next()).unwrap().item;
        assert_eq!(end, Err(LinkEnd::Closed));
        assert!(futures::executor::block_on(stream.next()).is_none());
        assert_eq!(*heard.lock().unwrap(), [0, 0, 0, 1, 4]);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_always_end(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let items = received(bytes);
            prop_assert!(items.last().is_some_and(Result::is_err));
        }
    }
}
