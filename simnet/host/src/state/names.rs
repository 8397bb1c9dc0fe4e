//! Whom the identities and numbers in a snapshot mean.
//!
//! Owns: host numbers by identity and by vault, and the names of models, regions and classes.
//! Must not: hold a map with random keys: it is made on the thread that simulates, and would move the
//! keys of all that come after it.

use std::sync::Arc;

use cocoon_protocol::identity::{ModelHash, NodeId, TonAddress};
use simnet_scenario::{Regions, Scenario};

use crate::fabric::HostId;
use crate::host::HostSpec;
use crate::ledger::vault_address;
use crate::population;

/// A node as another one knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number, if it is a host of the population.
    pub host: Option<HostId>,
    /// Its identity.
    pub node: NodeId,
}

/// The names of a run.
#[derive(Clone, Debug)]
pub struct Names {
    /// In the order of identities.
    nodes: Vec<(NodeId, HostId)>,
    /// In the order of addresses; one for each consumer.
    vaults: Vec<(TonAddress, Peer)>,
    models: Vec<(ModelHash, String)>,
    regions: Vec<String>,
    classes: Vec<String>,
}

impl Names {
    /// Of a scenario's run with these hosts.
    pub fn of(scenario: &Scenario, hosts: &[Arc<HostSpec>]) -> Self {
        let mut nodes: Vec<_> = hosts.iter().map(|spec| (spec.key.id(), spec.id)).collect();
        nodes.sort_unstable();
        let consumers = hosts.iter().filter(|spec| spec.consumer.is_some());
        let vault = |spec: &Arc<HostSpec>| {
            let peer = Peer { host: Some(spec.id), node: spec.key.id() };
            (vault_address(spec), peer)
        };
        let mut vaults: Vec<_> = consumers.map(vault).collect();
        vaults.sort_unstable_by_key(|(address, _)| *address);
        Self {
            nodes,
            vaults,
            models: population::models(scenario).into_iter().map(|it| (it.hash, it.name)).collect(),
            regions: Regions::of(scenario.network.topology).names().to_vec(),
            classes: population::classes(scenario),
        }
    }

    /// Hosts that there are.
    pub fn hosts(&self) -> usize {
        self.nodes.len()
    }

    /// Who has this identity.
    pub fn peer(&self, node: NodeId) -> Peer {
        let at = self.nodes.binary_search_by_key(&node, |(known, _)| *known).ok();
        let host = at.and_then(|at| self.nodes.get(at)).map(|(_, host)| *host);
        Peer { host, node }
    }

    /// Whose vault this is.
    pub fn vault(&self, address: TonAddress) -> Option<Peer> {
        let at = self.vaults.binary_search_by_key(&address, |(known, _)| *known).ok()?;
        self.vaults.get(at).map(|(_, peer)| *peer)
    }

    /// A model's name; its hash where it has none.
    pub fn model(&self, model: ModelHash) -> String {
        let found = self.models.iter().find(|(known, _)| *known == model);
        found.map_or_else(|| model.to_string(), |(_, name)| name.clone())
    }

    /// A region's name.
    pub fn region(&self, region: u16) -> String {
        named(&self.regions, region)
    }

    /// A class's name.
    pub fn class(&self, class: u16) -> String {
        named(&self.classes, class)
    }
}

fn named(names: &[String], number: u16) -> String {
    names.get(usize::from(number)).cloned().unwrap_or_else(|| number.to_string())
}
