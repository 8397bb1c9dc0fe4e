//! Whether a policy is content with what a verified SEV-SNP report claims.
//!
//! Owns: every check of SEV-SNP that does not need AMD's formats: guest policy, binding, privilege,
//! firmware level, age, platform, image.
//! Must not: verify signatures; claims exist only after `node/attest` did.

use crate::attest::claims::Appraisal;
use crate::attest::evidence::REPORT_DATA_BYTES;
use crate::attest::snp::check::SnpCheck;
use crate::attest::snp::claims::{HostData, SnpClaims, SnpMeasurements, SnpSigningKey, SnpTcb};
use crate::attest::snp::rules::{SnpImage, SnpRules};
use crate::attest::tier::Tier;
use crate::attest::trace::{Step, Trace};
use crate::attest::verdict::{PlatformRule, Refusal, TcbMoment};
use crate::units::Timestamp;

// Bits of the guest policy (56860, `GUEST_POLICY`).
const POLICY_SMT: u64 = 1 << 16;
/// Always set.
const POLICY_ONE: u64 = 1 << 17;
const POLICY_MIGRATE: u64 = 1 << 18;
const POLICY_DEBUG: u64 = 1 << 19;
const POLICY_SINGLE_SOCKET: u64 = 1 << 20;
/// Versions, the bits above, CXL, AES-256-XTS, RAPL, ciphertext hiding and page swapping. A bit that
/// is newer than this list could be another way in.
const POLICY_KNOWN: u64 = (1 << 26) - 1;

// Bits of the platform information (56860, `PLATFORM_INFO`).
const PLATFORM_SMT: u64 = 1;
const PLATFORM_CIPHERTEXT_HIDING: u64 = 1 << 4;
const PLATFORM_ALIAS_CHECK: u64 = 1 << 5;

/// Judges `claims` by the policy's rules for SEV-SNP at `now`, for a report that must carry
/// `report_data`.
pub(in crate::attest) fn appraise(
    claims: &SnpClaims,
    rules: Option<&SnpRules>,
    report_data: &[u8; REPORT_DATA_BYTES],
    now: Timestamp,
    trace: &mut Trace,
) -> Result<Appraisal, Refusal> {
    check_guest_policy(claims.guest_policy)?;
    trace.pass(Step::Guest);
    if claims.report_data != *report_data {
        return Err(Refusal::NotFresh);
    }
    trace.pass(Step::Binding);
    let measured = &claims.measurements;
    // No rules for a kind of TEE are no reason to trust it.
    let rules = rules.ok_or_else(|| unknown(measured, None))?;
    trace.pass(Step::Rules);
    if claims.vmpl > rules.max_vmpl {
        return Err(Refusal::VmplTooLow { vmpl: claims.vmpl, limit: rules.max_vmpl });
    }
    trace.pass(Step::Privilege);
    check_tcb(claims, rules)?;
    trace.pass(Step::Firmware);
    check_age(claims, rules, now)?;
    trace.pass(Step::Age);
    check_platform(claims, rules)?;
    trace.pass(Step::Platform);
    let image = find_image(measured, &rules.images)?;
    trace.pass(Step::Image);
    Ok(Appraisal {
        tier: Tier::Attested,
        image: image.name.clone(),
        expires: claims.endorsements_expire.min(claims.crl_issued.after(rules.max_crl_age)),
    })
}

/// What no policy allows.
const fn check_guest_policy(guest_policy: u64) -> Result<(), Refusal> {
    if guest_policy & POLICY_DEBUG != 0 {
        return Err(Refusal::Debug);
    }
    if guest_policy & POLICY_MIGRATE != 0 {
        return Err(Refusal::Migratable);
    }
    if guest_policy & POLICY_ONE == 0 || guest_policy & !POLICY_KNOWN != 0 {
        return Err(Refusal::ReportInvalid { check: SnpCheck::GuestPolicyForm });
    }
    Ok(())
}

