//! A world for hosts: mail that keeps each session's order and is late by a draw, a ledger with
//! blocks, crashes and restarts as a tier does them.
//!
//! Owns: what a fabric does. Must not: hold a test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{JobId, ModelHash, NodeId, TonAddress};
use cocoon_protocol::offer::{ModelOffer, SignedOffer};
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::pricing::Fixed;
use cocoon_protocol::selection::Balanced;
use cocoon_protocol::units::{NanoTon, PricePerMillion, Prices, Tokens};
use cocoon_protocol::wire::SessionMessage;
use simnet_host::ledger::{Ledger, LedgerTerms};
use simnet_host::{
    Alarm, Bounds, Clock, ConsumerSpec, DialFailure, Fabric, Host, HostId, HostSpec, HotKey,
    Invariants, Observation, Observer as _, Order, ProviderSpec, SessionId, Stimulus, StoreSpec,
};
use simnet_scenario::{Moment, Seed};

pub(crate) const MODEL: ModelHash = ModelHash::from_bytes([9; 32]);
pub(crate) const PROMPT: Tokens = Tokens::new(50);
pub(crate) const COMPLETION: Tokens = Tokens::new(100);

pub(crate) fn prices() -> Prices {
    Prices {
        prompt: PricePerMillion::from_nano(1_000_000_000),
        completion: PricePerMillion::from_nano(3_333_333_333),
    }
}

/// A store that keeps everything and looks twice.
pub(crate) const STORE: StoreSpec = StoreSpec {
    commit: Duration::ZERO,
    spread: Duration::ZERO,
    slow: 0,
    slow_commit: Duration::ZERO,
    crash: 0,
    restart_after: Duration::from_secs(2),
    keep_receipts: true,
    check: true,
};

pub(crate) fn host(id: u32) -> HostSpec {
    HostSpec { store: Arc::new(STORE), ..HostSpec::plain(HostId(id), Seed(1)) }
}

pub(crate) fn consumer(id: u32) -> HostSpec {
    let consumer = ConsumerSpec {
        vault_key: HotKey::Drawn,
        deposit: NanoTon::from_nano(1_000_000_000),
        allocation: NanoTon::from_nano(20_000_000),
        patience: None,
        policy: Arc::new(Balanced),
    };
    HostSpec { consumer: Some(consumer), ..host(id) }
}

pub(crate) fn provider(id: u32) -> HostSpec {
    let provider = ProviderSpec {
        models: vec![ModelOffer {
            model: MODEL,
            name: "m".into(),
            quantisation: "Q4_1".into(),
            context: Tokens::new(8_192),
            prices: prices(),
        }],
        tier: Tier::Attested,
        genuine: Tier::Attested,
        payout: TonAddress { workchain: 0, hash: [0xbb; 32] },
        places: 4,
        queue: 0,
        prefill_per_second: 500.0,
        decode_per_second: 40.0,
        contention: ProviderSpec::CONTENTION_CPU,
        flush: ProviderSpec::FLUSH,
        settle_threshold: NanoTon::from_nano(1_000_000_000),
        pricing: Arc::new(Fixed),
    };
    HostSpec { provider: Some(Box::new(provider)), ..host(id) }
}

/// What a host asks of the world while it is handled.
#[derive(Debug)]
enum Call {
    Look(ModelHash),
    Publish(SignedOffer),
    Dial(SessionId, NodeId),
    Send(SessionId, SessionMessage, u32),
    HangUp(SessionId),
    Wake(Moment, Alarm),
    Ledger(LedgerCommand),
    Stopped(Option<Moment>),
    Observe(Observation),
}

struct Recorder {
    now: Moment,
    backlog: u32,
    calls: Vec<Call>,
}

