//! The modelled overlay: what every host's place in the network is, and what is on its way.
//!
//! Owns: tables, offers, sessions, paths and the wheel. Must not: call a host; `world` does.

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::identity::NodeId;
use cocoon_protocol::offer::VerifiedOffer;
use simnet_host::{HostSpec, SessionId};
use simnet_scenario::{Moment, Scenario, Seed};

use crate::calibration::Values;
use crate::directory::{Directory, Key, Range};
use crate::draws::Draws;
use crate::event::{Event, Life};
use crate::path::Paths;
use crate::poison::Poison;
use crate::session::{Parcel, Session, State};
use crate::slab::Slab;
use crate::tables::{Action, Millis, Tables};
use crate::traffic::{Protocol, Traffic};
use crate::wheel::Wheel;

/// Shortest time between two pushed offers of one provider, as the overlay has it.
const PUSH_EVERY: Duration = Duration::from_secs(5);
/// Subscribers that a provider takes: control streams, as the overlay has them.
const SUBSCRIBERS: usize = 2_000;
/// A dial without an answer is given up, as by the exact tier's transport.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Nothing is heard on a connection for this long: it is over. A connection without traffic shows
/// every five seconds that it lives, so a peer's end is noticed five to ten seconds later.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE_NS: u64 = 5_000_000_000;
/// Processor time of a new connection at both ends.
pub(crate) const HANDSHAKE_NS: u64 = 2_000_000;
/// Time of a provider's processor and TEE for its evidence, as `Host::attestation` has it.
pub(crate) const ATTESTING_NS: u64 = 2_000_000;
/// Bytes of a new connection, there and back.
pub(crate) const HANDSHAKE_BYTES: u64 = 6_000;
/// Bytes of a subscription: two streams' negotiation, the verdict, the word itself.
const SUBSCRIPTION_BYTES: u64 = 160;
/// Bytes around an offer.
const OFFER_FRAME_BYTES: u64 = 6;

/// How the others hear that a host has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// It closes its connections.
    Goodbye,
    /// It falls silent.
    Silent,
}

/// A host's place in the network.
#[derive(Debug, Default)]
pub(crate) struct Station {
    pub(crate) life: Life,
    pub(crate) runs: bool,
    /// What it looks for, once it does.
    pub(crate) tables: Option<Box<Tables>>,
    /// What it offers, once it does.
    pub(crate) offering: Option<Box<Offering>>,
    /// Its sessions by its own numbers, and their handles.
    pub(crate) sessions: Vec<(SessionId, u32)>,
}

/// What a provider offers, and to whom.
#[derive(Debug)]
pub(crate) struct Offering {
    pub(crate) current: Arc<VerifiedOffer>,
    /// What it meets.
    pub(crate) range: Range,
    pub(crate) subscribers: Vec<u32>,
    next_push: Moment,
    push_due: bool,
    /// An event waits for the pace to allow the next push.
    push_waits: bool,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Overlay {
    pub(crate) now: Moment,
    pub(crate) wheel: Wheel<Event>,
    pub(crate) stations: Vec<Station>,
    pub(crate) specs: Vec<Arc<HostSpec>>,
    pub(crate) paths: Paths,
    pub(crate) directory: Directory,
    pub(crate) poison: Poison,
    pub(crate) values: Values,
    pub(crate) draws: Draws,
    pub(crate) traffic: Traffic,
    pub(crate) sessions: Slab<Session>,
    pub(crate) parcels: Slab<Parcel>,
    pub(crate) actions: Vec<Action>,
    /// Control streams.
    pub(crate) subscriptions: u64,
    /// Hosts that run.
    pub(crate) running: u32,
    /// Sessions accepted so far, and dials.
    pub(crate) accepted: u64,
    pub(crate) serials: u16,
    numbers: Numbers,
}

pub(crate) fn index(host: u32) -> usize {
    usize::try_from(host).unwrap_or(usize::MAX)
}

/// A moment as the tables have it.
pub(crate) fn millis(at: Moment) -> Millis {
    Millis::try_from(at.as_millis()).unwrap_or(Millis::MAX)
}

impl Overlay {
    pub(crate) fn new(
        scenario: &Scenario,
        seed: Seed,
        specs: Vec<Arc<HostSpec>>,
        values: Values,
    ) -> Self {
        let models = simnet_host::population::models(scenario);
        Self {
            now: Moment::START,
            wheel: Wheel::default(),
            stations: specs.iter().map(|_| Station::default()).collect(),
            paths: Paths::new(scenario, &specs),
            directory: Directory::new(models.iter().map(|model| model.hash), specs.len()),
            poison: Poison::new(scenario, &specs, values.poisoned_ppm),
            numbers: Numbers::new(&specs),
            values,
            draws: Draws::new(seed.bytes("overlay", 0)),
            traffic: Traffic::default(),
            sessions: Slab::default(),
            parcels: Slab::default(),
            actions: Vec::new(),
            subscriptions: 0,
            running: 0,
            accepted: 0,
            serials: 0,
            specs,
        }
    }

