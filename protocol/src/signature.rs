//! Ed25519 in one place: every key, signature and check of the protocol.
//!
//! Owns: how a secret becomes a public key, how bytes are signed, and the strict check.
//! Must not: know what is signed, or put anything in front of it; `identity` and `channel` do.
//!
//! With the feature `insecure-simulated-signatures` a simulator can replace the curve on its own
//! thread by hashes of the same sizes (`simulate`), so that a million nodes in one process
//! spend their time on the protocol. Whoever knows a public key can forge such a signature. No
//! program that talks to real peers may be built with that feature.

use std::sync::Arc;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

/// A secret key. Clones share it; it is wiped when the last one goes.
#[derive(Clone)]
pub(crate) enum SecretKey {
    /// RFC 8032.
    Ed25519(Arc<SigningKey>),
    /// A hash in its place.
    #[cfg(feature = "insecure-simulated-signatures")]
    Simulated(Arc<simulated::Key>),
}

impl SecretKey {
    /// From the 32 secret bytes.
    pub(crate) fn from_secret(secret: &[u8; 32]) -> Self {
        #[cfg(feature = "insecure-simulated-signatures")]
        if let Some(key) = simulated::Key::from_secret(secret) {
            return Self::Simulated(Arc::new(key));
        }
        Self::Ed25519(Arc::new(SigningKey::from_bytes(secret)))
    }

    /// The public key.
    pub(crate) fn public(&self) -> [u8; 32] {
        match self {
            Self::Ed25519(key) => key.verifying_key().to_bytes(),
            #[cfg(feature = "insecure-simulated-signatures")]
            Self::Simulated(key) => key.public(),
        }
    }

    /// The secret bytes.
    pub(crate) fn secret(&self) -> Zeroizing<[u8; 32]> {
        match self {
            Self::Ed25519(key) => Zeroizing::new(key.to_bytes()),
            #[cfg(feature = "insecure-simulated-signatures")]
            Self::Simulated(key) => Zeroizing::new(key.secret()),
        }
    }

    /// Signs exactly these bytes. The same bytes always get the same signature.
    pub(crate) fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        match self {
            Self::Ed25519(key) => key.sign(bytes).to_bytes(),
            #[cfg(feature = "insecure-simulated-signatures")]
            Self::Simulated(key) => simulated::sign(&key.public(), bytes),
        }
    }
}

/// Whether `signature` over `bytes` is by the holder of `public`. Strict: keys and points of small
/// order are refused.
pub(crate) fn verify(public: &[u8; 32], bytes: &[u8], signature: &[u8; 64]) -> bool {
    #[cfg(feature = "insecure-simulated-signatures")]
    if simulated::is_on() {
        return simulated::sign(public, bytes) == *signature;
    }
    let Ok(key) = VerifyingKey::from_bytes(public) else {
        return false;
    };
    key.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok()
}

/// The simulator's replacement of the curve.
#[cfg(feature = "insecure-simulated-signatures")]
pub mod simulated {
    use std::cell::Cell;

    /// Where simulated public keys come from.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum PublicKeys {
        /// From the curve, as real ones: for a simulation whose transport needs real identities.
        Ed25519,
        /// A hash of the secret: some hundred times cheaper, and no point of the curve.
        Hashed,
    }

    thread_local! {
        static MODE: Cell<Option<PublicKeys>> = const { Cell::new(None) };
    }

    /// Replaces, or with `None` restores, signatures on this thread. Keys made before keep the
    /// kind that they were made as, and their signatures do not hold in the other kind.
    pub fn simulate(mode: Option<PublicKeys>) {
        MODE.set(mode);
    }

    pub(super) fn is_on() -> bool {
        MODE.get().is_some()
    }

    /// A simulated key pair.
    pub(crate) struct Key {
        secret: [u8; 32],
        public: [u8; 32],
    }

    impl Key {
        pub(super) fn from_secret(secret: &[u8; 32]) -> Option<Self> {
            let public = match MODE.get()? {
                PublicKeys::Ed25519 => {
                    ed25519_dalek::SigningKey::from_bytes(secret).verifying_key().to_bytes()
                }
                PublicKeys::Hashed => blake3::derive_key("cocoon simulated public key v1", secret),
            };
            Some(Self { secret: *secret, public })
        }

        pub(super) const fn public(&self) -> [u8; 32] {
            self.public
        }

        pub(super) const fn secret(&self) -> [u8; 32] {
            self.secret
        }
    }

    /// A hash of the bytes under the public key, twice: it binds key and message, as every check
    /// of the protocol needs, and nothing else.
    pub(super) fn sign(public: &[u8; 32], bytes: &[u8]) -> [u8; 64] {
        let hash = blake3::keyed_hash(public, bytes);
        let mut signature = [0; 64];
        for (to, from) in signature.iter_mut().zip(hash.as_bytes().iter().cycle()) {
            *to = *from;
        }
        signature
    }

    #[cfg(test)]
    mod tests {
        use super::super::{SecretKey, verify};
        use super::{PublicKeys, simulate};

        #[test]
        fn a_simulated_signature_binds_key_and_message_and_holds_in_the_simulation_alone() {
            for mode in [PublicKeys::Hashed, PublicKeys::Ed25519] {
                simulate(None);
                let real = SecretKey::from_secret(&[7; 32]);
                simulate(Some(mode));
                let key = SecretKey::from_secret(&[7; 32]);
                let other = SecretKey::from_secret(&[8; 32]).public();
                let signature = key.sign(b"message");
                assert!(verify(&key.public(), b"message", &signature));
                assert!(!verify(&key.public(), b"messagE", &signature));
                assert!(!verify(&other, b"message", &signature));
                let mut flipped = signature;
                flipped[63] ^= 1;
                assert!(!verify(&key.public(), b"message", &flipped));
                assert_eq!(*key.secret(), [7; 32]);
                assert_eq!(key.public() == real.public(), mode == PublicKeys::Ed25519);
                simulate(None);
                assert!(!verify(&key.public(), b"message", &signature));
                assert!(verify(&real.public(), b"message", &real.sign(b"message")));
            }
        }
    }
}
