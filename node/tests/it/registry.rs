//! A registry on the devnet: what it says is shown, its fee is copied by new vaults, and kept by old ones.
//!
//! Owns: the way from the registry's owner to a consumer's vault. Must not: start a node.

use cocoon_ledger::Ledger as _;
use cocoon_ledger::message::Transfer;
use cocoon_ledger::registry::message::{Operation, body};
use cocoon_ledger::registry::{Deployment, Fee, read_registry};
use cocoon_ledger::toncenter::Toncenter;
use cocoon_ledger::wallet::{Mnemonic, Wallet};
use cocoon_protocol::identity::{Network as Money, TonAddress};
use cocoon_protocol::units::{Millis, NanoTon};
use serde_json::Value;

use crate::network::{Network, eventually};
use crate::process::Sandbox;

const TREASURY: TonAddress = TonAddress { workchain: 0, hash: [0x41; 32] };

/// Somebody with coins who owns a registry without a timelock.
struct Owner {
    runtime: tokio::runtime::Runtime,
    ledger: Toncenter,
    wallet: Wallet,
    registry: TonAddress,
}

impl Owner {
    fn new(network: &Network) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ledger = Toncenter::new(network.ledger(), Money::Devnet, None).unwrap();
        let secret = Mnemonic::generate().unwrap().to_key();
        let wallet = Wallet::new(secret, Money::Devnet).unwrap();
        let deployment =
            Deployment { owner: wallet.address(), timelock: 0, network: Money::Devnet, salt: 0 };
        let registry = deployment.address().unwrap();
        let owner = Self { runtime, ledger, wallet, registry };
        let funds = NanoTon::from_nano(5_000_000_000);
        let funded = owner.ledger.faucet(owner.wallet.address(), funds);
        owner.runtime.block_on(funded).unwrap();
        let init = Some(deployment.state_init().unwrap());
        owner
            .pay(Transfer { init, ..Transfer::plain(registry, NanoTon::from_nano(1_000_000_000)) });
        eventually("the registry", || owner.version());
        owner
    }

    fn version(&self) -> Option<u32> {
        let view = read_registry(&self.ledger, self.registry);
        self.runtime.block_on(view).ok().map(|view| view.state.version)
    }

    fn pay(&self, transfer: Transfer) {
        self.runtime.block_on(async {
            let account = self.ledger.account(self.wallet.address()).await.unwrap();
            let until = self.ledger.now().await.unwrap().after(Millis::from_secs(60));
            let message = self.wallet.sign(&account, &[transfer], until).unwrap();
            self.ledger.send(message).await.unwrap();
        });
    }

    fn say(&self, operation: &Operation) {
        let before = self.version().unwrap();
        let value = NanoTon::from_nano(50_000_000);
        let body = body(operation).unwrap();
        self.pay(Transfer { bounce: true, body, ..Transfer::plain(self.registry, value) });
        eventually("the registry's next version", || {
            self.version().filter(|version| *version == before + 1)
        });
    }

    fn set_fee(&self, basis_points: u16) {
        self.say(&Operation::ProposeFee(Fee { basis_points, treasury: Some(TREASURY) }));
        self.say(&Operation::ApplyFee);
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

#[test]
fn a_new_vault_copies_the_registrys_fee_and_keeps_it() {
    let network = Network::start();
    let owner = Owner::new(&network);
    owner.set_fee(100);
    let hash = [0xab; 32];
    owner.say(&Operation::SetModel { hash, name: "a\u{1b}[31m model".to_owned() });
    let name = "Ada".to_owned();
    owner.say(&Operation::SetMaintainer { account: owner.wallet.address(), name });
    let name = "cocoon-guest 1.0".to_owned();
    owner.say(&Operation::Publish { measurement: [0xcd; 32], name });
    owner.say(&Operation::ProposeFee(Fee { basis_points: 250, treasury: Some(TREASURY) }));

    let address = owner.registry.to_string();
    let consumer = network.consume_unfunded("taxed", &["--registry", &address]);
    consumer.run(&["wallet", "fund", "5 TON"]).success();
    let plain = ["--data-dir", "taxed", "--ledger", network.ledger()];
    let taxed = [&plain[..], &["--registry", &address]].concat();
    let run = |more: &[&str]| network.run(&[&taxed[..], more].concat());

    let shown = run(&["registry", "show"]).success();
    let treasury = TREASURY.to_string();
    assert!(
        shown.contains(&format!("1.00 % of what providers are paid, to {treasury}")),
        "{shown}"
    );
    assert!(shown.contains("announced    2.50 %"), "{shown}");
    assert!(shown.contains(&hex::encode(hash)) && !shown.contains('\u{1b}'), "{shown}");
    assert!(shown.contains("Ada") && shown.contains("cocoon-guest 1.0"), "{shown}");
    let named = [&plain[..], &["registry", "show", &address, "--json"]].concat();
    let named = json(&network.run(&named).success());
    assert_eq!((&named["fee_basis_points"], &named["version"]), (&100.into(), &6.into()));

    drop(consumer);
    let vault =
        |more: &[&str]| json(&run(&[&["vault", "show", "--json"], more].concat()).success());
    let before = vault(&[]);
    assert_eq!((&before["open"], &before["fee_basis_points"]), (&false.into(), &100.into()));
    let opened = run(&["vault", "open", "1 TON"]);
    assert!(opened.stderr.contains("network fee: 1.00 % of what providers are paid"), "{opened:?}");
    opened.success();
    let open = vault(&[]);
    assert_eq!((&open["open"], &open["address"]), (&true.into(), &before["address"]));
    assert_eq!(open["treasury"], treasury.as_str());

    // What the registry says later is for later vaults.
    owner.say(&Operation::ApplyFee);
    assert_eq!(vault(&[]), vault(&[]));
    assert_eq!(
        (&vault(&[])["address"], &vault(&[])["fee_basis_points"]),
        (&open["address"], &100.into())
    );
    let other = vault(&["--daily-cap", "1 TON"]);
    assert_eq!((&other["open"], &other["fee_basis_points"]), (&false.into(), &250.into()));
    let free = json(&network.run(&[&plain[..], &["vault", "show", "--json"]].concat()).success());
    assert_eq!(free["fee_basis_points"], 0);
}

#[test]
fn an_address_without_a_registry_is_named() {
    let network = Network::start();
    let nobody = format!("0:{}", "42".repeat(32));
    let base = ["--data-dir", "nobody", "--ledger", network.ledger(), "registry", "show"];
    let error = network.run(&[&base[..], &[&nobody]].concat()).failure(1);
    assert!(error.contains("there is no contract at 0:4242"), "{error}");
    let error = Sandbox::new().run(&["registry", "show"]).failure(2);
    assert!(error.contains("hint: give its address, or the setting `registry`"), "{error}");
}
