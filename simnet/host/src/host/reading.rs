//! A consumer's edge: its users' jobs, from the order to the receipt, and the sessions it dialled.
//!
//! Owns: what the node's pump does: counting text, checking receipts, telling users.
//! Must not: choose a provider or pay; the protocol does.
//!
//! Text is not simulated, its length and its commitment are. A chunk without text stands for
//! [`BYTES_PER_TOKEN`] bytes for each new token; what both sides commit to is the sequence of
//! counts, so a chunk that is lost, repeated or changed breaks the receipt as it would in reality.

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::Input;
use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{JobId, ModelHash, Network, NodeId};
use cocoon_protocol::job::consumer::Consumer;
use cocoon_protocol::job::{JobError, JobSpec, Prompt, Sampling};
use cocoon_protocol::limits;
use cocoon_protocol::offer::VerifiedOffer;
use cocoon_protocol::output::JobNews;
use cocoon_protocol::receipt::{
    Salt, SignedReceipt, commitment, prompt_commitment, sampling_digest,
};
use cocoon_protocol::record::Account;
use cocoon_protocol::selection::Demand;
use cocoon_protocol::units::{NanoTon, Tokens};
use cocoon_protocol::wire::{JobRequest, SessionMessage};
use simnet_scenario::Moment;

use super::driver::Shell;
use super::near_list;
use super::session::Dialled;
use crate::fabric::SessionId;
use crate::mutation::{Mutation, planted};
use crate::observation::{FailureKind, Observation, Queue};
use crate::stimulus::{Alarm, Order, Piece};

/// Bytes of text for a token: English in vocabularies of 32,000 to 128,000 tokens.
pub(super) const BYTES_PER_TOKEN: u32 = 4;
/// Tokens that may be counted beyond the bytes of text that came, as in the node's pump.
const HELD_BACK: u32 = 256 + 64;

/// What a consumer's process has beside the protocol's state.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) dialled: Vec<Dialled>,
    pub(super) jobs: Vec<Job>,
    wanted: Vec<Wanted>,
}

/// Providers that are looked for.
#[derive(Debug)]
struct Wanted {
    model: ModelHash,
    minimum_tier: Tier,
    since: Moment,
    heard: bool,
}

/// A user's job that is not over.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) order: Order,
    pub(super) submitted: Moment,
    pub(super) attempts: u32,
    provider: Option<NodeId>,
    started: bool,
    /// Whether the present provider has taken it.
    taken: bool,
    /// Whether no more is read of the present provider.
    halted: bool,
    pub(super) cancelled: bool,
    first_token: bool,
    /// Tokens that lost providers wrote.
    before: Tokens,
    /// Tokens that the present provider has counted.
    pub(super) counted: Tokens,
    text_bytes: u32,
    text: Text,
    paid: NanoTon,
}

/// A text by its counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text(u64);

impl Text {
    pub(super) const EMPTY: Self = Self(0);

    /// Goes on with a chunk.
    pub(super) fn update(&mut self, text: &str, completion: Tokens) {
        let chunk = u64::from(completion.get()) ^ (text.len() as u64) << 32;
        // The constants are those of the 64-bit FNV-1a hash.
        self.0 = (self.0 ^ 0xcbf2_9ce4_8422_2325 ^ chunk).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// The commitment to the whole.
    pub(super) fn commitment(self, salt: [u8; 32]) -> [u8; 32] {
        commitment(&Salt::from_bytes(salt), &self.0.to_be_bytes())
    }
}

impl Reading {
    /// Names the memory that it points to; see [`crate::Host::approach`].
    pub(super) fn approach(&self, ask: &mut impl FnMut(*const u8, usize)) {
        near_list(&self.jobs, ask);
        near_list(&self.dialled, ask);
    }

    fn job(&mut self, job: JobId) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|found| found.order.job == job)
    }

    /// What was promised to a provider of a job that gave no receipt for it.
    pub(super) fn interrupted(&mut self, job: JobId, paid: NanoTon) {
        if let Some(found) = self.job(job) {
            found.paid = found.paid.saturating_add(paid);
        }
    }

    fn take(&mut self, job: JobId) -> Option<Job> {
        let at = self.jobs.iter().position(|found| found.order.job == job)?;
        let job = self.jobs.remove(at);
        if self.jobs.is_empty() {
            // An idle consumer holds no buffer.
            self.jobs = Vec::new();
        }
        Some(job)
    }
}

impl Job {
    /// The fact that it failed.
    pub(super) fn failed(&self, kind: FailureKind, now: Moment) -> Observation {
        let Self { order, attempts, submitted, paid, .. } = self;
        let after = now.since(*submitted);
        Observation::JobFailed { job: order.job, kind, attempts: *attempts, after, paid: *paid }
    }

