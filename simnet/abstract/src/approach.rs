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

use simnet_host::{Alarm, Coming, Host, HostId, Observer};

use crate::event::Event;
use crate::near::{ask, ask_for};
use crate::overlay::{Overlay, index};

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
    /// Whom the events are for, as far as the second step has come.
    hosts: Vec<u32>,
    /// Events handled since the last look.
    handled: u32,
}

impl Ahead {
    /// Before an event is handled.
    pub(crate) fn step(&mut self, overlay: &Overlay, hosts: &[Host], observer: &dyn Observer) {
        let last = overlay.wheel.left() == 0;
        self.handled += 1;
        if self.handled < EVERY && !last {
            return;
        }
        self.handled = 0;
        let Some((slot, count)) = overlay.wheel.coming() else { return };
        if slot != self.slot {
            self.slot = slot;
            self.reached = [0; STEPS];
            self.hosts.clear();
        }
        if last {
            // The slot comes next: what is not done yet is done now.
            for step in 0..STEPS {
                self.advance(step, count, overlay, hosts, observer);
            }
        } else {
            for step in (0..STEPS).rev() {
                let before = step.checked_sub(1).and_then(|before| self.reached.get(before));
                let from = self.reached.get(step).copied().unwrap_or(count);
                let to = before.copied().unwrap_or(count).min(from + TOGETHER);
                self.advance(step, to, overlay, hosts, observer);
            }
        }
    }

    /// Takes a step for all events up to this one.
    fn advance(
        &mut self,
        step: usize,
        to: usize,
        overlay: &Overlay,
        hosts: &[Host],
        observer: &dyn Observer,
    ) {
        let Some(reached) = self.reached.get_mut(step) else { return };
        let from = std::mem::replace(reached, to.max(*reached));
        for place in from..to {
            let Some(event) = overlay.wheel.coming_event(place) else { return };
            if step == 0 {
                overlay.approach(*event);
                continue;
            }
            if step == 1 {
                self.hosts.push(overlay.host_of(*event).unwrap_or(NOBODY));
            }
            let Some(host) = self.hosts.get(place).copied().filter(|it| *it != NOBODY) else {
                continue;
            };
            let Some(machine) = hosts.get(index(host)) else { continue };
            let coming = coming(*event);
            // A text is neither answered nor recorded.
            let speaks = coming != Coming::Text;
            match step {
                1 => {
                    overlay.approach_message(*event);
                    overlay.approach_host(host, speaks);
                    ask_for(machine);
                    if speaks {
                        observer.approach(HostId(host), 0, &mut ask);
                    }
                }
                2 => {
                    overlay.approach_sessions(host, coming == Coming::Other);
                    machine.approach(0, coming, &mut ask);
                }
                3 => {
                    if speaks {
                        overlay.approach_peers(host);
                        observer.approach(HostId(host), 1, &mut ask);
                    }
                    machine.approach(1, coming, &mut ask);
                }
                4 => {
                    if speaks {
                        overlay.approach_paths(host);
                    }
                    machine.approach(2, coming, &mut ask);
                }
                _ => machine.approach(3, coming, &mut ask),
            }
        }
    }
}

/// What an event is to its host.
const fn coming(event: Event) -> Coming {
    match event {
        Event::Message { to_provider: false, .. } => Coming::Text,
        Event::Alarm { alarm: Alarm::Engine(_), .. } => Coming::Written,
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
    fn approach(&self, event: Event) {
        match event {
            Event::Message { session, message, .. } => {
                self.sessions.approach(session);
                self.messages.approach(message);
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

    /// The message that an event brings.
    fn approach_message(&self, event: Event) {
        if let Event::Message { message, .. } = event
            && let Some(message) = self.messages.get(message)
        {
            ask_for(&**message);
        }
    }

    /// The host that an event is for.
    fn host_of(&self, event: Event) -> Option<u32> {
        match event {
            Event::Message { session, to_provider, .. }
            | Event::Down { session, to_provider, .. } => {
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
    fn approach_host(&self, host: u32, speaks: bool) {
        if let Some(station) = self.stations.get(index(host)) {
            ask_for(station);
        }
        if speaks {
            self.paths.approach(host);
        }
    }

    /// What a host's place in the network points to.
    fn approach_sessions(&self, host: u32, with_tables: bool) {
        let Some(station) = self.stations.get(index(host)) else { return };
        ask(station.sessions.as_ptr().cast(), size_of_val(&*station.sessions));
        if let Some(tables) = station.tables.as_ref().filter(|_| with_tables) {
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

    /// Where a host's peers are.
    fn approach_paths(&self, host: u32) {
        let Some(station) = self.stations.get(index(host)) else { return };
        for (_, handle) in station.sessions.iter().rev().take(SESSIONS) {
            if let Some(session) = self.sessions.get(*handle) {
                let other =
                    if session.consumer == host { session.provider } else { session.consumer };
                self.paths.approach(other);
            }
        }
    }
}
