//! The log of a channel's receipts: append-only, with a root that every voucher carries.
//!
//! Owns: the tree's shape and hashes, which are those of Certificate Transparency (RFC 6962, 2.1):
//! SHA-256, a leaf behind a zero byte, an inner node behind a one. Any verifier of such a log
//! verifies ours. Only the root of no receipts differs: zeros, as a new vault stores.
//! Must not: keep receipts; a leaf is a hash.
//!
//! The tree of n leaves is a Merkle mountain range: a perfect tree (a peak) for each one-bit of n,
//! the largest first. The root bags the peaks from the right, so appending needs the peaks only.

use sha2::{Digest as _, Sha256};

use crate::identity::ReceiptHash;
use crate::layout::{Reader, RecordError, Writer};

const PEAKS_KIND: [u8; 4] = *b"CMm1";
const PROOF_KIND: [u8; 4] = *b"CIp1";

/// A path has at most one step for each bit of the number of leaves.
const PATH_LENGTH: usize = 64;

fn leaf(bytes: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update([0]).chain_update(bytes).finalize().into()
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// What appending needs to know of a log: a few hundred bytes, whatever its length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    /// Leaves in the log.
    count: u64,
    /// Roots of the perfect trees, the largest first: one for each one-bit of `count`.
    peaks: Vec<[u8; 32]>,
}

impl Peaks {
    /// Receipts in the log.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether nothing was appended yet.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes one more receipt.
    pub fn append(&mut self, receipt: ReceiptHash) {
        self.append_leaf(leaf(receipt.as_bytes()));
    }

    fn append_leaf(&mut self, leaf: [u8; 32]) {
        let mut tree = leaf;
        // As in adding one in binary: each trailing one-bit is a peak of the size reached so far.
        for _ in 0..self.count.trailing_ones() {
            let Some(left) = self.peaks.pop() else { break };
            tree = node(&left, &tree);
        }
        // One at a time: most channels have few receipts, and a list's first four places are 128 bytes.
        self.peaks.reserve_exact(1);
        self.peaks.push(tree);
        // No channel lives to see 2⁶⁴ receipts.
        self.count = self.count.saturating_add(1);
    }

    /// The root over all receipts; zeros when there are none.
    pub fn root(&self) -> [u8; 32] {
        let bagged = self.peaks.iter().rev().copied().reduce(|right, peak| node(&peak, &right));
        bagged.unwrap_or([0; 32])
    }

    /// The root as it would be after one more receipt.
    pub fn root_with(&self, receipt: ReceiptHash) -> [u8; 32] {
        let mut next = self.clone();
        next.append(receipt);
        next.root()
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        self.write(Writer::new(PEAKS_KIND)).finish()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::open(bytes, PEAKS_KIND)?;
        let peaks = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(peaks)
    }

    pub(crate) fn write(&self, writer: Writer) -> Writer {
        self.peaks.iter().fold(writer.u64(self.count), |writer, peak| writer.bytes(peak))
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let count = reader.u64()?;
        let peaks = (0..count.count_ones()).map(|_| reader.array());
        Ok(Self { count, peaks: peaks.collect::<Result<_, _>>()? })
    }
}

impl Extend<ReceiptHash> for Peaks {
    fn extend<I: IntoIterator<Item = ReceiptHash>>(&mut self, receipts: I) {
        receipts.into_iter().for_each(|receipt| self.append(receipt));
    }
}

impl FromIterator<ReceiptHash> for Peaks {
    fn from_iter<I: IntoIterator<Item = ReceiptHash>>(receipts: I) -> Self {
        let mut peaks = Self::default();
        peaks.extend(receipts);
        peaks
    }
}

/// A whole log, for proofs: every leaf in order. Proofs are rare, so their trees are computed when
/// asked for; a channel pays on with its [`Peaks`] alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    leaves: Vec<ReceiptHash>,
    peaks: Peaks,
}

impl Log {
    /// Takes one more receipt.
    pub fn append(&mut self, receipt: ReceiptHash) {
        self.leaves.push(receipt);
        self.peaks.append(receipt);
    }

    /// The receipts in order.
    pub fn receipts(&self) -> &[ReceiptHash] {
        &self.leaves
    }

    /// What appending needs.
    pub const fn peaks(&self) -> &Peaks {
        &self.peaks
    }

    /// The root over all receipts; zeros when there are none.
    pub fn root(&self) -> [u8; 32] {
        self.peaks.root()
    }

    /// The root as it would be after one more receipt.
    pub fn root_with(&self, receipt: ReceiptHash) -> [u8; 32] {
        self.peaks.root_with(receipt)
    }

    /// How many receipts the log held when `root` was its root: the chain may show an older one.
    pub fn size_at(&self, root: &[u8; 32]) -> Option<usize> {
        let mut peaks = Peaks::default();
        if peaks.root() == *root {
            return Some(0);
        }
        let found = self.leaves.iter().position(|receipt| {
            peaks.append(*receipt);
            peaks.root() == *root
        });
        found?.checked_add(1)
    }

