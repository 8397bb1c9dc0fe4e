//! What hosts wait for on the ledger, as the node's ledger desk carries it out.
//!
//! Owns: operations under way, one order at a time for a vault, time-outs, and the answers in the
//! protocol's words.
//! Must not: change an account; it sends messages and looks at what blocks have shown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cocoon_protocol::Input;
use cocoon_protocol::channel::settlement::{
    AllocationRequest, Command, Message, Order, VaultError,
};
use cocoon_protocol::channel::{SignedVoucher, VaultPublicKey};
use cocoon_protocol::identity::{NodeId, TonAddress};
use cocoon_protocol::input::{LedgerFailure, VaultSnapshot};
use cocoon_protocol::units::{Millis, NanoTon, Timestamp};
use simnet_scenario::Moment;

use super::chain::{Fate, Sent, Ticket, VaultIndex};
use super::terms::chain_time;
use super::{Ledger, gas};
use crate::fabric::HostId;

/// An order counts as never executed this long after its last second: servers may lag.
const GRACE: Millis = Millis::from_secs(15);
/// Less free money than this is not worth a withdrawal.
const WORTH_WITHDRAWING: NanoTon = NanoTon::from_nano(10_000_000);

/// An operation's number; also its order among those that are due at the same moment.
pub(super) type OperationId = u64;

/// What an order is for.
#[derive(Clone, Debug)]
pub(super) enum Aim {
    Allocate(AllocationRequest),
    /// Asks for what is left, or takes it when its time has come.
    Release(NodeId),
    /// Takes everything back, step by step, until nothing is left.
    Retire,
}

#[derive(Clone, Debug)]
pub(super) enum Task {
    Open {
        vault: VaultIndex,
        wallet: TonAddress,
        deposit: NanoTon,
    },
    Order {
        vault: VaultIndex,
        signer: VaultPublicKey,
        aim: Aim,
    },
    Read {
        vault: TonAddress,
        provider: NodeId,
    },
    Settle {
        voucher: SignedVoucher,
        consent: [u8; 64],
    },
    /// Nothing is left to do but to say so.
    Answer(Box<Input>),
}

#[derive(Clone, Debug)]
enum Stage {
    /// Nothing is sent yet.
    New,
    /// The message is under way.
    Sent { ticket: Ticket, command: Option<Command>, expires: Timestamp, deadline: Moment },
}

#[derive(Clone, Debug)]
struct Operation {
    host: HostId,
    /// Which of the host's processes waits.
    life: u32,
    task: Task,
    stage: Stage,
}

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Desk {
    operations: BTreeMap<OperationId, Box<Operation>>,
    alarms: BTreeSet<(Moment, OperationId)>,
    serial: OperationId,
    /// Operations that wait for their turn, of vaults at which one is under way.
    turns: BTreeMap<VaultIndex, VecDeque<OperationId>>,
    /// How often a host has lost its process, of those that have.
    lives: BTreeMap<HostId, u32>,
}

/// What follows from a look at an operation.
enum Next {
    /// It is over, with these words.
    Done(Option<Input>),
    /// It is over after this time: nobody answers.
    Fails(Input),
    /// Look again then.
    Again(Moment),
}

impl Desk {
    pub(super) fn next(&self) -> Option<Moment> {
        self.alarms.first().map(|(at, _)| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.operations.len()
    }

    pub(super) fn crashed(&mut self, host: HostId) {
        let life = self.lives.entry(host).or_default();
        *life = life.wrapping_add(1);
    }

    fn life(&self, host: HostId) -> u32 {
        self.lives.get(&host).copied().unwrap_or(0)
    }

    /// The operation that is due next, up to `now`.
    fn take_due(&mut self, now: Moment) -> Option<(OperationId, Box<Operation>, Moment)> {
        let due = self.alarms.first().copied().filter(|(at, _)| *at <= now)?;
        self.alarms.remove(&due);
        let operation = self.operations.remove(&due.1)?;
        Some((due.1, operation, due.0))
    }
}

impl Ledger {
    /// Takes an operation; the host's question reaches a server after half a round trip, and the
    /// answer takes as long.
    pub(super) fn start(&mut self, host: HostId, task: Task, now: Moment) {
        let id = self.desk.serial;
        self.desk.serial = id.saturating_add(1);
        let life = self.desk.life(host);
        let vault = turn_at(&task);
        let operation = Operation { host, life, task, stage: Stage::New };
        self.desk.operations.insert(id, Box::new(operation));
        if let Some(waiting) = vault.and_then(|vault| self.desk.turns.get_mut(&vault)) {
            waiting.push_back(id);
            return;
        }
        if let Some(vault) = vault {
            self.desk.turns.insert(vault, VecDeque::new());
        }
        self.desk.alarms.insert((now.after(self.terms.round_trip), id));
    }

