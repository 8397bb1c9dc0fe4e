//! The index: under which keys a model's providers are found, and our share of what is found there.
//!
//! Owns: key derivation and the provider records that other nodes entrust to this one.
//! Must not: hold value records. Kademlia's `PUT_VALUE` is refused, because nothing here uses it.
//! When full: old records stay and new ones are refused, so that a flood displaces nothing;
//! records live two hours, so squatting does not last.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::NodeId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use libp2p::{Multiaddr, PeerId};
use sha2::{Digest as _, Sha256};

use crate::address::{Subnet, subnet};
use crate::command::Want;
use crate::draw::Draw;
use crate::limits;

/// Separates our keys from everything else that might be hashed.
const KEY_DOMAIN: &[u8] = b"cocoon/v1";

/// Where one shard of such providers is found:
/// SHA-256("cocoon/v1" ‖ model ‖ u8(tier) ‖ u16be(shard)), the tiers from `open`, 0, upwards.
///
/// A provider publishes under every tier that it reaches, so that one look-up finds all who will do.
/// That it says so proves nothing: its offer is looked at next, and a session proves the offer.
pub fn key(want: &Want, shard: u16) -> RecordKey {
    let tier: u8 = match want.minimum_tier {
        Tier::Open => 0,
        Tier::Attested => 1,
        Tier::Confidential => 2,
    };
    let mut hash = Sha256::new();
    hash.update(KEY_DOMAIN);
    hash.update(want.model.as_bytes());
    hash.update([tier]);
    hash.update(shard.to_be_bytes());
    RecordKey::from(hash.finalize().to_vec())
}

/// The shard, of `shards`, that a provider publishes under. It follows from its identity, so that
/// providers spread evenly without agreeing on anything.
pub(crate) fn shard_of(provider: &NodeId, shards: u16) -> u16 {
    let [.., high, low] = *provider.as_bytes();
    u16::from_be_bytes([high, low]).checked_rem(shards).unwrap_or(0)
}

#[derive(Debug)]
struct Held {
    record: ProviderRecord,
    subnet: Option<Subnet>,
}

/// Provider records of others that this node keeps, and the keys that it provides itself.
#[derive(Debug)]
pub(crate) struct ProviderStore {
    own: PeerId,
    provided: BTreeMap<Vec<u8>, ProviderRecord>,
    held: BTreeMap<Vec<u8>, Vec<Held>>,
    keys_of: BTreeMap<PeerId, BTreeSet<Vec<u8>>>,
    count: usize,
    draw: Draw,
}

impl ProviderStore {
    /// An empty store of the node `own`; `seed` decides which of many records answer a look-up.
    pub(crate) fn new(own: PeerId, seed: &[u8; 32]) -> Self {
        Self {
            own,
            provided: BTreeMap::new(),
            held: BTreeMap::new(),
            keys_of: BTreeMap::new(),
            count: 0,
            draw: Draw::new(seed, "index"),
        }
    }

    /// Records of other providers.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Addresses that `provider` published under `key` at this node.
    pub(crate) fn addresses(&self, key: &RecordKey, provider: &PeerId) -> Vec<Multiaddr> {
        let held = self.held.get(key.as_ref()).map_or(&[][..], Vec::as_slice);
        let of_provider = held.iter().find(|held| held.record.provider == *provider);
        of_provider.map_or_else(Vec::new, |held| held.record.addresses.clone())
    }

    /// `provider` says where it is now: its records say the same from now on. It speaks for itself
    /// only, and may have moved since it published them.
    pub(crate) fn complete(&mut self, provider: &PeerId, addresses: &[Multiaddr]) {
        if addresses.is_empty() {
            return;
        }
        for key in self.keys_of.get(provider).into_iter().flatten() {
            let held = self.held.get_mut(key).into_iter().flatten();
            for held in held.filter(|held| held.record.provider == *provider) {
                held.record.addresses = addresses.to_vec();
            }
        }
    }

    /// Drops what has ended at `now`.
    pub(crate) fn expire(&mut self, now: Instant) {
        let (keys_of, count) = (&mut self.keys_of, &mut self.count);
        self.held.retain(|key, records| {
            records.retain(|held| {
                let ended = held.record.is_expired(now);
                if ended {
                    *count = count.saturating_sub(1);
                    forget_key(keys_of, &held.record.provider, key);
                }
                !ended
            });
            !records.is_empty()
        });
    }