    pub(crate) fn station(&mut self, host: u32) -> Option<&mut Station> {
        self.stations.get_mut(index(host))
    }

    /// What a host is.
    pub(crate) fn spec(&self, host: u32) -> Option<&HostSpec> {
        self.specs.get(index(host)).map(|spec| &**spec)
    }

    /// A host's tables.
    pub(crate) fn tables(&mut self, host: u32) -> Option<&mut Tables> {
        self.station(host).and_then(|station| station.tables.as_deref_mut())
    }

    /// Accounts for what a network of this size sends besides the messages of the model.
    pub(crate) fn background(&mut self, millis: u64) {
        let rates = self.values.background;
        self.traffic.background(rates, u64::from(self.running) * millis);
    }

    /// Whether a host still lives the life that something was meant for.
    pub(crate) fn lives(&self, host: u32, life: Life) -> bool {
        self.stations.get(index(host)).is_some_and(|it| it.runs && it.life == life)
    }

    pub(crate) fn runs(&self, host: u32) -> bool {
        self.stations.get(index(host)).is_some_and(|station| station.runs)
    }

    /// The provider with this identity.
    pub(crate) fn provider(&self, node: NodeId) -> Option<u32> {
        self.numbers.find(&self.specs, node)
    }

    /// Whether a dial from one host reaches another.
    pub(crate) fn reaches(&self, from: u32, to: u32) -> bool {
        self.runs(to) && self.paths.is_public(to) && self.paths.connected(from, to)
    }

    pub(crate) fn after(&mut self, nanos: u64, event: Event) {
        self.wheel.push(self.now.after_nanos(nanos), event);
    }

    /// How long a connection's other end takes to notice that nobody is there any more.
    pub(crate) fn silence(&mut self) -> u64 {
        let idle = u64::try_from(IDLE_TIMEOUT.as_nanos()).unwrap_or(u64::MAX);
        idle - self.draws.below(KEEP_ALIVE_NS)
    }

    // Discovery, the consumer's side.

    /// A host wants providers.
    pub(crate) fn want(&mut self, host: u32, key: Key) {
        let now = millis(self.now);
        let mut actions = std::mem::take(&mut self.actions);
        if let Some(station) = self.station(host) {
            station.tables.get_or_insert_default().want(key, now, &mut actions);
        }
        self.actions = actions;
        self.carry_out(host);
    }

    /// A provider is not what its offer says: it leaves the host's tables, and others are looked for.
    pub(crate) fn avoid(&mut self, host: u32, provider: u32) {
        let now = millis(self.now);
        let Self { stations, draws, actions, .. } = self;
        let station = stations.get_mut(index(host));
        if let Some(tables) = station.and_then(|it| it.tables.as_deref_mut()) {
            tables.avoid(provider, now, draws, actions);
        }
        // The host itself has told that it knows the provider no more.
        self.actions.retain(|action| !matches!(action, Action::Gone(_)));
        self.carry_out(host);
    }

    /// Carries out what a host's tables want; providers that are gone are left for the caller.
    pub(crate) fn carry_out(&mut self, host: u32) {
        let mut actions = std::mem::take(&mut self.actions);
        let Some(life) = self.station(host).map(|station| station.life) else { return };
        actions.retain(|action| {
            match *action {
                Action::LookUp(key) => {
                    let wait = self.values.look_up(&mut self.draws);
                    self.after(wait, Event::Found { host, life, key });
                }
                Action::Contact(provider) => {
                    let gave_up = false;
                    let trip = self.paths.round_trip(host, provider);
                    let trips = self.values.contact(&mut self.draws);
                    let wait = trip * trips / 1_000 + HANDSHAKE_NS;
                    self.traffic.add(Protocol::Handshake, HANDSHAKE_BYTES);
                    self.traffic.add(Protocol::Control, SUBSCRIPTION_BYTES);
                    self.after(wait, Event::Contacted { host, life, provider, gave_up });
                }
                Action::Leave(provider) => self.unsubscribe(host, provider),
                Action::Gone(_) => return true,
            }
            false
        });
        self.actions = actions;
        self.set_alarm(host);
    }

