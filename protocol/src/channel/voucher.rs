//! Vouchers and releases: the two messages that the vault contract checks, bit for bit.
//!
//! Owns: their cell layout, their hashes, and the signatures over them.
//! Must not: judge whether a voucher is good for anybody; payee and contract do.
//! The signatures stand over the bare 32-byte cell hash, without a domain of `identity.rs`,
//! because the contract computes exactly that hash. The magic number inside the cell keeps the two
//! messages apart, and no other message of ours that is signed has 32 bytes.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::identity::{Domain, NodeId, NodeKey, TonAddress, signed_bytes};
use crate::layout::{Reader, RecordError, Writer};
use crate::signature::{self, SecretKey};
use crate::units::NanoTon;

/// Tag of a voucher: ASCII `CCV2`.
pub const VOUCHER_MAGIC: u32 = 0x4343_5632;
/// Tag of a release: ASCII `CCR2`.
pub const RELEASE_MAGIC: u32 = 0x4343_5232;

/// Length of [`SignedVoucher::encode`].
const SIGNED_VOUCHER_BYTES: usize = 4 + 33 + 32 + 4 + 8 + 32 + 64;
const SIGNED_VOUCHER_KIND: [u8; 4] = *b"CVo1";

/// A payment channel: one provider's allocation in one vault. The vault counts epochs up, so that
/// an allocation made again never revives the vouchers of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    /// The consumer's vault.
    pub vault: TonAddress,
    /// Who is paid.
    pub provider: NodeId,
    /// Which allocation of the vault.
    pub epoch: u32,
}

impl ChannelId {
    /// A voucher in this channel.
    pub(crate) const fn voucher(self, cumulative: NanoTon, receipts_root: [u8; 32]) -> Voucher {
        let Self { vault, provider, epoch } = self;
        Voucher { vault, provider, epoch, cumulative, receipts_root }
    }

    pub(crate) fn write(self, writer: Writer) -> Writer {
        writer.address(self.vault).bytes(self.provider.as_bytes()).u32(self.epoch)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            vault: reader.address()?,
            provider: NodeId::from_bytes(reader.array()?),
            epoch: reader.u32()?,
        })
    }
}

/// A consumer's promise: of this vault, `cumulative` belongs to this provider, all in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// The vault that pays.
    pub vault: TonAddress,
    /// Who is paid.
    pub provider: NodeId,
    /// Which allocation of the vault.
    pub epoch: u32,
    /// Everything promised in this epoch so far. Only the highest counts.
    pub cumulative: NanoTon,
    /// Root of the channel's receipt log ([`crate::receipt::Peaks::root`]); zeros when empty.
    pub receipts_root: [u8; 32],
}

impl Voucher {
    /// The channel that it pays in.
    pub const fn channel(&self) -> ChannelId {
        ChannelId { vault: self.vault, provider: self.provider, epoch: self.epoch }
    }

    /// The representation hash of the voucher's cell: what is signed.
    ///
    /// One ordinary cell of 907 bits and no references: `magic:uint32 vault:MsgAddressInt
    /// provider:uint256 epoch:uint32 cumulative:uint64 receipts_root:uint256`.
    pub fn cell_hash(&self) -> [u8; 32] {
        claim_hash(VOUCHER_MAGIC, self.channel(), self.cumulative, &self.receipts_root)
    }
}

/// A provider's consent that its allocation ends at once, with this as its last payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The vault that pays.
    pub vault: TonAddress,
    /// Who gives up the rest.
    pub provider: NodeId,
    /// Which allocation of the vault.
    pub epoch: u32,
    /// Everything that the provider gets out of this epoch.
    pub cumulative: NanoTon,
}

impl Release {
    /// The channel that it ends.
    pub const fn channel(&self) -> ChannelId {
        ChannelId { vault: self.vault, provider: self.provider, epoch: self.epoch }
    }

    /// The representation hash of the release's cell: a voucher's layout with its own magic and a
    /// root of zeros.
    pub fn cell_hash(&self) -> [u8; 32] {
        claim_hash(RELEASE_MAGIC, self.channel(), self.cumulative, &[0; 32])
    }

    /// Signs with the provider's node key.
    pub fn sign(self, key: &NodeKey) -> SignedRelease {
        SignedRelease { release: self, signature: key.sign_cell(&self.cell_hash()) }
    }
}

