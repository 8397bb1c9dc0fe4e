//! The attestation policy's file, read whole or not at all.
//!
//! Owns: the bound on its size, and which file an error is about.
//! Must not: know the rules; `cocoon_attest::parse_policy` does.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cocoon_attest::{PolicyFileError, parse_policy};
use cocoon_protocol::attest::Policy;

/// Largest policy file; a policy lists images by name and measurement, some kilobytes.
const POLICY_BYTES: u64 = 1 << 20;

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum ReadPolicyError {
    /// The file cannot be read.
    #[error("the attestation policy `{}` cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No policy is that long. The beginning of one is not the policy that its owner wrote.
    #[error("the attestation policy `{}` is longer than {POLICY_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The policy is not one.
    #[error("the attestation policy `{}` is not valid", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: PolicyFileError,
    },
}

/// Reads the policy at `path`.
///
/// # Errors
/// As [`ReadPolicyError`] has them; nothing of a file with a mistake is applied.
pub fn read_policy(path: &Path) -> Result<Policy, ReadPolicyError> {
    let unreadable = |source| ReadPolicyError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(POLICY_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(text.len()).map_or(true, |length| length > POLICY_BYTES) {
        return Err(ReadPolicyError::TooLarge { path: path.to_owned() });
    }
    parse_policy(&text).map_err(|source| ReadPolicyError::Invalid { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_is_too_long_is_refused_and_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.toml");
        let policy = "version = 1\ntrust = \"production\"\n#";
        let length = usize::try_from(POLICY_BYTES).unwrap();
        let of_length = |length: usize| format!("{policy}{}", "-".repeat(length - policy.len()));
        std::fs::write(&path, of_length(length)).unwrap();
        assert!(read_policy(&path).is_ok());
        std::fs::write(&path, of_length(length + 1)).unwrap();
        assert!(matches!(read_policy(&path), Err(ReadPolicyError::TooLarge { .. })));
    }
}
