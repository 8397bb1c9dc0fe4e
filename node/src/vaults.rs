//! Which vaults are this node's: the one that its settings name, and those of earlier settings.
//!
//! Owns: the way from settings to a vault's terms, and that none is forgotten.
//! Must not: talk to a ledger, or move money.

use std::sync::Arc;

use cocoon_ledger::Ledger;
use cocoon_ledger::operations::{Deposit, OperationError, Patience, VaultTerms};
use cocoon_ledger::registry::RegistryView;
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
    /// A new vault would have to copy the registry's fee.
    #[error("the registry of the settings was not read, and no vault was made before")]
    NoRegistry,
    /// The vault cannot be remembered, and one that may be forgotten is not used.
    #[error("the vault's terms cannot be kept")]
    Keystore(#[source] KeystoreError),
}

/// A length of time in the contract's seconds.
pub(crate) fn seconds(length: Millis) -> u32 {
    u32::try_from(length.get() / 1_000).unwrap_or(u32::MAX)
}

/// A share in hundredths of a percent, for people: `1.25 %`.
pub(crate) fn percent(basis_points: u16) -> String {
    let (whole, rest) = (basis_points / 100, basis_points % 100);
    format!("{whole}.{rest:02} %")
}

/// What the settings and the registry say about the vault. One that was made before under the same
/// settings keeps the fee that it was made with, whatever the registry says now.
pub(crate) fn terms(
    config: &Config,
    keystore: &Keystore,
    purse: &Purse,
    registry: Option<&RegistryView>,
) -> Result<VaultTerms, VaultsError> {
    let free = VaultTerms {
        owner: config.owner.map(|owner| owner.address()),
        release_delay_seconds: seconds(config.release_delay),
        daily_cap: config.daily_cap.unwrap_or(NanoTon::MAX),
        fee_basis_points: 0,
        treasury: purse.wallet.address(),
        salt: 0,
    };
    if config.registry.is_none() {
        return Ok(free);
    }
    let (fee_basis_points, treasury) = (free.fee_basis_points, free.treasury);
    let is_same = |it: &VaultTerms| VaultTerms { fee_basis_points, treasury, ..it.clone() } == free;
    let known = keystore.vaults().into_iter().filter(|it| it.network == config.network);
    if let Some(known) = known.map(|it| it.terms).find(is_same) {
        return Ok(known);
    }
    let fee = registry.ok_or(VaultsError::NoRegistry)?.state.fee;
    let treasury = fee.treasury.unwrap_or(treasury);
    Ok(VaultTerms { fee_basis_points: fee.basis_points, treasury, ..free })
}

/// The deposit that the settings name. Its terms are durable in the keystore before anything can be
/// paid into it.
pub(crate) fn deposit(
    config: &Config,
    keystore: &Keystore,
    purse: &Purse,
    ledger: Arc<dyn Ledger>,
    registry: Option<&RegistryView>,
) -> Result<Deposit, VaultsError> {
    let terms = terms(config, keystore, purse, registry)?;
    let deposit = with_terms(&terms, purse, ledger)?;
    let vault = KnownVault { network: config.network, address: deposit.address(), terms };
    let others = keystore.vaults();
    let others = others.iter().filter(|it| it.network == vault.network && **it != vault);
    for other in others {
        tracing::info!(
            now = %vault.address, before = %other.address,
            "earlier settings named another vault; `cocoon-node vault list` shows what it holds"
        );
    }
    if vault.terms.fee_basis_points > 0 && !keystore.vaults().contains(&vault) {
        tracing::info!(
            vault = %vault.address, treasury = %vault.terms.treasury,
            "the vault will be made with a network fee of {} on what providers are paid",
            percent(vault.terms.fee_basis_points)
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
