//! Where a run stands still for whoever watches, and how it goes on as if it had not.
//!
//! Owns: the stop, and that no step goes beyond it.
//! Must not: change the order of a run: what would have come next comes next.
//!
//! A step polls the tasks that are ready and then takes the network's next event: a stop may lie
//! between the two, and the rest of the step follows it.

use std::ops::ControlFlow;
use std::time::Duration;

use simnet_host::Observer;
use simnet_scenario::Moment;

use super::{Run, RunError};
use crate::still::Still;
use crate::world::World;

impl Run<'_> {
    /// Asks where to stand still next.
    pub(super) fn plan_stop(&mut self, observer: &dyn Observer) {
        let stop = observer.halt_at();
        self.stop = stop.map_or(Moment::NEVER, |at| at.max(World::now()).min(self.until));
    }

    /// A step of the network that goes neither beyond the stop nor beyond what is due beside it;
    /// false when it would have to.
    ///
    /// The tasks that are ready run before it is known what is due: they may want something sooner
    /// than the network's next event.
    pub(super) fn step(&mut self) -> Result<bool, RunError> {
        let up_to = |at: Moment| Duration::from_nanos(at.as_nanos());
        if self.simulation.step_up_to(up_to(World::now()))? {
            return Ok(true);
        }
        let until = self.next_at().min(self.stop);
        Ok(self.simulation.step_up_to(up_to(until))?)
    }

    /// Whether everything up to the stop has happened.
    pub(super) fn has_arrived(&self) -> bool {
        let stop = Duration::from_nanos(self.stop.as_nanos());
        self.stop < self.until
            && World::now() >= self.stop
            && self.next_at() > self.stop
            && self.simulation.next_moment().is_none_or(|at| at > stop)
    }

    /// Stands still at the stop. At the end there is nothing to go on to, whoever looks.
    pub(super) fn halt_at_stop(&mut self, observer: &mut dyn Observer) -> ControlFlow<()> {
        let flow = self.show(self.stop, observer);
        if self.stop >= self.until {
            self.stop = Moment::NEVER;
            return ControlFlow::Continue(());
        }
        self.plan_stop(observer);
        flow
    }

    /// Stands still after an event.
    pub(super) fn halt(&mut self, observer: &mut dyn Observer) -> ControlFlow<()> {
        let flow = self.show(World::now(), observer);
        self.plan_stop(observer);
        flow
    }

    /// The run is at its end.
    pub(super) fn finish(&mut self, observer: &mut dyn Observer) {
        if self.stop <= self.until {
            let _over = self.halt_at_stop(observer);
        }
    }

    fn show(&self, at: Moment, observer: &mut dyn Observer) -> ControlFlow<()> {
        observer.halt(at, &mut Still { at, nodes: &self.nodes })
    }
}
