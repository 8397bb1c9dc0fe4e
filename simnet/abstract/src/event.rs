//! What waits in the wheel.
//!
//! Owns: the kinds of event, each in sixteen bytes. Must not: own anything; what is larger lies in
//! a slab under its handle.

use crate::directory::Key;
use simnet_host::Alarm;

/// Which life of a host an event is meant for: events of an earlier one are for nobody.
pub(crate) type Life = u16;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A host's alarm rings.
    Alarm { host: u32, life: Life, alarm: Alarm },
    /// A message of a session reaches one of its ends.
    Message { session: u32, serial: u16, to_provider: bool, parcel: u32 },
    /// The end of a session reaches one of its ends.
    Down { session: u32, serial: u16, to_provider: bool },
    /// A dial has got as far as its provider.
    Knock { session: u32, serial: u16 },
    /// A dial's answer reaches its consumer.
    Answer { session: u32, serial: u16, answer: Answer },
    /// A look-up brings providers.
    Found { host: u32, life: Life, key: Key },
    /// A provider's first offer reaches a consumer that contacted it, or the contact has failed.
    Contacted { host: u32, life: Life, provider: u32, gave_up: bool },
    /// A pushed offer reaches a subscriber.
    Offer { host: u32, life: Life, provider: u32 },
    /// A subscriber notices that a provider is gone.
    Lost { host: u32, life: Life, provider: u32 },
    /// A consumer's tables have something to do.
    Tables { host: u32, life: Life, generation: u32 },
    /// A provider's offer may be pushed again.
    Push { host: u32, life: Life },
    /// A provider's records reach the index.
    Indexed { host: u32, life: Life },
    /// A host that ended by itself starts again.
    Restart { host: u32, life: Life },
}

/// What comes of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A session.
    Open,
    /// The provider has no room.
    Busy,
    /// Nobody answers.
    Unreachable,
}

impl Event {
    /// The event as numbers, for the trace.
    pub(crate) fn numbers(self) -> [u64; 2] {
        let pack = |kind: u64, a: u32, small: u16, b: u32| {
            [kind << 56 | u64::from(small) << 32 | u64::from(a), u64::from(b)]
        };
        match self {
            Self::Alarm { host, life, alarm } => {
                let (kind, number) = match alarm {
                    Alarm::Protocol(number) => (0, number),
                    Alarm::Engine(number) => (1, number),
                    Alarm::Store(number) => (2, number),
                    Alarm::Patience => (3, 0),
                    Alarm::Idle => (4, 0),
                    Alarm::Behaviour(number) => (5, number),
                };
                pack(kind, host, life, number)
            }
            Self::Message { session, serial, to_provider, .. } => {
                pack(10 + u64::from(to_provider), session, serial, 0)
            }
            Self::Down { session, serial, to_provider } => {
                pack(12 + u64::from(to_provider), session, serial, 0)
            }
            Self::Knock { session, serial } => pack(14, session, serial, 0),
            Self::Answer { session, serial, answer } => pack(15, session, serial, answer as u32),
            Self::Found { host, life, key } => pack(16, host, life, key.number()),
            Self::Contacted { host, life, provider, gave_up } => {
                pack(17 + u64::from(gave_up), host, life, provider)
            }
            Self::Offer { host, life, provider } => pack(19, host, life, provider),
            Self::Lost { host, life, provider } => pack(20, host, life, provider),
            Self::Tables { host, life, generation } => pack(21, host, life, generation),
            Self::Push { host, life } => pack(22, host, life, 0),
            Self::Indexed { host, life } => pack(23, host, life, 0),
            Self::Restart { host, life } => pack(24, host, life, 0),
        }
    }
}
