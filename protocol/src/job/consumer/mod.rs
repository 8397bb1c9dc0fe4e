//! The consumer's jobs: from a demand to a receipt, paying on the way.
//!
//! Owns: which step each job is at, and what a provider's message may do to it.
//! Must not: see text. The edge moves text and reports counts.
//! Invariant: what is promised for a job never exceeds the cost of what it received.

mod attempts;
mod jobs;
mod preparing;
mod resuming;
mod running;
mod sessions;
mod unproved;
pub mod view;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::attest::Tier;
use crate::channel::ChannelId;
use crate::channel::funds::Funds;
use crate::deadlines::earlier;
use crate::flat::FlatMap;
use crate::identity::{JobId, NodeId};
use crate::input::{LedgerFailure, Proved};
use crate::job::{FinishReason, JobError, ProviderRefusal, RunningJob};
use crate::limits;
use crate::offer::{Book, VerifiedOffer};
use crate::output::{Effect, JobNews, Output};
use crate::reputation::{Experience, Reputation};
use crate::selection::{Balanced, Candidate, Demand, Patience, Policy};
use crate::units::{Millis, NanoTon, Timestamp, Tokens};
use crate::wire::SessionMessage;
use jobs::Jobs;
use resuming::{Break, Earlier};
use unproved::Unproved;

/// How long a job waits for the first offer of its model.
const LOOK_FOR: Millis = Millis::from_secs(5);
/// After so much of it, whoever has not found the tier looks for the model in any: a user should
/// learn whether there is no such model or no such tier of it.
const LOOK_FOR_TIER: Millis = Millis::from_secs(3);

#[derive(Debug)]
enum Stage {
    /// No offer yet.
    Looking { until: Timestamp },
    /// Everybody who fits is busy; they are asked again at this time, as they said themselves.
    Waiting { until: Timestamp },
    /// A provider is chosen; its session or channel is not ready yet.
    Preparing { candidate: Candidate, since: Timestamp },
    /// The request is out.
    Requested { candidate: Candidate, sent: Timestamp },
    /// The answer is coming.
    Running(Running),
    /// Its provider is lost; the edge is asked how far the answer has come.
    Broken(Box<Break>),
}

/// In the order of its declaration: what every piece of text reads comes first.
#[derive(Debug)]
#[repr(C)]
struct Running {
    received: Tokens,
    paid_for: Tokens,
    first_token: Option<Timestamp>,
    /// When the last text was delivered.
    last: Timestamp,
    /// When enough tokens had come to count as progress, and how many there were by then.
    progress: (Timestamp, Tokens),
    /// The user has left. The receipt is still paid, but nothing more on the way to it: a provider
    /// that goes on all the same stops after one step.
    cancelled: bool,
    /// Its reader takes no text at the moment.
    reader_waits: bool,
    candidate: Candidate,
    prompt: Tokens,
    vouchers: u32,
    /// Who is paid, and how much was promised for this job.
    channel: ChannelId,
    promised: NanoTon,
    requested: Timestamp,
    started: Timestamp,
    /// What the session proved: another provider that goes on must prove as much. Boxed, because it is
    /// only looked at in the end.
    proved: Box<Proved>,
}

#[derive(Debug)]
struct Job {
    demand: Demand,
    draw: u64,
    submitted: Timestamp,
    /// When it began to look for a provider: then, or when it lost one in the middle of its answer.
    since: Timestamp,
    tried: BTreeSet<NodeId>,
    /// How many of them did not prove what they offered: they have seen nothing of the job.
    unproved: usize,
    /// Those of them that were only busy, and when the last of them wants to be asked again.
    busy: Vec<NodeId>,
    retry_after: Millis,
    last_error: Option<JobError>,
    /// Whether it looks for the model in any tier, and not for what it needs only.
    looks_wider: bool,
    /// What lost providers did for it.
    earlier: Earlier,
    stage: Stage,
}

impl Job {
    fn candidate(&self) -> Option<&Candidate> {
        match &self.stage {
            Stage::Looking { .. } | Stage::Waiting { .. } => None,
            Stage::Preparing { candidate, .. } | Stage::Requested { candidate, .. } => {
                Some(candidate)
            }
            Stage::Running(running) => Some(&running.candidate),
            Stage::Broken(broken) => Some(&broken.running.candidate),
        }
    }

