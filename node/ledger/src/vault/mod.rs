//! The vault contract as its clients see it: its address, the messages it takes, its state.
//!
//! Owns: the cells of `contracts/vault/`, and the compiled code that they belong to.
//! Must not: decide what to allocate or settle, send anything, or believe a state of other code:
//! the rules themselves are `cocoon_protocol::channel::settlement`.
//!
//! A vault comes to life with a plain transfer that carries [`Deployment::state_init`]. Its
//! consumer then sends [`message::order`], a provider [`message::settle_external`], each as the
//! body of an external message; both read [`VaultState::read`] from the account's code and data.

pub(crate) mod cell;
mod deployment;
pub mod message;
mod state;

pub use cell::EncodeVaultError;
pub use deployment::{Deployment, code};
pub use state::{ReadVaultError, VaultState};

/// Hash of the contract's code: the version that this client speaks to. An account with any other
/// code is not a vault, whatever it says about itself.
pub const CODE_HASH: [u8; 32] = [
    0xe0, 0xd5, 0xdf, 0x20, 0x2c, 0xc7, 0x9c, 0x73, 0x94, 0x81, 0x60, 0xfc, 0x37, 0xf0, 0xf5, 0xd3,
    0x67, 0x3f, 0x0a, 0x31, 0x8b, 0x57, 0x34, 0x97, 0x7c, 0x0b, 0xb0, 0xeb, 0x19, 0xca, 0xa4, 0xd0,
];

/// The compiled contract, as `contracts/compile.mjs` writes it.
const CODE: &[u8] = include_bytes!("../../../../contracts/build/vault.boc");

#[cfg(test)]
mod chain_tests;
#[cfg(test)]
mod tests;
