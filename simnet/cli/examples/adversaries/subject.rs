//! The rows of the table: which scenario shows which adversary, and which figures say what it does.
//!
//! Owns: the choice of figures and the bounds. Must not: run anything.

use anyhow::{Context as _, Result};
use simnet_report::results::{AdversarySummary, Summary};
use simnet_scenario::adversary::Control;
use simnet_scenario::{Scenario, shipped};

/// A figure of a pair of runs: with the attack, and without.
pub(crate) struct Figure {
    pub(crate) words: &'static str,
    pub(crate) digits: usize,
    pub(crate) value: fn(&Summary, &Summary) -> f64,
}

/// Something that may not be above its limit in any run; from the runs with and without the attack.
pub(crate) struct Bound {
    pub(crate) words: &'static str,
    pub(crate) limit: f64,
    pub(crate) value: fn(&Summary, &Summary) -> f64,
}

/// A row.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) scenario: &'static str,
    pub(crate) changes: &'static [(&'static str, &'static str)],
    pub(crate) gain: &'static [Figure],
    pub(crate) damage: &'static [Figure],
    pub(crate) bounds: &'static [Bound],
    /// Whether failures of attested jobs are told one by one.
    pub(crate) explains: bool,
}

impl Subject {
    /// The scenario, or its control.
    pub(crate) fn load(&self, attack: bool) -> Result<Scenario> {
        let found = shipped(self.scenario).context("no such scenario")?;
        let scenario = Scenario::parse(found.name, found.text)?;
        let change = |it: &(&str, &str)| (it.0.to_owned(), it.1.to_owned());
        let mut changes: Vec<_> = self.changes.iter().map(change).collect();
        if !attack {
            for (place, group) in scenario.adversaries.iter().enumerate() {
                let control = match group.kind.control() {
                    Control::Honest => "honest",
                    Control::Absent => "absent",
                };
                changes.push((format!("adversaries.{place}.control"), control.to_owned()));
            }
        }
        Ok(scenario.with(&changes)?)
    }

    /// Its changes as one writes them.
    pub(crate) fn set(&self) -> String {
        let set = |it: &(&str, &str)| format!(" `--set {}={}`", it.0, it.1);
        self.changes.iter().map(set).collect()
    }
}

const fn real(value: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "figures for a table")]
    let value = value as f64;
    value
}

/// A share of one hundred; all of it where there is nothing.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 100.0 } else { 100.0 * real(part) / real(whole) }
}

fn all(summary: &Summary, of: fn(&AdversarySummary) -> f64) -> f64 {
    summary.adversaries.iter().map(of).sum()
}

fn most(summary: &Summary, of: fn(&AdversarySummary) -> u64) -> f64 {
    summary.adversaries.iter().map(of).max().map_or(0.0, real)
}

fn attested(summary: &Summary) -> f64 {
    let above = || summary.jobs.tiers.iter().filter(|it| it.0 != "open").map(|it| it.1);
    let finished = above().map(|it| it.finished).sum();
    percent(finished, above().map(|it| it.finished + it.failed).sum())
}

/// Prompts for each pair of an honest consumer and an adversary.
fn prompts_each(summary: &Summary) -> f64 {
    let pairs = real(summary.population.consumers) * all(summary, |it| real(it.hosts));
    all(summary, |it| real(it.prompts_received)) / pairs.max(1.0)
}

fn price(summary: &Summary) -> f64 {
    summary.money.paid_price_nanoton.mean / 1e9
}

pub(crate) fn success(summary: &Summary) -> f64 {
    percent(summary.jobs.finished, summary.jobs.finished + summary.jobs.failed)
}

fn earned(summary: &Summary) -> f64 {
    all(summary, |it| real(it.income_nanoton) / 1e6)
}

fn late(summary: &Summary) -> f64 {
    real(summary.first_token_us.p99) / 1e6
}

fn victim_attested(summary: &Summary) -> f64 {
    let jobs = summary.victims.attested;
    percent(jobs.finished, jobs.finished + jobs.failed)
}

