//! Money from a wallet through a vault to a provider and back, through the HTTP interface.
//!
//! Owns: the whole way, to the nanoTON. Must not: build cells; the crate does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cocoon_ledger::embedded::{EmbeddedLedger, Options};
use cocoon_ledger::message::{Message, MessageHash};
use cocoon_ledger::operations::{Deposit, OperationError, Patience, Redeemer, VaultTerms};
use cocoon_ledger::{
    AccountState, Ledger, LedgerError, LedgerFuture, Outcome, Page, TransactionSummary,
};
use cocoon_protocol::channel::settlement::VaultError;
use cocoon_protocol::channel::{Allocation, Release, SignedVoucher, VaultKey, Voucher};
use cocoon_protocol::identity::{Network, NodeKey, TonAddress};
use cocoon_protocol::units::{Millis, NanoTon, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::http::Served;
use crate::stage::{balance, last, ledger, options, ton, wallet};

const RELEASE_DELAY: Millis = Millis::from_secs(60);
const GAS: &str = include_str!("../../../../contracts/gas/vault.json");

fn milli(milli: u64) -> NanoTon {
    NanoTon::from_nano(milli * 1_000_000)
}

fn patience() -> Patience {
    Patience { pause: Millis::new(1), deadline: Millis::from_secs(20), ..Patience::default() }
}

fn terms() -> VaultTerms {
    VaultTerms {
        owner: None,
        release_delay_seconds: 60,
        daily_cap: NanoTon::MAX,
        fee_basis_points: 0,
        treasury: TonAddress { workchain: 0, hash: [0x77; 32] },
        salt: 0,
    }
}

fn vault_key() -> Arc<VaultKey> {
    Arc::new(VaultKey::from_secret(&[40; 32]))
}

fn provider() -> NodeKey {
    NodeKey::from_secret(&[50; 32])
}

const PAYOUT: TonAddress = TonAddress { workchain: 0, hash: [0x99; 32] };

fn deposit(ledger: Arc<dyn Ledger>) -> Deposit {
    Deposit::new(ledger, wallet(1), vault_key(), &terms(), patience()).unwrap()
}

fn voucher(deposit: &Deposit, allocation: &Allocation, cumulative: NanoTon) -> SignedVoucher {
    vault_key().sign(Voucher {
        vault: deposit.address(),
        provider: provider().id(),
        epoch: allocation.epoch,
        cumulative,
        receipts_root: [3; 32],
    })
}

fn assert_refused<T: std::fmt::Debug>(result: Result<T, OperationError>, expected: VaultError) {
    match result {
        Err(OperationError::Refused(found)) => assert_eq!(found, expected),
        other => panic!("expected {expected:?}, got {other:?}"),
    }
}

/// Everything that a consumer and a provider do with one another's money, in order.
async fn whole_story(chain: &EmbeddedLedger, ledger: Arc<dyn Ledger>) {
    let deposit = deposit(Arc::clone(&ledger));
    let redeemer = Redeemer::new(Arc::clone(&ledger), patience());
    open(chain, &deposit).await;
    let first = allocate_and_settle(ledger.as_ref(), &deposit, &redeemer).await;
    release_twice(chain, ledger.as_ref(), &deposit, &redeemer, first).await;
    take_back(chain, ledger.as_ref(), &deposit).await;
}

async fn open(chain: &EmbeddedLedger, deposit: &Deposit) {
    let owner = deposit.wallet().address();
    assert_eq!(deposit.view().await.unwrap(), None);
    assert!(matches!(
        deposit.open(ton(5)).await,
        Err(OperationError::NoFunds { available: NanoTon::ZERO, .. })
    ));

    chain.faucet(owner, ton(10)).await.unwrap();
    let opened = deposit.open(ton(5)).await.unwrap();
    assert!(opened.balance > milli(4_999) && opened.balance <= ton(5));
    assert_eq!(opened.state.deployment.network, Network::Devnet);
    // Opening again changes nothing, whatever the amount.
    assert_eq!(deposit.open(ton(1)).await.unwrap(), opened);
    let topped = deposit.top_up(ton(1)).await.unwrap();
    assert!(topped.balance > milli(5_999));
}

async fn allocate_and_settle(
    ledger: &dyn Ledger,
    deposit: &Deposit,
    redeemer: &Redeemer,
) -> Allocation {
    let (id, owner) = (provider().id(), deposit.wallet().address());
    let (allocation, view) = deposit.allocate(id, PAYOUT, ton(1)).await.unwrap();
    assert_eq!((allocation.limit, allocation.paid), (ton(1), NanoTon::ZERO));
    assert_eq!(view.state.reserved, ton(1));
    assert_refused(deposit.allocate(id, owner, ton(1)).await, VaultError::PayoutDiffers);
    assert_refused(deposit.withdraw(ton(5)).await, VaultError::InsufficientFunds);

    let promised = voucher(deposit, &allocation, milli(400));
    let consent = promised.consent(&provider());
    assert_refused(redeemer.settle(&promised, &[0; 64]).await, VaultError::NoConsent);
    let redeemed = redeemer.settle(&promised, &consent).await.unwrap();
    assert_eq!(redeemed.paid, milli(400));
    assert_eq!(redeemed.allocation.receipts_root, [3; 32]);
    let earned = balance(ledger, PAYOUT).await;
    assert!(earned > milli(397) && earned < milli(400), "{earned}");
    // The same voucher again: the same answer, and no second payment.
    assert_eq!(redeemer.settle(&promised, &consent).await.unwrap(), redeemed);
    assert_eq!(balance(ledger, PAYOUT).await, earned);
    allocation
}

async fn release_twice(
    chain: &EmbeddedLedger,
    ledger: &dyn Ledger,
    deposit: &Deposit,
    redeemer: &Redeemer,
    first: Allocation,
) {
    let id = provider().id();
    let earned = balance(ledger, PAYOUT).await;
    assert_refused(deposit.finalize_release(id).await, VaultError::TooEarly);
    let view = deposit.request_release(id).await.unwrap();
    assert!(view.allocation(&id).unwrap().unlock_at.is_some());
    assert_refused(deposit.request_release(id).await, VaultError::AlreadyReleasing);
    chain.advance(RELEASE_DELAY).await.unwrap();
    let more = voucher(deposit, &first, milli(500));
    let late = redeemer.settle(&more, &more.consent(&provider())).await;
    assert_refused(late, VaultError::Released);
    let view = deposit.finalize_release(id).await.unwrap();
    assert_eq!((view.allocation(&id), view.state.reserved), (None, NanoTon::ZERO));

    // A new allocation is a new epoch, and the old vouchers are worth nothing in it.
    let (again, _) = deposit.allocate(id, PAYOUT, ton(2)).await.unwrap();
    assert_ne!(again.epoch, first.epoch);
    let stale = redeemer.settle(&more, &more.consent(&provider())).await;
    assert_refused(stale, VaultError::WrongEpoch);
    let release = Release {
        vault: deposit.address(),
        provider: id,
        epoch: again.epoch,
        cumulative: milli(700),
    };
    let view = deposit.release_signed(release.sign(&provider())).await.unwrap();
    assert_eq!(view.allocation(&id), None);
    let earned_more = balance(ledger, PAYOUT).await.saturating_sub(earned);
    assert!(earned_more > milli(699) && earned_more <= milli(700), "{earned_more}");
}

async fn take_back(chain: &EmbeddedLedger, ledger: &dyn Ledger, deposit: &Deposit) {
    let owner = deposit.wallet().address();
    let before = balance(ledger, owner).await;
    deposit.withdraw(ton(4)).await.unwrap();
    let after = balance(ledger, owner).await;
    assert!(after.saturating_sub(before) > milli(3_999));
    let closed = deposit.close().await.unwrap();
    // The fixed remainder, and what the contract put by for gas and did not need.
    assert!(closed.balance < milli(10), "{}", closed.balance);

    // To the nanoTON: all that was minted is in the vault, the wallets, or was paid as fees.
    let audit = chain.audit().await.unwrap();
    assert!(audit.is_balanced(), "{audit:?}");
    let mut held = NanoTon::ZERO;
    for address in [owner, PAYOUT, deposit.address()] {
        held = held.checked_add(balance(ledger, address).await).unwrap();
    }
    assert_eq!(held.checked_add(audit.fees), Some(ton(10)));
    assert!(audit.fees < milli(20), "the whole story cost {}", audit.fees);
}

#[tokio::test]
async fn the_whole_story_in_this_process() {
    let chain = ledger();
    whole_story(&chain, Arc::new(chain.clone())).await;
}

#[tokio::test]
async fn the_whole_story_over_http() {
    let served = Served::start().await;
    let chain = served.ledger.clone();
    whole_story(&chain, Arc::new(served.client())).await;
}

/// Every operation has to wait for its block.
#[tokio::test]
async fn the_whole_story_in_blocks() {
    let options = Options { block_time: Millis::new(5), ..options() };
    let chain = EmbeddedLedger::in_memory(options).unwrap();
    let (producer, cancel) = (chain.clone(), CancellationToken::new());
    let stop = cancel.clone();
    let blocks = tokio::spawn(async move { producer.produce_blocks(stop).await });
    whole_story(&chain, Arc::new(chain.clone())).await;
    cancel.cancel();
    blocks.await.unwrap();
}

#[tokio::test]
async fn gas_is_what_the_reference_emulator_measured() {
    let measured: serde_json::Value = serde_json::from_str(GAS).unwrap();
    let chain = ledger();
    let deposit = deposit(Arc::new(chain.clone()));
    let redeemer = Redeemer::new(Arc::new(chain.clone()), patience());
    let id = provider().id();
    chain.faucet(deposit.wallet().address(), ton(10)).await.unwrap();
    let check = async |name: &str| {
        let transaction = last(&chain, deposit.address()).await;
        assert_eq!(transaction.outcome, Outcome::Succeeded, "{name}");
        assert_eq!(Some(transaction.gas_used), measured[name]["gas"].as_u64(), "{name}");
    };
    deposit.open(ton(5)).await.unwrap();
    check("deploy with a deposit").await;
    deposit.top_up(ton(1)).await.unwrap();
    check("top-up").await;
    let (allocation, _) = deposit.allocate(id, PAYOUT, ton(1)).await.unwrap();
    check("allocate, first").await;
    deposit.allocate(id, PAYOUT, ton(1)).await.unwrap();
    check("allocate, grow").await;
    let promised = voucher(&deposit, &allocation, milli(400));
    redeemer.settle(&promised, &promised.consent(&provider())).await.unwrap();
    check("settle external, 1 allocation").await;
    deposit.request_release(id).await.unwrap();
    check("request release").await;
    chain.advance(RELEASE_DELAY).await.unwrap();
    deposit.finalize_release(id).await.unwrap();
    check("finalize release").await;
    deposit.withdraw(ton(1)).await.unwrap();
    check("withdraw").await;
}

/// What happens to the next messages on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// They arrive, and the answer is lost.
    AnswerLost,
    /// They are lost, and long after it everybody knows.
    MessageLost,
}

