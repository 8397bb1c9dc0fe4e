//! What an overlay knows of others at one moment, for displays.
//!
//! Owns: the words of such a look. Must not: change anything: no bucket of the routing table is
//! read, because reading one lets in who waits for a place.

use std::time::{Duration, Instant};

use cocoon_protocol::identity::NodeId;

use crate::address::node_id;
use crate::overlay::Overlay;
use crate::warm::TableView;

/// What an overlay knows of others.
#[derive(Clone, Debug)]
pub struct View {
    /// Warm tables.
    pub tables: Vec<TableView>,
    /// Who stands in them.
    pub providers: Vec<KnownProvider>,
    /// Providers that are not contacted for a while.
    pub put_off: usize,
    /// Connected peers, and whether this node dialled them.
    pub connections: Vec<(NodeId, bool)>,
    /// Look-ups under way.
    pub look_ups: usize,
    /// Whether this node holds a share of the index.
    pub serves_index: bool,
}

/// A provider in a warm table, or on the way into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownProvider {
    /// Who.
    pub node: NodeId,
    /// Whether its offer holds.
    pub warm: bool,
    /// Tables that it stands in.
    pub tables: usize,
    /// The round trip to it, once it is known.
    pub round_trip: Option<Duration>,
    /// For how long it has been there.
    pub age: Duration,
}

impl Overlay {
    /// What it knows of others at this moment.
    pub fn view(&self) -> View {
        let now = Instant::now();
        let providers = self.tables.provider_views(now).filter_map(|it| {
            Some(KnownProvider {
                node: node_id(&it.peer)?,
                warm: it.warm,
                tables: it.tables,
                round_trip: it.round_trip,
                age: it.age,
            })
        });
        let connections = self.swarm.behaviour().connections.peers();
        View {
            tables: self.tables.table_views(now),
            providers: providers.collect(),
            put_off: self.tables.put_off(now),
            connections: connections
                .filter_map(|(peer, dialled)| Some((node_id(peer)?, dialled)))
                .collect(),
            look_ups: self.look_ups.len(),
            serves_index: self.serves_index,
        }
    }
}
