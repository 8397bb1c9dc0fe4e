//! The provider's jobs: from a request at the door to a receipt and its payment.
//!
//! Owns: admission, credit, receipts, its own offer, and when vouchers are redeemed.
//! Must not: see text or reach the engine, a session or the ledger; it says what to do.
//! Invariant: an engine is never granted more than what is paid and one step.

mod channels;
#[cfg(test)]
mod tests;
pub mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::attest::Tier;
use crate::channel::{ChannelId, Payee, PayeeState};
use crate::deadlines::{Deadlines, Entry, earlier};
use crate::flat::{FlatMap, Rest as _};
use crate::identity::{JobId, NodeId, NodeKey, ReceiptHash, TonAddress};
use crate::input::{Proved, RequestedJob};
use crate::job::meter::step_cost as risk;
use crate::job::{FinishReason, ProviderRefusal, RunningJob, Usage};
use crate::limits;
use crate::offer::{Load, ModelOffer, Offer};
use crate::output::{Effect, EngineCommand, Output};
use crate::places;
use crate::pricing::{self, Level, Meter};
use crate::receipt::Receipt;
use crate::record::{Account, Posting, Purpose, Record, Standing, StoredReceipt};
use crate::units::{Millis, NanoTon, Prices, Timestamp, Tokens};
use crate::wire::SessionMessage;

/// An offer is renewed when half of its life is over.
const RENEW_AFTER: Millis = Millis::from_secs(300);
/// A change of load is published at most this often: load flaps, and consumers need a trend. With
/// the life of an offer this also bounds how many offers are honoured at a time.
const PUBLISH_EVERY: Millis = Millis::from_secs(5);
/// When all places are taken, a consumer hears to come back after this time.
const RETRY_AFTER: Millis = Millis::from_secs(2);

/// What an operator decides about providing.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// Signs offers and receipts.
    pub key: NodeKey,
    /// TON's global id of the network that payments are on.
    pub network: i32,
    /// What is served, at which prices.
    pub models: Vec<ModelOffer>,
    /// What computes, in which version.
    pub engine: String,
    /// The tier that sessions prove.
    pub tier: Tier,
    /// Digest of the evidence that sessions show; `None` in tier `open`.
    pub evidence_digest: Option<[u8; 32]>,
    /// Where settlements go.
    pub payout: TonAddress,
    /// Region hint; may be empty.
    pub region: String,
    /// A channel is settled when this much is due.
    pub settle_threshold: NanoTon,
    /// How often channels are looked at on the ledger while something is due in them or their
    /// consumer is here. Well under the release delay, which is the time to notice a release in.
    pub watch_every: Millis,
}

impl ProviderConfig {
    /// Digest of what is served; as [`Offer::manifest`].
    pub fn manifest(&self) -> [u8; 32] {
        crate::offer::manifest(&self.engine, &self.models)
    }

    fn offer(&self, sequence: u64, load: Load, now: Timestamp) -> Offer {
        Offer {
            provider: self.key.id(),
            sequence,
            issued: now,
            expires: now.after(limits::OFFER_LIFETIME),
            network: self.network,
            models: self.models.clone(),
            tier: self.tier,
            evidence_digest: self.evidence_digest.filter(|_| self.tier > Tier::Open),
            payout: self.payout,
            load,
            region: self.region.clone(),
            engine: self.engine.clone(),
        }
    }
}

#[derive(Debug)]
struct Peer {
    proved: Proved,
    /// The vault that pays; it has proved to hold it.
    vault: Option<TonAddress>,
    /// Since when greetings are counted, and how many made us read the ledger.
    greetings: (Timestamp, u32),
    /// The vault that it names and its proof, while the ledger is asked about it. A further
    /// greeting meanwhile is dropped.
    asked: Option<Box<(TonAddress, [u8; 64])>>,
}

#[derive(Debug)]
enum Stage {
    /// The engine counts the prompt.
    Admitting,
    /// Tokens may flow up to the grant; `granted` is none until the prompt is paid.
    Running { prompt: Tokens, granted: Option<Tokens>, generated: Tokens, since: Timestamp },
    /// The receipt is out; the last voucher is awaited.
    Closing { price: NanoTon, usage: Usage, receipt: ReceiptHash, since: Timestamp },
}

