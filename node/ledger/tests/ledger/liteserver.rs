//! The chain through its liteserver port: with our client, and with liars among the servers.
//!
//! Owns: loopback liteservers, honest and not.
//! Must not: use the network.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a liar changes one kind of answer and passes on the rest"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use cocoon_ledger::embedded::EmbeddedLedger;
use cocoon_ledger::get_method::method_id;
use cocoon_ledger::liteserver::adnl::Stream;
use cocoon_ledger::liteserver::api::{AccountAnswer, Answer, Envelope, Query};
use cocoon_ledger::liteserver::proof::{self, ProofError};
use cocoon_ledger::liteserver::{Liteservers, Options, OptionsError, ServerAddress};
use cocoon_ledger::message::{Message, Transfer};
use cocoon_ledger::toncenter::Toncenter;
use cocoon_ledger::tycho_types::cell::{Cell, CellFamily as _};
use cocoon_ledger::tycho_types::models::BlockId;
use cocoon_ledger::{AccountState, AccountStatus, Ledger, LedgerError, Page, server};
use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::{Millis, NanoTon};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::http::Served;
use crate::stage::{balance, ledger, send, ton, wallet};

/// Liteservers on loopback; they end with it.
#[derive(Default)]
struct Servers {
    addresses: Vec<ServerAddress>,
    tasks: JoinSet<()>,
}

/// What a liar makes of an answer.
type Lie = Arc<dyn Fn(Answer) -> Answer + Send + Sync>;

impl Servers {
    async fn add(&mut self, ledger: &EmbeddedLedger) -> ServerAddress {
        let (listener, key, address) = self.listen().await;
        let serving = server::adnl::serve(listener, ledger.clone(), key, CancellationToken::new());
        self.tasks.spawn(async move { serving.await.unwrap() });
        address
    }

    /// A server that passes questions on to `honest` and changes the answers.
    async fn add_liar(&mut self, honest: ServerAddress, lie: Lie) -> ServerAddress {
        let (listener, key, address) = self.listen().await;
        self.tasks.spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let mut client = Stream::accept(tcp, &key).await.unwrap();
                let tcp = TcpStream::connect(honest.address).await.unwrap();
                let mut source = Stream::connect(tcp, &honest.key).await.unwrap();
                while let Ok(frame) = client.incoming.receive().await {
                    source.outgoing.send(&frame).await.unwrap();
                    let answer = source.incoming.receive().await.unwrap();
                    let answer = match Envelope::decode(&answer).unwrap() {
                        Envelope::Answer { id, answer } => {
                            let lied = lie(Answer::decode(&answer).unwrap());
                            Envelope::Answer { id, answer: lied.encode() }
                        }
                        other => other,
                    };
                    if client.outgoing.send(&answer.encode()).await.is_err() {
                        break;
                    }
                }
            }
        });
        address
    }

    async fn listen(&mut self) -> (TcpListener, SigningKey, ServerAddress) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let seed = u8::try_from(self.addresses.len() + 1).unwrap();
        let key = SigningKey::from_bytes(&[seed; 32]);
        let local: SocketAddr = listener.local_addr().unwrap();
        let address = ServerAddress { address: local, key: key.verifying_key() };
        self.addresses.push(address);
        (listener, key, address)
    }

    fn client(&self) -> Liteservers {
        let options = Options::new(Network::Devnet, self.addresses.clone());
        // Every read asks for the newest block, so that no test has to wait for one.
        Liteservers::new(Options { block_life: Millis::new(0), ..options }).unwrap()
    }
}

/// Asks one server once, believing nothing.
async fn ask(server: &ServerAddress, query: Query) -> Answer {
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let mut stream = Stream::connect(tcp, &server.key).await.unwrap();
    let question = Envelope::Query { id: [1; 32], query: query.encode() };
    stream.outgoing.send(&question.encode()).await.unwrap();
    let frame = stream.incoming.receive().await.unwrap();
    match Envelope::decode(&frame).unwrap() {
        Envelope::Answer { id, answer } if id == [1; 32] => Answer::decode(&answer).unwrap(),
        other => panic!("expected an answer, got {other:?}"),
    }
}

