//! The vault contract as a pure function: what a model can be compared with, and simulated by.
//!
//! Owns: every rule of `contracts/vault/` that is about money, in the contract's order, so that a
//! refusal here has the contract's exit code.
//! Must not: know cells, gas metering or the clock: fees and time are arguments.

mod message;
mod refusal;
mod vault;

pub use message::{AllocationRequest, BATCH, Command, Fees, Message, Order, Parameters, Transfer};
pub use refusal::VaultError;
pub use vault::Vault;
