//! What clients read: golden answers, whole and streamed.

use cocoon_gateway::{Accepted, JobEvent};
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::job::FinishReason;
use serde_json::{Value, json};

use crate::fake::{Script, accepted, answer, finished, text_event};
use crate::{Answer, Server};

const JOB: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const PROVIDER: &str = "2222222222222222222222222222222222222222222222222222222222222222";
const RECEIPT: &str = "3333333333333333333333333333333333333333333333333333333333333333";
const HASH: &str = "blake3:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The only field that differs from run to run, set to nothing.
fn timeless(text: &str) -> String {
    let (before, rest) = text.split_once("\"created\":").unwrap();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
    assert!(rest[..digits].parse::<u64>().unwrap() > 1_700_000_000);
    format!("{before}\"created\":0{}", &rest[digits..])
}

fn events(answer: &Answer) -> Vec<String> {
    let known = |event: &str| {
        if event.contains("\"created\"") { timeless(event) } else { event.into() }
    };
    answer.events().into_iter().map(known).collect()
}

fn cocoon() -> String {
    format!(
        "\"cocoon\":{{\"job\":\"{JOB}\",\"provider\":\"{PROVIDER}\",\"tier\":\"attested\",\
         \"simulated\":true,\"model\":\"{HASH}\",\"seed\":7,\"price_nanoton\":12345,\
         \"receipt\":\"{RECEIPT}\",\"vouchers\":2}}"
    )
}

#[tokio::test]
async fn a_whole_chat_answer_is_openais_and_says_where_it_came_from() {
    let server = Server::start(answer(&["Hel", "lo ", "wörld"])).await;
    let answer = server.chat(json!({ "seed": 7 })).await;
    assert_eq!(answer.status, 200);
    let expected = format!(
        "{{\"id\":\"chatcmpl-{JOB}\",\"object\":\"chat.completion\",\"created\":0,\
         \"model\":\"smollm2-135m\",\"system_fingerprint\":null,\"choices\":[{{\"index\":0,\
         \"message\":{{\"role\":\"assistant\",\"content\":\"Hello wörld\",\"refusal\":null,\
         \"annotations\":[]}},\"logprobs\":null,\"finish_reason\":\"stop\"}}],\"usage\":{{\
         \"prompt_tokens\":12,\"completion_tokens\":3,\"total_tokens\":15}},{}}}",
        cocoon()
    );
    assert_eq!(timeless(&answer.text), expected);
}

#[tokio::test]
async fn a_whole_text_completion_is_openais() {
    let server = Server::start(answer(&["a ", "time"])).await;
    let answer = server.completion(json!({ "seed": 7 })).await;
    let expected = format!(
        "{{\"id\":\"cmpl-{JOB}\",\"object\":\"text_completion\",\"created\":0,\
         \"model\":\"smollm2-135m\",\"system_fingerprint\":null,\"choices\":[{{\"index\":0,\
         \"text\":\"a time\",\"logprobs\":null,\"finish_reason\":\"stop\"}}],\"usage\":{{\
         \"prompt_tokens\":12,\"completion_tokens\":3,\"total_tokens\":15}},{}}}",
        cocoon()
    );
    assert_eq!(timeless(&answer.text), expected);
}

