//! `earnings` and `spend`: what jobs brought and cost, by day, model, peer or API key.
//!
//! Owns: dates, and the three forms of a report. Must not: add anything up but the total.

use anyhow::anyhow;
use cocoon_engine::catalogue::Catalogue;
use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::units::{NanoTon, Timestamp};
use serde::Serialize;

use super::output::{short, utc};
use super::{Context, Failure, unexpected};
use crate::control::{AccountLine, AccountQuery, Answer, Grouping, LinePurpose, Request};

const DAY_SECS: u64 = 86_400;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What a line stands for; several with commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "day")]
    by: Vec<Grouping>,
    /// First day (UTC), such as 2026-11-22; from the beginning by default.
    #[arg(long, value_name = "DATE", value_parser = date)]
    from: Option<Timestamp>,
    /// Last day (UTC), which is included; until now by default.
    #[arg(long, value_name = "DATE", value_parser = date)]
    to: Option<Timestamp>,
    /// Print JSON.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print a table for a spreadsheet; amounts in TON and in nanoTON.
    #[arg(long)]
    csv: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    lines: &'a [AccountLine],
    total_nano: NanoTon,
}

pub(super) fn run(context: &Context, provided: bool, arguments: &Arguments) -> Result<(), Failure> {
    let next_day = |last: Timestamp| Timestamp::from_unix_secs(last.as_unix_secs() + DAY_SECS);
    let query = AccountQuery {
        provided,
        from: arguments.from.unwrap_or(Timestamp::EPOCH),
        until: arguments.to.map(next_day),
        by: arguments.by.clone(),
    };
    let Answer::Accounts(lines) = context.ask(Request::Accounts(query))? else {
        return Err(unexpected());
    };
    let total = lines.iter().fold(NanoTon::ZERO, |sum, line| sum.saturating_add(line.amount));
    if arguments.json {
        return context.printer.json(&Report { lines: &lines, total_nano: total });
    }
    let catalogue = context.existing_folder()?;
    let catalogue = catalogue.and_then(|folder| Catalogue::load(&folder.models()).ok());
    let name = |model: ModelHash| {
        let known = catalogue.as_ref().and_then(|it| it.find(model));
        known.map_or_else(|| short(model), |(name, _)| name.to_owned())
    };
    if arguments.csv {
        return csv(context, &lines);
    }
    let printer = &context.printer;
    let rows: Vec<_> = lines.iter().map(|line| row(line, &arguments.by, name)).collect();
    let mut columns: Vec<_> = arguments.by.iter().map(|group| group.column()).collect();
    columns.extend(["FOR", "JOBS", "NO RECEIPT", "PROMPT", "COMPLETION", "AMOUNT"]);
    printer.table(if provided { "earnings" } else { "spend" }, &columns, &rows)?;
    printer.line(format_args!("total: {total}"))
}

fn row(line: &AccountLine, by: &[Grouping], name: impl Fn(ModelHash) -> String) -> Vec<String> {
    let none = || "-".to_owned();
    let group = |group: &Grouping| match group {
        Grouping::Day => line.day_start.map_or_else(none, day),
        Grouping::Model => line.model.map_or_else(none, &name),
        Grouping::Peer => line.peer.map_or_else(none, short),
        Grouping::Key => line.key.clone().unwrap_or_else(none),
    };
    let mut row: Vec<_> = by.iter().map(group).collect();
    row.extend([
        purpose(line.purpose).to_owned(),
        line.jobs.to_string(),
        line.without_receipt.to_string(),
        format!("{} tokens", line.prompt),
        format!("{} tokens", line.completion),
        line.amount.to_string(),
    ]);
    row
}

fn csv(context: &Context, lines: &[AccountLine]) -> Result<(), Failure> {
    let columns = "day,model,peer,key,for,jobs,without_receipt,prompt_tokens,completion_tokens,\
                   amount_ton,amount_nanoton";
    context.printer.line(columns)?;
    for line in lines {
        let amount = line.amount.to_string();
        // Digits, words and dates, and keys' names, which have no commas: nothing to quote.
        context.printer.line(format_args!(
            "{},{},{},{},{},{},{},{},{},{},{}",
            line.day_start.map(day).unwrap_or_default(),
            line.model.map(|model| model.to_string()).unwrap_or_default(),
            line.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            line.key.as_deref().unwrap_or_default().replace([',', '"', '\n'], "_"),
            purpose(line.purpose),
            line.jobs,
            line.without_receipt,
            line.prompt,
            line.completion,
            amount.trim_end_matches(" TON"),
            line.amount.as_nano(),
        ))?;
    }
    Ok(())
}

const fn purpose(purpose: LinePurpose) -> &'static str {
    match purpose {
        LinePurpose::Job => "jobs",
        LinePurpose::Debt => "debts",
        LinePurpose::Forgotten => "forgotten",
    }
}

fn day(start: Timestamp) -> String {
    utc(start).chars().take(10).collect()
}

/// The day that a date names, at its begin in UTC.
fn date(text: &str) -> anyhow::Result<Timestamp> {
    let wrong = || anyhow!("expected a date, such as 2026-11-22");
    let mut parts = text.split('-').map(str::parse::<u64>);
    let (Some(Ok(year)), Some(Ok(month)), Some(Ok(day_of_month)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return Err(wrong());
    }
    // Days to a date by Howard Hinnant's `days_from_civil`; years begin on 1 March.
    let shifted = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day_of_month.saturating_sub(1);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let start = Timestamp::from_unix_secs((era * 146_097 + day_of_era - 719_468) * DAY_SECS);
    // A day that its month does not have would come out as another.
    if day(start) == text { Ok(start) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_days_that_they_name() {
        for day_number in (0..40_000).step_by(13) {
            let start = Timestamp::from_unix_secs(day_number * DAY_SECS);
            assert_eq!(date(&day(start)).unwrap(), start);
        }
        for wrong in ["", "2026", "2026-02-30", "2026-13-01", "1969-12-31", "2026-1-1", "2026-11-0"]
        {
            assert!(date(wrong).is_err(), "{wrong}");
        }
    }
}
