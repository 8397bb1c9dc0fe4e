//! The life of the process: every task is started here, and all of them end here.
//!
//! Owns: the only `spawn`, the two signals that every task listens to, and the order of stopping.
//! Must not: know what a task does.
//! Invariant: a worker or service that panics, fails or ends early stops the node with an error.
//!
//! ```text
//! running ── SIGINT/SIGTERM, request, fault ──> draining ── workers done, deadline, 2nd signal ──> stopping ── all done ──> ended
//! ```

use std::error::Error;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use cocoon_protocol::units::Millis;
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long tasks have to end once they are told to stop. They only close sockets and files by
/// then; whoever needs longer hangs, and the process ends without it.
const STOP_DEADLINE: Millis = Millis::from_secs(5);

/// What happened to a task that should not have ended.
#[derive(Debug)]
pub enum FaultKind {
    /// It panicked; the panic hook logged where.
    Panicked,
    /// It ended with an error.
    Failed(Box<dyn Error + Send + Sync>),
    /// It ended although nobody asked it to.
    EndedEarly,
}

/// A task on which the node depends ended in a way that it must not.
#[derive(Debug)]
pub struct Fault {
    /// The task's name.
    pub task: &'static str,
    /// What happened.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FaultKind::Panicked => write!(f, "the task `{}` failed by a bug", self.task),
            FaultKind::Failed(_) => write!(f, "the task `{}` failed", self.task),
            FaultKind::EndedEarly => write!(f, "the task `{}` ended unexpectedly", self.task),
        }
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.kind {
            FaultKind::Failed(error) => Some(error.as_ref()),
            FaultKind::Panicked | FaultKind::EndedEarly => None,
        }
    }
}

/// Why the operating system's signals cannot be heard.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for SIGINT and SIGTERM")]
pub struct SignalError(#[source] std::io::Error);

#[derive(Debug, Default)]
struct Shared {
    draining: CancellationToken,
    stopping: CancellationToken,
    /// Tasks with work to finish; draining lasts as long as one of them does.
    workers: TaskTracker,
    /// All others.
    others: TaskTracker,
    /// The first fault; later ones are its consequences and only logged.
    fault: Mutex<Option<Fault>>,
}

/// A handle to start tasks with and to ask about the state; cloned into every part.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Shared>);

impl Tasks {
    /// Starts a task that has work to finish. It ends by itself, with `Ok`, some time after
    /// [`Tasks::draining`] is cancelled; it must also give up when [`Tasks::stopping`] is.
    pub fn spawn_worker<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        let until = self.0.draining.clone();
        let watched = self.clone().watch(name, until, task);
        drop(self.0.workers.spawn(watched));
    }

    /// Starts a task that serves others until [`Tasks::stopping`] is cancelled.
    pub fn spawn_service<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        let until = self.0.stopping.clone();
        let watched = self.clone().watch(name, until, task);
        drop(self.0.others.spawn(watched));
    }

    /// Starts a task of which there are many: one connection, one request. Its panic is logged by
    /// the panic hook and ends it alone. It must end soon after [`Tasks::stopping`] is cancelled.
    pub fn spawn_leaf<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.0.others.spawn(task));
    }

    /// Cancelled when no new work may be accepted.
    pub fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }

    /// Cancelled when everything ends now. A child token of it serves a task's own parts.
    pub fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }

    /// Asks the node to finish its work and end, as a first SIGTERM does.
    pub fn request_shutdown(&self) {
        self.0.draining.cancel();
    }

    /// Stops the node because something on which it depends, outside any task, is broken.
    pub fn report_fault(&self, task: &'static str, kind: FaultKind) {
        let fault = Fault { task, kind };
        let error: &dyn Error = &fault;
        tracing::error!(task, error, "the node stops because a part on which it depends failed");
        self.0.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
        self.0.draining.cancel();
        self.0.stopping.cancel();
    }

    async fn watch<F, E>(self, name: &'static str, until: CancellationToken, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        match AssertUnwindSafe(task).catch_unwind().await {
            Ok(Ok(())) if until.is_cancelled() => {}
            Ok(Ok(())) => self.report_fault(name, FaultKind::EndedEarly),
            Ok(Err(error)) => self.report_fault(name, FaultKind::Failed(Box::new(error))),
            Err(_panic) => self.report_fault(name, FaultKind::Panicked),
        }
    }
}

/// The end of the process, held by whoever runs the node.
#[derive(Debug)]
pub struct Shutdown {
    tasks: Tasks,
    grace: Millis,
    signals: Signals,
}

impl Shutdown {
    /// A process that gives its workers `grace` to finish. From here on SIGINT and SIGTERM no
    /// longer end it at once. Must be called within a tokio runtime.
    pub fn new(grace: Millis) -> Result<Self, SignalError> {
        Ok(Self { tasks: Tasks::default(), grace, signals: Signals::new()? })
    }

