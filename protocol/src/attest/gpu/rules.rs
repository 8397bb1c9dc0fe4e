//! The rules `[gpu]` of a policy.
//!
//! Owns: their form in the file, their validation, and their part of the policy's identity.
//! Must not: be satisfied by nothing: an empty list denies.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::attest::gpu::claims::GpuArchitecture;
use crate::attest::measurement::Register;
use crate::attest::policy::{LIST_ENTRIES, PolicyError, Section};

/// Measurements that NVIDIA's reports hold.
const MEASUREMENTS: u8 = 64;
/// Values that one measurement may have: the largest of NVIDIA's files has four.
const ALTERNATIVES: usize = 64;

/// The rules for GPUs. Without them, all GPU evidence is denied and nothing is `confidential`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuRules {
    /// Demand GPU evidence in every session with evidence, not only where `confidential` is asked.
    pub required: bool,
    /// Accepted families. **Empty denies.**
    pub architectures: BTreeSet<GpuArchitecture>,
    /// Accept reports that do not name their firmware, as those of early drivers.
    pub allow_missing_fwid: bool,
    /// SHA-256 hashes of public keys (SubjectPublicKeyInfo) that are not trusted, whichever place in a
    /// chain they have. NVIDIA revokes online only (OCSP), which nobody asks here.
    pub revoked_keys: BTreeSet<[u8; 32]>,
    /// Accept genuine GPUs whose measurements are not listed, at tier `attested`.
    pub identity_only: Option<GpuIdentityOnly>,
    /// Known good states. **Empty denies.**
    pub golden: Vec<GpuGolden>,
}

/// Which GPUs pass by their identity alone. What they run is then NVIDIA's word for a version number,
/// compared with nothing, so it never earns `confidential`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuIdentityOnly {
    /// Accepted driver versions. **Empty denies.**
    pub drivers: BTreeSet<String>,
    /// Accepted VBIOS versions. **Empty denies.**
    pub vbios: BTreeSet<String>,
}

/// One known good state: a driver and a VBIOS with what they measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuGolden {
    /// The driver's version.
    pub driver: String,
    /// The VBIOS's version, as `96.00.9F.00.01`.
    pub vbios: String,
    /// SHA-256 of NVIDIA's reference files (RIM) that the values were taken from: for people, and
    /// part of the policy's identity; nothing is compared with them.
    pub rim_sha256: Vec<[u8; 32]>,
    /// Accepted values by NVIDIA's index from 0. Every index that is listed must match one of its
    /// values; one that is not listed is not looked at.
    pub measurements: BTreeMap<u8, Vec<Register>>,
}

impl GpuRules {
    pub(in crate::attest) fn validate(&self) -> Result<(), PolicyError> {
        let identity = self.identity_only.as_ref();
        let lists = [
            ("golden GPU states", self.golden.len()),
            ("revoked GPU keys", self.revoked_keys.len()),
            ("drivers", identity.map_or(0, |only| only.drivers.len())),
            ("VBIOS versions", identity.map_or(0, |only| only.vbios.len())),
        ];
        if let Some((what, _)) = lists.into_iter().find(|(_, length)| *length > LIST_ENTRIES) {
            return Err(PolicyError::TooMany { what, limit: LIST_ENTRIES });
        }
        self.golden.iter().try_for_each(GpuGolden::validate)
    }

    pub(in crate::attest) fn append_to(&self, out: &mut Section) {
        out.flags([self.required, self.allow_missing_fwid, self.identity_only.is_some()]);
        let names: Vec<_> = self.architectures.iter().map(|found| found.as_str()).collect();
        out.list(names.iter().map(|name| name.as_bytes()));
        out.list(self.revoked_keys.iter().map(|hash| &hash[..]));
        if let Some(only) = &self.identity_only {
            out.list(only.drivers.iter().map(String::as_bytes));
            out.list(only.vbios.iter().map(String::as_bytes));
        }
        out.count(self.golden.len());
        for golden in &self.golden {
            golden.append_to(out);
        }
    }
}

