//! What a look at a node has to say, set for a person or for a program.
//!
//! Owns: that both get the same, and how each kind of value is written.
//! Must not: know what is said.
//!
//! For a person a sheet is sections of aligned lines, of which long tables are cut. For a program it
//! is one JSON object that holds everything: money in nanoTON, times in seconds, identities whole.

use std::time::Duration;

use cocoon_protocol::units::NanoTon;
use serde_json::{Map, Value, json};
use simnet_host::state::Peer;
use simnet_scenario::Moment;

/// Lines of a table that a person is shown unless they ask for all.
const LINES: usize = 12;
/// Hexadecimal digits of an identity that a person is shown: enough to tell a run's from one another.
const DIGITS: usize = 12;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// There is none.
    Nothing,
    Text(String),
    Flag(bool),
    Count(u64),
    Number(f64),
    Money(NanoTon),
    At(Moment),
    Long(Duration),
    /// An identity, in hexadecimal.
    Id(String),
    Node(Peer),
}

impl Cell {
    pub(super) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    pub(super) fn count(count: impl TryInto<u64>) -> Self {
        Self::Count(count.try_into().unwrap_or(u64::MAX))
    }

    /// A value that there may be.
    pub(super) fn maybe<T>(value: Option<T>, cell: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Nothing, cell)
    }

    fn for_people(&self) -> String {
        match self {
            Self::Nothing => "-".to_owned(),
            Self::Text(text) => text.clone(),
            Self::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
            Self::Count(count) => count.to_string(),
            Self::Number(number) => crate::run::number(*number),
            // The heading or the label says that it is TON.
            Self::Money(amount) => amount.to_string().trim_end_matches(" TON").to_owned(),
            Self::At(at) => at.to_string(),
            Self::Long(length) if length.as_secs() > 0 => format!("{:.3}s", length.as_secs_f64()),
            Self::Long(length) => format!("{:.1} ms", length.as_secs_f64() * 1_000.0),
            Self::Id(digits) => digits.get(..DIGITS).unwrap_or(digits).to_owned(),
            Self::Node(Peer { host: Some(host), .. }) => format!("node {}", host.0),
            Self::Node(Peer { host: None, node }) => Self::Id(node.to_string()).for_people(),
        }
    }

    fn for_programs(&self) -> Value {
        match self {
            Self::Nothing => Value::Null,
            Self::Text(text) | Self::Id(text) => json!(text),
            Self::Flag(flag) => json!(flag),
            Self::Count(count) => json!(count),
            Self::Number(number) => json!(number),
            Self::Money(amount) => json!(amount.as_nano()),
            Self::At(at) => json!(seconds(*at)),
            Self::Long(length) => json!(seconds(Moment::START.after(*length))),
            Self::Node(peer) => {
                json!({ "host": peer.host.map(|it| it.0), "node": peer.node.to_string() })
            }
        }
    }

    const fn is_number(&self) -> bool {
        match self {
            Self::Count(_) | Self::Number(_) | Self::Money(_) | Self::At(_) | Self::Long(_) => true,
            Self::Nothing | Self::Text(_) | Self::Flag(_) | Self::Id(_) | Self::Node(_) => false,
        }
    }
}

/// A moment for programs. Rounded once, so that 29.952 s is 29.952 and nothing beside it.
#[expect(clippy::cast_precision_loss, reason = "exact for the first hundred days")]
pub(super) fn seconds(at: Moment) -> f64 {
    at.as_nanos() as f64 / 1e9
}

/// A column: its key for programs, and its heading for people, who do not see it without one.
pub(super) type Column = (&'static str, &'static str);

/// A named value: its key for programs and its label for people.
pub(super) type Field = (&'static str, &'static str, Cell);

#[derive(Clone, Debug)]
enum Body {
    Fields(Vec<Field>),
    Table(&'static [Column], Vec<Vec<Cell>>),
    /// The node has nothing of this kind.
    Absent,
}

#[derive(Clone, Debug)]
struct Section {
    /// Where it stands in the object: keys from the outermost, with dots.
    path: &'static str,
    title: &'static str,
    body: Body,
}

/// Sections in the order in which they are read.
#[derive(Clone, Debug, Default)]
pub(super) struct Sheet {
    sections: Vec<Section>,
}

impl Sheet {
    /// Values, a line each.
    pub(super) fn fields(&mut self, path: &'static str, title: &'static str, fields: Vec<Field>) {
        self.sections.push(Section { path, title, body: Body::Fields(fields) });
    }

