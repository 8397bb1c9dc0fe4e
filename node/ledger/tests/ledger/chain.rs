//! The embedded chain: real fees, exact books, time, blocks, history.
//!
//! Owns: what the chain promises. Must not: know how it stores anything.

use std::sync::atomic::Ordering;

use cocoon_ledger::embedded::{Clock, EmbeddedLedger, Options};
use cocoon_ledger::get_method::{StackEntry, method_id};
use cocoon_ledger::message::{Message, Transfer, contract_address};
use cocoon_ledger::tycho_types::boc::Boc;
use cocoon_ledger::tycho_types::models::StateInit;
use cocoon_ledger::{AccountStatus, Ledger, LedgerError, Outcome, Page};
use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::{Millis, NanoTon};
use proptest::prelude::*;

use crate::stage::{START, balance, last, ledger, options, send, ton, wallet};

/// Wallet version 5: the sequence number is not the expected one.
const WALLET_WRONG_SEQNO: i32 = 133;
/// Wallet version 5: the message's time is over.
const WALLET_EXPIRED: i32 = 136;

#[tokio::test]
async fn a_wallet_is_funded_deployed_and_pays() {
    let ledger = ledger();
    let (alice, bob) = (wallet(1), wallet(2));
    assert_eq!(ledger.account(alice.address()).await.unwrap().status, AccountStatus::Absent);
    ledger.faucet(alice.address(), ton(10)).await.unwrap();
    let funded = ledger.account(alice.address()).await.unwrap();
    assert_eq!((funded.status, funded.balance), (AccountStatus::Uninitialised, ton(10)));

    send(&ledger, &alice, &[Transfer::plain(bob.address(), ton(1))]).await.unwrap();
    let deployed = ledger.account(alice.address()).await.unwrap();
    assert!(deployed.is_active() && deployed.verified);
    assert_eq!(alice.seqno(&deployed).unwrap(), 1);
    assert_eq!(balance(&ledger, bob.address()).await, ton(1));

    // Gas of a wallet message as the reference emulator has it.
    send(&ledger, &alice, &[Transfer::plain(bob.address(), ton(1))]).await.unwrap();
    let paid = last(&ledger, alice.address()).await;
    assert_eq!((paid.outcome, paid.gas_used), (Outcome::Succeeded, 4_939));
    let spent = ton(8).as_nano() - balance(&ledger, alice.address()).await.as_nano();
    let fees = paid.fees.as_nano() + deploy_fees(&ledger, alice.address()).await;
    assert_eq!(spent, fees);
    assert!(ledger.audit().await.unwrap().is_balanced());
}

async fn deploy_fees(ledger: &EmbeddedLedger, address: TonAddress) -> u64 {
    let page = Page { limit: 10, before: Some(last(ledger, address).await.id) };
    let older = ledger.transactions(address, page).await.unwrap();
    assert_eq!(older.len(), 2, "the deployment and the faucet's transfer");
    older.iter().map(|transaction| transaction.fees.as_nano()).sum()
}

#[tokio::test]
async fn a_message_counts_once_and_only_in_its_time() {
    let ledger = ledger();
    let (alice, bob) = (wallet(1), wallet(2));
    ledger.faucet(alice.address(), ton(10)).await.unwrap();
    let account = ledger.account(alice.address()).await.unwrap();
    let transfers = [Transfer::plain(bob.address(), ton(1))];
    let message = alice.sign(&account, &transfers, START.after(Millis::from_secs(60))).unwrap();
    ledger.send(message.clone()).await.unwrap();
    let replayed = ledger.send(message).await;
    assert_not_accepted(replayed, WALLET_WRONG_SEQNO);

    let account = ledger.account(alice.address()).await.unwrap();
    let late = alice.sign(&account, &transfers, START).unwrap();
    assert_not_accepted(ledger.send(late).await, WALLET_EXPIRED);
    let seqno = ledger.head().await.unwrap().seqno;
    assert_eq!(seqno, 2, "a refused message makes no block");
    assert_eq!(balance(&ledger, bob.address()).await, ton(1));
}