impl GpuGolden {
    fn validate(&self) -> Result<(), PolicyError> {
        let invalid = |reason| PolicyError::GpuGolden {
            driver: self.driver.clone(),
            vbios: self.vbios.clone(),
            reason,
        };
        if self.rim_sha256.len() > ALTERNATIVES {
            return Err(invalid("lists too many reference files"));
        }
        if self.measurements.keys().any(|index| *index >= MEASUREMENTS) {
            return Err(invalid("names a measurement beyond 63"));
        }
        if self.measurements.values().any(Vec::is_empty) {
            return Err(invalid("names a measurement without a value, which nothing can match"));
        }
        if self.measurements.values().any(|values| values.len() > ALTERNATIVES) {
            return Err(invalid("lists too many values for a measurement"));
        }
        // Some golden values of NVIDIA's are zero: nothing may have been measured there. A state of
        // nothing else would be matched by any GPU that measures nothing.
        let pins = |values: &Vec<Register>| values.iter().all(|value| *value != Register::ZERO);
        if !self.measurements.values().any(pins) {
            return Err(invalid("pins no measurement; take the values from NVIDIA's RIM files"));
        }
        Ok(())
    }

    fn append_to(&self, out: &mut Section) {
        out.bytes(self.driver.as_bytes());
        out.bytes(self.vbios.as_bytes());
        out.list(self.rim_sha256.iter().map(|hash| &hash[..]));
        out.count(self.measurements.len());
        for (index, values) in &self.measurements {
            out.number(*index);
            out.list(values.iter().map(|value| &value.as_bytes()[..]));
        }
    }
}

/// `[gpu]` as a person writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::attest) struct GpuFile {
    #[serde(default)]
    required: bool,
    arch: BTreeSet<GpuArchitecture>,
    #[serde(default)]
    allow_missing_fwid: bool,
    #[serde(default)]
    revoked_keys: Vec<Hash>,
    #[serde(default)]
    identity_only: Option<GpuIdentityOnly>,
    #[serde(default)]
    golden: Vec<GoldenFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenFile {
    driver: String,
    vbios: String,
    #[serde(default)]
    rim_sha256: Vec<Hash>,
    measurements: BTreeMap<String, Vec<Register>>,
}

/// A SHA-256 hash in hexadecimal.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Hash([u8; 32]);

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(|_| "expected 64 hexadecimal digits")?;
        Ok(Self(bytes))
    }
}

impl TryFrom<GpuFile> for GpuRules {
    type Error = PolicyError;

    fn try_from(file: GpuFile) -> Result<Self, Self::Error> {
        let golden = file.golden.into_iter().map(GpuGolden::try_from).collect::<Result<_, _>>()?;
        Ok(Self {
            required: file.required,
            architectures: file.arch,
            allow_missing_fwid: file.allow_missing_fwid,
            revoked_keys: file.revoked_keys.iter().map(|hash| hash.0).collect(),
            identity_only: file.identity_only.map(|only| GpuIdentityOnly {
                drivers: only.drivers,
                vbios: only.vbios.iter().map(|version| version.to_ascii_uppercase()).collect(),
            }),
            golden,
        })
    }
}

impl TryFrom<GoldenFile> for GpuGolden {
    type Error = PolicyError;

    fn try_from(file: GoldenFile) -> Result<Self, Self::Error> {
        let mut measurements = BTreeMap::new();
        for (index, values) in file.measurements {
            // One spelling for each index, so that "9" and "09" cannot name two lists.
            let parsed = index.parse::<u8>().ok().filter(|number| number.to_string() == index);
            let Some(number) = parsed else {
                let reason = "has a measurement that is no number from 0 to 63";
                return Err(PolicyError::GpuGolden {
                    driver: file.driver,
                    vbios: file.vbios,
                    reason,
                });
            };
            measurements.insert(number, values);
        }
        Ok(Self {
            driver: file.driver,
            vbios: file.vbios.to_ascii_uppercase(),
            rim_sha256: file.rim_sha256.iter().map(|hash| hash.0).collect(),
            measurements,
        })
    }
}
