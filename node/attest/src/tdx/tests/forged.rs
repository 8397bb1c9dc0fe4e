//! Each check of a quote and of its collateral, failed by itself in an otherwise honest forgery.
//!
//! Owns: forgeries that are signed anew after every change, so that only the change can be refused.
//! Must not: use the present.

use super::*;
use crate::Attester as _;
use crate::attester::report_data;
use crate::simulated::pki::{self, ListIssuer, Pki, revocation_list_of};
use crate::simulated::{SimulatedAttester, SimulatedGuest, anchors};
use serde_json::{Value, json};
use time::OffsetDateTime;

const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

// Where the parts of a version 4 quote lie (Intel, *DCAP Quote Generation Library*).
const SIGNATURE: usize = SIGNED + 4;
const QE_REPORT: usize = SIGNATURE + 64 + 64 + 6;
const QE_REPORT_BYTES: usize = 384;
const QE_SIGNATURE: usize = QE_REPORT + QE_REPORT_BYTES;
const QE_AUTHENTICATION: usize = QE_SIGNATURE + 64 + 2;
/// Behind the header of 48 bytes, TEE_TCB_SVN, MRSEAM, MRSIGNERSEAM and SEAMATTRIBUTES.
const TD_ATTRIBUTES: usize = 48 + 16 + 48 + 48 + 8;

/// A quote and collateral under the public test root.
pub(super) struct Forged {
    pub(super) quote: Vec<u8>,
    collateral: QuoteCollateralV3,
}

fn test_pki() -> &'static Pki {
    pki::shared().unwrap()
}

impl Forged {
    pub(super) fn honest() -> Self {
        Self::of(SimulatedGuest::default())
    }

    fn of(guest: SimulatedGuest) -> Self {
        let quoted = SimulatedAttester::new(guest).quote(&report_data(7), NOW).unwrap();
        Self {
            quote: quoted.evidence.quote().to_vec(),
            collateral: serde_json::from_slice(&quoted.endorsements).unwrap(),
        }
    }

    pub(super) fn judge_quote(&self, quote: &[u8]) -> Result<TdxClaims, Refusal> {
        let collateral = serde_json::to_vec(&self.collateral).unwrap();
        let root = anchors().unwrap().tdx;
        verify(true, quote, &collateral, &root, NOW).map(|verified| verified.claims)
    }

    fn judge(&self) -> Result<TdxClaims, Refusal> {
        self.judge_quote(&self.quote)
    }

    fn assert_refused(&self, refusal: &Refusal) {
        assert_eq!(self.judge().as_ref(), Err(refusal));
    }

    /// By the vendor's library, which has one word for everything in a chain.
    fn assert_chain(&self) {
        self.assert_refused(&Refusal::QuoteInvalid { check: QuoteCheck::Chain });
    }

    /// Writes into header or report, and signs them anew.
    fn report(offset: usize, bytes: &[u8]) -> Self {
        let mut forged = Self::honest();
        forged.quote[offset..offset + bytes.len()].copy_from_slice(bytes);
        let signature = pki::sign(&test_pki().attestation_key, &forged.quote[..SIGNED]).unwrap();
        forged.quote[SIGNATURE..SIGNATURE + 64].copy_from_slice(&signature);
        forged
    }

    /// Writes into the quoting enclave's report, and signs it anew.
    fn enclave(offset: usize, bytes: &[u8]) -> Self {
        let mut forged = Self::honest();
        let start = QE_REPORT + offset;
        forged.quote[start..start + bytes.len()].copy_from_slice(bytes);
        let report = &forged.quote[QE_REPORT..QE_SIGNATURE];
        let signature = pki::sign(&test_pki().platform_key, report).unwrap();
        forged.quote[QE_SIGNATURE..QE_SIGNATURE + 64].copy_from_slice(&signature);
        forged
    }

