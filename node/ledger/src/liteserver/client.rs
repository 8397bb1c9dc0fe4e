//! The ledger behind liteservers: reads are proved down from a block that enough of them name.
//!
//! Owns: the port's methods, and which server is asked next.
//! Must not: return anything as verified that a proof does not cover, or run a contract's code
//! elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::{Millis, Timestamp};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tycho_types::models::{BlockId, BlockchainConfigParams};

use super::agreement::{self, Vote};
use super::api::{Answer, Query, ZeroState};
use super::connection::{AskError, Server};
use super::proof::{self, ProofError, ProvedAccount};
use super::servers::ServerAddress;
use crate::account;
use crate::chain_config::ChainConfig;
use crate::get_method::{self, GetMethodError, GetMethodOutput, StackEntry};
use crate::message::{Message, MessageHash};
use crate::port::{AccountState, Ledger, LedgerError, LedgerFuture, Page};
use crate::transaction::{TransactionId, TransactionSummary};

/// How long the network's parameters are taken as unchanged. They change by a vote over days.
const CONFIG_LIFE: Duration = Duration::from_secs(600);
/// Transactions in one answer of a liteserver.
const PAGE: u16 = 16;
/// Liteservers that are asked at a time, of different operators. TON's file names about fifty, run
/// for everybody; asking all of them at every block would be a burden, and seven are enough for a
/// majority to mean something.
const PANEL: usize = 7;
/// Attempts at a read: the agreed block may be too old for a server a moment later.
const ATTEMPTS: usize = 3;

/// How the client works.
#[derive(Clone, Debug)]
pub struct Options {
    /// The network whose money this is.
    pub network: Network,
    /// The liteservers.
    pub servers: Vec<ServerAddress>,
    /// Operators that must name a block before it is believed; by default more than half of those
    /// that are asked at a time, which are at most seven.
    pub quorum: Option<usize>,
    /// The network's zero state, where it is known.
    pub zero_state: Option<ZeroState>,
    /// How far the newest block may be behind the local clock; a devnet's may stand still.
    pub max_age: Option<Millis>,
    /// How long an agreed block is the newest before the servers are asked again.
    pub block_life: Millis,
}

impl Options {
    /// The defaults for `network`.
    pub fn new(network: Network, servers: Vec<ServerAddress>) -> Self {
        let real = network != Network::Devnet;
        Self {
            network,
            servers,
            quorum: None,
            zero_state: super::servers::known_zero_state(network),
            max_age: real.then(|| Millis::from_secs(300)),
            // About as long as the main network takes for a block.
            block_life: Millis::new(400),
        }
    }
}

/// Why there is no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// No server.
    #[error("there is no liteserver to ask")]
    NoServer,
    /// More voices asked for than there can be.
    #[error("{quorum} liteservers of different operators shall agree, and there are {operators}")]
    Quorum {
        /// Voices asked for.
        quorum: usize,
        /// Voices that there are.
        operators: usize,
    },
    /// One voice, where money is real.
    #[error(
        "on {} at least two liteservers of different operators must agree: one alone could say \
         anything",
        .0.as_str()
    )]
    OneVoice(Network),
}

/// The client. Clones share it.
#[derive(Clone, Debug)]
pub struct Liteservers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    quorum: usize,
    /// How many are asked at a time.
    panel: usize,
    /// In an order of this client's own.
    servers: Vec<Arc<Server>>,
    agreed: Mutex<Option<Arc<Agreed>>>,
    config: Mutex<Option<(Instant, Arc<ChainConfig>)>>,
    /// Whose turn it is to be asked first.
    turn: AtomicUsize,
}

/// A block that is believed.
#[derive(Debug)]
struct Agreed {
    block: BlockId,
    /// Unix seconds.
    time: u32,
    voters: Vec<Arc<Server>>,
    until: Instant,
}

/// Everybody starts with other servers, so that the load spreads and nobody can tell beforehand
/// whom a node will ask.
fn shuffled(mut servers: Vec<Arc<Server>>) -> Vec<Arc<Server>> {
    let mut seed = [0; 32];
    // Without random numbers the order is that of the settings, which is as good.
    if getrandom::fill(&mut seed).is_ok() {
        let place = |server: &Arc<Server>| -> [u8; 32] {
            let text = server.address.to_string();
            Sha256::new().chain_update(seed).chain_update(text).finalize().into()
        };
        servers.sort_by_cached_key(place);
    }
    servers
}

fn proved_falsely(error: ProofError) -> LedgerError {
    LedgerError::Unreachable(error.into())
}

