//! `completions`: a script that completes this command line in a shell.
//!
//! Owns: nothing but the name that the script completes.

use clap_complete::Shell;

use super::{Context, Failure, command};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which shell.
    shell: Shell,
}

pub(super) fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command(), "cocoon-node", &mut script);
    context.printer.bytes(&script)
}
