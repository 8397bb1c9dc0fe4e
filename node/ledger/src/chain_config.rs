//! The configuration parameters (prices, limits) that the virtual machine runs under.
//!
//! Owns: the built-in parameters, and making current ones readable for tycho.
//! Must not: invent prices. Parameter 19, the network's id, is the only one set here.

use cocoon_protocol::identity::Network;
use tycho_executor::ParsedConfig;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily as _, CellSlice, HashBytes, Store as _};
use tycho_types::dict::{Dict, RawDict};
use tycho_types::error::Error as CellError;
use tycho_types::models::{BlockchainConfig, BlockchainConfigParams, StoragePrices};

/// The parameters that the contracts are tested under; `contracts/config/generate.mjs` says where
/// they come from.
const MAINNET_2026: &[u8] = include_bytes!("../../../contracts/config/mainnet-2026.boc");

/// Where the configuration contract would be; only the masterchain cares.
const CONFIG_ADDRESS: HashBytes = HashBytes([0x55; 32]);

const WORKCHAIN_TAG_V2: u8 = 0xa7;
const WORKCHAIN_TAG_KNOWN: u8 = 0xa6;
/// `split_merge_timings` (4 + 4 × 32 bits) and `persistent_state_split_depth` (8 bits), which
/// `workchain_v2#a7` has and `workchain#a6` has not.
const WORKCHAIN_V2_EXTRA_BITS: u16 = 4 + 4 * 32 + 8;
const PARAM_WORKCHAINS: u32 = 12;
const PARAM_STORAGE_PRICES: u32 = 18;

/// Parameters in the three forms that are needed: as published, for the machine, and parsed.
#[derive(Debug)]
pub(crate) struct ChainConfig {
    published: BlockchainConfigParams,
    readable: BlockchainConfigParams,
    parsed: ParsedConfig,
}

impl ChainConfig {
    /// The main network's prices of June 2026 under the id of `network`, as in force at `now`
    /// (Unix seconds).
    pub(crate) fn built_in(network: Network, now: u32) -> Result<Self, CellError> {
        let root = Boc::decode(MAINNET_2026).map_err(|_| CellError::InvalidCell)?;
        Self::new(BlockchainConfigParams::from_raw(root), network, now)
    }

    /// The same without rent.
    pub(crate) fn without_rent(network: Network, now: u32) -> Result<Self, CellError> {
        let root = Boc::decode(MAINNET_2026).map_err(|_| CellError::InvalidCell)?;
        let mut published = BlockchainConfigParams::from_raw(root);
        let mut free = Dict::<u32, StoragePrices>::new();
        let prices = StoragePrices {
            utime_since: 0,
            bit_price_ps: 0,
            cell_price_ps: 0,
            mc_bit_price_ps: 0,
            mc_cell_price_ps: 0,
        };
        free.set(prices.utime_since, prices)?;
        let root = free.into_root().ok_or(CellError::CellUnderflow)?;
        published.set_raw(PARAM_STORAGE_PRICES, root)?;
        Self::new(published, network, now)
    }

    /// The parameters with this root, as a network's state holds them, as in force at `now`.
    pub(crate) fn published(root: Cell, network: Network, now: u32) -> Result<Self, CellError> {
        let params = BlockchainConfigParams::from_raw(root);
        // The id inside is set to the network's own, so it has to be that already.
        if params.get_global_id()? != network.global_id() {
            return Err(CellError::InvalidData);
        }
        Self::new(params, network, now)
    }

    fn new(
        mut published: BlockchainConfigParams,
        network: Network,
        now: u32,
    ) -> Result<Self, CellError> {
        published.set_global_id(network.global_id())?;
        let mut readable = published.clone();
        lower_workchain_version(&mut readable)?;
        keep_storage_prices_in_force(&mut readable, now)?;
        let config = BlockchainConfig { address: CONFIG_ADDRESS, params: readable.clone() };
        let parsed = ParsedConfig::parse(config, now)?;
        Ok(Self { published, readable, parsed })
    }

    /// For the executor.
    pub(crate) const fn parsed(&self) -> &ParsedConfig {
        &self.parsed
    }

    /// For get methods.
    pub(crate) const fn readable(&self) -> &BlockchainConfigParams {
        &self.readable
    }

