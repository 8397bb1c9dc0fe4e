//! A table as comma-separated values (RFC 4180, but lines end in a newline alone).
//!
//! Owns: quoting and the spelling of numbers. Must not: know which tables there are.

use std::io::{self, Write};

use super::batch::{Batch, Cell};
use crate::schema::Table;

/// The line of the columns' names.
pub(super) fn head(out: &mut impl Write, table: &Table) -> io::Result<()> {
    let names: Vec<_> = table.columns.iter().map(|it| it.name).collect();
    writeln!(out, "{}", names.join(","))
}

/// The rows of a batch.
pub(super) fn rows(out: &mut impl Write, batch: &Batch) -> io::Result<()> {
    batch.for_each_row(|row| {
        for (index, cell) in row.iter().enumerate() {
            if index > 0 {
                out.write_all(b",")?;
            }
            match *cell {
                Cell::Empty => {}
                Cell::Integer(value) => write!(out, "{value}")?,
                Cell::Real(value) => write!(out, "{value}")?,
                Cell::Flag(value) => write!(out, "{value}")?,
                Cell::Text(text) if text.is_empty() || text.contains(['"', ',', '\n', '\r']) => {
                    write!(out, "\"{}\"", text.replace('"', "\"\""))?;
                }
                Cell::Text(text) => out.write_all(text.as_bytes())?,
            }
        }
        out.write_all(b"\n")
    })
}
