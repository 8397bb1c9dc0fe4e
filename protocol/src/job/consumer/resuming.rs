//! A consumer's job whose provider is lost with it in hand: what came is counted and paid, and the next
//! provider goes on from there.
//!
//! Owns: what of a lost provider's work counts, and whether anybody goes on.
//! Must not: see the answer's text; the edge puts what has come of it behind the prompt.
//!
//! A provider can be lost between two messages of its text that are here already. So the edge is asked
//! first: it passes on what it holds, takes no more, and says how far the answer has come. What was
//! passed on is paid once, to whom wrote it, and written once. (A token whose text its provider holds back,
//! for a stop string or half a character, is not passed on: it counts for who wrote it, and the next
//! provider writes it again.)

use super::{Consumer, Job, LOOK_FOR, Running, Stage, inform};
use crate::identity::{JobId, NodeId};
use crate::job::{FinishReason, JobError, Usage};
use crate::limits;
use crate::output::{Effect, JobNews, Output};
use crate::record::{Interrupted, Record, Standing};
use crate::selection::{Patience, Retry};
use crate::units::{NanoTon, Timestamp, Tokens};

/// A job whose provider is lost, until the edge has said how far its text has come.
#[derive(Debug)]
pub(super) struct Break {
    pub(super) running: Running,
    end: End,
    pub(super) since: Timestamp,
}

/// How a provider was lost, with what its user hears if nobody goes on.
#[derive(Debug)]
pub(super) enum End {
    /// It fell silent or left: what came of it is paid.
    Lost(JobError),
    /// It broke a rule: nothing more is paid.
    Broke(JobError),
    /// It could not go on and said so, with a receipt that is paid.
    Receipted(JobNews),
}

/// What providers that were lost have done for a job.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// Tokens of the prompt alone: the first to count them had nothing behind it.
    prompt: Option<Tokens>,
    completion: Tokens,
    cost: NanoTon,
    vouchers: u32,
    /// How many there were, and how many of them brought text.
    providers: u32,
    takeovers: u32,
}

impl Break {
    /// A provider that was only lost broke a rule as well. False when that is known.
    pub(super) fn accuse(&mut self, error: JobError) -> bool {
        let was_only_lost = matches!(self.end, End::Lost(_));
        if was_only_lost {
            self.end = End::Broke(error);
        }
        was_only_lost
    }
}

impl Earlier {
    /// How many there were.
    pub(super) const fn providers(&self) -> u32 {
        self.providers
    }

    fn add(&mut self, running: &Running) {
        self.providers = self.providers.saturating_add(1);
        let has_text = running.received > Tokens::ZERO;
        self.takeovers = self.takeovers.saturating_add(u32::from(has_text));
        self.prompt.get_or_insert(running.prompt);
        self.completion = self.completion.saturating_add(running.received);
        self.cost = self.cost.saturating_add(running.promised);
        self.vouchers = self.vouchers.saturating_add(running.vouchers);
    }

    /// Together with what the last provider did.
    pub(super) fn with(&self, usage: Usage, cost: NanoTon, vouchers: u32) -> (Usage, NanoTon, u32) {
        let usage = Usage {
            prompt: self.prompt.unwrap_or(usage.prompt),
            completion: self.completion.saturating_add(usage.completion),
        };
        (usage, self.cost.saturating_add(cost), self.vouchers.saturating_add(vouchers))
    }
}

impl Job {
    /// Providers that were tried and have brought nothing: those that did are bounded for themselves, and
    /// those that did not prove what they offered have seen nothing of the job.
    pub(super) fn attempts(&self) -> usize {
        let brought = usize::try_from(self.earlier.takeovers).unwrap_or(usize::MAX);
        self.tried.len().saturating_sub(self.unproved).saturating_sub(brought)
    }

    /// Whether anybody may go on, now that `bytes` of text came from a provider that is lost.
    fn may_go_on(&self, running: &Running, bytes: usize, patience: &Patience) -> bool {
        let has_text = running.received > Tokens::ZERO;
        let allowed = match patience.retry {
            Retry::Never => false,
            Retry::BeforeText => !has_text,
            Retry::Resume => true,
        };
        let prompt = usize::try_from(self.demand.prompt_at_most.get()).unwrap_or(usize::MAX);
        // The one that is lost is not counted among those before it yet.
        let within = if has_text {
            self.earlier.takeovers < limits::TAKEOVERS_PER_JOB
        } else {
            self.attempts() < patience.attempts
        };
        allowed
            && within
            && !running.cancelled
            && running.left() > Tokens::ZERO
            && prompt.saturating_add(bytes) <= limits::PROMPT_BYTES
    }
}

impl Running {
    /// Tokens that its answer may still have.
    fn left(&self) -> Tokens {
        self.candidate.max_completion.saturating_sub(self.received)
    }
}

impl Consumer {
    /// The provider of a running job is lost.
    pub(super) fn break_off(&mut self, job: JobId, end: End, now: Timestamp, out: &mut Output) {
        self.jobs.change(job, &self.policy.patience(), |stage| match stage {
            Stage::Running(running) => Stage::Broken(Box::new(Break { running, end, since: now })),
            other @ (Stage::Looking { .. }
            | Stage::Waiting { .. }
            | Stage::Preparing { .. }
            | Stage::Requested { .. }
            | Stage::Broken(_)) => other,
        });
        out.effects.push(Effect::Halt { job });
    }

