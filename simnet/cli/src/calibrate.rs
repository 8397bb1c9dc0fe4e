//! `simnet calibrate`: the abstract tier's numbers from runs of the exact one.
//!
//! Owns: the command. Must not: measure; the tiers do.

use anyhow::{Result, bail};

use crate::args::Calibrate;
use crate::exit::Exit;

/// Runs the command.
pub(crate) fn run(args: &Calibrate) -> Result<Exit> {
    bail!("measuring {:?} nodes is not in this build", args.nodes)
}
