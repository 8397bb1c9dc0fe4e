//! What a provider's past is worth: own experience only, decaying with time.
//!
//! Owns: success rate, time to first token and time per token of each (provider, model).
//! Must not: take anybody's word. Nothing gossiped enters, so that no Sybil can inflate it.

use crate::flat::FlatMap;
use crate::identity::{ModelHash, NodeId};
use crate::units::{Millis, Timestamp, Tokens};

/// Half of an experience is forgotten after this time: GPUs and prices change within hours.
const HALF_LIFE: Millis = Millis::from_secs(3600);
/// Weight of the prior: half an imagined job, of which [`PRIOR_SUCCESS`] succeeded. Newcomers are
/// tried. Providers differ far more than their jobs do (most serve nearly all, some serve none), so
/// the first job says most: below one, the distribution of success rates has its mass at the ends.
const PRIOR_WEIGHT: f64 = 0.5;
/// Share of the imagined jobs that succeeded.
const PRIOR_SUCCESS: f64 = 0.95;
/// Time to first token that is assumed of an unknown provider: optimistic, so that it gets explored.
const PRIOR_FIRST_TOKEN_MS: f64 = 300.0;
/// Time per token that is assumed of an unknown provider.
const PRIOR_PER_TOKEN_MS: f64 = 20.0;
/// Weight of a new measurement in a moving average.
const BLEND: f64 = 0.25;
/// Experiences kept. When full, the one not touched for the longest makes room.
const CAPACITY: usize = 8_192;

/// How a job at a provider ended, as the consumer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Experience {
    /// The whole answer came.
    Served {
        /// From sending the job to its first token.
        first_token: Millis,
        /// From the first token to the last.
        streaming: Millis,
        /// Tokens of the completion.
        completion: Tokens,
    },
    /// It was busy or draining: honest, so it only counts a little.
    Refused,
    /// It was lost or stalled before any text came, or its engine failed. However fast, this is never
    /// good.
    Failed,
    /// It was lost or fell silent in the middle of an answer: its reader has waited, and others have to
    /// read the prompt again.
    BrokeOff,
    /// It broke the protocol or its evidence was refused.
    Misbehaved,
}

/// What is expected of a provider for one model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Probability that a job succeeds, above 0 and below 1.
    pub success: f64,
    /// Expected time to the first token, in milliseconds.
    pub first_token_ms: f64,
    /// Expected time for each further token, in milliseconds.
    pub per_token_ms: f64,
    /// Time that an attempt took, in milliseconds, whether it succeeded or failed; zero while
    /// nothing is known. It says how long a place is taken, never how good a provider is.
    pub attempt_ms: f64,
}

#[derive(Clone, Copy, Debug)]
struct History {
    succeeded: f64,
    attempts: f64,
    first_token_ms: f64,
    per_token_ms: f64,
    attempt_ms: f64,
    touched: Timestamp,
}

impl History {
    const fn unknown(now: Timestamp) -> Self {
        Self {
            succeeded: PRIOR_WEIGHT * PRIOR_SUCCESS,
            attempts: PRIOR_WEIGHT,
            first_token_ms: PRIOR_FIRST_TOKEN_MS,
            per_token_ms: PRIOR_PER_TOKEN_MS,
            attempt_ms: 0.0,
            touched: now,
        }
    }

    /// The history as it weighs at `now`: what was learned fades into the prior.
    fn at(&self, now: Timestamp) -> Self {
        let age = millis(now.since(self.touched)) / millis(HALF_LIFE);
        let keep = 0.5_f64.powf(age);
        let prior = Self::unknown(now);
        let blend = |learned: f64, prior: f64| prior + (learned - prior) * keep;
        Self {
            succeeded: blend(self.succeeded, prior.succeeded),
            attempts: blend(self.attempts, prior.attempts),
            first_token_ms: blend(self.first_token_ms, prior.first_token_ms),
            per_token_ms: blend(self.per_token_ms, prior.per_token_ms),
            attempt_ms: blend(self.attempt_ms, prior.attempt_ms),
            touched: now,
        }
    }
}

/// Times above 2^53 ms lose precision, which no clock reaches.
fn millis(length: Millis) -> f64 {
    u32::try_from(length.get()).map_or_else(|_| f64::from(u32::MAX), f64::from)
}

/// Everything this node has experienced with providers.
#[derive(Clone, Debug, Default)]
pub struct Reputation {
    histories: FlatMap<(NodeId, ModelHash), History>,
}

impl Reputation {
    /// Learns from one attempt, which `took` this long from its request to its end.
    pub fn record(
        &mut self,
        provider: NodeId,
        model: ModelHash,
        experience: Experience,
        took: Millis,
        now: Timestamp,
    ) {
        self.make_room(provider, model);
        let history =
            self.histories.get_or_insert_with((provider, model), || History::unknown(now));
        *history = history.at(now);
        let (attempts, succeeded) = match experience {
            Experience::Served { .. } => (1.0, 1.0),
            // Enough to prefer another for now, too little to outweigh what it served.
            Experience::Refused => (0.1, 0.0),
            Experience::Failed => (1.0, 0.0),
            // A few answers that end early do not make up for it.
            Experience::BrokeOff => (3.0, 0.0),
            Experience::Misbehaved => (10.0, 0.0),
        };
        history.attempts += attempts;
        history.succeeded += succeeded;
        let mix = |old: f64, new: f64| old + (new - old) * BLEND;
        history.attempt_ms = mix(history.attempt_ms, millis(took));
        if let Experience::Served { first_token, streaming, completion } = experience {
            history.first_token_ms = mix(history.first_token_ms, millis(first_token));
            let further = completion.saturating_sub(Tokens::new(1)).get();
            if further > 0 {
                let per_token = millis(streaming) / f64::from(further);
                history.per_token_ms = mix(history.per_token_ms, per_token);
            }
        }
    }

