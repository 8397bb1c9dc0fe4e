//! A vault's parameters and the address that follows from them.
//!
//! Owns: the initial state.
//! Must not: make a vault with any other initial state: the contract would run with it all the
//! same, and its first allocations could be forged.

use cocoon_protocol::channel::VaultPublicKey;
use cocoon_protocol::channel::settlement::Parameters;
use cocoon_protocol::identity::{Network, TonAddress};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, HashBytes};
use tycho_types::error::Error;
use tycho_types::models::StateInit;

use super::CODE;
use super::cell::{EncodeVaultError, Reader, Writer, basechain_account};

const NETWORKS: [Network; 3] = [Network::Devnet, Network::Testnet, Network::Mainnet];
const FIRST_EPOCH: u32 = 1;

/// Everything that a vault's address commits to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Keys, delays, caps and fees.
    pub parameters: Parameters,
    /// The network that it is for, so that a voucher for one is worthless on another.
    pub network: Network,
    /// Tells the vaults of one client apart; 0 for the first.
    pub salt: u64,
}

impl Deployment {
    /// The initial state, to be attached to the first transfer to [`Deployment::address`].
    ///
    /// # Errors
    ///
    /// When the treasury is not in the basechain.
    pub fn state_init(&self) -> Result<StateInit, EncodeVaultError> {
        let data = Writer::new()
            .u64(0)
            .u64(0)
            .bit(false)
            .reference(self.parameters_cell()?)
            .reference(self.terms_cell(&self.parameters.client_key)?)
            .u32(0)
            .u32(FIRST_EPOCH)
            .u8(0)
            .u32(0)
            .u64(0)
            .finish()?;
        Ok(StateInit { code: Some(code()?), data: Some(data), ..StateInit::default() })
    }

    /// Where the vault is.
    ///
    /// # Errors
    ///
    /// When the treasury is not in the basechain.
    pub fn address(&self) -> Result<TonAddress, EncodeVaultError> {
        let init = CellBuilder::build_from(self.state_init()?);
        let HashBytes(hash) = *init.map_err(|_| EncodeVaultError::Overflow)?.repr_hash();
        Ok(TonAddress { workchain: 0, hash })
    }

    fn parameters_cell(&self) -> Result<Cell, EncodeVaultError> {
        let parameters = &self.parameters;
        Writer::new()
            .bytes32(parameters.client_key.as_bytes())
            .u16(parameters.fee_basis_points)
            .u32(parameters.release_delay)
            .amount(parameters.daily_cap)
            .address(parameters.owner)
            .bytes32(&basechain_account(parameters.treasury)?)
            .u32(self.network.global_id().cast_unsigned())
            .u64(self.salt)
            .finish()
    }

    /// By what vouchers are settled while `key` is the hot key in force: what the vault and each of
    /// its allocations refer to.
    fn terms_cell(&self, key: &VaultPublicKey) -> Result<Cell, EncodeVaultError> {
        Writer::new().bytes32(key.as_bytes()).u16(self.parameters.fee_basis_points).finish()
    }

    /// The key in a cell that [`Deployment::terms_cell`] writes, and nothing else does.
    pub(super) fn read_terms(&self, cell: &Cell) -> Result<VaultPublicKey, Error> {
        let mut reader = Reader::new(cell)?;
        let key = VaultPublicKey::from_bytes(reader.bytes32()?);
        let fee_basis_points = reader.u16()?;
        reader.finish()?;
        // The contract copies its own fee into every such cell.
        if fee_basis_points != self.parameters.fee_basis_points {
            return Err(Error::InvalidData);
        }
        Ok(key)
    }

    /// Reads what [`Deployment::parameters_cell`] writes.
    pub(super) fn read(cell: &Cell) -> Result<Self, Error> {
        let mut reader = Reader::new(cell)?;
        let client_key = VaultPublicKey::from_bytes(reader.bytes32()?);
        let fee_basis_points = reader.u16()?;
        let release_delay = reader.u32()?;
        let daily_cap = reader.amount()?;
        let owner = reader.address()?;
        let treasury = TonAddress { workchain: 0, hash: reader.bytes32()? };
        let network_id = reader.u32()?.cast_signed();
        let salt = reader.u64()?;
        reader.finish()?;
        let network = NETWORKS.into_iter().find(|network| network.global_id() == network_id);
        let parameters =
            Parameters { client_key, owner, release_delay, daily_cap, fee_basis_points, treasury };
        Ok(Self { parameters, network: network.ok_or(Error::InvalidData)?, salt })
    }
}

/// The contract's code.
///
/// # Errors
///
/// Never for the code that this crate is built with; a test reads it.
pub fn code() -> Result<Cell, EncodeVaultError> {
    Boc::decode(CODE).map_err(|_| EncodeVaultError::Overflow)
}
