//! One receipt: its fixed layout, its signature, and the checks that anybody can repeat offline.
//!
//! Owns: the bytes that a provider signs, kept as they came.
//! Must not: trust a clock in it, or decide which provider, vault or job was meant: callers compare.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::attest::Tier;
use crate::identity::{Domain, JobId, ModelHash, NodeId, NodeKey, ReceiptHash, TonAddress};
use crate::job::{FinishReason, Prompt, Usage};
use crate::layout::{Reader, RecordError, Writer};
use crate::receipt::{Salt, commitment, prompt_commitment};
use crate::units::{NanoTon, PricePerMillion, Prices, Timestamp, Tokens};

/// Kind and version. A receipt of another version is another kind of record.
const KIND: [u8; 4] = *b"CRc1";

/// What a provider says it did, and for how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The job, as its consumer named it.
    pub job: JobId,
    /// Who served it; the receipt is signed by this node.
    pub provider: NodeId,
    /// The vault that pays.
    pub vault: TonAddress,
    /// The channel's epoch in that vault.
    pub epoch: u32,
    /// The weights that were used.
    pub model: ModelHash,
    /// The protection that was in force.
    pub tier: Tier,
    /// Hash of the evidence that the session was opened with; zeros without.
    pub evidence_digest: [u8; 32],
    /// [`prompt_commitment`] under the job's salt.
    pub prompt_commitment: [u8; 32],
    /// [`commitment`] to the completion under the job's salt.
    pub completion_commitment: [u8; 32],
    /// [`crate::receipt::sampling_digest`] of the job.
    pub sampling_digest: [u8; 32],
    /// Tokens read and written.
    pub usage: Usage,
    /// The offer's prices that the job was accepted at.
    pub prices: Prices,
    /// What the job cost: always `prices` for `usage`.
    pub price: NanoTon,
    /// The network's share, which the vault keeps back from `price` when it settles.
    pub fee: NanoTon,
    /// When the provider took the job, by its clock.
    pub started: Timestamp,
    /// When the completion ended, by its clock.
    pub ended: Timestamp,
    /// Why it ended.
    pub finish: FinishReason,
}

/// Why bytes with a signature are not a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The bytes are no receipt.
    #[error("the receipt cannot be read")]
    Malformed(#[source] RecordError),
    /// The provider that it names did not sign these bytes.
    #[error("the receipt is not signed by the provider that it names")]
    BadSignature,
    /// Its price is not what its prices make of its usage.
    #[error("the receipt's price is {price}; its usage and prices make {expected}")]
    WrongPrice {
        /// The receipt's.
        price: NanoTon,
        /// Computed from the receipt.
        expected: NanoTon,
    },
    /// Its fee is more than its price.
    #[error("the receipt's fee of {fee} is more than its price of {price}")]
    FeeAbovePrice {
        /// The receipt's fee.
        fee: NanoTon,
        /// The receipt's price.
        price: NanoTon,
    },
    /// It ended before it started.
    #[error("the receipt ends before it starts")]
    EndsBeforeStart,
}

/// Which text is not the one that the provider committed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextMismatch {
    /// The prompt.
    #[error("the prompt is not the one that the receipt was given for")]
    Prompt,
    /// The completion.
    #[error("the completion is not the one that the receipt was given for")]
    Completion,
    /// Both; then the salt may be the wrong one.
    #[error("neither prompt nor completion belongs to the receipt; check the salt too")]
    Both,
}

const fn tier_byte(tier: Tier) -> u8 {
    match tier {
        Tier::Open => 0,
        Tier::Attested => 1,
        Tier::Confidential => 2,
    }
}

const fn tier_from(byte: u8) -> Result<Tier, RecordError> {
    match byte {
        0 => Ok(Tier::Open),
        1 => Ok(Tier::Attested),
        2 => Ok(Tier::Confidential),
        _ => Err(RecordError::BadField("tier")),
    }
}

const fn finish_byte(finish: FinishReason) -> u8 {
    match finish {
        FinishReason::Stop => 0,
        FinishReason::Length => 1,
        FinishReason::Cancelled => 2,
        FinishReason::Unpaid => 3,
        FinishReason::Failed => 4,
        FinishReason::Draining => 5,
    }
}

const fn finish_from(byte: u8) -> Result<FinishReason, RecordError> {
    match byte {
        0 => Ok(FinishReason::Stop),
        1 => Ok(FinishReason::Length),
        2 => Ok(FinishReason::Cancelled),
        3 => Ok(FinishReason::Unpaid),
        4 => Ok(FinishReason::Failed),
        5 => Ok(FinishReason::Draining),
        _ => Err(RecordError::BadField("finish")),
    }
}

impl Receipt {
    /// Length of [`Receipt::encode`]. With its signature 387 bytes.
    pub const BYTES: usize = 323;