    /// Things of a kind, a line each.
    pub(super) fn table(
        &mut self,
        path: &'static str,
        title: &'static str,
        columns: &'static [Column],
        rows: Vec<Vec<Cell>>,
    ) {
        self.sections.push(Section { path, title, body: Body::Table(columns, rows) });
    }

    /// A part that there is not: people see nothing of it, programs its key.
    pub(super) fn absent(&mut self, path: &'static str) {
        self.sections.push(Section { path, title: "", body: Body::Absent });
    }

    /// For people. `all` is what shows the lines that are left out; `None` leaves none out.
    pub(super) fn for_people(&self, all: Option<&str>) -> String {
        let shown = self.sections.iter().filter(|it| !matches!(it.body, Body::Absent));
        let texts: Vec<_> = shown.map(|section| section.for_people(all)).collect();
        texts.join("\n\n")
    }

    /// Every key that programs may find, with what it stands in.
    #[cfg(test)]
    pub(super) fn keys(&self) -> Vec<String> {
        let keys = self.sections.iter().flat_map(|section| {
            let key = |key: &str| match section.body {
                Body::Table(..) => format!("{}[].{key}", section.path),
                Body::Fields(_) | Body::Absent => format!("{}.{key}", section.path),
            };
            match &section.body {
                Body::Fields(fields) => fields.iter().map(|it| key(it.0)).collect(),
                Body::Table(columns, _) => columns.iter().map(|it| key(it.0)).collect(),
                Body::Absent => Vec::new(),
            }
        });
        keys.collect()
    }

    /// For programs.
    pub(super) fn for_programs(&self) -> Value {
        let mut whole = Map::new();
        for section in &self.sections {
            put(&mut whole, section.path, section.for_programs());
        }
        Value::Object(whole)
    }
}

/// Puts a value at its place, behind as many keys as it takes.
fn put(object: &mut Map<String, Value>, path: &str, value: Value) {
    let Some((key, rest)) = path.split_once('.') else {
        object.insert(path.to_owned(), value);
        return;
    };
    let inner = object.entry(key).or_insert(Value::Null);
    if !inner.is_object() {
        *inner = json!({});
    }
    if let Some(inner) = inner.as_object_mut() {
        put(inner, rest, value);
    }
}

impl Section {
    fn for_programs(&self) -> Value {
        let object = |pairs: Vec<(&str, &Cell)>| {
            let pairs = pairs.into_iter().map(|(key, cell)| (key.to_owned(), cell.for_programs()));
            Value::Object(pairs.collect())
        };
        match &self.body {
            Body::Absent => Value::Null,
            Body::Fields(fields) => object(fields.iter().map(|(key, _, it)| (*key, it)).collect()),
            Body::Table(columns, rows) => {
                let keys = columns.iter().map(|(key, _)| *key);
                rows.iter().map(|row| object(keys.clone().zip(row).collect())).collect()
            }
        }
    }

