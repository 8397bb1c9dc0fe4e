//! The model and the contract, each told the same, and whether they then agree.
//!
//! Owns: what of a transaction the model is told (what the chain charged), and the comparison.
//! Must not: decide who is right; a difference is reported, and a person looks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cocoon_ledger::embedded::{LoneAccount, Prices};
use cocoon_ledger::tycho_types::cell::Cell;
use cocoon_ledger::vault::VaultState;
use cocoon_ledger::{LedgerError, Outcome, TransactionSummary};
use cocoon_protocol::channel::settlement::{Command, Fees, Message, Transfer, Vault};
use cocoon_protocol::units::{NanoTon, Timestamp};

use crate::generate::{Carrier, History, Said, Step, nano};
use crate::planted::Planted;

/// Prices of `contracts/config/mainnet-2026.boc`, and bounds of `contracts/vault/fees.tolk`.
const TRANSFER: u64 = 66_667;
const GAS_ONE: u64 = 60_000;
const GAS_BATCH: u64 = 12_000;
const GAS_EACH: u64 = 50_000;
/// Of the largest settlement without freight.
const IMPORT_BITS: u64 = 544 + 907 + 512;
const IMPORT_CELLS: u64 = 3;
/// More than what a settlement withholds beyond its cost: gas after the meter is read.
const WITHHELD_IN_EXCESS: u64 = 200_000;

fn gas_fee(gas: u64) -> u64 {
    6_667 + ((gas - 100) * 4_369_067).div_ceil(65_536)
}

fn forward_fee(bits: u64, cells: u64) -> u64 {
    TRANSFER + (bits * 4_369_067 + cells * 436_906_667).div_ceil(65_536)
}

/// What the arrival of an external message costs: all distinct cells but the root.
fn arrival(message: &Cell) -> u64 {
    let (mut seen, mut bits) = (BTreeSet::new(), 0);
    let children = |cell: &Cell| -> Vec<Cell> {
        (0..cell.reference_count()).filter_map(|index| cell.reference_cloned(index)).collect()
    };
    let mut open = children(message);
    while let Some(cell) = open.pop() {
        if seen.insert(*cell.repr_hash()) {
            bits += u64::from(cell.bit_len());
            open.extend(children(&cell));
        }
    }
    forward_fee(bits, seen.len() as u64)
}

/// The network did not run the contract: its balance does not pay for the message's arrival.
pub(crate) const NOT_RUN: i32 = -1;

/// What the contract did.
struct Seen {
    exit: i32,
    fees: u64,
    sent: Option<Transfer>,
}

impl Seen {
    fn read(result: Result<TransactionSummary, LedgerError>) -> Result<Self, String> {
        let summary = match result {
            Ok(summary) => summary,
            Err(LedgerError::NotAccepted { exit_code }) => {
                return Ok(Self { exit: exit_code.unwrap_or(NOT_RUN), fees: 0, sent: None });
            }
            Err(error) => return Err(format!("the machine failed: {error:?}")),
        };
        let exit = match summary.outcome {
            Outcome::Succeeded => 0,
            Outcome::Failed { exit_code } => exit_code,
            other => return Err(format!("the transaction ended as {other:?}")),
        };
        if summary.sent.len() > 1 {
            return Err(format!("{} messages were sent", summary.sent.len()));
        }
        let paid = summary.sent.first().filter(|_| exit == 0);
        let sent = paid.map(|message| {
            Ok::<_, String>(Transfer {
                to: message.destination.ok_or("a message to nobody")?,
                amount: message.value,
            })
        });
        Ok(Self { exit, fees: summary.fees.as_nano(), sent: sent.transpose()? })
    }

    /// What the transaction cost besides forwarding what it sent.
    fn own_fees(&self) -> u64 {
        let forwarded = if self.sent.is_some() { TRANSFER } else { 0 };
        self.fees.saturating_sub(forwarded)
    }
}

pub(crate) struct Pair {
    model: Vault,
    account: LoneAccount,
    prices: Arc<Prices>,
    bug: Planted,
}