impl Liteservers {
    /// A client; it connects with the first question.
    ///
    /// # Errors
    ///
    /// When so few servers cannot agree on anything.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        let operators: BTreeSet<_> = options.servers.iter().map(ServerAddress::operator).collect();
        let operators = operators.len();
        if operators == 0 {
            return Err(OptionsError::NoServer);
        }
        let quorum = options.quorum.unwrap_or_else(|| operators.min(PANEL) / 2 + 1);
        if quorum == 0 || quorum > operators {
            return Err(OptionsError::Quorum { quorum, operators });
        }
        if quorum < 2 && options.network != Network::Devnet {
            return Err(OptionsError::OneVoice(options.network));
        }
        let servers = options.servers.iter().map(|address| Arc::new(Server::new(*address)));
        let servers = shuffled(servers.collect());
        let shared = Shared {
            options,
            quorum,
            panel: PANEL.max(quorum.saturating_mul(2).saturating_sub(1)),
            servers,
            agreed: Mutex::new(None),
            config: Mutex::new(None),
            turn: AtomicUsize::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The servers that were caught lying, and what they said.
    pub fn dropped(&self) -> Vec<(ServerAddress, String)> {
        let servers = self.shared.servers.iter();
        servers.filter_map(|server| Some((server.address, server.dropped()?))).collect()
    }

    /// Whether the liteservers serve the network that the client was made for, and agree.
    ///
    /// # Errors
    ///
    /// When they do not.
    pub async fn check_network(&self) -> Result<(), LedgerError> {
        self.shared.agree().await.map(|_| ())
    }

    /// Runs a get method here, on a proved state under proved parameters.
    ///
    /// # Errors
    ///
    /// When the state or the parameters cannot be had; the inner error when there is nothing to
    /// run.
    pub async fn run_get_method(
        &self,
        address: TonAddress,
        method: u32,
        arguments: Vec<StackEntry>,
    ) -> Result<Result<GetMethodOutput, GetMethodError>, LedgerError> {
        let proved = self.shared.account(address).await?;
        let config = self.shared.config().await?;
        let state = proved.account.map(|state| state.load_account()).transpose();
        let Ok(Some(Some(account))) = state else {
            return Ok(Err(GetMethodError::NoCode));
        };
        let run = tokio::task::spawn_blocking(move || {
            get_method::run(config.readable(), &account, proved.time, method, arguments)
        });
        run.await.map_err(|_| LedgerError::Stopped)
    }

    /// The network's parameters, proved.
    ///
    /// # Errors
    ///
    /// When they cannot be had.
    pub async fn parameters(&self) -> Result<BlockchainConfigParams, LedgerError> {
        Ok(self.shared.config().await?.as_published().params)
    }
}

impl Shared {
    /// Whom to ask now: one server of each operator, those that work before those that failed a
    /// moment ago, and none that was caught lying.
    fn panel(&self) -> Vec<Arc<Server>> {
        let mut operators = BTreeSet::new();
        let (working, resting): (Vec<_>, Vec<_>) = self
            .servers
            .iter()
            .filter(|server| server.dropped().is_none())
            .partition(|server| !server.is_resting());
        let servers = working.into_iter().chain(resting);
        let distinct = servers.filter(|server| operators.insert(server.address.operator()));
        distinct.take(self.panel).cloned().collect()
    }

    /// The newest block that enough operators name.
    async fn agree(&self) -> Result<Arc<Agreed>, LedgerError> {
        // Held while asking, so that many callers ask once.
        let mut known = self.agreed.lock().await;
        if let Some(agreed) = known.as_ref()
            && Instant::now() < agreed.until
        {
            return Ok(Arc::clone(agreed));
        }
        let zero = self.options.zero_state.as_ref();
        let (block, voters) = match agreement::vote(&self.panel(), self.quorum, zero).await {
            Vote::Agreed { block, voters } => (block, voters),
            Vote::Split { answered } => {
                let (needed, answered) = (self.quorum, answered);
                return Err(LedgerError::NoAgreement { needed, answered });
            }
            Vote::OtherNetwork => {
                return Err(LedgerError::OtherNetwork { expected: self.options.network });
            }
            Vote::Silence(AskError::Dropped) => {
                return Err(LedgerError::NoAgreement { needed: self.quorum, answered: 0 });
            }
            Vote::Silence(error) => return Err(LedgerError::Unreachable(error.into())),
        };
        let until = Instant::now() + self.options.block_life.to_duration();
        // The believed chain never gets shorter, whoever lags behind.
        if let Some(before) = known.as_ref()
            && before.block.seqno > block.seqno
        {
            return Ok(Arc::clone(before));
        }
        let time = self.time_of(&block, &voters).await?;
        self.check_age(time)?;
        let agreed = Arc::new(Agreed { block, time, voters, until });
        *known = Some(Arc::clone(&agreed));
        Ok(agreed)
    }

