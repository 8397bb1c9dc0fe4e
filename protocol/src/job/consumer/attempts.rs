//! A consumer's job after an attempt that failed: another provider, a wait, or its end.
//!
//! Owns: how many are tried, which failures count, and what each is remembered as.
//! Must not: choose the next provider; `preparing` does.

use super::{Consumer, Job, LOOK_FOR, Stage, inform};
use crate::identity::{JobId, NodeId};
use crate::job::{JobError, ProviderRefusal};
use crate::output::{JobNews, Output};
use crate::record::{Interrupted, Record, Standing};
use crate::reputation::Experience;
use crate::selection::{Patience, Retry};
use crate::units::{Millis, NanoTon, Timestamp, Tokens};

impl Consumer {
    /// This provider will not serve the job. Before anything was streamed the next one is tried.
    /// Without an experience it was not even asked.
    pub(super) fn attempt_failed(
        &mut self,
        job: JobId,
        error: JobError,
        experience: impl Into<Option<Experience>>,
        now: Timestamp,
        out: &mut Output,
    ) {
        let Some(found) = self.jobs.get_mut(job) else {
            return;
        };
        let Some(peer) = found.candidate().map(|candidate| candidate.provider) else {
            return;
        };
        let took = found.took(now);
        if let Some(experience) = experience.into() {
            self.reputation.record(peer, found.demand.model, experience, took, now);
        }
        found.tried.insert(peer);
        let patience = self.policy.patience();
        // A provider that proves nothing has taken a session's time, and neither prompt nor money.
        // A job's attempts are for those who got it, or a few liars would be the end of it; its time
        // is its bound.
        let unproved = matches!(
            error,
            JobError::AttestationRefused { .. } | JobError::TierNotAvailable { .. }
        );
        found.unproved = found.unproved.saturating_add(usize::from(unproved));
        let latest = found.submitted.after(patience.queue);
        let again = match patience.retry {
            Retry::Never => false,
            Retry::BeforeText if unproved => now < latest,
            Retry::BeforeText => {
                found.tried.len().saturating_sub(found.unproved) < patience.attempts
            }
        };
        if let Stage::Running(running) = &found.stage {
            let text = running.received > Tokens::ZERO || running.cancelled;
            let lost = if matches!(error, JobError::Unreachable { .. }) {
                // What reached its reader is paid, here or with the next greeting: a provider
                // remembers who leaves with unpaid text, and need not serve them again.
                self.promise_received(job, out);
                JobError::ProviderLost { provider: peer }
            } else {
                error
            };
            self.interrupt(job, peer, now, out);
            if text || !again {
                self.fail(job, lost, out);
            } else {
                self.start_over(job, lost, &patience, now, out);
            }
            return;
        }
        if let Some(payer) = self.funds.payer(peer) {
            payer.abandon(job);
        }
        if let JobError::Refused(ProviderRefusal::Busy { retry_after }) = &error {
            found.busy.push(peer);
            found.retry_after = found.retry_after.max(*retry_after);
        }
        found.last_error = Some(error.clone());
        // Others are looked for in the place of who proved nothing; whoever is busy is asked again.
        let waits = again && unproved && found.busy.is_empty();
        let until = if waits { now.after(LOOK_FOR).min(latest) } else { now };
        self.jobs.enter(job, Stage::Looking { until }, &patience);
        if again {
            self.advance(job, now, out);
        } else {
            self.give_up(job, error, now, out);
        }
    }

    /// Nobody is left to try. Those who were only busy are asked again when they said, until the
    /// job has waited for as long as it may.
    pub(super) fn give_up(
        &mut self,
        job: JobId,
        error: JobError,
        now: Timestamp,
        out: &mut Output,
    ) {
        let patience = self.policy.patience();
        if let Some(found) = self.jobs.get_mut(job) {
            // Not all at the same moment.
            let apart = Millis::new(found.draw.checked_rem(1_000).unwrap_or(0));
            let until = now.after(found.retry_after).after(apart);
            if !found.busy.is_empty() && until <= found.submitted.after(patience.queue) {
                for peer in std::mem::take(&mut found.busy) {
                    found.tried.remove(&peer);
                }
                found.retry_after = Millis::new(0);
                self.jobs.enter(job, Stage::Waiting { until }, &patience);
                return;
            }
        }
        self.fail(job, error, out);
    }

    /// Nothing was streamed yet, so that the next provider can begin anew. The user knows which
    /// tier has the job by now, and what the lost prompt cost counts towards the cap.
    fn start_over(
        &mut self,
        job: JobId,
        error: JobError,
        patience: &Patience,
        now: Timestamp,
        out: &mut Output,
    ) {
        let Some(found) = self.jobs.get_mut(job) else {
            return;
        };
        if let Stage::Running(running) = &found.stage {
            let spent = running.candidate.prices.cost(running.prompt, Tokens::ZERO);
            let spent = spent.unwrap_or(NanoTon::ZERO);
            let demand = &mut found.demand;
            demand.max_cost = demand.max_cost.map(|cap| cap.saturating_sub(spent));
            demand.minimum_tier = demand.minimum_tier.max(running.tier);
        }
        found.last_error = Some(error);
        self.jobs.enter(job, Stage::Looking { until: now }, patience);
        self.advance(job, now, out);
    }

    pub(super) fn interrupt(
        &mut self,
        job: JobId,
        provider: NodeId,
        now: Timestamp,
        out: &mut Output,
    ) {
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

    pub(super) fn fail(&mut self, job: JobId, error: JobError, out: &mut Output) {
        self.forget(job);
        inform(out, job, JobNews::Failed(error));
    }

    pub(super) fn forget(&mut self, job: JobId) {
        let Some(found) = self.jobs.remove(job) else {
            return;
        };
        if let Some(candidate) = found.candidate()
            && let Some(payer) = self.funds.payer(candidate.provider)
        {
            payer.abandon(job);
        }
    }
}
