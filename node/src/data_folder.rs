//! The folder in which a node keeps everything: who may read it, what is where, who holds it.
//!
//! Owns: the layout, the permissions, the instance lock, and writing private files so that a crash
//! at any point leaves the old one or the new one.
//! Must not: know what is in the files.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Permissions of the folder: its owner alone.
const FOLDER_MODE: u32 = 0o700;
/// Permissions of every private file: its owner alone.
pub const FILE_MODE: u32 = 0o600;
/// Permission bits of everybody who is not the owner.
const OTHERS: u32 = 0o077;

/// Why a data folder or a file in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system refused an operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody else can read or write what must be private.
    #[error("{} is open to other users (mode {mode:03o})", path.display())]
    Exposed {
        /// The folder or file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The path names something that is not a folder.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
}

impl FolderError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exposed { path, .. } => Some(format!(
                "run `chmod go= {}`; if someone may have read it, make a new one",
                path.display()
            )),
            Self::NotAFolder { .. } => Some("choose another one with `--data-dir`".to_owned()),
            Self::Io { .. } => None,
        }
    }
}

/// Why the folder could not be locked for this process alone.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("the data folder {} is in use by {}", path.display(), holder(*.process))]
    Held {
        /// The folder.
        path: PathBuf,
        /// The holder's process id, when it could be read.
        process: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("the data folder cannot be locked")]
    Folder(#[source] FolderError),
}

fn holder(process: Option<u32>) -> String {
    process.map_or_else(|| "another node".to_owned(), |id| format!("process {id}"))
}

/// A data folder that exists and is private.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder {
    path: PathBuf,
}