    fn set_alarm(&mut self, host: u32) {
        let Some(station) = self.station(host) else { return };
        let life = station.life;
        let Some(tables) = &mut station.tables else { return };
        if let Some(due) = tables.need_alarm() {
            let generation = tables.generation;
            let at = Moment::from_millis(due.into());
            self.wheel.push(at.max(self.now), Event::Tables { host, life, generation });
        }
    }

    /// Whether a host has an open session with a provider: then its offer is not given up.
    pub(crate) fn is_protected(&self, host: u32, provider: u32) -> bool {
        let station = self.stations.get(index(host));
        let mut handles =
            station.into_iter().flat_map(|it| &it.sessions).map(|(_, handle)| *handle);
        handles.any(|handle| {
            self.sessions
                .get(handle)
                .is_some_and(|it| it.consumer == host && it.provider == provider)
        })
    }

    // Discovery, the provider's side.

    /// A provider's new offer.
    pub(crate) fn publish(&mut self, host: u32, offer: Arc<VerifiedOffer>) {
        let numbers = offer.offer().models.iter();
        let numbers = numbers.filter_map(|it| self.directory.number(it.model));
        let range = Range::new(numbers, offer.offer().tier);
        let now = self.now;
        let Some(station) = self.stations.get_mut(index(host)) else { return };
        let life = station.life;
        match &mut station.offering {
            Some(offering) => {
                offering.current = offer;
                offering.range = range;
                offering.push_due = true;
                self.push(host);
            }
            None => {
                let next_push = now.after(PUSH_EVERY);
                station.offering = Some(Box::new(Offering {
                    current: offer,
                    range,
                    subscribers: Vec::new(),
                    next_push,
                    push_due: false,
                    push_waits: false,
                }));
                // To publish is to look for the nodes that keep the record, and one more flight.
                let wait = self.values.look_up(&mut self.draws);
                self.after(wait, Event::Indexed { host, life });
            }
        }
    }

    /// Pushes a provider's offer to its subscribers, now or as soon as the pace allows.
    pub(crate) fn push(&mut self, host: u32) {
        let now = self.now;
        let Some(station) = self.stations.get_mut(index(host)) else { return };
        let life = station.life;
        let Some(offering) = &mut station.offering else { return };
        if !offering.push_due {
            return;
        }
        if offering.next_push > now {
            if !std::mem::replace(&mut offering.push_waits, true) {
                let at = offering.next_push;
                self.wheel.push(at, Event::Push { host, life });
            }
            return;
        }
        self.push_now(host);
    }

    /// Pushes a provider's offer now.
    pub(crate) fn push_now(&mut self, host: u32) {
        let now = self.now;
        let Some(station) = self.stations.get_mut(index(host)) else { return };
        let Some(offering) = &mut station.offering else { return };
        if !std::mem::take(&mut offering.push_due) {
            return;
        }
        offering.next_push = now.after(PUSH_EVERY);
        offering.push_waits = false;
        let bytes = u64::try_from(offering.current.signed().as_bytes().len()).unwrap_or(0);
        let subscribers = std::mem::take(&mut offering.subscribers);
        let count = u64::try_from(subscribers.len()).unwrap_or(0);
        self.traffic.add_many(Protocol::Control, bytes + OFFER_FRAME_BYTES, count);
        for subscriber in &subscribers {
            let Some(life) = self.station(*subscriber).map(|station| station.life) else {
                continue;
            };
            if self.paths.connected(host, *subscriber) {
                let wait = self.paths.flight(host, *subscriber, bytes, &mut self.draws);
                self.after(wait, Event::Offer { host: *subscriber, life, provider: host });
            }
        }
        if let Some(offering) = self.station(host).and_then(|it| it.offering.as_mut()) {
            offering.subscribers = subscribers;
        }
    }

    /// A consumer subscribes to a provider's offer. False when the provider has no room.
    pub(crate) fn subscribe(&mut self, consumer: u32, provider: u32) -> bool {
        let offering = self.stations.get_mut(index(provider)).and_then(|it| it.offering.as_mut());
        let Some(offering) = offering else { return false };
        if offering.subscribers.len() >= SUBSCRIBERS {
            return false;
        }
        if !offering.subscribers.contains(&consumer) {
            offering.subscribers.push(consumer);
            self.subscriptions += 1;
        }
        let bytes = u64::try_from(offering.current.signed().as_bytes().len()).unwrap_or(0);
        self.traffic.add(Protocol::Control, bytes + OFFER_FRAME_BYTES);
        true
    }

