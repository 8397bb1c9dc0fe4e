//! What a process has as a provider: its offer, the engine, jobs, sessions, channels.
//!
//! Owns: the words of this part of a snapshot. Must not: hold a prompt, a completion or a key.

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::JobId;
use cocoon_protocol::job::provider::view::Phase;
use cocoon_protocol::offer::Load;
use cocoon_protocol::units::{NanoTon, Prices, Tokens};
use simnet_scenario::Moment;

use super::Peer;
use crate::engine::EngineJob;

/// A provider's part of a process.
#[derive(Clone, Debug)]
pub struct ProviderState {
    /// How full it says it is.
    pub load: Load,
    /// The newest offer; `None` before the first.
    pub offer: Option<OfferState>,
    /// Its prices in relation to its owner's, in parts per million.
    pub price_level: u32,
    /// A channel is settled when this much is due.
    pub settle_threshold: NanoTon,
    /// Settlements under way.
    pub settling: usize,
    /// Its engine.
    pub engine: EngineState,
    /// Jobs that are not over.
    pub jobs: Vec<ProviderJob>,
    /// Sessions that consumers opened.
    pub sessions: Vec<AcceptedSession>,
    /// Channels that it is paid in.
    pub channels: Vec<PayeeChannel>,
}

/// An offer that was published.
#[derive(Clone, Debug)]
pub struct OfferState {
    /// Grows with every offer.
    pub sequence: u64,
    /// When it was made.
    pub issued: Moment,
    /// When it ends.
    pub expires: Moment,
    /// The tier that sessions prove.
    pub tier: Tier,
    /// What is offered.
    pub models: Vec<OfferedModel>,
}

/// A model of an offer.
#[derive(Clone, Debug)]
pub struct OfferedModel {
    /// Which.
    pub model: String,
    /// Context that one job may fill.
    pub context: Tokens,
    /// What it costs.
    pub prices: Prices,
}

/// A provider's engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineState {
    /// Jobs at a time.
    pub places: u32,
    /// Jobs that may wait for a place.
    pub queue: u32,
    /// Jobs that it holds.
    pub taken: u32,
    /// Those of them that write or read at this moment.
    pub working: u32,
    /// Requests whose text waits for the protocol's word.
    pub requests: usize,
    /// When it has something to say, if nothing happens before.
    pub wakes_at: Option<Moment>,
}

/// A job that a provider has taken, at the protocol and in the engine.
#[derive(Clone, Debug)]
pub struct ProviderJob {
    /// Whose.
    pub consumer: Peer,
    /// Which.
    pub job: JobId,
    /// Which model.
    pub model: String,
    /// Its step at the protocol; `None` for one that only the engine still knows.
    pub phase: Option<Phase>,
    /// When it was taken.
    pub taken: Option<Moment>,
    /// The engine's part; `None` before it is admitted and after it is over.
    pub engine: Option<EngineJob>,
    /// What of it went out and is not paid.
    pub unpaid: NanoTon,
}

/// A session that a consumer opened.
#[derive(Clone, Debug)]
pub struct AcceptedSession {
    /// With whom.
    pub consumer: Peer,
    /// Whether its vault was read: before that no voucher is taken.
    pub vault_known: bool,
    /// When something was heard in it last.
    pub heard: Moment,
}

/// A channel that this host is paid in.
#[derive(Clone, Debug)]
pub struct PayeeChannel {
    /// Whose vault pays.
    pub consumer: Option<Peer>,
    /// The allocation's number in the vault.
    pub epoch: u32,
    /// The most that may ever be promised in it, as the ledger was read last.
    pub limit: NanoTon,
    /// All that was promised in it.
    pub held: NanoTon,
    /// What of it is durable.
    pub durable: NanoTon,
    /// What the ledger has paid out.
    pub settled: NanoTon,
    /// Promised and not yet paid out.
    pub unsettled: NanoTon,
    /// Served in jobs that ended unpaid.
    pub owed: NanoTon,
    /// Jobs that run.
    pub jobs: usize,
    /// Whether a settlement is under way.
    pub settling: bool,
    /// When the consumer may take back what is not settled by then.
    pub release_at: Option<Moment>,
}