impl Fabric for Recorder {
    fn now(&self) -> Moment {
        self.now
    }
    fn look(&mut self, model: ModelHash, _: Tier) {
        self.calls.push(Call::Look(model));
    }
    fn avoid(&mut self, _: NodeId) {}
    fn publish(&mut self, offer: SignedOffer) {
        self.calls.push(Call::Publish(offer));
    }
    fn dial(&mut self, session: SessionId, peer: NodeId) {
        self.calls.push(Call::Dial(session, peer));
    }
    fn send(&mut self, session: SessionId, message: SessionMessage, padding: u32) {
        self.calls.push(Call::Send(session, message, padding));
    }
    fn backlog(&self, _: SessionId) -> u32 {
        self.backlog
    }
    fn hang_up(&mut self, session: SessionId) {
        self.calls.push(Call::HangUp(session));
    }
    fn wake(&mut self, at: Moment, alarm: Alarm) {
        self.calls.push(Call::Wake(at, alarm));
    }
    fn ledger(&mut self, command: LedgerCommand) {
        self.calls.push(Call::Ledger(command));
    }
    fn stopped(&mut self, restart: Option<Moment>) {
        self.calls.push(Call::Stopped(restart));
    }
    fn observe(&mut self, fact: Observation) {
        self.calls.push(Call::Observe(fact));
    }
}

/// Something under way.
#[derive(Debug)]
enum Event {
    /// For a host in the life that it had when this was sent; `None`: for whichever it has.
    Give {
        to: usize,
        life: Option<u32>,
        stimulus: Stimulus,
    },
    Dialled {
        from: usize,
        life: u32,
        session: SessionId,
        peer: NodeId,
    },
    Heard {
        to: usize,
        life: u32,
        session: SessionId,
        message: SessionMessage,
    },
    Down {
        to: usize,
        life: u32,
        session: SessionId,
    },
    Block,
}

/// One end's view of where a session leads.
#[derive(Clone, Copy, Debug)]
struct Line {
    to: usize,
    session: SessionId,
    /// Nothing arrives before this: sessions keep their order.
    busy: Moment,
}

/// How the world behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    pub(crate) backlog: u32,
    pub(crate) dials_fail: bool,
}

pub(crate) const CALM: Weather = Weather {
    delay: Duration::from_millis(20),
    jitter: Duration::ZERO,
    backlog: 0,
    dials_fail: false,
};

pub(crate) struct World {
    pub(crate) seed: Seed,
    pub(crate) weather: Weather,
    pub(crate) now: Moment,
    pub(crate) hosts: Vec<Host>,
    lives: Vec<u32>,
    events: BTreeMap<(Moment, u64), Event>,
    sequence: u64,
    lines: BTreeMap<(usize, SessionId), Line>,
    accepted: u64,
    offers: BTreeMap<usize, SignedOffer>,
    lookers: Vec<usize>,
    pub(crate) ledger: Ledger,
    block_at: Option<Moment>,
    pub(crate) invariants: Invariants,
    pub(crate) facts: Vec<(Moment, HostId, Observation)>,
    /// Bytes sent in sessions.
    pub(crate) bytes: u64,
}

impl World {
    pub(crate) fn new(specs: Vec<HostSpec>) -> Self {
        Self::with(specs, Seed(1), CALM)
    }

    pub(crate) fn with(specs: Vec<HostSpec>, seed: Seed, weather: Weather) -> Self {
        // Under half a second for a command.
        let terms = LedgerTerms {
            block_time: Duration::from_millis(200),
            confirmations: 0,
            inclusion: 0,
            pause: Duration::from_millis(50),
            ..LedgerTerms::default()
        };
        Self::on(specs, seed, weather, terms)
    }

