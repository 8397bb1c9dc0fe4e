//! A simulated machine as the network sees it: where it stands, how fast its access is, its address.
//!
//! Owns: what is fixed when a node is added. Must not: know what runs on it.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A node's number: nodes count from zero in the order in which they are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u32);

impl fmt::Display for NodeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// Where a node stands: a number that the [`Links`](crate::Links) of the run give a meaning, such as
/// a region of the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u16);

/// What stands between a node and the Internet. The terms are those of RFC 4787.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nat {
    /// Nothing: everyone can dial it.
    #[default]
    Open,
    /// Its packets leave from one public port, and only those to whom it has sent lately can reach
    /// it there (endpoint-independent mapping, address-dependent filtering). Can be hole-punched.
    Pinholes,
    /// Its packets leave from another public port for every peer, and only that peer can answer
    /// there (address-dependent mapping). What one peer sees of it is of no use to another.
    Symmetric,
}

/// Rates at which a node's access line sends and receives, in bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// From the node to the network.
    pub up: u64,
    /// From the network to the node.
    pub down: u64,
}

impl Access {
    /// The same rate both ways.
    #[must_use]
    pub const fn symmetric(bits_per_second: u64) -> Self {
        Self { up: bits_per_second, down: bits_per_second }
    }
}

/// A node to be added to a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Where it stands.
    pub place: Place,
    /// One-way delay of its access line, on top of what lies between two places. Default 1 ms: a
    /// data centre's; lines of homes have 8 to 25 ms.
    pub last_mile: Duration,
    /// Rates of its access line. Default 100 Mbit/s both ways.
    pub access: Access,
    /// What stands in front of it. Default nothing.
    pub nat: Nat,
    /// Its public address. By default every node gets one of its own in a /24 of its own, from
    /// 11.0.0.0/8 upward, so that rules on the diversity of addresses see strangers.
    pub ip: Option<Ipv4Addr>,
    /// Its port, UDP or TCP. Default 4001.
    pub port: u16,
}

impl Default for NodeSpec {
    fn default() -> Self {
        Self {
            place: Place::default(),
            last_mile: Duration::from_millis(1),
            access: Access::symmetric(100_000_000),
            nat: Nat::Open,
            ip: None,
            port: 4001,
        }
    }
}

/// The public address of a node that did not ask for one: 11.0.0.1, 11.0.1.1, and so on.
pub(crate) fn default_ip(node: NodeIndex) -> Ipv4Addr {
    Ipv4Addr::from(0x0b00_0001_u32.saturating_add(node.0.saturating_mul(256)))
}

/// Where a node behind a NAT believes to be: a private address that nobody can dial.
pub(crate) fn private_ip(node: NodeIndex) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0001_u32.saturating_add(node.0 & 0x00ff_fff0))
}
