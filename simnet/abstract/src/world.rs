//! The hosts and what happens to them: each event finds its host, and what it does finds the wheel.
//!
//! Owns: what every kind of event means. Must not: decide the order of a run; `run` does.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::directory::Key;
use simnet_host::script::HostEvent;
use simnet_host::{Clock, DialFailure, Host, HostId, HostSpec, Ledger, Observer, Sample, Stimulus};
use simnet_scenario::{Moment, Scenario, Seed};

use crate::approach::{Ahead, Sight};
use crate::calibration::Values;
use crate::carrier::Carrier;
use crate::event::{Answer, Event, Life};
use crate::overlay::{DIAL_TIMEOUT, Overlay, Parting, millis};
use crate::session::{Parcel, State, evidence_bytes};
use crate::still::Still;
use crate::tables::Action;
use crate::trace::Trace;
use crate::traffic::Protocol;

/// Names that an answer of the index holds at most, as the overlay has it. A look-up meets those who
/// keep the records at once, so that it is the whole of what is found.
const ANSWER: usize = 20;
/// A provider's records are published anew after this time, as by the overlay.
const REPUBLISH_EVERY: Duration = Duration::from_secs(30 * 60);
/// A provider tells its subscribers that it lives when it had nothing else to say for this long …
const KEEP_ALIVE_MS: u64 = 30_000;
/// … in so many bytes.
const KEEP_ALIVE_BYTES: u64 = 8;

/// All hosts of a run, the network between them, and the ledger.
pub(crate) struct World<'a> {
    hosts: Vec<Host>,
    pub(crate) overlay: Overlay,
    pub(crate) ledger: Ledger,
    pub(crate) ledger_changed: bool,
    pub(crate) trace: Trace,
    pub(crate) observer: &'a mut dyn Observer,
    stopped: Option<Option<Moment>>,
    ahead: Ahead,
    found: Vec<u32>,
    /// Milliseconds of control streams, for their keep-alives, and when they were counted last.
    streamed: u64,
    counted: Moment,
}

fn index(host: u32) -> usize {
    usize::try_from(host).unwrap_or(usize::MAX)
}

impl<'a> World<'a> {
    pub(crate) fn new(
        scenario: &Scenario,
        seed: Seed,
        specs: Vec<Arc<HostSpec>>,
        values: Values,
        ledger: Ledger,
        observer: &'a mut dyn Observer,
    ) -> Self {
        Self {
            hosts: specs.iter().map(|spec| Host::new(Arc::clone(spec))).collect(),
            overlay: Overlay::new(scenario, seed, specs, values),
            ledger,
            ledger_changed: true,
            trace: Trace::new(),
            observer,
            stopped: None,
            ahead: Ahead::default(),
            found: Vec::new(),
            streamed: 0,
            counted: Moment::START,
        }
    }

    /// Brings the memory near that the next events will need.
    pub(crate) fn approach(&mut self) {
        let Self { overlay, hosts, observer, ahead, .. } = self;
        ahead.step(Sight { overlay, hosts, observer: &**observer });
    }

    /// Stands still, for whoever watches to look.
    pub(crate) fn halt(&mut self, at: Moment) -> ControlFlow<()> {
        let Self { hosts, overlay, observer, .. } = self;
        observer.halt(at, &mut Still { at, hosts, overlay })
    }

    /// A host, and the world as it sees it.
    fn at(&mut self, host: u32) -> Option<(&mut Host, Carrier<'_>)> {
        let machine = self.hosts.get_mut(index(host))?;
        let carrier = Carrier {
            host,
            overlay: &mut self.overlay,
            ledger: &mut self.ledger,
            ledger_changed: &mut self.ledger_changed,
            stopped: &mut self.stopped,
            trace: &mut self.trace,
            observer: &mut *self.observer,
        };
        Some((machine, carrier))
    }

