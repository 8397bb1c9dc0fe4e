//! The parts of a running node, made in the order in which they need one another.
//!
//! Owns: who is given what. Must not: decide anything; settings and the protocol do.
//!
//! Order: ledger, purse, model and engine, network, protocol state from the store, sessions,
//! driver, gateway. Every part runs as a task of `shutdown.rs`.

pub(crate) mod configuration;
pub mod consumer;
pub(crate) mod evidence;
pub(crate) mod gpus;
pub mod ledger;
pub mod provider;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use cocoon_attest::Appraiser;
use cocoon_attest::collateral::Http;
use cocoon_engine::catalogue::{Catalogue, CatalogueFileError};
use cocoon_gateway::ApiKey;
use cocoon_protocol::Node;
use cocoon_protocol::attest::NetworkId;
use cocoon_protocol::channel::{PayeeState, PayerState};
use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::job::consumer::Consumer;
use cocoon_protocol::job::provider::Provider;
use cocoon_protocol::layout::RecordError;

pub use crate::endorsements::LookError;
use consumer::ConsumerParts;
pub use evidence::EvidenceError;
pub use gpus::GpuError;
pub(crate) use ledger::LedgerParts;

use crate::accounts;
use crate::advisories::Follower;
use crate::api_keys;
use crate::budget::{Budget, Caps};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::driver::event::DriverHandle;
use crate::driver::ledger_desk::LedgerDesk;
use crate::driver::{Driver, World};
use crate::endorsements::Client;
use crate::guard::Guard;
use crate::net::session::Bodies;
use crate::net::sessions::Sessions;
use crate::net::swarm::{Net, NetError, NetHandle};
use crate::purse::{Purse, PurseError};
use crate::releases::{self, Thrift};
use crate::run::Foundation;
use crate::shutdown::Tasks;
use crate::store::{ReadError, Store, Table};
use crate::teller::Teller;

/// Records read from the store at a time.
const SCAN: usize = 512;

