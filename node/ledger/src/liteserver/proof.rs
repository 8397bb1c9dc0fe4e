//! Checking what a liteserver says against a block whose hash is believed.
//!
//! Owns: the way from a masterchain block's hash down to an account, a parameter, a transaction.
//! Must not: ask anything, or believe a byte that no hash covers.
//!
//! As in TON's `crypto/block/check-proof.cpp`. A block's root hash covers its header and the hash of
//! its state; a masterchain state's hash covers the newest block of each shard; a shard state's
//! hash covers its accounts. A server sends the cells on the path and the hashes beside it.

use cocoon_protocol::identity::{Network, TonAddress};
use tycho_types::boc::Boc;
use tycho_types::boc::de::{BocHeader, Options};
use tycho_types::cell::{Cell, CellBuilder, CellFamily as _, HashBytes, Lazy, Load as _};
use tycho_types::dict::{Dict, RawDict};
use tycho_types::error::Error as CellError;
use tycho_types::merkle::{MerkleProof, MerkleUpdate};
use tycho_types::models::{
    BlockId, BlockInfo, DepthBalanceInfo, IntAddr, OptionalAccount, ShardAccount, ShardDescription,
    ShardHashes, ShardIdent, Transaction,
};

use super::api::AccountAnswer;
use crate::address::to_std;
use crate::transaction::TransactionId;

const BLOCK: u32 = 0x11ef_55aa;
/// With updates of the message queue beside the update of the state.
const BLOCK_WITH_QUEUE: u32 = 0x11ef_55bb;
const STATE: u32 = 0x9023_afe2;
const MASTERCHAIN_EXTRA: u16 = 0xcc26;

/// Why an answer proves nothing. Each of them is a lie or a broken server, not bad luck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The bytes are no bag with the right number of cells.
    #[error("the proof is no bag of cells")]
    NotABag,
    /// The cells are no Merkle proof.
    #[error("the cells are no Merkle proof")]
    NotAProof,
    /// It proves something about another block or state.
    #[error("the proof is about another block or state than the agreed one")]
    OtherRoot,
    /// A cell on the path is left out or has another form.
    #[error("the proof lacks a cell on the path, or the cell has another form")]
    Incomplete,
    /// The block's header does not fit its name.
    #[error("the block's header does not fit its name")]
    OtherBlock,
    /// The block belongs to another network.
    #[error("the block belongs to another network")]
    OtherNetwork,
    /// The masterchain does not list that block of the shard.
    #[error("the masterchain does not list that block of the shard")]
    NotListed,
    /// The account is not the one in the proved state.
    #[error("the account is not the one that the proof shows")]
    OtherAccount,
    /// The transactions do not follow from one another.
    #[error("the transactions do not follow from one another")]
    BrokenHistory,
    /// The answer is to another question.
    #[error("the answer is to another question")]
    OtherAnswer,
}

impl From<CellError> for ProofError {
    fn from(_: CellError) -> Self {
        Self::Incomplete
    }
}

fn roots(bytes: &[u8], limits: Options) -> Result<Vec<Cell>, ProofError> {
    let header = BocHeader::decode(bytes, &limits).map_err(|_| ProofError::NotABag)?;
    let cells = header.finalize(Cell::empty_context()).map_err(|_| ProofError::NotABag)?;
    let roots = header.roots().iter().map(|root| cells.get(*root));
    roots.collect::<Option<_>>().ok_or(ProofError::NotABag)
}

fn pair(bytes: &[u8]) -> Result<(Cell, Cell), ProofError> {
    let mut roots = roots(bytes, Options::exact(2))?.into_iter();
    roots.next().zip(roots.next()).ok_or(ProofError::NotABag)
}

/// The cell that `proof` shows parts of, if its hash is `expected`.
fn open(proof: &Cell, expected: &HashBytes) -> Result<Cell, ProofError> {
    let proof = proof.parse_exotic::<MerkleProof>().map_err(|_| ProofError::NotAProof)?;
    if proof.hash != *expected {
        return Err(ProofError::OtherRoot);
    }
    Ok(Cell::virtualize(proof.cell))
}

fn child(cell: &Cell, index: u8) -> Result<Cell, ProofError> {
    cell.as_ref().reference_cloned(index).ok_or(ProofError::Incomplete)
}

/// What a block's root hash says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvedBlock {
    /// When it was made, in Unix seconds.
    pub time: u32,
    /// Hash of the state after it.
    pub state: HashBytes,
}

