//! The only way out to the terminal: results on standard output, all else on standard error.
//!
//! Owns: both streams, and how a table is set. Must not: decide what is said.

use std::io::Write as _;

/// A line of a result. A reader that has gone (`| head`) is no error.
pub(crate) fn out(text: &str) {
    let _gone = writeln!(std::io::stdout(), "{text}");
}

/// A line for the person at the terminal.
pub(crate) fn note(text: &str) {
    let _gone = writeln!(std::io::stderr(), "{text}");
}

/// Lines of columns: the first left-aligned, the others right-aligned.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|it| width(it).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(place, (cell, width))| match place {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
