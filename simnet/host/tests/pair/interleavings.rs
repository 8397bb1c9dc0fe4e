//! Hosts under random delays, crashes, slow disks, skewed clocks, drains and a troubled ledger: all
//! invariants hold, and when the weather is calm again, jobs work.
//!
//! Owns: the histories. Must not: know what an invariant says.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use simnet_host::ledger::{LedgerFaults, LedgerTerms, Outage, Reorganisation, Slowness, Window};
use simnet_host::{HostSpec, Observation, Stimulus};
use simnet_scenario::{Moment, Seed};

use crate::world::{CALM, Weather, World, consumer, provider};

#[derive(Clone, Copy, Debug)]
enum Act {
    Submit { consumer: usize },
    Cancel { job: u8 },
    Crash { host: usize, down_ms: u64 },
    Drain { host: usize },
    Pass { millis: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0usize..2).prop_map(|consumer| Act::Submit { consumer }),
        2 => (1u8..30).prop_map(|job| Act::Cancel { job }),
        2 => (0usize..4, 1u64..20_000).prop_map(|(host, down_ms)| Act::Crash { host, down_ms }),
        1 => (0usize..4).prop_map(|host| Act::Drain { host }),
        6 => (0u64..6_000).prop_map(|millis| Act::Pass { millis }),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    seed: u64,
    crash: u32,
    commit_ms: u64,
    jitter_ms: u64,
    skew_ms: i64,
    outage: (u64, u64),
    behind: u32,
    reorganisation: (u64, u32),
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let ledger = ((0u64..60, 0u64..60), 0u32..10, (1u64..60, 0u32..3));
    let crash = prop_oneof![Just(0u32), Just(10_000), Just(60_000)];
    let commit_ms = prop_oneof![Just(0u64), Just(1), Just(30)];
    let host = (crash, commit_ms, 0u64..200, -25_000i64..25_000);
    (0u64..1_000_000, host, ledger).prop_map(|(seed, host, ledger)| {
        let (crash, commit_ms, jitter_ms, skew_ms) = host;
        let (outage, behind, reorganisation) = ledger;
        Trouble { seed, crash, commit_ms, jitter_ms, skew_ms, outage, behind, reorganisation }
    })
}

impl Trouble {
    fn specs(self) -> Vec<HostSpec> {
        let mut specs = vec![consumer(1), consumer(2), provider(3), provider(4)];
        for spec in &mut specs {
            spec.seed = Seed(self.seed);
            Arc::make_mut(&mut spec.store).commit = Duration::from_millis(self.commit_ms);
            Arc::make_mut(&mut spec.store).spread = Duration::from_millis(self.commit_ms * 2);
            Arc::make_mut(&mut spec.store).slow = 50_000;
            Arc::make_mut(&mut spec.store).slow_commit = Duration::from_millis(300);
            Arc::make_mut(&mut spec.store).crash = self.crash;
        }
        // One of each role is ahead, the others are behind.
        specs[0].skew_ms = self.skew_ms;
        specs[1].skew_ms = -self.skew_ms;
        specs[2].skew_ms = -self.skew_ms;
        specs[3].skew_ms = self.skew_ms;
        specs
    }

    fn terms(self) -> LedgerTerms {
        let at = |seconds| Moment::START.after(Duration::from_secs(seconds));
        let (from, length) = self.outage;
        let window = Window { from: at(from), until: at(from + length) };
        let slow = Slowness { window, blocks: self.behind };
        let (when, depth) = self.reorganisation;
        let faults = LedgerFaults {
            outages: vec![Outage { window, hosts_per_thousand: 500 }],
            lags: vec![slow],
            delays: vec![slow],
            reorganisations: vec![Reorganisation { at: at(when), depth }],
        };
        LedgerTerms { faults, ..LedgerTerms::default() }
    }

    fn world(self) -> World {
        let jitter = Duration::from_millis(self.jitter_ms);
        let weather = Weather { jitter, ..CALM };
        World::on(self.specs(), Seed(self.seed), weather, self.terms())
    }
}

fn happen(world: &mut World, act: Act, jobs: &mut u8) {
    match act {
        Act::Submit { consumer } if world.hosts[consumer].runs() => {
            *jobs += 1;
            world.submit(consumer, *jobs);
        }
        Act::Cancel { job } => {
            let job = World::order(job).job;
            world.give(0, Stimulus::Cancel(job));
            world.give(1, Stimulus::Cancel(job));
        }
        Act::Crash { host, down_ms } if world.hosts[host].runs() => {
            world.crash(host);
            world.run_for(Duration::from_millis(down_ms));
            world.give(host, Stimulus::Start);
        }
        Act::Drain { host } => world.give(host, Stimulus::Drain),
        Act::Pass { millis } => world.run_for(Duration::from_millis(millis)),
        Act::Submit { .. } | Act::Crash { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_life_goes_on(
        acts in prop::collection::vec(act(), 1..40),
        trouble in trouble(),
    ) {
        let mut world = trouble.world();
        let mut jobs = 0;
        for act in acts {
            happen(&mut world, act, &mut jobs);
        }
        // Whatever was begun ends, and what is remembered of a host that failed fades. Who is
        // draining leaves, however long the ledger takes, and comes back.
        prop_assert!(world.finish(), "a job has no end");
        world.run_for(Duration::from_secs(1_200));
        for host in 0..world.hosts.len() {
            if !world.hosts[host].runs() {
                world.give(host, Stimulus::Start);
            }
        }
        world.run_for(Duration::from_secs(10));
        let violation = world.invariants.violation().cloned();
        prop_assert!(violation.is_none(), "{violation:#?}");
        if trouble.crash == 0 {
            for (consumer, number) in [(0, 200), (1, 201)] {
                let job = world.submit(consumer, number);
                prop_assert!(world.finish());
                let end = world.end(job);
                prop_assert!(matches!(end, Some(Observation::JobFinished { .. })), "{end:?}");
            }
        }
        world.invariants.finish(world.now, false, &world.ledger);
        let violation = world.invariants.violation().cloned();
        prop_assert!(violation.is_none(), "{violation:#?}");
    }
}
