//! One look at a run: what was stated up to a moment, and a node's state there.
//!
//! Owns: what is kept for it. Must not: print, or change the run.

use std::ops::ControlFlow;
use std::sync::Arc;

use simnet_host::{BlockReport, Halted, HostId, HostSpec, Names, NodeState, Observation, Observer};
use simnet_scenario::{Moment, Scenario};

use super::facts::{Fact, Facts};

/// Watches a run up to a moment.
#[derive(Debug)]
pub(super) struct Once<'a> {
    scenario: &'a Scenario,
    node: Option<HostId>,
    until: Moment,
    /// Whose state is wanted.
    look: Option<HostId>,
    names: Option<Names>,
    over: bool,
    pub(super) facts: Facts,
    pub(super) state: Option<NodeState>,
}

impl<'a> Once<'a> {
    /// Hears this node, or all, up to a moment; looks at the node there if its state is wanted.
    pub(super) fn new(
        scenario: &'a Scenario,
        node: Option<HostId>,
        until: Moment,
        last: usize,
        look: Option<HostId>,
    ) -> Self {
        let facts = Facts::new(last);
        Self { scenario, node, until, look, names: None, over: false, facts, state: None }
    }
}

impl Observer for Once<'_> {
    fn begin(&mut self, hosts: &[Arc<HostSpec>]) {
        self.names = self.look.map(|_| Names::of(self.scenario, hosts));
    }

    fn observe(&mut self, at: Moment, host: HostId, fact: &Observation) {
        if !self.over && self.node.is_none_or(|it| it == host) {
            self.facts.keep(Fact::of(at, host, fact));
        }
    }

    fn block(&mut self, at: Moment, block: &BlockReport<'_>) {
        if !self.over && self.node.is_none() {
            Fact::of_block(at, block).for_each(|fact| self.facts.keep(fact));
        }
    }

    fn halt_at(&self) -> Option<Moment> {
        Some(self.until)
    }

    fn halt(&mut self, _: Moment, halted: &mut dyn Halted) -> ControlFlow<()> {
        let (node, names) = (self.look, self.names.as_ref());
        self.state = node.zip(names).and_then(|(node, names)| halted.state(node, names));
        self.over = true;
        ControlFlow::Break(())
    }
}
