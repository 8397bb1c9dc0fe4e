//! Whether the GPUs that an offer was made with still prove themselves.
//!
//! Owns: the note of every answer that they give, the trial again and again, and the tier that follows
//! for the offer, which falls also while a call of theirs is out for too long. Must not: touch a session: one whose GPUs fail ends by itself, for its consumer hears
//! that they cannot answer.

use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cocoon_attest::{ANSWER_TIMEOUT, Clock, GpuAttester, QuoteError, try_gpus};
use cocoon_protocol::Input;
use cocoon_protocol::attest::{GpuEvidence, GpuNonce, Tier};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::driver::event::DriverHandle;
use crate::shutdown::Tasks;

/// How often GPUs are tried of which nothing is known to be wrong: as often as a session asks them.
const WHILE_GOOD: Duration = Duration::from_secs(600);
/// How often those are tried that failed: a reset GPU is back after about as long.
const WHILE_BAD: Duration = Duration::from_secs(60);

/// GPUs with a note of whether they answered the last time.
pub(crate) struct NotedGpus {
    gpus: Arc<dyn GpuAttester>,
    good: watch::Sender<bool>,
    /// Sessions and trials ask in turn, and nobody notes anything out of turn.
    turn: Mutex<()>,
    /// Since when the present call is out.
    asked: watch::Sender<Option<Instant>>,
}

impl fmt::Debug for NotedGpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NotedGpus").field(&self.gpus).finish()
    }
}

impl NotedGpus {
    /// GPUs that have passed their trial.
    pub(crate) fn new(gpus: Arc<dyn GpuAttester>) -> Arc<Self> {
        let (good, asked) = (watch::Sender::new(true), watch::Sender::new(None));
        Arc::new(Self { gpus, good, turn: Mutex::default(), asked })
    }

    fn note(&self, good: bool) {
        self.good.send_if_modified(|before| std::mem::replace(before, good) != good);
    }

    /// Asks the GPUs when it is this call's turn, and notes what `noted` finds in the answer, if anything.
    /// An answer that comes too late for any session is as good as none.
    fn ask<T>(
        &self,
        call: impl FnOnce(&dyn GpuAttester) -> T,
        noted: impl FnOnce(&T) -> Option<bool>,
    ) -> T {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        self.asked.send_replace(Some(began));
        let answer = call(&*self.gpus);
        let late = began.elapsed() >= ANSWER_TIMEOUT;
        self.asked.send_replace(None);
        if let Some(good) = if late { Some(false) } else { noted(&answer) } {
            self.note(good);
        }
        drop(turn);
        answer
    }

    /// Tries them all again.
    fn try_again(&self, clock: &Clock) {
        let tried = self.ask(|gpus| try_gpus(gpus, clock.now()), |tried| Some(tried.is_ok()));
        if let Err(error) = &tried {
            tracing::warn!(error = error as &dyn std::error::Error, "the GPUs fail their trial");
        }
    }

    /// Tells the driver of every change until the node ends.
    pub(crate) fn follow(self: Arc<Self>, clock: Clock, driver: DriverHandle, tasks: &Tasks) {
        let stopping = tasks.stopping().clone();
        tasks.spawn_leaf(async move {
            stopping.run_until_cancelled(self.run(clock, driver)).await;
        });
    }

    async fn run(self: Arc<Self>, clock: Clock, driver: DriverHandle) {
        let (mut changes, mut calls) = (self.good.subscribe(), self.asked.subscribe());
        let mut told = true;
        // One trial at a time: beside one that hangs, another would hang too.
        let mut trial: Option<JoinHandle<()>> = None;
        let mut next = Instant::now() + WHILE_GOOD;
        loop {
            let good = *changes.borrow_and_update();
            if good != told {
                told = good;
                driver.send(Input::Proves { tier: tier(good) }).await;
                next = Instant::now() + pause(good);
            }
            let overdue = calls.borrow_and_update().map(|began| began + ANSWER_TIMEOUT);
            tokio::select! {
                _ = changes.changed() => {}
                _ = calls.changed() => {}
                () = until(overdue), if good => {
                    tracing::error!("the GPUs' driver does not answer");
                    self.note(false);
                }
                ended = ended(&mut trial) => {
                    trial = None;
                    next = Instant::now() + pause(good);
                    if !ended {
                        self.note(false);
                    }
                }
                () = tokio::time::sleep_until(next), if trial.is_none() => {
                    let (gpus, clock) = (Arc::clone(&self), clock.clone());
                    trial = Some(tokio::task::spawn_blocking(move || gpus.try_again(&clock)));
                }
            }
        }
    }
}

