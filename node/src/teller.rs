//! Payments from the wallet and orders to vaults, for a person at the command line.
//!
//! Owns: that a payment happens at most once, whatever is killed or repeated: it is signed once and
//! durable before it is sent, and a new one is signed only when it is certain what became of the last.
//! Must not: decide what to pay.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cocoon_ledger::message::{Transfer, comment_text};
use cocoon_ledger::operations::{
    Deposit, OperationError, Patience, Remitter, SignedTransfer, VaultView, read_vault,
};
use cocoon_ledger::registry::RegistryView;
use cocoon_ledger::wallet::v4r2_address;
use cocoon_ledger::{Ledger, Outcome, Page, TransactionId, TransactionSummary};
use cocoon_protocol::identity::{NodeKey, TonAddress};
use cocoon_protocol::units::{Millis, NanoTon};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::bundle::{self, Bundle};
use crate::config::Config;
use crate::control::{
    AccountStatus, AllocationStatus, HistoryLine, HistoryPage, MoneyAnswer, MoneyRequest, Moved,
    Payment, PaymentState, Refusal, VaultStatus,
};
use crate::data_folder::{FolderError, write_private};
use crate::driver::ledger_desk::chain;
use crate::keystore::{Keystore, KnownVault};
use crate::purse::Purse;
use crate::run::Foundation;
use crate::start::LedgerParts;
use crate::store::Store;
use crate::vaults;

/// The control socket waits for a minute; a payment that takes longer is asked for again.
const PATIENCE: Patience = Patience {
    validity: Millis::from_secs(60),
    deadline: Millis::from_secs(40),
    pause: Millis::new(250),
};
/// Longest page of a history, as servers have it.
const LONGEST_PAGE: u16 = 100;

/// A payment under way, or one whose end was not reported yet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    to: TonAddress,
    #[serde(rename = "amount_nano")]
    amount: NanoTon,
    comment: String,
    signed: SignedTransfer,
    outcome: Option<PaymentState>,
}

impl Entry {
    fn payment(&self, asked_before: bool) -> Result<Payment, Refusal> {
        Ok(Payment {
            hash: self.signed.hash().map_err(|error| failed(&error))?.to_string(),
            to: self.to,
            amount: self.amount,
            comment: self.comment.clone(),
            state: self.outcome.clone().unwrap_or(PaymentState::Pending),
            asked_before,
        })
    }
}

/// Answers [`MoneyRequest`]s.
#[derive(Debug)]
pub(crate) struct Teller {
    config: Config,
    keystore: Keystore,
    store: Store,
    key: NodeKey,
    ledger: Arc<dyn Ledger>,
    registry: Option<RegistryView>,
    purse: Arc<Purse>,
    remitter: Remitter,
    /// The one payment that is under way or not reported.
    outbox: PathBuf,
    /// One payment at a time.
    turn: Mutex<()>,
}

fn failed(error: &dyn std::error::Error) -> Refusal {
    Refusal::Failed { reason: chain(error) }
}

impl Teller {
    /// A teller for the wallet of `purse`.
    pub(crate) fn new(
        config: &Config,
        foundation: &Foundation,
        parts: LedgerParts,
        purse: Arc<Purse>,
    ) -> Self {
        let LedgerParts { ledger, registry, .. } = parts;
        let name = format!("outbox-{}.json", config.network.as_str());
        Self {
            config: config.clone(),
            keystore: foundation.keystore.clone(),
            store: foundation.store.clone(),
            key: foundation.key.clone(),
            remitter: Remitter::new(Arc::clone(&ledger), purse.wallet.clone(), PATIENCE),
            ledger,
            registry,
            purse,
            outbox: foundation.folder.path().join(name),
            turn: Mutex::new(()),
        }
    }

