//! An index node that lies: it names its accomplices to everybody, and keeps nobody's record.
//!
//! Owns: a libp2p behaviour of its own that speaks the overlay's protocols by name, and the grinding
//! of identities close to a key.
//! Must not: use anything that a real attacker could not: it has its own keys, knows who is in the
//! network (it has crawled it), and does not read other nodes' state.
//! Hosts that misbehave with jobs and money are the host crate's business; this one has no host.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use cocoon_overlay::{Multiaddr, Transport};
use futures::Stream as _;
use libp2p::identity::Keypair;
use libp2p::kad::store::{RecordStore, Result};
use libp2p::kad::{self, ProviderRecord, Record, RecordKey};
use libp2p::swarm::{Executor, NetworkBehaviour, dial_opts::DialOpts};
use libp2p::{PeerId, StreamProtocol, Swarm, identify};
use simnet_scenario::Seed;

/// As in the overlay, whose routing tables take nobody else.
const KADEMLIA: StreamProtocol = StreamProtocol::new("/cocoon/kad/1.0.0");
/// As in the overlay.
const FAMILY: &str = "/cocoon/1";
/// Providers that an answer names, as the overlay has it.
const ANSWER: usize = 20;

/// A peer and where it is.
pub(crate) type Accomplice = (PeerId, Multiaddr);

/// A store that knows its accomplices as providers of everything and forgets everybody else.
#[derive(Debug)]
struct Lies {
    accomplices: Vec<Accomplice>,
}

impl RecordStore for Lies {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Ok(())
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, _: ProviderRecord) -> Result<()> {
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let named = self.accomplices.iter().take(ANSWER);
        let record = |(peer, address): &Accomplice| {
            ProviderRecord::new(key.clone(), *peer, vec![address.clone()])
        };
        named.map(record).collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, _: &RecordKey, _: &PeerId) {}
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    kad: kad::Behaviour<Lies>,
    identify: identify::Behaviour,
}

/// A lying index node. Polled as a task; it never ends by itself.
pub(crate) struct Liar {
    swarm: Swarm<Behaviour>,
}

/// What a lying index node is made from.
pub(crate) struct Plan {
    /// Its identity.
    pub(crate) keypair: Keypair,
    /// Where it listens.
    pub(crate) listen: Multiaddr,
    /// Whom it names as providers of everything; nobody, if it just drops what it is given.
    pub(crate) accomplices: Vec<Accomplice>,
    /// Which nodes of the index it tells of.
    pub(crate) routes: Vec<Accomplice>,
    /// Whom it connects to, so that they take it into their routing tables.
    pub(crate) targets: Vec<Multiaddr>,
}

impl Liar {
    /// Starts lying.
    pub(crate) fn new(
        plan: Plan,
        transport: Transport,
        executor: impl Executor + Send + 'static,
    ) -> Self {
        let own = plan.keypair.public().to_peer_id();
        let mut settings = kad::Config::new(KADEMLIA);
        settings
            .set_kbucket_inserts(kad::BucketInserts::Manual)
            .set_record_filtering(kad::StoreInserts::FilterBoth)
            .set_periodic_bootstrap_interval(None);
        let store = Lies { accomplices: plan.accomplices };
        let mut kad = kad::Behaviour::with_config(own, store, settings);
        kad.set_mode(Some(kad::Mode::Server));
        for (peer, address) in &plan.routes {
            if *peer != own {
                kad.add_address(peer, address.clone());
            }
        }
        let identify = identify::Config::new(FAMILY.to_owned(), plan.keypair.public());
        let behaviour = Behaviour { kad, identify: identify::Behaviour::new(identify) };
        let settings = libp2p::swarm::Config::with_executor(executor)
            .with_idle_connection_timeout(Duration::from_secs(3_600));
        let mut swarm = Swarm::new(transport, behaviour, own, settings);
        swarm.add_external_address(plan.listen.clone());
        if let Err(error) = swarm.listen_on(plan.listen) {
            tracing::error!(%error, "a lying index node cannot listen");
        }
        for target in plan.targets {
            let options = DialOpts::unknown_peer_id().address(target).build();
            if let Err(error) = swarm.dial(options) {
                tracing::debug!(%error, "a lying index node cannot dial");
            }
        }
        Self { swarm }
    }

    /// Lies for ever.
    pub(crate) async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Its own bootstraps would only tell the world where it looks; nothing is asked.
        while let Poll::Ready(Some(_)) = Pin::new(&mut self.swarm).poll_next(cx) {}
        Poll::Pending
    }
}

/// `count` identities whose distance to `key` is below 2^-`bits` of the whole space, as an attacker
/// makes them: by trying 2^`bits` keys for each.
pub(crate) fn grind(seed: Seed, key: &RecordKey, bits: u32, count: usize) -> Vec<Keypair> {
    let target = kad::KBucketKey::new(key.to_vec());
    let mut found = Vec::with_capacity(count);
    let mut tried: u64 = 0;
    while found.len() < count {
        let secret = seed.bytes("ground identity", tried);
        tried = tried.saturating_add(1);
        let Ok(keypair) = Keypair::ed25519_from_bytes(secret) else {
            continue;
        };
        let own = kad::KBucketKey::from(keypair.public().to_peer_id());
        // `ilog2` of the distance: 255 for the far half of the space, 254 for the next quarter.
        let near =
            target.distance(&own).ilog2().is_none_or(|log| log < 256_u32.saturating_sub(bits));
        if near {
            found.push(keypair);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ground_identities_are_close_to_their_key() {
        let key = RecordKey::from(vec![7; 32]);
        let ground = grind(Seed(1), &key, 6, 3);
        let target = kad::KBucketKey::new(key.to_vec());
        for keypair in &ground {
            let own = kad::KBucketKey::from(keypair.public().to_peer_id());
            assert!(target.distance(&own).ilog2().unwrap() < 250);
        }
        assert_eq!(ground.len(), 3);
    }

    #[test]
    fn accomplices_are_named_for_everything_and_nobody_else_is_kept() {
        let accomplices: Vec<_> =
            (0..30).map(|_| (PeerId::random(), "/ip4/9.9.9.9/tcp/1".parse().unwrap())).collect();
        let mut lies = Lies { accomplices };
        let key = RecordKey::from(vec![7; 32]);
        lies.add_provider(ProviderRecord::new(key.clone(), PeerId::random(), vec![])).unwrap();
        assert_eq!(lies.providers(&key).len(), ANSWER);
        assert_eq!(lies.provided().count(), 0);
    }
}
