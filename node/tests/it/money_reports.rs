//! What was spent and earned, to the nanoTON, and the caps on it, over real processes.

use serde_json::{Value, json};

use crate::gateway::{Whole, words};
use crate::network::{ECHO, Network, Peer, eventually};

fn total(peer: &Peer<'_>, report: &str, more: &[&str]) -> u64 {
    peer.ask(&[&[report], more].concat())["total_nano"].as_u64().unwrap()
}

#[test]
fn spend_is_earnings_is_receipts_however_it_is_grouped_and_after_a_kill() {
    let network = Network::start();
    let provider = network.provide("provider", &["--echo-delay", "2 ms"]);
    let mut consumer = network.consume("consumer", &[]);
    for tokens in [100, 40, 70] {
        assert!(consumer.chat(&words(ECHO, tokens)).whole().error.is_null());
    }
    let receipted = consumer.receipted();
    eventually("the last voucher arrives", || (provider.promised() == receipted).then_some(()));
    for by in ["day", "model", "peer", "key", "day,model,peer,key"] {
        assert_eq!(total(&consumer, "spend", &["--by", by]), receipted, "{by}");
        assert_eq!(total(&provider, "earnings", &["--by", by]), receipted, "{by}");
    }
    assert_eq!(total(&consumer, "earnings", &[]), 0);
    assert_eq!(total(&consumer, "spend", &["--to", "2001-01-01"]), 0);
    assert_eq!(total(&consumer, "spend", &["--from", "2001-01-01"]), receipted);
    let table = consumer.run(&["spend", "--by", "model"]).success();
    assert!(
        table.contains(ECHO) && table.contains(" TON\n") && table.contains("total: "),
        "{table}"
    );
    let csv = provider.run(&["earnings", "--csv"]).success();
    let rows = csv.lines().skip(1).map(|row| row.rsplit(',').next().unwrap());
    assert_eq!(rows.map(|amount| amount.parse::<u64>().unwrap()).sum::<u64>(), receipted);

    // A consumer that is killed in the middle of an answer has its job in the accounts, and as
    // interrupted, when it comes back.
    let mut slow = consumer.chat(&words(ECHO, 300));
    let mut whole = Whole::default();
    for _ in 0..30 {
        assert!(slow.next(&mut whole).is_some());
    }
    consumer.kill();
    drop(slow);
    consumer.start();
    let lost = total(&consumer, "spend", &[]) - receipted;
    assert!(lost > 0, "what was promised for the job stands in the accounts");
    let lines = consumer.ask(&["spend", "--by", "day"])["lines"].clone();
    let without: u64 = lines.as_array().unwrap().iter().map(without_receipt).sum();
    assert_eq!(without, 1);
}

fn without_receipt(line: &Value) -> u64 {
    line["without_receipt"].as_u64().unwrap()
}

#[test]
fn caps_hold_per_request_per_key_and_per_day_and_survive_a_kill() {
    let network = Network::start();
    let _provider = network.provide("provider", &[]);
    let drawn = network.run(&["key", "new", "ci", "--cap", "0.012 TON"]).success();
    let (secret, entry) = drawn.split_once("\n\n").unwrap();
    let (other, free) = network
        .run(&["key", "new", "free"])
        .success()
        .split_once("\n\n")
        .map(|(secret, entry)| (secret.to_owned(), entry.to_owned()))
        .unwrap();
    let keys = network.write("keys.toml", &format!("{entry}\n{free}"));
    let keys = keys.to_str().unwrap();
    let mut consumer =
        network.consume("consumer", &["--api-keys", keys, "--max-spend", "0.03 TON"]);
    let ask = |consumer: &Peer<'_>, secret: &str, body: &Value| {
        consumer.chat_with(&[("authorization", &format!("Bearer {}", secret.trim()))], body)
    };
    let mut asked = words(ECHO, 100);
    asked["stream"] = json!(false);
    asked["max_tokens"] = json!(110);
    assert_eq!(ask(&consumer, "sk-wrong", &asked).status, 401);
    // About 0.005 TON each: two fit under the key's cap, the third does not.
    let mut spent = 0;
    let refused = loop {
        let answer = ask(&consumer, secret, &asked);
        if answer.status != 200 {
            break answer;
        }
        spent += answer.json()["cocoon"]["price_nanoton"].as_u64().unwrap();
        assert!(spent <= 12_000_000);
    };
    assert!(spent > 0);
    assert_eq!(refused.status, 429);
    let error = refused.json()["error"].clone();
    assert_eq!(error["type"], "insufficient_quota", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("the API key `ci` may spend") && message.contains("00:00 UTC"),
        "{error}"
    );

    // The same after a kill; another key still has what the day leaves.
    consumer.kill();
    consumer.start();
    assert_eq!(ask(&consumer, secret, &asked).status, 429);
    let mut all = spent;
    let refused = loop {
        let answer = ask(&consumer, &other, &asked);
        if answer.status != 200 {
            break answer;
        }
        all += answer.json()["cocoon"]["price_nanoton"].as_u64().unwrap();
        assert!(all <= 30_000_000);
    };
    assert!(all > spent);
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("this node may spend"));
    assert_eq!(total(&consumer, "spend", &[]), all);
    let by_key = consumer.run(&["spend", "--by", "key"]).success();
    assert!(by_key.contains("  ci ") && by_key.contains("  free "), "{by_key}");
}

#[test]
fn an_offer_above_the_price_cap_is_refused_with_what_to_do() {
    let network = Network::start();
    let provider =
        network.provide("provider", &["--price-minimum", "20 TON", "--price-maximum", "80 TON"]);
    let consumer = network.consume("consumer", &["--max-price", "39 TON"]);
    let mut asked = words(ECHO, 10);
    asked["stream"] = json!(false);
    let answer = consumer.chat(&asked);
    assert_eq!(answer.status, 402);
    let error = answer.json()["error"].clone();
    assert_eq!(error["code"], "price_above_cap", "{error}");
    assert!(error["message"].as_str().unwrap().contains("40 TON"), "{error}");
    let status = provider.run(&["status"]).success();
    assert!(
        status.contains("prices     100.0 % of the owner's, between 20 TON and 80 TON"),
        "{status}"
    );
    assert!(status.contains("(self)"), "{status}");
}
