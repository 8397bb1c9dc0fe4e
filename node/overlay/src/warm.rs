//! The consumer's side of discovery: a warm table of providers for every model that is wanted.
//!
//! Owns: whom to contact, whose offers hold, when to look again, and who makes room for whom.
//! Must not: touch the swarm. Events come in with their time; actions go out, in order.
//! Invariant: for every provider whose offer went out as an action, its end goes out too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::offer::VerifiedOffer;
use cocoon_protocol::units::Timestamp;
use libp2p::PeerId;

use crate::control::{Link, LinkId};
use crate::draw::Draw;
use crate::limits;

/// What the table wants done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Ask the index for providers of the model.
    LookUp(ModelHash),
    /// Enough were found: end the look-up.
    StopLookUp(ModelHash),
    /// Open a control stream to the peer.
    Contact(PeerId, ModelHash),
    /// A contacted peer sent its first offer, so long after it was to be contacted.
    Contacted(PeerId, Duration),
    /// A provider's current offer.
    Offer(Arc<VerifiedOffer>),
    /// The provider's offer is no longer kept current.
    Gone(PeerId),
}

#[derive(Debug)]
struct Want {
    looking: bool,
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
    /// The model that it was contacted for.
    sought: ModelHash,
    since: Instant,
    heard: Instant,
    link: Option<(LinkId, Link)>,
    warm: Option<Warm>,
    round_trip: Option<Duration>,
}

impl Provider {
    fn offers(&self, model: ModelHash) -> bool {
        self.warm.as_ref().is_some_and(|warm| warm.offer.offer().model(model).is_some())
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
    wants: BTreeMap<ModelHash, Want>,
    providers: BTreeMap<PeerId, Provider>,
    paused: BTreeMap<PeerId, Instant>,
    actions: VecDeque<Action>,
    draw: Draw,
}

impl Tables {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self {
            wants: BTreeMap::new(),
            providers: BTreeMap::new(),
            paused: BTreeMap::new(),
            actions: VecDeque::new(),
            draw: Draw::new(seed, "warm"),
        }
    }

    /// The next thing to do.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Starts to keep a table for `model`; looks for providers at once. False when too many are
    /// wanted already.
    pub(crate) fn want(&mut self, model: ModelHash, now: Instant) -> bool {
        if self.wants.contains_key(&model) {
            return true;
        }
        if self.wants.len() >= limits::WANTED_MODELS {
            return false;
        }
        let want = Want {
            looking: false,
            look_up_at: Some(now),
            pause: limits::LOOK_UP_MIN,
            explore_at: later(now, limits::EXPLORE_EVERY),
            exploring: false,
            candidates: Vec::new(),
        };
        self.wants.insert(model, want);
        self.look_up_if_due(model, now);
        true
    }

    /// Ends the table of `model`; providers that stand in no other are let go.
    pub(crate) fn unwant(&mut self, model: ModelHash) {
        if self.wants.remove(&model).is_some_and(|want| want.looking) {
            self.actions.push_back(Action::StopLookUp(model));
        }
        let useless: Vec<_> = self
            .providers
            .iter()
            .filter(|(_, provider)| match &provider.warm {
                Some(_) => !self.wants.keys().any(|wanted| provider.offers(*wanted)),
                None => provider.sought == model,
            })
            .map(|(peer, _)| *peer)
            .collect();
        for peer in useless {
            self.drop_provider(peer);
        }
    }

    /// A look-up found providers; contacts as many as there are places, drawn at random.
    pub(crate) fn found(
        &mut self,
        model: ModelHash,
        providers: impl IntoIterator<Item = PeerId>,
        now: Instant,
    ) {
        self.paused.retain(|_, until| *until > now);
        let Some(want) = self.wants.get_mut(&model) else {
            return;
        };
        for peer in providers {
            let known = self.providers.contains_key(&peer) || self.paused.contains_key(&peer);
            let full = want.candidates.len() >= limits::CANDIDATES_PER_MODEL;
            if !known && !full && !want.candidates.contains(&peer) {
                want.candidates.push(peer);
            }
        }
        want.candidates.sort_unstable();
        self.fill(model, now);
    }

    /// The peer is said to be where it was not before: that it could not be reached counts no more.
    pub(crate) fn moved(&mut self, peer: &PeerId) {
        self.paused.remove(peer);
    }

    /// A look-up ended; the next is due after a pause, unless the table is full.
    pub(crate) fn look_up_ended(&mut self, model: ModelHash, now: Instant) {
        let warm = self.warm_count(model);
        let Some(want) = self.wants.get_mut(&model) else {
            return;
        };
        want.looking = false;
        if warm >= limits::WARM_PER_MODEL {
            want.pause = limits::LOOK_UP_MIN;
            want.look_up_at = None;
            return;
        }
        let longest = if warm == 0 { limits::LOOK_UP_MAX_EMPTY } else { limits::LOOK_UP_MAX };
        want.pause = want.pause.min(longest);
        want.look_up_at = Some(later(now, want.pause));
        want.pause = want.pause.saturating_mul(2);
    }