    /// Learns from a job that still runs: this long after its first token it had so many.
    pub fn pace(
        &mut self,
        provider: NodeId,
        model: ModelHash,
        streaming: Millis,
        tokens: Tokens,
        now: Timestamp,
    ) {
        let further = tokens.saturating_sub(Tokens::new(1)).get();
        if further == 0 {
            return;
        }
        self.make_room(provider, model);
        let history =
            self.histories.get_or_insert_with((provider, model), || History::unknown(now));
        let per_token = millis(streaming) / f64::from(further);
        history.per_token_ms += (per_token - history.per_token_ms) * BLEND;
    }

    /// Of whom something was experienced, with which model; for displays.
    pub fn known(&self) -> impl Iterator<Item = (NodeId, ModelHash)> {
        self.histories.iter().map(|(known, _)| *known)
    }

    /// What to expect of a provider at `now`.
    pub fn standing(&self, provider: NodeId, model: ModelHash, now: Timestamp) -> Standing {
        let known = self.histories.get(&(provider, model));
        let history = known.map_or_else(|| History::unknown(now), |known| known.at(now));
        Standing {
            success: (history.succeeded / history.attempts).clamp(0.001, 0.999),
            first_token_ms: history.first_token_ms,
            per_token_ms: history.per_token_ms,
            attempt_ms: history.attempt_ms,
        }
    }

    fn make_room(&mut self, provider: NodeId, model: ModelHash) {
        if self.histories.len() < CAPACITY || self.histories.contains_key(&(provider, model)) {
            return;
        }
        let oldest = self.histories.iter().min_by_key(|(_, history)| history.touched);
        if let Some(oldest) = oldest.map(|(key, _)| *key) {
            self.histories.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelHash = ModelHash::from_bytes([1; 32]);
    const A: NodeId = NodeId::from_bytes([1; 32]);
    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

    const TOOK: Millis = Millis::new(1_090);

    fn served() -> Experience {
        Experience::Served {
            first_token: Millis::new(100),
            streaming: Millis::new(990),
            completion: Tokens::new(100),
        }
    }

    #[test]
    fn a_failure_lowers_the_standing_however_fast_it_was() {
        let mut reputation = Reputation::default();
        let before = reputation.standing(A, MODEL, NOW);
        assert_eq!(reputation.known().next(), None);
        reputation.record(A, MODEL, Experience::Failed, TOOK, NOW);
        assert!(reputation.known().eq([(A, MODEL)]));
        let after = reputation.standing(A, MODEL, NOW);
        assert!(after.success < before.success * 0.7);
        assert_eq!(after.first_token_ms, before.first_token_ms);
    }

    #[test]
    fn a_refusal_counts_less_than_a_failure_and_misbehaviour_more() {
        let after = |experience| {
            let mut reputation = Reputation::default();
            reputation.record(A, MODEL, experience, TOOK, NOW);
            reputation.standing(A, MODEL, NOW).success
        };
        assert!(after(served()) > after(Experience::Refused));
        assert!(after(Experience::Refused) > after(Experience::Failed));
        assert!(after(Experience::Failed) > after(Experience::Misbehaved) * 2.0);
    }

    #[test]
    fn speed_is_learned_from_what_was_served() {
        let mut reputation = Reputation::default();
        for _ in 0..20 {
            reputation.record(A, MODEL, served(), TOOK, NOW);
        }
        let standing = reputation.standing(A, MODEL, NOW);
        assert!((standing.first_token_ms - 100.0).abs() < 5.0);
        assert!((standing.per_token_ms - 10.0).abs() < 1.0);
    }

    #[test]
    fn everything_fades_into_the_prior() {
        let mut reputation = Reputation::default();
        let prior = reputation.standing(A, MODEL, NOW);
        for _ in 0..10 {
            reputation.record(A, MODEL, Experience::Failed, TOOK, NOW);
        }
        let later = NOW.after(Millis::from_secs(48 * 3600));
        let standing = reputation.standing(A, MODEL, later);
        assert!((standing.success - prior.success).abs() < 0.01);
    }

    #[test]
    fn memory_is_bounded() {
        let mut reputation = Reputation::default();
        for index in 0..u32::try_from(CAPACITY).unwrap() + 10 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&index.to_be_bytes());
            let now = NOW.after(Millis::new(index.into()));
            reputation.record(NodeId::from_bytes(id), MODEL, Experience::Failed, TOOK, now);
        }
        assert_eq!(reputation.histories.len(), CAPACITY);
    }
}
