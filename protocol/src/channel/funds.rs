//! The consumer's money: its vault, and one payer for each provider that it has an allocation for.
//!
//! Owns: when a vault is opened, an allocation made or grown, and a provider told about it.
//! Must not: reach the ledger or a session; it says what to do and waits for the answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::channel::{
    Allocation, ChannelId, HolderClaim, Payer, PayerState, VaultKey, VaultPublicKey,
};
use crate::identity::{NodeId, TonAddress};
use crate::input::{ChannelView, LedgerFailure};
use crate::output::{Effect, LedgerCommand, Output};
use crate::record::Record;
use crate::units::{Millis, NanoTon, Timestamp};
use crate::wire::SessionMessage;

/// A provider whose ledger is behind is asked again after this time, this many times.
const GREETING_RETRY: Millis = Millis::new(500);
/// Ten seconds in all: a ledger read over HTTP is at most some blocks behind.
const GREETING_TRIES: u32 = 20;

/// What an operator decides about a consumer's money.
#[derive(Clone, Copy, Debug)]
pub struct FundsConfig {
    /// Whose money it is: providers are shown that this node holds the vault.
    pub consumer: NodeId,
    /// Deposited when the vault is opened.
    pub deposit: NanoTon,
    /// Allocated to a provider at a time.
    pub allocation: NanoTon,
}

/// Whether a channel can take a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// Something is under way; ask again when an input came.
    Waiting,
    /// It cannot.
    Failed(LedgerFailure),
    /// The provider does not see the allocation, although it is on the ledger.
    Unseen,
}

#[derive(Debug)]
enum Vault {
    /// Not asked yet, or the last attempt failed.
    Unknown,
    /// Asked for.
    Opening,
    /// It exists, and this much is free.
    Open { address: TonAddress, free: NanoTon },
}

/// How far a provider knows what the channel can pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    /// It was told nothing in this session.
    None,
    /// It was asked; `tries` times so far.
    Asked { tries: u32 },
    /// Its ledger is behind; it is asked again at this time.
    Retry { at: Timestamp, tries: u32 },
    /// It sees this limit.
    Seen { limit: NanoTon },
    /// It still does not see the allocation.
    Unseen,
}

#[derive(Debug)]
struct Funded {
    payer: Payer,
    greeting: Greeting,
}

/// The consumer's vault and channels.
#[derive(Debug)]
pub struct Funds {
    config: FundsConfig,
    key: Arc<VaultKey>,
    vault: Vault,
    channels: BTreeMap<NodeId, Funded>,
    /// What the store remembered, until the ledger says which of it still holds.
    restored: BTreeMap<ChannelId, PayerState>,
    /// The provider that an allocation is being made for: one at a time, by the vault's seqno.
    allocating: Option<NodeId>,
}

impl Funds {
    /// Continues with what the store remembered.
    pub fn new(config: FundsConfig, key: Arc<VaultKey>, restored: Vec<PayerState>) -> Self {
        let restored = restored.into_iter().map(|state| (state.channel(), state)).collect();
        Self {
            config,
            key,
            vault: Vault::Unknown,
            channels: BTreeMap::new(),
            restored,
            allocating: None,
        }
    }

    /// Sees to it that `provider` can be paid `needed` more, as far as that is possible now.
    pub fn prepare(
        &mut self,
        provider: NodeId,
        payout: TonAddress,
        needed: NanoTon,
        out: &mut Output,
    ) -> Readiness {
        let free = match self.vault {
            Vault::Unknown => {
                self.vault = Vault::Opening;
                let deposit = self.config.deposit;
                out.effects.push(Effect::Ledger(LedgerCommand::OpenVault { deposit }));
                return Readiness::Waiting;
            }
            Vault::Opening => return Readiness::Waiting,
            Vault::Open { free, .. } => free,
        };
        let room = self.channels.get(&provider).map(|funded| funded.payer.headroom());
        match room {
            Some(room) if room >= needed => self.greet(provider, out),
            known => {
                let missing = needed.saturating_sub(known.unwrap_or(NanoTon::ZERO));
                self.allocate(provider, payout, missing, free, out)
            }
        }
    }

