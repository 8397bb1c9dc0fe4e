//! `kill -9`, again and again, of everybody who handles money: provider, consumer and ledger.
//!
//! What holds after every kill: nobody holds a voucher that its signer does not remember, the next
//! chat works, and both ends agree. What holds in the end: what was promised was paid, once.
//!
//! `scripts/kills` runs it longer; the seed is printed, and the same seed kills in the same order.

use std::time::Duration;

use cocoon_node::store::{Store, Table};
use cocoon_protocol::channel::PayerState;
use cocoon_protocol::record::Posting;
use serde_json::{Value, json};

use crate::books::Books;
use crate::gateway::words;
use crate::network::{ECHO, Network, Peer, eventually, free_port};

/// Kills when nobody says otherwise.
const KILLS: u64 = 12;
/// What the contract may refuse as too little to pay for its own settlement, whatever the voucher:
/// 0.0044 TON under the devnet's prices, and some more.
const TOO_LITTLE: u64 = 5_000_000;
/// Words of a chat: enough for several vouchers.
const WORDS: usize = 120;

/// A setting of this test from the environment.
fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Splitmix64: small, and the same everywhere.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Who dies.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Provider(usize),
    Consumer,
    Ledger,
    /// Provider and ledger at once, so that a settlement's fate is not known to anybody.
    Both(usize),
}

/// When.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// So long after the request was sent: while a session opens, the vault, an allocation.
    Asked(Duration),
    /// After so many pieces of the answer.
    Pieces(usize),
    /// So long after the provider was told to settle.
    Settling(Duration),
}

struct Scene<'a> {
    network: &'a Network,
    providers: [Peer<'a>; 2],
    consumer: Peer<'a>,
}

impl Scene<'_> {
    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Provider(at) => self.providers[at].kill(),
            Victim::Consumer => self.consumer.kill(),
            Victim::Ledger => self.network.kill_entry(),
            Victim::Both(at) => {
                self.providers[at].kill();
                self.network.kill_entry();
            }
        }
    }

    fn restart(&mut self, victim: Victim) {
        match victim {
            Victim::Provider(at) => self.providers[at].start(),
            Victim::Consumer => self.consumer.start(),
            Victim::Ledger => self.network.start_entry(),
            Victim::Both(at) => {
                self.network.start_entry();
                self.providers[at].start();
            }
        }
    }

    /// A stream, a settlement or both, with a death in the middle.
    fn strike(&mut self, victim: Victim, point: Point) {
        match point {
            Point::Asked(after) => {
                let port = self.consumer.port();
                let body = words(ECHO, WORDS).to_string();
                let asking = std::thread::spawn(move || {
                    let head = format!(
                        "POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\n\
                         Content-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    let mut stream = crate::gateway::send(port, head.as_bytes());
                    // Whatever comes, or nothing.
                    let _ = std::io::copy(&mut stream, &mut std::io::sink());
                });
                std::thread::sleep(after);
                self.kill(victim);
                self.restart(victim);
                asking.join().unwrap();
            }
            Point::Pieces(count) => {
                let mut answer = self.consumer.chat(&words(ECHO, WORDS));
                if answer.status == 200 {
                    let mut whole = crate::gateway::Whole::default();
                    for _ in 0..count {
                        if answer.next(&mut whole).is_none() {
                            break;
                        }
                    }
                }
                self.kill(victim);
                drop(answer);
                self.restart(victim);
            }
            Point::Settling(after) => {
                let provider = match victim {
                    Victim::Provider(at) | Victim::Both(at) => at,
                    Victim::Consumer | Victim::Ledger => 0,
                };
                let mut settle = self.providers[provider].command(&["channel", "settle"]);
                let mut settle = settle.spawn().unwrap();
                std::thread::sleep(after);
                self.kill(victim);
                let _ = settle.kill();
                settle.wait().unwrap();
                self.restart(victim);
            }
        }
    }

    /// No voucher is held that its signer does not remember: read from the signer's disk when it
    /// is dead, and asked otherwise.
    fn nothing_is_forgotten(&self) {
        let held: u64 = self.providers.iter().map(Peer::promised).sum();
        let promised = self.consumer.promised();
        assert!(promised >= held, "the consumer remembers {promised}, its providers hold {held}");
    }

    fn works(&self) {
        eventually("the next chat works", || {
            let answer = self.consumer.chat(&words(ECHO, 20));
            if answer.status != 200 {
                println!("not yet: {}", answer.text());
                return None;
            }
            answer.whole();
            Some(())
        });
    }
}

fn idle(peer: &Peer<'_>) {
    eventually("its jobs end", || (peer.ask(&["status"])["jobs"] == json!([])).then_some(()));
}

