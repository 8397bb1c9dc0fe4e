//! Standing guard over vouchers: whoever holds the best ones sees to it that they are redeemed in time.
//!
//! Owns: when to look at a vault, when to settle, when to try again ([`Watcher`], pure), and the
//! tasks that do it on a ledger ([`stand`]). Must not: hold a key. A claim is a voucher and the
//! provider's consent, and pays to the address that the vault's contract has on record and to no other:
//! anybody may stand guard, and can steal nothing.

mod machine;
mod stand;

#[cfg(test)]
mod tests;

use cocoon_protocol::channel::{ChannelId, SignedVoucher};

pub use machine::{Action, Event, Rules, Seen, Watcher};
pub use stand::{Report, stand};

/// A voucher that may be shown to the contract by anybody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// What the consumer promised.
    pub voucher: SignedVoucher,
    /// The provider's signature that it may be settled from outside.
    pub consent: [u8; 64],
}

impl Claim {
    /// The channel that it is for.
    pub const fn channel(&self) -> ChannelId {
        self.voucher.voucher.channel()
    }
}
