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
    Sha256::new()
        .chain_update([0])
        .chain_update(bytes)
        .finalize()
        .into()
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
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
        self.peaks.push(tree);
        // No channel lives to see 2⁶⁴ receipts.
        self.count = self.count.saturating_add(1);
    }

    /// The root over all receipts; zeros when there are none.
    pub fn root(&self) -> [u8; 32] {
        let bagged = self
            .peaks
            .iter()
            .rev()
            .copied()
            .reduce(|right, peak| node(&peak, &right));
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
        self.peaks
            .iter()
            .fold(writer.u64(self.count), |writer, peak| writer.bytes(peak))
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let count = reader.u64()?;
        let peaks = (0..count.count_ones()).map(|_| reader.array());
        Ok(Self {
            count,
            peaks: peaks.collect::<Result<_, _>>()?,
        })
    }
}

impl Extend<ReceiptHash> for Peaks {
    fn extend<I: IntoIterator<Item = ReceiptHash>>(&mut self, receipts: I) {
        receipts
            .into_iter()
            .for_each(|receipt| self.append(receipt));
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
        if tree == *root {
            Ok(())
        } else {
            Err(ProofError::WrongRoot)
        }
    }

    /// The stored form: a file beside a receipt.
    pub fn encode(&self) -> Vec<u8> {
        let head = Writer::new(PROOF_KIND).u64(self.index).u64(self.size);
        let length = u8::try_from(self.path.len()).unwrap_or(u8::MAX);
        self.path
            .iter()
            .fold(head.u8(length), |writer, hash| writer.bytes(hash))
            .finish()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::open(bytes, PROOF_KIND)?;
        let (index, size) = (reader.u64()?, reader.u64()?);
        let length = reader.u8()?;
        if usize::from(length) > PATH_LENGTH {
            return Err(RecordError::BadField("path"));
        }
        let path = (0..length)
            .map(|_| reader.array())
            .collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { index, size, path })
    }
}
