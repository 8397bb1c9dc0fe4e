//! Each check of a GPU's claims, passing and failing.
//!
//! Owns: the cases. Must not: need a report; claims are made by hand here.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::attest::binding::gpu_nonce;
use crate::attest::gpu::evidence::GpuEvidenceKind;
use crate::attest::gpu::rules::GpuIdentityOnly;
use crate::attest::policy::{PolicyError, Rules};

fn nonce() -> GpuNonce {
    gpu_nonce(&[5; 32], &[6; 32], 0)
}

fn value(byte: u8) -> Register {
    Register::from_bytes([byte; 48])
}

fn claims() -> GpuClaims {
    GpuClaims {
        kind: GpuEvidenceKind::Nvidia,
        architecture: GpuArchitecture::Hopper,
        keys: vec![[1; 32], [2; 32], [3; 32], [4; 32], [5; 32]],
        certificates_expire: Timestamp::from_unix_secs(2_000_000_000),
        nonce: *nonce().as_bytes(),
        driver: "550.90.07".to_owned(),
        vbios: "96.00.9F.00.01".to_owned(),
        names_firmware: true,
        decoder_disabled: false,
        measurements: BTreeMap::from([(0, Register::ZERO), (9, value(9)), (35, value(35))]),
    }
}

fn golden() -> GpuGolden {
    GpuGolden {
        driver: "550.90.07".to_owned(),
        vbios: "96.00.9F.00.01".to_owned(),
        rim_sha256: Vec::new(),
        measurements: BTreeMap::from([
            (0, vec![Register::ZERO]),
            (9, vec![value(8), value(9)]),
            (35, vec![value(35)]),
        ]),
    }
}

fn rules() -> GpuRules {
    GpuRules {
        required: false,
        architectures: BTreeSet::from([GpuArchitecture::Hopper]),
        allow_missing_fwid: false,
        revoked_keys: BTreeSet::from([[99; 32]]),
        identity_only: None,
        golden: vec![golden()],
    }
}

fn identity_only() -> GpuIdentityOnly {
    GpuIdentityOnly {
        drivers: BTreeSet::from(["550.90.07".to_owned()]),
        vbios: BTreeSet::from(["96.00.9F.00.01".to_owned()]),
    }
}

fn policy(trust: Trust, gpu: Option<GpuRules>) -> Result<Policy, PolicyError> {
    Policy::new(trust, Tier::Open, Rules { gpu, ..Rules::default() })
}

fn judge_all(claims: &[GpuClaims], rules: GpuRules) -> Result<Vec<GpuAppraisal>, Refusal> {
    let policy = policy(Trust::Production, Some(rules)).unwrap();
    appraise_gpus(claims, &vec![nonce(); claims.len()], &policy)
}

fn judge_with(
    change: impl FnOnce(&mut GpuClaims),
    rules: GpuRules,
) -> Result<GpuStanding, GpuRefusal> {
    let mut claims = claims();
    change(&mut claims);
    match judge_all(&[claims], rules) {
        Ok(appraisals) => Ok(appraisals[0].standing),
        Err(Refusal::Gpu { position: 0, reason }) => Err(*reason),
        Err(other) => panic!("{other}"),
    }
}

fn judge(change: impl FnOnce(&mut GpuClaims)) -> Result<GpuStanding, GpuRefusal> {
    judge_with(change, rules())
}

#[test]
fn a_listed_state_is_golden_and_confidential_beside_a_cpu() {
    assert_eq!(judge(|_| {}), Ok(GpuStanding::Golden));
    assert_eq!(
        judge(|c| c.measurements.insert(9, value(8)).map_or((), drop)),
        Ok(GpuStanding::Golden)
    );
    // What the policy does not list is not looked at.
    assert_eq!(
        judge(|c| c.measurements.insert(60, value(8)).map_or((), drop)),
        Ok(GpuStanding::Golden)
    );
    let gpus = judge_all(&[claims()], rules()).unwrap();
    assert_eq!(gpus[0].device, [2; 32]);
    assert_eq!(tier_with_gpus(Tier::Attested, &gpus), Tier::Confidential);
    assert_eq!(tier_with_gpus(Tier::Open, &gpus), Tier::Open);
    assert_eq!(tier_with_gpus(Tier::Attested, &[]), Tier::Attested);
}

#[test]
fn refuses_simulated() {
    let simulated = |c: &mut GpuClaims| c.kind = GpuEvidenceKind::SimulatedNvidia;
    assert_eq!(judge(simulated), Err(GpuRefusal::SimulatedNotAllowed));
    let mut claims = claims();
    simulated(&mut claims);
    let dev = policy(Trust::Dev, Some(rules())).unwrap();
    assert!(appraise_gpus(&[claims], &[nonce()], &dev).unwrap()[0].simulated);
}

