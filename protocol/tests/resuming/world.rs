//! A world of one consumer and scripted providers: sessions, channels and the ledger answer at once, and
//! what becomes of a job is the test's.
//!
//! Owns: what the consumer's shell does in reality. Must not: hold a test.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::channel::funds::{Funds, FundsConfig};
use cocoon_protocol::channel::{Allocation, VaultKey};
use cocoon_protocol::identity::{JobId, ModelHash, NodeId, NodeKey, TonAddress};
use cocoon_protocol::input::{ChannelView, LedgerFailure, Proved};
use cocoon_protocol::job::consumer::Consumer;
use cocoon_protocol::job::{FinishReason, JobError, Usage};
use cocoon_protocol::offer::{Load, ModelOffer, Offer};
use cocoon_protocol::output::{Effect, JobNews, LedgerCommand, Output};
use cocoon_protocol::receipt::Receipt;
use cocoon_protocol::record::{Account, Posting, Record};
use cocoon_protocol::selection::{Balanced, Candidate, Demand, Patience, Policy, Retry, View};
use cocoon_protocol::units::{Millis, NanoTon, PricePerMillion, Prices, Timestamp, Tokens};
use cocoon_protocol::wire::SessionMessage;
use cocoon_protocol::{Input, Node};

pub(crate) const MODEL: ModelHash = ModelHash::from_bytes([9; 32]);
const VAULT: TonAddress = TonAddress { workchain: 0, hash: [0xaa; 32] };
const PAYOUT: TonAddress = TonAddress { workchain: 0, hash: [0xbb; 32] };
/// Tokens of the prompt, and the bound on them.
pub(crate) const PROMPT: Tokens = Tokens::new(10);
pub(crate) const PROMPT_AT_MOST: Tokens = Tokens::new(60);
/// The answer's limit.
pub(crate) const LIMIT: Tokens = Tokens::new(200);

pub(crate) fn key(seed: u8) -> NodeKey {
    NodeKey::from_secret(&[seed; 32])
}

/// A round price for a token, so that costs can be read.
pub(crate) fn prices() -> Prices {
    Prices {
        prompt: PricePerMillion::from_nano(1_000_000_000),
        completion: PricePerMillion::from_nano(3_000_000_000),
    }
}

pub(crate) fn cost(prompt: u32, completion: u32) -> NanoTon {
    prices().cost(Tokens::new(prompt), Tokens::new(completion)).unwrap()
}

/// The default's choices, tried again as a test says.
#[derive(Debug)]
struct Trying(Retry);

impl Policy for Trying {
    fn order(&self, candidates: &mut [Candidate], view: &View<'_>) {
        Balanced.order(candidates, view);
    }

    fn patience(&self) -> Patience {
        Patience { retry: self.0, ..Patience::default() }
    }
}

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) node: Node,
    keys: BTreeMap<NodeId, NodeKey>,
    tiers: BTreeMap<NodeId, Tier>,
    allocations: BTreeMap<NodeId, Allocation>,
    free: NanoTon,
    inputs: VecDeque<Input>,
    /// What each request that went out was: to whom, and for how many tokens at most.
    pub(crate) sent: Vec<(NodeId, Tokens)>,
    pub(crate) news: Vec<JobNews>,
    /// Halts that are not answered.
    pub(crate) halts: u32,
    pub(crate) cancels: Vec<NodeId>,
    /// What was promised to each.
    pub(crate) promised: BTreeMap<NodeId, NanoTon>,
    pub(crate) interrupted: Vec<(NodeId, NanoTon)>,
    pub(crate) postings: BTreeMap<Vec<u8>, Posting>,
}

impl World {
    /// With providers of these seeds, all of the attested tier.
    pub(crate) fn new(seeds: &[u8]) -> Self {
        let world = Self::trying(Retry::Resume);
        seeds.iter().fold(world, |world, seed| world.with(*seed, Tier::Attested))
    }

    /// Two providers, one of which has written so many tokens of a job's answer.
    pub(crate) fn writing(written: u32) -> (Self, JobId, NodeId) {
        let mut world = Self::new(&[2, 3]);
        let job = world.submit();
        let peer = world.starts(job, PROMPT);
        world.delivers(job, written);
        (world, job, peer)
    }

    /// A provider's chance of success, as the consumer expects it.
    pub(crate) fn success(&self, provider: NodeId) -> f64 {
        let reputation = self.node.consumer().unwrap().reputation();
        reputation.standing(provider, MODEL, self.now).success
    }