fn assert_not_accepted<T: std::fmt::Debug>(result: Result<T, LedgerError>, expected: i32) {
    match result {
        Err(LedgerError::NotAccepted { exit_code }) => assert_eq!(exit_code, Some(expected)),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn get_methods_run_on_current_state() {
    let ledger = ledger();
    let alice = wallet(1);
    let none = ledger.run_get_method(alice.address(), method_id("seqno"), vec![]).await.unwrap();
    assert!(none.is_err());
    ledger.faucet(alice.address(), ton(10)).await.unwrap();
    send(&ledger, &alice, &[Transfer::plain(alice.address(), ton(1))]).await.unwrap();
    let output =
        ledger.run_get_method(alice.address(), method_id("seqno"), vec![]).await.unwrap().unwrap();
    assert_eq!(output.exit_code, 0);
    assert_eq!(output.stack.first().and_then(StackEntry::as_u64), Some(1));
    let missing = ledger.run_get_method(alice.address(), 1_000_000, vec![]).await.unwrap().unwrap();
    assert_ne!(missing.exit_code, 0);
}

#[tokio::test]
async fn messages_wait_for_their_block() {
    let ledger =
        EmbeddedLedger::in_memory(Options { block_time: Millis::from_secs(1), ..options() })
            .unwrap();
    let (alice, bob) = (wallet(1), wallet(2));
    ledger.faucet(alice.address(), ton(10)).await.unwrap();
    let account = ledger.account(alice.address()).await.unwrap();
    let transfers = [Transfer::plain(bob.address(), ton(1))];
    let message = alice.sign(&account, &transfers, START.after(Millis::from_secs(60))).unwrap();
    ledger.send(message.clone()).await.unwrap();
    ledger.send(message.clone()).await.unwrap();
    assert_eq!(balance(&ledger, bob.address()).await, NanoTon::ZERO);
    ledger.produce_block().await.unwrap();
    assert_eq!(balance(&ledger, bob.address()).await, ton(1));
    assert_not_accepted(ledger.send(message).await, WALLET_WRONG_SEQNO);
    ledger.produce_block().await.unwrap();
    assert_eq!(balance(&ledger, bob.address()).await, ton(1));
}

#[tokio::test]
async fn time_moves_ahead_and_never_back() {
    let clock = Clock::manual(START);
    let ledger = EmbeddedLedger::in_memory(Options { clock: clock.clone(), ..options() }).unwrap();
    assert_eq!(ledger.now().await.unwrap(), START);
    ledger.advance(Millis::from_secs(3_600)).await.unwrap();
    let later = START.after(Millis::from_secs(3_600));
    assert_eq!(ledger.now().await.unwrap(), later);
    ledger.faucet(wallet(1).address(), ton(1)).await.unwrap();
    let Clock::Manual(millis) = clock else { panic!("not a manual clock") };
    millis.store(0, Ordering::Relaxed);
    assert_eq!(ledger.now().await.unwrap(), later, "a block was made then");
}

#[tokio::test]
async fn history_is_bounded_and_pages_do_not_overlap() {
    let ledger = EmbeddedLedger::in_memory(Options { history: 5, ..options() }).unwrap();
    let address = wallet(1).address();
    for _ in 0..8 {
        ledger.faucet(address, ton(1)).await.unwrap();
    }
    let all = ledger.transactions(address, Page::newest(100)).await.unwrap();
    assert_eq!(all.len(), 5);
    assert!(all.windows(2).all(|pair| pair[0].id.lt > pair[1].id.lt));
    let page = Page { limit: 2, before: Some(all[1].id) };
    let older = ledger.transactions(address, page).await.unwrap();
    assert_eq!(older, all[2..4]);
    assert_eq!(balance(&ledger, address).await, ton(8));
}

#[tokio::test]
async fn a_flooding_contract_holds_the_chain_for_a_bounded_time_only() {
    let ledger = ledger();
    let alice = wallet(1);
    ledger.faucet(alice.address(), ton(20)).await.unwrap();
    let code = Boc::decode(include_bytes!("../../testdata/loop.boc")).unwrap();
    let init = StateInit { code: Some(code), ..StateInit::default() };
    let flood = contract_address(&init).unwrap();
    let deploy = Transfer { init: Some(init), ..Transfer::plain(flood, ton(10)) };
    send(&ledger, &alice, &[deploy]).await.unwrap();
    let audit = ledger.audit().await.unwrap();
    assert!(audit.under_way > NanoTon::ZERO, "the flood goes on with the next message");
    assert!(audit.is_balanced(), "{audit:?}");
    send(&ledger, &alice, &[Transfer::plain(alice.address(), ton(1))]).await.unwrap();
    ledger.produce_block().await.unwrap();
    let audit = ledger.audit().await.unwrap();
    assert!(audit.is_balanced(), "{audit:?}");
}

#[tokio::test]
async fn the_faucet_gives_no_more_than_exists() {
    let ledger = ledger();
    let all = NanoTon::from_nano(5_000_000_000_000_000_000);
    ledger.faucet(wallet(1).address(), all).await.unwrap();
    let more = ledger.faucet(wallet(2).address(), NanoTon::from_nano(1)).await;
    assert!(matches!(more, Err(LedgerError::FaucetEmpty)));
    assert_eq!(balance(&ledger, wallet(2).address()).await, NanoTon::ZERO);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Signed messages with flipped bits, some of which still parse, and get methods with any
    /// number: refusals, and books that balance.
    #[test]
    fn damaged_messages_harm_nobody(flips in prop::collection::vec((any::<u16>(), 0u8..8), 1..4), method: u32) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let ledger = ledger();
            let alice = wallet(1);
            ledger.faucet(alice.address(), ton(10)).await.unwrap();
            let account = ledger.account(alice.address()).await.unwrap();
            let transfers = [Transfer::plain(wallet(2).address(), ton(1))];
            let until = START.after(Millis::from_secs(60));
            let mut boc = alice.sign(&account, &transfers, until).unwrap().to_boc();
            let length = boc.len();
            for (at, bit) in flips {
                boc[usize::from(at) % length] ^= 1 << bit;
            }
            if let Ok(message) = Message::from_boc(&boc) {
                let _ = ledger.send(message).await;
            }
            let _ = ledger.run_get_method(alice.address(), method, vec![]).await.unwrap();
            let audit = ledger.audit().await.unwrap();
            assert!(audit.is_balanced(), "{audit:?}");
        });
    }
}

