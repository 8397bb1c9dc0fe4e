//! What users want, and when.
//!
//! Owns: arrivals, lengths, tiers, caps, patience; their intensity at any moment of a run.
//! Must not: read a file; a recorded demand is handed in as text.

use std::collections::BTreeMap;

use cocoon_protocol::attest::Tier;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::draw;
use crate::quantity::{Money, Rate, Share, Span};
use crate::time::Moment;

/// How arrivals follow one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Independent of one another, at a constant rate. Default.
    #[default]
    Poisson,
    /// The rate follows the hour of the day, as in the section `diurnal`.
    Diurnal,
    /// As recorded in the file `trace`.
    Recorded,
}

/// What users want, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Demand {
    /// Jobs of all consumers together. Default 2 a second: about half of what the default
    /// population's hardware can serve.
    pub rate: Rate,
    /// How arrivals follow one another.
    pub pattern: Pattern,
    /// Times at which the rate is a multiple of what it else would be.
    pub bursts: Vec<Burst>,
    /// The day's curve, for the pattern `diurnal`.
    pub diurnal: Diurnal,
    /// The file for the pattern `recorded`, beside the scenario: CSV with the columns
    /// `at_s,prompt_tokens,completion_tokens` and optionally `model`, `tier`.
    pub trace: String,
    /// No job is submitted before this moment: consumers that nobody has told of any provider yet
    /// would all fail for the same trivial reason. Default 5 s.
    pub starts: Span,
    /// Lengths of prompts, in tokens. Default log-normal with median 1,020 (conversations in
    /// production at Azure: Splitwise, ISCA 2024, arXiv 2311.18677, figure 3) and sigma 1.2, which
    /// puts the 90th percentile at 4,700.
    pub prompt: Lengths,
    /// Lengths of completions, in tokens. Default log-normal with median 129 (as above), sigma 1.1.
    pub completion: Lengths,
    /// Weights of the lowest tier that a job's user accepts. Default open 60, attested 30,
    /// confidential 10: an assumption.
    pub minimum_tier: TierMix,
    /// Users with a cap on what a job may cost.
    pub cap: Cap,
    /// How long users wait for the first token before they give up. Default 60 s, the node's own
    /// time-out for a start. `0 s` is for ever.
    pub patience: Span,
    /// How many users close their window in the middle of an answer. Default none.
    pub leave: Share,
    /// When those leave, after they submitted, in the median; log-normal with sigma 1. Default
    /// 5 s.
    pub leave_after: Span,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            rate: Rate::per_second(2),
            pattern: Pattern::Poisson,
            bursts: Vec::new(),
            diurnal: Diurnal::default(),
            trace: String::new(),
            starts: Span::seconds(5),
            prompt: Lengths::log_normal(1_020, 1.2, 8, 7_000),
            completion: Lengths::log_normal(129, 1.1, 1, 1_000),
            minimum_tier: TierMix::default(),
            cap: Cap::default(),
            patience: Span::seconds(60),
            leave: Share::NONE,
            leave_after: Span::seconds(5),
        }
    }
}

/// A time of higher demand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// From when.
    pub from: Span,
    /// Until when.
    pub until: Span,
    /// How many times the rate. 0 to 1,000; 0 is a pause.
    pub times: f64,
}

/// The curve of a day: a triangle, so that no library's sine decides about an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Diurnal {
    /// Length of a day. Default 24 h; a shorter one shows whole days in a short run.
    pub day: Span,
    /// When demand is highest, from the start of the run. Default 14 h.
    pub peak: Span,
    /// How far demand swings around its mean. Default 60 %: BurstGPT (arXiv 2401.17644) shows a
    /// factor of about four between day and night.
    pub swing: Share,
}

impl Default for Diurnal {
    fn default() -> Self {
        Self {
            day: Span::seconds(86_400),
            peak: Span::seconds(14 * 3_600),
            swing: Share::percent(60),
        }
    }
}

/// How a length is distributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lengths {
    /// Half of all are shorter, in tokens. For the log-normal distribution.
    pub median_tokens: u32,
    /// Standard deviation of the logarithm. 0 makes every length the median. 0 to 4.
    pub sigma: f64,
    /// None is shorter, in tokens. At least 1.
    pub min_tokens: u32,
    /// None is longer, in tokens. At most 1,000,000.
    pub max_tokens: u32,
    /// Measured lengths, in tokens; each is equally likely. They take the place of the
    /// log-normal distribution.
    pub empirical_tokens: Vec<u32>,
}

