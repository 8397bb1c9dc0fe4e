//! Every refusal: of a field by its name, of a job by its reason.

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::job::{JobError, ProviderRefusal};
use cocoon_protocol::units::{Millis, NanoTon, Tokens};
use serde_json::{Value, json};

use crate::Server;
use crate::fake::Script;

/// Each change alone must be refused with 400, naming this parameter, and reach no provider.
async fn refused(server: &Server, path: &str, cases: Vec<(Value, &str, &str)>) {
    let before = server.fake.count();
    for (change, code, param) in cases {
        let answer = match path {
            "chat" => server.chat(change.clone()).await,
            _ => server.completion(change.clone()).await,
        };
        let expected = (400, code.to_owned(), Some(param.to_owned()));
        assert_eq!(answer.error(), expected, "{change}");
        assert_eq!(answer.header("x-should-retry"), "false");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains(param), "{change}");
    }
    assert_eq!(server.fake.count(), before, "a refused request must not reach the node");
}

#[tokio::test]
async fn chat_fields_that_are_not_served_are_refused_by_name() {
    let server = Server::start(Script::Echo).await;
    let tool = json!({ "type": "function", "function": { "name": "f" } });
    let cases = [
        ("n", json!(2)),
        ("n", json!(0)),
        ("tools", json!([tool])),
        ("tool_choice", json!("required")),
        ("functions", json!([{ "name": "f" }])),
        ("function_call", json!({ "name": "f" })),
        ("response_format", json!({ "type": "json_object" })),
        ("response_format", json!({ "type": "json_schema", "json_schema": {} })),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(3)),
        ("logit_bias", json!({ "50256": -100 })),
        ("modalities", json!(["text", "audio"])),
        ("audio", json!({ "voice": "alloy" })),
        ("prediction", json!({ "type": "content", "content": "x" })),
        ("reasoning_effort", json!("high")),
        ("verbosity", json!("low")),
        ("web_search_options", json!({ "a": 1 })),
    ];
    let cases = cases.map(|(name, value)| (json!({ name: value }), "unsupported_parameter", name));
    refused(&server, "chat", cases.to_vec()).await;
}

#[tokio::test]
async fn unknown_fields_are_refused_by_name_at_every_depth() {
    let server = Server::start(Script::Echo).await;
    let part = json!({ "type": "text", "text": "a", "cache_control": {} });
    let cases = vec![
        (json!({ "temprature": 1 }), "unknown_parameter", "temprature"),
        (json!({ "repetition_penalty": 1.1 }), "unknown_parameter", "repetition_penalty"),
        (json!({ "prompt": "x" }), "unknown_parameter", "prompt"),
        (json!({ "cocoon": { "region": "eu" } }), "unknown_parameter", "cocoon.region"),
        (
            json!({ "stream": true, "stream_options": { "x": 1 } }),
            "unknown_parameter",
            "stream_options.x",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": "a", "id": 1 }] }),
            "unknown_parameter",
            "messages[0].id",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": [part] }] }),
            "unknown_parameter",
            "messages[0].content[0].cache_control",
        ),
    ];
    refused(&server, "chat", cases).await;
}

