//! The consumer's side of discovery: a warm table of providers for everything that is wanted.
//!
//! Owns: whom to contact, whose offers hold, when to look again, and who makes room for whom.
//! Must not: touch the swarm. Events come in with their time; actions go out, in order.
//! Invariant: for every provider whose offer went out as an action, its end goes out too.
//!
//! A provider stands in the tables that it was found for, and in no other: those who reach a high
//! tier would otherwise fill the table of a low one too, and nobody would ever see the rest.

mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cocoon_protocol::offer::VerifiedOffer;
use cocoon_protocol::units::Timestamp;
use libp2p::PeerId;

use crate::command::Want;
use crate::control::{Link, LinkId};
use crate::draw::Draw;
use crate::limits;

pub use view::TableView;

/// What the table wants done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Ask the index for such providers.
    LookUp(Want),
    /// Enough were found: end the look-up.
    StopLookUp(Want),
    /// Open a control stream to the peer.
    Contact(PeerId, Want),
    /// A contacted peer sent its first offer, so long after it was to be contacted.
    Contacted(PeerId, Duration),
    /// A provider's current offer.
    Offer(Arc<VerifiedOffer>),
    /// The provider's offer is no longer kept current.
    Gone(PeerId),
}

#[derive(Debug)]
struct Table {
    looking: bool,
    /// Whether this look-up has named anybody who was not known.
    learned: bool,
    look_up_at: Option<Instant>,
    pause: Duration,
    explore_at: Instant,
    /// Extra places while random draws compete with the worst of a full table.
    exploring: bool,
    candidates: Vec<PeerId>,
}

#[derive(Debug)]
struct Warm {
    offer: Arc<VerifiedOffer>,
    expires: Instant,
}

#[derive(Debug)]
struct Provider {
    /// The tables that it stands in, or will if its offer is as the index has it. Never empty.
    sought: BTreeSet<Want>,
    since: Instant,
    heard: Instant,
    link: Option<(LinkId, Link)>,
    warm: Option<Warm>,
    round_trip: Option<Duration>,
}

impl Provider {
    const fn is_warm(&self) -> bool {
        self.warm.is_some()
    }

    /// Whether it may stand in this table, by what is known of it.
    fn meets(&self, want: &Want) -> bool {
        self.warm.as_ref().is_none_or(|warm| want.is_met_by(warm.offer.offer()))
    }

    /// How dispensable it is: the longer its round trip, the more. A newcomer whose round trip is
    /// not known yet gets the benefit of the doubt, one that never answers does not.
    fn badness(&self, now: Instant) -> Duration {
        let is_new = now.saturating_duration_since(self.since) < limits::CONTACT_TIMEOUT * 2;
        let unknown = if is_new { Duration::ZERO } else { Duration::MAX };
        self.round_trip.unwrap_or(unknown)
    }

    /// When it is given up unless something happens.
    fn deadline(&self) -> Instant {
        let patience = if self.warm.is_some() { limits::SILENCE } else { limits::CONTACT_TIMEOUT };
        let silent = self.heard.checked_add(patience).unwrap_or(self.heard);
        self.warm.as_ref().map_or(silent, |warm| warm.expires.min(silent))
    }
}

/// All warm tables of a node. One provider may stand in several.
#[derive(Debug)]
pub(crate) struct Tables {
    wanted: BTreeMap<Want, Table>,
    providers: BTreeMap<PeerId, Provider>,
    paused: BTreeMap<PeerId, Instant>,
    /// Those that lied, until when. Where they say that they are now changes nothing.
    avoided: BTreeMap<PeerId, Instant>,
    actions: VecDeque<Action>,
    draw: Draw,
}

