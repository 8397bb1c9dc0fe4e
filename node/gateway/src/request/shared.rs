//! The fields that every endpoint which runs a job has in common.
//!
//! Owns: model, sampling, stop, limits, streaming, and the fields without effect.
//! Must not: know how a prompt is written.

use cocoon_protocol::job::{Sampling, SpecError};
use cocoon_protocol::limits;
use cocoon_protocol::units::Tokens;
use serde_json::{Map, Value};

use super::Delivery;
use crate::fields::{FieldError, Fields, typed};
use crate::port::model_hash_in;

/// Length of a request's `model`: a catalogue's names have 64 bytes, a hash with its prefix 71.
const MODEL_BYTES: usize = 128;

/// Reads `model`.
pub(super) fn model(fields: &mut Fields) -> Result<String, FieldError> {
    let model: String = fields.required("model")?;
    if model.is_empty() || model.len() > MODEL_BYTES {
        let reason = format!("a model's name has 1 to {MODEL_BYTES} bytes");
        return Err(FieldError::invalid("model", reason));
    }
    model_hash_in(&model).map_err(|error| FieldError::invalid("model", error))?;
    Ok(model)
}

/// Reads everything that decides how tokens are drawn. `top_k` and `min_p` are not OpenAI's, but
/// spelt as other open servers spell them.
pub(super) fn sampling(fields: &mut Fields, random_seed: u64) -> Result<Sampling, FieldError> {
    let defaults = Sampling::with_seed(seed(fields)?.unwrap_or(random_seed));
    Ok(Sampling {
        temperature: fields.optional("temperature")?.unwrap_or(defaults.temperature),
        top_p: fields.optional("top_p")?.unwrap_or(defaults.top_p),
        top_k: fields.optional("top_k")?.unwrap_or(defaults.top_k),
        min_p: fields.optional("min_p")?.unwrap_or(defaults.min_p),
        frequency_penalty: fields
            .optional("frequency_penalty")?
            .unwrap_or(defaults.frequency_penalty),
        presence_penalty: fields.optional("presence_penalty")?.unwrap_or(defaults.presence_penalty),
        seed: defaults.seed,
    })
}

/// OpenAI's seeds are signed, ours are not; each signed number has one unsigned number of its own.
fn seed(fields: &mut Fields) -> Result<Option<u64>, FieldError> {
    let Some(value) = fields.take("seed") else {
        return Ok(None);
    };
    let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    let expected = "a whole number of at most 64 bits";
    seed.map(Some).ok_or_else(|| FieldError::WrongType { path: fields.path("seed"), expected })
}

/// Reads `stop`: absent, one string, or a list of them.
pub(super) fn stop(fields: &mut Fields) -> Result<Vec<String>, FieldError> {
    match fields.take("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(stop)) => Ok(vec![stop]),
        Some(Value::Array(list)) => {
            let texts = list.into_iter().enumerate();
            texts.map(|(index, text)| typed(&format!("stop[{index}]"), text)).collect()
        }
        Some(_) => Err(FieldError::WrongType {
            path: "stop".to_owned(),
            expected: "a string or a list of strings",
        }),
    }
}

/// Reads a limit of the completion, in tokens.
pub(super) fn token_limit(fields: &mut Fields, name: &str) -> Result<Option<Tokens>, FieldError> {
    let Some(limit) = fields.optional(name)?.map(Tokens::new) else { return Ok(None) };
    if limit == Tokens::ZERO || limit > limits::MAX_COMPLETION {
        // Checked here and not with the other bounds: only here is it known which name was used.
        return Err(FieldError::invalid(name, SpecError::BadMaxCompletion));
    }
    Ok(Some(limit))
}

/// Reads `stream` and `stream_options`.
pub(super) fn delivery(fields: &mut Fields) -> Result<Delivery, FieldError> {
    let stream = fields.optional("stream")?.unwrap_or(false);
    let options = match fields.take("stream_options") {
        None => None,
        Some(_) if !stream => {
            let reason = "only allowed together with `stream: true`";
            return Err(FieldError::invalid("stream_options", reason));
        }
        Some(value) => Some(Fields::of_value("stream_options", value)?),
    };
    let Some(mut options) = options else {
        return Ok(if stream { Delivery::Stream { usage: false } } else { Delivery::Whole });
    };
    let usage = options.optional("include_usage")?.unwrap_or(false);
    // Padding against eavesdroppers on the path to OpenAI; here the path is loopback or the
    // operator's own, and the session to the provider is padded by its own rules.
    options.ignore::<bool>("include_obfuscation")?;
    options.finish()?;
    Ok(Delivery::Stream { usage })
}

/// Reads what clients send to OpenAI for its own records: it changes nothing about an answer.
pub(super) fn without_effect(fields: &mut Fields) -> Result<(), FieldError> {
    fields.ignore::<String>("user")?;
    fields.ignore::<Map<String, Value>>("metadata")?;
    fields.ignore::<bool>("store")?;
    fields.ignore::<String>("service_tier")?;
    fields.ignore::<String>("safety_identifier")?;
    fields.ignore::<String>("prompt_cache_key")?;
    fields.ignore::<String>("prompt_cache_retention")
}

/// Reads `n`, of which one is served.
pub(super) fn one_answer(fields: &mut Fields) -> Result<(), FieldError> {
    let hint = ", or send the request again for another answer";
    fields.refuse("n", |value| value.as_u64() == Some(1), hint)
}
