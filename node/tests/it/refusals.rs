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

/// The policy of the demo, which trusts simulated TEEs.
const DEV: &str = include_str!("../../../scripts/dev-policy.toml");

#[test]
fn the_demo_is_refused_by_a_production_policy_and_labelled_everywhere_by_a_dev_policy() {
    let network = Network::start();
    let mut provider = network.provide("provider", &[]);
    // The same rules and images; only whom they trust is another.
    let production = DEV.replace("trust = \"dev\"", "trust = \"production\"");
    assert_ne!(production, DEV);
    let production = network.write("production.toml", &production);
    let careful = network.consume_under("careful", production.to_str().unwrap(), &[]);
    careful.run(&["wallet", "fund", "5 TON"]).success();
    let error = careful.chat(&words(ECHO, 20)).refusal(403);
    assert_eq!(error["code"], "attestation_refused", "{error}");
    let why = "the provider's TEE is simulated; only a policy with `trust = \"dev\"` accepts that";
    assert!(error["message"].as_str().unwrap().contains(why), "{error}");
    let policy = &careful.ask(&["status"])["policy"];
    assert_eq!(
        (&policy["trust"], &policy["accepts_simulated"]),
        (&json!("production"), &json!(false))
    );

    let mut trusting = network.consume("trusting", &[]);
    let answer = trusting.chat(&words(ECHO, 20));
    // First place: the headers of the answer. Second: its body, in every form.
    assert!(answer.head.contains("x-cocoon-simulated: true"), "{}", answer.head);
    assert_eq!(answer.whole().cocoon["simulated"], true);
    let mut unstreamed = words(ECHO, 20);
    unstreamed["stream"] = json!(false);
    assert_eq!(trusting.chat(&unstreamed).json()["cocoon"]["simulated"], true);
    // Third: the consumer's status, of its policy and of the session, for people and for programs.
    let status = trusting.ask(&["status"]);
    assert_eq!(status["policy"]["accepts_simulated"], true, "{status}");
    assert_eq!(status["sessions"][0]["simulated"], true, "{status}");
    let printed = trusting.run(&["status"]).success();
    assert!(printed.contains("ACCEPTS SIMULATED TEES: protects nothing"), "{printed}");
    assert!(printed.contains("attested (SIMULATED)"), "{printed}");
    // Fourth: the provider's status.
    let printed = provider.run(&["status"]).success();
    assert!(printed.contains("SIMULATED TEE: protects nothing"), "{printed}");
    assert_eq!(provider.ask(&["status"])["simulated_tee"], true);
    // Fifth: the logs of both, at the start, at the session and at each answer.
    let (_, log) = trusting.terminate_with_log();
    for said in ["trusts simulated TEEs: NO SECURITY", "session opened", "answered"] {
        let line = log.lines().find(|line| line.contains(said)).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("NO SECURITY") || line.contains("simulated=true"), "{line}");
    }
    let (_, log) = provider.terminate_with_log();
    assert!(log.contains("TEE is simulated: it protects nothing"), "{log}");
    // And whoever asks what the policy means is told.
    let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/dev-policy.toml");
    let explained = network.run(&["tee", "policy", "explain", policy]).success();
    assert!(explained.contains("NO SECURITY"), "{explained}");
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

#[test]
fn what_a_maintainer_withdraws_is_refused_though_the_policy_lists_it() {
    let network = Network::start();
    let _provider = network.provide("provider", &[]);
    let publish = |version: u32, least: u32| {
        let content = format!(
            "version = {version}\nexpires = \"2100-01-01T00:00:00Z\"\n[tdx]\n\
             min_tcb_eval_data_number = {least}\n"
        );
        network.write("list.toml", &content);
        let sign = ["tee", "advisories", "sign", "list.toml", "--output", "list"];
        network.run(&[&["--data-dir", "maintainer"], &sign[..]].concat()).success();
    };
    publish(1, u32::MAX);
    let list = std::fs::read_to_string(network.path("list")).unwrap();
    let maintainer = list.lines().find_map(|line| line.strip_prefix("maintainer ")).unwrap();
    let follow = format!("[[advisories]]\nmaintainer = \"{maintainer}\"\nsource = \"list\"\n");
    let policy = network.write("following.toml", &format!("{DEV}\n{follow}"));
    let mut consumer = network.consume_under("consumer", policy.to_str().unwrap(), &[]);
    consumer.run(&["wallet", "fund", "5 TON"]).success();
    let error = consumer.chat(&words(ECHO, 20)).refusal(403);
    assert!(error["message"].as_str().unwrap().contains("TCB evaluation"), "{error}");
    let followed = &consumer.ask(&["status"])["policy"]["advisories"][0];
    assert_eq!((&followed["version"], &followed["maintainer"]), (&json!(1), &json!(maintainer)));

    // An older list is not believed, after a restart either; a newer one may take back what only it said.
    assert_eq!(consumer.terminate(), Some(0));
    publish(0, 0);
    consumer.start();
    assert_eq!(consumer.ask(&["status"])["policy"]["advisories"][0]["version"], 1);
    assert_eq!(consumer.terminate(), Some(0));
    publish(2, 0);
    consumer.start();
    let answer = consumer.chat(&words(ECHO, 20)).whole();
    assert_eq!(answer.cocoon["simulated"], true);
}
