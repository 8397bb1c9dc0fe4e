//! TON's 24 words: making, checking, and turning them into a key.
//!
//! Owns: the scheme of the reference wallet (`tonlib/keys/Mnemonic.cpp`), which shares the word
//! list with BIP-39 but neither its checksum nor its derivation.
//! Must not: show the words except through [`Mnemonic::phrase`].

use std::fmt;
use std::num::NonZeroU32;

use ed25519_dalek::SigningKey;
use ring::{hmac, pbkdf2};
use zeroize::Zeroizing;

/// See `README.md` beside it.
const WORD_LIST: &str = include_str!("bip39-english.txt");
/// Words of a phrase.
pub const WORDS: usize = 24;
/// Longest phrase that is looked at: 24 words of 8 letters, with room for line breaks.
const MAX_PHRASE_BYTES: usize = 1_024;

/// Iterations for the key; the two checks use fewer, as the reference has it.
const KEY_ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(100_000 - 1);
const CHECK_ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(100_000 / 256 - 1);
const PASSWORD_CHECK_ITERATIONS: NonZeroU32 = NonZeroU32::MIN;

/// Why a text is no phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MnemonicError {
    /// Not 24 words.
    #[error("a TON phrase has {WORDS} words; this one has {found}")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// A word is none of the list. Says which by its place, because the words are secret.
    #[error("word {position} is not in the word list; check its spelling")]
    UnknownWord {
        /// Its place, from 1.
        position: usize,
    },
    /// All words are known, but together they are no phrase: a word is wrong or misplaced.
    #[error("the words are no TON phrase: one is wrong or out of order")]
    Checksum,
    /// The phrase needs a password, which this wallet does not support.
    #[error("the phrase needs a password, which is not supported; use one without")]
    NeedsPassword,
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

/// 24 checked words.
#[derive(Clone)]
pub struct Mnemonic {
    phrase: Zeroizing<String>,
}

impl fmt::Debug for Mnemonic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mnemonic").finish_non_exhaustive()
    }
}

impl Mnemonic {
    /// Makes new words from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// When there is no randomness.
    pub fn generate() -> Result<Self, NoRandomness> {
        // One candidate in 256 is a phrase.
        loop {
            let mut numbers = Zeroizing::new([0_u8; 2 * WORDS]);
            getrandom::fill(numbers.as_mut_slice()).map_err(|_| NoRandomness)?;
            let words = numbers.chunks_exact(2).filter_map(|pair| {
                let number = <[u8; 2]>::try_from(pair).map(u16::from_le_bytes).ok()?;
                // 2,048 words are 11 bits: no word is likelier than another.
                WORD_LIST.lines().nth(usize::from(number & 0x7ff))
            });
            let phrase = join(words);
            if is_basic_seed(&entropy(&phrase)) {
                return Ok(Self { phrase });
            }
        }
    }

    /// Reads words that somebody typed: any spacing, any case.
    ///
    /// # Errors
    ///
    /// When they are no phrase.
    pub fn parse(text: &str) -> Result<Self, MnemonicError> {
        let found = text.split_whitespace().take(MAX_PHRASE_BYTES).count();
        if found != WORDS || text.len() > MAX_PHRASE_BYTES {
            return Err(MnemonicError::Count { found });
        }
        let lowercase = Zeroizing::new(text.to_lowercase());
        for (position, word) in (1..).zip(lowercase.split_whitespace()) {
            if !WORD_LIST.lines().any(|known| known == word) {
                return Err(MnemonicError::UnknownWord { position });
            }
        }
        let phrase = join(lowercase.split_whitespace());
        let entropy = entropy(&phrase);
        if is_basic_seed(&entropy) {
            Ok(Self { phrase })
        } else if is_password_seed(&entropy) {
            Err(MnemonicError::NeedsPassword)
        } else {
            Err(MnemonicError::Checksum)
        }
    }

    /// The words, separated by single spaces: for the person who owns them, and nobody else.
    pub fn phrase(&self) -> &str {
        &self.phrase
    }

    /// The wallet's key. Takes about a tenth of a second, by design.
    pub fn to_key(&self) -> SigningKey {
        let derived = derive(&entropy(&self.phrase), b"TON default seed", KEY_ITERATIONS);
        let mut seed = Zeroizing::new([0; 32]);
        for (to, from) in seed.iter_mut().zip(derived.iter()) {
            *to = *from;
        }
        SigningKey::from_bytes(&seed)
    }
}

/// With its full capacity from the start, so that no half of it stays behind in memory.
fn join<'a>(words: impl Iterator<Item = &'a str>) -> Zeroizing<String> {
    let mut phrase = Zeroizing::new(String::with_capacity(MAX_PHRASE_BYTES));
    for word in words {
        if !phrase.is_empty() {
            phrase.push(' ');
        }
        phrase.push_str(word);
    }
    phrase
}

fn entropy(phrase: &str) -> Zeroizing<[u8; 64]> {
    let key = hmac::Key::new(hmac::HMAC_SHA512, phrase.as_bytes());
    // The message is the password, and there is none.
    let tag = hmac::sign(&key, b"");
    let mut entropy = Zeroizing::new([0; 64]);
    for (to, from) in entropy.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    entropy
}

fn derive(entropy: &[u8; 64], salt: &[u8], iterations: NonZeroU32) -> Zeroizing<[u8; 64]> {
    let mut derived = Zeroizing::new([0; 64]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, iterations, salt, entropy, derived.as_mut_slice());
    derived
}

fn is_basic_seed(entropy: &[u8; 64]) -> bool {
    derive(entropy, b"TON seed version", CHECK_ITERATIONS).first() == Some(&0)
}

fn is_password_seed(entropy: &[u8; 64]) -> bool {
    derive(entropy, b"TON fast seed version", PASSWORD_CHECK_ITERATIONS).first() == Some(&1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    #[test]
    fn the_word_list_is_the_one_of_bip39() {
        assert_eq!(WORD_LIST.lines().count(), 2_048);
        let expected = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda";
        assert_eq!(hex::encode(Sha256::digest(WORD_LIST.as_bytes())), expected);
    }

    #[test]
    fn new_words_are_a_phrase_and_differ_each_time() {
        let first = Mnemonic::generate().unwrap();
        let again = Mnemonic::parse(&first.phrase().to_uppercase().replace(' ', "\n ")).unwrap();
        assert_eq!(first.phrase(), again.phrase());
        assert_ne!(first.phrase(), Mnemonic::generate().unwrap().phrase());
        assert!(!format!("{first:?}").contains(first.phrase().split(' ').next().unwrap()));
    }

    #[test]
    fn mistakes_are_named() {
        let count = |text: &str| Mnemonic::parse(text).map(|_| ());
        assert_eq!(count("abandon ability"), Err(MnemonicError::Count { found: 2 }));
        let words = "abandon ".repeat(23);
        assert_eq!(
            count(&format!("{words} qwerty")),
            Err(MnemonicError::UnknownWord { position: 24 })
        );
        assert_eq!(count(&format!("{words} abandon")), Err(MnemonicError::Checksum));
    }

    proptest! {
        #[test]
        fn reading_a_phrase_never_panics(text in "\\PC{0,400}") {
            let _ = Mnemonic::parse(&text);
        }
    }
}
