//! The tasks that carry an open channel: one reads, one writes, and one for each direction in which
//! the channel attests: it asks again, or it answers.
//!
//! Owns: the queues between them and the caller, their bounds, and how each task ends.
//! Must not: let a slow caller or a slow peer grow any of them.
//!
//! How it ends: the first failure is kept, and ends all three. Dropping the sender lets the writer
//! finish and say goodbye; dropping the receiver ends the reader. When reader or writer is gone the
//! attester has nobody to talk to and ends too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use cocoon_protocol::attest::{AttestRequest, Refusal, SessionRole, Verdict};
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::limits;
use cocoon_protocol::units::Millis;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::attester::QuoteError;
use crate::channel::challenge::Challenger;
use crate::channel::error::{ChannelError, Misbehaviour, from_io};
use crate::channel::frame::{FrameReader, Kind, write_frame};
use crate::channel::identity::{Answered, ChannelIdentity, Issued};
use crate::channel::tls::SharedTls;
use crate::channel::{ChannelTasks, FrameReceiver, FrameSender};

/// Frames queued in one direction. Their bytes are bounded beside it: together at most one frame of
/// the largest size, so that a session holds about 2 MiB whatever its peer does.
const QUEUED_FRAMES: usize = 64;
/// How long a closing sender may take to get rid of its last frames.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Re-attestation begins so much before the last evidence is too old that two whole exchanges fit.
const REATTEST_MARGIN: Millis = Millis::from_secs(20);
/// Challenges on one connection are answered no faster than this. We ask every ten minutes.
const CHALLENGE_INTERVAL: Duration = Duration::from_secs(300);

/// How long the word that a peer was refused may take to leave.
pub(super) const PARTING_WORD: Duration = Duration::from_secs(1);

/// What the caller or the attester wants written.
pub(super) enum Outgoing {
    Frame { kind: Kind, payload: Bytes, budget: Option<OwnedSemaphorePermit> },
    Flush(oneshot::Sender<()>),
}

/// A received frame; its share of the byte budget is free again when the caller has taken it.
pub(super) struct Incoming {
    pub(super) payload: Bytes,
    _budget: OwnedSemaphorePermit,
}

/// The first reason why a channel ended.
#[derive(Clone, Default)]
pub(super) struct Failure(Arc<OnceLock<ChannelError>>);

impl Failure {
    pub(super) fn seen(&self) -> Option<ChannelError> {
        self.0.get().cloned()
    }

    pub(super) fn or_closed(&self) -> ChannelError {
        self.seen().unwrap_or(ChannelError::Closed)
    }
}

/// What this end of a channel attests with, and what it holds the other end to. A consumer always
/// challenges and a provider always answers; where a provider demands it, both do both.
pub(super) struct Side {
    pub(super) challenging: Option<Challenging>,
    pub(super) answering: Option<Answering>,
}

/// What the other end is held to, and what it has proved.
pub(super) struct Challenging {
    pub(super) challenger: Arc<Challenger>,
    pub(super) verdict: Box<Verdict>,
}

/// With what the other end's challenges are answered.
pub(super) struct Answering {
    pub(super) identity: Arc<ChannelIdentity>,
    pub(super) issued: Arc<Issued>,
    /// Which end this is.
    pub(super) role: SessionRole,
    /// The other end: who uses up whose share of quotes.
    pub(super) peer: NodeId,
}

impl Answering {
    pub(super) async fn answer(
        &self,
        request: &AttestRequest,
        exporter: &[u8; 32],
    ) -> Result<Answered, QuoteError> {
        self.identity.answer((self.role, self.peer), request, exporter, &self.issued).await
    }
}

/// Where the reader hands attestation frames.
#[derive(Default)]
struct Attestation {
    /// Answers, only while one is awaited.
    answers: Option<Answers>,
    /// Challenges; one may wait while another is answered.
    requests: Option<mpsc::Sender<AttestRequest>>,
}