    pub(crate) fn on(
        specs: Vec<HostSpec>,
        seed: Seed,
        weather: Weather,
        terms: LedgerTerms,
    ) -> Self {
        let lives = vec![0; specs.len()];
        let hostile = specs.iter().filter(|spec| spec.hostile).map(|spec| spec.id).collect();
        let bounds = Bounds { hostile, ..Bounds::default() };
        let mut world = Self {
            seed,
            weather,
            now: Moment::START,
            hosts: specs.into_iter().map(|spec| Host::new(Arc::new(spec))).collect(),
            lives,
            events: BTreeMap::new(),
            sequence: 0,
            lines: BTreeMap::new(),
            accepted: 0,
            offers: BTreeMap::new(),
            lookers: Vec::new(),
            ledger: Ledger::new(terms, seed),
            block_at: None,
            invariants: Invariants::new(bounds),
            facts: Vec::new(),
            bytes: 0,
        };
        for to in 0..world.hosts.len() {
            world.give(to, Stimulus::Start);
        }
        world
    }

    fn at(&mut self, at: Moment, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    /// A delay of the network, by a draw.
    fn delay(&self) -> Duration {
        let jitter = u64::try_from(self.weather.jitter.as_nanos()).unwrap();
        if jitter == 0 {
            return self.weather.delay;
        }
        let drawn = self.seed.bytes("delay", self.sequence);
        let drawn = u64::from_be_bytes(drawn[..8].try_into().unwrap());
        self.weather.delay + Duration::from_nanos(drawn % jitter)
    }

    /// Gives a host a stimulus, and takes what it asks for.
    pub(crate) fn give(&mut self, to: usize, stimulus: Stimulus) {
        let backlog = self.weather.backlog;
        let mut recorder = Recorder { now: self.now, backlog, calls: Vec::new() };
        self.hosts[to].handle(stimulus, &mut recorder);
        for call in recorder.calls {
            self.carry(to, call);
        }
    }

    fn carry(&mut self, from: usize, call: Call) {
        let life = self.lives[from];
        match call {
            Call::Look(model) => {
                assert_eq!(model, MODEL);
                if !self.lookers.contains(&from) {
                    self.lookers.push(from);
                }
                for offer in self.offers.clone().into_values() {
                    self.offer(from, &offer);
                }
            }
            Call::Publish(offer) => {
                self.offers.insert(from, offer.clone());
                for to in self.lookers.clone() {
                    self.offer(to, &offer);
                }
            }
            Call::Dial(session, peer) => {
                let at = self.now.after(self.delay());
                self.at(at, Event::Dialled { from, life, session, peer });
            }
            Call::Send(session, message, padding) => {
                self.bytes += message.encode().len() as u64 + u64::from(padding);
                let message = SessionMessage::decode(&message.encode()).unwrap();
                let delay = self.delay();
                if let Some(line) = self.lines.get_mut(&(from, session)) {
                    let at = self.now.after(delay).max(line.busy);
                    line.busy = at;
                    let (to, session) = (line.to, line.session);
                    let life = self.lives[to];
                    self.at(at, Event::Heard { to, life, session, message });
                }
            }
            Call::HangUp(session) => self.hang_up(from, session),
            Call::Wake(at, alarm) => {
                let stimulus = Stimulus::Alarm(alarm);
                self.at(at, Event::Give { to: from, life: Some(life), stimulus });
            }
            Call::Ledger(command) => {
                self.ledger.submit(self.hosts[from].spec(), command, self.now);
                self.await_block();
            }
            Call::Stopped(restart) => {
                self.process_gone(from);
                if let Some(at) = restart {
                    self.at(at, Event::Give { to: from, life: None, stimulus: Stimulus::Start });
                }
            }
            Call::Observe(fact) => {
                let id = self.hosts[from].spec().id;
                self.invariants.observe(self.now, id, &fact);
                self.facts.push((self.now, id, fact));
            }
        }
    }

    fn await_block(&mut self) {
        if let Some(at) = self.ledger.next_block()
            && self.block_at.is_none_or(|known| at < known)
        {
            self.block_at = Some(at);
            self.at(at, Event::Block);
        }
    }

    fn offer(&mut self, to: usize, offer: &SignedOffer) {
        let clock = Clock::new(self.hosts[to].spec().skew_ms);
        let Ok(offer) = offer.verify(clock.timestamp(self.now)) else { return };
        let at = self.now.after(self.delay());
        let stimulus = Stimulus::OfferHeard(Arc::new(offer));
        self.at(at, Event::Give { to, life: Some(self.lives[to]), stimulus });
    }

    fn hang_up(&mut self, from: usize, session: SessionId) {
        let delay = self.delay();
        let Some(line) = self.lines.remove(&(from, session)) else { return };
        let at = self.now.after(delay).max(line.busy);
        let (to, session) = (line.to, line.session);
        let life = self.lives[to];
        self.at(at, Event::Down { to, life, session });
    }

    fn process_gone(&mut self, host: usize) {
        self.ledger.crashed(self.hosts[host].spec().id);
        self.lives[host] += 1;
        let theirs: Vec<_> =
            self.lines.keys().filter(|(owner, _)| *owner == host).copied().collect();
        for (owner, session) in theirs {
            self.hang_up(owner, session);
        }
    }

    /// A consumer takes back what it set aside for a provider.
    pub(crate) fn release(&mut self, from: &HostSpec, provider: NodeId) {
        self.ledger.release(from, provider, self.now);
        self.await_block();
    }

    /// A consumer takes all its money back.
    pub(crate) fn retire(&mut self, host: usize) {
        self.ledger.retire(self.hosts[host].spec(), self.now);
        self.await_block();
    }

    /// `kill -9`.
    pub(crate) fn crash(&mut self, host: usize) {
        let mut recorder = Recorder { now: self.now, backlog: 0, calls: Vec::new() };
        self.hosts[host].crash(&mut recorder);
        for call in recorder.calls {
            self.carry(host, call);
        }
        self.process_gone(host);
    }

    fn dialled(&mut self, from: usize, session: SessionId, peer: NodeId) {
        let to = self.hosts.iter().position(|host| host.node() == peer).unwrap();
        let failure = match self.hosts[to].door() {
            Ok(()) if !self.weather.dials_fail => None,
            Ok(()) => Some(DialFailure::Unreachable),
            Err(failure) => Some(failure),
        };
        let at = self.now.after(self.delay());
        let life = Some(self.lives[from]);
        if let Some(failure) = failure {
            let stimulus = Stimulus::DialFailed { session, peer, failure };
            self.at(at, Event::Give { to: from, life, stimulus });
            return;
        }
        self.accepted += 1;
        let accepted = SessionId::accepted(self.accepted);
        let busy = self.now;
        self.lines.insert((from, session), Line { to, session: accepted, busy });
        self.lines.insert((to, accepted), Line { to: from, session, busy: at });
        let evidence = self.hosts[to].evidence().unwrap();
        let stimulus = Stimulus::SessionUp { session, peer, evidence: Box::new(evidence) };
        self.at(at, Event::Give { to: from, life, stimulus });
        let peer = self.hosts[from].node();
        self.give(to, Stimulus::SessionAccepted { session: accepted, peer });
    }

    /// The next event; false when nothing is under way.
    pub(crate) fn step(&mut self) -> bool {
        let Some(((at, _), event)) = self.events.pop_first() else { return false };
        self.now = at;
        match event {
            Event::Give { to, life, stimulus } => {
                if life.is_none_or(|life| life == self.lives[to]) {
                    self.give(to, stimulus);
                }
            }
            Event::Dialled { from, life, session, peer } => {
                if life == self.lives[from] {
                    self.dialled(from, session, peer);
                }
            }
            Event::Heard { to, life, session, message } => {
                if life == self.lives[to] && self.lines.contains_key(&(to, session)) {
                    self.give(to, Stimulus::Heard { session, message: Box::new(message) });
                }
            }
            Event::Down { to, life, session } => {
                if life == self.lives[to] && self.lines.remove(&(to, session)).is_some() {
                    self.give(to, Stimulus::SessionDown { session });
                }
            }
            Event::Block => {
                self.block_at = self.block_at.filter(|at| *at > self.now);
                let answers = self.ledger.advance(self.now);
                self.ledger.report(self.now, &mut self.invariants);
                for (id, answer) in answers {
                    let to = self.hosts.iter().position(|host| host.spec().id == id).unwrap();
                    self.give(to, Stimulus::Ledger(Box::new(answer)));
                }
                self.await_block();
            }
        }
        true
    }

    /// Lets this much time pass.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now.after(time);
        while self.events.first_key_value().is_some_and(|((at, _), _)| *at <= until) {
            self.step();
        }
        self.now = until;
    }

