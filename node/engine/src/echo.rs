//! A deterministic engine without a model: it repeats the last turn's words, one word a token. An answer
//! that the prompt has the beginning of goes on behind it.
//!
//! Owns: a task for each job. For tests, load generation and a node without a model file.
//! Must not: differ from a real engine in any rule of grants, counting or cancelling.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::job::{FinishReason, Prompt, Turn, Usage};
use cocoon_protocol::limits;
use cocoon_protocol::units::Tokens;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::port::{
    Capabilities, Engine, EngineFailure, EngineJob, Generated, Generation, GenerationControl, Load,
    Steer, SubmitError, event_capacity,
};
use crate::text::CompletionText;

/// Tokens that a turn costs beside its words, as if there were a chat template.
const TOKENS_PER_TURN: u32 = 4;

/// Settings of an [`EchoEngine`].
#[derive(Clone, Debug)]
pub struct EchoSettings {
    /// The model that it pretends to serve.
    pub model: ModelHash,
    /// Jobs at a time.
    pub slots: u32,
    /// Tokens of prompt and completion together.
    pub context: Tokens,
    /// Time that a token takes; zero yields to other tasks and nothing more.
    pub token_delay: Duration,
    /// Every job fails after this many tokens, as if the engine had crashed.
    pub fail_after: Option<Tokens>,
}

impl EchoSettings {
    /// Eight places, 8,192 tokens of context, no delay, no failure.
    pub const fn new(model: ModelHash) -> Self {
        Self {
            model,
            slots: 8,
            context: Tokens::new(8_192),
            token_delay: Duration::ZERO,
            fail_after: None,
        }
    }
}

/// The engine. Dropping it ends all its jobs.
#[derive(Debug)]
pub struct EchoEngine {
    settings: EchoSettings,
    occupancy: Arc<Occupancy>,
    tasks: Mutex<JoinSet<()>>,
}

/// Places that are taken, and those of them that wait for a grant.
#[derive(Debug, Default)]
struct Occupancy {
    taken: AtomicU32,
    waiting: AtomicU32,
}

impl Occupancy {
    fn take(self: &Arc<Self>, slots: u32) -> Option<Place> {
        let enter = |taken: u32| (taken < slots).then(|| taken.saturating_add(1));
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).ok()?;
        Some(Place(Arc::clone(self)))
    }
}

/// One taken place; given back when dropped.
#[derive(Debug)]
struct Place(Arc<Occupancy>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One job that waits for its grant; counted out when dropped.
struct Waiting<'a>(&'a Occupancy);

impl<'a> Waiting<'a> {
    fn enter(occupancy: &'a Occupancy) -> Self {
        occupancy.waiting.fetch_add(1, Ordering::AcqRel);
        Self(occupancy)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug)]
struct EchoControl {
    granted: watch::Sender<Tokens>,
    cancelled: CancellationToken,
}

impl Steer for EchoControl {
    fn grant(&self, total_completion: Tokens) {
        self.granted.send_if_modified(|granted| {
            let raised = total_completion > *granted;
            *granted = total_completion.max(*granted);
            raised
        });
    }

    fn cancel(&self) {
        self.cancelled.cancel();
    }
}

impl EchoEngine {
    /// An engine with nothing to do. [`Engine::submit`] must be called within a tokio runtime.
    pub fn new(settings: EchoSettings) -> Self {
        Self { settings, occupancy: Arc::default(), tasks: Mutex::default() }
    }
}

impl Engine for EchoEngine {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            model: self.settings.model,
            context: self.settings.context,
            slots: self.settings.slots,
            build: concat!("echo ", env!("CARGO_PKG_VERSION")).to_owned(),
            prompt_bytes: limits::PROMPT_BYTES,
        }
    }

    fn load(&self) -> Load {
        let taken = self.occupancy.taken.load(Ordering::Acquire);
        let waiting = self.occupancy.waiting.load(Ordering::Acquire).min(taken);
        let running = taken.saturating_sub(waiting);
        Load { running, waiting, slots: self.settings.slots }
    }

    fn submit(&self, job: EngineJob) -> Result<Generation, SubmitError> {
        let spec = job.spec;
        spec.check().map_err(SubmitError::BadSpec)?;
        if spec.model != self.settings.model {
            return Err(SubmitError::UnknownModel);
        }
        let prompt = prompt_tokens(&spec.prompt);
        let room = self.settings.context.saturating_sub(prompt);
        if room == Tokens::ZERO {
            return Err(SubmitError::ContextExceeded { prompt, context: self.settings.context });
        }
        let place = self.occupancy.take(self.settings.slots).ok_or(SubmitError::Busy)?;
        let limit = spec.max_completion.min(room);
        let (events, receiver) = mpsc::channel(event_capacity(limit));
        let (granted, grants) = watch::channel(Tokens::ZERO);
        let cancelled = CancellationToken::new();
        let echo = Echo {
            words: answer(&spec.prompt),
            prompt,
            limit,
            text: CompletionText::new(spec.stop),
            token_delay: self.settings.token_delay,
            fail_after: self.settings.fail_after,
            grants,
            cancelled: cancelled.clone(),
            events,
            place,
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(echo.run());
        let control = GenerationControl::new(EchoControl { granted, cancelled });
        Ok(Generation { events: receiver, control })
    }
}

