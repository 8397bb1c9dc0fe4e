//! Chat templates: from a dialogue to the text that the model was trained to continue.
//!
//! Owns: rendering `tokenizer.chat_template` (Jinja) with a bound on time and size.
//! Must not: load other templates, read a clock, or let a template's mistake be more than an error.
//!
//! llama.cpp's own matcher knows a fixed list of templates and gets most others wrong, so the
//! template is run by minijinja with what Hugging Face's renderer adds to plain Jinja:
//! <https://huggingface.co/docs/transformers/chat_templating_writing>.

mod date;
mod json;

use std::io;

use cocoon_protocol::job::Turn;
use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;
use minijinja::{Environment, Error, ErrorKind, Value, context};

/// Instructions that one rendering may take. A dialogue of the most turns takes a few hundred
/// thousand with the longest templates known; a template that loops for ever ends after about a
/// second.
const FUEL: u64 = 10_000_000;
/// Text that a rendering may give: the largest prompt, with room for a long template around every
/// turn. More is an error, since it means a template that multiplies its input.
const RENDERED_BYTES: usize = limits::PROMPT_BYTES * 4;
/// The template of models that bring none: ChatML, which most instruction-tuned models understand.
const CHATML: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}\
    {% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Why a template cannot be used, or a dialogue not be rendered. Holds no text of the dialogue:
/// `raise_exception` carries the template's own words only when they are a literal of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The template is not valid Jinja, or uses something that is not supported.
    #[error("the model's chat template cannot be compiled (line {line})")]
    BadTemplate {
        /// Where.
        line: usize,
    },
    /// The template refuses the dialogue by `raise_exception`: roles out of order, for example.
    #[error("{message}")]
    Refused {
        /// The template's own words.
        message: String,
    },
    /// The template failed on this dialogue.
    #[error("the template failed on line {line}")]
    Failed {
        /// Where.
        line: usize,
    },
    /// Rendering takes too many steps or gives too much text.
    #[error("rendering takes too long or gives too much text")]
    TooMuch,
}

/// The chat template of a model, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    literals: String,
    begin_of_text: String,
    end_of_text: String,
}

impl ChatTemplate {
    /// Compiles `source`, or ChatML when the model brings no template. `begin_of_text` and
    /// `end_of_text` are the texts of the model's special tokens; empty when it has none.
    pub fn new(
        source: Option<&str>,
        begin_of_text: &str,
        end_of_text: &str,
    ) -> Result<Self, ChatError> {
        let source = source.unwrap_or(CHATML);
        let mut environment = environment();
        environment
            .add_template_owned("chat", without_generation_tags(source))
            .map_err(|error| ChatError::BadTemplate { line: error.line().unwrap_or(0) })?;
        Ok(Self {
            environment,
            literals: source.to_owned(),
            begin_of_text: begin_of_text.to_owned(),
            end_of_text: end_of_text.to_owned(),
        })
    }

    /// The text for the model to continue, ending where the assistant's answer begins. `now` is
    /// the date for templates that tell the model which day it is.
    pub fn render(&self, turns: &[Turn], now: Timestamp) -> Result<String, ChatError> {
        let messages: Vec<_> = turns
            .iter()
            .map(|turn| context! { role => turn.role.as_str(), content => turn.content.as_str() })
            .collect();
        let today = Value::from_function(move |format: String| date::format(&format, now));
        let template =
            self.environment.get_template("chat").map_err(|error| self.explain(&error, false))?;
        let mut rendered = Bounded::default();
        let result = template.render_captured_to(
            context! {
                messages => messages,
                add_generation_prompt => true,
                bos_token => self.begin_of_text.as_str(),
                eos_token => self.end_of_text.as_str(),
                strftime_now => today,
            },
            &mut rendered,
        );
        if let Err(error) = result {
            return Err(self.explain(&error, rendered.overflowed));
        }
        // The template and every string in it are UTF-8; a writer sees them in whole pieces.
        String::from_utf8(rendered.bytes).map_err(|_| ChatError::Failed { line: 0 })
    }

    fn explain(&self, error: &Error, overflowed: bool) -> ChatError {
        if overflowed || error.kind() == ErrorKind::OutOfFuel {
            return ChatError::TooMuch;
        }
        let line = error.line().unwrap_or(0);
        match error.detail().and_then(|detail| detail.strip_prefix(RAISED)) {
            // Words that the template put together may quote the dialogue; only literals pass.
            Some(message) if self.literals.contains(message) => {
                let message = message.chars().filter(|c| !c.is_control()).take(200).collect();
                ChatError::Refused { message }
            }
            _ => ChatError::Failed { line },
        }
    }
}

/// Marks the errors that `raise_exception` made.
const RAISED: &str = "raised: ";

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // Hugging Face renders with these two set.
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", json::to_json);
    environment.add_function("raise_exception", |message: &str| -> Result<(), Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
    });
    environment
}

/// Rewrites `{% generation %}` blocks, which mark the assistant's text for training and do nothing
/// when rendering, into blocks that are always true.
fn without_generation_tags(source: &str) -> String {
    let mut rewritten = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        let Some((tag, after)) = tag.split_once("%}") else {
            break;
        };
        let name = tag.trim_matches(['-', '+']).trim();
        let replaced = match name {
            "generation" => tag.replace("generation", "if true"),
            "endgeneration" => tag.replace("endgeneration", "endif"),
            _ => tag.to_owned(),
        };
        rewritten.push_str(before);
        rewritten.push_str("{%");
        rewritten.push_str(&replaced);
        rewritten.push_str("%}");
        rest = after;
    }
    rewritten.push_str(rest);
    rewritten
}

/// A writer that refuses to grow beyond [`RENDERED_BYTES`].
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > RENDERED_BYTES {
            self.overflowed = true;
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
