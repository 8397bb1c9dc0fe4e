//! A histogram of whole numbers that is small, mergeable, and the same on every machine.
//!
//! Owns: buckets of at most 1/128 of their value, and quantiles from them. Must not: use floating
//! point where it counts: only a bucket's middle, when it is read, is an approximation.
//!
//! The layout is that of HdrHistogram (<https://hdrhistogram.org>) with seven bits: values under 256
//! are exact, a larger one is known to 1 part in 256. Merging is adding counts, so that the result
//! does not depend on the order or on how a run was split.

use serde::{Deserialize, Serialize};

/// Buckets of one power of two: 2^7, so that a bucket's middle is at most 0.4 % off.
const BITS: u32 = 7;

/// Counts of values by logarithmic bucket, with exact count, sum, minimum and maximum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Packed", into = "Packed")]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: u128,
    least: u64,
    most: u64,
}

/// What is stored of a histogram: buckets that hold something, as (bucket, count).
#[derive(Serialize, Deserialize)]
struct Packed {
    sum: String,
    least: u64,
    most: u64,
    buckets: Vec<(u32, u64)>,
}

impl From<Histogram> for Packed {
    fn from(histogram: Histogram) -> Self {
        let buckets = (0_u32..).zip(&histogram.counts).filter(|it| *it.1 > 0).map(|(i, n)| (i, *n));
        Self {
            sum: histogram.sum.to_string(),
            least: histogram.least,
            most: histogram.most,
            buckets: buckets.collect(),
        }
    }
}

impl From<Packed> for Histogram {
    fn from(packed: Packed) -> Self {
        let mut histogram = Self {
            sum: packed.sum.parse().unwrap_or(0),
            least: packed.least,
            most: packed.most,
            ..Self::default()
        };
        // A file cannot make this larger than the buckets of all 64-bit numbers.
        for (bucket, count) in
            packed.buckets.into_iter().filter(|it| it.0 < bucket_of(u64::MAX) + 1)
        {
            *histogram.slot(bucket) += count;
            histogram.count += count;
        }
        histogram
    }
}

fn bucket_of(value: u64) -> u32 {
    let exponent = u64::BITS - 1 - (value | 1).leading_zeros();
    let shift = exponent.saturating_sub(BITS);
    // The shifted value has at most eight bits.
    shift * (1 << BITS) + u32::try_from(value >> shift).unwrap_or(0)
}

/// The least value of a bucket and how many values it holds.
fn range_of(bucket: u32) -> (u64, u64) {
    let shift = (bucket >> BITS).saturating_sub(1);
    let head = u64::from(bucket - shift * (1 << BITS));
    (head << shift, 1 << shift)
}

impl Histogram {
    fn slot(&mut self, bucket: u32) -> &mut u64 {
        let index = usize::try_from(bucket).unwrap_or(usize::MAX);
        if self.counts.len() <= index {
            self.counts.resize(index + 1, 0);
        }
        &mut self.counts[index]
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.least = if self.count == 0 { value } else { self.least.min(value) };
        self.most = self.most.max(value);
        self.count += 1;
        self.sum += u128::from(value);
        *self.slot(bucket_of(value)) += 1;
    }

    /// Takes back a value that was counted. Minimum and maximum stay those of all ever counted.
    pub fn forget(&mut self, value: u64) {
        let slot = self.slot(bucket_of(value));
        if *slot > 0 {
            *slot -= 1;
            self.count -= 1;
            self.sum = self.sum.saturating_sub(u128::from(value));
        }
        // Equal counts are equal histograms: no zeros at the end.
        while self.counts.last() == Some(&0) {
            self.counts.pop();
        }
    }

