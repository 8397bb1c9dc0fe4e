//! Making blocks out of what the chain did, and keeping them for those who ask for proofs.
//!
//! Owns: the tables of blocks, the accounts as of the newest block, and the newest states.
//! Must not: change an account.
//!
//! A message has its effect at once; a block is made when somebody asks for one, and when much has
//! happened since the last. What changed since then is on disk, so that a process killed at any
//! point continues with the same newest block.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cocoon_protocol::identity::TonAddress;
use redb::{Database, Table, TableDefinition, WriteTransaction};
use redb::{ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};
use tycho_types::boc::{Boc, BocRepr};
use tycho_types::cell::Cell;
use tycho_types::error::Error as CellError;
use tycho_types::models::ShardAccount;

use super::blocks::{Accounts, Builder, Contents, Pair, Sealed};
use super::chain::{
    ACCOUNTS, Head, TRANSACTIONS, account_key, decode_account, seconds, storage, transaction_key,
};
use crate::port::LedgerError;

/// Number to [`Sealed`], as JSON.
const SEALED: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("sealed");
/// Number to the two blocks, masterchain first, as one bag of cells.
const BLOCKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("blocks");
/// Account to its state as of the newest block, for accounts that changed since.
const CHANGED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("changed");
/// Logical time of a transaction since the newest block, to its account.
const UNSEALED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("unsealed");

/// Transactions after which a block is made even if nobody asks.
const TRANSACTIONS_IN_A_BLOCK: u64 = 256;
/// Blocks kept whole. The real network's ordinary liteservers keep about as many minutes.
const KEPT_BLOCKS: u32 = 4_096;
/// Names of blocks kept, by which transactions and times are found.
const KEPT_NAMES: u32 = 65_536;
/// Blocks whose states can be asked for. States share what did not change.
const KEPT_STATES: usize = 128;

pub(super) type Changed<'t> = Table<'t, &'static [u8], &'static [u8]>;
pub(super) type Unsealed<'t> = Table<'t, u64, &'static [u8]>;

/// The newest blocks and the accounts behind them.
#[derive(Debug)]
pub(super) struct Seals {
    builder: Builder,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// As of the newest block.
    accounts: Accounts,
    zero: Arc<Pair>,
    newest: Arc<Pair>,
    /// Newest last.
    states: VecDeque<Arc<Pair>>,
}

impl Known {
    fn push(&mut self, pair: Arc<Pair>) {
        self.newest = Arc::clone(&pair);
        self.states.push_back(pair);
        if self.states.len() > KEPT_STATES {
            self.states.pop_front();
        }
    }
}

fn cells(error: CellError) -> LedgerError {
    LedgerError::Execution(error.into())
}

const DAMAGED: LedgerError = LedgerError::Damaged { part: "block" };

/// Remembers what changed, inside the write transaction that changes it.
pub(super) fn note(
    changed: &mut Changed<'_>,
    unsealed: &mut Unsealed<'_>,
    key: &[u8],
    before: &ShardAccount,
    lt: u64,
) -> Result<(), LedgerError> {
    if changed.get(key).map_err(storage)?.is_none() {
        let state = BocRepr::encode(before).map_err(cells)?;
        changed.insert(key, state.as_slice()).map_err(storage)?;
    }
    unsealed.insert(lt, key).map_err(storage)?;
    Ok(())
}

pub(super) fn open_changed(transaction: &WriteTransaction) -> Result<Changed<'_>, LedgerError> {
    transaction.open_table(CHANGED).map_err(storage)
}

pub(super) fn open_unsealed(transaction: &WriteTransaction) -> Result<Unsealed<'_>, LedgerError> {
    transaction.open_table(UNSEALED).map_err(storage)
}

/// Makes the tables; in a chain from before there were blocks, every account is new to them.
pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), LedgerError> {
    let sealed = transaction.open_table(SEALED).map_err(storage)?;
    transaction.open_table(BLOCKS).map_err(storage)?;
    let mut changed = open_changed(transaction)?;
    open_unsealed(transaction)?;
    if sealed.is_empty().map_err(storage)? && changed.is_empty().map_err(storage)? {
        let absent = BocRepr::encode(super::execute::absent().map_err(cells)?).map_err(cells)?;
        let accounts = transaction.open_table(ACCOUNTS).map_err(storage)?;
        for entry in accounts.iter().map_err(storage)? {
            let (key, _) = entry.map_err(storage)?;
            changed.insert(key.value(), absent.as_slice()).map_err(storage)?;
        }
    }
    Ok(())
}

