//! From an HTTP request's bytes to a [`JobRequest`].
//!
//! Owns: which of OpenAI's fields are served, accepted without effect, or refused by name.
//! Must not: look into the text of a prompt, or know how an answer is written.

mod chat;
mod completion;
mod knobs;
mod shared;

use axum::http::HeaderMap;
use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::job::{JobSpec, SpecError};
use cocoon_protocol::units::Tokens;

use crate::fields::FieldError;
use crate::port::JobRequest;

/// The endpoints that run a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/completions`
    Completion,
}

impl Endpoint {
    /// The field that holds the prompt.
    pub(crate) const fn prompt_field(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Completion => "prompt",
        }
    }
}

/// What a client asked for: the job, and how it wants to read the answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) endpoint: Endpoint,
    pub(crate) request: JobRequest,
    pub(crate) delivery: Delivery,
}

/// How the answer is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// One JSON document at the end.
    Whole,
    /// Server-sent events; with `usage`, one more chunk at the end carries the token counts.
    Stream { usage: bool },
}

/// Reads a request. `random_seed` is used when the client gives none.
pub(crate) fn read(
    endpoint: Endpoint,
    body: &[u8],
    headers: &HeaderMap,
    random_seed: u64,
) -> Result<Asked, FieldError> {
    let asked = match endpoint {
        Endpoint::Chat => chat::read(body, headers, random_seed)?,
        Endpoint::Completion => completion::read(body, headers, random_seed)?,
    };
    Ok(Asked { request: check_bounds(asked.request, endpoint)?, ..asked })
}

/// Applies the protocol's own bounds, so that a job which every provider would refuse is refused
/// here, with the name of the field.
fn check_bounds(request: JobRequest, endpoint: Endpoint) -> Result<JobRequest, FieldError> {
    let spec = JobSpec {
        // Neither the model nor an absent limit is bounded here; both get a lawful stand-in.
        model: ModelHash::from_bytes([0; 32]),
        prompt: request.prompt,
        sampling: request.sampling,
        stop: request.stop,
        max_completion: request.max_completion.unwrap_or(Tokens::new(1)),
    };
    spec.check().map_err(|error| named(error, endpoint))?;
    Ok(JobRequest {
        model: request.model,
        prompt: spec.prompt,
        sampling: spec.sampling,
        stop: spec.stop,
        max_completion: request.max_completion,
        minimum_tier: request.minimum_tier,
        max_cost: request.max_cost,
        caller: request.caller,
    })
}

fn named(error: SpecError, endpoint: Endpoint) -> FieldError {
    let prompt = endpoint.prompt_field();
    match error {
        SpecError::PromptTooLong { .. } => {
            FieldError::TooLong { path: prompt.to_owned(), reason: error.to_string() }
        }
        SpecError::EmptyPrompt | SpecError::TooManyTurns { .. } => {
            FieldError::invalid(prompt, error)
        }
        SpecError::TooManyStops { .. } | SpecError::BadStop => FieldError::invalid("stop", error),
        SpecError::BadMaxCompletion => FieldError::invalid("max_tokens", error),
        SpecError::BadSampling { field, .. } => FieldError::invalid(field, error),
    }
}
