//! Quantities of a scenario, each with its unit in the text: `20 s`, `20 %`, `5 /s`, `16 GiB`, `0.1 TON`.
//!
//! Owns: what a number in a scenario may look like, exactly: no float decides what a text means.
//! Must not: accept a bare number where a unit is possible.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cocoon_protocol::units::NanoTon;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const NANO: u128 = 1_000_000_000;

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// No unit, or one that does not fit.
    #[error("`{text}` needs one of the units {units}, as in `{example}`")]
    Unit {
        /// What was written.
        text: String,
        /// What fits.
        units: &'static str,
        /// How it is written.
        example: &'static str,
    },
    /// The number before the unit is no plain decimal number with at most nine decimals.
    #[error("`{0}` is not a plain decimal number with at most nine decimals")]
    Number(String),
    /// More than the type holds, or than makes sense.
    #[error("`{text}` is out of range: {range} is allowed")]
    Range {
        /// What was written.
        text: String,
        /// What is allowed.
        range: &'static str,
    },
}

/// A decimal number in billionths, exactly.
fn billionths(text: &str) -> Result<u128, QuantityError> {
    let wrong = || QuantityError::Number(text.to_owned());
    let plain = text.replace('_', "");
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 20 || fraction.len() > 9 {
        return Err(wrong());
    }
    if !digits(whole) || !digits(fraction) {
        return Err(wrong());
    }
    let whole: u128 = whole.parse().map_err(|_| wrong())?;
    let fraction: u128 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    Ok(whole * NANO + fraction)
}

/// Billionths as the shortest decimal number.
fn decimal(nano: u128) -> String {
    let (whole, rest) = (nano / NANO, nano % NANO);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{}", format!("{rest:09}").trim_end_matches('0'))
}

/// Splits `12.5 ms` into the number and the unit.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|it: char| !(it.is_ascii_digit() || it == '.' || it == '_'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

/// Serde for a type that is written as a text with a unit.
macro_rules! as_text {
    ($type:ty, $expecting:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                from.deserialize_str(Text)
            }
        }
    };
}

/// A length of time: `250 ms`, `20 s`, `2 h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

const TIMES: [(&str, u128); 7] = [
    ("d", 86_400 * NANO),
    ("h", 3_600 * NANO),
    ("min", 60 * NANO),
    ("s", NANO),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// Whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Whole milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Whole microseconds.
    pub const fn micros(micros: u64) -> Self {
        Self(Duration::from_micros(micros))
    }

    /// For the standard library.
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// In seconds, for arithmetic that is quantised later.
    pub fn as_secs_f64(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// Whole microseconds.
    pub fn as_micros(self) -> u64 {
        u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split(text);
        let Some((_, size)) = TIMES.iter().find(|(name, _)| *name == unit) else {
            let units = "d, h, min, s, ms, us, ns";
            return Err(QuantityError::Unit { text: text.to_owned(), units, example: "20 s" });
        };
        let out = || QuantityError::Range { text: text.to_owned(), range: "at most 100000 d" };
        let nanos = billionths(number)?.checked_mul(*size).ok_or_else(out)? / NANO;
        if nanos > 100_000 * 86_400 * NANO {
            return Err(out());
        }
        let nanos = u64::try_from(nanos).map_err(|_| out())?;
        Ok(Self(Duration::from_nanos(nanos)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0 s");
        }
        let whole = TIMES.iter().find(|(_, size)| nanos.is_multiple_of(*size));
        let (name, size) = whole.copied().unwrap_or(("ns", 1));
        write!(f, "{} {name}", nanos / size)
    }
}

as_text!(Span, "a length of time such as \"20 s\"");

/// A share from 0 % to 100 %, in billionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self(1_000_000_000);

    /// Whole per cent; more than 100 are 100.
    pub const fn percent(percent: u32) -> Self {
        if percent >= 100 { Self::ALL } else { Self(percent * 10_000_000) }
    }

    /// In billionths; more than all is all.
    pub const fn billionths(billionths: u32) -> Self {
        if billionths > Self::ALL.0 { Self::ALL } else { Self(billionths) }
    }

    /// In billionths.
    pub const fn as_billionths(self) -> u32 {
        self.0
    }

    /// From 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1e9
    }

    /// This share of a number, rounded to the nearest.
    pub fn of(self, number: u32) -> u32 {
        let product = u64::from(self.0) * u64::from(number) + 500_000_000;
        u32::try_from(product / 1_000_000_000).unwrap_or(u32::MAX)
    }

    /// Whether a draw of 64 random bits falls into the share.
    pub fn takes(self, draw: u64) -> bool {
        (u128::from(draw) * u128::from(Self::ALL.0)) >> 64 < u128::from(self.0)
    }
}

