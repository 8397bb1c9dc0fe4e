//! The tables of a result: every column with its type, unit and meaning.
//!
//! Owns: the one definition that the writers, `schema.json` and `docs/tables.md` follow.
//! Must not: know how a table is filled or stored.

use std::fmt::Write as _;

use serde::Serialize;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A whole number: 64 bits, signed, never negative unless its meaning says so.
    Integer,
    /// A floating-point number of 64 bits.
    Real,
    /// Text in UTF-8, one of few words unless its meaning says otherwise.
    Text,
    /// True or false.
    Flag,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name; ends in its unit where it has one.
    pub name: &'static str,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Its unit; empty for plain numbers and words.
    pub unit: &'static str,
    /// Whether it may be empty.
    pub nullable: bool,
    /// What it means, and when it is empty.
    pub meaning: &'static str,
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Its name, and that of its file.
    pub name: &'static str,
    /// What a row is.
    pub row: &'static str,
    /// In which order the rows stand.
    pub order: &'static str,
    /// The columns, in order.
    pub columns: &'static [Column],
}

const fn column(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    nullable: bool,
    meaning: &'static str,
) -> Column {
    Column { name, kind, unit, nullable, meaning }
}

const fn integer(name: &'static str, unit: &'static str, meaning: &'static str) -> Column {
    column(name, Kind::Integer, unit, false, meaning)
}

const fn integer_or_none(name: &'static str, unit: &'static str, meaning: &'static str) -> Column {
    column(name, Kind::Integer, unit, true, meaning)
}

const fn text(name: &'static str, meaning: &'static str) -> Column {
    column(name, Kind::Text, "", false, meaning)
}

const fn text_or_none(name: &'static str, meaning: &'static str) -> Column {
    column(name, Kind::Text, "", true, meaning)
}

const AT: Column = integer("at_us", "µs", "virtual time since the start of the run");
const WEIGHT: Column = integer(
    "weight",
    "rows",
    "how many of its kind this row stands for: 1 until the table's limit of rows, then 10, 100, …; weight sums and means by it",
);

/// One row a job.
pub const JOBS: Table = Table {
    name: "jobs",
    row: "a job that a user submitted",
    order: "by end; jobs that had not ended stand last, by number",
    columns: &[
        integer("job", "", "its number, in order of submission, from 0"),
        WEIGHT,
        integer("consumer", "host", "who submitted it"),
        integer("submitted_us", "µs", "virtual time of the submission"),
        text("model", "which model"),
        text(
            "minimum_tier",
            "the lowest tier that might see its prompt: open, attested, confidential",
        ),
        integer_or_none("provider", "host", "who got its prompt last; none if nobody did"),
        integer(
            "attempts",
            "",
            "providers that were tried, the last one included; 0 if it had not ended",
        ),
        integer_or_none(
            "first_token_us",
            "µs",
            "from submission to the first token at its reader; none if there was none",
        ),
        integer_or_none(
            "duration_us",
            "µs",
            "from submission to receipt or failure; none if it had not ended",
        ),
        integer(
            "prompt_tokens",
            "tokens",
            "tokens of the prompt, as charged; 0 unless it finished",
        ),
        integer(
            "completion_tokens",
            "tokens",
            "tokens of the completion, as charged; 0 unless it finished",
        ),
        integer("cost_nanoton", "nanoTON", "what its consumer promised for it"),
        integer("vouchers", "", "vouchers signed for it; 0 unless it finished"),
        text("outcome", "finished, failed, or unfinished when the run ended before it"),
        text_or_none(
            "reason",
            "why the completion ended, or why the job failed; none if unfinished",
        ),
    ],
};

