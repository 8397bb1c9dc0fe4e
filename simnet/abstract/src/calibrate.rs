//! The calibration as a product of measurements, and the check that both tiers agree.
//!
//! Owns: which scenario is measured, and what is taken from it. Must not: run the exact tier: its
//! runs need a process each, so whoever calls brings them as [`Measured`].

use std::collections::{BTreeMap, BTreeSet};
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
/// The seeds of the measurements. The draw of some hundred hosts decides whether there are enough of
/// the rarer kinds, and where the nodes are that keep a model's records: between two seeds look-ups
/// differ by half and traffic by a fifth. Eight bring that to a sixth and a fourteenth.
pub const SEEDS: [Seed; 8] =
    [Seed(7), Seed(17), Seed(27), Seed(37), Seed(47), Seed(57), Seed(67), Seed(77)];
/// Those of the checks: other hosts, other ways, other jobs.
pub const CHECK_SEEDS: [Seed; 8] =
    [Seed(8), Seed(18), Seed(28), Seed(38), Seed(48), Seed(58), Seed(68), Seed(78)];

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
    let mut gauge = Gauge::new(scenario, seed);
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

/// Makes a calibration from measurements of the exact tier at several sizes, with several seeds for
/// each. What the model does not send itself is found by running it beside, without any background.
pub fn calibrate(made_by: &str, exact: &[Measured]) -> Result<Calibration, CalibrateError> {
    let mut points = Vec::new();
    let all = |values: &[f64]| values.iter().map(|it| rounded(*it)).collect();
    let sizes: BTreeSet<_> = exact.iter().map(|measured| measured.nodes).collect();
    for nodes in sizes {
        let runs: Vec<_> = exact.iter().filter(|it| it.nodes == nodes).cloned().collect();
        let measured = Measured::together(&runs);
        if measured.look_up_ms.len() != 11 || measured.contact_round_trips.len() != 11 {
            return Err(CalibrateError::NoLookUps(measured.nodes));
        }
        let mut point = Point {
            nodes: measured.nodes,
            look_up_ms: all(&measured.look_up_ms),
            contact_round_trips: all(&measured.contact_round_trips),
            dial_round_trips: rounded(measured.dial_round_trips),
            connections: 0.0,
            background: BTreeMap::new(),
        };
        let bare = calibration(made_by, vec![point.clone()]);
        let scenario = scenario(nodes)?;
        let modelled = runs.iter().map(|run| measure(&scenario, Seed(run.seed), &bare));
        let modelled = Measured::together(&modelled.collect::<Result<Vec<_>, _>>()?);
        point.connections = rounded((measured.connections - modelled.connections).max(0.0));
        for (protocol, rate) in &measured.bytes_per_second {
            let own = modelled.bytes_per_second.get(protocol).copied().unwrap_or(0.0);
            point.background.insert(protocol.clone(), rounded((rate - own).max(0.0)));
        }
        points.push(point);
    }
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