    /// Changes the TCB info, and signs it anew.
    fn tcb_info(change: impl FnOnce(&mut Value)) -> Self {
        let mut forged = Self::honest();
        let collateral = &mut forged.collateral;
        (collateral.tcb_info, collateral.tcb_info_signature) =
            changed(&collateral.tcb_info, change);
        forged
    }

    /// Changes the quoting enclave's identity, and signs it anew.
    fn identity(change: impl FnOnce(&mut Value)) -> Self {
        let mut forged = Self::honest();
        let collateral = &mut forged.collateral;
        (collateral.qe_identity, collateral.qe_identity_signature) =
            changed(&collateral.qe_identity, change);
        forged
    }

    fn collateral(change: impl FnOnce(&mut QuoteCollateralV3)) -> Self {
        let mut forged = Self::honest();
        change(&mut forged.collateral);
        forged
    }

    /// Serial numbers of the platform's certificate, its issuer's, and the root's.
    fn serials(&self) -> Vec<Vec<u8>> {
        let quote = Quote::parse(&self.quote).unwrap();
        extract_cert_chain(&quote)
            .unwrap()
            .iter()
            .map(|der| Certificate::from_der(der).unwrap())
            .map(|certificate| certificate.tbs_certificate().serial_number().as_bytes().to_vec())
            .collect()
    }
}

