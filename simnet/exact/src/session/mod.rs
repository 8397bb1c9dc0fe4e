//! A session's bytes: the modelled handshake, then real frames both ways over a real stream.
//!
//! Owns: what waits to be written, its bound, and how a session ends on the wire.
//! Must not: know hosts; messages go out as they are handed in, and come in through a closure.

mod frame;
pub(crate) mod handshake;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::future::{Either, select};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures_timer::Delay;

/// Messages that wait to be written. As many as the node has; when the peer does not read so many,
/// the session is over.
pub(crate) const OUTBOUND: usize = 256;
/// Time for the last messages of a session to leave, as the node has it.
const PARTING: Duration = Duration::from_secs(2);
/// How much is read at once.
const READ_BYTES: usize = 2_048;

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    closing: bool,
    waker: Option<Waker>,
}

/// What waits to be written in a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Rc<RefCell<Queue>>);

impl Outbox {
    /// Puts a message last. False when the peer does not read and there is no room.
    pub(crate) fn push(&self, message: &[u8], padding: u32) -> bool {
        let mut queue = self.0.borrow_mut();
        if queue.frames.len() >= OUTBOUND {
            return false;
        }
        queue.frames.push_back(frame::encode(message, padding));
        wake(queue.waker.take());
        true
    }

    /// Nothing more comes: the stream is closed when everything is written.
    pub(crate) fn close(&self) {
        let mut queue = self.0.borrow_mut();
        queue.closing = true;
        wake(queue.waker.take());
    }

    /// Messages that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.0.borrow().frames.len()
    }

    /// The next frame; `None` when nothing more comes.
    async fn next(&self) -> Option<Vec<u8>> {
        std::future::poll_fn(|cx| {
            let mut queue = self.0.borrow_mut();
            if let Some(frame) = queue.frames.pop_front() {
                return Poll::Ready(Some(frame));
            }
            if queue.closing {
                return Poll::Ready(None);
            }
            queue.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What comes in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A message.
    Message(Vec<u8>),
    /// The end: the peer hung up, broke the framing, or cannot be reached any more.
    End,
}

/// Carries a session until both ends have said goodbye or one is lost. `hear` gets every message
/// in order and the end last, once; false from it ends the session from this side.
pub(crate) async fn carry<S>(stream: S, outbox: &Outbox, hear: impl Fn(Heard) -> bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (reader, writer) = stream.split();
    let reading = std::pin::pin!(read(reader, &hear));
    let writing = std::pin::pin!(write(writer, outbox));
    match select(writing, reading).await {
        // We hung up, or cannot write any more. The peer's goodbye says that it has read ours.
        Either::Left((_, reading)) => {
            select(reading, Delay::new(PARTING)).await;
            hear(Heard::End);
        }
        Either::Right(((), writing)) => {
            hear(Heard::End);
            outbox.close();
            select(writing, Delay::new(PARTING)).await;
        }
    }
}

async fn read<S: AsyncRead + Unpin>(mut stream: S, hear: &impl Fn(Heard) -> bool) {
    let mut decoder = frame::Decoder::default();
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let Ok(read @ 1..) = stream.read(&mut bytes).await else {
            return;
        };
        decoder.push(bytes.get(..read).unwrap_or_default());
        loop {
            match decoder.next() {
                Ok(None) => break,
                Ok(Some(message)) => {
                    if !hear(Heard::Message(message)) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}

async fn write<S: AsyncWrite + Unpin>(mut stream: S, outbox: &Outbox) -> io::Result<()> {
    while let Some(frame) = outbox.next().await {
        stream.write_all(&frame).await?;
        if outbox.waiting() == 0 {
            stream.flush().await?;
        }
    }
    stream.close().await
}