async fn newest(server: &ServerAddress) -> BlockId {
    match ask(server, Query::MasterchainInfo).await {
        Answer::MasterchainInfo { last, .. } => last,
        other => panic!("expected the newest block, got {other:?}"),
    }
}

async fn account(server: &ServerAddress, block: BlockId, account: TonAddress) -> AccountAnswer {
    match ask(server, Query::AccountState { block, account }).await {
        Answer::AccountState(answer) => answer,
        other => panic!("expected an account, got {other:?}"),
    }
}

/// An account as a liteserver of `ledger` proves it.
pub(crate) async fn proved(ledger: &EmbeddedLedger, address: TonAddress) -> AccountState {
    let mut servers = Servers::default();
    servers.add(ledger).await;
    let found = servers.client().account(address).await.unwrap();
    servers.tasks.shutdown().await;
    found
}

#[tokio::test]
async fn what_is_proved_is_what_the_chain_holds() {
    let chain = ledger();
    let mut servers = Servers::default();
    for _ in 0..3 {
        servers.add(&chain).await;
    }
    let client = servers.client();
    client.check_network().await.unwrap();
    let (alice, bob) = (wallet(1), wallet(2));
    chain.faucet(alice.address(), ton(100)).await.unwrap();
    for _ in 0..40 {
        send(&chain, &alice, &[Transfer::plain(bob.address(), ton(1))]).await.unwrap();
    }
    for address in [alice.address(), bob.address(), wallet(9).address()] {
        let found = client.account(address).await.unwrap();
        assert_eq!(found, chain.account(address).await.unwrap());
        assert!(found.verified);
        let all = chain.transactions(address, Page::newest(100)).await.unwrap();
        assert_eq!(client.transactions(address, Page::newest(100)).await.unwrap(), all);
        for limit in [1, 16, 20] {
            let page = Page { limit, before: all.get(2).map(|third| third.id) };
            let older = client.transactions(address, page).await.unwrap();
            let from = 3.min(all.len());
            let to = (from + usize::from(limit)).min(all.len());
            assert_eq!(older, all[from..to]);
        }
    }
    assert_eq!(client.now().await.unwrap(), chain.now().await.unwrap());
    let seqno = client.run_get_method(alice.address(), method_id("seqno"), Vec::new()).await;
    assert_eq!(seqno.unwrap().unwrap().stack[0].as_u64(), Some(40));
    let parameters = client.parameters().await.unwrap();
    assert_eq!(parameters.get_global_id().unwrap(), Network::Devnet.global_id());
    assert!(client.dropped().is_empty());
}

#[tokio::test]
async fn a_message_is_taken_once_and_a_refusal_keeps_its_exit_code() {
    let chain = ledger();
    let mut servers = Servers::default();
    for _ in 0..3 {
        servers.add(&chain).await;
    }
    let client = servers.client();
    let alice = wallet(1);
    chain.faucet(alice.address(), ton(10)).await.unwrap();
    let account = client.account(alice.address()).await.unwrap();
    let until = client.now().await.unwrap().after(Millis::from_secs(60));
    let message = alice.sign(&account, &[Transfer::plain(alice.address(), ton(1))], until).unwrap();
    assert_eq!(client.send(message.clone()).await.unwrap(), message.hash());
    let history = chain.transactions(alice.address(), Page::newest(10)).await.unwrap();
    let external = history.iter().filter(|t| t.received.as_ref().unwrap().source.is_none());
    assert_eq!(external.count(), 1, "three servers took it, and it happened once");
    match client.send(message).await {
        Err(LedgerError::NotAccepted { exit_code }) => assert_eq!(exit_code, Some(133)),
        other => panic!("expected a refusal, got {other:?}"),
    }
    let nobody = TonAddress { workchain: 0, hash: [9; 32] };
    let lost = Message::external(nobody, None, Cell::empty_cell()).unwrap();
    assert!(matches!(client.send(lost).await, Err(LedgerError::NotAccepted { .. })));
}

