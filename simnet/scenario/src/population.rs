//! Who takes part: roles, hardware, regions, NATs, and how long they stay.
//!
//! Owns: the mix, and its defaults with their sources. Must not: draw anybody; the host crate does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::quantity::{Portion, Rate, Share, Span};

/// Who takes part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Population {
    /// Nodes in all, adversaries included. Default 200: small enough for a minute on one core,
    /// large enough that no node knows all others. 2 to 2,000,000.
    pub nodes: u32,
    /// How many of them rent out hardware. Default 20 %: an assumption, with so many providers
    /// that a default run is not limited by capacity.
    pub providers: Portion,
    /// How many only keep the index and relay (`cocoon-node` without a role). Default 5 %.
    /// All others are consumers.
    pub index_only: Portion,
    /// Weights of the hardware classes among providers. Empty: every class that the scenario has,
    /// with the class's own weight.
    pub hardware: BTreeMap<String, f64>,
    /// Weights of the regions. Empty: the topology's own weights.
    pub regions: BTreeMap<String, f64>,
    /// How nodes stand behind address translation.
    pub nat: NatMix,
}

impl Default for Population {
    fn default() -> Self {
        Self {
            nodes: 200,
            providers: Portion::Share(Share::percent(20)),
            index_only: Portion::Share(Share::percent(5)),
            hardware: BTreeMap::new(),
            regions: BTreeMap::new(),
            nat: NatMix::default(),
        }
    }
}

/// Weights of the kinds of address translation, for nodes at home; datacentres are public.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatMix {
    /// Reachable by anybody. Default 40: with `symmetric`, fitted to the share of hole punches that
    /// succeed between home nodes, 70 % ± 7 % (arXiv 2510.27500).
    pub public: f64,
    /// Reachable once it has sent to the peer: hole punching works. Default 45.
    pub cone: f64,
    /// Another port for every peer: relays only. Default 15.
    pub symmetric: f64,
}

impl Default for NatMix {
    fn default() -> Self {
        Self { public: 40.0, cone: 45.0, symmetric: 15.0 }
    }
}

/// How a node is reachable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nat {
    /// By anybody.
    #[default]
    Public,
    /// After it has sent to the peer.
    Cone,
    /// Through relays only.
    Symmetric,
}

/// How long a kind of node stays, and stays away.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ChurnClass {
    /// For the whole run.
    #[default]
    None,
    /// As the section `hobby` says: heavy-tailed sessions of people's own machines.
    Hobby,
    /// As the section `datacentre` says: days, and short planned absences.
    Datacentre,
}

/// Who comes and goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Churn {
    /// Class of the providers whose hardware stands at home. Default none: a scenario about
    /// something else should not measure churn by accident.
    pub home_providers: ChurnClass,
    /// Class of the providers whose hardware stands in a datacentre. Default none.
    pub datacentre_providers: ChurnClass,
    /// Class of the consumers. Default none.
    pub consumers: ChurnClass,
    /// Class of the nodes that only keep the index. Default none.
    pub index_only: ChurnClass,
    /// In addition: this share of the providers ends abruptly in an hour, for example `"20 %/h"`,
    /// each to be back after `hobby.absence_median`. Default never.
    pub provider_loss: Rate,
    /// People's own machines.
    pub hobby: Sessions,
    /// Machines in a datacentre. Sessions 14 days in the median, back after 5 minutes, as a planned
    /// restart takes; 5 % without a goodbye.
    #[serde(default = "Sessions::datacentre")]
    pub datacentre: Sessions,
}

/// Lengths of sessions and absences of a churn class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// Half of all sessions are shorter. Default 2 h: 50 % of new IPFS peers leave within 2 h
    /// (ProbeLab, RFM 2).
    pub session_median: Span,
    /// Shape of the Weibull distribution of session lengths; below 1 it is heavy-tailed. Default
    /// 0.6, within the 0.34 to 0.59 that Stutzbach and Rejaie found for three file-sharing
    /// networks (IMC 2006), a little lighter, because providers earn by staying. 0.2 to 5.
    pub session_shape: f64,
    /// Half of all absences are shorter; they are exponential. Default 30 min.
    pub absence_median: Span,
    /// Share of sessions that end without a goodbye: a crash, a closed lid. Default 50 %.
    pub abrupt: Share,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            session_median: Span::seconds(2 * 3_600),
            session_shape: 0.6,
            absence_median: Span::seconds(30 * 60),
            abrupt: Share::percent(50),
        }
    }
}

impl Sessions {
    /// The defaults of a datacentre.
    pub fn datacentre() -> Self {
        Self {
            session_median: Span::seconds(14 * 86_400),
            session_shape: 1.0,
            absence_median: Span::seconds(5 * 60),
            abrupt: Share::percent(5),
        }
    }
}
