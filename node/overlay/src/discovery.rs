//! Hybrid discovery: the index says who, the provider itself says what and at which price.
//!
//! Owns: the way from "want this model" to a verified offer: look-up, dial, control stream; and
//! the same way from the provider's side.
//! Must not: choose between providers; `selection` does, from the offers that leave this crate.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::offer::{Offer, SignedOffer};
use libp2p::core::Endpoint;
use libp2p::kad::store::RecordStore as _;
use libp2p::multiaddr::Protocol as AddressPart;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, NetworkBehaviour as _};
use libp2p::{Multiaddr, PeerId, identify, kad};

use crate::address::{self, Subnet};
use crate::behaviour::KADEMLIA;
use crate::command::{Anchor, Event, Measured, Refused, Want};
use crate::control::{LinkEnd, LinkEvent, LinkId, Message, link};
use crate::offering::Publish;
use crate::overlay::{LookUp, Overlay};
use crate::streams::{self, PeerStream, Protocol};
use crate::warm::Action;
use crate::{index, limits};

/// Shards of a model's key. One until models have more than about fifty providers; the number will
/// then come from the network's parameters, and providers find their shard by `index::shard_of`.
const SHARDS: u16 = 1;

impl Overlay {
    /// Carries out what the tables want, until they want nothing more.
    pub(crate) fn act(&mut self, now: Instant) {
        while let Some(action) = self.tables.next_action() {
            match action {
                Action::LookUp(want) => self.look_up(want, now),
                Action::StopLookUp(want) => self.stop_look_up(want),
                Action::Contact(peer, want) => self.contact(peer, want, now),
                Action::Contacted(peer, after) => {
                    if let Some(provider) = address::node_id(&peer) {
                        self.note(Measured::Contact { provider, after });
                    }
                }
                Action::Offer(offer) => self.events.push_back(Event::Offer(offer)),
                Action::Gone(peer) => {
                    if let Some(node) = address::node_id(&peer) {
                        self.events.push_back(Event::OfferGone(node));
                    }
                }
            }
        }
    }

