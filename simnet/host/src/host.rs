//! The host itself: the shell around `cocoon_protocol::Node` as a synchronous machine.
//!
//! Owns: the order "persist, then speak", sessions, jobs' bodies, alarms. Must not: know the tier.

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::channel::VaultKey;
use cocoon_protocol::identity::{NodeId, NodeKey, TonAddress};
use cocoon_protocol::offer::ModelOffer;
use cocoon_protocol::units::NanoTon;

use crate::evidence::Evidence;
use crate::fabric::{Fabric, HostId};
use crate::stimulus::Stimulus;

/// What a host is and has: everything that stays the same across its restarts.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// Its number.
    pub id: HostId,
    /// Its identity.
    pub key: NodeKey,
    /// Where it stands: an index into the scenario's regions.
    pub region: u16,
    /// Own clock minus the run's clock, in milliseconds.
    pub skew_ms: i64,
    /// What it is as a consumer, if it is one.
    pub consumer: Option<ConsumerSpec>,
    /// What it is as a provider, if it is one.
    pub provider: Option<ProviderSpec>,
}

/// A consumer of the scenario.
#[derive(Clone, Debug)]
pub struct ConsumerSpec {
    /// Its vault's hot key.
    pub vault_key: Arc<VaultKey>,
    /// What it deposits when it opens its vault.
    pub deposit: NanoTon,
    /// What it sets aside for a provider at a time.
    pub allocation: NanoTon,
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
    /// Prompt tokens that it reads in a second, one job alone.
    pub prefill_per_second: f64,
    /// Completion tokens that it writes in a second, one job alone.
    pub decode_per_second: f64,
    /// A channel is settled when this much is due.
    pub settle_threshold: NanoTon,
}

/// One simulated node.
#[derive(Debug)]
pub struct Host {
    spec: Arc<HostSpec>,
}

impl Host {
    /// A host that has never run. It does nothing before [`Stimulus::Start`].
    pub const fn new(spec: Arc<HostSpec>) -> Self {
        Self { spec }
    }

    /// What it is.
    pub fn spec(&self) -> &HostSpec {
        &self.spec
    }

    /// Its identity.
    pub fn node(&self) -> NodeId {
        self.spec.key.id()
    }

    /// What a consumer that opens a session is shown; `None` if it does not provide.
    pub fn evidence(&self) -> Option<Evidence> {
        None
    }

    /// How long making and checking evidence takes on this host, for a fabric that models it.
    pub const fn attestation(&self) -> Duration {
        Duration::from_millis(2)
    }

    /// Something happens.
    pub fn handle(&mut self, stimulus: Stimulus, fabric: &mut dyn Fabric) {
        let _ = (stimulus, fabric);
    }

    /// Its process dies: all that is not durable is lost. [`Stimulus::Start`] starts it again.
    pub fn crash(&mut self, fabric: &mut dyn Fabric) {
        let _ = fabric;
    }
}
