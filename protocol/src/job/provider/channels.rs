//! A provider's channels: what the ledger shows, what vouchers bring, and when they are redeemed.
//!
//! Owns: the way from a voucher to an engine's grant. Must not: admit a job or write a receipt.

use std::collections::BTreeSet;

use super::{Provider, Stage, cancel, refuse, tolerated_debt};
use crate::channel::{
    Allocation, ChannelId, HolderClaim, JobTotal, Payee, SignedVoucher, VerifiedVoucher,
    VoucherBlame, VoucherError,
};
use crate::flat::Rest as _;
use crate::identity::{JobId, NodeId, TonAddress};
use crate::input::VaultSnapshot;
use crate::job::{FinishReason, ProviderRefusal, meter};
use crate::limits;
use crate::offer::Load;
use crate::output::{Effect, EngineCommand, LedgerCommand, Output};
use crate::record::{Posting, Purpose, Record};
use crate::units::{NanoTon, Timestamp};
use crate::wire::SessionMessage;

impl Provider {
    /// A consumer named its vault: the ledger is asked about it.
    pub fn channel_hello(
        &mut self,
        peer: NodeId,
        vault: TonAddress,
        proof: [u8; 64],
        now: Timestamp,
        out: &mut Output,
    ) {
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        if known.asked.is_some() {
            return;
        }
        let (since, counted) = known.greetings;
        let (since, counted) =
            if since.after(limits::GREETING_WINDOW) > now { (since, counted) } else { (now, 0) };
        if counted >= limits::GREETINGS {
            // Whoever greets without end costs a signature's check, not a read of the ledger.
            let usable = |payee: &&Payee| payee.release_at().is_none();
            let seen = self.channels.get(&vault).is_some_and(|it| usable(&&**it));
            self.answer_greeting(peer, vault, &proof, seen, out);
            return;
        }
        known.greetings = (since, counted.saturating_add(1));
        known.asked = Some(Box::new((vault, proof)));
        self.asking.insert((vault, peer));
        out.effects.push(Effect::Ledger(LedgerCommand::ReadVault { vault }));
    }

    /// Tells a consumer what we see and hold, if it proves to hold the vault. A stranger to it
    /// learns nothing.
    fn answer_greeting(
        &mut self,
        peer: NodeId,
        vault: TonAddress,
        proof: &[u8; 64],
        seen: bool,
        out: &mut Output,
    ) {
        let claim = HolderClaim { vault, provider: self.config.key.id(), consumer: peer };
        let payee = self.channels.get(&vault).filter(|_| seen);
        let payee = payee.filter(|payee| claim.is_proved(payee.vault_key(), proof));
        if let (Some(payee), Some(known)) = (payee, self.peers.get_mut(&peer)) {
            known.vault = Some(vault);
            let key = *payee.vault_key();
            out.effects.push(Effect::TrustVault { peer, key });
        }
        let message = SessionMessage::ChannelState {
            allocation: payee.map(|payee| (payee.channel().epoch, payee.allocation().limit)),
            settled: payee.map_or(NanoTon::ZERO, |payee| payee.allocation().paid),
            latest: payee.and_then(|payee| payee.best()),
            owed: payee.map_or(NanoTon::ZERO, |payee| self.to_repay(payee)),
        };
        out.effects.push(Effect::Send { peer, message });
    }

    /// What the holder of a channel has to repay before it is served again. Nothing while it is
    /// tolerated: text that was under way when a session broke is this side's loss, as what was
    /// promised and not served is the other's.
    fn to_repay(&self, payee: &Payee) -> NanoTon {
        let newest = self.offers.last_key_value();
        let prices = newest.iter().flat_map(|(_, models)| models.iter()).map(|it| it.prices);
        let tolerated = prices.map(|prices| tolerated_debt(prices, payee)).min();
        let owed = payee.owed();
        if tolerated.is_some_and(|tolerated| owed > tolerated) { owed } else { NanoTon::ZERO }
    }

    /// The ledger's answer: every consumer that waits for it, and proves to hold the vault, learns
    /// what we see and hold. A stranger to the vault learns nothing.
    pub fn vault_read(
        &mut self,
        vault: TonAddress,
        snapshot: Result<Option<VaultSnapshot>, String>,
        out: &mut Output,
    ) {
        self.rereading.remove(&vault);
        self.rereading.rest();
        let seen = match &snapshot {
            Ok(Some(snapshot)) => self.observe(vault, snapshot, out),
            Ok(None) => self.gone(vault, out),
            Err(_) => false,
        };
        let first = (vault, NodeId::from_bytes([0; 32]));
        let last = (vault, NodeId::from_bytes([0xff; 32]));
        let asking: Vec<_> = self.asking.range(first..=last).map(|(_, peer)| *peer).collect();
        for peer in asking {
            self.asking.remove(&(vault, peer));
            self.asking.rest();
            let known = self.peers.get_mut(&peer);
            if let Some(asked) = known.and_then(|known| known.asked.take()) {
                self.answer_greeting(peer, vault, &asked.1, seen, out);
            }
        }
        if seen {
            self.settle_if_due(vault, out);
        }
    }

