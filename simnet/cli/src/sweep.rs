//! `simnet sweep`: a grid of runs in worker processes.
//!
//! Owns: which runs are made here, how many at a time, and the summary of all.
//! Must not: run two in one process, or make again what is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use simnet_scenario::Seed;
use simnet_scenario::grid::{Cell, Grid, likely_memory};

use simnet_report::figures::FIGURES;

use crate::args::{Source, Sweep, Tables};
use crate::exit::Exit;
use crate::{identity, printer, run, source};

/// Share of the free memory that runs may be packed into: their need is an estimate.
const MEMORY_USED: f64 = 0.8;
/// How often a worker looks whether memory is free again.
const PAUSE: Duration = Duration::from_millis(100);

/// A run of the sweep, ready to be started.
#[derive(Clone, Debug)]
struct Work {
    cell: Cell,
    source: Source,
    /// Where its results go; content-addressed.
    folder: PathBuf,
    memory: u64,
}

/// Runs the command.
pub(crate) fn run(args: &Sweep) -> Result<Exit> {
    let file = args.grid.display().to_string();
    let text =
        std::fs::read_to_string(&args.grid).with_context(|| format!("{file} cannot be read"))?;
    let grid = Grid::parse(&file, &text)?;
    let (index, count) = args.shard.unwrap_or((0, 1));
    let cells: Vec<Cell> =
        grid.cells().into_iter().filter(|cell| cell.index % count == index).collect();
    let works = cells
        .into_iter()
        .map(|cell| work(cell, &args.grid, &args.out))
        .collect::<Result<Vec<Work>>>()?;
    if args.list {
        for work in &works {
            let mut line = serde_json::to_value(&work.cell)?;
            if let Value::Object(fields) = &mut line {
                fields.insert("scenario".to_owned(), Value::from(work.source.scenario.clone()));
                fields.insert("folder".to_owned(), Value::from(work.folder.display().to_string()));
            }
            printer::out(&line.to_string());
        }
        return Ok(Exit::Done);
    }
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("{} cannot be made", args.out.display()))?;
    let finished = all(&works, args)?;
    let table = args.shard.map_or_else(
        || args.out.join("summary.csv"),
        |(index, count)| args.out.join(format!("summary-{index}-of-{count}.csv")),
    );
    std::fs::write(&table, csv(&works, &finished)).with_context(|| table.display().to_string())?;
    printer::out(&format!("{} runs; summary in {}", finished.len(), table.display()));
    let broken = finished.values().filter(|it| !it["violation"].is_null()).count();
    if broken > 0 {
        printer::note(&format!("{broken} runs violated an invariant: see the summary"));
        return Ok(Exit::Violation);
    }
    Ok(if finished.len() == works.len() { Exit::Done } else { Exit::Failed })
}

/// What a cell needs to be run: also checks it, so that a sweep fails before it begins.
fn work(cell: Cell, grid: &Path, out: &Path) -> Result<Work> {
    // A file is named as the grid sees it.
    let beside = grid.parent().unwrap_or_else(|| Path::new(".")).join(&cell.scenario);
    let scenario =
        if beside.is_file() { beside.display().to_string() } else { cell.scenario.clone() };
    let source = Source { scenario, set: cell.set.clone(), tier: None, seconds: None };
    let loaded = source::load(&source).with_context(|| format!("run {}", cell.index))?;
    simnet_host::policy::selection(&loaded.policy.name, &loaded.policy.parameters, 0)?;
    let folder = out.join(identity::run_name(&loaded, Seed(cell.seed)));
    Ok(Work { cell, source, folder, memory: likely_memory(&loaded) })
}