    fn hold(&mut self, record: ProviderRecord) -> Result<()> {
        let key = record.key.to_vec();
        if key.len() != 32 {
            return Err(Error::ValueTooLarge);
        }
        let subnet = record.addresses.iter().find_map(subnet);
        let records = self.held.entry(key.clone()).or_default();
        if let Some(known) = records.iter_mut().find(|held| held.record.provider == record.provider)
        {
            *known = Held { record, subnet };
            return Ok(());
        }
        let of_subnet =
            records.iter().filter(|held| subnet.is_some() && held.subnet == subnet).count();
        let of_provider = self.keys_of.get(&record.provider).map_or(0, BTreeSet::len);
        if self.count >= limits::RECORDS
            || records.len() >= limits::RECORDS_PER_KEY
            || of_subnet >= limits::RECORDS_PER_KEY_AND_SUBNET
            || of_provider >= limits::RECORDS_PER_PROVIDER
        {
            if records.is_empty() {
                self.held.remove(&key);
            }
            return Err(Error::MaxProvidedKeys);
        }
        self.keys_of.entry(record.provider).or_default().insert(key);
        records.push(Held { record, subnet });
        self.count = self.count.saturating_add(1);
        Ok(())
    }
}

fn forget_key(keys_of: &mut BTreeMap<PeerId, BTreeSet<Vec<u8>>>, provider: &PeerId, key: &[u8]) {
    if let Some(keys) = keys_of.get_mut(provider) {
        keys.remove(key);
        if keys.is_empty() {
            keys_of.remove(provider);
        }
    }
}

impl RecordStore for ProviderStore {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Map<
        std::collections::btree_map::Values<'a, Vec<u8>, ProviderRecord>,
        fn(&'a ProviderRecord) -> Cow<'a, ProviderRecord>,
    >;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, mut record: ProviderRecord) -> Result<()> {
        if record.provider == self.own {
            self.provided.insert(record.key.to_vec(), record);
            return Ok(());
        }
        record.addresses.truncate(limits::ADDRESSES_PER_PEER);
        if self.count >= limits::RECORDS {
            self.expire(Instant::now());
        }
        self.hold(record)
    }

