//! Wallets: the 24 words that a person keeps, and the contract that holds the money.
//!
//! Owns: TON's mnemonic scheme, and the messages of wallet version 5, release 1.
//! Must not: store keys or words, or log them; both are wiped from memory when dropped.

mod mnemonic;
mod v5r1;

pub use mnemonic::{Mnemonic, MnemonicError, NoRandomness, WORDS};
pub use v5r1::{MAX_TRANSFERS, Wallet, WalletError};
pub(crate) use v5r1::{is_wallet, seqno_of};
