//! A chat as its user sees it, from the first question of a fresh consumer to the coins on the
//! ledger, over real processes.

use std::sync::Arc;

use cocoon_ledger::Ledger as _;
use cocoon_ledger::toncenter::Toncenter;
use cocoon_ledger::vault::VaultState;
use cocoon_node::store::{Store, Table};
use cocoon_protocol::channel::{Allocation, PayeeState};
use cocoon_protocol::identity::{Network as TonNetwork, TonAddress};
use serde_json::{Value, json};

use crate::gateway::{Whole, question, request, words};
use crate::network::{ECHO, Network, Peer, REAL, eventually, real_model};

/// The only allocation of a vault, as anyone reads it from the ledger's server.
fn allocation(network: &Network, vault: &Value) -> Allocation {
    let address: TonAddress = serde_json::from_value(vault.clone()).unwrap();
    let ledger = Toncenter::new(network.ledger(), TonNetwork::Devnet, None).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let account = runtime.block_on(ledger.account(address)).unwrap();
    let (code, data) = (account.code.unwrap(), account.data.unwrap());
    let state = VaultState::read(address, &code, &data).unwrap();
    assert!(state.is_covered(account.balance));
    assert_eq!(state.allocations.len(), 1);
    *state.allocations.values().next().unwrap()
}

/// Checks a receipt with the program alone: valid with the true texts, not with others.
fn check_receipt(network: &Network, consumer: &Peer<'_>, asked: &Value, answer: &Whole) {
    let id = answer.cocoon["receipt"].as_str().unwrap();
    let file = consumer.run(&["receipt", "show", id, "--json"]).success();
    network.write("receipt.json", &file);
    network.write("prompt.json", &asked.to_string());
    network.write("completion.txt", &answer.text);
    let verify = |prompt: &str, completion: &str| {
        let texts = ["--prompt-file", prompt, "--completion-file", completion];
        network.run(&[&["receipt", "verify", "receipt.json"], &texts[..]].concat())
    };
    let valid = verify("prompt.json", "completion.txt").success();
    assert!(valid.contains("prompt      matches\ncompletion  matches"), "{valid}");

    let mut changed = answer.text.clone().into_bytes();
    let last = changed.last_mut().unwrap();
    *last = if *last == b'x' { b'y' } else { b'x' };
    std::fs::write(network.path("other.txt"), changed).unwrap();
    assert!(verify("prompt.json", "other.txt").failure(3).contains("NOT valid"));

    let mut other = asked.clone();
    let content = other["messages"][0]["content"].as_str().unwrap().to_owned() + "x";
    other["messages"][0]["content"] = content.into();
    network.write("other.json", &other.to_string());
    assert!(verify("other.json", "completion.txt").failure(3).contains("NOT valid"));
}

/// Settles and compares the two ends, the receipts and the ledger, to the nanoTON.
fn check_settlement(network: &Network, mut provider: Peer<'_>, consumer: &Peer<'_>) {
    let receipted = consumer.receipted();
    assert!(receipted > 0);
    eventually("the last voucher arrives", || (provider.promised() == receipted).then_some(()));
    assert_eq!(consumer.promised(), receipted);
    assert_eq!(provider.receipted(), receipted);
    provider.run(&["channel", "settle"]).success();
    let channels = provider.ask(&["channel", "list"]);
    assert_eq!(channels[0]["settled_nano"], receipted, "{}", provider.node().log());
    let allocation = allocation(network, &channels[0]["vault"]);
    assert_eq!(allocation.paid.as_nano(), receipted);

    // The root on the ledger is the one that the last voucher signs.
    assert_eq!(provider.terminate(), Some(0));
    let store = Store::open(&provider.data_dir().join("store.redb")).unwrap();
    let records = store.scan(Table::Payee, None, 10).unwrap();
    let payee = PayeeState::decode(&records[0].1).unwrap();
    let best = payee.best().unwrap().voucher;
    assert_eq!(best.cumulative.as_nano(), receipted);
    assert_eq!(allocation.receipts_root, best.receipts_root);
    assert_ne!(allocation.receipts_root, [0; 32]);
}

