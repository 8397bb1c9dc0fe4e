//! Each adversary in the smallest network that shows it: what it gains, and the bound that holds.
//!
//! Owns: the figures. They are exact, because a run is; who changes the protocol sees here whom it
//! serves. Must not: need a tier or a scenario file; `simnet/scenarios` has one for each.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

#[expect(dead_code, reason = "a world that other tests use more of")]
#[path = "../pair/world.rs"]
mod world;

mod consumers;
mod measure;
mod providers;
