//! Entry points: addresses that a node dials to join, and dials again when they are lost and needed.
//!
//! Owns: their back-off. Must not: dial; it says which are due, and is told what became of it.

use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting(Instant),
    Dialling(ConnectionId),
    Connected(PeerId),
    /// It was connected, and the node knows enough others: it is due then, or when it is needed.
    Resting(Instant),
}

#[derive(Debug)]
struct EntryPoint {
    address: Multiaddr,
    state: State,
    pause: Duration,
}

/// All entry points of a node.
#[derive(Debug, Default)]
pub(crate) struct EntryPoints {
    points: Vec<EntryPoint>,
}

/// The peer that an address names with its last part, `/p2p/…`.
pub(crate) fn named_peer(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

impl EntryPoints {
    /// Adds an address, due at once. Known ones and those beyond the bound are ignored.
    pub(crate) fn add(&mut self, address: Multiaddr, now: Instant) -> bool {
        let known = self.points.iter().any(|point| point.address == address);
        if known || self.points.len() >= limits::ENTRY_POINTS {
            return false;
        }
        let state = State::Waiting(now);
        self.points.push(EntryPoint { address, state, pause: limits::ENTRY_RETRY_MIN });
        true
    }

    /// Addresses to dial now.
    pub(crate) fn due(&self, now: Instant) -> Vec<Multiaddr> {
        let due = |point: &&EntryPoint| point.due_at().is_some_and(|at| at <= now);
        self.points.iter().filter(due).map(|point| point.address.clone()).collect()
    }

    /// A dial to `address` is under way.
    pub(crate) fn dialling(&mut self, address: &Multiaddr, connection: ConnectionId) {
        for point in self.points.iter_mut().filter(|point| point.address == *address) {
            point.state = State::Dialling(connection);
        }
    }

    /// A dial to `address` could not even start: it is tried again after its pause.
    pub(crate) fn postpone(&mut self, address: &Multiaddr, now: Instant) {
        for point in self.points.iter_mut().filter(|point| point.address == *address) {
            point.back_off(now);
        }
    }

    /// A connection with `peer` was established, perhaps to an entry point.
    pub(crate) fn connected(&mut self, connection: ConnectionId, peer: PeerId) {
        for point in &mut self.points {
            if point.state == State::Dialling(connection)
                || named_peer(&point.address) == Some(peer)
            {
                point.state = State::Connected(peer);
                point.pause = limits::ENTRY_RETRY_MIN;
            }
        }
    }

    /// The last connection with `peer` ended. An entry point that can be spared rests then: not for
    /// ever, because after a long cut entry points bring the halves of a network together again.
    pub(crate) fn disconnected(&mut self, peer: PeerId, is_spare: bool, now: Instant) {
        for point in &mut self.points {
            if point.state == State::Connected(peer) {
                if is_spare {
                    let until = now.checked_add(limits::ENTRY_REST).unwrap_or(now);
                    point.state = State::Resting(until);
                } else {
                    point.back_off(now);
                }
            }
        }
    }

    /// They are needed: those that rest are due.
    pub(crate) fn wake(&mut self, now: Instant) {
        for point in &mut self.points {
            if matches!(point.state, State::Resting(_)) {
                point.state = State::Waiting(now);
            }
        }
    }

    /// A dial failed.
    pub(crate) fn failed(&mut self, connection: ConnectionId, now: Instant) {
        for point in &mut self.points {
            if point.state == State::Dialling(connection) {
                point.back_off(now);
            }
        }
    }

    /// An address turned out to be our own.
    pub(crate) fn forget_own(&mut self, connection: ConnectionId) {
        self.points.retain(|point| point.state != State::Dialling(connection));
    }

    /// Peers at entry points at this moment.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.points.iter().filter_map(|point| match point.state {
            State::Connected(peer) => Some(peer),
            State::Waiting(_) | State::Dialling(_) | State::Resting(_) => None,
        })
    }

    /// How many there are, and how many are connected.
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.points.len(), self.peers().count())
    }

    /// When the next one is due.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.points.iter().filter_map(EntryPoint::due_at).min()
    }
}

impl EntryPoint {
    const fn due_at(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) | State::Resting(at) => Some(at),
            State::Dialling(_) | State::Connected(_) => None,
        }
    }

    fn back_off(&mut self, now: Instant) {
        self.state = State::Waiting(now.checked_add(self.pause).unwrap_or(now));
        self.pause = self.pause.saturating_mul(2).min(limits::ENTRY_RETRY_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_entry_point_is_dialled_again_ever_more_slowly() {
        let mut points = EntryPoints::default();
        let address: Multiaddr = "/memory/1".parse().unwrap();
        let mut now = Instant::now();
        assert!(points.add(address.clone(), now));
        assert!(!points.add(address.clone(), now), "known already");
        let mut pauses = Vec::new();
        for id in 0..10 {
            assert_eq!(points.due(now), std::slice::from_ref(&address));
            points.dialling(&address, ConnectionId::new_unchecked(id));
            assert!(points.due(now).is_empty());
            points.failed(ConnectionId::new_unchecked(id), now);
            let next = points.wake_at().unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        points.dialling(&address, ConnectionId::new_unchecked(99));
        let peer = PeerId::random();
        points.connected(ConnectionId::new_unchecked(99), peer);
        assert_eq!((points.count(), points.wake_at()), ((1, 1), None));
        points.disconnected(peer, false, now);
        assert_eq!(
            points.wake_at(),
            Some(now + limits::ENTRY_RETRY_MIN),
            "success resets the pause"
        );
    }

    #[test]
    fn an_entry_point_that_is_not_missed_rests_until_it_is_needed() {
        let mut points = EntryPoints::default();
        let (peer, connection) = (PeerId::random(), ConnectionId::new_unchecked(1));
        let address: Multiaddr = "/memory/1".parse().unwrap();
        let now = Instant::now();
        points.add(address.clone(), now);
        points.dialling(&address, connection);
        points.wake(now);
        assert!(points.due(now).is_empty(), "a dial is under way");
        points.connected(connection, peer);
        points.disconnected(peer, true, now);
        assert_eq!((points.count(), points.wake_at()), ((1, 0), Some(now + limits::ENTRY_REST)));
        assert!(points.due(now).is_empty());
        assert_eq!(points.due(now + limits::ENTRY_REST), std::slice::from_ref(&address));
        points.wake(now);
        assert_eq!(points.due(now), [address]);
    }

    #[test]
    fn an_inbound_connection_of_a_named_entry_point_counts() {
        let mut points = EntryPoints::default();
        let peer = PeerId::random();
        let address: Multiaddr = format!("/memory/1/p2p/{peer}").parse().unwrap();
        points.add(address, Instant::now());
        points.connected(ConnectionId::new_unchecked(5), peer);
        assert_eq!(points.peers().collect::<Vec<_>>(), [peer]);
    }
}
