//! The watcher's decisions, as a pure machine: events in, actions out, time and chance as arguments.
//!
//! Owns: which vault is read when, which claim is settled when, and how long to wait after a failure.
//! Must not: read a clock, talk to a ledger, or settle on anything but a fresh look.
//!
//! ```text
//! a claim comes ─> look ─> nothing due: rest until a better claim comes
//!                   │  ├─> due, no reason yet: look again after an interval
//!                   │  └─> due, and released / worth it / draining ─> settle ─┐
//!                   └<── whatever became of it, the next step is a look <─────┘
//! ```
//!
//! Invariants, held by the tests: at most one settlement under way for a channel; none without a look
//! since the last one ended; after a failure the pauses grow, but never so far that fewer than a few
//! attempts are left before the consumer may take its money back.

use std::collections::BTreeMap;

use cocoon_protocol::channel::{Allocation, ChannelId};
use cocoon_protocol::identity::{NodeId, TonAddress};
use cocoon_protocol::units::{Millis, NanoTon, Timestamp};

use super::Claim;

/// Looks within one release delay: a request is seen when most of the delay is still left.
const LOOKS_PER_DELAY: u64 = 12;
/// Attempts that must fit into what is left until the money is gone.
const ATTEMPTS_LEFT: u64 = 8;
/// Pauses are not shorter than this: a ledger has a block every 0.4 s.
const SHORTEST: Millis = Millis::new(500);
/// No pause is doubled more often than this; longer ones are cut by [`Rules::longest_pause`].
const DOUBLINGS: u32 = 16;

/// What an owner decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Longest time between two looks at a vault that owes something. Shorter where the vault's
    /// release delay is short.
    pub interval: Millis,
    /// Settle from this much on, without a release; `None` leaves that to others.
    pub threshold: Option<NanoTon>,
    /// Less than this is not worth its settlement, whatever happens.
    pub least: NanoTon,
    /// First pause after a failure; each further one is twice as long.
    pub first_pause: Millis,
    /// Longest pause after a failure.
    pub longest_pause: Millis,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            interval: Millis::from_secs(30 * 60),
            threshold: None,
            // What the contract itself refuses as too small.
            least: NanoTon::from_nano(1),
            first_pause: Millis::from_secs(1),
            longest_pause: Millis::from_secs(5 * 60),
        }
    }
}

/// A vault as the ledger showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The ledger's time.
    pub as_of: Timestamp,
    /// How long the consumer has to wait for what it takes back.
    pub release_delay: Millis,
    /// What is set aside for whom.
    pub allocations: BTreeMap<NodeId, Allocation>,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a claim, perhaps a better one than before.
    Claim(Claim),
    /// A vault was read; `None` when there is none at the address.
    Read {
        /// Which.
        vault: TonAddress,
        /// What was there.
        seen: Option<Seen>,
    },
    /// A vault could not be read.
    ReadFailed {
        /// Which.
        vault: TonAddress,
    },
    /// A settlement ended well, or with an error after which nobody needs to guess: the next look
    /// says what is paid.
    Settled {
        /// Whose.
        channel: ChannelId,
    },
    /// A settlement failed or is not confirmed.
    SettleFailed {
        /// Whose.
        channel: ChannelId,
        /// The contract finds the amount too small: trying again is of no use before it grows.
        too_small: bool,
    },
    /// Settle whatever is worth it now: the guard ends.
    Drain,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read a vault, and answer with [`Event::Read`] or [`Event::ReadFailed`].
    Read(TonAddress),
    /// Show a claim to the contract, and answer with [`Event::Settled`] or [`Event::SettleFailed`].
    Settle(Box<Claim>),
}

#[derive(Debug)]
struct Guarded {
    claim: Claim,
    /// What the settlement under way is worth at most; a better claim may have come since.
    settling: Option<NanoTon>,
    /// Up to here the contract said that it is too small.
    too_small: NanoTon,
    /// Nothing is due as far as the last look shows.
    at_rest: bool,
}