    fn greet(&mut self, provider: NodeId, out: &mut Output) -> Readiness {
        let (Vault::Open { address, .. }, Some(funded)) =
            (&self.vault, self.channels.get_mut(&provider))
        else {
            return Readiness::Waiting;
        };
        match funded.greeting {
            Greeting::Seen { limit } if limit >= funded.payer.limit() => Readiness::Ready,
            Greeting::Unseen => {
                // The next job starts afresh; this one goes elsewhere.
                funded.greeting = Greeting::None;
                Readiness::Unseen
            }
            Greeting::None | Greeting::Seen { .. } => {
                funded.greeting = Greeting::Asked { tries: 1 };
                let message = hello(&self.key, *address, provider, self.config.consumer);
                out.effects.push(Effect::Send { peer: provider, message });
                Readiness::Waiting
            }
            Greeting::Asked { .. } | Greeting::Retry { .. } => Readiness::Waiting,
        }
    }

    fn allocate(
        &mut self,
        provider: NodeId,
        payout: TonAddress,
        missing: NanoTon,
        free: NanoTon,
        out: &mut Output,
    ) -> Readiness {
        if self.allocating.is_some() {
            return Readiness::Waiting;
        }
        if free < missing || free == NanoTon::ZERO {
            let (needed, available) = (missing, free);
            return Readiness::Failed(LedgerFailure::NoFunds { needed, available });
        }
        let amount = self.config.allocation.max(missing).min(free);
        self.allocating = Some(provider);
        let command = LedgerCommand::Allocate { provider, payout, amount };
        out.effects.push(Effect::Ledger(command));
        Readiness::Waiting
    }

    /// Makes the allocation larger in the background when under 30 % of it is left, so that a
    /// stream never waits for a block.
    pub fn grow_if_low(&mut self, provider: NodeId, payout: TonAddress, out: &mut Output) {
        let Vault::Open { free, .. } = self.vault else {
            return;
        };
        let Some(funded) = self.channels.get(&provider) else {
            return;
        };
        let low = funded.payer.limit().checked_fraction(30, 100).unwrap_or(NanoTon::ZERO);
        if funded.payer.headroom() < low && free >= self.config.allocation {
            // A refusal only means that it is not grown now.
            let _not_now = self.allocate(provider, payout, NanoTon::ZERO, free, out);
        }
    }

    /// The vault exists. Channels that the store remembers continue where they were.
    pub fn vault_ready(
        &mut self,
        address: TonAddress,
        free: NanoTon,
        allocations: Vec<(NodeId, Allocation)>,
        out: &mut Output,
    ) {
        self.vault = Vault::Open { address, free };
        for (provider, allocation) in allocations {
            self.take_allocation(provider, address, &allocation, out);
        }
    }

    /// An allocation is on the ledger, and this much is left to allocate.
    pub fn allocated(
        &mut self,
        provider: NodeId,
        allocation: &Allocation,
        left: NanoTon,
        out: &mut Output,
    ) {
        self.allocating = None;
        let Vault::Open { address, ref mut free } = self.vault else {
            return;
        };
        *free = left;
        self.take_allocation(provider, address, allocation, out);
    }

    fn take_allocation(
        &mut self,
        provider: NodeId,
        vault: TonAddress,
        allocation: &Allocation,
        out: &mut Output,
    ) {
        let channel = ChannelId { vault, provider, epoch: allocation.epoch };
        let known = self.channels.get_mut(&provider).filter(|f| f.payer.channel() == channel);
        let state = if let Some(funded) = known {
            funded.payer.observe(allocation).clone()
        } else {
            let mut payer = match self.restored.remove(&channel) {
                Some(state) => Payer::restore(state, Arc::clone(&self.key)),
                None => Payer::new(channel, allocation, Arc::clone(&self.key)),
            };
            let state = payer.observe(allocation).clone();
            self.channels.insert(provider, Funded { payer, greeting: Greeting::None });
            state
        };
        out.persist.push(Record::Payer(state));
    }

