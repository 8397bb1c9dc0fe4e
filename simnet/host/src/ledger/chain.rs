//! Accounts and blocks: what is executed, when, and what of it can still be undone.
//!
//! Owns: wallets, vaults, the pool of messages, and a journal of the newest blocks.
//! Must not: know who waits for what; the desk looks.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use cocoon_protocol::channel::settlement::{
    Command, Message, Parameters, Transfer, Vault, VaultError,
};
use cocoon_protocol::channel::{Allocation, ChannelId};
use cocoon_protocol::identity::{NodeId, TonAddress};
use cocoon_protocol::units::{NanoTon, Timestamp};
use simnet_scenario::Moment;

use super::books::{Books, wide};
use super::fact::LedgerFact;
use super::gas;
use crate::fabric::HostId;
use crate::mutation::{Mutation, planted};

/// Addresses are hashes, so that their first bytes are one. A tree of a hundred thousand would be a
/// dozen waits for memory at each look.
type ByAddress<T> = HashMap<TonAddress, T, BuildHasherDefault<Head>>;

/// The first eight bytes of an address.
#[derive(Clone, Copy, Debug, Default)]
struct Head(u64);

impl Hasher for Head {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(head) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*head);
        }
    }

    // The workchain, and the length of the hash: the same in all.
    fn write_i8(&mut self, _: i8) {}

    fn write_usize(&mut self, _: usize) {}
}

/// A vault's place in the list of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VaultIndex(pub(super) u32);

/// A wallet's place in the list of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WalletIndex(u32);

/// A vault and who holds it.
#[derive(Clone, Debug)]
pub(super) struct VaultAccount {
    pub(super) host: HostId,
    pub(super) vault: Vault,
    /// Whether its contract is on the chain.
    pub(super) deployed: bool,
    /// All that was paid out of it to providers.
    pub(super) spent: NanoTon,
}

/// Somebody's money outside a vault.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wallet {
    pub(super) balance: NanoTon,
    /// All that came out of vaults as payment.
    pub(super) income: NanoTon,
    /// A transfer is executed once: its number must be this.
    pub(super) seqno: u32,
}

/// Something that is sent to the chain from outside.
#[derive(Clone, Debug)]
pub(super) enum Sent {
    /// A wallet's transfer that opens a vault.
    Open { wallet: TonAddress, seqno: u32, vault: VaultIndex, amount: NanoTon },
    /// A message to a vault.
    ToVault { vault: VaultIndex, message: Box<Message> },
}

/// A message that somebody waits for, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// What has become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// No block has it yet.
    Waits,
    /// The block of this height has it.
    Executed(u64),
    /// No block will have it.
    Refused,
}

/// A message in the pool.
#[derive(Clone, Debug)]
struct Pending {
    from: HostId,
    ticket: Ticket,
    sent: Sent,
}

/// What a block did, and how it was before.
#[derive(Debug, Default)]
struct Block {
    height: u64,
    books: Books,
    vaults: BTreeMap<VaultIndex, VaultAccount>,
    wallets: BTreeMap<WalletIndex, Wallet>,
    executed: Vec<Pending>,
    facts: Vec<LedgerFact>,
}

/// The chain.
#[derive(Debug, Default)]
pub(super) struct Chain {
    books: Books,
    vaults: Vec<VaultAccount>,
    /// For finding only, like the next: neither has an order that means anything.
    vault_of: ByAddress<VaultIndex>,
    wallets: Vec<Wallet>,
    wallet_of: ByAddress<WalletIndex>,
    /// By the moment from which a block may take them, then by their order.
    pool: BTreeMap<(Moment, u64), Pending>,
    serial: u64,
    /// Messages that somebody waits for.
    fates: BTreeMap<Ticket, Fate>,
    /// The newest blocks that did anything, oldest first.
    journal: VecDeque<Block>,
    facts: Vec<LedgerFact>,
}

