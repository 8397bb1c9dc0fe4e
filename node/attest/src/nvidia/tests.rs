//! NVIDIA reports: genuine ones of both families, and every way in which one can be wrong.
//!
//! Owns: the fixtures and what is expected of them. Must not: need a GPU or a network.

#[cfg(feature = "dev-tee")]
mod forged;
mod mutated;

use bytes::Bytes;
use cocoon_protocol::attest::{
    GpuArchitecture, GpuEvidenceKind, GpuGolden, GpuRules, GpuStanding, Policy, Refusal, Register,
    Rules, Tier, Trust,
};

use super::*;

/// Certificates of GPUs have no end; any day after they were made will do.
const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

fn evidence(report: &'static [u8], pem: &[u8]) -> GpuEvidence {
    GpuEvidence {
        kind: GpuEvidenceKind::Nvidia,
        report: Bytes::from_static(report),
        chain: Bytes::from(gpu_chain_from_pem(pem).unwrap()),
    }
}

fn hopper() -> GpuEvidence {
    evidence(
        include_bytes!("../../testdata/nvidia/hopper_report.bin"),
        include_bytes!("../../testdata/nvidia/hopper_chain.pem"),
    )
}

fn blackwell() -> GpuEvidence {
    evidence(
        include_bytes!("../../testdata/nvidia/blackwell_report.bin"),
        include_bytes!("../../testdata/nvidia/blackwell_chain.pem"),
    )
}

fn root() -> Root {
    Root::nvidia().unwrap()
}

fn verify_at(evidence: &GpuEvidence, now: Timestamp) -> Result<GpuClaims, GpuRefusal> {
    verify(evidence, &root(), now)
}

/// The nonce of both reports, which NVIDIA's samples share.
const NONCE: &str = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb";

const HOPPER_DEVICE: &str = "0456ef114633549618e8fbe54ece97118b2f034f11b036980137a15264a46d07";

#[test]
fn a_genuine_hopper_report_verifies() {
    let claims = verify_at(&hopper(), NOW).unwrap();
    assert_eq!(claims.architecture, GpuArchitecture::Hopper);
    assert_eq!((claims.driver.as_str(), claims.vbios.as_str()), ("550.90.07", "96.00.9F.00.01"));
    assert_eq!(hex::encode(claims.nonce), NONCE);
    assert!(claims.names_firmware && claims.decoder_disabled);
    assert_eq!(claims.measurements.len(), 64);
    let first = claims.measurements.get(&1).unwrap().to_string();
    assert!(first.starts_with("8048dfd18fe229bf16eb"), "{first}");
    // 9999-12-31T23:59:59Z.
    assert_eq!(claims.certificates_expire, Timestamp::from_unix_secs(253_402_300_799));
    // `openssl x509 -pubkey` of the second certificate, `openssl pkey -pubin -outform DER`, SHA-256.
    assert_eq!(hex::encode(claims.device()), HOPPER_DEVICE);
}

#[test]
fn the_pinned_root_is_nvidia_s() {
    use sha2::Digest as _;
    let root = include_bytes!("../../roots/nvidia/device_identity_ca.der");
    let pinned = "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48";
    assert_eq!(hex::encode(sha2::Sha256::digest(root)), pinned);
}

#[test]
fn a_genuine_blackwell_report_verifies() {
    let claims = verify_at(&blackwell(), NOW).unwrap();
    assert_eq!(claims.architecture, GpuArchitecture::Blackwell);
    assert_eq!((claims.driver.as_str(), claims.vbios.as_str()), ("575.32", "97.00.88.00.0F"));
    assert_eq!(hex::encode(claims.nonce), NONCE);
    assert!(claims.names_firmware && claims.decoder_disabled);
    assert_eq!(claims.measurements.len(), 64);
}

/// A policy that lists the state of `claims` as golden, as `scripts/gpu-golden` would.
fn policy_for(claims: &GpuClaims) -> Policy {
    let listed = claims.measurements.iter().filter(|(_, value)| **value != Register::ZERO);
    let rules = GpuRules {
        required: false,
        architectures: [claims.architecture].into(),
        allow_missing_fwid: false,
        revoked_keys: [].into(),
        identity_only: None,
        golden: vec![GpuGolden {
            driver: claims.driver.clone(),
            vbios: claims.vbios.clone(),
            rim_sha256: Vec::new(),
            measurements: listed.map(|(index, value)| (*index, vec![*value])).collect(),
        }],
    };
    let rules = Rules { gpu: Some(rules), ..Rules::default() };
    Policy::new(Trust::Production, Tier::Open, rules).unwrap()
}

