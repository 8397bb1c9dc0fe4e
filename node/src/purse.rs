//! The node's own secrets about money: its wallet's phrase and the vault's hot key.
//!
//! Owns: where they come from and that they are made once.
//! Must not: sign anything, show a secret in `Debug`, or keep a second copy.
//!
//! The phrase is TON's 24 words; the vault's hot key follows from the wallet's secret, so that one
//! phrase restores everything, and a wallet's key never signs a voucher.

use std::sync::Arc;

use cocoon_ledger::wallet::{Mnemonic, NoRandomness, Wallet, WalletError};
use cocoon_protocol::channel::VaultKey;
use cocoon_protocol::identity::Network;

use crate::keystore::{Keystore, KeystoreError};

/// Context string of the vault's hot key (BLAKE3's key derivation).
const HOT_KEY_CONTEXT: &str = "cocoon 2026 vault hot key v1";

/// Why the wallet cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PurseError {
    /// The words cannot be read or kept.
    #[error("the wallet's words are not available")]
    Keystore(#[source] KeystoreError),
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
    pub fn open(keystore: &Keystore, network: Network) -> Result<Self, PurseError> {
        let kept = keystore.words(network).map_err(PurseError::Keystore)?;
        let phrase = match kept {
            Some(phrase) => phrase,
            None => {
                let phrase = Mnemonic::generate().map_err(PurseError::Random)?;
                keystore.keep_words(network, &phrase).map_err(PurseError::Keystore)?;
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