/// In the order of its declaration: what every piece of text changes comes first, in one cache line.
#[derive(Debug)]
#[repr(C)]
struct Serving {
    stage: Stage,
    due: Entry,
    prices: Prices,
    vault: TonAddress,
    started: Timestamp,
    request: RequestedJob,
}

impl Serving {
    /// The job's line in the accounts.
    fn posting(
        &self,
        (peer, job): (NodeId, JobId),
        channel: ChannelId,
        amount: NanoTon,
        over: bool,
    ) -> Posting {
        let (usage, standing) = match self.stage {
            Stage::Running { prompt, generated, .. } => {
                (Usage { prompt, completion: generated }, Standing::Running)
            }
            Stage::Closing { usage, receipt, .. } => (usage, Standing::Receipted(receipt)),
            Stage::Admitting => (Usage::default(), Standing::Running),
        };
        let ended = over && standing == Standing::Running;
        Posting {
            began: self.started,
            provided: true,
            purpose: Purpose::Job,
            job,
            peer,
            channel,
            model: self.request.model,
            account: Account::default(),
            usage,
            amount,
            standing: if ended { Standing::Interrupted } else { standing },
        }
    }
}

/// Everything that a node does as a provider. In the order of its declaration: what every input reads
/// comes first and shares its cache lines, which is a part of the time of whoever has many providers.
#[derive(Debug)]
#[repr(C)]
pub struct Provider {
    jobs: FlatMap<(NodeId, JobId), Box<Serving>>,
    deadlines: Deadlines<(NodeId, JobId)>,
    channels: BTreeMap<TonAddress, Box<Payee>>,
    pricing: Arc<dyn pricing::Policy>,
    published: Option<Timestamp>,
    reviewed: Timestamp,
    watched: Timestamp,
    load: Load,
    /// The load or the prices have changed since it was published.
    stale: bool,
    config: ProviderConfig,
    /// Terms of every offer that has not ended: they hold for jobs that refer to them.
    offers: BTreeMap<u64, Arc<[ModelOffer]>>,
    level: Level,
    /// How busy it was since the level was looked at; `None` before the first offer.
    busy: Option<Meter>,
    peers: FlatMap<NodeId, Box<Peer>>,
    /// Who waits for which vault to be read.
    asking: BTreeSet<(TonAddress, NodeId)>,
    /// What the jobs of each vault may end up owing: a step each.
    at_risk: BTreeMap<TonAddress, NanoTon>,
    settling: BTreeSet<TonAddress>,
    /// Vaults that are read again because a voucher was of an epoch that is not known here.
    rereading: BTreeSet<TonAddress>,
}

impl Provider {
    /// Continues with what the store remembered; of each vault the latest epoch counts.
    pub fn new(config: ProviderConfig, restored: Vec<PayeeState>) -> Self {
        let mut channels: BTreeMap<TonAddress, Box<Payee>> = BTreeMap::new();
        for state in restored {
            let ChannelId { vault, epoch, .. } = state.channel();
            let newer = channels.get(&vault).is_none_or(|known| known.channel().epoch < epoch);
            if newer {
                channels.insert(vault, Box::new(Payee::restore(state)));
            }
        }
        Self {
            config,
            offers: BTreeMap::new(),
            load: Load::Idle,
            published: None,
            stale: false,
            pricing: Arc::new(pricing::Fixed),
            level: Level::OWNER,
            busy: None,
            reviewed: Timestamp::EPOCH,
            watched: Timestamp::EPOCH,
            peers: FlatMap::new(),
            asking: BTreeSet::new(),
            channels,
            jobs: FlatMap::new(),
            at_risk: BTreeMap::new(),
            deadlines: Deadlines::default(),
            settling: BTreeSet::new(),
            rereading: BTreeSet::new(),
        }
    }

    /// The same, with prices that move by this policy instead of standing still.
    #[must_use]
    pub fn with_pricing(mut self, pricing: Arc<dyn pricing::Policy>) -> Self {
        self.pricing = pricing;
        self
    }

