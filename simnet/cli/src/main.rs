//! `simnet`: the simulator's command line.
//!
//! Owns: the way from arguments to a command and its exit code. Must not: do what a command does.

mod allocator;
mod args;
mod calibrate;
mod check;
mod compare;
mod exit;
mod identity;
mod printer;
mod progress;
mod replay;
mod run;
mod scenarios;
mod source;
mod sweep;
mod tier;

use std::process::ExitCode;

use clap::Parser as _;
use simnet_core::allocator::Sparse;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};
use exit::Exit;

/// Kademlia's empty buckets, which are most of a simulated node, take no memory from this one.
#[global_allocator]
static ALLOCATOR: Sparse<allocator::Plain> = Sparse::new(allocator::Plain);

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Clap ends with 2 for a wrong option, which is a violated invariant here.
            let help = !error.use_stderr();
            let _gone = error.print();
            return if help { Exit::Done } else { Exit::Failed }.into();
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env("SIMNET_LOG").unwrap_or_else(|_| EnvFilter::new("off")),
        )
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    let done = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Sweep(args) => sweep::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Check(args) => check::run(args),
        Command::Calibrate(args) => calibrate::run(args),
        Command::Measure(args) => calibrate::measure(args),
        Command::Scenarios(args) => scenarios::run(args),
        Command::Burn => check::burn(),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) => {
            printer::note(&format!("simnet: {error:#}"));
            Exit::Failed.into()
        }
    }
}
