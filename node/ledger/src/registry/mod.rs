//! The registry contract as its readers see it: the network's fee, models, and measurements.
//!
//! Owns: the cells of `contracts/registry/`, and the compiled code that they belong to.
//! Must not: believe a state of other code or a server's get method, or decide what a node does with
//! what it reads: policies do.

pub mod message;
mod state;

use cocoon_protocol::identity::{Network, TonAddress};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, HashBytes};
use tycho_types::models::StateInit;

pub use state::{
    Fee, Maintainer, Measurement, PendingFee, ReadRegistryError, RegistryState, displayable,
};

use crate::port::{Ledger, LedgerError};
use crate::vault::cell::Writer;
use message::EncodeRegistryError;

/// Hash of the contract's code: the version that this client reads.
pub const CODE_HASH: [u8; 32] = [
    0x73, 0x44, 0xff, 0xdb, 0x3b, 0x25, 0xf3, 0xd2, 0x5e, 0xfb, 0xb7, 0x5c, 0x69, 0xa4, 0x4e, 0x26,
    0x21, 0x4f, 0x94, 0x11, 0x4b, 0x27, 0x35, 0x93, 0x14, 0x9f, 0xfa, 0x13, 0xc9, 0xbd, 0xf3, 0x72,
];

/// The compiled contract, as `contracts/compile.mjs` writes it.
const CODE: &[u8] = include_bytes!("../../../../contracts/build/registry.boc");

/// What a new registry's address commits to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Who may change it; better a multi-signature wallet than a person's.
    pub owner: TonAddress,
    /// Seconds between announcing a fee and putting it in force.
    pub timelock: u32,
    /// The network that it is for.
    pub network: Network,
    /// Tells the registries of one owner apart.
    pub salt: u64,
}

impl Deployment {
    /// The initial state, to be attached to the first transfer to [`Deployment::address`].
    ///
    /// # Errors
    ///
    /// Never, but for the library's sake.
    pub fn state_init(&self) -> Result<StateInit, EncodeRegistryError> {
        let governance = Writer::new()
            .address(self.owner)
            // Nobody is proposed: `addr_none$00`.
            .bit(false)
            .bit(false)
            .u32(self.timelock)
            .u32(self.network.global_id().cast_unsigned())
            .u64(self.salt)
            .finish()?;
        let data = Writer::new()
            .u32(0)
            .u32(0)
            .u16(0)
            .bytes32(&[0; 32])
            .bit(false)
            .reference(governance)
            .u16(0)
            .bit(false)
            .u8(0)
            .bit(false)
            .finish()?;
        Ok(StateInit { code: Some(code()?), data: Some(data), ..StateInit::default() })
    }

    /// Where the registry is.
    ///
    /// # Errors
    ///
    /// Never, but for the library's sake.
    pub fn address(&self) -> Result<TonAddress, EncodeRegistryError> {
        let init = CellBuilder::build_from(self.state_init()?);
        let HashBytes(hash) = *init.map_err(|_| EncodeRegistryError::Overflow)?.repr_hash();
        Ok(TonAddress { workchain: 0, hash })
    }
}

/// The contract's code.
///
/// # Errors
///
/// Never for the code that this crate is built with; a test reads it.
pub fn code() -> Result<Cell, EncodeRegistryError> {
    Boc::decode(CODE).map_err(|_| EncodeRegistryError::Overflow)
}

/// Why a registry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The ledger failed.
    #[error("the ledger failed")]
    Ledger(#[source] LedgerError),
    /// There is no contract at the address.
    #[error("there is no contract at {0}: check the registry's address and the network")]
    Absent(TonAddress),
    /// What is there cannot be believed.
    #[error("the contract at {address} cannot be used as a registry")]
    NotARegistry {
        /// Where it is.
        address: TonAddress,
        /// Why.
        #[source]
        source: ReadRegistryError,
    },
}

/// A registry as a ledger showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryView {
    /// Where it is.
    pub address: TonAddress,
    /// What it remembers.
    pub state: RegistryState,
    /// Whether the state was computed or proved here, see [`crate::AccountState::verified`].
    pub verified: bool,
}

/// Reads the registry at `address` from its account's code and data.
///
/// # Errors
///
/// When the ledger fails, or the contract there is no registry of this version and network.
pub async fn read_registry(
    ledger: &dyn Ledger,
    address: TonAddress,
) -> Result<RegistryView, RegistryError> {
    let account = ledger.account(address).await.map_err(RegistryError::Ledger)?;
    let (Some(code), Some(data)) = (&account.code, &account.data) else {
        return Err(RegistryError::Absent(address));
    };
    let state = RegistryState::read(ledger.network(), code, data)
        .map_err(|source| RegistryError::NotARegistry { address, source })?;
    Ok(RegistryView { address, state, verified: account.verified })
}
