//! The end of a recording: last rows, and all figures.
//!
//! Owns: what is counted over hosts and channels. Must not: look at single jobs; they are counted.

use std::collections::BTreeMap;

use simnet_host::Outcome;

use super::account::Account;
use super::{Recorder, jobs, micros, tier_word};
use crate::describe::{Description, HostLabel};
use crate::histogram::Histogram;
use crate::results::{
    About, AdversarySummary, Curves, Ending, JobSummary, MoneySummary, Population, Quantiles,
    RegionSummary, Results, SessionSummary, Spread, Summary, TierSummary,
};
use crate::schema;
use crate::statistics;
use crate::table::{Cell, TableError};

/// Points of a Lorenz curve beside its origin.
const LORENZ_POINTS: usize = 100;

const fn real(value: u64) -> f64 {
    value as f64
}

pub(super) fn finish(mut recorder: Recorder, outcome: &Outcome) -> Result<Results, TableError> {
    let end = micros(outcome.at);
    let unfinished = unfinished_jobs(&mut recorder);
    let fair = fair_income_per_engine_us(&recorder);
    host_rows(&mut recorder, end);
    channel_rows(&mut recorder);
    let adversaries = adversary_rows(&mut recorder, fair);

    let incomes = sums(&recorder, |it| it.provider, |it| it.income);
    let spends = sums(&recorder, |it| it.consumer, |it| it.spend);
    let mut income = Histogram::default();
    incomes.iter().for_each(|it| income.record(*it));
    let incomes: Vec<f64> = incomes.into_iter().map(real).collect();
    let spends: Vec<f64> = spends.into_iter().map(real).collect();

    let uptime: u64 = recorder.accounts.lives().map(|it| it.uptime(end)).sum();
    let sent: u64 = recorder.series.totals().values().sum();
    let warm = recorder.warm.unwrap_or((uptime, sent));
    let [victims, attested] = recorder.jobs.victims.map(|it| tier_summary(&it));
    let summary = Summary {
        population: population(&recorder.about),
        jobs: job_summary(&recorder, unfinished),
        first_token_us: Quantiles::of(&recorder.jobs.first_token),
        duration_us: Quantiles::of(&recorder.jobs.duration),
        route_ready_us: Quantiles::of(&recorder.routes),
        session_open_us: Quantiles::of(&recorder.session_open),
        sessions: sessions(&recorder),
        money: money(&recorder),
        income_nanoton: spread(&incomes),
        spend_nanoton: spread(&spends),
        traffic_bytes: recorder
            .series
            .totals()
            .iter()
            .map(|it| ((*it.0).to_owned(), *it.1))
            .collect(),
        uptime_us: uptime,
        warm_up_us: micros(recorder.about.warm_up).min(end),
        steady_bytes: sent.saturating_sub(warm.1),
        steady_uptime_us: uptime.saturating_sub(warm.0),
        victims: recorder.views.summary(end, victims, attested),
        offers_met: recorder.views.met[0],
        offers_of_adversaries: recorder.views.met[1],
        engine_us: recorder.accounts.iter().map(|it| it.1.engine).sum(),
        crashes: recorder.accounts.lives().map(|it| u64::from(it.crashes)).sum(),
        adversaries,
        violations: recorder.violations,
    };
    let curves = Curves {
        first_token_us: recorder.jobs.first_token,
        duration_us: recorder.jobs.duration,
        route_ready_us: recorder.routes,
        session_open_us: recorder.session_open,
        paid_price_nanoton: recorder.jobs.paid_price,
        offered_price_nanoton: recorder.prices,
        income_nanoton: income,
        income_lorenz: statistics::lorenz(&incomes, LORENZ_POINTS),
        flows: recorder.jobs.flows,
        timeline: recorder.series.timeline(),
    };
    Ok(Results {
        about: about(&recorder.about),
        ending: Ending {
            at_us: end,
            interrupted: outcome.interrupted,
            events: outcome.events,
            trace: hex::encode(outcome.trace),
        },
        summary,
        tables: recorder.tables.finish()?,
        curves,
    })
}

const fn sessions(recorder: &Recorder) -> SessionSummary {
    let [open, unreachable, refused] = recorder.sessions;
    SessionSummary { open, unreachable, refused }
}

fn money(recorder: &Recorder) -> MoneySummary {
    let total = |of: fn(&Account) -> u64| recorder.accounts.iter().map(|it| of(it.1)).sum::<u64>();
    MoneySummary {
        cost_nanoton: Quantiles::of(&recorder.jobs.cost),
        paid_price_nanoton: Quantiles::of(&recorder.jobs.paid_price),
        offered_price_nanoton: Quantiles::of(&recorder.prices),
        promised_nanoton: total(|it| it.spend),
        held_nanoton: total(|it| it.income),
        settled_nanoton: total(|it| it.settled),
        paid_for_failed_nanoton: recorder.jobs.paid_for_failed,
        exposure_nanoton: recorder.accounts.iter().map(|it| it.1.exposure).max().unwrap_or(0),
    }
}

