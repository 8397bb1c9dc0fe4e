//! Worlds in small: what the clock, the executor and the network promise, each in its own process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "how a world tells its result")]

mod determinism;
mod executor;
mod faults;
mod nat;
mod network;
mod own_process;
mod parties;
mod system;
