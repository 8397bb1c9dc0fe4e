//! A TON chain in this process: real contract code on a real virtual machine, without consensus.
//!
//! Owns: the devnet's money, its clock, and when blocks are made.
//! Must not: play the main network; what it mints is worth nothing.
//!
//! Gas, fees and effects agree with the reference emulator; hashes of transactions and accounts
//! may differ in cosmetic fields and are never to be compared with those of a real chain.

mod blocks;
mod chain;
mod execute;
mod lone;
mod sealing;

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::{Millis, NanoTon, Timestamp};
use ed25519_dalek::SigningKey;
use redb::Database;
use redb::backends::InMemoryBackend;
use tokio_util::sync::CancellationToken;
use tycho_types::cell::Cell;
use tycho_types::models::ShardAccount;
use zeroize::Zeroizing;

pub(crate) use self::blocks::{Pair, Sealed};
pub use self::chain::Head;
use self::chain::{Chain, Entry, storage};
pub use self::lone::{Arriving, LoneAccount, Prices, Rent};
use crate::get_method::{self, GetMethodError, GetMethodOutput, StackEntry};
use crate::liteserver::api::{Lookup, ZeroState};
use crate::message::{Message, MessageHash};
use crate::port::{AccountState, Ledger, LedgerError, LedgerFuture, Page};
use crate::transaction::{TransactionId, TransactionSummary};

/// Messages that wait for the next block. More are refused with [`LedgerError::Full`]. A devnet of
/// a hundred nodes that all act within one block stays far below.
const WAITING_MESSAGES: usize = 1_024;

/// Without anything happening a new block is made, when somebody asks, after this time: clients
/// take a chain whose newest block is old for one that stands still.
const BLOCK_AGE: Millis = Millis::from_secs(5);

/// How the embedded chain behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time between blocks. Zero executes a message before `send` returns; otherwise
    /// [`EmbeddedLedger::produce_blocks`] must run.
    pub block_time: Millis,
    /// Transactions kept for each account; older ones are forgotten.
    pub history: u64,
    /// Where time comes from.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self { block_time: Millis::new(0), history: 1_024, clock: Clock::System }
    }
}

/// Where the embedded chain's time comes from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// Stands still until it is set; for tests. In milliseconds since the Unix epoch.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A clock that stands at `time`.
    pub fn manual(time: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(time.as_unix_millis())))
    }

    fn now(&self) -> Timestamp {
        let millis = match self {
            Self::Manual(millis) => millis.load(Ordering::Relaxed),
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }
        };
        Timestamp::from_unix_millis(millis)
    }
}

/// The embedded chain. Clones share it.
#[derive(Clone)]
pub struct EmbeddedLedger {
    shared: Arc<Shared>,
}

struct Shared {
    chain: Chain,
    options: Options,
    waiting: Mutex<VecDeque<Message>>,
}

impl fmt::Debug for EmbeddedLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLedger")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

impl EmbeddedLedger {
    /// Opens the chain in the file at `path`, or starts one there.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, is in use, or holds something else.
    pub fn open(path: &Path, options: Options) -> Result<Self, LedgerError> {
        Self::start(Database::create(path).map_err(storage)?, options)
    }

