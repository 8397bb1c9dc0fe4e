//! The network: nodes, connections between them, and what is on the way.
//!
//! Owns: all state of the simulated network, in tables of this thread, and the queue of its events.
//! Must not: poll a task. What an event wakes is woken once the tables are let go.
//!
//! Handles that libp2p holds (transports, muxers, streams) are names of entries in these tables, so
//! they are `Send` as libp2p demands, though the tables never leave the thread.

mod connection;
mod dial;
mod fault;
mod flight;
mod stream;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::mem;
use std::net::Ipv4Addr;
use std::task::{Context, Waker};

use futures_timer::sim;
use libp2p::PeerId;
use libp2p::core::transport::ListenerId;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

pub(crate) use connection::{Connection, Layer, Side};
pub(crate) use dial::{Dial, Target};
pub(crate) use fault::Faults;
pub use fault::{Crash, Fault, Scope};
use flight::Flight;
pub(crate) use stream::Stream;

use crate::links::{Links, Wire};
use crate::node::{Nat, NodeIndex, NodeSpec, default_ip};
use crate::slab::{Id, Slab};
use crate::trace::{Kind, Record, Trace};
use crate::traffic::Traffic;

thread_local! {
    static NETWORK: RefCell<Option<Network>> = const { RefCell::new(None) };
}

/// Something that happens on the network at a moment.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A handshake's first packets reach the other node.
    Hello(Id<Dial>),
    /// Its answer has reached the dialling node and been worked on.
    Reply(Id<Dial>),
    /// Nobody answered for so long.
    NoAnswer(Id<Dial>),
    /// The handshake's last packet reaches the node that was dialled.
    Finished(Id<Connection>),
    /// A flight reaches the receiver's access line.
    Arrive(Id<Flight>),
    /// It has passed that line.
    Deliver(Id<Flight>),
    /// The writer at this side learns what was read, or that nobody reads any more.
    Credit(Id<Stream>, Side),
    /// This side gives the connection up, if nothing was heard since.
    GiveUp(Id<Connection>, Side),
}

struct Due(u64, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// A node as the network keeps it.
pub(crate) struct Node {
    pub(crate) spec: NodeSpec,
    pub(crate) ip: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) is_up: bool,
    /// Counts its starts: handles of an earlier life are dead.
    pub(crate) life: u32,
    pub(crate) peer: Option<PeerId>,
    pub(crate) listener: Option<ListenerId>,
    inbox: VecDeque<Id<Connection>>,
    listening: Option<Waker>,
    /// When the node's access line is free again, in either direction.
    up_free: u64,
    down_free: u64,
    /// Until when its NAT lets packets of a node in.
    pinholes: BTreeMap<NodeIndex, u64>,
    /// Dials that open a hole and wait for the other side's dial.
    punching: Vec<Id<Dial>>,
    group: u32,
}

/// Counts of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) deliveries: u64,
    pub(crate) dials: u64,
    pub(crate) failed_dials: u64,
    pub(crate) connected: u64,
    pub(crate) lost: u64,
}

/// The simulated network of this thread.
pub(crate) struct Network {
    pub(crate) nodes: Vec<Node>,
    directory: BTreeMap<Ipv4Addr, NodeIndex>,
    pub(crate) wire: Wire,
    links: Box<dyn Links>,
    faults: Faults,
    queue: BinaryHeap<Reverse<Due>>,
    queued: u64,
    connections: Slab<Connection>,
    streams: Slab<Stream>,
    flights: Slab<Flight>,
    dials: Slab<Dial>,
    /// Ends that have something to send once all tasks of the moment have been polled.
    unsent: Vec<(Id<Connection>, Side)>,
    /// Those of them whose connections a partition cuts.
    held_back: Vec<(Id<Connection>, Side)>,
    random: ChaCha8Rng,
    pub(crate) traffic: Traffic,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    /// Buffers to use again.
    buffers: Vec<Vec<u8>>,
    woken: Vec<Waker>,
    retired: Vec<Waker>,
}

/// Buffers that are kept for later, and the largest that is worth keeping.
const SPARE_BUFFERS: usize = 1024;
const SPARE_BUFFER: usize = 16 * 1024;

/// Makes this thread's network.
pub(crate) fn install(seed: [u8; 32], links: Box<dyn Links>, wire: Wire, trace: Trace) {
    let network = Network {
        nodes: Vec::new(),
        directory: BTreeMap::new(),
        wire,
        links,
        faults: Faults::default(),
        queue: BinaryHeap::new(),
        queued: 0,
        connections: Slab::new(),
        streams: Slab::new(),
        flights: Slab::new(),
        dials: Slab::new(),
        unsent: Vec::new(),
        held_back: Vec::new(),
        random: ChaCha8Rng::from_seed(seed),
        traffic: Traffic::new(),
        trace,
        counts: Counts::default(),
        buffers: Vec::new(),
        woken: Vec::new(),
        retired: Vec::new(),
    };
    NETWORK.with(|it| it.replace(Some(network)));
}

