//! A consumer and a provider wired directly: whole jobs through the real machines, in no time.
//!
//! Owns: a world of two nodes with a ledger and an engine that are a few lines each.
//! Must not: test a rule that a machine's own tests can show; this shows that they fit together.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::channel::funds::{Funds, FundsConfig};
use cocoon_protocol::channel::{Allocation, PayeeState, PayerState, SignedVoucher, VaultKey};
use cocoon_protocol::identity::{JobId, ModelHash, NodeId, NodeKey, TonAddress};
use cocoon_protocol::input::{
    ChannelView, LedgerFailure, Proved, RequestedJob, SessionFailure, VaultSnapshot,
};
use cocoon_protocol::job::consumer::Consumer;
use cocoon_protocol::job::provider::{Provider, ProviderConfig};
use cocoon_protocol::job::{FinishReason, JobError, Usage};
use cocoon_protocol::limits;
use cocoon_protocol::offer::ModelOffer;
use cocoon_protocol::output::{Effect, EngineCommand, JobNews, LedgerCommand};
use cocoon_protocol::record::{Record, StoredReceipt};
use cocoon_protocol::selection::Demand;
use cocoon_protocol::units::{Millis, NanoTon, PricePerMillion, Prices, Timestamp, Tokens};
use cocoon_protocol::wire::SessionMessage;
use cocoon_protocol::{Input, Node, Output};

const MODEL: ModelHash = ModelHash::from_bytes([9; 32]);
const VAULT: TonAddress = TonAddress {
    workchain: 0,
    hash: [0xaa; 32],
};
const PAYOUT: TonAddress = TonAddress {
    workchain: 0,
    hash: [0xbb; 32],
};
const PROMPT: Tokens = Tokens::new(10);

/// One end of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Consumer,
    Provider,
}

#[derive(Default)]
struct Stored {
    payers: BTreeMap<Vec<u8>, PayerState>,
    payees: BTreeMap<Vec<u8>, PayeeState>,
    receipts: BTreeMap<Vec<u8>, StoredReceipt>,
    interrupted: Vec<NanoTon>,
}

/// What the provider's engine has of a job.
struct Generating {
    granted: Tokens,
    sent: Tokens,
    stop_at: Tokens,
}

/// What the consumer's edge has of a job.
#[derive(Default)]
struct Reader {
    news: Vec<JobNews>,
    received: Tokens,
}

struct World {
    now: Timestamp,
    consumer: Node,
    provider: Node,
    consumer_store: Stored,
    provider_store: Stored,
    mail: VecDeque<(Side, Input)>,
    /// Session messages under way, by receiver.
    wire: VecDeque<(Side, SessionMessage)>,
    connected: bool,
    offer: Option<cocoon_protocol::offer::SignedOffer>,
    allocation: Option<Allocation>,
    free: NanoTon,
    /// How many reads the provider's ledger is behind.
    ledger_lag: u32,
    refuse_sessions: bool,
    engine: BTreeMap<JobId, Generating>,
    length: Tokens,
    readers: BTreeMap<JobId, Reader>,
    slow_reader: bool,
    /// Highest exposure seen: tokens sent beyond what is paid.
    settled: Vec<SignedVoucher>,
}

fn key(seed: u8) -> NodeKey {
    NodeKey::from_secret(&[seed; 32])
}

fn vault_key() -> VaultKey {
    VaultKey::from_secret(&[3; 32])
}

fn prices() -> Prices {
    Prices {
        prompt: PricePerMillion::from_nano(1_000_000_000),
        completion: PricePerMillion::from_nano(3_333_333_333),
    }
}

fn consumer_node(stored: &Stored) -> Node {
    let config = FundsConfig {
        deposit: NanoTon::from_nano(1_000_000_000),
        allocation: NanoTon::from_nano(10_000_000),
    };
    let restored = stored.payers.values().cloned().collect();
    Node::new(
        Some(Consumer::new(Funds::new(
            config,
            Arc::new(vault_key()),
            restored,
        ))),
        None,
    )
}

