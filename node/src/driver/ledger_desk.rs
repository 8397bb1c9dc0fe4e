//! The ledger's work, one piece at a time for each key, away from the driver.
//!
//! Owns: the way from a protocol command to an operation on the ledger and back to an input.
//! Must not: decide about money. It never repeats an operation by itself: the protocol asks again.

use std::sync::Arc;

use cocoon_ledger::operations::{Deposit, OperationError, Patience, Redeemer, VaultView};
use cocoon_protocol::Input;
use cocoon_protocol::channel::SignedVoucher;
use cocoon_protocol::channel::settlement::Parameters;
use cocoon_protocol::channel::settlement::VaultError;
use cocoon_protocol::identity::{NodeId, NodeKey, TonAddress};
use cocoon_protocol::input::{LedgerFailure, VaultSnapshot};
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::units::NanoTon;
use tokio::sync::{Semaphore, mpsc};

use super::event::DriverHandle;
use crate::config::Config;
use crate::purse::Purse;
use crate::run::Foundation;
use crate::shutdown::Tasks;
use crate::start::LedgerParts;
use crate::vaults::{self, VaultsError, seconds};

/// Commands that wait. A consumer has at most two under way; a provider one read for each session
/// and one settlement for each channel. When full, a command fails at once, and the protocol asks
/// again in its own time.
const COMMANDS: usize = 4_096;
/// Reads and settlements at a time: enough to hide a server's latency, few enough to be polite.
const AT_A_TIME: usize = 8;

/// What a consumer is told whose vault cannot be proved.
const UNVERIFIED: &str = "the provider's ledger proves nothing, and it does not serve on its word \
                          (`--ledger liteservers`, or `--accept-unverified-ledger`)";

/// Takes commands for the ledger; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LedgerDesk {
    commands: mpsc::Sender<LedgerCommand>,
    clerk: Arc<Clerk>,
}

/// Who carries them out.
#[derive(Debug)]
struct Clerk {
    deposit: Option<Deposit>,
    redeemer: Redeemer,
    key: NodeKey,
    /// The shortest release delay of a vault that is accepted, in seconds.
    release_delay: u32,
    /// The highest network fee of a vault that is accepted, in hundredths of a percent.
    network_fee: u16,
    /// Whether a server's word is enough, without a proof.
    accept_unverified: bool,
    driver: DriverHandle,
    turns: Arc<Semaphore>,
}

impl LedgerDesk {
    /// Starts the desk.
    pub(crate) fn start(
        config: &Config,
        foundation: &Foundation,
        parts: &LedgerParts,
        purse: Option<&Purse>,
        driver: &DriverHandle,
        tasks: &Tasks,
    ) -> Result<Self, VaultsError> {
        let patience = Patience::default();
        let deposit = match purse {
            Some(purse) if config.consume => {
                let ledger = Arc::clone(&parts.ledger);
                let registry = parts.registry.as_ref();
                Some(vaults::deposit(config, &foundation.keystore, purse, ledger, registry)?)
            }
            Some(_) | None => None,
        };
        let clerk = Arc::new(Clerk {
            deposit,
            redeemer: Redeemer::new(Arc::clone(&parts.ledger), patience),
            key: foundation.key.clone(),
            release_delay: seconds(config.release_delay),
            network_fee: parts.registry.as_ref().map_or(0, |it| it.state.fee.basis_points),
            accept_unverified: config.accept_unverified_ledger,
            driver: driver.clone(),
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
        });
        let (commands, waiting) = mpsc::channel(COMMANDS);
        tasks.spawn_leaf(run(Arc::clone(&clerk), waiting, tasks.clone()));
        Ok(Self { commands, clerk })
    }

    /// Hands a command over; the answer is an input. A queue without room gives it back at once:
    /// the protocol waits for every answer, and one that never came would block a vault for ever.
    pub(crate) fn submit(&self, command: LedgerCommand) -> Option<Input> {
        let refused = self.commands.try_send(command).err()?;
        tracing::error!("the ledger's queue is full or closed; a command is refused");
        Some(not_done(refused.into_inner()))
    }

