//! A provider's own watchtower, and the vouchers that it hands to others'.
//!
//! Owns: feeding durable vouchers to the watcher, and the export file. Must not: settle because an
//! amount is reached; the protocol does that. Here a release request is answered, however often the
//! ledger fails in between.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cocoon_ledger::Ledger;
use cocoon_ledger::operations::Patience;
use cocoon_ledger::watch::{Claim, Report, Rules, stand};
use cocoon_protocol::Input;
use cocoon_protocol::identity::{Network, NodeKey};
use tokio::sync::mpsc;

use crate::bundle::{self, Bundle};
use crate::data_folder::write_private;
use crate::driver::event::DriverHandle;
use crate::driver::ledger_desk::chain;
use crate::shutdown::Tasks;
use crate::store::Store;

/// Between two looks into the store. A release takes a minute at the least.
const SCAN_EVERY: std::time::Duration = std::time::Duration::from_secs(2);
/// Claims that wait for the watcher; the scan waits when it is full.
const CLAIMS: usize = 1_024;

/// What the guard needs.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Where vouchers are durable.
    pub(crate) store: Store,
    /// Consents to settlements from outside.
    pub(crate) key: NodeKey,
    /// Where vaults are.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// Whom to tell what was settled.
    pub(crate) driver: DriverHandle,
    /// Which network the vouchers are for.
    pub(crate) network: Network,
    /// Where to keep the bundle for watchtowers.
    pub(crate) export: Option<PathBuf>,
}

impl Guard {
    /// Stands guard until the node stops.
    pub(crate) fn start(self, tasks: &Tasks) {
        let (claims, waiting) = mpsc::channel(CLAIMS);
        let (driver, leaves) = (self.driver.clone(), tasks.clone());
        let report = move |report| tell(report, &driver, &leaves);
        let stop = tasks.stopping().clone();
        let ledger = Arc::clone(&self.ledger);
        let rules = Rules::default();
        tasks.spawn_leaf(Box::pin(stand(
            ledger,
            rules,
            Patience::default(),
            waiting,
            stop.clone(),
            report,
        )));
        tasks.spawn_leaf(async move {
            let scanning = self.scan(claims);
            let _stopped = stop.run_until_cancelled(scanning).await;
        });
    }

    async fn scan(self, claims: mpsc::Sender<Claim>) {
        let mut known = BTreeMap::new();
        let mut exported = None;
        loop {
            match bundle::claims(&self.store, &self.key, &known) {
                Ok(found) => {
                    for (channel, guarded) in &found {
                        if known.get(channel) != Some(guarded)
                            && claims.send(guarded.0.clone()).await.is_err()
                        {
                            return;
                        }
                    }
                    self.keep_bundle(Bundle::new(self.network, found.values()), &mut exported);
                    known = found;
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "vouchers cannot be guarded now");
                }
            }
            tokio::time::sleep(SCAN_EVERY).await;
        }
    }

    /// Writes the bundle for others when it is another one than before.
    fn keep_bundle(&self, bundle: Bundle, exported: &mut Option<Bundle>) {
        let Some(path) = self.export.as_ref().filter(|_| exported.as_ref() != Some(&bundle)) else {
            return;
        };
        let text = serde_json::to_vec_pretty(&bundle).map_err(|error| error.to_string());
        let written =
            text.and_then(|text| write_private(path, &text).map_err(|error| chain(&error)));
        match written {
            Ok(()) => *exported = Some(bundle),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "vouchers cannot be exported");
            }
        }
    }
}

fn tell(report: Report, driver: &DriverHandle, tasks: &Tasks) {
    match report {
        Report::Read(Some(view)) => {
            tracing::debug!(vault = %view.address, "a vault that owes something was looked at");
        }
        Report::Read(None) => {}
        Report::ReadFailed(vault, error) => {
            tracing::debug!(%vault, error = %chain(&error), "a vault that owes something cannot be read");
        }
        Report::Settled(claim, redeemed) => {
            let voucher = claim.voucher;
            tracing::info!(vault = %voucher.voucher.vault, paid = %redeemed.paid, "settled before a release");
            let driver = driver.clone();
            tasks.spawn_leaf(async move {
                driver.send(Input::Settled { voucher, paid: redeemed.paid }).await;
            });
        }
        Report::SettleFailed(claim, error) => {
            let vault = claim.voucher.voucher.vault;
            tracing::warn!(%vault, error = %chain(&error), "a settlement before a release did not come about yet");
        }
    }
}
