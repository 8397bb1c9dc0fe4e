//! Bytes that no honest client sends.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::fake::Script;
use crate::{Answer, Server, chat_body, raw_chat};

/// A request with every field that is served.
fn full_body() -> Value {
    chat_body(json!({
        "messages": [
            { "role": "system", "content": "a" },
            { "role": "user", "content": [{ "type": "text", "text": "b" }] },
        ],
        "temperature": 1.0, "top_p": 1, "top_k": 1, "min_p": 0, "frequency_penalty": 0,
        "presence_penalty": 0, "seed": 1, "stop": ["x"], "max_tokens": 5, "n": 1,
        "stream": true, "stream_options": { "include_usage": true }, "user": "u",
        "metadata": { "a": "b" }, "cocoon": { "tier": "open", "max_cost": "1 TON" },
    }))
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        prop::sample::select(vec!["role", "text", "type", "user", "1 TON", "blake3:"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// All places of a document, as JSON pointers.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                places(inner, &format!("{at}/{index}"), all);
            }
        }
        Value::Object(map) => {
            for (name, inner) in map {
                places(inner, &format!("{at}/{name}"), all);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The full request with one to three places replaced.
fn mutated() -> impl Strategy<Value = Value> {
    let mut all = Vec::new();
    places(&full_body(), "", &mut all);
    let change = (prop::sample::select(all), any_json());
    prop::collection::vec(change, 1..4).prop_map(|changes| {
        let mut body = full_body();
        for (place, value) in changes {
            if let Some(at) = body.pointer_mut(&place) {
                *at = value;
            }
        }
        body
    })
}

/// A refusal must have OpenAI's shape; an answer must be one.
fn check(answer: &Answer) -> Result<(), TestCaseError> {
    prop_assert!(answer.status.as_u16() < 500, "{} {}", answer.status, answer.text);
    if answer.status != 200 {
        let (_, code, _) = answer.error();
        prop_assert!(!code.is_empty());
    }
    Ok(())
}

#[test]
fn no_change_to_a_good_request_makes_a_server_error() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(Script::Echo));
    let mut runner = TestRunner::new(Config { cases: 500, ..Config::default() });
    let outcome = runner.run(&(mutated(), any::<bool>()), |(body, chat)| {
        let path = if chat { "/v1/chat/completions" } else { "/v1/completions" };
        check(&runtime.block_on(server.post(path, &body)))
    });
    outcome.unwrap();
    let good = runtime.block_on(server.post("/v1/chat/completions", &full_body()));
    assert_eq!(good.status, 200, "the request that is changed must be good: {}", good.text);
}

#[test]
fn no_flipped_or_missing_byte_makes_a_server_error() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(Script::Echo));
    let body = full_body().to_string().into_bytes();
    let mut runner = TestRunner::new(Config { cases: 500, ..Config::default() });
    let flips = prop::collection::vec((0..body.len(), any::<u8>()), 0..4);
    let outcome = runner.run(&(flips, 0..=body.len()), |(flips, end)| {
        let mut body = body.clone();
        for (place, byte) in flips {
            body[place] = byte;
        }
        body.truncate(end);
        let request = server.client.post(server.url("/v1/chat/completions")).body(body);
        let request = request.header("content-type", "application/json");
        check(&runtime.block_on(server.send(request)))
    });
    outcome.unwrap();
}

#[test]
fn any_bytes_on_the_socket_leave_the_server_standing() {
    let runtime = Runtime::new().unwrap();
    let options = cocoon_gateway::Options {
        head_allowance: std::time::Duration::from_millis(20),
        body_allowance: std::time::Duration::from_millis(20),
        ..cocoon_gateway::Options::default()
    };
    let server = runtime.block_on(Server::start_with(Script::Echo, options));
    let good = raw_chat(json!({})).into_bytes();
    let noise = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..512),
        (0..good.len(), any::<u8>()).prop_map(move |(place, byte)| {
            let mut bytes = good.clone();
            bytes[place] = byte;
            bytes
        }),
    ];
    let mut runner = TestRunner::new(Config { cases: 100, ..Config::default() });
    let outcome = runner.run(&noise, |bytes| {
        let answer = runtime.block_on(server.raw(&bytes));
        prop_assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 "), "{answer}");
        prop_assert!(!answer.starts_with("HTTP/1.1 5"), "{answer}");
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(runtime.block_on(server.get("/health")).status, 200);
}

#[tokio::test]
async fn depth_bombs_are_refused() {
    let server = Server::start(Script::Echo).await;
    for (open, depth) in [("[", 200), ("[", 1_000_000), ("{\"a\":", 300_000)] {
        let body = format!("{{\"model\":\"m\",\"messages\":{}", open.repeat(depth));
        let request = server.client.post(server.url("/v1/chat/completions")).body(body);
        let answer = server.send(request.header("content-type", "application/json")).await;
        assert_eq!(answer.error(), (400, "invalid_json".to_owned(), None));
    }
}

#[tokio::test]
async fn large_bodies_are_refused_in_words_that_arrive() {
    let server = Server::start(Script::Echo).await;
    let fits = "x".repeat(1024 * 1024);
    let change = json!({ "messages": [{ "role": "user", "content": fits }] });
    assert_eq!(server.chat(change).await.status, 200);
    for mebibytes in [3, 7] {
        let body = "x".repeat(mebibytes * 1024 * 1024);
        let answer = server.chat(json!({ "user": body })).await;
        assert_eq!(answer.error(), (413, "body_too_large".to_owned(), None));
    }
    // Without a length, in chunks, the same bound holds.
    let request = server.client.post(server.url("/v1/chat/completions"));
    let pieces = (0..48).map(|_| Ok::<_, std::io::Error>(vec![b' '; 65_536]));
    let request = request.body(reqwest::Body::wrap_stream(futures::stream::iter(pieces)));
    let answer = server.send(request.header("content-type", "application/json")).await;
    assert_eq!(answer.error(), (413, "body_too_large".to_owned(), None));
    // Far beyond, nobody listens to the end.
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/json\r\nContent-Length: 1000000000000\r\n\r\n";
    let flood = [head.as_bytes(), &vec![b'x'; 12 * 1024 * 1024]].concat();
    let answer = server.raw(&flood).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(server.fake.count(), 1);
}

#[tokio::test]
async fn huge_heads_are_refused() {
    let server = Server::start(Script::Echo).await;
    let many: String = (0..200).map(|index| format!("X-{index}: a\r\n")).collect();
    let one = format!("X-Long: {}\r\n", "a".repeat(1_000_000));
    let path = "a".repeat(100_000);
    for (path, headers) in [("v1/models", many), ("v1/models", one), (&path, String::new())] {
        let request = format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        let answer = server.raw(request.as_bytes()).await;
        let refused = ["HTTP/1.1 431 ", "HTTP/1.1 414 "];
        let refused = refused.iter().any(|status| answer.starts_with(status));
        assert!(answer.is_empty() || refused, "{answer}");
    }
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn bodies_that_contradict_their_length_are_refused() {
    let server = Server::start(Script::Echo).await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/json\r\nConnection: close\r\n";
    for framing in [
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        "Content-Length: -1\r\n\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        "Transfer-Encoding: gzip\r\n\r\n{}",
    ] {
        let answer = server.raw(format!("{head}{framing}").as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{framing}: {answer}");
    }
    assert_eq!(server.fake.count(), 0);
}
