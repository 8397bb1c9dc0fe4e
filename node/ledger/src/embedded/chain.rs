//! The chain on disk: accounts, their history, messages under way, and the head.
//!
//! Owns: every byte of the database, and the order of messages.
//! Must not: know tasks or clocks; `now` comes in.
//! Invariant: a message and all that follows from it is one write transaction, so that a process
//! killed at any point leaves the chain as it was before or after a message, never between.

use std::collections::VecDeque;
use std::sync::Arc;

use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::{Millis, NanoTon, Timestamp};
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tycho_types::boc::{Boc, BocRepr};
use tycho_types::cell::Cell;
use tycho_types::models::ShardAccount;

use super::blocks::{Builder, Pair, Sealed};
use super::execute::{Executed, Incoming, Moment, absent, execute, mint};
use super::sealing::{self, Changed, Seals, Unsealed};
use crate::chain_config::ChainConfig;
use crate::message::Message;
use crate::port::{LedgerError, Page};
use crate::transaction::{TransactionId, TransactionSummary};

pub(super) const ACCOUNTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("accounts");
pub(super) const TRANSACTIONS: TableDefinition<'_, &[u8], &[u8]> =
    TableDefinition::new("transactions");
const HISTORY_LENGTHS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("history_lengths");
const UNDER_WAY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("under_way");
const HEAD: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("head");
const HEAD_KEY: &str = "head";
/// The seed of the key that the chain's liteserver holds.
const LITESERVER_KEY: &str = "liteserver";

/// Raised when a record changes its form.
const FORMAT: u32 = 1;
/// Logical time between transactions, as in a block of the real chain.
const LT_STEP: u64 = 1_000_000;
/// Transactions that one message may cause at once. A contract that sends to itself for as long as
/// its money lasts then goes on with the next message instead of holding the chain for minutes.
const TRANSACTIONS_AT_ONCE: usize = 256;
/// Messages under way. A message too many is lost with what it carries, which counts as a fee;
/// only a contract written to flood the devnet gets there.
const MAX_UNDER_WAY: usize = 16_384;
/// The most that the faucet gives out over the chain's life: as much as TON has.
const MAX_SUPPLY: NanoTon = NanoTon::from_nano(5_000_000_000_000_000_000);

/// Where the chain stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    format: u32,
    /// Which network the chain plays.
    pub network: Network,
    /// Number of the newest block; each message is one.
    pub seqno: u32,
    /// SHA-256 over the previous block's hash and this block's transactions.
    pub hash: [u8; 32],
    /// Logical time of the newest transaction.
    pub lt: u64,
    /// Time of the newest block; time never runs backwards.
    pub time: Timestamp,
    /// How far the chain's clock runs ahead of the machine's, after time travel.
    pub ahead: Millis,
    /// All that the faucet gave out.
    pub minted: NanoTon,
    /// All that was paid for running the chain.
    pub fees: NanoTon,
}

impl Head {
    const fn genesis(network: Network) -> Self {
        Self {
            format: FORMAT,
            network,
            seqno: 0,
            hash: [0; 32],
            lt: LT_STEP,
            time: Timestamp::EPOCH,
            ahead: Millis::new(0),
            minted: NanoTon::ZERO,
            fees: NanoTon::ZERO,
        }
    }

    /// The chain's time when the machine's clock shows `clock`.
    pub(super) fn now(&self, clock: Timestamp) -> Timestamp {
        clock.after(self.ahead).max(self.time)
    }
}

/// What goes into a block.
#[derive(Debug)]
pub(super) enum Entry {
    /// A message from outside.
    External(Message),
    /// Money from the faucet.
    Mint { to: TonAddress, amount: NanoTon },
    /// Nothing new: only messages under way.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Chain {
    database: Database,
    config: ChainConfig,
    history: u64,
    seals: Seals,
}