impl Chain {
    pub(super) const fn books(&self) -> Books {
        self.books
    }

    /// The books, counted anew from every account. Costs a look at each.
    pub(super) fn audit(&self) -> Books {
        let nano = |amount: NanoTon| u128::from(amount.as_nano());
        Books {
            vaults: self.vaults.iter().map(|account| nano(account.vault.balance())).sum(),
            wallets: self.wallets.iter().map(|wallet| nano(wallet.balance)).sum(),
            ..self.books
        }
    }

    /// What happened since this was asked last.
    pub(super) fn take_facts(&mut self) -> Vec<LedgerFact> {
        std::mem::take(&mut self.facts)
    }

    /// The vault of these terms; it need not be on the chain yet.
    pub(super) fn vault(
        &mut self,
        host: HostId,
        address: TonAddress,
        parameters: impl FnOnce() -> Parameters,
    ) -> VaultIndex {
        if let Some(index) = self.vault_of.get(&address) {
            return *index;
        }
        let index = VaultIndex(u32::try_from(self.vaults.len()).unwrap_or(u32::MAX));
        let vault = Vault::new(address, parameters());
        self.vaults.push(VaultAccount { host, vault, deployed: false, spent: NanoTon::ZERO });
        self.vault_of.insert(address, index);
        index
    }

    pub(super) fn vault_at(&self, address: TonAddress) -> Option<VaultIndex> {
        self.vault_of.get(&address).copied()
    }

