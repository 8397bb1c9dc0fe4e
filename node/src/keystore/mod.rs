//! The node's secrets at rest: its identity's key and its wallets' words, in one sealed file.
//!
//! Owns: what is in the file, that it is replaced whole, and the way from the clear files of earlier
//! versions. Must not: show a secret in an error or in `Debug`, or forget one it was given.
//!
//! What this protects against, and what not:
//!
//! - A **passphrase** protects whoever holds a copy of the data folder or of the whole disk, as far
//!   as nobody guesses it: each guess costs 64 MiB and three passes of Argon2id.
//! - A **key file** (the default, so that a node starts unattended) lies outside the data folder. It
//!   protects copies of the data folder alone: backups, snapshots of a data volume, a folder sent to
//!   somebody. Whoever reads the account's other files reads the key too. A systemd credential is
//!   such a file (`--key-file %d/NAME`), and can be sealed to the machine's TPM.
//! - Neither protects against somebody who is root, or is the node's own user, while the node runs:
//!   it needs its keys in memory. What should survive that belongs to the cold `--owner`.

mod adopt;
mod sealed;
mod unlock;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cocoon_ledger::operations::VaultTerms;
use cocoon_ledger::wallet::{Mnemonic, MnemonicError};
use cocoon_protocol::identity::{Network, NodeKey, TonAddress};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::data_folder::{DataFolder, FolderError, InstanceLock, require_private, write_private};
pub use adopt::{AdoptError, adopt};
use sealed::{Opener, Protection, SealError, Sealing};
pub use unlock::Unlock;

/// Largest keystore that is read: some kilobytes, with room for a wallet on every network and many
/// vaults.
const FILE_BYTES: u64 = 1 << 20;

/// Enough for what is in it, so that writing does not move it.
const CONTENT_BYTES: usize = 64 << 10;

/// Why the secrets are not available.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// A file cannot be written, or is open to others.
    #[error("the keystore cannot be used")]
    Folder(#[source] FolderError),
    /// The keystore cannot be read.
    #[error("cannot read the keystore {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no keystore, or a damaged one.
    #[error("{} is no keystore of this version, or a damaged one", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase or key file is another one.
    #[error("the {with} does not open the keystore")]
    WrongKey {
        /// Passphrase or key file.
        with: &'static str,
    },
    /// The keystore has a passphrase, and nobody gave it.
    #[error("the keystore needs its passphrase")]
    NeedsPassphrase,
    /// A passphrase of no characters.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The second time something else was typed.
    #[error("the two passphrases differ; nothing was changed")]
    PassphrasesDiffer,
    /// There is no home folder to keep a key file in.
    #[error("there is no place for the keystore's key file")]
    NoKeyFile,
    /// A passphrase or key file cannot be read or made.
    #[error("cannot use {}", path.display())]
    Secret {
        /// The file, or the terminal.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a key file.
    #[error("{} is not a key file", path.display())]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
    },
    /// A key beside the lock that it opens.
    #[error("the key file {} is inside the data folder and would protect nothing", path.display())]
    KeyFileInside {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Randomness,
    /// There is a wallet already, and nothing may replace it.
    #[error("there is a wallet for this network already")]
    Exists,
    /// The words in the keystore are none.
    #[error("the wallet in the keystore cannot be read")]
    Words(#[source] MnemonicError),
    /// A secret in clear, of an earlier version, is another one than the sealed one.
    #[error("{} holds another secret than the keystore", path.display())]
    Contradiction {
        /// The clear file.
        path: PathBuf,
    },
}

impl KeystoreError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Folder(error) => error.hint(),
            Self::NeedsPassphrase => Some(
                "give `--passphrase-file FILE` or `COCOON_PASSPHRASE`, or start at a terminal"
                    .to_owned(),
            ),
            Self::NoKeyFile => {
                Some("give `--key-file FILE` or `--passphrase-file FILE`".to_owned())
            }
            Self::KeyFileInside { .. } => Some("name another place with `--key-file`".to_owned()),
            Self::Malformed { path } | Self::NotAKeyFile { path } => {
                Some(format!("restore {} from a backup", path.display()))
            }
            Self::WrongKey { with: "key file" } => {
                Some("name the key file that it was made with: `--key-file FILE`".to_owned())
            }
            Self::Contradiction { path } => Some(format!(
                "if {} is the right one, move the keystore away; otherwise move the file away",
                path.display()
            )),
            Self::Unreadable { .. }
            | Self::WrongKey { .. }
            | Self::EmptyPassphrase
            | Self::PassphrasesDiffer
            | Self::Secret { .. }
            | Self::Randomness
            | Self::Exists
            | Self::Words(_) => None,
        }
    }
}

