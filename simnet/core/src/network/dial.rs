//! Handshakes: from an address to a connection, or to a time-out.
//!
//! Owns: who can be reached under which address, one round trip of handshake, NAT holes.
//! Must not: know libp2p's transports; they wait for an [`Outcome`] here.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::task::{Context, Poll, Waker};

use super::connection::Pair;
use super::{Connection, Event, Layer, Network, Side, nanos, now, park, record};
use crate::node::{Nat, NodeIndex};
use crate::slab::Id;
use crate::trace::Kind;
use crate::traffic::{Count, Label};

/// What is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) ip: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) layer: Layer,
}

/// How a dial ended: the connection, and the side of it that the dialling node has. After a hole
/// was punched that may be the listener's.
pub(crate) type Outcome = Result<(Id<Connection>, Side), ErrorKind>;

pub(crate) struct Dial {
    from: NodeIndex,
    target: Target,
    begun: u64,
    connection: Option<Id<Connection>>,
    outcome: Option<Outcome>,
    waiting: Option<Waker>,
}

/// Bytes of a TCP segment without data.
const TCP_HANDSHAKE: u32 = 60;

impl Network {
    /// Starts to dial. With `punches`, opens a hole in the own NAT and waits for the target to dial
    /// instead (libp2p's DCUtR).
    pub(crate) fn dial(&mut self, from: NodeIndex, target: Target, punches: bool) -> Id<Dial> {
        let begun = now();
        let dial = self.dials.insert(Dial {
            from,
            target,
            begun,
            connection: None,
            outcome: None,
            waiting: None,
        });
        self.counts.dials = self.counts.dials.wrapping_add(1);
        let Some(&to) = self.directory.get(&target.ip) else {
            self.schedule(
                begun.saturating_add(nanos(self.wire.dial_timeout)),
                Event::NoAnswer(dial),
            );
            return dial;
        };
        self.open_pinhole(from, to);
        if punches {
            if let Some(node) = self.node_mut(from) {
                node.punching.push(dial);
            }
            self.schedule(
                begun.saturating_add(nanos(self.wire.dial_timeout)),
                Event::NoAnswer(dial),
            );
            return dial;
        }
        let (hello, _) = self.handshake_bytes(target.layer);
        let arrives = self.send_handshake(from, to, hello);
        self.schedule(arrives, Event::Hello(dial));
        dial
    }

    fn handshake_bytes(&self, layer: Layer) -> (u32, u32) {
        match layer {
            Layer::Muxed => (self.wire.hello, self.wire.reply),
            Layer::Bytes => (TCP_HANDSHAKE, TCP_HANDSHAKE),
        }
    }

    fn handshake_cpu(&self, layer: Layer) -> u64 {
        match layer {
            Layer::Muxed => nanos(self.wire.handshake_cpu),
            Layer::Bytes => 0,
        }
    }

    fn send_handshake(&mut self, from: NodeIndex, to: NodeIndex, bytes: u32) -> u64 {
        let packets = u64::from(bytes.div_ceil(self.wire.packet.max(1)).max(1));
        let journey = self.travel(from, to, packets);
        let overhead = packets.saturating_mul(u64::from(self.wire.overhead));
        let wire = u64::from(bytes).saturating_add(overhead);
        let count = Count { segments: 1, packets, payload: u64::from(bytes), wire };
        self.traffic.count_sent(from, Label::HANDSHAKE, count);
        self.traffic.count_received(to, Label::HANDSHAKE, count);
        self.depart(from, wire).saturating_add(journey.delay)
    }

    fn open_pinhole(&mut self, node: NodeIndex, peer: NodeIndex) {
        let until = now().saturating_add(nanos(self.wire.pinhole));
        if let Some(node) = self.node_mut(node).filter(|node| node.spec.nat != Nat::Open) {
            node.pinholes.insert(peer, until);
            // Holes that have closed are only in the way.
            let now = now();
            if node.pinholes.len() > 256 {
                node.pinholes.retain(|_, until| *until > now);
            }
        }
    }

    /// The node that answers at an address, if `from` gets through to it.
    fn reach(&self, from: NodeIndex, target: Target) -> Option<NodeIndex> {
        let to = *self.directory.get(&target.ip)?;
        let node = self.node(to)?;
        let is_open = match node.spec.nat {
            Nat::Open => true,
            Nat::Pinholes | Nat::Symmetric => {
                node.pinholes.get(&from).is_some_and(|until| *until > now())
            }
        };
        let answers = node.is_up && node.listener.is_some() && !self.is_cut(from, to);
        (answers && is_open && self.public_port(to, from) == target.port).then_some(to)
    }

    pub(super) fn on_hello(&mut self, id: Id<Dial>) {
        let Some(dial) = self.dials.get(id) else { return };
        let (from, target, begun) = (dial.from, dial.target, dial.begun);
        let gives_up = begun.saturating_add(nanos(self.wire.dial_timeout));
        let backlog = usize::try_from(self.wire.backlog).unwrap_or(usize::MAX);
        let Some(to) = self.reach(from, target) else {
            self.refuse(id, gives_up);
            return;
        };
        let Some(node) = self.node(to).filter(|node| node.inbox.len() < backlog) else {
            self.schedule(gives_up, Event::NoAnswer(id));
            return;
        };
        let peers = Pair(self.node(from).and_then(|node| node.peer), node.peer);
        let connection = self.add_connection(Pair(from, to), peers, target.layer);
        if target.layer == Layer::Bytes {
            // Its only stream; both ends know it from the start.
            let stream = self.open(connection, Side::Dialler);
            if let Some(stream) = stream.and_then(|stream| self.streams.get_mut(stream)) {
                stream.is_announced = true;
            }
        }
        if let Some(dial) = self.dials.get_mut(id) {
            dial.connection = Some(connection);
        }
        self.record(record(Kind::Dialled).node(to).peer(from));
        self.accept(from, to, connection);
        let (_, reply) = self.handshake_bytes(target.layer);
        let cpu = self.handshake_cpu(target.layer);
        let arrives = self.send_handshake(to, from, reply);
        self.schedule(arrives.saturating_add(cpu).saturating_add(cpu), Event::Reply(id));
    }

