//! Facts that a run states, for tables, invariants and the trace.
//!
//! Owns: the list, and who may listen. Must not: change a run: whoever listens only watches.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::channel::ChannelId;
use cocoon_protocol::identity::{JobId, ModelHash, NodeId};
use cocoon_protocol::job::FinishReason;
use cocoon_protocol::offer::Load;
use cocoon_protocol::units::{NanoTon, Prices, Tokens};
use simnet_scenario::Moment;

use crate::fabric::HostId;
use crate::host::HostSpec;
use crate::ledger::{BlockReport, Ledger};
use crate::state::Halted;

/// Why a job failed, as a word that can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// Nobody offers the model.
    NoProvider,
    /// Nobody offers the tier.
    NoTier,
    /// Nobody is cheap enough.
    PriceTooHigh,
    /// Every attempt was refused.
    Refused,
    /// No attempt reached a provider that answers.
    Unreachable,
    /// The evidence of every attempt was refused.
    AttestationRefused,
    /// The provider was lost, or fell silent, in the middle of the answer.
    ProviderLost,
    /// The provider broke the protocol.
    Misbehaved,
    /// The vault has too little.
    FundsExhausted,
    /// The ledger did not answer.
    LedgerUnavailable,
    /// The node itself is full or shuts down.
    OwnNode,
    /// The consumer's process died while the job ran.
    Crashed,
    /// Its user gave it up before it ran.
    Cancelled,
}

/// A bounded queue of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// Jobs of a consumer that are not over.
    ConsumerJobs,
    /// Jobs of one consumer at a provider.
    JobsOfPeer,
    /// Jobs in the engine, running or waiting for a place.
    Engine,
    /// Stimuli that wait for a commit of the store.
    Inbox,
    /// Offers in a consumer's book.
    Book,
    /// Sessions that a provider has accepted.
    Sessions,
}

