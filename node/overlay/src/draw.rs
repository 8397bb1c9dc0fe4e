//! Random draws that peers cannot foresee and a test can repeat.
//!
//! Owns: a counter-mode generator over a secret seed (SHA-256 of seed and counter).
//! Must not: make keys or anything else that must stay secret for ever; it only picks peers.

use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

/// A stream of numbers from a seed. Shared by reference, because Kademlia's store must draw from
/// within `&self`.
#[derive(Debug)]
pub(crate) struct Draw {
    seed: [u8; 32],
    counter: AtomicU64,
}

impl Draw {
    /// Draws under `seed` and `label`; labels keep the streams of two users apart.
    pub(crate) fn new(seed: &[u8; 32], label: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed);
        hash.update(label.as_bytes());
        Self { seed: hash.finalize().into(), counter: AtomicU64::new(0) }
    }

    /// A number below `bound`; 0 when `bound` is 0. The bias of the remainder is below 2⁻⁴⁰ for
    /// the few hundred peers that are ever drawn from.
    pub(crate) fn below(&self, bound: usize) -> usize {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(count.to_be_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut number = [0; 8];
        for (to, from) in number.iter_mut().zip(digest) {
            *to = from;
        }
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        let drawn = u64::from_be_bytes(number).checked_rem(bound).unwrap_or(0);
        usize::try_from(drawn).unwrap_or(0)
    }

    /// Up to `count` distinct elements of `from`, in random order.
    pub(crate) fn some<T>(&self, mut from: Vec<T>, count: usize) -> Vec<T> {
        let mut drawn = Vec::with_capacity(count.min(from.len()));
        while drawn.len() < count && !from.is_empty() {
            drawn.push(from.swap_remove(self.below(from.len())));
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_draws_and_another_does_not() {
        let all = |seed: u8| Draw::new(&[seed; 32], "test").some((0..100).collect(), 100);
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        let mut sorted = all(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_can_be_drawn_from_nothing() {
        let draw = Draw::new(&[0; 32], "test");
        assert!(draw.some(Vec::<u8>::new(), 3).is_empty());
        assert_eq!(draw.below(0), 0);
    }
}
