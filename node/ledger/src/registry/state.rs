//! A registry's state, read from its account and believed only when it is whole.
//!
//! Owns: the parser of the contract's data cell, bounded by what the contract allows.
//! Must not: fetch anything, or show a name as it is: names come from strangers.

use std::collections::BTreeMap;

use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::Timestamp;
use tycho_types::cell::{Cell, CellSlice, HashBytes};
use tycho_types::dict::RawDict;
use tycho_types::error::Error;

use super::CODE_HASH;
use super::message::NAME_BYTES;
use crate::vault::cell::Reader;

/// Bounds of `contracts/registry/storage.tolk`.
const MODELS: usize = 256;
const MAINTAINERS: usize = 16;
const MEASUREMENTS: usize = 32;
const FEE_BASIS_POINTS: u16 = 1_000;
const KEY_BITS: u16 = 256;

/// Why an account is not a registry that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadRegistryError {
    /// Another contract, or another version of the registry.
    #[error("it runs code {found:?}, which is not the registry that this version knows")]
    UnknownCode {
        /// Hash of what it runs.
        found: HashBytes,
    },
    /// Made for another network.
    #[error("it was made for the network with id {id}, not for this one")]
    OtherNetwork {
        /// Whose it is.
        id: i32,
    },
    /// The data cell is not one that the contract writes.
    #[error("its data cannot be read; is the ledger's answer complete?")]
    Malformed,
    /// Fields of the data cell contradict one another, or the contract's bounds.
    #[error("its data contradicts itself in its {field}")]
    Inconsistent {
        /// Which field.
        field: &'static str,
    },
}

impl From<Error> for ReadRegistryError {
    fn from(_: Error) -> Self {
        Self::Malformed
    }
}

/// What the network takes of what providers are paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fee {
    /// In hundredths of a percent.
    pub basis_points: u16,
    /// Where it goes; never `None` with a fee.
    pub treasury: Option<TonAddress>,
}

/// A fee that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingFee {
    /// Which.
    pub fee: Fee,
    /// From then on anyone may put it in force.
    pub not_before: Timestamp,
}

/// What a maintainer has published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// What was measured, in the maintainer's words; see [`displayable`].
    pub name: String,
    /// When.
    pub published_at: Timestamp,
}

/// Somebody who publishes measurements that it has checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintainer {
    /// Who, in the owner's words; see [`displayable`].
    pub name: String,
    /// By the hash of a set of measurements.
    pub measurements: BTreeMap<[u8; 32], Measurement>,
}

/// What a registry remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryState {
    /// One more with every change.
    pub version: u32,
    /// Nodes below this version of the protocol should update.
    pub minimum_protocol: u32,
    /// What vaults that are made now copy.
    pub fee: Fee,
    /// What was announced to come next.
    pub pending_fee: Option<PendingFee>,
    /// Who may change it.
    pub owner: TonAddress,
    /// Who was proposed and has not accepted yet.
    pub pending_owner: Option<TonAddress>,
    /// Seconds between announcing a fee and putting it in force.
    pub timelock: u32,
    /// Tells the registries of one owner apart.
    pub salt: u64,
    /// Names by the SHA-256 of the weights file; see [`displayable`].
    pub models: BTreeMap<[u8; 32], String>,
    /// By account.
    pub maintainers: BTreeMap<TonAddress, Maintainer>,
}

