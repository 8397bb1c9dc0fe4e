//! The watcher that turns a run's facts into rows and figures.
//!
//! Owns: one pass over the facts with bounded memory: a few words a host and a channel, the jobs that are
//! under way, histograms, and at most 512 intervals for plots.
//! Must not: change the run, or keep anything that grows with virtual time.

mod account;
mod jobs;
mod money;
mod names;
mod series;
mod summarise;
mod views;

use std::collections::HashMap;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::job::FinishReason;
use cocoon_protocol::offer::Load;
use cocoon_protocol::units::Prices;
use simnet_host::{FailureKind, HostId, NOWHERE, Observation, Observer, Outcome, Places, Sample};
use simnet_scenario::Moment;

use crate::describe::Description;
use crate::histogram::Histogram;
use crate::results::Results;
use crate::schema;
use crate::table::{Cell, Destination, TableError, Tables};

use account::{Account, Accounts};
use jobs::{Ended, Jobs, Quick};
use money::Money;
use names::Names;
use series::Series;
use views::Views;

/// What a recorder keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Rows of a table that are all kept; beyond, it is thinned. Default 4 million: about 150 MB of jobs.
    pub rows_before_thinning: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { rows_before_thinning: 4_000_000 }
    }
}

/// An invariant that did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation<'a> {
    /// When.
    pub at: Moment,
    /// On which host; `None` for the whole network.
    pub host: Option<HostId>,
    /// Which invariant.
    pub invariant: &'a str,
    /// What was seen.
    pub detail: &'a str,
}

/// Records a run. Make one, hand it to the run as its observer, then [`Recorder::finish`].
#[derive(Debug)]
pub struct Recorder {
    about: Description,
    /// No host is an adversary and none is a victim: then it need not be known who meets whom.
    is_harmless: bool,
    names: Names,
    tables: Tables,
    accounts: Accounts,
    jobs: Jobs,
    money: Money,
    views: Views,
    series: Series,
    /// What each provider offered last: prices of completion and prompt, and its load. Never iterated.
    offered: HashMap<u32, (u64, u64, Load), Quick>,
    prices: Histogram,
    sessions: [u64; 3],
    session_open: Histogram,
    routes: Histogram,
    offers: u64,
    settlements: u64,
    violations: u64,
    /// At the first sample after the warm-up: time that hosts had run, bytes that they had sent.
    warm: Option<(u64, u64)>,
}

/// Microseconds since the start.
fn micros(at: Moment) -> u64 {
    at.as_nanos() / 1000
}

fn micros_of(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The word for a tier in tables.
const fn tier_word(tier: Tier) -> &'static str {
    match tier {
        Tier::Open => "open",
        Tier::Attested => "attested",
        Tier::Confidential => "confidential",
    }
}

const fn load_word(load: Load) -> &'static str {
    match load {
        Load::Idle => "idle",
        Load::Busy => "busy",
        Load::Full => "full",
        Load::Draining => "draining",
    }
}

const fn reason_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
        FinishReason::Unpaid => "unpaid",
        FinishReason::Failed => "engine failed",
        FinishReason::Draining => "draining",
    }
}

/// The word for a failure in tables and plots.
pub const fn failure_word(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::NoProvider => "no provider",
        FailureKind::NoTier => "no tier",
        FailureKind::PriceTooHigh => "price too high",
        FailureKind::Refused => "refused",
        FailureKind::Unreachable => "unreachable",
        FailureKind::AttestationRefused => "attestation refused",
        FailureKind::ProviderLost => "provider lost",
        FailureKind::Misbehaved => "misbehaved",
        FailureKind::FundsExhausted => "funds exhausted",
        FailureKind::LedgerUnavailable => "ledger unavailable",
        FailureKind::OwnNode => "own node",
        FailureKind::Crashed => "consumer crashed",
        FailureKind::Cancelled => "cancelled",
    }
}

