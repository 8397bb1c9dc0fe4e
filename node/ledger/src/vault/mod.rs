//! The vault contract as its clients see it: its address, the messages it takes, its state.
//!
//! Owns: the cells of `contracts/vault/`, and the compiled code that they belong to.
//! Must not: decide what to allocate or settle, send anything, or believe a state of other code:
//! the rules themselves are `cocoon_protocol::channel::settlement`.
//!
//! A vault comes to life with a plain transfer that carries [`Deployment::state_init`]. Its
//! consumer then sends [`message::order`], a provider [`message::settle_external`], each as the
//! body of an external message; both read [`VaultState::read`] from the account's code and data.

mod cell;
mod deployment;
pub mod message;
mod state;

pub use cell::EncodeVaultError;
pub use deployment::{Deployment, code};
pub use state::{ReadVaultError, VaultState};

/// Hash of the contract's code: the version that this client speaks to. An account with any other
/// code is not a vault, whatever it says about itself.
pub const CODE_HASH: [u8; 32] = [
    0x71, 0x3c, 0x73, 0x8d, 0x67, 0xb0, 0xd3, 0x38, 0x75, 0xae, 0x88, 0xe9, 0xfa, 0x46, 0xf5, 0xae,
    0xa6, 0x98, 0xd6, 0x94, 0x9d, 0x6d, 0x8f, 0x4e, 0x8f, 0x6e, 0xe7, 0x80, 0x62, 0x51, 0x11, 0x32,
];

/// The compiled contract, as `contracts/compile.mjs` writes it.
const CODE: &[u8] = include_bytes!("../../../../contracts/build/vault.boc");

#[cfg(test)]
mod chain_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
