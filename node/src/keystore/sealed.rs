//! The keystore's file: what is in clear, what is sealed, and under which key.
//!
//! Owns: the format, the cipher (XChaCha20-Poly1305) and the cost of a passphrase (Argon2id).
//! Must not: know what is sealed, or where a passphrase comes from.
//!
//! ```json
//! { "format": "cocoon-keystore-v1",
//!   "protection": { "kind": "passphrase", "salt": "…", "memory_kib": 65536, "passes": 3, "lanes": 4 },
//!   "nonce": "…", "sealed": "…" }
//! ```
//!
//! The protection is authenticated with the content, so that nobody can lower its cost unseen.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Names the format and its version.
const FORMAT: &str = "cocoon-keystore-v1";
/// Context string of the sealing key when it comes from a key file (BLAKE3's key derivation).
const KEY_FILE_CONTEXT: &str = "cocoon 2026 keystore sealing key from a key file v1";
/// RFC 9106, section 4, second recommendation: 64 MiB, 3 passes, 4 lanes. About 0.2 s.
const MEMORY_KIB: u32 = 64 * 1_024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// Costlier than this was not written by us, and would only keep the machine busy.
const MAX_MEMORY_KIB: u32 = 1_024 * 1_024;
const MAX_PASSES: u32 = 64;
const MAX_LANES: u32 = 64;

/// Random bytes of a salt.
type Salt = [u8; 16];

/// How the content is protected: public, and authenticated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Protection {
    /// Not at all: the user said so.
    None,
    /// By a passphrase, through Argon2id.
    Passphrase { salt: String, memory_kib: u32, passes: u32, lanes: u32 },
    /// By 32 random bytes in another file.
    KeyFile { salt: String },
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    protection: Protection,
    nonce: String,
    sealed: String,
}

/// What a keystore opens with.
pub(super) enum Opener {
    /// Nothing.
    Nothing,
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// The bytes of a key file.
    KeyFile(Zeroizing<[u8; 32]>),
}

/// A protection and the key that follows from it, to seal with again and again.
#[derive(Clone)]
pub(super) struct Sealing {
    pub(super) protection: Protection,
    /// `None` without protection.
    key: Option<Zeroizing<[u8; 32]>>,
}

/// Why a keystore's file cannot be opened or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    /// Not a keystore of this version.
    #[error("the file is no keystore of this version, or a damaged one")]
    Malformed,
    /// The key does not open it.
    #[error("the key does not open the keystore")]
    WrongKey,
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Randomness,
}

fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| SealError::Randomness)?;
    Ok(bytes)
}

fn array<const N: usize>(digits: &str) -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| SealError::Malformed)?;
    Ok(bytes)
}

impl Sealing {
    /// A new protection with a salt of its own.
    pub(super) fn new(opener: &Opener) -> Result<Self, SealError> {
        let salt = || Ok(hex::encode(random::<16>()?));
        let protection = match opener {
            Opener::Nothing => Protection::None,
            Opener::Passphrase(_) => Protection::Passphrase {
                salt: salt()?,
                memory_kib: MEMORY_KIB,
                passes: PASSES,
                lanes: LANES,
            },
            Opener::KeyFile(_) => Protection::KeyFile { salt: salt()? },
        };
        Self::from(protection, opener)
    }

    fn from(protection: Protection, opener: &Opener) -> Result<Self, SealError> {
        let key = match (&protection, opener) {
            (Protection::None, _) => None,
            (
                Protection::Passphrase { salt, memory_kib, passes, lanes },
                Opener::Passphrase(text),
            ) => Some(stretch(text, array(salt)?, *memory_kib, *passes, *lanes)?),
            (Protection::KeyFile { salt }, Opener::KeyFile(key)) => {
                let salt: Salt = array(salt)?;
                let mut hasher = blake3::Hasher::new_derive_key(KEY_FILE_CONTEXT);
                hasher.update(key.as_slice()).update(&salt);
                Some(Zeroizing::new(*hasher.finalize().as_bytes()))
            }
            (Protection::Passphrase { .. } | Protection::KeyFile { .. }, _) => {
                return Err(SealError::WrongKey);
            }
        };
        Ok(Self { protection, key })
    }

    /// The file with this content, under a nonce that was never used.
    pub(super) fn seal(&self, content: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let nonce: [u8; 24] = random()?;
        let sealed = match &self.key {
            None => hex::encode(content),
            Some(key) => {
                let payload = Payload { msg: content, aad: &associated(&self.protection)? };
                let cipher = XChaCha20Poly1305::new(Key::from_slice(key.as_slice()));
                let sealed = cipher.encrypt(XNonce::from_slice(&nonce), payload);
                hex::encode(sealed.map_err(|_| SealError::Malformed)?)
            }
        };
        let file = File {
            format: FORMAT.to_owned(),
            protection: self.protection.clone(),
            nonce: hex::encode(nonce),
            sealed,
        };
        let text = serde_json::to_vec_pretty(&file).map_err(|_| SealError::Malformed)?;
        Ok(Zeroizing::new(text))
    }
}