/// A connection that fails in one way, and counts what was sent.
#[derive(Debug)]
struct Unreliable {
    chain: EmbeddedLedger,
    fate: Fate,
    sent: AtomicUsize,
}

impl Ledger for Unreliable {
    fn network(&self) -> Network {
        self.chain.network()
    }

    fn now(&self) -> LedgerFuture<'_, Timestamp> {
        self.chain.now()
    }

    fn account(&self, address: TonAddress) -> LedgerFuture<'_, AccountState> {
        self.chain.account(address)
    }

    fn transactions(
        &self,
        address: TonAddress,
        page: Page,
    ) -> LedgerFuture<'_, Vec<TransactionSummary>> {
        self.chain.transactions(address, page)
    }

    fn send(&self, message: Message) -> LedgerFuture<'_, MessageHash> {
        Box::pin(async move {
            self.sent.fetch_add(1, Ordering::Relaxed);
            match self.fate {
                Fate::AnswerLost => {
                    self.chain.send(message).await?;
                }
                Fate::MessageLost => self.chain.advance(Millis::from_secs(600)).await?,
            }
            Err(LedgerError::Unreachable("the connection is gone".into()))
        })
    }
}

#[tokio::test]
async fn a_lost_answer_is_not_a_reason_to_send_again() {
    let chain = ledger();
    let unreliable = Arc::new(Unreliable {
        chain: chain.clone(),
        fate: Fate::AnswerLost,
        sent: AtomicUsize::new(0),
    });
    let deposit = deposit(Arc::clone(&unreliable) as Arc<dyn Ledger>);
    chain.faucet(deposit.wallet().address(), ton(10)).await.unwrap();
    deposit.open(ton(5)).await.unwrap();
    let (allocation, view) = deposit.allocate(provider().id(), PAYOUT, ton(1)).await.unwrap();
    assert_eq!(allocation.limit, ton(1));
    assert_eq!((view.state.seqno, unreliable.sent.load(Ordering::Relaxed)), (1, 2));
}

