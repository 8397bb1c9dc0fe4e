//! Hosts under random delays, crashes, slow disks, cancellations and draws: all invariants hold,
//! and when the weather is calm again, jobs work.
//!
//! Owns: the histories. Must not: know what an invariant says.

use std::time::Duration;

use proptest::prelude::*;
use simnet_host::{HostSpec, Observation, Stimulus};
use simnet_scenario::Seed;

use crate::world::{CALM, Weather, World, consumer, provider};

#[derive(Clone, Copy, Debug)]
enum Act {
    Submit { consumer: usize },
    Cancel { job: u8 },
    Crash { host: usize, down_ms: u64 },
    Pass { millis: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0usize..2).prop_map(|consumer| Act::Submit { consumer }),
        1 => (1u8..30).prop_map(|job| Act::Cancel { job }),
        1 => (0usize..4, 1u64..20_000).prop_map(|(host, down_ms)| Act::Crash { host, down_ms }),
        3 => (0u64..6_000).prop_map(|millis| Act::Pass { millis }),
    ]
}

fn specs(seed: u64, crash: u32, commit_ms: u64) -> Vec<HostSpec> {
    let mut specs = vec![consumer(1), consumer(2), provider(3), provider(4)];
    for spec in &mut specs {
        spec.seed = Seed(seed);
        spec.store.commit = Duration::from_millis(commit_ms);
        spec.store.spread = Duration::from_millis(commit_ms * 2);
        spec.store.slow = 50_000;
        spec.store.slow_commit = Duration::from_millis(300);
        spec.store.crash = crash;
    }
    specs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_life_goes_on(
        acts in prop::collection::vec(act(), 1..40),
        seed in 0u64..1_000_000,
        crash in prop_oneof![Just(0u32), Just(10_000), Just(60_000)],
        commit_ms in prop_oneof![Just(0u64), Just(1), Just(30)],
        jitter_ms in 0u64..200,
    ) {
        let jitter = Duration::from_millis(jitter_ms);
        let weather = Weather { jitter, ..CALM };
        let mut world = World::with(specs(seed, crash, commit_ms), Seed(seed), weather);
        let mut jobs = 0;
        for act in acts {
            match act {
                Act::Submit { consumer } if world.hosts[consumer].runs() => {
                    jobs += 1;
                    world.submit(consumer, jobs);
                }
                Act::Submit { .. } => {}
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
                Act::Crash { .. } => {}
                Act::Pass { millis } => world.run_for(Duration::from_millis(millis)),
            }
        }
        // Whatever was begun ends, and what is remembered of a host that failed fades.
        prop_assert!(world.finish(), "a job has no end");
        world.run_for(Duration::from_secs(1_200));
        let violation = world.invariants.violation().cloned();
        prop_assert!(violation.is_none(), "{violation:#?}");
        if crash == 0 {
            for (number, consumer) in [0, 1].into_iter().enumerate() {
                let job = world.submit(consumer, 200 + u8::try_from(number).unwrap());
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