    /// The bytes that are signed: fixed layout, big-endian, in the order of the fields.
    pub fn encode(&self) -> Vec<u8> {
        Writer::new(KIND)
            .bytes(self.job.as_bytes())
            .bytes(self.provider.as_bytes())
            .address(self.vault)
            .u32(self.epoch)
            .bytes(self.model.as_bytes())
            .u8(tier_byte(self.tier))
            .bytes(&self.evidence_digest)
            .bytes(&self.prompt_commitment)
            .bytes(&self.completion_commitment)
            .bytes(&self.sampling_digest)
            .u32(self.usage.prompt.get())
            .u32(self.usage.completion.get())
            .u64(self.prices.prompt.as_nano())
            .u64(self.prices.completion.as_nano())
            .u64(self.price.as_nano())
            .u64(self.fee.as_nano())
            .u64(self.started.as_unix_millis())
            .u64(self.ended.as_unix_millis())
            .u8(finish_byte(self.finish))
            .finish()
    }

    /// Reads the signed bytes. Says nothing about their signature or sense: see
    /// [`SignedReceipt::verify`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::open(bytes, KIND)?;
        let receipt = Self {
            job: JobId::from_bytes(reader.array()?),
            provider: NodeId::from_bytes(reader.array()?),
            vault: reader.address()?,
            epoch: reader.u32()?,
            model: ModelHash::from_bytes(reader.array()?),
            tier: tier_from(reader.u8()?)?,
            evidence_digest: reader.array()?,
            prompt_commitment: reader.array()?,
            completion_commitment: reader.array()?,
            sampling_digest: reader.array()?,
            usage: Usage {
                prompt: Tokens::new(reader.u32()?),
                completion: Tokens::new(reader.u32()?),
            },
            prices: Prices {
                prompt: PricePerMillion::from_nano(reader.u64()?),
                completion: PricePerMillion::from_nano(reader.u64()?),
            },
            price: NanoTon::from_nano(reader.u64()?),
            fee: NanoTon::from_nano(reader.u64()?),
            started: Timestamp::from_unix_millis(reader.u64()?),
            ended: Timestamp::from_unix_millis(reader.u64()?),
            finish: finish_from(reader.u8()?)?,
        };
        reader.finish()?;
        Ok(receipt)
    }

    /// Signs with the key of the node that the receipt names as its provider.
    pub fn sign(&self, key: &NodeKey) -> SignedReceipt {
        let bytes = self.encode();
        let signature = key.sign(Domain::Receipt, &bytes);
        SignedReceipt { bytes, signature }
    }

    /// Whether its numbers agree with each other.
    fn check(&self) -> Result<(), ReceiptError> {
        let price = self.price;
        let expected = self.prices.cost(self.usage.prompt, self.usage.completion);
        // A cost that does not fit cannot have been charged.
        let expected = expected.unwrap_or(NanoTon::MAX);
        if price != expected {
            return Err(ReceiptError::WrongPrice { price, expected });
        }
        if self.fee > price {
            return Err(ReceiptError::FeeAbovePrice { fee: self.fee, price });
        }
        if self.ended < self.started {
            return Err(ReceiptError::EndsBeforeStart);
        }
        Ok(())
    }

    /// Checks that these are the texts that the provider committed to; a text that is not given is
    /// not checked.
    pub fn check_texts(
        &self,
        salt: &Salt,
        prompt: Option<&Prompt>,
        completion: Option<&str>,
    ) -> Result<(), TextMismatch> {
        let prompt_differs =
            prompt.is_some_and(|prompt| prompt_commitment(salt, prompt) != self.prompt_commitment);
        let completion_differs = completion
            .is_some_and(|text| commitment(salt, text.as_bytes()) != self.completion_commitment);
        match (prompt_differs, completion_differs) {
            (false, false) => Ok(()),
            (true, false) => Err(TextMismatch::Prompt),
            (false, true) => Err(TextMismatch::Completion),
            (true, true) => Err(TextMismatch::Both),
        }
    }
}

/// A receipt as it travels and is kept: exact bytes and their signature, not yet checked.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    /// What was signed; [`Receipt::decode`] reads it.
    pub bytes: Vec<u8>,
    /// By the provider's node key, in [`Domain::Receipt`].
    pub signature: [u8; 64],
}

impl fmt::Debug for SignedReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SignedReceipt").field(&self.hash()).finish_non_exhaustive()
    }
}

impl SignedReceipt {
    /// The receipt's name and its leaf in the log: SHA-256 of the signed bytes.
    pub fn hash(&self) -> ReceiptHash {
        ReceiptHash::from_bytes(Sha256::digest(&self.bytes).into())
    }

