//! What a node tells its overlay, and what it hears from it.
//!
//! Owns: the types of that conversation, configuration included. Must not: act on any of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{ModelHash, NodeId, NodeKey};
use cocoon_protocol::offer::{Offer, SignedOffer, VerifiedOffer};
use cocoon_protocol::units::Timestamp;
use libp2p::Multiaddr;

use crate::control::LinkEnd;
use crate::gossip::{NoticeCheck, Topic};
use crate::streams::{OpenError, PeerStream, RequestId};

/// What a node does in the network; decides how many connections it keeps and whether it holds a
/// share of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asks for inference only. A client of the index: it stores nothing for others.
    Consumer,
    /// Serves models, and perhaps asks too.
    Provider,
    /// Neither: answers look-ups for others.
    Relay,
}

/// What an overlay needs to start.
pub struct Config {
    /// The node's identity.
    pub key: NodeKey,
    /// What it does.
    pub role: Role,
    /// Whether it holds a share of the index. By default all but consumers do; a node that others
    /// cannot reach must not.
    pub serves_index: bool,
    /// Addresses at which others reach this node, if the operator knows them. Public addresses of
    /// the machine itself need not be listed.
    pub external_addresses: Vec<Multiaddr>,
    /// Secret randomness for draws. From the operating system in a node, from the seed in a test.
    pub seed: [u8; 32],
    /// The wall clock that offers are checked against.
    pub clock: Box<dyn Fn() -> Timestamp + Send>,
    /// The check of gossiped notices.
    pub notice_check: NoticeCheck,
}

impl Config {
    /// The usual configuration of a role. Notices are ignored until a check is set.
    pub fn new(
        key: NodeKey,
        role: Role,
        seed: [u8; 32],
        clock: impl Fn() -> Timestamp + Send + 'static,
    ) -> Self {
        Self {
            key,
            role,
            serves_index: role != Role::Consumer,
            external_addresses: Vec::new(),
            seed,
            clock: Box::new(clock),
            notice_check: Box::new(|_, _| crate::gossip::NoticeVerdict::Ignore),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("node", &self.key.id())
            .field("role", &self.role)
            .field("serves_index", &self.serves_index)
            .field("external_addresses", &self.external_addresses)
            .finish_non_exhaustive()
    }
}

/// Providers that a node wants to know: of a model, at a tier or above.
///
/// The tier is a part of the question because it is a part of the index's keys. A consumer that
/// must have a TEE would otherwise be named gaming cards for the most part, and a table of eight of
/// them is full and useless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Want {
    /// Which weights.
    pub model: ModelHash,
    /// The lowest tier that a provider's offer may state.
    pub minimum_tier: Tier,
}

impl Want {
    /// Whether an offer is of such a provider. A session proves the tier that it states.
    pub fn is_met_by(&self, offer: &Offer) -> bool {
        offer.tier >= self.minimum_tier && offer.model(self.model).is_some()
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in tier {} or above", self.model, self.minimum_tier)
    }
}

/// What a node tells its overlay.
#[derive(Clone, Debug)]
pub enum Command {
    /// Accept connections at an address; port 0 picks one. Answered by [`Event::Listening`], once
    /// an interface, or [`Event::ListenFailed`].
    Listen(Multiaddr),
    /// Join through an entry point, and dial it again whenever it is lost.
    Dial(Multiaddr),
    /// Know these peers of the index from an earlier run. They enter the routing table as they are,
    /// without being dialled; who is gone leaves it in the course of look-ups.
    Remember(Vec<Anchor>),
    /// Offer this from now on. Must be signed by this node and valid now, or nothing happens but
    /// a warning. Send the next one before it expires.
    PublishOffer(SignedOffer),
    /// Offer nothing any more, and tell all subscribers.
    WithdrawOffer,
    /// Keep a warm table of such providers. Answered by [`Event::Offer`]s.
    Want(Want),
    /// End that warm table.
    Unwant(Want),
    /// This provider is not what its offer says: it leaves every table, and is not contacted again
    /// for as long as an offer lives.
    Avoid(NodeId),
    /// Gossip a notice. It must pass the node's own check.
    PublishNotice(Topic, Vec<u8>),
}

