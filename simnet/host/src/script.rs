//! What befalls the world of a run from outside, in order: users, churn, crashes, cuts.
//!
//! Owns: the one stream of such events, the same for both tiers. Must not: know what comes of them.
//!
//! It is generated as the run goes on, and what it keeps does not grow with the run: one entry for
//! the demand of all users together, and one for each cause that can bring a host down. Every event
//! draws from a stream of its own, so that no generator has to be kept for each host.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::JobId;
use cocoon_protocol::units::Tokens;
use rand_core::Rng as _;
use simnet_scenario::demand::Pattern;
use simnet_scenario::draw::{
    below, fraction, log_normal, shuffle, wait, weibull, weibull_rest, weighted,
};
use simnet_scenario::population::{ChurnClass, Sessions};
use simnet_scenario::{
    AdversaryKind, ChaCha8Rng, Moment, Regions, Scenario, Seed, quantity::Portion,
};

use crate::fabric::HostId;
use crate::host::HostSpec;
use crate::population::{Wanted, models};
use crate::stimulus::Order;

/// Something that befalls one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// It starts, for the first time or again. One that runs takes no notice.
    Start,
    /// A user of it wants a job done. One that does not run takes no notice: its user sees a
    /// window that does not answer, and that is no job of the network.
    Submit(Order),
    /// A user of it closes the window.
    Cancel(JobId),
    /// Its process dies. One that does not run takes no notice.
    Crash,
    /// It is asked to finish what it has and leave.
    Leave,
}

/// Something that befalls the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorldEvent {
    /// A cut begins: nothing passes between its inside and the rest. By its number.
    Cut(usize),
    /// It heals.
    Heal(usize),
}

/// Something that befalls the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// One host.
    Host(HostId, HostEvent),
    /// The network.
    World(WorldEvent),
}

/// A part of the hosts that is cut off for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// From when.
    pub from: Moment,
    /// Until when.
    pub until: Moment,
    /// Who is inside, by host number.
    inside: Vec<bool>,
}

impl Cut {
    /// Whether a host is on the inside.
    pub fn holds(&self, host: HostId) -> bool {
        let place = usize::try_from(host.0).unwrap_or(usize::MAX);
        self.inside.get(place).copied().unwrap_or(false)
    }
}

/// Why a host goes down; each cause has its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// The end of its session, as its class of churn has it.
    Session,
    /// The share of providers that are lost in an hour.
    Loss,
    /// A fault.
    Crash,
}

/// What the script has to do next, when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    World(bool, usize),
    Start(u32),
    Back(u32),
    Down(u32, Cause),
    Job,
    Cancel(u32, [u8; 32]),
}

/// What is kept of a host that can go down.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    /// Draws so far.
    draws: u32,
    /// It is down until then.
    down_until: Moment,
}

/// The stream of events. An iterator in the order of time that ends with the scenario.
#[derive(Debug)]
pub struct Script {
    scenario: Scenario,
    seed: Seed,
    hosts: Vec<Arc<HostSpec>>,
    models: Vec<Wanted>,
    weights: Vec<f64>,
    /// Who has users, by host number.
    consumers: Vec<u32>,
    cuts: Vec<Cut>,
    /// The order in which hosts start, the next one last.
    starts: Vec<u32>,
    started: u32,
    lives: Vec<Life>,
    jobs: u64,
    queue: BinaryHeap<Reverse<(Moment, u64, Entry)>>,
    pushed: u64,
    end: Moment,
}

impl Script {
    /// The events of a run with these hosts, which are those of [`crate::population::draw`].
    pub fn new(scenario: &Scenario, seed: Seed, hosts: &[Arc<HostSpec>]) -> Self {
        let models = models(scenario);
        let mut script = Self {
            scenario: scenario.clone(),
            seed,
            hosts: hosts.to_vec(),
            weights: models.iter().map(|model| model.weight).collect(),
            models,
            consumers: hosts.iter().filter(|it| it.consumer.is_some()).map(|it| it.id.0).collect(),
            cuts: cuts(scenario, seed, hosts),
            starts: starts(hosts),
            started: 0,
            lives: Vec::new(),
            jobs: 0,
            queue: BinaryHeap::new(),
            pushed: 0,
            end: Moment::START.after(scenario.duration.duration()),
        };
        for number in 0..script.cuts.len() {
            if let Some(cut) = script.cuts.get(number) {
                let (from, until) = (cut.from, cut.until);
                script.push(from, Entry::World(true, number));
                script.push(until, Entry::World(false, number));
            }
        }
        script.push_next_start();
        script.push_next_job(Moment::START.after(scenario.demand.starts.duration()));
        script
    }