/// One row a host.
pub const HOSTS: Table = Table {
    name: "hosts",
    row: "a host of the population, whether it ever ran or not",
    order: "by number",
    columns: &[
        integer("host", "host", "its number"),
        text("role", "consumer, provider, both, or relay for neither"),
        text("region", "where it stands"),
        text("class", "its hardware or kind"),
        text_or_none("adversary", "which adversary it is; none if it is honest"),
        integer("starts", "", "how often it started"),
        integer("crashes", "", "how often its process died"),
        integer("uptime_us", "µs", "how long it ran in all"),
        integer("jobs_submitted", "jobs", "jobs of its users"),
        integer("jobs_finished", "jobs", "jobs of its users that ended with a receipt"),
        integer("jobs_failed", "jobs", "jobs of its users that failed"),
        integer("jobs_served", "jobs", "jobs of others that it served to their receipt"),
        integer("prompts_received", "", "prompts that were sent to it, retries included"),
        integer("spend_nanoton", "nanoTON", "what it promised in all its channels"),
        integer(
            "income_nanoton",
            "nanoTON",
            "what the best vouchers that it holds promise, over all its channels",
        ),
        integer("settled_nanoton", "nanoTON", "what the ledger has paid it by the end"),
        integer("engine_us", "µs", "time of its engine's places that was used"),
        integer(
            "exposure_nanoton",
            "nanoTON",
            "the most that it had served in one job beyond what was paid",
        ),
    ],
};

/// One row an interval.
pub const SAMPLES: Table = Table {
    name: "samples",
    row: "an interval of virtual time of the network as a whole; jobs of adversaries are not in it",
    order: "by time",
    columns: &[
        integer("at_us", "µs", "virtual time of the interval's end"),
        integer("hosts", "hosts", "hosts that run"),
        integer(
            "connections",
            "",
            "open connections, each counted once; 0 in tiers that have none",
        ),
        integer("submitted", "jobs", "jobs submitted in the interval"),
        integer("finished", "jobs", "jobs that finished in the interval"),
        integer("failed", "jobs", "jobs that failed in the interval"),
        integer("running", "jobs", "jobs that have neither finished nor failed"),
        column(
            "success",
            Kind::Real,
            "",
            true,
            "finished / (finished + failed) of the interval; none if no job ended",
        ),
        integer(
            "completion_tokens",
            "tokens",
            "tokens of the completions of jobs that finished in the interval",
        ),
        integer_or_none(
            "first_token_p50_us",
            "µs",
            "median time to the first token, of first tokens of the interval; none without any",
        ),
        integer_or_none("first_token_p99_us", "µs", "99 % quantile of the same"),
        integer_or_none(
            "price_p50_nanoton",
            "nanoTON per 1,000,000 completion tokens",
            "median over all providers of the price that each offered last; none without offers",
        ),
        integer("sent_bytes", "bytes", "bytes sent in the interval, all protocols"),
        integer("crashed", "", "processes that died in the interval"),
    ],
};

/// One row an interval and protocol.
pub const TRAFFIC: Table = Table {
    name: "traffic",
    row: "what a protocol sent in an interval; protocols that sent nothing have no row",
    order: "by time, then by protocol",
    columns: &[
        integer("at_us", "µs", "virtual time of the interval's end"),
        text("protocol", "which protocol"),
        integer("bytes", "bytes", "bytes that it sent in the interval"),
        integer("total_bytes", "bytes", "bytes that it sent since the start"),
    ],
};

/// One row a dial.
pub const SESSIONS: Table = Table {
    name: "sessions",
    row: "a session that a consumer dialled",
    order: "by time",
    columns: &[
        AT,
        WEIGHT,
        integer("consumer", "host", "who dialled"),
        integer_or_none("provider", "host", "whom; none if it is no host of the population"),
        text("outcome", "open, unreachable, or refused when its evidence was not accepted"),
        integer_or_none("after_us", "µs", "from dial to accepted evidence; none unless open"),
    ],
};

/// One row a wish that was met.
pub const ROUTES: Table = Table {
    name: "routes",
    row: "the first offer of a model that reached a host that wanted it",
    order: "by time",
    columns: &[
        AT,
        WEIGHT,
        integer("host", "host", "who wanted it"),
        text("model", "which model"),
        integer("after_us", "µs", "since it was wanted"),
    ],
};

