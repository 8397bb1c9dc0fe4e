//! Finding, reaching and keeping peers: the libp2p part of a Cocoon node, without a runtime.
//!
//! Owns: the behaviour, connections, raw streams, and the discovery of offers.
//! Must not: know tokio, threads, files, or the environment. The node runs it on tokio, the
//! simulator in virtual time; both poll [`Overlay`] as a stream of [`Event`]s.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod address;
mod behaviour;
mod book;
mod command;
mod connections;
mod control;
mod discovery;
mod draw;
mod entry;
mod gossip;
mod index;
pub mod limits;
mod linger;
mod offering;
mod overlay;
mod slim;
mod streams;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod view;
mod warm;

pub use behaviour::keypair;
pub use command::{
    Anchor, Command, Config, Event, ListenError, Measured, Refused, Role, StartError, Status, Want,
};
pub use control::LinkEnd;
pub use gossip::{GossipError, NoticeCheck, NoticeVerdict, Topic};
pub use index::key as index_key;
pub use libp2p::swarm::Executor;
pub use libp2p::{Multiaddr, multiaddr};
pub use overlay::{Overlay, Transport};
pub use streams::{OpenError, PeerStream, Protocol, Refusal, RequestId};
pub use view::{KnownProvider, View};
pub use warm::TableView;