    /// Starts a chain that ends with the process.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn in_memory(options: Options) -> Result<Self, LedgerError> {
        let backend = InMemoryBackend::new();
        Self::start(Database::builder().create_with_backend(backend).map_err(storage)?, options)
    }

    fn start(database: Database, options: Options) -> Result<Self, LedgerError> {
        let chain = Chain::open(database, Network::Devnet, options.history, options.clock.now())?;
        let waiting = Mutex::new(VecDeque::new());
        Ok(Self { shared: Arc::new(Shared { chain, options, waiting }) })
    }

    /// Gives play money to `to`.
    ///
    /// # Errors
    ///
    /// When the supply is used up, or the database fails.
    pub async fn faucet(&self, to: TonAddress, amount: NanoTon) -> Result<(), LedgerError> {
        self.blocking(move |shared| shared.apply(Entry::Mint { to, amount }).map(|_| ())).await
    }

    /// Moves the chain's clock ahead by `by`, for tests and demonstrations.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn advance(&self, by: Millis) -> Result<(), LedgerError> {
        self.blocking(move |shared| shared.chain.advance(by)).await
    }

    /// Where the chain stands.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn head(&self) -> Result<Head, LedgerError> {
        self.blocking(|shared| shared.chain.head()).await
    }

    /// Runs a get method of a contract.
    ///
    /// # Errors
    ///
    /// When the database fails; the inner error when the contract has none to run.
    pub async fn run_get_method(
        &self,
        address: TonAddress,
        method: u32,
        arguments: Vec<StackEntry>,
    ) -> Result<Result<GetMethodOutput, GetMethodError>, LedgerError> {
        self.blocking(move |shared| {
            let (state, head) = shared.chain.account(address)?;
            let damaged = |_| LedgerError::Damaged { part: "account" };
            let Some(account) = state.load_account().map_err(damaged)? else {
                return Ok(Err(GetMethodError::NoCode));
            };
            let now = head.now(shared.options.clock.now()).as_unix_secs();
            let now = u32::try_from(now).unwrap_or(u32::MAX);
            let params = shared.chain.config().readable();
            Ok(get_method::run(params, &account, now, method, arguments))
        })
        .await
    }

    /// The key that this chain's liteserver holds: made once, and kept with the chain.
    ///
    /// # Errors
    ///
    /// When the database fails, or the system gives no random numbers.
    pub async fn liteserver_key(&self) -> Result<SigningKey, LedgerError> {
        self.blocking(|shared| {
            let mut fresh = Zeroizing::new([0; 32]);
            getrandom::fill(fresh.as_mut()).map_err(|error| LedgerError::Storage(error.into()))?;
            let seed = Zeroizing::new(shared.chain.liteserver_seed(*fresh)?);
            Ok(SigningKey::from_bytes(&seed))
        })
        .await
    }

    /// Makes a block of all that happened since the newest, if anything did. Returns the number of
    /// the newest.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn make_block(&self) -> Result<u32, LedgerError> {
        Ok(self.newest_block().await?.sealed.seqno)
    }

    /// What tells this chain's network from others.
    pub fn first_state(&self) -> ZeroState {
        let zero = &self.zero_state().sealed.master;
        ZeroState { root_hash: zero.root_hash, file_hash: zero.file_hash }
    }

    /// The newest block, with everything in it that happened so far. Makes one if there is none,
    /// or if the newest is older than [`BLOCK_AGE`].
    pub(crate) async fn newest_block(&self) -> Result<Arc<Pair>, LedgerError> {
        self.blocking(|shared| shared.chain.seal(shared.options.clock.now(), BLOCK_AGE)).await
    }

    /// The newest block as it is, without making one.
    pub(crate) fn known_block(&self) -> Arc<Pair> {
        self.shared.chain.seals().newest()
    }

    /// A block whose states can still be proved.
    pub(crate) fn block_with_states(&self, seqno: u32) -> Option<Arc<Pair>> {
        self.shared.chain.seals().with_states(seqno)
    }

    /// The states before the first block.
    pub(crate) fn zero_state(&self) -> Arc<Pair> {
        self.shared.chain.seals().zero()
    }

    /// The blocks numbered `seqno`, masterchain first, while they are kept.
    pub(crate) async fn blocks(&self, seqno: u32) -> Result<Option<(Cell, Cell)>, LedgerError> {
        self.blocking(move |shared| shared.chain.blocks(seqno)).await
    }

    /// The block with a number, of a logical time, or the newest at a time.
    pub(crate) async fn find_block(&self, by: Lookup) -> Result<Option<Sealed>, LedgerError> {
        self.blocking(move |shared| match by {
            Lookup::Number(seqno) => shared.chain.block_name(seqno),
            Lookup::LogicalTime(lt) => shared.chain.first_block(|sealed| sealed.end_lt >= lt),
            Lookup::Time(time) => {
                let later = shared.chain.first_block(|sealed| sealed.time > time)?;
                let newest = shared.chain.seals().newest().sealed.seqno;
                let seqno = later.map_or(newest, |later| later.seqno.saturating_sub(1));
                shared.chain.block_name(seqno)
            }
        })
        .await
    }

    /// Runs a get method on a state of an account, as of `now` in Unix seconds.
    pub(crate) async fn run_on(
        &self,
        state: Option<ShardAccount>,
        now: u32,
        method: u32,
        arguments: Vec<StackEntry>,
    ) -> Result<Result<GetMethodOutput, GetMethodError>, LedgerError> {
        self.blocking(move |shared| {
            let damaged = |_| LedgerError::Damaged { part: "account" };
            let account = state.map(|state| state.load_account()).transpose().map_err(damaged)?;
            let Some(account) = account.flatten() else {
                return Ok(Err(GetMethodError::NoCode));
            };
            let params = shared.chain.config().readable();
            Ok(get_method::run(params, &account, now, method, arguments))
        })
        .await
    }

    /// Where all money is. Reads every account: for audits and tests.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn audit(&self) -> Result<Audit, LedgerError> {
        self.blocking(|shared| {
            let head = shared.chain.head()?;
            Ok(Audit {
                minted: head.minted,
                balances: shared.chain.balances()?,
                under_way: shared.chain.under_way()?,
                fees: head.fees,
            })
        })
        .await
    }

    /// A configuration parameter as published on the chain, or all of them.
    pub(crate) fn parameter(&self, id: Option<u32>) -> Option<Cell> {
        let config = self.shared.chain.config();
        match id {
            Some(id) => config.parameter(id).ok().flatten(),
            None => config.root(),
        }
    }

    /// Makes a block every [`Options::block_time`] until `cancel`. Returns at once when that is
    /// zero. The owner spawns this once.
    pub async fn produce_blocks(&self, cancel: CancellationToken) {
        let block_time = self.shared.options.block_time;
        if block_time.get() == 0 {
            return;
        }
        let mut ticks = tokio::time::interval(block_time.to_duration());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.produce_block().await {
                tracing::error!(%error, "no block could be made");
            }
        }
    }

    /// Makes a block of all waiting messages, in order; one that its contract no longer accepts is
    /// dropped, as on the real chain.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn produce_block(&self) -> Result<(), LedgerError> {
        self.blocking(|shared| {
            let waiting = std::mem::take(&mut *shared.lock_waiting());
            if waiting.is_empty() {
                return shared.apply(Entry::Nothing).map(|_| ());
            }
            for message in waiting {
                match shared.apply(Entry::External(message)) {
                    Ok(_) | Err(LedgerError::NotAccepted { .. } | LedgerError::Execution(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
        .await
    }

    /// Runs `work` where it may wait for the disk. The work is done even if the caller goes away:
    /// a message is then on the chain all the same.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let shared = Arc::clone(&self.shared);
        let done = tokio::task::spawn_blocking(move || work(&shared)).await;
        done.map_err(|_| LedgerError::Stopped)?
    }
}

impl Shared {
    fn apply(&self, entry: Entry) -> Result<Vec<TransactionId>, LedgerError> {
        self.chain.apply(entry, self.options.clock.now())
    }

    fn lock_waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<Message>> {
        // The queue is whole even if a thread died while it held the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, message: Message) -> Result<MessageHash, LedgerError> {
        let hash = message.hash();
        if self.options.block_time.get() == 0 {
            self.apply(Entry::External(message))?;
            return Ok(hash);
        }
        self.chain.check(&message, self.options.clock.now())?;
        let mut waiting = self.lock_waiting();
        if waiting.len() >= WAITING_MESSAGES {
            return Err(LedgerError::Full);
        }
        if !waiting.contains(&message) {
            waiting.push_back(message);
        }
        Ok(hash)
    }
}

impl Ledger for EmbeddedLedger {
    fn network(&self) -> Network {
        Network::Devnet
    }

    fn now(&self) -> LedgerFuture<'_, Timestamp> {
        Box::pin(self.blocking(|shared| {
            let head = shared.chain.head()?;
            Ok(head.now(shared.options.clock.now()))
        }))
    }

    fn account(&self, address: TonAddress) -> LedgerFuture<'_, AccountState> {
        Box::pin(self.blocking(move |shared| {
            let (state, head) = shared.chain.account(address)?;
            let as_of = head.now(shared.options.clock.now());
            crate::account::known(address, &state, as_of)
                .map_err(|_| LedgerError::Damaged { part: "account" })
        }))
    }

    fn transactions(
        &self,
        address: TonAddress,
        page: Page,
    ) -> LedgerFuture<'_, Vec<TransactionSummary>> {
        Box::pin(self.blocking(move |shared| shared.chain.transactions(address, page)))
    }

    fn send(&self, message: Message) -> LedgerFuture<'_, MessageHash> {
        Box::pin(self.blocking(move |shared| shared.send(message)))
    }
}

/// Where all money of a chain is: `minted = balances + under_way + fees`, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// All that the faucet gave out.
    pub minted: NanoTon,
    /// What accounts hold.
    pub balances: NanoTon,
    /// What messages carry that are not yet delivered.
    pub under_way: NanoTon,
    /// What was paid for running the chain.
    pub fees: NanoTon,
}

impl Audit {
    /// Whether every nanoTON is where it should be.
    pub fn is_balanced(&self) -> bool {
        let held = self.balances.checked_add(self.under_way);
        held.and_then(|held| held.checked_add(self.fees)) == Some(self.minted)
    }
}
