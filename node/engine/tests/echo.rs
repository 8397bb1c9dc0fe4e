//! The echo engine: the port's rules, and what only the echo promises.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use cocoon_engine::echo::EchoSettings;
use cocoon_engine::{EchoEngine, Engine as _, EngineFailure, Generated, Generation};
use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::job::{FinishReason, Prompt, Sampling};
use cocoon_protocol::units::Tokens;
use support::{Answer, EVERYTHING, job, job_of, next, rules, run, started, token};

fn settings() -> EchoSettings {
    EchoSettings::new(ModelHash::from_bytes([1; 32]))
}

#[tokio::test]
async fn the_rules_of_the_port_hold() {
    rules::all(&EchoEngine::new(settings())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_of_the_port_hold_on_several_threads() {
    rules::all(&EchoEngine::new(settings())).await;
}

#[tokio::test]
async fn it_repeats_the_last_turn_word_by_word() {
    let engine = EchoEngine::new(settings());
    let answer = run(&engine, job(&engine, "  say   this again ", 100)).await.unwrap();
    assert_eq!(
        answer,
        Answer {
            prompt: Tokens::new(3 + 4),
            text: "say this again".into(),
            reason: FinishReason::Stop,
            completion: Tokens::new(3),
        }
    );
    let text = Prompt::Text("raw text".into());
    let raw = job_of(settings().model, text, Sampling::with_seed(1), 2);
    let answer = run(&engine, raw).await.unwrap();
    assert_eq!((answer.prompt, answer.reason), (Tokens::new(2), FinishReason::Length));
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_before_itself() {
    let engine = EchoEngine::new(settings());
    let mut stopping = job(&engine, "alpha beta gamma delta", 100);
    stopping.spec.stop = vec!["a gam".into(), "never".into()];
    let answer = run(&engine, stopping).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.reason), ("alpha bet", FinishReason::Stop));
    assert_eq!(answer.completion, Tokens::new(3), "the tokens of a stop string are counted");
}

#[tokio::test]
async fn a_failure_on_order_leaves_what_was_streamed() {
    let fail_after = Some(Tokens::new(2));
    let engine = EchoEngine::new(EchoSettings { fail_after, ..settings() });
    let Generation { mut events, control } = engine.submit(job(&engine, "a b c", 9)).unwrap();
    started(&mut events).await.unwrap();
    control.grant(EVERYTHING);
    assert_eq!(token(&mut events, 1).await + &token(&mut events, 2).await, "a b");
    assert_eq!(next(&mut events).await, Some(Generated::Failed(EngineFailure::Crashed)));
    assert_eq!(next(&mut events).await, None);
    assert_eq!(engine.load().free(), 8);
}

#[tokio::test]
async fn a_delay_is_the_least_time_of_one_token() {
    let token_delay = Duration::from_millis(20);
    let engine = EchoEngine::new(EchoSettings { token_delay, ..settings() });
    let before = std::time::Instant::now();
    run(&engine, job(&engine, "one two three four", 4)).await.unwrap();
    assert!(before.elapsed() >= token_delay * 4);
}

#[tokio::test]
async fn dropping_the_engine_ends_its_jobs() {
    let engine = EchoEngine::new(settings());
    let Generation { mut events, control } = engine.submit(job(&engine, "a b", 9)).unwrap();
    started(&mut events).await.unwrap();
    drop(engine);
    control.grant(EVERYTHING);
    assert_eq!(next(&mut events).await, None);
}