    pub(crate) fn trying(retry: Retry) -> Self {
        let config = FundsConfig {
            consumer: key(1).id(),
            deposit: NanoTon::from_nano(1_000_000_000),
            allocation: NanoTon::from_nano(10_000_000),
        };
        let funds = Funds::new(config, Arc::new(VaultKey::from_secret(&[3; 32])), Vec::new());
        let consumer = Consumer::with_policy(funds, Arc::new(Trying(retry)));
        Self {
            now: Timestamp::from_unix_secs(1_800_000_000),
            node: Node::new(Some(consumer), None),
            keys: BTreeMap::new(),
            tiers: BTreeMap::new(),
            allocations: BTreeMap::new(),
            free: NanoTon::from_nano(950_000_000),
            inputs: VecDeque::new(),
            sent: Vec::new(),
            news: Vec::new(),
            halts: 0,
            cancels: Vec::new(),
            promised: BTreeMap::new(),
            interrupted: Vec::new(),
            postings: BTreeMap::new(),
        }
    }

    /// One more provider, whose offer has come.
    pub(crate) fn with(mut self, seed: u8, tier: Tier) -> Self {
        let key = key(seed);
        let offer = self.offer(&key, tier);
        self.tiers.insert(key.id(), tier);
        self.keys.insert(key.id(), key);
        self.give(offer);
        self
    }

    fn offer(&self, key: &NodeKey, tier: Tier) -> Input {
        let offer = Offer {
            provider: key.id(),
            sequence: self.now.as_unix_millis(),
            issued: self.now,
            expires: self.now.after(Millis::from_secs(500)),
            network: -7_337,
            models: vec![ModelOffer {
                model: MODEL,
                name: "m".into(),
                quantisation: "Q4_1".into(),
                context: Tokens::new(8_192),
                prices: prices(),
            }],
            tier,
            evidence_digest: (tier > Tier::Open).then_some([4; 32]),
            payout: PAYOUT,
            load: Load::Idle,
            region: String::new(),
            engine: String::new(),
        };
        Input::Offer(Arc::new(offer.sign(key).verify(self.now).unwrap()))
    }

    /// Time passes, and whatever is due happens. Offers stay fresh.
    pub(crate) fn tick(&mut self, by: Millis) {
        self.now = self.now.after(by);
        let keys: Vec<_> = self.keys.values().cloned().collect();
        for key in keys {
            let tier = self.tiers[&key.id()];
            let offer = self.offer(&key, tier);
            self.give(offer);
        }
        let out = self.node.handle_timeout(self.now);
        self.carry_out(out);
        self.run();
    }

    pub(crate) fn give(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.run();
    }

