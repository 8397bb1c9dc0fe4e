//! The reference model of the vault, held to what the contract did in generated histories.
//!
//! Owns: the comparison. Must not: decide who is right; a difference fails, and a person looks.

use std::collections::BTreeMap;

use cocoon_protocol::channel::settlement::{
    AllocationRequest, Command, Fees, Message, Order, Parameters, Vault,
};
use cocoon_protocol::channel::{Allocation, Release, VaultKey, VaultPublicKey, Voucher};
use cocoon_protocol::identity::{NodeId, NodeKey, TonAddress};
use cocoon_protocol::units::{NanoTon, Timestamp};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const HISTORIES: &str = include_str!("../../../../protocol/testdata/vault-histories.json");

fn secret(name: &str) -> [u8; 32] {
    Sha256::digest(format!("cocoon test key: {name}")).into()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text `{field}` in {value}"))
}

fn bytes<const N: usize>(value: &Value, field: &str) -> [u8; N] {
    hex::decode(text(value, field)).unwrap().try_into().unwrap()
}

fn number(value: &Value, field: &str) -> u32 {
    u32::try_from(value[field].as_u64().unwrap()).unwrap()
}

fn seconds(value: &Value, field: &str) -> Timestamp {
    Timestamp::from_unix_secs(value[field].as_u64().unwrap())
}

fn amount(value: &Value, field: &str) -> NanoTon {
    NanoTon::from_nano(text(value, field).parse().unwrap())
}

fn address(value: &Value, field: &str) -> TonAddress {
    TonAddress::from_raw(text(value, field)).unwrap()
}

fn node(value: &Value, field: &str) -> NodeId {
    NodeId::from_bytes(bytes(value, field))
}

/// Who signs what in the histories.
struct Keys {
    payer: VaultKey,
    providers: BTreeMap<NodeId, NodeKey>,
}

impl Keys {
    fn new(names: &Value) -> Self {
        let keys = names.as_array().unwrap().iter().map(|name| {
            let key = NodeKey::from_secret(&secret(name.as_str().unwrap()));
            (key.id(), key)
        });
        Self { payer: VaultKey::from_secret(&secret("payer")), providers: keys.collect() }
    }
}

fn request(value: &Value) -> AllocationRequest {
    AllocationRequest {
        provider: node(value, "provider"),
        payout: address(value, "payout"),
        amount: amount(value, "amount_nano"),
    }
}

fn command(keys: &Keys, vault: TonAddress, value: &Value) -> Command {
    match text(value, "kind") {
        "allocate" => Command::Allocate(request(value)),
        "rebalance" => {
            let requests = value["requests"].as_array().unwrap();
            Command::Rebalance(requests.iter().map(request).collect())
        }
        "request_release" => Command::RequestRelease(node(value, "provider")),
        "finalize_release" => Command::FinalizeRelease(node(value, "provider")),
        "release" => {
            let release = Release {
                vault,
                provider: node(value, "provider"),
                epoch: number(value, "epoch"),
                cumulative: amount(value, "cumulative_nano"),
            };
            Command::Release(release.sign(&keys.providers[&release.provider]))
        }
        "withdraw" => Command::Withdraw(amount(value, "amount_nano")),
        "close" => Command::Close,
        other => panic!("unknown command `{other}`"),
    }
}

fn message(keys: &Keys, vault: TonAddress, value: &Value) -> Message {
    let voucher = || {
        keys.payer.sign(Voucher {
            vault,
            provider: node(value, "provider"),
            epoch: number(value, "epoch"),
            cumulative: amount(value, "cumulative_nano"),
            receipts_root: bytes(value, "receipts_root"),
        })
    };
    match text(value, "kind") {
        "order" => Message::Order(Order {
            vault,
            seqno: number(value, "seqno"),
            valid_until: seconds(value, "valid_until"),
            command: command(keys, vault, &value["command"]),
            signer: keys.payer.public(),
        }),
        "owner_command" => Message::OwnerCommand {
            from: address(value, "from"),
            command: command(keys, vault, &value["command"]),
        },
        "settle_external" => {
            let voucher = voucher();
            let consent = voucher.consent(&keys.providers[&voucher.voucher.provider]);
            Message::SettleExternal { voucher, consent }
        }
        "settle_internal" => Message::SettleInternal(voucher()),
        "sweep" => Message::Sweep,
        other => panic!("unknown message `{other}`"),
    }
}

