//! A consumer's deposit: its vault, the key that commands it, and the wallet behind it.
//!
//! Owns: one command at a time, because each needs the vault's next sequence number.
//! Must not: sign vouchers (only `channel::Payer` does), or repeat a command on its own.

use std::fmt;
use std::sync::Arc;

use cocoon_protocol::channel::settlement::{AllocationRequest, Command, Parameters, VaultError};
use cocoon_protocol::channel::{Allocation, SignedRelease, VaultKey, VaultPublicKey};
use cocoon_protocol::identity::{NodeId, TonAddress};
use cocoon_protocol::units::NanoTon;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tycho_types::models::StateInit;

use super::confirm::{Outgoing, carry_out, sent, wait_for};
use super::{OperationError, Patience, VaultView, read_vault, refusal, view_of};
use crate::message::{Message, Transfer};
use crate::port::{AccountState, Ledger};
use crate::transaction::Outcome;
use crate::vault::{self, Deployment};
use crate::wallet::Wallet;

/// What a transfer of the wallet may cost besides its amount: ten times the 0.002 TON that opening
/// a vault costs at the prices of 2026, the wallet's own deployment included.
pub(super) const TRANSFER_FEES: NanoTon = NanoTon::from_nano(20_000_000);
/// Wallet version 5: another message with this sequence number was first.
pub(super) const WALLET_WRONG_SEQNO: i32 = 133;
/// Wallet version 5: the message came after its last second.
pub(super) const WALLET_EXPIRED: i32 = 136;

/// What a vault is made with, besides the keys. Part of its address: other terms, other vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultTerms {
    /// Where withdrawals go; `None` for the wallet that deposits.
    pub owner: Option<TonAddress>,
    /// How long a provider may settle after a release was requested, in seconds.
    pub release_delay_seconds: u32,
    /// Most that the hot key may allocate in one UTC day; [`NanoTon::MAX`] for no cap.
    #[serde(rename = "daily_cap_nano")]
    pub daily_cap: NanoTon,
    /// The network's fee on what providers are paid, in hundredths of a percent.
    pub fee_basis_points: u16,
    /// Where the network's fee goes.
    pub treasury: TonAddress,
    /// Tells the vaults of one client apart; 0 for the first.
    pub salt: u64,
}

/// The deposit. Share it behind an `Arc`.
pub struct Deposit {
    ledger: Arc<dyn Ledger>,
    wallet: Wallet,
    key: Arc<VaultKey>,
    address: TonAddress,
    init: StateInit,
    patience: Patience,
    turn: Mutex<()>,
}

impl fmt::Debug for Deposit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deposit")
            .field("vault", &self.address)
            .field("wallet", &self.wallet.address())
            .finish_non_exhaustive()
    }
}

