//! The node's secret key in clear, as versions before the keystore kept it.
//!
//! Owns: reading that file. Must not: write one, or let the secret into an error, a log
//! or memory that is not wiped.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::data_folder::{FolderError, require_private};

/// First word of the file; names the format and its version.
const HEADER: &str = "cocoon-node-key-v1";
/// Length of a key file: the header, a space, 64 hexadecimal digits and a line feed.
const FILE_BYTES: usize = HEADER.len() + 1 + 64 + 1;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be written, or is open to others.
    #[error("the node's key file cannot be used")]
    Folder(#[source] FolderError),
    /// The file cannot be read.
    #[error("cannot read the node's key file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a key file, or a damaged one.
    #[error("{} is not a key file of this version", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl KeyFileError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Folder(error) => error.hint(),
            Self::Malformed { path } => Some(format!(
                "restore {} from a backup; moving it away gives the node a new identity, and \
                 whoever knows the old one no longer finds it",
                path.display()
            )),
            Self::Unreadable { .. } => None,
        }
    }
}

/// Reads the key.
pub fn load(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let unreadable = |source| KeyFileError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    require_private(path).map_err(KeyFileError::Folder)?;
    let malformed = || KeyFileError::Malformed { path: path.to_owned() };
    // One byte more than a key file has, so that a longer one is seen to be longer.
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES.saturating_add(1)));
    let limit = u64::try_from(FILE_BYTES.saturating_add(1)).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut text).map_err(unreadable)?;
    let digits = text
        .strip_prefix(HEADER.as_bytes())
        .and_then(|rest| rest.strip_prefix(b" "))
        .and_then(|rest| rest.strip_suffix(b"\n"))
        .ok_or_else(malformed)?;
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, secret.as_mut_slice()).map_err(|_| malformed())?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_folder::write_private;
    use proptest::prelude::*;

    fn load_bytes(bytes: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("node.key");
        write_private(&path, bytes).unwrap();
        load(&path)
    }

    #[test]
    fn the_format_is_fixed() {
        let text = format!("cocoon-node-key-v1 {}\n", "07".repeat(32));
        assert_eq!(load_bytes(text.as_bytes()).unwrap().as_slice(), [7; 32]);
        for damaged in [
            &text[1..],
            &text[..text.len() - 1],
            &text.replace('7', "g"),
            &format!("{text}\n"),
            &text.replace("v1", "v2"),
            "",
        ] {
            assert!(matches!(load_bytes(damaged.as_bytes()), Err(KeyFileError::Malformed { .. })));
        }
    }

    #[test]
    fn an_exposed_key_is_refused_with_the_fix() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("node.key");
        write_private(&path, b"").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = load(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Folder(FolderError::Exposed { mode: 0o640, .. })));
        assert!(error.hint().unwrap().contains("chmod go= "));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_reader(bytes: Vec<u8>) {
            prop_assert!(load_bytes(&bytes).is_err());
        }
    }
}
