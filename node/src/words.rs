//! The wallet's 24 words in the store: the one record that node and command line read.
//!
//! Owns: looking them up and keeping new ones. Must not: print them, or replace any.

use cocoon_ledger::wallet::{Mnemonic, MnemonicError};
use cocoon_protocol::identity::Network;
use zeroize::Zeroizing;

use crate::store::{CommitError, ReadError, Record, Store, Table};

/// Why the words are not there.
#[derive(Debug, thiserror::Error)]
pub enum WordsError {
    /// There is a wallet already, and nothing may replace it.
    #[error("there is a wallet for this network already")]
    Exists,
    /// The record holds no words.
    #[error("the wallet in the store cannot be read")]
    Damaged(#[source] MnemonicError),
    /// The store cannot be read.
    #[error("the wallet could not be looked up")]
    Read(#[source] ReadError),
    /// The store cannot be written.
    #[error("the wallet could not be kept")]
    Commit(#[source] CommitError),
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

/// Keeps `words` as the wallet on `network`. The caller holds the instance lock, so that nobody
/// else keeps others at the same time.
pub(crate) async fn keep(
    store: &Store,
    network: Network,
    words: &Mnemonic,
) -> Result<(), WordsError> {
    if load(store, network)?.is_some() {
        return Err(WordsError::Exists);
    }
    let record = Record::put(
        Table::Wallet,
        network.as_str().as_bytes().to_vec(),
        words.phrase().as_bytes().to_vec(),
    );
    store.commit(vec![record]).await.map_err(WordsError::Commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn words_are_kept_by_network_and_never_replaced() {
        let store = Store::in_memory().unwrap();
        assert!(load(&store, Network::Devnet).unwrap().is_none());
        let words = Mnemonic::generate().unwrap();
        keep(&store, Network::Devnet, &words).await.unwrap();
        let kept = load(&store, Network::Devnet).unwrap().unwrap();
        assert_eq!(kept.phrase(), words.phrase());
        assert!(matches!(keep(&store, Network::Devnet, &words).await, Err(WordsError::Exists)));
        // Another network may have another wallet.
        assert!(load(&store, Network::Testnet).unwrap().is_none());
        keep(&store, Network::Testnet, &words).await.unwrap();
    }

    #[tokio::test]
    async fn a_damaged_record_is_refused_and_not_replaced() {
        let store = Store::in_memory().unwrap();
        let words = Mnemonic::generate().unwrap();
        for bytes in [&b""[..], b"abandon abandon", b"\xff"] {
            let record = Record::put(Table::Wallet, b"devnet".to_vec(), bytes.to_vec());
            store.commit(vec![record]).await.unwrap();
            let kept = keep(&store, Network::Devnet, &words).await;
            assert!(matches!(kept, Err(WordsError::Damaged(_))), "{bytes:?}");
        }
    }
}