    fn for_people(&self, all: Option<&str>) -> String {
        match &self.body {
            Body::Absent => String::new(),
            Body::Fields(fields) => {
                let width = fields.iter().map(|(_, label, _)| label.chars().count()).max();
                let width = width.unwrap_or(0);
                let line = |(_, label, cell): &Field| {
                    format!("\n  {label:<width$}  {}", cell.for_people())
                };
                let lines = fields.iter().filter(|(_, label, _)| !label.is_empty()).map(line);
                format!("{}{}", self.title, lines.collect::<String>())
            }
            Body::Table(_, rows) if rows.is_empty() => format!("{}: none", self.title),
            Body::Table(columns, rows) => {
                let shown = all.and_then(|_| rows.get(..LINES)).unwrap_or(rows);
                let mut text = format!("{} ({})", self.title, rows.len());
                for line in lines(columns, shown) {
                    text.push_str(&format!("\n  {line}"));
                }
                let left = rows.len() - shown.len();
                if let Some(all) = all.filter(|_| left > 0) {
                    text.push_str(&format!("\n  … {left} more: {all} shows them"));
                }
                text
            }
        }
    }
}

/// The lines of a table, its headings first. Numbers stand to the right.
fn lines(columns: &[Column], rows: &[Vec<Cell>]) -> Vec<String> {
    let mut lines = vec![String::new(); rows.len() + 1];
    for (place, (_, heading)) in columns.iter().enumerate() {
        if heading.is_empty() {
            continue;
        }
        let cells: Vec<_> =
            rows.iter().map(|row| row.get(place).unwrap_or(&Cell::Nothing)).collect();
        let right = cells.iter().any(|cell| cell.is_number());
        let texts = std::iter::once((*heading).to_owned());
        let texts: Vec<_> = texts.chain(cells.iter().map(|cell| cell.for_people())).collect();
        let width = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
        for (line, text) in lines.iter_mut().zip(texts) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let set = if right { format!("{text:>width$}") } else { format!("{text:<width$}") };
            line.push_str(&set);
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use cocoon_protocol::identity::NodeId;
    use simnet_host::HostId;

    use super::*;

    const COLUMNS: &[Column] = &[("job", "job"), ("hidden", ""), ("paid_nanoton", "TON paid")];

    fn row(job: &str, paid: u64) -> Vec<Cell> {
        vec![Cell::Id(job.into()), Cell::count(7_u8), Cell::Money(NanoTon::from_nano(paid))]
    }

    fn sheet(rows: Vec<Vec<Cell>>) -> Sheet {
        let mut sheet = Sheet::default();
        let node = Peer { host: Some(HostId(3)), node: NodeId::from_bytes([0xab; 32]) };
        let fields = vec![
            ("peer", "peer", Cell::Node(node)),
            ("until_s", "until then", Cell::maybe(None, Cell::At)),
        ];
        sheet.fields("who", "who it is", fields);
        sheet.absent("provider");
        sheet.table("consumer.jobs", "consumer: jobs", COLUMNS, rows);
        sheet
    }

    #[test]
    fn people_get_aligned_lines() {
        let text = sheet(vec![row(&"1f".repeat(32), 5), row("2", 12_000_000_000)]);
        let expected = "who it is\n  peer        node 3\n  until then  -\n\nconsumer: jobs (2)\n  \
                        job              TON paid\n  1f1f1f1f1f1f  0.000000005\n  \
                        2                      12";
        assert_eq!(text.for_people(None), expected);
        assert!(sheet(Vec::new()).for_people(None).ends_with("\n\nconsumer: jobs: none"));
    }

    #[test]
    fn a_long_table_is_cut_and_says_so() {
        let rows: Vec<_> = (0..20).map(|it| row("1", it)).collect();
        let cut = sheet(rows.clone()).for_people(Some("--all"));
        assert!(cut.contains("consumer: jobs (20)\n"), "{cut}");
        assert!(cut.ends_with("\n  … 8 more: --all shows them"), "{cut}");
        let whole = sheet(rows).for_people(None);
        assert_eq!(whole.lines().count(), cut.lines().count() + 7);
        let rows: Vec<_> = (0..12).map(|it| row("1", it)).collect();
        assert!(!sheet(rows).for_people(Some("--all")).contains("more"));
    }

    #[test]
    fn a_moment_has_the_digits_that_it_has() {
        for (nanos, text) in [(29_952_000_000, "29.952"), (10_958_123_456, "10.958123456")] {
            assert_eq!(json!(seconds(Moment::from_nanos(nanos))).to_string(), text);
        }
    }

    #[test]
    fn programs_get_everything_in_whole_units() {
        let value = sheet(vec![row("1f", 5)]).for_programs();
        let expected = json!({
            "who": { "peer": { "host": 3, "node": "ab".repeat(32) }, "until_s": null },
            "provider": null,
            "consumer": { "jobs": [{ "job": "1f", "hidden": 7, "paid_nanoton": 5 }] },
        });
        assert_eq!(value, expected);
    }
}
