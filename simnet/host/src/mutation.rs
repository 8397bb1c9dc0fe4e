//! Planted bugs: switches that break the shell in known ways, to show that they are caught.
//!
//! Owns: the list, and which of them this thread's runs have.
//! Must not: exist outside tests: without the feature `mutation` every switch is off, and the
//! compiler removes what it would do.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// A consumer's promise and a provider's best voucher are used before they are durable, and
    /// never become so: a crash loses them.
    VoucherLost,
    /// The ledger credits a payment twice.
    PaidTwice,
    /// A settlement leaves the vault as it was, so that the same voucher is paid again.
    SettlementReplayed,
    /// The engine goes on without a grant.
    Overserving,
    /// The provider's door lets everybody in.
    DoorOpen,
    /// The prompt leaves before the evidence is judged.
    PromptEarly,
    /// The node ends a job, and its user is not told.
    NewsLost,
    /// An order that the process's own randomness decides.
    RandomOrder,
}

impl Mutation {
    /// Every bug.
    pub const ALL: [Self; 8] = [
        Self::VoucherLost,
        Self::PaidTwice,
        Self::SettlementReplayed,
        Self::Overserving,
        Self::DoorOpen,
        Self::PromptEarly,
        Self::NewsLost,
        Self::RandomOrder,
    ];

    /// The bug of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutation| mutation.name() == name)
    }

    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VoucherLost => "voucher-lost",
            Self::PaidTwice => "paid-twice",
            Self::SettlementReplayed => "settlement-replayed",
            Self::Overserving => "overserving",
            Self::DoorOpen => "door-open",
            Self::PromptEarly => "prompt-early",
            Self::NewsLost => "news-lost",
            Self::RandomOrder => "random-order",
        }
    }
}

#[cfg(feature = "mutation")]
mod switches {
    use std::cell::Cell;
    use std::collections::HashMap;
    use std::hash::RandomState;

    use super::Mutation;

    thread_local! {
        static PLANTED: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Plants a bug in every run of this thread from now on, in place of the one before; `None`
    /// for none.
    pub fn plant(mutation: Option<Mutation>) {
        PLANTED.set(mutation);
    }

    pub(crate) fn planted(mutation: Mutation) -> bool {
        PLANTED.get() == Some(mutation)
    }

    /// The same items, in an order that a hash map decides whose seed is the machine's: it is drawn
    /// on a thread of its own, where no simulation gives randomness out.
    pub(crate) fn shuffled<T>(items: Vec<T>) -> Vec<T> {
        if !planted(Mutation::RandomOrder) {
            return items;
        }
        let drawn = std::thread::spawn(RandomState::new).join();
        let seed = drawn.unwrap_or_else(|_| RandomState::new());
        let mut map = HashMap::with_hasher(seed);
        map.extend(items.into_iter().enumerate());
        map.into_values().collect()
    }
}

#[cfg(not(feature = "mutation"))]
mod switches {
    pub(crate) const fn planted(_mutation: super::Mutation) -> bool {
        false
    }

    pub(crate) const fn shuffled<T>(items: Vec<T>) -> Vec<T> {
        items
    }
}

#[cfg(feature = "mutation")]
pub use switches::plant;
pub(crate) use switches::{planted, shuffled};