    /// Takes over what the ledger shows. False when it holds no usable allocation for us.
    pub(super) fn observe(
        &mut self,
        vault: TonAddress,
        snapshot: &VaultSnapshot,
        out: &mut Output,
    ) -> bool {
        let Some(allocation) = snapshot.allocation else {
            return self.gone(vault, out);
        };
        let channel = ChannelId { vault, provider: self.config.key.id(), epoch: allocation.epoch };
        match self.channels.get(&vault).map(|known| known.channel().epoch) {
            // A server that is behind. What is known is newer.
            Some(epoch) if epoch > allocation.epoch => return false,
            // The old allocation is gone, and with it whatever its jobs could still be paid from.
            Some(epoch) if epoch < allocation.epoch => self.end_jobs(vault, out),
            Some(_) | None => {}
        }
        let known = self.channels.get_mut(&vault).filter(|known| known.channel() == channel);
        let state = if let Some(payee) = known {
            payee.observe(allocation).ok().cloned()
        } else {
            let payee = Payee::new(channel, allocation, snapshot.key, self.config.payout);
            payee.ok().map(|payee| {
                let state = payee.state().clone();
                let paid = payee.credited();
                if paid > NanoTon::ZERO {
                    // The ledger has paid for jobs that this store knows nothing of.
                    let when = (Purpose::Forgotten, Timestamp::EPOCH);
                    let whom = (channel, NodeId::from_bytes(*snapshot.key.as_bytes()));
                    let posting = Posting::other(when, whom, true, (paid, paid));
                    out.persist.push(Record::Posting(posting));
                }
                self.channels.insert(vault, Box::new(payee));
                state
            })
        };
        let usable = state.is_some();
        out.persist.extend(state.map(Record::Payee));
        if self.channels.get(&vault).is_some_and(|payee| payee.release_at().is_some()) {
            self.stop_jobs(vault, out);
        }
        usable
    }

    /// The ledger shows no allocation where there was one: vouchers are worth nothing until it
    /// does again. Always false, as [`Provider::observe`] has it.
    fn gone(&mut self, vault: TonAddress, out: &mut Output) -> bool {
        if let Some(payee) = self.channels.get_mut(&vault) {
            let unlocked = Some(Timestamp::EPOCH);
            let allocation = Allocation { unlock_at: unlocked, ..*payee.allocation() };
            // The same epoch and payout, so it is taken. Not stored: a server may only be behind.
            let _taken = payee.observe(allocation);
            self.stop_jobs(vault, out);
        }
        false
    }

    /// Stops the jobs that this vault pays: what they are promised from now on may come too late.
    fn stop_jobs(&mut self, vault: TonAddress, out: &mut Output) {
        for key in self.jobs_paid_by(vault) {
            let (peer, job) = key;
            match self.jobs.get(&key).map(|serving| &serving.stage) {
                Some(Stage::Admitting | Stage::Running { granted: None, .. }) => {
                    let (headroom, needed) = (NanoTon::ZERO, NanoTon::ZERO);
                    refuse(peer, job, ProviderRefusal::NoHeadroom { headroom, needed }, out);
                    self.end(key, out);
                }
                Some(Stage::Running { .. }) => cancel(peer, job, FinishReason::Unpaid, out),
                Some(Stage::Closing { .. }) | None => {}
            }
        }
    }

    fn end_jobs(&mut self, vault: TonAddress, out: &mut Output) {
        for key in self.jobs_paid_by(vault) {
            self.end(key, out);
        }
    }

    fn jobs_paid_by(&self, vault: TonAddress) -> Vec<(NodeId, JobId)> {
        if !self.pays_jobs(vault) {
            return Vec::new();
        }
        let theirs = self.jobs.iter().filter(|(_, serving)| serving.vault == vault);
        theirs.map(|(key, _)| *key).collect()
    }

    /// Whether any job is paid by this vault: each is open in the vault's channel until it ends.
    fn pays_jobs(&self, vault: TonAddress) -> bool {
        self.channels.get(&vault).is_some_and(|payee| payee.jobs() > 0)
    }

    /// Looks on the ledger at every channel in which something is due or whose consumer is here: it
    /// may have been released since it was read, and the view that jobs are admitted by is old.
    pub(super) fn look_after_channels(&self, out: &mut Output) {
        let here: BTreeSet<_> = self.peers.values().filter_map(|known| known.vault).collect();
        for (vault, payee) in &self.channels {
            if payee.unsettled() > NanoTon::ZERO || here.contains(vault) {
                out.effects.push(Effect::Ledger(LedgerCommand::ReadVault { vault: *vault }));
            }
        }
    }

