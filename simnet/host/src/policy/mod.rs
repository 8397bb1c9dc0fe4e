//! Policies by name: the network's own and those that it is compared with.
//!
//! Owns: the registry that a scenario chooses from, and the parameters of each entry.
//! Must not: decide what fits a job (the protocol does), or differ from a policy in a node.
//!
//! Every baseline but `cocoon-proxy` has the patience of the network's own policy (time-outs,
//! retries), so that a comparison shows what the choice is worth and nothing else.

mod baselines;
mod cocoon_proxy;

use std::collections::BTreeMap;
use std::sync::Arc;

use cocoon_protocol::pricing::{self, Adaptive, Fixed, Level};
use cocoon_protocol::selection::{self, Balanced};
use cocoon_protocol::units::Millis;

pub use baselines::{Cheapest, LowestLatency, Random};
pub use cocoon_proxy::CocoonProxy;

/// A parameter of a policy, as a scenario sets it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// Its name; the unit stands last.
    pub name: &'static str,
    /// Its value when the scenario is silent.
    pub default: f64,
    /// The least that is allowed.
    pub least: f64,
    /// The most that is allowed.
    pub most: f64,
    /// What it is.
    pub meaning: &'static str,
}

/// A policy that a scenario can name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub meaning: &'static str,
    /// What can be set.
    pub parameters: &'static [Parameter],
}

/// How consumers choose: [`selection`] makes them.
pub const SELECTION: &[Entry] = &[
    Entry {
        name: "cocoon-node",
        meaning: "the node's own: expected cost and the worth of time, by probability of success",
        parameters: &[],
    },
    Entry { name: "random", meaning: "any provider that fits", parameters: &[] },
    Entry { name: "cheapest", meaning: "the lowest cost of an ordinary job", parameters: &[] },
    Entry {
        name: "lowest-latency",
        meaning: "the lowest time to first token in own experience",
        parameters: &[],
    },
    Entry {
        name: "cocoon-proxy",
        meaning: "TelegramMessenger/cocoon: running queries times their average time, no retry",
        parameters: &[Parameter {
            name: "timeout_s",
            default: cocoon_proxy::TIMEOUT_S,
            least: 0.1,
            most: 86_400.0,
            meaning: "how long a request may take before it is failed",
        }],
    },
];

/// How providers set prices: [`pricing`] makes them.
pub const PRICING: &[Entry] = &[
    Entry { name: "fixed", meaning: "the owner's prices, always", parameters: &[] },
    Entry {
        name: "adaptive",
        meaning: "prices rise with utilisation and fall in idle times, within bounds",
        parameters: &[
            Parameter {
                name: "floor",
                default: 0.5,
                least: 0.0,
                most: 1_000.0,
                meaning: "the lowest price, as a multiple of the owner's",
            },
            Parameter {
                name: "ceiling",
                default: 4.0,
                least: 0.0,
                most: 1_000.0,
                meaning: "the highest price, as a multiple of the owner's",
            },
            Parameter {
                name: "target_percent",
                default: 60.0,
                least: 0.0,
                most: 100.0,
                meaning: "utilisation at which prices stand still",
            },
            Parameter {
                name: "step_percent",
                default: 5.0,
                least: 0.0,
                most: 100.0,
                meaning: "the most that prices move in a minute",
            },
            Parameter {
                name: "review_s",
                default: 60.0,
                least: 1.0,
                most: 86_400.0,
                meaning: "how often prices are looked at",
            },
        ],
    },
];

/// Why a scenario's policy cannot be had.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// No policy has this name.
    #[error("no policy is called `{name}`; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The policy has no such parameter.
    #[error("the policy `{policy}` has no parameter `{name}`; it has {known}")]
    UnknownParameter {
        /// The policy.
        policy: &'static str,
        /// What was set.
        name: String,
        /// What could be set.
        known: String,
    },
    /// The parameter cannot have this value.
    #[error("`{name}` of the policy `{policy}` is {value}; it can be {least} to {most}")]
    OutOfRange {
        /// The policy.
        policy: &'static str,
        /// The parameter.
        name: &'static str,
        /// What was set.
        value: f64,
        /// The least that is allowed.
        least: f64,
        /// The most that is allowed.
        most: f64,
    },
}

