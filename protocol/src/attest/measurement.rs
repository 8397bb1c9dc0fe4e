//! What a TEE measured: SHA-384 registers, and which of them belong to which vendor.
//!
//! Owns: the registers' form in text, and the sum of the vendors' sets.
//! Must not: know which values are good; the policy does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attest::snp::SnpMeasurements;
use crate::attest::tdx::TdxMeasurements;

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

/// What ran in the guest that made a piece of evidence, by the vendor's own registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and none is moved often")]
pub enum Measured {
    /// A TDX guest.
    Tdx(TdxMeasurements),
    /// A SEV-SNP guest.
    Snp(SnpMeasurements),
}

impl Measured {
    /// The register that stands for the whole guest, by its vendor's name: `mrtd` (the firmware) for
    /// TDX, `measurement` (firmware, kernel, initrd, command line and vCPUs) for SEV-SNP.
    pub const fn leading(&self) -> (&'static str, Register) {
        match self {
            Self::Tdx(measured) => ("mrtd", measured.mrtd),
            Self::Snp(measured) => ("measurement", measured.measurement),
        }
    }
}
