//! llama.cpp through a real worker process, with a generated model: the port's rules, and crashes.

#![cfg(feature = "llama")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cocoon_engine::catalogue::Model;
use cocoon_engine::gguf::Metadata;
use cocoon_engine::hashing::{HashCache, hash_file};
use cocoon_engine::llama::{LlamaSettings, LoadFailure, StartError, Status};
use cocoon_engine::{
    Engine as _, EngineFailure, EngineJob, Generated, Generation, LlamaEngine, PrefixScope,
    SubmitError,
};
use cocoon_protocol::identity::{ModelHash, NodeId};
use cocoon_protocol::job::{FinishReason, Prompt, Sampling};
use cocoon_protocol::units::Tokens;
use support::rules::{self, LONG};
use support::tiny_gguf::Tokenizer;
use support::{EVERYTHING, job, job_of, next, rest, run, started, tiny_gguf, token};
use tempfile::TempDir;

/// A model's file and how to run it; the file goes when this does.
struct Fixture {
    folder: TempDir,
    settings: LlamaSettings,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Tokenizer::SentencePiece)
    }

    fn with(tokenizer: Tokenizer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        let model = tiny_gguf::write(&path, tokenizer, 42);
        let worker = PathBuf::from(env!("CARGO_BIN_EXE_cocoon-engine-test-worker"));
        let settings = LlamaSettings {
            context: Tokens::new(4_096),
            threads: 1,
            ..LlamaSettings::new(path, model, worker)
        };
        Self { folder, settings }
    }

    async fn start(&self) -> LlamaEngine {
        LlamaEngine::start(self.settings.clone()).await.unwrap()
    }
}

fn raw(engine: &LlamaEngine, text: &str, sampling: Sampling, max_completion: u32) -> EngineJob {
    let model = engine.capabilities().model;
    job_of(model, Prompt::Text(text.to_owned()), sampling, max_completion)
}

fn signal(engine: &LlamaEngine, signal: &str) {
    let process = engine.worker_process().expect("a worker runs").to_string();
    assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
}

