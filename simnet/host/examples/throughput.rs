//! What hosts cost: memory of an idle one, and stimuli in a second of processor time.
//!
//! `cargo run -p simnet-host --example throughput -- [consumers] [providers] [virtual seconds]`
//!
//! Owns: a fabric as thin as one can be, so that the hosts are what is measured.
//! Must not: be taken for a network: every message takes 40 ms.

#![expect(clippy::print_stdout, reason = "a measurement for a person to read")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{JobId, ModelHash, NodeId, TonAddress};
use cocoon_protocol::insecure_simulated_signatures::{PublicKeys, simulate};
use cocoon_protocol::offer::{ModelOffer, SignedOffer, VerifiedOffer};
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::pricing::Fixed;
use cocoon_protocol::selection::Balanced;
use cocoon_protocol::units::{NanoTon, PricePerMillion, Prices, Tokens};
use cocoon_protocol::wire::SessionMessage;
use simnet_host::{
    Alarm, Clock, ConsumerSpec, DialFailure, Fabric, Host, HostId, HostSpec, HotKey, Ledger,
    Observation, Order, ProviderSpec, SessionId, Stimulus,
};
use simnet_scenario::{Moment, Seed};

const MODEL: ModelHash = ModelHash::from_bytes([9; 32]);
const DELAY: Duration = Duration::from_millis(40);
const SEED: Seed = Seed(1);

fn host(id: u32) -> HostSpec {
    HostSpec::plain(HostId(id), SEED)
}

fn consumer(id: u32, policy: &Arc<Balanced>) -> HostSpec {
    let consumer = ConsumerSpec {
        vault_key: HotKey::Drawn,
        deposit: NanoTon::from_nano(1_000_000_000),
        allocation: NanoTon::from_nano(100_000_000),
        patience: None,
        policy: policy.clone(),
    };
    HostSpec { consumer: Some(consumer), ..host(id) }
}

fn provider(id: u32, pricing: &Arc<Fixed>) -> HostSpec {
    let price = PricePerMillion::from_nano(100_000_000);
    let provider = ProviderSpec {
        models: vec![ModelOffer {
            model: MODEL,
            name: String::new(),
            quantisation: String::new(),
            context: Tokens::new(8_192),
            prices: Prices { prompt: price, completion: price },
        }],
        tier: Tier::Attested,
        genuine: Tier::Attested,
        payout: TonAddress { workchain: 0, hash: SEED.bytes("payout", id.into()) },
        places: 16,
        queue: 0,
        prefill_per_second: 3_000.0,
        decode_per_second: 50.0,
        contention: ProviderSpec::CONTENTION_GPU,
        flush: Duration::from_millis(400),
        settle_threshold: NanoTon::from_nano(120_000_000),
        pricing: pricing.clone(),
    };
    HostSpec { provider: Some(Box::new(provider)), ..host(id) }
}

type Event = (Moment, u64, usize);

/// The world, with what is under way by number.
struct World {
    now: Moment,
    queue: BinaryHeap<Reverse<Event>>,
    parcels: Vec<Option<Parcel>>,
    free: Vec<usize>,
    sequence: u64,
    lines: BTreeMap<(usize, SessionId), (usize, SessionId)>,
    accepted: u64,
    offers: Vec<Option<Arc<VerifiedOffer>>>,
    names: BTreeMap<NodeId, usize>,
    ledger: Ledger,
    block: Option<Moment>,
    dials: Vec<(usize, SessionId, NodeId)>,
    finished: u64,
    failed: u64,
}

enum Parcel {
    Give(usize, Stimulus),
    Block,
    Dial(usize, SessionId, NodeId),
}

struct View<'a> {
    world: &'a mut World,
    from: usize,
    spec: &'a HostSpec,
}

impl World {
    fn post(&mut self, at: Moment, parcel: Parcel) {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.parcels.push(None);
                self.parcels.len() - 1
            }
        };
        self.parcels[place] = Some(parcel);
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence, place)));
    }

    fn later(&mut self, to: usize, stimulus: Stimulus) {
        self.post(self.now.after(DELAY), Parcel::Give(to, stimulus));
    }
}

