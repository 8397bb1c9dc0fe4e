//! Facts in the trace, and traffic under the names of the tables.
//!
//! Owns: both translations. Must not: keep anything.

use std::fmt::Write as _;

use simnet_core::{NodeIndex, Traffic};
use simnet_host::Observation;

/// The mark of a fact in the trace.
const FACT: u16 = 1;

/// Folds a fact into the trace, so that runs which differ in a fact differ in their hash.
pub(crate) fn mark(node: NodeIndex, fact: &Observation) {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(text, "{fact:?}");
    simnet_core::mark(node, FACT, text.as_bytes());
}

/// Bytes on the wire so far, by protocol, in the order of names.
pub(crate) fn by_protocol(traffic: &Traffic) -> Vec<(&'static str, u64)> {
    let mut sums: Vec<(&'static str, u64)> = Vec::new();
    for (protocol, count) in traffic.total() {
        let name = name(protocol);
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum = sum.saturating_add(count.sent.wire),
            None => sums.push((name, count.sent.wire)),
        }
    }
    sums.sort_unstable();
    sums
}

/// A protocol's name in the tables.
pub(crate) fn name(protocol: &str) -> &'static str {
    match protocol {
        "/cocoon/kad/1.0.0" => "index",
        "/cocoon/control/1" => "control",
        "/cocoon/session/1" => "session",
        "/ipfs/id/1.0.0" | "/ipfs/id/push/1.0.0" => "identify",
        "/ipfs/ping/1.0.0" => "ping",
        "(handshake)" => "handshake",
        "(acknowledgements)" => "acknowledgements",
        "(keep-alive)" => "keep-alive",
        other if other.starts_with("/meshsub") || other.starts_with("/floodsub") => "gossip",
        _ => "other",
    }
}