impl RegistryState {
    /// Reads a registry of `network` from its account's `code` and `data`.
    ///
    /// # Errors
    ///
    /// When the account is no registry of this version and network, or its data is damaged.
    pub fn read(network: Network, code: &Cell, data: &Cell) -> Result<Self, ReadRegistryError> {
        let found = *code.repr_hash();
        if found != HashBytes(CODE_HASH) {
            return Err(ReadRegistryError::UnknownCode { found });
        }
        let mut reader = Reader::new(data)?;
        let version = reader.u32()?;
        let minimum_protocol = reader.u32()?;
        let fee = read_fee(&mut reader)?;
        let pending_fee = if reader.bit()? {
            let fee = read_fee(&mut reader)?;
            Some(PendingFee { fee, not_before: second(reader.u32()?) })
        } else {
            None
        };
        let governance = reader.reference()?;
        let model_count = reader.u16()?;
        let models = reader.optional_reference()?;
        let maintainer_count = reader.u8()?;
        let maintainers = reader.optional_reference()?;
        reader.finish()?;

        let mut reader = Reader::new(&governance)?;
        let owner = reader.address()?;
        let pending_owner = reader.optional_address()?;
        let timelock = reader.u32()?;
        let id = reader.u32()?.cast_signed();
        let salt = reader.u64()?;
        reader.finish()?;
        if id != network.global_id() {
            return Err(ReadRegistryError::OtherNetwork { id });
        }
        let models = entries(models, MODELS, "models", read_model)?;
        let maintainers = entries(maintainers, MAINTAINERS, "maintainers", read_maintainer)?;
        let counted = models.len() == usize::from(model_count)
            && maintainers.len() == usize::from(maintainer_count);
        if !counted {
            return Err(ReadRegistryError::Inconsistent { field: "counts" });
        }
        let account = |hash| TonAddress { workchain: 0, hash };
        let maintainers =
            maintainers.into_iter().map(|(hash, entry)| (account(hash), entry)).collect();
        Ok(Self {
            version,
            minimum_protocol,
            fee,
            pending_fee,
            owner,
            pending_owner,
            timelock,
            salt,
            models,
            maintainers,
        })
    }
}

fn second(seconds: u32) -> Timestamp {
    Timestamp::from_unix_secs(u64::from(seconds))
}

fn read_fee(reader: &mut Reader<'_>) -> Result<Fee, ReadRegistryError> {
    let basis_points = reader.u16()?;
    let hash = reader.bytes32()?;
    let treasury = (hash != [0; 32]).then_some(TonAddress { workchain: 0, hash });
    if basis_points > FEE_BASIS_POINTS || (basis_points > 0 && treasury.is_none()) {
        return Err(ReadRegistryError::Inconsistent { field: "fee" });
    }
    Ok(Fee { basis_points, treasury })
}

/// A map of the contract; one with more than it allows is damaged, and not read to its end.
fn entries<T>(
    map: Option<Cell>,
    most: usize,
    field: &'static str,
    read: impl Fn(CellSlice<'_>) -> Result<T, ReadRegistryError>,
) -> Result<BTreeMap<[u8; 32], T>, ReadRegistryError> {
    let map = RawDict::<KEY_BITS>::from(map);
    let mut entries = BTreeMap::new();
    for entry in map.iter() {
        let (key, value) = entry?;
        let HashBytes(key) = key.as_data_slice().load_u256()?;
        if entries.len() >= most {
            return Err(ReadRegistryError::Inconsistent { field });
        }
        entries.insert(key, read(value)?);
    }
    Ok(entries)
}

fn read_name(reader: &mut Reader<'_>) -> Result<String, ReadRegistryError> {
    let cell = reader.reference()?;
    let mut slice = cell.as_slice()?;
    let bits = slice.size_bits();
    let length = usize::from(bits / 8);
    let whole = (1..=NAME_BYTES).contains(&length) && bits % 8 == 0 && slice.size_refs() == 0;
    if !whole {
        return Err(ReadRegistryError::Inconsistent { field: "names" });
    }
    let mut bytes = vec![0; length];
    slice.load_raw(&mut bytes, bits)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read_model(value: CellSlice<'_>) -> Result<String, ReadRegistryError> {
    let mut reader = Reader::of(value);
    let name = read_name(&mut reader)?;
    reader.finish()?;
    Ok(name)
}

fn read_maintainer(value: CellSlice<'_>) -> Result<Maintainer, ReadRegistryError> {
    let mut reader = Reader::of(value);
    let name = read_name(&mut reader)?;
    let count = reader.u8()?;
    let measurements = reader.optional_reference()?;
    reader.finish()?;
    let measurements = entries(measurements, MEASUREMENTS, "measurements", read_measurement)?;
    if measurements.len() != usize::from(count) {
        return Err(ReadRegistryError::Inconsistent { field: "counts" });
    }
    Ok(Maintainer { name, measurements })
}

fn read_measurement(value: CellSlice<'_>) -> Result<Measurement, ReadRegistryError> {
    let mut reader = Reader::of(value);
    let name = read_name(&mut reader)?;
    let published_at = second(reader.u32()?);
    reader.finish()?;
    Ok(Measurement { name, published_at })
}

/// A name that a terminal shows as it is: what would move its cursor or hide text is replaced.
pub fn displayable(name: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    name.chars().map(|c| if hidden(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