impl Pair {
    /// A vault with its deposit, twice.
    pub(crate) fn open(
        history: &History<'_>,
        prices: &Arc<Prices>,
        bug: Planted,
    ) -> Result<Self, String> {
        let parameters = bug.parameters(history.deployment.parameters.clone());
        let mut pair = Self {
            model: Vault::new(history.vault, parameters),
            account: LoneAccount::new(history.vault).unwrap(),
            prices: Arc::clone(prices),
            bug,
        };
        let deployed = pair.account.internal(prices, history.opening(), second(history.now));
        let seen = Seen::read(deployed)?;
        pair.top_up(history.deposit.as_nano() - seen.fees);
        pair.compare()?;
        Ok(pair)
    }

    pub(crate) const fn model(&self) -> &Vault {
        &self.model
    }

    pub(crate) const fn account(&self) -> &LoneAccount {
        &self.account
    }

    /// Both take the step; its exit code, or where they disagree.
    pub(crate) fn step(&mut self, step: &Step) -> Result<i32, String> {
        let before = self.account.clone();
        let (now, value) = (second(step.now), step.carrier.value().as_nano());
        let result = match &step.carrier {
            Carrier::External(message) => self.account.external(&self.prices, message, now),
            Carrier::Internal(message) => self.account.internal(&self.prices, message.clone(), now),
        };
        let seen = Seen::read(result)?;
        if seen.exit == NOT_RUN {
            agree("what it left", &snapshot(&before), &snapshot(&self.account))?;
            let cost = arrival(&step.carrier.cell(self.model.address()));
            let balance = before.balance().unwrap();
            let is_poor = balance < nano(cost);
            return if is_poor { Ok(NOT_RUN) } else { Err(format!("not run with {balance}")) };
        }
        let message = match &step.said {
            Said::Hostile(exit) => {
                let expected = exit.unwrap_or(seen.exit);
                agree("exit code of a hostile message", &expected, &seen.exit)?;
                if seen.exit == 0 {
                    return Err("a hostile message succeeded".to_owned());
                }
                agree("what it left", &snapshot(&before), &snapshot(&self.account))?;
                return Ok(seen.exit);
            }
            // What the chain takes of a transfer never arrives.
            Said::Message(Message::TopUp(_)) => &Message::TopUp(nano(value - seen.fees)),
            Said::Message(message) => message,
        };
        let fees = self.fees(step, message, &seen)?;
        let (told, told_fees, told_now) = self.bug.told(&self.model, message, fees, step.now);
        let outcome = self.model.handle(&told, told_fees, told_now);
        let exit = outcome.as_ref().map_or_else(|error| error.exit_code(), |_| 0);
        agree("exit code (model, contract)", &exit, &seen.exit)?;
        let paid = seen.sent.map(|sent| {
            let amount = sent.amount.as_nano();
            let amount = match message {
                // Forwarded at the vault's cost.
                Message::Order(order) if is_release(&order.command) => amount,
                Message::OwnerCommand { command, .. } if is_release(command) => amount,
                // What the message brought travels on.
                Message::SettleInternal(_) => (amount + seen.fees).saturating_sub(value),
                _ => amount + TRANSFER,
            };
            Transfer { to: sent.to, amount: nano(amount) }
        });
        agree("payment (model, contract)", &outcome.unwrap_or(None), &paid)?;
        if exit == 0 && matches!(message, Message::OwnerCommand { .. }) {
            // What an owner's message brought too much stays.
            self.top_up(value - seen.own_fees());
        }
        self.compare()?;
        Ok(exit)
    }

