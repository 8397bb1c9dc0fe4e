//! The command line.
//!
//! Owns: names, defaults and help of every option. Must not: act.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use simnet_scenario::RunTier;

/// A deterministic simulator of the Cocoon network: the node's own protocol code, in virtual time.
///
/// The same scenario, seed and build give the same bytes. Exit codes: 0 done, 1 failed or
/// different, 2 an invariant was violated, 130 ended by Ctrl-C with what there was.
#[derive(Debug, Parser)]
#[command(name = "simnet", version = crate::identity::VERSION, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a scenario and write its results.
    Run(Run),
    /// Set results side by side, with confidence intervals over seeds.
    Compare(Compare),
    /// Run a grid of scenarios in worker processes.
    Sweep(Sweep),
    /// Run a result again, up to a moment or step by step, and show what a node saw and what it
    /// has; or list a recorded trace.
    Replay(Replay),
    /// Show that the same seed gives the same bytes, also under load, and another seed others.
    Check(Check),
    /// Measure the exact tier and write the calibration of the abstract one.
    Calibrate(Calibrate),
    /// One measurement of the exact tier, as TOML: what calibrate calls.
    #[command(hide = true)]
    Measure(Measure),
    /// List the scenarios that come with the program, or show one.
    Scenarios(Scenarios),
    /// Keep a core busy until killed: the load in `check`.
    #[command(hide = true)]
    Burn,
}

/// Where a scenario is from and what is changed of it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Source {
    /// A file, or the name of a scenario that comes with the program (see `simnet scenarios`).
    pub(crate) scenario: String,
    /// Change a value: a dotted key and a value, for example `--set population.nodes=500`,
    /// `--set demand.rate="5 /s"`, `--set adversaries.0.portion="10 %"`.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = change)]
    pub(crate) set: Vec<(String, String)>,
    /// Carry it by another tier than the scenario says.
    #[arg(long)]
    pub(crate) tier: Option<Tier>,
    /// Run for so many virtual seconds instead of the scenario's duration.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds: Option<u64>,
}

/// A tier, as the command line has it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Tier {
    /// The real overlay.
    Exact,
    /// The modelled overlay.
    Abstract,
}

impl From<Tier> for RunTier {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Exact => Self::Exact,
            Tier::Abstract => Self::Abstract,
        }
    }
}

fn change(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a change is written KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) source: Source,
    /// The seed. Default: the scenario's.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Folder for the results. Default: `out/` and the run's content-addressed name.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Format of the tables.
    #[arg(long, value_enum, default_value_t = Tables::Parquet)]
    pub(crate) tables: Tables,
    /// Write no files at all; only the summary is printed.
    #[arg(long, conflicts_with = "out")]
    pub(crate) dry: bool,
    /// What distinguishes this run from others of the scenario, for comparisons. Default: its
    /// changes.
    #[arg(long)]
    pub(crate) variant: Option<String>,
    /// Print the result as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// How tables are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tables {
    /// Apache Parquet: small, typed, read by every tool for data.
    Parquet,
    /// Text.
    Csv,
    /// None: hashes and figures only.
    None,
}

#[derive(Args, Debug)]
pub(crate) struct Compare {
    /// Folders of runs. Runs that differ only in their seed form a group; the first group is what
    /// the others are compared with.
    #[arg(required = true, value_name = "FOLDER")]
    pub(crate) folders: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print Markdown.
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
    /// Write a page with plots.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Sweep {
    /// The grid: a scenario, `[set]`, `[grid]` and `seeds`, as TOML.
    pub(crate) grid: PathBuf,
    /// Worker processes. Default: one for each core, fewer where memory is short.
    #[arg(long)]
    pub(crate) workers: Option<usize>,
    /// Only every n-th run, from the i-th: `--shard 0/4` to `--shard 3/4` on four machines.
    #[arg(long, value_name = "I/N", value_parser = shard)]
    pub(crate) shard: Option<(u64, u64)>,
    /// Print the list of runs as JSON lines, and run nothing.
    #[arg(long)]
    pub(crate) list: bool,
    /// Folder for the results.
    #[arg(long, value_name = "FOLDER", default_value = "out/sweep")]
    pub(crate) out: PathBuf,
    /// Format of the tables.
    #[arg(long, value_enum, default_value_t = Tables::Parquet)]
    pub(crate) tables: Tables,
}

fn shard(text: &str) -> Result<(u64, u64), String> {
    let wrong = "a shard is written I/N with I below N, for example 0/4";
    let (index, count) = text.split_once('/').ok_or(wrong)?;
    let index: u64 = index.parse().map_err(|_| wrong)?;
    let count: u64 = count.parse().map_err(|_| wrong)?;
    if index < count { Ok((index, count)) } else { Err(wrong.to_owned()) }
}

#[derive(Args, Debug)]
pub(crate) struct Replay {
    /// A run's folder, or a file of a trace.
    pub(crate) trace: PathBuf,
    /// Up to this moment of the run, as `12.5s`: everything up to it has happened, and nothing
    /// after it.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only what this node saw.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) node: Option<u32>,
    /// So many of the last facts.
    #[arg(long, value_name = "COUNT", default_value_t = 40)]
    pub(crate) last: usize,
    /// The node's inner state there: its jobs, offers, money, engine, sessions, store and place in
    /// the overlay.
    #[arg(long)]
    pub(crate) state: bool,
    /// Cut no list of the state.
    #[arg(long, requires = "state")]
    pub(crate) all: bool,
    /// Print facts and state as one JSON object; `simnet/docs/state.md` lists its keys.
    #[arg(long)]
    pub(crate) json: bool,
    /// Walk through the run: commands come from the standard input, `help` lists them. It begins at
    /// --until, and with --node.
    #[arg(long, conflicts_with_all = ["state", "json", "all"])]
    pub(crate) step: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Check {
    /// Scenarios. Default: five, of both tiers.
    pub(crate) scenarios: Vec<String>,
    /// The seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Virtual seconds of each run.
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u64,
    /// Change a value in all of them.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = change)]
    pub(crate) set: Vec<(String, String)>,
    /// Run the seeds of a file of regressions instead, and see that no invariant is violated.
    #[arg(long, value_name = "FILE", conflicts_with = "scenarios")]
    pub(crate) regressions: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Calibrate {
    /// Populations to measure in the exact tier. Those of the calibration that comes with the
    /// program, or with --check those that it was not made of.
    #[arg(long, value_delimiter = ',')]
    pub(crate) nodes: Vec<u32>,
    /// Where the calibration goes.
    #[arg(long, value_name = "FILE", default_value = "calibration.toml")]
    pub(crate) out: PathBuf,
    /// Write nothing; compare the tiers by the calibration that comes with the program.
    #[arg(long)]
    pub(crate) check: bool,
}

/// One measurement, for [`Calibrate`]: the exact tier runs once in a process.
#[derive(Args, Debug)]
pub(crate) struct Measure {
    /// Nodes.
    #[arg(long)]
    pub(crate) nodes: u32,
    /// Seed.
    #[arg(long)]
    pub(crate) seed: u64,
}

#[derive(Args, Debug)]
pub(crate) struct Scenarios {
    #[command(subcommand)]
    pub(crate) command: Option<ScenariosCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScenariosCommand {
    /// Print a scenario as its file has it.
    Show {
        /// Its name.
        name: String,
        /// With every default written out.
        #[arg(long)]
        full: bool,
    },
}