/// What a node hears from its overlay.
#[derive(Debug)]
pub enum Event {
    /// Connections are accepted at an address.
    Listening {
        /// The address of the command.
        requested: Multiaddr,
        /// What became of it: port and interface filled in.
        address: Multiaddr,
    },
    /// Connections are no longer accepted at this address.
    ListenEnded(Multiaddr),
    /// The address cannot be listened on.
    ListenFailed {
        /// Which one.
        address: Multiaddr,
        /// Why.
        error: ListenError,
    },
    /// A first connection with the node exists.
    PeerConnected(NodeId),
    /// The last connection with the node ended.
    PeerDisconnected(NodeId),
    /// A provider's current offer, from the provider itself.
    Offer(Arc<VerifiedOffer>),
    /// The provider's offer is no longer kept current: it left, drains, or made room for another.
    OfferGone(NodeId),
    /// A peer opened a session stream.
    InboundSession {
        /// Who.
        peer: NodeId,
        /// The stream; dropping it resets it.
        stream: PeerStream,
    },
    /// A stream that was asked for is open.
    SessionOpened {
        /// Which request this answers.
        request: RequestId,
        /// The other end.
        peer: NodeId,
        /// The stream; the peer's verdict comes with the first read.
        stream: PeerStream,
    },
    /// A stream that was asked for could not be opened.
    SessionFailed {
        /// Which request this answers.
        request: RequestId,
        /// The other end.
        peer: NodeId,
        /// Why.
        error: OpenError,
    },
    /// A gossiped notice that the node's check accepted.
    Notice(Topic, Vec<u8>),
}

/// Why an address cannot be listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// No transport of this node can listen there.
    #[error("no transport can listen at this address: use /ip4/…/udp/…/quic-v1 or /ip4/…/tcp/…")]
    Unsupported,
    /// The operating system refused.
    #[error("the operating system refused the address: is the port taken or privileged?")]
    Refused,
}

/// An overlay cannot be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The node's key is not usable as a libp2p identity.
    #[error("the node's key is not a valid Ed25519 key: make a new one")]
    Key,
    /// Gossip could not be set up.
    #[error("the overlay's own settings contradict each other: this is a bug")]
    Gossip(#[from] crate::gossip::GossipError),
}

/// The overlay at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// Connected peers.
    pub peers: usize,
    /// Addresses that connections are accepted at.
    pub listeners: Vec<Multiaddr>,
    /// Addresses that are believed reachable from the Internet.
    pub external_addresses: Vec<Multiaddr>,
    /// Peers in the index's routing table.
    pub index_peers: usize,
    /// Records of providers that this node keeps for others.
    pub index_records: usize,
    /// Entry points, and how many of them are connected.
    pub entry_points: (usize, usize),
    /// What is wanted, and how many providers are warm for each.
    pub warm: Vec<(Want, usize)>,
    /// Consumers subscribed to this node's offer.
    pub subscribers: usize,
    /// Whether this node has an offer out.
    pub offering: bool,
    /// What peers did wrong, and how often.
    pub refused: BTreeMap<Refused, u64>,
    /// Peers worth remembering across a restart: those of the warm tables and entry points.
    pub anchors: Vec<Anchor>,
}

/// How long a step of discovery took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// A look-up that found somebody.
    LookUp {
        /// What was asked for.
        want: Want,
        /// From the question to the first providers' names.
        first: Duration,
        /// Providers that it named.
        found: usize,
    },
    /// A provider that was contacted and sent its offer.
    Contact {
        /// Who.
        provider: NodeId,
        /// From the decision to its first offer, the dial included.
        after: Duration,
    },
}

/// Things that peers were refused, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// A control stream ended for this reason.
    Control(LinkEnd),
    /// An inbound stream got BUSY.
    StreamBusy,
    /// A provider record was not stored.
    Record,
    /// A notice failed the node's check.
    Notice,
    /// Idle connections closed by the watermarks.
    ConnectionTrimmed,
}

/// A peer to remember: dialled as an entry point at the next start, or told by
/// [`Command::Remember`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Who.
    pub node: NodeId,
    /// Where it was reached, with its identity as the last part.
    pub addresses: Vec<Multiaddr>,
}
