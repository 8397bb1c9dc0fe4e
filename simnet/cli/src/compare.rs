//! `simnet compare`: results side by side.
//!
//! Owns: which form is printed. Must not: compute; the report crate does.

use anyhow::{Context as _, Result};
use simnet_report::Comparison;
use simnet_report::compare::load_groups;

use crate::args::Compare;
use crate::exit::Exit;
use crate::printer;

/// Runs the command.
pub(crate) fn run(args: &Compare) -> Result<Exit> {
    let comparison = Comparison::of(load_groups(&args.folders)?);
    if let Some(file) = &args.html {
        std::fs::write(file, comparison.html())
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    let text = if args.json {
        comparison.to_json()
    } else if args.markdown {
        comparison.markdown()
    } else {
        comparison.text()
    };
    printer::out(text.trim_end());
    Ok(Exit::Done)
}
