//! Why a channel did not come about or ended.
//!
//! Owns: the reasons, by who is to blame. Must not: carry bytes of a peer.

use std::io;

use cocoon_protocol::attest::{Malformed, Refusal};

use crate::attester::QuoteError;

/// What a peer did that the protocol does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// A frame above its kind's bound.
    #[error("a frame larger than allowed")]
    FrameTooLong,
    /// A kind that this version does not know.
    #[error("an unknown kind of frame")]
    UnknownFrame,
    /// A known kind, from the wrong end or at the wrong time.
    #[error("a frame that has no place here")]
    UnexpectedFrame,
    /// A job before the provider was verified. The consumer leaks prompts, so the provider stops it.
    #[error("an application frame before attestation")]
    FrameBeforeAttestation,
    /// Challenges faster than quotes are made.
    #[error("attestation requests in too quick succession")]
    TooManyRequests,
    /// A challenge that does not parse.
    #[error("a malformed attestation request")]
    MalformedRequest,
    /// TLS, but for another purpose.
    #[error("a TLS session for another protocol")]
    OtherProtocol,
    /// The stream ended within a frame or without a goodbye.
    #[error("a truncated stream")]
    Truncated,
}

/// Why there is no channel, or no more.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ChannelError {
    /// The consumer's policy or the binding refused the provider. No prompt byte was sent.
    #[error("the provider was refused: {0}")]
    Refused(Refusal),
    /// This provider's policy for consumers or the binding refused the consumer. Nothing that it
    /// sent was served.
    #[error("the consumer was refused: {}", about_a_consumer(.0))]
    ConsumerRefused(Refusal),
    /// The provider serves attested consumers only, and this node has nothing to show.
    #[error(
        "the provider serves attested consumers only, and this node has no TEE to attest itself \
         with; choose another provider"
    )]
    AttestationDemanded,
    /// The provider judged this node's evidence and refused it. No job was sent.
    #[error(
        "the provider's policy for consumers refuses this node's evidence; its operator can say \
         why, or choose another provider"
    )]
    RefusedByProvider,
    /// The peer broke the protocol; do not use it again soon.
    #[error("the peer broke the session protocol: {0}")]
    Misbehaved(Misbehaviour),
    /// TLS failed: another protocol, another version, or bytes tampered with on the way.
    #[error("the encrypted session with the peer failed; it may run another version")]
    Tls(#[source] rustls::Error),
    /// The stream below failed.
    #[error("the connection to the peer was lost ({0})")]
    Lost(io::ErrorKind),
    /// The peer was too slow to set the session up.
    #[error("the peer did not set the session up in time")]
    TimedOut,
    /// Our own TEE failed.
    #[error("this node's TEE could not attest the session")]
    Quote(#[source] QuoteError),
    /// Our own certificate could not be made.
    #[error("this node's session certificate could not be made")]
    Certificate,
    /// The caller's frame is longer than a frame may be.
    #[error("the frame is larger than {} bytes; split it", cocoon_protocol::limits::FRAME_BYTES)]
    FrameTooLong,
    /// The channel was closed on this side.
    #[error("the session is closed")]
    Closed,
}

impl From<Refusal> for ChannelError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Misbehaviour> for ChannelError {
    fn from(misbehaviour: Misbehaviour) -> Self {
        Self::Misbehaved(misbehaviour)
    }
}

impl From<QuoteError> for ChannelError {
    fn from(error: QuoteError) -> Self {
        Self::Quote(error)
    }
}

impl From<rustls::Error> for ChannelError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<Malformed> for Misbehaviour {
    fn from(_: Malformed) -> Self {
        Self::MalformedRequest
    }
}

/// The same reason, of the other end: refusals are worded for the usual case, a refused provider.
fn about_a_consumer(refusal: &Refusal) -> String {
    refusal.to_string().replace("provider", "consumer")
}

/// An error of the TLS stream: TLS's own errors travel inside I/O errors.
pub(super) fn from_io(error: &io::Error) -> ChannelError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(tls) => ChannelError::Tls(tls.clone()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => Misbehaviour::Truncated.into(),
        None => ChannelError::Lost(error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_consumer_is_not_called_a_provider() {
        let words = ChannelError::ConsumerRefused(Refusal::Debug).to_string();
        assert!(words.contains("the consumer's guest runs in debug mode"), "{words}");
        let words = ChannelError::Refused(Refusal::Debug).to_string();
        assert!(words.contains("the provider's guest runs in debug mode"), "{words}");
    }
}
