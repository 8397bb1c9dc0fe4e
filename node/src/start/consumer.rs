//! What a consumer needs: a policy, funds, and the gateway that its applications talk to.
//!
//! Owns: the order in which they are made, and the errors a person can act on.
//! Must not: serve a request; the driver does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use cocoon_attest::{Appraiser, Clock, PolicyFileError, parse_policy};
use cocoon_gateway::{ApiKey, BindError, Options};
use cocoon_protocol::attest::{NetworkId, Policy};
use cocoon_protocol::channel::funds::{Funds, FundsConfig};
use cocoon_protocol::channel::{PayerState, VaultKey};
use cocoon_protocol::identity::{ModelHash, NodeId};

use crate::budget::Budget;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::driver::event::DriverHandle;
use crate::driver::jobs::{JobDefaults, NodeJobs};
use crate::net::sessions::AsConsumer;
use crate::net::swarm::NetHandle;
use crate::purse::Purse;
use crate::run::Foundation;
use crate::shutdown::Tasks;

/// Largest policy file; a policy lists images by name and measurement, some kilobytes.
const POLICY_BYTES: u64 = 1 << 20;

/// Why this node cannot consume.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The policy's file cannot be read.
    #[error("the attestation policy `{}` cannot be read", path.display())]
    PolicyFile {
        /// The file in the settings.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The policy is not one.
    #[error("the attestation policy `{}` is not valid", path.display())]
    Policy {
        /// The file in the settings.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: PolicyFileError,
    },
    /// The gateway may not listen there.
    #[error("the gateway may not listen there")]
    Bind(#[source] BindError),
    /// The gateway's address is not free.
    #[error("the gateway cannot listen at {address}; choose another with `--gateway-listen`")]
    Listen {
        /// The address in the settings.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A consumer's parts.
pub(crate) struct ConsumerParts {
    /// For sessions.
    pub(crate) sessions: AsConsumer,
    config: FundsConfig,
    key: Arc<VaultKey>,
}

impl ConsumerParts {
    /// The funds, continuing with what the store remembers.
    pub(crate) fn funds(&self, restored: Vec<PayerState>) -> Funds {
        Funds::new(self.config, Arc::clone(&self.key), restored)
    }
}

/// Makes them.
pub(crate) fn parts(
    config: &Config,
    consumer: NodeId,
    purse: &Purse,
    clock: &Clock,
    network: NetworkId,
) -> Result<ConsumerParts, ConsumerError> {
    let policy = match &config.policy {
        Some(path) => read_policy(path)?,
        // Nothing is listed, so nothing is trusted: only `open` providers can serve.
        None => Policy::closed(),
    };
    let key = Arc::clone(&purse.vault_key);
    let sessions = AsConsumer {
        appraiser: Arc::new(Appraiser::new(policy)),
        network,
        clock: clock.clone(),
        own_vault: key.public(),
    };
    let (deposit, allocation) = (config.vault_deposit, config.allocation);
    let config = FundsConfig { consumer, deposit, allocation };
    Ok(ConsumerParts { sessions, config, key })
}

fn read_policy(path: &std::path::Path) -> Result<Policy, ConsumerError> {
    use std::io::Read as _;
    let unreadable = |source| ConsumerError::PolicyFile { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(POLICY_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    parse_policy(&text).map_err(|source| ConsumerError::Policy { path: path.to_owned(), source })
}

/// Starts the gateway.
pub(crate) async fn serve(
    config: &Config,
    foundation: &Foundation,
    names: BTreeMap<String, ModelHash>,
    driver: &DriverHandle,
    net: &NetHandle,
    (budget, mut keys): (&Arc<Budget>, Vec<ApiKey>),
    tasks: &Tasks,
) -> Result<(), ConsumerError> {
    let address = config.gateway_listen;
    keys.extend(config.api_key.iter().map(|key| ApiKey::from_secret(key.expose())));
    cocoon_gateway::check_bind(address, !keys.is_empty()).map_err(ConsumerError::Bind)?;
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|source| ConsumerError::Listen { address, source })?;
    let jobs = NodeJobs {
        node: foundation.key.id(),
        driver: driver.clone(),
        net: net.clone(),
        names: Arc::new(names),
        defaults: JobDefaults {
            network: config.network,
            minimum_tier: config.minimum_tier,
            max_cost: config.max_cost,
            max_price: config.max_price,
        },
        budget: Arc::clone(budget),
        clock: Arc::new(SystemClock),
    };
    let options = Options { keys, ..Options::default() };
    let stop = tasks.stopping().clone();
    tracing::info!(%address, "gateway: OpenAI-compatible endpoint at http://{address}/v1");
    let serve = cocoon_gateway::serve(listener, Arc::new(jobs), options, stop);
    tasks.spawn_service("gateway", serve);
    Ok(())
}
