//! The account of every nanoTON of a run.
//!
//! Owns: the four places where money can be, and their sum.
//! Must not: be derived from what it checks: each entry is made from what a message says, not from
//! what the accounts look like afterwards.

use cocoon_protocol::units::NanoTon;

/// Where all money is. Sums are exact; no amount of vaults overflows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// All that the faucet gave out.
    pub minted: u128,
    /// What is in vaults.
    pub vaults: u128,
    /// What is in wallets: consumers', and the payout addresses of providers.
    pub wallets: u128,
    /// What the chain has charged.
    pub fees: u128,
}

impl Books {
    /// Whether every nanoTON that was given out is somewhere, and no other is anywhere.
    pub const fn balance(&self) -> bool {
        match self.vaults.checked_add(self.wallets) {
            Some(sum) => match sum.checked_add(self.fees) {
                Some(sum) => sum == self.minted,
                None => false,
            },
            None => false,
        }
    }

    pub(super) const fn charge(&mut self, fee: NanoTon) {
        self.fees = self.fees.saturating_add(wide(fee));
    }

    /// An account changed from one balance to another.
    pub(super) const fn moved(total: &mut u128, before: NanoTon, after: NanoTon) {
        *total = total.saturating_sub(wide(before)).saturating_add(wide(after));
    }
}

pub(super) const fn wide(amount: NanoTon) -> u128 {
    amount.as_nano() as u128
}
