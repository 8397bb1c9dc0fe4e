//! Planted bugs in the whole program: `simnet run` and `simnet check` catch each in a scenario that
//! passes without it.
//!
//! Owns: one short run for each bug. Must not: look inside; the host crate's tests do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output, Stdio};

/// Runs the program with a bug planted, or without.
fn simnet(bug: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simnet"));
    command.args(arguments).stdin(Stdio::null()).env_remove("SIMNET_PLANT");
    if let Some(bug) = bug {
        command.env("SIMNET_PLANT", bug);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(text).unwrap()
}

/// A calm network of a dozen nodes.
const CALM: [&str; 8] = [
    "baseline-abstract",
    "--seconds",
    "40",
    "--set",
    "population.nodes=60",
    "--set",
    "demand.rate=4 /s",
    "--dry",
];

/// `simnet run` ends with 2 and names the invariant; with 0 without the bug.
fn caught(bug: &str, invariant: &str, scenario: &[&str]) {
    let mut arguments = vec!["run"];
    arguments.extend(scenario);
    let calm = simnet(None, &arguments);
    assert_eq!(calm.status.code(), Some(0), "{bug} is not planted: {}", said(&calm));
    let found = simnet(Some(bug), &arguments);
    assert_eq!(found.status.code(), Some(2), "{bug} is not caught: {}", said(&found));
    let words = format!("violation of {invariant}");
    assert!(said(&found).contains(&words), "{bug}: {}", said(&found));
}

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    CALM.iter().copied().chain(more.iter().copied()).collect()
}

#[test]
fn an_order_that_the_machine_decides_is_found_by_check() {
    let arguments =
        ["check", "baseline-abstract", "--seconds", "15", "--set", "population.nodes=60"];
    let calm = simnet(None, &arguments);
    assert_eq!(calm.status.code(), Some(0), "{}", said(&calm));
    let found = simnet(Some("random-order"), &arguments);
    assert_eq!(found.status.code(), Some(1), "{}", said(&found));
    assert!(said(&found).contains("a second run of the same seed differs"), "{}", said(&found));
}

#[test]
fn a_voucher_that_a_crash_loses_is_found() {
    caught("voucher-lost", "vouchers-monotone", &with(&["--set", "faults.crash=600 /h"]));
}

#[test]
fn a_payment_that_is_credited_twice_is_found() {
    let often = ["--set", "payments.settle_threshold=0.0001 TON"];
    caught("paid-twice", "money-conserved", &with(&often));
}

#[test]
fn an_engine_that_ignores_its_grant_is_found() {
    caught("overserving", "exposure", &with(&[]));
}

#[test]
fn a_queue_without_its_bound_is_found() {
    let few = ["--set", "population.providers=2", "--set", "demand.rate=20 /s"];
    caught("door-open", "queues-bounded", &with(&few));
}

#[test]
fn a_job_whose_end_nobody_hears_is_found() {
    caught("news-lost", "jobs-end-once", &with(&[]));
}
