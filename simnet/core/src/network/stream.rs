//! A stream: two halves, each a reliable, ordered run of bytes with a window.
//!
//! Owns: reading, writing, closing, and the window. Must not: know links.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::task::{Context, Poll, Waker};

use super::connection::Pair;
use super::{Connection, Event, Network, Side, now, park};
use crate::node::NodeIndex;
use crate::slab::Id;
use crate::traffic::{Label, Sniffed, Sniffer};

pub(crate) struct Stream {
    pub(super) connection: Id<Connection>,
    opener: Side,
    nodes: Pair<NodeIndex>,
    pub(super) label: Label,
    sniffer: Option<Box<Sniffer>>,
    /// By the side that writes.
    pub(super) halves: Pair<Half>,
    /// Whether the other side has heard of it.
    pub(super) is_announced: bool,
    is_dropped: Pair<bool>,
}

/// One direction of a stream.
#[derive(Default)]
pub(super) struct Half {
    /// Written, and not yet on its way.
    pub(super) unsent: Vec<u8>,
    pub(super) is_unsent: bool,
    is_finished: bool,
    pub(super) is_finish_sent: bool,
    /// Chunks sent so far; the next has this number.
    pub(super) sent: u64,
    /// Chunks that have arrived in order, and those that came too early.
    arrived: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that have been read.
    offset: usize,
    expected: u64,
    /// Few at most, and hardly ever any: a flight overtakes another only by jitter or loss.
    early: Vec<(u64, Chunk)>,
    is_end_arrived: bool,
    /// Bytes that were ever written, read, and known by the writer to have been read.
    written: u64,
    read: u64,
    credited: u64,
    /// What the writer will know, and when.
    credits: VecDeque<(u64, u64)>,
    /// Nobody reads any more, and whether the writer knows.
    is_abandoned: bool,
    is_stopped: bool,
    reading: Option<Waker>,
    writing: Option<Waker>,
}

/// What a flight carries of one stream.
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) is_last: bool,
}

/// The most that one write takes: a task that writes without end must wait for others now and then.
const MOST_AT_ONCE: usize = 64 * 1024;

impl Stream {
    pub(super) fn new(connection: Id<Connection>, opener: Side, nodes: Pair<NodeIndex>) -> Self {
        Self {
            connection,
            opener,
            nodes,
            label: Label::UNKNOWN,
            sniffer: Some(Box::default()),
            halves: Pair::default(),
            is_announced: false,
            is_dropped: Pair::default(),
        }
    }

    pub(super) const fn opener(&self) -> Side {
        self.opener
    }
}

impl Half {
    fn is_readable(&self) -> bool {
        !self.arrived.is_empty() || self.is_end_arrived
    }
}

