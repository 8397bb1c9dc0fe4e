//! Tier `confidential` end to end: simulated GPUs beside a simulated TEE, sold, demanded and refused.
//!
//! Owns: `gpu_attester`, and where the tier of a session shows. Must not: repeat the channel's own tests
//! of evidence.

use serde_json::{Value, json};

use crate::gateway::words;
use crate::network::{ECHO, Network, Peer};

const DEV: &str = include_str!("../../../scripts/dev-policy.toml");
const CONFIDENTIAL: [(&str, &str); 1] = [("X-Cocoon-Tier", "confidential")];
const GPUS: [&str; 2] = ["--gpu-attester", "simulated"];

/// The tier of each receipt, newest first.
fn tiers(peer: &Peer<'_>) -> Vec<String> {
    peer.receipts().iter().map(|receipt| receipt.tier.to_string()).collect()
}

#[test]
fn a_tee_with_gpus_sells_confidential_and_says_so_everywhere() {
    let network = Network::start();
    let two = [&GPUS[..], &["--simulated-gpus", "2"]].concat();
    let mut provider = network.provide("provider", &two);
    let mut consumer = network.consume("consumer", &[]);
    let answer = consumer.chat_with(&CONFIDENTIAL, &words(ECHO, 20));
    // First place: the headers of the answer. Second: its body, in every form.
    for expected in ["x-cocoon-tier: confidential", "x-cocoon-simulated: true"] {
        assert!(answer.head.contains(expected), "{}", answer.head);
    }
    let confidential = (json!("confidential"), json!(true));
    let shown = |cocoon: &Value| (cocoon["tier"].clone(), cocoon["simulated"].clone());
    assert_eq!(shown(&answer.whole().cocoon), confidential);
    let mut unstreamed = words(ECHO, 20);
    unstreamed["stream"] = json!(false);
    unstreamed["cocoon"] = json!({ "tier": "confidential" });
    assert_eq!(shown(&consumer.chat(&unstreamed).json()["cocoon"]), confidential);
    // Third: the consumer's status, of the session and of the offer, for people and for programs.
    let status = consumer.ask(&["status"]);
    assert_eq!(shown(&status["sessions"][0]), confidential, "{status}");
    assert_eq!(status["offers"][0]["tier"], "confidential", "{status}");
    let printed = consumer.run(&["status"]).success();
    assert!(printed.contains("confidential (SIMULATED)"), "{printed}");
    let models = crate::gateway::request(consumer.port(), "GET", "/v1/models", &[], b"").json();
    let listed = models["data"].as_array().unwrap().iter().find(|model| model["id"] == ECHO);
    assert!(listed.unwrap().to_string().contains("\"confidential\""), "{models}");
    // Fourth: the provider's status.
    let status = provider.ask(&["status"]);
    assert_eq!(
        (&status["offered_tier"], &status["simulated_tee"]),
        (&confidential.0, &confidential.1)
    );
    let printed = provider.run(&["status"]).success();
    let roles = "provider (confidential), SIMULATED TEE: protects nothing";
    assert!(printed.contains(roles), "{printed}");
    // The receipts of both, which both have signed or paid for.
    for peer in [&provider, &consumer] {
        assert_eq!(tiers(peer), ["confidential", "confidential"]);
    }
    // Fifth: the logs of both, at the start, at the session and at each answer.
    let (_, log) = consumer.terminate_with_log();
    for said in ["session opened", "answered"] {
        let line = log.lines().find(|line| line.contains(said)).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("confidential") && line.contains("simulated=true"), "{line}");
    }
    assert!(log.lines().any(|line| line.contains("session opened") && line.contains("gpus=2")));
    let (_, log) = provider.terminate_with_log();
    let ready = log.lines().find(|line| line.contains("ready to provide")).unwrap();
    assert!(ready.contains("tier=confidential") && ready.contains("simulated=true"), "{ready}");
    let session = log.lines().find(|line| line.contains("accepted a session")).unwrap();
    assert!(
        session.contains("tier=confidential") && session.contains("simulated=true"),
        "{session}"
    );
    assert!(log.contains("simulates GPUs: their evidence is worth NOTHING"), "{log}");
    assert_eq!(log.lines().filter(|line| line.contains("a GPU proves itself")).count(), 2);
}

#[test]
fn simulated_gpus_are_refused_by_a_production_policy() {
    let network = Network::start();
    let provider = network.provide("provider", &GPUS);
    let production = DEV.replace("trust = \"dev\"", "trust = \"production\"");
    let policy = network.write("production.toml", &production);
    let consumer = network.consume_under("consumer", policy.to_str().unwrap(), &[]);
    consumer.run(&["wallet", "fund", "5 TON"]).success();
    let error = consumer.chat_with(&CONFIDENTIAL, &words(ECHO, 20)).refusal(403);
    assert_eq!(error["code"], "attestation_refused", "{error}");
    let why = "simulated; only a policy with `trust = \"dev\"` accepts that";
    assert!(error["message"].as_str().unwrap().contains(why), "{error}");
    assert!(provider.receipts().is_empty());
}

#[test]
fn a_cpu_alone_never_serves_who_demands_confidential() {
    let network = Network::start();
    let mut provider = network.provide("provider", &[]);
    let consumer = network.consume("consumer", &["--minimum-tier", "confidential"]);
    let error = consumer.chat(&words(ECHO, 20)).refusal(403);
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("tier_not_available"), &json!("cocoon.tier"))
    );
    let why =
        "the tier `confidential` is not available; the best offered for this model is `attested`";
    assert!(error["message"].as_str().unwrap().contains(why), "{error}");
    assert!(provider.receipts().is_empty());
    // A request may say that less will do, and is told what it got.
    let answer = consumer.chat_with(&[("X-Cocoon-Tier", "attested")], &words(ECHO, 20));
    assert!(answer.head.contains("x-cocoon-tier: attested"), "{}", answer.head);
    answer.whole();
    let (_, log) = provider.terminate_with_log();
    assert!(log.contains("no GPU proves itself: tier attested"), "{log}");
}

