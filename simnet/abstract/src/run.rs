//! A run of the abstract tier: the loop around the wheel, and what the world does to it.
//!
//! Owns: the order of a run, samples, and what the caller hears of it.
//! Must not: know what hosts decide.
//!
//! The order, at every moment: first the events of the network, then the ledger's blocks, the
//! script, and the sample, as in the exact tier. Observers hear the facts of an event before the
//! next event.

use std::ops::ControlFlow;

use cocoon_protocol::insecure_simulated_signatures::{PublicKeys, simulate};
use simnet_host::script::{Event, Script, WorldEvent};
use simnet_host::{Control, HostId, Ledger, LedgerTerms, Observer, Outcome, Progress, population};
use simnet_scenario::{Moment, Scenario, Seed};

use crate::calibration::{Calibration, CalibrationError};
use crate::world::World;

/// Events between two calls of the control: some hundredths of a second.
const EVENTS_PER_LOOK: u64 = 1 << 15;
/// Models that a table of this tier can tell apart.
const MODELS: usize = 32;

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The scenario has more models than this tier tells apart.
    #[error("the abstract tier has room for 32 models, the scenario has {0}; leave some out")]
    Models(usize),
    /// The scenario names a policy that there is not.
    #[error(transparent)]
    Policy(#[from] simnet_host::policy::PolicyError),
    /// The built-in calibration cannot be read.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
}

/// Runs a scenario with the built-in calibration. The observer hears every fact in order; the
/// control is asked some tens of times a second of real time.
pub fn run(
    scenario: &Scenario,
    seed: Seed,
    observer: &mut dyn Observer,
    control: Control<'_>,
) -> Result<Outcome, RunError> {
    run_with(scenario, seed, &Calibration::built_in()?, observer, control)
}

/// As [`run`], with a calibration of the caller's.
pub fn run_with(
    scenario: &Scenario,
    seed: Seed,
    calibration: &Calibration,
    observer: &mut dyn Observer,
    control: Control<'_>,
) -> Result<Outcome, RunError> {
    if scenario.models.len() > MODELS {
        return Err(RunError::Models(scenario.models.len()));
    }
    let _simulated = Simulated::begin();
    let mut run = Run::new(scenario, seed, calibration, observer)?;
    let interrupted = run.go(control);
    Ok(run.outcome(interrupted))
}

/// While it lives, signatures on this thread are simulated: a million nodes have better things to
/// do than elliptic curves, and every check of a signature still runs.
struct Simulated;

impl Simulated {
    fn begin() -> Self {
        simulate(Some(PublicKeys::Hashed));
        Self
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        simulate(None);
    }
}

/// A run that is under way.
struct Run<'a> {
    scenario: &'a Scenario,
    world: World<'a>,
    script: Script,
    next_block: Option<Moment>,
    sample_at: Moment,
    until: Moment,
    /// Where it stands still next: at the end, or where the observer wants to look before.
    stop: Moment,
    events: u64,
}

impl<'a> Run<'a> {
    fn new(
        scenario: &'a Scenario,
        seed: Seed,
        calibration: &Calibration,
        observer: &'a mut dyn Observer,
    ) -> Result<Self, RunError> {
        let hosts = population::draw(scenario, seed)?;
        let script = Script::new(scenario, seed, &hosts);
        observer.begin(&hosts);
        let values = calibration.at(scenario.population.nodes);
        let ledger = Ledger::new(LedgerTerms::of(scenario, seed), seed);
        let until = Moment::START.after(scenario.duration.duration());
        let stop = observer.halt_at().map_or(until, |at| at.min(until));
        Ok(Self {
            scenario,
            world: World::new(scenario, seed, hosts, values, ledger, observer),
            script,
            next_block: None,
            sample_at: Moment::START.after(scenario.sample_every.duration()),
            until,
            stop,
            events: 0,
        })
    }