/// One row a payment of the ledger.
pub const SETTLEMENTS: Table = Table {
    name: "settlements",
    row: "a settlement that reached a provider's wallet",
    order: "by time",
    columns: &[
        AT,
        WEIGHT,
        integer("provider", "host", "who was paid"),
        integer_or_none(
            "consumer",
            "host",
            "from whose vault; none if that vault never promised anything",
        ),
        integer("epoch", "", "which allocation of the vault"),
        integer("step_nanoton", "nanoTON", "what this settlement paid"),
        integer("paid_nanoton", "nanoTON", "what the ledger has paid in the channel by now"),
    ],
};

/// One row a channel.
pub const CHANNELS: Table = Table {
    name: "channels",
    row: "a payment channel in which something was promised, held or paid",
    order: "by consumer, provider, epoch",
    columns: &[
        integer_or_none("consumer", "host", "who pays; none if its vault never promised anything"),
        integer_or_none("provider", "host", "who is paid; none if it is no host of the population"),
        integer("epoch", "", "which allocation of the vault"),
        integer("promised_nanoton", "nanoTON", "what the consumer's vouchers promise"),
        integer("held_nanoton", "nanoTON", "what the provider's best voucher promises"),
        integer("settled_nanoton", "nanoTON", "what the ledger has paid"),
    ],
};

/// One row a change of an offer.
pub const OFFERS: Table = Table {
    name: "offers",
    row: "an offer that differs from the provider's last one in load or price",
    order: "by time",
    columns: &[
        AT,
        WEIGHT,
        integer("provider", "host", "whose"),
        text("load", "idle, busy, full, draining"),
        integer(
            "prompt_nanoton",
            "nanoTON per 1,000,000 tokens",
            "price of prompt tokens of its first model",
        ),
        integer(
            "completion_nanoton",
            "nanoTON per 1,000,000 tokens",
            "price of completion tokens of its first model",
        ),
    ],
};

/// One row an adversary.
pub const ADVERSARIES: Table = Table {
    name: "adversaries",
    row: "a host that is an adversary of the scenario",
    order: "by host",
    columns: &[
        integer("host", "host", "its number"),
        text("behaviour", "which adversary it is"),
        integer("income_nanoton", "nanoTON", "what the best vouchers that it holds promise"),
        integer("spend_nanoton", "nanoTON", "what it promised to others"),
        integer("engine_us", "µs", "time of its engine's places that was used"),
        integer("prompts_received", "", "prompts of others that reached it"),
        integer("jobs_served", "jobs", "jobs of others that it served to their receipt"),
        integer(
            "jobs_lost",
            "jobs",
            "jobs of honest consumers that failed, having sent their prompt to it last",
        ),
        integer("paid_lost_nanoton", "nanoTON", "what was promised for those jobs"),
        integer(
            "unpaid_nanoton",
            "nanoTON",
            "what it was served as a consumer beyond what it paid, at the end of each of its jobs that failed or stayed unpaid",
        ),
        column(
            "gain_nanoton",
            Kind::Real,
            "nanoTON",
            false,
            "income beyond what its engine time earns an honest provider on average, and unpaid_nanoton; may be negative",
        ),
        column(
            "damage_nanoton",
            Kind::Real,
            "nanoTON",
            false,
            "paid_lost_nanoton and unpaid_nanoton: what honest hosts lost to it",
        ),
    ],
};

/// One row a broken invariant.
pub const VIOLATIONS: Table = Table {
    name: "violations",
    row: "an invariant that did not hold",
    order: "by time",
    columns: &[
        AT,
        integer_or_none("host", "host", "on which host; none if on the whole network"),
        text("invariant", "which one"),
        text("detail", "what was seen, in free text"),
    ],
};

/// All tables, in the order of the documentation.
pub const TABLES: [&Table; 11] = [
    &JOBS,
    &HOSTS,
    &SAMPLES,
    &TRAFFIC,
    &SESSIONS,
    &ROUTES,
    &OFFERS,
    &CHANNELS,
    &SETTLEMENTS,
    &ADVERSARIES,
    &VIOLATIONS,
];

