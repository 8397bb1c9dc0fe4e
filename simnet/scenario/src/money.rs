//! What things cost, how they are paid, and the ledger underneath.
//!
//! Owns: prices, payments and the ledger's pace and faults, with their defaults.
//! Must not: compute a job's cost; the protocol does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::quantity::{Money, Share, Span};

/// How providers set their prices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prices {
    /// The pricing policy's name: `fixed`, or one that the host crate knows. Default `fixed`.
    pub policy: String,
    /// The policy's own parameters.
    pub parameters: BTreeMap<String, f64>,
    /// Starting price over the cost of the hardware when it is used at `utilisation`. Default 1.5.
    /// 0 to 1,000.
    pub margin: f64,
    /// Use of the hardware that costs are divided by. Default 30 %: an assumption.
    pub utilisation: Share,
    /// How far providers of one class differ: a uniform factor between one minus and one plus
    /// this. Default 30 %.
    pub spread: Share,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            policy: "fixed".to_owned(),
            parameters: BTreeMap::new(),
            margin: 1.5,
            utilisation: Share::percent(30),
            spread: Share::percent(30),
        }
    }
}

/// How consumers choose a provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Its name, one that the host crate knows. Default `cocoon-node`: what the node does.
    pub name: String,
    /// Its own parameters.
    pub parameters: BTreeMap<String, f64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { name: "cocoon-node".to_owned(), parameters: BTreeMap::new() }
    }
}

/// How consumers fund their channels. Defaults are the node's own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Payments {
    /// What a consumer deposits when it opens its vault. Default 5 TON: fifty allocations, so that
    /// a run of an hour is not about topping up. The node's own default is 0.5 TON.
    pub deposit: Money,
    /// What it sets aside for one provider. Default 0.1 TON, as the node.
    pub allocation: Money,
    /// A provider settles when this much is due. Default 0.08 TON: below one allocation, so that
    /// settlements happen before a channel is used up.
    pub settle_threshold: Money,
}

impl Default for Payments {
    fn default() -> Self {
        Self {
            deposit: Money::milli_ton(5_000),
            allocation: Money::milli_ton(100),
            settle_threshold: Money::milli_ton(80),
        }
    }
}

/// The ledger's pace, and what goes wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ledger {
    /// Time between blocks. Default 400 ms: TON since 2026.
    pub block_time: Span,
    /// Blocks on top of one before anybody is told of it. Default 2, so that a message is final
    /// about a second after it is sent. 1 to 1,000.
    pub confirmations: u32,
    /// How long a provider may settle after its consumer asked for the money back. Default 6 h, as
    /// the vault's.
    pub release_delay: Span,
    /// Times in which the chain's servers do not answer; the chain itself goes on.
    pub outages: Vec<Outage>,
    /// Share of blocks at which the newest blocks turn out never to have been. Default none: a
    /// master block of TON is final; a client of a lagging server can still see this.
    pub reorg: Share,
    /// Blocks that are taken back. More than `confirmations` break what hosts were told. Default 1.
    /// 1 to 64.
    pub reorg_depth: u32,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            block_time: Span::millis(400),
            confirmations: 2,
            release_delay: Span::seconds(6 * 3_600),
            outages: Vec::new(),
            reorg: Share::NONE,
            reorg_depth: 1,
        }
    }
}

/// A time in which the chain's servers do not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// From when.
    pub from: Span,
    /// Until when.
    pub until: Span,
    /// How many hosts are cut off. Default all.
    #[serde(default = "all")]
    pub hosts: Share,
}

const fn all() -> Share {
    Share::ALL
}

/// A time of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// From when.
    pub from: Span,
    /// Until when.
    pub until: Span,
}
