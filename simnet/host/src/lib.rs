//! One simulated node around the real protocol machines, without knowing which tier carries it.
//!
//! Owns: what the node's shell does in reality (driver, sessions, engine, store, ledger desk) as one
//! synchronous machine: a [`Stimulus`] in, calls on a [`Fabric`] out; and the facts that follow.
//! Must not: know libp2p, an executor or a file. Tier B carries it over the real overlay in virtual
//! time, tier C over a modelled one; the code in here is the same.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod behaviour;
pub mod engine;
pub mod evidence;
pub mod fabric;
pub mod host;
pub mod invariant;
pub mod ledger;
pub mod mutation;
pub mod observation;
pub mod policy;
pub mod population;
pub mod reproduction;
pub mod run;
pub mod script;
pub mod state;
pub mod stimulus;
pub mod store;

pub use evidence::Evidence;
pub use fabric::{Fabric, HostId, SessionId};
pub use host::{Clock, Coming, ConsumerSpec, Host, HostSpec, HotKey, ProviderSpec};
pub use invariant::{Bounds, Healing, Invariants, Violation};
pub use ledger::{BlockReport, Ledger, LedgerFact, LedgerTerms};
pub use observation::{FailureKind, NOWHERE, Observation, Observer, Places, Queue, Sample};
pub use run::{Control, Outcome, Progress};
pub use script::{Event, HostEvent, Script, WorldEvent};
pub use state::{Halted, Names, NodeState};
pub use stimulus::{Alarm, DialFailure, Order, Piece, Stimulus};
pub use store::{CrashPoint, Store, StoreSpec};