/// Takes this thread's network away; handles that are left are dead.
pub(crate) fn uninstall() {
    let network = NETWORK.with(RefCell::take);
    drop(network);
}

/// Lets `work` have the network, and wakes afterwards whom it wants woken. `None` where there is no
/// network: off the simulation thread, and once the run is over.
pub(crate) fn with<R>(work: impl FnOnce(&mut Network) -> R) -> Option<R> {
    let done = NETWORK.try_with(|network| {
        let mut network = network.try_borrow_mut().ok()?;
        let network = network.as_mut()?;
        let result = work(network);
        let idle = network.woken.is_empty() && network.retired.is_empty();
        let wakers =
            (!idle).then(|| (mem::take(&mut network.woken), mem::take(&mut network.retired)));
        Some((result, wakers))
    });
    let (result, wakers) = done.ok()??;
    if let Some((woken, retired)) = wakers {
        for waker in woken {
            waker.wake();
        }
        drop(retired);
    }
    Some(result)
}

impl Network {
    /// Adds a node, which is up and does not listen yet.
    pub(crate) fn add(&mut self, spec: NodeSpec) -> NodeIndex {
        let node = NodeIndex(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        let ip = spec.ip.unwrap_or_else(|| default_ip(node));
        self.directory.insert(ip, node);
        self.nodes.push(Node {
            spec,
            ip,
            port: spec.port,
            is_up: true,
            life: 0,
            peer: None,
            listener: None,
            inbox: VecDeque::new(),
            listening: None,
            up_free: 0,
            down_free: 0,
            pinholes: BTreeMap::new(),
            punching: Vec::new(),
            group: 0,
        });
        node
    }

    pub(crate) fn node(&self, node: NodeIndex) -> Option<&Node> {
        self.nodes.get(node.0 as usize)
    }

    pub(crate) fn node_mut(&mut self, node: NodeIndex) -> Option<&mut Node> {
        self.nodes.get_mut(node.0 as usize)
    }

    pub(crate) fn is_up(&self, node: NodeIndex) -> bool {
        self.node(node).is_some_and(|node| node.is_up)
    }

    fn is_cut(&self, a: NodeIndex, b: NodeIndex) -> bool {
        let group = |node| self.node(node).map(|node| node.group);
        group(a) != group(b)
    }

    /// The port under which `peer` sees `node`.
    pub(crate) fn public_port(&self, node: NodeIndex, peer: NodeIndex) -> u16 {
        let Some(it) = self.node(node) else { return 0 };
        match it.spec.nat {
            Nat::Open | Nat::Pinholes => it.port,
            // Any port that differs from peer to peer will do.
            Nat::Symmetric => {
                let mixed = crate::trace::digest(u64::from(node.0), &peer.0.to_le_bytes());
                u16::try_from(mixed % 40_000).unwrap_or(0).saturating_add(20_000)
            }
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.queued = self.queued.wrapping_add(1);
        self.queue.push(Reverse(Due(at, self.queued, event)));
    }

    /// When the next event is due.
    pub(crate) fn next_event(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse(due)| due.0)
    }

    /// Lets the earliest event happen. Time must have come to it.
    pub(crate) fn happen(&mut self) {
        let Some(Reverse(Due(at, _, event))) = self.queue.pop() else { return };
        match event {
            Event::Hello(dial) => self.on_hello(dial),
            Event::Reply(dial) => self.on_reply(dial),
            Event::NoAnswer(dial) => self.on_no_answer(dial),
            Event::Finished(connection) => self.on_finished(connection),
            Event::Arrive(flight) => self.on_arrive(flight),
            Event::Deliver(flight) => self.on_deliver(flight),
            Event::Credit(stream, side) => self.on_credit(stream, side),
            Event::GiveUp(connection, side) => self.on_give_up(connection, side, at),
        }
    }

    pub(crate) fn record(&mut self, record: Record) {
        self.trace.record(record);
    }

    /// Events that wait, connections, streams and flights that exist.
    pub(crate) fn sizes(&self) -> [usize; 4] {
        [self.queue.len(), self.connections.len(), self.streams.len(), self.flights.len()]
    }

    /// A draw below `bound`, all equally likely but for a bias of `bound` in 2^64.
    fn draw_below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.random.next_u64()).wrapping_mul(u128::from(bound));
        u64::try_from(product >> 64).unwrap_or(0)
    }

    fn wake(&mut self, waker: Option<Waker>) {
        self.woken.extend(waker);
    }

    fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < SPARE_BUFFERS && (1..=SPARE_BUFFER).contains(&buffer.capacity()) {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

/// Leaves the task's waker in `slot`. One that it replaces is kept in `retired` and dropped once the
/// network is let go, because the end of a waker may be the end of a task.
fn park(slot: &mut Option<Waker>, retired: &mut Vec<Waker>, context: &Context<'_>) {
    if slot.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        return;
    }
    retired.extend(slot.replace(context.waker().clone()));
}

pub(crate) fn now() -> u64 {
    sim::now()
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn record(kind: Kind) -> Record {
    Record::new(now(), kind)
}
