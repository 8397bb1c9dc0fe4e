//! How many quotes one peer may have made.
//!
//! Owns: the count per peer and its bound. Must not: hinder tier `open`, which needs no quote.

use std::collections::BTreeMap;

use cocoon_protocol::identity::NodeId;
use cocoon_protocol::limits;
use cocoon_protocol::units::{Millis, Timestamp};

/// A hardware quote takes about 50 ms, and a TEE makes one at a time: twenty a second for all. A
/// peer may use a fortieth of that. A consumer with warm sessions needs one in ten minutes.
const QUOTES_PER_WINDOW: u32 = 30;
const WINDOW: Millis = Millis::from_secs(60);
/// Peers remembered: one for each session, four times over. When full, the peer that has been known
/// for longest is forgotten, so strangers cannot lock anybody out.
const PEERS: usize = 4 * limits::SESSIONS;

/// Counts per peer, in windows that begin with a peer's first quote.
#[derive(Debug, Default)]
pub(super) struct QuoteQuota {
    peers: BTreeMap<NodeId, (Timestamp, u32)>,
}

impl QuoteQuota {
    /// Takes one quote from `peer`'s share; false when it has none left.
    pub(super) fn take(&mut self, peer: NodeId, now: Timestamp) -> bool {
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            self.forget(now);
        }
        let (begin, count) = self.peers.entry(peer).or_insert((now, 0));
        if now.since(*begin) >= WINDOW || now < *begin {
            (*begin, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= QUOTES_PER_WINDOW
    }

    fn forget(&mut self, now: Timestamp) {
        self.peers.retain(|_, (begin, _)| now.since(*begin) < WINDOW);
        if self.peers.len() < PEERS {
            return;
        }
        let oldest = self.peers.iter().min_by_key(|(_, (begin, _))| *begin).map(|(peer, _)| *peer);
        if let Some(oldest) = oldest {
            self.peers.remove(&oldest);
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
    fn a_peer_has_its_share_and_a_minute_later_another() {
        let mut quota = QuoteQuota::default();
        for _ in 0..QUOTES_PER_WINDOW {
            assert!(quota.take(peer(1), NOW));
        }
        assert!(!quota.take(peer(1), NOW));
        assert!(quota.take(peer(2), NOW));
        assert!(!quota.take(peer(1), NOW.after(Millis::from_secs(59))));
        assert!(quota.take(peer(1), NOW.after(WINDOW)));
    }

    #[test]
    fn strangers_never_grow_it_nor_lock_anybody_out() {
        let mut quota = QuoteQuota::default();
        for number in 0..PEERS + 100 {
            assert!(quota.take(peer(number), NOW));
        }
        assert_eq!(quota.peers.len(), PEERS);
        assert!(quota.take(peer(usize::MAX), NOW));
    }
}
