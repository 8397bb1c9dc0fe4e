//! Whole scenarios of the exact tier, each in a process of its own.
//!
//! Owns: what only a network of real overlays and hosts can show. Must not: measure real time.
//!
//! Two simulations in one process do not reproduce, so each test runs itself again as a child with
//! its own name, and the child runs the scenario.

#![expect(clippy::print_stdout, reason = "a child tells its result that way")]
#![expect(clippy::unwrap_used, reason = "a test that cannot start its child has failed")]

mod watch;

use std::process::Command;

use simnet_scenario::{Scenario, Seed};

use watch::Watch;

/// Names the test that a child is for.
const CHILD: &str = "SIMNET_TEST_CHILD";

/// Runs `test` in a process of its own. What it returns is printed there, and returned here.
fn isolated(name: &str, test: fn() -> String) -> String {
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        println!("result {}", simnet_core::on_fresh_thread(test).unwrap());
        return String::new();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let complained = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{said}\n{complained}");
    let line = said.lines().find_map(|line| line.split_once("result ")).map(|(_, result)| result);
    line.unwrap().to_owned()
}

fn scenario(changes: &str) -> Scenario {
    let text = format!("name = \"test\"\n{changes}");
    Scenario::parse("test", &text).unwrap_or_else(|error| panic!("{error}"))
}

fn run(scenario: &Scenario, seed: u64) -> (Watch, simnet_host::Outcome) {
    let mut watch = Watch::new(scenario);
    let outcome = simnet_exact::run(scenario, Seed(seed), &mut watch, &mut |_| {
        std::ops::ControlFlow::Continue(())
    });
    let outcome = outcome.unwrap_or_else(|error| panic!("{error}"));
    watch.check();
    (watch, outcome)
}

/// Everybody is reachable, every provider serves the one model at the tier that is asked.
const SIMPLE: &str = r#"
[population]
nodes = 40
providers = 10
index_only = 6
nat = { public = 1, cone = 0, symmetric = 0 }
[models.small]
memory = "5 GB"
context = 8192
[demand.minimum_tier]
open = 1
attested = 0
confidential = 0
"#;

#[test]
fn forty_nodes_serve_and_pay_to_the_last_nanoton() {
    isolated("forty_nodes_serve_and_pay_to_the_last_nanoton", || {
        let quiet = "[[demand.bursts]]\nfrom = \"60 s\"\nuntil = \"180 s\"\ntimes = 0\n";
        let scenario = scenario(&format!("duration = \"180 s\"\n{SIMPLE}{quiet}"));
        let (watch, _) = run(&scenario, 1);
        assert!(watch.submitted > 60, "{watch:?}");
        assert_eq!(watch.finished + watch.failed, watch.submitted, "every job ended: {watch:?}");
        assert!(watch.finished * 100 >= watch.submitted * 95, "{watch:?}");
        // All that was promised is held, and is what the receipts say.
        assert_eq!(watch.promised(), watch.held());
        assert!(watch.promised() >= watch.cost && watch.cost > 0, "{watch:?}");
        if watch.failed == 0 {
            assert_eq!(watch.promised(), watch.cost);
        }
        String::new()
    });
}

#[test]
fn what_is_beside_the_network_happens_at_its_time_however_quiet_the_network_is() {
    isolated("what_is_beside_the_network_happens_at_its_time_however_quiet_the_network_is", || {
        // Few nodes, so that the network's next event is often milliseconds away, and something
        // beside it every ten.
        let times = "duration = \"60 s\"\nsample_every = \"10 ms\"";
        let scenario = scenario(&format!("{times}\n{SIMPLE}"));
        let (watch, _) = run(&scenario, 1);
        assert_eq!((watch.samples, watch.late_samples), (5_999, 0));
        assert!(watch.submitted > 0, "{watch:?}");
        String::new()
    });
}

#[test]
fn a_provider_that_comes_back_at_another_port_serves_again() {
    isolated("a_provider_that_comes_back_at_another_port_serves_again", || {
        // Two providers, both of which die every minute or so and come back after five seconds at
        // another port.
        let text = r#"
duration = "400 s"
[population]
nodes = 20
providers = 2
index_only = 6
nat = { public = 1, cone = 0, symmetric = 0 }
[models.small]
memory = "5 GB"
context = 8192
[demand]
rate = "30 /min"
[demand.minimum_tier]
open = 1
attested = 0
confidential = 0
[demand.completion]
median_tokens = 20
max_tokens = 200
[churn]
provider_loss = "6000 %/h"
[churn.hobby]
absence_median = "5 s"
"#;
        let (watch, _) = run(&scenario(text), 3);
        assert!(watch.restarts >= 4, "{watch:?}");
        // Whoever looked for it finds it again within seconds, not at the next publication.
        let most = watch.slowest_return().expect("somebody came back");
        assert!(most < 60_000, "{most} ms from a provider's return to its next job: {watch:?}");
        assert!(watch.served_again >= watch.restarts / 2, "{watch:?}");
        String::new()
    });
}