/// What is authenticated besides the content.
fn associated(protection: &Protection) -> Result<Vec<u8>, SealError> {
    let mut bytes = FORMAT.as_bytes().to_vec();
    serde_json::to_writer(&mut bytes, protection).map_err(|_| SealError::Malformed)?;
    Ok(bytes)
}

fn stretch(
    passphrase: &str,
    salt: Salt,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
) -> Result<Zeroizing<[u8; 32]>, SealError> {
    if memory_kib > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES {
        return Err(SealError::Malformed);
    }
    let cost = Params::new(memory_kib, passes, lanes, Some(32));
    let cost = cost.map_err(|_| SealError::Malformed)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, cost)
        .hash_password_into(passphrase.as_bytes(), &salt, key.as_mut_slice())
        .map_err(|_| SealError::Malformed)?;
    Ok(key)
}

/// Reads how a keystore is protected.
pub(super) fn protection(bytes: &[u8]) -> Result<Protection, SealError> {
    Ok(read(bytes)?.protection)
}

fn read(bytes: &[u8]) -> Result<File, SealError> {
    let file: File = serde_json::from_slice(bytes).map_err(|_| SealError::Malformed)?;
    if file.format == FORMAT { Ok(file) } else { Err(SealError::Malformed) }
}

/// The content, and what to seal it with again.
pub(super) fn open(
    bytes: &[u8],
    opener: &Opener,
) -> Result<(Sealing, Zeroizing<Vec<u8>>), SealError> {
    let file = read(bytes)?;
    let sealing = Sealing::from(file.protection, opener)?;
    let sealed = Zeroizing::new(hex::decode(&file.sealed).map_err(|_| SealError::Malformed)?);
    let Some(key) = &sealing.key else { return Ok((sealing, sealed)) };
    let nonce: [u8; 24] = array(&file.nonce)?;
    let payload = Payload { msg: &sealed, aad: &associated(&sealing.protection)? };
    let cipher = XChaCha20Poly1305::new(Key::from_slice(key.as_slice()));
    let content = cipher.decrypt(XNonce::from_slice(&nonce), payload);
    let content = Zeroizing::new(content.map_err(|_| SealError::WrongKey)?);
    Ok((sealing, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key_file(byte: u8) -> Opener {
        Opener::KeyFile(Zeroizing::new([byte; 32]))
    }

    fn passphrase(text: &str) -> Opener {
        Opener::Passphrase(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn only_the_same_passphrase_opens() {
        let file = Sealing::new(&passphrase("correct horse")).unwrap().seal(b"secret").unwrap();
        assert!(!String::from_utf8(file.to_vec()).unwrap().contains(&hex::encode("secret")));
        let (again, content) = open(&file, &passphrase("correct horse")).unwrap();
        assert_eq!(content.as_slice(), b"secret");
        assert_eq!(open(&file, &passphrase("correct house")).err(), Some(SealError::WrongKey));
        assert_eq!(open(&file, &key_file(1)).err(), Some(SealError::WrongKey));
        // The same key, another nonce: no two files are alike.
        assert_ne!(again.seal(b"secret").unwrap(), file);
    }

    /// Argon2id as RFC 9106 computes it: `argon2-cffi` 25.1 (the reference C code) made this one with
    /// `hash_secret_raw(b"correct horse", bytes(range(16)), 3, 65536, 4, 32, Type.ID)`.
    #[test]
    fn a_passphrase_is_stretched_as_the_reference_does() {
        let salt = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let key = stretch("correct horse", salt, MEMORY_KIB, PASSES, LANES).unwrap();
        assert_eq!(
            hex::encode(key.as_slice()),
            "577f1ff37e9a3e52c97d39f8e83891c1b73b0e87ffe0429cee8ede2fb005fe44"
        );
    }

    #[test]
    fn nothing_of_the_file_can_be_changed_unseen() {
        let file = Sealing::new(&key_file(7)).unwrap().seal(b"secret").unwrap();
        let text = String::from_utf8(file.to_vec()).unwrap();
        assert!(open(&file, &key_file(7)).is_ok());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for field in ["nonce", "sealed"] {
            let digits = value[field].as_str().unwrap();
            let flipped = if digits.starts_with('0') { "1" } else { "0" };
            let changed = text.replace(digits, &format!("{flipped}{}", &digits[1..]));
            assert_eq!(open(changed.as_bytes(), &key_file(7)).err(), Some(SealError::WrongKey));
        }
        let open_instead = text.replace("key_file", "none");
        // Said to be in clear, the sealed bytes are what they are.
        let (_, content) = open(open_instead.as_bytes(), &key_file(7)).unwrap();
        assert_eq!(hex::encode(content.as_slice()), value["sealed"].as_str().unwrap());
        let costly = r#"{"format":"cocoon-keystore-v1","protection":{"kind":"passphrase","salt":
            "00000000000000000000000000000000","memory_kib":4294967295,"passes":3,"lanes":4},
            "nonce":"","sealed":""}"#;
        assert_eq!(open(costly.as_bytes(), &passphrase("x")).err(), Some(SealError::Malformed));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_without_panic(bytes: Vec<u8>) {
            prop_assert!(open(&bytes, &key_file(0)).is_err());
        }
    }
}
