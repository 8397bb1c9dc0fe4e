//! What a consumer needs: a policy, funds, and the gateway that its applications talk to.
//!
//! Owns: the order in which they are made, and the errors a person can act on.
//! Must not: serve a request; the driver does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use cocoon_attest::channel::ChannelIdentity;
use cocoon_attest::{Appraiser, Clock};
use cocoon_gateway::{ApiKey, BindError, Options};
use cocoon_protocol::attest::{NetworkId, Policy, Tier};
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
use crate::policy_source::{ReadPolicyError, read_policy};
use crate::purse::Purse;
use crate::run::Foundation;
use crate::shutdown::Tasks;

/// Why this node cannot consume.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// There is no policy to go by.
    #[error(transparent)]
    Policy(#[from] ReadPolicyError),
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
    (network, identity): (NetworkId, Option<Arc<ChannelIdentity>>),
) -> Result<ConsumerParts, ConsumerError> {
    let policy = match &config.policy {
        Some(path) => read_policy(path)?,
        // Nothing is listed, so nothing is trusted: only `open` providers can serve.
        None => Policy::closed(),
    };
    let demanded = policy.demanded(config.minimum_tier);
    if demanded == Tier::Confidential && !policy.lists_gpus() {
        tracing::warn!(
            minimum_tier = %config.minimum_tier,
            "requests need tier confidential, by `minimum_tier` or by the policy, and the policy lists \
             no state of a GPU: they are refused unless they ask for a lower tier; add [gpu] with \
             golden values to the policy"
        );
    }
    let key = Arc::clone(&purse.vault_key);
    let sessions = AsConsumer {
        appraiser: Arc::new(Appraiser::new(policy)),
        network,
        identity,
        clock: clock.clone(),
        own_vault: key.public(),
    };
    let (deposit, allocation) = (config.vault_deposit, config.allocation);
    let config = FundsConfig { consumer, deposit, allocation };
    Ok(ConsumerParts { sessions, config, key })
}

/// Starts the gateway.
pub(crate) async fn serve(
    config: &Config,
    foundation: &Foundation,
    (names, policy): (BTreeMap<String, ModelHash>, Policy),
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
            policy,
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
