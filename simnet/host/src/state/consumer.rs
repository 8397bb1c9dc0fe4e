//! What a process has as a consumer: jobs, offers, experience, sessions, money.
//!
//! Owns: the words of this part of a snapshot. Must not: hold a prompt or a key.

use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{JobId, TonAddress};
use cocoon_protocol::job::consumer::view::Phase;
use cocoon_protocol::offer::Load;
use cocoon_protocol::reputation::Standing;
use cocoon_protocol::units::{NanoTon, Prices, Tokens};
use simnet_scenario::Moment;

use super::Peer;

/// A consumer's part of a process.
#[derive(Clone, Debug)]
pub struct ConsumerState {
    /// Jobs that users wait for, in the order of their submission.
    pub jobs: Vec<ConsumerJob>,
    /// Current offers, a line for each model of each.
    pub book: Vec<BookEntry>,
    /// With whom it has experience.
    pub reputation: Vec<Reputed>,
    /// Sessions that it dialled.
    pub sessions: Vec<DialledSession>,
    /// Its money.
    pub funds: FundsState,
}

/// A user's job that is not over.
#[derive(Clone, Debug)]
pub struct ConsumerJob {
    /// Which.
    pub job: JobId,
    /// Which model.
    pub model: String,
    /// The lowest tier that may see its prompt.
    pub minimum_tier: Tier,
    /// When it was submitted.
    pub submitted: Moment,
    /// Its step; `None` while its order waits for a commit.
    pub phase: Option<Phase>,
    /// Who has it, or is to have it, and at which prices.
    pub provider: Option<(Peer, Prices)>,
    /// Requests that went out so far.
    pub attempts: u32,
    /// Tokens of its prompt.
    pub prompt: Tokens,
    /// Tokens of the completion that its reader has, as the provider counts them.
    pub counted: Tokens,
    /// When it is given up, or tried elsewhere.
    pub deadline: Option<Moment>,
    /// Whether its user has left.
    pub cancelled: bool,
}

/// A model of an offer in the book.
#[derive(Clone, Debug)]
pub struct BookEntry {
    /// Who offers.
    pub provider: Peer,
    /// What.
    pub model: String,
    /// The tier that it says it can prove.
    pub tier: Tier,
    /// How full it says it is.
    pub load: Load,
    /// What it asks.
    pub prices: Prices,
    /// When the offer ends, by this host's clock.
    pub expires: Moment,
}

/// What is expected of a provider, from experience.
#[derive(Clone, Debug)]
pub struct Reputed {
    /// Of whom.
    pub provider: Peer,
    /// With which model.
    pub model: String,
    /// What.
    pub standing: Standing,
}

/// A session that this host dialled.
#[derive(Clone, Debug)]
pub struct DialledSession {
    /// With whom.
    pub provider: Peer,
    /// When it was dialled.
    pub since: Moment,
    /// The tier that it has to prove.
    pub minimum_tier: Tier,
    /// The tier that it has proved; `None` while it is being opened.
    pub proved: Option<Tier>,
}

/// How far a vault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaultState {
    /// Nothing has needed it yet, or the last attempt failed.
    Unasked,
    /// The ledger was asked for it.
    Opening,
    /// It stands.
    Open {
        /// Where.
        address: TonAddress,
        /// What is left to allocate.
        free: NanoTon,
    },
}

/// A consumer's money.
#[derive(Clone, Debug)]
pub struct FundsState {
    /// Its vault.
    pub vault: VaultState,
    /// What it deposits when it opens its vault.
    pub deposit: NanoTon,
    /// What it sets aside for a provider at a time.
    pub allocation: NanoTon,
    /// For whom an allocation is being made.
    pub allocating: Option<Peer>,
    /// How long its users wait for a first token.
    pub patience: Option<Duration>,
    /// Its channels.
    pub channels: Vec<PayerChannel>,
}

/// A channel that this host pays in.
#[derive(Clone, Debug)]
pub struct PayerChannel {
    /// Who is paid.
    pub provider: Peer,
    /// The allocation's number in the vault.
    pub epoch: u32,
    /// The most that may ever be promised in it.
    pub limit: NanoTon,
    /// All that was promised in it.
    pub promised: NanoTon,
    /// What of it is durable: nothing beyond it has left this host.
    pub durable: NanoTon,
    /// What a further job may cost.
    pub headroom: NanoTon,
    /// Jobs that have a reservation.
    pub jobs: usize,
    /// The limit that the provider says it sees.
    pub seen: Option<NanoTon>,
    /// Whether the consumer has asked for its money back.
    pub releasing: bool,
}
