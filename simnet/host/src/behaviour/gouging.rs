//! A provider that raises its prices on whoever has come to depend on it.
//!
//! Owns: the gouger's pricing policy. Must not: break a promise: an offer's price holds for jobs that
//! refer to it, and a job's cap is the consumer's.

use cocoon_protocol::pricing::{Level, Policy, Utilisation};
use cocoon_protocol::units::Millis;

/// Doubles at every look while it is in use at all, up to a bound, and falls back to the owner's
/// prices when nobody comes: bait, then bite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gouging {
    /// The highest level.
    pub most: Level,
    /// Time between two raises.
    pub review_every: Millis,
}

impl Policy for Gouging {
    fn next(&self, level: Level, seen: Utilisation) -> Level {
        if seen.permille == 0 {
            return Level::OWNER;
        }
        Level::from_parts(level.parts().saturating_mul(2)).min(self.most).max(Level::OWNER)
    }

    fn review_every(&self) -> Option<Millis> {
        Some(self.review_every)
    }
}
