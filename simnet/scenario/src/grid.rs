//! Grids of runs: a scenario, values for some of its keys, and seeds.
//!
//! Owns: the format, and the one order in which a grid becomes a list of runs.
//! Must not: run anything.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;

/// Runs of one sweep: more would be a mistake in a grid.
const MOST: u64 = 1_000_000;

/// A grid, as its file has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// A shipped scenario's name, or a file beside the grid.
    pub scenario: String,
    /// Values that are the same in every run, by dotted key.
    #[serde(default)]
    pub set: BTreeMap<String, toml::Value>,
    /// Values that are tried in every combination, by dotted key.
    #[serde(default)]
    pub grid: BTreeMap<String, Vec<toml::Value>>,
    /// The seeds of each combination.
    pub seeds: Seeds,
}

/// Seeds: a list, or `{ from = 1, count = 10 }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Seeds {
    /// These.
    List(Vec<u64>),
    /// So many from one on.
    Range {
        /// The first.
        from: u64,
        /// How many.
        count: u64,
    },
}

impl Seeds {
    fn all(&self) -> Vec<u64> {
        match self {
            Self::List(seeds) => seeds.clone(),
            Self::Range { from, count } => (0..*count).map(|it| from.saturating_add(it)).collect(),
        }
    }

    fn count(&self) -> u64 {
        match self {
            Self::List(seeds) => u64::try_from(seeds.len()).unwrap_or(u64::MAX),
            Self::Range { count, .. } => *count,
        }
    }
}

/// One run of a grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Its place in the list.
    pub index: u64,
    /// The scenario, as the grid names it.
    pub scenario: String,
    /// What is changed of it: dotted keys and values as TOML has them.
    pub set: Vec<(String, String)>,
    /// Which of these differ within the grid, for people.
    pub variant: String,
    /// The seed.
    pub seed: u64,
}

/// Why a grid cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GridError {
    /// It is not a grid.
    #[error("{file}: {message}")]
    Format {
        /// The file.
        file: String,
        /// What is wrong.
        message: String,
    },
    /// It stands for no run at all.
    #[error("{file}: {what} is empty, so there is nothing to run")]
    Empty {
        /// The file.
        file: String,
        /// Which list.
        what: String,
    },
    /// It stands for too many.
    #[error("{file}: more than {MOST} runs; split the grid")]
    Large {
        /// The file.
        file: String,
    },
}

impl Grid {
    /// Reads a grid; `file` is its name in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, GridError> {
        let grid: Self = toml::from_str(text).map_err(|error| GridError::Format {
            file: file.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        let empty = |what: &str| GridError::Empty { file: file.to_owned(), what: what.to_owned() };
        if grid.seeds.count() == 0 {
            return Err(empty("seeds"));
        }
        let mut runs = grid.seeds.count();
        for (key, values) in &grid.grid {
            if values.is_empty() {
                return Err(empty(key));
            }
            runs = runs.saturating_mul(u64::try_from(values.len()).unwrap_or(u64::MAX));
        }
        if runs > MOST {
            return Err(GridError::Large { file: file.to_owned() });
        }
        Ok(grid)
    }

    /// All runs, always in the same order: the last key's values change fastest, and the seeds
    /// faster still.
    pub fn cells(&self) -> Vec<Cell> {
        let fixed: Vec<_> =
            self.set.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
        let mut combinations: Vec<Vec<(String, String)>> = vec![Vec::new()];
        for (key, values) in &self.grid {
            combinations = combinations
                .iter()
                .flat_map(|so_far| {
                    values.iter().map(|value| {
                        let mut longer = so_far.clone();
                        longer.push((key.clone(), plain(value)));
                        longer
                    })
                })
                .collect();
        }
        let seeds = self.seeds.all();
        let runs = combinations.iter().flat_map(|it| seeds.iter().map(move |seed| (it, *seed)));
        (0..)
            .zip(runs)
            .map(|(index, (varied, seed))| Cell {
                index,
                scenario: self.scenario.clone(),
                set: fixed.iter().chain(varied).cloned().collect(),
                variant: variant(varied),
                seed,
            })
            .collect()
    }
}

/// What distinguishes a run, for people: the changed keys' last words and their values.
pub fn variant(set: &[(String, String)]) -> String {
    let words: Vec<_> = set
        .iter()
        .map(|(key, value)| {
            let name = key.rsplit('.').next().unwrap_or(key);
            let value = value.trim_matches('"');
            // A name speaks for itself.
            if name == "name" { value.to_owned() } else { format!("{name}={value}") }
        })
        .collect();
    words.join(" ")
}

/// A value as TOML has it, in one line.
fn plain(value: &toml::Value) -> String {
    value.to_string()
}

/// Memory that a run of this scenario is likely to need, in bytes: for packing runs on a machine,
/// not a promise. Above what `steady-1000` and `million` took with one seed.
pub fn likely_memory(scenario: &Scenario) -> u64 {
    let nodes = u64::from(scenario.population.nodes);
    let (base, each) = match scenario.tier {
        crate::scenario::RunTier::Exact => (64 << 20, 4 << 20),
        crate::scenario::RunTier::Abstract => (64 << 20, 4 << 10),
    };
    nodes.saturating_mul(each).saturating_add(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: &str = "scenario = \"baseline-small\"\nseeds = { from = 1, count = 2 }\n\
        [set]\nduration = \"20 s\"\n\
        [grid]\n\"policy.name\" = [\"random\", \"cheapest\"]\n\"population.nodes\" = [40, 60, 80]\n";

    #[test]
    fn a_grid_becomes_its_runs_in_one_order() {
        let cells = Grid::parse("grid.toml", GRID).unwrap().cells();
        assert_eq!(cells.len(), 12);
        let told = |it: &Cell| (it.index, it.variant.clone(), it.seed);
        assert_eq!(told(&cells[0]), (0, "random nodes=40".to_owned(), 1));
        assert_eq!(told(&cells[1]), (1, "random nodes=40".to_owned(), 2));
        assert_eq!(told(&cells[11]), (11, "cheapest nodes=80".to_owned(), 2));
        assert_eq!(cells[0].set[0], ("duration".to_owned(), "\"20 s\"".to_owned()));
        for cell in cells {
            let scenario = Scenario::default().with(&cell.set).unwrap();
            assert!(scenario.population.nodes < 100);
            assert_ne!(scenario.policy.name, "cocoon-node");
        }
    }

    #[test]
    fn what_is_no_grid_says_so() {
        let wrong = |text: &str| Grid::parse("grid.toml", text).unwrap_err().to_string();
        assert!(wrong("scenario = \"x\"\nseeds = []\n").contains("seeds is empty"));
        assert!(wrong("scenario = \"x\"\nseed = [1]\n").contains("grid.toml"));
        let many = "scenario = \"x\"\nseeds = { from = 1, count = 99999999999 }\n";
        assert!(wrong(many).contains("split the grid"));
        let none = "scenario = \"x\"\nseeds = [1]\n[grid]\n\"a.b\" = []\n";
        assert!(wrong(none).contains("a.b is empty"));
    }
}
