//! Writes the result of a run that never was, so that the report can be looked at without a run.
//!
//! Owns: the command line `synthetic FOLDER [SEED [HOSTS [SECONDS [PACE]]]]`, or `compare FOLDER…`.
//! Must not: be taken for a simulation.
#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::restriction,
    reason = "a stand-in for a run"
)]
#![allow(clippy::allow_attributes, reason = "not every lint of the groups fires")]

mod network;

use std::path::PathBuf;

use simnet_report::{Comparison, Destination, Format, Machine, Options, Recorder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|it| it == "compare") {
        let paths: Vec<_> = arguments.iter().skip(1).map(PathBuf::from).collect();
        let comparison = Comparison::of(simnet_report::compare::load_groups(&paths)?);
        std::fs::write("compare.html", comparison.html())?;
        std::fs::write("compare.txt", comparison.text() + &comparison.markdown())?;
        return Ok(());
    }
    let number =
        |at: usize, or: f64| arguments.get(at).and_then(|it| it.parse().ok()).unwrap_or(or);
    let folder = PathBuf::from(arguments.first().ok_or("say which folder")?);
    let shape = network::Shape {
        seed: number(1, 1.0) as u64,
        hosts: number(2, 600.0) as u32,
        seconds: number(3, 300.0) as u64,
        pace: number(4, 1.0),
    };
    let format = if std::env::var_os("CSV").is_some() { Format::Csv } else { Format::Parquet };
    let destination = Destination::Folder(folder.clone(), format);
    let variant = if shape.pace > 1.0 { "slow" } else { "fast" };
    let mut recorder =
        Recorder::new(network::description(&shape, variant), destination, Options::default())?;
    let started = std::time::Instant::now();
    let outcome = network::play(shape, &mut recorder);
    let results = recorder.finish(&outcome)?;
    let wall = started.elapsed().as_secs_f64();
    let machine = Machine::of_this_process(wall, shape.seconds as f64, outcome.events);
    simnet_report::write(&results, &machine, &folder)?;
    Ok(())
}