impl Recorder {
    /// A recorder for a run that is about to start.
    ///
    /// # Errors
    /// When the folder or a file in it cannot be made.
    pub fn new(
        about: Description,
        destination: Destination,
        options: Options,
    ) -> Result<Self, TableError> {
        let regions = about.regions.len();
        let is_harmless =
            about.victims.is_empty() && about.hosts.iter().all(|it| it.adversary.is_none());
        Ok(Self {
            is_harmless,
            tables: Tables::create(destination, options.rows_before_thinning)?,
            names: Names::new(&about),
            accounts: Accounts::new(about.hosts.len()),
            offered: HashMap::default(),
            jobs: Jobs::new(regions),
            money: Money::default(),
            views: Views::new(&about),
            series: Series::default(),
            prices: Histogram::default(),
            sessions: [0; 3],
            session_open: Histogram::default(),
            routes: Histogram::default(),
            offers: 0,
            settlements: 0,
            violations: 0,
            warm: None,
            about,
        })
    }

    /// Records that an invariant did not hold.
    pub fn violation(&mut self, violation: Violation<'_>) {
        self.violations += 1;
        self.tables.push(
            &schema::VIOLATIONS,
            &[
                micros(violation.at).into(),
                violation.host.map(|it| it.0).into(),
                violation.invariant.into(),
                violation.detail.into(),
            ],
        );
    }

    /// Ends the recording: writes what is left of the tables and counts up. Also for a run that was
    /// interrupted: its files are complete, up to where it came.
    ///
    /// # Errors
    /// When a table could not be written, now or at any time before.
    pub fn finish(self, outcome: &Outcome) -> Result<Results, TableError> {
        summarise::finish(self, outcome)
    }

    fn model_name(about: &Description, index: Option<usize>) -> &str {
        index.and_then(|it| about.models.get(it)).map_or("unknown", |it| it.1.as_str())
    }

    fn is_adversary(&self, host: u32) -> bool {
        let label = usize::try_from(host).ok().and_then(|it| self.about.hosts.get(it));
        !self.is_harmless && label.is_some_and(|it| it.adversary.is_some())
    }

    fn host(&self, node: NodeId) -> Option<u32> {
        self.names.host(&self.about.hosts, node)
    }

