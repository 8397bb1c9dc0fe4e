//! What a consumer asks of an engine, and what came out in numbers.
//!
//! Owns: the request's shape and its bounds.
//! Must not: know HTTP's spelling of it (gateway) or the wire's (wire/convert).

use std::fmt;

use crate::identity::ModelHash;
use crate::limits;
use crate::units::Tokens;

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions for the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that chat templates know.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a dialogue.
#[derive(Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl fmt::Debug for Turn {
    /// Never the text: debug output may reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turn({}, {} bytes)", self.role.as_str(), self.content.len())
    }
}

/// The text that a model is to continue.
#[derive(Clone, PartialEq, Eq)]
pub enum Prompt {
    /// A dialogue, rendered by the provider with the model's own chat template. Where the last turn is
    /// the assistant's, it is the beginning of the answer: the model goes on with it.
    Chat(Vec<Turn>),
    /// Raw text, continued as it stands.
    Text(String),
}

impl Prompt {
    /// The prompt whose answer goes on where this text of this prompt's answer ends: for a provider that
    /// takes over from one that was lost.
    #[must_use]
    pub fn continued(&self, answer: &str) -> Self {
        match self {
            Self::Text(text) => Self::Text([text.as_str(), answer].concat()),
            Self::Chat(turns) => {
                let mut turns = turns.clone();
                match turns.last_mut() {
                    Some(last) if last.role == Role::Assistant => last.content.push_str(answer),
                    Some(_) | None => {
                        turns.push(Turn { role: Role::Assistant, content: answer.to_owned() });
                    }
                }
                Self::Chat(turns)
            }
        }
    }

    /// A dialogue's turns before the beginning of its answer, and that beginning, if it has one.
    pub fn begun(turns: &[Turn]) -> (&[Turn], Option<&str>) {
        match turns.split_last() {
            Some((last, before)) if last.role == Role::Assistant => (before, Some(&last.content)),
            Some(_) | None => (turns, None),
        }
    }

    /// Bytes of text, all turns together.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Chat(turns) => {
                turns.iter().fold(0, |sum, turn| turn.content.len().saturating_add(sum))
            }
            Self::Text(text) => text.len(),
        }
    }

    /// More tokens than an honest tokenizer can make of this prompt: one for each byte (byte-level
    /// vocabularies never make more), 16 for the template around each turn, and 256 for a preamble
    /// that the template brings itself. A consumer that has not got the tokenizer refuses to pay
    /// for more.
    pub fn tokens_at_most(&self) -> Tokens {
        let turns = match self {
            Self::Chat(turns) => turns.len(),
            Self::Text(_) => 1,
        };
        let template = turns.saturating_mul(16).saturating_add(256);
        let bound = self.text_bytes().saturating_add(template);
        Tokens::new(u32::try_from(bound).unwrap_or(u32::MAX))
    }
}

impl fmt::Debug for Prompt {
    /// Never the text: debug output may reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chat(turns) => write!(f, "Chat({} turns)", turns.len()),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
        }
    }
}

/// How the next token is drawn. The order of the steps is fixed: penalties, top-k, top-p, min-p,
/// temperature, then a draw from a generator seeded with `seed`. Part of the receipt, so that an
/// auditor can repeat the draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token; OpenAI's range is 0 to 2.
    pub temperature: f32,
    /// Keep the likeliest tokens whose probabilities sum to this; 1 keeps all.
    pub top_p: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Drop tokens less likely than this fraction of the likeliest; 0 keeps all.
    pub min_p: f32,
    /// OpenAI's frequency penalty, −2 to 2.
    pub frequency_penalty: f32,
    /// OpenAI's presence penalty, −2 to 2.
    pub presence_penalty: f32,
    /// Seed of the draw; committed in the receipt.
    pub seed: u64,
}

impl Sampling {
    /// OpenAI's defaults with the given seed.
    pub const fn with_seed(seed: u64) -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed,
        }
    }
}

