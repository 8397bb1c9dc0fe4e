//! Where the keystore's passphrase or key comes from: settings, files, a person at the terminal.
//!
//! Owns: reading them, making a key file, asking without an echo.
//! Must not: keep a passphrase longer than it takes to open or seal a keystore.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::KeystoreError;
use super::sealed::{Opener, Protection};
use crate::config::Config;
use crate::data_folder::{FILE_MODE, require_private, sync_folder_of};

/// First word of a key file; names the format and its version.
const KEY_FILE_HEADER: &str = "cocoon-keystore-key-v1";
/// Longest passphrase, in bytes, and longest key file.
const SECRET_BYTES: usize = 1_024;

/// What the settings say about opening keystores.
#[derive(Clone, Default)]
pub struct Unlock {
    /// The passphrase itself.
    pub passphrase: Option<Zeroizing<String>>,
    /// A file whose first line is the passphrase.
    pub passphrase_file: Option<PathBuf>,
    /// The file with the key of keystores that have no passphrase.
    pub key_file: Option<PathBuf>,
    /// New keystores are not protected.
    pub clear: bool,
    /// Whether a person may be asked.
    pub ask: bool,
}

impl std::fmt::Debug for Unlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unlock").field("key_file", &self.key_file).finish_non_exhaustive()
    }
}

impl Unlock {
    /// As the settings have it. A person is asked only where there is a terminal.
    pub fn from_config(config: &Config) -> Self {
        Self {
            passphrase: config.passphrase.as_ref().map(|it| it.expose().to_owned().into()),
            passphrase_file: config.passphrase_file.clone(),
            key_file: config.key_file.clone(),
            clear: config.clear_keystore,
            ask: io::stdin().is_terminal(),
        }
    }

    /// What opens a keystore with this protection.
    pub(super) fn opener(&self, protection: &Protection) -> Result<Opener, KeystoreError> {
        match protection {
            Protection::None => Ok(Opener::Nothing),
            Protection::KeyFile { .. } => Ok(Opener::KeyFile(read_key(self.key_file()?)?)),
            Protection::Passphrase { .. } => match self.given_passphrase()? {
                Some(text) => Ok(Opener::Passphrase(text)),
                None if self.ask => Ok(Opener::Passphrase(ask("Passphrase of the keystore: ")?)),
                None => Err(KeystoreError::NeedsPassphrase),
            },
        }
    }

    /// What a new keystore in `folder` is sealed with: the passphrase if one is given, otherwise
    /// the key file, which is made if it is not there.
    pub(super) fn for_new(&self, folder: &Path) -> Result<Opener, KeystoreError> {
        if self.clear {
            return Ok(Opener::Nothing);
        }
        if let Some(text) = self.given_passphrase()? {
            return Ok(Opener::Passphrase(text));
        }
        self.key_file_outside(folder)
    }

    /// The key file, made if it is not there. Inside the data folder it would protect nothing: who
    /// copies the folder would have both.
    pub(super) fn key_file_outside(&self, folder: &Path) -> Result<Opener, KeystoreError> {
        let path = self.key_file()?;
        make_key(path)?;
        let inside = path.canonicalize().is_ok_and(|path| path.starts_with(folder));
        if inside {
            return Err(KeystoreError::KeyFileInside { path: path.to_owned() });
        }
        Ok(Opener::KeyFile(read_key(path)?))
    }

    /// A new passphrase: from the settings, or typed twice.
    pub(super) fn new_passphrase(&self) -> Result<Opener, KeystoreError> {
        if let Some(text) = self.given_passphrase()? {
            return Ok(Opener::Passphrase(text));
        }
        if !self.ask {
            return Err(KeystoreError::NeedsPassphrase);
        }
        let first = ask("New passphrase: ")?;
        let second = ask("The same again: ")?;
        if first.as_str() == second.as_str() {
            Ok(Opener::Passphrase(first))
        } else {
            Err(KeystoreError::PassphrasesDiffer)
        }
    }

    fn key_file(&self) -> Result<&Path, KeystoreError> {
        self.key_file.as_deref().ok_or(KeystoreError::NoKeyFile)
    }

