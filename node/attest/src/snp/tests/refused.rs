//! Each check of the verifier, failed by itself in otherwise honest evidence; what passes stands
//! beside it.

use super::*;
use cocoon_protocol::attest::PlatformRule;
use forge::integer;

const LATER: Timestamp = Timestamp::from_unix_secs(1_800_000_001);
const EARLIER: Timestamp = Timestamp::from_unix_secs(1_799_999_999);

#[test]
fn report_length() {
    let honest = Case::honest();
    for report in [&honest.report[..1183], &[], &[&honest.report[..], &[0]].concat()] {
        let case = Case { report: report.to_vec(), ..honest.clone() };
        assert_eq!(case.verify(), Err(Refusal::Malformed));
    }
}

#[test]
fn report_version() {
    for version in 0_u32..8 {
        let mut case = Case::honest();
        case.rewrite(0, &version.to_le_bytes());
        if (2..=5).contains(&version) {
            assert!(case.verify().is_ok(), "version {version}");
        } else {
            case.assert_invalid(SnpCheck::ReportVersion);
        }
    }
    let mut case = Case::honest();
    case.rewrite(0, &u32::MAX.to_le_bytes());
    case.assert_invalid(SnpCheck::ReportVersion);
}

#[test]
fn signature_algorithm() {
    for algorithm in [0_u32, 2, 0x101, u32::MAX] {
        let mut case = Case::honest();
        case.rewrite(0x34, &algorithm.to_le_bytes());
        case.assert_invalid(SnpCheck::SignatureAlgorithm);
    }
}

#[test]
fn signature_padding_and_the_368_trailing_bytes() {
    let zeros = (0x2a0 + 48..0x2a0 + 72).chain(0x2a0 + 120..0x4a0);
    for position in zeros {
        let mut case = Case::honest();
        case.report[position] = 1;
        case.assert_invalid(SnpCheck::SignaturePadding);
    }
}

#[test]
fn report_signature() {
    // Of another key.
    let (before, after) = (
        Case::honest(),
        Case::with_vek(|vek| {
            vek.key =
                CertificateSpec::of(include_bytes!("../../../testdata/snp/vcek_milan.der")).key;
        }),
    );
    assert!(before.verify().is_ok());
    after.assert_invalid(SnpCheck::ReportSignature);
    // Of nothing at all.
    let mut case = Case::honest();
    case.report[0x2a0..0x2a0 + 144].fill(0);
    case.assert_invalid(SnpCheck::ReportSignature);
    // Of another report.
    let mut case = Case::honest();
    let other = {
        let mut other = Case::honest();
        other.rewrite(0x50, &[1]);
        other.report
    };
    case.report[0x2a0..].copy_from_slice(&other[0x2a0..]);
    case.assert_invalid(SnpCheck::ReportSignature);
}

#[test]
fn a_signing_certificate_without_a_p384_key() {
    // The report's signature cannot be of an RSA key, whatever the certificate says.
    Case::with_vek(|vek| vek.key = CertificateSpec::of(ASK).key)
        .assert_invalid(SnpCheck::ReportSignature);
}

#[test]
fn signing_key_of_none_or_of_a_reserved_kind() {
    for kind in 2_u32..8 {
        let mut case = Case::honest();
        case.rewrite(0x48, &(kind << 2).to_le_bytes());
        case.assert_invalid(SnpCheck::SigningKey);
    }
    for bit in 5..32 {
        let mut case = Case::honest();
        case.rewrite(0x48, &(1_u32 << bit).to_le_bytes());
        case.assert_invalid(SnpCheck::SigningKey);
    }
    // An author key is there: nothing against it.
    let mut case = Case::honest();
    case.rewrite(0x48, &[1]);
    assert!(case.verify().is_ok());
}

#[test]
fn vlek_that_the_policy_does_not_list() {
    let refused = Err(Refusal::PlatformNotAllowed { rule: PlatformRule::Vlek });
    let unlisted = Case { asvk: Asvk::new(), ..Case::of_provider() };
    assert_eq!(unlisted.verify(), refused);
    // Another intermediate of the same root than the listed one.
    let other = Case { ask: ASK.to_vec(), ..Case::of_provider() };
    assert_eq!(other.verify(), refused);
    // Listed for another family.
    let family = Case {
        asvk: Case::of_provider().asvk.into_values().map(|der| (SnpProduct::Genoa, der)).collect(),
        ..Case::of_provider()
    };
    assert_eq!(family.verify(), refused);
}