    /// Jobs that are not over.
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// The tier that sessions prove, for displays.
    pub const fn tier(&self) -> Tier {
        self.config.tier
    }

    /// The jobs that run, for displays.
    pub fn running(&self) -> impl Iterator<Item = RunningJob> {
        self.jobs.iter().filter_map(|((peer, job), serving)| match serving.stage {
            Stage::Running { prompt, generated, .. } => Some(RunningJob {
                job: *job,
                peer: *peer,
                model: serving.request.model,
                completion: generated,
                cost: serving.prices.cost(prompt, generated)?,
            }),
            Stage::Admitting | Stage::Closing { .. } => None,
        })
    }

    /// See [`crate::Node::places`].
    pub(crate) fn places(&self, step: u8, name: &mut impl FnMut(*const u8, usize)) {
        match step {
            0 => {
                places::name(&self.jobs, name);
            }
            1 => places::name_list(self.jobs.entries(), name),
            _ => {
                for serving in self.jobs.values().take(places::ENTRIES) {
                    places::name(&serving.stage, name);
                }
            }
        }
    }

    /// What a job that is not over costs, for displays and checks.
    pub fn terms(&self, peer: NodeId, job: JobId) -> Option<Prices> {
        self.jobs.get(&(peer, job)).map(|serving| serving.prices)
    }

    /// How full it says that it is, for displays.
    pub const fn load(&self) -> Load {
        self.load
    }

    /// What its newest offer asks for its first model, for displays.
    pub fn prices(&self) -> Option<Prices> {
        let (_, newest) = self.offers.last_key_value()?;
        newest.first().map(|model| model.prices)
    }

    /// Its newest offer, as it was published, for displays.
    pub fn newest_offer(&self) -> Option<Offer> {
        let (sequence, terms) = self.offers.last_key_value()?;
        let offer = self.config.offer(*sequence, self.load, self.published?);
        Some(Offer { models: terms.to_vec(), ..offer })
    }

    /// Where its prices are in relation to the owner's, for displays.
    pub const fn price_level(&self) -> Level {
        self.level
    }

    /// All channels, for displays.
    pub fn payees(&self) -> impl Iterator<Item = &Payee> {
        self.channels.values().map(|payee| &**payee)
    }

    /// The channel that pays for a consumer's jobs, for displays and checks.
    pub fn payee_of(&self, peer: NodeId) -> Option<&Payee> {
        let vault = self.peers.get(&peer)?.vault?;
        self.channels.get(&vault).map(|payee| &**payee)
    }

    /// Settlements under way.
    pub fn settling(&self) -> usize {
        self.settling.len()
    }

    /// Makes a new offer of the current terms. Its sequence is the time, so that it grows across
    /// restarts without being stored.
    pub fn publish(&mut self, now: Timestamp, out: &mut Output) {
        let last = self.offers.last_key_value().map_or(0, |(sequence, _)| *sequence);
        let sequence = now.as_unix_millis().max(last.saturating_add(1));
        self.review_prices(now);
        let mut offer = self.config.offer(sequence, self.load, now);
        for offered in &mut offer.models {
            offered.prices = self.level.apply(offered.prices);
        }
        // Prices move seldom, so most offers share their terms with the one before.
        let last = self.offers.last_key_value().map(|(_, terms)| terms);
        let terms = last.filter(|terms| ***terms == *offer.models).map(Arc::clone);
        self.offers.insert(sequence, terms.unwrap_or_else(|| offer.models.as_slice().into()));
        let oldest = now.since(Timestamp::EPOCH).get().saturating_sub(limits::OFFER_LIFETIME.get());
        self.offers.retain(|sequence, _| *sequence >= oldest);
        self.published = Some(now);
        self.stale = false;
        out.effects.push(Effect::Publish(offer.sign(&self.config.key)));
    }

