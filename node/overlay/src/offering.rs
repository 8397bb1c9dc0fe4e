//! The provider's side of discovery: who subscribed to our offer, and when it is pushed and indexed.
//!
//! Owns: the current offer's bytes, its subscribers, the pace of pushes, keep-alives and
//! publications in the index.
//! Must not: make or sign offers; the node does, and hands them over ready.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::command::Want;
use crate::control::{Link, LinkId};
use crate::limits;

/// What the provider's side wants done in the index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Publish {
    /// Announce the node as such a provider.
    Start(Want),
    /// Stop announcing it.
    Stop(Want),
}

/// The state of a node that may have something to offer.
#[derive(Debug, Default)]
pub(crate) struct Offering {
    current: Option<Arc<[u8]>>,
    /// What the node is announced for.
    announced: BTreeSet<Want>,
    subscribers: BTreeMap<LinkId, Link>,
    last_push: Option<Instant>,
    push_due: bool,
    last_word: Option<Instant>,
    /// Index peers that were known when the node was announced last.
    published_to: usize,
    last_publish: Option<Instant>,
    publish_due: Option<Instant>,
}

impl Offering {
    /// Sets what is offered. Pushed at once, or as soon as the pace allows.
    pub(crate) fn publish(
        &mut self,
        offer: Arc<[u8]>,
        announced: BTreeSet<Want>,
        index_peers: usize,
        now: Instant,
    ) -> Vec<Publish> {
        self.current = Some(offer);
        let stopped = self.announced.difference(&announced).copied().map(Publish::Stop);
        let started = announced.difference(&self.announced).copied().map(Publish::Start);
        let changes: Vec<_> = stopped.chain(started).collect();
        if changes.iter().any(|change| matches!(change, Publish::Start(_))) {
            self.last_publish = Some(now);
            self.published_to = index_peers;
        }
        self.announced = announced;
        self.push_due = true;
        self.push(now);
        changes
    }

    /// Takes the offer back and tells the subscribers, at once: jobs must not come any more.
    pub(crate) fn withdraw(&mut self) -> Vec<Publish> {
        self.current = None;
        self.push_due = false;
        self.publish_due = None;
        for link in self.subscribers.values() {
            link.draining();
        }
        std::mem::take(&mut self.announced).into_iter().map(Publish::Stop).collect()
    }

    /// A peer subscribed: it gets the offer now, or the word that there is none.
    pub(crate) fn subscribe(&mut self, id: LinkId, link: Link) {
        match &self.current {
            Some(offer) => link.offer(offer),
            None => link.draining(),
        }
        self.subscribers.insert(id, link);
    }

    /// A control stream ended. Whether it was a subscriber's.
    pub(crate) fn unsubscribe(&mut self, id: LinkId) -> bool {
        self.subscribers.remove(&id).is_some()
    }

    /// Subscribers at this moment.
    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether an offer stands.
    pub(crate) const fn is_offering(&self) -> bool {
        self.current.is_some()
    }