#[tokio::test]
async fn wrong_types_and_values_are_refused_with_their_path() {
    let server = Server::start(Script::Echo).await;
    let wrong = |change: Value, param: &'static str| (change, "invalid_type", param);
    let invalid = |change: Value, param: &'static str| (change, "invalid_value", param);
    let cases = vec![
        wrong(json!({ "model": 1 }), "model"),
        invalid(json!({ "model": "" }), "model"),
        invalid(json!({ "model": "x".repeat(129) }), "model"),
        invalid(json!({ "model": "blake3:abc" }), "model"),
        wrong(json!({ "temperature": "1" }), "temperature"),
        invalid(json!({ "temperature": 2.1 }), "temperature"),
        invalid(json!({ "temperature": 1e300 }), "temperature"),
        invalid(json!({ "top_p": -0.1 }), "top_p"),
        invalid(json!({ "min_p": 1.5 }), "min_p"),
        wrong(json!({ "top_k": -1 }), "top_k"),
        invalid(json!({ "frequency_penalty": 3 }), "frequency_penalty"),
        invalid(json!({ "presence_penalty": -3 }), "presence_penalty"),
        wrong(json!({ "seed": 0.5 }), "seed"),
        wrong(json!({ "seed": "7" }), "seed"),
        wrong(json!({ "stop": 1 }), "stop"),
        wrong(json!({ "stop": ["a", 1] }), "stop[1]"),
        invalid(json!({ "stop": [""] }), "stop"),
        invalid(json!({ "stop": ["a", "b", "c", "d", "e", "f", "g", "h", "i"] }), "stop"),
        invalid(json!({ "max_tokens": 0 }), "max_tokens"),
        wrong(json!({ "max_tokens": -1 }), "max_tokens"),
        invalid(json!({ "max_completion_tokens": 1_000_001 }), "max_completion_tokens"),
        invalid(json!({ "max_tokens": 1, "max_completion_tokens": 2 }), "max_tokens"),
        wrong(json!({ "stream": "yes" }), "stream"),
        invalid(json!({ "stream_options": { "include_usage": true } }), "stream_options"),
        wrong(json!({ "stream": true, "stream_options": [] }), "stream_options"),
        wrong(json!({ "user": 1 }), "user"),
        wrong(json!({ "metadata": [] }), "metadata"),
        wrong(json!({ "cocoon": "attested" }), "cocoon"),
        invalid(json!({ "cocoon": { "tier": "secret" } }), "cocoon.tier"),
        invalid(json!({ "cocoon": { "max_cost": 0.01 } }), "cocoon.max_cost"),
        invalid(json!({ "cocoon": { "max_cost": "0.01" } }), "cocoon.max_cost"),
        wrong(json!({ "cocoon": { "max_cost": [] } }), "cocoon.max_cost"),
    ];
    refused(&server, "chat", cases).await;
}

#[tokio::test]
async fn messages_are_refused_with_their_place() {
    let server = Server::start(Script::Echo).await;
    let one = |message: Value| json!({ "messages": [{ "role": "user", "content": "a" }, message] });
    let part = |part: Value| one(json!({ "role": "user", "content": [part] }));
    let image = json!({ "type": "image_url", "image_url": { "url": "data:" } });
    let unsupported = "unsupported_parameter";
    let missing = "missing_required_parameter";
    let cases = vec![
        (json!({ "messages": null }), missing, "messages"),
        (json!({ "messages": "hi" }), "invalid_type", "messages"),
        (json!({ "messages": [] }), "invalid_value", "messages"),
        (one(json!("hi")), "invalid_type", "messages[1]"),
        (one(json!({ "content": "a" })), missing, "messages[1].role"),
        (one(json!({ "role": "user" })), missing, "messages[1].content"),
        (one(json!({ "role": "assistant", "content": null })), missing, "messages[1].content"),
        (one(json!({ "role": "user", "content": 1 })), "invalid_type", "messages[1].content"),
        (one(json!({ "role": "critic", "content": "a" })), "invalid_value", "messages[1].role"),
        (one(json!({ "role": "tool", "content": "a" })), unsupported, "messages[1].role"),
        (
            one(json!({ "role": "user", "content": "a", "name": "Bob" })),
            unsupported,
            "messages[1].name",
        ),
        (part(image), unsupported, "messages[1].content[0].type"),
        (part(json!({ "type": "text" })), missing, "messages[1].content[0].text"),
        (part(json!({ "type": "text", "text": 1 })), "invalid_type", "messages[1].content[0].text"),
        (part(json!({ "text": "a" })), missing, "messages[1].content[0].type"),
        (part(json!("a")), "invalid_type", "messages[1].content[0]"),
    ];
    refused(&server, "chat", cases).await;
}

#[tokio::test]
async fn completion_fields_are_refused_by_name() {
    let server = Server::start(Script::Echo).await;
    let unsupported = "unsupported_parameter";
    let cases = vec![
        (json!({ "prompt": null }), "missing_required_parameter", "prompt"),
        (json!({ "prompt": "" }), "invalid_value", "prompt"),
        (json!({ "prompt": ["a", "b"] }), "invalid_value", "prompt"),
        (json!({ "prompt": [1, 2, 3] }), "invalid_type", "prompt"),
        (json!({ "prompt": [] }), "invalid_type", "prompt"),
        (json!({ "echo": true }), unsupported, "echo"),
        (json!({ "best_of": 2 }), unsupported, "best_of"),
        (json!({ "logprobs": 0 }), unsupported, "logprobs"),
        (json!({ "suffix": "end" }), unsupported, "suffix"),
        (json!({ "n": 3 }), unsupported, "n"),
        (json!({ "messages": [] }), "unknown_parameter", "messages"),
        (json!({ "max_completion_tokens": 1 }), "unknown_parameter", "max_completion_tokens"),
    ];
    refused(&server, "completion", cases).await;
}

