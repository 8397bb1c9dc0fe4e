//! Bodies of the messages that a registry takes, as `contracts/registry/messages.tolk` defines them.
//!
//! Owns: their cells.
//! Must not: send them: each is the body of an internal message from a wallet.

use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::NanoTon;
use tycho_types::cell::{Cell, CellBuilder};
use tycho_types::num::Tokens;

use super::state::Fee;
use crate::vault::EncodeVaultError;
use crate::vault::cell::{Writer, basechain_account};

/// Longest name in bytes.
pub const NAME_BYTES: usize = 64;

/// Why a registry's message cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeRegistryError {
    /// Treasuries and maintainers are accounts of the basechain.
    #[error("{0} is not in the basechain: its address must start with `0:`")]
    NotInBasechain(TonAddress),
    /// The contract takes 1 to 64 bytes.
    #[error("a name has 1 to {NAME_BYTES} bytes, not {0}")]
    Name(usize),
    /// Never for the cells of this module; their library has to say so.
    #[error("the parts do not fit into a cell")]
    Overflow,
}

impl From<EncodeVaultError> for EncodeRegistryError {
    fn from(error: EncodeVaultError) -> Self {
        match error {
            EncodeVaultError::NotInBasechain(address) => Self::NotInBasechain(address),
            EncodeVaultError::BatchLength(_)
            | EncodeVaultError::BatchTotal
            | EncodeVaultError::ValidUntil
            | EncodeVaultError::OtherVault
            | EncodeVaultError::Overflow => Self::Overflow,
        }
    }
}

/// What can be said to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The owner's: announces a fee, which anyone may put in force after the timelock.
    ProposeFee(Fee),
    /// The owner's: takes the announced fee back.
    CancelFee,
    /// The owner's: nodes below this version of the protocol should update.
    SetMinimumProtocol(u32),
    /// The owner's: adds a model, or gives it another name.
    SetModel {
        /// SHA-256 of the weights file.
        hash: [u8; 32],
        /// What people call it.
        name: String,
    },
    /// The owner's: removes a model.
    RemoveModel([u8; 32]),
    /// The owner's: names a maintainer, or gives it another name.
    SetMaintainer {
        /// The account that will publish.
        account: TonAddress,
        /// Who that is.
        name: String,
    },
    /// The owner's: removes a maintainer with everything that it has published.
    RemoveMaintainer(TonAddress),
    /// The owner's: proposes another owner; itself to take a proposal back.
    ProposeOwner(TonAddress),
    /// The owner's: takes what is not needed for rent.
    Withdraw(NanoTon),
    /// The proposed owner's.
    AcceptOwner,
    /// Anyone's, once the timelock has passed.
    ApplyFee,
    /// A maintainer's: adds to its own set, or gives a measurement another name.
    Publish {
        /// The hash of a set of measurements.
        measurement: [u8; 32],
        /// What was measured.
        name: String,
    },
    /// A maintainer's: takes back.
    Unpublish([u8; 32]),
}

/// The body of an operation's message.
///
/// # Errors
///
/// When a name is too long or empty, or an account is not in the basechain.
pub fn body(operation: &Operation) -> Result<Cell, EncodeRegistryError> {
    let opcode = |code: u32| Writer::new().u32(code);
    let writer = match operation {
        Operation::ProposeFee(fee) => {
            let treasury = fee.treasury.map_or(Ok([0; 32]), basechain_account)?;
            opcode(0x4352_0001).u16(fee.basis_points).bytes32(&treasury)
        }
        Operation::CancelFee => opcode(0x4352_0002),
        Operation::SetMinimumProtocol(version) => opcode(0x4352_0003).u32(*version),
        Operation::SetModel { hash, name } => named(opcode(0x4352_0004), hash, name)?,
        Operation::RemoveModel(hash) => opcode(0x4352_0005).bytes32(hash),
        Operation::SetMaintainer { account, name } => {
            named(opcode(0x4352_0006), &basechain_account(*account)?, name)?
        }
        Operation::RemoveMaintainer(account) => {
            opcode(0x4352_0007).bytes32(&basechain_account(*account)?)
        }
        Operation::ProposeOwner(owner) => opcode(0x4352_0008).address(*owner),
        Operation::Withdraw(amount) => {
            let amount = CellBuilder::build_from(Tokens::new(u128::from(amount.as_nano())));
            let amount = amount.map_err(|_| EncodeRegistryError::Overflow)?;
            opcode(0x4352_0009).bits_of(&amount)
        }
        Operation::AcceptOwner => opcode(0x4352_0101),
        Operation::ApplyFee => opcode(0x4352_0102),
        Operation::Publish { measurement, name } => named(opcode(0x4352_0103), measurement, name)?,
        Operation::Unpublish(measurement) => opcode(0x4352_0104).bytes32(measurement),
    };
    Ok(writer.finish()?)
}

fn named(writer: Writer, key: &[u8; 32], name: &str) -> Result<Writer, EncodeRegistryError> {
    let bits = u16::try_from(name.len() * 8).unwrap_or(u16::MAX);
    if !(1..=NAME_BYTES).contains(&name.len()) {
        return Err(EncodeRegistryError::Name(name.len()));
    }
    let mut text = CellBuilder::new();
    text.store_raw(name.as_bytes(), bits).map_err(|_| EncodeRegistryError::Overflow)?;
    let text = text.build().map_err(|_| EncodeRegistryError::Overflow)?;
    Ok(writer.bytes32(key).reference(text))
}
