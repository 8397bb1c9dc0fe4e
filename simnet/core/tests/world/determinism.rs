//! Same seed, same bytes: in two processes, under load, for both transports; another seed differs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{StreamProtocol, Swarm, identify, kad, ping};
use simnet_core::{
    Config, Crash, Fault, NodeSpec, PartsPerMillion, Path, Scope, Simulation, Uniform,
};

use crate::own_process::own_process_of;

const NODES: u8 = 16;
const S: Duration = Duration::from_secs(1);

#[derive(NetworkBehaviour)]
struct Behaviour {
    kad: kad::Behaviour<kad::store::MemoryStore>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// A network in which everything happens that can: loss, crashes, restarts, a partition.
fn hash(seed: u64, is_encrypted: bool) -> String {
    let path = Path { delay: 40 * S / 1000, jitter: 9 * S / 1000, loss: PartsPerMillion(5000) };
    let links = Box::new(Uniform(path));
    let mut sim = Simulation::build(Config { links, ..Config::new(seed) }).unwrap();
    let nodes: Vec<_> = (0..NODES).map(|_| sim.add_node(NodeSpec::default())).collect();
    let key = |number: u8| Keypair::ed25519_from_bytes([number + 1; 32]).unwrap();
    let start = move |sim: &mut Simulation, number: u8| {
        let node = simnet_core::NodeIndex(u32::from(number));
        let key = key(number);
        let peer = key.public().to_peer_id();
        let (transport, address) = match is_encrypted {
            true => (sim.noise_yamux_transport(node, &key).unwrap(), sim.byte_address(node)),
            false => (sim.transport(node, peer), sim.address(node)),
        };
        let config = kad::Config::new(StreamProtocol::new("/test/kad"));
        let mut kad = kad::Behaviour::with_config(peer, kad::store::MemoryStore::new(peer), config);
        kad.set_mode(Some(kad::Mode::Server));
        let identify = identify::Config::new("/test".to_owned(), key.public());
        let behaviour = Behaviour {
            kad,
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping::Config::new()),
        };
        let config = libp2p::swarm::Config::with_executor(sim.executor(node));
        let mut swarm = Swarm::new(transport, behaviour, peer, config);
        swarm.listen_on(address).unwrap();
        for other in [0, number / 2, number.saturating_sub(1)] {
            let known = simnet_core::NodeIndex(u32::from(other));
            let address = if is_encrypted { sim.byte_address(known) } else { sim.address(known) };
            let peer = Keypair::ed25519_from_bytes([other + 1; 32]).unwrap().public().to_peer_id();
            if other != number {
                swarm.behaviour_mut().kad.add_address(&peer, address);
            }
        }
        sim.spawn(node, async move {
            loop {
                if let libp2p::swarm::SwarmEvent::Behaviour(BehaviourEvent::Identify(
                    identify::Event::Received { peer_id, info, .. },
                )) = swarm.select_next_some().await
                {
                    for address in info.listen_addrs {
                        swarm.behaviour_mut().kad.add_address(&peer_id, address);
                    }
                }
            }
        });
    };
    for number in 0..NODES {
        sim.at(S / 10 * u32::from(number), move |sim| start(sim, number));
    }
    let (left, victim) = (nodes[..5].to_vec(), nodes[7]);
    sim.at(4 * S, move |sim| sim.crash(victim, Crash::Silent));
    sim.at(6 * S, move |sim| sim.partition(&[left]));
    sim.at(9 * S, |sim| sim.heal());
    let fault = Fault { reordered: PartsPerMillion(100_000), ..Fault::default() };
    sim.at(10 * S, move |sim| sim.set_fault(Scope::Everywhere, fault));
    sim.at(11 * S, move |sim| {
        sim.restart(victim, None);
        start(sim, 7);
    });
    sim.run_for(20 * S).unwrap();
    let statistics = sim.statistics();
    assert!(statistics.deliveries > 500 && statistics.connected > 20, "{statistics:?}");
    format!("{} {}", blake3::Hash::from_bytes(sim.trace_hash()), statistics.polls)
}

fn run(test: &str, seed: u64, is_encrypted: bool) -> String {
    let which = format!("{seed} {is_encrypted}");
    own_process_of(&format!("determinism::{test}"), &which, |which| {
        let (seed, is_encrypted) = which.split_once(' ').unwrap();
        hash(seed.parse().unwrap(), is_encrypted.parse().unwrap())
    })
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let test = "the_same_seed_gives_the_same_bytes_and_another_does_not";
    let first = run(test, 1, false);
    assert_eq!(first, run(test, 1, false));
    assert_ne!(first, run(test, 2, false));
}

#[test]
fn load_beside_it_changes_nothing() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let test = "load_beside_it_changes_nothing";
    let quiet = run(test, 3, false);
    // One more busy thread than there are processors, so that the run is interrupted all the time.
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let load: Vec<_> = (0..=processors)
        .map(|_| {
            std::thread::spawn(|| {
                let mut heap = Vec::new();
                while !STOP.load(Ordering::Relaxed) {
                    heap.push(vec![0_u8; 10_000]);
                    heap.truncate(1000);
                }
            })
        })
        .collect();
    let busy = run(test, 3, false);
    STOP.store(true, Ordering::Relaxed);
    for thread in load {
        thread.join().unwrap();
    }
    assert_eq!(quiet, busy);
}

#[test]
fn noise_and_yamux_repeat_as_well() {
    let test = "noise_and_yamux_repeat_as_well";
    let first = run(test, 1, true);
    assert_eq!(first, run(test, 1, true));
    assert_ne!(first, run(test, 2, true));
}