    /// A voucher came; its signature holds.
    pub fn paid(
        &mut self,
        peer: NodeId,
        total: Option<JobTotal>,
        voucher: &VerifiedVoucher,
        now: Timestamp,
        out: &mut Output,
    ) {
        let Some(vault) = self.peers.get(&peer).and_then(|known| known.vault) else {
            return;
        };
        let Some(payee) = self.channels.get_mut(&vault) else {
            return;
        };
        match payee.accept(total, voucher) {
            Ok(accepted) => {
                out.persist.push(Record::Payee(accepted.record));
                if let Some(JobTotal { job, .. }) = total {
                    self.post((peer, job), Some(accepted.job_paid), out);
                    self.credited((peer, job), accepted.job_paid, now, out);
                }
                self.settle_if_due(vault, out);
            }
            Err(VoucherError::WrongEpoch { found, expected }) if found > expected => {
                // The consumer may be ahead of the ledger that is read here.
                if self.rereading.insert(vault) {
                    out.effects.push(Effect::Ledger(LedgerCommand::ReadVault { vault }));
                }
            }
            Err(error) => match error.blame() {
                VoucherBlame::Nobody => {}
                VoucherBlame::Peer => {
                    let job = total.map(|total| total.job);
                    let message = SessionMessage::PaymentRefused { job, reason: error.to_string() };
                    out.effects.push(Effect::Send { peer, message });
                    out.effects.push(Effect::CloseSession { peer });
                }
            },
        }
    }

    pub(super) fn credited(
        &mut self,
        key: (NodeId, JobId),
        paid: NanoTon,
        now: Timestamp,
        out: &mut Output,
    ) {
        let Some(serving) = self.jobs.get_mut(&key) else {
            return;
        };
        match &mut serving.stage {
            Stage::Admitting => {}
            Stage::Running { prompt, granted, since, .. } => {
                let Some(total) = meter::credit(serving.prices, *prompt, paid) else {
                    return;
                };
                let total = total.min(serving.request.max_completion);
                *since = now;
                if granted.is_none_or(|before| before < total) {
                    *granted = Some(total);
                    let (peer, job) = key;
                    out.effects.push(Effect::Engine(EngineCommand::Grant { peer, job, total }));
                }
                self.plan(key);
            }
            Stage::Closing { price, .. } if paid >= *price => self.end(key, out),
            Stage::Closing { .. } => {}
        }
    }

    pub(super) fn settle_if_due(&mut self, vault: TonAddress, out: &mut Output) {
        // Before the end everything is settled, but once: what is left by an early settlement may be
        // too little for another.
        let threshold = match self.load {
            Load::Draining if !self.pays_jobs(vault) => NanoTon::ZERO,
            Load::Draining | Load::Idle | Load::Busy | Load::Full => self.config.settle_threshold,
        };
        let due = self.channels.get(&vault).filter(|payee| payee.should_settle(threshold));
        if let Some(voucher) = due.and_then(|payee| payee.best()) {
            self.settle(vault, voucher, out);
        }
    }

    pub(super) fn settle(&mut self, vault: TonAddress, voucher: SignedVoucher, out: &mut Output) {
        if self.settling.insert(vault) {
            out.effects.push(Effect::Ledger(LedgerCommand::Settle { voucher }));
        }
    }

    /// Redeems every voucher that is worth anything.
    pub fn settle_all(&mut self, out: &mut Output) {
        let due: Vec<_> = self
            .channels
            .values()
            .filter(|payee| payee.unsettled() > NanoTon::ZERO)
            .filter_map(|payee| payee.best().map(|best| (payee.channel().vault, best)))
            .collect();
        for (vault, voucher) in due {
            self.settle(vault, voucher, out);
        }
    }

    /// A settlement is on the ledger.
    pub fn settled(&mut self, voucher: &SignedVoucher, paid: NanoTon, out: &mut Output) {
        let vault = voucher.voucher.vault;
        self.settling.remove(&vault);
        self.settling.rest();
        let Some(payee) = self.channels.get_mut(&vault) else {
            return;
        };
        let mut allocation = *payee.allocation();
        allocation.paid = allocation.paid.max(paid);
        if let Ok(state) = payee.observe(allocation) {
            out.persist.push(Record::Payee(state.clone()));
        }
        self.settle_if_due(vault, out);
    }

    /// A settlement did not come about; the next voucher or look at the ledger tries again.
    pub fn settle_failed(&mut self, voucher: &SignedVoucher) {
        self.settling.remove(&voucher.voucher.vault);
        self.settling.rest();
    }
}