/// Something that happened on a host.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// It started; `restart` when its store had something. Before that it has stated what its
    /// store holds, as [`Self::Promised`] and [`Self::Held`].
    Started {
        /// Whether it had run before.
        restart: bool,
    },
    /// Its process died. What it had not made durable is lost.
    Crashed,
    /// It finished what it had and left.
    Left,

    /// A user wants a job done. Every one ends in exactly one of finished, failed.
    JobSubmitted {
        /// Which.
        job: JobId,
        /// Which weights.
        model: ModelHash,
        /// The lowest tier that may see the prompt.
        minimum_tier: Tier,
    },
    /// The prompt left the consumer.
    PromptSent {
        /// Which job.
        job: JobId,
        /// To whom.
        provider: NodeId,
        /// The lowest tier that may see it.
        asked: Tier,
        /// What the provider really is.
        genuine: Tier,
        /// Whether it is an adversary of the scenario.
        hostile: bool,
    },
    /// The first token reached its reader.
    FirstToken {
        /// Which job.
        job: JobId,
        /// Since it was submitted.
        after: Duration,
    },
    /// A job ended with its receipt.
    JobFinished {
        /// Which.
        job: JobId,
        /// Who served it.
        provider: NodeId,
        /// Why it ended.
        reason: FinishReason,
        /// Tokens of the prompt, as charged.
        prompt: Tokens,
        /// Tokens of the completion, as charged.
        completion: Tokens,
        /// What it cost.
        cost: NanoTon,
        /// Vouchers signed for it.
        vouchers: u32,
        /// Attempts, this one included.
        attempts: u32,
        /// From submission to the receipt.
        after: Duration,
    },
    /// A job failed for its user.
    JobFailed {
        /// Which.
        job: JobId,
        /// Why.
        kind: FailureKind,
        /// Attempts.
        attempts: u32,
        /// Since it was submitted.
        after: Duration,
        /// What had been promised for it.
        paid: NanoTon,
    },

    /// The jobs that users wait for are not those that the node works on, or the node has some and
    /// means to look at none of them again. Always a violation: such a job never ends.
    JobsAdrift {
        /// Jobs that users wait for.
        waiting: u32,
        /// Jobs that the node works on.
        held: u32,
        /// Whether the node means to look at them again.
        attended: bool,
    },

    /// A consumer's promise became durable; the voucher may leave now.
    Promised {
        /// In which channel.
        channel: ChannelId,
        /// All that was ever promised in it.
        cumulative: NanoTon,
    },
    /// A provider's best voucher became durable.
    Held {
        /// In which channel.
        channel: ChannelId,
        /// What it promises.
        cumulative: NanoTon,
    },
    /// A provider has served beyond what is paid. Stated after every token that goes out.
    Exposed {
        /// Which job.
        job: JobId,
        /// Tokens of completion that are not paid.
        unpaid: Tokens,
        /// What they cost.
        value: NanoTon,
        /// What all its jobs with this consumer have served and are not paid for, those that ended
        /// included.
        peer_owes: NanoTon,
        /// What one step costs at the job's prices.
        step: NanoTon,
        /// What the consumer's channel has been credited so far.
        credited: NanoTon,
    },
    /// A settlement reached the provider's wallet.
    Settled {
        /// Of which channel.
        channel: ChannelId,
        /// What the ledger has paid in it by now.
        paid: NanoTon,
    },
    /// A vault's key is known to have promised two different things at one epoch, or a voucher
    /// beyond an allocation was tried.
    DoubleSpendRefused {
        /// In which channel.
        channel: ChannelId,
    },

    /// This host has a current offer of a provider of which it had none.
    Met {
        /// Whose.
        provider: NodeId,
    },
    /// The offer that it had of a provider is no longer kept current.
    Forgot {
        /// Whose.
        provider: NodeId,
    },
    /// The first offer of a model came in, in the tier that was asked for, since it was wanted.
    RouteReady {
        /// Of which.
        model: ModelHash,
        /// Since it was wanted.
        after: Duration,
    },
    /// An offer was published.
    Offered {
        /// Load class.
        load: Load,
        /// Prices of its first model.
        prices: Prices,
    },
    /// A session that this host dialled is open and its evidence accepted.
    SessionOpened {
        /// With whom.
        peer: NodeId,
        /// Since the dial.
        after: Duration,
    },
    /// A session that this host dialled did not come about, or its evidence was refused.
    SessionFailed {
        /// With whom.
        peer: NodeId,
        /// Whether its evidence was refused.
        refused: bool,
    },
    /// A queue grew to this depth.
    Queued {
        /// Which queue.
        queue: Queue,
        /// How many wait in it.
        depth: u32,
        /// The most that it may hold.
        bound: u32,
    },
    /// A host did work that earns it something or cost it something outside the channel: engine
    /// seconds, for the gain of an adversary.
    Worked {
        /// Time of the engine's places.
        engine: Duration,
    },
    /// The node broke a rule that no input may make it break. Always a violation.
    Defect {
        /// Which rule.
        rule: &'static str,
    },
}

/// The network as a whole at one moment. Taken at a fixed virtual interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Moment,
    /// Hosts that run.
    pub hosts: u32,
    /// Connections, each counted once. Zero in tiers that have none.
    pub connections: u64,
    /// Bytes sent since the start, by protocol; the names are those of the traffic table.
    pub traffic: Vec<(&'static str, u64)>,
}

/// Lines of memory that will be needed soon; null for none.
pub type Places = [*const u8; 2];
/// None.
pub const NOWHERE: Places = [std::ptr::null(); 2];

/// Whoever watches a run. Called in the order of the run, never concurrently.
pub trait Observer {
    /// The run begins with these hosts, in the order of their numbers. Called once, before the
    /// first fact.
    fn begin(&mut self, hosts: &[Arc<HostSpec>]) {
        let _unused_by_most = hosts;
    }