/// How a keystore is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protected {
    /// Not at all.
    No,
    /// By a passphrase.
    ByPassphrase,
    /// By a key file.
    ByKeyFile,
}

/// A vault of this node's hot key. Its terms are part of its address: with other settings the node
/// uses another vault, and this one must not be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownVault {
    /// Which network's money is in it.
    pub network: Network,
    /// Where it is.
    pub address: TonAddress,
    /// What it was made with.
    pub terms: VaultTerms,
}

/// What the file holds. Only what is needed to get at money and to stay the same peer.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Secrets {
    /// The node's key, 64 hexadecimal digits.
    node: Option<String>,
    /// Words by the name of the network.
    #[serde(default)]
    wallets: BTreeMap<String, String>,
    /// The terms of every vault that was ever used: whoever has the words and the terms finds the
    /// money again, also after settings have changed.
    #[serde(default)]
    vaults: Vec<KnownVault>,
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.node.zeroize();
        for words in self.wallets.values_mut() {
            words.zeroize();
        }
    }
}

struct State {
    secrets: Secrets,
    sealing: Sealing,
}

/// The open keystore. Clones share it.
#[derive(Clone)]
pub struct Keystore {
    path: Arc<Path>,
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for Keystore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keystore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Keystore {
    /// Opens the keystore of a data folder, or makes an empty one. The lock proves that no other
    /// process does the same.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or what `unlock` has does not open it.
    pub fn open(
        folder: &DataFolder,
        _lock: &InstanceLock,
        unlock: &Unlock,
    ) -> Result<Self, KeystoreError> {
        let path = folder.keystore();
        let state = match read(&path)? {
            Some(bytes) => {
                let fail = |error| problem(&path, error);
                let opener = unlock.opener(&sealed::protection(&bytes).map_err(fail)?)?;
                let (sealing, content) = sealed::open(&bytes, &opener).map_err(fail)?;
                let secrets = serde_json::from_slice(&content);
                let secrets = secrets.map_err(|_| problem(&path, SealError::Malformed))?;
                State { secrets, sealing }
            }
            None => {
                let opener = unlock.for_new(folder.path())?;
                let sealing = Sealing::new(&opener).map_err(|error| problem(&path, error))?;
                State { secrets: Secrets::default(), sealing }
            }
        };
        Ok(Self { path: path.into(), state: Arc::new(Mutex::new(state)) })
    }

    /// How it is protected.
    pub fn protected(&self) -> Protected {
        match self.state().sealing.protection {
            Protection::None => Protected::No,
            Protection::Passphrase { .. } => Protected::ByPassphrase,
            Protection::KeyFile { .. } => Protected::ByKeyFile,
        }
    }

    /// The node's key, made on first use.
    ///
    /// # Errors
    ///
    /// When a new one cannot be kept.
    pub fn node_key(&self) -> Result<NodeKey, KeystoreError> {
        if let Some(secret) = self.node_secret()? {
            return Ok(NodeKey::from_secret(&secret));
        }
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut_slice()).map_err(|_| KeystoreError::Randomness)?;
        self.keep_node_secret(&secret)?;
        Ok(NodeKey::from_secret(&secret))
    }

