//! Verification of Intel TDX quotes up to a trusted root, and what they claim.
//!
//! Owns: the use of the DCAP verifier, with time as an argument, and typed reasons for its refusals.
//! Must not: be content with a signature; `attest::appraise` judges the claims that come out.

use std::time::Duration;

use cocoon_protocol::attest::{
    PlatformFlags, QuoteCheck, Refusal, Register, TcbStatus, TdxClaims, TdxMeasurements, TdxRules,
};
use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;
use dcap_qvl::intel::{extract_cert_chain, parse_pck_extension};
use dcap_qvl::quote::{Quote, TDAttributes, TDReport10};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{PckCertFlag, Policy as _, QuoteClaims, QuoteCollateralV3, QuotePolicy};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::{DateTime, Decode as _};

/// A root that quotes may be certified by.
pub(crate) struct Root {
    verifier: QuoteVerifier,
    common_name: &'static str,
}

impl Root {
    /// Intel's, as the verifier's crate pins it.
    pub(crate) fn intel() -> Self {
        Self { verifier: QuoteVerifier::new_prod(), common_name: "Intel SGX Root CA" }
    }

    /// The public test root.
    #[cfg(feature = "dev-tee")]
    pub(crate) fn simulated(certificate: Vec<u8>, common_name: &'static str) -> Self {
        Self { verifier: QuoteVerifier::new(certificate), common_name }
    }
}

/// A quote whose signatures hold, and what it claims.
pub(crate) struct Verified {
    pub(crate) claims: TdxClaims,
    vendor: QuoteClaims,
}

impl Verified {
    /// The vendor library's own appraisal by the same rules. Ours has already passed, so this only
    /// ever refuses what ours overlooked.
    pub(crate) fn cross_check(&self, rules: &TdxRules, now: Timestamp) -> Result<(), Refusal> {
        let mut policy = QuotePolicy::strict(now.as_unix_secs())
            .allow_smt(rules.allow_smt)
            .allow_dynamic_platform(rules.allow_dynamic_platform)
            .allow_cached_keys(rules.allow_cached_keys)
            .min_tcb_eval_data_number(rules.min_tcb_evaluation_data_number)
            .reject_advisories(&rules.reject_advisories);
        if rules.tcb_status.contains(&self.claims.tcb_status) {
            policy = policy.allow_status(self.vendor.tcb.status);
        }
        // An operator who lists OutOfDate accepts it without a period of grace.
        if rules.tcb_status.contains(&TcbStatus::OutOfDate) {
            let always = Duration::from_secs(now.as_unix_secs());
            policy = policy.platform_grace_period(always).qe_grace_period(always);
        }
        policy.validate(&self.vendor).map_err(|error| {
            tracing::debug!(error = format!("{error:#}"), "the vendor's appraisal refused a quote");
            Refusal::QuoteInvalid { check: QuoteCheck::Appraisal }
        })
    }
}

/// Verifies `quote` with `collateral` (DCAP collateral as JSON) under `root` at `now`.
///
/// The cheap checks come first and use unverified fields: they only ever refuse, and give a user a
/// better reason than the signature check would.
pub(crate) fn verify(
    simulated: bool,
    quote: &[u8],
    collateral: &[u8],
    root: &Root,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    if quote.len() > limits::EVIDENCE_BYTES {
        return Err(Refusal::Malformed);
    }
    let parsed = Quote::parse(quote).map_err(|_| Refusal::Malformed)?;
    // An SGX enclave's quote has no guest in it.
    let report = parsed.report.as_td10().ok_or(Refusal::Malformed)?;
    check_padding(&parsed, quote)?;
    check_attributes(report)?;
    check_root(&parsed, root)?;
    let collateral = parse_collateral(collateral)?;
    let dates = CollateralDates::of(&collateral)?;
    let tcb_info = collateral.tcb_info.clone();
    if dates.expires <= now {
        return Err(Refusal::CollateralExpired);
    }
    let vendor = root
        .verifier
        .verify_with_policy(
            quote,
            collateral,
            now.as_unix_secs(),
            &QuotePolicy::claims_only(now.as_unix_secs()),
        )
        .map_err(|error| {
            tracing::debug!(error = format!("{error:#}"), "a quote failed verification");
            Refusal::QuoteInvalid { check: QuoteCheck::Chain }
        })?;
    check_pce(&parsed, &tcb_info)?;
    let claims = claims(simulated, &vendor, dates.issued)?;
    Ok(Verified { claims, vendor })
}

