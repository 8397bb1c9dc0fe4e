//! The exact tier: the real overlay and the real protocol machines in virtual time.
//!
//! Owns: one node of each host over `simnet-core`, the order of a run, and what is measured for the
//! abstract tier's calibration.
//! Must not: hold protocol or policy; those are the node's own crates, run as they are.
//!
//! What is real: libp2p's swarm, Kademlia, gossipsub, identify and ping; `cocoon-overlay` with its
//! index, offers and warm tables; the bytes of session messages; the hosts (`simnet-host`), which
//! are `cocoon_protocol::Node` and its shell. What is modelled: links, the QUIC-like transport, the
//! attested channel's handshake (bytes and time), the engine, the chain.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod agenda;
mod carrier;
mod hostile;
pub mod measure;
mod node;
mod place;
mod run;
mod session;
mod still;
mod tally;
mod world;

pub use measure::{Measurement, measure};
pub use run::{RunError, run};
