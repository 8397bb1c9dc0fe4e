//! The order of a run: events by time, and by the order of their making within one nanosecond.
//!
//! Owns: that order, at a cost that does not depend on how many events wait.
//! Must not: know what an event is about, or allocate for each.
//!
//! Time is cut into slots of 2^20 ns (1.05 ms), 2^17 of them in a turn (137 s). An event of the
//! present turn lies in its slot, unsorted; one of a later turn in that turn's list. When a slot is
//! reached it is sorted by (time, number), which is cheap because it is short and fits a cache;
//! what is added to it meanwhile goes to a small heap beside it. So events come out in exactly the order
//! of a priority queue, which a property test compares, without its logarithm of a million.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;

use simnet_scenario::Moment;

/// Nanoseconds of a slot, as a power of two.
const SLOT_BITS: u32 = 20;
/// Slots of a turn, as a power of two.
const TURN_BITS: u32 = 17;
const SLOTS: usize = 1 << TURN_BITS;
/// Slots whose room is kept for the next ones that fill.
const SPARE: usize = 64;

/// An event with its place in the order. 32 bytes when `T` has 16.
#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    at: Moment,
    number: u64,
    event: T,
}

impl<T> Entry<T> {
    /// Time and number in one, which a processor compares without a branch: slots are in no order
    /// that it could guess.
    fn key(&self) -> u128 {
        u128::from(self.at.as_nanos()) << 64 | u128::from(self.number)
    }
}

/// In the reverse order of keys: the greatest is the one that comes out next.
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }

    fn lt(&self, other: &Self) -> bool {
        other.key() < self.key()
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

/// What a coming slot has by now.
#[derive(Clone, Copy, Debug)]
pub struct Coming<'a, T>(&'a [Entry<T>]);

impl<'a, T> Coming<'a, T> {
    /// How many events.
    pub const fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Those of these places.
    pub fn events(self, places: Range<usize>) -> impl Iterator<Item = &'a T> {
        self.0.get(places).unwrap_or_default().iter().map(|entry| &entry.event)
    }
}

/// Events in the order of their times.
#[derive(Debug)]
pub struct Wheel<T> {
    /// The present slot, sorted, the next event last.
    present: Vec<Entry<T>>,
    /// What was added to the present slot since it was sorted.
    fresh: BinaryHeap<Entry<T>>,
    /// The present turn's slots behind the present one.
    slots: Vec<Vec<Entry<T>>>,
    /// One bit a slot: whether it holds anything.
    filled: Vec<u64>,
    /// Later turns.
    later: BTreeMap<u64, Vec<Entry<T>>>,
    /// The place of the next slot of the present turn that holds anything.
    coming: Option<usize>,
    /// Number of the present slot, counted from the start of the run.
    slot: u64,
    numbers: u64,
    length: usize,
    spare: Vec<Vec<Entry<T>>>,
}

impl<T: Copy> Default for Wheel<T> {
    fn default() -> Self {
        Self {
            present: Vec::new(),
            fresh: BinaryHeap::new(),
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            filled: vec![0; SLOTS / 64],
            later: BTreeMap::new(),
            coming: None,
            slot: 0,
            numbers: 0,
            length: 0,
            spare: Vec::new(),
        }
    }
}

const fn slot_of(at: Moment) -> u64 {
    at.as_nanos() >> SLOT_BITS
}

/// A slot's place in its turn.
#[expect(clippy::cast_possible_truncation, reason = "17 bits")]
const fn place(slot: u64) -> usize {
    (slot & (SLOTS as u64 - 1)) as usize
}

impl<T: Copy> Wheel<T> {
    /// Events that wait.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds an event. One that is earlier than the last that came out comes out next.
    pub fn push(&mut self, at: Moment, event: T) {
        let entry = Entry { at, number: self.numbers, event };
        self.numbers += 1;
        self.length += 1;
        let slot = slot_of(at);
        if slot <= self.slot {
            self.fresh.push(entry);
        } else if slot >> TURN_BITS == self.slot >> TURN_BITS {
            self.put(slot, entry);
        } else {
            self.later.entry(slot >> TURN_BITS).or_default().push(entry);
        }
    }

    fn put(&mut self, slot: u64, entry: Entry<T>) {
        let place = place(slot);
        let Some(list) = self.slots.get_mut(place) else { return };
        if list.capacity() == 0
            && let Some(spare) = self.spare.pop()
        {
            *list = spare;
        }
        list.push(entry);
        if let Some(word) = self.filled.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
        if self.coming.is_none_or(|coming| place < coming) {
            self.coming = Some(place);
        }
    }