    /// Runs to the end. True when the control or an observer ended it before.
    fn go(&mut self, control: Control<'_>) -> bool {
        loop {
            if std::mem::take(&mut self.world.ledger_changed) {
                self.next_block = self.world.ledger.next_block();
            }
            let outside = self.outside();
            match self.world.overlay.wheel.pop(outside) {
                Some((at, event)) => self.step(at, event),
                None if outside >= self.stop && self.has_arrived() => {
                    if self.arrive().is_break() {
                        return self.stop < self.until;
                    }
                    continue;
                }
                None => self.befall(outside),
            }
            self.events += 1;
            if self.events.is_multiple_of(EVENTS_PER_LOOK) {
                let (at, until, events) = (self.world.overlay.now, self.until, self.events);
                if control(Progress { at, until, events }).is_break() {
                    return true;
                }
            }
            if self.world.observer.is_over() && self.halt(self.world.overlay.now).is_break() {
                return true;
            }
        }
    }

    /// Whether everything up to the stop has happened, as nothing in the network is due by then.
    fn has_arrived(&self) -> bool {
        self.stop >= self.until || self.due().is_none_or(|at| at > self.stop)
    }

    /// The run is where it stops. At the end there is nothing to go on to, whoever looks.
    fn arrive(&mut self) -> ControlFlow<()> {
        self.world.overlay.now = self.stop;
        if self.stop < self.until {
            return self.halt(self.stop);
        }
        self.take_samples();
        if self.world.observer.halt_at().is_some() {
            let _over = self.world.halt(self.until);
        }
        ControlFlow::Break(())
    }

    /// Stands still until the observer has seen enough.
    fn halt(&mut self, at: Moment) -> ControlFlow<()> {
        let flow = self.world.halt(at);
        if flow.is_continue() {
            let next = self.world.observer.halt_at();
            self.stop = next.map_or(self.until, |next| next.max(at).min(self.until));
        }
        flow
    }

    fn step(&mut self, at: Moment, event: crate::event::Event) {
        self.world.overlay.now = at;
        self.world.approach();
        self.world.trace.add(at, event.numbers());
        self.world.on_event(event);
    }

    /// When something beside the network is due; at the latest, the stop.
    fn outside(&self) -> Moment {
        self.due().map_or(self.stop, |at| at.min(self.stop))
    }

    fn due(&self) -> Option<Moment> {
        let due = [self.script.next_at(), self.next_block, Some(self.sample_at)];
        due.into_iter().flatten().min()
    }

    /// Does all that is due beside the network.
    fn befall(&mut self, now: Moment) {
        self.world.overlay.now = now;
        if self.next_block.is_some_and(|at| at <= now) {
            for (HostId(host), input) in self.world.ledger.advance(now) {
                self.world.trace.answer(now, host);
                self.world.answer(host, input);
            }
            let World { ledger, observer, .. } = &mut self.world;
            ledger.report(now, &mut **observer);
            self.world.ledger_changed = true;
        }
        while self.script.next_at().is_some_and(|at| at <= now) {
            let Some((_, event)) = self.script.next() else { break };
            match event {
                Event::Host(host, event) => self.world.befall(host, event),
                Event::World(WorldEvent::Cut(number)) => {
                    if let Some(cut) = self.script.cuts().get(number) {
                        let hosts = self.world.overlay.specs.iter();
                        let inside = hosts.map(|spec| cut.holds(spec.id)).collect();
                        self.world.overlay.paths.cut(number, inside);
                        self.world.overlay.fall_silent();
                    }
                }
                Event::World(WorldEvent::Heal(number)) => self.world.overlay.paths.heal(number),
            }
        }
        self.take_samples();
    }

    fn take_samples(&mut self) {
        while self.sample_at <= self.world.overlay.now {
            self.sample_at = self.sample_at.after(self.scenario.sample_every.duration());
            let sample = self.world.sample();
            self.world.observer.sample(&sample);
        }
    }

    fn outcome(&mut self, interrupted: bool) -> Outcome {
        let (at, events) = (self.world.overlay.now, self.events);
        self.world.observer.end(at, interrupted, &self.world.ledger);
        Outcome { at, interrupted, events, trace: self.world.trace.finish() }
    }
}
