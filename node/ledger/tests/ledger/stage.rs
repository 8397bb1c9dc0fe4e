//! What every scenario needs: a chain whose clock stands still, and wallets with money.
//!
//! Owns: set-up. Must not: assert anything.

use cocoon_ledger::embedded::{Clock, EmbeddedLedger, Options};
use cocoon_ledger::message::{MessageHash, Transfer};
use cocoon_ledger::wallet::Wallet;
use cocoon_ledger::{Ledger, LedgerError, TransactionSummary};
use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::{Millis, NanoTon, Timestamp};
use ed25519_dalek::SigningKey;

/// 2026-11-22.
pub(crate) const START: Timestamp = Timestamp::from_unix_secs(1_795_000_000);

pub(crate) const fn ton(whole: u64) -> NanoTon {
    NanoTon::from_nano(whole * 1_000_000_000)
}

pub(crate) fn options() -> Options {
    Options { clock: Clock::manual(START), ..Options::default() }
}

pub(crate) fn ledger() -> EmbeddedLedger {
    EmbeddedLedger::in_memory(options()).unwrap()
}

pub(crate) fn wallet(seed: u8) -> Wallet {
    Wallet::new(SigningKey::from_bytes(&[seed; 32]), Network::Devnet).unwrap()
}

pub(crate) async fn balance(ledger: &dyn Ledger, address: TonAddress) -> NanoTon {
    ledger.account(address).await.unwrap().balance
}

pub(crate) async fn send(
    ledger: &dyn Ledger,
    wallet: &Wallet,
    transfers: &[Transfer],
) -> Result<MessageHash, LedgerError> {
    let account = ledger.account(wallet.address()).await.unwrap();
    let until = ledger.now().await.unwrap().after(Millis::from_secs(60));
    ledger.send(wallet.sign(&account, transfers, until).unwrap()).await
}

pub(crate) async fn last(ledger: &dyn Ledger, address: TonAddress) -> TransactionSummary {
    let page = cocoon_ledger::Page::newest(1);
    ledger.transactions(address, page).await.unwrap().pop().unwrap()
}
