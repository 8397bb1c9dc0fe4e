//! Delays in real time, for threads that are no simulation: one thread keeps all of them.
//!
//! Owns: that thread and its heap. Must not: be reached from a simulation thread.
//!
//! A delay that is reset or dropped leaves its old entry in the heap until the entry is due or until
//! such entries are the larger part; then the heap is swept.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Heaps smaller than this are not worth sweeping.
const SWEEP_FROM: usize = 1024;
/// What stands for a delay that is longer than the clock reaches: thirty years.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// One delay.
pub(crate) struct Timer {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    deadline: Instant,
    fired: bool,
    waker: Option<Waker>,
}

struct Entry {
    deadline: Instant,
    timer: Weak<Mutex<Shared>>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.deadline == other.deadline
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.deadline.cmp(&other.deadline)
    }
}

#[derive(Default)]
struct Keeper {
    heap: Mutex<BinaryHeap<Reverse<Entry>>>,
    changed: Condvar,
}

/// A poisoned lock means that a waker panicked while a timer fired; the state itself is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keeper() -> &'static Keeper {
    static KEEPER: OnceLock<&'static Keeper> = OnceLock::new();
    KEEPER.get_or_init(|| {
        let keeper: &'static Keeper = Box::leak(Box::default());
        let spawned =
            thread::Builder::new().name("futures-timer".to_owned()).spawn(move || keeper.run());
        #[expect(clippy::panic, reason = "as upstream: without its thread no timer can ever fire")]
        if let Err(error) = spawned {
            panic!("the thread of futures-timer does not start: {error}");
        }
        keeper
    })
}

impl Keeper {
    fn add(&self, deadline: Instant, timer: &Arc<Mutex<Shared>>) {
        let mut heap = lock(&self.heap);
        if heap.len() >= SWEEP_FROM && heap.len() == heap.capacity() {
            heap.retain(|Reverse(entry)| entry.is_current());
        }
        heap.push(Reverse(Entry { deadline, timer: Arc::downgrade(timer) }));
        self.changed.notify_one();
    }

    fn run(&self) {
        let mut heap = lock(&self.heap);
        loop {
            let now = Instant::now();
            match heap.peek().map(|Reverse(entry)| entry.deadline) {
                None => heap = self.changed.wait(heap).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) if deadline > now => {
                    let wait = deadline.saturating_duration_since(now);
                    heap = match self.changed.wait_timeout(heap, wait) {
                        Ok((heap, _)) => heap,
                        Err(poisoned) => poisoned.into_inner().0,
                    };
                }
                Some(_) => {
                    let entry = heap.pop();
                    drop(heap); // whoever is woken may make a timer at once
                    if let Some(Reverse(entry)) = entry {
                        entry.fire();
                    }
                    heap = lock(&self.heap);
                }
            }
        }
    }
}

impl Entry {
    fn is_current(&self) -> bool {
        self.timer.upgrade().is_some_and(|timer| {
            let timer = lock(&timer);
            !timer.fired && timer.deadline == self.deadline
        })
    }

    fn fire(&self) {
        let Some(timer) = self.timer.upgrade() else { return };
        let waker = {
            let mut timer = lock(&timer);
            if timer.fired || timer.deadline != self.deadline {
                return;
            }
            timer.fired = true;
            timer.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Timer {
    pub(crate) fn new(duration: Duration) -> Self {
        let deadline = deadline(duration);
        let shared = Arc::new(Mutex::new(Shared { deadline, fired: false, waker: None }));
        keeper().add(deadline, &shared);
        Self { shared }
    }

    pub(crate) fn reset(&self, duration: Duration) {
        let deadline = deadline(duration);
        {
            let mut shared = lock(&self.shared);
            shared.deadline = deadline;
            shared.fired = false;
        }
        keeper().add(deadline, &self.shared);
    }

    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut shared = lock(&self.shared);
        if shared.fired {
            return Poll::Ready(());
        }
        match &mut shared.waker {
            Some(waker) => waker.clone_from(context.waker()),
            waker @ None => *waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

fn deadline(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration.min(FOREVER)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::Wake;

    use super::*;

    struct Bell(mpsc::Sender<()>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn a_delay_off_a_simulation_thread_waits_for_real_time() {
        let (bell, rings) = mpsc::channel();
        let waker = Waker::from(Arc::new(Bell(bell)));
        let context = Context::from_waker(&waker);
        let start = Instant::now();
        let long = Timer::new(Duration::from_secs(3600));
        let short = Timer::new(Duration::from_millis(5));
        assert!(long.poll(&context).is_pending());
        assert!(short.poll(&context).is_pending());
        rings.recv().unwrap();
        assert!(start.elapsed() >= Duration::from_millis(5));
        assert!(short.poll(&context).is_ready());
        assert!(long.poll(&context).is_pending());

        // A reset brings the far one near, and wakes once more.
        long.reset(Duration::from_millis(1));
        assert!(long.poll(&context).is_pending() || long.poll(&context).is_ready());
        rings.recv().unwrap();
        assert!(long.poll(&context).is_ready());
    }

    #[test]
    fn the_longest_duration_does_not_overflow() {
        let timer = Timer::new(Duration::MAX);
        assert!(timer.poll(&Context::from_waker(Waker::noop())).is_pending());
    }
}
