//! The headline figures of a run: one list for the terminal, `result.json`, the report and comparisons.
//!
//! Owns: names, units, and which direction is better. Must not: compute anything that is not a quotient
//! or a pick from a summary.

use crate::results::{Ending, Summary, TierSummary};

/// Which direction of a figure is better for the network's users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Greater is better.
    More,
    /// Smaller is better.
    Less,
    /// Neither: it describes.
    Neither,
}

/// A headline figure.
#[derive(Clone, Copy)]
pub struct Figure {
    /// Its name in `result.json`; never changes.
    pub key: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// Its unit; empty for shares of one and plain numbers.
    pub unit: &'static str,
    /// Which direction is better.
    pub better: Better,
    value: fn(&Summary, &Ending) -> Option<f64>,
}

impl std::fmt::Debug for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Figure").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Figure {
    /// Its value; `None` if the run has nothing to take it from.
    pub fn value(&self, summary: &Summary, ending: &Ending) -> Option<f64> {
        (self.value)(summary, ending).filter(|it| it.is_finite())
    }

    /// The figure of this name.
    pub fn named(key: &str) -> Option<&'static Self> {
        FIGURES.iter().find(|it| it.key == key)
    }
}

const fn real(value: u64) -> f64 {
    value as f64
}

fn quotient(above: f64, below: f64) -> Option<f64> {
    (below > 0.0).then(|| above / below)
}

/// Finished of those that ended.
fn success(jobs: &TierSummary) -> Option<f64> {
    quotient(real(jobs.finished), real(jobs.finished + jobs.failed))
}

/// Of a distribution that has values: one of its numbers, in a unit `per` times as large.
fn of(count: u64, value: u64, per: f64) -> Option<f64> {
    (count > 0).then(|| real(value) / per)
}

/// Time that the figures on jobs are about.
fn seconds(summary: &Summary, ending: &Ending) -> f64 {
    real(ending.at_us.saturating_sub(summary.warm_up_us)) / MILLION
}

const MILLION: f64 = 1e6;
const TON: f64 = 1e9;

const fn figure(
    key: &'static str,
    label: &'static str,
    unit: &'static str,
    better: Better,
    value: fn(&Summary, &Ending) -> Option<f64>,
) -> Figure {
    Figure { key, label, unit, better, value }
}

