//! TON's own protocol for reading a chain: questions to liteservers, answers with proofs.
//!
//! Owns: the wire ([`adnl`], [`tl`], [`api`]), checking ([`proof`]), and the client,
//! [`Liteservers`].
//! Must not: believe one liteserver. What it says counts when a proof leads to it from a
//! masterchain block that enough liteservers of different operators name.
//!
//! Not yet: the validators' signatures on that block, with which one honest liteserver would do.

pub mod adnl;
mod agreement;
pub mod api;
mod client;
mod connection;
pub mod proof;
mod servers;
pub mod tl;

pub use client::{Liteservers, Options, OptionsError};
pub use servers::{GlobalConfig, ServerAddress, ServersError, known_zero_state};
