//! Where money is read from: liteservers, a server that is only believed, and other people's
//! clients on what a node serves.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::gateway::words;
use crate::network::{ECHO, Network, eventually};

const TON: u64 = 1_000_000_000;

#[test]
fn a_job_is_paid_with_proofs_alone_and_the_ledger_may_die_between() {
    let network = Network::start();
    let file = network.ton_config();
    let proved = ["--ledger", "liteservers", "--ton-config", &file];
    let strict = [&proved[..], &["--accept-unverified-ledger=false"]].concat();
    let provider = network.provide("provider", &strict);
    let consumer = network.consume_unfunded("consumer", &proved);
    let address = consumer.ask(&["wallet", "show"])["address"].as_str().unwrap().to_owned();
    network.fund(&address, 5 * TON);
    let answered = || {
        let answer = eventually("the coins are in an agreed block", || {
            let answer = consumer.chat(&words(ECHO, 40));
            (answer.status == 200).then_some(answer)
        });
        assert_eq!(answer.whole().text.split(' ').count(), 40);
    };
    answered();
    eventually("the provider holds a voucher", || (provider.promised() > 0).then_some(()));

    // Both come back to the same chain by themselves.
    let before = provider.promised();
    network.kill_entry();
    network.start_entry();
    answered();
    eventually("the provider holds more", || (provider.promised() > before).then_some(()));
}

#[test]
fn a_server_that_proves_nothing_extends_no_service_unless_it_is_told_to() {
    let network = Network::start();
    let strict = ["--accept-unverified-ledger=false"];
    let mut provider = network.provide("provider", &strict);
    let consumer = network.consume("consumer", &[]);
    let answer = consumer.chat(&words(ECHO, 20));
    assert_ne!(answer.status, 200, "it was served on a server's word");
    assert_eq!(provider.ask(&["status"])["jobs"], json!([]));
    assert_eq!(provider.promised(), 0);
    assert!(provider.node().log().contains("is not proved"), "{}", provider.node().log());
    provider.kill();
    // A devnet's default: its server is the chain.
    let _trusting = network.provide("trusting", &[]);
    eventually("the other provider serves", || {
        let answer = consumer.chat(&words(ECHO, 20));
        (answer.status == 200).then(|| answer.whole())
    });
}

#[test]
fn a_ledger_of_another_network_is_refused_at_the_start() {
    let network = Network::start();
    let testnet = ["--data-dir", "lost", "--network", "testnet", "--ledger", network.ledger()];
    let error = network.run(&testnet).failure(1);
    assert!(error.contains("the ledger is not on testnet"), "{error}");
    // The file says it as well, before anybody is asked.
    let file = network.ton_config();
    let testnet = ["--data-dir", "lost", "--network", "testnet", "--ton-config", &file];
    let error = network.run(&testnet).failure(1);
    assert!(error.contains("its zero state is not that of testnet"), "{error}");
    let error = network.run(&["--data-dir", "lost", "--network", "mainnet"]).failure(2);
    assert!(error.contains("--ton-config FILE"), "{error}");
}

#[test]
fn liteserver_clients_of_others_read_send_and_call_on_a_node() {
    let Some(python) = std::env::var_os("COCOON_TEST_PYTHON") else {
        println!("skipped: COCOON_TEST_PYTHON is not set");
        return;
    };
    let probe = Command::new(&python).args(["-c", "import pytoniq, tonutils"]).output().unwrap();
    if !probe.status.success() {
        println!("skipped: pytoniq and tonutils are not installed; scripts/test installs them");
        return;
    }
    let network = Network::start();
    let file = std::fs::read_to_string(Path::new(&network.ton_config())).unwrap();
    let file: serde_json::Value = serde_json::from_str(&file).unwrap();
    let server = &file["liteservers"][0];
    let output = Command::new(&python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ledger_clients/check.py"))
        .arg(network.ledger())
        .arg(format!("127.0.0.1:{}", server["port"]))
        .arg(server["id"]["key"].as_str().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
