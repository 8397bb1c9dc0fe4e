//! All protocols of a node in one libp2p behaviour, with their settings.
//!
//! Owns: which protocols run and how they are tuned; every setting that differs from libp2p's
//! default says why.
//! Must not: hold state of ours or react to events; the overlay does.

use std::time::Duration;

use cocoon_protocol::identity::NodeKey;
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{PeerId, StreamProtocol, connection_limits, identify, kad, ping};

use crate::command::{Config, StartError};
use crate::gossip::{self, Gossip};
use crate::index::ProviderStore;
use crate::limits::{self, ConnectionLimits};
use crate::slim::Slim;
use crate::{book, connections, streams};

/// Our own Kademlia: nodes of other networks never enter the routing table.
pub(crate) const KADEMLIA: StreamProtocol = StreamProtocol::new("/cocoon/kad/1.0.0");
/// What `identify` calls the family of protocols.
const FAMILY: &str = "/cocoon/1";

/// The behaviour of a node. Limits stand first: what they deny costs the others nothing.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) connections: connections::Behaviour,
    pub(crate) book: book::Behaviour,
    pub(crate) kad: kad::Behaviour<ProviderStore>,
    pub(crate) streams: streams::Behaviour,
    /// Its handler is two thirds of all handlers' size, so it has a box of its own.
    pub(crate) identify: Slim<identify::Behaviour>,
    pub(crate) ping: ping::Behaviour,
    pub(crate) gossip: Gossip,
}

/// The libp2p identity of a node, for the transports that authenticate with it.
pub fn keypair(key: &NodeKey) -> Result<Keypair, StartError> {
    let mut secret = key.secret();
    Keypair::ed25519_from_bytes(&mut *secret).map_err(|_| StartError::Key)
}

impl Behaviour {
    pub(crate) fn new(config: &Config, keypair: &Keypair) -> Result<Self, StartError> {
        let own = keypair.public().to_peer_id();
        let limits = ConnectionLimits::of(config.role);
        let identify = identify::Config::new(FAMILY.to_owned(), keypair.public())
            .with_agent_version(format!("cocoon/{}", env!("CARGO_PKG_VERSION")))
            // The address book is ours, because it believes only what can be true.
            .with_cache_size(0);
        Ok(Self {
            limits: connection_limits::Behaviour::new(hard_limits(&limits)),
            connections: connections::Behaviour::new(limits),
            book: book::Behaviour::default(),
            kad: kademlia(config, own),
            streams: streams::Behaviour::new(),
            identify: Slim(identify::Behaviour::new(identify)),
            ping: ping::Behaviour::new(ping::Config::new()),
            gossip: gossip::behaviour()?,
        })
    }
}

fn hard_limits(limits: &ConnectionLimits) -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_established(Some(limits.total))
        .with_max_established_incoming(Some(limits.inbound))
        .with_max_established_per_peer(Some(limits.per_peer))
        .with_max_pending_incoming(Some(limits.pending_inbound))
        .with_max_pending_outgoing(Some(limits.pending_outbound))
}

fn kademlia(config: &Config, own: PeerId) -> kad::Behaviour<ProviderStore> {
    let mut settings = kad::Config::new(KADEMLIA);
    settings
        // S/Kademlia: an attacker on one path does not see the others.
        .disjoint_query_paths(true)
        // Nothing enters the store or the routing table that the overlay has not looked at.
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        // The defaults, 48 h and 12 h, are far too long for GPUs that come and go.
        .set_provider_record_ttl(Some(limits::RECORD_LIFETIME))
        .set_provider_publication_interval(Some(limits::REPUBLISH_EVERY))
        // There are no value records.
        .set_record_ttl(None)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        // The default, 16 KiB, holds about a hundred providers with one address each.
        .set_max_packet_size(limits::KADEMLIA_PACKET_BYTES)
        // Dead peers dominate look-ups, so they get less patience than 60 s and 10 s.
        .set_query_timeout(limits::QUERY_TIMEOUT)
        .set_substreams_timeout(Duration::from_secs(5));
    let store = ProviderStore::new(own, &config.seed);
    let mut kad = kad::Behaviour::with_config(own, store, settings);
    // Never automatic: any confirmed address, even a relayed one, would make a server of a node
    // that others cannot reach.
    let mode = if config.serves_index { kad::Mode::Server } else { kad::Mode::Client };
    kad.set_mode(Some(mode));
    kad
}