/// Checks a block's header against its name.
///
/// # Errors
///
/// When the proof does not lead there, or header and name do not fit.
pub fn block(proof: &Cell, id: &BlockId, network: Network) -> Result<ProvedBlock, ProofError> {
    let root = open(proof, &id.root_hash)?;
    let mut slice = root.as_slice()?;
    let tag = slice.load_u32()?;
    if slice.load_u32()?.cast_signed() != network.global_id() {
        return Err(ProofError::OtherNetwork);
    }
    let info = child(&root, 0)?.parse::<BlockInfo>()?;
    if info.seqno != id.seqno || info.shard != id.shard {
        return Err(ProofError::OtherBlock);
    }
    let update = match tag {
        BLOCK => child(&root, 2)?,
        BLOCK_WITH_QUEUE => child(&child(&root, 2)?, 0)?,
        _ => return Err(ProofError::Incomplete),
    };
    let update = update.parse_exotic::<MerkleUpdate>()?;
    Ok(ProvedBlock { time: info.gen_utime, state: update.new_hash })
}

/// As [`block`], from an answer's bytes.
///
/// # Errors
///
/// As [`block`].
pub fn header(proof: &[u8], id: &BlockId, network: Network) -> Result<ProvedBlock, ProofError> {
    let proof = Boc::decode(proof).map_err(|_| ProofError::NotABag)?;
    block(&proof, id, network)
}

/// A state of a shard, as far as the proof shows it.
#[derive(Debug)]
struct State {
    accounts: Cell,
    custom: Option<Cell>,
}

fn state(
    proof: &Cell,
    hash: &HashBytes,
    id: &BlockId,
    network: Network,
) -> Result<State, ProofError> {
    let root = open(proof, hash)?;
    let mut slice = root.as_slice()?;
    if slice.load_u32()? != STATE {
        return Err(ProofError::Incomplete);
    }
    if slice.load_u32()?.cast_signed() != network.global_id() {
        return Err(ProofError::OtherNetwork);
    }
    let shard = ShardIdent::load_from(&mut slice)?;
    let seqno = slice.load_u32()?;
    if shard != id.shard || seqno != id.seqno {
        return Err(ProofError::OtherBlock);
    }
    // Vertical number, time, logical time, oldest masterchain block, whether a split is due.
    slice.skip_first(32 + 32 + 64 + 32 + 1, 0)?;
    let custom = slice.load_bit()?.then(|| child(&root, 3)).transpose()?;
    Ok(State { accounts: child(&root, 1)?, custom })
}

/// The newest block of the shard in which `account` is, as a masterchain state lists it.
fn listed_shard(state: &State, account: TonAddress) -> Result<BlockId, ProofError> {
    let custom = state.custom.as_ref().ok_or(ProofError::Incomplete)?;
    let mut slice = custom.as_slice()?;
    if slice.load_u16()? != MASTERCHAIN_EXTRA {
        return Err(ProofError::Incomplete);
    }
    let shards = ShardHashes::load_from(&mut slice)?;
    let workchain = i32::from(account.workchain);
    let mut tree = shards.as_dict().get(workchain)?.ok_or(ProofError::NotListed)?;
    let mut shard = ShardIdent::new_full(workchain);
    // A fork for each bit of the account's hash by which the shards are split.
    loop {
        let next = {
            let mut slice = tree.as_slice()?;
            if !slice.load_bit()? {
                return Ok(ShardDescription::load_from(&mut slice)?.as_block_id(shard));
            }
            let (left, right) = shard.split().ok_or(ProofError::Incomplete)?;
            let goes_left = left.contains_account(&HashBytes(account.hash));
            shard = if goes_left { left } else { right };
            slice.get_reference_cloned(u8::from(!goes_left))?
        };
        tree = next;
    }
}

/// An account as a believed block proves it.
#[derive(Clone, Debug)]
pub struct ProvedAccount {
    /// The account, or none.
    pub account: Option<ShardAccount>,
    /// When the shard's block was made, in Unix seconds.
    pub time: u32,
}

/// Checks an account against the masterchain block `master`.
///
/// # Errors
///
/// When the answer is not proved by that block, down to the last bit of the account.
pub fn account(
    answer: &AccountAnswer,
    master: &BlockId,
    address: TonAddress,
    network: Network,
) -> Result<ProvedAccount, ProofError> {
    if answer.block != *master {
        return Err(ProofError::OtherAnswer);
    }
    let shard = if address.workchain == -1 {
        *master
    } else {
        let (block_proof, state_proof) = pair(&answer.shard_proof)?;
        let proved = block(&block_proof, master, network)?;
        listed_shard(&state(&state_proof, &proved.state, master, network)?, address)?
    };
    if answer.shard != shard {
        return Err(ProofError::NotListed);
    }
    let (block_proof, state_proof) = pair(&answer.proof)?;
    let proved = block(&block_proof, &shard, network)?;
    let state = state(&state_proof, &proved.state, &shard, network)?;
    let leaf = leaf(&state.accounts, address)?;
    let account = match leaf {
        None if answer.state.is_empty() => None,
        None => return Err(ProofError::OtherAccount),
        Some(leaf) => Some(full_account(&leaf, &answer.state, address)?),
    };
    Ok(ProvedAccount { account, time: proved.time })
}

