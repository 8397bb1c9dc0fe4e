//! Scenarios that come with the simulator.
//!
//! Owns: their list; the texts are in `scenarios/`. Must not: differ from the files.

/// A scenario that comes with the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Its name.
    pub name: &'static str,
    /// Its text, as TOML.
    pub text: &'static str,
}

macro_rules! shipped {
    ($($name:literal),+ $(,)?) => {
        &[$(Shipped { name: $name, text: include_str!(concat!("../../scenarios/", $name, ".toml")) }),+]
    };
}

/// All of them, in the order in which a reader meets them.
pub const SHIPPED: &[Shipped] = shipped![
    "baseline-small",
    "baseline-abstract",
    "steady-1000",
    "steady-5000",
    "million",
    "head-to-head",
    "head-to-head-small",
    "head-to-head-abstract",
    "churn",
    "burst",
    "diurnal",
    "sybil",
    "eclipse",
    "fast-fail",
    "lazy",
    "slow-loris",
    "gouger",
    "colluders",
    "free-rider",
    "voucher-withholder",
    "double-spender",
    "forged-evidence",
    "partition",
    "relay-dropper",
    "ledger-outage",
    "crashes",
    "crashes-abstract",
    "planetlab",
    "lan",
];

/// The one of this name.
pub fn shipped(name: &str) -> Option<&'static Shipped> {
    SHIPPED.iter().find(|it| it.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdversaryKind, RunTier, Scenario};

    #[test]
    fn every_shipped_scenario_parses_is_named_as_its_file_and_says_what_it_is() {
        for it in SHIPPED {
            let scenario = Scenario::parse(it.name, it.text).unwrap();
            assert_eq!(scenario.name, it.name);
            assert!(scenario.description.len() > 40, "{}", it.name);
            let again = Scenario::parse(it.name, &scenario.to_toml()).unwrap();
            assert_eq!(again, scenario);
        }
    }

    #[test]
    fn every_adversary_has_a_scenario_and_both_tiers_have_some() {
        let all: Vec<_> =
            SHIPPED.iter().map(|it| Scenario::parse(it.name, it.text).unwrap()).collect();
        for kind in AdversaryKind::ALL {
            let named = |it: &Scenario| it.adversaries.iter().any(|group| group.kind == kind);
            assert!(all.iter().any(named), "{}", kind.as_str());
        }
        for tier in [RunTier::Exact, RunTier::Abstract] {
            assert!(all.iter().filter(|it| it.tier == tier).count() >= 3);
        }
    }
}
