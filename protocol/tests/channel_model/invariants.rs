//! What must hold after every step, and what must come true once nothing fails any more.
//!
//! The theorem, per allocation and whatever is lost, repeated, reordered, killed or lied about:
//!
//! * provider: served ≤ credited + one step for each job that it opened;
//! * consumer: promised ≤ served + what it chose to pay ahead (the node pays nothing ahead) + one
//!   step for each job, and of that only what it repaid on the provider's word is for nothing.
//!
//! A step is 32 completion tokens at the job's own prices ([`cocoon_protocol::limits::CREDIT_STEP`]).
//! Jobs of one channel run at a time, up to 64, so that many steps can be at risk at once; the
//! provider admits no further job while running jobs and old debts come to more than 16 steps or a
//! sixteenth of what the channel has paid. In a fresh channel, where nothing was credited yet, that
//! leaves 16 steps. Before a job's prompt is paid nothing is served, and nothing is at risk.
//!
//! Owns: the judgement. Must not: change the world, but to heal it at the end.

use std::sync::Arc;

use cocoon_protocol::channel::settlement::{Command, Message};
use cocoon_protocol::channel::{Allocation, PayerState};
use cocoon_protocol::units::{NanoTon, Timestamp};
use proptest::prelude::*;

use super::action::Fault;
use super::channel::Channel;
use super::world::World;
use super::{AHEAD, CHANNELS, RELEASE_DELAY, STEP, TOKEN, nano};

impl World {
    pub(crate) fn invariants(&self) -> Result<(), TestCaseError> {
        let vault = &self.vault;
        prop_assert_eq!(
            self.deposited,
            vault.balance().as_nano() + self.sent + self.burned,
            "paid, refunded, burned and kept make up what was deposited"
        );
        let reserved: u64 = vault.allocations().map(|(_, a)| a.remainder().as_nano()).sum();
        prop_assert_eq!(reserved, vault.reserved().as_nano());
        prop_assert!(
            vault.balance().as_nano() >= reserved + vault.accrued().as_nano(),
            "every allocation and the fee are covered"
        );
        self.channels.iter().try_for_each(|channel| self.channel_invariants(channel))
    }

    fn channel_invariants(&self, channel: &Channel) -> Result<(), TestCaseError> {
        let allocation = self.vault.allocation(&channel.key.id());
        if let Some(payer) = &channel.payer {
            let state = PayerState::decode(&channel.payer_disk).expect("what was stored");
            let epoch = channel.epochs.get(&payer.channel().epoch).cloned().unwrap_or_default();
            prop_assert_eq!(
                state.cumulative().as_nano(),
                epoch.promised,
                "the durable amount is the sum over jobs"
            );
            prop_assert!(payer.cumulative() <= payer.limit());
            // The consumer's half of the theorem, also against a provider that lies about debts.
            let steps = epoch.opened * STEP * TOKEN;
            prop_assert!(
                epoch.repaid + state.may_owe().as_nano() <= steps,
                "what is repaid on a provider's word is at most one step a job"
            );
            prop_assert!(
                epoch.promised <= epoch.served * TOKEN + steps + epoch.opened * AHEAD * TOKEN,
                "promised is at most what was served, what was paid ahead, and one step a job"
            );
            prop_assert_eq!(payer.jobs(), channel.asked.len());
            let limit = allocation.map(|allocation| allocation.limit);
            prop_assert!(Some(payer.limit()) <= limit, "the chain covers every promise");
        }
        let Some(payee) = &channel.payee else {
            return Ok(());
        };
        let epoch = channel.epochs.get(&payee.channel().epoch).cloned().unwrap_or_default();
        let promised = payee.promised().as_nano();
        prop_assert!(promised <= epoch.left, "{promised} is held, {} left", epoch.left);
        prop_assert!(promised >= epoch.acknowledged, "an acknowledged voucher is lost");
        prop_assert!(payee.credited() <= payee.allocation().limit);
        prop_assert_eq!(payee.jobs(), channel.serving.len());
        let running: u64 = channel.serving.keys().map(|job| payee.paid(*job).as_nano()).sum();
        prop_assert!(running + payee.surplus().as_nano() <= payee.credited().as_nano());
        for (job, served) in &channel.serving {
            prop_assert!(served * TOKEN <= payee.paid(*job).as_nano() + STEP * TOKEN);
        }
        prop_assert!(
            epoch.served * TOKEN <= payee.credited().as_nano() + epoch.opened * STEP * TOKEN,
            "served is at most what is paid and one step a job"
        );
        Ok(())
    }

    /// Nothing is lost any more: both ends must come to agree, and all money to its owner.
    pub(crate) fn heal(&mut self) -> Result<(), TestCaseError> {
        for index in 0..CHANNELS {
            let key = Arc::clone(&self.key);
            self.channels[index].restart_consumer(&key);
            self.channels[index].restart_provider();
            let provider = self.channels[index].key.id();
            let Some(allocation) = self.vault.allocation(&provider).copied() else {
                continue;
            };
            self.channels[index].observe(&self.vault, &key);
            if self.reconnect(index)? {
                self.channels[index].deliver(0, Fault::None, &key)?;
            }
            let channel = &self.channels[index];
            let payer = channel.payer.as_ref().expect("an allocation has a payer");
            let payee = channel.payee.as_ref().expect("it was observed");
            prop_assert_eq!(payee.promised(), payer.cumulative(), "both ends agree");
            self.invariants()?;
            self.last_settlement(index, allocation)?;
        }
        self.contract(&Message::TopUp(nano(100))).expect("a transfer always arrives");
        self.order(Command::Close).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(self.vault.reserved(), NanoTon::ZERO);
        let kept = self.vault.balance().checked_sub(self.vault.accrued());
        prop_assert!(kept.is_some_and(|kept| kept < nano(10)), "the vault keeps its rent only");
        self.invariants()
    }

    fn last_settlement(&mut self, index: usize, before: Allocation) -> Result<(), TestCaseError> {
        let channel = &self.channels[index];
        let provider = channel.key.id();
        let payee = channel.payee.as_ref().expect("it was observed");
        let (owed, best) = (payee.credited(), payee.best());
        let in_time = !self.is_unlocked(index);
        if let (true, Some(best)) = (in_time, best) {
            self.settle(index, best, false)?;
            let paid = self.vault.allocation(&provider).map(|allocation| allocation.paid);
            prop_assert_eq!(paid, Some(owed), "the provider has all that it was promised");
        }
        self.contract(&Message::TopUp(nano(100))).expect("a transfer always arrives");
        if before.unlock_at.is_none() {
            prop_assert!(self.request_release(index));
        }
        self.now = Timestamp::from_unix_secs(self.now.as_unix_secs() + u64::from(RELEASE_DELAY));
        prop_assert!(self.finalize_release(index)?);
        Ok(())
    }
}
