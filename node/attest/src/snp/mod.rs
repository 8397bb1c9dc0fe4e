//! Verification of AMD SEV-SNP reports up to a trusted root, and what they claim.
//!
//! Owns: the order of the checks, with time as an argument, and typed reasons for their refusals.
//! Must not: be content with a signature; `attest::appraise` judges the claims that come out.
//!
//! Sources: AMD, *SEV Secure Nested Paging Firmware ABI* (56860) for the report, and *VCEK Certificate
//! and KDS Interface Specification* (57230) for the certificates. Signatures are checked by `aws-lc-rs`,
//! which the attached channel uses anyway: of the two libraries in the tree it has the faster P-384.

mod certificate;
mod chain;
mod report;
mod revocation;
mod roots;

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use cocoon_protocol::attest::{
    HostData, Refusal, Register, SnpCheck, SnpClaims, SnpEndorsements, SnpMeasurements, SnpProduct,
};
use cocoon_protocol::units::Timestamp;

use crate::snp::chain::Chain;
use crate::snp::report::Report;
use crate::snp::revocation::RevocationList;

pub(crate) use certificate::SnpCertificate;
pub(crate) use roots::Roots;

/// Intermediate certificates of providers' keys (ASVK, DER), by family, as a policy lists them.
pub(crate) type Asvk = BTreeMap<SnpProduct, Vec<u8>>;

/// Verifies `report` with `endorsements` ([`SnpEndorsements`]) under `roots` at `now`.
pub(crate) fn verify(
    simulated: bool,
    report: &[u8],
    endorsements: &[u8],
    roots: &Roots,
    asvk: &Asvk,
    now: Timestamp,
) -> Result<SnpClaims, Refusal> {
    let report = Report::read(report)?;
    let endorsements = SnpEndorsements::from_bytes(endorsements)
        .map_err(|_| invalid(SnpCheck::EndorsementForm))?;
    let chain = Chain::read(&report, &endorsements, roots, asvk)?;
    chain.check(now)?;
    let list = RevocationList::read(&endorsements.crl)?;
    list.check(&chain, now)?;
    check_report(&report, &chain)?;
    claims(simulated, &report, &chain, &list)
}

/// The report is of the key in the chain, and the key of the report's chip and firmware.
fn check_report(report: &Report, chain: &Chain<'_>) -> Result<(), Refusal> {
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, chain.vek.public_key())
        .verify(report.signed(), &report.signature())
        .map_err(|_| invalid(SnpCheck::ReportSignature))?;
    if report.product().is_some_and(|product| product != Some(chain.product)) {
        return Err(invalid(SnpCheck::Product));
    }
    chain.check_binding(report)
}

fn claims(
    simulated: bool,
    report: &Report,
    chain: &Chain<'_>,
    list: &RevocationList,
) -> Result<SnpClaims, Refusal> {
    let level =
        |bytes| report::tcb(bytes, chain.product).ok_or_else(|| invalid(SnpCheck::TcbBinding));
    Ok(SnpClaims {
        simulated,
        product: chain.product,
        signing_key: chain.key,
        vmpl: report.vmpl(),
        guest_policy: report.guest_policy(),
        platform_info: report.platform_info(),
        measurements: SnpMeasurements {
            measurement: Register::from_bytes(report.measurement()),
            host_data: HostData::from_bytes(report.host_data()),
            id_key_digest: Register::from_bytes(report.id_key_digest()),
            author_key_digest: Register::from_bytes(report.author_key_digest()),
            guest_svn: report.guest_svn(),
        },
        report_data: report.report_data(),
        reported_tcb: level(report.reported_tcb())?,
        launch_tcb: level(report.launch_tcb())?,
        chip_id: report.chip_id(),
        crl_issued: list.issued,
        endorsements_expire: chain.expires().min(list.expires),
    })
}

/// Whether `der` is a certificate that can stand as an intermediate in a policy.
pub(crate) fn is_intermediate(der: &[u8]) -> bool {
    SnpCertificate::read(der).is_ok_and(|certificate| certificate.check_authority().is_ok())
}

const fn invalid(check: SnpCheck) -> Refusal {
    Refusal::ReportInvalid { check }
}

#[cfg(test)]
mod tests;
