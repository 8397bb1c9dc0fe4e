//! One channel as both nodes have it: two machines, two disks, and the mail between.
//!
//! Owns: persisting before speaking, and dying in between.
//! Must not: reach the contract but to read an allocation.

use std::collections::BTreeMap;
use std::sync::Arc;

use cocoon_protocol::channel::settlement::Vault;
use cocoon_protocol::channel::{
    ChannelId, JobTotal, Payee, PayeeState, Payer, PayerState, Payment, SignedVoucher, VaultKey,
    VoucherBlame,
};
use cocoon_protocol::identity::{JobId, NodeKey, TonAddress};
use proptest::prelude::*;

use super::action::Fault;
use super::{Outcome, STEP, TOKEN, address, nano};

/// What is known about one epoch of a channel from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// Highest amount in a voucher that left the consumer.
    pub(crate) left: u64,
    /// Durable promises, added up over jobs.
    pub(crate) promised: u64,
    /// How much of it was for debts of jobs that had broken off.
    pub(crate) repaid: u64,
    /// Highest amount that the provider acknowledged.
    pub(crate) acknowledged: u64,
    /// Served in all jobs.
    pub(crate) served: u64,
    /// Jobs that the provider opened.
    pub(crate) opened: u64,
}

/// A job as its consumer sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Most tokens that are paid.
    pub(crate) max: u64,
    /// Tokens that came.
    pub(crate) received: u64,
    /// Durably promised, in nanoTON.
    pub(crate) promised: u64,
}

/// One channel: its two ends with their disks, and what is on the way.
pub(crate) struct Channel {
    pub(crate) key: NodeKey,
    pub(crate) payout: TonAddress,
    pub(crate) payer: Option<Payer>,
    pub(crate) payer_disk: Vec<u8>,
    pub(crate) payee: Option<Payee>,
    pub(crate) payee_disk: Vec<u8>,
    pub(crate) mail: Vec<(SignedVoucher, Option<JobTotal>)>,
    /// Every voucher that ever left.
    pub(crate) vouchers: Vec<SignedVoucher>,
    pub(crate) asked: BTreeMap<JobId, Asked>,
    /// The provider's jobs: tokens served.
    pub(crate) serving: BTreeMap<JobId, u64>,
    pub(crate) epochs: BTreeMap<u32, Ledger>,
    /// Second from which the consumer may take the rest back: reckoned here, not by the contract.
    pub(crate) unlock: Option<u64>,
}

impl Channel {
    pub(crate) fn new(number: u8) -> Self {
        Self {
            key: NodeKey::from_secret(&[number; 32]),
            payout: address(0x80 | number),
            payer: None,
            payer_disk: vec![],
            payee: None,
            payee_disk: vec![],
            mail: vec![],
            vouchers: vec![],
            asked: BTreeMap::new(),
            serving: BTreeMap::new(),
            epochs: BTreeMap::new(),
            unlock: None,
        }
    }

    pub(crate) fn epoch(&mut self, epoch: u32) -> &mut Ledger {
        self.epochs.entry(epoch).or_default()
    }

    pub(crate) fn restart_consumer(&mut self, key: &Arc<VaultKey>) -> bool {
        self.asked.clear();
        if self.payer.is_some() {
            let state = PayerState::decode(&self.payer_disk).expect("what was stored");
            self.payer = Some(Payer::restore(state, Arc::clone(key)));
        }
        self.payer.is_some()
    }

    pub(crate) fn restart_provider(&mut self) -> bool {
        self.serving.clear();
        if self.payee.is_some() {
            let state = PayeeState::decode(&self.payee_disk).expect("what was stored");
            self.payee = Some(Payee::restore(state));
        }
        self.payee.is_some()
    }

    /// A voucher leaves the consumer. Whoever has it can use it from now on.
    pub(crate) fn send(
        &mut self,
        voucher: SignedVoucher,
        claim: Option<JobTotal>,
    ) -> Result<(), TestCaseError> {
        let (epoch, amount) = (voucher.voucher.epoch, voucher.voucher.cumulative.as_nano());
        let left = &mut self.epoch(epoch).left;
        prop_assert!(amount >= *left, "a voucher fell from {} to {amount}", *left);
        *left = amount;
        self.vouchers.push(voucher);
        self.mail.push((voucher, claim));
        Ok(())
    }

    /// Carries out a payment as the node must: persist, then speak; a fault stops it in between.
    pub(crate) fn carry_out(
        &mut self,
        payment: Payment,
        fault: Fault,
        key: &Arc<VaultKey>,
    ) -> Result<(), TestCaseError> {
        if fault == Fault::BeforePersist {
            self.restart_consumer(key);
            return Ok(());
        }
        self.payer_disk = payment.record.encode();
        let JobTotal { job, total } = payment.job;
        let new = match self.asked.get_mut(&job) {
            Some(asked) => {
                let before = std::mem::replace(&mut asked.promised, total.as_nano());
                total.as_nano() - before
            }
            None => return Err(TestCaseError::fail("paid for an unknown job")),
        };
        self.epoch(payment.record.channel().epoch).promised += new;
        if fault == Fault::AfterPersist {
            self.restart_consumer(key);
            return Ok(());
        }
        self.send(payment.voucher, Some(payment.job))
    }