    /// Proves that a receipt is in the log of the first `size` receipts (RFC 6962, 2.1.1); `None`
    /// when it is not, or the log is shorter than that.
    pub fn prove(&self, receipt: ReceiptHash, size: usize) -> Option<InclusionProof> {
        let mut tree = self.leaves.get(..size)?;
        let index = tree.iter().position(|leaf| *leaf == receipt)?;
        let mut path = Vec::new();
        let mut place = index;
        while tree.len() > 1 {
            // The largest power of two below the length: where the tree divides.
            let half = tree.len().div_ceil(2).checked_next_power_of_two()?;
            let (left, right) = tree.split_at_checked(half)?;
            let root = |leaves: &[ReceiptHash]| leaves.iter().copied().collect::<Peaks>().root();
            match place.checked_sub(half) {
                None => {
                    path.push(root(right));
                    tree = left;
                }
                Some(place_in_right) => {
                    path.push(root(left));
                    tree = right;
                    place = place_in_right;
                }
            }
        }
        path.reverse();
        Some(InclusionProof {
            index: u64::try_from(index).ok()?,
            size: u64::try_from(size).ok()?,
            path,
        })
    }
}

impl FromIterator<ReceiptHash> for Log {
    fn from_iter<I: IntoIterator<Item = ReceiptHash>>(receipts: I) -> Self {
        let leaves: Vec<_> = receipts.into_iter().collect();
        let peaks = leaves.iter().copied().collect();
        Self { leaves, peaks }
    }
}

/// Why a proof does not show that a receipt is in the log with a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The place is outside the log, or the path is not as long as the place needs.
    #[error("the proof does not fit a log of its size")]
    WrongShape,
    /// The path leads to another root: another receipt, another log, or a changed proof.
    #[error("the proof leads to another root: the receipt is not shown to be in this log")]
    WrongRoot,
}

/// The hashes beside the path from one leaf to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    /// The receipt's place in the log, from 0.
    pub index: u64,
    /// Receipts in the log that the root is of.
    pub size: u64,
    /// Neighbours on the way up, the lowest first.
    pub path: Vec<[u8; 32]>,
}

impl InclusionProof {
    /// Checks the proof (RFC 9162, 2.1.3.2).
    pub fn verify(&self, receipt: &ReceiptHash, root: &[u8; 32]) -> Result<(), ProofError> {
        self.verify_leaf(leaf(receipt.as_bytes()), root)
    }

    fn verify_leaf(&self, leaf: [u8; 32], root: &[u8; 32]) -> Result<(), ProofError> {
        let mut place = self.index;
        let mut last = self.size.checked_sub(1).ok_or(ProofError::WrongShape)?;
        if place > last {
            return Err(ProofError::WrongShape);
        }
        let mut tree = leaf;
        for neighbour in &self.path {
            if last == 0 {
                return Err(ProofError::WrongShape);
            }
            if place & 1 == 1 || place == last {
                tree = node(neighbour, &tree);
                // A right edge without neighbours of its own rises until it has one.
                while place & 1 == 0 && place != 0 {
                    (place, last) = (place >> 1, last >> 1);
                }
            } else {
                tree = node(&tree, neighbour);
            }
            (place, last) = (place >> 1, last >> 1);
        }
        if last != 0 {
            return Err(ProofError::WrongShape);
        }
        if tree == *root { Ok(()) } else { Err(ProofError::WrongRoot) }
    }

