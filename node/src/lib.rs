//! Everything of a Cocoon node that touches the world.
//!
//! Owns: the map of the modules, so that tests and the binary see the same node.
//! Must not: hold code.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod accounts;
mod advisories;
pub mod api_keys;
mod budget;
pub mod bundle;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod data_folder;
mod driver;
mod endorsements;
mod gpu_standing;
mod guard;
pub mod identity;
pub mod keystore;
pub mod net;
mod operator;
pub mod policy_source;
pub mod proof;
pub mod purse;
mod receipts;
mod releases;
mod report;
pub mod run;
pub mod shutdown;
pub mod start;
pub mod store;
pub mod telemetry;
mod teller;
pub mod vaults;
pub mod words;
