//! What happens at which moment beside the network: alarms, jobs, comings and goings, blocks.
//!
//! Owns: their order: by moment, then in the order in which they were put down.
//! Must not: know what an entry means.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use simnet_scenario::Moment;

#[derive(Debug)]
struct Entry<T> {
    at: Moment,
    serial: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

/// Everything that is to happen.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    entries: BinaryHeap<Reverse<Entry<T>>>,
    serial: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { entries: BinaryHeap::new(), serial: 0 }
    }
}

impl<T> Agenda<T> {
    /// Puts something down.
    pub(crate) fn put(&mut self, at: Moment, what: T) {
        self.serial = self.serial.saturating_add(1);
        self.entries.push(Reverse(Entry { at, serial: self.serial, what }));
    }

    /// When the next is due.
    pub(crate) fn next_at(&self) -> Option<Moment> {
        self.entries.peek().map(|Reverse(entry)| entry.at)
    }

    /// The next, if it is due.
    pub(crate) fn take_due(&mut self, now: Moment) -> Option<T> {
        if self.next_at()? > now {
            return None;
        }
        self.entries.pop().map(|Reverse(entry)| entry.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_in_order_and_equals_in_the_order_of_arrival() {
        let mut agenda = Agenda::default();
        for (at, what) in [(2, 'c'), (1, 'a'), (2, 'd'), (1, 'b'), (3, 'e')] {
            agenda.put(Moment::from_millis(at), what);
        }
        let due: String = std::iter::from_fn(|| agenda.take_due(Moment::from_millis(2))).collect();
        assert_eq!(due, "abcd");
        assert_eq!(agenda.next_at(), Some(Moment::from_millis(3)));
    }
}