    /// A release was asked for on the ledger: nothing new is promised in this channel.
    pub fn released(&mut self, provider: NodeId, out: &mut Output) {
        if let Some(funded) = self.channels.get_mut(&provider) {
            out.persist.push(Record::Payer(funded.payer.release().clone()));
        }
    }

    /// The vault could not be opened; the next job tries again.
    pub fn vault_failed(&mut self) {
        self.vault = Vault::Unknown;
    }

    /// An allocation did not come about; the next job tries again.
    pub const fn allocation_failed(&mut self) {
        self.allocating = None;
    }

    /// The session with a provider is over: it has to be greeted again.
    pub fn session_closed(&mut self, provider: NodeId) {
        if let Some(funded) = self.channels.get_mut(&provider) {
            funded.greeting = Greeting::None;
        }
    }

    /// A provider told what it sees and holds.
    pub fn channel_state(
        &mut self,
        provider: NodeId,
        view: &ChannelView,
        now: Timestamp,
        out: &mut Output,
    ) {
        let Some(funded) = self.channels.get_mut(&provider) else {
            return;
        };
        let Greeting::Asked { tries } = funded.greeting else {
            return;
        };
        let epoch = funded.payer.channel().epoch;
        let limit = view.allocation.filter(|(seen, _)| *seen == epoch).map(|(_, limit)| limit);
        funded.greeting = match limit {
            Some(limit) if limit >= funded.payer.limit() => Greeting::Seen { limit },
            Some(_) | None if tries < GREETING_TRIES => {
                Greeting::Retry { at: now.after(GREETING_RETRY), tries }
            }
            Some(_) | None => Greeting::Unseen,
        };
        if let Some(latest) = &view.latest
            && funded.payer.catch_up(latest).is_ok()
        {
            out.persist.push(Record::Payer(funded.payer.state().clone()));
        }
        let held = view.latest.as_ref().map(|held| held.voucher().cumulative);
        if held < Some(funded.payer.cumulative())
            && let Some(voucher) = funded.payer.latest_voucher()
        {
            let message = SessionMessage::Payment { voucher, total: None };
            out.effects.push(Effect::Send { peer: provider, message });
        }
    }

    /// Asks providers again whose time has come.
    pub fn handle_timeout(&mut self, now: Timestamp, out: &mut Output) {
        let Vault::Open { address, .. } = self.vault else {
            return;
        };
        for (provider, funded) in &mut self.channels {
            if let Greeting::Retry { at, tries } = funded.greeting
                && at <= now
            {
                funded.greeting = Greeting::Asked { tries: tries.saturating_add(1) };
                let message = hello(&self.key, address, *provider, self.config.consumer);
                out.effects.push(Effect::Send { peer: *provider, message });
            }
        }
    }

    /// When `handle_timeout` has something to do.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let times = self.channels.values().filter_map(|funded| match funded.greeting {
            Greeting::Retry { at, .. } => Some(at),
            Greeting::None | Greeting::Asked { .. } | Greeting::Seen { .. } | Greeting::Unseen => {
                None
            }
        });
        times.min()
    }

    /// The payer for a provider.
    pub fn payer(&mut self, provider: NodeId) -> Option<&mut Payer> {
        self.channels.get_mut(&provider).map(|funded| &mut funded.payer)
    }

    /// The vault's hot public key, against which our own vouchers verify.
    pub fn key(&self) -> VaultPublicKey {
        self.key.public()
    }

    /// The vault's address and what is free in it, once it is open.
    pub const fn vault(&self) -> Option<(TonAddress, NanoTon)> {
        match self.vault {
            Vault::Open { address, free } => Some((address, free)),
            Vault::Unknown | Vault::Opening => None,
        }
    }

    /// All channels, for displays.
    pub fn payers(&self) -> impl Iterator<Item = (&NodeId, &Payer)> {
        self.channels.iter().map(|(provider, funded)| (provider, &funded.payer))
    }
}

fn hello(key: &VaultKey, vault: TonAddress, provider: NodeId, consumer: NodeId) -> SessionMessage {
    let proof = HolderClaim { vault, provider, consumer }.prove(key);
    SessionMessage::ChannelHello { vault, proof }
}
