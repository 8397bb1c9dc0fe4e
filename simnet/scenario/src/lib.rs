//! What a simulated network consists of: the scenario format, regions, hardware, demand, churn.
//!
//! Owns: the meaning and the defaults of every parameter, and the draws that follow from a seed.
//! Must not: run anything, or know libp2p, a file system or a terminal.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod adversary;
mod check;
pub mod demand;
pub mod draw;
mod error;
pub mod faults;
pub mod grid;
pub mod hardware;
pub mod money;
pub mod population;
pub mod quantity;
mod scenario;
mod shipped;
mod time;
pub mod topology;

pub use adversary::{Adversary, AdversaryKind};
pub use draw::Seed;
pub use error::{ScenarioError, nearest};
pub use rand_chacha::ChaCha8Rng;
pub use scenario::{RunTier, Scenario, WarmStart};
pub use shipped::{SHIPPED, Shipped, shipped};
pub use time::Moment;
pub use topology::{Link, Regions};
