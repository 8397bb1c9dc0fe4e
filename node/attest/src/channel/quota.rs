//! How much work one peer may cause the TEE and its GPUs: a token bucket for each.
//!
//! Owns: the buckets and their bound. Must not: hinder tier `open`, which needs no quote.

use std::collections::BTreeMap;

use cocoon_protocol::identity::NodeId;
use cocoon_protocol::limits;
use cocoon_protocol::units::{Millis, Timestamp};

/// A hardware quote takes about 50 ms, and a TEE makes one at a time: twenty a second for all. One
/// peer may have a fortieth of that in the long run; a consumer with warm sessions needs one in ten
/// minutes for each.
const REFILL: Millis = Millis::from_secs(2);
/// Quotes at once: a consumer that starts opens a handful of sessions, and tries some again.
const BURST: u32 = 8;
/// Peers remembered: one for each session, four times over. When full, the fullest bucket is
/// forgotten, which is worth least; so strangers cannot lock anybody out.
const PEERS: usize = 4 * limits::SESSIONS;

/// Tokens that a quote costs.
pub(super) const QUOTE: u32 = 1;
/// Tokens that a quote costs which covers the evidence of GPUs: these are asked one after the other and
/// take seconds, so that one peer may have them asked twice at once, and then once in eight seconds.
pub(super) const QUOTE_WITH_GPUS: u32 = 4;

/// A bucket: the tokens that it had at a time. Between refills the time does not move, so that no
/// part of a token is lost.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    at: Timestamp,
    tokens: u32,
}

impl Bucket {
    fn refilled(self, now: Timestamp) -> Self {
        let gained = now.since(self.at).get() / REFILL.get();
        let tokens = u32::try_from(gained).unwrap_or(u32::MAX).saturating_add(self.tokens);
        // A clock that was set back begins anew.
        if tokens >= BURST || now < self.at {
            return Self { at: now, tokens: tokens.min(BURST) };
        }
        Self { at: self.at.after(Millis::new(gained.saturating_mul(REFILL.get()))), tokens }
    }
}

/// The buckets of all peers.
#[derive(Debug, Default)]
pub(super) struct QuoteQuota {
    peers: BTreeMap<NodeId, Bucket>,
}

impl QuoteQuota {
    /// Takes `cost` from `peer`'s bucket; false when there is less in it, which stays there.
    pub(super) fn take(&mut self, peer: NodeId, cost: u32, now: Timestamp) -> bool {
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            self.forget(now);
        }
        let bucket = self.peers.entry(peer).or_insert(Bucket { at: now, tokens: BURST });
        *bucket = bucket.refilled(now);
        let left = bucket.tokens.checked_sub(cost);
        bucket.tokens = left.unwrap_or(bucket.tokens);
        left.is_some()
    }

    fn forget(&mut self, now: Timestamp) {
        // A full bucket says nothing.
        self.peers.retain(|_, bucket| bucket.refilled(now).tokens < BURST);
        if self.peers.len() < PEERS {
            return;
        }
        let fullest = self.peers.iter().max_by_key(|(_, bucket)| bucket.refilled(now).tokens);
        let fullest = fullest.map(|(peer, _)| *peer);
        if let Some(fullest) = fullest {
            self.peers.remove(&fullest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

    fn peer(number: usize) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    #[test]
    fn a_peer_has_a_burst_and_then_what_trickles_in() {
        let mut quota = QuoteQuota::default();
        let after = |millis| NOW.after(Millis::new(millis));
        for _ in 0..BURST {
            assert!(quota.take(peer(1), QUOTE, NOW));
        }
        assert!(!quota.take(peer(1), QUOTE, NOW));
        assert!(quota.take(peer(2), QUOTE, NOW));
        // Asking does not push the next token away.
        for millis in [500, 1_000, 1_999] {
            assert!(!quota.take(peer(1), QUOTE, after(millis)));
        }
        assert!(quota.take(peer(1), QUOTE, after(2_000)));
        assert!(!quota.take(peer(1), QUOTE, after(3_999)));
        assert!(quota.take(peer(1), QUOTE, after(4_000)));
    }

    #[test]
    fn gpus_cost_more_and_leave_what_does_not_suffice() {
        let mut quota = QuoteQuota::default();
        for _ in 0..BURST / QUOTE_WITH_GPUS {
            assert!(quota.take(peer(1), QUOTE_WITH_GPUS, NOW));
        }
        assert!(!quota.take(peer(1), QUOTE, NOW));
        let later = NOW.after(REFILL);
        assert!(!quota.take(peer(1), QUOTE_WITH_GPUS, later));
        assert!(quota.take(peer(1), QUOTE, later));
    }

    #[test]
    fn a_long_pause_is_worth_one_burst_and_no_more() {
        let mut quota = QuoteQuota::default();
        assert!(quota.take(peer(1), QUOTE, NOW));
        let later = NOW.after(Millis::from_secs(1_000_000));
        let granted = (0..100).filter(|_| quota.take(peer(1), QUOTE, later)).count();
        assert_eq!(granted, usize::try_from(BURST).unwrap());
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_tokens() {
        let mut quota = QuoteQuota::default();
        let granted = |quota: &mut QuoteQuota, now| {
            (0..100).filter(|_| quota.take(peer(1), QUOTE, now)).count()
        };
        assert_eq!(granted(&mut quota, NOW.after(Millis::from_secs(3_600))), 8);
        assert_eq!(granted(&mut quota, NOW), 0);
        assert_eq!(granted(&mut quota, NOW.after(REFILL)), 1);
    }

    #[test]
    fn strangers_never_grow_it_nor_lock_anybody_out() {
        let mut quota = QuoteQuota::default();
        for number in 0..PEERS + 100 {
            assert!(quota.take(peer(number), QUOTE, NOW));
        }
        assert_eq!(quota.peers.len(), PEERS);
        assert!(quota.take(peer(usize::MAX), QUOTE, NOW));
    }

    #[test]
    fn a_flood_of_strangers_does_not_refill_who_has_used_its_share() {
        let mut quota = QuoteQuota::default();
        while quota.take(peer(usize::MAX), QUOTE, NOW) {}
        for number in 0..2 * PEERS {
            quota.take(peer(number), QUOTE, NOW);
        }
        assert!(!quota.take(peer(usize::MAX), QUOTE, NOW));
    }
}