impl Chain {
    /// Opens the chain in `database`, or starts one.
    pub(super) fn open(
        database: Database,
        network: Network,
        history: u64,
        clock: Timestamp,
    ) -> Result<Self, LedgerError> {
        let transaction = database.begin_write().map_err(storage)?;
        let head = {
            transaction.open_table(ACCOUNTS).map_err(storage)?;
            transaction.open_table(TRANSACTIONS).map_err(storage)?;
            transaction.open_table(HISTORY_LENGTHS).map_err(storage)?;
            transaction.open_table(UNDER_WAY).map_err(storage)?;
            let mut heads = transaction.open_table(HEAD).map_err(storage)?;
            let known = read_head(&heads)?;
            let head = known.unwrap_or_else(|| Head::genesis(network));
            write_head(&mut heads, &head)?;
            head
        };
        sealing::prepare(&transaction)?;
        transaction.commit().map_err(storage)?;
        if head.format != FORMAT || head.network != network {
            return Err(LedgerError::Damaged { part: "head" });
        }
        let config = ChainConfig::built_in(network, seconds(head.now(clock)))
            .map_err(|error| LedgerError::Execution(error.into()))?;
        let builder = Builder { network, config: config.as_published() };
        let seals = Seals::open(&database, builder)?;
        Ok(Self { database, config, history, seals })
    }

    /// The newest block, after making one if anything happened since the last, or if that is older
    /// than `age`.
    pub(super) fn seal(&self, clock: Timestamp, age: Millis) -> Result<Arc<Pair>, LedgerError> {
        let now = seconds(self.head()?.now(clock));
        let age = u32::try_from(age.get() / 1_000).unwrap_or(u32::MAX);
        let get_head = |transaction: &WriteTransaction| {
            let heads = transaction.open_table(HEAD).map_err(storage)?;
            read_head(&heads)?.ok_or(LedgerError::Damaged { part: "head" })
        };
        let put_head = |transaction: &WriteTransaction, head: &Head| {
            let mut heads = transaction.open_table(HEAD).map_err(storage)?;
            write_head(&mut heads, head)
        };
        self.seals.seal(&self.database, get_head, put_head, now, age)
    }

    /// The seed of the key that this chain's liteserver holds; `fresh` from the first time on.
    pub(super) fn liteserver_seed(&self, fresh: [u8; 32]) -> Result<[u8; 32], LedgerError> {
        let transaction = self.database.begin_write().map_err(storage)?;
        let seed = {
            let mut table = transaction.open_table(HEAD).map_err(storage)?;
            let known = table.get(LITESERVER_KEY).map_err(storage)?;
            let known = known.map(|known| <[u8; 32]>::try_from(known.value()));
            match known.transpose().map_err(|_| LedgerError::Damaged { part: "key" })? {
                Some(known) => known,
                None => {
                    table.insert(LITESERVER_KEY, fresh.as_slice()).map_err(storage)?;
                    fresh
                }
            }
        };
        transaction.commit().map_err(storage)?;
        Ok(seed)
    }

    pub(super) const fn seals(&self) -> &Seals {
        &self.seals
    }

    /// The name of block `seqno`.
    pub(super) fn block_name(&self, seqno: u32) -> Result<Option<Sealed>, LedgerError> {
        sealing::name(&self.database, seqno)
    }

    /// The first block of which `is_late_enough` holds.
    pub(super) fn first_block(
        &self,
        is_late_enough: impl Fn(&Sealed) -> bool,
    ) -> Result<Option<Sealed>, LedgerError> {
        sealing::first(&self.database, is_late_enough)
    }

    /// The blocks numbered `seqno`, masterchain first.
    pub(super) fn blocks(&self, seqno: u32) -> Result<Option<(Cell, Cell)>, LedgerError> {
        sealing::blocks(&self.database, seqno)
    }

    pub(super) const fn config(&self) -> &ChainConfig {
        &self.config
    }

    pub(super) fn head(&self) -> Result<Head, LedgerError> {
        let transaction = self.database.begin_read().map_err(storage)?;
        let table = transaction.open_table(HEAD).map_err(storage)?;
        read_head(&table)?.ok_or(LedgerError::Damaged { part: "head" })
    }

    /// The account's state, and the head that it belongs to.
    pub(super) fn account(&self, address: TonAddress) -> Result<(ShardAccount, Head), LedgerError> {
        let transaction = self.database.begin_read().map_err(storage)?;
        let heads = transaction.open_table(HEAD).map_err(storage)?;
        let head = read_head(&heads)?.ok_or(LedgerError::Damaged { part: "head" })?;
        let accounts = transaction.open_table(ACCOUNTS).map_err(storage)?;
        let found = accounts.get(account_key(address).as_slice()).map_err(storage)?;
        let state = decode_account(found.as_ref().map(redb::AccessGuard::value))?;
        Ok((state, head))
    }

