//! Plots of prices and of income.
//!
//! Owns: distributions as columns, the Lorenz curve. Must not: draw.

use super::{Picture, Series, count_axis, over_time, picture, real, share_axis};
use crate::histogram::Histogram;
use crate::plot::{Axis, HEIGHT, Mark, Plot, compact, ticks_linear};
use crate::results::Results;

pub(super) fn prices(results: &Results) -> Option<Picture> {
    let paid = &results.summary.money.paid_price_nanoton;
    density(
        "prices",
        "Price paid",
        format!(
            "What finished jobs cost per million tokens, prompt and completion together: median {} TON, 10 % below {}, 10 % above {}. The outermost half percent is not shown.",
            compact(real(paid.p50) / 1e9),
            compact(real(paid.p10) / 1e9),
            compact(real(paid.p90) / 1e9)
        ),
        "TON per million tokens",
        "jobs",
        &results.curves.paid_price_nanoton,
    )
}

pub(super) fn price_over_time(results: &Results) -> Option<Picture> {
    let plot = over_time(
        results,
        "price-over-time",
        "Offered price over time",
        "Median over all providers of the completion price that each offered last.".into(),
        |_, most| count_axis("TON per million tokens", most),
        &[Series { label: "", of: &|it, _| it.price_p50_nanoton.map(|it| real(it) / 1e9) }],
    )?;
    Some(picture(&plot))
}

pub(super) fn lorenz(results: &Results) -> Option<Picture> {
    let gini = results.summary.income_nanoton.gini?;
    let points = results.curves.income_lorenz.iter().map(|it| (it.0, Some(it.1))).collect();
    let plot = Plot {
        key: "lorenz".into(),
        title: "How income is spread".into(),
        description: format!(
            "Lorenz curve of honest providers, from the poorest: with equal incomes it is the dotted line. Gini coefficient {}.",
            compact(gini)
        ),
        x: share_axis("share of providers, poorest first", 0.0),
        y: share_axis("their share of all income", 0.0),
        marks: vec![
            Mark::Guide { from: (0.0, 0.0), to: (1.0, 1.0), label: String::new() },
            Mark::Line { label: String::new(), colour: 0, dash: 0, points },
        ],
        height: HEIGHT,
    };
    Some(picture(&plot))
}

pub(super) fn incomes(results: &Results) -> Option<Picture> {
    let income = &results.summary.income_nanoton;
    if income.hosts < 8 || income.sum <= 0.0 {
        return None;
    }
    density(
        "incomes",
        "Income of providers",
        format!(
            "What the vouchers that each honest provider holds promise: mean {} TON, median {}, 10 % below {}, 10 % above {}.",
            compact(income.mean / 1e9),
            compact(income.p50 / 1e9),
            compact(income.p10 / 1e9),
            compact(income.p90 / 1e9)
        ),
        "TON a provider",
        "providers",
        &results.curves.income_nanoton,
    )
}

fn density(
    key: &str,
    title: &str,
    description: String,
    label: &str,
    of_what: &str,
    histogram: &Histogram,
) -> Option<Picture> {
    let (mark, first, last, most) = columns(histogram, 1e9, 0)?;
    let (scale, ticks) = ticks_linear(first, last, false, compact);
    let (y_scale, y_ticks) =
        ticks_linear(0.0, most, true, |it| format!("{} %", compact(it * 100.0)));
    let plot = Plot {
        key: key.into(),
        title: title.into(),
        description,
        x: Axis { label: label.into(), scale, ticks },
        y: Axis { label: format!("share of {of_what}"), scale: y_scale, ticks: y_ticks },
        marks: vec![mark],
        height: HEIGHT,
    };
    Some(picture(&plot))
}

/// Columns of a histogram between its 0.5 % and 99.5 % quantiles.
fn columns(histogram: &Histogram, per: f64, colour: usize) -> Option<(Mark, f64, f64, f64)> {
    let (low, high) = (histogram.quantile(5)?, histogram.quantile(995)?);
    const COLUMNS: u64 = 32;
    let width = ((high - low) / COLUMNS).max(1);
    let (mut bars, mut below, mut most) = (Vec::new(), 0.0, 0.0_f64);
    let cumulative = histogram.cumulative();
    let share_up_to = |value: u64| {
        let place = cumulative.partition_point(|it| it.0 <= value);
        place.checked_sub(1).and_then(|it| cumulative.get(it)).map_or(0.0, |it| it.1)
    };
    let mut from = low.saturating_sub(1);
    // Zeros belong to the first column: many a provider has earned nothing.
    if low > 0 {
        below = share_up_to(from);
    }
    while from < high && bars.len() < 64 {
        let until = from + width;
        let share = share_up_to(until);
        bars.push((real(from) / per, real(until) / per, share - below));
        most = most.max(share - below);
        below = share;
        from = until;
    }
    let (first, last) = (bars.first()?.0, bars.last()?.1);
    Some((Mark::Columns { colour, bars }, first, last, most))
}