#[test]
fn refuses_not_fresh() {
    assert_eq!(judge(|c| c.nonce[31] ^= 1), Err(GpuRefusal::NotFresh));
}

#[test]
fn refuses_without_rules_and_without_a_list() {
    let none = policy(Trust::Production, None).unwrap();
    let refused = appraise_gpus(&[claims()], &[nonce()], &none);
    assert_eq!(refused, Err(GpuRefusal::NoRules.of(0)));

    let architecture = GpuArchitecture::Hopper;
    let empty = GpuRules { architectures: BTreeSet::new(), ..rules() };
    let refused = Err(GpuRefusal::ArchitectureNotAllowed { architecture });
    assert_eq!(judge_with(|_| {}, empty), refused);

    let version = claims().driver;
    let refused = Err(GpuRefusal::DriverNotAllowed { version });
    let empty = GpuRules { golden: Vec::new(), ..rules() };
    assert_eq!(judge_with(|_| {}, empty.clone()), refused);
    let nothing = GpuIdentityOnly { drivers: BTreeSet::new(), vbios: BTreeSet::new() };
    assert_eq!(judge_with(|_| {}, GpuRules { identity_only: Some(nothing), ..empty }), refused);
}

#[test]
fn refuses_another_architecture() {
    let architecture = GpuArchitecture::Blackwell;
    let refused = Err(GpuRefusal::ArchitectureNotAllowed { architecture });
    assert_eq!(judge(|c| c.architecture = architecture), refused);
}

#[test]
fn refuses_a_revoked_key_wherever_it_is() {
    for depth in 0..5 {
        let refused = Err(GpuRefusal::Revoked { depth });
        assert_eq!(judge(|c| c.keys[depth] = [99; 32]), refused);
    }
}

#[test]
fn refuses_missing_firmware_unless_the_policy_allows_it() {
    assert_eq!(judge(|c| c.names_firmware = false), Err(GpuRefusal::FirmwareMissing));
    let lenient = GpuRules { allow_missing_fwid: true, ..rules() };
    assert_eq!(judge_with(|c| c.names_firmware = false, lenient), Ok(GpuStanding::Golden));
}

#[test]
fn refuses_another_driver_or_vbios() {
    let driver = |c: &mut GpuClaims| c.driver = "550.90.08".to_owned();
    let vbios = |c: &mut GpuClaims| c.vbios = "96.00.9F.00.02".to_owned();
    let version = "550.90.08".to_owned();
    assert_eq!(judge(driver), Err(GpuRefusal::DriverNotAllowed { version }));
    let version = "96.00.9F.00.02".to_owned();
    assert_eq!(judge(vbios), Err(GpuRefusal::VbiosNotAllowed { version: version.clone() }));
    let only = GpuRules { golden: Vec::new(), identity_only: Some(identity_only()), ..rules() };
    assert_eq!(judge_with(vbios, only.clone()), Err(GpuRefusal::VbiosNotAllowed { version }));
    let version = "550.90.08".to_owned();
    assert_eq!(judge_with(driver, only), Err(GpuRefusal::DriverNotAllowed { version }));
}

#[test]
fn refuses_a_measurement_that_differs_or_is_missing() {
    for index in [0, 9, 35] {
        let differs = judge(|c| c.measurements.insert(index, value(77)).map_or((), drop));
        assert_eq!(differs, Err(GpuRefusal::UnknownMeasurement { index }));
        let missing = judge(|c| c.measurements.remove(&index).map_or((), drop));
        assert_eq!(missing, Err(GpuRefusal::MeasurementMissing { index }));
    }
}

#[test]
fn the_decoder_is_not_compared_while_it_is_off() {
    let off = |c: &mut GpuClaims| {
        c.decoder_disabled = true;
        c.measurements.insert(35, value(77));
    };
    assert_eq!(judge(off), Ok(GpuStanding::Golden));
    let mut decoder_alone = rules();
    decoder_alone.golden[0].measurements = BTreeMap::from([(35, vec![value(35)])]);
    let refused = Err(GpuRefusal::MeasurementMissing { index: 35 });
    assert_eq!(judge_with(off, decoder_alone), refused);
}

#[test]
fn identity_alone_is_labelled_and_never_confidential() {
    let only = GpuRules { golden: Vec::new(), identity_only: Some(identity_only()), ..rules() };
    let gpus = judge_all(&[claims()], only).unwrap();
    assert_eq!(gpus[0].standing.as_str(), "gpu-identity-only");
    assert_eq!(tier_with_gpus(Tier::Attested, &gpus), Tier::Attested);
    let golden = judge_all(&[claims()], rules()).unwrap();
    let mixed = [golden[0].clone(), gpus[0].clone()];
    assert_eq!(tier_with_gpus(Tier::Attested, &mixed), Tier::Attested);
}

