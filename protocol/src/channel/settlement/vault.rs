//! The vault's state and what each message does to it.
//!
//! Owns: the order of checks, which is the contract's.
//! Must not: change anything when it refuses, but for what the contract itself commits first.
//! Invariant after every message: balance ≥ Σ (limit − paid) + accrued. Every allocated nanoTON is
//! payable to exactly one provider, so there is nothing to spend twice.

use std::collections::BTreeMap;

use super::message::{AllocationRequest, BATCH, Command, Fees, Message, Parameters, Transfer};
use super::refusal::VaultError;
use crate::channel::{Allocation, SignedRelease, SignedVoucher};
use crate::identity::{NodeId, TonAddress};
use crate::limits::{VAULT_ALLOCATIONS, VAULT_RESERVE};
use crate::units::{NanoTon, Timestamp};

/// Down to this, commands that move no free money may eat the reserve.
const RENT_FLOOR: NanoTon = NanoTon::from_nano(20_000_000);
/// What a closed vault keeps.
const CLOSED_REMAINDER: NanoTon = NanoTon::from_nano(5_000_000);
/// The least accrued fee worth sending on.
const SWEEP_MINIMUM: NanoTon = NanoTon::from_nano(100_000_000);
/// Above it a vault cannot allocate: 10 %.
const FEE_BASIS_POINTS: u16 = 1_000;
/// Above it a vault cannot allocate: 30 days.
const RELEASE_DELAY_SECONDS: u32 = 2_592_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// Who gives a command, which decides who pays for it and whether the daily cap binds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Authority {
    HotKey,
    Owner,
}

/// A refusal, and whether it came after the contract accepted the message: then what was committed
/// before it stays.
struct Failure {
    error: VaultError,
    accepted: bool,
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        Self {
            error,
            accepted: false,
        }
    }
}

/// A voucher that is worth something.
struct Due {
    provider: NodeId,
    payout: TonAddress,
    amount: NanoTon,
    fee: NanoTon,
    receipts_root: [u8; 32],
}

fn total(parts: &[NanoTon]) -> u128 {
    parts.iter().map(|part| u128::from(part.as_nano())).sum()
}

/// One vault: a consumer's deposit, and what of it is set aside for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vault {
    address: TonAddress,
    parameters: Parameters,
    balance: NanoTon,
    seqno: u32,
    next_epoch: u32,
    reserved: NanoTon,
    accrued: NanoTon,
    day: u64,
    allocated_today: NanoTon,
    allocations: BTreeMap<NodeId, Allocation>,
}

impl Vault {
    /// A new vault without money.
    pub const fn new(address: TonAddress, parameters: Parameters) -> Self {
        Self {
            address,
            parameters,
            balance: NanoTon::ZERO,
            seqno: 0,
            next_epoch: 1,
            reserved: NanoTon::ZERO,
            accrued: NanoTon::ZERO,
            day: 0,
            allocated_today: NanoTon::ZERO,
            allocations: BTreeMap::new(),
        }
    }

    /// Its address.
    pub const fn address(&self) -> TonAddress {
        self.address
    }

    /// What it was made with.
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// All money in it.
    pub const fn balance(&self) -> NanoTon {
        self.balance
    }

    /// The seqno of the next order.
    pub const fn seqno(&self) -> u32 {
        self.seqno
    }

    /// Money set aside: Σ (limit − paid).
    pub const fn reserved(&self) -> NanoTon {
        self.reserved
    }

    /// The network's fee that waits to be swept.
    pub const fn accrued(&self) -> NanoTon {
        self.accrued
    }

    /// What may be allocated or withdrawn, less the gas of doing so.
    pub const fn free(&self) -> NanoTon {
        let rest = self
            .balance
            .saturating_sub(self.reserved)
            .saturating_sub(self.accrued);
        rest.saturating_sub(VAULT_RESERVE)
    }

    /// What is set aside for a provider.
    pub fn allocation(&self, provider: &NodeId) -> Option<&Allocation> {
        self.allocations.get(provider)
    }

    /// All allocations.
    pub const fn allocations(&self) -> &BTreeMap<NodeId, Allocation> {
        &self.allocations
    }

    /// Executes a message. A refusal changes nothing, with one exception as in the contract: a
    /// signed [`Command::Rebalance`] with a bad entry is used up (seqno, daily cap, gas), because
    /// its entries are looked at only after it is accepted.
    pub fn handle(
        &mut self,
        message: &Message,
        fees: Fees,
        now: Timestamp,
    ) -> Result<Option<Transfer>, VaultError> {
        let mut next = self.clone();
        match next.apply(message, fees, now.as_unix_secs()) {
            Ok(transfer) => {
                *self = next;
                Ok(transfer)
            }
            Err(Failure { error, accepted }) => {
                if accepted {
                    *self = next;
                }
                Err(error)
            }
        }
    }

