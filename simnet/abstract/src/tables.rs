//! A consumer's warm tables, by the rules of the overlay (`node/overlay/src/warm.rs`), in little room.
//!
//! Owns: whom to contact, whose offers hold, when to look again, who makes room for whom.
//! Must not: know how long anything takes; the world answers with later calls.
//!
//! What differs from the overlay's own tables is what does not change an outcome: keep-alives are
//! not sent as events (a provider that lives is heard; one that is gone is reported lost when its
//! silence or its closed connection would be noticed), and an offer's expiry never comes before.

mod view;

use crate::directory::{Key, Range};
use crate::draws::Draws;

/// Times in a table: whole milliseconds since the start.
pub(crate) type Millis = u32;

/// As the overlay's limits have them.
pub(crate) const WARM: usize = 8;
const EXPLORE_EVERY: Millis = 300_000;
const EXPLORE_COUNT: usize = 2;
const LOOK_UP_MIN: Millis = 1_000;
const LOOK_UP_MAX_EMPTY: Millis = 15_000;
const LOOK_UP_SETTLED: Millis = 30_000;
const LOOK_UP_MAX: Millis = 300_000;
const CONTACT_TIMEOUT: Millis = 15_000;
const CONTACT_PAUSE: Millis = 30_000;
const AVOID: Millis = 600_000;
const CANDIDATES: usize = 64;
/// Tables of one consumer: the bits of [`Known::sought`]. The overlay keeps 256.
const TABLES: usize = 32;
/// Never.
const NEVER: Millis = Millis::MAX;

/// What a table wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask the index for the providers under the key.
    LookUp(Key),
    /// Open a control stream to the host.
    Contact(u32),
    /// The provider's offer is no longer kept current: it was warm.
    Gone(u32),
    /// The provider is let go: its control stream closes.
    Leave(u32),
}

/// Providers that are wanted.
#[derive(Debug)]
struct Want {
    key: Key,
    looking: bool,
    exploring: bool,
    pause: Millis,
    look_up_at: Millis,
    explore_at: Millis,
    candidates: Vec<u32>,
}

/// A provider in a table, or on the way into one. 20 bytes.
#[derive(Clone, Copy, Debug)]
struct Known {
    host: u32,
    /// The tables that it stands in, or will if its offer is as the index has it: a bit for each of
    /// the consumer's, in their order. A consumer keeps at most 32.
    sought: u32,
    since: Millis,
    /// In microseconds; zero while it is not known.
    round_trip: u32,
    is_warm: bool,
}

impl Known {
    const fn is_in(&self, table: usize) -> bool {
        self.sought & bit(table) != 0
    }

    /// How dispensable it is: the longer its round trip, the more.
    fn badness(&self, now: Millis) -> u32 {
        let is_new = now.saturating_sub(self.since) < CONTACT_TIMEOUT * 2;
        match self.round_trip {
            0 if is_new => 0,
            0 => u32::MAX,
            known => known,
        }
    }
}

const fn bit(table: usize) -> u32 {
    1 << (table & 31)
}

/// All warm tables of a consumer.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    wants: Vec<Want>,
    known: Vec<Known>,
    paused: Vec<(u32, Millis)>,
    /// The alarm that is set, and its generation.
    alarm: Option<Millis>,
    pub(crate) generation: u32,
}

impl Tables {
    /// Starts to keep a table; looks for providers at once.
    pub(crate) fn want(&mut self, key: Key, now: Millis, out: &mut Vec<Action>) {
        if self.wants.len() >= TABLES || self.place(key).is_some() {
            return;
        }
        self.wants.reserve_exact(1);
        self.wants.push(Want {
            key,
            looking: true,
            exploring: false,
            pause: LOOK_UP_MIN,
            look_up_at: NEVER,
            explore_at: now.saturating_add(EXPLORE_EVERY),
            candidates: Vec::new(),
        });
        out.push(Action::LookUp(key));
    }

    /// A look-up has ended with these providers.
    pub(crate) fn found(
        &mut self,
        key: Key,
        found: &[u32],
        now: Millis,
        draws: &mut Draws,
        out: &mut Vec<Action>,
    ) {
        self.paused.retain(|(_, until)| *until > now);
        let Some(table) = self.place(key) else { return };
        let Self { wants, known, paused, .. } = self;
        let Some(want) = wants.get_mut(table) else { return };
        let mut learned = false;
        for host in found {
            let useless = known.iter().any(|it| it.host == *host && it.is_in(table))
                || paused.iter().any(|(it, _)| it == host)
                || want.candidates.contains(host);
            if !useless && want.candidates.len() < CANDIDATES {
                want.candidates.push(*host);
                learned = true;
            }
        }
        self.fill(table, now, draws, out);
        self.look_up_ended(table, learned, now);
    }

