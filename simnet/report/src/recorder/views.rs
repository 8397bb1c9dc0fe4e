//! What consumers see of the network: whose offers they have, and how long they have none.
//!
//! Owns: two counters over all honest consumers, and a view for each that an adversary is after.
//! Must not: keep a view of anybody else; there may be a million.

use std::collections::BTreeMap;

use cocoon_protocol::attest::Tier;

use crate::describe::{Description, HostLabel};
use crate::results::{TierSummary, VictimSummary};

/// All views of a run.
#[derive(Debug, Default)]
pub(super) struct Views {
    victims: BTreeMap<u32, View>,
    /// Providers that honest consumers came to know, and those of them that are adversaries.
    pub(super) met: [u64; 2],
}

/// What one consumer sees.
#[derive(Clone, Debug, Default)]
struct View {
    /// Current offers: of honest providers, by number, and whether they have a TEE.
    known: BTreeMap<u32, bool>,
    met: [u64; 2],
    /// Since when its view is counted: its first job.
    since: Option<u64>,
    counted: u64,
    without_route: u64,
    without_attested: u64,
}

impl View {
    /// Counts the time up to this moment.
    fn pass(&mut self, at: u64) {
        let Some(since) = self.since else { return };
        let passed = at.saturating_sub(since.saturating_add(self.counted));
        self.counted = self.counted.saturating_add(passed);
        self.without_route += if self.known.is_empty() { passed } else { 0 };
        let attested = self.known.values().any(|attested| *attested);
        self.without_attested += if attested { 0 } else { passed };
    }

    /// An offer comes or goes.
    fn change(&mut self, number: u32, provider: &HostLabel, comes: bool) {
        if !comes {
            self.known.remove(&number);
        } else if provider.adversary.is_none() {
            let attested = provider.tier.is_some_and(|tier| tier >= Tier::Attested);
            self.known.insert(number, attested);
        }
    }
}

impl Views {
    pub(super) fn new(about: &Description) -> Self {
        let victims = about.victims.iter().map(|it| (*it, View::default())).collect();
        Self { victims, met: [0; 2] }
    }

    /// A consumer has an offer of a provider, or no longer has.
    pub(super) fn offer(
        &mut self,
        at: u64,
        host: u32,
        (number, provider): (u32, &HostLabel),
        comes: bool,
    ) {
        let hostile = u64::from(provider.adversary.is_some());
        if comes {
            self.met[0] += 1;
            self.met[1] += hostile;
        }
        if let Some(view) = self.victims.get_mut(&host) {
            view.pass(at);
            view.change(number, provider, comes);
            if comes {
                view.met[0] += 1;
                view.met[1] += hostile;
            }
        }
    }

    /// A user of it submits a job: from the first on its view counts.
    pub(super) fn wanted(&mut self, at: u64, host: u32) {
        if let Some(view) = self.victims.get_mut(&host) {
            view.since.get_or_insert(at);
        }
    }

    /// Its process began anew: it knows nobody.
    pub(super) fn began(&mut self, at: u64, host: u32) {
        if let Some(view) = self.victims.get_mut(&host) {
            view.pass(at);
            view.known.clear();
        }
    }

    /// All victims together, at the end.
    pub(super) fn summary(
        &mut self,
        at: u64,
        jobs: TierSummary,
        attested: TierSummary,
    ) -> VictimSummary {
        let mut sum = VictimSummary { jobs, attested, ..VictimSummary::default() };
        for view in self.victims.values_mut() {
            view.pass(at);
            sum.hosts += 1;
            sum.watched_us += view.counted;
            sum.without_route_us += view.without_route;
            sum.without_attested_us += view.without_attested;
            sum.offers_met += view.met[0];
            sum.offers_of_adversaries += view.met[1];
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::identity::NodeId;

    fn label(adversary: Option<u16>, tier: Tier) -> HostLabel {
        HostLabel {
            node: NodeId::from_bytes([1; 32]),
            consumer: false,
            provider: true,
            tier: Some(tier),
            region: 0,
            class: 0,
            adversary,
        }
    }

    #[test]
    fn time_without_a_route_is_time_without_an_honest_offer() {
        let about = Description { victims: vec![3], ..Description::default() };
        let mut views = Views::new(&about);
        let (card, tee) = (label(None, Tier::Open), label(None, Tier::Confidential));
        let liar = label(Some(0), Tier::Confidential);
        views.offer(5, 3, (7, &liar), true);
        views.wanted(10, 3);
        views.offer(20, 3, (8, &card), true);
        views.offer(50, 3, (9, &tee), true);
        views.offer(70, 3, (9, &tee), false);
        views.offer(80, 3, (8, &card), false);
        views.offer(80, 4, (8, &card), true);
        let none = TierSummary::default();
        let sum = views.summary(100, none, none);
        assert_eq!(sum.watched_us, 90);
        assert_eq!(sum.without_route_us, 10 + 20);
        assert_eq!(sum.without_attested_us, 40 + 30);
        assert_eq!((sum.offers_met, sum.offers_of_adversaries), (3, 1));
        assert_eq!(views.met, [4, 1], "those of everybody");
        views.began(110, 3);
        assert_eq!(views.summary(120, none, none).without_route_us, 50);
    }
}
