//! A provider's engine: jobs in a batch that share one machine, and write only what is granted.
//!
//! Owns: how fast tokens come, and when what was written is sent. Must not: know a session or money.
//!
//! # The model
//! Every job has work: reading its prompt, then writing its tokens, in nanoseconds of a machine that
//! has nothing else to do. With `n` jobs at work each advances at `1 / (1 + c·(n − 1))` of that
//! speed, where `c` is the batch's contention: a step of the batch takes a fixed time (the weights
//! are read) and a time for each job. That fits what was measured with llama.cpp on two cores
//! (SmolLM2-135M Q4_1: 78.0, 28.1 and 18.8 tokens/s for each of 1, 4 and 8 jobs, `c` = 0.59 and
//! 0.45; Q4_0: 115.5, 42.4, 22.2, `c` = 0.57 and 0.60; Gemma 3 270M Q4_K_M: 60.2, 20.0, 12.4,
//! `c` = 0.67 and 0.55), so 0.55 is the default of a processor. A graphics card decodes at the
//! speed of its memory until the batch is large: 0.02, which doubles the step at 50 jobs, is an
//! assumption and was measured nowhere.
//!
//! Rules of the node's engines hold here too: the prompt is counted at admission and read only when
//! it is paid; a job that waits for its grant keeps its place; that a text ends is only found out
//! under a grant for one more token; a full engine refuses.
//!
//! All arithmetic is in whole nanoseconds, so that every machine computes the same.

mod view;

use std::time::Duration;

use cocoon_protocol::identity::{JobId, NodeId};
use cocoon_protocol::job::{FinishReason, ProviderRefusal, Usage};
use cocoon_protocol::units::{Millis, Tokens};
use simnet_scenario::Moment;

pub use view::{EngineJob, EnginePhase};

use crate::mutation::{Mutation, planted};

/// A full engine asks consumers to come back after this time, as the node's does.
pub(crate) const RETRY_AFTER: Millis = Millis::from_secs(2);

/// Speeds and sizes of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineSpec {
    /// Jobs at a time.
    pub places: u32,
    /// Jobs that may wait for a place.
    pub queue: u32,
    /// Nanoseconds for a token of the prompt, one job alone.
    pub prefill_ns: u64,
    /// Nanoseconds for a token of the completion, one job alone.
    pub decode_ns: u64,
    /// What each further job adds to a step, in thousandths of a step of one job alone.
    pub contention: u32,
    /// How long written tokens may wait for others to travel with.
    pub flush: Duration,
}

/// Whose job, and which.
pub type JobKey = (NodeId, JobId);

/// A job for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Tokens of its prompt.
    pub prompt: Tokens,
    /// Tokens that the model would write if nothing stopped it.
    pub natural: Tokens,
    /// Tokens that it may write at most.
    pub limit: Tokens,
}

/// What an engine says about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generated {
    /// Tokens are written; so many so far.
    Text {
        /// Which.
        key: JobKey,
        /// Tokens of the completion so far.
        completion: Tokens,
    },
    /// The job is over.
    Finished {
        /// Which.
        key: JobKey,
        /// Why.
        reason: FinishReason,
        /// Tokens read and written.
        usage: Usage,
        /// What it took of the machine, in time of one job alone.
        worked: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No place is free yet.
    Queued,
    /// It has a place and no grant beyond what is written.
    Waiting,
    /// It is at work: with the machine's clock at `since` it had all its `written` tokens.
    Working { since: u64 },
}

#[derive(Clone, Debug)]
struct Job {
    key: JobKey,
    ask: Ask,
    granted: Tokens,
    /// Tokens when it last began to work.
    written: Tokens,
    sent: Tokens,
    state: State,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    spec: EngineSpec,
    /// Nanoseconds that each job at work has advanced, were it always at work.
    clock: u64,
    /// When `clock` was brought up to date.
    at: Moment,
    working: u32,
    /// Speed of each job at work, in parts of [`ONE`].
    share: u64,
    /// Tokens that are sent together at that speed.
    chunk: u32,
    jobs: Vec<Job>,
}