#[test]
fn a_network_that_was_cut_in_two_heals() {
    isolated("a_network_that_was_cut_in_two_heals", || {
        let cut = r#"
[[faults.partitions]]
from = "40 s"
until = "80 s"
share = "50 %"
"#;
        let scenario = scenario(&format!("duration = \"240 s\"\n{SIMPLE}{cut}"));
        let (watch, _) = run(&scenario, 4);
        let late = watch.finished_after(120_000);
        assert!(late * 100 >= watch.submitted_after(120_000) * 75, "{late} of {watch:?}");
        String::new()
    });
}

#[test]
fn churn_fails_few_jobs() {
    isolated("churn_fails_few_jobs", || {
        // A fifth of the providers an hour, as fast as 100 times that: one dies every 20 s.
        let churn =
            "[churn]\nprovider_loss = \"1000 %/h\"\n[churn.hobby]\nabsence_median = \"20 s\"\n";
        let scenario = scenario(&format!("duration = \"240 s\"\n{SIMPLE}{churn}"));
        let (watch, _) = run(&scenario, 5);
        assert!(watch.restarts > 0, "{watch:?}");
        assert!(watch.finished * 100 >= (watch.submitted - 10) * 85, "{watch:?}");
        String::new()
    });
}

fn reproduced() -> String {
    let scenario = scenario(&format!("duration = \"30 s\"\n{SIMPLE}"));
    let (watch, outcome) = run(&scenario, 7);
    assert!(watch.finished > 0);
    format!("{} {:?}", outcome.events, outcome.trace)
}

#[test]
fn the_same_seed_gives_the_same_trace_in_another_process() {
    let name = "the_same_seed_gives_the_same_trace_in_another_process";
    let first = isolated(name, reproduced);
    if !first.is_empty() {
        assert_eq!(first, isolated(name, reproduced));
    }
}

/// Everybody has a TEE and every job must have one, but for the attackers: they claim it.
const ATTESTED: &str = r#"
duration = "100 s"
warm_up = "10 s"
[population]
nodes = 40
providers = 14
index_only = 8
nat = { public = 1, cone = 0, symmetric = 0 }
hardware = { h100 = 1 }
[models.small]
memory = "5 GB"
context = 8192
[demand]
rate = "3 /s"
[demand.minimum_tier]
open = 0
attested = 1
confidential = 0
[[demand.bursts]]
from = "70 s"
until = "100 s"
times = 0
"#;

/// With this attack: every attested job of everybody, the victim's among them, is served.
fn attested_under(attack: &str) -> String {
    let scenario = scenario(&format!("{ATTESTED}[[adversaries]]\n{attack}claims = \"attested\"\n"));
    let (watch, _) = run(&scenario, 8);
    assert!(watch.submitted > 150, "{watch:?}");
    assert_eq!(watch.failed, 0, "{watch:?}");
    assert!(watch.finished * 100 >= watch.submitted * 99, "{watch:?}");
    assert_eq!(watch.prompts_to_hostile, 0, "{watch:?}");
    format!("met {} of {} hostile", watch.met_hostile, watch.met)
}

#[test]
fn an_eclipse_of_a_consumer_costs_no_attested_job() {
    isolated("an_eclipse_of_a_consumer_costs_no_attested_job", || {
        let said = attested_under("kind = \"eclipse\"\nportion = 12\nvictim = 0\n");
        // It is attacked: without liars in the index six of twenty would be the attacker's.
        assert!(!said.contains("met 0 of"), "{said}");
        said
    });
}

/// Half of the nodes that only keep the index take every record and keep none.
#[test]
fn droppers_of_records_cost_no_job() {
    isolated("droppers_of_records_cost_no_job", || {
        let text = ATTESTED.replace("100 s", "60 s").replace("70 s", "40 s");
        let attack = "[[adversaries]]\nkind = \"relay-dropper\"\nportion = \"50 %\"\n";
        let (watch, _) = run(&scenario(&format!("{text}{attack}")), 8);
        assert!(watch.submitted > 80, "{watch:?}");
        assert_eq!(watch.failed, 0, "{watch:?}");
        String::new()
    });
}

#[test]
fn sybils_at_thirty_percent_cost_no_attested_job() {
    isolated("sybils_at_thirty_percent_cost_no_attested_job", || {
        let said = attested_under("kind = \"sybil\"\nportion = \"30 %\"\n");
        assert!(!said.contains("met 0 of"), "{said}");
        said
    });
}
