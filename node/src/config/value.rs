//! Reading and writing a setting's value: every type that a setting may have.
//!
//! Owns: the text form of each type, strict on input and canonical on output.
//! Must not: know which setting it reads, or where the text came from.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

use cocoon_engine::catalogue::HASH_PREFIX;
use cocoon_ledger::liteserver::ServerAddress;
use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{ModelHash, Network};
use cocoon_protocol::limits;
use cocoon_protocol::units::{Millis, NanoTon, ParseAmountError, PricePerMillion, Tokens};
use multiaddr::Multiaddr;
use zeroize::Zeroizing;

use super::choice::{
    AttesterChoice, EngineChoice, GpuAttesterChoice, LedgerChoice, LogFilter, LogFormat,
    ModelChoice, ServiceUrl, WalletAddress,
};
use super::setting::Kind;

/// A value as it was given, before it means anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// One text. In the environment and as a flag, a list may come as one text with commas.
    One(String),
    /// The elements of a list.
    Many(Vec<String>),
}

/// A value as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Optional and not set.
    Unset,
    /// A text or a path.
    Text(String),
    /// A whole number.
    Integer(u64),
    /// A switch.
    Boolean(bool),
    /// A list of texts.
    List(Vec<String>),
    /// Set, and not for anyone's eyes.
    Redacted,
}

/// Why a text is not a value of its type. Never holds the text itself: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not one of a few words.
    #[error("expected one of: {0}")]
    NotOneOf(&'static str),
    /// Not an amount of money.
    #[error("not an amount")]
    Amount(#[source] ParseAmountError),
    /// Not a number, or out of its range.
    #[error("expected a whole number from {least} to {most}")]
    Number {
        /// Smallest legal value.
        least: u64,
        /// Largest legal value.
        most: u64,
    },
    /// Not a length of time.
    #[error("expected a length of time with its unit, such as `500 ms`, `60 s`, `10 min` or `6 h`")]
    Duration,
    /// Not an address to listen on.
    #[error("expected an address and a port, such as `127.0.0.1:10000`")]
    SocketAddress,
    /// Not a peer's address.
    #[error("expected a multiaddress, such as `/ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3…`")]
    PeerAddress,
    /// None of the ledgers that there are.
    #[error("expected `embedded`, `liteservers` or a URL, such as `http://127.0.0.1:8081`")]
    Ledger,
    /// Not the URL of a service.
    #[error("expected a URL, such as `https://pccs.example`")]
    Url,
    /// Not an account on TON, or a mistyped one.
    #[error("expected an address such as `UQ…`, or `0:` and 64 hexadecimal digits; copy it again")]
    WalletAddress,
    /// Not a liteserver's address.
    #[error("expected a liteserver as IP:PORT:KEY, with its Ed25519 key in base64")]
    Liteserver,
    /// Not a log filter.
    #[error("expected a filter, such as `info` or `info,cocoon_node=debug`")]
    LogFilter,
    /// A name with characters that names do not have, or too long.
    #[error("expected 1 to {} letters, digits or any of `-._:/`", limits::MODEL_NAME_BYTES)]
    Name,
    /// `blake3:` without a hash.
    #[error("`{HASH_PREFIX}` must be followed by 64 hexadecimal digits")]
    ModelHash,
    /// Empty where something is needed.
    #[error("must not be empty")]
    Empty,
    /// A list where one value is needed.
    #[error("expected one value, not several")]
    Several,
}

/// A type that a setting may have.
pub trait SettingValue: Sized {
    /// How it is written in a file.
    const KIND: Kind;

    /// Reads it; `None` when the setting is optional and nothing was given.
    fn read(raw: Option<&Raw>) -> Result<Self, ValueError>;

    /// Writes it, so that reading it again gives the same value.
    fn show(&self) -> Shown;
}

/// A type that is written as one text.
pub trait TextValue: Sized {
    /// How it is written in a file.
    const KIND: Kind = Kind::Text;
    /// Reads it.
    fn from_text(text: &str) -> Result<Self, ValueError>;
    /// Writes it.
    fn shown(&self) -> Shown;
}

impl<T: TextValue> SettingValue for T {
    const KIND: Kind = <T as TextValue>::KIND;

    fn read(raw: Option<&Raw>) -> Result<Self, ValueError> {
        match raw {
            None => Err(ValueError::Empty),
            Some(Raw::One(text)) => Self::from_text(text.trim()),
            Some(Raw::Many(texts)) => match texts.as_slice() {
                [text] => Self::from_text(text.trim()),
                [] => Err(ValueError::Empty),
                [_, _, ..] => Err(ValueError::Several),
            },
        }
    }

    fn show(&self) -> Shown {
        self.shown()
    }
}

impl<T: TextValue> SettingValue for Option<T> {
    const KIND: Kind = T::KIND;

    /// An empty text unsets the setting, so that a flag can take back what a file says.
    fn read(raw: Option<&Raw>) -> Result<Self, ValueError> {
        match raw {
            None => Ok(None),
            Some(Raw::One(text)) if text.trim().is_empty() => Ok(None),
            Some(raw) => T::read(Some(raw)).map(Some),
        }
    }

    fn show(&self) -> Shown {
        self.as_ref().map_or(Shown::Unset, TextValue::shown)
    }
}

/// The elements of a list, however it was given.
fn elements<T: std::str::FromStr>(
    raw: Option<&Raw>,
    bad: &ValueError,
) -> Result<Vec<T>, ValueError> {
    let texts = match raw {
        None => return Ok(Vec::new()),
        Some(Raw::One(text)) => std::slice::from_ref(text),
        Some(Raw::Many(texts)) => texts.as_slice(),
    };
    texts
        .iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().map_err(|_| bad.clone()))
        .collect()
}

