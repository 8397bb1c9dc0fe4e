//! The network side of a node: transports, and the task that runs the overlay.
//!
//! Owns: everything that touches a socket towards peers.
//! Must not: interpret what streams carry; sessions and the driver do.

pub(crate) mod session;
pub(crate) mod sessions;
pub mod swarm;
