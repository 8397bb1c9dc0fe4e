//! Sending a message once and finding out what became of it.
//!
//! Owns: the wait, and the three answers to it.
//! Must not: send a second time. A message is known by the hash of its body, which holds a
//! signature over a sequence number and a last second: it is executed once or never, and after its
//! last second it is certain which.

use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::{Millis, Timestamp};
use tokio::time::{Instant, sleep};
use tycho_types::cell::{Cell, HashBytes};

use super::{OperationError, Patience};
use crate::message::{Message, MessageHash};
use crate::port::{AccountState, Ledger, LedgerError, Page};
use crate::transaction::{TransactionId, TransactionSummary};

/// A server's account may lag behind the block that its clock names.
pub(super) const GRACE: Millis = Millis::from_secs(15);
/// How far back a message is looked for, in pages: a vault that is settled by 64 providers at a
/// time has as many transactions between two looks.
const PAGE: u16 = 16;
const PAGES: usize = 8;

/// A signed message, and when it is over.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) message: Message,
    pub(super) body: Cell,
    pub(super) valid_until: Timestamp,
}

/// Sends `outgoing` to the account whose state was `before`, and waits for its transaction.
///
/// `refused` names the error for the contract's exit code.
pub(super) async fn carry_out(
    ledger: &dyn Ledger,
    outgoing: Outgoing,
    before: &AccountState,
    patience: Patience,
    refused: fn(Option<i32>) -> OperationError,
) -> Result<TransactionSummary, OperationError> {
    let deadline = Instant::now() + patience.deadline.to_duration();
    let hash = outgoing.message.hash();
    match ledger.send(outgoing.message).await {
        Ok(_) => {}
        Err(LedgerError::NotAccepted { exit_code }) => return Err(refused(exit_code)),
        Err(error) if error.may_have_been_sent() => {
            tracing::warn!(%hash, %error, "a message may not have been sent; waiting for it");
        }
        Err(error) => return Err(OperationError::Ledger(error)),
    }
    let wanted = *outgoing.body.repr_hash();
    let search = Search { ledger, address: before.address, since: before.last_transaction };
    loop {
        match search.look(wanted).await {
            Ok((Some(transaction), _)) => return Ok(transaction),
            Ok((None, as_of)) if as_of > outgoing.valid_until.after(GRACE) => {
                return Err(OperationError::NotExecuted);
            }
            Ok((None, _)) => {}
            // The ledger itself has tried again already; this wait has its own deadline.
            Err(error) => tracing::debug!(%hash, %error, "cannot look for the message now"),
        }
        if Instant::now() >= deadline {
            return Err(OperationError::Unconfirmed);
        }
        sleep(patience.pause.to_duration()).await;
    }
}

struct Search<'a> {
    ledger: &'a dyn Ledger,
    address: TonAddress,
    /// The newest transaction before the message was sent.
    since: Option<TransactionId>,
}

impl Search<'_> {
    /// The transaction of the message whose body has this hash, and the time of the look.
    async fn look(
        &self,
        body: HashBytes,
    ) -> Result<(Option<TransactionSummary>, Timestamp), LedgerError> {
        // In this order: what was executed before the account was read is in the pages.
        let account = self.ledger.account(self.address).await?;
        if account.last_transaction == self.since {
            return Ok((None, account.as_of));
        }
        let oldest = self.since.map_or(0, |id| id.lt);
        let mut page = Page::newest(PAGE);
        for _ in 0..PAGES {
            let found = self.ledger.transactions(self.address, page).await?;
            let last = found.last().map(|transaction| transaction.id);
            let wanted = |transaction: &TransactionSummary| {
                let received = transaction.received.as_ref();
                received.is_some_and(|message| *message.body.repr_hash() == body)
            };
            if let Some(transaction) = found.into_iter().find(wanted) {
                return Ok((Some(transaction), account.as_of));
            }
            match last {
                Some(last) if last.lt > oldest => page.before = Some(last),
                _ => break,
            }
        }
        Ok((None, account.as_of))
    }
}

/// Waits until `look` gives a value.
pub(super) async fn wait_for<T, F>(
    patience: Patience,
    mut look: impl FnMut() -> F,
) -> Result<T, OperationError>
where
    F: Future<Output = Result<Option<T>, OperationError>>,
{
    let deadline = Instant::now() + patience.deadline.to_duration();
    loop {
        match look().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(OperationError::Ledger(error)) => {
                tracing::debug!(%error, "cannot look at the ledger now");
            }
            Err(error) => return Err(error),
        }
        if Instant::now() >= deadline {
            return Err(OperationError::Unconfirmed);
        }
        sleep(patience.pause.to_duration()).await;
    }
}

/// For log lines: which message an operation sent.
pub(super) fn sent(what: &'static str, hash: MessageHash) {
    tracing::info!(what, %hash, "message signed");
}
