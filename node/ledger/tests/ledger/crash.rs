//! `kill -9` at any point leaves a chain that is whole, with every message that was confirmed.
//!
//! Owns: the child process that is killed, and what must hold afterwards.
//! Must not: rely on when exactly the kill comes; it comes at another point in each round.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use cocoon_ledger::embedded::EmbeddedLedger;
use cocoon_ledger::message::Transfer;
use cocoon_ledger::{Ledger, Page};
use cocoon_protocol::units::NanoTon;

use crate::stage::{options, send, ton, wallet};

const PATH_VARIABLE: &str = "COCOON_LEDGER_CRASH_TEST";
const ROUNDS: usize = 4;

/// Not a test by itself: the process that gets killed. Says each confirmed payment on stdout.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child_that_pays_for_ever() {
    let Some(path) = std::env::var_os(PATH_VARIABLE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let ledger = EmbeddedLedger::open(Path::new(&path), options()).unwrap();
        let (alice, bob) = (wallet(1), wallet(2));
        loop {
            let transfer = Transfer::plain(bob.address(), NanoTon::from_nano(1));
            send(&ledger, &alice, &[transfer]).await.unwrap();
            ledger.make_block().await.unwrap();
            let account = ledger.account(alice.address()).await.unwrap();
            println!("confirmed {}", alice.seqno(&account).unwrap());
        }
    });
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.redb");
    let (alice, bob) = (wallet(1), wallet(2));
    {
        let ledger = EmbeddedLedger::open(&path, options()).unwrap();
        ledger.faucet(alice.address(), ton(100)).await.unwrap();
    }
    let (mut before, mut blocks) = (0, 0);
    for round in 1..=ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_pays_for_ever", "--ignored", "--nocapture"])
            .env(PATH_VARIABLE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut confirmed = before;
        let numbers = lines
            .filter_map(|line| line.ok()?.split_once("confirmed ")?.1.trim().parse::<u32>().ok());
        for number in numbers.take(3 * round) {
            confirmed = number;
        }
        // SIGKILL, while the child is in the middle of the next payment.
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(confirmed > before, "the child made progress");

        let ledger = EmbeddedLedger::open(&path, options()).unwrap();
        let account = ledger.account(alice.address()).await.unwrap();
        let seqno = alice.seqno(&account).unwrap();
        assert!(seqno >= confirmed, "confirmed {confirmed}, found {seqno}");
        // Each payment arrived whole: the wallet's count is the receiver's balance.
        let received = ledger.account(bob.address()).await.unwrap().balance;
        assert_eq!(received, NanoTon::from_nano(u64::from(seqno)));
        let audit = ledger.audit().await.unwrap();
        assert!(audit.is_balanced(), "{audit:?}");
        let history = ledger.transactions(alice.address(), Page::newest(1_000)).await.unwrap();
        assert_eq!(history.first().map(|newest| newest.id), account.last_transaction);
        assert_eq!(history.len(), usize::try_from(seqno).unwrap() + 1);
        // Blocks went on where they were, and prove the accounts as they are.
        let newest = ledger.make_block().await.unwrap();
        assert!(newest >= seqno && newest > blocks, "{newest} after {blocks}, {seqno} payments");
        assert_eq!(crate::liteserver::proved(&ledger, bob.address()).await.balance, received);
        blocks = newest;
        before = seqno;
    }
}