    /// A random selection, because Kademlia sends the first twenty only: so consumers spread over
    /// all providers, and none can make itself the first of the list.
    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let held = self.held.get(key.as_ref()).map_or(&[][..], Vec::as_slice);
        let own = self.provided.get(key.as_ref());
        let all: Vec<_> = held.iter().map(|held| &held.record).chain(own).collect();
        let drawn = self.draw.some(all, limits::REPLICATION);
        drawn.into_iter().cloned().collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.provided.values().map(Cow::Borrowed)
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if *provider == self.own {
            self.provided.remove(key.as_ref());
            return;
        }
        let Some(records) = self.held.get_mut(key.as_ref()) else {
            return;
        };
        let before = records.len();
        records.retain(|held| held.record.provider != *provider);
        let removed = before.saturating_sub(records.len());
        self.count = self.count.saturating_sub(removed);
        if records.is_empty() {
            self.held.remove(key.as_ref());
        }
        forget_key(&mut self.keys_of, provider, key.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    use crate::testing::want as model;

    fn record(key: RecordKey, provider: PeerId, address: &str) -> ProviderRecord {
        let mut record = ProviderRecord::new(key, provider, vec![address.parse().unwrap()]);
        record.expires = Some(Instant::now() + Duration::from_secs(60));
        record
    }

    fn hex(key: &RecordKey) -> String {
        key.to_vec().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn store() -> ProviderStore {
        ProviderStore::new(PeerId::random(), &[1; 32])
    }

    #[test]
    fn the_key_of_a_shard_is_frozen() {
        // (printf cocoon/v1; head -c 32 /dev/zero; printf '\0\0\1') | sha256sum
        let expected = "1ec4af7d641d6fad57d3d2e19b05ab5c8cd6f8e41c998d164de1adc25498567e";
        assert_eq!(hex(&key(&model(0), 1)), expected);
        let attested = Want { minimum_tier: Tier::Attested, ..model(0) };
        // The same with '\1\0\1'.
        let expected = "3d86e1d6ce402e986279021bf79d2ba2ff2d40d431df1e609efec5cb3549d2e0";
        assert_eq!(hex(&key(&attested, 1)), expected);
        assert_ne!(key(&model(0), 1), key(&model(0), 0));
    }

    #[test]
    fn one_key_is_bounded_and_keeps_the_old() {
        let mut store = store();
        let first = PeerId::random();
        store.add_provider(record(key(&model(1), 0), first, "/memory/1")).unwrap();
        for _ in 0..500 {
            let _ = store.add_provider(record(key(&model(1), 0), PeerId::random(), "/memory/1"));
        }
        assert_eq!(store.len(), limits::RECORDS_PER_KEY);
        let kept = store.held[key(&model(1), 0).as_ref()].iter();
        assert!(kept.map(|held| held.record.provider).any(|provider| provider == first));
    }

    #[test]
    fn one_provider_and_one_subnet_are_bounded() {
        let mut store = store();
        let greedy = PeerId::random();
        let taken = (0..100u16)
            .filter(|shard| {
                store.add_provider(record(key(&model(1), *shard), greedy, "/memory/1")).is_ok()
            })
            .count();
        assert_eq!(taken, limits::RECORDS_PER_PROVIDER);
        let room = (0..100u16)
            .filter(|host| {
                let address = format!("/ip4/9.9.9.{host}/tcp/1");
                store.add_provider(record(key(&model(2), 0), PeerId::random(), &address)).is_ok()
            })
            .count();
        assert_eq!(room, limits::RECORDS_PER_KEY_AND_SUBNET);
    }

    #[test]
    fn answers_are_random_selections() {
        let mut store = store();
        let key = key(&model(1), 0);
        for _ in 0..100 {
            store.add_provider(record(key.clone(), PeerId::random(), "/memory/1")).unwrap();
        }
        let mut seen = BTreeSet::new();
        for _ in 0..100 {
            let answer = store.providers(&key);
            assert_eq!(answer.len(), limits::REPLICATION);
            seen.extend(answer.into_iter().map(|record| record.provider));
        }
        assert_eq!(seen.len(), 100, "every provider is found sooner or later");
    }

    #[test]
    fn own_records_are_provided_and_others_are_not() {
        let mut store = store();
        let own = store.own;
        store.add_provider(ProviderRecord::new(key(&model(1), 0), own, vec![])).unwrap();
        store.add_provider(record(key(&model(1), 0), PeerId::random(), "/memory/1")).unwrap();
        assert_eq!(store.provided().count(), 1);
        store.remove_provider(&key(&model(1), 0), &own);
        assert_eq!(store.provided().count(), 0);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn value_records_and_odd_keys_are_refused() {
        let mut store = store();
        assert!(store.put(Record::new(key(&model(1), 0), vec![1])).is_err());
        let odd = record(RecordKey::from(vec![1; 31]), PeerId::random(), "/memory/1");
        assert!(store.add_provider(odd).is_err());
        assert!(store.held.is_empty());
    }

    #[test]
    fn records_follow_what_their_provider_says_of_itself() {
        let mut store = store();
        let (bare, full) = (PeerId::random(), PeerId::random());
        let key = key(&model(1), 0);
        store.add_provider(ProviderRecord::new(key.clone(), bare, vec![])).unwrap();
        store.add_provider(record(key.clone(), full, "/memory/1")).unwrap();
        let known: Multiaddr = "/memory/2".parse().unwrap();
        store.complete(&bare, std::slice::from_ref(&known));
        store.complete(&full, std::slice::from_ref(&known));
        assert_eq!(store.addresses(&key, &bare), std::slice::from_ref(&known));
        assert_eq!(store.addresses(&key, &full), std::slice::from_ref(&known), "it has moved");
        store.complete(&full, &[]);
        assert_eq!(store.addresses(&key, &full), [known], "nothing is no news");
    }

    proptest! {
        #[test]
        fn counts_agree_whatever_happens(steps in prop::collection::vec((0u8..4, 0u8..6, 0usize..6), 0..200)) {
            let peers: Vec<_> = (0..6).map(|_| PeerId::random()).collect();
            let mut store = store();
            let now = Instant::now();
            for (step, byte, peer) in steps {
                let key = key(&model(byte), 0);
                match step {
                    0 | 1 => {
                        let mut record = record(key, peers[peer], "/memory/1");
                        record.expires = Some(now + Duration::from_secs(u64::from(step) * 10));
                        let _ = store.add_provider(record);
                    }
                    2 => store.remove_provider(&key, &peers[peer]),
                    _ => store.expire(now + Duration::from_secs(5)),
                }
                let held: usize = store.held.values().map(Vec::len).sum();
                let keys: usize = store.keys_of.values().map(BTreeSet::len).sum();
                prop_assert_eq!(held, store.len());
                prop_assert_eq!(keys, store.len());
                prop_assert!(store.held.values().all(|records| !records.is_empty()));
            }
        }
    }
}
