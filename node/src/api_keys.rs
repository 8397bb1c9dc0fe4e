//! The file of API keys: who may use the endpoint, and for how much.
//!
//! Owns: the file's form. Must not: hold a key itself; only its hash is in the file.
//!
//! ```toml
//! [[key]]
//! name = "ci"
//! hash = "0123…"           # from `cocoon-node key new`
//! daily_cap = "0.1 TON"    # optional
//! max_cost = "0.01 TON"    # optional, for one request
//! ```

use std::path::{Path, PathBuf};

use cocoon_gateway::ApiKey;
use cocoon_protocol::record::Account;
use cocoon_protocol::units::NanoTon;
use serde::Deserialize;

use crate::budget::{Caps, KeyCap};

/// Largest file: thousands of keys.
const FILE_BYTES: u64 = 1 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeysError {
    /// It cannot be read.
    #[error("the file of API keys `{}` cannot be read", path.display())]
    Unreadable {
        /// The file in the settings.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not of the right form.
    #[error("the file of API keys `{}` is not valid: {reason}", path.display())]
    Form {
        /// The file in the settings.
        path: PathBuf,
        /// What is wrong, without any of the file's text.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    hash: String,
    daily_cap: Option<String>,
    max_cost: Option<String>,
}

/// The account to which a key's jobs are charged.
pub(crate) fn account(hash: &[u8; 32]) -> Account {
    let (first, _) = hash.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    Account::from_bytes(*first)
}

/// Reads the file into `caps`, and gives back the keys that it lets in.
pub(crate) fn read(path: &Path, caps: &mut Caps) -> Result<Vec<ApiKey>, ApiKeysError> {
    use std::io::Read as _;
    let unreadable = |source| ApiKeysError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    parse(&text, caps).map_err(|reason| ApiKeysError::Form { path: path.to_owned(), reason })
}

fn parse(text: &str, caps: &mut Caps) -> Result<Vec<ApiKey>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let mut keys = Vec::new();
    for Entry { name, hash, daily_cap, max_cost } in file.key {
        let amount = |field: &str, text: Option<String>| {
            let read = |text: String| text.parse::<NanoTon>();
            let read = text.map(read).transpose();
            read.map_err(|error| format!("`{field}` of the key `{name}`: {error}"))
        };
        let (daily, request) = (amount("daily_cap", daily_cap)?, amount("max_cost", max_cost)?);
        let mut digest = [0; 32];
        hex::decode_to_slice(hash.trim(), &mut digest).map_err(|_| {
            format!("`hash` of the key `{name}` is not 64 hexadecimal digits; see `key new`")
        })?;
        let cap = KeyCap { name: name.clone(), daily, request };
        if caps.keys.insert(account(&digest), cap).is_some() {
            return Err(format!("the key `{name}` is in it twice"));
        }
        keys.push(ApiKey::from_hash(digest));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_their_caps_are_read_and_faults_are_named() {
        let hash = hex::encode(ApiKey::from_secret("sk-1").as_hash());
        let text = format!("[[key]]\nname = \"ci\"\nhash = \"{hash}\"\ndaily_cap = \"0.1 TON\"\n");
        let mut caps = Caps::default();
        assert_eq!(parse(&text, &mut caps), Ok(vec![ApiKey::from_secret("sk-1")]));
        let cap = &caps.keys[&account(ApiKey::from_secret("sk-1").as_hash())];
        assert_eq!((cap.name.as_str(), cap.daily), ("ci", Some(NanoTon::from_nano(100_000_000))));
        for (text, reason) in [
            (text.clone() + &text, "twice"),
            (text.replace("0.1 TON", "0.1"), "`daily_cap` of the key `ci`"),
            (text.replace(&hash, "ab"), "64 hexadecimal digits"),
            (text.replace("daily_cap", "dayly_cap"), "unknown field"),
        ] {
            let error = parse(&text, &mut Caps::default()).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
