//! Tests: a proof holds as it was made, and no change of it passes.

use super::*;
use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{JobId, ModelHash, NodeKey};
use cocoon_protocol::job::{FinishReason, Prompt, Usage};
use cocoon_protocol::receipt::{Receipt, TextMismatch, commitment, prompt_commitment};
use cocoon_protocol::units::{NanoTon, PricePerMillion, Prices, Timestamp, Tokens};

const SALT: [u8; 32] = [9; 32];
const PROMPT: &str = "What is a cocoon?";
const COMPLETION: &str = "A silk case — spun by a larva.\n";

fn stored(number: u8) -> StoredReceipt {
    let key = NodeKey::from_secret(&[7; 32]);
    let salt = Salt::from_bytes(SALT);
    let prices = Prices {
        prompt: PricePerMillion::from_nano(20_000_000),
        completion: PricePerMillion::from_nano(60_000_000),
    };
    let usage = Usage { prompt: Tokens::new(21), completion: Tokens::new(40) };
    let receipt = Receipt {
        job: JobId::from_bytes([number; 32]),
        provider: key.id(),
        vault: TonAddress { workchain: 0, hash: [2; 32] },
        epoch: 12,
        model: ModelHash::from_bytes([3; 32]),
        tier: Tier::Attested,
        evidence_digest: [4; 32],
        prompt_commitment: prompt_commitment(&salt, &Prompt::Text(PROMPT.into())),
        completion_commitment: commitment(&salt, COMPLETION.as_bytes()),
        sampling_digest: [5; 32],
        usage,
        prices,
        price: prices.cost(usage.prompt, usage.completion).unwrap(),
        fee: NanoTon::ZERO,
        started: Timestamp::from_unix_secs(1_795_351_208),
        ended: Timestamp::from_unix_secs(1_795_351_210),
        finish: FinishReason::Stop,
    };
    StoredReceipt { receipt: receipt.sign(&key), salt: SALT, provided: false }
}

fn log() -> Log {
    (0..13).map(|number| stored(number).receipt.hash()).collect()
}

fn file() -> ProofFile {
    ProofFile::new(&stored(5), Some((&log(), 11)), true).unwrap()
}

#[test]
fn a_proof_holds_and_shows_the_receipt_and_the_root() {
    let line = file().line();
    assert!(line.len() <= LINE_BYTES);
    let shown = ProofFile::check(&line).unwrap();
    assert_eq!(shown.receipt.hash(), stored(5).receipt.hash());
    let (root, proof) = shown.log.unwrap();
    let first: Log = log().receipts()[..11].iter().copied().collect();
    assert_eq!((root, proof.index, proof.size), (first.root(), 5, 11));
    let (prompt, salt) = (Prompt::Text(PROMPT.into()), shown.salt.unwrap());
    let receipt = shown.receipt.receipt();
    assert_eq!(receipt.check_texts(&salt, Some(&prompt), Some(COMPLETION)), Ok(()));
}

#[test]
fn a_proof_without_a_salt_or_a_log_still_holds() {
    let bare = file().without_salt();
    assert!(ProofFile::check(&bare.line()).unwrap().salt.is_none());
    let unlogged = ProofFile::new(&stored(5), None, true).unwrap();
    assert!(ProofFile::check(&unlogged.line()).unwrap().log.is_none());
    let elsewhere = ProofFile::new(&stored(99), Some((&log(), 11)), true).unwrap();
    assert!(elsewhere.log.is_none(), "a receipt that is not in the log has no place in it");
}

/// Every character of the file, changed in several ways, removed and doubled.
#[test]
fn every_single_character_change_of_the_file_is_refused_and_named() {
    let line = file().line();
    let mut named = std::collections::BTreeMap::<_, u32>::new();
    let mut refuse = |changed: String, at: usize| {
        if changed == line {
            return;
        }
        let error = ProofFile::check(&changed).expect_err(&format!("character {at}: {changed}"));
        assert!(!error.to_string().contains(&hex::encode(SALT)), "the salt is never repeated");
        *named.entry(format!("{error:?}").split('(').next().unwrap().to_owned()).or_default() += 1;
    };
    assert!(line.is_ascii());
    for at in 0..line.len() {
        let (before, rest) = line.split_at(at);
        let (this, after) = rest.split_at(1);
        let byte = this.as_bytes()[0];
        for bit in 0..7 {
            refuse(format!("{before}{}{after}", char::from(byte ^ (1 << bit))), at);
        }
        for other in ["0", "f", "F", " ", "\"", "é", "\n"] {
            refuse(format!("{before}{other}{after}"), at);
        }
        refuse(format!("{before}{after}"), at);
        refuse(format!("{before}{this}{this}{after}"), at);
        refuse(format!("{before} {this}{after}"), at);
    }
    for name in
        ["Form", "Format", "Digits", "Receipt", "Name", "Channel", "Log", "Checksum", "Spelling"]
    {
        assert!(named.contains_key(name), "{name} was never the reason: {named:?}");
    }
}

#[test]
fn every_single_character_change_of_a_text_is_refused_and_named() {
    let shown = ProofFile::check(&file().line()).unwrap();
    let (receipt, salt) = (shown.receipt.receipt(), shown.salt.unwrap());
    let changes = |text: &str| -> Vec<String> {
        let characters: Vec<char> = text.chars().collect();
        let mut changes = Vec::new();
        for at in 0..characters.len() {
            for other in ['x', 'X', ' ', '\n', 'é', '\0'] {
                let mut changed = characters.clone();
                changed[at] = other;
                changes.push(changed.into_iter().collect());
            }
            let mut shorter = characters.clone();
            shorter.remove(at);
            changes.push(shorter.into_iter().collect());
        }
        changes.push(format!("{text} "));
        changes.retain(|changed| changed != text);
        changes
    };
    let truth = Prompt::Text(PROMPT.into());
    for changed in changes(PROMPT) {
        let prompt = Prompt::Text(changed);
        let error = receipt.check_texts(&salt, Some(&prompt), Some(COMPLETION));
        assert_eq!(error, Err(TextMismatch::Prompt));
    }
    for changed in changes(COMPLETION) {
        let error = receipt.check_texts(&salt, Some(&truth), Some(&changed));
        assert_eq!(error, Err(TextMismatch::Completion));
    }
}

/// Whoever changes the salt and writes a new checksum has a file that opens nothing.
#[test]
fn a_salt_that_was_replaced_with_its_checksum_fails_with_the_true_texts() {
    let forged = ProofFile { salt: Some(hex::encode([8; 32])), ..file() }.sealed();
    let shown = ProofFile::check(&forged.line()).unwrap();
    let prompt = Prompt::Text(PROMPT.into());
    let receipt = shown.receipt.receipt();
    let checked = receipt.check_texts(&shown.salt.unwrap(), Some(&prompt), Some(COMPLETION));
    assert_eq!(checked, Err(TextMismatch::Both));
}
