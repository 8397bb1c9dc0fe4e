//! Receipts: what a provider says it did for its money, and a log that proves which were given.
//!
//! Owns: the receipt's bytes, the commitments inside it, and the Merkle log over receipts.
//! Must not: hold a prompt or a completion; both enter hashers and nothing else.

mod commitment;
mod log;
#[expect(clippy::module_inception, reason = "the folder and its main type have one name")]
mod receipt;

pub use commitment::{Commitment, Salt, commitment, prompt_commitment, sampling_digest};
pub use log::{InclusionProof, Log, Peaks, ProofError};
pub use receipt::{Receipt, ReceiptError, SignedReceipt, TextMismatch, VerifiedReceipt};
