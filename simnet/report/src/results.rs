//! What is left of a run: figures, distributions, the run over time; and the files they live in.
//!
//! Owns: `result.json` and `curves.json`, written and read. Must not: hold a fact of the machine or of the
//! day: equal scenario, seed and build give equal bytes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::describe::Region;
use crate::histogram::Histogram;
use crate::machine::Machine;
use crate::table::TableSummary;
use crate::{figures, html, schema};

/// A run's results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Which run.
    pub about: About,
    /// How it ended.
    pub ending: Ending,
    /// What happened, in numbers.
    pub summary: Summary,
    /// What the tables came to.
    pub tables: Vec<TableSummary>,
    /// Distributions and the run over time, for plots. In a file of its own.
    #[serde(skip)]
    pub curves: Curves,
}

/// Which run it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The scenario's name.
    pub scenario: String,
    /// What distinguishes it from other runs of the scenario.
    pub variant: String,
    /// The seed.
    pub seed: u64,
    /// `exact` or `abstract`.
    pub tier: String,
    /// The commit that the simulator was built from.
    pub commit: String,
    /// BLAKE3 of the scenario's text, in hexadecimal.
    pub scenario_hash: String,
    /// The scenario as it was resolved.
    pub scenario_text: String,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Virtual time.
    pub at_us: u64,
    /// Whether its caller ended it early.
    pub interrupted: bool,
    /// Events.
    pub events: u64,
    /// Hash over every event, in hexadecimal.
    pub trace: String,
}

/// What happened, in numbers. Jobs of adversaries are counted apart, and jobs before the warm-up's end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Who there was.
    pub population: Population,
    /// Jobs of honest consumers, submitted after the warm-up.
    pub jobs: JobSummary,
    /// From submission to the first token, µs.
    pub first_token_us: Quantiles,
    /// From submission to the receipt, µs.
    pub duration_us: Quantiles,
    /// From wanting a model to its first offer, µs.
    pub route_ready_us: Quantiles,
    /// From dial to accepted evidence, µs.
    pub session_open_us: Quantiles,
    /// Dials.
    pub sessions: SessionSummary,
    /// Money.
    pub money: MoneySummary,
    /// Income of honest providers: what their best vouchers promise, nanoTON.
    pub income_nanoton: Spread,
    /// Spend of honest consumers: what they promised, nanoTON.
    pub spend_nanoton: Spread,
    /// Bytes sent, by protocol.
    pub traffic_bytes: BTreeMap<String, u64>,
    /// Time that hosts ran, all together, µs.
    pub uptime_us: u64,
    /// When the warm-up was over, µs; the figures on jobs are of those submitted later.
    pub warm_up_us: u64,
    /// Bytes sent after the warm-up, all protocols.
    pub steady_bytes: u64,
    /// Time that hosts ran after the warm-up, all together, µs.
    pub steady_uptime_us: u64,
    /// The honest consumers that an adversary is after; their jobs are among the others too.
    pub victims: VictimSummary,
    /// Providers that honest consumers came to know by their offers, each as often as it was met.
    pub offers_met: u64,
    /// Those of them that are adversaries.
    pub offers_of_adversaries: u64,
    /// Time of engines' places that was used, µs.
    pub engine_us: u64,
    /// Processes that died.
    pub crashes: u64,
    /// What adversaries gained and did, by behaviour.
    pub adversaries: Vec<AdversarySummary>,
    /// Invariants that did not hold.
    pub violations: u64,
}

/// Who there was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Population {
    /// All hosts.
    pub hosts: u64,
    /// Hosts that consume.
    pub consumers: u64,
    /// Hosts that provide.
    pub providers: u64,
    /// Hosts that are adversaries.
    pub adversaries: u64,
    /// By region.
    pub regions: Vec<RegionSummary>,
}

/// A region and who stands in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionSummary {
    /// Which.
    #[serde(flatten)]
    pub region: Region,
    /// Consumers in it.
    pub consumers: u64,
    /// Providers in it.
    pub providers: u64,
}

/// Jobs of honest consumers, submitted after the warm-up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSummary {
    /// All that were submitted.
    pub submitted: u64,
    /// Ended with a receipt.
    pub finished: u64,
    /// Failed for their users.
    pub failed: u64,
    /// Neither, when the run ended.
    pub unfinished: u64,
    /// Attempts of all that ended.
    pub attempts: u64,
    /// Vouchers of all that finished.
    pub vouchers: u64,
    /// Prompt tokens of all that finished.
    pub prompt_tokens: u64,
    /// Completion tokens of all that finished.
    pub completion_tokens: u64,
    /// By the lowest tier that might see the prompt.
    pub tiers: BTreeMap<String, TierSummary>,
    /// Failures by kind.
    pub failures: BTreeMap<String, u64>,
    /// Failures of those that asked for the attested tier or above, by kind, and whether an
    /// adversary had the prompt at some time.
    pub attested_failures: BTreeMap<String, u64>,
    /// Jobs of adversaries, which are in none of the others.
    pub of_adversaries: u64,
    /// Jobs of honest consumers submitted before the warm-up's end, which are in none of the others.
    pub before_warm_up: u64,
}

