//! What this node's applications may spend: in a day, all together and each API key.
//!
//! Owns: the caps, what today's jobs have cost, and what the running ones may still cost.
//! Must not: keep a file of its own. What was spent stands in the accounts, which are written with
//! the vouchers themselves, so that a killed process forgets nothing; what was set aside for its
//! jobs is free again, because they ended with it.
//!
//! A day is a day in UTC, and a job counts to the one in which its provider was asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cocoon_protocol::identity::{JobId, NodeId};
use cocoon_protocol::job::JobError;
use cocoon_protocol::record::{Account, Posting};
use cocoon_protocol::units::{Millis, NanoTon, Timestamp};

use crate::accounts::{self, AccountsError};
use crate::store::Store;

const DAY: u64 = 86_400_000;
/// When running jobs hold what is left, some of it is soon free.
const RETRY_AFTER: Millis = Millis::from_secs(2);

/// Whose cap it is, and how high.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyCap {
    /// The key's name, for errors and reports.
    pub(crate) name: String,
    /// The most in a day.
    pub(crate) daily: Option<NanoTon>,
    /// The most for one request.
    pub(crate) request: Option<NanoTon>,
}

/// An operator's caps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caps {
    /// All keys together, in a day.
    pub(crate) daily: Option<NanoTon>,
    /// Each key.
    pub(crate) keys: BTreeMap<Account, KeyCap>,
}

/// The budget; shared by the gateway, which reserves, and the driver, which says what was paid.
#[derive(Debug)]
pub(crate) struct Budget {
    caps: Caps,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    day: u64,
    spent: BTreeMap<Account, NanoTon>,
    running: BTreeMap<JobId, Running>,
}

#[derive(Debug)]
struct Running {
    account: Account,
    granted: NanoTon,
    /// What each provider that was tried has been paid.
    paid: BTreeMap<NodeId, NanoTon>,
}

impl Running {
    fn left(&self) -> NanoTon {
        let paid = self.paid.values().fold(NanoTon::ZERO, |sum, it| sum.saturating_add(*it));
        self.granted.saturating_sub(paid)
    }
}

/// One cap, and how far it is used.
struct Used {
    what: String,
    cap: NanoTon,
    spent: NanoTon,
    reserved: NanoTon,
    remedy: &'static str,
}

impl Used {
    const fn left(&self) -> NanoTon {
        self.cap.saturating_sub(self.spent).saturating_sub(self.reserved)
    }

    fn refusal(self) -> JobError {
        let soon = self.reserved > NanoTon::ZERO && self.spent < self.cap;
        let remedy = if soon { "wait for running requests to end" } else { self.remedy };
        JobError::SpendingCap {
            what: self.what,
            cap: self.cap,
            spent: self.spent,
            reserved: self.reserved,
            remedy,
            retry_after: soon.then_some(RETRY_AFTER),
        }
    }
}

impl Budget {
    /// A budget that knows what was spent today.
    pub(crate) fn open(caps: Caps, store: &Store, now: Timestamp) -> Result<Self, AccountsError> {
        let day = day(now);
        let mut state = State { day, ..State::default() };
        let midnight = Timestamp::from_unix_millis(day.saturating_mul(DAY));
        accounts::visit(store, midnight, |posting| {
            state.note(&posting);
            true
        })?;
        state.running.clear();
        Ok(Self { caps, state: Mutex::new(state) })
    }

    fn state(&self, now: Timestamp) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.turn(day(now));
        state
    }

    /// The most that one request of this account may cost.
    pub(crate) fn for_request(&self, account: Account, asked: NanoTon) -> NanoTon {
        let own = self.caps.keys.get(&account).and_then(|key| key.request);
        own.map_or(asked, |own| own.min(asked))
    }

    /// Sets aside up to `wanted` for a job: less when no more is left today.
    pub(crate) fn reserve(
        &self,
        job: JobId,
        account: Account,
        wanted: NanoTon,
        now: Timestamp,
    ) -> Result<NanoTon, JobError> {
        let mut state = self.state(now);
        let tightest = self.used(&state, account).into_iter().min_by_key(Used::left);
        let granted = match tightest {
            Some(used) if used.left() == NanoTon::ZERO => return Err(used.refusal()),
            Some(used) => used.left().min(wanted),
            None => wanted,
        };
        state.running.insert(job, Running { account, granted, paid: BTreeMap::new() });
        Ok(granted)
    }

    /// Why a job for which less than it wanted was set aside found no offer.
    pub(crate) fn refusal(&self, account: Account, now: Timestamp) -> Option<JobError> {
        let state = self.state(now);
        self.used(&state, account).into_iter().min_by_key(Used::left).map(Used::refusal)
    }

    fn used(&self, state: &State, account: Account) -> Vec<Used> {
        let key = self.caps.keys.get(&account);
        let own = key.and_then(|key| Some((key.name.as_str(), key.daily?)));
        let own = own.map(|(name, cap)| Used {
            what: format!("the API key `{name}` may spend"),
            cap,
            spent: state.spent.get(&account).copied().unwrap_or(NanoTon::ZERO),
            reserved: state.reserved(|it| it.account == account),
            remedy: "a new day begins at 00:00 UTC; the key's `daily_cap` is in the `api_keys` file",
        });
        let all = self.caps.daily.map(|cap| Used {
            what: "this node may spend".to_owned(),
            cap,
            spent: state.spent.values().fold(NanoTon::ZERO, |sum, it| sum.saturating_add(*it)),
            reserved: state.reserved(|_| true),
            remedy: "a new day begins at 00:00 UTC; `--max-spend` raises the cap",
        });
        own.into_iter().chain(all).collect()
    }

    /// A line of the accounts has become durable.
    pub(crate) fn note(&self, posting: &Posting) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).note(posting);
    }

    /// A job is over: what it did not cost is free again.
    pub(crate) fn over(&self, job: JobId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running.remove(&job);
    }

    /// The names of the keys, for reports.
    pub(crate) fn name(&self, account: Account) -> Option<&str> {
        self.caps.keys.get(&account).map(|key| key.name.as_str())
    }
}

impl State {
    fn turn(&mut self, today: u64) {
        // A clock that is set back does not give the day before a second time.
        if today > self.day {
            self.day = today;
            self.spent.clear();
        }
    }

    fn reserved(&self, of: impl Fn(&Running) -> bool) -> NanoTon {
        let running = self.running.values().filter(|it| of(it));
        running.fold(NanoTon::ZERO, |sum, it| sum.saturating_add(it.left()))
    }

    fn note(&mut self, posting: &Posting) {
        if posting.provided {
            return;
        }
        let known = self.running.get_mut(&posting.job);
        let before = known.and_then(|job| job.paid.insert(posting.peer, posting.amount));
        let fresh = posting.amount.saturating_sub(before.unwrap_or(NanoTon::ZERO));
        self.turn(day(posting.began));
        if day(posting.began) == self.day {
            let spent = self.spent.entry(posting.account).or_default();
            *spent = spent.saturating_add(fresh);
        }
    }
}

const fn day(time: Timestamp) -> u64 {
    time.as_unix_millis() / DAY
}

#[cfg(test)]
mod tests;
