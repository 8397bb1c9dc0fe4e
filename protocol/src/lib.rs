//! The rules of the Cocoon network as pure state machines.
//!
//! Owns: what every message means, who owes whom, who may see a prompt, and what happens next.
//! Must not: know a runtime, a socket, a file, a clock, an environment or a random source. Time,
//! seeds and verdicts come in as arguments; work to do goes out as values. Ordered maps only.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::disallowed_methods,
        clippy::disallowed_types
    )
)]

pub mod attest;
pub mod channel;
mod deadlines;
mod flat;
pub mod identity;
pub mod input;
pub mod job;
pub mod layout;
pub mod limits;
pub mod node;
pub mod offer;
pub mod output;
mod places;
mod posting;
pub mod pricing;
pub mod receipt;
pub mod record;
pub mod reputation;
pub mod selection;
mod signature;
pub mod units;
pub mod wire;
pub use input::Input;
pub use node::Node;
pub use output::Output;
#[cfg(feature = "insecure-simulated-signatures")]
pub use signature::simulated as insecure_simulated_signatures;