impl Job {
    fn holds_place(&self) -> bool {
        self.state != State::Queued
    }

    /// The most that it can write under its grant.
    fn cap(&self) -> Tokens {
        let granted = if planted(Mutation::Overserving) { Tokens::MAX } else { self.granted };
        granted.min(self.ask.limit).min(self.ask.natural)
    }

    /// Why it ends when it has written this many, if it does.
    fn end(&self, written: Tokens) -> Option<FinishReason> {
        if written >= self.ask.limit {
            Some(FinishReason::Length)
        } else if written >= self.ask.natural && self.granted > self.ask.natural {
            Some(FinishReason::Stop)
        } else {
            None
        }
    }

    fn tokens(&self, spec: &EngineSpec, clock: u64) -> Tokens {
        let State::Working { since } = self.state else { return self.written };
        let new = clock.saturating_sub(since) / spec.decode_ns.max(1);
        let new = Tokens::new(u32::try_from(new).unwrap_or(u32::MAX));
        self.written.saturating_add(new).min(self.cap())
    }
}

impl Engine {
    /// An engine with nothing to do.
    pub fn new(spec: EngineSpec) -> Self {
        let (share, chunk, jobs) = (ONE, 1, Vec::new());
        let mut engine = Self { spec, clock: 0, at: Moment::START, working: 0, share, chunk, jobs };
        engine.set_working(0);
        engine
    }

    /// So many jobs are at work from now on.
    fn set_working(&mut self, working: u32) {
        self.working = working;
        let others = u64::from(working.saturating_sub(1));
        let step = 1_000 + u64::from(self.spec.contention).saturating_mul(others);
        self.share = (ONE * 1_000 / step).max(1);
        let flush = u64::try_from(self.spec.flush.as_nanos()).unwrap_or(u64::MAX);
        let alone = scaled(flush, self.share);
        let tokens = alone / self.spec.decode_ns.max(1);
        self.chunk = u32::try_from(tokens).unwrap_or(u32::MAX).max(1);
    }

    /// Names the memory that it points to; see [`crate::Host::approach`].
    pub(crate) fn approach(&self, ask: &mut impl FnMut(*const u8, usize)) {
        crate::host::near_list(&self.jobs, ask);
    }

    /// Jobs that run or wait, and how many run at a time.
    pub fn load(&self) -> (u32, u32) {
        (u32::try_from(self.jobs.len()).unwrap_or(u32::MAX), self.spec.places)
    }

    /// Jobs that it holds at most.
    pub const fn bound(&self) -> u32 {
        self.spec.places.saturating_add(self.spec.queue)
    }

    /// Takes a job, if there is room. Its prompt is counted; nothing is computed yet.
    pub fn admit(&mut self, key: JobKey, ask: Ask) -> Result<(), ProviderRefusal> {
        let (taken, places) = self.load();
        if taken >= self.bound() && !planted(Mutation::DoorOpen) {
            return Err(ProviderRefusal::Busy { retry_after: RETRY_AFTER });
        }
        let holding = self.jobs.iter().filter(|job| job.holds_place()).count();
        let free = u32::try_from(holding).unwrap_or(u32::MAX) < places;
        let state = if free { State::Waiting } else { State::Queued };
        let none = Tokens::ZERO;
        crate::host::grow(&mut self.jobs);
        self.jobs.push(Job { key, ask, granted: none, written: none, sent: none, state });
        Ok(())
    }

    /// Allows this many tokens in all.
    pub fn grant(&mut self, key: JobKey, total: Tokens, now: Moment) {
        self.advance(now);
        let Some(at) = self.jobs.iter().position(|job| job.key == key) else { return };
        if let Some(job) = self.jobs.get_mut(at) {
            job.granted = job.granted.max(total);
        }
        self.resume(at);
    }