    /// When it is given up, or tried elsewhere.
    fn deadline(&self, patience: &Patience) -> Timestamp {
        match &self.stage {
            Stage::Looking { until } | Stage::Waiting { until } => *until,
            Stage::Preparing { since, .. } => since.after(patience.prepare),
            Stage::Requested { sent, .. } => sent.after(patience.start),
            Stage::Running(running) => {
                let stalled = if let Some(first) = running.first_token {
                    let slow = running.progress.0.after(patience.stall);
                    let silent = running.last.after(running.silence(first, patience));
                    if running.reader_waits { slow } else { slow.min(silent) }
                } else {
                    let prompt = u64::from(running.prompt.get());
                    let reading = patience.each_prompt_token.get().saturating_mul(prompt);
                    running.started.after(patience.first_token).after(Millis::new(reading))
                };
                let answer = patience.answer.map(|whole| running.requested.after(whole));
                answer.map_or(stalled, |late| late.min(stalled))
            }
            // The edge may wait for a reader first, for as long as any answer may stand still.
            Stage::Broken(broken) => broken.since.after(patience.stall),
        }
    }

    /// Since its request went out; nothing before that.
    fn took(&self, now: Timestamp) -> Millis {
        match &self.stage {
            Stage::Looking { .. }
            | Stage::Waiting { .. }
            | Stage::Preparing { .. }
            | Stage::Broken(_) => Millis::new(0),
            Stage::Requested { sent, .. } => now.since(*sent),
            Stage::Running(running) => now.since(running.requested),
        }
    }
}

/// A session that we opened.
#[derive(Clone, Copy, Debug)]
enum Session {
    /// It must prove this tier at least.
    Opening(Tier),
    /// The same, in the place of one that served and was not asked for as much.
    Raising(Tier),
    /// It was to prove `asked`.
    Ready { proved: Proved, asked: Tier },
}

/// Everything that a node does as a consumer.
#[derive(Debug)]
pub struct Consumer {
    book: Book,
    reputation: Reputation,
    sessions: FlatMap<NodeId, Session>,
    unproved: Unproved,
    funds: Funds,
    jobs: Jobs,
    policy: Arc<dyn Policy>,
    draining: bool,
}

impl Consumer {
    /// A consumer that pays from these funds and chooses as the network does by default.
    pub fn new(funds: Funds) -> Self {
        Self::with_policy(funds, Arc::new(Balanced))
    }

    /// A consumer that pays from these funds and chooses by this policy.
    pub fn with_policy(funds: Funds, policy: Arc<dyn Policy>) -> Self {
        Self {
            policy,
            book: Book::default(),
            reputation: Reputation::default(),
            sessions: FlatMap::new(),
            unproved: Unproved::new(),
            funds,
            jobs: Jobs::default(),
            draining: false,
        }
    }

    /// The offers known.
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// What it has experienced with providers.
    pub const fn reputation(&self) -> &Reputation {
        &self.reputation
    }

    /// The vault and channels.
    pub const fn funds(&self) -> &Funds {
        &self.funds
    }

    /// Jobs that are not over.
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// The jobs that run, for displays.
    pub fn running(&self) -> impl Iterator<Item = RunningJob> {
        self.jobs.iter().filter_map(|(job, found)| match &found.stage {
            Stage::Running(running) => Some(RunningJob {
                job: *job,
                peer: running.candidate.provider,
                model: found.demand.model,
                completion: running.received,
                cost: running.candidate.prices.cost(running.prompt, running.received)?,
            }),
            Stage::Looking { .. }
            | Stage::Waiting { .. }
            | Stage::Preparing { .. }
            | Stage::Requested { .. }
            | Stage::Broken(_) => None,
        })
    }

    /// See [`crate::Node::places`].
    pub(crate) fn places(&self, step: u8, name: &mut impl FnMut(*const u8, usize)) {
        if step == 0 {
            self.jobs.name_lists(name);
        } else {
            self.jobs.places(step == 1, name);
        }
    }

    /// The sessions that we opened and that are ready.
    pub fn sessions(&self) -> impl Iterator<Item = (NodeId, Proved)> {
        self.sessions.iter().filter_map(|(peer, session)| match session {
            Session::Opening(_) | Session::Raising(_) => None,
            Session::Ready { proved, .. } => Some((*peer, *proved)),
        })
    }

    /// A checked offer came in: jobs that look for one may go on.
    pub fn offer(&mut self, offer: Arc<VerifiedOffer>, now: Timestamp, out: &mut Output) {
        let provider = offer.offer().provider;
        let models: Vec<_> = offer.offer().models.iter().map(|offered| offered.model).collect();
        self.book.insert(offer);
        for model in models {
            for job in self.jobs.looking_for(model) {
                self.advance(job, now, out);
            }
        }
        self.advance_with(provider, now, out);
    }

