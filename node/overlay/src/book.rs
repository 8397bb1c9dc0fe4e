//! Addresses of peers that may be dialled by identity.
//!
//! Owns: a bounded address book, consulted by the swarm for every dial by identity; what a peer
//! says of itself, what the index says of it, and which of these did not answer.
//! Must not: judge addresses (`address::believable` does), or keep what a peer no longer claims.
//! Why both sources: a peer that comes back at another address is known there to the index first,
//! and whoever knew it must not go on dialling where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::limits;

#[derive(Debug, Default)]
struct Entry {
    /// What the peer says of itself.
    claimed: Vec<Multiaddr>,
    /// What the index says of it, where that differs.
    heard: Vec<Multiaddr>,
    /// Those that did not answer when they were dialled last.
    failed: BTreeSet<Multiaddr>,
    /// Whether the peer has said `claimed` in a connection that still stands. It may have moved
    /// since an earlier one.
    current: bool,
    learned: u64,
}

impl Entry {
    fn all(&self) -> impl Iterator<Item = &Multiaddr> {
        self.claimed.iter().chain(&self.heard)
    }

    /// Where to dial: what is not known to fail; when all failed, everything, because the fault may
    /// have been our own network's.
    fn to_dial(&self) -> Vec<Multiaddr> {
        let answering = self.all().filter(|address| !self.failed.contains(address));
        let answering: Vec<_> = answering.cloned().collect();
        if answering.is_empty() { self.all().cloned().collect() } else { answering }
    }
}

/// The address book. When it is full, the peer that was learned longest ago makes room.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    peers: BTreeMap<PeerId, Entry>,
    by_age: BTreeMap<u64, PeerId>,
    next: u64,
}

impl Behaviour {
    /// The peer itself says where it is, in a connection that stands: replaces what was known. An
    /// empty list changes nothing.
    pub(crate) fn learn(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>) {
        if addresses.is_empty() {
            return;
        }
        addresses.truncate(limits::ADDRESSES_PER_PEER);
        let entry = self.renew(peer);
        *entry =
            Entry { claimed: addresses, current: true, learned: entry.learned, ..Entry::default() };
        self.make_room();
    }

    /// The index says where the peer is: kept beside what the peer said, which may be older.
    /// Whether any of it was unknown.
    pub(crate) fn hear(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>) -> bool {
        if let Some(known) = self.peers.get(&peer) {
            addresses.retain(|address| !known.claimed.contains(address));
        }
        if addresses.is_empty() {
            return false;
        }
        addresses.truncate(limits::ADDRESSES_PER_PEER);
        let entry = self.renew(peer);
        let news = addresses.iter().any(|address| !entry.heard.contains(address));
        // Said again by the index, but it did not answer: that is no reason to dial it first.
        entry
            .failed
            .retain(|address| entry.claimed.contains(address) || addresses.contains(address));
        entry.heard = addresses;
        self.make_room();
        news
    }

    /// Where to dial `peer`.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.peers.get(peer).map_or_else(Vec::new, Entry::to_dial)
    }

    /// What `peer` has said of itself in a connection that stands; empty until it says so.
    pub(crate) fn current(&self, peer: &PeerId) -> &[Multiaddr] {
        let entry = self.peers.get(peer).filter(|entry| entry.current);
        entry.map_or(&[], |entry| &entry.claimed)
    }

    /// The entry of `peer`, as the one that was learned last.
    fn renew(&mut self, peer: PeerId) -> &mut Entry {
        // From one on, so that no age is that of a new entry.
        self.next = self.next.saturating_add(1);
        let learned = self.next;
        let entry = self.peers.entry(peer).or_default();
        self.by_age.remove(&entry.learned);
        self.by_age.insert(learned, peer);
        entry.learned = learned;
        entry
    }

    fn make_room(&mut self) {
        if self.peers.len() > limits::BOOK_PEERS
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.peers.remove(&oldest);
        }
    }

    fn failed<'a>(&mut self, peer: &PeerId, addresses: impl Iterator<Item = &'a Multiaddr>) {
        let Some(entry) = self.peers.get_mut(peer) else {
            return;
        };
        for address in addresses {
            let known = entry.all().find(|known| same(known, address, *peer)).cloned();
            entry.failed.extend(known);
        }
    }
}

