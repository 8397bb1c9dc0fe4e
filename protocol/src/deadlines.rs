//! When something of many is due, without looking at all of them.
//!
//! Owns: the order of what is due. Must not: know what is due, or read a clock.
//!
//! Most deadlines are pushed back at every sign of life and never reached. So an owner moves an
//! entry only when its deadline comes nearer; when an entry comes up that was pushed back
//! meanwhile, it is put where it belongs. That is one step for each time-out instead of one for
//! each token.

use crate::flat::FlatSet;
use crate::units::Timestamp;

/// Keys in the order of the moments at which they are looked at. Each key's owner remembers its
/// moment in an [`Entry`].
#[derive(Clone, Debug)]
pub(crate) struct Deadlines<K>(FlatSet<(Timestamp, K)>);

/// The moment at which a key stands in its [`Deadlines`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry(Option<Timestamp>);

/// The earlier of two moments that there may be.
pub(crate) fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self(FlatSet::default())
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// The key is due at this moment, or never. A moment later than the one noted is noted when
    /// that one comes up. False if nothing has changed for [`Self::next`].
    pub(crate) fn set(&mut self, key: K, entry: &mut Entry, due: Option<Timestamp>) -> bool {
        if let (Some(noted), Some(due)) = (entry.0, due)
            && noted <= due
        {
            return false;
        }
        self.clear(key, entry);
        if let Some(due) = due {
            self.0.insert((due, key));
            entry.0 = Some(due);
        }
        true
    }

    /// The key is never due.
    pub(crate) fn clear(&mut self, key: K, entry: &mut Entry) {
        if let Some(noted) = entry.0.take() {
            self.0.remove(&(noted, key));
        }
    }

    /// When the next key comes up; nothing is due before.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.0.as_slice().first().map(|(at, _)| *at)
    }

    /// The keys that come up until `now`. Each may have been pushed back: its owner calls
    /// [`Self::came_up`] with its present deadline.
    pub(crate) fn take_until(&mut self, now: Timestamp) -> Vec<K> {
        let due = self.0.as_slice().partition_point(|(at, _)| *at <= now);
        self.0.take_first(due).into_iter().map(|(_, key)| key).collect()
    }

    /// After [`Self::take_until`]: whether the key really is due; if not, it is noted again.
    pub(crate) fn came_up(
        &mut self,
        key: K,
        entry: &mut Entry,
        due: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        entry.0 = None;
        if due.is_some_and(|due| due <= now) {
            return true;
        }
        self.set(key, entry, due);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_unix_secs(second)
    }

    proptest! {
        #[test]
        fn everything_is_found_when_it_is_due_and_nothing_before(
            steps in prop::collection::vec((0usize..8, prop::option::of(0u64..40), 0u64..3), 1..120),
        ) {
            let mut deadlines = Deadlines::default();
            let mut owned = [(Entry::default(), None); 8];
            let mut second = 0;
            for (key, due, pass) in steps {
                let due = due.map(|after| at(second + after));
                owned[key].1 = due;
                deadlines.set(key, &mut owned[key].0, due);
                second += pass;
                let now = at(second);
                let earliest = owned.iter().filter_map(|(_, due)| *due).min();
                let next = deadlines.next();
                prop_assert!(next.is_none_or(|next| earliest.is_none_or(|it| next <= it)));
                prop_assert!(next.is_some() || earliest.is_none());
                let mut due_now = Vec::new();
                for key in deadlines.take_until(now) {
                    let (entry, due) = &mut owned[key];
                    if deadlines.came_up(key, entry, *due, now) {
                        due_now.push(key);
                        *due = None;
                    }
                }
                prop_assert!(owned.iter().all(|(_, due)| due.is_none_or(|due| due > now)));
                prop_assert!(deadlines.next().is_none_or(|next| next > now));
            }
        }
    }
}
