//! One job's text on its way from the session to whoever asked for it.
//!
//! Owns: the order of text, counts and the end; the check of the receipt's commitments.
//! Must not: decide about the job; it reports counts and carries out what the driver says.
//!
//! Text never passes the driver. A reader that is slow makes this task wait, which delays the
//! report of tokens, which delays the payment, which stops the provider after one step: the
//! network's flow control is its money.

use cocoon_gateway::{Accepted, JobEvent};
use cocoon_protocol::Input;
use cocoon_protocol::identity::{JobId, ModelHash, NodeId};
use cocoon_protocol::job::{JobError, JobSpec};
use cocoon_protocol::output::JobNews;
use cocoon_protocol::receipt::{
    Commitment, Salt, SignedReceipt, prompt_commitment, sampling_digest,
};
use cocoon_protocol::units::Tokens;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::event::{DriverHandle, Submission};

/// Messages of a provider about one job that wait for this task. A provider may be one step of 32
/// tokens ahead of the payments; whoever overflows this is further ahead than it may be.
pub(crate) const ROUTE: usize = 128;
/// Orders from the driver that wait: at most an assignment and the news of one attempt, per attempt.
const ORDERS: usize = 16;

/// Tokens that may be counted beyond the bytes of text that came: those of a stop string, which is
/// never sent, of an incomplete character, and some that have no text.
const HELD_BACK: usize = cocoon_protocol::limits::STOP_STRING_BYTES + 64;

/// What a provider says about a running job.
pub(crate) enum FromProvider {
    /// Some text.
    Chunk { text: String, completion: Tokens },
    /// The end.
    Finished(SignedReceipt),
}

/// What the driver tells this task.
pub(crate) enum Order {
    /// This provider serves the job from now on.
    Assign { provider: NodeId, route: mpsc::Receiver<FromProvider> },
    /// Something happened to the job.
    News(JobNews),
}

/// The driver's end of a pump.
pub(crate) type Orders = mpsc::Sender<Order>;

/// The task's state.
pub(crate) struct Pump {
    job: JobId,
    model: ModelHash,
    salt: [u8; 32],
    prompt_commitment: [u8; 32],
    sampling_digest: [u8; 32],
    completion: Commitment,
    counted: Tokens,
    /// Bytes of text that came for them.
    text_bytes: usize,
    provider: Option<NodeId>,
    route: Option<mpsc::Receiver<FromProvider>>,
    started: Option<oneshot::Sender<Result<Accepted, JobError>>>,
    events: mpsc::Sender<JobEvent>,
    gone: CancellationToken,
    /// Whether the driver knows that nobody reads any more.
    cancelled: bool,
    orders: mpsc::Receiver<Order>,
    driver: DriverHandle,
}

impl Pump {
    /// A pump for a submitted job; what the driver keeps of it comes back too.
    pub(crate) fn new(submission: Submission, driver: DriverHandle) -> (Self, JobSpec, Orders) {
        let Submission { job, spec, salt, started, events, gone, .. } = submission;
        let (sender, orders) = mpsc::channel(ORDERS);
        let key = Salt::from_bytes(salt);
        let pump = Self {
            job,
            model: spec.model,
            salt,
            prompt_commitment: prompt_commitment(&key, &spec.prompt),
            sampling_digest: sampling_digest(&spec.sampling, &spec.stop),
            completion: Commitment::new(&key),
            counted: Tokens::ZERO,
            text_bytes: 0,
            provider: None,
            route: None,
            started: Some(started),
            events,
            gone,
            cancelled: false,
            orders,
            driver,
        };
        (pump, spec, sender)
    }

