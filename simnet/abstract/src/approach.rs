//! The memory of the next events, asked for before their turns come.
//!
//! Owns: how far ahead to look, and in which order. Must not: change anything: it asks for memory,
//! and that has no effect but that it is near afterwards.
//!
//! With a million hosts nothing that an event needs is in a cache, and each thing is found by a
//! pointer in the one before: session, host, process, role, job. Followed when its event comes, each
//! pointer is a wait of a hundred nanoseconds. So while the events of one slot of the wheel are
//! handled, the pointers of the next slot's are followed, one step at a time and some events apart:
//! when a step reads a pointer, the step before has asked for it some microseconds ago, and nothing
//! waits. A slot's events need some hundred kilobytes, which the processor's second cache holds.

use std::ops::Range;

use simnet_host::{Coming, Host, HostId, Observer};

use crate::event::Event;
use crate::near::{ask, ask_for, touch};
use crate::overlay::{Overlay, index};
use crate::session::Parcel;
use crate::wheel;

/// Pointers from an event to the last thing that is looked at, one after another.
const STEPS: usize = 6;
/// Events that are looked at together, and events between two steps.
const TOGETHER: usize = 8;
/// Events that are handled between two looks ahead.
const EVERY: u32 = 4;
/// The nearest sessions of a host: of more it is not known which will be used.
const SESSIONS: usize = 2;
/// No host.
const NOBODY: u32 = u32::MAX;

/// How far the look ahead is.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// The slot that is looked at.
    slot: usize,
    /// Events of it that each step has reached.
    reached: [usize; STEPS],
    /// Whom the events are for, and what they are to them, as far as the second step has come.
    hosts: Vec<(u32, Coming)>,
    /// Events handled since the last look.
    handled: u32,
}

/// What is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) overlay: &'a Overlay,
    pub(crate) hosts: &'a [Host],
    pub(crate) observer: &'a dyn Observer,
}

impl Ahead {
    /// Before an event is handled.
    #[inline]
    pub(crate) fn step(&mut self, sight: Sight<'_>) {
        let last = sight.overlay.wheel.left() == 0;
        self.handled += 1;
        if self.handled >= EVERY || last {
            self.look(sight, last);
        }
    }

    fn look(&mut self, sight: Sight<'_>, last: bool) {
        self.handled = 0;
        let Some((slot, coming)) = sight.overlay.wheel.coming() else { return };
        if slot != self.slot {
            self.slot = slot;
            self.reached = [0; STEPS];
            self.hosts.clear();
        }
        // What has just been asked for is on its way, so the last step goes first. Only when the slot
        // comes next, what is not done yet is done now, in order.
        let few = if last { usize::MAX } else { TOGETHER };
        for turn in 0..STEPS {
            let step = if last { turn } else { STEPS - 1 - turn };
            let from = self.reached.get(step).copied().unwrap_or(0);
            let before = step.checked_sub(1).and_then(|before| self.reached.get(before));
            let to = before.copied().unwrap_or(coming.len()).min(from.saturating_add(few));
            if from < to {
                self.advance(step, from..to, coming, sight);
                if let Some(reached) = self.reached.get_mut(step) {
                    *reached = to;
                }
            }
        }
    }

