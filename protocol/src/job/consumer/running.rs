//! A consumer's running job: text arrives, is counted, paid and receipted.
//!
//! Owns: what a provider's message may do to a running job. Must not: choose a provider.

use super::resuming::End;
use super::{Consumer, Job, Proved, Running, Session, Stage, experience, inform};
use crate::identity::{JobId, NodeId};
use crate::job::{FinishReason, JobError, Usage, meter};
use crate::limits;
use crate::output::{Effect, JobNews, Output};
use crate::receipt::VerifiedReceipt;
use crate::record::{Logged, Posting, Purpose, Record, Standing, StoredReceipt};
use crate::reputation::Experience;
use crate::selection::{Demand, Patience};
use crate::units::{Millis, NanoTon, Timestamp, Tokens};
use crate::wire::SessionMessage;

impl Running {
    /// How long it may say nothing. Of what pace its first few tokens are is not known.
    pub(super) fn silence(&self, first: Timestamp, patience: &Patience) -> Millis {
        let further = u64::from(self.received.get().saturating_sub(1));
        if self.received < limits::JOB_PACE {
            return patience.silence.max(patience.first_token);
        }
        let took = self.last.since(first).get().saturating_mul(limits::SILENT_TOKENS);
        patience.silence.max(Millis::new(took.checked_div(further).unwrap_or(0)))
    }

    /// The job's line in the accounts.
    pub(super) fn posting(&self, job: JobId, demand: &Demand, standing: Standing) -> Posting {
        Posting {
            began: self.requested,
            provided: false,
            purpose: Purpose::Job,
            job,
            peer: self.candidate.provider,
            channel: self.channel,
            model: demand.model,
            account: demand.account,
            usage: Usage { prompt: self.prompt, completion: self.received },
            amount: self.promised,
            standing,
        }
    }
}

impl Consumer {
    /// A provider took the job: its count of the prompt is checked, and the prompt is paid.
    pub fn started(
        &mut self,
        peer: NodeId,
        job: JobId,
        prompt: Tokens,
        now: Timestamp,
        out: &mut Output,
    ) {
        let Some(found) = self.jobs.get_mut(job) else {
            return;
        };
        let Stage::Requested { candidate, sent } = &found.stage else {
            return;
        };
        if candidate.provider != peer {
            return;
        }
        if prompt > found.demand.prompt_at_most {
            self.broken(
                peer,
                job,
                "it counts more prompt tokens than the prompt has bytes",
                now,
                out,
            );
            return;
        }
        let proved = match self.sessions.get(&peer) {
            Some(Session::Ready { proved, .. }) => *proved,
            Some(Session::Opening(_) | Session::Raising(_)) | None => return,
        };
        let (candidate, requested) = (candidate.clone(), *sent);
        let prices = candidate.prices;
        let Some(payer) = self.funds.payer(peer) else {
            return;
        };
        payer.risk(job, meter::step_cost(prices, candidate.max_completion));
        let (channel, promised) = (payer.channel(), NanoTon::ZERO);
        let stage = Stage::Running(Running {
            candidate,
            prompt,
            received: Tokens::ZERO,
            paid_for: Tokens::ZERO,
            vouchers: 0,
            channel,
            promised,
            requested,
            started: now,
            proved: Box::new(proved),
            first_token: None,
            last: now,
            progress: (now, Tokens::ZERO),
            cancelled: false,
            reader_waits: false,
        });
        self.jobs.enter(job, stage, &self.policy.patience());
        let Proved { tier, simulated, .. } = proved;
        inform(out, job, JobNews::Started { provider: peer, tier, simulated, prices, prompt });
        self.pay(job, now, out);
    }

    /// Text reached its reader: half a step of it is paid at a time. False if the next time-out is what
    /// it was.
    pub fn delivered(
        &mut self,
        job: JobId,
        completion: Tokens,
        now: Timestamp,
        out: &mut Output,
    ) -> bool {
        let Some(Job { stage, demand, .. }) = self.jobs.get_mut(job) else {
            return false;
        };
        let running = match stage {
            Stage::Running(running) => running,
            // Its receipt may follow, and states this too.
            Stage::Broken(broken) => {
                broken.running.received = broken.running.received.max(completion);
                return false;
            }
            Stage::Looking { .. }
            | Stage::Waiting { .. }
            | Stage::Preparing { .. }
            | Stage::Requested { .. } => return false,
        };
        let first = running.first_token.is_none();
        running.first_token.get_or_insert(now);
        running.received = running.received.max(completion);
        let waited = std::mem::replace(&mut running.reader_waits, false);
        running.last = now;
        let fresh = running.received.saturating_sub(running.progress.1);
        if first || fresh >= limits::JOB_PACE {
            running.progress = (now, running.received);
        }
        let (peer, received) = (running.candidate.provider, running.received);
        let too_much = received > running.candidate.max_completion;
        let pays = !running.cancelled && meter::payment_due(received, running.paid_for);
        // A long answer at a slow pace is known long before its end.
        let pace = (demand.model, now.since(running.first_token.unwrap_or(now)));
        // What counts as silence is shorter the faster the answer comes.
        if first || waited || pays {
            self.jobs.reschedule(job, &self.policy.patience());
        }
        if too_much {
            self.broken(peer, job, "it sends more tokens than were asked for", now, out);
        } else if pays {
            let (model, further) = pace;
            self.reputation.pace(peer, model, further, received, now);
            self.pay(job, now, out);
        }
        first || waited || too_much || pays
    }

    /// Its reader takes no text: that none is delivered says nothing about its provider.
    pub fn reader_waits(&mut self, job: JobId) {
        if let Some(Job { stage: Stage::Running(running), .. }) = self.jobs.get_mut(job) {
            running.reader_waits = true;
        }
    }