    fn apply(
        &mut self,
        message: &Message,
        fees: Fees,
        now: u64,
    ) -> Result<Option<Transfer>, Failure> {
        match message {
            Message::TopUp(amount) => {
                // More money than exists does not fit; then nothing arrives.
                self.balance = self.balance.checked_add(*amount).unwrap_or(self.balance);
                Ok(None)
            }
            Message::Order(order) => {
                ensure(order.vault == self.address, VaultError::WrongVault)?;
                ensure(order.seqno == self.seqno, VaultError::WrongSeqno)?;
                ensure(now <= order.valid_until.as_unix_secs(), VaultError::Expired)?;
                ensure(
                    order.signer == self.parameters.client_key,
                    VaultError::BadSignature,
                )?;
                self.execute(&order.command, Authority::HotKey, fees, now)
            }
            Message::OwnerCommand { from, command } => {
                ensure(*from == self.parameters.owner, VaultError::NotOwner)?;
                self.execute(command, Authority::Owner, fees, now)
            }
            Message::SettleExternal { voucher, consent } => {
                self.ensure_funded()?;
                let due = self.check_voucher(voucher, now)?;
                let consented = voucher.has_consent(consent);
                ensure(consented, VaultError::NoConsent)?;
                let payment = due.amount.saturating_sub(due.fee);
                ensure(payment > fees.bound, VaultError::TooSmall)?;
                self.apply_settlement(&due);
                self.spend(fees.used);
                Ok(self.send(due.payout, payment.saturating_sub(fees.withheld)))
            }
            Message::SettleInternal(voucher) => {
                let due = self.check_voucher(voucher, now)?;
                self.ensure_funded()?;
                self.apply_settlement(&due);
                Ok(self.send(due.payout, due.amount.saturating_sub(due.fee)))
            }
            Message::Sweep => {
                let accrued = self.accrued;
                let worth_it = accrued >= SWEEP_MINIMUM && accrued > fees.bound;
                ensure(worth_it, VaultError::TooSmall)?;
                self.ensure_funded()?;
                self.accrued = NanoTon::ZERO;
                self.spend(fees.used);
                let treasury = self.parameters.treasury;
                Ok(self.send(treasury, accrued.saturating_sub(fees.withheld)))
            }
        }
    }

    fn execute(
        &mut self,
        command: &Command,
        authority: Authority,
        fees: Fees,
        now: u64,
    ) -> Result<Option<Transfer>, Failure> {
        match command {
            Command::Allocate(request) => {
                self.ensure_sound()?;
                let allocation = self.prepare_allocation(request)?;
                self.use_daily_cap(request.amount, authority, now)?;
                self.accept(
                    authority,
                    fees,
                    request.amount,
                    NanoTon::ZERO,
                    VAULT_RESERVE,
                )?;
                self.write_allocation(request, allocation);
                Ok(None)
            }
            Command::Rebalance(requests) => self.rebalance(requests, authority, fees, now),
            Command::RequestRelease(provider) => {
                let mut allocation = self.find(provider)?;
                ensure(allocation.unlock_at.is_none(), VaultError::AlreadyReleasing)?;
                let unlock_at = now.saturating_add(u64::from(self.parameters.release_delay));
                allocation.unlock_at = Some(Timestamp::from_unix_secs(unlock_at));
                self.accept(authority, fees, NanoTon::ZERO, NanoTon::ZERO, RENT_FLOOR)?;
                self.allocations.insert(*provider, allocation);
                Ok(None)
            }
            Command::FinalizeRelease(provider) => {
                let allocation = self.find(provider)?;
                let unlock_at = allocation.unlock_at.ok_or(VaultError::TooEarly)?;
                ensure(now >= unlock_at.as_unix_secs(), VaultError::TooEarly)?;
                self.accept(
                    authority,
                    fees,
                    NanoTon::ZERO,
                    allocation.remainder(),
                    RENT_FLOOR,
                )?;
                self.remove_allocation(provider, &allocation);
                Ok(None)
            }
            Command::Release(release) => self.release(release, authority, fees),
            Command::Withdraw(amount) => {
                ensure(*amount > NanoTon::ZERO, VaultError::ZeroAmount)?;
                self.accept(authority, fees, *amount, NanoTon::ZERO, VAULT_RESERVE)?;
                Ok(self.send_to_owner(*amount, fees))
            }
            Command::Close => {
                ensure(self.allocations.is_empty(), VaultError::NotEmpty)?;
                let kept = self
                    .accrued
                    .saturating_add(fees.bound)
                    .saturating_add(CLOSED_REMAINDER);
                let amount = self.balance.saturating_sub(kept);
                ensure(amount > fees.transfer, VaultError::InsufficientFunds)?;
                self.accept(authority, fees, amount, NanoTon::ZERO, CLOSED_REMAINDER)?;
                Ok(self.send_to_owner(amount, fees))
            }
        }
    }