    /// Takes a step for these events.
    fn advance(
        &mut self,
        step: usize,
        places: Range<usize>,
        coming: wheel::Coming<'_, Event>,
        Sight { overlay, hosts, observer }: Sight<'_>,
    ) {
        match step {
            0 => coming.events(places).for_each(|event| overlay.approach(*event)),
            1 => {
                for event in coming.events(places) {
                    let host = overlay.host_of(*event).unwrap_or(NOBODY);
                    let coming = meaning(*event);
                    self.hosts.push((host, coming));
                    if let Some(machine) = hosts.get(index(host)) {
                        ask_for(machine);
                        if coming != Coming::Text {
                            overlay.approach_host(host);
                            observer.places(HostId(host), 0).into_iter().for_each(touch);
                        }
                    }
                }
            }
            _ => {
                let ahead = self.hosts.get(places).unwrap_or_default();
                let known = ahead.iter().filter_map(|it| Some((hosts.get(index(it.0))?, *it)));
                for (machine, (host, coming)) in known {
                    match step {
                        2 => {
                            machine.approach(0, coming, &mut ask);
                            if coming == Coming::Other {
                                overlay.approach_sessions(host);
                            }
                        }
                        3 => {
                            machine.approach(1, coming, &mut ask);
                            match coming {
                                Coming::Text => {}
                                Coming::Written => {
                                    observer.places(HostId(host), 1).into_iter().for_each(touch);
                                }
                                Coming::Other => {
                                    overlay.approach_peers(host);
                                    observer.places(HostId(host), 1).into_iter().for_each(touch);
                                }
                            }
                        }
                        4 => machine.approach(2, coming, &mut ask),
                        _ => {
                            machine.approach(3, coming, &mut ask);
                            if coming == Coming::Written {
                                machine
                                    .sessions_served()
                                    .for_each(|it| overlay.approach_served(it));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What an event is to its host.
const fn meaning(event: Event) -> Coming {
    match event {
        Event::Message { to_provider: false, .. } => Coming::Text,
        Event::Alarm { alarm: simnet_host::Alarm::Engine(_), .. } => Coming::Written,
        Event::Alarm { .. }
        | Event::Message { .. }
        | Event::Down { .. }
        | Event::Knock { .. }
        | Event::Answer { .. }
        | Event::Found { .. }
        | Event::Contacted { .. }
        | Event::Offer { .. }
        | Event::Lost { .. }
        | Event::Tables { .. }
        | Event::Push { .. }
        | Event::Indexed { .. }
        | Event::Restart { .. } => Coming::Other,
    }
}

impl Overlay {
    /// What an event names.
    #[inline]
    fn approach(&self, event: Event) {
        match event {
            Event::Message { session, parcel, .. } => {
                self.sessions.approach(session);
                self.parcels.approach(parcel);
            }
            Event::Down { session, .. }
            | Event::Knock { session, .. }
            | Event::Answer { session, .. } => self.sessions.approach(session),
            Event::Alarm { .. }
            | Event::Found { .. }
            | Event::Contacted { .. }
            | Event::Offer { .. }
            | Event::Lost { .. }
            | Event::Tables { .. }
            | Event::Push { .. }
            | Event::Indexed { .. }
            | Event::Restart { .. } => {}
        }
    }

    /// The host that an event is for. Asks for its message on the way.
    #[inline]
    fn host_of(&self, event: Event) -> Option<u32> {
        match event {
            Event::Message { session, to_provider, parcel, .. } => {
                if let Some(Parcel::Message(message)) = self.parcels.get(parcel) {
                    ask_for(&**message);
                }
                self.sessions.get(session).map(|session| session.end(to_provider).0)
            }
            Event::Down { session, to_provider, .. } => {
                self.sessions.get(session).map(|session| session.end(to_provider).0)
            }
            Event::Knock { session, .. } => self.sessions.get(session).map(|it| it.provider),
            Event::Answer { session, .. } => self.sessions.get(session).map(|it| it.consumer),
            Event::Alarm { host, .. }
            | Event::Found { host, .. }
            | Event::Contacted { host, .. }
            | Event::Offer { host, .. }
            | Event::Lost { host, .. }
            | Event::Tables { host, .. }
            | Event::Push { host, .. }
            | Event::Indexed { host, .. }
            | Event::Restart { host, .. } => Some(host),
        }
    }

    /// A host's place in the network.
    fn approach_host(&self, host: u32) {
        if let Some(station) = self.stations.get(index(host)) {
            ask_for(station);
        }
    }

    /// What a host's place in the network points to.
    fn approach_sessions(&self, host: u32) {
        let Some(station) = self.stations.get(index(host)) else { return };
        touch(station.sessions.as_ptr().cast());
        if let Some(tables) = &station.tables {
            ask_for(&**tables);
        }
    }

    /// A host's sessions.
    fn approach_peers(&self, host: u32) {
        let Some(station) = self.stations.get(index(host)) else { return };
        for (_, handle) in station.sessions.iter().rev().take(SESSIONS) {
            self.sessions.approach(*handle);
        }
    }
}