    /// The consumer's deposit, for what its operator asks.
    pub(crate) fn deposit(&self) -> Option<&Deposit> {
        self.clerk.deposit.as_ref()
    }
}

fn not_done(command: LedgerCommand) -> Input {
    let reason = "too many operations wait".to_owned();
    match command {
        LedgerCommand::OpenVault { .. } => {
            Input::VaultFailed { failure: LedgerFailure::Unavailable { reason } }
        }
        LedgerCommand::Allocate { provider, .. } => {
            let failure = LedgerFailure::Unavailable { reason };
            Input::AllocationFailed { provider, failure }
        }
        LedgerCommand::ReadVault { vault } => Input::VaultRead { vault, snapshot: Err(reason) },
        LedgerCommand::Settle { voucher } => Input::SettleFailed { voucher, reason },
    }
}

async fn run(clerk: Arc<Clerk>, mut waiting: mpsc::Receiver<LedgerCommand>, tasks: Tasks) {
    let stopping = tasks.stopping().clone();
    loop {
        // Both arms only wait; an operation under way belongs to its own task.
        let command = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            command = waiting.recv() => command,
        };
        let Some(command) = command else { return };
        let Ok(turn) = Arc::clone(&clerk.turns).acquire_owned().await else { return };
        let (clerk, stopping) = (Arc::clone(&clerk), stopping.clone());
        tasks.spawn_leaf(async move {
            let work = Box::pin(clerk.carry_out(command));
            if let Some(Some(input)) = stopping.run_until_cancelled(work).await {
                clerk.driver.send(input).await;
            }
            drop(turn);
        });
    }
}

impl Clerk {
    async fn carry_out(&self, command: LedgerCommand) -> Option<Input> {
        match command {
            LedgerCommand::OpenVault { deposit } => Some(self.open_vault(deposit).await),
            LedgerCommand::Allocate { provider, payout, amount } => {
                Some(self.allocate(provider, payout, amount).await)
            }
            LedgerCommand::ReadVault { vault } => Some(self.read_vault(vault).await),
            LedgerCommand::Settle { voucher } => Some(self.settle(voucher).await),
        }
    }

    async fn open_vault(&self, amount: NanoTon) -> Input {
        let opened = match &self.deposit {
            Some(deposit) => Box::pin(deposit.open(amount)).await,
            None => Err(OperationError::NoVault),
        };
        match opened {
            Ok(view) => {
                tracing::info!(vault = %view.address, free = %view.free(), "the vault is open");
                let (vault, free) = (view.address, view.free());
                // Those of an earlier hot key end by a release: this key signs nothing for them.
                let ours = |it: &(NodeId, _)| !view.state.former_keys.contains_key(&it.0);
                let allocations = view.state.allocations.into_iter().filter(ours).collect();
                Input::VaultReady { vault, free, allocations }
            }
            Err(error) => Input::VaultFailed { failure: failure(&error, amount) },
        }
    }

    async fn allocate(&self, provider: NodeId, payout: TonAddress, amount: NanoTon) -> Input {
        let allocated = match &self.deposit {
            Some(deposit) => Box::pin(deposit.allocate(provider, payout, amount)).await,
            None => Err(OperationError::NoVault),
        };
        match allocated {
            Ok((allocation, view)) => {
                tracing::info!(%provider, limit = %allocation.limit, "allocated");
                Input::Allocated { provider, allocation, free: view.free() }
            }
            Err(error) => Input::AllocationFailed { provider, failure: failure(&error, amount) },
        }
    }

    async fn read_vault(&self, vault: TonAddress) -> Input {
        let snapshot = match self.redeemer.vault(vault).await {
            Ok(Some(view)) if !self.believes(&view) => {
                tracing::warn!(%vault, "a vault's state is not proved, and so extends no service");
                Err(UNVERIFIED.to_owned())
            }
            Ok(view) => Ok(view.map(|view| self.snapshot(&view))),
            // What is there is not a vault: as good as none.
            Err(OperationError::NotAVault(error)) => {
                tracing::warn!(%vault, %error, "a consumer named something that is no vault");
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(%vault, error = %chain(&error), "a vault cannot be read");
                Err(error.to_string())
            }
        };
        Input::VaultRead { vault, snapshot }
    }

