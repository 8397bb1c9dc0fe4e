//! The executor: one thread, one queue of tasks that are ready, first in, first out.
//!
//! Owns: tasks, which node each belongs to, and which is being polled. Must not: let time pass, or
//! know why a task was woken.
//!
//! A task has a place in a table and a generation. Wakers and the queue name both, so that a waker
//! that outlives its task cannot wake, let alone poll, whatever stands in its place by then.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};

use futures_timer::sim;

use crate::node::NodeIndex;

/// A task as the executor keeps it. Not `Send`: it never leaves its thread.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static READY: RefCell<VecDeque<TaskId>> = const { RefCell::new(VecDeque::new()) };
    static TASKS: RefCell<Tasks> = const { RefCell::new(Tasks::new()) };
    static CURRENT: Cell<Option<NodeIndex>> = const { Cell::new(None) };
}

/// Wake-ups that came from threads that simulate nothing.
static FOREIGN_WAKES: AtomicU64 = AtomicU64::new(0);

/// Runs the futures of libp2p's swarm as tasks of a node:
/// `libp2p::swarm::Config::with_executor(simulation.executor(node))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeExecutor(pub(crate) NodeIndex);

impl libp2p::swarm::Executor for NodeExecutor {
    fn exec(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        spawn_boxed(self.0, future);
    }
}

/// Runs `future` as a task of the node that is running now, and dies with it.
///
/// Outside any node's task and off a simulation thread there is no such node, and the future is
/// dropped unpolled; [`Simulation::spawn`](crate::Simulation::spawn) names the node.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    match CURRENT.get() {
        Some(node) => spawn_boxed(node, Box::pin(future)),
        None => tracing::error!("a task was spawned outside any node; it is dropped"),
    }
}

/// The node whose task is being polled, or whose callback runs.
#[must_use]
pub fn current_node() -> Option<NodeIndex> {
    CURRENT.get()
}

/// A task panicked. Nothing that follows in this run could be trusted, so it ends there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task of {node} panicked: {message}")]
pub struct TaskPanicked {
    /// Whose.
    pub node: NodeIndex,
    /// What it said.
    pub message: String,
}

/// Counts of the executor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) polls: u64,
    pub(crate) live: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TaskId {
    place: u32,
    generation: u32,
}

struct TaskWaker {
    id: TaskId,
    /// Whether the task stands in the queue. Keeps the queue no longer than there are tasks.
    queued: AtomicBool,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !sim::is_active() {
            // The queue of the simulation cannot be reached from here, and what another thread does
            // could not be reproduced anyway.
            FOREIGN_WAKES.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if !self.queued.swap(true, Ordering::Relaxed) {
            let _ = READY.try_with(|ready| ready.borrow_mut().push_back(self.id));
        }
    }
}

struct Place {
    generation: u32,
    node: NodeIndex,
    /// Absent while it is being polled, and in a free place.
    task: Option<Task>,
    waker: Option<Waker>,
    shared: Option<Arc<TaskWaker>>,
    /// The tasks of a node form a list, so that a crash need not look at all others.
    next: Option<u32>,
    previous: Option<u32>,
    /// Whether a task holds this place.
    is_held: bool,
}

struct Tasks {
    places: Vec<Place>,
    free: Vec<u32>,
    /// The latest task of each node.
    latest: Vec<Option<u32>>,
    counts: Counts,
}

impl Tasks {
    const fn new() -> Self {
        let counts = Counts { polls: 0, live: 0 };
        Self { places: Vec::new(), free: Vec::new(), latest: Vec::new(), counts }
    }

    fn insert(&mut self, node: NodeIndex, task: Task) -> TaskId {
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let number = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
                self.places.push(Place {
                    generation: 0,
                    node,
                    task: None,
                    waker: None,
                    shared: None,
                    next: None,
                    previous: None,
                    is_held: false,
                });
                number
            }
        };
        let owner = node.0 as usize;
        if self.latest.len() <= owner {
            self.latest.resize(owner.saturating_add(1), None);
        }
        let next = self.latest.get_mut(owner).and_then(|latest| latest.replace(number));
        if let Some(next) = next.and_then(|next| self.places.get_mut(next as usize)) {
            next.previous = Some(number);
        }
        let Some(place) = self.places.get_mut(number as usize) else {
            return TaskId { place: number, generation: 0 };
        };
        let id = TaskId { place: number, generation: place.generation };
        let shared = Arc::new(TaskWaker { id, queued: AtomicBool::new(true) });
        place.node = node;
        place.task = Some(task);
        place.waker = Some(Waker::from(Arc::clone(&shared)));
        place.shared = Some(shared);
        place.next = next;
        place.previous = None;
        place.is_held = true;
        self.counts.live = self.counts.live.saturating_add(1);
        id
    }

    fn current(&mut self, id: TaskId) -> Option<&mut Place> {
        let place = self.places.get_mut(id.place as usize)?;
        (place.is_held && place.generation == id.generation).then_some(place)
    }

    /// Frees a place. What it held is given back, to be dropped where nothing is borrowed.
    fn remove(&mut self, id: TaskId) -> Option<(Option<Task>, Option<Waker>)> {
        let place = self.current(id)?;
        place.is_held = false;
        place.generation = place.generation.wrapping_add(1);
        let (node, next, previous) = (place.node, place.next.take(), place.previous.take());
        let held = (place.task.take(), place.waker.take());
        place.shared = None;
        if let Some(next) = next.and_then(|next| self.places.get_mut(next as usize)) {
            next.previous = previous;
        }
        match previous.and_then(|previous| self.places.get_mut(previous as usize)) {
            Some(previous) => previous.next = next,
            None => {
                if let Some(latest) = self.latest.get_mut(node.0 as usize) {
                    *latest = next;
                }
            }
        }
        self.free.push(id.place);
        self.counts.live = self.counts.live.saturating_sub(1);
        Some(held)
    }

    fn latest_of(&self, node: NodeIndex) -> Option<TaskId> {
        let number = (*self.latest.get(node.0 as usize)?)?;
        let place = self.places.get(number as usize)?;
        Some(TaskId { place: number, generation: place.generation })
    }
}

