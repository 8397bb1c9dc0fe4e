//! What a simulated network consists of: the scenario format, regions, hardware, demand, churn.
//!
//! Owns: the meaning and the defaults of every parameter, and the draws that follow from a seed.
//! Must not: run anything, or know libp2p, a file system or a terminal.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod draw;
mod time;

pub use draw::Seed;
pub use rand_chacha::ChaCha8Rng;
pub use time::Moment;