#[derive(Debug, Default)]
struct Vault {
    reading: bool,
    /// Failures since the last success, for the pauses.
    failures: u32,
    next_look: Option<Timestamp>,
    /// When the first of its claims becomes worthless, as far as is known, in local time.
    deadline: Option<Timestamp>,
    /// The best claim of every channel.
    guarded: BTreeMap<ChannelId, Guarded>,
}

impl Vault {
    fn settling(&self) -> bool {
        self.guarded.values().any(|it| it.settling.is_some())
    }

    fn at_rest(&self) -> bool {
        self.guarded.values().all(|it| it.at_rest)
    }
}

/// The watcher.
#[derive(Debug)]
pub struct Watcher {
    rules: Rules,
    vaults: BTreeMap<TonAddress, Vault>,
    draining: bool,
}

impl Watcher {
    /// A watcher that guards nothing yet.
    pub const fn new(rules: Rules) -> Self {
        Self { rules, vaults: BTreeMap::new(), draining: false }
    }

    /// When [`Watcher::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let waits = self.vaults.values().filter(|it| !it.reading && !it.settling());
        waits.filter_map(|it| it.next_look).min()
    }

    /// Whether nothing is under way, and nothing due that will be settled by itself.
    pub fn is_idle(&self) -> bool {
        self.vaults.values().all(|it| !it.reading && !it.settling() && it.at_rest())
    }

    /// The claims that are guarded.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.vaults.values().flat_map(|it| it.guarded.values()).map(|it| &it.claim)
    }

    /// Looks at every vault whose time has come.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Vec<Action> {
        let due = self.vaults.iter_mut().filter(|(_, vault)| {
            !vault.reading && !vault.settling() && vault.next_look.is_some_and(|at| at <= now)
        });
        due.map(|(address, vault)| {
            vault.reading = true;
            Action::Read(*address)
        })
        .collect()
    }

    /// Takes an event. `draw` is a random number, so that many watchers of one failed server do not
    /// come back together.
    pub fn handle(&mut self, event: Event, now: Timestamp, draw: u64) -> Vec<Action> {
        match event {
            Event::Claim(claim) => self.claim(claim, now),
            Event::Read { vault, seen } => return self.read(vault, seen.as_ref(), now, draw),
            Event::ReadFailed { vault } => {
                if let Some(vault) = self.vaults.get_mut(&vault) {
                    vault.reading = false;
                    fail(vault, &self.rules, now, draw);
                }
            }
            Event::Settled { channel } => {
                if let Some(vault) = self.vaults.get_mut(&channel.vault) {
                    end(vault, channel);
                    vault.failures = 0;
                    vault.next_look = Some(now);
                }
            }
            Event::SettleFailed { channel, too_small } => {
                let Some(vault) = self.vaults.get_mut(&channel.vault) else { return Vec::new() };
                let worth = end(vault, channel);
                if let Some(guarded) = vault.guarded.get_mut(&channel).filter(|_| too_small) {
                    guarded.too_small = worth;
                }
                fail(vault, &self.rules, now, draw);
            }
            Event::Drain => {
                self.draining = true;
                for vault in self.vaults.values_mut().filter(|it| !it.at_rest()) {
                    vault.next_look = Some(now);
                }
            }
        }
        self.handle_timeout(now)
    }

    fn claim(&mut self, claim: Claim, now: Timestamp) {
        let channel = claim.channel();
        let vault = self.vaults.entry(channel.vault).or_default();
        let known = vault.guarded.get_mut(&channel);
        match known {
            Some(known) => {
                let (new, old) = (&claim.voucher.voucher, &known.claim.voucher.voucher);
                if new.cumulative <= old.cumulative {
                    return;
                }
                known.claim = claim;
                if !known.at_rest {
                    // It is looked at anyhow; a stream of vouchers is no reason to look more often.
                    return;
                }
                known.at_rest = false;
            }
            None => {
                let too_small = NanoTon::ZERO;
                let guarded = Guarded { claim, settling: None, too_small, at_rest: false };
                vault.guarded.insert(channel, guarded);
            }
        }
        // After failures the pause holds for new claims too.
        if vault.failures == 0 {
            vault.next_look = Some(now);
        }
    }

    fn read(
        &mut self,
        address: TonAddress,
        seen: Option<&Seen>,
        now: Timestamp,
        draw: u64,
    ) -> Vec<Action> {
        let (rules, draining) = (self.rules, self.draining);
        let Some(vault) = self.vaults.get_mut(&address) else { return Vec::new() };
        vault.reading = false;
        vault.deadline = None;
        let mut actions = Vec::new();
        for (channel, guarded) in &mut vault.guarded {
            let allocation = seen.and_then(|seen| seen.allocations.get(&channel.provider));
            let allocation = allocation.filter(|it| it.epoch == channel.epoch);
            let (Some(seen), Some(allocation)) = (seen, allocation) else {
                // Gone, or not there yet on a server that is behind: looked at again, now and then.
                guarded.at_rest = false;
                continue;
            };
            let worth = guarded.claim.voucher.voucher.cumulative.min(allocation.limit);
            let due = worth.saturating_sub(allocation.paid);
            // A promise beyond the limit may be covered later, so only a whole one is at rest. Too
            // small stays too small: there only a better claim, or a larger limit, ends the rest.
            let whole = guarded.claim.voucher.voucher.cumulative;
            let too_small = worth <= guarded.too_small;
            guarded.at_rest = allocation.paid >= whole || (too_small && worth == whole);
            if due == NanoTon::ZERO || due < rules.least || too_small {
                continue;
            }
            let left = allocation.unlock_at.map(|at| at.since(seen.as_of));
            let in_time = left != Some(Millis::new(0));
            if let Some(left) = left.filter(|_| in_time) {
                let deadline = now.after(left);
                let earlier = vault.deadline.map_or(deadline, |known| known.min(deadline));
                vault.deadline = Some(earlier);
            }
            let worth_it = rules.threshold.is_some_and(|threshold| due >= threshold);
            if in_time && guarded.settling.is_none() && (left.is_some() || worth_it || draining) {
                guarded.settling = Some(worth);
                actions.push(Action::Settle(Box::new(guarded.claim.clone())));
            }
        }
        // While settlements fail, a successful look is no success.
        if actions.is_empty() {
            vault.failures = 0;
        }
        vault.next_look = (!vault.at_rest()).then(|| {
            let delay = seen.map_or(rules.interval, |it| divide(it.release_delay, LOOKS_PER_DELAY));
            let pause = rules.interval.min(delay).max(SHORTEST);
            now.after(jitter(pause, draw))
        });
        actions
    }
}