    fn look_up_ended(&mut self, table: usize, learned: bool, now: Millis) {
        let warm = self.warm(table);
        let Some(want) = self.wants.get_mut(table) else { return };
        want.looking = false;
        if warm >= WARM {
            want.pause = LOOK_UP_MIN;
            want.look_up_at = NEVER;
            return;
        }
        let longest = if warm == 0 { LOOK_UP_MAX_EMPTY } else { LOOK_UP_MAX };
        if warm > 0 && !learned {
            want.pause = want.pause.max(LOOK_UP_SETTLED);
        }
        want.pause = want.pause.min(longest);
        want.look_up_at = now.saturating_add(want.pause);
        want.pause = want.pause.saturating_mul(2);
    }

    /// A contacted provider's offer came. False when it is of no interest, or no longer.
    pub(crate) fn offer(&mut self, host: u32, range: Range, now: Millis, round_trip: u32) -> bool {
        let met = self.wants.iter().enumerate().filter(|(_, want)| range.meets(want.key));
        let met = met.fold(0, |mask, (table, _)| mask | bit(table));
        let Some(known) = self.known.iter_mut().find(|known| known.host == host) else {
            return false;
        };
        if known.sought & met == 0 {
            return false;
        }
        let left = known.sought & !met;
        known.sought &= met;
        known.is_warm = true;
        known.round_trip = round_trip;
        for table in (0..self.wants.len()).filter(|table| left & bit(*table) != 0) {
            self.look_again(table, now);
        }
        true
    }

    /// After an offer came: evicts the worst of every table that has more than its places, except
    /// for the protected.
    pub(crate) fn make_room(
        &mut self,
        host: u32,
        now: Millis,
        is_protected: impl Fn(u32) -> bool,
        out: &mut Vec<Action>,
    ) {
        let joined = self.known.iter().find(|known| known.host == host).map_or(0, |it| it.sought);
        for table in (0..self.wants.len()).filter(|table| joined & bit(*table) != 0) {
            while self.warm(table) > WARM {
                let spare = self.known.iter().filter(|known| {
                    known.is_warm && known.is_in(table) && !is_protected(known.host)
                });
                // The last of the worst, as the overlay's own `max_by_key` has it.
                let worst = spare.max_by_key(|known| known.badness(now)).map(|known| known.host);
                let Some(worst) = worst else { break };
                self.remove(worst, table, out);
                if let Some(want) = self.wants.get_mut(table) {
                    want.exploring = false;
                }
            }
        }
    }

    /// A provider could not be reached, or its stream ended.
    pub(crate) fn lost(
        &mut self,
        host: u32,
        now: Millis,
        draws: &mut Draws,
        out: &mut Vec<Action>,
    ) {
        let Some(known) = self.known.iter().find(|known| known.host == host).copied() else {
            return;
        };
        self.paused.push((host, now.saturating_add(CONTACT_PAUSE)));
        self.drop_known(host, out);
        for table in (0..self.wants.len()).filter(|table| known.is_in(*table)) {
            self.fill(table, now, draws, out);
            self.look_again(table, now);
        }
    }

    /// A provider is not what its offer says: others take its places, and it is not contacted again
    /// for long.
    pub(crate) fn avoid(
        &mut self,
        host: u32,
        now: Millis,
        draws: &mut Draws,
        out: &mut Vec<Action>,
    ) {
        self.paused.push((host, now.saturating_add(AVOID)));
        for want in &mut self.wants {
            want.candidates.retain(|candidate| *candidate != host);
        }
        let Some(known) = self.known.iter().find(|known| known.host == host).copied() else {
            return;
        };
        self.drop_known(host, out);
        for table in (0..self.wants.len()).filter(|table| known.is_in(*table)) {
            if let Some(want) = self.wants.get_mut(table) {
                want.pause = LOOK_UP_MIN;
            }
            self.fill(table, now, draws, out);
            self.look_again(table, now);
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.alarm = None;
        for table in 0..self.wants.len() {
            let full = self.warm(table) >= WARM;
            let Some(want) = self.wants.get_mut(table) else { break };
            if want.explore_at <= now {
                want.explore_at = now.saturating_add(EXPLORE_EVERY);
                want.exploring = full;
                want.candidates = Vec::new();
                want.look_up_at = now;
            }
            if !want.looking && want.look_up_at <= now {
                want.looking = true;
                want.look_up_at = NEVER;
                out.push(Action::LookUp(want.key));
            }
        }
    }

    /// When [`Self::tick`] has to be called, if an alarm has to be set for it.
    pub(crate) fn need_alarm(&mut self) -> Option<Millis> {
        let look_ups = self.wants.iter().filter(|want| !want.looking).map(|want| want.look_up_at);
        let due = look_ups.chain(self.wants.iter().map(|want| want.explore_at)).min()?;
        if self.alarm.is_some_and(|set| set <= due) {
            return None;
        }
        self.alarm = Some(due);
        self.generation = self.generation.wrapping_add(1);
        Some(due)
    }

    /// Providers in a table or on the way into one.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = u32> {
        self.known.iter().map(|known| known.host)
    }

    /// Whether a provider is in a table or on the way into one.
    pub(crate) fn knows(&self, host: u32) -> bool {
        self.known.iter().any(|known| known.host == host)
    }