    /// Reads the bytes, checks the signature by the provider named in them, and that the numbers
    /// agree. Whether that provider, vault and job are the expected ones is for the caller.
    pub fn verify(&self) -> Result<VerifiedReceipt, ReceiptError> {
        let receipt = Receipt::decode(&self.bytes).map_err(ReceiptError::Malformed)?;
        if !receipt.provider.verify(Domain::Receipt, &self.bytes, &self.signature) {
            return Err(ReceiptError::BadSignature);
        }
        receipt.check()?;
        Ok(VerifiedReceipt { receipt, hash: self.hash(), signed: self.clone() })
    }

    /// One file or record: the signed bytes, then the signature.
    pub fn encode(&self) -> Vec<u8> {
        [self.bytes.as_slice(), &self.signature].concat()
    }

    /// Splits what [`SignedReceipt::encode`] joined. Nothing is checked but the length.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (bytes, signature) = bytes.split_last_chunk::<64>().ok_or(RecordError::WrongLength)?;
        if bytes.len() != Receipt::BYTES {
            return Err(RecordError::WrongLength);
        }
        Ok(Self { bytes: bytes.to_vec(), signature: *signature })
    }
}

/// A receipt whose signature and numbers were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedReceipt {
    receipt: Receipt,
    hash: ReceiptHash,
    signed: SignedReceipt,
}

impl VerifiedReceipt {
    /// What it says.
    pub const fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Its name.
    pub const fn hash(&self) -> ReceiptHash {
        self.hash
    }

    /// The exact bytes and signature, for the store.
    pub const fn signed(&self) -> &SignedReceipt {
        &self.signed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Role, Sampling, Turn};
    use crate::receipt::sampling_digest;
    use proptest::prelude::*;

    fn key() -> NodeKey {
        NodeKey::from_secret(&[5; 32])
    }

    fn salt() -> Salt {
        Salt::from_bytes([8; 32])
    }

    fn prompt() -> Prompt {
        let content = "What is the capital of France?".into();
        Prompt::Chat(vec![Turn { role: Role::User, content }])
    }

    fn receipt() -> Receipt {
        let usage = Usage { prompt: Tokens::new(14), completion: Tokens::new(3) };
        let prices = Prices {
            prompt: PricePerMillion::from_nano(50_000_000),
            completion: PricePerMillion::from_nano(200_000_000),
        };
        Receipt {
            job: JobId::from_bytes([1; 32]),
            provider: key().id(),
            vault: TonAddress { workchain: 0, hash: [2; 32] },
            epoch: 7,
            model: ModelHash::from_bytes([3; 32]),
            tier: Tier::Attested,
            evidence_digest: [4; 32],
            prompt_commitment: prompt_commitment(&salt(), &prompt()),
            completion_commitment: commitment(&salt(), b"Paris."),
            sampling_digest: sampling_digest(&Sampling::with_seed(1), &[]),
            usage,
            prices,
            price: prices.cost(usage.prompt, usage.completion).unwrap(),
            fee: NanoTon::from_nano(13),
            started: Timestamp::from_unix_millis(1_800_000_000_000),
            ended: Timestamp::from_unix_millis(1_800_000_000_900),
            finish: FinishReason::Stop,
        }
    }

    #[test]
    fn the_layout_is_fixed() {
        let golden = concat!(
            "43526331",                                                           // CRc1
            "0101010101010101010101010101010101010101010101010101010101010101",   // job
            "6e7a1cdd29b0b78fd13af4c5598feff4ef2a97166e3ca6f2e4fbfccd80505bf1",   // provider
            "000202020202020202020202020202020202020202020202020202020202020202", // vault
            "00000007",                                                           // epoch
            "0303030303030303030303030303030303030303030303030303030303030303",   // model
            "01",                                                                 // tier
            "0404040404040404040404040404040404040404040404040404040404040404",   // evidence
            "PROMPT",
            "COMPLETION",
            "SAMPLING",
            "0000000e00000003",                 // usage
            "0000000002faf080000000000bebc200", // prices
            "0000000000000514000000000000000d", // price, fee
            "000001a3185c5000000001a3185c5384", // started, ended
            "00",                               // finish
        )
        .replace("PROMPT", &hex::encode(receipt().prompt_commitment))
        .replace("COMPLETION", &hex::encode(receipt().completion_commitment))
        .replace("SAMPLING", &hex::encode(receipt().sampling_digest));
        let bytes = receipt().encode();
        assert_eq!(hex::encode(&bytes), golden);
        assert_eq!(bytes.len(), Receipt::BYTES);
        assert_eq!(Receipt::decode(&bytes), Ok(receipt()));
    }