    /// Answers.
    pub(crate) async fn answer(&self, request: MoneyRequest) -> Result<MoneyAnswer, Refusal> {
        match request {
            MoneyRequest::Account { address } => self.account(address).await,
            MoneyRequest::Send { to, amount, comment, bounce } => {
                self.send(to, amount, &comment, bounce).await.map(MoneyAnswer::Payment)
            }
            MoneyRequest::Acknowledge { hash } => self.acknowledge(&hash).await,
            MoneyRequest::History { address, limit, before } => {
                self.history(address, limit, before.as_deref()).await
            }
            MoneyRequest::Vaults => self.vaults().await.map(MoneyAnswer::Vaults),
            MoneyRequest::Vault { address } => self.vault(address).await.map(MoneyAnswer::Vaults),
            MoneyRequest::Export => {
                let claims = bundle::claims(&self.store, &self.key, &BTreeMap::new());
                let claims = claims.map_err(|error| failed(&error))?;
                Ok(MoneyAnswer::Bundle(Bundle::new(self.config.network, claims.values())))
            }
            MoneyRequest::VaultOpen { amount } => {
                let deposit = self.deposit()?;
                let view = Box::pin(deposit.open(amount)).await.map_err(|error| failed(&error))?;
                Ok(MoneyAnswer::Vaults(vec![status(&view, true)]))
            }
            MoneyRequest::VaultTopUp { amount } => {
                let deposit = self.deposit()?;
                let open = deposit.view().await.map_err(|error| failed(&error))?;
                open.ok_or_else(|| failed(&OperationError::NoVault))?;
                let paid = self.send(deposit.address(), amount, "", false).await;
                paid.map(MoneyAnswer::Payment)
            }
            MoneyRequest::VaultWithdraw { vault, amount } => self.withdraw(vault, amount).await,
        }
    }

    async fn account(&self, address: Option<TonAddress>) -> Result<MoneyAnswer, Refusal> {
        let own = self.purse.wallet.address();
        let account = self.ledger.account(address.unwrap_or(own)).await;
        let account = account.map_err(|error| failed(&error))?;
        let key = self.purse.wallet.public_key();
        Ok(MoneyAnswer::Account(AccountStatus {
            network: self.config.network,
            address: account.address,
            balance: account.balance,
            active: account.is_active(),
            verified: account.verified,
            version_4: v4r2_address(&key, 0).ok().filter(|_| account.address == own),
        }))
    }

    async fn send(
        &self,
        to: TonAddress,
        amount: NanoTon,
        comment: &str,
        bounce: bool,
    ) -> Result<Payment, Refusal> {
        let _turn = self.turn.lock().await;
        if let Some(earlier) = self.load()? {
            let same =
                (earlier.to, earlier.amount, earlier.comment.as_str()) == (to, amount, comment);
            let earlier = self.carry(earlier).await?;
            match &earlier.outcome {
                None if same => return earlier.payment(true),
                None => {
                    let reason = format!(
                        "a payment of {} to {} is still under way; try again in a minute",
                        earlier.amount, earlier.to
                    );
                    return Err(Refusal::NotPossible { reason });
                }
                Some(PaymentState::Executed { .. }) if same => return earlier.payment(true),
                Some(_) => {}
            }
        }
        let transfer = Transfer { bounce, ..Transfer::plain(to, amount) };
        let transfer = transfer.with_comment(comment).map_err(|error| failed(&error))?;
        let signed = self.remitter.sign(transfer).await.map_err(|error| failed(&error))?;
        let entry = Entry { to, amount, comment: comment.to_owned(), signed, outcome: None };
        self.store(&entry)?;
        self.carry(entry).await?.payment(false)
    }

    /// Carries a payment on until it is certain what became of it, or patience ends.
    async fn carry(&self, mut entry: Entry) -> Result<Entry, Refusal> {
        if entry.outcome.is_some() {
            return Ok(entry);
        }
        entry.outcome = match Box::pin(self.remitter.carry(&entry.signed)).await {
            Ok(transaction) => {
                Some(PaymentState::Executed { at: transaction.at, fees: transaction.fees })
            }
            Err(OperationError::Unconfirmed) => None,
            Err(
                error @ (OperationError::Overtaken
                | OperationError::NotExecuted
                | OperationError::NoFunds { .. }),
            ) => Some(PaymentState::Failed { reason: chain(&error) }),
            // Nothing is known about the payment; it stays under way.
            Err(error) => return Err(failed(&error)),
        };
        if entry.outcome.is_some() {
            self.store(&entry)?;
        }
        Ok(entry)
    }

