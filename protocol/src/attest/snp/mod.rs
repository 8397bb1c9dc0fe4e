//! AMD SEV-SNP: what a verified report claims, the policy's rules for it, and the decision.
//!
//! Owns: the pure part of SEV-SNP, and the encoding of its endorsements.
//! Must not: parse a report or verify a signature; `node/attest` does.

mod appraise;
mod check;
mod claims;
mod endorsements;
mod rules;

pub(super) use appraise::appraise;
pub use check::SnpCheck;
pub use claims::{HostData, SnpClaims, SnpMeasurements, SnpProduct, SnpSigningKey, SnpTcb};
pub use endorsements::SnpEndorsements;
pub(super) use rules::{LONGEST_CRL_AGE, SnpFile};
pub use rules::{SnpImage, SnpRules};
