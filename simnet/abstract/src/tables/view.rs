//! Warm tables as a display shows them.
//!
//! Owns: the way from the tables' little room to a snapshot's words. Must not: change them.

use std::time::Duration;

use simnet_host::state::{Known, Names, TableState};
use simnet_scenario::Moment;

use super::{Millis, NEVER, Tables};
use crate::overlay::Overlay;

impl Tables {
    /// All tables, in the order in which they were wanted.
    pub(crate) fn states(&self, overlay: &Overlay, names: &Names) -> Vec<TableState> {
        let state = |(table, want): (usize, &super::Want)| {
            let (model, minimum_tier) = want.key.parts();
            let hash = overlay.directory.model(model);
            TableState {
                model: hash.map_or_else(String::new, |hash| names.model(hash)),
                minimum_tier,
                warm: self.warm(table),
                on_the_way: self.taken(table).saturating_sub(self.warm(table)),
                candidates: want.candidates.len(),
                looking: want.looking,
                look_up_at: (want.look_up_at != NEVER).then(|| moment(want.look_up_at)),
            }
        };
        self.wants.iter().enumerate().map(state).collect()
    }

    /// Providers in a table or on the way into one, in the order of contact.
    pub(crate) fn known_states(&self, overlay: &Overlay, names: &Names) -> Vec<Known> {
        let state = |known: &super::Known| {
            let spec = overlay.spec(known.host)?;
            let round_trip = Duration::from_micros(known.round_trip.into());
            Some(Known {
                provider: names.peer(spec.key.id()),
                warm: known.is_warm,
                tables: usize::try_from(known.sought.count_ones()).unwrap_or(usize::MAX),
                round_trip: (!round_trip.is_zero()).then_some(round_trip),
                since: moment(known.since),
            })
        };
        self.known.iter().filter_map(state).collect()
    }

    /// Providers that are not contacted for a while.
    pub(crate) fn put_off(&self, now: Millis) -> usize {
        self.paused.iter().filter(|(_, until)| *until > now).count()
    }
}

fn moment(at: Millis) -> Moment {
    Moment::from_millis(at.into())
}
