//! What a provider needs: a model, an engine, evidence, an offer.
//!
//! Owns: the order in which they are made, and the errors a person can act on.
//! Must not: serve; the driver does.

use std::path::PathBuf;
use std::sync::Arc;

use cocoon_attest::channel::{ChannelIdentity, ConsumerDemand, IdentityOptions};
use cocoon_attest::{Appraiser, Clock};
use cocoon_engine::catalogue::{Catalogue, Model, ResolveError};
use cocoon_engine::echo::EchoSettings;
use cocoon_engine::{EchoEngine, Engine};
use cocoon_protocol::attest::{NetworkId, Tier};
use cocoon_protocol::identity::{ModelHash, TonAddress};
use cocoon_protocol::job::provider::ProviderConfig;
use cocoon_protocol::offer::{ModelOffer, manifest};
use cocoon_protocol::pricing;
use cocoon_protocol::units::{Millis, Prices, Tokens};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::config::{Config, EngineChoice};
use crate::driver::event::DriverHandle;
use crate::endorsements::{Keeping, keep_identity};
use crate::gpu_standing::NotedGpus;
use crate::net::session::Bodies;
use crate::net::sessions::AsProvider;
use crate::policy_source::{ReadPolicyError, read_policy};
use crate::run::Foundation;
use crate::shutdown::Tasks;
use crate::start::configuration;
#[cfg(feature = "llama")]
use crate::start::evidence::private_weights;
use crate::start::evidence::{EvidenceError, Proof, Purpose, prove};

