//! The world of a history: a vault, its consumer, two providers, and the count of all money.
//!
//! Owns: what each action does. Must not: judge; the invariants stand beside.

use std::sync::Arc;

use cocoon_protocol::channel::settlement::{
    AllocationRequest, Command, Fees, Message, Order, Parameters, Transfer, Vault, VaultError,
};
use cocoon_protocol::channel::{ChannelId, Payer, Release, SignedVoucher, VaultKey};
use cocoon_protocol::identity::{JobId, ReceiptHash};
use cocoon_protocol::units::{NanoTon, Timestamp};
use proptest::prelude::*;

use super::action::{Action, Fault, Money, Work};
use super::channel::{Asked, Channel};
use super::{BASIS_POINTS, CHANNELS, Outcome, RELEASE_DELAY, STEP, address, nano};

pub(crate) struct World {
    pub(crate) vault: Vault,
    pub(crate) key: Arc<VaultKey>,
    pub(crate) fees: Fees,
    pub(crate) now: Timestamp,
    pub(crate) channels: Vec<Channel>,
    pub(crate) last_order: Option<Order>,
    pub(crate) deposited: u64,
    pub(crate) sent: u64,
    pub(crate) burned: u64,
    pub(crate) jobs: u64,
}

impl World {
    pub(crate) fn new(costly: bool) -> Self {
        let key = Arc::new(VaultKey::from_secret(&[9; 32]));
        let parameters = Parameters {
            client_key: key.public(),
            owner: address(0x40),
            release_delay: RELEASE_DELAY,
            daily_cap: nano(2_000),
            fee_basis_points: if costly { BASIS_POINTS } else { 0 },
            treasury: address(0x41),
        };
        let gas = |nano| NanoTon::from_nano(if costly { nano } else { 0 });
        Self {
            vault: Vault::new(address(1), parameters),
            key,
            fees: Fees {
                bound: gas(5_000_000),
                withheld: gas(1_000_000),
                used: gas(900_000),
                transfer: gas(70_000),
                arrival: NanoTon::ZERO,
                brought: gas(10_000_000),
            },
            now: Timestamp::from_unix_secs(1_800_000_000),
            channels: (0..CHANNELS)
                .map(|number| Channel::new(u8::try_from(number).expect("few") + 2))
                .collect(),
            last_order: None,
            deposited: 0,
            sent: 0,
            burned: 0,
            jobs: 0,
        }
    }

    /// Everything that reaches the contract goes through here, so that no nanoTON escapes the count.
    pub(crate) fn contract(&mut self, message: &Message) -> Result<Option<Transfer>, VaultError> {
        let before = self.vault.clone();
        let result = self.vault.handle(message, self.fees, self.now);
        match &result {
            Ok(transfer) => {
                let sent = transfer.map_or(0, |transfer| transfer.amount.as_nano());
                self.sent += sent;
                self.burned += match message {
                    Message::TopUp(amount) => {
                        self.deposited += amount.as_nano();
                        0
                    }
                    Message::Order(order) => {
                        let forwarded = matches!(order.command, Command::Release(_)) && sent > 0;
                        let forward = if forwarded { self.fees.transfer.as_nano() } else { 0 };
                        self.fees.used.as_nano() + forward
                    }
                    Message::OwnerCommand { .. } | Message::SettleInternal(_) => 0,
                    Message::SettleExternal { .. } | Message::Sweep => self.fees.used.as_nano(),
                };
            }
            Err(_) => assert_eq!(before, self.vault, "a refusal changed the vault"),
        }
        result
    }

    pub(crate) fn order(&mut self, command: Command) -> Result<Option<Transfer>, VaultError> {
        let order = Order {
            vault: self.vault.address(),
            seqno: self.vault.seqno(),
            valid_until: self.now,
            command,
            signer: self.key.public(),
        };
        let result = self.contract(&Message::Order(order.clone()));
        if result.is_ok() {
            self.last_order = Some(order);
        }
        result
    }

