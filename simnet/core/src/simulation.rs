//! A run: the loop that brings clock, tasks and network together, and what its owner may do to it.
//!
//! Owns: the order of everything that happens. Must not: know what the nodes run.
//!
//! The loop, at every moment: poll tasks until none is ready; let what they wrote leave; take the
//! earliest of script, network and timers (in this order if they are due together), move the clock
//! to it, let that one thing happen; again.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_timer::sim;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, Transport as _, noise, yamux};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use crate::clock;
use crate::executor::{self, NodeExecutor, TaskPanicked};
use crate::interpose::{self, CaptureError};
use crate::links::{Links, Uniform, Wire};
use crate::network::{self, Crash, Fault, Layer, Scope};
use crate::node::{NodeIndex, NodeSpec};
use crate::trace::{Event, Kind, Record, Trace, digest};
use crate::traffic::Traffic;
use crate::transport::{self, ByteTransport};

/// One simulation a process: libp2p numbers connections and listeners in statics of the process, so
/// a second run would not repeat what a process of its own does.
static STARTED: AtomicBool = AtomicBool::new(false);

/// What a run is made of. Equal configurations and equal programs give equal runs.
pub struct Config {
    /// Everything random follows from it.
    pub seed: u64,
    /// What lies between places. Default: 50 ms of round trip between any two nodes.
    pub links: Box<dyn Links>,
    /// How bytes become packets, and time-outs.
    pub wire: Wire,
    /// What `SystemTime` shows at the start, since 1970, in whole seconds.
    pub calendar_start: Duration,
    /// Events that are kept for [`Simulation::recent_events`]. Default 256.
    pub recent_events: usize,
    /// Polls of tasks at one moment that count as a program which runs in circles: time would stand
    /// still for ever. Default ten million.
    pub polls_per_moment: u64,
}

impl Config {
    /// The defaults, with a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            links: Box::new(Uniform::round_trip(Duration::from_millis(50))),
            wire: Wire::default(),
            calendar_start: clock::CALENDAR_START,
            recent_events: 256,
            polls_per_moment: 10_000_000,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("seed", &self.seed)
            .field("wire", &self.wire)
            .finish_non_exhaustive()
    }
}

/// Why a simulation cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The process has had one.
    #[error("one simulation a process: a second would not reproduce; start another process")]
    SecondInProcess,
    /// The system would leak into it.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// Why a run cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A task panicked.
    #[error("at {}.{:09}s {source}", at.as_secs(), at.subsec_nanos())]
    TaskPanicked {
        /// When.
        at: Duration,
        /// Which, and what it said.
        source: TaskPanicked,
    },
    /// Tasks wake each other without end, and time stands still.
    #[error(
        "at {}.{:09}s tasks keep waking each other and no time passes; the last was of {node:?}",
        at.as_secs(), at.subsec_nanos()
    )]
    Circles {
        /// When.
        at: Duration,
        /// Whose task was polled last.
        node: Option<NodeIndex>,
    },
    /// A thread that is not simulated woke a task, so the run cannot be repeated.
    #[error("at {}.{:09}s another thread woke a task: keep threads out of a simulation", at.as_secs(), at.subsec_nanos())]
    ForeignThread {
        /// When it was seen.
        at: Duration,
    },
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The moment that was asked for was reached.
    Reached,
    /// The owner wanted no more.
    Interrupted,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Virtual time.
    pub at: Duration,
    /// Until when it runs.
    pub until: Duration,
    /// Events so far.
    pub events: u64,
}

/// Counts of a run. Equal for equal runs, but for nothing here that depends on the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Events of the trace.
    pub events: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// Tasks that live.
    pub tasks: usize,
    /// Flights that were delivered.
    pub deliveries: u64,
    /// Timers that fired.
    pub timers_fired: u64,
    /// Timers that live.
    pub timers: usize,
    /// Dials begun.
    pub dials: u64,
    /// Dials that failed.
    pub failed_dials: u64,
    /// Connections that came about.
    pub connected: u64,
    /// Ends of connections that were given up after a time-out or a reset.
    pub lost: u64,
    /// Connections that exist, counted once.
    pub connections: usize,
    /// Streams that exist.
    pub streams: usize,
    /// Draws from the system's randomness, which is seeded.
    pub draws: u64,
}

type Script = Box<dyn FnOnce(&mut Simulation)>;

