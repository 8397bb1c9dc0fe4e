//! `simnet check`: the same seed gives the same bytes, also under load; another gives others.
//!
//! Owns: a process for each run, and the load beside one of them. Must not: run two in one process, or
//! judge: `simnet_host::reproduction` does.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use simnet_host::reproduction::{Attempt, Hashes, Reproduction};

use crate::args::{Check, Source};
use crate::exit::Exit;
use crate::{printer, run};

/// What is checked where nothing is named: each tier, calm and under every fault.
const DEFAULT: [&str; 5] =
    ["baseline-small", "churn", "crashes", "baseline-abstract", "crashes-abstract"];

/// Runs the command.
pub(crate) fn run(args: &Check) -> Result<Exit> {
    if let Some(file) = &args.regressions {
        return regressions(file);
    }
    let names: Vec<String> = if args.scenarios.is_empty() {
        DEFAULT.iter().map(|it| (*it).to_owned()).collect()
    } else {
        args.scenarios.clone()
    };
    let mut equal = true;
    for name in names {
        let source = Source {
            scenario: name,
            set: args.set.clone(),
            tier: None,
            seconds: Some(args.seconds),
        };
        equal &= same(&source, args.seed)?;
    }
    Ok(if equal { Exit::Done } else { Exit::Failed })
}

/// Checks one scenario.
fn same(source: &Source, seed: u64) -> Result<bool> {
    let runs = Reproduction::attempt(|attempt| {
        let load = if attempt == Attempt::Loaded { Some(Load::start()?) } else { None };
        let hashes = hashes(source, attempt.seed(seed));
        drop(load);
        hashes
    })?;
    let (name, faults, first) = (&source.scenario, runs.faults(), runs.of(Attempt::First));
    let (trace, result) = (short(&first.trace), short(&first.result));
    let word = if faults.is_empty() { "same " } else { "DIFFERS" };
    printer::out(&format!("{word}  {name:<22}  trace {trace}  result {result}"));
    if !faults.is_empty() {
        for attempt in Attempt::ALL {
            let (run, it) = (attempt.name(), runs.of(attempt));
            printer::out(&format!("    {run:<6}  trace {}  result {}", it.trace, it.result));
        }
        printer::out(&format!("    {}", faults.join("; ")));
        printer::out(&format!("    {}", crate::source::command(source, seed)));
    }
    Ok(faults.is_empty())
}

fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

/// A run as a child: its line of JSON, whatever it ended with but a failure.
fn line(command: &mut Command, what: &str) -> Result<Value> {
    let output = command.stderr(Stdio::piped()).output().context("a run could not be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match serde_json::from_str(text.trim()) {
        Ok(value) => Ok(value),
        Err(_) => bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

fn hashes(source: &Source, seed: u64) -> Result<Hashes> {
    let mut command = run::child(source, seed, &["--dry".to_owned()])?;
    let value = line(&mut command, &source.scenario)?;
    let field = |name: &str| {
        let text = value.get(name).and_then(Value::as_str).map(str::to_owned);
        text.with_context(|| format!("{}: the run gave no {name}", source.scenario))
    };
    Ok(Hashes { trace: field("trace")?, result: field("result")? })
}

/// Processes that keep every core busy while they live.
#[derive(Debug)]
struct Load(Vec<Child>);

impl Load {
    fn start() -> Result<Self> {
        let program = std::env::current_exe().context("where is this program?")?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut load = Self(Vec::new());
        for _ in 0..cores {
            let burning = Command::new(&program).arg("burn").stdin(Stdio::piped()).spawn();
            load.0.push(burning.context("no load could be started")?);
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

/// `simnet burn`: hashes and allocates until it is killed or whoever started it is gone.
pub(crate) fn burn() -> Result<Exit> {
    let orphaned = std::thread::spawn(|| {
        let mut nothing = String::new();
        let _ended = std::io::Read::read_to_string(&mut std::io::stdin(), &mut nothing);
    });
    let mut block = vec![0u8; 1 << 20];
    while !orphaned.is_finished() {
        let hash = blake3::hash(&block);
        block = hash.as_bytes().repeat(1 << 15);
    }
    Ok(Exit::Done)
}

/// Runs the seeds of a file of regressions: every line names a scenario and a seed; the rest says
/// what was found. None may violate anything.
fn regressions(file: &std::path::Path) -> Result<Exit> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut held = true;
    for entry in text.lines().filter(|it| !it.trim().is_empty() && !it.starts_with('#')) {
        let mut words = entry.split_whitespace();
        let (Some(scenario), Some(seed)) = (words.next(), words.next()) else {
            bail!("{}: `{entry}` names no scenario and seed", file.display());
        };
        let seed: u64 = seed.parse().with_context(|| format!("`{entry}`: the seed"))?;
        let source =
            Source { scenario: scenario.to_owned(), set: Vec::new(), tier: None, seconds: None };
        let value = line(&mut run::child(&source, seed, &["--dry".to_owned()])?, scenario)?;
        let found =
            value.get("violation").and_then(|it| it.get("invariant")).and_then(Value::as_str);
        held &= found.is_none();
        printer::out(&format!("{}  {scenario} {seed}", found.unwrap_or("held")));
    }
    Ok(if held { Exit::Done } else { Exit::Violation })
}
