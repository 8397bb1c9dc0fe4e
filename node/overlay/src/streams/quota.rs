//! How many inbound streams peers may hold open, per protocol, per peer and in all.
//!
//! Owns: the counters; a stream holds a permit for its whole life, queue time included.
//! Must not: close or answer streams; the handler does that with the verdict.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Protocol;

/// Live streams per protocol, and the most there may be.
#[derive(Debug)]
struct Counters {
    live: [AtomicUsize; Protocol::ALL.len()],
    most: fn(Protocol) -> usize,
}

impl Counters {
    fn new(most: fn(Protocol) -> usize) -> Self {
        Self { live: Default::default(), most }
    }

    fn take(&self, protocol: Protocol) -> bool {
        let most = (self.most)(protocol);
        self.live(protocol)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |live| {
                (live < most).then_some(live.saturating_add(1))
            })
            .is_ok()
    }

    fn give_back(&self, protocol: Protocol) {
        self.live(protocol).fetch_sub(1, Ordering::AcqRel);
    }

    fn live(&self, protocol: Protocol) -> &AtomicUsize {
        let [control, session] = &self.live;
        match protocol {
            Protocol::Control => control,
            Protocol::Session => session,
        }
    }
}

/// The quota that all peers share.
#[derive(Clone, Debug)]
pub(super) struct NodeQuota(Arc<Counters>);

impl NodeQuota {
    pub(super) fn new() -> Self {
        Self(Arc::new(Counters::new(Protocol::most_per_node)))
    }

    /// The quota of one peer within this one.
    pub(super) fn peer(&self) -> PeerQuota {
        PeerQuota {
            taken: Arc::new(Counters::new(Protocol::most_per_peer)),
            opened: Arc::new(Counters::new(|_| usize::MAX)),
            shared: Arc::clone(&self.0),
        }
    }
}

/// One peer's quota, shared by all its connections.
#[derive(Clone, Debug)]
pub(super) struct PeerQuota {
    /// Streams that the peer opened and we took.
    taken: Arc<Counters>,
    /// Streams that we opened: counted to know who is active, without a limit.
    opened: Arc<Counters>,
    shared: Arc<Counters>,
}

impl PeerQuota {
    /// Admits one more stream, or `None` when the peer's or the node's quota is full.
    pub(super) fn admit(&self, protocol: Protocol) -> Option<Permit> {
        if !self.taken.take(protocol) {
            return None;
        }
        if !self.shared.take(protocol) {
            self.taken.give_back(protocol);
            return None;
        }
        let counted = [Some(Arc::clone(&self.taken)), Some(Arc::clone(&self.shared))];
        Some(Permit { counted, protocol })
    }

    /// Counts a stream that we opened.
    pub(super) fn count_opened(&self, protocol: Protocol) -> Permit {
        self.opened.take(protocol);
        Permit { counted: [Some(Arc::clone(&self.opened)), None], protocol }
    }

    /// Open streams of `protocol` with the peer, whoever opened them.
    pub(super) fn live(&self, protocol: Protocol) -> usize {
        let live = |counters: &Counters| counters.live(protocol).load(Ordering::Acquire);
        live(&self.taken).saturating_add(live(&self.opened))
    }
}

/// The right to one open stream; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    counted: [Option<Arc<Counters>>; 2],
    protocol: Protocol,
}

impl Drop for Permit {
    fn drop(&mut self) {
        for counters in self.counted.iter().flatten() {
            counters.give_back(self.protocol);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn a_peer_gets_its_quota_and_not_more_and_drops_give_back() {
        let peer = NodeQuota::new().peer();
        let mut permits: Vec<_> = std::iter::from_fn(|| peer.admit(Protocol::Session)).collect();
        assert_eq!(permits.len(), limits::SESSION_STREAMS_PER_PEER);
        assert!(peer.admit(Protocol::Control).is_some(), "protocols are counted apart");
        permits.pop();
        assert!(peer.admit(Protocol::Session).is_some());
    }

    #[test]
    fn many_peers_share_the_quota_of_the_node() {
        let node = NodeQuota::new();
        let mut permits = Vec::new();
        for _ in 0..limits::SESSION_STREAMS {
            permits.extend(node.peer().admit(Protocol::Session));
        }
        assert_eq!(permits.len(), limits::SESSION_STREAMS);
        let late = node.peer();
        assert!(late.admit(Protocol::Session).is_none());
        assert_eq!(late.live(Protocol::Session), 0, "a refusal leaves no trace");
        permits.clear();
        assert!(late.admit(Protocol::Session).is_some());
    }
}
