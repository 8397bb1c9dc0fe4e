//! `registry`: the network's parameters, its models, and whom one may believe about measurements.
//!
//! Owns: the layout. Must not: trust a name that a stranger chose to be fit for a terminal.

use anyhow::anyhow;
use cocoon_ledger::registry::{Fee, RegistryView, displayable, read_registry};
use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::{Millis, Timestamp};
use serde::Serialize;

use super::output::{roughly, utc};
use super::{Context, ExitStatus, Failure};
use crate::config::{Config, LedgerChoice};
use crate::shutdown::Tasks;
use crate::vaults::percent;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show a registry, by default the one of the settings.
    Show {
        /// Its address.
        address: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    let Command::Show { address, json } = command;
    let config = context.load_unchecked()?;
    let view = read(context, &config, named(&config, address.as_deref())?)?;
    if json { context.printer.json(&Shown::of(&view)) } else { print(context, &view) }
}

fn named(config: &Config, address: Option<&str>) -> Result<TonAddress, Failure> {
    let wrong = |failure: Failure| failure.with_status(ExitStatus::Usage);
    match (address, config.registry) {
        (Some(text), _) => cocoon_ledger::address::parse(text, config.network)
            .map_err(|error| wrong(Failure::new(error))),
        (None, Some(address)) => Ok(address.address()),
        (None, None) => Err(wrong(Failure::new(anyhow!("no registry is named")))
            .with_hint(Some("give its address, or the setting `registry`"))),
    }
}

fn read(context: &Context, config: &Config, address: TonAddress) -> Result<RegistryView, Failure> {
    let folder = context.folder()?;
    // What is asked about is read below, with its errors.
    let config = Config { registry: None, ledger_listen: None, ..config.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let view = runtime.block_on(async {
        let tasks = Tasks::default();
        let ledger = crate::start::ledger::open(&config, &folder, &tasks).await;
        let in_use = "a running node has the embedded ledger open: ask it by `--ledger URL`";
        let hint = (config.ledger == LedgerChoice::Embedded).then_some(in_use);
        let ledger = ledger.map_err(|error| Failure::new(error).with_hint(hint))?;
        let view = read_registry(ledger.ledger.as_ref(), address).await;
        tasks.stopping().cancel();
        view.map_err(Failure::new)
    });
    runtime.shutdown_background();
    view
}

fn fee(fee: &Fee) -> String {
    match fee.treasury {
        Some(treasury) if fee.basis_points > 0 => {
            format!("{} of what providers are paid, to {treasury}", percent(fee.basis_points))
        }
        Some(_) | None => "none".to_owned(),
    }
}

fn print(context: &Context, view: &RegistryView) -> Result<(), Failure> {
    let (printer, state) = (&context.printer, &view.state);
    let unverified = if view.verified { "" } else { " (unverified: a server says so)" };
    printer.line(format_args!("registry     {}{unverified}", view.address))?;
    printer.line(format_args!("version      {}", state.version))?;
    printer.line(format_args!("network fee  {}", fee(&state.fee)))?;
    if let Some(pending) = &state.pending_fee {
        let from = utc(pending.not_before);
        printer.line(format_args!("announced    {}, from {from} on", fee(&pending.fee)))?;
    }
    let timelock = roughly(Millis::from_secs(u64::from(state.timelock)));
    printer.line(format_args!("timelock     {timelock} from announcing a fee to having it"))?;
    printer.line(format_args!("protocol     version {} at least", state.minimum_protocol))?;
    printer.line(format_args!("owner        {}", state.owner))?;
    if let Some(pending) = state.pending_owner {
        printer.line(format_args!("proposed     {pending}, who has not accepted"))?;
    }
    let models = state.models.iter();
    let rows: Vec<_> =
        models.map(|(hash, name)| vec![hex::encode(hash), displayable(name)]).collect();
    printer.table("models", &["HASH", "NAME"], &rows)?;
    let mut rows = Vec::new();
    for (account, maintainer) in &state.maintainers {
        for (hash, measurement) in &maintainer.measurements {
            rows.push(vec![
                displayable(&maintainer.name),
                displayable(&measurement.name),
                utc(measurement.published_at),
                hex::encode(hash),
            ]);
        }
        if maintainer.measurements.is_empty() {
            let nothing = format!("nothing yet, as {account}");
            rows.push(vec![displayable(&maintainer.name), nothing, String::new(), String::new()]);
        }
    }
    printer.table("measurements", &["MAINTAINER", "NAME", "PUBLISHED", "HASH"], &rows)
}

/// A registry as JSON shows it.
#[derive(Serialize)]
struct Shown {
    address: TonAddress,
    verified: bool,
    version: u32,
    fee_basis_points: u16,
    treasury: Option<TonAddress>,
    announced: Option<ShownFee>,
    timelock_seconds: u32,
    minimum_protocol: u32,
    owner: TonAddress,
    pending_owner: Option<TonAddress>,
    models: Vec<ShownModel>,
    maintainers: Vec<ShownMaintainer>,
}

#[derive(Serialize)]
struct ShownFee {
    fee_basis_points: u16,
    treasury: Option<TonAddress>,
    not_before_ms: Timestamp,
}

#[derive(Serialize)]
struct ShownModel {
    hash: String,
    name: String,
}

#[derive(Serialize)]
struct ShownMaintainer {
    account: TonAddress,
    name: String,
    measurements: Vec<ShownMeasurement>,
}

#[derive(Serialize)]
struct ShownMeasurement {
    hash: String,
    name: String,
    published_at_ms: Timestamp,
}

impl Shown {
    fn of(view: &RegistryView) -> Self {
        let state = &view.state;
        let maintainers = state.maintainers.iter().map(|(account, maintainer)| ShownMaintainer {
            account: *account,
            name: maintainer.name.clone(),
            measurements: maintainer
                .measurements
                .iter()
                .map(|(hash, it)| ShownMeasurement {
                    hash: hex::encode(hash),
                    name: it.name.clone(),
                    published_at_ms: it.published_at,
                })
                .collect(),
        });
        let models = state.models.iter();
        Self {
            address: view.address,
            verified: view.verified,
            version: state.version,
            fee_basis_points: state.fee.basis_points,
            treasury: state.fee.treasury,
            announced: state.pending_fee.map(|pending| ShownFee {
                fee_basis_points: pending.fee.basis_points,
                treasury: pending.fee.treasury,
                not_before_ms: pending.not_before,
            }),
            timelock_seconds: state.timelock,
            minimum_protocol: state.minimum_protocol,
            owner: state.owner,
            pending_owner: state.pending_owner,
            models: models
                .map(|(hash, name)| ShownModel { hash: hex::encode(hash), name: name.clone() })
                .collect(),
            maintainers: maintainers.collect(),
        }
    }
}