    /// The cuts of the run; [`WorldEvent`]s name them by their place.
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// When the next event is due; [`Iterator::next`] gives it.
    pub fn next_at(&self) -> Option<Moment> {
        self.queue.peek().map(|Reverse((at, _, _))| *at).filter(|at| *at <= self.end)
    }

    /// How many events it keeps in mind: bounded by the population, whatever the run's length.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    fn push(&mut self, at: Moment, entry: Entry) {
        if at <= self.end {
            self.pushed += 1;
            self.queue.push(Reverse((at, self.pushed, entry)));
        }
    }

    /// Hosts start evenly over the scenario's time for it.
    fn push_next_start(&mut self) {
        let Some(host) = self.starts.pop() else { return };
        let count = u64::try_from(self.hosts.len()).unwrap_or(u64::MAX).max(1);
        let over = self.scenario.start_over.as_micros();
        let micros = over.saturating_mul(u64::from(self.started)) / count;
        self.started = self.started.saturating_add(1);
        self.push(Moment::START.after(Duration::from_micros(micros)), Entry::Start(host));
    }

    /// A stream for one draw about a host's life.
    fn life(&mut self, host: u32, cause: Cause) -> ChaCha8Rng {
        if self.lives.is_empty() {
            self.lives.resize(self.hosts.len(), Life::default());
        }
        let draws = self.lives.get_mut(place(host)).map_or(0, |life| {
            life.draws = life.draws.wrapping_add(1);
            life.draws
        });
        let label = match cause {
            Cause::Session => "session",
            Cause::Loss => "loss",
            Cause::Crash => "crash",
        };
        self.seed.stream(label, u64::from(host) << 32 | u64::from(draws))
    }

    fn sessions(&self, host: u32) -> Option<Sessions> {
        match self.hosts.get(place(host))?.churn {
            ChurnClass::None => None,
            ChurnClass::Hobby => Some(self.scenario.churn.hobby),
            ChurnClass::Datacentre => Some(self.scenario.churn.datacentre),
        }
    }

    /// When this cause brings a host down that runs from `now` on. `first`: it is met in the middle
    /// of its session, as the network is.
    fn push_down(&mut self, now: Moment, host: u32, cause: Cause, first: bool) {
        let Some(spec) = self.hosts.get(place(host)) else { return };
        let honest = !spec.hostile;
        let rate = match cause {
            Cause::Session => 0.0,
            Cause::Loss if spec.provider.is_some() && honest => {
                self.scenario.churn.provider_loss.each_second()
            }
            Cause::Loss => 0.0,
            Cause::Crash => self.scenario.faults.crash.each_second(),
        };
        let after = match (cause, self.sessions(host)) {
            (Cause::Session, Some(it)) => {
                let mut rng = self.life(host, cause);
                let (median, shape) = (it.session_median.duration(), it.session_shape);
                if first {
                    weibull_rest(&mut rng, median, shape)
                } else {
                    weibull(&mut rng, median, shape)
                }
            }
            _ if rate > 0.0 => wait(&mut self.life(host, cause), rate),
            _ => return,
        };
        self.push(now.after(after), Entry::Down(host, cause));
    }

    /// How long a host that goes down stays down, and whether it says goodbye.
    fn absence(&mut self, host: u32, cause: Cause) -> (Duration, bool) {
        let hobby = self.scenario.churn.hobby;
        let sessions = self.sessions(host).unwrap_or(hobby);
        let mut rng = self.life(host, cause);
        let away =
            |rng: &mut ChaCha8Rng, it: &Sessions| weibull(rng, it.absence_median.duration(), 1.0);
        match cause {
            Cause::Crash => (self.scenario.faults.restart_after.0.duration(), false),
            Cause::Loss => (away(&mut rng, &hobby), false),
            Cause::Session => {
                let absence = away(&mut rng, &sessions);
                (absence, !sessions.abrupt.takes(rng.next_u64()))
            }
        }
    }

    fn down(&mut self, now: Moment, host: u32, cause: Cause) -> Option<Event> {
        // A host that is down cannot go down; its session's clock starts when it is back.
        let until = self.lives.get(place(host)).map_or(Moment::START, |life| life.down_until);
        if until > now {
            if cause != Cause::Session {
                self.push_down(now, host, cause, false);
            }
            return None;
        }
        let (absence, goodbye) = self.absence(host, cause);
        let back = now.after(absence.max(Duration::from_millis(1)));
        if let Some(life) = self.lives.get_mut(place(host)) {
            life.down_until = back;
        }
        self.push(back, Entry::Back(host));
        if cause == Cause::Session {
            self.push_down(back, host, cause, false);
        } else {
            self.push_down(now, host, cause, false);
        }
        let event = if goodbye { HostEvent::Leave } else { HostEvent::Crash };
        Some(Event::Host(HostId(host), event))
    }

    /// The next job that a user wants, after `now`: events of the highest rate, thinned out.
    fn push_next_job(&mut self, now: Moment) {
        let demand = &self.scenario.demand;
        if self.consumers.is_empty() {
            return;
        }
        if demand.pattern == Pattern::Recorded {
            let next =
                usize::try_from(self.jobs).ok().and_then(|it| self.scenario.recorded.get(it));
            if let Some(job) = next {
                self.push(job.at, Entry::Job);
            }
            return;
        }
        let peak = demand.peak_intensity();
        let rate = demand.rate.each_second() * peak;
        if rate <= 0.0 {
            return;
        }
        let mut rng = self.seed.stream("arrival", self.jobs);
        let mut at = now;
        while at <= self.end {
            at = at.after(wait(&mut rng, rate));
            if fraction(&mut rng) * peak < self.scenario.demand.intensity(at) {
                self.push(at, Entry::Job);
                return;
            }
        }
    }

    fn job(&mut self, now: Moment) -> Option<Event> {
        let number = self.jobs;
        self.jobs += 1;
        let mut rng = self.seed.stream("job", number);
        let users = u64::try_from(self.consumers.len()).unwrap_or(0);
        let who = below(&mut rng, users);
        let host = usize::try_from(who).ok().and_then(|it| self.consumers.get(it)).copied();
        let order = self.order(number, &mut rng);
        self.push_next_job(now);
        let (host, order) = (host?, order?);
        let demand = &self.scenario.demand;
        if demand.leave.takes(rng.next_u64()) {
            let after = log_normal(&mut rng, demand.leave_after.duration(), 1.0);
            self.push(now.after(after), Entry::Cancel(host, *order.job.as_bytes()));
        }
        Some(Event::Host(HostId(host), HostEvent::Submit(order)))
    }

    fn order(&self, number: u64, rng: &mut ChaCha8Rng) -> Option<Order> {
        let demand = &self.scenario.demand;
        let recorded = match demand.pattern {
            Pattern::Recorded => {
                usize::try_from(number).ok().and_then(|it| self.scenario.recorded.get(it))
            }
            Pattern::Poisson | Pattern::Diurnal => None,
        };
        let named = recorded.and_then(|job| job.model.as_ref());
        let drawn = weighted(rng, &self.weights).and_then(|it| self.models.get(it));
        let model =
            named.and_then(|name| self.models.iter().find(|it| it.name == *name)).or(drawn)?;
        let mix = &demand.minimum_tier;
        let tier = match weighted(rng, &[mix.open, mix.attested, mix.confidential]) {
            Some(2) => Tier::Confidential,
            Some(1) => Tier::Attested,
            _ => Tier::Open,
        };
        let (prompt, completion) = (demand.prompt.draw(rng), demand.completion.draw(rng));
        let prompt = recorded.map_or(prompt, |job| job.prompt);
        let completion = recorded.map_or(completion, |job| job.completion);
        let limit = demand.completion.max_tokens.max(completion).min(model.context / 2);
        let capped = demand.cap.share.takes(rng.next_u64());
        Some(Order {
            job: JobId::from_bytes(self.seed.bytes("job id", number)),
            model: model.hash,
            // What a user has to say is cut to what the model can read.
            prompt: Tokens::new(prompt.min(model.context - limit)),
            completion: Tokens::new(completion),
            max_completion: Some(Tokens::new(limit)),
            minimum_tier: recorded.and_then(|job| job.tier).unwrap_or(tier),
            max_cost: capped.then_some(demand.cap.at_most.0),
            draw: rng.next_u64(),
        })
    }

    fn act(&mut self, now: Moment, entry: Entry) -> Option<Event> {
        match entry {
            Entry::World(begins, number) => {
                let event = if begins { WorldEvent::Cut(number) } else { WorldEvent::Heal(number) };
                Some(Event::World(event))
            }
            // It is nobody's turn either: the others start when they would start beside it.
            Entry::Start(host) if self.hosts.get(place(host)).is_some_and(|it| it.is_absent()) => {
                self.push_next_start();
                None
            }
            Entry::Start(host) => {
                for cause in [Cause::Session, Cause::Loss, Cause::Crash] {
                    self.push_down(now, host, cause, true);
                }
                self.push_next_start();
                Some(Event::Host(HostId(host), HostEvent::Start))
            }
            Entry::Back(host) => Some(Event::Host(HostId(host), HostEvent::Start)),
            Entry::Down(host, cause) => self.down(now, host, cause),
            Entry::Job => self.job(now),
            Entry::Cancel(host, job) => {
                let job = JobId::from_bytes(job);
                Some(Event::Host(HostId(host), HostEvent::Cancel(job)))
            }
        }
    }
}