fn check_tcb(claims: &SnpClaims, rules: &SnpRules) -> Result<(), Refusal> {
    let product = claims.product;
    // A policy has a minimum for exactly the families that it accepts; else it is none.
    let refused = Refusal::PlatformNotAllowed { rule: PlatformRule::Product };
    let minimum = rules.min_tcb.get(&product).ok_or(refused)?;
    let at_launch = rules.min_launch_tcb.get(&product).unwrap_or(minimum);
    for (moment, found, minimum) in [
        (TcbMoment::Now, &claims.reported_tcb, minimum),
        (TcbMoment::Launch, &claims.launch_tcb, at_launch),
    ] {
        if let Some((component, found, minimum)) = first_below(found, minimum) {
            return Err(Refusal::TcbTooLow { moment, component, found, minimum });
        }
    }
    Ok(())
}

/// Every component counts by itself: a new boot loader does not make up for an old microcode.
fn first_below(found: &SnpTcb, minimum: &SnpTcb) -> Option<(&'static str, u8, u8)> {
    found
        .components()
        .into_iter()
        .zip(minimum.components())
        .map(|((component, found), (_, minimum))| (component, found, minimum))
        .find(|(_, found, minimum)| found < minimum)
}

fn check_age(claims: &SnpClaims, rules: &SnpRules, now: Timestamp) -> Result<(), Refusal> {
    if claims.endorsements_expire < now {
        return Err(Refusal::CollateralExpired);
    }
    let age = now.since(claims.crl_issued);
    if age > rules.max_crl_age {
        return Err(Refusal::RevocationListTooOld { age, limit: rules.max_crl_age });
    }
    Ok(())
}

fn check_platform(claims: &SnpClaims, rules: &SnpRules) -> Result<(), Refusal> {
    let (guest, platform) = (claims.guest_policy, claims.platform_info);
    let vlek = claims.signing_key == SnpSigningKey::Vlek;
    let broken = [
        (PlatformRule::Vlek, vlek && !rules.asvk.contains_key(&claims.product)),
        (
            // A guest that allows it may be launched with it the next time.
            PlatformRule::Smt,
            !rules.allow_smt && (guest & POLICY_SMT != 0 || platform & PLATFORM_SMT != 0),
        ),
        (
            PlatformRule::SingleSocket,
            rules.require_single_socket && guest & POLICY_SINGLE_SOCKET == 0,
        ),
        (
            PlatformRule::CiphertextHiding,
            rules.require_ciphertext_hiding && platform & PLATFORM_CIPHERTEXT_HIDING == 0,
        ),
        (
            PlatformRule::AliasCheck,
            rules.require_alias_check && platform & PLATFORM_ALIAS_CHECK == 0,
        ),
        (
            // As with TDX, an empty list of machines is the one list that does not deny.
            PlatformRule::UnlistedChip,
            !rules.allowed_chip_id.is_empty() && !rules.allowed_chip_id.contains(&claims.chip_id),
        ),
    ];
    match broken.into_iter().find(|(_, broken)| *broken) {
        Some((rule, _)) => Err(Refusal::PlatformNotAllowed { rule }),
        None => Ok(()),
    }
}

/// The image that was launched. An empty list matches nothing.
fn find_image<'a>(
    measured: &SnpMeasurements,
    images: &'a [SnpImage],
) -> Result<&'a SnpImage, Refusal> {
    let mut nearest = None;
    for image in images.iter().filter(|image| image.measurement == measured.measurement) {
        match first_difference(measured, image) {
            None => return Ok(image),
            Some(refusal) => nearest = nearest.or(Some(refusal)),
        }
    }
    Err(nearest.unwrap_or_else(|| unknown(measured, None)))
}

fn first_difference(measured: &SnpMeasurements, image: &SnpImage) -> Option<Refusal> {
    let differs = [
        ("host_data", measured.host_data != image.host_data.unwrap_or(HostData::ZERO)),
        ("id_key_digest", image.id_key_digest.is_some_and(|key| key != measured.id_key_digest)),
        (
            "author_key_digest",
            image.author_key_digest.is_some_and(|key| key != measured.author_key_digest),
        ),
    ];
    if let Some((field, _)) = differs.into_iter().find(|(_, differs)| *differs) {
        return Some(unknown(measured, Some(field)));
    }
    let (found, minimum) = (measured.guest_svn, image.min_guest_svn);
    (found < minimum).then_some(Refusal::GuestVersionTooLow { found, minimum })
}

const fn unknown(measured: &SnpMeasurements, differs: Option<&'static str>) -> Refusal {
    Refusal::UnknownMeasurement { register: "measurement", value: measured.measurement, differs }
}

#[cfg(test)]
mod tests;