    fn run(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            let out = self.node.handle(input, self.now);
            self.carry_out(out);
        }
    }

    fn carry_out(&mut self, out: Output) {
        for record in out.persist {
            let key = record.key();
            match record {
                Record::Payer(state) => {
                    self.promised.insert(state.channel().provider, state.cumulative());
                }
                Record::Interrupted(lost) => self.interrupted.push((lost.provider, lost.paid)),
                Record::Posting(posting) => {
                    self.postings.insert(key, posting);
                }
                Record::Payee(_) | Record::Receipt(_) | Record::Logged(_) => {}
            }
        }
        for effect in out.effects {
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::OpenSession { peer, .. } => {
                let tier = self.tiers[&peer];
                let offers = self.node.consumer().unwrap().book();
                let manifest = offers.offer(peer).map(Offer::manifest);
                let (simulated, evidence_digest) = (false, [4; 32]);
                let proved = Proved { tier, simulated, evidence_digest, manifest };
                self.inputs.push_back(Input::SessionReady { peer, proved });
            }
            Effect::Send { peer, message: SessionMessage::ChannelHello { .. } } => {
                let allocation = self.allocations.get(&peer).map(|it| (it.epoch, it.limit));
                let view = ChannelView { allocation, latest: None, owed: NanoTon::ZERO };
                self.inputs.push_back(Input::ChannelState { peer, view });
            }
            Effect::Send { peer, message: SessionMessage::JobCancel { .. } } => {
                self.cancels.push(peer);
            }
            Effect::SendJob { peer, max_completion, .. } => self.sent.push((peer, max_completion)),
            Effect::Halt { .. } => self.halts += 1,
            Effect::Inform { news, .. } => self.news.push(news),
            Effect::Ledger(command) => self.ledger(command),
            Effect::Look { .. }
            | Effect::Avoid { .. }
            | Effect::Publish(_)
            | Effect::CloseSession { .. }
            | Effect::Send { .. }
            | Effect::TrustVault { .. }
            | Effect::Engine(_) => {}
        }
    }

    fn ledger(&mut self, command: LedgerCommand) {
        let input = match command {
            LedgerCommand::OpenVault { .. } => {
                Input::VaultReady { vault: VAULT, free: self.free, allocations: Vec::new() }
            }
            LedgerCommand::Allocate { provider, payout, amount } => {
                let Some(free) = self.free.checked_sub(amount) else {
                    let failure = LedgerFailure::NoFunds { needed: amount, available: self.free };
                    self.inputs.push_back(Input::AllocationFailed { provider, failure });
                    return;
                };
                self.free = free;
                let epoch = u32::try_from(self.allocations.len()).unwrap() + 1;
                let new = Allocation::new(payout, NanoTon::ZERO, epoch);
                let allocation = self.allocations.entry(provider).or_insert(new);
                allocation.limit = allocation.limit.checked_add(amount).unwrap();
                Input::Allocated { provider, allocation: *allocation, free }
            }
            LedgerCommand::ReadVault { .. } | LedgerCommand::Settle { .. } => return,
        };
        self.inputs.push_back(input);
    }

    pub(crate) fn submit(&mut self) -> JobId {
        self.submit_with(|_| {})
    }

    pub(crate) fn submit_with(&mut self, change: impl FnOnce(&mut Demand)) -> JobId {
        let job = JobId::from_bytes([1; 32]);
        let mut demand = Demand {
            model: MODEL,
            model_name: "m".into(),
            network: -7_337,
            prompt_at_most: PROMPT_AT_MOST,
            max_completion: Some(LIMIT),
            minimum_tier: Tier::Open,
            max_cost: None,
            max_price: None,
            account: Account::default(),
        };
        change(&mut demand);
        self.give(Input::Submit { job, demand, draw: 0 });
        job
    }

    /// Who got the last request.
    pub(crate) fn chosen(&self) -> NodeId {
        self.sent.last().unwrap().0
    }

    /// The chosen provider takes the job, with so many tokens of prompt.
    pub(crate) fn starts(&mut self, job: JobId, prompt: Tokens) -> NodeId {
        let peer = self.chosen();
        self.give(Input::JobStarted { peer, job, prompt });
        peer
    }

    pub(crate) fn delivers(&mut self, job: JobId, completion: u32) {
        self.give(Input::Delivered { job, completion: Tokens::new(completion) });
    }

    /// Its session is over.
    pub(crate) fn loses(&mut self, peer: NodeId) {
        self.give(Input::SessionClosed { peer, accepted: false });
    }

    /// The edge has passed on so many tokens, of four bytes each.
    pub(crate) fn halted(&mut self, job: JobId, completion: u32) {
        self.halts -= 1;
        let bytes = usize::try_from(completion).unwrap() * 4;
        self.give(Input::Halted { job, completion: Tokens::new(completion), bytes });
    }

    /// The provider ends the job with its receipt.
    pub(crate) fn finishes(&mut self, job: JobId, peer: NodeId, usage: Usage, why: FinishReason) {
        let proved = [4; 32];
        let receipt = Receipt {
            job,
            provider: peer,
            vault: VAULT,
            epoch: self.allocations[&peer].epoch,
            model: MODEL,
            tier: self.tiers[&peer],
            evidence_digest: proved,
            prompt_commitment: [1; 32],
            completion_commitment: [2; 32],
            sampling_digest: [5; 32],
            usage,
            prices: prices(),
            price: prices().cost(usage.prompt, usage.completion).unwrap(),
            fee: NanoTon::ZERO,
            started: self.now,
            ended: self.now,
            finish: why,
        };
        let receipt = Box::new(receipt.sign(&self.keys[&peer]).verify().unwrap());
        self.give(Input::JobFinished { peer, job, receipt, salt: [7; 32] });
    }

    /// The whole story in one go: a provider takes the job, writes, and is lost.
    pub(crate) fn writes_and_is_lost(&mut self, job: JobId, prompt: u32, written: u32) -> NodeId {
        let peer = self.starts(job, Tokens::new(prompt));
        self.delivers(job, written);
        self.loses(peer);
        self.halted(job, written);
        peer
    }

    pub(crate) fn failure(&self) -> &JobError {
        match self.news.last() {
            Some(JobNews::Failed(error)) => error,
            other => panic!("the job did not fail: {other:?}"),
        }
    }

    /// Usage, cost and vouchers of the finished job, and whether it has a receipt.
    pub(crate) fn finished(&self) -> (Usage, NanoTon, u32, bool) {
        match self.news.last() {
            Some(JobNews::Finished { usage, cost, vouchers, receipt, .. }) => {
                (*usage, *cost, *vouchers, receipt.is_some())
            }
            other => panic!("the job did not finish: {other:?}"),
        }
    }

    /// What was promised to all, which is what the accounts say.
    pub(crate) fn paid(&self) -> NanoTon {
        let promised: u64 = self.promised.values().map(|it| it.as_nano()).sum();
        let posted: u64 = self.postings.values().map(|it| it.amount.as_nano()).sum();
        assert_eq!(promised, posted, "the accounts add up");
        NanoTon::from_nano(promised)
    }
}