fn about(about: &Description) -> About {
    About {
        scenario: about.scenario.clone(),
        variant: about.variant.clone(),
        seed: about.seed,
        tier: about.tier.clone(),
        commit: about.commit.clone(),
        scenario_hash: blake3::hash(about.scenario_text.as_bytes()).to_hex().to_string(),
        scenario_text: about.scenario_text.clone(),
    }
}

/// Rows for the jobs that have not ended; how many of them are honest consumers'.
fn unfinished_jobs(recorder: &mut Recorder) -> u64 {
    let mut honest = 0;
    for open in recorder.jobs.take_unfinished() {
        if open.hostile_consumer
            && let Some(account) = recorder.account(open.consumer)
        {
            account.unpaid += open.exposed;
        }
        honest += u64::from(open.counts);
        let (about, tables) = (&recorder.about, &mut recorder.tables);
        tables.push_thinned(&schema::JOBS, open.number, |weight| {
            jobs::row(&open, None, weight, Recorder::model_name(about, open.model))
        });
    }
    honest
}

const fn role(label: &HostLabel) -> &'static str {
    match (label.consumer, label.provider) {
        (true, true) => "both",
        (true, false) => "consumer",
        (false, true) => "provider",
        (false, false) => "relay",
    }
}

fn name(names: &[String], index: u16) -> &str {
    names.get(usize::from(index)).map_or("unknown", String::as_str)
}

fn host_rows(recorder: &mut Recorder, end: u64) {
    let about = &recorder.about;
    let accounts = about.hosts.iter().zip(recorder.accounts.iter());
    for (number, (label, (life, account))) in (0_u32..).zip(accounts) {
        let region = about.regions.get(usize::from(label.region));
        let row: [Cell<'_>; 18] = [
            number.into(),
            role(label).into(),
            region.map_or("unknown", |it| it.name.as_str()).into(),
            name(&about.classes, label.class).into(),
            label.adversary.map(|it| name(&about.behaviours, it)).into(),
            life.starts.into(),
            life.crashes.into(),
            life.uptime(end).into(),
            account.submitted.into(),
            account.finished.into(),
            account.failed.into(),
            account.served.into(),
            account.prompts.into(),
            account.spend.into(),
            account.income.into(),
            account.settled.into(),
            account.engine.into(),
            account.exposure.into(),
        ];
        recorder.tables.push(&schema::HOSTS, &row);
    }
}

fn channel_rows(recorder: &mut Recorder) {
    for channel in recorder.money.channels() {
        let row = [
            channel.consumer.into(),
            channel.provider.into(),
            channel.epoch.into(),
            channel.promised.into(),
            channel.held.into(),
            channel.settled.into(),
        ];
        recorder.tables.push(&schema::CHANNELS, &row);
    }
}

/// What an honest provider earns with a microsecond of an engine's place, nanoTON.
fn fair_income_per_engine_us(recorder: &Recorder) -> f64 {
    let accounts = recorder.accounts.iter().map(|it| it.1);
    let honest = recorder.about.hosts.iter().zip(accounts);
    let honest = honest.filter(|it| it.0.adversary.is_none() && it.0.provider);
    let (income, engine) = honest.fold((0, 0), |sum: (u64, u64), it| {
        (sum.0.saturating_add(it.1.income), sum.1.saturating_add(it.1.engine))
    });
    if engine == 0 { 0.0 } else { real(income) / real(engine) }
}

