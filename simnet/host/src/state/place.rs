//! A node's place in the overlay, in the same words for both tiers.
//!
//! Owns: the words of this part of a snapshot. Must not: know which overlay it is of; what only a
//! real one has stands in [`NetworkState`].

use std::time::Duration;

use cocoon_protocol::attest::Tier;
use simnet_scenario::Moment;

use super::Peer;

/// A node's place in the overlay.
#[derive(Clone, Debug, Default)]
pub struct PlaceState {
    /// Warm tables of what is looked for.
    pub tables: Vec<TableState>,
    /// Providers that are warm, or on the way.
    pub known: Vec<Known>,
    /// Providers that are not contacted for a while: they were lost, or were not what they offered.
    pub put_off: usize,
    /// Consumers that are subscribed to its offer; `None` while it has none out.
    pub subscribers: Option<usize>,
    /// Sessions that the overlay carries, and dials.
    pub sessions: usize,
    /// What only a real overlay has.
    pub network: Option<NetworkState>,
}

/// A warm table.
#[derive(Clone, Debug)]
pub struct TableState {
    /// Of which model.
    pub model: String,
    /// From which tier on.
    pub minimum_tier: Tier,
    /// Providers whose offers hold.
    pub warm: usize,
    /// Providers that are being contacted.
    pub on_the_way: usize,
    /// Providers that were found and have no place yet.
    pub candidates: usize,
    /// Whether a look-up is under way.
    pub looking: bool,
    /// When the next look-up is due, if one is.
    pub look_up_at: Option<Moment>,
}

/// A provider in a warm table, or on the way into one.
#[derive(Clone, Debug)]
pub struct Known {
    /// Who.
    pub provider: Peer,
    /// Whether its offer holds.
    pub warm: bool,
    /// Tables that it stands in.
    pub tables: usize,
    /// The round trip to it, once it is known.
    pub round_trip: Option<Duration>,
    /// Since when.
    pub since: Moment,
}

/// What a real overlay has besides.
#[derive(Clone, Debug, Default)]
pub struct NetworkState {
    /// Connections.
    pub connections: Vec<Connection>,
    /// Whether it holds a share of the index.
    pub serves_index: bool,
    /// Nodes of the index in its routing table.
    pub index_peers: usize,
    /// Records of providers that it keeps for others.
    pub index_records: usize,
    /// Look-ups under way.
    pub look_ups: usize,
    /// Entry points that it is connected to, and all.
    pub entry_points: (usize, usize),
    /// Addresses at which it accepts connections.
    pub listeners: Vec<String>,
    /// What peers were refused, and how often.
    pub refused: Vec<(String, u64)>,
}

/// A connected peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who.
    pub peer: Peer,
    /// Whether this node dialled it.
    pub dialled: bool,
}
