//! One job's text on its way from the engine to the session.
//!
//! Owns: coalescing, the completion's commitment, the order "text, then count, then end".
//! Must not: decide about the job; the protocol grants, this task forwards.

use std::sync::{Arc, Mutex, PoisonError};

use cocoon_engine::{EngineFailure, Generated, Generation, GenerationControl};
use cocoon_protocol::Input;
use cocoon_protocol::identity::{JobId, NodeId};
use cocoon_protocol::job::{FinishReason, ProviderRefusal, Usage};
use cocoon_protocol::limits;
use cocoon_protocol::receipt::{Commitment, Salt};
use cocoon_protocol::units::{Millis, Tokens};
use cocoon_protocol::wire::SessionMessage;
use tokio::sync::mpsc;

use super::event::DriverHandle;

/// A full engine asks consumers to come back after this time.
pub(super) const RETRY_AFTER: Millis = Millis::from_secs(2);

/// The driver's hold on a running generation.
#[derive(Debug)]
pub(crate) struct Steering {
    control: GenerationControl,
    reason: Arc<Mutex<Option<FinishReason>>>,
}

impl Steering {
    /// Allows this many completion tokens in all.
    pub(crate) fn grant(&self, total: Tokens) {
        self.control.grant(total);
    }

    /// Stops; the receipt will say why.
    pub(crate) fn cancel(&self, reason: FinishReason) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.control.cancel();
    }
}

/// The task's state.
pub(crate) struct Serve {
    peer: NodeId,
    job: JobId,
    events: mpsc::Receiver<Generated>,
    reason: Arc<Mutex<Option<FinishReason>>>,
    completion: Commitment,
    prompt: Option<Tokens>,
    sent: Tokens,
    session: mpsc::Sender<SessionMessage>,
    driver: DriverHandle,
}

impl Serve {
    /// A task for a generation, and the driver's hold on it.
    pub(crate) fn new(
        (peer, job): (NodeId, JobId),
        generation: Generation,
        salt: [u8; 32],
        session: mpsc::Sender<SessionMessage>,
        driver: DriverHandle,
    ) -> (Self, Steering) {
        let reason = Arc::new(Mutex::new(None));
        let steering = Steering { control: generation.control, reason: Arc::clone(&reason) };
        let serve = Self {
            peer,
            job,
            events: generation.events,
            reason,
            completion: Commitment::new(&Salt::from_bytes(salt)),
            prompt: None,
            sent: Tokens::ZERO,
            session,
            driver,
        };
        (serve, steering)
    }

    /// Runs until the generation ends or the session is gone.
    pub(crate) async fn run(mut self) {
        while let Some(event) = self.events.recv().await {
            let over = match event {
                Generated::Started { prompt } => {
                    self.prompt = Some(prompt);
                    let (peer, job) = (self.peer, self.job);
                    !self.driver.send(Input::EngineStarted { peer, job, prompt }).await
                }
                Generated::Text { text, completion } => self.text(text, completion).await,
                Generated::Finished { reason, usage } => self.finished(reason, usage).await,
                Generated::Failed(EngineFailure::Refused(error)) => {
                    self.refused(error.to_refusal(RETRY_AFTER)).await
                }
                Generated::Failed(failure) => {
                    tracing::warn!(job = %self.job, error = %failure, "the engine failed in a job");
                    self.failed().await
                }
            };
            if over {
                return;
            }
        }
        // The engine went away without a word.
        self.failed().await;
    }

    /// Sends text with whatever else is ready. True when the task is over.
    async fn text(&mut self, mut text: String, mut completion: Tokens) -> bool {
        while text.len() < limits::CHUNK_BYTES / 2 {
            match self.events.try_recv() {
                Ok(Generated::Text { text: more, completion: total }) => {
                    text.push_str(&more);
                    completion = total;
                }
                Ok(Generated::Finished { reason, usage }) => {
                    return self.chunk(text, completion).await
                        || self.finished(reason, usage).await;
                }
                Ok(Generated::Failed(_)) => {
                    return self.chunk(text, completion).await || self.failed().await;
                }
                Ok(Generated::Started { .. }) | Err(_) => break,
            }
        }
        self.chunk(text, completion).await
    }

    async fn chunk(&mut self, text: String, completion: Tokens) -> bool {
        self.completion.update(text.as_bytes());
        self.sent = completion;
        let (peer, job) = (self.peer, self.job);
        let message = SessionMessage::JobChunk { job, text, completion };
        let sent = self.session.send(message).await.is_ok();
        !(sent && self.driver.send(Input::Generated { peer, job, completion }).await)
    }

    async fn finished(&mut self, reason: FinishReason, usage: Usage) -> bool {
        // Tokens whose text was held back count too: the consumer learns of them before the end.
        if usage.completion > self.sent && self.chunk(String::new(), usage.completion).await {
            return true;
        }
        let asked = *self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = match reason {
            FinishReason::Cancelled => asked.unwrap_or(FinishReason::Cancelled),
            FinishReason::Stop
            | FinishReason::Length
            | FinishReason::Unpaid
            | FinishReason::Failed
            | FinishReason::Draining => reason,
        };
        let completion_commitment = self.completion.finish();
        let (peer, job) = (self.peer, self.job);
        let end = Input::EngineFinished { peer, job, reason, usage, completion_commitment };
        self.driver.send(end).await;
        true
    }

    async fn failed(&mut self) -> bool {
        match self.prompt {
            Some(prompt) => {
                let usage = Usage { prompt, completion: self.sent };
                self.finished(FinishReason::Failed, usage).await
            }
            None => self.refused(ProviderRefusal::EngineFailed).await,
        }
    }

    async fn refused(&self, refusal: ProviderRefusal) -> bool {
        let (peer, job) = (self.peer, self.job);
        self.driver.send(Input::EngineRefused { peer, job, refusal }).await;
        true
    }
}