impl SettingValue for Vec<ServerAddress> {
    const KIND: Kind = Kind::List;

    fn read(raw: Option<&Raw>) -> Result<Self, ValueError> {
        elements(raw, &ValueError::Liteserver)
    }

    fn show(&self) -> Shown {
        Shown::List(self.iter().map(ToString::to_string).collect())
    }
}

impl SettingValue for Vec<Multiaddr> {
    const KIND: Kind = Kind::List;

    fn read(raw: Option<&Raw>) -> Result<Self, ValueError> {
        elements(raw, &ValueError::PeerAddress)
    }

    fn show(&self) -> Shown {
        Shown::List(self.iter().map(ToString::to_string).collect())
    }
}

impl TextValue for bool {
    const KIND: Kind = Kind::Boolean;
    fn from_text(text: &str) -> Result<Self, ValueError> {
        match text {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(ValueError::NotOneOf("true, false")),
        }
    }
    fn shown(&self) -> Shown {
        Shown::Boolean(*self)
    }
}

impl TextValue for PathBuf {
    const KIND: Kind = Kind::Path;
    fn from_text(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() { Err(ValueError::Empty) } else { Ok(Self::from(text)) }
    }
    fn shown(&self) -> Shown {
        Shown::Text(self.display().to_string())
    }
}

impl TextValue for NonZeroU16 {
    const KIND: Kind = Kind::Integer;
    fn from_text(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(|_| ValueError::Number { least: 1, most: u16::MAX.into() })
    }
    fn shown(&self) -> Shown {
        Shown::Integer(self.get().into())
    }
}

impl TextValue for NonZeroU32 {
    const KIND: Kind = Kind::Integer;
    fn from_text(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(|_| ValueError::Number { least: 1, most: u32::MAX.into() })
    }
    fn shown(&self) -> Shown {
        Shown::Integer(self.get().into())
    }
}

impl TextValue for Tokens {
    const KIND: Kind = Kind::Integer;
    fn from_text(text: &str) -> Result<Self, ValueError> {
        NonZeroU32::from_text(text).map(|count| Self::new(count.get()))
    }
    fn shown(&self) -> Shown {
        Shown::Integer(self.get().into())
    }
}

impl TextValue for NanoTon {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(ValueError::Amount)
    }
    fn shown(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

impl TextValue for PricePerMillion {
    /// An amount for one million tokens; the words `per million tokens` may follow it.
    fn from_text(text: &str) -> Result<Self, ValueError> {
        let amount = text.strip_suffix("per million tokens").unwrap_or(text);
        NanoTon::from_text(amount.trim_end()).map(|amount| Self::from_nano(amount.as_nano()))
    }
    fn shown(&self) -> Shown {
        NanoTon::from_nano(self.as_nano()).shown()
    }
}

/// Units of time with their length in milliseconds, longest first.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

impl TextValue for Millis {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(ValueError::Duration)?;
        let number: u64 = number.parse().map_err(|_| ValueError::Duration)?;
        let unit = unit.trim_start();
        TIME_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .and_then(|(_, length)| number.checked_mul(*length))
            .map(Self::new)
            .ok_or(ValueError::Duration)
    }
    fn shown(&self) -> Shown {
        Shown::Text(duration_text(*self))
    }
}

