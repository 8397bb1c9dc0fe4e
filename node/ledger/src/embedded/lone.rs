//! One account of the embedded chain by itself: to see what a contract does, without a chain around it.
//!
//! Owns: the account's state between messages. Nothing is stored, and what it sends goes nowhere.
//! Must not: execute in another way than the chain does.

use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::NanoTon;
use tycho_types::cell::{Cell, CellBuilder};
use tycho_types::error::Error as CellError;
use tycho_types::models::{
    AccountState, CurrencyCollection, IntMsgInfo, MsgInfo, OwnedMessage, ShardAccount, StateInit,
};

use super::execute::{Incoming, Moment, absent, execute};
use crate::address::to_std;
use crate::chain_config::ChainConfig;
use crate::message::Message;
use crate::port::LedgerError;
use crate::transaction::{TransactionSummary, nano};

/// Logical time between transactions, as in a block of the real chain.
const LT_STEP: u64 = 1_000_000;

/// Whether rent is taken while time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rent {
    /// At the network's price.
    Charged,
    /// None, for whoever compares with a model that knows no rent.
    Free,
}

/// The prices of the network, which many accounts may be executed under.
#[derive(Debug)]
pub struct Prices(ChainConfig);

impl Prices {
    /// The main network's prices as in force at `now` (Unix seconds), under the id of `network`.
    ///
    /// # Errors
    ///
    /// Never for the parameters that this crate is built with.
    pub fn new(network: Network, rent: Rent, now: u32) -> Result<Self, LedgerError> {
        let config = match rent {
            Rent::Charged => ChainConfig::built_in(network, now),
            Rent::Free => ChainConfig::without_rent(network, now),
        };
        config.map(Self).map_err(execution)
    }
}

/// A message from another contract.
#[derive(Clone, Debug)]
pub struct Arriving {
    /// Who sent it.
    pub from: TonAddress,
    /// Money that it carries.
    pub value: NanoTon,
    /// Whether the money goes back when the contract refuses.
    pub bounce: bool,
    /// The contract's initial state, for its first message.
    pub init: Option<StateInit>,
    /// What it says.
    pub body: Cell,
}

impl Arriving {
    /// The message to `destination` as a cell.
    ///
    /// # Errors
    ///
    /// When the parts do not fit.
    pub fn cell(self, destination: TonAddress) -> Result<Cell, LedgerError> {
        let info = IntMsgInfo {
            ihr_disabled: true,
            bounce: self.bounce,
            src: to_std(self.from).into(),
            dst: to_std(destination).into(),
            value: CurrencyCollection::new(u128::from(self.value.as_nano())),
            ..IntMsgInfo::default()
        };
        let info = MsgInfo::Int(info);
        let message = OwnedMessage { info, init: self.init, body: self.body.into(), layout: None };
        CellBuilder::build_from(&message).map_err(execution)
    }
}

/// An account by itself.
#[derive(Clone, Debug)]
pub struct LoneAccount {
    address: TonAddress,
    state: ShardAccount,
    lt: u64,
}

impl LoneAccount {
    /// An account that was never used.
    ///
    /// # Errors
    ///
    /// Never, but for the library's sake.
    pub fn new(address: TonAddress) -> Result<Self, LedgerError> {
        Ok(Self { address, state: absent().map_err(execution)?, lt: LT_STEP })
    }

    /// All money in it.
    ///
    /// # Errors
    ///
    /// Never, but for the library's sake.
    pub fn balance(&self) -> Result<NanoTon, LedgerError> {
        let account = self.state.load_account().map_err(execution)?;
        Ok(account.map_or(NanoTon::ZERO, |account| nano(account.balance.tokens)))
    }

    /// The contract's code and data; `None` before it is deployed.
    ///
    /// # Errors
    ///
    /// Never, but for the library's sake.
    pub fn contract(&self) -> Result<Option<(Cell, Cell)>, LedgerError> {
        let account = self.state.load_account().map_err(execution)?;
        let Some(account) = account else { return Ok(None) };
        let AccountState::Active(init) = account.state else { return Ok(None) };
        Ok(init.code.zip(init.data))
    }

    /// Executes an external message at `now`, Unix seconds.
    ///
    /// # Errors
    ///
    /// [`LedgerError::NotAccepted`] when the contract refuses: then nothing has changed.
    pub fn external(
        &mut self,
        prices: &Prices,
        message: &Message,
        now: u32,
    ) -> Result<TransactionSummary, LedgerError> {
        self.execute(prices, message.cell().clone(), true, 0, now)
    }

    /// Executes a message from another contract at `now`, Unix seconds.
    ///
    /// # Errors
    ///
    /// When the parts do not fit into a message.
    pub fn internal(
        &mut self,
        prices: &Prices,
        message: Arriving,
        now: u32,
    ) -> Result<TransactionSummary, LedgerError> {
        let carries = u128::from(message.value.as_nano());
        self.execute(prices, message.cell(self.address)?, false, carries, now)
    }

    fn execute(
        &mut self,
        prices: &Prices,
        cell: Cell,
        external: bool,
        carries: u128,
        time: u32,
    ) -> Result<TransactionSummary, LedgerError> {
        let incoming = Incoming { destination: self.address, cell, external, carries };
        let lt = self.lt.saturating_add(LT_STEP);
        let executed = execute(&prices.0, incoming, &self.state, Moment { time, lt })?;
        self.state = executed.state;
        self.lt = lt;
        TransactionSummary::from_cell(executed.transaction).map_err(execution)
    }
}

fn execution(error: CellError) -> LedgerError {
    LedgerError::Execution(error.into())
}
