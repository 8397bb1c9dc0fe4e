//! The policy of TelegramMessenger/cocoon's proxy, for comparison.
//!
//! Owns: its order and its patience, each constant with its source. Must not: improve on it.
//!
//! Sources are of commit `b75d444` (2025-12-19) of TelegramMessenger/cocoon:
//! - `ProxyRunner::choose_connection`, `runners/proxy/ProxyRunner.cpp:1350-1383`: among the workers
//!   of the model whose coefficient is at most the client's ceiling, the lowest
//!   `running_queries * average_query_time`; the time is an average amortised over ten minutes. Price
//!   is a ceiling only. Idle workers tie at zero, and the lowest `ConnectionId` wins.
//! - The same function looks at no success: a worker that fails fast has few running queries and a
//!   short average, and attracts more.
//! - `runners/client/ClientRunningRequest.cpp`: a request's `timeout` is 120 s; each hop passes on
//!   95 % of it (114 s, 108.3 s, 102.9 s), and the worker's hop has 102.9 s.
//! - No retry of a failed request anywhere: `runners/client/*`, `runners/helpers/BaseRunner`.
//!
//! Not modelled, in its favour: answers are not streamed there, so its time to first token is here
//! better than it is; a lost connection is noticed here before the time-out ends; a client whose
//! proxy dies is without service for 300 s (`runners/client`), and proxies do not die here; requests
//! are refused for lack of the pooled escrow only where a vault is empty. A scenario that gives one
//! consumer the demand of many makes that consumer the proxy of many clients, with one escrow.
//! The average is the protocol's own moving average of attempts, not one over ten minutes.

use cocoon_protocol::selection::{Candidate, Patience, Policy, Retry, View};
use cocoon_protocol::units::Millis;

use super::baselines::scattered;

/// A request's time-out at the worker's hop: 120 s, less 5 % three times.
pub(super) const TIMEOUT_S: f64 = 102.885;

/// Running queries times their average time; the first connection among equals; no retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CocoonProxy {
    /// How long a request may take.
    pub timeout: Millis,
    /// Stands for the order in which workers connected to this proxy: a proxy numbers its own
    /// connections, so no two have the same first one.
    pub order: u64,
}

impl Policy for CocoonProxy {
    fn order(&self, candidates: &mut [Candidate], view: &View<'_>) {
        for candidate in &mut *candidates {
            let running = u32::try_from(view.jobs_with(candidate.provider)).unwrap_or(u32::MAX);
            candidate.score = f64::from(running) * candidate.standing.attempt_ms;
        }
        let connection = |it: &Candidate| scattered(self.order, it);
        candidates.sort_by(|a, b| {
            let by_score = a.score.total_cmp(&b.score);
            by_score.then_with(|| connection(a).cmp(&connection(b)))
        });
    }

    fn patience(&self) -> Patience {
        Patience {
            attempts: 1,
            prepare: self.timeout,
            start: self.timeout,
            first_token: self.timeout,
            each_prompt_token: Millis::new(0),
            stall: self.timeout,
            silence: self.timeout,
            answer: Some(self.timeout),
            queue: Millis::new(0),
            retry: Retry::Never,
        }
    }
}