    /// Runs until every job is over; false when they are not after a long time.
    pub(crate) fn finish(&mut self) -> bool {
        for _ in 0..100 {
            self.run_for(Duration::from_secs(10));
            let count = |wanted: fn(&Observation) -> bool| {
                self.facts.iter().filter(|(_, _, fact)| wanted(fact)).count()
            };
            let over = count(|fact| {
                matches!(fact, Observation::JobFinished { .. } | Observation::JobFailed { .. })
            });
            if count(|fact| matches!(fact, Observation::JobSubmitted { .. })) == over {
                // Whatever is owed for the last of them arrives.
                self.run_for(Duration::from_secs(5));
                self.invariants.finish(self.now, false, &self.ledger);
                assert_eq!(self.invariants.violation(), None);
                return true;
            }
        }
        false
    }

    pub(crate) fn order(seed: u8) -> Order {
        Order {
            job: JobId::from_bytes([seed; 32]),
            model: MODEL,
            prompt: PROMPT,
            completion: COMPLETION,
            max_completion: Some(Tokens::new(400)),
            minimum_tier: Tier::Attested,
            max_cost: None,
            draw: 0,
        }
    }

    pub(crate) fn submit(&mut self, host: usize, seed: u8) -> JobId {
        let order = Self::order(seed);
        let job = order.job;
        self.give(host, Stimulus::Submit(Box::new(order)));
        job
    }

