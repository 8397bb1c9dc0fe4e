//! What a host is and has: everything that stays the same across its restarts.
//!
//! Owns: the parameters, with their units. Must not: change while a run goes on.

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::channel::VaultKey;
use cocoon_protocol::channel::funds::FundsConfig;
use cocoon_protocol::identity::{Network, NodeKey, TonAddress};
use cocoon_protocol::job::provider::ProviderConfig;
use cocoon_protocol::offer::{self, ModelOffer};
use cocoon_protocol::units::{Millis, NanoTon};
use cocoon_protocol::{pricing, selection};
use simnet_scenario::adversary::Control;
use simnet_scenario::population::ChurnClass;
use simnet_scenario::{Adversary, AdversaryKind, Link, Seed};

use crate::behaviour::Plan;
use crate::engine::EngineSpec;
use crate::fabric::HostId;
use crate::store::StoreSpec;

/// One host of the population.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// Its number.
    pub id: HostId,
    /// Its identity.
    pub key: NodeKey,
    /// The seed of the run; the host draws its own faults from it.
    pub seed: Seed,
    /// Where it stands: an index into the scenario's regions.
    pub region: u16,
    /// What kind of host it is: an index into [`crate::population::classes`].
    pub class: u16,
    /// How it is connected.
    pub link: Link,
    /// How long it stays.
    pub churn: ChurnClass,
    /// Own clock minus the run's clock, in milliseconds.
    pub skew_ms: i64,
    /// Its disk, and what is wrong with it; most hosts of a run have the same.
    pub store: Arc<StoreSpec>,
    /// Whether it is an adversary of the scenario; for the tables, no other host knows.
    pub hostile: bool,
    /// How it departs from the protocol; `None` for an honest host.
    pub behaviour: Option<Box<Plan>>,
    /// The scenario's group of adversaries that it belongs to. What of it is the host's own stands in
    /// [`Self::behaviour`] and its parameters; places in the overlay are the tier's part.
    pub adversary: Option<Arc<Adversary>>,
    /// The scenario's group of adversaries that is after this very host, by its place in the
    /// scenario. It is honest.
    pub victim_of: Option<u16>,
    /// What it is as a consumer, if it is one.
    pub consumer: Option<ConsumerSpec>,
    /// What it is as a provider, if it is one.
    pub provider: Option<Box<ProviderSpec>>,
}

impl HostSpec {
    /// Whether it never runs: the control of an attack by hosts that would not be there without it.
    pub fn is_absent(&self) -> bool {
        self.adversary.as_ref().is_some_and(|it| it.control == Some(Control::Absent))
    }

    /// Whether it is an adversary of this kind, and attacks.
    pub fn attacks_as(&self, kind: AdversaryKind) -> bool {
        self.adversary.as_ref().is_some_and(|it| it.kind == kind && it.attacks())
    }

    /// A host without a role, in the first region, with a right clock and a disk that does no harm.
    pub fn plain(id: HostId, seed: Seed) -> Self {
        Self {
            id,
            key: NodeKey::from_secret(&seed.bytes("node key", id.0.into())),
            seed,
            region: 0,
            class: 0,
            link: Link::default(),
            churn: ChurnClass::None,
            skew_ms: 0,
            store: Arc::default(),
            hostile: false,
            behaviour: None,
            adversary: None,
            victim_of: None,
            consumer: None,
            provider: None,
        }
    }

    /// Its vault's hot key, if it is a consumer.
    pub fn vault_key(&self) -> Option<Arc<VaultKey>> {
        Some(match &self.consumer.as_ref()?.vault_key {
            HotKey::Drawn => {
                let secret = self.seed.bytes("vault key", self.id.0.into());
                Arc::new(VaultKey::from_secret(&secret))
            }
            HotKey::Given(key) => Arc::clone(key),
        })
    }
}

/// Where a consumer's vault has its hot key from.
#[derive(Clone, Debug, Default)]
pub enum HotKey {
    /// Drawn from the run's seed whenever it is needed: most consumers of a large run are idle, and
    /// a million keys are eighty megabytes.
    #[default]
    Drawn,
    /// This one.
    Given(Arc<VaultKey>),
}

