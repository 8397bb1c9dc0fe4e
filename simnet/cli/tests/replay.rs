//! `simnet replay` as a real process: a node's state at a moment, and a walk through a run.
//!
//! Owns: that a look shows what had happened by then and nothing else, and leaves the run as it was.
//! Must not: know figures; it compares what one look says with what another says.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A small run of one tier, recorded.
struct Run {
    _folder: tempfile::TempDir,
    place: PathBuf,
}

const TIERS: [&str; 2] = ["exact", "abstract"];
const NODES: u64 = 14;

fn simnet(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_simnet"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Run {
    /// Of a calm network.
    fn of(tier: &str) -> Self {
        let nodes = format!("population.nodes={NODES}");
        let small = ["--set", &nodes, "--set", "population.providers=4"];
        let calm = ["lan", "--tier", tier, "--set", "demand.rate=2 /s"];
        Self::made_by(&[&calm[..], &small].concat())
    }

    fn made_by(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("run");
        let files = ["--tables", "none", "--quiet", "--out", place.to_str().unwrap()];
        let whole = [&["run"], arguments, &["--seconds", "20"], &files].concat();
        let output = simnet(&whole, "");
        assert_eq!(output.status.code(), Some(0), "{whole:?}: {}", text(&output.stderr));
        Self { _folder: folder, place }
    }

    fn replay(&self, more: &[&str], input: &str) -> Output {
        let mut arguments = vec!["replay", self.place.to_str().unwrap()];
        arguments.extend(more);
        simnet(&arguments, input)
    }

    /// What programs get.
    fn json(&self, more: &[&str]) -> Value {
        let output = self.replay(&[more, &["--json"]].concat(), "");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A node's state at a moment, in nanoseconds.
    fn state(&self, at: u64, node: u64) -> Value {
        let (until, node) = (format!("{at}ns"), node.to_string());
        let whole = self.json(&["--until", &until, "--node", &node, "--state"]);
        whole["state"].clone()
    }

    /// The first fact that begins so, from a moment on: who, when in nanoseconds, and the whole of it.
    fn first(&self, beginning: &str, from_s: f64) -> (u64, u64, String) {
        let whole = self.json(&["--last", "100000"]);
        let facts = whole["facts"].as_array().unwrap();
        let found = facts.iter().find(|it| {
            it["fact"].as_str().unwrap().starts_with(beginning)
                && it["at_s"].as_f64().unwrap() > from_s
        });
        let found = found.unwrap_or_else(|| panic!("no {beginning} among {} facts", facts.len()));
        let at: u64 =
            format!("{:.9}", found["at_s"].as_f64().unwrap()).replace('.', "").parse().unwrap();
        (found["host"].as_u64().unwrap(), at, found["fact"].as_str().unwrap().to_owned())
    }
}

/// The entry of a list that is about a job.
fn about<'a>(list: &'a Value, job: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|it| it["job"].as_str().unwrap().starts_with(job))
}

/// The digits in `JobId(0123456789ab…)`.
fn job_in(fact: &str) -> String {
    let (_, rest) = fact.split_once("JobId(").unwrap();
    rest.split_once('…').unwrap().0.to_owned()
}

