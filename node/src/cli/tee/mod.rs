//! `tee`: what hardware can prove, what a policy accepts, and whether evidence holds.
//!
//! Owns: the commands' names. Must not: do a command's work. One file a command.

mod advisories;
mod detect;
mod measure;
mod policy;
mod record;
mod verify;

use super::{Context, ExitStatus, Failure};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Compute from files what a guest will be measured as.
    #[command(subcommand)]
    Measure(measure::Command),
    /// Say what this machine can prove about itself, and what is missing, step by step.
    Detect(detect::Arguments),
    /// Write this machine's evidence to a file, and print the policy's entry for it.
    Record(record::Arguments),
    /// Check and explain attestation policies.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Say whether evidence passes `--policy`, check by check: what was found, what is wanted.
    Verify(verify::Arguments),
    /// Sign and check lists of what a maintainer withdraws, which policies can follow.
    #[command(subcommand)]
    Advisories(advisories::Command),
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Measure(command) => measure::run(context, command),
        Command::Detect(arguments) => detect::run(context, &arguments),
        Command::Record(arguments) => record::run(context, &arguments),
        Command::Policy(command) => policy::run(context, command),
        Command::Verify(arguments) => verify::run(context, &arguments),
        Command::Advisories(command) => advisories::run(context, command),
    }
}
