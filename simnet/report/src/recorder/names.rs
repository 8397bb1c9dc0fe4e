//! Who is who: numbers of hosts by their identities.
//!
//! Owns: a table for finding only, four bytes a place. Must not: keep identities; the description
//! has them.

use std::collections::BTreeMap;

use cocoon_protocol::identity::{ModelHash, NodeId};

use crate::describe::{Description, HostLabel};

/// Names of a run, by the numbers that facts use.
#[derive(Debug)]
pub(super) struct Names {
    /// Host numbers plus one, at the place that the identity's first bytes say or behind it. At
    /// least every other place is free.
    places: Vec<u32>,
    pub(super) models: BTreeMap<ModelHash, usize>,
}

impl Names {
    pub(super) fn new(about: &Description) -> Self {
        let size = (about.hosts.len() * 2).next_power_of_two().max(16);
        let models = about.models.iter().enumerate().map(|(at, it)| (it.0, at)).collect();
        let mut names = Self { places: vec![0; size], models };
        for (number, label) in (1_u32..).zip(&about.hosts) {
            let mut place = names.place(label.node);
            while names.places.get(place).is_some_and(|it| *it != 0) {
                place = (place + 1) & (size - 1);
            }
            if let Some(free) = names.places.get_mut(place) {
                *free = number;
            }
        }
        names
    }

    /// Identities are random, so that their first bytes are their hash.
    fn place(&self, node: NodeId) -> usize {
        let [a, b, c, d, e, f, g, h, ..] = *node.as_bytes();
        let head = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        usize::try_from(head).unwrap_or(usize::MAX) & (self.places.len() - 1)
    }

    /// The host with this identity.
    pub(super) fn host(&self, hosts: &[HostLabel], node: NodeId) -> Option<u32> {
        let mut place = self.place(node);
        loop {
            let number = self.places.get(place)?.checked_sub(1)?;
            if hosts.get(usize::try_from(number).ok()?).is_some_and(|it| it.node == node) {
                return Some(number);
            }
            place = (place + 1) & (self.places.len() - 1);
        }
    }
}