struct Answers {
    to: mpsc::Sender<Result<Bytes, Refusal>>,
    awaited: Arc<AtomicBool>,
}

/// Starts the tasks of a channel whose first attestation is done.
pub(super) fn start<S>(
    tls: SharedTls<S>,
    reader: FrameReader<SharedTls<S>>,
    side: Side,
    tasks: &ChannelTasks,
) -> (FrameSender, FrameReceiver)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let all = tasks.cancel.child_token();
    let (ending, closing, attesting) =
        (all.child_token(), CancellationToken::new(), all.child_token());
    let failure = Failure::default();
    let runner = Runner { all, failure: failure.clone(), tasks: tasks.clone() };
    let (outgoing, to_write) = mpsc::channel(QUEUED_FRAMES);
    let (to_read, inbox) = mpsc::channel(QUEUED_FRAMES);
    let control = outgoing.downgrade();

    let mut attestation = Attestation::default();
    let standing = side.challenging.map(|Challenging { challenger, verdict }| {
        let (to, answers) = mpsc::channel(1);
        let (verdicts, latest) = watch::channel(*verdict);
        let awaited = Arc::new(AtomicBool::new(false));
        let standing = Standing { verdict: latest, challenger: Arc::clone(&challenger) };
        attestation.answers = Some(Answers { to, awaited: Arc::clone(&awaited) });
        let (tls, control) = (tls.clone(), control.clone());
        let reattest = Reattest { tls, challenger, control, answers, awaited, verdicts };
        runner.spawn(attesting.clone(), None, (), reattest.run());
        standing
    });
    if let Some(answering) = side.answering {
        let (to, requests) = mpsc::channel(1);
        attestation.requests = Some(to);
        let respond = Respond { tls: tls.clone(), answering, control, requests };
        runner.spawn(attesting.clone(), None, (), respond.run());
    }
    let write = write_loop(tls, to_write, closing.clone());
    runner.spawn(runner.all.clone(), Some(attesting.clone()), (), write);
    let budget = || Arc::new(Semaphore::new(limits::FRAME_BYTES));
    let read = read_loop(reader, to_read.clone(), budget(), attestation);
    runner.spawn(ending.clone(), Some(attesting), to_read, read);

    let closing = closing.drop_guard();
    let sender = FrameSender {
        outgoing,
        budget: budget(),
        failure: failure.clone(),
        standing,
        _closing: closing,
    };
    (sender, FrameReceiver { inbox, failure, _ending: ending.drop_guard() })
}

/// Spawns a channel's tasks and makes one's failure everybody's end.
struct Runner {
    all: CancellationToken,
    failure: Failure,
    tasks: ChannelTasks,
}

impl Runner {
    /// Runs `task` until it ends or `until` is cancelled; then cancels `after`. `keep` lives until
    /// the reason is known: a queue that closed before would look like a goodbye.
    fn spawn(
        &self,
        until: CancellationToken,
        after: Option<CancellationToken>,
        keep: impl Send + 'static,
        task: impl Future<Output = Result<(), ChannelError>> + Send + 'static,
    ) {
        let (all, failure) = (self.all.clone(), self.failure.clone());
        let outer = self.tasks.cancel.clone();
        self.tasks.tracker.spawn(async move {
            let ended = until.run_until_cancelled_owned(task).await;
            let error = match ended {
                Some(Ok(())) => None,
                Some(Err(error)) => Some(error),
                None if outer.is_cancelled() => Some(ChannelError::Closed),
                None => None,
            };
            if let Some(error) = error {
                tracing::debug!(%error, "an attested session ended");
                // Only the first reason is kept: the later ones follow from it.
                let _ = failure.0.set(error);
                all.cancel();
            }
            if let Some(after) = after {
                after.cancel();
            }
            drop(keep);
        });
    }
}

