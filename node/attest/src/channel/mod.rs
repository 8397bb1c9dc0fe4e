//! The attested channel: TLS 1.3 inside any stream, and nothing but attestation until it is proved.
//!
//! Owns: `/cocoon/session/1` from the first TLS byte to application frames; see `connect` and
//! `accept`. Relays and the node's own untrusted network stack carry only ciphertext.
//! Must not: know libp2p, jobs or money. Frames are opaque.
//!
//! The evidence that counts is exchanged *after* the handshake and bound to its exporter: evidence
//! in a certificate alone falls to diversion, and evidence bound to a key alone to a relay that
//! holds the key.

mod accept;
mod challenge;
mod connect;
mod error;
#[cfg(any(all(test, feature = "dev-tee"), feature = "fuzzing"))]
pub(crate) mod frame;
#[cfg(not(any(all(test, feature = "dev-tee"), feature = "fuzzing")))]
mod frame;
mod identity;
mod pump;
mod quota;
mod tls;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cocoon_protocol::attest::{EvidenceKind, Tier, Verdict};
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::limits;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::channel::frame::Kind;
use crate::channel::pump::{Failure, Incoming, Outgoing, Standing};

pub use accept::{AcceptOptions, ConsumerDemand, accept};
pub use connect::{ConnectOptions, connect};
pub use error::{ChannelError, Misbehaviour};
pub use identity::{ChannelIdentity, IdentityOptions};

/// Who owns the tasks that carry a channel: the node's shutdown waits for `tracker` and cancels
/// `cancel`. A channel runs three tasks: one reads, one writes, one attests; and a fourth where both
/// ends attest.
#[derive(Clone, Debug, Default)]
pub struct ChannelTasks {
    /// Tracks every task.
    pub tracker: TaskTracker,
    /// Ends every task.
    pub cancel: CancellationToken,
}

/// A consumer's end: the provider is verified, and stays so by re-attestation.
#[derive(Debug)]
pub struct AttestedChannel {
    verdict: Verdict,
    sender: FrameSender,
    receiver: FrameReceiver,
}

impl AttestedChannel {
    /// What was verified before the first frame. [`FrameSender::verdict`] has the latest.
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// The two directions, usable from different tasks.
    pub fn split(self) -> (FrameSender, FrameReceiver) {
        (self.sender, self.receiver)
    }
}

/// A provider's end: the consumer's challenge was answered. Whether the consumer was content shows
/// in its first frame. Where consumers have to be attested, this one is, and stays so.
#[derive(Debug)]
pub struct AcceptedChannel {
    peer: NodeId,
    kind: EvidenceKind,
    tier: Tier,
    simulated: bool,
    evidence_digest: [u8; 32],
    verdict: Option<Verdict>,
    sender: FrameSender,
    receiver: FrameReceiver,
}

impl AcceptedChannel {
    /// The consumer, as the layer below authenticated it.
    pub const fn peer(&self) -> NodeId {
        self.peer
    }

    /// What kind of evidence the consumer was shown: as much as it had asked for.
    pub const fn kind(&self) -> EvidenceKind {
        self.kind
    }

    /// The tier that the consumer had asked for, as far as the evidence goes: with a CPU's alone no
    /// further than `attested`. A consumer that was content names the same.
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// Whether any of that evidence is a simulation's: of the TEE, or of the GPUs where they were asked.
    pub const fn simulated(&self) -> bool {
        self.simulated
    }

    /// SHA-256 of that evidence; the consumer's verdict names the same.
    pub const fn evidence_digest(&self) -> [u8; 32] {
        self.evidence_digest
    }

    /// What was verified about the consumer, where that was demanded. [`FrameSender::verdict`] has
    /// the latest.
    pub const fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// The two directions, usable from different tasks.
    pub fn split(self) -> (FrameSender, FrameReceiver) {
        (self.sender, self.receiver)
    }
}

/// Sends frames. Dropping it sends what is queued, says goodbye, and closes this direction.
pub struct FrameSender {
    outgoing: mpsc::Sender<Outgoing>,
    budget: Arc<Semaphore>,
    failure: Failure,
    /// What is verified about the other end, where that is asked.
    standing: Option<Standing>,
    _closing: DropGuard,
}

impl fmt::Debug for FrameSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSender").finish_non_exhaustive()
    }
}

impl FrameSender {
    /// Queues one frame of at most [`limits::FRAME_BYTES`]. Waits while more than one such frame's
    /// worth of bytes is queued; what was queued is written and flushed without further calls.
    /// Cancel-safe: dropped before it is ready, nothing was sent.
    ///
    /// # Errors
    /// [`ChannelError::Refused`] or [`ChannelError::ConsumerRefused`] when the verdict has ended and
    /// no new one came: no byte leaves.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), ChannelError> {
        self.check()?;
        let length = u32::try_from(frame.len()).map_err(|_| ChannelError::FrameTooLong)?;
        if frame.len() > limits::FRAME_BYTES {
            return Err(ChannelError::FrameTooLong);
        }
        let budget = Arc::clone(&self.budget).acquire_many_owned(length);
        let budget = budget.await.map_err(|_| self.failure.or_closed())?;
        // Time has passed; what held then need not hold now.
        self.check()?;
        let item =
            Outgoing::Frame { kind: Kind::Application, payload: frame, budget: Some(budget) };
        self.outgoing.send(item).await.map_err(|_| self.failure.or_closed())
    }

    /// Waits until everything queued so far was handed to the stream below.
    ///
    /// # Errors
    /// When the channel failed before.
    pub async fn flush(&mut self) -> Result<(), ChannelError> {
        let (done, flushed) = oneshot::channel();
        let queued = self.outgoing.send(Outgoing::Flush(done)).await;
        queued.map_err(|_| self.failure.or_closed())?;
        flushed.await.map_err(|_| self.failure.or_closed())
    }

    /// What is verified about the other end now: on a consumer's end always, on a provider's where
    /// it demands attested consumers.
    pub fn verdict(&self) -> Option<Verdict> {
        self.standing.as_ref().map(Standing::verdict)
    }

    fn check(&self) -> Result<(), ChannelError> {
        if let Some(failure) = self.failure.seen() {
            return Err(failure);
        }
        self.standing.as_ref().map_or(Ok(()), Standing::check)
    }
}

/// Receives frames. Keep receiving: while a frame waits here, the messages of re-attestation wait
/// behind it. Dropping it ends this direction.
pub struct FrameReceiver {
    inbox: mpsc::Receiver<Incoming>,
    failure: Failure,
    _ending: DropGuard,
}

impl fmt::Debug for FrameReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReceiver").finish_non_exhaustive()
    }
}

impl FrameReceiver {
    /// The next frame; `None` after the peer said goodbye. Cancel-safe.
    ///
    /// # Errors
    /// Why the channel ended otherwise, a truncated stream included.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, ChannelError> {
        match self.inbox.recv().await {
            Some(incoming) => Ok(Some(incoming.payload)),
            None => self.failure.seen().map_or(Ok(None), Err),
        }
    }
}