    /// Runs until the job is over.
    pub(crate) async fn run(mut self) {
        loop {
            // Every arm only receives, so dropping the others loses nothing.
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    None => return self.fail(JobError::ShuttingDown).await,
                    Some(Order::Assign { provider, route }) => self.assign(provider, route),
                    Some(Order::News(news)) => {
                        if self.news(news).await {
                            return;
                        }
                    }
                },
                () = self.gone.cancelled(), if !self.cancelled => self.cancel().await,
                message = next(&mut self.route) => match message {
                    None => self.route = None,
                    Some(message) => self.provider_says(message).await,
                },
            }
        }
    }

    fn assign(&mut self, provider: NodeId, route: mpsc::Receiver<FromProvider>) {
        self.provider = Some(provider);
        self.route = Some(route);
        self.completion = Commitment::new(&Salt::from_bytes(self.salt));
        self.counted = Tokens::ZERO;
        self.text_bytes = 0;
    }

    /// Tells the reader. True when the job is over.
    async fn news(&mut self, news: JobNews) -> bool {
        match news {
            JobNews::Started { provider, tier, simulated, prices, prompt } => {
                let (job, model) = (self.job, self.model);
                let accepted = Accepted { job, provider, tier, simulated, model, prices, prompt };
                if let Some(started) = self.started.take() {
                    // A reader that has left is noticed by `gone`.
                    let _left = started.send(Ok(accepted));
                }
                false
            }
            JobNews::Finished { reason, usage, cost, receipt, vouchers } => {
                let receipt = Some(receipt);
                self.tell(JobEvent::Finished { reason, usage, cost, receipt, vouchers }).await;
                true
            }
            JobNews::Failed(error) => {
                self.fail(error).await;
                true
            }
        }
    }

    async fn fail(&mut self, error: JobError) {
        match self.started.take() {
            Some(started) => {
                let _left = started.send(Err(error));
            }
            None => self.tell(JobEvent::Failed(error)).await,
        }
    }

    /// Hands an event to the reader, waiting as long as it takes or until it leaves.
    async fn tell(&mut self, event: JobEvent) {
        if !self.cancelled && self.events.send(event).await.is_err() {
            self.cancel().await;
        }
    }

    async fn cancel(&mut self) {
        if !std::mem::replace(&mut self.cancelled, true) {
            self.driver.send(Input::Cancel { job: self.job }).await;
        }
    }

    async fn provider_says(&mut self, message: FromProvider) {
        match message {
            FromProvider::Chunk { text, completion } => {
                // The news that a provider has started is always queued before the payment that
                // makes it send text. What comes before would stand in front of another
                // provider's answer, should this one refuse after all.
                if self.started.is_some() {
                    return self.broken("it sends text of a job that it has not taken").await;
                }
                if completion < self.counted {
                    return self.broken("its count of tokens runs backwards").await;
                }
                self.counted = completion;
                self.text_bytes = self.text_bytes.saturating_add(text.len());
                // A token is at least a byte of text, but for those whose text is held back.
                let most = self.text_bytes.saturating_add(HELD_BACK);
                if usize::try_from(completion.get()).unwrap_or(usize::MAX) > most {
                    return self.broken("it counts more tokens than its text can hold").await;
                }
                self.completion.update(text.as_bytes());
                if !text.is_empty() {
                    self.tell(JobEvent::Text { text, completion }).await;
                }
                self.driver.send(Input::Delivered { job: self.job, completion }).await;
            }
            FromProvider::Finished(receipt) => self.finished(&receipt).await,
        }
    }

    async fn finished(&mut self, receipt: &SignedReceipt) {
        let Some(peer) = self.provider else { return };
        let Ok(verified) = receipt.verify() else {
            return self.broken("its receipt's signature does not hold").await;
        };
        let stated = verified.receipt();
        if stated.prompt_commitment != self.prompt_commitment {
            return self.broken("its receipt is for another prompt").await;
        }
        if stated.completion_commitment != self.completion.finish() {
            return self.broken("its receipt is for another completion").await;
        }
        if stated.sampling_digest != self.sampling_digest {
            return self.broken("its receipt is for another sampling").await;
        }
        let (job, salt) = (self.job, self.salt);
        self.driver.send(Input::JobFinished { peer, job, receipt: Box::new(verified), salt }).await;
    }

    async fn broken(&mut self, rule: &'static str) {
        self.route = None;
        if let Some(peer) = self.provider {
            self.driver.send(Input::JobBroken { peer, job: self.job, rule }).await;
        }
    }
}

