//! Clients that go away, read slowly, send slowly; and the end of the server.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cocoon_gateway::Options;
use cocoon_protocol::job::FinishReason;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fake::{Script, finished, text_event};
use crate::{Server, raw_chat, read_to_end, read_until, soon};

/// For deadlines that a test wants to see pass.
const BRIEF: Duration = Duration::from_millis(100);

#[tokio::test]
async fn closing_a_stream_cancels_its_job() {
    let server = Server::start(Script::Endless("word ".into())).await;
    let mut stream = server.connect().await;
    stream.write_all(raw_chat(json!({ "stream": true })).as_bytes()).await.unwrap();
    read_until(&mut stream, "\"content\":\"word \"").await;
    assert!(!server.fake.released.is_cancelled());
    drop(stream);
    soon(server.fake.released.cancelled()).await;
}

#[tokio::test]
async fn closing_while_waiting_for_the_whole_answer_cancels_its_job() {
    let script = Script::Gated(vec![text_event("a")], vec![finished(FinishReason::Stop, 1)]);
    let server = Server::start(script).await;
    let mut stream = server.connect().await;
    stream.write_all(raw_chat(json!({})).as_bytes()).await.unwrap();
    soon(server.fake.asked.notified()).await;
    assert!(!server.fake.released.is_cancelled());
    drop(stream);
    soon(server.fake.released.cancelled()).await;
}

#[tokio::test]
async fn closing_before_a_provider_has_begun_cancels_the_search() {
    let server = Server::start(Script::Hang).await;
    let mut stream = server.connect().await;
    stream.write_all(raw_chat(json!({ "stream": true })).as_bytes()).await.unwrap();
    soon(server.fake.asked.notified()).await;
    drop(stream);
    soon(server.fake.released.cancelled()).await;
}

#[tokio::test]
async fn text_is_sent_when_it_comes_and_not_when_the_answer_ends() {
    let rest = vec![text_event("last"), finished(FinishReason::Stop, 2)];
    let server = Server::start(Script::Gated(vec![text_event("first")], rest)).await;
    let mut stream = server.connect().await;
    stream.write_all(raw_chat(json!({ "stream": true })).as_bytes()).await.unwrap();
    let start = read_until(&mut stream, "first").await;
    assert!(!start.contains("last"));
    server.fake.gate.notify_one();
    read_until(&mut stream, "data: [DONE]\n\n").await;
}

#[tokio::test]
async fn a_client_that_never_reads_stops_the_job_and_is_cut_off() {
    let options = Options { write_allowance: BRIEF, ..Options::default() };
    let text = "x".repeat(65_536);
    let server = Server::start_with(Script::Endless(text), options).await;
    let mut stream = server.connect().await;
    stream.write_all(raw_chat(json!({ "stream": true })).as_bytes()).await.unwrap();
    soon(server.fake.released.cancelled()).await;
    // Two socket buffers of a few MiB each stand between; the job itself is endless.
    let sent = server.fake.sent.load(Ordering::Relaxed);
    assert!(sent < 1_000, "{sent} texts of 64 KiB were taken from a job that nobody read");
}

#[tokio::test]
async fn a_client_that_reads_late_gets_every_byte() {
    const TEXTS: usize = 500;
    const DONE: &[u8] = b"data: [DONE]\n\n";
    let text = "Z".repeat(65_536);
    let mut events = vec![text_event(&text); TEXTS];
    events.push(finished(FinishReason::Stop, 500));
    let server = Server::start(Script::Answer(events)).await;
    let mut stream = server.connect().await;
    stream.write_all(raw_chat(json!({ "stream": true })).as_bytes()).await.unwrap();
    // Another client is served in the meantime.
    assert_eq!(server.get("/v1/models").await.status, 200);
    let (mut count, mut tail) = (0, Vec::new());
    let mut piece = vec![0; 65_536];
    while !tail.windows(DONE.len()).any(|window| window == DONE) {
        let read = soon(stream.read(&mut piece)).await.unwrap();
        assert!(read > 0);
        count += piece[..read].iter().filter(|byte| **byte == b'Z').count();
        tail.extend_from_slice(&piece[..read]);
        tail.drain(..tail.len().saturating_sub(64));
    }
    // The letter stands nowhere else in a chunk.
    assert_eq!(count, TEXTS * 65_536);
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_are_ended() {
    let options = Options { head_allowance: BRIEF, body_allowance: BRIEF, ..Options::default() };
    let server = Server::start_with(Script::Echo, options).await;
    assert_eq!(server.raw(b"GET /v1/models HT").await, "");
    assert_eq!(server.raw(b"").await, "");
    let whole = raw_chat(json!({}));
    let answer = server.raw(&whole.as_bytes()[..whole.len() - 1]).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
    assert_eq!(server.fake.count(), 0);
}

#[tokio::test]
async fn one_connection_serves_one_request_after_another() {
    let server = Server::start(Script::Echo).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(raw_chat(json!({ "stream": true })).as_bytes()).await.unwrap();
        read_until(&mut stream, "data: [DONE]\n\n").await;
    }
    // A refusal does not cost the connection either.
    stream.write_all(raw_chat(json!({ "odd": 1 })).as_bytes()).await.unwrap();
    read_until(&mut stream, "unknown_parameter").await;
    assert_eq!(server.fake.count(), 3);
}

#[tokio::test]
async fn a_shutdown_lets_running_answers_end() {
    let rest = vec![text_event("last"), finished(FinishReason::Stop, 2)];
    let server = Server::start(Script::Gated(vec![text_event("first")], rest)).await;
    let mut stream = server.connect().await;
    let idle = server.connect().await;
    stream.write_all(raw_chat(json!({ "stream": true })).as_bytes()).await.unwrap();
    read_until(&mut stream, "first").await;
    server.shutdown.cancel();
    drop(idle);
    server.fake.gate.notify_one();
    let rest = read_to_end(&mut stream).await;
    assert!(rest.contains("last") && rest.contains("data: [DONE]\n\n"), "{rest}");
    assert!(soon(server.task).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_shutdown_cuts_answers_that_do_not_end() {
    let options = Options { shutdown_allowance: BRIEF, ..Options::default() };
    let server = Server::start_with(Script::Hang, options).await;
    let mut stream = server.connect().await;
    stream.write_all(raw_chat(json!({})).as_bytes()).await.unwrap();
    soon(server.fake.asked.notified()).await;
    server.shutdown.cancel();
    assert!(soon(server.task).await.unwrap().is_ok());
    assert!(server.fake.released.is_cancelled());
    assert_eq!(read_to_end(&mut stream).await, "");
}
