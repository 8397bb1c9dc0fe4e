//! Randomness of a run: every stream follows from the seed, a label and an index.
//!
//! Owns: how streams are kept apart, so that one more draw in one place moves nothing elsewhere.
//! Must not: touch the operating system's randomness, or let the last bit of a logarithm decide: what
//! comes out of a distribution is rounded to whole microseconds or tokens at once.

use std::sync::LazyLock;
use std::time::Duration;

use blake3::hazmat::{ContextKey, HasherExt as _, hash_derive_key_context};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use rand_distr::{Distribution as _, Exp1, Gamma, StandardNormal, Weibull};

/// The seed of a run. The same seed and scenario give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream of draws for one purpose (`label`) of one thing (`index`: a host, a link, …).
    pub fn stream(self, label: &str, index: u64) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.bytes(label, index))
    }

    /// 32 bytes for one purpose of one thing: keys, and seeds of parts that draw by themselves.
    pub fn bytes(self, label: &str, index: u64) -> [u8; 32] {
        static CONTEXT: LazyLock<ContextKey> =
            LazyLock::new(|| hash_derive_key_context("cocoon simnet draw v1"));
        let mut hasher = blake3::Hasher::new_from_context_key(&CONTEXT);
        // In one piece where it fits a block of the hash, as all labels do: each piece costs as much.
        let mut block = [0; 64];
        let (head, tail) = block.split_at_mut(16);
        head.copy_from_slice(&(u128::from(self.0) << 64 | u128::from(index)).to_be_bytes());
        if let Some(name) = tail.get_mut(..label.len()) {
            name.copy_from_slice(label.as_bytes());
            hasher.update(block.get(..16 + label.len()).unwrap_or_default());
        } else {
            hasher.update(head);
            hasher.update(label.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// The longest time that is drawn: 400 days, longer than any run.
const LONGEST_US: f64 = 400.0 * 86_400.0 * 1e6;

/// A whole number below `bound`, each equally likely to within 2^-64; zero for a bound of zero.
pub fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    let product = u128::from(rng.next_u64()) * u128::from(bound);
    u64::try_from(product >> 64).unwrap_or(0)
}

/// From 0 to 1, one not included, in steps of 2^-53.
#[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
pub fn fraction(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Puts a list into random order.
pub fn shuffle<T>(rng: &mut ChaCha8Rng, list: &mut [T]) {
    for last in (1..list.len()).rev() {
        let other = below(rng, u64::try_from(last + 1).unwrap_or(u64::MAX));
        list.swap(last, usize::try_from(other).unwrap_or(last));
    }
}

/// A place in a list of weights, each as likely as its weight; `None` where all are zero.
pub fn weighted(rng: &mut ChaCha8Rng, weights: &[f64]) -> Option<usize> {
    let sum: f64 = weights.iter().sum();
    let mut left = fraction(rng) * sum;
    let mut last = None;
    for (place, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        last = Some(place);
        if left < *weight {
            break;
        }
        left -= weight;
    }
    last
}

/// How many of `count` each weight gets: as close to its share as whole numbers allow, so that a
/// small population has the mix that was asked for. The largest remainders are rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count is not larger than the count"
)]
pub fn quota(weights: &[f64], count: u32) -> Vec<u32> {
    let sum: f64 = weights.iter().sum();
    if sum <= 0.0 {
        return vec![0; weights.len()];
    }
    let exact: Vec<f64> = weights.iter().map(|it| it / sum * f64::from(count)).collect();
    let mut quota: Vec<u32> = exact.iter().map(|it| it.floor() as u32).collect();
    let mut left = count.saturating_sub(quota.iter().sum());
    let mut order: Vec<usize> = (0..weights.len()).collect();
    let rest = |place: usize| exact.get(place).map_or(0.0, |it| it - it.floor());
    order.sort_by(|a, b| rest(*b).total_cmp(&rest(*a)).then(a.cmp(b)));
    for place in order {
        if left == 0 {
            break;
        }
        if let Some(it) = quota.get_mut(place) {
            *it += 1;
            left -= 1;
        }
    }
    quota
}

/// Whole microseconds; what is no length of time is none, and none is longer than 400 days.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded on the line above"
)]
fn micros(value: f64) -> Duration {
    let bounded = if value > 0.0 { value.min(LONGEST_US) } else { 0.0 };
    Duration::from_micros(bounded.round() as u64)
}

/// The wait until the next of independent events that come `per_second`.
pub fn wait(rng: &mut ChaCha8Rng, per_second: f64) -> Duration {
    let draw: f64 = Exp1.sample(rng);
    if per_second > 0.0 { micros(draw / per_second * 1e6) } else { micros(LONGEST_US) }
}

/// A time with a log-normal distribution.
pub fn log_normal(rng: &mut ChaCha8Rng, median: Duration, sigma: f64) -> Duration {
    let draw: f64 = StandardNormal.sample(rng);
    micros(median.as_secs_f64() * 1e6 * (sigma * draw).exp())
}

