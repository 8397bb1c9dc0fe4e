//! Streams that end early: a process dies, a reader leaves, an operator stops a node.
//!
//! What holds in each case: who reads the stream is told, no voucher is lost, both sides agree on
//! what was paid, and the next chat works.

use cocoon_node::store::{Store, Table};
use cocoon_protocol::channel::PayerState;
use cocoon_protocol::record::Interrupted;
use serde_json::{Value, json};

use crate::gateway::question;
use crate::gateway::{Answer, Whole, words};
use crate::network::{ECHO, Network, Peer, REAL, eventually, free_port, real_model};

/// Pieces after which a stream is cut: in the first credit step, between vouchers, later.
const CUTS: [usize; 4] = [1, 20, 45, 90];

/// What was promised for jobs that have no receipt. The node must not run.
fn interrupted(peer: &Peer<'_>) -> u64 {
    let store = Store::open(&peer.data_dir().join("store.redb")).unwrap();
    let records = store.scan(Table::Interrupted, None, 100).unwrap();
    records.iter().map(|(_, value)| Interrupted::decode(value).unwrap().paid.as_nano()).sum()
}

/// What the store of a payer that does not run says was promised.
fn durable(peer: &Peer<'_>) -> u64 {
    let store = Store::open(&peer.data_dir().join("store.redb")).unwrap();
    let records = store.scan(Table::Payer, None, 2).unwrap();
    assert_eq!(records.len(), 1);
    PayerState::decode(&records[0].1).unwrap().cumulative().as_nano()
}

/// A chat that works, as soon as the network has noticed who is back.
fn works(consumer: &Peer<'_>, model: &str) -> Whole {
    eventually("the next chat works", || {
        let answer = consumer.chat(&question(model, "one two three", 10));
        if answer.status != 200 {
            println!("not yet: {}", answer.text());
            return None;
        }
        Some(answer.whole())
    })
}

#[track_caller]
fn ends_with_an_error(answer: Answer, begun: Whole) {
    let whole = answer.rest(begun);
    assert!(!whole.error.is_null(), "the stream broke in silence: {whole:?}");
    assert!(whole.error["code"].is_string(), "{whole:?}");
}

#[test]
fn a_killed_provider_costs_no_more_than_was_promised() {
    let network = Network::start();
    let address = format!("/ip4/127.0.0.1/udp/{}/quic-v1", free_port());
    let own = ["--echo-delay", "4 ms", "--listen", &address];
    let mut provider = network.provide("provider", &own);
    let mut consumers = ["one", "two", "three", "four"]
        .map(|name| network.consume(name, &["--max-cost", "0.2 TON"]));
    // Each stream has come to another point when the provider dies.
    let streams: Vec<_> = std::iter::zip(&consumers, CUTS)
        .map(|(consumer, cut)| {
            let mut answer = consumer.chat(&words(ECHO, 1_000));
            let begun = answer.pieces(cut);
            (answer, begun)
        })
        .collect();
    provider.kill();
    std::thread::scope(|scope| {
        for (answer, begun) in streams {
            scope.spawn(|| ends_with_an_error(answer, begun));
        }
    });
    let promised: u64 = consumers.iter().map(Peer::promised).sum();
    provider.start();
    assert!(provider.promised() <= promised, "the payee has more than was promised");
    std::thread::scope(|scope| {
        for consumer in &consumers {
            scope.spawn(|| works(consumer, ECHO));
        }
    });
    let promised: u64 = consumers.iter().map(Peer::promised).sum();
    eventually("both ends agree again", || (provider.promised() == promised).then_some(()));
    for consumer in &mut consumers {
        let (promised, receipted) = (consumer.promised(), consumer.receipted());
        assert_eq!(consumer.terminate(), Some(0));
        assert!(interrupted(consumer) > 0);
        assert_eq!(receipted + interrupted(consumer), promised);
    }
}

/// Enough for a channel with each of several providers.
const RICH: [&str; 4] = ["--vault-deposit", "3 TON", "--max-cost", "0.2 TON"];

/// Reads a stream whose provider is killed after `cut` pieces.
fn survives(
    consumer: &Peer<'_>,
    asked: &Value,
    providers: &mut Vec<Peer<'_>>,
    cut: usize,
) -> Whole {
    let mut answer = consumer.chat(asked);
    let begun = answer.pieces(cut);
    let serves = |provider: &Peer<'_>| provider.ask(&["status"])["jobs"] != json!([]);
    let serving = providers.iter().position(serves).unwrap();
    let mut serving = providers.swap_remove(serving);
    let id = serving.ask(&["status"])["node"].clone();
    serving.kill();
    let whole = answer.rest(begun);
    assert!(whole.done && whole.error.is_null(), "{whole:?}");
    assert_eq!(whole.cocoon["lost_providers"], json!([id]), "{whole:?}");
    assert_ne!(whole.cocoon["provider"], id);
    whole
}

/// What was promised is receipted, or stands as paid for a job that was interrupted; and that is what
/// the answers say that they cost.
fn adds_up(mut consumer: Peer<'_>, cost: u64) {
    let (promised, receipted) = (consumer.promised(), consumer.receipted());
    assert_eq!(consumer.terminate(), Some(0));
    let interrupted = interrupted(&consumer);
    assert!(interrupted > 0);
    assert_eq!(receipted + interrupted, promised);
    assert_eq!(cost, promised);
}

