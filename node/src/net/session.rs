//! One attested session: frames in, frames out.
//!
//! Owns: the two tasks of a session, and the checks of signatures at the edge, so that the driver
//! only meets verified vouchers.
//! Must not: decide anything about jobs or money. A peer that breaks the protocol's grammar loses
//! the session.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cocoon_attest::channel::{ChannelError, FrameReceiver, FrameSender};
use cocoon_protocol::Input;
use cocoon_protocol::channel::{SignedVoucher, VaultPublicKey};
use cocoon_protocol::identity::{JobId, NodeId};
use cocoon_protocol::input::{ChannelView, RequestedJob};
use cocoon_protocol::job::JobSpec;
use cocoon_protocol::limits;
use cocoon_protocol::receipt::{Salt, prompt_commitment, sampling_digest};
use cocoon_protocol::units::Millis;
use cocoon_protocol::wire::{JobRequest, SessionMessage};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::driver::event::{DriverHandle, Event};
use crate::driver::pump::FromProvider;

/// Messages that wait to be written. Jobs wait for room; when the driver finds none, the peer has
/// not read for a whole window of control messages and the session is closed.
const OUTBOUND: usize = 256;
/// Time for the last messages of a session to leave: one round trip for a peer that reads.
pub(crate) const PARTING: std::time::Duration = std::time::Duration::from_secs(2);
/// A peer that takes nothing for as long as a payment may take has stopped reading: its jobs would
/// hold their places in the engine behind a full queue.
const WRITE_TIMEOUT: Millis = limits::PAYMENT_TIMEOUT;
/// A consumer that says nothing for this long makes room for another; it may come back at any
/// time. While a job runs, its payments are heard far more often.
const IDLE_TIMEOUT: Millis = Millis::from_secs(900);

/// Which side of the session this node is on, with what only that side has.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// We opened it: text goes along these routes, and our own vouchers verify against this key.
    Consumer { routes: Routes, own_vault: VaultPublicKey },
    /// We accepted it: bodies wait here, and vouchers verify against the key that the ledger shows.
    Provider { bodies: Bodies, vault: Arc<Mutex<Option<VaultPublicKey>>> },
}

/// Where a provider's messages about running jobs go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes(Arc<Mutex<BTreeMap<JobId, mpsc::Sender<FromProvider>>>>);

impl Routes {
    /// Messages about this job go here from now on.
    pub(crate) fn insert(&self, job: JobId, route: mpsc::Sender<FromProvider>) {
        self.lock().insert(job, route);
    }