    /// A provider left.
    pub fn offer_gone(&mut self, provider: NodeId) {
        self.book.remove(provider);
    }

    /// A user wants a job done.
    pub fn submit(
        &mut self,
        job: JobId,
        demand: Demand,
        draw: u64,
        now: Timestamp,
        out: &mut Output,
    ) {
        let refusal = if self.draining {
            Some(JobError::ShuttingDown)
        } else if self.jobs.len() >= limits::JOBS_PER_NODE {
            Some(JobError::TooManyJobs)
        } else {
            None
        };
        if let Some(error) = refusal {
            inform(out, job, JobNews::Failed(error));
            return;
        }
        // The book may know the model or not: the overlay keeps its table warm for the next job.
        let Demand { model, minimum_tier, .. } = demand;
        out.effects.push(Effect::Look { model, minimum_tier });
        let looks_wider = minimum_tier == Tier::Open;
        let wait = if looks_wider { LOOK_FOR } else { LOOK_FOR_TIER };
        let stage = Stage::Looking { until: now.after(wait) };
        let (tried, unproved, last_error) = (BTreeSet::new(), 0, None);
        let (submitted, busy, retry_after) = (now, Vec::new(), Millis::new(0));
        let earlier = Earlier::default();
        let new = Job {
            demand,
            draw,
            submitted,
            since: now,
            tried,
            unproved,
            busy,
            retry_after,
            last_error,
            looks_wider,
            earlier,
            stage,
        };
        self.jobs.insert(job, new, &self.policy.patience());
        self.advance(job, now, out);
    }

    /// The user no longer wants the job. What was received is still paid, against its receipt.
    pub fn cancel(&mut self, job: JobId, out: &mut Output) {
        let Some(found) = self.jobs.get_mut(job) else {
            return;
        };
        match &mut found.stage {
            Stage::Running(running) => running.cancelled = true,
            Stage::Broken(broken) => broken.running.cancelled = true,
            Stage::Looking { .. }
            | Stage::Waiting { .. }
            | Stage::Preparing { .. }
            | Stage::Requested { .. } => {}
        }
        if let Some(peer) = found.candidate().map(|candidate| candidate.provider) {
            match found.stage {
                Stage::Looking { .. }
                | Stage::Waiting { .. }
                | Stage::Preparing { .. }
                | Stage::Broken(_) => {}
                Stage::Requested { .. } | Stage::Running(_) => {
                    let message = SessionMessage::JobCancel { job };
                    out.effects.push(Effect::Send { peer, message });
                }
            }
        }
        // A running job ends with its receipt, or when what came of it is counted; the others end here,
        // and so does whoever keeps their text for them.
        if !matches!(found.stage, Stage::Running(_) | Stage::Broken(_)) {
            let reason = "the request was given up by whoever had sent it".to_owned();
            self.fail(job, JobError::Unreachable { reason }, out);
        }
    }

    /// The vault and channels, for the ledger's and the providers' answers.
    pub const fn funds_mut(&mut self) -> &mut Funds {
        &mut self.funds
    }

    /// The ledger failed for everyone who waits for the vault or for this provider's allocation.
    pub fn ledger_failed(
        &mut self,
        provider: Option<NodeId>,
        failure: &LedgerFailure,
        out: &mut Output,
    ) {
        for job in self.jobs.preparing(provider) {
            self.fail(job, ledger_error(failure), out);
        }
    }

    /// A provider refused the job at the door.
    pub fn refused(
        &mut self,
        peer: NodeId,
        job: JobId,
        refusal: ProviderRefusal,
        now: Timestamp,
        out: &mut Output,
    ) {
        if !self.jobs.get(job).is_some_and(|found| {
            matches!(&found.stage, Stage::Requested { candidate, .. } if candidate.provider == peer)
        }) {
            return;
        }
        if matches!(refusal, ProviderRefusal::NoHeadroom { .. }) {
            // It sees less than we do: greet it again before the next job.
            self.funds.session_closed(peer);
        }
        // What is wrong with the request stays wrong elsewhere.
        let final_word = matches!(
            refusal,
            ProviderRefusal::BadRequest { .. } | ProviderRefusal::ContextExceeded { .. }
        );
        // Who is busy says so honestly; who takes jobs for an engine that fails does not.
        let experience = match refusal {
            ProviderRefusal::EngineFailed => Experience::Failed,
            ProviderRefusal::Busy { .. }
            | ProviderRefusal::Draining
            | ProviderRefusal::NoHeadroom { .. }
            | ProviderRefusal::StaleOffer
            | ProviderRefusal::UnknownModel
            | ProviderRefusal::ContextExceeded { .. }
            | ProviderRefusal::BadRequest { .. } => Experience::Refused,
        };
        let error = JobError::Refused(refusal);
        if final_word {
            self.fail(job, error, out);
        } else {
            self.attempt_failed(job, error, experience, now, out);
        }
    }

