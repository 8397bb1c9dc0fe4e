//! A node that answers from a script: the gateway's tests and `examples/fake_gateway.rs` run on it.
//!
//! Owns: what a script can make happen, and the record of what the gateway asked for.
//! Must not: know HTTP.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cocoon_gateway::{Accepted, Health, JobEvent, JobRequest, JobStream, Jobs, ModelListing};
use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{JobId, ModelHash, NodeId, ReceiptHash};
use cocoon_protocol::job::{FinishReason, JobError, Prompt, Usage};
use cocoon_protocol::units::{NanoTon, PricePerMillion, Prices, Tokens};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// The one model that has a name here; its hash is 64 times `a`.
pub(crate) const MODEL: &str = "smollm2-135m";
/// The model whose name is in no catalogue: known by its hash, 64 times `b`.
pub(crate) const NAMELESS: [u8; 32] = [0xbb; 32];
/// Events that wait in a job's channel.
const EVENTS: usize = 4;

/// What the next jobs do.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// These events, then the channel closes.
    Answer(Vec<JobEvent>),
    /// The last words of the prompt again, one at a time.
    Echo,
    /// These events, then nothing until the gate opens, then these.
    Gated(Vec<JobEvent>, Vec<JobEvent>),
    /// This text again and again, for ever.
    Endless(String),
    /// No provider ever answers.
    Hang,
    Refuse(JobError),
}

#[derive(Debug)]
pub(crate) struct Fake {
    script: Mutex<Script>,
    requests: Mutex<Vec<JobRequest>>,
    problem: Mutex<Option<String>>,
    /// Cancelled when the gateway lets go of a job, whether it has begun or not.
    pub(crate) released: CancellationToken,
    /// Opens `Script::Gated`.
    pub(crate) gate: Arc<Notify>,
    /// Becomes ready when a request has arrived.
    pub(crate) asked: Arc<Notify>,
    /// Texts that the channel took.
    pub(crate) sent: Arc<AtomicUsize>,
}

impl Fake {
    pub(crate) fn new(script: Script) -> Self {
        Self {
            script: Mutex::new(script),
            requests: Mutex::default(),
            problem: Mutex::default(),
            released: CancellationToken::new(),
            gate: Arc::default(),
            asked: Arc::default(),
            sent: Arc::default(),
        }
    }

    pub(crate) fn set_script(&self, script: Script) {
        *lock(&self.script) = script;
    }

    pub(crate) fn set_problem(&self, problem: &str) {
        *lock(&self.problem) = Some(problem.to_owned());
    }

    /// The last request that came through.
    pub(crate) fn last(&self) -> Option<JobRequest> {
        lock(&self.requests).last().cloned()
    }

    /// How many requests came through.
    pub(crate) fn count(&self) -> usize {
        lock(&self.requests).len()
    }

    fn start(&self, script: Script, request: &JobRequest) -> JobStream {
        let (events_tx, events) = mpsc::channel(EVENTS);
        let (gate, sent) = (Arc::clone(&self.gate), Arc::clone(&self.sent));
        let echoed = echo(&request.prompt);
        tokio::spawn(async move {
            let (first, rest, endless) = match script {
                Script::Answer(events) => (events, Vec::new(), None),
                Script::Gated(first, rest) => (first, rest, None),
                Script::Endless(text) => (Vec::new(), Vec::new(), Some(text)),
                Script::Echo | Script::Hang | Script::Refuse(_) => (echoed, Vec::new(), None),
            };
            for event in first {
                if events_tx.send(event).await.is_err() {
                    return;
                }
            }
            if !rest.is_empty() {
                gate.notified().await;
            }
            for event in rest {
                if events_tx.send(event).await.is_err() {
                    return;
                }
            }
            while let Some(text) = &endless
                && events_tx.send(text_event(text)).await.is_ok()
            {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        JobStream::new(accepted(), events, self.released.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs for Fake {
    fn models(&self) -> BoxFuture<'_, Vec<ModelListing>> {
        let named = ModelListing {
            name: Some(MODEL.to_owned()),
            hash: ModelHash::from_bytes([0xaa; 32]),
            offers: 3,
            cheapest: Some(prices()),
            tiers: BTreeSet::from([Tier::Open, Tier::Attested]),
            context: Some(Tokens::new(8192)),
        };
        let nameless = ModelListing {
            name: None,
            hash: ModelHash::from_bytes(NAMELESS),
            offers: 0,
            cheapest: None,
            tiers: BTreeSet::new(),
            context: None,
        };
        async move { vec![named, nameless] }.boxed()
    }

    fn submit(&self, request: JobRequest) -> BoxFuture<'_, Result<JobStream, JobError>> {
        let script = lock(&self.script).clone();
        let known = request.model == MODEL || request.model.starts_with("blake3:");
        let name = request.model.clone();
        lock(&self.requests).push(request.clone());
        self.asked.notify_one();
        async move {
            match script {
                _ if !known => Err(JobError::UnknownModel { name }),
                Script::Refuse(error) => Err(error),
                Script::Hang => {
                    let _released = self.released.clone().drop_guard();
                    std::future::pending().await
                }
                script @ (Script::Answer(_)
                | Script::Echo
                | Script::Gated(..)
                | Script::Endless(_)) => Ok(self.start(script, &request)),
            }
        }
        .boxed()
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        let problem = lock(&self.problem).clone();
        let node = NodeId::from_bytes([0x44; 32]);
        async move { Health { node, problem, peers: 5, offers: 3, jobs: 1 } }.boxed()
    }
}

pub(crate) const fn prices() -> Prices {
    Prices {
        prompt: PricePerMillion::from_nano(20_000_000),
        completion: PricePerMillion::from_nano(60_000_000),
    }
}

/// What every job here begins with.
pub(crate) const fn accepted() -> Accepted {
    Accepted {
        job: JobId::from_bytes([0x11; 32]),
        provider: NodeId::from_bytes([0x22; 32]),
        tier: Tier::Attested,
        simulated: true,
        model: ModelHash::from_bytes([0xaa; 32]),
        prices: prices(),
        prompt: Tokens::new(12),
    }
}

pub(crate) fn text_event(text: &str) -> JobEvent {
    JobEvent::Text { text: text.to_owned(), completion: Tokens::new(1) }
}

pub(crate) fn finished(reason: FinishReason, completion: u32) -> JobEvent {
    JobEvent::Finished {
        reason,
        usage: Usage { prompt: Tokens::new(12), completion: Tokens::new(completion) },
        cost: NanoTon::from_nano(12_345),
        receipt: Some(ReceiptHash::from_bytes([0x33; 32])),
        vouchers: 2,
    }
}

/// These texts and a plain end.
pub(crate) fn answer(texts: &[&str]) -> Script {
    let texts = texts.iter().map(|text| text_event(text));
    Script::Answer(texts.chain([finished(FinishReason::Stop, 3)]).collect())
}

fn echo(prompt: &Prompt) -> Vec<JobEvent> {
    let text = match prompt {
        Prompt::Chat(turns) => turns.last().map_or("", |turn| turn.content.as_str()),
        Prompt::Text(text) => text.as_str(),
    };
    let mut events: Vec<JobEvent> = text.split_inclusive(' ').map(text_event).collect();
    let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
    events.push(finished(FinishReason::Stop, count));
    events
}