const GAIN: Figure = Figure {
    words: "mTON beyond what its engines' time is worth",
    digits: 2,
    value: |it, _| all(it, |it| it.gain_nanoton / 1e6),
};
const EARNED: Figure = Figure {
    words: "mTON earned with a quarter of the work",
    digits: 2,
    value: |it, _| earned(it),
};
const EARNED_MORE: Figure = Figure {
    words: "mTON more than it earns honestly",
    digits: 2,
    value: |it, control| earned(it) - earned(control),
};
const UNPAID: Figure = Figure {
    words: "mTON of tokens that it did not pay",
    digits: 2,
    value: |it, _| all(it, |it| real(it.unpaid_nanoton) / 1e6),
};
const PROMPTS: Figure = Figure {
    words: "prompts of others",
    digits: 0,
    value: |it, _| all(it, |it| real(it.prompts_received)),
};
const FAILED: Figure = Figure {
    words: "more jobs failed",
    digits: 1,
    value: |it, control| real(it.jobs.failed) - real(control.jobs.failed),
};
const PAID_LOST: Figure = Figure {
    words: "mTON more paid for jobs that failed",
    digits: 2,
    value: |it, control| {
        let paid = |it: &Summary| real(it.money.paid_for_failed_nanoton) / 1e6;
        paid(it) - paid(control)
    },
};
const LATE: Figure = Figure {
    words: "s more to the first token at 99 %",
    digits: 1,
    value: |it, control| late(it) - late(control),
};
const DEARER: Figure = Figure {
    words: "% more that users pay for a token",
    digits: 1,
    value: |it, control| 100.0 * (price(it) / price(control) - 1.0),
};
const ATTESTED_LOST: Figure = Figure {
    words: "points of attested jobs lost",
    digits: 2,
    value: |it, control| attested(control) - attested(it),
};

const NO_ATTESTED_PROMPT: Bound = Bound {
    words: "no prompt that must have a TEE reaches it: 0",
    limit: 0.0,
    value: |it, _| all(it, |it| real(it.attested_prompts)),
};
const NO_PROMPT: Bound = Bound {
    words: "no prompt reaches it: 0",
    limit: 0.0,
    value: |it, _| all(it, |it| real(it.prompts_received)),
};
const ATTESTED_HOLDS: Bound = Bound {
    words: "at most 1 % of attested jobs fail",
    limit: 1.0,
    value: |it, _| 100.0 - attested(it),
};
const FEW_PROMPTS: Bound = Bound {
    words: "at most 2 prompts for each consumer and each of them",
    limit: 2.0,
    value: |it, _| prompts_each(it),
};
const PRICE_HOLDS: Bound = Bound {
    words: "users pay at most 1.3 times as much",
    limit: 1.3,
    value: |it, control| price(it) / price(control),
};
const LOSE_CUSTOM: Bound = Bound {
    words: "they serve no more jobs than at honest prices: at most 1 times as many",
    limit: 1.0,
    value: |it, control| {
        let served = |it: &Summary| all(it, |it| real(it.jobs_served));
        served(it) / served(control).max(1.0)
    },
};
const STEP_A_JOB: Bound = Bound {
    words: "a job is at most 1 step ahead of its payments",
    limit: 1.0,
    value: |it, _| most(it, |it| it.job_ahead_millisteps) / 1e3,
};
const STEPS_A_CHANNEL: Bound = Bound {
    words: "a consumer owes a provider at most 17 steps",
    limit: 17.0,
    value: |it, _| most(it, |it| it.channel_ahead_millisteps) / 1e3,
};
const NOTHING_SERVED: Bound = Bound {
    words: "nothing is served without an allocation: 0 jobs, 0 steps",
    limit: 0.0,
    value: |it, _| {
        all(it, |it| real(it.jobs_finished)) + most(it, |it| it.channel_ahead_millisteps) / 1e3
    },
};
const VICTIM_SERVED: Bound = Bound {
    words: "at most 1 % of the victim's attested jobs fail",
    limit: 1.0,
    value: |it, _| 100.0 - victim_attested(it),
};
const HEALS: Bound = Bound {
    words: "no invariant is broken, liveness after the cut among them: 0",
    limit: 0.0,
    value: |it, _| real(it.violations),
};
const NO_JOB_LOST: Bound = Bound {
    words: "at most 1 point of success is lost",
    limit: 1.0,
    value: |it, control| success(control) - success(it),
};