#[tokio::test]
async fn no_changed_bit_of_a_proof_changes_what_is_read() {
    let chain = ledger();
    let mut servers = Servers::default();
    let server = servers.add(&chain).await;
    let (alice, bob) = (wallet(1), wallet(2));
    chain.faucet(alice.address(), ton(10)).await.unwrap();
    chain.faucet(bob.address(), ton(20)).await.unwrap();
    send(&chain, &alice, &[Transfer::plain(bob.address(), ton(1))]).await.unwrap();
    let block = newest(&server).await;
    let honest = account(&server, block, alice.address()).await;
    let check = |answer: &AccountAnswer| {
        let proved = proof::account(answer, &block, alice.address(), Network::Devnet)?;
        let account = proved.account.map(|account| account.load_account().unwrap().unwrap());
        Ok::<_, ProofError>((account, proved.time))
    };
    let truth = check(&honest).unwrap();
    let parts: [fn(&mut AccountAnswer) -> &mut Vec<u8>; 3] =
        [|answer| &mut answer.shard_proof, |answer| &mut answer.proof, |answer| &mut answer.state];
    let (mut flips, mut harmless) = (0, 0);
    for part in parts {
        for bit in 0..part(&mut honest.clone()).len() * 8 {
            let mut forged = honest.clone();
            part(&mut forged)[bit / 8] ^= 1 << (bit % 8);
            flips += 1;
            if let Ok(read) = check(&forged) {
                // A bit of the bag around the cells, such as whether it has an index.
                assert_eq!(read, truth, "bit {bit}");
                harmless += 1;
            }
        }
    }
    assert!(flips > 20_000 && harmless * 100 < flips, "{harmless} of {flips}");
}

/// What fuzzing starts from: `COCOON_MAKE_FIXTURES=1 cargo test … the_committed_answers` writes it anew.
#[tokio::test]
async fn the_committed_answers_are_this_chains() {
    let chain = ledger();
    let mut servers = Servers::default();
    let server = servers.add(&chain).await;
    let (alice, bob) = (wallet(1), wallet(2));
    chain.faucet(alice.address(), ton(10)).await.unwrap();
    send(&chain, &alice, &[Transfer::plain(bob.address(), ton(1))]).await.unwrap();
    let block = newest(&server).await;
    let newest = chain.account(alice.address()).await.unwrap().last_transaction.unwrap();
    let (lt, hash) = (newest.lt, newest.hash);
    for (name, query) in [
        ("account", Query::AccountState { block, account: alice.address() }),
        ("transactions", Query::Transactions { count: 16, account: alice.address(), lt, hash }),
        ("config", Query::Config { block, parameters: None }),
        ("header", Query::BlockHeader(block)),
    ] {
        let answer = ask(&server, query).await.encode();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/liteserver");
        let path = std::path::Path::new(folder).join(name).with_extension("tl");
        if std::env::var_os("COCOON_MAKE_FIXTURES").is_some() {
            std::fs::write(&path, &answer).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == answer, "{name}");
    }
}

