//! Whether a policy is content with what a verified TDX quote claims.
//!
//! Owns: every check of TDX that does not need Intel's formats: debug, binding, TCB, age, platform, image.
//! Must not: verify signatures; claims exist only after `node/attest` did.

use crate::attest::claims::Appraisal;
use crate::attest::evidence::REPORT_DATA_BYTES;
use crate::attest::measurement::Register;
use crate::attest::tdx::claims::{TcbStatus, TdxClaims, TdxMeasurements};
use crate::attest::tdx::rules::{TdxImage, TdxRules};
use crate::attest::tier::Tier;
use crate::attest::trace::{Step, Trace};
use crate::attest::verdict::{PlatformRule, Refusal};
use crate::units::Timestamp;

/// Bits 7:0 of the attributes: the guest is under debug or profiling.
const ATTRIBUTES_UNDER_DEBUG: u64 = 0xff;
/// Bit 29: the guest may be moved to another machine by its owner.
const ATTRIBUTES_MIGRATABLE: u64 = 1 << 29;

/// Judges `claims` by the policy's rules for TDX at `now`, for a quote that must carry `report_data`.
pub(in crate::attest) fn appraise(
    claims: &TdxClaims,
    rules: Option<&TdxRules>,
    report_data: &[u8; REPORT_DATA_BYTES],
    now: Timestamp,
    trace: &mut Trace,
) -> Result<Appraisal, Refusal> {
    if claims.attributes & ATTRIBUTES_UNDER_DEBUG != 0 {
        return Err(Refusal::Debug);
    }
    if claims.attributes & ATTRIBUTES_MIGRATABLE != 0 {
        return Err(Refusal::Migratable);
    }
    trace.pass(Step::Guest);
    if claims.report_data != *report_data {
        return Err(Refusal::NotFresh);
    }
    trace.pass(Step::Binding);
    let measurements = &claims.measurements;
    // No rules for a kind of TEE are no reason to trust it.
    let rules = rules.ok_or_else(|| unknown(measurements, None))?;
    trace.pass(Step::Rules);
    check_tcb(claims, rules)?;
    trace.pass(Step::Firmware);
    check_age(claims, rules, now)?;
    trace.pass(Step::Age);
    check_platform(claims, rules)?;
    trace.pass(Step::Platform);
    let image = find_image(measurements, &rules.images)?;
    trace.pass(Step::Image);
    Ok(Appraisal {
        tier: Tier::Attested,
        image: image.name.clone(),
        expires: claims
            .collateral_expires
            .min(claims.collateral_issued.after(rules.max_collateral_age)),
    })
}

const fn unknown(measured: &TdxMeasurements, differs: Option<&'static str>) -> Refusal {
    Refusal::UnknownMeasurement { register: "mrtd", value: measured.mrtd, differs }
}

fn check_tcb(claims: &TdxClaims, rules: &TdxRules) -> Result<(), Refusal> {
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

fn check_age(claims: &TdxClaims, rules: &TdxRules, now: Timestamp) -> Result<(), Refusal> {
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

fn check_platform(claims: &TdxClaims, rules: &TdxRules) -> Result<(), Refusal> {
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
    measured: &TdxMeasurements,
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
    Err(unknown(measured, differs))
}

fn first_difference(measured: &TdxMeasurements, image: &TdxImage) -> Option<&'static str> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::claims::Claims;
    use crate::attest::policy::{Policy, Rules, Trust};
    use crate::attest::tdx::claims::PlatformFlags;
    use crate::units::Millis;

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

    fn claims() -> TdxClaims {
        TdxClaims {
            simulated: false,
            attributes: 1 << 28,
            measurements: TdxMeasurements {
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

    /// Through the whole decision, as `node/attest` asks for it.
    fn judge_under(
        trust: Trust,
        claims: &TdxClaims,
        tdx: Option<TdxRules>,
    ) -> Result<Appraisal, Refusal> {
        let rules = Rules { tdx, ..Rules::default() };
        let policy = Policy::new(trust, Tier::Open, rules).unwrap();
        crate::attest::appraise(&Claims::Tdx(claims.clone()), &policy, &REPORT_DATA, NOW)
    }

    fn judge_with(claims: &TdxClaims, rules: TdxRules) -> Result<Appraisal, Refusal> {
        judge_under(Trust::Production, claims, Some(rules))
    }

    fn judge(change: impl FnOnce(&mut TdxClaims)) -> Result<Appraisal, Refusal> {
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
        assert_eq!(judge(|c| c.simulated = true), Err(Refusal::SimulatedNotAllowed));
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
            Err(Refusal::UnknownMeasurement {
                register: "mrtd",
                value: register(1),
                differs: Some(differs),
            })
        };
        let other = register(0xee);
        assert_eq!(
            judge(|c| c.measurements.mrtd = other),
            Err(Refusal::UnknownMeasurement { register: "mrtd", value: other, differs: None })
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
        let denied = Err(unknown(&claims().measurements, None));
        let mut empty = rules();
        empty.images.clear();
        assert_eq!(judge_with(&claims(), empty), denied);
        assert_eq!(judge_under(Trust::Production, &claims(), None), denied);
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
        let dev = |claims: &TdxClaims| judge_under(Trust::Dev, claims, Some(rules()));
        let mut simulated = TdxClaims { simulated: true, ..claims() };
        assert!(dev(&simulated).is_ok());
        simulated.measurements.rtmr[3] = register(9);
        assert_eq!(dev(&simulated), Err(unknown(&simulated.measurements, Some("rtmr3"))));
        simulated.attributes |= 1;
        assert_eq!(dev(&simulated), Err(Refusal::Debug));
    }

    #[test]
    fn an_acceptance_ends_with_the_collateral_s_dates_and_with_its_age() {
        assert_eq!(judge(|_| {}).map(|a| a.expires), Ok(NOW));
        let later = Timestamp::from_unix_secs(1_800_000_100);
        // Issued just now, for a policy that allows an hour.
        let fresh = judge(|c| (c.collateral_issued, c.collateral_expires) = (NOW, Timestamp::MAX));
        assert_eq!(fresh.map(|a| a.expires), Ok(NOW.after(Millis::from_secs(3600))));
        let short = judge(|c| (c.collateral_issued, c.collateral_expires) = (NOW, later));
        assert_eq!(short.map(|a| a.expires), Ok(later));
    }
}