/// SHA-256 of a cell's standard representation without references (TON whitepaper, 3.1.5): two
/// descriptor bytes, then the data with a completion tag, because 907 bits fill no whole byte.
fn claim_hash(
    magic: u32,
    channel: ChannelId,
    cumulative: NanoTon,
    receipts_root: &[u8; 32],
) -> [u8; 32] {
    /// `addr_std$10` and `anycast:nothing$0`, in front of workchain and hash.
    const ADDRESS_TAG: u8 = 0b100;
    /// References: none. Level: 0. Not exotic.
    const D1: u8 = 0;
    /// ⌊907 ÷ 8⌋ + ⌈907 ÷ 8⌉ = 113 + 114.
    const D2: u8 = 227;

    let mut cell = channel
        .write(Writer::new([]))
        .u64(cumulative.as_nano())
        .bytes(receipts_root)
        // The completion tag: a one, then zeros up to the whole byte.
        .u8(0b1000_0000)
        .finish();
    let mut hash = Sha256::new();
    hash.update([D1, D2]);
    hash.update(magic.to_be_bytes());
    // The tag's three bits push everything behind it three bits to the right.
    let mut previous = ADDRESS_TAG;
    for field in &mut cell {
        let [_, shifted] = (u16::from_be_bytes([previous, *field]) >> 3).to_be_bytes();
        previous = std::mem::replace(field, shifted);
    }
    hash.update(&cell);
    hash.finalize().into()
}

/// The vault's hot public key, as the contract holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VaultPublicKey([u8; 32]);

impl VaultPublicKey {
    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for VaultPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultPublicKey({})", hex::encode(self.0))
    }
}

/// The vault's hot secret key: signs vouchers and commands to the contract. The secret is wiped
/// when it is dropped; share it behind an `Arc` rather than by cloning.
pub struct VaultKey(SecretKey);

impl VaultKey {
    /// From the 32 secret bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SecretKey::from_secret(secret))
    }

    /// The public key that the vault's initial state holds.
    pub fn public(&self) -> VaultPublicKey {
        VaultPublicKey(self.0.public())
    }

    /// Signs a voucher. The same voucher always gets the same signature (RFC 8032).
    pub fn sign(&self, voucher: Voucher) -> SignedVoucher {
        SignedVoucher { voucher, signature: self.sign_hash(&voucher.cell_hash()) }
    }

    /// Signs a cell's hash: for commands to the vault, whose cells the ledger client builds.
    /// Vouchers go through [`VaultKey::sign`], and only a [`crate::channel::Payer`] calls that.
    pub fn sign_hash(&self, cell_hash: &[u8; 32]) -> [u8; 64] {
        self.0.sign(cell_hash)
    }

    /// Signs a message between nodes, which the contract never sees. A domain is in front, so that
    /// what is signed is longer than any hash.
    pub(super) fn sign_in(&self, domain: Domain, message: &[u8]) -> [u8; 64] {
        self.0.sign(&signed_bytes(domain, message))
    }
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VaultKey").field(&self.public()).finish_non_exhaustive()
    }
}

/// The signature on a voucher or a release is not by the key that it must be by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not by the key that the channel is bound to")]
pub struct BadSignature;

/// Strict verification: what passes here passes in the contract too, whose check is laxer about
/// keys and points of small order.
fn verify(key: &[u8; 32], hash: &[u8; 32], signature: &[u8; 64]) -> Result<(), BadSignature> {
    if signature::verify(key, hash, signature) { Ok(()) } else { Err(BadSignature) }
}

/// A voucher with a signature that nobody has checked yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SignedVoucher {
    /// What is promised.
    pub voucher: Voucher,
    /// Ed25519 over [`Voucher::cell_hash`].
    pub signature: [u8; 64],
}

impl fmt::Debug for SignedVoucher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SignedVoucher").field(&self.voucher).finish_non_exhaustive()
    }
}

impl SignedVoucher {
    /// Checks the signature. Slow (tens of microseconds): done at the edge, before a machine.
    pub fn verify(self, key: &VaultPublicKey) -> Result<VerifiedVoucher, BadSignature> {
        verify(&key.0, &self.voucher.cell_hash(), &self.signature)?;
        Ok(VerifiedVoucher { signed: self, key: *key })
    }

    /// The provider's consent to have this voucher settled by an external message: its node key's
    /// signature over the same hash. Made by the provider that the voucher names.
    pub fn consent(&self, key: &NodeKey) -> [u8; 64] {
        key.sign_cell(&self.voucher.cell_hash())
    }

