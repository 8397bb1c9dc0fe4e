//! Bytes and packets of a run, by protocol and by node.
//!
//! Owns: the counters, and how a stream tells its protocol. Must not: decide what a byte costs.

use std::collections::BTreeMap;

use crate::node::NodeIndex;

/// What was sent under one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Times that one side sent what had piled up in a stream.
    pub segments: u64,
    /// Packets, those that were lost or doubled on the way included.
    pub packets: u64,
    /// Bytes that a program wrote.
    pub payload: u64,
    /// Bytes on the wire: payload, headers, and what was sent again.
    pub wire: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.segments = self.segments.saturating_add(other.segments);
        self.packets = self.packets.saturating_add(other.packets);
        self.payload = self.payload.saturating_add(other.payload);
        self.wire = self.wire.saturating_add(other.wire);
    }
}

/// What was sent and received under one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directions {
    /// Sent. What a partition holds back counts when it leaves.
    pub sent: Count,
    /// Received.
    pub received: Count,
}

/// A protocol's number in the order of its first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label(pub(crate) u16);

impl Label {
    /// Streams whose protocol is not known (yet): negotiation, and what is encrypted before it
    /// reaches the simulated wire.
    pub(crate) const UNKNOWN: Self = Self(0);
    pub(crate) const HANDSHAKE: Self = Self(1);
    pub(crate) const ACKNOWLEDGEMENT: Self = Self(2);
    pub(crate) const KEEP_ALIVE: Self = Self(3);
}

const FIRST: [&str; 4] = ["(unlabelled)", "(handshake)", "(acknowledgements)", "(keep-alive)"];
/// More protocols than this share the first label. A program has a dozen.
const MOST_LABELS: usize = 4096;

/// Counters by protocol, in total and by node.
#[derive(Clone, Debug)]
pub struct Traffic {
    labels: Vec<String>,
    numbers: BTreeMap<String, Label>,
    nodes: Vec<Vec<Directions>>,
}

impl Traffic {
    pub(crate) fn new() -> Self {
        let labels = FIRST.map(str::to_owned).to_vec();
        Self { labels, numbers: BTreeMap::new(), nodes: Vec::new() }
    }

    /// Protocols in the order of their first use. A stream's is the one that it negotiated first;
    /// those in parentheses are the transport's own.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(String::as_str)
    }

    /// What `node` has sent and received, by protocol.
    pub fn of(&self, node: NodeIndex) -> impl Iterator<Item = (&str, Directions)> {
        let counts = self.nodes.get(node.0 as usize).map_or(&[][..], Vec::as_slice);
        let counts = counts.iter().copied().chain(std::iter::repeat(Directions::default()));
        self.protocols().zip(counts)
    }

    /// What all nodes have sent and received, by protocol.
    #[must_use]
    pub fn total(&self) -> Vec<(&str, Directions)> {
        let mut totals = vec![Directions::default(); self.labels.len()];
        for counts in &self.nodes {
            for (total, count) in totals.iter_mut().zip(counts) {
                total.sent.add(count.sent);
                total.received.add(count.received);
            }
        }
        self.protocols().zip(totals).collect()
    }

    /// Everything that all nodes have sent.
    #[must_use]
    pub fn sent(&self) -> Count {
        let mut sum = Count::default();
        for count in self.nodes.iter().flatten() {
            sum.add(count.sent);
        }
        sum
    }

    pub(crate) fn name(&self, label: Label) -> &str {
        self.labels.get(usize::from(label.0)).map_or("", String::as_str)
    }

    /// The label of a protocol, and whether it is new.
    pub(crate) fn label(&mut self, name: &str) -> (Label, bool) {
        if let Some(label) = self.numbers.get(name) {
            return (*label, false);
        }
        if self.labels.len() >= MOST_LABELS {
            return (Label::UNKNOWN, false);
        }
        let label = Label(u16::try_from(self.labels.len()).unwrap_or(0));
        self.labels.push(name.to_owned());
        self.numbers.insert(name.to_owned(), label);
        (label, true)
    }

    fn at(&mut self, node: NodeIndex, label: Label) -> Option<&mut Directions> {
        let (node, label) = (node.0 as usize, usize::from(label.0));
        if self.nodes.len() <= node {
            self.nodes.resize(node.saturating_add(1), Vec::new());
        }
        let counts = self.nodes.get_mut(node)?;
        if counts.len() <= label {
            counts.resize(label.saturating_add(1), Directions::default());
        }
        counts.get_mut(label)
    }

    pub(crate) fn count_sent(&mut self, node: NodeIndex, label: Label, count: Count) {
        if let Some(directions) = self.at(node, label) {
            directions.sent.add(count);
        }
    }

    pub(crate) fn count_received(&mut self, node: NodeIndex, label: Label, count: Count) {
        if let Some(directions) = self.at(node, label) {
            directions.received.add(count);
        }
    }
}

