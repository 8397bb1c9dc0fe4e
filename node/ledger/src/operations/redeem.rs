//! A provider's way to its money: reading vaults, settling vouchers.
//!
//! Owns: one settlement from message to effect.
//! Must not: hold a key. The provider's consent comes in with the voucher.

use std::sync::Arc;

use cocoon_protocol::channel::settlement::VaultError;
use cocoon_protocol::channel::{Allocation, SignedVoucher};
use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::NanoTon;

use super::confirm::{sent, wait_for};
use super::{OperationError, Patience, VaultView, read_vault, refusal};
use crate::message::Message;
use crate::port::{Ledger, LedgerError};
use crate::vault;

/// What a settlement came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redeemed {
    /// What the allocation has paid in all, fees included.
    pub paid: NanoTon,
    /// The allocation after it.
    pub allocation: Allocation,
}

/// Settles vouchers. Needs neither wallet nor money: the gas comes out of the payment.
#[derive(Clone, Debug)]
pub struct Redeemer {
    ledger: Arc<dyn Ledger>,
    patience: Patience,
}

impl Redeemer {
    /// A redeemer on `ledger`.
    pub const fn new(ledger: Arc<dyn Ledger>, patience: Patience) -> Self {
        Self { ledger, patience }
    }

    /// A consumer's vault; `None` when there is none.
    ///
    /// # Errors
    ///
    /// When the ledger fails, or what is there cannot be believed.
    pub async fn vault(&self, address: TonAddress) -> Result<Option<VaultView>, OperationError> {
        read_vault(self.ledger.as_ref(), address).await
    }

    /// Redeems `voucher`, to which the provider consents with [`SignedVoucher::consent`].
    ///
    /// Safe to repeat at any time: the contract pays only what it has not paid yet, and a voucher
    /// that was redeemed already gives the same answer as when it was.
    ///
    /// # Errors
    ///
    /// When the vault refuses, or the ledger does not confirm.
    pub async fn settle(
        &self,
        voucher: &SignedVoucher,
        consent: &[u8; 64],
    ) -> Result<Redeemed, OperationError> {
        if let Some(done) = self.redeemed(voucher).await? {
            return Ok(done);
        }
        let body =
            vault::message::settle_external(voucher, consent).map_err(OperationError::Encode)?;
        let message = Message::external(voucher.voucher.vault, None, body)
            .map_err(OperationError::Message)?;
        sent("settlement", message.hash());
        match self.ledger.send(message).await {
            Ok(_) => {}
            // Somebody carried the same voucher, or a better one, a moment before.
            Err(LedgerError::NotAccepted { exit_code })
                if exit_code == Some(VaultError::NothingToSettle.exit_code()) => {}
            Err(LedgerError::NotAccepted { exit_code }) => return Err(refusal(exit_code)),
            Err(error) if error.may_have_been_sent() => {
                tracing::warn!(%error, "a settlement may not have been sent; waiting for it");
            }
            Err(error) => return Err(OperationError::Ledger(error)),
        }
        wait_for(self.patience, || self.redeemed(voucher)).await
    }

    /// The allocation, if it has paid all that the voucher is worth.
    async fn redeemed(&self, signed: &SignedVoucher) -> Result<Option<Redeemed>, OperationError> {
        let voucher = &signed.voucher;
        let view = self.vault(voucher.vault).await?.ok_or(OperationError::NoVault)?;
        let refused = |error| Err(OperationError::Refused(error));
        let Some(allocation) = view.allocation(&voucher.provider).copied() else {
            return refused(VaultError::NoAllocation);
        };
        if allocation.epoch != voucher.epoch {
            return refused(VaultError::WrongEpoch);
        }
        let worth = voucher.cumulative.min(allocation.limit);
        let paid = allocation.paid;
        Ok((paid >= worth).then_some(Redeemed { paid, allocation }))
    }
}
