//! The wire format from outside: frozen bytes, round trips, hostile input, and every bound by name.
//!
//! Owns: what a peer may send and what becomes of it. Must not: reach behind the public interface;
//! messages that our own encoder would never make are put together by hand in `protobuf`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod arbitrary;
mod bounds;
mod golden;
mod hostile;
mod protobuf;