impl FromStr for Share {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split(text);
        if unit != "%" {
            let text = text.to_owned();
            return Err(QuantityError::Unit { text, units: "%", example: "20 %" });
        }
        let share = billionths(number)? / 100;
        let out = || QuantityError::Range { text: text.to_owned(), range: "0 % to 100 %" };
        u32::try_from(share).ok().filter(|it| *it <= Self::ALL.0).map(Self).ok_or_else(out)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", decimal(u128::from(self.0) * 100))
    }
}

as_text!(Share, "a share such as \"20 %\"");

/// How often something happens: `5 /s`, `0.5 /min`, `20 %/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    nano: u64,
    per: u32,
}

const RATES: [(&str, u32); 4] = [("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400)];

impl Rate {
    /// Never.
    pub const NEVER: Self = Self { nano: 0, per: 1 };

    /// So often in a second.
    pub const fn per_second(count: u32) -> Self {
        Self { nano: count as u64 * 1_000_000_000, per: 1 }
    }

    /// So often in an hour.
    pub const fn per_hour(count: u32) -> Self {
        Self { nano: count as u64 * 1_000_000_000, per: 3_600 }
    }

    /// How often in a second.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
    pub fn each_second(self) -> f64 {
        self.nano as f64 / 1e9 / f64::from(self.per)
    }

    /// Whether it never happens.
    pub const fn is_never(self) -> bool {
        self.nano == 0
    }

    /// `factor` times as often, to a billionth.
    #[must_use]
    pub fn times(self, factor: Share) -> Self {
        let nano = u128::from(self.nano) * u128::from(factor.0) / NANO;
        Self { nano: u64::try_from(nano).unwrap_or(u64::MAX), per: self.per }
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self::NEVER
    }
}

impl FromStr for Rate {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split(text);
        let wrong = || QuantityError::Unit {
            text: text.to_owned(),
            units: "/s, /min, /h, /d, %/s, %/min, %/h, %/d",
            example: "5 /s",
        };
        let (unit, divisor) = unit.strip_prefix('%').map_or((unit, 1), |rest| (rest, 100));
        let unit = unit.trim().strip_prefix('/').ok_or_else(wrong)?.trim();
        let (_, per) = RATES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let nano = billionths(number)? / divisor;
        let out = || QuantityError::Range { text: text.to_owned(), range: "at most 1000000000" };
        let nano = u64::try_from(nano).ok().filter(|it| *it <= 1_000_000_000_000_000_000);
        Ok(Self { nano: nano.ok_or_else(out)?, per: *per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = RATES.iter().find(|(_, per)| *per == self.per).map_or("s", |(name, _)| name);
        write!(f, "{} /{unit}", decimal(u128::from(self.nano)))
    }
}

as_text!(Rate, "a rate such as \"5 /s\" or \"20 %/h\"");

/// An amount of memory: `24 GiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Memory(u64);

const SIZES: [(&str, u128); 7] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", NANO),
    ("MB", 1_000_000),
    ("B", 1),
];

impl Memory {
    /// Whole gibibytes.
    pub const fn gib(gib: u32) -> Self {
        Self((gib as u64) << 30)
    }

    /// Bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Memory {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split(text);
        let Some((_, size)) = SIZES.iter().find(|(name, _)| *name == unit) else {
            let units = "TiB, GiB, MiB, KiB, GB, MB, B";
            return Err(QuantityError::Unit { text: text.to_owned(), units, example: "24 GiB" });
        };
        let bytes = billionths(number)?.checked_mul(*size).map(|it| it / NANO);
        let fits = bytes.and_then(|it| u64::try_from(it).ok()).filter(|it| *it <= 1 << 60);
        let out = || QuantityError::Range { text: text.to_owned(), range: "at most 1048576 TiB" };
        fits.map(Self).ok_or_else(out)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = u128::from(self.0);
        let whole = SIZES.iter().find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size));
        let (name, size) = whole.copied().unwrap_or(("B", 1));
        write!(f, "{} {name}", bytes / size)
    }
}

