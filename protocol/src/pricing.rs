//! What a provider asks: the owner's prices, and how they move with demand.
//!
//! Owns: the level of prices, the port of a policy that moves it, and the policies. Must not: look
//! at other providers' offers, read a clock, or know a token's cost.
//!
//! A policy moves one number, the level, in parts per million of the owner's prices. So all models
//! of a provider move together, the ratio of prompt to completion stays the owner's, and a price of
//! a few nanoTON does not get stuck in its own rounding.

use std::fmt;

use crate::units::{Millis, PricePerMillion, Prices, Timestamp};

/// Parts that make a whole in [`Level`].
const WHOLE: u32 = 1_000_000;

/// Prices in relation to the owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u32);

impl Level {
    /// The owner's prices as they are.
    pub const OWNER: Self = Self(WHOLE);

    /// In parts per million of the owner's prices.
    pub const fn from_parts(parts: u32) -> Self {
        Self(parts)
    }

    /// In parts per million of the owner's prices.
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// The owner's prices at this level, rounded up; as high as the type goes where they do not fit.
    #[must_use]
    pub fn apply(self, owner: Prices) -> Prices {
        let scaled = |price: PricePerMillion| {
            let product = u128::from(price.as_nano()).saturating_mul(u128::from(self.0));
            let scaled = product.div_ceil(u128::from(WHOLE));
            PricePerMillion::from_nano(u64::try_from(scaled).unwrap_or(u64::MAX))
        };
        Prices { prompt: scaled(owner.prompt), completion: scaled(owner.completion) }
    }
}

/// How busy a provider was over a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utilisation {
    /// The share of its places that was taken, on average over the time, in parts per thousand.
    pub permille: u32,
    /// How long the time is.
    pub over: Millis,
}

/// How a provider's prices move. Pure: the same history gives the same prices.
pub trait Policy: fmt::Debug + Send + Sync {
    /// The level that follows from the present one and how busy the provider was at it.
    fn next(&self, level: Level, seen: Utilisation) -> Level;

    /// How often the level is looked at; `None` when it never moves.
    fn review_every(&self) -> Option<Millis>;
}

/// The owner's prices, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fixed;

impl Policy for Fixed {
    fn next(&self, _: Level, _: Utilisation) -> Level {
        Level::OWNER
    }

    fn review_every(&self) -> Option<Millis> {
        None
    }
}

/// Prices that rise while a provider is busy and fall while it idles, within the owner's bounds.
///
/// Above `target` the level rises, below it falls, in proportion to the distance, by at most
/// `step_permille` of itself a minute. So a short burst moves little, a price war ends at the
/// owner's floor, and no consumer sees a price jump between two jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adaptive {
    /// The lowest level.
    pub floor: Level,
    /// The highest level.
    pub ceiling: Level,
    /// The utilisation at which prices stand still, in parts per thousand.
    pub target_permille: u32,
    /// The most that the level moves in a minute, in parts per thousand of itself.
    pub step_permille: u32,
    /// How often it is looked at.
    pub review_every: Millis,
}

impl Default for Adaptive {
    /// Half to four times the owner's prices, still at 60 % utilisation, at most 5 % a minute: a
    /// provider that is overrun doubles its prices in a quarter of an hour, well within the time
    /// that demand stays high in a day's peak, and long beside a job.
    fn default() -> Self {
        Self {
            floor: Level(500_000),
            ceiling: Level(4_000_000),
            target_permille: 600,
            step_permille: 50,
            review_every: Millis::from_secs(60),
        }
    }
}

impl Adaptive {
    /// As by default, between these prices: the owner's own is where it begins. `own`, `least` and
    /// `most` are of the same kind of token; a price of nothing stays nothing.
    pub fn within(own: PricePerMillion, least: PricePerMillion, most: PricePerMillion) -> Self {
        let parts = |bound: PricePerMillion, up: bool| {
            let scaled = u128::from(bound.as_nano()).saturating_mul(u128::from(WHOLE));
            let own = u128::from(own.as_nano());
            let whole = scaled.checked_div(own).unwrap_or_else(|| u128::from(WHOLE));
            let more = u128::from(up && scaled.checked_rem(own).is_some_and(|rest| rest > 0));
            Level(u32::try_from(whole.saturating_add(more)).unwrap_or(u32::MAX))
        };
        // Inwards, so that a price that is rounded up is still within the bounds.
        let (floor, ceiling) = (parts(least, true), parts(most, false));
        Self {
            floor: floor.min(Level::OWNER),
            ceiling: ceiling.max(Level::OWNER),
            ..Self::default()
        }
    }
}

