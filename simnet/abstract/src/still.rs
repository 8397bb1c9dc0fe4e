//! A run that stands still: its hosts and their places in the modelled overlay, as snapshots.
//!
//! Owns: what a host's place is in this tier. Must not: change anything, or draw.

use simnet_host::state::PlaceState;
use simnet_host::{Halted, Host, HostId, Names, NodeState};
use simnet_scenario::Moment;

use crate::overlay::{Overlay, index, millis};

/// All hosts and the network between them, at one moment.
pub(crate) struct Still<'a> {
    pub(crate) at: Moment,
    pub(crate) hosts: &'a [Host],
    pub(crate) overlay: &'a Overlay,
}

impl Halted for Still<'_> {
    fn state(&mut self, host: HostId, names: &Names) -> Option<NodeState> {
        let found = self.hosts.get(index(host.0))?;
        Some(NodeState { place: self.place(host, names), ..found.state(self.at, names) })
    }
}

impl Still<'_> {
    fn place(&self, host: HostId, names: &Names) -> Option<PlaceState> {
        let overlay = self.overlay;
        let station = overlay.stations.get(index(host.0)).filter(|station| station.runs)?;
        let tables = station.tables.as_deref();
        Some(PlaceState {
            tables: tables.map_or_else(Vec::new, |it| it.states(overlay, names)),
            known: tables.map_or_else(Vec::new, |it| it.known_states(overlay, names)),
            put_off: tables.map_or(0, |it| it.put_off(millis(self.at))),
            subscribers: station.offering.as_ref().map(|it| it.subscribers.len()),
            sessions: station.sessions.len(),
            network: None,
        })
    }
}
