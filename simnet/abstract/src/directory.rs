//! The index as a whole: who is on record for which model, whether they still live or not.
//!
//! Owns: the records and their lives. Must not: model the way to them; a look-up's time and the
//! size of its answer come from the calibration.
//!
//! A key of the index holds two hundred records, and the network splits a model's key into shards
//! long before (`node/overlay`, limits and `index::shard_of`), so that an answer is an even draw
//! from all records. Here it is exactly that.

use cocoon_protocol::identity::ModelHash;
use simnet_scenario::Moment;

use crate::draws::Draws;

/// All records of a model, by host.
#[derive(Debug)]
struct Listing {
    model: ModelHash,
    hosts: Vec<u32>,
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
        let listings = models.map(|model| Listing { model, hosts: Vec::new() }).collect();
        Self { listings, until: vec![0; hosts] }
    }

    /// A model's number.
    pub(crate) fn number(&self, model: ModelHash) -> Option<u16> {
        let at = self.listings.iter().position(|listing| listing.model == model)?;
        u16::try_from(at).ok()
    }

    /// A provider's records reach the index, or are renewed there.
    pub(crate) fn publish(&mut self, models: impl Iterator<Item = u16>, host: u32, now: Moment) {
        let Some(until) = self.until.get_mut(place(host)) else { return };
        let is_new = *until == 0;
        *until = seconds(now).saturating_add(LIFETIME);
        if is_new {
            for model in models {
                if let Some(listing) = self.listings.get_mut(usize::from(model)) {
                    listing.hosts.push(host);
                }
            }
        }
    }

    /// Up to `most` different providers, evenly drawn.
    pub(crate) fn answer(
        &mut self,
        model: u16,
        most: usize,
        now: Moment,
        draws: &mut Draws,
        found: &mut Vec<u32>,
    ) {
        let Some(listing) = self.listings.get_mut(usize::from(model)) else { return };
        let (now, hosts) = (seconds(now), &mut listing.hosts);
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
