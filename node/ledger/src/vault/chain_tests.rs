//! A vault's life on the embedded chain: the committed code, run by another virtual machine than
//! the one it was tested on.
//!
//! Owns: the whole way from parameters to a paid provider. Must not: test the chain itself.

use cocoon_protocol::channel::settlement::{AllocationRequest, Command, Parameters};
use cocoon_protocol::channel::{Release, VaultKey, Voucher};
use cocoon_protocol::identity::{Network, NodeId, NodeKey, TonAddress};
use cocoon_protocol::units::{Millis, NanoTon, Timestamp};
use ed25519_dalek::SigningKey;

use super::{Deployment, VaultState, message};
use crate::embedded::{Clock, EmbeddedLedger, Options};
use crate::message::{Message, Transfer};
use crate::wallet::Wallet;
use crate::{AccountState, Ledger, LedgerError};
use tycho_types::cell::Cell;

const MILLI: u64 = 1_000_000;

fn milli_ton(amount: u64) -> NanoTon {
    NanoTon::from_nano(amount * MILLI)
}

struct Scene {
    ledger: EmbeddedLedger,
    vault: TonAddress,
    hot: VaultKey,
    node: NodeKey,
    payout: TonAddress,
}

impl Scene {
    async fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_unix_secs(1_795_000_000));
        let ledger = EmbeddedLedger::in_memory(Options { clock, ..Options::default() }).unwrap();
        let wallet = Wallet::new(SigningKey::from_bytes(&[1; 32]), Network::Devnet).unwrap();
        let hot = VaultKey::from_secret(&[2; 32]);
        let deployment = Deployment {
            parameters: Parameters {
                client_key: hot.public(),
                owner: wallet.address(),
                release_delay: 60,
                daily_cap: NanoTon::MAX,
                fee_basis_points: 0,
                treasury: TonAddress { workchain: 0, hash: [0; 32] },
            },
            network: Network::Devnet,
            salt: 0,
        };
        let vault = deployment.address().unwrap();
        ledger.faucet(wallet.address(), milli_ton(5_000)).await.unwrap();
        let account = ledger.account(wallet.address()).await.unwrap();
        let until = ledger.now().await.unwrap().after(Millis::from_secs(60));
        let deposit = Transfer {
            init: Some(deployment.state_init().unwrap()),
            ..Transfer::plain(vault, milli_ton(1_000))
        };
        ledger.send(wallet.sign(&account, &[deposit], until).unwrap()).await.unwrap();
        let payout = TonAddress { workchain: 0, hash: [7; 32] };
        Self { ledger, vault, hot, node: NodeKey::from_secret(&[3; 32]), payout }
    }

    fn provider(&self) -> NodeId {
        self.node.id()
    }

    async fn account(&self) -> AccountState {
        self.ledger.account(self.vault).await.unwrap()
    }

    async fn state(&self) -> VaultState {
        let account = self.account().await;
        VaultState::read(self.vault, &account.code.unwrap(), &account.data.unwrap()).unwrap()
    }

    async fn send(&self, body: Cell) -> Result<(), LedgerError> {
        self.ledger.send(Message::external(self.vault, None, body).unwrap()).await.map(|_| ())
    }

    async fn order(&self, command: Command) -> Result<(), LedgerError> {
        let until = self.ledger.now().await.unwrap().after(Millis::from_secs(60));
        let seqno = self.state().await.seqno;
        self.send(message::order(self.vault, seqno, until, &command, &self.hot).unwrap()).await
    }

    async fn settle(&self, cumulative: NanoTon) -> Result<(), LedgerError> {
        let voucher = Voucher {
            vault: self.vault,
            provider: self.provider(),
            epoch: 1,
            cumulative,
            receipts_root: [9; 32],
        };
        let signed = self.hot.sign(voucher);
        self.send(message::settle_external(&signed, &signed.consent(&self.node)).unwrap()).await
    }
}

#[tokio::test]
async fn a_vault_is_opened_allocates_settles_and_releases() {
    let scene = Scene::new().await;
    assert_eq!(scene.state().await.seqno, 0);
    let request = AllocationRequest {
        provider: scene.provider(),
        payout: scene.payout,
        amount: milli_ton(500),
    };
    scene.order(Command::Allocate(request)).await.unwrap();
    assert_eq!(scene.state().await.reserved, milli_ton(500));

    scene.settle(milli_ton(120)).await.unwrap();
    let state = scene.state().await;
    let allocation = state.allocations[&scene.provider()];
    assert_eq!((allocation.paid, allocation.receipts_root), (milli_ton(120), [9; 32]));
    let received = scene.ledger.account(scene.payout).await.unwrap().balance;
    assert!(received > milli_ton(118) && received < milli_ton(120), "{received}");
    let again = scene.settle(milli_ton(120)).await;
    assert!(matches!(again, Err(LedgerError::NotAccepted { exit_code: Some(151) })), "{again:?}");

    let release = Release {
        vault: scene.vault,
        provider: scene.provider(),
        epoch: 1,
        cumulative: milli_ton(200),
    };
    scene.order(Command::Release(release.sign(&scene.node))).await.unwrap();
    let state = scene.state().await;
    assert!(state.allocations.is_empty() && state.reserved == NanoTon::ZERO);
    let received = scene.ledger.account(scene.payout).await.unwrap().balance;
    assert!(received > milli_ton(198), "{received}");

    scene.order(Command::Close).await.unwrap();
    let left = scene.account().await.balance;
    assert!(left >= milli_ton(5) && left < milli_ton(10), "{left}");
    assert!(scene.ledger.audit().await.unwrap().is_balanced());
}