    fn given_passphrase(&self) -> Result<Option<Zeroizing<String>>, KeystoreError> {
        if let Some(text) = &self.passphrase {
            return checked(text.clone()).map(Some);
        }
        let Some(path) = &self.passphrase_file else { return Ok(None) };
        let failed = |source| KeystoreError::Secret { path: path.clone(), source };
        let file = File::open(path).map_err(failed)?;
        require_private(path).map_err(KeystoreError::Folder)?;
        first_line(file).map_err(failed).and_then(checked).map(Some)
    }
}

fn checked(text: Zeroizing<String>) -> Result<Zeroizing<String>, KeystoreError> {
    if text.is_empty() { Err(KeystoreError::EmptyPassphrase) } else { Ok(text) }
}

/// The first line, without its end; with its full capacity from the start, so that no half of it
/// stays behind in memory.
fn first_line(from: impl io::Read) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES));
    let limit = u64::try_from(SECRET_BYTES).unwrap_or(u64::MAX);
    BufReader::new(from.take(limit)).read_line(&mut text)?;
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    Ok(text)
}

/// Asks at the terminal, without showing what is typed.
fn ask(question: &str) -> Result<Zeroizing<String>, KeystoreError> {
    let path = Path::new("/dev/tty");
    let failed = |source| KeystoreError::Secret { path: path.to_owned(), source };
    let mut terminal = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    terminal.write_all(question.as_bytes()).map_err(failed)?;
    let before = tcgetattr(&terminal).map_err(|error| failed(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    // The line's end is shown, so that what follows begins on a new line.
    silent.local_modes.insert(LocalModes::ECHONL);
    let set = |modes| tcsetattr(&terminal, OptionalActions::Flush, modes);
    set(&silent).map_err(|error| failed(error.into()))?;
    let line = first_line(&terminal);
    // Back first, whatever was read.
    set(&before).map_err(|error| failed(error.into()))?;
    line.map_err(failed).and_then(checked)
}

fn read_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
    let failed = |source| KeystoreError::Secret { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    require_private(path).map_err(KeystoreError::Folder)?;
    let line = first_line(file).map_err(failed)?;
    let malformed = || KeystoreError::NotAKeyFile { path: path.to_owned() };
    let digits = line.strip_prefix(KEY_FILE_HEADER).and_then(|rest| rest.strip_prefix(' '));
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits.ok_or_else(malformed)?, key.as_mut_slice())
        .map_err(|_| malformed())?;
    Ok(key)
}

/// Makes a key file unless there is one. Several nodes of one user may do so at the same time: the
/// file gets its name when it is whole, and only the first one does.
fn make_key(path: &Path) -> Result<(), KeystoreError> {
    let failed = |source| KeystoreError::Secret { path: path.to_owned(), source };
    if path.try_exists().map_err(failed)? {
        return Ok(());
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut_slice()).map_err(|_| KeystoreError::Randomness)?;
    let digits = Zeroizing::new(hex::encode(key.as_slice()));
    let text = Zeroizing::new(format!("{KEY_FILE_HEADER} {}\n", digits.as_str()));
    let own = path.with_extension(format!("{}.new", std::process::id()));
    // What an earlier process of this number left behind is of no use to anybody.
    match fs::remove_file(&own) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(FILE_MODE).open(&own);
    file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(failed)?;
    let linked = fs::hard_link(&own, path);
    fs::remove_file(&own).map_err(failed)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        Ok(()) | Err(_) => sync_folder_of(path).map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_file_is_made_once_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config/cocoon/keystore.key");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| make_key(&path));
            }
        });
        let first = read_key(&path).unwrap();
        make_key(&path).unwrap();
        assert_eq!(read_key(&path).unwrap(), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_key(&path), Err(KeystoreError::Folder(_))));
    }

    #[test]
    fn other_files_are_no_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let cases = ["", "cocoon-keystore-key-v1", "cocoon-keystore-key-v2 00", "\u{0}"];
        for text in cases {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(read_key(&path), Err(KeystoreError::NotAKeyFile { .. })), "{text}");
        }
    }

    #[test]
    fn a_passphrase_is_the_first_line_of_its_file() {
        assert_eq!(first_line(&b"open sesame\r\nnot this\n"[..]).unwrap().as_str(), "open sesame");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        fs::write(&path, "\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let unlock = Unlock { passphrase_file: Some(path), ..Unlock::default() };
        assert!(matches!(unlock.given_passphrase(), Err(KeystoreError::EmptyPassphrase)));
    }
}
