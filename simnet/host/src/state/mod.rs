//! Everything that a node is, has and does at one moment, as plain data for displays.
//!
//! Owns: the words of a snapshot, and whom the numbers in it mean.
//! Must not: be kept up to date: a snapshot is made when somebody looks and is never looked at by a
//! run. It holds no prompt, no completion and no key.
//!
//! Money is in nanoTON, lengths are in tokens, moments are those of the run: what a host's own clock
//! shows is turned back.

mod consumer;
mod names;
mod place;
mod provider;

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::units::NanoTon;
use simnet_scenario::{Adversary, Link, Moment};

pub use consumer::{
    BookEntry, ConsumerJob, ConsumerState, DialledSession, FundsState, PayerChannel, Reputed,
    VaultState,
};
pub use names::{Names, Peer};
pub use place::{Connection, Known, NetworkState, PlaceState, TableState};
pub use provider::{
    AcceptedSession, EngineState, OfferState, OfferedModel, PayeeChannel, ProviderJob,
    ProviderState,
};

use crate::behaviour::Plan;
use crate::fabric::HostId;
use crate::observation::Queue;

/// A node at one moment.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// When.
    pub at: Moment,
    /// What it is.
    pub identity: Identity,
    /// Its process.
    pub process: ProcessState,
    /// What its process has as a consumer; `None` without that role or without a process.
    pub consumer: Option<ConsumerState>,
    /// What its process has as a provider; `None` without that role or without a process.
    pub provider: Option<ProviderState>,
    /// What it would remember after a crash.
    pub store: StoreState,
    /// Its place in the overlay; `None` while it has none there.
    pub place: Option<PlaceState>,
}

/// What stays the same across a host's restarts.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its number.
    pub host: HostId,
    /// Its identity on the network.
    pub node: NodeId,
    /// Whether it consumes.
    pub consumes: bool,
    /// The tier that it claims and the one that it really is, if it provides.
    pub provides: Option<(Tier, Tier)>,
    /// What kind of host it is: a class of hardware, or what it is instead.
    pub class: String,
    /// Where it stands.
    pub region: String,
    /// How it is connected.
    pub link: Link,
    /// Own clock minus the run's clock, in milliseconds.
    pub skew_ms: i64,
    /// The scenario's group of adversaries that it belongs to.
    pub adversary: Option<Arc<Adversary>>,
    /// Whether it attacks: a control of an attack does not.
    pub hostile: bool,
    /// What it does at its hooks, if it attacks there.
    pub plan: Option<Plan>,
    /// The scenario's group of adversaries that is after it, by its place in the scenario.
    pub victim_of: Option<u16>,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It never has.
    NeverStarted,
    /// It runs and has done nothing yet: it is not in memory.
    Idle,
    /// It runs.
    Runs,
    /// It has run, and is dead or gone.
    Stopped,
}

/// A host's process.
#[derive(Clone, Debug)]
pub struct ProcessState {
    /// Whether it runs.
    pub life: Life,
    /// Whether it finishes what it has and takes nothing new.
    pub draining: bool,
    /// Inputs for the protocol that wait for the commit under way.
    pub inbox: usize,
    /// The commit under way.
    pub commit: Option<CommitState>,
    /// When the protocol wants to be called next, if nothing happens before.
    pub wakes_at: Option<Moment>,
    /// The deepest that each queue has been since the process began.
    pub deepest: Vec<(Queue, u16)>,
}

/// A transaction that is not durable yet: none of its effects has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitState {
    /// Its number, counted from the host's first ever.
    pub number: u32,
    /// Records in it.
    pub records: usize,
    /// Effects that wait for it.
    pub effects: usize,
}

/// What a host's disk has.
#[derive(Clone, Debug)]
pub struct StoreState {
    /// Commits begun so far.
    pub commits: u64,
    /// Receipts so far, provided and received.
    pub receipts: u64,
    /// What was promised for jobs without a receipt, all in all.
    pub interrupted: NanoTon,
    /// Channels that it pays in.
    pub payers: Vec<StoredPayer>,
    /// Channels that it is paid in.
    pub payees: Vec<StoredPayee>,
}

/// A channel that a host pays in, as its disk has it.
#[derive(Clone, Debug)]
pub struct StoredPayer {
    /// Who is paid.
    pub provider: Peer,
    /// The allocation's number in the vault.
    pub epoch: u32,
    /// All that was ever promised in it.
    pub promised: NanoTon,
    /// What was served at most and is not promised.
    pub may_owe: NanoTon,
}

/// A channel that a host is paid in, as its disk has it.
#[derive(Clone, Debug)]
pub struct StoredPayee {
    /// Whose vault pays.
    pub consumer: Option<Peer>,
    /// The allocation's number in the vault.
    pub epoch: u32,
    /// What the best voucher promises; nothing before the first.
    pub held: NanoTon,
}

/// A run that stands still, as its tier shows it. To look changes nothing: it draws nothing and calls
/// nothing that would behave differently the next time.
pub trait Halted {
    /// A host at this moment; `None` if there is no such host.
    fn state(&mut self, host: HostId, names: &Names) -> Option<NodeState>;
}

/// Seconds ago, as a moment of the run.
pub fn ago(at: Moment, age: Duration) -> Moment {
    let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    Moment::from_nanos(at.as_nanos().saturating_sub(age))
}