    /// Something happens to a host that runs; what it does about it happens too.
    pub(crate) fn happen(&mut self, host: u32, stimulus: Stimulus) {
        let Some((machine, mut carrier)) = self.at(host) else { return };
        machine.handle(stimulus, &mut carrier);
        if let Some(restart) = self.stopped.take() {
            self.on_stopped(host, restart);
        }
    }

    /// The ledger answers a host, if it still runs.
    pub(crate) fn answer(&mut self, host: u32, input: cocoon_protocol::Input) {
        if self.overlay.runs(host) {
            self.happen(host, Stimulus::Ledger(Box::new(input)));
        }
    }

    /// Something of the script befalls a host.
    pub(crate) fn befall(&mut self, host: HostId, event: HostEvent) {
        let HostId(host) = host;
        match event {
            HostEvent::Start => self.start(host),
            HostEvent::Submit(order) if self.overlay.runs(host) => {
                self.happen(host, Stimulus::Submit(Box::new(order)));
            }
            HostEvent::Cancel(job) if self.overlay.runs(host) => {
                self.happen(host, Stimulus::Cancel(job));
            }
            HostEvent::Leave if self.overlay.runs(host) => self.happen(host, Stimulus::Drain),
            HostEvent::Crash if self.overlay.runs(host) => self.crash(host),
            HostEvent::Submit(_) | HostEvent::Cancel(_) | HostEvent::Leave | HostEvent::Crash => {}
        }
    }

    fn start(&mut self, host: u32) {
        if !self.overlay.runs(host) {
            self.overlay.begin(host);
            self.happen(host, Stimulus::Start);
        }
    }

    fn crash(&mut self, host: u32) {
        let Some((machine, mut carrier)) = self.at(host) else { return };
        machine.crash(&mut carrier);
        self.stopped = None;
        self.overlay.end(host, Parting::Silent);
        self.ledger.crashed(HostId(host));
        self.ledger_changed = true;
    }

    /// A host has ended its own process.
    fn on_stopped(&mut self, host: u32, restart: Option<Moment>) {
        let parting = if restart.is_some() { Parting::Silent } else { Parting::Goodbye };
        self.overlay.end(host, parting);
        self.ledger.crashed(HostId(host));
        self.ledger_changed = true;
        let life = self.overlay.station(host).map(|station| station.life);
        if let Some((at, life)) = restart.zip(life) {
            self.overlay.wheel.push(at, Event::Restart { host, life });
        }
    }

    /// What an event means.
    pub(crate) fn on_event(&mut self, event: Event) {
        match event {
            Event::Alarm { host, life, alarm } => {
                if self.overlay.lives(host, life) {
                    self.happen(host, Stimulus::Alarm(alarm));
                }
            }
            Event::Message { session, serial, to_provider, parcel } => {
                self.on_message(session, serial, to_provider, parcel);
            }
            Event::Down { session, serial, to_provider } => {
                self.on_down(session, serial, to_provider);
            }
            Event::Knock { session, serial } => self.on_knock(session, serial),
            Event::Answer { session, serial, answer } => self.on_answer(session, serial, answer),
            Event::Found { host, life, key } => {
                if self.overlay.lives(host, life) {
                    self.on_found(host, key);
                }
            }
            Event::Contacted { host, life, provider, gave_up } => {
                if self.overlay.lives(host, life) {
                    self.on_contacted(host, life, provider, gave_up);
                }
            }
            Event::Offer { host, life, provider } => {
                if self.overlay.lives(host, life) {
                    self.on_offer(host, provider);
                }
            }
            Event::Lost { host, life, provider } => {
                if self.overlay.lives(host, life) {
                    self.on_lost(host, provider);
                }
            }
            Event::Tables { host, life, generation } => {
                if self.overlay.lives(host, life) {
                    self.on_tables(host, generation);
                }
            }
            Event::Push { host, life } => {
                if self.overlay.lives(host, life) {
                    self.overlay.push_now(host);
                }
            }
            Event::Indexed { host, life } => self.on_indexed(host, life),
            Event::Restart { host, life } => {
                let waits = self.overlay.station(host).is_some_and(|it| it.life == life);
                if waits {
                    self.start(host);
                }
            }
        }
    }

