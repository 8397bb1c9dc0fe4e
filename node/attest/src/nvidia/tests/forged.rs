//! Evidence forged under the test root, one thing wrong at a time, through the production code.
//!
//! Owns: each check's failing case, named after the check. Must not: be trusted by anything.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, KeyUsagePurpose,
    date_time_ymd,
};

use super::*;
use crate::simulated::{
    SimulatedGpu, SimulatedGpus, anchors, forge_chain, forge_report, resign_report,
};

fn gpu() -> SimulatedGpu {
    SimulatedGpu::new(0)
}

fn forged(report: Vec<u8>, chain: Vec<u8>) -> GpuEvidence {
    let kind = GpuEvidenceKind::SimulatedNvidia;
    GpuEvidence { kind, report: report.into(), chain: chain.into() }
}

fn judge(report: Vec<u8>, chain: Vec<u8>) -> Result<GpuClaims, GpuRefusal> {
    let root = anchors().unwrap().nvidia.unwrap();
    verify(&forged(report, chain), &root, NOW)
}

fn report() -> Vec<u8> {
    forge_report(&gpu(), &[7; 32]).unwrap()
}

fn chain() -> Vec<u8> {
    forge_chain(&gpu(), |_, _| {}).unwrap()
}

/// With one certificate, by its depth from the root, spoiled.
fn with_certificate(
    depth: usize,
    spoil: impl Fn(&mut CertificateParams),
) -> Result<GpuClaims, GpuRefusal> {
    let change = |at, parameters: &mut CertificateParams| {
        if at == depth {
            spoil(parameters);
        }
    };
    judge(report(), forge_chain(&gpu(), change).unwrap())
}

/// With bytes of the report changed, and signed anew.
fn with_report(change: impl FnOnce(&mut Vec<u8>)) -> Result<GpuClaims, GpuRefusal> {
    let mut report = report();
    change(&mut report);
    judge(resign_report(&gpu(), &report), chain())
}

/// Where the opaque fields begin in a simulated report: request, header, 64 blocks, nonce, length.
const OPAQUE: usize = 37 + 8 + 64 * 55 + 32 + 2;

/// With one opaque field more, or in place of the one with the same type.
fn with_field(field: u16, value: Option<&[u8]>) -> Result<GpuClaims, GpuRefusal> {
    with_report(|report| {
        let signature = report.split_off(report.len() - 96);
        let opaque = report.split_off(OPAQUE);
        let mut rest = &opaque[..];
        let mut kept = Vec::new();
        while let [a, b, c, d, tail @ ..] = rest {
            let length = usize::from(u16::from_le_bytes([*c, *d]));
            if u16::from_le_bytes([*a, *b]) != field {
                kept.extend_from_slice(&rest[..4 + length]);
            }
            rest = &tail[length..];
        }
        if let Some(value) = value {
            kept.extend(field.to_le_bytes());
            kept.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
            kept.extend_from_slice(value);
        }
        let length = u16::try_from(kept.len()).unwrap().to_le_bytes();
        report[OPAQUE - 2..].copy_from_slice(&length);
        report.extend(kept);
        report.extend(signature);
    })
}

const fn in_report<T>(part: &'static str) -> Result<T, GpuRefusal> {
    Err(GpuRefusal::Report { part })
}

const fn in_certificates<T>(part: &'static str) -> Result<T, GpuRefusal> {
    Err(GpuRefusal::Certificates { part })
}

#[test]
fn honest_forgeries_pass_under_the_test_root_alone() {
    let claims = judge(report(), chain()).unwrap();
    assert_eq!(claims.architecture, GpuArchitecture::Hopper);
    assert_eq!((claims.nonce, claims.vbios), ([7; 32], gpu().vbios_version()));
    assert!(claims.kind.is_simulated() && claims.names_firmware);
    let genuine_root = verify_at(&forged(report(), chain()), NOW);
    assert_eq!(genuine_root, Err(GpuRefusal::UntrustedRoot));
    assert!(format!("{:?}", SimulatedGpus::new(vec![gpu()])).contains("simulated"));
}

#[test]
fn the_test_root_is_the_same_each_time() {
    // Signatures are randomised, so the bytes differ; under either root the other's chain holds.
    assert_ne!(chain(), chain());
    assert!(judge(report(), chain()).is_ok());
}

#[test]
fn refuses_untrusted_root() {
    let other = with_certificate(0, |root| {
        root.distinguished_name.push(DnType::CommonName, "NVIDIA Device Identity CA");
    });
    assert_eq!(other, Err(GpuRefusal::UntrustedRoot));
}

