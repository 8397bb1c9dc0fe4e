//! Statistics over small samples: seeds, hosts.
//!
//! Owns: quantiles, intervals, paired differences, inequality; all by plain arithmetic in a fixed order.
//! Must not: draw from anything but a seed that is written here.

/// The quantile of sorted values by linear interpolation (type 7 of Hyndman and Fan 1996, numpy's default);
/// `None` without values.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = share.clamp(0.0, 1.0) * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the last index"
    )]
    let low = place.floor() as usize;
    let (below, above) = (sorted.get(low)?, sorted.get((low + 1).min(last))?);
    Some((above - below).mul_add(place - place.floor(), *below))
}

/// The Gini coefficient of sorted values that are not negative; `None` if they sum to nothing.
pub fn gini(sorted: &[f64]) -> Option<f64> {
    let (count, sum) = (sorted.len() as f64, sorted.iter().sum::<f64>());
    let weighted: f64 = (1_u64..).zip(sorted).map(|(rank, it)| rank as f64 * it).sum();
    (sum > 0.0).then(|| (2.0 * weighted / (count * sum) - (count + 1.0) / count).max(0.0))
}

/// The Lorenz curve of values that are not negative: share of hosts from the poorest, share of the sum.
/// `points` and the origin, or empty if the values sum to nothing.
pub fn lorenz(values: &[f64], points: usize) -> Vec<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let sum: f64 = sorted.iter().sum();
    if sum <= 0.0 {
        return Vec::new();
    }
    let points = points.clamp(1, sorted.len());
    let mut curve = vec![(0.0, 0.0)];
    let (mut taken, mut held) = (0, 0.0);
    for point in 1..=points {
        let until = sorted.len() * point / points;
        held += sorted.get(taken..until).unwrap_or_default().iter().sum::<f64>();
        taken = until;
        curve.push((taken as f64 / sorted.len() as f64, held / sum));
    }
    curve
}

/// A mean with the interval that holds the true mean with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// How many values.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Lower and upper end; `None` with fewer than two values.
    pub ends: Option<(f64, f64)>,
}

impl Interval {
    /// Half its width; `None` with fewer than two values.
    pub fn half(&self) -> Option<f64> {
        self.ends.map(|it| (it.1 - it.0) / 2.0)
    }

    /// Whether the interval lies wholly on one side of zero.
    pub fn excludes_zero(&self) -> bool {
        self.ends.is_some_and(|it| it.0 > 0.0 || it.1 < 0.0)
    }
}

/// Student's interval of the mean at 95 %; `None` without values.
///
/// Right when the mean is about normal, as over seeds: each value is already taken over many jobs.
pub fn mean_interval(values: &[f64]) -> Option<Interval> {
    if values.is_empty() {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let ends = (values.len() > 1).then(|| {
        let squares: f64 = values.iter().map(|it| (it - mean) * (it - mean)).sum();
        let half = student_95(values.len() - 1) * (squares / (count - 1.0) / count).sqrt();
        (mean - half, mean + half)
    });
    Some(Interval { count: values.len(), mean, ends })
}

/// The interval of the mean of `second − first` over pairs: two runs with equal seed and scenario share
/// their demand, their churn and their places on the map, so that their difference varies much less than each.
pub fn paired_interval(pairs: &[(f64, f64)]) -> Option<Interval> {
    let differences: Vec<f64> = pairs.iter().map(|it| it.1 - it.0).collect();
    mean_interval(&differences)
}

/// The percentile bootstrap at 95 % of any figure of a sample, from 2,000 resamples drawn from `seed`: for
/// figures whose mean is far from normal. `None` without values.
pub fn bootstrap_interval(
    values: &[f64],
    seed: simnet_scenario::Seed,
    figure: impl Fn(&[f64]) -> f64,
) -> Option<Interval> {
    use rand_core::Rng as _;
    const RESAMPLES: usize = 2000;
    let count = u64::try_from(values.len()).ok().filter(|it| *it > 0)?;
    let mut draws = seed.stream("bootstrap", 0);
    let mut resample = Vec::with_capacity(values.len());
    let mut figures = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        resample.clear();
        for _ in values {
            let place = usize::try_from(draws.next_u64() % count).unwrap_or(0);
            resample.extend(values.get(place));
        }
        figures.push(figure(&resample));
    }
    figures.sort_unstable_by(f64::total_cmp);
    let ends = quantile(&figures, 0.025).zip(quantile(&figures, 0.975));
    Some(Interval { count: values.len(), mean: figure(values), ends })
}