    /// The stored form: a file beside a receipt.
    pub fn encode(&self) -> Vec<u8> {
        let head = Writer::new(PROOF_KIND).u64(self.index).u64(self.size);
        let length = u8::try_from(self.path.len()).unwrap_or(u8::MAX);
        self.path.iter().fold(head.u8(length), |writer, hash| writer.bytes(hash)).finish()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::open(bytes, PROOF_KIND)?;
        let (index, size) = (reader.u64()?, reader.u64()?);
        let length = reader.u8()?;
        if usize::from(length) > PATH_LENGTH {
            return Err(RecordError::BadField("path"));
        }
        let path = (0..length).map(|_| reader.array()).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { index, size, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Inputs and roots of the reference tests of Certificate Transparency
    /// (certificate-transparency-go and trillian, `merkle_tree_test`): the root after each input.
    const PUBLISHED: [(&str, &str); 8] = [
        ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        ("00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        ("10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        ("2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
        ("3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
        ("40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
        ("5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        (
            "606162636465666768696a6b6c6d6e6f",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ),
    ];

    fn receipt(number: usize) -> ReceiptHash {
        ReceiptHash::from_bytes(Sha256::digest(number.to_be_bytes()).into())
    }

    fn receipts(count: usize) -> Vec<ReceiptHash> {
        (0..count).map(receipt).collect()
    }

    /// The definition of RFC 6962, 2.1, word for word, on leaf hashes.
    fn naive_root(leaves: &[[u8; 32]]) -> [u8; 32] {
        match leaves {
            [] => [0; 32],
            [only] => *only,
            leaves => {
                let mut half = 1;
                while half * 2 < leaves.len() {
                    half *= 2;
                }
                node(&naive_root(&leaves[..half]), &naive_root(&leaves[half..]))
            }
        }
    }

    fn naive_root_of(receipts: &[ReceiptHash]) -> [u8; 32] {
        let leaves: Vec<_> = receipts.iter().map(|receipt| leaf(receipt.as_bytes())).collect();
        naive_root(&leaves)
    }

    #[test]
    fn roots_are_those_that_certificate_transparency_publishes() {
        let mut peaks = Peaks::default();
        for (input, root) in PUBLISHED {
            peaks.append_leaf(leaf(&hex::decode(input).unwrap()));
            assert_eq!(hex::encode(peaks.root()), root, "after {} leaves", peaks.count());
        }
    }

    #[test]
    fn a_published_proof_is_accepted() {
        // The reference tests' inclusion proof of the sixth leaf in the tree of eight.
        let path = [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        let proof = InclusionProof {
            index: 5,
            size: 8,
            path: path.iter().map(|hash| hex::decode(hash).unwrap().try_into().unwrap()).collect(),
        };
        let (input, _) = PUBLISHED[5];
        let root = hex::decode(PUBLISHED[7].1).unwrap().try_into().unwrap();
        assert_eq!(proof.verify_leaf(leaf(&hex::decode(input).unwrap()), &root), Ok(()));
    }

    #[test]
    fn the_root_of_nothing_is_zeros() {
        assert_eq!(Peaks::default().root(), [0; 32]);
        assert!(Peaks::default().is_empty());
        assert_eq!(Log::default().size_at(&[0; 32]), Some(0));
    }

    #[test]
    fn every_receipt_of_every_small_log_is_proved() {
        let log: Log = receipts(40).into_iter().collect();
        for size in 1..=40 {
            let root = naive_root_of(&log.receipts()[..size]);
            assert_eq!(log.size_at(&root), Some(size));
            for (index, receipt) in log.receipts()[..size].iter().enumerate() {
                let proof = log.prove(*receipt, size).unwrap();
                assert_eq!(proof.verify(receipt, &root), Ok(()), "leaf {index} of {size}");
            }
            assert_eq!(log.prove(receipt(size), size), None, "a later receipt is not in it");
        }
        assert_eq!(log.prove(receipt(0), 41), None, "the log is not that long yet");
    }

    #[test]
    fn an_inner_node_does_not_pass_for_a_leaf() {
        let log: Log = receipts(2).into_iter().collect();
        let one_leaf = InclusionProof { index: 0, size: 1, path: vec![] };
        assert_eq!(
            one_leaf.verify(&ReceiptHash::from_bytes(log.root()), &log.root()),
            Err(ProofError::WrongRoot)
        );
    }

    proptest! {
        #[test]
        fn appending_gives_the_root_of_the_definition(count in 0usize..300) {
            let receipts = receipts(count);
            let mut peaks: Peaks = receipts.iter().copied().collect();
            prop_assert_eq!(peaks.root(), naive_root_of(&receipts));
            let foreseen = peaks.root_with(receipt(count));
            prop_assert_eq!(peaks.root(), naive_root_of(&receipts), "foreseeing changes nothing");
            peaks.append(receipt(count));
            prop_assert_eq!(peaks.root(), foreseen);
        }

        #[test]
        fn appending_goes_on_from_the_stored_peaks(before in 0usize..200, after in 0usize..50) {
            let all = receipts(before + after);
            let stored = all[..before].iter().copied().collect::<Peaks>().encode();
            let mut peaks = Peaks::decode(&stored).unwrap();
            peaks.extend(all[before..].iter().copied());
            prop_assert_eq!(peaks, all.iter().copied().collect::<Peaks>());
        }

        #[test]
        fn a_proof_survives_the_store_and_no_change(count in 1usize..200, place: prop::sample::Index, bit: prop::sample::Index) {
            let log: Log = receipts(count).into_iter().collect();
            let receipt = receipt(place.index(count));
            let proof = log.prove(receipt, count).unwrap();
            let mut bytes = proof.encode();
            prop_assert_eq!(InclusionProof::decode(&bytes), Ok(proof));
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let changed = InclusionProof::decode(&bytes);
            let verdict = changed.map(|proof| proof.verify(&receipt, &log.root()));
            // Index and size only steer the walk: some other ones lead along the same path.
            let steers = (32..32 + 128).contains(&bit);
            prop_assert!(steers || verdict != Ok(Ok(())));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), index: u64, size: u64, length in 0usize..70) {
            let _ = Peaks::decode(&bytes);
            let _ = Peaks::decode(&[&PEAKS_KIND[..], &bytes].concat());
            let _ = InclusionProof::decode(&[&PROOF_KIND[..], &bytes].concat());
            let proof = InclusionProof { index, size, path: vec![[1; 32]; length] };
            prop_assert!(proof.verify(&receipt(0), &[0; 32]).is_err());
        }
    }
}
