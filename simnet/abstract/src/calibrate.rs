//! The calibration as a product of measurements, and the check that both tiers agree.
//!
//! Owns: which scenario is measured, and what is taken from it. Must not: run the exact tier: its
//! runs need a process each, so whoever calls brings them as [`Measured`].

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use simnet_scenario::quantity::Rate;
use simnet_scenario::{Scenario, ScenarioError, Seed};

use crate::calibration::{Calibration, Point};
use crate::measure::{Gauge, Measured};
use crate::run::{RunError, run_with};

/// Sizes that the built-in calibration is made of. Those of the agreement test are none of them.
pub const SIZES: [u32; 4] = [100, 250, 700, 1_500];
/// Sizes at which the tiers are compared.
pub const CHECKED: [u32; 3] = [500, 1_000, 2_000];
/// How far they may be apart.
pub const TOLERANCE: f64 = 0.15;
/// The seed of the measurements; checks take another.
pub const SEED: Seed = Seed(7);

/// The scenario that is measured at a size: the default population with one job a second for each
/// hundred nodes, long enough for warm tables to fill and for jobs to end.
pub fn scenario(nodes: u32) -> Result<Scenario, ScenarioError> {
    let mut scenario = Scenario::default().with(&[
        ("name".to_owned(), "calibration".to_owned()),
        ("population.nodes".to_owned(), nodes.to_string()),
        ("duration".to_owned(), "60 s".to_owned()),
        ("warm_up".to_owned(), "15 s".to_owned()),
    ])?;
    scenario.demand.rate = Rate::per_second(nodes.div_ceil(100));
    Ok(scenario)
}

/// Measures the abstract tier with a calibration.
pub fn measure(
    scenario: &Scenario,
    seed: Seed,
    calibration: &Calibration,
) -> Result<Measured, RunError> {
    let mut gauge = Gauge::new(scenario);
    run_with(scenario, seed, calibration, &mut gauge, &mut |_| ControlFlow::Continue(()))?;
    Ok(gauge.finish())
}

/// Why there is no calibration.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The measured scenario is not one.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The abstract tier could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A measurement lacks what only the exact tier can show.
    #[error("the measurement at {0} nodes has no look-ups; measure the exact tier, and for longer")]
    NoLookUps(u32),
}

/// Makes a calibration from measurements of the exact tier at several sizes, with [`SEED`]. What
/// the model does not send itself is found by running it beside, without any background.
pub fn calibrate(made_by: &str, exact: &[Measured]) -> Result<Calibration, CalibrateError> {
    let mut points = Vec::new();
    for measured in exact {
        if measured.look_up_ms.len() != 11 {
            return Err(CalibrateError::NoLookUps(measured.nodes));
        }
        let mut point = Point {
            nodes: measured.nodes,
            look_up_ms: measured.look_up_ms.iter().map(|it| rounded(*it)).collect(),
            contact_round_trips: rounded(measured.contact_round_trips),
            dial_round_trips: rounded(measured.dial_round_trips),
            found: rounded(measured.found),
            connections: 0.0,
            background: BTreeMap::new(),
        };
        let bare = calibration(made_by, vec![point.clone()]);
        let modelled = measure(&scenario(measured.nodes)?, SEED, &bare)?;
        point.connections = rounded((measured.connections - modelled.connections).max(0.0));
        for (protocol, rate) in &measured.bytes_per_second {
            let own = modelled.bytes_per_second.get(protocol).copied().unwrap_or(0.0);
            point.background.insert(protocol.clone(), rounded((rate - own).max(0.0)));
        }
        points.push(point);
    }
    points.sort_by_key(|point| point.nodes);
    Ok(calibration(made_by, points))
}

/// Share of an eclipsed consumer's look-ups that its attackers answer. An assumption, and the worst
/// case for whoever trusts the index: one answer in twenty is the truth.
const POISONED_PPM: u32 = 950_000;

fn calibration(made_by: &str, points: Vec<Point>) -> Calibration {
    Calibration { made_by: made_by.to_owned(), poisoned_ppm: POISONED_PPM, points }
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
