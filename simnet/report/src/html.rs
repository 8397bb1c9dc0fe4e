//! `report.html`: one self-contained page a run, for a screen in light or dark and for paper.
//!
//! Owns: the order of the page, its style, and what is in its header. Must not: fetch anything, run a
//! script, or hold a fact of the machine.

pub(crate) mod charts;
mod page;

pub(crate) use page::{Picture, Section, Tile, page, table};

use crate::figures::{FIGURES, Figure};
use crate::plot::{compact, escape};
use crate::results::Results;

/// Figures that stand at the top, if the run has them.
const TILES: [&str; 8] = [
    "success",
    "first_token_p50_ms",
    "first_token_p99_ms",
    "tokens_per_second",
    "cost_nanoton",
    "income_gini",
    "traffic_per_host",
    "adversary_damage_ton",
];

/// A figure as a person reads it, without its unit; shares as percent.
pub(crate) fn shown(figure: &Figure, value: f64) -> String {
    if is_share(figure) { format!("{}\u{202f}%", compact(value * 100.0)) } else { compact(value) }
}

/// Figures that are shares of one.
pub(crate) fn is_share(figure: &Figure) -> bool {
    matches!(figure.key, "success" | "session_failures" | "victim_success" | "attested_success")
}

/// The whole page.
pub fn report(results: &Results) -> String {
    let about = &results.about;
    let title = if about.variant.is_empty() {
        about.scenario.clone()
    } else {
        format!("{} · {}", about.scenario, about.variant)
    };
    let mut facts = vec![
        ("seed".to_owned(), about.seed.to_string()),
        ("tier".to_owned(), about.tier.clone()),
        ("commit".to_owned(), about.commit.chars().take(12).collect()),
        ("virtual time".to_owned(), duration(results.ending.at_us)),
        ("warm-up left out".to_owned(), duration(results.summary.warm_up_us)),
        ("hosts".to_owned(), population(results)),
        ("events".to_owned(), compact_count(results.ending.events)),
        ("trace".to_owned(), results.ending.trace.chars().take(16).collect()),
    ];
    facts.retain(|it| !it.1.is_empty());
    let mut warnings = Vec::new();
    if results.ending.interrupted {
        warnings.push(
            "The run was interrupted: everything here is up to the virtual time above.".into(),
        );
    }
    if results.summary.violations > 0 {
        warnings.push(format!(
            "{} invariants did not hold: see the table `violations`.",
            results.summary.violations
        ));
    }
    let tiles = TILES.iter().filter_map(|key| {
        let figure = Figure::named(key)?;
        let value = figure.value(&results.summary, &results.ending)?;
        Some(Tile {
            label: figure.label.to_owned(),
            value: shown(figure, value),
            unit: figure.unit.to_owned(),
        })
    });
    let mut sections = charts::sections(results);
    sections.push(Section {
        title: "All figures".to_owned(),
        intro: String::new(),
        pictures: Vec::new(),
        more: figures(results),
    });
    sections.push(Section {
        title: "Provenance".to_owned(),
        intro: String::new(),
        pictures: Vec::new(),
        more: provenance(results),
    });
    page(&title, "Simulated run", &facts, &warnings, &tiles.collect::<Vec<_>>(), &sections)
}

/// The plots of the report as pictures of their own, by name.
pub fn plots(results: &Results) -> Vec<(String, String)> {
    let sections = charts::sections(results);
    let pictures = sections.into_iter().flat_map(|it| it.pictures);
    pictures.map(|it| (it.key.clone(), page::standalone(&it.svg))).collect()
}

fn compact_count(count: u64) -> String {
    compact(count as f64)
}

fn population(results: &Results) -> String {
    let who = &results.summary.population;
    let mut text = format!(
        "{} ({} providers, {} consumers",
        compact_count(who.hosts),
        compact_count(who.providers),
        compact_count(who.consumers)
    );
    if who.adversaries > 0 {
        text.push_str(&format!(", {} adversaries", compact_count(who.adversaries)));
    }
    text.push(')');
    text
}

/// Virtual time in words.
pub(crate) fn duration(micros: u64) -> String {
    let seconds = micros as f64 / 1e6;
    match seconds {
        it if it >= 2.0 * 3600.0 => format!("{} h", compact(it / 3600.0)),
        it if it >= 300.0 => format!("{} min", compact(it / 60.0)),
        it => format!("{} s", compact(it)),
    }
}

fn figures(results: &Results) -> String {
    let rows = FIGURES.iter().filter_map(|figure| {
        let value = figure.value(&results.summary, &results.ending)?;
        Some(vec![
            escape(figure.label),
            shown(figure, value),
            escape(figure.unit),
            format!("<code>{}</code>", figure.key),
        ])
    });
    table(&["figure", "value", "unit", "in result.json"], &rows.collect::<Vec<_>>(), &[1])
}

fn provenance(results: &Results) -> String {
    let rows = results.tables.iter().map(|it| {
        vec![
            format!("<code>{}</code>", escape(&it.name)),
            compact_count(it.rows),
            compact_count(it.stands_for),
            format!("<code>{}</code>", escape(it.hash.get(..16).unwrap_or(&it.hash))),
        ]
    });
    let tables =
        table(&["table", "rows", "stand for", "content hash"], &rows.collect::<Vec<_>>(), &[1, 2]);
    format!(
        "<p>Equal scenario, seed and build give this page byte for byte. Trace <code>{}</code>, scenario <code>{}</code>, commit <code>{}</code>. \
         What the columns mean is in <code>schema.json</code>.</p>{tables}<details><summary>The scenario, defaults included</summary><pre>{}</pre></details>",
        escape(&results.ending.trace),
        escape(&results.about.scenario_hash),
        escape(&results.about.commit),
        escape(&results.about.scenario_text)
    )
}
