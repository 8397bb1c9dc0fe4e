//! What the driver shows of itself to those who look: the status command and the gateway.
//!
//! Owns: a snapshot. Must not: hold anything that a snapshot cannot be made of in microseconds.

use cocoon_protocol::Node;
use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{NodeId, TonAddress};
use cocoon_protocol::job::RunningJob;
use cocoon_protocol::offer::Offer;
use cocoon_protocol::units::NanoTon;

/// The driver's state at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Offers known, as a consumer.
    pub(crate) offers: Vec<Offer>,
    /// Jobs that are not over, as a consumer.
    pub(crate) consuming: usize,
    /// Jobs that run, as a consumer (false) or a provider (true).
    pub(crate) jobs: Vec<(bool, RunningJob)>,
    /// The vault and what is free in it, once it is open.
    pub(crate) vault: Option<(TonAddress, NanoTon)>,
    /// Sessions that we opened.
    pub(crate) sessions: Vec<(NodeId, Tier, bool)>,
    /// Channels that we pay in.
    pub(crate) payers: Vec<ChannelLine>,
    /// This node's newest offer, as a provider.
    pub(crate) own_offer: Option<Offer>,
    /// The tier that its sessions can prove, as a provider.
    pub(crate) offered_tier: Option<Tier>,
    /// Its prices in millionths of the owner's.
    pub(crate) price_level: Option<u32>,
    /// Settlements under way.
    pub(crate) settling: usize,
    /// Channels that we are paid in.
    pub(crate) payees: Vec<ChannelLine>,
}

/// One channel, from either side.
#[derive(Clone, Debug)]
pub(crate) struct ChannelLine {
    /// Whose money it is.
    pub(crate) vault: TonAddress,
    /// Who earns it.
    pub(crate) provider: NodeId,
    /// Which allocation.
    pub(crate) epoch: u32,
    /// What it can pay in all.
    pub(crate) limit: NanoTon,
    /// What is promised so far.
    pub(crate) promised: NanoTon,
    /// What was paid out on the ledger; unknown to a payer.
    pub(crate) settled: Option<NanoTon>,
}

impl View {
    /// A snapshot of the protocol's state.
    pub(crate) fn of(node: &Node) -> Self {
        let mut view = Self::default();
        if let Some(consumer) = node.consumer() {
            view.offers = consumer.book().offers().cloned().collect();
            view.consuming = consumer.jobs();
            view.jobs.extend(consumer.running().map(|job| (false, job)));
            view.vault = consumer.funds().vault();
            let sessions = consumer.sessions();
            view.sessions = sessions.map(|(peer, it)| (peer, it.tier, it.simulated)).collect();
            let payers = consumer.funds().payers().map(|(_, payer)| ChannelLine {
                vault: payer.channel().vault,
                provider: payer.channel().provider,
                epoch: payer.channel().epoch,
                limit: payer.limit(),
                promised: payer.cumulative(),
                settled: None,
            });
            view.payers = payers.collect();
        }
        if let Some(provider) = node.provider() {
            view.own_offer = provider.newest_offer();
            view.offered_tier = Some(provider.tier());
            view.price_level = Some(provider.price_level().parts());
            view.settling = provider.settling();
            view.jobs.extend(provider.running().map(|job| (true, job)));
            let payees = provider.payees().map(|payee| ChannelLine {
                vault: payee.channel().vault,
                provider: payee.channel().provider,
                epoch: payee.channel().epoch,
                limit: payee.allocation().limit,
                promised: payee.promised(),
                settled: Some(payee.allocation().paid),
            });
            view.payees = payees.collect();
        }
        view
    }
}
