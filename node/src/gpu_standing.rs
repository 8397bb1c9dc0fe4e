//! Whether the GPUs that an offer was made with still prove themselves.
//!
//! Owns: the note of every answer that they give, the trial again and again, and the tier that follows
//! for the offer. Must not: touch a session: one whose GPUs fail ends by itself, for its consumer hears
//! that they cannot answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cocoon_attest::{Clock, GpuAttester, QuoteError, try_gpus};
use cocoon_protocol::Input;
use cocoon_protocol::attest::{GpuEvidence, GpuNonce, Tier};
use tokio::sync::watch;

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
}

impl fmt::Debug for NotedGpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NotedGpus").field(&self.gpus).finish()
    }
}

impl NotedGpus {
    /// GPUs that have passed their trial.
    pub(crate) fn new(gpus: Arc<dyn GpuAttester>) -> Arc<Self> {
        Arc::new(Self { gpus, good: watch::Sender::new(true) })
    }

    fn note(&self, good: bool) {
        self.good.send_if_modified(|before| std::mem::replace(before, good) != good);
    }

    /// Tries them all again.
    fn try_again(&self, clock: &Clock) {
        let tried = try_gpus(&*self.gpus, clock.now());
        if let Err(error) = &tried {
            tracing::warn!(error = error as &dyn std::error::Error, "the GPUs fail their trial");
        }
        self.note(tried.is_ok());
    }

    /// Tells the driver of every change until the node ends.
    pub(crate) fn follow(self: Arc<Self>, clock: Clock, driver: DriverHandle, tasks: &Tasks) {
        let stopping = tasks.stopping().clone();
        tasks.spawn_leaf(async move {
            stopping.run_until_cancelled(self.run(clock, driver)).await;
        });
    }

    async fn run(self: Arc<Self>, clock: Clock, driver: DriverHandle) {
        let mut changes = self.good.subscribe();
        let mut told = true;
        loop {
            let good = *changes.borrow_and_update();
            if good != told {
                told = good;
                driver.send(Input::Proves { tier: tier(good) }).await;
            }
            let pause = if good { WHILE_GOOD } else { WHILE_BAD };
            if tokio::time::timeout(pause, changes.changed()).await.is_err() {
                let (gpus, clock) = (Arc::clone(&self), clock.clone());
                let tried = tokio::task::spawn_blocking(move || gpus.try_again(&clock)).await;
                if tried.is_err() {
                    self.note(false);
                }
            }
        }
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
        let made = self.gpus.evidence(nonces);
        // What lets the offer rise again is a trial: failures now and then would make it flap.
        if made.is_err() {
            self.note(false);
        }
        made
    }
}

#[cfg(all(test, feature = "dev-tee"))]
mod tests {
    use super::*;
    use crate::driver::event::Event;
    use cocoon_attest::simulated::{SimulatedGpu, SimulatedGpus};
    use cocoon_protocol::attest::gpu_nonces;
    use cocoon_protocol::units::Timestamp;
    use std::sync::atomic::{AtomicBool, Ordering};

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
}