    /// Looks at every operation whose time has come by `now`.
    pub(super) fn look(&mut self, now: Moment, answers: &mut Vec<(HostId, Input)>) {
        while let Some((id, mut operation, at)) = self.desk.take_due(now) {
            let (host, life) = (operation.host, operation.life);
            let vault = turn_at(&operation.task);
            // A vault is retired by its owner's wallet program, which outlives the node.
            let outlives = matches!(operation.task, Task::Order { aim: Aim::Retire, .. });
            let lives = life == self.desk.life(host) || outlives;
            let next = if lives { self.step(&mut operation, at) } else { Next::Done(None) };
            if let Stage::Sent { ticket, .. } = operation.stage
                && !matches!(next, Next::Again(_))
            {
                self.chain.drop_ticket(ticket);
            }
            match next {
                Next::Again(later) => {
                    self.desk.operations.insert(id, operation);
                    self.desk.alarms.insert((later, id));
                    continue;
                }
                Next::Done(answer) => {
                    answers.extend(answer.filter(|_| lives).map(|input| (host, input)));
                }
                Next::Fails(input) => {
                    let (task, stage) = (Task::Answer(Box::new(input)), Stage::New);
                    self.desk
                        .operations
                        .insert(id, Box::new(Operation { host, life, task, stage }));
                    self.desk.alarms.insert((at.after(self.terms.timeout), id));
                }
            }
            if let Some(vault) = vault {
                self.next_turn(vault, at);
            }
        }
    }

    fn next_turn(&mut self, vault: VaultIndex, now: Moment) {
        match self.desk.turns.get_mut(&vault).and_then(VecDeque::pop_front) {
            Some(id) => {
                self.desk.alarms.insert((now.after(self.terms.round_trip), id));
            }
            None => {
                self.desk.turns.remove(&vault);
            }
        }
    }

    fn step(&mut self, operation: &mut Operation, now: Moment) -> Next {
        let reachable = self.reachable(operation.host, now);
        match (&operation.task, &operation.stage) {
            (Task::Answer(input), _) => Next::Done(Some((**input).clone())),
            (task, Stage::New) if !reachable => {
                let reason = "the ledger's server does not answer";
                no_answer(task, reason).map_or_else(|| self.later(now), Next::Fails)
            }
            (_, Stage::New) => self.begin(operation, now),
            (_, Stage::Sent { .. }) => self.check(operation, reachable, now),
        }
    }

    fn later(&self, now: Moment) -> Next {
        Next::Again(now.after(self.terms.pause))
    }

    fn begin(&mut self, operation: &mut Operation, now: Moment) -> Next {
        match operation.task.clone() {
            Task::Open { vault, wallet, deposit } => {
                self.begin_open(operation, vault, wallet, deposit, now)
            }
            Task::Order { vault, signer, aim } => {
                self.begin_order(operation, vault, signer, &aim, now)
            }
            Task::Read { vault, provider } => {
                let snapshot = Ok(self.snapshot(vault, provider, now));
                Next::Done(Some(Input::VaultRead { vault, snapshot }))
            }
            Task::Settle { voucher, consent } => {
                self.begin_settlement(operation, voucher, consent, now)
            }
            Task::Answer(input) => Next::Done(Some(*input)),
        }
    }

