//! What a run is about: who its hosts are, where they stand, and what the numbers of a table mean.
//!
//! Owns: the names that tables and plots use. Must not: hold anything of the machine or of the day.

use std::sync::Arc;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{ModelHash, NodeId};
use simnet_host::HostSpec;
use simnet_host::population;
use simnet_scenario::{Moment, Regions, Scenario, Seed};

/// A region of the scenario. `HostLabel::region` is an index into the list of them.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Degrees north of the equator, for the map; `None` where it stands nowhere.
    pub latitude: Option<f64>,
    /// Degrees east of Greenwich, for the map; `None` where it stands nowhere.
    pub longitude: Option<f64>,
}

/// One host of the population. Its `HostId` is its place in [`Description::hosts`].
#[derive(Clone, Copy, Debug)]
pub struct HostLabel {
    /// Its identity on the network.
    pub node: NodeId,
    /// Whether it consumes.
    pub consumer: bool,
    /// Whether it provides.
    pub provider: bool,
    /// The tier that it really has, if it provides.
    pub tier: Option<Tier>,
    /// Index into [`Description::regions`].
    pub region: u16,
    /// Index into [`Description::classes`].
    pub class: u16,
    /// Index into [`Description::behaviours`], if it is an adversary.
    pub adversary: Option<u16>,
}

/// Everything that a result says about its run beside what happened in it.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// The scenario's name.
    pub scenario: String,
    /// The scenario as it was resolved, defaults included: what one needs to run it again.
    pub scenario_text: String,
    /// What distinguishes this run from others of the scenario: the policy, or a point of a grid.
    pub variant: String,
    /// The seed.
    pub seed: u64,
    /// `exact` or `abstract`.
    pub tier: String,
    /// The commit that the simulator was built from.
    pub commit: String,
    /// The regions.
    pub regions: Vec<Region>,
    /// Hardware classes, or other kinds of hosts, by name.
    pub classes: Vec<String>,
    /// Kinds of adversaries by name.
    pub behaviours: Vec<String>,
    /// Models by name.
    pub models: Vec<(ModelHash, String)>,
    /// The hosts, by number.
    pub hosts: Vec<HostLabel>,
    /// Numbers of the honest consumers that an adversary is after, for a figure of their own.
    pub victims: Vec<u32>,
    /// Jobs submitted before this moment are in the tables and in the plots over time, but in no figure;
    /// traffic per host is taken from here on.
    pub warm_up: Moment,
}

impl Description {
    /// Of a run of a scenario with these hosts, as [`population::draw`] made them. `variant` tells it from other
    /// runs of the scenario, `commit` is what the simulator was built from.
    pub fn of(
        scenario: &Scenario,
        seed: Seed,
        hosts: &[Arc<HostSpec>],
        variant: &str,
        commit: &str,
    ) -> Self {
        let regions = Regions::of(scenario.network.topology);
        let places = regions.places();
        let region = |(number, name): (usize, &String)| {
            let place = places.and_then(|it| it.get(number)).copied();
            let (latitude, longitude) = place.unzip();
            Region { name: name.clone(), latitude, longitude }
        };
        let mut behaviours: Vec<String> = Vec::new();
        let labels = hosts.iter().map(|host| {
            let adversary = host.adversary.as_ref().map(|it| {
                let word = it.kind.as_str();
                let place = behaviours.iter().position(|it| it == word).unwrap_or_else(|| {
                    behaviours.push(word.to_owned());
                    behaviours.len() - 1
                });
                u16::try_from(place).unwrap_or(u16::MAX)
            });
            HostLabel {
                node: host.key.id(),
                consumer: host.consumer.is_some(),
                provider: host.provider.is_some(),
                tier: host.provider.as_ref().map(|it| it.genuine),
                region: host.region,
                class: host.class,
                adversary,
            }
        });
        let victims = hosts.iter().filter(|it| it.victim_of.is_some()).map(|it| it.id.0).collect();
        let hosts = labels.collect();
        Self {
            scenario: scenario.name.clone(),
            scenario_text: scenario.to_toml(),
            variant: variant.to_owned(),
            seed: seed.0,
            tier: scenario.tier.as_str().to_owned(),
            commit: commit.to_owned(),
            regions: regions.names().iter().enumerate().map(region).collect(),
            classes: population::classes(scenario),
            behaviours,
            models: population::models(scenario).into_iter().map(|it| (it.hash, it.name)).collect(),
            hosts,
            victims,
            warm_up: Moment::START.after(scenario.warm_up.duration()),
        }
    }
}
