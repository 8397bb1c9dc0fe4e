//! Whole runs of small networks: the same again in another process, and no invariant broken.
//!
//! Owns: the scenarios. Must not: measure time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;
use std::process::Command;

use simnet_host::invariant::Bounds;
use simnet_host::{Invariants, Outcome, population};
use simnet_scenario::{Scenario, Seed};

/// Scenarios in which something goes wrong, each in its own way.
const SCENARIOS: [(&str, &str); 6] = [
    ("plain", ""),
    (
        "churn",
        "[churn]\nhome_providers = \"hobby\"\nconsumers = \"hobby\"\nprovider_loss = \"90 %/h\"\n\
         [churn.hobby]\nsession_median = \"60 s\"\nabsence_median = \"15 s\"\n",
    ),
    ("faults", "[faults]\ncrash = \"20 /h\"\ncrash_at_persist = \"0.2 %\"\nloss = \"2 %\"\n"),
    ("cut", "[[faults.partitions]]\nfrom = \"30 s\"\nuntil = \"60 s\"\nshare = \"30 %\"\n"),
    (
        "adversaries",
        "[[adversaries]]\nkind = \"sybil\"\nportion = \"10 %\"\n\
         [[adversaries]]\nkind = \"fast-fail\"\nportion = \"10 %\"\n\
         [[adversaries]]\nkind = \"free-rider\"\nportion = \"10 %\"\n\
         [[adversaries]]\nkind = \"voucher-withholder\"\nportion = \"5 %\"\n",
    ),
    ("eclipse", "[[adversaries]]\nkind = \"eclipse\"\nportion = \"15 %\"\nvictim = 2\n"),
];

fn scenario(text: &str) -> Scenario {
    let head = "tier = \"abstract\"\nduration = \"120 s\"\n";
    let tail = "[population]\nnodes = 300\n[demand]\nrate = \"4 /s\"\n";
    Scenario::parse("test", &format!("{head}{tail}{text}")).unwrap()
}

fn watched(scenario: &Scenario, seed: Seed) -> (Outcome, Invariants) {
    let hosts = population::draw(scenario, seed).unwrap();
    let mut invariants = Invariants::new(Bounds::of(scenario, &hosts));
    let outcome =
        simnet_abstract::run(scenario, seed, &mut invariants, &mut |_| ControlFlow::Continue(()));
    (outcome.unwrap(), invariants)
}

fn hex(outcome: &Outcome) -> String {
    let trace: String = outcome.trace.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} {trace}", outcome.events)
}

#[test]
fn no_invariant_is_broken_whatever_goes_wrong() {
    for (name, text) in SCENARIOS {
        let (outcome, invariants) = watched(&scenario(text), Seed(3));
        assert!(invariants.violation().is_none(), "{name}: {:?}", invariants.violation());
        assert!(outcome.events > 10_000, "{name}: something happened");
    }
}

/// What the other process prints.
const AGAIN: &str = "SIMNET_ABSTRACT_TEST_AGAIN";

#[test]
fn the_same_seed_gives_the_same_run_in_another_process_and_another_seed_does_not() {
    let runs = || {
        let hashes = SCENARIOS.iter().map(|(_, text)| hex(&watched(&scenario(text), Seed(5)).0));
        hashes.collect::<Vec<_>>().join("\n")
    };
    if std::env::var_os(AGAIN).is_some() {
        println!("\nhashes:\n{}\n:hashes", runs());
        return;
    }
    let name = "the_same_seed_gives_the_same_run_in_another_process_and_another_seed_does_not";
    let again = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(AGAIN, "yes")
        .output()
        .unwrap();
    let printed = String::from_utf8(again.stdout).unwrap();
    let theirs = printed.split("hashes:\n").nth(1).and_then(|it| it.split("\n:hashes").next());
    assert_eq!(theirs, Some(runs().as_str()), "{printed}");
    let (_, plain) = SCENARIOS[0];
    let trace = |seed| watched(&scenario(plain), Seed(seed)).0.trace;
    assert_ne!(trace(5), trace(6));
}

#[test]
fn the_caller_can_end_a_run() {
    let mut calls = 0;
    let scenario = scenario("");
    let mut nobody = Invariants::new(Bounds::of(&scenario, &[]));
    let outcome = simnet_abstract::run(&scenario, Seed(1), &mut nobody, &mut |_| {
        calls += 1;
        ControlFlow::Break(())
    });
    let outcome = outcome.unwrap();
    assert!(outcome.interrupted && calls == 1);
    assert!(outcome.at.as_secs_f64() < 120.0);
}
