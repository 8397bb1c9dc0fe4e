//! The three tiers of protection, and their order.
//!
//! Owns: the names. Must not: decide which tier evidence earns; the policy does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How well a prompt is protected from the provider's owner. Ordered: a higher tier serves
/// whoever asked for a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Identity only: the provider can read everything.
    Open,
    /// A CPU TEE with a listed measurement, bound to this session.
    Attested,
    /// As attested, and GPU confidential-computing evidence bound to the same session.
    Confidential,
}

/// The text is none of `open`, `attested`, `confidential`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a tier: use open, attested or confidential")]
pub struct ParseTierError(String);

impl Tier {
    /// The tier's name on the wire of HTTP and in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Attested => "attested",
            Self::Confidential => "confidential",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Tier {
    type Err = ParseTierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "open" => Ok(Self::Open),
            "attested" => Ok(Self::Attested),
            "confidential" => Ok(Self::Confidential),
            other => Err(ParseTierError(other.to_owned())),
        }
    }
}
