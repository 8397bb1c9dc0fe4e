//! The warm tables as a display shows them.
//!
//! Owns: the words for a table and for who stands in it. Must not: change them.

use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::Tables;
use crate::command::Want;

/// A warm table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableView {
    /// Of what.
    pub want: Want,
    /// Providers whose offers hold.
    pub warm: usize,
    /// Providers that are being contacted.
    pub on_the_way: usize,
    /// Providers that were found and have no place yet.
    pub candidates: usize,
    /// Whether a look-up is under way.
    pub looking: bool,
    /// How long until the next look-up, if one is due.
    pub look_up_in: Option<Duration>,
}

/// A provider in a table, or on the way into one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProviderView {
    pub(crate) peer: PeerId,
    pub(crate) warm: bool,
    pub(crate) tables: usize,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) age: Duration,
}

impl Tables {
    /// All tables.
    pub(crate) fn table_views(&self, now: Instant) -> Vec<TableView> {
        let view = |(want, table): (&Want, &super::Table)| {
            let warm = self.warm_count(*want);
            TableView {
                want: *want,
                warm,
                on_the_way: self.taken(*want).saturating_sub(warm),
                candidates: table.candidates.len(),
                looking: table.looking,
                look_up_in: table.look_up_at.map(|at| at.saturating_duration_since(now)),
            }
        };
        self.wanted.iter().map(view).collect()
    }

    /// Everybody in a table or on the way into one.
    pub(crate) fn provider_views(&self, now: Instant) -> impl Iterator<Item = ProviderView> {
        self.providers.iter().map(move |(peer, provider)| ProviderView {
            peer: *peer,
            warm: provider.is_warm(),
            tables: provider.sought.len(),
            round_trip: provider.round_trip,
            age: now.saturating_duration_since(provider.since),
        })
    }

    /// Providers that are not contacted for a while: they were lost, or lied.
    pub(crate) fn put_off(&self, now: Instant) -> usize {
        self.paused.values().chain(self.avoided.values()).filter(|until| **until > now).count()
    }
}