    fn pay(&mut self, job: JobId, now: Timestamp, out: &mut Output) {
        let Some(Job { stage: Stage::Running(running), .. }) = self.jobs.get(job) else {
            return;
        };
        let (peer, payout) = (running.candidate.provider, running.candidate.payout);
        if self.promise_received(job, out) {
            self.funds.grow_if_low(peer, payout, out);
        } else {
            self.broken(peer, job, "it served more than was reserved for the job", now, out);
        }
    }

    /// Promises the cost of what was received. False when that is more than was reserved.
    pub(super) fn promise_received(&mut self, job: JobId, out: &mut Output) -> bool {
        let Some(Job { stage: Stage::Running(running), demand, .. }) = self.jobs.get_mut(job)
        else {
            return false;
        };
        let peer = running.candidate.provider;
        let cost = running.candidate.prices.cost(running.prompt, running.received);
        let payer = self.funds.payer(peer);
        let payment = payer.zip(cost).and_then(|(payer, cost)| payer.pay(job, cost).ok());
        let Some(payment) = payment else {
            return false;
        };
        running.paid_for = running.received;
        running.promised = payment.job.total;
        running.vouchers = running.vouchers.saturating_add(1);
        let posting = running.posting(job, demand, Standing::Running);
        out.persist.push(Record::Payer(payment.record));
        out.persist.push(Record::Posting(posting));
        let (voucher, total) = (payment.voucher, Some(payment.job));
        let message = SessionMessage::Payment { voucher, total };
        out.effects.push(Effect::Send { peer, message });
        true
    }

    /// The receipt came; its signature and commitments hold. Its numbers are checked here, then the
    /// last voucher takes it into the channel's log.
    pub fn finished(
        &mut self,
        peer: NodeId,
        job: JobId,
        receipt: &VerifiedReceipt,
        salt: [u8; 32],
        now: Timestamp,
        out: &mut Output,
    ) {
        self.mend_if_lost(job, peer);
        let Some(found) = self.jobs.get_mut(job) else {
            return;
        };
        let Job { stage: Stage::Running(running), demand, earlier, tried, .. } = found else {
            return;
        };
        if running.candidate.provider != peer {
            return;
        }
        let stated = receipt.receipt();
        let cost = running.candidate.prices.cost(running.prompt, running.received);
        let channel = self.funds.payer(peer).map(|payer| payer.channel());
        let proved = *running.proved;
        let holds = stated.provider == peer
            && stated.job == job
            && stated.model == demand.model
            && stated.usage.prompt == running.prompt
            && stated.usage.completion == running.received
            && Some(stated.price) == cost
            && stated.tier == proved.tier
            && stated.evidence_digest == proved.evidence_digest
            && channel.is_some_and(|it| it.vault == stated.vault && it.epoch == stated.epoch);
        let payer = self.funds.payer(peer).filter(|_| holds);
        let hash = receipt.hash();
        let payment = payer.and_then(|payer| payer.finish(job, stated.price, hash).ok());
        let Some(payment) = payment else {
            self.broken(peer, job, "its receipt does not state what was received", now, out);
            return;
        };
        running.promised = stated.price;
        let posting = running.posting(job, demand, Standing::Receipted(hash));
        // The log has just taken it, as its last.
        let index = payment.record.receipts().count().saturating_sub(1);
        let logged = Logged { channel: running.channel, index, receipt: hash };
        out.persist.push(Record::Payer(payment.record));
        out.persist.push(Record::Logged(logged));
        out.persist.push(Record::Posting(posting));
        let receipt = StoredReceipt { receipt: receipt.signed().clone(), salt, provided: false };
        out.persist.push(Record::Receipt(receipt));
        let message =
            SessionMessage::Payment { voucher: payment.voucher, total: Some(payment.job) };
        out.effects.push(Effect::Send { peer, message });
        running.vouchers = running.vouchers.saturating_add(1);
        let whole = earlier.with(stated.usage, stated.price, running.vouchers);
        let (usage, cost, vouchers) = whole;
        let (reason, receipt) = (stated.finish, Some(hash));
        let news = JobNews::Finished { reason, usage, cost, receipt, vouchers };
        let experience = experience(running, stated.finish, now);
        let took = now.since(running.requested);
        self.reputation.record(peer, demand.model, experience, took, now);
        let goes_on = match stated.finish {
            FinishReason::Failed | FinishReason::Draining => true,
            // It was left for its silence, and not by the reader.
            FinishReason::Cancelled => !running.cancelled,
            FinishReason::Stop | FinishReason::Length | FinishReason::Unpaid => false,
        };
        if goes_on {
            tried.insert(peer);
            self.break_off(job, End::Receipted(news), now, out);
        } else {
            inform(out, job, news);
            self.jobs.remove(job);
        }
    }

    /// A provider broke a rule in this job: it is paid no more. Only the job's own provider can: one
    /// that was tried before still knows its id.
    pub fn broken(
        &mut self,
        peer: NodeId,
        job: JobId,
        rule: &'static str,
        now: Timestamp,
        out: &mut Output,
    ) {
        let chosen = self.jobs.get(job).and_then(Job::candidate);
        if chosen.is_none_or(|candidate| candidate.provider != peer) {
            return;
        }
        let message = SessionMessage::JobCancel { job };
        out.effects.push(Effect::Send { peer, message });
        let error = JobError::ProviderMisbehaved { provider: peer, reason: rule };
        self.attempt_failed(job, error, Experience::Misbehaved, now, out);
    }
}