    /// Transactions of an account, newest first.
    pub(super) fn transactions(
        &self,
        address: TonAddress,
        page: Page,
    ) -> Result<Vec<TransactionSummary>, LedgerError> {
        let transaction = self.database.begin_read().map_err(storage)?;
        let table = transaction.open_table(TRANSACTIONS).map_err(storage)?;
        let from = transaction_key(address, 0);
        let to = transaction_key(address, page.before.map_or(u64::MAX, |id| id.lt));
        let range = table.range(from.as_slice()..to.as_slice()).map_err(storage)?;
        let mut found = Vec::new();
        for entry in range.rev().take(usize::from(page.limit)) {
            let (_, value) = entry.map_err(storage)?;
            let damaged = LedgerError::Damaged { part: "transaction" };
            let Ok(cell) = Boc::decode(value.value()) else {
                return Err(damaged);
            };
            let Ok(summary) = TransactionSummary::from_cell(cell) else {
                return Err(damaged);
            };
            found.push(summary);
        }
        Ok(found)
    }

    /// Money that messages under way carry.
    pub(super) fn under_way(&self) -> Result<NanoTon, LedgerError> {
        let transaction = self.database.begin_read().map_err(storage)?;
        carried(&transaction.open_table(UNDER_WAY).map_err(storage)?)
    }

    /// The sum of all balances. Reads every account: for audits and tests.
    pub(super) fn balances(&self) -> Result<NanoTon, LedgerError> {
        let transaction = self.database.begin_read().map_err(storage)?;
        let table = transaction.open_table(ACCOUNTS).map_err(storage)?;
        let mut total = 0_u128;
        for entry in table.iter().map_err(storage)? {
            let (_, value) = entry.map_err(storage)?;
            let damaged = |_| LedgerError::Damaged { part: "account" };
            let account = decode_account(Some(value.value()))?.load_account().map_err(damaged)?;
            let tokens = account.map_or(0, |account| account.balance.tokens.into_inner());
            total = total.saturating_add(tokens);
        }
        Ok(amount(total))
    }

    /// Moves the chain's clock ahead of the machine's.
    pub(super) fn advance(&self, by: Millis) -> Result<(), LedgerError> {
        let transaction = self.database.begin_write().map_err(storage)?;
        {
            let mut heads = transaction.open_table(HEAD).map_err(storage)?;
            let known = read_head(&heads)?;
            let mut head = known.ok_or(LedgerError::Damaged { part: "head" })?;
            head.ahead = Millis::new(head.ahead.get().saturating_add(by.get()));
            write_head(&mut heads, &head)?;
        }
        transaction.commit().map_err(storage)
    }

    /// Whether the contract would take the message now. Changes nothing.
    pub(super) fn check(&self, message: &Message, clock: Timestamp) -> Result<(), LedgerError> {
        let (state, head) = self.account(message.destination())?;
        let moment = Moment { time: seconds(head.now(clock)), lt: head.lt.saturating_add(LT_STEP) };
        execute(&self.config, external(message), &state, moment).map(|_| ())
    }

    /// Makes one block of `entry` and what follows from it, durably.
    ///
    /// # Errors
    ///
    /// When the contract does not accept the message; then there is no block.
    pub(super) fn apply(
        &self,
        entry: Entry,
        clock: Timestamp,
    ) -> Result<Vec<TransactionId>, LedgerError> {
        let transaction = self.database.begin_write().map_err(storage)?;
        let ids = {
            let mut heads = transaction.open_table(HEAD).map_err(storage)?;
            let known = read_head(&heads)?;
            let mut head = known.ok_or(LedgerError::Damaged { part: "head" })?;
            head.time = head.now(clock);
            let mut waiting = transaction.open_table(UNDER_WAY).map_err(storage)?;
            let mut block = Block {
                chain: self,
                accounts: transaction.open_table(ACCOUNTS).map_err(storage)?,
                transactions: transaction.open_table(TRANSACTIONS).map_err(storage)?,
                history_lengths: transaction.open_table(HISTORY_LENGTHS).map_err(storage)?,
                changed: sealing::open_changed(&transaction)?,
                unsealed: sealing::open_unsealed(&transaction)?,
                queue: read_under_way(&waiting)?,
                ids: Vec::new(),
                head,
            };
            block.run(entry)?;
            let Block { queue, ids, head, .. } = block;
            write_under_way(&mut waiting, &queue)?;
            write_head(&mut heads, &head)?;
            ids
        };
        transaction.commit().map_err(storage)?;
        if sealing::is_due(&self.database)? {
            self.seal(clock, Millis::new(u64::MAX))?;
        }
        Ok(ids)
    }
}