/// Reads a stream's protocol off its first bytes, as multistream-select 1.0 frames them: each
/// message is a length, its text and a line feed, and the first is the negotiation's own name.
#[derive(Debug, Default)]
pub(crate) struct Sniffer {
    seen: Vec<u8>,
}

/// What a sniffer knows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// The stream speaks this.
    Protocol(String),
    /// More bytes will tell.
    NotYet,
    /// It does not negotiate as multistream-select does.
    Never,
}

impl Sniffer {
    /// Headers are shorter than this.
    const MOST: usize = 512;

    pub(crate) fn read(&mut self, bytes: &[u8]) -> Sniffed {
        let room = Self::MOST.saturating_sub(self.seen.len());
        self.seen.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or(bytes));
        let mut rest = self.seen.as_slice();
        while let Some((&length, after)) = rest.split_first() {
            let length = usize::from(length);
            // Lengths are varints; a protocol's name is shorter than 128.
            if length == 0 || length > 127 {
                return Sniffed::Never;
            }
            let Some((message, next)) = after.split_at_checked(length) else { break };
            let Some(name) = message.strip_suffix(b"\n").filter(|name| name.starts_with(b"/"))
            else {
                return Sniffed::Never;
            };
            if !name.starts_with(b"/multistream/") {
                return Sniffed::Protocol(String::from_utf8_lossy(name).into_owned());
            }
            rest = next;
        }
        if self.seen.len() < Self::MOST { Sniffed::NotYet } else { Sniffed::Never }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sniffer_reads_the_protocol_however_the_header_is_split() {
        let header = b"\x13/multistream/1.0.0\n\x10/ipfs/kad/1.0.0\n payload";
        for split in 0..header.len() {
            let mut sniffer = Sniffer::default();
            let mut sniffed = sniffer.read(&header[..split]);
            if sniffed == Sniffed::NotYet {
                sniffed = sniffer.read(&header[split..]);
            }
            assert_eq!(sniffed, Sniffed::Protocol("/ipfs/kad/1.0.0".to_owned()), "{split}");
        }
        assert_eq!(Sniffer::default().read(&[0xff; 9]), Sniffed::Never);
        assert_eq!(Sniffer::default().read(b"\x03abc"), Sniffed::Never);
    }

    #[test]
    fn totals_are_the_sum_over_nodes() {
        let mut traffic = Traffic::new();
        let (kad, new) = traffic.label("/kad");
        assert!(new && traffic.label("/kad") == (kad, false));
        let count = Count { segments: 1, packets: 2, payload: 3, wire: 4 };
        traffic.count_sent(NodeIndex(0), kad, count);
        traffic.count_sent(NodeIndex(7), kad, count);
        traffic.count_received(NodeIndex(3), kad, count);
        assert_eq!(traffic.sent().wire, 8);
        let total = traffic.total();
        assert_eq!(total.last().map(|(name, it)| (*name, it.received.payload)), Some(("/kad", 3)));
        assert_eq!(traffic.of(NodeIndex(7)).last().map(|(_, it)| it.sent.packets), Some(2));
        assert_eq!(traffic.of(NodeIndex(99)).count(), 5);
    }
}
