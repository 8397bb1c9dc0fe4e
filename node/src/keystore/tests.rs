//! The keystore whole: what it keeps, what it refuses, and what is left when the process dies.

use std::fs;
use std::path::PathBuf;

use cocoon_ledger::wallet::Mnemonic;
use cocoon_protocol::identity::Network;

use super::*;
use crate::data_folder::{crash, write_private};
use crate::store::{Record, Store, Table};

/// A home with a data folder and, beside it, a place for the key file.
struct Home {
    parent: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { parent: tempfile::tempdir().unwrap() }
    }

    fn folder(&self) -> DataFolder {
        DataFolder::open(&self.parent.path().join("data")).unwrap()
    }

    fn by_key_file(&self) -> Unlock {
        Unlock { key_file: Some(self.parent.path().join("config/key")), ..Unlock::default() }
    }

    fn open(&self, unlock: &Unlock) -> Result<Keystore, KeystoreError> {
        let folder = self.folder();
        Keystore::open(&folder, &folder.lock().unwrap(), unlock)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.folder().keystore()).unwrap()
    }
}

fn by_passphrase(text: &str) -> Unlock {
    Unlock { passphrase: Some(text.to_owned().into()), ..Unlock::default() }
}

/// Calls `work` so that it dies at its first step, at its second, and so on until it survives.
/// `reset` makes the world as it was, `check` says what must hold after each death.
fn die_at_every_step(
    mut reset: impl FnMut(),
    mut work: impl FnMut() -> bool,
    mut check: impl FnMut(bool),
) -> u32 {
    for steps in 0..100 {
        reset();
        crash::after(Some(steps));
        let survived = work();
        crash::after(None);
        check(survived);
        if survived {
            return steps;
        }
    }
    panic!("it never survives");
}

#[test]
fn a_node_keeps_its_identity_and_words_and_nothing_is_in_clear() {
    let home = Home::new();
    let unlock = home.by_key_file();
    let words = Mnemonic::generate().unwrap();
    let keystore = home.open(&unlock).unwrap();
    let key = keystore.node_key().unwrap();
    keystore.keep_words(Network::Devnet, &words).unwrap();
    assert!(matches!(keystore.keep_words(Network::Devnet, &words), Err(KeystoreError::Exists)));
    let address = TonAddress { workchain: 0, hash: [1; 32] };
    let terms = VaultTerms {
        owner: None,
        release_delay_seconds: 60,
        daily_cap: cocoon_protocol::units::NanoTon::MAX,
        fee_basis_points: 0,
        treasury: address,
        salt: 0,
    };
    let vault = KnownVault { network: Network::Devnet, address, terms };
    keystore.keep_vault(&vault).unwrap();
    keystore.keep_vault(&vault).unwrap();
    drop(keystore);
    let again = home.open(&unlock).unwrap();
    assert_eq!(again.node_key().unwrap().id(), key.id());
    assert_eq!(again.words(Network::Devnet).unwrap().unwrap().phrase(), words.phrase());
    assert!(again.words(Network::Mainnet).unwrap().is_none());
    assert_eq!(again.vaults(), [vault]);
    assert_eq!(again.protected(), Protected::ByKeyFile);
    let secret = again.node_secret().unwrap().unwrap();
    for clear in [hex::encode(secret.as_slice()), hex::encode(words.phrase())] {
        assert!(!home.text().contains(&clear));
    }
}

#[test]
fn without_its_key_it_stays_closed_and_says_what_is_missing() {
    let home = Home::new();
    home.open(&by_passphrase("one")).unwrap().node_key().unwrap();
    let before = home.text();
    let error = home.open(&by_passphrase("two")).unwrap_err();
    assert!(matches!(error, KeystoreError::WrongKey { with: "passphrase" }), "{error}");
    let error = home.open(&home.by_key_file()).unwrap_err();
    assert!(matches!(error, KeystoreError::NeedsPassphrase), "{error}");
    assert!(error.hint().unwrap().contains("COCOON_PASSPHRASE"));
    home.open(&by_passphrase("one")).unwrap();
    assert_eq!(home.text(), before);

    let home = Home::new();
    home.open(&home.by_key_file()).unwrap().node_key().unwrap();
    fs::remove_file(home.parent.path().join("config/key")).unwrap();
    let error = home.open(&home.by_key_file()).unwrap_err();
    // Missing is missing: a new key would not open it.
    assert!(matches!(error, KeystoreError::Secret { .. }), "{error}");
    assert!(!home.parent.path().join("config/key").exists());
}

#[test]
fn a_key_beside_its_lock_is_refused() {
    let home = Home::new();
    let inside = home.folder().path().join("key");
    let unlock = Unlock { key_file: Some(inside), ..Unlock::default() };
    assert!(matches!(home.open(&unlock), Err(KeystoreError::KeyFileInside { .. })));
    assert!(matches!(home.open(&Unlock::default()), Err(KeystoreError::NoKeyFile)));
}

