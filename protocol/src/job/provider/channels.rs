//! A provider's channels: what the ledger shows, what vouchers bring, and when they are redeemed.
//!
//! Owns: the way from a voucher to an engine's grant. Must not: admit a job or write a receipt.

use super::{Peer, Provider, Stage};
use crate::channel::{ChannelId, JobTotal, Payee, SignedVoucher, VerifiedVoucher, VoucherBlame};
use crate::identity::{JobId, NodeId, TonAddress};
use crate::input::VaultSnapshot;
use crate::job::meter;
use crate::offer::Load;
use crate::output::{Effect, EngineCommand, LedgerCommand, Output};
use crate::record::Record;
use crate::units::{NanoTon, Timestamp};
use crate::wire::SessionMessage;

impl Provider {
    /// A consumer named its vault: the ledger is asked about it.
    pub fn channel_hello(&mut self, peer: NodeId, vault: TonAddress, out: &mut Output) {
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        if std::mem::replace(&mut known.reading, true) {
            return;
        }
        known.vault = Some(vault);
        out.effects.push(Effect::Ledger(LedgerCommand::ReadVault { vault }));
    }

    /// The ledger's answer: every consumer that waits for it learns what we see and hold.
    pub fn vault_read(
        &mut self,
        vault: TonAddress,
        snapshot: Result<Option<VaultSnapshot>, String>,
        out: &mut Output,
    ) {
        let seen = match &snapshot {
            Ok(Some(snapshot)) => self.observe(vault, snapshot, out),
            Ok(None) | Err(_) => false,
        };
        let waiting = |peer: &Peer| peer.reading && peer.vault == Some(vault);
        for (peer, known) in self.peers.iter_mut().filter(|(_, known)| waiting(known)) {
            known.reading = false;
            let payee = self.channels.get(&vault).filter(|_| seen);
            if let Some(payee) = payee {
                let (peer, key) = (*peer, *payee.vault_key());
                out.effects.push(Effect::TrustVault { peer, key });
            }
            let message = SessionMessage::ChannelState {
                allocation: payee.map(|payee| (payee.channel().epoch, payee.allocation().limit)),
                settled: payee.map_or(NanoTon::ZERO, |payee| payee.allocation().paid),
                latest: payee.and_then(|payee| payee.best().copied()),
            };
            out.effects.push(Effect::Send { peer: *peer, message });
        }
        self.settle_if_due(vault, out);
    }

    /// Takes over what the ledger shows. False when it holds no usable allocation for us.
    pub(super) fn observe(
        &mut self,
        vault: TonAddress,
        snapshot: &VaultSnapshot,
        out: &mut Output,
    ) -> bool {
        let Some(allocation) = snapshot.allocation else {
            return false;
        };
        let channel = ChannelId { vault, provider: self.config.key.id(), epoch: allocation.epoch };
        let known = self.channels.get_mut(&vault).filter(|known| known.channel() == channel);
        let state = if let Some(payee) = known {
            payee.observe(allocation).ok().cloned()
        } else {
            let payee = Payee::new(channel, allocation, snapshot.key, self.config.payout);
            payee.ok().map(|payee| {
                let state = payee.state().clone();
                self.channels.insert(vault, payee);
                state
            })
        };
        let usable = state.is_some();
        out.persist.extend(state.map(Record::Payee));
        usable
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
                    self.credited((peer, job), accepted.job_paid, now, out);
                }
                self.settle_if_due(vault, out);
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
            }
            Stage::Closing { price, .. } if paid >= *price => self.end(key, out),
            Stage::Closing { .. } => {}
        }
    }

    pub(super) fn settle_if_due(&mut self, vault: TonAddress, out: &mut Output) {
        let threshold = match self.load {
            Load::Draining => NanoTon::ZERO,
            Load::Idle | Load::Busy | Load::Full => self.config.settle_threshold,
        };
        let due = self.channels.get(&vault).filter(|payee| payee.should_settle(threshold));
        if let Some(voucher) = due.and_then(|payee| payee.best().copied()) {
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
            .filter_map(|payee| payee.best().map(|best| (payee.channel().vault, *best)))
            .collect();
        for (vault, voucher) in due {
            self.settle(vault, voucher, out);
        }
    }

    /// A settlement is on the ledger.
    pub fn settled(&mut self, voucher: &SignedVoucher, paid: NanoTon, out: &mut Output) {
        let vault = voucher.voucher.vault;
        self.settling.remove(&vault);
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
    }
}