    fn on_message(&mut self, handle: u32, serial: u16, to_provider: bool, parcel: u32) {
        let Some(parcel) = self.overlay.parcels.take(parcel) else { return };
        let found = self.overlay.sessions.get(handle).filter(|it| it.serial == serial);
        // An end that has hung up, or that lives no more, gets nothing more.
        let Some(found) = found.filter(|it| it.is_known(to_provider)) else { return };
        let ((host, _), session) = (found.end(to_provider), found.name(to_provider));
        let stimulus = match parcel {
            Parcel::Piece(piece) => Stimulus::Piece { session, piece },
            Parcel::Message(message) => Stimulus::Heard { session, message },
        };
        self.happen(host, stimulus);
    }

    fn on_down(&mut self, handle: u32, serial: u16, to_provider: bool) {
        let session = self.overlay.sessions.get(handle).filter(|it| it.serial == serial);
        let Some(session) = session else { return };
        let ((host, _), name) = (session.end(to_provider), session.name(to_provider));
        let (known, other_knows) = (session.is_known(to_provider), session.is_known(!to_provider));
        if known {
            self.overlay.forget(host, name, handle);
        }
        if !other_knows {
            self.overlay.sessions.take(handle);
        }
        if known {
            self.happen(host, Stimulus::SessionDown { session: name });
        }
    }

    fn on_knock(&mut self, handle: u32, serial: u16) {
        let session = self.overlay.sessions.get(handle).filter(|it| it.serial == serial);
        let Some(session) = session else { return };
        let (consumer, provider) = (session.consumer, session.provider);
        let back = self.overlay.paths.one_way(provider, consumer);
        let timeout = u64::try_from(DIAL_TIMEOUT.as_nanos()).unwrap_or(u64::MAX);
        let door = self.hosts.get(index(provider)).map(Host::door);
        let (answer, wait) = match door {
            _ if !self.overlay.reaches(consumer, provider) => (Answer::Unreachable, timeout),
            Some(Ok(())) => (Answer::Open, back),
            Some(Err(DialFailure::Busy)) => (Answer::Busy, back),
            Some(Err(DialFailure::Unreachable)) | None => (Answer::Unreachable, back),
        };
        let Some(evidence) = self.hosts.get(index(provider)).filter(|_| answer == Answer::Open)
        else {
            self.overlay.after(wait, Event::Answer { session: handle, serial, answer });
            return;
        };
        let tier = evidence.spec().provider.as_ref().map(|it| it.tier);
        let bytes = tier.map_or(0, evidence_bytes);
        let peer = self.overlay.spec(consumer).map(|spec| spec.key.id());
        let Some((accepted, peer)) = self.overlay.accept(handle).zip(peer) else { return };
        self.overlay.traffic.add(Protocol::Session, bytes);
        let overlay = &mut self.overlay;
        let flight = overlay.paths.flight(provider, consumer, bytes, &mut overlay.draws);
        let at = overlay.now.after(Duration::from_nanos(flight));
        let at = overlay.sessions.get_mut(handle).map_or(at, |it| it.arrival(false, at));
        overlay.wheel.push(at, Event::Answer { session: handle, serial, answer });
        self.happen(provider, Stimulus::SessionAccepted { session: accepted, peer });
    }