    async fn time_of(&self, block: &BlockId, voters: &[Arc<Server>]) -> Result<u32, LedgerError> {
        let query = Query::BlockHeader(*block);
        let network = self.options.network;
        let header = self.first_proved(voters, &query, |answer| {
            if let Answer::BlockHeader { id, proof } = answer
                && id == *block
            {
                return proof::header(&proof, block, network).map(|proved| proved.time);
            }
            Err(ProofError::OtherAnswer)
        });
        header.await
    }

    fn check_age(&self, time: u32) -> Result<(), LedgerError> {
        let Some(max_age) = self.options.max_age else {
            return Ok(());
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let behind = now.saturating_sub(time.into());
        if behind.saturating_mul(1_000) > max_age.get() {
            return Err(LedgerError::OutOfDate { seconds: behind });
        }
        Ok(())
    }

    /// Asks one after another until one gives what `check` accepts. Who gives something else, and
    /// not a refusal, is dropped.
    async fn first_proved<T>(
        &self,
        servers: &[Arc<Server>],
        query: &Query,
        check: impl Fn(Answer) -> Result<T, ProofError>,
    ) -> Result<T, LedgerError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = LedgerError::Unreachable(AskError::Lost.into());
        let count = servers.len().max(1);
        for server in servers.iter().cycle().skip(turn % count).take(count) {
            match server.ask(query).await {
                Ok(Answer::Failed { code, message }) => {
                    tracing::debug!(liteserver = %server.address, code, message, "refused");
                    last = LedgerError::LiteserverRefused { code };
                }
                Ok(answer) => match check(answer) {
                    Ok(value) => return Ok(value),
                    Err(error) => {
                        server.drop_for(&error);
                        last = proved_falsely(error);
                    }
                },
                Err(error) => last = LedgerError::Unreachable(error.into()),
            }
        }
        Err(last)
    }

    /// A read of the newest agreed block; again with a newer one when nobody has it any more.
    async fn read<T>(
        &self,
        query: impl Fn(&BlockId) -> Query,
        check: impl Fn(Answer, &BlockId) -> Result<T, ProofError>,
    ) -> Result<T, LedgerError> {
        let mut failure = None;
        for _ in 0..ATTEMPTS {
            let agreed = self.agree().await?;
            let block = &agreed.block;
            let query = query(block);
            let found = self.first_proved(&agreed.voters, &query, |answer| check(answer, block));
            match found.await {
                Ok(found) => return Ok(found),
                Err(error) => failure = Some(error),
            }
            // Not this block once more.
            let mut known = self.agreed.lock().await;
            if known.as_ref().is_some_and(|known| known.block == agreed.block)
                && let Some(agreed) = known.take()
            {
                let Agreed { block, time, .. } = *agreed;
                let voters = agreed.voters.clone();
                *known = Some(Arc::new(Agreed { block, time, voters, until: Instant::now() }));
            }
        }
        Err(failure.unwrap_or(LedgerError::Unreachable(AskError::Lost.into())))
    }

    async fn account(&self, address: TonAddress) -> Result<ProvedAccount, LedgerError> {
        let network = self.options.network;
        let query = |block: &BlockId| Query::AccountState { block: *block, account: address };
        self.read(query, |answer, block| {
            let Answer::AccountState(answer) = answer else {
                return Err(ProofError::OtherAnswer);
            };
            proof::account(&answer, block, address, network)
        })
        .await
    }

    async fn config(&self) -> Result<Arc<ChainConfig>, LedgerError> {
        let mut known = self.config.lock().await;
        if let Some((until, config)) = known.as_ref()
            && Instant::now() < *until
        {
            return Ok(Arc::clone(config));
        }
        let network = self.options.network;
        let query = |block: &BlockId| Query::Config { block: *block, parameters: None };
        let root = self.read(query, |answer, block| {
            if let Answer::Config { block: named, state_proof, config_proof } = answer
                && named == *block
            {
                return proof::config(&state_proof, &config_proof, block, network);
            }
            Err(ProofError::OtherAnswer)
        });
        let root = root.await?;
        let now = self.agree().await?.time;
        let config = ChainConfig::published(root, network, now);
        let config = config.map_err(|_| LedgerError::BadAnswer { field: "configuration" })?;
        let config = Arc::new(config);
        *known = Some((Instant::now() + CONFIG_LIFE, Arc::clone(&config)));
        Ok(config)
    }