/// Why this node cannot provide.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The settings name no model.
    #[error("`model` is not set: nothing to provide")]
    NoModel,
    /// The model's name is in no catalogue.
    #[error("the model `{name}` is not known")]
    UnknownModel {
        /// The name in the settings.
        name: String,
        /// Why.
        #[source]
        source: ResolveError,
    },
    /// The catalogue has no file for the model.
    #[error(
        "the catalogue knows no file for this model; add it with `cocoon-node models add FILE`"
    )]
    NoFile,
    /// This program's own path cannot be found, which the engine's process needs.
    #[error("this program's own path cannot be found")]
    OwnPath(#[source] std::io::Error),
    /// The engine cannot start.
    #[cfg(feature = "llama")]
    #[error("the engine cannot start")]
    Engine(#[source] cocoon_engine::llama::StartError),
    /// llama.cpp is not in this build.
    #[cfg(not(feature = "llama"))]
    #[error("this build has no llama.cpp: build with the feature `llama`, or use `--engine echo`")]
    NoLlama,
    /// The policy for consumers cannot be used. Without it anybody would be served.
    #[error("`consumer_policy` cannot be used")]
    ConsumerPolicy(#[source] ReadPolicyError),
    /// The evidence that was asked for cannot be made.
    #[error("the evidence that `attester` asks for cannot be made")]
    Evidence(#[source] EvidenceError),
}

/// A provider's parts.
pub(crate) struct ProviderParts {
    /// Computes.
    pub(crate) engine: Arc<dyn Engine>,
    /// For the protocol.
    pub(crate) config: ProviderConfig,
    /// For sessions.
    pub(crate) sessions: AsProvider,
    /// Keeps a TEE's endorsements fresh; to be started.
    keeping: Option<Keeping>,
    /// The GPUs beside the TEE; to be followed.
    gpus: Option<Arc<NotedGpus>>,
    pricing: Arc<dyn pricing::Policy>,
}

impl ProviderParts {
    /// How prices move: not at all, or within the owner's bounds.
    pub(crate) fn pricing(&self) -> Arc<dyn pricing::Policy> {
        Arc::clone(&self.pricing)
    }

    /// Starts what lets the offer fall with the GPUs that no longer prove themselves.
    pub(crate) fn follow_gpus(&self, clock: &Clock, driver: &DriverHandle, tasks: &Tasks) {
        if let Some(gpus) = self.gpus.clone() {
            gpus.follow(clock.clone(), driver.clone(), tasks);
        }
    }

    /// Starts what keeps endorsements and certificate fresh.
    pub(crate) fn keep_evidence(&mut self, tasks: &Tasks) {
        if let Some(keeping) = self.keeping.take() {
            keeping.start(tasks);
        }
        keep_identity(Arc::clone(&self.sessions.identity), tasks);
    }
}

fn pricing_of(config: &Config) -> Arc<dyn pricing::Policy> {
    let own = config.completion_price;
    if config.price_minimum.is_none() && config.price_maximum.is_none() {
        return Arc::new(pricing::Fixed);
    }
    let (least, most) = (config.price_minimum.unwrap_or(own), config.price_maximum.unwrap_or(own));
    Arc::new(pricing::Adaptive::within(own, least, most))
}

/// Makes them. Loading a model takes seconds.
pub(crate) async fn parts(
    config: &Config,
    foundation: &Foundation,
    catalogue: &Catalogue,
    payout: TonAddress,
    clock: &Clock,
    network: NetworkId,
) -> Result<ProviderParts, ProviderError> {
    let demand = demand(config, clock, network)?;
    let chosen = choose(config, catalogue)?;
    let engine = start_engine(config, &chosen).await?;
    let capabilities = engine.capabilities();
    let models = vec![chosen.offer(capabilities.context, config.prices())];
    let manifest = manifest(&capabilities.build, &models);
    let configuration = configuration::digest(config, &capabilities.build, &manifest);
    let folder = &foundation.folder;
    let proof = prove(&Purpose { config, folder, configuration, clock }).await;
    let Proof { attester, tier, simulated, gpus, keeping } =
        proof.map_err(ProviderError::Evidence)?;
    tracing::info!(
        model = %chosen.hash,
        name = chosen.name,
        build = capabilities.build,
        configuration = hex::encode(configuration),
        context = capabilities.context.get(),
        slots = capabilities.slots,
        tier = %tier,
        simulated,
        "ready to provide"
    );
    // Of what the identity quote covers, which is the TEE: GPUs come and go beside it.
    let quoted = tier.min(Tier::Attested);
    let capabilities_digest = Sha256::digest(format!("{} {quoted}", chosen.hash)).into();
    let provider = ProviderConfig {
        key: foundation.key.clone(),
        network: config.network.global_id(),
        models,
        engine: capabilities.build,
        tier,
        evidence_digest: (tier > Tier::Open).then_some(capabilities_digest),
        payout,
        region: config.region.as_ref().map(ToString::to_string).unwrap_or_default(),
        settle_threshold: config.settle_threshold,
        watch_every: watch_every(config.release_delay),
    };
    let identity = ChannelIdentity::new(IdentityOptions {
        key: foundation.key.clone(),
        attester,
        network,
        capabilities: capabilities_digest,
        configuration,
        model_manifest: Some(manifest),
        clock: clock.clone(),
    });
    Ok(ProviderParts {
        engine,
        config: provider,
        keeping,
        gpus,
        pricing: pricing_of(config),
        sessions: AsProvider {
            identity: Arc::new(identity),
            tier,
            simulated,
            demand,
            bodies: Bodies::default(),
            room: Arc::new(Semaphore::new(cocoon_protocol::limits::SESSIONS)),
        },
    })
}

/// What consumers have to prove, where the owner wants that.
fn demand(
    config: &Config,
    clock: &Clock,
    network: NetworkId,
) -> Result<Option<ConsumerDemand>, ProviderError> {
    let Some(path) = &config.consumer_policy else { return Ok(None) };
    let policy = read_policy(path).map_err(ProviderError::ConsumerPolicy)?;
    tracing::info!(policy = %policy.id(), "only attested consumers are served");
    let (appraiser, clock) = (Arc::new(Appraiser::new(policy)), clock.clone());
    Ok(Some(ConsumerDemand { appraiser, network, clock }))
}

/// What this node shows as a consumer to a provider that demands it: its provider's identity where
/// it is one, for a machine has one TEE and that makes one quote at a time; none without a TEE.
pub(super) async fn consumer_identity(
    config: &Config,
    foundation: &Foundation,
    providing: Option<&ProviderParts>,
    clock: &Clock,
    network: NetworkId,
    tasks: &Tasks,
) -> Result<Option<Arc<ChannelIdentity>>, ProviderError> {
    if let Some(parts) = providing {
        let attested = parts.sessions.tier > Tier::Open;
        return Ok(attested.then(|| Arc::clone(&parts.sessions.identity)));
    }
    let folder = &foundation.folder;
    // It serves no model.
    let configuration = configuration::digest(config, "", &[0; 32]);
    let proof = prove(&Purpose { config, folder, configuration, clock }).await;
    let Proof { attester, tier, keeping, .. } = proof.map_err(ProviderError::Evidence)?;
    if tier == Tier::Open {
        return Ok(None);
    }
    if let Some(keeping) = keeping {
        keeping.start(tasks);
    }
    Ok(Some(Arc::new(ChannelIdentity::new(IdentityOptions {
        key: foundation.key.clone(),
        attester,
        network,
        capabilities: [0; 32],
        configuration,
        model_manifest: None,
        clock: clock.clone(),
    }))))
}

struct Chosen {
    hash: ModelHash,
    name: String,
    quantisation: String,
    path: Option<PathBuf>,
}

impl Chosen {
    fn offer(&self, context: Tokens, prices: Prices) -> ModelOffer {
        let (name, quantisation) = (self.name.clone(), self.quantisation.clone());
        ModelOffer { model: self.hash, name, quantisation, context, prices }
    }
}

/// A release is noticed with at least two looks to spare before the consumer can take back what is
/// not settled; beyond a minute there is nothing to gain.
fn watch_every(release_delay: Millis) -> Millis {
    let third = release_delay.get().div_ceil(3).max(1);
    Millis::new(third).min(Millis::from_secs(60))
}

fn choose(config: &Config, catalogue: &Catalogue) -> Result<Chosen, ProviderError> {
    let Some(asked) = config.model.as_ref().map(ToString::to_string) else {
        return if config.engine == EngineChoice::Echo {
            Ok(echo_model())
        } else {
            Err(ProviderError::NoModel)
        };
    };
    let hash = catalogue.resolve(&asked).map_err(|source| {
        let name = asked.clone();
        ProviderError::UnknownModel { name, source }
    })?;
    let known = catalogue.find(hash);
    let announced = config.model_name.as_ref().map(ToString::to_string);
    let name = announced.or_else(|| known.map(|(name, _)| name.to_owned()));
    let quantisation = known.and_then(|(_, model): (_, &Model)| model.quantisation.clone());
    Ok(Chosen {
        hash,
        name: name.unwrap_or_default(),
        quantisation: quantisation.unwrap_or_default(),
        path: known.and_then(|(_, model)| model.path.clone()),
    })
}

/// What the echo engine serves when no model is named: a hash that no file has.
fn echo_model() -> Chosen {
    let hash = ModelHash::from_bytes(*blake3::hash(b"cocoon/echo").as_bytes());
    Chosen { hash, name: "echo".to_owned(), quantisation: String::new(), path: None }
}

async fn start_engine(config: &Config, chosen: &Chosen) -> Result<Arc<dyn Engine>, ProviderError> {
    match config.engine {
        EngineChoice::Echo => {
            let mut settings = EchoSettings::new(chosen.hash);
            settings.slots = u32::from(config.engine_slots.get());
            settings.context = config.context_tokens;
            settings.token_delay = config.echo_delay.to_duration();
            Ok(Arc::new(EchoEngine::new(settings)))
        }
        EngineChoice::Llama => start_llama(config, chosen).await,
    }
}

#[cfg(feature = "llama")]
async fn start_llama(config: &Config, chosen: &Chosen) -> Result<Arc<dyn Engine>, ProviderError> {
    use cocoon_engine::LlamaEngine;
    use cocoon_engine::llama::LlamaSettings;
    let path = chosen.path.clone().ok_or(ProviderError::NoFile)?;
    let worker = std::env::current_exe().map_err(ProviderError::OwnPath)?;
    let mut settings = LlamaSettings::new(path, chosen.hash, worker);
    settings.worker_arguments = vec!["engine-worker".into()];
    settings.context = config.context_tokens;
    settings.slots = u32::from(config.engine_slots.get());
    // Few jobs fill their context: memory for half of what all places could use.
    let all = u64::from(config.context_tokens.get()).saturating_mul(settings.slots.into());
    let half = u32::try_from(all.div_ceil(2)).unwrap_or(u32::MAX);
    settings.cells = config.context_tokens.max(Tokens::new(half));
    settings.threads = u32::from(config.engine_threads.get());
    settings.private_weights = private_weights(config.attester).await;
    let engine = LlamaEngine::start(settings).await.map_err(ProviderError::Engine)?;
    Ok(Arc::new(engine))
}

#[cfg(not(feature = "llama"))]
#[expect(clippy::unused_async, reason = "as its counterpart")]
async fn start_llama(_: &Config, _: &Chosen) -> Result<Arc<dyn Engine>, ProviderError> {
    Err(ProviderError::NoLlama)
}