/// Whether both are one address, with or without the peer's name as the last part.
fn same(known: &Multiaddr, dialled: &Multiaddr, peer: PeerId) -> bool {
    known == dialled || known.clone().with_p2p(peer).is_ok_and(|named| named == *dialled)
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(peer.map_or_else(Vec::new, |peer| self.addresses(&peer)))
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "libp2p's list of events is open")]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                failed_addresses,
                ..
            }) => {
                self.failed(&peer_id, failed_addresses.iter());
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                remaining_established: 0,
                ..
            }) => {
                if let Some(entry) = self.peers.get_mut(&peer_id) {
                    entry.current = false;
                }
            }
            FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                error: DialError::Transport(failures),
                ..
            }) => self.failed(&peer, failures.iter().map(|(address, _)| address)),
            // Whoever else is at an address that was this peer's: it is not there.
            FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                error: DialError::WrongPeerId { address, .. },
                ..
            }) => self.failed(&peer, std::iter::once(address)),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use libp2p::TransportError;

    use super::*;

    fn addresses(count: u16) -> Vec<Multiaddr> {
        (0..count).map(|port| format!("/ip4/9.9.9.9/tcp/{port}").parse().unwrap()).collect()
    }

    #[test]
    fn the_book_is_bounded_and_forgets_the_oldest() {
        let mut book = Behaviour::default();
        let peers: Vec<_> = (0..=limits::BOOK_PEERS).map(|_| PeerId::random()).collect();
        book.learn(peers[0], addresses(1));
        for peer in &peers {
            book.learn(*peer, addresses(100));
        }
        assert!(book.addresses(&peers[0]).is_empty());
        assert_eq!(book.addresses(&peers[1]).len(), limits::ADDRESSES_PER_PEER);
        assert_eq!(book.peers.len(), limits::BOOK_PEERS);
        assert_eq!(book.by_age.len(), limits::BOOK_PEERS);
    }

    /// The swarm tells that a dial of `peer` failed at `addresses`.
    fn fail(book: &mut Behaviour, peer: PeerId, addresses: &[Multiaddr]) {
        let refused = || TransportError::Other(std::io::ErrorKind::ConnectionRefused.into());
        let failures = addresses.iter().map(|address| (address.clone(), refused())).collect();
        book.on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: Some(peer),
            error: &DialError::Transport(failures),
            connection_id: ConnectionId::new_unchecked(0),
        }));
    }

    #[test]
    fn what_the_index_says_is_dialled_where_the_old_address_does_not_answer() {
        let mut book = Behaviour::default();
        let peer = PeerId::random();
        let [old, new] = addresses(2).try_into().unwrap();
        book.learn(peer, vec![old.clone()]);
        assert!(book.hear(peer, vec![new.clone()]));
        assert!(!book.hear(peer, vec![old.clone(), new.clone()]), "both are known");
        assert_eq!(book.addresses(&peer), [old.clone(), new.clone()], "either may be right");
        fail(&mut book, peer, &[old.clone().with_p2p(peer).unwrap()]);
        assert_eq!(book.addresses(&peer), std::slice::from_ref(&new));
        book.hear(peer, vec![new.clone()]);
        assert_eq!(book.addresses(&peer), std::slice::from_ref(&new), "still");
        fail(&mut book, peer, std::slice::from_ref(&new));
        assert_eq!(book.addresses(&peer), [old.clone(), new], "better than nothing");
        book.learn(peer, vec![old.clone()]);
        assert_eq!(book.addresses(&peer), [old], "the peer has the last word");
    }

    #[test]
    fn what_a_peer_said_in_an_earlier_connection_is_not_current() {
        let mut book = Behaviour::default();
        let peer = PeerId::random();
        book.hear(peer, addresses(1));
        assert!(book.current(&peer).is_empty(), "it was not the peer who said so");
        book.learn(peer, addresses(1));
        assert_eq!(book.current(&peer), addresses(1));
        let remote: Multiaddr = "/memory/1".parse().unwrap();
        let endpoint = libp2p::core::ConnectedPoint::Listener {
            local_addr: remote.clone(),
            send_back_addr: remote,
        };
        book.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: ConnectionId::new_unchecked(0),
            endpoint: &endpoint,
            cause: None,
            remaining_established: 0,
        }));
        assert!(book.current(&peer).is_empty());
        assert_eq!(book.addresses(&peer), addresses(1), "good enough to be dialled");
    }

    #[test]
    fn an_empty_claim_erases_nothing() {
        let mut book = Behaviour::default();
        let peer = PeerId::random();
        book.learn(peer, addresses(2));
        book.learn(peer, Vec::new());
        assert_eq!(book.addresses(&peer).len(), 2);
    }
}
