//! Every adversary against the same run without it: what it gains, what others lose, and whether
//! the bound that the design promises held.
//!
//! Owns: the table in `results/adversaries.md`. Must not: count anything itself; the figures are those
//! of `result.json`.
//!
//! `cargo run -p simnet --example adversaries -- 5 > results/adversaries.md` (seeds; some minutes)
//!
//! Names of rows as further arguments make these rows only. A process carries one run, so each is a
//! child of this program.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

mod subject;
mod watch;

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use simnet_report::Results;
use simnet_report::results::Summary;
use simnet_report::statistics::{Interval, mean_interval};

use subject::{SUBJECTS, Subject};

/// A run's summary with the attack, and without.
type Pair = (Summary, Summary);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, name, seed, attack] = arguments.as_slice()
        && mode == "--one"
    {
        let subject = SUBJECTS.iter().find(|it| it.name == name).context("no such row")?;
        println!("{}", watch::run(subject, seed.parse()?, attack == "attack")?);
        return Ok(());
    }
    let seeds: u64 = arguments.first().map_or(Ok(5), |text| text.parse())?;
    let named = arguments.get(1..).unwrap_or_default();
    let subjects: Vec<&Subject> = SUBJECTS
        .iter()
        .filter(|it| named.is_empty() || named.iter().any(|name| name == it.name))
        .collect();
    let runs = all(&subjects, seeds)?;
    println!("{HEAD}");
    for (subject, pairs) in subjects.iter().zip(&runs) {
        println!("{}", row(subject, pairs));
    }
    println!("\n{}", subject::NOTES);
    for (subject, pairs) in subjects.iter().zip(&runs) {
        for line in causes(subject, pairs) {
            println!("{line}");
        }
    }
    Ok(())
}

const HEAD: &str = "\
<!-- Written by `cargo run -p simnet --example adversaries -- 5 > results/adversaries.md`. -->

# What each adversary gains, and what it costs the others

| adversary | scenario | its gain | damage | jobs finished of those ended, with and without it | bound | worst seen | held |
|---|---|---|---|---|---|---|---|";

/// Runs every subject with every seed, with and without the attack, as many at a time as there are
/// cores.
fn all(subjects: &[&Subject], seeds: u64) -> Result<Vec<Vec<Pair>>> {
    let count = usize::try_from(seeds)?;
    let tasks = subjects.len() * count * 2;
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Result<Summary>>>> =
        Mutex::new(std::iter::repeat_with(|| None).take(tasks).collect());
    let work = || {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            let Some(subject) = subjects.get(task / (count * 2)) else { break };
            let seed = task / 2 % count + 1;
            let made = one(subject, seed, task.is_multiple_of(2));
            eprintln!("{}/{tasks} {} seed {seed}", task + 1, subject.name);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = done.get_mut(task) {
                *place = Some(made);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut done = done.into_iter().map(|it| it.context("a run is missing")?);
    let mut runs = Vec::new();
    for _ in subjects {
        let mut pairs = Vec::new();
        for _ in 0..count {
            let mut take = || done.next().context("a run is missing")?;
            pairs.push((take()?, take()?));
        }
        runs.push(pairs);
    }
    Ok(runs)
}

fn one(subject: &Subject, seed: usize, attack: bool) -> Result<Summary> {
    let mode = if attack { "attack" } else { "control" };
    let output = Command::new(std::env::current_exe()?)
        .args(["--one", subject.name, &seed.to_string(), mode])
        .output()?;
    if !output.status.success() {
        bail!("{} {seed} {mode}: {}", subject.name, String::from_utf8_lossy(&output.stderr));
    }
    let results: Results = serde_json::from_slice(&output.stdout)?;
    Ok(results.summary)
}

fn interval(value: Option<Interval>, digits: usize) -> String {
    let Some(it) = value else { return "–".to_owned() };
    let half = it.half().map_or(String::new(), |half| format!(" ± {half:.digits$}"));
    format!("{:.digits$}{half}", it.mean)
}

fn row(subject: &Subject, pairs: &[Pair]) -> String {
    let figure = |it: &subject::Figure| {
        let values: Vec<f64> = pairs.iter().map(|pair| (it.value)(&pair.0, &pair.1)).collect();
        format!("{} {}", interval(mean_interval(&values), it.digits), it.words)
    };
    let list =
        |figures: &[subject::Figure]| figures.iter().map(figure).collect::<Vec<_>>().join("<br>");
    let mean = |of: fn(&Pair) -> f64| {
        let values: Vec<f64> = pairs.iter().map(of).collect();
        interval(mean_interval(&values), 2)
    };
    let bounds: Vec<&str> = subject.bounds.iter().map(|it| it.words).collect();
    let worst: Vec<f64> = subject
        .bounds
        .iter()
        .map(|bound| pairs.iter().map(|it| (bound.value)(&it.0, &it.1)).fold(0.0, f64::max))
        .collect();
    let held: Vec<&str> = subject
        .bounds
        .iter()
        .zip(&worst)
        .map(|(bound, worst)| if *worst <= bound.limit { "yes" } else { "**no**" })
        .collect();
    let worst: Vec<String> = worst
        .iter()
        .map(|it| if it.fract() == 0.0 { format!("{it:.0}") } else { format!("{it:.2}") })
        .collect();
    format!(
        "| {} | `{}`{} | {} | {} | {} %, {} % | {} | {} | {} |",
        subject.name,
        subject.scenario,
        subject.set(),
        if subject.gain.is_empty() { "–".to_owned() } else { list(subject.gain) },
        list(subject.damage),
        mean(|it| subject::success(&it.0)),
        mean(|it| subject::success(&it.1)),
        bounds.join("<br>"),
        worst.join("<br>"),
        held.join("<br>"),
    )
}

/// Why jobs of the attested tier failed, in all runs of a subject that is about them.
fn causes(subject: &Subject, pairs: &[Pair]) -> Vec<String> {
    if !subject.explains {
        return Vec::new();
    }
    let told = |of: fn(&Pair) -> &Summary, which: &str| {
        let mut sum = std::collections::BTreeMap::<&str, u64>::new();
        let mut ended = 0;
        for pair in pairs {
            let jobs = &of(pair).jobs;
            let above = jobs.tiers.iter().filter(|it| it.0 != "open");
            ended += above.map(|it| it.1.finished + it.1.failed).sum::<u64>();
            for (cause, count) in &jobs.attested_failures {
                *sum.entry(cause).or_default() += count;
            }
        }
        let causes: Vec<_> = sum.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        let causes = if causes.is_empty() { "none failed".to_owned() } else { causes.join(", ") };
        format!("- {}, {which}: of {ended} attested jobs: {causes}.", subject.name)
    };
    vec![told(|it| &it.0, "attack"), told(|it| &it.1, "control")]
}
