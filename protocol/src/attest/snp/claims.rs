//! What a verified SEV-SNP report says about a guest and its platform.
//!
//! Owns: the vocabulary of AMD's products, firmware levels and report fields.
//! Must not: judge; the appraisal beside it does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attest::evidence::REPORT_DATA_BYTES;
use crate::attest::measurement::Register;
use crate::units::Timestamp;

/// A family of processors that shares AMD's root and intermediate certificates (AMD, *VCEK
/// Certificate and KDS Interface Specification*, 57230).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SnpProduct {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004: Genoa, Bergamo, Siena.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl SnpProduct {
    /// AMD's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// Whether its firmware level has a component for the FMC boot loader.
    pub const fn has_fmc(self) -> bool {
        match self {
            Self::Milan | Self::Genoa => false,
            Self::Turin => true,
        }
    }
}

impl fmt::Display for SnpProduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A firmware level: the security version of each component (AMD, *SEV Secure Nested Paging Firmware
/// ABI*, 56860, `TCB_VERSION`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpTcb {
    /// FMC boot loader; zero where the product has none.
    #[serde(default)]
    pub fmc: u8,
    /// Boot loader.
    #[serde(rename = "bl")]
    pub boot_loader: u8,
    /// The secure processor's operating system.
    pub tee: u8,
    /// The SEV-SNP firmware.
    pub snp: u8,
    /// Microcode.
    #[serde(rename = "ucode")]
    pub microcode: u8,
}

impl SnpTcb {
    /// The components by their names in a policy.
    pub const fn components(&self) -> [(&'static str, u8); 5] {
        [
            ("fmc", self.fmc),
            ("bl", self.boot_loader),
            ("tee", self.tee),
            ("snp", self.snp),
            ("ucode", self.microcode),
        ]
    }
}

impl fmt::Display for SnpTcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [fmc, boot_loader, tee, snp, microcode] = self.components().map(|(_, version)| version);
        write!(f, "fmc {fmc}, bl {boot_loader}, tee {tee}, snp {snp}, ucode {microcode}")
    }
}

/// Which key signed a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnpSigningKey {
    /// The chip's own (VCEK).
    Vcek,
    /// One that AMD gave to a provider of machines for all of its chips (VLEK).
    Vlek,
}

/// 32 bytes that the host set at launch; the guest can read them in its report.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostData([u8; 32]);

impl HostData {
    /// What a host that sets nothing leaves.
    pub const ZERO: Self = Self([0; 32]);

    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for HostData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for HostData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostData({self})")
    }
}

impl Serialize for HostData {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostData {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| serde::de::Error::custom("expected 64 hexadecimal digits"))?;
        Ok(Self(bytes))
    }
}

/// Everything that a SEV-SNP guest was launched as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnpMeasurements {
    /// The launch digest: firmware, vCPU state, and the hashes of kernel, initrd and command line
    /// where the firmware checks them.
    pub measurement: Register,
    /// What the host set at launch.
    pub host_data: HostData,
    /// SHA-384 of the key that signed the guest's identity block; zero without one.
    pub id_key_digest: Register,
    /// SHA-384 of the key that certified that key; zero without one.
    pub author_key_digest: Register,
    /// Version of the guest, from its identity block.
    pub guest_svn: u32,
}

/// What a SEV-SNP report claims, after every signature was verified up to a trusted root, and the
/// signing certificate was found to be made for this chip and firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpClaims {
    /// The root was the public test root.
    pub simulated: bool,
    /// The processor's family, by the root that the certificates end at.
    pub product: SnpProduct,
    /// Which key signed.
    pub signing_key: SnpSigningKey,
    /// The privilege level that asked for the report; 0 is the highest.
    pub vmpl: u32,
    /// What the guest's owner demands of a host (56860, `GUEST_POLICY`).
    pub guest_policy: u64,
    /// How the platform is configured (56860, `PLATFORM_INFO`).
    pub platform_info: u64,
    /// What was launched.
    pub measurements: SnpMeasurements,
    /// What the guest bound the report to.
    pub report_data: [u8; REPORT_DATA_BYTES],
    /// The firmware level that the signing key was derived for.
    pub reported_tcb: SnpTcb,
    /// The firmware level at the guest's launch.
    pub launch_tcb: SnpTcb,
    /// The chip's identity; Turin's eight bytes are followed by zeros.
    pub chip_id: [u8; 64],
    /// When the revocation list was issued.
    pub crl_issued: Timestamp,
    /// When the first certificate or the revocation list ends.
    pub endorsements_expire: Timestamp,
}
