//! Another hot key for a vault: the owner's wallet puts it in force, and nobody loses a nanoTON.
//!
//! Owns: the way over the embedded chain. Must not: repeat the contract's own tests.

use std::sync::Arc;

use cocoon_ledger::Ledger;
use cocoon_ledger::operations::{Deposit, OperationError, Patience, Redeemer, VaultTerms};
use cocoon_protocol::channel::settlement::VaultError;
use cocoon_protocol::channel::{Allocation, VaultKey, Voucher};
use cocoon_protocol::identity::{NodeKey, TonAddress};
use cocoon_protocol::units::{Millis, NanoTon};

use crate::stage::{ledger, ton, wallet};

const PAYOUT: TonAddress = TonAddress { workchain: 0, hash: [0x99; 32] };

fn key(number: u8) -> Arc<VaultKey> {
    Arc::new(VaultKey::from_secret(&[number; 32]))
}

fn deposit(ledger: &Arc<dyn Ledger>, owner: Option<TonAddress>) -> Deposit {
    let terms = VaultTerms {
        owner,
        release_delay_seconds: 60,
        daily_cap: NanoTon::MAX,
        fee_basis_points: 100,
        treasury: TonAddress { workchain: 0, hash: [0x77; 32] },
        salt: 0,
    };
    let patience =
        Patience { pause: Millis::new(1), deadline: Millis::from_secs(20), ..Patience::default() };
    Deposit::new(Arc::clone(ledger), wallet(1), key(40), &terms, patience).unwrap()
}

async fn settle(
    deposit: &Deposit,
    redeemer: &Redeemer,
    signer: &VaultKey,
    provider: &NodeKey,
    allocation: &Allocation,
) -> Result<NanoTon, OperationError> {
    let voucher = signer.sign(Voucher {
        vault: deposit.address(),
        provider: provider.id(),
        epoch: allocation.epoch,
        cumulative: allocation.limit,
        receipts_root: [3; 32],
    });
    let consent = voucher.consent(provider);
    redeemer.settle(&voucher, &consent).await.map(|redeemed| redeemed.paid)
}

#[tokio::test]
async fn a_rotated_vault_pays_what_the_old_key_promised_and_obeys_the_new_one() {
    let chain = ledger();
    chain.faucet(wallet(1).address(), ton(10)).await.unwrap();
    let ledger: Arc<dyn Ledger> = Arc::new(chain);
    let redeemer = Redeemer::new(Arc::clone(&ledger), Patience::default());
    let vault = deposit(&ledger, None);
    let (old, new) = (NodeKey::from_secret(&[50; 32]), NodeKey::from_secret(&[51; 32]));
    assert!(matches!(vault.rotate_key(key(41).public()).await, Err(OperationError::NoVault)));
    vault.open(ton(5)).await.unwrap();
    let (before, _) = vault.allocate(old.id(), PAYOUT, ton(1)).await.unwrap();

    let view = vault.rotate_key(key(41).public()).await.unwrap();
    assert_eq!(
        (view.state.key, *view.state.key_of(&old.id())),
        (key(41).public(), key(40).public())
    );
    // Repeating it after a crash costs nothing.
    let balance = ledger.account(wallet(1).address()).await.unwrap().balance;
    assert_eq!(vault.rotate_key(key(41).public()).await.unwrap(), view);
    assert_eq!(ledger.account(wallet(1).address()).await.unwrap().balance, balance);

    let refused = vault.allocate(new.id(), PAYOUT, ton(1)).await;
    assert!(matches!(refused, Err(OperationError::Refused(VaultError::BadSignature))));
    let vault = vault.with_key(key(41));
    let refused = vault.allocate(old.id(), PAYOUT, ton(1)).await;
    assert!(matches!(refused, Err(OperationError::Refused(VaultError::OtherKey))));
    let (after, _) = vault.allocate(new.id(), PAYOUT, ton(1)).await.unwrap();

    let paid = settle(&vault, &redeemer, &key(40), &old, &before).await.unwrap();
    assert_eq!(paid, ton(1), "the old key's promise, to the last nanoTON");
    let forged = settle(&vault, &redeemer, &key(40), &new, &after).await;
    assert!(matches!(forged, Err(OperationError::Refused(VaultError::BadSignature))));
    assert_eq!(settle(&vault, &redeemer, &key(41), &new, &after).await.unwrap(), ton(1));
    let view = vault.view().await.unwrap().unwrap();
    assert_eq!((view.state.reserved, view.is_covered()), (NanoTon::ZERO, true));
}

#[tokio::test]
async fn a_wallet_that_is_not_the_owner_rotates_nothing() {
    let chain = ledger();
    chain.faucet(wallet(1).address(), ton(10)).await.unwrap();
    let ledger: Arc<dyn Ledger> = Arc::new(chain);
    let vault = deposit(&ledger, Some(wallet(2).address()));
    vault.open(ton(1)).await.unwrap();
    let refused = vault.rotate_key(key(41).public()).await;
    assert!(matches!(refused, Err(OperationError::Refused(VaultError::NotOwner))));
    assert_eq!(vault.view().await.unwrap().unwrap().state.key, key(40).public());
}
