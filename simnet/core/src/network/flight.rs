//! What is on the way from one node to another, and how long it takes.
//!
//! Owns: departure, loss, jitter, arrival, and the account of packets. Must not: read or write
//! streams for anyone.
//!
//! What tasks write at one moment leaves together, once all of them have been polled: one flight for
//! each end of a connection, with the bytes of all its streams, as QUIC packs frames into packets. A
//! flight queues behind others on the sender's access line, travels, and queues on the receiver's.
//!
//! Streams are reliable and ordered, each by itself. So a lost packet shows as the time until it has
//! been sent again, a doubled one as bytes, and flights that overtake each other as a stream whose
//! later bytes wait for earlier ones. A flight arrives when the last of its packets does.

use std::io::ErrorKind;

use super::stream::Chunk;
use super::{Connection, Event, Layer, Network, Side, Stream, nanos, now, record};
use crate::links::{PartsPerMillion, Path};
use crate::node::NodeIndex;
use crate::slab::Id;
use crate::trace::{Kind, Record, digest};
use crate::traffic::{Count, Label};

/// Payload of a flight. More leaves in several.
const MOST: usize = 64 * 1024;
/// What QUIC waits for an acknowledgement beyond the round trip before it sends again: its peer's
/// largest delay (RFC 9000, section 18.2).
const ACKNOWLEDGEMENT_DELAY: u64 = 25_000_000;
/// A packet that is lost this often in a row counts as arrived: links are not that bad.
const MOST_LOSSES: u32 = 10;

pub(super) struct Flight {
    connection: Id<Connection>,
    /// The side that it flies to.
    to: Side,
    from_node: NodeIndex,
    to_node: NodeIndex,
    cargo: Vec<Cargo>,
    /// Whether the connection is over with it.
    is_goodbye: bool,
    packets: u64,
    wire: u64,
}

struct Cargo {
    stream: Id<Stream>,
    number: u64,
    label: Label,
    chunk: Chunk,
}

/// How packets fared on a way.
pub(super) struct Journey {
    pub(super) delay: u64,
    /// Packets that left once more.
    again: u64,
    /// Packets that arrived twice.
    twice: u64,
}

impl Network {
    /// Sends everything that was written since the last call. To be called once no task is ready.
    pub(crate) fn transmit(&mut self) {
        while !self.unsent.is_empty() {
            for (connection, side) in std::mem::take(&mut self.unsent) {
                self.send(connection, side);
            }
        }
    }

    fn send(&mut self, id: Id<Connection>, side: Side) {
        let Some(connection) = self.connections.get(id) else { return };
        let (from, to) = (*connection.nodes.at(side), *connection.nodes.at(side.other()));
        let is_cut = self.is_cut(from, to);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let end = connection.ends.at_mut(side);
        if end.over.is_some() {
            // Nothing leaves an end that is over, least of all that of a node which crashed.
            end.is_unsent = false;
            end.unsent.clear();
            return;
        }
        if is_cut {
            self.held_back.push((id, side));
            return;
        }
        end.is_unsent = false;
        let is_goodbye = end.says_goodbye;
        let streams = std::mem::take(&mut end.unsent);
        let mut cargo = Vec::new();
        let mut payload = 0_usize;
        for stream in streams {
            while let Some((number, chunk)) =
                self.take_chunk(stream, side, MOST.saturating_sub(payload))
            {
                payload = payload.saturating_add(chunk.bytes.len());
                let label = self.streams.get(stream).map_or(Label::UNKNOWN, |it| it.label);
                cargo.push(Cargo { stream, number, label, chunk });
                if payload >= MOST {
                    self.launch(id, side, std::mem::take(&mut cargo), false);
                    payload = 0;
                }
            }
        }
        if is_goodbye || !cargo.is_empty() {
            self.launch(id, side, cargo, is_goodbye);
        }
        if is_goodbye {
            self.end(id, side, ErrorKind::NotConnected);
        }
    }

    fn launch(&mut self, id: Id<Connection>, side: Side, cargo: Vec<Cargo>, is_goodbye: bool) {
        let Some(connection) = self.connections.get(id) else { return };
        let (from, to) = (*connection.nodes.at(side), *connection.nodes.at(side.other()));
        self.count_keep_alives(id);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.active_at = now();
        }
        let payload: usize = cargo.iter().map(|it| it.chunk.bytes.len()).sum();
        let payload = u64::try_from(payload).unwrap_or(u64::MAX);
        let packets = payload.div_ceil(u64::from(self.wire.packet).max(1)).max(1);
        let overhead = packets.saturating_mul(u64::from(self.wire.overhead));
        let wire = payload.saturating_add(overhead);
        let journey = self.travel(from, to, packets);
        // Packets that leave again are taken as average ones.
        let average = wire.checked_div(packets).unwrap_or(0);
        let again = journey.again.saturating_mul(average);
        let twice = journey.twice.saturating_mul(average);

