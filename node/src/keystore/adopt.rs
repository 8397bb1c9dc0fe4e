//! The way from the clear secrets of earlier versions into the keystore.
//!
//! Owns: the order: sealed and durable first, removed from the clear places only then, so that a
//! crash at any point leaves every secret in at least one place.
//! Must not: choose between two different secrets; a person has to.

use cocoon_protocol::identity::{Network, NodeKey};
use futures::executor::block_on;

use super::{Keystore, KeystoreError};
use crate::data_folder::{DataFolder, FolderError, remove_private};
use crate::identity::{self, KeyFileError};
use crate::store::{CommitError, Store};
use crate::words::{self, WordsError};

/// Why clear secrets could not be taken over. They are where they were.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The keystore cannot take them.
    #[error("the secrets in clear cannot be moved into the keystore")]
    Keystore(#[source] KeystoreError),
    /// The key file of an earlier version cannot be read.
    #[error("the node's key in clear cannot be read")]
    Key(#[source] KeyFileError),
    /// The words in the store cannot be read.
    #[error("the wallet's words in clear cannot be read")]
    Words(#[source] WordsError),
    /// The clear file cannot be removed.
    #[error("the node's key in clear cannot be removed")]
    Remove(#[source] FolderError),
    /// The clear words cannot be removed.
    #[error("the wallet's words in clear cannot be removed")]
    Commit(#[source] CommitError),
}

impl AdoptError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Keystore(error) => error.hint(),
            Self::Key(error) => error.hint(),
            Self::Remove(error) => error.hint(),
            Self::Words(_) | Self::Commit(_) => None,
        }
    }
}

/// Moves what earlier versions kept in clear into the keystore.
///
/// # Errors
///
/// When a place cannot be read or written, or two places hold different secrets.
pub fn adopt(keystore: &Keystore, folder: &DataFolder, store: &Store) -> Result<(), AdoptError> {
    let file = folder.node_key();
    let contradiction = |path| AdoptError::Keystore(KeystoreError::Contradiction { path });
    let mut found = false;
    if file.exists() {
        found = true;
        let secret = identity::load(&file).map_err(AdoptError::Key)?;
        match keystore.node_secret().map_err(AdoptError::Keystore)? {
            Some(kept)
                if NodeKey::from_secret(&kept).id() == NodeKey::from_secret(&secret).id() => {}
            Some(_) => return Err(contradiction(file)),
            None => keystore.keep_node_secret(&secret).map_err(AdoptError::Keystore)?,
        }
    }
    // Also when there is none, for what a crash has left of an earlier removal.
    remove_private(&file).map_err(AdoptError::Remove)?;
    for network in [Network::Devnet, Network::Testnet, Network::Mainnet] {
        let Some(clear) = words::load(store, network).map_err(AdoptError::Words)? else {
            continue;
        };
        found = true;
        match keystore.words(network).map_err(AdoptError::Keystore)? {
            Some(kept) if kept.phrase() == clear.phrase() => {}
            Some(_) => return Err(contradiction(folder.store())),
            None => keystore.keep_words(network, &clear).map_err(AdoptError::Keystore)?,
        }
        block_on(words::remove(store, network)).map_err(AdoptError::Commit)?;
    }
    if found {
        tracing::warn!(
            "the node's secrets were in clear and are in the keystore now; older copies may remain \
             on the disk and in backups: if others could read those, make a new wallet"
        );
    }
    Ok(())
}
