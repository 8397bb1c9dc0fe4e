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