        let mut header = Count {
            segments: 0,
            packets: packets.saturating_add(journey.again),
            payload: 0,
            wire: overhead.saturating_add(again),
        };
        for item in &cargo {
            let bytes = u64::try_from(item.chunk.bytes.len()).unwrap_or(0);
            let mut count = std::mem::take(&mut header);
            count.segments = 1;
            count.payload = bytes;
            count.wire = count.wire.saturating_add(bytes);
            self.traffic.count_sent(from, item.label, count);
        }
        if header.packets > 0 {
            self.traffic.count_sent(from, Label::HANDSHAKE, header);
        }

        let departs = self.depart(from, wire.saturating_add(again));
        let down = self.node(to).map_or(0, |node| serialisation(wire, node.spec.access.down));
        let arrives = departs.saturating_add(journey.delay).saturating_add(down);
        let flight = self.flights.insert(Flight {
            connection: id,
            to: side.other(),
            from_node: from,
            to_node: to,
            cargo,
            is_goodbye,
            packets: packets.saturating_add(journey.twice),
            wire: wire.saturating_add(twice),
        });
        self.schedule(arrives, Event::Arrive(flight));
    }

    /// Puts bytes on a node's access line; when the last of them has left.
    pub(super) fn depart(&mut self, from: NodeIndex, wire: u64) -> u64 {
        let now = now();
        let Some(node) = self.node_mut(from) else { return now };
        node.up_free =
            node.up_free.max(now).saturating_add(serialisation(wire, node.spec.access.up));
        node.up_free
    }

    fn path(&self, from: NodeIndex, to: NodeIndex) -> (Path, u64) {
        let (Some(a), Some(b)) = (self.node(from), self.node(to)) else {
            return (Path::default(), 0);
        };
        let path = self.links.path(a.spec.place, b.spec.place);
        let miles = a.spec.last_mile.saturating_add(b.spec.last_mile);
        (path, nanos(path.delay.saturating_add(miles)))
    }

    /// One-way delay without jitter, loss and queues.
    pub(super) fn base_delay(&self, from: NodeIndex, to: NodeIndex) -> u64 {
        let (_, delay) = self.path(from, to);
        delay.saturating_add(nanos(self.faults.between(from, to).delay))
    }

    /// Draws what happens to packets on the way: how late the last of them is.
    pub(super) fn travel(&mut self, from: NodeIndex, to: NodeIndex, packets: u64) -> Journey {
        let (path, delay) = self.path(from, to);
        let fault = self.faults.between(from, to);
        let delay = delay.saturating_add(nanos(fault.delay));
        let jitter = nanos(path.jitter.saturating_add(fault.jitter));
        let late = if jitter == 0 { 0 } else { self.draw_below(jitter) };
        let loss = path.loss.0.saturating_add(fault.loss.0).min(900_000);
        let mut journey = Journey { delay: delay.saturating_add(late), again: 0, twice: 0 };
        let repeat = delay.saturating_mul(2).saturating_add(ACKNOWLEDGEMENT_DELAY);
        let mut worst = 0_u64;
        if loss > 0 {
            for _ in 0..packets {
                let mut losses = 0;
                while losses < MOST_LOSSES && self.draw_share(PartsPerMillion(loss)) {
                    losses = losses.saturating_add(1);
                }
                journey.again = journey.again.saturating_add(u64::from(losses));
                // Each time the sender waits twice as long as before (RFC 9002, section 6.2).
                let factor = 1_u64.checked_shl(losses).unwrap_or(u64::MAX).saturating_sub(1);
                worst = worst.max(repeat.saturating_mul(factor));
            }
        }
        if fault.duplicated.0 > 0 {
            for _ in 0..packets {
                journey.twice += u64::from(self.draw_share(fault.duplicated));
            }
        }
        if fault.reordered.0 > 0 && self.draw_share(fault.reordered) {
            worst = worst.saturating_add(self.draw_below(delay.saturating_mul(2).max(1)));
        }
        journey.delay = journey.delay.saturating_add(worst);
        journey
    }

    fn draw_share(&mut self, share: PartsPerMillion) -> bool {
        self.draw_below(u64::from(PartsPerMillion::ALL.0)) < u64::from(share.0)
    }

    /// At the receiver's access line, in the order of arrival: a flight that finds it busy waits.
    pub(super) fn on_arrive(&mut self, id: Id<Flight>) {
        let Some(flight) = self.flights.get(id) else { return };
        let (to, wire, now) = (flight.to_node, flight.wire, now());
        let Some(node) = self.node_mut(to) else { return };
        let takes = serialisation(wire, node.spec.access.down);
        // The time to pass an idle line is in the moment of arrival already.
        let done = node.down_free.saturating_add(takes).max(now);
        node.down_free = done;
        if done > now {
            self.schedule(done, Event::Deliver(id));
        } else {
            self.on_deliver(id);
        }
    }

    pub(super) fn on_deliver(&mut self, id: Id<Flight>) {
        let Some(flight) = self.flights.remove(id) else { return };
        let Flight { connection, to, from_node, to_node, cargo, is_goodbye, packets, wire } =
            flight;
        let is_heard = self.is_up(to_node)
            && self.connection(connection).is_some_and(|it| it.ends.at(to).over.is_none());
        if !is_heard {
            for item in cargo {
                self.give_back(item.chunk.bytes);
            }
            return;
        }
        let mut size = 0_u64;
        let mut content = u64::from(is_goodbye);
        for item in &cargo {
            content = digest(content.wrapping_add(item.number), &item.chunk.bytes);
            size = size.saturating_add(u64::try_from(item.chunk.bytes.len()).unwrap_or(0));
        }
        let label = cargo.first().map_or(Label::HANDSHAKE, |it| it.label);
        self.counts.deliveries = self.counts.deliveries.wrapping_add(1);
        self.record(Record {
            label: label.0,
            size: u32::try_from(size).unwrap_or(u32::MAX),
            digest: content,
            ..record(Kind::Delivery).node(to_node).peer(from_node)
        });
        self.count_arrival(from_node, to_node, &cargo, packets, wire.saturating_sub(size));
        for Cargo { stream, number, chunk, .. } in cargo {
            self.arrive(stream, to.other(), number, chunk);
        }
        if is_goodbye {
            self.end(connection, to, ErrorKind::ConnectionAborted);
        }
    }

    fn count_arrival(
        &mut self,
        from: NodeIndex,
        to: NodeIndex,
        cargo: &[Cargo],
        packets: u64,
        overhead: u64,
    ) {
        let mut header = Count { segments: 0, packets, payload: 0, wire: overhead };
        for item in cargo {
            let bytes = u64::try_from(item.chunk.bytes.len()).unwrap_or(0);
            let mut count = std::mem::take(&mut header);
            count.segments = 1;
            count.payload = bytes;
            count.wire = count.wire.saturating_add(bytes);
            self.traffic.count_received(to, item.label, count);
        }
        if header.packets > 0 {
            self.traffic.count_received(to, Label::HANDSHAKE, header);
        }
        let acknowledgements = Count {
            segments: 0,
            packets: packets.div_ceil(2),
            payload: 0,
            wire: packets.saturating_mul(u64::from(self.wire.acknowledgement)),
        };
        self.traffic.count_sent(to, Label::ACKNOWLEDGEMENT, acknowledgements);
        self.traffic.count_received(from, Label::ACKNOWLEDGEMENT, acknowledgements);
    }

    /// Accounts for what a quiet connection has sent to show that it lives: in every interval one
    /// packet from each node. They cost bytes and no events.
    pub(super) fn count_keep_alives(&mut self, id: Id<Connection>) {
        let interval = nanos(self.wire.keep_alive);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let quiet = now().saturating_sub(connection.active_at);
        let times = quiet.checked_div(interval).unwrap_or(0);
        if times == 0 || connection.layer != Layer::Muxed {
            return;
        }
        connection.active_at = connection.active_at.saturating_add(times.saturating_mul(interval));
        let nodes = [connection.nodes.0, connection.nodes.1];
        let wire = times.saturating_mul(u64::from(self.wire.overhead));
        let count = Count { segments: 0, packets: times, payload: 0, wire };
        for node in nodes {
            self.traffic.count_sent(node, Label::KEEP_ALIVE, count);
            self.traffic.count_received(node, Label::KEEP_ALIVE, count);
        }
    }

    /// Brings the account of keep-alives up to date.
    pub(crate) fn settle_keep_alives(&mut self) {
        let open: Vec<_> = self.connections.iter().map(|(id, _)| id).collect();
        for connection in open {
            self.count_keep_alives(connection);
        }
    }

    /// When the two nodes of a connection last heard from each other, keep-alives included.
    pub(super) fn last_heard(&self, id: Id<Connection>) -> u64 {
        let Some(connection) = self.connection(id) else { return now() };
        let interval = nanos(self.wire.keep_alive).max(1);
        let quiet = now().saturating_sub(connection.active_at);
        now().saturating_sub(quiet % interval)
    }
}

/// Nanoseconds that bytes take to pass a line of so many bits per second.
fn serialisation(bytes: u64, bits_per_second: u64) -> u64 {
    let bits = u128::from(bytes).saturating_mul(8_000_000_000);
    let nanos = bits.checked_div(u128::from(bits_per_second)).unwrap_or(0);
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_hundred_megabits_takes_80_ns_a_byte() {
        assert_eq!(serialisation(1, 100_000_000), 80);
        assert_eq!(serialisation(u64::MAX, 1), u64::MAX);
        assert_eq!(serialisation(9, 0), 0, "no rate means no limit");
    }
}
