//! Wallet contract version 4, release 2: its address and its sequence number, to look at.
//!
//! Owns: the initial state that the address follows from. Must not: sign. Money in such a wallet is
//! moved with the program that made it; here it is only shown.
//! Source: `ton-blockchain/wallet-contract`; checked against vectors made by `@ton/ton`.

use cocoon_protocol::identity::TonAddress;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, HashBytes};
use tycho_types::error::Error as CellError;
use tycho_types::models::StateInit;

/// See `README.md` beside it.
const CODE: &[u8] = include_bytes!("v4r2-code.boc");
/// The subwallet that wallet programs use, before the workchain is added.
const SUBWALLET: u32 = 698_983_191;

/// The address of the key's version 4 wallet in a workchain: the same on every network.
///
/// # Errors
///
/// Never with the built-in code; the type has to say so.
pub fn v4r2_address(public_key: &[u8; 32], workchain: i8) -> Result<TonAddress, CellError> {
    let code = Boc::decode(CODE).map_err(|_| CellError::InvalidCell)?;
    let mut data = CellBuilder::new();
    data.store_u32(0)?;
    data.store_u32(SUBWALLET.wrapping_add_signed(i32::from(workchain)))?;
    data.store_raw(public_key, 256)?;
    // No plugins.
    data.store_bit_zero()?;
    let init = StateInit { code: Some(code), data: Some(data.build()?), ..StateInit::default() };
    let cell: Cell = CellBuilder::build_from(&init)?;
    let HashBytes(hash) = *cell.repr_hash();
    Ok(TonAddress { workchain, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_known_release() {
        let code = Boc::decode(CODE).unwrap();
        let known = "feb5ff6820e2ff0d9483e7e0d62c817d846789fb4ae580c878866d959dabd5c0";
        assert_eq!(code.repr_hash().to_string(), known);
    }
}