fn adversary_rows(recorder: &mut Recorder, fair: f64) -> Vec<AdversarySummary> {
    let about = &recorder.about;
    let mut kinds: BTreeMap<u16, AdversarySummary> = BTreeMap::new();
    let accounts = about.hosts.iter().zip(recorder.accounts.iter());
    for (number, (label, (_, account))) in (0_u32..).zip(accounts) {
        let Some(kind) = label.adversary else { continue };
        let gain = fair.mul_add(-real(account.engine), real(account.income)) + real(account.unpaid);
        let damage = real(account.paid_lost) + real(account.unpaid);
        let behaviour = name(&about.behaviours, kind);
        let row = [
            number.into(),
            behaviour.into(),
            account.income.into(),
            account.spend.into(),
            account.engine.into(),
            account.prompts.into(),
            account.served.into(),
            account.jobs_lost.into(),
            account.paid_lost.into(),
            account.unpaid.into(),
            gain.into(),
            damage.into(),
        ];
        recorder.tables.push(&schema::ADVERSARIES, &row);
        let sum = kinds.entry(kind).or_default();
        behaviour.clone_into(&mut sum.behaviour);
        sum.hosts += 1;
        sum.income_nanoton += account.income;
        sum.prompts_received += u64::from(account.prompts);
        sum.attested_prompts += u64::from(account.attested_prompts);
        sum.jobs_submitted += u64::from(account.submitted);
        sum.jobs_finished += u64::from(account.finished);
        sum.engine_us += account.engine;
        sum.paid_lost_nanoton += account.paid_lost;
        sum.unpaid_nanoton += account.unpaid;
        sum.job_ahead_millisteps = sum.job_ahead_millisteps.max(account.job_ahead);
        sum.channel_ahead_millisteps = sum.channel_ahead_millisteps.max(account.channel_ahead);
        sum.jobs_served += u64::from(account.served);
        sum.jobs_lost += u64::from(account.jobs_lost);
        sum.gain_nanoton += gain;
        sum.damage_nanoton += damage;
    }
    kinds.into_values().collect()
}

/// A counter of all honest hosts of a role.
fn sums(recorder: &Recorder, role: fn(&HostLabel) -> bool, of: fn(&Account) -> u64) -> Vec<u64> {
    let accounts = recorder.accounts.iter().map(|it| it.1);
    let hosts = recorder.about.hosts.iter().zip(accounts);
    hosts.filter(|it| it.0.adversary.is_none() && role(it.0)).map(|it| of(it.1)).collect()
}

fn spread(values: &[f64]) -> Spread {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let sum: f64 = sorted.iter().sum();
    let hosts = u64::try_from(sorted.len()).unwrap_or(u64::MAX);
    let at = |share| statistics::quantile(&sorted, share).unwrap_or(0.0);
    Spread {
        hosts,
        sum,
        mean: if hosts == 0 { 0.0 } else { sum / real(hosts) },
        p10: at(0.1),
        p50: at(0.5),
        p90: at(0.9),
        gini: statistics::gini(&sorted),
    }
}

fn population(about: &Description) -> Population {
    let count = |of: &dyn Fn(&HostLabel) -> bool| {
        u64::try_from(about.hosts.iter().filter(|it| of(it)).count()).unwrap_or(u64::MAX)
    };
    let regions = (0_u16..).zip(&about.regions).map(|(number, region)| RegionSummary {
        region: region.clone(),
        consumers: count(&|it| it.region == number && it.consumer),
        providers: count(&|it| it.region == number && it.provider),
    });
    Population {
        hosts: count(&|_| true),
        consumers: count(&|it| it.consumer),
        providers: count(&|it| it.provider),
        adversaries: count(&|it| it.adversary.is_some()),
        regions: regions.collect(),
    }
}

const fn tier_summary(counts: &jobs::Counts) -> TierSummary {
    TierSummary { submitted: counts.submitted, finished: counts.finished, failed: counts.failed }
}

/// A kind of failure and how often it was, in words.
fn cause(((word, met_adversary), count): (&(&str, bool), &u64)) -> (String, u64) {
    let after = if *met_adversary { ", an adversary had the prompt" } else { "" };
    (format!("{word}{after}"), *count)
}

fn job_summary(recorder: &Recorder, unfinished: u64) -> JobSummary {
    use cocoon_protocol::attest::Tier;
    let jobs = &recorder.jobs;
    let tiers = [Tier::Open, Tier::Attested, Tier::Confidential].map(tier_word).into_iter();
    let tiers: BTreeMap<String, TierSummary> = tiers
        .zip(&jobs.tiers)
        .filter(|it| it.1.submitted > 0)
        .map(|(word, it)| {
            let of =
                TierSummary { submitted: it.submitted, finished: it.finished, failed: it.failed };
            (word.to_owned(), of)
        })
        .collect();
    JobSummary {
        submitted: tiers.values().map(|it| it.submitted).sum(),
        finished: tiers.values().map(|it| it.finished).sum(),
        failed: tiers.values().map(|it| it.failed).sum(),
        unfinished,
        attempts: jobs.attempts,
        vouchers: jobs.vouchers,
        prompt_tokens: jobs.prompt_tokens,
        completion_tokens: jobs.completion_tokens,
        tiers,
        failures: jobs.failures.iter().map(|it| ((*it.0).to_owned(), *it.1)).collect(),
        attested_failures: jobs.attested_failures.iter().map(cause).collect(),
        of_adversaries: jobs.of_adversaries,
        before_warm_up: jobs.before_warm_up,
    }
}
