//! Every way in which a request is refused, with the status and the words that its sender gets.

use cocoon_node::store::{Store, Table};
use serde_json::json;

use crate::gateway::{request, words};
use crate::network::{ECHO, Network, eventually, free_port};

/// A policy for real hardware alone, with an image that nobody runs.
pub(crate) const PRODUCTION: &str = r#"version = 1
trust = "production"
[tdx]
tcb_status = ["UpToDate"]
min_tcb_eval_data_number = 1
max_collateral_age_h = 168
[[tdx.image]]
name = "cocoon-node"
mrtd = "111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"
rtmr0 = ["202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020"]
rtmr1 = "313131313131313131313131313131313131313131313131313131313131313131313131313131313131313131313131"
rtmr2 = "414141414141414141414141414141414141414141414141414141414141414141414141414141414141414141414141"
rtmr3 = "515151515151515151515151515151515151515151515151515151515151515151515151515151515151515151515151"
"#;

#[test]
fn a_simulated_tee_is_refused_by_a_production_policy_before_anything_is_said() {
    let network = Network::start();
    let mut provider = network.provide("provider", &["--log", "info,cocoon_node=trace"]);
    let policy = network.write("production.toml", PRODUCTION);
    let consumer = network.consume_under("consumer", policy.to_str().unwrap(), &[]);
    consumer.run(&["wallet", "fund", "5 TON"]).success();

    let error = consumer.chat(&words(ECHO, 20)).refusal(403);
    assert_eq!(error["code"], "attestation_refused", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("simulated"), "{message}");

    // Nobody was asked for a job, nothing was reserved, nothing was paid.
    let status = provider.ask(&["status"]);
    for nothing in ["jobs", "channels"] {
        assert_eq!(status[nothing], json!([]), "{status}");
    }
    assert_eq!(consumer.ask(&["channel", "list"]), json!([]));
    assert!(provider.receipts().is_empty());
    assert_eq!(consumer.ask(&["status"])["sessions"], json!([]));
    let log = provider.node().log();
    assert!(!log.contains("w17"), "the prompt's last words are in the log");
    assert_eq!(provider.terminate(), Some(0));
    let store = Store::open(&provider.data_dir().join("store.redb")).unwrap();
    for table in [Table::Payee, Table::Receipt, Table::Interrupted] {
        assert_eq!(store.count(table).unwrap(), 0, "{table:?}");
    }
}

#[test]
fn an_open_provider_serves_only_who_asks_for_it_and_is_labelled() {
    let network = Network::start();
    let _provider = network.provide_as("provider", "open", &[]);
    let consumer = network.consume("consumer", &[]);
    let error = consumer.chat(&words(ECHO, 20)).refusal(403);
    assert_eq!(error["code"], "tier_not_available", "{error}");
    assert_eq!(consumer.ask(&["channel", "list"]), json!([]));

    let answer = consumer.chat_with(&[("X-Cocoon-Tier", "open")], &words(ECHO, 20));
    assert!(answer.head.contains("x-cocoon-tier: open"), "{}", answer.head);
    assert!(answer.head.contains("x-cocoon-simulated: false"), "{}", answer.head);
    let answer = answer.whole();
    assert_eq!(answer.text.split(' ').count(), 20);
    assert_eq!(
        (&answer.cocoon["tier"], &answer.cocoon["simulated"]),
        (&json!("open"), &json!(false))
    );
}

#[test]
fn refusals_say_what_to_do() {
    let network = Network::start();
    let poor = network.consume_unfunded("poor", &[]);

    // Nobody serves it.
    let error = poor.chat(&words(ECHO, 5)).refusal(503);
    assert_eq!(error["code"], "no_provider", "{error}");
    // Nobody knows it.
    let error = poor.chat(&words("no-such-model", 5)).refusal(404);
    assert_eq!(error["code"], "model_not_found", "{error}");

    let slow = ["--engine-slots", "1", "--echo-delay", "20 ms"];
    let provider = network.provide("provider", &slow);
    eventually("the offer is known", || {
        let listed = poor.ask(&["status"]);
        (!listed["offers"].as_array().unwrap().is_empty()).then_some(())
    });
    // An empty wallet.
    let error = poor.chat(&words(ECHO, 5)).refusal(402);
    assert_eq!(error["code"], "insufficient_funds", "{error}");
    assert!(error["message"].as_str().unwrap().contains("fund"), "{error}");
    // Too dear.
    let cheap = [("X-Cocoon-Max-Cost", "1 nanoTON")];
    let error = poor.chat_with(&cheap, &words(ECHO, 5)).refusal(402);
    assert_eq!(error["code"], "price_too_high", "{error}");

    // The same consumer, once it has coins; then somebody else while the only place is taken.
    poor.run(&["wallet", "fund", "5 TON"]).success();
    let rich = network.consume("rich", &[]);
    let mut long = poor.chat(&words(ECHO, 150));
    let begun = long.pieces(1);
    // It says when to ask again, and is asked again: the second job waits and is served.
    let waited = rich.chat(&words(ECHO, 5)).whole();
    assert!(waited.done && waited.error.is_null(), "{waited:?}");
    let whole = long.rest(begun);
    assert!(whole.done && whole.error.is_null(), "{whole:?}");
    assert_eq!(provider.ask(&["status"])["jobs"], json!([]));
    assert_ne!(free_port(), 0);
    let _ = request(rich.port(), "GET", "/health", &[], b"").json();
}