    /// Ends a job early; [`Self::poll`] says so.
    pub fn cancel(&mut self, key: JobKey, now: Moment) -> Option<(Usage, Duration)> {
        self.advance(now);
        let job = self.remove(key)?;
        let completion = job.tokens(&self.spec, self.clock);
        let usage = Usage { prompt: job.ask.prompt, completion };
        Some((usage, self.worked(&job, completion)))
    }

    /// Forgets a job, if it is still here. What it took of the machine comes back.
    pub fn forget(&mut self, key: JobKey, now: Moment) -> Option<Duration> {
        self.cancel(key, now).map(|(_, worked)| worked)
    }

    /// Everything that is written or over by now, job by job in the order of admission.
    pub fn poll(&mut self, now: Moment, out: &mut Vec<Generated>) {
        self.advance(now);
        let chunk = self.chunk;
        let mut ended = false;
        for at in 0..self.jobs.len() {
            let Some(job) = self.jobs.get(at) else { break };
            let State::Working { since } = job.state else { continue };
            if self.clock < since {
                // Its prompt is being read.
                continue;
            }
            let completion = job.tokens(&self.spec, self.clock);
            let stands = completion >= job.cap();
            // Half a chunk is worth sending when the engine is awake anyway: so the batch's jobs
            // fall into step, and one alarm serves them all.
            let due = if job.sent == Tokens::ZERO { 1 } else { chunk.div_ceil(2) };
            let fresh = completion.saturating_sub(job.sent).get();
            let key = job.key;
            let end = job.end(completion);
            if fresh > 0 && (stands || fresh >= due) {
                out.push(Generated::Text { key, completion });
                if let Some(job) = self.jobs.get_mut(at) {
                    job.sent = completion;
                }
            }
            if let Some(reason) = end {
                let Some(job) = self.jobs.get(at) else { break };
                let usage = Usage { prompt: job.ask.prompt, completion };
                let worked = self.worked(job, completion);
                out.push(Generated::Finished { key, reason, usage, worked });
                ended = true;
            } else if stands && let Some(job) = self.jobs.get_mut(at) {
                job.written = completion;
                job.state = State::Waiting;
                self.set_working(self.working.saturating_sub(1));
            }
        }
        if ended {
            for generated in out.iter() {
                if let Generated::Finished { key, .. } = generated {
                    self.remove(*key);
                }
            }
        }
    }

    /// When [`Self::poll`] has something to say, unless something happens before.
    pub fn next(&self) -> Option<Moment> {
        let due = self.jobs.iter().filter_map(|job| self.due(job, self.chunk)).min()?;
        let left = due.saturating_sub(self.clock);
        let wall = match left.checked_mul(ONE) {
            Some(left) => left.div_ceil(self.share),
            None => {
                let wall = (u128::from(left) * u128::from(ONE)).div_ceil(u128::from(self.share));
                u64::try_from(wall).unwrap_or(u64::MAX)
            }
        };
        Some(self.at.after_nanos(wall))
    }

    /// The clock at which a job has something to send or to end.
    fn due(&self, job: &Job, chunk: u32) -> Option<u64> {
        let State::Working { since } = job.state else { return None };
        let step = if job.sent == Tokens::ZERO { 1 } else { chunk };
        let target = job.sent.saturating_add(Tokens::new(step)).min(job.cap());
        let tokens = u64::from(target.saturating_sub(job.written).get());
        Some(since.saturating_add(tokens.saturating_mul(self.spec.decode_ns)))
    }

    fn advance(&mut self, now: Moment) {
        if self.working > 0 {
            let alone = scaled(now.nanos_since(self.at), self.share);
            self.clock = self.clock.saturating_add(alone);
        }
        self.at = self.at.max(now);
    }

