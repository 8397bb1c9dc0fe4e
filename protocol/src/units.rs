//! Quantities as types: money, tokens, prices, time.
//!
//! Owns: every unit that crosses a module boundary, and all rounding of money.
//! Must not: implement `Add` or `From<u64>`. Arithmetic is `checked_*` or names its saturation,
//! so that an overflow is a decision and a bare number can never become money by accident.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Nano-units in one TON.
const NANO_PER_TON: u64 = 1_000_000_000;
/// Tokens that a [`PricePerMillion`] is quoted for.
const TOKENS_PER_PRICE_UNIT: u64 = 1_000_000;

/// An amount of money, in nanoTON (10⁻⁹ TON).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NanoTon(u64);

impl NanoTon {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The most that the type holds; about 18.4 thousand million TON, more than exist.
    pub const MAX: Self = Self(u64::MAX);

    /// An amount given in nanoTON.
    pub const fn from_nano(nano: u64) -> Self {
        Self(nano)
    }

    /// The amount in nanoTON.
    pub const fn as_nano(self) -> u64 {
        self.0
    }

    /// `self + other`, or `None` when the sum does not fit.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// `self - other`, or `None` when that would be negative.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Self(difference)),
            None => None,
        }
    }

    /// `self - other`, or nothing when that would be negative.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self + other`, or [`NanoTon::MAX`]. For comparisons and displays, never for a balance.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// `self × numerator ÷ denominator`, rounded down; `None` when the denominator is zero or the
    /// result does not fit.
    pub fn checked_fraction(self, numerator: u64, denominator: u64) -> Option<Self> {
        let scaled = u128::from(self.0)
            .checked_mul(u128::from(numerator))?
            .checked_div(u128::from(denominator))?;
        u64::try_from(scaled).ok().map(Self)
    }
}

impl fmt::Display for NanoTon {
    /// In TON with the unit, without trailing zeros: `0.0125 TON`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.checked_div(NANO_PER_TON).unwrap_or(0);
        let nano = self.0.checked_rem(NANO_PER_TON).unwrap_or(0);
        if nano == 0 {
            return write!(f, "{whole} TON");
        }
        let digits = format!("{nano:09}");
        write!(f, "{whole}.{} TON", digits.trim_end_matches('0'))
    }
}

/// Why a text is not an amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAmountError {
    /// Neither `<number> TON` nor `<number> nanoTON`.
    #[error("an amount needs a unit: write `0.5 TON` or `500000000 nanoTON`")]
    NoUnit,
    /// The number before the unit is not a plain decimal number.
    #[error("`{0}` is not a plain decimal number")]
    NotANumber(String),
    /// More digits after the point than a nanoTON can carry.
    #[error("`{0}` is finer than one nanoTON (9 digits after the point)")]
    TooFine(String),
    /// More than fits.
    #[error("the amount is larger than {}", NanoTon::MAX)]
    TooLarge,
}

impl FromStr for NanoTon {
    type Err = ParseAmountError;

    /// Accepts `0.5 TON`, `0.5TON`, `500000000 nanoTON`; never a bare number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Some(number) = strip_unit(text, "nanoton") {
            let nano = number.parse::<u64>();
            return nano.map(Self).map_err(|_| ParseAmountError::NotANumber(number.to_owned()));
        }
        let number = strip_unit(text, "ton").ok_or(ParseAmountError::NoUnit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) {
            return Err(ParseAmountError::NotANumber(number.to_owned()));
        }
        if fraction.len() > 9 {
            return Err(ParseAmountError::TooFine(number.to_owned()));
        }
        let whole = whole.parse::<u64>().map_err(|_| ParseAmountError::TooLarge)?;
        let nano =
            format!("{fraction:0<9}").parse::<u64>().map_err(|_| ParseAmountError::TooLarge)?;
        whole
            .checked_mul(NANO_PER_TON)
            .and_then(|scaled| scaled.checked_add(nano))
            .map(Self)
            .ok_or(ParseAmountError::TooLarge)
    }
}

fn strip_unit<'a>(text: &'a str, unit: &str) -> Option<&'a str> {
    let split = text.len().checked_sub(unit.len())?;
    let (number, suffix) = text.split_at_checked(split)?;
    suffix.eq_ignore_ascii_case(unit).then(|| number.trim_end())
}

/// A count of language-model tokens.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Tokens(u32);

impl Tokens {
    /// None.
    pub const ZERO: Self = Self(0);
    /// The most that the type holds.
    pub const MAX: Self = Self(u32::MAX);

    /// A count.
    pub const fn new(count: u32) -> Self {
        Self(count)
    }

    /// The count.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// `self + other`, or `None` when the sum does not fit.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// `self + other`, or [`Tokens::MAX`].
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// `self - other`, or none.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A price: nanoTON for one million tokens.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PricePerMillion(u64);

impl PricePerMillion {
    /// Free of charge.
    pub const FREE: Self = Self(0);

    /// A price in nanoTON for one million tokens.
    pub const fn from_nano(nano: u64) -> Self {
        Self(nano)
    }

    /// The price in nanoTON for one million tokens.
    pub const fn as_nano(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PricePerMillion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per million tokens", NanoTon::from_nano(self.0))
    }
}

/// What a provider charges for a job: one price each for reading and for writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prices {
    /// For each prompt token that is computed.
    pub prompt: PricePerMillion,
    /// For each completion token.
    pub completion: PricePerMillion,
}

