//! The engine's jobs as a display shows them.
//!
//! Owns: what each job has at a moment, without bringing the engine up to that moment.
//! Must not: change the engine.

use cocoon_protocol::units::Tokens;
use simnet_scenario::Moment;

use super::{Engine, EngineSpec, JobKey, State};

/// Whether a job is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnginePhase {
    /// No place is free yet.
    Queued,
    /// It has a place and no grant beyond what is written.
    Waiting,
    /// Its prompt is being read.
    Reading,
    /// It writes.
    Writing,
}

/// A job in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineJob {
    /// Whose, and which.
    pub key: JobKey,
    /// Whether it is at work.
    pub phase: EnginePhase,
    /// Tokens of its prompt.
    pub prompt: Tokens,
    /// Tokens of the completion that it may write by now.
    pub granted: Tokens,
    /// Tokens that are written.
    pub written: Tokens,
    /// Tokens that were sent.
    pub sent: Tokens,
    /// Tokens that it may write at most.
    pub limit: Tokens,
}

impl Engine {
    /// Its speeds and sizes.
    pub const fn spec(&self) -> &EngineSpec {
        &self.spec
    }

    /// Jobs that read or write at this moment; for displays.
    pub const fn working(&self) -> u32 {
        self.working
    }

    /// Its jobs as they are at a moment, in the order of admission; for displays.
    pub fn job_views(&self, now: Moment) -> Vec<EngineJob> {
        let Self { spec, clock, at, working, share, chunk, .. } = *self;
        // A copy without jobs moves on: the clock only needs to know how many work.
        let mut ahead = Self { spec, clock, at, working, share, chunk, jobs: Vec::new() };
        ahead.advance(now);
        let view = |job: &super::Job| EngineJob {
            key: job.key,
            phase: match job.state {
                State::Queued => EnginePhase::Queued,
                State::Waiting => EnginePhase::Waiting,
                State::Working { since } if ahead.clock < since => EnginePhase::Reading,
                State::Working { .. } => EnginePhase::Writing,
            },
            prompt: job.ask.prompt,
            granted: job.granted,
            written: job.tokens(&self.spec, ahead.clock),
            sent: job.sent,
            limit: job.ask.limit,
        };
        self.jobs.iter().map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cocoon_protocol::identity::{JobId, NodeId};

    use super::super::Ask;
    use super::*;

    #[test]
    fn a_look_shows_the_moment_and_changes_nothing() {
        let spec = EngineSpec {
            places: 1,
            queue: 1,
            prefill_ns: 1_000_000,
            decode_ns: 20_000_000,
            contention: 0,
            flush: Duration::from_millis(100),
        };
        let key = |job: u8| (NodeId::from_bytes([7; 32]), JobId::from_bytes([job; 32]));
        let tokens = Tokens::new;
        let ask = Ask { prompt: tokens(50), natural: tokens(40), limit: tokens(100) };
        let mut engine = Engine::new(spec);
        engine.admit(key(1), ask).unwrap();
        engine.admit(key(2), ask).unwrap();
        let phases = |engine: &Engine, millis| {
            let jobs = engine.job_views(Moment::from_millis(millis));
            jobs.iter().map(|it| (it.phase, it.written.get())).collect::<Vec<_>>()
        };
        let queued = (EnginePhase::Queued, 0);
        assert_eq!(phases(&engine, 0), [(EnginePhase::Waiting, 0), queued]);
        engine.grant(key(1), tokens(8), Moment::START);
        let before = format!("{engine:?}");
        assert_eq!(phases(&engine, 49), [(EnginePhase::Reading, 0), queued]);
        assert_eq!(phases(&engine, 111), [(EnginePhase::Writing, 3), queued]);
        assert_eq!(phases(&engine, 9_999), [(EnginePhase::Writing, 8), queued], "its grant");
        assert_eq!(format!("{engine:?}"), before);
    }
}
