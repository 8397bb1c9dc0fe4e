//! Showing a configuration: as a file that could be loaded again, or as JSON.
//!
//! Owns: both forms. Must not: show a secret, or write to a terminal itself.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::SETTINGS;
use super::load::{Loaded, Origin};
use super::value::Shown;

/// The configuration as TOML: loading it again gives the same settings, secrets apart. Each line
/// names its unit, where there is one, and its source.
pub fn print_toml(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut heading = "";
    for ((row, shown), origin) in SETTINGS.iter().zip(loaded.config.shown()).zip(&loaded.origins) {
        if row.heading != heading {
            let gap = if heading.is_empty() { "" } else { "\n" };
            heading = row.heading;
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{gap}# {heading}");
        }
        let unit = if row.unit.is_empty() { String::new() } else { format!("{}; ", row.unit) };
        let _ = match shown {
            Shown::Unset => writeln!(text, "# {} is not set  # {origin}", row.key),
            Shown::Redacted => writeln!(text, "# {} is set and not shown  # {origin}", row.key),
            Shown::Text(_) | Shown::Integer(_) | Shown::Boolean(_) | Shown::List(_) => {
                writeln!(text, "{} = {}  # {unit}{origin}", row.key, literal(&shown))
            }
        };
    }
    text
}

/// A TOML literal; JSON's spelling of strings is also TOML's once its escapes are.
fn literal(shown: &Shown) -> String {
    match shown {
        Shown::Text(text) => toml::Value::String(text.clone()).to_string(),
        Shown::Integer(number) => number.to_string(),
        Shown::Boolean(value) => value.to_string(),
        Shown::List(texts) => {
            toml::Value::Array(texts.iter().cloned().map(toml::Value::String).collect()).to_string()
        }
        Shown::Unset | Shown::Redacted => String::new(),
    }
}

/// The configuration as a JSON object: key to value, unit, source and the setting's other names.
pub fn print_json(loaded: &Loaded) -> Value {
    let rows = SETTINGS.iter().zip(loaded.config.shown()).zip(&loaded.origins);
    let entries = rows.map(|((row, shown), origin)| {
        let value = match shown {
            Shown::Unset => Value::Null,
            Shown::Text(text) => Value::String(text),
            Shown::Integer(number) => json!(number),
            Shown::Boolean(value) => json!(value),
            Shown::List(texts) => json!(texts),
            Shown::Redacted => json!("(redacted)"),
        };
        let source = match origin {
            Origin::Default => "default",
            Origin::File { .. } => "file",
            Origin::Environment { .. } => "environment",
            Origin::Flag { .. } => "flag",
        };
        let entry = json!({
            "value": value,
            "unit": if row.unit.is_empty() { Value::Null } else { json!(row.unit) },
            "source": source,
            "from": origin.to_string(),
            "flag": format!("--{}", row.flag()),
            "variable": row.variable(),
        });
        (row.key.to_owned(), entry)
    });
    Value::Object(entries.collect::<Map<_, _>>())
}
