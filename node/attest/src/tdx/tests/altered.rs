//! Real quotes and their collateral with bytes altered or cut off.
//!
//! Owns: that what is still accepted claims exactly the same. Quotes and collateral have bytes that
//! nobody reads: padding, comments around PEM, the spelling of hexadecimal and of JSON, and
//! `pck_crl_issuer_chain`, for the list's issuer is in the quote's own chain.
//! Must not: excuse a signed byte.

use super::*;

/// A quote, its collateral, and a time at which they hold.
struct Sample {
    quote: &'static [u8],
    signed: usize,
    collateral: &'static [u8],
    then: Timestamp,
}

const SAMPLES: [Sample; 2] = [
    Sample { quote: QUOTE, signed: SIGNED, collateral: COLLATERAL, then: THEN },
    Sample { quote: QUOTE_5, signed: SIGNED_5, collateral: COLLATERAL_5, then: THEN_5 },
];

/// How many alterations were tried, and the positions where one was accepted.
#[derive(Debug, Default)]
struct Outcome {
    tried: usize,
    accepted: Vec<usize>,
}

/// Alters the bytes at `positions` by each of `masks`, and holds what is accepted against `whole`.
fn alter(
    bytes: &[u8],
    positions: impl Iterator<Item = usize>,
    masks: impl Iterator<Item = u8> + Clone,
    judge: impl Fn(&[u8]) -> Result<TdxClaims, Refusal>,
) -> Outcome {
    let whole = judge(bytes).unwrap();
    let mut outcome = Outcome::default();
    let mut altered = bytes.to_vec();
    for position in positions {
        for mask in masks.clone() {
            altered[position] ^= mask;
            outcome.tried += 1;
            if let Ok(claims) = judge(&altered) {
                assert_eq!(claims, whole, "byte {position}, mask {mask:#x}");
                outcome.accepted.push(position);
            }
            altered[position] ^= mask;
        }
    }
    outcome
}

/// Cuts off at each of `lengths`: only the zeros behind a quote may be missing.
fn cut(
    bytes: &[u8],
    lengths: impl Iterator<Item = usize>,
    judge: impl Fn(&[u8]) -> Result<TdxClaims, Refusal>,
) {
    let whole = judge(bytes).unwrap();
    for length in lengths {
        if let Ok(claims) = judge(&bytes[..length]) {
            assert!(bytes[length..].iter().all(|byte| *byte == 0), "cut to {length}");
            assert_eq!(claims, whole);
        }
    }
}

impl Sample {
    fn quote(&self, quote: &[u8]) -> Result<TdxClaims, Refusal> {
        real(quote, self.collateral, self.then)
    }

    fn collateral(&self, collateral: &[u8]) -> Result<TdxClaims, Refusal> {
        real(self.quote, collateral, self.then)
    }

    fn assert_signed_bytes_refused(&self, outcome: &Outcome) {
        let signed = outcome.accepted.iter().find(|position| **position < self.signed);
        assert_eq!(signed, None);
    }

    /// Which member of the collateral the byte at `position` belongs to.
    fn member(&self, position: usize) -> String {
        let text = std::str::from_utf8(self.collateral).unwrap();
        let members: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).unwrap();
        members
            .keys()
            .filter_map(|name| Some((text.find(&format!("\"{name}\":"))?, name)))
            .filter(|(start, _)| *start <= position)
            .max()
            .map_or_else(|| "(before)".to_owned(), |(_, name)| name.clone())
    }
}

#[test]
fn the_signature_covers_what_we_say_it_covers() {
    for sample in SAMPLES {
        assert_eq!(Quote::parse(sample.quote).unwrap().signed_length(), sample.signed);
    }
}

#[test]
fn altered_signed_bytes_of_real_quotes_are_refused() {
    for sample in SAMPLES {
        let judge = |quote: &[u8]| sample.quote(quote);
        let outcome = alter(sample.quote, 0..sample.signed, [0x01].into_iter(), judge);
        assert_eq!((outcome.tried, outcome.accepted), (sample.signed, vec![]));
    }
}

/// Every seventh byte behind the signed ones, another seventh for each sample.
#[test]
fn other_altered_bytes_of_real_quotes_are_refused_or_change_nothing() {
    for (offset, sample) in SAMPLES.into_iter().enumerate() {
        let positions = (sample.signed + offset..sample.quote.len()).step_by(7);
        let outcome = alter(sample.quote, positions, [0x01].into_iter(), |q| sample.quote(q));
        sample.assert_signed_bytes_refused(&outcome);
    }
}

#[test]
fn every_cut_of_real_quotes_is_refused_but_for_padding() {
    for sample in SAMPLES {
        cut(sample.quote, 0..sample.quote.len(), |quote| sample.quote(quote));
    }
}

/// A sample: every 29th byte. All of them: below.
#[test]
fn altered_collateral_is_refused_or_changes_nothing() {
    for (offset, sample) in SAMPLES.into_iter().enumerate() {
        let positions = (offset..sample.collateral.len()).step_by(29);
        alter(sample.collateral, positions, [0x01, 0x20].into_iter(), |c| sample.collateral(c));
    }
}

#[test]
fn every_cut_of_collateral_is_refused() {
    for sample in SAMPLES {
        for length in 0..sample.collateral.trim_ascii_end().len() {
            assert!(sample.collateral(&sample.collateral[..length]).is_err(), "cut to {length}");
        }
    }
}

/// One bit of eight at a time, and all of them.
const MASKS: [u8; 9] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff];

/// All bytes of both quotes, nine ways each. With the one below:
/// `cargo test -p cocoon-attest --features dev-tee --lib -- --ignored --nocapture altered::every_byte`
#[test]
#[ignore = "takes minutes; the tests above try a sample"]
fn every_byte_of_real_quotes() {
    for sample in SAMPLES {
        let positions = 0..sample.quote.len();
        let outcome = alter(sample.quote, positions, MASKS.into_iter(), |q| sample.quote(q));
        sample.assert_signed_bytes_refused(&outcome);
        println!("quote: {} tried, {} accepted", outcome.tried, outcome.accepted.len());
        println!("  without effect, at {:?}", outcome.accepted);
    }
}

/// All bytes of both collaterals, nine ways each.
#[test]
#[ignore = "takes minutes; the tests above try a sample"]
fn every_byte_of_collateral() {
    for sample in SAMPLES {
        let positions = 0..sample.collateral.len();
        let outcome =
            alter(sample.collateral, positions, MASKS.into_iter(), |c| sample.collateral(c));
        let mut members = std::collections::BTreeMap::<String, usize>::new();
        for position in &outcome.accepted {
            *members.entry(sample.member(*position)).or_default() += 1;
        }
        println!("collateral: {} tried, accepted and without effect: {members:?}", outcome.tried);
    }
}

#[cfg(feature = "dev-tee")]
#[test]
fn every_alteration_of_a_simulated_quote_is_refused_or_changes_nothing() {
    let forged = super::forged::Forged::honest();
    let judge = |quote: &[u8]| forged.judge_quote(quote);
    let all = 0..forged.quote.len();
    let outcome = alter(&forged.quote, all.clone(), [0x01].into_iter(), judge);
    assert!(outcome.accepted.iter().all(|position| *position >= SIGNED));
    cut(&forged.quote, all, judge);
}