#[tokio::test]
async fn a_proof_of_something_else_is_refused() {
    let (chain, foreign) = (ledger(), ledger());
    let mut servers = Servers::default();
    let here = servers.add(&chain).await;
    let elsewhere = servers.add(&foreign).await;
    let (alice, bob) = (wallet(1), wallet(2));
    for chain in [&chain, &foreign] {
        chain.faucet(alice.address(), ton(10)).await.unwrap();
    }
    foreign.faucet(bob.address(), ton(1_000)).await.unwrap();
    let old_block = newest(&here).await;
    let old = account(&here, old_block, alice.address()).await;
    chain.faucet(bob.address(), ton(20)).await.unwrap();
    let block = newest(&here).await;
    assert!(block.seqno > old_block.seqno);
    let check = |answer: &AccountAnswer, address| {
        proof::account(answer, &block, address, Network::Devnet).map(|_| ())
    };
    let of_alice = account(&here, block, alice.address()).await;
    let of_bob = account(&here, block, bob.address()).await;
    assert_eq!(check(&of_alice, alice.address()), Ok(()));

    // Another account, or another account's state.
    check(&of_alice, bob.address()).unwrap_err();
    let mixed = AccountAnswer { state: of_bob.state.clone(), ..of_alice.clone() };
    assert_eq!(check(&mixed, alice.address()), Err(ProofError::OtherAccount));
    // There is an account, and the server says that there is none; and the other way round.
    let hidden = AccountAnswer { state: Vec::new(), ..of_alice.clone() };
    check(&hidden, alice.address()).unwrap_err();
    let nobody = wallet(9).address();
    let absent = account(&here, block, nobody).await;
    assert_eq!(check(&absent, nobody), Ok(()));
    let invented = AccountAnswer { state: of_bob.state.clone(), ..absent };
    assert_eq!(check(&invented, nobody), Err(ProofError::OtherAccount));

    // An old state, under its own name and under the new one.
    assert_eq!(check(&old, alice.address()), Err(ProofError::OtherAnswer));
    let renamed = AccountAnswer { block, ..old.clone() };
    assert_eq!(check(&renamed, alice.address()), Err(ProofError::OtherRoot));
    let patched = AccountAnswer { proof: old.proof, shard: old.shard, ..of_alice.clone() };
    assert_eq!(check(&patched, alice.address()), Err(ProofError::NotListed));

    // A block of another chain, and this chain's accounts under another network's id.
    let foreign_block = newest(&elsewhere).await;
    let mut foreign = account(&elsewhere, foreign_block, bob.address()).await;
    assert_eq!(check(&foreign, bob.address()), Err(ProofError::OtherAnswer));
    foreign.block = block;
    assert_eq!(check(&foreign, bob.address()), Err(ProofError::OtherRoot));
    let elsewhere = proof::account(&of_alice, &block, alice.address(), Network::Mainnet);
    assert_eq!(elsewhere.map(|_| ()), Err(ProofError::OtherNetwork));
}

#[tokio::test]
async fn one_of_three_that_serves_another_chain_is_outvoted_and_dropped() {
    let (chain, fork) = (ledger(), ledger());
    let alice = wallet(1);
    chain.faucet(alice.address(), ton(10)).await.unwrap();
    fork.faucet(alice.address(), ton(1_000_000)).await.unwrap();
    let mut servers = Servers::default();
    let liar = servers.add(&fork).await;
    servers.add(&chain).await;
    servers.add(&chain).await;
    let client = servers.client();
    for _ in 0..6 {
        assert_eq!(balance(&client, alice.address()).await, ton(10));
    }
    let dropped = client.dropped();
    assert_eq!(dropped.len(), 1);
    assert_eq!(dropped[0].0, liar);
    assert!(dropped[0].1.contains("another block"), "{}", dropped[0].1);
}

#[tokio::test]
async fn one_of_three_that_forges_accounts_is_found_out_and_dropped() {
    let chain = ledger();
    let alice = wallet(1);
    chain.faucet(alice.address(), ton(10)).await.unwrap();
    let rich = {
        let elsewhere = ledger();
        elsewhere.faucet(alice.address(), ton(1_000_000)).await.unwrap();
        let mut servers = Servers::default();
        let server = servers.add(&elsewhere).await;
        account(&server, newest(&server).await, alice.address()).await.state
    };
    let mut servers = Servers::default();
    let honest = servers.add(&chain).await;
    servers.add(&chain).await;
    let lie: Lie = Arc::new(move |answer| match answer {
        Answer::AccountState(answer) => {
            Answer::AccountState(AccountAnswer { state: rich.clone(), ..answer })
        }
        other => other,
    });
    let liar = servers.add_liar(honest, lie).await;
    let client = servers.client();
    // Whose turn it is changes from read to read, in the order in which the servers answer.
    for _ in 0..200 {
        let found = client.account(alice.address()).await.unwrap();
        assert_eq!((found.balance, found.verified), (ton(10), true));
        if !client.dropped().is_empty() {
            break;
        }
    }
    let dropped = client.dropped();
    assert_eq!(dropped.iter().map(|(server, _)| *server).collect::<Vec<_>>(), [liar]);
    assert!(dropped[0].1.contains("account"), "{}", dropped[0].1);
}

