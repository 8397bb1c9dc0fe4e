//! The policy's rules for Intel TDX.
//!
//! Owns: their form, their validation, and what they add to the policy's identity.
//! Must not: judge claims; the appraisal beside it does.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::attest::measurement::Register;
use crate::attest::policy::{LIST_ENTRIES, PolicyError, Section};
use crate::attest::tdx::claims::TcbStatus;
use crate::units::Millis;

/// A bound that keeps the age of collateral meaningful: older than this is never right.
pub(in crate::attest) const LONGEST_COLLATERAL_AGE: Millis = Millis::from_secs(366 * 24 * 3600);

/// A listed guest image: every register counts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxImage {
    /// What people call it.
    pub name: String,
    /// The firmware.
    pub mrtd: Register,
    /// Firmware configuration and virtual hardware: one value per machine shape.
    pub rtmr0: Vec<Register>,
    /// The kernel.
    pub rtmr1: Register,
    /// The command line and initrd.
    pub rtmr2: Register,
    /// The node's own measurements; zero where the image extends nothing.
    pub rtmr3: Register,
    /// Must be zero unless given.
    #[serde(default, rename = "mrconfigid")]
    pub mr_config_id: Option<Register>,
    /// Must be zero unless given.
    #[serde(default, rename = "mrowner")]
    pub mr_owner: Option<Register>,
    /// Must be zero unless given.
    #[serde(default, rename = "mrownerconfig")]
    pub mr_owner_config: Option<Register>,
}

/// The rules for Intel TDX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxRules {
    /// Accepted platform standings.
    pub tcb_status: BTreeSet<TcbStatus>,
    /// Advisories that disqualify a platform whatever its standing.
    pub reject_advisories: Vec<String>,
    /// Collateral of an older evaluation is refused, even before it expires.
    pub min_tcb_evaluation_data_number: u32,
    /// Collateral issued longer ago is refused, even before it expires.
    pub max_collateral_age: Millis,
    /// Accept hyper-threading.
    pub allow_smt: bool,
    /// Accept multi-package platforms that may grow.
    pub allow_dynamic_platform: bool,
    /// Accept platforms whose keys the vendor caches.
    pub allow_cached_keys: bool,
    /// The only platforms accepted; empty for any, which is weaker.
    pub allowed_ppid: Vec<Vec<u8>>,
    /// The images accepted. **Empty denies.**
    pub images: Vec<TdxImage>,
}

impl TdxRules {
    pub(in crate::attest) fn validate(&self) -> Result<(), PolicyError> {
        if self.tcb_status.is_empty() {
            return Err(PolicyError::NoTcbStatus);
        }
        if self.tcb_status.contains(&TcbStatus::Revoked) {
            return Err(PolicyError::RevokedAllowed);
        }
        if self.max_collateral_age == Millis::new(0)
            || self.max_collateral_age > LONGEST_COLLATERAL_AGE
        {
            return Err(PolicyError::CollateralAge);
        }
        if self.allowed_ppid.iter().any(|ppid| ppid.len() != 16) {
            return Err(PolicyError::BadPpid);
        }
        let lists = [
            ("images", self.images.len()),
            ("platforms", self.allowed_ppid.len()),
            ("advisories", self.reject_advisories.len()),
        ];
        if let Some((what, _)) = lists.into_iter().find(|(_, length)| *length > LIST_ENTRIES) {
            return Err(PolicyError::TooMany { what, limit: LIST_ENTRIES });
        }
        let mut names = BTreeSet::new();
        for image in &self.images {
            image.validate()?;
            if !names.insert(&image.name) {
                return Err(PolicyError::DuplicateImage { image: image.name.clone() });
            }
        }
        Ok(())
    }
}

impl TdxImage {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.rtmr0.is_empty() {
            return Err(PolicyError::NoMachineShape { image: self.name.clone() });
        }
        if self.rtmr0.len() > LIST_ENTRIES {
            return Err(PolicyError::TooMany { what: "machine shapes", limit: LIST_ENTRIES });
        }
        let zero = Register::ZERO;
        let pins_nothing = [
            ("mrtd", self.mrtd == zero),
            ("rtmr0", self.rtmr0.contains(&zero)),
            ("rtmr1", self.rtmr1 == zero),
            ("rtmr2", self.rtmr2 == zero),
        ];
        match pins_nothing.into_iter().find(|(_, zero)| *zero) {
            Some((register, _)) => {
                Err(PolicyError::ZeroRegister { image: self.name.clone(), register })
            }
            None => Ok(()),
        }
    }
}

impl TdxRules {
    pub(in crate::attest) fn append_to(&self, section: &mut Section) {
        section.list(self.tcb_status.iter().map(|status| status.as_str().as_bytes()));
        section.list(self.reject_advisories.iter().map(String::as_bytes));
        section.list(self.allowed_ppid.iter().map(Vec::as_slice));
        section.number(self.min_tcb_evaluation_data_number);
        section.number(self.max_collateral_age.get());
        section.flags([self.allow_smt, self.allow_dynamic_platform, self.allow_cached_keys]);
        section.count(self.images.len());
        for image in &self.images {
            section.bytes(image.name.as_bytes());
            section.list(image.rtmr0.iter().map(|register| &register.as_bytes()[..]));
            let registers = [
                Some(image.mrtd),
                Some(image.rtmr1),
                Some(image.rtmr2),
                Some(image.rtmr3),
                image.mr_config_id,
                image.mr_owner,
                image.mr_owner_config,
            ];
            for register in registers {
                section.bytes(register.unwrap_or(Register::ZERO).as_bytes());
            }
        }
    }
}

/// The rules as a person writes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::attest) struct TdxFile {
    tcb_status: BTreeSet<TcbStatus>,
    #[serde(default)]
    reject_advisories: Vec<String>,
    #[serde(rename = "min_tcb_eval_data_number")]
    min_tcb_evaluation_data_number: u32,
    #[serde(rename = "max_collateral_age_h")]
    max_collateral_age_hours: u64,
    #[serde(default)]
    allow_smt: bool,
    #[serde(default)]
    allow_dynamic_platform: bool,
    #[serde(default)]
    allow_cached_keys: bool,
    #[serde(default)]
    allowed_ppid: Vec<String>,
    #[serde(default)]
    image: Vec<TdxImage>,
}

impl TryFrom<TdxFile> for TdxRules {
    type Error = PolicyError;

    fn try_from(file: TdxFile) -> Result<Self, PolicyError> {
        let allowed_ppid: Result<Vec<_>, _> = file.allowed_ppid.iter().map(hex::decode).collect();
        Ok(Self {
            tcb_status: file.tcb_status,
            reject_advisories: file.reject_advisories,
            min_tcb_evaluation_data_number: file.min_tcb_evaluation_data_number,
            max_collateral_age: Millis::from_secs(
                file.max_collateral_age_hours.saturating_mul(3600),
            ),
            allow_smt: file.allow_smt,
            allow_dynamic_platform: file.allow_dynamic_platform,
            allow_cached_keys: file.allow_cached_keys,
            allowed_ppid: allowed_ppid.map_err(|_| PolicyError::BadPpid)?,
            images: file.image,
        })
    }
}
