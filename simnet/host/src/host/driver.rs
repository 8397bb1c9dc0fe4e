//! The only caller of the protocol's `Node`: inputs in, records made durable, effects carried out.
//!
//! Owns: the inbox, batches, the order "persist, then speak", and the protocol's alarm.
//! Must not: know what an effect means; `effects.rs` does.

use std::time::Duration;

use cocoon_protocol::Input;
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::output::Effect;
use cocoon_protocol::record::Record;
use cocoon_protocol::wire::SessionMessage;
use simnet_scenario::Moment;

use super::process::{Batch, Claim, Commit, End, Paid, Process};
use super::spare;
use super::spec::HostSpec;
use crate::fabric::{Fabric, SessionId};
use crate::observation::{Observation, Queue};
use crate::stimulus::{Alarm, Piece, Stimulus};
use crate::store::{CrashPoint, Kept, Store};

/// Inputs handled before their records are committed together, as in the node's driver.
const BATCH: usize = 64;
/// Inputs that wait for the driver, as in the node. Whoever reads a session waits when it is full.
const INBOX: usize = 2_048;
/// Messages of one session that may wait behind a full inbox: as many as its sender may have in
/// its own queue before it gives up on a peer that does not read.
const UNREAD: usize = 256;
/// The protocol is not called again for a time-out in the same millisecond: its clock has not
/// moved since, so it would only say the same.
const TICK: Duration = Duration::from_millis(1);

/// The rule that a record breaks which does not decode to itself.
pub(super) const UNFAITHFUL: &str = "a record does not decode to itself";

/// A host that handles one stimulus.
pub(super) struct Shell<'a> {
    pub(super) spec: &'a HostSpec,
    pub(super) store: &'a mut Store,
    pub(super) dials: &'a mut u64,
    pub(super) process: &'a mut Process,
    pub(super) now: Moment,
    pub(super) fabric: &'a mut dyn Fabric,
}