#[test]
fn a_state_is_that_of_the_moment_and_of_no_other() {
    for tier in TIERS {
        let run = Run::of(tier);
        let (consumer, at, fact) = run.first("FirstToken", 2.0);
        let job = job_in(&fact);

        // A nanosecond before, the reader has nothing; the provider's engine is at it.
        let before = run.state(at - 1, consumer);
        let waiting = about(&before["consumer"]["jobs"], &job).unwrap();
        assert_eq!(waiting["counted_tokens"], 0, "{tier}: {waiting}");
        let after = run.state(at, consumer);
        let reading = about(&after["consumer"]["jobs"], &job).unwrap();
        assert!(reading["counted_tokens"].as_u64() > Some(0), "{tier}: {reading}");
        assert_eq!(reading["phase"], "running", "{tier}: {reading}");
        assert_eq!(reading["attempts"], 1);

        // Both ends tell the same story of the job.
        let host = reading["provider"]["host"].as_u64().unwrap();
        let provider = run.state(at, host);
        let served = about(&provider["provider"]["jobs"], &job).unwrap();
        assert_eq!(served["consumer"]["host"], consumer, "{tier}: {served}");
        assert_eq!(served["prompt_tokens"], reading["prompt_tokens"], "{tier}");
        let tokens = |key: &str| served[key].as_u64().unwrap();
        assert!(tokens("sent_tokens") >= reading["counted_tokens"].as_u64().unwrap(), "{served}");
        assert!(tokens("written_tokens") >= tokens("sent_tokens"), "{tier}: {served}");
        assert!(tokens("granted_tokens") >= tokens("written_tokens"), "{tier}: {served}");
        assert!(provider["provider"]["engine"]["jobs"].as_u64() >= Some(1), "{tier}");

        // And of the money: what the provider holds was promised, and is durable at the other end.
        let channel = |list: &Value, key: &str, host: u64| {
            let mut found = list.as_array().unwrap().iter();
            found.find(|it| it[key]["host"] == host).cloned().unwrap()
        };
        let paid = channel(&after["consumer"]["channels"], "provider", host);
        let held = channel(&provider["provider"]["channels"], "consumer", consumer);
        let amount = |of: &Value, key: &str| of[key].as_u64().unwrap();
        assert!(amount(&held, "held_nanoton") > 0, "{tier}: the prompt is paid: {held}");
        assert!(amount(&held, "held_nanoton") <= amount(&paid, "durable_nanoton"), "{paid}");
        assert_eq!(amount(&paid, "durable_nanoton"), amount(&paid, "promised_nanoton"));
        assert_eq!(held["limit_nanoton"], paid["limit_nanoton"], "{tier}");
        let stored = channel(&after["store"]["payers"], "provider", host);
        assert_eq!(stored["promised_nanoton"], paid["durable_nanoton"], "{tier}");

        // The overlay knows the provider, and the provider its subscriber.
        let known = channel(&after["overlay"]["providers"], "provider", host);
        assert_eq!(known["warm"], true, "{tier}: {known}");
        assert!(provider["overlay"]["subscribers"].as_u64() >= Some(1), "{tier}");
        assert_eq!(after["overlay"]["network"].is_object(), tier == "exact");
        if tier == "exact" {
            channel(&after["overlay"]["connections"], "peer", host);
        }

        // Once it has finished it is gone from both.
        let finished = format!("JobFinished {{ job: JobId({job}");
        let (_, end, _) = run.first(&finished, 0.0);
        assert!(about(&run.state(end, consumer)["consumer"]["jobs"], &job).is_none(), "{tier}");
        assert!(about(&run.state(end - 1, consumer)["consumer"]["jobs"], &job).is_some());
    }
}

#[test]
fn people_read_the_same_and_a_look_is_the_same_again() {
    for tier in TIERS {
        let run = Run::of(tier);
        let (consumer, at, fact) = run.first("FirstToken", 2.0);
        let (until, node) = (format!("{at}ns"), consumer.to_string());
        let look = ["--until", &until, "--node", &node, "--state", "--last", "1"];
        let one = run.replay(&look, "");
        assert_eq!(one.status.code(), Some(0), "{}", text(&one.stderr));
        let shown = text(&one.stdout);
        let told = format!("s host {consumer}: {fact}");
        assert!(shown.lines().next().unwrap().ends_with(&told), "{tier}: facts first\n{shown}");
        for words in ["\nwho it is\n", "\nconsumer: jobs under way (", "  running", "\noverlay\n"] {
            assert!(shown.contains(words), "{tier}: {words} in\n{shown}");
        }
        assert!(shown.contains(&format!("\nnode {consumer} at ")), "{shown}");
        assert_eq!(one.stdout, run.replay(&look, "").stdout, "{tier}");

        let never = run.state(0, consumer);
        assert_eq!(never["consumer"], Value::Null, "{tier}");
        let life = never["process"]["life"].as_str().unwrap();
        assert!(life.contains("never started") || life.contains("nothing yet"), "{tier}: {life}");
    }
}

