//! The three tasks that carry an open channel: one reads, one writes, one attests.
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
use cocoon_protocol::attest::{AttestRequest, Refusal, Verdict};
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::limits;
use cocoon_protocol::units::Millis;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::channel::challenge::Challenger;
use crate::channel::error::{ChannelError, Misbehaviour, from_io};
use crate::channel::frame::{FrameReader, Kind, write_frame};
use crate::channel::identity::{ChannelIdentity, Issued};
use crate::channel::tls::SharedTls;
use crate::channel::{ChannelTasks, FrameReceiver, FrameSender};

/// Frames queued in one direction. Their bytes are bounded beside it: together at most one frame of
/// the largest size, so that a session holds about 2 MiB whatever its peer does.
const QUEUED_FRAMES: usize = 64;
/// How long a closing sender may take to get rid of its last frames.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Re-attestation begins so much before the last evidence is too old that two whole exchanges fit.
const REATTEST_MARGIN: Millis = Millis::from_secs(20);
/// A provider answers challenges on one connection no faster than this. A consumer of ours asks
/// every ten minutes.
const CHALLENGE_INTERVAL: Duration = Duration::from_secs(300);

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

/// Which end of the channel this is, and what it attests with.
pub(super) enum Side {
    Consumer { challenger: Arc<Challenger>, verdict: Box<Verdict> },
    Provider { identity: Arc<ChannelIdentity>, issued: Arc<Issued>, peer: NodeId },
}

/// Where the reader hands attestation frames.
enum Attestation {
    /// Answers, only while one is awaited.
    Answers { to: mpsc::Sender<Result<Bytes, Refusal>>, awaited: Arc<AtomicBool> },
    /// Challenges; one may wait while another is answered.
    Requests { to: mpsc::Sender<AttestRequest> },
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

    let (attestation, standing) = match side {
        Side::Consumer { challenger, verdict } => {
            let (to, answers) = mpsc::channel(1);
            let (verdicts, latest) = watch::channel(*verdict);
            let awaited = Arc::new(AtomicBool::new(false));
            let clock = challenger.clock.clone();
            let reattest = Reattest {
                tls: tls.clone(),
                challenger,
                control,
                answers,
                awaited: Arc::clone(&awaited),
                verdicts,
            };
            runner.spawn(attesting.clone(), None, (), reattest.run());
            (Attestation::Answers { to, awaited }, Some((latest, clock)))
        }
        Side::Provider { identity, issued, peer } => {
            let (to, requests) = mpsc::channel(1);
            let respond = Respond { tls: tls.clone(), identity, issued, peer, control, requests };
            runner.spawn(attesting.clone(), None, (), respond.run());
            (Attestation::Requests { to }, None)
        }
    };
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
    fn deliver(&self, kind: Kind, payload: Bytes) -> Result<(), Misbehaviour> {
        match (self, kind) {
            (Self::Answers { to, awaited }, Kind::AttestResponse | Kind::AttestUnable) => {
                if !awaited.swap(false, Ordering::AcqRel) {
                    return Err(Misbehaviour::UnexpectedFrame);
                }
                let unable = kind == Kind::AttestUnable;
                let answer = if unable { Err(Refusal::Unable) } else { Ok(payload) };
                to.try_send(answer).map_err(|_| Misbehaviour::UnexpectedFrame)
            }
            (Self::Requests { to }, Kind::AttestRequest) => {
                let request = AttestRequest::from_bytes(&payload)?;
                to.try_send(request).map_err(|_| Misbehaviour::TooManyRequests)
            }
            _ => Err(Misbehaviour::UnexpectedFrame),
        }
    }
}

/// A consumer's attester: asks again before the last evidence is too old.
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
            let verdict = self.challenge(control).await?;
            self.verdicts.send_replace(verdict);
        }
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
            .map_err(|_| Refusal::TimedOut)???;
        Ok(self.challenger.judge(request.nonce, exporter, answer).await?)
    }
}

/// A provider's attester: answers challenges, one at a time and not too many.
struct Respond<S> {
    tls: SharedTls<S>,
    identity: Arc<ChannelIdentity>,
    issued: Arc<Issued>,
    peer: NodeId,
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
            let (kind, payload) =
                match self.identity.answer(self.peer, &request, &exporter, &self.issued).await {
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