/// A block in the making, inside one write transaction.
struct Block<'t> {
    chain: &'t Chain,
    accounts: Table<'t, &'static [u8], &'static [u8]>,
    transactions: Table<'t, &'static [u8], &'static [u8]>,
    history_lengths: Table<'t, &'static [u8], u64>,
    changed: Changed<'t>,
    unsealed: Unsealed<'t>,
    queue: VecDeque<Incoming>,
    ids: Vec<TransactionId>,
    head: Head,
}

impl Block<'_> {
    fn run(&mut self, entry: Entry) -> Result<(), LedgerError> {
        match entry {
            Entry::External(message) => self.execute(external(&message))?,
            Entry::Mint { to, amount } => {
                let minted = self.head.minted.checked_add(amount);
                let minted = minted.filter(|minted| *minted <= MAX_SUPPLY);
                self.head.minted = minted.ok_or(LedgerError::FaucetEmpty)?;
                let damaged = |_| LedgerError::Damaged { part: "message" };
                let cell = mint(to, amount.as_nano()).map_err(damaged)?;
                self.queue.extend(Incoming::internal(cell).map_err(damaged)?);
            }
            Entry::Nothing => {}
        }
        while self.ids.len() < TRANSACTIONS_AT_ONCE {
            let Some(message) = self.queue.pop_front() else {
                break;
            };
            let carries = message.carries;
            let destination = message.destination;
            match self.execute(message) {
                Ok(()) => {}
                // Nothing that a contract sends may stop the chain.
                Err(LedgerError::Execution(error)) => {
                    tracing::warn!(%destination, %error, "a message could not be executed");
                    self.collect(carries);
                }
                Err(error) => return Err(error),
            }
        }
        let mut hash = Sha256::new();
        hash.update(self.head.hash);
        for id in &self.ids {
            hash.update(id.hash);
        }
        self.head.hash = hash.finalize().into();
        self.head.seqno = self.head.seqno.saturating_add(1);
        Ok(())
    }

    fn execute(&mut self, incoming: Incoming) -> Result<(), LedgerError> {
        let address = incoming.destination;
        let key = account_key(address);
        let state = {
            let found = self.accounts.get(key.as_slice()).map_err(storage)?;
            decode_account(found.as_ref().map(redb::AccessGuard::value))?
        };
        let lt = self.head.lt.saturating_add(LT_STEP);
        let moment = Moment { time: seconds(self.head.time), lt };
        let executed = execute(&self.chain.config, incoming, &state, moment)?;
        self.head.lt = lt;
        let (changed, unsealed) = (&mut self.changed, &mut self.unsealed);
        sealing::note(changed, unsealed, key.as_slice(), &state, executed.id.lt)?;
        self.keep(address, &executed)?;
        self.collect(executed.fees);
        self.ids.push(executed.id);
        for cell in executed.sent {
            let onward =
                Incoming::internal(cell).map_err(|error| LedgerError::Execution(error.into()))?;
            if let Some(onward) = onward {
                if self.queue.len() < MAX_UNDER_WAY {
                    self.queue.push_back(onward);
                } else {
                    tracing::warn!(destination = %onward.destination, "too many messages under way");
                    self.collect(onward.carries);
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, address: TonAddress, executed: &Executed) -> Result<(), LedgerError> {
        let key = account_key(address);
        let state = BocRepr::encode(&executed.state)
            .map_err(|error| LedgerError::Execution(error.into()))?;
        self.accounts.insert(key.as_slice(), state.as_slice()).map_err(storage)?;
        let id = transaction_key(address, executed.id.lt);
        let bytes = Boc::encode(&executed.transaction);
        self.transactions.insert(id.as_slice(), bytes.as_slice()).map_err(storage)?;
        let kept = self.history_lengths.get(key.as_slice()).map_err(storage)?;
        let mut kept = kept.map_or(0, |length| length.value()).saturating_add(1);
        if kept > self.chain.history {
            let oldest = transaction_key(address, 0);
            let newest = transaction_key(address, u64::MAX);
            let mut range =
                self.transactions.range(oldest.as_slice()..newest.as_slice()).map_err(storage)?;
            let first = range.next().transpose().map_err(storage)?;
            let first = first.map(|(key, _)| key.value().to_vec());
            drop(range);
            if let Some(first) = first {
                self.transactions.remove(first.as_slice()).map_err(storage)?;
                kept = kept.saturating_sub(1);
            }
        }
        self.history_lengths.insert(key.as_slice(), kept).map_err(storage)?;
        Ok(())
    }

    fn collect(&mut self, fees: u128) {
        self.head.fees = self.head.fees.saturating_add(amount(fees));
    }
}

/// Money that messages under way carry, inside a write transaction.
pub(super) fn under_way(transaction: &WriteTransaction) -> Result<NanoTon, LedgerError> {
    carried(&transaction.open_table(UNDER_WAY).map_err(storage)?)
}

fn carried(table: &impl redb::ReadableTable<u64, &'static [u8]>) -> Result<NanoTon, LedgerError> {
    let messages = read_under_way(table)?;
    let total = messages.iter().fold(0_u128, |sum, message| sum.saturating_add(message.carries));
    Ok(amount(total))
}

fn external(message: &Message) -> Incoming {
    Incoming {
        destination: message.destination(),
        cell: message.cell().clone(),
        external: true,
        carries: 0,
    }
}

/// No more than [`MAX_SUPPLY`] exists, so every amount fits.
fn amount(nano: u128) -> NanoTon {
    NanoTon::from_nano(u64::try_from(nano).unwrap_or(u64::MAX))
}

/// The chain's clock counts seconds in 32 bits, as TON does.
pub(super) fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.as_unix_secs()).unwrap_or(u32::MAX)
}

