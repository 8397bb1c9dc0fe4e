//! Faults for a while, then none: nothing breaks meanwhile, and afterwards everything works.
//!
//! Owns: runs with a ledger that is out of reach, behind or takes blocks back, and hosts that die.
//! Must not: look for a bug of one kind; the invariants look for all.

use std::time::Duration;

use cocoon_protocol::units::{NanoTon, PricePerMillion};
use simnet_host::invariant::{Bounds, Healing, Invariants};
use simnet_host::ledger::{LedgerFaults, LedgerTerms, Outage, Reorganisation, Slowness, Window};
use simnet_host::{HostSpec, Observation, Stimulus};
use simnet_scenario::{Moment, Seed};

use crate::world::{CALM, Weather, World, consumer, provider};

/// Faults stop here.
const HEALED: Duration = Duration::from_secs(120);
/// What is remembered of a provider that failed fades within this time.
const WITHIN: Duration = Duration::from_secs(900);

fn at(seconds: u64) -> Moment {
    Moment::START.after(Duration::from_secs(seconds))
}

fn window(from: u64, until: u64) -> Window {
    Window { from: at(from), until: at(until) }
}

fn faults() -> LedgerFaults {
    LedgerFaults {
        outages: vec![
            Outage { window: window(4, 20), hosts_per_thousand: 1_000 },
            Outage { window: window(50, 75), hosts_per_thousand: 500 },
        ],
        lags: vec![Slowness { window: window(20, 60), blocks: 12 }],
        delays: vec![Slowness { window: window(30, 90), blocks: 30 }],
        reorganisations: (1..60)
            .map(|number| Reorganisation { at: at(2 * number), depth: 2 })
            .collect(),
    }
}

fn hosts() -> Vec<HostSpec> {
    let mut hosts = vec![consumer(1), consumer(2), provider(3), provider(4), provider(5)];
    for (number, host) in hosts.iter_mut().enumerate() {
        if let Some(consumer) = &mut host.consumer {
            consumer.allocation = NanoTon::from_nano(100_000_000);
        }
        if let Some(provider) = &mut host.provider {
            // A job is worth a settlement.
            let completion = PricePerMillion::from_nano(100_000_000_000);
            provider.models[0].prices.completion = completion;
            provider.settle_threshold = NanoTon::from_nano(8_000_000);
            provider.payout.hash = [u8::try_from(number).unwrap(); 32];
        }
    }
    hosts
}

fn run(seed: u64) -> World {
    let weather = Weather { jitter: Duration::from_millis(80), ..CALM };
    let terms = LedgerTerms { faults: faults(), ..LedgerTerms::default() };
    let mut world = World::on(hosts(), Seed(seed), weather, terms);
    let healing = Some(Healing { at: at(HEALED.as_secs()), within: WITHIN });
    world.invariants = Invariants::new(Bounds { healing, ..Bounds::default() });
    let mut draw = 0;
    let mut drawn = |below: u64| {
        draw += 1;
        u64::from(Seed(seed).bytes("healing", draw)[0]) % below
    };
    let mut job = 0;
    while world.now < at(HEALED.as_secs()) {
        job += 1;
        world.submit(usize::try_from(drawn(2)).unwrap(), job);
        world.run_for(Duration::from_millis(500 + 20 * drawn(200)));
        let victim = usize::try_from(drawn(10)).unwrap();
        if victim < 5 {
            world.crash(victim);
            world.run_for(Duration::from_millis(10 * drawn(250)));
            world.give(victim, Stimulus::Start);
        }
        assert_eq!(world.invariants.violation(), None, "seed {seed}");
    }
    for _ in 0..30 {
        for host in 0..2 {
            job += 1;
            world.submit(host, job);
        }
        world.run_for(Duration::from_secs(60));
    }
    assert!(world.finish(), "seed {seed}");
    world
}

#[test]
fn after_faults_of_every_kind_all_consumers_are_served_and_no_money_is_lost() {
    let (mut done, mut failed, mut settled, mut crashes) = (0, 0, 0, 0);
    for seed in 0..10 {
        let world = run(seed);
        let count = |wanted: fn(&Observation) -> bool| {
            world.facts.iter().filter(|(_, _, fact)| wanted(fact)).count()
        };
        done += count(|fact| matches!(fact, Observation::JobFinished { .. }));
        failed += count(|fact| matches!(fact, Observation::JobFailed { .. }));
        settled += count(|fact| matches!(fact, Observation::Settled { .. }));
        crashes += count(|fact| matches!(fact, Observation::Crashed));
        for (_, vault) in world.ledger.vaults() {
            let paid: u64 = vault.allocations().map(|(_, it)| it.paid.as_nano()).sum();
            let promised = world.promised(0).as_nano() + world.promised(1).as_nano();
            assert!(paid <= promised, "seed {seed}");
        }
    }
    println!("{done} done, {failed} failed, {settled} settled, {crashes} crashes");
    assert!(done > 400 && failed > 20 && settled > 20 && crashes > 50);
}

/// A provider that leaves settles; its consumer takes the rest back, all of it.
#[test]
fn when_everybody_leaves_every_nanoton_is_somebodys_own() {
    let terms = LedgerTerms { release_delay: Duration::from_secs(60), ..LedgerTerms::default() };
    let mut world = World::on(hosts(), Seed(1), CALM, terms);
    for job in 1..=6 {
        world.submit(usize::from(job % 2), job);
        world.run_for(Duration::from_secs(20));
    }
    for provider in 2..5 {
        world.give(provider, Stimulus::Drain);
    }
    assert!(world.finish());
    world.run_for(Duration::from_secs(60));
    let held: u64 = (2..5).map(|provider| world.held(provider).as_nano()).sum();
    for consumer in 0..2 {
        world.retire(consumer);
    }
    world.run_for(Duration::from_secs(200));
    let left: Vec<_> = world.ledger.vaults().map(|(_, vault)| vault.allocations().len()).collect();
    assert_eq!(left, [0, 0]);
    let income: u64 = (2..5)
        .map(|at| world.hosts[at].spec().provider.as_ref().unwrap().payout)
        .map(|payout| world.ledger.income(payout).as_nano())
        .sum();
    // What was promised has arrived, less what at most twelve settlements cost.
    assert!(income <= held && income + 12 * 900_000 > held, "{income} of {held}");
    assert_eq!(world.ledger.audit(), world.ledger.books());
    assert!(world.ledger.books().balance());
}
