//! A world of two nodes: a ledger and an engine of a few lines each, mail between them, time by hand.
//!
//! Owns: what the shell does in reality. Must not: hold a test.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::channel::funds::{Funds, FundsConfig};
use cocoon_protocol::channel::{Allocation, PayeeState, PayerState, SignedVoucher, VaultKey};
use cocoon_protocol::identity::{JobId, ModelHash, NodeKey, TonAddress};
use cocoon_protocol::input::{
    ChannelView, LedgerFailure, Proved, RequestedJob, SessionFailure, VaultSnapshot,
};
use cocoon_protocol::job::consumer::Consumer;
use cocoon_protocol::job::provider::{Provider, ProviderConfig};
use cocoon_protocol::job::{FinishReason, JobError, Usage};
use cocoon_protocol::limits;
use cocoon_protocol::offer::ModelOffer;
use cocoon_protocol::output::{Effect, EngineCommand, JobNews, LedgerCommand};
use cocoon_protocol::record::{Account, Logged, Posting, Record, StoredReceipt};
use cocoon_protocol::selection::Demand;
use cocoon_protocol::units::{Millis, NanoTon, PricePerMillion, Prices, Timestamp, Tokens};
use cocoon_protocol::wire::SessionMessage;
use cocoon_protocol::{Input, Node, Output};

pub(crate) const MODEL: ModelHash = ModelHash::from_bytes([9; 32]);
pub(crate) const VAULT: TonAddress = TonAddress { workchain: 0, hash: [0xaa; 32] };
pub(crate) const PAYOUT: TonAddress = TonAddress { workchain: 0, hash: [0xbb; 32] };
pub(crate) const PROMPT: Tokens = Tokens::new(10);

/// One end of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Consumer,
    Provider,
}

/// What travels in a session. A request's text stays outside, so it has a form of its own.
pub(crate) enum Parcel {
    Message(SessionMessage),
    Request(RequestedJob),
}

#[derive(Default)]
pub(crate) struct Stored {
    pub(crate) payers: BTreeMap<Vec<u8>, PayerState>,
    pub(crate) payees: BTreeMap<Vec<u8>, PayeeState>,
    pub(crate) receipts: BTreeMap<Vec<u8>, StoredReceipt>,
    pub(crate) interrupted: Vec<NanoTon>,
    pub(crate) logged: BTreeMap<Vec<u8>, Logged>,
    pub(crate) postings: BTreeMap<Vec<u8>, Posting>,
}

/// What the provider's engine has of a job.
pub(crate) struct Generating {
    pub(crate) granted: Tokens,
    pub(crate) sent: Tokens,
    pub(crate) stop_at: Tokens,
}

/// What the consumer's edge has of a job.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) news: Vec<JobNews>,
    pub(crate) received: Tokens,
    pub(crate) delivered: Tokens,
}

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) consumer: Node,
    pub(crate) provider: Node,
    pub(crate) consumer_store: Stored,
    pub(crate) provider_store: Stored,
    pub(crate) mail: VecDeque<(Side, Input)>,
    /// Session messages under way, by receiver.
    pub(crate) wire: VecDeque<(Side, Parcel)>,
    pub(crate) connected: bool,
    pub(crate) offer: Option<cocoon_protocol::offer::SignedOffer>,
    pub(crate) allocation: Option<Allocation>,
    pub(crate) free: NanoTon,
    /// How many reads the provider's ledger is behind.
    pub(crate) ledger_lag: u32,
    /// Evidence is refused for this tier and above.
    pub(crate) refuse_from: Option<Tier>,
    /// How often the provider was let go.
    pub(crate) avoided: u32,
    /// The tier that each session was to prove, also of those that were refused.
    pub(crate) opened: Vec<Tier>,
    pub(crate) engine: BTreeMap<JobId, Generating>,
    pub(crate) length: Tokens,
    pub(crate) readers: BTreeMap<JobId, Reader>,
    pub(crate) slow_reader: bool,
    /// Highest exposure seen: tokens sent beyond what is paid.
    pub(crate) settled: Vec<SignedVoucher>,
}

