//! Whole lives of money: from a deposit to the last payout, counted on the ledger.

use serde_json::json;

use crate::books::{Books, balance, reserved};
use crate::gateway::words;
use crate::network::{ECHO, Network, Peer, eventually};

/// What a settlement may cost its provider: more than twice what it does.
const SETTLEMENT_COST: u64 = 3_000_000;

/// Address of a node's wallet.
fn wallet(peer: &Peer<'_>) -> String {
    peer.ask(&["wallet", "show"])["address"].as_str().unwrap().to_owned()
}

/// Address of a consumer's vault.
fn vault(consumer: &Peer<'_>) -> String {
    consumer.ask(&["wallet", "show"])["vault"].as_str().unwrap().to_owned()
}

/// Sum of one figure over a node's channels.
fn sum(peer: &Peer<'_>, figure: &str) -> u64 {
    let channels = peer.ask(&["channel", "list"]);
    channels.as_array().unwrap().iter().map(|channel| channel[figure].as_u64().unwrap()).sum()
}

/// A chat of so many words with whoever serves, as soon as somebody is found.
fn chat(consumer: &Peer<'_>, count: usize) -> u64 {
    eventually("a chat", || {
        let answer = consumer.chat(&words(ECHO, count));
        if answer.status == 200 {
            return Some(answer.whole().price());
        }
        println!("not yet: {}", answer.text());
        None
    })
}

#[test]
fn five_providers_in_turn_are_paid_from_one_vault_and_nothing_is_lost() {
    let network = Network::start();
    let ledger = network.ledger_port();
    let own = ["--vault-deposit", "0.5 TON", "--allocation", "0.08 TON"];
    let consumer = network.consume("consumer", &own);
    let mut earned = 0;
    let mut paid_out = 0;
    let mut promised = 0;
    for (name, count) in [("one", 200), ("two", 310), ("three", 170), ("four", 420), ("five", 250)]
    {
        let mut provider = network.provide(name, &[]);
        let price = chat(&consumer, count) + chat(&consumer, count / 2);
        eventually("its vouchers say so", || (provider.promised() == price).then_some(()));
        promised += price;
        // It settles when it ends, and the coins are in its wallet.
        let address = wallet(&provider);
        assert_eq!(provider.terminate(), Some(0));
        let received = Books::of(ledger, &address);
        assert!((price - SETTLEMENT_COST..price).contains(&received.balance), "{received:?}");
        earned += received.received;
        paid_out += price;
    }
    assert_eq!(sum(&consumer, "promised_nano"), promised);
    let books = Books::of(ledger, &vault(&consumer));
    // Every nanoTON: what came in is there, was paid out, or went to the validators.
    assert_eq!(books.received, books.balance + books.sent + books.fees);
    assert_eq!(books.sent, earned, "what left the vault is what the providers got");
    // Settling is paid from the payout, so allocating is all that the consumer paid beside it.
    let spent = books.received - books.balance;
    let allocating = spent - paid_out;
    assert!(allocating < 5 * SETTLEMENT_COST, "{books:?}");
}

#[test]
fn a_provider_whose_consumer_disappears_gets_all_that_it_earned() {
    let network = Network::start();
    let provider = network.provide("provider", &["--echo-delay", "4 ms"]);
    let mut consumer = network.consume("consumer", &[]);
    let mut answer = consumer.chat(&words(ECHO, 400));
    answer.pieces(150);
    consumer.kill();
    drop(answer);
    eventually("the job ends", || (provider.ask(&["status"])["jobs"] == json!([])).then_some(()));
    let promised = provider.promised();
    assert!(promised > 0);
    let address = wallet(&provider);
    let settled = provider.ask(&["channel", "settle"]);
    assert_eq!(settled[0]["amount_nano"], promised, "{settled}");
    assert_eq!(sum(&provider, "settled_nano"), promised);
    let received = balance(network.ledger_port(), &address);
    assert!((promised - SETTLEMENT_COST..promised).contains(&received), "{received}");
}

#[test]
fn a_consumer_whose_provider_disappears_gets_the_rest_back_alone_after_the_delay() {
    let network = Network::start();
    let delay = ["--release-delay", "2 s"];
    let mut provider = network.provide("provider", &delay);
    let consumer = network.consume("consumer", &delay);
    let price = chat(&consumer, 100);
    eventually("it is paid", || (provider.promised() == price).then_some(()));
    let id = provider.ask(&["status"])["node"].as_str().unwrap().to_owned();
    provider.kill();
    let ledger = network.ledger_port();
    let vault = vault(&consumer);
    assert_eq!(reserved(ledger, &vault), 100_000_000, "one allocation of 0.1 TON");
    // Once to ask; then it is told how long to wait; then the money is free.
    consumer.run(&["channel", "release", &id]).success();
    let refused = consumer.run(&["channel", "release", &id]);
    assert!(refused.code != Some(0) && refused.stderr.contains("ask again in"), "{refused:?}");
    eventually("the delay is over", || {
        let outcome = consumer.run(&["channel", "release", &id]);
        (outcome.code == Some(0)).then_some(())
    });
    assert_eq!(reserved(ledger, &vault), 0);
    // Nobody was paid, and the vault has everything but its own fees.
    let books = Books::of(ledger, &vault);
    assert_eq!(books.sent, 0, "{books:?}");
    assert!(books.received - books.balance < SETTLEMENT_COST, "{books:?}");
}
