//! Sessions over the modelled overlay: dialled, accepted, written, hung up.
//!
//! Owns: what becomes of a dial and of a message on its way. Must not: call a host; `world` does.

use cocoon_protocol::attest::Tier;
use cocoon_protocol::wire::SessionMessage;
use simnet_host::{Piece, SessionId};

use crate::event::{Answer, Event};
use crate::overlay::{
    ATTESTING_NS, DIAL_TIMEOUT, HANDSHAKE_BYTES, HANDSHAKE_NS, Overlay, Parting, index,
};
use crate::session::{self, Parcel, Session, State, Ways};
use crate::traffic::Protocol;

/// The place of an accepted session, from its name.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn handle_in(name: SessionId) -> u32 {
    (name.0 >> 1) as u32
}

impl Overlay {
    /// A consumer dials a provider.
    pub(crate) fn dial(&mut self, consumer: u32, dialled: SessionId, provider: u32) {
        let Some((session, serial)) = self.prepare(consumer, dialled, provider) else { return };
        let known = self.tables(consumer).is_some_and(|tables| tables.knows(provider));
        let tier = self.spec(provider).and_then(|it| it.provider.as_ref().map(|it| it.tier));
        let making = if tier.is_some_and(|tier| tier > Tier::Open) { ATTESTING_NS } else { 0 };
        let trip = self.paths.round_trip(consumer, provider);
        let connecting = if known { 0 } else { trip + HANDSHAKE_NS };
        if !known {
            self.traffic.add(Protocol::Handshake, HANDSHAKE_BYTES);
        }
        // The stream, a flight there and back, and the request for evidence.
        let opening = trip * self.values.dial / 1_000;
        let wait = connecting + opening + trip * 3 / 2 + making;
        for bytes in [session::CLIENT_HELLO, session::SERVER_FLIGHT, session::CLIENT_FINISHED] {
            self.traffic.add(Protocol::Session, bytes);
        }
        self.after(wait, Event::Knock { session, serial });
    }

    /// A consumer dials somebody who is no provider of this network.
    pub(crate) fn dial_nobody(&mut self, consumer: u32, dialled: SessionId) {
        if let Some((session, serial)) = self.prepare(consumer, dialled, consumer) {
            let at = self.now.after(DIAL_TIMEOUT);
            let answer = Answer::Unreachable;
            self.wheel.push(at, Event::Answer { session, serial, answer });
        }
    }

    /// A session that is being dialled.
    fn prepare(&mut self, consumer: u32, dialled: SessionId, provider: u32) -> Option<(u32, u16)> {
        self.serials = self.serials.wrapping_add(1);
        let serial = self.serials;
        let ways =
            Ways::new(self.paths.way(provider, consumer), self.paths.way(consumer, provider));
        let station = self.stations.get_mut(index(consumer))?;
        let consumer_life = station.life;
        let session = self.sessions.insert(Session {
            consumer,
            provider,
            consumer_life,
            provider_life: 0,
            serial,
            state: State::Dialling,
            known: [true, false],
            ways,
            dialled,
            accepted: SessionId::accepted(0),
            last: [self.now; 2],
        });
        station.sessions.push((dialled, session));
        Some((session, serial))
    }

    /// A provider accepts a session: its own name for it.
    pub(crate) fn accept(&mut self, handle: u32) -> Option<SessionId> {
        self.accepted += 1;
        // The name leads to the place: nine of ten messages are sent under one.
        let accepted = SessionId::accepted(self.accepted << 32 | u64::from(handle));
        let session = self.sessions.get_mut(handle)?;
        let station = self.stations.get_mut(index(session.provider))?;
        session.provider_life = station.life;
        session.accepted = accepted;
        session.set_known(true, true);
        session.state = State::Open;
        if station.sessions.len() == station.sessions.capacity() {
            station.sessions.reserve_exact(1 + station.sessions.len() / 4);
        }
        station.sessions.push((accepted, handle));
        Some(accepted)
    }

