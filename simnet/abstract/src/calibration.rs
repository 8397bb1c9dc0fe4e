//! What the modelled overlay takes from the exact tier: times, sizes and rates, for several N.
//!
//! Owns: the file's format, and what holds between and beyond the sizes that were measured.
//! Must not: measure; `calibrate` does.
//!
//! Between two measured sizes values are interpolated in the logarithm of N, because a look-up's
//! steps and a routing table's size grow with it. Beyond the largest the last slope goes on: that
//! is an extrapolation, and every figure of a larger network rests on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::draws::Draws;
use crate::traffic::PROTOCOLS;

/// Our own calibration, made by `simnet calibrate`.
const BUILT_IN: &str = include_str!("../calibration.toml");

/// A calibration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// How it was made.
    pub made_by: String,
    /// Share of the answers to an eclipsed consumer's look-ups that its attackers give, in millionths. Not
    /// measured: a consumer that its attackers surround knows nobody else.
    pub poisoned_ppm: u32,
    /// One for each measured size, the smallest first.
    pub points: Vec<Point>,
}

/// What was measured at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Nodes.
    pub nodes: u32,
    /// From a want to the first providers' names, in milliseconds: the least, the deciles, the most.
    pub look_up_ms: Vec<f64>,
    /// Round trips of a contact, from the dial to the first offer: the least, the deciles, the most.
    /// A consumer's first offer is that of the quickest of eight, who may be connected already.
    pub contact_round_trips: Vec<f64>,
    /// Of a dial over a connection that is there, the attestation's flights aside.
    pub dial_round_trips: f64,
    /// Connections for each node, warm ones and sessions aside.
    pub connections: f64,
    /// Bytes on the wire for each node and second that no message of the model accounts for.
    pub background: BTreeMap<String, f64>,
}

/// Why a text is no calibration.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// It is not in the format.
    #[error("the calibration is malformed; make it anew with `simnet calibrate`")]
    Malformed(#[source] toml::de::Error),
    /// It has no sizes, they are not in order, or a size has not eleven look-up times.
    #[error("the calibration's sizes are missing, out of order or incomplete: {0}")]
    Incomplete(&'static str),
}

/// The values for one size, in whole units: every machine simulates with the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Values {
    /// In microseconds, eleven of them.
    look_up_us: Vec<u64>,
    /// In thousandths of a round trip, eleven of them.
    contact: Vec<u64>,
    /// In thousandths of a round trip.
    pub(crate) dial: u64,
    /// In thousandths.
    pub(crate) connections: u64,
    /// Thousandths of a byte a node and second, in the order of [`PROTOCOLS`].
    pub(crate) background: [u64; 10],
    pub(crate) poisoned_ppm: u32,
}

impl Values {
    /// The time of one look-up, in nanoseconds: evenly between two deciles.
    pub(crate) fn look_up(&self, draws: &mut Draws) -> u64 {
        between(&self.look_up_us, draws) * 1_000
    }

    /// The round trips of one contact, in thousandths.
    pub(crate) fn contact(&self, draws: &mut Draws) -> u64 {
        between(&self.contact, draws)
    }
}

/// Evenly between two deciles.
fn between(deciles: &[u64], draws: &mut Draws) -> u64 {
    let decile = draws.place(10);
    let at = |place: usize| deciles.get(place).copied().unwrap_or(0);
    let (low, high) = (at(decile), at(decile + 1));
    low + draws.below(high.saturating_sub(low) + 1)
}

impl Calibration {
    /// Reads a calibration.
    pub fn parse(text: &str) -> Result<Self, CalibrationError> {
        let read: Self = toml::from_str(text).map_err(CalibrationError::Malformed)?;
        if read.points.is_empty() {
            return Err(CalibrationError::Incomplete("there is none"));
        }
        if !read.points.is_sorted_by(|a, b| a.nodes < b.nodes) {
            return Err(CalibrationError::Incomplete("they are not in order"));
        }
        let lacks = |it: &Point| it.look_up_ms.len() != 11 || it.contact_round_trips.len() != 11;
        if read.points.iter().any(lacks) {
            return Err(CalibrationError::Incomplete("eleven times of each kind are needed"));
        }
        Ok(read)
    }

    /// The calibration that comes with the program.
    pub fn built_in() -> Result<Self, CalibrationError> {
        Self::parse(BUILT_IN)
    }

    /// As a file, with what its values mean.
    pub fn to_toml(&self) -> String {
        // A calibration consists of texts, numbers and tables only; writing those does not fail.
        let values = toml::to_string(self).unwrap_or_default();
        format!("{HEAD}\n{values}")
    }

