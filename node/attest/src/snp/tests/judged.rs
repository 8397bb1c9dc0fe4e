//! From the attester to the policy's verdict, through the appraiser as the channel uses it.
//!
//! Owns: that a SEV-SNP provider is accepted end to end, and each rule can refuse it there.

use super::*;
use crate::appraiser::Judged;
use crate::attester::report_data;
use crate::simulated::{SimulatedSnp, dev_policy};
use crate::{Appraiser, Attester as _, parse_policy};
use cocoon_protocol::attest::{
    Evidence, EvidenceKind, Measured, PlatformRule, Policy, ReportData, Rules, SnpRules, TcbMoment,
    Tier, Trust,
};

const DEBUG: u64 = 1 << 19;
const MIGRATE: u64 = 1 << 18;
const SMT: u64 = 1 << 16;

fn judge_at(
    change: impl FnOnce(&mut SimulatedSnpGuest),
    tighten: impl FnOnce(&mut SnpRules),
    later: Millis,
) -> Result<Judged, Refusal> {
    let mut guest = SimulatedSnpGuest::default();
    change(&mut guest);
    let mut rules = parse_policy(&dev_policy()).unwrap().rules().clone();
    tighten(rules.snp.as_mut().unwrap());
    let policy = Policy::new(Trust::Dev, Tier::Attested, rules).unwrap();
    let bound = report_data(7);
    let quoted = SimulatedSnp::new(guest).quote(&bound, NOW).unwrap();
    Appraiser::new(policy).judge(
        &quoted.evidence,
        &quoted.endorsements,
        bound.as_bytes(),
        NOW.after(later),
    )
}

fn judge(change: impl FnOnce(&mut SimulatedSnpGuest)) -> Result<Judged, Refusal> {
    judge_at(change, |_| {}, Millis::new(0))
}

fn refusal(change: impl FnOnce(&mut SimulatedSnpGuest)) -> Refusal {
    judge(change).unwrap_err()
}

fn refusal_by(tighten: impl FnOnce(&mut SnpRules)) -> Refusal {
    judge_at(|_| {}, tighten, Millis::new(0)).unwrap_err()
}

#[test]
fn an_honest_guest_is_accepted_end_to_end() {
    let judged = judge(|_| {}).unwrap();
    assert_eq!(judged.appraisal.tier, Tier::Attested);
    assert_eq!(judged.appraisal.image, "simulated guest (NOT A TEE)");
    let measured = SimulatedSnpGuest::default().measurements;
    assert_eq!(judged.measurements, Measured::Snp(measured));
    // The list was issued at the full hour, and the policy allows it thirty days.
    assert_eq!(judged.appraisal.expires, NOW.after(Millis::new(30 * DAY.get())));
}

#[test]
fn guests_that_no_policy_wants_are_refused() {
    assert_eq!(refusal(|guest| guest.guest_policy |= DEBUG), Refusal::Debug);
    assert_eq!(refusal(|guest| guest.guest_policy |= MIGRATE), Refusal::Migratable);
    let form = Refusal::ReportInvalid { check: SnpCheck::GuestPolicyForm };
    assert_eq!(refusal(|guest| guest.guest_policy = 0), form);
    assert_eq!(refusal(|guest| guest.guest_policy |= 1 << 40), form);
}

#[test]
fn rules_of_the_policy_refuse_guests() {
    let platform = |rule| Refusal::PlatformNotAllowed { rule };
    assert_eq!(refusal(|guest| guest.guest_policy |= SMT), platform(PlatformRule::Smt));
    assert_eq!(refusal(|guest| guest.platform_info |= 1), platform(PlatformRule::Smt));
    assert_eq!(refusal(|guest| guest.vmpl = 1), Refusal::VmplTooLow { vmpl: 1, limit: 0 });
    let launch = TcbMoment::Launch;
    assert_eq!(
        refusal(|guest| guest.launch_tcb.snp = 7),
        Refusal::TcbTooLow { moment: launch, component: "snp", found: 7, minimum: 8 }
    );
    let value = Register::from_bytes([9; 48]);
    let register = "measurement";
    assert_eq!(
        refusal(|guest| guest.measurements.measurement = value),
        Refusal::UnknownMeasurement { register, value, differs: None }
    );
    let value = SimulatedSnpGuest::default().measurements.measurement;
    assert_eq!(
        refusal(|guest| guest.measurements.host_data = HostData::from_bytes([1; 32])),
        Refusal::UnknownMeasurement { register, value, differs: Some("host_data") }
    );

    let tcb = |rules: &mut SnpRules| {
        rules.min_tcb.get_mut(&SnpProduct::Milan).unwrap().microcode = 116;
    };
    let now = TcbMoment::Now;
    assert_eq!(
        refusal_by(tcb),
        Refusal::TcbTooLow { moment: now, component: "ucode", found: 115, minimum: 116 }
    );
    let genoa = |rules: &mut SnpRules| {
        rules.products = [SnpProduct::Genoa].into();
        rules.min_tcb = [(SnpProduct::Genoa, SnpTcb::default())].into();
    };
    assert_eq!(refusal_by(genoa), platform(PlatformRule::Product));
    let chip = |rules: &mut SnpRules| rules.allowed_chip_id = vec![[1; 64]];
    assert_eq!(refusal_by(chip), platform(PlatformRule::UnlistedChip));
    let socket = |rules: &mut SnpRules| rules.require_single_socket = true;
    assert_eq!(refusal_by(socket), platform(PlatformRule::SingleSocket));
    let hiding = |rules: &mut SnpRules| rules.require_ciphertext_hiding = true;
    assert_eq!(refusal_by(hiding), platform(PlatformRule::CiphertextHiding));
    let alias = |rules: &mut SnpRules| rules.require_alias_check = true;
    assert_eq!(refusal_by(alias), platform(PlatformRule::AliasCheck));
    let version = |rules: &mut SnpRules| rules.images[0].min_guest_svn = 1;
    assert_eq!(refusal_by(version), Refusal::GuestVersionTooLow { found: 0, minimum: 1 });
    assert_eq!(
        refusal_by(|rules| rules.images.clear()),
        Refusal::UnknownMeasurement { register, value, differs: None }
    );
}