    /// The head is checked before the batch is accepted, its entries after.
    fn rebalance(
        &mut self,
        requests: &[AllocationRequest],
        authority: Authority,
        fees: Fees,
        now: u64,
    ) -> Result<Option<Transfer>, Failure> {
        self.ensure_sound()?;
        ensure(
            !requests.is_empty() && requests.len() <= BATCH,
            VaultError::BadBatch,
        )?;
        let sum = requests
            .iter()
            .try_fold(NanoTon::ZERO, |sum, request| {
                sum.checked_add(request.amount)
            })
            .ok_or(VaultError::BadBatch)?;
        self.use_daily_cap(sum, authority, now)?;
        self.accept(authority, fees, sum, NanoTon::ZERO, VAULT_RESERVE)?;
        let committed = self.clone();
        for request in requests {
            match self.prepare_allocation(request) {
                Ok(allocation) => self.write_allocation(request, allocation),
                Err(error) => {
                    *self = committed;
                    return Err(Failure {
                        error,
                        accepted: authority == Authority::HotKey,
                    });
                }
            }
        }
        Ok(None)
    }

    /// When a voucher above the signed amount was settled meanwhile, nothing more is due and the
    /// release still holds: the provider agreed to end with less.
    fn release(
        &mut self,
        signed: &SignedRelease,
        authority: Authority,
        fees: Fees,
    ) -> Result<Option<Transfer>, Failure> {
        let release = &signed.release;
        ensure(release.vault == self.address, VaultError::WrongVault)?;
        let allocation = self.find(&release.provider)?;
        ensure(release.epoch == allocation.epoch, VaultError::WrongEpoch)?;
        ensure(
            release.cumulative <= allocation.limit,
            VaultError::OverLimit,
        )?;
        ensure(signed.verify().is_ok(), VaultError::BadSignature)?;
        let due = release.cumulative.saturating_sub(allocation.paid);
        let fee = self.parameters.fee(due);
        let spent = due.saturating_add(fees.transfer);
        self.accept(authority, fees, spent, allocation.remainder(), RENT_FLOOR)?;
        self.remove_allocation(&release.provider, &allocation);
        self.accrued = self.accrued.saturating_add(fee);
        if due <= fee {
            return Ok(None);
        }
        self.spend(fees.transfer);
        Ok(self.send(allocation.payout, due.saturating_sub(fee)))
    }

    /// The last check of every command: after it, the money of the providers, the accrued fee and
    /// `floor` are still there. `spent` leaves the vault or becomes reserved, `freed` is no longer.
    fn accept(
        &mut self,
        authority: Authority,
        fees: Fees,
        spent: NanoTon,
        freed: NanoTon,
        floor: NanoTon,
    ) -> Result<(), VaultError> {
        let (cost, used) = match authority {
            Authority::HotKey => (fees.bound, fees.used),
            Authority::Owner => (NanoTon::ZERO, NanoTon::ZERO),
        };
        let has = total(&[self.balance, freed]);
        let needs = total(&[cost, spent, self.reserved, self.accrued, floor]);
        ensure(has >= needs, VaultError::InsufficientFunds)?;
        if authority == Authority::HotKey {
            self.seqno = self.seqno.wrapping_add(1);
        }
        self.spend(used);
        Ok(())
    }

    fn check_voucher(&self, signed: &SignedVoucher, now: u64) -> Result<Due, VaultError> {
        let voucher = &signed.voucher;
        ensure(voucher.vault == self.address, VaultError::WrongVault)?;
        let allocation = self.find(&voucher.provider)?;
        ensure(voucher.epoch == allocation.epoch, VaultError::WrongEpoch)?;
        let released = allocation
            .unlock_at
            .is_some_and(|at| now >= at.as_unix_secs());
        ensure(!released, VaultError::Released)?;
        let worth = voucher.cumulative.min(allocation.limit);
        let amount = worth.saturating_sub(allocation.paid);
        ensure(amount > NanoTon::ZERO, VaultError::NothingToSettle)?;
        let verified = signed.verify(&self.parameters.client_key);
        ensure(verified.is_ok(), VaultError::BadSignature)?;
        Ok(Due {
            provider: voucher.provider,
            payout: allocation.payout,
            amount,
            fee: self.parameters.fee(amount),
            receipts_root: voucher.receipts_root,
        })
    }

