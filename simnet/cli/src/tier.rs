//! The simulators behind one call.
//!
//! Owns: which of them carries a scenario, and the thread that it runs on.
//! Must not: watch a run or write anything.

use anyhow::{Context as _, Result};
use simnet_host::{Control, Observer, Outcome};
use simnet_scenario::{RunTier, Scenario, Seed};

/// Does `work` on a thread on which a simulation can run. One run for each process.
pub(crate) fn on_its_thread<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R> {
    simnet_core::on_fresh_thread(work).context("no thread for the simulation")
}

/// Runs a scenario on this thread, which [`on_its_thread`] has made.
pub(crate) fn run(
    scenario: &Scenario,
    seed: Seed,
    observer: &mut dyn Observer,
    control: Control<'_>,
) -> Result<Outcome> {
    match scenario.tier {
        RunTier::Exact => Ok(simnet_exact::run(scenario, seed, observer, control)?),
        RunTier::Abstract => Ok(simnet_abstract::run(scenario, seed, observer, control)?),
    }
}
