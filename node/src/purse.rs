//! The node's own secrets about money: its wallet's phrase and the vault's hot key.
//!
//! Owns: where they come from and that they are made once.
//! Must not: sign anything, show a secret in `Debug`, or keep a second copy.
//!
//! The phrase is TON's 24 words; the vault's hot key follows from the wallet's secret, so that one
//! phrase restores everything, and a wallet's key never signs a voucher.

use std::sync::Arc;

use cocoon_ledger::wallet::{Mnemonic, MnemonicError, NoRandomness, Wallet, WalletError};
use cocoon_protocol::channel::VaultKey;
use cocoon_protocol::identity::Network;

use crate::store::{CommitError, ReadError, Record, Store, Table};

/// Context string of the vault's hot key (BLAKE3's key derivation).
const HOT_KEY_CONTEXT: &str = "cocoon 2026 vault hot key v1";

/// Why the wallet cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PurseError {
    /// The store cannot be read.
    #[error("the wallet's phrase cannot be read from the store")]
    Read(#[source] ReadError),
    /// The store cannot be written.
    #[error("the wallet's phrase cannot be kept in the store")]
    Write(#[source] CommitError),
    /// What is stored is not a phrase.
    #[error("the stored wallet is damaged; restore the data folder from a backup")]
    Damaged(#[source] MnemonicError),
    /// The operating system gives no randomness.
    #[error("no wallet can be made")]
    Random(#[source] NoRandomness),
    /// The phrase gives no wallet.
    #[error("the wallet's address cannot be computed")]
    Wallet(#[source] WalletError),
}

/// The wallet and the keys that follow from it.
#[derive(Debug)]
pub struct Purse {
    /// Pays deposits, receives settlements and withdrawals.
    pub wallet: Wallet,
    /// Signs vouchers and the vault's commands.
    pub vault_key: Arc<VaultKey>,
}

impl Purse {
    /// The wallet of this network, made on first use; it is durable before anything is paid to it.
    pub async fn open(store: &Store, network: Network) -> Result<Self, PurseError> {
        let key = format!("{network:?}").to_lowercase().into_bytes();
        let phrase = match store.read(Table::Wallet, &key).map_err(PurseError::Read)? {
            Some(bytes) => {
                let text = zeroize::Zeroizing::new(String::from_utf8(bytes).unwrap_or_default());
                Mnemonic::parse(&text).map_err(PurseError::Damaged)?
            }
            None => {
                let phrase = Mnemonic::generate().map_err(PurseError::Random)?;
                let value = phrase.phrase().as_bytes().to_vec();
                let record = Record::put(Table::Wallet, key, value);
                store.commit(vec![record]).await.map_err(PurseError::Write)?;
                phrase
            }
        };
        Self::from_phrase(&phrase, network)
    }

    /// The wallet and keys of a phrase.
    pub fn from_phrase(phrase: &Mnemonic, network: Network) -> Result<Self, PurseError> {
        let secret = phrase.to_key();
        let hot = zeroize::Zeroizing::new(blake3::derive_key(HOT_KEY_CONTEXT, secret.as_bytes()));
        let vault_key = Arc::new(VaultKey::from_secret(&hot));
        let wallet = Wallet::new(secret, network).map_err(PurseError::Wallet)?;
        Ok(Self { wallet, vault_key })
    }
}
