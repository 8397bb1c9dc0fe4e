//! Reading what a client asks for: every parameter is checked here, and nowhere else.
//!
//! Owns: the forms that toncenter's clients use (numbers as text, addresses in both forms,
//! hashes in base64 or hexadecimal digits, values for the machine's stack).
//! Must not: panic on anything.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::NanoTon;
use num_bigint::BigInt;
use serde_json::{Map, Value};
use tycho_types::boc::Boc;
use tycho_types::cell::Cell;

use super::RequestError;
use crate::get_method::{StackEntry, method_id};

/// Values for a get method, nested ones included: ours take one.
const STACK_VALUES: usize = 256;
/// Characters of a number: 257 bits are 78 decimal digits.
const NUMBER_CHARACTERS: usize = 80;
/// Nesting of tuples in arguments.
const NESTING: usize = 16;

#[derive(Debug)]
pub(crate) struct Parameters(Map<String, Value>);

impl Parameters {
    pub(super) const fn from_object(object: Map<String, Value>) -> Self {
        Self(object)
    }

    /// From the part of a URL behind the question mark. The last of equal names counts.
    pub(super) fn from_query(query: &str) -> Self {
        let mut object = Map::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            object.insert(percent_decode(name), Value::String(percent_decode(value)));
        }
        Self(object)
    }

    fn value(&self, name: &'static str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &'static str) -> Result<&str, RequestError> {
        let value = self.value(name).ok_or(RequestError::Missing(name))?;
        value.as_str().ok_or(RequestError::Unreadable(name))
    }

    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, RequestError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let number = match value.as_str() {
            Some("") => return Ok(None),
            Some(text) => text.parse().ok(),
            None => value.as_u64(),
        };
        number.map(Some).ok_or(RequestError::Unreadable(name))
    }

    pub(super) fn address(&self) -> Result<TonAddress, RequestError> {
        let text = self.text("address")?;
        // The checksum form takes both spellings; a query may have turned `+` into a space.
        let text = text.replace(' ', "+");
        crate::address::parse(&text, Network::Devnet)
            .map_err(|_| RequestError::Unreadable("address"))
    }

    pub(super) fn nano(&self, name: &'static str) -> Result<NanoTon, RequestError> {
        let nano = self.number(name)?.ok_or(RequestError::Missing(name))?;
        Ok(NanoTon::from_nano(nano))
    }

    /// A hash in base64 (either alphabet) or in hexadecimal digits.
    pub(super) fn hash(&self, name: &'static str) -> Result<Option<[u8; 32]>, RequestError> {
        if self.value(name).is_none() {
            return Ok(None);
        }
        let text = self.text(name)?;
        let mut hash = [0; 32];
        if hex::decode_to_slice(text, &mut hash).is_ok() {
            return Ok(Some(hash));
        }
        let bytes = decode_base64(text).ok_or(RequestError::Unreadable(name))?;
        bytes.try_into().map(Some).map_err(|_| RequestError::Unreadable(name))
    }

    pub(super) fn bytes(&self, name: &'static str) -> Result<Vec<u8>, RequestError> {
        decode_base64(self.text(name)?).ok_or(RequestError::Unreadable(name))
    }

    /// A method by its name or its number.
    pub(super) fn method(&self) -> Result<u32, RequestError> {
        let value = self.value("method").ok_or(RequestError::Missing("method"))?;
        if let Some(name) = value.as_str() {
            return Ok(name.parse().unwrap_or_else(|_| method_id(name)));
        }
        let number = value.as_u64();
        number
            .and_then(|number| u32::try_from(number).ok())
            .ok_or(RequestError::Unreadable("method"))
    }

    pub(super) fn stack(&self) -> Result<Vec<StackEntry>, RequestError> {
        let Some(value) = self.value("stack") else {
            return Ok(Vec::new());
        };
        let unreadable = RequestError::Unreadable("stack");
        let Some(items) = value.as_array() else {
            return Err(unreadable);
        };
        let mut left = STACK_VALUES;
        let entries: Option<Vec<_>> = items.iter().map(|item| pair(item, &mut left)).collect();
        entries.ok_or(unreadable)
    }
}

/// `["num", "0x10"]`, `["tvm.Cell", "<base64>"]`, `["tuple", {"elements": […]}]`.
fn pair(item: &Value, left: &mut usize) -> Option<StackEntry> {
    *left = left.checked_sub(1)?;
    let (kind, value) = (item.get(0)?.as_str()?, item.get(1).unwrap_or(&Value::Null));
    match kind {
        "num" | "number" | "int" => integer(value).map(StackEntry::Integer),
        "null" => Some(StackEntry::Null),
        "cell" | "tvm.Cell" => cell(value).map(StackEntry::Cell),
        "slice" | "tvm.Slice" => cell(value).map(StackEntry::Slice),
        "builder" | "tvm.Builder" => cell(value).map(StackEntry::Builder),
        "tuple" | "tvm.Tuple" | "list" | "tvm.List" => elements(value, left, NESTING),
        _ => None,
    }
}