/// A number of tokens with a log-normal distribution.
pub fn log_normal_tokens(rng: &mut ChaCha8Rng, median: u32, sigma: f64) -> u32 {
    let draw: f64 = StandardNormal.sample(rng);
    let tokens = (f64::from(median) * (sigma * draw).exp()).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let tokens = tokens as u32;
    tokens
}

/// A time with a Weibull distribution of this median.
pub fn weibull(rng: &mut ChaCha8Rng, median: Duration, shape: f64) -> Duration {
    // The median of Weibull(scale, shape) is scale · ln(2)^(1/shape).
    let scale = median.as_secs_f64() * 1e6 / std::f64::consts::LN_2.powf(1.0 / shape);
    Weibull::new(scale, shape).map_or(median, |it| micros(it.sample(rng)))
}

/// What is left of a time with that distribution for somebody who is met in the middle of it. Long
/// ones are met more often: their lengths, to the power of the shape, follow a gamma distribution.
pub fn weibull_rest(rng: &mut ChaCha8Rng, median: Duration, shape: f64) -> Duration {
    let scale = median.as_secs_f64() * 1e6 / std::f64::consts::LN_2.powf(1.0 / shape);
    let Ok(gamma) = Gamma::new(1.0 + 1.0 / shape, 1.0) else { return median };
    let whole = scale * gamma.sample(rng).powf(1.0 / shape);
    micros(whole * fraction(rng))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rng() -> ChaCha8Rng {
        Seed(7).stream("test", 0)
    }

    #[test]
    fn a_label_of_any_length_is_hashed_as_its_bytes() {
        for length in [0, 1, 48, 49, 200] {
            let label = "x".repeat(length);
            let mut hasher = blake3::Hasher::new_derive_key("cocoon simnet draw v1");
            hasher.update(&7_u64.to_be_bytes()).update(&9_u64.to_be_bytes());
            hasher.update(label.as_bytes());
            assert_eq!(Seed(7).bytes(&label, 9), *hasher.finalize().as_bytes(), "{length}");
        }
    }

    #[test]
    fn medians_are_what_was_asked_for() {
        let mut rng = rng();
        let hour = Duration::from_secs(3_600);
        let mut sessions: Vec<_> = (0..20_001).map(|_| weibull(&mut rng, hour, 0.6)).collect();
        sessions.sort();
        let median = sessions[10_000].as_secs_f64();
        assert!((median - 3_600.0).abs() < 200.0, "{median}");
        assert!(sessions[19_000] > hour * 8, "heavy-tailed: {:?}", sessions[19_000]);
        let mut miles: Vec<_> =
            (0..20_001).map(|_| log_normal(&mut rng, Duration::from_millis(14), 0.35)).collect();
        miles.sort();
        assert!((miles[1_000].as_secs_f64() - 0.008).abs() < 0.001, "{:?}", miles[1_000]);
        assert!((miles[19_000].as_secs_f64() - 0.025).abs() < 0.001, "{:?}", miles[19_000]);
        let waits: Duration = (0..20_000).map(|_| wait(&mut rng, 4.0)).sum();
        assert!((waits.as_secs_f64() / 20_000.0 - 0.25).abs() < 0.01);
    }

    #[test]
    fn streams_of_different_purposes_differ() {
        let draw = |label, index| Seed(1).stream(label, index).next_u64();
        assert_eq!(draw("a", 0), draw("a", 0));
        assert_ne!(draw("a", 0), draw("b", 0));
        assert_ne!(draw("a", 0), draw("a", 1));
        assert_ne!(Seed(1).bytes("a", 0), Seed(2).bytes("a", 0));
    }

    proptest! {
        #[test]
        fn quotas_add_up_and_are_within_one_of_the_share(weights in prop::collection::vec(0.0..100.0f64, 1..20), count in 0..100_000u32) {
            prop_assume!(weights.iter().sum::<f64>() > 0.0);
            let quota = quota(&weights, count);
            prop_assert_eq!(quota.iter().sum::<u32>(), count);
            let sum: f64 = weights.iter().sum();
            for (share, weight) in quota.iter().zip(&weights) {
                prop_assert!((f64::from(*share) - weight / sum * f64::from(count)).abs() <= 1.0 + 1e-6);
            }
        }

        #[test]
        fn a_zero_weight_is_never_drawn(seed: u64) {
            let mut rng = Seed(seed).stream("weights", 0);
            prop_assert_eq!(weighted(&mut rng, &[0.0, 3.0, 0.0]), Some(1));
            prop_assert_eq!(weighted(&mut rng, &[0.0]), None);
            prop_assert!(below(&mut rng, 5) < 5);
        }

        #[test]
        fn a_shuffle_keeps_what_is_there(seed: u64, length in 0..50u32) {
            let mut list: Vec<u32> = (0..length).collect();
            shuffle(&mut Seed(seed).stream("shuffle", 0), &mut list);
            list.sort_unstable();
            prop_assert_eq!(list, (0..length).collect::<Vec<_>>());
        }
    }
}
