//! What a host's process holds: all of it is gone when the process dies.
//!
//! Owns: the protocol's state, the inbox, the commit under way, and each role's edge.
//! Must not: hold anything for a role that the host has not got, or for work that it does not have:
//! a million idle hosts fit in memory.

use std::sync::Arc;

use cocoon_protocol::channel::ChannelId;
use cocoon_protocol::channel::funds::Funds;
use cocoon_protocol::identity::JobId;
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::job::consumer::Consumer;
use cocoon_protocol::job::provider::Provider;
use cocoon_protocol::units::{NanoTon, Timestamp};
use cocoon_protocol::{Node, Output};
use simnet_scenario::Moment;

use super::clock::Clock;
use super::inbox::Inbox;
use super::reading::Reading;
use super::serving::Serving;
use super::spec::{self, HostSpec};
use super::{Coming, near};
use crate::store::{CrashPoint, Store};

/// How a process ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// In a commit.
    Crashed,
    /// It is drained.
    Left,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) node: Node,
    pub(super) clock: Clock,
    /// When the protocol wants to be called next.
    pub(super) wake_at: Option<Timestamp>,
    pub(super) alarm: AlarmClock,
    /// When it was last called for a time-out.
    pub(super) called: Option<Moment>,
    pub(super) inbox: Inbox,
    pub(super) commit: Option<Box<Commit>>,
    /// What it has as a consumer.
    pub(super) reading: Option<Reading>,
    /// What it has as a provider.
    pub(super) serving: Option<Box<Serving>>,
    /// Deepest that each queue has been.
    pub(super) depths: [u16; 6],
    pub(super) draining: bool,
    pub(super) end: Option<End>,
}

/// What one transaction is about.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) output: Output,
    pub(super) paid: Vec<Paid>,
}

/// A payment that the provider has accepted in this transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paid {
    pub(super) peer: NodeId,
    /// For which job, and what is paid for it in all.
    pub(super) job: Option<(JobId, NanoTon)>,
}

/// A payment that is with the protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) peer: NodeId,
    pub(super) channel: ChannelId,
    pub(super) job: Option<(JobId, NanoTon)>,
}

/// A transaction that is under way.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) number: u32,
    pub(super) batch: Box<Batch>,
    pub(super) crash: Option<CrashPoint>,
}

/// One alarm at a time, the earliest that is needed: later ones are set when it has rung.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AlarmClock {
    generation: u32,
    armed: Option<Moment>,
}

impl AlarmClock {
    /// To be woken at this moment: the alarm to set, with its generation, if none rings before.
    pub(super) fn need(&mut self, at: Moment) -> Option<u32> {
        if self.armed.is_some_and(|armed| armed <= at) {
            return None;
        }
        self.armed = Some(at);
        self.generation = self.generation.wrapping_add(1);
        Some(self.generation)
    }

    /// Whether one is set.
    pub(super) const fn is_set(&self) -> bool {
        self.armed.is_some()
    }

    /// Whether an alarm that came is the one that was set last.
    pub(super) fn rings(&mut self, generation: u32) -> bool {
        let current = generation == self.generation;
        if current {
            self.armed = None;
        }
        current
    }
}

impl Process {
    /// Names the memory that it points to; see [`crate::Host::approach`].
    pub(super) fn approach(
        &self,
        step: u8,
        coming: Coming,
        ask: &mut impl FnMut(*const u8, usize),
    ) {
        self.node.places(step.saturating_sub(1), ask);
        if step == 1 {
            if let Some(commit) = self.commit.as_deref().filter(|_| coming == Coming::Other) {
                near(commit, ask);
            }
            if let Some(serving) = self.serving.as_deref() {
                near(serving, ask);
            }
            if let Some(reading) = &self.reading {
                reading.approach(ask);
            }
        } else if step == 2
            && let Some(serving) = self.serving.as_deref()
        {
            serving.approach(coming, ask);
        }
    }
}

impl Process {
    /// A process that continues with what the store remembers; `None` when that cannot be read.
    pub(super) fn start(spec: &HostSpec, store: &Store) -> Option<Self> {
        let consumer = match &spec.consumer {
            Some(consumer) => {
                let payers = store.restore_payers().ok()?;
                let config = spec::funds_config(spec, consumer);
                let key = spec.vault_key()?;
                let policy = Arc::clone(&consumer.policy);
                Some(Consumer::with_policy(Funds::new(config, key, payers), policy))
            }
            None => None,
        };
        let provider = match &spec.provider {
            Some(provider) => {
                let payees = store.restore_payees().ok()?;
                let config = spec::provider_config(spec, provider);
                let pricing = Arc::clone(&provider.pricing);
                Some(Provider::new(config, payees).with_pricing(pricing))
            }
            None => None,
        };
        Some(Self {
            node: Node::new(consumer, provider),
            clock: Clock::new(spec.skew_ms),
            wake_at: None,
            alarm: AlarmClock::default(),
            called: None,
            inbox: Inbox::default(),
            commit: None,
            reading: spec.consumer.as_ref().map(|_| Reading::default()),
            serving: spec.provider.as_ref().map(|it| Box::new(Serving::new(it))),
            depths: [0; 6],
            draining: false,
            end: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every host of a large run costs before it has anything to do; the protocol's own state
    /// comes on top.
    #[test]
    fn an_idle_host_is_small() {
        assert!(size_of::<crate::Host>() <= 512, "{}", size_of::<crate::Host>());
        let idle = Process::start(&idle_consumer(), &Store::default()).unwrap();
        assert!(idle.inbox.is_empty());
        assert!(idle.serving.is_none() && idle.commit.is_none());
    }

    fn idle_consumer() -> HostSpec {
        use std::sync::Arc;

        use cocoon_protocol::selection::Balanced;
        use simnet_scenario::Seed;

        use super::super::{ConsumerSpec, HotKey};
        use crate::fabric::HostId;
        let (deposit, allocation) = (NanoTon::from_nano(2), NanoTon::from_nano(1));
        let (vault_key, patience, policy) = (HotKey::Drawn, None, Arc::new(Balanced));
        let consumer = ConsumerSpec { vault_key, deposit, allocation, patience, policy };
        HostSpec { consumer: Some(consumer), ..HostSpec::plain(HostId(7), Seed(1)) }
    }

    #[test]
    fn only_the_earliest_alarm_is_set() {
        let mut clock = AlarmClock::default();
        let first = clock.need(Moment::from_millis(10));
        assert_eq!(first, Some(1));
        assert_eq!(clock.need(Moment::from_millis(20)), None, "the first one rings before");
        let earlier = clock.need(Moment::from_millis(5));
        assert_eq!(earlier, Some(2));
        assert!(!clock.rings(1), "replaced");
        assert!(clock.rings(2));
        assert_eq!(clock.need(Moment::from_millis(20)), Some(3));
    }
}
