//! OpenAI's answer objects, field for field.
//!
//! Owns: names, nesting and order of fields.
//! Must not: decide what is sent when.

use cocoon_protocol::job::Usage;
use serde::Serialize;

use super::{Frame, Provenance};
use crate::request::Endpoint;

/// A whole answer or a chunk of one; they differ in `object` and in their choices.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: (),
    choices: Vec<Choice<'a>>,
    /// Absent when nobody asked; null on all chunks but the last when somebody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageCounts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cocoon: Option<&'a Provenance>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Choice<'a> {
    Message { index: u8, message: Message<'a>, logprobs: (), finish_reason: &'static str },
    Delta { index: u8, delta: Delta<'a>, logprobs: (), finish_reason: Option<&'static str> },
    Text { index: u8, text: &'a str, logprobs: (), finish_reason: Option<&'static str> },
}

/// The message of a whole chat answer.
#[derive(Debug, Serialize)]
pub(super) struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: (),
    annotations: [(); 0],
}

/// What a chunk adds to the message.
#[derive(Debug, Serialize)]
pub(super) struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// OpenAI's token counts.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct UsageCounts {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
}

impl From<Usage> for UsageCounts {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt.get(),
            completion_tokens: usage.completion.get(),
            total_tokens: usage.prompt.saturating_add(usage.completion).get(),
        }
    }
}

impl Frame {
    /// The whole answer.
    pub(super) fn whole<'a>(
        &'a self,
        text: &'a str,
        finish_reason: &'static str,
        usage: Usage,
    ) -> Answer<'a> {
        let choice = match self.endpoint {
            Endpoint::Chat => {
                let message =
                    Message { role: "assistant", content: text, refusal: (), annotations: [] };
                Choice::Message { index: 0, message, logprobs: (), finish_reason }
            }
            Endpoint::Completion => {
                Choice::Text { index: 0, text, logprobs: (), finish_reason: Some(finish_reason) }
            }
        };
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion",
            Endpoint::Completion => "text_completion",
        };
        let usage = Some(Some(usage.into()));
        self.answer(object, vec![choice], usage, Some(&self.provenance))
    }

    /// The chunk that opens a chat answer, before any text; the other endpoint has none.
    pub(super) fn opening(&self, with_usage: bool) -> Option<Answer<'_>> {
        match self.endpoint {
            Endpoint::Chat => {
                let delta = Delta { role: Some("assistant"), content: Some("") };
                let choice = Choice::Delta { index: 0, delta, logprobs: (), finish_reason: None };
                Some(self.chunk(vec![choice], with_usage.then_some(None), None))
            }
            Endpoint::Completion => None,
        }
    }

    /// A chunk of text.
    pub(super) fn text<'a>(&'a self, text: &'a str, with_usage: bool) -> Answer<'a> {
        let choice = match self.endpoint {
            Endpoint::Chat => {
                let delta = Delta { role: None, content: Some(text) };
                Choice::Delta { index: 0, delta, logprobs: (), finish_reason: None }
            }
            Endpoint::Completion => {
                Choice::Text { index: 0, text, logprobs: (), finish_reason: None }
            }
        };
        self.chunk(vec![choice], with_usage.then_some(None), None)
    }

    /// The chunk that says why the answer ends.
    pub(super) fn closing(&self, finish_reason: &'static str, with_usage: bool) -> Answer<'_> {
        let finish_reason = Some(finish_reason);
        let choice = match self.endpoint {
            Endpoint::Chat => {
                let delta = Delta { role: None, content: None };
                Choice::Delta { index: 0, delta, logprobs: (), finish_reason }
            }
            Endpoint::Completion => {
                Choice::Text { index: 0, text: "", logprobs: (), finish_reason }
            }
        };
        self.chunk(vec![choice], with_usage.then_some(None), Some(&self.provenance))
    }

    /// The chunk after the last, with the token counts that the client asked for.
    pub(super) fn counts(&self, usage: Usage) -> Answer<'_> {
        self.chunk(Vec::new(), Some(Some(usage.into())), Some(&self.provenance))
    }

    fn chunk<'a>(
        &'a self,
        choices: Vec<Choice<'a>>,
        usage: Option<Option<UsageCounts>>,
        cocoon: Option<&'a Provenance>,
    ) -> Answer<'a> {
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completion => "text_completion",
        };
        self.answer(object, choices, usage, cocoon)
    }

    fn answer<'a>(
        &'a self,
        object: &'static str,
        choices: Vec<Choice<'a>>,
        usage: Option<Option<UsageCounts>>,
        cocoon: Option<&'a Provenance>,
    ) -> Answer<'a> {
        Answer {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            system_fingerprint: (),
            choices,
            usage,
            cocoon,
        }
    }
}