pub(super) fn account_key(address: TonAddress) -> [u8; 33] {
    let mut key = [0; 33];
    let (workchain, hash) = key.split_at_mut(1);
    workchain.fill(address.workchain.cast_unsigned());
    hash.copy_from_slice(&address.hash);
    key
}

pub(super) fn transaction_key(address: TonAddress, lt: u64) -> [u8; 41] {
    let mut key = [0; 41];
    let (account, time) = key.split_at_mut(33);
    account.copy_from_slice(&account_key(address));
    time.copy_from_slice(&lt.to_be_bytes());
    key
}

pub(super) fn decode_account(bytes: Option<&[u8]>) -> Result<ShardAccount, LedgerError> {
    let damaged = LedgerError::Damaged { part: "account" };
    match bytes {
        Some(bytes) => BocRepr::decode(bytes).map_err(|_| damaged),
        None => absent().map_err(|_| damaged),
    }
}

fn read_head(
    table: &impl redb::ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<Head>, LedgerError> {
    let Some(bytes) = table.get(HEAD_KEY).map_err(storage)? else {
        return Ok(None);
    };
    let head = serde_json::from_slice(bytes.value());
    head.map(Some).map_err(|_| LedgerError::Damaged { part: "head" })
}

fn write_head(
    table: &mut Table<'_, &'static str, &'static [u8]>,
    head: &Head,
) -> Result<(), LedgerError> {
    let bytes = serde_json::to_vec(head).map_err(storage)?;
    table.insert(HEAD_KEY, bytes.as_slice()).map_err(storage)?;
    Ok(())
}

fn read_under_way(
    table: &impl redb::ReadableTable<u64, &'static [u8]>,
) -> Result<VecDeque<Incoming>, LedgerError> {
    let damaged = || LedgerError::Damaged { part: "message" };
    let mut queue = VecDeque::new();
    for entry in table.iter().map_err(storage)? {
        let (_, value) = entry.map_err(storage)?;
        let cell = Boc::decode(value.value()).map_err(|_| damaged())?;
        queue.extend(Incoming::internal(cell).map_err(|_| damaged())?);
    }
    Ok(queue)
}

fn write_under_way(
    table: &mut Table<'_, u64, &'static [u8]>,
    queue: &VecDeque<Incoming>,
) -> Result<(), LedgerError> {
    table.retain(|_, _| false).map_err(storage)?;
    for (number, message) in (0_u64..).zip(queue) {
        table.insert(number, Boc::encode(&message.cell).as_slice()).map_err(storage)?;
    }
    Ok(())
}

pub(super) fn storage(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LedgerError {
    LedgerError::Storage(error.into())
}
