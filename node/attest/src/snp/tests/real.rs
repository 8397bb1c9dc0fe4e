//! Certificates and a report of real AMD hardware.
//!
//! Owns: everything but the revocation list: AMD publishes none in a package, and a list that we made
//! cannot be AMD's. Where a list is needed, its absence is what the test shows.

use super::*;

const REPORT: &[u8] = include_bytes!("../../../testdata/snp/report_milan.bin");
const VCEK_MILAN: &[u8] = include_bytes!("../../../testdata/snp/vcek_milan.der");
const VCEK_TURIN: &[u8] = include_bytes!("../../../testdata/snp/vcek_turin.der");
const ASK_MILAN: &[u8] = include_bytes!("../../../testdata/snp/ask-milan.der");
const ASK_GENOA: &[u8] = include_bytes!("../../../testdata/snp/ask-genoa.der");
const ASK_TURIN: &[u8] = include_bytes!("../../../testdata/snp/ask-turin.der");
/// 2024-01-01: the certificate holds from 2023-04-03 to 2030-04-03.
const THEN: Timestamp = Timestamp::from_unix_secs(1_704_067_200);

/// The verifier without the revocation list.
fn up_to_the_list(
    report: &[u8],
    vek: &[u8],
    ask: &[u8],
    roots: &Roots,
    now: Timestamp,
) -> Result<(), Refusal> {
    let report = Report::read(report)?;
    let part = bytes::Bytes::copy_from_slice;
    let endorsements = SnpEndorsements { vek: part(vek), ask: part(ask), crl: part(b"") };
    let chain = Chain::read(&report, &endorsements, roots, &Asvk::new())?;
    chain.check(now)?;
    check_report(&report, &chain)
}

fn judge(report: &[u8], vek: &[u8], ask: &[u8], now: Timestamp) -> Result<(), Refusal> {
    up_to_the_list(report, vek, ask, &Roots::amd(), now)
}

#[test]
fn a_report_of_a_real_milan_verifies_to_amd_s_root() {
    assert_eq!(judge(REPORT, VCEK_MILAN, ASK_MILAN, THEN), Ok(()));
    let report = Report::read(REPORT).unwrap();
    // The fields are where AMD's specification has them.
    assert_eq!(report.measurement()[..4], [0x7a, 0x1e, 0x5c, 0x26]);
    assert_eq!(report.report_data()[..4], [0xd4, 0x47, 0xb5, 0x5d]);
    assert_eq!(report.chip_id()[..4], [0xd4, 0x95, 0x54, 0xec]);
    assert_eq!((report.guest_policy(), report.platform_info()), (0x3_0000, 1));
    assert_eq!((report.vmpl(), report.guest_svn(), report.product()), (0, 0, None));
    let level = SnpTcb { fmc: 0, boot_loader: 3, tee: 0, snp: 8, microcode: 115 };
    for bytes in [report.reported_tcb(), report.launch_tcb()] {
        assert_eq!(report::tcb(bytes, SnpProduct::Milan), Some(level));
    }
}

#[test]
fn without_amd_s_revocation_list_it_is_not_accepted() {
    let endorsements = |crl: &'static [u8]| {
        let part = bytes::Bytes::from_static;
        SnpEndorsements { vek: part(VCEK_MILAN), ask: part(ASK_MILAN), crl: part(crl) }.to_bytes()
    };
    let verify = |crl| {
        let now = Timestamp::from_unix_secs(1_800_000_000);
        verify(false, REPORT, &endorsements(crl), &Roots::amd(), &Asvk::new(), now)
    };
    assert_eq!(verify(b""), Err(invalid(SnpCheck::RevocationListForm)));
    // A list of our own is not AMD's.
    assert_eq!(verify(CRL), Err(invalid(SnpCheck::RevocationListIssuer)));
}

#[test]
fn at_a_wrong_time_it_is_refused() {
    let at = |seconds| judge(REPORT, VCEK_MILAN, ASK_MILAN, Timestamp::from_unix_secs(seconds));
    let (begins, ends) = (1_680_549_823, 1_901_474_623);
    assert_eq!((at(begins), at(ends)), (Ok(()), Ok(())));
    assert_eq!(at(begins - 1), Err(invalid(SnpCheck::NotYetValid)));
    assert_eq!(at(ends + 1), Err(Refusal::CollateralExpired));
    assert!(at(0).is_err());
    assert!(at(u64::MAX / 1000).is_err());
}

