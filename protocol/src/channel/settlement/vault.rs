//! The vault's state and what each message does to it.
//!
//! Owns: the order of checks, which is the contract's.
//! Must not: change anything when it refuses, but for what the contract itself commits first.
//! Invariant after every message: balance ≥ Σ (limit − paid) + accrued. Every allocated nanoTON is
//! payable to exactly one provider, so there is nothing to spend twice.

use super::message::{AllocationRequest, BATCH, Command, Fees, Message, Parameters, Transfer};
use super::refusal::VaultError;
use crate::channel::{Allocation, SignedRelease, SignedVoucher, VaultPublicKey};
use crate::flat::FlatMap;
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
        Self { error, accepted: false }
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

/// Whether an Ed25519 key is neither 0 nor the group's identity, which older TVMs take any signature
/// for.
fn is_usable(key: &[u8; 32]) -> bool {
    const IDENTITY: [u8; 32] = {
        let mut bytes = [0; 32];
        bytes[0] = 1;
        bytes
    };
    *key != [0; 32] && *key != IDENTITY
}

fn total(parts: &[NanoTon]) -> u128 {
    parts.iter().map(|part| u128::from(part.as_nano())).sum()
}

/// One vault: a consumer's deposit, and what of it is set aside for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vault {
    address: TonAddress,
    parameters: Parameters,
    key: VaultPublicKey,
    balance: NanoTon,
    seqno: u32,
    next_epoch: u32,
    reserved: NanoTon,
    accrued: NanoTon,
    day: u64,
    allocated_today: NanoTon,
    allocations: FlatMap<NodeId, Allocation>,
    /// Of the allocations that were made under another key than the one in force.
    former_keys: FlatMap<NodeId, VaultPublicKey>,
}

impl Vault {
    /// A new vault without money.
    pub const fn new(address: TonAddress, parameters: Parameters) -> Self {
        Self {
            address,
            key: parameters.client_key,
            parameters,
            balance: NanoTon::ZERO,
            seqno: 0,
            next_epoch: 1,
            reserved: NanoTon::ZERO,
            accrued: NanoTon::ZERO,
            day: 0,
            allocated_today: NanoTon::ZERO,
            allocations: FlatMap::new(),
            former_keys: FlatMap::new(),
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

    /// The hot key in force.
    pub const fn key(&self) -> &VaultPublicKey {
        &self.key
    }

    /// The key that signs the vouchers of this provider's allocation: the one that was in force
    /// when it was made.
    pub fn key_of(&self, provider: &NodeId) -> &VaultPublicKey {
        self.former_keys.get(provider).unwrap_or(&self.key)
    }

    /// The UTC day, counted from 1970, of the hot key's last allocation, and what it allocated then.
    pub const fn allocated_on(&self) -> (u64, NanoTon) {
        (self.day, self.allocated_today)
    }

    /// The epoch of the next new allocation.
    pub const fn next_epoch(&self) -> u32 {
        self.next_epoch
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
        let rest = self.balance.saturating_sub(self.reserved).saturating_sub(self.accrued);
        rest.saturating_sub(VAULT_RESERVE)
    }

    /// What is set aside for a provider.
    pub fn allocation(&self, provider: &NodeId) -> Option<&Allocation> {
        self.allocations.get(provider)
    }

    /// All allocations, in the order of their providers.
    pub fn allocations(&self) -> impl ExactSizeIterator<Item = (&NodeId, &Allocation)> {
        self.allocations.iter()
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
                ensure(order.signer == self.key, VaultError::BadSignature)?;
                self.execute(&order.command, Authority::HotKey, fees, now)
            }
            Message::OwnerCommand { from, command } => {
                ensure(*from == self.parameters.owner, VaultError::NotOwner)?;
                self.execute(command, Authority::Owner, fees, now)
            }
            Message::SettleExternal { voucher, consent } => {
                self.ensure_funded(fees)?;
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
                self.ensure_funded(fees)?;
                let needed = fees.bound.saturating_add(fees.transfer);
                ensure(fees.brought >= needed, VaultError::TooSmall)?;
                self.apply_settlement(&due);
                Ok(self.send(due.payout, due.amount.saturating_sub(due.fee)))
            }
            Message::Sweep => {
                let accrued = self.accrued;
                let worth_it = accrued >= SWEEP_MINIMUM && accrued > fees.bound;
                ensure(worth_it, VaultError::TooSmall)?;
                self.ensure_funded(fees)?;
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
                let allocation = self.prepare_allocation(request)?;
                self.ensure_sound()?;
                self.use_daily_cap(request.amount, authority, now)?;
                self.accept(authority, fees, request.amount, NanoTon::ZERO, VAULT_RESERVE)?;
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
                self.accept(authority, fees, NanoTon::ZERO, allocation.remainder(), RENT_FLOOR)?;
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
                ensure(self.allocations.len() == 0, VaultError::NotEmpty)?;
                let kept = [self.accrued, fees.arrival, fees.bound, CLOSED_REMAINDER];
                let amount = kept.into_iter().fold(self.balance, NanoTon::saturating_sub);
                ensure(amount > fees.transfer, VaultError::InsufficientFunds)?;
                self.accept(authority, fees, amount, NanoTon::ZERO, CLOSED_REMAINDER)?;
                Ok(self.send_to_owner(amount, fees))
            }
            Command::RotateKey(key) => self.rotate_key(*key, authority),
        }
    }

