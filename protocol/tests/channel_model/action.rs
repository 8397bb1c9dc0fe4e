//! What can happen in a history, and how likely each is.
//!
//! Owns: the alphabet. Must not: know what an action does.

use super::CHANNELS;
use proptest::prelude::*;

/// Where a node is killed while it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The record is lost, and nothing was sent or used.
    BeforePersist,
    /// The record is safe, but nothing was sent or used.
    AfterPersist,
}

/// What happens on the ledger, to the deposit and to time.
#[derive(Clone, Debug)]
pub(crate) enum Money {
    TopUp(u64),
    Withdraw(u64),
    Allocate(usize, u64),
    Rebalance(u64, u64),
    Settle(usize, bool),
    SettleOld(usize, usize),
    Observe(usize),
    RequestRelease(usize),
    FinalizeRelease(usize),
    Release(usize),
    ReplayOrder,
    Sweep,
    Wait(u64),
}

/// What happens between the two ends of a channel.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Start(usize, u64),
    Serve(usize, usize, u64),
    Pay(usize, usize, u64, Fault),
    Finish(usize, usize, Fault),
    Abandon(usize, usize),
    Close(usize, usize),
    Deliver(usize, usize, Fault),
    Lose(usize, usize),
    Repeat(usize, usize),
    CrashConsumer,
    CrashProvider(usize),
    Reconnect(usize),
    /// The provider claims a debt: the one that it has, and so much more.
    Repay(usize, u64, Fault),
}

/// One step of a history.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Money(Money),
    Work(Work),
}

impl Action {
    /// The kind of action, for counting.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Money(money) => money.name(),
            Self::Work(work) => work.name(),
        }
    }
}

impl Money {
    const fn name(&self) -> &'static str {
        match self {
            Self::TopUp(..) => "top up",
            Self::Withdraw(..) => "withdraw",
            Self::Allocate(..) => "allocate",
            Self::Rebalance(..) => "rebalance",
            Self::Settle(..) => "settle",
            Self::SettleOld(..) => "settle old",
            Self::Observe(..) => "observe",
            Self::RequestRelease(..) => "request release",
            Self::FinalizeRelease(..) => "finalize release",
            Self::Release(..) => "release",
            Self::ReplayOrder => "replay order",
            Self::Sweep => "sweep",
            Self::Wait(..) => "wait",
        }
    }
}

impl Work {
    const fn name(&self) -> &'static str {
        match self {
            Self::Start(..) => "start",
            Self::Serve(..) => "serve",
            Self::Pay(.., Fault::None) => "pay",
            Self::Pay(..) => "pay and crash",
            Self::Finish(..) => "finish",
            Self::Abandon(..) => "abandon",
            Self::Close(..) => "close",
            Self::Deliver(.., Fault::None) => "deliver",
            Self::Deliver(..) => "deliver and crash",
            Self::Lose(..) => "lose",
            Self::Repeat(..) => "repeat",
            Self::CrashConsumer => "crash consumer",
            Self::CrashProvider(..) => "crash provider",
            Self::Reconnect(..) => "reconnect",
            Self::Repay(..) => "repay",
        }
    }
}

/// How many kinds of action there are, for the count at the end.
pub(crate) const KINDS: usize = 28;

pub(crate) fn action() -> impl Strategy<Value = Action> {
    let channel = 0..CHANNELS;
    let pick = 0usize..8;
    let fault = prop_oneof![
        18 => Just(Fault::None),
        1 => Just(Fault::BeforePersist),
        1 => Just(Fault::AfterPersist),
    ];
    let money = || {
        prop_oneof![
            2 => (0u64..800).prop_map(Money::TopUp),
            1 => (0u64..600).prop_map(Money::Withdraw),
            8 => (channel.clone(), 0u64..300).prop_map(|(c, a)| Money::Allocate(c, a)),
            2 => (0u64..200, 0u64..200).prop_map(|(a, b)| Money::Rebalance(a, b)),
            7 => (channel.clone(), any::<bool>()).prop_map(|(c, e)| Money::Settle(c, e)),
            3 => (channel.clone(), 0usize..99).prop_map(|(c, i)| Money::SettleOld(c, i)),
            10 => channel.clone().prop_map(Money::Observe),
            3 => channel.clone().prop_map(Money::RequestRelease),
            6 => channel.clone().prop_map(Money::FinalizeRelease),
            1 => channel.clone().prop_map(Money::Release),
            2 => Just(Money::ReplayOrder),
            2 => Just(Money::Sweep),
            4 => (1u64..200).prop_map(Money::Wait),
        ]
    };
    let work = || {
        let pair = || (channel.clone(), pick.clone());
        prop_oneof![
            18 => (channel.clone(), 5u64..100).prop_map(|(c, m)| Work::Start(c, m)),
            24 => (pair(), 1u64..40).prop_map(|((c, j), t)| Work::Serve(c, j, t)),
            24 => (pair(), 0u64..8, fault.clone()).prop_map(|((c, j), a, f)| Work::Pay(c, j, a, f)),
            4 => (pair(), fault.clone()).prop_map(|((c, j), f)| Work::Finish(c, j, f)),
            1 => pair().prop_map(|(c, j)| Work::Abandon(c, j)),
            2 => pair().prop_map(|(c, j)| Work::Close(c, j)),
            16 => (pair(), fault.clone()).prop_map(|((c, i), f)| Work::Deliver(c, i, f)),
            2 => pair().prop_map(|(c, i)| Work::Lose(c, i)),
            2 => pair().prop_map(|(c, i)| Work::Repeat(c, i)),
            1 => channel.clone().prop_map(Work::CrashProvider),
            1 => Just(Work::CrashConsumer),
            2 => channel.clone().prop_map(Work::Reconnect),
            3 => (channel.clone(), prop_oneof![2 => Just(0u64), 1 => 0u64..100], fault.clone())
                .prop_map(|(c, lie, f)| Work::Repay(c, lie, f)),
        ]
    };
    prop_oneof![
        1 => money().prop_map(Action::Money),
        4 => work().prop_map(Action::Work),
    ]
}