#[test]
fn refuses_chain_length() {
    let whole = chain();
    let first = 4 + usize::from(u16::from_be_bytes([whole[2], whole[3]]));
    let shorter = judge(report(), whole[first..].to_vec());
    assert_eq!(shorter, Err(GpuRefusal::ChainLength { count: 4, expected: 5 }));
    let longer = judge(report(), [&whole[..first], &whole].concat());
    assert_eq!(longer, Err(GpuRefusal::ChainLength { count: 6, expected: 5 }));
}

#[test]
fn refuses_issuer() {
    // The signer of one GPU above the device certificate of another.
    let (whole, other) = (chain(), forge_chain(&SimulatedGpu::new(1), |_, _| {}).unwrap());
    let first = |chain: &[u8]| 4 + usize::from(u16::from_be_bytes([chain[2], chain[3]]));
    let mixed = [&whole[..first(&whole)], &other[first(&other)..]].concat();
    assert_eq!(judge(report(), mixed), Err(GpuRefusal::Issuer { depth: 0 }));
}

#[test]
fn refuses_certificate_signature() {
    // The same name above, but another key: a signer that the device never made.
    let first = |chain: &[u8]| 4 + usize::from(u16::from_be_bytes([chain[2], chain[3]]));
    let other = forge_chain(&SimulatedGpu::new(1), |depth, parameters| {
        if depth == 3 {
            let name = "COCOON DEV GH100 0 - NOT A GPU";
            parameters.distinguished_name.push(DnType::CommonName, name);
        }
    })
    .unwrap();
    let whole = chain();
    let mixed = [&other[..first(&other)], &whole[first(&whole)..]].concat();
    assert_eq!(judge(report(), mixed), Err(GpuRefusal::CertificateSignature { depth: 0 }));
}

#[test]
fn refuses_not_an_authority() {
    for depth in 1..4 {
        let refused = Err(GpuRefusal::NotAnAuthority { depth: 3 - depth });
        assert_eq!(
            with_certificate(depth, |parameters| parameters.is_ca = IsCa::ExplicitNoCa),
            refused
        );
        let signs_only = |parameters: &mut CertificateParams| {
            parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        };
        assert_eq!(with_certificate(depth, signs_only), refused);
    }
}

#[test]
fn refuses_key_usage() {
    let issues = |parameters: &mut CertificateParams| {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    assert_eq!(with_certificate(4, issues), Err(GpuRefusal::KeyUsage));
    let any = |parameters: &mut CertificateParams| parameters.key_usages.clear();
    assert_eq!(with_certificate(4, any), Err(GpuRefusal::KeyUsage));
}

#[test]
fn refuses_certificate_expired() {
    for depth in 1..5 {
        let refused = Err(GpuRefusal::CertificateExpired { depth: 4 - depth });
        let past = |parameters: &mut CertificateParams| {
            parameters.not_after = date_time_ymd(2025, 1, 1);
        };
        assert_eq!(with_certificate(depth, past), refused);
        let future = |parameters: &mut CertificateParams| {
            parameters.not_before = date_time_ymd(2040, 1, 1);
        };
        assert_eq!(with_certificate(depth, future), refused);
    }
}

#[test]
fn refuses_critical_extension() {
    let strange = |parameters: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
        extension.set_criticality(true);
        parameters.custom_extensions.push(extension);
    };
    assert_eq!(with_certificate(4, strange), in_certificates("critical extension"));
}

#[test]
fn refuses_repeated_extension() {
    let twice = |parameters: &mut CertificateParams| {
        let again = parameters.custom_extensions.clone();
        parameters.custom_extensions.extend(again);
    };
    assert_eq!(with_certificate(4, twice), in_certificates("repeated extension"));
}

#[test]
fn refuses_a_certificate_without_firmware() {
    let without = |parameters: &mut CertificateParams| parameters.custom_extensions.clear();
    assert_eq!(with_certificate(4, without), in_certificates("firmware identity"));
}

#[test]
fn refuses_unknown_architecture() {
    let switch = with_certificate(1, |parameters| {
        parameters.distinguished_name.push(DnType::CommonName, "COCOON DEV LS10 Identity");
    });
    let found = "LS10".to_owned();
    assert_eq!(switch, Err(GpuRefusal::UnknownArchitecture { found }));
}

#[test]
fn refuses_not_the_attestation_processor() {
    for name in ["GH100 A01 FSP FMC LF", "GB100 A01 GSP FMC LF", "GH100 A01 GSP BROM"] {
        let other = with_certificate(4, |parameters| {
            parameters.distinguished_name.push(DnType::CommonName, name);
        });
        assert_eq!(other, Err(GpuRefusal::NotTheAttestationProcessor), "{name}");
    }
}

