//! Dishonest consumers: they take tokens and keep their vouchers, or promise what is not there.
//!
//! Owns: what each of them keeps of its payments. Must not: sign with a key that is not its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::Input;
use cocoon_protocol::channel::Allocation;
use cocoon_protocol::identity::JobId;
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::units::{NanoTon, Tokens};
use cocoon_protocol::wire::SessionMessage;
use simnet_scenario::quantity::Share;
use simnet_scenario::{Moment, Seed};

use super::{Behaviour, drawn};
use crate::fabric::{Fabric, HostId, SessionId};
use crate::host::HostSpec;
use crate::stimulus::{Alarm, Stimulus};

/// Messages that a behaviour holds back at most; beyond, it is honest.
const HELD: usize = 4_096;

/// Pays for the first tokens of a job and drops every voucher after that.
#[derive(Debug)]
pub(super) struct FreeRider {
    seed: Seed,
    host: HostId,
    after: Tokens,
    share: Share,
    /// The running jobs' tokens so far, newest last.
    received: VecDeque<(JobId, Tokens)>,
}

impl FreeRider {
    pub(super) fn new(host: &Arc<HostSpec>, after: Tokens, share: Share) -> Self {
        let (seed, host) = (host.seed, host.id);
        Self { seed, host, after, share, received: VecDeque::new() }
    }

    fn tokens(&self, job: JobId) -> Tokens {
        let found = self.received.iter().find(|(known, _)| *known == job);
        found.map_or(Tokens::ZERO, |(_, tokens)| *tokens)
    }
}

impl Behaviour for FreeRider {
    fn meet(&mut self, stimulus: Stimulus, _: &mut dyn Fabric) -> Option<Stimulus> {
        if let Stimulus::Heard {
            message: SessionMessage::JobChunk { job, completion, .. }, ..
        } = &stimulus
        {
            match self.received.iter_mut().find(|(known, _)| known == job) {
                Some((_, tokens)) => *tokens = *completion,
                None => self.received.push_back((*job, *completion)),
            }
            if self.received.len() > HELD {
                self.received.pop_front();
            }
        }
        Some(stimulus)
    }

    fn send(
        &mut self,
        session: SessionId,
        message: SessionMessage,
        padding: u32,
        fabric: &mut dyn Fabric,
    ) {
        if let SessionMessage::Payment { total: Some(total), .. } = &message {
            let job = total.job;
            // The prompt is paid beforehand, or nothing comes at all.
            let tokens = self.tokens(job);
            if tokens > self.after && self.share.takes(drawn(self.seed, self.host, job.as_bytes()))
            {
                return;
            }
        }
        fabric.send(session, message, padding);
    }
}

/// Sends each voucher as late as it can.
#[derive(Debug)]
pub(super) struct Withholder {
    delay: Duration,
    held: VecDeque<(Moment, SessionId, SessionMessage)>,
}

impl Withholder {
    pub(super) const fn new(delay: Duration) -> Self {
        Self { delay, held: VecDeque::new() }
    }
}

impl Behaviour for Withholder {
    fn meet(&mut self, stimulus: Stimulus, fabric: &mut dyn Fabric) -> Option<Stimulus> {
        let Stimulus::Alarm(Alarm::Behaviour(_)) = stimulus else { return Some(stimulus) };
        let now = fabric.now();
        while self.held.front().is_some_and(|it| it.0 <= now) {
            let Some((_, session, message)) = self.held.pop_front() else { break };
            fabric.send(session, message, 0);
        }
        None
    }

    fn send(
        &mut self,
        session: SessionId,
        message: SessionMessage,
        padding: u32,
        fabric: &mut dyn Fabric,
    ) {
        if matches!(message, SessionMessage::Payment { .. }) && self.held.len() < HELD {
            let at = fabric.now().after(self.delay);
            self.held.push_back((at, session, message));
            fabric.wake(at, Alarm::Behaviour(0));
        } else {
            fabric.send(session, message, padding);
        }
    }
}

/// Tells its own node that an allocation was made, and makes none.
#[derive(Debug)]
pub(super) struct DoubleSpender {
    seed: Seed,
    host: HostId,
    share: Share,
    answers: VecDeque<Input>,
}

impl DoubleSpender {
    pub(super) fn new(host: &Arc<HostSpec>, share: Share) -> Self {
        let (seed, host) = (host.seed, host.id);
        Self { seed, host, share, answers: VecDeque::new() }
    }
}

impl Behaviour for DoubleSpender {
    fn meet(&mut self, stimulus: Stimulus, _: &mut dyn Fabric) -> Option<Stimulus> {
        if matches!(stimulus, Stimulus::Alarm(Alarm::Behaviour(_))) {
            return self.answers.pop_front().map(Stimulus::Ledger);
        }
        Some(stimulus)
    }

    fn ledger(&mut self, command: LedgerCommand, fabric: &mut dyn Fabric) {
        match command {
            LedgerCommand::Allocate { provider, payout, amount }
                if self.answers.len() < HELD
                    && self.share.takes(drawn(self.seed, self.host, provider.as_bytes())) =>
            {
                let (allocation, free) = (Allocation::new(payout, amount, 1), NanoTon::MAX);
                self.answers.push_back(Input::Allocated { provider, allocation, free });
                fabric.wake(fabric.now(), Alarm::Behaviour(0));
            }
            LedgerCommand::Allocate { .. }
            | LedgerCommand::OpenVault { .. }
            | LedgerCommand::ReadVault { .. }
            | LedgerCommand::Settle { .. } => fabric.ledger(command),
        }
    }
}