fn fees(value: &Value) -> Fees {
    Fees {
        bound: amount(value, "bound_nano"),
        withheld: amount(value, "withheld_nano"),
        used: amount(value, "used_nano"),
        transfer: amount(value, "transfer_nano"),
        arrival: NanoTon::ZERO,
        brought: amount(value, "brought_nano"),
    }
}

fn allocation(value: &Value) -> (NodeId, Allocation) {
    let unlock_at = u64::from(number(value, "unlock_at"));
    let allocation = Allocation {
        payout: address(value, "payout"),
        limit: amount(value, "limit_nano"),
        paid: amount(value, "paid_nano"),
        epoch: number(value, "epoch"),
        unlock_at: (unlock_at != 0).then(|| Timestamp::from_unix_secs(unlock_at)),
        receipts_root: bytes(value, "receipts_root"),
    };
    (node(value, "provider"), allocation)
}

fn assert_same(model: &Vault, contract: &Value, place: &str) {
    let allocations: BTreeMap<_, _> =
        contract["allocations"].as_array().unwrap().iter().map(allocation).collect();
    let ours: BTreeMap<_, _> = model.allocations().map(|(id, it)| (*id, *it)).collect();
    assert_eq!(ours, allocations, "{place}");
    assert_eq!(model.seqno(), number(contract, "seqno"), "{place}");
    assert_eq!(model.reserved(), amount(contract, "reserved_nano"), "{place}");
    assert_eq!(model.accrued(), amount(contract, "accrued_nano"), "{place}");
    assert_eq!(model.balance(), amount(contract, "balance_nano"), "{place}");
}

#[test]
fn the_model_does_what_the_contract_did() {
    let all: Value = serde_json::from_str(HISTORIES).unwrap();
    let keys = Keys::new(&all["names"]);
    let (mut succeeded, mut refused) = (0, 0);
    for history in all["histories"].as_array().unwrap() {
        let vault = address(history, "vault");
        let parameters = &history["parameters"];
        let mut model = Vault::new(
            vault,
            Parameters {
                client_key: VaultPublicKey::from_bytes(bytes(parameters, "client_key")),
                owner: address(parameters, "owner"),
                release_delay: number(parameters, "release_delay_seconds"),
                daily_cap: amount(parameters, "daily_cap_nano"),
                fee_basis_points: u16::try_from(number(parameters, "fee_basis_points")).unwrap(),
                treasury: address(parameters, "treasury"),
            },
        );
        let top_up = |model: &mut Vault, nano: NanoTon| {
            let topped = model.handle(&Message::TopUp(nano), Fees::default(), Timestamp::EPOCH);
            assert_eq!(topped, Ok(None));
        };
        top_up(&mut model, amount(&history["start"], "balance_nano"));
        assert_same(&model, &history["start"], "start");
        for (index, step) in history["steps"].as_array().unwrap().iter().enumerate() {
            let place = format!("history {}, step {index}: {step}", history["seed"]);
            let message = message(&keys, vault, &step["message"]);
            let outcome = model.handle(&message, fees(&step["fees"]), seconds(step, "now"));
            let exit_code = outcome.as_ref().map_or_else(|error| error.exit_code(), |_| 0);
            assert_eq!(Some(i64::from(exit_code)), step["exit_code"].as_i64(), "{place}");
            let paid = outcome.ok().flatten().map(|transfer| (transfer.to, transfer.amount));
            let expected = step["paid"]
                .is_object()
                .then(|| (address(&step["paid"], "to"), amount(&step["paid"], "amount_nano")));
            assert_eq!(paid, expected, "{place}");
            top_up(&mut model, amount(step, "left_behind_nano"));
            assert_same(&model, &step["after"], &place);
            if exit_code == 0 { succeeded += 1 } else { refused += 1 }
        }
    }
    assert!(succeeded > 80 && refused > 80, "{succeeded} succeeded, {refused} refused");
}
