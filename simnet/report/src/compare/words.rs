//! A comparison in words: a table for a terminal, a table in Markdown.
//!
//! Owns: how intervals and verdicts are spelled. Must not: colour; a terminal's owner may not want it.

use std::fmt::Write as _;

use super::{Comparison, Verdict};
use crate::figures::Figure;
use crate::html::is_share;
use crate::plot::{compact, grouped};
use crate::statistics::Interval;

/// What stands below every table.
const NOTE: &str = "Mean over seeds ± half of Student's 95 % interval. Differences are paired by seed, against the first column; \
* better, ! worse, ~ different with 95 % confidence.";

/// A figure's value in the unit that is shown; shares as percent.
pub(super) const fn scale(share: bool) -> f64 {
    if share { 100.0 } else { 1.0 }
}

/// A figure's unit as it is shown.
pub(super) fn unit(figure: &Figure) -> &str {
    if is_share(figure) { "%" } else { figure.unit }
}

/// A mean and half of its interval.
pub(super) fn mean(figure: &Figure, interval: Option<&Interval>) -> String {
    let scale = scale(is_share(figure));
    match interval {
        None => "–".to_owned(),
        Some(it) => match it.half() {
            None => compact(it.mean * scale),
            Some(half) => plus_minus(it.mean * scale, half * scale),
        },
    }
}

/// A value and half of its interval with the same decimals: two digits of the interval count.
fn plus_minus(mean: f64, half: f64) -> String {
    if half <= 0.0 {
        return format!("{} ± 0", compact(mean));
    }
    let mut places = 0_usize;
    let mut unit = 10.0;
    while half < unit && places < 9 {
        places += 1;
        unit /= 10.0;
    }
    let sign = if mean < 0.0 { "−" } else { "" };
    let with_groups = |value: f64| {
        let text = format!("{value:.places$}");
        match text.split_once('.') {
            Some((whole, part)) => format!("{}.{part}", grouped(whole)),
            None => grouped(&text),
        }
    };
    format!("{sign}{} ± {}", with_groups(mean.abs()), with_groups(half))
}

/// A difference with its sign, half of its interval, and its verdict.
pub(super) fn difference(figure: &Figure, interval: Option<&Interval>) -> String {
    let Some(it) = interval else { return "–".to_owned() };
    let sign = if it.mean > 0.0 { "+" } else { "" };
    let mark = match Verdict::of(figure, interval) {
        Verdict::Better => " *",
        Verdict::Worse => " !",
        Verdict::Different => " ~",
        Verdict::Unclear => "",
    };
    format!("{sign}{}{mark}", mean(figure, interval))
}

fn cells(comparison: &Comparison) -> Vec<Vec<String>> {
    let mut head = vec!["figure".to_owned(), "unit".to_owned()];
    for (number, group) in comparison.groups.iter().enumerate() {
        let seeds = group.runs.len();
        head.push(format!(
            "{} ({seeds} {})",
            group.label,
            if seeds == 1 { "seed" } else { "seeds" }
        ));
        if number > 0 {
            head.push("difference".to_owned());
        }
    }
    let mut rows = vec![head];
    for row in &comparison.rows {
        let mut cells = vec![row.figure.label.to_owned(), unit(row.figure).to_owned()];
        for (number, value) in row.means.iter().enumerate() {
            cells.push(mean(row.figure, value.as_ref()));
            if number > 0 {
                let between = row.differences.get(number).and_then(Option::as_ref);
                cells.push(difference(row.figure, between));
            }
        }
        rows.push(cells);
    }
    rows
}

pub(super) fn text(comparison: &Comparison) -> String {
    let rows = cells(comparison);
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let letters = rows.iter().filter_map(|it| it.get(column)).map(|it| it.chars().count());
        letters.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let space = " ".repeat(width.saturating_sub(cell.chars().count()));
            if column < 2 {
                let _ = write!(line, "{cell}{space}  ");
            } else {
                let _ = write!(line, "{space}{cell}  ");
            }
        }
        let _ = writeln!(out, "{}", line.trim_end());
        if number == 0 {
            let rule: usize = widths.iter().map(|it| it + 2).sum();
            let _ = writeln!(out, "{}", "─".repeat(rule.saturating_sub(2)));
        }
    }
    let _ = writeln!(out, "\n{NOTE}");
    out
}

pub(super) fn markdown(comparison: &Comparison) -> String {
    let mut out = String::new();
    for (number, row) in cells(comparison).iter().enumerate() {
        let cells: Vec<_> = row.iter().map(|it| it.replace('|', "\\|")).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
        if number == 0 {
            let right = "|---:".repeat(row.len().saturating_sub(2));
            let _ = writeln!(out, "|---|---{right}|");
        }
    }
    let _ = writeln!(out, "\n{}", NOTE.replace('*', "\\*").replace('~', "\\~"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_decimals_of_its_interval() {
        let shown =
            [(38_247.4, 938.2), (-0.0964, 0.0163), (93.481, 0.714), (5.0, 0.0), (0.5, 31.2)];
        let expected = "38\u{202f}247 ± 938|−0.096 ± 0.016|93.48 ± 0.71|5 ± 0|0 ± 31";
        assert_eq!(shown.map(|it| plus_minus(it.0, it.1)).join("|"), expected);
    }
}
