//! The watcher on a real ledger: its reads and settlements as tasks, its time from the clock.
//!
//! Owns: the tasks, their number, and the order of ending. Must not: decide anything.

use std::sync::Arc;

use cocoon_protocol::channel::settlement::VaultError;
use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::{Millis, Timestamp};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::machine::{Action, Event, Seen, Watcher};
use super::{Claim, Rules};
use crate::operations::{OperationError, Patience, Redeemed, Redeemer, VaultView};
use crate::port::Ledger;

/// Reads and settlements at a time: enough to hide a server's latency, few enough to be polite.
const AT_A_TIME: usize = 8;
/// With nothing to wait for, look at the world again after this time.
const LONGEST_SLEEP: std::time::Duration = std::time::Duration::from_secs(3_600);

/// What a guard tells whoever posted it.
#[derive(Debug)]
pub enum Report {
    /// A vault was read.
    Read(Option<Box<VaultView>>),
    /// A vault could not be read.
    ReadFailed(TonAddress, OperationError),
    /// A claim was redeemed, by this guard or by somebody else.
    Settled(Box<Claim>, Redeemed),
    /// A claim could not be redeemed now.
    SettleFailed(Box<Claim>, OperationError),
}

enum Done {
    Read(TonAddress, Result<Option<Box<VaultView>>, OperationError>),
    Settled(Box<Claim>, Result<Redeemed, OperationError>),
}

/// Stands guard over the claims that come in until `stop` is cancelled or no more can come.
///
/// `report` is called for everything that happens; it must not block.
pub async fn stand(
    ledger: Arc<dyn Ledger>,
    rules: Rules,
    patience: Patience,
    mut claims: mpsc::Receiver<Claim>,
    stop: CancellationToken,
    mut report: impl FnMut(Report) + Send,
) {
    let redeemer = Redeemer::new(ledger, patience);
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    let mut watcher = Watcher::new(rules);
    let mut work: JoinSet<Done> = JoinSet::new();
    let start = Instant::now();
    // Pauses are measured on a clock that nobody sets; the ledger's own time comes with each look.
    let now = || {
        let passed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp::EPOCH.after(Millis::new(passed))
    };
    loop {
        let wait = watcher.next_timeout().map_or(LONGEST_SLEEP, |at| at.since(now()).to_duration());
        // Every arm only waits, so dropping the others loses nothing.
        let actions = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(done) = work.join_next() => match done {
                Ok(done) => watcher.handle(tell(done, &mut report), now(), draw()),
                // Cancelled with the process; a panic was reported by the panic hook.
                Err(_) => Vec::new(),
            },
            claim = claims.recv() => match claim {
                Some(claim) => watcher.handle(Event::Claim(claim), now(), draw()),
                None => return,
            },
            () = tokio::time::sleep(wait) => watcher.handle_timeout(now()),
        };
        for action in actions {
            let (redeemer, turns) = (redeemer.clone(), Arc::clone(&turns));
            work.spawn(async move {
                // Closed never, so an error cannot be; without a turn the work is only less polite.
                let _turn = turns.acquire_owned().await.ok();
                match action {
                    Action::Read(vault) => {
                        let view = redeemer.vault(vault).await;
                        Done::Read(vault, view.map(|view| view.map(Box::new)))
                    }
                    Action::Settle(claim) => {
                        let settled = Box::pin(redeemer.settle(&claim.voucher, &claim.consent));
                        let settled = settled.await;
                        Done::Settled(claim, settled)
                    }
                }
            });
        }
    }
}

fn draw() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness the pauses are only less spread.
    let _spread = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Reports what was done, in the machine's words too.
fn tell(done: Done, report: &mut impl FnMut(Report)) -> Event {
    match done {
        Done::Read(vault, Ok(view)) => {
            let seen = view.as_deref().map(seen);
            report(Report::Read(view));
            Event::Read { vault, seen }
        }
        // What is there is no vault that can be believed: as good as none.
        Done::Read(vault, Err(error @ OperationError::NotAVault(_))) => {
            report(Report::ReadFailed(vault, error));
            Event::Read { vault, seen: None }
        }
        Done::Read(vault, Err(error)) => {
            report(Report::ReadFailed(vault, error));
            Event::ReadFailed { vault }
        }
        Done::Settled(claim, Ok(redeemed)) => {
            let channel = claim.channel();
            report(Report::Settled(claim, redeemed));
            Event::Settled { channel }
        }
        Done::Settled(claim, Err(error)) => {
            let channel = claim.channel();
            let too_small = matches!(error, OperationError::Refused(VaultError::TooSmall));
            report(Report::SettleFailed(claim, error));
            Event::SettleFailed { channel, too_small }
        }
    }
}

fn seen(view: &VaultView) -> Seen {
    let delay = view.state.deployment.parameters.release_delay;
    Seen {
        as_of: view.as_of,
        release_delay: Millis::from_secs(u64::from(delay)),
        allocations: view.state.allocations.clone(),
    }
}
