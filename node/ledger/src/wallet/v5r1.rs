//! Wallet contract version 5, release 1: its address, its sequence number, its messages.
//!
//! Owns: the contract's initial state and the layout of what it takes.
//! Must not: talk to a ledger; state comes in, a message goes out.
//! Source: `ton-blockchain/wallet-contract-v5`; checked against vectors made by `@ton/ton`.

use std::fmt;

use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::Timestamp;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily as _};
use tycho_types::error::Error as CellError;
use tycho_types::models::StateInit;

use crate::address::FriendlyAddress;
use crate::message::{InvalidMessage, Message, Transfer, contract_address};
use crate::port::{AccountState, AccountStatus};

/// See `README.md` beside it.
const CODE: &[u8] = include_bytes!("v5r1-code.boc");
/// ASCII `sign`: a message from outside, signed.
const SIGNED_EXTERNAL: u32 = 0x7369_676e;
/// `action_send_msg`.
const ACTION_SEND: u32 = 0x0ec3_c86d;
/// Fees come out of the wallet's balance, not out of the amount; and an error in one transfer
/// does not undo the sequence number. The contract refuses external messages without the latter.
const SEND_MODE: u8 = 1 | 2;
/// Top bit of the wallet's number when the owner is a client: then workchain, version and
/// subwallet, all zero here.
const CLIENT_CONTEXT: u32 = 0x8000_0000;
/// Transfers that one message can carry.
pub const MAX_TRANSFERS: usize = 255;

/// Why a wallet cannot do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalletError {
    /// None, or more than [`MAX_TRANSFERS`].
    #[error("a wallet message carries 1 to {MAX_TRANSFERS} transfers; this one has {found}")]
    TransferCount {
        /// How many were given.
        found: usize,
    },
    /// The account at the wallet's address is not this wallet.
    #[error("the account at the wallet's address is not this wallet; is the network right?")]
    NotThisWallet,
    /// The account is frozen for unpaid rent.
    #[error("the wallet is frozen for unpaid rent; restore it with another wallet program")]
    Frozen,
    /// The parts do not fit into cells.
    #[error("the transfer does not fit into a message")]
    Overflow,
}

impl From<InvalidMessage> for WalletError {
    fn from(_: InvalidMessage) -> Self {
        Self::Overflow
    }
}