    /// Which of the tables is this key's.
    fn place(&self, key: Key) -> Option<usize> {
        self.wants.iter().position(|want| want.key == key)
    }

    /// Providers of a table whose offers hold.
    fn warm(&self, table: usize) -> usize {
        self.known.iter().filter(|known| known.is_warm && known.is_in(table)).count()
    }

    /// Providers in a table or on the way into it.
    fn taken(&self, table: usize) -> usize {
        self.known.iter().filter(|known| known.is_in(table)).count()
    }

    fn fill(&mut self, table: usize, now: Millis, draws: &mut Draws, out: &mut Vec<Action>) {
        let taken = self.taken(table);
        let Self { wants, known, .. } = self;
        let Some(want) = wants.get_mut(table) else { return };
        let extra = if want.exploring { EXPLORE_COUNT } else { 0 };
        let mut places = (WARM + extra).saturating_sub(taken);
        while places > 0 && !want.candidates.is_empty() {
            let host = want.candidates.swap_remove(draws.place(want.candidates.len()));
            if let Some(at_hand) = known.iter_mut().find(|it| it.host == host) {
                // The index names it under this key as well: its offer meets it.
                if at_hand.is_in(table) {
                    continue;
                }
                at_hand.sought |= bit(table);
            } else {
                if known.len() == known.capacity() {
                    known.reserve_exact(2);
                }
                let (sought, round_trip, is_warm) = (bit(table), 0, false);
                known.push(Known { host, sought, since: now, round_trip, is_warm });
                out.push(Action::Contact(host));
            }
            places -= 1;
        }
        if want.candidates.is_empty() {
            want.candidates = Vec::new();
        }
    }

    /// Takes a provider out of one table; one that stands in no other is let go.
    fn remove(&mut self, host: u32, table: usize, out: &mut Vec<Action>) {
        let Some(known) = self.known.iter_mut().find(|known| known.host == host) else { return };
        known.sought &= !bit(table);
        if known.sought == 0 {
            self.drop_known(host, out);
        }
    }

    fn drop_known(&mut self, host: u32, out: &mut Vec<Action>) {
        let Some(at) = self.known.iter().position(|known| known.host == host) else { return };
        // The order stays that of contact: `badness` is compared in it.
        let known = self.known.remove(at);
        if known.is_warm {
            out.push(Action::Gone(host));
        }
        out.push(Action::Leave(host));
    }

    fn look_again(&mut self, table: usize, now: Millis) {
        if self.taken(table) >= WARM {
            return;
        }
        let empty = self.warm(table) == 0;
        let Some(want) = self.wants.get_mut(table) else { return };
        if empty {
            want.pause = LOOK_UP_MIN;
        }
        if !want.looking {
            want.look_up_at = want.look_up_at.min(now.saturating_add(want.pause));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::attest::Tier;
    use proptest::prelude::*;

    const TIERS: [Tier; 2] = [Tier::Open, Tier::Attested];

    /// One of two models in one of two tiers.
    fn key(host: u32) -> Key {
        let (model, tier) = (u16::try_from(host % 2).unwrap(), TIERS[host as usize / 2 % 2]);
        Key::new(model, tier)
    }

    fn range(host: u32) -> Range {
        Range::new([u16::try_from(host % 2).unwrap(), 2].into_iter(), TIERS[host as usize / 3 % 2])
    }

    proptest! {
        #[test]
        fn tables_are_bounded_and_every_end_goes_out(
            steps in prop::collection::vec((0u8..5, 0u32..40, 0u32..60_000), 1..300),
        ) {
            let mut tables = Tables::default();
            let mut draws = Draws::new([3; 32]);
            let (mut warm, mut now) = (std::collections::BTreeSet::new(), 0);
            for (what, host, pass) in steps {
                let mut out = Vec::new();
                now += pass;
                match what {
                    0 => tables.want(key(host), now, &mut out),
                    1 => {
                        let found: Vec<_> = (host..host + 20).collect();
                        tables.found(key(host), &found, now, &mut draws, &mut out);
                    }
                    2 => {
                        if tables.offer(host, range(host), now, host + 1) {
                            warm.insert(host);
                            tables.make_room(host, now, |it| it == 7, &mut out);
                        } else if tables.knows(host) {
                            tables.lost(host, now, &mut draws, &mut out);
                        }
                    }
                    3 => tables.lost(host, now, &mut draws, &mut out),
                    _ => tables.tick(now, &mut out),
                }
                for action in out {
                    if let Action::Gone(host) = action {
                        prop_assert!(warm.remove(&host), "gone, but never warm");
                    }
                }
                for table in 0..tables.wants.len() {
                    prop_assert!(tables.warm(table) <= WARM + 1, "one is protected");
                }
                prop_assert!(tables.known.iter().all(|it| it.sought != 0));
                let known: std::collections::BTreeSet<_> =
                    tables.known.iter().filter(|it| it.is_warm).map(|it| it.host).collect();
                prop_assert_eq!(&known, &warm);
            }
        }
    }
}