#[test]
fn signing_key_of_another_kind_than_the_certificate() {
    // A chip's report under the intermediate for providers' keys.
    let mut case = Case::of_provider();
    case.rewrite(0x48, &[0]);
    case.assert_invalid(SnpCheck::SigningKey);
    // A provider's report under a chip's certificate.
    let asvk = CertificateSpec::intermediate("SEV-VLEK - NOT A TEE", &CertificateSpec::of(ARK));
    let tcb = SimulatedSnpGuest::default().reported_tcb;
    let vcek = CertificateSpec::vcek(&asvk, &[0xde; 64], &tcb, false).signed_by(&keys().ask);
    Case { vek: vcek, ..Case::of_provider() }.assert_invalid(SnpCheck::SigningKey);
}

#[test]
fn endorsement_form() {
    let honest = Case::honest();
    let roots = honest.roots();
    for endorsements in [&b""[..], b"{}", &[2], &[honest.endorsements(), vec![0]].concat()] {
        let verified = verify(true, &honest.report, endorsements, &roots, &honest.asvk, NOW);
        assert_eq!(verified, Err(invalid(SnpCheck::EndorsementForm)));
    }
}

#[test]
fn certificate_form() {
    let garbage = [Vec::new(), b"certificate".to_vec(), VCEK[..VCEK.len() - 1].to_vec()];
    for der in garbage {
        Case { vek: der.clone(), ..Case::honest() }.assert_invalid(SnpCheck::CertificateForm);
        Case { ask: der, ..Case::honest() }.assert_invalid(SnpCheck::CertificateForm);
    }
    Case::with_vek(|vek| vek.version = 0).assert_invalid(SnpCheck::CertificateForm);
}

/// The signature is AMD's kind in all of them; what is written about it is not, or not twice.
#[test]
fn signature_algorithm_of_certificates_and_lists() {
    let other = || sequence_of("1.2.840.113549.1.1.11");
    let certificate = SnpCheck::CertificateForm;
    Case::with_vek(|vek| vek.algorithm = other()).assert_invalid(certificate);
    Case::with_vek(|vek| vek.outer_algorithm = Some(other())).assert_invalid(certificate);
    Case::with_vek(|vek| vek.outer_algorithm = Some(keys().algorithm())).verify().unwrap();
    let bare = || sequence_of("1.2.840.113549.1.1.10");
    Case::with_vek(|vek| vek.outer_algorithm = Some(bare())).assert_invalid(certificate);
    Case::with_ask(|ask| ask.outer_algorithm = Some(bare())).assert_invalid(certificate);
    let list = SnpCheck::RevocationListForm;
    Case::with_list(|list| list.algorithm = other()).assert_invalid(list);
    Case::with_list(|list| list.outer_algorithm = Some(bare())).assert_invalid(list);
}

fn sequence_of(algorithm: &str) -> Vec<u8> {
    crate::simulated::der::sequence(&[crate::simulated::der::object_identifier(algorithm)])
}

#[test]
fn critical_extension_that_is_not_understood() {
    let unknown = |critical| ("1.2.3.4".to_owned(), critical, vec![5, 0]);
    assert!(Case::with_vek(|vek| vek.extensions.push(unknown(false))).verify().is_ok());
    Case::with_vek(|vek| vek.extensions.push(unknown(true)))
        .assert_invalid(SnpCheck::CertificateForm);
    Case::with_ask(|ask| ask.extensions.push(unknown(true)))
        .assert_invalid(SnpCheck::CertificateForm);
}

#[test]
fn untrusted_root() {
    // The simulation under AMD's roots, by name.
    let honest = Case::honest();
    let judged = |roots: &Roots| {
        verify(false, &honest.report, &honest.endorsements(), roots, &honest.asvk, NOW)
    };
    assert!(judged(&honest.roots()).is_ok());
    assert_eq!(judged(&Roots::amd()), Err(Refusal::UntrustedRoot));
    assert_eq!(judged(&Roots::of([])), Err(Refusal::UntrustedRoot));
    // A chain that names AMD's root, and nothing more.
    let milan = CertificateSpec::of(include_bytes!("../../../roots/amd/ark-milan.der"));
    let named = Case::with_ask(|ask| ask.issuer = milan.subject);
    let (report, endorsements) = (&named.report, named.endorsements());
    let verified = verify(false, report, &endorsements, &Roots::amd(), &named.asvk, NOW);
    assert_eq!(verified, Err(invalid(SnpCheck::CertificateSignature)));
}

