//! A run of the exact tier: the loop around the simulated network, and what the world does to it.
//!
//! Owns: the order of a run, starts and ends of processes, samples, and what observers hear.
//! Must not: know what hosts decide.
//!
//! The order, at every moment: first everything in the network, step by step; then the ledger's
//! blocks, the agenda (alarms, jobs, comings and goings) and the sample, each in the order in which
//! it was put down. Observers hear the facts of a step before the next step.

mod stop;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use cocoon_overlay::address::peer_id;
use cocoon_overlay::{Command, Config, Overlay, StartError, Want, keypair};
use cocoon_protocol::attest::Tier;
use libp2p::identity::Keypair;
use simnet_core::{
    BuildError, Crash, Fault, NodeIndex, NodeSpec, PartsPerMillion, Scope, Simulation,
};
use simnet_host::policy::PolicyError;
use simnet_host::script::{Event, HostEvent, Script, WorldEvent};
use simnet_host::{
    Clock, Control, Host, HostId, HostSpec, Ledger, LedgerTerms, Observer, Outcome, Progress,
    Sample, Stimulus, population,
};
use simnet_scenario::faults::Faults;
use simnet_scenario::quantity::Share;
use simnet_scenario::{AdversaryKind, Moment, Scenario, Seed, WarmStart};

use crate::hostile::{Liar, Plan, grind};
use crate::node::{self, Node, Shared};
use crate::place::{self, Acquaintance};
use crate::tally;
use crate::world::{Entry, Fact, World};

/// Unix time at which hosts' clocks start; see [`Clock`].
const CALENDAR_START: Duration = Duration::from_secs(1_800_000_000);
/// Time that a node which leaves has to close its connections.
const FAREWELL: Duration = Duration::from_secs(2);
/// Steps between two looks at the machine's clock, and the pause between two calls of the control.
const STEPS_PER_LOOK: u32 = 256;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Liars of an eclipse: as many as nodes of the index keep a key.
const ECLIPSE_LIARS: usize = 20;

/// Why a run could not be made or went wrong.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The process has had one, or its clock and randomness are not captured.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The scenario names a policy that does not exist.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A task of a node panicked, or tasks run in circles.
    #[error(transparent)]
    Simulation(#[from] simnet_core::RunError),
    /// An overlay could not be started.
    #[error("host {}: its overlay does not start", host.0)]
    Overlay {
        /// Whose.
        host: HostId,
        /// Why.
        #[source]
        source: StartError,
    },
}

/// Runs a scenario. Must be called on a fresh thread (`simnet_core::on_fresh_thread`), once in a
/// process. The observer hears every fact in order; the control is asked a few times a second of
/// real time.
pub fn run(
    scenario: &Scenario,
    seed: Seed,
    observer: &mut dyn Observer,
    control: Control<'_>,
) -> Result<Outcome, RunError> {
    let mut run = Run::new(scenario, seed)?;
    observer.begin(&run.hosts);
    let interrupted = run.go(observer, control)?;
    run.world.ledger(|ledger| observer.end(World::now(), interrupted, ledger));
    Ok(run.outcome(interrupted))
}

/// What the scenario makes of all links. A packet that is late with some probability is modelled by
/// jitter of the same mean: in an ordered stream both show as later bytes.
fn link_fault(faults: &Faults) -> Fault {
    let parts = |share: Share| PartsPerMillion(share.as_billionths() / 1_000);
    Fault {
        delay: Duration::ZERO,
        jitter: faults.delay.duration().mul_f64(faults.delayed.fraction()),
        loss: parts(faults.loss),
        duplicated: parts(faults.duplicated),
        reordered: parts(faults.reordered),
    }
}

/// A run that is under way.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    scenario: &'a Scenario,
    seed: Seed,
    pub(crate) simulation: Simulation,
    world: World,
    script: Script,
    pub(crate) hosts: Vec<Arc<HostSpec>>,
    pub(crate) nodes: Vec<Shared>,
    places: Vec<NodeIndex>,
    acquaintance: Acquaintance,
    /// Lying index nodes that are not hosts, each with the moment of its first lie.
    liars: Vec<(NodeIndex, Keypair)>,
    told: Vec<Fact>,
    sample_at: Moment,
    until: Moment,
    /// Where it stands still next because the observer wants to look; never, if it does not.
    stop: Moment,
    /// Cuts that hold, by their numbers.
    cuts: BTreeSet<usize>,
    steps: u32,
    looked: Duration,
}