/// What the accounts' dictionary holds for an account.
struct Leaf {
    account: HashBytes,
    last: TransactionId,
}

fn leaf(accounts: &Cell, address: TonAddress) -> Result<Option<Leaf>, ProofError> {
    let mut slice = accounts.as_slice()?;
    let dictionary = RawDict::<256>::load_from(&mut slice)?;
    let key = CellBuilder::build_from(HashBytes(address.hash))?;
    let Some(mut leaf) = dictionary.get(key.as_slice()?)? else {
        return Ok(None);
    };
    DepthBalanceInfo::load_from(&mut leaf)?;
    let account = leaf.load_reference_cloned()?;
    let hash = leaf.load_u256()?.0;
    let lt = leaf.load_u64()?;
    Ok(Some(Leaf { account: *account.as_ref().hash(0), last: TransactionId { lt, hash } }))
}

fn full_account(
    leaf: &Leaf,
    state: &[u8],
    address: TonAddress,
) -> Result<ShardAccount, ProofError> {
    let cell = Boc::decode(state).map_err(|_| ProofError::NotABag)?;
    // The hash of a tree with left-out parts is not that of the whole.
    if cell.as_ref().level() != 0 || *cell.repr_hash() != leaf.account {
        return Err(ProofError::OtherAccount);
    }
    let account = Lazy::<OptionalAccount>::from_raw(cell)?;
    let owner = account.load()?.0.map(|account| account.address);
    if owner != Some(IntAddr::Std(to_std(address))) {
        return Err(ProofError::OtherAccount);
    }
    Ok(ShardAccount {
        account,
        last_trans_hash: HashBytes(leaf.last.hash),
        last_trans_lt: leaf.last.lt,
    })
}

/// The network's parameters, from the state of the masterchain block `master`. Those that the
/// proof leaves out are missing in a way that reading them is an error.
///
/// # Errors
///
/// When the proofs do not lead there.
pub fn config(
    state_proof: &[u8],
    config_proof: &[u8],
    master: &BlockId,
    network: Network,
) -> Result<Cell, ProofError> {
    let proved = header(state_proof, master, network)?;
    let proof = Boc::decode(config_proof).map_err(|_| ProofError::NotABag)?;
    let state = state(&proof, &proved.state, master, network)?;
    let custom = state.custom.ok_or(ProofError::Incomplete)?;
    let mut slice = custom.as_slice()?;
    if slice.load_u16()? != MASTERCHAIN_EXTRA {
        return Err(ProofError::Incomplete);
    }
    Dict::<i32, Cell>::load_from(&mut slice)?;
    // The address of the contract that changes the parameters.
    slice.load_u256()?;
    let root = slice.load_reference_cloned()?;
    // Out of the proof, so that it is an ordinary tree again.
    let whole = Boc::encode(&root);
    let whole = Boc::decode(whole).map_err(|_| ProofError::NotABag)?;
    if whole.as_ref().level() != 0 || whole.repr_hash() != root.as_ref().hash(0) {
        return Err(ProofError::Incomplete);
    }
    Ok(whole)
}

/// Checks that `bytes` holds the transaction `newest` of `address` and those before it, in order;
/// at most `limit`.
///
/// # Errors
///
/// When one of them is not the one that the transaction after it names.
pub fn transactions(
    bytes: &[u8],
    address: TonAddress,
    newest: TransactionId,
    limit: usize,
) -> Result<Vec<Cell>, ProofError> {
    let limits = Options { min_roots: Some(1), max_roots: Some(limit) };
    let mut next = newest;
    let mut found = Vec::new();
    for cell in roots(bytes, limits)? {
        if cell.as_ref().level() != 0 || cell.repr_hash().0 != next.hash {
            return Err(ProofError::BrokenHistory);
        }
        let transaction = cell.parse::<Transaction>()?;
        if transaction.lt != next.lt || transaction.account.0 != address.hash {
            return Err(ProofError::BrokenHistory);
        }
        next = TransactionId { lt: transaction.prev_trans_lt, hash: transaction.prev_trans_hash.0 };
        found.push(cell);
    }
    Ok(found)
}
