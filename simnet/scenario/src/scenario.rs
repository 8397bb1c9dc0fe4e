//! The scenario: everything that a run depends on besides its seed and the program.
//!
//! Owns: the format as a whole, how a text becomes a scenario, and how single values are changed.
//! Must not: read a file. An unknown key is an error, never a silence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::adversary::Adversary;
use crate::check;
use crate::demand::{Demand, Recorded, RecordedError, read_recorded};
use crate::error::{Fault, ScenarioError};
use crate::faults::Faults;
use crate::hardware::{Hardware, Model, default_hardware, default_models};
use crate::money::{Ledger, Payments, Policy, Prices};
use crate::population::{Churn, Population};
use crate::quantity::Span;
use crate::topology::Network;

/// Which simulator carries the hosts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum RunTier {
    /// The real overlay in virtual time: hundreds to thousands of nodes. Default.
    #[default]
    Exact,
    /// A modelled overlay: up to a million nodes.
    Abstract,
}

impl RunTier {
    /// The name, as a scenario has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Abstract => "abstract",
        }
    }
}

impl std::fmt::Display for RunTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much of the network stands when a run starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarmStart {
    /// Routing tables are filled, as after hours of running. Default: bootstrapping thousands of
    /// nodes costs eight times the rest of a run (measured), and most questions are not about it.
    #[default]
    Tables,
    /// Every node knows the entry points alone.
    Cold,
}

/// Everything that a run depends on besides its seed and the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// A short name: `a-z`, `0-9` and `-`.
    pub name: String,
    /// What it shows, in a sentence or two.
    pub description: String,
    /// Which simulator carries it.
    pub tier: RunTier,
    /// How long it runs, in virtual time. Default 2 min. At most 400 d.
    pub duration: Span,
    /// The seed of runs for which the command line names none. Default 1.
    pub seed: u64,
    /// Interval of the samples in the tables. Default 1 s. At least 10 ms.
    pub sample_every: Span,
    /// Results before this moment are left out of the summary. Default 10 s.
    pub warm_up: Span,
    /// How much of the network stands at the start.
    pub warm_start: WarmStart,
    /// Nodes start one after another, evenly over this time. Default 2 s.
    pub start_over: Span,
    /// How long written tokens may wait for others to travel with. Default 15 ms, as the node; a
    /// coarser run saves events with more. The first token never waits.
    pub flush: Span,
    /// Who takes part.
    pub population: Population,
    /// Who comes and goes.
    pub churn: Churn,
    /// Where they stand.
    pub network: Network,
    /// Classes of hardware. Empty: those of the table in the README.
    pub hardware: BTreeMap<String, Hardware>,
    /// Models. Empty: a reference model of 8 billion parameters and one of 70.
    pub models: BTreeMap<String, Model>,
    /// What users want.
    pub demand: Demand,
    /// How providers set their prices.
    pub prices: Prices,
    /// How consumers choose.
    pub policy: Policy,
    /// How consumers fund their channels.
    pub payments: Payments,
    /// The ledger's pace and faults.
    pub ledger: Ledger,
    /// What breaks.
    pub faults: Faults,
    /// Who plays foul.
    pub adversaries: Vec<Adversary>,
    /// The jobs of a recorded demand, once [`Self::attach_trace`] has read them.
    #[serde(skip)]
    pub recorded: Vec<Recorded>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "unnamed".to_owned(),
            description: String::new(),
            tier: RunTier::Exact,
            duration: Span::seconds(120),
            seed: 1,
            sample_every: Span::seconds(1),
            warm_up: Span::seconds(10),
            warm_start: WarmStart::Tables,
            start_over: Span::seconds(2),
            flush: Span::millis(15),
            population: Population::default(),
            churn: Churn::default(),
            network: Network::default(),
            hardware: default_hardware(),
            models: default_models(),
            demand: Demand::default(),
            prices: Prices::default(),
            policy: Policy::default(),
            payments: Payments::default(),
            ledger: Ledger::default(),
            faults: Faults::default(),
            adversaries: Vec::new(),
            recorded: Vec::new(),
        }
    }
}

