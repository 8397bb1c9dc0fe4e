//! `simnet run`: one scenario, one seed, one process.
//!
//! Owns: the way from the command line to a result and its summary. Must not: simulate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use simnet_host::Outcome;
use simnet_host::invariant::Violation;
use simnet_report::figures::{FIGURES, Figure};
use simnet_report::{Destination, Format, Machine, Results, Watch};
use simnet_scenario::grid::variant;
use simnet_scenario::{Scenario, Seed};

use crate::args::{Run, Source, Tables};
use crate::exit::Exit;
use crate::progress::{Shared, Teller, stop_on_signal};
use crate::{identity, printer, source, tier};

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its content-addressed name.
    pub(crate) name: String,
    /// What it gave.
    pub(crate) results: Results,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// The first invariant that did not hold.
    pub(crate) violation: Option<Violation>,
    /// What it took.
    pub(crate) machine: Machine,
    /// Where its files are, if it has some.
    pub(crate) folder: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Run) -> Result<Exit> {
    let scenario = source::load(&args.source)?;
    let seed = Seed(args.seed.unwrap_or(scenario.seed));
    let name = identity::run_name(&scenario, seed);
    let folder =
        (!args.dry).then(|| args.out.clone().unwrap_or_else(|| Path::new("out").join(&name)));
    let variant = args.variant.clone().unwrap_or_else(|| variant(&args.source.set));
    if !args.quiet && !args.json {
        printer::note(&format!("{name}: {}", scenario.description.trim()));
    }
    let quiet = args.quiet || args.json;
    let finished = carry(&scenario, seed, variant, folder, args.tables, quiet)?;
    let again = source::command(&args.source, seed.0);
    if args.json {
        printer::out(&summary(&finished).to_string());
    } else {
        printer::out(&figures(&finished));
    }
    if let Some(violation) = &finished.violation {
        printer::note(&told(violation, seed, &again));
        return Ok(Exit::Violation);
    }
    if finished.outcome.interrupted {
        let at = finished.outcome.at;
        printer::note(&format!("interrupted at {at}: the results are of the time before"));
        return Ok(Exit::Interrupted);
    }
    Ok(Exit::Done)
}

/// Carries a run in this process, which can carry only one.
pub(crate) fn carry(
    scenario: &Scenario,
    seed: Seed,
    variant: String,
    folder: Option<PathBuf>,
    tables: Tables,
    quiet: bool,
) -> Result<Finished> {
    let name = identity::run_name(scenario, seed);
    let format = match tables {
        Tables::Parquet => Some(Format::Parquet),
        Tables::Csv => Some(Format::Csv),
        Tables::None => None,
    };
    let destination = match (&folder, format) {
        (Some(folder), Some(format)) => Destination::Folder(folder.clone(), format),
        _ => Destination::Nowhere,
    };
    let shared = Arc::new(Shared::default());
    stop_on_signal(&shared);
    let teller = Teller::start(&shared, quiet);
    let start = Instant::now();
    let work = || -> Result<(Results, Outcome, Option<Violation>)> {
        #[cfg(feature = "mutation")]
        plant()?;
        let commit = identity::COMMIT.to_owned();
        let mut watch = Watch::new(scenario.clone(), seed, variant, commit, destination);
        let mut control = |progress| shared.step(progress);
        let outcome = tier::run(scenario, seed, &mut watch, &mut control)?;
        let (results, violation) =
            watch.finish(&outcome).context("the run ended before it began")??;
        Ok((results, outcome, violation))
    };
    let done = tier::on_its_thread(work)?;
    teller.end();
    let (results, outcome, violation) = done?;
    let wall = start.elapsed().as_secs_f64();
    let machine = Machine::of_this_process(wall, outcome.at.as_secs_f64(), outcome.events);
    if let Some(folder) = &folder {
        simnet_report::write(&results, &machine, folder)?;
        std::fs::write(folder.join("scenario.toml"), scenario.to_toml())
            .with_context(|| format!("{} cannot be written", folder.display()))?;
    }
    Ok(Finished { name, results, outcome, violation, machine, folder })
}

/// Plants the bug that the environment names, on the thread that simulates.
#[cfg(feature = "mutation")]
fn plant() -> Result<()> {
    use simnet_host::mutation::{Mutation, plant};
    if let Ok(name) = std::env::var("SIMNET_PLANT") {
        let found = Mutation::named(&name);
        plant(Some(found.with_context(|| format!("there is no planted bug `{name}`"))?));
    }
    Ok(())
}