    fn on_answer(&mut self, handle: u32, serial: u16, answer: Answer) {
        let session = self.overlay.sessions.get(handle).filter(|it| it.serial == serial);
        let Some(session) = session.cloned() else { return };
        let (consumer, name) = (session.consumer, session.dialled);
        if !self.overlay.lives(consumer, session.consumer_life) {
            if session.state == State::Dialling {
                self.overlay.sessions.take(handle);
            }
            return;
        }
        if !session.is_known(false) {
            return;
        }
        let provider = self.hosts.get(index(session.provider));
        let shown = provider.map(|it| (it.node(), it.evidence()));
        let failure = match (answer, shown) {
            (Answer::Open, Some((peer, Some(evidence)))) => {
                self.happen(
                    consumer,
                    Stimulus::SessionUp { session: name, peer, evidence: Box::new(evidence) },
                );
                return;
            }
            (Answer::Busy, _) => DialFailure::Busy,
            (Answer::Open | Answer::Unreachable, _) => DialFailure::Unreachable,
        };
        self.overlay.forget(consumer, name, handle);
        self.overlay.sessions.take(handle);
        if let Some((peer, _)) = shown {
            self.happen(consumer, Stimulus::DialFailed { session: name, peer, failure });
        }
    }

    fn on_found(&mut self, host: u32, key: Key) {
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        let overlay = &mut self.overlay;
        let most = ANSWER;
        match overlay.poison.answer(host, &mut overlay.draws) {
            Some(attackers) => found.extend(attackers.iter().take(most)),
            None => {
                let (now, draws) = (overlay.now, &mut overlay.draws);
                overlay.directory.answer(key, most, now, draws, &mut found);
            }
        }
        found.retain(|provider| *provider != host);
        let now = millis(overlay.now);
        let station = overlay.stations.get_mut(index(host));
        if let Some(tables) = station.and_then(|station| station.tables.as_mut()) {
            tables.found(key, &found, now, &mut overlay.draws, &mut overlay.actions);
        }
        self.found = found;
        self.carry_out(host);
    }

    fn on_contacted(&mut self, host: u32, life: Life, provider: u32, gave_up: bool) {
        let knows = self.overlay.tables(host).is_some_and(|tables| tables.knows(provider));
        if !knows {
            return;
        }
        if gave_up {
            self.lose(host, provider);
            return;
        }
        if !self.overlay.reaches(host, provider) {
            // Nobody answers: the dial is given up when its time is over.
            let timeout = u64::try_from(DIAL_TIMEOUT.as_nanos()).unwrap_or(u64::MAX);
            let gave_up = true;
            self.overlay.after(timeout, Event::Contacted { host, life, provider, gave_up });
            return;
        }
        let offering = self.overlay.station(provider).and_then(|station| station.offering.as_ref());
        let offered = offering.map(|it| (Arc::clone(&it.current), it.range));
        let Some((offer, range)) = offered else {
            self.lose(host, provider);
            return;
        };
        let now = millis(self.overlay.now);
        let round_trip = self.overlay.paths.round_trip(host, provider) / 1_000;
        let round_trip = u32::try_from(round_trip).unwrap_or(u32::MAX).max(1);
        let wanted = self.is_believed(host, &offer)
            && self.overlay.subscribe(host, provider)
            && self
                .overlay
                .tables(host)
                .is_some_and(|it| it.offer(provider, range, now, round_trip));
        if !wanted {
            self.lose(host, provider);
            return;
        }
        self.happen(host, Stimulus::OfferHeard(offer));
        let overlay = &mut self.overlay;
        let mut actions = std::mem::take(&mut overlay.actions);
        if let Some(mut tables) = overlay.station(host).and_then(|it| it.tables.take()) {
            let is_protected = |it| overlay.is_protected(host, it);
            tables.make_room(provider, now, is_protected, &mut actions);
            if let Some(station) = overlay.station(host) {
                station.tables = Some(tables);
            }
        }
        overlay.actions = actions;
        self.carry_out(host);
    }

    /// Whether an offer's times make sense to a host's own clock.
    fn is_believed(&self, host: u32, offer: &cocoon_protocol::offer::VerifiedOffer) -> bool {
        let Some(spec) = self.overlay.spec(host) else { return false };
        let now = Clock::new(spec.skew_ms).timestamp(self.overlay.now);
        let offer = offer.offer();
        offer.expires > now && offer.issued <= now.after(cocoon_protocol::limits::CLOCK_SKEW)
    }

