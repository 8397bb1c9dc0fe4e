//! What waits in the wheel.
//!
//! Owns: the kinds of event, each in sixteen bytes. Must not: own anything; what is larger lies in
//! a slab under its handle.

use simnet_host::Alarm;

/// Which life of a host an event is meant for: events of an earlier one are for nobody.
pub(crate) type Life = u16;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A host's alarm rings.
    Alarm { host: u32, life: Life, alarm: Alarm },
    /// A message of the session `session` reaches its consumer or its provider.
    Message { session: u32, serial: u16, to_provider: bool, message: u32 },
    /// The end of a session reaches its consumer or its provider.
    HangUp { session: u32, serial: u16, to_provider: bool },
    /// A dial reaches its provider.
    Knock { session: u32, serial: u16 },
    /// A dial's answer reaches its consumer.
    Answer { session: u32, serial: u16 },
    /// A look-up of a consumer's want brings providers.
    Found { host: u32, life: Life, want: u16 },
    /// A contacted provider's first offer is there, or the contact has failed.
    Contacted { host: u32, life: Life, provider: u32, reached: bool },
    /// A provider's offer as of `version` reaches its subscribers; the first of them is this one.
    Offer { host: u32, life: Life, provider: u32, offer: u32 },
    /// A provider is given up by a subscriber: it left, or was silent for too long.
    Lost { host: u32, life: Life, provider: u32 },
    /// A consumer's tables have something to do.
    Tables { host: u32, life: Life, generation: u32 },
    /// A provider's offer may be pushed again.
    Push { host: u32, life: Life },
    /// A provider's record reaches the index.
    Indexed { host: u32, life: Life, model: u16 },
    /// The ledger has a block or an answer.
    Block,
    /// The ledger's answer to a host.
    Ledger { host: u32, life: Life, answer: u32 },
    /// A host starts, or starts again.
    Start { host: u32, life: Life },
    /// Something of the script: arrivals, churn, faults.
    Script { entry: u32 },
    /// The tables take a sample.
    Sample,
}
