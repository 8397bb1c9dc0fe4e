//! Continuous batching: which tokens of which jobs go into the next step.
//!
//! Owns: the slots, their computed prefixes, admission by free cells, and the grants: the decision
//! to generate a token is taken here and nowhere else.
//! Must not: name llama.cpp (it sees a [`Compute`]), or know pipes and processes.
//! Invariant: a job's generated tokens never exceed its grant, and the cells that jobs may come to
//! need never exceed the cells there are.

use std::cmp::Reverse;
use std::time::Duration;

use cocoon_protocol::job::{FinishReason, Usage};
use cocoon_protocol::units::Tokens;

use super::pace::Pace;
use super::wire::{JobNumber, Report};
use crate::port::{EngineFailure, PrefixScope, SubmitError};
use crate::sampling::Sampler;
use crate::text::CompletionText;

/// A token of the model's vocabulary.
pub(super) type Token = u32;

/// Tokens in one step at most: one for each job that decodes, the rest from prompts, as far as the
/// [`Pace`] goes. Larger steps read prompts hardly faster, and make the jobs that decode beside
/// them wait longer.
pub(super) const STEP_TOKENS: usize = 512;

/// One token in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) token: Token,
    /// Where in its sequence.
    pub(super) position: usize,
    /// The slot's index is the sequence's.
    pub(super) sequence: usize,
    /// Whether the logits after it are wanted.
    pub(super) wants_logits: bool,
}

/// A step could not be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepFailed;

/// What the batcher needs of a model.
pub(super) trait Compute {
    /// Computes one step; says how long it took.
    fn step(&mut self, entries: &[Entry]) -> Result<Duration, StepFailed>;
    /// The logits after the entry at `index` of the last step, one for each token.
    fn logits(&self, index: usize) -> &[f32];
    /// Forgets `sequence` from `position` on. `false` when the model can only forget it whole, and
    /// has done so.
    fn forget(&mut self, sequence: usize, position: usize) -> bool;
    /// The bytes that `token` stands for.
    fn piece(&self, token: Token) -> Vec<u8>;
    /// Whether `token` is the model's own end.
    fn is_end(&self, token: Token) -> bool;
}

/// A job whose prompt is tokenised.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) number: JobNumber,
    pub(super) prompt: Vec<Token>,
    pub(super) scope: PrefixScope,
    pub(super) max_completion: Tokens,
    pub(super) sampler: Sampler,
    pub(super) text: CompletionText,
}

/// A place for one job, and the sequence that was computed there last.
#[derive(Debug, Default)]
struct Slot {
    /// Tokens that are computed, in order.
    computed: Vec<Token>,
    scope: PrefixScope,
    last_used: u64,
    job: Option<Job>,
}

#[derive(Debug)]
struct Job {
    number: JobNumber,
    /// Order of arrival: prompts are read first come, first served.
    arrival: u64,
    prompt: Vec<Token>,
    limit: Tokens,
    granted: Tokens,
    generated: Tokens,
    /// The last generated token, until it is computed.
    next: Option<Token>,
    sampler: Sampler,
    text: CompletionText,
}

impl Job {
    /// Whether one more token may be generated.
    fn may_generate(&self) -> bool {
        self.generated < self.granted.min(self.limit)
    }

    /// Cells that the job may come to need.
    fn cells(&self) -> usize {
        self.prompt.len().saturating_add(count(self.limit))
    }

    fn usage(&self) -> Usage {
        Usage { prompt: tokens(self.prompt.len()), completion: self.generated }
    }

    fn finished(&self, reason: FinishReason) -> Report {
        Report::Finished { number: self.number, reason, usage: self.usage() }
    }
}

fn count(tokens: Tokens) -> usize {
    usize::try_from(tokens.get()).unwrap_or(usize::MAX)
}