    /// Whether a vault as the ledger showed it is enough to serve for.
    const fn believes(&self, view: &VaultView) -> bool {
        view.verified || self.accept_unverified
    }

    fn snapshot(&self, view: &VaultView) -> VaultSnapshot {
        let terms = &view.state.deployment.parameters;
        let fair = is_fair(terms, self.release_delay, self.network_fee);
        if !fair {
            tracing::warn!(vault = %view.address, "a vault's release delay or fee is not accepted");
        }
        // An allocation that the balance does not cover is worth nothing either.
        let allocation = view.allocation(&self.key.id()).copied();
        let allocation = allocation.filter(|_| view.is_covered() && fair);
        VaultSnapshot { key: *view.state.key_of(&self.key.id()), allocation }
    }

    async fn settle(&self, voucher: SignedVoucher) -> Input {
        let consent = voucher.consent(&self.key);
        match Box::pin(self.redeemer.settle(&voucher, &consent)).await {
            Ok(redeemed) => {
                let vault = voucher.voucher.vault;
                tracing::info!(%vault, paid = %redeemed.paid, "settled");
                Input::Settled { voucher, paid: redeemed.paid }
            }
            Err(error) => {
                if matches!(error, OperationError::Refused(VaultError::TooSmall)) {
                    tracing::info!("too little is due to pay for its own settlement; it stays due");
                } else {
                    tracing::warn!(error = %chain(&error), "a settlement did not come about");
                }
                Input::SettleFailed { voucher, reason: error.to_string() }
            }
        }
    }
}

/// Whether a provider can serve against a vault with these terms, which its holder wrote: a release
/// that is over before it is noticed takes back what was earned, and a fee above the registry's goes where
/// the holder likes.
const fn is_fair(terms: &Parameters, release_delay: u32, network_fee: u16) -> bool {
    terms.release_delay >= release_delay && terms.fee_basis_points <= network_fee
}

/// What went wrong, in the protocol's words.
fn failure(error: &OperationError, asked: NanoTon) -> LedgerFailure {
    tracing::warn!(error = %chain(error), "the ledger did not do what was asked");
    if let OperationError::NoFunds { needed, available } = error {
        return LedgerFailure::NoFunds { needed: *needed, available: *available };
    }
    if matches!(error, OperationError::Refused(VaultError::InsufficientFunds)) {
        return LedgerFailure::NoFunds { needed: asked, available: NanoTon::ZERO };
    }
    LedgerFailure::Unavailable { reason: chain(error) }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::channel::VaultPublicKey;

    #[test]
    fn a_vault_whose_terms_take_back_what_was_earned_is_not_accepted() {
        let address = TonAddress { workchain: 0, hash: [1; 32] };
        let terms = Parameters {
            client_key: VaultPublicKey::from_bytes([2; 32]),
            owner: address,
            release_delay: 60,
            daily_cap: NanoTon::MAX,
            fee_basis_points: 0,
            treasury: address,
        };
        assert!(is_fair(&terms, 60, 0));
        assert!(!is_fair(&Parameters { release_delay: 59, ..terms.clone() }, 60, 0));
        let taxed = Parameters { fee_basis_points: 100, ..terms };
        assert!(is_fair(&taxed, 60, 100) && !is_fair(&taxed, 60, 99) && !is_fair(&taxed, 60, 0));
    }

    #[test]
    fn a_command_that_finds_no_room_is_answered_in_its_own_words() {
        let vault = TonAddress { workchain: 0, hash: [1; 32] };
        let answer = not_done(LedgerCommand::ReadVault { vault });
        assert!(matches!(answer, Input::VaultRead { snapshot: Err(_), .. }));
        let answer = not_done(LedgerCommand::OpenVault { deposit: NanoTon::ZERO });
        assert!(matches!(answer, Input::VaultFailed { .. }));
    }
}
