//! What a node costs: counted bytes, with every node of a run started.
//!
//! Owns: the bound. Must not: look at what the system or another allocator makes of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use simnet_host::{HostId, Observation, Observer};
use simnet_scenario::{Moment, Scenario, Seed, shipped};

/// Bytes that are in use, and the most that were.
#[derive(Debug)]
struct Counting {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[global_allocator]
static ALLOCATOR: Counting = Counting { now: AtomicUsize::new(0), most: AtomicUsize::new(0) };

#[expect(unsafe_code, reason = "an allocator is counted from within")]
// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = self.now.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        self.most.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        self.now.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(place, layout) }
    }
}

/// Hosts that started, and those that did more than that.
#[derive(Debug)]
struct Active {
    started: usize,
    acted: Vec<bool>,
}

impl Observer for Active {
    fn observe(&mut self, _: Moment, HostId(host): HostId, fact: &Observation) {
        self.started += usize::from(matches!(fact, Observation::Started { .. }));
        let acted = !matches!(fact, Observation::Started { .. });
        self.acted[usize::try_from(host).unwrap()] |= acted;
    }
}

/// What a run's fixed parts have, whatever its size: the wheel's slots and the trace's buffer.
const FIXED: usize = 4 * 1024 * 1024;

#[test]
fn a_node_of_the_million_costs_less_than_two_kilobytes() {
    const NODES: usize = 20_000;
    let text = shipped("million").unwrap().text;
    // A fiftieth of the nodes, of the demand, and of the time that it takes them to start.
    let text = text
        .replace("nodes = 1_000_000", "nodes = 20_000")
        .replace("rate = \"250 /s\"", "rate = \"5 /s\"");
    let scenario = Scenario::parse("million", &text).unwrap();
    assert_eq!(scenario.population.nodes, 20_000);
    let mut active = Active { started: 0, acted: vec![false; NODES] };
    let before = ALLOCATOR.now.load(Ordering::Relaxed);
    simnet_abstract::run(&scenario, Seed(1), &mut active, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let most = ALLOCATOR.most.load(Ordering::Relaxed) - before;
    let each = most.saturating_sub(FIXED) / NODES;
    let acted = active.acted.iter().filter(|it| **it).count();
    assert_eq!(active.started, NODES, "every node ran");
    assert!(acted > NODES / 10, "providers, and the consumers that asked: {acted}");
    assert!(each < 2_000, "{each} bytes a node, of which {acted} did something");
    println!("{each} bytes a node; {acted} of {NODES} nodes did something");
}