impl Iterator for Script {
    type Item = (Moment, Event);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Reverse((at, _, entry)) = self.queue.pop()?;
            if let Some(event) = self.act(at, entry) {
                return Some((at, event));
            }
        }
    }
}

/// A host's number as a place in a list.
fn place(host: u32) -> usize {
    usize::try_from(host).unwrap_or(usize::MAX)
}

/// Those who keep the index start first and those who look in it last: a network is there before
/// its users are. The list is in reverse.
fn starts(hosts: &[Arc<HostSpec>]) -> Vec<u32> {
    let mut starts: Vec<(u8, u32)> = hosts
        .iter()
        .map(|host| {
            let rank = match (&host.provider, &host.consumer) {
                (None, None) => 0,
                (Some(_), _) => 1,
                (None, Some(_)) => 2,
            };
            (rank, host.id.0)
        })
        .collect();
    starts.sort_unstable_by(|a, b| b.cmp(a));
    starts.into_iter().map(|(_, host)| host).collect()
}

/// The cuts of a scenario: its faults first, then its adversaries'.
fn cuts(scenario: &Scenario, seed: Seed, hosts: &[Arc<HostSpec>]) -> Vec<Cut> {
    let moment = |it: simnet_scenario::quantity::Span| Moment::START.after(it.duration());
    let table = Regions::of(scenario.network.topology);
    let faults = scenario.faults.partitions.iter();
    let faults = faults.map(|it| (it.from, it.until, &it.regions, Portion::Share(it.share)));
    let foul = scenario.adversaries.iter();
    let foul = foul.filter(|it| it.kind == AdversaryKind::Partition && it.attacks());
    let foul =
        foul.map(|it| (it.from, it.until.unwrap_or(scenario.duration), &it.regions, it.portion));
    faults
        .chain(foul)
        .enumerate()
        .map(|(number, (from, until, regions, portion))| {
            let inside = if regions.is_empty() {
                drawn(seed, number, hosts.len(), portion)
            } else {
                let named = |host: &Arc<HostSpec>| {
                    let name = table.names().get(usize::from(host.region));
                    name.is_some_and(|name| regions.contains(name))
                };
                hosts.iter().map(named).collect()
            };
            Cut { from: moment(from), until: moment(until), inside }
        })
        .collect()
}

/// A part of the hosts, drawn.
fn drawn(seed: Seed, number: usize, hosts: usize, portion: Portion) -> Vec<bool> {
    let count = portion.of(u32::try_from(hosts).unwrap_or(u32::MAX));
    let count = usize::try_from(count).unwrap_or(hosts);
    let mut inside: Vec<bool> = (0..hosts).map(|place| place < count).collect();
    shuffle(&mut seed.stream("cut", u64::try_from(number).unwrap_or(u64::MAX)), &mut inside);
    inside
}
