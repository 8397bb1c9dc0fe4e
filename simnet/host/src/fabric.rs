//! What carries a host: discovery, sessions, alarms, the ledger.
//!
//! Owns: the port between a host and its tier. Must not: hold policy; a fabric does what it is told.

use cocoon_protocol::identity::{ModelHash, NodeId};
use cocoon_protocol::offer::SignedOffer;
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::wire::SessionMessage;
use simnet_scenario::Moment;

use crate::observation::Observation;
use crate::stimulus::Alarm;

/// A host's number in the population. Stays the same across its restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

/// A session as one of its two hosts names it; never used twice by one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// The world as one host sees it. Every call is about the host that is being handled.
pub trait Fabric {
    /// The time of the run. A host's own clock differs from it by its skew.
    fn now(&self) -> Moment;

    /// Keep a warm table of providers of this model; answered by `Stimulus::OfferHeard`.
    fn look(&mut self, model: ModelHash);

    /// Make this the offer that peers get.
    fn publish(&mut self, offer: SignedOffer);

    /// Open a session, its attestation included; answered by `Stimulus::SessionUp` or
    /// `Stimulus::DialFailed` under this number.
    fn dial(&mut self, session: SessionId, peer: NodeId);

    /// Send a message in an open session, with `padding` bytes more than it encodes to: text that
    /// is not worth simulating still costs its transmission. A message in a session that is over
    /// is lost.
    fn send(&mut self, session: SessionId, message: SessionMessage, padding: u32);

    /// End a session; the peer gets `Stimulus::SessionDown` once what was sent has arrived.
    fn hang_up(&mut self, session: SessionId);

    /// Give the alarm back at this moment, also if that is now. Alarms are not cancelled.
    fn wake(&mut self, at: Moment, alarm: Alarm);

    /// Carry a command to the ledger; answered by `Stimulus::Ledger` after a block or more.
    fn ledger(&mut self, command: LedgerCommand);

    /// State a fact.
    fn observe(&mut self, fact: Observation);
}
