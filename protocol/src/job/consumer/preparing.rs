//! A consumer's job before it is sent: choose a provider, get a session, get a channel.
//!
//! Owns: the order of these steps. No money is set aside before the evidence is accepted, and no
//! prompt is sent before the money is.
//! Must not: know what happens after the request is out.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{Consumer, Session, Stage, ledger_error};
use crate::attest::Tier;
use crate::channel::funds::Readiness;
use crate::identity::{JobId, NodeId};
use crate::job::{JobError, ProviderRefusal};
use crate::offer::Offer;
use crate::output::{Effect, Output};
use crate::reputation::Experience;
use crate::selection::{self, Candidate, Retry, View};
use crate::units::{Millis, NanoTon, Timestamp};

impl Consumer {
    /// Moves every job on that waits for its session or channel: the ledger said something, and
    /// allocations are made one at a time.
    pub fn advance_all(&mut self, now: Timestamp, out: &mut Output) {
        for job in self.jobs.preparing(None) {
            self.prepare(job, now, out);
        }
    }

    /// Moves the jobs on that wait for their session or channel with this provider.
    pub fn advance_with(&mut self, provider: NodeId, now: Timestamp, out: &mut Output) {
        for job in self.jobs.with(provider) {
            self.prepare(job, now, out);
        }
    }

    /// Moves a job on as far as it goes: choose, session, channel, request.
    pub(super) fn advance(&mut self, job: JobId, now: Timestamp, out: &mut Output) {
        let Some(found) = self.jobs.get(job) else {
            return;
        };
        if let Stage::Looking { until } = found.stage {
            let asked = found.demand.minimum_tier;
            let mut avoid = Cow::Borrowed(&found.tried);
            let unproved: Vec<_> = self.unproved.at(asked, now).collect();
            if !unproved.is_empty() {
                avoid.to_mut().extend(unproved.iter().map(|(peer, _)| *peer));
            }
            let view = View {
                demand: &found.demand,
                book: &self.book,
                reputation: &self.reputation,
                funds: Some(&self.funds),
                avoid: &avoid,
                under_way: self.jobs.chosen(),
                lost: found.earlier.providers(),
                draw: found.draw,
                now,
            };
            let ranked = selection::rank(&*self.policy, &view);
            match ranked.map(|ranked| ranked.into_iter().next()) {
                Ok(Some(candidate)) => {
                    let stage = Stage::Preparing { candidate, since: now };
                    self.jobs.enter(job, stage, &self.policy.patience());
                }
                // The tables of a model and of each tier fill one by one.
                Err(JobError::NoProvider { .. } | JobError::TierNotAvailable { .. })
                    if until > now =>
                {
                    return;
                }
                Ok(None) | Err(_) if found.last_error.is_some() => {
                    let found = self.jobs.get_mut(job);
                    let error = found.and_then(|found| found.last_error.take());
                    if let Some(error) = error {
                        self.give_up(job, error, now, out);
                    }
                    return;
                }
                Ok(None) => return,
                Err(error) => {
                    let error = self.explained(job, error, now);
                    self.fail(job, error, out);
                    return;
                }
            }
        }
        self.prepare(job, now, out);
    }

    /// The vault has too little for a new channel. A provider with one that can pay is as good, and
    /// nobody is to blame.
    fn unaffordable(
        &mut self,
        job: JobId,
        peer: NodeId,
        error: JobError,
        now: Timestamp,
        out: &mut Output,
    ) {
        let patience = self.policy.patience();
        let funded: BTreeSet<_> = self.funds.payers().map(|(provider, _)| *provider).collect();
        let Some(found) = self.jobs.get_mut(job) else {
            return;
        };
        found.tried.insert(peer);
        // Whoever has no channel would end here too.
        let unfunded = self.book.offers_for(found.demand.model).map(|(offer, _)| offer.provider);
        found.tried.extend(unfunded.filter(|provider| !funded.contains(provider)));
        found.last_error = Some(error.clone());
        if patience.retry == Retry::Never {
            self.fail(job, error, out);
            return;
        }
        self.jobs.enter(job, Stage::Looking { until: now }, &patience);
        self.advance(job, now, out);
    }

