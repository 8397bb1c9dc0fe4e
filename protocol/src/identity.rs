//! Who is who: node identities, model hashes, vault addresses, and the one list of signature domains.
//!
//! Owns: every identifier that is compared or signed, and the bytes that a signature covers.
//! Must not: read key files or make randomness; keys come in as values.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::signature::{self, SecretKey};

/// What a signature is for. Its bytes are signed in front of the message, so that a signature
/// made for one purpose can never pass for another. This is the only list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A provider's offer.
    Offer,
    /// A provider's receipt for a finished job.
    Receipt,
    /// Proof of a node's identity over the exporter of an attested channel.
    SessionIdentity,
    /// Proof that a consumer holds the vault that it names to a provider.
    VaultHolder,
    /// A maintainer's list of advisories for attestation policies.
    Advisories,
}

impl Domain {
    /// The bytes that stand in front of the message.
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Offer => b"cocoon/offer/v1",
            Self::Receipt => b"cocoon/receipt/v1",
            Self::SessionIdentity => b"cocoon/session-identity/v1",
            Self::VaultHolder => b"cocoon/vault-holder/v1",
            Self::Advisories => b"cocoon/advisories/v1",
        }
    }
}

/// Appends `u32be(len) ‖ bytes`: the only way that variable-length parts enter a hash or signature.
pub fn append_length_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    // No part is ever near 4 GiB (limits.rs); a saturated length still hashes unambiguously.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(crate) fn signed_bytes(domain: Domain, message: &[u8]) -> Vec<u8> {
    let length = message.len().saturating_add(domain.as_bytes().len()).saturating_add(8);
    let mut bytes = Vec::with_capacity(length);
    append_length_prefixed(&mut bytes, domain.as_bytes());
    append_length_prefixed(&mut bytes, message);
    bytes
}

/// The order of the bytes, a word at a time. Names decide it within the first word, and they are
/// compared at every look into a map: the call that the derived order makes is the dearer part.
#[inline]
fn lexicographic(these: &[u8; 32], those: &[u8; 32]) -> Ordering {
    let words = these.as_chunks::<8>().0.iter().zip(those.as_chunks::<8>().0);
    words.fold(Ordering::Equal, |order, (this, that)| {
        order.then_with(|| u64::from_be_bytes(*this).cmp(&u64::from_be_bytes(*that)))
    })
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        impl Ord for $name {
            #[inline]
            fn cmp(&self, other: &Self) -> Ordering {
                lexicographic(&self.0, &other.0)
            }
        }

        impl PartialOrd for $name {
            #[inline]
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// From its 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// From 64 hexadecimal digits; `None` for anything else.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes).ok()?;
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = hex::encode(self.0);
                write!(f, concat!(stringify!($name), "({}…)"), text.get(..12).unwrap_or(&text))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::from_hex(&text)
                    .ok_or_else(|| serde::de::Error::custom("expected 64 hexadecimal digits"))
            }
        }
    };
}

hash_id! {
    /// A node: its Ed25519 public key. libp2p's peer id is another spelling of the same 32 bytes.
    NodeId
}
hash_id! {
    /// A model: the BLAKE3 hash of its weights file.
    ModelHash
}
hash_id! {
    /// A job, chosen at random by its consumer; unique per consumer.
    JobId
}
hash_id! {
    /// A receipt: the SHA-256 hash of its signed bytes.
    ReceiptHash
}

impl NodeId {
    /// Checks `signature` over `message` in `domain`; strict verification (no small-order keys).
    pub fn verify(&self, domain: Domain, message: &[u8], signature: &[u8; 64]) -> bool {
        signature::verify(&self.0, &signed_bytes(domain, message), signature)
    }
}

/// A node's secret key and the identity that follows from it. Clones share it.
#[derive(Clone)]
pub struct NodeKey(SecretKey);

impl NodeKey {
    /// From the 32 secret bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SecretKey::from_secret(secret))
    }

    /// The public identity.
    pub fn id(&self) -> NodeId {
        NodeId(self.0.public())
    }

    /// Signs `message` for `domain`.
    pub fn sign(&self, domain: Domain, message: &[u8]) -> [u8; 64] {
        self.0.sign(&signed_bytes(domain, message))
    }

    /// The secret bytes, for the libp2p transport and the key file.
    pub fn secret(&self) -> zeroize::Zeroizing<[u8; 32]> {
        self.0.secret()
    }

    /// Signs a cell's hash as the vault contract checks it: without a domain, which the contract does
    /// not know. No other message of ours that is signed has 32 bytes.
    pub(crate) fn sign_cell(&self, cell_hash: &[u8; 32]) -> [u8; 64] {
        self.0.sign(cell_hash)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeKey").field(&self.id()).finish_non_exhaustive()
    }
}

