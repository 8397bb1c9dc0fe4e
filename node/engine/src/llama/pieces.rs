//! Cuts a long prompt into pieces that llama.cpp tokenises quickly.
//!
//! Owns: where a text may be cut without changing its tokens: before a special token.
//! Must not: tokenise.
//!
//! llama.cpp looks for every special token from the end of every one it has found, to the end of
//! the text: a megabyte of special tokens, which is a legal prompt, takes it half a minute. Cut at
//! special tokens, where its own pieces end too, the same text takes a second.

use std::collections::BTreeSet;

/// Size of a piece in bytes, where the text allows it. Quadratic in this, linear beyond.
const PIECE_BYTES: usize = 32_768;

/// The texts of a vocabulary's special tokens.
#[derive(Debug, Default)]
pub(super) struct Specials {
    texts: BTreeSet<Vec<u8>>,
    lengths: BTreeSet<usize>,
    first_bytes: BTreeSet<u8>,
}

impl Specials {
    /// Knows `texts`; empty ones are ignored.
    pub(super) fn new(texts: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut specials = Self::default();
        for text in texts {
            if let Some(&first) = text.first() {
                specials.first_bytes.insert(first);
                specials.lengths.insert(text.len());
                specials.texts.insert(text);
            }
        }
        specials
    }

    /// The pieces of `text`, in order; together they are `text`.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((piece, after)) = self.cut(rest).and_then(|at| rest.split_at_checked(at)) {
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        pieces
    }

    /// Where to cut `text`: before the last special token of a piece's length, else before the
    /// first one after it. Text without special tokens is quick at any length.
    fn cut(&self, text: &str) -> Option<usize> {
        if text.len() <= PIECE_BYTES {
            return None;
        }
        let bytes = text.as_bytes();
        let is_cut = |&at: &usize| text.is_char_boundary(at) && self.begins(bytes, at);
        let before = (1..=PIECE_BYTES).rev().find(is_cut);
        before.or_else(|| (PIECE_BYTES..bytes.len()).find(is_cut))
    }

    /// Whether a special token begins at `at`.
    fn begins(&self, bytes: &[u8], at: usize) -> bool {
        let Some(rest) = bytes.get(at..) else { return false };
        rest.first().is_some_and(|first| self.first_bytes.contains(first))
            && self
                .lengths
                .iter()
                .any(|&length| rest.get(..length).is_some_and(|text| self.texts.contains(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn specials() -> Specials {
        Specials::new([b"<a>".to_vec(), "<é>".into(), b"[INST]".to_vec(), vec![]])
    }

    #[test]
    fn a_short_text_is_one_piece() {
        assert_eq!(specials().split(""), [""]);
        assert_eq!(specials().split("<a><a>"), ["<a><a>"]);
    }

    #[test]
    fn a_text_without_special_tokens_is_one_piece() {
        let text = "<b>".repeat(PIECE_BYTES);
        assert_eq!(specials().split(&text), [text.as_str()]);
    }

    #[test]
    fn special_tokens_alone_make_pieces_of_the_wanted_length() {
        let text = "<a>".repeat(PIECE_BYTES);
        let pieces = specials().split(&text);
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES && piece.starts_with("<a>")));
    }

    #[test]
    fn a_far_special_token_is_found() {
        let word = "x".repeat(PIECE_BYTES * 2);
        let text = format!("{word}[INST]{word}");
        assert_eq!(specials().split(&text), [word.clone(), format!("[INST]{word}")]);
    }

    proptest! {
        #[test]
        fn pieces_are_the_text_and_begin_at_special_tokens(
            parts in prop::collection::vec(
                prop_oneof![Just("<a>"), Just("<é>"), Just("[INST]"), Just("é"), Just("<"), Just("[IN")],
                0..60,
            ),
            times in 1_usize..1_500,
        ) {
            let text = parts.concat().repeat(times);
            let pieces = specials().split(&text);
            prop_assert_eq!(&pieces.concat(), &text);
            for piece in pieces.iter().skip(1) {
                prop_assert!(["<a>", "<é>", "[INST]"].iter().any(|special| piece.starts_with(special)));
            }
        }
    }
}