impl<'a> Run<'a> {
    pub(crate) fn new(scenario: &'a Scenario, seed: Seed) -> Result<Self, RunError> {
        let mut simulation = Simulation::build(simnet_core::Config {
            links: Box::new(place::World::new(scenario)),
            calendar_start: CALENDAR_START,
            ..simnet_core::Config::new(seed.0)
        })?;
        simulation.set_fault(Scope::Everywhere, link_fault(&scenario.faults));
        let hosts = population::draw(scenario, seed)?;
        let places: Vec<_> =
            hosts.iter().map(|spec| simulation.add_node(place::node_spec(spec))).collect();
        let address = |host: HostId| {
            let place = usize::try_from(host.0).ok().and_then(|it| places.get(it));
            place.map_or_else(cocoon_overlay::Multiaddr::empty, |place| simulation.address(*place))
        };
        let acquaintance = Acquaintance::new(seed, &hosts, address);
        let world = World::new(ledger(scenario, seed));
        let node = |spec: &Arc<HostSpec>| {
            Node::new(Arc::clone(spec), Host::new(Arc::clone(spec)), world.clone())
        };
        let nodes = hosts.iter().map(node).collect();
        let script = Script::new(scenario, seed, &hosts);
        let mut run = Self {
            scenario,
            seed,
            simulation,
            world,
            script,
            hosts,
            nodes,
            places,
            acquaintance,
            liars: Vec::new(),
            told: Vec::new(),
            sample_at: Moment::START.after(scenario.sample_every.duration()),
            until: Moment::START.after(scenario.duration.duration()),
            stop: Moment::NEVER,
            cuts: BTreeSet::new(),
            steps: 0,
            looked: simnet_core::clock::wall(),
        };
        run.plan_eclipses();
        Ok(run)
    }

    /// Twenty identities ground close to the key of the model that most users want, for every
    /// eclipse of the scenario: as many as a key's neighbourhood has.
    fn plan_eclipses(&mut self) {
        let eclipses = self.scenario.adversaries.iter();
        let from: Vec<_> = eclipses
            .filter(|it| it.kind == AdversaryKind::Eclipse && it.attacks())
            .map(|it| Moment::START.after(it.from.duration()))
            .collect();
        let models = population::models(self.scenario);
        let wanted = models.iter().max_by(|a, b| a.weight.total_cmp(&b.weight));
        let (Some(wanted), Some(first)) = (wanted, from.iter().min()) else {
            return;
        };
        // Eight times closer than an honest neighbour would be by chance.
        let bits = self.acquaintance.index_nodes().max(1).ilog2().saturating_add(3).min(14);
        // What only some can serve has the fewest honest names to drown the liars in.
        let attested = Want { model: wanted.hash, minimum_tier: Tier::Attested };
        let key = cocoon_overlay::index_key(&attested, 0);
        for keypair in grind(self.seed, &key, bits, ECLIPSE_LIARS) {
            let place = self.simulation.add_node(NodeSpec::default());
            self.liars.push((place, keypair));
        }
        self.world.put(*first, Entry::Eclipse);
    }

    /// The liars connect to every node of the index, which they have crawled, and to their victim, and
    /// name the hosts of their owner.
    fn eclipse(&mut self) {
        let named = |(place, keypair): &(NodeIndex, Keypair)| {
            (keypair.public().to_peer_id(), self.simulation.address(*place))
        };
        let routes: Vec<_> = self.liars.iter().map(named).collect();
        let owned = self.hosts.iter().filter(|spec| spec.attacks_as(AdversaryKind::Eclipse));
        let accomplices: Vec<_> = owned
            .filter_map(|spec| {
                let place = self.places.get(index(spec.id))?;
                Some((peer_id(&spec.key.id())?, self.simulation.address(*place)))
            })
            .collect();
        // Their victim they call themselves: whoever knows a consumer's address can.
        let victims = self.hosts.iter().filter(|spec| spec.victim_of.is_some());
        let victims = victims.filter_map(|spec| self.places.get(index(spec.id)));
        let victims = victims.map(|place| self.simulation.address(*place));
        let targets: Vec<_> = self.acquaintance.crawl().chain(victims).collect();
        for (place, keypair) in std::mem::take(&mut self.liars) {
            let plan = Plan {
                listen: self.simulation.address(place),
                accomplices: accomplices.clone(),
                routes: routes.clone(),
                targets: targets.clone(),
                keypair,
            };
            self.lie(place, plan);
        }
    }