/// A whole request, as it travels to the provider.
#[derive(Clone, PartialEq)]
pub struct JobSpec {
    /// Which model.
    pub model: ModelHash,
    /// The text to continue.
    pub prompt: Prompt,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The completion ends before the first of these.
    pub stop: Vec<String>,
    /// The completion ends after this many tokens.
    pub max_completion: Tokens,
}

impl fmt::Debug for JobSpec {
    /// Never a text: stop strings are the user's words too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobSpec")
            .field("model", &self.model)
            .field("prompt", &self.prompt)
            .field("stops", &self.stop.len())
            .field("max_completion", &self.max_completion)
            .finish_non_exhaustive()
    }
}

/// Which bound a request breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No turn, or no text at all.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// More text than `limits::PROMPT_BYTES`.
    #[error("the prompt has {bytes} bytes; at most {} are served", limits::PROMPT_BYTES)]
    PromptTooLong {
        /// Bytes of text.
        bytes: usize,
    },
    /// More turns than `limits::PROMPT_TURNS`.
    #[error("the prompt has {turns} turns; at most {} are served", limits::PROMPT_TURNS)]
    TooManyTurns {
        /// Turns in the dialogue.
        turns: usize,
    },
    /// More stop strings than `limits::STOP_STRINGS`.
    #[error("{count} stop strings; at most {} are served", limits::STOP_STRINGS)]
    TooManyStops {
        /// Stop strings given.
        count: usize,
    },
    /// A stop string is empty or longer than `limits::STOP_STRING_BYTES`.
    #[error("a stop string must have 1 to {} bytes", limits::STOP_STRING_BYTES)]
    BadStop,
    /// Zero, or more than `limits::MAX_COMPLETION`.
    #[error("the completion's limit must be 1 to {} tokens", limits::MAX_COMPLETION)]
    BadMaxCompletion,
    /// A number of the sampling is not finite or out of its range.
    #[error("`{field}` must be between {min} and {max}")]
    BadSampling {
        /// OpenAI's name of the field.
        field: &'static str,
        /// Smallest legal value.
        min: i8,
        /// Largest legal value.
        max: i8,
    },
}

impl JobSpec {
    /// Checks every bound. Both sides call it: the consumer for a good error, the provider because
    /// a peer's word is not enough.
    pub fn check(&self) -> Result<(), SpecError> {
        let bytes = self.prompt.text_bytes();
        if bytes > limits::PROMPT_BYTES {
            return Err(SpecError::PromptTooLong { bytes });
        }
        match &self.prompt {
            Prompt::Chat(turns) if turns.is_empty() => return Err(SpecError::EmptyPrompt),
            Prompt::Chat(turns) if turns.len() > limits::PROMPT_TURNS => {
                return Err(SpecError::TooManyTurns { turns: turns.len() });
            }
            Prompt::Text(text) if text.is_empty() => return Err(SpecError::EmptyPrompt),
            Prompt::Chat(_) | Prompt::Text(_) => {}
        }
        if self.stop.len() > limits::STOP_STRINGS {
            return Err(SpecError::TooManyStops { count: self.stop.len() });
        }
        if self.stop.iter().any(|stop| stop.is_empty() || stop.len() > limits::STOP_STRING_BYTES) {
            return Err(SpecError::BadStop);
        }
        if self.max_completion == Tokens::ZERO || self.max_completion > limits::MAX_COMPLETION {
            return Err(SpecError::BadMaxCompletion);
        }
        self.sampling.check()
    }
}

impl Sampling {
    /// Checks that every number is finite and in OpenAI's range.
    pub fn check(&self) -> Result<(), SpecError> {
        let ranges = [
            ("temperature", self.temperature, 0, 2),
            ("top_p", self.top_p, 0, 1),
            ("min_p", self.min_p, 0, 1),
            ("frequency_penalty", self.frequency_penalty, -2, 2),
            ("presence_penalty", self.presence_penalty, -2, 2),
        ];
        for (field, value, min, max) in ranges {
            // NaN fails the comparison and is refused with the rest.
            if !(f32::from(min)..=f32::from(max)).contains(&value) {
                return Err(SpecError::BadSampling { field, min, max });
            }
        }
        Ok(())
    }
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model's own end, or a stop string.
    Stop,
    /// The limit of tokens, or the end of the context.
    Length,
    /// The consumer asked for it.
    Cancelled,
    /// The consumer stopped paying.
    Unpaid,
    /// The engine failed.
    Failed,
    /// The provider is shutting down.
    Draining,
}

