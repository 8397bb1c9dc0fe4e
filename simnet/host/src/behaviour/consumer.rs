//! Dishonest consumers: they take tokens and keep their vouchers, or promise what is not there.
//!
//! Owns: what each of them keeps of its payments. Must not: sign with a key that is not its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::Input;
use cocoon_protocol::channel::{Allocation, ChannelId, JobTotal, SignedVoucher, Voucher};
use cocoon_protocol::identity::JobId;
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::selection::{self, Candidate, Patience, View};
use cocoon_protocol::units::{Millis, NanoTon, Tokens};
use cocoon_protocol::wire::SessionMessage;
use simnet_scenario::quantity::Share;
use simnet_scenario::{Moment, Seed};

use super::{Behaviour, drawn};
use crate::fabric::{Fabric, HostId, SessionId};
use crate::host::HostSpec;
use crate::stimulus::{Alarm, Piece, Stimulus};

/// Messages that a behaviour holds back at most; beyond, it is honest.
const HELD: usize = 4_096;

/// Pays for the first tokens of a job and for no more. Vouchers are cumulative, so that dropping some
/// would only delay what the next one promises: it signs its own, over what it means to pay.
#[derive(Debug)]
pub(super) struct FreeRider {
    host: Arc<HostSpec>,
    after: Tokens,
    share: Share,
    /// The running jobs: tokens so far, and what was paid. Newest last.
    jobs: VecDeque<(JobId, Tokens, NanoTon)>,
    /// What it has promised in each channel.
    promised: BTreeMap<ChannelId, NanoTon>,
}

impl FreeRider {
    pub(super) fn new(host: &Arc<HostSpec>, after: Tokens, share: Share) -> Self {
        let (host, jobs) = (Arc::clone(host), VecDeque::new());
        Self { host, after, share, jobs, promised: BTreeMap::new() }
    }

    /// The place of a job in the list, where it is put if it is new.
    fn job(&mut self, job: JobId) -> Option<&mut (JobId, Tokens, NanoTon)> {
        if !self.jobs.iter().any(|known| known.0 == job) {
            self.jobs.push_back((job, Tokens::ZERO, NanoTon::ZERO));
            if self.jobs.len() > HELD {
                self.jobs.pop_front();
            }
        }
        self.jobs.iter_mut().find(|known| known.0 == job)
    }

    /// A voucher for no more than it means to pay; `None` for what it does not.
    fn pay(&mut self, honest: &SignedVoucher, claim: JobTotal) -> Option<SignedVoucher> {
        let key = self.host.vault_key()?;
        let steals = self.share.takes(drawn(self.host.seed, self.host.id, claim.job.as_bytes()));
        let after = self.after;
        let (_, tokens, paid) = self.job(claim.job)?;
        // The prompt is paid beforehand, or nothing comes at all.
        if steals && *tokens > after {
            return None;
        }
        let more = claim.total.saturating_sub(*paid);
        *paid = claim.total;
        let channel = honest.voucher.channel();
        let promised = self.promised.entry(channel).or_default();
        *promised = promised.saturating_add(more);
        Some(key.sign(Voucher { cumulative: *promised, ..honest.voucher }))
    }
}

impl Behaviour for FreeRider {
    fn meet(&mut self, stimulus: Stimulus, _: &mut dyn Fabric) -> Option<Stimulus> {
        let piece = if let Stimulus::Piece { piece, .. } = &stimulus {
            Some(*piece)
        } else if let Stimulus::Heard { message, .. } = &stimulus
            && let SessionMessage::JobChunk { job, completion, .. } = **message
        {
            Some(Piece { job, completion })
        } else {
            None
        };
        if let Some(Piece { job, completion }) = piece
            && let Some((_, tokens, _)) = self.job(job)
        {
            *tokens = completion;
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
        match message {
            SessionMessage::Payment { voucher, total: Some(claim) } => {
                if let Some(voucher) = self.pay(&voucher, claim) {
                    let message = SessionMessage::Payment { voucher, total: Some(claim) };
                    fabric.send(session, message, padding);
                }
            }
            // What it owes by its own books, told anew with a greeting.
            SessionMessage::Payment { total: None, .. } => {}
            SessionMessage::ChannelHello { .. }
            | SessionMessage::ChannelState { .. }
            | SessionMessage::JobRequest(_)
            | SessionMessage::JobCancel { .. }
            | SessionMessage::JobStarted { .. }
            | SessionMessage::JobRefused { .. }
            | SessionMessage::JobChunk { .. }
            | SessionMessage::JobFinished { .. }
            | SessionMessage::PaymentRefused { .. } => fabric.send(session, message, padding),
        }
    }
}

/// Chooses as another policy does, and waits for ever: whoever keeps a provider waiting must.
#[derive(Clone, Debug)]
pub struct Patient(pub Arc<dyn selection::Policy>);

impl selection::Policy for Patient {
    fn order(&self, candidates: &mut [Candidate], view: &View<'_>) {
        self.0.order(candidates, view);
    }

    fn patience(&self) -> Patience {
        let ever = Millis::from_secs(86_400);
        let (start, first_token, stall, silence) = (ever, ever, ever, ever);
        Patience { start, first_token, stall, silence, ..self.0.patience() }
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
            return self.answers.pop_front().map(|answer| Stimulus::Ledger(Box::new(answer)));
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