#[test]
fn no_kill_loses_a_voucher_pays_twice_or_blocks_a_channel() {
    let kills = setting("COCOON_TEST_KILLS", KILLS);
    let seed = setting("COCOON_TEST_SEED", 1);
    println!("{kills} kills, seed {seed}");
    let mut draws = Draws(seed);
    let network = Network::start();
    let ports = [free_port(), free_port()].map(|port| format!("/ip4/127.0.0.1/udp/{port}/quic-v1"));
    let provide = |name, at: usize| {
        let own = ["--echo-delay", "2 ms", "--settle-threshold", "0.02 TON"];
        network.provide(name, &[&own[..], &["--listen", &ports[at]]].concat())
    };
    let providers = [provide("first", 0), provide("second", 1)];
    let own = ["--vault-deposit", "40 TON", "--allocation", "15 TON"];
    let consumer = network.consume_unfunded("consumer", &own);
    consumer.run(&["wallet", "fund", "50 TON"]).success();
    let mut scene = Scene { network: &network, providers, consumer };
    scene.works();
    for round in 0..kills {
        let at = usize::from(draws.below(2) == 1);
        let victim = match draws.below(10) {
            0..4 => Victim::Provider(at),
            4..7 => Victim::Consumer,
            7..9 => Victim::Ledger,
            _ => Victim::Both(at),
        };
        let point = match draws.below(6) {
            0 => Point::Asked(Duration::from_millis(draws.below(30))),
            1 | 2 => Point::Settling(Duration::from_millis(draws.below(60))),
            _ => Point::Pieces(usize::try_from(draws.below(100)).unwrap()),
        };
        println!("{round}: {victim:?} {point:?}");
        scene.strike(victim, point);
        scene.works();
        scene.nothing_is_forgotten();
    }
    end(scene);
}

/// Everybody finishes, settles and stops; then the books are read.
fn end(mut scene: Scene<'_>) {
    let ledger = scene.network.ledger_port();
    scene.providers.iter().for_each(idle);
    idle(&scene.consumer);
    let vault = scene.consumer.ask(&["wallet", "show"])["vault"].as_str().unwrap().to_owned();
    let wallets = scene
        .providers
        .each_ref()
        .map(|provider| provider.ask(&["wallet", "show"])["address"].as_str().unwrap().to_owned());
    for provider in &mut scene.providers {
        let held = provider.promised();
        let (code, log) = provider.terminate_with_log();
        assert_eq!(code, Some(0), "{log}");
        // It has settled at its end, unless the ledger failed it just then; who comes back can ask
        // again. What is too little to pay for its own settlement stays due.
        provider.start();
        let settled = eventually("what was held is settled", || {
            let settled = total(&provider.ask(&["channel", "list"]), "settled_nano");
            let due = held.checked_sub(settled).expect("no more was paid than was held");
            if due >= TOO_LITTLE {
                println!("{due} nanoTON are still due after this end:\n{log}");
                provider.run(&["channel", "settle"]);
                return None;
            }
            Some(settled)
        });
        println!("{settled} of {held} nanoTON are settled");
    }
    let held: u64 = scene.providers.iter().map(Peer::promised).sum();
    let promised = scene.consumer.promised();
    let receipted = scene.consumer.receipted();
    assert!(receipted <= promised, "receipts for {receipted}, vouchers for {promised}");
    assert_eq!(scene.consumer.terminate(), Some(0));
    assert_eq!(durable(&scene.consumer), promised);
    assert_eq!(accounted(&scene.consumer), promised, "every promise is a line of the accounts");
    // A voucher that died with its message was never worth anything to anybody.
    assert!(held <= promised, "{held} {promised}");
    let books = Books::of(ledger, &vault);
    let received: u64 = wallets.iter().map(|wallet| Books::of(ledger, wallet).received).sum();
    assert_eq!(books.sent, received, "what left the vault is what the providers got");
    assert!(books.sent <= held, "paid {} of {held}: {books:?}", books.sent);
    println!(
        "promised {promised}, held {held}, paid out {} in {} transactions, fees {}",
        books.sent, books.transactions, books.fees
    );
}

fn total(channels: &Value, figure: &str) -> u64 {
    channels.as_array().unwrap().iter().map(|channel| channel[figure].as_u64().unwrap()).sum()
}

/// What the store of a payer that does not run says was promised.
fn durable(peer: &Peer<'_>) -> u64 {
    let store = Store::open(&peer.data_dir().join("store.redb")).unwrap();
    let records = store.scan(Table::Payer, None, 100).unwrap();
    let promised = |value: &[u8]| PayerState::decode(value).unwrap().cumulative().as_nano();
    records.iter().map(|(_, value)| promised(value)).sum()
}

/// What the lines of a consumer's accounts add up to. It must not run.
fn accounted(peer: &Peer<'_>) -> u64 {
    let store = Store::open(&peer.data_dir().join("store.redb")).unwrap();
    let lines = store.scan(Table::Posting, None, usize::MAX).unwrap();
    let lines = lines.iter().map(|(_, value)| Posting::decode(value).unwrap());
    lines.filter(|line| !line.provided).map(|line| line.amount.as_nano()).sum()
}