fn divide(length: Millis, by: u64) -> Millis {
    Millis::new(length.get().checked_div(by).unwrap_or(0))
}

/// Between half of it and all of it.
fn jitter(pause: Millis, draw: u64) -> Millis {
    let half = pause.get() / 2;
    Millis::new(half.saturating_add(draw.checked_rem(half.saturating_add(1)).unwrap_or(0)))
}

/// Ends a settlement; what it was worth at most.
fn end(vault: &mut Vault, channel: ChannelId) -> NanoTon {
    let guarded = vault.guarded.get_mut(&channel);
    guarded.and_then(|guarded| guarded.settling.take()).unwrap_or(NanoTon::ZERO)
}

/// Plans the next look after a failure.
fn fail(vault: &mut Vault, rules: &Rules, now: Timestamp, draw: u64) {
    let factor = 1_u64.checked_shl(vault.failures.min(DOUBLINGS)).unwrap_or(u64::MAX);
    vault.failures = vault.failures.saturating_add(1);
    let pause = Millis::new(rules.first_pause.get().saturating_mul(factor));
    let pause = pause.min(rules.longest_pause);
    let left = vault.deadline.filter(|deadline| *deadline > now);
    let pause =
        left.map_or(pause, |deadline| pause.min(divide(deadline.since(now), ATTEMPTS_LEFT)));
    vault.next_look = Some(now.after(jitter(pause.max(SHORTEST), draw)));
}