impl Tables {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self {
            wanted: BTreeMap::new(),
            providers: BTreeMap::new(),
            paused: BTreeMap::new(),
            avoided: BTreeMap::new(),
            actions: VecDeque::new(),
            draw: Draw::new(seed, "warm"),
        }
    }

    /// The next thing to do.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Starts to keep a table; looks for providers at once. False when there are too many already.
    pub(crate) fn want(&mut self, want: Want, now: Instant) -> bool {
        if self.wanted.contains_key(&want) {
            return true;
        }
        if self.wanted.len() >= limits::TABLES {
            return false;
        }
        let table = Table {
            looking: false,
            learned: false,
            look_up_at: Some(now),
            pause: limits::LOOK_UP_MIN,
            explore_at: later(now, limits::EXPLORE_EVERY),
            exploring: false,
            candidates: Vec::new(),
        };
        self.wanted.insert(want, table);
        self.look_up_if_due(want, now);
        true
    }

    /// Ends a table; providers that stand in no other are let go.
    pub(crate) fn unwant(&mut self, want: Want) {
        if self.wanted.remove(&want).is_some_and(|table| table.looking) {
            self.actions.push_back(Action::StopLookUp(want));
        }
        let peers: Vec<_> = self.providers.keys().copied().collect();
        for peer in peers {
            self.remove(peer, want);
        }
    }

    /// A look-up found providers; takes as many as there are places, drawn at random.
    pub(crate) fn found(
        &mut self,
        want: Want,
        providers: impl IntoIterator<Item = PeerId>,
        now: Instant,
    ) {
        self.paused.retain(|_, until| *until > now);
        self.avoided.retain(|_, until| *until > now);
        let Some(table) = self.wanted.get_mut(&want) else {
            return;
        };
        for peer in providers {
            let known = self.providers.get(&peer);
            let useless = known.is_some_and(|it| it.sought.contains(&want) || !it.meets(&want))
                || self.paused.contains_key(&peer)
                || self.avoided.contains_key(&peer);
            let full = table.candidates.len() >= limits::CANDIDATES_PER_TABLE;
            if !useless && !full && !table.candidates.contains(&peer) {
                table.candidates.push(peer);
                table.learned = true;
            }
        }
        table.candidates.sort_unstable();
        self.fill(want, now);
    }

    /// The peer is not what its offer says: others take its places, and it is not contacted again
    /// for long.
    pub(crate) fn avoid(&mut self, peer: PeerId, now: Instant) {
        while self.avoided.len() >= limits::AVOIDED {
            let first = self.avoided.iter().min_by_key(|(_, until)| **until);
            let Some(first) = first.map(|(peer, _)| *peer) else { break };
            self.avoided.remove(&first);
        }
        self.avoided.insert(peer, later(now, limits::AVOID));
        for table in self.wanted.values_mut() {
            table.candidates.retain(|candidate| *candidate != peer);
        }
        let Some(left) = self.providers.get(&peer).map(|provider| provider.sought.clone()) else {
            return;
        };
        self.drop_provider(peer);
        for want in &left {
            if let Some(table) = self.wanted.get_mut(want) {
                table.pause = limits::LOOK_UP_MIN;
            }
        }
        self.replace(&left, now);
    }

    /// The peer is said to be where it was not before: that it could not be reached counts no more.
    pub(crate) fn moved(&mut self, peer: &PeerId) {
        self.paused.remove(peer);
    }

    /// A look-up ended; the next is due after a pause, unless the table is full.
    pub(crate) fn look_up_ended(&mut self, want: Want, now: Instant) {
        let warm = self.warm_count(want);
        let Some(table) = self.wanted.get_mut(&want) else {
            return;
        };
        table.looking = false;
        if warm >= limits::WARM_PER_TABLE {
            table.pause = limits::LOOK_UP_MIN;
            table.look_up_at = None;
            return;
        }
        let longest = if warm == 0 { limits::LOOK_UP_MAX_EMPTY } else { limits::LOOK_UP_MAX };
        if warm > 0 && !table.learned {
            table.pause = table.pause.max(limits::LOOK_UP_SETTLED);
        }
        table.pause = table.pause.min(longest);
        table.look_up_at = Some(later(now, table.pause));
        table.pause = table.pause.saturating_mul(2);
    }

    /// The index grew to `peers`: what has no provider at all is looked up again at once. Only
    /// while it is small: each look-up makes more of it known, and who wants what nobody has would
    /// else crawl the whole network without a pause.
    pub(crate) fn index_grew(&mut self, peers: usize, now: Instant) {
        if peers > limits::REPLICATION {
            return;
        }
        let empty: Vec<_> =
            self.wanted.keys().copied().filter(|want| self.warm_count(*want) == 0).collect();
        for want in empty {
            if let Some(table) = self.wanted.get_mut(&want) {
                table.look_up_at = Some(now);
                table.pause = limits::LOOK_UP_MIN;
            }
            self.look_up_if_due(want, now);
        }
    }

    /// A control stream to a contacted peer is open. Subscribes, or lets a peer go that is no
    /// longer of interest.
    pub(crate) fn link_open(&mut self, peer: PeerId, id: LinkId, link: Link) {
        if let Some(provider) = self.providers.get_mut(&peer)
            && provider.link.is_none()
        {
            link.subscribe();
            provider.link = Some((id, link));
        }
    }

    /// A contacted peer could not be reached, or its stream ended.
    pub(crate) fn lost(&mut self, peer: PeerId, now: Instant) {
        let Some(provider) = self.providers.get(&peer) else {
            return;
        };
        let left = provider.sought.clone();
        self.paused.insert(peer, later(now, limits::CONTACT_PAUSE));
        self.drop_provider(peer);
        self.replace(&left, now);
    }

    /// Whether the stream `id` is the one that `peer` is subscribed on.
    pub(crate) fn is_link(&self, peer: PeerId, id: LinkId) -> bool {
        let link = self.providers.get(&peer).and_then(|provider| provider.link.as_ref());
        link.is_some_and(|(known, _)| *known == id)
    }

    /// The peer gave a sign of life.
    pub(crate) fn heard(&mut self, peer: PeerId, now: Instant) {
        if let Some(provider) = self.providers.get_mut(&peer) {
            provider.heard = now;
        }
    }

    /// The time that a round trip to the peer took.
    pub(crate) fn round_trip(&mut self, peer: PeerId, time: Duration) {
        if let Some(provider) = self.providers.get_mut(&peer) {
            provider.round_trip = Some(time);
        }
    }

    /// The peer sent an offer, already checked to be its own. `protected` peers are not evicted.
    pub(crate) fn offer(
        &mut self,
        peer: PeerId,
        offer: Arc<VerifiedOffer>,
        protected: &BTreeSet<PeerId>,
        now: Instant,
        clock: Timestamp,
    ) {
        let Some(provider) = self.providers.get_mut(&peer) else {
            return;
        };
        provider.heard = now;
        let known = provider.warm.as_ref().map(|warm| warm.offer.offer().sequence);
        if known.is_some_and(|known| known >= offer.offer().sequence) {
            return;
        }
        let is_met = |want: &Want| want.is_met_by(offer.offer());
        let (stays, left): (BTreeSet<_>, BTreeSet<_>) =
            provider.sought.iter().copied().partition(is_met);
        if stays.is_empty() {
            // The index promised what it does not offer, or it has stopped to offer it.
            self.lost(peer, now);
            return;
        }
        provider.sought.clone_from(&stays);
        let expires = later(now, offer.offer().expires.since(clock).to_duration());
        let first = provider.warm.replace(Warm { offer: Arc::clone(&offer), expires }).is_none();
        if first {
            let after = now.saturating_duration_since(provider.since);
            self.actions.push_back(Action::Contacted(peer, after));
        }
        self.actions.push_back(Action::Offer(offer));
        for want in stays {
            self.make_room(want, protected, now);
        }
        self.replace(&left, now);
    }

    /// Does what is due: gives up silent and expired providers, looks up, explores.
    pub(crate) fn tick(&mut self, now: Instant) {
        let over: Vec<_> = self
            .providers
            .iter()
            .filter(|(_, provider)| provider.deadline() <= now)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in over {
            self.lost(peer, now);
        }
        let wanted: Vec<_> = self.wanted.keys().copied().collect();
        for want in wanted {
            self.explore_if_due(want, now);
            self.look_up_if_due(want, now);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let deadlines = self.providers.values().map(Provider::deadline);
        let look_ups = self.wanted.values().filter(|table| !table.looking);
        let look_ups = look_ups.filter_map(|table| table.look_up_at);
        let explorations = self.wanted.values().map(|table| table.explore_at);
        deadlines.chain(look_ups).chain(explorations).min()
    }

    /// Peers that are in a table, or on the way into one.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.providers.keys().copied()
    }

    /// Peers whose offers hold.
    pub(crate) fn warm_peers(&self) -> impl Iterator<Item = PeerId> {
        self.providers.iter().filter(|(_, provider)| provider.warm.is_some()).map(|(peer, _)| *peer)
    }

    /// Everything wanted, with how many providers are warm.
    pub(crate) fn counts(&self) -> Vec<(Want, usize)> {
        self.wanted.keys().map(|want| (*want, self.warm_count(*want))).collect()
    }

    fn warm_count(&self, want: Want) -> usize {
        let members = self.providers.values().filter(|it| it.sought.contains(&want));
        members.filter(|it| it.is_warm()).count()
    }

    /// Providers in the table and on the way into it.
    fn taken(&self, want: Want) -> usize {
        self.providers.values().filter(|it| it.sought.contains(&want)).count()
    }

    fn fill(&mut self, want: Want, now: Instant) {
        let taken = self.taken(want);
        let Some(table) = self.wanted.get_mut(&want) else {
            return;
        };
        let extra = if table.exploring { limits::EXPLORE_COUNT } else { 0 };
        let mut places = limits::WARM_PER_TABLE.saturating_add(extra).saturating_sub(taken);
        while places > 0 && !table.candidates.is_empty() {
            let peer = table.candidates.swap_remove(self.draw.below(table.candidates.len()));
            if let Some(known) = self.providers.get_mut(&peer) {
                // It is at hand, because another table has it.
                if !known.meets(&want) || !known.sought.insert(want) {
                    continue;
                }
            } else {
                let provider = Provider {
                    sought: BTreeSet::from([want]),
                    since: now,
                    heard: now,
                    link: None,
                    warm: None,
                    round_trip: None,
                };
                self.providers.insert(peer, provider);
                self.actions.push_back(Action::Contact(peer, want));
            }
            places = places.saturating_sub(1);
        }
        if places == 0 && table.looking {
            self.actions.push_back(Action::StopLookUp(want));
        }
    }

    /// Takes a provider out of one table; one that stands in no other is let go.
    fn remove(&mut self, peer: PeerId, want: Want) {
        let Some(provider) = self.providers.get_mut(&peer) else {
            return;
        };
        if provider.sought.remove(&want) && provider.sought.is_empty() {
            self.drop_provider(peer);
        }
    }

    fn drop_provider(&mut self, peer: PeerId) {
        if self.providers.remove(&peer).is_some_and(|provider| provider.is_warm()) {
            self.actions.push_back(Action::Gone(peer));
        }
    }

    /// Takes the worst out of a table that has more than its places.
    fn make_room(&mut self, want: Want, protected: &BTreeSet<PeerId>, now: Instant) {
        while self.warm_count(want) > limits::WARM_PER_TABLE {
            let spare = self.providers.iter().filter(|(peer, provider)| {
                provider.is_warm() && provider.sought.contains(&want) && !protected.contains(peer)
            });
            let worst = spare.max_by_key(|(_, provider)| provider.badness(now));
            let Some(peer) = worst.map(|(peer, _)| *peer) else {
                break;
            };
            self.remove(peer, want);
            if let Some(table) = self.wanted.get_mut(&want) {
                table.exploring = false;
            }
        }
    }

    /// Looks for others in the tables that have lost a provider.
    fn replace(&mut self, left: &BTreeSet<Want>, now: Instant) {
        for want in left {
            self.fill(*want, now);
            self.look_again(*want, now);
        }
    }

    fn look_again(&mut self, want: Want, now: Instant) {
        if self.taken(want) >= limits::WARM_PER_TABLE {
            return;
        }
        let empty = self.warm_count(want) == 0;
        if let Some(table) = self.wanted.get_mut(&want) {
            if empty {
                table.pause = limits::LOOK_UP_MIN;
            }
            let soon = later(now, table.pause);
            table.look_up_at = Some(table.look_up_at.map_or(soon, |at| at.min(soon)));
        }
    }

    fn explore_if_due(&mut self, want: Want, now: Instant) {
        let full = self.warm_count(want) >= limits::WARM_PER_TABLE;
        let Some(table) = self.wanted.get_mut(&want) else {
            return;
        };
        if table.explore_at > now {
            return;
        }
        table.explore_at = later(now, limits::EXPLORE_EVERY);
        table.exploring = full;
        table.candidates.clear();
        table.look_up_at = Some(now);
    }

    fn look_up_if_due(&mut self, want: Want, now: Instant) {
        let Some(table) = self.wanted.get_mut(&want) else {
            return;
        };
        if !table.looking && table.look_up_at.is_some_and(|at| at <= now) {
            table.looking = true;
            table.learned = false;
            table.look_up_at = None;
            self.actions.push_back(Action::LookUp(want));
        }
    }
}