    /// Whether `consent` is by the provider that the voucher names.
    pub fn has_consent(&self, consent: &[u8; 64]) -> bool {
        verify(self.voucher.provider.as_bytes(), &self.voucher.cell_hash(), consent).is_ok()
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let voucher = &self.voucher;
        let record = voucher
            .channel()
            .write(Writer::new(SIGNED_VOUCHER_KIND))
            .u64(voucher.cumulative.as_nano())
            .bytes(&voucher.receipts_root)
            .bytes(&self.signature)
            .finish();
        debug_assert_eq!(record.len(), SIGNED_VOUCHER_BYTES);
        record
    }

    /// Reads the stored form. The signature is not checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::open(bytes, SIGNED_VOUCHER_KIND)?;
        let channel = ChannelId::read(&mut reader)?;
        let voucher = channel.voucher(NanoTon::from_nano(reader.u64()?), reader.array()?);
        let signature = reader.array()?;
        reader.finish()?;
        Ok(Self { voucher, signature })
    }
}

/// A voucher whose signature was checked, and against which key. Machines accept nothing less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedVoucher {
    signed: SignedVoucher,
    key: VaultPublicKey,
}

impl VerifiedVoucher {
    /// What is promised.
    pub const fn voucher(&self) -> &Voucher {
        &self.signed.voucher
    }

    /// With its signature, for the store and the contract.
    pub const fn signed(&self) -> &SignedVoucher {
        &self.signed
    }

    /// The key that signed it.
    pub const fn key(&self) -> &VaultPublicKey {
        &self.key
    }
}

/// A release with its provider's signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SignedRelease {
    /// What is given up.
    pub release: Release,
    /// Ed25519 over [`Release::cell_hash`].
    pub signature: [u8; 64],
}

impl fmt::Debug for SignedRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SignedRelease").field(&self.release).finish_non_exhaustive()
    }
}