/// Runs `future` as a task of `node`.
pub(crate) fn spawn_boxed(node: NodeIndex, task: Task) {
    let id = TASKS.with_borrow_mut(|tasks| tasks.insert(node, task));
    READY.with_borrow_mut(|ready| ready.push_back(id));
}

/// Ends all tasks of `node`, the latest first, the one that is being polled included.
pub(crate) fn kill(node: NodeIndex) {
    loop {
        let removed = TASKS.with_borrow_mut(|tasks| {
            let id = tasks.latest_of(node)?;
            tasks.remove(id)
        });
        let Some(removed) = removed else { return };
        let before = CURRENT.replace(Some(node));
        drop(removed); // outside the borrow: it may wake or spawn others
        CURRENT.set(before);
    }
}

/// Runs `work` as if it were a part of `node`.
pub(crate) fn on<R>(node: NodeIndex, work: impl FnOnce() -> R) -> R {
    let before = CURRENT.replace(Some(node));
    let result = work();
    CURRENT.set(before);
    result
}

/// Whose task is polled next.
pub(crate) fn next_node() -> Option<NodeIndex> {
    let id = READY.with_borrow(|ready| ready.front().copied())?;
    TASKS.with_borrow_mut(|tasks| tasks.current(id).map(|place| place.node))
}

/// Polls the task that has been ready the longest. False if none is.
pub(crate) fn poll_next() -> Result<bool, TaskPanicked> {
    loop {
        let Some(id) = READY.with_borrow_mut(VecDeque::pop_front) else { return Ok(false) };
        // A task that ended since it was woken is passed over.
        if poll(id)? {
            return Ok(true);
        }
    }
}

fn poll(id: TaskId) -> Result<bool, TaskPanicked> {
    let taken = TASKS.with_borrow_mut(|tasks| {
        let place = tasks.current(id)?;
        if let Some(shared) = &place.shared {
            shared.queued.store(false, Ordering::Relaxed);
        }
        let taken = (place.task.take()?, place.waker.take()?, place.node);
        tasks.counts.polls = tasks.counts.polls.wrapping_add(1);
        Some(taken)
    });
    let Some((mut task, waker, node)) = taken else { return Ok(false) };
    let polled = on(node, || {
        catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut Context::from_waker(&waker))))
    });
    match polled {
        Ok(polled) => {
            let leftover = TASKS.with_borrow_mut(|tasks| match tasks.current(id) {
                Some(place) if polled.is_pending() => {
                    place.task = Some(task);
                    place.waker = Some(waker);
                    None
                }
                // It is done, or its node was killed while it ran.
                _ => Some((tasks.remove(id), task, waker)),
            });
            on(node, || drop(leftover));
            Ok(true)
        }
        Err(panic) => {
            let removed = TASKS.with_borrow_mut(|tasks| tasks.remove(id));
            drop((removed, task, waker));
            Err(TaskPanicked { node, message: panic_message(panic.as_ref()) })
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a value that is no text".to_owned())
}

pub(crate) fn counts() -> Counts {
    TASKS.with_borrow(|tasks| tasks.counts)
}

pub(crate) fn foreign_wakes() -> u64 {
    FOREIGN_WAKES.load(Ordering::Relaxed)
}

/// Forgets all tasks. For the end of a run.
pub(crate) fn clear() {
    let nodes = TASKS.with_borrow(|tasks| tasks.latest.len());
    for node in 0..u32::try_from(nodes).unwrap_or(u32::MAX) {
        kill(NodeIndex(node));
    }
    READY.with_borrow_mut(VecDeque::clear);
}