    fn begin_open(
        &mut self,
        operation: &mut Operation,
        vault: VaultIndex,
        wallet: TonAddress,
        deposit: NanoTon,
        now: Moment,
    ) -> Next {
        if let Some(ready) = self.vault_ready(vault, now) {
            return Next::Done(Some(ready));
        }
        if self.chain.wallet(wallet).is_none() {
            let amount = deposit.saturating_add(self.terms.pocket_money);
            self.chain.mint(operation.host, wallet, amount);
        }
        let known = self.chain.wallet(wallet).copied().unwrap_or_default();
        let (needed, available) = (deposit.saturating_add(gas::TRANSFER_RESERVE), known.balance);
        // An earlier process may have opened it a moment ago: then this transfer is the second with
        // its number, and the wait is for the first.
        let opening = self.chain.account(vault).is_some_and(|account| account.deployed);
        if needed > available && !opening {
            let failure = LedgerFailure::NoFunds { needed, available };
            return Next::Done(Some(Input::VaultFailed { failure }));
        }
        let sent = Sent::Open { wallet, seqno: known.seqno, vault, amount: deposit };
        if opening {
            self.wait(operation, None, now)
        } else {
            self.send(operation, sent, None, now)
        }
    }

    fn begin_order(
        &mut self,
        operation: &mut Operation,
        vault: VaultIndex,
        signer: VaultPublicKey,
        aim: &Aim,
        now: Moment,
    ) -> Next {
        let clock = chain_time(now);
        let Some(shown) = self.chain.shown(vault, self.terms.shown(now)) else {
            return Next::Done(failed(aim, "there is no vault yet: deposit first"));
        };
        let command = match aim {
            Aim::Allocate(request) => Command::Allocate(*request),
            Aim::Release(provider) => match shown.allocation(provider).map(|it| it.unlock_at) {
                None => return Next::Done(None),
                Some(None) => Command::RequestRelease(*provider),
                Some(Some(at)) if at <= clock => Command::FinalizeRelease(*provider),
                Some(Some(_)) => return Next::Done(None),
            },
            Aim::Retire => {
                let ripe = |at: Timestamp| at <= clock;
                let mut all = shown.allocations();
                let actionable = all.find(|(_, it)| it.unlock_at.is_none_or(ripe));
                match actionable {
                    Some((provider, it)) if it.unlock_at.is_none() => {
                        Command::RequestRelease(*provider)
                    }
                    Some((provider, _)) => Command::FinalizeRelease(*provider),
                    None => {
                        let times = shown.allocations().filter_map(|(_, it)| it.unlock_at);
                        if let Some(at) = times.min() {
                            let wait = at.since(clock).to_duration();
                            return Next::Again(now.after(wait.max(self.terms.pause)));
                        }
                        let amount = shown.free().saturating_sub(WORTH_WITHDRAWING);
                        if amount == NanoTon::ZERO {
                            return Next::Done(None);
                        }
                        Command::Withdraw(amount)
                    }
                }
            }
        };
        let valid_until = clock.after(millis(self.terms.validity));
        let order = Order {
            vault: shown.address(),
            seqno: shown.seqno(),
            valid_until,
            command: command.clone(),
            signer,
        };
        let message = Message::Order(order);
        match self.chain.try_out(vault, &message, clock) {
            Ok(()) => {
                let sent = Sent::ToVault { vault, message: Box::new(message) };
                self.send(operation, sent, Some(command), now)
            }
            Err(error) => match aim {
                // Something else is on its way to the vault; the owner's program tries again.
                Aim::Retire => self.later(now),
                Aim::Allocate(request) if error == VaultError::InsufficientFunds => {
                    let (needed, available) = (request.amount, NanoTon::ZERO);
                    let failure = LedgerFailure::NoFunds { needed, available };
                    let provider = request.provider;
                    Next::Done(Some(Input::AllocationFailed { provider, failure }))
                }
                Aim::Allocate(_) | Aim::Release(_) => Next::Done(failed(aim, &error.to_string())),
            },
        }
    }

    fn begin_settlement(
        &mut self,
        operation: &mut Operation,
        voucher: SignedVoucher,
        consent: [u8; 64],
        now: Moment,
    ) -> Next {
        match self.redeemed(&voucher, now) {
            Ok(Some(done)) => return Next::Done(Some(done)),
            Ok(None) => {}
            Err(reason) => return Next::Done(Some(Input::SettleFailed { voucher, reason })),
        }
        let Some(vault) = self.chain.vault_at(voucher.voucher.vault) else {
            return Next::Done(None);
        };
        let message = Message::SettleExternal { voucher, consent };
        match self.chain.try_out(vault, &message, chain_time(now)) {
            // Somebody carried the same voucher, or a better one, a moment before.
            Err(VaultError::NothingToSettle) => self.wait(operation, None, now),
            Err(error) => {
                let reason = error.to_string();
                Next::Done(Some(Input::SettleFailed { voucher, reason }))
            }
            Ok(()) => {
                let sent = Sent::ToVault { vault, message: Box::new(message) };
                self.send(operation, sent, None, now)
            }
        }
    }

