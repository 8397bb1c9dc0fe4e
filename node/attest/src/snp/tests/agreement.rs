//! The crate `sev` on the same evidence: what it refuses we refuse, and where it says less, it is shown.
//!
//! Owns: the comparison. Must not: let `sev`'s word count anywhere else.

use super::*;
use sev::certs::snp::{Certificate, Chain as SevChain, Verifiable as _, builtin, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;

/// Whether `sev` believes the case, without revocation lists, times or policies, which it has not.
fn sev_believes(case: &Case) -> bool {
    let (_, ark) = &case.roots[0];
    let certificate = |der: &[u8]| Certificate::from_der(der);
    let (Ok(ark), Ok(ask), Ok(vek)) =
        (certificate(ark), certificate(&case.ask), certificate(&case.vek))
    else {
        return false;
    };
    let Ok(report) = AttestationReport::from_bytes(&case.report) else { return false };
    (&SevChain { ca: ca::Chain { ark, ask }, vek }, &report).verify().is_ok()
}

#[test]
fn honest_evidence_is_believed_by_both() {
    for case in [Case::honest(), Case::of_family(SnpProduct::Genoa)] {
        assert!(case.verify().is_ok() && sev_believes(&case));
    }
    let turin = Case::of_family(SnpProduct::Turin);
    assert!(turin.verify().is_ok() && sev_believes(&turin));
}

#[test]
fn the_real_report_is_believed_by_both() {
    let chain = SevChain {
        ca: ca::Chain { ark: builtin::milan::ark().unwrap(), ask: builtin::milan::ask().unwrap() },
        vek: Certificate::from_der(include_bytes!("../../../testdata/snp/vcek_milan.der")).unwrap(),
    };
    let bytes = include_bytes!("../../../testdata/snp/report_milan.bin");
    let report = AttestationReport::from_bytes(bytes).unwrap();
    assert!((&chain, &report).verify().is_ok());
    // Both read the same fields.
    let ours = Report::read(bytes).unwrap();
    assert_eq!(report.measurement, ours.measurement());
    assert_eq!(report.report_data, ours.report_data());
    assert_eq!(report.chip_id, ours.chip_id());
    assert_eq!(u64::from(report.policy), ours.guest_policy());
    let tcb = report::tcb(ours.reported_tcb(), SnpProduct::Milan).unwrap();
    let theirs = report.reported_tcb;
    assert_eq!(
        (theirs.bootloader, theirs.tee, theirs.snp, theirs.microcode),
        (tcb.boot_loader, tcb.tee, tcb.snp, tcb.microcode)
    );
}

#[test]
fn broken_signatures_are_refused_by_both() {
    let mut report = Case::honest();
    report.report[0x2a0] ^= 1;
    let vek = Case { vek: CertificateSpec::of(VCEK).signed_by(&keys().ark), ..Case::honest() };
    let ask = Case { ask: CertificateSpec::of(ASK).signed_by(&keys().ask), ..Case::honest() };
    let mut measurement = Case::honest();
    measurement.report[0x90] ^= 1;
    for case in [report, vek, ask, measurement] {
        assert!(case.verify().is_err() && !sev_believes(&case));
    }
}

#[test]
fn a_debug_guest_is_believed_by_sev_alone() {
    let mut case = Case::honest();
    case.rewrite(0x08, &((1_u64 << 17) | (1 << 19)).to_le_bytes());
    assert!(sev_believes(&case));
    // The signature is honest; the refusal is the appraisal's.
    let claims = case.verify().unwrap();
    let policy = crate::parse_policy(&crate::simulated::dev_policy()).unwrap();
    let claims = cocoon_protocol::attest::Claims::Snp(claims);
    let judged = cocoon_protocol::attest::appraise(&claims, &policy, &REPORT_DATA, NOW);
    assert_eq!(judged, Err(Refusal::Debug));
}

#[test]
fn a_lie_about_the_firmware_is_believed_by_sev_alone() {
    let mut case = Case::honest();
    case.rewrite(0x180, &[9, 9, 0, 0, 0, 0, 99, 200]);
    assert!(sev_believes(&case));
    case.assert_invalid(SnpCheck::TcbBinding);
}

#[test]
fn another_chip_is_believed_by_sev_alone() {
    let mut case = Case::honest();
    case.rewrite(0x1a0, &[1; 64]);
    assert!(sev_believes(&case));
    case.assert_invalid(SnpCheck::ChipBinding);
}

#[test]
fn a_revoked_intermediate_is_believed_by_sev_alone() {
    let case = Case { crl: CRL_REVOKED.to_vec(), ..Case::honest() };
    assert!(sev_believes(&case));
    assert_eq!(case.verify(), Err(Refusal::Revoked { certificate: "intermediate (ASK)" }));
}

#[test]
fn certificates_out_of_their_time_are_believed_by_sev_alone() {
    let case = Case::with_vek(|vek| vek.ends = Timestamp::from_unix_secs(1_710_000_000));
    assert!(sev_believes(&case));
    assert_eq!(case.verify(), Err(Refusal::CollateralExpired));
}

#[test]
fn reserved_bytes_of_a_signed_report_are_changed_unseen_by_sev_alone() {
    // `sev` hashes what it read, not what it was given: reserved bytes of the levels are dropped.
    let mut case = Case::honest();
    case.report[0x182] ^= 1;
    assert!(sev_believes(&case));
    case.assert_invalid(SnpCheck::ReportSignature);
}
