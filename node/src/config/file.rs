//! The configuration file: TOML with the table's keys, and nothing else.
//!
//! Owns: turning a file's text into raw values with the line each came from.
//! Must not: open the file, or quote its lines in an error (one of them may hold a key).

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::setting::{Kind, Setting};
use super::value::Raw;
use super::{SETTINGS, setting};

/// Shortest likeness at which a known key is proposed for an unknown one: at 0.8 one or two wrong
/// letters are found and unrelated words are not.
const LIKENESS: f64 = 0.8;

/// A value in the file and the line it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileValue {
    pub(crate) raw: Raw,
    pub(crate) line: usize,
}

/// Why a file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Not TOML.
    #[error("line {line}: {message}")]
    Syntax {
        /// Where, from 1.
        line: usize,
        /// What the TOML reader says; it does not quote the line.
        message: String,
    },
    /// No setting has this name.
    #[error("line {line}: `{key}` is not a setting")]
    UnknownKey {
        /// Where, from 1.
        line: usize,
        /// The key in the file.
        key: String,
        /// The setting that was probably meant.
        nearest: Option<&'static str>,
    },
    /// The value is of another kind than the setting.
    #[error("line {line}: `{key}` needs {}, not {found}", expected.describe())]
    WrongKind {
        /// Where, from 1.
        line: usize,
        /// The setting.
        key: &'static str,
        /// What it needs.
        expected: Kind,
        /// What stands there, in TOML's words.
        found: &'static str,
    },
}

/// Reads a file's text. `folder` is the file's own: relative paths start there.
pub(crate) fn read(
    text: &str,
    folder: &Path,
) -> Result<BTreeMap<&'static str, FileValue>, FileError> {
    let line_at = |offset: usize| {
        let before = text.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1)
    };
    let table = DeTable::parse(text).map_err(|error| FileError::Syntax {
        line: line_at(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut values = BTreeMap::new();
    for (key, value) in table.get_ref() {
        let line = line_at(key.span().start);
        let Some(row) = setting(key.get_ref()) else {
            let key = key.get_ref().to_string();
            let nearest = nearest(&key);
            return Err(FileError::UnknownKey { line, key, nearest });
        };
        let raw = raw(row, value.get_ref(), folder).ok_or_else(|| FileError::WrongKind {
            line,
            key: row.key,
            expected: row.kind,
            found: value.get_ref().type_str(),
        })?;
        values.insert(row.key, FileValue { raw, line });
    }
    Ok(values)
}

/// The value as the setting's kind wants it; `None` when it is of another kind.
fn raw(row: &Setting, value: &DeValue<'_>, folder: &Path) -> Option<Raw> {
    match (row.kind, value) {
        (Kind::Text, DeValue::String(text)) => Some(Raw::One(text.to_string())),
        (Kind::Path, DeValue::String(text)) => {
            // An empty text means "not set", and joining it would name the folder itself.
            let path = if text.is_empty() { String::new() } else { joined(folder, text)? };
            Some(Raw::One(path))
        }
        (Kind::Integer, DeValue::Integer(number)) if number.radix() == 10 => {
            Some(Raw::One(number.as_str().replace('_', "")))
        }
        (Kind::Boolean, DeValue::Boolean(value)) => Some(Raw::One(value.to_string())),
        (Kind::List, DeValue::Array(elements)) => elements
            .iter()
            .map(|element| element.get_ref().as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map(Raw::Many),
        (Kind::Text | Kind::Path | Kind::Integer | Kind::Boolean | Kind::List, _) => None,
    }
}

fn joined(folder: &Path, path: &str) -> Option<String> {
    folder.join(path).to_str().map(str::to_owned)
}

/// The known key that is most like `key`, if one is like it at all.
pub(crate) fn nearest(key: &str) -> Option<&'static str> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    SETTINGS
        .iter()
        .filter(|setting| !setting.hidden)
        .map(|setting| (strsim::jaro_winkler(&key, setting.key), setting.key))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_text(text: &str) -> Result<BTreeMap<&'static str, FileValue>, FileError> {
        read(text, Path::new("/etc/cocoon"))
    }

    #[test]
    fn values_carry_their_lines() {
        let values = read_text("# a comment\nprovide = true\n\nengine_slots = 1_6\n").unwrap();
        assert_eq!(values["provide"], FileValue { raw: Raw::One("true".into()), line: 2 });
        assert_eq!(values["engine_slots"], FileValue { raw: Raw::One("16".into()), line: 4 });
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_likely_one() {
        let error = read_text("provide = true\nentry_point = []\n").unwrap_err();
        assert_eq!(
            error,
            FileError::UnknownKey {
                line: 2,
                key: "entry_point".into(),
                nearest: Some("entry_points"),
            }
        );
        let error = read_text("[gateway]\nport = 1\n").unwrap_err();
        assert!(matches!(error, FileError::UnknownKey { line: 1, .. }), "{error:?}");
        assert!(matches!(
            read_text("colour = 'blue'").unwrap_err(),
            FileError::UnknownKey { nearest: None, .. }
        ));
    }

    #[test]
    fn the_wrong_kind_of_value_is_refused_by_name() {
        for text in [
            "provide = 'true'",
            "engine_slots = '8'",
            "listen = 'x'",
            "max_cost = 5",
            "listen = [1]",
            "engine_slots = 0x10",
            "engine_slots = 8.0",
            "[provide]",
        ] {
            assert!(matches!(read_text(text), Err(FileError::WrongKind { .. })), "{text}");
        }
    }

    #[test]
    fn an_error_never_quotes_the_line_it_is_about() {
        let error = read_text("api_key = 'sk-secret\n").unwrap_err();
        assert!(matches!(error, FileError::Syntax { line: 1, .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn a_relative_path_starts_at_the_files_folder() {
        let values = read_text("policy = 'policy.toml'\ndata_dir = '/var/lib/cocoon'").unwrap();
        assert_eq!(values["policy"].raw, Raw::One("/etc/cocoon/policy.toml".into()));
        assert_eq!(values["data_dir"].raw, Raw::One("/var/lib/cocoon".into()));
    }

    proptest! {
        #[test]
        fn no_file_panics_the_reader(text in "[a-z_=\\[\\]'\"0-9.\n# é-]{0,200}") {
            let _ = read_text(&text);
        }
    }
}
