//! How the next token is chosen from a model's logits: the one implementation of [`Sampling`].
//!
//! Owns: penalties, the filters, and a draw that anyone can repeat from the seed.
//! Must not: depend on an inference library, so that an auditor's draw is the provider's draw.
//!
//! The order is the one that [`Sampling`] documents. Draw number `n` of a job is computed from
//! `BLAKE3("cocoon/draw/v1" ‖ u64le(seed) ‖ u64le(n))` alone, so that an auditor who holds the
//! logits of one position can repeat that draw without those before it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use cocoon_protocol::job::Sampling;

const DRAW_DOMAIN: &[u8] = b"cocoon/draw/v1";

/// The state of one job's sampling.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// How often each token was chosen in this completion; kept only when penalties need it.
    counts: BTreeMap<u32, u16>,
    draws: u64,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: u32,
    logit: f32,
}

impl Candidate {
    /// Likeliest first; among equals the lower token, so that the order is total.
    fn by_likelihood(&self, other: &Self) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.token.cmp(&other.token))
    }
}

impl Sampler {
    /// A sampler at the beginning of a completion. `sampling` has passed [`Sampling::check`].
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, counts: BTreeMap::new(), draws: 0 }
    }

    /// A sampler behind the beginning of a completion: these tokens count as drawn, so that whoever takes
    /// over an answer draws as its first engine would have gone on.
    #[must_use]
    pub fn behind(mut self, begun: &[u32]) -> Self {
        for token in begun {
            self.count(*token);
        }
        let drawn = u64::try_from(begun.len()).unwrap_or(u64::MAX);
        self.draws = self.draws.saturating_add(drawn);
        self
    }

    fn count(&mut self, token: u32) {
        if self.penalises() {
            let count = self.counts.entry(token).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Chooses the next token; `logits` has one entry for each token of the vocabulary. `None` when
    /// no entry is finite, which only a broken model or computation causes.
    pub fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        let draw = self.draws;
        self.draws = draw.saturating_add(1);
        let token = if self.sampling.temperature <= 0.0 {
            self.candidates(logits)
                .min_by(Candidate::by_likelihood)
                .map(|likeliest| likeliest.token)
        } else {
            let mut candidates: Vec<_> = self.candidates(logits).collect();
            keep_top_k(&mut candidates, self.sampling.top_k);
            keep_top_p(&mut candidates, self.sampling.top_p);
            keep_min_p(&mut candidates, self.sampling.min_p);
            let uniform = uniform(self.sampling.seed, draw);
            pick(&mut candidates, self.sampling.temperature, uniform)
        }?;
        self.count(token);
        Some(token)
    }

    fn penalises(&self) -> bool {
        self.sampling.frequency_penalty != 0.0 || self.sampling.presence_penalty != 0.0
    }

    /// Every token with a finite logit, after penalties.
    fn candidates(&self, logits: &[f32]) -> impl Iterator<Item = Candidate> {
        (0_u32..).zip(logits).filter(|(_, logit)| logit.is_finite()).map(|(token, &logit)| {
            let logit = match self.counts.get(&token) {
                None => logit,
                Some(&count) => {
                    logit
                        - f32::from(count) * self.sampling.frequency_penalty
                        - self.sampling.presence_penalty
                }
            };
            Candidate { token, logit }
        })
    }
}

/// A number in [0, 1) with 53 bits from the seed and the number of the draw.
fn uniform(seed: u64, draw: u64) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DRAW_DOMAIN).update(&seed.to_le_bytes()).update(&draw.to_le_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    // 53 bits are exact in an f64: 21 from the high half, 32 from the low one.
    let bits = u64::from_le_bytes(bytes) >> 11;
    let high = u32::try_from(bits >> 32).unwrap_or(0);
    let low = u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    (f64::from(high) * 4_294_967_296.0 + f64::from(low)) / 9_007_199_254_740_992.0
}

fn highest(candidates: &[Candidate]) -> f32 {
    candidates.iter().fold(f32::NEG_INFINITY, |highest, candidate| highest.max(candidate.logit))
}

fn weight(candidate: &Candidate, highest: f32) -> f64 {
    f64::from(candidate.logit - highest).exp()
}

