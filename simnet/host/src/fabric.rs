//! What carries a host: discovery, sessions, alarms, the ledger.
//!
//! Owns: the port between a host and its tier. Must not: hold policy; a fabric does what it is told.

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{ModelHash, NodeId};
use cocoon_protocol::offer::SignedOffer;
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::wire::SessionMessage;
use simnet_scenario::Moment;

use crate::observation::Observation;
use crate::stimulus::{Alarm, Piece};

/// A host's number in the population. Stays the same across its restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

/// A session as one of its two hosts names it; never used twice by one host, also not after a
/// restart. A host numbers the sessions that it dials, its fabric those that it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The host's own `serial`-th dial.
    pub const fn dialled(serial: u64) -> Self {
        Self(serial << 1)
    }

    /// The `serial`-th session that a fabric brings this host from outside.
    pub const fn accepted(serial: u64) -> Self {
        Self(serial << 1 | 1)
    }

    /// Whether the peer had opened it.
    pub const fn is_accepted(self) -> bool {
        self.0 & 1 == 1
    }
}

/// The world as one host sees it. Every call is about the host that is being handled, and none
/// leads back into it: whatever follows comes as a later stimulus.
pub trait Fabric {
    /// The time of the run. A host's own clock differs from it by its skew.
    fn now(&self) -> Moment;

    /// Keep a warm table of providers of this model that say they reach this tier; answered by
    /// `Stimulus::OfferHeard`.
    fn look(&mut self, model: ModelHash, minimum_tier: Tier);

    /// This provider is not what its offer says: find others in its place.
    fn avoid(&mut self, provider: NodeId);

    /// Make this the offer that peers get.
    fn publish(&mut self, offer: SignedOffer);

    /// Open a session, its attestation included; answered by `Stimulus::SessionUp` or
    /// `Stimulus::DialFailed` under this number. The fabric asks `Host::door` of the peer.
    fn dial(&mut self, session: SessionId, peer: NodeId);

    /// Send a message in an open session, with `padding` bytes more than it encodes to: text that
    /// is not worth simulating still costs its transmission. A message in a session that is over
    /// is lost.
    fn send(&mut self, session: SessionId, message: SessionMessage, padding: u32);

    /// Send a piece of an answer: nine of ten messages are one. A fabric that carries them as what they
    /// are need not make a message of each.
    fn send_piece(&mut self, session: SessionId, piece: Piece, padding: u32) {
        let Piece { job, completion } = piece;
        let text = String::new();
        self.send(session, SessionMessage::JobChunk { job, text, completion }, padding);
    }

    /// Messages of this session that wait because its peer does not read. A fabric that does not
    /// model such peers says none.
    fn backlog(&self, session: SessionId) -> u32 {
        let _unused_by_most = session;
        0
    }

    /// End a session; the peer gets `Stimulus::SessionDown` once what was sent has arrived. This
    /// host knows, and gets nothing more of it.
    fn hang_up(&mut self, session: SessionId);

    /// Give the alarm back at this moment, also if that is now. Alarms are not cancelled, but those
    /// of a host that has died meanwhile are lost.
    fn wake(&mut self, at: Moment, alarm: Alarm);

    /// Carry a command to the ledger; answered by `Stimulus::Ledger` after a block or more.
    fn ledger(&mut self, command: LedgerCommand);

    /// The host's process has ended by itself: by a fault of its store, then it starts again at
    /// `restart`; or because it was drained, then `None`. Its sessions are over (the peers of a
    /// host that crashed may notice late), and nothing reaches it before the next start.
    fn stopped(&mut self, restart: Option<Moment>);

    /// State a fact.
    fn observe(&mut self, fact: Observation);
}