fn elements(value: &Value, left: &mut usize, nesting: usize) -> Option<StackEntry> {
    let nesting = nesting.checked_sub(1)?;
    let elements = value.get("elements").unwrap_or(value).as_array()?;
    let entries: Option<Vec<_>> =
        elements.iter().map(|element| typed(element, left, nesting)).collect();
    entries.map(StackEntry::Tuple)
}

/// `{"@type": "tvm.stackEntryNumber", "number": {"number": "16"}}` and its kin.
fn typed(value: &Value, left: &mut usize, nesting: usize) -> Option<StackEntry> {
    *left = left.checked_sub(1)?;
    match value.get("@type")?.as_str()? {
        "tvm.stackEntryNumber" => {
            integer(value.get("number")?.get("number")?).map(StackEntry::Integer)
        }
        "tvm.stackEntryCell" => cell(value.get("cell")?).map(StackEntry::Cell),
        "tvm.stackEntrySlice" => cell(value.get("slice")?).map(StackEntry::Slice),
        "tvm.stackEntryTuple" => elements(value.get("tuple")?, left, nesting),
        "tvm.stackEntryList" => elements(value.get("list")?, left, nesting),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<BigInt> {
    if let Some(number) = value.as_i64() {
        return Some(BigInt::from(number));
    }
    let text = value.as_str()?.trim();
    if text.len() > NUMBER_CHARACTERS {
        return None;
    }
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let number = match digits.strip_prefix("0x") {
        Some(digits) => BigInt::parse_bytes(digits.as_bytes(), 16)?,
        None => BigInt::parse_bytes(digits.as_bytes(), 10)?,
    };
    Some(if negative { -number } else { number })
}

fn cell(value: &Value) -> Option<Cell> {
    let text = value.get("bytes").unwrap_or(value).as_str()?;
    Boc::decode(decode_base64(text)?).ok()
}

/// Either alphabet, with or without padding; a query may have turned `+` into a space.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut text = text.replace([' ', '-'], "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    BASE64_STANDARD.decode(text).ok()
}

/// `%41` is `A` and `+` stays: base64 in hand-written queries means it literally.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let code = if *byte == b'%' { tail.split_at_checked(2) } else { None };
        let decoded = code.and_then(|(digits, tail)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, tail))
        });
        let (byte, tail) = decoded.unwrap_or((*byte, tail));
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn from(value: Value) -> Parameters {
        Parameters::from_object(value.as_object().cloned().unwrap_or_default())
    }

    #[test]
    fn numbers_come_as_numbers_or_text_in_both_bases() {
        let parameters = from(json!({
            "limit": "7", "lt": 9, "empty": "",
            "stack": [["num", "0x1f"], ["num", "-5"], ["num", 3], ["null", null]],
        }));
        assert_eq!(parameters.number("limit").unwrap(), Some(7));
        assert_eq!(parameters.number("lt").unwrap(), Some(9));
        assert_eq!(parameters.number("empty").unwrap(), None);
        let integer = |value: i64| StackEntry::Integer(BigInt::from(value));
        assert_eq!(
            parameters.stack().unwrap(),
            [integer(31), integer(-5), integer(3), StackEntry::Null]
        );
    }

    #[test]
    fn a_query_is_decoded() {
        let parameters = Parameters::from_query("address=0%3Aab&limit=5&bad=%zz&%");
        assert_eq!(parameters.text("address").unwrap(), "0:ab");
        assert_eq!(parameters.number("limit").unwrap(), Some(5));
        assert_eq!(parameters.text("bad").unwrap(), "%zz");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,20}".prop_map(Value::from),
            prop::sample::select(vec!["num", "tvm.Cell", "tuple", "@type", "tvm.stackEntryTuple"])
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec(
                    (prop::sample::select(vec!["elements", "@type", "tuple", "bytes"]), inner),
                    0..4
                )
                .prop_map(|fields| {
                    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
                    Value::Object(fields.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_parameter_makes_it_panic(
            value in any_json(),
            query in "\\PC{0,60}",
        ) {
            let mut object = Map::new();
            for name in ["address", "stack", "method", "hash", "boc", "lt"] {
                object.insert(name.to_owned(), value.clone());
            }
            for parameters in [Parameters::from_object(object), Parameters::from_query(&query)] {
                let _ = parameters.address();
                let _ = parameters.stack();
                let _ = parameters.method();
                let _ = parameters.hash("hash");
                let _ = parameters.bytes("boc");
                let _ = parameters.number("lt");
            }
        }
    }
}