impl Fabric for View<'_> {
    fn now(&self) -> Moment {
        self.world.now
    }
    fn avoid(&mut self, _: NodeId) {}

    fn look(&mut self, _: ModelHash, _: Tier) {
        for turn in 0..8 {
            let at = (self.from * 7 + turn * 13) % self.world.offers.len();
            if let Some(offer) = self.world.offers[at].clone() {
                self.world.later(self.from, Stimulus::OfferHeard(offer));
            }
        }
    }
    fn publish(&mut self, offer: SignedOffer) {
        let now = Clock::new(0).timestamp(self.world.now);
        self.world.offers[self.from] = offer.verify(now).ok().map(Arc::new);
    }
    fn dial(&mut self, session: SessionId, peer: NodeId) {
        self.world.dials.push((self.from, session, peer));
    }
    fn send(&mut self, session: SessionId, message: SessionMessage, _: u32) {
        if let Some((to, session)) = self.world.lines.get(&(self.from, session)).copied() {
            self.world.later(to, Stimulus::Heard { session, message: Box::new(message) });
        }
    }
    fn hang_up(&mut self, session: SessionId) {
        if let Some((to, session)) = self.world.lines.remove(&(self.from, session)) {
            self.world.later(to, Stimulus::SessionDown { session });
        }
    }
    fn wake(&mut self, at: Moment, alarm: Alarm) {
        self.world.post(at, Parcel::Give(self.from, Stimulus::Alarm(alarm)));
    }
    fn ledger(&mut self, command: LedgerCommand) {
        self.world.ledger.submit(self.spec, command, self.world.now);
        if let Some(at) = self.world.ledger.next_block()
            && self.world.block.is_none_or(|block| at < block)
        {
            self.world.block = Some(at);
            self.world.post(at, Parcel::Block);
        }
    }
    fn stopped(&mut self, _: Option<Moment>) {}
    fn observe(&mut self, fact: Observation) {
        if matches!(fact, Observation::JobFinished { .. }) {
            self.world.finished += 1;
        } else if matches!(fact, Observation::JobFailed { .. }) {
            self.world.failed += 1;
        }
    }
}

/// Resident memory in bytes, as the kernel counts it.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4_096
}

/// Processor time of this process so far, in seconds: another's load does not count.
fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// The world and who is in it.
struct Run {
    world: World,
    specs: Vec<Arc<HostSpec>>,
    hosts: Vec<Host>,
    handled: u64,
}

impl Run {
    fn new(specs: Vec<Arc<HostSpec>>, providers: usize) -> Self {
        let world = World {
            now: Moment::START,
            queue: BinaryHeap::new(),
            parcels: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            lines: BTreeMap::new(),
            accepted: 0,
            offers: vec![None; providers],
            names: specs.iter().enumerate().map(|(at, spec)| (spec.key.id(), at)).collect(),
            ledger: Ledger::default(),
            block: None,
            dials: Vec::new(),
            finished: 0,
            failed: 0,
        };
        let hosts = specs.iter().map(|spec| Host::new(spec.clone())).collect();
        let mut run = Self { world, specs, hosts, handled: 0 };
        for to in 0..run.hosts.len() {
            run.handle(to, Stimulus::Start);
        }
        run
    }

    fn handle(&mut self, to: usize, stimulus: Stimulus) {
        self.handled += 1;
        let world = &mut self.world;
        self.hosts[to].handle(stimulus, &mut View { world, from: to, spec: &self.specs[to] });
        for (from, session, peer) in std::mem::take(&mut self.world.dials) {
            let at = self.world.now.after(DELAY);
            self.world.post(at, Parcel::Dial(from, session, peer));
        }
    }