#[tokio::test]
async fn liars_in_the_majority_agree_on_nothing_that_is_believed_by_one_honest() {
    let (chain, fork, other) = (ledger(), ledger(), ledger());
    for (index, chain) in [&chain, &fork, &other].into_iter().enumerate() {
        let amount = ton(u64::try_from(index).unwrap() + 1);
        chain.faucet(wallet(1).address(), amount).await.unwrap();
    }
    let mut servers = Servers::default();
    for chain in [&chain, &fork, &other] {
        servers.add(chain).await;
    }
    let failed = servers.client().account(wallet(1).address()).await;
    assert!(
        matches!(failed, Err(LedgerError::NoAgreement { needed: 2, answered: 3 })),
        "{failed:?}"
    );
}

#[tokio::test]
async fn a_server_that_goes_away_and_one_that_never_was_do_not_stop_the_others() {
    let chain = ledger();
    let alice = wallet(1);
    chain.faucet(alice.address(), ton(10)).await.unwrap();
    let mut leaving = Servers::default();
    let first = leaving.add(&chain).await;
    let mut servers = Servers::default();
    for _ in 0..3 {
        servers.add(&chain).await;
    }
    let unused = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let nowhere =
        ServerAddress { address: unused.local_addr().unwrap(), key: servers.addresses[0].key };
    drop(unused);
    // Keys tell servers on one machine apart: these two have others than the three.
    let key = |seed: u8| SigningKey::from_bytes(&[seed; 32]).verifying_key();
    servers.addresses.push(ServerAddress { key: key(77), ..nowhere });
    servers.addresses.push(ServerAddress { key: key(78), ..first });
    let client = servers.client();
    assert_eq!(balance(&client, alice.address()).await, ton(10));
    drop(leaving);
    chain.faucet(alice.address(), ton(10)).await.unwrap();
    assert_eq!(balance(&client, alice.address()).await, ton(20));
    assert!(client.dropped().is_empty());
}

#[test]
fn one_voice_is_not_enough_where_money_is_real() {
    let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
    let at = |text: &str| ServerAddress { address: text.parse().unwrap(), key };
    let new = |servers: Vec<ServerAddress>, quorum| {
        let options = Options::new(Network::Mainnet, servers);
        Liteservers::new(Options { quorum, ..options }).map(|_| ())
    };
    assert_eq!(new(Vec::new(), None), Err(OptionsError::NoServer));
    let one = vec![at("192.0.2.1:1")];
    assert_eq!(new(one, None), Err(OptionsError::OneVoice(Network::Mainnet)));
    // Two ports of one machine are one voice.
    let same = vec![at("192.0.2.1:1"), at("192.0.2.1:2")];
    assert_eq!(new(same, None), Err(OptionsError::OneVoice(Network::Mainnet)));
    let two = vec![at("192.0.2.1:1"), at("192.0.2.2:1")];
    assert_eq!(new(two.clone(), None), Ok(()));
    assert_eq!(new(two, Some(3)), Err(OptionsError::Quorum { quorum: 3, operators: 2 }));
}

#[tokio::test]
async fn a_devnets_liteservers_are_not_another_networks() {
    let chain = ledger();
    chain.faucet(wallet(1).address(), ton(1)).await.unwrap();
    let mut servers = Servers::default();
    servers.add(&chain).await;
    servers.add(&chain).await;
    let options = Options::new(Network::Testnet, servers.addresses.clone());
    let client = Liteservers::new(options).unwrap();
    let refused = client.check_network().await;
    assert!(matches!(refused, Err(LedgerError::OtherNetwork { expected: Network::Testnet })));
    assert_eq!(client.dropped().len(), 2);
    assert!(client.dropped()[0].1.contains("another network"));
}