    /// The consumer repays what the provider claims, as far as it believes it.
    pub(crate) fn repay(&mut self, lie: u64, fault: Fault, key: &Arc<VaultKey>) -> Outcome {
        let (Some(payer), Some(payee)) = (&mut self.payer, &self.payee) else {
            return Ok(false);
        };
        if payer.channel() != payee.channel() {
            return Ok(false);
        }
        let claimed = payee.owed().saturating_add(nano(lie));
        let Some(repayment) = payer.repay(claimed) else {
            return Ok(false);
        };
        prop_assert!(repayment.amount <= claimed);
        if fault == Fault::BeforePersist {
            return Ok(self.restart_consumer(key));
        }
        self.payer_disk = repayment.record.encode();
        let epoch = self.epoch(repayment.record.channel().epoch);
        epoch.promised += repayment.amount.as_nano();
        epoch.repaid += repayment.amount.as_nano();
        if fault == Fault::AfterPersist {
            return Ok(self.restart_consumer(key));
        }
        self.send(repayment.voucher, None).map(|()| true)
    }

    /// Brings one message to the provider.
    pub(crate) fn deliver(&mut self, index: usize, fault: Fault, key: &VaultKey) -> Outcome {
        if self.mail.is_empty() {
            return Ok(false);
        }
        let (voucher, claim) = self.mail.remove(index % self.mail.len());
        let Some(payee) = &mut self.payee else {
            return Ok(false);
        };
        let verified = voucher.verify(&key.public());
        let verified = verified.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let before = payee.credited();
        match payee.accept(claim, &verified) {
            Ok(accepted) => {
                let grown = payee.credited().checked_sub(before);
                prop_assert_eq!(grown, Some(accepted.credited));
                if fault == Fault::BeforePersist {
                    return Ok(self.restart_provider());
                }
                self.payee_disk = accepted.record.encode();
                let (epoch, promised) = (payee.channel().epoch, payee.promised().as_nano());
                let acknowledged = &mut self.epoch(epoch).acknowledged;
                *acknowledged = promised.max(*acknowledged);
                if fault == Fault::AfterPersist {
                    self.restart_provider();
                }
                Ok(true)
            }
            Err(error) => {
                prop_assert_eq!(error.blame(), VoucherBlame::Nobody, "{}", error);
                Ok(false)
            }
        }
    }

    /// The provider reads its allocation from the ledger.
    pub(crate) fn observe(&mut self, vault: &Vault, key: &VaultKey) -> bool {
        let Some(allocation) = vault.allocation(&self.key.id()).copied() else {
            // The allocation is over, and with it all jobs in it.
            self.serving.clear();
            return self.payee.take().is_some();
        };
        if let Some(payer) = &mut self.payer {
            self.payer_disk = payer.observe(&allocation).encode();
        }
        let known = self.payee.as_mut().map(|payee| payee.observe(allocation));
        if let Some(Ok(state)) = known {
            self.payee_disk = state.encode();
            return true;
        }
        let channel =
            ChannelId { vault: vault.address(), provider: self.key.id(), epoch: allocation.epoch };
        let payee = Payee::new(channel, allocation, key.public(), self.payout).expect("our payout");
        self.payee_disk = payee.state().encode();
        self.payee = Some(payee);
        self.serving.clear();
        true
    }

    pub(crate) fn nth<V>(jobs: &BTreeMap<JobId, V>, index: usize) -> Option<JobId> {
        let index = index.checked_rem(jobs.len())?;
        jobs.keys().nth(index).copied()
    }

    pub(crate) fn serve(&mut self, index: usize, tokens: u64) -> bool {
        let (Some(job), Some(payee)) = (Self::nth(&self.serving, index), &self.payee) else {
            return false;
        };
        let epoch = payee.channel().epoch;
        let paid = payee.paid(job).as_nano() / TOKEN;
        let served = self.serving.get_mut(&job).expect("chosen from it");
        let granted = tokens.min((paid + STEP).saturating_sub(*served));
        *served += granted;
        if let Some(asked) = self.asked.get_mut(&job) {
            asked.received += granted;
        }
        self.epoch(epoch).served += granted;
        granted > 0
    }

    pub(crate) fn close(&mut self, index: usize) -> Outcome {
        let (Some(job), Some(payee)) = (Self::nth(&self.serving, index), &mut self.payee) else {
            return Ok(false);
        };
        let served = self.serving.remove(&job).expect("chosen from it");
        let paid = payee.paid(job).as_nano();
        let closed = payee.close(job, nano(served));
        self.payee_disk = closed.record.encode();
        prop_assert_eq!(closed.unpaid.as_nano(), (served * TOKEN).saturating_sub(paid));
        prop_assert!(closed.unpaid <= nano(STEP));
        Ok(true)
    }
}