#[test]
fn certificate_issuer() {
    Case::with_vek(|vek| vek.issuer = common_name("somebody else"))
        .assert_invalid(SnpCheck::CertificateIssuer);
    // Another family's intermediate.
    let genoa = Case::of_family(SnpProduct::Genoa);
    let mut case = Case { ask: genoa.ask, ..Case::honest() };
    case.roots.extend(genoa.roots);
    case.assert_invalid(SnpCheck::CertificateIssuer);
}

#[test]
fn certificate_authority_of_the_intermediate() {
    let without = |id: &str| Case::with_ask(|ask| ask.extensions.retain(|(known, ..)| known != id));
    for id in ["2.5.29.19", "2.5.29.15"] {
        without(id).assert_invalid(SnpCheck::CertificateAuthority);
    }
    let with = |id: &'static str, value: &'static [u8]| {
        Case::with_ask(|ask| {
            ask.extensions.retain(|(known, ..)| known != id);
            ask.extensions.push((id.to_owned(), true, value.to_vec()));
        })
    };
    // cA FALSE; key usage digitalSignature alone; keyCertSign alone.
    with("2.5.29.19", &[0x30, 0]).assert_invalid(SnpCheck::CertificateAuthority);
    with("2.5.29.15", &[3, 2, 7, 0x80]).assert_invalid(SnpCheck::CertificateAuthority);
    assert!(with("2.5.29.15", &[3, 2, 2, 0x04]).verify().is_ok());
}

#[test]
fn certificate_authority_of_the_signing_key() {
    let with = |value: &'static [u8]| {
        Case::with_vek(|vek| vek.extensions.push(("2.5.29.19".to_owned(), true, value.to_vec())))
    };
    assert!(with(&[0x30, 0]).verify().is_ok());
    with(&[0x30, 3, 1, 1, 0xff]).assert_invalid(SnpCheck::CertificateAuthority);
}

#[test]
fn a_chip_s_key_cannot_issue_another_chip_s() {
    // A certificate that the chip's own key would have to sign; P-384 makes no RSA signature.
    let chip = CertificateSpec::of(VCEK);
    let vek = CertificateSpec { issuer: chip.subject, ..CertificateSpec::of(VCEK) };
    let case = Case { vek: vek.signed_by(&keys().ask), ask: VCEK.to_vec(), ..Case::honest() };
    assert_eq!(case.verify(), Err(Refusal::UntrustedRoot));
}

#[test]
fn certificate_signature_of_the_signing_key() {
    let vek = CertificateSpec::of(VCEK).signed_by(&keys().ark);
    Case { vek, ..Case::honest() }.assert_invalid(SnpCheck::CertificateSignature);
}

#[test]
fn certificate_signature_of_the_intermediate() {
    let ask = CertificateSpec::of(ASK).signed_by(&keys().ask);
    Case { ask, ..Case::honest() }.assert_invalid(SnpCheck::CertificateSignature);
}

#[test]
fn root_that_did_not_sign_itself() {
    let ark = CertificateSpec::of(ARK).signed_by(&keys().ask);
    let case = Case { roots: vec![(SnpProduct::Milan, ark)], ..Case::honest() };
    assert_eq!(case.verify(), Err(Refusal::UntrustedRoot));
}

#[test]
fn root_that_may_not_sign() {
    for id in ["2.5.29.19", "2.5.29.15"] {
        let case = Case::with_ark(|ark| ark.extensions.retain(|(known, ..)| known != id));
        assert_eq!(case.verify(), Err(Refusal::UntrustedRoot));
    }
}

#[test]
fn certificate_that_begins_later() {
    let early = SnpCheck::NotYetValid;
    Case::with_vek(|vek| vek.begins = LATER).assert_invalid(early);
    Case::with_ask(|ask| ask.begins = LATER).assert_invalid(early);
    Case::with_ark(|ark| ark.begins = LATER).assert_invalid(early);
    assert!(Case::with_vek(|vek| vek.begins = NOW).verify().is_ok());
}

#[test]
fn certificate_that_has_expired() {
    let expired = Err(Refusal::CollateralExpired);
    assert_eq!(Case::with_vek(|vek| vek.ends = EARLIER).verify(), expired);
    assert_eq!(Case::with_ask(|ask| ask.ends = EARLIER).verify(), expired);
    assert_eq!(Case::with_ark(|ark| ark.ends = EARLIER).verify(), expired);
    assert!(Case::with_vek(|vek| vek.ends = NOW).verify().is_ok());
}

