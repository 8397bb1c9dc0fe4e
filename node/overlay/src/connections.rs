//! Which connections a node keeps: subnet diversity at the door, watermarks inside.
//!
//! Owns: who is connected since when, who was active last, and whom to close: when there are too
//! many, and when nothing was done for a while.
//! Must not: know why a peer is worth keeping; the caller names the protected ones.
//! Why it exists: gossipsub holds a stream on every connection, so none would ever end as idle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::address::{Subnet, subnet};
use crate::limits::{CONNECTION_GRACE, ConnectionLimits, IDLE_CONNECTION};

/// An inbound connection was refused, because its subnet holds its share already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many connections from one subnet")]
pub(crate) struct SubnetFull(pub Subnet);

#[derive(Debug)]
struct Peer {
    since: Instant,
    active: Instant,
    /// Each connection, with the subnet that it is counted under.
    connections: BTreeMap<ConnectionId, Option<Subnet>>,
    remote: Multiaddr,
    /// Whether this node dialled it.
    dialled: bool,
    closing: bool,
}

/// The connections of a node.
#[derive(Debug)]
pub(crate) struct Behaviour {
    limits: ConnectionLimits,
    peers: BTreeMap<PeerId, Peer>,
    inbound_by_subnet: BTreeMap<Subnet, usize>,
    to_close: VecDeque<PeerId>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// No connections yet.
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            peers: BTreeMap::new(),
            inbound_by_subnet: BTreeMap::new(),
            to_close: VecDeque::new(),
            waker: None,
        }
    }

    /// Notes that something useful was just done with `peer`.
    pub(crate) fn touch(&mut self, peer: &PeerId, now: Instant) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.active = known.active.max(now);
        }
    }

    /// Connected peers.
    pub(crate) fn count(&self) -> usize {
        self.peers.len()
    }

    /// Connected peers, and whether this node dialled them.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&PeerId, bool)> {
        self.peers.iter().map(|(peer, known)| (peer, known.dialled))
    }

    /// Whether there are so many that idle ones should go.
    pub(crate) fn is_above_high_water(&self) -> bool {
        self.peers.values().filter(|peer| !peer.closing).count() > self.limits.high_water
    }

    /// The address at the other end of the newest connection with `peer`.
    pub(crate) fn remote_address(&self, peer: &PeerId) -> Option<&Multiaddr> {
        self.peers.get(peer).map(|known| &known.remote)
    }

    /// Closes peers until the low watermark is reached: those idle longest first, never a
    /// protected one, never one that just came. Returns how many are being closed.
    pub(crate) fn trim(&mut self, protected: &BTreeSet<PeerId>, now: Instant) -> usize {
        let open = self.peers.values().filter(|peer| !peer.closing).count();
        let surplus = open.saturating_sub(self.limits.low_water);
        let mut idle: Vec<_> = self
            .peers
            .iter()
            .filter(|(id, peer)| {
                !peer.closing
                    && !protected.contains(id)
                    && now.saturating_duration_since(peer.since) >= CONNECTION_GRACE
            })
            .map(|(id, peer)| (peer.active, *id))
            .collect();
        idle.sort_unstable();
        self.close(idle.into_iter().take(surplus).map(|(_, id)| id).collect())
    }

    /// Closes peers that this node dialled and with whom nothing was done for [`IDLE_CONNECTION`],
    /// except protected ones: most were met in the course of some look-up. Those who dialled us do
    /// the same at their end, and know better what they want with us; if they do not, the watermark
    /// ends it. Both ends sweeping, an entry point would throw out everybody who keeps to it, and
    /// they would all come back, again and again. Returns how many are being closed.
    pub(crate) fn sweep(&mut self, protected: &BTreeSet<PeerId>, now: Instant) -> usize {
        let idle = self.peers.iter().filter(|(id, peer)| {
            peer.dialled
                && !peer.closing
                && now.saturating_duration_since(peer.active) >= IDLE_CONNECTION
                && !protected.contains(id)
        });
        let idle = idle.map(|(id, _)| *id).collect();
        self.close(idle)
    }

    fn close(&mut self, peers: Vec<PeerId>) -> usize {
        let mut closed: usize = 0;
        for id in peers {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.closing = true;
                self.to_close.push_back(id);
                closed = closed.saturating_add(1);
            }
        }
        if closed > 0
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
        closed
    }

    fn on_established(&mut self, established: ConnectionEstablished<'_>) {
        let remote = established.endpoint.get_remote_address();
        let counted = established.endpoint.is_listener().then(|| subnet(remote)).flatten();
        if let Some(subnet) = counted {
            let count = self.inbound_by_subnet.entry(subnet).or_default();
            *count = count.saturating_add(1);
        }
        let now = Instant::now();
        let peer = self.peers.entry(established.peer_id).or_insert_with(|| Peer {
            since: now,
            active: now,
            connections: BTreeMap::new(),
            remote: remote.clone(),
            dialled: false,
            closing: false,
        });
        peer.dialled |= established.endpoint.is_dialer();
        peer.connections.insert(established.connection_id, counted);
        peer.remote = remote.clone();
    }

    fn on_closed(&mut self, closed: ConnectionClosed<'_>) {
        let Some(peer) = self.peers.get_mut(&closed.peer_id) else {
            return;
        };
        if let Some(Some(subnet)) = peer.connections.remove(&closed.connection_id)
            && let Some(count) = self.inbound_by_subnet.get_mut(&subnet)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.inbound_by_subnet.remove(&subnet);
            }
        }
        if peer.connections.is_empty() {
            self.peers.remove(&closed.peer_id);
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        if let Some(subnet) = subnet(remote)
            && self.inbound_by_subnet.get(&subnet).is_some_and(|n| *n >= self.limits.per_subnet)
        {
            return Err(ConnectionDenied::new(SubnetFull(subnet)));
        }
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

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            self.on_established(established);
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.on_closed(closed);
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

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        if let Some(peer_id) = self.to_close.pop_front() {
            let connection = CloseConnection::All;
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use libp2p::core::ConnectedPoint;

    use super::*;
    use crate::Role;

    fn connect(behaviour: &mut Behaviour, peer: PeerId, id: usize, remote: &str) -> bool {
        let remote: Multiaddr = remote.parse().unwrap();
        let connection = ConnectionId::new_unchecked(id);
        let admitted =
            behaviour.handle_established_inbound_connection(connection, peer, &remote, &remote);
        if admitted.is_err() {
            return false;
        }
        let local_addr = remote.clone();
        let endpoint = ConnectedPoint::Listener { local_addr, send_back_addr: remote };
        establish(behaviour, peer, id, &endpoint);
        true
    }

    fn dial(behaviour: &mut Behaviour, peer: PeerId, id: usize) {
        let endpoint = ConnectedPoint::Dialer {
            address: "/memory/1".parse().unwrap(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        establish(behaviour, peer, id, &endpoint);
    }

    fn establish(behaviour: &mut Behaviour, peer: PeerId, id: usize, endpoint: &ConnectedPoint) {
        behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: ConnectionId::new_unchecked(id),
            endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }

    fn closing(behaviour: &mut Behaviour) -> Vec<PeerId> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut closing = Vec::new();
        while let Poll::Ready(ToSwarm::CloseConnection { peer_id, .. }) = behaviour.poll(&mut cx) {
            closing.push(peer_id);
        }
        closing
    }

    #[test]
    fn the_longest_idle_go_first_and_the_protected_stay() {
        let mut behaviour = Behaviour::new(ConnectionLimits::of(Role::Consumer));
        let peers: Vec<_> = (0..41).map(|_| PeerId::random()).collect();
        for (id, peer) in peers.iter().enumerate() {
            assert!(connect(&mut behaviour, *peer, id, "/memory/1"));
        }
        assert!(behaviour.is_above_high_water());
        let now = Instant::now();
        assert_eq!(behaviour.trim(&BTreeSet::new(), now), 0, "all have just come");
        let now = now + CONNECTION_GRACE + Duration::from_secs(1);
        for peer in &peers[13..] {
            behaviour.touch(peer, now);
        }
        let protected = BTreeSet::from([peers[0], peers[5]]);
        assert_eq!(behaviour.trim(&protected, now), 13);
        let closed: BTreeSet<_> = closing(&mut behaviour).into_iter().collect();
        assert!(!closed.contains(&peers[0]) && !closed.contains(&peers[5]));
        let idle: BTreeSet<_> = peers[..13].iter().copied().collect();
        assert_eq!(closed.intersection(&idle).count(), 11, "every unprotected idle one went");
        assert!(!behaviour.is_above_high_water());
    }

    #[test]
    fn what_is_of_no_use_is_swept_however_few_there_are() {
        let mut behaviour = Behaviour::new(ConnectionLimits::of(Role::Provider));
        let peers: Vec<_> = (0..3).map(|_| PeerId::random()).collect();
        for (id, peer) in peers.iter().enumerate() {
            dial(&mut behaviour, *peer, id);
        }
        connect(&mut behaviour, PeerId::random(), 3, "/memory/1");
        let protected = BTreeSet::from([peers[0]]);
        let later = Instant::now() + IDLE_CONNECTION;
        behaviour.touch(&peers[1], later);
        assert_eq!(behaviour.sweep(&protected, later - Duration::from_secs(1)), 0);
        assert_eq!(behaviour.sweep(&protected, later), 1);
        assert_eq!(behaviour.sweep(&protected, later), 0, "it is being closed; who came stays");
        assert_eq!(closing(&mut behaviour), [peers[2]]);
    }

    #[test]
    fn nothing_is_closed_when_all_are_protected() {
        let mut behaviour = Behaviour::new(ConnectionLimits::of(Role::Consumer));
        let peers: BTreeSet<_> = (0..50).map(|_| PeerId::random()).collect();
        for (id, peer) in peers.iter().enumerate() {
            connect(&mut behaviour, *peer, id, "/memory/1");
        }
        assert_eq!(behaviour.trim(&peers, Instant::now() + CONNECTION_GRACE * 2), 0);
        assert!(closing(&mut behaviour).is_empty());
    }

    #[test]
    fn one_subnet_gets_its_share_only() {
        let limits = ConnectionLimits::of(Role::Consumer);
        let mut behaviour = Behaviour::new(limits);
        let admitted = (0..100)
            .filter(|id| {
                let remote = format!("/ip4/9.9.9.{id}/tcp/1");
                connect(&mut behaviour, PeerId::random(), *id, &remote)
            })
            .count();
        assert_eq!(admitted, limits.per_subnet);
        assert!(connect(&mut behaviour, PeerId::random(), 100, "/ip4/9.9.8.1/tcp/1"));
        assert!(connect(&mut behaviour, PeerId::random(), 101, "/ip4/127.0.0.1/tcp/1"));
    }
}
