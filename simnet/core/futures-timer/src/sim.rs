//! Virtual time of one thread: its clock, and the heap of the timers that run on it.
//!
//! Owns: the moment that is "now", and the order in which timers fire: by deadline, then by when
//! they were set. Must not: move time by itself, or know tasks beyond their wakers.
//!
//! Moments are nanoseconds since [`enter`]; 2^64 of them are 584 years. All state is thread-local:
//! one simulation neither sees nor stops another thread's time.
//!
//! A timer that is dropped leaves an entry in the heap, and one that is set later than before keeps
//! its old entry, which moves on when it comes up. So resetting an idle time-out on every message
//! costs nothing, a timer never has more than two entries that matter, and the heap is swept once
//! more than half of it is stale: its size stays proportional to the live timers.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

thread_local! {
    /// Which simulation runs on this thread; zero for none. Timers carry it, so that one that
    /// outlives its simulation or leaves its thread cannot touch another.
    static EPOCH: Cell<u32> = const { Cell::new(0) };
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static NOW: Cell<u64> = const { Cell::new(0) };
    static TIMERS: RefCell<Timers> = const { RefCell::new(Timers::new()) };
}

static NEXT_EPOCH: AtomicU32 = AtomicU32::new(1);

/// Heaps smaller than this are not worth sweeping.
const SWEEP_FROM: usize = 1024;

/// The thread is a simulation thread already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlreadyEntered;

impl std::fmt::Display for AlreadyEntered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("this thread is a simulation thread already; leave it first")
    }
}

impl std::error::Error for AlreadyEntered {}

/// Timers of a thread, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Timers that exist.
    pub live: usize,
    /// Entries in the heap: those of live timers, and stale ones.
    pub entries: usize,
    /// Timers that have fired.
    pub fired: u64,
}

/// A timer that fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// When it was due.
    pub deadline: u64,
    /// How many timers had been set on this thread before it was: tells two of one moment apart.
    pub ordinal: u64,
}

/// Makes this thread a simulation thread, at moment zero.
pub fn enter() -> Result<(), AlreadyEntered> {
    if ACTIVE.replace(true) {
        return Err(AlreadyEntered);
    }
    EPOCH.set(NEXT_EPOCH.fetch_add(1, Ordering::Relaxed));
    NOW.set(0);
    TIMERS.with(|timers| timers.replace(Timers::new()));
    Ok(())
}

/// Makes it an ordinary thread again. Timers that are left never fire.
pub fn leave() {
    if ACTIVE.replace(false) {
        let left = TIMERS.with(|timers| timers.replace(Timers::new()));
        drop(left); // outside the borrow: a waker's end may be a task's end
    }
}

/// Whether this thread is a simulation thread.
pub fn is_active() -> bool {
    ACTIVE.try_with(Cell::get).unwrap_or(false)
}

/// Now, in virtual nanoseconds.
pub fn now() -> u64 {
    NOW.try_with(Cell::get).unwrap_or(0)
}

/// Lets time pass until `moment`. Time never goes back: an earlier moment changes nothing.
pub fn advance_to(moment: u64) {
    NOW.set(NOW.get().max(moment));
}

/// When the next timer is due.
pub fn next_deadline() -> Option<u64> {
    TIMERS.with_borrow_mut(Timers::next_deadline)
}

/// Fires the earliest timer if it is due: its future is ready from now on, and its task is woken.
pub fn fire_next() -> Option<Fired> {
    let now = now();
    let (fired, waker) = TIMERS.with_borrow_mut(|timers| timers.fire_next(now))?;
    if let Some(waker) = waker {
        waker.wake();
    }
    Some(fired)
}

/// Counts of this thread's timers.
pub fn statistics() -> Statistics {
    TIMERS.with_borrow(|timers| Statistics {
        live: timers.slots.len().saturating_sub(timers.free.len()),
        entries: timers.heap.len(),
        fired: timers.fired,
    })
}

/// A timer of a simulation thread. A handle: the state is thread-local.
pub(crate) struct Timer {
    epoch: u32,
    slot: u32,
}

/// What the heap is ordered by: first the deadline, then the number under which it was set.
type Key = (u64, u64);

struct Slot {
    /// Counts the timers that this slot has held; an entry of an earlier one is stale.
    generation: u32,
    /// When it is due.
    due: Key,
    /// The entry of the heap that will bring it up: not later than `due`, or none.
    entry: Option<Key>,
    fired: bool,
    waker: Option<Waker>,
}

