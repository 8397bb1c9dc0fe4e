//! The node's side of the jobs in a worker: who is owed which event, and what is to be said next.
//!
//! Owns: the table of running jobs, the checks on a worker's reports, and the commands under way.
//! Must not: block, or know threads and pipes. A worker runs foreign code on strangers' input, so
//! its reports are believed only as far as they keep the rules of the port.

use std::collections::{BTreeMap, VecDeque};

use cocoon_protocol::job::{FinishReason, Usage};
use cocoon_protocol::units::Tokens;
use tokio::sync::mpsc;

use super::wire::{Command, JobNumber, Report};
use crate::port::{EngineFailure, EngineJob, Generated, Load, SubmitError};

/// A worker reported what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Misbehaved;

/// The jobs in one worker.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    next_number: u64,
    running: BTreeMap<JobNumber, Running>,
    /// Jobs that the worker has not been told of; never more than there are places.
    unsent: VecDeque<(JobNumber, EngineJob)>,
}

#[derive(Debug)]
struct Running {
    events: mpsc::Sender<Generated>,
    limit: Tokens,
    /// Nothing until `Started`.
    prompt: Option<Tokens>,
    completion: Tokens,
    granted: Tokens,
    told_granted: Tokens,
    cancelled: bool,
    told_cancelled: bool,
}

impl Running {
    fn usage(&self) -> Usage {
        Usage { prompt: self.prompt.unwrap_or_default(), completion: self.completion }
    }

    fn waits(&self) -> bool {
        self.completion >= self.granted
    }

    fn report(&self, event: Generated) {
        // The channel holds a whole answer; only a reader that is gone makes this fail, and such a
        // job is cancelled by `cancel_abandoned`.
        let _ = self.events.try_send(event);
    }
}

impl Jobs {
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Takes a job, whose events go to `events`.
    pub(super) fn add(&mut self, job: EngineJob, events: mpsc::Sender<Generated>) -> JobNumber {
        let number = JobNumber(self.next_number);
        self.next_number = self.next_number.wrapping_add(1);
        let running = Running {
            events,
            limit: job.spec.max_completion,
            prompt: None,
            completion: Tokens::ZERO,
            granted: Tokens::ZERO,
            told_granted: Tokens::ZERO,
            cancelled: false,
            told_cancelled: false,
        };
        self.running.insert(number, running);
        self.unsent.push_back((number, job));
        number
    }

    pub(super) fn grant(&mut self, number: JobNumber, total: Tokens) {
        if let Some(job) = self.running.get_mut(&number) {
            job.granted = job.granted.max(total);
        }
    }

    pub(super) fn cancel(&mut self, number: JobNumber) {
        if let Some(job) = self.running.get_mut(&number) {
            job.cancelled = true;
        }
    }

    /// Cancels the jobs whose reader is gone; whether there were any.
    pub(super) fn cancel_abandoned(&mut self) -> bool {
        let mut any = false;
        for job in self.running.values_mut() {
            if job.events.is_closed() && !job.cancelled {
                job.cancelled = true;
                any = true;
            }
        }
        any
    }

    /// How many jobs have tokens to generate, and how many wait for a grant.
    pub(super) fn load(&self, slots: u32) -> Load {
        let count = |jobs: usize| u32::try_from(jobs).unwrap_or(u32::MAX);
        let waiting = self.running.values().filter(|job| job.waits()).count();
        let running = self.running.len().saturating_sub(waiting);
        Load { running: count(running), waiting: count(waiting), slots }
    }

    /// What the worker is to be told next. A grant or a cancellation is told once the worker has
    /// reported `Started`, so that it never meets a number that it does not know.
    pub(super) fn commands(&mut self) -> Vec<Command> {
        let jobs = self.unsent.drain(..).map(|(number, job)| Command::Job { number, job });
        let mut commands: Vec<_> = jobs.collect();
        for (&number, job) in self.running.iter_mut().filter(|(_, job)| job.prompt.is_some()) {
            if job.cancelled && !job.told_cancelled {
                job.told_cancelled = true;
                commands.push(Command::Cancel { number });
            } else if !job.cancelled && job.granted > job.told_granted {
                job.told_granted = job.granted;
                commands.push(Command::Grant { number, total: job.granted });
            }
        }
        commands
    }

    /// Passes a worker's report on to its reader. [`Report`]s about no job are not for here.
    pub(super) fn take(&mut self, report: Report) -> Result<(), Misbehaved> {
        match report {
            Report::Started { number, prompt } => {
                let job = self.running.get_mut(&number).ok_or(Misbehaved)?;
                if job.prompt.replace(prompt).is_some() {
                    return Err(Misbehaved);
                }
                job.report(Generated::Started { prompt });
            }
            Report::Text { number, text, completion } => {
                let job = self.running.get_mut(&number).ok_or(Misbehaved)?;
                let next = job.completion.saturating_add(Tokens::new(1));
                let in_order = completion == job.completion || completion == next;
                let allowed = job.told_granted.min(job.limit);
                if job.prompt.is_none() || !in_order || completion > allowed {
                    return Err(Misbehaved);
                }
                job.completion = completion;
                job.report(Generated::Text { text, completion });
            }
            Report::Finished { number, reason, usage } => {
                // Out of the table first: whoever reads the end finds the place free.
                let job = self.running.remove(&number).ok_or(Misbehaved)?;
                if usage != job.usage() {
                    job.report(Generated::Failed(EngineFailure::Crashed));
                    return Err(Misbehaved);
                }
                job.report(Generated::Finished { reason, usage });
            }
            Report::Failed { number, failure } => {
                let job = self.running.remove(&number).ok_or(Misbehaved)?;
                job.report(Generated::Failed(failure));
            }
            Report::Ready { .. } | Report::LoadFailed(_) | Report::Pong { .. } => {
                return Err(Misbehaved);
            }
        }
        Ok(())
    }

    /// Ends all jobs because their worker is gone.
    pub(super) fn fail(&mut self, failure: &EngineFailure) {
        self.unsent.clear();
        for job in std::mem::take(&mut self.running).into_values() {
            job.report(Generated::Failed(failure.clone()));
        }
    }

    /// Ends all jobs because the node shuts down: what was streamed is what was served.
    pub(super) fn drain(&mut self) {
        self.unsent.clear();
        for job in std::mem::take(&mut self.running).into_values() {
            let usage = job.usage();
            job.report(match job.prompt {
                None => Generated::Failed(EngineFailure::Refused(SubmitError::ShuttingDown)),
                Some(_) => Generated::Finished { reason: FinishReason::Draining, usage },
            });
        }
    }
}

#[cfg(test)]
mod tests;