impl Shell<'_> {
    /// The process begins.
    pub(super) fn begin(&mut self) {
        self.call_for_timeout();
        self.drive();
    }

    /// Hands a stimulus to the part that it is for.
    pub(super) fn take(&mut self, stimulus: Stimulus) {
        match stimulus {
            Stimulus::Start => {}
            Stimulus::Drain => {
                self.process.draining = true;
                self.input(Input::Drain);
            }
            Stimulus::Submit(order) => self.submit(*order),
            Stimulus::Cancel(job) => self.cancel(job),
            Stimulus::OfferHeard(offer) => self.offer_heard(offer),
            Stimulus::OfferLost(provider) => self.offer_lost(provider),
            Stimulus::SessionUp { session, peer, evidence } => {
                self.session_up(session, peer, *evidence);
            }
            Stimulus::DialFailed { session, peer, failure } => {
                self.dial_failed(session, peer, failure);
            }
            Stimulus::SessionAccepted { session, peer } => self.session_accepted(session, peer),
            Stimulus::SessionDown { session } => self.session_down(session),
            Stimulus::Heard { session, message } => self.heard(session, *message),
            Stimulus::Piece { session, piece } => self.piece(session, piece),
            Stimulus::Alarm(alarm) => self.alarm(alarm),
            Stimulus::Ledger(answer) => self.ledger_answers(*answer),
        }
        self.drive();
        self.audit_jobs();
        self.leave_if_drained();
    }

    fn alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Protocol(generation) => {
                if self.process.alarm.rings(generation) {
                    self.protocol_alarm();
                }
            }
            Alarm::Engine(generation) => self.engine_alarm(generation),
            Alarm::Store(number) => {
                if self.process.commit.as_ref().is_some_and(|commit| commit.number == number)
                    && let Some(commit) = self.process.commit.take()
                {
                    self.durable(commit.batch, commit.crash);
                }
            }
            Alarm::Patience => self.lose_patience(),
            Alarm::Idle => self.close_idle_sessions(),
            Alarm::Behaviour(_) => {}
        }
    }

    fn protocol_alarm(&mut self) {
        let due = self.process.wake_at.map(|at| self.process.clock.moment(at));
        match due {
            Some(at) if at <= self.now && self.process.commit.is_none() => {
                self.call_for_timeout();
            }
            // A commit sets the alarm when it is done.
            Some(_) if self.process.commit.is_some() => {}
            Some(_) | None => self.arm(),
        }
    }

    fn call_for_timeout(&mut self) {
        let mut batch = spare::batch();
        let now = self.process.clock.timestamp(self.now);
        self.process.node.handle_timeout_into(now, &mut batch.output);
        self.process.called = Some(self.now);
        self.settle(batch);
    }

    /// Hands an input to the protocol, now or when the commit under way is done.
    pub(super) fn input(&mut self, input: Input) {
        self.input_of(None, input);
    }

    /// As [`Self::input`], for what came in a session.
    pub(super) fn input_of(&mut self, session: Option<SessionId>, input: Input) {
        if self.process.commit.is_some() || !self.process.inbox.is_empty() {
            self.wait(session, input);
            return;
        }
        let mut batch = spare::batch();
        self.call(input, &mut batch);
        self.settle(batch);
    }

    /// Hands an input to the protocol after what is being done now.
    pub(super) fn later(&mut self, input: Input) {
        self.wait(None, input);
    }

    /// Tells the protocol, after what is being done now, that text went out: what [`Self::later`] is
    /// asked nearly always.
    pub(super) fn generated(&mut self, peer: NodeId, Piece { job, completion }: Piece) {
        let full = self.process.inbox.len() >= INBOX;
        self.process.inbox.push_generated(peer, job, completion);
        if !full {
            self.deepen(Queue::Inbox, self.process.inbox.len(), INBOX);
        }
    }

    fn wait(&mut self, session: Option<SessionId>, input: Input) {
        let full = self.process.inbox.len() >= INBOX;
        self.process.inbox.push(session, input);
        if !full {
            self.deepen(Queue::Inbox, self.process.inbox.len(), INBOX);
        } else if let Some(session) = session {
            // The readers of sessions wait, each with its peer's messages behind it.
            if self.process.inbox.of_session_behind(session, INBOX) > UNREAD {
                self.close(session);
            }
        }
    }

    fn drive(&mut self) {
        while self.process.commit.is_none() && self.process.end.is_none() {
            if self.process.inbox.is_empty() {
                break;
            }
            let mut batch = spare::batch();
            for _ in 0..BATCH {
                let Some(next) = self.process.inbox.pop() else { break };
                self.call(next, &mut batch);
            }
            self.settle(batch);
        }
    }

    /// Lets the protocol handle an input. Inlined, because an input is large and would be copied.
    #[inline(always)]
    fn call(&mut self, input: Input, batch: &mut Batch) {
        let now = self.process.clock.timestamp(self.now);
        if let Input::Paid { peer, total, voucher } = &input {
            let job = total.map(|total| (total.job, total.total));
            let claim = Claim { peer: *peer, channel: voucher.voucher().channel(), job };
            let before = (batch.output.persist.len(), batch.output.effects.len());
            self.process.node.handle_into(input, now, &mut batch.output);
            batch.judge(claim, before, self.fabric);
        } else {
            self.process.node.handle_into(input, now, &mut batch.output);
        }
    }

    /// Makes a batch's records durable, then carries out its effects.
    fn settle(&mut self, batch: Box<Batch>) {
        if batch.output.persist.is_empty() {
            self.speak(batch, None);
            return;
        }
        let fate = self.store.begin(&self.spec.store, self.spec.seed, self.spec.id);
        if fate.takes.is_zero() {
            self.durable(batch, fate.crash);
            return;
        }
        let number = u32::try_from(self.store.commits() & u64::from(u32::MAX)).unwrap_or(0);
        self.process.commit = Some(Box::new(Commit { number, batch, crash: fate.crash }));
        self.fabric.wake(self.now.after(fate.takes), Alarm::Store(number));
    }

    fn durable(&mut self, mut batch: Box<Batch>, crash: Option<CrashPoint>) {
        if crash == Some(CrashPoint::BeforeDurable) {
            self.process.end = Some(End::Crashed);
            return;
        }
        let (process, fabric) = (&mut *self.process, &mut *self.fabric);
        let records = batch.output.persist.drain(..);
        let kept = self.store.keep(&self.spec.store, records, |kept| {
            if let Kept::Interrupted { job, paid } = kept
                && let Some(reading) = &mut process.reading
            {
                reading.interrupted(job, paid);
            }
            state(kept, fabric);
        });
        if kept.is_err() {
            self.fabric.observe(Observation::Defect { rule: UNFAITHFUL });
        }
        for Paid { peer, job } in batch.paid.drain(..) {
            self.credited(peer, job);
        }
        self.speak(batch, crash);
    }

    /// Carries out a batch's effects, or as many as a crash lets out.
    fn speak(&mut self, mut batch: Box<Batch>, crash: Option<CrashPoint>) {
        let most = match crash {
            None => usize::MAX,
            Some(CrashPoint::BeforeDurable | CrashPoint::BeforeEffects) => 0,
            Some(CrashPoint::AfterEffects(most)) => usize::try_from(most).unwrap_or(usize::MAX),
        };
        if !batch.output.effects.is_empty() {
            for effect in batch.output.effects.drain(..).take(most) {
                self.carry_out(effect);
            }
        }
        let wake_at = batch.output.wake_at;
        spare::done(batch);
        if crash.is_some() {
            self.process.end = Some(End::Crashed);
            return;
        }
        // The same moment as before has its alarm: then, before, or a tick after the protocol was last
        // called for it.
        let new = self.process.wake_at != wake_at || !self.process.alarm.is_set();
        self.process.wake_at = wake_at;
        if new {
            self.arm();
        }
    }

    /// Sets the protocol's alarm.
    fn arm(&mut self) {
        let Some(at) = self.process.wake_at else { return };
        if self.process.end.is_some() {
            return;
        }
        let just_called = self.process.called == Some(self.now);
        let earliest = if just_called { self.now.after(TICK) } else { self.now };
        let at = self.process.clock.moment(at).max(earliest);
        if let Some(generation) = self.process.alarm.need(at) {
            self.fabric.wake(at, Alarm::Protocol(generation));
        }
    }

    fn leave_if_drained(&mut self) {
        let quiet = self.process.commit.is_none() && self.process.inbox.is_empty();
        if self.process.draining
            && quiet
            && self.process.end.is_none()
            && self.process.node.is_drained()
        {
            self.part();
            self.process.end = Some(End::Left);
        }
    }

    /// Notes how deep a queue is, and states each new depth.
    pub(super) fn deepen(&mut self, queue: Queue, depth: usize, bound: usize) {
        let depth = u16::try_from(depth).unwrap_or(u16::MAX);
        let Some(deepest) = self.process.depths.get_mut(queue as usize) else { return };
        if depth > *deepest {
            *deepest = depth;
            let bound = u32::try_from(bound).unwrap_or(u32::MAX);
            self.fabric.observe(Observation::Queued { queue, depth: depth.into(), bound });
        }
    }
}

impl Batch {
    /// What became of a payment, from what it added to the output behind so many records and effects.
    fn judge(
        &mut self,
        Claim { peer, channel, job }: Claim,
        (records, effects): (usize, usize),
        fabric: &mut dyn Fabric,
    ) {
        let accepted = |record: &Record| matches!(record, Record::Payee(_));
        if self.output.persist.iter().skip(records).any(accepted) {
            self.paid.push(Paid { peer, job });
        }
        let refused = |effect: &Effect| {
            let Effect::Send { message, .. } = effect else { return false };
            matches!(message, SessionMessage::PaymentRefused { .. })
        };
        if self.output.effects.iter().skip(effects).any(refused) {
            fabric.observe(Observation::DoubleSpendRefused { channel });
        }
    }
}

/// States what became durable.
pub(super) fn state(kept: Kept, fabric: &mut dyn Fabric) {
    match kept {
        Kept::Promised { channel, cumulative } => {
            fabric.observe(Observation::Promised { channel, cumulative });
        }
        Kept::Held { channel, cumulative } => {
            fabric.observe(Observation::Held { channel, cumulative });
        }
        Kept::Interrupted { .. } => {}
    }
}