struct Timers {
    heap: BinaryHeap<Reverse<(Key, u32, u32)>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    set: u64,
    fired: u64,
    /// Entries of the heap that bring nothing up any more.
    stale: usize,
}

impl Timers {
    const fn new() -> Self {
        let heap = BinaryHeap::new();
        Self { heap, slots: Vec::new(), free: Vec::new(), set: 0, fired: 0, stale: 0 }
    }

    fn next_key(&mut self, deadline: u64) -> Key {
        self.set = self.set.wrapping_add(1);
        (deadline, self.set)
    }

    fn insert(&mut self, deadline: u64) -> u32 {
        let due = self.next_key(deadline);
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
                let slot = Slot { generation: 0, due, entry: None, fired: true, waker: None };
                self.slots.push(slot);
                index
            }
        };
        self.set_due(index, due);
        index
    }

    fn set_due(&mut self, index: u32, due: Key) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        slot.due = due;
        slot.fired = false;
        match slot.entry {
            // The entry comes up first, and moves on to where the timer is then.
            Some(entry) if entry <= due => {}
            old => {
                self.stale = self.stale.saturating_add(usize::from(old.is_some()));
                slot.entry = Some(due);
                self.heap.push(Reverse((due, index, slot.generation)));
            }
        }
        self.sweep();
    }

    /// Takes stale entries off the top, and moves those on whose timers were set later.
    fn settle(&mut self) {
        while let Some(&Reverse((key, index, generation))) = self.heap.peek() {
            let slot = self.slots.get_mut(index as usize);
            let current = slot.filter(|it| it.generation == generation && it.entry == Some(key));
            match current {
                None => {
                    self.heap.pop();
                    self.stale = self.stale.saturating_sub(1);
                }
                Some(slot) if slot.due != key => {
                    slot.entry = Some(slot.due);
                    let due = slot.due;
                    self.heap.pop();
                    self.heap.push(Reverse((due, index, generation)));
                }
                Some(_) => return,
            }
        }
    }

    fn next_deadline(&mut self) -> Option<u64> {
        self.settle();
        self.heap.peek().map(|Reverse(((deadline, _), ..))| *deadline)
    }

    fn fire_next(&mut self, now: u64) -> Option<(Fired, Option<Waker>)> {
        self.settle();
        let &Reverse(((deadline, ordinal), index, _)) = self.heap.peek()?;
        if deadline > now {
            return None;
        }
        self.heap.pop();
        let slot = self.slots.get_mut(index as usize)?;
        slot.entry = None;
        slot.fired = true;
        self.fired = self.fired.wrapping_add(1);
        Some((Fired { deadline, ordinal }, slot.waker.take()))
    }

    /// The waker is given back, to be dropped where nothing is borrowed.
    fn remove(&mut self, index: u32) -> Option<Waker> {
        let slot = self.slots.get_mut(index as usize)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.fired = true;
        self.stale = self.stale.saturating_add(usize::from(slot.entry.take().is_some()));
        let waker = slot.waker.take();
        self.free.push(index);
        self.sweep();
        waker
    }

    fn sweep(&mut self) {
        if self.heap.len() < SWEEP_FROM || self.stale <= self.heap.len() / 2 {
            return;
        }
        let mut entries = mem::take(&mut self.heap).into_vec();
        entries.retain(|Reverse((key, index, generation))| {
            let slot = self.slots.get(*index as usize);
            slot.is_some_and(|it| it.generation == *generation && it.entry == Some(*key))
        });
        self.heap = BinaryHeap::from(entries);
        self.stale = 0;
    }
}