impl Network {
    pub(crate) fn poll_read(
        &mut self,
        id: Id<Stream>,
        side: Side,
        context: &Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize, ErrorKind>> {
        let Some(stream) = self.streams.get_mut(id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset));
        };
        let half = stream.halves.at_mut(side.other());
        let mut done = 0;
        while let Some(chunk) = half.arrived.front() {
            let rest = chunk.get(half.offset..).unwrap_or_default();
            let Some(room) = into.get_mut(done..).filter(|room| !room.is_empty()) else { break };
            let count = rest.len().min(room.len());
            if let (Some(room), Some(rest)) = (room.get_mut(..count), rest.get(..count)) {
                room.copy_from_slice(rest);
            }
            done = done.saturating_add(count);
            half.offset = half.offset.saturating_add(count);
            if half.offset < chunk.len() {
                break;
            }
            half.offset = 0;
            let spent = half.arrived.pop_front();
            if let Some(spent) = spent
                && self.buffers.len() < super::SPARE_BUFFERS
                && (1..=super::SPARE_BUFFER).contains(&spent.capacity())
            {
                let mut spent = spent;
                spent.clear();
                self.buffers.push(spent);
            }
        }
        if done > 0 || into.is_empty() {
            half.read = half.read.saturating_add(u64::try_from(done).unwrap_or(0));
            self.credit(id, side.other());
            return Poll::Ready(Ok(done));
        }
        if half.is_end_arrived {
            return Poll::Ready(Ok(0));
        }
        let over = self.over(id, side);
        let Some(stream) = self.streams.get_mut(id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset));
        };
        if let Some(over) = over {
            return Poll::Ready(Err(over));
        }
        let half = stream.halves.at_mut(side.other());
        park(&mut half.reading, &mut self.retired, context);
        Poll::Pending
    }

    /// Why the stream's connection is over at this side, if it is.
    fn over(&self, id: Id<Stream>, side: Side) -> Option<ErrorKind> {
        let stream = self.streams.get(id)?;
        match self.connection(stream.connection) {
            Some(connection) => connection.ends.at(side).over,
            None => Some(ErrorKind::ConnectionReset),
        }
    }

    /// The reader took something: the writer will know one way later. As long as the window is less
    /// than half full the writer cannot tell, so nothing is kept about it.
    fn credit(&mut self, id: Id<Stream>, writer: Side) {
        let window = u64::from(self.wire.stream_window);
        let Some(stream) = self.streams.get_mut(id) else { return };
        let (from, to) = (*stream.nodes.at(writer.other()), *stream.nodes.at(writer));
        let half = stream.halves.at_mut(writer);
        if half.written.saturating_sub(half.credited) < window / 2 {
            half.credited = half.read;
            half.credits.clear();
            return;
        }
        let read = half.read;
        let is_awaited = half.writing.is_some() && half.credits.is_empty();
        let at = now().saturating_add(self.base_delay(from, to));
        if let Some(stream) = self.streams.get_mut(id) {
            let credits = &mut stream.halves.at_mut(writer).credits;
            // Updates of one moment are one.
            match credits.back_mut().filter(|last| last.0 == at) {
                Some(last) => last.1 = read,
                None => credits.push_back((at, read)),
            }
        }
        if is_awaited {
            self.schedule(at, Event::Credit(id, writer));
        }
    }

    pub(super) fn on_credit(&mut self, id: Id<Stream>, writer: Side) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let half = stream.halves.at_mut(writer);
        half.take_credits(now());
        half.is_stopped = half.is_abandoned;
        let next = half.credits.front().map(|(at, _)| *at);
        let waker = half.writing.take();
        let is_waiting = waker.is_some();
        self.wake(waker);
        // Whoever was woken may find the window full again.
        if let Some(at) = next.filter(|_| is_waiting) {
            self.schedule(at, Event::Credit(id, writer));
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        id: Id<Stream>,
        side: Side,
        context: &Context<'_>,
        from: &[u8],
    ) -> Poll<Result<usize, ErrorKind>> {
        if let Some(over) = self.over(id, side) {
            return Poll::Ready(Err(over));
        }
        let window = u64::from(self.wire.stream_window);
        let Some(stream) = self.streams.get_mut(id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset));
        };
        let half = stream.halves.at_mut(side);
        if half.is_finished || half.is_stopped {
            return Poll::Ready(Err(ErrorKind::BrokenPipe));
        }
        half.take_credits(now());
        let room = window.saturating_sub(half.written.saturating_sub(half.credited));
        let count = from.len().min(MOST_AT_ONCE).min(usize::try_from(room).unwrap_or(usize::MAX));
        if count == 0 && !from.is_empty() {
            let next = half.credits.front().map(|(at, _)| *at);
            let is_first = half.writing.is_none();
            park(&mut half.writing, &mut self.retired, context);
            if let Some(at) = next.filter(|_| is_first) {
                self.schedule(at, Event::Credit(id, side));
            }
            return Poll::Pending;
        }
        let bytes = from.get(..count).unwrap_or(from);
        if half.unsent.capacity() == 0
            && let Some(buffer) = self.buffers.pop()
        {
            half.unsent = buffer;
        }
        half.unsent.extend_from_slice(bytes);
        half.written = half.written.saturating_add(u64::try_from(count).unwrap_or(0));
        if stream.sniffer.is_some() && side == stream.opener {
            self.sniff(id, count);
        }
        self.mark_stream_unsent(id, side);
        Poll::Ready(Ok(count))
    }

    /// Reads the protocol off the last `count` bytes that the opener wrote.
    fn sniff(&mut self, id: Id<Stream>, count: usize) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let half = stream.halves.at(stream.opener);
        let start = half.unsent.len().saturating_sub(count);
        let bytes = half.unsent.get(start..).unwrap_or_default();
        match stream.sniffer.as_mut().map(|sniffer| sniffer.read(bytes)) {
            Some(Sniffed::Protocol(name)) => {
                let (label, is_new) = self.traffic.label(&name);
                if is_new {
                    self.trace.label(now(), label.0, &name);
                }
                stream.label = label;
                stream.sniffer = None;
            }
            Some(Sniffed::Never) => stream.sniffer = None,
            Some(Sniffed::NotYet) | None => {}
        }
    }

    fn mark_stream_unsent(&mut self, id: Id<Stream>, side: Side) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let connection = stream.connection;
        let half = stream.halves.at_mut(side);
        if !std::mem::replace(&mut half.is_unsent, true)
            && let Some(connection) = self.connections.get_mut(connection)
        {
            connection.ends.at_mut(side).unsent.push(id);
        }
        self.mark_unsent(connection, side);
    }

    pub(super) fn mark_unsent(&mut self, id: Id<Connection>, side: Side) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !std::mem::replace(&mut connection.ends.at_mut(side).is_unsent, true) {
            self.unsent.push((id, side));
        }
    }

    /// No more will be written at this side.
    pub(crate) fn finish(&mut self, id: Id<Stream>, side: Side) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let half = stream.halves.at_mut(side);
        if !std::mem::replace(&mut half.is_finished, true) {
            self.mark_stream_unsent(id, side);
        }
    }

    /// What leaves of this half now: all of it up to `most` bytes.
    pub(super) fn take_chunk(
        &mut self,
        id: Id<Stream>,
        side: Side,
        most: usize,
    ) -> Option<(u64, Chunk)> {
        let stream = self.streams.get_mut(id)?;
        let half = stream.halves.at_mut(side);
        let rest = match half.unsent.len() > most {
            true => half.unsent.split_off(most),
            // Most streams write once; the next write takes a buffer if there is one to spare.
            false => Vec::new(),
        };
        let bytes = std::mem::replace(&mut half.unsent, rest);
        let is_last = half.is_finished && half.unsent.is_empty() && !half.is_finish_sent;
        half.is_unsent = !half.unsent.is_empty();
        if bytes.is_empty() && !is_last {
            self.give_back(bytes);
            return None;
        }
        half.is_finish_sent |= is_last;
        let number = half.sent;
        half.sent = number.wrapping_add(1);
        Some((number, Chunk { bytes, is_last }))
    }

    /// A chunk reaches the reader of this half.
    pub(super) fn arrive(&mut self, id: Id<Stream>, writer: Side, number: u64, chunk: Chunk) {
        let Some(stream) = self.streams.get_mut(id) else {
            self.give_back(chunk.bytes);
            return;
        };
        let connection = stream.connection;
        let is_new = writer == stream.opener && !std::mem::replace(&mut stream.is_announced, true);
        let half = stream.halves.at_mut(writer);
        let mut unwanted = 0_u64;
        let mut next = half.in_order(number, chunk);
        while let Some(chunk) = next {
            half.expected = half.expected.wrapping_add(1);
            half.is_end_arrived |= chunk.is_last;
            if half.is_abandoned {
                unwanted = unwanted.saturating_add(u64::try_from(chunk.bytes.len()).unwrap_or(0));
            } else if !chunk.bytes.is_empty() {
                half.arrived.push_back(chunk.bytes);
            }
            next = half.take_early();
        }
        half.read = half.read.saturating_add(unwanted);
        let waker = if half.is_readable() { half.reading.take() } else { None };
        self.wake(waker);
        if unwanted > 0 {
            self.credit(id, writer);
        }
        if is_new {
            self.announce(connection, writer.other(), id);
        }
    }

    /// The stream's connection is over at this side: whoever waits there hears so.
    pub(super) fn end_stream(&mut self, id: Id<Stream>, side: Side) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let writing = stream.halves.at_mut(side).writing.take();
        let reading = stream.halves.at_mut(side.other()).reading.take();
        // A stream that the other side opened and that never came to be known here has nobody here.
        let is_unknown = side != stream.opener && !stream.is_announced;
        self.wake(writing);
        self.wake(reading);
        if is_unknown {
            self.drop_stream(id, side);
        }
    }

    /// The user at this side let go of the stream: it is finished, and nobody reads any more.
    pub(crate) fn drop_stream(&mut self, id: Id<Stream>, side: Side) {
        self.finish(id, side);
        let Some(stream) = self.streams.get_mut(id) else { return };
        *stream.is_dropped.at_mut(side) = true;
        let is_unheard =
            !stream.is_announced && side == stream.opener && stream.halves.at(side).written == 0;
        let connection = self.connections.get(stream.connection);
        let is_alone = connection.is_none_or(|connection| {
            // The other side never heard of it, and never will.
            let other = connection.ends.at(side.other());
            !stream.is_announced && side == stream.opener && other.over.is_some()
        });
        let is_gone = (stream.is_dropped.0 && stream.is_dropped.1) || is_unheard || is_alone;
        let half = stream.halves.at_mut(side.other());
        let is_read = half.is_end_arrived && half.arrived.is_empty();
        half.is_abandoned = true;
        half.arrived.clear();
        if is_gone {
            self.remove_stream(id);
        } else if !is_read {
            let (from, to) = (*stream.nodes.at(side), *stream.nodes.at(side.other()));
            let at = now().saturating_add(self.base_delay(from, to));
            self.schedule(at, Event::Credit(id, side.other()));
        }
    }

    fn remove_stream(&mut self, id: Id<Stream>) {
        let Some(stream) = self.streams.remove(id) else { return };
        let (connection, opener) = (stream.connection, stream.opener);
        let Pair(dialler, listener) = stream.halves;
        for half in [dialler, listener] {
            self.retired.extend([half.reading, half.writing].into_iter().flatten());
            self.give_back(half.unsent);
        }
        self.closed_one(connection, opener);
    }
}

impl Half {
    /// The chunk, if it is the next; else it is put aside.
    fn in_order(&mut self, number: u64, chunk: Chunk) -> Option<Chunk> {
        if number == self.expected {
            return Some(chunk);
        }
        self.early.push((number, chunk));
        None
    }

    /// The next chunk, if it came too early.
    fn take_early(&mut self) -> Option<Chunk> {
        let place = self.early.iter().position(|(number, _)| *number == self.expected)?;
        let (_, chunk) = self.early.swap_remove(place);
        if self.early.is_empty() {
            self.early = Vec::new();
        }
        Some(chunk)
    }

    fn take_credits(&mut self, now: u64) {
        while let Some((_, read)) = self.credits.front().filter(|(at, _)| *at <= now).copied() {
            self.credited = self.credited.max(read);
            self.credits.pop_front();
        }
    }
}
