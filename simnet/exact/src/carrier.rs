//! The exact tier's fabric: a host's wishes become commands of its overlay and bytes of its sessions.
//!
//! Owns: the translation. Must not: hold policy, or lead back into the host.

use cocoon_overlay::{Command, Want};
use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{ModelHash, NodeId};
use cocoon_protocol::offer::SignedOffer;
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::wire::SessionMessage;
use simnet_host::stimulus::DialFailure;
use simnet_host::{Alarm, Fabric, Observation, SessionId, Stimulus};
use simnet_scenario::Moment;

use crate::node::Process;
use crate::world::{Entry, World};

/// The world as one host sees it, while it is being handled.
#[derive(Debug)]
pub(crate) struct Carrier<'a> {
    pub(crate) process: &'a mut Process,
    pub(crate) world: &'a World,
}

impl Carrier<'_> {
    fn tell(&mut self, command: Command) {
        if let Some(overlay) = &mut self.process.overlay {
            overlay.handle(command);
            self.process.wake();
        }
    }

    /// Answers with a later stimulus, at this moment.
    fn answer(&self, stimulus: Stimulus) {
        let (id, life) = (self.process.id, self.process.life);
        self.world.put(self.now(), Entry::Answer(id, life, Box::new(stimulus)));
    }
}

impl Fabric for Carrier<'_> {
    fn now(&self) -> Moment {
        World::now()
    }

    fn look(&mut self, model: ModelHash, minimum_tier: Tier) {
        self.tell(Command::Want(Want { model, minimum_tier }));
    }

    fn avoid(&mut self, provider: NodeId) {
        self.tell(Command::Avoid(provider));
    }

    fn publish(&mut self, offer: SignedOffer) {
        self.tell(Command::PublishOffer(offer));
    }

    fn dial(&mut self, session: SessionId, peer: NodeId) {
        let request = self.process.overlay.as_mut().and_then(|it| it.open_session(&peer));
        match request {
            Some(request) => {
                self.process.dialling.insert(request, (session, peer));
                self.process.wake();
            }
            None => {
                let failure = DialFailure::Unreachable;
                self.answer(Stimulus::DialFailed { session, peer, failure });
            }
        }
    }

    fn send(&mut self, session: SessionId, message: SessionMessage, padding: u32) {
        let Some(outbox) = self.process.sessions.get(&session) else {
            return;
        };
        if !outbox.push(&message.encode(), padding) {
            // The peer does not read. As in the node, its session is over.
            outbox.close();
            self.process.sessions.remove(&session);
            self.answer(Stimulus::SessionDown { session });
        }
    }

    fn backlog(&self, session: SessionId) -> u32 {
        let waiting = self.process.sessions.get(&session).map_or(0, |outbox| outbox.waiting());
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }

    fn hang_up(&mut self, session: SessionId) {
        if let Some(outbox) = self.process.sessions.remove(&session) {
            outbox.close();
        }
    }

    fn wake(&mut self, at: Moment, alarm: Alarm) {
        self.world.put(at, Entry::Alarm(self.process.id, self.process.life, alarm));
    }

    fn ledger(&mut self, command: LedgerCommand) {
        let (spec, now) = (&self.process.spec, self.now());
        self.world.ledger(|ledger| ledger.submit(spec, command, now));
    }

    fn stopped(&mut self, restart: Option<Moment>) {
        self.process.stopped = true;
        let (id, life) = (self.process.id, self.process.life);
        self.world.put(self.now(), Entry::Stopped(id, life, restart));
    }

    fn observe(&mut self, fact: Observation) {
        self.world.state(self.process.id, fact);
    }
}