/// A length of time in the largest unit that divides it: `6 h`, `90 s`, `1500 ms`.
pub fn duration_text(length: Millis) -> String {
    let millis = length.get();
    let fitting = TIME_UNITS.iter().find(|(_, unit)| millis.checked_rem(*unit) == Some(0));
    match fitting {
        Some((name, unit)) if millis > 0 => {
            format!("{} {name}", millis.checked_div(*unit).unwrap_or(millis))
        }
        Some(_) | None => format!("{} s", millis.checked_div(1_000).unwrap_or(0)),
    }
}

impl TextValue for SocketAddr {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(|_| ValueError::SocketAddress)
    }
    fn shown(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

impl TextValue for Tier {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(|_| ValueError::NotOneOf("open, attested, confidential"))
    }
    fn shown(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

/// A text that must stay unseen: never in `Debug`, in an error or in `config print`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text, for the one place that compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl TextValue for Secret {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::Empty);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
    fn shown(&self) -> Shown {
        Shown::Redacted
    }
}

/// A name of a model or a place: short, printable, without spaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Name {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/".contains(&byte);
        let fits = (1..=limits::MODEL_NAME_BYTES).contains(&text.len());
        if fits && text.bytes().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ValueError::Name)
        }
    }
}

impl TextValue for Name {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        text.parse()
    }
    fn shown(&self) -> Shown {
        Shown::Text(self.0.clone())
    }
}

impl TextValue for ModelChoice {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        match text.strip_prefix(HASH_PREFIX) {
            Some(digits) => {
                ModelHash::from_hex(digits).map(Self::Hashed).ok_or(ValueError::ModelHash)
            }
            None => Name::from_text(text).map(Self::Named),
        }
    }
    fn shown(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

/// Implements [`TextValue`] for an enum of words: one list of words serves both directions.
macro_rules! words {
    ($type:ty, $all:literal, { $($word:literal => $value:path),+ $(,)? }) => {
        impl TextValue for $type {
            fn from_text(text: &str) -> Result<Self, ValueError> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(ValueError::NotOneOf($all)),
                }
            }
            fn shown(&self) -> Shown {
                Shown::Text(match self { $($value => $word,)+ }.to_owned())
            }
        }
    };
}

words!(Network, "devnet, testnet, mainnet", {
    "devnet" => Network::Devnet, "testnet" => Network::Testnet, "mainnet" => Network::Mainnet,
});
words!(AttesterChoice, "auto, tdx, snp, open, simulated, simulated-snp", {
    "auto" => AttesterChoice::Auto,
    "tdx" => AttesterChoice::Tdx,
    "snp" => AttesterChoice::Snp,
    "open" => AttesterChoice::Open,
    "simulated" => AttesterChoice::Simulated,
    "simulated-snp" => AttesterChoice::SimulatedSnp,
});
words!(GpuAttesterChoice, "auto, nvidia, none, simulated", {
    "auto" => GpuAttesterChoice::Auto,
    "nvidia" => GpuAttesterChoice::Nvidia,
    "none" => GpuAttesterChoice::None,
    "simulated" => GpuAttesterChoice::Simulated,
});
words!(EngineChoice, "llama, echo", {
    "llama" => EngineChoice::Llama, "echo" => EngineChoice::Echo,
});
words!(LogFormat, "text, json", { "text" => LogFormat::Text, "json" => LogFormat::Json });