    /// The run is over at `at`; `interrupted` when its caller had ended it. Called once, after the
    /// last fact, with the ledger as it is left.
    fn end(&mut self, at: Moment, interrupted: bool, ledger: &Ledger) {
        let _unused_by_most = (at, interrupted, ledger);
    }

    /// A host states a fact.
    fn observe(&mut self, at: Moment, host: HostId, fact: &Observation);

    /// The ledger did something.
    fn block(&mut self, at: Moment, block: &BlockReport<'_>) {
        let _unused_by_most = (at, block);
    }

    /// Names the lines of memory that it will need to hear a fact of this host, null for none. The first
    /// step is followed by a second, which may read what the first has named.
    fn places(&self, host: HostId, step: u8) -> Places {
        let _unused_by_most = (host, step);
        NOWHERE
    }

    /// Whether the run should stand still here: an invariant is broken, or somebody wants to look.
    /// Asked after every event.
    fn is_over(&self) -> bool {
        false
    }

    /// The moment at which the run should stand still next, when everything up to it has happened and
    /// nothing after it; one at or after the end of the run is its end. Asked when the run begins and
    /// whenever it has stood still, so that it costs nothing on the way.
    fn halt_at(&self) -> Option<Moment> {
        None
    }

    /// The run stands still at `at`, because [`Self::is_over`] or [`Self::halt_at`] wanted it to.
    /// [`ControlFlow::Break`] ends it here. It must leave the thread as it was: a map with random
    /// keys that is made on it moves those of all that come after.
    fn halt(&mut self, at: Moment, halted: &mut dyn Halted) -> ControlFlow<()> {
        let _unused_by_most = (at, halted);
        if self.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The interval of samples has passed.
    fn sample(&mut self, sample: &Sample) {
        let _unused_by_most = sample;
    }
}

/// Two observers of one run, in this order.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn begin(&mut self, hosts: &[Arc<HostSpec>]) {
        self.0.begin(hosts);
        self.1.begin(hosts);
    }

    fn end(&mut self, at: Moment, interrupted: bool, ledger: &Ledger) {
        self.0.end(at, interrupted, ledger);
        self.1.end(at, interrupted, ledger);
    }

    fn observe(&mut self, at: Moment, host: HostId, fact: &Observation) {
        self.0.observe(at, host, fact);
        self.1.observe(at, host, fact);
    }

    fn block(&mut self, at: Moment, block: &BlockReport<'_>) {
        self.0.block(at, block);
        self.1.block(at, block);
    }

    fn is_over(&self) -> bool {
        self.0.is_over() || self.1.is_over()
    }

    fn halt_at(&self) -> Option<Moment> {
        self.0.halt_at().into_iter().chain(self.1.halt_at()).min()
    }

    fn halt(&mut self, at: Moment, halted: &mut dyn Halted) -> ControlFlow<()> {
        let (first, second) = (self.0.halt(at, halted), self.1.halt(at, halted));
        if first.is_break() { first } else { second }
    }

    fn sample(&mut self, sample: &Sample) {
        self.0.sample(sample);
        self.1.sample(sample);
    }
}

impl<T: Observer + ?Sized> Observer for &mut T {
    fn begin(&mut self, hosts: &[Arc<HostSpec>]) {
        (**self).begin(hosts);
    }

    fn end(&mut self, at: Moment, interrupted: bool, ledger: &Ledger) {
        (**self).end(at, interrupted, ledger);
    }

    fn observe(&mut self, at: Moment, host: HostId, fact: &Observation) {
        (**self).observe(at, host, fact);
    }

    fn block(&mut self, at: Moment, block: &BlockReport<'_>) {
        (**self).block(at, block);
    }

    fn is_over(&self) -> bool {
        (**self).is_over()
    }

    fn halt_at(&self) -> Option<Moment> {
        (**self).halt_at()
    }

    fn halt(&mut self, at: Moment, halted: &mut dyn Halted) -> ControlFlow<()> {
        (**self).halt(at, halted)
    }

    fn sample(&mut self, sample: &Sample) {
        (**self).sample(sample);
    }
}