/// What a dialogue's answer repeats, and how much of the answer is in the prompt already.
fn dialogue(turns: &[Turn]) -> (&str, &str) {
    let (turns, begun) = Prompt::begun(turns);
    (turns.last().map_or("", |turn| turn.content.as_str()), begun.unwrap_or_default())
}

fn prompt_tokens(prompt: &Prompt) -> Tokens {
    let words = |text: &str| u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX);
    match prompt {
        Prompt::Text(text) => Tokens::new(words(text)),
        Prompt::Chat(turns) => turns.iter().fold(Tokens::ZERO, |sum, turn| {
            let turn = words(&turn.content).saturating_add(TOKENS_PER_TURN);
            sum.saturating_add(Tokens::new(turn))
        }),
    }
}

/// The words to repeat, each but the first with the space before it, from where the answer ends that
/// the prompt holds already.
fn answer(prompt: &Prompt) -> Vec<String> {
    let (text, begun) = match prompt {
        Prompt::Text(text) => (text.as_str(), ""),
        Prompt::Chat(turns) => dialogue(turns),
    };
    let spaced = |(at, word): (usize, &str)| {
        if at == 0 { word.to_owned() } else { format!(" {word}") }
    };
    let mut behind = begun.len();
    let rest = |word: String| {
        let passed = behind.min(word.len());
        behind = behind.saturating_sub(passed);
        word.get(passed..).map(str::to_owned).filter(|rest| !rest.is_empty())
    };
    text.split_whitespace().enumerate().map(spaced).filter_map(rest).collect()
}

/// One running job.
struct Echo {
    words: Vec<String>,
    prompt: Tokens,
    limit: Tokens,
    text: CompletionText,
    token_delay: Duration,
    fail_after: Option<Tokens>,
    grants: watch::Receiver<Tokens>,
    cancelled: CancellationToken,
    events: mpsc::Sender<Generated>,
    place: Place,
}

impl Echo {
    async fn run(mut self) {
        self.report(Generated::Started { prompt: self.prompt });
        let mut completion = Tokens::ZERO;
        let end = self.generate(&mut completion).await;
        if matches!(end, Ok(FinishReason::Length | FinishReason::Stop)) {
            let text = self.text.finish();
            if !text.is_empty() {
                self.report(Generated::Text { text, completion });
            }
        }
        let usage = Usage { prompt: self.prompt, completion };
        // The place is free before the end is reported, so that whoever reads the end can submit.
        drop(self.place);
        let end = match end {
            Ok(reason) => Generated::Finished { reason, usage },
            Err(failure) => Generated::Failed(failure),
        };
        let _ = self.events.try_send(end);
    }

    async fn generate(&mut self, completion: &mut Tokens) -> Result<FinishReason, EngineFailure> {
        for word in std::mem::take(&mut self.words) {
            if *completion >= self.limit {
                return Ok(FinishReason::Length);
            }
            if !self.wait_for_token(*completion).await {
                return Ok(FinishReason::Cancelled);
            }
            if self.fail_after.is_some_and(|after| *completion >= after) {
                return Err(EngineFailure::Crashed);
            }
            *completion = completion.saturating_add(Tokens::new(1));
            let certain = self.text.push(word.as_bytes());
            self.report(Generated::Text { text: certain.text, completion: *completion });
            if certain.stopped {
                return Ok(FinishReason::Stop);
            }
        }
        // As with a real model, that the end comes next is only found out under a grant.
        if *completion < self.limit && !self.wait_for_token(*completion).await {
            return Ok(FinishReason::Cancelled);
        }
        Ok(if *completion < self.limit { FinishReason::Stop } else { FinishReason::Length })
    }

    /// Waits until the token after `completion` is granted and its time has passed; `false` when
    /// the job is cancelled first.
    async fn wait_for_token(&mut self, completion: Tokens) -> bool {
        let Self { grants, cancelled, events, token_delay, place, .. } = self;
        let granted = async {
            if *grants.borrow() <= completion {
                let _waiting = Waiting::enter(&place.0);
                grants.wait_for(|granted| *granted > completion).await.is_ok()
            } else {
                true
            }
        };
        let ready = async {
            let granted = granted.await;
            if token_delay.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(*token_delay).await;
            }
            granted
        };
        tokio::select! {
            biased;
            () = cancelled.cancelled() => false,
            () = events.closed() => false,
            ready = ready => ready,
        }
    }

    fn report(&self, event: Generated) {
        // Cannot be full (`event_capacity`); when it is closed, the next wait ends the job.
        let _ = self.events.try_send(event);
    }
}
