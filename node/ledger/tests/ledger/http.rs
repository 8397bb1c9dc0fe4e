//! The chain through its HTTP interface, with our client and with raw requests.
//!
//! Owns: the loopback server. Must not: use the network.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use cocoon_ledger::embedded::EmbeddedLedger;
use cocoon_ledger::message::{Message, Transfer};
use cocoon_ledger::toncenter::Toncenter;
use cocoon_ledger::tycho_types::cell::{Cell, CellFamily as _};
use cocoon_ledger::{Ledger, LedgerError, Page, server};
use cocoon_protocol::identity::{Network, TonAddress};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::stage::{balance, ledger, send, ton, wallet};

pub(crate) struct Served {
    pub(crate) ledger: EmbeddedLedger,
    pub(crate) url: String,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    pub(crate) async fn start() -> Self {
        let ledger = ledger();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = server::router(ledger.clone());
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        Self { ledger, url, task }
    }

    pub(crate) fn client(&self) -> Toncenter {
        Toncenter::new(&self.url, Network::Devnet, None).unwrap()
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        let response = reqwest::Client::new().post(url).body(body).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }
}

#[tokio::test]
async fn what_the_client_reads_is_what_the_chain_holds() {
    let served = Served::start().await;
    let client = served.client();
    client.check_network().await.unwrap();
    let (alice, bob) = (wallet(1), wallet(2));
    assert_eq!(client.faucet(alice.address(), ton(10)).await.unwrap(), ton(10));
    send(&client, &alice, &[Transfer::plain(bob.address(), ton(1))]).await.unwrap();
    send(&client, &alice, &[Transfer::plain(bob.address(), ton(2))]).await.unwrap();
    assert_eq!(balance(&client, bob.address()).await, ton(3));

    for address in [alice.address(), bob.address(), wallet(9).address()] {
        let mut expected = served.ledger.account(address).await.unwrap();
        expected.verified = false;
        assert_eq!(client.account(address).await.unwrap(), expected);
        let all = served.ledger.transactions(address, Page::newest(50)).await.unwrap();
        assert_eq!(client.transactions(address, Page::newest(50)).await.unwrap(), all);
        if let Some(newest) = all.first() {
            let page = Page { limit: 1, before: Some(newest.id) };
            let next = client.transactions(address, page).await.unwrap();
            assert_eq!(next.first(), all.get(1));
        }
    }
    assert_eq!(client.now().await.unwrap(), served.ledger.now().await.unwrap());
}

#[tokio::test]
async fn a_refusal_keeps_its_exit_code_on_the_way() {
    let served = Served::start().await;
    let client = served.client();
    let alice = wallet(1);
    served.ledger.faucet(alice.address(), ton(10)).await.unwrap();
    let account = client.account(alice.address()).await.unwrap();
    let until = client.now().await.unwrap().after(cocoon_protocol::units::Millis::from_secs(60));
    let transfer = Transfer::plain(alice.address(), ton(1));
    let message = alice.sign(&account, &[transfer], until).unwrap();
    assert_eq!(client.send(message.clone()).await.unwrap(), message.hash());
    match client.send(message).await {
        Err(LedgerError::NotAccepted { exit_code }) => assert_eq!(exit_code, Some(133)),
        other => panic!("expected a refusal, got {other:?}"),
    }
    let nobody = TonAddress { workchain: 0, hash: [9; 32] };
    let lost = Message::external(nobody, None, Cell::empty_cell()).unwrap();
    assert!(matches!(client.send(lost).await, Err(LedgerError::NotAccepted { .. })));
}

#[tokio::test]
async fn both_call_styles_give_the_same_result() {
    let served = Served::start().await;
    let alice = wallet(1);
    served.ledger.faucet(alice.address(), ton(10)).await.unwrap();
    send(&served.ledger, &alice, &[Transfer::plain(alice.address(), ton(1))]).await.unwrap();
    let address = alice.friendly_address().to_string();
    for (method, extra) in [
        ("getAddressInformation", json!({})),
        ("getAddressBalance", json!({})),
        ("getAddressState", json!({})),
        ("getWalletInformation", json!({})),
        ("getTransactions", json!({ "limit": "2" })),
        ("getMasterchainInfo", json!({})),
        ("getConfigParam", json!({ "config_id": "21" })),
        ("getConfigAll", json!({})),
        ("runGetMethod", json!({ "method": "seqno" })),
    ] {
        let mut parameters = extra.as_object().unwrap().clone();
        parameters.insert("address".to_owned(), json!(address));
        let query: Vec<_> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap()))
            .collect();
        let (status, by_query) = served.get(&format!("/api/v2/{method}?{}", query.join("&"))).await;
        assert_eq!((status, &by_query["ok"]), (200, &json!(true)), "{method}: {by_query}");
        let request = json!({ "id": 7, "jsonrpc": "2.0", "method": method, "params": parameters });
        let (_, by_rpc) = served.post("/api/v2/jsonRPC", request.to_string()).await;
        assert_eq!(by_rpc["result"], by_query["result"]);
        assert_eq!((&by_rpc["id"], &by_rpc["jsonrpc"]), (&json!(7), &json!("2.0")));
    }
    let wallet = served.get(&format!("/api/v2/getWalletInformation?address={address}")).await.1;
    assert_eq!(wallet["result"]["seqno"], json!(1));
    let seqno = served.get(&format!("/api/v2/runGetMethod?address={address}&method=seqno")).await.1;
    assert_eq!(seqno["result"]["stack"], json!([["num", "0x1"]]));
}