    async fn transactions(
        &self,
        address: TonAddress,
        page: Page,
    ) -> Result<Vec<TransactionSummary>, LedgerError> {
        let wanted = usize::from(page.limit);
        // The page begins after the named transaction, which leads to the one before it.
        let (mut next, mut skip) = match page.before {
            Some(before) => (Some(before), 1),
            None => {
                let proved = self.account(address).await?;
                let at = Timestamp::from_unix_secs(proved.time.into());
                let state = proved.account.map(|state| account::known(address, &state, at));
                let state =
                    state.transpose().map_err(|_| proved_falsely(ProofError::Incomplete))?;
                (state.and_then(|state| state.last_transaction), 0)
            }
        };
        let mut found = Vec::new();
        while found.len() < wanted
            && let Some(newest) = next
        {
            let missing = wanted.saturating_sub(found.len()).saturating_add(skip);
            let count = missing.min(usize::from(PAGE));
            let cells = self.history(address, newest, count).await?;
            next = None;
            for cell in cells {
                let read = cell.parse::<tycho_types::models::Transaction>();
                let read = read.map_err(|_| LedgerError::BadAnswer { field: "transaction" })?;
                next = (read.prev_trans_lt != 0).then_some(TransactionId {
                    lt: read.prev_trans_lt,
                    hash: read.prev_trans_hash.0,
                });
                if std::mem::take(&mut skip) == 0 {
                    let summary = TransactionSummary::from_cell(cell);
                    let bad = |_| LedgerError::BadAnswer { field: "transaction" };
                    found.push(summary.map_err(bad)?);
                }
            }
        }
        found.truncate(wanted);
        Ok(found)
    }

    async fn history(
        &self,
        address: TonAddress,
        newest: TransactionId,
        count: usize,
    ) -> Result<Vec<tycho_types::cell::Cell>, LedgerError> {
        let count_asked = u32::try_from(count).unwrap_or(1);
        let query = |_: &BlockId| Query::Transactions {
            count: count_asked,
            account: address,
            lt: newest.lt,
            hash: newest.hash,
        };
        self.read(query, |answer, _| {
            let Answer::Transactions { transactions, .. } = answer else {
                return Err(ProofError::OtherAnswer);
            };
            proof::transactions(&transactions, address, newest, count)
        })
        .await
    }

    /// Hands the message to all that are asked at a time: whoever drops it or lies about it is only one of them. The
    /// same message many times is one message to its contract.
    async fn send(&self, message: &Message) -> Result<MessageHash, LedgerError> {
        let query = Query::Send(message.to_boc());
        let mut refusals = 0_usize;
        let mut exit_code = None;
        let mut lost = None;
        let mut refused = None;
        for (server, answer) in agreement::ask_all(&self.panel(), &query, self.quorum).await {
            match answer {
                Ok(Answer::Sent { .. }) => return Ok(message.hash()),
                Ok(Answer::Failed { code, message }) => {
                    tracing::debug!(liteserver = %server.address, code, message, "not taken");
                    match crate::toncenter::exit_code(&message) {
                        Some(code) => {
                            refusals += 1;
                            exit_code = exit_code.or(code);
                        }
                        None => refused = Some(code),
                    }
                }
                Ok(_) => lost = Some(AskError::Unreadable),
                Err(error) if error.may_have_arrived() => lost = Some(error),
                Err(error) => {
                    if lost.is_none() && refused.is_none() && refusals == 0 {
                        tracing::debug!(liteserver = %server.address, %error, "not sent");
                    }
                }
            }
        }
        // One server's refusal is not the network's.
        if refusals >= self.quorum {
            return Err(LedgerError::NotAccepted { exit_code });
        }
        match (lost, refused) {
            (Some(error), _) => Err(LedgerError::Unreachable(error.into())),
            (None, Some(code)) if refusals == 0 => Err(LedgerError::LiteserverRefused { code }),
            _ => Err(LedgerError::Unreachable(AskError::Lost.into())),
        }
    }
}

impl Ledger for Liteservers {
    fn network(&self) -> Network {
        self.shared.options.network
    }

    fn now(&self) -> LedgerFuture<'_, Timestamp> {
        Box::pin(async move {
            let agreed = self.shared.agree().await?;
            Ok(Timestamp::from_unix_secs(agreed.time.into()))
        })
    }

    fn account(&self, address: TonAddress) -> LedgerFuture<'_, AccountState> {
        Box::pin(async move {
            let proved = self.shared.account(address).await?;
            let as_of = Timestamp::from_unix_secs(proved.time.into());
            match proved.account {
                None => Ok(account::absent(address, as_of)),
                Some(state) => account::known(address, &state, as_of)
                    .map_err(|_| LedgerError::BadAnswer { field: "account" }),
            }
        })
    }

    fn transactions(
        &self,
        address: TonAddress,
        page: Page,
    ) -> LedgerFuture<'_, Vec<TransactionSummary>> {
        Box::pin(self.shared.transactions(address, page))
    }

    fn send(&self, message: Message) -> LedgerFuture<'_, MessageHash> {
        Box::pin(async move { self.shared.send(&message).await })
    }
}
