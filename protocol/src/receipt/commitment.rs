//! Commitments to texts and sampling: what a receipt says about a job without telling it.
//!
//! Owns: the bytes that enter each hash.
//! Must not: keep a text, or print a salt: who has the salt can test guesses of a short text.

use std::fmt;

use crate::identity::append_length_prefixed;
use crate::job::{Prompt, Sampling};

/// A job's secret between its two sides, chosen at random by the consumer and sent with the job.
/// Who lacks it cannot tell from a receipt what was asked or answered, not even by guessing.
#[derive(Clone, PartialEq, Eq)]
pub struct Salt(zeroize::Zeroizing<[u8; 32]>);

impl Salt {
    /// From its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(zeroize::Zeroizing::new(bytes))
    }

    /// Its 32 bytes, for the wire and the store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(…)")
    }
}

/// BLAKE3 of a text, keyed with the job's salt.
pub fn commitment(salt: &Salt, text: &[u8]) -> [u8; 32] {
    blake3::keyed_hash(salt.as_bytes(), text).into()
}

/// The commitment to a text that comes in pieces: a completion while it streams.
pub struct Commitment(blake3::Hasher);

impl Commitment {
    /// To the empty text.
    pub fn new(salt: &Salt) -> Self {
        Self(blake3::Hasher::new_keyed(salt.as_bytes()))
    }

    /// Goes on with the next piece of the text.
    pub fn update(&mut self, text: &[u8]) {
        self.0.update(text);
    }

    /// To the text so far; equal to [`commitment`] of the whole.
    pub fn finish(&self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commitment({} bytes)", self.0.count())
    }
}

/// The commitment to a prompt: [`commitment`] of its canonical encoding. That is `T` and the text
/// for raw text; for a dialogue `C`, the number of turns, and role and content of each turn behind
/// their lengths, so that no two prompts share an encoding.
pub fn prompt_commitment(salt: &Salt, prompt: &Prompt) -> [u8; 32] {
    let mut hash = Commitment::new(salt);
    match prompt {
        Prompt::Text(text) => {
            hash.update(b"T");
            hash.update(text.as_bytes());
        }
        Prompt::Chat(turns) => {
            hash.update(b"C");
            // Turns are bounded by limits::PROMPT_TURNS; a saturated count still hashes to one value.
            hash.update(&u32::try_from(turns.len()).unwrap_or(u32::MAX).to_be_bytes());
            for turn in turns {
                for part in [turn.role.as_str(), &turn.content] {
                    hash.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
                    hash.update(part.as_bytes());
                }
            }
        }
    }
    hash.finish()
}

/// What a receipt says about how tokens were drawn: BLAKE3 of the exact bits of every number of the
/// sampling and of the stop strings. No secret is in it; an auditor who repeats a draw recomputes it.
pub fn sampling_digest(sampling: &Sampling, stop: &[String]) -> [u8; 32] {
    let Sampling { temperature, top_p, top_k, min_p, frequency_penalty, presence_penalty, seed } =
        sampling;
    let mut bytes = Vec::new();
    append_length_prefixed(&mut bytes, b"cocoon/sampling/v1");
    for number in [temperature, top_p, min_p, frequency_penalty, presence_penalty] {
        bytes.extend_from_slice(&number.to_bits().to_be_bytes());
    }
    bytes.extend_from_slice(&top_k.to_be_bytes());
    bytes.extend_from_slice(&seed.to_be_bytes());
    for stop in stop {
        append_length_prefixed(&mut bytes, stop.as_bytes());
    }
    blake3::hash(&bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Role, Turn};
    use proptest::prelude::*;

    fn salt() -> Salt {
        Salt::from_bytes([7; 32])
    }

    fn chat(turns: &[(Role, &str)]) -> Prompt {
        let turn =
            |(role, content): &(Role, &str)| Turn { role: *role, content: (*content).into() };
        Prompt::Chat(turns.iter().map(turn).collect())
    }

    #[test]
    fn a_commitment_is_keyed_blake3_of_the_text() {
        // BLAKE3's published test vectors: key "whats the Elvish word for friend", input 0, 1, 2, …
        let key = Salt::from_bytes(*b"whats the Elvish word for friend");
        let published = "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26";
        assert_eq!(hex::encode(commitment(&key, b"")), published);
        let published = "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b";
        assert_eq!(hex::encode(commitment(&key, &[0])), published);
    }

    #[test]
    fn prompts_that_read_alike_have_other_commitments() {
        let prompts = [
            Prompt::Text("ab".into()),
            chat(&[(Role::User, "ab")]),
            chat(&[(Role::System, "ab")]),
            chat(&[(Role::User, "a"), (Role::User, "b")]),
            chat(&[(Role::User, "ab"), (Role::User, "")]),
            chat(&[(Role::User, ""), (Role::User, "ab")]),
        ];
        let distinct: std::collections::BTreeSet<_> =
            prompts.iter().map(|prompt| prompt_commitment(&salt(), prompt)).collect();
        assert_eq!(distinct.len(), prompts.len());
    }

    #[test]
    fn every_number_of_the_sampling_is_in_its_digest() {
        let base = Sampling::with_seed(1);
        let changed = [
            Sampling { temperature: 0.5, ..base },
            Sampling { top_p: 0.5, ..base },
            Sampling { top_k: 5, ..base },
            Sampling { min_p: 0.5, ..base },
            Sampling { frequency_penalty: 0.5, ..base },
            Sampling { presence_penalty: 0.5, ..base },
            Sampling { seed: 2, ..base },
        ];
        let mut digests: std::collections::BTreeSet<_> =
            changed.iter().map(|sampling| sampling_digest(sampling, &[])).collect();
        digests.insert(sampling_digest(&base, &[]));
        digests.insert(sampling_digest(&base, &["ab".into()]));
        digests.insert(sampling_digest(&base, &["a".into(), "b".into()]));
        assert_eq!(digests.len(), changed.len() + 3);
    }

    #[test]
    fn the_salt_is_never_printed() {
        assert_eq!(format!("{:?}", salt()), "Salt(…)");
        assert!(!format!("{:?}", Commitment::new(&salt())).contains('7'));
    }

    proptest! {
        #[test]
        fn a_streamed_text_has_the_commitment_of_the_whole(pieces in prop::collection::vec(".{0,20}", 0..8)) {
            let mut streamed = Commitment::new(&salt());
            pieces.iter().for_each(|piece| streamed.update(piece.as_bytes()));
            prop_assert_eq!(streamed.finish(), commitment(&salt(), pieces.concat().as_bytes()));
        }
    }
}