impl Prices {
    /// The price of `prompt` and `completion` tokens together, rounded up to a whole nanoTON.
    ///
    /// The only function that rounds money. Rounding the sum once makes the cost of a job
    /// independent of how many steps it was paid in. `None` when it does not fit.
    pub fn cost(self, prompt: Tokens, completion: Tokens) -> Option<NanoTon> {
        let part = |price: PricePerMillion, count: Tokens| {
            u128::from(price.0).checked_mul(u128::from(count.0))
        };
        let exact = part(self.prompt, prompt)?.checked_add(part(self.completion, completion)?)?;
        match u64::try_from(exact) {
            // Nearly always, and an instruction instead of a long division.
            Ok(exact) => Some(NanoTon(exact.div_ceil(TOKENS_PER_PRICE_UNIT))),
            Err(_) => {
                let unit = u128::from(TOKENS_PER_PRICE_UNIT);
                u64::try_from(exact.div_ceil(unit)).ok().map(NanoTon)
            }
        }
    }

    /// The most completion tokens that cost, with the prompt, at most `paid`; [`Tokens::MAX`] where
    /// more cost no more, and `None` when not even the prompt is paid.
    pub fn affordable(self, prompt: Tokens, paid: NanoTon) -> Option<Tokens> {
        // Rounded up, the exact price is at most `paid` just when it is at most `paid` itself.
        let exact = u128::from(paid.0).checked_mul(u128::from(TOKENS_PER_PRICE_UNIT))?;
        let prompt = u128::from(self.prompt.0).checked_mul(u128::from(prompt.0))?;
        let left = exact.checked_sub(prompt)?;
        let price = u128::from(self.completion.0);
        let tokens = left.checked_div(price).unwrap_or(u128::MAX);
        Some(Tokens(u32::try_from(tokens).unwrap_or(u32::MAX)))
    }
}

/// A length of time, in milliseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(u64);

impl Millis {
    /// A length in milliseconds.
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// A length in seconds; the largest length when it does not fit.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// The length in milliseconds.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The same length for the standard library's timers.
    pub const fn to_duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

/// A point in time: milliseconds since the Unix epoch, as the local clock has it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch itself; also "never" in records that have no time yet.
    pub const EPOCH: Self = Self(0);
    /// The end of time.
    pub const MAX: Self = Self(u64::MAX);

    /// From milliseconds since the Unix epoch.
    pub const fn from_unix_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the Unix epoch.
    pub const fn from_unix_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_unix_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_unix_secs(self) -> u64 {
        match self.0.checked_div(1000) {
            Some(secs) => secs,
            None => 0,
        }
    }

    /// The point `after` this one, or the end of time.
    #[must_use]
    pub const fn after(self, after: Millis) -> Self {
        Self(self.0.saturating_add(after.0))
    }

    /// How long after `earlier` this is; zero when it is before it.
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_shown_in_ton_without_trailing_zeros() {
        let shown = |nano| NanoTon::from_nano(nano).to_string();
        assert_eq!(shown(0), "0 TON");
        assert_eq!(shown(500_000_000), "0.5 TON");
        assert_eq!(shown(1), "0.000000001 TON");
        assert_eq!(shown(12_000_000_001), "12.000000001 TON");
    }

    #[test]
    fn a_bare_number_is_not_an_amount() {
        assert_eq!("5".parse::<NanoTon>(), Err(ParseAmountError::NoUnit));
        assert_eq!("0.5 TON".parse::<NanoTon>(), Ok(NanoTon::from_nano(500_000_000)));
        assert_eq!("7 nanoTON".parse::<NanoTon>(), Ok(NanoTon::from_nano(7)));
        assert!(matches!("-1 TON".parse::<NanoTon>(), Err(ParseAmountError::NotANumber(_))));
        assert!(matches!("0.0000000001 TON".parse::<NanoTon>(), Err(ParseAmountError::TooFine(_))));
        assert_eq!("99999999999 TON".parse::<NanoTon>(), Err(ParseAmountError::TooLarge));
        assert!("é TON".parse::<NanoTon>().is_err());
    }

    proptest! {
        #[test]
        fn an_amount_survives_display_and_parse(nano: u64) {
            let amount = NanoTon::from_nano(nano);
            prop_assert_eq!(amount.to_string().parse::<NanoTon>(), Ok(amount));
        }

        #[test]
        fn parsing_an_amount_never_panics(text in ".{0,40}") {
            let _ = text.parse::<NanoTon>();
        }

        #[test]
        fn a_price_never_undercharges_and_never_by_more_than_one_nano_over(
            prompt_price in 0u64..1 << 40, completion_price in 0u64..1 << 40,
            prompt: u32, completion: u32,
        ) {
            let prices = Prices {
                prompt: PricePerMillion::from_nano(prompt_price),
                completion: PricePerMillion::from_nano(completion_price),
            };
            let exact = u128::from(prompt_price) * u128::from(prompt)
                + u128::from(completion_price) * u128::from(completion);
            let charged = prices.cost(Tokens::new(prompt), Tokens::new(completion)).unwrap();
            let charged = u128::from(charged.as_nano()) * 1_000_000;
            prop_assert!(charged >= exact && charged < exact + 1_000_000);
        }

        #[test]
        fn the_cost_of_a_job_does_not_depend_on_its_steps(price in 0u64..1 << 40, steps in prop::collection::vec(1u32..33, 1..50)) {
            let prices = Prices { prompt: PricePerMillion::FREE, completion: PricePerMillion::from_nano(price) };
            let (mut total, mut paid) = (0u32, NanoTon::ZERO);
            for step in steps {
                let before = prices.cost(Tokens::ZERO, Tokens::new(total)).unwrap();
                total += step;
                let after = prices.cost(Tokens::ZERO, Tokens::new(total)).unwrap();
                paid = paid.checked_add(after.checked_sub(before).unwrap()).unwrap();
            }
            prop_assert_eq!(Some(paid), prices.cost(Tokens::ZERO, Tokens::new(total)));
        }
    }
}