#[test]
fn a_walk_goes_as_far_as_it_is_told_and_leaves_the_run_as_it_was() {
    for tier in TIERS {
        let run = Run::of(tier);
        let (consumer, at, fact) = run.first("FirstToken", 2.0);
        let input = format!(
            "where\nnode {consumer}\nuntil {at}ns\nfacts 1\nstate\nnode all\nnext 3\nstate {consumer}\n\
             next\nuntil 20s\nnext\nstate {consumer} all\nquit\n"
        );
        let output = run.replay(&["--step"], &input);
        let (shown, told) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{tier}: {told}");
        let first = shown.lines().next().unwrap();
        assert_eq!(first, "at 0.000s of 20.000s; looking at all nodes", "{tier}");
        assert!(shown.lines().nth(1).unwrap().ends_with(&fact), "{tier}: the last fact\n{shown}");
        assert_eq!(shown.matches("\nwho it is\n").count(), 3, "{tier}\n{shown}");
        let facts =
            shown.lines().filter(|line| line.contains("s host ") || line.contains("s ledger: "));
        assert!(facts.count() >= 5, "{tier}: one, three and one were asked for\n{shown}");
        assert!(told.contains("at 20.000s of 20.000s, which is its end"), "{tier}: {told}");
        assert!(told.contains("nothing comes after it"), "{tier}: {told}");
        assert!(told.ends_with("the trace is the same as then\n"), "{tier}: {told}");

        // A state that is seen on a walk is the one that a single look shows.
        let single = run.replay(
            &["--until", &format!("{at}ns"), "--node", &consumer.to_string(), "--state"],
            "",
        );
        let single = text(&single.stdout);
        let (_, state) = single.split_once("\n\n").unwrap();
        let state = state.replace(": --all shows", &format!(": `state {consumer} all` shows"));
        assert!(shown.contains(state.trim_end()), "{tier}:\n{state}\nis not in\n{shown}");

        // A single look at the end is of the whole run too.
        let last = run.replay(&["--node", "1", "--state", "--all"], "");
        assert!(text(&last.stderr).contains("the trace is the same as then"), "{tier}");
    }
}

/// Crashes at any time and in commits, slow disks, skewed clocks: a run that is looked at wherever it
/// may be is still the same.
#[test]
fn many_looks_change_nothing_whatever_goes_wrong() {
    for scenario in ["crashes", "crashes-abstract"] {
        let run = Run::made_by(&[scenario, "--seed", "3", "--set", "population.nodes=60"]);
        let looks = (0..300_u64).map(|it| {
            // Moments that are no round ones, and facts that come at a moment of their own.
            let on = if it % 5 == 4 { "next 2".to_owned() } else { String::new() };
            format!("until {}ns\n{on}\nstate {} all\n", it * 63_123_457, it % 60)
        });
        let output = run.replay(&["--step"], &(looks.collect::<String>() + "until 20s\n"));
        let (shown, told) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{scenario}: {told}");
        assert_eq!(shown.matches("\nwho it is\n").count(), 300, "{scenario}: {told}");
        assert!(told.ends_with("the trace is the same as then\n"), "{scenario}: {told}");

        // Who has died has its disk and nothing else.
        let (host, at, _) = run.first("Crashed", 0.0);
        let (before, after) = (run.state(at - 1, host), run.state(at, host));
        assert_eq!(after["process"]["life"], "is stopped", "{scenario}");
        assert_eq!(after["overlay"], Value::Null, "{scenario}");
        assert_eq!(after["identity"], before["identity"], "{scenario}");
        assert!(after["store"]["commits"].as_u64() >= before["store"]["commits"].as_u64());
    }
}

#[test]
fn a_walk_says_what_is_wrong_and_goes_on() {
    let run = Run::of("abstract");
    let input = "go\nstate\nnext 0\nuntil\nuntil noon\nnode 14\nnode 13\nuntil 3s\nuntil 2s\n\
                 where now\nhelp\nwhere\n";
    let output = run.replay(&["--step", "--until", "1s"], input);
    let (shown, told) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}");
    let again = format!(
        "start again with: simnet replay {} --step --until 2.000s --node 13",
        run.place.display()
    );
    for words in [
        "at 1.000s of 20.000s; looking at all nodes",
        "`go` is no command; there are next, until",
        "of which node?",
        "`next` takes a number from 1 to 10000",
        "`until` takes a moment of the run, as `until 12.5s`\n",
        "as `until 12.5s`: ",
        "there is no node 14; the run has 14, from 0 to 13",
        "a run cannot go back from 3.000s to 2.000s",
        again.as_str(),
        "`where` is complete without `now`",
    ] {
        assert!(told.contains(words), "{words} in\n{told}");
    }
    assert!(shown.contains("A run cannot go back."), "{shown}");
    // The input ended in the middle of the run: nothing is compared, and nothing is wrong.
    assert!(shown.ends_with("at 3.000s of 20.000s; looking at node 13\n"), "{shown}");
    assert!(!told.contains("trace"), "{told}");
}

#[test]
fn what_cannot_be_looked_at_is_said() {
    let run = Run::of("abstract");
    let output = run.replay(&["--node", "14", "--state"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no such node; the run has 14"));
    let file = run.place.join("result.json");
    let output = simnet(&["replay", file.to_str().unwrap(), "--step"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("need a run's folder"));
}