#[tokio::test]
async fn a_streamed_chat_is_role_text_end_done() {
    let server = Server::start(answer(&["Hi", "", "\n\"you\""])).await;
    let answer = server.chat(json!({ "seed": 7, "stream": true })).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("cache-control"), "no-cache");
    let chunk = |delta: &str, finish: &str, more: &str| {
        format!(
            "{{\"id\":\"chatcmpl-{JOB}\",\"object\":\"chat.completion.chunk\",\"created\":0,\
             \"model\":\"smollm2-135m\",\"system_fingerprint\":null,\"choices\":[{{\"index\":0,\
             \"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]{more}}}"
        )
    };
    let expected = [
        chunk("{\"role\":\"assistant\",\"content\":\"\"}", "null", ""),
        chunk("{\"content\":\"Hi\"}", "null", ""),
        chunk("{\"content\":\"\\n\\\"you\\\"\"}", "null", ""),
        chunk("{}", "\"stop\"", &format!(",{}", cocoon())),
        "[DONE]".to_owned(),
    ];
    assert_eq!(events(&answer), expected);
    assert!(answer.text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn counts_come_in_a_chunk_of_their_own_and_are_null_before() {
    let server = Server::start(answer(&["Hi"])).await;
    let options = json!({ "include_usage": true, "include_obfuscation": false });
    let answer = server.chat(json!({ "seed": 7, "stream": true, "stream_options": options })).await;
    let events = events(&answer);
    assert_eq!(events.len(), 5);
    for event in &events[..3] {
        let event: Value = serde_json::from_str(event).unwrap();
        assert_eq!(event.get("usage"), Some(&Value::Null));
    }
    let expected = format!(
        "{{\"id\":\"chatcmpl-{JOB}\",\"object\":\"chat.completion.chunk\",\"created\":0,\
         \"model\":\"smollm2-135m\",\"system_fingerprint\":null,\"choices\":[],\"usage\":{{\
         \"prompt_tokens\":12,\"completion_tokens\":3,\"total_tokens\":15}},{}}}",
        cocoon()
    );
    assert_eq!(events[3], expected);
    assert_eq!(events[4], "[DONE]");
}

#[tokio::test]
async fn a_streamed_text_completion_has_no_role() {
    let server = Server::start(answer(&["a ", "time"])).await;
    let answer = server.completion(json!({ "seed": 7, "stream": true })).await;
    let events = events(&answer);
    let chunk = |text: &str, finish: &str, more: &str| {
        format!(
            "{{\"id\":\"cmpl-{JOB}\",\"object\":\"text_completion\",\"created\":0,\
             \"model\":\"smollm2-135m\",\"system_fingerprint\":null,\"choices\":[{{\"index\":0,\
             \"text\":\"{text}\",\"logprobs\":null,\"finish_reason\":{finish}}}]{more}}}"
        )
    };
    let expected = [
        chunk("a ", "null", ""),
        chunk("time", "null", ""),
        chunk("", "\"stop\"", &format!(",{}", cocoon())),
        "[DONE]".to_owned(),
    ];
    assert_eq!(events, expected);
}

#[tokio::test]
async fn headers_say_who_serves_at_which_tier_streamed_or_not() {
    let server = Server::start(answer(&["Hi"])).await;
    for stream in [false, true] {
        let answer = server.chat(json!({ "stream": stream })).await;
        assert_eq!(answer.header("x-cocoon-provider"), PROVIDER);
        assert_eq!(answer.header("x-cocoon-tier"), "attested");
        assert_eq!(answer.header("x-cocoon-simulated"), "true");
        assert_eq!(answer.header("x-cocoon-job"), JOB);
        assert_eq!(answer.header("x-request-id"), JOB);
    }
}

#[tokio::test]
async fn an_answer_that_was_taken_over_is_one_stream_and_says_whose_it_was() {
    let next = NodeId::from_bytes([0x55; 32]);
    let taken = JobEvent::TakenOver(Accepted { provider: next, ..accepted() });
    let events = [text_event("a "), taken, text_event("time"), finished(FinishReason::Stop, 3)];
    let server = Server::start(Script::Answer(events.into())).await;
    let whole = server.chat(json!({})).await;
    assert_eq!(whole.header("x-cocoon-provider"), next.to_string());
    let whole = whole.json();
    assert_eq!(whole["choices"][0]["message"]["content"], "a time");
    let streamed = events_of(server.chat(json!({ "stream": true })).await);
    let text = |event: &Value| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    assert_eq!(streamed.iter().filter_map(text).collect::<String>(), "a time");
    for cocoon in [&whole["cocoon"], &streamed.last().unwrap()["cocoon"]] {
        assert_eq!(cocoon["provider"], next.to_string());
        assert_eq!(cocoon["lost_providers"], json!([PROVIDER]));
    }
}

/// A stream's events without its end's mark.
fn events_of(answer: Answer) -> Vec<Value> {
    let events = events(&answer);
    let (done, events) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

#[tokio::test]
async fn an_answer_that_met_its_limit_says_length() {
    let script = Script::Answer(vec![text_event("a"), finished(FinishReason::Length, 1)]);
    let server = Server::start(script).await;
    let whole = server.chat(json!({})).await.json();
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    let streamed = server.chat(json!({ "stream": true })).await;
    assert!(streamed.text.contains("\"finish_reason\":\"length\""));
}

#[tokio::test]
async fn every_other_end_is_an_error_and_never_done() {
    for (reason, status, code) in [
        (FinishReason::Cancelled, 503, "job_cancelled"),
        (FinishReason::Unpaid, 402, "job_unpaid"),
        (FinishReason::Failed, 502, "engine_failed"),
        (FinishReason::Draining, 503, "provider_draining"),
    ] {
        let server =
            Server::start(Script::Answer(vec![text_event("a"), finished(reason, 1)])).await;
        let whole = server.chat(json!({})).await;
        assert_eq!(whole.error(), (status, code.to_owned(), None));
        // Something was paid, so that no client may repeat it by itself.
        assert_eq!(whole.header("x-should-retry"), "false");
        assert_eq!(whole.json()["cocoon"]["price_nanoton"], 12_345);
        let streamed = server.chat(json!({ "stream": true })).await;
        let last: Value = serde_json::from_str(streamed.events().last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], code);
        assert_eq!(last["cocoon"]["provider"], PROVIDER);
        assert!(!streamed.text.contains("[DONE]"));
    }
}

#[tokio::test]
async fn a_job_without_an_end_is_an_error() {
    let server = Server::start(Script::Answer(vec![text_event("a")])).await;
    assert_eq!(server.chat(json!({})).await.error(), (500, "job_lost".to_owned(), None));
    let streamed = server.chat(json!({ "stream": true })).await;
    assert!(streamed.events().last().unwrap().contains("job_lost"));
}

#[tokio::test]
async fn a_provider_that_makes_up_endless_text_is_cut_off() {
    let server = Server::start(Script::Endless("x".repeat(65_536))).await;
    let answer = server.chat(json!({})).await;
    assert_eq!(answer.error(), (502, "provider_misbehaved".to_owned(), None));
    server.fake.released.cancelled().await;
}

#[tokio::test]
async fn models_are_listed_with_what_they_cost() {
    let server = Server::start(Script::Echo).await;
    let nameless = format!("blake3:{}", "bb".repeat(32));
    let named = json!({
        "id": "smollm2-135m", "object": "model", "created": 0, "owned_by": "cocoon",
        "cocoon": {
            "hash": HASH, "offers": 3, "tiers": ["open", "attested"], "context_tokens": 8192,
            "prompt_nanoton_per_million_tokens": 20_000_000,
            "completion_nanoton_per_million_tokens": 60_000_000,
        },
    });
    let unnamed = json!({
        "id": nameless, "object": "model", "created": 0, "owned_by": "cocoon",
        "cocoon": {
            "hash": nameless, "offers": 0, "tiers": [], "context_tokens": null,
            "prompt_nanoton_per_million_tokens": null,
            "completion_nanoton_per_million_tokens": null,
        },
    });
    let list = server.get("/v1/models").await.json();
    assert_eq!(list, json!({ "object": "list", "data": [named, unnamed] }));
    for (id, model) in [("smollm2-135m", &named), (HASH, &named), (&nameless, &unnamed)] {
        assert_eq!(server.get(&format!("/v1/models/{id}")).await.json(), *model);
    }
    for unknown in ["gpt-4", "org/model", "%ff", "smollm2-135m/"] {
        let answer = server.get(&format!("/v1/models/{unknown}")).await;
        let expected = (404, "model_not_found".to_owned(), Some("model".to_owned()));
        assert_eq!(answer.error(), expected, "{unknown}");
    }
}

#[tokio::test]
async fn health_says_what_is_wrong() {
    let server = Server::start(Script::Echo).await;
    let well = server.get("/health").await;
    assert_eq!(well.status, 200);
    let node = "44".repeat(32);
    let expected = json!({
        "status": "ok", "problem": null, "node": node, "peers": 5, "offers": 3, "jobs": 1,
    });
    assert_eq!(well.json(), expected);
    server.fake.set_problem("no peers; check the bootstrap list");
    let ill = server.get("/health").await;
    assert_eq!(ill.status, 503);
    assert_eq!(ill.json()["problem"], "no peers; check the bootstrap list");
}
