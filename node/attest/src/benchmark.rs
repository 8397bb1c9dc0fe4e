//! What the benchmark of verification measures: each cost as a closure to call again and again.
//!
//! Owns: the arguments, which are real evidence where there is some. Must not: be in a release, or time
//! anything; `benches/verification.rs` does.

use cocoon_protocol::attest::{
    Claims, Evidence, IdentityRecord, Policy, RecordBinding, Rules, TdxImage, TdxRules, Tier, Trust,
};
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::units::{Millis, Timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::attester::Attester as _;
use crate::certificate::{self, SessionCertificate};
use crate::simulated::{SimulatedSnp, SimulatedSnpGuest, dev_policy};
use crate::tdx::{self, Root};
use crate::{Appraiser, parse_policy};

/// The real TDX quote that is judged, and its collateral.
pub const TDX_QUOTE: &[u8] = include_bytes!("../testdata/dcap/tdx_quote");
/// As `QuoteCollateralV3`, JSON.
pub const TDX_COLLATERAL: &[u8] = include_bytes!("../testdata/dcap/tdx_quote_collateral.json");
/// When it was good: 2025-06-20T10:16:03Z.
pub const TDX_THEN: Timestamp = Timestamp::from_unix_secs(1_750_414_563);
const SNP_THEN: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

/// One thing to do; false when it did not come out as it should.
pub type Step = Box<dyn FnMut() -> bool>;

/// A policy that accepts the real quote, and nothing else.
fn tdx_policy() -> Option<(Policy, [u8; 64])> {
    let verified = tdx::verify(false, TDX_QUOTE, TDX_COLLATERAL, &Root::intel(), TDX_THEN).ok()?;
    let claims = verified.claims;
    let measured = claims.measurements;
    let [rtmr0, rtmr1, rtmr2, rtmr3] = measured.rtmr;
    let rules = TdxRules {
        tcb_status: [claims.tcb_status].into(),
        reject_advisories: Vec::new(),
        min_tcb_evaluation_data_number: claims.tcb_evaluation_data_number,
        max_collateral_age: Millis::from_secs(168 * 3600),
        allow_smt: true,
        allow_dynamic_platform: true,
        allow_cached_keys: true,
        allowed_ppid: Vec::new(),
        images: vec![TdxImage {
            name: "sample".to_owned(),
            mrtd: measured.mrtd,
            rtmr0: vec![rtmr0],
            rtmr1,
            rtmr2,
            rtmr3,
            mr_config_id: Some(measured.mr_config_id),
            mr_owner: Some(measured.mr_owner),
            mr_owner_config: Some(measured.mr_owner_config),
        }],
    };
    let rules = Rules { tdx: Some(rules), ..Rules::default() };
    let report_data = *Claims::Tdx(claims).report_data();
    Some((Policy::new(Trust::Production, Tier::Open, rules).ok()?, report_data))
}

/// Judges the real TDX quote: collateral, chain, revocation, TCB, binding, policy, second opinion.
pub fn judge_tdx() -> Option<Step> {
    let (policy, report_data) = tdx_policy()?;
    let appraiser = Appraiser::new(policy);
    let evidence = Evidence::Tdx { quote: TDX_QUOTE.into() };
    Some(Box::new(move || {
        appraiser.judge(&evidence, TDX_COLLATERAL, &report_data, TDX_THEN).is_ok()
    }))
}

/// Judges a SEV-SNP report under the test root, whose keys have the sizes of AMD's: chain, revocation
/// list, signature, chip and firmware binding, policy. No real report comes with AMD's list.
pub fn judge_snp() -> Option<Step> {
    let appraiser = Appraiser::new(parse_policy(&dev_policy()).ok()?);
    let binding = RecordBinding {
        kind: cocoon_protocol::attest::EvidenceKind::SimulatedSnp,
        nonce: &[1; 32],
        made_at: SNP_THEN,
        configuration: &[0; 32],
        gpu_digest: &[0; 32],
    };
    let report_data = binding.report_data();
    let quoted = SimulatedSnp::new(SimulatedSnpGuest::default()).quote(&report_data, SNP_THEN);
    let quoted = quoted.ok()?;
    Some(Box::new(move || {
        let expected = report_data.as_bytes();
        appraiser.judge(&quoted.evidence, &quoted.endorsements, expected, SNP_THEN).is_ok()
    }))
}

/// Reads a certificate with the real TDX quote inside, and finds what was judged about it: what a
/// session with a known provider costs beside the session's own evidence.
pub fn cached_identity() -> Option<Step> {
    let (policy, report_data) = tdx_policy()?;
    let appraiser = Appraiser::new(policy);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).ok()?;
    let record = IdentityRecord {
        peer: NodeId::from_bytes([1; 32]),
        capabilities: [2; 32],
        configuration: [3; 32],
        evidence: Evidence::Tdx { quote: TDX_QUOTE.into() },
    };
    let (from, until) = certificate::validity(TDX_THEN);
    let der = certificate::issue(&key, &record, from, until).ok()?;
    Some(Box::new(move || {
        SessionCertificate::read(&der, TDX_THEN).is_ok_and(|certificate| {
            appraiser.judge_identity(&certificate, TDX_COLLATERAL, &report_data, TDX_THEN).is_ok()
        })
    }))
}
