//! Virtual time for rust-libp2p: clock, executor, network, and determinism that can be checked.
//!
//! Owns: everything below a libp2p swarm. Must not: know any protocol above it.

#![warn(missing_docs)]

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!(
    "simnet-core captures the clock and the randomness of the C library by the symbols of glibc on \
     x86-64 or AArch64 Linux; on other systems a run could not be repeated, so it does not build"
);

pub mod allocator;
pub mod clock;
mod executor;
mod interpose;
mod links;
mod network;
mod node;
mod simulation;
mod slab;
pub mod trace;
mod traffic;
mod transport;

pub use executor::{NodeExecutor, TaskPanicked, current_node, spawn};
pub use interpose::CaptureError;
pub use links::{Links, NotSquare, PartsPerMillion, Path, RoundTrips, Uniform, Wire};
pub use network::{Crash, Fault, Scope};
pub use node::{Access, Nat, NodeIndex, NodeSpec, Place};
pub use simulation::{
    BuildError, Config, Ended, Progress, RunError, Simulation, Statistics, mark, on_fresh_thread,
};
pub use traffic::{Count, Directions, Traffic};
pub use transport::{
    ByteStream, ByteTransport, ByteUpgrade, MuxedStream, MuxedTransport, MuxedUpgrade, Muxer,
};
