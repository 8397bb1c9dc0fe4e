//! Population and script of whole scenarios: the mix that was asked for, in order, from the seed.
//!
//! Owns: what a scenario promises about who there is and what befalls them. Must not: run a host.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;

use cocoon_protocol::attest::Tier;
use proptest::prelude::*;
use simnet_host::population::{draw, models};
use simnet_host::{Event, HostEvent, HostSpec, Script, WorldEvent};
use simnet_scenario::{Moment, Scenario, Seed};

fn scenario(text: &str) -> Scenario {
    Scenario::parse("test.toml", text).unwrap()
}

fn script(scenario: &Scenario, seed: u64) -> (Vec<Arc<HostSpec>>, Script) {
    let hosts = draw(scenario, Seed(seed)).unwrap();
    let script = Script::new(scenario, Seed(seed), &hosts);
    (hosts, script)
}

#[test]
fn the_mix_is_met_and_follows_from_the_seed() {
    let scenario = scenario("[population]\nnodes = 200\nproviders = \"20 %\"\nindex_only = 10\n");
    let hosts = draw(&scenario, Seed(1)).unwrap();
    assert_eq!(hosts.iter().filter(|host| host.provider.is_some()).count(), 40);
    assert_eq!(hosts.iter().filter(|host| host.consumer.is_some()).count(), 150);
    let confidential = |host: &&Arc<HostSpec>| {
        host.provider.as_ref().is_some_and(|it| it.tier == Tier::Confidential)
    };
    assert_eq!(hosts.iter().filter(confidential).count(), 4, "a tenth of the weight");
    let again = draw(&scenario, Seed(1)).unwrap();
    let other = draw(&scenario, Seed(2)).unwrap();
    for (number, (one, two)) in hosts.iter().zip(&again).enumerate() {
        assert_eq!(one.id.0, u32::try_from(number).unwrap());
        assert_eq!(one.key.id(), two.key.id());
        assert_eq!((one.link, one.region, one.skew_ms), (two.link, two.region, two.skew_ms));
    }
    assert_ne!(hosts[0].key.id(), other[0].key.id());
    for model in models(&scenario) {
        let serves = |host: &&Arc<HostSpec>| {
            host.provider.as_ref().is_some_and(|it| it.models[0].model == model.hash)
        };
        assert!(hosts.iter().any(|host| serves(&host)), "{} is served", model.name);
    }
}

#[test]
fn one_host_more_moves_no_other_hosts_key() {
    let small = draw(&scenario("population.nodes = 50\n"), Seed(3)).unwrap();
    let large = draw(&scenario("population.nodes = 51\n"), Seed(3)).unwrap();
    for (one, two) in small.iter().zip(&large) {
        assert_eq!(one.key.id(), two.key.id());
    }
}

#[test]
fn adversaries_are_as_many_as_was_asked_and_are_what_they_are() {
    let scenario = scenario(
        "[population]\nnodes = 100\nproviders = 30\n\
         [[adversaries]]\nkind = \"sybil\"\nportion = \"30 %\"\nclaims = \"attested\"\n\
         [[adversaries]]\nkind = \"eclipse\"\nportion = 5\nvictim = 2\n\
         [[adversaries]]\nkind = \"free-rider\"\nportion = 3\n",
    );
    let hosts = draw(&scenario, Seed(1)).unwrap();
    let of = |kind: &str| {
        let kind = |host: &&Arc<HostSpec>| {
            host.adversary.as_ref().is_some_and(|it| it.kind.as_str() == kind)
        };
        hosts.iter().filter(kind).collect::<Vec<_>>()
    };
    assert_eq!(of("sybil").len(), 30);
    assert_eq!(of("eclipse").len(), 5);
    assert_eq!(of("free-rider").len(), 3);
    assert_eq!(hosts.iter().filter(|host| host.hostile).count(), 38);
    for sybil in of("sybil") {
        let provider = sybil.provider.as_ref().expect("every identity offers");
        assert_eq!(provider.tier, Tier::Attested);
    }
}

/// What a difference between an attack and its control may be put down to: nothing else differs.
#[test]
fn a_control_has_the_same_hosts_and_the_same_jobs() {
    let text = |control: &str| {
        format!(
            "duration = \"60 s\"\n[population]\nnodes = 60\nproviders = 15\n[[adversaries]]\n\
             kind = \"eclipse\"\nportion = 6\nvictim = 1\n{control}\
             [[adversaries]]\nkind = \"free-rider\"\nportion = 3\n{}",
            control.replace("absent", "honest")
        )
    };
    let attack = script(&scenario(&text("")), 1);
    let control = script(&scenario(&text("control = \"absent\"\n")), 1);
    assert_eq!(control.0.iter().filter(|host| host.hostile).count(), 0);
    assert_eq!(control.0.iter().filter(|host| host.is_absent()).count(), 6);
    for (one, two) in attack.0.iter().zip(&control.0) {
        assert_eq!((one.key.id(), one.link, one.region), (two.key.id(), two.link, two.region));
        assert_eq!((one.class, one.victim_of), (two.class, two.victim_of));
        assert_eq!(one.adversary.is_some(), two.adversary.is_some());
    }
    let victims: Vec<_> = attack.0.iter().filter(|it| it.victim_of.is_some()).collect();
    assert!(victims.len() == 1 && victims[0].consumer.is_some() && !victims[0].hostile);
    let absent = |host: &simnet_host::HostId| control.0[host.0 as usize].is_absent();
    let others: Vec<_> = attack
        .1
        .filter(|(_, it)| !matches!(it, Event::Host(host, HostEvent::Start) if absent(host)))
        .collect();
    assert_eq!(others, control.1.collect::<Vec<_>>());
    assert!(others.iter().any(|(_, it)| matches!(it, Event::Host(_, HostEvent::Submit(_)))));
}