    /// Lets the level of prices follow how busy it was, when that is due; a moved level makes the
    /// published offer stale.
    fn review_prices(&mut self, now: Timestamp) {
        let busy = self.busy.get_or_insert_with(|| Meter::new(now));
        let due = self.pricing.review_every().map(|every| self.reviewed.after(every));
        if due.is_some_and(|at| at <= now) {
            let level = self.pricing.next(self.level, busy.read(now));
            self.reviewed = now;
            self.stale |= level != self.level;
            self.level = level;
        }
    }

    /// How many places are taken; a change of the load class is published.
    pub fn capacity(&mut self, taken: usize, places: usize, now: Timestamp, out: &mut Output) {
        if self.load == Load::Draining {
            return;
        }
        self.busy.get_or_insert_with(|| Meter::new(now)).taken(taken, places, now);
        let load = if taken >= places {
            Load::Full
        } else if taken.saturating_mul(2) > places {
            Load::Busy
        } else {
            Load::Idle
        };
        if load != self.load {
            self.load = load;
            self.stale = true;
            if self.publication() <= now {
                self.publish(now, out);
            }
        }
    }

    /// From now on sessions prove this tier. A lower one is published at once: nobody comes for what
    /// is no longer there. Sessions and jobs go on as they were proved.
    pub fn proves(&mut self, tier: Tier, now: Timestamp, out: &mut Output) {
        let before = std::mem::replace(&mut self.config.tier, tier);
        if before == tier || self.load == Load::Draining {
            return;
        }
        self.stale = true;
        if tier < before || self.publication() <= now {
            self.publish(now, out);
        }
    }

    /// When the next offer is due.
    fn publication(&self) -> Timestamp {
        let wait = if self.stale { PUBLISH_EVERY } else { RENEW_AFTER };
        self.published.map_or(Timestamp::EPOCH, |at| at.after(wait))
    }

    /// A consumer opened a session. It replaces an older one of the same consumer, whose jobs end:
    /// their text has lost its way.
    pub fn session_accepted(&mut self, peer: NodeId, proved: Proved, out: &mut Output) {
        if self.peers.contains_key(&peer) {
            self.session_closed(peer, out);
        }
        let greetings = (Timestamp::EPOCH, 0);
        self.peers.insert(peer, Box::new(Peer { proved, vault: None, greetings, asked: None }));
    }

    /// A session is over: its jobs end, and what they had counts as used.
    pub fn session_closed(&mut self, peer: NodeId, out: &mut Output) {
        let closed = self.peers.remove(&peer);
        if let Some((vault, _)) = closed.and_then(|closed| closed.asked).as_deref() {
            self.asking.remove(&(*vault, peer));
            self.asking.rest();
        }
        let keys = self.jobs.iter().map(|(key, _)| *key);
        let theirs: Vec<_> = keys.filter(|(whose, _)| *whose == peer).collect();
        for key in theirs {
            self.end(key, out);
        }
    }

    /// A consumer asks for a job.
    pub fn requested(
        &mut self,
        peer: NodeId,
        request: RequestedJob,
        now: Timestamp,
        out: &mut Output,
    ) {
        let job = request.job;
        if self.jobs.contains_key(&(peer, job)) {
            // No honest consumer draws the same id twice, and a refusal would name the running job.
            out.effects.push(Effect::CloseSession { peer });
            return;
        }
        match self.admit(peer, request, now) {
            Ok(serving) => {
                self.jobs.insert((peer, job), Box::new(serving));
                out.effects.push(Effect::Engine(EngineCommand::Admit { peer, job }));
            }
            Err(refusal) => refuse(peer, job, refusal, out),
        }
    }