/// Jobs of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierSummary {
    /// All that were submitted.
    pub submitted: u64,
    /// Ended with a receipt.
    pub finished: u64,
    /// Failed.
    pub failed: u64,
}

/// The honest consumers that an adversary is after, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VictimSummary {
    /// How many.
    pub hosts: u64,
    /// Their jobs, submitted after the warm-up.
    pub jobs: TierSummary,
    /// Those of them that asked for the attested tier or above.
    pub attested: TierSummary,
    /// Time from the first job of each to the end, µs.
    pub watched_us: u64,
    /// Time of it in which they had no current offer of an honest provider, µs.
    pub without_route_us: u64,
    /// Time of it in which they had none of an honest provider with a TEE, µs.
    pub without_attested_us: u64,
    /// Providers that they came to know by their offers, each as often as it was met.
    pub offers_met: u64,
    /// Those of them that are adversaries.
    pub offers_of_adversaries: u64,
}

/// Dials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSummary {
    /// Became a session.
    pub open: u64,
    /// Nobody answered in time.
    pub unreachable: u64,
    /// The evidence was not accepted.
    pub refused: u64,
}

/// Money.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MoneySummary {
    /// What finished jobs cost, nanoTON.
    pub cost_nanoton: Quantiles,
    /// What finished jobs cost, nanoTON per million tokens, prompt and completion.
    pub paid_price_nanoton: Quantiles,
    /// Completion price that each provider offered last, nanoTON per million tokens.
    pub offered_price_nanoton: Quantiles,
    /// All promises, nanoTON.
    pub promised_nanoton: u64,
    /// All that providers hold, nanoTON.
    pub held_nanoton: u64,
    /// All that the ledger paid, nanoTON.
    pub settled_nanoton: u64,
    /// Promised for jobs of honest consumers that failed, nanoTON.
    pub paid_for_failed_nanoton: u64,
    /// The most that a provider had served in one job beyond what was paid, nanoTON.
    pub exposure_nanoton: u64,
}

/// A distribution in short. Zero everywhere when there is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many values.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The least.
    pub least: u64,
    /// 10 % quantile, as all quantiles here at most 0.4 % off.
    pub p10: u64,
    /// Median.
    pub p50: u64,
    /// 90 % quantile.
    pub p90: u64,
    /// 99 % quantile.
    pub p99: u64,
    /// The greatest.
    pub most: u64,
}

impl Quantiles {
    /// Of what a histogram has counted.
    pub fn of(histogram: &Histogram) -> Self {
        let at = |per_mille| histogram.quantile(per_mille).unwrap_or(0);
        Self {
            count: histogram.count(),
            mean: histogram.mean().unwrap_or(0.0),
            least: histogram.least().unwrap_or(0),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            most: histogram.most().unwrap_or(0),
        }
    }
}

/// How a sum is spread over hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Hosts.
    pub hosts: u64,
    /// The sum.
    pub sum: f64,
    /// Mean per host.
    pub mean: f64,
    /// 10 % quantile over hosts.
    pub p10: f64,
    /// Median over hosts.
    pub p50: f64,
    /// 90 % quantile over hosts.
    pub p90: f64,
    /// Gini coefficient: 0 when all have the same, towards 1 when one has all. `None` without a sum.
    pub gini: Option<f64>,
}

/// Adversaries of one behaviour, all together. The words are those of the table of adversaries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdversarySummary {
    /// Which behaviour.
    pub behaviour: String,
    /// How many.
    pub hosts: u64,
    /// What they hold, nanoTON.
    pub income_nanoton: u64,
    /// Prompts of others that reached them.
    pub prompts_received: u64,
    /// Those of them whose users asked for the attested tier or above.
    pub attested_prompts: u64,
    /// Jobs that their own users submitted.
    pub jobs_submitted: u64,
    /// Those of them that ended with a receipt.
    pub jobs_finished: u64,
    /// Time of their engines' places that was used, µs.
    pub engine_us: u64,
    /// What honest consumers promised for jobs that failed with them, nanoTON.
    pub paid_lost_nanoton: u64,
    /// What they were served beyond what they paid, nanoTON.
    pub unpaid_nanoton: u64,
    /// The most that one of their jobs was ahead of its payments, thousandths of a step.
    pub job_ahead_millisteps: u64,
    /// The most that one of them owed one provider at a time, thousandths of a step.
    pub channel_ahead_millisteps: u64,
    /// Jobs of others that they served to the receipt.
    pub jobs_served: u64,
    /// Jobs of honest consumers that failed with them.
    pub jobs_lost: u64,
    /// What they gained, nanoTON.
    pub gain_nanoton: f64,
    /// What honest hosts lost, nanoTON.
    pub damage_nanoton: f64,
}

