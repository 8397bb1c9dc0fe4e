//! A wallet's payment that can be repeated after anything and happens once.
//!
//! Owns: signing it once, and carrying that one message until it is certain what became of it.
//! Must not: sign a second message for a payment. A signed one holds the wallet's next sequence
//! number and a last second, so that however often it is sent it is executed once or never; the
//! caller makes it durable before it is sent for the first time.

use std::sync::Arc;

use cocoon_protocol::units::{NanoTon, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::confirm::{GRACE, sent};
use super::deposit::{TRANSFER_FEES, WALLET_EXPIRED, WALLET_WRONG_SEQNO};
use super::{OperationError, Patience};
use crate::message::{InvalidMessage, Message, Transfer};
use crate::port::{AccountState, Ledger, LedgerError, Page};
use crate::transaction::TransactionSummary;
use crate::wallet::Wallet;

/// Transactions read at a time while looking for a message, and how many pages: far more than a
/// person's wallet has between two looks. Beyond, nobody knows.
const PAGE: u16 = 32;
const PAGES: usize = 128;

/// A payment, signed; safe to send again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedTransfer {
    /// The message as a bag of cells, in hexadecimal digits.
    message: String,
    /// The wallet's sequence number that it uses.
    seqno: u32,
    /// After this time it is not executed any more, in seconds since the Unix epoch.
    valid_until_seconds: u64,
    /// Logical time of the wallet's newest transaction when it was signed.
    since_lt: u64,
}

impl SignedTransfer {
    fn message(&self) -> Result<Message, OperationError> {
        let damaged = |_| OperationError::Message(InvalidMessage::NotABagOfCells);
        let bytes = hex::decode(&self.message).map_err(damaged)?;
        Message::from_boc(&bytes).map_err(OperationError::Message)
    }

    /// The hash by which explorers know the message, whatever its serialisation (TEP-467).
    ///
    /// # Errors
    ///
    /// When the record is damaged.
    pub fn hash(&self) -> Result<crate::message::MessageHash, OperationError> {
        self.message()?.normalised_hash().map_err(OperationError::Message)
    }
}

/// Pays from a wallet.
#[derive(Clone, Debug)]
pub struct Remitter {
    ledger: Arc<dyn Ledger>,
    wallet: Wallet,
    patience: Patience,
}

impl Remitter {
    /// A remitter for `wallet`.
    pub const fn new(ledger: Arc<dyn Ledger>, wallet: Wallet, patience: Patience) -> Self {
        Self { ledger, wallet, patience }
    }

    /// Signs a payment; sends nothing.
    ///
    /// # Errors
    ///
    /// When the ledger fails, or the wallet has too little.
    pub async fn sign(&self, transfer: Transfer) -> Result<SignedTransfer, OperationError> {
        let account = self.account().await?;
        let needed = transfer.value.saturating_add(TRANSFER_FEES);
        if account.balance < needed {
            return Err(OperationError::NoFunds { needed, available: account.balance });
        }
        let valid_until = account.as_of.after(self.patience.validity);
        let seqno = self.wallet.seqno(&account).map_err(OperationError::Wallet)?;
        let message = self.wallet.sign(&account, &[transfer], valid_until);
        let message = message.map_err(OperationError::Wallet)?;
        sent("wallet payment", message.hash());
        Ok(SignedTransfer {
            message: hex::encode(message.to_boc()),
            seqno,
            valid_until_seconds: valid_until.as_unix_secs(),
            since_lt: account.last_transaction.map_or(0, |id| id.lt),
        })
    }

