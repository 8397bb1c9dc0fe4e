//! The wallet's 24 words in the store, in clear, as versions before the keystore kept them.
//!
//! Owns: looking them up and removing them. Must not: print them, or write any.

use cocoon_ledger::wallet::{Mnemonic, MnemonicError};
use cocoon_protocol::identity::Network;
use zeroize::Zeroizing;

use crate::store::{CommitError, ReadError, Record, Store, Table};

/// Why the words are not there.
#[derive(Debug, thiserror::Error)]
pub enum WordsError {
    /// The record holds no words.
    #[error("the wallet in the store cannot be read")]
    Damaged(#[source] MnemonicError),
    /// The store cannot be read.
    #[error("the wallet could not be looked up")]
    Read(#[source] ReadError),
}

/// The words of the wallet on `network`, if there is one.
pub(crate) fn load(store: &Store, network: Network) -> Result<Option<Mnemonic>, WordsError> {
    let key = network.as_str().as_bytes().to_vec();
    let Some(record) = store.read(Table::Wallet, &key).map_err(WordsError::Read)? else {
        return Ok(None);
    };
    // A text that is not UTF-8 is not words either, and the reader says so.
    let text = Zeroizing::new(String::from_utf8(record).unwrap_or_default());
    Mnemonic::parse(&text).map(Some).map_err(WordsError::Damaged)
}

/// Removes them, once they are in the keystore.
pub(crate) async fn remove(store: &Store, network: Network) -> Result<(), CommitError> {
    store.commit(vec![Record::remove(Table::Wallet, network.as_str().as_bytes().to_vec())]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_damaged_record_is_refused() {
        let store = Store::in_memory().unwrap();
        for bytes in [&b""[..], b"abandon abandon", b"\xff"] {
            let record = Record::put(Table::Wallet, b"devnet".to_vec(), bytes.to_vec());
            store.commit(vec![record]).await.unwrap();
            let read = load(&store, Network::Devnet);
            assert!(matches!(read, Err(WordsError::Damaged(_))), "{bytes:?}");
        }
    }
}