    /// When the next event is due, if that is not after `limit`. Moves on to its slot, but never
    /// beyond the limit's: whoever looks ahead may still add something before.
    pub fn next_at(&mut self, limit: Moment) -> Option<Moment> {
        while self.present.is_empty() && self.fresh.is_empty() {
            if self.length == 0 || !self.turn(limit) {
                return None;
            }
        }
        let next = self.present.last().max(self.fresh.peek()).map(|entry| entry.at);
        next.filter(|at| *at <= limit)
    }

    /// The next event, and when it is due, if that is not after `limit`.
    pub fn pop(&mut self, limit: Moment) -> Option<(Moment, T)> {
        self.next_at(limit)?;
        let sorted_first = self.present.last() > self.fresh.peek();
        let entry = if sorted_first { self.present.pop()? } else { self.fresh.pop()? };
        self.length -= 1;
        Some((entry.at, entry.event))
    }

    /// Events that are left of those that the present slot began with.
    pub const fn left(&self) -> usize {
        self.present.len()
    }

    /// The next slot that holds anything, as far as it lies in the present turn, and what it has by
    /// now, in the order in which it was added; for a caller that wants the events' data on the way.
    pub fn coming(&self) -> Option<(usize, Coming<'_, T>)> {
        let coming = self.coming?;
        self.slots.get(coming).map(|list| (coming, Coming(list)))
    }

    /// Goes on to the next slot that holds anything, which may be in a later turn. False when that
    /// is behind the limit's.
    fn turn(&mut self, limit: Moment) -> bool {
        if let Some(next) = self.coming {
            let slot = (self.slot >> TURN_BITS << TURN_BITS) + next as u64;
            let reached = slot <= slot_of(limit);
            if reached {
                self.slot = slot;
                self.reach(next);
            }
            return reached;
        }
        let turn = self.later.first_key_value().map(|(turn, _)| *turn);
        if turn.is_none_or(|turn| turn << TURN_BITS > slot_of(limit)) {
            return false;
        }
        let Some((turn, entries)) = self.later.pop_first() else { return false };
        self.slot = turn << TURN_BITS;
        self.coming = None;
        for entry in entries {
            self.put(slot_of(entry.at), entry);
        }
        self.reach(place(self.slot));
        true
    }

    /// Makes a slot the present one.
    fn reach(&mut self, place: usize) {
        let Some(list) = self.slots.get_mut(place) else { return };
        let mut list = std::mem::take(list);
        if let Some(word) = self.filled.get_mut(place / 64) {
            *word &= !(1 << (place % 64));
        }
        self.coming = self.next_filled(place + 1);
        list.sort_unstable();
        let old = std::mem::replace(&mut self.present, list);
        if old.capacity() > 0 && self.spare.len() < SPARE {
            self.spare.push(old);
        }
    }

    fn next_filled(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.filled.get(word)? & (u64::MAX << (from % 64));
        loop {
            if bits != 0 {
                return Some(word * 64 + usize::try_from(bits.trailing_zeros()).unwrap_or(0));
            }
            word += 1;
            bits = *self.filled.get(word)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    /// Differences that land in the same slot, the same turn, and turns later.
    fn ahead() -> impl Strategy<Value = u64> {
        prop_oneof![0..3u64, 0..2_000_000u64, 0..200_000_000_000u64, 0..2_000_000_000_000u64]
    }

    proptest! {
        #[test]
        fn events_come_out_as_from_a_priority_queue(
            steps in prop::collection::vec(prop_oneof![ahead().prop_map(Some), Just(None)], 1..400),
        ) {
            let mut wheel = Wheel::default();
            let mut model = BinaryHeap::new();
            let (mut now, mut made) = (0u64, 0u64);
            for step in steps.into_iter().chain(std::iter::repeat_n(None, 400)) {
                if let Some(ahead) = step {
                    wheel.push(Moment::from_nanos(now + ahead), made);
                    model.push(Reverse((now + ahead, made)));
                    made += 1;
                } else {
                    let expected = model.pop().map(|Reverse((at, event))| (at, event));
                    // To look ahead, however far, moves nothing.
                    let limit = Moment::from_nanos(now + u64::try_from(wheel.len()).unwrap());
                    let next = expected.map(|it| it.0);
                    let near = next.filter(|at| *at <= limit.as_nanos());
                    prop_assert_eq!(wheel.next_at(limit).map(Moment::as_nanos), near);
                    let limit = Moment::from_nanos(next.unwrap_or(now));
                    let came = wheel.pop(limit).map(|(at, event)| (at.as_nanos(), event));
                    prop_assert_eq!(came, expected);
                    now = expected.map_or(now, |(at, _)| at);
                }
                prop_assert_eq!(wheel.len(), model.len());
            }
            prop_assert!(wheel.is_empty());
        }
    }

    #[test]
    fn an_event_of_a_simulation_takes_thirty_two_bytes() {
        assert_eq!(size_of::<Entry<crate::event::Event>>(), 32);
    }
}