fn tokens(count: usize) -> Tokens {
    Tokens::new(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The batcher of one model context.
#[derive(Debug)]
pub(super) struct Batcher {
    slots: Vec<Slot>,
    /// Cells that all sequences share.
    cells: Tokens,
    /// Cells that one job may use at most.
    context: Tokens,
    clock: u64,
    pace: Pace,
}

impl Batcher {
    /// For `slots` sequences that share `cells`, of which one job may use `context`.
    pub(super) fn new(slots: u32, cells: Tokens, context: Tokens) -> Self {
        let slots = (0..slots).map(|_| Slot::default()).collect();
        Self { slots, cells, context: context.min(cells), clock: 0, pace: Pace::default() }
    }

    /// Gives a job a place and keeps the cells that it may need. Computes nothing.
    pub(super) fn admit(
        &mut self,
        job: Prepared,
        compute: &mut impl Compute,
    ) -> Result<Report, SubmitError> {
        let prompt = tokens(job.prompt.len());
        let room = self.context.saturating_sub(prompt);
        if room == Tokens::ZERO || job.prompt.is_empty() {
            return Err(SubmitError::ContextExceeded { prompt, context: self.context });
        }
        let limit = job.max_completion.min(room);
        let needed = job.prompt.len().saturating_add(count(limit));
        let promised = self.jobs().map(Job::cells).fold(needed, usize::saturating_add);
        let chosen = self.choose_slot(&job).filter(|_| promised <= count(self.cells));
        let Some((index, shared)) = chosen else {
            return Err(SubmitError::Busy);
        };
        self.clock = self.clock.saturating_add(1);
        let now = self.clock;
        if let Some(slot) = self.slots.get_mut(index) {
            let kept = if shared > 0 && compute.forget(index, shared) { shared } else { 0 };
            if kept == 0 {
                compute.forget(index, 0);
            }
            slot.computed.truncate(kept);
            slot.scope = job.scope;
            slot.last_used = now;
            slot.job = Some(Job {
                number: job.number,
                arrival: now,
                prompt: job.prompt,
                limit,
                granted: Tokens::ZERO,
                generated: Tokens::ZERO,
                next: None,
                sampler: job.sampler,
                text: job.text,
            });
        }
        self.evict_idle(promised, compute);
        Ok(Report::Started { number: job.number, prompt })
    }

    /// The free slot that shares the longest beginning with the job (whose last token must be
    /// computed anew for its logits), the longest unused among equals; and how much it shares.
    fn choose_slot(&self, job: &Prepared) -> Option<(usize, usize)> {
        let most = job.prompt.len().saturating_sub(1);
        let shared = |slot: &Slot| {
            if slot.scope != job.scope {
                return 0;
            }
            let pairs = slot.computed.iter().zip(&job.prompt);
            pairs.take_while(|(computed, wanted)| computed == wanted).count().min(most)
        };
        let free = self.slots.iter().enumerate().filter(|(_, slot)| slot.job.is_none());
        free.map(|(index, slot)| (shared(slot), Reverse((slot.last_used, index))))
            .max()
            .map(|(shared, Reverse((_, index)))| (index, shared))
    }

    /// Forgets the longest unused sequences of free slots until `promised` cells are left beside
    /// those that stay.
    fn evict_idle(&mut self, promised: usize, compute: &mut impl Compute) {
        let allowed = count(self.cells).saturating_sub(promised);
        loop {
            let idle = || self.slots.iter().enumerate().filter(|(_, slot)| slot.job.is_none());
            let kept =
                idle().fold(0_usize, |sum, (_, slot)| sum.saturating_add(slot.computed.len()));
            if kept <= allowed {
                return;
            }
            let oldest = idle().filter(|(_, slot)| !slot.computed.is_empty());
            let Some((index, _)) = oldest.min_by_key(|(_, slot)| slot.last_used) else {
                return;
            };
            compute.forget(index, 0);
            if let Some(slot) = self.slots.get_mut(index) {
                slot.computed.clear();
            }
        }
    }

    /// Raises what a job may generate in total. A job that has ended is not an error.
    pub(super) fn grant(&mut self, number: JobNumber, total: Tokens) {
        if let Some(job) = self.jobs_mut().find(|job| job.number == number) {
            job.granted = job.granted.max(total);
        }
    }

    /// Ends a job; its computed tokens stay for later jobs of the same scope.
    pub(super) fn cancel(&mut self, number: JobNumber) -> Option<Report> {
        let slot = self.slots.iter_mut().find(|slot| is_of(slot.job.as_ref(), number))?;
        slot.job.take().map(|job| job.finished(FinishReason::Cancelled))
    }

    /// Whether a step would compute anything.
    pub(super) fn has_work(&self) -> bool {
        self.jobs().any(Job::may_generate)
    }

    /// Computes one step and reports what came of it.
    pub(super) fn step(&mut self, compute: &mut impl Compute, reports: &mut Vec<Report>) {
        let (entries, prompt) = self.plan();
        if entries.is_empty() {
            return;
        }
        match compute.step(&entries) {
            Ok(time) => self.pace.took(prompt, time),
            Err(StepFailed) => return self.fail(&entries, compute, reports),
        }
        for (index, entry) in entries.iter().enumerate() {
            let Some(slot) = self.slots.get_mut(entry.sequence) else {
                continue;
            };
            slot.computed.push(entry.token);
            if !entry.wants_logits {
                continue;
            }
            let Some(mut job) = slot.job.take() else {
                continue;
            };
            job.next = None;
            if generate(&mut job, compute.logits(index), compute, reports) {
                slot.job = Some(job);
            }
        }
    }

    /// The next step: a token of every job that decodes, then prompts in order of arrival. And how
    /// many tokens of prompts are in it.
    fn plan(&self) -> (Vec<Entry>, usize) {
        let mut entries = Vec::new();
        let mut reading = Vec::new();
        for (sequence, slot) in self.slots.iter().enumerate() {
            let Some(job) = slot.job.as_ref().filter(|job| job.may_generate()) else {
                continue;
            };
            match job.next {
                Some(token) => {
                    let position = slot.computed.len();
                    entries.push(Entry { token, position, sequence, wants_logits: true });
                }
                None => reading.push((job.arrival, sequence, slot.computed.len(), &job.prompt)),
            }
        }
        reading.sort_unstable_by_key(|(arrival, ..)| *arrival);
        let decoding = entries.len();
        let most = decoding.saturating_add(self.pace.tokens()).min(STEP_TOKENS);
        for (_, sequence, computed, prompt) in reading {
            let room = most.saturating_sub(entries.len());
            let last = prompt.len().saturating_sub(1);
            let part = prompt.iter().enumerate().skip(computed).take(room);
            entries.extend(part.map(|(position, &token)| Entry {
                token,
                position,
                sequence,
                wants_logits: position == last,
            }));
        }
        let prompts = entries.len().saturating_sub(decoding);
        (entries, prompts)
    }

    /// After a failed step nothing is known of the sequences in it.
    fn fail(&mut self, entries: &[Entry], compute: &mut impl Compute, reports: &mut Vec<Report>) {
        for (sequence, slot) in self.slots.iter_mut().enumerate() {
            if entries.iter().any(|entry| entry.sequence == sequence) {
                compute.forget(sequence, 0);
                slot.computed.clear();
                if let Some(job) = slot.job.take() {
                    reports.push(compute_failed(&job));
                }
            }
        }
    }

    fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.slots.iter().filter_map(|slot| slot.job.as_ref())
    }

    fn jobs_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.slots.iter_mut().filter_map(|slot| slot.job.as_mut())
    }
}

