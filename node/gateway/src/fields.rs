//! A JSON object read field by field, so that every field is either understood or refused by name.
//!
//! Owns: types, duplicates, leftovers, and the paths that errors name.
//! Must not: know any endpoint's fields.

use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

/// Bytes of a client's own words that an error repeats.
const QUOTED_BYTES: usize = 64;

/// What is wrong with a request. Each is the client's to fix and answers 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FieldError {
    /// The body is not JSON, or nested too deeply.
    #[error("the body is not valid JSON (line {line}, column {column})")]
    NotJson { line: usize, column: usize },
    /// The body is JSON, but not an object.
    #[error("the body must be a JSON object")]
    NotAnObject,
    #[error("`{0}` appears twice; send it once")]
    Duplicate(String),
    #[error("`{0}` is required")]
    Missing(String),
    #[error("`{path}` must be {expected}")]
    WrongType { path: String, expected: &'static str },
    /// The type is right, the value is not.
    #[error("`{path}`: {reason}")]
    Invalid { path: String, reason: String },
    /// OpenAI has the field; this node cannot honour it.
    #[error("`{path}` is not served yet; leave it out{hint}")]
    NotServed { path: String, hint: &'static str },
    #[error("`{0}` is not a known field; leave it out")]
    Unknown(String),
    /// More text than is served.
    #[error("`{path}`: {reason}")]
    TooLong { path: String, reason: String },
}

impl FieldError {
    /// OpenAI's `param`: the path of the field.
    pub(crate) fn param(&self) -> Option<&str> {
        match self {
            Self::NotJson { .. } | Self::NotAnObject => None,
            Self::Duplicate(path) | Self::Missing(path) | Self::Unknown(path) => Some(path),
            Self::WrongType { path, .. }
            | Self::Invalid { path, .. }
            | Self::NotServed { path, .. }
            | Self::TooLong { path, .. } => Some(path),
        }
    }

    /// OpenAI's `code` where it has one for the case.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::NotJson { .. } | Self::NotAnObject => "invalid_json",
            Self::Duplicate(_) => "duplicate_parameter",
            Self::Missing(_) => "missing_required_parameter",
            Self::WrongType { .. } => "invalid_type",
            Self::Invalid { .. } => "invalid_value",
            Self::NotServed { .. } => "unsupported_parameter",
            Self::Unknown(_) => "unknown_parameter",
            Self::TooLong { .. } => "context_length_exceeded",
        }
    }

    pub(crate) fn invalid(path: &str, reason: impl ToString) -> Self {
        Self::Invalid { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// A type that a field can have, and how an error calls it.
pub(crate) trait FieldType: DeserializeOwned {
    const EXPECTED: &'static str;
}

impl FieldType for String {
    const EXPECTED: &'static str = "a string";
}
impl FieldType for bool {
    const EXPECTED: &'static str = "true or false";
}
impl FieldType for u32 {
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";
}
impl FieldType for f32 {
    const EXPECTED: &'static str = "a number";
}
impl FieldType for Vec<Value> {
    const EXPECTED: &'static str = "a list";
}
impl FieldType for Map<String, Value> {
    const EXPECTED: &'static str = "an object";
}

/// `value` as a `T`, or an error that names `path` and never repeats the value.
pub(crate) fn typed<T: FieldType>(path: &str, value: Value) -> Result<T, FieldError> {
    serde_json::from_value(value)
        .map_err(|_| FieldError::WrongType { path: path.to_owned(), expected: T::EXPECTED })
}

/// A field that is not served, and which of its values ask for nothing all the same.
pub(crate) type NotServed = (&'static str, fn(&Value) -> bool);

/// Whether the value asks for nothing: what clients send that repeat a whole message or all their
/// defaults.
pub(crate) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// The fields of one object that have not been read yet.
#[derive(Debug)]
pub(crate) struct Fields {
    /// What stands before a field's name in errors: empty, or `messages[0].`.
    prefix: String,
    rest: Map<String, Value>,
}

impl Fields {
    /// Parses a request's body. The depth is bounded by the parser (128), the size by the caller.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, FieldError> {
        let unique: Unique = serde_json::from_slice(body).map_err(|error| {
            if error.is_data() {
                FieldError::NotAnObject
            } else {
                FieldError::NotJson { line: error.line(), column: error.column() }
            }
        })?;
        match unique.duplicate {
            Some(name) => Err(FieldError::Duplicate(quoted(&name))),
            None => Ok(Self { prefix: String::new(), rest: unique.fields }),
        }
    }

    /// The fields of the object that is the value at `path`.
    pub(crate) fn of_value(path: &str, value: Value) -> Result<Self, FieldError> {
        Ok(Self { prefix: format!("{path}."), rest: typed(path, value)? })
    }

    /// The full name of a field, as errors give it.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}{}", self.prefix, quoted(name))
    }

    /// Takes a field out; null is the same as absent, as with OpenAI.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.rest.swap_remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn optional<T: FieldType>(&mut self, name: &str) -> Result<Option<T>, FieldError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        typed(&self.path(name), value).map(Some)
    }

    pub(crate) fn required<T: FieldType>(&mut self, name: &str) -> Result<T, FieldError> {
        self.optional(name)?.ok_or_else(|| FieldError::Missing(self.path(name)))
    }

    /// Reads a field that changes nothing about the answer.
    pub(crate) fn ignore<T: FieldType>(&mut self, name: &str) -> Result<(), FieldError> {
        self.optional::<T>(name).map(|_| ())
    }

    /// Refuses a field of OpenAI's that cannot be honoured, unless its value asks for nothing.
    pub(crate) fn refuse(
        &mut self,
        name: &str,
        neutral: fn(&Value) -> bool,
        hint: &'static str,
    ) -> Result<(), FieldError> {
        match self.take(name) {
            Some(value) if !says_nothing(&value) && !neutral(&value) => {
                Err(FieldError::NotServed { path: self.path(name), hint })
            }
            _ => Ok(()),
        }
    }

    /// Refuses whatever has not been read. Null is no exception: a misspelt field stays misspelt.
    pub(crate) fn finish(self) -> Result<(), FieldError> {
        match self.rest.keys().next() {
            Some(name) => Err(FieldError::Unknown(self.path(name))),
            None => Ok(()),
        }
    }
}