/// The 97.5 % quantile of Student's distribution: from the usual table up to 30 degrees of freedom, beyond
/// by the expansion of Cornish and Fisher (Abramowitz and Stegun 26.7.5), right to 1e-5.
fn student_95(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912, 2.364_624, 2.306_004,
        2.262_157, 2.228_139, 2.200_985, 2.178_813, 2.160_369, 2.144_787, 2.131_450, 2.119_905,
        2.109_816, 2.100_922, 2.093_024, 2.085_963, 2.079_614, 2.073_873, 2.068_658, 2.063_899,
        2.059_539, 2.055_529, 2.051_831, 2.048_407, 2.045_230, 2.042_272,
    ];
    let in_table = freedom.checked_sub(1).and_then(|it| TABLE.get(it));
    in_table.copied().unwrap_or_else(|| {
        let (z, n) = (1.959_963_984_540_054_f64, freedom as f64);
        let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
        z + (z3 + z) / (4.0 * n)
            + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * n * n)
            + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * n * n * n)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(ours: f64, theirs: f64) {
        assert!((ours - theirs).abs() <= 1e-6 * theirs.abs().max(1.0), "{ours} is not {theirs}");
    }

    fn numbers(value: &serde_json::Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect()
    }

    #[test]
    fn figures_are_those_of_numpy_and_scipy() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../tests/vectors/statistics.json")).unwrap();
        for case in vectors["cases"].as_array().unwrap() {
            let (one, two) = (numbers(&case["one"]), numbers(&case["two"]));
            let interval = mean_interval(&one).unwrap();
            close(interval.mean, case["mean"].as_f64().unwrap());
            let theirs = numbers(&case["interval"]);
            close(interval.ends.unwrap().0, theirs[0]);
            close(interval.ends.unwrap().1, theirs[1]);
            let pairs: Vec<_> = one.iter().copied().zip(two).collect();
            let paired = paired_interval(&pairs).unwrap().ends.unwrap();
            let theirs = numbers(&case["paired"]);
            close(paired.0, theirs[0]);
            close(paired.1, theirs[1]);
            let mut sorted = one;
            sorted.sort_unstable_by(f64::total_cmp);
            for (share, theirs) in case["quantiles"].as_object().unwrap() {
                let ours = quantile(&sorted, share.parse().unwrap()).unwrap();
                close(ours, theirs.as_f64().unwrap());
            }
            close(gini(&sorted).unwrap(), case["gini"].as_f64().unwrap());
        }
    }

    #[test]
    fn the_bootstrap_agrees_with_students_interval_on_many_values_and_with_itself() {
        let seed = simnet_scenario::Seed(1);
        let values: Vec<f64> = (0..400).map(|it| f64::from(it * 7919 % 1009)).collect();
        let mean = |it: &[f64]| it.iter().sum::<f64>() / it.len() as f64;
        let (low, high) = bootstrap_interval(&values, seed, mean).unwrap().ends.unwrap();
        let student = mean_interval(&values).unwrap();
        let half = student.half().unwrap();
        assert!((low - student.ends.unwrap().0).abs() < half * 0.2);
        assert!((high - student.ends.unwrap().1).abs() < half * 0.2);
        assert_eq!(
            bootstrap_interval(&values, seed, mean),
            bootstrap_interval(&values, seed, mean)
        );
    }

    proptest! {
        #[test]
        fn inequality_lies_between_equal_and_one_has_all(
            mut values in prop::collection::vec(0.0_f64..1e9, 1..60),
        ) {
            values.sort_unstable_by(f64::total_cmp);
            if let Some(gini) = gini(&values) {
                prop_assert!((0.0..1.0).contains(&gini));
                let curve = lorenz(&values, 100);
                prop_assert!(curve.windows(2).all(|it| it[0].1 <= it[1].1 + 1e-12));
                prop_assert!(curve.iter().all(|it| it.1 <= it.0 + 1e-9));
                prop_assert!((curve.last().unwrap().1 - 1.0).abs() < 1e-9);
                // The coefficient is twice the area between the curve and equality.
                let area: f64 =
                    curve.windows(2).map(|it| (it[1].0 - it[0].0) * (it[0].1 + it[1].1) / 2.0).sum();
                prop_assert!((1.0 - 2.0 * area - gini).abs() < 1e-6);
            }
        }

        #[test]
        fn a_difference_of_equal_pairs_is_nothing(values in prop::collection::vec(-1e6_f64..1e6, 2..20)) {
            let pairs: Vec<_> = values.iter().map(|it| (*it, *it)).collect();
            let paired = paired_interval(&pairs).unwrap();
            prop_assert_eq!(paired.mean, 0.0);
            prop_assert!(!paired.excludes_zero());
        }
    }
}