    fn admit(
        &mut self,
        peer: NodeId,
        request: RequestedJob,
        now: Timestamp,
    ) -> Result<Serving, ProviderRefusal> {
        if self.load == Load::Draining {
            return Err(ProviderRefusal::Draining);
        }
        let served = self.offers.get(&request.offer_sequence).ok_or(ProviderRefusal::StaleOffer)?;
        let model = served.iter().find(|offered| offered.model == request.model);
        let prices = model.ok_or(ProviderRefusal::UnknownModel)?.prices;
        let unpayable =
            ProviderRefusal::NoHeadroom { headroom: NanoTon::ZERO, needed: NanoTon::ZERO };
        let vault = self.peers.get(&peer).and_then(|known| known.vault);
        let vault = vault.ok_or_else(|| unpayable.clone())?;
        let payee = self.channels.get_mut(&vault).ok_or_else(|| unpayable.clone())?;
        let (owed, tolerated) = (payee.owed(), tolerated_debt(prices, payee));
        if owed > tolerated {
            let headroom = NanoTon::ZERO;
            return Err(ProviderRefusal::NoHeadroom { headroom, needed: owed });
        }
        let busy = ProviderRefusal::Busy { retry_after: RETRY_AFTER };
        // Every job that runs may end with a step unpaid. All at once they are no larger a gift
        // than one after another.
        let others = self.at_risk.get(&vault).copied().unwrap_or(NanoTon::ZERO);
        let at_risk = others.saturating_add(risk(prices, request.max_completion));
        if others > NanoTon::ZERO && owed.saturating_add(at_risk) > tolerated {
            return Err(busy);
        }
        payee.open(request.job).map_err(|error| match error {
            crate::channel::OpenError::Releasing => unpayable,
            crate::channel::OpenError::AlreadyOpen => {
                ProviderRefusal::BadRequest { reason: "this job's id is in use".into() }
            }
            crate::channel::OpenError::TooManyJobs => busy,
        })?;
        self.at_risk.insert(vault, at_risk);
        let (stage, due) = (Stage::Admitting, Entry::default());
        Ok(Serving { request, prices, vault, started: now, stage, due })
    }

    /// The engine counted the prompt. The channel must be able to pay it and one step.
    pub fn engine_started(
        &mut self,
        peer: NodeId,
        job: JobId,
        prompt: Tokens,
        now: Timestamp,
        out: &mut Output,
    ) {
        let Some(serving) = self.jobs.get_mut(&(peer, job)) else {
            return;
        };
        let step = limits::CREDIT_STEP.min(serving.request.max_completion);
        let needed = serving.prices.cost(prompt, step).unwrap_or(NanoTon::MAX);
        let headroom = self.channels.get(&serving.vault).map(|payee| payee.headroom());
        let headroom = headroom.unwrap_or(NanoTon::ZERO);
        if needed > headroom {
            refuse(peer, job, ProviderRefusal::NoHeadroom { headroom, needed }, out);
            self.end((peer, job), out);
            return;
        }
        let generated = Tokens::ZERO;
        serving.stage = Stage::Running { prompt, granted: None, generated, since: now };
        self.plan((peer, job));
        let message = SessionMessage::JobStarted { job, prompt };
        out.effects.push(Effect::Send { peer, message });
    }

    /// The engine refused the job.
    pub fn engine_refused(
        &mut self,
        peer: NodeId,
        job: JobId,
        refusal: ProviderRefusal,
        out: &mut Output,
    ) {
        if self.jobs.contains_key(&(peer, job)) {
            refuse(peer, job, refusal, out);
            self.end((peer, job), out);
        }
    }

    /// Tokens went out. False if the next time-out is what it was.
    pub fn generated(
        &mut self,
        peer: NodeId,
        job: JobId,
        completion: Tokens,
        now: Timestamp,
    ) -> bool {
        let key = (peer, job);
        if let Some(serving) = self.jobs.get_mut(&key)
            && let Stage::Running { generated, since, .. } = &mut serving.stage
        {
            *generated = completion.max(*generated);
            *since = now;
            return self.deadlines.set(key, &mut serving.due, unpaid_at(&serving.stage));
        }
        false
    }

    /// The consumer no longer wants the job; it still gets the receipt for what it received.
    pub fn cancel_requested(&mut self, peer: NodeId, job: JobId, out: &mut Output) {
        let Some(serving) = self.jobs.get(&(peer, job)) else {
            return;
        };
        match serving.stage {
            // Nothing was computed yet, so nothing is owed.
            Stage::Admitting | Stage::Running { granted: None, .. } => self.end((peer, job), out),
            Stage::Running { .. } => cancel(peer, job, FinishReason::Cancelled, out),
            Stage::Closing { .. } => {}
        }
    }

