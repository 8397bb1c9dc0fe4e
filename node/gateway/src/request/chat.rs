//! `POST /v1/chat/completions`: fields and messages.
//!
//! Owns: the dialogue's spelling.
//! Must not: render it; the provider does, with the model's own template.

use axum::http::HeaderMap;
use cocoon_protocol::job::{Prompt, Role, Turn};
use cocoon_protocol::units::Tokens;
use serde_json::{Value, json};

use super::{Asked, Endpoint, knobs, shared};
use crate::fields::{FieldError, Fields, NotServed, typed};
use crate::port::JobRequest;

const NEVER: fn(&Value) -> bool = |_| false;

/// OpenAI's fields that are not served yet, and the values that ask for nothing.
const NOT_SERVED: [NotServed; 16] = [
    ("tools", NEVER),
    ("tool_choice", |value| value == "none" || value == "auto"),
    ("parallel_tool_calls", Value::is_boolean),
    ("functions", NEVER),
    ("function_call", |value| value == "none" || value == "auto"),
    ("response_format", |value| *value == json!({ "type": "text" })),
    ("logprobs", NEVER),
    ("top_logprobs", |value| value.as_u64() == Some(0)),
    ("logit_bias", NEVER),
    ("modalities", |value| *value == json!(["text"])),
    ("audio", NEVER),
    ("prediction", NEVER),
    ("reasoning_effort", NEVER),
    ("verbosity", NEVER),
    ("moderation", NEVER),
    ("web_search_options", NEVER),
];

/// Fields of a message that are not served yet. Clients repeat a whole answer as the next prompt,
/// so each may be there and empty.
const MESSAGE_NOT_SERVED: [&str; 7] =
    ["name", "refusal", "audio", "annotations", "function_call", "tool_calls", "reasoning_content"];

/// Reads a chat request.
pub(super) fn read(
    body: &[u8],
    headers: &HeaderMap,
    random_seed: u64,
) -> Result<Asked, FieldError> {
    let mut fields = Fields::of_body(body)?;
    let model = shared::model(&mut fields)?;
    let prompt = messages(&mut fields)?;
    let sampling = shared::sampling(&mut fields, random_seed)?;
    let stop = shared::stop(&mut fields)?;
    let max_completion = max_completion(&mut fields)?;
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
        prompt: Prompt::Chat(prompt),
        sampling,
        stop,
        max_completion,
        minimum_tier: knobs.minimum_tier,
        max_cost: knobs.max_cost,
        caller: None,
    };
    Ok(Asked { endpoint: Endpoint::Chat, request, delivery })
}

/// `max_tokens` is the old name of `max_completion_tokens`; both may be there if they agree.
fn max_completion(fields: &mut Fields) -> Result<Option<Tokens>, FieldError> {
    let old = shared::token_limit(fields, "max_tokens")?;
    let new = shared::token_limit(fields, "max_completion_tokens")?;
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        let reason = "differs from `max_completion_tokens`; send only that one";
        return Err(FieldError::invalid("max_tokens", reason));
    }
    Ok(new.or(old))
}

fn messages(fields: &mut Fields) -> Result<Vec<Turn>, FieldError> {
    let list: Vec<Value> = fields.required("messages")?;
    list.into_iter().enumerate().map(|(index, value)| message(index, value)).collect()
}

fn message(index: usize, value: Value) -> Result<Turn, FieldError> {
    let path = format!("messages[{index}]");
    let mut fields = Fields::of_value(&path, value)?;
    let role: String = fields.required("role")?;
    let role = match role.as_str() {
        // OpenAI's newer name for the same role; chat templates know the old one.
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "function" => {
            let hint = ": tools are not served";
            return Err(FieldError::NotServed { path: format!("{path}.role"), hint });
        }
        _ => {
            let reason = "use system, developer, user or assistant";
            return Err(FieldError::invalid(&format!("{path}.role"), reason));
        }
    };
    for name in MESSAGE_NOT_SERVED {
        fields.refuse(name, NEVER, "")?;
    }
    let content = fields.take("content");
    fields.finish()?;
    let path = format!("{path}.content");
    let content = content.ok_or_else(|| FieldError::Missing(path.clone()))?;
    Ok(Turn { role, content: text_of(&path, content)? })
}

/// A message's content: a string, or a list of parts, of which only text is served.
fn text_of(path: &str, content: Value) -> Result<String, FieldError> {
    match content {
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let texts = parts.into_iter().enumerate();
            texts.map(|(index, part)| text_of_part(&format!("{path}[{index}]"), part)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            let expected = "a string or a list of text parts";
            Err(FieldError::WrongType { path: path.to_owned(), expected })
        }
    }
}

fn text_of_part(path: &str, part: Value) -> Result<String, FieldError> {
    let mut fields = Fields::of_value(path, part)?;
    let kind: String = fields.required("type")?;
    if kind != "text" {
        let hint = ": only parts of type `text` are served";
        return Err(FieldError::NotServed { path: format!("{path}.type"), hint });
    }
    let text = fields.take("text").ok_or_else(|| FieldError::Missing(format!("{path}.text")))?;
    fields.finish()?;
    typed(&format!("{path}.text"), text)
}
