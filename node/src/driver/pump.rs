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
use cocoon_protocol::limits::PROMPT_BYTES;
use cocoon_protocol::output::JobNews;
use cocoon_protocol::receipt::{
    Commitment, Salt, SignedReceipt, prompt_commitment, sampling_digest,
};
use cocoon_protocol::units::Tokens;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::event::{DriverHandle, Event, Submission};

/// Messages of a provider about one job that wait for this task. A provider may be one step of 32
/// tokens ahead of the payments; whoever overflows this is further ahead than it may be.
pub(crate) const ROUTE: usize = 128;
/// Orders from the driver that wait: an assignment, its news and its end, per attempt.
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
    Assign {
        provider: NodeId,
        route: mpsc::Receiver<FromProvider>,
        /// Of a prompt that ends with what has come of the answer.
        prompt_commitment: Option<[u8; 32]>,
    },
    /// The provider is lost: pass on what is here of its text, and say how far that goes.
    Halt,
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
    /// All that has come, for a provider that takes over; `None` when it is more than one would read.
    answer: Option<String>,
    /// Tokens of it that lost providers wrote.
    before: Tokens,
    /// Tokens that the present provider has counted.
    counted: Tokens,
    /// Bytes of text that came for them.
    text_bytes: usize,
    /// Whether the present provider has taken the job.
    taken: bool,
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
            answer: Some(String::new()),
            before: Tokens::ZERO,
            counted: Tokens::ZERO,
            text_bytes: 0,
            taken: false,
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
                    Some(Order::Assign { provider, route, prompt_commitment }) => {
                        self.assign(provider, route, prompt_commitment);
                    }
                    Some(Order::Halt) => self.halt().await,
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

    fn assign(
        &mut self,
        provider: NodeId,
        route: mpsc::Receiver<FromProvider>,
        prompt_commitment: Option<[u8; 32]>,
    ) {
        self.provider = Some(provider);
        self.route = Some(route);
        self.prompt_commitment = prompt_commitment.unwrap_or(self.prompt_commitment);
        self.taken = false;
        self.completion = Commitment::new(&Salt::from_bytes(self.salt));
        self.counted = Tokens::ZERO;
        self.text_bytes = 0;
    }

    /// What is here of a lost provider's text reaches the reader and counts, its end included.
    async fn halt(&mut self) {
        while let Some(message) = self.route.as_mut().and_then(|route| route.try_recv().ok()) {
            self.provider_says(message).await;
        }
        self.route = None;
        let (job, completion) = (self.job, self.counted);
        // Nobody reads a longer prompt: then nobody goes on.
        let bytes = if self.answer.is_some() { self.text_bytes } else { usize::MAX };
        self.before = self.before.saturating_add(completion);
        (self.counted, self.text_bytes) = (Tokens::ZERO, 0);
        let answer = self.answer.clone().unwrap_or_default();
        self.driver.send(Event::Halted { job, completion, bytes, answer }).await;
    }

    /// Keeps text for a provider that takes over, as long as one would read it.
    fn keep(&mut self, text: &str) {
        let kept = self.answer.as_ref().map_or(0, String::len);
        if kept.saturating_add(text.len()) > PROMPT_BYTES {
            self.answer = None;
        } else if let Some(answer) = &mut self.answer {
            answer.push_str(text);
        }
    }

    /// Tells the reader. True when the job is over.
    async fn news(&mut self, news: JobNews) -> bool {
        match news {
            JobNews::Started { provider, tier, simulated, prices, prompt } => {
                let (job, model) = (self.job, self.model);
                let accepted = Accepted { job, provider, tier, simulated, model, prices, prompt };
                self.taken = true;
                match self.started.take() {
                    Some(started) => {
                        // A reader that has left is noticed by `gone`.
                        let _left = started.send(Ok(accepted));
                    }
                    None => self.tell(JobEvent::TakenOver(accepted)).await,
                }
                false
            }
            JobNews::Finished { reason, usage, cost, receipt, vouchers } => {
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
        if self.cancelled {
            return;
        }
        let event = match self.events.try_send(event) {
            Ok(()) => return,
            Err(TrySendError::Closed(_)) => return self.cancel().await,
            Err(TrySendError::Full(event)) => event,
        };
        // The reader's silence is not the provider's.
        self.driver.send(Input::ReaderWaits { job: self.job }).await;
        if self.events.send(event).await.is_err() {
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
                if !self.taken {
                    return self.broken("it sends text of a job that it has not taken").await;
                }
                if completion < self.counted {
                    return self.broken("its count of tokens runs backwards").await;
                }
                let text_bytes = self.text_bytes.saturating_add(text.len());
                // A token is at least a byte of text, but for those whose text is held back.
                let most = text_bytes.saturating_add(HELD_BACK);
                if usize::try_from(completion.get()).unwrap_or(usize::MAX) > most {
                    return self.broken("it counts more tokens than its text can hold").await;
                }
                (self.counted, self.text_bytes) = (completion, text_bytes);
                self.completion.update(text.as_bytes());
                if !text.is_empty() {
                    self.keep(&text);
                    let completion = self.before.saturating_add(completion);
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
        pump.taken = true;
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
        let prompt_commitment = None;
        let assign = Order::Assign { provider: PROVIDER, route: messages, prompt_commitment };
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

    #[tokio::test]
    async fn a_lost_providers_text_is_passed_on_once_and_the_next_one_goes_on_behind_it() {
        let (driver, mut inbox) = DriverHandle::new();
        let (started, answer) = oneshot::channel();
        let (events, mut read) = mpsc::channel(8);
        let (pump, _spec, orders) = Pump::new(submission(started, events), driver);
        let running = tokio::spawn(pump.run());
        let took = |provider: u8| JobNews::Started {
            provider: NodeId::from_bytes([provider; 32]),
            tier: Tier::Open,
            simulated: false,
            prices: cocoon_protocol::units::Prices {
                prompt: cocoon_protocol::units::PricePerMillion::from_nano(1),
                completion: cocoon_protocol::units::PricePerMillion::from_nano(1),
            },
            prompt: Tokens::new(1),
        };
        let chunk = |text: &str, completion| FromProvider::Chunk {
            text: text.to_owned(),
            completion: Tokens::new(completion),
        };
        let (route, messages) = mpsc::channel(8);
        let assign = Order::Assign { provider: PROVIDER, route: messages, prompt_commitment: None };
        assert!(orders.send(assign).await.is_ok());
        assert!(orders.send(Order::News(took(2))).await.is_ok());
        assert!(answer.await.unwrap().is_ok());
        // Both lie in the route when the provider is lost.
        assert!(route.send(chunk("one ", 1)).await.is_ok());
        assert!(route.send(chunk("two ", 3)).await.is_ok());
        assert!(orders.send(Order::Halt).await.is_ok());
        let halted = loop {
            if let Some(Event::Halted { completion, bytes, answer, .. }) = inbox.recv().await {
                break (completion.get(), bytes, answer);
            }
        };
        assert_eq!(halted, (3, 8, "one two ".to_owned()));
        assert!(route.send(chunk("late", 4)).await.is_err(), "nobody reads it any more");
        let (route, messages) = mpsc::channel(8);
        let provider = NodeId::from_bytes([3; 32]);
        let assign = Order::Assign { provider, route: messages, prompt_commitment: None };
        assert!(orders.send(assign).await.is_ok());
        assert!(orders.send(Order::News(took(3))).await.is_ok());
        assert!(route.send(chunk("three", 1)).await.is_ok());
        let mut seen = Vec::new();
        while seen.len() < 4 {
            seen.push(match read.recv().await.unwrap() {
                JobEvent::Text { text, completion } => (text, completion.get()),
                JobEvent::TakenOver(accepted) => (accepted.provider.to_string(), 0),
                end @ (JobEvent::Finished { .. } | JobEvent::Failed(_)) => (format!("{end:?}"), 0),
            });
        }
        let next = (provider.to_string(), 0);
        let text = |text: &str, tokens| (text.to_owned(), tokens);
        assert_eq!(seen, [text("one ", 1), text("two ", 3), next, text("three", 4)]);
        drop(orders);
        assert!(running.await.is_ok());
    }

    #[tokio::test]
    async fn a_reader_that_takes_no_text_is_named_as_the_one_who_waits() {
        let (driver, mut inbox) = DriverHandle::new();
        let (started, _answer) = oneshot::channel();
        let (events, mut read) = mpsc::channel(1);
        let (mut pump, _spec, _orders) = Pump::new(submission(started, events), driver);
        (pump.taken, pump.provider) = (true, Some(PROVIDER));
        let chunk =
            |at: u32| FromProvider::Chunk { text: "word".to_owned(), completion: Tokens::new(at) };
        pump.provider_says(chunk(1)).await;
        let waiting = tokio::spawn(async move { pump.provider_says(chunk(2)).await });
        let mut told = Vec::new();
        for _ in 0..2 {
            told.push(format!("{:?}", inbox.recv().await.unwrap()));
        }
        assert!(told[0].contains("Delivered") && told[1].contains("ReaderWaits"), "{told:?}");
        // Its second text is delivered when it takes the first.
        assert!(read.recv().await.is_some());
        assert!(waiting.await.is_ok());
        assert!(format!("{:?}", inbox.recv().await.unwrap()).contains("Delivered"));
    }
}