/// A contract address on TON: workchain and account hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TonAddress {
    /// 0 for the basechain, −1 for the masterchain.
    pub workchain: i8,
    /// Hash of the contract's initial state.
    pub hash: [u8; 32],
}

impl TonAddress {
    /// From the raw form `0:<64 hexadecimal digits>`; `None` for anything else.
    pub fn from_raw(text: &str) -> Option<Self> {
        let (workchain, hash) = text.split_once(':')?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(hash, &mut bytes).ok()?;
        Some(Self { workchain: workchain.parse().ok()?, hash: bytes })
    }
}

impl fmt::Display for TonAddress {
    /// The raw form, `0:<64 hexadecimal digits>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.workchain, hex::encode(self.hash))
    }
}

impl fmt::Debug for TonAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TonAddress({self})")
    }
}

impl Serialize for TonAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TonAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_raw(&text)
            .ok_or_else(|| serde::de::Error::custom("expected a raw address, `0:<64 hex digits>`"))
    }
}

/// Which TON network money is on. Part of the vault's initial state, so that one key has another
/// vault address, and therefore other vouchers, on every network (TON's own global ids).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A chain run by one's own nodes; play money.
    Devnet,
    /// TON's public test network.
    Testnet,
    /// Real money.
    Mainnet,
}

impl Network {
    /// Its name in settings, records and evidence.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Devnet => "devnet",
            Self::Testnet => "testnet",
            Self::Mainnet => "mainnet",
        }
    }

    /// TON's `global_id` of the network; the devnet has one of its own.
    pub const fn global_id(self) -> i32 {
        match self {
            Self::Devnet => -7_337,
            Self::Testnet => -3,
            Self::Mainnet => -239,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_in_its_own_domain_only() {
        let key = NodeKey::from_secret(&[7; 32]);
        let signature = key.sign(Domain::Offer, b"message");
        assert!(key.id().verify(Domain::Offer, b"message", &signature));
        assert!(!key.id().verify(Domain::Receipt, b"message", &signature));
        assert!(!key.id().verify(Domain::Offer, b"messagE", &signature));
        assert!(!NodeKey::from_secret(&[8; 32]).id().verify(Domain::Offer, b"message", &signature));
    }

    #[test]
    fn names_have_the_order_of_their_bytes() {
        // Each place decides, whichever words it lies in, and the first that differs before others.
        for at in 0..32 {
            let mut names = [[0x7f_u8; 32]; 2];
            names[1][at] = 0x80;
            names[0][at + 1..].fill(0xff);
            let [less, more] = names.map(NodeId::from_bytes);
            assert_eq!(less.cmp(&more), names[0].cmp(&names[1]), "byte {at}");
            assert_eq!(more.cmp(&less), Ordering::Greater, "byte {at}");
            assert_eq!(less.cmp(&less), Ordering::Equal);
        }
    }

    #[test]
    fn domains_are_distinct() {
        let all = [Domain::Offer, Domain::Receipt, Domain::SessionIdentity, Domain::VaultHolder];
        let distinct: std::collections::BTreeSet<_> = all.iter().map(|d| d.as_bytes()).collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn an_invalid_public_key_verifies_nothing() {
        assert!(!NodeId::from_bytes([0xff; 32]).verify(Domain::Offer, b"", &[0; 64]));
        assert!(!NodeId::from_bytes([0; 32]).verify(Domain::Offer, b"", &[0; 64]));
    }

    #[test]
    fn ids_round_trip_through_text_and_refuse_the_rest() {
        let id = ModelHash::from_bytes([0xab; 32]);
        assert_eq!(ModelHash::from_hex(&id.to_string()), Some(id));
        assert_eq!(ModelHash::from_hex("ab"), None);
        let address = TonAddress { workchain: -1, hash: [3; 32] };
        assert_eq!(TonAddress::from_raw(&address.to_string()), Some(address));
        assert_eq!(TonAddress::from_raw("0:zz"), None);
        assert_eq!(TonAddress::from_raw("300:"), None);
    }
}