    /// Gives up on what took too long.
    pub fn handle_timeout(&mut self, now: Timestamp, out: &mut Output) {
        self.book.expire(now);
        if self.funds.handle_timeout(now, out) {
            self.advance_all(now, out);
        }
        for job in self.jobs.late(now, &self.policy.patience()) {
            let mut experience = Some(Experience::Failed);
            match self.jobs.get(job).map(|found| &found.stage) {
                Some(Stage::Looking { .. }) => {
                    self.look_wider(job, now, out);
                    self.advance(job, now, out);
                    continue;
                }
                Some(Stage::Waiting { .. }) => {
                    let patience = self.policy.patience();
                    self.jobs.enter(job, Stage::Looking { until: now }, &patience);
                    self.advance(job, now, out);
                    continue;
                }
                Some(
                    stage @ (Stage::Requested { candidate, .. }
                    | Stage::Running(Running { candidate, .. })),
                ) => {
                    let (peer, message) = (candidate.provider, SessionMessage::JobCancel { job });
                    out.effects.push(Effect::Send { peer, message });
                    // A reader that takes nothing is not to be held against it.
                    if matches!(stage, Stage::Running(running) if running.reader_waits) {
                        experience = None;
                    }
                }
                // An edge that says nothing has no text to go on from.
                Some(Stage::Broken(_)) => {
                    self.halted(job, Tokens::ZERO, usize::MAX, now, out);
                    continue;
                }
                // Nothing of the job has reached the provider.
                Some(Stage::Preparing { .. }) => {}
                None => continue,
            }
            let reason = "the provider did not answer in time".to_owned();
            let error = JobError::Unreachable { reason };
            self.attempt_failed(job, error, experience, now, out);
        }
    }

    /// The first look has found nothing for the job. If nothing is known of its model at all, the
    /// rest of its time goes to finding out whether it exists in a lower tier.
    fn look_wider(&mut self, job: JobId, now: Timestamp, out: &mut Output) {
        let Some(found) = self.jobs.get_mut(job) else {
            return;
        };
        let (model, until) = (found.demand.model, found.since.after(LOOK_FOR));
        if std::mem::replace(&mut found.looks_wider, true) || until <= now {
            return;
        }
        if self.book.offers_for(model).next().is_none() {
            out.effects.push(Effect::Look { model, minimum_tier: Tier::Open });
        }
        self.jobs.enter(job, Stage::Looking { until }, &self.policy.patience());
    }

    /// When `handle_timeout` may have something to do; never later than when it has.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let jobs = self.jobs.next_deadline();
        earlier(jobs, earlier(self.funds.next_timeout(), self.book.next_expiry()))
    }

    /// Takes nothing new.
    pub const fn drain(&mut self) {
        self.draining = true;
    }
}

fn experience(running: &Running, finish: FinishReason, now: Timestamp) -> Experience {
    match finish {
        FinishReason::Stop | FinishReason::Length | FinishReason::Cancelled => {
            let first = running.first_token.unwrap_or(now);
            Experience::Served {
                first_token: first.since(running.requested),
                streaming: now.since(first),
                completion: running.received,
            }
        }
        FinishReason::Draining => Experience::Refused,
        FinishReason::Unpaid | FinishReason::Failed => Experience::Failed,
    }
}

fn ledger_error(failure: &LedgerFailure) -> JobError {
    match failure {
        LedgerFailure::NoFunds { needed, available } => {
            JobError::FundsExhausted { needed: *needed, available: *available }
        }
        LedgerFailure::Unavailable { reason } => {
            JobError::LedgerUnavailable { reason: reason.clone() }
        }
    }
}

fn inform(out: &mut Output, job: JobId, news: JobNews) {
    out.effects.push(Effect::Inform { job, news });
}
