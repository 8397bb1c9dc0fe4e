//! What the engines' tests share: asking, reading an answer to its end, and the port's rules.
//!
//! Owns: the rules that every engine must keep, written once.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod rules;
pub(crate) mod tiny_gguf;

use std::time::Duration;

use cocoon_engine::{
    Engine, EngineFailure, EngineJob, Generated, Generation, PrefixScope, SubmitError,
};
use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::job::{FinishReason, JobSpec, Prompt, Role, Sampling, Turn, Usage};
use cocoon_protocol::units::{Timestamp, Tokens};
use tokio::sync::mpsc::Receiver;

/// As much as any job may ever generate.
pub(crate) const EVERYTHING: Tokens = Tokens::MAX;

/// A dialogue of one turn for `engine`'s model, likeliest tokens only.
pub(crate) fn job(engine: &dyn Engine, words: &str, max_completion: u32) -> EngineJob {
    let turn = Turn { role: Role::User, content: words.to_owned() };
    let sampling = Sampling { temperature: 0.0, ..Sampling::with_seed(7) };
    job_of(engine.capabilities().model, Prompt::Chat(vec![turn]), sampling, max_completion)
}

pub(crate) fn job_of(
    model: ModelHash,
    prompt: Prompt,
    sampling: Sampling,
    max_completion: u32,
) -> EngineJob {
    let max_completion = Tokens::new(max_completion);
    EngineJob {
        spec: JobSpec { model, prompt, sampling, stop: vec![], max_completion },
        scope: PrefixScope::LOCAL,
        now: Timestamp::EPOCH,
    }
}

/// What came of a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) prompt: Tokens,
    pub(crate) text: String,
    pub(crate) reason: FinishReason,
    pub(crate) completion: Tokens,
}

/// The next event, within a time that only a defect exceeds.
pub(crate) async fn next(events: &mut Receiver<Generated>) -> Option<Generated> {
    tokio::time::timeout(Duration::from_secs(60), events.recv()).await.expect("engine went silent")
}

/// Reads `Started`; returns the prompt's tokens, or why the job was refused late.
pub(crate) async fn started(events: &mut Receiver<Generated>) -> Result<Tokens, SubmitError> {
    match next(events).await {
        Some(Generated::Started { prompt }) => Ok(prompt),
        Some(Generated::Failed(EngineFailure::Refused(error))) => Err(error),
        other => panic!("expected Started, got {other:?}"),
    }
}

/// Reads exactly the next token's event and returns its text.
pub(crate) async fn token(events: &mut Receiver<Generated>, expected: u32) -> String {
    match next(events).await {
        Some(Generated::Text { text, completion }) => {
            assert_eq!(completion, Tokens::new(expected));
            text
        }
        other => panic!("expected token {expected}, got {other:?}"),
    }
}

/// Reads to the end and checks that the events agree with one another. `seen` tokens have been
/// read before.
pub(crate) async fn rest(
    events: &mut Receiver<Generated>,
    seen: u32,
) -> (String, FinishReason, Usage) {
    let (mut text, mut last) = (String::new(), Tokens::new(seen));
    loop {
        match next(events).await {
            Some(Generated::Text { text: piece, completion }) => {
                assert!(completion >= last, "counts never fall");
                assert!(completion.get() <= last.get() + 1, "every token is reported");
                (last, text) = (completion, text + &piece);
            }
            Some(Generated::Finished { reason, usage }) => {
                assert_eq!(usage.completion, last, "the last count is the final one");
                assert_eq!(next(events).await, None, "nothing follows the end");
                return (text, reason, usage);
            }
            other => panic!("expected text or the end, got {other:?}"),
        }
    }
}

/// Runs a job to its end without any limit.
pub(crate) async fn run(engine: &dyn Engine, job: EngineJob) -> Result<Answer, SubmitError> {
    let Generation { mut events, control } = engine.submit(job)?;
    let prompt = started(&mut events).await?;
    control.grant(EVERYTHING);
    let (text, reason, usage) = rest(&mut events, 0).await;
    assert_eq!(usage.prompt, prompt);
    Ok(Answer { prompt, text, reason, completion: usage.completion })
}

/// Polls until `condition` holds: for effects that no event announces, such as a dropped receiver.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), poll).await.unwrap_or_else(|_| panic!("{what}"));
}