/// A simulated world of this thread.
///
/// Tasks, timers, connections and the clock are the thread's: a `Simulation` is the right to move
/// them. It can neither be sent nor copied; dropped, it ends every task.
pub struct Simulation {
    seed: u64,
    polls_per_moment: u64,
    script: BTreeMap<(u64, u64), Script>,
    scripted: u64,
    /// Wake-ups by foreign threads before this run; more are a mistake.
    foreign_wakes: u64,
    not_send: PhantomData<*const ()>,
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation")
            .field("seed", &self.seed)
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

/// Runs `work` on a thread that has drawn nothing yet, as a simulation needs one, and with a stack
/// that is large enough for deep futures. A panic in it goes on here.
pub fn on_fresh_thread<R: Send>(work: impl FnOnce() -> R + Send) -> io::Result<R> {
    const STACK: usize = 64 << 20;
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("simulation".to_owned()).stack_size(STACK);
        let thread = builder.spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Simulation {
    /// Makes this thread a simulation at time zero, with no nodes.
    ///
    /// The thread must be a fresh one; see [`on_fresh_thread`].
    pub fn build(config: Config) -> Result<Self, BuildError> {
        if STARTED.swap(true, Ordering::SeqCst) || sim::enter().is_err() {
            return Err(BuildError::SecondInProcess);
        }
        let seed = config.seed;
        interpose::capture(derive(seed, "system randomness", 0), config.calendar_start);
        if let Err(error) = interpose::check(config.calendar_start) {
            interpose::release();
            sim::leave();
            return Err(error.into());
        }
        let trace = Trace::new(config.recent_events);
        network::install(derive(seed, "network", 0), config.links, config.wire, trace);
        Ok(Self {
            seed,
            polls_per_moment: config.polls_per_moment,
            script: BTreeMap::new(),
            scripted: 0,
            foreign_wakes: executor::foreign_wakes(),
            not_send: PhantomData,
        })
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        clock::now()
    }

    /// A stream of draws for the owner, apart from all others: one more draw from it moves nothing
    /// elsewhere.
    #[must_use]
    pub fn random(&self, label: &str, index: u64) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(derive(self.seed, label, index))
    }

    /// Adds a node. It is up, and runs nothing yet.
    pub fn add_node(&mut self, spec: NodeSpec) -> NodeIndex {
        network::with(|network| network.add(spec)).unwrap_or(NodeIndex(u32::MAX))
    }

    /// A node's public address for [`Self::transport`]: `/ip4/…/udp/…/quic-v1`.
    #[must_use]
    pub fn address(&self, node: NodeIndex) -> Multiaddr {
        transport::public_address(node, Layer::Muxed).unwrap_or_else(Multiaddr::empty)
    }

    /// A node's public address for [`Self::byte_transport`]: `/ip4/…/tcp/…`.
    #[must_use]
    pub fn byte_address(&self, node: NodeIndex) -> Multiaddr {
        transport::public_address(node, Layer::Bytes).unwrap_or_else(Multiaddr::empty)
    }

    /// A node's transport, like QUIC, for `peer`: the fast one. One for each life of a node.
    #[must_use]
    pub fn transport(&self, node: NodeIndex, peer: PeerId) -> Boxed<(PeerId, StreamMuxerBox)> {
        let transport = transport::muxed::transport(node, peer);
        transport.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed()
    }

    /// A node's transport of plain bytes, like TCP, to be upgraded.
    #[must_use]
    pub fn byte_transport(&self, node: NodeIndex) -> ByteTransport {
        transport::bytes::transport(node)
    }

    /// The same with libp2p's real noise and yamux over it: a TCP stack in full, at two to three
    /// times the cost of [`Self::transport`].
    pub fn noise_yamux_transport(
        &self,
        node: NodeIndex,
        key: &Keypair,
    ) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
        Ok(self
            .byte_transport(node)
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(key)?)
            .multiplex(yamux::Config::default())
            .boxed())
    }

    /// Runs a node's connections: for `libp2p::swarm::Config::with_executor`.
    #[must_use]
    pub const fn executor(&self, node: NodeIndex) -> NodeExecutor {
        NodeExecutor(node)
    }

    /// Runs `future` as a task of `node`, until it ends or the node crashes. It is polled first when
    /// the run goes on.
    pub fn spawn(&mut self, node: NodeIndex, future: impl Future<Output = ()> + 'static) {
        executor::spawn_boxed(node, Box::pin(future));
    }

    /// Does something as a part of `node`, so that what it spawns belongs to that node.
    pub fn on<R>(&mut self, node: NodeIndex, work: impl FnOnce() -> R) -> R {
        executor::on(node, work)
    }

    /// Schedules a part of the world's script: it runs at `moment`, before anything else of that
    /// moment, and in the order of scheduling among others. A moment that has passed is now.
    pub fn at(&mut self, moment: Duration, action: impl FnOnce(&mut Self) + 'static) {
        self.scripted = self.scripted.wrapping_add(1);
        let moment = nanos(moment).max(sim::now());
        self.script.insert((moment, self.scripted), Box::new(action));
    }

    /// Crashes a node: its tasks are gone at once, its peers notice later.
    pub fn crash(&mut self, node: NodeIndex, crash: Crash) {
        network::with(|network| network.crash(node, crash));
        executor::kill(node);
    }

    /// Lets a crashed node come back, at another port if one is given. It runs nothing yet: make a
    /// new transport and spawn its tasks.
    pub fn restart(&mut self, node: NodeIndex, port: Option<u16>) {
        network::with(|network| network.restart(node, port));
    }

    /// Whether a node is up.
    #[must_use]
    pub fn is_up(&self, node: NodeIndex) -> bool {
        network::with(|network| network.is_up(node)) == Some(true)
    }

    /// Cuts all links between these groups, and between them and all other nodes. What is sent
    /// across waits; a connection that hears nothing for the idle time-out is given up.
    pub fn partition(&mut self, groups: &[Vec<NodeIndex>]) {
        network::with(|network| network.partition(groups));
    }

    /// Makes the network whole again.
    pub fn heal(&mut self) {
        self.partition(&[]);
    }

    /// Makes links worse than their model; `Fault::default()` makes them as good again.
    pub fn set_fault(&mut self, scope: Scope, fault: Fault) {
        network::with(|network| network.set_fault(scope, fault));
    }

    /// When the next thing happens; now, if tasks are ready. `None` if nothing ever will.
    #[must_use]
    pub fn next_moment(&self) -> Option<Duration> {
        if executor::next_node().is_some() {
            return Some(self.now());
        }
        self.next().map(|(moment, _)| Duration::from_nanos(moment))
    }

    fn next(&self) -> Option<(u64, Source)> {
        let script = self.script.first_key_value().map(|((moment, _), _)| *moment);
        let network = network::with(|network| network.next_event()).flatten();
        let candidates = [
            (script, Source::Script),
            (network, Source::Network),
            (sim::next_deadline(), Source::Timer),
        ];
        let due = candidates.into_iter().filter_map(|(moment, source)| Some((moment?, source)));
        due.min_by_key(|(moment, _)| *moment)
    }

    /// Polls tasks until none is ready, and lets what they wrote leave.
    fn settle(&self) -> Result<(), RunError> {
        let mut polls = 0_u64;
        loop {
            let at = self.now();
            let node = executor::next_node();
            let polled = executor::poll_next();
            match polled.map_err(|source| RunError::TaskPanicked { at, source })? {
                true => polls = polls.saturating_add(1),
                false => break,
            }
            if polls > self.polls_per_moment {
                return Err(RunError::Circles { at, node });
            }
        }
        network::with(network::Network::transmit);
        if executor::foreign_wakes() != self.foreign_wakes {
            return Err(RunError::ForeignThread { at: self.now() });
        }
        Ok(())
    }

    /// Lets the next thing happen, and everything that follows from it at that moment. False if
    /// nothing is left to happen.
    pub fn step(&mut self) -> Result<bool, RunError> {
        self.step_until(u64::MAX)
    }

    /// The same, but takes no event that comes after `moment`. False when there is none up to then;
    /// the tasks that were ready have run all the same.
    pub fn step_up_to(&mut self, moment: Duration) -> Result<bool, RunError> {
        self.step_until(nanos(moment))
    }

    fn step_until(&mut self, until: u64) -> Result<bool, RunError> {
        self.settle()?;
        let Some((moment, source)) = self.next().filter(|(moment, _)| *moment <= until) else {
            return Ok(false);
        };
        sim::advance_to(moment);
        match source {
            Source::Script => {
                if let Some((_, action)) = self.script.pop_first() {
                    record(Record::new(moment, Kind::Script));
                    action(self);
                }
            }
            Source::Network => {
                network::with(network::Network::happen);
            }
            Source::Timer => {
                if let Some(fired) = sim::fire_next() {
                    let node = executor::next_node();
                    record(Record {
                        node,
                        digest: fired.ordinal,
                        ..Record::new(moment, Kind::Timer)
                    });
                }
            }
        }
        self.settle()?;
        Ok(true)
    }

    /// Runs until `moment`, which it then is. Asks `control` a few times a second of real time
    /// whether to go on; whatever it does, it must not touch the world.
    pub fn run_until(
        &mut self,
        moment: Duration,
        control: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Ended, RunError> {
        /// Reading the machine's clock costs about as much as an event's hundredth.
        const STEPS_PER_LOOK: u32 = 256;
        const PAUSE: Duration = Duration::from_millis(200);
        let until = nanos(moment);
        let mut steps = 0_u32;
        let mut asked = clock::wall();
        while self.step_until(until)? {
            steps = steps.wrapping_add(1);
            if steps.is_multiple_of(STEPS_PER_LOOK) {
                let wall = clock::wall();
                if wall.saturating_sub(asked) >= PAUSE {
                    asked = wall;
                    let events = self.events();
                    let progress = Progress { at: self.now(), until: moment, events };
                    if control(progress).is_break() {
                        return Ok(Ended::Interrupted);
                    }
                }
            }
        }
        sim::advance_to(until);
        Ok(Ended::Reached)
    }

    /// Runs for this long; for tests and examples.
    pub fn run_for(&mut self, time: Duration) -> Result<Ended, RunError> {
        let until = self.now().saturating_add(time);
        self.run_until(until, &mut |_| ControlFlow::Continue(()))
    }

    fn events(&self) -> u64 {
        network::with(|network| network.trace.events()).unwrap_or(0)
    }

    /// Counts of the run so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let timers = sim::statistics();
        let tasks = executor::counts();
        let network = network::with(|network| {
            let [_, connections, streams, _] = network.sizes();
            (network.counts, connections, streams)
        });
        let (counts, connections, streams) = network.unwrap_or_default();
        Statistics {
            events: self.events(),
            polls: tasks.polls,
            tasks: tasks.live,
            deliveries: counts.deliveries,
            timers_fired: timers.fired,
            timers: timers.live,
            dials: counts.dials,
            failed_dials: counts.failed_dials,
            connected: counts.connected,
            lost: counts.lost,
            connections,
            streams,
            draws: interpose::draws(),
        }
    }

    /// Bytes and packets so far, by protocol and node.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let traffic = network::with(|network| {
            network.settle_keep_alives();
            network.traffic.clone()
        });
        traffic.unwrap_or_else(Traffic::new)
    }

    /// The hash over every event so far.
    #[must_use]
    pub fn trace_hash(&self) -> [u8; 32] {
        network::with(|network| network.trace.hash()).unwrap_or_default()
    }

    /// The last events, oldest first; `Config::recent_events` of them.
    #[must_use]
    pub fn recent_events(&self) -> Vec<Event> {
        let events = network::with(|network| {
            let named = |record: &Record| {
                let is_named = record.kind == Kind::Delivery;
                let name = || network.traffic.name(crate::traffic::Label(record.label)).to_owned();
                Event { record: *record, protocol: if is_named { name() } else { String::new() } }
            };
            network.trace.recent().map(named).collect()
        });
        events.unwrap_or_default()
    }

    /// Writes every event from now on to `writer`, in the format of [`crate::trace`]. To be called
    /// before the run begins if the file is to have the run's hash.
    pub fn write_trace(&mut self, writer: impl Write + 'static) -> io::Result<()> {
        network::with(|network| network.trace.write_to(Box::new(writer))).unwrap_or(Ok(()))
    }

    /// Writes out what is left of the trace; an error that came up on the way is told here.
    pub fn finish_trace(&mut self) -> io::Result<()> {
        network::with(|network| network.trace.finish()).unwrap_or(Ok(()))
    }

    /// Ends the run: every task, every connection.
    pub fn finish(self) {}
}

impl Drop for Simulation {
    fn drop(&mut self) {
        self.script.clear();
        executor::clear();
        network::uninstall();
        interpose::release();
        sim::leave();
    }
}

/// Puts something of the owner's into the trace, and so into its hash: what a node has decided, say.
/// From tasks as well as from outside; off a simulation thread it does nothing.
pub fn mark(node: NodeIndex, code: u16, content: &[u8]) {
    let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let digest = digest(0, content);
    record(Record { label: code, size, digest, ..Record::new(sim::now(), Kind::Mark).node(node) });
}

fn record(record: Record) {
    network::with(|network| network.record(record));
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Script,
    Network,
    Timer,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Seeds of parts that draw by themselves.
fn derive(seed: u64, label: &str, index: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("simnet-core draw v1");
    hasher.update(&seed.to_be_bytes());
    hasher.update(&index.to_be_bytes());
    hasher.update(label.as_bytes());
    *hasher.finalize().as_bytes()
}
