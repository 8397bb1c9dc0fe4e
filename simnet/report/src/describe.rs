//! What a run is about: who its hosts are, where they stand, and what the numbers of a table mean.
//!
//! Owns: the names that tables and plots use. Must not: hold anything of the machine or of the day.

use cocoon_protocol::identity::{ModelHash, NodeId};

/// A region of the scenario. `HostLabel::region` is an index into the list of them.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Degrees north of the equator, for the map.
    pub latitude: f64,
    /// Degrees east of Greenwich, for the map.
    pub longitude: f64,
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
}