#[test]
fn refuses_report_signature() {
    let other = forge_report(&SimulatedGpu::new(1), &[7; 32]).unwrap();
    assert_eq!(judge(other, chain()), Err(GpuRefusal::ReportSignature));
    let mut nonce = report();
    nonce[4] ^= 1;
    assert_eq!(judge(nonce, chain()), Err(GpuRefusal::ReportSignature));
}

#[test]
fn refuses_firmware_mismatch() {
    assert_eq!(with_field(20, Some(&[9; 48])), Err(GpuRefusal::FirmwareMismatch));
    assert_eq!(with_field(20, Some(&[9; 47])), in_report("firmware identity"));
    // Without it the claims say so, and the policy decides.
    assert!(!with_field(20, None).unwrap().names_firmware);
}

#[test]
fn refuses_protected_pcie() {
    assert_eq!(with_field(21, Some(&[0xaa])), Err(GpuRefusal::ProtectedPcie));
    assert_eq!(with_field(36, Some(&[2, 0, 0, 0])), Err(GpuRefusal::ProtectedPcie));
    assert_eq!(with_field(36, Some(&[3])), Err(GpuRefusal::ProtectedPcie));
    assert!(with_field(36, Some(&[1, 0, 0, 0])).is_ok());
    assert!(with_field(21, None).is_ok());
    assert_eq!(with_field(21, Some(&[1])), in_report("protected-PCIe status"));
    assert_eq!(with_field(36, Some(&[])), in_report("feature flag"));
}

#[test]
fn refuses_a_status_of_the_decoder_that_is_neither() {
    assert!(!with_field(11, Some(&[0xaa])).unwrap().decoder_disabled);
    assert!(!with_field(11, None).unwrap().decoder_disabled);
    assert_eq!(with_field(11, Some(&[0])), in_report("decoder status"));
}

#[test]
fn refuses_driver_version() {
    assert_eq!(with_field(3, None), in_report("driver version"));
    for text in [&b""[..], b"\0", b"550", b"550 90\0", b"\xff\0", &[b'1'; 40]] {
        assert_eq!(with_field(3, Some(text)), in_report("driver version"), "{text:?}");
    }
}

#[test]
fn refuses_vbios_version() {
    assert_eq!(with_field(6, None), in_report("VBIOS version"));
    assert_eq!(with_field(6, Some(&[1; 8])), in_report("VBIOS version"));
    assert_eq!(with_field(6, Some(&[0; 7])), in_report("VBIOS version"));
}

#[test]
fn refuses_repeated_opaque_field() {
    // A field that NVIDIA does not define, once; then the driver's version in two versions.
    assert!(with_field(999, Some(&[1])).is_ok());
    let twice = with_report(|report| {
        let signature = report.split_off(report.len() - 96);
        report.extend([3, 0, 2, 0, b'1', 0]);
        let length = u16::from_le_bytes([report[OPAQUE - 2], report[OPAQUE - 1]]) + 6;
        report[OPAQUE - 2..OPAQUE].copy_from_slice(&length.to_le_bytes());
        report.extend(signature);
    });
    assert_eq!(twice, in_report("repeated opaque field"));
}

#[test]
fn refuses_another_message() {
    for position in [0, 1] {
        assert_eq!(with_report(|report| report[position] ^= 1), in_report("request"));
    }
    for position in [37, 38] {
        assert_eq!(with_report(|report| report[position] ^= 1), in_report("response"));
    }
}

#[test]
fn refuses_measurement_block() {
    const FIRST: usize = 45;
    // Specification, length of the block, length of the value.
    for position in [FIRST + 1, FIRST + 2, FIRST + 5] {
        assert_eq!(with_report(|report| report[position] ^= 1), in_report("measurement block"));
    }
    // An index again, or falling.
    for index in [0, 1] {
        let twice = with_report(|report| report[FIRST + 55] = index);
        assert_eq!(twice, in_report("measurement block"));
    }
    // One block less than there are, or more.
    assert_eq!(with_report(|report| report[41] = 63), in_report("measurement record"));
    assert_eq!(with_report(|report| report[41] = 65), in_report("measurement block"));
}

#[test]
fn a_raw_value_is_no_measurement() {
    let raw = with_report(|report| report[45 + 4] |= 0x80).unwrap();
    assert!(!raw.measurements.contains_key(&0) && raw.measurements.contains_key(&1));
}