    fn lie(&mut self, place: NodeIndex, plan: Plan) {
        let peer = plan.keypair.public().to_peer_id();
        let transport = self.simulation.transport(place, peer);
        let liar = Liar::new(plan, transport, self.simulation.executor(place));
        self.simulation.spawn(place, liar.run());
    }

    /// A host of the scenario that keeps the index, and drops what it is given.
    fn drop_records(&mut self, spec: &HostSpec, place: NodeIndex) -> Result<(), StartError> {
        let routes = self.acquaintance.table_of(spec).into_iter().filter_map(|anchor| {
            Some((peer_id(&anchor.node)?, anchor.addresses.into_iter().next()?))
        });
        let plan = Plan {
            keypair: keypair(&spec.key)?,
            listen: self.simulation.address(place),
            accomplices: Vec::new(),
            routes: routes.collect(),
            targets: self.acquaintance.entries_of(spec.id),
        };
        self.lie(place, plan);
        Ok(())
    }

    /// Runs to the end. True when the control ended it before.
    pub(crate) fn go(
        &mut self,
        observer: &mut dyn Observer,
        control: Control<'_>,
    ) -> Result<bool, RunError> {
        self.plan_stop(observer);
        loop {
            if self.network(observer, control)?.is_break() {
                return Ok(true);
            }
            let (due, stop) = (self.next_at(), self.stop);
            if due.min(stop) >= self.until {
                self.finish(observer);
                return Ok(false);
            }
            if due <= stop {
                self.befall(due, observer)?;
            }
            if observer.is_over() && self.halt(observer).is_break() {
                return Ok(true);
            }
            if self.has_arrived() && self.halt_at_stop(observer).is_break() {
                return Ok(true);
            }
        }
    }

    pub(crate) fn outcome(&self, interrupted: bool) -> Outcome {
        Outcome {
            at: World::now(),
            interrupted,
            events: self.simulation.statistics().events,
            trace: self.simulation.trace_hash(),
        }
    }

    /// Does something with every overlay that runs.
    pub(crate) fn overlays(&self, mut work: impl FnMut(HostId, &mut Overlay)) {
        for (spec, node) in self.hosts.iter().zip(&self.nodes) {
            if let Some(overlay) = &mut node.borrow_mut().process.overlay {
                work(spec.id, overlay);
            }
        }
    }

    /// When something beside the network is due; at the latest, the end.
    fn next_at(&self) -> Moment {
        let due = [
            self.script.next_at(),
            self.world.next_at(),
            self.world.ledger(|ledger| ledger.next_block()),
            Some(self.sample_at),
        ];
        due.into_iter().flatten().min().map_or(self.until, |at| at.min(self.until))
    }

