//! From a request to tokens: the chat template, then the tokenizer, on a thread of its own, so that
//! a megabyte of prompt does not hold up the jobs that decode.
//!
//! Owns: what is refused before a job needs a place.
//! Must not: compute anything with the model's weights.

use cocoon_protocol::job::Prompt;

use super::batcher::Prepared;
use super::compute::Model;
use super::wire::{JobNumber, LoadFailure};
use crate::chat::ChatTemplate;
use crate::port::{EngineJob, SubmitError};
use crate::sampling::Sampler;
use crate::text::CompletionText;

/// The template of a loaded model.
pub(super) fn template(model: &Model) -> Result<ChatTemplate, LoadFailure> {
    let source = model.chat_template();
    ChatTemplate::new(source.as_deref(), &model.begin_text(), &model.end_text())
        .map_err(|_| LoadFailure::BadTemplate)
}

/// Renders and tokenises one job.
pub(super) fn prepare(
    model: &Model,
    template: &ChatTemplate,
    number: JobNumber,
    job: EngineJob,
) -> Result<Prepared, SubmitError> {
    let spec = job.spec;
    let text = match spec.prompt {
        Prompt::Text(text) => text,
        Prompt::Chat(turns) => {
            template
                .render(&turns, job.now)
                .map_err(|error| SubmitError::BadDialogue {
                    reason: error.to_string(),
                })?
        }
    };
    Ok(Prepared {
        number,
        prompt: model.tokenise(&text),
        scope: job.scope,
        max_completion: spec.max_completion,
        sampler: Sampler::new(spec.sampling),
        text: CompletionText::new(spec.stop),
    })
}
