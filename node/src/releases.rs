//! A consumer's released allocations, taken back when the provider's time to settle is over.
//!
//! Owns: finishing what `channel release` began, also after a restart: the ledger itself remembers what
//! was asked for. Must not: ask for a release; an operator does.

use std::collections::BTreeMap;

use cocoon_ledger::operations::VaultView;
use cocoon_protocol::Input;
use cocoon_protocol::channel::Allocation;
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::units::{Millis, Timestamp};

use crate::driver::event::DriverHandle;
use crate::driver::ledger_desk::{LedgerDesk, chain};
use crate::shutdown::Tasks;

/// Looks within one release delay.
const LOOKS_PER_DELAY: u64 = 12;
/// Not more often than this, and not less.
const SHORTEST: Millis = Millis::from_secs(1);
const LONGEST: Millis = Millis::from_secs(600);

/// What can be taken back now, and how long to wait until the next look.
fn plan(
    allocations: &BTreeMap<NodeId, Allocation>,
    as_of: Timestamp,
    delay: Millis,
) -> (Vec<NodeId>, Millis) {
    let asked = allocations.iter().filter_map(|(id, it)| it.unlock_at.map(|at| (*id, at)));
    let (open, later): (Vec<_>, Vec<_>) = asked.partition(|(_, at)| *at <= as_of);
    let usual = Millis::new(delay.get() / LOOKS_PER_DELAY);
    // A moment later than the second, so that the block that comes then is past it.
    let next = later.iter().map(|(_, at)| Millis::new(at.since(as_of).get().saturating_add(1_000)));
    let wait = next.fold(usual, Millis::min).clamp(SHORTEST, LONGEST);
    (open.into_iter().map(|(id, _)| id).collect(), wait)
}

/// Follows the vault of `desk` until the node stops.
pub(crate) fn follow(desk: LedgerDesk, driver: DriverHandle, tasks: &Tasks) {
    let stop = tasks.stopping().clone();
    tasks.spawn_leaf(async move {
        let following = Box::pin(run(&desk, &driver));
        let _stopped = stop.run_until_cancelled(following).await;
    });
}

async fn run(desk: &LedgerDesk, driver: &DriverHandle) {
    let Some(deposit) = desk.deposit() else { return };
    loop {
        let wait = match deposit.view().await {
            Ok(Some(view)) => {
                let delay = delay(&view);
                let (open, wait) = plan(&view.state.allocations, view.as_of, delay);
                for provider in open {
                    match deposit.finalize_release(provider).await {
                        Ok(view) => {
                            tracing::info!(%provider, "a released allocation is free again");
                            driver.send(Input::Released { provider, free: view.free() }).await;
                        }
                        // The next look shows what became of it.
                        Err(error) => {
                            tracing::warn!(%provider, error = %chain(&error), "a release could not be finished yet");
                        }
                    }
                }
                wait
            }
            Ok(None) => LONGEST.min(Millis::from_secs(5)),
            Err(error) => {
                tracing::debug!(error = %chain(&error), "the vault cannot be read now");
                Millis::from_secs(15)
            }
        };
        tokio::time::sleep(wait.to_duration()).await;
    }
}

fn delay(view: &VaultView) -> Millis {
    Millis::from_secs(u64::from(view.state.deployment.parameters.release_delay))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::identity::TonAddress;
    use cocoon_protocol::units::NanoTon;

    #[test]
    fn what_is_open_is_taken_back_and_the_next_look_is_when_something_opens() {
        let allocation = |unlock_at: Option<u64>| {
            let payout = TonAddress { workchain: 0, hash: [0; 32] };
            let unlock_at = unlock_at.map(Timestamp::from_unix_secs);
            Allocation { unlock_at, ..Allocation::new(payout, NanoTon::from_nano(1), 1) }
        };
        let id = |number| NodeId::from_bytes([number; 32]);
        let allocations = [
            (id(1), allocation(None)),
            (id(2), allocation(Some(1_000))),
            (id(3), allocation(Some(1_020))),
        ];
        let allocations: BTreeMap<_, _> = allocations.into();
        let at = |seconds| {
            plan(&allocations, Timestamp::from_unix_secs(seconds), Millis::from_secs(3_600))
        };
        assert_eq!(at(900), (vec![], Millis::from_secs(101)));
        assert_eq!(at(1_000), (vec![id(2)], Millis::from_secs(21)));
        assert_eq!(at(1_020), (vec![id(2), id(3)], Millis::from_secs(300)));
        let none = BTreeMap::new();
        let short = plan(&none, Timestamp::EPOCH, Millis::from_secs(1));
        assert_eq!(short, (vec![], SHORTEST));
        let long = plan(&none, Timestamp::EPOCH, Millis::from_secs(86_400));
        assert_eq!(long, (vec![], LONGEST));
    }
}
