//! Wallets: the 24 words that a person keeps, and the contract that holds the money.
//!
//! Owns: TON's mnemonic scheme, the messages of wallet version 5, release 1, and the address of
//! version 4, release 2.
//! Must not: store keys or words, or log them; both are wiped from memory when dropped.

mod mnemonic;
mod v4r2;
mod v5r1;

pub use mnemonic::{Mnemonic, MnemonicError, NoRandomness, WORDS};
pub use v4r2::v4r2_address;
pub use v5r1::{MAX_TRANSFERS, Wallet, WalletError};
pub(crate) use v5r1::{is_wallet, seqno_of};
