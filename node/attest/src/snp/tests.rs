//! Reports of real hardware and of the simulation, whole, altered, and with each check failing.
//!
//! Owns: an honest guest's evidence, from which each test takes away one thing.
//! Must not: use the present.

#![cfg(feature = "dev-tee")]

mod agreement;
mod forge;
mod judged;
mod mutated;
mod real;
mod refused;

use cocoon_protocol::attest::{SnpProduct, SnpTcb};
use cocoon_protocol::units::Millis;

use super::*;
use crate::simulated::SimulatedSnpGuest;
use crate::simulated::snp::pki::{self, Keys};
use crate::simulated::snp::{sign, unsigned_report};
use forge::{CertificateSpec, ListSpec, common_name};

/// 2027-01-15T08:00:00Z, in the middle of what the committed lists cover.
const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);
const DAY: Millis = Millis::from_secs(86_400);
const REPORT_DATA: [u8; 64] = [7; 64];

const ARK: &[u8] = include_bytes!("../../testdata/snp-dev/ark.der");
const ASK: &[u8] = include_bytes!("../../testdata/snp-dev/ask.der");
const VCEK: &[u8] = include_bytes!("../../testdata/snp-dev/vcek.der");
const CRL: &[u8] = include_bytes!("../../testdata/snp-dev/crl.der");
const CRL_REVOKED: &[u8] = include_bytes!("../../testdata/snp-dev/crl-revoked.der");

fn keys() -> &'static Keys {
    pki::keys().unwrap()
}

/// Evidence, and what it is held against.
#[derive(Clone)]
struct Case {
    report: Vec<u8>,
    vek: Vec<u8>,
    ask: Vec<u8>,
    crl: Vec<u8>,
    roots: Vec<(SnpProduct, Vec<u8>)>,
    asvk: Asvk,
    now: Timestamp,
}

impl Case {
    /// An honest guest under the committed certificates, which OpenSSL made.
    fn honest() -> Self {
        Self::of(&SimulatedSnpGuest::default())
    }

    fn of(guest: &SimulatedSnpGuest) -> Self {
        let mut report = unsigned_report(guest, &REPORT_DATA);
        sign(keys(), &mut report).unwrap();
        Self {
            report,
            vek: VCEK.to_vec(),
            ask: ASK.to_vec(),
            crl: CRL.to_vec(),
            roots: vec![(SnpProduct::Milan, ARK.to_vec())],
            asvk: Asvk::new(),
            now: NOW,
        }
    }

    /// An honest guest of another family: the same keys under other names, in that family's form.
    fn of_family(product: SnpProduct) -> Self {
        let root = CertificateSpec::root(&format!("ARK-{product} - NOT A TEE"));
        let ask = CertificateSpec::intermediate(&format!("SEV-{product} - NOT A TEE"), &root);
        let (model, hardware_id, level): (_, &[u8], _) = match product {
            SnpProduct::Milan => ([0x19, 0x0f], &[0xde; 64], [3, 0, 0, 0, 0, 0, 8, 115]),
            SnpProduct::Genoa => ([0x19, 0x11], &[0xde; 64], [9, 1, 0, 0, 0, 0, 23, 84]),
            SnpProduct::Turin => ([0x1a, 0x02], &[0xde; 8], [1, 2, 3, 4, 0, 0, 0, 84]),
        };
        let tcb = report::tcb(level, product).unwrap();
        let vek = CertificateSpec::vcek(&ask, hardware_id, &tcb, product.has_fmc());
        let mut case = Self {
            vek: vek.signed_by(&keys().ask),
            ask: ask.signed_by(&keys().ark),
            crl: ListSpec::of(&root).signed_by(&keys().ark),
            roots: vec![(product, root.signed_by(&keys().ark))],
            ..Self::honest()
        };
        case.rewrite(0x188, &model);
        for offset in [0x38, 0x180, 0x1e0, 0x1f0] {
            case.rewrite(offset, &level);
        }
        let mut chip = [0; 64];
        chip[..hardware_id.len()].copy_from_slice(hardware_id);
        case.rewrite(0x1a0, &chip);
        case
    }

    /// A guest whose report is signed by a key that a provider of machines holds, under a policy that
    /// lists the intermediate.
    fn of_provider() -> Self {
        let root = CertificateSpec::of(ARK);
        let asvk = CertificateSpec::intermediate("SEV-VLEK - NOT A TEE", &root);
        let vlek = CertificateSpec::vlek(&asvk, &SimulatedSnpGuest::default().reported_tcb);
        let asvk = asvk.signed_by(&keys().ark);
        let mut case = Self {
            vek: vlek.signed_by(&keys().ask),
            ask: asvk.clone(),
            asvk: [(SnpProduct::Milan, asvk)].into(),
            ..Self::honest()
        };
        case.rewrite(0x48, &[1 << 2]);
        case
    }

