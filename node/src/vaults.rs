//! Which vaults are this node's: the one that its settings name, and those of earlier settings.
//!
//! Owns: the way from settings to a vault's terms, and that none is forgotten.
//! Must not: talk to a ledger, or move money.

use std::sync::Arc;

use cocoon_ledger::Ledger;
use cocoon_ledger::operations::{Deposit, OperationError, Patience, VaultTerms};
use cocoon_protocol::units::{Millis, NanoTon};

use crate::config::Config;
use crate::keystore::{Keystore, KeystoreError, KnownVault};
use crate::purse::Purse;

/// Why there is no deposit.
#[derive(Debug, thiserror::Error)]
pub enum VaultsError {
    /// The terms give no vault.
    #[error("the vault's terms cannot be used")]
    Terms(#[source] OperationError),
    /// The vault cannot be remembered, and one that may be forgotten is not used.
    #[error("the vault's terms cannot be kept")]
    Keystore(#[source] KeystoreError),
}

/// A length of time in the contract's seconds.
pub(crate) fn seconds(length: Millis) -> u32 {
    u32::try_from(length.get() / 1_000).unwrap_or(u32::MAX)
}

/// What the settings say about the vault.
pub(crate) fn terms(config: &Config, purse: &Purse) -> VaultTerms {
    VaultTerms {
        owner: config.owner.map(|owner| owner.address()),
        release_delay_seconds: seconds(config.release_delay),
        daily_cap: config.daily_cap.unwrap_or(NanoTon::MAX),
        fee_basis_points: 0,
        treasury: purse.wallet.address(),
        salt: 0,
    }
}

/// The deposit that the settings name. Its terms are durable in the keystore before anything can be
/// paid into it.
pub(crate) fn deposit(
    config: &Config,
    keystore: &Keystore,
    purse: &Purse,
    ledger: Arc<dyn Ledger>,
) -> Result<Deposit, VaultsError> {
    let deposit = with_terms(&terms(config, purse), purse, ledger)?;
    let vault = KnownVault {
        network: config.network,
        address: deposit.address(),
        terms: terms(config, purse),
    };
    let others = keystore.vaults();
    let others = others.iter().filter(|it| it.network == vault.network && **it != vault);
    for other in others {
        tracing::info!(
            now = %vault.address, before = %other.address,
            "earlier settings named another vault; `cocoon-node vault list` shows what it holds"
        );
    }
    keystore.keep_vault(&vault).map_err(VaultsError::Keystore)?;
    Ok(deposit)
}

/// A deposit with these terms.
pub(crate) fn with_terms(
    terms: &VaultTerms,
    purse: &Purse,
    ledger: Arc<dyn Ledger>,
) -> Result<Deposit, VaultsError> {
    let (wallet, key) = (purse.wallet.clone(), Arc::clone(&purse.vault_key));
    Deposit::new(ledger, wallet, key, terms, Patience::default()).map_err(VaultsError::Terms)
}