fn is_of(job: Option<&Job>, number: JobNumber) -> bool {
    job.is_some_and(|job| job.number == number)
}

fn compute_failed(job: &Job) -> Report {
    Report::Failed { number: job.number, failure: EngineFailure::Compute }
}

/// Generates one token of `job` from `logits`; `false` when the job has ended with it.
fn generate(
    job: &mut Job,
    logits: &[f32],
    compute: &impl Compute,
    reports: &mut Vec<Report>,
) -> bool {
    let number = job.number;
    let Some(token) = job.sampler.choose(logits) else {
        reports.push(compute_failed(job));
        return false;
    };
    if compute.is_end(token) {
        finish(job, FinishReason::Stop, reports);
        return false;
    }
    job.generated = job.generated.saturating_add(Tokens::new(1));
    let certain = job.text.push(&compute.piece(token));
    reports.push(Report::Text { number, text: certain.text, completion: job.generated });
    if certain.stopped {
        reports.push(job.finished(FinishReason::Stop));
        return false;
    }
    if job.generated >= job.limit {
        finish(job, FinishReason::Length, reports);
        return false;
    }
    job.next = Some(token);
    true
}

/// Ends a job otherwise than by a stop string: what was held back for one is text after all.
fn finish(job: &mut Job, reason: FinishReason, reports: &mut Vec<Report>) {
    let text = job.text.finish();
    if !text.is_empty() {
        reports.push(Report::Text { number: job.number, text, completion: job.generated });
    }
    reports.push(job.finished(reason));
}

#[cfg(test)]
mod tests;
