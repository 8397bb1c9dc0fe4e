//! A consumer's released allocations, taken back when the provider's time to settle is over; and idle
//! ones, given back when free coins run short.
//!
//! Owns: finishing what was begun, also after a restart: the ledger itself remembers what was asked for.
//! Must not: take anything from a provider that is in use, or release more than one at a time.

use std::collections::{BTreeMap, BTreeSet};

use cocoon_ledger::operations::{Deposit, OperationError, VaultView};
use cocoon_protocol::Input;
use cocoon_protocol::channel::Allocation;
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::units::{Millis, NanoTon, Timestamp};

use crate::driver::event::DriverHandle;
use crate::driver::ledger_desk::{LedgerDesk, chain};
use crate::shutdown::Tasks;

/// Looks within one release delay.
const LOOKS_PER_DELAY: u64 = 12;
/// Not more often than this, and not less.
const SHORTEST: Millis = Millis::from_secs(1);
const LONGEST: Millis = Millis::from_secs(600);

/// Pauses before the vault is looked for again: while it is not open, and after a failure.
const UNOPENED: Millis = Millis::from_secs(5);
const UNREADABLE: Millis = Millis::from_secs(15);

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

/// How long each allocation has been without a new promise.
#[derive(Debug, Default)]
struct Idleness {
    since: BTreeMap<NodeId, (NanoTon, Timestamp)>,
}

impl Idleness {
    /// Takes in what every provider was promised so far, and which of them serve a job now.
    fn observe(
        &mut self,
        promised: &BTreeMap<NodeId, NanoTon>,
        busy: &BTreeSet<NodeId>,
        allocations: &BTreeMap<NodeId, Allocation>,
        now: Timestamp,
    ) {
        self.since.retain(|provider, _| allocations.contains_key(provider));
        for provider in allocations.keys() {
            let promised = promised.get(provider).copied().unwrap_or(NanoTon::ZERO);
            let entry = self.since.entry(*provider).or_insert((promised, now));
            if entry.0 != promised || busy.contains(provider) {
                *entry = (promised, now);
            }
        }
    }

    /// The allocation that was unused longest, and at least `idle`; none while one is given back.
    fn oldest(
        &self,
        allocations: &BTreeMap<NodeId, Allocation>,
        idle: Millis,
        now: Timestamp,
    ) -> Option<NodeId> {
        if allocations.values().any(|it| it.unlock_at.is_some()) {
            return None;
        }
        let worth = |provider: &NodeId| {
            allocations.get(provider).is_some_and(|it| it.remainder() > NanoTon::ZERO)
        };
        let unused = self
            .since
            .iter()
            .filter(|(provider, (_, since))| worth(provider) && now.since(*since) >= idle);
        unused.min_by_key(|(_, (_, since))| *since).map(|(provider, _)| *provider)
    }
}

/// What of the settings matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thrift {
    /// Free coins are short below this: another provider could not be given an allocation.
    pub(crate) allocation: NanoTon,
    /// An allocation is idle after this time without a promise.
    pub(crate) idle: Millis,
}

/// Follows the vault of `desk` until the node stops.
pub(crate) fn follow(desk: LedgerDesk, driver: DriverHandle, thrift: Thrift, tasks: &Tasks) {
    let stop = tasks.stopping().clone();
    tasks.spawn_leaf(async move {
        let following = Box::pin(run(&desk, &driver, thrift));
        let _stopped = stop.run_until_cancelled(following).await;
    });
}

async fn run(desk: &LedgerDesk, driver: &DriverHandle, thrift: Thrift) {
    let Some(deposit) = desk.deposit() else { return };
    let mut idleness = Idleness::default();
    loop {
        let wait = match deposit.view().await {
            Ok(Some(view)) => {
                let (open, wait) = plan(&view.state.allocations, view.as_of, delay(&view));
                for provider in open {
                    let done = Box::pin(deposit.finalize_release(provider)).await;
                    tell(provider, done, "a released allocation is free again", driver).await;
                }
                Box::pin(save(deposit, &view, thrift, &mut idleness, driver)).await;
                wait
            }
            Ok(None) => UNOPENED,
            Err(error) => {
                tracing::debug!(error = %chain(&error), "the vault cannot be read now");
                UNREADABLE
            }
        };
        tokio::time::sleep(wait.to_duration()).await;
    }
}