#[tokio::test]
async fn a_prompt_beyond_the_networks_bound_is_too_long() {
    let server = Server::start(Script::Echo).await;
    let long = "x".repeat(cocoon_protocol::limits::PROMPT_BYTES + 1);
    let change = json!({ "messages": [{ "role": "user", "content": long }] });
    let expected = (400, "context_length_exceeded".to_owned(), Some("messages".to_owned()));
    assert_eq!(server.chat(change).await.error(), expected);
    let turns = vec![json!({ "role": "user", "content": "a" }); 2_049];
    let answer = server.chat(json!({ "messages": turns })).await;
    assert_eq!(answer.error(), (400, "invalid_value".to_owned(), Some("messages".to_owned())));
}

#[tokio::test]
async fn a_field_that_stands_twice_is_refused() {
    let server = Server::start(Script::Echo).await;
    let body = r#"{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}"#;
    let request = server.client.post(server.url("/v1/chat/completions")).body(body);
    let answer = server.send(request.header("content-type", "application/json")).await;
    let expected = (400, "duplicate_parameter".to_owned(), Some("model".to_owned()));
    assert_eq!(answer.error(), expected);
}

#[tokio::test]
async fn cocoon_headers_are_checked_like_fields() {
    let server = Server::start(Script::Echo).await;
    let cases: [(&str, &[u8], &str); 5] = [
        ("x-cocoon-tier", b"secret", "invalid_value"),
        ("x-cocoon-tier", b"\xff", "invalid_value"),
        ("x-cocoon-max-cost", b"0.01", "invalid_value"),
        // A restriction that is not understood must not be dropped: the user counts on it.
        ("x-cocoon-provider", b"abc", "unknown_parameter"),
        ("x-cocoon-tiers", b"open", "unknown_parameter"),
    ];
    for (name, value, code) in cases {
        let request = server.client.post(server.url("/v1/chat/completions"));
        let request = request.json(&crate::chat_body(json!({}))).header(name, value);
        let expected = (400, code.to_owned(), Some(name.to_owned()));
        assert_eq!(server.send(request).await.error(), expected);
    }
    let request = server.client.post(server.url("/v1/chat/completions"));
    let request = request.header("x-cocoon-tier", "open").header("x-cocoon-tier", "attested");
    let answer = server.send(request.json(&crate::chat_body(json!({})))).await;
    assert_eq!(answer.error().1, "duplicate_parameter");
}

/// An error of the node, and what clients get for it.
struct Case {
    error: JobError,
    status: u16,
    code: &'static str,
    param: Option<&'static str>,
    wait_ms: Option<u64>,
}

const fn case(error: JobError, status: u16, code: &'static str) -> Case {
    Case { error, status, code, param: None, wait_ms: None }
}