    fn apply_settlement(&mut self, due: &Due) {
        if let Some(allocation) = self.allocations.get_mut(&due.provider) {
            allocation.paid = allocation.paid.saturating_add(due.amount);
            allocation.receipts_root = due.receipts_root;
        }
        self.reserved = self.reserved.saturating_sub(due.amount);
        self.accrued = self.accrued.saturating_add(due.fee);
    }

    fn prepare_allocation(&self, request: &AllocationRequest) -> Result<Allocation, VaultError> {
        /// The encoding of the group's identity: any signature fits it in older TVMs.
        const IDENTITY: [u8; 32] = {
            let mut bytes = [0; 32];
            bytes[0] = 1;
            bytes
        };
        let provider = request.provider.as_bytes();
        ensure(
            *provider != [0; 32] && *provider != IDENTITY,
            VaultError::BadProvider,
        )?;
        if let Some(existing) = self.allocations.get(&request.provider) {
            ensure(existing.payout == request.payout, VaultError::PayoutDiffers)?;
            let limit = existing.limit.checked_add(request.amount);
            let limit = limit.ok_or(VaultError::AmountOverflow)?;
            return Ok(Allocation {
                limit,
                unlock_at: None,
                ..*existing
            });
        }
        let payout = request.payout;
        let usable = payout.workchain == 0 && payout.hash != [0; 32];
        ensure(
            usable && payout.hash != self.address.hash,
            VaultError::BadPayout,
        )?;
        ensure(request.amount > NanoTon::ZERO, VaultError::ZeroAmount)?;
        ensure(
            self.allocations.len() < VAULT_ALLOCATIONS,
            VaultError::TooManyAllocations,
        )?;
        Ok(Allocation::new(payout, request.amount, self.next_epoch))
    }

    fn write_allocation(&mut self, request: &AllocationRequest, allocation: Allocation) {
        if self
            .allocations
            .insert(request.provider, allocation)
            .is_none()
        {
            self.next_epoch = self.next_epoch.wrapping_add(1);
        }
        self.reserved = self.reserved.saturating_add(request.amount);
    }

    fn remove_allocation(&mut self, provider: &NodeId, allocation: &Allocation) {
        self.allocations.remove(provider);
        self.reserved = self.reserved.saturating_sub(allocation.remainder());
    }

    fn use_daily_cap(
        &mut self,
        amount: NanoTon,
        authority: Authority,
        now: u64,
    ) -> Result<(), VaultError> {
        if authority == Authority::Owner {
            return Ok(());
        }
        let today = now.checked_div(SECONDS_PER_DAY).unwrap_or(0);
        let before = if self.day == today {
            self.allocated_today
        } else {
            NanoTon::ZERO
        };
        let used = before.checked_add(amount).ok_or(VaultError::DailyCap)?;
        ensure(used <= self.parameters.daily_cap, VaultError::DailyCap)?;
        (self.day, self.allocated_today) = (today, used);
        Ok(())
    }

    fn find(&self, provider: &NodeId) -> Result<Allocation, VaultError> {
        self.allocations
            .get(provider)
            .copied()
            .ok_or(VaultError::NoAllocation)
    }

    fn ensure_sound(&self) -> Result<(), VaultError> {
        let Parameters {
            fee_basis_points,
            release_delay,
            ..
        } = self.parameters;
        let sound = fee_basis_points <= FEE_BASIS_POINTS && release_delay <= RELEASE_DELAY_SECONDS;
        ensure(sound, VaultError::BadParameters)
    }

    /// Everyone must be covered before one is paid: a shortfall would be left to whoever comes last.
    fn ensure_funded(&self) -> Result<(), VaultError> {
        let owed = total(&[self.reserved, self.accrued]);
        ensure(total(&[self.balance]) >= owed, VaultError::Underfunded)
    }

    fn spend(&mut self, amount: NanoTon) {
        self.balance = self.balance.saturating_sub(amount);
    }

    fn send(&mut self, to: TonAddress, amount: NanoTon) -> Option<Transfer> {
        self.spend(amount);
        Some(Transfer { to, amount })
    }

    /// A transfer that cannot pay its own way is skipped, and the money stays.
    fn send_to_owner(&mut self, amount: NanoTon, fees: Fees) -> Option<Transfer> {
        let owner = self.parameters.owner;
        if amount < fees.transfer {
            None
        } else {
            self.send(owner, amount)
        }
    }
}

fn ensure(holds: bool, error: VaultError) -> Result<(), VaultError> {
    if holds { Ok(()) } else { Err(error) }
}