/// With too little free for another provider, gives back what was unused longest.
async fn save(
    deposit: &Deposit,
    view: &VaultView,
    thrift: Thrift,
    idleness: &mut Idleness,
    driver: &DriverHandle,
) {
    let Some(known) = driver.inspect().await else { return };
    let promised = known.payers.iter().map(|line| (line.provider, line.promised)).collect();
    let busy = known.jobs.iter().filter(|(provided, _)| !provided);
    let busy = busy.map(|(_, job)| job.peer).collect();
    let allocations = &view.state.allocations;
    idleness.observe(&promised, &busy, allocations, view.as_of);
    if view.free() >= thrift.allocation {
        return;
    }
    if let Some(provider) = idleness.oldest(allocations, thrift.idle, view.as_of) {
        let done = deposit.request_release(provider).await;
        let what = "free coins are short: the allocation that was unused longest is given back";
        tell(provider, done, what, driver).await;
    }
}

async fn tell(
    provider: NodeId,
    done: Result<VaultView, OperationError>,
    what: &str,
    driver: &DriverHandle,
) {
    match done {
        Ok(view) => {
            tracing::info!(%provider, free = %view.free(), "{what}");
            driver.send(Input::Released { provider, free: view.free() }).await;
        }
        // The next look shows what became of it.
        Err(error) => {
            tracing::warn!(%provider, error = %chain(&error), "a release did not come about yet");
        }
    }
}

fn delay(view: &VaultView) -> Millis {
    Millis::from_secs(u64::from(view.state.deployment.parameters.release_delay))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::identity::TonAddress;

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

    #[test]
    fn the_allocation_unused_longest_goes_first_and_none_that_is_in_use() {
        let id = |number| NodeId::from_bytes([number; 32]);
        let payout = TonAddress { workchain: 0, hash: [0; 32] };
        let fresh = Allocation::new(payout, NanoTon::from_nano(10), 1);
        let spent = Allocation { paid: fresh.limit, ..fresh };
        let mut allocations: BTreeMap<_, _> =
            [(id(1), fresh), (id(2), fresh), (id(3), fresh), (id(4), spent)].into();
        let at = Timestamp::from_unix_secs;
        let nano = NanoTon::from_nano;
        let (idle, nobody) = (Millis::from_secs(100), BTreeSet::new());
        let mut idleness = Idleness::default();
        let mut promised: BTreeMap<_, _> = [(id(1), nano(5)), (id(2), nano(5))].into();
        idleness.observe(&promised, &nobody, &allocations, at(0));
        promised.insert(id(1), nano(6));
        idleness.observe(&promised, &[id(3)].into(), &allocations, at(60));
        // 2 was unused since the beginning; 1 was paid and 3 was busy a moment ago; 4 has nothing left.
        assert_eq!(idleness.oldest(&allocations, idle, at(99)), None);
        assert_eq!(idleness.oldest(&allocations, idle, at(100)), Some(id(2)));
        allocations.get_mut(&id(2)).unwrap().unlock_at = Some(at(500));
        assert_eq!(idleness.oldest(&allocations, idle, at(300)), None);
        allocations.remove(&id(2));
        idleness.observe(&promised, &nobody, &allocations, at(300));
        assert_eq!(idleness.oldest(&allocations, idle, at(300)), Some(id(1)));
        allocations.remove(&id(1));
        idleness.observe(&promised, &nobody, &allocations, at(300));
        assert_eq!(idleness.oldest(&allocations, idle, at(300)), Some(id(3)));
    }
}