    fn send(
        &mut self,
        operation: &mut Operation,
        sent: Sent,
        command: Option<Command>,
        now: Moment,
    ) -> Next {
        let eligible = self.eligible(now);
        let ticket = self.chain.send(operation.host, sent, eligible);
        let expires = chain_time(now).after(millis(self.terms.validity));
        let deadline = now.after(self.terms.patience);
        operation.stage = Stage::Sent { ticket, command, expires, deadline };
        // The first look that can show it.
        let block = self.terms.height(eligible).saturating_add(1);
        let block = block.saturating_add(u64::from(self.terms.confirmations));
        Next::Again(self.terms.made(block).after(self.terms.pause / 2))
    }

    /// Waits for what somebody else has sent.
    fn wait(&mut self, operation: &mut Operation, command: Option<Command>, now: Moment) -> Next {
        let ticket = self.chain.no_ticket();
        let deadline = now.after(self.terms.patience);
        let expires = chain_time(now).after(millis(self.terms.patience));
        operation.stage = Stage::Sent { ticket, command, expires, deadline };
        self.later(now)
    }

    fn check(&mut self, operation: &mut Operation, reachable: bool, now: Moment) -> Next {
        let Stage::Sent { ticket, command, expires, deadline } = operation.stage.clone() else {
            return Next::Done(None);
        };
        if reachable {
            let seen = match &operation.task {
                Task::Open { vault, .. } => self.vault_ready(*vault, now),
                Task::Settle { voucher, .. } => match self.redeemed(voucher, now) {
                    Ok(done) => done,
                    Err(reason) => Some(Input::SettleFailed { voucher: *voucher, reason }),
                },
                Task::Order { vault, aim, .. } => {
                    let (vault, aim) = (*vault, aim.clone());
                    if let Some(next) =
                        self.order_shown(operation, vault, &aim, ticket, command, now)
                    {
                        return next;
                    }
                    // After its last second it is certain that an order never happens.
                    let over = self.shown_time(now) > expires.after(GRACE);
                    let waits = matches!(self.chain.fate(ticket), Fate::Executed(_));
                    if over && !waits {
                        return self.order_lost(operation, &aim, now);
                    }
                    None
                }
                Task::Read { .. } | Task::Answer(_) => None,
            };
            if seen.is_some() {
                return Next::Done(seen);
            }
        }
        if now < deadline {
            return self.later(now);
        }
        if matches!(operation.task, Task::Order { aim: Aim::Retire, .. }) {
            operation.stage = Stage::New;
            return self.later(now);
        }
        let reason = "the ledger has not confirmed the operation: look again before repeating it";
        Next::Done(no_answer(&operation.task, reason))
    }

    fn order_lost(&self, operation: &mut Operation, aim: &Aim, now: Moment) -> Next {
        if matches!(aim, Aim::Retire) {
            operation.stage = Stage::New;
            return self.later(now);
        }
        let reason = "the ledger did not execute the message in time: nothing happened, try again";
        Next::Done(failed(aim, reason))
    }

    /// What an order's execution means, once a block that hosts are shown has it.
    fn order_shown(
        &mut self,
        operation: &mut Operation,
        vault: VaultIndex,
        aim: &Aim,
        ticket: Ticket,
        command: Option<Command>,
        now: Moment,
    ) -> Option<Next> {
        let height = self.terms.shown(now);
        let Fate::Executed(block) = self.chain.fate(ticket) else { return None };
        if block > height {
            return None;
        }
        let shown = self.chain.shown(vault, height)?;
        let free = shown.free();
        Some(match aim {
            Aim::Allocate(request) => {
                let provider = request.provider;
                match shown.allocation(&provider).copied() {
                    Some(allocation) => {
                        Next::Done(Some(Input::Allocated { provider, allocation, free }))
                    }
                    None => Next::Done(failed(aim, "another operation came first: try again")),
                }
            }
            Aim::Release(provider) => {
                let provider = *provider;
                Next::Done(Some(Input::Released { provider, free }))
            }
            Aim::Retire => {
                self.chain.drop_ticket(ticket);
                operation.stage = Stage::New;
                let last = matches!(command, Some(Command::Withdraw(_)));
                if last { Next::Done(None) } else { Next::Again(now.after(self.terms.round_trip)) }
            }
        })
    }