#[test]
fn another_provider_goes_on_with_a_killed_ones_answer() {
    let network = Network::start();
    let own = ["--echo-delay", "4 ms"];
    let mut providers: Vec<_> =
        ["one", "two", "three", "four", "five"].map(|name| network.provide(name, &own)).into();
    let consumer = network.consume("consumer", &RICH);
    works(&consumer, ECHO);
    let known = || consumer.ask(&["status"])["offers"].as_array().unwrap().len();
    eventually("all are known", || (known() == providers.len()).then_some(()));
    let asked = words(ECHO, 300);
    let expected = asked["messages"][0]["content"].as_str().unwrap();
    let mut cost: u64 = consumer.receipted();
    for cut in CUTS {
        let whole = survives(&consumer, &asked, &mut providers, cut);
        assert_eq!(whole.text, expected, "nothing is missing and nothing comes twice");
        cost += whole.price();
    }
    adds_up(consumer, cost);
}

#[test]
fn another_provider_goes_on_as_the_model_would_have() {
    let Some(file) = real_model() else { return };
    let network = Network::start();
    let mut providers: Vec<_> =
        ["one", "two", "three"].map(|name| network.provide_real(name, &file)).into();
    let consumer = network.consume("consumer", &RICH);
    let known = || consumer.ask(&["status"])["offers"].as_array().unwrap().len();
    let mut cost = 0;
    for (cut, temperature) in [(8, 0.0), (50, 0.8)] {
        let mut asked = question(REAL, "Tell me a long story about a dragon.", 80);
        asked["temperature"] = temperature.into();
        asked["seed"] = 7.into();
        let unbroken = consumer.chat(&asked).whole();
        eventually("all are known", || (known() == providers.len()).then_some(()));
        let whole = survives(&consumer, &asked, &mut providers, cut);
        assert_eq!(whole.text, unbroken.text, "at temperature {temperature}");
        assert_eq!(whole.finish, unbroken.finish);
        cost += unbroken.price() + whole.price();
    }
    adds_up(consumer, cost);
}

#[test]
fn a_killed_consumer_remembers_every_voucher_that_left_it() {
    let network = Network::start();
    let provider = network.provide("provider", &["--echo-delay", "4 ms"]);
    let mut consumer = network.consume("consumer", &[]);
    for cut in CUTS {
        let mut answer = consumer.chat(&words(ECHO, 400));
        answer.pieces(cut);
        consumer.kill();
        drop(answer);
        eventually("the provider ends the job", || {
            (provider.ask(&["status"])["jobs"] == json!([])).then_some(())
        });
        let known = provider.promised();
        assert!(durable(&consumer) >= known, "a voucher left before it was durable");
        consumer.start();
        works(&consumer, ECHO);
        let promised = consumer.promised();
        eventually("both ends agree again", || (provider.promised() == promised).then_some(()));
    }
    // What has no receipt is what the killed jobs had been promised.
    assert!(consumer.receipted() <= consumer.promised());
}

#[test]
fn a_killed_engine_ends_its_jobs_and_comes_back() {
    let Some(file) = real_model() else { return };
    let network = Network::start();
    let provider = network.provide_real("provider", &file);
    let consumer = network.consume("consumer", &[]);
    for cut in [1, 10, 40] {
        let asked = question(REAL, "Tell me a long story about a dragon.", 120);
        let mut answer = consumer.chat(&asked);
        let begun = answer.pieces(cut);
        let engine = only_child(provider.node().id());
        let kill = std::process::Command::new("kill").args(["-9", &engine.to_string()]).status();
        assert!(kill.unwrap().success());
        ends_with_an_error(answer, begun);
        works(&consumer, REAL);
        let promised = consumer.promised();
        eventually("both ends agree again", || (provider.promised() == promised).then_some(()));
        assert_eq!(consumer.receipted(), promised, "a failed job is receipted too");
    }
}

/// The engine's process.
fn only_child(parent: u32) -> u32 {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().map_while(Result::ok) {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name, in parentheses, may hold anything; state and parent follow it.
        let after = stat.rsplit_once(") ").unwrap().1;
        if after.split(' ').nth(1) == Some(&parent.to_string()) {
            children.push(entry.file_name().to_str().unwrap().parse().unwrap());
        }
    }
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
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

#[test]
fn a_provider_asked_to_stop_finishes_its_stream_and_settles() {
    let network = Network::start();
    let mut provider = network.provide("provider", &["--echo-delay", "5 ms"]);
    let consumer = network.consume("consumer", &[]);
    let mut answer = consumer.chat(&words(ECHO, 200));
    let begun = answer.pieces(10);
    provider.node().signal("TERM");
    let whole = answer.rest(begun);
    assert!(whole.done && whole.error.is_null(), "{whole:?}");
    assert_eq!(whole.text.split(' ').count(), 200);
    assert_eq!(provider.wait(), Some(0));
    // What it was owed is on the ledger: it restarts with nothing due.
    provider.start();
    let channels = provider.ask(&["channel", "list"]);
    assert_eq!(channels[0]["settled_nano"], whole.price(), "{channels}");
    assert_eq!(channels[0]["promised_nano"], whole.price(), "{channels}");
}

#[test]
fn a_consumer_asked_to_stop_finishes_its_stream() {
    let network = Network::start();
    let provider = network.provide("provider", &["--echo-delay", "5 ms"]);
    let mut consumer = network.consume("consumer", &[]);
    let mut answer = consumer.chat(&words(ECHO, 200));
    let begun = answer.pieces(10);
    consumer.node().signal("TERM");
    let whole = answer.rest(begun);
    assert!(whole.done && whole.error.is_null(), "{whole:?}");
    assert_eq!(consumer.wait(), Some(0));
    eventually("it is paid", || (provider.promised() == whole.price()).then_some(()));
}
