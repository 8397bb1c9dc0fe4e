//! GPU evidence: its form on the wire, what it claims once verified, and what the policy makes of it.
//!
//! Owns: NVIDIA's claims, the rules `[gpu]`, and the step from `attested` to `confidential`.
//! Must not: parse a report or verify a signature; `node/attest` does. A GPU alone proves nothing here:
//! a genuine report says that *some* genuine GPU exists. It counts only where a measured CPU TEE asked
//! for it with a nonce of this session and hashed it into its own quote.

mod appraisal;
mod claims;
mod evidence;
mod rules;

pub use appraisal::{
    GpuAppraisal, GpuRefusal, GpuStanding, appraise_gpu_traced, appraise_gpus, tier_with_gpus,
};
pub use claims::{GpuArchitecture, GpuClaims, ParseArchitectureError};
pub use evidence::{GpuEvidence, GpuEvidenceKind};
pub use rules::{GpuGolden, GpuIdentityOnly, GpuRules};

pub(super) use evidence::{append_list, read_list};
pub(super) use rules::GpuFile;
