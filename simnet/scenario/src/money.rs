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
    /// What a consumer deposits when it opens its vault. Default 2 TON: twenty allocations, so that
    /// a run of an hour is not about topping up.
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
            deposit: Money::milli_ton(2_000),
            allocation: Money::milli_ton(100),
            settle_threshold: Money::milli_ton(80),
        }
    }
}

/// The ledger's pace, and what goes wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ledger {
    /// Time between blocks. Default 1 s: TON finalises in about a second since April 2026.
    pub block_time: Span,
    /// Blocks until a transaction counts. Default 1.
    pub confirmations: u32,
    /// Times without any block: commands wait, reads fail.
    pub outages: Vec<Window>,
    /// Share of blocks at which the chain turns out to have forked. Default none: a master block of
    /// TON is final; a client of a dishonest or lagging server can still see this.
    pub reorg: Share,
    /// Blocks that a fork takes back. Default 1. 1 to 64.
    pub reorg_depth: u32,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            block_time: Span::seconds(1),
            confirmations: 1,
            outages: Vec::new(),
            reorg: Share::NONE,
            reorg_depth: 1,
        }
    }
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