#[tokio::test]
async fn wrong_requests_are_answered_with_the_reason() {
    let served = Served::start().await;
    let huge = vec![b'a'; 200_000];
    let cases: Vec<(u16, &str, Vec<u8>)> = vec![
        (404, "/api/v2/jsonRPC", br#"{"method":"getEverything"}"#.to_vec()),
        (422, "/api/v2/jsonRPC", br#"{"method":"getAddressInformation"}"#.to_vec()),
        (422, "/api/v2/jsonRPC", br#"{"method":"getAddressBalance","params":[1]}"#.to_vec()),
        (422, "/api/v2/jsonRPC", br#"{"params":{}}"#.to_vec()),
        (422, "/api/v2/jsonRPC", b"not json".to_vec()),
        (422, "/api/v2/sendBoc", br#"{"boc":"AAAA"}"#.to_vec()),
        (422, "/api/v2/sendBoc", br#"{"boc":5}"#.to_vec()),
        (413, "/api/v2/sendBoc", huge),
        (422, "/devnet/faucet", br#"{"address":"0:zz","amount":"1"}"#.to_vec()),
        (422, "/devnet/faucet", br#"{"address":"0:0000000000000000000000000000000000000000000000000000000000000001","amount":"-1"}"#.to_vec()),
    ];
    for (status, path, body) in cases {
        let shown = String::from_utf8_lossy(&body).chars().take(80).collect::<String>();
        let (found, answer) = served.post(path, body).await;
        assert_eq!(found, status, "{path} {shown}");
        assert_eq!((&answer["ok"], &answer["code"]), (&json!(false), &json!(status)), "{shown}");
        assert!(answer["error"].as_str().unwrap().len() > 10);
    }
}

#[tokio::test]
async fn a_client_of_another_network_notices() {
    let served = Served::start().await;
    let client = Toncenter::new(&served.url, Network::Mainnet, None).unwrap();
    let refused = client.check_network().await;
    assert!(matches!(refused, Err(LedgerError::OtherNetwork { expected: Network::Mainnet })));
}

#[tokio::test]
async fn a_server_that_is_away_is_unreachable_and_a_message_is_sent_once() {
    let served = Served::start().await;
    let client = served.client();
    let nobody = TonAddress { workchain: 0, hash: [9; 32] };
    let message = Message::external(nobody, None, Cell::empty_cell()).unwrap();
    drop(served);
    let failed = client.send(message).await.unwrap_err();
    assert!(matches!(failed, LedgerError::Unreachable(_)), "{failed:?}");
    assert!(failed.may_have_been_sent());
}

/// A server that answers each request with the next of `answers`, then with the last one for ever.
async fn scripted(answers: Vec<(u16, String)>) -> (String, Arc<AtomicUsize>, JoinHandle<()>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let router = axum::Router::new().fallback(move || {
        let turn = counter.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
        let (status, body) = answers[turn].clone();
        async move { (StatusCode::from_u16(status).unwrap(), body) }
    });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, asked, task)
}

#[tokio::test]
async fn reads_are_tried_again_and_messages_are_not() {
    let account = json!({ "ok": true, "result": {
        "balance": 7, "code": "", "data": "", "state": "uninitialized", "sync_utime": 5,
        "last_transaction_id": { "lt": "0", "hash": "" },
    }});
    let busy = (429, "slow down".to_owned());
    let broken = (502, "<html>bad gateway</html>".to_owned());
    let answers = vec![busy, broken.clone(), (200, account.to_string())];
    let (url, asked, server) = scripted(answers).await;
    let client = Toncenter::new(&url, Network::Devnet, Some("secret")).unwrap();
    let nobody = TonAddress { workchain: 0, hash: [9; 32] };
    let found = client.account(nobody).await.unwrap();
    assert_eq!((found.balance.as_nano(), asked.load(Ordering::Relaxed)), (7, 3));
    assert!(!format!("{client:?}").contains("secret"));
    server.abort();

    let (url, asked, server) = scripted(vec![broken]).await;
    let client = Toncenter::new(&url, Network::Devnet, None).unwrap();
    let message = Message::external(nobody, None, Cell::empty_cell()).unwrap();
    let failed = client.send(message).await.unwrap_err();
    assert!(matches!(failed, LedgerError::ServerFailed { status: 502 }), "{failed:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    server.abort();
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let (url, _, server) = scripted(vec![(200, " ".repeat(5 << 20))]).await;
    let client = Toncenter::new(&url, Network::Devnet, None).unwrap();
    let nobody = TonAddress { workchain: 0, hash: [9; 32] };
    let failed = client.account(nobody).await.unwrap_err();
    assert!(matches!(failed, LedgerError::BadAnswer { .. }), "{failed:?}");
    server.abort();
}