    /// The consumer has allocated: its side of the channel begins or grows.
    fn take_up(&mut self, index: usize) {
        let channel = &mut self.channels[index];
        let Some(allocation) = self.vault.allocation(&channel.key.id()) else {
            return;
        };
        let id = ChannelId {
            vault: self.vault.address(),
            provider: channel.key.id(),
            epoch: allocation.epoch,
        };
        match &mut channel.payer {
            Some(payer) if payer.channel() == id => {
                channel.payer_disk = payer.observe(allocation).encode();
            }
            _ => {
                let payer = Payer::new(id, allocation, Arc::clone(&self.key));
                channel.payer_disk = payer.state().encode();
                channel.payer = Some(payer);
                channel.asked.clear();
            }
        }
    }

    fn request(&self, index: usize, tokens: u64) -> AllocationRequest {
        let channel = &self.channels[index];
        AllocationRequest {
            provider: channel.key.id(),
            payout: channel.payout,
            amount: nano(tokens),
        }
    }

    fn start(&mut self, index: usize, max_tokens: u64) -> bool {
        let channel = &mut self.channels[index];
        let (Some(payer), Some(payee)) = (&mut channel.payer, &mut channel.payee) else {
            return false;
        };
        self.jobs += 1;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.jobs.to_be_bytes());
        let job = JobId::from_bytes(id);
        if payer.channel() != payee.channel() || payer.reserve(job, nano(max_tokens)).is_err() {
            return false;
        }
        if payee.open(job).is_err() {
            payer.abandon(job);
            return false;
        }
        payer.risk(job, nano(STEP));
        let asked = Asked { max: max_tokens, received: 0, promised: 0 };
        channel.asked.insert(job, asked);
        channel.serving.insert(job, 0);
        let epoch = payee.channel().epoch;
        channel.epoch(epoch).opened += 1;
        true
    }

    /// Pays for what was received, and some tokens ahead; nothing beyond the reservation.
    fn pay(&mut self, index: usize, job: usize, ahead: u64, fault: Fault) -> Outcome {
        let channel = &mut self.channels[index];
        let (Some(job), Some(payer)) = (Channel::nth(&channel.asked, job), &mut channel.payer)
        else {
            return Ok(false);
        };
        let Asked { max, received, .. } = channel.asked[&job];
        match payer.pay(job, nano((received + ahead).min(max))) {
            Ok(payment) => channel.carry_out(payment, fault, &self.key).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    fn finish(&mut self, index: usize, job: usize, fault: Fault) -> Outcome {
        let channel = &mut self.channels[index];
        let (Some(job), Some(payer)) = (Channel::nth(&channel.asked, job), &mut channel.payer)
        else {
            return Ok(false);
        };
        let Asked { max, received, promised } = channel.asked[&job];
        let total = nano(received.min(max)).max(NanoTon::from_nano(promised));
        let receipt = ReceiptHash::from_bytes(*job.as_bytes());
        let before = payer.receipts().clone();
        let Ok(payment) = payer.finish(job, total, receipt) else {
            return Ok(false);
        };
        prop_assert_eq!(payment.voucher.voucher.receipts_root, before.root_with(receipt));
        channel.carry_out(payment, fault, &self.key)?;
        channel.asked.remove(&job);
        Ok(true)
    }

    pub(crate) fn settle(
        &mut self,
        index: usize,
        voucher: SignedVoucher,
        external: bool,
    ) -> Outcome {
        let channel = &self.channels[index];
        let (provider, payout) = (channel.key.id(), channel.payout);
        let message = if external {
            let consent = voucher.consent(&channel.key);
            Message::SettleExternal { voucher, consent }
        } else {
            Message::SettleInternal(voucher)
        };
        let Some(before) = self.vault.allocation(&provider).copied() else {
            let refused = self.contract(&message);
            prop_assert!(matches!(
                refused,
                Err(VaultError::NoAllocation | VaultError::Underfunded)
            ));
            return Ok(false);
        };
        match self.contract(&message) {
            Ok(transfer) => {
                let after = self.vault.allocation(&provider).expect("it stays");
                let due = after.paid.checked_sub(before.paid).expect("it only rises");
                let worth = voucher.voucher.cumulative.min(before.limit);
                prop_assert_eq!(after.paid, worth);
                prop_assert!(!self.is_unlocked(index), "settled after its time");
                let fee = self.vault.parameters().fee(due);
                let withheld = if external { self.fees.withheld } else { NanoTon::ZERO };
                let amount = due.saturating_sub(fee).saturating_sub(withheld);
                prop_assert_eq!(transfer, Some(Transfer { to: payout, amount }));
                Ok(true)
            }
            Err(VaultError::Released) => {
                prop_assert!(self.is_unlocked(index), "refused before its time");
                Ok(false)
            }
            Err(VaultError::NothingToSettle | VaultError::TooSmall | VaultError::WrongEpoch) => {
                Ok(false)
            }
            Err(error) => Err(TestCaseError::fail(format!("settling: {error}"))),
        }
    }

    /// The provider agrees to end the channel with what it is owed.
    fn release(&mut self, index: usize) -> Outcome {
        let channel = &self.channels[index];
        let (Some(payer), Some(payee)) = (&channel.payer, &channel.payee) else {
            return Ok(false);
        };
        let Some(before) = self.vault.allocation(&channel.key.id()).copied() else {
            return Ok(false);
        };
        if payer.channel() != payee.channel() || payee.channel().epoch != before.epoch {
            return Ok(false);
        }
        let owed = payee.credited();
        let signed = Release {
            vault: self.vault.address(),
            provider: channel.key.id(),
            epoch: before.epoch,
            cumulative: owed,
        }
        .sign(&channel.key);
        prop_assert!(owed <= payer.cumulative(), "the consumer agrees");
        match self.order(Command::Release(signed)) {
            Ok(transfer) => {
                let due = owed.saturating_sub(before.paid);
                let fee = self.vault.parameters().fee(due);
                let sent = transfer.map_or(NanoTon::ZERO, |transfer| transfer.amount);
                prop_assert_eq!(sent, due.saturating_sub(fee));
                let channel = &mut self.channels[index];
                (channel.payer, channel.payee, channel.unlock) = (None, None, None);
                channel.asked.clear();
                channel.serving.clear();
                Ok(true)
            }
            Err(error) => {
                prop_assert_eq!(error, VaultError::InsufficientFunds);
                Ok(false)
            }
        }
    }

    pub(crate) fn request_release(&mut self, index: usize) -> bool {
        let channel = &mut self.channels[index];
        let Some(payer) = &mut channel.payer else {
            return false;
        };
        channel.payer_disk = payer.release().encode();
        let provider = channel.key.id();
        let done = self.order(Command::RequestRelease(provider)).is_ok();
        if done {
            let unlock = self.now.as_unix_secs() + u64::from(RELEASE_DELAY);
            self.channels[index].unlock = Some(unlock);
        }
        done
    }

    /// Whether the time in which the provider may settle is over.
    pub(crate) fn is_unlocked(&self, index: usize) -> bool {
        self.channels[index].unlock.is_some_and(|at| at <= self.now.as_unix_secs())
    }

    pub(crate) fn finalize_release(&mut self, index: usize) -> Outcome {
        let provider = self.channels[index].key.id();
        let unlocked = self.is_unlocked(index);
        let result = self.order(Command::FinalizeRelease(provider));
        if result.is_err() {
            prop_assert!(!unlocked || result == Err(VaultError::InsufficientFunds));
            return Ok(false);
        }
        prop_assert!(unlocked, "the provider had all its time to settle");
        let channel = &mut self.channels[index];
        (channel.payer, channel.unlock) = (None, None);
        channel.asked.clear();
        Ok(true)
    }

    pub(crate) fn reconnect(&mut self, index: usize) -> Outcome {
        let channel = &mut self.channels[index];
        channel.mail.clear();
        let Some(voucher) = channel.payer.as_ref().and_then(Payer::latest_voucher) else {
            return Ok(false);
        };
        channel.send(voucher, None)?;
        Ok(true)
    }
}

impl World {
    /// Carries out one action; `false` when it made no sense in its place.
    pub(crate) fn act(&mut self, action: &Action) -> Outcome {
        match action {
            Action::Money(money) => self.act_on_the_ledger(money),
            Action::Work(work) => self.act_on_a_channel(work),
        }
    }

    fn act_on_a_channel(&mut self, action: &Work) -> Outcome {
        Ok(match *action {
            Work::Start(index, max_tokens) => self.start(index, max_tokens),
            Work::Serve(index, job, tokens) => self.channels[index].serve(job, tokens),
            Work::Pay(index, job, ahead, fault) => self.pay(index, job, ahead, fault)?,
            Work::Finish(index, job, fault) => self.finish(index, job, fault)?,
            Work::Abandon(index, job) => {
                let channel = &mut self.channels[index];
                let job = Channel::nth(&channel.asked, job);
                let (Some(job), Some(payer)) = (job, &mut channel.payer) else {
                    return Ok(false);
                };
                channel.asked.remove(&job);
                payer.abandon(job).is_some()
            }
            Work::Close(index, job) => self.channels[index].close(job)?,
            Work::Deliver(index, mail, fault) => {
                self.channels[index].deliver(mail, fault, &self.key)?
            }
            Work::Lose(index, mail) => {
                let mailbag = &mut self.channels[index].mail;
                let lost = mail.checked_rem(mailbag.len());
                lost.map(|lost| mailbag.remove(lost)).is_some()
            }
            Work::Repeat(index, mail) => {
                let mailbag = &mut self.channels[index].mail;
                let again = mail.checked_rem(mailbag.len()).map(|again| mailbag[again]);
                mailbag.extend(again);
                again.is_some()
            }
            Work::CrashConsumer => {
                let key = Arc::clone(&self.key);
                let restarted = self.channels.iter_mut().map(|c| c.restart_consumer(&key));
                restarted.filter(|restarted| *restarted).count() > 0
            }
            Work::CrashProvider(index) => self.channels[index].restart_provider(),
            Work::Reconnect(index) => self.reconnect(index)?,
            Work::Repay(index, lie, fault) => self.channels[index].repay(lie, fault, &self.key)?,
        })
    }

    fn act_on_the_ledger(&mut self, action: &Money) -> Outcome {
        Ok(match *action {
            Money::TopUp(tokens) => self.contract(&Message::TopUp(nano(tokens))).is_ok(),
            Money::Withdraw(tokens) => self.order(Command::Withdraw(nano(tokens))).is_ok(),
            Money::Allocate(index, tokens) => {
                let request = self.request(index, tokens);
                let done = self.order(Command::Allocate(request)).is_ok();
                if done {
                    self.channels[index].unlock = None;
                }
                self.take_up(index);
                done
            }
            Money::Rebalance(first, second) => {
                let requests = vec![self.request(0, first + 1), self.request(1, second + 1)];
                let done = self.order(Command::Rebalance(requests)).is_ok();
                for index in 0..CHANNELS {
                    if done {
                        self.channels[index].unlock = None;
                    }
                    self.take_up(index);
                }
                done
            }
            Money::Settle(index, external) => {
                let payee = self.channels[index].payee.as_ref();
                match payee.and_then(|payee| payee.best()) {
                    Some(best) => self.settle(index, best, external)?,
                    None => false,
                }
            }
            Money::SettleOld(index, which) => {
                let vouchers = &self.channels[index].vouchers;
                match which.checked_rem(vouchers.len()) {
                    Some(which) => self.settle(index, vouchers[which], false)?,
                    None => false,
                }
            }
            Money::Observe(index) => self.channels[index].observe(&self.vault, &self.key),
            Money::RequestRelease(index) => self.request_release(index),
            Money::FinalizeRelease(index) => self.finalize_release(index)?,
            Money::Release(index) => self.release(index)?,
            Money::ReplayOrder => match self.last_order.clone() {
                Some(order) => {
                    let refused = self.contract(&Message::Order(order));
                    prop_assert_eq!(refused, Err(VaultError::WrongSeqno));
                    true
                }
                None => false,
            },
            Money::Sweep => self.contract(&Message::Sweep).is_ok(),
            Money::Wait(secs) => {
                self.now = Timestamp::from_unix_secs(self.now.as_unix_secs() + secs);
                true
            }
        })
    }
}
