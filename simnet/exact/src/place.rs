//! Where the hosts of a run stand in the simulated network, and whom they know at the start.
//!
//! Owns: the translation of a host's link, the choice of entry points, and the warm start.
//! Must not: start anything.
//!
//! The warm start fills each node's routing table as hours of running would have: every bucket with
//! up to twenty nodes of the index that belong into it, drawn at random. Nothing else is filled:
//! connections are made, records published, and providers looked up in the run itself.

use std::sync::Arc;
use std::time::Duration;

use cocoon_overlay::address::peer_id;
use cocoon_overlay::{Anchor, Multiaddr, Role};
use libp2p::PeerId;
use libp2p::kad::KBucketKey;
use simnet_core::{Access, Links, Nat, NodeSpec, PartsPerMillion, Path, Place};
use simnet_host::{HostId, HostSpec};
use simnet_scenario::draw::shuffle;
use simnet_scenario::population::{ChurnClass, Nat as ScenarioNat};
use simnet_scenario::{Regions, Scenario, Seed};

/// Nodes of the index in one bucket, as Kademlia has it.
const BUCKET: usize = 20;
/// A built-in list has one entry point for so many nodes, and eight at least …
const NODES_PER_ENTRY: usize = 250;
const ENTRIES: usize = 8;
/// … of which each node is given so many, in an order of its own.
const ENTRIES_EACH: usize = 3;

/// The regions' table as the network asks for it.
#[derive(Debug)]
pub(crate) struct World {
    regions: Regions,
    jitter: f64,
    loss: PartsPerMillion,
}

impl World {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let network = &scenario.network;
        let loss = network.loss.as_billionths() / 1_000;
        Self {
            regions: Regions::of(network.topology),
            jitter: network.jitter.fraction(),
            loss: PartsPerMillion(loss),
        }
    }
}

impl Links for World {
    fn path(&self, from: Place, to: Place) -> Path {
        let delay = self.regions.one_way(from.0, to.0);
        Path { delay, jitter: delay.mul_f64(self.jitter), loss: self.loss }
    }
}

/// How a host is connected.
pub(crate) fn node_spec(spec: &HostSpec) -> NodeSpec {
    NodeSpec {
        place: Place(spec.region),
        last_mile: spec.link.last_mile,
        access: Access {
            up: spec.link.up.bits_per_second(),
            down: spec.link.down.bits_per_second(),
        },
        nat: match spec.link.nat {
            ScenarioNat::Public => Nat::Open,
            ScenarioNat::Cone => Nat::Pinholes,
            ScenarioNat::Symmetric => Nat::Symmetric,
        },
        ..NodeSpec::default()
    }
}

/// What a host does in the overlay.
pub(crate) fn role(spec: &HostSpec) -> Role {
    match (&spec.provider, &spec.consumer) {
        (Some(_), _) => Role::Provider,
        (None, Some(_)) => Role::Consumer,
        (None, None) => Role::Relay,
    }
}

/// Whether a host holds a share of the index: who can be reached and is no consumer.
pub(crate) fn serves_index(spec: &HostSpec) -> bool {
    role(spec) != Role::Consumer && spec.link.nat == ScenarioNat::Public
}

/// Whom the hosts know at the start.
#[derive(Debug)]
pub(crate) struct Acquaintance {
    seed: Seed,
    /// Nodes of the index, with their keys in Kademlia's space.
    index: Vec<(HostId, Anchor, [u8; 32])>,
    /// The built-in list: places in `index`.
    entries: Vec<usize>,
}

