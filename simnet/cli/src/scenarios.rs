//! `simnet scenarios`: what comes with the program.
//!
//! Owns: the list for people. Must not: hold the texts; the scenario crate does.

use anyhow::Result;
use simnet_scenario::{SHIPPED, Scenario};

use crate::args::{Scenarios, ScenariosCommand};
use crate::exit::Exit;
use crate::{printer, source};

/// Runs the command.
pub(crate) fn run(args: &Scenarios) -> Result<Exit> {
    match &args.command {
        None => list()?,
        Some(ScenariosCommand::Show { name, full }) => show(name, *full)?,
    }
    Ok(Exit::Done)
}

fn list() -> Result<()> {
    for it in SHIPPED {
        let scenario = Scenario::parse(it.name, it.text)?;
        let (tier, nodes) = (scenario.tier, scenario.population.nodes);
        let head = format!("{}  ({tier}, {nodes} nodes, {})", it.name, scenario.duration);
        printer::out(&format!("{head}\n    {}", scenario.description.trim()));
    }
    Ok(())
}

fn show(name: &str, full: bool) -> Result<()> {
    let scenario = source::named(name)?;
    match simnet_scenario::shipped(name) {
        Some(it) if !full => printer::out(it.text.trim_end()),
        _ => printer::out(scenario.to_toml().trim_end()),
    }
    Ok(())
}
