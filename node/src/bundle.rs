//! Vouchers for others to settle: what a provider hands to a watchtower.
//!
//! Owns: the file. Must not: hold a key. Whoever has a bundle can make the vaults pay the provider, to
//! the address that each vault's contract has on record and to no other, and nothing else.
//!
//! The worst that a dishonest watchtower can do is to settle early, one bundle after the other: each
//! settlement costs the provider its gas, about 0.001 TON.

use std::collections::BTreeMap;

use cocoon_ledger::watch::Claim;
use cocoon_protocol::channel::{
    ChannelId, Payee, PayeeState, SignedVoucher, VaultPublicKey, Voucher,
};
use cocoon_protocol::identity::{Network, NodeId, NodeKey, TonAddress};
use cocoon_protocol::layout::RecordError;
use cocoon_protocol::units::NanoTon;
use serde::{Deserialize, Serialize};

use crate::store::{ReadError, Store, Table};

/// Names the format and its version.
const FORMAT: &str = "cocoon-vouchers-v1";
/// Records read from the store at a time.
const SCAN: usize = 512;
/// Largest file that is read: some ten thousand channels.
pub const BUNDLE_BYTES: u64 = 16 << 20;

/// The best voucher of every channel that owes its provider something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    format: String,
    network: Network,
    claims: Vec<BundledClaim>,
}

/// A voucher with everything that the contract asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BundledClaim {
    vault: TonAddress,
    vault_key: String,
    provider: NodeId,
    epoch: u32,
    cumulative_nano: NanoTon,
    receipts_root: String,
    signature: String,
    consent: String,
}

/// Why a file is no bundle, or not one to stand guard over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not one of ours, or half of one.
    #[error("this is no bundle of vouchers, or a damaged one")]
    Malformed,
    /// Made for another network.
    #[error("the vouchers are for {found}, and this is {expected}")]
    OtherNetwork {
        /// The bundle's.
        found: &'static str,
        /// Ours.
        expected: &'static str,
    },
    /// A voucher that its vault would refuse.
    #[error("voucher {place} was not signed by its consumer and consented to by its provider")]
    BadSignature {
        /// Which, from 1.
        place: usize,
    },
}

/// Why vouchers cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[source] ReadError),
    /// A record is damaged.
    #[error("a record in the store is damaged")]
    Record(#[source] RecordError),
}

/// Every channel in the store that pays `key` and owes it something. What is `known` from the last
/// time and is the same voucher still is not signed again.
pub(crate) fn claims(
    store: &Store,
    key: &NodeKey,
    known: &BTreeMap<ChannelId, (Claim, VaultPublicKey)>,
) -> Result<BTreeMap<ChannelId, (Claim, VaultPublicKey)>, ExportError> {
    let mut claims = BTreeMap::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.scan(Table::Payee, after.as_deref(), SCAN).map_err(ExportError::Store)?;
        let Some((last, _)) = page.last() else { return Ok(claims) };
        after = Some(last.clone());
        for (_, record) in &page {
            let payee = Payee::restore(PayeeState::decode(record).map_err(ExportError::Record)?);
            let Some(voucher) = payee.best().filter(|_| payee.unsettled() > NanoTon::ZERO) else {
                continue;
            };
            let same = known.get(&voucher.voucher.channel()).map(|(claim, _)| claim);
            let consent = match same.filter(|claim| claim.voucher == voucher) {
                Some(claim) => claim.consent,
                None => voucher.consent(key),
            };
            let claim = Claim { voucher, consent };
            claims.insert(claim.channel(), (claim, *payee.vault_key()));
        }
    }
}