    /// Writes into the report and signs it anew: what the secure processor itself would say.
    fn rewrite(&mut self, offset: usize, bytes: &[u8]) {
        self.report[offset..offset + bytes.len()].copy_from_slice(bytes);
        sign(keys(), &mut self.report).unwrap();
    }

    /// With the signing certificate changed and signed anew.
    fn with_vek(change: impl FnOnce(&mut CertificateSpec)) -> Self {
        let mut vek = CertificateSpec::of(VCEK);
        change(&mut vek);
        Self { vek: vek.signed_by(&keys().ask), ..Self::honest() }
    }

    /// With the intermediate changed and signed anew.
    fn with_ask(change: impl FnOnce(&mut CertificateSpec)) -> Self {
        let mut ask = CertificateSpec::of(ASK);
        change(&mut ask);
        Self { ask: ask.signed_by(&keys().ark), ..Self::honest() }
    }

    /// With the root changed, signed anew and pinned.
    fn with_ark(change: impl FnOnce(&mut CertificateSpec)) -> Self {
        let mut ark = CertificateSpec::of(ARK);
        change(&mut ark);
        let ark = ark.signed_by(&keys().ark);
        Self { roots: vec![(SnpProduct::Milan, ark)], ..Self::honest() }
    }

    /// With a revocation list changed and signed anew.
    fn with_list(change: impl FnOnce(&mut ListSpec)) -> Self {
        let mut list = ListSpec::of(&CertificateSpec::of(ARK));
        change(&mut list);
        Self { crl: list.signed_by(&keys().ark), ..Self::honest() }
    }

    fn endorsements(&self) -> Vec<u8> {
        SnpEndorsements {
            vek: self.vek.clone().into(),
            ask: self.ask.clone().into(),
            crl: self.crl.clone().into(),
        }
        .to_bytes()
    }

    fn roots(&self) -> Roots {
        Roots::of(self.roots.iter().map(|(product, der)| (*product, &der[..])))
    }

    fn verify(&self) -> Result<SnpClaims, Refusal> {
        let roots = self.roots();
        verify(true, &self.report, &self.endorsements(), &roots, &self.asvk, self.now)
    }

    fn assert_invalid(&self, check: SnpCheck) {
        assert_eq!(self.verify(), Err(Refusal::ReportInvalid { check }));
    }
}

#[test]
fn an_honest_guest_is_believed_what_its_report_says() {
    let guest = SimulatedSnpGuest::default();
    let claims = Case::honest().verify().unwrap();
    let expected = SnpClaims {
        simulated: true,
        product: SnpProduct::Milan,
        signing_key: cocoon_protocol::attest::SnpSigningKey::Vcek,
        vmpl: guest.vmpl,
        guest_policy: guest.guest_policy,
        platform_info: guest.platform_info,
        measurements: guest.measurements,
        report_data: REPORT_DATA,
        reported_tcb: guest.reported_tcb,
        launch_tcb: guest.launch_tcb,
        chip_id: [0xde; 64],
        // What OpenSSL wrote into the list: 2027-01-01 and 2027-07-01.
        crl_issued: Timestamp::from_unix_secs(1_798_761_600),
        endorsements_expire: Timestamp::from_unix_secs(1_814_400_000),
    };
    assert_eq!(claims, expected);
}

#[test]
fn every_family_is_read_in_its_own_form() {
    let levels = [
        (SnpProduct::Milan, SnpTcb { fmc: 0, boot_loader: 3, tee: 0, snp: 8, microcode: 115 }),
        (SnpProduct::Genoa, SnpTcb { fmc: 0, boot_loader: 9, tee: 1, snp: 23, microcode: 84 }),
        (SnpProduct::Turin, SnpTcb { fmc: 1, boot_loader: 2, tee: 3, snp: 4, microcode: 84 }),
    ];
    for (product, level) in levels {
        let claims = Case::of_family(product).verify().unwrap();
        assert_eq!((claims.product, claims.reported_tcb), (product, level));
        assert_eq!(claims.launch_tcb, level);
    }
}

#[test]
fn a_provider_s_key_is_believed_where_the_policy_lists_its_issuer() {
    let claims = Case::of_provider().verify().unwrap();
    assert_eq!(claims.signing_key, cocoon_protocol::attest::SnpSigningKey::Vlek);
}

#[test]
fn the_first_end_of_certificates_and_list_is_the_evidence_s() {
    let ends = Timestamp::from_unix_secs(1_800_100_000);
    let expires = |case: Case| case.verify().unwrap().endorsements_expire;
    assert_eq!(expires(Case::with_vek(|vek| vek.ends = ends)), ends);
    assert_eq!(expires(Case::with_ask(|ask| ask.ends = ends)), ends);
    assert_eq!(expires(Case::with_ark(|ark| ark.ends = ends)), ends);
    assert_eq!(expires(Case::with_list(|list| list.ends = Some(ends))), ends);
}
