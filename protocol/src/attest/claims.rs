//! What a verified quote claims, and the decision whether the policy is content with it.
//!
//! Owns: every check that does not need a vendor's format: debug, binding, TCB, age, platform, image.
//! Must not: verify signatures; claims exist only after `node/attest` did.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attest::evidence::{EvidenceKind, REPORT_DATA_BYTES};
use crate::attest::measurement::{Measurements, Register};
use crate::attest::policy::{Policy, TdxImage, TdxRules, Trust};
use crate::attest::tier::Tier;
use crate::attest::verdict::{PlatformRule, Refusal};
use crate::units::{Millis, Timestamp};

/// How far a platform is behind Intel's advice (Intel DCAP, `tcbStatus`; the last two are the
/// quote verification library's, for guests that outlived a module update).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TcbStatus {
    /// Nothing is known against it.
    UpToDate,
    /// Software in the guest must mitigate something.
    #[serde(rename = "SWHardeningNeeded")]
    SwHardeningNeeded,
    /// The platform's configuration may be unsafe.
    ConfigurationNeeded,
    /// Both of the above.
    #[serde(rename = "ConfigurationAndSWHardeningNeeded")]
    ConfigurationAndSwHardeningNeeded,
    /// Firmware with published holes.
    OutOfDate,
    /// Firmware with published holes, and a doubtful configuration.
    OutOfDateConfigurationNeeded,
    /// The platform's keys are known to be compromised.
    Revoked,
    /// The guest was launched on an old TDX module that was updated since.
    #[serde(rename = "TDRelaunchAdvised")]
    TdRelaunchAdvised,
    /// As above, with a doubtful configuration.
    #[serde(rename = "TDRelaunchAdvisedConfigurationNeeded")]
    TdRelaunchAdvisedConfigurationNeeded,
}

impl TcbStatus {
    /// Intel's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::Revoked => "Revoked",
            Self::TdRelaunchAdvised => "TDRelaunchAdvised",
            Self::TdRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the platform's certificate says about the machine. Absent flags count as unset, as Intel's
/// library has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlatformFlags {
    /// Packages may be added after registration.
    pub dynamic_platform: bool,
    /// The vendor caches the platform's root keys.
    pub cached_keys: bool,
    /// Hyper-threading is on.
    pub smt: bool,
}

/// What a TDX quote claims, after every signature was verified up to a trusted root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Real or simulated.
    pub kind: EvidenceKind,
    /// TD attributes, little-endian (Intel TDX module ABI, `ATTRIBUTES`).
    pub attributes: u64,
    /// What runs in the guest.
    pub measurements: Measurements,
    /// What the guest bound the quote to.
    pub report_data: [u8; REPORT_DATA_BYTES],
    /// The platform's standing.
    pub tcb_status: TcbStatus,
    /// Intel's advisories that apply to it.
    pub advisories: Vec<String>,
    /// The lower `tcbEvaluationDataNumber` of TCB info and QE identity.
    pub tcb_evaluation_data_number: u32,
    /// When the older of TCB info and QE identity was issued.
    pub collateral_issued: Timestamp,
    /// When the first piece of collateral ends.
    pub collateral_expires: Timestamp,
    /// The platform's flags.
    pub platform: PlatformFlags,
    /// The platform's provisioning identity (PPID).
    pub ppid: Vec<u8>,
}

/// Bits 7:0 of the attributes: the guest is under debug or profiling.
const ATTRIBUTES_UNDER_DEBUG: u64 = 0xff;
/// Bit 29: the guest may be moved to another machine by its owner.
const ATTRIBUTES_MIGRATABLE: u64 = 1 << 29;

/// What the policy found acceptable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appraisal {
    /// The tier that the claims earn.
    pub tier: Tier,
    /// The policy's name for the image that runs.
    pub image: String,
    /// Until when the collateral vouches for it.
    pub expires: Timestamp,
}

