//! What a TEE measured: SHA-384 registers, as TDX has them.
//!
//! Owns: the registers' form in text and their set.
//! Must not: know which values are good; the policy does.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One measurement register: a SHA-384 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register([u8; 48]);

impl Register {
    /// A register that nothing was measured into.
    pub const ZERO: Self = Self([0; 48]);

    /// From its 48 bytes.
    pub const fn from_bytes(bytes: [u8; 48]) -> Self {
        Self(bytes)
    }

    /// Its 48 bytes.
    pub const fn as_bytes(&self) -> &[u8; 48] {
        &self.0
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = hex::encode(self.0);
        write!(f, "Register({}…)", text.get(..12).unwrap_or(&text))
    }
}

impl Serialize for Register {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Register {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 48];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| serde::de::Error::custom("expected 96 hexadecimal digits"))?;
        Ok(Self(bytes))
    }
}

/// Everything that a TDX guest was measured as (Intel TDX module specification, TDINFO_STRUCT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurements {
    /// The initial content of the guest: its firmware.
    pub mrtd: Register,
    /// RTMR0: firmware configuration and the machine's shape. RTMR1: kernel. RTMR2: command line
    /// and initrd. RTMR3: ours, the node's configuration.
    pub rtmr: [Register; 4],
    /// Configuration identity that the host set at launch.
    pub mr_config_id: Register,
    /// Owner that the host set at launch.
    pub mr_owner: Register,
    /// Owner's configuration that the host set at launch.
    pub mr_owner_config: Register,
}
