//! `watch`: stand guard over somebody's vouchers, with no key and no node.
//!
//! Owns: reading bundles again and again, and what is printed. Must not: decide when to settle.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use cocoon_ledger::operations::{Patience, VaultView};
use cocoon_ledger::watch::{Claim, Report, Rules, stand};
use cocoon_protocol::channel::ChannelId;
use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::{NanoTon, Timestamp};
use tokio::sync::mpsc;

use super::output::{Printer, short, utc};
use super::{Context, ExitStatus, Failure};
use crate::bundle::{BUNDLE_BYTES, Bundle};
use crate::config::LedgerChoice;
use crate::data_folder::DataFolder;
use crate::driver::ledger_desk::chain;
use crate::shutdown::Tasks;

/// Claims that wait for the watcher; reading files waits when it is full.
const CLAIMS: usize = 1_024;
/// Between two looks at the files.
const RESCAN: std::time::Duration = std::time::Duration::from_secs(5);

/// Settle for providers that cannot, before their consumers take the money back.
///
/// Needs no key: what a vault pays goes to the provider's own address. Runs until it is stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Stand guard over these vaults only; all in the bundles by default.
    vaults: Vec<String>,
    /// File with vouchers (`channel export`, `--voucher-export`), or a folder of such files; read again
    /// every few seconds.
    #[arg(long, required = true, value_name = "FILE|DIR")]
    vouchers: Vec<PathBuf>,
    /// Settle from this much on, too, without waiting for a release.
    #[arg(long, value_name = "AMOUNT")]
    settle_from: Option<NanoTon>,
}

pub(super) fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let config = context.load_unchecked()?;
    if config.ledger == LedgerChoice::Embedded {
        let error = anyhow!("a watchtower looks at the ledger of a network, and none is named");
        return Err(Failure::new(error)
            .with_status(ExitStatus::Usage)
            .with_hint(Some("give `--ledger` and `--network`")));
    }
    let network = config.network;
    let only = arguments.vaults.iter().map(|text| cocoon_ledger::address::parse(text, network));
    let only: Vec<_> = only
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::new(error).with_status(ExitStatus::Usage))?;
    if let Some(path) = arguments.vouchers.iter().find(|path| !path.exists()) {
        return Err(Failure::new(anyhow!("there is no {}", path.display())));
    }
    let folder = DataFolder::open(&config.data_dir)?;
    let files = Files { paths: arguments.vouchers, network, only, known: BTreeMap::new() };
    let rules = Rules { threshold: arguments.settle_from, ..Rules::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let tasks = Tasks::default();
        let ledger = crate::start::ledger::open(&config, &folder, &tasks).await;
        let ledger = ledger.map_err(Failure::new)?.ledger;
        let (claims, waiting) = mpsc::channel(CLAIMS);
        let stop = tasks.stopping().clone();
        let mut told = BTreeMap::new();
        let report = move |report| tell(&Printer, report, &mut told);
        let guard = stand(ledger, rules, Patience::default(), waiting, stop, report);
        tokio::join!(Box::pin(guard), Box::pin(files.follow(claims)));
        Ok(())
    })
}

/// The bundles.
struct Files {
    paths: Vec<PathBuf>,
    network: Network,
    only: Vec<TonAddress>,
    /// What was read already: claims by channel.
    known: BTreeMap<ChannelId, NanoTon>,
}

impl Files {
    async fn follow(mut self, claims: mpsc::Sender<Claim>) {
        let mut problems = BTreeMap::new();
        loop {
            for claim in self.read(&mut problems) {
                let voucher = &claim.voucher.voucher;
                let guarded = format_args!(
                    "guarding     {} of {} for provider {}\n",
                    voucher.cumulative,
                    voucher.vault,
                    short(voucher.provider)
                );
                Printer.note(guarded);
                if claims.send(claim).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(RESCAN).await;
        }
    }

    /// Claims that are new or better than before. A file that cannot be read is named once, and what
    /// was read of it earlier stays guarded.
    fn read(&mut self, problems: &mut BTreeMap<PathBuf, String>) -> Vec<Claim> {
        let mut better = Vec::new();
        let files: Vec<PathBuf> = self.paths.iter().flat_map(|path| listed(path)).collect();
        for path in files {
            match bundle(&path, self.network) {
                Ok(claims) => {
                    problems.remove(&path);
                    better.extend(claims.into_iter().filter(|claim| self.is_better(claim)));
                }
                Err(problem) => {
                    if problems.insert(path.clone(), problem.clone()).as_ref() != Some(&problem) {
                        Printer.note(format_args!("warning: {}: {problem}\n", path.display()));
                    }
                }
            }
        }
        better
    }

    fn is_better(&mut self, claim: &Claim) -> bool {
        let (channel, amount) = (claim.channel(), claim.voucher.voucher.cumulative);
        if !self.only.is_empty() && !self.only.contains(&channel.vault) {
            return false;
        }
        let better = self.known.get(&channel).is_none_or(|known| *known < amount);
        if better {
            self.known.insert(channel, amount);
        }
        better
    }
}

/// The file itself, or the `.json` files in a folder.
fn listed(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return vec![path.to_owned()] };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths.filter(|path| path.extension().is_some_and(|it| it == "json")).collect()
}

fn bundle(path: &Path, network: Network) -> Result<Vec<Claim>, String> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|it| it.take(BUNDLE_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    Bundle::read(&bytes, network).map_err(|error| error.to_string())
}

/// What a person wants to know, once each.
fn tell(printer: &Printer, report: Report, told: &mut BTreeMap<ChannelId, Option<Timestamp>>) {
    match report {
        Report::Read(None) => {}
        Report::Read(Some(view)) => requests(printer, &view, told),
        Report::ReadFailed(vault, error) => {
            printer.note(format_args!("warning: {vault} cannot be read: {}\n", chain(&error)));
        }
        Report::Settled(claim, redeemed) => {
            let voucher = claim.voucher.voucher;
            let line = format_args!(
                "settled      {} by {} for provider {}",
                redeemed.paid,
                voucher.vault,
                short(voucher.provider)
            );
            // A closed standard output is no reason to stop guarding.
            let _closed = printer.line(line);
        }
        Report::SettleFailed(claim, error) => {
            let vault = claim.voucher.voucher.vault;
            printer.note(format_args!("warning: {vault} did not pay yet: {}\n", chain(&error)));
        }
    }
}

fn requests(
    printer: &Printer,
    view: &VaultView,
    told: &mut BTreeMap<ChannelId, Option<Timestamp>>,
) {
    for (provider, allocation) in &view.state.allocations {
        let (vault, provider, epoch) = (view.address, *provider, allocation.epoch);
        let channel = ChannelId { vault, provider, epoch };
        let before = told.insert(channel, allocation.unlock_at).flatten();
        if let Some(at) = allocation.unlock_at.filter(|at| before != Some(*at)) {
            let line = format_args!(
                "release      of provider {} asked for; {vault} gives it back at {}",
                short(provider),
                utc(at)
            );
            let _closed = printer.line(line);
        }
    }
}