#[test]
fn a_gpu_with_golden_values_cannot_fall_back_to_its_identity() {
    let both = GpuRules { identity_only: Some(identity_only()), ..rules() };
    let refused = Err(GpuRefusal::UnknownMeasurement { index: 9 });
    assert_eq!(judge_with(|c| c.measurements.insert(9, value(1)).map_or((), drop), both), refused);
}

#[test]
fn any_listed_state_of_the_same_versions_will_do_and_the_first_names_the_reason() {
    let mut two = rules();
    let mut other = golden();
    other.measurements.insert(9, vec![value(50)]);
    two.golden.insert(0, other);
    assert_eq!(judge_with(|_| {}, two.clone()), Ok(GpuStanding::Golden));
    let refused = Err(GpuRefusal::UnknownMeasurement { index: 9 });
    assert_eq!(judge_with(|c| c.measurements.insert(9, value(1)).map_or((), drop), two), refused);
}

#[test]
fn every_gpu_must_pass_and_none_may_be_shown_twice() {
    assert_eq!(judge_all(&[], rules()), Err(Refusal::GpuEvidenceMissing));
    let other = GpuClaims { keys: vec![[1; 32], [12; 32]], ..claims() };
    assert_eq!(judge_all(&[claims(), other.clone()], rules()).map(|gpus| gpus.len()), Ok(2));
    assert_eq!(judge_all(&[claims(), claims()], rules()), Err(GpuRefusal::Duplicate.of(1)));
    let worse = GpuClaims { driver: "1".to_owned(), ..other };
    let version = "1".to_owned();
    let refused = GpuRefusal::DriverNotAllowed { version }.of(1);
    assert_eq!(judge_all(&[claims(), worse], rules()), Err(refused));
    // Nonces and claims that do not belong together prove nothing.
    let policy = policy(Trust::Production, Some(rules())).unwrap();
    assert_eq!(appraise_gpus(&[claims()], &[], &policy), Err(Refusal::GpuEvidenceMissing));
}

#[test]
fn a_reason_reads_as_a_sentence() {
    assert_eq!(
        GpuRefusal::UnknownMeasurement { index: 9 }.of(3).to_string(),
        "the provider's GPU 3 is refused: its measurement 9 has a value that the policy does not list"
    );
}

#[test]
fn a_state_that_pins_nothing_is_no_policy() {
    let refused = |measurements: BTreeMap<u8, Vec<Register>>| {
        let golden = vec![GpuGolden { measurements, ..golden() }];
        match policy(Trust::Production, Some(GpuRules { golden, ..rules() })) {
            Err(PolicyError::GpuGolden { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(BTreeMap::new()).contains("pins no measurement"));
    assert!(refused(BTreeMap::from([(0, vec![Register::ZERO])])).contains("pins no measurement"));
    let loose = BTreeMap::from([(1, vec![value(1), Register::ZERO])]);
    assert!(refused(loose).contains("pins no measurement"));
    assert!(refused(BTreeMap::from([(1, vec![])])).contains("without a value"));
    assert!(refused(BTreeMap::from([(64, vec![value(1)])])).contains("beyond 63"));
    let many = BTreeMap::from([(1, vec![value(1); 65])]);
    assert!(refused(many).contains("too many values"));
}

#[test]
fn the_policy_s_identity_covers_every_rule() {
    let id = |rules| policy(Trust::Production, Some(rules)).unwrap().id();
    let mut variants = vec![
        rules(),
        GpuRules { required: true, ..rules() },
        GpuRules { allow_missing_fwid: true, ..rules() },
        GpuRules { architectures: BTreeSet::new(), ..rules() },
        GpuRules { revoked_keys: BTreeSet::new(), ..rules() },
        GpuRules { identity_only: Some(identity_only()), ..rules() },
        GpuRules { golden: Vec::new(), ..rules() },
    ];
    let fewer = GpuIdentityOnly { vbios: BTreeSet::new(), ..identity_only() };
    variants.push(GpuRules { identity_only: Some(fewer), ..rules() });
    let fewer = GpuIdentityOnly { drivers: BTreeSet::new(), ..identity_only() };
    variants.push(GpuRules { identity_only: Some(fewer), ..rules() });
    let mut entries = vec![
        GpuGolden { driver: "1".to_owned(), ..golden() },
        GpuGolden { vbios: "1".to_owned(), ..golden() },
        GpuGolden { rim_sha256: vec![[1; 32]], ..golden() },
    ];
    for (index, values) in [(9, vec![value(9)]), (10, vec![value(9)]), (0, vec![value(1)])] {
        let mut entry = golden();
        entry.measurements.insert(index, values);
        entries.push(entry);
    }
    variants.extend(entries.into_iter().map(|entry| GpuRules { golden: vec![entry], ..rules() }));
    let mut ids: Vec<_> = variants.iter().cloned().map(id).collect();
    ids.push(policy(Trust::Production, None).unwrap().id());
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}