    /// Sets a job to work, if it has a place and may write.
    fn resume(&mut self, at: usize) {
        let clock = self.clock;
        let prefill_ns = self.spec.prefill_ns;
        let Some(job) = self.jobs.get_mut(at) else { return };
        if job.state != State::Waiting || job.granted == Tokens::ZERO {
            return;
        }
        let more = job.cap() > job.written || job.end(job.written).is_some();
        if !more {
            return;
        }
        // The prompt is read before the first token, whenever that is.
        let begins = job.written == Tokens::ZERO && job.sent == Tokens::ZERO;
        let reading = u64::from(job.ask.prompt.get()).saturating_mul(prefill_ns);
        let since = if begins { clock.saturating_add(reading) } else { clock };
        job.state = State::Working { since };
        self.set_working(self.working.saturating_add(1));
    }

    fn remove(&mut self, key: JobKey) -> Option<Job> {
        let at = self.jobs.iter().position(|job| job.key == key)?;
        let job = self.jobs.remove(at);
        if self.jobs.is_empty() {
            self.jobs = Vec::new();
        }
        if let State::Working { .. } = job.state {
            self.set_working(self.working.saturating_sub(1));
        }
        if job.holds_place()
            && let Some(next) = self.jobs.iter().position(|job| !job.holds_place())
        {
            if let Some(job) = self.jobs.get_mut(next) {
                job.state = State::Waiting;
            }
            self.resume(next);
        }
        if self.jobs.is_empty() {
            // An idle engine holds nothing.
            self.jobs = Vec::new();
        }
        Some(job)
    }

    /// What a job took: its prompt, if it was read, and its tokens.
    fn worked(&self, job: &Job, completion: Tokens) -> Duration {
        let reading = u64::from(job.ask.prompt.get()).saturating_mul(self.spec.prefill_ns);
        let read = match job.state {
            State::Working { since } if completion == Tokens::ZERO => {
                reading.saturating_sub(since.saturating_sub(self.clock))
            }
            State::Queued | State::Waiting if completion == Tokens::ZERO => 0,
            State::Queued | State::Waiting | State::Working { .. } => reading,
        };
        let wrote = u64::from(completion.get()).saturating_mul(self.spec.decode_ns);
        Duration::from_nanos(read.saturating_add(wrote))
    }
}

/// The full speed, in fixed point.
const ONE: u64 = 1 << 16;