/// What a run came to, for programs.
pub(crate) fn summary(it: &Finished) -> Value {
    let about = &it.results.about;
    let figures = simnet_report::figures::all(&it.results.summary, &it.results.ending);
    let figures: serde_json::Map<String, Value> =
        figures.map(|(key, value)| (key.to_owned(), json!(value))).collect();
    json!({
        "run": it.name,
        "scenario": about.scenario,
        "variant": about.variant,
        "seed": about.seed,
        "tier": about.tier,
        "commit": about.commit,
        "trace": it.results.ending.trace,
        "result": it.results.hash(),
        "interrupted": it.outcome.interrupted,
        "at_s": it.outcome.at.as_secs_f64(),
        "events": it.outcome.events,
        "wall_s": it.machine.wall_s,
        "cpu_s": it.machine.cpu_s,
        "peak_rss_bytes": it.machine.peak_rss_bytes,
        "violation": it.violation.as_ref().map(|found| json!({
            "invariant": found.invariant,
            "what": found.what,
            "at_s": found.at.as_secs_f64(),
            "host": found.host.map(|it| it.0),
        })),
        "folder": it.folder,
        "figures": figures,
    })
}

/// What a run came to, for people.
fn figures(it: &Finished) -> String {
    let (summary, ending) = (&it.results.summary, &it.results.ending);
    let row = |figure: &Figure| {
        let value = figure.value(summary, ending)?;
        Some(vec![figure.label.to_owned(), number(value), figure.unit.to_owned()])
    };
    let mut rows: Vec<Vec<String>> = FIGURES.iter().filter_map(row).collect();
    let machine = &it.machine;
    let mut add = |label: &str, value: String, unit: &str| {
        rows.push(vec![label.to_owned(), value, unit.to_owned()]);
    };
    #[expect(clippy::cast_precision_loss, reason = "a number for people")]
    let events = it.outcome.events as f64;
    add("events", number(events), "");
    add("real time", number(machine.wall_s), "s");
    if let Some(cpu) = machine.cpu_s {
        add("processor time", number(cpu), "s");
    }
    if let Some(memory) = machine.peak_rss_bytes {
        #[expect(clippy::cast_precision_loss, reason = "a number for people")]
        let megabytes = memory as f64 / 1e6;
        add("peak memory", number(megabytes), "MB");
    }
    let mut text = printer::table(&rows);
    text.push_str(&format!("\ntrace   {}\nresult  {}", ending.trace, it.results.hash()));
    if let Some(folder) = &it.folder {
        text.push_str(&format!("\nfiles   {}", folder.display()));
    }
    text
}

/// A number with as many digits as say something.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 && size < 1e15 {
        return format!("{value:.0}");
    }
    match size {
        it if it >= 1_000.0 => format!("{value:.0}"),
        it if it >= 10.0 => format!("{value:.1}"),
        it if it >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.3e}"),
    }
}

/// A violation with all that is needed to see it again.
fn told(found: &Violation, seed: Seed, again: &str) -> String {
    let host = found.host.map_or(String::new(), |it| format!(" · host {}", it.0));
    let facts: Vec<String> = found.facts.iter().map(|fact| format!("    {fact}")).collect();
    format!(
        "violation of {}: {}\n  seed {} · at {}{host} · commit {}\n  the last facts before it:\n{}\n  \
         again: {again}",
        found.invariant,
        found.what,
        seed.0,
        found.at,
        identity::COMMIT,
        facts.join("\n"),
    )
}

/// A run of this program as a child: for checks and sweeps, since a process carries one run.
pub(crate) fn child(source: &Source, seed: u64, more: &[String]) -> Result<std::process::Command> {
    let program = std::env::current_exe().context("where is this program?")?;
    let mut command = std::process::Command::new(program);
    command.arg("run").arg(&source.scenario).arg("--seed").arg(seed.to_string()).arg("--json");
    for (key, value) in &source.set {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    if let Some(tier) = source.tier {
        command.arg("--tier").arg(simnet_scenario::RunTier::from(tier).as_str());
    }
    if let Some(seconds) = source.seconds {
        command.arg("--seconds").arg(seconds.to_string());
    }
    command.args(more);
    Ok(command)
}