impl Case {
    fn about(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    fn again_after(self, wait_ms: u64) -> Self {
        Self { wait_ms: Some(wait_ms), ..self }
    }
}

const PROVIDER: NodeId = NodeId::from_bytes([0x22; 32]);
const LESS: NanoTon = NanoTon::from_nano(1);
const MORE: NanoTon = NanoTon::from_nano(2);

/// Errors of this node's own making.
fn node_errors() -> Vec<Case> {
    let (name, reason) = ("m".to_owned(), "because".to_owned());
    let tier = JobError::TierNotAvailable { asked: Tier::Confidential, best: Tier::Open };
    let own = JobError::PolicyForbidsTier { asked: Tier::Confidential };
    let price = JobError::PriceTooHigh { cheapest: MORE, cap: LESS };
    let funds = JobError::FundsExhausted { needed: MORE, available: LESS };
    let evidence = JobError::AttestationRefused { provider: PROVIDER, reason: reason.clone() };
    let ledger = JobError::LedgerUnavailable { reason: reason.clone() };
    let rule = JobError::ProviderMisbehaved { provider: PROVIDER, reason: "rule" };
    vec![
        case(JobError::UnknownModel { name: name.clone() }, 404, "model_not_found").about("model"),
        case(JobError::NoProvider { name }, 503, "no_provider").again_after(5_000),
        case(price, 402, "price_too_high").about("cocoon.max_cost"),
        case(tier, 403, "tier_not_available").about("cocoon.tier"),
        case(own, 403, "policy_forbids_tier").about("cocoon.tier"),
        case(evidence, 403, "attestation_refused"),
        case(funds, 402, "insufficient_funds"),
        case(ledger, 503, "ledger_unavailable").again_after(5_000),
        case(JobError::Unreachable { reason }, 503, "provider_unreachable").again_after(2_000),
        case(JobError::ProviderLost { provider: PROVIDER }, 502, "provider_lost"),
        case(rule, 502, "provider_misbehaved"),
        case(JobError::TooManyJobs, 429, "too_many_jobs").again_after(2_000),
        case(JobError::ShuttingDown, 503, "shutting_down").again_after(5_000),
    ]
}

/// Refusals of a provider.
fn provider_refusals() -> Vec<Case> {
    let refused = |refusal, status, code| case(JobError::Refused(refusal), status, code);
    let busy = |millis| ProviderRefusal::Busy { retry_after: Millis::new(millis) };
    let (prompt, context) = (Tokens::new(9), Tokens::new(8));
    let context = ProviderRefusal::ContextExceeded { prompt, context };
    let request = ProviderRefusal::BadRequest { reason: "because".to_owned() };
    let headroom = ProviderRefusal::NoHeadroom { headroom: LESS, needed: MORE };
    vec![
        refused(busy(1_500), 429, "provider_busy").again_after(1_500),
        refused(busy(3_600_000), 429, "provider_busy").again_after(60_000),
        refused(ProviderRefusal::UnknownModel, 503, "no_provider").again_after(2_000),
        refused(context, 400, "context_length_exceeded").about("messages"),
        refused(request, 400, "provider_refused_request").about("messages"),
        refused(headroom, 503, "channel_exhausted").again_after(5_000),
        refused(ProviderRefusal::StaleOffer, 503, "offer_changed").again_after(2_000),
        refused(ProviderRefusal::Draining, 503, "provider_draining").again_after(2_000),
        refused(ProviderRefusal::EngineFailed, 502, "engine_failed").again_after(2_000),
    ]
}

#[tokio::test]
async fn every_job_error_has_its_status_and_says_whether_to_retry() {
    let server = Server::start(Script::Echo).await;
    for Case { error, status, code, param, wait_ms } in
        node_errors().into_iter().chain(provider_refusals())
    {
        server.fake.set_script(Script::Refuse(error.clone()));
        // Streamed or not: nothing has begun, so that the status can still say it.
        for stream in [false, true] {
            let answer = server.chat(json!({ "stream": stream })).await;
            let expected = (status, code.to_owned(), param.map(str::to_owned));
            assert_eq!(answer.error(), expected, "{error:?}");
            assert_eq!(answer.json()["error"]["message"], error.to_string());
            let shown = |wait: Option<u64>| wait.map_or(String::new(), |wait| wait.to_string());
            let seconds = wait_ms.map(|wait| wait.div_ceil(1000));
            assert_eq!(answer.header("retry-after"), shown(seconds), "{error:?}");
            assert_eq!(answer.header("retry-after-ms"), shown(wait_ms), "{error:?}");
            assert_eq!(answer.header("x-should-retry"), wait_ms.is_some().to_string());
        }
    }
}

#[tokio::test]
async fn a_job_that_fails_on_the_way_ends_with_an_error() {
    let server = Server::start(Script::Echo).await;
    for Case { error, status, code, .. } in node_errors().into_iter().chain(provider_refusals()) {
        let events = vec![crate::fake::text_event("a"), cocoon_gateway::JobEvent::Failed(error)];
        server.fake.set_script(Script::Answer(events));
        let whole = server.chat(json!({})).await;
        assert_eq!((whole.error().0, whole.error().1.as_str()), (status, code));
        assert_eq!(whole.header("x-should-retry"), "false", "something may have been paid");
        assert_eq!(whole.header("retry-after"), "");
        assert_eq!(whole.json()["cocoon"]["price_nanoton"], Value::Null);
        let streamed = server.chat(json!({ "stream": true })).await;
        assert_eq!(streamed.status, 200);
        let last: Value = serde_json::from_str(streamed.events().last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], code);
    }
}

#[tokio::test]
async fn an_unknown_model_is_not_found() {
    let server = Server::start(Script::Echo).await;
    let answer = server.chat(json!({ "model": "gpt-9" })).await;
    let expected = (404, "model_not_found".to_owned(), Some("model".to_owned()));
    assert_eq!(answer.error(), expected);
}
