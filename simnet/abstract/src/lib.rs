//! The real protocol machines over a modelled overlay: up to a million nodes in one process.
//!
//! Owns: the modelled overlay, its calibration from the exact tier, and the order of a run.
//! Must not: copy a rule of the protocol. Hosts, ledger and money are those of every tier.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod event;
pub mod wheel;