    async fn acknowledge(&self, hash: &str) -> Result<MoneyAnswer, Refusal> {
        let _turn = self.turn.lock().await;
        if let Some(entry) = self.load()?
            && entry.outcome.is_some()
            && entry.payment(false)?.hash == hash
        {
            std::fs::remove_file(&self.outbox).map_err(|error| failed(&error))?;
        }
        Ok(MoneyAnswer::Done)
    }

    fn load(&self) -> Result<Option<Entry>, Refusal> {
        let bytes = match std::fs::read(&self.outbox) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| failed(&error))?,
        };
        // Without knowing what was sent, nothing may be sent.
        let entry = serde_json::from_slice(&bytes).map_err(|_| Refusal::Failed {
            reason: format!(
                "{} is damaged: look at the wallet's history, then move the file away",
                self.outbox.display()
            ),
        })?;
        Ok(Some(entry))
    }

    fn store(&self, entry: &Entry) -> Result<(), Refusal> {
        let text = serde_json::to_vec_pretty(entry).map_err(|error| failed(&error))?;
        write_private(&self.outbox, &text).map_err(|error: FolderError| failed(&error))
    }

    async fn history(
        &self,
        address: Option<TonAddress>,
        limit: u16,
        before: Option<&str>,
    ) -> Result<MoneyAnswer, Refusal> {
        let address = address.unwrap_or_else(|| self.purse.wallet.address());
        let unknown = || Refusal::NotPossible {
            reason: "a place in a history is written LT:HASH, as `wallet history` shows it"
                .to_owned(),
        };
        let before = before.map(|text| place(text).ok_or_else(unknown)).transpose()?;
        let limit = limit.clamp(1, LONGEST_PAGE);
        let found = self.ledger.transactions(address, Page { limit, before }).await;
        let found = found.map_err(|error| failed(&error))?;
        let more = found.len() >= usize::from(limit);
        let lines = found.iter().map(line).collect();
        Ok(MoneyAnswer::History(HistoryPage { address, lines, more }))
    }

    fn deposit(&self) -> Result<Deposit, Refusal> {
        let ledger = Arc::clone(&self.ledger);
        vaults::deposit(&self.config, &self.keystore, &self.purse, ledger, self.registry.as_ref())
            .map_err(|error| failed(&error))
    }

    /// Where the settings' vault is, without remembering it.
    fn current(&self) -> Result<KnownVault, Refusal> {
        let registry = self.registry.as_ref();
        let terms = vaults::terms(&self.config, &self.keystore, &self.purse, registry);
        let terms = terms.map_err(|error| failed(&error))?;
        let ledger = Arc::clone(&self.ledger);
        let deposit = vaults::with_terms(&terms, &self.purse, ledger);
        let address = deposit.map_err(|error| failed(&error))?.address();
        Ok(KnownVault { network: self.config.network, address, terms })
    }

    /// The settings' vault first, then those of earlier settings.
    fn known(&self) -> Result<Vec<KnownVault>, Refusal> {
        let current = self.current()?;
        let others = self.keystore.vaults().into_iter();
        let others = others.filter(|it| it.network == current.network && *it != current);
        Ok(std::iter::once(current.clone()).chain(others).collect())
    }

    async fn vaults(&self) -> Result<Vec<VaultStatus>, Refusal> {
        let mut found = Vec::new();
        for (place, known) in self.known()?.iter().enumerate() {
            let current = place == 0;
            let view = read_vault(self.ledger.as_ref(), known.address).await;
            match view.map_err(|error| failed(&error))? {
                Some(view) => found.push(status(&view, current)),
                None if current => found.push(not_open(known, self.purse.wallet.address())),
                None => {}
            }
        }
        Ok(found)
    }

    async fn vault(&self, address: TonAddress) -> Result<Vec<VaultStatus>, Refusal> {
        let current = self.current()?.address;
        let view = read_vault(self.ledger.as_ref(), address).await;
        let view = view.map_err(|error| failed(&error))?;
        Ok(view.iter().map(|view| status(view, address == current)).collect())
    }

    async fn withdraw(
        &self,
        vault: Option<TonAddress>,
        amount: Option<NanoTon>,
    ) -> Result<MoneyAnswer, Refusal> {
        let address = vault.map_or_else(|| self.current().map(|it| it.address), Ok)?;
        let known = self.known()?.into_iter().find(|it| it.address == address);
        let unknown = || Refusal::NotFound { what: format!("vault of this node's at {address}") };
        let terms = known.ok_or_else(unknown)?.terms;
        let deposit = vaults::with_terms(&terms, &self.purse, Arc::clone(&self.ledger));
        let deposit = deposit.map_err(|error| failed(&error))?;
        let view = deposit.view().await.map_err(|error| failed(&error))?;
        let view = view.ok_or_else(|| failed(&OperationError::NoVault))?;
        let done = match amount {
            Some(amount) => Box::pin(deposit.withdraw(amount)).await,
            // The last of it too, once nobody has a claim.
            None if view.state.allocations.is_empty() => Box::pin(deposit.close()).await,
            None => Box::pin(deposit.withdraw(view.free())).await,
        };
        let view = done.map_err(|error| failed(&error))?;
        Ok(MoneyAnswer::Vaults(vec![status(&view, address == self.current()?.address)]))
    }
}

