//! What a tier is asked for and what it answers.
//!
//! Owns: the words of a run that both tiers share. Must not: run anything.

use std::ops::ControlFlow;

use simnet_scenario::Moment;

/// How far a run is; given to the caller a few times a second of real time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Virtual time.
    pub at: Moment,
    /// When the run ends.
    pub until: Moment,
    /// Events so far.
    pub events: u64,
}

/// The caller's say in a run: [`ControlFlow::Break`] ends it early, with what it has.
pub type Control<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// How a run ended. Equal scenario, seed and build give an equal outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Where it ended.
    pub at: Moment,
    /// Whether the caller had ended it.
    pub interrupted: bool,
    /// Events: deliveries, timers, and polls that they caused.
    pub events: u64,
    /// Hash over every event, in order.
    pub trace: [u8; 32],
}