    /// Nobody answers. A machine that is up refuses TCP at once; QUIC is met with silence.
    fn refuse(&mut self, id: Id<Dial>, gives_up: u64) {
        let Some(dial) = self.dials.get(id) else { return };
        let (from, target) = (dial.from, dial.target);
        let to = self.directory.get(&target.ip).copied();
        let to = to.filter(|to| {
            let is_open = self.node(*to).is_some_and(|it| it.is_up && it.spec.nat == Nat::Open);
            is_open && !self.is_cut(from, *to)
        });
        match to.filter(|_| target.layer == Layer::Bytes) {
            Some(to) => {
                let arrives = self.send_handshake(to, from, TCP_HANDSHAKE);
                self.schedule(arrives.min(gives_up), Event::NoAnswer(id));
            }
            None => self.schedule(gives_up, Event::NoAnswer(id)),
        }
    }

    /// The dialled node gets the connection: through a dial that punches for it, or its listener.
    fn accept(&mut self, from: NodeIndex, to: NodeIndex, connection: Id<Connection>) {
        let ip = self.node(from).map(|node| node.ip);
        let punching = self.node(to).map_or(&[][..], |node| node.punching.as_slice());
        let waits = |dial: &&Id<Dial>| {
            self.dials.get(**dial).is_some_and(|dial| Some(dial.target.ip) == ip)
        };
        if let Some(dial) = punching.iter().find(waits).copied() {
            self.settle(dial, Ok((connection, Side::Listener)));
            return;
        }
        let Some(node) = self.node_mut(to) else { return };
        node.inbox.push_back(connection);
        let waker = node.listening.take();
        self.wake(waker);
    }

    pub(super) fn on_reply(&mut self, id: Id<Dial>) {
        let Some(dial) = self.dials.get(id) else { return };
        let Some(connection) = dial.connection else { return };
        let (from, gives_up) =
            (dial.from, dial.begun.saturating_add(nanos(self.wire.dial_timeout)));
        let ends = self.connection(connection).map(|it| (it.nodes.1, it.ends.1.over));
        match ends {
            Some((to, None)) if now() < gives_up && !self.is_cut(from, to) => {
                let cpu = self.connection(connection).map_or(0, |it| self.handshake_cpu(it.layer));
                let arrives = self.send_handshake(from, to, TCP_HANDSHAKE).saturating_add(cpu);
                self.schedule(arrives, Event::Finished(connection));
                self.counts.connected = self.counts.connected.wrapping_add(1);
                self.record(record(Kind::Connected).node(from).peer(to));
                self.settle(id, Ok((connection, Side::Dialler)));
            }
            // The other node fell away, or the answer came too late.
            _ => self.schedule(gives_up.max(now()), Event::NoAnswer(id)),
        }
    }

    pub(super) fn on_no_answer(&mut self, id: Id<Dial>) {
        let Some(dial) = self.dials.get(id).filter(|dial| dial.outcome.is_none()) else { return };
        let (from, begun) = (dial.from, dial.begun);
        let why = match now().saturating_sub(begun) >= nanos(self.wire.dial_timeout) {
            true => ErrorKind::TimedOut,
            false => ErrorKind::ConnectionRefused,
        };
        self.counts.failed_dials = self.counts.failed_dials.wrapping_add(1);
        self.record(record(Kind::DialFailed).node(from));
        self.settle(id, Err(why));
    }

    fn settle(&mut self, id: Id<Dial>, outcome: Outcome) {
        let Some(dial) = self.dials.get_mut(id) else { return };
        dial.outcome = Some(outcome);
        let waker = dial.waiting.take();
        let from = dial.from;
        if let Some(node) = self.node_mut(from) {
            node.punching.retain(|it| *it != id);
        }
        self.wake(waker);
    }

    pub(crate) fn poll_dial(&mut self, id: Id<Dial>, context: &Context<'_>) -> Poll<Outcome> {
        let Some(dial) = self.dials.get_mut(id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset));
        };
        match dial.outcome.take() {
            Some(outcome) => {
                self.dials.remove(id);
                Poll::Ready(outcome)
            }
            None => {
                park(&mut dial.waiting, &mut self.retired, context);
                Poll::Pending
            }
        }
    }

    /// The user no longer waits for this dial.
    pub(crate) fn drop_dial(&mut self, id: Id<Dial>) {
        let Some(dial) = self.dials.remove(id) else { return };
        self.retired.extend(dial.waiting);
        if let Some(node) = self.node_mut(dial.from) {
            node.punching.retain(|it| *it != id);
        }
        let orphan = match dial.outcome {
            Some(Ok(held)) => Some(held),
            Some(Err(_)) | None => dial.connection.map(|connection| (connection, Side::Dialler)),
        };
        if let Some((connection, side)) = orphan {
            self.drop_connection(connection, side);
        }
    }

    /// The next connection that someone else dialled to `node`.
    pub(crate) fn poll_listen(
        &mut self,
        node: NodeIndex,
        context: &Context<'_>,
    ) -> Poll<Id<Connection>> {
        let Some(it) = self.nodes.get_mut(node.0 as usize) else { return Poll::Pending };
        match it.inbox.pop_front() {
            Some(connection) => Poll::Ready(connection),
            None => {
                park(&mut it.listening, &mut self.retired, context);
                Poll::Pending
            }
        }
    }
}