#[test]
fn the_stream_is_in_order_and_the_same_every_time() {
    let scenario = scenario(
        "duration = \"1 h\"\n[churn]\nhome_providers = \"hobby\"\nconsumers = \"hobby\"\n\
         [faults]\ncrash = \"1 /h\"\n[[faults.partitions]]\nfrom = \"10 s\"\nuntil = \"20 s\"\n\
         regions = [\"japan\"]\n[demand]\nleave = \"20 %\"\n",
    );
    let events: Vec<_> = script(&scenario, 5).1.collect();
    assert!(events.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    assert_eq!(events, script(&scenario, 5).1.collect::<Vec<_>>());
    assert_ne!(events, script(&scenario, 6).1.collect::<Vec<_>>());
    let count = |wanted: fn(&Event) -> bool| events.iter().filter(|(_, it)| wanted(it)).count();
    assert!(count(|it| matches!(it, Event::Host(_, HostEvent::Leave))) > 10);
    assert!(count(|it| matches!(it, Event::Host(_, HostEvent::Crash))) > 100);
    assert!(count(|it| matches!(it, Event::Host(_, HostEvent::Cancel(_)))) > 1_000);
    assert_eq!(count(|it| matches!(it, Event::World(WorldEvent::Cut(0)))), 1);
    assert_eq!(count(|it| matches!(it, Event::World(WorldEvent::Heal(0)))), 1);
    let end = Moment::START.after(scenario.duration.duration());
    assert!(events.last().unwrap().0 <= end);
}

#[test]
fn demand_has_its_rate_and_its_bursts() {
    let scenario = scenario(
        "duration = \"1000 s\"\n[demand]\nrate = \"10 /s\"\nstarts = \"0 s\"\n\
         [[demand.bursts]]\nfrom = \"500 s\"\nuntil = \"600 s\"\ntimes = 5.0\n",
    );
    let (_, script) = script(&scenario, 1);
    let (mut usual, mut burst) = (0, 0);
    for (at, event) in script {
        if matches!(event, Event::Host(_, HostEvent::Submit(_))) {
            let inside = (500.0..600.0).contains(&at.as_secs_f64());
            *(if inside { &mut burst } else { &mut usual }) += 1;
        }
    }
    assert!((8_500..9_500).contains(&usual), "{usual}");
    assert!((4_700..5_300).contains(&burst), "{burst}");
}

#[test]
fn providers_are_lost_at_the_rate_that_was_asked_for() {
    let scenario = scenario(
        "duration = \"10 h\"\n[population]\nnodes = 500\nproviders = 200\n\
         [churn]\nprovider_loss = \"20 %/h\"\n[demand]\nrate = \"0 /s\"\n",
    );
    let (hosts, script) = script(&scenario, 1);
    let mut lost = 0;
    for (_, event) in script {
        if let Event::Host(host, HostEvent::Crash) = event {
            assert!(hosts[usize::try_from(host.0).unwrap()].provider.is_some());
            lost += 1;
        }
    }
    assert!((310..430).contains(&lost), "{lost} of about 200 × 0.2 × 10, less those away");
}

#[test]
fn what_is_kept_in_mind_does_not_grow_with_the_run() {
    let text = "[population]\nnodes = 100\n[churn]\nhome_providers = \"hobby\"\n\
                consumers = \"hobby\"\nprovider_loss = \"50 %/h\"\n[faults]\ncrash = \"2 /h\"\n";
    let mut scenario = scenario(text);
    scenario.duration = "20 d".parse().unwrap();
    scenario.demand.rate = "1 /min".parse().unwrap();
    let (_, mut script) = script(&scenario, 1);
    let mut most = 0;
    let mut events = 0u32;
    while script.next().is_some() {
        most = most.max(script.pending());
        events += 1;
    }
    assert!(events > 50_000, "{events}");
    assert!(most <= 100 * 6 + 2, "{most}");
}

#[test]
fn a_recorded_demand_is_replayed_as_it_was() {
    let mut scenario = scenario("[demand]\npattern = \"recorded\"\ntrace = \"demand.csv\"\n");
    let text = "at_s,prompt_tokens,completion_tokens,tier\n6,100,20,open\n7.5,7,9,attested\n";
    scenario.attach_trace(text).unwrap();
    let (_, script) = script(&scenario, 1);
    let jobs: Vec<_> = script
        .filter_map(|(at, event)| match event {
            Event::Host(_, HostEvent::Submit(order)) => Some((at, order)),
            _ => None,
        })
        .collect();
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[0].0, Moment::from_millis(6_000));
    assert_eq!((jobs[1].1.prompt.get(), jobs[1].1.completion.get()), (7, 9));
    assert_eq!(jobs[1].1.minimum_tier, Tier::Attested);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_small_population_can_be_drawn_and_played(
        seed: u64, nodes in 4..60u32, providers in 0..=50u32, sybils in 0..=100u32,
    ) {
        let text = format!(
            "duration = \"60 s\"\n[population]\nnodes = {nodes}\nproviders = \"{providers} %\"\n\
             [[adversaries]]\nkind = \"sybil\"\nportion = \"{sybils} %\"\n\
             [[adversaries]]\nkind = \"eclipse\"\nportion = 2\nvictim = 3\n",
        );
        let Ok(scenario) = Scenario::parse("drawn.toml", &text) else { return Ok(()) };
        let (hosts, script) = script(&scenario, seed);
        prop_assert_eq!(hosts.len(), usize::try_from(nodes).unwrap());
        let starts = script.filter(|(_, it)| matches!(it, Event::Host(_, HostEvent::Start)));
        prop_assert_eq!(starts.count(), hosts.len());
    }
}
