//! The only way out: data to standard output, everything else to standard error.
//!
//! Owns: both streams, tables, and how ids and times are shown.
//! Must not: depend on colour or a terminal.

use std::fmt::Display;
use std::io::{self, Write as _};

use cocoon_protocol::units::{Millis, Timestamp};
use serde::Serialize;

use super::failure::Failure;
use crate::config::{Shown, TextValue};

/// Hexadecimal digits of an id in a table: enough to be unique on one machine, and accepted
/// wherever an id is asked for.
pub(crate) const SHORT_ID_DIGITS: usize = 16;

/// The program's output.
#[derive(Debug, Default)]
pub(crate) struct Printer;

impl Printer {
    /// A line of data.
    pub(crate) fn line(&self, text: impl Display) -> Result<(), Failure> {
        Ok(writeln!(io::stdout().lock(), "{text}")?)
    }

    /// Data as it is, without a line feed of its own.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// Data as indented JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(Failure::new)?;
        self.line(text)
    }

    /// A table; nothing but its name when it has no rows.
    pub(crate) fn table(
        &self,
        name: &str,
        columns: &[&str],
        rows: &[Vec<String>],
    ) -> Result<(), Failure> {
        for line in table(name, columns, rows) {
            self.line(line)?;
        }
        Ok(())
    }

    /// Something for the user, not for a script.
    pub(crate) fn note(&self, text: impl Display) {
        // Nobody is left to tell when standard error is gone.
        let _ = write!(io::stderr().lock(), "{text}");
    }
}

fn table(name: &str, columns: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    if rows.is_empty() {
        return vec![format!("{name}: none")];
    }
    let header: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let all = || std::iter::once(&header).chain(rows);
    let width = |column: usize| {
        let cells = all().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let lines = all().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end())
    });
    std::iter::once(format!("{name}: {}", rows.len())).chain(lines).collect()
}

/// The first digits of an id.
pub(crate) fn short(id: impl Display) -> String {
    id.to_string().chars().take(SHORT_ID_DIGITS).collect()
}

/// A setting's value as the user writes it: `devnet`.
pub(crate) fn word(value: &impl TextValue) -> String {
    match value.shown() {
        Shown::Text(text) => text,
        other @ (Shown::Unset
        | Shown::Integer(_)
        | Shown::Boolean(_)
        | Shown::List(_)
        | Shown::Redacted) => format!("{other:?}"),
    }
}

/// A length of time in words, in its largest unit: `3 h`.
pub(crate) fn roughly(length: Millis) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];
    let millis = length.get();
    let fitting = units.iter().find(|(_, unit)| millis >= *unit);
    fitting.map_or_else(
        || "0 s".to_owned(),
        |(name, unit)| format!("{} {name}", millis.checked_div(*unit).unwrap_or(millis)),
    )
}

/// A time as RFC 3339 has it, in UTC and to the second: `2026-11-22T12:40:08Z`.
pub(crate) fn utc(time: Timestamp) -> String {
    let seconds = time.as_unix_secs();
    // Anything later than the year 9999 is not a time of ours.
    let seconds = seconds.min(253_402_300_799);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date by Howard Hinnant's `civil_from_days`, for days from 1970 on: eras of 400
    // years (146,097 days) that begin on 1 March, so that the leap day is a year's last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let rows = [vec!["a".into(), "long".into()], vec!["bcd".into(), "x".into()]];
        assert_eq!(
            table("peers", &["NODE", "IN"], &rows),
            ["peers: 2", "  NODE  IN", "  a     long", "  bcd   x"]
        );
        assert_eq!(table("peers", &["NODE"], &[]), ["peers: none"]);
    }

    #[test]
    fn times_are_as_date_prints_them() {
        // Checked with `date -u -d @N +%FT%TZ`.
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_795_351_208, "2026-11-22T12:40:08Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(utc(Timestamp::from_unix_secs(seconds)), text);
        }
    }

    #[test]
    fn lengths_of_time_are_rough() {
        assert_eq!(roughly(Millis::new(0)), "0 s");
        assert_eq!(roughly(Millis::new(999)), "999 ms");
        assert_eq!(roughly(Millis::from_secs(119)), "1 min");
        assert_eq!(roughly(Millis::from_secs(200_000)), "2 d");
    }
}