fn deadline(duration: Duration) -> u64 {
    now().saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

impl Timer {
    /// `None` where no simulation runs.
    pub(crate) fn new(duration: Duration) -> Option<Self> {
        if !is_active() {
            return None;
        }
        let deadline = deadline(duration);
        let slot = TIMERS.with_borrow_mut(|timers| timers.insert(deadline));
        Some(Self { epoch: EPOCH.get(), slot })
    }

    /// Whether the simulation that it was made in still runs on this very thread.
    fn is_home(&self) -> bool {
        is_active() && EPOCH.try_with(Cell::get) == Ok(self.epoch)
    }

    pub(crate) fn reset(&self, duration: Duration) {
        if self.is_home() {
            let deadline = deadline(duration);
            TIMERS.with_borrow_mut(|timers| {
                let due = timers.next_key(deadline);
                timers.set_due(self.slot, due);
            });
        }
    }

    /// Off its thread, and after its simulation, it stays pending: no time passes there.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if !self.is_home() {
            return Poll::Pending;
        }
        let (poll, old) = TIMERS.with_borrow_mut(|timers| {
            let Some(slot) = timers.slots.get_mut(self.slot as usize) else {
                return (Poll::Pending, None);
            };
            if slot.fired {
                return (Poll::Ready(()), slot.waker.take());
            }
            let known = slot.waker.as_ref().is_some_and(|it| it.will_wake(context.waker()));
            let old = if known { None } else { slot.waker.replace(context.waker().clone()) };
            (Poll::Pending, old)
        });
        drop(old); // outside the borrow: a waker's end may be a task's end
        poll
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if !self.is_home() {
            return;
        }
        let removed = TIMERS.try_with(|timers| {
            timers.try_borrow_mut().ok().and_then(|mut timers| timers.remove(self.slot))
        });
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;
    use crate::Delay;
    use std::future::Future as _;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn poll(delay: &mut Delay) -> bool {
        std::pin::Pin::new(delay).poll(&mut context()).is_ready()
    }

    fn run_to(moment: u64) -> Vec<u64> {
        let mut fired = Vec::new();
        while let Some(deadline) = next_deadline().filter(|deadline| *deadline <= moment) {
            advance_to(deadline);
            fired.push(fire_next().unwrap().deadline);
        }
        advance_to(moment);
        fired
    }

    #[test]
    fn timers_fire_in_the_order_of_their_deadlines_and_then_of_their_setting() {
        enter().unwrap();
        assert_eq!(enter(), Err(AlreadyEntered));
        let nanos = [30, 10, 20, 10];
        let mut delays = nanos.map(|nanos| Delay::new(Duration::from_nanos(nanos)));
        assert!(delays.iter_mut().all(|delay| !poll(delay)));
        advance_to(15);
        let first = fire_next().unwrap();
        assert!(poll(&mut delays[1]) && !poll(&mut delays[3]), "the earlier of two equals");
        let second = fire_next().unwrap();
        assert!(first.ordinal < second.ordinal && first.deadline == second.deadline);
        assert_eq!(fire_next(), None, "the next is not due");
        assert_eq!(run_to(100), [20, 30]);
        leave();
    }

    #[test]
    fn a_reset_moves_a_timer_both_ways_and_sets_a_fired_one_anew() {
        enter().unwrap();
        let mut later = Delay::new(Duration::from_nanos(10));
        let mut sooner = Delay::new(Duration::from_nanos(50));
        later.reset(Duration::from_nanos(40));
        sooner.reset(Duration::from_nanos(20));
        assert_eq!(next_deadline(), Some(20));
        assert_eq!(run_to(60), [20, 40], "each fires once");
        assert!(poll(&mut later) && poll(&mut sooner));
        later.reset(Duration::from_nanos(5));
        assert!(!poll(&mut later));
        assert_eq!(run_to(100), [65]);
        leave();
    }

    #[test]
    fn a_dropped_timer_does_not_fire_and_its_place_is_not_confused_with_the_next() {
        enter().unwrap();
        drop(Delay::new(Duration::from_nanos(10)));
        let mut next = Delay::new(Duration::from_nanos(30));
        assert_eq!(run_to(20), []);
        assert!(!poll(&mut next));
        assert_eq!(run_to(40), [30]);
        leave();
    }

    #[test]
    fn the_heap_stays_proportional_to_the_live_timers() {
        enter().unwrap();
        let mut kept = Delay::new(Duration::from_secs(10));
        let mut most = 0;
        for round in 0..100_000_u64 {
            kept.reset(Duration::from_secs(10)); // an idle time-out that every message puts off
            drop(Delay::new(Duration::from_secs(20 + round % 7))); // a time-out that never comes
            kept.reset(Duration::from_secs(9));
            advance_to(round * 1000);
            most = most.max(statistics().entries);
        }
        assert!(most <= 2 * SWEEP_FROM, "{most} entries for one live timer");
        assert_eq!(statistics().live, 1);
        leave();
    }

    #[test]
    fn a_timer_wakes_the_last_task_that_polled_it_and_survives_its_simulation() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        enter().unwrap();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let mut delay = Delay::new(Duration::from_nanos(1));
        assert!(!poll(&mut delay));
        let waker = Waker::from(count.clone());
        assert!(std::pin::Pin::new(&mut delay).poll(&mut Context::from_waker(&waker)).is_pending());
        run_to(1);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        leave();
        enter().unwrap();
        let mut other = Delay::new(Duration::from_nanos(1));
        assert!(!poll(&mut delay), "of a simulation that is over");
        drop(delay);
        assert_eq!(statistics().live, 1);
        assert!(!poll(&mut other));
        leave();
    }
}