#[derive(Clone, Debug)]
struct Payment {
    from: u8,
    to: u8,
    nano: u64,
    bounce: bool,
    wait: u64,
}

fn payment() -> impl Strategy<Value = Payment> {
    (1u8..4, 1u8..7, 0u64..8_000_000_000, any::<bool>(), 0u64..100_000_000)
        .prop_map(|(from, to, nano, bounce, wait)| Payment { from, to, nano, bounce, wait })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever happens (too little money, bounces, rent of years), no nanoTON appears or is lost.
    #[test]
    fn the_books_balance_after_any_history(payments in prop::collection::vec(payment(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let ledger = ledger();
            for seed in 1..4 {
                ledger.faucet(wallet(seed).address(), ton(20)).await.unwrap();
            }
            for payment in payments {
                ledger.advance(Millis::from_secs(payment.wait)).await.unwrap();
                let transfer = Transfer {
                    bounce: payment.bounce,
                    ..Transfer::plain(wallet(payment.to).address(), NanoTon::from_nano(payment.nano))
                };
                // Frozen or empty wallets refuse; that is part of the history.
                let account = ledger.account(wallet(payment.from).address()).await.unwrap();
                let until = ledger.now().await.unwrap().after(Millis::from_secs(60));
                if let Ok(message) = wallet(payment.from).sign(&account, &[transfer], until) {
                    let _ = ledger.send(message).await;
                }
                let audit = ledger.audit().await.unwrap();
                assert!(audit.is_balanced(), "{audit:?}");
            }
        });
    }
}