#[tokio::test]
async fn a_lost_message_is_known_to_have_done_nothing() {
    let chain = ledger();
    let sure = deposit(Arc::new(chain.clone()));
    chain.faucet(sure.wallet().address(), ton(10)).await.unwrap();
    sure.open(ton(5)).await.unwrap();
    let unreliable =
        Unreliable { chain: chain.clone(), fate: Fate::MessageLost, sent: AtomicUsize::new(0) };
    let unsure = deposit(Arc::new(unreliable));
    let failed = unsure.allocate(provider().id(), PAYOUT, ton(1)).await.unwrap_err();
    assert!(matches!(failed, OperationError::NotExecuted), "{failed:?}");
    assert!(failed.is_safe_to_repeat());
    let (allocation, _) = sure.allocate(provider().id(), PAYOUT, ton(1)).await.unwrap();
    assert_eq!(allocation.limit, ton(1));
}

#[tokio::test]
async fn commands_given_at_the_same_time_take_turns() {
    let chain = ledger();
    let deposit = Arc::new(deposit(Arc::new(chain.clone())));
    chain.faucet(deposit.wallet().address(), ton(10)).await.unwrap();
    deposit.open(ton(5)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 60..68_u8 {
        let deposit = Arc::clone(&deposit);
        let provider = NodeKey::from_secret(&[seed; 32]).id();
        tasks.spawn(async move { deposit.allocate(provider, PAYOUT, milli(100)).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    let view = deposit.view().await.unwrap().unwrap();
    assert_eq!((view.state.allocations.len(), view.state.reserved), (8, milli(800)));
}

#[tokio::test]
async fn an_account_that_is_no_vault_is_not_believed() {
    let chain = ledger();
    let alice = wallet(1);
    chain.faucet(alice.address(), ton(1)).await.unwrap();
    let to_self = cocoon_ledger::message::Transfer::plain(alice.address(), milli(1));
    crate::stage::send(&chain, &alice, &[to_self]).await.unwrap();
    let redeemer = Redeemer::new(Arc::new(chain), patience());
    let found = redeemer.vault(alice.address()).await;
    assert!(matches!(found, Err(OperationError::NotAVault(_))), "{found:?}");
    assert_eq!(redeemer.vault(wallet(2).address()).await.unwrap(), None);
}
