//! What goes wrong: crashes, partitions, and links that are worse than they should be.
//!
//! Owns: those, and when the others notice. Must not: choose moments; the owner of the run does.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use super::{Network, nanos, now, record};
use crate::links::PartsPerMillion;
use crate::node::NodeIndex;
use crate::trace::{Kind, Record};

/// How a node dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Crash {
    /// It falls silent, as a machine without power does and a process over QUIC: peers notice when
    /// they have heard nothing for the idle time-out.
    #[default]
    Silent,
    /// Its machine lives on and resets its connections, as after the death of a process over TCP:
    /// peers notice one way later.
    Reset,
}

/// How much worse than its model a link is. All that apply to a link add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// More delay, one way.
    pub delay: Duration,
    /// More jitter.
    pub jitter: Duration,
    /// More loss; beyond 90 % counts as 90 %, a link that carries nothing is a partition.
    pub loss: PartsPerMillion,
    /// Packets that arrive twice. Streams drop the second, so only bytes grow.
    pub duplicated: PartsPerMillion,
    /// Flights that others overtake, late by up to a round trip. Later bytes of their streams wait.
    pub reordered: PartsPerMillion,
}

impl Fault {
    fn add(&mut self, other: &Self) {
        let sum = |a: PartsPerMillion, b: PartsPerMillion| PartsPerMillion(a.0.saturating_add(b.0));
        self.delay = self.delay.saturating_add(other.delay);
        self.jitter = self.jitter.saturating_add(other.jitter);
        self.loss = sum(self.loss, other.loss);
        self.duplicated = sum(self.duplicated, other.duplicated);
        self.reordered = sum(self.reordered, other.reordered);
    }
}

/// Which links a fault is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All of them.
    Everywhere,
    /// Those to and from a node.
    Node(NodeIndex),
    /// The one from the first node to the second, not back.
    Link(NodeIndex, NodeIndex),
}

/// The faults that are in force.
#[derive(Debug, Default)]
pub(crate) struct Faults(BTreeMap<Scope, Fault>);

impl Faults {
    pub(super) fn between(&self, from: NodeIndex, to: NodeIndex) -> Fault {
        let mut sum = Fault::default();
        if self.0.is_empty() {
            return sum;
        }
        let scopes = [Scope::Everywhere, Scope::Node(from), Scope::Node(to), Scope::Link(from, to)];
        for fault in scopes.iter().filter_map(|scope| self.0.get(scope)) {
            sum.add(fault);
        }
        sum
    }
}

impl Network {
    /// Puts a fault on links, in place of the one that was there; none with the default.
    pub(crate) fn set_fault(&mut self, scope: Scope, fault: Fault) {
        if fault == Fault::default() {
            self.faults.0.remove(&scope);
        } else {
            self.faults.0.insert(scope, fault);
        }
        self.record(record(Kind::Fault));
    }

    /// The node's part of a crash: its connections, its listener, its holes. Its tasks are the
    /// executor's.
    pub(crate) fn crash(&mut self, index: NodeIndex, crash: Crash) {
        let Some(node) = self.node_mut(index).filter(|node| node.is_up) else { return };
        node.is_up = false;
        node.life = node.life.wrapping_add(1);
        node.listener = None;
        node.peer = None;
        node.pinholes.clear();
        let listening = node.listening.take();
        let inbox = std::mem::take(&mut node.inbox);
        self.retired.extend(listening);
        self.record(record(Kind::Crash).node(index));
        let idle = nanos(self.wire.idle_timeout);
        for (connection, side) in self.connections_of(index) {
            let Some(peer) = self.connection(connection).map(|it| *it.nodes.at(side.other()))
            else {
                continue;
            };
            let noticed = match crash {
                Crash::Silent => self.last_heard(connection).saturating_add(idle),
                Crash::Reset => now().saturating_add(self.base_delay(index, peer)),
            };
            self.give_up_at(connection, side.other(), noticed.max(now().saturating_add(1)));
            self.end(connection, side, ErrorKind::ConnectionReset);
        }
        for connection in inbox {
            self.drop_connection(connection, super::Side::Listener);
        }
    }

    /// The node is up again, perhaps at another port. It does not listen yet.
    pub(crate) fn restart(&mut self, index: NodeIndex, port: Option<u16>) {
        let Some(node) = self.node_mut(index).filter(|node| !node.is_up) else { return };
        node.is_up = true;
        node.port = port.unwrap_or(node.port);
        self.record(record(Kind::Restart).node(index));
    }

    /// Cuts every link between nodes of different groups. A node that is in none belongs to a
    /// further group, with all others that are in none.
    pub(crate) fn partition(&mut self, groups: &[Vec<NodeIndex>]) {
        for node in &mut self.nodes {
            node.group = 0;
        }
        for (number, group) in (1_u32..).zip(groups) {
            for &index in group {
                if let Some(node) = self.node_mut(index) {
                    node.group = number;
                }
            }
        }
        let kind = if groups.is_empty() { Kind::Heal } else { Kind::Partition };
        let size = u32::try_from(groups.len()).unwrap_or(u32::MAX);
        self.record(Record { size, ..record(kind) });
        self.look_at_cuts();
    }

    fn look_at_cuts(&mut self) {
        let idle = nanos(self.wire.idle_timeout);
        let open: Vec<_> = self
            .connections
            .iter()
            .map(|(id, it)| (id, it.nodes.0, it.nodes.1, it.ends.0.over.or(it.ends.1.over)))
            .collect();
        for (connection, a, b, over) in open {
            if self.is_cut(a, b) {
                let at = self.last_heard(connection).saturating_add(idle);
                self.give_up_at(connection, super::Side::Dialler, at);
                self.give_up_at(connection, super::Side::Listener, at);
            } else if over.is_none() {
                self.hope(connection);
            }
        }
        // What waited for the cut to heal leaves now; what is still cut will wait again.
        let held_back = std::mem::take(&mut self.held_back);
        self.unsent.extend(held_back);
    }
}
