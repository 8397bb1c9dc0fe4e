//! Facts of a run as they are told: the last ones, each as a line.
//!
//! Owns: which of them are kept. Must not: grow with the run.

use std::collections::VecDeque;
use std::fmt;

use serde_json::{Value, json};
use simnet_host::{BlockReport, HostId, Observation};
use simnet_scenario::Moment;

use super::sheet;

/// Something that a node or the ledger has stated.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fact {
    pub(super) at: Moment,
    /// Who; `None` for the ledger.
    pub(super) host: Option<HostId>,
    what: String,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(host) => write!(f, "{} host {}: {}", self.at, host.0, self.what),
            None => write!(f, "{} ledger: {}", self.at, self.what),
        }
    }
}

impl Fact {
    /// What a host states.
    pub(super) fn of(at: Moment, host: HostId, fact: &Observation) -> Self {
        Self { at, host: Some(host), what: format!("{fact:?}") }
    }

    /// What the ledger states with a block.
    pub(super) fn of_block(at: Moment, block: &BlockReport<'_>) -> impl Iterator<Item = Self> {
        block.facts.iter().map(move |fact| Self { at, host: None, what: format!("{fact:?}") })
    }

    /// Whether this is what somebody wants to hear who looks at this node, or at all of them.
    pub(super) fn concerns(&self, node: Option<HostId>) -> bool {
        node.is_none() || self.host == node
    }

    /// For programs.
    pub(super) fn for_programs(&self) -> Value {
        json!({
            "at_s": sheet::seconds(self.at),
            "host": self.host.map(|it| it.0),
            "fact": self.what,
        })
    }
}

/// The last facts.
#[derive(Debug)]
pub(super) struct Facts {
    most: usize,
    kept: VecDeque<Fact>,
    stated: u64,
}

impl Facts {
    /// Keeps so many of them.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), kept: VecDeque::new(), stated: 0 }
    }

    pub(super) fn keep(&mut self, fact: Fact) {
        if self.kept.len() >= self.most {
            self.kept.pop_front();
        }
        self.kept.push_back(fact);
        self.stated += 1;
    }

    /// How many there were, those that are not kept included.
    pub(super) const fn stated(&self) -> u64 {
        self.stated
    }

    pub(super) fn kept(&self) -> impl DoubleEndedIterator<Item = &Fact> {
        self.kept.iter()
    }

    /// The last of those that concern this node, or all; the oldest first.
    pub(super) fn last(&self, most: usize, node: Option<HostId>) -> Vec<Fact> {
        let wanted = self.kept.iter().rev().filter(|fact| fact.concerns(node)).take(most);
        let mut last: Vec<_> = wanted.cloned().collect();
        last.reverse();
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept_and_told_apart() {
        let mut facts = Facts::new(3);
        for millis in 0..5 {
            let host = HostId(u32::try_from(millis % 2).unwrap());
            facts.keep(Fact::of(Moment::from_millis(millis), host, &Observation::Left));
        }
        let told = |facts: Vec<Fact>| facts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(facts.stated(), 5);
        assert_eq!(told(facts.last(9, None)).len(), 3);
        let of_one = told(facts.last(9, Some(HostId(0))));
        assert_eq!(of_one, ["0.002s host 0: Left", "0.004s host 0: Left"]);
        assert_eq!(told(facts.last(1, Some(HostId(0)))), ["0.004s host 0: Left"]);
    }
}