#[test]
fn revocation_list_form() {
    for der in [Vec::new(), b"list".to_vec(), CRL[..CRL.len() - 1].to_vec(), VCEK.to_vec()] {
        Case { crl: der, ..Case::honest() }.assert_invalid(SnpCheck::RevocationListForm);
    }
    Case::with_list(|list| list.ends = None).assert_invalid(SnpCheck::RevocationListForm);
    Case::with_list(|list| (list.version, list.extensions) = (None, Vec::new()))
        .assert_invalid(SnpCheck::RevocationListForm);
    for version in [0, 2] {
        Case::with_list(|list| list.version = Some(version))
            .assert_invalid(SnpCheck::RevocationListForm);
    }
}

#[test]
fn revocation_list_that_speaks_of_a_part_only() {
    // An issuing distribution point limits what a list is about, and is critical (RFC 5280, 5.2.5).
    let point = |critical| ("2.5.29.28".to_owned(), critical, vec![0x30, 0]);
    Case::with_list(|list| list.extensions.push(point(true)))
        .assert_invalid(SnpCheck::RevocationListForm);
    assert!(Case::with_list(|list| list.extensions.push(point(false))).verify().is_ok());
}

#[test]
fn revocation_list_of_another_issuer() {
    Case::with_list(|list| list.issuer = common_name("somebody else"))
        .assert_invalid(SnpCheck::RevocationListIssuer);
    let genoa = Case::of_family(SnpProduct::Genoa);
    Case { crl: genoa.crl, ..Case::honest() }.assert_invalid(SnpCheck::RevocationListIssuer);
}

#[test]
fn revocation_list_signature() {
    let list = ListSpec::of(&CertificateSpec::of(ARK));
    assert!(Case { crl: list.signed_by(&keys().ark), ..Case::honest() }.verify().is_ok());
    Case { crl: list.signed_by(&keys().ask), ..Case::honest() }
        .assert_invalid(SnpCheck::RevocationListSignature);
}

#[test]
fn revocation_list_of_the_future() {
    assert!(Case::with_list(|list| list.begins = NOW).verify().is_ok());
    Case::with_list(|list| list.begins = LATER).assert_invalid(SnpCheck::NotYetValid);
}

#[test]
fn revocation_list_that_has_expired() {
    assert!(Case::with_list(|list| list.ends = Some(NOW)).verify().is_ok());
    let expired = Case::with_list(|list| list.ends = Some(EARLIER));
    assert_eq!(expired.verify(), Err(Refusal::RevocationListExpired));
    // The committed one, made by OpenSSL, half a year later.
    let later = Case { now: NOW.after(Millis::new(DAY.get() * 200)), ..Case::honest() };
    assert_eq!(later.verify(), Err(Refusal::RevocationListExpired));
}

#[test]
fn revoked_intermediate() {
    let revoked = Err(Refusal::Revoked { certificate: "intermediate (ASK)" });
    assert_eq!(Case { crl: CRL_REVOKED.to_vec(), ..Case::honest() }.verify(), revoked);
    let serial = CertificateSpec::of(ASK).serial;
    let among = vec![vec![5], serial, vec![6]];
    assert_eq!(Case::with_list(|list| list.revoked = among).verify(), revoked);
    assert!(Case::with_list(|list| list.revoked = vec![vec![5]]).verify().is_ok());
}

#[test]
fn revoked_root() {
    let serial = CertificateSpec::of(ARK).serial;
    let case = Case::with_list(|list| list.revoked = vec![serial]);
    assert_eq!(case.verify(), Err(Refusal::Revoked { certificate: "root (ARK)" }));
}

#[test]
fn revoked_intermediate_of_a_provider() {
    let asvk = Case::of_provider();
    let serial = CertificateSpec::of(&asvk.ask).serial;
    let list = Case::with_list(|list| list.revoked = vec![serial]);
    let case = Case { crl: list.crl, ..asvk };
    assert_eq!(case.verify(), Err(Refusal::Revoked { certificate: "intermediate (ASK)" }));
}