/// What is left of a time at this share of the full speed.
fn scaled(nanos: u64, share: u64) -> u64 {
    u64::try_from(u128::from(nanos) * u128::from(share) / u128::from(ONE)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPEC: EngineSpec = EngineSpec {
        places: 4,
        queue: 1,
        prefill_ns: 1_000_000,
        decode_ns: 20_000_000,
        contention: 500,
        flush: Duration::from_millis(100),
    };

    fn key(job: u8) -> JobKey {
        (NodeId::from_bytes([7; 32]), JobId::from_bytes([job; 32]))
    }

    const fn tokens(count: u32) -> Tokens {
        Tokens::new(count)
    }

    fn ask(prompt: u32, natural: u32, limit: u32) -> Ask {
        Ask { prompt: tokens(prompt), natural: tokens(natural), limit: tokens(limit) }
    }

    /// Runs an engine by its own alarms until it has nothing more to say.
    fn run(engine: &mut Engine) -> Vec<(Moment, Generated)> {
        let mut said = Vec::new();
        while let Some(at) = engine.next() {
            let mut out = Vec::new();
            engine.poll(at, &mut out);
            assert!(!out.is_empty(), "an alarm is never for nothing: {engine:?}");
            said.extend(out.into_iter().map(|it| (at, it)));
        }
        said
    }

    #[test]
    fn one_job_alone_takes_what_its_tokens_take() {
        let mut engine = Engine::new(SPEC);
        engine.admit(key(1), ask(50, 7, 100)).unwrap();
        assert_eq!(engine.next(), None, "nothing is read before it is paid");
        engine.grant(key(1), tokens(32), Moment::START);
        let said = run(&mut engine);
        let text = |at, count| {
            let completion = tokens(count);
            (Moment::from_millis(at), Generated::Text { key: key(1), completion })
        };
        // 50 ms of reading, then 20 ms a token; five tokens travel together.
        assert_eq!(said[..3], [text(70, 1), text(170, 6), text(190, 7)]);
        let usage = Usage { prompt: tokens(50), completion: tokens(7) };
        let worked = Duration::from_millis(190);
        let reason = FinishReason::Stop;
        let end = Generated::Finished { key: key(1), reason, usage, worked };
        assert_eq!(said[3..], [(Moment::from_millis(190), end)]);
        assert_eq!(engine.load(), (0, 4));
    }

    #[test]
    fn a_batch_slows_each_of_its_jobs_by_the_law() {
        let mut engine = Engine::new(SPEC);
        for job in 1..=3 {
            engine.admit(key(job), ask(0, 10, 10)).unwrap();
            engine.grant(key(job), tokens(32), Moment::START);
        }
        let said = run(&mut engine);
        // Three jobs: steps of 1 + 2 × 0.5 = 2 times 20 ms.
        let last = said.last().unwrap().0;
        assert_eq!(last, Moment::from_millis(400));
        let ends = said.iter().filter(|(_, it)| matches!(it, Generated::Finished { .. }));
        assert_eq!(ends.count(), 3);
    }

    #[test]
    fn it_stops_at_its_grant_keeps_its_place_and_goes_on() {
        let mut engine = Engine::new(SPEC);
        engine.admit(key(1), ask(0, 40, 100)).unwrap();
        engine.grant(key(1), tokens(8), Moment::START);
        let said = run(&mut engine);
        let (at, last) = *said.last().unwrap();
        assert_eq!(last, Generated::Text { key: key(1), completion: tokens(8) });
        assert_eq!((at, engine.load().0), (Moment::from_millis(160), 1));
        let later = Moment::from_millis(1_000);
        engine.grant(key(1), tokens(40), later);
        let said = run(&mut engine);
        let (at, last) = *said.last().unwrap();
        assert_eq!(last, Generated::Text { key: key(1), completion: tokens(40) });
        assert_eq!(at, later.after(Duration::from_millis(32 * 20)));
        // That it ends there is only found out under a grant for one more.
        engine.grant(key(1), tokens(41), at);
        assert!(matches!(run(&mut engine)[..], [(_, Generated::Finished { .. })]));
    }

    #[test]
    fn a_full_engine_refuses_and_a_queued_job_gets_the_next_place() {
        let mut engine = Engine::new(SPEC);
        for job in 1..=5 {
            engine.admit(key(job), ask(0, 10, 10)).unwrap();
            engine.grant(key(job), tokens(32), Moment::START);
        }
        let busy = ProviderRefusal::Busy { retry_after: RETRY_AFTER };
        assert_eq!(engine.admit(key(6), ask(0, 1, 1)), Err(busy));
        let (usage, _) = engine.cancel(key(1), Moment::from_millis(101)).unwrap();
        // 101 ms at 1 / 2.5 of the speed.
        assert_eq!(usage.completion, tokens(2));
        let ended = run(&mut engine);
        let queued = |it: &&(Moment, Generated)| matches!(it.1, Generated::Finished { key: of, .. } if of == key(5));
        assert!(ended.iter().any(|it| queued(&it)));
    }

    #[test]
    fn nothing_was_worked_for_a_job_that_was_never_paid() {
        let mut engine = Engine::new(SPEC);
        engine.admit(key(1), ask(50, 10, 10)).unwrap();
        assert_eq!(engine.forget(key(1), Moment::from_millis(500)), Some(Duration::ZERO));
        engine.admit(key(2), ask(50, 10, 10)).unwrap();
        engine.grant(key(2), tokens(32), Moment::from_millis(500));
        let half = engine.forget(key(2), Moment::from_millis(520));
        assert_eq!(half, Some(Duration::from_millis(20)));
    }

    #[derive(Clone, Copy, Debug)]
    enum Act {
        Admit { job: u8, prompt: u32, natural: u32, limit: u32 },
        Grant { job: u8, total: u32 },
        Cancel { job: u8 },
        Pass { millis: u64 },
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0u8..8, 0u32..100, 0u32..60, 1u32..80).prop_map(|(job, prompt, natural, limit)| {
                Act::Admit { job, prompt, natural, limit }
            }),
            (0u8..8, 0u32..90).prop_map(|(job, total)| Act::Grant { job, total }),
            (0u8..8).prop_map(|job| Act::Cancel { job }),
            (0u64..400).prop_map(|millis| Act::Pass { millis }),
        ]
    }

    proptest! {
        /// Whatever happens: never beyond a grant or a limit, never backwards, places never
        /// overbooked, and every job that is granted enough ends.
        #[test]
        fn an_engine_keeps_to_its_grants(acts in prop::collection::vec(act(), 1..80)) {
            let mut engine = Engine::new(SPEC);
            let mut now = Moment::START;
            let mut granted = std::collections::BTreeMap::new();
            let sent = std::cell::RefCell::new(std::collections::BTreeMap::new());
            let check = |generated: Vec<Generated>, granted: &mut std::collections::BTreeMap<JobKey, (Ask, u32)>| {
                for it in generated {
                    let (key, completion) = match it {
                        Generated::Text { key, completion } => (key, completion),
                        Generated::Finished { key, usage, .. } => (key, usage.completion),
                    };
                    let (ask, grant) = granted[&key];
                    assert!(completion.get() <= grant.min(ask.limit.get()).min(ask.natural.get()));
                    let before = sent.borrow_mut().insert(key, completion);
                    assert!(before.is_none_or(|before| before <= completion));
                    if matches!(it, Generated::Finished { .. }) {
                        assert_eq!(sent.borrow_mut().remove(&key), Some(completion));
                        granted.remove(&key);
                    }
                }
            };
            for act in acts {
                match act {
                    Act::Admit { job, prompt, natural, limit } => {
                        let (key, ask) = (key(job), ask(prompt, natural, limit));
                        if let std::collections::btree_map::Entry::Vacant(free) = granted.entry(key)
                            && engine.admit(key, ask).is_ok()
                        {
                            free.insert((ask, 0));
                        }
                    }
                    Act::Grant { job, total } => {
                        if let Some((_, grant)) = granted.get_mut(&key(job)) {
                            *grant = total.max(*grant);
                            engine.grant(key(job), tokens(total), now);
                        }
                    }
                    Act::Cancel { job } => {
                        let known = granted.get(&key(job)).copied();
                        if let Some((usage, _)) = engine.cancel(key(job), now) {
                            let (ask, grant) = known.unwrap();
                            assert!(usage.completion.get() <= grant.min(ask.limit.get()));
                            granted.remove(&key(job));
                            sent.borrow_mut().remove(&key(job));
                        }
                    }
                    Act::Pass { millis } => {
                        let until = now.after(Duration::from_millis(millis));
                        while let Some(at) = engine.next().filter(|at| *at <= until) {
                            let mut out = Vec::new();
                            engine.poll(at, &mut out);
                            check(out, &mut granted);
                        }
                        now = until;
                    }
                }
                let (taken, places) = engine.load();
                prop_assert!(taken <= places + SPEC.queue);
                let holding = engine.jobs.iter().filter(|job| job.holds_place()).count();
                prop_assert!(holding <= usize::try_from(places).unwrap());
                let working = engine.jobs.iter().filter(|job| matches!(job.state, State::Working { .. }));
                prop_assert_eq!(working.count(), usize::try_from(engine.working).unwrap());
            }
            for job in 0..8 {
                if let Some((_, grant)) = granted.get_mut(&key(job)) {
                    *grant = 1_000;
                    engine.grant(key(job), tokens(1_000), now);
                }
            }
            while let Some(at) = engine.next() {
                let mut out = Vec::new();
                engine.poll(at, &mut out);
                check(out, &mut granted);
            }
            prop_assert_eq!(engine.load().0, 0);
        }
    }
}