/// Why the node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no ledger.
    #[error("the ledger is not available")]
    Ledger(#[source] ledger::LedgerStartError),
    /// There is no wallet.
    #[error("the wallet is not available")]
    Purse(#[source] PurseError),
    /// The catalogue of models cannot be read.
    #[error("the catalogue of models cannot be read")]
    Catalogue(#[source] CatalogueFileError),
    /// The vault's address cannot be computed, or its terms not be kept.
    #[error("the vault cannot be used")]
    Deposit(#[source] crate::vaults::VaultsError),
    /// It cannot provide.
    #[error("this node cannot provide")]
    Provider(#[source] provider::ProviderError),
    /// It cannot consume.
    #[error("this node cannot consume")]
    Consumer(#[source] consumer::ConsumerError),
    /// The network cannot be started.
    #[error("the network cannot be started")]
    Net(#[source] cocoon_overlay::StartError),
    /// An address cannot be listened on.
    #[error("the network address `{address}` cannot be used")]
    Listen {
        /// The address in the settings.
        address: String,
        /// Why.
        #[source]
        source: NetError,
    },
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[source] ReadError),
    /// A record of the store is not what it should be.
    #[error("a record in the store is damaged; restore the data folder from a backup")]
    Record(#[source] RecordError),
    /// The accounts of the last run cannot be closed.
    #[error("the accounts of the last run cannot be closed")]
    Accounts(#[source] accounts::AccountsError),
    /// The API keys cannot be used.
    #[error("the API keys cannot be used")]
    ApiKeys(#[source] api_keys::ApiKeysError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    Random,
}

/// What the control socket asks about a running node.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// The driver.
    pub(crate) driver: DriverHandle,
    /// The network.
    pub(crate) net: NetHandle,
    /// The ledger.
    pub(crate) ledger: LedgerParts,
    /// The ledger's work, for what an operator asks.
    pub(crate) desk: LedgerDesk,
    /// The wallet, on a provider or consumer.
    pub(crate) purse: Option<Arc<Purse>>,
    /// Payments and vaults, on a provider or consumer.
    pub(crate) teller: Option<Arc<Teller>>,
    /// Whether this provider's TEE is simulated.
    pub(crate) simulated: bool,
    /// What this consumer accepts as evidence.
    pub(crate) appraiser: Option<Arc<Appraiser>>,
    /// What may be spent.
    pub(crate) budget: Arc<Budget>,
}

/// Starts everything; returns when the node listens and, as a provider, has loaded its model.
pub(crate) async fn start(
    config: &Config,
    foundation: &Foundation,
    tasks: &Tasks,
) -> Result<Running, StartError> {
    let clock = cocoon_attest::Clock::new(|| SystemClock.now());
    let network = NetworkId::from_name(config.network.as_str());
    let ledger =
        ledger::open(config, &foundation.folder, tasks).await.map_err(StartError::Ledger)?;
    let purse = if config.provide || config.consume {
        let purse = Purse::open(&foundation.keystore, config.network);
        Some(Arc::new(purse.map_err(StartError::Purse)?))
    } else {
        None
    };
    let catalogue = Catalogue::load(&foundation.folder.models()).map_err(StartError::Catalogue)?;
    let providing = match &purse {
        Some(purse) if config.provide => {
            let payout = purse.wallet.address();
            let parts = provider::parts(config, foundation, &catalogue, payout, &clock, network);
            let mut parts = parts.await.map_err(StartError::Provider)?;
            parts.keep_evidence(tasks);
            Some(parts)
        }
        Some(_) | None => None,
    };
    let consuming = match &purse {
        Some(purse) if config.consume => {
            let own = providing.as_ref();
            Some(consumer_parts(config, foundation, purse, own, (&clock, network), tasks).await?)
        }
        Some(_) | None => None,
    };
    follow_advisories(config, foundation, consuming.as_ref(), providing.as_ref(), tasks).await;
    let (net, events) = join(config, foundation, tasks).await?;
    let node = protocol(&foundation.store, consuming.as_ref(), providing.as_ref())?;
    let (driver, inbox) = DriverHandle::new();
    providing.iter().for_each(|parts| parts.follow_gpus(&clock, &driver, tasks));
    let (budget, keys) = budget(config, &foundation.store).await?;
    let sessions = Sessions::new(
        net.clone(),
        consuming.as_ref().map(|parts| parts.sessions.clone()),
        providing.as_ref().map(|parts| parts.sessions.clone()),
        tasks,
    );
    let desk = LedgerDesk::start(config, foundation, &ledger, purse.as_deref(), &driver, tasks);
    let desk = desk.map_err(StartError::Deposit)?;
    let bodies = providing.as_ref().map_or_else(Bodies::default, |it| it.sessions.bodies.clone());
    let simulated = providing.as_ref().is_some_and(|parts| parts.sessions.simulated);
    let world = World {
        clock: Arc::new(SystemClock),
        store: foundation.store.clone(),
        engine: providing.map(|parts| parts.engine),
        ledger: desk.clone(),
        sessions: sessions.clone(),
        bodies,
        budget: Arc::clone(&budget),
        tasks: tasks.clone(),
    };
    tasks.spawn_worker("driver", Driver::new(node, world, driver.clone()).run(inbox));
    tasks.spawn_leaf(Box::pin(sessions.run(events, driver.clone())));
    if let Some(parts) = &consuming {
        let ids = (names(&catalogue), parts.sessions.appraiser.policy().clone());
        let work = consumer::serve(config, foundation, ids, &driver, &net, (&budget, keys), tasks);
        work.await.map_err(StartError::Consumer)?;
    }
    stand_guard(config, foundation, &ledger, &desk, &driver, tasks);
    let teller = purse
        .as_ref()
        .map(|purse| Arc::new(Teller::new(config, foundation, ledger.clone(), Arc::clone(purse))));
    let appraiser = consuming.map(|parts| parts.sessions.appraiser);
    Ok(Running { driver, net, ledger, desk, purse, teller, simulated, appraiser, budget })
}

/// The names by which this node's applications ask for models.
fn names(catalogue: &Catalogue) -> BTreeMap<String, ModelHash> {
    catalogue.iter().map(|(name, model)| (name.to_owned(), model.hash)).collect()
}

/// Puts in force what the maintainers withdraw whom the node's policies follow, and keeps asking.
async fn follow_advisories(
    config: &Config,
    foundation: &Foundation,
    consuming: Option<&ConsumerParts>,
    providing: Option<&provider::ProviderParts>,
    tasks: &Tasks,
) {
    let consumer = consuming.map(|parts| &parts.sessions.appraiser);
    let demand = providing.and_then(|parts| parts.sessions.demand.as_ref());
    let followed = [
        ("consumer", consumer, &config.policy),
        ("provider", demand.map(|demand| &demand.appraiser), &config.consumer_policy),
    ];
    // Without a client, lists from files and those that were kept still hold, and the log says so.
    let http = Client::new().ok().map(|client| Arc::new(client) as Arc<dyn Http>);
    for (role, appraiser, policy) in followed {
        if let (Some(appraiser), Some(policy)) = (appraiser, policy) {
            let kept = foundation.folder.path().join("advisories").join(role);
            Follower::start(Arc::clone(appraiser), http.clone(), policy, kept).await.run(tasks);
        }
    }
}

/// What a consumer needs, with the evidence that it shows to providers that demand some.
async fn consumer_parts(
    config: &Config,
    foundation: &Foundation,
    purse: &Purse,
    providing: Option<&provider::ProviderParts>,
    (clock, network): (&cocoon_attest::Clock, NetworkId),
    tasks: &Tasks,
) -> Result<ConsumerParts, StartError> {
    let own =
        provider::consumer_identity(config, foundation, providing, clock, network, tasks).await;
    let own = (network, own.map_err(StartError::Provider)?);
    consumer::parts(config, foundation.key.id(), purse, clock, own).map_err(StartError::Consumer)
}

/// Starts what follows vaults on the ledger by itself: a provider's guard over its vouchers, and a
/// consumer's over its releases.
fn stand_guard(
    config: &Config,
    foundation: &Foundation,
    ledger: &LedgerParts,
    desk: &LedgerDesk,
    driver: &DriverHandle,
    tasks: &Tasks,
) {
    if config.provide {
        let guard = Guard {
            store: foundation.store.clone(),
            key: foundation.key.clone(),
            ledger: Arc::clone(&ledger.ledger),
            driver: driver.clone(),
            network: config.network,
            export: config.voucher_export.clone(),
        };
        guard.start(tasks);
    }
    let thrift = Thrift { allocation: config.allocation, idle: config.idle_release };
    releases::follow(desk.clone(), driver.clone(), thrift, tasks);
}

/// What may be spent, and the keys that may spend it. The accounts of jobs that a killed process
/// left running are ended first.
async fn budget(config: &Config, store: &Store) -> Result<(Arc<Budget>, Vec<ApiKey>), StartError> {
    accounts::end_what_ran(store, SystemClock.now()).await.map_err(StartError::Accounts)?;
    let mut caps = Caps { daily: config.max_spend, ..Caps::default() };
    let keys = match &config.api_keys {
        Some(path) => api_keys::read(path, &mut caps).map_err(StartError::ApiKeys)?,
        None => Vec::new(),
    };
    let budget = Budget::open(caps, store, SystemClock.now()).map_err(StartError::Accounts)?;
    Ok((Arc::new(budget), keys))
}

/// The protocol's state, continuing with what the store remembers.
fn protocol(
    store: &Store,
    consuming: Option<&ConsumerParts>,
    providing: Option<&provider::ProviderParts>,
) -> Result<Node, StartError> {
    let consumer = match consuming {
        Some(parts) => {
            let payers = restored(store, Table::Payer, PayerState::decode)?;
            Some(Consumer::new(parts.funds(payers)))
        }
        None => None,
    };
    let provider = match providing {
        Some(parts) => {
            let payees = restored(store, Table::Payee, PayeeState::decode)?;
            Some(Provider::new(parts.config.clone(), payees).with_pricing(parts.pricing()))
        }
        None => None,
    };
    Ok(Node::new(consumer, provider))
}

/// Starts the network and joins it.
async fn join(
    config: &Config,
    foundation: &Foundation,
    tasks: &Tasks,
) -> Result<(NetHandle, tokio::sync::mpsc::Receiver<crate::net::swarm::NetEvent>), StartError> {
    let role = match (config.provide, config.consume) {
        (true, _) => cocoon_overlay::Role::Provider,
        (false, true) => cocoon_overlay::Role::Consumer,
        (false, false) => cocoon_overlay::Role::Relay,
    };
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| StartError::Random)?;
    let settings =
        cocoon_overlay::Config::new(foundation.key.clone(), role, seed, || SystemClock.now());
    let (net, events, work) =
        Net::new(settings).map_err(StartError::Net)?.split(tasks.stopping().clone());
    tasks.spawn_service("network", async move {
        work.await;
        Ok::<_, Infallible>(())
    });
    for address in &config.listen {
        if let Err(source) = net.listen(address.clone()).await {
            return Err(StartError::Listen { address: address.to_string(), source });
        }
    }
    for address in &config.entry_points {
        if net.dial(address.clone()).await.is_err() {
            tracing::warn!(%address, "the entry point cannot be used");
        }
    }
    Ok((net, events))
}

/// All records of a table.
fn restored<T>(
    store: &Store,
    table: Table,
    decode: fn(&[u8]) -> Result<T, RecordError>,
) -> Result<Vec<T>, StartError> {
    let mut records = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.scan(table, after.as_deref(), SCAN).map_err(StartError::Store)?;
        let Some((last, _)) = page.last() else { return Ok(records) };
        after = Some(last.clone());
        for (_, value) in &page {
            records.push(decode(value).map_err(StartError::Record)?);
        }
    }
}
