//! One run of a subject in this process, recorded and judged.
//!
//! Owns: which tier runs it. Must not: write files.

use std::ops::ControlFlow;

use anyhow::{Context as _, Result};
use simnet_report::{Destination, Watch};
use simnet_scenario::{RunTier, Seed};

use crate::subject::Subject;

/// `result.json` of the run.
pub(crate) fn run(subject: &Subject, seed: u64, attack: bool) -> Result<String> {
    let (scenario, seed) = (subject.load(attack)?, Seed(seed));
    let work = move || -> Result<String> {
        let nothing = String::new;
        let mut watch =
            Watch::new(scenario.clone(), seed, nothing(), nothing(), Destination::Nowhere);
        let mut on = |_| ControlFlow::Continue(());
        let outcome = match scenario.tier {
            RunTier::Exact => simnet_exact::run(&scenario, seed, &mut watch, &mut on)?,
            RunTier::Abstract => simnet_abstract::run(&scenario, seed, &mut watch, &mut on)?,
        };
        let (results, _) = watch.finish(&outcome).context("the run did not begin")??;
        Ok(results.to_json())
    };
    simnet_core::on_fresh_thread(work).context("no thread for the simulation")?
}
