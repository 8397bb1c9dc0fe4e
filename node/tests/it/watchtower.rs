//! The two who disappear: a provider whose watchtower settles for it, and whose consumer then takes
//! the rest back alone; over real processes, from the command line.

use std::process::Stdio;

use serde_json::Value;

use crate::gateway::words;
use crate::network::{ECHO, Network, eventually};

/// A process that is killed when the test ends.
struct Tower(std::process::Child);

impl Drop for Tower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_watchtower_settles_for_a_dead_provider_and_the_consumer_gets_the_rest_back_alone() {
    let network = Network::start();
    std::fs::create_dir(network.path("vouchers")).unwrap();
    let export = network.path("vouchers/provider.json");
    let export = export.to_str().unwrap();
    // Nothing is settled because of its amount: only the release is a reason.
    let delay = ["--release-delay", "20 s"];
    let own = ["--settle-threshold", "1000 TON", "--voucher-export", export];
    let mut provider = network.provide("provider", &[&own[..], &delay].concat());
    let consumer = network.consume("consumer", &delay);
    assert!(consumer.chat(&words(ECHO, 100)).whole().price() > 0);
    let promised = eventually("the last voucher arrives", || {
        Some(provider.promised()).filter(|it| *it > 0 && *it == consumer.promised())
    });
    let wallet = provider.ask(&["wallet", "show"])["address"].as_str().unwrap().to_owned();
    let bundle = || -> Option<Value> { serde_json::from_slice(&std::fs::read(export).ok()?).ok() };
    eventually("the voucher is exported", || {
        let claims = bundle()?["claims"].as_array()?.clone();
        (claims.first()?["cumulative_nano"] == promised).then_some(())
    });
    // The same by hand.
    let printed = provider.run(&["channel", "export"]).success();
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), bundle().unwrap());
    let shown = provider.ask(&["channel", "list"]);
    let vault = shown[0]["vault"].as_str().unwrap().to_owned();
    let shown = provider.run(&["channel", "show", &vault[..20]]).success();
    assert!(shown.contains("release      not asked for"), "{shown}");
    provider.kill();

    // Somebody else, with nothing but the file.
    let log = network.path("tower.log");
    let arguments =
        ["--data-dir", "tower", "--ledger", network.ledger(), "watch", "--vouchers", "vouchers"];
    let output = std::fs::File::create(&log).unwrap();
    let errors = output.try_clone().unwrap();
    let mut tower = network.command(&arguments);
    let tower = tower.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().unwrap();
    let _tower = Tower(tower);
    let told = |what: &str| std::fs::read_to_string(&log).unwrap().contains(what);
    eventually("the tower stands guard", || told("guarding ").then_some(()));
    // Having no key, it made none.
    assert!(!network.path("tower/keystore.json").exists());
    assert!(!told("settled "));

    let peer = consumer.ask(&["channel", "list"])[0]["peer"].as_str().unwrap().to_owned();
    consumer.run(&["channel", "release", &peer]).success();
    eventually("the tower settles", || told("settled ").then_some(()));
    assert!(told("release "), "it did not tell of the request");
    let balance = |account: &str| {
        let shown = consumer.ask(&["wallet", "balance", account]);
        shown["balance_nano"].as_u64().unwrap()
    };
    let earned = eventually("the provider is paid", || Some(balance(&wallet)).filter(|it| *it > 0));
    // All of it but the gas of its settlement.
    assert!(earned <= promised && earned > promised - 3_000_000, "{earned} of {promised}");

    // The delay passes, and the consumer's node takes the rest back without being told again.
    let allocations = || consumer.ask(&["vault", "show"])["allocations"].as_array().unwrap().len();
    eventually("the rest is free again", || (allocations() == 0).then_some(()));
    let vault = consumer.ask(&["vault", "show"]);
    assert_eq!(vault["reserved_nano"], 0, "{vault}");
    consumer.run(&["vault", "withdraw"]).success();
}

#[test]
fn a_bundle_that_is_none_is_named_and_an_embedded_ledger_is_no_place_to_watch() {
    let network = Network::start();
    network.write("vouchers.json", "{}");
    let error = network.run(&["watch", "--vouchers", "vouchers.json"]).failure(2);
    assert!(error.contains("give `--ledger` and `--network`"), "{error}");
    let error = network
        .run(&["--ledger", network.ledger(), "watch", "--vouchers", "nothing.json"])
        .failure(1);
    assert!(error.contains("there is no nothing.json"), "{error}");
}
