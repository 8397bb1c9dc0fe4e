//! `compare.html`: distributions of all groups over each other, means with intervals, the whole table.
//!
//! Owns: which figures get a plot. Must not: compute statistics.

use super::{Comparison, Verdict, words};
use crate::figures::Figure;
use crate::histogram::Histogram;
use crate::html::{Picture, Section, charts, is_share, page, table};
use crate::plot::{Axis, DotRow, Dots, compact, escape, ticks_linear};
use crate::results::{Curves, Results};

/// Figures that get a plot of means, if a group has them.
const PLOTTED: [&str; 10] = [
    "success",
    "first_token_p50_ms",
    "first_token_p99_ms",
    "duration_p50_ms",
    "cost_nanoton",
    "income_gini",
    "tokens_per_second",
    "traffic_per_host",
    "jobs_lost_to_adversaries",
    "adversary_damage_ton",
];

pub(super) fn html(comparison: &Comparison) -> String {
    let names: Vec<_> = comparison.groups.iter().map(|it| it.label.as_str()).collect();
    let first = comparison.groups.first().and_then(|it| it.runs.first());
    let seeds: std::collections::BTreeSet<u64> =
        comparison.groups.iter().flat_map(|it| &it.runs).map(|it| it.about.seed).collect();
    let seeds: Vec<_> = seeds.iter().map(u64::to_string).collect();
    let facts = [
        ("scenario", first.map_or(String::new(), |it| it.about.scenario.clone())),
        ("tier", first.map_or(String::new(), |it| it.about.tier.clone())),
        ("commit", first.map_or(String::new(), |it| it.about.commit.chars().take(12).collect())),
        ("seeds", seeds.join(", ")),
    ];
    let facts: Vec<_> = facts.into_iter().map(|it| (it.0.to_owned(), it.1)).collect();
    let interrupted =
        comparison.groups.iter().flat_map(|it| &it.runs).any(|it| it.ending.interrupted);
    let mut warnings = Vec::new();
    if interrupted {
        warnings.push(
            "At least one run was interrupted and is compared up to where it came.".to_owned(),
        );
    }
    let plots = PLOTTED.iter().filter_map(|key| dots(comparison, Figure::named(key)?));
    let sections = [
        Section {
            title: "Distributions".to_owned(),
            intro: "All seeds of a group together.".to_owned(),
            pictures: distributions(comparison),
            more: String::new(),
        },
        Section {
            title: "Means over seeds".to_owned(),
            intro: "Dot and bar: mean over seeds and its 95 % interval. Faint dots: single seeds. Axes begin where the values do.".to_owned(),
            pictures: plots.collect(),
            more: String::new(),
        },
        Section {
            title: "All figures".to_owned(),
            intro: String::new(),
            pictures: Vec::new(),
            more: figures(comparison),
        },
    ];
    page(&names.join(" / "), "Comparison of simulated runs", &facts, &warnings, &[], &sections)
}

fn distributions(comparison: &Comparison) -> Vec<Picture> {
    let merged = |of: fn(&Curves) -> &Histogram| -> Vec<(String, Histogram)> {
        let merge = |runs: &[Results]| {
            let mut all = Histogram::default();
            runs.iter().for_each(|it| all.merge(of(&it.curves)));
            all
        };
        comparison.groups.iter().map(|it| (it.label.clone(), merge(&it.runs))).collect()
    };
    let picture = |key: &str, title: &str, label: &str, of: fn(&Curves) -> &Histogram| {
        let merged = merged(of);
        let curves: Vec<_> = merged.iter().map(|it| (it.0.clone(), &it.1)).collect();
        let said: Vec<_> = curves.iter().filter_map(|it| charts::in_short(&it.0, it.1)).collect();
        let text = format!("{}.", said.join("; "));
        charts::distributions(key, title, text, label, 1e6, &curves).map(|it| charts::picture(&it))
    };
    let since = "time since submission [s], logarithmic";
    [
        picture("first-token", "Time to the first token", since, |it| &it.first_token_us),
        picture("whole-job", "Time to the receipt", since, |it| &it.duration_us),
        picture("route-ready", "Route ready", "time [s], logarithmic", |it| &it.route_ready_us),
        picture("session-open", "Session open", "time [s], logarithmic", |it| &it.session_open_us),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A figure of all groups as dots with intervals.
fn dots(comparison: &Comparison, figure: &'static Figure) -> Option<Picture> {
    let row = comparison.rows.iter().find(|it| it.figure.key == figure.key)?;
    let scale = words::scale(is_share(figure));
    let mut rows = Vec::new();
    for (group, mean) in comparison.groups.iter().zip(&row.means) {
        let Some(mean) = mean else { continue };
        let values = group.runs.iter().filter_map(|it| figure.value(&it.summary, &it.ending));
        rows.push(DotRow {
            name: group.label.clone(),
            mean: mean.mean * scale,
            ends: mean.ends.map(|it| (it.0 * scale, it.1 * scale)),
            values: values.map(|it| it * scale).collect(),
            shown: words::mean(figure, Some(mean)),
        });
    }
    let all = || {
        let ends = rows.iter().filter_map(|it| it.ends).flat_map(|it| [it.0, it.1]);
        ends.chain(rows.iter().flat_map(|it| it.values.iter().copied()))
    };
    let (least, most) =
        (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    if !least.is_finite() || !most.is_finite() {
        return None;
    }
    let (axis, ticks) = ticks_linear(least, most, false, compact);
    let unit = words::unit(figure);
    let label = if unit.is_empty() {
        figure.label.to_owned()
    } else {
        format!("{} [{unit}]", figure.label)
    };
    let plot = Dots {
        key: format!("mean-{}", figure.key),
        title: capital(figure.label),
        description: format!(
            "{}, by group: mean over seeds and its 95 % interval.",
            capital(figure.label)
        ),
        x: Axis { label, scale: axis, ticks },
        rows,
    };
    Some(Picture {
        key: plot.key.clone(),
        title: plot.title.clone(),
        caption: String::new(),
        svg: plot.svg(),
        wide: false,
    })
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |it| it.to_uppercase().chain(letters).collect())
}

fn figures(comparison: &Comparison) -> String {
    let mut head = vec!["figure".to_owned(), "unit".to_owned()];
    for (number, group) in comparison.groups.iter().enumerate() {
        head.push(format!("{} (n = {})", group.label, group.runs.len()));
        if number > 0 {
            head.push("difference".to_owned());
        }
    }
    let rows = comparison.rows.iter().map(|row| {
        let mut cells = vec![escape(row.figure.label), escape(words::unit(row.figure))];
        for (number, value) in row.means.iter().enumerate() {
            cells.push(escape(&words::mean(row.figure, value.as_ref())));
            if number > 0 {
                let between = row.differences.get(number).and_then(Option::as_ref);
                let text = escape(&words::difference(row.figure, between));
                cells.push(match Verdict::of(row.figure, between) {
                    Verdict::Better => format!("<span class=\"better\">{text}</span>"),
                    Verdict::Worse => format!("<span class=\"worse\">{text}</span>"),
                    Verdict::Different | Verdict::Unclear => text,
                });
            }
        }
        cells
    });
    let numbers: Vec<usize> = (2..head.len()).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    format!(
        "{}<p>Mean over seeds ± half of Student's 95 % interval. Differences are paired by seed, against the first group: * better, ! worse, ~ different with 95 % confidence.</p>",
        table(&head, &rows.collect::<Vec<_>>(), &numbers)
    )
}
