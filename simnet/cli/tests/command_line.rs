//! The command line as a real process: help, exit codes, names, violations, partial results.
//!
//! Owns: what a user or a script may rely on. Must not: judge a simulation's figures.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn simnet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simnet"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(out(output).trim()).unwrap_or_else(|_| panic!("{}", told(output)))
}

/// A network that is over before one notices.
const TINY: [&str; 8] = [
    "lan",
    "--seconds",
    "12",
    "--set",
    "population.nodes=12",
    "--set",
    "population.providers=4",
    "--dry",
];

fn tiny(more: &[&str]) -> Output {
    let mut arguments = vec!["run"];
    arguments.extend(TINY);
    arguments.extend(["--json"]);
    arguments.extend(more);
    simnet(&arguments)
}

#[test]
fn help_names_every_command_and_exit_code() {
    let help = simnet(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = out(&help);
    let commands = ["run", "compare", "sweep", "replay", "check", "calibrate", "scenarios"];
    for command in commands {
        assert!(text.contains(&format!("  {command} ")), "{command} in\n{text}");
        let help = simnet(&[command, "--help"]);
        assert_eq!(help.status.code(), Some(0));
        insta(command, &out(&help));
    }
    assert!(!text.contains("burn"));
    insta("simnet", &text);
}

/// Help is part of the interface: a change shows in review. `SIMNET_WRITE_HELP=1` writes it.
fn insta(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/help/{name}.txt"));
    let text: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    if std::env::var_os("SIMNET_WRITE_HELP").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, text, "{}: SIMNET_WRITE_HELP=1 writes it anew", path.display());
}

#[test]
fn what_is_wrong_is_named_and_ends_with_1() {
    for (arguments, words) in [
        (vec!["run", "baselin-small"], vec!["did you mean `baseline-small`?"]),
        (vec!["run", "lan", "--set", "demand.rat=5 /s"], vec!["`rate`", "demand.rat"]),
        (vec!["run", "lan", "--set", "population.nodes=1"], vec!["2 to 2000000"]),
        (vec!["run", "lan", "--set", "policy.name=best"], vec!["no policy", "cheapest"]),
        (vec!["run", "lan", "--sed", "1"], vec!["--seed"]),
        (vec!["sweep", "nowhere.toml"], vec!["nowhere.toml"]),
        (vec!["replay", "nowhere"], vec!["nowhere"]),
        (vec!["replay", "nowhere", "--state"], vec!["whose state?", "--node NUMBER"]),
        (vec!["replay", "nowhere", "--all", "--node", "1"], vec!["--state"]),
        (vec!["replay", "nowhere", "--step", "--json"], vec!["--step", "--json"]),
        (vec!["replay", "nowhere", "--until", "5"], vec!["`5`", "ms, us, ns"]),
        (vec!["compare", "nowhere"], vec!["nowhere"]),
    ] {
        let output = simnet(&arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", told(&output));
        for word in words {
            assert!(told(&output).contains(word), "{arguments:?}: {}", told(&output));
        }
    }
}

#[test]
fn a_file_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, "name = \"mine\"\n[demand]\nrate = \"5\"\n").unwrap();
    let output = simnet(&["run", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let told = told(&output);
    assert!(told.contains("mine.toml:3: demand.rate: "), "{told}");
    assert!(told.contains("as in `5 /s`"), "{told}");
}

#[test]
fn shipped_scenarios_are_listed_and_shown() {
    let list = out(&simnet(&["scenarios"]));
    assert!(list.contains("head-to-head") && list.contains("million"), "{list}");
    let text = out(&simnet(&["scenarios", "show", "eclipse"]));
    assert!(text.contains("kind = \"eclipse\""), "{text}");
    let full = out(&simnet(&["scenarios", "show", "eclipse", "--full"]));
    assert!(full.contains("block_time"), "{full}");
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let one = json(&tiny(&["--seed", "3"]));
    let two = json(&tiny(&["--seed", "3"]));
    let other = json(&tiny(&["--seed", "4"]));
    for field in ["trace", "result", "run", "events"] {
        assert_eq!(one[field], two[field], "{field}");
    }
    assert_ne!(one["trace"], other["trace"]);
    assert_ne!(one["run"], other["run"]);
    assert!(one["figures"].is_object());
    assert!(one["violation"].is_null());
}

#[test]
fn a_run_leaves_its_files_and_can_be_seen_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("run");
    let mut command = vec!["run"];
    command.extend(TINY.iter().filter(|it| **it != "--dry"));
    command.extend(["--out", place.to_str().unwrap(), "--quiet", "--tables", "csv"]);
    let output = simnet(&command);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    for file in ["result.json", "machine.json", "scenario.toml", "report.html", "jobs.csv"] {
        assert!(place.join(file).is_file(), "{file}");
    }
    let again = simnet(&["replay", place.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(0), "{}", told(&again));
    assert!(told(&again).contains("the trace is the same as then"), "{}", told(&again));
    let one = simnet(&["replay", place.to_str().unwrap(), "--until", "8 s", "--node", "2"]);
    assert_eq!(one.status.code(), Some(0), "{}", told(&one));
    assert!(out(&one).lines().all(|line| line.contains(" host 2: ")), "{}", out(&one));
}

#[test]
fn a_sweep_is_the_same_whole_and_in_shards_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let grid = folder.path().join("grid.toml");
    let text = "scenario = \"lan\"\nseeds = [1, 2]\n[set]\nduration = \"8 s\"\n\
                \"population.nodes\" = 8\n\"population.providers\" = 3\n\
                [grid]\n\"policy.name\" = [\"random\", \"cheapest\"]\n";
    std::fs::write(&grid, text).unwrap();
    let (grid, out_of) = (grid.to_str().unwrap(), |name: &str| folder.path().join(name));
    let whole = out_of("whole");
    let listed = simnet(&["sweep", grid, "--list", "--out", whole.to_str().unwrap()]);
    assert_eq!(out(&listed).lines().count(), 4, "{}", told(&listed));
    let run = simnet(&["sweep", grid, "--out", whole.to_str().unwrap(), "--tables", "none"]);
    assert_eq!(run.status.code(), Some(0), "{}", told(&run));
    let shards = out_of("shards");
    for shard in ["0/2", "1/2"] {
        let place = shards.to_str().unwrap();
        let run = simnet(&["sweep", grid, "--out", place, "--shard", shard, "--tables", "none"]);
        assert_eq!(run.status.code(), Some(0), "{}", told(&run));
    }
    let lines = |file: &Path| {
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut parts = lines(&shards.join("summary-0-of-2.csv"));
    parts.extend(lines(&shards.join("summary-1-of-2.csv")));
    parts.sort();
    assert_eq!(lines(&whole.join("summary.csv")), parts);
    let again = simnet(&["sweep", grid, "--out", whole.to_str().unwrap(), "--tables", "none"]);
    assert_eq!(told(&again).matches("there already").count(), 4, "{}", told(&again));
}

#[test]
fn an_interrupted_run_leaves_what_there_was_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("run");
    let child = Command::new(env!("CARGO_BIN_EXE_simnet"))
        .args(["run", "lan", "--seconds", "1000000", "--json", "--out"])
        .arg(&place)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its tables are there once it runs.
    while std::fs::read_dir(&place).map_or(0, Iterator::count) == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", told(&output));
    assert_eq!(json(&output)["interrupted"], serde_json::Value::Bool(true));
    assert!(place.join("result.json").is_file());
    assert!(place.join("report.html").is_file());
}