/// Runs what is not there yet, as many at a time as cores and memory allow.
fn all(works: &[Work], args: &Sweep) -> Result<BTreeMap<u64, Value>> {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = args.workers.unwrap_or(cores).clamp(1, works.len().max(1));
    let budget = free_memory().map_or(u64::MAX, |free| share(free, MEMORY_USED));
    let state = Mutex::new((works.iter(), 0u64, BTreeMap::new()));
    let failed = AtomicBool::new(false);
    let worker = || -> Result<()> {
        loop {
            if failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let Ok(mut held) = state.lock() else { bail!("another worker panicked") };
            let Some(work) = held.0.as_slice().first() else { return Ok(()) };
            if held.1 > 0 && held.1.saturating_add(work.memory) > budget {
                drop(held);
                thread::sleep(PAUSE);
                continue;
            }
            held.0.next();
            held.1 = held.1.saturating_add(work.memory);
            drop(held);
            let done = one(work, args.tables);
            let Ok(mut held) = state.lock() else { bail!("another worker panicked") };
            held.1 = held.1.saturating_sub(work.memory);
            match done {
                Ok(value) => {
                    held.2.insert(work.cell.index, value);
                    let count = held.2.len();
                    let (variant, seed) = (&work.cell.variant, work.cell.seed);
                    printer::note(&format!("{count} of {}: {variant} seed {seed}", works.len()));
                }
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    return Err(error.context(format!("run {}", work.cell.index)));
                }
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        for thread in threads {
            match thread.join() {
                Ok(done) => done?,
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok(())
    })?;
    match state.into_inner() {
        Ok((_, _, finished)) => Ok(finished),
        Err(_) => bail!("a worker panicked"),
    }
}

/// One run in a process of its own, or its result if that is there.
fn one(work: &Work, tables: Tables) -> Result<Value> {
    let kept = work.folder.join("run.json");
    if let Ok(text) = std::fs::read_to_string(&kept)
        && let Ok(value) = serde_json::from_str::<Value>(&text)
        && value["interrupted"] == Value::Bool(false)
    {
        printer::note(&format!("there already: {}", work.folder.display()));
        return Ok(value);
    }
    let tables = match tables {
        Tables::Parquet => "parquet",
        Tables::Csv => "csv",
        Tables::None => "none",
    };
    let more = [
        "--out",
        &work.folder.display().to_string(),
        "--tables",
        tables,
        "--variant",
        &work.cell.variant,
    ];
    let more: Vec<String> = more.iter().map(|it| (*it).to_owned()).collect();
    let mut command = run::child(&work.source, work.cell.seed, &more)?;
    let output = command.stderr(Stdio::piped()).output().context("a run could not be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Ok(value) = serde_json::from_str::<Value>(text.trim()) else {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    };
    if value["interrupted"] == Value::Bool(true) {
        bail!("interrupted; start the sweep again, and it goes on where it was");
    }
    let partial = work.folder.join("run.json.partial");
    std::fs::write(&partial, text.trim())
        .and_then(|()| std::fs::rename(&partial, &kept))
        .with_context(|| kept.display().to_string())?;
    Ok(value)
}

/// Every run in a line: what distinguishes it, its hashes, its figures.
fn csv(works: &[Work], finished: &BTreeMap<u64, Value>) -> String {
    // All figures, not those that these runs have: shards are put together line by line.
    let figures: Vec<&str> = FIGURES.iter().map(|figure| figure.key).collect();
    let head = ["index", "scenario", "variant", "seed", "tier", "trace", "result", "violation"];
    let mut lines = vec![
        head.iter()
            .map(|it| (*it).to_owned())
            .chain(figures.iter().map(|it| (*it).to_owned()))
            .collect::<Vec<_>>()
            .join(","),
    ];
    for work in works {
        let Some(run) = finished.get(&work.cell.index) else { continue };
        let mut fields = vec![work.cell.index.to_string()];
        for name in ["scenario", "variant", "seed", "tier", "trace", "result"] {
            fields.push(field(&run[name]));
        }
        fields.push(field(&run["violation"]["invariant"]));
        fields.extend(figures.iter().map(|name| field(&run["figures"][*name])));
        lines.push(fields.join(","));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A value as CSV has it (RFC 4180).
fn field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.contains([',', '"', '\n']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Memory that could be had without swapping, in bytes.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes.saturating_mul(1_024))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "an estimate of memory"
)]
fn share(of: u64, share: f64) -> u64 {
    (of as f64 * share) as u64
}
