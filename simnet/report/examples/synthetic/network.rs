//! A network that never was: facts with the shape of a run's, from a seed, for looking at reports.
//!
//! Owns: plausible numbers. Must not: be taken for a simulation: nothing in here follows the protocol.

use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::channel::ChannelId;
use cocoon_protocol::identity::{JobId, ModelHash, NodeId, TonAddress};
use cocoon_protocol::job::FinishReason;
use cocoon_protocol::offer::Load;
use cocoon_protocol::units::{NanoTon, PricePerMillion, Prices, Tokens};
use rand_core::Rng as _;
use simnet_host::{FailureKind, HostId, Observation, Observer, Outcome, Sample};
use simnet_report::{Description, HostLabel, Region};
use simnet_scenario::{ChaCha8Rng, Moment, Seed};

const REGIONS: [(&str, f64, f64, u64); 12] = [
    ("us-east", 37.4, -79.0, 20),
    ("us-west", 37.8, -122.4, 14),
    ("brazil", -23.5, -46.6, 5),
    ("uk", 51.5, -0.1, 9),
    ("germany", 50.1, 8.7, 16),
    ("sweden", 60.7, 17.1, 4),
    ("uae", 25.3, 55.3, 3),
    ("india", 18.6, 73.9, 8),
    ("singapore", 1.3, 103.8, 7),
    ("japan", 35.7, 139.8, 8),
    ("australia", -33.9, 151.2, 4),
    ("south-africa", -26.2, 28.0, 2),
];
const CLASSES: [&str; 4] = ["laptop", "RTX 4090", "H100", "CPU"];
const BEHAVIOURS: [&str; 2] = ["fast-fail magnet", "free rider"];
const PROTOCOLS: [(&str, u64); 6] = [
    ("kademlia", 420),
    ("gossip", 610),
    ("offers", 260),
    ("sessions", 900),
    ("identify", 90),
    ("ping", 25),
];

/// What the network is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) hosts: u32,
    pub(crate) seconds: u64,
    /// Multiplies how fast jobs are served, so that two variants differ.
    pub(crate) pace: f64,
}

struct Draws(ChaCha8Rng);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound.max(1)
    }

    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Log-normal by the sum of twelve.
    fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        let normal: f64 = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        median * (sigma * normal).exp()
    }
}

fn bytes(label: &str, index: u64) -> [u8; 32] {
    Seed(0).bytes(label, index)
}

pub(crate) fn model() -> ModelHash {
    ModelHash::from_bytes(bytes("model", 0))
}

fn provides(host: u32, shape: &Shape) -> bool {
    host < shape.hosts / 6
}

fn adversary(host: u32, shape: &Shape) -> Option<u16> {
    match host % 29 {
        3 if provides(host, shape) => Some(0),
        7 if !provides(host, shape) => Some(1),
        _ => None,
    }
}

fn region(draws: &mut Draws) -> u16 {
    let mut at = draws.below(REGIONS.iter().map(|it| it.3).sum());
    for (number, region) in (0..).zip(&REGIONS) {
        if at < region.3 {
            return number;
        }
        at -= region.3;
    }
    0
}

pub(crate) fn description(shape: &Shape, variant: &str) -> Description {
    let mut draws = Draws(Seed(shape.seed).stream("hosts", 0));
    let hosts = (0..shape.hosts).map(|host| HostLabel {
        node: NodeId::from_bytes(bytes("host", u64::from(host))),
        consumer: !provides(host, shape),
        provider: provides(host, shape),
        tier: provides(host, shape).then_some(cocoon_protocol::attest::Tier::Open),
        region: region(&mut draws),
        class: if provides(host, shape) { 1 + (host % 2) as u16 } else { 0 },
        adversary: adversary(host, shape),
    });
    Description {
        scenario: "synthetic".to_owned(),
        scenario_text: format!("# Not a scenario: made by examples/synthetic.\n{shape:?}\n"),
        variant: variant.to_owned(),
        seed: shape.seed,
        tier: "abstract".to_owned(),
        commit: "none".to_owned(),
        hosts: hosts.collect(),
        regions: REGIONS
            .iter()
            .map(|it| Region { name: it.0.to_owned(), latitude: Some(it.1), longitude: Some(it.2) })
            .collect(),
        classes: CLASSES.map(str::to_owned).to_vec(),
        behaviours: BEHAVIOURS.map(str::to_owned).to_vec(),
        models: vec![(model(), "qwen3-0.6b".to_owned())],
        victims: vec![shape.hosts - 1],
        warm_up: Moment::from_millis(10_000),
    }
}