impl Bundle {
    /// A bundle of these claims.
    pub(crate) fn new<'a>(
        network: Network,
        claims: impl Iterator<Item = &'a (Claim, VaultPublicKey)>,
    ) -> Self {
        let bundled = |(claim, key): &(Claim, VaultPublicKey)| {
            let SignedVoucher { voucher, signature } = &claim.voucher;
            BundledClaim {
                vault: voucher.vault,
                vault_key: hex::encode(key.as_bytes()),
                provider: voucher.provider,
                epoch: voucher.epoch,
                cumulative_nano: voucher.cumulative,
                receipts_root: hex::encode(voucher.receipts_root),
                signature: hex::encode(signature),
                consent: hex::encode(claim.consent),
            }
        };
        Self { format: FORMAT.to_owned(), network, claims: claims.map(bundled).collect() }
    }

    /// How many claims it holds.
    pub const fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// Reads a bundle, and checks every signature in it.
    ///
    /// # Errors
    ///
    /// When it is none, for another network, or holds a claim that would be refused.
    pub fn read(bytes: &[u8], network: Network) -> Result<Vec<Claim>, BundleError> {
        let bundle: Self = serde_json::from_slice(bytes).map_err(|_| BundleError::Malformed)?;
        if bundle.format != FORMAT {
            return Err(BundleError::Malformed);
        }
        if bundle.network != network {
            let (found, expected) = (bundle.network.as_str(), network.as_str());
            return Err(BundleError::OtherNetwork { found, expected });
        }
        (1..).zip(&bundle.claims).map(|(place, claim)| claim.check(place)).collect()
    }
}

impl BundledClaim {
    fn check(&self, place: usize) -> Result<Claim, BundleError> {
        let voucher = Voucher {
            vault: self.vault,
            provider: self.provider,
            epoch: self.epoch,
            cumulative: self.cumulative_nano,
            receipts_root: array(&self.receipts_root)?,
        };
        let voucher = SignedVoucher { voucher, signature: array(&self.signature)? };
        let consent = array(&self.consent)?;
        let key = VaultPublicKey::from_bytes(array(&self.vault_key)?);
        if voucher.verify(&key).is_err() || !voucher.has_consent(&consent) {
            return Err(BundleError::BadSignature { place });
        }
        Ok(Claim { voucher, consent })
    }
}

fn array<const N: usize>(digits: &str) -> Result<[u8; N], BundleError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| BundleError::Malformed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::channel::VaultKey;
    use proptest::prelude::*;

    fn bundle() -> (Bundle, Claim) {
        let (payer, provider) = (VaultKey::from_secret(&[1; 32]), NodeKey::from_secret(&[2; 32]));
        let voucher = payer.sign(Voucher {
            vault: TonAddress { workchain: 0, hash: [3; 32] },
            provider: provider.id(),
            epoch: 4,
            cumulative: NanoTon::from_nano(5),
            receipts_root: [6; 32],
        });
        let consent = voucher.consent(&provider);
        let claim = Claim { voucher, consent };
        (Bundle::new(Network::Testnet, [(claim.clone(), payer.public())].iter()), claim)
    }

    #[test]
    fn a_bundle_is_read_as_it_was_written_and_only_for_its_network() {
        let (bundle, claim) = bundle();
        let text = serde_json::to_string_pretty(&bundle).unwrap();
        assert_eq!(Bundle::read(text.as_bytes(), Network::Testnet), Ok(vec![claim]));
        let other = Bundle::read(text.as_bytes(), Network::Mainnet);
        let (found, expected) = ("testnet", "mainnet");
        assert_eq!(other, Err(BundleError::OtherNetwork { found, expected }));
    }

    #[test]
    fn a_claim_that_the_vault_would_refuse_is_refused_here() {
        let (bundle, _) = bundle();
        let text = serde_json::to_string(&bundle).unwrap();
        for (from, to) in
            [("\"cumulative_nano\":5", "\"cumulative_nano\":6"), ("\"epoch\":4", "\"epoch\":5")]
        {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            let read = Bundle::read(changed.as_bytes(), Network::Testnet);
            assert_eq!(read, Err(BundleError::BadSignature { place: 1 }));
        }
    }

    proptest! {
        #[test]
        fn damaged_bundles_never_panic(at in 0usize..800, with: u8) {
            let mut bytes = serde_json::to_vec(&bundle().0).unwrap();
            let length = bytes.len();
            bytes[at % length] = with;
            let _ = Bundle::read(&bytes, Network::Testnet);
            prop_assert!(Bundle::read(&bytes[..at % length], Network::Testnet).is_err());
        }
    }
}
