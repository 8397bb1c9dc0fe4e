//! `config print`: every setting, its value, its unit and its source.
//!
//! Owns: the choice of form. The output without `--json` is a configuration file.

use super::{Context, Failure};
use crate::config::{print_json, print_toml};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print the settings as a node would use them: a configuration file, with sources as comments.
    Print {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    let Command::Print { json } = command;
    let loaded = context.load()?;
    if json {
        context.printer.json(&print_json(&loaded))
    } else {
        context.printer.bytes(print_toml(&loaded).as_bytes())
    }
}
