//! The only door between bytes and meaning.
//!
//! Owns: conversion between the generated messages and the domain types, and every refusal of
//! hostile input. Whoever holds a domain type may rely on its bounds.
//! Must not: verify signatures or decide anything; it says what bytes mean.

mod error;
mod offer;
mod session;

pub use error::DecodeError;
pub use offer::{decode_offer, decode_signed_offer, encode_offer, encode_signed_offer};
pub use session::{JobRequest, SessionMessage};

use crate::attest::Tier;
use crate::identity::TonAddress;
use cocoon_proto::v1 as proto;

/// A field of exactly 32 bytes.
fn bytes32(field: &'static str, bytes: &[u8]) -> Result<[u8; 32], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::WrongLength { field, length: bytes.len() })
}

/// A field of exactly 64 bytes.
fn bytes64(field: &'static str, bytes: &[u8]) -> Result<[u8; 64], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::WrongLength { field, length: bytes.len() })
}

fn address(field: &'static str, workchain: i32, account: &[u8]) -> Result<TonAddress, DecodeError> {
    let workchain = i8::try_from(workchain).map_err(|_| DecodeError::OutOfRange { field })?;
    Ok(TonAddress { workchain, hash: bytes32(field, account)? })
}

/// Text from a peer: bounded, and free of control characters, because it reaches terminals.
fn text(field: &'static str, text: String, limit: usize) -> Result<String, DecodeError> {
    if text.len() > limit {
        return Err(DecodeError::TooLong { field, length: text.len(), limit });
    }
    if text.chars().any(char::is_control) {
        return Err(DecodeError::ControlCharacter { field });
    }
    Ok(text)
}

const fn tier_to_wire(tier: Tier) -> proto::Tier {
    match tier {
        Tier::Open => proto::Tier::Open,
        Tier::Attested => proto::Tier::Attested,
        Tier::Confidential => proto::Tier::Confidential,
    }
}

fn tier_from_wire(field: &'static str, tier: i32) -> Result<Tier, DecodeError> {
    match proto::Tier::try_from(tier) {
        Ok(proto::Tier::Open) => Ok(Tier::Open),
        Ok(proto::Tier::Attested) => Ok(Tier::Attested),
        Ok(proto::Tier::Confidential) => Ok(Tier::Confidential),
        Ok(proto::Tier::Unspecified) | Err(_) => Err(DecodeError::OutOfRange { field }),
    }
}
