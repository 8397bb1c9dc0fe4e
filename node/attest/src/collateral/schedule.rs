//! When endorsements are fetched again.
//!
//! Owns: the two waits, after a success and after a failure. Must not: wait, or read a clock.

use cocoon_protocol::units::{Millis, Timestamp};

/// At least once a day: revocations and new firmware levels are published long before old documents
/// end, and consumers bound the documents' age.
const LONGEST: Millis = Millis::from_secs(24 * 3600);
/// However soon they end.
const SHORTEST: Millis = Millis::from_secs(600);
/// After a first failure; doubled with each further one.
const FIRST_FAILURE: Millis = Millis::from_secs(60);
/// After many failures.
const LAST_FAILURE: Millis = Millis::from_secs(3600);

/// How long to wait after a success: a third of what is left, so that two more tries fit before the
/// end even when each takes its whole wait.
pub(super) fn after_success(now: Timestamp, expires: Timestamp) -> Millis {
    let third = expires.since(now).get() / 3;
    Millis::new(third.clamp(SHORTEST.get(), LONGEST.get()))
}

/// How long to wait after `failures` in a row, at least as long as the service asked for. `random`
/// shortens it by up to a quarter, so that providers that failed together do not return together.
pub(super) fn after_failure(failures: u32, asked: Option<Millis>, random: u16) -> Millis {
    let doubled = FIRST_FAILURE.get().saturating_mul(1 << failures.saturating_sub(1).min(16));
    let wait = doubled.min(LAST_FAILURE.get());
    let less = wait / 4 * u64::from(random) / u64::from(u16::MAX);
    Millis::new(wait.saturating_sub(less)).max(asked.unwrap_or(Millis::new(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_is_repeated_long_before_its_end_and_never_hastily() {
        let now = Timestamp::from_unix_secs(1_000_000);
        let after = |seconds| after_success(now, now.after(Millis::from_secs(seconds)));
        assert_eq!(after(30 * 24 * 3600), LONGEST);
        assert_eq!(after(9 * 3600), Millis::from_secs(3 * 3600));
        assert_eq!(after(60), SHORTEST);
        assert_eq!(after_success(now, Timestamp::EPOCH), SHORTEST);
    }

    #[test]
    fn failures_back_off_to_an_hour_and_heed_the_service() {
        let plain: Vec<_> = (1..9).map(|n| after_failure(n, None, 0).get() / 1000).collect();
        assert_eq!(plain, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(after_failure(u32::MAX, None, 0), LAST_FAILURE);
        assert_eq!(after_failure(1, None, u16::MAX), Millis::from_secs(45));
        let asked = Some(Millis::from_secs(5000));
        assert_eq!(after_failure(1, asked, 0), Millis::from_secs(5000));
    }
}
