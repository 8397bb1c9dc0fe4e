//! A receipt's proof as a file: all that anybody needs to check an answer, and nothing to ask for.
//!
//! Owns: the file's one form, and the checks of everything in it, each with the name of what failed.
//! Must not: reach a ledger or a store; whoever checks brings the root that the vault stores.
//!
//! The form is a line of JSON. What it means is protected by a signature, a commitment or a hash; its
//! checksum and its exact spelling are checked too, so that a changed character is always noticed:
//! also one in the salt, of which no other part of the file knows anything.

use cocoon_protocol::identity::{NodeId, ReceiptHash, TonAddress};
use cocoon_protocol::receipt::{InclusionProof, Log, Salt, SignedReceipt, VerifiedReceipt};
use cocoon_protocol::record::StoredReceipt;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Kind and version of the file.
const FORMAT: &str = "cocoon receipt proof 1";
/// Longest line: a receipt of 387 bytes, a path of 64 hashes, all in hexadecimal digits.
pub const LINE_BYTES: usize = 8_192;

/// A receipt, what opens its commitments, and its place in its channel's log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofFile {
    format: String,
    /// The receipt's name.
    pub receipt: ReceiptHash,
    /// The signed bytes and the signature, in hexadecimal digits.
    pub signed: String,
    /// Key of the commitments, in hexadecimal digits. Whoever has it and guesses a text can check
    /// the guess, so it goes only to those who may know the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Whether the node that made the file was the provider.
    pub provided: bool,
    /// The vault that pays.
    pub vault: TonAddress,
    /// Whose allocation in it.
    pub provider: NodeId,
    /// Which of that provider's allocations.
    pub epoch: u32,
    /// The receipt's place in the log; the consumer alone keeps the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PlaceInLog>,
    checksum: String,
}

impl std::fmt::Debug for ProofFile {
    /// Without the salt.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProofFile").field("receipt", &self.receipt).finish_non_exhaustive()
    }
}

/// Where a receipt stands in its channel's log, and the way from it to the log's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceInLog {
    /// Its place, from 0.
    pub index: u64,
    /// Receipts under the root.
    pub size: u64,
    /// The root, which vouchers carry to the vault.
    pub root: String,
    /// Neighbours on the way up, the lowest first.
    pub path: Vec<String>,
}