impl TextValue for WalletAddress {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        Self::new(text).ok_or(ValueError::WalletAddress)
    }
    fn shown(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

impl TextValue for LedgerChoice {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        match text {
            "embedded" => return Ok(Self::Embedded),
            "liteservers" => return Ok(Self::Liteservers),
            _ => {}
        }
        let url = ServiceUrl::new(text).ok_or(ValueError::Ledger)?;
        Ok(Self::Remote(url.to_string()))
    }
    fn shown(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

impl TextValue for ServiceUrl {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        Self::new(text).ok_or(ValueError::Url)
    }
    fn shown(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

impl TextValue for LogFilter {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        Self::new(text).ok_or(ValueError::LogFilter)
    }
    fn shown(&self) -> Shown {
        Shown::Text(self.as_str().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_of_time_needs_its_unit() {
        let read = Millis::from_text;
        assert_eq!(read("6 h"), Ok(Millis::from_secs(21_600)));
        assert_eq!(read("6h"), Ok(Millis::from_secs(21_600)));
        assert_eq!(read("10 min"), Ok(Millis::from_secs(600)));
        assert_eq!(read("250ms"), Ok(Millis::new(250)));
        for bad in ["6", "h", "", "-1 s", "1.5 h", "6 hours", "99999999999999999 h", "é s"] {
            assert_eq!(read(bad), Err(ValueError::Duration), "{bad}");
        }
    }

    #[test]
    fn a_price_is_an_amount_for_a_million_tokens() {
        let price = PricePerMillion::from_nano(100_000_000);
        assert_eq!(PricePerMillion::from_text("0.1 TON"), Ok(price));
        assert_eq!(PricePerMillion::from_text(&price.to_string()), Ok(price));
        assert!(PricePerMillion::from_text("0.1").is_err());
    }

    #[test]
    fn a_ledger_is_embedded_or_a_url() {
        assert_eq!(LedgerChoice::from_text("embedded"), Ok(LedgerChoice::Embedded));
        assert_eq!(LedgerChoice::from_text("liteservers"), Ok(LedgerChoice::Liteservers));
        assert!(LedgerChoice::from_text("http://127.0.0.1:8081/").is_ok());
        for bad in ["", "Embedded", "http://", "https:///path", "ftp://host", "http://a b"] {
            assert_eq!(LedgerChoice::from_text(bad), Err(ValueError::Ledger), "{bad}");
        }
    }

    #[test]
    fn a_secret_shows_itself_to_nobody() {
        let secret = Secret::from_text("hunter2").unwrap();
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(secret.shown(), Shown::Redacted);
        assert!(!format!("{secret:?}").contains("hunter2"));
    }

    #[test]
    fn a_log_filter_that_the_library_panics_on_is_refused() {
        // tracing-subscriber 0.3.23 cuts this text inside a character.
        assert_eq!(LogFilter::from_text("\t\u{b9}="), Err(ValueError::LogFilter));
        assert!(LogFilter::from_text("info,cocoon_node[span{job=1}]=debug").is_ok());
    }

    #[test]
    fn an_empty_text_takes_an_optional_setting_back() {
        let read = |text: &str| Option::<PathBuf>::read(Some(&Raw::One(text.into())));
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("policy.toml"), Ok(Some(PathBuf::from("policy.toml"))));
    }

    #[test]
    fn lists_come_repeated_or_with_commas() {
        let commas = Raw::One("/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/tcp/2,".into());
        let repeated =
            Raw::Many(vec!["/ip4/127.0.0.1/tcp/1".into(), "/ip4/127.0.0.1/tcp/2".into()]);
        let read = |raw: &Raw| Vec::<Multiaddr>::read(Some(raw)).unwrap();
        assert_eq!(read(&commas), read(&repeated));
        assert_eq!(read(&commas).len(), 2);
        assert_eq!(
            Vec::<Multiaddr>::read(Some(&Raw::One("tcp".into()))),
            Err(ValueError::PeerAddress)
        );
    }

    proptest! {
        #[test]
        fn a_length_of_time_survives_show_and_read(millis: u64) {
            let length = Millis::new(millis);
            prop_assert_eq!(Millis::from_text(&duration_text(length)), Ok(length));
        }

        #[test]
        fn no_text_panics_any_reader(text in ".{0,40}") {
            let _ = Millis::from_text(&text);
            let _ = LedgerChoice::from_text(&text);
            let _ = LogFilter::from_text(&text);
            let _ = PricePerMillion::from_text(&text);
            let _ = text.parse::<Name>();
            let _ = Vec::<Multiaddr>::read(Some(&Raw::One(text)));
        }
    }
}