    /// Sends a signed payment as often as it takes, and says what became of it.
    ///
    /// Safe to call again after any error, a crash, or by two processes at once.
    ///
    /// # Errors
    ///
    /// [`OperationError::Overtaken`] or [`OperationError::NotExecuted`]: it never happened and never
    /// will. [`OperationError::NoFunds`]: the wallet executed it without being able to pay.
    /// [`OperationError::Unconfirmed`]: call again. Others: the record or the wallet is not usable.
    pub async fn carry(
        &self,
        signed: &SignedTransfer,
    ) -> Result<TransactionSummary, OperationError> {
        let deadline = Instant::now() + self.patience.deadline.to_duration();
        let last_second = Timestamp::from_unix_secs(signed.valid_until_seconds).after(GRACE);
        loop {
            match self.account().await {
                Ok(account) => {
                    let seqno = self.wallet.seqno(&account).map_err(OperationError::Wallet)?;
                    if seqno > signed.seqno {
                        match self.find(signed, &account).await {
                            Ok(Some(found)) => return executed(found),
                            Ok(None) => {}
                            Err(OperationError::Ledger(error)) => {
                                tracing::debug!(%error, "cannot look for the payment now");
                            }
                            Err(error) => return Err(error),
                        }
                    } else if account.as_of > last_second {
                        return Err(OperationError::NotExecuted);
                    } else {
                        self.send(signed).await?;
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot look at the wallet now"),
            }
            if Instant::now() >= deadline {
                return Err(OperationError::Unconfirmed);
            }
            sleep(self.patience.pause.to_duration()).await;
        }
    }

    /// Sends it once more. What the wallet refuses now may be refused because it was executed a
    /// moment before, so the next look decides, not the refusal.
    async fn send(&self, signed: &SignedTransfer) -> Result<(), OperationError> {
        match self.ledger.send(signed.message()?).await {
            Ok(_) => Ok(()),
            Err(LedgerError::NotAccepted {
                exit_code: None | Some(WALLET_WRONG_SEQNO | WALLET_EXPIRED),
            }) => Ok(()),
            Err(LedgerError::NotAccepted { exit_code }) => {
                Err(OperationError::RefusedUnknown { exit_code })
            }
            Err(LedgerError::InvalidMessage(error)) => Err(OperationError::Message(error)),
            Err(error) => {
                tracing::debug!(%error, "the payment cannot be sent now");
                Ok(())
            }
        }
    }

    /// The transaction that used the payment's sequence number; `None` while the list of
    /// transactions is behind the account, which may come from another server.
    async fn find(
        &self,
        signed: &SignedTransfer,
        account: &AccountState,
    ) -> Result<Option<TransactionSummary>, OperationError> {
        let body = signed.message()?.body().map_err(OperationError::Message)?;
        let wanted = *body.repr_hash();
        let newest = account.last_transaction.map_or(0, |id| id.lt);
        let mut page = Page::newest(PAGE);
        for _ in 0..PAGES {
            let found = self.ledger.transactions(self.wallet.address(), page).await;
            let found = found.map_err(OperationError::Ledger)?;
            let first = found.first().map_or(0, |transaction| transaction.id.lt);
            let last = found.last().map(|transaction| transaction.id);
            let is_it = |transaction: &TransactionSummary| {
                let received = transaction.received.as_ref();
                received.is_some_and(|message| *message.body.repr_hash() == wanted)
            };
            if let Some(transaction) = found.into_iter().find(is_it) {
                return Ok(Some(transaction));
            }
            if page.before.is_none() && first < newest {
                return Ok(None);
            }
            match last {
                Some(last) if last.lt > signed.since_lt => page.before = Some(last),
                // Everything since it was signed was seen: another message was first.
                Some(_) | None => return Err(OperationError::Overtaken),
            }
        }
        Err(OperationError::Unconfirmed)
    }

    async fn account(&self) -> Result<AccountState, OperationError> {
        self.ledger.account(self.wallet.address()).await.map_err(OperationError::Ledger)
    }
}

/// The wallet skips a transfer that it cannot pay, and uses the sequence number up.
fn executed(transaction: TransactionSummary) -> Result<TransactionSummary, OperationError> {
    if transaction.sent.is_empty() {
        let (needed, available) = (TRANSFER_FEES, NanoTon::ZERO);
        return Err(OperationError::NoFunds { needed, available });
    }
    Ok(transaction)
}