    /// Sessions that are open, each counted at both of its ends.
    pub(crate) fn lines(&self) -> usize {
        self.lines.len()
    }

    /// How a job ended.
    pub(crate) fn end(&self, job: JobId) -> Option<&Observation> {
        let mut ends = self.facts.iter().map(|(_, _, fact)| fact).filter(|fact| match fact {
            Observation::JobFinished { job: of, .. } | Observation::JobFailed { job: of, .. } => {
                *of == job
            }
            _ => false,
        });
        let end = ends.next();
        assert_eq!(ends.next(), None, "a job ends once");
        end
    }

    pub(crate) fn cost(&self, job: JobId) -> NanoTon {
        match self.end(job) {
            Some(Observation::JobFinished { cost, .. }) => *cost,
            other => panic!("the job did not finish: {other:?}"),
        }
    }

    pub(crate) fn failure(&self, job: JobId) -> simnet_host::FailureKind {
        match self.end(job) {
            Some(Observation::JobFailed { kind, .. }) => *kind,
            other => panic!("the job did not fail: {other:?}"),
        }
    }

    /// What a consumer has promised, all in all.
    pub(crate) fn promised(&self, host: usize) -> NanoTon {
        let payers = self.hosts[host].store().payers();
        sum(payers.iter().map(cocoon_protocol::channel::PayerState::cumulative))
    }

    /// What a provider can redeem, all in all.
    pub(crate) fn held(&self, host: usize) -> NanoTon {
        let payees = self.hosts[host].store().payees();
        sum(payees.iter().filter_map(|payee| payee.best()).map(|best| best.voucher.cumulative))
    }
}

pub(crate) fn sum(amounts: impl Iterator<Item = NanoTon>) -> NanoTon {
    amounts.fold(NanoTon::ZERO, |sum, amount| sum.checked_add(amount).unwrap())
}
