//! `POST /v1/completions`: raw text, continued as it stands.
//!
//! Owns: the endpoint's fields.
//! Must not: apply a chat template.

use axum::http::HeaderMap;
use cocoon_protocol::job::Prompt;
use cocoon_protocol::units::Tokens;
use serde_json::Value;

use super::{Asked, Endpoint, knobs, shared};
use crate::fields::{FieldError, Fields, NotServed};
use crate::port::JobRequest;

/// OpenAI's documented default of this endpoint; clients rely on it being short.
const DEFAULT_MAX_TOKENS: Tokens = Tokens::new(16);

/// OpenAI's fields that are not served yet, and the values that ask for nothing.
const NOT_SERVED: [NotServed; 5] = [
    ("best_of", |value| value.as_u64() == Some(1)),
    ("echo", |_| false),
    ("logprobs", |_| false),
    ("logit_bias", |_| false),
    ("suffix", |_| false),
];

/// Reads a completion request.
pub(super) fn read(
    body: &[u8],
    headers: &HeaderMap,
    random_seed: u64,
) -> Result<Asked, FieldError> {
    let mut fields = Fields::of_body(body)?;
    let model = shared::model(&mut fields)?;
    let prompt = prompt(&mut fields)?;
    let sampling = shared::sampling(&mut fields, random_seed)?;
    let stop = shared::stop(&mut fields)?;
    let max_completion = shared::token_limit(&mut fields, "max_tokens")?;
    let delivery = shared::delivery(&mut fields)?;
    let knobs = knobs::read(&mut fields, headers)?;
    shared::one_answer(&mut fields)?;
    shared::without_effect(&mut fields)?;
    for (name, neutral) in NOT_SERVED {
        fields.refuse(name, neutral, "")?;
    }
    fields.finish()?;
    let request = JobRequest {
        model,
        prompt: Prompt::Text(prompt),
        sampling,
        stop,
        max_completion: Some(max_completion.unwrap_or(DEFAULT_MAX_TOKENS)),
        minimum_tier: knobs.minimum_tier,
        max_cost: knobs.max_cost,
        caller: None,
    };
    Ok(Asked { endpoint: Endpoint::Completion, request, delivery })
}

/// A string, or a list of exactly one: several prompts would be several jobs with several prices.
fn prompt(fields: &mut Fields) -> Result<String, FieldError> {
    let path = "prompt";
    let expected = "a string, or a list of one string";
    let wrong = || FieldError::WrongType { path: path.to_owned(), expected };
    match fields.take(path) {
        None => Err(FieldError::Missing(path.to_owned())),
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(list)) => {
            if list.len() > 1 && list.iter().all(Value::is_string) {
                let reason = "one prompt per request is served; send one request for each";
                return Err(FieldError::invalid(path, reason));
            }
            match <[Value; 1]>::try_from(list) {
                Ok([Value::String(text)]) => Ok(text),
                Ok(_) | Err(_) => Err(wrong()),
            }
        }
        Some(_) => Err(wrong()),
    }
}