    /// Adds all that another has counted.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.least = if self.count == 0 { other.least } else { self.least.min(other.least) };
        self.most = self.most.max(other.most);
        self.count += other.count;
        self.sum += other.sum;
        for (bucket, count) in (0_u32..).zip(&other.counts) {
            if *count > 0 {
                *self.slot(bucket) += count;
            }
        }
    }

    /// Forgets everything and keeps its memory.
    pub fn clear(&mut self) {
        self.counts.clear();
        (self.count, self.sum, self.least, self.most) = (0, 0, 0, 0);
    }

    /// How many values.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, exactly.
    pub const fn sum(&self) -> u128 {
        self.sum
    }

    /// The least value, exactly; `None` if there is none.
    pub fn least(&self) -> Option<u64> {
        (self.count > 0).then_some(self.least)
    }

    /// The greatest value, exactly; `None` if there is none.
    pub fn most(&self) -> Option<u64> {
        (self.count > 0).then_some(self.most)
    }

    /// Their mean; `None` if there is none.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// The quantile `per_mille / 1000` by nearest rank: the middle of the bucket of the smallest
    /// value that at least so many are not above, within the exact minimum and maximum.
    /// At most 1/256 off. `None` if there is no value.
    pub fn quantile(&self, per_mille: u32) -> Option<u64> {
        let rank = (u128::from(self.count) * u128::from(per_mille.min(1000))).div_ceil(1000).max(1);
        let mut seen = 0_u128;
        for (bucket, count) in (0_u32..).zip(&self.counts) {
            seen += u128::from(*count);
            if *count > 0 && seen >= rank {
                let (low, width) = range_of(bucket);
                return Some((low + (width - 1) / 2).clamp(self.least, self.most));
            }
        }
        None
    }

    /// Points of the cumulative distribution: (upper end of a bucket, share of values up to it),
    /// one for each bucket that holds something.
    pub fn cumulative(&self) -> Vec<(u64, f64)> {
        let mut seen = 0;
        let filled = (0_u32..).zip(&self.counts).filter(|it| *it.1 > 0);
        filled
            .map(|(bucket, count)| {
                seen += count;
                let (low, width) = range_of(bucket);
                (low.saturating_add(width - 1).min(self.most), seen as f64 / self.count as f64)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket_and_the_bucket_is_narrow(value: u64) {
            let (low, width) = range_of(bucket_of(value));
            prop_assert!(low <= value && value - low < width);
            prop_assert!(width == 1 || width <= value >> BITS);
        }

        #[test]
        fn quantiles_are_within_one_part_in_256(
            mut values in prop::collection::vec(0_u64..1 << 40, 1..200),
            per_mille in 0_u32..=1000,
        ) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|it| histogram.record(*it));
            values.sort_unstable();
            let rank = (values.len() * per_mille as usize).div_ceil(1000).max(1);
            let (exact, read) = (values[rank - 1], histogram.quantile(per_mille).unwrap());
            prop_assert!(exact.abs_diff(read) <= exact / 256 + 1, "{exact} {read}");
            prop_assert_eq!(histogram.sum(), values.iter().map(|it| u128::from(*it)).sum());
        }

        #[test]
        fn merging_is_recording_together_and_storing_loses_nothing(
            one in prop::collection::vec(0_u64..1 << 50, 0..50),
            two in prop::collection::vec(0_u64..1 << 50, 0..50),
        ) {
            let of = |values: &[u64]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|it| histogram.record(*it));
                histogram
            };
            let mut merged = of(&one);
            merged.merge(&of(&two));
            let together = of(&[one, two].concat());
            prop_assert_eq!(&merged, &together);
            let stored = serde_json::to_string(&merged).unwrap();
            prop_assert_eq!(serde_json::from_str::<Histogram>(&stored).unwrap(), merged);
        }
    }

    #[test]
    fn a_forgotten_value_no_longer_counts() {
        let mut histogram = Histogram::default();
        [10, 20, 30].into_iter().for_each(|it| histogram.record(it));
        histogram.forget(30);
        assert_eq!((histogram.count(), histogram.sum()), (2, 30));
        assert_eq!(histogram.quantile(1000), Some(20));
    }
}
