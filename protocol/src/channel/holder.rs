//! Proof that a consumer holds the vault that it names.
//!
//! Owns: what the vault's key signs for it. Must not: know when it is asked for.
//! Vaults are public, and a provider tells the holder of one what it has of it: its highest
//! voucher, whose surplus pays for jobs. Without a proof a stranger could name a vault that is not
//! its own, use up that surplus, and leave debts behind.

use crate::channel::{VaultKey, VaultPublicKey};
use crate::identity::{Domain, NodeId, TonAddress};

/// "This consumer pays this provider from this vault." It needs nothing fresh: the session has
/// proved who the consumer is, and the claim is of no use to anybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HolderClaim {
    /// The vault.
    pub vault: TonAddress,
    /// Whom it is shown to.
    pub provider: NodeId,
    /// Who shows it.
    pub consumer: NodeId,
}

impl HolderClaim {
    fn message(&self) -> [u8; 97] {
        let mut message = [0; 97];
        let parts: [&[u8]; 4] = [
            &self.vault.workchain.to_be_bytes(),
            &self.vault.hash,
            self.provider.as_bytes(),
            self.consumer.as_bytes(),
        ];
        for (to, from) in message.iter_mut().zip(parts.concat()) {
            *to = from;
        }
        message
    }

    /// The proof, by the vault's hot key.
    pub fn prove(&self, key: &VaultKey) -> [u8; 64] {
        key.sign_in(Domain::VaultHolder, &self.message())
    }

    /// Whether the holder of the vault's hot key has made this claim.
    pub fn is_proved(&self, key: &VaultPublicKey, proof: &[u8; 64]) -> bool {
        let key = NodeId::from_bytes(*key.as_bytes());
        key.verify(Domain::VaultHolder, &self.message(), proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_own_claim_alone() {
        let claim = HolderClaim {
            vault: TonAddress { workchain: 0, hash: [1; 32] },
            provider: NodeId::from_bytes([2; 32]),
            consumer: NodeId::from_bytes([3; 32]),
        };
        let key = VaultKey::from_secret(&[4; 32]);
        let proof = claim.prove(&key);
        assert!(claim.is_proved(&key.public(), &proof));
        assert!(!claim.is_proved(&VaultKey::from_secret(&[5; 32]).public(), &proof));
        let other = NodeId::from_bytes([9; 32]);
        let vault = TonAddress { workchain: -1, ..claim.vault };
        for changed in [
            HolderClaim { vault, ..claim },
            HolderClaim { provider: other, ..claim },
            HolderClaim { consumer: other, ..claim },
        ] {
            assert!(!changed.is_proved(&key.public(), &proof));
        }
    }
}