impl Default for Lengths {
    fn default() -> Self {
        Self::log_normal(1_020, 1.2, 8, 7_000)
    }
}

impl Lengths {
    /// A log-normal distribution, cut off.
    pub const fn log_normal(median: u32, sigma: f64, min: u32, max: u32) -> Self {
        Self {
            median_tokens: median,
            sigma,
            min_tokens: min,
            max_tokens: max,
            empirical_tokens: Vec::new(),
        }
    }

    /// A length of this distribution, in tokens.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> u32 {
        let count = u64::try_from(self.empirical_tokens.len()).unwrap_or(0);
        let place = usize::try_from(draw::below(rng, count)).unwrap_or(0);
        let tokens = match self.empirical_tokens.get(place) {
            Some(measured) => *measured,
            None => draw::log_normal_tokens(rng, self.median_tokens, self.sigma),
        };
        tokens.clamp(self.min_tokens.min(self.max_tokens), self.max_tokens)
    }
}

/// Weights of the lowest acceptable tier.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TierMix {
    /// Any provider may see the prompt.
    pub open: f64,
    /// A CPU TEE at least.
    pub attested: f64,
    /// A GPU TEE.
    pub confidential: f64,
}

impl Default for TierMix {
    fn default() -> Self {
        Self { open: 60.0, attested: 30.0, confidential: 10.0 }
    }
}

/// Users who cap what a job may cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cap {
    /// How many users have one. Default none.
    pub share: Share,
    /// The most that a job may cost them. Default 0.01 TON.
    pub at_most: Money,
}

impl Default for Cap {
    fn default() -> Self {
        Self { share: Share::NONE, at_most: Money::milli_ton(10) }
    }
}

impl Demand {
    /// The rate at a moment as a multiple of [`Self::rate`]. Plain arithmetic: the same on every
    /// machine.
    pub fn intensity(&self, at: Moment) -> f64 {
        let seconds = at.as_secs_f64();
        let day = match self.pattern {
            Pattern::Diurnal => self.diurnal.at(seconds),
            Pattern::Poisson | Pattern::Recorded => 1.0,
        };
        self.bursts
            .iter()
            .filter(|burst| {
                seconds >= burst.from.as_secs_f64() && seconds < burst.until.as_secs_f64()
            })
            .fold(day, |so_far, burst| so_far * burst.times)
    }

    /// No moment has a higher [`Self::intensity`] than this.
    pub fn peak_intensity(&self) -> f64 {
        let day = match self.pattern {
            Pattern::Diurnal => 1.0 + self.diurnal.swing.fraction(),
            Pattern::Poisson | Pattern::Recorded => 1.0,
        };
        self.bursts.iter().fold(day, |so_far, burst| so_far * burst.times.max(1.0))
    }
}

impl Diurnal {
    fn at(&self, seconds: f64) -> f64 {
        let day = self.day.as_secs_f64().max(1e-9);
        let from_peak = (seconds - self.peak.as_secs_f64()) / day;
        let phase = from_peak - from_peak.floor();
        let triangle = if phase < 0.5 { 1.0 - 4.0 * phase } else { 4.0 * phase - 3.0 };
        1.0 + self.swing.fraction() * triangle
    }
}

/// One job of a recorded demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When it was submitted.
    pub at: Moment,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens of the completion.
    pub completion: u32,
    /// The model's name; `None` draws one by weight.
    pub model: Option<String>,
    /// The lowest tier; `None` draws one by weight.
    pub tier: Option<Tier>,
}

/// Why a file is not a recorded demand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordedError {
    /// A column is missing or unknown.
    #[error(
        "line 1: columns are at_s,prompt_tokens,completion_tokens and optionally model,tier; \
         `{0}` is missing or none of them"
    )]
    Column(String),
    /// A field is not what its column holds.
    #[error("line {line}: `{text}` is no value for {column}")]
    Field {
        /// Where.
        line: usize,
        /// Of which column.
        column: &'static str,
        /// What stands there.
        text: String,
    },
    /// Not in the order of time.
    #[error("line {0}: the lines are not in the order of time; sort them by at_s")]
    Order(usize),
}

