//! Addresses of peers that were seen and may be dialled by identity later.
//!
//! Owns: a bounded address book, consulted by the swarm for every dial by identity.
//! Must not: judge addresses (`address::believable` does), or keep what a peer no longer claims.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::limits;

#[derive(Debug)]
struct Entry {
    addresses: Vec<Multiaddr>,
    learned: u64,
}

/// The address book. When it is full, the peer that was learned longest ago makes room.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    peers: BTreeMap<PeerId, Entry>,
    by_age: BTreeMap<u64, PeerId>,
    next: u64,
}

impl Behaviour {
    /// Replaces what is known of `peer`. An empty list changes nothing.
    pub(crate) fn learn(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>) {
        if addresses.is_empty() {
            return;
        }
        addresses.truncate(limits::ADDRESSES_PER_PEER);
        let learned = self.next;
        self.next = self.next.saturating_add(1);
        if let Some(old) = self.peers.insert(peer, Entry { addresses, learned }) {
            self.by_age.remove(&old.learned);
        }
        self.by_age.insert(learned, peer);
        if self.peers.len() > limits::BOOK_PEERS
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.peers.remove(&oldest);
        }
    }

    /// The known addresses of `peer`.
    pub(crate) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.peers.get(peer).map_or(&[], |entry| &entry.addresses)
    }
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
        Ok(peer.map_or_else(Vec::new, |peer| self.addresses(&peer).to_vec()))
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

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

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

    #[test]
    fn an_empty_claim_erases_nothing() {
        let mut book = Behaviour::default();
        let peer = PeerId::random();
        book.learn(peer, addresses(2));
        book.learn(peer, Vec::new());
        assert_eq!(book.addresses(&peer).len(), 2);
    }
}
