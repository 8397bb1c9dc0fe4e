//! The network's own policy against the four baselines, at equal load, over some seeds.
//!
//! Owns: the table in `results/head-to-head.md`. Must not: be a test; the whole takes some minutes.
//!
//! `cargo run -p simnet-abstract --example head_to_head -- scenarios/head-to-head-small.toml 10`
//!
//! A policy's name as the last argument makes its line only.

#![expect(
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "an example prints, and most facts are not counted"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use cocoon_protocol::identity::{JobId, NodeId};
use simnet_host::{HostId, Observation, Observer, policy, population};
use simnet_scenario::{Moment, Scenario, Seed};

/// Half of Student's interval at 95 %, in standard errors, by degrees of freedom.
const STUDENT: [f64; 12] =
    [0.0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201];

/// What is counted of one run: jobs submitted after the warm-up, until their end.
#[derive(Debug, Default)]
struct Count {
    from: Moment,
    open: BTreeSet<JobId>,
    finished: u64,
    failed: u64,
    first_token_ms: Vec<u64>,
    cost_nano: u64,
    paid_for_failed_nano: u64,
    tokens: u64,
    prompts: u64,
    prompts_to_hostile: u64,
    income_nano: BTreeMap<NodeId, u64>,
}

impl Observer for Count {
    fn observe(&mut self, at: Moment, _: HostId, fact: &Observation) {
        match fact {
            Observation::JobSubmitted { job, .. } if at >= self.from => {
                self.open.insert(*job);
            }
            Observation::FirstToken { job, after } if self.open.contains(job) => {
                self.first_token_ms.push(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            }
            Observation::PromptSent { hostile, .. } => {
                self.prompts += 1;
                self.prompts_to_hostile += u64::from(*hostile);
            }
            Observation::JobFinished { job, provider, cost, prompt, completion, .. }
                if self.open.remove(job) =>
            {
                self.finished += 1;
                self.cost_nano += cost.as_nano();
                self.tokens += u64::from(prompt.get()) + u64::from(completion.get());
                *self.income_nano.entry(*provider).or_default() += cost.as_nano();
            }
            Observation::JobFailed { job, paid, .. } if self.open.remove(job) => {
                self.failed += 1;
                self.paid_for_failed_nano += paid.as_nano();
            }
            _ => {}
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for a table")]
const fn real(value: u64) -> f64 {
    value as f64
}

/// A quantile of sorted values, by the nearest rank.
fn quantile<T: Copy + Default>(sorted: &[T], percent: usize) -> T {
    let rank = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(rank).copied().unwrap_or_default()
}

impl Count {
    /// The figures, in the order of [`COLUMNS`]. `providers` are the honest ones.
    fn figures(mut self, providers: usize) -> Vec<f64> {
        self.first_token_ms.sort_unstable();
        let ended = real(self.finished + self.failed);
        let mut income: Vec<u64> = self.income_nano.into_values().collect();
        income.resize(income.len().max(providers), 0);
        income.sort_unstable();
        let (count, total) = (income.len(), real(income.iter().sum()));
        let weights = income
            .iter()
            .enumerate()
            .map(|(rank, income)| (2.0 * (rank as f64 + 1.0) - count as f64 - 1.0) * real(*income));
        let earning = real(income.iter().filter(|income| **income > 0).map(|_| 1).sum());
        let gini = weights.sum::<f64>() / (count as f64 * total);
        vec![
            100.0 * real(self.finished) / ended,
            real(quantile(&self.first_token_ms, 50)) / 1e3,
            real(quantile(&self.first_token_ms, 99)) / 1e3,
            real(self.cost_nano + self.paid_for_failed_nano) / real(self.tokens),
            100.0 * real(self.prompts_to_hostile) / real(self.prompts),
            gini,
            // Half of the providers earn nothing, so that quantiles of income have no ratio here.
            100.0 * earning / count as f64,
        ]
    }
}

/// What the table shows of each policy: mean and half of the interval at 95 % over the seeds.
const COLUMNS: [&str; 7] = [
    "success %",
    "first token p50 s",
    "p99 s",
    "µTON per 1k tokens",
    "prompts to fast-fail %",
    "income Gini",
    "providers that earn %",
];

fn cell(values: &[f64]) -> String {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let spread: f64 = values.iter().map(|it| (it - mean) * (it - mean)).sum();
    let student = STUDENT.get(values.len().saturating_sub(1)).copied().unwrap_or(1.96);
    let half = student * (spread / (count - 1.0).max(1.0) / count).sqrt();
    format!("{mean:.2} ± {half:.2}")
}

/// A line of a table: the runs of one policy, or their differences from another's, seed by seed.
fn line(name: &str, runs: &[Vec<f64>]) {
    let cells = (0..COLUMNS.len()).map(|column| {
        let values: Vec<f64> = runs.iter().filter_map(|run| run.get(column).copied()).collect();
        cell(&values)
    });
    println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "scenarios/head-to-head-small.toml".to_owned());
    let seeds: u64 = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let mut scenario = Scenario::parse(&path, &std::fs::read_to_string(&path)?)?;
    println!("| policy | {} |", COLUMNS.join(" | "));
    println!("|---{}|", "|---".repeat(COLUMNS.len()));
    let only = arguments.next();
    let mut all: Vec<(&str, Vec<Vec<f64>>)> = Vec::new();
    for entry in
        policy::SELECTION.iter().filter(|it| only.as_deref().is_none_or(|one| one == it.name))
    {
        entry.name.clone_into(&mut scenario.policy.name);
        let mut runs = Vec::new();
        for seed in 1..=seeds {
            let from = Moment::START.after(scenario.warm_up.duration());
            let mut count = Count { from, ..Count::default() };
            let hosts = population::draw(&scenario, Seed(seed))?;
            let honest = hosts.iter().filter(|it| it.provider.is_some() && !it.hostile).count();
            let mut on = |_| ControlFlow::Continue(());
            simnet_abstract::run(&scenario, Seed(seed), &mut count, &mut on)?;
            runs.push(count.figures(honest));
        }
        line(entry.name, &runs);
        all.push((entry.name, runs));
    }
    if let [(first, ours), others @ ..] = all.as_slice()
        && !others.is_empty()
    {
        println!("\n| {first} less … | {} |", COLUMNS.join(" | "));
        println!("|---{}|", "|---".repeat(COLUMNS.len()));
        for (name, theirs) in others {
            let pairs = ours.iter().zip(theirs);
            let less = pairs.map(|(ours, theirs)| {
                ours.iter().zip(theirs).map(|(ours, theirs)| ours - theirs).collect()
            });
            line(name, &less.collect::<Vec<Vec<f64>>>());
        }
    }
    Ok(())
}
