//! Three plain ways to choose a provider, for comparison.
//!
//! Owns: their orders. Must not: have a patience of their own: only the choice is compared.

use cocoon_protocol::offer::Load;
use cocoon_protocol::selection::{Candidate, Policy, View};

/// Any provider that fits, each as likely as the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random;

impl Policy for Random {
    fn order(&self, candidates: &mut [Candidate], view: &View<'_>) {
        candidates.sort_by_key(|it| drawn(view, it));
    }
}

/// The lowest cost of an ordinary job, whatever the provider's past; a draw decides among equals.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cheapest;

impl Policy for Cheapest {
    fn order(&self, candidates: &mut [Candidate], view: &View<'_>) {
        candidates.sort_by_key(|it| (it.likely_cost, drawn(view, it)));
    }
}

/// The lowest time to first token that is known from own experience, among those that do not say
/// that they are full; a draw decides among equals. Who is unknown counts as fast, so that
/// everybody gets tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct LowestLatency;

impl Policy for LowestLatency {
    fn order(&self, candidates: &mut [Candidate], view: &View<'_>) {
        for candidate in &mut *candidates {
            candidate.score = candidate.standing.first_token_ms;
        }
        let full = |it: &Candidate| it.load >= Load::Full;
        candidates.sort_by(|a, b| {
            let by_time = full(a).cmp(&full(b)).then(a.score.total_cmp(&b.score));
            by_time.then_with(|| drawn(view, a).cmp(&drawn(view, b)))
        });
    }
}

/// A number for this candidate that follows from the job's draw.
fn drawn(view: &View<'_>, candidate: &Candidate) -> u64 {
    scattered(view.draw, candidate)
}

/// A number for a candidate that looks random and follows from a seed: `splitmix64` (Steele, Lea
/// and Flood, OOPSLA 2014) over the seed and the first bytes of the id.
pub(super) fn scattered(seed: u64, candidate: &Candidate) -> u64 {
    let head = candidate.provider.as_bytes().first_chunk::<8>();
    let id = u64::from_be_bytes(head.copied().unwrap_or_default());
    let mut z = (seed ^ id).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