/// What a victim is left with.
const HUNTED: &[Figure] = &[
    Figure {
        words: "points of the victim's attested jobs lost",
        digits: 2,
        value: |it, control| victim_attested(control) - victim_attested(it),
    },
    Figure {
        words: "% of its time the victim has no route to an honest TEE",
        digits: 2,
        value: |it, _| percent(it.victims.without_attested_us, it.victims.watched_us.max(1)),
    },
    Figure {
        words: "% of the providers that it meets are the attacker's",
        digits: 1,
        value: |it, _| percent(it.victims.offers_of_adversaries, it.victims.offers_met.max(1)),
    },
];

/// Where the network does not matter, the tier without one does.
const FAST: &[(&str, &str)] = &[("tier", "abstract")];

/// All rows.
pub(crate) const SUBJECTS: &[Subject] = &[
    Subject {
        name: "sybil",
        scenario: "sybil",
        changes: &[],
        gain: &[GAIN, PROMPTS],
        damage: &[ATTESTED_LOST, LATE],
        bounds: &[ATTESTED_HOLDS, NO_ATTESTED_PROMPT],
        explains: true,
    },
    Subject {
        name: "sybil, no tier claimed",
        scenario: "sybil",
        changes: &[("tier", "abstract"), ("adversaries.0.claims", "open")],
        gain: &[GAIN, PROMPTS],
        damage: &[ATTESTED_LOST, FAILED, LATE],
        bounds: &[ATTESTED_HOLDS, NO_ATTESTED_PROMPT],
        explains: true,
    },
    Subject {
        name: "sybil, 5,000 nodes",
        scenario: "sybil",
        changes: &[
            ("tier", "abstract"),
            ("population.nodes", "5_000"),
            ("population.providers", "1_250"),
            ("population.index_only", "500"),
            ("demand.rate", "80 /s"),
        ],
        gain: &[GAIN, PROMPTS],
        damage: &[ATTESTED_LOST, LATE],
        bounds: &[ATTESTED_HOLDS, NO_ATTESTED_PROMPT],
        explains: true,
    },
    Subject {
        name: "eclipse",
        scenario: "eclipse",
        changes: &[("adversaries.0.claims", "attested")],
        gain: &[GAIN, PROMPTS],
        damage: HUNTED,
        bounds: &[VICTIM_SERVED, NO_ATTESTED_PROMPT],
        explains: true,
    },
    Subject {
        name: "eclipse, 95 % of look-ups",
        scenario: "eclipse",
        changes: &[("tier", "abstract"), ("adversaries.0.claims", "attested")],
        gain: &[GAIN, PROMPTS],
        damage: HUNTED,
        bounds: &[VICTIM_SERVED, NO_ATTESTED_PROMPT],
        explains: true,
    },
    Subject {
        name: "eclipse, own TEEs",
        scenario: "eclipse",
        changes: &[],
        gain: &[GAIN, PROMPTS],
        damage: HUNTED,
        bounds: &[VICTIM_SERVED, FEW_PROMPTS],
        explains: true,
    },
    Subject {
        name: "lazy",
        scenario: "lazy",
        changes: FAST,
        gain: &[EARNED],
        damage: &[Figure {
            words: "jobs answered by the cheaper model",
            digits: 0,
            value: |it, _| all(it, |it| real(it.jobs_served)),
        }],
        bounds: &[NO_ATTESTED_PROMPT],
        explains: false,
    },
    Subject {
        name: "slow-loris",
        scenario: "slow-loris",
        changes: FAST,
        gain: &[EARNED_MORE, PROMPTS],
        damage: &[FAILED, LATE],
        bounds: &[FEW_PROMPTS],
        explains: false,
    },
    Subject {
        name: "fast-fail",
        scenario: "fast-fail",
        changes: FAST,
        gain: &[EARNED_MORE, PROMPTS],
        damage: &[FAILED, LATE],
        bounds: &[FEW_PROMPTS, NO_JOB_LOST],
        explains: false,
    },
    Subject {
        name: "gouger",
        scenario: "gouger",
        changes: FAST,
        gain: &[EARNED_MORE],
        damage: &[DEARER],
        bounds: &[PRICE_HOLDS],
        explains: false,
    },
    Subject {
        name: "colluders",
        scenario: "colluders",
        changes: FAST,
        gain: &[EARNED_MORE],
        damage: &[DEARER, FAILED],
        bounds: &[LOSE_CUSTOM, NO_JOB_LOST],
        explains: false,
    },
    Subject {
        name: "free-rider",
        scenario: "free-rider",
        changes: FAST,
        gain: &[UNPAID],
        damage: &[UNPAID, FAILED],
        bounds: &[STEP_A_JOB, STEPS_A_CHANNEL],
        explains: false,
    },
    Subject {
        name: "voucher-withholder",
        scenario: "voucher-withholder",
        changes: FAST,
        gain: &[UNPAID],
        damage: &[FAILED, LATE],
        bounds: &[STEP_A_JOB, STEPS_A_CHANNEL],
        explains: false,
    },
    Subject {
        name: "double-spender",
        scenario: "double-spender",
        changes: FAST,
        gain: &[UNPAID],
        damage: &[FAILED],
        bounds: &[NOTHING_SERVED],
        explains: false,
    },
    Subject {
        name: "forged-evidence",
        scenario: "forged-evidence",
        changes: FAST,
        gain: &[GAIN, PROMPTS],
        damage: &[ATTESTED_LOST, FAILED, LATE],
        bounds: &[NO_PROMPT, ATTESTED_HOLDS],
        explains: true,
    },
    Subject {
        name: "partition",
        scenario: "partition",
        changes: &[],
        gain: &[],
        damage: &[FAILED, PAID_LOST],
        bounds: &[HEALS],
        explains: false,
    },
    Subject {
        name: "relay-dropper",
        scenario: "relay-dropper",
        changes: &[],
        gain: &[],
        damage: &[FAILED, LATE],
        bounds: &[NO_JOB_LOST],
        explains: false,
    },
];

