//! The ledger that a node uses, and the one that it serves to others.
//!
//! Owns: the choice between an embedded chain, liteservers and a server. Must not: move money.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use cocoon_ledger::embedded::{EmbeddedLedger, Options};
use cocoon_ledger::liteserver::{
    self, GlobalConfig, Liteservers, OptionsError, ServerAddress, ServersError,
};
use cocoon_ledger::registry::{RegistryView, read_registry};
use cocoon_ledger::toncenter::{ClientError, Toncenter};
use cocoon_ledger::{Ledger, LedgerError};
use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::NanoTon;
use futures::future::BoxFuture;
use tokio::net::TcpListener;

use crate::config::{Config, LedgerChoice};
use crate::data_folder::{DataFolder, FolderError, write_private};
use crate::shutdown::Tasks;
use crate::store::make_database;

/// Why there is no ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerStartError {
    /// The embedded chain's file cannot be made.
    #[error("the embedded ledger cannot be made")]
    File(#[source] crate::store::OpenError),
    /// The embedded chain's file cannot be used.
    #[error("the embedded ledger cannot be opened")]
    Embedded(#[source] LedgerError),
    /// The URL is not usable.
    #[error("the ledger's URL cannot be used")]
    Client(#[source] ClientError),
    /// The file that names liteservers cannot be read.
    #[error("cannot read the global configuration {}", path.display())]
    TonConfig {
        /// The file in the settings.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file that names liteservers is not one, or is another network's.
    #[error("the global configuration cannot be used")]
    Servers(#[source] ServersError),
    /// These liteservers cannot agree on anything.
    #[error("the liteservers cannot be used")]
    Liteservers(#[source] OptionsError),
    /// The ledger is of another network than the settings say.
    #[error("the ledger does not fit the settings")]
    Network(#[source] LedgerError),
    /// The file that names this node's liteserver cannot be written.
    #[error("the liteserver's configuration file cannot be written")]
    Describe(#[source] FolderError),
    /// The address to serve at is not free.
    #[error("the ledger cannot be served at {address}")]
    Listen {
        /// The address in the settings.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A ledger, and the faucet that a devnet has.
#[derive(Clone, Debug)]
pub(crate) struct LedgerParts {
    /// The port.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// The registry of the settings, as it was at the start; `None` where none is named, or what it
    /// says could not be read or proved.
    pub(crate) registry: Option<RegistryView>,
    faucet: Faucet,
}

#[derive(Clone, Debug)]
enum Faucet {
    Embedded(EmbeddedLedger),
    Server(Toncenter),
    /// Liteservers have none; coins come over the HTTP interface of the devnet's node.
    None,
}

impl LedgerParts {
    /// Coins from nowhere; only a devnet has them.
    pub(crate) fn fund(
        &self,
        to: TonAddress,
        amount: NanoTon,
    ) -> BoxFuture<'_, Result<(), LedgerError>> {
        match &self.faucet {
            Faucet::Embedded(chain) => Box::pin(chain.faucet(to, amount)),
            Faucet::Server(client) => {
                Box::pin(async move { client.faucet(to, amount).await.map(|_| ()) })
            }
            Faucet::None => Box::pin(async { Err(LedgerError::NoFaucet) }),
        }
    }
}

/// Opens the ledger of the settings, serves it when they say so, and reads their registry.
pub(crate) async fn open(
    config: &Config,
    folder: &DataFolder,
    tasks: &Tasks,
) -> Result<LedgerParts, LedgerStartError> {
    let mut parts = connect(config, folder, tasks).await?;
    if let Some(address) = config.registry {
        parts.registry = registry(config, parts.ledger.as_ref(), address.address()).await;
    }
    Ok(parts)
}

/// What cannot be read is no reason to stand still: vaults that exist keep their fee, and whoever
/// needs a new one is told.
async fn registry(
    config: &Config,
    ledger: &dyn Ledger,
    address: TonAddress,
) -> Option<RegistryView> {
    match read_registry(ledger, address).await {
        Ok(view) if view.verified || config.accept_unverified_ledger => Some(view),
        Ok(_) => {
            tracing::warn!(%address, "the registry is not followed: nothing proves what it says");
            None
        }
        Err(error) => {
            let error = crate::driver::ledger_desk::chain(&error);
            tracing::warn!(%address, %error, "the registry cannot be read");
            None
        }
    }
}

async fn connect(
    config: &Config,
    folder: &DataFolder,
    tasks: &Tasks,
) -> Result<LedgerParts, LedgerStartError> {
    let registry = None;
    match &config.ledger {
        LedgerChoice::Remote(url) => {
            let client = Toncenter::new(url, config.network, None);
            let client = client.map_err(LedgerStartError::Client)?;
            disagreement(client.check_network().await)?;
            if config.network != Network::Devnet {
                tracing::warn!("the ledger's server is believed: nothing it says is verified");
            }
            Ok(LedgerParts {
                ledger: Arc::new(client.clone()),
                registry,
                faucet: Faucet::Server(client),
            })
        }
        LedgerChoice::Liteservers => {
            let client = Liteservers::new(liteserver_options(config)?);
            let client = client.map_err(LedgerStartError::Liteservers)?;
            disagreement(client.check_network().await)?;
            Ok(LedgerParts { ledger: Arc::new(client), registry, faucet: Faucet::None })
        }
        LedgerChoice::Embedded => {
            make_database(&folder.ledger()).map_err(LedgerStartError::File)?;
            let chain = EmbeddedLedger::open(&folder.ledger(), Options::default());
            let chain = chain.map_err(LedgerStartError::Embedded)?;
            let (blocks, stop) = (chain.clone(), tasks.stopping().clone());
            tasks.spawn_leaf(async move { blocks.produce_blocks(stop).await });
            if let Some(address) = config.ledger_listen {
                serve(&chain, address, tasks).await?;
            }
            if let Some(address) = config.ledger_liteserver_listen {
                serve_proofs(&chain, address, folder, tasks).await?;
            }
            Ok(LedgerParts {
                ledger: Arc::new(chain.clone()),
                registry,
                faucet: Faucet::Embedded(chain),
            })
        }
    }
}

/// A ledger of another network is the end; one that cannot be reached yet is not: the node may
/// start before its ledger does.
fn disagreement(checked: Result<(), LedgerError>) -> Result<(), LedgerStartError> {
    match checked {
        Ok(()) => Ok(()),
        Err(error @ LedgerError::OtherNetwork { .. }) => Err(LedgerStartError::Network(error)),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the ledger cannot be asked yet which network it is on"
            );
            Ok(())
        }
    }
}

/// The liteservers of the settings: those in the file and those named one by one.
fn liteserver_options(config: &Config) -> Result<liteserver::Options, LedgerStartError> {
    let mut options = liteserver::Options::new(config.network, Vec::new());
    if let Some(path) = &config.ton_config {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LedgerStartError::TonConfig { path: path.clone(), source })?;
        let file = GlobalConfig::read(&text, config.network).map_err(LedgerStartError::Servers)?;
        options.servers = file.servers;
        options.zero_state = file.zero_state;
    }
    options.servers.extend(config.liteservers.iter().copied());
    options.quorum = config.liteserver_quorum.map(|quorum| quorum.get().into());
    Ok(options)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, LedgerStartError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| LedgerStartError::Listen { address, source })
}

async fn serve(
    chain: &EmbeddedLedger,
    address: SocketAddr,
    tasks: &Tasks,
) -> Result<(), LedgerStartError> {
    let listener = listen(address).await?;
    let stop = tasks.stopping().clone();
    let chain = chain.clone();
    tracing::info!(%address, "serving the ledger");
    tasks.spawn_service("ledger server", cocoon_ledger::server::serve(listener, chain, stop));
    Ok(())
}

async fn serve_proofs(
    chain: &EmbeddedLedger,
    address: SocketAddr,
    folder: &DataFolder,
    tasks: &Tasks,
) -> Result<(), LedgerStartError> {
    let listener = listen(address).await?;
    let address = listener.local_addr().unwrap_or(address);
    let key = chain.liteserver_key().await.map_err(LedgerStartError::Embedded)?;
    let server = ServerAddress { address, key: key.verifying_key() };
    let description = GlobalConfig::write(&server, &chain.first_state());
    write_private(&folder.liteserver_config(), description.as_bytes())
        .map_err(LedgerStartError::Describe)?;
    tracing::info!(liteserver = %server, "serving the ledger with proofs");
    let serving =
        cocoon_ledger::server::adnl::serve(listener, chain.clone(), key, tasks.stopping().clone());
    tasks.spawn_service("liteserver", serving);
    Ok(())
}