    fn look_up(&mut self, want: Want, begun: Instant) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        for shard in 0..SHARDS {
            let query = kad.get_providers(index::key(&want, shard));
            let found = BTreeSet::new();
            self.look_ups.push(LookUp { query, want, begun, first: None, found });
        }
    }

    fn stop_look_up(&mut self, want: Want) {
        let ended = self.look_ups.iter().filter(|look_up| look_up.want == want);
        let ended: Vec<_> = ended.map(|look_up| look_up.query).collect();
        for query in ended {
            self.finish(query);
        }
    }

    /// Dials a found provider and opens a control stream to it.
    fn contact(&mut self, peer: PeerId, want: Want, now: Instant) {
        if peer == *self.swarm.local_peer_id() {
            self.tables.lost(peer, now);
            return;
        }
        let behaviour = self.swarm.behaviour_mut();
        let store = behaviour.kad.store_mut();
        let kept = (0..SHARDS)
            .map(|shard| store.addresses(&index::key(&want, shard), &peer))
            .find(|addresses| !addresses.is_empty());
        behaviour.book.hear(peer, kept.unwrap_or_default());
        if !self.swarm.is_connected(&peer)
            && let Err(error) = self.swarm.dial(DialOpts::peer_id(peer).build())
        {
            // The stream behaviour dials too, and reports what comes of it.
            tracing::debug!(%peer, %error, "provider not dialled");
        }
        let request = self.swarm.behaviour_mut().streams.open(peer, Protocol::Control);
        self.contacts.insert(request, peer);
    }

    /// Whether the bootstrap that has just ended one of its look-ups goes on to the next, which
    /// refreshes a bucket. Kademlia bootstraps anew for each of the first twenty peers, and every
    /// time asks for ten random keys. Who serves the index needs that once in a while, for the
    /// far buckets; who only looks up needs its neighbourhood at most.
    fn refreshes(&mut self, own_neighbourhood: bool, now: Instant) -> bool {
        if own_neighbourhood {
            let due = self.refreshed.is_none_or(|last| {
                now.saturating_duration_since(last) >= limits::REFRESH_INDEX_EVERY
            });
            self.refreshing = due && self.serves_index;
            if self.refreshing {
                self.refreshed = Some(now);
            }
        }
        self.refreshing
    }

    /// Who does not serve the index has no use for its own neighbourhood there: thirty nodes would
    /// be dialled for nothing. What it looks up shows it the nodes that it needs. Who remembers its
    /// neighbourhood asks for it when it would be time to do so anyway.
    pub(crate) fn needs_bootstrap(&self, now: Instant) -> bool {
        let is_remembered = self.remembered.is_some_and(|since| {
            now.saturating_duration_since(since) < limits::REFRESH_INDEX_EVERY
        });
        self.serves_index && !is_remembered
    }

    /// Ends the bootstraps that Kademlia has begun by itself.
    pub(crate) fn end_bootstraps(&mut self) {
        for mut query in self.swarm.behaviour_mut().kad.iter_queries_mut() {
            if matches!(query.info(), kad::QueryInfo::Bootstrap { .. }) {
                query.finish();
            }
        }
    }

    /// Ends a query of Kademlia with what it has found.
    fn finish(&mut self, query: kad::QueryId) {
        if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&query) {
            query.finish();
        }
    }

    fn sought(&self, query: kad::QueryId) -> Option<Want> {
        self.look_ups.iter().find(|look_up| look_up.query == query).map(|look_up| look_up.want)
    }

    fn names_came(&mut self, query: kad::QueryId, names: &BTreeSet<PeerId>, now: Instant) {
        let look_up = self.look_ups.iter_mut().find(|look_up| look_up.query == query);
        if let Some(look_up) = look_up
            && !names.is_empty()
        {
            let since = now.saturating_duration_since(look_up.begun);
            look_up.first.get_or_insert(since);
            look_up.found.extend(names);
        }
    }

    fn look_up_ended(&mut self, query: kad::QueryId, now: Instant) {
        let place = self.look_ups.iter().position(|look_up| look_up.query == query);
        let Some(ended) = place.map(|place| self.look_ups.swap_remove(place)) else {
            return;
        };
        if let Some(first) = ended.first {
            self.note(Measured::LookUp { want: ended.want, first, found: ended.found.len() });
        }
        if !self.look_ups.iter().any(|other| other.want == ended.want) {
            self.tables.look_up_ended(ended.want, now);
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only these events of Kademlia need an answer"
    )]
    pub(crate) fn on_index_event(&mut self, event: kad::Event, now: Instant) {
        match event {
            kad::Event::OutboundQueryProgressed {
                id,
                result: kad::QueryResult::GetProviders(result),
                step,
                ..
            } => {
                if let Some(want) = self.sought(id)
                    && let Ok(kad::GetProvidersOk::FoundProviders { providers, .. }) = result
                {
                    let own = *self.swarm.local_peer_id();
                    let others: BTreeSet<_> =
                        providers.into_iter().filter(|peer| *peer != own).collect();
                    self.names_came(id, &others, now);
                    self.remember_found(&others);
                    self.tables.found(want, others, now);
                    self.act(now);
                }
                if step.last {
                    self.look_up_ended(id, now);
                }
            }
            kad::Event::OutboundQueryProgressed {
                id,
                result: kad::QueryResult::Bootstrap(result),
                step,
                ..
            } => {
                let own_neighbourhood =
                    result.is_ok_and(|done| done.peer == *self.swarm.local_peer_id());
                if !step.last && !self.refreshes(own_neighbourhood, now) {
                    self.finish(id);
                }
            }
            kad::Event::InboundRequest {
                request: kad::InboundRequest::AddProvider { record: Some(record) },
            } => self.on_record(record),
            kad::Event::RoutingUpdated { peer, is_new_peer: true, old_peer, .. } => {
                if let Some(old) = old_peer {
                    self.index_peers.remove(&old);
                }
                self.index_peers.insert(peer);
                self.offering.index_grew(self.index_peers.len(), now);
                self.tables.index_grew(self.index_peers.len(), now);
            }
            kad::Event::RoutablePeer { peer, address }
            | kad::Event::PendingRoutablePeer { peer, address } => {
                self.admit_to_index(peer, vec![address]);
            }
            // Other queries and requests need no answer from us.
            _ => {}
        }
    }

    /// Kademlia knows the addresses of what it found only as long as the look-up runs, and names
    /// them only to whoever dials; the table may contact a found provider much later.
    fn remember_found(&mut self, found: &BTreeSet<PeerId>) {
        let behaviour = self.swarm.behaviour_mut();
        for peer in found {
            let addresses = behaviour.kad.handle_pending_outbound_connection(
                ConnectionId::new_unchecked(usize::MAX),
                Some(*peer),
                &[],
                Endpoint::Dialer,
            );
            if behaviour.book.hear(*peer, addresses.unwrap_or_default()) {
                self.tables.moved(peer);
            }
        }
    }

    /// A provider entrusts us with a record. Kademlia guarantees that it speaks for itself only.
    /// Publishers know confirmed addresses of their own only, so missing ones are filled in from
    /// where we see the publisher, and wrong ones are dropped.
    fn on_record(&mut self, mut record: kad::ProviderRecord) {
        let peer = record.provider;
        let behaviour = self.swarm.behaviour_mut();
        let seen = behaviour.connections.remote_address(&peer).cloned();
        let claimed = std::mem::take(&mut record.addresses);
        record.addresses = seen.map_or_else(Vec::new, |seen| address::believable(&claimed, &seen));
        if record.addresses.is_empty() {
            // Where it was in an earlier connection does not count: it may have come back at
            // another address, and will say so in a moment.
            record.addresses = behaviour.book.current(&peer).to_vec();
        }
        if behaviour.kad.store_mut().add_provider(record).is_err() {
            self.count(Refused::Record);
        }
    }

    pub(crate) fn on_identified(&mut self, peer: PeerId, info: &identify::Info) {
        let behaviour = self.swarm.behaviour_mut();
        let Some(seen) = behaviour.connections.remote_address(&peer) else {
            return;
        };
        let believed = address::believable(&info.listen_addrs, seen);
        behaviour.book.learn(peer, believed.clone());
        behaviour.kad.store_mut().complete(&peer, &believed);
        if info.protocols.contains(&KADEMLIA) {
            self.admit_to_index(peer, believed);
        }
    }

    /// Fills the routing table with what an earlier run knew.
    pub(crate) fn remember(&mut self, anchors: Vec<Anchor>, now: Instant) {
        for anchor in anchors {
            let Some(peer) = address::peer_id(&anchor.node) else { continue };
            let named = AddressPart::P2p(peer);
            let addresses = anchor.addresses.into_iter().map(|mut address| {
                if address.iter().last() == Some(named.clone()) {
                    address.pop();
                }
                address
            });
            let addresses: Vec<_> =
                addresses.filter(|address| address::scope(address).is_some()).collect();
            if peer != *self.swarm.local_peer_id() {
                self.admit_to_index(peer, addresses);
            }
        }
        // Its far buckets are as the earlier run had them.
        self.refreshed = Some(now);
        self.remembered = Some(now);
    }

    /// Lets a peer into the routing table, unless its subnet has its share of the bucket.
    fn admit_to_index(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let subnet = addresses.iter().find_map(address::subnet);
        if let Some(subnet) = subnet
            && !self.index_peers.contains(&peer)
            && crowded(kad, &peer, subnet)
        {
            return;
        }
        for address in addresses {
            let relayed = address.iter().any(|part| matches!(part, AddressPart::P2pCircuit));
            if !relayed && kad.add_address(&peer, address) == kad::RoutingUpdate::Success {
                // Kademlia says so later; an offer that is published now should know.
                self.index_peers.insert(peer);
            }
        }
    }

    pub(crate) fn on_stream_event(&mut self, event: streams::Event, now: Instant) {
        match event {
            streams::Event::Inbound { peer, protocol, stream } => {
                self.swarm.behaviour_mut().connections.touch(&peer, now);
                match protocol {
                    // Who it is and what it wants is known when it subscribes.
                    Protocol::Control => self.accept_link(peer, stream, now),
                    Protocol::Session => {
                        if let Some(peer) = address::node_id(&peer) {
                            self.events.push_back(Event::InboundSession { peer, stream });
                        }
                    }
                }
            }
            streams::Event::Refused { peer, protocol } => {
                tracing::debug!(%peer, ?protocol, "stream refused: quota is full");
                self.count(Refused::StreamBusy);
            }
            streams::Event::Opened { request, peer, stream } => {
                self.swarm.behaviour_mut().connections.touch(&peer, now);
                if self.contacts.remove(&request).is_some() {
                    let id = self.new_link();
                    let (sending, receiving) = link(id, peer, stream, now);
                    self.links.push(receiving);
                    self.tables.link_open(peer, id, sending);
                } else if let Some(peer) = address::node_id(&peer) {
                    self.events.push_back(Event::SessionOpened { request, peer, stream });
                }
            }
            streams::Event::Failed { request, peer, error } => {
                if self.contacts.remove(&request).is_some() {
                    tracing::debug!(%peer, %error, "provider not contacted");
                    self.tables.lost(peer, now);
                } else if let Some(peer) = address::node_id(&peer) {
                    self.events.push_back(Event::SessionFailed { request, peer, error });
                }
            }
        }
    }

    fn new_link(&mut self) -> LinkId {
        self.next_link = self.next_link.saturating_add(1);
        LinkId(self.next_link)
    }

    fn accept_link(&mut self, peer: PeerId, stream: PeerStream, now: Instant) {
        let id = self.new_link();
        let (sending, receiving) = link(id, peer, stream, now);
        self.links.push(receiving);
        self.unsubscribed.insert(id, sending);
    }

    pub(crate) fn on_link_event(&mut self, event: LinkEvent, now: Instant) {
        let LinkEvent { id, peer, item } = event;
        let outcome = match item {
            Ok(Message::Subscribe) => {
                // A second subscription on one stream changes nothing.
                if let Some(link) = self.unsubscribed.remove(&id) {
                    self.offering.subscribe(id, link);
                }
                Ok(())
            }
            Ok(message) if self.tables.is_link(peer, id) => {
                self.on_provider_message(peer, message, now)
            }
            // A message of a provider on a stream that is not ours to hear it on, or no longer.
            Ok(_) => Ok(()),
            Err(end) => Err(end),
        };
        let Err(end) = outcome else { return };
        if end != LinkEnd::Closed {
            tracing::warn!(%peer, ?end, "control stream ended");
            self.count(Refused::Control(end));
        }
        self.unsubscribed.remove(&id);
        self.offering.unsubscribe(id);
        if self.tables.is_link(peer, id) {
            self.tables.lost(peer, now);
        }
    }

    fn on_provider_message(
        &mut self,
        peer: PeerId,
        message: Message,
        now: Instant,
    ) -> Result<(), LinkEnd> {
        match message {
            Message::Offer(bytes) => {
                let clock = (self.clock)();
                let offer = SignedOffer::from_bytes(bytes).verify(clock).map_err(|error| {
                    tracing::debug!(%peer, %error, "offer refused");
                    LinkEnd::InvalidOffer
                })?;
                if address::node_id(&peer) != Some(offer.offer().provider) {
                    return Err(LinkEnd::ForeignOffer);
                }
                let protected = self.swarm.behaviour().streams.active(Protocol::Session);
                self.tables.offer(peer, Arc::new(offer), &protected, now, clock);
            }
            Message::KeepAlive => self.tables.heard(peer, now),
            Message::Draining => self.tables.lost(peer, now),
            Message::Subscribe => {}
        }
        Ok(())
    }

    pub(crate) fn publish_offer(&mut self, offer: &SignedOffer, now: Instant) {
        let verified = match offer.verify((self.clock)()) {
            Ok(verified) if verified.offer().provider == self.node => verified,
            Ok(_) => {
                tracing::error!("the offer to publish is another node's; not published");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the offer to publish is not valid; not published");
                return;
            }
        };
        let announced = wants_met_by(verified.offer());
        let bytes = Arc::from(offer.as_bytes());
        let changes = self.offering.publish(bytes, announced, self.index_peers.len(), now);
        self.publish(changes);
    }

    pub(crate) fn withdraw_offer(&mut self) {
        let changes = self.offering.withdraw();
        self.publish(changes);
    }

    pub(crate) fn publish(&mut self, changes: Vec<Publish>) {
        let shard = index::shard_of(&self.node, SHARDS);
        let kad = &mut self.swarm.behaviour_mut().kad;
        for change in changes {
            match change {
                Publish::Start(want) => {
                    if let Err(error) = kad.start_providing(index::key(&want, shard)) {
                        tracing::error!(%want, %error, "not published in the index");
                    }
                }
                Publish::Stop(want) => kad.stop_providing(&index::key(&want, shard)),
            }
        }
    }
}

/// Everything that a look-up may ask for and that this offer meets.
fn wants_met_by(offer: &Offer) -> BTreeSet<Want> {
    let tiers = [Tier::Open, Tier::Attested, Tier::Confidential];
    let reached: Vec<_> = tiers.into_iter().filter(|tier| *tier <= offer.tier).collect();
    let models = offer.models.iter().map(|offered| offered.model);
    models
        .flat_map(|model| reached.iter().map(move |tier| Want { model, minimum_tier: *tier }))
        .collect()
}

/// Whether the bucket that `peer` belongs to holds its share of `subnet` already.
fn crowded(kad: &mut kad::Behaviour<index::ProviderStore>, peer: &PeerId, subnet: Subnet) -> bool {
    let Some(bucket) = kad.kbucket(*peer) else {
        return false;
    };
    let same = bucket
        .iter()
        .filter(|entry| entry.node.value.iter().find_map(address::subnet) == Some(subnet));
    same.count() >= limits::BUCKET_PEERS_PER_SUBNET
}
