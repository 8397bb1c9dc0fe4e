//! What lies between two places: delay, jitter, loss; and how bytes become packets.
//!
//! Owns: the port that a run's model of the Internet fills, and two plain models.
//! Must not: draw. The network draws, so that a model is a table and nothing more.

use std::time::Duration;

use crate::node::Place;

/// A share in millionths, such as a probability of loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartsPerMillion(pub u32);

impl PartsPerMillion {
    /// All of it.
    pub const ALL: Self = Self(1_000_000);
}

/// The way from one place to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// One-way delay, half of a round trip.
    pub delay: Duration,
    /// The most that a packet is late on top of it; each draws its own share, all equally likely.
    pub jitter: Duration,
    /// Packets that are lost. Streams are reliable, so a loss shows as the delay until the packet
    /// has been sent again.
    pub loss: PartsPerMillion,
}

/// A model of the network between places.
pub trait Links {
    /// The way from `from` to `to`, both of which may be the same place.
    fn path(&self, from: Place, to: Place) -> Path;
}

/// The same way between any two nodes. For tests and first steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uniform(pub Path);

impl Uniform {
    /// A network of equal round-trip times without jitter and loss.
    #[must_use]
    pub fn round_trip(time: Duration) -> Self {
        Self(Path { delay: time / 2, ..Path::default() })
    }
}

impl Links for Uniform {
    fn path(&self, _: Place, _: Place) -> Path {
        self.0
    }
}

/// Places with a table of the round-trip times between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundTrips {
    places: usize,
    one_way: Vec<Duration>,
    /// Jitter as a share of the delay. Default 5 %.
    pub jitter: PartsPerMillion,
    /// Loss on every way. Default none.
    pub loss: PartsPerMillion,
}

/// A table that is not square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {row} of the round-trip times has {entries} entries; there are {rows} rows")]
pub struct NotSquare {
    row: usize,
    entries: usize,
    rows: usize,
}

impl RoundTrips {
    /// From the round-trip time of each place (row) to each place (column).
    pub fn new(table: &[Vec<Duration>]) -> Result<Self, NotSquare> {
        let rows = table.len();
        let uneven = table.iter().enumerate().find(|(_, entries)| entries.len() != rows);
        if let Some((row, entries)) = uneven {
            return Err(NotSquare { row, entries: entries.len(), rows });
        }
        let one_way = table.iter().flatten().map(|time| *time / 2).collect();
        Ok(Self {
            places: rows,
            one_way,
            jitter: PartsPerMillion(50_000),
            loss: PartsPerMillion(0),
        })
    }
}

impl Links for RoundTrips {
    /// A place beyond the table counts as one within it, modulo its size.
    fn path(&self, from: Place, to: Place) -> Path {
        let place = |it: Place| usize::from(it.0).checked_rem(self.places).unwrap_or(0);
        let entry = place(from).saturating_mul(self.places).saturating_add(place(to));
        let delay = self.one_way.get(entry).copied().unwrap_or_default();
        let jitter = delay.saturating_mul(self.jitter.0) / PartsPerMillion::ALL.0;
        Path { delay, jitter, loss: self.loss }
    }
}

/// How the modelled transport spends bytes and time. The defaults are QUIC's over IPv4, with the
/// time-outs of libp2p-quic 0.14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Payload of a packet. Default 1,200 bytes, QUIC's minimum (RFC 9000, section 14).
    pub packet: u32,
    /// What a packet has besides its payload. Default 58 bytes: Ethernet 14, IPv4 20, UDP 8, QUIC's
    /// short header and tag about 16.
    pub overhead: u32,
    /// What a received packet causes in the other direction. Default 33 bytes: an acknowledgement of
    /// 66 for every second packet.
    pub acknowledgement: u32,
    /// Bytes of a handshake from the dialling side. Default 2,400: a client hello with a hybrid
    /// post-quantum key share fills two packets of 1,200.
    pub hello: u32,
    /// Bytes of a handshake from the listening side. Default 3,600: the same, and a certificate.
    pub reply: u32,
    /// Processor time of a handshake at each end. Default 1 ms, measured with libp2p-quic 0.14.
    pub handshake_cpu: Duration,
    /// When a dial without an answer is given up. Default 5 s.
    pub dial_timeout: Duration,
    /// When a connection from which nothing is heard is given up. Default 10 s.
    pub idle_timeout: Duration,
    /// How often a connection without traffic shows that it lives. Default 5 s.
    pub keep_alive: Duration,
    /// Bytes of a stream that may be on the way or unread. Default 1 MiB.
    pub stream_window: u32,
    /// Streams of a connection that one side may have opened and not closed. Default 256.
    pub streams: u32,
    /// Handshakes that a listener has not taken yet; more are not answered. Default 128.
    pub backlog: u32,
    /// How long a NAT keeps a hole open after the last packet out of it. Default 30 s, the time-out
    /// of Linux's connection tracking for UDP.
    pub pinhole: Duration,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            packet: 1200,
            overhead: 58,
            acknowledgement: 33,
            hello: 2400,
            reply: 3600,
            handshake_cpu: Duration::from_millis(1),
            dial_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(5),
            stream_window: 1 << 20,
            streams: 256,
            backlog: 128,
            pinhole: Duration::from_secs(30),
        }
    }
}
