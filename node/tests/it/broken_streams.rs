//! Streams that end early: who reads is told, both sides agree on what was paid, and the next chat
//! works.

use serde_json::json;

use crate::gateway::{Whole, question, words};
use crate::network::{ECHO, Network, Peer, eventually};

/// A chat that works, as soon as the network has noticed who is back.
fn works(consumer: &Peer<'_>, model: &str) -> Whole {
    eventually("the next chat works", || {
        let answer = consumer.chat(&question(model, "one two three", 10));
        (answer.status == 200).then(|| answer.whole())
    })
}

#[test]
fn a_reader_that_leaves_frees_the_engine_and_pays_what_it_got() {
    let network = Network::start();
    let slow = ["--engine-slots", "1", "--echo-delay", "10 ms"];
    let provider = network.provide("provider", &slow);
    let consumer = network.consume("consumer", &[]);
    let mut answer = consumer.chat(&words(ECHO, 400));
    answer.pieces(40);
    drop(answer);
    let receipt = eventually("the job has its receipt", || provider.receipts().pop());
    assert_eq!(receipt.finish, cocoon_protocol::job::FinishReason::Cancelled);
    let completion = receipt.usage.completion.get();
    assert!((40..300).contains(&completion), "{completion}");
    assert_eq!(provider.ask(&["status"])["jobs"], json!([]));
    // The only place is free again, and the two agree.
    works(&consumer, ECHO);
    let receipted = consumer.receipted();
    assert_eq!(consumer.receipts().len(), 2);
    assert_eq!(consumer.promised(), receipted);
    eventually("both ends agree", || (provider.promised() == receipted).then_some(()));
}