impl Policy for Adaptive {
    fn next(&self, level: Level, seen: Utilisation) -> Level {
        let (floor, ceiling) = (self.floor.0, self.ceiling.0.max(self.floor.0));
        let present = u64::from(level.0.clamp(floor, ceiling));
        let (seen_permille, target) = (seen.permille.min(1_000), self.target_permille.min(1_000));
        let rises = seen_permille >= target;
        // The whole way from the target to full, or to empty, stands for the whole step.
        let way = if rises { 1_000_u32.saturating_sub(target) } else { target };
        let distance = u64::from(seen_permille.abs_diff(target));
        // More than a minute unseen counts as a minute: a suspended machine does not jump.
        let over = seen.over.get().min(MINUTE);
        let moved = present
            .saturating_mul(u64::from(self.step_permille))
            .saturating_mul(distance)
            .checked_div(u64::from(way.max(1)))
            .and_then(|it| it.saturating_mul(over).checked_div(MINUTE.saturating_mul(1_000)))
            .unwrap_or(0);
        let next =
            if rises { present.saturating_add(moved) } else { present.saturating_sub(moved) };
        let next = next.clamp(u64::from(floor), u64::from(ceiling));
        Level(u32::try_from(next).unwrap_or(ceiling))
    }

    fn review_every(&self) -> Option<Millis> {
        Some(self.review_every)
    }
}

/// A minute in milliseconds.
const MINUTE: u64 = 60_000;

/// Counts how busy a provider is, between two reviews of its prices.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    taken_permille: u64,
    since: Timestamp,
    changed: Timestamp,
    permille_millis: u64,
}

impl Meter {
    /// Idle from now on.
    pub const fn new(now: Timestamp) -> Self {
        Self { taken_permille: 0, since: now, changed: now, permille_millis: 0 }
    }

    /// So many places are taken from now on.
    pub fn taken(&mut self, taken: usize, places: usize, now: Timestamp) {
        self.run(now);
        let share = taken.saturating_mul(1_000).checked_div(places).unwrap_or(1_000).min(1_000);
        self.taken_permille = u64::try_from(share).unwrap_or(1_000);
    }

    /// How busy it was since the last reading, or since it began.
    pub fn read(&mut self, now: Timestamp) -> Utilisation {
        self.run(now);
        let over = now.since(self.since);
        let mean = self.permille_millis.checked_div(over.get()).unwrap_or(self.taken_permille);
        self.since = now;
        self.permille_millis = 0;
        Utilisation { permille: u32::try_from(mean).unwrap_or(1_000).min(1_000), over }
    }