/// Distributions and the run over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// From submission to the first token, µs.
    pub first_token_us: Histogram,
    /// From submission to the receipt, µs.
    pub duration_us: Histogram,
    /// From wanting a model to its first offer, µs.
    pub route_ready_us: Histogram,
    /// From dial to accepted evidence, µs.
    pub session_open_us: Histogram,
    /// What finished jobs cost, nanoTON per million tokens.
    pub paid_price_nanoton: Histogram,
    /// Completion price that each provider offered last, nanoTON per million tokens.
    pub offered_price_nanoton: Histogram,
    /// Income of honest providers, nanoTON.
    pub income_nanoton: Histogram,
    /// Lorenz curve of that income: share of providers, from the poorest, and their share of the sum.
    pub income_lorenz: Vec<(f64, f64)>,
    /// Finished jobs by consumer's region, then by provider's.
    pub flows: Vec<Vec<u64>>,
    /// The run over time.
    pub timeline: Timeline,
}

/// The run over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Intervals, without gaps, the first from the start of the run. All about as long.
    pub points: Vec<Point>,
}

/// An interval of the run; the words are those of the table of samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its end.
    pub at_us: u64,
    /// Hosts that run at its end.
    pub hosts: u32,
    /// Connections at its end.
    pub connections: u64,
    /// Jobs submitted in it.
    pub submitted: u64,
    /// Jobs finished in it.
    pub finished: u64,
    /// Jobs failed in it.
    pub failed: u64,
    /// Jobs under way at its end.
    pub running: u64,
    /// Completion tokens of the jobs finished in it.
    pub completion_tokens: u64,
    /// Processes that died in it.
    pub crashed: u64,
    /// Median time to the first token in it.
    pub first_token_p50_us: Option<u64>,
    /// 99 % quantile of the same.
    pub first_token_p99_us: Option<u64>,
    /// Median offered price at its end.
    pub price_p50_nanoton: Option<u64>,
    /// Bytes sent in it, by protocol.
    pub bytes: BTreeMap<String, u64>,
}

/// Why results could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{} could not be written: is the folder writable and the disk not full?", path.display())]
pub struct WriteError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Why results could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file is not there or cannot be read.
    #[error("{} cannot be read: is this the folder of a run?", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what a run of this version writes.
    #[error("{} is not a result of this version of simnet: run the scenario again", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What `result.json` has beside the results: the headline figures, made from them.
#[derive(Serialize)]
struct ResultFile<'a> {
    format: &'static str,
    figures: BTreeMap<&'static str, f64>,
    #[serde(flatten)]
    results: &'a Results,
}

impl Results {
    /// `result.json`, byte for byte.
    pub fn to_json(&self) -> String {
        let file = ResultFile {
            format: "simnet result 1",
            figures: figures::all(&self.summary, &self.ending).collect(),
            results: self,
        };
        let mut text = serde_json::to_string_pretty(&file).unwrap_or_default();
        text.push('\n');
        text
    }

    /// BLAKE3 of `result.json`, in hexadecimal: equal for equal scenario, seed and build.
    pub fn hash(&self) -> String {
        blake3::hash(self.to_json().as_bytes()).to_hex().to_string()
    }
}

/// Writes a file under another name first, so that it is whole or not there.
pub(crate) fn put(path: &Path, text: &str) -> Result<(), WriteError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|source| WriteError { path: path.to_owned(), source })
}

/// Writes everything but the tables, which the recorder has written: `result.json`, `curves.json`,
/// `schema.json`,
/// `machine.json`, `report.html`, and its plots as `plots/NAME.svg`.
///
/// # Errors
/// When the folder or a file cannot be written.
pub fn write(results: &Results, machine: &Machine, folder: &Path) -> Result<(), WriteError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| WriteError { path: folder.to_owned(), source })?;
    put(&folder.join("schema.json"), &schema::json())?;
    put(&folder.join("curves.json"), &serde_json::to_string(&results.curves).unwrap_or_default())?;
    put(&folder.join("machine.json"), &machine.to_json())?;
    put(&folder.join("result.json"), &results.to_json())?;
    put(&folder.join("report.html"), &html::report(results))?;
    let plots = folder.join("plots");
    std::fs::create_dir_all(&plots).map_err(|source| WriteError { path: plots.clone(), source })?;
    for (name, svg) in html::plots(results) {
        put(&plots.join(format!("{name}.svg")), &svg)?;
    }
    Ok(())
}

/// Reads the results of a run from its folder.
///
/// # Errors
/// When its files are not there or not of this version.
pub fn load(folder: &Path) -> Result<Results, LoadError> {
    let read = |name: &str| {
        let path = folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(source) => Err(LoadError::Read { path, source }),
        }
    };
    let (path, text) = read("result.json")?;
    let mut results: Results =
        serde_json::from_str(&text).map_err(|source| LoadError::Format { path, source })?;
    let (path, text) = read("curves.json")?;
    results.curves =
        serde_json::from_str(&text).map_err(|source| LoadError::Format { path, source })?;
    Ok(results)
}