#[test]
fn it_is_in_clear_only_when_the_user_says_so() {
    let home = Home::new();
    let clear = Unlock { clear: true, ..home.by_key_file() };
    let keystore = home.open(&clear).unwrap();
    keystore.node_key().unwrap();
    assert_eq!(keystore.protected(), Protected::No);
    // The setting is for new ones; an old one says itself how it is protected.
    keystore.protect_by_key_file(&clear).unwrap();
    drop(keystore);
    assert_eq!(home.open(&clear).unwrap().protected(), Protected::ByKeyFile);
}

#[test]
fn damaged_and_exposed_files_are_refused_and_left_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let unlock = home.by_key_file();
    let path = home.folder().keystore();
    write_private(&path, b"{}").unwrap();
    assert!(matches!(home.open(&unlock), Err(KeystoreError::Malformed { .. })));
    assert_eq!(home.text(), "{}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(home.open(&unlock), Err(KeystoreError::Folder(_))));
}

#[test]
fn a_death_while_words_are_kept_leaves_all_or_nothing() {
    let home = Home::new();
    let unlock = home.by_key_file();
    let words = Mnemonic::generate().unwrap();
    let key = home.open(&unlock).unwrap().node_key().unwrap();
    let before = home.text();
    let path = home.folder().keystore();
    let steps = die_at_every_step(
        || write_private(&path, before.as_bytes()).unwrap(),
        || home.open(&unlock).unwrap().keep_words(Network::Devnet, &words).is_ok(),
        |survived| {
            let keystore = home.open(&unlock).unwrap();
            assert_eq!(keystore.node_key().unwrap().id(), key.id());
            let kept = keystore.words(Network::Devnet).unwrap();
            assert!(kept.is_none_or(|kept| kept.phrase() == words.phrase()));
            assert!(!survived || keystore.words(Network::Devnet).unwrap().is_some());
        },
    );
    assert!(steps >= 4, "only {steps} places to die at");
}

#[test]
fn a_death_while_the_passphrase_changes_leaves_the_old_or_the_new_one() {
    let home = Home::new();
    let by_key = home.by_key_file();
    let by_new = by_passphrase("new");
    let key = home.open(&by_key).unwrap().node_key().unwrap();
    let before = home.text();
    let path = home.folder().keystore();
    let steps = die_at_every_step(
        || write_private(&path, before.as_bytes()).unwrap(),
        || home.open(&by_key).unwrap().protect_by_passphrase(&by_new).is_ok(),
        |survived| {
            let opened = if survived {
                home.open(&by_new)
            } else {
                home.open(&by_key).or_else(|_| home.open(&by_new))
            };
            assert_eq!(opened.unwrap().node_key().unwrap().id(), key.id());
        },
    );
    assert!(steps >= 4, "only {steps} places to die at");
}

/// What an earlier version left: the key in a file, the words in the store.
fn old_version(home: &Home, secret: &[u8; 32], words: &Mnemonic) -> Store {
    let folder = home.folder();
    for path in [folder.keystore(), folder.node_key()] {
        let _absent = fs::remove_file(path);
    }
    let text = format!("cocoon-node-key-v1 {}\n", hex::encode(secret));
    write_private(&folder.node_key(), text.as_bytes()).unwrap();
    let store = Store::in_memory().unwrap();
    let record =
        Record::put(Table::Wallet, b"testnet".to_vec(), words.phrase().as_bytes().to_vec());
    store.commit_blocking(vec![record]).unwrap();
    store
}

#[test]
fn a_death_while_clear_secrets_move_loses_none() {
    let home = Home::new();
    let unlock = home.by_key_file();
    let words = Mnemonic::generate().unwrap();
    let store = std::cell::RefCell::new(Store::in_memory().unwrap());
    let secret = [9; 32];
    let steps = die_at_every_step(
        || *store.borrow_mut() = old_version(&home, &secret, &words),
        || {
            let keystore = home.open(&unlock).unwrap();
            adopt(&keystore, &home.folder(), &store.borrow()).is_ok()
        },
        |_| {
            // The next start finishes, from wherever the last one died.
            let keystore = home.open(&unlock).unwrap();
            adopt(&keystore, &home.folder(), &store.borrow()).unwrap();
            assert_eq!(keystore.node_secret().unwrap().unwrap().as_slice(), secret);
            let kept = keystore.words(Network::Testnet).unwrap().unwrap();
            assert_eq!(kept.phrase(), words.phrase());
            assert!(!home.folder().node_key().exists());
            assert!(!home.folder().node_key().with_extension("doomed").exists());
            assert!(store.borrow().read(Table::Wallet, b"testnet").unwrap().is_none());
        },
    );
    assert!(steps >= 8, "only {steps} places to die at");
}

#[test]
fn two_different_secrets_are_for_a_person_to_decide() {
    let home = Home::new();
    let unlock = home.by_key_file();
    let words = Mnemonic::generate().unwrap();
    let store = old_version(&home, &[9; 32], &words);
    let keystore = home.open(&unlock).unwrap();
    keystore.node_key().unwrap();
    let error = adopt(&keystore, &home.folder(), &store).unwrap_err();
    let path: PathBuf = home.folder().node_key();
    assert!(matches!(
        error,
        AdoptError::Keystore(KeystoreError::Contradiction { path: named }) if named == path
    ));
    assert!(path.exists());
}