const COLUMNS: [&str; 5] = ["at_s", "prompt_tokens", "completion_tokens", "model", "tier"];

/// Reads a recorded demand.
pub fn read_recorded(text: &str) -> Result<Vec<Recorded>, RecordedError> {
    let mut lines = text.lines().enumerate();
    let head: Vec<&str> = lines.next().map_or("", |(_, line)| line).split(',').collect();
    let mut place = BTreeMap::new();
    for (index, name) in head.iter().enumerate() {
        let Some(column) = COLUMNS.iter().find(|it| **it == name.trim()) else {
            return Err(RecordedError::Column((*name).to_owned()));
        };
        place.insert(*column, index);
    }
    if let Some(missing) = COLUMNS.iter().take(3).find(|it| !place.contains_key(**it)) {
        return Err(RecordedError::Column((*missing).to_owned()));
    }
    let mut jobs: Vec<Recorded> = Vec::new();
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let line_number = index + 1;
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let field = |column: &'static str| {
            let text = place.get(column).and_then(|it| fields.get(*it)).copied().unwrap_or("");
            let wrong =
                move || RecordedError::Field { line: line_number, column, text: text.to_owned() };
            (text, wrong)
        };
        let (text, wrong) = field("at_s");
        let at: Span = format!("{text} s").parse().map_err(|_| wrong())?;
        let tokens = |column| {
            let (text, wrong) = field(column);
            let count = text.parse::<u32>().ok().filter(|it| (1..=1_000_000).contains(it));
            count.ok_or_else(wrong)
        };
        let (model, _) = field("model");
        let (tier, wrong) = field("tier");
        let tier = match tier {
            "" => None,
            tier => Some(tier.parse().map_err(|_| wrong())?),
        };
        let at = Moment::START.after(at.duration());
        if jobs.last().is_some_and(|last| last.at > at) {
            return Err(RecordedError::Order(line_number));
        }
        jobs.push(Recorded {
            at,
            prompt: tokens("prompt_tokens")?,
            completion: tokens("completion_tokens")?,
            model: (!model.is_empty()).then(|| model.to_owned()),
            tier,
        });
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_multiplies_and_ends() {
        let demand = Demand {
            bursts: vec![Burst { from: Span::seconds(10), until: Span::seconds(20), times: 5.0 }],
            ..Demand::default()
        };
        let at = |seconds: u64| demand.intensity(Moment::from_millis(seconds * 1000));
        assert_eq!([at(9), at(10), at(19), at(20)], [1.0, 5.0, 5.0, 1.0]);
        assert_eq!(demand.peak_intensity(), 5.0);
    }

    #[test]
    fn a_recorded_demand_is_read_and_its_faults_are_named() {
        let text = "at_s,prompt_tokens,completion_tokens,tier\n0.5,100,20,open\n1,7,9,\n";
        let jobs = read_recorded(text).unwrap();
        assert_eq!(jobs.len(), 2);
        assert_eq!(jobs[0].at, Moment::from_millis(500));
        assert_eq!(jobs[1].tier, None);
        let late = "at_s,prompt_tokens,completion_tokens\n2,1,1\n1,1,1\n";
        assert_eq!(read_recorded(late), Err(RecordedError::Order(3)));
        let wrong = read_recorded("at_s,prompt_tokens,completion_tokens\n1,x,1\n");
        assert!(matches!(wrong, Err(RecordedError::Field { line: 2, .. })));
        assert!(matches!(read_recorded("when\n"), Err(RecordedError::Column(_))));
    }

    proptest! {
        #[test]
        fn no_recording_panics(text in "(at_s|prompt_tokens|completion_tokens|tier|,|\n|[0-9.]{1,9}|\\PC){0,40}") {
            let _ = read_recorded(&text);
        }

        #[test]
        fn a_day_never_leaves_its_swing(millis in 0..1u64 << 40, swing in 0..=100u32) {
            let demand = Demand {
                pattern: Pattern::Diurnal,
                diurnal: Diurnal { swing: Share::percent(swing), ..Diurnal::default() },
                ..Demand::default()
            };
            let intensity = demand.intensity(Moment::from_millis(millis));
            prop_assert!(intensity >= 0.0 - 1e-9 && intensity <= demand.peak_intensity() + 1e-9);
        }
    }
}
