//! A consumer's warm tables, by the rules of the overlay (`node/overlay/src/warm.rs`), in little room.
//!
//! Owns: whom to contact, whose offers hold, when to look again, who makes room for whom.
//! Must not: know how long anything takes; the world answers with later calls.
//!
//! What differs from the overlay's own tables is what does not change an outcome: keep-alives are
//! not sent as events (a provider that lives is heard; one that is gone is reported lost when its
//! silence or its closed connection would be noticed), and an offer's expiry never comes before.

use crate::draws::Draws;

/// Times in a table: whole milliseconds since the start.
pub(crate) type Millis = u32;

/// As the overlay's limits have them.
pub(crate) const WARM: usize = 8;
const EXPLORE_EVERY: Millis = 300_000;
const EXPLORE_COUNT: usize = 2;
const LOOK_UP_MIN: Millis = 1_000;
const LOOK_UP_MAX_EMPTY: Millis = 15_000;
const LOOK_UP_MAX: Millis = 300_000;
const CONTACT_TIMEOUT: Millis = 15_000;
const CONTACT_PAUSE: Millis = 30_000;
const CANDIDATES: usize = 64;
/// Never.
const NEVER: Millis = Millis::MAX;

/// What a table wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask the index for providers of the model.
    LookUp(u16),
    /// Open a control stream to the host.
    Contact(u32),
    /// The provider's offer is no longer kept current: it was warm.
    Gone(u32),
    /// The provider is let go: its control stream closes.
    Leave(u32),
}

/// A model that is wanted.
#[derive(Debug)]
struct Want {
    model: u16,
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
    /// Models that it offers, one bit each; none while it is not warm.
    offers: u32,
    since: Millis,
    /// In microseconds; zero while it is not known.
    round_trip: u32,
    /// The model that it was contacted for.
    sought: u16,
}

impl Known {
    const fn is_warm(&self) -> bool {
        self.offers != 0
    }

