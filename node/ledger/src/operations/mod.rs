//! What a node does with money on a ledger: a consumer's deposit, a provider's settlements.
//!
//! Owns: carrying an operation through: build, send once, wait until the ledger shows the effect.
//! Must not: keep keys, or decide what to allocate or when to settle; callers do.
//!
//! Every operation ends in one of three ways, and its error says which: it took effect; it never
//! will (safe to repeat); or nobody knows yet ([`OperationError::Unconfirmed`]).

mod confirm;
mod deposit;
mod redeem;
mod remit;

use cocoon_protocol::channel::Allocation;
use cocoon_protocol::channel::settlement::VaultError;
use cocoon_protocol::identity::{NodeId, TonAddress};
use cocoon_protocol::units::{Millis, NanoTon, Timestamp};

pub use deposit::{Deposit, VaultTerms};
pub use redeem::{Redeemed, Redeemer};
pub use remit::{Remitter, SignedTransfer};

use crate::message::InvalidMessage;
use crate::port::{AccountState, AccountStatus, Ledger, LedgerError};
use crate::vault::{EncodeVaultError, ReadVaultError, VaultState};
use crate::wallet::WalletError;

/// How long to wait for a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long a signed message stays valid, by the ledger's clock.
    pub validity: Millis,
    /// How long to wait for its effect, by the local clock. Longer than `validity`, or the wait
    /// may end without knowing.
    pub deadline: Millis,
    /// Pause between two looks at the ledger. Blocks come every 0.4 s on the main network.
    pub pause: Millis,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            validity: Millis::from_secs(60),
            deadline: Millis::from_secs(120),
            pause: Millis::new(500),
        }
    }
}

/// A vault as a ledger showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultView {
    /// Where it is.
    pub address: TonAddress,
    /// What it remembers; checked for inner consistency.
    pub state: VaultState,
    /// All money in it.
    pub balance: NanoTon,
    /// The ledger's time at which this was so.
    pub as_of: Timestamp,
    /// Whether the state was computed or proved here, see [`crate::AccountState::verified`].
    pub verified: bool,
}

impl VaultView {
    /// What may be allocated or withdrawn, less the gas of doing so.
    pub fn free(&self) -> NanoTon {
        self.state.free(self.balance)
    }

    /// Whether the balance covers every promise.
    pub fn is_covered(&self) -> bool {
        self.state.is_covered(self.balance)
    }

    /// What is set aside for a provider.
    pub fn allocation(&self, provider: &NodeId) -> Option<&Allocation> {
        self.state.allocations.get(provider)
    }
}

/// Reads the vault at `address`; `None` when there is no contract.
///
/// # Errors
///
/// When the ledger fails, or the contract there is not a vault that can be believed.
pub async fn read_vault(
    ledger: &dyn Ledger,
    address: TonAddress,
) -> Result<Option<VaultView>, OperationError> {
    let view = view_of(&ledger.account(address).await.map_err(OperationError::Ledger)?)?;
    match &view {
        // The contract's code would pay for vouchers of that other network.
        Some(view) if view.state.deployment.network != ledger.network() => {
            Err(OperationError::OtherNetwork)
        }
        Some(_) | None => Ok(view),
    }
}

/// The vault in an account that was read already; `None` when there is no contract.
fn view_of(account: &AccountState) -> Result<Option<VaultView>, OperationError> {
    if account.status == AccountStatus::Frozen {
        return Err(OperationError::Frozen);
    }
    let (Some(code), Some(data)) = (&account.code, &account.data) else { return Ok(None) };
    let state = VaultState::read(account.address, code, data).map_err(OperationError::NotAVault)?;
    Ok(Some(VaultView {
        address: account.address,
        state,
        balance: account.balance,
        as_of: account.as_of,
        verified: account.verified,
    }))
}

/// Why an operation did not take effect, or is not known to have.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The ledger failed before anything was sent.
    #[error("the ledger failed before anything was sent")]
    Ledger(#[source] LedgerError),
    /// The vault refuses; nothing happened.
    #[error("the vault refuses: {0}")]
    Refused(VaultError),
    /// A contract refuses for a reason that this version does not know; nothing happened.
    #[error("the contract refuses (exit code {exit_code:?}); is this version current?")]
    RefusedUnknown {
        /// The contract's exit code, where the ledger tells.
        exit_code: Option<i32>,
    },
    /// There is no vault yet.
    #[error("there is no vault yet: deposit first")]
    NoVault,
    /// The contract at the vault's address cannot be believed.
    #[error("the contract at the vault's address is not a vault that this version can use")]
    NotAVault(#[source] ReadVaultError),
    /// The vault was made for another network.
    #[error("the vault's network id is another network's: vouchers against it are worth nothing")]
    OtherNetwork,
    /// The vault lost its state to unpaid rent: years of neglect, or a balance of almost nothing.
    #[error("the vault is frozen for unpaid rent; its money needs a wallet program to unfreeze")]
    Frozen,
    /// The wallet has too little.
    #[error("the wallet has {available}, but {needed} is needed: fund it")]
    NoFunds {
        /// What is needed, fees included.
        needed: NanoTon,
        /// What is there.
        available: NanoTon,
    },
    /// The wallet cannot sign this.
    #[error("the wallet cannot send this")]
    Wallet(#[source] WalletError),
    /// Another message of the same wallet or vault came first; nothing of this one happened.
    #[error("another operation came first: try again")]
    Overtaken,
    /// The command cannot be put into a message.
    #[error("the command cannot be put into a message")]
    Encode(#[source] EncodeVaultError),
    /// The parts do not fit into a message.
    #[error("the message cannot be built")]
    Message(#[source] InvalidMessage),
    /// The message's time passed without it being executed, and now it never will be.
    #[error("the ledger did not execute the message in time: nothing happened, try again")]
    NotExecuted,
    /// The message may or may not be executed yet. Look at the ledger before repeating.
    #[error("the ledger has not confirmed the operation: look again before repeating it")]
    Unconfirmed,
}

impl OperationError {
    /// Whether it is certain that nothing happened and nothing will, so that repeating is safe.
    pub const fn is_safe_to_repeat(&self) -> bool {
        !matches!(self, Self::Unconfirmed)
    }
}

/// A vault's exit code as an error.
fn refusal(exit_code: Option<i32>) -> OperationError {
    let known = exit_code.and_then(VaultError::from_exit_code);
    match known {
        Some(VaultError::WrongSeqno) => OperationError::Overtaken,
        Some(VaultError::Expired) => OperationError::NotExecuted,
        Some(known) => OperationError::Refused(known),
        None => OperationError::RefusedUnknown { exit_code },
    }
}
