//! The ledger that a node uses, and the one that it serves to others.
//!
//! Owns: the choice between an embedded chain and a server. Must not: move money.

use std::net::SocketAddr;
use std::sync::Arc;

use cocoon_ledger::embedded::{EmbeddedLedger, Options};
use cocoon_ledger::toncenter::{ClientError, Toncenter};
use cocoon_ledger::{Ledger, LedgerError};
use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::NanoTon;
use futures::future::BoxFuture;

use crate::config::{Config, LedgerChoice};
use crate::data_folder::DataFolder;
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
    faucet: Faucet,
}

#[derive(Clone, Debug)]
enum Faucet {
    Embedded(EmbeddedLedger),
    Server(Toncenter),
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
        }
    }
}

/// Opens the ledger of the settings, and serves it when they say so.
pub(crate) async fn open(
    config: &Config,
    folder: &DataFolder,
    tasks: &Tasks,
) -> Result<LedgerParts, LedgerStartError> {
    match &config.ledger {
        LedgerChoice::Remote(url) => {
            let client = Toncenter::new(url, config.network, None);
            let client = client.map_err(LedgerStartError::Client)?;
            Ok(LedgerParts { ledger: Arc::new(client.clone()), faucet: Faucet::Server(client) })
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
            Ok(LedgerParts { ledger: Arc::new(chain.clone()), faucet: Faucet::Embedded(chain) })
        }
    }
}

async fn serve(
    chain: &EmbeddedLedger,
    address: SocketAddr,
    tasks: &Tasks,
) -> Result<(), LedgerStartError> {
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|source| LedgerStartError::Listen { address, source })?;
    let stop = tasks.stopping().clone();
    let chain = chain.clone();
    tracing::info!(%address, "serving the ledger");
    tasks.spawn_service("ledger server", cocoon_ledger::server::serve(listener, chain, stop));
    Ok(())
}
