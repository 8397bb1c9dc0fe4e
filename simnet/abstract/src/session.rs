//! Sessions between two hosts: who they are, what each calls them, and how far they have got.
//!
//! Owns: the two ends' numbers and the order of messages in each direction.
//! Must not: know what a message says beyond its length.

use cocoon_protocol::attest::Tier;
use cocoon_protocol::wire::SessionMessage;
use simnet_host::{Piece, SessionId};
use simnet_scenario::Moment;

use crate::event::Life;
use crate::path::Way;

/// How far a session has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The provider has not answered yet.
    Dialling,
    /// Both ends use it.
    Open,
    /// This end has hung up, the other does not know yet.
    Closing,
}

/// A session. Its ends are host numbers with the life that they had. All that a message on its way
/// needs is here, in one line of the processor's cache.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Session {
    pub(crate) consumer: u32,
    pub(crate) provider: u32,
    pub(crate) consumer_life: Life,
    pub(crate) provider_life: Life,
    /// Tells events of this session from those of another that had its place.
    pub(crate) serial: u16,
    pub(crate) state: State,
    /// Whether the consumer, and the provider, knows of it and has not hung up.
    pub(crate) known: [bool; 2],
    /// What a message takes to the consumer, and to the provider.
    pub(crate) ways: Ways,
    pub(crate) dialled: SessionId,
    /// The provider's number, once it has accepted.
    pub(crate) accepted: SessionId,
    /// When the last message to the consumer, and to the provider, arrives.
    pub(crate) last: [Moment; 2],
}

/// The ways between a session's ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ways {
    one_way_us: u32,
    slowest: [u32; 2],
}

impl Ways {
    /// From the way to the consumer and the way to the provider.
    pub(crate) fn new(to_consumer: Way, to_provider: Way) -> Self {
        let slowest = [to_consumer.slowest, to_provider.slowest];
        Self { one_way_us: to_consumer.one_way_us, slowest }
    }
}

impl Session {
    /// Whether an end knows of it.
    pub(crate) const fn is_known(&self, to_provider: bool) -> bool {
        let [consumer, provider] = self.known;
        if to_provider { provider } else { consumer }
    }

    /// An end knows of it, or no longer does.
    pub(crate) const fn set_known(&mut self, to_provider: bool, known: bool) {
        let [consumer, provider] = &mut self.known;
        *(if to_provider { provider } else { consumer }) = known;
    }

    /// The way to an end.
    pub(crate) const fn way(&self, to_provider: bool) -> Way {
        let Ways { one_way_us, slowest: [to_the_consumer, to_the_provider] } = self.ways;
        let slowest = if to_provider { to_the_provider } else { to_the_consumer };
        Way { one_way_us, slowest }
    }

    /// The end that a direction leads to, and its life.
    pub(crate) const fn end(&self, to_provider: bool) -> (u32, Life) {
        if to_provider {
            (self.provider, self.provider_life)
        } else {
            (self.consumer, self.consumer_life)
        }
    }

    /// What that end calls the session.
    pub(crate) const fn name(&self, to_provider: bool) -> SessionId {
        if to_provider { self.accepted } else { self.dialled }
    }

    /// A message that takes until `at` arrives then, or right after the one before it.
    pub(crate) fn arrival(&mut self, to_provider: bool, at: Moment) -> Moment {
        let [to_consumer, to_the_provider] = &mut self.last;
        let last = if to_provider { to_the_provider } else { to_consumer };
        *last = at.max(*last);
        *last
    }
}

/// Flights of the attested channel's start, in bytes, as the exact tier sends them.
pub(crate) const CLIENT_HELLO: u64 = 1_540;
/// The provider's first flight.
pub(crate) const SERVER_FLIGHT: u64 = 1_780;
/// The consumer's second flight.
pub(crate) const CLIENT_FINISHED: u64 = 194;

/// The provider's evidence, in bytes.
pub(crate) const fn evidence_bytes(tier: Tier) -> u64 {
    match tier {
        Tier::Open => 160,
        Tier::Attested | Tier::Confidential => 21_166,
    }
}

/// Bytes of a frame's header.
const HEADER: u64 = 8;
/// Bytes of a piece of an answer beside its text.
const CHUNK: u64 = 38;

/// Something on its way in a session.
#[derive(Debug)]
pub(crate) enum Parcel {
    /// A piece of an answer: nine of ten.
    Piece(Piece),
    /// Any other message.
    Message(Box<SessionMessage>),
}

/// Bytes of a piece of an answer, whose text is all padding.
pub(crate) const fn piece_length(padding: u32) -> u64 {
    HEADER + CHUNK + padding as u64
}

/// Bytes that a message and its padding encode to, without encoding it: fixed fields at their
/// length, numbers at the length that they usually have; an estimate beside the real encoding, which knows more cases.
pub(crate) fn length(message: &SessionMessage, padding: u32) -> u64 {
    let body = match message {
        SessionMessage::ChannelHello { .. } => 104,
        SessionMessage::ChannelState { latest: Some(_), .. } => 215,
        SessionMessage::ChannelState { latest: None, .. } => 18,
        SessionMessage::JobRequest(_) => 150,
        SessionMessage::Payment { total: Some(_), .. } => 234,
        SessionMessage::Payment { total: None, .. } => 194,
        SessionMessage::JobCancel { .. } => 36,
        SessionMessage::JobStarted { .. } => 39,
        SessionMessage::JobRefused { .. } => 46,
        SessionMessage::JobChunk { text, .. } => {
            CHUNK + u64::try_from(text.len()).unwrap_or(u64::MAX)
        }
        SessionMessage::JobFinished { .. } => 434,
        SessionMessage::PaymentRefused { reason, .. } => {
            38 + u64::try_from(reason.len()).unwrap_or(u64::MAX)
        }
    };
    HEADER + body + u64::from(padding)
}
