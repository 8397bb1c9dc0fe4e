//! A payment over a ledger that loses questions, answers and messages, by a process that is killed all
//! the time: it happens once, or never and says so.
//!
//! Owns: the faults. Must not: repeat the rules of the operation it tests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cocoon_ledger::embedded::EmbeddedLedger;
use cocoon_ledger::message::{Message, MessageHash, Transfer};
use cocoon_ledger::operations::{OperationError, Patience, Remitter};
use cocoon_ledger::{AccountState, Ledger, LedgerError, LedgerFuture, Page, TransactionSummary};
use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::{Millis, Timestamp};

use crate::stage::{balance, ledger, ton, wallet};

const TO: TonAddress = TonAddress { workchain: 0, hash: [0x55; 32] };

/// A connection on which everything can go wrong.
#[derive(Debug)]
struct Hostile {
    chain: EmbeddedLedger,
    /// SplitMix64: the same faults for the same seed.
    chance: Mutex<u64>,
    /// No message comes through; those that are held back come when all is over.
    cut: bool,
    /// Messages that the network holds back.
    late: Mutex<Vec<Message>>,
}

impl Hostile {
    fn draw(&self, sides: u64) -> u64 {
        let mut state = self.chance.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn lost() -> LedgerError {
        LedgerError::Unreachable("the connection is gone".into())
    }

    /// What was held back arrives, when it arrives at all.
    async fn deliver(&self) {
        let late: Vec<_> = self.late.lock().unwrap().drain(..).collect();
        for message in late {
            let _refused = self.chain.send(message).await;
        }
    }
}

impl Ledger for Hostile {
    fn network(&self) -> Network {
        self.chain.network()
    }

    fn now(&self) -> LedgerFuture<'_, Timestamp> {
        self.chain.now()
    }

    fn account(&self, address: TonAddress) -> LedgerFuture<'_, AccountState> {
        Box::pin(async move {
            match self.draw(6) {
                0 => return Err(Self::lost()),
                1 if !self.cut => self.deliver().await,
                2 => self.chain.advance(Millis::from_secs(7)).await?,
                _ => {}
            }
            self.chain.account(address).await
        })
    }

    fn transactions(
        &self,
        address: TonAddress,
        page: Page,
    ) -> LedgerFuture<'_, Vec<TransactionSummary>> {
        Box::pin(async move {
            let mut found = self.chain.transactions(address, page).await?;
            match self.draw(4) {
                0 => return Err(Self::lost()),
                // A server that is behind.
                1 if page.before.is_none() && !found.is_empty() => drop(found.remove(0)),
                _ => {}
            }
            Ok(found)
        })
    }

    fn send(&self, message: Message) -> LedgerFuture<'_, MessageHash> {
        Box::pin(async move {
            match self.draw(if self.cut { 2 } else { 5 }) {
                0 => Err(Self::lost()),
                1 => {
                    self.late.lock().unwrap().push(message);
                    Err(Self::lost())
                }
                2 => {
                    self.chain.send(message).await?;
                    Err(Self::lost())
                }
                3 => {
                    self.late.lock().unwrap().push(message.clone());
                    Ok(message.hash())
                }
                _ => self.chain.send(message).await,
            }
        })
    }
}

/// One payment through one run of bad luck: whether it was said to have happened.
async fn pay(seed: u64, deploy_first: bool, cut: bool) -> bool {
    let chain = ledger();
    let own = wallet(1);
    chain.faucet(own.address(), ton(10)).await.unwrap();
    if deploy_first {
        let to_self = Transfer::plain(own.address(), ton(1));
        crate::stage::send(&chain, &own, &[to_self]).await.unwrap();
    }
    let chance = Mutex::new(seed);
    let hostile = Hostile { chain: chain.clone(), chance, cut, late: Mutex::default() };
    let hostile = Arc::new(hostile);
    let patience = Patience {
        validity: Millis::from_secs(60),
        deadline: Millis::new(5),
        pause: Millis::new(0),
    };
    // A new one after each kill: nothing but the record survives.
    let process = || Remitter::new(Arc::clone(&hostile) as Arc<dyn Ledger>, own.clone(), patience);
    let signed = loop {
        if let Ok(signed) = process().sign(Transfer::plain(TO, ton(2))).await {
            break serde_json::to_string(&signed).unwrap();
        }
    };
    let happened = loop {
        let record = serde_json::from_str(&signed).unwrap();
        let remitter = process();
        let carried = remitter.carry(&record);
        // Killed after some steps, or not.
        let micros = if hostile.draw(2) == 0 { hostile.draw(400) } else { 1_000_000 };
        match tokio::time::timeout(Duration::from_micros(micros), carried).await {
            Err(_) | Ok(Err(OperationError::Unconfirmed)) => {}
            Ok(Ok(_)) => break true,
            Ok(Err(OperationError::NotExecuted | OperationError::Overtaken)) => break false,
            Ok(Err(error)) => panic!("seed {seed}: {error:?}"),
        }
    };
    // Whatever was held back comes now, and changes nothing any more.
    hostile.deliver().await;
    let arrived = balance(&chain, TO).await;
    let expected = if happened { ton(2) } else { ton(0) };
    assert_eq!(arrived, expected, "seed {seed}, said to have happened: {happened}");
    happened
}

#[tokio::test]
async fn whatever_fails_a_payment_happens_once_or_never_and_is_known() {
    let mut counts = [0; 2];
    for seed in 0..300 {
        counts[usize::from(pay(seed, seed % 2 == 0, seed % 5 == 0).await)] += 1;
    }
    // Both ends were seen, or the faults were too kind.
    assert_eq!(counts, [60, 240]);
}

#[tokio::test]
async fn another_message_of_the_same_wallet_is_told_from_ours() {
    let chain = ledger();
    let own = wallet(1);
    chain.faucet(own.address(), ton(10)).await.unwrap();
    let patience =
        Patience { pause: Millis::new(1), deadline: Millis::from_secs(20), ..Patience::default() };
    let remitter = Remitter::new(Arc::new(chain.clone()), own.clone(), patience);
    let signed = remitter.sign(Transfer::plain(TO, ton(2))).await.unwrap();
    let other = Transfer::plain(own.address(), ton(1));
    crate::stage::send(&chain, &own, &[other]).await.unwrap();
    let carried = remitter.carry(&signed).await;
    assert!(matches!(carried, Err(OperationError::Overtaken)), "{carried:?}");
    assert_eq!(balance(&chain, TO).await, ton(0));
    let poor = remitter.sign(Transfer::plain(TO, ton(10))).await;
    assert!(matches!(poor, Err(OperationError::NoFunds { .. })), "{poor:?}");
}