    fn on_offer(&mut self, host: u32, provider: u32) {
        let knows = self.overlay.tables(host).is_some_and(|tables| tables.knows(provider));
        let offering = self.overlay.station(provider).and_then(|station| station.offering.as_ref());
        let offer = offering.map(|it| Arc::clone(&it.current)).filter(|_| knows);
        let Some(offer) = offer else { return };
        if self.is_believed(host, &offer) {
            self.happen(host, Stimulus::OfferHeard(offer));
        } else {
            self.lose(host, provider);
        }
    }

    fn on_lost(&mut self, host: u32, provider: u32) {
        let knows = self.overlay.tables(host).is_some_and(|tables| tables.knows(provider));
        if knows {
            self.lose(host, provider);
        }
    }

    fn lose(&mut self, host: u32, provider: u32) {
        let overlay = &mut self.overlay;
        let now = millis(overlay.now);
        let station = overlay.stations.get_mut(index(host));
        if let Some(tables) = station.and_then(|station| station.tables.as_mut()) {
            tables.lost(provider, now, &mut overlay.draws, &mut overlay.actions);
        }
        self.carry_out(host);
    }

    fn on_tables(&mut self, host: u32, generation: u32) {
        let overlay = &mut self.overlay;
        let now = millis(overlay.now);
        let station = overlay.stations.get_mut(index(host));
        let tables = station.and_then(|station| station.tables.as_mut());
        if let Some(tables) = tables.filter(|tables| tables.generation == generation) {
            tables.tick(now, &mut overlay.actions);
            self.carry_out(host);
        }
    }

    /// Carries out what a host's tables want, and tells it which offers are no longer current.
    fn carry_out(&mut self, host: u32) {
        self.overlay.carry_out(host);
        let gone = std::mem::take(&mut self.overlay.actions);
        for action in &gone {
            let Action::Gone(provider) = action else { continue };
            if let Some(node) = self.overlay.spec(*provider).map(|spec| spec.key.id()) {
                self.happen(host, Stimulus::OfferLost(node));
            }
        }
        if self.overlay.actions.is_empty() {
            self.overlay.actions = gone;
            self.overlay.actions.clear();
        }
    }

    fn on_indexed(&mut self, host: u32, life: Life) {
        if !self.overlay.lives(host, life) {
            return;
        }
        let overlay = &mut self.overlay;
        let offering = overlay.stations.get(index(host)).and_then(|it| it.offering.as_ref());
        // The index names nobody without an address, and who cannot be dialled has none to give.
        let offering = offering.filter(|_| overlay.paths.is_public(host));
        let Some(range) = offering.map(|it| it.range) else { return };
        overlay.directory.publish(range, host, overlay.now);
        let again = u64::try_from(REPUBLISH_EVERY.as_nanos()).unwrap_or(u64::MAX);
        overlay.after(again, Event::Indexed { host, life });
    }

    /// The network as a whole, now.
    pub(crate) fn sample(&mut self) -> Sample {
        let overlay = &mut self.overlay;
        let passed = u64::try_from(overlay.now.since(self.counted).as_millis()).unwrap_or(0);
        self.counted = overlay.now;
        self.streamed += passed * overlay.subscriptions;
        let keep_alives = self.streamed / KEEP_ALIVE_MS;
        self.streamed %= KEEP_ALIVE_MS;
        overlay.traffic.add_many(Protocol::Control, KEEP_ALIVE_BYTES, keep_alives);
        overlay.background(passed);
        let unseen = u64::from(overlay.running) * overlay.values.connections / 1_000;
        Sample {
            at: overlay.now,
            hosts: overlay.running,
            connections: overlay.subscriptions + unseen,
            traffic: overlay.traffic.table(),
        }
    }
}
