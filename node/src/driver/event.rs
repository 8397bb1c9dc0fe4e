//! What reaches the driver: inputs for the protocol, and what only the shell needs to know.
//!
//! Owns: the inbox and its handle. Must not: do anything; the driver does.

use std::fmt;

use cocoon_gateway::{Accepted, JobEvent};
use cocoon_protocol::Input;
use cocoon_protocol::identity::{JobId, NodeId};
use cocoon_protocol::input::Proved;
use cocoon_protocol::job::{JobError, JobSpec};
use cocoon_protocol::selection::Demand;
use cocoon_protocol::units::Tokens;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::view::View;
use crate::net::session::SessionHandle;

/// Events that wait for the driver. Senders wait when it is full, which slows readers of sessions
/// down: the network's own back-pressure. At 200 bytes an event this is 400 kB.
const INBOX: usize = 2_048;

/// A job that a user wants, with everything that stays outside the protocol's core.
pub(crate) struct Submission {
    /// Its random id.
    pub(crate) job: JobId,
    /// The request; the completion's limit is set when a provider is chosen.
    pub(crate) spec: JobSpec,
    /// Key of the commitments in its receipt.
    pub(crate) salt: [u8; 32],
    /// What it needs of a provider.
    pub(crate) demand: Demand,
    /// Random, for the choice among equals.
    pub(crate) draw: u64,
    /// Answered when a provider has started, or with the refusal.
    pub(crate) started: oneshot::Sender<Result<Accepted, JobError>>,
    /// Where text and the end go.
    pub(crate) events: mpsc::Sender<JobEvent>,
    /// Cancelled when nobody reads any more.
    pub(crate) gone: CancellationToken,
}

impl fmt::Debug for Submission {
    /// Never the prompt.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission").field("job", &self.job).finish_non_exhaustive()
    }
}

/// Something for the driver.
pub(crate) enum Event {
    /// For the protocol.
    Input(Input),
    /// A user wants a job done.
    Submit(Box<Submission>),
    /// A lost provider's text has been passed on as far as it had come.
    Halted {
        /// Of which job.
        job: JobId,
        /// Tokens of it.
        completion: Tokens,
        /// Bytes of it.
        bytes: usize,
        /// The answer so far, of all its providers.
        answer: String,
    },
    /// A session is attested and its tasks run.
    SessionOpened {
        /// Whom it is with, and how to use it.
        session: SessionHandle,
        /// What was proved in it.
        proved: Proved,
    },
    /// A session's tasks have ended.
    SessionEnded {
        /// With whom.
        peer: NodeId,
        /// Whether the peer had opened it.
        accepted: bool,
        /// Which of several with this peer.
        serial: u64,
    },
    /// Somebody wants to look.
    Inspect(oneshot::Sender<View>),
}

impl fmt::Debug for Event {
    /// Never an answer's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(input) => f.debug_tuple("Input").field(input).finish(),
            Self::Submit(submission) => f.debug_tuple("Submit").field(submission).finish(),
            Self::Halted { job, completion, bytes, answer: _ } => f
                .debug_struct("Halted")
                .field("job", job)
                .field("completion", completion)
                .field("bytes", bytes)
                .finish_non_exhaustive(),
            Self::SessionOpened { session, proved } => f
                .debug_struct("SessionOpened")
                .field("session", session)
                .field("proved", proved)
                .finish(),
            Self::SessionEnded { peer, accepted, serial } => f
                .debug_struct("SessionEnded")
                .field("peer", peer)
                .field("accepted", accepted)
                .field("serial", serial)
                .finish(),
            Self::Inspect(_) => f.write_str("Inspect"),
        }
    }
}

impl From<Input> for Event {
    fn from(input: Input) -> Self {
        Self::Input(input)
    }
}

/// A way to reach the driver; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct DriverHandle(mpsc::Sender<Event>);

impl DriverHandle {
    /// A handle and the inbox that it leads to.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Event>) {
        let (sender, inbox) = mpsc::channel(INBOX);
        (Self(sender), inbox)
    }

    /// Hands an event over, waiting for room. False when the driver is gone.
    pub(crate) async fn send(&self, event: impl Into<Event>) -> bool {
        self.0.send(event.into()).await.is_ok()
    }

    /// The driver's state, or `None` when it is gone.
    pub(crate) async fn inspect(&self) -> Option<View> {
        let (answer, view) = oneshot::channel();
        if !self.send(Event::Inspect(answer)).await {
            return None;
        }
        view.await.ok()
    }
}
