//! What is wrong with a scenario, said so that its author can mend it.
//!
//! Owns: finding the line of a key, and the nearest known name. Must not: judge values.

use std::fmt;

/// What is wrong, before it is known where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The dotted key, as far as it is known.
    key: String,
    /// What is wrong with it and what is allowed.
    message: String,
    /// Where the reader found it, in bytes.
    at: Option<usize>,
}

impl Fault {
    /// Something is wrong with the value of a key.
    pub(crate) fn text(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), at: None }
    }

    /// What the reader of TOML found.
    pub(crate) fn read(text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map(|span| span.start);
        let key = at.map(|at| key_at(text, at)).unwrap_or_default();
        Self { key, message: Self::tidy(error.message()), at }
    }

    /// A message of serde's, with the nearest known name in place of a list of all.
    pub(crate) fn tidy(message: &str) -> String {
        let kind = if message.starts_with("unknown field") {
            "key"
        } else if message.starts_with("unknown variant") {
            "value"
        } else {
            return message.to_owned();
        };
        let mut names = message.split('`').skip(1).step_by(2);
        let Some(wrong) = names.next() else { return message.to_owned() };
        let known: Vec<&str> = names.collect();
        let near =
            nearest(wrong, &known).map_or(String::new(), |it| format!("; did you mean `{it}`?"));
        let known = known.join(", ");
        format!("there is no {kind} `{wrong}` here{near} Known: {known}")
    }
}

/// A scenario cannot be used: where, which key, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    file: String,
    line: Option<usize>,
    key: String,
    message: String,
}

impl ScenarioError {
    pub(crate) fn new(file: &str, text: &str, fault: Fault) -> Self {
        let line = match fault.at {
            Some(at) => Some(line_of(text, at)),
            None => line_of_key(text, &fault.key),
        };
        Self { file: file.to_owned(), line, key: fault.key, message: fault.message }
    }

    /// The line, counted from one, where there is a text.
    pub const fn line(&self) -> Option<usize> {
        self.line
    }

    /// The dotted key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ScenarioError {}

/// The name closest to `wrong`, if any is close enough to be meant.
pub fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    let far = |name: &str| distance(wrong, name);
    let best = known.iter().min_by_key(|name| far(name))?;
    let limit = (wrong.chars().count() / 2).max(2);
    (far(best) <= limit || best.contains(wrong)).then_some(*best)
}

/// Insertions, deletions and changes between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let up = *cell;
            left = (diagonal + usize::from(from != *to)).min(up + 1).min(left + 1);
            diagonal = up;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The dotted key of the entry that begins or holds the byte `at`.
fn key_at(text: &str, at: usize) -> String {
    let line = line_of(text, at);
    keys(text).filter(|(number, _)| *number <= line).last().map_or(String::new(), |(_, key)| key)
}

/// The line on which a key, or the closest section around it, stands.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let mut key = key;
    while !key.is_empty() {
        if let Some((line, _)) = keys(text).find(|(_, it)| it == key) {
            return Some(line);
        }
        key = key.rsplit_once('.').map_or("", |(parent, _)| parent);
    }
    None
}

/// The dotted keys of a text with their lines: sections, and entries that begin a line.
fn keys(text: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    let mut section = String::new();
    let mut lists: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        let bare = |name: &str| {
            let parts = name.split('.').map(|it| it.trim().trim_matches(['"', '\'']));
            parts.collect::<Vec<_>>().join(".")
        };
        if let Some(name) = line.strip_prefix("[[").and_then(|rest| rest.split("]]").next()) {
            let name = bare(name);
            let place = lists.entry(name.clone()).and_modify(|it| *it += 1).or_insert(0);
            section = format!("{name}.{place}");
            return Some((index + 1, section.clone()));
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = bare(name);
            return Some((index + 1, section.clone()));
        }
        let (name, _) = line.split_once('=')?;
        if line.starts_with('#') {
            return None;
        }
        let name = bare(name.trim());
        let key = if section.is_empty() { name } else { format!("{section}.{name}") };
        Some((index + 1, key))
    })
}

#[cfg(test)]
mod tests {
    use crate::Scenario;

    fn wrong(text: &str) -> String {
        Scenario::parse("test.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let message = wrong("name = \"x\"\n\n[demand]\nrat = \"5 /s\"\n");
        assert!(message.starts_with("test.toml:4: demand.rat: "), "{message}");
        assert!(message.contains("did you mean `rate`?"), "{message}");
    }

    #[test]
    fn a_missing_unit_is_named_with_an_example() {
        let message = wrong("[demand]\npatience = \"20\"\n");
        assert!(message.starts_with("test.toml:2: demand.patience: "), "{message}");
        assert!(message.contains("as in `20 s`"), "{message}");
    }

    #[test]
    fn a_value_out_of_range_is_named_with_the_range() {
        let message = wrong("[population]\nproviders = \"20 %\"\nnodes = 1\n");
        assert!(message.starts_with("test.toml:3: population.nodes: "), "{message}");
        assert!(message.contains("2 to 2000000"), "{message}");
        let message = wrong("[[adversaries]]\nkind = \"lazy\"\nportion = \"5 %\"\nvictim = 3\n");
        assert!(message.starts_with("test.toml:4: adversaries.0.victim: "), "{message}");
        assert!(message.contains("speed_factor"), "{message}");
    }

    #[test]
    fn an_unknown_kind_is_answered_with_the_nearest() {
        let message = wrong("[[adversaries]]\nkind = \"sybyl\"\nportion = 3\n");
        assert!(message.contains("did you mean `sybil`?"), "{message}");
        assert!(message.contains("test.toml:2"), "{message}");
    }
}
