//! A connection: two ends, the streams between them, and how an end comes to its end.
//!
//! Owns: opening and accepting streams, closing, giving up. Must not: move bytes; flights do.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::task::{Context, Poll, Waker};

use libp2p::PeerId;

use super::{Network, Stream, now, park, record};
use crate::node::NodeIndex;
use crate::slab::Id;
use crate::trace::Kind;

/// One of the two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// The node that dialled.
    Dialler,
    /// The node that was dialled.
    Listener,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Listener,
            Self::Listener => Self::Dialler,
        }
    }
}

/// Two of something, one for each side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pair<T>(pub(crate) T, pub(crate) T);

impl<T> Pair<T> {
    pub(crate) const fn at(&self, side: Side) -> &T {
        match side {
            Side::Dialler => &self.0,
            Side::Listener => &self.1,
        }
    }

    pub(crate) const fn at_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Dialler => &mut self.0,
            Side::Listener => &mut self.1,
        }
    }
}

/// What a connection is to its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Authenticated and multiplexed, like QUIC.
    Muxed,
    /// One stream of bytes, like TCP.
    Bytes,
}

pub(crate) struct Connection {
    pub(crate) nodes: Pair<NodeIndex>,
    pub(crate) peers: Pair<Option<PeerId>>,
    pub(crate) layer: Layer,
    pub(super) ends: Pair<End>,
    /// Its streams, and names of some that are gone already.
    streams: Vec<Id<Stream>>,
    /// Whether the dialled node has the handshake's last packet.
    is_finished: bool,
    finishing: Option<Waker>,
    /// When something was last sent, keep-alives aside.
    pub(super) active_at: u64,
}

#[derive(Default)]
pub(super) struct End {
    /// Why it is over, once it is.
    pub(super) over: Option<ErrorKind>,
    /// Whether its user has let go of it.
    is_dropped: bool,
    /// Streams that the other side opened and this one did not take yet.
    inbound: VecDeque<Id<Stream>>,
    accepting: Option<Waker>,
    opening: Option<Waker>,
    watching: Option<Waker>,
    /// Streams that this side opened and that are not gone.
    pub(super) open: u32,
    /// Streams with something to send, and whether the network knows that there are any.
    pub(super) unsent: Vec<Id<Stream>>,
    pub(super) is_unsent: bool,
    /// Whether it says goodbye after what is unsent.
    pub(super) says_goodbye: bool,
    /// When it gives up, if it hears nothing until then.
    give_up_at: Option<u64>,
}

/// Below this many names, those of streams that are gone are left alone.
const SWEEP_FROM: usize = 32;

impl Network {
    pub(super) fn add_connection(
        &mut self,
        nodes: Pair<NodeIndex>,
        peers: Pair<Option<PeerId>>,
        layer: Layer,
    ) -> Id<Connection> {
        self.connections.insert(Connection {
            nodes,
            peers,
            layer,
            ends: Pair::default(),
            streams: Vec::new(),
            is_finished: false,
            finishing: None,
            active_at: now(),
        })
    }

    pub(crate) fn connection(&self, id: Id<Connection>) -> Option<&Connection> {
        self.connections.get(id)
    }