/// A client's own name for something, short enough for an error message.
pub(crate) fn quoted(text: &str) -> String {
    if text.len() <= QUOTED_BYTES {
        return text.to_owned();
    }
    let whole =
        |start: usize, letter: char| start.saturating_add(letter.len_utf8()) <= QUOTED_BYTES;
    let letters = text.char_indices().take_while(|(start, letter)| whole(*start, *letter));
    letters.map(|(_, letter)| letter).chain(['…']).collect()
}

/// An object and the first name that stood in it twice. `serde_json` alone would keep the last.
struct Unique {
    fields: Map<String, Value>,
    duplicate: Option<String>,
}

impl<'de> serde::Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
        let mut unique = Unique { fields: Map::new(), duplicate: None };
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value()?;
            if unique.fields.contains_key(&name) {
                unique.duplicate.get_or_insert(name);
            } else {
                unique.fields.insert(name, value);
            }
        }
        Ok(unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn body(text: &str) -> Result<Fields, FieldError> {
        Fields::of_body(text.as_bytes())
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        assert!(matches!(body("[1]"), Err(FieldError::NotAnObject)));
        assert!(matches!(body("null"), Err(FieldError::NotAnObject)));
        assert_eq!(body("{\"a\":}").unwrap_err(), FieldError::NotJson { line: 1, column: 6 });
        assert!(matches!(body(""), Err(FieldError::NotJson { .. })));
        assert!(matches!(body("{} {}"), Err(FieldError::NotJson { .. })));
    }

    #[test]
    fn a_field_that_stands_twice_is_named() {
        let error = body(r#"{"a":1,"b":2,"a":3}"#).unwrap_err();
        assert_eq!(error, FieldError::Duplicate("a".into()));
    }

    #[test]
    fn what_is_left_over_is_named_with_its_path() {
        let mut fields = body(r#"{"model":"m","messages":null,"odd":null}"#).unwrap();
        assert_eq!(fields.required::<String>("model"), Ok("m".into()));
        assert_eq!(fields.optional::<String>("messages"), Ok(None));
        assert_eq!(fields.finish(), Err(FieldError::Unknown("odd".into())));
        let inner = Fields::of_value("messages[3]", json!({ "odd": 1 })).unwrap();
        assert_eq!(inner.finish(), Err(FieldError::Unknown("messages[3].odd".into())));
    }

    #[test]
    fn a_field_that_is_not_served_may_ask_for_nothing() {
        let refused = |value: Value| {
            let mut fields = Fields::of_value("x", json!({ "tools": value })).unwrap();
            fields.refuse("tools", |value| value == "auto", "").is_err()
        };
        for nothing in [json!(null), json!(false), json!([]), json!({}), json!(""), json!("auto")] {
            assert!(!refused(nothing.clone()), "{nothing}");
        }
        for something in [json!(true), json!([1]), json!(0), json!("required")] {
            assert!(refused(something.clone()), "{something}");
        }
    }

    #[test]
    fn an_error_never_repeats_a_value_and_only_the_start_of_a_name() {
        let mut fields = Fields::of_value("x", json!({ "temperature": "secret" })).unwrap();
        let error = fields.optional::<f32>("temperature").unwrap_err().to_string();
        assert_eq!(error, "`x.temperature` must be a number");
        let long = body(&format!("{{\"{}\":1}}", "é".repeat(1000))).unwrap().finish();
        assert!(long.unwrap_err().to_string().len() < 200);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            let _ = Fields::of_body(&bytes);
        }

        #[test]
        fn any_depth_is_parsed_or_refused(depth in 0usize..100_000) {
            let text = format!("{{\"a\":{}", "[".repeat(depth));
            prop_assert!(body(&text).is_err());
        }
    }
}