fn keep_top_k(candidates: &mut Vec<Candidate>, top_k: u32) {
    let kept = usize::try_from(top_k).unwrap_or(usize::MAX);
    if kept > 0 && kept < candidates.len() {
        candidates.select_nth_unstable_by(kept, Candidate::by_likelihood);
        candidates.truncate(kept);
    }
}

/// Keeps the likeliest whose probabilities reach `top_p`, at least one.
fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f32) {
    if top_p >= 1.0 {
        return;
    }
    let highest = highest(candidates);
    let total: f64 = candidates.iter().map(|candidate| weight(candidate, highest)).sum();
    let wanted = f64::from(top_p) * total;
    // Sorting a whole vocabulary for the few likeliest would cost more than the model's own step:
    // take those near the top, and go further down only while they do not suffice.
    let mut depth = 4.0_f32;
    let mut near: Vec<Candidate>;
    loop {
        let floor = highest - depth;
        near = candidates.iter().filter(|candidate| candidate.logit >= floor).copied().collect();
        let mass: f64 = near.iter().map(|candidate| weight(candidate, highest)).sum();
        if mass >= wanted || near.len() == candidates.len() {
            break;
        }
        depth *= 2.0;
    }
    near.sort_unstable_by(Candidate::by_likelihood);
    let mut mass = 0.0;
    let mut kept = 0_usize;
    for candidate in &near {
        mass += weight(candidate, highest);
        kept = kept.saturating_add(1);
        if mass >= wanted {
            break;
        }
    }
    near.truncate(kept);
    *candidates = near;
}

fn keep_min_p(candidates: &mut Vec<Candidate>, min_p: f32) {
    if min_p > 0.0 {
        let highest = highest(candidates);
        candidates.retain(|candidate| weight(candidate, highest) >= f64::from(min_p));
    }
}

