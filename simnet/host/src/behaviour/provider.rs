//! Dishonest providers: they take a job and do not do it, or take money and do not redeem it.
//!
//! Owns: what each of them keeps of its jobs. Must not: sign anything that its own key does not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::JobId;
use cocoon_protocol::job::ProviderRefusal;
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::wire::SessionMessage;
use simnet_scenario::quantity::Share;
use simnet_scenario::{Moment, Seed};

use super::{Behaviour, drawn};
use crate::evidence::Evidence;
use crate::fabric::{Fabric, HostId, SessionId};
use crate::host::HostSpec;
use crate::stimulus::{Alarm, Stimulus};

/// Jobs that a behaviour keeps in mind at most; beyond, it is honest.
const JOBS: usize = 4_096;

/// Refuses jobs as if its engine failed, when it has held them for a while.
#[derive(Debug)]
pub(super) struct FastFail {
    seed: Seed,
    host: HostId,
    delay: Duration,
    share: Share,
    pending: VecDeque<(u32, SessionId, JobId)>,
    serial: u32,
}

impl FastFail {
    pub(super) fn new(host: &Arc<HostSpec>, delay: Duration, share: Share) -> Self {
        let (seed, host) = (host.seed, host.id);
        Self { seed, host, delay, share, pending: VecDeque::new(), serial: 0 }
    }
}

impl Behaviour for FastFail {
    fn meet(&mut self, stimulus: Stimulus, fabric: &mut dyn Fabric) -> Option<Stimulus> {
        if let Stimulus::Alarm(Alarm::Behaviour(serial)) = stimulus {
            while let Some((_, session, job)) =
                self.pending.front().copied().filter(|it| it.0 <= serial)
            {
                self.pending.pop_front();
                let refusal = ProviderRefusal::EngineFailed;
                fabric.send(session, SessionMessage::JobRefused { job, refusal }, 0);
            }
            return None;
        }
        if let Stimulus::Heard { session, message } = &stimulus
            && let SessionMessage::JobRequest(request) = &**message
            && self.pending.len() < JOBS
            && self.share.takes(drawn(self.seed, self.host, request.job.as_bytes()))
        {
            self.serial = self.serial.wrapping_add(1);
            self.pending.push_back((self.serial, *session, request.job));
            fabric.wake(fabric.now().after(self.delay), Alarm::Behaviour(self.serial));
            return None;
        }
        Some(stimulus)
    }
}

/// Takes jobs, lets their prompts be paid, serves for a while, and falls silent.
#[derive(Debug)]
pub(super) struct Silent {
    delay: Duration,
    silent_from: BTreeMap<JobId, Moment>,
}

impl Silent {
    pub(super) const fn new(delay: Duration) -> Self {
        Self { delay, silent_from: BTreeMap::new() }
    }
}

impl Behaviour for Silent {
    fn meet(&mut self, stimulus: Stimulus, fabric: &mut dyn Fabric) -> Option<Stimulus> {
        if let Stimulus::Heard { message, .. } = &stimulus
            && let SessionMessage::JobRequest(request) = &**message
            && self.silent_from.len() < JOBS
        {
            self.silent_from.insert(request.job, fabric.now().after(self.delay));
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
        let now = fabric.now();
        let silent = |job: &JobId| self.silent_from.get(job).is_some_and(|from| *from <= now);
        let kept_back = match &message {
            SessionMessage::JobChunk { job, .. } => silent(job),
            SessionMessage::JobFinished { job, .. } => {
                let silent = silent(job);
                self.silent_from.remove(job);
                silent
            }
            SessionMessage::ChannelHello { .. }
            | SessionMessage::ChannelState { .. }
            | SessionMessage::JobRequest(_)
            | SessionMessage::Payment { .. }
            | SessionMessage::JobCancel { .. }
            | SessionMessage::JobStarted { .. }
            | SessionMessage::JobRefused { .. }
            | SessionMessage::PaymentRefused { .. } => false,
        };
        if !kept_back {
            fabric.send(session, message, padding);
        }
    }
}

/// Offers one model and runs another.
#[derive(Debug)]
pub(super) struct CheaperModel;

impl Behaviour for CheaperModel {
    fn evidence(&self, honest: Evidence) -> Evidence {
        match honest.tier {
            // A claim that nothing proves.
            Tier::Open => honest,
            Tier::Attested | Tier::Confidential => {
                Evidence { manifest: honest.manifest.map(|byte| !byte), ..honest }
            }
        }
    }
}

/// Never redeems a voucher.
#[derive(Debug)]
pub(super) struct NeverSettles;

impl Behaviour for NeverSettles {
    fn ledger(&mut self, command: LedgerCommand, fabric: &mut dyn Fabric) {
        match command {
            LedgerCommand::Settle { .. } => {}
            LedgerCommand::OpenVault { .. }
            | LedgerCommand::Allocate { .. }
            | LedgerCommand::ReadVault { .. } => fabric.ledger(command),
        }
    }
}