/// All headline figures, in the order in which they are shown.
pub const FIGURES: &[Figure] = &[
    figure("success", "jobs finished of those ended", "", Better::More, |it, _| {
        quotient(real(it.jobs.finished), real(it.jobs.finished + it.jobs.failed))
    }),
    figure("jobs_finished", "jobs finished", "jobs", Better::More, |it, _| {
        Some(real(it.jobs.finished))
    }),
    figure("jobs_failed", "jobs failed", "jobs", Better::Less, |it, _| Some(real(it.jobs.failed))),
    figure("first_token_p50_ms", "first token, median", "ms", Better::Less, |it, _| {
        of(it.first_token_us.count, it.first_token_us.p50, 1e3)
    }),
    figure("first_token_p99_ms", "first token, 99 %", "ms", Better::Less, |it, _| {
        of(it.first_token_us.count, it.first_token_us.p99, 1e3)
    }),
    figure("duration_p50_ms", "whole job, median", "ms", Better::Less, |it, _| {
        of(it.duration_us.count, it.duration_us.p50, 1e3)
    }),
    figure("duration_p99_ms", "whole job, 99 %", "ms", Better::Less, |it, _| {
        of(it.duration_us.count, it.duration_us.p99, 1e3)
    }),
    figure("attempts", "attempts a job", "", Better::Less, |it, _| {
        quotient(real(it.jobs.attempts), real(it.jobs.finished + it.jobs.failed))
    }),
    figure(
        "tokens_per_second",
        "completion tokens a second",
        "tokens/s",
        Better::More,
        |it, end| quotient(real(it.jobs.completion_tokens), seconds(it, end)),
    ),
    figure("cost_nanoton", "cost a job, mean", "nanoTON", Better::Less, |it, _| {
        (it.money.cost_nanoton.count > 0).then_some(it.money.cost_nanoton.mean)
    }),
    figure("price_ton", "price paid per million tokens, median", "TON", Better::Less, |it, _| {
        of(it.money.paid_price_nanoton.count, it.money.paid_price_nanoton.p50, TON)
    }),
    figure("paid_for_failed_ton", "paid for jobs that failed", "TON", Better::Less, |it, _| {
        Some(real(it.money.paid_for_failed_nanoton) / TON)
    }),
    figure("income_ton", "income a provider, mean", "TON", Better::Neither, |it, _| {
        (it.income_nanoton.hosts > 0).then(|| it.income_nanoton.mean / TON)
    }),
    figure("income_gini", "income, Gini coefficient", "", Better::Less, |it, _| {
        it.income_nanoton.gini
    }),
    figure("income_p90_p10", "income, 90 % over 10 % quantile", "", Better::Less, |it, _| {
        quotient(it.income_nanoton.p90, it.income_nanoton.p10)
    }),
    figure("exposure_nanoton", "most served unpaid, one job", "nanoTON", Better::Less, |it, _| {
        Some(real(it.money.exposure_nanoton))
    }),
    figure("route_ready_p50_ms", "route ready, median", "ms", Better::Less, |it, _| {
        of(it.route_ready_us.count, it.route_ready_us.p50, 1e3)
    }),
    figure("route_ready_p99_ms", "route ready, 99 %", "ms", Better::Less, |it, _| {
        of(it.route_ready_us.count, it.route_ready_us.p99, 1e3)
    }),
    figure("session_open_p50_ms", "session open, median", "ms", Better::Less, |it, _| {
        of(it.session_open_us.count, it.session_open_us.p50, 1e3)
    }),
    figure("session_failures", "dials that did not become a session", "", Better::Less, |it, _| {
        let failed = it.sessions.unreachable + it.sessions.refused;
        quotient(real(failed), real(failed + it.sessions.open))
    }),
    figure("traffic_per_host", "traffic a host that runs", "bytes/s", Better::Less, |it, _| {
        quotient(real(it.steady_bytes) * MILLION, real(it.steady_uptime_us))
    }),
    figure("adversary_gain_ton", "gain of all adversaries", "TON", Better::Less, |it, _| {
        (!it.adversaries.is_empty())
            .then(|| it.adversaries.iter().map(|it| it.gain_nanoton).sum::<f64>() / TON)
    }),
    figure("adversary_damage_ton", "damage by all adversaries", "TON", Better::Less, |it, _| {
        (!it.adversaries.is_empty())
            .then(|| it.adversaries.iter().map(|it| it.damage_nanoton).sum::<f64>() / TON)
    }),
    figure(
        "jobs_lost_to_adversaries",
        "jobs lost to adversaries",
        "jobs",
        Better::Less,
        |it, _| {
            (!it.adversaries.is_empty())
                .then(|| it.adversaries.iter().map(|it| real(it.jobs_lost)).sum())
        },
    ),
    figure("victim_success", "jobs finished of victims' jobs ended", "", Better::More, |it, _| {
        success(&it.victims.jobs)
    }),
    figure("victim_attested_success", "the same, attested or above", "", Better::More, |it, _| {
        success(&it.victims.attested)
    }),
    figure("victim_without_route", "victims' time without a route", "", Better::Less, |it, _| {
        quotient(real(it.victims.without_route_us), real(it.victims.watched_us))
    }),
    figure(
        "victim_without_attested",
        "victims' time without a route to a TEE",
        "",
        Better::Less,
        |it, _| quotient(real(it.victims.without_attested_us), real(it.victims.watched_us)),
    ),
    figure(
        "victim_offers_hostile",
        "adversaries among the providers that victims met",
        "",
        Better::Less,
        |it, _| quotient(real(it.victims.offers_of_adversaries), real(it.victims.offers_met)),
    ),
    figure(
        "offers_hostile",
        "adversaries among the providers that consumers met",
        "",
        Better::Less,
        |it, _| {
            let any = it.population.adversaries > 0;
            any.then(|| quotient(real(it.offers_of_adversaries), real(it.offers_met)))?
        },
    ),
    figure("attested_success", "jobs finished, attested or above", "", Better::More, |it, _| {
        let above = || it.jobs.tiers.iter().filter(|it| it.0.as_str() != "open");
        let finished: u64 = above().map(|it| it.1.finished).sum();
        let failed: u64 = above().map(|it| it.1.failed).sum();
        quotient(real(finished), real(finished + failed))
    }),
    figure("crashes", "processes that died", "", Better::Neither, |it, _| Some(real(it.crashes))),
    figure("violations", "invariants that did not hold", "", Better::Less, |it, _| {
        Some(real(it.violations))
    }),
];

/// The figures that a run has, by name.
pub fn all(summary: &Summary, ending: &Ending) -> impl Iterator<Item = (&'static str, f64)> {
    FIGURES.iter().filter_map(move |it| Some((it.key, it.value(summary, ending)?)))
}