    /// The engine is done and the last text is out: the receipt follows.
    pub fn engine_finished(
        &mut self,
        peer: NodeId,
        job: JobId,
        end: (FinishReason, Usage, [u8; 32]),
        now: Timestamp,
        out: &mut Output,
    ) {
        let (finish, usage, completion_commitment) = end;
        let Some(serving) = self.jobs.get_mut(&(peer, job)) else {
            return;
        };
        let channel = self.channels.get(&serving.vault).map(|payee| payee.channel());
        let proved = self.peers.get(&peer).map(|known| known.proved);
        let price = serving.prices.cost(usage.prompt, usage.completion);
        let (Some(channel), Some(proved), Some(price)) = (channel, proved, price) else {
            self.end((peer, job), out);
            return;
        };
        let request = &serving.request;
        let receipt = Receipt {
            job,
            provider: self.config.key.id(),
            vault: channel.vault,
            epoch: channel.epoch,
            model: request.model,
            tier: proved.tier,
            evidence_digest: proved.evidence_digest,
            prompt_commitment: request.prompt_commitment,
            completion_commitment,
            sampling_digest: request.sampling_digest,
            usage,
            prices: serving.prices,
            price,
            fee: NanoTon::ZERO,
            started: serving.started,
            ended: now,
            finish,
        };
        let receipt = receipt.sign(&self.config.key);
        let salt = request.salt;
        let hash = receipt.hash();
        serving.stage = Stage::Closing { price, usage, receipt: hash, since: now };
        self.post((peer, job), None, out);
        self.plan((peer, job));
        let stored = StoredReceipt { receipt: receipt.clone(), salt, provided: true };
        out.persist.push(Record::Receipt(stored));
        let message = SessionMessage::JobFinished { job, receipt };
        out.effects.push(Effect::Send { peer, message });
    }

    /// Writes what is paid for a job that is not over into the accounts.
    fn post(&self, key: (NodeId, JobId), paid: Option<NanoTon>, out: &mut Output) {
        let Some(serving) = self.jobs.get(&key) else {
            return;
        };
        if let Some(payee) = self.channels.get(&serving.vault) {
            let paid = paid.unwrap_or_else(|| payee.paid(key.1));
            let posting = serving.posting(key, payee.channel(), paid, false);
            out.persist.push(Record::Posting(posting));
        }
    }

    /// Ends a job whatever its stage. What was served and not paid is remembered as owed.
    fn end(&mut self, key: (NodeId, JobId), out: &mut Output) {
        let Some(mut serving) = self.jobs.remove(&key) else {
            return;
        };
        self.deadlines.clear(key, &mut serving.due);
        let risk = risk(serving.prices, serving.request.max_completion);
        if let Some(at_risk) = self.at_risk.get_mut(&serving.vault) {
            *at_risk = at_risk.saturating_sub(risk);
            if *at_risk == NanoTon::ZERO {
                self.at_risk.remove(&serving.vault);
                self.at_risk.rest();
            }
        }
        let cost = match serving.stage {
            Stage::Admitting => NanoTon::ZERO,
            Stage::Running { granted: None, .. } => NanoTon::ZERO,
            Stage::Running { prompt, generated, .. } => {
                serving.prices.cost(prompt, generated).unwrap_or(NanoTon::ZERO)
            }
            Stage::Closing { price, .. } => price,
        };
        if let Some(payee) = self.channels.get_mut(&serving.vault) {
            let channel = payee.channel();
            if cost.max(payee.paid(key.1)) > NanoTon::ZERO {
                out.persist.push(Record::Posting(serving.posting(key, channel, cost, true)));
            }
            out.persist.push(Record::Payee(payee.close(key.1, cost).record));
        }
        if self.load == Load::Draining {
            self.settle_if_due(serving.vault, out);
        }
        let (peer, job) = key;
        out.effects.push(Effect::Engine(EngineCommand::Forget { peer, job }));
    }