const fn pause(good: bool) -> Duration {
    if good { WHILE_GOOD } else { WHILE_BAD }
}

async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => pending().await,
    }
}

/// Whether the trial that runs came to its end; waits for ever where none runs.
async fn ended(trial: &mut Option<JoinHandle<()>>) -> bool {
    match trial {
        Some(trial) => trial.await.is_ok(),
        None => pending().await,
    }
}

/// What the offer says from now on, and a word to the operator.
fn tier(good: bool) -> Tier {
    if good {
        tracing::info!("the GPUs prove themselves again: tier confidential");
        Tier::Confidential
    } else {
        tracing::error!(
            hint = "`cocoon-node tee detect` says what is wrong; they are tried again each minute",
            "THE GPUS NO LONGER PROVE THEMSELVES: tier ATTESTED, in which the owner of a machine can \
             read what crosses its bus to a GPU"
        );
        Tier::Attested
    }
}

impl GpuAttester for NotedGpus {
    fn count(&self) -> usize {
        self.gpus.count()
    }

    fn evidence(&self, nonces: &[GpuNonce]) -> Result<Vec<GpuEvidence>, QuoteError> {
        // What lets the offer rise again is a trial: failures now and then would make it flap.
        self.ask(|gpus| gpus.evidence(nonces), |made| made.is_err().then_some(false))
    }
}

#[cfg(all(test, feature = "dev-tee"))]
mod tests {
    use super::*;
    use crate::driver::event::Event;
    use cocoon_attest::simulated::{SimulatedGpu, SimulatedGpus};
    use cocoon_protocol::attest::gpu_nonces;
    use cocoon_protocol::units::Timestamp;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// GPUs that somebody switches off and on.
    #[derive(Debug)]
    struct Switched(SimulatedGpus, Arc<AtomicBool>);

    impl GpuAttester for Switched {
        fn count(&self) -> usize {
            self.0.count()
        }

