//! Money is conserved: every nanoTON that was given out is in a vault, a wallet, or paid as a fee.
//!
//! Owns: the comparison, after every block and anew at the end. Must not: keep books itself.

use super::Verdict;
use crate::ledger::{Books, Ledger};

pub(super) const NAME: &str = "money-conserved";

#[derive(Debug)]
pub(super) struct Money;

impl Money {
    pub(super) fn balance(&self, books: &Books) -> Verdict {
        if books.balance() {
            return Ok(());
        }
        Err(format!("the books do not balance: {books:?}"))
    }

    /// Counts every account anew.
    pub(super) fn audit(&self, ledger: &Ledger) -> Verdict {
        let (entered, counted) = (ledger.books(), ledger.audit());
        if entered != counted {
            return Err(format!("the books say {entered:?}, the accounts {counted:?}"));
        }
        self.balance(&counted)
    }
}