#[tokio::test]
async fn blocks_and_proofs_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.redb");
    let alice = wallet(1);
    let open = || EmbeddedLedger::open(&path, crate::stage::options()).unwrap();
    let (block, key) = {
        let chain = open();
        chain.faucet(alice.address(), ton(10)).await.unwrap();
        let mut servers = Servers::default();
        let server = servers.add(&chain).await;
        let block = newest(&server).await;
        // Happened, and in no block yet.
        chain.faucet(alice.address(), ton(5)).await.unwrap();
        let key = chain.liteserver_key().await.unwrap().verifying_key();
        drop(servers);
        (block, key)
    };
    // The server's tasks hold the database until they are gone.
    let chain = loop {
        match EmbeddedLedger::open(&path, crate::stage::options()) {
            Ok(chain) => break chain,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(chain.liteserver_key().await.unwrap().verifying_key(), key);
    let mut servers = Servers::default();
    let server = servers.add(&chain).await;
    // The old block is still proved, by states built again from the accounts.
    let old = account(&server, block, alice.address()).await;
    let proved = proof::account(&old, &block, alice.address(), Network::Devnet).unwrap();
    let balance = proved.account.unwrap().load_account().unwrap().unwrap().balance;
    assert_eq!(balance.tokens.into_inner(), u128::from(ton(10).as_nano()));
    // And the next block follows from it.
    let next = newest(&server).await;
    assert_eq!(next.seqno, block.seqno + 1);
    let client = servers.client();
    assert_eq!(client.account(alice.address()).await.unwrap().balance, ton(15));
}

/// toncenter, but rich: whatever account it is asked about has a million TON more.
#[tokio::test]
async fn a_toncenter_that_lies_about_a_balance_is_labelled() {
    let served = Served::start().await;
    let alice = wallet(1);
    served.ledger.faucet(alice.address(), ton(10)).await.unwrap();
    let (upstream, listener) =
        (served.url.clone(), TcpListener::bind(("127.0.0.1", 0)).await.unwrap());
    let url = format!("http://{}", listener.local_addr().unwrap());
    let liar = axum::Router::new().fallback(move |body: String| {
        let upstream = upstream.clone();
        async move {
            let url = format!("{upstream}/api/v2/jsonRPC");
            let answer = reqwest::Client::new().post(url).body(body).send().await.unwrap();
            let mut answer: Value = answer.json().await.unwrap();
            if answer["result"]["balance"].is_string() {
                answer["result"]["balance"] = json!("1000000000000000");
            }
            answer.to_string()
        }
    });
    let task = tokio::spawn(async move { axum::serve(listener, liar).await.unwrap() });
    let client = Toncenter::new(&url, Network::Devnet, None).unwrap();
    let found = client.account(alice.address()).await.unwrap();
    assert_eq!(found.balance, NanoTon::from_nano(1_000_000_000_000_000), "the lie goes through");
    assert!(!found.verified, "and is labelled");
    assert_eq!(found.status, AccountStatus::Uninitialised);
    task.abort();

    // The same question with proofs gets the truth, or nothing.
    let mut servers = Servers::default();
    servers.add(&served.ledger).await;
    let found = servers.client().account(alice.address()).await.unwrap();
    assert_eq!((found.balance, found.verified), (ton(10), true));
}

#[tokio::test]
async fn nonsense_is_refused_and_the_connection_goes_on() {
    let chain = ledger();
    let mut servers = Servers::default();
    let server = servers.add(&chain).await;
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let mut stream = Stream::connect(tcp, &server.key).await.unwrap();
    let nonsense = Envelope::Query { id: [2; 32], query: vec![1, 2, 3, 4] };
    stream.outgoing.send(&nonsense.encode()).await.unwrap();
    let frame = stream.incoming.receive().await.unwrap();
    let Envelope::Answer { answer, .. } = Envelope::decode(&frame).unwrap() else { panic!() };
    assert!(matches!(Answer::decode(&answer), Ok(Answer::Failed { code: -400, .. })));
    stream.outgoing.send(&Envelope::Ping(7).encode()).await.unwrap();
    let frame = stream.incoming.receive().await.unwrap();
    assert_eq!(Envelope::decode(&frame), Ok(Envelope::Pong(7)));
}