/// A fact and when it is stated, in microseconds; or a sample when there is no host.
type Stated = (u64, u32, Observation);

struct Network {
    shape: Shape,
    draws: Draws,
    facts: Vec<Stated>,
    promised: std::collections::BTreeMap<(u32, u32), u64>,
}

fn micros(duration: u64) -> Duration {
    Duration::from_micros(duration)
}

impl Network {
    fn say(&mut self, at: u64, host: u32, fact: Observation) {
        self.facts.push((at, host, fact));
    }

    fn population(&mut self) {
        for host in 0..self.shape.hosts {
            let start = self.draws.below(4_000_000);
            self.say(start, host, Observation::Started { restart: false });
            if provides(host, &self.shape) {
                let price = self.draws.lognormal(25e6, 0.35) as u64;
                for hour in 0..self.shape.seconds / 20 {
                    let prices = Prices {
                        prompt: PricePerMillion::from_nano(price / 4),
                        completion: PricePerMillion::from_nano(
                            price + price * (hour % 7) / 60 * u64::from(host % 3),
                        ),
                    };
                    let load = if self.draws.below(3) == 0 { Load::Busy } else { Load::Idle };
                    let offered = Observation::Offered { load, prices };
                    self.say(start + 100_000 + hour * 20_000_000, host, offered);
                }
            } else {
                let after = self.draws.lognormal(900_000.0, 0.5) as u64;
                let ready = Observation::RouteReady { model: model(), after: micros(after) };
                self.say(start + after, host, ready);
            }
            if self.draws.below(12) == 0 {
                let at = self.draws.below(self.shape.seconds * 1_000_000);
                self.say(at, host, Observation::Crashed);
                self.say(at + 5_000_000, host, Observation::Started { restart: true });
            }
        }
    }

    fn jobs(&mut self) {
        let end = self.shape.seconds * 1_000_000;
        let mut at = 5_000_000.0;
        let mut number = 0;
        while at < end as f64 {
            let burst = (0.4..0.55).contains(&(at / end as f64));
            let gap = 4e6 / f64::from(self.shape.hosts) * if burst { 0.3 } else { 1.0 };
            at += self.draws.exponential(gap);
            self.job(at as u64, number, burst);
            number += 1;
        }
    }

