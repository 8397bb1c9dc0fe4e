//! This tier's fabric: a host's wishes become events.
//!
//! Owns: the translation. Must not: hold policy, or lead back into the host.

use std::sync::Arc;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{ModelHash, NodeId};
use cocoon_protocol::offer::SignedOffer;
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::wire::SessionMessage;
use simnet_host::{Alarm, Clock, Fabric, HostId, Ledger, Observation, Observer, Piece, SessionId};
use simnet_scenario::Moment;

use crate::directory::Key;
use crate::event::Event;
use crate::overlay::Overlay;
use crate::trace::Trace;

/// The world as one host sees it, while it is being handled.
pub(crate) struct Carrier<'a> {
    pub(crate) host: u32,
    pub(crate) overlay: &'a mut Overlay,
    pub(crate) ledger: &'a mut Ledger,
    /// The ledger was given something: it may be due earlier.
    pub(crate) ledger_changed: &'a mut bool,
    /// The host has ended its own process; whether and when it starts again.
    pub(crate) stopped: &'a mut Option<Option<Moment>>,
    pub(crate) trace: &'a mut Trace,
    pub(crate) observer: &'a mut dyn Observer,
}

impl Fabric for Carrier<'_> {
    fn now(&self) -> Moment {
        self.overlay.now
    }

    fn look(&mut self, model: ModelHash, minimum_tier: Tier) {
        if let Some(model) = self.overlay.directory.number(model) {
            self.overlay.want(self.host, Key::new(model, minimum_tier));
        }
    }

    fn avoid(&mut self, provider: NodeId) {
        if let Some(provider) = self.overlay.provider(provider) {
            self.overlay.avoid(self.host, provider);
        }
    }

    fn publish(&mut self, offer: SignedOffer) {
        let Some(spec) = self.overlay.spec(self.host) else { return };
        let clock = Clock::new(spec.skew_ms).timestamp(self.overlay.now);
        // As the overlay does: what would be refused everywhere is not published.
        match offer.verify(clock) {
            Ok(verified) => self.overlay.publish(self.host, Arc::new(verified)),
            Err(error) => tracing::error!(host = self.host, %error, "an offer is not valid"),
        }
    }

    fn dial(&mut self, session: SessionId, peer: NodeId) {
        let Some(provider) = self.overlay.provider(peer) else {
            self.overlay.dial_nobody(self.host, session);
            return;
        };
        self.overlay.dial(self.host, session, provider);
    }

    fn send(&mut self, session: SessionId, message: SessionMessage, padding: u32) {
        self.overlay.send(self.host, session, message, padding);
    }

    fn send_piece(&mut self, session: SessionId, piece: Piece, padding: u32) {
        self.overlay.send_piece(self.host, session, piece, padding);
    }

    fn hang_up(&mut self, session: SessionId) {
        self.overlay.hang_up(self.host, session);
    }

    fn wake(&mut self, at: Moment, alarm: Alarm) {
        let host = self.host;
        let Some(life) = self.overlay.station(host).map(|station| station.life) else { return };
        let at = at.max(self.overlay.now);
        self.overlay.wheel.push(at, Event::Alarm { host, life, alarm });
    }

    fn ledger(&mut self, command: LedgerCommand) {
        if let Some(spec) = self.overlay.spec(self.host) {
            self.ledger.submit(spec, command, self.overlay.now);
            *self.ledger_changed = true;
        }
    }

    fn stopped(&mut self, restart: Option<Moment>) {
        *self.stopped = Some(restart);
    }

    fn observe(&mut self, fact: Observation) {
        let (at, host) = (self.overlay.now, HostId(self.host));
        self.trace.fact(at, host, &fact);
        self.observer.observe(at, host, &fact);
    }
}