/// A consumer of the scenario.
#[derive(Clone, Debug)]
pub struct ConsumerSpec {
    /// Its vault's hot key; [`HostSpec::vault_key`] has it.
    pub vault_key: HotKey,
    /// What it deposits when it opens its vault.
    pub deposit: NanoTon,
    /// What it sets aside for a provider at a time.
    pub allocation: NanoTon,
    /// How long its users wait for a first token before they leave; `None`: for ever.
    pub patience: Option<Duration>,
    /// How it chooses a provider; [`crate::policy::selection`] has them by name.
    pub policy: Arc<dyn selection::Policy>,
}

/// A provider of the scenario.
#[derive(Clone, Debug)]
pub struct ProviderSpec {
    /// What it serves, at which prices.
    pub models: Vec<ModelOffer>,
    /// The tier that it claims.
    pub tier: Tier,
    /// The tier that it really is.
    pub genuine: Tier,
    /// Where settlements go.
    pub payout: TonAddress,
    /// Jobs that its engine runs at a time.
    pub places: u32,
    /// Jobs beyond them that it takes and lets wait for a place. The node's own engine refuses
    /// instead (0); servers behind it, vLLM for one, queue.
    pub queue: u32,
    /// Prompt tokens that it reads in a second, one job alone.
    pub prefill_per_second: f64,
    /// Completion tokens that it writes in a second, one job alone.
    pub decode_per_second: f64,
    /// How much each further job in the batch lengthens a step, in steps of one job alone; see
    /// [`crate::engine`] for measured values.
    pub contention: f64,
    /// How long written tokens may wait for others to travel with. The node coalesces for 10 to
    /// 20 ms; a coarser run that saves events takes more. The first token never waits.
    pub flush: Duration,
    /// A channel is settled when this much is due.
    pub settle_threshold: NanoTon,
    /// How its prices move; [`crate::policy::pricing`] has them by name.
    pub pricing: Arc<dyn pricing::Policy>,
}

impl ProviderSpec {
    /// [`Self::contention`] of a processor: llama.cpp on two cores.
    pub const CONTENTION_CPU: f64 = 0.55;
    /// [`Self::contention`] of a graphics card, whose decoding waits for memory and not for
    /// arithmetic: about a doubling of the step at 50 jobs.
    pub const CONTENTION_GPU: f64 = 0.02;
    /// [`Self::flush`] as the node has it.
    pub const FLUSH: Duration = Duration::from_millis(15);

    /// Digest of what it serves, as its configuration has it.
    pub(super) fn manifest(&self) -> [u8; 32] {
        offer::manifest(ENGINE, &self.models)
    }
}

/// What computes, in which version: nothing that a simulation would know.
const ENGINE: &str = "";

/// How often channels are looked at on the ledger, with a release delay of six hours.
const WATCH_EVERY: Millis = Millis::from_secs(60);

/// The protocol's view of a provider.
pub(super) fn provider_config(host: &HostSpec, spec: &ProviderSpec) -> ProviderConfig {
    ProviderConfig {
        key: host.key.clone(),
        network: Network::Devnet.global_id(),
        models: spec.models.clone(),
        tier: spec.tier,
        evidence_digest: (spec.tier > Tier::Open).then(|| evidence_digest(host, spec)),
        payout: spec.payout,
        region: String::new(),
        engine: ENGINE.to_owned(),
        settle_threshold: spec.settle_threshold,
        watch_every: WATCH_EVERY,
    }
}

/// The protocol's view of a consumer's money.
pub(super) fn funds_config(host: &HostSpec, spec: &ConsumerSpec) -> FundsConfig {
    FundsConfig { consumer: host.key.id(), deposit: spec.deposit, allocation: spec.allocation }
}

/// Digest of the evidence that sessions show: the same for the life of the host.
pub(super) fn evidence_digest(host: &HostSpec, spec: &ProviderSpec) -> [u8; 32] {
    match spec.tier {
        Tier::Open => [0; 32],
        Tier::Attested | Tier::Confidential => host.seed.bytes("evidence", host.id.0.into()),
    }
}

/// The engine's speeds in whole nanoseconds.
pub(super) fn engine_spec(spec: &ProviderSpec) -> EngineSpec {
    EngineSpec {
        places: spec.places,
        queue: spec.queue,
        prefill_ns: nanos_per(spec.prefill_per_second),
        decode_ns: nanos_per(spec.decode_per_second),
        contention: whole(spec.contention * 1_000.0).try_into().unwrap_or(u32::MAX),
        flush: spec.flush,
    }
}

fn nanos_per(second: f64) -> u64 {
    whole(1e9 / second).max(1)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and a negative or undefined number becomes zero"
)]
const fn whole(number: f64) -> u64 {
    number as u64
}
