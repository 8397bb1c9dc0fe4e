//! What a verified GPU report claims.
//!
//! Owns: the claims' form. Must not: judge them; `appraisal` does.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::attest::gpu::evidence::GpuEvidenceKind;
use crate::attest::measurement::Register;
use crate::units::Timestamp;

/// A family of GPUs that can prove confidential computing, by the name of the chip that NVIDIA's
/// device certificates carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GpuArchitecture {
    /// Hopper: H100, H200, GH200.
    #[serde(rename = "GH100")]
    Hopper,
    /// Blackwell: B100, B200, GB200.
    #[serde(rename = "GB100")]
    Blackwell,
}

/// The text names no architecture that this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a known GPU architecture: use GH100 or GB100")]
pub struct ParseArchitectureError;

impl GpuArchitecture {
    /// NVIDIA's name of the chip.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hopper => "GH100",
            Self::Blackwell => "GB100",
        }
    }
}

impl fmt::Display for GpuArchitecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for GpuArchitecture {
    type Err = ParseArchitectureError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "GH100" => Ok(Self::Hopper),
            "GB100" => Ok(Self::Blackwell),
            _ => Err(ParseArchitectureError),
        }
    }
}

/// What a GPU's report claims, after chain and signature were verified up to a trusted root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuClaims {
    /// Real or simulated.
    pub kind: GpuEvidenceKind,
    /// The family, by the certificate that NVIDIA's root signed.
    pub architecture: GpuArchitecture,
    /// SHA-256 of the certificates' SubjectPublicKeyInfo, the report's signer first and the root last.
    /// Of the keys, not of the certificates: anybody can give an ECDSA signature another form that
    /// holds as well, and with it a certificate another hash.
    pub keys: Vec<[u8; 32]>,
    /// When the first of them ends.
    pub certificates_expire: Timestamp,
    /// The nonce that the GPU was asked with.
    pub nonce: [u8; 32],
    /// Version of the driver in the guest.
    pub driver: String,
    /// Version of the GPU's VBIOS, as `96.00.9F.00.01`.
    pub vbios: String,
    /// Whether the report repeats the firmware's identity (DICE FWID) of its certificate. Reports of
    /// early drivers do not. One that repeats another is no claim but a refusal.
    pub names_firmware: bool,
    /// Whether the video decoder is switched off; measurement 35 has no golden value then.
    pub decoder_disabled: bool,
    /// SHA-384 measurements by NVIDIA's index, which counts from 0.
    pub measurements: BTreeMap<u8, Register>,
}

impl GpuClaims {
    /// Which machine's GPU it is: the hash of the key that was burnt into the device and that NVIDIA
    /// certified, which outlives updates of its firmware.
    pub fn device(&self) -> [u8; 32] {
        self.keys.get(1).copied().unwrap_or_default()
    }
}