    pub(crate) fn node_secret(&self) -> Result<Option<Zeroizing<[u8; 32]>>, KeystoreError> {
        let state = self.state();
        let Some(digits) = &state.secrets.node else { return Ok(None) };
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, secret.as_mut_slice())
            .map_err(|_| problem(&self.path, SealError::Malformed))?;
        Ok(Some(secret))
    }

    pub(crate) fn keep_node_secret(&self, secret: &[u8; 32]) -> Result<(), KeystoreError> {
        self.change(|secrets| secrets.node = Some(hex::encode(secret)))
    }

    /// The words of the wallet on `network`, if there is one.
    ///
    /// # Errors
    ///
    /// When what is kept is no phrase.
    pub fn words(&self, network: Network) -> Result<Option<Mnemonic>, KeystoreError> {
        let state = self.state();
        let words = state.secrets.wallets.get(network.as_str());
        words.map(|text| Mnemonic::parse(text)).transpose().map_err(KeystoreError::Words)
    }

    /// Keeps `words` as the wallet on `network`; durable when this returns.
    ///
    /// # Errors
    ///
    /// When there is a wallet already, or the file cannot be written.
    pub fn keep_words(&self, network: Network, words: &Mnemonic) -> Result<(), KeystoreError> {
        if self.words(network)?.is_some() {
            return Err(KeystoreError::Exists);
        }
        let name = network.as_str().to_owned();
        self.change(|secrets| {
            secrets.wallets.insert(name, words.phrase().to_owned());
        })
    }

    /// The vaults that were ever used, the oldest first.
    pub fn vaults(&self) -> Vec<KnownVault> {
        self.state().secrets.vaults.clone()
    }

    /// Keeps the terms of a vault, durable when this returns, unless they are there.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn keep_vault(&self, vault: &KnownVault) -> Result<(), KeystoreError> {
        if self.state().secrets.vaults.contains(vault) {
            return Ok(());
        }
        self.change(|secrets| secrets.vaults.push(vault.clone()))
    }

    /// Seals everything under a passphrase from now on: the one in `unlock`, or one that is asked for.
    ///
    /// # Errors
    ///
    /// When there is none, or the file cannot be written: then the old protection holds.
    pub fn protect_by_passphrase(&self, unlock: &Unlock) -> Result<(), KeystoreError> {
        self.protect(&unlock.new_passphrase()?)
    }

    /// Seals everything under the key file of `unlock` from now on.
    ///
    /// # Errors
    ///
    /// As [`Keystore::protect_by_passphrase`].
    pub fn protect_by_key_file(&self, unlock: &Unlock) -> Result<(), KeystoreError> {
        let folder = self.path.parent().unwrap_or(&self.path);
        self.protect(&unlock.key_file_outside(folder)?)
    }

    /// Writes everything in clear from now on.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn unprotect(&self) -> Result<(), KeystoreError> {
        self.protect(&Opener::Nothing)
    }

    fn protect(&self, opener: &Opener) -> Result<(), KeystoreError> {
        let sealing = Sealing::new(opener).map_err(|error| problem(&self.path, error))?;
        let mut state = self.state();
        self.write(&state.secrets, &sealing)?;
        state.sealing = sealing;
        Ok(())
    }

    /// Durable first, then in memory.
    fn change(&self, change: impl FnOnce(&mut Secrets)) -> Result<(), KeystoreError> {
        let mut state = self.state();
        let mut secrets = state.secrets.clone();
        change(&mut secrets);
        self.write(&secrets, &state.sealing)?;
        state.secrets = secrets;
        Ok(())
    }

    fn write(&self, secrets: &Secrets, sealing: &Sealing) -> Result<(), KeystoreError> {
        let malformed = |_| problem(&self.path, SealError::Malformed);
        // With its full capacity from the start, so that no half of it stays behind in memory.
        let mut content = Zeroizing::new(Vec::with_capacity(CONTENT_BYTES));
        serde_json::to_writer(&mut *content, secrets).map_err(malformed)?;
        let bytes = sealing.seal(&content).map_err(|error| problem(&self.path, error))?;
        write_private(&self.path, &bytes).map_err(KeystoreError::Folder)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn problem(path: &Path, error: SealError) -> KeystoreError {
    match error {
        SealError::Malformed => KeystoreError::Malformed { path: path.to_owned() },
        SealError::Randomness => KeystoreError::Randomness,
        SealError::WrongKey => {
            let protection = read(path).ok().flatten().map(|bytes| sealed::protection(&bytes));
            let passphrase = matches!(protection, Some(Ok(Protection::Passphrase { .. })));
            KeystoreError::WrongKey { with: if passphrase { "passphrase" } else { "key file" } }
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, KeystoreError> {
    use io::Read as _;
    let unreadable = |source| KeystoreError::Unreadable { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(unreadable)?,
    };
    require_private(path).map_err(KeystoreError::Folder)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests;