#[test]
fn a_fresh_consumers_first_chat_is_labelled_receipted_and_paid_on_the_ledger() {
    let network = Network::start();
    let provider = network.provide("provider", &[]);
    let consumer = network.consume("consumer", &[]);
    let asked = words(ECHO, 100);
    let answer = consumer.chat(&asked);
    assert!(answer.head.contains("x-cocoon-tier: attested"), "{}", answer.head);
    assert!(answer.head.contains("x-cocoon-simulated: true"), "{}", answer.head);
    let answer = answer.whole();
    assert_eq!(answer.text, asked["messages"][0]["content"].as_str().unwrap());
    assert_eq!(answer.finish.as_deref(), Some("stop"));
    let provider_id = &provider.ask(&["status"])["node"];
    assert_eq!(&answer.cocoon["provider"], provider_id);
    assert_eq!(answer.cocoon["tier"], "attested");
    assert_eq!(answer.cocoon["simulated"], true);
    assert!(answer.cocoon["vouchers"].as_u64().unwrap() >= 4, "{answer:?}");
    let receipts = consumer.receipts();
    assert_eq!(receipts.len(), 1);
    assert_eq!(receipts[0].price.as_nano(), answer.price());
    assert_eq!(receipts[0].usage.completion.get(), 100);
    check_receipt(&network, &consumer, &asked, &answer);

    // An answer in one piece says the same.
    let mut unstreamed = asked.clone();
    unstreamed["stream"] = json!(false);
    let unstreamed = consumer.chat(&unstreamed).json();
    assert_eq!(unstreamed["choices"][0]["message"]["content"], answer.text);
    assert_eq!(unstreamed["cocoon"]["price_nanoton"], answer.price());
    check_settlement(&network, provider, &consumer);
}

#[test]
fn a_real_model_answers_a_fresh_consumer() {
    let Some(file) = real_model() else { return };
    let network = Network::start();
    let provider = network.provide_real("provider", &file);
    let consumer = network.consume("consumer", &[]);
    let asked = question(REAL, "Explain in three sentences why people sleep.", 80);
    let answer = consumer.chat(&asked).whole();
    // What a small model says is its own; that it says something in words is ours.
    assert!(answer.text.split_whitespace().count() >= 20, "{answer:?}");
    assert_eq!(
        (&answer.cocoon["tier"], &answer.cocoon["simulated"]),
        (&json!("attested"), &json!(true))
    );
    check_receipt(&network, &consumer, &asked, &answer);
    check_settlement(&network, provider, &consumer);
}

#[test]
fn eight_chats_share_a_provider_and_their_pieces_interleave() {
    let network = Network::start();
    let provider = network.provide("provider", &["--echo-delay", "5 ms"]);
    let consumer = network.consume("consumer", &[]);
    // The pieces of all answers in the order in which they came.
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let answers: Vec<_> = std::thread::scope(|scope| {
        let chat = |job: usize| {
            let (consumer, order) = (&consumer, Arc::clone(&order));
            move || {
                let mut answer = consumer.chat(&words(ECHO, 100 + job));
                let mut whole = Whole::default();
                while answer.next(&mut whole).is_some() {
                    order.lock().unwrap().push(job);
                }
                whole
            }
        };
        let threads: Vec<_> = (0..8).map(|job| scope.spawn(chat(job))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (job, answer) in answers.iter().enumerate() {
        assert_eq!(answer.text.split(' ').count(), 100 + job, "{answer:?}");
        assert!(answer.done && answer.error.is_null(), "{answer:?}");
    }
    // One after the other would change hands seven times.
    let order = order.lock().unwrap();
    let changes = order.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes > 100, "{changes} of {} pieces", order.len());
    let prices: u64 = answers.iter().map(Whole::price).sum();
    assert_eq!(consumer.receipted(), prices);
    assert_eq!(consumer.promised(), prices);
    assert_eq!(consumer.receipts().len(), 8);
    check_settlement(&network, provider, &consumer);
}

#[test]
fn official_clients_find_what_they_expect() {
    let Some(python) = std::env::var_os("COCOON_TEST_PYTHON") else {
        println!("skipped: COCOON_TEST_PYTHON is not set");
        return;
    };
    let network = Network::start();
    let _echo = network.provide("provider", &[]);
    let file = real_model();
    let _real = file.as_ref().map(|file| network.provide_real("real", file));
    let consumer = network.consume("consumer", &[]);
    let check = |model: &str| {
        // The check asks at once; a user would ask again after the first 503.
        eventually("the model is on offer", || {
            let listed = request(consumer.port(), "GET", "/v1/models", &[], b"").json();
            let listed = listed["data"].as_array().unwrap().clone();
            listed.iter().any(|entry| entry["id"] == model).then_some(())
        });
        let output = std::process::Command::new(&python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openai_clients/check.py"))
            .arg(format!("http://127.0.0.1:{}/v1", consumer.port()))
            .arg(model)
            .output()
            .unwrap();
        assert!(output.status.success(), "{model}: {output:?}");
    };
    check(ECHO);
    if file.is_some() {
        check(REAL);
    }
}