    fn account(&mut self, host: u32) -> Option<&mut Account> {
        self.accounts.entry(host)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "its caller hands it no other facts")]
    fn job_fact(&mut self, at: u64, host: u32, fact: &Observation) {
        match *fact {
            Observation::JobSubmitted { job, model, minimum_tier } => {
                let model = self.names.models.get(&model).copied();
                let hostile = self.is_adversary(host);
                let (who, what) = ((host, hostile), (model, minimum_tier));
                self.jobs.submitted(job, who, at, what, &self.about);
                if let Some(account) = self.account(host) {
                    account.submitted += 1;
                }
                if !hostile {
                    self.series.now.submitted += 1;
                    self.views.wanted(at, host);
                }
            }
            Observation::PromptSent { job, provider, hostile, .. } => {
                let provider = self.host(provider);
                let attested = self.jobs.prompt_sent(&job, provider, hostile);
                if let Some(account) = provider.and_then(|it| self.account(it)) {
                    account.prompts += 1;
                    account.attested_prompts += u32::from(attested);
                }
            }
            Observation::FirstToken { job, after }
                if self.jobs.first_token(&job, micros_of(after)) =>
            {
                self.series.now.first_token.record(micros_of(after));
            }
            _ => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "its caller hands it no other facts")]
    fn job_end(&mut self, host: u32, fact: &Observation) {
        match *fact {
            Observation::JobFinished {
                job,
                provider,
                reason,
                prompt,
                completion,
                cost,
                vouchers,
                attempts,
                after,
            } => {
                let ended = Ended {
                    failure: None,
                    reason: reason_word(reason),
                    unpaid: reason == FinishReason::Unpaid,
                    prompt: prompt.get(),
                    completion: completion.get(),
                    cost: cost.as_nano(),
                    vouchers,
                    attempts,
                    after: micros_of(after),
                };
                if let Some(account) = self.account(host) {
                    account.finished += 1;
                }
                let provider = self.host(provider);
                if let Some(account) = provider.and_then(|it| self.account(it)) {
                    account.served += 1;
                }
                self.ended(&job, ended);
            }
            Observation::JobFailed { job, kind, attempts, after, paid } => {
                let ended = Ended {
                    failure: Some(kind),
                    reason: failure_word(kind),
                    unpaid: true,
                    prompt: 0,
                    completion: 0,
                    cost: paid.as_nano(),
                    vouchers: 0,
                    attempts,
                    after: micros_of(after),
                };
                if let Some(account) = self.account(host) {
                    account.failed += 1;
                }
                self.ended(&job, ended);
            }
            _ => {}
        }
    }

    fn ended(&mut self, job: &cocoon_protocol::identity::JobId, ended: Ended) {
        let Some(open) = self.jobs.ended(job, &ended, &self.about) else { return };
        if !open.hostile_consumer {
            self.series.now.ended(&ended);
        }
        if let Some(lost_to) =
            open.provider.filter(|it| ended.failure.is_some() && self.is_adversary(*it))
            && !open.hostile_consumer
            && let Some(account) = self.account(lost_to)
        {
            account.jobs_lost += 1;
            account.paid_lost += ended.cost;
        }
        if ended.unpaid
            && let Some(account) = self.account(open.consumer)
        {
            account.unpaid += open.exposed;
        }
        let (about, tables) = (&self.about, &mut self.tables);
        tables.push_thinned(&schema::JOBS, open.number, |weight| {
            jobs::row(&open, Some(&ended), weight, Self::model_name(about, open.model))
        });
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "its caller hands it no other facts")]
    fn money_fact(&mut self, at: u64, host: u32, fact: &Observation) {
        match *fact {
            Observation::Promised { channel, cumulative } => {
                let Self { names, about, money, .. } = self;
                let provider = || names.host(&about.hosts, channel.provider);
                let step = money.promised(&channel, host, provider, cumulative.as_nano());
                if let Some(account) = self.account(host) {
                    account.spend += step;
                }
            }
            Observation::Held { channel, cumulative } => {
                let step = self.money.held(&channel, host, cumulative.as_nano());
                if let Some(account) = self.account(host) {
                    account.income += step;
                }
            }
            Observation::Settled { channel, paid } => {
                let (consumer, step) = self.money.settled(&channel, host, paid.as_nano());
                if let Some(account) = self.account(host) {
                    account.settled += step;
                }
                let number = self.settlements;
                self.settlements += 1;
                self.tables.push_thinned(&schema::SETTLEMENTS, number, |weight| {
                    [
                        at.into(),
                        weight.into(),
                        host.into(),
                        consumer.into(),
                        channel.epoch.into(),
                        step.into(),
                        paid.as_nano().into(),
                    ]
                });
            }
            Observation::Exposed { job, value, peer_owes, step, .. } => {
                let millisteps =
                    |owed: u64| owed.saturating_mul(1_000).checked_div(step.as_nano()).unwrap_or(0);
                let debtor = self.jobs.exposed(&job, value.as_nano());
                if let Some(account) = debtor.and_then(|it| self.account(it)) {
                    account.job_ahead = account.job_ahead.max(millisteps(value.as_nano()));
                    account.channel_ahead =
                        account.channel_ahead.max(millisteps(peer_owes.as_nano()));
                }
                if let Some(account) = self.account(host) {
                    account.exposure = account.exposure.max(value.as_nano());
                }
            }
            _ => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "its caller hands it no other facts")]
    fn network_fact(&mut self, at: u64, host: u32, fact: &Observation) {
        match *fact {
            Observation::RouteReady { model, after } => {
                let number = self.routes.count();
                self.routes.record(micros_of(after));
                let model = self.names.models.get(&model).copied();
                let (about, tables) = (&self.about, &mut self.tables);
                tables.push_thinned(&schema::ROUTES, number, |weight| {
                    [
                        at.into(),
                        weight.into(),
                        host.into(),
                        Self::model_name(about, model).into(),
                        micros_of(after).into(),
                    ]
                });
            }
            Observation::SessionOpened { peer, after } => {
                self.session_open.record(micros_of(after));
                self.session(at, host, peer, 0, Some(micros_of(after)));
            }
            Observation::SessionFailed { peer, refused } => {
                self.session(at, host, peer, if refused { 2 } else { 1 }, None);
            }
            Observation::Offered { load, prices } => self.offer(at, host, load, prices),
            Observation::Met { provider } => self.saw(at, host, provider, true),
            Observation::Forgot { provider } => self.saw(at, host, provider, false),
            _ => {}
        }
    }

    /// A consumer has an offer of a provider, or no longer has.
    fn saw(&mut self, at: u64, host: u32, provider: NodeId, comes: bool) {
        if self.is_harmless {
            self.views.met[0] += u64::from(comes);
            return;
        }
        let label = |number: u32| self.about.hosts.get(usize::try_from(number).ok()?);
        if label(host).is_some_and(|it| it.adversary.is_none())
            && let Some(number) = self.host(provider)
            && let Some(provider) = label(number)
        {
            self.views.offer(at, host, (number, provider), comes);
        }
    }

    fn session(&mut self, at: u64, host: u32, peer: NodeId, outcome: usize, after: Option<u64>) {
        let number = self.sessions.iter().sum();
        if let Some(count) = self.sessions.get_mut(outcome) {
            *count += 1;
        }
        let words = ["open", "unreachable", "refused"];
        let (names, hosts) = (&self.names, &self.about.hosts);
        let tables = &mut self.tables;
        tables.push_thinned(&schema::SESSIONS, number, |weight| {
            [
                at.into(),
                weight.into(),
                host.into(),
                names.host(hosts, peer).into(),
                words.get(outcome).copied().into(),
                after.into(),
            ]
        });
    }

    fn offer(&mut self, at: u64, host: u32, load: Load, prices: Prices) {
        let (prompt, completion) = (prices.prompt.as_nano(), prices.completion.as_nano());
        let new = (completion, prompt, load);
        let last = self.offered.insert(host, new);
        if last == Some(new) {
            return;
        }
        if let Some((completion, ..)) = last {
            self.prices.forget(completion);
        }
        self.prices.record(completion);
        let number = self.offers;
        self.offers += 1;
        self.tables.push_thinned(&schema::OFFERS, number, |weight| {
            [
                at.into(),
                weight.into(),
                host.into(),
                load_word(load).into(),
                prompt.into(),
                completion.into(),
            ]
        });
    }
}

