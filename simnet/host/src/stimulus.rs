//! Everything that can happen to a host.
//!
//! Owns: the list. Must not: carry anything that a real node could not get.

use std::sync::Arc;

use cocoon_protocol::Input;
use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{JobId, ModelHash, NodeId};
use cocoon_protocol::offer::VerifiedOffer;
use cocoon_protocol::units::{NanoTon, Tokens};
use cocoon_protocol::wire::SessionMessage;

use crate::evidence::Evidence;
use crate::fabric::SessionId;

/// A job as its user wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its random id.
    pub job: JobId,
    /// Which weights.
    pub model: ModelHash,
    /// Tokens of the prompt; the provider's engine will count so many.
    pub prompt: Tokens,
    /// Tokens that the model would write if nothing stopped it.
    pub completion: Tokens,
    /// The user's limit of it; `None` leaves it to the context.
    pub max_completion: Option<Tokens>,
    /// The lowest tier that may see the prompt.
    pub minimum_tier: Tier,
    /// The most that the job may cost.
    pub max_cost: Option<NanoTon>,
    /// Random, for the choice among equal providers.
    pub draw: u64,
}

/// A piece of an answer. Its letters are not simulated; that it came, and how long the answer is with
/// it, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Of which job.
    pub job: JobId,
    /// Tokens of the completion so far.
    pub completion: Tokens,
}

/// A moment that a host asked to be woken at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alarm {
    /// The protocol's own time-out, as of this generation; an older one is stale.
    Protocol(u32),
    /// The engine has something, as of this generation: tokens are written, or a job is done.
    Engine(u32),
    /// The store's commit of this number is durable.
    Store(u32),
    /// Somebody who waits for a first token may have lost patience.
    Patience,
    /// An accepted session may have been idle for too long.
    Idle,
    /// Something of the host's own behaviour (an adversary's next move), by its number.
    Behaviour(u32),
}

/// Why a dial did not become a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// No answer, or none in time.
    Unreachable,
    /// The peer takes no further session.
    Busy,
}

/// Something that happens to a host. What is large is boxed: a stimulus goes through several hands,
/// and most are alarms.
#[derive(Clone, Debug)]
pub enum Stimulus {
    /// It starts: for the first time, or again with what its store kept.
    Start,
    /// It is asked to finish what it has and leave.
    Drain,
    /// A user wants a job done.
    Submit(Box<Order>),
    /// A user no longer wants it.
    Cancel(JobId),
    /// A provider's current offer came in.
    OfferHeard(Arc<VerifiedOffer>),
    /// A provider's offer is no longer kept current.
    OfferLost(NodeId),
    /// A session that was dialled is open; this is what the provider showed.
    SessionUp {
        /// Which.
        session: SessionId,
        /// The provider.
        peer: NodeId,
        /// Its evidence, not judged yet.
        evidence: Box<Evidence>,
    },
    /// A session that was dialled did not come about.
    DialFailed {
        /// Which.
        session: SessionId,
        /// The provider.
        peer: NodeId,
        /// Why.
        failure: DialFailure,
    },
    /// A consumer opened a session; it was shown `Host::evidence`.
    SessionAccepted {
        /// The number that this host knows it by.
        session: SessionId,
        /// The consumer.
        peer: NodeId,
    },
    /// A session is over: the peer hung up, crashed, or cannot be reached any more.
    SessionDown {
        /// Which.
        session: SessionId,
    },
    /// A message in a session.
    Heard {
        /// Which.
        session: SessionId,
        /// What.
        message: Box<SessionMessage>,
    },
    /// A piece of an answer in a session: what a message with an empty text would say, from a fabric
    /// that does not make one of each.
    Piece {
        /// Which.
        session: SessionId,
        /// What.
        piece: Piece,
    },
    /// An alarm that the host had set.
    Alarm(Alarm),
    /// The ledger answers a command.
    Ledger(Box<Input>),
}