/// The next message, or never when there is no route.
async fn next(route: &mut Option<mpsc::Receiver<FromProvider>>) -> Option<FromProvider> {
    match route {
        Some(route) => route.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::event::Event;
    use cocoon_protocol::attest::Tier;
    use cocoon_protocol::job::{Prompt, Sampling};
    use cocoon_protocol::selection::Demand;

    const PROVIDER: NodeId = NodeId::from_bytes([2; 32]);
    const JOB: JobId = JobId::from_bytes([1; 32]);

    fn submission(
        started: oneshot::Sender<Result<Accepted, JobError>>,
        events: mpsc::Sender<JobEvent>,
    ) -> Submission {
        let model = ModelHash::from_bytes([9; 32]);
        Submission {
            job: JOB,
            spec: JobSpec {
                model,
                prompt: Prompt::Text("x".into()),
                sampling: Sampling::with_seed(0),
                stop: Vec::new(),
                max_completion: Tokens::new(1),
            },
            salt: [7; 32],
            demand: Demand {
                model,
                model_name: "m".into(),
                network: -7_337,
                prompt_at_most: Tokens::new(1),
                max_completion: None,
                minimum_tier: Tier::Open,
                max_cost: None,
                max_price: None,
                account: cocoon_protocol::record::Account::default(),
            },
            draw: 0,
            started,
            events,
            gone: CancellationToken::new(),
        }
    }

    #[tokio::test]
    async fn tokens_without_text_are_not_believed() {
        let (driver, mut inbox) = DriverHandle::new();
        let (started, _answer) = oneshot::channel();
        let (events, _read) = mpsc::channel(8);
        let (mut pump, _spec, _orders) = Pump::new(submission(started, events), driver);
        pump.started = None;
        pump.provider = Some(PROVIDER);
        let held = u32::try_from(HELD_BACK).unwrap();
        for (text, count) in [("word", held + 4), ("", held + 5)] {
            let (text, completion) = (text.to_owned(), Tokens::new(count));
            pump.provider_says(FromProvider::Chunk { text, completion }).await;
        }
        let told = [inbox.recv().await, inbox.recv().await].map(|event| format!("{event:?}"));
        assert!(told[0].contains("Delivered"), "{told:?}");
        assert!(told[1].contains("more tokens than its text can hold"), "{told:?}");
    }

    #[tokio::test]
    async fn text_of_a_provider_that_has_not_taken_the_job_never_reaches_the_reader() {
        let (driver, mut inbox) = DriverHandle::new();
        let (started, _answer) = oneshot::channel();
        let (events, mut read) = mpsc::channel(8);
        let (pump, _spec, orders) = Pump::new(submission(started, events), driver);
        let (route, messages) = mpsc::channel(8);
        let assign = Order::Assign { provider: PROVIDER, route: messages };
        assert!(orders.send(assign).await.is_ok());
        let chunk = FromProvider::Chunk { text: "injected".into(), completion: Tokens::new(1) };
        assert!(route.send(chunk).await.is_ok());
        let running = tokio::spawn(pump.run());
        let told = inbox.recv().await;
        let broken = Event::Input(Input::JobBroken {
            peer: PROVIDER,
            job: JOB,
            rule: "it sends text of a job that it has not taken",
        });
        assert_eq!(format!("{told:?}"), format!("{:?}", Some(broken)));
        drop(orders);
        assert!(running.await.is_ok());
        assert!(read.recv().await.is_none(), "the reader got nothing");
    }
}