/// Waits until a worker is ready again, after one has ended.
async fn restarted(engine: &LlamaEngine) {
    let mut status = engine.status();
    let ready = status.wait_for(|status| matches!(status, Status::Ready { .. }));
    tokio::time::timeout(Duration::from_secs(60), ready).await.expect("no restart").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_of_the_port_hold() {
    let fixture = Fixture::new();
    rules::all(&fixture.start().await).await;
}

#[tokio::test]
async fn what_it_serves_is_stated() {
    let fixture = Fixture::new();
    let engine = fixture.start().await;
    let capabilities = engine.capabilities();
    assert_eq!(capabilities.model, fixture.settings.model);
    assert_eq!(capabilities.context, Tokens::new(4_096));
    assert!(capabilities.build.starts_with("llama.cpp"));
    let larger = LlamaSettings { context: Tokens::new(1 << 20), ..fixture.settings.clone() };
    let engine = LlamaEngine::start(larger).await.unwrap();
    assert_eq!(engine.capabilities().context, Tokens::new(tiny_gguf::CONTEXT));
}

#[tokio::test]
async fn the_prompt_is_templated_and_begins_once() {
    let fixture = Fixture::new();
    let engine = fixture.start().await;
    // `<s>`, then ChatML around five bytes of text: each marker is one token, each byte is one.
    let chat = run(&engine, job(&engine, "a b\nc", 1)).await.unwrap();
    let template = 1 + "user\n".len() + "a b\nc".len() + 1 + 1 + 1 + "assistant\n".len();
    assert_eq!(chat.prompt, Tokens::new(1 + u32::try_from(template).unwrap()));
    let text = run(&engine, raw(&engine, "abc", Sampling::with_seed(1), 1)).await.unwrap();
    assert_eq!(text.prompt, Tokens::new(1 + 3));
    let begun = run(&engine, raw(&engine, "<s>abc", Sampling::with_seed(1), 1)).await.unwrap();
    assert_eq!(begun.prompt, Tokens::new(1 + 3));
}

#[tokio::test]
async fn the_same_seed_alone_in_the_engine_gives_the_same_answer() {
    let fixture = Fixture::new();
    let sampling = Sampling { temperature: 1.5, ..Sampling::with_seed(11) };
    let answer = async |sampling| {
        let engine = fixture.start().await;
        run(&engine, raw(&engine, "seed", sampling, 40)).await.unwrap()
    };
    let first = answer(sampling).await;
    assert_eq!(first, answer(sampling).await);
    let other = answer(Sampling { seed: 12, ..sampling }).await;
    assert_ne!(first.text, other.text);
}

#[tokio::test]
async fn a_shared_beginning_changes_no_answer() {
    let fixture = Fixture::new();
    let engine = fixture.start().await;
    let greedy = Sampling { temperature: 0.0, ..Sampling::with_seed(1) };
    let ask = async |text: &str| run(&engine, raw(&engine, text, greedy, 12)).await.unwrap();
    let first = ask(LONG).await;
    assert_eq!(ask(LONG).await, first, "all but the last token reused");
    let longer = ask(&format!("{LONG} and more")).await;
    let mut foreign = raw(&engine, &format!("{LONG} and more"), greedy, 12);
    foreign.scope = PrefixScope::of(NodeId::from_bytes([1; 32]));
    assert_eq!(run(&engine, foreign).await.unwrap(), longer, "computed anew for a stranger");
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_before_itself() {
    let fixture = Fixture::new();
    let engine = fixture.start().await;
    let greedy = Sampling { temperature: 0.0, ..Sampling::with_seed(1) };
    let whole = run(&engine, raw(&engine, "stop", greedy, 60)).await.unwrap();
    // The model writes noise: any character of it will do, and it is first met at its first place.
    let stop = whole.text.chars().nth(20).unwrap().to_string();
    let mut stopping = raw(&engine, "stop", greedy, 60);
    stopping.spec.stop = vec![stop.clone()];
    let stopped = run(&engine, stopping).await.unwrap();
    assert_eq!(stopped.reason, FinishReason::Stop);
    assert_eq!(Some(stopped.text.as_str()), whole.text.split(&stop).next());
    assert!(stopped.completion > Tokens::ZERO && stopped.completion < whole.completion);
}

#[tokio::test]
async fn cells_that_are_promised_are_not_given_twice() {
    let fixture = Fixture::new();
    let cells = Tokens::new(512);
    let settings = LlamaSettings { context: cells, cells, ..fixture.settings.clone() };
    let engine = LlamaEngine::start(settings).await.unwrap();
    let sampling = Sampling { temperature: 0.0, ..Sampling::with_seed(1) };
    let Generation { mut events, control } =
        engine.submit(raw(&engine, "x", sampling, 300)).unwrap();
    started(&mut events).await.unwrap();
    // There are places, but 512 cells do not hold 300 and another 300 tokens.
    let error = run(&engine, raw(&engine, "x", sampling, 300)).await.unwrap_err();
    assert_eq!(error, SubmitError::Busy);
    run(&engine, raw(&engine, "x", sampling, 100)).await.unwrap();
    control.cancel();
    rest(&mut events, 0).await;
    let answer = run(&engine, raw(&engine, "x", sampling, 100_000)).await.unwrap();
    assert_eq!(answer.reason, FinishReason::Length, "the context ends it");
    assert_eq!(answer.completion.get() + answer.prompt.get(), 512);
}

#[tokio::test]
async fn a_killed_worker_fails_its_jobs_and_the_next_one_serves() {
    let fixture = Fixture::new();
    let engine = fixture.start().await;
    let Generation { mut events, control } = engine.submit(job(&engine, LONG, 100)).unwrap();
    started(&mut events).await.unwrap();
    control.grant(Tokens::new(2));
    token(&mut events, 1).await;
    token(&mut events, 2).await;
    signal(&engine, "-KILL");
    assert_eq!(next(&mut events).await, Some(Generated::Failed(EngineFailure::Crashed)));
    assert_eq!(next(&mut events).await, None);
    assert_eq!(engine.load().free(), 8);
    restarted(&engine).await;
    // What is left of the earlier job has no effect on the new worker's.
    let Generation { events: _other, control: _held } =
        engine.submit(job(&engine, LONG, 10)).unwrap();
    control.grant(EVERYTHING);
    control.cancel();
    run(&engine, job(&engine, LONG, 10)).await.unwrap();
}

#[tokio::test]
async fn a_silent_worker_is_killed_and_replaced() {
    let fixture = Fixture::new();
    let silent_for = Duration::from_secs(3);
    let settings = LlamaSettings { silent_for, ..fixture.settings.clone() };
    let engine = LlamaEngine::start(settings).await.unwrap();
    let Generation { mut events, control } = engine.submit(job(&engine, LONG, 100)).unwrap();
    started(&mut events).await.unwrap();
    control.grant(Tokens::new(1));
    token(&mut events, 1).await;
    signal(&engine, "-STOP");
    assert_eq!(next(&mut events).await, Some(Generated::Failed(EngineFailure::Hung)));
    restarted(&engine).await;
    run(&engine, job(&engine, LONG, 10)).await.unwrap();
}

#[tokio::test]
async fn dropping_the_engine_ends_the_process_and_drains_its_jobs() {
    let fixture = Fixture::new();
    let engine = fixture.start().await;
    let Generation { mut events, control } = engine.submit(job(&engine, LONG, 100)).unwrap();
    let prompt = started(&mut events).await.unwrap();
    control.grant(Tokens::new(1));
    token(&mut events, 1).await;
    let process = engine.worker_process().unwrap().to_string();
    drop(engine);
    let (_, reason, usage) = rest(&mut events, 1).await;
    assert_eq!((reason, usage.prompt), (FinishReason::Draining, prompt));
    assert_eq!(usage.completion, Tokens::new(1));
    // The supervisor has waited for it, so it is gone for certain.
    let alive = Command::new("kill").args(["-0", &process]).output().unwrap().status;
    assert!(!alive.success());
}

#[tokio::test]
async fn a_worker_ends_with_its_input() {
    let worker = env!("CARGO_BIN_EXE_cocoon-engine-test-worker");
    let output = Command::new(worker).output().unwrap();
    assert!(!output.status.success(), "it was told nothing");
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn what_cannot_be_loaded_says_why() {
    let fixture = Fixture::new();
    let path = |name: &str| fixture.folder.path().join(name);
    let refused = async |settings: LlamaSettings| LlamaEngine::start(settings).await.unwrap_err();

    let mut wrong = fixture.settings.clone();
    wrong.model = ModelHash::from_bytes([9; 32]);
    let actual = fixture.settings.model;
    let error = StartError::Load(LoadFailure::WrongHash { actual });
    assert_eq!(refused(wrong).await, error);

    let mut missing = fixture.settings.clone();
    missing.path = path("missing.gguf");
    assert_eq!(refused(missing).await, StartError::Load(LoadFailure::Unreadable));

    let mut noise = fixture.settings.clone();
    noise.path = path("noise.gguf");
    std::fs::write(&noise.path, b"GGUF\x03\0\0\0 and then nothing of the kind").unwrap();
    noise.model = hash_file(&noise.path, |_, _| ()).unwrap();
    assert_eq!(refused(noise).await, StartError::Load(LoadFailure::NotLoadable));

    let mut program = fixture.settings.clone();
    program.worker = path("no-such-program");
    assert!(matches!(refused(program).await, StartError::Spawn { .. }));

    let mut other = fixture.settings.clone();
    other.worker = PathBuf::from("/bin/true");
    assert_eq!(refused(other).await, StartError::Died);
}

/// Flips one bit of the last weight, and leaves size and time as they were.
fn change_weights(path: &Path) {
    let before = std::fs::metadata(path).unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let after = std::fs::metadata(path).unwrap();
    assert_eq!(
        (before.len(), before.modified().unwrap()),
        (after.len(), after.modified().unwrap())
    );
}

#[tokio::test]
async fn weights_with_one_bit_changed_are_refused_in_words() {
    for private_weights in [false, cfg!(target_os = "linux")] {
        let fixture = Fixture::new();
        let settings = LlamaSettings { private_weights, ..fixture.settings.clone() };
        // The hash that a cache would still believe in.
        let cache = HashCache::default();
        cache.hash(&settings.path, |_, _| ()).unwrap();
        change_weights(&settings.path);
        let error = LlamaEngine::start(settings.clone()).await.unwrap_err();
        let actual = hash_file(&settings.path, |_, _| ()).unwrap();
        assert_ne!(actual, settings.model);
        assert_eq!(error, StartError::Load(LoadFailure::WrongHash { actual }));
        let words = std::error::Error::source(&error).unwrap().to_string();
        let expected = format!(
            "the model file has the hash {actual}, which is not the expected one: it was changed, \
             or is another file"
        );
        assert_eq!(words, expected);
    }
}

#[tokio::test]
async fn weights_that_change_under_a_worker_are_refused_when_it_starts_again() {
    let fixture = Fixture::new();
    let engine = fixture.start().await;
    let mut status = engine.status();
    change_weights(&fixture.settings.path);
    signal(&engine, "-KILL");
    // First it has died, then it is started again and refuses.
    let actual = hash_file(&fixture.settings.path, |_, _| ()).unwrap();
    let expected = Status::Failed(StartError::Load(LoadFailure::WrongHash { actual }));
    let refused = status.wait_for(|status| *status == expected);
    tokio::time::timeout(Duration::from_secs(60), refused).await.expect("no refusal").unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn private_weights_do_not_follow_the_file() {
    let fixture = Fixture::new();
    let greedy = Sampling { temperature: 0.0, ..Sampling::with_seed(1) };
    let ask =
        async |engine: &LlamaEngine| run(engine, raw(engine, "abc", greedy, 12)).await.unwrap();
    let plain = ask(&fixture.start().await).await;
    let settings = LlamaSettings { private_weights: true, ..fixture.settings.clone() };
    let engine = LlamaEngine::start(settings).await.unwrap();
    // A map of the file itself would show this, or fail on pages that are gone.
    let file = std::fs::File::options().write(true).open(&fixture.settings.path).unwrap();
    file.set_len(0).unwrap();
    assert_eq!(ask(&engine).await, plain);
}

#[tokio::test]
async fn the_catalogue_describes_the_same_file() {
    let fixture = Fixture::new();
    let path = &fixture.settings.path;
    let model = Model::describe(path, &HashCache::default(), |_, _| ()).unwrap();
    assert_eq!(model.hash, fixture.settings.model);
    assert_eq!(model.context, Tokens::new(tiny_gguf::CONTEXT));
    assert_eq!(
        (model.quantisation.as_deref(), model.licence.as_deref()),
        (Some("F32"), Some("cc0-1.0"))
    );
    let header = Metadata::read_file(path).unwrap();
    assert_eq!(header.name.as_deref(), Some("tiny-random"));
    assert!(header.chat_template.unwrap().contains("im_start"));
    std::fs::write(path, "no model").unwrap();
    assert!(Model::describe(path, &HashCache::default(), |_, _| ()).is_err());
}

#[tokio::test]
async fn a_megabyte_of_special_tokens_is_counted_exactly() {
    let fixture = Fixture::new();
    let engine = fixture.start().await;
    let times = 69_000_u32;
    let text = "<|im_end|>ab é".repeat(usize::try_from(times).unwrap());
    let error = run(&engine, raw(&engine, &text, Sampling::with_seed(1), 1)).await.unwrap_err();
    // One token for the marker, one for each byte (`é` has two), one for the beginning.
    let prompt = Tokens::new(1 + times * 6);
    assert_eq!(error, SubmitError::ContextExceeded { prompt, context: Tokens::new(4_096) });
}

/// A word this long overflowed the tokenizer's stack, and so a stranger could end every job.
#[tokio::test]
async fn regression_a_very_long_word_does_not_end_the_worker() {
    let fixture = Fixture::with(Tokenizer::Tekken);
    let engine = fixture.start().await;
    let before = engine.worker_process();
    for word in ["a", "A", " ", "!", "中"] {
        let text = word.repeat(300_000);
        let error = run(&engine, raw(&engine, &text, Sampling::with_seed(1), 1)).await.unwrap_err();
        assert!(matches!(error, SubmitError::ContextExceeded { .. }), "{error:?}");
    }
    assert_eq!(engine.worker_process(), before);
}