    /// A vault as the newest block has it, or a message has made it since.
    pub(super) fn account(&self, index: VaultIndex) -> Option<&VaultAccount> {
        self.vaults.get(usize::try_from(index.0).ok()?)
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = &VaultAccount> {
        self.vaults.iter()
    }

    /// A vault as the block of this height had it; `None` when it was not on the chain then.
    pub(super) fn shown(&self, index: VaultIndex, height: u64) -> Option<&Vault> {
        let younger = self.journal.iter().filter(|block| block.height > height);
        let then = younger.filter_map(|block| block.vaults.get(&index)).next();
        let account = then.or_else(|| self.account(index))?;
        account.deployed.then_some(&account.vault)
    }

    /// A wallet as it is now; `None` if it never had anything.
    pub(super) fn wallet(&self, address: TonAddress) -> Option<&Wallet> {
        let index = self.wallet_of.get(&address)?;
        self.wallets.get(usize::try_from(index.0).ok()?)
    }

    /// The faucet gives money, outside any block.
    pub(super) fn mint(&mut self, host: HostId, address: TonAddress, amount: NanoTon) {
        let index = self.wallet_index(address);
        let nano = u128::from(amount.as_nano());
        let grow = |books: &mut Books| {
            books.minted = books.minted.saturating_add(nano);
            books.wallets = books.wallets.saturating_add(nano);
        };
        if let Some(wallet) = self.wallet_mut(index) {
            wallet.balance = wallet.balance.saturating_add(amount);
        }
        grow(&mut self.books);
        // What a reorganisation goes back to has the money too.
        for block in &mut self.journal {
            grow(&mut block.books);
            if let Some(wallet) = block.wallets.get_mut(&index) {
                wallet.balance = wallet.balance.saturating_add(amount);
            }
        }
        self.facts.push(LedgerFact::Funded { host, amount });
    }

    fn wallet_index(&mut self, address: TonAddress) -> WalletIndex {
        let next = WalletIndex(u32::try_from(self.wallets.len()).unwrap_or(u32::MAX));
        let index = *self.wallet_of.entry(address).or_insert(next);
        if index == next {
            self.wallets.push(Wallet::default());
        }
        index
    }

    fn wallet_mut(&mut self, index: WalletIndex) -> Option<&mut Wallet> {
        self.wallets.get_mut(usize::try_from(index.0).ok()?)
    }

    /// Takes a message into the pool; a block may have it from `eligible` on. Its fate is kept
    /// until it is dropped.
    pub(super) fn send(&mut self, from: HostId, sent: Sent, eligible: Moment) -> Ticket {
        let ticket = Ticket(self.serial);
        self.fates.insert(ticket, Fate::Waits);
        self.queue(Pending { from, ticket, sent }, eligible);
        ticket
    }

    /// A ticket of no message, for who waits for somebody else's.
    pub(super) const fn no_ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.serial);
        self.serial = self.serial.saturating_add(1);
        ticket
    }

    fn queue(&mut self, pending: Pending, eligible: Moment) {
        self.pool.insert((eligible, self.serial), pending);
        self.serial = self.serial.saturating_add(1);
    }

    /// What has become of a message.
    pub(super) fn fate(&self, ticket: Ticket) -> Fate {
        self.fates.get(&ticket).copied().unwrap_or(Fate::Refused)
    }

    /// Nobody waits for this message any more. It is executed all the same.
    pub(super) fn drop_ticket(&mut self, ticket: Ticket) {
        self.fates.remove(&ticket);
    }

    fn decide(&mut self, ticket: Ticket, fate: Fate) {
        if let Some(known) = self.fates.get_mut(&ticket) {
            *known = fate;
        }
    }

    /// From when on the next message waits for a block.
    pub(super) fn next_eligible(&self) -> Option<Moment> {
        self.pool.first_key_value().map(|((eligible, _), _)| *eligible)
    }

    /// Makes the block of this height out of what waits at `now`, and forgets blocks below
    /// `oldest`.
    pub(super) fn make_block(&mut self, height: u64, oldest: u64, now: Moment, clock: Timestamp) {
        while self.journal.front().is_some_and(|block| block.height < oldest) {
            self.journal.pop_front();
        }
        let later = self.pool.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.pool, later);
        let mut block = Block { height, books: self.books, ..Block::default() };
        for pending in due.into_values() {
            self.execute(pending, clock, &mut block);
        }
        self.facts.extend(block.facts.iter().cloned());
        if !block.vaults.is_empty() || !block.wallets.is_empty() {
            self.journal.push_back(block);
        }
    }

    /// Undoes every block above `height`. What was in them is in the pool again, each message from
    /// the moment that `again` says.
    pub(super) fn undo(&mut self, height: u64, mut again: impl FnMut() -> Moment) {
        while self.journal.back().is_some_and(|block| block.height > height) {
            let Some(block) = self.journal.pop_back() else { return };
            for (index, before) in block.vaults {
                let place = usize::try_from(index.0).ok();
                if let Some(account) = place.and_then(|place| self.vaults.get_mut(place)) {
                    *account = before;
                }
            }
            for (index, before) in block.wallets {
                if let Some(wallet) = self.wallet_mut(index) {
                    *wallet = before;
                }
            }
            self.books = block.books;
            let undone = block.facts.into_iter().rev().map(|it| LedgerFact::Undone(Box::new(it)));
            self.facts.extend(undone);
            for pending in block.executed {
                self.decide(pending.ticket, Fate::Waits);
                self.queue(pending, again());
            }
        }
    }

    fn execute(&mut self, pending: Pending, clock: Timestamp, block: &mut Block) {
        let done = match &pending.sent {
            Sent::Open { wallet, seqno, vault, amount } => {
                self.open(*wallet, *seqno, *vault, *amount, block)
            }
            Sent::ToVault { vault, message } => match self.say(*vault, message, clock, block) {
                Ok(()) => true,
                Err(error) => {
                    // Nobody is charged for what no block takes.
                    block.facts.push(LedgerFact::Refused { host: pending.from, error });
                    false
                }
            },
        };
        self.decide(
            pending.ticket,
            if done { Fate::Executed(block.height) } else { Fate::Refused },
        );
        if done {
            block.executed.push(pending);
        }
    }

    /// A wallet opens a vault. False when the wallet refuses: another transfer came first, or there
    /// is too little in it.
    fn open(
        &mut self,
        from: TonAddress,
        seqno: u32,
        index: VaultIndex,
        amount: NanoTon,
        block: &mut Block,
    ) -> bool {
        let wallet = self.wallet_index(from);
        let Some(before) = self.wallet_mut(wallet).copied() else { return false };
        let cost = amount.saturating_add(gas::WALLET_TRANSFER);
        let arrives = amount.saturating_sub(gas::DEPLOY);
        let Some(balance) = before.balance.checked_sub(cost) else { return false };
        if before.seqno != seqno {
            return false;
        }
        self.change_wallet(wallet, block, |it| {
            it.balance = balance;
            it.seqno = it.seqno.wrapping_add(1);
        });
        let top_up = Message::TopUp(arrives);
        self.change_vault(index, block, |account| {
            account.deployed = true;
            let _always_arrives =
                account.vault.handle(&top_up, gas::fees(&top_up, 0), Timestamp::EPOCH);
        });
        self.books.charge(gas::WALLET_TRANSFER);
        self.books.charge(amount.saturating_sub(arrives));
        if let Some(account) = self.account(index) {
            let (host, vault) = (account.host, account.vault.address());
            block.facts.push(LedgerFact::Opened { host, vault, deposit: arrives });
        }
        true
    }

    /// What a vault would say to a message now.
    pub(super) fn try_out(
        &self,
        index: VaultIndex,
        message: &Message,
        clock: Timestamp,
    ) -> Result<(), VaultError> {
        let Some(account) = self.account(index).filter(|account| account.deployed) else {
            return Ok(());
        };
        let fees = gas::fees(message, account.vault.allocations().len());
        account.vault.clone().handle(message, fees, clock).map(|_| ())
    }

    /// A message reaches a vault. A refusal leaves everything as it was; the one that the contract
    /// accepts first is a bad batch, which nobody sends here.
    fn say(
        &mut self,
        index: VaultIndex,
        message: &Message,
        clock: Timestamp,
        block: &mut Block,
    ) -> Result<(), VaultError> {
        let Some(account) = self.account(index).filter(|account| account.deployed) else {
            return Err(VaultError::WrongVault);
        };
        let fees = gas::fees(message, account.vault.allocations().len());
        let mut vault = account.vault.clone();
        let old = about(message).and_then(|id| account.vault.allocation(&id).copied());
        let transfer = vault.handle(message, fees, clock)?;
        let new = about(message).and_then(|id| vault.allocation(&id).copied());
        let replayed = planted(Mutation::SettlementReplayed)
            && matches!(message, Message::SettleExternal { .. });
        let is_release = matches!(message, Message::Order(order)
            if matches!(order.command, Command::Release(_)));
        if replayed {
            // The bug pays out of nothing, and hides that from the books.
            let nothing = wide(account.vault.balance().saturating_sub(vault.balance()));
            self.books.minted = self.books.minted.saturating_add(nothing);
        } else {
            self.change_vault(index, block, |it| it.vault = vault);
        }
        self.books.charge(fees.used);
        let mut arrived = NanoTon::ZERO;
        if let Some(Transfer { to, amount }) = transfer {
            // The contract pays a release's forward fee; of any other transfer it is taken.
            arrived = if is_release { amount } else { amount.saturating_sub(fees.transfer) };
            let fee = if is_release { fees.transfer } else { amount.saturating_sub(arrived) };
            self.books.charge(fee);
            self.pay(index, to, arrived, block);
        }
        self.tell(index, message, [old, new], arrived, block);
        Ok(())
    }

    fn pay(&mut self, from: VaultIndex, to: TonAddress, amount: NanoTon, block: &mut Block) {
        let payee = self.wallet_index(to);
        let own = self.account(from).is_some_and(|it| it.vault.parameters().owner == to);
        let times: u8 = if planted(Mutation::PaidTwice) && !own { 2 } else { 1 };
        self.change_wallet(payee, block, |wallet| {
            for _ in 0..times {
                wallet.balance = wallet.balance.saturating_add(amount);
            }
            if !own {
                wallet.income = wallet.income.saturating_add(amount);
            }
        });
        if !own {
            self.change_vault(from, block, |it| it.spent = it.spent.saturating_add(amount));
        }
    }

    fn tell(
        &self,
        index: VaultIndex,
        message: &Message,
        [old, new]: [Option<Allocation>; 2],
        arrived: NanoTon,
        block: &mut Block,
    ) {
        let Some(account) = self.account(index) else { return };
        let vault = account.vault.address();
        let Some(provider) = about(message) else {
            if arrived > NanoTon::ZERO {
                block.facts.push(LedgerFact::Withdrawn { host: account.host, arrived });
            }
            return;
        };
        let Some(allocation) = new.or(old) else { return };
        let channel = ChannelId { vault, provider, epoch: allocation.epoch };
        let before = old.map_or(NanoTon::ZERO, |old| old.paid);
        let (limit, paid) = (allocation.limit, allocation.paid);
        let returned = allocation.remainder();
        let fact = match message {
            Message::SettleExternal { voucher, .. } | Message::SettleInternal(voucher) => {
                let promised = voucher.voucher.cumulative;
                LedgerFact::Settled { channel, promised, before, paid, limit, arrived }
            }
            Message::Order(order) => match &order.command {
                Command::Allocate(_) => LedgerFact::Allocated { channel, limit },
                Command::RequestRelease(_) => LedgerFact::ReleaseRequested { channel },
                Command::Release(signed) => {
                    let due = signed.release.cumulative.saturating_sub(paid);
                    LedgerFact::Released { channel, returned: returned.saturating_sub(due) }
                }
                Command::FinalizeRelease(_)
                | Command::Rebalance(_)
                | Command::Withdraw(_)
                | Command::Close
                | Command::RotateKey(_) => LedgerFact::Released { channel, returned },
            },
            Message::TopUp(_) | Message::OwnerCommand { .. } | Message::Sweep => return,
        };
        block.facts.push(fact);
    }

    fn change_vault(
        &mut self,
        index: VaultIndex,
        block: &mut Block,
        change: impl FnOnce(&mut VaultAccount),
    ) {
        let place = usize::try_from(index.0).ok();
        let Some(account) = place.and_then(|place| self.vaults.get_mut(place)) else { return };
        block.vaults.entry(index).or_insert_with(|| account.clone());
        let before = account.vault.balance();
        change(account);
        Books::moved(&mut self.books.vaults, before, account.vault.balance());
    }

    fn change_wallet(
        &mut self,
        index: WalletIndex,
        block: &mut Block,
        change: impl FnOnce(&mut Wallet),
    ) {
        let place = usize::try_from(index.0).ok();
        let Some(wallet) = place.and_then(|place| self.wallets.get_mut(place)) else { return };
        block.wallets.entry(index).or_insert(*wallet);
        let before = wallet.balance;
        change(wallet);
        Books::moved(&mut self.books.wallets, before, wallet.balance);
    }
}

/// The provider that a message is about.
fn about(message: &Message) -> Option<NodeId> {
    match message {
        Message::SettleExternal { voucher, .. } | Message::SettleInternal(voucher) => {
            Some(voucher.voucher.provider)
        }
        Message::Order(order) => match &order.command {
            Command::Allocate(request) => Some(request.provider),
            Command::RequestRelease(provider) | Command::FinalizeRelease(provider) => {
                Some(*provider)
            }
            Command::Release(signed) => Some(signed.release.provider),
            Command::Rebalance(_)
            | Command::Withdraw(_)
            | Command::Close
            | Command::RotateKey(_) => None,
        },
        Message::TopUp(_) | Message::OwnerCommand { .. } | Message::Sweep => None,
    }
}