    fn vault_ready(&self, index: VaultIndex, now: Moment) -> Option<Input> {
        let vault = self.chain.shown(index, self.terms.shown(now))?;
        let allocations = vault.allocations().map(|(id, it)| (*id, *it)).collect();
        let (vault, free) = (vault.address(), vault.free());
        Some(Input::VaultReady { vault, free, allocations })
    }

    /// What a provider's server shows it of a vault. Terms that take back what was earned, and an
    /// allocation that the balance does not cover, are as good as none.
    fn snapshot(&self, vault: TonAddress, provider: NodeId, now: Moment) -> Option<VaultSnapshot> {
        let index = self.chain.vault_at(vault)?;
        let shown = self.chain.shown(index, self.terms.shown(now))?;
        let parameters = shown.parameters();
        let delay = u64::from(parameters.release_delay) >= self.terms.release_delay.as_secs();
        let fair = delay && parameters.fee_basis_points <= self.terms.fee_basis_points;
        let covered = shown.balance() >= shown.reserved().saturating_add(shown.accrued());
        let allocation = shown.allocation(&provider).copied().filter(|_| fair && covered);
        Some(VaultSnapshot { key: parameters.client_key, allocation })
    }

    /// The answer to a settlement whose effect is shown; an error when it can never have one.
    fn redeemed(&self, voucher: &SignedVoucher, now: Moment) -> Result<Option<Input>, String> {
        let claim = &voucher.voucher;
        let index = self.chain.vault_at(claim.vault);
        let shown = index.and_then(|index| self.chain.shown(index, self.terms.shown(now)));
        let shown = shown.ok_or_else(|| "there is no vault yet".to_owned())?;
        let allocation = shown.allocation(&claim.provider);
        let allocation = allocation.ok_or_else(|| VaultError::NoAllocation.to_string())?;
        if allocation.epoch != claim.epoch {
            return Err(VaultError::WrongEpoch.to_string());
        }
        let paid = allocation.paid;
        let done = paid >= claim.cumulative.min(allocation.limit);
        Ok(done.then_some(Input::Settled { voucher: *voucher, paid }))
    }

    /// The chain's time at the newest block that is shown.
    fn shown_time(&self, now: Moment) -> Timestamp {
        chain_time(self.terms.made(self.terms.shown(now)))
    }
}

/// The vault at which an operation needs its turn.
const fn turn_at(task: &Task) -> Option<VaultIndex> {
    match task {
        Task::Open { vault, .. } | Task::Order { vault, .. } => Some(*vault),
        Task::Read { .. } | Task::Settle { .. } | Task::Answer(_) => None,
    }
}

fn failed(aim: &Aim, reason: &str) -> Option<Input> {
    match aim {
        Aim::Allocate(request) => Some(Input::AllocationFailed {
            provider: request.provider,
            failure: unavailable(reason),
        }),
        Aim::Release(_) | Aim::Retire => None,
    }
}

/// The answer when there was none.
fn no_answer(task: &Task, reason: &str) -> Option<Input> {
    match task {
        Task::Open { .. } => Some(Input::VaultFailed { failure: unavailable(reason) }),
        Task::Order { aim, .. } => failed(aim, reason),
        Task::Read { vault, .. } => {
            Some(Input::VaultRead { vault: *vault, snapshot: Err(reason.to_owned()) })
        }
        Task::Settle { voucher, .. } => {
            Some(Input::SettleFailed { voucher: *voucher, reason: reason.to_owned() })
        }
        Task::Answer(input) => Some((**input).clone()),
    }
}

fn unavailable(reason: &str) -> LedgerFailure {
    LedgerFailure::Unavailable { reason: reason.to_owned() }
}

fn millis(length: std::time::Duration) -> Millis {
    Millis::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}