    /// What the provider is asked; a text of its own numbers stands for the prompt.
    fn spec(&self, max_completion: Tokens) -> JobSpec {
        JobSpec {
            model: self.order.model,
            prompt: prompt(&self.order, self.before),
            sampling: Sampling::with_seed(self.order.draw),
            stop: Vec::new(),
            max_completion,
        }
    }

    fn salt(&self) -> [u8; 32] {
        salt(self.order.job)
    }
}

/// The text that stands for a prompt of so many tokens, and for what the model makes of it: less, where
/// some of it stands behind the prompt already.
fn prompt(order: &Order, before: Tokens) -> Prompt {
    let (prompt, completion) =
        (order.prompt.saturating_add(before), order.completion.saturating_sub(before));
    Prompt::Text(format!("{prompt} {completion}"))
}

/// Reads [`prompt`]: tokens of the prompt, and of the completion that the model would write.
pub(super) fn read_prompt(prompt: &Prompt) -> Option<(Tokens, Tokens)> {
    let Prompt::Text(text) = prompt else { return None };
    let (prompt, completion) = text.split_once(' ')?;
    Some((Tokens::new(prompt.parse().ok()?), Tokens::new(completion.parse().ok()?)))
}

/// A secret is of no use in a simulation; another one for each job is.
fn salt(job: JobId) -> [u8; 32] {
    job.as_bytes().map(|byte| byte ^ 0x5a)
}

fn bytes(tokens: Tokens) -> u32 {
    tokens.get().saturating_mul(BYTES_PER_TOKEN)
}