#[test]
fn who_asks_for_attested_of_a_machine_with_gpus_gets_that_and_its_label() {
    let network = Network::start();
    let provider = network.provide_as("provider", "simulated-snp", &GPUS);
    // Without rules for GPUs a policy accepts the TEE beside them, and them for nothing.
    let (without, _) = DEV.split_once("[gpu]").unwrap();
    let policy = network.write("without.toml", without);
    let consumer = network.consume_under("consumer", policy.to_str().unwrap(), &[]);
    consumer.run(&["wallet", "fund", "5 TON"]).success();
    let answer = consumer.chat(&words(ECHO, 20));
    assert!(answer.head.contains("x-cocoon-tier: attested"), "{}", answer.head);
    answer.whole();
    assert_eq!(consumer.ask(&["status"])["sessions"][0]["tier"], "attested");
    assert_eq!(tiers(&provider), ["attested"]);
    assert_eq!(provider.ask(&["status"])["offered_tier"], "confidential");
    // Whoever demands more under such a policy is told so, and the provider is not blamed for it.
    let error = consumer.chat_with(&CONFIDENTIAL, &words(ECHO, 20)).refusal(403);
    let expected = (&json!("policy_forbids_tier"), &json!("cocoon.tier"));
    assert_eq!((&error["code"], &error["param"]), expected, "{error}");
    assert!(error["message"].as_str().unwrap().contains("lists no state of a GPU"), "{error}");
    consumer.chat(&words(ECHO, 20)).whole();
}

#[test]
fn who_must_prove_gpus_by_the_policy_is_chosen_by_that_and_nobody_else_is_dialled() {
    let network = Network::start();
    let required = DEV.replace("[gpu]\n", "[gpu]\nrequired = true\n");
    assert_ne!(required, DEV);
    let policy = network.write("required.toml", &required);
    let mut without = network.provide("without", &[]);
    let consumer = network.consume_under("consumer", policy.to_str().unwrap(), &[]);
    consumer.run(&["wallet", "fund", "5 TON"]).success();
    let error = consumer.chat(&words(ECHO, 20)).refusal(403);
    assert_eq!(error["code"], "tier_not_available", "{error}");
    let why =
        "the tier `confidential` is not available; the best offered for this model is `attested`";
    assert!(error["message"].as_str().unwrap().contains(why), "{error}");
    // Tier `open` is without evidence, and needs no GPU for it.
    consumer.chat_with(&[("X-Cocoon-Tier", "open")], &words(ECHO, 5)).whole();
    let with = network.provide("with", &GPUS);
    let answer = consumer.chat(&words(ECHO, 20));
    assert!(answer.head.contains("x-cocoon-tier: confidential"), "{}", answer.head);
    answer.whole();
    assert_eq!(tiers(&with), ["confidential"]);
    assert_eq!(tiers(&without), ["open"]);
    let (_, log) = without.terminate_with_log();
    assert_eq!(log.matches("accepted a session").count(), 1, "{log}");
}

#[test]
fn a_session_gives_way_to_one_that_proves_more_and_no_answer_is_lost() {
    let network = Network::start();
    let slow = [&GPUS[..], &["--echo-delay", "20 ms"]].concat();
    let provider = network.provide("provider", &slow);
    let consumer = network.consume("consumer", &[]);
    let mut running = consumer.chat(&words(ECHO, 60));
    assert!(running.head.contains("x-cocoon-tier: attested"), "{}", running.head);
    let begun = running.pieces(1);
    // It waits for the answer that runs, and is served over a session of its own tier.
    let better = consumer.chat_with(&CONFIDENTIAL, &words(ECHO, 5));
    assert!(better.head.contains("x-cocoon-tier: confidential"), "{}", better.head);
    better.whole();
    let whole = running.rest(begun);
    assert!(whole.done && whole.error.is_null(), "{whole:?}");
    assert_eq!(whole.cocoon["tier"], "attested");
    // Which then serves whoever asks for less, and names what it is.
    let third = consumer.chat(&words(ECHO, 5));
    assert!(third.head.contains("x-cocoon-tier: confidential"), "{}", third.head);
    third.whole();
    assert_eq!(tiers(&consumer), ["confidential", "confidential", "attested"]);
    assert_eq!(tiers(&provider), tiers(&consumer));
}

#[test]
fn gpus_that_were_asked_for_by_name_and_are_not_there_stop_a_provider() {
    let sandbox = crate::process::Sandbox::new();
    let listen = ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--log", "error"];
    let stopped = |more: &[&str]| {
        let own = ["--provide", "--engine", "echo", "--attester", "simulated"];
        sandbox.run(&[&own[..], &listen, more].concat())
    };
    let error = stopped(&["--gpu-attester", "nvidia"]).failure(1);
    for expected in ["none is offered", "hint: "] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let error = stopped(&["--gpu-attester", "simulated", "--simulated-gpus", "9"]).failure(1);
    assert!(
        error.contains("there are 9 GPUs, and a session carries the evidence of at most 8"),
        "{error}"
    );
    // And without a TEE they would prove nothing.
    let error = stopped(&["--attester", "open", "--gpu-attester", "simulated"]);
    assert_ne!(error.code, Some(0));
}