    /// The job runs again as it did before it broke off, and how it did. `None` if it did not.
    fn mend(&mut self, job: JobId) -> Option<End> {
        let mut how = None;
        self.jobs.change(job, &self.policy.patience(), |stage| match stage {
            Stage::Broken(broken) => {
                let Break { running, end, .. } = *broken;
                how = Some(end);
                Stage::Running(running)
            }
            other @ (Stage::Looking { .. }
            | Stage::Waiting { .. }
            | Stage::Preparing { .. }
            | Stage::Requested { .. }
            | Stage::Running(_)) => other,
        });
        how
    }

    /// Its end was on the way when its provider was lost: then nothing is.
    pub(super) fn mend_if_lost(&mut self, job: JobId, peer: NodeId) {
        if let Some(Job { stage: Stage::Broken(broken), .. }) = self.jobs.get(job)
            && matches!(broken.end, End::Lost(_))
            && broken.running.candidate.provider == peer
        {
            self.mend(job);
        }
    }

    /// The edge says how far a lost provider's text has come: `completion` tokens, in so many bytes.
    pub fn halted(
        &mut self,
        job: JobId,
        completion: Tokens,
        bytes: usize,
        now: Timestamp,
        out: &mut Output,
    ) {
        let Some(mut end) = self.mend(job) else {
            return;
        };
        let Some(Job { stage: Stage::Running(running), .. }) = self.jobs.get_mut(job) else {
            return;
        };
        let peer = running.candidate.provider;
        if completion > running.candidate.max_completion {
            let reason = "it sends more tokens than were asked for";
            end = End::Broke(JobError::ProviderMisbehaved { provider: peer, reason });
        }
        let most = running.candidate.max_completion;
        running.received = running.received.max(completion).min(most);
        match end {
            End::Lost(_) => {
                // What reached its reader is paid, here or with the next greeting: a provider
                // remembers who leaves with unpaid text, and need not serve them again.
                self.promise_received(job, out);
                self.interrupt(job, peer, now, out);
            }
            End::Broke(_) => self.interrupt(job, peer, now, out),
            End::Receipted(_) => {}
        }
        let patience = self.policy.patience();
        let Some(found) = self.jobs.get_mut(job) else {
            return;
        };
        let Stage::Running(running) = &found.stage else {
            return;
        };
        if found.may_go_on(running, bytes, &patience) {
            let error = match end {
                End::Lost(error) | End::Broke(error) => error,
                End::Receipted(_) => JobError::ProviderLost { provider: peer },
            };
            self.go_on(job, error, bytes, &patience, now, out);
            return;
        }
        let is_whole = running.left() == Tokens::ZERO && !running.cancelled;
        let news = match end {
            // All that was asked for is there; only who wrote the last of it can sign for it.
            End::Lost(_) if is_whole => {
                let usage = Usage { prompt: running.prompt, completion: running.received };
                let whole = found.earlier.with(usage, running.promised, running.vouchers);
                let (usage, cost, vouchers) = whole;
                let (reason, receipt) = (FinishReason::Length, None);
                JobNews::Finished { reason, usage, cost, receipt, vouchers }
            }
            End::Lost(error) | End::Broke(error) => JobNews::Failed(error),
            End::Receipted(news) => news,
        };
        self.forget(job);
        inform(out, job, news);
    }

    /// The next provider begins where the lost one has stopped: at the start, or behind the text that
    /// came. The user knows which tier has the job by now, and what was paid counts towards the cap.
    fn go_on(
        &mut self,
        job: JobId,
        error: JobError,
        bytes: usize,
        patience: &Patience,
        now: Timestamp,
        out: &mut Output,
    ) {
        let Some(found) = self.jobs.get_mut(job) else {
            return;
        };
        let Stage::Running(running) = &found.stage else {
            return;
        };
        found.earlier.add(running);
        let (has_text, left, tier) =
            (running.received > Tokens::ZERO, running.left(), running.proved.tier);
        let demand = &mut found.demand;
        demand.max_cost = demand.max_cost.map(|cap| cap.saturating_sub(running.promised));
        demand.minimum_tier = demand.minimum_tier.max(tier);
        let mut until = now;
        if has_text {
            // Whoever has not got the tokenizer counts a token for each byte.
            let behind = Tokens::new(u32::try_from(bytes).unwrap_or(u32::MAX));
            demand.prompt_at_most = demand.prompt_at_most.saturating_add(behind);
            demand.max_completion = Some(left);
            // A reader waits already: whoever is not known yet may be found, as for a new job.
            found.since = now;
            until = now.after(LOOK_FOR);
            let (model, minimum_tier) = (demand.model, demand.minimum_tier);
            out.effects.push(Effect::Look { model, minimum_tier });
        }
        found.last_error = Some(error);
        self.jobs.enter(job, Stage::Looking { until }, patience);
        self.advance(job, now, out);
    }

    fn interrupt(&mut self, job: JobId, provider: NodeId, now: Timestamp, out: &mut Output) {
        if let Some(payer) = self.funds.payer(provider) {
            payer.abandon(job);
        }
        let Some(Job { stage: Stage::Running(running), demand, .. }) = self.jobs.get(job) else {
            return;
        };
        let paid = running.promised;
        out.persist.push(Record::Posting(running.posting(job, demand, Standing::Interrupted)));
        out.persist.push(Record::Interrupted(Interrupted { job, provider, paid, at: now }));
    }
}
