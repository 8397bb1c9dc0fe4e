//! What clients may send, and what the node gets of it.

use cocoon_protocol::attest::Tier;
use cocoon_protocol::job::{Prompt, Role, Sampling, Turn};
use cocoon_protocol::units::{NanoTon, Tokens};
use serde_json::{Value, json};

use crate::Server;
use crate::fake::Script;

fn turn(role: Role, content: &str) -> Turn {
    Turn { role, content: content.to_owned() }
}

#[tokio::test]
async fn a_full_request_arrives_field_by_field() {
    let server = Server::start(Script::Echo).await;
    let change = json!({
        "messages": [
            { "role": "system", "content": "Be brief" },
            { "role": "developer", "content": [{ "type": "text", "text": "Be " }, { "type": "text", "text": "kind" }] },
            { "role": "user", "content": "Hi" },
            { "role": "assistant", "content": "Yes?" },
            { "role": "user", "content": [] },
        ],
        "temperature": 0.5, "top_p": 0.25, "top_k": 40, "min_p": 0.125,
        "frequency_penalty": -1.5, "presence_penalty": 2, "seed": 42,
        "stop": ["\n\n", "END"], "max_completion_tokens": 99,
        "cocoon": { "tier": "attested", "max_cost": "0.01 TON" },
    });
    let answer = server.chat(change).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let request = server.fake.last().unwrap();
    let dialogue = vec![
        turn(Role::System, "Be brief"),
        turn(Role::System, "Be kind"),
        turn(Role::User, "Hi"),
        turn(Role::Assistant, "Yes?"),
        turn(Role::User, ""),
    ];
    assert!(request.prompt == Prompt::Chat(dialogue));
    let sampling = Sampling {
        temperature: 0.5,
        top_p: 0.25,
        top_k: 40,
        min_p: 0.125,
        frequency_penalty: -1.5,
        presence_penalty: 2.0,
        seed: 42,
    };
    assert_eq!(request.sampling, sampling);
    assert_eq!(request.stop, ["\n\n", "END"]);
    assert_eq!(request.max_completion, Some(Tokens::new(99)));
    assert_eq!(request.minimum_tier, Some(Tier::Attested));
    assert_eq!(request.max_cost, Some(NanoTon::from_nano(10_000_000)));
}

#[tokio::test]
async fn what_is_left_out_takes_openais_defaults_and_a_fresh_seed() {
    let server = Server::start(Script::Echo).await;
    let mut seeds = Vec::new();
    for _ in 0..2 {
        let answer = server.chat(json!({})).await.json();
        let request = server.fake.last().unwrap();
        assert_eq!(request.sampling, Sampling::with_seed(request.sampling.seed));
        assert_eq!(answer["cocoon"]["seed"], request.sampling.seed);
        assert!(request.sampling.seed < 1 << 53, "every JSON reader must give it back exactly");
        assert_eq!(request.stop, Vec::<String>::new());
        assert_eq!(request.max_completion, None);
        assert_eq!((request.minimum_tier, request.max_cost), (None, None));
        seeds.push(request.sampling.seed);
    }
    assert_ne!(seeds[0], seeds[1]);
}

#[tokio::test]
async fn a_text_completion_takes_a_string_or_a_list_of_one() {
    let server = Server::start(Script::Echo).await;
    for prompt in [json!("Once upon"), json!(["Once upon"])] {
        assert_eq!(server.completion(json!({ "prompt": prompt })).await.status, 200);
        let request = server.fake.last().unwrap();
        assert!(request.prompt == Prompt::Text("Once upon".into()));
        assert_eq!(request.max_completion, Some(Tokens::new(16)), "OpenAI's default");
    }
}

