//! A consumer's job after an attempt that failed: another provider, a wait, or its end.
//!
//! Owns: how many are tried, which failures count, and what each is remembered as.
//! Must not: choose the next provider; `preparing` does.

use super::resuming::End;
use super::{Consumer, LOOK_FOR, Stage, inform};
use crate::identity::JobId;
use crate::job::{JobError, ProviderRefusal};
use crate::output::{JobNews, Output};
use crate::reputation::Experience;
use crate::selection::Retry;
use crate::units::{Millis, Timestamp, Tokens};

impl Consumer {
    /// This provider will not serve the job, or no longer: the next one is tried. Without an
    /// experience it was not even asked.
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
        if let Stage::Broken(broken) = &mut found.stage {
            // It is lost already; what it does on top of that still counts against it.
            if matches!(error, JobError::ProviderMisbehaved { .. }) && broken.accuse(error) {
                let took = now.since(broken.running.requested);
                let experience = Experience::Misbehaved;
                self.reputation.record(peer, found.demand.model, experience, took, now);
            }
            return;
        }
        let took = found.took(now);
        let brought_text =
            matches!(&found.stage, Stage::Running(running) if running.received > Tokens::ZERO);
        if let Some(experience) = experience.into() {
            let broke_off = brought_text && experience == Experience::Failed;
            let experience = if broke_off { Experience::BrokeOff } else { experience };
            self.reputation.record(peer, found.demand.model, experience, took, now);
        }
        found.tried.insert(peer);
        if matches!(found.stage, Stage::Running(_)) {
            let end = if matches!(error, JobError::Unreachable { .. }) {
                End::Lost(JobError::ProviderLost { provider: peer })
            } else {
                End::Broke(error)
            };
            self.break_off(job, end, now, out);
            return;
        }
        let patience = self.policy.patience();
        // A provider that proves nothing has taken a session's time, and neither prompt nor money.
        // A job's attempts are for those who got it, or a few liars would be the end of it; its time
        // is its bound.
        let unproved = matches!(
            error,
            JobError::AttestationRefused { .. } | JobError::TierNotAvailable { .. }
        );
        found.unproved = found.unproved.saturating_add(usize::from(unproved));
        let latest = found.since.after(patience.queue);
        let again = match patience.retry {
            Retry::Never => false,
            Retry::BeforeText | Retry::Resume if unproved => now < latest,
            Retry::BeforeText | Retry::Resume => found.attempts() < patience.attempts,
        };
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
            if !found.busy.is_empty() && until <= found.since.after(patience.queue) {
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