    fn job(&mut self, at: u64, number: u64, burst: bool) {
        let providers = u64::from(self.shape.hosts / 6).max(1);
        let consumer =
            (providers + self.draws.below(u64::from(self.shape.hosts) - providers)) as u32;
        // Squared, so that income is uneven.
        let provider = ((self.draws.unit() * self.draws.unit()) * providers as f64) as u32;
        let job = JobId::from_bytes(bytes("job", number));
        let peer = NodeId::from_bytes(bytes("host", u64::from(provider)));
        let asked = if self.draws.below(3) == 0 { Tier::Attested } else { Tier::Open };
        self.say(
            at,
            consumer,
            Observation::JobSubmitted { job, model: model(), minimum_tier: asked },
        );
        let hostile = adversary(provider, &self.shape) == Some(0);
        let session = self.draws.lognormal(180_000.0, 0.6) as u64;
        let failed = hostile && self.draws.below(3) > 0 || self.draws.below(60) == 0;
        if self.draws.below(40) == 0 {
            let failure = Observation::SessionFailed { peer, refused: self.draws.below(4) == 0 };
            self.say(at + session, consumer, failure);
        }
        let opened = Observation::SessionOpened { peer, after: micros(session) };
        self.say(at + session, consumer, opened);
        let sent = Observation::PromptSent { job, provider: peer, asked, genuine: asked, hostile };
        self.say(at + session, consumer, sent);
        if failed {
            let kinds = [
                FailureKind::ProviderLost,
                FailureKind::Refused,
                FailureKind::Unreachable,
                FailureKind::NoTier,
                FailureKind::Misbehaved,
            ];
            let kind = kinds[(self.draws.unit() * self.draws.unit() * 5.0) as usize];
            let after = session + self.draws.lognormal(2e6, 0.7) as u64;
            let paid = NanoTon::from_nano(self.draws.below(4_000));
            let fact =
                Observation::JobFailed { job, kind, attempts: 3, after: micros(after), paid };
            self.say(at + after, consumer, fact);
            return;
        }
        let slow = if burst { 2.2 } else { 1.0 } * self.shape.pace;
        let first = session + self.draws.lognormal(420_000.0 * slow, 0.55) as u64;
        let completion = 20 + self.draws.exponential(220.0) as u32;
        let after =
            first + (f64::from(completion) * self.draws.lognormal(22_000.0 * slow, 0.3)) as u64;
        self.say(at + first, consumer, Observation::FirstToken { job, after: micros(first) });
        let cost = u64::from(completion) * 26 + self.draws.below(900);
        let channel = ChannelId {
            vault: TonAddress { workchain: 0, hash: bytes("vault", u64::from(consumer)) },
            provider: peer,
            epoch: 1,
        };
        let total = self.promised.entry((consumer, provider)).or_default();
        *total += cost;
        let cumulative = NanoTon::from_nano(*total);
        let exposed = Observation::Exposed {
            job,
            unpaid: Tokens::new(64),
            value: NanoTon::from_nano(64 * 26),
            peer_owes: NanoTon::from_nano(64 * 26),
            step: NanoTon::from_nano(32 * 26),
            credited: cumulative,
        };
        self.say(at + first + 1, provider, exposed);
        self.say(at + after, consumer, Observation::Promised { channel, cumulative });
        self.say(at + after, provider, Observation::Held { channel, cumulative });
        let engine = Duration::from_micros(after - session);
        self.say(at + after, provider, Observation::Worked { engine });
        let unpaid = adversary(consumer, &self.shape) == Some(1);
        let finished = Observation::JobFinished {
            job,
            provider: peer,
            reason: if unpaid { FinishReason::Unpaid } else { FinishReason::Stop },
            prompt: Tokens::new(40),
            completion: Tokens::new(completion),
            cost: NanoTon::from_nano(cost),
            vouchers: completion / 64 + 1,
            attempts: 1 + u32::from(self.draws.below(12) == 0),
            after: micros(after),
        };
        self.say(at + after, consumer, finished);
        if number % 40 == 0 {
            self.say(
                at + after + 5_000_000,
                provider,
                Observation::Settled { channel, paid: cumulative },
            );
        }
    }
}

/// Plays the network to a watcher; a sample a second.
pub(crate) fn play(shape: Shape, watcher: &mut dyn Observer) -> Outcome {
    let draws = Draws(Seed(shape.seed).stream("network", 0));
    let mut network =
        Network { shape, draws, facts: Vec::new(), promised: std::collections::BTreeMap::new() };
    network.population();
    network.jobs();
    let mut facts = network.facts;
    facts.sort_by_key(|it| it.0);
    let end = shape.seconds * 1_000_000;
    facts.retain(|it| it.0 < end);
    let (mut next, mut sent) = (1, [0_u64; PROTOCOLS.len()]);
    let mut draws = network.draws;
    let mut sample = |watcher: &mut dyn Observer| {
        let hosts = u64::from(shape.hosts).min(next * u64::from(shape.hosts) / 4);
        for (total, protocol) in sent.iter_mut().zip(&PROTOCOLS) {
            let boot = if next < 12 { 14 - next } else { 1 };
            *total += hosts * protocol.1 * boot * (70 + draws.below(60)) / 100;
        }
        watcher.sample(&Sample {
            at: Moment::from_millis(next * 1000),
            hosts: hosts as u32,
            connections: hosts * 9,
            traffic: PROTOCOLS
                .iter()
                .zip(sent)
                .map(|(protocol, sent)| (protocol.0, sent))
                .collect(),
        });
        next += 1;
        next * 1_000_000
    };
    let mut due = 1_000_000;
    for (at, host, fact) in &facts {
        while *at >= due {
            due = sample(watcher);
        }
        watcher.observe(Moment::from_nanos(at * 1000), HostId(*host), fact);
    }
    while due <= end {
        due = sample(watcher);
    }
    Outcome {
        at: Moment::from_nanos(end * 1000),
        interrupted: false,
        events: facts.len() as u64,
        trace: bytes("trace", shape.seed),
    }
}