#[test]
fn a_genuine_report_is_golden_by_its_own_state_and_by_no_other() {
    for evidence in [hopper(), blackwell()] {
        let claims = verify_at(&evidence, NOW).unwrap();
        let policy = policy_for(&claims);
        // The nonce of a sample is nobody's session, so no session accepts it.
        let nonces = cocoon_protocol::attest::gpu_nonces(&[1; 32], &[2; 32], 1);
        let judge = |claims: &GpuClaims| {
            cocoon_protocol::attest::appraise_gpus(std::slice::from_ref(claims), &nonces, &policy)
        };
        assert_eq!(judge(&claims), Err(GpuRefusal::NotFresh.of(0)));
        let fresh = GpuClaims { nonce: *nonces[0].as_bytes(), ..claims };
        assert_eq!(judge(&fresh).unwrap()[0].standing, GpuStanding::Golden);
        let mut other = fresh;
        other.measurements.insert(21, Register::from_bytes([1; 48]));
        let refused = Err(GpuRefusal::UnknownMeasurement { index: 21 }.of(0));
        assert_eq!(judge(&other), refused);
    }
}

/// NVIDIA's own reference values beside the sample are for other versions: a genuine GPU whose state
/// is not listed.
#[test]
fn a_genuine_report_fails_the_reference_values_of_another_driver() {
    let text = include_str!("../../testdata/nvidia/golden_545.00.toml");
    let policy = crate::parse_policy(text).unwrap();
    let claims = verify_at(&hopper(), NOW).unwrap();
    let nonces = cocoon_protocol::attest::gpu_nonces(&[1; 32], &[2; 32], 1);
    let fresh = GpuClaims { nonce: *nonces[0].as_bytes(), ..claims };
    let judge = |claims: GpuClaims| {
        cocoon_protocol::attest::appraise_gpus(&[claims], &nonces, &policy).unwrap_err()
    };
    let version = "550.90.07".to_owned();
    assert_eq!(judge(fresh.clone()), GpuRefusal::DriverNotAllowed { version }.of(0));
    // Even if it lied about its versions, its measurements would not.
    let lying =
        GpuClaims { driver: "545.00".to_owned(), vbios: "96.00.5E.00.01".to_owned(), ..fresh };
    let refusal = judge(lying);
    let Refusal::Gpu { position: 0, reason } = &refusal else { panic!("{refusal}") };
    assert!(matches!(**reason, GpuRefusal::UnknownMeasurement { .. }), "{refusal}");
}

#[test]
fn a_chain_at_the_wrong_time_is_refused() {
    // Before 2022-03-01, when the provisioner's certificate begins.
    let early = verify_at(&hopper(), Timestamp::from_unix_secs(1_640_000_000));
    assert!(matches!(early, Err(GpuRefusal::CertificateExpired { .. })), "{early:?}");
    let late = verify_at(&hopper(), Timestamp::from_unix_secs(253_402_300_800));
    assert_eq!(late, Err(GpuRefusal::CertificateExpired { depth: 0 }));
}

#[test]
fn a_genuine_report_with_another_device_s_chain_is_refused() {
    let mixed = GpuEvidence { chain: blackwell().chain, ..hopper() };
    assert_eq!(verify_at(&mixed, NOW), Err(GpuRefusal::ReportSignature));
}

#[test]
fn what_exceeds_the_bounds_is_refused_unread() {
    let long = GpuEvidence { report: vec![0; limits::GPU_REPORT_BYTES + 1].into(), ..hopper() };
    assert_eq!(verify_at(&long, NOW), Err(GpuRefusal::Report { part: "length" }));
    let long = GpuEvidence { chain: vec![0; limits::GPU_CHAIN_BYTES + 1].into(), ..hopper() };
    assert_eq!(verify_at(&long, NOW), Err(GpuRefusal::Certificates { part: "length" }));
}

#[test]
fn pem_is_read_strictly() {
    let pem: &[u8] = include_bytes!("../../testdata/nvidia/hopper_chain.pem");
    let padded = [pem, &[0; 100]].concat();
    assert_eq!(gpu_chain_from_pem(&padded), gpu_chain_from_pem(pem));
    assert_eq!(gpu_chain_from_pem(b""), None);
    assert_eq!(gpu_chain_from_pem(b"not a certificate"), None);
    assert_eq!(gpu_chain_from_pem(&pem[..pem.len() / 2]), None);
    assert_eq!(gpu_chain_from_pem(&[pem, b"more".as_slice()].concat()), None);
}
