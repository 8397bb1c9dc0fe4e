//! Gossip: three fixed topics for small signed notices, checked before they are passed on.
//!
//! Owns: topics, gossipsub's settings, and peer scoring.
//! Must not: carry offers or load, which would cost every node traffic for every provider.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, IdentTopic, IdentityTransform, MaxCountSubscriptionFilter, Message,
    MessageAcceptance, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds,
    TopicHash, TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
};
use sha2::{Digest as _, Sha256};

use crate::limits;

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Parameters of the network, such as the number of index shards.
    Parameters,
    /// Keys and measurements that are not to be trusted any more.
    Revocations,
    /// Changes of the model catalogue.
    Catalogue,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 3] = [Self::Parameters, Self::Revocations, Self::Catalogue];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parameters => "/cocoon/parameters/1",
            Self::Revocations => "/cocoon/revocations/1",
            Self::Catalogue => "/cocoon/catalogue/1",
        }
    }

    pub(crate) fn ident(self) -> IdentTopic {
        IdentTopic::new(self.name())
    }

    pub(crate) fn of(hash: &TopicHash) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == hash.as_str())
    }
}

/// What the node thinks of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeVerdict {
    /// It is valid and new: use it and pass it on.
    Accept,
    /// It is of no use here, and nobody is to blame, for example because it is old.
    Ignore,
    /// It is invalid: whoever passed it on should have seen that.
    Reject,
}

impl NoticeVerdict {
    pub(crate) const fn acceptance(self) -> MessageAcceptance {
        match self {
            Self::Accept => MessageAcceptance::Accept,
            Self::Ignore => MessageAcceptance::Ignore,
            Self::Reject => MessageAcceptance::Reject,
        }
    }
}

/// The node's check of a notice: its signature and its sense. Runs once per notice.
pub type NoticeCheck = Box<dyn FnMut(Topic, &[u8]) -> NoticeVerdict + Send>;

/// Gossipsub's settings contradict each other. A fault of this crate, not of its user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("gossip could not be set up: {0}")]
pub struct GossipError(String);

fn fault(error: impl fmt::Display) -> GossipError {
    GossipError(error.to_string())
}

pub(crate) type Filter = MaxCountSubscriptionFilter<WhitelistSubscriptionFilter>;
pub(crate) type Gossip = Behaviour<IdentityTransform, Filter>;

/// Gossip with all topics subscribed. Envelopes are anonymous: libp2p would check a signature for
/// every duplicate, while ours, inside the notice, is checked once after deduplication. That makes
/// an identity by content compulsory.
pub(crate) fn behaviour() -> Result<Gossip, GossipError> {
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(content_id)
        .max_transmit_size(limits::NOTICE_BYTES)
        .flood_publish(false)
        // Notices are rare, small and never urgent to the second, and there is a mesh for each
        // topic: the usual six peers and one beat a second would be most of an idle node's
        // connections and work. Three to four peers still reach everyone (Lighthouse has as few).
        .mesh_n_low(3)
        .mesh_n(4)
        .mesh_n_high(8)
        .gossip_lazy(3)
        .heartbeat_interval(limits::GOSSIP_BEAT)
        .build()
        .map_err(fault)?;
    let topics: HashSet<_> = Topic::ALL.into_iter().map(|topic| topic.ident().hash()).collect();
    let filter = MaxCountSubscriptionFilter {
        max_subscribed_topics: topics.len(),
        max_subscriptions_per_request: topics.len().saturating_mul(2),
        filter: WhitelistSubscriptionFilter(topics),
    };
    let mut gossip = Behaviour::new_with_subscription_filter_and_transform(
        MessageAuthenticity::Anonymous,
        config,
        filter,
        IdentityTransform,
    )
    .map_err(fault)?;
    gossip.with_peer_score(score(), thresholds()).map_err(fault)?;
    for topic in Topic::ALL {
        gossip.subscribe(&topic.ident()).map_err(fault)?;
    }
    Ok(gossip)
}

fn content_id(message: &Message) -> MessageId {
    let mut hash = Sha256::new();
    hash.update(message.topic.as_str().as_bytes());
    hash.update([0]);
    hash.update(&message.data);
    let digest: [u8; 32] = hash.finalize().into();
    MessageId::from(digest.to_vec())
}

/// Invalid notices and many peers behind one address cost score. Nodes on one machine share the
/// loopback address, which is no sign of a Sybil, so it is exempt.
fn score() -> PeerScoreParams {
    let topic = TopicScoreParams {
        // Notices are rare, so silence is normal: delivery is not scored, only invalid ones are.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -100.0,
        ..TopicScoreParams::default()
    };
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    PeerScoreParams {
        topics: HashMap::from(Topic::ALL.map(|name| (name.ident().hash(), topic.clone()))),
        ip_colocation_factor_threshold: 8.0,
        ip_colocation_factor_whitelist: HashSet::from(loopback),
        behaviour_penalty_threshold: 6.0,
        decay_interval: Duration::from_secs(10),
        ..PeerScoreParams::default()
    }
}

/// As Lighthouse has them in proportion: gossip, publish and graylist at 1 : 2 : 4.
const fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -400.0,
        publish_threshold: -800.0,
        graylist_threshold: -1_600.0,
        accept_px_threshold: 100.0,
        opportunistic_graft_threshold: 5.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(topic: &str, data: &[u8], source: Option<libp2p::PeerId>) -> MessageId {
        content_id(&Message {
            source,
            data: data.to_vec(),
            sequence_number: Some(7),
            topic: TopicHash::from_raw(topic),
        })
    }

    #[test]
    fn the_settings_are_consistent_and_every_topic_is_subscribed() {
        let gossip = behaviour().unwrap();
        assert_eq!(gossip.topics().count(), Topic::ALL.len());
        assert!(gossip.topics().all(|hash| Topic::of(hash).is_some()));
    }

    #[test]
    fn a_notice_is_the_same_whoever_sends_it_and_other_in_another_topic() {
        let from = Some(libp2p::PeerId::random());
        assert_eq!(id("a", b"x", from), id("a", b"x", None));
        assert_ne!(id("a", b"x", None), id("b", b"x", None));
        assert_ne!(id("a", b"x", None), id("a", b"y", None));
    }
}