    /// Messages about this job are dropped from now on.
    pub(crate) fn remove(&self, job: JobId) {
        self.lock().remove(&job);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<JobId, mpsc::Sender<FromProvider>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests whose text waits for the driver's word. Bounded by the protocol's jobs for each peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bodies(Arc<Mutex<BTreeMap<(NodeId, JobId), Body>>>);

/// A request's text and what the receipt needs of it.
#[derive(Debug)]
pub(crate) struct Body {
    /// What is asked.
    pub(crate) spec: JobSpec,
    /// Key of the commitments.
    pub(crate) salt: [u8; 32],
}

impl Bodies {
    /// Takes a request's text out.
    pub(crate) fn take(&self, peer: NodeId, job: JobId) -> Option<Body> {
        self.lock().remove(&(peer, job))
    }

    /// Keeps a request's text, unless this peer has too many waiting or the id is in use.
    fn put(&self, peer: NodeId, job: JobId, body: Body) -> bool {
        let mut bodies = self.lock();
        let first = JobId::from_bytes([0; 32]);
        let last = JobId::from_bytes([0xff; 32]);
        let waiting = bodies.range((peer, first)..=(peer, last)).count();
        if waiting >= limits::JOBS_PER_PEER || bodies.contains_key(&(peer, job)) {
            return false;
        }
        bodies.insert((peer, job), body);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(NodeId, JobId), Body>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's hold on a session.
#[derive(Clone, Debug)]
pub(crate) struct SessionHandle {
    /// With whom.
    pub(crate) peer: NodeId,
    /// Which of several with this peer.
    pub(crate) serial: u64,
    /// Our side of it.
    pub(crate) role: Role,
    /// What waits to be written.
    pub(crate) outbound: mpsc::Sender<SessionMessage>,
    /// Ends the session.
    pub(crate) cancel: CancellationToken,
}

impl SessionHandle {
    /// A handle, and what its tasks write.
    pub(crate) fn new(
        peer: NodeId,
        serial: u64,
        role: Role,
        cancel: CancellationToken,
    ) -> (Self, mpsc::Receiver<SessionMessage>) {
        let (outbound, written) = mpsc::channel(OUTBOUND);
        (Self { peer, serial, role, outbound, cancel }, written)
    }

    /// Whether the peer had opened it.
    pub(crate) const fn is_accepted(&self) -> bool {
        matches!(self.role, Role::Provider { .. })
    }
}

/// Why a session is closed from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Violation {
    #[error("a frame is not a message")]
    Malformed,
    #[error("a message of the wrong role")]
    WrongRole,
    #[error("a voucher before the vault was named and read")]
    NoVault,
    #[error("a voucher whose signature does not hold")]
    BadVoucher,
    #[error("more jobs than are taken from one peer, or a job's id twice")]
    TooManyJobs,
}

/// Runs a session until either side ends it; the driver learns of the end.
pub(crate) async fn run(
    session: SessionHandle,
    frames: (FrameSender, FrameReceiver),
    outbound: mpsc::Receiver<SessionMessage>,
    driver: DriverHandle,
) {
    let (sender, mut receiver) = frames;
    let SessionHandle { peer, serial, ref cancel, .. } = session;
    let accepted = session.is_accepted();
    let mut writing = std::pin::pin!(write(sender, outbound, cancel));
    let written = tokio::select! {
        () = cancel.cancelled() => false,
        () = &mut writing => true,
        // Dropped, it loses nothing that the protocol would not send again.
        () = read(&session, &mut receiver, &driver) => false,
    };
    cancel.cancel();
    let parting = async {
        if !written {
            writing.await;
        }
        // The peer's goodbye says that it has read ours, and with it all that was before.
        while let Ok(Some(_)) = receiver.recv().await {}
    };
    if tokio::time::timeout(PARTING, parting).await.is_err() {
        tracing::debug!(%peer, "a peer did not take the last messages of its session");
    }
    driver.send(Event::SessionEnded { peer, accepted, serial }).await;
}

/// Writes what the driver says; when the session is over, first what waits: a last voucher is owed.
async fn write(
    mut sender: FrameSender,
    mut outbound: mpsc::Receiver<SessionMessage>,
    over: &CancellationToken,
) {
    loop {
        // Both arms only wait, so dropping the other loses nothing.
        let message = tokio::select! {
            biased;
            message = outbound.recv() => message,
            () = over.cancelled() => None,
        };
        let Some(message) = message else { return };
        let send = sender.send(Bytes::from(message.encode()));
        match tokio::time::timeout(WRITE_TIMEOUT.to_duration(), send).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "a session cannot be written");
                return;
            }
            Err(_) => {
                tracing::warn!("a peer does not read; its session is closed");
                return;
            }
        }
    }
}

async fn read(session: &SessionHandle, receiver: &mut FrameReceiver, driver: &DriverHandle) {
    loop {
        let frame = match heard(session, receiver).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(peer = %session.peer, %error, "a session cannot be read");
                return;
            }
        };
        let input = SessionMessage::decode(&frame)
            .map_err(|_| Violation::Malformed)
            .and_then(|message| dispatch(session, message));
        match input {
            Ok(None) => {}
            Ok(Some(input)) => {
                if !driver.send(input).await {
                    return;
                }
            }
            Err(violation) => {
                tracing::warn!(peer = %session.peer, %violation, "session closed");
                return;
            }
        }
    }
}

/// The next frame; none at the end, or when a consumer was idle for too long.
async fn heard(
    session: &SessionHandle,
    receiver: &mut FrameReceiver,
) -> Result<Option<Bytes>, ChannelError> {
    if !session.is_accepted() {
        return receiver.recv().await;
    }
    match tokio::time::timeout(IDLE_TIMEOUT.to_duration(), receiver.recv()).await {
        Ok(frame) => frame,
        Err(_) => {
            tracing::debug!(peer = %session.peer, "an idle session is closed");
            Ok(None)
        }
    }
}