/// Why a file proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofFileError {
    /// It is no such file, or a name, a bracket or a quotation mark in it was changed.
    #[error("the file's form is broken: {0}")]
    Form(String),
    /// It is of another kind or version.
    #[error("the file's `format` is not `{FORMAT}`: it is of another version, or was changed")]
    Format,
    /// Not hexadecimal digits of the right number.
    #[error("the file's `{0}` cannot be read: it was changed")]
    Digits(&'static str),
    /// The receipt itself does not hold.
    #[error("the signed receipt does not hold: {0}")]
    Receipt(String),
    /// The name is another receipt's.
    #[error("the file's `receipt` is not the name of the receipt in it")]
    Name,
    /// The channel is not the receipt's.
    #[error("the file's `{0}` is not the one in the signed receipt")]
    Channel(&'static str),
    /// The path does not lead from the receipt to the root.
    #[error("the place in the log does not hold: {0}")]
    Log(String),
    /// Something that no other check protects was changed.
    #[error("the file's `checksum` does not fit: the salt, or the checksum itself, was changed")]
    Checksum,
    /// It says the right thing in other words.
    #[error("the file is not spelt as it was written: spaces, letter case or order were changed")]
    Spelling,
}

/// What a file that holds has shown.
#[derive(Debug)]
pub struct Shown {
    /// The receipt.
    pub receipt: VerifiedReceipt,
    /// Opens its commitments.
    pub salt: Option<Salt>,
    /// The root of the log that it is in, its place there, and the log's size.
    pub log: Option<([u8; 32], InclusionProof)>,
}

impl ProofFile {
    /// The file for a receipt; `log` is its channel's, or the first receipts of it.
    pub fn new(
        stored: &StoredReceipt,
        log: Option<(&Log, usize)>,
        with_salt: bool,
    ) -> Option<Self> {
        let receipt = stored.receipt.verify().ok()?;
        let hash = receipt.hash();
        let place = log.and_then(|(log, size)| {
            let proof = log.prove(hash, size)?;
            let first: Log = log.receipts().iter().take(size).copied().collect();
            Some(PlaceInLog {
                index: proof.index,
                size: proof.size,
                root: hex::encode(first.root()),
                path: proof.path.iter().map(hex::encode).collect(),
            })
        });
        let stated = receipt.receipt();
        let file = Self {
            format: FORMAT.to_owned(),
            receipt: hash,
            signed: hex::encode(stored.receipt.encode()),
            salt: with_salt.then(|| hex::encode(stored.salt)),
            provided: stored.provided,
            vault: stated.vault,
            provider: stated.provider,
            epoch: stated.epoch,
            log: place,
            checksum: String::new(),
        };
        Some(file.sealed())
    }

    /// The same without its salt, for those who may not check guesses of the texts.
    #[must_use]
    pub fn without_salt(self) -> Self {
        Self { salt: None, ..self }.sealed()
    }

    fn sealed(self) -> Self {
        let bare = Self { checksum: String::new(), ..self };
        let checksum = hex::encode(Sha256::digest(bare.line()));
        Self { checksum, ..bare }
    }

    /// The file's one line, without a line feed.
    pub fn line(&self) -> String {
        // Texts and numbers alone: nothing in it can fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a line and checks everything in it.
    ///
    /// # Errors
    ///
    /// The first thing that does not hold, by its name.
    pub fn check(line: &str) -> Result<Shown, ProofFileError> {
        let file: Self = serde_json::from_str(line)
            .map_err(|error| ProofFileError::Form(without_content(&error)))?;
        if file.format != FORMAT {
            return Err(ProofFileError::Format);
        }
        let bytes = hex::decode(&file.signed).map_err(|_| ProofFileError::Digits("signed"))?;
        let signed = SignedReceipt::decode(&bytes).map_err(|_| ProofFileError::Digits("signed"))?;
        let receipt =
            signed.verify().map_err(|error| ProofFileError::Receipt(error.to_string()))?;
        if receipt.hash() != file.receipt {
            return Err(ProofFileError::Name);
        }
        let stated = receipt.receipt();
        let channel = [
            (stated.vault == file.vault, "vault"),
            (stated.provider == file.provider, "provider"),
            (stated.epoch == file.epoch, "epoch"),
        ];
        if let Some((_, field)) = channel.into_iter().find(|(same, _)| !same) {
            return Err(ProofFileError::Channel(field));
        }
        let log = file.log.as_ref().map(|place| place.check(&file.receipt)).transpose()?;
        let salt = file.salt.as_deref().map(|digits| digest(digits, "salt")).transpose()?;
        if file.clone().sealed().checksum != file.checksum {
            return Err(ProofFileError::Checksum);
        }
        if file.line() != line {
            return Err(ProofFileError::Spelling);
        }
        Ok(Shown { receipt, salt: salt.map(Salt::from_bytes), log })
    }
}

impl PlaceInLog {
    fn check(&self, receipt: &ReceiptHash) -> Result<([u8; 32], InclusionProof), ProofFileError> {
        let root = digest(&self.root, "root")?;
        let path = self.path.iter().map(|neighbour| digest(neighbour, "path"));
        let path = path.collect::<Result<_, _>>()?;
        let proof = InclusionProof { index: self.index, size: self.size, path };
        match proof.verify(receipt, &root) {
            Ok(()) => Ok((root, proof)),
            Err(error) => Err(ProofFileError::Log(error.to_string())),
        }
    }
}

fn digest(digits: &str, field: &'static str) -> Result<[u8; 32], ProofFileError> {
    let mut digest = [0; 32];
    hex::decode_to_slice(digits, &mut digest).map_err(|_| ProofFileError::Digits(field))?;
    Ok(digest)
}

/// Where and what kind, never a piece of the file: it may hold a salt.
fn without_content(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Syntax => "it is not JSON",
        serde_json::error::Category::Data => "a field is missing, unknown or of another type",
        serde_json::error::Category::Eof | serde_json::error::Category::Io => "it is cut short",
    };
    format!("{kind}, at character {}", error.column())
}

#[cfg(test)]
mod tests;