impl SignedRelease {
    /// Checks that the provider whom it names signed it.
    pub fn verify(&self) -> Result<(), BadSignature> {
        verify(self.release.provider.as_bytes(), &self.release.cell_hash(), &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Made with @ton/core and @ton/crypto: see its `about`.
    const VECTORS: &str = include_str!("../../testdata/vouchers.json");

    fn vectors(kind: &str) -> Vec<Value> {
        let all: Value = serde_json::from_str(VECTORS).unwrap();
        let cases = all[kind].as_array().unwrap().clone();
        assert!(cases.len() >= 7, "{kind}: only {} cases", cases.len());
        cases
    }

    fn bytes<const N: usize>(case: &Value, field: &str) -> [u8; N] {
        hex::decode(case[field].as_str().unwrap()).unwrap().try_into().unwrap()
    }

    fn voucher(case: &Value) -> Voucher {
        Voucher {
            vault: TonAddress::from_raw(case["vault"].as_str().unwrap()).unwrap(),
            provider: NodeId::from_bytes(bytes(case, "provider")),
            epoch: u32::try_from(case["epoch"].as_u64().unwrap()).unwrap(),
            cumulative: NanoTon::from_nano(
                case["cumulative_nano"].as_str().unwrap().parse().unwrap(),
            ),
            receipts_root: bytes(case, "receipts_root"),
        }
    }

    /// The secret seed whose public key is `public`.
    fn seed(public: &Value) -> [u8; 32] {
        let all: Value = serde_json::from_str(VECTORS).unwrap();
        let keys = all["keys"].as_object().unwrap();
        let key = keys.values().find(|key| key["public"] == *public).unwrap();
        bytes(key, "seed")
    }

    #[test]
    fn vouchers_have_the_hash_and_signature_that_the_reference_library_makes() {
        for case in vectors("vouchers") {
            let (name, voucher) = (&case["name"], voucher(&case));
            assert_eq!(voucher.cell_hash(), bytes::<32>(&case, "cell_hash"), "{name}");
            let key = VaultKey::from_secret(&seed(&case["signer"]));
            assert_eq!(*key.public().as_bytes(), bytes::<32>(&case, "signer"), "{name}");
            let signed = key.sign(voucher);
            assert_eq!(signed.signature, bytes::<64>(&case, "signature"), "{name}");
            assert!(signed.verify(&key.public()).is_ok(), "{name}");
        }
    }

    #[test]
    fn releases_have_the_hash_that_the_reference_library_makes() {
        let mut without_receipts = 0;
        for case in vectors("releases") {
            let (name, claim) = (&case["name"], voucher(&case));
            let hash =
                claim_hash(RELEASE_MAGIC, claim.channel(), claim.cumulative, &claim.receipts_root);
            assert_eq!(hash, bytes::<32>(&case, "cell_hash"), "{name}");
            if claim.receipts_root != [0; 32] {
                continue;
            }
            without_receipts += 1;
            let release = Release {
                vault: claim.vault,
                provider: claim.provider,
                epoch: claim.epoch,
                cumulative: claim.cumulative,
            };
            let signed = release.sign(&NodeKey::from_secret(&seed(&case["signer"])));
            assert_eq!(signed.signature, bytes::<64>(&case, "signature"), "{name}");
            assert_eq!(signed.verify(), Ok(()), "{name}");
        }
        assert!(without_receipts > 0);
    }

    fn key() -> VaultKey {
        VaultKey::from_secret(&[9; 32])
    }

    fn any_voucher() -> impl Strategy<Value = Voucher> {
        let parts = (
            any::<i8>(),
            any::<[u8; 32]>(),
            any::<[u8; 32]>(),
            any::<u32>(),
            any::<u64>(),
            any::<[u8; 32]>(),
        );
        parts.prop_map(|(workchain, hash, provider, epoch, cumulative, receipts_root)| Voucher {
            vault: TonAddress { workchain, hash },
            provider: NodeId::from_bytes(provider),
            epoch,
            cumulative: NanoTon::from_nano(cumulative),
            receipts_root,
        })
    }

    #[test]
    fn a_release_is_never_a_voucher() {
        let provider = NodeKey::from_secret(&[3; 32]);
        let vault = TonAddress { workchain: 0, hash: [1; 32] };
        let (epoch, cumulative) = (4, NanoTon::from_nano(5));
        let release = Release { vault, provider: provider.id(), epoch, cumulative }.sign(&provider);
        let voucher = SignedVoucher {
            voucher: Voucher {
                vault,
                provider: provider.id(),
                epoch,
                cumulative,
                receipts_root: [0; 32],
            },
            signature: release.signature,
        };
        let same_key = VaultPublicKey::from_bytes(*provider.id().as_bytes());
        assert_eq!(voucher.verify(&same_key), Err(BadSignature));
        assert!(!voucher.has_consent(&release.signature), "nor a consent to one");
    }

    #[test]
    fn a_secret_key_is_never_printed() {
        let shown = format!("{:?}", key());
        assert!(!shown.contains(&hex::encode([9; 32])), "{shown}");
        assert!(shown.contains(&hex::encode(key().public().as_bytes())), "{shown}");
    }

    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        let voucher = key().sign(Voucher {
            vault: TonAddress { workchain: 0, hash: [1; 32] },
            provider: NodeId::from_bytes([2; 32]),
            epoch: 1,
            cumulative: NanoTon::ZERO,
            receipts_root: [0; 32],
        });
        let mut identity = [0; 32];
        identity[0] = 1;
        for weak in [[0; 32], identity, [0xff; 32]] {
            assert!(voucher.verify(&VaultPublicKey::from_bytes(weak)).is_err());
            assert!(!voucher.has_consent(&[0; 64]));
        }
    }

    proptest! {
        #[test]
        fn a_signed_voucher_survives_the_store(voucher in any_voucher()) {
            let signed = key().sign(voucher);
            prop_assert_eq!(SignedVoucher::decode(&signed.encode()), Ok(signed));
        }

        #[test]
        fn one_changed_bit_is_noticed(voucher in any_voucher(), bit in 32..SIGNED_VOUCHER_BYTES * 8) {
            let mut bytes = key().sign(voucher).encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let changed = SignedVoucher::decode(&bytes).unwrap();
            prop_assert_eq!(changed.verify(&key().public()), Err(BadSignature));
        }

        #[test]
        fn hostile_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..250), cut in 0..SIGNED_VOUCHER_BYTES) {
            let _ = SignedVoucher::decode(&bytes);
            let valid = key().sign(Voucher {
                vault: TonAddress { workchain: 0, hash: [1; 32] },
                provider: NodeId::from_bytes([2; 32]),
                epoch: 1,
                cumulative: NanoTon::ZERO,
                receipts_root: [0; 32],
            }).encode();
            prop_assert!(SignedVoucher::decode(&valid[..cut]).is_err());
            prop_assert_eq!(SignedVoucher::decode(&[&valid[..], &[0]].concat()), Err(RecordError::WrongLength));
        }
    }
}