impl FinishReason {
    /// The name in receipts, logs and, where OpenAI has the word, in HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Unpaid => "unpaid",
            Self::Failed => "failed",
            Self::Draining => "draining",
        }
    }
}

/// Tokens read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Usage {
    /// Tokens of the prompt after the template.
    pub prompt: Tokens,
    /// Tokens of the completion.
    pub completion: Tokens,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> JobSpec {
        JobSpec {
            model: ModelHash::from_bytes([1; 32]),
            prompt: Prompt::Text("hello".into()),
            sampling: Sampling::with_seed(1),
            stop: vec![],
            max_completion: Tokens::new(16),
        }
    }

    #[test]
    fn a_plain_request_passes() {
        assert_eq!(spec().check(), Ok(()));
    }

    #[test]
    fn every_bound_is_checked() {
        let with = |change: fn(&mut JobSpec)| {
            let mut spec = spec();
            change(&mut spec);
            spec.check().unwrap_err()
        };
        assert_eq!(with(|s| s.prompt = Prompt::Text(String::new())), SpecError::EmptyPrompt);
        assert_eq!(with(|s| s.prompt = Prompt::Chat(vec![])), SpecError::EmptyPrompt);
        assert!(matches!(
            with(|s| s.prompt = Prompt::Text("x".repeat(limits::PROMPT_BYTES + 1))),
            SpecError::PromptTooLong { .. }
        ));
        assert!(matches!(
            with(|s| {
                let turn = Turn { role: Role::User, content: "x".into() };
                s.prompt = Prompt::Chat(vec![turn; limits::PROMPT_TURNS + 1]);
            }),
            SpecError::TooManyTurns { .. }
        ));
        assert_eq!(with(|s| s.stop = vec![String::new()]), SpecError::BadStop);
        assert_eq!(with(|s| s.stop = vec!["x".into(); 9]), SpecError::TooManyStops { count: 9 });
        assert_eq!(with(|s| s.max_completion = Tokens::ZERO), SpecError::BadMaxCompletion);
        assert!(matches!(
            with(|s| s.sampling.temperature = f32::NAN),
            SpecError::BadSampling { field: "temperature", .. }
        ));
        assert!(matches!(
            with(|s| s.sampling.top_p = 1.5),
            SpecError::BadSampling { field: "top_p", .. }
        ));
    }

    #[test]
    fn a_continued_prompt_ends_with_what_came_of_its_answer() {
        let said = |role, content: &str| Turn { role, content: content.into() };
        let asked = Prompt::Chat(vec![said(Role::User, "count")]);
        let begun = Prompt::Chat(vec![said(Role::User, "count"), said(Role::Assistant, "1, 2")]);
        assert_eq!(asked.continued("1, 2"), begun);
        assert_eq!(asked.continued("1").continued(", 2"), begun, "twice lost");
        let text = Prompt::Text("Once".into()).continued(" upon");
        assert_eq!(text, Prompt::Text("Once upon".into()));
        let Prompt::Chat(turns) = begun else { unreachable!() };
        assert_eq!(Prompt::begun(&turns), (&turns[..1], Some("1, 2")));
        assert_eq!(Prompt::begun(&turns[..1]), (&turns[..1], None));
    }

    #[test]
    fn debug_output_never_holds_the_prompt() {
        let mut spec = spec();
        spec.prompt = Prompt::Chat(vec![Turn { role: Role::User, content: "secret".into() }]);
        assert!(!format!("{spec:?}").contains("secret"));
    }
}
