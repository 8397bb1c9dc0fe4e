//! What Cocoon adds to OpenAI's requests: the tier and the most an answer may cost.
//!
//! Owns: the `cocoon` object of a body, the `X-Cocoon-*` headers, and what wins when both speak.
//! Must not: hold defaults; those are the node's configuration.

use axum::http::{HeaderMap, HeaderValue};
use cocoon_protocol::attest::Tier;
use cocoon_protocol::units::NanoTon;
use serde_json::Value;

use crate::fields::{FieldError, Fields, quoted, typed};

const TIER_HEADER: &str = "x-cocoon-tier";
const MAX_COST_HEADER: &str = "x-cocoon-max-cost";
const HEADER_PREFIX: &str = "x-cocoon-";

/// What a request demands of the provider and the price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Knobs {
    pub(super) minimum_tier: Option<Tier>,
    pub(super) max_cost: Option<NanoTon>,
}

/// Reads body and headers. When both speak, the stricter one holds: a key's or a proxy's header
/// can then not be undone by a request, nor a request by a forgotten default header.
pub(super) fn read(fields: &mut Fields, headers: &HeaderMap) -> Result<Knobs, FieldError> {
    let body = match fields.take("cocoon") {
        None => Knobs { minimum_tier: None, max_cost: None },
        Some(value) => of_object(value)?,
    };
    for name in headers.keys().map(|name| name.as_str()) {
        if name.starts_with(HEADER_PREFIX) && name != TIER_HEADER && name != MAX_COST_HEADER {
            return Err(FieldError::Unknown(quoted(name)));
        }
    }
    let header_tier = of_header(headers, TIER_HEADER, tier)?;
    let header_cost = of_header(headers, MAX_COST_HEADER, cost)?;
    Ok(Knobs {
        minimum_tier: body.minimum_tier.into_iter().chain(header_tier).max(),
        max_cost: body.max_cost.into_iter().chain(header_cost).min(),
    })
}

fn of_object(value: Value) -> Result<Knobs, FieldError> {
    let mut fields = Fields::of_value("cocoon", value)?;
    let minimum_tier = match fields.optional::<String>("tier")? {
        None => None,
        Some(text) => Some(tier("cocoon.tier", &text)?),
    };
    let max_cost = match fields.take("max_cost") {
        None => None,
        Some(Value::Number(_)) => {
            let reason = "an amount needs a unit: write \"0.5 TON\" or \"500000000 nanoTON\"";
            return Err(FieldError::invalid("cocoon.max_cost", reason));
        }
        Some(value) => Some(cost("cocoon.max_cost", &typed::<String>("cocoon.max_cost", value)?)?),
    };
    fields.finish()?;
    Ok(Knobs { minimum_tier, max_cost })
}

/// Reads a header of which every occurrence counts; the strictest can only be told if all parse,
/// so more than one is refused.
fn of_header<T>(
    headers: &HeaderMap,
    name: &'static str,
    parse: fn(&str, &str) -> Result<T, FieldError>,
) -> Result<Option<T>, FieldError> {
    let values: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    match values.as_slice() {
        [] => Ok(None),
        [value] => {
            let text = value.to_str();
            let text = text.map_err(|_| FieldError::invalid(name, "use plain ASCII"))?;
            parse(name, text).map(Some)
        }
        [_, _, ..] => Err(FieldError::Duplicate(name.to_owned())),
    }
}

fn tier(path: &str, text: &str) -> Result<Tier, FieldError> {
    text.parse().map_err(|_| FieldError::invalid(path, "use open, attested or confidential"))
}

fn cost(path: &str, text: &str) -> Result<NanoTon, FieldError> {
    // The text is repeated by some of the parser's errors; a short prefix is enough for that.
    quoted(text).parse().map_err(|error| FieldError::invalid(path, error))
}