/// Judges `claims` by `policy` at `now`, for a quote that must carry `report_data`.
///
/// # Errors
/// The first check that failed; the order is the order of the code.
pub fn appraise(
    claims: &Claims,
    policy: &Policy,
    report_data: &[u8; REPORT_DATA_BYTES],
    now: Timestamp,
) -> Result<Appraisal, Refusal> {
    match claims.kind {
        EvidenceKind::None => return Err(Refusal::EvidenceMissing),
        EvidenceKind::SimulatedTdx if policy.trust() != Trust::Dev => {
            return Err(Refusal::SimulatedNotAllowed);
        }
        EvidenceKind::SimulatedTdx | EvidenceKind::Tdx => {}
    }
    if claims.attributes & ATTRIBUTES_UNDER_DEBUG != 0 {
        return Err(Refusal::Debug);
    }
    if claims.attributes & ATTRIBUTES_MIGRATABLE != 0 {
        return Err(Refusal::Migratable);
    }
    if claims.report_data != *report_data {
        return Err(Refusal::NotFresh);
    }
    let measurements = &claims.measurements;
    // No rules for a kind of TEE are no reason to trust it.
    let rules = policy
        .tdx()
        .ok_or(Refusal::UnknownMeasurement { mrtd: measurements.mrtd, differs: None })?;
    check_tcb(claims, rules)?;
    check_age(claims, rules, now)?;
    check_platform(claims, rules)?;
    let image = find_image(measurements, &rules.images)?;
    Ok(Appraisal {
        tier: Tier::Attested,
        image: image.name.clone(),
        expires: claims.collateral_expires,
    })
}

fn check_tcb(claims: &Claims, rules: &TdxRules) -> Result<(), Refusal> {
    let status = claims.tcb_status;
    if status == TcbStatus::Revoked || !rules.tcb_status.contains(&status) {
        return Err(Refusal::TcbOutOfDate { status });
    }
    let rejected = |advisory: &&String| {
        rules.reject_advisories.iter().any(|rejected| rejected.eq_ignore_ascii_case(advisory))
    };
    match claims.advisories.iter().find(rejected) {
        Some(advisory) => Err(Refusal::Advisory { id: advisory.clone() }),
        None => Ok(()),
    }
}

fn check_age(claims: &Claims, rules: &TdxRules, now: Timestamp) -> Result<(), Refusal> {
    if claims.collateral_expires < now {
        return Err(Refusal::CollateralExpired);
    }
    if now.since(claims.collateral_issued) > rules.max_collateral_age {
        return Err(Refusal::CollateralTooOld {
            age: now.since(claims.collateral_issued),
            limit: rules.max_collateral_age,
        });
    }
    let (number, minimum) =
        (claims.tcb_evaluation_data_number, rules.min_tcb_evaluation_data_number);
    if number < minimum {
        return Err(Refusal::CollateralOutdated { number, minimum });
    }
    Ok(())
}

fn check_platform(claims: &Claims, rules: &TdxRules) -> Result<(), Refusal> {
    let refuse = |rule| Err(Refusal::PlatformNotAllowed { rule });
    if claims.platform.smt && !rules.allow_smt {
        return refuse(PlatformRule::Smt);
    }
    if claims.platform.dynamic_platform && !rules.allow_dynamic_platform {
        return refuse(PlatformRule::DynamicPlatform);
    }
    if claims.platform.cached_keys && !rules.allow_cached_keys {
        return refuse(PlatformRule::CachedKeys);
    }
    // An empty list of platforms is the one list that does not deny: naming machines is an
    // additional restriction, and the documentation calls its absence the weaker choice.
    if !rules.allowed_ppid.is_empty() && !rules.allowed_ppid.contains(&claims.ppid) {
        return refuse(PlatformRule::Unlisted);
    }
    Ok(())
}

/// The image whose every register matches. An empty list matches nothing.
fn find_image<'a>(
    measured: &Measurements,
    images: &'a [TdxImage],
) -> Result<&'a TdxImage, Refusal> {
    let mut differs = None;
    for image in images {
        match first_difference(measured, image) {
            None => return Ok(image),
            Some("mrtd") => {}
            Some(register) => differs = differs.or(Some(register)),
        }
    }
    Err(Refusal::UnknownMeasurement { mrtd: measured.mrtd, differs })
}