    fn deliver(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Give(to, stimulus) => self.handle(to, stimulus),
            Parcel::Block => {
                self.world.block = None;
                let now = self.world.now;
                for (host, answer) in self.world.ledger.advance(now) {
                    let to = usize::try_from(host.0).unwrap_or(0);
                    self.handle(to, Stimulus::Ledger(Box::new(answer)));
                }
                if let Some(at) = self.world.ledger.next_block() {
                    self.world.block = Some(at);
                    self.world.post(at, Parcel::Block);
                }
            }
            Parcel::Dial(from, session, peer) => self.dial(from, session, peer),
        }
    }

    fn dial(&mut self, from: usize, session: SessionId, peer: NodeId) {
        let to = self.world.names[&peer];
        let evidence = self.hosts[to].evidence().filter(|_| self.hosts[to].door().is_ok());
        let Some(evidence) = evidence else {
            let failure = DialFailure::Busy;
            self.world.later(from, Stimulus::DialFailed { session, peer, failure });
            return;
        };
        self.world.accepted += 1;
        let accepted = SessionId::accepted(self.world.accepted);
        self.world.lines.insert((from, session), (to, accepted));
        self.world.lines.insert((to, accepted), (from, session));
        self.world.later(from, Stimulus::SessionUp { session, peer, evidence: Box::new(evidence) });
        let (session, peer) = (accepted, self.specs[from].key.id());
        self.handle(to, Stimulus::SessionAccepted { session, peer });
    }
}

/// One job for each consumer, spread over three quarters of the run.
fn order(at: u32, seconds: u32) -> (Moment, Order) {
    let drawn = SEED.bytes("job", at.into());
    let when = Duration::from_millis(u64::from(drawn[0]) * u64::from(seconds) * 3);
    let order = Order {
        job: JobId::from_bytes(drawn),
        model: MODEL,
        prompt: Tokens::new(200),
        completion: Tokens::new(200 + u32::from(drawn[1])),
        max_completion: Some(Tokens::new(1_000)),
        minimum_tier: Tier::Attested,
        max_cost: None,
        draw: u64::from(drawn[2]) << 32 | u64::from(drawn[3]),
    };
    (Moment::START.after(when), order)
}

fn main() {
    simulate(Some(PublicKeys::Hashed));
    let mut arguments = std::env::args().skip(1).map(|it| it.parse::<u32>().ok());
    let mut number = |default| arguments.next().flatten().unwrap_or(default);
    let (consumers, providers, seconds) = (number(20_000), number(1_000), number(60));
    let (policy, pricing) = (Arc::new(Balanced), Arc::new(Fixed));
    let before = resident();
    let specs = (0..providers).map(|id| provider(id, &pricing));
    let specs = specs.chain((providers..providers + consumers).map(|id| consumer(id, &policy)));
    let specs: Vec<_> = specs.map(Arc::new).collect();
    let all = specs.len();
    println!("specification: {} bytes a host", (resident() - before) / all);
    let before = resident();
    let mut run = Run::new(specs, usize::try_from(providers).unwrap_or(1));
    println!("started, idle: {} bytes a host", (resident() - before) / all);
    for at in 0..consumers {
        let (when, order) = order(at, seconds);
        let to = usize::try_from(providers + at).unwrap_or(0);
        run.world.post(when, Parcel::Give(to, Stimulus::Submit(Box::new(order))));
    }
    let until = Moment::START.after(Duration::from_secs(seconds.into()));
    let began = processor();
    run.handled = 0;
    while let Some(Reverse((at, _, place))) = run.world.queue.pop() {
        if at > until {
            break;
        }
        run.world.now = at;
        run.world.free.push(place);
        if let Some(parcel) = run.world.parcels[place].take() {
            run.deliver(parcel);
        }
    }
    let (took, handled) = (processor() - began, run.handled);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = handled as f64 / took / 1e6;
    println!("{handled} stimuli in {took:.2} s of processor time: {rate:.2} million a second");
    println!("{} jobs finished, {} failed", run.world.finished, run.world.failed);
    println!("after the run: {} bytes a host", (resident() - before) / all);
}
