//! Proofs of receipts, made by one node, checked by somebody with the file, the texts and a ledger.

use crate::gateway::Whole;
use crate::gateway::words;
use crate::network::{ECHO, Network, Peer, eventually};

fn prove(consumer: &Peer<'_>, answer: &Whole) -> String {
    let id = answer.cocoon["receipt"].as_str().unwrap();
    consumer.run(&["receipt", "prove", id]).success()
}

fn settle(provider: &Peer<'_>, consumer: &Peer<'_>) {
    let promised = consumer.promised();
    eventually("the last voucher arrives", || (provider.promised() == promised).then_some(()));
    provider.run(&["channel", "settle"]).success();
}

#[test]
fn anybody_checks_an_answer_with_its_proof_the_texts_and_a_ledger() {
    let network = Network::start();
    let provider = network.provide("provider", &[]);
    let consumer = network.consume("consumer", &[]);
    let asked = words(ECHO, 100);
    let first = consumer.chat(&asked).whole();
    network.write("prompt.json", &asked.to_string());
    network.write("completion.txt", &first.text);
    let verify = |file: &str, more: &[&str]| {
        // The checker's own data folder: nothing of the consumer's is used.
        network.run(&[&["--data-dir", "checker", "receipt", "verify", file], more].concat())
    };
    let texts = ["--prompt", "prompt.json", "--completion", "completion.txt"];
    let on_ledger = ["--ledger", network.ledger()];

    // Before anything is settled the proof holds by itself, and the ledger knows nothing of it.
    network.write("early.json", &prove(&consumer, &first));
    let offline = verify("early.json", &texts).success();
    for fact in ["receipt: valid", "receipt 1 of 1, root", "prompt      matches", "not asked"] {
        assert!(offline.contains(fact), "{fact} in {offline}");
    }
    let error = verify("early.json", &on_ledger).failure(1);
    assert!(error.contains("nothing was settled in this allocation yet"), "{error}");
    assert!(error.contains("`cocoon-node channel settle`"), "{error}");

    settle(&provider, &consumer);
    let all = [&texts[..], &on_ledger].concat();
    let on_chain = verify("early.json", &all).success();
    assert!(on_chain.contains("the vault stores this root (UNVERIFIED read"), "{on_chain}");

    // A later settlement has another root; a proof made again stands under it.
    let second = consumer.chat(&words(ECHO, 120)).whole();
    let pending = prove(&consumer, &second);
    settle(&provider, &consumer);
    let error = verify("early.json", &on_ledger).failure(1);
    assert!(error.contains("ANOTHER root") && error.contains("receipt prove"), "{error}");
    network.write("again.json", &prove(&consumer, &first));
    assert!(verify("again.json", &all).success().contains("receipt 1 of 2"), "made again");
    network.write("second.json", &pending);
    verify("second.json", &on_ledger).success();

    // Neither a changed file nor a changed text passes; every change of every character is tried
    // in the proof's own tests.
    let line = prove(&consumer, &first);
    network.write("changed.json", &line.replacen("\"index\":0", "\"index\":1", 1));
    let error = verify("changed.json", &[]).failure(3);
    assert!(error.contains("the place in the log does not hold"), "{error}");
    network.write("completion.txt", &first.text.replacen(' ', "  ", 1));
    let error = verify("again.json", &texts).failure(3);
    assert!(error.contains("the completion is not the one"), "{error}");

    exports(&network, &provider, &consumer);
}

fn exports(network: &Network, provider: &Peer<'_>, consumer: &Peer<'_>) {
    let verify = |file: &str, more: &[&str]| {
        network.run(&[&["--data-dir", "checker", "receipt", "verify", file], more].concat())
    };
    let path = network.path("all.jsonl");
    consumer.run(&["receipt", "export", "--output", path.to_str().unwrap()]).success();
    let printed = verify("all.jsonl", &["--ledger", network.ledger()]).success();
    assert_eq!(printed, "receipts: 2 valid\nledger    all under a root that a vault stores\n");
    let lines = std::fs::read_to_string(&path).unwrap();
    network.write("broken.jsonl", &lines.replacen("\"provided\":false", "\"provided\":true", 2));
    let error = verify("broken.jsonl", &[]).failure(3);
    assert!(error.contains("broken.jsonl:1") && error.contains("checksum"), "{error}");

    // The provider has the receipts and not the log.
    let given = provider.run(&["receipt", "export", "--without-salt"]).success();
    assert!(!given.contains("\"salt\"") && !given.contains("\"log\""), "{given}");
    network.write("given.jsonl", &given);
    assert_eq!(verify("given.jsonl", &[]).success(), "receipts: 2 valid\n");
    let table = consumer.run(&["receipt", "export", "--format", "csv"]).success();
    let prices: u64 = table.lines().skip(1).map(price).sum();
    assert_eq!(prices, consumer.receipted());
}

fn price(row: &str) -> u64 {
    row.split(',').nth(12).unwrap().parse().unwrap()
}
