//! What breaks without anybody's intent.
//!
//! Owns: the kinds of fault and how often they strike. Must not: draw them; the tiers and hosts do.

use serde::{Deserialize, Serialize};

use crate::quantity::{Rate, Share, Span};

/// What breaks. Nothing does by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// How often a host's process dies, at any moment, as `"1 /h"` for each host.
    pub crash: Rate,
    /// Probability that a host dies at a commit of its store, before or after it is durable.
    pub crash_at_persist: Share,
    /// How long a host that died stays down. Default 2 s: a restart by its service manager.
    pub restart_after: RestartAfter,
    /// Hosts with a slow disk.
    pub slow_disk: SlowDisk,
    /// Probability that a packet is lost; with a reliable transport that is a delay.
    pub loss: Share,
    /// Probability that a packet is late by `delay`.
    pub delayed: Share,
    /// How late. Default 0 s.
    pub delay: Span,
    /// Probability that a message arrives twice, where the transport allows it.
    pub duplicated: Share,
    /// Probability that a message overtakes the one before, where the transport allows it.
    pub reordered: Share,
    /// Clocks of the hosts.
    pub clock: Clock,
    /// Parts of the network that are cut off for a time.
    pub partitions: Vec<Partition>,
}

/// How long a host that died stays down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RestartAfter(pub Span);

impl Default for RestartAfter {
    fn default() -> Self {
        Self(Span::seconds(2))
    }
}

/// Hosts with a slow disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlowDisk {
    /// How many hosts have one. Default none.
    pub share: Share,
    /// How long a commit takes there. Default 200 ms: a hard disk under load.
    pub commit: Span,
    /// How long a commit takes everywhere else. Default 2 ms: a flush of a consumer's NVMe drive.
    pub usual: Span,
}

impl Default for SlowDisk {
    fn default() -> Self {
        Self { share: Share::NONE, commit: Span::millis(200), usual: Span::millis(2) }
    }
}

/// Clocks of the hosts: own clock minus true time, triangular around zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clock {
    /// The largest difference of a usual host. Default 50 ms: a machine with NTP.
    pub skew: Span,
    /// How many hosts are far off. Default none.
    pub wrong: Share,
    /// The largest difference of those. Default 30 s.
    pub wrong_by: Span,
}

impl Default for Clock {
    fn default() -> Self {
        Self { skew: Span::millis(50), wrong: Share::NONE, wrong_by: Span::seconds(30) }
    }
}

/// A part of the network that is cut off for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// From when.
    pub from: Span,
    /// Until when; then it heals.
    pub until: Span,
    /// The regions that are cut off. Empty: a share of all hosts, drawn.
    #[serde(default)]
    pub regions: Vec<String>,
    /// The share, where no regions are named. Default 50 %.
    #[serde(default = "half")]
    pub share: Share,
}

const fn half() -> Share {
    Share::percent(50)
}