/// What stands under the table.
pub(crate) const NOTES: &str = "\
Mean ± half of Student's 95 % interval over seeds; what is *more* is so against the control, seed by seed. In the control
(`--set adversaries.0.control=absent` or `honest`) the same hosts stand in the same places and the same jobs are submitted;
identities that come only to attack (Sybil, eclipse) never run, all others are honest. Bounds are held against the worst of all
runs, not against the mean.

In the exact tier twenty liars stand around the key of what the victim looks for, and its success there is what it is. The
abstract tier takes the success of such liars for granted: 95 % of the victim's look-ups bring attackers only.

Where a bound is missing or did not hold:

- **Eclipse with TEEs of its own.** The index is not the cause: the victim has an honest route all the time. A dozen genuine
  TEEs at half the price stream for a second and fall silent, and each consumer has to learn of each of them itself. Another
  provider goes on with an answer that has begun, after five seconds of silence. What is lost is lost before the first token:
  who keeps a long prompt and says nothing is given 15 s and 30 ms for each token of it, and users leave before that.
- **Eclipse that owns 95 % of look-ups.** The jobs that victims lost ended with *no provider*: a table that is empty is looked up
  anew after 1, 2, 4 … 15 s, and a job waits 5 s for the first offer. That share is an assumption, not a result: the liars of
  the exact tier brought a third of the names and cost no job.
- **Lazy.** Nothing proves in the open tier which weights run; the bound is that of the tiers with evidence. Audits are not in
  the protocol.
- **Colluders.** What two fifths of the supply ask together is bounded by the others' prices and by each user's own cap. The
  scenario's users have none, and the gouger's bound, 1.3 times the price, does not hold here.

Why attested jobs failed, all seeds together:
";
