//! A host as a display shows it: its process, its roles, its store.
//!
//! Owns: the way from the state of the machines to a snapshot. Must not: change the host: it is asked
//! while a run stands still, and the run goes on as if it had not been.

use cocoon_protocol::Node;
use cocoon_protocol::channel::{ChannelId, Payee, Payer};
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::job::consumer::Consumer;
use cocoon_protocol::job::provider::Provider;
use cocoon_protocol::units::{NanoTon, Timestamp};
use simnet_scenario::Moment;

use super::process::Process;
use super::reading::{Job, Reading};
use super::serving::Serving;
use super::spec::{ConsumerSpec, HostSpec, ProviderSpec};
use super::{Clock, Host};
use crate::observation::Queue;
use crate::state::{
    AcceptedSession, BookEntry, CommitState, ConsumerJob, ConsumerState, DialledSession,
    EngineState, FundsState, Identity, Life, Names, NodeState, OfferState, OfferedModel,
    PayeeChannel, PayerChannel, ProcessState, ProviderJob, ProviderState, Reputed, StoreState,
    StoredPayee, StoredPayer, VaultState,
};
use crate::store::Store;

/// All queues, in the order of their depths.
const QUEUES: [Queue; 6] = [
    Queue::ConsumerJobs,
    Queue::JobsOfPeer,
    Queue::Engine,
    Queue::Inbox,
    Queue::Book,
    Queue::Sessions,
];

impl Host {
    /// What it is, has and does at this moment, without its place in the overlay: that is its
    /// tier's.
    pub fn state(&self, at: Moment, names: &Names) -> NodeState {
        let process = self.process();
        let look = |process| Look { process, store: self.store(), names, at };
        let consumer = process.zip(self.spec.consumer.as_ref());
        let provider = process.zip(self.spec.provider.as_deref());
        NodeState {
            at,
            identity: identity(&self.spec, names),
            process: ProcessState {
                life: self.life(),
                draining: process.is_some_and(|it| it.draining),
                inbox: process.map_or(0, |it| it.inbox.len()),
                commit: process.and_then(commit),
                wakes_at: process.and_then(|it| Some(it.clock.moment(it.wake_at?))),
                deepest: process.map_or_else(Vec::new, deepest),
            },
            consumer: consumer.and_then(|(process, spec)| look(process).consumer(spec)),
            provider: provider.and_then(|(process, spec)| look(process).provider(spec)),
            store: store(self.store(), names),
            place: None,
        }
    }

    fn life(&self) -> Life {
        match (self.idle, self.process().is_some(), self.has_run) {
            (true, _, _) => Life::Idle,
            (false, true, _) => Life::Runs,
            (false, false, true) => Life::Stopped,
            (false, false, false) => Life::NeverStarted,
        }
    }
}

fn identity(spec: &HostSpec, names: &Names) -> Identity {
    Identity {
        host: spec.id,
        node: spec.key.id(),
        consumes: spec.consumer.is_some(),
        provides: spec.provider.as_ref().map(|it| (it.tier, it.genuine)),
        class: names.class(spec.class),
        region: names.region(spec.region),
        link: spec.link,
        skew_ms: spec.skew_ms,
        adversary: spec.adversary.clone(),
        hostile: spec.hostile,
        plan: spec.behaviour.as_deref().copied(),
        victim_of: spec.victim_of,
    }
}

fn commit(process: &Process) -> Option<CommitState> {
    let commit = process.commit.as_ref()?;
    let output = &commit.batch.output;
    let (records, effects) = (output.persist.len(), output.effects.len());
    Some(CommitState { number: commit.number, records, effects })
}

fn deepest(process: &Process) -> Vec<(Queue, u16)> {
    QUEUES.into_iter().zip(process.depths).filter(|(_, depth)| *depth > 0).collect()
}

fn store(store: &Store, names: &Names) -> StoreState {
    let payers = store.payers().iter().map(|it| StoredPayer {
        provider: names.peer(it.channel().provider),
        epoch: it.channel().epoch,
        promised: it.cumulative(),
        may_owe: it.may_owe(),
    });
    let payees = store.payees().iter().map(|it| StoredPayee {
        consumer: names.vault(it.channel().vault),
        epoch: it.channel().epoch,
        held: it.best().map_or(NanoTon::ZERO, |best| best.voucher.cumulative),
    });
    StoreState {
        commits: store.commits(),
        receipts: store.tally().count,
        interrupted: store.interrupted(),
        payers: payers.collect(),
        payees: payees.collect(),
    }
}

