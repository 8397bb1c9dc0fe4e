//! A run that stands still: its hosts and their places in the real overlay, as snapshots.
//!
//! Owns: what a host's place is in this tier. Must not: change anything: it asks the overlay for what
//! it has at hand, and for nothing that it would have to compute.

use simnet_host::state::{Connection, Known, NetworkState, PlaceState, TableState, ago};
use simnet_host::{Halted, HostId, Names, NodeState};
use simnet_scenario::Moment;

use crate::node::{Process, Shared};

/// All nodes, at one moment.
pub(crate) struct Still<'a> {
    pub(crate) at: Moment,
    pub(crate) nodes: &'a [Shared],
}

impl Halted for Still<'_> {
    fn state(&mut self, host: HostId, names: &Names) -> Option<NodeState> {
        let node = self.nodes.get(usize::try_from(host.0).ok()?)?;
        let mut node = node.borrow_mut();
        let state = node.host().state(self.at, names);
        Some(NodeState { place: place(&mut node.process, self.at, names), ..state })
    }
}

fn place(process: &mut Process, at: Moment, names: &Names) -> Option<PlaceState> {
    let sessions = process.sessions.len().saturating_add(process.dialling.len());
    let overlay = process.overlay.as_mut()?;
    let (view, status) = (overlay.view(), overlay.status());
    let tables = view.tables.iter().map(|it| TableState {
        model: names.model(it.want.model),
        minimum_tier: it.want.minimum_tier,
        warm: it.warm,
        on_the_way: it.on_the_way,
        candidates: it.candidates,
        looking: it.looking,
        look_up_at: it.look_up_in.map(|wait| at.after(wait)),
    });
    let known = view.providers.iter().map(|it| Known {
        provider: names.peer(it.node),
        warm: it.warm,
        tables: it.tables,
        round_trip: it.round_trip,
        since: ago(at, it.age),
    });
    let connections = view
        .connections
        .iter()
        .map(|(node, dialled)| Connection { peer: names.peer(*node), dialled: *dialled });
    let refused = status.refused.iter().map(|(what, count)| (format!("{what:?}"), *count));
    Some(PlaceState {
        tables: tables.collect(),
        known: known.collect(),
        put_off: view.put_off,
        subscribers: status.offering.then_some(status.subscribers),
        sessions,
        network: Some(NetworkState {
            connections: connections.collect(),
            serves_index: view.serves_index,
            index_peers: status.index_peers,
            index_records: status.index_records,
            look_ups: view.look_ups,
            entry_points: status.entry_points,
            listeners: status.listeners.iter().map(ToString::to_string).collect(),
            refused: refused.collect(),
        }),
    })
}
