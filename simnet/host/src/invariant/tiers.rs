//! No prompt reaches a host whose genuine tier is under the tier that was asked for.
//!
//! Owns: the comparison. Must not: take a claim for the truth: the simulator knows it.

use cocoon_protocol::attest::Tier;

use super::Verdict;

pub(super) const NAME: &str = "tier-asked";

pub(super) fn sent(asked: Tier, genuine: Tier) -> Verdict {
    if genuine >= asked {
        return Ok(());
    }
    Err(format!("a prompt for tier {asked:?} went to a host of tier {genuine:?}"))
}