impl Seals {
    /// Reads the newest block and builds its states again from the accounts.
    pub(super) fn open(database: &Database, builder: Builder) -> Result<Self, LedgerError> {
        let transaction = database.begin_read().map_err(storage)?;
        let sealed = transaction.open_table(SEALED).map_err(storage)?;
        let blocks = transaction.open_table(BLOCKS).map_err(storage)?;
        let accounts = transaction.open_table(ACCOUNTS).map_err(storage)?;
        let changed = transaction.open_table(CHANGED).map_err(storage)?;
        let zero = Arc::new(builder.zero().map_err(cells)?);
        let mut known = Accounts::new();
        for entry in accounts.iter().map_err(storage)? {
            let (key, value) = entry.map_err(storage)?;
            let before = changed.get(key.value()).map_err(storage)?;
            let state = match &before {
                Some(before) => decode_account(Some(before.value()))?,
                None => decode_account(Some(value.value()))?,
            };
            known.set(address_of(key.value())?, &state).map_err(cells)?;
        }
        let newest = match sealed.last().map_err(storage)? {
            None => Arc::clone(&zero),
            Some((number, value)) => {
                let sealed: Sealed = serde_json::from_slice(value.value()).map_err(|_| DAMAGED)?;
                let pair = blocks.get(number.value()).map_err(storage)?.ok_or(DAMAGED)?;
                let (master_block, shard_block) =
                    Boc::decode_pair(pair.value()).map_err(|_| DAMAGED)?;
                let (shard_state, master_state) = builder.states(&sealed, &known).map_err(cells)?;
                Arc::new(Pair { sealed, master_block, shard_block, master_state, shard_state })
            }
        };
        let mut known =
            Known { accounts: known, zero, newest: Arc::clone(&newest), states: VecDeque::new() };
        // After a change of this software or of its parameters the states are others than the
        // newest block says. Proofs then begin with the next block.
        if newest.commits_to_its_states() {
            known.states.push_back(newest);
        }
        Ok(Self { builder, known: Mutex::new(known) })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Only whole values are put in, so it is whole even if a thread died with the lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest block.
    pub(super) fn newest(&self) -> Arc<Pair> {
        Arc::clone(&self.lock().newest)
    }

    /// Whether proofs can be made from the newest block.
    fn is_provable(&self) -> bool {
        let known = self.lock();
        known.states.back().is_some_and(|pair| Arc::ptr_eq(pair, &known.newest))
    }

    /// The states before the first block.
    pub(super) fn zero(&self) -> Arc<Pair> {
        Arc::clone(&self.lock().zero)
    }

    /// A block whose states are still there.
    pub(super) fn with_states(&self, seqno: u32) -> Option<Arc<Pair>> {
        let known = self.lock();
        known.states.iter().rev().find(|pair| pair.sealed.seqno == seqno).cloned()
    }

    /// Makes a block if anything happened since the newest, or if that is older than `age`
    /// seconds at `now`.
    pub(super) fn seal(
        &self,
        database: &Database,
        head: impl FnOnce(&WriteTransaction) -> Result<Head, LedgerError>,
        put_head: impl FnOnce(&WriteTransaction, &Head) -> Result<(), LedgerError>,
        now: u32,
        age: u32,
    ) -> Result<Arc<Pair>, LedgerError> {
        let transaction = database.begin_write().map_err(storage)?;
        let newest = self.newest();
        let mut head = head(&transaction)?;
        let contents = collect(&transaction, &head, now)?;
        let is_new = !contents.changed.is_empty();
        let is_old = now.saturating_sub(newest.sealed.time) >= age;
        if newest.sealed.seqno > 0 && self.is_provable() && !is_new && !is_old {
            return Ok(newest);
        }
        let before = self.lock().accounts.clone();
        let mut accounts = before.clone();
        for (address, state) in &contents.changed {
            accounts.set(*address, state).map_err(cells)?;
        }
        let states = (&newest.shard_state, &newest.master_state);
        let pair =
            self.builder.next(&newest.sealed, states, &before, &accounts, &contents.contents);
        let pair = Arc::new(pair.map_err(cells)?);
        // The next transaction comes after the block.
        head.lt = head.lt.max(pair.sealed.end_lt);
        put_head(&transaction, &head)?;
        write(&transaction, &pair)?;
        // Held over both: whoever writes next must find the block that has taken what happened, or it
        // would take the one before for the newest, or make the same block again.
        let mut known = self.lock();
        transaction.commit().map_err(storage)?;
        known.accounts = accounts;
        known.push(Arc::clone(&pair));
        Ok(pair)
    }
}

struct Collected {
    changed: Vec<(TonAddress, ShardAccount)>,
    contents: Contents,
}

fn collect(
    transaction: &WriteTransaction,
    head: &Head,
    now: u32,
) -> Result<Collected, LedgerError> {
    let accounts = transaction.open_table(ACCOUNTS).map_err(storage)?;
    let history = transaction.open_table(TRANSACTIONS).map_err(storage)?;
    let mut changed = Vec::new();
    for entry in open_changed(transaction)?.iter().map_err(storage)? {
        let (key, _) = entry.map_err(storage)?;
        let state = accounts.get(key.value()).map_err(storage)?;
        let state = decode_account(state.as_ref().map(redb::AccessGuard::value))?;
        changed.push((address_of(key.value())?, state));
    }
    let mut transactions = BTreeMap::<[u8; 32], BTreeMap<u64, Cell>>::new();
    for entry in open_unsealed(transaction)?.iter().map_err(storage)? {
        let (lt, key) = entry.map_err(storage)?;
        let address = address_of(key.value())?;
        let id = transaction_key(address, lt.value());
        // Of an account with very many transactions, the first may be forgotten already.
        let Some(bytes) = history.get(id.as_slice()).map_err(storage)? else {
            continue;
        };
        if address.workchain == 0 {
            let cell = Boc::decode(bytes.value())
                .map_err(|_| LedgerError::Damaged { part: "transaction" })?;
            transactions.entry(address.hash).or_default().insert(lt.value(), cell);
        }
    }
    let contents = Contents {
        time: now.max(seconds(head.time)),
        end_lt: head.lt.saturating_add(1),
        transactions,
        minted: head.minted,
        fees: head.fees,
        under_way: super::chain::under_way(transaction)?,
    };
    Ok(Collected { changed, contents })
}

fn write(transaction: &WriteTransaction, pair: &Pair) -> Result<(), LedgerError> {
    let seqno = pair.sealed.seqno;
    open_changed(transaction)?.retain(|_, _| false).map_err(storage)?;
    open_unsealed(transaction)?.retain(|_, _| false).map_err(storage)?;
    let mut sealed = transaction.open_table(SEALED).map_err(storage)?;
    let name = serde_json::to_vec(&pair.sealed).map_err(storage)?;
    sealed.insert(seqno, name.as_slice()).map_err(storage)?;
    if let Some(old) = seqno.checked_sub(KEPT_NAMES) {
        sealed.remove(old).map_err(storage)?;
    }
    let mut blocks = transaction.open_table(BLOCKS).map_err(storage)?;
    let bytes = Boc::encode_pair((&pair.master_block, &pair.shard_block));
    blocks.insert(seqno, bytes.as_slice()).map_err(storage)?;
    if let Some(old) = seqno.checked_sub(KEPT_BLOCKS) {
        blocks.remove(old).map_err(storage)?;
    }
    Ok(())
}

/// Whether so much happened since the newest block that the next one is due.
pub(super) fn is_due(database: &Database) -> Result<bool, LedgerError> {
    let transaction = database.begin_read().map_err(storage)?;
    let unsealed = transaction.open_table(UNSEALED).map_err(storage)?;
    Ok(unsealed.len().map_err(storage)? >= TRANSACTIONS_IN_A_BLOCK)
}

/// The name of the block with this number.
pub(super) fn name(database: &Database, seqno: u32) -> Result<Option<Sealed>, LedgerError> {
    let transaction = database.begin_read().map_err(storage)?;
    let sealed = transaction.open_table(SEALED).map_err(storage)?;
    let found = sealed.get(seqno).map_err(storage)?;
    found.map(|value| serde_json::from_slice(value.value()).map_err(|_| DAMAGED)).transpose()
}

/// The first block of which `is_late_enough` holds, given that it holds of every later one too.
pub(super) fn first(
    database: &Database,
    is_late_enough: impl Fn(&Sealed) -> bool,
) -> Result<Option<Sealed>, LedgerError> {
    let transaction = database.begin_read().map_err(storage)?;
    let sealed = transaction.open_table(SEALED).map_err(storage)?;
    let Some((mut from, mut to)) = sealed
        .first()
        .map_err(storage)?
        .zip(sealed.last().map_err(storage)?)
        .map(|((first, _), (last, _))| (first.value(), last.value().saturating_add(1)))
    else {
        return Ok(None);
    };
    let mut best = None;
    while from < to {
        let middle = from + (to - from) / 2;
        let found = sealed.get(middle).map_err(storage)?.ok_or(DAMAGED)?;
        let found: Sealed = serde_json::from_slice(found.value()).map_err(|_| DAMAGED)?;
        if is_late_enough(&found) {
            best = Some(found);
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    Ok(best)
}

/// The two blocks with this number, masterchain first.
pub(super) fn blocks(database: &Database, seqno: u32) -> Result<Option<(Cell, Cell)>, LedgerError> {
    let transaction = database.begin_read().map_err(storage)?;
    let blocks = transaction.open_table(BLOCKS).map_err(storage)?;
    let found = blocks.get(seqno).map_err(storage)?;
    found.map(|bytes| Boc::decode_pair(bytes.value()).map_err(|_| DAMAGED)).transpose()
}

fn address_of(key: &[u8]) -> Result<TonAddress, LedgerError> {
    let damaged = LedgerError::Damaged { part: "account" };
    let (workchain, hash) = key.split_first().ok_or(LedgerError::Damaged { part: "account" })?;
    let hash = <[u8; 32]>::try_from(hash).map_err(|_| damaged)?;
    let address = TonAddress { workchain: workchain.cast_signed(), hash };
    debug_assert_eq!(account_key(address).as_slice(), key);
    Ok(address)
}