as_text!(Memory, "an amount of memory such as \"24 GiB\"");

/// What a link carries: `100 Mbit/s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bandwidth(u64);

const BITS: [(&str, u64); 4] =
    [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000), ("bit/s", 1)];

impl Bandwidth {
    /// Whole megabits in a second.
    pub const fn megabits(megabits: u32) -> Self {
        Self(megabits as u64 * 1_000_000)
    }

    /// Bits in a second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }

    /// Bytes in a second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }
}

impl FromStr for Bandwidth {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split(text);
        let Some((_, size)) = BITS.iter().find(|(name, _)| *name == unit) else {
            let units = "Gbit/s, Mbit/s, kbit/s, bit/s";
            return Err(QuantityError::Unit {
                text: text.to_owned(),
                units,
                example: "100 Mbit/s",
            });
        };
        let out =
            || QuantityError::Range { text: text.to_owned(), range: "8 bit/s to 10000 Gbit/s" };
        let bits = billionths(number)?.checked_mul(u128::from(*size)).ok_or_else(out)? / NANO;
        let bits = u64::try_from(bits).map_err(|_| out())?;
        if !(8..=10_000_000_000_000).contains(&bits) {
            return Err(out());
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = BITS.iter().find(|(_, size)| self.0 > 0 && self.0.is_multiple_of(*size));
        let (name, size) = whole.copied().unwrap_or(("bit/s", 1));
        write!(f, "{} {name}", self.0 / size)
    }
}

as_text!(Bandwidth, "a bandwidth such as \"100 Mbit/s\"");

/// How fast an engine reads or writes: `130 tokens/s`, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Speed(u64);

impl Speed {
    /// Whole tokens in a second.
    pub const fn tokens(tokens: u32) -> Self {
        Self(tokens as u64 * 1_000)
    }

    /// Tokens in a second.
    #[expect(clippy::cast_precision_loss, reason = "bounded below 2^53 by its parser")]
    pub fn per_second(self) -> f64 {
        self.0 as f64 / 1e3
    }
}

impl FromStr for Speed {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split(text);
        if unit != "tokens/s" {
            let (text, units) = (text.to_owned(), "tokens/s");
            return Err(QuantityError::Unit { text, units, example: "130 tokens/s" });
        }
        let milli = billionths(number)? / 1_000_000;
        let range = "0.001 tokens/s to 10000000 tokens/s";
        let fits = u64::try_from(milli).ok().filter(|it| (1..=10_000_000_000).contains(it));
        fits.map(Self).ok_or_else(|| QuantityError::Range { text: text.to_owned(), range })
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens/s", decimal(u128::from(self.0) * 1_000_000))
    }
}

as_text!(Speed, "a speed such as \"130 tokens/s\"");

/// Money: `0.1 TON`, `250 nanoTON`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(pub NanoTon);

impl Money {
    /// Thousandths of a TON.
    pub const fn milli_ton(milli: u32) -> Self {
        Self(NanoTon::from_nano(milli as u64 * 1_000_000))
    }
}

