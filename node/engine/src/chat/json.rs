//! The `tojson` filter as Hugging Face's renderer has it: Python's `json.dumps`, not minijinja's.
//!
//! Owns: separators, indentation and the order of keys, which models were trained on to the byte.
//! Must not: escape for HTML.

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;

/// Nesting that is rendered; deeper values are refused, so that the stack is bounded.
const DEPTH: usize = 64;
/// Widest indentation; wider ones are cut.
const INDENT: usize = 16;

/// `value|tojson(indent=…, ensure_ascii=…, sort_keys=…, separators=…)`; a bare number is the
/// indentation.
pub(super) fn to_json(
    value: &Value,
    indent: Option<usize>,
    options: Kwargs,
) -> Result<Value, Error> {
    let json = serde_json::to_value(value)
        .map_err(|_| Error::new(ErrorKind::BadSerialization, "value is not JSON"))?;
    let indent = options.get::<Option<usize>>("indent")?.or(indent).map(|width| width.min(INDENT));
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => {
            return Err(Error::new(ErrorKind::InvalidOperation, "two separators expected"));
        }
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let style = Style {
        indent,
        item,
        key,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    let mut text = String::new();
    style.write(&json, 0, &mut text)?;
    Ok(Value::from_safe_string(text))
}

struct Style {
    indent: Option<usize>,
    item: String,
    key: String,
    ascii: bool,
    sorted: bool,
}

impl Style {
    fn write(&self, json: &Json, depth: usize, text: &mut String) -> Result<(), Error> {
        if depth > DEPTH {
            return Err(Error::new(ErrorKind::BadSerialization, "value is nested too deeply"));
        }
        let inner = depth.saturating_add(1);
        match json {
            Json::Array(items) if items.is_empty() => text.push_str("[]"),
            Json::Object(entries) if entries.is_empty() => text.push_str("{}"),
            Json::Array(items) => {
                text.push('[');
                for (at, item) in items.iter().enumerate() {
                    self.separate(at, inner, text);
                    self.write(item, inner, text)?;
                }
                self.new_line(depth, text);
                text.push(']');
            }
            Json::Object(entries) => {
                text.push('{');
                let mut entries: Vec<_> = entries.iter().collect();
                if self.sorted {
                    entries.sort_by_key(|(name, _)| name.as_str());
                }
                for (at, (name, entry)) in entries.into_iter().enumerate() {
                    self.separate(at, inner, text);
                    self.write_string(name, text);
                    text.push_str(&self.key);
                    self.write(entry, inner, text)?;
                }
                self.new_line(depth, text);
                text.push('}');
            }
            Json::String(string) => self.write_string(string, text),
            Json::Null | Json::Bool(_) | Json::Number(_) => text.push_str(&json.to_string()),
        }
        Ok(())
    }

    fn separate(&self, at: usize, depth: usize, text: &mut String) {
        if at > 0 {
            text.push_str(&self.item);
        }
        self.new_line(depth, text);
    }

    fn new_line(&self, depth: usize, text: &mut String) {
        if let Some(width) = self.indent {
            text.push('\n');
            text.push_str(&" ".repeat(width.saturating_mul(depth)));
        }
    }

    fn write_string(&self, string: &str, text: &mut String) {
        let quoted = Json::from(string).to_string();
        if !self.ascii {
            text.push_str(&quoted);
            return;
        }
        for character in quoted.chars() {
            if character.is_ascii() {
                text.push(character);
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
}