/// `schema.json`: the tables as data.
pub fn json() -> String {
    let mut text = serde_json::to_string_pretty(&serde_json::json!({
        "format": "simnet tables 1",
        "time": "µs of virtual time since the start of the run",
        "hosts": "hosts are numbered from 0; the number stays the same across restarts and in all tables",
        "tables": TABLES,
    }))
    .unwrap_or_default();
    text.push('\n');
    text
}

/// `docs/tables.md`: the tables for a reader.
pub fn markdown() -> String {
    let mut text = String::from(MARKDOWN_HEAD);
    for table in TABLES {
        let _ = write!(
            text,
            "\n## {}\n\nA row is {}. Ordered {}.\n\n| column | type | unit | meaning |\n|---|---|---|---|\n",
            table.name, table.row, table.order
        );
        for column in table.columns {
            let kind = match column.kind {
                Kind::Integer => "integer",
                Kind::Real => "real",
                Kind::Text => "text",
                Kind::Flag => "flag",
            };
            let empty = if column.nullable { ", may be empty" } else { "" };
            let _ = writeln!(
                text,
                "| `{}` | {kind}{empty} | {} | {} |",
                column.name, column.unit, column.meaning
            );
        }
    }
    text
}

const MARKDOWN_HEAD: &str = "\
<!-- Written by `cargo test -p simnet-report`, from simnet/report/src/schema.rs. Edit that. -->

# Tables of a result

`simnet run` writes one file a table, `NAME.parquet` (Snappy) or `NAME.csv`, and this page as data in `schema.json`.
Hosts are numbered from 0; the number stays the same across restarts and in all tables. Times are microseconds of
virtual time since the start of the run. Money is nanoTON (10⁻⁹ TON). An empty value is NULL in Parquet and nothing
between two commas in CSV. Integers are 64 bits and signed; pandas makes a column with empty values floating point unless
it is read with `dtype_backend=\"numpy_nullable\"`.

**Thinning.** `jobs`, `sessions`, `routes`, `offers` and `settlements` grow with the run. Up to a limit (`--rows`, default 4 million a table) every
row is kept, then one in ten, after as many rows again one in a hundred, and so on; `weight` says how many a row stands
for. The figures in `result.json` and the plots are counted over everything, thinned or not: counts, sums, minima and
maxima are exact, quantiles come from histograms whose buckets are 1/128 of their value wide (at most 0.4 % off).

**What counts.** Tables hold every job. The figures, and the plots that are not over time, leave out the jobs of adversaries and those
submitted before the scenario's warm-up was over; money and discovery are counted from the start. What happened after the last sample of a run is in no
row of `samples` and `traffic`.

**Hashes.** `result.json` has a BLAKE3 hash of every table's content (key derivation mode, context `cocoon simnet table v1`). It is
taken over the rows, not the file, so that it is the same for Parquet and CSV: for each row, for each column, `00` for an empty value, else `01` and the value (integers and reals as
8 bytes little-endian, flags as one byte, text as its length in 4 bytes little-endian and its bytes). Equal scenario, seed and build
give equal hashes.
";

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares a committed file with what it is made from, and mends it, so that the next run passes.
    fn kept_true(path: &str, text: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::fs::read_to_string(&path).ok().as_deref() != Some(text) {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            panic!(
                "{} was out of date; it is current now: look at it and commit it",
                path.display()
            );
        }
    }

    #[test]
    fn the_page_on_tables_is_current() {
        kept_true("../docs/tables.md", &markdown());
    }

    #[test]
    fn names_are_distinct_and_times_and_money_end_in_their_unit() {
        let mut tables = std::collections::BTreeSet::new();
        for table in TABLES {
            assert!(tables.insert(table.name));
            let mut columns = std::collections::BTreeSet::new();
            for column in table.columns {
                assert!(columns.insert(column.name), "{}.{}", table.name, column.name);
                assert_eq!(column.unit == "µs", column.name.ends_with("_us"), "{}", column.name);
                assert_eq!(column.unit.contains("nanoTON"), column.name.ends_with("_nanoton"));
                assert!(!column.meaning.is_empty());
            }
        }
    }
}