    /// The handle to start tasks with.
    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Waits for SIGINT, SIGTERM, a request or a fault, and then until every task has ended.
    pub async fn wait_for_end(self) -> Result<(), Fault> {
        let Self { tasks, grace, mut signals } = self;
        let shared = &tasks.0;
        tokio::select! {
            biased;
            () = shared.draining.cancelled() => {}
            () = signals.next() => {
                tracing::info!(grace_ms = grace.get(), "finishing running jobs; a second signal stops at once");
            }
        }
        shared.draining.cancel();
        shared.workers.close();
        tokio::select! {
            biased;
            () = shared.stopping.cancelled() => {}
            () = shared.workers.wait() => {}
            () = signals.next() => tracing::warn!("stopping at once; running jobs are abandoned"),
            () = tokio::time::sleep(grace.to_duration()) => {
                tracing::warn!("the time to finish is over; running jobs are abandoned");
            }
        }
        shared.stopping.cancel();
        shared.others.close();
        let ended = async {
            shared.workers.wait().await;
            shared.others.wait().await;
        };
        if tokio::time::timeout(STOP_DEADLINE.to_duration(), ended).await.is_err() {
            let tasks = shared.workers.len().saturating_add(shared.others.len());
            tracing::warn!(tasks, "ending without tasks that did not stop");
        }
        let fault = shared.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        fault.map_or(Ok(()), Err)
    }
}

/// SIGINT and SIGTERM of this process.
#[derive(Debug)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, SignalError> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(SignalError)?,
            terminate: signal(SignalKind::terminate()).map_err(SignalError)?,
        })
    }

    /// The next of either. Cancel-safe: a signal that is not taken stays pending.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Long enough that a test which needs it to pass would hang instead of passing by luck.
    const NEVER: Millis = Millis::from_secs(3_600);

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn workers_finish_before_services_are_stopped() {
        run(async {
            let shutdown = Shutdown::new(NEVER).unwrap();
            let tasks = shutdown.tasks();
            let worker_done = Arc::new(AtomicBool::new(false));
            let seen_by_service = Arc::new(AtomicBool::new(false));

            let (draining, done) = (tasks.draining().clone(), Arc::clone(&worker_done));
            tasks.spawn_worker("worker", async move {
                draining.cancelled().await;
                tokio::task::yield_now().await;
                done.store(true, Ordering::SeqCst);
                Ok::<(), Infallible>(())
            });
            let (stopping, done, seen) =
                (tasks.stopping().clone(), worker_done, Arc::clone(&seen_by_service));
            tasks.spawn_service("service", async move {
                stopping.cancelled().await;
                seen.store(done.load(Ordering::SeqCst), Ordering::SeqCst);
                Ok::<(), Infallible>(())
            });
            tasks.request_shutdown();
            drop(tasks);
            shutdown.wait_for_end().await.unwrap();
            assert!(seen_by_service.load(Ordering::SeqCst));
        });
    }

    #[test]
    fn a_panic_in_a_service_stops_the_node_with_its_name() {
        run(async {
            let shutdown = Shutdown::new(NEVER).unwrap();
            shutdown.tasks().spawn_service("broken", async {
                if true {
                    panic!("for the test");
                }
                Ok::<(), Infallible>(())
            });
            let stopping = shutdown.tasks().stopping().clone();
            shutdown.tasks().spawn_service("healthy", async move {
                stopping.cancelled().await;
                Ok::<(), Infallible>(())
            });
            let fault = shutdown.wait_for_end().await.unwrap_err();
            assert_eq!(fault.task, "broken");
            assert!(matches!(fault.kind, FaultKind::Panicked));
        });
    }

    #[test]
    fn an_error_and_an_early_end_stop_the_node_too() {
        run(async {
            let shutdown = Shutdown::new(NEVER).unwrap();
            shutdown.tasks().spawn_worker("failing", async { Err(std::io::Error::other("disk")) });
            let fault = shutdown.wait_for_end().await.unwrap_err();
            assert!(matches!(fault.kind, FaultKind::Failed(_)));
            assert_eq!(fault.source().unwrap().to_string(), "disk");

            let shutdown = Shutdown::new(NEVER).unwrap();
            shutdown.tasks().spawn_service("bored", async { Ok::<(), Infallible>(()) });
            let fault = shutdown.wait_for_end().await.unwrap_err();
            assert!(matches!(fault.kind, FaultKind::EndedEarly));
        });
    }

    #[test]
    fn a_panic_in_a_leaf_ends_the_leaf_alone() {
        run(async {
            let shutdown = Shutdown::new(NEVER).unwrap();
            let tasks = shutdown.tasks();
            tasks.spawn_leaf(async { panic!("for the test") });
            tokio::task::yield_now().await;
            assert!(!tasks.draining().is_cancelled());
            tasks.request_shutdown();
            drop(tasks);
            shutdown.wait_for_end().await.unwrap();
        });
    }

    #[test]
    fn a_worker_that_does_not_finish_is_left_behind_after_the_grace() {
        run(async {
            let shutdown = Shutdown::new(Millis::new(1)).unwrap();
            let tasks = shutdown.tasks();
            let stopping = tasks.stopping().clone();
            tasks.spawn_worker("slow", async move {
                stopping.cancelled().await;
                Ok::<(), Infallible>(())
            });
            tasks.request_shutdown();
            drop(tasks);
            shutdown.wait_for_end().await.unwrap();
        });
    }
}
