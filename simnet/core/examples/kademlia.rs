//! A bare rust-libp2p Kademlia network in virtual time: look-ups, their latency, and churn.
//!
//! Owns: one example. Must not: need anything but libp2p and this crate.
//!
//! `cargo run -p simnet-core --example kademlia -- --nodes 1000 --seconds 60 --seed 1 --churn 20`

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]
#![expect(clippy::wildcard_enum_match_arm, reason = "libp2p's lists of events are open")]

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::{FutureExt as _, StreamExt as _, select};
use libp2p::kad::{self, store::MemoryStore};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{PeerId, StreamProtocol, Swarm, identify, identity::Keypair};
use rand_core::Rng as _;
use simnet_core::allocator::Sparse;
use simnet_core::{Config, Crash, NodeIndex, NodeSpec, Place, RoundTrips, Simulation, clock};

/// Optional; most of what libp2p-kad allocates for its buckets is never used.
#[global_allocator]
static ALLOCATOR: Sparse<mimalloc::MiMalloc> = Sparse::new(mimalloc::MiMalloc);

#[derive(NetworkBehaviour)]
struct Behaviour {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

/// What all nodes share with the owner of the run. It never leaves its thread.
type LookUps = Rc<RefCell<Vec<Duration>>>;

fn swarm(
    sim: &Simulation,
    node: NodeIndex,
    key: &Keypair,
) -> Result<Swarm<Behaviour>, Box<dyn Error>> {
    let peer = key.public().to_peer_id();
    let mut config = kad::Config::new(StreamProtocol::new("/example/kad/1.0.0"));
    config.set_periodic_bootstrap_interval(Some(Duration::from_secs(300)));
    let mut kad = kad::Behaviour::with_config(peer, MemoryStore::new(peer), config);
    kad.set_mode(Some(kad::Mode::Server));
    let identify = identify::Config::new("/example/1.0.0".to_owned(), key.public());
    let behaviour = Behaviour { kad, identify: identify::Behaviour::new(identify) };
    let config = libp2p::swarm::Config::with_executor(sim.executor(node))
        .with_idle_connection_timeout(Duration::from_secs(10));
    let mut swarm = Swarm::new(sim.transport(node, peer), behaviour, peer, config);
    swarm.listen_on(sim.address(node))?;
    Ok(swarm)
}

/// A node: it answers others, and looks up whatever its owner wants.
async fn run(mut swarm: Swarm<Behaviour>, mut wanted: mpsc::Receiver<PeerId>, done: LookUps) {
    let mut started = std::collections::HashMap::new();
    loop {
        select! {
            peer = wanted.next().fuse() => match peer {
                Some(peer) => {
                    let query = swarm.behaviour_mut().kad.get_closest_peers(peer);
                    started.insert(query, std::time::Instant::now());
                }
                None => return,
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(BehaviourEvent::Kad(
                    kad::Event::OutboundQueryProgressed { id, step, .. },
                )) if step.last => {
                    // Virtual time, through the ordinary clock.
                    done.borrow_mut().extend(started.remove(&id).map(|since| since.elapsed()));
                }
                SwarmEvent::Behaviour(BehaviourEvent::Identify(
                    identify::Event::Received { peer_id, info, .. },
                )) => for address in info.listen_addrs {
                    swarm.behaviour_mut().kad.add_address(&peer_id, address);
                },
                _ => {}
            },
        }
    }
}

fn simulate(seed: u64, nodes: u32, seconds: u64, churn: u32) -> Result<(), Box<dyn Error>> {
    // Round trips between the east of America, Europe and Asia, in milliseconds.
    let table = [[10, 80, 170], [80, 12, 160], [170, 160, 30]];
    let table = table.map(|row| row.map(Duration::from_millis).to_vec());
    let links = Box::new(RoundTrips::new(&table)?);
    let mut sim = Simulation::build(Config { links, ..Config::new(seed) })?;
    let mut random = sim.random("example", 0);
    let (done, mut members, mut inboxes) = (LookUps::default(), Vec::new(), Vec::new());
    for number in 0..nodes {
        let place = Place(u16::try_from(random.next_u32() % 3)?);
        let node = sim.add_node(NodeSpec { place, ..NodeSpec::default() });
        let mut secret = [0; 32];
        sim.random("key", u64::from(number)).fill_bytes(&mut secret);
        let key = Keypair::ed25519_from_bytes(secret)?;
        let mut swarm = swarm(&sim, node, &key)?;
        // Everyone knows a few of those who came before.
        for _ in 0..members.len().min(20) {
            let (known, peer) = members[random.next_u32() as usize % members.len()];
            swarm.behaviour_mut().kad.add_address(&peer, sim.address(known));
        }
        members.push((node, key.public().to_peer_id()));
        let (inbox, wanted) = mpsc::channel(8);
        inboxes.push(inbox);
        let task = run(swarm, wanted, done.clone());
        // They come up over five seconds.
        let start = Duration::from_millis(u64::from(random.next_u32() % 5000));
        sim.at(start, move |sim| sim.spawn(node, task));
    }
    let pick = |random: &mut dyn FnMut() -> u32| random() as usize % members.len();
    for look_up in 0..seconds.saturating_sub(15) * 2 {
        let (from, to) = (pick(&mut || random.next_u32()), pick(&mut || random.next_u32()));
        let (mut inbox, peer) = (inboxes[from].clone(), members[to].1);
        sim.at(Duration::from_millis(10_000 + look_up * 500), move |_| {
            let _ = inbox.try_send(peer); // a node that has crashed does not listen
        });
    }
    for crash in 0..churn {
        let node = members[pick(&mut || random.next_u32())].0;
        let moment = Duration::from_secs(10) + Duration::from_secs(10) * crash / churn;
        sim.at(moment, move |sim| sim.crash(node, Crash::Silent));
    }
    sim.run_for(Duration::from_secs(seconds))?;

    let mut latencies = done.borrow().clone();
    latencies.sort();
    let quantile = |share: usize| latencies.get(latencies.len() * share / 100).copied();
    let (half, most) = (quantile(50).unwrap_or_default(), quantile(95).unwrap_or_default());
    println!("look-ups   {} of {}", latencies.len(), seconds.saturating_sub(15) * 2);
    println!("latency    p50 {half:.0?}, p95 {most:.0?}");
    for (protocol, count) in sim.traffic().total() {
        println!(
            "{protocol:22} {:9} segments {:12} B on the wire",
            count.sent.segments, count.sent.wire
        );
    }
    println!("{:?}", sim.statistics());
    println!("processor  {:.1?}, {} MB at most", clock::cpu(), clock::resident_peak() / 1_000_000);
    println!("trace      {}", blake3::Hash::from_bytes(sim.trace_hash()));
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |flag: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == flag);
        let value = at.and_then(|at| arguments.get(at + 1));
        value.map_or(Ok(default), |value| value.parse())
    };
    let (seed, nodes) = (number("--seed", 1)?, number("--nodes", 100)?);
    let (seconds, churn) = (number("--seconds", 60)?, number("--churn", 0)?);
    let (nodes, churn) = (u32::try_from(nodes)?, u32::try_from(churn)?);
    let result = simnet_core::on_fresh_thread(move || {
        simulate(seed, nodes, seconds, churn).map_err(|error| error.to_string())
    })?;
    Ok(result?)
}