    fn run(&mut self, now: Timestamp) {
        let passed = now.since(self.changed).get().saturating_mul(self.taken_permille);
        self.permille_millis = self.permille_millis.saturating_add(passed);
        self.changed = self.changed.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

    fn seen(permille: u32) -> Utilisation {
        Utilisation { permille, over: Millis::from_secs(60) }
    }

    fn after(minutes: u32, permille: u32) -> Level {
        let policy = Adaptive::default();
        (0..minutes).fold(Level::OWNER, |level, _| policy.next(level, seen(permille)))
    }

    #[test]
    fn fixed_prices_stay_the_owners() {
        assert_eq!(Fixed.next(Level::OWNER, seen(1_000)), Level::OWNER);
        assert_eq!(Fixed.review_every(), None);
    }

    #[test]
    fn an_overrun_provider_doubles_in_a_quarter_of_an_hour_and_ends_at_its_ceiling() {
        assert!((1_900_000..2_200_000).contains(&after(15, 1_000).parts()));
        assert_eq!(after(60, 1_000), Adaptive::default().ceiling);
    }

    #[test]
    fn an_idle_provider_ends_at_its_floor_and_one_at_its_target_stands_still() {
        assert_eq!(after(60, 0), Adaptive::default().floor);
        assert_eq!(after(60, 600), Level::OWNER);
    }

    #[test]
    fn the_smallest_price_is_never_lost_to_rounding() {
        let one =
            Prices { prompt: PricePerMillion::FREE, completion: PricePerMillion::from_nano(1) };
        let low = Level::from_parts(500_000).apply(one);
        assert_eq!(low.completion, PricePerMillion::from_nano(1));
        assert_eq!(low.prompt, PricePerMillion::FREE, "what is free stays free");
    }

    #[test]
    fn utilisation_is_the_mean_over_time() {
        let at = |secs| NOW.after(Millis::from_secs(secs));
        let mut meter = Meter::new(NOW);
        meter.taken(2, 4, at(30));
        meter.taken(4, 4, at(60));
        let seen = meter.read(at(90));
        assert_eq!(seen, Utilisation { permille: 500, over: Millis::from_secs(90) });
        assert_eq!(meter.read(at(100)).permille, 1_000);
        assert_eq!(Meter::new(NOW).read(NOW).permille, 0);
    }

    fn policies() -> impl Strategy<Value = Adaptive> {
        let parts = 1_u32..10_000_000;
        (parts.clone(), parts, 0_u32..1_100, 0_u32..1_000, 1_u64..600).prop_map(
            |(one, other, target_permille, step_permille, secs)| Adaptive {
                floor: Level(one.min(other)),
                ceiling: Level(one.max(other)),
                target_permille,
                step_permille,
                review_every: Millis::from_secs(secs),
            },
        )
    }

    proptest! {
        #[test]
        fn prices_never_leave_the_bounds_that_the_owner_has_set(
            own in 1_u64..1_000_000_000_000, least: u64, most: u64,
            seen in prop::collection::vec((0_u32..1_200, 0_u64..200_000), 0..60),
        ) {
            let price = PricePerMillion::from_nano;
            let (least, most) = (least % (own + 1), own.saturating_add(most % (own * 8)));
            let policy = Adaptive::within(price(own), price(least), price(most));
            let owner = Prices { prompt: PricePerMillion::FREE, completion: price(own) };
            let mut level = Level::OWNER;
            prop_assert_eq!(level.apply(owner), owner, "it begins at the owner's own");
            for (permille, millis) in seen {
                level = policy.next(level, Utilisation { permille, over: Millis::new(millis) });
                let asked = level.apply(owner).completion.as_nano();
                prop_assert!((least..=most).contains(&asked), "{asked} of {least} to {most}");
            }
        }

        #[test]
        fn steady_demand_moves_prices_one_way_only(policy in policies(), start: u32, permille in 0_u32..=1_000) {
            let start = start.clamp(policy.floor.0, policy.ceiling.0);
            let mut levels = vec![Level(start)];
            for _ in 0..50 {
                levels.push(policy.next(levels[levels.len() - 1], seen(permille)));
            }
            let rises = levels.windows(2).all(|pair| pair[0] <= pair[1]);
            let falls = levels.windows(2).all(|pair| pair[0] >= pair[1]);
            prop_assert!(rises || falls, "it turns without a reason: {levels:?}");
        }

        #[test]
        fn a_level_never_leaves_the_owners_bounds(policy in policies(), start: u32, permille: u32, millis: u64) {
            let next = policy.next(Level(start), Utilisation { permille, over: Millis::new(millis) });
            prop_assert!(policy.floor <= next && next <= policy.ceiling);
        }

        #[test]
        fn a_level_never_moves_faster_than_its_step(policy in policies(), start: u32, permille: u32, millis: u64) {
            let start = start.clamp(policy.floor.0, policy.ceiling.0);
            let next = policy.next(Level(start), Utilisation { permille, over: Millis::new(millis) });
            let most = u64::from(start) * u64::from(policy.step_permille) / 1_000;
            prop_assert!(u64::from(next.0.abs_diff(start)) <= most);
        }

        #[test]
        fn the_busier_the_dearer(policy in policies(), start: u32, one in 0_u32..=1_000, other in 0_u32..=1_000) {
            let next = |permille| policy.next(Level(start), seen(permille));
            prop_assert!(next(one.min(other)) <= next(one.max(other)));
        }

        #[test]
        fn utilisation_stays_within_its_places(changes in prop::collection::vec((0_usize..40, 0_usize..20, 0_u64..100_000), 0..40)) {
            let (mut meter, mut now) = (Meter::new(NOW), NOW);
            for (taken, places, wait) in changes {
                now = now.after(Millis::new(wait));
                meter.taken(taken, places, now);
            }
            prop_assert!(meter.read(now).permille <= 1_000);
        }
    }
}