    /// The index grew to `peers`. While it is small, what was published reached too few nodes, so
    /// it is published again, soon but not for every single newcomer.
    pub(crate) fn index_grew(&mut self, peers: usize, now: Instant) {
        let reached_enough = self.published_to >= limits::REPLICATION;
        if self.announced.is_empty() || reached_enough || peers <= self.published_to {
            return;
        }
        let due = match (self.published_to, self.last_publish) {
            (0, _) | (_, None) => now,
            (_, Some(last)) => last.checked_add(limits::LOOK_UP_MIN).unwrap_or(now).max(now),
        };
        self.publish_due = Some(self.publish_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Does what is due; returns what to publish.
    pub(crate) fn tick(&mut self, index_peers: usize, now: Instant) -> Vec<Publish> {
        self.push(now);
        if self.keep_alive_at().is_some_and(|at| at <= now) {
            self.last_word = Some(now);
            for link in self.subscribers.values() {
                link.keep_alive();
            }
        }
        if self.publish_due.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.publish_due = None;
        self.last_publish = Some(now);
        self.published_to = index_peers;
        self.announced.iter().copied().map(Publish::Start).collect()
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let push = if self.push_due { self.push_at() } else { None };
        [push, self.keep_alive_at(), self.publish_due].into_iter().flatten().min()
    }

    fn push_at(&self) -> Option<Instant> {
        self.last_push?.checked_add(limits::PUSH_EVERY)
    }

    fn keep_alive_at(&self) -> Option<Instant> {
        if self.subscribers.is_empty() || self.current.is_none() {
            return None;
        }
        self.last_word?.checked_add(limits::KEEP_ALIVE)
    }

    fn push(&mut self, now: Instant) {
        let Some(offer) = &self.current else { return };
        if !self.push_due || self.push_at().is_some_and(|at| at > now) {
            return;
        }
        self.push_due = false;
        self.last_push = Some(now);
        self.last_word = Some(now);
        for link in self.subscribers.values() {
            link.offer(offer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::link;
    use crate::testing::want;
    use libp2p::PeerId;
    use std::time::Duration;

    fn offer(byte: u8) -> Arc<[u8]> {
        Arc::from([byte].as_slice())
    }

    #[test]
    fn changes_are_pushed_at_once_but_not_more_often_than_the_pace() {
        let mut offering = Offering::default();
        let now = Instant::now();
        offering.publish(offer(1), BTreeSet::from([want(1)]), 0, now);
        assert!(!offering.push_due, "the first goes out at once");
        offering.publish(offer(2), BTreeSet::from([want(1)]), 0, now);
        assert!(offering.push_due);
        assert_eq!(offering.wake_at(), now.checked_add(limits::PUSH_EVERY));
        offering.tick(0, now + limits::PUSH_EVERY - Duration::from_millis(1));
        assert!(offering.push_due);
        offering.tick(0, now + limits::PUSH_EVERY);
        assert!(!offering.push_due);
    }

    #[test]
    fn only_changed_models_touch_the_index() {
        let mut offering = Offering::default();
        let now = Instant::now();
        let both = BTreeSet::from([want(1), want(2)]);
        assert_eq!(offering.publish(offer(1), both.clone(), 0, now).len(), 2);
        assert!(offering.publish(offer(2), both, 0, now).is_empty());
        let changes = offering.publish(offer(3), BTreeSet::from([want(2)]), 0, now);
        assert_eq!(changes, [Publish::Stop(want(1))]);
        assert_eq!(offering.withdraw(), [Publish::Stop(want(2))]);
        assert!(!offering.is_offering());
    }

    #[test]
    fn a_young_index_is_published_to_again_and_a_grown_one_is_not() {
        let mut offering = Offering::default();
        let now = Instant::now();
        offering.index_grew(1, now);
        assert_eq!(offering.wake_at(), None, "nothing to publish");
        offering.publish(offer(1), BTreeSet::from([want(1)]), 0, now);
        offering.index_grew(1, now);
        assert_eq!(offering.tick(1, now), [Publish::Start(want(1))], "first peer: at once");
        offering.index_grew(2, now);
        assert!(offering.tick(2, now).is_empty(), "second peer: a moment later");
        let later = now + limits::LOOK_UP_MIN;
        assert_eq!(offering.tick(limits::REPLICATION, later), [Publish::Start(want(1))]);
        offering.index_grew(1_000, later);
        assert!(offering.tick(1_000, later + limits::KEEP_ALIVE).is_empty());
    }

    #[test]
    fn a_keep_alive_is_due_after_silence_only() {
        let mut offering = Offering::default();
        let now = Instant::now();
        offering.publish(offer(1), BTreeSet::from([want(1)]), 0, now);
        assert_eq!(offering.wake_at(), None, "nobody listens");
        let (end, _stream) = link(LinkId(1), PeerId::random(), (), now);
        offering.subscribe(LinkId(1), end);
        assert_eq!(offering.wake_at(), Some(now + limits::KEEP_ALIVE));
        offering.publish(offer(2), BTreeSet::from([want(1)]), 0, now + limits::PUSH_EVERY);
        assert_eq!(offering.wake_at(), Some(now + limits::PUSH_EVERY + limits::KEEP_ALIVE));
        assert!(offering.unsubscribe(LinkId(1)));
        assert_eq!(offering.wake_at(), None);
    }
}
