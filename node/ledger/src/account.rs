//! An account's cell as callers see it.
//!
//! Owns: the one way from a state that is known to be true to [`AccountState`].
//! Must not: be used on what a server merely says: the result is marked as verified.

use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::{NanoTon, Timestamp};
use tycho_types::error::Error as CellError;
use tycho_types::models::{AccountState as ChainState, ShardAccount};

use crate::port::{AccountState, AccountStatus};
use crate::transaction::{TransactionId, nano};

/// What `state` says about `address`, as of `as_of`.
pub(crate) fn known(
    address: TonAddress,
    state: &ShardAccount,
    as_of: Timestamp,
) -> Result<AccountState, CellError> {
    let last_transaction = (state.last_trans_lt != 0)
        .then_some(TransactionId { lt: state.last_trans_lt, hash: state.last_trans_hash.0 });
    let mut known = AccountState { last_transaction, ..absent(address, as_of) };
    if let Some(account) = state.load_account()? {
        known.balance = nano(account.balance.tokens);
        known.status = match account.state {
            ChainState::Uninit => AccountStatus::Uninitialised,
            ChainState::Frozen(_) => AccountStatus::Frozen,
            ChainState::Active(init) => {
                known.code = init.code;
                known.data = init.data;
                AccountStatus::Active
            }
        };
    }
    Ok(known)
}

/// An account that is known not to exist.
pub(crate) const fn absent(address: TonAddress, as_of: Timestamp) -> AccountState {
    AccountState {
        address,
        balance: NanoTon::ZERO,
        status: AccountStatus::Absent,
        code: None,
        data: None,
        last_transaction: None,
        as_of,
        verified: true,
    }
}