/// Draws by inverting the distribution function over the candidates in order of their tokens.
fn pick(candidates: &mut [Candidate], temperature: f32, uniform: f64) -> Option<u32> {
    if !candidates.is_sorted_by_key(|candidate| candidate.token) {
        candidates.sort_unstable_by_key(|candidate| candidate.token);
    }
    let highest = highest(candidates);
    let heated = |candidate: &Candidate| {
        (f64::from(candidate.logit - highest) / f64::from(temperature)).exp()
    };
    let total: f64 = candidates.iter().map(heated).sum();
    let mut remaining = uniform * total;
    let mut last = None;
    for candidate in candidates.iter() {
        let weight = heated(candidate);
        if weight > 0.0 {
            last = Some(candidate.token);
            if remaining < weight {
                break;
            }
            remaining -= weight;
        }
    }
    // When rounding leaves a remainder, it falls to the last candidate with any weight.
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOGITS: [f32; 6] = [0.5, 2.0, -1.0, 1.5, f32::NEG_INFINITY, 0.0];

    fn sampling() -> Sampling {
        Sampling::with_seed(42)
    }

    fn many(sampling: Sampling, draws: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        (0..draws).map(|_| sampler.choose(&LOGITS).unwrap()).collect()
    }

    /// Golden: receipts commit to a seed, so the draws of a seed must never change.
    #[test]
    fn the_draws_of_a_seed_are_fixed() {
        assert_eq!(many(sampling(), 16), GOLDEN);
        let other = Sampling { seed: 43, ..sampling() };
        assert_ne!(many(other, 16), GOLDEN);
    }
    const GOLDEN: [u32; 16] = [3, 1, 1, 3, 1, 3, 3, 3, 1, 1, 1, 3, 3, 3, 1, 3];

    #[test]
    fn zero_temperature_takes_the_likeliest_and_the_lower_of_equals() {
        let greedy = Sampling { temperature: 0.0, ..sampling() };
        assert_eq!(Sampler::new(greedy).choose(&LOGITS), Some(1));
        assert_eq!(Sampler::new(greedy).choose(&[1.0, 3.0, 3.0]), Some(1));
    }

    #[test]
    fn broken_logits_are_no_token() {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(Sampling { temperature, ..sampling() });
            assert_eq!(sampler.choose(&[f32::NAN, f32::NEG_INFINITY]), None);
            assert_eq!(sampler.choose(&[]), None);
            assert_eq!(sampler.choose(&[f32::NAN, -5.0, f32::INFINITY]), Some(1));
        }
    }

    #[test]
    fn draws_follow_the_softmax() {
        let draws = many(Sampling { temperature: 0.7, ..sampling() }, 20_000);
        let total: f64 = LOGITS.iter().map(|&l| (f64::from(l) / 0.7).exp()).sum();
        for (token, &logit) in (0_u32..).zip(&LOGITS) {
            let expected = (f64::from(logit) / 0.7).exp() / total;
            let count = u32::try_from(draws.iter().filter(|&&t| t == token).count()).unwrap();
            let observed = f64::from(count) / 20_000.0;
            assert!((expected - observed).abs() < 0.015, "{token}: {expected} {observed}");
        }
    }

    #[test]
    fn filters_leave_what_they_say() {
        let distinct = |sampling| {
            let mut tokens = many(sampling, 500);
            tokens.sort_unstable();
            tokens.dedup();
            tokens
        };
        assert_eq!(distinct(Sampling { top_k: 2, ..sampling() }), [1, 3]);
        // Probabilities: 1 has 0.453, 3 has 0.275, 0 has 0.101, 5 has 0.061, 2 has 0.023.
        assert_eq!(distinct(Sampling { top_p: 0.4, ..sampling() }), [1]);
        assert_eq!(distinct(Sampling { top_p: 0.7, ..sampling() }), [1, 3]);
        assert_eq!(distinct(Sampling { top_p: 0.0, ..sampling() }), [1]);
        assert_eq!(distinct(Sampling { min_p: 0.3, ..sampling() }), [1, 3]);
        assert_eq!(distinct(Sampling { min_p: 1.0, ..sampling() }), [1]);
        // Top-p comes before the temperature: heat does not bring the others back.
        let hot = Sampling { top_p: 0.7, temperature: 2.0, ..sampling() };
        assert_eq!(distinct(hot), [1, 3]);
    }

    #[test]
    fn penalties_count_what_was_generated() {
        let greedy = Sampling { temperature: 0.0, ..sampling() };
        assert_eq!(many(Sampling { presence_penalty: 0.6, ..greedy }, 4), [1, 3, 1, 1]);
        assert_eq!(many(Sampling { frequency_penalty: 0.6, ..greedy }, 5), [1, 3, 1, 3, 1]);
        assert_eq!(many(Sampling { frequency_penalty: -1.0, ..greedy }, 3), [1, 1, 1]);
    }

    #[test]
    fn behind_a_beginning_the_draws_are_those_that_would_have_followed() {
        for penalty in [0.0, 0.6] {
            let sampling = Sampling { frequency_penalty: penalty, ..sampling() };
            let whole = many(sampling, 16);
            for at in 0..16 {
                let (begun, rest) = whole.split_at(at);
                let mut sampler = Sampler::new(sampling).behind(begun);
                let drawn: Vec<_> = rest.iter().map(|_| sampler.choose(&LOGITS).unwrap()).collect();
                assert_eq!(drawn, rest, "behind {at}");
            }
        }
    }

    #[test]
    fn a_draw_is_uniform_in_its_range() {
        let draws: Vec<f64> = (0..10_000).map(|draw| uniform(9, draw)).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02);
    }

    proptest! {
        #[test]
        fn a_choice_is_always_a_finite_entry(
            logits in prop::collection::vec(prop_oneof![
                any::<f32>(), -20.0_f32..20.0, Just(f32::NAN), Just(f32::NEG_INFINITY),
            ], 0..40),
            temperature in prop_oneof![Just(0.0_f32), 1e-30_f32..2.0],
            top_p in 0.0_f32..=1.0, top_k in 0_u32..50, min_p in 0.0_f32..=1.0,
            frequency_penalty in -2.0_f32..=2.0, presence_penalty in -2.0_f32..=2.0, seed: u64,
        ) {
            let sampling = Sampling { temperature, top_p, top_k, min_p, frequency_penalty, presence_penalty, seed };
            let mut sampler = Sampler::new(sampling);
            for _ in 0..3 {
                match sampler.choose(&logits) {
                    Some(token) => prop_assert!(logits[usize::try_from(token).unwrap()].is_finite()),
                    None => prop_assert!(!logits.iter().any(|logit| logit.is_finite())),
                }
            }
        }
    }
}