    pub(crate) fn unsubscribe(&mut self, consumer: u32, provider: u32) {
        let offering = self.stations.get_mut(index(provider)).and_then(|it| it.offering.as_mut());
        let Some(offering) = offering else { return };
        if let Some(at) = offering.subscribers.iter().position(|it| *it == consumer) {
            offering.subscribers.swap_remove(at);
            self.subscriptions -= 1;
        }
    }

    // Lives.

    /// A host's process begins.
    pub(crate) fn begin(&mut self, host: u32) {
        let Some(station) = self.stations.get_mut(index(host)) else { return };
        station.runs = true;
        station.life = station.life.wrapping_add(1);
        self.running += 1;
    }

    /// A host's process is gone: what is left of it is dropped, and the others hear of it.
    pub(crate) fn end(&mut self, host: u32, parting: Parting) {
        let Some(station) = self.stations.get_mut(index(host)) else { return };
        if !station.runs {
            return;
        }
        station.runs = false;
        station.life = station.life.wrapping_add(1);
        self.running -= 1;
        let (tables, offering) = (station.tables.take(), station.offering.take());
        let sessions = std::mem::take(&mut station.sessions);
        for (name, handle) in sessions {
            let dialling = self.sessions.get(handle).is_some_and(|it| it.state == State::Dialling);
            if dialling {
                self.sessions.take(handle);
            } else {
                if let Some(session) = self.sessions.get_mut(handle) {
                    session.set_known(name.is_accepted(), false);
                }
                self.close(host, name, handle, parting);
            }
        }
        for provider in tables.iter().flat_map(|tables| tables.hosts()) {
            self.unsubscribe(host, provider);
        }
        let Some(offering) = offering else { return };
        self.subscriptions -= u64::try_from(offering.subscribers.len()).unwrap_or(0);
        for subscriber in offering.subscribers {
            self.part(host, subscriber, parting);
        }
    }

    /// A subscriber will notice that a provider is gone.
    fn part(&mut self, provider: u32, subscriber: u32, parting: Parting) {
        let Some(life) = self.station(subscriber).map(|station| station.life) else { return };
        let wait = match parting {
            Parting::Goodbye => self.paths.one_way(provider, subscriber),
            Parting::Silent => self.silence(),
        };
        self.after(wait, Event::Lost { host: subscriber, life, provider });
    }

    /// After a cut has begun: everything that crosses it falls silent.
    pub(crate) fn fall_silent(&mut self) {
        for provider in 0..self.stations.len() {
            let provider = u32::try_from(provider).unwrap_or(u32::MAX);
            let offering = self.station(provider).and_then(|station| station.offering.as_mut());
            let subscribers = offering.map(|it| it.subscribers.clone()).unwrap_or_default();
            for subscriber in subscribers {
                if !self.paths.connected(provider, subscriber) {
                    self.part(provider, subscriber, Parting::Silent);
                }
            }
        }
        for handle in self.sessions.handles() {
            let Some(session) = self.sessions.get(handle).cloned() else { continue };
            let crosses = !self.paths.connected(session.consumer, session.provider);
            if !crosses || session.state != State::Open {
                continue;
            }
            // Both ends notice, each for itself.
            for to_provider in [true, false] {
                let wait = self.silence();
                let serial = session.serial;
                self.after(wait, Event::Down { session: handle, serial, to_provider });
            }
        }
    }
}

/// Identities of providers, and who they are: a table without an order, for finding only.
#[derive(Debug)]
struct Numbers {
    /// Host numbers plus one, at the place that the identity's first bytes say or behind it.
    places: Vec<u32>,
}

impl Numbers {
    fn new(specs: &[Arc<HostSpec>]) -> Self {
        let providers = specs.iter().filter(|spec| spec.provider.is_some());
        let size = (providers.clone().count() * 2).next_power_of_two().max(16);
        let mut numbers = Self { places: vec![0; size] };
        for spec in providers {
            let mut place = numbers.place(spec.key.id());
            while numbers.places.get(place).is_some_and(|it| *it != 0) {
                place = (place + 1) & (size - 1);
            }
            if let Some(free) = numbers.places.get_mut(place) {
                *free = spec.id.0 + 1;
            }
        }
        numbers
    }

    fn place(&self, node: NodeId) -> usize {
        let [a, b, c, d, ..] = *node.as_bytes();
        index(u32::from_be_bytes([a, b, c, d])) & (self.places.len() - 1)
    }

    fn find(&self, specs: &[Arc<HostSpec>], node: NodeId) -> Option<u32> {
        let mut place = self.place(node);
        loop {
            let number = self.places.get(place)?.checked_sub(1)?;
            if specs.get(index(number)).is_some_and(|spec| spec.key.id() == node) {
                return Some(number);
            }
            place = (place + 1) & (self.places.len() - 1);
        }
    }
}