fn later(now: Instant, by: Duration) -> Instant {
    now.checked_add(by).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::peer_id;
    use crate::control::{Link, link};
    use crate::testing::{START, key, model, offer_in, want};
    use cocoon_protocol::attest::Tier;
    use proptest::prelude::*;

    /// Tables, and what their actions so far mean to the world outside.
    struct World {
        tables: Tables,
        now: Instant,
        clock: Timestamp,
        contacted: Vec<PeerId>,
        offered: BTreeSet<PeerId>,
        look_ups: usize,
    }

    fn peer(secret: u8) -> PeerId {
        peer_id(&key(secret).id()).unwrap()
    }

    fn new_link(id: u64, peer: PeerId) -> (LinkId, Link) {
        let id = LinkId(id);
        (id, link(id, peer, (), Instant::now()).0)
    }

    impl World {
        fn new() -> Self {
            Self {
                tables: Tables::new(&[3; 32]),
                now: Instant::now(),
                clock: START,
                contacted: Vec::new(),
                offered: BTreeSet::new(),
                look_ups: 0,
            }
        }

        fn settle(&mut self) {
            while let Some(action) = self.tables.next_action() {
                match action {
                    Action::LookUp(_) => self.look_ups += 1,
                    Action::StopLookUp(_) | Action::Contacted(..) => {}
                    Action::Contact(peer, _) => self.contacted.push(peer),
                    Action::Offer(offer) => {
                        self.offered.insert(peer_id(&offer.offer().provider).unwrap());
                    }
                    Action::Gone(peer) => {
                        assert!(self.offered.remove(&peer), "gone, but never offered");
                    }
                }
            }
            let warm: BTreeSet<_> = self.tables.warm_peers().collect();
            assert_eq!(warm, self.offered, "the world knows exactly the warm ones");
        }

        fn found(&mut self, secrets: std::ops::Range<u8>) {
            self.tables.found(want(1), secrets.map(peer), self.now);
            self.settle();
        }

        fn offer(&mut self, secret: u8, sequence: u64, protected: &BTreeSet<PeerId>) {
            self.offer_in(Tier::Open, secret, sequence, protected);
        }

        fn offer_in(
            &mut self,
            tier: Tier,
            secret: u8,
            sequence: u64,
            protected: &BTreeSet<PeerId>,
        ) {
            let signed = offer_in(tier, &key(secret), sequence, &[model(1)], self.clock);
            let verified = signed.verify(self.clock).unwrap();
            let (peer, now, clock) = (peer(secret), self.now, self.clock);
            let (id, link) = new_link(u64::from(secret), peer);
            self.tables.link_open(peer, id, link);
            self.tables.offer(peer, Arc::new(verified), protected, now, clock);
            self.settle();
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            self.clock = self.clock.after(cocoon_protocol::units::Millis::new(
                u64::try_from(time.as_millis()).unwrap(),
            ));
            self.tables.tick(self.now);
            self.settle();
        }

        fn warm(&self) -> usize {
            self.tables.counts()[0].1
        }

        fn warm_of(&self, want: Want) -> usize {
            self.tables.counts().into_iter().find(|(it, _)| *it == want).unwrap().1
        }
    }

    fn full() -> World {
        let mut world = World::new();
        world.tables.want(want(1), world.now);
        world.settle();
        world.found(1..31);
        let contacted = std::mem::take(&mut world.contacted);
        assert_eq!(contacted.len(), limits::WARM_PER_TABLE);
        for secret in (1..31).filter(|secret| contacted.contains(&peer(*secret))) {
            world.offer(secret, 1, &BTreeSet::new());
        }
        assert_eq!(world.warm(), limits::WARM_PER_TABLE);
        world.tables.look_up_ended(want(1), world.now);
        world
    }

    #[test]
    fn a_want_looks_up_at_once_and_fills_its_places_only() {
        let world = full();
        assert_eq!(world.look_ups, 1);
        assert!(world.tables.wanted[&want(1)].look_up_at.is_none(), "full: nothing to look for");
    }

    #[test]
    fn a_liar_makes_room_at_once_and_does_not_come_back() {
        let mut world = full();
        let liar = *world.offered.first().unwrap();
        world.tables.avoid(liar, world.now);
        world.settle();
        assert!(!world.offered.contains(&liar));
        assert_eq!(world.contacted.len(), 1, "another takes its place");
        // That it says to be elsewhere now changes nothing; time does.
        world.contacted.clear();
        let place = (1..31).find(|secret| peer(*secret) == liar).unwrap();
        for _ in 0..2 {
            world.tables.moved(&liar);
            world.found(place..place + 1);
            assert_eq!(world.contacted, []);
        }
        world.tables.lost(*world.offered.first().unwrap(), world.now);
        world.settle();
        assert!(!world.contacted.contains(&liar));
        world.now += limits::AVOID + Duration::from_secs(1);
        world.tables.found(want(1), [liar], world.now);
        assert!(
            world.tables.wanted[&want(1)].candidates.contains(&liar) || !world.contacted.is_empty()
        );
    }

    #[test]
    fn who_is_avoided_is_bounded() {
        let mut tables = Tables::new(&[3; 32]);
        let now = Instant::now();
        for _ in 0..limits::AVOIDED + 10 {
            tables.avoid(PeerId::random(), now);
        }
        assert_eq!(tables.avoided.len(), limits::AVOIDED);
    }

    #[test]
    fn the_slowest_two_make_room_for_random_draws() {
        let mut world = full();
        let before: Vec<_> = world.offered.iter().copied().collect();
        for (round_trip, peer) in before.iter().enumerate() {
            let time = Duration::from_millis(u64::try_from(round_trip).unwrap() * 10);
            world.tables.round_trip(*peer, time);
        }
        // Signs of life keep the table warm until the exploration is due.
        for _ in 0..10 {
            for (sequence, secret) in (1..31).enumerate() {
                if before.contains(&peer(secret)) {
                    let sequence = world.clock.as_unix_millis() + u64::try_from(sequence).unwrap();
                    world.offer(secret, sequence, &BTreeSet::new());
                }
            }
            world.pass(limits::EXPLORE_EVERY / 10);
        }
        assert_eq!(world.look_ups, 2, "exploring asks the index anew");
        world.found(31..40);
        assert_eq!(world.contacted.len(), limits::EXPLORE_COUNT);
        let protected = BTreeSet::from([before[7]]);
        for secret in 31..40 {
            if world.contacted.contains(&peer(secret)) {
                world.offer(secret, 1, &protected);
            }
        }
        assert_eq!(world.warm(), limits::WARM_PER_TABLE);
        assert!(world.offered.contains(&before[7]), "the slowest has a session");
        assert!(!world.offered.contains(&before[6]));
        assert!(world.contacted.iter().all(|new| world.offered.contains(new)), "newcomers stay");
    }

    #[test]
    fn an_offer_that_is_not_renewed_and_a_silent_provider_end() {
        let mut world = full();
        world.pass(limits::SILENCE - Duration::from_secs(1));
        assert_eq!(world.warm(), limits::WARM_PER_TABLE);
        let alive: Vec<_> = world.offered.iter().copied().take(1).collect();
        for _ in 0..20 {
            world.tables.heard(alive[0], world.now);
            world.pass(Duration::from_secs(10));
        }
        assert_eq!(world.offered.iter().copied().collect::<Vec<_>>(), alive, "the rest is silent");
        for _ in 0..20 {
            world.tables.heard(alive[0], world.now);
            world.pass(Duration::from_secs(10));
        }
        assert!(world.offered.is_empty(), "alive, but its offer has expired");
    }

    #[test]
    fn look_ups_that_find_nothing_slow_down_and_growth_of_the_index_revives_them() {
        let mut world = World::new();
        world.tables.want(want(1), world.now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            world.settle();
            world.tables.look_up_ended(want(1), world.now);
            let wake = world.tables.wanted[&want(1)].look_up_at.unwrap();
            pauses.push((wake - world.now).as_secs());
            world.pass(wake - world.now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15, 15]);
        let before = world.look_ups;
        world.tables.look_up_ended(want(1), world.now);
        world.tables.index_grew(limits::REPLICATION + 1, world.now);
        world.settle();
        assert_eq!(world.look_ups, before, "a large index shows nothing new by growing");
        world.tables.index_grew(1, world.now);
        world.settle();
        assert_eq!(world.look_ups, before + 1);
    }

    #[test]
    fn a_table_that_has_all_there_is_asks_seldom() {
        let mut world = World::new();
        world.tables.want(want(1), world.now);
        world.settle();
        world.found(1..4);
        for secret in 1..4 {
            world.offer(secret, 1, &BTreeSet::new());
        }
        let pause = |world: &mut World| {
            world.tables.look_up_ended(want(1), world.now);
            world.tables.wanted[&want(1)].look_up_at.unwrap() - world.now
        };
        assert_eq!(pause(&mut world), limits::LOOK_UP_MIN, "they were news");
        world.pass(limits::LOOK_UP_MIN);
        world.found(1..4);
        assert_eq!(pause(&mut world), limits::LOOK_UP_SETTLED);
        // Whoever leaves is replaced without that pause.
        world.tables.lost(peer(1), world.now);
        world.tables.lost(peer(2), world.now);
        world.tables.lost(peer(3), world.now);
        world.settle();
        let next = world.tables.wanted[&want(1)].look_up_at.unwrap();
        assert_eq!(next - world.now, limits::LOOK_UP_MIN);
    }

    #[test]
    fn an_unreachable_candidate_is_replaced_and_left_alone_for_a_while() {
        let mut world = World::new();
        world.tables.want(want(1), world.now);
        world.found(1..20);
        let failed = world.contacted[0];
        world.tables.lost(failed, world.now);
        world.settle();
        assert_eq!(world.contacted.len(), limits::WARM_PER_TABLE + 1, "the next is tried");
        world.contacted.clear();
        for other in 1..20 {
            world.tables.lost(peer(other), world.now);
        }
        world.settle();
        world.contacted.clear();
        world.found(1..20);
        assert!(world.contacted.is_empty(), "all have just failed");
        world.pass(limits::CONTACT_PAUSE);
        world.found(1..20);
        assert_eq!(world.contacted.len(), limits::WARM_PER_TABLE);
    }

    const ATTESTED: Want = Want {
        model: cocoon_protocol::identity::ModelHash::from_bytes([1; 32]),
        minimum_tier: Tier::Attested,
    };

    #[test]
    fn gaming_cards_take_no_place_of_those_who_must_have_a_tee() {
        let mut world = full();
        world.tables.want(ATTESTED, world.now);
        world.contacted.clear();
        world.tables.found(ATTESTED, (40..44).map(peer), world.now);
        world.settle();
        assert_eq!(world.contacted.len(), 4, "a full table of open ones is no reason to wait");
        for secret in 40..43 {
            world.offer_in(Tier::Attested, secret, 1, &BTreeSet::new());
        }
        assert_eq!(world.warm_of(ATTESTED), 3);
        assert_eq!(world.warm_of(want(1)), limits::WARM_PER_TABLE, "they were not found for it");
        // What it publishes is not what it offers.
        world.offer_in(Tier::Open, 43, 1, &BTreeSet::new());
        assert!(!world.offered.contains(&peer(43)));
        world.contacted.clear();
        world.tables.found(ATTESTED, [peer(43)], world.now);
        world.settle();
        assert!(world.contacted.is_empty(), "left alone for a while");
    }

    #[test]
    fn a_provider_at_hand_joins_a_second_table_without_being_contacted_again() {
        let mut world = World::new();
        world.tables.want(want(1), world.now);
        world.tables.want(ATTESTED, world.now);
        world.settle();
        world.found(1..3);
        world.offer_in(Tier::Attested, 1, 1, &BTreeSet::new());
        world.offer_in(Tier::Open, 2, 1, &BTreeSet::new());
        world.tables.found(ATTESTED, [peer(1), peer(2)], world.now);
        world.settle();
        assert_eq!(world.contacted.len(), 2);
        assert_eq!((world.warm_of(want(1)), world.warm_of(ATTESTED)), (2, 1));
        // It stays in one table when the other ends, and leaves one that it no longer meets.
        world.tables.unwant(want(1));
        world.settle();
        assert_eq!(world.offered, BTreeSet::from([peer(1)]));
        world.tables.want(want(1), world.now);
        world.tables.found(want(1), [peer(1)], world.now);
        world.offer_in(Tier::Open, 1, 2, &BTreeSet::new());
        assert_eq!((world.warm_of(want(1)), world.warm_of(ATTESTED)), (1, 0));
        assert!(world.tables.wanted[&ATTESTED].look_up_at.is_some(), "a place is free again");
    }

    #[test]
    fn wants_are_bounded() {
        let mut world = World::new();
        for number in 0..=limits::TABLES {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            let model = cocoon_protocol::identity::ModelHash::from_bytes(bytes);
            let wanted = world.tables.want(Want { model, ..want(1) }, world.now);
            assert_eq!(wanted, number < limits::TABLES);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Want(Want),
        Unwant(Want),
        Found(Want, u8, u8),
        Offer(Tier, u8, u64),
        Lost(u8),
        Ended,
        Grew,
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let table = || prop_oneof![Just(want(1)), Just(ATTESTED)];
        let tier = prop_oneof![Just(Tier::Open), Just(Tier::Attested)];
        prop_oneof![
            1 => table().prop_map(Step::Want),
            1 => table().prop_map(Step::Unwant),
            3 => (table(), 1u8..40, 1u8..20)
                .prop_map(|(want, from, count)| Step::Found(want, from, count)),
            8 => (tier, 1u8..60, 1u64..5)
                .prop_map(|(tier, secret, sequence)| Step::Offer(tier, secret, sequence)),
            2 => (1u8..60).prop_map(Step::Lost),
            2 => Just(Step::Ended),
            1 => Just(Step::Grew),
            3 => (0u64..400).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// `settle` checks after each step that offers out and offers held are the same.
        #[test]
        fn the_world_outside_knows_exactly_the_warm_ones(steps in prop::collection::vec(step(), 1..80)) {
            let mut world = World::new();
            for step in steps {
                let now = world.now;
                match step {
                    Step::Want(want) => {
                        world.tables.want(want, now);
                    }
                    Step::Unwant(want) => world.tables.unwant(want),
                    Step::Found(want, from, count) => {
                        world.tables.found(want, (from..from + count).map(peer), now);
                    }
                    Step::Offer(tier, secret, sequence) => {
                        world.offer_in(tier, secret, sequence, &BTreeSet::new());
                    }
                    Step::Lost(secret) => world.tables.lost(peer(secret), now),
                    Step::Ended => world.tables.look_up_ended(want(1), now),
                    Step::Grew => world.tables.index_grew(1, now),
                    Step::Pass(secs) => world.pass(Duration::from_secs(secs)),
                }
                world.settle();
                let most = limits::WARM_PER_TABLE + limits::EXPLORE_COUNT;
                for table in world.tables.wanted.keys() {
                    prop_assert!(world.tables.taken(*table) <= most);
                }
                let mut held = world.tables.providers.values();
                prop_assert!(held.all(|it| !it.sought.is_empty()), "nobody is kept for nothing");
            }
        }
    }
}