/// A look at a process.
struct Look<'a> {
    process: &'a Process,
    store: &'a Store,
    names: &'a Names,
    at: Moment,
}

impl Look<'_> {
    fn node(&self) -> &Node {
        &self.process.node
    }

    fn clock(&self) -> Clock {
        self.process.clock
    }

    /// The host's own time.
    fn now(&self) -> Timestamp {
        self.clock().timestamp(self.at)
    }

    fn consumer(&self, spec: &ConsumerSpec) -> Option<ConsumerState> {
        let (consumer, reading) = (self.node().consumer()?, self.process.reading.as_ref()?);
        Some(ConsumerState {
            jobs: reading.jobs.iter().map(|job| self.job(consumer, job)).collect(),
            book: self.book(consumer),
            reputation: self.reputation(consumer),
            sessions: self.dialled(consumer, reading),
            funds: self.funds(consumer, spec),
        })
    }

    fn job(&self, consumer: &Consumer, job: &Job) -> ConsumerJob {
        let found = consumer.job_views().find(|it| it.job == job.order.job);
        let provider = found.and_then(|it| it.provider);
        ConsumerJob {
            job: job.order.job,
            model: self.names.model(job.order.model),
            minimum_tier: job.order.minimum_tier,
            submitted: job.submitted,
            phase: found.map(|it| it.phase),
            provider: provider.map(|(provider, prices)| (self.names.peer(provider), prices)),
            attempts: job.attempts,
            prompt: job.order.prompt,
            counted: job.counted,
            deadline: found.map(|it| self.clock().moment(it.deadline)),
            cancelled: job.cancelled,
        }
    }

    fn book(&self, consumer: &Consumer) -> Vec<BookEntry> {
        let offers = consumer.book().offers();
        let entries = offers.flat_map(|offer| offer.models.iter().map(move |it| (offer, it)));
        let entry = |(offer, offered): (&cocoon_protocol::offer::Offer, &_)| {
            let offered: &cocoon_protocol::offer::ModelOffer = offered;
            BookEntry {
                provider: self.names.peer(offer.provider),
                model: self.names.model(offered.model),
                tier: offer.tier,
                load: offer.load,
                prices: offered.prices,
                expires: self.clock().moment(offer.expires),
            }
        };
        entries.map(entry).collect()
    }

    fn reputation(&self, consumer: &Consumer) -> Vec<Reputed> {
        let (reputation, now) = (consumer.reputation(), self.now());
        let reputed = |(provider, model)| Reputed {
            provider: self.names.peer(provider),
            model: self.names.model(model),
            standing: reputation.standing(provider, model, now),
        };
        reputation.known().map(reputed).collect()
    }

    fn dialled(&self, consumer: &Consumer, reading: &Reading) -> Vec<DialledSession> {
        let proved = |peer: NodeId| {
            let mut ready = consumer.sessions();
            ready.find(|(known, _)| *known == peer).map(|(_, proved)| proved.tier)
        };
        let session = |it: &super::session::Dialled| DialledSession {
            provider: self.names.peer(it.peer),
            since: it.since,
            minimum_tier: it.minimum_tier,
            proved: it.open.then(|| proved(it.peer)).flatten(),
        };
        reading.dialled.iter().map(session).collect()
    }

    fn funds(&self, consumer: &Consumer, spec: &ConsumerSpec) -> FundsState {
        let funds = consumer.funds();
        let vault = match funds.vault() {
            Some((address, free)) => VaultState::Open { address, free },
            None if funds.is_opening() => VaultState::Opening,
            None => VaultState::Unasked,
        };
        let channel = |(provider, payer): (&NodeId, &Payer)| PayerChannel {
            provider: self.names.peer(*provider),
            epoch: payer.channel().epoch,
            limit: payer.limit(),
            promised: payer.cumulative(),
            durable: self.durably_promised(payer.channel()),
            headroom: payer.headroom(),
            jobs: payer.jobs(),
            seen: funds.seen_limit(*provider),
            releasing: payer.is_releasing(),
        };
        FundsState {
            vault,
            deposit: spec.deposit,
            allocation: spec.allocation,
            allocating: funds.allocating().map(|it| self.names.peer(it)),
            patience: spec.patience,
            channels: funds.payers().map(channel).collect(),
        }
    }

    fn durably_promised(&self, channel: ChannelId) -> NanoTon {
        let stored = self.store.payers().iter().find(|it| it.channel() == channel);
        stored.map_or(NanoTon::ZERO, cocoon_protocol::channel::PayerState::cumulative)
    }

    fn provider(&self, spec: &ProviderSpec) -> Option<ProviderState> {
        let (provider, serving) = (self.node().provider()?, self.process.serving.as_deref()?);
        let session = |(peer, vault_known, heard)| AcceptedSession {
            consumer: self.names.peer(peer),
            vault_known,
            heard,
        };
        Some(ProviderState {
            load: provider.load(),
            offer: self.offer(provider),
            price_level: provider.price_level().parts(),
            settle_threshold: spec.settle_threshold,
            settling: provider.settling(),
            engine: engine(serving),
            jobs: self.served(provider, serving),
            sessions: serving.accepted.guests().map(session).collect(),
            channels: provider.payees().map(|payee| self.payee(provider, payee)).collect(),
        })
    }

    fn offer(&self, provider: &Provider) -> Option<OfferState> {
        let offer = provider.newest_offer()?;
        let models = offer.models.iter().map(|it| OfferedModel {
            model: self.names.model(it.model),
            context: it.context,
            prices: it.prices,
        });
        Some(OfferState {
            sequence: offer.sequence,
            issued: self.clock().moment(offer.issued),
            expires: self.clock().moment(offer.expires),
            tier: offer.tier,
            models: models.collect(),
        })
    }

    fn served(&self, provider: &Provider, serving: &Serving) -> Vec<ProviderJob> {
        let mut engine = serving.engine.job_views(self.at);
        let mut jobs: Vec<_> = provider
            .job_views()
            .map(|it| {
                let key = (it.consumer, it.job);
                let at = engine.iter().position(|found| found.key == key);
                ProviderJob {
                    consumer: self.names.peer(it.consumer),
                    job: it.job,
                    model: self.names.model(it.model),
                    phase: Some(it.phase),
                    taken: Some(self.clock().moment(it.taken)),
                    engine: at.map(|at| engine.remove(at)),
                    unpaid: serving.unpaid(key),
                }
            })
            .collect();
        // What the protocol has given up and the engine still has: nothing, unless a commit that
        // says so is under way.
        jobs.extend(engine.into_iter().map(|it| ProviderJob {
            consumer: self.names.peer(it.key.0),
            job: it.key.1,
            model: String::new(),
            phase: None,
            taken: None,
            engine: Some(it),
            unpaid: serving.unpaid(it.key),
        }));
        jobs
    }

    fn payee(&self, provider: &Provider, payee: &Payee) -> PayeeChannel {
        let channel = payee.channel();
        let stored = self.store.payees().iter().find(|it| it.channel() == channel);
        let best = stored.and_then(cocoon_protocol::channel::PayeeState::best);
        PayeeChannel {
            consumer: self.names.vault(channel.vault),
            epoch: channel.epoch,
            limit: payee.allocation().limit,
            held: payee.promised(),
            durable: best.map_or(NanoTon::ZERO, |best| best.voucher.cumulative),
            settled: payee.allocation().paid,
            unsettled: payee.unsettled(),
            owed: payee.owed(),
            jobs: payee.jobs(),
            settling: provider.is_settling(channel.vault),
            release_at: payee.release_at().map(|at| self.clock().moment(at)),
        }
    }
}

fn engine(serving: &Serving) -> EngineState {
    let spec = serving.engine.spec();
    let (taken, places) = serving.engine.load();
    EngineState {
        places,
        queue: spec.queue,
        taken,
        working: serving.engine.working(),
        requests: serving.requests(),
        wakes_at: serving.engine.next(),
    }
}