    /// What the model has to be told about what the chain charges.
    fn fees(&self, step: &Step, message: &Message, seen: &Seen) -> Result<Fees, String> {
        let worst = gas_fee(GAS_ONE) + 2 * forward_fee(IMPORT_BITS, IMPORT_CELLS);
        let mut fees = Fees {
            bound: nano(match message {
                Message::Order(order) => match &order.command {
                    Command::Rebalance(requests) => {
                        gas_fee(GAS_BATCH + GAS_EACH * requests.len() as u64)
                    }
                    _ => gas_fee(GAS_ONE),
                },
                Message::SettleExternal { .. } | Message::Sweep => worst,
                _ => gas_fee(GAS_ONE),
            }),
            transfer: nano(TRANSFER),
            brought: step.carrier.value(),
            ..Fees::default()
        };
        if let Carrier::External(message) = &step.carrier {
            fees.arrival = nano(arrival(message.cell()));
            fees.used = nano(seen.own_fees());
        }
        let withholds = matches!(message, Message::SettleExternal { .. } | Message::Sweep);
        if let Some(sent) = seen.sent.filter(|_| withholds) {
            // How much is the contract's to say; that it is enough and not too much is checked.
            let mut unhindered = self.model.clone();
            let now = Timestamp::from_unix_secs(step.now);
            let whole = unhindered.handle(message, fees, now);
            let whole = whole.ok().flatten().map_or(0, |whole| whole.amount.as_nano());
            let withheld = whole.saturating_sub(sent.amount.as_nano() + TRANSFER);
            // Whatever arrived, the contract counts on the largest settlement without freight.
            let import = forward_fee(IMPORT_BITS, IMPORT_CELLS);
            let cost = fees.used.as_nano() - fees.arrival.as_nano() + import;
            let fair = (cost..cost + WITHHELD_IN_EXCESS).contains(&withheld);
            if whole > 0 && !fair && self.bug == Planted::Nothing {
                return Err(format!("{withheld} nanoTON are withheld for a cost of {cost}"));
            }
            fees.withheld = nano(withheld);
        }
        Ok(fees)
    }

    fn top_up(&mut self, amount: u64) {
        let message = Message::TopUp(nano(amount));
        self.model.handle(&message, Fees::default(), Timestamp::EPOCH).unwrap();
    }

    /// Everything that both remember.
    fn compare(&self) -> Result<(), String> {
        let model = &self.model;
        let (code, data) = self.account.contract().unwrap().ok_or("no contract")?;
        let state = VaultState::read(model.address(), &code, &data)
            .map_err(|error| format!("the state cannot be read: {error}"))?;
        let balance = self.account.balance().unwrap();
        agree("balance (model, contract)", &model.balance(), &balance)?;
        agree("seqno", &model.seqno(), &state.seqno)?;
        agree("next epoch", &model.next_epoch(), &state.next_epoch)?;
        agree("reserved", &model.reserved(), &state.reserved)?;
        agree("accrued", &model.accrued(), &state.accrued)?;
        agree("free", &model.free(), &state.free(balance))?;
        let today = (u64::from(state.day), state.allocated_today);
        agree("allocated on a day", &model.allocated_on(), &today)?;
        agree("hot key", model.key(), &state.key)?;
        let ours: BTreeMap<_, _> = model.allocations().map(|(id, it)| (*id, *it)).collect();
        agree("allocations and their roots", &ours, &state.allocations)?;
        for provider in ours.keys() {
            agree("key of an allocation", model.key_of(provider), state.key_of(provider))?;
        }
        if state.is_covered(balance) || state.allocations.is_empty() {
            Ok(())
        } else {
            // Freight of strangers may use the reserve up, and at most that of one message more.
            let owed = state.reserved.saturating_add(state.accrued);
            let short = owed.saturating_sub(balance);
            if short < nano(3_000_000) { Ok(()) } else { Err(format!("{short} are missing")) }
        }
    }
}

const fn is_release(command: &Command) -> bool {
    matches!(command, Command::Release(_))
}

fn snapshot(account: &LoneAccount) -> (NanoTon, Option<[u8; 32]>) {
    let data = account.contract().unwrap().map(|(_, data)| data.repr_hash().0);
    (account.balance().unwrap(), data)
}

fn agree<T: PartialEq + std::fmt::Debug>(what: &str, one: &T, other: &T) -> Result<(), String> {
    if one == other { Ok(()) } else { Err(format!("{what}: {one:?} and {other:?}")) }
}

fn second(now: u64) -> u32 {
    u32::try_from(now).unwrap()
}
