//! One message on one account: the step that the whole chain is made of.
//!
//! Owns: calling the executor, and the account of where every nanoTON went.
//! Must not: store anything or order messages.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cocoon_protocol::identity::TonAddress;
use tycho_executor::{Executor, ExecutorInspector, ExecutorParams, TxError};
use tycho_types::cell::{Cell, CellBuilder, Lazy};
use tycho_types::error::Error as CellError;
use tycho_types::models::{
    CurrencyCollection, IntMsgInfo, MsgInfo, OptionalAccount, OwnedMessage, ShardAccount, StdAddr,
};
use tycho_types::prelude::{CellFamily as _, HashBytes};

use crate::address::{from_int, to_std};
use crate::chain_config::ChainConfig;
use crate::port::LedgerError;
use crate::transaction::TransactionId;

/// The moment at which a message is executed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Unix seconds.
    pub(super) time: u32,
    /// Logical time; higher than that of any transaction before.
    pub(super) lt: u64,
}

/// A message on its way, with the account that it goes to.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub(super) destination: TonAddress,
    pub(super) cell: Cell,
    pub(super) external: bool,
    /// Money that the message carries, forwarding fees included.
    pub(super) carries: u128,
}

impl Incoming {
    /// Reads an internal message; `None` when it goes nowhere.
    pub(super) fn internal(cell: Cell) -> Result<Option<Self>, CellError> {
        let message = cell.parse::<OwnedMessage>()?;
        let MsgInfo::Int(info) = &message.info else {
            return Ok(None);
        };
        let carries = info.value.tokens.into_inner().saturating_add(info.fwd_fee.into_inner());
        let Some(destination) = from_int(&info.dst) else {
            return Ok(None);
        };
        Ok(Some(Self { destination, cell, external: false, carries }))
    }
}

/// What the message did.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) state: ShardAccount,
    pub(super) id: TransactionId,
    pub(super) transaction: Cell,
    /// Internal messages that it sent, in order.
    pub(super) sent: Vec<Cell>,
    /// What went to those who run the chain, burned money included.
    pub(super) fees: u128,
}

/// Executes `incoming` on `state`.
///
/// A panic of the virtual machine, which runs whatever code somebody deploys, is an error of this
/// message and not the end of the chain: nothing outside has changed yet when it happens.
pub(super) fn execute(
    config: &ChainConfig,
    incoming: Incoming,
    state: &ShardAccount,
    moment: Moment,
) -> Result<Executed, LedgerError> {
    let run = AssertUnwindSafe(|| execute_unguarded(config, incoming, state, moment));
    catch_unwind(run).unwrap_or_else(|_| Err(LedgerError::Execution("machine panicked".into())))
}

fn execute_unguarded(
    config: &ChainConfig,
    incoming: Incoming,
    state: &ShardAccount,
    moment: Moment,
) -> Result<Executed, LedgerError> {
    // The parameters under which the executor agrees with the reference emulator.
    let params = ExecutorParams {
        block_unixtime: moment.time,
        block_lt: moment.lt,
        charge_action_fees_on_fail: true,
        full_body_in_bounced: false,
        strict_extra_currency: true,
        ..ExecutorParams::default()
    };
    let address = to_std(incoming.destination);
    let mut inspector = ExecutorInspector::default();
    let before = balance(state).map_err(execution)?;
    let output = Executor::new(&params, config.parsed())
        .with_min_lt(moment.lt)
        .begin_ordinary_ext(&address, incoming.external, incoming.cell, state, Some(&mut inspector))
        .map_err(|error| match error {
            TxError::Skipped => LedgerError::NotAccepted { exit_code: inspector.exit_code },
            TxError::Fatal(error) => LedgerError::Execution(error.into()),
        })?
        .commit()
        .map_err(|error| LedgerError::Execution(error.into()))?;
    let mut sent = Vec::new();
    let mut carried_on = 0_u128;
    for message in &output.transaction_meta.out_msgs {
        let cell = message.inner().clone();
        if let Some(onward) = Incoming::internal(cell).map_err(execution)? {
            carried_on = carried_on.saturating_add(onward.carries);
            sent.push(onward.cell);
        }
    }
    let after = balance(&output.new_state).map_err(execution)?;
    // What is neither on the account nor on its way was collected or burned.
    let fees =
        before.saturating_add(incoming.carries).saturating_sub(after).saturating_sub(carried_on);
    let transaction = output.transaction.inner().clone();
    let id = TransactionId { lt: output.new_state.last_trans_lt, hash: transaction.repr_hash().0 };
    Ok(Executed { state: output.new_state, id, transaction, sent, fees })
}

fn balance(state: &ShardAccount) -> Result<u128, CellError> {
    Ok(state.load_account()?.map_or(0, |account| account.balance.tokens.into_inner()))
}

fn execution(error: CellError) -> LedgerError {
    LedgerError::Execution(error.into())
}

/// An account that was never used.
pub(super) fn absent() -> Result<ShardAccount, CellError> {
    Ok(ShardAccount {
        account: Lazy::new(&OptionalAccount(None))?,
        last_trans_hash: HashBytes::ZERO,
        last_trans_lt: 0,
    })
}

/// Money from nowhere: a plain transfer from the zero address.
pub(super) fn mint(to: TonAddress, nano: u64) -> Result<Cell, CellError> {
    let info = IntMsgInfo {
        ihr_disabled: true,
        src: StdAddr::ZERO.into(),
        dst: to_std(to).into(),
        value: CurrencyCollection::new(u128::from(nano)),
        ..IntMsgInfo::default()
    };
    let body = Cell::empty_cell();
    let message =
        OwnedMessage { info: MsgInfo::Int(info), init: None, body: body.into(), layout: None };
    CellBuilder::build_from(&message)
}
