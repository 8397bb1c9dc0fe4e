//! Why a vault refuses a message.
//!
//! Owns: the names and exit codes of `contracts/vault/errors.tolk`.
//! Must not: have a name for what cannot be said in this model, such as an unknown operation.

use crate::limits::VAULT_ALLOCATIONS;

/// Why the vault refuses, as in `contracts/vault/errors.tolk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum VaultError {
    /// The signed cell is for another vault, or another network's.
    #[error("signed for another vault")]
    WrongVault,
    /// Not signed by the key that the operation needs.
    #[error("not signed by the key that this needs")]
    BadSignature,
    /// A command by message, but not from the owner; or a rotation that the owner did not send.
    #[error("only the vault's owner may do this, by a message from its wallet")]
    NotOwner,
    /// Replayed, or signed before another order went through.
    #[error("another order went through first: sign again with the next seqno")]
    WrongSeqno,
    /// Past the order's last second.
    #[error("the order has expired: sign it again")]
    Expired,
    /// An external settlement without the provider's signature.
    #[error("the provider has not consented to this settlement")]
    NoConsent,
    /// This provider has no allocation.
    #[error("this provider has no allocation")]
    NoAllocation,
    /// A claim on an earlier or later allocation to this provider.
    #[error("the claim is on another allocation of this provider")]
    WrongEpoch,
    /// A key that any signature fits.
    #[error("the provider's key is not usable")]
    BadProvider,
    /// No account, or the vault itself.
    #[error("the payout address is not usable")]
    BadPayout,
    /// An allocation grows only for the payout address that it has.
    #[error("the allocation has another payout address")]
    PayoutDiffers,
    /// All places are in use.
    #[error("the vault has {VAULT_ALLOCATIONS} allocations: release one first")]
    TooManyAllocations,
    /// Nothing to allocate or to withdraw.
    #[error("the amount is zero")]
    ZeroAmount,
    /// The cumulative limit would not fit into 64 bits.
    #[error("the allocation's limit would not fit")]
    AmountOverflow,
    /// The hot key has allocated enough for today.
    #[error("the daily cap on allocations is reached: wait, or allocate as owner")]
    DailyCap,
    /// Empty, too long, or its sum does not fit.
    #[error("the batch is empty or too long")]
    BadBatch,
    /// Fee or release delay beyond the contract's bounds.
    #[error("the vault was made with parameters that it does not allocate under")]
    BadParameters,
    /// A key that any signature fits.
    #[error("the new hot key is not usable")]
    BadKey,
    /// Made under a hot key that is not in force any more.
    #[error("the allocation was made under an earlier hot key: release it and allocate anew")]
    OtherKey,
    /// A release is pending.
    #[error("a release was requested already")]
    AlreadyReleasing,
    /// No release is pending, or its delay has not passed.
    #[error("the release delay has not passed")]
    TooEarly,
    /// The time to settle has passed.
    #[error("the allocation is released: nothing is settled any more")]
    Released,
    /// A release names more than was allocated.
    #[error("the release names more than was allocated")]
    OverLimit,
    /// Would touch money that is reserved or kept for rent.
    #[error("the vault has not enough free money: top it up")]
    InsufficientFunds,
    /// The claim is not above what was already paid.
    #[error("the voucher is not above what was already paid")]
    NothingToSettle,
    /// Would not pay for its own fees.
    #[error("the amount would not pay for its own fees")]
    TooSmall,
    /// The balance does not cover all allocations.
    #[error("the balance does not cover all allocations: top the vault up")]
    Underfunded,
    /// Cannot be closed while allocations exist.
    #[error("release every allocation before closing the vault")]
    NotEmpty,
}

impl VaultError {
    /// Every reason.
    pub const ALL: [Self; 28] = [
        Self::WrongVault,
        Self::BadSignature,
        Self::NotOwner,
        Self::WrongSeqno,
        Self::Expired,
        Self::NoConsent,
        Self::NoAllocation,
        Self::WrongEpoch,
        Self::BadProvider,
        Self::BadPayout,
        Self::PayoutDiffers,
        Self::TooManyAllocations,
        Self::ZeroAmount,
        Self::AmountOverflow,
        Self::DailyCap,
        Self::BadBatch,
        Self::BadParameters,
        Self::BadKey,
        Self::OtherKey,
        Self::AlreadyReleasing,
        Self::TooEarly,
        Self::Released,
        Self::OverLimit,
        Self::InsufficientFunds,
        Self::NothingToSettle,
        Self::TooSmall,
        Self::Underfunded,
        Self::NotEmpty,
    ];

    /// The reason with this exit code, if it is the contract's own.
    pub fn from_exit_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.exit_code() == code)
    }

    /// The contract's exit code.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::WrongVault => 103,
            Self::BadSignature => 110,
            Self::NotOwner => 111,
            Self::WrongSeqno => 112,
            Self::Expired => 113,
            Self::NoConsent => 114,
            Self::NoAllocation => 120,
            Self::WrongEpoch => 121,
            Self::BadProvider => 122,
            Self::BadPayout => 123,
            Self::PayoutDiffers => 124,
            Self::TooManyAllocations => 125,
            Self::ZeroAmount => 126,
            Self::AmountOverflow => 127,
            Self::DailyCap => 128,
            Self::BadBatch => 129,
            Self::BadParameters => 130,
            Self::BadKey => 131,
            Self::OtherKey => 132,
            Self::AlreadyReleasing => 140,
            Self::TooEarly => 141,
            Self::Released => 142,
            Self::OverLimit => 143,
            Self::InsufficientFunds => 150,
            Self::NothingToSettle => 151,
            Self::TooSmall => 152,
            Self::Underfunded => 153,
            Self::NotEmpty => 154,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::VaultError;

    /// The contract's own list.
    const CONTRACT: &str = include_str!("../../../../contracts/vault/errors.tolk");
    /// Cannot be said in this model: messages that do not parse, cells with another magic.
    const UNSPOKEN: [&str; 3] = ["UNKNOWN_MESSAGE", "UNKNOWN_COMMAND", "WRONG_MAGIC"];
    const ALL: [VaultError; 28] = VaultError::ALL;

    /// `BadSignature` as the contract spells it.
    fn contract_name(error: VaultError) -> String {
        let mut name = String::new();
        for letter in format!("{error:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        name
    }

    #[test]
    fn names_and_exit_codes_are_the_contracts() {
        let theirs: std::collections::BTreeMap<&str, i32> = CONTRACT
            .lines()
            .filter_map(|line| line.strip_prefix("const ERROR_")?.split_once('='))
            .map(|(name, rest)| {
                let code = rest.split_whitespace().next().unwrap();
                (name.trim(), code.parse().unwrap())
            })
            .filter(|(name, _)| !UNSPOKEN.contains(name))
            .collect();
        let ours: std::collections::BTreeMap<_, _> =
            ALL.map(|error| (contract_name(error), error.exit_code())).into();
        let ours = ours.iter().map(|(name, code)| (name.as_str(), *code)).collect();
        assert_eq!(theirs, ours);
    }
}
