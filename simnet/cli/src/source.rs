//! Scenarios as the command line names them.
//!
//! Owns: finding, reading and changing them. Must not: judge their values.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use simnet_scenario::quantity::Span;
use simnet_scenario::{SHIPPED, Scenario, nearest, shipped};

use crate::args::Source;

/// The scenario, changed as the command line says.
pub(crate) fn load(source: &Source) -> Result<Scenario> {
    let mut changes = source.set.clone();
    if let Some(tier) = source.tier {
        let tier = simnet_scenario::RunTier::from(tier);
        changes.push(("tier".to_owned(), format!("\"{tier}\"")));
    }
    if let Some(seconds) = source.seconds {
        changes.push(("duration".to_owned(), format!("\"{seconds} s\"")));
    }
    let mut scenario = named(&source.scenario)?;
    // A run that is made shorter than its scenario may not be longer in starting than it is.
    if source.seconds.is_some_and(|it| Span::seconds(it) < scenario.start_over) {
        scenario.start_over = Span::ZERO;
    }
    Ok(scenario.with(&changes)?)
}

/// The line that makes a run again.
pub(crate) fn command(source: &Source, seed: u64) -> String {
    let mut line = format!("simnet run {} --seed {seed}", quoted(&source.scenario));
    for (key, value) in &source.set {
        line.push_str(&format!(" --set {}", quoted(&format!("{key}={value}"))));
    }
    if let Some(tier) = source.tier {
        line.push_str(&format!(" --tier {}", simnet_scenario::RunTier::from(tier)));
    }
    if let Some(seconds) = source.seconds {
        line.push_str(&format!(" --seconds {seconds}"));
    }
    line
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_./=,:@".contains(it);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A file, or a shipped scenario.
pub(crate) fn named(name: &str) -> Result<Scenario> {
    let path = Path::new(name);
    if path.is_file() {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
        let mut scenario = Scenario::parse(name, &text)?;
        attach(&mut scenario, path.parent())?;
        return Ok(scenario);
    }
    let plain = name.strip_prefix("scenarios/").unwrap_or(name);
    let plain = plain.strip_suffix(".toml").unwrap_or(plain);
    if let Some(found) = shipped(plain) {
        return Ok(Scenario::parse(&format!("{}.toml", found.name), found.text)?);
    }
    let names: Vec<&str> = SHIPPED.iter().map(|it| it.name).collect();
    let near = nearest(plain, &names).map_or(String::new(), |it| format!("; did you mean `{it}`?"));
    bail!("there is no file and no scenario `{name}`{near} `simnet scenarios` lists them")
}

/// Reads the recorded demand that a scenario names, beside the scenario.
fn attach(scenario: &mut Scenario, folder: Option<&Path>) -> Result<()> {
    if scenario.demand.trace.is_empty() {
        return Ok(());
    }
    let path: PathBuf = folder.unwrap_or_else(|| Path::new(".")).join(&scenario.demand.trace);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("demand.trace: {} cannot be read", path.display()))?;
    scenario.attach_trace(&text).with_context(|| path.display().to_string())
}
