//! Sorted maps and sets in one allocation, for what a node has a few of.
//!
//! Owns: order, and room that follows the contents down as well as up.
//! Must not: hold more than some thousand entries: adding one moves all behind it.
//!
//! A B-tree gives its first entry a leaf for eleven. With values of a hundred bytes that is a
//! kilobyte for a node's only session, and there are simulations of a million nodes.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// What gives its memory back once it is empty. A tree does not: it keeps a leaf for eleven entries,
/// which is half a kilobyte and more of every node that has ever had one.
pub(crate) trait Rest {
    /// Gives the memory back if it is empty.
    fn rest(&mut self);
}

impl<K, V> Rest for BTreeMap<K, V> {
    fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::new();
        }
    }
}

impl<K> Rest for BTreeSet<K> {
    fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::new();
        }
    }
}

/// Entries that are looked at one after another: to halve so few takes longer.
const FEW: usize = 4;

/// Where an entry is, or where it would be, as [`slice::binary_search_by`] has it.
fn find<T>(list: &[T], order: impl Fn(&T) -> Ordering) -> Result<usize, usize> {
    if list.len() > FEW {
        return list.binary_search_by(order);
    }
    for (at, entry) in list.iter().enumerate() {
        match order(entry) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(at),
            Ordering::Greater => return Err(at),
        }
    }
    Err(list.len())
}

/// Entries by key, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlatMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for FlatMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> FlatMap<K, V> {
    /// An empty map; allocates nothing.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    fn find(&self, key: &K) -> Result<usize, usize> {
        match self.0.as_slice() {
            // Most nodes have one job, one session, one channel; that two names are equal is told in a
            // fraction of the time that their order takes.
            [(only, _)] if only == key => Ok(0),
            entries => find(entries, |(known, _)| known.cmp(key)),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(self.find(key).ok()?).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    /// The value of `key`, which is made if there is none.
    pub(crate) fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        let at = match self.find(&key) {
            Ok(at) => at,
            Err(at) => {
                grow(&mut self.0);
                self.0.insert(at, (key, value()));
                at
            }
        };
        #[expect(clippy::indexing_slicing, reason = "found or inserted there just now")]
        &mut self.0[at].1
    }

    /// The value that was there before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(known) = self.get_mut(&key) {
            return Some(std::mem::replace(known, value));
        }
        self.get_or_insert_with(key, || value);
        None
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key).ok()?;
        let (_, value) = self.0.remove(at);
        shrink(&mut self.0);
        Some(value)
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// All entries, in the order of their keys.
    pub(crate) fn entries(&self) -> &[(K, V)] {
        &self.0
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
}

/// Keys in their order.
#[derive(Clone, Debug)]
pub(crate) struct FlatSet<K>(Vec<K>);

impl<K> Default for FlatSet<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord> FlatSet<K> {
    /// Whether it is new.
    pub(crate) fn insert(&mut self, key: K) -> bool {
        let Err(at) = find(&self.0, |known| known.cmp(&key)) else {
            return false;
        };
        grow(&mut self.0);
        self.0.insert(at, key);
        true
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, key: &K) -> bool {
        let Ok(at) = find(&self.0, |known| known.cmp(key)) else {
            return false;
        };
        self.0.remove(at);
        shrink(&mut self.0);
        true
    }

    /// Takes the first of them out, at most all.
    pub(crate) fn take_first(&mut self, count: usize) -> Vec<K> {
        let taken = self.0.drain(..count.min(self.0.len())).collect();
        shrink(&mut self.0);
        taken
    }

    /// All keys, in order.
    pub(crate) fn as_slice(&self) -> &[K] {
        &self.0
    }
}

/// The part of a sorted slice whose keys begin with `first`.
pub(crate) fn with_first<'a, A: Ord, B>(sorted: &'a [(A, B)], first: &A) -> &'a [(A, B)] {
    let start = sorted.partition_point(|(key, _)| key < first);
    let rest = sorted.get(start..).unwrap_or_default();
    let length = rest.partition_point(|(key, _)| key == first);
    rest.get(..length).unwrap_or_default()
}

/// Makes room for one more, and for a quarter more than there is.
pub(crate) fn grow<T>(entries: &mut Vec<T>) {
    if entries.len() == entries.capacity() {
        entries.reserve_exact(1.max(entries.len() >> 2));
    }
}

/// Gives room back when three quarters of it are empty.
pub(crate) fn shrink<T>(entries: &mut Vec<T>) {
    if entries.len() <= entries.capacity() >> 2 {
        entries.shrink_to(entries.len().saturating_mul(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_what_the_ordered_collections_are(
            steps in prop::collection::vec((0u8..4, 0u8..24, any::<u16>()), 0..200),
        ) {
            let (mut map, mut set) = (FlatMap::new(), FlatSet::default());
            let (mut map_model, mut set_model) = (BTreeMap::new(), BTreeSet::new());
            for (what, key, value) in steps {
                match what {
                    0 => {
                        prop_assert_eq!(map.insert(key, value), map_model.insert(key, value));
                        prop_assert_eq!(set.insert((key, value)), set_model.insert((key, value)));
                    }
                    1 => {
                        let known = map_model.entry(key).or_insert(value);
                        prop_assert_eq!(map.get_or_insert_with(key, || value), known);
                    }
                    2 => {
                        prop_assert_eq!(map.remove(&key), map_model.remove(&key));
                        let gone = set_model.range((key, 0)..).next().copied();
                        let gone = gone.unwrap_or((key, value));
                        prop_assert_eq!(set.remove(&gone), set_model.remove(&gone));
                    }
                    _ => {
                        prop_assert_eq!(map.get(&key), map_model.get(&key));
                        let theirs: Vec<_> =
                            set_model.iter().filter(|(first, _)| *first == key).copied().collect();
                        prop_assert_eq!(with_first(set.as_slice(), &key), &theirs[..]);
                    }
                }
                prop_assert!(map.iter().eq(&map_model));
                prop_assert!(set.as_slice().iter().eq(&set_model));
                prop_assert!(map.0.capacity() <= 4 * map.len().max(1), "no room is kept for nothing");
            }
        }
    }
}