fn first_difference(measured: &Measurements, image: &TdxImage) -> Option<&'static str> {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = measured.rtmr;
    let host_set = |expected: Option<Register>| expected.unwrap_or(Register::ZERO);
    let matches = [
        ("mrtd", measured.mrtd == image.mrtd),
        ("rtmr0", image.rtmr0.contains(&rtmr0)),
        ("rtmr1", rtmr1 == image.rtmr1),
        ("rtmr2", rtmr2 == image.rtmr2),
        ("rtmr3", rtmr3 == image.rtmr3),
        ("mrconfigid", measured.mr_config_id == host_set(image.mr_config_id)),
        ("mrowner", measured.mr_owner == host_set(image.mr_owner)),
        ("mrownerconfig", measured.mr_owner_config == host_set(image.mr_owner_config)),
    ];
    matches.into_iter().find(|(_, same)| !same).map(|(register, _)| register)
}

/// A bound that keeps [`check_age`] meaningful: older collateral than this is never right.
pub(super) const LONGEST_COLLATERAL_AGE: Millis = Millis::from_secs(366 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT_DATA: [u8; 64] = [7; 64];
    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

    fn register(byte: u8) -> Register {
        Register::from_bytes([byte; 48])
    }

    fn image() -> TdxImage {
        TdxImage {
            name: "test".to_owned(),
            mrtd: register(1),
            rtmr0: vec![register(2), register(20)],
            rtmr1: register(3),
            rtmr2: register(4),
            rtmr3: Register::ZERO,
            mr_config_id: None,
            mr_owner: None,
            mr_owner_config: None,
        }
    }

    fn rules() -> TdxRules {
        TdxRules {
            tcb_status: [TcbStatus::UpToDate].into(),
            reject_advisories: vec!["INTEL-SA-00001".to_owned()],
            min_tcb_evaluation_data_number: 17,
            max_collateral_age: Millis::from_secs(3600),
            allow_smt: false,
            allow_dynamic_platform: false,
            allow_cached_keys: false,
            allowed_ppid: Vec::new(),
            images: vec![image()],
        }
    }

    fn claims() -> Claims {
        Claims {
            kind: EvidenceKind::Tdx,
            attributes: 1 << 28,
            measurements: Measurements {
                mrtd: register(1),
                rtmr: [register(2), register(3), register(4), Register::ZERO],
                mr_config_id: Register::ZERO,
                mr_owner: Register::ZERO,
                mr_owner_config: Register::ZERO,
            },
            report_data: REPORT_DATA,
            tcb_status: TcbStatus::UpToDate,
            advisories: vec!["INTEL-SA-00002".to_owned()],
            tcb_evaluation_data_number: 17,
            collateral_issued: Timestamp::from_unix_secs(1_800_000_000 - 3600),
            collateral_expires: NOW,
            platform: PlatformFlags::default(),
            ppid: vec![9; 16],
        }
    }

    fn judge_with(claims: &Claims, rules: TdxRules) -> Result<Appraisal, Refusal> {
        let policy = Policy::new(Trust::Production, Tier::Open, Some(rules)).unwrap();
        appraise(claims, &policy, &REPORT_DATA, NOW)
    }

    fn judge(change: impl FnOnce(&mut Claims)) -> Result<Appraisal, Refusal> {
        let mut claims = claims();
        change(&mut claims);
        judge_with(&claims, rules())
    }

    #[test]
    fn claims_at_every_limit_pass() {
        let expected = Appraisal { tier: Tier::Attested, image: "test".to_owned(), expires: NOW };
        assert_eq!(judge(|_| {}), Ok(expected.clone()));
        assert_eq!(judge(|c| c.measurements.rtmr[0] = register(20)), Ok(expected));
    }

    #[test]
    fn every_check_refuses_with_its_own_reason() {
        let just = |seconds| Timestamp::from_unix_secs(seconds);
        assert_eq!(judge(|c| c.kind = EvidenceKind::None), Err(Refusal::EvidenceMissing));
        assert_eq!(
            judge(|c| c.kind = EvidenceKind::SimulatedTdx),
            Err(Refusal::SimulatedNotAllowed)
        );
        for bit in 0..8 {
            assert_eq!(judge(|c| c.attributes |= 1 << bit), Err(Refusal::Debug));
        }
        assert_eq!(judge(|c| c.attributes |= 1 << 29), Err(Refusal::Migratable));
        assert_eq!(judge(|c| c.report_data[63] ^= 1), Err(Refusal::NotFresh));
        let status = TcbStatus::SwHardeningNeeded;
        assert_eq!(judge(|c| c.tcb_status = status), Err(Refusal::TcbOutOfDate { status }));
        let id = "intel-sa-00001".to_owned();
        assert_eq!(judge(|c| c.advisories.push(id.clone())), Err(Refusal::Advisory { id }));
        assert_eq!(
            judge(|c| c.collateral_expires = just(1_799_999_999)),
            Err(Refusal::CollateralExpired)
        );
        assert!(matches!(
            judge(|c| c.collateral_issued = just(1_800_000_000 - 3601)),
            Err(Refusal::CollateralTooOld { .. })
        ));
        assert_eq!(
            judge(|c| c.tcb_evaluation_data_number = 16),
            Err(Refusal::CollateralOutdated { number: 16, minimum: 17 })
        );
        let platform = |rule| Err(Refusal::PlatformNotAllowed { rule });
        assert_eq!(judge(|c| c.platform.smt = true), platform(PlatformRule::Smt));
        assert_eq!(
            judge(|c| c.platform.dynamic_platform = true),
            platform(PlatformRule::DynamicPlatform)
        );
        assert_eq!(judge(|c| c.platform.cached_keys = true), platform(PlatformRule::CachedKeys));
    }

    #[test]
    fn every_register_is_compared() {
        let unknown = |differs| {
            Err(Refusal::UnknownMeasurement { mrtd: register(1), differs: Some(differs) })
        };
        let other = register(0xee);
        assert_eq!(
            judge(|c| c.measurements.mrtd = other),
            Err(Refusal::UnknownMeasurement { mrtd: other, differs: None })
        );
        for (index, name) in ["rtmr0", "rtmr1", "rtmr2", "rtmr3"].into_iter().enumerate() {
            assert_eq!(judge(|c| c.measurements.rtmr[index] = other), unknown(name));
        }
        assert_eq!(judge(|c| c.measurements.mr_config_id = other), unknown("mrconfigid"));
        assert_eq!(judge(|c| c.measurements.mr_owner = other), unknown("mrowner"));
        assert_eq!(judge(|c| c.measurements.mr_owner_config = other), unknown("mrownerconfig"));
    }

    #[test]
    fn an_empty_list_of_images_denies() {
        let unknown = Err(Refusal::UnknownMeasurement { mrtd: register(1), differs: None });
        let mut empty = rules();
        empty.images.clear();
        assert_eq!(judge_with(&claims(), empty), unknown);
        let policy = Policy::new(Trust::Production, Tier::Open, None).unwrap();
        assert_eq!(appraise(&claims(), &policy, &REPORT_DATA, NOW), unknown);
    }

    #[test]
    fn listed_platforms_exclude_all_others() {
        let mut named = rules();
        named.allowed_ppid = vec![vec![8; 16]];
        assert_eq!(
            judge_with(&claims(), named.clone()),
            Err(Refusal::PlatformNotAllowed { rule: PlatformRule::Unlisted })
        );
        named.allowed_ppid.push(vec![9; 16]);
        assert!(judge_with(&claims(), named).is_ok());
    }

    #[test]
    fn a_dev_policy_still_refuses_debug_guests_and_unknown_images() {
        let policy = Policy::new(Trust::Dev, Tier::Open, Some(rules())).unwrap();
        let mut simulated = Claims { kind: EvidenceKind::SimulatedTdx, ..claims() };
        assert!(appraise(&simulated, &policy, &REPORT_DATA, NOW).is_ok());
        simulated.attributes |= 1;
        assert_eq!(appraise(&simulated, &policy, &REPORT_DATA, NOW), Err(Refusal::Debug));
    }
}