impl Deposit {
    /// The deposit of `wallet`, commanded by `key`, under `terms`. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// When the treasury is not in the basechain.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        wallet: Wallet,
        key: Arc<VaultKey>,
        terms: &VaultTerms,
        patience: Patience,
    ) -> Result<Self, OperationError> {
        let deployment = Deployment {
            parameters: Parameters {
                client_key: key.public(),
                owner: terms.owner.unwrap_or_else(|| wallet.address()),
                release_delay: terms.release_delay_seconds,
                daily_cap: terms.daily_cap,
                fee_basis_points: terms.fee_basis_points,
                treasury: terms.treasury,
            },
            network: ledger.network(),
            salt: terms.salt,
        };
        let init = deployment.state_init().map_err(OperationError::Encode)?;
        let address = deployment.address().map_err(OperationError::Encode)?;
        Ok(Self { ledger, wallet, key, address, init, patience, turn: Mutex::new(()) })
    }

    /// Where the vault is, or will be.
    pub const fn address(&self) -> TonAddress {
        self.address
    }

    /// The wallet that deposits.
    pub const fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// The key that commands the vault and signs its vouchers.
    pub fn key(&self) -> VaultPublicKey {
        self.key.public()
    }

    /// The same vault, commanded by another key: the one that [`Deposit::rotate_key`] put in force.
    /// The vault's address keeps following from its first key.
    #[must_use]
    pub fn with_key(self, key: Arc<VaultKey>) -> Self {
        Self { key, ..self }
    }

    /// The vault as it is now; `None` before it is opened.
    ///
    /// # Errors
    ///
    /// When the ledger fails.
    pub async fn view(&self) -> Result<Option<VaultView>, OperationError> {
        read_vault(self.ledger.as_ref(), self.address).await
    }

    /// Makes sure that the vault exists, with `amount` if it does not yet. Safe to repeat after any
    /// error, and after a crash: both attempts need the same sequence number of the wallet.
    ///
    /// # Errors
    ///
    /// When the wallet has too little, or the ledger does not confirm.
    pub async fn open(&self, amount: NanoTon) -> Result<VaultView, OperationError> {
        let _turn = self.turn.lock().await;
        if let Some(view) = self.view().await? {
            return Ok(view);
        }
        let transfer =
            Transfer { init: Some(self.init.clone()), ..Transfer::plain(self.address, amount) };
        match self.pay(transfer).await {
            // An earlier attempt may have been the one that came first.
            Ok(()) | Err(OperationError::Overtaken) => {}
            Err(error) => return Err(error),
        }
        wait_for(self.patience, || self.view()).await
    }

    /// Adds `amount`. Not to be repeated after [`OperationError::Unconfirmed`] without a look.
    ///
    /// # Errors
    ///
    /// When there is no vault, the wallet has too little, or the ledger does not confirm.
    pub async fn top_up(&self, amount: NanoTon) -> Result<VaultView, OperationError> {
        let _turn = self.turn.lock().await;
        let before = self.account(self.address).await?;
        view_of(&before)?.ok_or(OperationError::NoVault)?;
        self.pay(Transfer::plain(self.address, amount)).await?;
        // Payments to providers meanwhile may lower the balance, but each is a newer transaction.
        let since = before.last_transaction;
        wait_for(self.patience, || async move {
            let account = self.account(self.address).await?;
            if account.last_transaction == since { Ok(None) } else { self.view().await }
        })
        .await
    }

    /// Sets `amount` more aside for `provider`, and cancels a pending release.
    ///
    /// # Errors
    ///
    /// When the vault refuses (too little free money, another payout address, too many providers,
    /// the daily cap), or the ledger does not confirm.
    pub async fn allocate(
        &self,
        provider: NodeId,
        payout: TonAddress,
        amount: NanoTon,
    ) -> Result<(Allocation, VaultView), OperationError> {
        let request = AllocationRequest { provider, payout, amount };
        let view = self.command(&Command::Allocate(request)).await?;
        let allocation = view.allocation(&provider).copied();
        // It was executed; should it be gone again, another client of the same key released it.
        Ok((allocation.ok_or(OperationError::Overtaken)?, view))
    }

    /// Up to [`cocoon_protocol::channel::settlement::BATCH`] allocations at once, all or none.
    ///
    /// # Errors
    ///
    /// As [`Deposit::allocate`].
    pub async fn allocate_batch(
        &self,
        requests: Vec<AllocationRequest>,
    ) -> Result<VaultView, OperationError> {
        self.command(&Command::Rebalance(requests)).await
    }

    /// Starts the release delay of an allocation.
    ///
    /// # Errors
    ///
    /// When the vault refuses, or the ledger does not confirm.
    pub async fn request_release(&self, provider: NodeId) -> Result<VaultView, OperationError> {
        self.command(&Command::RequestRelease(provider)).await
    }

    /// Takes back the rest of an allocation whose release delay has passed.
    ///
    /// # Errors
    ///
    /// When the vault refuses, or the ledger does not confirm.
    pub async fn finalize_release(&self, provider: NodeId) -> Result<VaultView, OperationError> {
        self.command(&Command::FinalizeRelease(provider)).await
    }

    /// Ends an allocation at once, with the payment that its provider signed.
    ///
    /// # Errors
    ///
    /// When the vault refuses, or the ledger does not confirm.
    pub async fn release_signed(
        &self,
        release: SignedRelease,
    ) -> Result<VaultView, OperationError> {
        self.command(&Command::Release(release)).await
    }

    /// Sends free money to the owner; the forward fee comes out of it.
    ///
    /// # Errors
    ///
    /// When that much is not free, or the ledger does not confirm.
    pub async fn withdraw(&self, amount: NanoTon) -> Result<VaultView, OperationError> {
        self.command(&Command::Withdraw(amount)).await
    }

    /// With no allocation left, sends everything to the owner. A top-up revives the vault.
    ///
    /// # Errors
    ///
    /// When allocations are left, or the ledger does not confirm.
    pub async fn close(&self) -> Result<VaultView, OperationError> {
        self.command(&Command::Close).await
    }

    /// Puts another hot key in force, by a message from the wallet, which has to be the vault's
    /// owner. What the old key promised is still paid; what it ordered and was not executed is void.
    /// Safe to repeat.
    ///
    /// # Errors
    ///
    /// When there is no vault, the wallet is not its owner or has too little, or the ledger does not
    /// confirm.
    pub async fn rotate_key(&self, key: VaultPublicKey) -> Result<VaultView, OperationError> {
        let _turn = self.turn.lock().await;
        let view = self.view().await?.ok_or(OperationError::NoVault)?;
        if view.state.key == key {
            return Ok(view);
        }
        if view.state.deployment.parameters.owner != self.wallet.address() {
            return Err(OperationError::Refused(VaultError::NotOwner));
        }
        let body = vault::message::owner_command(&Command::RotateKey(key));
        let body = body.map_err(OperationError::Encode)?;
        let value = vault::message::INTERNAL_VALUE;
        self.pay(Transfer { bounce: true, body, ..Transfer::plain(self.address, value) }).await?;
        wait_for(self.patience, || async move {
            let view = self.view().await?;
            Ok(view.filter(|view| view.state.key == key))
        })
        .await
    }

    /// Signs a command with the hot key, sends it, and waits until it is executed.
    async fn command(&self, command: &Command) -> Result<VaultView, OperationError> {
        let _turn = self.turn.lock().await;
        let before = self.account(self.address).await?;
        let view = view_of(&before)?.ok_or(OperationError::NoVault)?;
        let valid_until = before.as_of.after(self.patience.validity);
        let seqno = view.state.seqno;
        let body = vault::message::order(self.address, seqno, valid_until, command, &self.key)
            .map_err(OperationError::Encode)?;
        let message =
            Message::external(self.address, None, body.clone()).map_err(OperationError::Message)?;
        sent("vault command", message.hash());
        let outgoing = Outgoing { message, body, valid_until };
        let transaction =
            carry_out(self.ledger.as_ref(), outgoing, &before, self.patience, refusal).await?;
        match transaction.outcome {
            Outcome::Succeeded => {}
            Outcome::Failed { exit_code } => return Err(refusal(Some(exit_code))),
            Outcome::ActionFailed { .. } | Outcome::NotExecuted => {
                return Err(OperationError::NotExecuted);
            }
        }
        // The account may come from another server than the transaction, which may be behind.
        wait_for(self.patience, || async move {
            let view = self.view().await?;
            Ok(view.filter(|view| view.state.seqno > seqno))
        })
        .await
    }

    /// Sends money from the wallet, and waits until the wallet has executed it.
    async fn pay(&self, transfer: Transfer) -> Result<(), OperationError> {
        let before = self.account(self.wallet.address()).await?;
        let needed = transfer.value.saturating_add(TRANSFER_FEES);
        if before.balance < needed {
            return Err(OperationError::NoFunds { needed, available: before.balance });
        }
        let valid_until = before.as_of.after(self.patience.validity);
        let message =
            self.wallet.sign(&before, &[transfer], valid_until).map_err(OperationError::Wallet)?;
        sent("wallet transfer", message.hash());
        let body = message.body().map_err(OperationError::Message)?;
        let outgoing = Outgoing { message, body, valid_until };
        let refused = |exit_code| match exit_code {
            Some(WALLET_WRONG_SEQNO) => OperationError::Overtaken,
            Some(WALLET_EXPIRED) => OperationError::NotExecuted,
            exit_code => OperationError::RefusedUnknown { exit_code },
        };
        let transaction =
            carry_out(self.ledger.as_ref(), outgoing, &before, self.patience, refused).await?;
        // The wallet skips a transfer that it cannot pay, and uses the sequence number up.
        if transaction.sent.is_empty() {
            return Err(OperationError::NoFunds { needed, available: before.balance });
        }
        Ok(())
    }

    async fn account(&self, address: TonAddress) -> Result<AccountState, OperationError> {
        self.ledger.account(address).await.map_err(OperationError::Ledger)
    }
}
