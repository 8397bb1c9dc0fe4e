//! Settings that choose between implementations of a port.
//!
//! Owns: the choices. Must not: make what was chosen.

use std::fmt;

use cocoon_engine::catalogue::HASH_PREFIX;
use cocoon_ledger::address::FriendlyAddress;
use cocoon_protocol::identity::{ModelHash, TonAddress};

use super::value::Name;

/// Which evidence a provider makes about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttesterChoice {
    /// The TEE that the machine runs in, if any; otherwise none.
    Auto,
    /// None, even inside a TEE.
    Open,
    /// Intel TDX; no start without it.
    Tdx,
    /// AMD SEV-SNP; no start without it.
    Snp,
    /// A simulated TEE (TDX), for demonstrations and tests. Protects nothing.
    Simulated,
    /// The same as a simulated SEV-SNP guest.
    SimulatedSnp,
}

impl AttesterChoice {
    /// Whether it protects nothing.
    pub const fn is_simulated(self) -> bool {
        matches!(self, Self::Simulated | Self::SimulatedSnp)
    }
}

/// Which GPUs prove themselves beside the TEE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuAttesterChoice {
    /// Those of the machine that can, if any.
    Auto,
    /// NVIDIA's; no start without them.
    Nvidia,
    /// None.
    None,
    /// Simulated ones, for demonstrations and tests. They protect nothing.
    Simulated,
}

/// Which engine serves the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// llama.cpp in a child process.
    Llama,
    /// Deterministic text, for tests and load.
    Echo,
}

/// Which model to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelChoice {
    /// By its name in the catalogue.
    Named(Name),
    /// By its hash, written as `blake3:<64 hexadecimal digits>`.
    Hashed(ModelHash),
}

impl fmt::Display for ModelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(f),
            Self::Hashed(hash) => write!(f, "{HASH_PREFIX}{hash}"),
        }
    }
}

/// Where the TON ledger is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerChoice {
    /// Inside this process: a real TVM on a chain of its own.
    Embedded,
    /// Behind liteservers, which prove what they say.
    Liteservers,
    /// Behind a toncenter-shaped HTTP interface at this URL.
    Remote(String),
}

impl fmt::Display for LedgerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Liteservers => f.write_str("liteservers"),
            Self::Remote(url) => f.write_str(url),
        }
    }
}

/// Where a service is: an `http://` or `https://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl(String);

impl ServiceUrl {
    /// A URL, or `None` when the text is not one.
    pub fn new(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        (!host.is_empty() && printable).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An account on TON, in any form that people copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalletAddress {
    address: TonAddress,
    test_only: bool,
}

impl WalletAddress {
    /// Reads `EQ…`, `UQ…`, `kQ…`, `0Q…` or `0:…`; `None` when it is none, or mistyped.
    pub fn new(text: &str) -> Option<Self> {
        if let Ok(friendly) = text.parse::<FriendlyAddress>() {
            return Some(Self { address: friendly.address, test_only: friendly.test_only });
        }
        TonAddress::from_raw(text).map(|address| Self { address, test_only: false })
    }

    /// The address itself.
    pub const fn address(self) -> TonAddress {
        self.address
    }

    /// Whether it says that it is not for the main network.
    pub const fn is_test_only(self) -> bool {
        self.test_only
    }
}

impl fmt::Display for WalletAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, test_only } = *self;
        FriendlyAddress { address, bounceable: false, test_only }.fmt(f)
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Which log lines are written: `RUST_LOG` syntax, checked when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// A filter, or `None` when the text is not one.
    pub fn new(text: &str) -> Option<Self> {
        // Filters are ASCII; the library's own reader panics on some other texts.
        let legal = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if text.is_empty() || !text.bytes().all(legal) {
            return None;
        }
        tracing_subscriber::EnvFilter::try_new(text).ok().map(|_| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