    /// Asks for the memory of a session that a provider has accepted.
    pub(crate) fn approach_served(&self, name: SessionId) {
        self.sessions.approach(handle_in(name));
    }

    /// The session that a host knows by this name.
    pub(crate) fn handle_of(&self, host: u32, name: SessionId) -> Option<u32> {
        if name.is_accepted() {
            let handle = handle_in(name);
            let session = self.sessions.get(handle)?;
            let known = session.provider == host && session.accepted == name;
            return (known && session.is_known(true)).then_some(handle);
        }
        let station = self.stations.get(index(host))?;
        // Sessions are few, and the newest is the likeliest.
        station.sessions.iter().rev().find(|(known, _)| *known == name).map(|(_, handle)| *handle)
    }

    /// A host no longer knows a session.
    pub(crate) fn forget(&mut self, host: u32, name: SessionId, handle: u32) {
        if let Some(session) = self.sessions.get_mut(handle) {
            session.set_known(name.is_accepted(), false);
        }
        let Some(station) = self.stations.get_mut(index(host)) else { return };
        if let Some(at) = station.sessions.iter().position(|(known, _)| *known == name) {
            station.sessions.remove(at);
        }
        if station.sessions.is_empty() {
            station.sessions = Vec::new();
        }
    }

    /// A host sends a message in a session.
    pub(crate) fn send(
        &mut self,
        host: u32,
        name: SessionId,
        message: SessionMessage,
        padding: u32,
    ) {
        let bytes = session::length(&message, padding);
        self.post(host, name, bytes, || Parcel::Message(Box::new(message)));
    }

    /// A host sends a piece of an answer.
    pub(crate) fn send_piece(&mut self, host: u32, name: SessionId, piece: Piece, padding: u32) {
        self.post(host, name, session::piece_length(padding), || Parcel::Piece(piece));
    }

    /// Sends a parcel of so many bytes on its way.
    fn post(&mut self, host: u32, name: SessionId, bytes: u64, parcel: impl FnOnce() -> Parcel) {
        let Some(handle) = self.handle_of(host, name) else { return };
        self.traffic.add(Protocol::Session, bytes);
        let now = self.now;
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let to_provider = !name.is_accepted();
        let (other, _) = session.end(to_provider);
        if session.state != State::Open || !self.paths.connected(host, other) {
            return;
        }
        let way = session.way(to_provider);
        let flight = self.paths.fly(way, crate::path::on_wire(bytes), &mut self.draws);
        let at = session.arrival(to_provider, now.after_nanos(flight));
        let serial = session.serial;
        let parcel = self.parcels.insert(parcel());
        self.wheel.push(at, Event::Message { session: handle, serial, to_provider, parcel });
    }

    /// A host ends a session: the other end hears of it after what was sent.
    pub(crate) fn hang_up(&mut self, host: u32, name: SessionId) {
        let Some(handle) = self.handle_of(host, name) else { return };
        self.forget(host, name, handle);
        self.close(host, name, handle, Parting::Goodbye);
    }

    pub(crate) fn close(&mut self, host: u32, name: SessionId, handle: u32, parting: Parting) {
        let now = self.now;
        let silence = if parting == Parting::Silent { self.silence() } else { 0 };
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let to_provider = !name.is_accepted();
        let (other, _) = session.end(to_provider);
        match session.state {
            State::Open => {}
            // The knock finds nobody, or the other end has hung up at the same time.
            State::Dialling | State::Closing => return,
        }
        session.state = State::Closing;
        let cut = !self.paths.connected(host, other);
        let wait = match parting {
            Parting::Goodbye if !cut => self.paths.one_way(host, other),
            Parting::Goodbye | Parting::Silent => silence.max(self.paths.one_way(host, other)),
        };
        let at = session.arrival(to_provider, now.after_nanos(wait));
        let serial = session.serial;
        self.wheel.push(at, Event::Down { session: handle, serial, to_provider });
    }
}