impl FromStr for Money {
    type Err = <NanoTon as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

as_text!(Money, "an amount of money such as \"0.1 TON\"");

/// A part of a population: a number of them (`12`) or a share (`"20 %"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// So many.
    Count(u32),
    /// So large a share.
    Share(Share),
}

impl Portion {
    /// How many of `whole` it is; never more than all.
    pub fn of(self, whole: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(whole),
            Self::Share(share) => share.of(whole),
        }
    }
}

impl Serialize for Portion {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => to.serialize_u32(*count),
            Self::Share(share) => share.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Portion {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl de::Visitor<'_> for Either {
            type Value = Portion;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of nodes such as 12, or a share such as \"20 %\"")
            }
            fn visit_i64<E: de::Error>(self, count: i64) -> Result<Portion, E> {
                let wrong = || E::custom(format!("{count} is out of range: 0 to 4294967295"));
                u32::try_from(count).map(Portion::Count).map_err(|_| wrong())
            }
            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Portion, E> {
                let wrong = || E::custom(format!("{count} is out of range: 0 to 4294967295"));
                u32::try_from(count).map(Portion::Count).map_err(|_| wrong())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Portion, E> {
                text.parse().map(Portion::Share).map_err(E::custom)
            }
        }
        from.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_unit_is_part_of_the_text() {
        assert_eq!("20 s".parse(), Ok(Span::seconds(20)));
        assert_eq!("1.5ms".parse(), Ok(Span::micros(1500)));
        assert_eq!("2 h".parse(), Ok(Span::seconds(7200)));
        assert!(matches!("20".parse::<Span>(), Err(QuantityError::Unit { .. })));
        assert!(matches!("-1 s".parse::<Span>(), Err(QuantityError::Unit { .. })));
        assert!(matches!("101 %".parse::<Share>(), Err(QuantityError::Range { .. })));
        assert_eq!("20 %".parse(), Ok(Share::percent(20)));
        assert_eq!("16 GiB".parse(), Ok(Memory::gib(16)));
        let churn: Rate = "20 %/h".parse().unwrap();
        assert!((churn.each_second() - 0.2 / 3600.0).abs() < 1e-15);
        assert_eq!(churn.to_string(), "0.2 /h");
        assert_eq!("100 Mbit/s".parse(), Ok(Bandwidth::megabits(100)));
        assert!("1e99 tokens/s".parse::<Speed>().is_err());
    }

    #[test]
    fn a_share_of_a_number_rounds_to_the_nearest() {
        assert_eq!(Share::percent(30).of(5), 2);
        assert_eq!(Share::ALL.of(u32::MAX), u32::MAX);
        assert!(Share::ALL.takes(u64::MAX));
        assert!(!Share::NONE.takes(0));
    }

    proptest! {
        #[test]
        fn quantities_survive_display_and_parse(nanos in 0..8_000_000_000_000_000_000u64, ppb in 0..=1_000_000_000u32, bytes in 0..=1u64 << 60, bits in 8..10_000_000_000_000u64, milli in 1..10_000_000_000u64) {
            let span = Span::from(Duration::from_nanos(nanos));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            let share = Share::billionths(ppb);
            prop_assert_eq!(share.to_string().parse(), Ok(share));
            prop_assert_eq!(Memory(bytes).to_string().parse(), Ok(Memory(bytes)));
            prop_assert_eq!(Bandwidth(bits).to_string().parse(), Ok(Bandwidth(bits)));
            prop_assert_eq!(Speed(milli).to_string().parse(), Ok(Speed(milli)));
            for (_, per) in RATES {
                let rate = Rate { nano: bits, per };
                prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}", number in "[0-9._]{0,40}", unit in "[a-zA-Z%/ ]{0,8}") {
            for text in [text, format!("{number}{unit}")] {
                let _ = text.parse::<Span>();
                let _ = text.parse::<Share>();
                let _ = text.parse::<Rate>();
                let _ = text.parse::<Memory>();
                let _ = text.parse::<Bandwidth>();
                let _ = text.parse::<Speed>();
                let _ = text.parse::<Money>();
            }
        }
    }
}
