//! Fields of the vault's cells: what a `Writer` puts into one, a `Reader` takes out of it.
//!
//! Owns: the spelling of keys, amounts and addresses.
//! Must not: read past what was asked, or accept more than one spelling of a value.

use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::NanoTon;
use tycho_types::cell::{Cell, CellBuilder, CellSlice, HashBytes};
use tycho_types::error::Error;

/// `addr_std$10` without anycast, before workchain and hash.
const ADDRESS_TAG: u8 = 0b100;
const ADDRESS_TAG_BITS: u16 = 3;

/// Why a vault's address or message cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeVaultError {
    /// Payouts and the treasury are accounts of the basechain.
    #[error("{0} is not in the basechain: vaults pay only accounts whose address starts with `0:`")]
    NotInBasechain(TonAddress),
    /// A batch has 1 to 16 requests.
    #[error("a batch has 1 to {limit} allocations, not {0}: split it", limit = cocoon_protocol::channel::settlement::BATCH)]
    BatchLength(usize),
    /// The sum of a batch does not fit.
    #[error("the amounts of the batch are more than exists")]
    BatchTotal,
    /// The contract counts seconds in 32 bits.
    #[error("the order's last second is after the year 2106")]
    ValidUntil,
    /// A release or an order for one vault was put into a message for another.
    #[error("the release is for another vault")]
    OtherVault,
    /// Never for the cells of this module; their library has to say so.
    #[error("the parts do not fit into a cell")]
    Overflow,
}

/// The account of a basechain address.
pub(crate) fn basechain_account(address: TonAddress) -> Result<[u8; 32], EncodeVaultError> {
    match address {
        TonAddress { workchain: 0, hash } => Ok(hash),
        other => Err(EncodeVaultError::NotInBasechain(other)),
    }
}

/// A cell under construction. An overflow is remembered and reported at the end.
pub(crate) struct Writer {
    builder: CellBuilder,
    result: Result<(), Error>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { builder: CellBuilder::new(), result: Ok(()) }
    }

    fn then(mut self, store: impl FnOnce(&mut CellBuilder) -> Result<(), Error>) -> Self {
        if self.result.is_ok() {
            self.result = store(&mut self.builder);
        }
        self
    }

    pub(crate) fn bit(self, value: bool) -> Self {
        self.then(|builder| builder.store_bit(value))
    }

    pub(crate) fn u8(self, value: u8) -> Self {
        self.then(|builder| builder.store_u8(value))
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.then(|builder| builder.store_u16(value))
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.then(|builder| builder.store_u32(value))
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.then(|builder| builder.store_u64(value))
    }

    pub(crate) fn amount(self, value: NanoTon) -> Self {
        self.u64(value.as_nano())
    }

    pub(crate) fn bytes32(self, value: &[u8; 32]) -> Self {
        self.then(|builder| builder.store_u256(HashBytes::wrap(value)))
    }

    pub(crate) fn signature(self, value: &[u8; 64]) -> Self {
        self.then(|builder| builder.store_raw(value, 512))
    }

    pub(crate) fn address(self, value: TonAddress) -> Self {
        self.then(|builder| builder.store_small_uint(ADDRESS_TAG, ADDRESS_TAG_BITS))
            .u8(value.workchain.cast_unsigned())
            .bytes32(&value.hash)
    }

    /// The bits of a cell that refers to nothing.
    pub(crate) fn bits_of(self, cell: &Cell) -> Self {
        self.then(|builder| builder.store_slice(cell.as_slice()?))
    }

    pub(crate) fn reference(self, cell: Cell) -> Self {
        self.then(|builder| builder.store_reference(cell))
    }

    /// Everything that another writer holds.
    pub(crate) fn append(self, other: Self) -> Self {
        let result = other.result;
        self.then(|builder| result.and_then(|()| builder.store_builder(&other.builder)))
    }

    pub(crate) fn finish(self) -> Result<Cell, EncodeVaultError> {
        self.result.and_then(|()| self.builder.build()).map_err(|_| EncodeVaultError::Overflow)
    }
}

/// A cell being read. Every method fails where the cell has less than it takes.
pub(crate) struct Reader<'a>(CellSlice<'a>);

impl<'a> Reader<'a> {
    pub(crate) fn new(cell: &'a Cell) -> Result<Self, Error> {
        cell.as_slice().map(Self)
    }

    pub(crate) const fn of(slice: CellSlice<'a>) -> Self {
        Self(slice)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        self.0.load_u8()
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        self.0.load_u16()
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.0.load_u32()
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        self.0.load_u64()
    }

    pub(crate) fn amount(&mut self) -> Result<NanoTon, Error> {
        self.u64().map(NanoTon::from_nano)
    }

    pub(crate) fn bytes32(&mut self) -> Result<[u8; 32], Error> {
        self.0.load_u256().map(|HashBytes(bytes)| bytes)
    }

    pub(crate) fn bit(&mut self) -> Result<bool, Error> {
        self.0.load_bit()
    }

    /// `addr_none$00`, or an address.
    pub(crate) fn optional_address(&mut self) -> Result<Option<TonAddress>, Error> {
        if self.0.get_small_uint(0, 2)? == 0 {
            self.0.skip_first(2, 0)?;
            return Ok(None);
        }
        self.address().map(Some)
    }

    pub(crate) fn address(&mut self) -> Result<TonAddress, Error> {
        if self.0.load_small_uint(ADDRESS_TAG_BITS)? != ADDRESS_TAG {
            return Err(Error::InvalidTag);
        }
        Ok(TonAddress { workchain: self.u8()?.cast_signed(), hash: self.bytes32()? })
    }

    pub(crate) fn reference(&mut self) -> Result<Cell, Error> {
        self.0.load_reference_cloned()
    }

    pub(crate) fn optional_reference(&mut self) -> Result<Option<Cell>, Error> {
        if self.0.load_bit()? { self.reference().map(Some) } else { Ok(None) }
    }

    /// Nothing may be left: a second spelling of a state could hide something.
    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::InvalidData) }
    }
}
