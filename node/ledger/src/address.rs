//! TON's user-friendly address form, and the way between our addresses and tycho's.
//!
//! Owns: the 48-character base64 form (tag, workchain, hash, CRC16) as in TEP-2.
//! Must not: guess. A wrong checksum, tag or length is an error, and so is a test-only address
//! on the main network.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use cocoon_protocol::identity::{Network, TonAddress};
use tycho_types::cell::HashBytes;
use tycho_types::models::{IntAddr, StdAddr};

const TAG_BOUNCEABLE: u8 = 0x11;
const TAG_NON_BOUNCEABLE: u8 = 0x51;
const FLAG_TEST_ONLY: u8 = 0x80;
/// Tag, workchain, hash, checksum: 36 bytes, 48 characters.
const FRIENDLY_CHARACTERS: usize = 48;

/// An address as people copy it: `EQ…`, `UQ…`, `kQ…`, `0Q…`. Displays in the URL-safe alphabet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FriendlyAddress {
    /// The address itself.
    pub address: TonAddress,
    /// Whether money sent there should come back if no contract takes it.
    pub bounceable: bool,
    /// Whether software for the main network must refuse it.
    pub test_only: bool,
}

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// Neither 48 characters of base64 nor `workchain:64 hexadecimal digits`.
    #[error("an address is 48 characters such as `UQ…`, or `0:` and 64 hexadecimal digits")]
    Form,
    /// The checksum does not fit: a typing error.
    #[error("the address's checksum is wrong; copy it again")]
    Checksum,
    /// The first byte is none that TEP-2 defines.
    #[error("the address has an unknown tag")]
    Tag,
    /// A test-only address where real money would go.
    #[error("this address is for the test network only")]
    TestOnly,
}

impl FriendlyAddress {
    /// The form to show for a wallet on `network`: non-bounceable, so that it can be funded
    /// before it is deployed.
    pub const fn for_wallet(address: TonAddress, network: Network) -> Self {
        Self { address, bounceable: false, test_only: !matches!(network, Network::Mainnet) }
    }
}

impl FromStr for FriendlyAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != FRIENDLY_CHARACTERS {
            return Err(ParseAddressError::Form);
        }
        let url_safe = text.contains(['-', '_']);
        let engine = if url_safe { BASE64_URL_SAFE } else { BASE64_STANDARD };
        let bytes = engine.decode(text).map_err(|_| ParseAddressError::Form)?;
        let (body, checksum) = bytes.split_last_chunk::<2>().ok_or(ParseAddressError::Form)?;
        if tycho_types::crc::crc_16(body).to_be_bytes() != *checksum {
            return Err(ParseAddressError::Checksum);
        }
        let ([tag, workchain], hash) =
            body.split_first_chunk::<2>().ok_or(ParseAddressError::Form)?;
        let bounceable = match tag & !FLAG_TEST_ONLY {
            TAG_BOUNCEABLE => true,
            TAG_NON_BOUNCEABLE => false,
            _ => return Err(ParseAddressError::Tag),
        };
        let hash = hash.try_into().map_err(|_| ParseAddressError::Form)?;
        let address = TonAddress { workchain: workchain.cast_signed(), hash };
        Ok(Self { address, bounceable, test_only: tag & FLAG_TEST_ONLY != 0 })
    }
}

impl fmt::Display for FriendlyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = if self.bounceable { TAG_BOUNCEABLE } else { TAG_NON_BOUNCEABLE };
        let tag = if self.test_only { tag | FLAG_TEST_ONLY } else { tag };
        let mut bytes = Vec::with_capacity(36);
        bytes.push(tag);
        bytes.push(self.address.workchain.cast_unsigned());
        bytes.extend_from_slice(&self.address.hash);
        let checksum = tycho_types::crc::crc_16(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        f.write_str(&BASE64_URL_SAFE.encode(bytes))
    }
}

/// Reads an address in either form, for use on `network`.
///
/// # Errors
///
/// When the text is no address, or a test-only one and `network` is the main network.
pub fn parse(text: &str, network: Network) -> Result<TonAddress, ParseAddressError> {
    if text.contains(':') {
        return TonAddress::from_raw(text).ok_or(ParseAddressError::Form);
    }
    let friendly = text.parse::<FriendlyAddress>()?;
    if friendly.test_only && network == Network::Mainnet {
        return Err(ParseAddressError::TestOnly);
    }
    Ok(friendly.address)
}

pub(crate) const fn to_std(address: TonAddress) -> StdAddr {
    StdAddr::new(address.workchain, HashBytes(address.hash))
}

pub(crate) fn from_std(address: &StdAddr) -> TonAddress {
    TonAddress { workchain: address.workchain, hash: address.address.0 }
}

/// `None` for variable-length addresses, which no contract here uses.
pub(crate) fn from_int(address: &IntAddr) -> Option<TonAddress> {
    address.as_std().map(from_std)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From TEP-2 and the TON documentation: one account in all its spellings.
    #[test]
    fn the_documented_account_reads_the_same_in_every_spelling() {
        let raw = "0:ca6e321c7cce9ecedf0a8ca2492ec8592494aa5fb5ce0387dff96ef6af982a3e";
        let address = TonAddress::from_raw(raw).unwrap();
        for (text, bounceable, test_only) in [
            ("EQDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPrHF", true, false),
            ("UQDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPuwA", false, false),
            ("kQDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPgpP", true, true),
            ("0QDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPleK", false, true),
        ] {
            let friendly = FriendlyAddress { address, bounceable, test_only };
            assert_eq!(text.parse(), Ok(friendly));
            assert_eq!(friendly.to_string(), text);
        }
        assert_eq!(parse(raw, Network::Mainnet), Ok(address));
    }

    #[test]
    fn the_main_network_refuses_test_addresses() {
        let text = "kQDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPgpP";
        assert_eq!(parse(text, Network::Mainnet), Err(ParseAddressError::TestOnly));
        assert!(parse(text, Network::Testnet).is_ok());
    }

    proptest! {
        #[test]
        fn one_changed_character_is_noticed(hash: [u8; 32], at in 0usize..48, to in "[A-Za-z0-9_]") {
            let address = TonAddress { workchain: 0, hash };
            let text = FriendlyAddress { address, bounceable: true, test_only: false }.to_string();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != text);
            prop_assert!(parse(&changed, Network::Devnet).is_err());
        }

        #[test]
        fn reading_an_address_never_panics(text in "\\PC{0,80}") {
            let _ = parse(&text, Network::Mainnet);
        }
    }
}