fn changed(text: &str, change: impl FnOnce(&mut Value)) -> (String, Vec<u8>) {
    let mut document = serde_json::from_str(text).unwrap();
    change(&mut document);
    let text = document.to_string();
    let signature = pki::sign(&test_pki().tcb_key, text.as_bytes()).unwrap();
    (text, signature)
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

/// A moment after `NOW`, before it, and long after.
const AFTER: i64 = 1_800_000_001;
const BEFORE: i64 = 1_799_999_999;
const LONG_AFTER: i64 = 1_900_000_000;

#[test]
fn what_is_signed_anew_without_a_change_is_accepted() {
    assert!(Forged::report(0, &[4]).judge().is_ok());
    assert!(Forged::enclave(256, &[2]).judge().is_ok());
    assert!(Forged::tcb_info(|_| {}).judge().is_ok());
    assert!(Forged::identity(|_| {}).judge().is_ok());
}

#[test]
fn quote_version() {
    for version in [0_u16, 1, 2, 6, u16::MAX] {
        let forged = Forged::report(0, &version.to_le_bytes());
        assert!(forged.judge().is_err(), "version {version}");
    }
    Forged::report(0, &[6, 0]).assert_refused(&Refusal::Malformed);
}

#[test]
fn attestation_key_type() {
    assert!(Forged::report(2, &[3, 0]).judge().is_err());
}

#[test]
fn tee_type_of_an_enclave() {
    Forged::report(4, &[0; 4]).assert_refused(&Refusal::Malformed);
}

#[test]
fn quoting_enclave_s_vendor() {
    Forged::report(12, &[0; 16]).assert_chain();
}

#[test]
fn bytes_behind_the_quote() {
    let mut forged = Forged::honest();
    forged.quote.extend([0; 100]);
    assert!(forged.judge().is_ok());
    forged.quote.push(1);
    forged.assert_refused(&Refusal::Malformed);
}

#[test]
fn quote_signature() {
    let mut forged = Forged::honest();
    let signature = pki::sign(&test_pki().tcb_key, &forged.quote[..SIGNED]).unwrap();
    forged.quote[SIGNATURE..SIGNATURE + 64].copy_from_slice(&signature);
    forged.assert_chain();
}

#[test]
fn attestation_key_that_the_enclave_does_not_vouch_for() {
    // Another authentication datum, and with it another hash than in the enclave's report.
    let mut forged = Forged::honest();
    forged.quote[QE_AUTHENTICATION] ^= 1;
    forged.assert_chain();
    Forged::enclave(320, &[0; 32]).assert_chain();
}

#[test]
fn quoting_enclave_s_signature() {
    let mut forged = Forged::honest();
    let report = &forged.quote[QE_REPORT..QE_SIGNATURE];
    let signature = pki::sign(&test_pki().tcb_key, report).unwrap();
    forged.quote[QE_SIGNATURE..QE_SIGNATURE + 64].copy_from_slice(&signature);
    forged.assert_chain();
}

#[test]
fn quoting_enclave_s_signer() {
    Forged::enclave(128, &[0; 32]).assert_chain();
}

#[test]
fn quoting_enclave_s_product() {
    Forged::enclave(256, &[3]).assert_chain();
}

#[test]
fn quoting_enclave_s_version() {
    assert!(Forged::enclave(258, &[5]).judge().is_ok());
    Forged::enclave(258, &[3]).assert_chain();
}

#[test]
fn quoting_enclave_under_debug() {
    // ATTRIBUTES bit 1; the identity's mask covers all of them.
    Forged::enclave(48, &[2]).assert_chain();
    Forged::enclave(16, &[1]).assert_chain();
}

#[test]
fn guest_attributes() {
    let honest = 1_u64 << 28;
    let with = |attributes: u64| Forged::report(TD_ATTRIBUTES, &attributes.to_le_bytes());
    assert!(with(honest).judge().is_ok());
    for bit in 0..8 {
        with(honest | 1 << bit).assert_refused(&Refusal::Debug);
    }
    with(honest | 1 << 29).assert_refused(&Refusal::Migratable);
    let attributes = Refusal::QuoteInvalid { check: QuoteCheck::Attributes };
    with(0).assert_refused(&attributes);
    with(honest | 1 << 40).assert_refused(&attributes);
}

#[test]
fn root_of_nobody_and_of_another() {
    let forged = Forged::honest();
    let collateral = serde_json::to_vec(&forged.collateral).unwrap();
    let judged = verify(false, &forged.quote, &collateral, &Root::intel(), NOW);
    assert_eq!(judged.map(|v| v.claims), Err(Refusal::UntrustedRoot));
}

#[test]
fn tcb_info_signature() {
    Forged::collateral(|c| c.tcb_info_signature[0] ^= 1).assert_chain();
    Forged::collateral(|c| c.tcb_info = c.tcb_info.replace("UpToDate", "OutOfDate")).assert_chain();
}

#[test]
fn quoting_enclave_identity_signature() {
    Forged::collateral(|c| c.qe_identity_signature[63] ^= 1).assert_chain();
}

#[test]
fn tcb_signing_chain() {
    // The platform's issuer is no signer of TCB info, though the root stands behind it.
    let chain = test_pki().platform_chain.clone();
    Forged::collateral(|c| c.tcb_info_issuer_chain = chain.clone()).assert_chain();
    Forged::collateral(|c| c.qe_identity_issuer_chain = chain).assert_chain();
    Forged::collateral(|c| c.tcb_info_issuer_chain.clear()).assert_chain();
}

#[test]
fn tcb_info_expired() {
    Forged::tcb_info(|info| info["nextUpdate"] = json!("2027-01-15T07:59:59Z"))
        .assert_refused(&Refusal::CollateralExpired);
    assert!(
        Forged::tcb_info(|info| info["nextUpdate"] = json!("2027-01-15T08:00:01Z")).judge().is_ok()
    );
}

#[test]
fn tcb_info_of_the_future() {
    Forged::tcb_info(|info| info["issueDate"] = json!("2027-01-15T08:00:01Z")).assert_chain();
}

#[test]
fn quoting_enclave_identity_expired() {
    Forged::identity(|identity| identity["nextUpdate"] = json!("2027-01-15T07:59:59Z"))
        .assert_refused(&Refusal::CollateralExpired);
}

#[test]
fn quoting_enclave_identity_of_the_future() {
    Forged::identity(|identity| identity["issueDate"] = json!("2027-01-15T08:00:01Z"))
        .assert_chain();
}

#[test]
fn root_s_revocation_list_expired() {
    let with = |ends| {
        Forged::collateral(|c| c.root_ca_crl = revocation_list_of(ListIssuer::Root, at(ends), &[]))
    };
    assert!(with(AFTER).judge().is_ok());
    with(BEFORE).assert_refused(&Refusal::CollateralExpired);
}

#[test]
fn platform_s_revocation_list_expired() {
    let with = |ends| {
        let list = revocation_list_of(ListIssuer::PlatformCa, at(ends), &[]);
        Forged::collateral(|c| c.pck_crl = list)
    };
    assert!(with(AFTER).judge().is_ok());
    with(BEFORE).assert_refused(&Refusal::CollateralExpired);
}

#[test]
fn revoked_platform() {
    let list = |serial: &[u8]| {
        let crl = revocation_list_of(ListIssuer::PlatformCa, at(LONG_AFTER), &[serial]);
        Forged::collateral(|c| c.pck_crl = crl)
    };
    assert!(list(&[1, 2, 3]).judge().is_ok());
    list(&Forged::honest().serials()[0]).assert_chain();
}

#[test]
fn revoked_platform_authority() {
    let list = |serial: &[u8]| {
        let crl = revocation_list_of(ListIssuer::Root, at(LONG_AFTER), &[serial]);
        Forged::collateral(|c| c.root_ca_crl = crl)
    };
    assert!(list(&[1, 2, 3]).judge().is_ok());
    list(&Forged::honest().serials()[1]).assert_chain();
}

#[test]
fn revocation_lists_of_other_issuers() {
    Forged::collateral(|c| std::mem::swap(&mut c.root_ca_crl, &mut c.pck_crl)).assert_chain();
}

#[test]
fn revocation_list_that_is_none() {
    let form = Refusal::QuoteInvalid { check: QuoteCheck::CollateralForm };
    Forged::collateral(|c| c.root_ca_crl.clear()).assert_refused(&form);
    Forged::collateral(|c| c.pck_crl = b"list".to_vec()).assert_refused(&form);
}

#[test]
fn tcb_info_of_another_platform() {
    Forged::tcb_info(|info| info["fmspc"] = json!("00906ED50000")).assert_chain();
    Forged::tcb_info(|info| info["pceId"] = json!("0001")).assert_chain();
}

#[test]
fn tcb_info_of_another_kind() {
    Forged::tcb_info(|info| info["id"] = json!("SGX")).assert_chain();
    Forged::tcb_info(|info| info["version"] = json!(2)).assert_chain();
}

#[test]
fn quoting_enclave_identity_of_another_kind() {
    Forged::identity(|identity| identity["id"] = json!("QE")).assert_chain();
    Forged::identity(|identity| identity["version"] = json!(1)).assert_chain();
}

#[test]
fn platform_below_every_level() {
    Forged::tcb_info(|info| info["tcbLevels"][0]["tcb"]["pcesvn"] = json!(99)).assert_chain();
    Forged::tcb_info(|info| {
        info["tcbLevels"][0]["tcb"]["sgxtcbcomponents"][15]["svn"] = json!(6);
    })
    .assert_chain();
    Forged::tcb_info(|info| {
        info["tcbLevels"][0]["tcb"]["tdxtcbcomponents"][0]["svn"] = json!(1);
    })
    .assert_chain();
    Forged::tcb_info(|info| info["tcbLevels"] = json!([])).assert_chain();
}

#[test]
fn tdx_module_of_another_signer() {
    Forged::tcb_info(|info| info["tdxModule"]["mrsigner"] = json!("11".repeat(48))).assert_chain();
}

#[test]
fn revoked_level() {
    Forged::tcb_info(|info| info["tcbLevels"][0]["tcbStatus"] = json!("Revoked")).assert_chain();
    Forged::identity(|id| id["tcbLevels"][0]["tcbStatus"] = json!("Revoked")).assert_chain();
}

/// What the whole appraiser says to this guest under the dev policy with `change`.
fn refusal(forged: &Forged, change: impl FnOnce(&mut TdxRules)) -> Refusal {
    let mut rules = crate::parse_policy(&crate::simulated::dev_policy()).unwrap().rules().clone();
    change(rules.tdx.as_mut().unwrap());
    let policy = Policy::new(Trust::Dev, Tier::Open, rules).unwrap();
    let evidence = Evidence::SimulatedTdx { quote: forged.quote.clone().into() };
    let collateral = serde_json::to_vec(&forged.collateral).unwrap();
    Appraiser::new(policy)
        .judge(&evidence, &collateral, report_data(7).as_bytes(), NOW)
        .unwrap_err()
}

#[test]
fn firmware_with_published_holes() {
    for status in ["OutOfDate", "OutOfDateConfigurationNeeded", "ConfigurationNeeded"] {
        let forged = Forged::tcb_info(|info| info["tcbLevels"][0]["tcbStatus"] = json!(status));
        let refused = refusal(&forged, |_| {});
        assert!(matches!(refused, Refusal::TcbOutOfDate { .. }), "{status}: {refused:?}");
    }
}

#[test]
fn advisory_that_the_policy_rejects() {
    let id = "INTEL-SA-00001";
    let forged = Forged::tcb_info(|info| info["tcbLevels"][0]["advisoryIDs"] = json!([id]));
    assert_eq!(
        refusal(&forged, |rules| rules.reject_advisories = vec![id.to_owned()]),
        Refusal::Advisory { id: id.to_owned() }
    );
    // One of the quoting enclave's counts as well.
    let forged = Forged::identity(|identity| {
        identity["tcbLevels"][0]["advisoryIDs"] = json!([id]);
    });
    assert_eq!(
        refusal(&forged, |rules| rules.reject_advisories = vec![id.to_owned()]),
        Refusal::Advisory { id: id.to_owned() }
    );
}

#[test]
fn registers_of_zeros_as_some_clouds_have_them() {
    // The image cannot even be listed: a policy refuses registers of zeros.
    let mut guest = SimulatedGuest::default();
    guest.measurements.rtmr = [Register::ZERO; 4];
    let value = guest.measurements.mrtd;
    let differs = Some("rtmr0");
    assert_eq!(
        refusal(&Forged::of(guest), |_| {}),
        Refusal::UnknownMeasurement { register: "mrtd", value, differs }
    );
    let mut rules = crate::parse_policy(&crate::simulated::dev_policy()).unwrap().rules().clone();
    let images = &mut rules.tdx.as_mut().unwrap().images;
    images[0].rtmr0 = vec![Register::ZERO];
    assert!(Policy::new(Trust::Dev, Tier::Open, rules).is_err());
}

#[test]
fn superseded_collateral() {
    let forged = Forged::tcb_info(|info| info["tcbEvaluationDataNumber"] = json!(16));
    assert_eq!(
        refusal(&forged, |rules| rules.min_tcb_evaluation_data_number = 17),
        Refusal::CollateralOutdated { number: 16, minimum: 17 }
    );
    let forged = Forged::identity(|id| id["tcbEvaluationDataNumber"] = json!(15));
    assert_eq!(
        refusal(&forged, |rules| rules.min_tcb_evaluation_data_number = 17),
        Refusal::CollateralOutdated { number: 15, minimum: 17 }
    );
}

#[test]
fn collateral_older_than_the_policy_allows() {
    let old = json!("2027-01-01T00:00:00Z");
    for forged in [
        Forged::tcb_info(|info| info["issueDate"] = old.clone()),
        Forged::identity(|identity| identity["issueDate"] = old.clone()),
    ] {
        let refused = refusal(&forged, |_| {});
        assert!(matches!(refused, Refusal::CollateralTooOld { .. }), "{refused:?}");
    }
}
