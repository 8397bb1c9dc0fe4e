//! The system below a run: one simulation a process, fresh threads, captured randomness.

use std::collections::HashMap;

use simnet_core::{BuildError, CaptureError, Config, Simulation, mark};

use crate::own_process::own_process_of;
use crate::parties::*;
use crate::world;

world! {
    fn a_process_simulates_once() {
        let sim = build();
        assert_eq!(Simulation::build(Config::new(2)).err(), Some(BuildError::SecondInProcess));
        drop(sim);
        assert_eq!(Simulation::build(Config::new(2)).err(), Some(BuildError::SecondInProcess));
        // The thread is an ordinary one again.
        assert!(std::time::SystemTime::now() > std::time::UNIX_EPOCH + simnet_core::clock::CALENDAR_START);
    }
}

world! {
    fn a_thread_that_has_used_a_hash_map_is_refused() {
        let map: HashMap<u32, u32> = HashMap::new();
        drop(map);
        let error = Simulation::build(Config::new(1)).err();
        assert_eq!(error, Some(BuildError::Capture(CaptureError::ThreadNotFresh)));
    }
}

world! {
    fn every_road_to_the_systems_randomness_is_captured() {
        let sim = build();
        let drawn = || sim.statistics().draws;
        let mut bytes = [0_u8; 16];
        let mut last = drawn();
        let mut grew = |name: &str| {
            let now = drawn();
            assert!(now > last, "{name} is not captured");
            last = now;
        };
        #[expect(unsafe_code, reason = "plain calls of the C library")]
        // SAFETY: each gets a buffer of the length that it is told.
        unsafe {
            assert_eq!(libc::getrandom(bytes.as_mut_ptr().cast(), 16, 0), 16);
            grew("getrandom");
            assert_eq!(libc::getentropy(bytes.as_mut_ptr().cast(), 16), 0);
            grew("getentropy");
            assert_eq!(libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), 16_usize, 0), 16);
            grew("syscall");
            assert_eq!(libc::syscall(libc::SYS_getpid), i64::from(libc::getpid()), "others pass");
        }
        assert_ne!(bytes, [0; 16]);
        // What libp2p's crates use: rand 0.10 over getrandom 0.4.
        let _ = libp2p::PeerId::random();
        grew("rand");
    }
}

/// The order in which a map with random keys is walked, put into the trace: a program's mistake that
/// the captured randomness makes repeatable.
fn map_order(which: &str) -> String {
    let simulated = which != "bare";
    let mut sim =
        simulated.then(|| Simulation::build(Config::new(which.parse().unwrap())).unwrap());
    let map: HashMap<u32, ()> = (0..64).map(|key| (key, ())).collect();
    let order: Vec<String> = map.keys().map(ToString::to_string).collect();
    let order = order.join(",");
    if let Some(sim) = &mut sim {
        let node = sim.add_node(spec());
        mark(node, 1, order.as_bytes());
        return blake3::Hash::from_bytes(sim.trace_hash()).to_string();
    }
    order
}

#[test]
fn a_map_with_random_keys_is_walked_in_the_same_order_every_time() {
    let run = |which: &str| {
        let test = "system::a_map_with_random_keys_is_walked_in_the_same_order_every_time";
        own_process_of(test, which, map_order)
    };
    assert_ne!(run("bare"), run("bare"), "without simulation every process has its own order");
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"), "the order follows from the seed");
}
