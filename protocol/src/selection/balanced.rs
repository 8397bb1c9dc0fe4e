//! The network's own policy: expected cost, and the worth of the time it takes, by what is known.
//!
//! Owns: the score. Must not: prefer who fails fast, or remember anything.

use super::{Candidate, Policy, View};
use crate::offer::Load;
use crate::units::NanoTon;

/// What a second of waiting is worth, in nanoTON: 0.00001 TON. With it, a provider that answers a
/// second sooner may cost as much as 100 tokens at 0.1 TON per million more.
const NANO_TON_PER_SECOND: f64 = 10_000.0;
/// Candidates within this factor of the best score are as good as the best: the draw decides
/// between them, so that equal providers share the load.
const AS_GOOD: f64 = 1.25;
/// A busy provider counts as this many times slower to start.
const BUSY_FACTOR: f64 = 3.0;

/// What a new channel costs beside the job that opens it: an allocation's gas, 0.00075 TON, spread
/// over fifty jobs.
const OPENING_NANO_TON: f64 = 15_000.0;
/// How long the job that opens a channel waits for it: two blocks.
const OPENING_SECONDS: f64 = 2.0;

/// How much more a probability of success counts for each provider that was lost with the job: as a
/// power, so that one that always serves stays what it is.
const CERTAINTY: u32 = 2;

/// Cost of an ordinary job and the worth of the time that it is expected to take, divided by the
/// probability that it succeeds; among candidates as good as the best, the better of two drawn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Balanced;

impl Policy for Balanced {
    fn order(&self, candidates: &mut [Candidate], view: &View<'_>) {
        for candidate in &mut *candidates {
            candidate.score = score(candidate, view.lost);
        }
        lead(candidates, view.draw);
    }
}

fn score(candidate: &Candidate, lost: u32) -> f64 {
    let slowdown = match candidate.load {
        Load::Idle => 1.0,
        Load::Busy => BUSY_FACTOR,
        Load::Full | Load::Draining => BUSY_FACTOR * BUSY_FACTOR,
    };
    let standing = candidate.standing;
    let likely = f64::from(candidate.likely_completion.get());
    let seconds = (standing.first_token_ms * slowdown + standing.per_token_ms * likely) / 1_000.0;
    let opening = if candidate.funded {
        0.0
    } else {
        OPENING_NANO_TON + OPENING_SECONDS * NANO_TON_PER_SECOND
    };
    let served = nano(candidate.likely_cost) + seconds * NANO_TON_PER_SECOND + opening;
    // An answer that broke off has fewer attempts left: what is cheap and often fails is no bargain.
    let certainty = CERTAINTY.saturating_mul(lost).saturating_add(1);
    let success = standing.success.powi(i32::try_from(certainty).unwrap_or(i32::MAX));
    // Before a job succeeds, so many attempts fail, and each takes its time.
    let failures = (1.0 - success) / success;
    let wasted = failures * standing.attempt_ms / 1_000.0 * NANO_TON_PER_SECOND;
    served / success + wasted
}

/// Amounts above 2^53 nanoTON (9 million TON) lose precision, which only blurs the order.
fn nano(amount: NanoTon) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a score, not an amount")]
    let value = amount.as_nano() as f64;
    value
}

/// Best first; among those as good as the best, the better of two drawn ones leads.
fn lead(candidates: &mut [Candidate], draw: u64) {
    candidates.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.provider.cmp(&b.provider)));
    let bound = candidates.first().map_or(0.0, |best| best.score * AS_GOOD);
    let equals = candidates.iter().take_while(|candidate| candidate.score <= bound).count();
    let pick = |draw: u64| {
        let equals = u64::try_from(equals).unwrap_or(1).max(1);
        usize::try_from(draw.checked_rem(equals).unwrap_or(0)).unwrap_or(0)
    };
    let leader = pick(draw).min(pick(draw >> 32));
    if let Some(led) = candidates.get_mut(..=leader) {
        led.rotate_right(1);
    }
}