impl Scenario {
    /// Reads a scenario; `file` is its name in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)
            .map_err(|error| ScenarioError::new(file, text, Fault::read(text, &error)))?;
        check::check(&scenario).map_err(|fault| ScenarioError::new(file, text, fault))?;
        Ok(scenario)
    }

    /// The scenario with some values changed. Each change is a dotted key and a value as TOML has
    /// it; quotes around a text may be left out: `demand.rate` and `5 /s`,
    /// `adversaries.0.portion` and `10 %`.
    pub fn with(self, changes: &[(String, String)]) -> Result<Self, ScenarioError> {
        let mut scenario = self;
        for (key, value) in changes {
            let place = format!("--set {key}={value}");
            let wrong = |fault| ScenarioError::new(&place, "", fault);
            let mut table = toml::Value::try_from(&scenario)
                .map_err(|error| wrong(Fault::text(key, error.to_string())))?;
            set(&mut table, key, value).map_err(wrong)?;
            let recorded = std::mem::take(&mut scenario.recorded);
            scenario = Self::deserialize(table)
                .map_err(|error| wrong(Fault::text(key, Fault::tidy(error.message()))))?;
            scenario.recorded = recorded;
        }
        let names: Vec<_> = changes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let place = format!("--set {}", names.join(" "));
        check::check(&scenario).map_err(|fault| ScenarioError::new(&place, "", fault))?;
        Ok(scenario)
    }

    /// Reads the recorded demand that the scenario names.
    pub fn attach_trace(&mut self, text: &str) -> Result<(), RecordedError> {
        self.recorded = read_recorded(text)?;
        Ok(())
    }

    /// The scenario as TOML, every value written out. Reading it gives the same scenario.
    pub fn to_toml(&self) -> String {
        // A scenario consists of texts, numbers and tables only; writing those does not fail.
        toml::to_string(self).unwrap_or_default()
    }

    /// Names the scenario's content: equal scenarios, and no others, have equal digests. The name
    /// and the description do not count.
    pub fn digest(&self) -> [u8; 32] {
        let plain = Self { name: String::new(), description: String::new(), ..self.clone() };
        let mut hasher = blake3::Hasher::new_derive_key("cocoon simnet scenario v1");
        hasher.update(plain.to_toml().as_bytes());
        for job in &self.recorded {
            hasher.update(format!("{job:?}").as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// Puts a value at a dotted key, making tables on the way; whether the key exists is found out
/// when the result is read.
fn set(root: &mut toml::Value, key: &str, value: &str) -> Result<(), Fault> {
    let mut at = root;
    let mut names = key.split('.').peekable();
    while let Some(name) = names.next() {
        let wrong = |message: String| Fault::text(key, message);
        at = match at {
            toml::Value::Table(table) => {
                let last = names.peek().is_none();
                let old = table.get(name).cloned();
                let empty = toml::Value::Table(toml::Table::new());
                let entry = table.entry(name.to_owned()).or_insert(empty);
                if last {
                    *entry = literal(value, old.as_ref());
                    return Ok(());
                }
                entry
            }
            toml::Value::Array(list) => {
                let length = list.len();
                let place = name.parse::<usize>().ok().and_then(|index| list.get_mut(index));
                let entry = place.ok_or_else(|| {
                    wrong(format!("`{name}` is no place in a list of {length}, counted from 0"))
                })?;
                if names.peek().is_none() {
                    *entry = literal(value, None);
                    return Ok(());
                }
                entry
            }
            toml::Value::String(_)
            | toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_) => {
                return Err(wrong(format!("there is no key `{name}` inside a single value")));
            }
        };
    }
    Err(Fault::text(key, "the key is empty".to_owned()))
}

/// A value as TOML has it, or else the text as it stands. A whole number where a fraction stood
/// before becomes a fraction.
fn literal(value: &str, old: Option<&toml::Value>) -> toml::Value {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"));
    match (parsed, old) {
        (Some(toml::Value::Integer(number)), Some(toml::Value::Float(_))) => i32::try_from(number)
            .map_or(toml::Value::Integer(number), |it| toml::Value::Float(f64::from(it))),
        (Some(value), _) => value,
        (None, _) => toml::Value::String(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::{Rate, Share};
    use proptest::prelude::*;

    fn changed(key: &str, value: &str) -> Result<Scenario, ScenarioError> {
        Scenario::default().with(&[(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn the_default_survives_a_round_trip() {
        let scenario = Scenario::default();
        assert_eq!(Scenario::parse("default", &scenario.to_toml()).unwrap(), scenario);
        assert_eq!(Scenario::parse("empty", "").unwrap(), scenario);
    }

    #[test]
    fn single_values_are_changed_by_dotted_keys() {
        assert_eq!(changed("demand.rate", "7 /s").unwrap().demand.rate, Rate::per_second(7));
        assert_eq!(changed("population.nodes", "50").unwrap().population.nodes, 50);
        assert_eq!(changed("prices.margin", "2").unwrap().prices.margin, 2.0);
        assert_eq!(changed("name", "\"other\"").unwrap().name, "other");
        let lossy = changed("network.loss", "1 %").unwrap();
        assert_eq!(lossy.network.loss, Share::percent(1));
        let wrong = changed("demand.rat", "7 /s").unwrap_err().to_string();
        assert!(wrong.contains("`rate`"), "{wrong}");
        assert!(changed("adversaries.0.portion", "7").is_err());
        assert!(changed("seed.deeper", "7").is_err());
        assert!(changed("", "7").is_err());
    }

    #[test]
    fn equal_content_has_an_equal_digest_whatever_its_name() {
        let plain = Scenario::default();
        let named = changed("name", "other").unwrap();
        assert_eq!(plain.digest(), named.digest());
        assert_ne!(plain.digest(), changed("population.nodes", "50").unwrap().digest());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([a-z_]{1,12}|=|\\[|\\]|\"|\n|[0-9.]{1,6}| |%|\\PC){0,80}") {
            let _ = Scenario::parse("hostile", &text);
        }

        #[test]
        fn no_change_panics(key in "[a-z0-9_.]{0,30}", value in "\\PC{0,20}") {
            let _ = changed(&key, &value);
        }

        #[test]
        fn no_damaged_scenario_panics(cut in 0usize..20_000, with in "\\PC{0,6}") {
            let mut text = Scenario::default().to_toml();
            let cut = (0..=cut.min(text.len())).rev().find(|it| text.is_char_boundary(*it)).unwrap();
            text.insert_str(cut, &with);
            let _ = Scenario::parse("damaged", &text);
        }
    }
}