#[test]
fn under_a_wrong_root_or_family_it_is_refused() {
    let issuer = Err(invalid(SnpCheck::CertificateIssuer));
    assert_eq!(judge(REPORT, VCEK_MILAN, ASK_GENOA, THEN), issuer);
    assert_eq!(judge(REPORT, VCEK_MILAN, ASK_TURIN, THEN), issuer);
    let dev = Roots::of([(SnpProduct::Milan, ARK)]);
    let judged = up_to_the_list(REPORT, VCEK_MILAN, ASK_MILAN, &dev, THEN);
    assert_eq!(judged, Err(Refusal::UntrustedRoot));
    // Milan's root taken for Turin's: the levels are then read in another form, and do not agree.
    let ark = include_bytes!("../../../roots/amd/ark-milan.der");
    let mistaken = Roots::of([(SnpProduct::Turin, &ark[..])]);
    let judged = up_to_the_list(REPORT, VCEK_MILAN, ASK_MILAN, &mistaken, THEN);
    assert_eq!(judged, Err(invalid(SnpCheck::TcbBinding)));
}

#[test]
fn the_certificates_of_every_family_verify_to_their_own_root() {
    let roots = Roots::amd();
    for (product, ask) in [
        (SnpProduct::Milan, ASK_MILAN),
        (SnpProduct::Genoa, ASK_GENOA),
        (SnpProduct::Turin, ASK_TURIN),
    ] {
        let ask = SnpCertificate::read(ask).unwrap();
        let (named, root) = roots.named(ask.issuer()).unwrap();
        assert_eq!(named, product);
        assert_eq!((ask.check_issuer(root), ask.check_authority()), (Ok(()), Ok(())));
    }
}

#[test]
fn the_certificate_of_a_real_turin_is_read_in_turin_s_form() {
    let turin = Case::of_family(SnpProduct::Turin);
    let judged = |report: &[u8]| judge(report, VCEK_TURIN, ASK_TURIN, NOW);
    // The chain holds; the report is not of this chip's key.
    assert_eq!(judged(&turin.report), Err(invalid(SnpCheck::ReportSignature)));
    // And what the certificate says is understood.
    let report = Report::read(&turin.report).unwrap();
    let part = bytes::Bytes::from_static;
    let endorsements =
        SnpEndorsements { vek: part(VCEK_TURIN), ask: part(ASK_TURIN), crl: part(b"") };
    let (roots, none) = (Roots::amd(), Asvk::new());
    let chain = Chain::read(&report, &endorsements, &roots, &none).unwrap();
    let (level, chip) = (chain.certified_tcb().unwrap(), chain.hardware_id().unwrap());
    let mut bound = turin;
    bound.rewrite(0x180, &[level.fmc, level.boot_loader, level.tee, level.snp]);
    bound.rewrite(0x187, &[level.microcode]);
    bound.rewrite(0x1a0, chip);
    assert_eq!(chip.len(), 8);
    let report = Report::read(&bound.report).unwrap();
    assert_eq!(chain.check_binding(&report), Ok(()));
    bound.rewrite(0x1a7, &[0]);
    let report = Report::read(&bound.report).unwrap();
    assert_eq!(chain.check_binding(&report), Err(invalid(SnpCheck::ChipBinding)));
}

#[test]
fn no_alteration_of_the_real_report_is_believed() {
    let roots = Roots::amd();
    let judge = |report: &[u8]| up_to_the_list(report, VCEK_MILAN, ASK_MILAN, &roots, THEN);
    let mut altered = REPORT.to_vec();
    for position in 0..altered.len() {
        altered[position] ^= 1;
        assert!(judge(&altered).is_err(), "byte {position}");
        altered[position] ^= 1;
    }
    for length in 0..REPORT.len() {
        assert_eq!(judge(&REPORT[..length]), Err(Refusal::Malformed));
    }
}

#[test]
fn no_alteration_of_the_real_certificates_is_believed() {
    let roots = Roots::amd();
    for (certificate, is_vek) in [(VCEK_MILAN, true), (ASK_MILAN, false)] {
        let judge = |altered: &[u8]| {
            let (vek, ask) = if is_vek { (altered, ASK_MILAN) } else { (VCEK_MILAN, altered) };
            up_to_the_list(REPORT, vek, ask, &roots, THEN)
        };
        let mut altered = certificate.to_vec();
        for position in 0..altered.len() {
            altered[position] ^= 1;
            assert!(judge(&altered).is_err(), "byte {position}");
            altered[position] ^= 1;
        }
        for length in 0..certificate.len() {
            assert!(judge(&certificate[..length]).is_err(), "length {length}");
        }
    }
}