    /// The index grew: models without any provider are looked up again at once.
    pub(crate) fn index_grew(&mut self, now: Instant) {
        let empty: Vec<_> =
            self.wants.keys().copied().filter(|model| self.warm_count(*model) == 0).collect();
        for model in empty {
            if let Some(want) = self.wants.get_mut(&model) {
                want.look_up_at = Some(now);
                want.pause = limits::LOOK_UP_MIN;
            }
            self.look_up_if_due(model, now);
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
        let models: Vec<_> = self
            .wants
            .keys()
            .copied()
            .filter(|model| provider.sought == *model || provider.offers(*model))
            .collect();
        self.paused.insert(peer, later(now, limits::CONTACT_PAUSE));
        self.drop_provider(peer);
        for model in models {
            self.fill(model, now);
            self.look_again(model, now);
        }
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
        let served: Vec<_> = self
            .wants
            .keys()
            .copied()
            .filter(|model| offer.offer().model(*model).is_some())
            .collect();
        if served.is_empty() {
            // It was found under a model that it does not serve, or stopped serving.
            self.lost(peer, now);
            return;
        }
        let expires = later(now, offer.offer().expires.since(clock).to_duration());
        let first = provider.warm.replace(Warm { offer: Arc::clone(&offer), expires }).is_none();
        if first {
            let after = now.saturating_duration_since(provider.since);
            self.actions.push_back(Action::Contacted(peer, after));
        }
        self.actions.push_back(Action::Offer(offer));
        for model in served {
            self.make_room(model, protected, now);
        }
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
        let models: Vec<_> = self.wants.keys().copied().collect();
        for model in models {
            self.explore_if_due(model, now);
            self.look_up_if_due(model, now);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let deadlines = self.providers.values().map(Provider::deadline);
        let look_ups = self.wants.values().filter(|want| !want.looking);
        let look_ups = look_ups.filter_map(|want| want.look_up_at);
        let explorations = self.wants.values().map(|want| want.explore_at);
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

    /// Every wanted model, with how many providers are warm.
    pub(crate) fn counts(&self) -> Vec<(ModelHash, usize)> {
        self.wants.keys().map(|model| (*model, self.warm_count(*model))).collect()
    }

    fn warm_count(&self, model: ModelHash) -> usize {
        self.providers.values().filter(|provider| provider.offers(model)).count()
    }

    /// Providers in the table and on the way into it.
    fn taken(&self, model: ModelHash) -> usize {
        let takes = |provider: &&Provider| {
            provider.offers(model) || (provider.warm.is_none() && provider.sought == model)
        };
        self.providers.values().filter(takes).count()
    }

    fn fill(&mut self, model: ModelHash, now: Instant) {
        let taken = self.taken(model);
        let Some(want) = self.wants.get_mut(&model) else {
            return;
        };
        let extra = if want.exploring { limits::EXPLORE_COUNT } else { 0 };
        let mut places = limits::WARM_PER_MODEL.saturating_add(extra).saturating_sub(taken);
        while places > 0 && !want.candidates.is_empty() {
            let peer = want.candidates.swap_remove(self.draw.below(want.candidates.len()));
            if self.providers.contains_key(&peer) {
                continue;
            }
            let provider = Provider {
                sought: model,
                since: now,
                heard: now,
                link: None,
                warm: None,
                round_trip: None,
            };
            self.providers.insert(peer, provider);
            self.actions.push_back(Action::Contact(peer, model));
            places = places.saturating_sub(1);
        }
        if places == 0 && want.looking {
            self.actions.push_back(Action::StopLookUp(model));
        }
    }

    fn drop_provider(&mut self, peer: PeerId) {
        if self.providers.remove(&peer).is_some_and(|provider| provider.warm.is_some()) {
            self.actions.push_back(Action::Gone(peer));
        }
    }

    /// Evicts the worst of a table that has more than its places.
    fn make_room(&mut self, model: ModelHash, protected: &BTreeSet<PeerId>, now: Instant) {
        while self.warm_count(model) > limits::WARM_PER_MODEL {
            let spare = self.providers.iter().filter(|(peer, provider)| {
                provider.offers(model) && !protected.contains(peer) && self.is_spare(provider)
            });
            let worst = spare.max_by_key(|(_, provider)| provider.badness(now));
            let Some(peer) = worst.map(|(peer, _)| *peer) else {
                break;
            };
            self.drop_provider(peer);
            if let Some(want) = self.wants.get_mut(&model) {
                want.exploring = false;
            }
        }
    }

    /// Whether no table needs the provider: all that it stands in have more than their places.
    fn is_spare(&self, provider: &Provider) -> bool {
        let mut served = self.wants.keys().filter(|model| provider.offers(**model));
        served.all(|model| self.warm_count(*model) > limits::WARM_PER_MODEL)
    }

    fn look_again(&mut self, model: ModelHash, now: Instant) {
        if self.taken(model) >= limits::WARM_PER_MODEL {
            return;
        }
        let empty = self.warm_count(model) == 0;
        if let Some(want) = self.wants.get_mut(&model) {
            if empty {
                want.pause = limits::LOOK_UP_MIN;
            }
            let soon = later(now, want.pause);
            want.look_up_at = Some(want.look_up_at.map_or(soon, |at| at.min(soon)));
        }
    }

    fn explore_if_due(&mut self, model: ModelHash, now: Instant) {
        let full = self.warm_count(model) >= limits::WARM_PER_MODEL;
        let Some(want) = self.wants.get_mut(&model) else {
            return;
        };
        if want.explore_at > now {
            return;
        }
        want.explore_at = later(now, limits::EXPLORE_EVERY);
        want.exploring = full;
        want.candidates.clear();
        want.look_up_at = Some(now);
    }

    fn look_up_if_due(&mut self, model: ModelHash, now: Instant) {
        let Some(want) = self.wants.get_mut(&model) else {
            return;
        };
        if !want.looking && want.look_up_at.is_some_and(|at| at <= now) {
            want.looking = true;
            want.look_up_at = None;
            self.actions.push_back(Action::LookUp(model));
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
    use crate::testing::{START, key, model, offer};
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
            self.tables.found(model(1), secrets.map(peer), self.now);
            self.settle();
        }

        fn offer(&mut self, secret: u8, sequence: u64, protected: &BTreeSet<PeerId>) {
            let signed = offer(&key(secret), sequence, &[model(1)], self.clock);
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
    }

    fn full() -> World {
        let mut world = World::new();
        world.tables.want(model(1), world.now);
        world.settle();
        world.found(1..31);
        let contacted = std::mem::take(&mut world.contacted);
        assert_eq!(contacted.len(), limits::WARM_PER_MODEL);
        for secret in (1..31).filter(|secret| contacted.contains(&peer(*secret))) {
            world.offer(secret, 1, &BTreeSet::new());
        }
        assert_eq!(world.warm(), limits::WARM_PER_MODEL);
        world.tables.look_up_ended(model(1), world.now);
        world
    }

    #[test]
    fn a_want_looks_up_at_once_and_fills_its_places_only() {
        let world = full();
        assert_eq!(world.look_ups, 1);
        assert!(world.tables.wants[&model(1)].look_up_at.is_none(), "full: nothing to look for");
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
        assert_eq!(world.warm(), limits::WARM_PER_MODEL);
        assert!(world.offered.contains(&before[7]), "the slowest has a session");
        assert!(!world.offered.contains(&before[6]));
        assert!(world.contacted.iter().all(|new| world.offered.contains(new)), "newcomers stay");
    }

    #[test]
    fn an_offer_that_is_not_renewed_and_a_silent_provider_end() {
        let mut world = full();
        world.pass(limits::SILENCE - Duration::from_secs(1));
        assert_eq!(world.warm(), limits::WARM_PER_MODEL);
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
        world.tables.want(model(1), world.now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            world.settle();
            world.tables.look_up_ended(model(1), world.now);
            let wake = world.tables.wants[&model(1)].look_up_at.unwrap();
            pauses.push((wake - world.now).as_secs());
            world.pass(wake - world.now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15, 15]);
        let before = world.look_ups;
        world.tables.look_up_ended(model(1), world.now);
        world.tables.index_grew(world.now);
        world.settle();
        assert_eq!(world.look_ups, before + 1);
    }

    #[test]
    fn an_unreachable_candidate_is_replaced_and_left_alone_for_a_while() {
        let mut world = World::new();
        world.tables.want(model(1), world.now);
        world.found(1..20);
        let failed = world.contacted[0];
        world.tables.lost(failed, world.now);
        world.settle();
        assert_eq!(world.contacted.len(), limits::WARM_PER_MODEL + 1, "the next is tried");
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
        assert_eq!(world.contacted.len(), limits::WARM_PER_MODEL);
    }

    #[test]
    fn wants_are_bounded() {
        let mut world = World::new();
        for number in 0..=limits::WANTED_MODELS {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            let wanted = world.tables.want(ModelHash::from_bytes(bytes), world.now);
            assert_eq!(wanted, number < limits::WANTED_MODELS);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Want,
        Unwant,
        Found(u8, u8),
        Offer(u8, u64),
        Lost(u8),
        Ended,
        Grew,
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Want),
            1 => Just(Step::Unwant),
            3 => (1u8..40, 1u8..20).prop_map(|(from, count)| Step::Found(from, count)),
            8 => (1u8..60, 1u64..5).prop_map(|(secret, sequence)| Step::Offer(secret, sequence)),
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
                    Step::Want => { world.tables.want(model(1), now); }
                    Step::Unwant => world.tables.unwant(model(1)),
                    Step::Found(from, count) => world.found(from..from + count),
                    Step::Offer(secret, sequence) => world.offer(secret, sequence, &BTreeSet::new()),
                    Step::Lost(secret) => world.tables.lost(peer(secret), now),
                    Step::Ended => world.tables.look_up_ended(model(1), now),
                    Step::Grew => world.tables.index_grew(now),
                    Step::Pass(secs) => world.pass(Duration::from_secs(secs)),
                }
                world.settle();
                let most = limits::WARM_PER_MODEL + limits::EXPLORE_COUNT;
                prop_assert!(world.tables.peers().count() <= most);
            }
        }
    }
}
