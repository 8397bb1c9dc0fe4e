//! Virtual time for rust-libp2p: clock, executor, network, and determinism that can be checked.
//!
//! Owns: everything below a libp2p swarm. Must not: know any protocol above it.
//!
//! An hour of a thousand real swarms runs in one thread, as fast as the processor allows, and the
//! same seed gives the same bytes at the same moments every time. The swarms and behaviours are
//! libp2p's own, unpatched; they get another transport and another executor, and the clock, the
//! timers and the randomness that they ask the system for are this crate's.
//!
//! ```standalone_crate
//! use std::time::Duration;
//!
//! use futures::StreamExt as _;
//! use libp2p::swarm::{Config as SwarmConfig, SwarmEvent};
//! use libp2p::{Swarm, identity::Keypair, ping};
//! use simnet_core::{Config, Crash, NodeSpec, RoundTrips, Simulation, on_fresh_thread};
//!
//! fn world(seed: u64) -> Result<[u8; 32], Box<dyn std::error::Error>> {
//!     // Two places, 80 ms of round trip apart.
//!     let table = [[2, 80], [80, 2]].map(|row| row.map(Duration::from_millis).to_vec());
//!     let links = Box::new(RoundTrips::new(&table)?);
//!     let mut sim = Simulation::build(Config { links, ..Config::new(seed) })?;
//!
//!     let nodes = [0, 1].map(|place| {
//!         sim.add_node(NodeSpec { place: simnet_core::Place(place), ..NodeSpec::default() })
//!     });
//!     for (number, node) in nodes.into_iter().enumerate() {
//!         let key = Keypair::ed25519_from_bytes([u8::try_from(number)?; 32])?;
//!         let peer = key.public().to_peer_id();
//!         let config = SwarmConfig::with_executor(sim.executor(node))
//!             .with_idle_connection_timeout(Duration::from_secs(60));
//!         let mut swarm =
//!             Swarm::new(sim.transport(node, peer), ping::Behaviour::default(), peer, config);
//!         swarm.listen_on(sim.address(node))?;
//!         if number == 0 {
//!             swarm.dial(sim.address(nodes[1]))?;
//!         }
//!         sim.spawn(node, async move {
//!             loop {
//!                 if let SwarmEvent::Behaviour(ping::Event { result, .. }) =
//!                     swarm.select_next_some().await
//!                 {
//!                     println!("{:?}: {node} measured {result:?}", simnet_core::clock::now());
//!                 }
//!             }
//!         });
//!     }
//!     sim.at(Duration::from_secs(40), move |sim| sim.crash(nodes[1], Crash::Silent));
//!     sim.run_for(Duration::from_secs(60))?;
//!     assert_eq!(sim.statistics().lost, 1, "the first node has noticed");
//!     Ok(sim.trace_hash())
//! }
//!
//! // A fresh thread, because a thread's hash maps may have got their keys from the system already.
//! let hash = on_fresh_thread(|| world(1).map_err(|error| error.to_string())).unwrap().unwrap();
//! println!("{hash:02x?}"); // run it again: the same
//! ```
//!
//! `examples/kademlia.rs` is a network with look-ups and churn.
//!
//! # What a program needs
//! - `[patch.crates-io] futures-timer = { path = "…/simnet/core/futures-timer" }` in its workspace, so
//!   that libp2p's timers are virtual. Off a simulation thread that crate behaves as the original.
//! - x86-64 or AArch64 Linux with glibc, and this crate linked into the executable. What is captured
//!   is proved at the start of every run; a build for another system fails with a clear message.
//! - One simulation a process: libp2p counts connections and listeners in statics of the process.
//! - No threads, no `tokio::time`, no files or sockets in what the nodes run. A thread that wakes a
//!   task ends the run with an error. Use `futures_timer::Delay`, [`spawn`] and channels of `futures`.
//! - Nothing ordered by addresses in memory. Maps with random keys are all right: the keys are seeded.
//!
//! # What is real and what is modelled
//! Real: everything above the transport, the clock's arithmetic, multistream-select; with
//! [`Simulation::noise_yamux_transport`] also noise and yamux. Modelled: the handshake of
//! [`Simulation::transport`] (one round trip, [`Wire::hello`] and [`Wire::reply`] bytes, processor
//! time), links ([`Links`]), queues on both access lines, windows of streams, loss as the delay until
//! the packet is sent again, NATs, idle time-outs and keep-alives (as bytes without events). Not
//! modelled: congestion control, so a single transfer is limited by lines and windows only; processor
//! time of tasks, which take none; packets in flight when a partition begins, which still arrive; a
//! dial's repeated packets, so that one which begins in a partition fails though it heals at once.
//!
//! # Speed and memory
//! About nine tenths of a run's processor time are libp2p's own. A third of a Kademlia network's is
//! `memcpy` in libp2p-kad's `ClosestIter`, which moves room for 20 entries for each of 256 buckets,
//! at every request. [`allocator::Sparse`] keeps kad's unused buckets (1.6 MB a behaviour) out of
//! memory. The example with `--nodes N --seconds S`, N behaviours of kad and identify, most
//! resident MB:
//!
//! | allocator | N = 200, only built | N = 1,000, only built | N = 200, S = 20, some 100 connections each | processor |
//! |---|---|---|---|---|
//! | glibc | 239 | 1,181 | 1,240 | 34 s |
//! | glibc, `Sparse` | 32 | 150 | 1,042 | 36 s |
//! | mimalloc | 295 | 1,911 | 1,520 | 31 s |
//! | mimalloc, `Sparse` | 45 | 184 | 1,151 | 29 s |
//!
//! The trace hash is the same under all four.

#![warn(missing_docs)]

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!(
    "simnet-core captures the clock and the randomness of the C library by the symbols of glibc on \
     x86-64 or AArch64 Linux; on other systems a run could not be repeated, so it does not build"
);

pub mod allocator;
pub mod clock;
mod executor;
mod interpose;
mod links;
mod network;
mod node;
mod simulation;
mod slab;
pub mod trace;
mod traffic;
mod transport;

pub use executor::{NodeExecutor, TaskPanicked, current_node, spawn};
pub use interpose::CaptureError;
pub use links::{Links, NotSquare, PartsPerMillion, Path, RoundTrips, Uniform, Wire};
pub use network::{Crash, Fault, Scope};
pub use node::{Access, Nat, NodeIndex, NodeSpec, Place};
pub use simulation::{
    BuildError, Config, Ended, Progress, RunError, Simulation, Statistics, mark, on_fresh_thread,
};
pub use traffic::{Count, Directions, Traffic};
pub use transport::{
    ByteStream, ByteTransport, Establishing, ModelTransport, MuxedStream, MuxedTransport, Muxer,
};