impl DataFolder {
    /// Opens the folder, and makes it when it is not there.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let fail = |action, source| FolderError::Io { action, path: path.to_owned(), source };
        let create = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
        match create {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(FolderError::NotAFolder { path: path.to_owned() });
            }
            other => other.map_err(|error| fail("make the folder", error))?,
        }
        let path = path.canonicalize().map_err(|error| fail("find the folder", error))?;
        require_private(&path)?;
        Ok(Self { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node's secrets, sealed.
    pub fn keystore(&self) -> PathBuf {
        self.path.join("keystore.json")
    }

    /// The node's secret key in clear, as versions before the keystore wrote it.
    pub fn node_key(&self) -> PathBuf {
        self.path.join("node.key")
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    /// The embedded ledger's chain.
    pub fn ledger(&self) -> PathBuf {
        self.path.join("ledger.redb")
    }

    /// The file that tells other programs how to reach this node's liteserver.
    pub fn liteserver_config(&self) -> PathBuf {
        self.path.join("liteserver.json")
    }

    /// What consumers need to verify this machine's evidence, as last fetched: a folder.
    pub fn endorsements(&self) -> PathBuf {
        self.path.join("endorsements")
    }

    /// The catalogue of models.
    pub fn models(&self) -> PathBuf {
        self.path.join("models.toml")
    }

    /// The socket on which a running node takes orders.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Takes the catalogue for this process, waiting for whoever has it. Apart from the instance
    /// lock, because models are added while a node runs.
    pub fn lock_catalogue(&self) -> Result<CatalogueLock, FolderError> {
        let path = self.path.join("models.lock");
        let fail = |source| FolderError::Io { action: "lock", path: path.clone(), source };
        let file = open_lock(&path).map_err(fail)?;
        file.lock().map_err(fail)?;
        Ok(CatalogueLock { _file: file })
    }

    /// Takes the folder for this process, until the lock is dropped. The system lets go of it
    /// when a process dies, however it dies.
    pub fn lock(&self) -> Result<InstanceLock, LockError> {
        let path = self.path.join("lock");
        let fail = |action| {
            let path = path.clone();
            move |source| LockError::Folder(FolderError::Io { action, path, source })
        };
        let mut file = open_lock(&path).map_err(fail("open the lock file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let process = read_process_id(&mut file);
                return Err(LockError::Held { path: self.path.clone(), process });
            }
            Err(TryLockError::Error(source)) => return Err(fail("lock")(source)),
        }
        // The process id is for the message above only; the lock itself is the system's.
        file.set_len(0).map_err(fail("write"))?;
        writeln!(file, "{}", std::process::id()).map_err(fail("write"))?;
        Ok(InstanceLock { _file: file })
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

fn read_process_id(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The right to change the catalogue of models, for as long as it lives.
#[derive(Debug)]
pub struct CatalogueLock {
    _file: File,
}

/// The right to use a data folder, for as long as it lives.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

/// Refuses a file or folder that others can read or write.
pub fn require_private(path: &Path) -> Result<(), FolderError> {
    let metadata = fs::metadata(path).map_err(|source| FolderError::Io {
        action: "look at",
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS == 0 {
        Ok(())
    } else {
        Err(FolderError::Exposed { path: path.to_owned(), mode })
    }
}

/// Writes a private file so that after a crash it is the old one or the new one, whole.
/// The caller holds a lock under which nobody else writes the same path.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let fail = |action| move |source| FolderError::Io { action, path: path.to_owned(), source };
    let temporary = path.with_extension("new");
    // What a crash left behind is removed rather than reused, so that the mode is ours.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(fail("remove the leftover of")(error));
        }
        Ok(()) | Err(_) => {}
    }
    crash::point().map_err(fail("create"))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&temporary)
        .map_err(fail("create"))?;
    let (first, second) = bytes.split_at(bytes.len() / 2);
    file.write_all(first).map_err(fail("write"))?;
    crash::point().map_err(fail("write"))?;
    file.write_all(second).map_err(fail("write"))?;
    file.sync_all().map_err(fail("write"))?;
    crash::point().map_err(fail("replace"))?;
    fs::rename(&temporary, path).map_err(fail("replace"))?;
    crash::point().map_err(fail("make durable"))?;
    sync_folder_of(path).map_err(fail("make durable"))
}

/// Removes a private file for good; none is fine. Its bytes are overwritten first, which helps on a
/// plain disk and does nothing on one that writes elsewhere (SSDs, copy-on-write file systems).
/// A crash leaves it under its own name and whole, or under another name that the next call removes.
pub fn remove_private(path: &Path) -> Result<(), FolderError> {
    let fail = |action| move |source| FolderError::Io { action, path: path.to_owned(), source };
    let doomed = path.with_extension("doomed");
    crash::point().map_err(fail("remove"))?;
    match fs::rename(path, &doomed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail("remove")(error)),
        Ok(()) | Err(_) => {}
    }
    sync_folder_of(path).map_err(fail("remove"))?;
    crash::point().map_err(fail("remove"))?;
    let mut file = match OpenOptions::new().write(true).open(&doomed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(fail("overwrite"))?,
    };
    let length = file.metadata().map_err(fail("overwrite"))?.len();
    io::copy(&mut io::repeat(0).take(length), &mut file).map_err(fail("overwrite"))?;
    file.sync_all().map_err(fail("overwrite"))?;
    crash::point().map_err(fail("remove"))?;
    fs::remove_file(&doomed).map_err(fail("remove"))?;
    sync_folder_of(path).map_err(fail("make durable"))
}

/// A new name, or the loss of one, is durable only once the folder is.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new("."))).and_then(|folder| folder.sync_all())
}

/// Where a process may die while it changes private files; tests let it die at each place.
pub(crate) mod crash {
    use std::io;

    #[cfg(test)]
    thread_local! {
        static LEFT: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
    }

    /// From here on this thread dies at the `steps`th place and at every later one.
    #[cfg(test)]
    pub(crate) fn after(steps: Option<u32>) {
        LEFT.with(|left| left.set(steps));
    }

    #[cfg(test)]
    pub(crate) fn point() -> io::Result<()> {
        LEFT.with(|left| match left.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the process is dead")),
            Some(more) => {
                left.set(Some(more.saturating_sub(1)));
                Ok(())
            }
        })
    }

    #[cfg(not(test))]
    #[expect(clippy::unnecessary_wraps, reason = "tests let it fail")]
    pub(crate) const fn point() -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_folder_and_its_files_are_their_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(&parent.path().join("a/b")).unwrap();
        assert_eq!(mode(folder.path()), FOLDER_MODE);
        write_private(&folder.node_key(), b"secret").unwrap();
        assert_eq!(mode(&folder.node_key()), FILE_MODE);
        let _lock = folder.lock().unwrap();
        assert_eq!(mode(&folder.path().join("lock")), FILE_MODE);
    }

    #[test]
    fn an_exposed_folder_is_refused_with_the_command_that_closes_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("open");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let error = DataFolder::open(&path).unwrap_err();
        assert!(matches!(error, FolderError::Exposed { mode: 0o755, .. }), "{error:?}");
        assert!(error.hint().unwrap().starts_with("run `chmod go= "));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        DataFolder::open(&path).unwrap();
    }

    #[test]
    fn a_file_in_the_folders_place_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(matches!(DataFolder::open(&path), Err(FolderError::NotAFolder { .. })));
    }

    #[test]
    fn a_file_is_replaced_whole_and_a_leftover_does_not_matter() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file.json");
        fs::write(path.with_extension("new"), "half of a cra").unwrap();
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(!path.with_extension("new").exists());
    }
}
