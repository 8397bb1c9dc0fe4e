//! A vault's state, read from its account and believed only when it is whole.
//!
//! Owns: the parser of the contract's data cell, and every check that a provider owes itself
//! before it serves against an allocation.
//! Must not: fetch anything, or repair what does not fit.

use std::collections::{BTreeMap, BTreeSet};

use cocoon_protocol::channel::{Allocation, VaultPublicKey};
use cocoon_protocol::identity::{NodeId, TonAddress};
use cocoon_protocol::limits::{VAULT_ALLOCATIONS, VAULT_RESERVE};
use cocoon_protocol::units::{NanoTon, Timestamp};
use tycho_types::cell::{Cell, CellSlice, HashBytes};
use tycho_types::dict::RawDict;
use tycho_types::error::Error;

use super::CODE_HASH;
use super::cell::Reader;
use super::deployment::Deployment;

const KEY_BITS: u16 = 256;

/// Why an account is not a vault whose state can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadVaultError {
    /// Another contract, or another version of the vault.
    #[error("the account runs code {found:?}, which is not the vault that this version knows")]
    UnknownCode {
        /// Hash of what it runs.
        found: HashBytes,
    },
    /// The vault's address does not follow from its parameters and the empty initial state. It was
    /// started with a state of its maker's choice, and its promises may be covered by nothing.
    #[error("the vault did not start empty: its address does not follow from its parameters")]
    ForgedStart,
    /// The data cell is not one that the contract writes.
    #[error("the vault's data cannot be read; is the ledger's answer complete?")]
    Malformed,
    /// Fields of the data cell contradict one another.
    #[error("the vault's data contradicts itself in its {field}")]
    Inconsistent {
        /// Which field.
        field: &'static str,
    },
}

impl From<Error> for ReadVaultError {
    fn from(_: Error) -> Self {
        Self::Malformed
    }
}

/// What a vault remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultState {
    /// What it was made with.
    pub deployment: Deployment,
    /// The hot key in force: signs orders, and the vouchers of new allocations.
    pub key: VaultPublicKey,
    /// Seqno of the next order.
    pub seqno: u32,
    /// Epoch of the next new allocation.
    pub next_epoch: u32,
    /// Money set aside: Σ (limit − paid).
    pub reserved: NanoTon,
    /// The network's fee that waits to be swept.
    pub accrued: NanoTon,
    /// UTC day, counted from 1970, of the hot key's last allocation.
    pub day: u32,
    /// What the hot key allocated on that day.
    pub allocated_today: NanoTon,
    /// What is set aside for whom.
    pub allocations: BTreeMap<NodeId, Allocation>,
    /// The keys of those allocations that were made under an earlier one than [`Self::key`].
    pub former_keys: BTreeMap<NodeId, VaultPublicKey>,
}

impl VaultState {
    /// Reads the account at `address` from its `code` and `data`.
    ///
    /// # Errors
    ///
    /// When the account is not a vault of this version that started empty, or its data is damaged.
    pub fn read(address: TonAddress, code: &Cell, data: &Cell) -> Result<Self, ReadVaultError> {
        let found = *code.repr_hash();
        if found != HashBytes(CODE_HASH) {
            return Err(ReadVaultError::UnknownCode { found });
        }
        let mut reader = Reader::new(data)?;
        let reserved = reader.amount()?;
        let accrued = reader.amount()?;
        let map = reader.optional_reference()?;
        let deployment = Deployment::read(&reader.reference()?)?;
        let terms = reader.reference()?;
        let seqno = reader.u32()?;
        let next_epoch = reader.u32()?;
        let count = reader.u8()?;
        let day = reader.u32()?;
        let allocated_today = reader.amount()?;
        reader.finish()?;
        if deployment.address() != Ok(address) {
            return Err(ReadVaultError::ForgedStart);
        }
        let key = deployment.read_terms(&terms)?;
        let mut former_keys = BTreeMap::new();
        let mut allocations = BTreeMap::new();
        for (provider, (allocation, terms)) in read_allocations(map)? {
            let made_under = deployment.read_terms(&terms)?;
            if made_under != key {
                former_keys.insert(provider, made_under);
            }
            allocations.insert(provider, allocation);
        }
        let state = Self {
            deployment,
            key,
            seqno,
            next_epoch,
            reserved,
            accrued,
            day,
            allocated_today,
            allocations,
            former_keys,
        };
        if state.allocations.len() != usize::from(count) {
            return Err(ReadVaultError::Inconsistent { field: "count of allocations" });
        }
        state.check()?;
        Ok(state)
    }