    /// Not for the hot key: whoever stole it must not be able to lock its owner out. It needs no
    /// free money, and takes a seqno, so that nothing signed before is executed after.
    fn rotate_key(
        &mut self,
        key: VaultPublicKey,
        authority: Authority,
    ) -> Result<Option<Transfer>, Failure> {
        ensure(authority == Authority::Owner, VaultError::NotOwner)?;
        ensure(is_usable(key.as_bytes()), VaultError::BadKey)?;
        let providers: Vec<NodeId> =
            self.allocations.iter().map(|(provider, _)| *provider).collect();
        for provider in providers {
            let made_under = *self.key_of(&provider);
            self.former_keys.remove(&provider);
            if made_under != key {
                self.former_keys.insert(provider, made_under);
            }
        }
        self.key = key;
        self.seqno = self.seqno.wrapping_add(1);
        Ok(None)
    }

    /// The head is checked before the batch is accepted, its entries after.
    fn rebalance(
        &mut self,
        requests: &[AllocationRequest],
        authority: Authority,
        fees: Fees,
        now: u64,
    ) -> Result<Option<Transfer>, Failure> {
        ensure(!requests.is_empty() && requests.len() <= BATCH, VaultError::BadBatch)?;
        self.ensure_sound()?;
        let sum = requests
            .iter()
            .try_fold(NanoTon::ZERO, |sum, request| sum.checked_add(request.amount))
            .ok_or(VaultError::BadBatch)?;
        self.use_daily_cap(sum, authority, now)?;
        self.accept(authority, fees, sum, NanoTon::ZERO, VAULT_RESERVE)?;
        let committed = self.clone();
        for request in requests {
            match self.prepare_allocation(request) {
                Ok(allocation) => self.write_allocation(request, allocation),
                Err(error) => {
                    *self = committed;
                    return Err(Failure { error, accepted: authority == Authority::HotKey });
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
        ensure(release.cumulative <= allocation.limit, VaultError::OverLimit)?;
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
        let needs = total(&[fees.arrival, cost, spent, self.reserved, self.accrued, floor]);
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
        let released = allocation.unlock_at.is_some_and(|at| now >= at.as_unix_secs());
        ensure(!released, VaultError::Released)?;
        let worth = voucher.cumulative.min(allocation.limit);
        let amount = worth.saturating_sub(allocation.paid);
        ensure(amount > NanoTon::ZERO, VaultError::NothingToSettle)?;
        let verified = signed.verify(self.key_of(&voucher.provider));
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
        ensure(is_usable(request.provider.as_bytes()), VaultError::BadProvider)?;
        if let Some(existing) = self.allocations.get(&request.provider) {
            ensure(existing.payout == request.payout, VaultError::PayoutDiffers)?;
            let is_current = !self.former_keys.contains_key(&request.provider);
            ensure(is_current, VaultError::OtherKey)?;
            let limit = existing.limit.checked_add(request.amount);
            let limit = limit.ok_or(VaultError::AmountOverflow)?;
            return Ok(Allocation { limit, unlock_at: None, ..*existing });
        }
        let payout = request.payout;
        let usable = payout.workchain == 0 && payout.hash != [0; 32];
        ensure(usable && payout.hash != self.address.hash, VaultError::BadPayout)?;
        ensure(request.amount > NanoTon::ZERO, VaultError::ZeroAmount)?;
        ensure(self.allocations.len() < VAULT_ALLOCATIONS, VaultError::TooManyAllocations)?;
        Ok(Allocation::new(payout, request.amount, self.next_epoch))
    }

    fn write_allocation(&mut self, request: &AllocationRequest, allocation: Allocation) {
        if self.allocations.insert(request.provider, allocation).is_none() {
            self.next_epoch = self.next_epoch.wrapping_add(1);
        }
        self.reserved = self.reserved.saturating_add(request.amount);
    }

    fn remove_allocation(&mut self, provider: &NodeId, allocation: &Allocation) {
        self.allocations.remove(provider);
        self.former_keys.remove(provider);
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
        let before = if self.day == today { self.allocated_today } else { NanoTon::ZERO };
        let used = before.checked_add(amount).ok_or(VaultError::DailyCap)?;
        ensure(used <= self.parameters.daily_cap, VaultError::DailyCap)?;
        (self.day, self.allocated_today) = (today, used);
        Ok(())
    }

    fn find(&self, provider: &NodeId) -> Result<Allocation, VaultError> {
        self.allocations.get(provider).copied().ok_or(VaultError::NoAllocation)
    }

    fn ensure_sound(&self) -> Result<(), VaultError> {
        let Parameters { fee_basis_points, release_delay, .. } = self.parameters;
        let sound = fee_basis_points <= FEE_BASIS_POINTS && release_delay <= RELEASE_DELAY_SECONDS;
        ensure(sound, VaultError::BadParameters)
    }

    /// Everyone must be covered before one is paid: a shortfall would be left to whoever comes last.
    fn ensure_funded(&self, fees: Fees) -> Result<(), VaultError> {
        let owed = total(&[self.reserved, self.accrued, fees.arrival]);
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
        if amount < fees.transfer { None } else { self.send(owner, amount) }
    }
}

fn ensure(holds: bool, error: VaultError) -> Result<(), VaultError> {
    if holds { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::super::message::Order;
    use super::*;
    use crate::channel::{ChannelId, Release, VaultKey};
    use crate::identity::NodeKey;

    const CONTRACT_FEES: &str = include_str!("../../../../contracts/vault/fees.tolk");
    const TON: u64 = 1_000_000_000;
    const DAY: u64 = SECONDS_PER_DAY;
    /// What the bounds would cost at the prices of 2026, roughly.
    const FEES: Fees = Fees {
        bound: NanoTon::from_nano(4_000_000),
        withheld: NanoTon::from_nano(1_000_000),
        used: NanoTon::from_nano(900_000),
        transfer: NanoTon::from_nano(66_667),
        arrival: NanoTon::ZERO,
        brought: NanoTon::from_nano(10_000_000),
    };

    fn nano(nano: u64) -> NanoTon {
        NanoTon::from_nano(nano)
    }

    const fn address(byte: u8) -> TonAddress {
        TonAddress { workchain: 0, hash: [byte; 32] }
    }

    const OWNER: TonAddress = address(0x40);
    const PAYOUT: TonAddress = address(0x50);

    fn key() -> VaultKey {
        VaultKey::from_secret(&[9; 32])
    }

    fn provider(number: u8) -> NodeKey {
        NodeKey::from_secret(&[number; 32])
    }

    /// A vault with a deposit, on a fixed day.
    struct Bench {
        vault: Vault,
        now: u64,
    }

    impl Bench {
        fn new() -> Self {
            Self::with(|_| ())
        }

        fn with(change: fn(&mut Parameters)) -> Self {
            let mut parameters = Parameters {
                client_key: key().public(),
                owner: OWNER,
                release_delay: 3_600,
                daily_cap: nano(2 * TON),
                fee_basis_points: 100,
                treasury: address(0x41),
            };
            change(&mut parameters);
            let mut bench = Self { vault: Vault::new(address(1), parameters), now: 20_000 * DAY };
            bench.send(&Message::TopUp(nano(10 * TON))).unwrap();
            bench
        }

        fn send(&mut self, message: &Message) -> Result<Option<Transfer>, VaultError> {
            self.vault.handle(message, FEES, Timestamp::from_unix_secs(self.now))
        }

        fn order(&self, command: Command) -> Order {
            Order {
                vault: self.vault.address(),
                seqno: self.vault.seqno(),
                valid_until: Timestamp::from_unix_secs(self.now),
                command,
                signer: key().public(),
            }
        }

        fn command(&mut self, command: Command) -> Result<Option<Transfer>, VaultError> {
            self.send(&Message::Order(self.order(command)))
        }

        fn owner(&mut self, command: Command) -> Result<Option<Transfer>, VaultError> {
            self.send(&Message::OwnerCommand { from: OWNER, command })
        }

        fn allocate(&mut self, number: u8, amount: u64) -> Result<Option<Transfer>, VaultError> {
            self.command(Command::Allocate(request(number, amount)))
        }

        fn channel(&self, number: u8) -> ChannelId {
            let provider = provider(number).id();
            let epoch = self.vault.allocation(&provider).map_or(0, |a| a.epoch);
            ChannelId { vault: self.vault.address(), provider, epoch }
        }

        fn voucher(&self, number: u8, cumulative: u64) -> SignedVoucher {
            let voucher = self.channel(number).voucher(nano(cumulative), [7; 32]);
            key().sign(voucher)
        }

        fn settle(&mut self, number: u8, cumulative: u64) -> Result<Option<Transfer>, VaultError> {
            let voucher = self.voucher(number, cumulative);
            let consent = voucher.consent(&provider(number));
            self.send(&Message::SettleExternal { voucher, consent })
        }

        fn release(&mut self, number: u8, cumulative: u64) -> Result<Option<Transfer>, VaultError> {
            let ChannelId { vault, provider: id, epoch } = self.channel(number);
            let release = Release { vault, provider: id, epoch, cumulative: nano(cumulative) };
            self.command(Command::Release(release.sign(&provider(number))))
        }
    }

    fn request(number: u8, amount: u64) -> AllocationRequest {
        AllocationRequest { provider: provider(number).id(), payout: PAYOUT, amount: nano(amount) }
    }

    #[test]
    fn the_kept_amounts_and_bounds_are_the_contracts() {
        let theirs = |name: &str| {
            let line = CONTRACT_FEES
                .lines()
                .find_map(|line| line.strip_prefix(&format!("const {name} = ")));
            let value = line.expect(name).trim();
            match value.strip_prefix("ton(\"") {
                Some(ton) => {
                    let ton = ton.trim_end_matches("\")");
                    format!("{ton} TON").parse::<NanoTon>().unwrap().as_nano()
                }
                None => value.parse().unwrap(),
            }
        };
        assert_eq!(theirs("RESERVE"), VAULT_RESERVE.as_nano());
        assert_eq!(theirs("RENT_FLOOR"), RENT_FLOOR.as_nano());
        assert_eq!(theirs("CLOSED_REMAINDER"), CLOSED_REMAINDER.as_nano());
        assert_eq!(theirs("SWEEP_MINIMUM"), SWEEP_MINIMUM.as_nano());
        assert_eq!(theirs("ALLOCATIONS_MAXIMUM"), VAULT_ALLOCATIONS as u64);
        assert_eq!(theirs("BATCH_MAXIMUM"), BATCH as u64);
        let maximum = theirs("FEE_BASIS_POINTS_MAXIMUM");
        assert_eq!(maximum, u64::from(FEE_BASIS_POINTS));
        let maximum = theirs("RELEASE_DELAY_MAXIMUM");
        assert_eq!(maximum, u64::from(RELEASE_DELAY_SECONDS));
        assert_eq!(theirs("SECONDS_PER_DAY"), SECONDS_PER_DAY);
    }

    #[test]
    fn a_voucher_is_paid_once_less_the_fee_and_its_own_cost() {
        let mut bench = Bench::new();
        bench.allocate(2, TON).unwrap();
        assert_eq!(bench.vault.reserved(), nano(TON));
        let paid = bench.settle(2, TON / 2).unwrap().unwrap();
        // Half a TON, less one percent, less what the message cost.
        assert_eq!(paid.amount, nano(495_000_000 - 1_000_000));
        assert_eq!(paid.to, PAYOUT);
        assert_eq!(bench.vault.accrued(), nano(5_000_000));
        assert_eq!(bench.vault.reserved(), nano(TON / 2));
        let allocation = *bench.vault.allocation(&provider(2).id()).unwrap();
        assert_eq!(allocation.paid, nano(TON / 2));
        assert_eq!(allocation.receipts_root, [7; 32]);
        assert_eq!(bench.settle(2, TON / 2), Err(VaultError::NothingToSettle));
        assert_eq!(bench.settle(2, TON / 4), Err(VaultError::NothingToSettle));
        let too_little = TON / 2 + 4_000_000;
        assert_eq!(bench.settle(2, too_little), Err(VaultError::TooSmall));
        let internal = Message::SettleInternal(bench.voucher(2, too_little));
        let paid = bench.send(&internal).unwrap().unwrap();
        assert_eq!(paid.amount, nano(3_960_000), "who pays the gas may settle any amount");
    }

    #[test]
    fn a_promise_beyond_the_limit_is_worth_the_limit() {
        let mut bench = Bench::new();
        bench.allocate(2, TON).unwrap();
        bench.allocate(3, TON).unwrap();
        bench.settle(2, 5 * TON).unwrap();
        let provider = provider(2).id();
        assert_eq!(bench.vault.allocation(&provider).unwrap().paid, nano(TON));
        assert_eq!(bench.vault.reserved(), nano(TON), "the other's is untouched");
        assert_eq!(bench.settle(2, 5 * TON), Err(VaultError::NothingToSettle));
        bench.now += DAY;
        bench.allocate(2, TON).unwrap();
        bench.settle(2, 5 * TON).unwrap();
        assert_eq!(bench.vault.allocation(&provider).unwrap().paid, nano(2 * TON));
    }

    #[test]
    fn a_settlement_needs_both_signatures_outside_and_one_inside() {
        let mut bench = Bench::new();
        bench.allocate(2, TON).unwrap();
        let voucher = bench.voucher(2, TON);
        let consent = voucher.consent(&provider(3));
        let refused = bench.send(&Message::SettleExternal { voucher, consent });
        assert_eq!(refused, Err(VaultError::NoConsent));
        let stranger = VaultKey::from_secret(&[8; 32]);
        let forged = stranger.sign(voucher.voucher);
        let refused = bench.send(&Message::SettleInternal(forged));
        assert_eq!(refused, Err(VaultError::BadSignature));
        let elsewhere = ChannelId { vault: address(2), ..bench.channel(2) };
        let elsewhere = key().sign(elsewhere.voucher(nano(TON), [0; 32]));
        let refused = bench.send(&Message::SettleInternal(elsewhere));
        assert_eq!(refused, Err(VaultError::WrongVault));
        let nobody = bench.voucher(5, TON);
        let refused = bench.send(&Message::SettleInternal(nobody));
        assert_eq!(refused, Err(VaultError::NoAllocation));
        assert!(bench.send(&Message::SettleInternal(voucher)).is_ok());
    }

    #[test]
    fn an_allocation_made_again_does_not_revive_old_vouchers() {
        let mut bench = Bench::new();
        bench.allocate(2, TON / 2).unwrap();
        let old = bench.voucher(2, TON / 2);
        bench.release(2, 0).unwrap();
        bench.allocate(2, TON).unwrap();
        let refused = bench.send(&Message::SettleInternal(old));
        assert_eq!(refused, Err(VaultError::WrongEpoch));
    }

    #[test]
    fn a_release_by_the_consumer_leaves_the_provider_its_time() {
        let mut bench = Bench::new();
        bench.allocate(2, TON).unwrap();
        let id = provider(2).id();
        let finalize = Command::FinalizeRelease(id);
        assert_eq!(bench.command(finalize.clone()), Err(VaultError::TooEarly));
        bench.command(Command::RequestRelease(id)).unwrap();
        let again = bench.command(Command::RequestRelease(id));
        assert_eq!(again, Err(VaultError::AlreadyReleasing));
        bench.now += 3_599;
        assert_eq!(bench.command(finalize.clone()), Err(VaultError::TooEarly));
        bench.settle(2, TON / 4).unwrap();
        bench.now += 1;
        assert_eq!(bench.settle(2, TON / 2), Err(VaultError::Released));
        bench.command(finalize.clone()).unwrap();
        assert_eq!(bench.vault.reserved(), NanoTon::ZERO);
        assert_eq!(bench.command(finalize), Err(VaultError::NoAllocation));
    }

    #[test]
    fn allocating_again_cancels_a_release() {
        let mut bench = Bench::new();
        bench.allocate(2, TON).unwrap();
        bench.command(Command::RequestRelease(provider(2).id())).unwrap();
        bench.allocate(2, 0).unwrap();
        bench.now += 3_600;
        assert!(bench.settle(2, TON / 2).is_ok());
        let finalize = bench.command(Command::FinalizeRelease(provider(2).id()));
        assert_eq!(finalize, Err(VaultError::TooEarly));
    }

    #[test]
    fn a_release_by_the_provider_pays_and_frees_at_once() {
        let mut bench = Bench::new();
        bench.allocate(2, TON).unwrap();
        bench.settle(2, TON / 4).unwrap();
        assert_eq!(bench.release(2, TON + 1), Err(VaultError::OverLimit));
        let unsigned = Release {
            vault: bench.vault.address(),
            provider: provider(2).id(),
            epoch: 1,
            cumulative: NanoTon::ZERO,
        };
        let mut by_other = unsigned.sign(&provider(3));
        let refused = bench.command(Command::Release(by_other));
        assert_eq!(refused, Err(VaultError::BadSignature));
        by_other.release.epoch = 2;
        let refused = bench.command(Command::Release(by_other));
        assert_eq!(refused, Err(VaultError::WrongEpoch));
        let paid = bench.release(2, TON / 2).unwrap().unwrap();
        assert_eq!(paid.amount, nano(247_500_000), "a quarter, less one percent");
        assert_eq!(bench.vault.reserved(), NanoTon::ZERO);
        assert_eq!(bench.vault.allocations().len(), 0);
    }

    #[test]
    fn a_release_below_what_was_settled_takes_nothing_back() {
        let mut bench = Bench::new();
        bench.allocate(2, TON).unwrap();
        bench.settle(2, TON / 2).unwrap();
        let balance = bench.vault.balance();
        assert_eq!(bench.release(2, TON / 4), Ok(None));
        assert_eq!(bench.vault.balance(), balance.saturating_sub(FEES.used));
    }

    #[test]
    fn nothing_is_allocated_twice() {
        let mut bench = Bench::with(|parameters| parameters.daily_cap = NanoTon::MAX);
        let free = bench.vault.free().saturating_sub(FEES.bound).as_nano();
        let refused = bench.allocate(2, free + 1);
        assert_eq!(refused, Err(VaultError::InsufficientFunds));
        bench.allocate(2, free).unwrap();
        assert_eq!(bench.allocate(3, 1), Err(VaultError::InsufficientFunds));
        let withdraw = bench.command(Command::Withdraw(nano(TON)));
        assert_eq!(withdraw, Err(VaultError::InsufficientFunds));
        // A release can still be asked for, out of the reserve.
        assert!(bench.command(Command::RequestRelease(provider(2).id())).is_ok());
    }

    #[test]
    fn allocations_are_checked() {
        let mut bench = Bench::new();
        let mut refused = |change: fn(&mut AllocationRequest)| {
            let mut request = request(2, TON);
            change(&mut request);
            bench.command(Command::Allocate(request)).unwrap_err()
        };
        let error = refused(|r| r.provider = NodeId::from_bytes([0; 32]));
        assert_eq!(error, VaultError::BadProvider);
        let error = refused(|r| {
            let mut identity = [0; 32];
            identity[0] = 1;
            r.provider = NodeId::from_bytes(identity);
        });
        assert_eq!(error, VaultError::BadProvider);
        assert_eq!(refused(|r| r.payout = address(0)), VaultError::BadPayout);
        assert_eq!(refused(|r| r.payout = address(1)), VaultError::BadPayout);
        assert_eq!(refused(|r| r.payout.workchain = -1), VaultError::BadPayout);
        assert_eq!(refused(|r| r.amount = NanoTon::ZERO), VaultError::ZeroAmount);
        bench.allocate(2, TON / 2).unwrap();
        let mut other = request(2, 1);
        other.payout = address(0x51);
        let refused = bench.command(Command::Allocate(other));
        assert_eq!(refused, Err(VaultError::PayoutDiffers));
        assert_eq!(bench.allocate(2, u64::MAX), Err(VaultError::AmountOverflow));
    }

    #[test]
    fn places_are_bounded() {
        let mut bench = Bench::new();
        for number in 0..VAULT_ALLOCATIONS {
            bench.allocate(u8::try_from(number).unwrap() + 2, 1_000).unwrap();
        }
        assert_eq!(bench.allocate(200, 1_000), Err(VaultError::TooManyAllocations));
        assert!(bench.allocate(2, 1_000).is_ok(), "but one may grow");
    }

    #[test]
    fn the_hot_key_is_capped_by_the_day_and_the_owner_is_not() {
        let mut bench = Bench::new();
        bench.allocate(2, TON).unwrap();
        bench.allocate(2, TON).unwrap();
        assert_eq!(bench.allocate(2, 1), Err(VaultError::DailyCap));
        let seqno = bench.vault.seqno();
        bench.owner(Command::Allocate(request(3, TON))).unwrap();
        assert_eq!(bench.vault.seqno(), seqno, "the owner's commands have none");
        bench.now += DAY;
        assert!(bench.allocate(2, 2 * TON).is_ok());
        assert_eq!(bench.allocate(2, 1), Err(VaultError::DailyCap));
    }

    #[test]
    fn orders_work_once_in_time_by_the_right_key_for_this_vault() {
        let mut bench = Bench::new();
        let order = bench.order(Command::Withdraw(nano(TON)));
        let mut refused = |change: fn(&mut Order)| {
            let mut order = order.clone();
            change(&mut order);
            bench.send(&Message::Order(order)).unwrap_err()
        };
        assert_eq!(refused(|o| o.vault = address(2)), VaultError::WrongVault);
        assert_eq!(refused(|o| o.seqno = 1), VaultError::WrongSeqno);
        assert_eq!(
            refused(|o| o.valid_until = Timestamp::from_unix_secs(20_000 * DAY - 1)),
            VaultError::Expired
        );
        let stranger = VaultKey::from_secret(&[8; 32]).public();
        let mut forged = order.clone();
        forged.signer = stranger;
        let refused = bench.send(&Message::Order(forged));
        assert_eq!(refused, Err(VaultError::BadSignature));
        let message = Message::Order(order);
        let (to, amount) = (OWNER, nano(TON));
        assert_eq!(bench.send(&message), Ok(Some(Transfer { to, amount })));
        assert_eq!(bench.send(&message), Err(VaultError::WrongSeqno));
        let by_stranger = Message::OwnerCommand { from: address(0x77), command: Command::Close };
        assert_eq!(bench.send(&by_stranger), Err(VaultError::NotOwner));
    }

    #[test]
    fn a_bad_entry_undoes_its_batch_and_uses_the_order_up() {
        let mut bench = Bench::new();
        let batch = Command::Rebalance(vec![request(2, TON), request(3, 0)]);
        let before = bench.vault.clone();
        assert_eq!(bench.owner(batch.clone()), Err(VaultError::ZeroAmount));
        assert_eq!(bench.vault, before, "sent by the owner it bounces");
        assert_eq!(bench.command(batch), Err(VaultError::ZeroAmount));
        assert_eq!(bench.vault.allocations().len(), 0);
        assert_eq!(bench.vault.reserved(), NanoTon::ZERO);
        assert_eq!(bench.vault.seqno(), before.seqno() + 1, "it cannot be replayed");
        assert_eq!(bench.allocate(2, TON + 1), Err(VaultError::DailyCap));
        for bad in [vec![], vec![request(2, 1); BATCH + 1]] {
            let refused = bench.command(Command::Rebalance(bad));
            assert_eq!(refused, Err(VaultError::BadBatch));
        }
        let good = vec![request(2, TON / 2), request(3, TON / 4), request(2, TON / 4)];
        bench.command(Command::Rebalance(good)).unwrap();
        assert_eq!(bench.vault.reserved(), nano(TON));
        assert_eq!(bench.vault.allocations().len(), 2);
    }

    #[test]
    fn unsound_parameters_allocate_nothing() {
        let changes: [fn(&mut Parameters); 2] = [
            |parameters| parameters.fee_basis_points = 1_001,
            |parameters| parameters.release_delay = 2_592_001,
        ];
        for change in changes {
            let mut bench = Bench::with(change);
            assert_eq!(bench.allocate(2, TON), Err(VaultError::BadParameters));
            assert!(bench.command(Command::Withdraw(nano(TON))).is_ok());
        }
    }

    #[test]
    fn the_fee_is_swept_when_it_is_worth_it() {
        let mut bench = Bench::with(|parameters| parameters.fee_basis_points = 1_000);
        bench.allocate(2, TON).unwrap();
        bench.settle(2, TON - 10).unwrap();
        assert_eq!(bench.send(&Message::Sweep), Err(VaultError::TooSmall));
        bench.send(&Message::SettleInternal(bench.voucher(2, TON))).unwrap();
        let swept = bench.send(&Message::Sweep).unwrap().unwrap();
        assert_eq!(swept.to, address(0x41));
        assert_eq!(swept.amount, nano(TON / 10 - 1_000_000));
        assert_eq!(bench.vault.accrued(), NanoTon::ZERO);
    }

    #[test]
    fn a_shortfall_is_nobodys_gain() {
        let mut bench = Bench::new();
        bench.allocate(2, TON).unwrap();
        // Rent of years, which the model does not charge.
        bench.vault.balance = nano(TON - 1);
        assert_eq!(bench.settle(2, TON), Err(VaultError::Underfunded));
        let internal = Message::SettleInternal(bench.voucher(2, TON));
        assert_eq!(bench.send(&internal), Err(VaultError::Underfunded));
        bench.send(&Message::TopUp(nano(1))).unwrap();
        assert!(bench.settle(2, TON).is_ok());
    }

    #[test]
    fn a_closed_vault_keeps_its_rent() {
        let mut bench = Bench::new();
        bench.allocate(2, TON).unwrap();
        assert_eq!(bench.command(Command::Close), Err(VaultError::NotEmpty));
        bench.release(2, 0).unwrap();
        let sent = bench.command(Command::Close).unwrap().unwrap();
        assert_eq!(sent.to, OWNER);
        let rest = bench.vault.balance();
        assert_eq!(rest, nano(5_000_000 + 4_000_000 - 900_000));
        assert_eq!(bench.command(Command::Close), Err(VaultError::InsufficientFunds));
    }

    #[test]
    fn a_rotation_ends_the_old_keys_orders_and_none_of_its_promises() {
        let mut bench = Bench::new();
        bench.allocate(2, TON).unwrap();
        let next = VaultKey::from_secret(&[10; 32]);
        let id = provider(2).id();
        let waiting = bench.order(Command::Withdraw(nano(1)));
        assert_eq!(bench.command(Command::RotateKey(next.public())), Err(VaultError::NotOwner));
        for bytes in [[0; 32], std::array::from_fn(|index| u8::from(index == 0))] {
            let unusable = Command::RotateKey(VaultPublicKey::from_bytes(bytes));
            assert_eq!(bench.owner(unusable), Err(VaultError::BadKey));
        }
        bench.owner(Command::RotateKey(next.public())).unwrap();
        assert_eq!((bench.vault.key(), bench.vault.key_of(&id)), (&next.public(), &key().public()));
        assert_eq!(bench.allocate(3, 1), Err(VaultError::BadSignature));
        assert_eq!(bench.owner(Command::Allocate(request(2, 1))), Err(VaultError::OtherKey));
        let by_next = next.sign(bench.voucher(2, TON).voucher);
        let refused = bench.send(&Message::SettleInternal(by_next));
        assert_eq!(refused, Err(VaultError::BadSignature));
        bench.settle(2, TON).unwrap();
        bench.owner(Command::Allocate(request(3, TON))).unwrap();
        assert_eq!(bench.settle(3, TON), Err(VaultError::BadSignature));
        let by_next = next.sign(bench.voucher(3, TON).voucher);
        bench.send(&Message::SettleInternal(by_next)).unwrap();
        // Back to the first key: what it had ordered meanwhile stays void.
        bench.owner(Command::RotateKey(key().public())).unwrap();
        assert_eq!(bench.send(&Message::Order(waiting)), Err(VaultError::WrongSeqno));
        assert_eq!(bench.owner(Command::Allocate(request(3, 1))), Err(VaultError::OtherKey));
        assert!(bench.allocate(2, 1).is_ok(), "the allocation's key is in force again");
    }

    #[test]
    fn an_internal_settlement_brings_its_own_fees() {
        let mut bench = Bench::new();
        bench.allocate(2, TON).unwrap();
        let message = Message::SettleInternal(bench.voucher(2, TON));
        let short = FEES.bound.as_nano() + FEES.transfer.as_nano() - 1;
        let fees = Fees { brought: nano(short), ..FEES };
        let now = Timestamp::from_unix_secs(bench.now);
        assert_eq!(bench.vault.handle(&message, fees, now), Err(VaultError::TooSmall));
        let fees = Fees { brought: nano(short + 1), ..FEES };
        assert!(bench.vault.handle(&message, fees, now).is_ok());
    }
}