#[tokio::test]
async fn stop_and_seed_and_limits_have_all_their_spellings() {
    let server = Server::start(Script::Echo).await;
    let sent = async |change: Value| {
        let answer = server.chat(change).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        server.fake.last().unwrap()
    };
    assert_eq!(sent(json!({ "stop": "END" })).await.stop, ["END"]);
    assert_eq!(sent(json!({ "stop": [] })).await.stop, Vec::<String>::new());
    assert_eq!(sent(json!({ "seed": -1 })).await.sampling.seed, u64::MAX);
    assert_eq!(sent(json!({ "seed": u64::MAX })).await.sampling.seed, u64::MAX);
    let limit = Some(Tokens::new(5));
    assert_eq!(sent(json!({ "max_tokens": 5 })).await.max_completion, limit);
    let both = json!({ "max_tokens": 5, "max_completion_tokens": 5 });
    assert_eq!(sent(both).await.max_completion, limit);
    let by_hash = format!("blake3:{}", "ab".repeat(32));
    assert_eq!(sent(json!({ "model": by_hash })).await.model, by_hash);
}

#[tokio::test]
async fn the_stricter_of_body_and_header_holds() {
    let server = Server::start(Script::Echo).await;
    let url = server.url("/v1/chat/completions");
    for (body, tier, cost, expected) in [
        (json!({}), "attested", "1 TON", (Tier::Attested, 1_000_000_000)),
        (
            json!({ "tier": "open", "max_cost": "5 nanoTON" }),
            "confidential",
            "1 TON",
            (Tier::Confidential, 5),
        ),
        (
            json!({ "tier": "confidential", "max_cost": "2 TON" }),
            "open",
            "7nanoTON",
            (Tier::Confidential, 7),
        ),
    ] {
        let request = server.client.post(&url).json(&crate::chat_body(json!({ "cocoon": body })));
        let request = request.header("X-Cocoon-Tier", tier).header("X-Cocoon-Max-Cost", cost);
        assert_eq!(server.send(request).await.status, 200);
        let request = server.fake.last().unwrap();
        let (tier, cost) = expected;
        assert_eq!(request.minimum_tier, Some(tier));
        assert_eq!(request.max_cost, Some(NanoTon::from_nano(cost)));
    }
}

#[tokio::test]
async fn what_clients_send_out_of_habit_is_accepted() {
    let server = Server::start(Script::Echo).await;
    for habit in [
        json!({ "user": "u", "safety_identifier": "s", "prompt_cache_key": "k" }),
        json!({ "metadata": { "a": "b" }, "store": true, "service_tier": "auto" }),
        json!({ "n": 1, "logprobs": false, "top_logprobs": null, "logit_bias": {} }),
        json!({ "tools": [], "tool_choice": "none", "parallel_tool_calls": true, "functions": null }),
        json!({ "response_format": { "type": "text" }, "modalities": ["text"], "audio": null }),
        json!({ "temperature": null, "stop": null, "stream": null, "stream_options": null }),
        json!({ "cocoon": {} }),
        // An earlier answer, sent back whole as the next prompt.
        json!({ "messages": [{
            "role": "assistant", "content": "Hi", "refusal": null, "annotations": [],
            "audio": null, "function_call": null, "tool_calls": null,
        }] }),
    ] {
        let answer = server.chat(habit.clone()).await;
        assert_eq!(answer.status, 200, "{habit}: {}", answer.text);
    }
    let habit = json!({ "best_of": 1, "echo": false, "suffix": null, "logprobs": null, "n": 1 });
    assert_eq!(server.completion(habit).await.status, 200);
}

#[tokio::test]
async fn a_character_may_be_split_between_packets_both_ways() {
    use tokio::io::AsyncWriteExt as _;

    let server = Server::start(Script::Echo).await;
    let mut stream = server.connect().await;
    let request = crate::raw_chat(json!({
        "messages": [{ "role": "user", "content": "🦀é漢" }], "stream": true,
    }));
    // One byte a packet: every character is split at every place.
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    for byte in body.bytes() {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = crate::read_to_end(&mut stream).await;
    assert!(answer.contains("{\"content\":\"🦀é漢\"}"), "{answer}");
}
