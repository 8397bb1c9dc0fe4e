//! `simnet calibrate`: the abstract tier's numbers from runs of the exact one, and how far they hold.
//!
//! Owns: the command, and a process for each measurement. Must not: measure; the tiers do.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use simnet_abstract::calibrate::{
    CHECK_SEEDS, CHECKED, SEEDS, SIZES, TOLERANCE, calibrate, measure as model, scenario,
};
use simnet_abstract::{Calibration, Measured};
use simnet_scenario::Seed;

use crate::args::{Calibrate, Measure};
use crate::exit::Exit;
use crate::{printer, tier};

/// Runs the command.
pub(crate) fn run(args: &Calibrate) -> Result<Exit> {
    if args.check { check(&args.nodes) } else { write(args) }
}

fn write(args: &Calibrate) -> Result<Exit> {
    let sizes = if args.nodes.is_empty() { SIZES.to_vec() } else { args.nodes.clone() };
    let wanted: Vec<_> = sizes.iter().flat_map(|nodes| SEEDS.map(|seed| (*nodes, seed))).collect();
    let measured = all_in_processes(&wanted)?;
    let sizes: Vec<_> = sizes.iter().map(u32::to_string).collect();
    let command = format!("simnet calibrate --nodes {}", sizes.join(","));
    let calibration = calibrate(&command, &measured)?;
    std::fs::write(&args.out, calibration.to_toml())
        .with_context(|| format!("{} cannot be written", args.out.display()))?;
    printer::out(&format!("the calibration is in {}", args.out.display()));
    Ok(Exit::Done)
}

/// With other seeds than the calibration's: other hosts, other ways, other jobs.
fn check(nodes: &[u32]) -> Result<Exit> {
    let calibration = Calibration::built_in()?;
    let sizes = if nodes.is_empty() { CHECKED.to_vec() } else { nodes.to_vec() };
    let mut agree = true;
    printer::out("nodes  figure                              abstract       exact   apart");
    for nodes in sizes {
        let scenario = scenario(nodes)?;
        let exact = all_in_processes(&CHECK_SEEDS.map(|seed| (nodes, seed)))?;
        let modelled = CHECK_SEEDS.iter().map(|seed| model(&scenario, *seed, &calibration));
        let modelled = modelled.collect::<Result<Vec<_>, _>>()?;
        let (exact, modelled) = (Measured::together(&exact), Measured::together(&modelled));
        for (name, modelled, exact, apart) in modelled.deviations(&exact) {
            let percent = apart * 100.0;
            let verdict = if apart <= TOLERANCE { "" } else { "  too far" };
            agree &= apart <= TOLERANCE;
            printer::out(&format!(
                "{nodes:>5}  {name:<34} {modelled:>9.3}  {exact:>10.3}  {percent:>5.1} %{verdict}"
            ));
        }
    }
    Ok(if agree { Exit::Done } else { Exit::Failed })
}

/// One measurement, as TOML on standard output.
pub(crate) fn measure(args: &Measure) -> Result<Exit> {
    let scenario = scenario(args.nodes)?;
    let seed = Seed(args.seed);
    let shown = tier::on_its_thread(|| {
        simnet_exact::measure(&scenario, seed, &mut |_| ControlFlow::Continue(()))
    })??;
    let rates = shown.bytes_per_second.into_iter();
    let measured = Measured {
        nodes: shown.nodes,
        seed: args.seed,
        route_ready_ms: shown.route_ready_ms,
        look_up_ms: shown.look_up_ms,
        contact_round_trips: shown.contact_round_trips,
        dial_round_trips: shown.dial_round_trips,
        connections: shown.connections,
        finished: shown.jobs.0,
        submitted: shown.jobs.1,
        bytes_per_second: rates.map(|(name, rate)| (name.to_owned(), rate)).collect(),
    };
    printer::out(&toml::to_string(&measured)?);
    Ok(Exit::Done)
}

/// As many measurements at a time as there are cores, each in a process of its own; in their order.
fn all_in_processes(wanted: &[(u32, Seed)]) -> Result<Vec<Measured>> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut measured = Vec::new();
    for some in wanted.chunks(cores) {
        let shown: Vec<Result<Measured>> = std::thread::scope(|scope| {
            let begun: Vec<_> = some
                .iter()
                .map(|(nodes, seed)| scope.spawn(|| in_a_process(*nodes, *seed)))
                .collect();
            let joined = begun.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined.map(|it| it.unwrap_or_else(|_| bail!("a measurement ended oddly"))).collect()
        });
        for one in shown {
            measured.push(one?);
        }
    }
    Ok(measured)
}

/// Measures in a process of its own, as the exact tier demands.
fn in_a_process(nodes: u32, seed: Seed) -> Result<Measured> {
    printer::note(&format!("measuring the exact tier with {nodes} nodes, seed {}", seed.0));
    let program = std::env::current_exe().context("where is this program?")?;
    let seed = seed.0.to_string();
    let child = Command::new(program)
        .args(["measure", "--nodes", &nodes.to_string(), "--seed", &seed])
        .stderr(Stdio::inherit())
        .output()
        .context("no process for a measurement")?;
    ensure!(
        child.status.success(),
        "the measurement of {nodes} nodes failed: its words stand above"
    );
    Ok(toml::from_str(&String::from_utf8(child.stdout)?)?)
}