#[test]
fn a_lie_about_the_firmware_is_refused_before_any_policy() {
    let lie = refusal(|guest| guest.reported_tcb.microcode = 255);
    assert_eq!(lie, Refusal::ReportInvalid { check: SnpCheck::TcbBinding });
}

#[test]
fn an_old_revocation_list_is_refused_before_it_expires() {
    let after = |days: u64| judge_at(|_| {}, |_| {}, Millis::new(days * DAY.get()));
    assert!(after(30).is_ok());
    let limit = Millis::new(30 * DAY.get());
    let age = Millis::new(31 * DAY.get());
    assert_eq!(after(31).unwrap_err(), Refusal::RevocationListTooOld { age, limit });
    assert_eq!(after(184).unwrap_err(), Refusal::RevocationListExpired);
}

#[test]
fn a_report_bound_to_something_else_is_refused() {
    let quoted =
        SimulatedSnp::new(SimulatedSnpGuest::default()).quote(&report_data(7), NOW).unwrap();
    let appraiser = Appraiser::new(parse_policy(&dev_policy()).unwrap());
    let judge = |bound: ReportData| {
        appraiser.judge(&quoted.evidence, &quoted.endorsements, bound.as_bytes(), NOW)
    };
    assert!(judge(report_data(7)).is_ok());
    assert_eq!(judge(report_data(8)).unwrap_err(), Refusal::NotFresh);
}

#[test]
fn the_simulation_needs_a_dev_policy_and_its_own_kind() {
    let bound = report_data(7);
    let quoted = SimulatedSnp::new(SimulatedSnpGuest::default()).quote(&bound, NOW).unwrap();
    let dev = parse_policy(&dev_policy()).unwrap();
    let judge = |policy: Policy, kind| {
        let evidence = Evidence::new(kind, quoted.evidence.quote().to_vec().into()).unwrap();
        Appraiser::new(policy).judge(&evidence, &quoted.endorsements, bound.as_bytes(), NOW)
    };
    assert!(judge(dev.clone(), EvidenceKind::SimulatedSnp).is_ok());
    // Even under a dev policy, it does not pass for real.
    assert_eq!(judge(dev.clone(), EvidenceKind::Snp).unwrap_err(), Refusal::UntrustedRoot);
    assert_eq!(judge(dev.clone(), EvidenceKind::Tdx).unwrap_err(), Refusal::Malformed);
    let production =
        || Policy::new(Trust::Production, Tier::Attested, dev.rules().clone()).unwrap();
    let refused = judge(production(), EvidenceKind::SimulatedSnp).unwrap_err();
    assert_eq!(refused, Refusal::SimulatedNotAllowed);
    assert_eq!(judge(production(), EvidenceKind::Snp).unwrap_err(), Refusal::UntrustedRoot);
    // Rules for another vendor are none for this one.
    let tdx_only = Rules { snp: None, ..dev.rules().clone() };
    let tdx_only = Policy::new(Trust::Dev, Tier::Attested, tdx_only).unwrap();
    let refused = judge(tdx_only, EvidenceKind::SimulatedSnp).unwrap_err();
    assert!(matches!(refused, Refusal::UnknownMeasurement { differs: None, .. }), "{refused:?}");
}

#[test]
fn a_policy_s_intermediate_must_be_one() {
    let text = |der: &[u8]| {
        use base64::Engine as _;
        let pem = base64::engine::general_purpose::STANDARD.encode(der);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----");
        dev_policy().replace("max_crl_age_d", "vlek = true\nmax_crl_age_d").replace(
            "[[snp.image]]",
            &format!("[snp.asvk]\nMilan = \"\"\"{pem}\"\"\"\n\n[[snp.image]]"),
        )
    };
    assert!(parse_policy(&text(&Case::of_provider().ask)).is_ok());
    for der in [VCEK, b"certificate", CRL] {
        assert!(parse_policy(&text(der)).is_err());
    }
}