/// What a message means for the driver; text goes along its route instead.
fn dispatch(session: &SessionHandle, message: SessionMessage) -> Result<Option<Input>, Violation> {
    match &session.role {
        Role::Consumer { routes, own_vault } => {
            from_provider(session.peer, routes, own_vault, message)
        }
        Role::Provider { bodies, vault } => from_consumer(session.peer, bodies, vault, message),
    }
}

fn from_provider(
    peer: NodeId,
    routes: &Routes,
    own_vault: &VaultPublicKey,
    message: SessionMessage,
) -> Result<Option<Input>, Violation> {
    Ok(Some(match message {
        SessionMessage::ChannelState { allocation, latest, owed, settled: _ } => {
            let verify = |voucher: SignedVoucher| voucher.verify(own_vault);
            let latest = latest.map(verify).transpose().map_err(|_| Violation::BadVoucher)?;
            Input::ChannelState { peer, view: ChannelView { allocation, latest, owed } }
        }
        SessionMessage::JobStarted { job, prompt } => Input::JobStarted { peer, job, prompt },
        SessionMessage::JobRefused { job, refusal } => Input::JobRefused { peer, job, refusal },
        SessionMessage::PaymentRefused { job, reason: _ } => {
            // Its words stay out of the log: it knows the prompt and may repeat it.
            tracing::warn!(%peer, "a provider refuses a voucher");
            Input::PaymentRefused { peer, job }
        }
        SessionMessage::JobChunk { job, text, completion } => {
            return Ok(forward(peer, routes, job, FromProvider::Chunk { text, completion }));
        }
        SessionMessage::JobFinished { job, receipt } => {
            return Ok(forward(peer, routes, job, FromProvider::Finished(receipt)));
        }
        SessionMessage::ChannelHello { .. }
        | SessionMessage::JobRequest(_)
        | SessionMessage::Payment { .. }
        | SessionMessage::JobCancel { .. } => return Err(Violation::WrongRole),
    }))
}

/// Puts a message on the job's route. A job that is over has none, and its stragglers are dropped.
fn forward(peer: NodeId, routes: &Routes, job: JobId, message: FromProvider) -> Option<Input> {
    let route = routes.lock().get(&job).cloned()?;
    match route.try_send(message) {
        Ok(()) => None,
        Err(mpsc::error::TrySendError::Closed(_)) => {
            routes.remove(job);
            None
        }
        Err(mpsc::error::TrySendError::Full(_)) => {
            routes.remove(job);
            Some(Input::JobBroken { peer, job, rule: "it sends more than is paid for" })
        }
    }
}

fn from_consumer(
    peer: NodeId,
    bodies: &Bodies,
    vault: &Mutex<Option<VaultPublicKey>>,
    message: SessionMessage,
) -> Result<Option<Input>, Violation> {
    Ok(Some(match message {
        SessionMessage::ChannelHello { vault, proof } => Input::ChannelHello { peer, vault, proof },
        SessionMessage::JobRequest(JobRequest { job, offer_sequence, spec, salt }) => {
            let key = Salt::from_bytes(salt);
            let request = RequestedJob {
                job,
                model: spec.model,
                offer_sequence,
                max_completion: spec.max_completion,
                prompt_commitment: prompt_commitment(&key, &spec.prompt),
                sampling_digest: sampling_digest(&spec.sampling, &spec.stop),
                salt,
            };
            if !bodies.put(peer, job, Body { spec, salt }) {
                return Err(Violation::TooManyJobs);
            }
            Input::JobRequested { peer, request }
        }
        SessionMessage::Payment { voucher, total } => {
            let key = *vault.lock().unwrap_or_else(PoisonError::into_inner);
            let key = key.ok_or(Violation::NoVault)?;
            let voucher = voucher.verify(&key).map_err(|_| Violation::BadVoucher)?;
            Input::Paid { peer, total, voucher }
        }
        SessionMessage::JobCancel { job } => Input::CancelRequested { peer, job },
        SessionMessage::ChannelState { .. }
        | SessionMessage::JobStarted { .. }
        | SessionMessage::JobRefused { .. }
        | SessionMessage::JobChunk { .. }
        | SessionMessage::JobFinished { .. }
        | SessionMessage::PaymentRefused { .. } => return Err(Violation::WrongRole),
    }))
}