/// Some hosts pad quotes with zeros. Anything else behind the end is somebody's message.
fn check_padding(parsed: &Quote, quote: &[u8]) -> Result<(), Refusal> {
    let (length, rest) = quote
        .get(parsed.signed_length()..)
        .and_then(<[u8]>::split_first_chunk::<4>)
        .ok_or(Refusal::Malformed)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Refusal::Malformed)?;
    let padding = rest.get(length..).ok_or(Refusal::Malformed)?;
    if padding.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(Refusal::Malformed) }
}

fn check_attributes(report: &TDReport10) -> Result<(), Refusal> {
    let invalid = Refusal::QuoteInvalid { check: QuoteCheck::Attributes };
    let attributes = TDAttributes::parse(report.td_attributes).map_err(|_| invalid.clone())?;
    if attributes.tud != 0 {
        return Err(Refusal::Debug);
    }
    if attributes.sec.migratable {
        return Err(Refusal::Migratable);
    }
    if attributes.reserved != 0 || !attributes.sec.sept_ve_disable {
        return Err(invalid);
    }
    Ok(())
}

/// Who certified the quote, by name: for the reason only. The verifier checks the signature.
fn check_root(quote: &Quote, root: &Root) -> Result<(), Refusal> {
    let chain = extract_cert_chain(quote).map_err(|_| Refusal::Malformed)?;
    let top = chain.last().ok_or(Refusal::UntrustedRoot)?;
    let top = Certificate::from_der(top).map_err(|_| Refusal::Malformed)?;
    let issuer = top.tbs_certificate().issuer().to_string();
    let expected = format!("CN={}", root.common_name);
    if issuer.split(',').any(|part| part.trim() == expected) {
        Ok(())
    } else {
        Err(Refusal::UntrustedRoot)
    }
}

/// The TCB info is about this platform's provisioning enclave. The library compares the FMSPC and leaves
/// out the PCE id, which Intel's own verification compares as well.
fn check_pce(quote: &Quote, tcb_info: &str) -> Result<(), Refusal> {
    #[derive(serde::Deserialize)]
    struct Provisioned {
        #[serde(rename = "pceId")]
        pce_id: String,
    }
    let chain = extract_cert_chain(quote).map_err(|_| Refusal::Malformed)?;
    let platform = chain.first().ok_or(Refusal::Malformed)?;
    let certified = parse_pck_extension(platform).map_err(|_| Refusal::Malformed)?.pce_id;
    let described: Option<Provisioned> = serde_json::from_str(tcb_info).ok();
    if described.is_some_and(|info| info.pce_id.eq_ignore_ascii_case(&hex::encode(&certified))) {
        Ok(())
    } else {
        Err(Refusal::QuoteInvalid { check: QuoteCheck::Chain })
    }
}

fn parse_collateral(bytes: &[u8]) -> Result<QuoteCollateralV3, Refusal> {
    let form = Refusal::QuoteInvalid { check: QuoteCheck::CollateralForm };
    if bytes.len() > limits::ATTEST_RESPONSE_BYTES {
        return Err(form);
    }
    let mut collateral: QuoteCollateralV3 = serde_json::from_slice(bytes).map_err(|_| form)?;
    // The chain in the quote is the one that counts; a second one is a second opinion that nobody
    // asked for.
    collateral.pck_certificate_chain = None;
    Ok(collateral)
}

/// When collateral's first part ends; `None` for what is no collateral. Nothing is verified.
pub(crate) fn collateral_expires(bytes: &[u8]) -> Option<Timestamp> {
    CollateralDates::of(&parse_collateral(bytes).ok()?).ok().map(|dates| dates.expires)
}

/// When the collateral was issued and when its first part ends. Read before any signature is
/// verified, so as to tell "expired" from "forged"; afterwards the same bytes are authentic.
struct CollateralDates {
    issued: Timestamp,
    expires: Timestamp,
}

