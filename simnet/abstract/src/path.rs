//! How long a message takes from one host to another, and whether it gets there.
//!
//! Owns: the arithmetic of delays, from the scenario's topology. Must not: schedule anything.
//!
//! One way is the way between the regions, both last miles, and the time that the bytes need on the
//! slower of the two accesses. Jitter is drawn for each message. A lost packet costs the sender a
//! time-out of about a round trip and is sent again; nothing arrives out of order, because the
//! exact tier's sessions are streams too.

use std::sync::Arc;

use simnet_host::HostSpec;
use simnet_scenario::population::Nat;
use simnet_scenario::{Regions, Scenario};

use crate::draws::Draws;

/// Payload of a packet, as the exact tier's transport has it.
pub(crate) const PACKET: u64 = 1_200;
/// What a packet has besides.
pub(crate) const PACKET_OVERHEAD: u64 = 58;
/// What it causes in the other direction.
pub(crate) const ACKNOWLEDGEMENT: u64 = 33;

/// A host's access. Sixteen bytes, read at every message.
#[derive(Clone, Copy, Debug)]
struct Place {
    last_mile_us: u32,
    /// Picoseconds a byte.
    up: u32,
    down: u32,
    region: u16,
    public: bool,
}

/// The way from one host to another, as far as it does not change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// One way for a small packet, without jitter.
    pub(crate) one_way_us: u32,
    /// Picoseconds a byte on the slower of the two accesses.
    pub(crate) slowest: u32,
}

/// The ways between all hosts.
#[derive(Debug)]
pub(crate) struct Paths {
    places: Vec<Place>,
    /// One way between regions, in microseconds, row by row.
    ways: Vec<u32>,
    regions: usize,
    jitter_ppm: u64,
    lost_ppm: u64,
    late_ppm: u64,
    late_ns: u64,
    /// Hosts that are on the inside of each cut that holds, and the cut's number.
    cuts: Vec<(usize, Vec<bool>)>,
}

fn index(host: u32) -> usize {
    usize::try_from(host).unwrap_or(usize::MAX)
}

impl Paths {
    pub(crate) fn new(scenario: &Scenario, hosts: &[Arc<HostSpec>]) -> Self {
        let table = Regions::of(scenario.network.topology);
        let count = u16::try_from(table.names().len()).unwrap_or(u16::MAX);
        let ways = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        let ways = ways.map(|(from, to)| {
            u32::try_from(table.one_way(from, to).as_micros()).unwrap_or(u32::MAX)
        });
        let place = |spec: &Arc<HostSpec>| Place {
            last_mile_us: u32::try_from(spec.link.last_mile.as_micros()).unwrap_or(u32::MAX),
            up: picoseconds(spec.link.up.bits_per_second()),
            down: picoseconds(spec.link.down.bits_per_second()),
            region: spec.region.min(count.saturating_sub(1)),
            public: spec.link.nat == Nat::Public,
        };
        let ppm = |share: simnet_scenario::quantity::Share| share.as_billionths() / 1_000;
        Self {
            ways: ways.collect(),
            places: hosts.iter().map(place).collect(),
            regions: usize::from(count),
            jitter_ppm: ppm(scenario.network.jitter).into(),
            lost_ppm: u64::from(ppm(scenario.network.loss)) + u64::from(ppm(scenario.faults.loss)),
            late_ppm: ppm(scenario.faults.delayed).into(),
            late_ns: u64::try_from(scenario.faults.delay.duration().as_nanos()).unwrap_or(0),
            cuts: Vec::new(),
        }
    }

    /// Whether anybody can dial the host.
    pub(crate) fn is_public(&self, host: u32) -> bool {
        self.places.get(index(host)).is_some_and(|place| place.public)
    }

    /// A cut begins.
    pub(crate) fn cut(&mut self, number: usize, inside: Vec<bool>) {
        self.cuts.push((number, inside));
    }

    /// It heals.
    pub(crate) fn heal(&mut self, number: usize) {
        self.cuts.retain(|(cut, _)| *cut != number);
    }

    /// Whether anything passes between two hosts.
    #[inline]
    pub(crate) fn connected(&self, a: u32, b: u32) -> bool {
        if self.cuts.is_empty() {
            return true;
        }
        let side = |inside: &[bool], host| inside.get(index(host)).copied().unwrap_or(false);
        self.cuts.iter().all(|(_, inside)| side(inside, a) == side(inside, b))
    }

    /// The way from one host to another.
    pub(crate) fn way(&self, from: u32, to: u32) -> Way {
        let (Some(from), Some(to)) = (self.places.get(index(from)), self.places.get(index(to)))
        else {
            return Way { one_way_us: 0, slowest: 0 };
        };
        let way = usize::from(from.region) * self.regions + usize::from(to.region);
        let way = self.ways.get(way).copied().unwrap_or(0);
        let miles = from.last_mile_us.saturating_add(to.last_mile_us);
        Way { one_way_us: way.saturating_add(miles), slowest: from.up.max(to.down) }
    }

    /// One way for a small packet, in nanoseconds, without jitter.
    pub(crate) fn one_way(&self, from: u32, to: u32) -> u64 {
        u64::from(self.way(from, to).one_way_us) * 1_000
    }

    /// There and back, in nanoseconds, without jitter.
    pub(crate) fn round_trip(&self, a: u32, b: u32) -> u64 {
        self.one_way(a, b) * 2
    }

    /// One way for a message of so many bytes on the wire, in nanoseconds.
    pub(crate) fn flight(&self, from: u32, to: u32, bytes: u64, draws: &mut Draws) -> u64 {
        self.fly(self.way(from, to), bytes, draws)
    }

    /// The same, for a way that is known.
    pub(crate) fn fly(&self, way: Way, bytes: u64, draws: &mut Draws) -> u64 {
        let sending = u64::from(way.slowest) * bytes / 1_000;
        let micros = u64::from(way.one_way_us);
        let way = micros * 1_000;
        let jitter = micros * draws.below(self.jitter_ppm.max(1)) / 1_000;
        let mut more = 0;
        if self.lost_ppm > 0 && draws.millionths() < self.lost_ppm * packets(bytes) {
            more += way * 2;
        }
        if self.late_ppm > 0 && draws.millionths() < self.late_ppm {
            more += self.late_ns;
        }
        way + sending + jitter + more
    }
}

/// Bytes on the wire of so many bytes in a stream.
pub(crate) const fn on_wire(bytes: u64) -> u64 {
    bytes + packets(bytes) * PACKET_OVERHEAD
}

/// Packets of so many bytes.
pub(crate) const fn packets(bytes: u64) -> u64 {
    let packets = bytes.div_ceil(PACKET);
    if packets == 0 { 1 } else { packets }
}

/// Picoseconds a byte.
fn picoseconds(bits_per_second: u64) -> u32 {
    let picoseconds = 8_000_000_000_000_u64 / bits_per_second.max(1);
    u32::try_from(picoseconds).unwrap_or(u32::MAX)
}
