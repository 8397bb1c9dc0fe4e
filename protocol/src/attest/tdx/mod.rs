//! Intel TDX: what a verified quote claims, the policy's rules for it, and the decision.
//!
//! Owns: the pure part of TDX. Must not: parse a quote or verify a signature; `node/attest` does.

mod appraise;
mod claims;
mod rules;

pub(super) use appraise::appraise;
pub use claims::{PlatformFlags, TcbStatus, TdxClaims, TdxMeasurements};
pub(super) use rules::{LONGEST_COLLATERAL_AGE, TdxFile};
pub use rules::{TdxImage, TdxRules};
