//! A consumer's sessions: what becomes of its jobs when one is ready, fails or ends.
//!
//! Owns: which jobs a failed session takes along, and how its provider is remembered.
//! Must not: open a session; `preparing` does.

use super::{Consumer, Session};
use crate::attest::Tier;
use crate::identity::{JobId, NodeId};
use crate::input::{Proved, SessionFailure};
use crate::job::{JobError, ProviderRefusal};
use crate::output::{Effect, Output};
use crate::reputation::Experience;
use crate::units::{Millis, Timestamp};

impl Consumer {
    /// A session is ready.
    pub fn session_ready(
        &mut self,
        peer: NodeId,
        proved: Proved,
        now: Timestamp,
        out: &mut Output,
    ) {
        let asked = match self.sessions.get(&peer) {
            Some(
                Session::Opening(asked) | Session::Raising(asked) | Session::Ready { asked, .. },
            ) => *asked,
            None => proved.tier,
        };
        self.sessions.insert(peer, Session::Ready { proved, asked });
        self.advance_with(peer, now, out);
    }

    /// A session did not come about: the jobs that needed it go elsewhere. Those that need less of
    /// the provider than this session was to prove ask it for that.
    pub fn session_failed(
        &mut self,
        peer: NodeId,
        failure: &SessionFailure,
        now: Timestamp,
        out: &mut Output,
    ) {
        let (asked, raised) = match self.sessions.remove(&peer) {
            Some(Session::Opening(asked)) => (asked, false),
            Some(Session::Raising(asked)) => (asked, true),
            Some(Session::Ready { .. }) | None => (Tier::Open, false),
        };
        let mut content = self.content_with_less(peer, asked);
        let refused = match failure {
            SessionFailure::Refused { reason } => {
                self.evidence_refused(peer, (asked, raised), reason, &mut content, now, out)
            }
            SessionFailure::Unreachable { .. } | SessionFailure::Busy => Experience::Refused,
        };
        let (error, experience) = match failure {
            SessionFailure::Unreachable { reason } => {
                (JobError::Unreachable { reason: reason.clone() }, Experience::Failed)
            }
            SessionFailure::Busy => {
                let retry_after = Millis::from_secs(1);
                let busy = ProviderRefusal::Busy { retry_after };
                (JobError::Refused(busy), Experience::Refused)
            }
            SessionFailure::Refused { reason } => {
                let reason = reason.clone();
                let error = JobError::AttestationRefused { provider: peer, reason };
                (error, refused)
            }
        };
        for job in self.jobs.with(peer) {
            if !content.contains(&job) {
                self.attempt_failed(job, error.clone(), experience, now, out);
            }
        }
        for job in content {
            self.prepare(job, now, out);
        }
    }

    /// The jobs that wait for a session with this provider and need less than `asked` of it; those
    /// that need most come first, for what serves them serves all.
    fn content_with_less(&self, peer: NodeId, asked: Tier) -> Vec<JobId> {
        let needs = |job: &JobId| self.jobs.get(*job).map(|found| found.demand.minimum_tier);
        let mut content = self.jobs.preparing(Some(peer));
        content.retain(|job| needs(job).is_some_and(|tier| tier < asked));
        content.sort_by_key(|job| std::cmp::Reverse(needs(job)));
        content
    }

    /// What a provider is remembered as whose evidence was refused for the tier `asked`, in the place
    /// of a session that served or not. Nobody is `content` with one that proves nothing.
    fn evidence_refused(
        &mut self,
        peer: NodeId,
        (asked, raised): (Tier, bool),
        reason: &str,
        content: &mut Vec<JobId>,
        now: Timestamp,
        out: &mut Output,
    ) -> Experience {
        if self.book.offer(peer).is_some_and(|offer| offer.tier < asked) {
            // It has said so itself meanwhile.
            return Experience::Refused;
        }
        if asked > Tier::Attested && (raised || !content.is_empty()) {
            // It serves in a lower tier, or is about to be asked for one.
            self.unproved.remember(peer, asked, reason, now);
            return Experience::Failed;
        }
        // Offers cost nothing: whoever makes many that prove nothing would fill what we know.
        content.clear();
        self.book.remove(peer);
        out.effects.push(Effect::Avoid { peer });
        Experience::Misbehaved
    }

    /// A session is over: running jobs are lost, the others go elsewhere.
    pub fn session_closed(&mut self, peer: NodeId, now: Timestamp, out: &mut Output) {
        if matches!(self.sessions.get(&peer), Some(Session::Opening(_) | Session::Raising(_))) {
            // The one that is being replaced: nothing ran in it.
            return;
        }
        self.sessions.remove(&peer);
        self.funds.session_closed(peer);
        let reason = "the provider closed the session".to_owned();
        let error = JobError::Unreachable { reason };
        self.leave_provider(peer, &error, Experience::Failed, now, out);
    }

    fn leave_provider(
        &mut self,
        peer: NodeId,
        error: &JobError,
        experience: Experience,
        now: Timestamp,
        out: &mut Output,
    ) {
        for job in self.jobs.with(peer) {
            self.attempt_failed(job, error.clone(), experience, now, out);
        }
    }
}
