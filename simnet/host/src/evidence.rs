//! What a provider shows at the start of a session, in place of a TEE's quote.
//!
//! Owns: the claim, and whether it is true: the simulator knows, the verifying host may find out.
//! Must not: decide; a host's policy does.

use cocoon_protocol::attest::Tier;

/// Modelled evidence. Costs and checks are those of real evidence; the cryptography is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The tier that it claims.
    pub tier: Tier,
    /// The tier that verification would really find: below the claim for forged evidence.
    pub genuine: Tier,
    /// Whether its holder is an adversary of the scenario. No check finds it; it is for the tables.
    pub hostile: bool,
    /// Digest of the evidence, as it will stand in receipts.
    pub digest: [u8; 32],
    /// Digest of what is served, as the evidence is bound to it.
    pub manifest: [u8; 32],
}

impl Evidence {
    /// Length of its encoding in [`Self::encode`].
    pub const BYTES: usize = 67;

    /// For a fabric that carries real bytes. Fabrics add what a real quote is longer.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = number(self.tier);
        bytes[1] = number(self.genuine);
        bytes[2] = u8::from(self.hostile);
        bytes[3..35].copy_from_slice(&self.digest);
        bytes[35..].copy_from_slice(&self.manifest);
        bytes
    }

    /// Reads [`Self::encode`]; `None` for anything else.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (head, digests) = bytes.split_first_chunk::<3>()?;
        let (digest, manifest) = digests.split_first_chunk::<32>()?;
        Some(Self {
            tier: tier(head[0])?,
            genuine: tier(head[1])?,
            hostile: head[2] != 0,
            digest: *digest,
            manifest: manifest.try_into().ok()?,
        })
    }
}

const TIERS: [Tier; 3] = [Tier::Open, Tier::Attested, Tier::Confidential];

fn number(tier: Tier) -> u8 {
    u8::try_from(TIERS.iter().position(|it| *it == tier).unwrap_or(0)).unwrap_or(0)
}

fn tier(number: u8) -> Option<Tier> {
    TIERS.get(usize::from(number)).copied()
}