        fn evidence(&self, nonces: &[GpuNonce]) -> Result<Vec<GpuEvidence>, QuoteError> {
            match self.1.load(Ordering::Relaxed) {
                true => self.0.evidence(nonces),
                false => Err(QuoteError::Unavailable),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_offer_falls_with_its_gpus_and_rises_with_them() {
        let on = Arc::new(AtomicBool::new(true));
        let gpus = SimulatedGpus::new(vec![SimulatedGpu::new(0)]);
        let noted = NotedGpus::new(Arc::new(Switched(gpus, Arc::clone(&on))));
        let (driver, mut inbox) = DriverHandle::new();
        let clock = Clock::new(|| Timestamp::from_unix_secs(1_800_000_000));
        let following = tokio::spawn(Arc::clone(&noted).run(clock, driver));
        let nonces = gpu_nonces(&[1; 32], &[2; 32], 1);

        // A session that is answered changes nothing; the first that is not does.
        assert!(noted.evidence(&nonces).is_ok());
        on.store(false, Ordering::Relaxed);
        assert_eq!(noted.evidence(&nonces), Err(QuoteError::Unavailable));
        let told = inbox.recv().await.unwrap();
        assert!(matches!(told, Event::Input(Input::Proves { tier: Tier::Attested })));
        // A session that is answered is not enough; a trial finds them well again.
        on.store(true, Ordering::Relaxed);
        assert!(noted.evidence(&nonces).is_ok());
        assert!(!*noted.good.borrow());
        let told = inbox.recv().await.unwrap();
        assert!(matches!(told, Event::Input(Input::Proves { tier: Tier::Confidential })));
        // And another finds that they are not, without any session.
        on.store(false, Ordering::Relaxed);
        let told = inbox.recv().await.unwrap();
        assert!(matches!(told, Event::Input(Input::Proves { tier: Tier::Attested })));
        following.abort();
    }
    /// GPUs whose driver does not return until the test lets it go, and how many calls are out.
    #[derive(Debug)]
    struct Stuck {
        began: tokio::sync::mpsc::Sender<()>,
        go_on: Mutex<std::sync::mpsc::Receiver<bool>>,
        out: AtomicUsize,
    }

    impl Stuck {
        fn new() -> (Arc<Self>, tokio::sync::mpsc::Receiver<()>, std::sync::mpsc::Sender<bool>) {
            let (began, begun) = tokio::sync::mpsc::channel(8);
            let (let_go, go_on) = std::sync::mpsc::channel();
            let out = AtomicUsize::new(0);
            (Arc::new(Self { began, go_on: Mutex::new(go_on), out }), begun, let_go)
        }
    }

    impl GpuAttester for Stuck {
        fn count(&self) -> usize {
            1
        }

        fn evidence(&self, nonces: &[GpuNonce]) -> Result<Vec<GpuEvidence>, QuoteError> {
            assert_eq!(self.out.fetch_add(1, Ordering::SeqCst), 0, "two calls at a time");
            let _ = self.began.try_send(());
            let go_on = self.go_on.lock().unwrap_or_else(PoisonError::into_inner);
            let good = go_on.recv().unwrap_or(false);
            self.out.fetch_sub(1, Ordering::SeqCst);
            match good {
                true => SimulatedGpus::new(vec![SimulatedGpu::new(0)]).evidence(nonces),
                false => Err(QuoteError::Gpus),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_offer_falls_while_a_call_of_its_gpus_does_not_return() {
        let (stuck, mut began, go_on) = Stuck::new();
        let noted = NotedGpus::new(stuck);
        let (driver, mut inbox) = DriverHandle::new();
        let clock = Clock::new(|| Timestamp::from_unix_secs(1_800_000_000));
        let following = tokio::spawn(Arc::clone(&noted).run(clock, driver));
        // The trial hangs: the clock stands still while it does, and is moved by hand.
        began.recv().await.unwrap();
        while noted.asked.borrow().is_none() {
            tokio::task::yield_now().await;
        }
        let settle = async || {
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        };
        settle().await;
        tokio::time::advance(ANSWER_TIMEOUT).await;
        let told = inbox.recv().await.unwrap();
        assert!(matches!(told, Event::Input(Input::Proves { tier: Tier::Attested })));
        // No other trial is begun beside it, however long it takes.
        tokio::time::advance(WHILE_GOOD).await;
        settle().await;
        assert!(began.try_recv().is_err());
        // What came so late is worth nothing; the next trial counts.
        go_on.send(true).unwrap();
        go_on.send(true).unwrap();
        began.recv().await.unwrap();
        let told = inbox.recv().await.unwrap();
        assert!(matches!(told, Event::Input(Input::Proves { tier: Tier::Confidential })));
        following.abort();
    }

    #[test]
    fn a_session_that_fails_during_a_trial_has_the_last_word() {
        let (stuck, mut began, go_on) = Stuck::new();
        let noted = NotedGpus::new(stuck);
        let clock = Clock::new(|| Timestamp::from_unix_secs(1_800_000_000));
        let nonces = gpu_nonces(&[1; 32], &[2; 32], 1);
        std::thread::scope(|scope| {
            let trial = scope.spawn(|| noted.try_again(&clock));
            began.blocking_recv().unwrap();
            let session = scope.spawn(|| noted.evidence(&nonces));
            go_on.send(true).unwrap();
            trial.join().unwrap();
            go_on.send(false).unwrap();
            assert_eq!(session.join().unwrap(), Err(QuoteError::Gpus));
        });
        assert!(!*noted.good.borrow());
    }
}