    /// All parameters as published, as the masterchain's state holds them.
    pub(crate) fn as_published(&self) -> BlockchainConfig {
        BlockchainConfig { address: CONFIG_ADDRESS, params: self.published.clone() }
    }

    /// One parameter as published.
    pub(crate) fn parameter(&self, id: u32) -> Result<Option<Cell>, CellError> {
        self.published.get_raw_cell(id)
    }

    /// The root of all parameters as published.
    pub(crate) fn root(&self) -> Option<Cell> {
        self.published.as_dict().root().clone()
    }
}

/// The main network writes parameter 12 as `workchain_v2#a7`; tycho-types 0.3 knows only
/// `workchain#a6`, which is the same without the last 140 bits.
fn lower_workchain_version(params: &mut BlockchainConfigParams) -> Result<(), CellError> {
    let Some(cell) = params.get_raw_cell(PARAM_WORKCHAINS)? else {
        return Ok(());
    };
    let workchains = cell.parse::<Dict<i32, CellSlice<'_>>>()?;
    let mut lowered = RawDict::<32>::new();
    for entry in workchains.iter() {
        let (workchain, mut description) = entry?;
        let mut value = CellBuilder::new();
        let tag = description.load_u8()?;
        if tag == WORKCHAIN_TAG_V2 {
            value.store_u8(WORKCHAIN_TAG_KNOWN)?;
            description.skip_last(WORKCHAIN_V2_EXTRA_BITS, 0)?;
        } else {
            value.store_u8(tag)?;
        }
        value.store_slice(description)?;
        let mut key = tycho_types::cell::CellDataBuilder::new();
        key.store_u32(workchain.cast_unsigned())?;
        lowered.set(key.as_data_slice(), value.build()?.as_slice()?)?;
    }
    let mut builder = CellBuilder::new();
    lowered.store_into(&mut builder, Cell::empty_context())?;
    params.set_raw(PARAM_WORKCHAINS, builder.build()?)?;
    Ok(())
}

/// tycho-vm 0.3 looks up storage prices with a reversed iterator that misreads a dictionary of
/// two or more entries, which the main network has since April 2026, and every get method then
/// fails. Only the entry in force is ever used, so only that one stays.
fn keep_storage_prices_in_force(
    params: &mut BlockchainConfigParams,
    now: u32,
) -> Result<(), CellError> {
    let mut in_force: Option<StoragePrices> = None;
    for entry in params.get_storage_prices()?.iter() {
        let (_, prices) = entry?;
        let newer = in_force.as_ref().is_none_or(|known| known.utime_since <= prices.utime_since);
        if prices.utime_since <= now && newer {
            in_force = Some(prices);
        }
    }
    let prices = in_force.ok_or(CellError::CellUnderflow)?;
    let mut single = Dict::<u32, StoragePrices>::new();
    single.set(prices.utime_since, prices)?;
    let root = single.into_root().ok_or(CellError::CellUnderflow)?;
    params.set_raw(PARAM_STORAGE_PRICES, root)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22, after the price cut of April.
    const NOW: u32 = 1_795_000_000;

    #[test]
    fn the_built_in_parameters_are_the_documented_ones() {
        let config = ChainConfig::built_in(Network::Devnet, NOW).unwrap();
        let parsed = config.parsed();
        assert_eq!(parsed.gas_prices.gas_price, 4_369_067);
        assert_eq!(parsed.gas_prices.flat_gas_price, 6_667);
        assert_eq!(parsed.gas_prices.gas_credit, 10_000);
        assert_eq!(parsed.fwd_prices.lump_price, 66_667);
        assert_eq!(parsed.global_id, Network::Devnet.global_id());
        assert_eq!(config.readable().get_storage_prices().unwrap().iter().count(), 1);
        assert!(config.published.get_storage_prices().unwrap().iter().count() >= 2);
    }

    #[test]
    fn before_the_price_cut_the_older_storage_prices_are_in_force() {
        let config = ChainConfig::built_in(Network::Devnet, 1_700_000_000).unwrap();
        let prices = config.readable().get_storage_prices().unwrap();
        let (_, entry) = prices.iter().next().unwrap().unwrap();
        assert_eq!((entry.bit_price_ps, entry.cell_price_ps), (1, 500));
    }
}
