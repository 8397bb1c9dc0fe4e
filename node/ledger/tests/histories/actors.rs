//! Who takes part in the histories.
//!
//! Owns: keys and addresses, which depend on nothing. Must not: act.

use cocoon_protocol::channel::{VaultKey, VaultPublicKey};
use cocoon_protocol::identity::{NodeKey, TonAddress};

pub(crate) const fn account(byte: u8) -> TonAddress {
    TonAddress { workchain: 0, hash: [byte; 32] }
}

pub(crate) const OWNER: TonAddress = account(0x40);
pub(crate) const TREASURY: TonAddress = account(0x41);
pub(crate) const STRANGER: TonAddress = account(0x42);
pub(crate) const PROVIDERS: usize = 4;
/// Hot keys that the owner rotates through; the last is the thief's, and never in force.
pub(crate) const PAYERS: usize = 4;

pub(crate) struct Actors {
    pub(crate) payers: [VaultKey; PAYERS],
    pub(crate) providers: [NodeKey; PROVIDERS],
}

impl Actors {
    pub(crate) fn new() -> Self {
        let secret = |kind: u8, index: usize| [kind + u8::try_from(index).unwrap(); 32];
        Self {
            payers: std::array::from_fn(|index| VaultKey::from_secret(&secret(10, index))),
            providers: std::array::from_fn(|index| NodeKey::from_secret(&secret(20, index))),
        }
    }

    pub(crate) fn payer(&self, key: &VaultPublicKey) -> &VaultKey {
        self.payers.iter().find(|payer| payer.public() == *key).expect("a key of ours")
    }
}

pub(crate) fn payout(provider: usize) -> TonAddress {
    account(0x50 + u8::try_from(provider).unwrap())
}
