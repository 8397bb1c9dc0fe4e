//! `tee`: what hardware can prove, what a policy accepts, and whether evidence holds.
//!
//! Owns: the commands' names. Must not: do a command's work. One file a command.

mod measure;
mod policy;

use super::{Context, ExitStatus, Failure};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Compute from files what a guest will be measured as.
    #[command(subcommand)]
    Measure(measure::Command),
    /// Check and explain attestation policies.
    #[command(subcommand)]
    Policy(policy::Command),
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Measure(command) => measure::run(context, command),
        Command::Policy(command) => policy::run(context, command),
    }
}