async fn write_loop<S>(
    mut tls: SharedTls<S>,
    mut queue: mpsc::Receiver<Outgoing>,
    closing: CancellationToken,
) -> Result<(), ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let write_all = async {
        while let Some(first) = queue.recv().await {
            write_batch(&mut tls, first, &mut queue).await?;
        }
        tls.shutdown().await.map_err(|error| from_io(&error))
    };
    let patience = async {
        closing.cancelled().await;
        sleep(CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        written = write_all => written,
        () = patience => Err(ChannelError::TimedOut),
    }
}

/// Writes what is queued, a queue's length at most, and flushes once.
async fn write_batch<S>(
    tls: &mut SharedTls<S>,
    first: Outgoing,
    queue: &mut mpsc::Receiver<Outgoing>,
) -> Result<(), ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut flushed = Vec::new();
    let mut next = Some(first);
    let mut room = QUEUED_FRAMES;
    while let Some(item) = next {
        match item {
            Outgoing::Frame { kind, payload, budget } => {
                write_frame(tls, kind, &payload).await?;
                drop(budget);
            }
            Outgoing::Flush(done) => flushed.push(done),
        }
        room = room.saturating_sub(1);
        next = if room > 0 { queue.try_recv().ok() } else { None };
    }
    tls.flush().await.map_err(|error| from_io(&error))?;
    for done in flushed {
        // Whoever waited may have given up.
        let _ = done.send(());
    }
    Ok(())
}

async fn read_loop<S>(
    mut reader: FrameReader<SharedTls<S>>,
    inbox: mpsc::Sender<Incoming>,
    budget: Arc<Semaphore>,
    attestation: Attestation,
) -> Result<(), ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some((kind, length)) = reader.header().await? {
        if kind == Kind::Application {
            let share = u32::try_from(length).map_err(|_| Misbehaviour::FrameTooLong)?;
            let budget = Arc::clone(&budget).acquire_many_owned(share).await;
            let budget = budget.map_err(|_| ChannelError::Closed)?;
            let payload = reader.payload(length).await?;
            if inbox.send(Incoming { payload, _budget: budget }).await.is_err() {
                return Ok(());
            }
        } else {
            let payload = reader.payload(length).await?;
            attestation.deliver(kind, payload)?;
        }
    }
    Ok(())
}

impl Attestation {
    fn deliver(&self, kind: Kind, payload: Bytes) -> Result<(), ChannelError> {
        match (kind, &self.answers, &self.requests) {
            (Kind::AttestResponse | Kind::AttestUnable, Some(answers), _) => {
                if !answers.awaited.swap(false, Ordering::AcqRel) {
                    return Err(Misbehaviour::UnexpectedFrame.into());
                }
                let unable = kind == Kind::AttestUnable;
                let answer = if unable { Err(Refusal::Unable) } else { Ok(payload) };
                answers.to.try_send(answer).map_err(|_| Misbehaviour::UnexpectedFrame.into())
            }
            (Kind::AttestRequest, _, Some(requests)) => {
                let request = AttestRequest::from_bytes(&payload).map_err(Misbehaviour::from)?;
                requests.try_send(request).map_err(|_| Misbehaviour::TooManyRequests.into())
            }
            // Only a provider has a demand that its consumer can fail.
            (Kind::AttestRefused, Some(_), Some(_)) => Err(ChannelError::RefusedByProvider),
            _ => Err(Misbehaviour::UnexpectedFrame.into()),
        }
    }
}

/// What is verified about the other end, and since when that holds no longer.
pub(super) struct Standing {
    verdict: watch::Receiver<Verdict>,
    challenger: Arc<Challenger>,
}

impl Standing {
    pub(super) fn verdict(&self) -> Verdict {
        self.verdict.borrow().clone()
    }

    /// Whether a frame may rely on the verdict now.
    pub(super) fn check(&self) -> Result<(), ChannelError> {
        if self.verdict.borrow().is_current(self.challenger.clock.now()) {
            Ok(())
        } else {
            Err(self.challenger.refused(Refusal::TimedOut))
        }
    }
}