impl CollateralDates {
    fn of(collateral: &QuoteCollateralV3) -> Result<Self, Refusal> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Dated {
            issue_date: String,
            next_update: String,
        }
        let form = || Refusal::QuoteInvalid { check: QuoteCheck::CollateralForm };
        let (mut issued, mut expires) = (Timestamp::MAX, Timestamp::MAX);
        for json in [&collateral.tcb_info, &collateral.qe_identity] {
            let dated: Dated = serde_json::from_str(json).map_err(|_| form())?;
            issued = issued.min(parse_date(&dated.issue_date).ok_or_else(form)?);
            expires = expires.min(parse_date(&dated.next_update).ok_or_else(form)?);
        }
        for list in [&collateral.root_ca_crl, &collateral.pck_crl] {
            let list: CertificateList = CertificateList::from_der(list).map_err(|_| form())?;
            // A revocation list without an end never expires by itself; Intel's have one.
            let next = list.tbs_cert_list.next_update.ok_or_else(form)?;
            expires = expires.min(Timestamp::from_unix_secs(next.to_unix_duration().as_secs()));
        }
        Ok(Self { issued, expires })
    }
}

/// `2026-11-22T12:00:00Z`, the one form that Intel writes.
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    let date: DateTime = text.parse().ok()?;
    Some(Timestamp::from_unix_secs(date.unix_duration().as_secs()))
}

fn claims(
    simulated: bool,
    vendor: &QuoteClaims,
    collateral_issued: Timestamp,
) -> Result<TdxClaims, Refusal> {
    let report = vendor.report.as_td10().ok_or(Refusal::Malformed)?;
    let register = Register::from_bytes;
    let set = |flag| flag == PckCertFlag::True;
    let pck = &vendor.platform.pck;
    // The launch level, the level of today and the quoting enclave each have advisories.
    let mut advisories = vendor.tcb.advisory_ids.clone();
    let further = vendor.platform.current_tcb_level.iter().flat_map(|level| &level.advisory_ids);
    for advisory in further.chain(&vendor.qe.tcb_level.advisory_ids) {
        if !advisories.contains(advisory) {
            advisories.push(advisory.clone());
        }
    }
    Ok(TdxClaims {
        simulated,
        attributes: u64::from_le_bytes(report.td_attributes),
        measurements: TdxMeasurements {
            mrtd: register(report.mr_td),
            rtmr: [
                register(report.rt_mr0),
                register(report.rt_mr1),
                register(report.rt_mr2),
                register(report.rt_mr3),
            ],
            mr_config_id: register(report.mr_config_id),
            mr_owner: register(report.mr_owner),
            mr_owner_config: register(report.mr_owner_config),
        },
        report_data: report.report_data,
        tcb_status: tcb_status(vendor.tcb.status),
        advisories,
        tcb_evaluation_data_number: vendor.tcb.eval_data_number,
        collateral_issued,
        collateral_expires: Timestamp::from_unix_secs(vendor.earliest_expiration_date),
        platform: PlatformFlags {
            dynamic_platform: set(pck.dynamic_platform),
            cached_keys: set(pck.cached_keys),
            smt: set(pck.smt_enabled),
        },
        ppid: pck.ppid.clone(),
    })
}

const fn tcb_status(status: dcap_qvl::TcbStatus) -> TcbStatus {
    use dcap_qvl::TcbStatus as Vendor;
    match status {
        Vendor::UpToDate => TcbStatus::UpToDate,
        Vendor::SWHardeningNeeded => TcbStatus::SwHardeningNeeded,
        Vendor::ConfigurationNeeded => TcbStatus::ConfigurationNeeded,
        Vendor::ConfigurationAndSWHardeningNeeded => TcbStatus::ConfigurationAndSwHardeningNeeded,
        Vendor::OutOfDate => TcbStatus::OutOfDate,
        Vendor::OutOfDateConfigurationNeeded => TcbStatus::OutOfDateConfigurationNeeded,
        Vendor::Revoked => TcbStatus::Revoked,
        Vendor::TDRelaunchAdvised => TcbStatus::TdRelaunchAdvised,
        Vendor::TDRelaunchAdvisedConfigurationNeeded => {
            TcbStatus::TdRelaunchAdvisedConfigurationNeeded
        }
    }
}

#[cfg(test)]
mod tests;