fn place(text: &str) -> Option<TransactionId> {
    let (lt, hash) = text.split_once(':')?;
    let mut id = TransactionId { lt: lt.parse().ok()?, hash: [0; 32] };
    hex::decode_to_slice(hash, &mut id.hash).ok()?;
    Some(id)
}

fn line(transaction: &TransactionSummary) -> HistoryLine {
    let received = transaction.received.as_ref();
    // A message from outside moves nothing.
    let received = received.filter(|message| message.source.is_some());
    let moved = |message: &cocoon_ledger::MessageSummary, peer| Moved {
        peer,
        amount: message.value,
        comment: comment_text(&message.body),
        bounced: message.bounced,
    };
    let sent = transaction.sent.iter().filter(|message| message.destination.is_some());
    HistoryLine {
        id: format!("{}:{}", transaction.id.lt, hex::encode(transaction.id.hash)),
        at: transaction.at,
        received: received.map(|message| moved(message, message.source)),
        sent: sent.map(|message| moved(message, message.destination)).collect(),
        fees: transaction.fees,
        failed: matches!(
            transaction.outcome,
            Outcome::Failed { .. } | Outcome::ActionFailed { .. }
        ),
    }
}

fn status(view: &VaultView, current: bool) -> VaultStatus {
    let parameters = &view.state.deployment.parameters;
    let allocations =
        view.state.allocations.iter().map(|(provider, allocation)| AllocationStatus {
            provider: *provider,
            payout: allocation.payout,
            epoch: allocation.epoch,
            limit: allocation.limit,
            paid: allocation.paid,
            unlock_at: allocation.unlock_at,
            receipts_root: hex::encode(allocation.receipts_root),
        });
    VaultStatus {
        address: view.address,
        current,
        open: true,
        owner: parameters.owner,
        release_delay_seconds: parameters.release_delay,
        fee_basis_points: parameters.fee_basis_points,
        treasury: parameters.treasury,
        balance: view.balance,
        reserved: view.state.reserved,
        free: view.free(),
        verified: view.verified,
        as_of: view.as_of,
        allocations: allocations.collect(),
    }
}

fn not_open(known: &KnownVault, wallet: TonAddress) -> VaultStatus {
    VaultStatus {
        address: known.address,
        current: true,
        open: false,
        owner: known.terms.owner.unwrap_or(wallet),
        release_delay_seconds: known.terms.release_delay_seconds,
        fee_basis_points: known.terms.fee_basis_points,
        treasury: known.terms.treasury,
        balance: NanoTon::ZERO,
        reserved: NanoTon::ZERO,
        free: NanoTon::ZERO,
        verified: false,
        as_of: cocoon_protocol::units::Timestamp::EPOCH,
        allocations: Vec::new(),
    }
}