/// The challenging end's attester: asks again before the last evidence is too old.
struct Reattest<S> {
    tls: SharedTls<S>,
    challenger: Arc<Challenger>,
    control: mpsc::WeakSender<Outgoing>,
    answers: mpsc::Receiver<Result<Bytes, Refusal>>,
    awaited: Arc<AtomicBool>,
    verdicts: watch::Sender<Verdict>,
}

impl<S> Reattest<S> {
    async fn run(mut self) -> Result<(), ChannelError> {
        let pause = Millis::new(limits::REATTEST_AFTER.get().saturating_sub(REATTEST_MARGIN.get()));
        loop {
            sleep(pause.to_duration()).await;
            // Nobody sends any more: the channel is closing, and needs no evidence.
            let Some(control) = self.control.upgrade() else {
                return Ok(());
            };
            let verdict = match self.challenge(control).await {
                Ok(verdict) => verdict,
                Err(error) => return Err(self.refuse(error).await),
            };
            self.verdicts.send_replace(verdict);
        }
    }

    /// A provider tells its consumer why the session ends; a consumer just leaves.
    async fn refuse(&self, error: ChannelError) -> ChannelError {
        if let ChannelError::ConsumerRefused(_) = error
            && let Some(control) = self.control.upgrade()
        {
            let parting = async {
                let (done, flushed) = oneshot::channel();
                let (kind, payload) = (Kind::AttestRefused, Bytes::new());
                let _ = control.send(Outgoing::Frame { kind, payload, budget: None }).await;
                let _ = control.send(Outgoing::Flush(done)).await;
                flushed.await
            };
            // A courtesy: whether it arrives changes nothing.
            let _ = timeout(PARTING_WORD, parting).await;
        }
        error
    }

    async fn challenge(
        &mut self,
        control: mpsc::Sender<Outgoing>,
    ) -> Result<Verdict, ChannelError> {
        let request = self.challenger.request().ok_or(ChannelError::Certificate)?;
        let exporter = self.tls.exporter(&request.nonce)?;
        self.awaited.store(true, Ordering::Release);
        let exchange = async {
            let payload = Bytes::from(request.to_bytes());
            let frame = Outgoing::Frame { kind: Kind::AttestRequest, payload, budget: None };
            control.send(frame).await.map_err(|_| ChannelError::Closed)?;
            drop(control);
            self.answers.recv().await.ok_or(ChannelError::Closed)
        };
        let answer = timeout(limits::ATTEST_TIMEOUT.to_duration(), exchange)
            .await
            .map_err(|_| self.challenger.refused(Refusal::TimedOut))??;
        let judged = match answer {
            Ok(answer) => self.challenger.judge(request.nonce, exporter, answer).await,
            Err(refusal) => Err(refusal),
        };
        judged.map_err(|refusal| self.challenger.refused(refusal))
    }
}

/// The answering end's attester: answers challenges, one at a time and not too many.
struct Respond<S> {
    tls: SharedTls<S>,
    answering: Answering,
    control: mpsc::WeakSender<Outgoing>,
    requests: mpsc::Receiver<AttestRequest>,
}

impl<S> Respond<S> {
    async fn run(mut self) -> Result<(), ChannelError> {
        let mut last = Instant::now();
        while let Some(request) = self.requests.recv().await {
            if last.elapsed() < CHALLENGE_INTERVAL {
                return Err(Misbehaviour::TooManyRequests.into());
            }
            last = Instant::now();
            let exporter = self.tls.exporter(&request.nonce)?;
            let (kind, payload) = match self.answering.answer(&request, &exporter).await {
                Ok(answered) => (Kind::AttestResponse, Bytes::from(answered.response)),
                Err(error) => {
                    tracing::error!(%error, "could not attest a session again");
                    (Kind::AttestUnable, Bytes::new())
                }
            };
            let Some(control) = self.control.upgrade() else {
                return Ok(());
            };
            let frame = Outgoing::Frame { kind, payload, budget: None };
            control.send(frame).await.map_err(|_| ChannelError::Closed)?;
        }
        Ok(())
    }
}