pub(crate) fn key(seed: u8) -> NodeKey {
    NodeKey::from_secret(&[seed; 32])
}

pub(crate) fn vault_key() -> VaultKey {
    VaultKey::from_secret(&[3; 32])
}

pub(crate) fn prices() -> Prices {
    Prices {
        prompt: PricePerMillion::from_nano(1_000_000_000),
        completion: PricePerMillion::from_nano(3_333_333_333),
    }
}

pub(crate) fn consumer_node(stored: &Stored) -> Node {
    let config = FundsConfig {
        consumer: key(1).id(),
        deposit: NanoTon::from_nano(1_000_000_000),
        allocation: NanoTon::from_nano(10_000_000),
    };
    let restored = stored.payers.values().cloned().collect();
    Node::new(Some(Consumer::new(Funds::new(config, Arc::new(vault_key()), restored))), None)
}

pub(crate) fn provider_node(stored: &Stored) -> Node {
    let config = ProviderConfig {
        key: key(2),
        network: -7_337,
        models: vec![ModelOffer {
            model: MODEL,
            name: "m".into(),
            quantisation: "Q4_1".into(),
            context: Tokens::new(8_192),
            prices: prices(),
        }],
        tier: Tier::Attested,
        evidence_digest: Some([4; 32]),
        payout: PAYOUT,
        region: String::new(),
        engine: "test".to_owned(),
        settle_threshold: NanoTon::from_nano(1_000_000_000),
        watch_every: Millis::from_secs(60),
    };
    Node::new(None, Some(Provider::new(config, stored.payees.values().cloned().collect())))
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            now: Timestamp::from_unix_secs(1_800_000_000),
            consumer: consumer_node(&Stored::default()),
            provider: provider_node(&Stored::default()),
            consumer_store: Stored::default(),
            provider_store: Stored::default(),
            mail: VecDeque::new(),
            wire: VecDeque::new(),
            connected: false,
            offer: None,
            allocation: None,
            free: NanoTon::from_nano(950_000_000),
            ledger_lag: 0,
            refuse_from: None,
            avoided: 0,
            opened: Vec::new(),
            engine: BTreeMap::new(),
            length: Tokens::new(100),
            readers: BTreeMap::new(),
            slow_reader: false,
            settled: Vec::new(),
        };
        world.tick(Millis::new(1));
        world
    }

    /// Lets time pass, and everything that follows happen.
    pub(crate) fn tick(&mut self, by: Millis) {
        self.now = self.now.after(by);
        let out = self.provider.handle_timeout(self.now);
        self.carry_out(Side::Provider, out);
        let out = self.consumer.handle_timeout(self.now);
        self.carry_out(Side::Consumer, out);
        self.run();
    }

    pub(crate) fn run(&mut self) {
        while self.step() {}
    }

    /// One message or input; false when nothing is under way.
    pub(crate) fn step(&mut self) -> bool {
        if let Some((side, input)) = self.mail.pop_front() {
            self.give(side, input);
            return true;
        }
        if let Some((side, parcel)) = self.wire.pop_front() {
            match parcel {
                Parcel::Message(message) => self.deliver(side, message),
                Parcel::Request(request) if self.connected => {
                    let peer = key(1).id();
                    self.give(side, Input::JobRequested { peer, request });
                }
                Parcel::Request(_) => {}
            }
            return true;
        }
        false
    }

    pub(crate) fn give(&mut self, side: Side, input: Input) {
        let node = match side {
            Side::Consumer => &mut self.consumer,
            Side::Provider => &mut self.provider,
        };
        let out = node.handle(input, self.now);
        self.carry_out(side, out);
    }

    pub(crate) fn carry_out(&mut self, side: Side, out: Output) {
        let store = match side {
            Side::Consumer => &mut self.consumer_store,
            Side::Provider => &mut self.provider_store,
        };
        for record in out.persist {
            let key = record.key();
            match record {
                Record::Payer(state) => {
                    assert_eq!(PayerState::decode(&state.encode()), Ok(state.clone()));
                    store.payers.insert(key, state);
                }
                Record::Payee(state) => {
                    assert_eq!(PayeeState::decode(&state.encode()), Ok(state.clone()));
                    store.payees.insert(key, state);
                }
                Record::Receipt(stored) => {
                    assert_eq!(StoredReceipt::decode(&stored.encode()), Ok(stored.clone()));
                    store.receipts.insert(key, stored);
                }
                Record::Interrupted(interrupted) => store.interrupted.push(interrupted.paid),
                Record::Logged(logged) => {
                    assert_eq!(Logged::decode(&logged.encode()), Ok(logged));
                    store.logged.insert(key, logged);
                }
                Record::Posting(posting) => {
                    assert_eq!(Posting::decode(&posting.encode()), Ok(posting));
                    store.postings.insert(key, posting);
                }
            }
        }
        for effect in out.effects {
            self.effect(side, effect);
        }
    }

    pub(crate) fn effect(&mut self, side: Side, effect: Effect) {
        let (consumer_id, provider_id) = (key(1).id(), key(2).id());
        match effect {
            Effect::Look { minimum_tier, .. } => {
                let offer = self.offer.as_ref().and_then(|offer| offer.verify(self.now).ok());
                if let Some(offer) = offer.filter(|it| it.offer().tier >= minimum_tier) {
                    self.mail.push_back((Side::Consumer, Input::Offer(Arc::new(offer))));
                }
            }
            Effect::Avoid { peer } => {
                assert_eq!(peer, provider_id);
                self.avoided += 1;
            }
            Effect::Publish(offer) => self.offer = Some(offer),
            Effect::OpenSession { peer, minimum_tier } => {
                assert_eq!(peer, provider_id);
                self.opened.push(minimum_tier);
                if self.refuse_from.is_some_and(|tier| minimum_tier >= tier) {
                    let failure = SessionFailure::Refused { reason: "debug guest".into() };
                    self.mail.push_back((Side::Consumer, Input::SessionFailed { peer, failure }));
                    return;
                }
                if std::mem::replace(&mut self.connected, true) {
                    // The provider lets the one before it go first.
                    self.wire.clear();
                    let closed = Input::SessionClosed { peer, accepted: false };
                    self.mail.push_back((Side::Consumer, closed));
                }
                let offer = self.offer.as_ref().and_then(|offer| offer.verify(self.now).ok());
                let proved = Proved {
                    tier: minimum_tier,
                    simulated: true,
                    evidence_digest: [4; 32],
                    manifest: offer.map(|offer| offer.offer().manifest()),
                };
                let accepted = Input::SessionAccepted { peer: consumer_id, proved };
                self.mail.push_back((Side::Provider, accepted));
                self.mail.push_back((Side::Consumer, Input::SessionReady { peer, proved }));
            }
            Effect::CloseSession { .. } => self.disconnect(),
            Effect::Send { message, .. } => {
                let to = match side {
                    Side::Consumer => Side::Provider,
                    Side::Provider => Side::Consumer,
                };
                assert_eq!(message.is_from_provider(), side == Side::Provider);
                self.wire.push_back((to, Parcel::Message(message)));
            }
            Effect::SendJob { job, offer_sequence, max_completion, .. } => {
                let request = RequestedJob {
                    job,
                    model: MODEL,
                    offer_sequence,
                    max_completion,
                    prompt_commitment: [1; 32],
                    sampling_digest: [2; 32],
                    salt: [7; 32],
                };
                // Behind the payments that were sent before it, as in a session.
                self.wire.push_back((Side::Provider, Parcel::Request(request)));
            }
            Effect::Halt { job } => {
                let completion = self.readers[&job].delivered;
                self.mail.push_back((Side::Consumer, Input::Halted { job, completion, bytes: 5 }));
            }
            Effect::Inform { job, news } => {
                self.readers.entry(job).or_default().news.push(news);
            }
            Effect::Ledger(command) => self.ledger(side, command),
            Effect::TrustVault { key, .. } => assert_eq!(key, vault_key().public()),
            Effect::Engine(command) => self.engine(command),
        }
    }

    pub(crate) fn ledger(&mut self, side: Side, command: LedgerCommand) {
        let input = match command {
            LedgerCommand::OpenVault { .. } => {
                let provider = key(2).id();
                let allocations = self.allocation.iter().map(|it| (provider, *it)).collect();
                Input::VaultReady { vault: VAULT, free: self.free, allocations }
            }
            LedgerCommand::Allocate { provider, payout, amount } => {
                match self.free.checked_sub(amount) {
                    None => {
                        let failure =
                            LedgerFailure::NoFunds { needed: amount, available: self.free };
                        Input::AllocationFailed { provider, failure }
                    }
                    Some(free) => {
                        self.free = free;
                        let before = self
                            .allocation
                            .unwrap_or_else(|| Allocation::new(payout, NanoTon::ZERO, 1));
                        let limit = before.limit.checked_add(amount).unwrap();
                        let allocation = Allocation { limit, ..before };
                        self.allocation = Some(allocation);
                        Input::Allocated { provider, allocation, free }
                    }
                }
            }
            LedgerCommand::ReadVault { vault } => {
                assert_eq!(vault, VAULT);
                let lag = self.ledger_lag > 0;
                self.ledger_lag = self.ledger_lag.saturating_sub(1);
                let allocation = self.allocation.filter(|_| !lag);
                let snapshot = VaultSnapshot { key: vault_key().public(), allocation };
                Input::VaultRead { vault, snapshot: Ok(Some(snapshot)) }
            }
            LedgerCommand::Settle { voucher } => {
                assert!(voucher.verify(&vault_key().public()).is_ok());
                self.settled.push(voucher);
                let allocation = self.allocation.as_mut().unwrap();
                allocation.paid = voucher.voucher.cumulative.min(allocation.limit);
                Input::Settled { voucher, paid: allocation.paid }
            }
        };
        self.mail.push_back((side, input));
    }

    pub(crate) fn engine(&mut self, command: EngineCommand) {
        let peer = key(1).id();
        match command {
            EngineCommand::Admit { job, .. } => {
                let (granted, sent) = (Tokens::ZERO, Tokens::ZERO);
                let stop_at = self.length;
                self.engine.insert(job, Generating { granted, sent, stop_at });
                let input = Input::EngineStarted { peer, job, prompt: PROMPT };
                self.mail.push_back((Side::Provider, input));
            }
            EngineCommand::Grant { job, total, .. } => {
                let Some(generating) = self.engine.get_mut(&job) else {
                    return;
                };
                assert!(total >= generating.granted, "grants only grow");
                assert!(
                    total.get()
                        <= generating.sent.get()
                            + limits::CREDIT_STEP.get()
                            + limits::PAY_EVERY.get(),
                    "never granted more than a step beyond what was paid"
                );
                generating.granted = total;
                self.generate(job);
            }
            EngineCommand::Cancel { job, reason, .. } => self.finish(job, reason),
            EngineCommand::Forget { job, .. } => {
                self.engine.remove(&job);
            }
        }
    }

    pub(crate) fn generate(&mut self, job: JobId) {
        let peer = key(1).id();
        let Some(generating) = self.engine.get_mut(&job) else {
            return;
        };
        let target = generating.granted.min(generating.stop_at);
        let finished = target == generating.stop_at;
        while generating.sent < target {
            let next = (generating.sent.get() + 4).min(target.get());
            generating.sent = Tokens::new(next);
            let completion = generating.sent;
            let message = SessionMessage::JobChunk { job, text: "word ".into(), completion };
            self.wire.push_back((Side::Consumer, Parcel::Message(message)));
            self.mail.push_back((Side::Provider, Input::Generated { peer, job, completion }));
        }
        if finished {
            self.finish(job, FinishReason::Stop);
        }
    }

    pub(crate) fn finish(&mut self, job: JobId, reason: FinishReason) {
        let Some(generating) = self.engine.remove(&job) else {
            return;
        };
        let usage = Usage { prompt: PROMPT, completion: generating.sent };
        let peer = key(1).id();
        let completion_commitment = [5; 32];
        let end = Input::EngineFinished { peer, job, reason, usage, completion_commitment };
        self.mail.push_back((Side::Provider, end));
    }

    /// What the edges do with a message.
    pub(crate) fn deliver(&mut self, to: Side, message: SessionMessage) {
        if !self.connected {
            return;
        }
        let message = SessionMessage::decode(&message.encode()).unwrap();
        let (consumer, provider) = (key(1).id(), key(2).id());
        let vault = vault_key().public();
        let peer = match to {
            Side::Consumer => provider,
            Side::Provider => consumer,
        };
        let input = match message {
            SessionMessage::ChannelHello { vault, proof } => {
                Input::ChannelHello { peer, vault, proof }
            }
            SessionMessage::ChannelState { allocation, latest, owed, .. } => {
                let latest = latest.map(|voucher| voucher.verify(&vault).unwrap());
                Input::ChannelState { peer, view: ChannelView { allocation, latest, owed } }
            }
            SessionMessage::Payment { voucher, total } => {
                let voucher = voucher.verify(&vault).unwrap();
                Input::Paid { peer, total, voucher }
            }
            SessionMessage::JobCancel { job } => Input::CancelRequested { peer, job },
            SessionMessage::JobStarted { job, prompt } => Input::JobStarted { peer, job, prompt },
            SessionMessage::JobRefused { job, refusal } => Input::JobRefused { peer, job, refusal },
            SessionMessage::JobChunk { job, completion, .. } => {
                self.readers.entry(job).or_default().received = completion;
                if self.slow_reader {
                    return;
                }
                self.readers.entry(job).or_default().delivered = completion;
                Input::Delivered { job, completion }
            }
            SessionMessage::JobFinished { job, receipt } => {
                let receipt = Box::new(receipt.verify().unwrap());
                Input::JobFinished { peer, job, receipt, salt: [7; 32] }
            }
            SessionMessage::PaymentRefused { job, .. } => Input::PaymentRefused { peer, job },
            SessionMessage::JobRequest(_) => unreachable!("bodies do not travel in this world"),
        };
        self.give(to, input);
    }

    pub(crate) fn disconnect(&mut self) {
        self.connected = false;
        self.wire.clear();
        for (side, peer, accepted) in [(Side::Consumer, 2, false), (Side::Provider, 1, true)] {
            let peer = key(peer).id();
            self.mail.push_back((side, Input::SessionClosed { peer, accepted }));
        }
    }

    /// `kill -9`, and a restart from what was durable.
    pub(crate) fn crash(&mut self, side: Side) {
        self.mail.retain(|(to, _)| *to != side);
        self.disconnect();
        self.mail.retain(|(to, _)| *to != side);
        match side {
            Side::Consumer => self.consumer = consumer_node(&self.consumer_store),
            Side::Provider => {
                self.engine.clear();
                self.provider = provider_node(&self.provider_store);
                let out = self.provider.handle_timeout(self.now);
                self.carry_out(side, out);
            }
        }
        self.run();
    }

    pub(crate) fn submit(&mut self, seed: u8) -> JobId {
        self.submit_with(seed, |_| {})
    }

    pub(crate) fn submit_with(&mut self, seed: u8, change: impl FnOnce(&mut Demand)) -> JobId {
        let job = JobId::from_bytes([seed; 32]);
        let mut demand = Demand {
            model: MODEL,
            model_name: "m".into(),
            network: -7_337,
            prompt_at_most: Tokens::new(60),
            max_completion: Some(Tokens::new(200)),
            minimum_tier: Tier::Attested,
            max_cost: None,
            max_price: None,
            account: Account::default(),
        };
        change(&mut demand);
        self.give(Side::Consumer, Input::Submit { job, demand, draw: 0 });
        job
    }

    /// From now on the provider proves this tier, and offers it.
    pub(crate) fn proves(&mut self, tier: Tier) {
        self.give(Side::Provider, Input::Proves { tier });
        if self.offered_tier() < tier {
            self.tick(limits::OFFER_LIFETIME);
        }
        assert_eq!(self.offered_tier(), tier);
    }

    /// The tier of the newest offer that was published.
    pub(crate) fn offered_tier(&self) -> Tier {
        self.offer.as_ref().unwrap().verify(self.now).unwrap().offer().tier
    }

    /// The consumer hears of the newest offer.
    pub(crate) fn offer_arrives(&mut self) {
        let offer = self.offer.as_ref().unwrap().verify(self.now).unwrap();
        self.give(Side::Consumer, Input::Offer(Arc::new(offer)));
    }

    /// The provider's chance of success, as the consumer expects it.
    pub(crate) fn success(&self) -> f64 {
        let reputation = self.consumer.consumer().unwrap().reputation();
        reputation.standing(key(2).id(), MODEL, self.now).success
    }

    pub(crate) fn last_news(&self, job: JobId) -> &JobNews {
        self.readers[&job].news.last().unwrap()
    }

    pub(crate) fn failure(&self, job: JobId) -> &JobError {
        match self.last_news(job) {
            JobNews::Failed(error) => error,
            other => panic!("the job did not fail: {other:?}"),
        }
    }

    pub(crate) fn cost(&self, job: JobId) -> NanoTon {
        match self.last_news(job) {
            JobNews::Finished { cost, .. } => *cost,
            other => panic!("the job did not finish: {other:?}"),
        }
    }

    /// Every nanoTON that was promised, or credited, stands in exactly one line of the accounts.
    pub(crate) fn accounts_add_up(&self, when: &str) {
        let sum = |store: &Stored, provided| {
            let lines = store.postings.values().filter(|line| line.provided == provided);
            lines.map(|line| line.amount.as_nano()).sum::<u64>()
        };
        assert_eq!(sum(&self.consumer_store, false), self.promised().as_nano(), "{when}: consumer");
        let earned = self.provider_store.payees.values().cloned().map(|state| {
            let payee = cocoon_protocol::channel::Payee::restore(state);
            payee.credited().as_nano() + payee.owed().as_nano() - payee.surplus().as_nano()
        });
        assert_eq!(sum(&self.provider_store, true), earned.sum::<u64>(), "{when}: provider");
        let logged = self.consumer_store.logged.values().map(|logged| logged.receipt);
        let root = logged.collect::<cocoon_protocol::receipt::Peaks>().root();
        let states = self.consumer_store.payers.values();
        let newest = states.max_by_key(|state| state.channel().epoch).unwrap();
        assert_eq!(newest.receipts().root(), root, "{when}: the log's leaves make its root");
    }

    pub(crate) fn promised(&self) -> NanoTon {
        let states = self.consumer_store.payers.values();
        states.map(PayerState::cumulative).max().unwrap_or(NanoTon::ZERO)
    }

    pub(crate) fn held(&self) -> NanoTon {
        let best = self.provider_store.payees.values().filter_map(PayeeState::best);
        best.map(|best| best.voucher.cumulative).max().unwrap_or(NanoTon::ZERO)
    }
}
