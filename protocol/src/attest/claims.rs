//! What verified evidence claims, and the decision whether the policy is content with it.
//!
//! Owns: the sum over the vendors, and what holds for all of them.
//! Must not: verify signatures; claims exist only after `node/attest` did.

use crate::attest::evidence::{EvidenceKind, REPORT_DATA_BYTES};
use crate::attest::measurement::Measured;
use crate::attest::policy::{Policy, Trust};
use crate::attest::snp::{self, SnpClaims};
use crate::attest::tdx::{self, TdxClaims};
use crate::attest::tier::Tier;
use crate::attest::trace::Trace;
use crate::attest::verdict::Refusal;
use crate::units::Timestamp;

/// What a piece of evidence claims, after every signature was verified up to a trusted root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claims {
    /// Of a TDX quote.
    Tdx(TdxClaims),
    /// Of a SEV-SNP report.
    Snp(SnpClaims),
}

impl Claims {
    /// The kind of evidence.
    pub const fn kind(&self) -> EvidenceKind {
        match self {
            Self::Tdx(claims) if claims.simulated => EvidenceKind::SimulatedTdx,
            Self::Tdx(_) => EvidenceKind::Tdx,
            Self::Snp(claims) if claims.simulated => EvidenceKind::SimulatedSnp,
            Self::Snp(_) => EvidenceKind::Snp,
        }
    }

    /// What ran in the guest.
    pub const fn measured(&self) -> Measured {
        match self {
            Self::Tdx(claims) => Measured::Tdx(claims.measurements),
            Self::Snp(claims) => Measured::Snp(claims.measurements),
        }
    }

    /// What the guest bound the evidence to.
    pub const fn report_data(&self) -> &[u8; REPORT_DATA_BYTES] {
        match self {
            Self::Tdx(claims) => &claims.report_data,
            Self::Snp(claims) => &claims.report_data,
        }
    }
}

/// What the policy found acceptable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appraisal {
    /// The tier that the claims earn.
    pub tier: Tier,
    /// The policy's name for the image that runs.
    pub image: String,
    /// Until when the endorsements vouch for it, by their own dates and by the policy's.
    pub expires: Timestamp,
}

/// Judges `claims` by `policy` at `now`, for evidence that must carry `report_data`.
///
/// # Errors
/// The first check that failed; the order is the order of the code.
pub fn appraise(
    claims: &Claims,
    policy: &Policy,
    report_data: &[u8; REPORT_DATA_BYTES],
    now: Timestamp,
) -> Result<Appraisal, Refusal> {
    appraise_traced(claims, policy, report_data, now, &mut Trace::default())
}

/// The same, noting every check that passes.
///
/// # Errors
/// As [`appraise`].
pub fn appraise_traced(
    claims: &Claims,
    policy: &Policy,
    report_data: &[u8; REPORT_DATA_BYTES],
    now: Timestamp,
    trace: &mut Trace,
) -> Result<Appraisal, Refusal> {
    if claims.kind().is_simulated() && policy.trust() != Trust::Dev {
        return Err(Refusal::SimulatedNotAllowed);
    }
    match claims {
        Claims::Tdx(claims) => tdx::appraise(claims, policy.tdx(), report_data, now, trace),
        Claims::Snp(claims) => snp::appraise(claims, policy.snp(), report_data, now, trace),
    }
}