/// A wallet: a key and the contract that obeys it. The secret is wiped when it is dropped.
#[derive(Clone)]
pub struct Wallet {
    key: SigningKey,
    network: Network,
    address: TonAddress,
    init: StateInit,
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Wallet {
    /// The wallet of `key` on `network`. Every network has another address for the same key.
    ///
    /// # Errors
    ///
    /// Never with the built-in code; the type has to say so.
    pub fn new(key: SigningKey, network: Network) -> Result<Self, WalletError> {
        let init =
            initial_state(&key.verifying_key(), network).map_err(|_| WalletError::Overflow)?;
        let address = contract_address(&init)?;
        Ok(Self { key, network, address, init })
    }

    /// Where the wallet is.
    pub const fn address(&self) -> TonAddress {
        self.address
    }

    /// The address as people copy it.
    pub const fn friendly_address(&self) -> FriendlyAddress {
        FriendlyAddress::for_wallet(self.address, self.network)
    }

    /// The public key that the contract obeys.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The sequence number that the next message needs, given the wallet's account.
    ///
    /// # Errors
    ///
    /// When the account is not this wallet's, or frozen.
    pub fn seqno(&self, account: &AccountState) -> Result<u32, WalletError> {
        if account.address != self.address {
            return Err(WalletError::NotThisWallet);
        }
        match account.status {
            AccountStatus::Absent | AccountStatus::Uninitialised => Ok(0),
            AccountStatus::Frozen => Err(WalletError::Frozen),
            AccountStatus::Active => {
                seqno_of(account.data.as_ref()).ok_or(WalletError::NotThisWallet)
            }
        }
    }

    /// A signed message that makes the wallet send `transfers`, once, before `valid_until`.
    ///
    /// Brings the contract's initial state along when the account has none yet.
    ///
    /// # Errors
    ///
    /// When there are too many transfers, or the account is not this wallet's.
    pub fn sign(
        &self,
        account: &AccountState,
        transfers: &[Transfer],
        valid_until: Timestamp,
    ) -> Result<Message, WalletError> {
        let seqno = self.seqno(account)?;
        let init = (!account.is_active()).then(|| self.init.clone());
        if transfers.is_empty() || transfers.len() > MAX_TRANSFERS {
            return Err(WalletError::TransferCount { found: transfers.len() });
        }
        let messages = transfers.iter().map(Transfer::to_cell).collect::<Result<Vec<_>, _>>()?;
        // Seconds in 32 bits, as the contract has it; later than that is never.
        let valid_until = u32::try_from(valid_until.as_unix_secs()).unwrap_or(u32::MAX);
        let body = self.body(seqno, valid_until, messages).map_err(|_| WalletError::Overflow)?;
        Ok(Message::external(self.address, init, body)?)
    }

    fn body(&self, seqno: u32, valid_until: u32, messages: Vec<Cell>) -> Result<Cell, CellError> {
        let mut actions = Cell::empty_cell();
        for message in messages {
            let mut action = CellBuilder::new();
            action.store_reference(actions)?;
            action.store_u32(ACTION_SEND)?;
            action.store_u8(SEND_MODE)?;
            action.store_reference(message)?;
            actions = action.build()?;
        }
        let mut body = CellBuilder::new();
        body.store_u32(SIGNED_EXTERNAL)?;
        body.store_u32(wallet_number(self.network))?;
        body.store_u32(valid_until)?;
        body.store_u32(seqno)?;
        body.store_bit_one()?;
        body.store_reference(actions)?;
        // No actions on the wallet itself.
        body.store_bit_zero()?;
        let unsigned = body.clone().build()?;
        let signature = self.key.sign(unsigned.repr_hash().as_slice());
        body.store_raw(&signature.to_bytes(), 512)?;
        body.build()
    }
}

fn wallet_number(network: Network) -> u32 {
    network.global_id().cast_unsigned() ^ CLIENT_CONTEXT
}

fn initial_state(key: &VerifyingKey, network: Network) -> Result<StateInit, CellError> {
    let code = Boc::decode(CODE).map_err(|_| CellError::InvalidCell)?;
    let mut data = CellBuilder::new();
    // Signatures are allowed.
    data.store_bit_one()?;
    data.store_u32(0)?;
    data.store_u32(wallet_number(network))?;
    data.store_raw(key.as_bytes(), 256)?;
    // No extensions.
    data.store_bit_zero()?;
    Ok(StateInit { code: Some(code), data: Some(data.build()?), ..StateInit::default() })
}

pub(crate) fn seqno_of(data: Option<&Cell>) -> Option<u32> {
    let mut data = data?.as_slice().ok()?;
    data.load_bit().ok()?;
    data.load_u32().ok()
}

/// Whether `code` is this version's.
pub(crate) fn is_wallet(code: Option<&Cell>) -> bool {
    let Some(code) = code else { return false };
    Boc::decode(CODE).is_ok_and(|known| known.repr_hash() == code.repr_hash())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_known_release() {
        let code = Boc::decode(CODE).unwrap();
        let known = "20834b7b72b112147e1b2fb457b84e74d1a30f04f737d4f62a668e9552d2b72f";
        assert_eq!(code.repr_hash().to_string(), known);
    }

    #[test]
    fn a_key_has_another_address_on_every_network() {
        let address =
            |network| Wallet::new(SigningKey::from_bytes(&[1; 32]), network).unwrap().address();
        assert_ne!(address(Network::Mainnet), address(Network::Testnet));
        assert_ne!(address(Network::Mainnet), address(Network::Devnet));
    }
}