    const fn has(&self, model: u16) -> bool {
        self.offers & bit(model) != 0
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

/// A model's bit. The world has at most 32 models.
pub(crate) const fn bit(model: u16) -> u32 {
    1 << (model & 31)
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
    /// Starts to keep a table for a model; looks for providers at once.
    pub(crate) fn want(&mut self, model: u16, now: Millis, out: &mut Vec<Action>) {
        if self.wants.iter().any(|want| want.model == model) {
            return;
        }
        self.wants.reserve_exact(1);
        self.wants.push(Want {
            model,
            looking: true,
            exploring: false,
            pause: LOOK_UP_MIN,
            look_up_at: NEVER,
            explore_at: now.saturating_add(EXPLORE_EVERY),
            candidates: Vec::new(),
        });
        out.push(Action::LookUp(model));
    }

    /// A look-up has ended with these providers.
    pub(crate) fn found(
        &mut self,
        model: u16,
        found: &[u32],
        now: Millis,
        draws: &mut Draws,
        out: &mut Vec<Action>,
    ) {
        self.paused.retain(|(_, until)| *until > now);
        let Self { wants, known, paused, .. } = self;
        let Some(want) = wants.iter_mut().find(|want| want.model == model) else { return };
        for host in found {
            let is_known = known.iter().any(|it| it.host == *host)
                || paused.iter().any(|(it, _)| it == host)
                || want.candidates.contains(host);
            if !is_known && want.candidates.len() < CANDIDATES {
                want.candidates.push(*host);
            }
        }
        self.fill(model, now, draws, out);
        self.look_up_ended(model, now);
    }

    fn look_up_ended(&mut self, model: u16, now: Millis) {
        let warm = self.warm(model);
        let Some(want) = self.want_mut(model) else { return };
        want.looking = false;
        if warm >= WARM {
            want.pause = LOOK_UP_MIN;
            want.look_up_at = NEVER;
            return;
        }
        let longest = if warm == 0 { LOOK_UP_MAX_EMPTY } else { LOOK_UP_MAX };
        want.pause = want.pause.min(longest);
        want.look_up_at = now.saturating_add(want.pause);
        want.pause = want.pause.saturating_mul(2);
    }

    /// A contacted provider's offer came. False when it is of no interest, or no longer.
    pub(crate) fn offer(&mut self, host: u32, offers: u32, round_trip: u32) -> bool {
        let wanted = self.wants.iter().fold(0, |mask, want| mask | bit(want.model));
        let Some(known) = self.known.iter_mut().find(|known| known.host == host) else {
            return false;
        };
        if offers & wanted == 0 {
            return false;
        }
        known.offers = offers & wanted;
        known.round_trip = round_trip;
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
        let offers = self.known.iter().find(|known| known.host == host).map_or(0, |it| it.offers);
        for at in 0..self.wants.len() {
            let Some(model) = self.wants.get(at).map(|want| want.model) else { break };
            if offers & bit(model) == 0 {
                continue;
            }
            while self.warm(model) > WARM {
                let spare = self.known.iter().filter(|known| {
                    known.has(model) && !is_protected(known.host) && self.is_spare(known)
                });
                // The last of the worst, as the overlay's own `max_by_key` has it.
                let worst = spare.max_by_key(|known| known.badness(now)).map(|known| known.host);
                let Some(worst) = worst else { break };
                self.drop_known(worst, out);
                if let Some(want) = self.wants.get_mut(at) {
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
        for at in 0..self.wants.len() {
            let Some(model) = self.wants.get(at).map(|want| want.model) else { break };
            if known.sought == model || known.has(model) {
                self.fill(model, now, draws, out);
                self.look_again(model, now);
            }
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.alarm = None;
        for at in 0..self.wants.len() {
            let Some(model) = self.wants.get(at).map(|want| want.model) else { break };
            let full = self.warm(model) >= WARM;
            let Some(want) = self.wants.get_mut(at) else { break };
            if want.explore_at <= now {
                want.explore_at = now.saturating_add(EXPLORE_EVERY);
                want.exploring = full;
                want.candidates = Vec::new();
                want.look_up_at = now;
            }
            if !want.looking && want.look_up_at <= now {
                want.looking = true;
                want.look_up_at = NEVER;
                out.push(Action::LookUp(model));
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

    fn want_mut(&mut self, model: u16) -> Option<&mut Want> {
        self.wants.iter_mut().find(|want| want.model == model)
    }

    /// Providers of the model whose offers hold.
    pub(crate) fn warm(&self, model: u16) -> usize {
        self.known.iter().filter(|known| known.has(model)).count()
    }

    fn taken(&self, model: u16) -> usize {
        let takes =
            |known: &&Known| known.has(model) || (!known.is_warm() && known.sought == model);
        self.known.iter().filter(takes).count()
    }

    fn fill(&mut self, model: u16, now: Millis, draws: &mut Draws, out: &mut Vec<Action>) {
        let taken = self.taken(model);
        let Self { wants, known, .. } = self;
        let Some(want) = wants.iter_mut().find(|want| want.model == model) else { return };
        let extra = if want.exploring { EXPLORE_COUNT } else { 0 };
        let mut places = (WARM + extra).saturating_sub(taken);
        while places > 0 && !want.candidates.is_empty() {
            let host = want.candidates.swap_remove(draws.place(want.candidates.len()));
            if known.iter().any(|it| it.host == host) {
                continue;
            }
            if known.len() == known.capacity() {
                known.reserve_exact(2);
            }
            known.push(Known { host, offers: 0, since: now, round_trip: 0, sought: model });
            out.push(Action::Contact(host));
            places -= 1;
        }
        if want.candidates.is_empty() {
            want.candidates = Vec::new();
        }
    }

    fn drop_known(&mut self, host: u32, out: &mut Vec<Action>) {
        let Some(at) = self.known.iter().position(|known| known.host == host) else { return };
        // The order stays that of contact: `badness` is compared in it.
        let known = self.known.remove(at);
        if known.is_warm() {
            out.push(Action::Gone(host));
        }
        out.push(Action::Leave(host));
    }

    fn is_spare(&self, known: &Known) -> bool {
        let mut served = self.wants.iter().filter(|want| known.has(want.model));
        served.all(|want| self.warm(want.model) > WARM)
    }

    fn look_again(&mut self, model: u16, now: Millis) {
        if self.taken(model) >= WARM {
            return;
        }
        let empty = self.warm(model) == 0;
        let Some(want) = self.want_mut(model) else { return };
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
    use proptest::prelude::*;

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
                    0 => tables.want(u16::try_from(host % 3).unwrap(), now, &mut out),
                    1 => {
                        let found: Vec<_> = (host..host + 20).collect();
                        tables.found(u16::try_from(host % 3).unwrap(), &found, now, &mut draws, &mut out);
                    }
                    2 => {
                        if tables.offer(host, bit(u16::try_from(host % 3).unwrap()), host + 1) {
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
                for model in 0..3 {
                    prop_assert!(tables.warm(model) <= WARM + 1, "one is protected");
                }
                let known: std::collections::BTreeSet<_> =
                    tables.known.iter().filter(|it| it.is_warm()).map(|it| it.host).collect();
                prop_assert_eq!(&known, &warm);
            }
        }
    }
}