    pub(super) fn prepare(&mut self, job: JobId, now: Timestamp, out: &mut Output) {
        let Some(found) = self.jobs.get(job) else {
            return;
        };
        let Stage::Preparing { candidate, .. } = &found.stage else {
            return;
        };
        let candidate = candidate.clone();
        let peer = candidate.provider;
        let minimum_tier = found.demand.minimum_tier;
        match self.sessions.get(&peer) {
            Some(Session::Opening(_) | Session::Raising(_)) => return,
            Some(Session::Ready { proved, asked }) if proved.tier < *asked => {
                let (asked, best) = (*asked, proved.tier);
                let error = JobError::TierNotAvailable { asked, best };
                self.attempt_failed(job, error, Experience::Misbehaved, now, out);
                return;
            }
            Some(Session::Ready { proved, .. }) if proved.tier < minimum_tier => {
                self.raise(job, peer, minimum_tier, now, out);
                return;
            }
            Some(Session::Ready { proved, .. }) => {
                let offered = self.book.offer(peer).map(Offer::manifest);
                if offered.is_none() || proved.manifest != offered {
                    let reason = "its session was attested for another model".to_owned();
                    let error = JobError::AttestationRefused { provider: peer, reason };
                    self.attempt_failed(job, error, Experience::Misbehaved, now, out);
                    return;
                }
            }
            None => {
                if !self.still_offers(job, peer, minimum_tier, now, out) {
                    return;
                }
                self.sessions.insert(peer, Session::Opening(minimum_tier));
                out.effects.push(Effect::OpenSession { peer, minimum_tier });
                return;
            }
        }
        match self.funds.prepare(peer, candidate.payout, candidate.worst_cost, now, out) {
            Readiness::Waiting => return,
            Readiness::Failed(failure) => {
                self.unaffordable(job, peer, ledger_error(&failure), now, out);
                return;
            }
            Readiness::Unseen => {
                let (headroom, needed) = (NanoTon::ZERO, candidate.worst_cost);
                let error = JobError::Refused(ProviderRefusal::NoHeadroom { headroom, needed });
                self.attempt_failed(job, error, Experience::Failed, now, out);
                return;
            }
            Readiness::Ready => {}
        }
        let payer = self.funds.payer(peer);
        let reserved = payer.map(|payer| payer.reserve(job, candidate.worst_cost));
        if !matches!(reserved, Some(Ok(()))) {
            let retry_after = Millis::from_secs(1);
            let error = JobError::Refused(ProviderRefusal::Busy { retry_after });
            self.attempt_failed(job, error, Experience::Refused, now, out);
            return;
        }
        let Candidate { offer_sequence, max_completion, .. } = candidate;
        out.effects.push(Effect::SendJob { peer, job, offer_sequence, max_completion });
        self.jobs.enter(job, Stage::Requested { candidate, sent: now }, &self.policy.patience());
    }

    /// The session was not asked to prove as much as this job needs: another takes its place, once no
    /// job runs in it. Until then the provider is as good as busy.
    fn raise(
        &mut self,
        job: JobId,
        peer: NodeId,
        minimum_tier: Tier,
        now: Timestamp,
        out: &mut Output,
    ) {
        if !self.still_offers(job, peer, minimum_tier, now, out) {
            return;
        }
        let runs = |job: &JobId| {
            self.jobs.get(*job).is_some_and(|found| match found.stage {
                Stage::Requested { .. } | Stage::Running(_) => true,
                Stage::Looking { .. }
                | Stage::Waiting { .. }
                | Stage::Preparing { .. }
                | Stage::Broken(_) => false,
            })
        };
        if self.jobs.with(peer).iter().any(runs) {
            let retry_after = Millis::from_secs(1);
            let error = JobError::Refused(ProviderRefusal::Busy { retry_after });
            // Nobody asked it: there is nothing to remember.
            self.attempt_failed(job, error, None, now, out);
            return;
        }
        self.funds.session_closed(peer);
        self.sessions.insert(peer, Session::Raising(minimum_tier));
        out.effects.push(Effect::OpenSession { peer, minimum_tier });
    }

    /// Whether the provider offers this tier still. Its offer may have changed since the job chose
    /// it: who says honestly that it proves less now is not dialled only to be refused.
    fn still_offers(
        &mut self,
        job: JobId,
        peer: NodeId,
        asked: Tier,
        now: Timestamp,
        out: &mut Output,
    ) -> bool {
        let error = match self.book.offer(peer).map(|offer| offer.tier) {
            Some(offered) if offered >= asked => return true,
            Some(best) => JobError::TierNotAvailable { asked, best },
            None => JobError::Refused(ProviderRefusal::StaleOffer),
        };
        self.attempt_failed(job, error, Experience::Refused, now, out);
        false
    }

    /// There may be a provider of what the job needs that did not prove it lately: then that is why
    /// there is none.
    fn explained(&self, job: JobId, error: JobError, now: Timestamp) -> JobError {
        let missing =
            matches!(error, JobError::NoProvider { .. } | JobError::TierNotAvailable { .. });
        let Some(demand) = self.jobs.get(job).map(|found| &found.demand).filter(|_| missing) else {
            return error;
        };
        let asked = demand.minimum_tier;
        let offers = |peer: NodeId| {
            let offer = self.book.offer(peer).filter(|offer| offer.tier >= asked);
            offer.is_some_and(|offer| offer.model(demand.model).is_some())
        };
        let refused = self.unproved.at(asked, now).find(|(peer, _)| offers(*peer));
        refused.map_or(error, |(provider, reason)| {
            let reason = reason.to_owned();
            JobError::AttestationRefused { provider, reason }
        })
    }
}
