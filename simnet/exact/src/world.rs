//! What all hosts of a run share: the time, the ledger, the agenda, and the facts not yet told.
//!
//! Owns: these, behind one handle that every node's tasks hold.
//! Must not: decide the order of a run; `run` does.

use std::cell::RefCell;
use std::rc::Rc;

use simnet_host::{Alarm, HostId, Ledger, Observation, Stimulus};
use simnet_scenario::Moment;

use crate::agenda::Agenda;

/// Something that is to happen to a host.
#[derive(Debug)]
pub(crate) enum Entry {
    /// An alarm that its process of this life had set.
    Alarm(HostId, u32, Alarm),
    /// An answer that its process of this life gets.
    Answer(HostId, u32, Box<Stimulus>),
    /// Its process of this life has ended itself, and starts again at this moment, or never.
    Stopped(HostId, u32, Option<Moment>),
    /// It left in this life, and has said goodbye to everybody.
    Gone(HostId, u32),
    /// It starts again, unless it runs by then.
    Restart(HostId),
    /// The liars of the scenario's eclipses begin.
    Eclipse,
}

/// A fact, who states it, and when.
pub(crate) type Fact = (Moment, HostId, Observation);

#[derive(Debug)]
struct Inner {
    ledger: RefCell<Ledger>,
    agenda: RefCell<Agenda<Entry>>,
    facts: RefCell<Vec<Fact>>,
}

/// The shared part of a run. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct World(Rc<Inner>);

impl World {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self(Rc::new(Inner {
            ledger: RefCell::new(ledger),
            agenda: RefCell::default(),
            facts: RefCell::default(),
        }))
    }

    /// The time of the run.
    pub(crate) fn now() -> Moment {
        let nanos = simnet_core::clock::now().as_nanos();
        Moment::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Works with the ledger.
    pub(crate) fn ledger<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.0.ledger.borrow_mut())
    }

    /// Puts something on the agenda.
    pub(crate) fn put(&self, at: Moment, entry: Entry) {
        self.0.agenda.borrow_mut().put(at, entry);
    }

    /// When the next thing of the agenda is due.
    pub(crate) fn next_at(&self) -> Option<Moment> {
        self.0.agenda.borrow().next_at()
    }

    /// The next thing of the agenda, if it is due.
    pub(crate) fn take_due(&self, now: Moment) -> Option<Entry> {
        self.0.agenda.borrow_mut().take_due(now)
    }

    /// States a fact.
    pub(crate) fn state(&self, host: HostId, fact: Observation) {
        self.0.facts.borrow_mut().push((Self::now(), host, fact));
    }

    /// Moves the facts stated since the last call into `told`, whose capacity is used again.
    pub(crate) fn tell(&self, told: &mut Vec<Fact>) {
        told.clear();
        std::mem::swap(&mut *self.0.facts.borrow_mut(), told);
    }
}
