//! Providers that demand attested consumers, as real processes.
//!
//! Owns: the setting `consumer_policy` end to end. Must not: look into the channel; its own tests do.

use serde_json::json;

use crate::gateway::words;
use crate::network::{ECHO, Network};
use crate::refusals::PRODUCTION;

const DEV: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/dev-policy.toml");

#[test]
fn a_provider_that_demands_attested_consumers_serves_those_alone() {
    let network = Network::start();
    let provider = network.provide("provider", &["--consumer-policy", DEV]);

    let plain = network.consume("plain", &[]);
    let error = plain.chat(&words(ECHO, 5)).refusal(403);
    assert_eq!(error["code"], "attestation_refused", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("attested consumers only"), "{message}");
    assert_eq!(plain.ask(&["channel", "list"]), json!([]));
    let log = provider.node().log();
    assert!(log.contains("the consumer was refused"), "{log}");

    let attested = network.consume("attested", &["--attester", "simulated"]);
    let answer = attested.chat(&words(ECHO, 20)).whole();
    assert_eq!(answer.text.split(' ').count(), 20);
    let log = provider.node().log();
    let accepted = log.lines().find(|line| line.contains("with an attested consumer")).unwrap();
    assert!(accepted.contains("NOT A TEE"), "{accepted}");
}

#[test]
fn a_production_policy_for_consumers_refuses_a_simulated_one() {
    let network = Network::start();
    let policy = network.write("production.toml", PRODUCTION);
    let demand = ["--consumer-policy", policy.to_str().unwrap()];
    let provider = network.provide("provider", &demand);
    let consumer = network.consume("consumer", &["--attester", "simulated"]);
    let error = consumer.chat(&words(ECHO, 5)).refusal(403);
    assert_eq!(error["code"], "attestation_refused", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("refuses this node's evidence"), "{message}");
    let log = provider.node().log();
    assert!(log.contains("simulated"), "{log}");
    assert_eq!(provider.ask(&["status"])["jobs"], json!([]));
}

#[test]
fn a_policy_for_consumers_that_is_none_stops_the_provider() {
    let network = Network::start();
    let policy = network.write("broken.toml", "version = 1\n");
    let (policy, folder) = (policy.to_str().unwrap(), "provider");
    let arguments =
        ["--data-dir", folder, "--provide", "--engine", "echo", "--consumer-policy", policy];
    let said = network.run(&arguments).failure(1);
    assert!(said.contains("consumer_policy") && said.contains("broken.toml"), "{said}");
}