fn provider_node(stored: &Stored) -> Node {
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
        settle_threshold: NanoTon::from_nano(1_000_000_000),
    };
    Node::new(
        None,
        Some(Provider::new(
            config,
            stored.payees.values().cloned().collect(),
        )),
    )
}

impl World {
    fn new() -> Self {
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
            refuse_sessions: false,
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
    fn tick(&mut self, by: Millis) {
        self.now = self.now.after(by);
        let out = self.provider.handle_timeout(self.now);
        self.carry_out(Side::Provider, out);
        let out = self.consumer.handle_timeout(self.now);
        self.carry_out(Side::Consumer, out);
        self.run();
    }

    fn run(&mut self) {
        while self.step() {}
    }

    /// One message or input; false when nothing is under way.
    fn step(&mut self) -> bool {
        if let Some((side, input)) = self.mail.pop_front() {
            self.give(side, input);
            return true;
        }
        if let Some((side, message)) = self.wire.pop_front() {
            self.deliver(side, message);
            return true;
        }
        false
    }

    fn give(&mut self, side: Side, input: Input) {
        let node = match side {
            Side::Consumer => &mut self.consumer,
            Side::Provider => &mut self.provider,
        };
        let out = node.handle(input, self.now);
        self.carry_out(side, out);
    }

    fn carry_out(&mut self, side: Side, out: Output) {
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
            }
        }
        for effect in out.effects {
            self.effect(side, effect);
        }
    }

    fn effect(&mut self, side: Side, effect: Effect) {
        let consumer_id = key(1).id();
        let provider_id = key(2).id();
        match effect {
            Effect::Look { .. } => {
                if let Some(offer) = self.offer.as_ref().and_then(|o| o.verify(self.now).ok()) {
                    self.mail.push_back((Side::Consumer, Input::Offer(offer)));
                }
            }
            Effect::Publish(offer) => self.offer = Some(offer),
            Effect::OpenSession { peer, .. } => {
                assert_eq!(peer, provider_id);
                if self.refuse_sessions {
                    let failure = SessionFailure::Refused {
                        reason: "debug guest".into(),
                    };
                    self.mail
                        .push_back((Side::Consumer, Input::SessionFailed { peer, failure }));
                    return;
                }
                self.connected = true;
                let proved = Proved {
                    tier: Tier::Attested,
                    simulated: true,
                    evidence_digest: [4; 32],
                };
                let accepted = Input::SessionAccepted {
                    peer: consumer_id,
                    proved,
                };
                self.mail.push_back((Side::Provider, accepted));
                self.mail
                    .push_back((Side::Consumer, Input::SessionReady { peer, proved }));
            }
            Effect::CloseSession { .. } => self.disconnect(),
            Effect::Send { message, .. } => {
                let to = match side {
                    Side::Consumer => Side::Provider,
                    Side::Provider => Side::Consumer,
                };
                assert_eq!(message.is_from_provider(), side == Side::Provider);
                self.wire.push_back((to, message));
            }
            Effect::SendJob {
                job,
                offer_sequence,
                max_completion,
                ..
            } => {
                let request = RequestedJob {
                    job,
                    model: MODEL,
                    offer_sequence,
                    max_completion,
                    prompt_commitment: [1; 32],
                    sampling_digest: [2; 32],
                    salt: [7; 32],
                };
                let input = Input::JobRequested {
                    peer: consumer_id,
                    request,
                };
                self.mail.push_back((Side::Provider, input));
            }
            Effect::Inform { job, news } => {
                self.readers.entry(job).or_default().news.push(news);
            }
            Effect::Ledger(command) => self.ledger(side, command),
            Effect::TrustVault { key, .. } => assert_eq!(key, vault_key().public()),
            Effect::Engine(command) => self.engine(command),
        }
    }

    fn ledger(&mut self, side: Side, command: LedgerCommand) {
        let input = match command {
            LedgerCommand::OpenVault { .. } => {
                let provider = key(2).id();
                let allocations = self.allocation.iter().map(|it| (provider, *it)).collect();
                Input::VaultReady {
                    vault: VAULT,
                    free: self.free,
                    allocations,
                }
            }
            LedgerCommand::Allocate {
                provider,
                payout,
                amount,
            } => match self.free.checked_sub(amount) {
                None => {
                    let failure = LedgerFailure::NoFunds {
                        needed: amount,
                        available: self.free,
                    };
                    Input::AllocationFailed { provider, failure }
                }
                Some(free) => {
                    self.free = free;
                    let before =
                        self.allocation
                            .unwrap_or(Allocation::new(payout, NanoTon::ZERO, 1));
                    let limit = before.limit.checked_add(amount).unwrap();
                    let allocation = Allocation { limit, ..before };
                    self.allocation = Some(allocation);
                    Input::Allocated {
                        provider,
                        allocation,
                        free,
                    }
                }
            },
            LedgerCommand::ReadVault { vault } => {
                assert_eq!(vault, VAULT);
                let lag = self.ledger_lag > 0;
                self.ledger_lag = self.ledger_lag.saturating_sub(1);
                let allocation = self.allocation.filter(|_| !lag);
                let snapshot = VaultSnapshot {
                    key: vault_key().public(),
                    allocation,
                };
                Input::VaultRead {
                    vault,
                    snapshot: Ok(Some(snapshot)),
                }
            }
            LedgerCommand::Settle { voucher } => {
                assert!(voucher.verify(&vault_key().public()).is_ok());
                self.settled.push(voucher);
                let allocation = self.allocation.as_mut().unwrap();
                allocation.paid = voucher.voucher.cumulative.min(allocation.limit);
                Input::Settled {
                    voucher,
                    paid: allocation.paid,
                }
            }
        };
        self.mail.push_back((side, input));
    }

    fn engine(&mut self, command: EngineCommand) {
        let peer = key(1).id();
        match command {
            EngineCommand::Admit { job, .. } => {
                let (granted, sent) = (Tokens::ZERO, Tokens::ZERO);
                let stop_at = self.length;
                self.engine.insert(
                    job,
                    Generating {
                        granted,
                        sent,
                        stop_at,
                    },
                );
                let input = Input::EngineStarted {
                    peer,
                    job,
                    prompt: PROMPT,
                };
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

    fn generate(&mut self, job: JobId) {
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
            let message = SessionMessage::JobChunk {
                job,
                text: "word ".into(),
                completion,
            };
            self.wire.push_back((Side::Consumer, message));
            self.mail.push_back((
                Side::Provider,
                Input::Generated {
                    peer,
                    job,
                    completion,
                },
            ));
        }
        if finished {
            self.finish(job, FinishReason::Stop);
        }
    }

    fn finish(&mut self, job: JobId, reason: FinishReason) {
        let Some(generating) = self.engine.remove(&job) else {
            return;
        };
        let usage = Usage {
            prompt: PROMPT,
            completion: generating.sent,
        };
        let peer = key(1).id();
        let completion_commitment = [5; 32];
        let end = Input::EngineFinished {
            peer,
            job,
            reason,
            usage,
            completion_commitment,
        };
        self.mail.push_back((Side::Provider, end));
    }

    /// What the edges do with a message.
    fn deliver(&mut self, to: Side, message: SessionMessage) {
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
            SessionMessage::ChannelHello { vault } => Input::ChannelHello { peer, vault },
            SessionMessage::ChannelState {
                allocation, latest, ..
            } => {
                let latest = latest.map(|voucher| voucher.verify(&vault).unwrap());
                Input::ChannelState {
                    peer,
                    view: ChannelView { allocation, latest },
                }
            }
            SessionMessage::Payment { voucher, total } => {
                let voucher = voucher.verify(&vault).unwrap();
                Input::Paid {
                    peer,
                    total,
                    voucher,
                }
            }
            SessionMessage::JobCancel { job } => Input::CancelRequested { peer, job },
            SessionMessage::JobStarted { job, prompt } => Input::JobStarted { peer, job, prompt },
            SessionMessage::JobRefused { job, refusal } => Input::JobRefused { peer, job, refusal },
            SessionMessage::JobChunk {
                job, completion, ..
            } => {
                self.readers.entry(job).or_default().received = completion;
                if self.slow_reader {
                    return;
                }
                Input::Delivered { job, completion }
            }
            SessionMessage::JobFinished { job, receipt } => {
                let receipt = receipt.verify().unwrap();
                Input::JobFinished {
                    peer,
                    job,
                    receipt,
                    salt: [7; 32],
                }
            }
            SessionMessage::PaymentRefused { job, .. } => Input::PaymentRefused { peer, job },
            SessionMessage::JobRequest(_) => unreachable!("bodies do not travel in this world"),
        };
        self.give(to, input);
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.wire.clear();
        let (consumer, provider) = (key(1).id(), key(2).id());
        let closed = Input::SessionClosed {
            peer: provider,
            accepted: false,
        };
        self.mail.push_back((Side::Consumer, closed));
        let closed = Input::SessionClosed {
            peer: consumer,
            accepted: true,
        };
        self.mail.push_back((Side::Provider, closed));
    }

    /// `kill -9`, and a restart from what was durable.
    fn crash(&mut self, side: Side) {
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

    fn submit(&mut self, seed: u8) -> JobId {
        self.submit_with(seed, |_| {})
    }

    fn submit_with(&mut self, seed: u8, change: impl FnOnce(&mut Demand)) -> JobId {
        let job = JobId::from_bytes([seed; 32]);
        let mut demand = Demand {
            model: MODEL,
            model_name: "m".into(),
            network: -7_337,
            prompt_at_most: Tokens::new(60),
            max_completion: Some(Tokens::new(200)),
            minimum_tier: Tier::Attested,
            max_cost: None,
        };
        change(&mut demand);
        self.give(
            Side::Consumer,
            Input::Submit {
                job,
                demand,
                draw: 0,
            },
        );
        job
    }

    fn last_news(&self, job: JobId) -> &JobNews {
        self.readers[&job].news.last().unwrap()
    }

    fn failure(&self, job: JobId) -> &JobError {
        match self.last_news(job) {
            JobNews::Failed(error) => error,
            other => panic!("the job did not fail: {other:?}"),
        }
    }

    fn cost(&self, job: JobId) -> NanoTon {
        match self.last_news(job) {
            JobNews::Finished { cost, .. } => *cost,
            other => panic!("the job did not finish: {other:?}"),
        }
    }

    fn promised(&self) -> NanoTon {
        let states = self.consumer_store.payers.values();
        states
            .map(PayerState::cumulative)
            .max()
            .unwrap_or(NanoTon::ZERO)
    }

    fn held(&self) -> NanoTon {
        let best = self
            .provider_store
            .payees
            .values()
            .filter_map(PayeeState::best);
        best.map(|best| best.voucher.cumulative)
            .max()
            .unwrap_or(NanoTon::ZERO)
    }
}

#[test]
fn a_job_is_found_served_paid_and_receipted() {
    let mut world = World::new();
    let job = world.submit(1);
    world.run();
    let expected = prices().cost(PROMPT, Tokens::new(100)).unwrap();
    match world.last_news(job) {
        JobNews::Finished {
            reason,
            usage,
            cost,
            vouchers,
            receipt,
        } => {
            assert_eq!(*reason, FinishReason::Stop);
            assert_eq!(usage.completion, Tokens::new(100));
            assert_eq!(*cost, expected);
            assert!(*vouchers >= 6, "a voucher each half step");
            assert!(
                world
                    .consumer_store
                    .receipts
                    .contains_key(receipt.as_bytes().as_slice())
            );
            assert!(
                world
                    .provider_store
                    .receipts
                    .contains_key(receipt.as_bytes().as_slice())
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.promised(), expected);
    assert_eq!(world.held(), expected);
}

#[test]
fn eight_jobs_at_a_time_add_up_to_the_nanoton() {
    let mut world = World::new();
    let jobs: Vec<_> = (1..=8).map(|seed| world.submit(seed)).collect();
    world.run();
    let sum = jobs.iter().fold(NanoTon::ZERO, |sum, job| {
        sum.checked_add(world.cost(*job)).unwrap()
    });
    assert_eq!(world.promised(), sum);
    assert_eq!(world.held(), sum);
    let receipts = world.consumer_store.receipts.values();
    let receipted = receipts.fold(NanoTon::ZERO, |sum, stored| {
        sum.checked_add(stored.receipt.verify().unwrap().receipt().price)
            .unwrap()
    });
    assert_eq!(receipted, sum);
}

#[test]
fn a_second_job_needs_no_look_up_and_no_ledger() {
    let mut world = World::new();
    world.submit(1);
    world.run();
    let free = world.free;
    let job = world.submit(2);
    assert!(world.mail.iter().all(|(_, input)| !matches!(
        input,
        Input::SessionReady { .. } | Input::Allocated { .. } | Input::VaultReady { .. }
    )));
    world.run();
    world.cost(job);
    assert_eq!(world.free, free);
}

#[test]
fn a_crash_of_either_side_at_any_step_loses_no_voucher_and_the_next_job_works() {
    for side in [Side::Consumer, Side::Provider] {
        for steps in 0..140 {
            let mut world = World::new();
            let first = world.submit(1);
            for _ in 0..steps {
                world.step();
            }
            world.crash(side);
            assert!(world.held() <= world.promised(), "{side:?} at {steps}");
            world.tick(Millis::new(600));
            let job = world.submit(2);
            world.run();
            let cost = world.cost(job);
            assert_eq!(world.held(), world.promised(), "{side:?} at {steps}");
            assert!(world.promised() >= cost);
            // What was promised is receipted or known to have been interrupted, if we survived.
            if side == Side::Provider {
                let receipts = world.consumer_store.receipts.values();
                let receipted = receipts.fold(NanoTon::ZERO, |sum, stored| {
                    sum.checked_add(stored.receipt.verify().unwrap().receipt().price)
                        .unwrap()
                });
                let lost = world
                    .consumer_store
                    .interrupted
                    .iter()
                    .fold(NanoTon::ZERO, |sum, it| sum.checked_add(*it).unwrap());
                assert_eq!(
                    receipted.checked_add(lost),
                    Some(world.promised()),
                    "at {steps}"
                );
                let news = &world.readers[&first].news;
                assert!(news.len() <= 2, "{news:?}");
            }
        }
    }
}

#[test]
fn a_cancelled_job_is_paid_for_what_was_delivered() {
    let mut world = World::new();
    let job = world.submit(1);
    while world
        .readers
        .get(&job)
        .is_none_or(|reader| reader.received < Tokens::new(20))
    {
        assert!(world.step());
    }
    world.give(Side::Consumer, Input::Cancel { job });
    world.run();
    let JobNews::Finished {
        reason,
        usage,
        cost,
        ..
    } = world.last_news(job)
    else {
        panic!("{:?}", world.last_news(job));
    };
    assert_eq!(*reason, FinishReason::Cancelled);
    assert!(usage.completion < Tokens::new(100));
    assert_eq!(*cost, prices().cost(PROMPT, usage.completion).unwrap());
    assert_eq!(world.held(), *cost);
}

#[test]
fn a_reader_that_stands_still_stops_the_provider_after_one_step() {
    let mut world = World::new();
    world.slow_reader = true;
    let job = world.submit(1);
    world.run();
    assert_eq!(world.readers[&job].received, limits::CREDIT_STEP);
    assert_eq!(world.held(), prices().cost(PROMPT, Tokens::ZERO).unwrap());
    world.tick(limits::PAYMENT_TIMEOUT);
    assert!(world.engine.is_empty(), "the engine is free again");
    assert!(matches!(world.failure(job), JobError::ProviderLost { .. }));
}

#[test]
fn a_provider_whose_ledger_is_behind_is_greeted_again() {
    let mut world = World::new();
    world.ledger_lag = 3;
    let job = world.submit(1);
    world.run();
    for _ in 0..3 {
        assert!(world.readers.get(&job).is_none());
        world.tick(Millis::new(500));
    }
    world.cost(job);
}

#[test]
fn refused_evidence_ends_the_job_with_the_reason_and_sends_nothing() {
    let mut world = World::new();
    world.refuse_sessions = true;
    let job = world.submit(1);
    world.run();
    assert_eq!(
        *world.failure(job),
        JobError::AttestationRefused {
            provider: key(2).id(),
            reason: "debug guest".into()
        }
    );
    assert!(world.engine.is_empty() && world.allocation.is_none());
}

#[test]
fn an_empty_vault_is_named() {
    let mut world = World::new();
    world.free = NanoTon::from_nano(10);
    let job = world.submit(1);
    world.run();
    assert!(matches!(
        world.failure(job),
        JobError::FundsExhausted { available, .. } if *available == NanoTon::from_nano(10)
    ));
}

#[test]
fn nobody_offering_is_said_after_a_while() {
    let mut world = World::new();
    world.offer = None;
    let job = world.submit_with(1, |demand| demand.model = ModelHash::from_bytes([8; 32]));
    world.run();
    assert!(world.readers.get(&job).is_none());
    world.tick(Millis::from_secs(5));
    assert_eq!(
        *world.failure(job),
        JobError::NoProvider { name: "m".into() }
    );
}

#[test]
fn an_allocation_grows_before_it_runs_dry() {
    let mut world = World::new();
    let mut total = NanoTon::ZERO;
    for seed in 1..=60 {
        let job = world.submit(seed);
        world.run();
        total = total.checked_add(world.cost(job)).unwrap();
    }
    assert!(
        total > NanoTon::from_nano(10_000_000),
        "more than the first allocation"
    );
    assert_eq!(world.held(), total);
}

#[test]
fn draining_settles_everything_and_takes_nothing_new() {
    let mut world = World::new();
    let job = world.submit(1);
    world.run();
    let cost = world.cost(job);
    world.give(Side::Provider, Input::Drain);
    world.run();
    assert!(world.provider.is_drained());
    assert_eq!(world.settled.last().unwrap().voucher.cumulative, cost);
    assert_eq!(world.allocation.unwrap().paid, cost);
    // The root of the log that the settlement carries is the consumer's.
    let payer = world.consumer_store.payers.values().next().unwrap();
    let restored = cocoon_protocol::channel::Payer::restore(payer.clone(), Arc::new(vault_key()));
    assert_eq!(
        world.settled.last().unwrap().voucher.receipts_root,
        restored.receipts().root()
    );
}

#[test]
fn a_provider_that_counts_more_tokens_than_bytes_is_not_paid() {
    let mut world = World::new();
    let job = world.submit_with(1, |demand| demand.prompt_at_most = Tokens::new(5));
    world.run();
    assert!(matches!(
        world.failure(job),
        JobError::ProviderMisbehaved { .. }
    ));
    assert_eq!(world.held(), NanoTon::ZERO);
}

#[test]
fn strangers_cannot_touch_a_job() {
    let mut world = World::new();
    let job = world.submit(1);
    while world
        .readers
        .get(&job)
        .is_none_or(|reader| reader.received < Tokens::new(8))
    {
        assert!(world.step());
    }
    let stranger = NodeId::from_bytes([0x55; 32]);
    world.give(
        Side::Provider,
        Input::CancelRequested {
            peer: stranger,
            job,
        },
    );
    world.give(
        Side::Consumer,
        Input::JobStarted {
            peer: stranger,
            job,
            prompt: PROMPT,
        },
    );
    world.give(
        Side::Consumer,
        Input::SessionClosed {
            peer: stranger,
            accepted: false,
        },
    );
    world.run();
    world.cost(job);
}