impl Observer for Recorder {
    fn observe(&mut self, moment: Moment, id: HostId, fact: &Observation) {
        let (at, host) = (micros(moment), id.0);
        match fact {
            Observation::Defect { rule } => self.violation(Violation {
                at: moment,
                host: Some(id),
                invariant: "defect",
                detail: rule,
            }),
            Observation::Started { .. } => {
                self.views.began(at, host);
                self.accounts.start(host, at);
            }
            Observation::Crashed | Observation::Left => {
                let crashed = *fact == Observation::Crashed;
                self.series.now.crashed += u64::from(crashed);
                self.accounts.stop(host, at, crashed);
            }
            Observation::JobSubmitted { .. }
            | Observation::PromptSent { .. }
            | Observation::FirstToken { .. } => self.job_fact(at, host, fact),
            Observation::JobFinished { .. } | Observation::JobFailed { .. } => {
                self.job_end(host, fact);
            }
            Observation::Promised { .. }
            | Observation::Held { .. }
            | Observation::Exposed { .. }
            | Observation::Settled { .. } => self.money_fact(at, host, fact),
            Observation::RouteReady { .. }
            | Observation::Offered { .. }
            | Observation::Met { .. }
            | Observation::Forgot { .. }
            | Observation::SessionOpened { .. }
            | Observation::SessionFailed { .. } => self.network_fact(at, host, fact),
            Observation::Worked { engine } => {
                if let Some(account) = self.account(host) {
                    account.engine += micros_of(*engine);
                }
            }
            Observation::DoubleSpendRefused { .. }
            | Observation::JobsAdrift { .. }
            | Observation::Queued { .. } => {}
        }
    }

    fn places(&self, HostId(host): HostId, step: u8) -> Places {
        let [_, none] = NOWHERE;
        [self.accounts.place(host, step), none]
    }

    fn sample(&mut self, sample: &Sample) {
        let at = micros(sample.at);
        if self.warm.is_none() && sample.at >= self.about.warm_up {
            let uptime = self.accounts.lives().map(|it| it.uptime(at)).sum();
            self.warm = Some((uptime, sample.traffic.iter().map(|it| it.1).sum()));
        }
        let price = self.prices.quantile(500);
        let point = self.series.close(at, sample, self.jobs.running(), price);
        self.tables.push(&schema::SAMPLES, &point.row());
        for (protocol, bytes, total) in self.series.traffic_of_last() {
            self.tables.push(
                &schema::TRAFFIC,
                &[at.into(), Cell::Text(protocol), bytes.into(), total.into()],
            );
        }
    }
}