impl Acquaintance {
    /// From all hosts and their addresses.
    pub(crate) fn new(
        seed: Seed,
        hosts: &[Arc<HostSpec>],
        address: impl Fn(HostId) -> Multiaddr,
    ) -> Self {
        let serving = hosts.iter().filter(|spec| serves_index(spec) && !spec.is_absent());
        let index: Vec<_> = serving
            .filter_map(|spec| {
                let node = spec.key.id();
                let anchor = Anchor { node, addresses: vec![address(spec.id)] };
                Some((spec.id, anchor, position(peer_id(&node)?)))
            })
            .collect();
        // Those who stay: without a role if there are such, else in a datacentre, else anybody.
        let rank = |host: &HostId| {
            let index = usize::try_from(host.0).unwrap_or(usize::MAX);
            hosts.get(index).map_or(u8::MAX, |spec| {
                u8::from(spec.hostile) * 8
                    + u8::from(spec.churn != ChurnClass::None) * 4
                    + u8::from(role(spec) != Role::Relay) * 2
                    + u8::from(spec.link.last_mile > Duration::from_millis(2))
            })
        };
        let wanted = ENTRIES.max(hosts.len().div_ceil(NODES_PER_ENTRY));
        let mut entries: Vec<usize> = (0..index.len()).collect();
        entries.sort_by_key(|place| index.get(*place).map(|(host, ..)| (rank(host), host.0)));
        entries.truncate(wanted);
        Self { seed, index, entries }
    }

    /// Whether a host is on the built-in list: it starts first, and keeps its address.
    pub(crate) fn is_entry(&self, host: HostId) -> bool {
        let mut entries = self.entries.iter().filter_map(|place| self.index.get(*place));
        entries.any(|(entry, ..)| *entry == host)
    }

    /// The entry points that a host dials.
    pub(crate) fn entries_of(&self, host: HostId) -> Vec<Multiaddr> {
        let mut places = self.entries.clone();
        shuffle(&mut self.seed.stream("entry points", u64::from(host.0)), &mut places);
        let known = places.into_iter().filter_map(|place| self.index.get(place));
        let others = known.filter(|(entry, ..)| *entry != host).take(ENTRIES_EACH);
        let named = |(_, anchor, _): &(HostId, Anchor, [u8; 32])| {
            let address = anchor.addresses.first()?.clone();
            address.with_p2p(peer_id(&anchor.node)?).ok()
        };
        others.filter_map(named).collect()
    }

    /// Nodes of the index that a host's full routing table would hold.
    pub(crate) fn table_of(&self, spec: &HostSpec) -> Vec<Anchor> {
        let Some(own) = peer_id(&spec.key.id()).map(position) else {
            return Vec::new();
        };
        let mut order: Vec<usize> = (0..self.index.len()).collect();
        shuffle(&mut self.seed.stream("routing table", u64::from(spec.id.0)), &mut order);
        let mut filled = [0_usize; 257];
        let mut table = Vec::new();
        for (host, anchor, theirs) in order.into_iter().filter_map(|place| self.index.get(place)) {
            let bucket = filled.get_mut(shared_bits(&own, theirs));
            if let Some(bucket) = bucket
                && *host != spec.id
                && *bucket < BUCKET
            {
                *bucket = bucket.saturating_add(1);
                table.push(anchor.clone());
            }
        }
        table
    }

    /// Addresses of everybody in the index, as somebody who crawls the network learns them.
    pub(crate) fn crawl(&self) -> impl Iterator<Item = Multiaddr> {
        self.index.iter().filter_map(|(_, anchor, _)| anchor.addresses.first().cloned())
    }

    /// How many nodes serve the index.
    pub(crate) fn index_nodes(&self) -> usize {
        self.index.len()
    }
}

fn position(peer: PeerId) -> [u8; 32] {
    let key = KBucketKey::from(peer);
    key.hashed_bytes().try_into().unwrap_or([0; 32])
}

/// Leading bits that two positions share: the number of the bucket, counted from the far end.
fn shared_bits(a: &[u8; 32], b: &[u8; 32]) -> usize {
    let differ = a.iter().zip(b).map(|(a, b)| a ^ b).enumerate().find(|(_, differ)| *differ != 0);
    differ.map_or(256, |(byte, differ)| {
        let bits = usize::try_from(differ.leading_zeros()).unwrap_or(0);
        byte.saturating_mul(8).saturating_add(bits)
    })
}
