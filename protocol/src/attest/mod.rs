//! What attestation promises here: tiers, evidence, the binding to a session, and the policy.
//!
//! Owns: the pure part of `who may see a prompt`.
//! Must not: parse a vendor's quote or fetch a certificate; `node/attest` does, and hands in verdicts.

mod tier;

pub use tier::{ParseTierError, Tier};
