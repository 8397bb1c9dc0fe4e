//! A host's own clock: the run's clock, an epoch and a skew.
//!
//! Owns: the way between virtual time and the protocol's timestamps. Must not: know a wall clock.

use cocoon_protocol::units::Timestamp;
use simnet_scenario::Moment;

/// Unix time at which every run starts, in milliseconds: 15 January 2027, 08:00 UTC. Far enough
/// from zero for every skew, and in every run the same.
const EPOCH_MILLIS: i64 = 1_800_000_000_000;

/// A host's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    skew_ms: i64,
}

impl Clock {
    /// A clock that shows the run's time plus this many milliseconds.
    pub const fn new(skew_ms: i64) -> Self {
        Self { skew_ms }
    }

    /// What it shows at a moment of the run.
    pub fn timestamp(self, at: Moment) -> Timestamp {
        let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
        let shown = EPOCH_MILLIS.saturating_add(self.skew_ms).saturating_add(millis);
        Timestamp::from_unix_millis(u64::try_from(shown).unwrap_or(0))
    }

    /// The first moment at which it shows this; the start of the run for what is over by then.
    pub fn moment(self, shown: Timestamp) -> Moment {
        let shown = i64::try_from(shown.as_unix_millis()).unwrap_or(i64::MAX);
        let millis = shown.saturating_sub(EPOCH_MILLIS).saturating_sub(self.skew_ms);
        Moment::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for skew in [-90_000, 0, 1, 90_000] {
            let clock = Clock::new(skew);
            let at = Moment::from_millis(123_456);
            assert_eq!(clock.moment(clock.timestamp(at)), at);
            let between = Moment::from_nanos(at.as_nanos() + 999_999);
            assert_eq!(clock.timestamp(between), clock.timestamp(at), "whole milliseconds");
        }
    }

    #[test]
    fn what_is_over_is_now() {
        assert_eq!(Clock::new(0).moment(Timestamp::EPOCH), Moment::START);
        assert_eq!(Clock::new(0).moment(Timestamp::MAX), Moment::NEVER);
    }
}
