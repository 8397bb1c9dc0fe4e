//! An eclipse at this level: whose look-ups are answered by whom.
//!
//! Owns: the victim and its attackers. Must not: be another attack; Sybils stand in the directory
//! like everybody.
//!
//! In the exact tier attackers surround a consumer's place in the index. Here their success there
//! is a parameter: the share of the victim's look-ups that come back with attackers only.

use std::sync::Arc;

use simnet_host::HostSpec;
use simnet_scenario::{AdversaryKind, Scenario};

use crate::draws::Draws;

/// Who is eclipsed, and by whom.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    groups: Vec<Group>,
    ppm: u64,
}

#[derive(Debug)]
struct Group {
    victim: u32,
    attackers: Vec<u32>,
}

impl Poison {
    pub(crate) fn new(scenario: &Scenario, specs: &[Arc<HostSpec>], ppm: u32) -> Self {
        let eclipses = scenario.adversaries.iter().enumerate();
        let eclipses = eclipses.filter(|(_, it)| it.kind == AdversaryKind::Eclipse && it.attacks());
        let groups = eclipses.filter_map(|(group, _)| {
            let hunted = |spec: &&Arc<HostSpec>| spec.victim_of.map(usize::from) == Some(group);
            let victim = specs.iter().find(hunted)?.id.0;
            let is_attacker = |spec: &&Arc<HostSpec>| {
                let group = scenario.adversaries.get(group);
                spec.provider.is_some()
                    && spec.adversary.as_deref().is_some_and(|it| Some(it) == group)
            };
            let attackers = specs.iter().filter(is_attacker).map(|spec| spec.id.0).collect();
            Some(Group { victim, attackers })
        });
        Self { groups: groups.collect(), ppm: ppm.into() }
    }

    /// What a host's look-up is answered with instead of the truth.
    pub(crate) fn answer(&self, host: u32, draws: &mut Draws) -> Option<&[u32]> {
        let group = self.groups.iter().find(|group| group.victim == host)?;
        (draws.millionths() < self.ppm).then_some(&group.attackers)
    }
}
