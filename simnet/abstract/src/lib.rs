//! The real protocol machines over a modelled overlay: up to a million nodes in one process.
//!
//! Owns: the modelled overlay, its calibration from the exact tier, and the order of a run.
//! Must not: copy a rule of the protocol. Hosts, ledger and money are those of every tier.
//!
//! # What is real and what is modelled
//! Real: everything above the overlay. Each host is a `simnet_host::Host` around the protocol's own
//! machines: selection, reputation, prices, jobs, channels, vouchers and receipts with all their
//! checks; the ledger is the contract's model. Ed25519 is replaced by hashes of the same sizes.
//!
//! Modelled: the index answers with an even draw of its records after a time that was measured in
//! the exact tier; warm tables follow the overlay's rules; messages take the time of their way and
//! bytes; crashed peers fall silent and are noticed as by the exact tier's transport. Nodes behind
//! address translation cannot be dialled. What Kademlia, identify, ping and gossip send is a rate
//! for each node from the calibration.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod approach;
pub mod calibrate;
pub mod calibration;
mod carrier;
mod directory;
mod draws;
mod event;
pub mod measure;
mod near;
mod overlay;
mod path;
mod poison;
mod run;
mod session;
mod sessions;
mod slab;
mod still;
mod tables;
mod trace;
mod traffic;
pub mod wheel;
mod world;

pub use calibration::{Calibration, CalibrationError, Point};
pub use measure::{Gauge, Measured};
pub use run::{RunError, run, run_with};