    /// What the contract guarantees of its own state. Damage is caught here, not by a client that
    /// computes with it.
    fn check(&self) -> Result<(), ReadVaultError> {
        let inconsistent = |field| Err(ReadVaultError::Inconsistent { field });
        let mut epochs = BTreeSet::new();
        let mut owed = Some(NanoTon::ZERO);
        for allocation in self.allocations.values() {
            let Some(remainder) = allocation.limit.checked_sub(allocation.paid) else {
                return inconsistent("paid amounts");
            };
            owed = owed.and_then(|sum| sum.checked_add(remainder));
            if !epochs.insert(allocation.epoch) || !(1..self.next_epoch).contains(&allocation.epoch)
            {
                return inconsistent("epochs");
            }
        }
        if owed != Some(self.reserved) {
            return inconsistent("reserved amount");
        }
        Ok(())
    }

    /// The key that signs the vouchers of this provider's allocation: the one that was in force when
    /// it was made, or for a new one the one in force.
    pub fn key_of(&self, provider: &NodeId) -> &VaultPublicKey {
        self.former_keys.get(provider).unwrap_or(&self.key)
    }

    /// What of `balance` may be allocated or withdrawn, less the gas of doing so.
    #[must_use]
    pub fn free(&self, balance: NanoTon) -> NanoTon {
        [self.reserved, self.accrued, VAULT_RESERVE]
            .into_iter()
            .fold(balance, NanoTon::saturating_sub)
    }

    /// Whether `balance` covers every promise. While it does not, the contract settles nothing for
    /// anybody; a plain transfer mends it.
    pub fn is_covered(&self, balance: NanoTon) -> bool {
        let needed = self.reserved.checked_add(self.accrued);
        needed.is_some_and(|needed| balance >= needed)
    }
}

/// Each with the terms that it was made under.
type Entry = (Allocation, Cell);

fn read_allocations(map: Option<Cell>) -> Result<BTreeMap<NodeId, Entry>, ReadVaultError> {
    let map = RawDict::<KEY_BITS>::from(map);
    let mut allocations = BTreeMap::new();
    // The contract holds no more; one that does is damaged, and is not read to its end.
    for entry in map.iter() {
        let (key, value) = entry?;
        let HashBytes(provider) = key.as_data_slice().load_u256()?;
        if allocations.len() >= VAULT_ALLOCATIONS {
            return Err(ReadVaultError::Inconsistent { field: "count of allocations" });
        }
        allocations.insert(NodeId::from_bytes(provider), read_allocation(value)?);
    }
    Ok(allocations)
}

fn read_allocation(value: CellSlice<'_>) -> Result<Entry, Error> {
    let mut reader = Reader::of(value);
    let payout = TonAddress { workchain: 0, hash: reader.bytes32()? };
    let limit = reader.amount()?;
    let paid = reader.amount()?;
    let epoch = reader.u32()?;
    let unlock_at = reader.u32()?;
    let receipts_root = reader.bytes32()?;
    let terms = reader.reference()?;
    reader.finish()?;
    let allocation = Allocation {
        payout,
        limit,
        paid,
        epoch,
        unlock_at: (unlock_at != 0).then(|| Timestamp::from_unix_secs(u64::from(unlock_at))),
        receipts_root,
    };
    Ok((allocation, terms))
}
