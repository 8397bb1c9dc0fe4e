//! The crate from outside: vectors of the reference libraries, the chain, the way over HTTP.
//!
//! Owns: scenarios that need several modules. Must not: reach into the crate.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod chain;
mod crash;
mod http;
mod liteserver;
mod payments;
mod registry;
mod remit;
mod rotation;
mod shared_vectors;
mod stage;
mod vectors;