#[test]
fn firmware_level_that_the_certificate_was_not_made_for() {
    // The lie that `sev` believes: a new level on an old firmware's key.
    for (offset, version) in [(0, 4), (1, 1), (6, 9), (7, 116), (7, 114)] {
        let mut case = Case::honest();
        case.rewrite(0x180 + offset, &[version]);
        case.assert_invalid(SnpCheck::TcbBinding);
    }
    for arc in ["3.1", "3.2", "3.3", "3.8"] {
        let binding = SnpCheck::TcbBinding;
        Case::with_vek(|vek| vek.set(arc, Some(integer(200)))).assert_invalid(binding);
        Case::with_vek(|vek| vek.set(arc, None)).assert_invalid(binding);
        // Twice, or no integer of a byte.
        Case::with_vek(|vek| {
            let again = vek.extensions.iter().find(|(id, ..)| id.ends_with(arc)).cloned();
            vek.extensions.extend(again);
        })
        .assert_invalid(binding);
        Case::with_vek(|vek| vek.set(arc, Some(vec![2, 2, 1, 3]))).assert_invalid(binding);
        Case::with_vek(|vek| vek.set(arc, Some(vec![]))).assert_invalid(binding);
    }
}

#[test]
fn firmware_level_with_a_component_that_nobody_knows() {
    for base in [0x180, 0x1f0] {
        for reserved in 2..6 {
            let mut case = Case::honest();
            case.rewrite(base + reserved, &[1]);
            case.assert_invalid(SnpCheck::TcbBinding);
        }
        for reserved in 4..7 {
            let mut turin = Case::of_family(SnpProduct::Turin);
            turin.rewrite(base + reserved, &[1]);
            turin.assert_invalid(SnpCheck::TcbBinding);
        }
    }
}

#[test]
fn firmware_level_of_turin_without_its_fmc() {
    let mut case = Case::of_family(SnpProduct::Turin);
    let issuer = CertificateSpec::of(&case.ask);
    let tcb = SnpTcb { fmc: 1, boot_loader: 2, tee: 3, snp: 4, microcode: 84 };
    case.vek = CertificateSpec::vcek(&issuer, &[0xde; 8], &tcb, false).signed_by(&keys().ask);
    case.assert_invalid(SnpCheck::TcbBinding);
    let other = SnpTcb { fmc: 2, ..tcb };
    case.vek = CertificateSpec::vcek(&issuer, &[0xde; 8], &other, true).signed_by(&keys().ask);
    case.assert_invalid(SnpCheck::TcbBinding);
}

#[test]
fn chip_that_the_certificate_was_not_made_for() {
    let mut case = Case::honest();
    case.rewrite(0x1a0 + 63, &[0xdf]);
    case.assert_invalid(SnpCheck::ChipBinding);
    let binding = SnpCheck::ChipBinding;
    Case::with_vek(|vek| vek.set("4", None)).assert_invalid(binding);
    for length in [0, 8, 63, 65] {
        Case::with_vek(|vek| vek.set("4", Some(vec![0xde; length]))).assert_invalid(binding);
    }
    // Some of AMD's certificates wrap the identity.
    let wrapped = [&[4, 64][..], &[0xde; 64]].concat();
    assert!(Case::with_vek(|vek| vek.set("4", Some(wrapped))).verify().is_ok());
}

#[test]
fn chip_that_hides_its_identity() {
    let mut masked = Case::with_vek(|vek| vek.set("4", Some(vec![0; 64])));
    masked.rewrite(0x1a0, &[0; 64]);
    masked.assert_invalid(SnpCheck::ChipBinding);
}

#[test]
fn chip_of_turin_with_more_than_its_eight_bytes() {
    let mut case = Case::of_family(SnpProduct::Turin);
    case.rewrite(0x1a0 + 8, &[1]);
    case.assert_invalid(SnpCheck::ChipBinding);
    let mut case = Case::of_family(SnpProduct::Turin);
    case.rewrite(0x1a0, &[0xdf]);
    case.assert_invalid(SnpCheck::ChipBinding);
}

#[test]
fn product_by_the_processor_that_the_report_names() {
    // Genoa, Turin, Venice (which another library's conversion panics on), and one of nobody's.
    for cpu in [[0x19, 0x11], [0x1a, 0x02], [0x1a, 0x50], [0x17, 0x31], [0, 0]] {
        let mut case = Case::honest();
        case.rewrite(0x188, &cpu);
        case.assert_invalid(SnpCheck::Product);
        // Before version 3 the field is reserved: the certificates alone tell.
        case.rewrite(0, &[2]);
        assert!(case.verify().is_ok());
    }
}