/// The selection policy of this name. `host` tells hosts apart where a policy must: connections of
/// one proxy are not numbered as those of another.
pub fn selection(
    name: &str,
    parameters: &BTreeMap<String, f64>,
    host: u64,
) -> Result<Arc<dyn selection::Policy>, PolicyError> {
    let settings = Settings::of(SELECTION, name, parameters)?;
    Ok(match settings.entry.name {
        "random" => Arc::new(Random),
        "cheapest" => Arc::new(Cheapest),
        "lowest-latency" => Arc::new(LowestLatency),
        "cocoon-proxy" => {
            Arc::new(CocoonProxy { timeout: millis(settings.value("timeout_s")), order: host })
        }
        _ => Arc::new(Balanced),
    })
}

/// Whether all hosts of a run may share one policy of this name: it remembers nothing, and does not
/// know which host it is of.
pub fn is_shared(name: &str) -> bool {
    ["cocoon-node", "random", "cheapest", "lowest-latency"].contains(&name)
}

/// The pricing policy of this name.
pub fn pricing(
    name: &str,
    parameters: &BTreeMap<String, f64>,
) -> Result<Arc<dyn pricing::Policy>, PolicyError> {
    let settings = Settings::of(PRICING, name, parameters)?;
    Ok(match settings.entry.name {
        "adaptive" => Arc::new(Adaptive {
            floor: Level::from_parts(whole(settings.value("floor") * 1e6)),
            ceiling: Level::from_parts(whole(settings.value("ceiling") * 1e6)),
            target_permille: whole(settings.value("target_percent") * 10.0),
            step_permille: whole(settings.value("step_percent") * 10.0),
            review_every: millis(settings.value("review_s")),
        }),
        _ => Arc::new(Fixed),
    })
}

/// An entry and the values that its parameters have in a scenario.
#[derive(Debug)]
struct Settings<'a> {
    entry: &'static Entry,
    set: &'a BTreeMap<String, f64>,
}

impl<'a> Settings<'a> {
    fn of(
        entries: &'static [Entry],
        name: &str,
        set: &'a BTreeMap<String, f64>,
    ) -> Result<Self, PolicyError> {
        let Some(entry) = entries.iter().find(|entry| entry.name == name) else {
            let known = listed(entries.iter().map(|entry| entry.name));
            return Err(PolicyError::Unknown { name: name.to_owned(), known });
        };
        for (name, value) in set {
            let Some(parameter) = entry.parameters.iter().find(|it| it.name == name) else {
                return Err(PolicyError::UnknownParameter {
                    policy: entry.name,
                    name: name.clone(),
                    known: listed(entry.parameters.iter().map(|it| it.name)),
                });
            };
            let Parameter { name, least, most, .. } = *parameter;
            if !(least..=most).contains(value) {
                let (policy, value) = (entry.name, *value);
                return Err(PolicyError::OutOfRange { policy, name, value, least, most });
            }
        }
        Ok(Self { entry, set })
    }

    fn value(&self, name: &str) -> f64 {
        let default = self.entry.parameters.iter().find(|it| it.name == name);
        let default = default.map_or(0.0, |it| it.default);
        self.set.get(name).copied().unwrap_or(default)
    }
}

fn listed(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn millis(seconds: f64) -> Millis {
    Millis::new(u64::from(whole(seconds * 1_000.0)))
}

/// The nearest whole number; parameters are checked to fit.
fn whole(value: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a checked parameter; `as` saturates for the rest"
    )]
    let whole = value.round() as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_can_be_had_with_its_defaults_and_no_other() {
        let none = BTreeMap::new();
        for entry in SELECTION {
            assert!(selection(entry.name, &none, 0).is_ok());
        }
        for entry in PRICING {
            assert!(pricing(entry.name, &none).is_ok());
        }
        let shown = selection("best", &none, 0).unwrap_err().to_string();
        assert!(shown.contains("cocoon-proxy") && shown.contains("lowest-latency"), "{shown}");
    }

    #[test]
    fn parameters_are_checked() {
        let with = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
        assert!(selection("cocoon-proxy", &with("timeout_s", 30.0), 0).is_ok());
        assert!(matches!(
            selection("cocoon-proxy", &with("timeout_s", -1.0), 0),
            Err(PolicyError::OutOfRange { .. })
        ));
        assert!(matches!(
            selection("cocoon-proxy", &with("timeout_s", f64::NAN), 0),
            Err(PolicyError::OutOfRange { .. })
        ));
        assert!(matches!(
            selection("random", &with("timeout_s", 1.0), 0),
            Err(PolicyError::UnknownParameter { .. })
        ));
    }

    #[test]
    fn the_adaptive_entry_has_the_protocols_own_defaults() {
        let made = pricing("adaptive", &BTreeMap::new()).unwrap();
        assert_eq!(format!("{made:?}"), format!("{:?}", Adaptive::default()));
    }
}