    #[test]
    fn a_signed_receipt_passes_and_keeps_its_bytes() {
        let signed = receipt().sign(&key());
        let verified = signed.verify().unwrap();
        assert_eq!(*verified.receipt(), receipt());
        assert_eq!(*verified.signed(), signed);
        assert_eq!(verified.hash(), signed.hash());
        assert_eq!(SignedReceipt::decode(&signed.encode()), Ok(signed.clone()));
        assert!(signed.encode().len() < 1024);
    }

    #[test]
    fn only_the_named_provider_can_sign() {
        let other = NodeKey::from_secret(&[6; 32]);
        assert_eq!(receipt().sign(&other).verify(), Err(ReceiptError::BadSignature));
        // Nor does its signature on another kind of message pass.
        let bytes = receipt().encode();
        let signature = key().sign(Domain::Offer, &bytes);
        let offered = SignedReceipt { bytes, signature };
        assert_eq!(offered.verify(), Err(ReceiptError::BadSignature));
    }

    #[test]
    fn numbers_that_contradict_each_other_are_refused() {
        let with = |change: fn(&mut Receipt)| {
            let mut receipt = receipt();
            change(&mut receipt);
            receipt.sign(&key()).verify().unwrap_err()
        };
        let expected = receipt().price;
        assert_eq!(
            with(|r| r.price = NanoTon::from_nano(1_299)),
            ReceiptError::WrongPrice { price: NanoTon::from_nano(1_299), expected }
        );
        assert!(matches!(
            with(|r| r.usage.completion = Tokens::new(4)),
            ReceiptError::WrongPrice { .. }
        ));
        assert!(matches!(
            with(|r| r.fee = NanoTon::from_nano(1_301)),
            ReceiptError::FeeAbovePrice { .. }
        ));
        assert_eq!(with(|r| r.ended = Timestamp::EPOCH), ReceiptError::EndsBeforeStart);
    }

    #[test]
    fn the_differing_text_is_named() {
        let receipt = receipt();
        let check =
            |prompt: &Prompt, completion| receipt.check_texts(&salt(), Some(prompt), completion);
        let other = Prompt::Text("What is the capital of France?".into());
        assert_eq!(check(&prompt(), Some("Paris.")), Ok(()));
        assert_eq!(check(&other, Some("Paris.")), Err(TextMismatch::Prompt));
        assert_eq!(check(&prompt(), Some("Paris")), Err(TextMismatch::Completion));
        assert_eq!(check(&other, Some("Lyon.")), Err(TextMismatch::Both));
        assert_eq!(receipt.check_texts(&salt(), None, None), Ok(()), "nothing to check");
        let wrong_salt = Salt::from_bytes([0; 32]);
        assert_eq!(
            receipt.check_texts(&wrong_salt, None, Some("Paris.")),
            Err(TextMismatch::Completion)
        );
    }

    #[test]
    fn tiers_and_reasons_have_distinct_bytes_and_no_others() {
        for byte in 0..=u8::MAX {
            if let Ok(tier) = tier_from(byte) {
                assert_eq!(tier_byte(tier), byte);
            }
            if let Ok(finish) = finish_from(byte) {
                assert_eq!(finish_byte(finish), byte);
            }
        }
        assert_eq!((0..=u8::MAX).filter(|b| tier_from(*b).is_ok()).count(), 3);
        assert_eq!((0..=u8::MAX).filter(|b| finish_from(*b).is_ok()).count(), 6);
    }

    proptest! {
        #[test]
        fn one_changed_bit_fails_and_changes_the_hash(bit in 0..Receipt::BYTES * 8) {
            let signed = receipt().sign(&key());
            let mut changed = signed.clone();
            changed.bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(changed.verify().is_err());
            prop_assert_ne!(changed.hash(), signed.hash());
        }

        #[test]
        fn one_changed_bit_of_the_signature_fails(bit in 0usize..512) {
            let mut changed = receipt().sign(&key());
            changed.signature[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(changed.verify(), Err(ReceiptError::BadSignature));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(tail in prop::collection::vec(any::<u8>(), Receipt::BYTES - 4), tier in 0u8..3, finish in 0u8..6) {
            let mut bytes = [&KIND[..], &tail].concat();
            prop_assert_eq!(Receipt::decode(&bytes).is_ok(), bytes[137] < 3 && bytes[322] < 6);
            (bytes[137], bytes[322]) = (tier, finish);
            prop_assert_eq!(Receipt::decode(&bytes).unwrap().encode(), bytes);
        }

        #[test]
        fn hostile_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..500), cut in 0..Receipt::BYTES) {
            let _ = SignedReceipt::decode(&bytes);
            prop_assert!(Receipt::decode(&bytes).is_err(), "no magic");
            let valid = receipt().encode();
            prop_assert!(Receipt::decode(&valid[..cut]).is_err());
            prop_assert_eq!(Receipt::decode(&[&valid[..], &[0]].concat()), Err(RecordError::WrongLength));
        }
    }
}
