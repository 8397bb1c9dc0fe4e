//! Merkle proofs of the embedded chain's blocks and states, cut as a C++ liteserver cuts them.
//!
//! Owns: which cells a proof shows.
//! Must not: check proofs; the client's `liteserver::proof` does, and it shares no code with this.

use tycho_types::boc::ser::BocHeader;
use tycho_types::cell::{Cell, CellBuilder, HashBytes, UsageTree, UsageTreeMode};
use tycho_types::dict::RawDict;
use tycho_types::error::Error as CellError;
use tycho_types::merkle::MerkleProof;
use tycho_types::models::{ShardAccount, ShardAccounts};

/// References of a block's root.
const BLOCK_INFO: u8 = 0;
const BLOCK_STATE_UPDATE: u8 = 2;
/// References of a state's root.
const STATE_ACCOUNTS: u8 = 1;
const STATE_CUSTOM: u8 = 3;
/// References of the masterchain's part of a state.
const CUSTOM_SHARDS: u8 = 0;
const CUSTOM_CONFIG: u8 = 1;

/// Several roots as one bag of cells.
pub(super) fn bag(roots: &[Cell]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut header = BocHeader::<std::hash::RandomState>::with_capacity(16);
    for root in roots {
        header.add_root(root.as_ref());
    }
    header.encode(&mut bytes);
    bytes
}

/// A proof of all cells of `root` that `look` touches.
fn prove(
    root: &Cell,
    look: impl FnOnce(&Cell) -> Result<(), CellError>,
) -> Result<Cell, CellError> {
    let usage = UsageTree::new(UsageTreeMode::OnLoad);
    let tracked = usage.track(root);
    look(&tracked)?;
    let proof = MerkleProof::create(root.as_ref(), usage).build()?;
    CellBuilder::build_from(&proof)
}

fn child(cell: &Cell, index: u8) -> Result<Cell, CellError> {
    cell.as_ref().reference_cloned(index).ok_or(CellError::CellUnderflow)
}

fn touch_all(cell: &Cell) {
    for index in 0..cell.as_ref().reference_count() {
        if let Some(child) = cell.as_ref().reference_cloned(index) {
            touch_all(&child);
        }
    }
}

/// The header of a block, and the hash of its state.
pub(super) fn header(block: &Cell) -> Result<Cell, CellError> {
    prove(block, |block| {
        touch_all(&child(block, BLOCK_INFO)?);
        child(block, BLOCK_STATE_UPDATE).map(|_| ())
    })
}

/// The shards that a masterchain state lists.
pub(super) fn shards(state: &Cell) -> Result<Cell, CellError> {
    prove(state, |state| {
        touch_all(&child(&child(state, STATE_CUSTOM)?, CUSTOM_SHARDS)?);
        Ok(())
    })
}

/// The list of shards itself, as `ShardHashes`.
pub(super) fn shard_hashes(state: &Cell) -> Result<Cell, CellError> {
    let mut list = CellBuilder::new();
    list.store_bit_one()?;
    list.store_reference(child(&child(state, STATE_CUSTOM)?, CUSTOM_SHARDS)?)?;
    list.build()
}

/// The parameters that a masterchain state holds: these, or all.
pub(super) fn config(state: &Cell, parameters: Option<&[u32]>) -> Result<Cell, CellError> {
    prove(state, |state| {
        let root = child(&child(state, STATE_CUSTOM)?, CUSTOM_CONFIG)?;
        match parameters {
            None => touch_all(&root),
            Some(parameters) => {
                let known = tycho_types::dict::Dict::<u32, Cell>::from_raw(Some(root));
                for parameter in parameters {
                    if let Some(value) = known.get(*parameter)? {
                        touch_all(&value);
                    }
                }
            }
        }
        Ok(())
    })
}

/// An account in a state, or that there is none; with the account.
pub(super) fn account(
    state: &Cell,
    account: HashBytes,
) -> Result<(Cell, Option<ShardAccount>), CellError> {
    let accounts = child(state, STATE_ACCOUNTS)?.parse::<ShardAccounts>()?;
    let found = accounts.get(account)?.map(|(_, found)| found);
    let key = CellBuilder::build_from(account)?;
    let proof = prove(state, |state| {
        // The path to the leaf; the account itself goes beside the proof.
        let path = child(state, STATE_ACCOUNTS)?.as_ref().reference_cloned(0);
        RawDict::<256>::from(path).get(key.as_slice()?).map(|_| ())
    })?;
    Ok((proof, found))
}
