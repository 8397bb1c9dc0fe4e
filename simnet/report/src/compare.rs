//! Runs side by side: two or more groups of seeds, with intervals and paired differences.
//!
//! Owns: which runs belong together, what is compared with what, and the same comparison as text, Markdown,
//! JSON and a page. Must not: run anything, or call a difference real whose interval holds zero.

mod page;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::figures::{Better, FIGURES, Figure};
use crate::results::{LoadError, Results, load};
use crate::statistics::{Interval, mean_interval, paired_interval};

/// Runs that differ only in their seed.
#[derive(Clone, Debug)]
pub struct Group {
    /// What it is called.
    pub label: String,
    /// Its runs, by seed.
    pub runs: Vec<Results>,
}

/// A figure over all groups.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which figure.
    pub figure: &'static Figure,
    /// Its mean and interval in each group; `None` where no run has it.
    pub means: Vec<Option<Interval>>,
    /// Each group less the first, over seeds that both have; `None` for the first group, and where there is
    /// no such seed.
    pub differences: Vec<Option<Interval>>,
}

/// What a difference says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Better than the first group, with 95 % confidence.
    Better,
    /// Worse than the first group, with 95 % confidence.
    Worse,
    /// Different with 95 % confidence; neither direction is better.
    Different,
    /// The interval holds zero, or there are too few seeds.
    Unclear,
}

/// Groups of runs, compared with the first of them.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The groups, in the order in which they were given.
    pub groups: Vec<Group>,
    /// The figures that at least one group has.
    pub rows: Vec<Row>,
}

impl Verdict {
    /// Of a difference of this figure.
    pub fn of(figure: &Figure, difference: Option<&Interval>) -> Self {
        match difference.filter(|it| it.excludes_zero()) {
            None => Self::Unclear,
            Some(it) => match (figure.better, it.mean > 0.0) {
                (Better::Neither, _) => Self::Different,
                (Better::More, true) | (Better::Less, false) => Self::Better,
                (Better::More, false) | (Better::Less, true) => Self::Worse,
            },
        }
    }
}

/// The folders of runs at or below a path, in the order of their names.
///
/// # Errors
/// When a folder cannot be read, or there is no run.
pub fn find_runs(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    if path.join("result.json").is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut runs = Vec::new();
    let mut below = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            below.push(entry.path());
        }
    }
    below.sort();
    for folder in below {
        match find_runs(&folder) {
            Ok(found) => runs.extend(found),
            Err(LoadError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if runs.is_empty() {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::NotFound)));
    }
    Ok(runs)
}

/// Loads every run at or below the paths and puts those together that differ only in their seed. Runs of
/// one scenario are called by their variant, of several by both.
///
/// # Errors
/// When a path holds no run, or a run cannot be read.
pub fn load_groups(paths: &[PathBuf]) -> Result<Vec<Group>, LoadError> {
    let mut runs = Vec::new();
    for path in paths {
        for folder in find_runs(path)? {
            runs.push((path.clone(), load(&folder)?));
        }
    }
    Ok(group(runs))
}

/// Groups by scenario, tier, variant and the path that was given; the path is in the name only if the
/// rest is the same.
fn group(runs: Vec<(PathBuf, Results)>) -> Vec<Group> {
    let mut groups: Vec<(Vec<String>, Vec<Results>)> = Vec::new();
    // Runs of one configuration under different paths are only apart if their seeds collide: then someone
    // compares two builds, or two versions of a scenario.
    let mut seen: BTreeMap<(Vec<String>, u64), usize> = BTreeMap::new();
    for (_, run) in &runs {
        *seen.entry((parts(run), run.about.seed)).or_default() += 1;
    }
    let collide = seen.values().any(|it| *it > 1);
    for (path, run) in runs {
        let mut key = parts(&run);
        if collide {
            key.push(path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned());
        }
        match groups.iter_mut().find(|it| it.0 == key) {
            Some(group) => group.1.push(run),
            None => groups.push((key, vec![run])),
        }
    }
    let differs = |part: usize| {
        let mut values = groups.iter().map(|it| it.0.get(part));
        let first = values.next();
        values.any(|it| Some(it) != first)
    };
    let telling: Vec<bool> = (0..4).map(differs).collect();
    groups
        .into_iter()
        .map(|(key, mut runs)| {
            runs.sort_by_key(|it| it.about.seed);
            let told = key.iter().zip(&telling).filter(|it| *it.1).map(|it| it.0.as_str());
            let told: Vec<_> = told.filter(|it| !it.is_empty()).collect();
            let label = if told.is_empty() {
                key.first().cloned().unwrap_or_default()
            } else {
                told.join(" · ")
            };
            Group { label, runs }
        })
        .collect()
}

fn parts(run: &Results) -> Vec<String> {
    vec![run.about.scenario.clone(), run.about.variant.clone(), run.about.tier.clone()]
}

impl Comparison {
    /// Compares every group with the first.
    pub fn of(groups: Vec<Group>) -> Self {
        let values: Vec<BTreeMap<u64, &Results>> = groups
            .iter()
            .map(|group| group.runs.iter().map(|it| (it.about.seed, it)).collect())
            .collect();
        let mut rows = Vec::new();
        for figure in FIGURES {
            let of = |run: &Results| figure.value(&run.summary, &run.ending);
            let means: Vec<_> = groups
                .iter()
                .map(|it| mean_interval(&it.runs.iter().filter_map(of).collect::<Vec<_>>()))
                .collect();
            if means.iter().all(Option::is_none) {
                continue;
            }
            let difference = |(number, group): (usize, &BTreeMap<u64, &Results>)| {
                let base = values.first().filter(|_| number > 0)?;
                let both = group.iter().filter_map(|(seed, run)| Some((*base.get(seed)?, *run)));
                let pairs: Vec<_> = both.filter_map(|it| Some((of(it.0)?, of(it.1)?))).collect();
                paired_interval(&pairs)
            };
            let differences = values.iter().enumerate().map(difference).collect();
            rows.push(Row { figure, means, differences });
        }
        Self { groups, rows }
    }

    /// The comparison as data: for a summary that is kept.
    pub fn to_json(&self) -> String {
        let interval = |it: &Option<Interval>| {
            it.map_or(Value::Null, |it| {
                json!({ "seeds": it.count, "mean": it.mean, "low": it.ends.map(|it| it.0), "high": it.ends.map(|it| it.1) })
            })
        };
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|it| json!({ "label": it.label, "seeds": it.runs.iter().map(|it| it.about.seed).collect::<Vec<_>>() }))
            .collect();
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|it| {
                json!({
                    "figure": it.figure.key,
                    "unit": it.figure.unit,
                    "means": it.means.iter().map(interval).collect::<Vec<_>>(),
                    "differences": it.differences.iter().map(interval).collect::<Vec<_>>(),
                })
            })
            .collect();
        let all = json!({ "format": "simnet comparison 1", "groups": groups, "rows": rows });
        let mut text = serde_json::to_string_pretty(&all).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The comparison for a terminal.
    pub fn text(&self) -> String {
        words::text(self)
    }

    /// The comparison in Markdown.
    pub fn markdown(&self) -> String {
        words::markdown(self)
    }

    /// `compare.html`.
    pub fn html(&self) -> String {
        page::html(self)
    }
}