impl Shell<'_> {
    /// A user wants a job done.
    pub(super) fn submit(&mut self, order: Order) {
        let (job, model, minimum_tier) = (order.job, order.model, order.minimum_tier);
        let Some(reading) = &mut self.process.reading else { return };
        if reading.job(job).is_some() {
            return;
        }
        self.fabric.observe(Observation::JobSubmitted { job, model, minimum_tier });
        // As the node's gateway bounds a prompt: a token for each byte, and the template.
        let prompt_at_most = Tokens::new(bytes(order.prompt).saturating_add(16 + 256));
        let demand = Demand {
            model,
            model_name: String::new(),
            network: Network::Devnet.global_id(),
            prompt_at_most,
            max_completion: order.max_completion,
            minimum_tier,
            max_cost: order.max_cost,
            max_price: None,
            account: Account::default(),
        };
        let draw = order.draw;
        if reading.jobs.is_empty() {
            reading.jobs.reserve_exact(1);
        }
        reading.jobs.push(Job {
            order,
            submitted: self.now,
            attempts: 0,
            provider: None,
            started: false,
            taken: false,
            halted: false,
            cancelled: false,
            first_token: false,
            before: Tokens::ZERO,
            counted: Tokens::ZERO,
            text_bytes: 0,
            text: Text::EMPTY,
            paid: NanoTon::ZERO,
        });
        let depth = reading.jobs.len();
        self.deepen(Queue::ConsumerJobs, depth, limits::JOBS_PER_NODE);
        if let Some(patience) = self.patience() {
            self.fabric.wake(self.now.after(patience), Alarm::Patience);
        }
        self.input(Input::Submit { job, demand, draw });
    }

    fn patience(&self) -> Option<Duration> {
        self.spec.consumer.as_ref().and_then(|consumer| consumer.patience)
    }

    /// A user no longer wants it.
    pub(super) fn cancel(&mut self, job: JobId) {
        let Some(found) = self.process.reading.as_mut().and_then(|it| it.job(job)) else { return };
        if !std::mem::replace(&mut found.cancelled, true) {
            self.input(Input::Cancel { job });
        }
    }

    /// Users who have waited too long for a first token leave.
    pub(super) fn lose_patience(&mut self) {
        let (Some(patience), now) = (self.patience(), self.now) else { return };
        let Some(reading) = &self.process.reading else { return };
        let late =
            |job: &&Job| !job.first_token && !job.cancelled && job.submitted.after(patience) <= now;
        let late: Vec<_> = reading.jobs.iter().filter(late).map(|job| job.order.job).collect();
        for job in late {
            self.cancel(job);
        }
    }

    /// The protocol wants offers of a model in a tier or above.
    pub(super) fn look(&mut self, model: ModelHash, minimum_tier: Tier) {
        let since = self.now;
        if let Some(reading) = &mut self.process.reading
            && !reading.wanted.iter().any(|it| (it.model, it.minimum_tier) == (model, minimum_tier))
        {
            // One that is known already, because less or more was wanted before, is no answer.
            let book = self.process.node.consumer().map(|it| it.book());
            let mut offers = book.into_iter().flat_map(|book| book.offers_for(model));
            let heard = offers.any(|(offer, _)| offer.tier >= minimum_tier);
            reading.wanted.reserve_exact(1);
            reading.wanted.push(Wanted { model, minimum_tier, since, heard });
        }
        self.fabric.look(model, minimum_tier);
    }

    /// An offer came in.
    pub(super) fn offer_heard(&mut self, offer: Arc<VerifiedOffer>) {
        let provider = offer.offer().provider;
        let is_met = !self.knows(provider);
        let Some(reading) = &mut self.process.reading else { return };
        if is_met {
            self.fabric.observe(Observation::Met { provider });
        }
        for wanted in reading.wanted.iter_mut().filter(|wanted| !wanted.heard) {
            let model = wanted.model;
            if offer.offer().tier >= wanted.minimum_tier && offer.offer().model(model).is_some() {
                wanted.heard = true;
                let after = self.now.since(wanted.since);
                self.fabric.observe(Observation::RouteReady { model, after });
            }
        }
        self.input(Input::Offer(offer));
        let book = self.process.node.consumer().map_or(0, |consumer| consumer.book().len());
        self.deepen(Queue::Book, book, limits::BOOK_OFFERS);
    }

    /// A provider's offer is no longer kept current.
    pub(super) fn offer_lost(&mut self, provider: NodeId) {
        if self.knows(provider) {
            self.fabric.observe(Observation::Forgot { provider });
        }
        self.input(Input::OfferGone(provider));
    }

    fn knows(&self, provider: NodeId) -> bool {
        let consumer = self.process.node.consumer();
        consumer.is_some_and(|it| it.book().offer(provider).is_some())
    }

    /// The job's request goes out.
    pub(super) fn send_job(
        &mut self,
        peer: NodeId,
        job: JobId,
        offer_sequence: u64,
        max_completion: Tokens,
    ) {
        let Some(reading) = &mut self.process.reading else { return };
        let Some(dialled) = reading.dialled.iter().find(|it| it.is_open_to(peer)) else { return };
        let (genuine, hostile) = (dialled.genuine, dialled.hostile);
        let Some(found) = reading.job(job) else { return };
        found.provider = Some(peer);
        found.attempts += 1;
        (found.taken, found.halted) = (false, false);
        found.counted = Tokens::ZERO;
        found.text_bytes = 0;
        found.text = Text::EMPTY;
        let asked = found.order.minimum_tier;
        let padding = bytes(found.order.prompt.saturating_add(found.before));
        let (spec, salt) = (found.spec(max_completion), found.salt());
        let request = JobRequest { job, offer_sequence, spec, salt };
        self.fabric.observe(Observation::PromptSent {
            job,
            provider: peer,
            asked,
            genuine,
            hostile,
        });
        self.send(peer, SessionMessage::JobRequest(request), padding);
    }

    /// A job's provider is lost: no more is read of it, and the protocol hears how far it has come.
    pub(super) fn halt(&mut self, job: JobId) {
        let Some(found) = self.process.reading.as_mut().and_then(|it| it.job(job)) else { return };
        let (completion, bytes) = (found.counted, found.text_bytes);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        found.before = found.before.saturating_add(completion);
        (found.counted, found.text_bytes, found.taken) = (Tokens::ZERO, 0, false);
        found.halted = true;
        self.later(Input::Halted { job, completion, bytes });
    }

    /// Tells the user what became of the job.
    pub(super) fn inform(&mut self, job: JobId, news: JobNews) {
        let now = self.now;
        if planted(Mutation::NewsLost) && matches!(news, JobNews::Finished { .. }) {
            return;
        }
        let Some(reading) = &mut self.process.reading else { return };
        match news {
            JobNews::Started { .. } => {
                if let Some(found) = reading.job(job) {
                    found.started = true;
                    found.taken = true;
                }
            }
            JobNews::Finished { reason, usage, cost, vouchers, receipt: _ } => {
                let Some(found) = reading.take(job) else { return };
                let Some(provider) = found.provider else { return };
                self.fabric.observe(Observation::JobFinished {
                    job,
                    provider,
                    reason,
                    prompt: usage.prompt,
                    completion: usage.completion,
                    cost,
                    vouchers,
                    attempts: found.attempts,
                    after: now.since(found.submitted),
                });
            }
            JobNews::Failed(error) => {
                let Some(found) = reading.take(job) else { return };
                let kind = if found.cancelled && !found.started {
                    FailureKind::Cancelled
                } else {
                    failure_kind(&error)
                };
                self.fabric.observe(found.failed(kind, now));
            }
        }
    }

    /// Some text came from the provider.
    pub(super) fn chunk(&mut self, from: SessionId, text: &str, piece: Piece) {
        let Piece { job, completion } = piece;
        let now = self.now;
        let Some((peer, found)) = self.route(from, job) else { return };
        if !found.taken {
            return self.broken(peer, job, "it sends text of a job that it has not taken");
        }
        if completion < found.counted {
            return self.broken(peer, job, "its count of tokens runs backwards");
        }
        let fresh = completion.saturating_sub(found.counted);
        let length = if text.is_empty() {
            bytes(fresh)
        } else {
            u32::try_from(text.len()).unwrap_or(u32::MAX)
        };
        let text_bytes = found.text_bytes.saturating_add(length);
        if completion.get() > text_bytes.saturating_add(HELD_BACK) {
            return self.broken(peer, job, "it counts more tokens than its text can hold");
        }
        (found.counted, found.text_bytes) = (completion, text_bytes);
        found.text.update(text, completion);
        if completion > Tokens::ZERO && !std::mem::replace(&mut found.first_token, true) {
            let after = now.since(found.submitted);
            self.fabric.observe(Observation::FirstToken { job, after });
        }
        self.input_of(Some(from), Input::Delivered { job, completion });
    }

    /// The provider says that this was all.
    pub(super) fn receipt(&mut self, from: SessionId, job: JobId, receipt: &SignedReceipt) {
        let Some((peer, found)) = self.route(from, job) else { return };
        let spec = found.spec(Tokens::ZERO);
        let salt = found.salt();
        let completion = found.text.commitment(salt);
        let Ok(verified) = receipt.verify() else {
            return self.broken(peer, job, "its receipt's signature does not hold");
        };
        let stated = verified.receipt();
        if stated.prompt_commitment != prompt_commitment(&Salt::from_bytes(salt), &spec.prompt) {
            return self.broken(peer, job, "its receipt is for another prompt");
        }
        if stated.completion_commitment != completion {
            return self.broken(peer, job, "its receipt is for another completion");
        }
        if stated.sampling_digest != sampling_digest(&spec.sampling, &spec.stop) {
            return self.broken(peer, job, "its receipt is for another sampling");
        }
        let input = Input::JobFinished { peer, job, receipt: Box::new(verified), salt };
        self.input_of(Some(from), input);
    }

    /// Whether every job that a user waits for is one that the node works on, and the node means to
    /// look at them again: then none of them can be forgotten. Asked when nothing is under way
    /// between the two.
    pub(super) fn audit_jobs(&mut self) {
        let Some(reading) = &self.process.reading else { return };
        let quiet = self.process.commit.is_none()
            && self.process.inbox.is_empty()
            && self.process.end.is_none();
        if !quiet {
            return;
        }
        let waiting = reading.jobs.len();
        let held = self.process.node.consumer().map_or(0, Consumer::jobs);
        let attended = held == 0 || self.process.wake_at.is_some();
        if waiting != held || !attended {
            let count = |jobs| u32::try_from(jobs).unwrap_or(u32::MAX);
            let (waiting, held) = (count(waiting), count(held));
            self.fabric.observe(Observation::JobsAdrift { waiting, held, attended });
        }
    }

    /// The job that a message in this session is about, if the session's provider serves it.
    fn route(&mut self, from: SessionId, job: JobId) -> Option<(NodeId, &mut Job)> {
        let reading = self.process.reading.as_mut()?;
        let peer = reading.dialled.iter().find_map(|it| it.peer_in(from))?;
        let found = reading.job(job)?;
        (found.provider == Some(peer) && !found.halted).then_some((peer, found))
    }

    /// The provider broke a rule: nothing more of this job is heard of it.
    fn broken(&mut self, peer: NodeId, job: JobId, rule: &'static str) {
        if let Some(found) = self.process.reading.as_mut().and_then(|it| it.job(job)) {
            found.provider = None;
        }
        self.input(Input::JobBroken { peer, job, rule });
    }
}

const fn failure_kind(error: &JobError) -> FailureKind {
    match error {
        JobError::UnknownModel { .. } | JobError::NoProvider { .. } => FailureKind::NoProvider,
        JobError::PriceTooHigh { .. } | JobError::PriceAboveCap { .. } => FailureKind::PriceTooHigh,
        JobError::TierNotAvailable { .. } | JobError::PolicyForbidsTier { .. } => {
            FailureKind::NoTier
        }
        JobError::AttestationRefused { .. } => FailureKind::AttestationRefused,
        JobError::FundsExhausted { .. } => FailureKind::FundsExhausted,
        JobError::LedgerUnavailable { .. } => FailureKind::LedgerUnavailable,
        JobError::Refused(_) => FailureKind::Refused,
        JobError::Unreachable { .. } => FailureKind::Unreachable,
        JobError::ProviderLost { .. } => FailureKind::ProviderLost,
        JobError::ProviderMisbehaved { .. } => FailureKind::Misbehaved,
        JobError::SpendingCap { .. } | JobError::TooManyJobs | JobError::ShuttingDown => {
            FailureKind::OwnNode
        }
    }
}