    pub(super) fn on_finished(&mut self, id: Id<Connection>) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.is_finished = true;
            let waker = connection.finishing.take();
            self.wake(waker);
        }
    }

    /// Waits, at the dialled side, for the end of the handshake.
    pub(crate) fn poll_finished(
        &mut self,
        id: Id<Connection>,
        context: &Context<'_>,
    ) -> Poll<Result<(), ErrorKind>> {
        let Some(connection) = self.connections.get_mut(id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset));
        };
        if let Some(over) = connection.ends.at(Side::Listener).over {
            return Poll::Ready(Err(over));
        }
        if connection.is_finished {
            return Poll::Ready(Ok(()));
        }
        park(&mut connection.finishing, &mut self.retired, context);
        Poll::Pending
    }

    /// The connection and its end, if that end is still in use.
    fn live(&mut self, id: Id<Connection>, side: Side) -> Result<&mut Connection, ErrorKind> {
        let connection = self.connections.get_mut(id).ok_or(ErrorKind::ConnectionReset)?;
        match connection.ends.at(side).over {
            Some(over) => Err(over),
            None => Ok(connection),
        }
    }

    pub(crate) fn poll_accept(
        &mut self,
        id: Id<Connection>,
        side: Side,
        context: &Context<'_>,
    ) -> Poll<Result<Id<Stream>, ErrorKind>> {
        let Some(connection) = self.connections.get_mut(id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset));
        };
        let end = connection.ends.at_mut(side);
        if let Some(stream) = end.inbound.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        if let Some(over) = end.over {
            return Poll::Ready(Err(over));
        }
        park(&mut end.accepting, &mut self.retired, context);
        Poll::Pending
    }

    pub(crate) fn poll_open(
        &mut self,
        id: Id<Connection>,
        side: Side,
        context: &Context<'_>,
    ) -> Poll<Result<Id<Stream>, ErrorKind>> {
        let most = self.wire.streams;
        let connection = match self.live(id, side) {
            Ok(connection) => connection,
            Err(over) => return Poll::Ready(Err(over)),
        };
        if connection.ends.at(side).open >= most {
            let end = connection.ends.at_mut(side);
            let mut slot = end.opening.take();
            park(&mut slot, &mut self.retired, context);
            if let Some(connection) = self.connections.get_mut(id) {
                connection.ends.at_mut(side).opening = slot;
            }
            return Poll::Pending;
        }
        Poll::Ready(self.open(id, side).ok_or(ErrorKind::ConnectionReset))
    }

    pub(super) fn open(&mut self, id: Id<Connection>, side: Side) -> Option<Id<Stream>> {
        let nodes = self.connections.get(id)?.nodes.clone();
        let stream = self.streams.insert(Stream::new(id, side, nodes));
        let connection = self.connections.get_mut(id)?;
        let end = connection.ends.at_mut(side);
        end.open = end.open.saturating_add(1);
        let names = &mut connection.streams;
        if names.len() >= SWEEP_FROM && names.len() == names.capacity() {
            let streams = &self.streams;
            names.retain(|stream| streams.get(*stream).is_some());
        }
        names.push(stream);
        Some(stream)
    }

    /// The stream of a connection that is nothing but one.
    pub(crate) fn only_stream(&self, id: Id<Connection>) -> Option<Id<Stream>> {
        let connection = self.connections.get(id).filter(|it| it.layer == Layer::Bytes)?;
        connection.streams.first().copied()
    }

    /// A stream that the other side opened became known at this one.
    pub(super) fn announce(&mut self, id: Id<Connection>, side: Side, stream: Id<Stream>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let end = connection.ends.at_mut(side);
        if end.over.is_some() || end.is_dropped {
            self.drop_stream(stream, side);
            return;
        }
        end.inbound.push_back(stream);
        let waker = end.accepting.take();
        self.wake(waker);
    }

    /// A stream that this side had opened is gone.
    pub(super) fn closed_one(&mut self, id: Id<Connection>, opener: Side) {
        if let Some(connection) = self.connections.get_mut(id) {
            let end = connection.ends.at_mut(opener);
            end.open = end.open.saturating_sub(1);
            let waker = end.opening.take();
            self.wake(waker);
        }
    }

    pub(crate) fn poll_watch(
        &mut self,
        id: Id<Connection>,
        side: Side,
        context: &Context<'_>,
    ) -> Poll<ErrorKind> {
        let Some(connection) = self.connections.get_mut(id) else {
            return Poll::Ready(ErrorKind::ConnectionReset);
        };
        let end = connection.ends.at_mut(side);
        if let Some(over) = end.over {
            return Poll::Ready(over);
        }
        park(&mut end.watching, &mut self.retired, context);
        Poll::Pending
    }

    /// This side wants no more: what is unsent leaves, then a goodbye.
    pub(crate) fn close(&mut self, id: Id<Connection>, side: Side) {
        let Ok(connection) = self.live(id, side) else { return };
        connection.ends.at_mut(side).says_goodbye = true;
        self.mark_unsent(id, side);
    }

    /// The user at this side let go of the connection.
    pub(crate) fn drop_connection(&mut self, id: Id<Connection>, side: Side) {
        if let Some(stream) = self.only_stream(id) {
            self.drop_stream(stream, side);
        }
        self.close(id, side);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let end = connection.ends.at_mut(side);
        end.is_dropped = true;
        let untaken = std::mem::take(&mut end.inbound);
        for stream in untaken {
            self.drop_stream(stream, side);
        }
        self.forget_if_dropped(id);
    }

    fn forget_if_dropped(&mut self, id: Id<Connection>) {
        let Some(connection) = self.connections.get(id) else { return };
        // An end that still has to say goodbye is needed until it has.
        let is_done = |end: &End| end.is_dropped && (end.over.is_some() || !end.is_unsent);
        if is_done(connection.ends.at(Side::Dialler)) && is_done(connection.ends.at(Side::Listener))
        {
            self.count_keep_alives(id);
            if let Some(connection) = self.connections.remove(id) {
                for stream in connection.streams {
                    if let Some(unknown) = self.streams.get(stream).filter(|it| !it.is_announced) {
                        self.drop_stream(stream, unknown.opener().other());
                    }
                }
                let Pair(dialler, listener) = connection.ends;
                for end in [dialler, listener] {
                    self.retired
                        .extend([end.accepting, end.opening, end.watching].into_iter().flatten());
                }
                self.retired.extend(connection.finishing);
            }
        }
    }

    /// This side is over: everyone who waits at it hears so.
    pub(super) fn end(&mut self, id: Id<Connection>, side: Side, why: ErrorKind) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let end = connection.ends.at_mut(side);
        if end.over.is_some() {
            return;
        }
        end.over = Some(why);
        end.unsent = Vec::new();
        let wakers = [end.accepting.take(), end.opening.take(), end.watching.take()];
        let finishing = (side == Side::Listener).then(|| connection.finishing.take()).flatten();
        let streams = connection.streams.clone();
        self.woken.extend(wakers.into_iter().flatten());
        self.wake(finishing);
        for stream in streams {
            self.end_stream(stream, side);
        }
        self.forget_if_dropped(id);
    }

    /// This side will give up at `at` unless [`Self::hope`] says otherwise.
    pub(super) fn give_up_at(&mut self, id: Id<Connection>, side: Side, at: u64) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let end = connection.ends.at_mut(side);
        if end.over.is_none() && end.give_up_at.is_none_or(|before| at < before) {
            end.give_up_at = Some(at);
            self.schedule(at, super::Event::GiveUp(id, side));
        }
    }

    /// Both sides hear from each other again.
    pub(super) fn hope(&mut self, id: Id<Connection>) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.ends.0.give_up_at = None;
            connection.ends.1.give_up_at = None;
        }
    }

    pub(super) fn on_give_up(&mut self, id: Id<Connection>, side: Side, at: u64) {
        let Some(connection) = self.connections.get(id) else { return };
        let end = connection.ends.at(side);
        if end.give_up_at != Some(at) || end.over.is_some() {
            return;
        }
        let (node, peer) = (*connection.nodes.at(side), *connection.nodes.at(side.other()));
        self.counts.lost = self.counts.lost.saturating_add(1);
        self.record(record(Kind::Lost).node(node).peer(peer));
        self.end(id, side, ErrorKind::TimedOut);
    }

    /// Connections with an end at `node`, and which end.
    pub(super) fn connections_of(&self, node: NodeIndex) -> Vec<(Id<Connection>, Side)> {
        let mut found = Vec::new();
        for (id, connection) in self.connections.iter() {
            for side in [Side::Dialler, Side::Listener] {
                if *connection.nodes.at(side) == node {
                    found.push((id, side));
                }
            }
        }
        found
    }
}