    /// Lets the network run up to what is due beside it or the stop, that moment included, which it
    /// then is.
    fn network(
        &mut self,
        observer: &mut dyn Observer,
        control: Control<'_>,
    ) -> Result<ControlFlow<()>, RunError> {
        while self.step()? {
            self.tell(observer);
            if observer.is_over() && self.halt(observer).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.steps = self.steps.wrapping_add(1);
            if self.steps.is_multiple_of(STEPS_PER_LOOK) && self.look(control).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.tell(observer);
        let until = Duration::from_nanos(self.next_at().min(self.stop).as_nanos());
        self.simulation.run_until(until, &mut |_| ControlFlow::Continue(()))?;
        Ok(ControlFlow::Continue(()))
    }

    fn look(&mut self, control: Control<'_>) -> ControlFlow<()> {
        let wall = simnet_core::clock::wall();
        if wall.saturating_sub(self.looked) < LOOK_EVERY {
            return ControlFlow::Continue(());
        }
        self.looked = wall;
        let events = self.simulation.statistics().events;
        control(Progress { at: World::now(), until: self.until, events })
    }

    /// Tells what was stated since the last step.
    fn tell(&mut self, observer: &mut dyn Observer) {
        self.world.tell(&mut self.told);
        for (at, host, fact) in &self.told {
            if let Some(place) = self.places.get(index(*host)) {
                tally::mark(*place, fact);
            }
            observer.observe(*at, *host, fact);
        }
    }

    /// Does all that is due beside the network.
    fn befall(&mut self, now: Moment, observer: &mut dyn Observer) -> Result<(), RunError> {
        if World::now() < now {
            return Ok(());
        }
        self.blocks(now, observer);
        while let Some(entry) = self.world.take_due(now) {
            self.on_entry(entry)?;
            self.tell(observer);
        }
        while self.script.next_at().is_some_and(|at| at <= now) {
            let Some((_, event)) = self.script.next() else { break };
            self.on_script(event)?;
            self.tell(observer);
        }
        if self.sample_at <= now {
            self.sample_at = self.sample_at.after(self.scenario.sample_every.duration());
            observer.sample(&self.sample());
        }
        Ok(())
    }

    fn blocks(&mut self, now: Moment, observer: &mut dyn Observer) {
        if self.world.ledger(|ledger| ledger.next_block()).is_none_or(|at| at > now) {
            return;
        }
        let answers = self.world.ledger(|ledger| ledger.advance(now));
        for (host, input) in answers {
            self.happen(host, Stimulus::Ledger(Box::new(input)));
            self.tell(observer);
        }
        self.world.ledger(|ledger| ledger.report(now, observer));
    }

    fn on_entry(&mut self, entry: Entry) -> Result<(), RunError> {
        match entry {
            Entry::Alarm(host, life, alarm) => {
                self.on(host, |node| node.happen_in(life, Stimulus::Alarm(alarm)));
            }
            Entry::Answer(host, life, stimulus) => {
                self.on(host, |node| node.happen_in(life, *stimulus));
            }
            Entry::Stopped(host, life, restart) => self.stopped(host, life, restart),
            Entry::Gone(host, life) => {
                if self
                    .nodes
                    .get(index(host))
                    .is_some_and(|node| node.borrow().process.life == life)
                {
                    self.cut_off(host);
                }
            }
            Entry::Restart(host) => self.start(host)?,
            Entry::Eclipse => self.eclipse(),
        }
        Ok(())
    }

    fn on_script(&mut self, event: Event) -> Result<(), RunError> {
        match event {
            Event::Host(host, HostEvent::Start) => self.start(host)?,
            Event::Host(host, HostEvent::Submit(order)) => {
                self.happen(host, Stimulus::Submit(Box::new(order)));
            }
            Event::Host(host, HostEvent::Cancel(job)) => self.happen(host, Stimulus::Cancel(job)),
            Event::Host(host, HostEvent::Leave) => self.happen(host, Stimulus::Drain),
            Event::Host(host, HostEvent::Crash) => self.crash(host),
            Event::World(event) => self.on_world(event),
        }
        Ok(())
    }

    fn on_world(&mut self, event: WorldEvent) {
        // Cuts may overlap: who is on the same side of every one that holds is connected.
        match event {
            WorldEvent::Cut(number) => self.cuts.insert(number),
            WorldEvent::Heal(number) => self.cuts.remove(&number),
        };
        let mut groups: BTreeMap<Vec<bool>, Vec<NodeIndex>> = BTreeMap::new();
        for (spec, place) in self.hosts.iter().zip(&self.places) {
            let holding = self.cuts.iter().filter_map(|number| self.script.cuts().get(*number));
            let sides = holding.map(|cut| cut.holds(spec.id)).collect();
            groups.entry(sides).or_default().push(*place);
        }
        let groups: Vec<_> = groups.into_values().collect();
        if self.cuts.is_empty() {
            self.simulation.heal();
        } else {
            self.simulation.partition(&groups);
        }
    }

    fn happen(&mut self, host: HostId, stimulus: Stimulus) {
        self.on(host, |node| node.happen(stimulus));
    }

    /// Does something with a node, as a part of it.
    fn on<R>(&mut self, host: HostId, work: impl FnOnce(&mut Node) -> R) -> Option<R> {
        let (place, node) = (*self.places.get(index(host))?, self.nodes.get(index(host))?);
        Some(self.simulation.on(place, || work(&mut node.borrow_mut())))
    }

    fn is_running(&self, host: HostId) -> bool {
        self.nodes.get(index(host)).is_some_and(|node| node.borrow().is_running())
    }

    /// Starts a host's process, for the first time or again, at another port unless it is known by
    /// the one it has.
    fn start(&mut self, host: HostId) -> Result<(), RunError> {
        let place = self.places.get(index(host)).copied();
        let (Some(place), Some(spec)) = (place, self.hosts.get(index(host)).cloned()) else {
            return Ok(());
        };
        if self.is_running(host) {
            return Ok(());
        }
        let Some(node) = self.nodes.get(index(host)).cloned() else { return Ok(()) };
        let life = node.borrow().process.life;
        let first = life == 0;
        if !first {
            self.cut_off(host);
            let moved = u16::try_from(life.wrapping_mul(7) % 20_000).unwrap_or(0);
            let port =
                (!self.acquaintance.is_entry(host)).then(|| 10_000_u16.saturating_add(moved));
            self.simulation.restart(place, port);
        }
        let failed = |source| RunError::Overlay { host, source };
        if spec.attacks_as(AdversaryKind::RelayDropper) {
            return self.drop_records(&spec, place).map_err(failed);
        }
        let mut overlay = self.overlay(&spec, place, life).map_err(failed)?;
        overlay.handle(Command::Listen(self.simulation.address(place)));
        for entry in self.acquaintance.entries_of(host) {
            overlay.handle(Command::Dial(entry));
        }
        if first && self.scenario.warm_start == WarmStart::Tables {
            overlay.handle(Command::Remember(self.acquaintance.table_of(&spec)));
        }
        self.on(host, |node| node.start(overlay));
        self.simulation.spawn(place, node::pump(node));
        Ok(())
    }

    fn overlay(&self, spec: &HostSpec, place: NodeIndex, life: u32) -> Result<Overlay, StartError> {
        let keypair = keypair(&spec.key)?;
        let draws = u64::from(spec.id.0) << 32 | u64::from(life);
        let clock = Clock::new(spec.skew_ms);
        let now = move || clock.timestamp(World::now());
        let seed = self.seed.bytes("overlay", draws);
        let mut config = Config::new(spec.key.clone(), place::role(spec), seed, now);
        config.serves_index = place::serves_index(spec);
        let transport = self.simulation.transport(place, keypair.public().to_peer_id());
        Overlay::new(config, transport, self.simulation.executor(place))
    }

    /// A host's process dies, without a word to anybody.
    fn crash(&mut self, host: HostId) {
        if self.is_running(host) {
            self.cut_off(host);
            self.on(host, Node::crash);
            self.world.ledger(|ledger| ledger.crashed(host));
        }
    }

    /// A host has ended its own process.
    fn stopped(&mut self, host: HostId, life: u32, restart: Option<Moment>) {
        let current =
            self.nodes.get(index(host)).is_some_and(|node| node.borrow().process.life == life);
        if !current {
            return;
        }
        self.world.ledger(|ledger| ledger.crashed(host));
        match restart {
            Some(at) => {
                self.cut_off(host);
                self.on(host, Node::stop);
                self.world.put(at, Entry::Restart(host));
            }
            // Dropping the overlay closes its connections; their tasks need a moment for it.
            None => {
                self.on(host, Node::stop);
                let gone = Entry::Gone(host, life.saturating_add(1));
                self.world.put(World::now().after(FAREWELL), gone);
            }
        }
    }

    fn cut_off(&mut self, host: HostId) {
        if let Some(place) = self.places.get(index(host)) {
            self.simulation.crash(*place, Crash::Silent);
        }
    }

    fn sample(&self) -> Sample {
        let running = self.nodes.iter().filter(|node| node.borrow().is_running()).count();
        let connections = self.simulation.statistics().connections;
        Sample {
            at: World::now(),
            hosts: u32::try_from(running).unwrap_or(u32::MAX),
            connections: u64::try_from(connections).unwrap_or(u64::MAX),
            traffic: tally::by_protocol(&self.simulation.traffic()),
        }
    }
}

fn index(host: HostId) -> usize {
    usize::try_from(host.0).unwrap_or(usize::MAX)
}

fn ledger(scenario: &Scenario, seed: Seed) -> Ledger {
    Ledger::new(LedgerTerms::of(scenario, seed), seed)
}
