//! What a run's chain is like, and what goes wrong with it.
//!
//! Owns: block time, confirmations, delays, the vaults' terms, and the faults by time.
//! Must not: hold state of a run.

use std::time::Duration;

use cocoon_protocol::units::{NanoTon, Timestamp};
use simnet_scenario::draw::wait;
use simnet_scenario::quantity::Span;
use simnet_scenario::{Moment, Scenario, Seed};

use crate::host::Clock;

/// Reorganisations of one run: far more than any experiment has, and a bound on memory.
const REORGANISATIONS: usize = 10_000;

/// The chain's time at a moment of the run: that of a host whose clock is right.
pub fn chain_time(at: Moment) -> Timestamp {
    Clock::new(0).timestamp(at)
}

/// A stretch of the run, its end not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When it begins.
    pub from: Moment,
    /// When it is over.
    pub until: Moment,
}

impl Window {
    /// Whether this moment is in it.
    pub fn holds(self, at: Moment) -> bool {
        self.from <= at && at < self.until
    }
}

/// The servers that hosts reach the chain through do not answer; the chain itself goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When.
    pub window: Window,
    /// How many hosts of a thousand are cut off. The same ones for the whole window.
    pub hosts_per_thousand: u16,
}

/// A number of blocks that counts while the window lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowness {
    /// When.
    pub window: Window,
    /// How many blocks.
    pub blocks: u32,
}

/// The newest blocks never were: what was in them comes into later ones, in another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reorganisation {
    /// When.
    pub at: Moment,
    /// How many blocks. Up to [`LedgerTerms::confirmations`] nobody has been answered from them;
    /// more of them break what hosts were told, which a finalised chain never does.
    pub depth: u32,
}

/// What goes wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerFaults {
    /// Hosts that cannot reach the chain.
    pub outages: Vec<Outage>,
    /// Reads that are further behind than usual.
    pub lags: Vec<Slowness>,
    /// Messages that wait up to so many blocks more than usual.
    pub delays: Vec<Slowness>,
    /// Blocks that are undone.
    pub reorganisations: Vec<Reorganisation>,
}

/// The chain and its vaults. Defaults are those of TON's main network in 2026 and of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerTerms {
    /// Between two blocks. TON: 0.4 s since 2026.
    pub block_time: Duration,
    /// Blocks on top of one before anybody is told of it. With blocks of 0.4 s a message is final
    /// about a second after it is sent.
    pub confirmations: u32,
    /// Blocks that a message waits at most before it is in one; drawn evenly from zero up.
    pub inclusion: u32,
    /// From a host's question to the server's answer.
    pub round_trip: Duration,
    /// Between two looks at the chain while a host waits for a message of its own.
    pub pause: Duration,
    /// How long an order to a vault stays valid.
    pub validity: Duration,
    /// How long a host waits for a message of its own, and then does not know.
    pub patience: Duration,
    /// How long a host waits for a server that does not answer.
    pub timeout: Duration,
    /// How long a provider may settle after its consumer asked for the money back; also the least
    /// that a provider accepts.
    pub release_delay: Duration,
    /// The network's fee in vaults, in hundredths of a percent. The node refuses any but zero.
    pub fee_basis_points: u16,
    /// What the faucet puts in a consumer's wallet beyond its deposit, unless the scenario has
    /// funded it: [`super::gas::TRANSFER_RESERVE`] is what the node wants to see there.
    pub pocket_money: NanoTon,
    /// What goes wrong.
    pub faults: LedgerFaults,
}

impl Default for LedgerTerms {
    fn default() -> Self {
        Self {
            block_time: Duration::from_millis(400),
            confirmations: 2,
            inclusion: 1,
            round_trip: Duration::from_millis(100),
            pause: Duration::from_millis(500),
            validity: Duration::from_secs(60),
            patience: Duration::from_secs(120),
            timeout: Duration::from_secs(10),
            release_delay: Duration::from_secs(6 * 3_600),
            fee_basis_points: 0,
            pocket_money: super::gas::TRANSFER_RESERVE,
            faults: LedgerFaults::default(),
        }
    }
}

impl LedgerTerms {
    /// Those of a scenario. When the chain reorganises is drawn from the seed.
    pub fn of(scenario: &Scenario, seed: Seed) -> Self {
        let ledger = &scenario.ledger;
        let moment = |it: Span| Moment::START.after(it.duration());
        let outages = ledger.outages.iter().map(|it| Outage {
            window: Window { from: moment(it.from), until: moment(it.until) },
            hosts_per_thousand: u16::try_from(it.hosts.of(1_000)).unwrap_or(1_000),
        });
        let blocks = ledger.block_time.as_secs_f64().max(1e-9);
        let end = moment(scenario.duration);
        let mut draws = seed.stream("reorganisations", 0);
        let mut at = Moment::START;
        let reorganisations = std::iter::from_fn(|| {
            at = at.after(wait(&mut draws, ledger.reorg.fraction() / blocks));
            (at < end).then_some(Reorganisation { at, depth: ledger.reorg_depth })
        });
        Self {
            block_time: ledger.block_time.duration(),
            confirmations: ledger.confirmations,
            release_delay: ledger.release_delay.duration(),
            faults: LedgerFaults {
                outages: outages.collect(),
                reorganisations: reorganisations.take(REORGANISATIONS).collect(),
                ..LedgerFaults::default()
            },
            ..Self::default()
        }
    }

    /// The newest block's number at a moment. Block 0 is the start of the run.
    pub(super) fn height(&self, at: Moment) -> u64 {
        let length = u64::try_from(self.block_time.as_nanos()).unwrap_or(u64::MAX).max(1);
        at.as_nanos() / length
    }

    /// When a block is made.
    pub(super) fn made(&self, height: u64) -> Moment {
        let length = u64::try_from(self.block_time.as_nanos()).unwrap_or(u64::MAX).max(1);
        Moment::from_nanos(height.saturating_mul(length))
    }

    /// The newest block that hosts are shown at a moment; nothing younger can be undone unless a
    /// reorganisation is deeper than the confirmations.
    pub(super) fn shown(&self, at: Moment) -> u64 {
        let lag = greatest(&self.faults.lags, at);
        let behind = u64::from(self.confirmations).saturating_add(u64::from(lag));
        self.height(at).saturating_sub(behind)
    }

    /// Blocks that a message waits at most when it is sent now.
    pub(super) fn longest_wait(&self, at: Moment) -> u32 {
        self.inclusion.saturating_add(greatest(&self.faults.delays, at))
    }

    /// How many blocks may still be looked back to or undone.
    pub(super) fn horizon(&self) -> u64 {
        let lag = self.faults.lags.iter().map(|lag| lag.blocks).max().unwrap_or(0);
        let depths = self.faults.reorganisations.iter().map(|it| it.depth);
        let depth = depths.max().unwrap_or(0);
        u64::from(self.confirmations.saturating_add(lag).max(depth)).saturating_add(1)
    }
}

fn greatest(all: &[Slowness], at: Moment) -> u32 {
    all.iter().filter(|it| it.window.holds(at)).map(|it| it.blocks).max().unwrap_or(0)
}
