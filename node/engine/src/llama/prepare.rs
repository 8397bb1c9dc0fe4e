//! From a request to tokens: the chat template, then the tokenizer, on a thread of its own, so that
//! a megabyte of prompt does not hold up the jobs that decode.
//!
//! Owns: what is refused before a job needs a place.
//! Must not: compute anything with the model's weights.

use std::borrow::Cow;
use std::thread;

use cocoon_protocol::job::Prompt;

use super::batcher::{Prepared, Token};
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

/// Stack that llama.cpp's tokenizer needs for nothing in particular.
const STACK_BYTES: usize = 4 << 20;
/// Stack that it may need for each byte of text. For some vocabularies (Mistral's `tekken`, for
/// one) it matches with `std::regex`, which calls itself for every character of a word: a word of
/// 10,000 letters, which is a legal prompt, overflows an ordinary stack and so ends the process.
/// Measured: under 500 bytes for each letter.
const STACK_BYTES_EACH: usize = 1_024;

/// Tokenises a prompt and the beginning of its answer on a thread with as much stack as both may take.
/// Address space only, until it is used, and given back with the thread. A machine without that much
/// refuses the job.
fn tokenise(model: &Model, text: &str, begun: &str) -> Result<(Vec<Token>, usize), SubmitError> {
    let bytes = text.len().saturating_add(begun.len());
    let stack = bytes.saturating_mul(STACK_BYTES_EACH).saturating_add(STACK_BYTES);
    thread::scope(|scope| {
        let tokens = thread::Builder::new()
            .name("tokenise".into())
            .stack_size(stack)
            .spawn_scoped(scope, || model.tokenise_begun(text, begun))
            .map_err(|_| SubmitError::Busy)?;
        tokens.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Renders and tokenises one job.
pub(super) fn prepare(
    model: &Model,
    template: &ChatTemplate,
    number: JobNumber,
    job: EngineJob,
) -> Result<Prepared, SubmitError> {
    let spec = job.spec;
    let (text, begun) = match &spec.prompt {
        Prompt::Text(text) => (Cow::Borrowed(text), None),
        Prompt::Chat(turns) => {
            let (turns, begun) = Prompt::begun(turns);
            let text = template
                .render(turns, job.now)
                .map_err(|error| SubmitError::BadDialogue { reason: error.to_string() })?;
            (Cow::Owned(text), begun)
        }
    };
    let (prompt, opening) = tokenise(model, &text, begun.unwrap_or_default())?;
    let written = prompt.get(opening..).unwrap_or_default();
    Ok(Prepared {
        number,
        scope: job.scope,
        max_completion: spec.max_completion,
        sampler: Sampler::new(spec.sampling).behind(written),
        prompt,
        text: CompletionText::new(spec.stop),
    })
}
