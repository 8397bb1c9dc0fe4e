//! The memory of the next events, asked for before their turns come.
//!
//! Owns: how far ahead to look. Must not: change anything: it reads, and what it reads has no
//! effect but that it is near afterwards.
//!
//! With a million hosts nothing that an event needs is in a cache, and each thing is found by a
//! pointer in the one before: session, host, process, role, job. Followed one event at a time, that
//! is a wait of a hundred nanoseconds for each pointer. Here the first pointers of sixteen events
//! are followed together, then their second ones, and so on; memory answers sixteen such questions
//! in about the time of one.

use std::hint::black_box;

use simnet_host::Host;

use crate::event::Event;
use crate::overlay::{Overlay, index};

/// Events that are looked at together: as many reads as a core has under way.
const TOGETHER: usize = 16;
/// Pointers from a host to what its events change.
const STEPS: u8 = 3;

/// How far the look ahead is.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Events that are near already.
    near: usize,
    hosts: Vec<u32>,
}

impl Ahead {
    /// Before an event is handled.
    pub(crate) fn step(&mut self, overlay: &Overlay, hosts: &[Host]) {
        if let Some(left) = self.near.checked_sub(1) {
            self.near = left;
            return;
        }
        let next = || overlay.wheel.upcoming().take(TOGETHER);
        black_box(next().map(|event| overlay.approach(*event)).sum::<usize>());
        self.near = next().count();
        self.hosts.clear();
        self.hosts.extend(next().filter_map(|event| overlay.host_of(*event)));
        let at_hosts = |host: &u32| overlay.approach_host(*host);
        black_box(self.hosts.iter().map(at_hosts).sum::<usize>());
        for step in 0..=STEPS {
            let reached = self.hosts.iter().filter_map(|host| hosts.get(index(*host)));
            black_box(reached.map(|host| host.approach(step)).sum::<usize>());
        }
    }
}

impl Overlay {
    /// Reads what an event names.
    fn approach(&self, event: Event) -> usize {
        match event {
            Event::Message { session, message, .. } => {
                let there = usize::from(self.messages.get(message).is_some());
                there + usize::from(self.sessions.get(session).is_some())
            }
            Event::Down { session, .. }
            | Event::Knock { session, .. }
            | Event::Answer { session, .. } => usize::from(self.sessions.get(session).is_some()),
            Event::Alarm { .. }
            | Event::Found { .. }
            | Event::Contacted { .. }
            | Event::Offer { .. }
            | Event::Lost { .. }
            | Event::Tables { .. }
            | Event::Push { .. }
            | Event::Indexed { .. }
            | Event::Restart { .. } => 0,
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

    /// Reads a host's place in the network.
    fn approach_host(&self, host: u32) -> usize {
        let station = self.stations.get(index(host)).map_or(0, |it| it.sessions.len());
        station + usize::from(self.paths.is_public(host))
    }
}
