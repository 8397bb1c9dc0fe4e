//! What attestation promises here: tiers, evidence, the binding to a session, and the policy.
//!
//! Owns: the pure part of `who may see a prompt`.
//! Must not: parse a vendor's quote or fetch a certificate; `node/attest` does, and hands in claims.

mod advisories;
mod binding;
mod bytes;
mod claims;
mod evidence;
mod gpu;
mod measurement;
mod message;
#[cfg(test)]
mod model;
mod policy;
mod snp;
mod tdx;
mod tier;
mod trace;
#[cfg(test)]
mod vectors;
mod verdict;

pub use advisories::{
    Advisories, AdvisoryList, SnpAdvisories, Subscription, TdxAdvisories, WithdrawnImage,
    registry_hash,
};
pub use binding::{
    EXPORTER_LABEL, GpuEvidenceParts, GpuNonce, IdentityBinding, NetworkId, RecordBinding,
    ReportData, SessionBinding, SessionRole, gpu_digest, gpu_nonce, gpu_nonces, record_gpu_nonces,
};
pub use bytes::Malformed;
pub use claims::{Appraisal, Claims, appraise, appraise_traced};
pub use evidence::{Evidence, EvidenceKind, IdentityRecord, REPORT_DATA_BYTES};
pub use gpu::{
    GpuAppraisal, GpuArchitecture, GpuClaims, GpuEvidence, GpuEvidenceKind, GpuGolden,
    GpuIdentityOnly, GpuRefusal, GpuRules, GpuStanding, ParseArchitectureError,
    appraise_gpu_traced, appraise_gpus, tier_with_gpus,
};
pub use measurement::{Measured, Register};
pub use message::{AttestRequest, AttestResponse, NONCE_BYTES};
pub use policy::{Policy, PolicyError, PolicyId, Rules, Trust};
pub use snp::{
    HostData, SnpCheck, SnpClaims, SnpEndorsements, SnpImage, SnpMeasurements, SnpProduct,
    SnpRules, SnpSigningKey, SnpTcb,
};
pub use tdx::{PlatformFlags, TcbStatus, TdxClaims, TdxImage, TdxMeasurements, TdxRules};
pub use tier::{ParseTierError, Tier};
pub use trace::{GpuStep, Step, Trace};
pub use verdict::{PlatformRule, QuoteCheck, Refusal, TcbMoment, Verdict};
