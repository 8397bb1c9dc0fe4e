//! How a host departs from the protocol: adversaries act between a host and its fabric.
//!
//! Owns: the hook, and the guise in which a dishonest host sees its fabric. Must not: reach into the
//! protocol's machines: an adversary has what its own node has, and the keys of its own host.
//!
//! A behaviour stands on both sides of an honest host: it sees every stimulus first and may keep or
//! change it, and every call that the host makes on its fabric and may keep, change, delay or add to
//! it. Whatever it does is what a modified node could do. An honest host has none and pays one
//! comparison for each stimulus.

mod consumer;
mod gouging;
mod plan;
mod provider;

use std::fmt;

pub use consumer::Patient;
pub use gouging::Gouging;
pub use plan::{Act, Plan};

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{ModelHash, NodeId};
use cocoon_protocol::offer::SignedOffer;
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::wire::SessionMessage;
use simnet_scenario::{Moment, Seed};

use crate::evidence::Evidence;
use crate::fabric::{Fabric, HostId, SessionId};
use crate::observation::Observation;
use crate::stimulus::{Alarm, Stimulus};

/// What a dishonest host does otherwise than an honest one. Each hook has the real fabric, and does
/// by default what an honest host does.
pub trait Behaviour: fmt::Debug + Send {
    /// Something happens. What is given back, the host gets; `None` keeps it from the host.
    /// [`Alarm::Behaviour`] that this behaviour has set itself comes here too.
    fn meet(&mut self, stimulus: Stimulus, fabric: &mut dyn Fabric) -> Option<Stimulus> {
        let _honest = fabric;
        Some(stimulus)
    }

    /// The host sends a message.
    fn send(
        &mut self,
        session: SessionId,
        message: SessionMessage,
        padding: u32,
        fabric: &mut dyn Fabric,
    ) {
        fabric.send(session, message, padding);
    }

    /// The host gives the ledger a command.
    fn ledger(&mut self, command: LedgerCommand, fabric: &mut dyn Fabric) {
        fabric.ledger(command);
    }

    /// What a consumer that opens a session is shown, in place of the host's own evidence.
    fn evidence(&self, honest: Evidence) -> Evidence {
        honest
    }
}

/// A behaviour for a part of the run; before and after, the host is honest.
#[derive(Debug)]
struct Timed {
    inner: Box<dyn Behaviour>,
    from: Moment,
    until: Moment,
}

impl Timed {
    fn acts(&self, now: Moment) -> bool {
        self.from <= now && now < self.until
    }
}

impl Behaviour for Timed {
    fn meet(&mut self, stimulus: Stimulus, fabric: &mut dyn Fabric) -> Option<Stimulus> {
        // What it has begun it ends, also after its time.
        if self.acts(fabric.now()) || matches!(stimulus, Stimulus::Alarm(Alarm::Behaviour(_))) {
            self.inner.meet(stimulus, fabric)
        } else {
            Some(stimulus)
        }
    }

    fn send(
        &mut self,
        session: SessionId,
        message: SessionMessage,
        padding: u32,
        fabric: &mut dyn Fabric,
    ) {
        if self.acts(fabric.now()) {
            self.inner.send(session, message, padding, fabric);
        } else {
            fabric.send(session, message, padding);
        }
    }

    fn ledger(&mut self, command: LedgerCommand, fabric: &mut dyn Fabric) {
        if self.acts(fabric.now()) {
            self.inner.ledger(command, fabric);
        } else {
            fabric.ledger(command);
        }
    }

    fn evidence(&self, honest: Evidence) -> Evidence {
        self.inner.evidence(honest)
    }
}

/// Random bits about one job or peer of a host: the same whenever they are asked for.
fn drawn(seed: Seed, host: HostId, about: &[u8]) -> u64 {
    let head = about.first_chunk::<8>().copied().unwrap_or_default();
    let index = u64::from_be_bytes(head) ^ u64::from(host.0).rotate_left(32);
    let bytes = seed.bytes("behaviour", index);
    u64::from_be_bytes(bytes.first_chunk::<8>().copied().unwrap_or_default())
}

/// The fabric as a dishonest host sees it: what it does goes through its behaviour.
#[expect(missing_debug_implementations, reason = "lives for one call; a fabric has no debug form")]
pub struct Guise<'a> {
    behaviour: &'a mut dyn Behaviour,
    fabric: &'a mut dyn Fabric,
}

impl<'a> Guise<'a> {
    /// For one stimulus that a behaviour let through.
    pub fn new(behaviour: &'a mut dyn Behaviour, fabric: &'a mut dyn Fabric) -> Self {
        Self { behaviour, fabric }
    }
}

impl Fabric for Guise<'_> {
    fn now(&self) -> Moment {
        self.fabric.now()
    }

    fn look(&mut self, model: ModelHash, minimum_tier: Tier) {
        self.fabric.look(model, minimum_tier);
    }

    fn avoid(&mut self, provider: NodeId) {
        self.fabric.avoid(provider);
    }

    fn publish(&mut self, offer: SignedOffer) {
        self.fabric.publish(offer);
    }

    fn dial(&mut self, session: SessionId, peer: NodeId) {
        self.fabric.dial(session, peer);
    }

    fn send(&mut self, session: SessionId, message: SessionMessage, padding: u32) {
        self.behaviour.send(session, message, padding, self.fabric);
    }

    fn hang_up(&mut self, session: SessionId) {
        self.fabric.hang_up(session);
    }

    fn wake(&mut self, at: Moment, alarm: Alarm) {
        self.fabric.wake(at, alarm);
    }

    fn ledger(&mut self, command: LedgerCommand) {
        self.behaviour.ledger(command, self.fabric);
    }

    fn backlog(&self, session: SessionId) -> u32 {
        self.fabric.backlog(session)
    }

    fn stopped(&mut self, restart: Option<Moment>) {
        self.fabric.stopped(restart);
    }

    fn observe(&mut self, fact: Observation) {
        self.fabric.observe(fact);
    }
}