    /// Takes nothing new, finishes what runs, and redeems what is due.
    pub fn drain(&mut self, now: Timestamp, out: &mut Output) {
        self.load = Load::Draining;
        self.publish(now, out);
        let vaults: Vec<_> = self.channels.keys().copied().collect();
        for vault in vaults {
            self.settle_if_due(vault, out);
        }
    }

    /// Renews the offer, ends jobs that nobody pays, and looks after channels with open vouchers.
    pub fn handle_timeout(&mut self, now: Timestamp, out: &mut Output) {
        self.review_prices(now);
        if self.publication() <= now && self.load != Load::Draining {
            self.publish(now, out);
        }
        if self.watched.after(self.config.watch_every) <= now {
            self.watched = now;
            self.look_after_channels(out);
        }
        for key in self.deadlines.take_until(now) {
            let (peer, job) = key;
            let Some(serving) = self.jobs.get_mut(&key) else {
                continue;
            };
            let due = unpaid_at(&serving.stage);
            if !self.deadlines.came_up(key, &mut serving.due, due, now) {
                continue;
            }
            match self.jobs.get_mut(&key).map(|serving| &mut serving.stage) {
                // It might go on and does not: nothing that is sent would be read.
                Some(Stage::Running { granted: Some(granted), generated, since, .. })
                    if *generated < *granted =>
                {
                    *since = now;
                    out.effects.push(Effect::CloseSession { peer });
                }
                Some(Stage::Running { granted: Some(_), since, .. }) => {
                    *since = now;
                    cancel(peer, job, FinishReason::Unpaid, out);
                }
                Some(Stage::Running { .. } | Stage::Admitting | Stage::Closing { .. }) => {
                    self.end(key, out);
                }
                None => {}
            }
            self.plan(key);
        }
    }

    /// After a job's stage has changed.
    pub(super) fn plan(&mut self, key: (NodeId, JobId)) {
        if let Some(serving) = self.jobs.get_mut(&key) {
            self.deadlines.set(key, &mut serving.due, unpaid_at(&serving.stage));
        }
    }

    /// When `handle_timeout` may have something to do; never later than when it has.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let renew = match self.load {
            Load::Draining => None,
            Load::Idle | Load::Busy | Load::Full => {
                let review = self.pricing.review_every().map(|every| self.reviewed.after(every));
                let publication = self.publication();
                Some(review.map_or(publication, |review| review.min(publication)))
            }
        };
        let watch = self.watched.after(self.config.watch_every);
        let watch = (!self.channels.is_empty()).then_some(watch);
        earlier(renew, earlier(watch, self.deadlines.next()))
    }
}

/// What a consumer may owe, or come to owe in the jobs that run, and still be served: some steps,
/// which an honest one owes when it was killed; and a sixteenth of what it has paid, because over a
/// long time that happens more often.
fn tolerated_debt(prices: Prices, payee: &Payee) -> NanoTon {
    let step = risk(prices, limits::CREDIT_STEP).as_nano();
    let steps = NanoTon::from_nano(step.saturating_mul(u64::from(limits::DEBT_STEPS)));
    steps.max(payee.credited().checked_fraction(1, 16).unwrap_or(NanoTon::ZERO))
}

/// When a job counts as unpaid.
fn unpaid_at(stage: &Stage) -> Option<Timestamp> {
    match stage {
        Stage::Admitting => None,
        Stage::Running { granted: Some(granted), generated, since, .. } if generated < granted => {
            Some(since.after(limits::SERVE_STALL_TIMEOUT))
        }
        Stage::Running { since, .. } | Stage::Closing { since, .. } => {
            Some(since.after(limits::PAYMENT_TIMEOUT))
        }
    }
}

fn refuse(peer: NodeId, job: JobId, refusal: ProviderRefusal, out: &mut Output) {
    let message = SessionMessage::JobRefused { job, refusal };
    out.effects.push(Effect::Send { peer, message });
    out.effects.push(Effect::Engine(EngineCommand::Forget { peer, job }));
}

fn cancel(peer: NodeId, job: JobId, reason: FinishReason, out: &mut Output) {
    out.effects.push(Effect::Engine(EngineCommand::Cancel { peer, job, reason }));
}
