//! Providers that did not prove a tier above `attested`, and may serve in a lower one all the same.
//!
//! Owns: how long that is remembered, and of how many. Must not: judge evidence.

use crate::attest::Tier;
use crate::flat::FlatMap;
use crate::identity::NodeId;
use crate::limits;
use crate::units::Timestamp;

/// Providers remembered. When full, the one that would be forgotten first makes room.
const CAPACITY: usize = 256;

#[derive(Debug)]
struct Refused {
    /// It proves less than this.
    tier: Tier,
    until: Timestamp,
    reason: String,
}

/// Who need not be asked for a tier again for the life of an offer.
#[derive(Debug)]
pub(super) struct Unproved(FlatMap<NodeId, Refused>);

impl Unproved {
    pub(super) const fn new() -> Self {
        Self(FlatMap::new())
    }

    /// The provider's evidence was refused for this tier.
    pub(super) fn remember(&mut self, peer: NodeId, tier: Tier, reason: &str, now: Timestamp) {
        self.forget(now);
        while self.0.len() >= CAPACITY && !self.0.contains_key(&peer) {
            let first = self.0.iter().min_by_key(|(_, refused)| refused.until);
            let Some(first) = first.map(|(peer, _)| *peer) else { break };
            self.0.remove(&first);
        }
        let (until, reason) = (now.after(limits::OFFER_LIFETIME), reason.to_owned());
        self.0.insert(peer, Refused { tier, until, reason });
    }

    /// Those that do not prove this tier, and why.
    pub(super) fn at(&self, tier: Tier, now: Timestamp) -> impl Iterator<Item = (NodeId, &str)> {
        let refused = self.0.iter().filter(move |(_, it)| it.tier <= tier && now < it.until);
        refused.map(|(peer, refused)| (*peer, refused.reason.as_str()))
    }

    fn forget(&mut self, now: Timestamp) {
        let over = self.0.iter().filter(|(_, refused)| refused.until <= now);
        for peer in over.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.0.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NodeKey;
    use crate::units::Millis;

    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

    fn id(seed: u16) -> NodeId {
        let mut secret = [7; 32];
        secret[..2].copy_from_slice(&seed.to_be_bytes());
        NodeKey::from_secret(&secret).id()
    }

    #[test]
    fn a_refusal_holds_for_its_tier_and_above_and_ends() {
        let mut unproved = Unproved::new();
        unproved.remember(id(1), Tier::Confidential, "why", NOW);
        let at = |tier, now| unproved.at(tier, now).collect::<Vec<_>>();
        assert_eq!(at(Tier::Confidential, NOW), [(id(1), "why")]);
        assert_eq!(at(Tier::Attested, NOW), []);
        assert_eq!(at(Tier::Confidential, NOW.after(limits::OFFER_LIFETIME)), []);
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut unproved = Unproved::new();
        for seed in 0..=256 {
            let now = NOW.after(Millis::new(u64::from(seed)));
            unproved.remember(id(seed), Tier::Confidential, "why", now);
        }
        let known: Vec<_> = unproved.at(Tier::Confidential, NOW).map(|(peer, _)| peer).collect();
        assert_eq!(known.len(), CAPACITY);
        assert!(!known.contains(&id(0)) && known.contains(&id(256)));
    }
}
