//! The index as a whole: who is on record under which key, whether they still live or not.
//!
//! Owns: the records and their lives. Must not: model the way to them; a look-up's time and the
//! size of its answer come from the calibration.
//!
//! A key of the index holds two hundred records, and the network splits a model's key into shards
//! long before (`node/overlay`, limits and `index::shard_of`), so that an answer is an even draw
//! from all records. Here it is exactly that.

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::ModelHash;
use simnet_scenario::Moment;

use crate::draws::Draws;

/// A key of the index: a model's number, and the lowest tier that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    model: u16,
    minimum_tier: Tier,
}

impl Key {
    pub(crate) const fn new(model: u16, minimum_tier: Tier) -> Self {
        Self { model, minimum_tier }
    }

    /// The model's number, and the lowest tier.
    pub(crate) const fn parts(self) -> (u16, Tier) {
        (self.model, self.minimum_tier)
    }

    /// A number for traces.
    pub(crate) fn number(self) -> u32 {
        u32::from(self.model) * 4 + self.minimum_tier as u32
    }
}

/// What a provider's offer meets: models, one bit each, in a tier. The world has at most 32 models.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    models: u32,
    tier: Tier,
}

impl Range {
    pub(crate) fn new(models: impl Iterator<Item = u16>, tier: Tier) -> Self {
        Self { models: models.fold(0, |mask, model| mask | bit(model)), tier }
    }

    pub(crate) fn meets(self, key: Key) -> bool {
        self.models & bit(key.model) != 0 && self.tier >= key.minimum_tier
    }

    fn models(self) -> impl Iterator<Item = u16> {
        (0..32).filter(move |model| self.models & bit(*model) != 0)
    }
}

const fn bit(model: u16) -> u32 {
    1 << (model & 31)
}

/// All records of a model: by tier, those who reach it.
#[derive(Debug)]
struct Listing {
    model: ModelHash,
    hosts: [Vec<u32>; 3],
}

/// The index.
#[derive(Debug)]
pub(crate) struct Directory {
    listings: Vec<Listing>,
    /// Until when each host's records are kept, in seconds; zero if it is not on record.
    until: Vec<u32>,
}

/// Life of a record, in seconds, as the overlay has it.
const LIFETIME: u32 = 2 * 3_600;

fn seconds(at: Moment) -> u32 {
    u32::try_from(at.as_millis() / 1_000).unwrap_or(u32::MAX)
}

impl Directory {
    pub(crate) fn new(models: impl Iterator<Item = ModelHash>, hosts: usize) -> Self {
        let listing = |model| Listing { model, hosts: [const { Vec::new() }; 3] };
        let listings = models.map(listing).collect();
        Self { listings, until: vec![0; hosts] }
    }

    /// A model's number.
    pub(crate) fn number(&self, model: ModelHash) -> Option<u16> {
        let at = self.listings.iter().position(|listing| listing.model == model)?;
        u16::try_from(at).ok()
    }

    /// The model of a number.
    pub(crate) fn model(&self, number: u16) -> Option<ModelHash> {
        self.listings.get(usize::from(number)).map(|listing| listing.model)
    }

    /// A provider's records reach the index, or are renewed there.
    pub(crate) fn publish(&mut self, range: Range, host: u32, now: Moment) {
        let Some(until) = self.until.get_mut(place(host)) else { return };
        let is_new = *until == 0;
        *until = seconds(now).saturating_add(LIFETIME);
        if is_new {
            for model in range.models() {
                let listing = self.listings.get_mut(usize::from(model));
                let reached = listing.into_iter().flat_map(|it| &mut it.hosts);
                for hosts in reached.take(range.tier as usize + 1) {
                    hosts.push(host);
                }
            }
        }
    }

    /// Up to `most` different providers, evenly drawn.
    pub(crate) fn answer(
        &mut self,
        key: Key,
        most: usize,
        now: Moment,
        draws: &mut Draws,
        found: &mut Vec<u32>,
    ) {
        let listing = self.listings.get_mut(usize::from(key.model));
        let hosts = listing.and_then(|it| it.hosts.get_mut(key.minimum_tier as usize));
        let (now, Some(hosts)) = (seconds(now), hosts) else { return };
        // The drawn ones are moved to the end: a shuffle that stops after `most`.
        let mut left = hosts.len();
        while left > 0 && found.len() < most {
            let at = draws.place(left);
            let Some(host) = hosts.get(at).copied() else { break };
            left -= 1;
            hosts.swap(at, left);
            let until = self.until.get_mut(place(host));
            if let Some(until) = until.filter(|until| **until <= now) {
                *until = 0;
                hosts.swap_remove(left);
            } else if !found.contains(&host) {
                found.push(host);
            }
        }
    }
}

fn place(host: u32) -> usize {
    usize::try_from(host).unwrap_or(usize::MAX)
}