    /// The values for a network of this size.
    pub(crate) fn at(&self, nodes: u32) -> Values {
        let (low, high, share) = self.around(nodes);
        let mix = |of: &dyn Fn(&Point) -> f64| {
            let (low, high) = (of(low), of(high));
            (low + (high - low) * share).max(0.0)
        };
        let thousandths = |of: &dyn Fn(&Point) -> &[f64]| {
            let at = |place| mix(&|point| of(point).get(place).copied().unwrap_or(0.0)) * 1_000.0;
            let mut deciles: Vec<u64> = (0..11).map(|place| whole(at(place))).collect();
            deciles.sort_unstable();
            deciles
        };
        let background = PROTOCOLS.map(|name| {
            whole(mix(&|point| point.background.get(name).copied().unwrap_or(0.0)) * 1_000.0)
        });
        Values {
            look_up_us: thousandths(&|point| &point.look_up_ms),
            contact: thousandths(&|point| &point.contact_round_trips),
            dial: whole(mix(&|point| point.dial_round_trips) * 1_000.0),
            connections: whole(mix(&|point| point.connections) * 1_000.0),
            background,
            poisoned_ppm: self.poisoned_ppm,
        }
    }

    /// The two sizes to mix, and the second one's share. Below the smallest the smallest holds.
    fn around(&self, nodes: u32) -> (&Point, &Point, f64) {
        let [first, rest @ ..] = self.points.as_slice() else {
            return (&NOTHING, &NOTHING, 0.0);
        };
        let mut low = first;
        let mut high = first;
        for point in rest {
            low = high;
            high = point;
            if point.nodes >= nodes {
                break;
            }
        }
        if high.nodes <= low.nodes || nodes <= low.nodes {
            return (low, low, 0.0);
        }
        let log = |nodes: u32| f64::from(nodes.max(1)).log2();
        let share = (log(nodes) - log(low.nodes)) / (log(high.nodes) - log(low.nodes));
        (low, high, share)
    }
}

/// What an empty calibration has; [`Calibration::parse`] lets none through.
static NOTHING: Point = Point {
    nodes: 0,
    look_up_ms: Vec::new(),
    contact_round_trips: Vec::new(),
    dial_round_trips: 1.0,
    connections: 0.0,
    background: BTreeMap::new(),
};

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and is never negative"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

const HEAD: &str = "\
# What the abstract tier's modelled overlay takes from the exact tier. Made by the command in
# `made_by`; do not edit by hand. Each point is one size of the network, measured over the part of
# its runs after the warm-up, the mean of several seeds:
#   look_up_ms           from a consumer's first look-up to the first providers' names: the least,
#                        the nine deciles, the most
#   contact_round_trips  from a provider's name to its offer: connection if there is none, stream,
#                        subscription; in the same way
#   dial_round_trips     from the dial of a session to its first flight
#   connections          for each node, those to providers and of sessions aside
#   background           bytes on the wire for each node and second that no message of the model
#                        accounts for, by protocol
";

#[cfg(test)]
mod tests {
    use super::*;

    fn point(nodes: u32, value: f64) -> Point {
        Point {
            nodes,
            look_up_ms: vec![value; 11],
            contact_round_trips: vec![2.0; 11],
            ..NOTHING.clone()
        }
    }

    fn two() -> Calibration {
        let points = vec![point(100, 100.0), point(400, 300.0)];
        Calibration { made_by: "a test".into(), poisoned_ppm: 0, points }
    }

    #[test]
    fn values_are_interpolated_in_the_logarithm_of_the_size() {
        let look_up = |nodes| two().at(nodes).look_up_us[5];
        assert_eq!(look_up(10), 100_000, "nothing smaller was measured");
        assert_eq!(look_up(100), 100_000);
        assert_eq!(look_up(200), 200_000);
        assert_eq!(look_up(400), 300_000);
        assert_eq!(look_up(1_600), 500_000, "the slope goes on");
    }

    #[test]
    fn the_built_in_calibration_reads_and_survives_a_round_trip() {
        let read = Calibration::built_in().unwrap();
        assert_eq!(Calibration::parse(&read.to_toml()).unwrap(), read);
        assert!(read.at(1_000).look_up_us[5] > 1_000, "a look-up takes time");
    }

    #[test]
    fn what_is_incomplete_is_refused() {
        let broken = |change: fn(&mut Calibration)| {
            let mut calibration = two();
            change(&mut calibration);
            Calibration::parse(&calibration.to_toml())
        };
        assert!(matches!(broken(|it| it.points.clear()), Err(CalibrationError::Incomplete(_))));
        assert!(matches!(broken(|it| it.points.reverse()), Err(CalibrationError::Incomplete(_))));
        let short = broken(|it| it.points[0].look_up_ms.truncate(3));
        assert!(matches!(short, Err(CalibrationError::Incomplete(_))));
        assert!(matches!(Calibration::parse("x = 1"), Err(CalibrationError::Malformed(_))));
    }
}
