//! The registry's client, held to what the reference library and the contract itself have written.
//!
//! Owns: reading `protocol/testdata/registry.json`. Must not: make expectations of its own where the
//! vectors have one.

use std::collections::BTreeMap;

use cocoon_ledger::tycho_types::boc::Boc;
use cocoon_ledger::tycho_types::cell::{Cell, CellBuilder};
use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::{NanoTon, Timestamp};
use proptest::prelude::*;
use serde_json::Value;

use cocoon_ledger::registry::message::{EncodeRegistryError, Operation, body};
use cocoon_ledger::registry::{
    CODE_HASH, Deployment, Fee, Maintainer, Measurement, PendingFee, ReadRegistryError,
    RegistryState, code, displayable,
};

const VECTORS: &str = include_str!("../../../../protocol/testdata/registry.json");
const HASHES: &str = include_str!("../../../../contracts/build/hashes.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text `{field}` in {value}"))
}

fn bytes(value: &Value, field: &str) -> [u8; 32] {
    hex::decode(text(value, field)).unwrap().try_into().unwrap()
}

fn number(value: &Value, field: &str) -> u32 {
    u32::try_from(value[field].as_u64().unwrap()).unwrap()
}

fn address(value: &Value, field: &str) -> TonAddress {
    TonAddress::from_raw(text(value, field)).unwrap()
}

fn cell(value: &Value, field: &str) -> Cell {
    Boc::decode(hex::decode(text(value, field)).unwrap()).unwrap()
}

fn network(value: &Value) -> Network {
    let id = value["network_id"].as_i64().unwrap();
    let networks = [Network::Devnet, Network::Testnet, Network::Mainnet];
    networks.into_iter().find(|network| i64::from(network.global_id()) == id).unwrap()
}

fn fee(value: &Value) -> Fee {
    let treasury = address(value, "treasury");
    let basis_points = u16::try_from(number(value, "basis_points")).unwrap();
    Fee { basis_points, treasury: (treasury.hash != [0; 32]).then_some(treasury) }
}

fn second(value: &Value, field: &str) -> Timestamp {
    Timestamp::from_unix_secs(u64::from(number(value, field)))
}

fn name(value: &Value) -> String {
    text(value, "name").to_owned()
}

fn maintainer(value: &Value) -> (TonAddress, Maintainer) {
    let measurements: BTreeMap<_, _> = list(&value["measurements"])
        .iter()
        .map(|one| {
            let published_at = second(one, "published_at");
            (bytes(one, "key"), Measurement { name: name(one), published_at })
        })
        .collect();
    (address(value, "account"), Maintainer { name: name(value), measurements })
}

fn state(value: &Value) -> RegistryState {
    let pending = Some(&value["pending_fee"]).filter(|pending| pending.is_object());
    RegistryState {
        version: number(value, "version"),
        minimum_protocol: number(value, "minimum_protocol"),
        fee: fee(&value["fee"]),
        pending_fee: pending.map(|pending| PendingFee {
            fee: fee(pending),
            not_before: second(pending, "not_before"),
        }),
        owner: address(value, "owner"),
        pending_owner: value["pending_owner"]
            .as_str()
            .map(|address| TonAddress::from_raw(address).unwrap()),
        timelock: number(value, "timelock_seconds"),
        salt: text(value, "salt").parse().unwrap(),
        models: list(&value["models"]).iter().map(|one| (bytes(one, "key"), name(one))).collect(),
        maintainers: list(&value["maintainers"]).iter().map(maintainer).collect(),
    }
}

fn operation(value: &Value) -> Operation {
    match text(value, "kind") {
        "propose_fee" => Operation::ProposeFee(fee(value)),
        "cancel_fee" => Operation::CancelFee,
        "set_minimum_protocol" => Operation::SetMinimumProtocol(number(value, "version")),
        "set_model" => Operation::SetModel { hash: bytes(value, "key"), name: name(value) },
        "remove_model" => Operation::RemoveModel(bytes(value, "key")),
        "set_maintainer" => {
            Operation::SetMaintainer { account: address(value, "account"), name: name(value) }
        }
        "remove_maintainer" => Operation::RemoveMaintainer(address(value, "account")),
        "propose_owner" => Operation::ProposeOwner(address(value, "owner")),
        "withdraw" => {
            Operation::Withdraw(NanoTon::from_nano(text(value, "amount_nano").parse().unwrap()))
        }
        "accept_owner" => Operation::AcceptOwner,
        "apply_fee" => Operation::ApplyFee,
        "publish" => Operation::Publish { measurement: bytes(value, "key"), name: name(value) },
        "unpublish" => Operation::Unpublish(bytes(value, "key")),
        other => panic!("unknown operation `{other}`"),
    }
}

#[test]
fn the_committed_code_is_the_one_that_the_client_knows() {
    let hashes: Value = serde_json::from_str(HASHES).unwrap();
    assert_eq!(bytes(&hashes["contracts"]["registry"], "code_hash"), CODE_HASH);
    assert_eq!(bytes(&vectors(), "code_hash"), CODE_HASH);
    assert_eq!(code().unwrap().repr_hash().0, CODE_HASH);
}

#[test]
fn addresses_follow_as_in_the_reference_library() {
    for case in list(&vectors()["deployments"]) {
        let deployment = Deployment {
            owner: address(case, "owner"),
            timelock: number(case, "timelock_seconds"),
            network: network(case),
            salt: text(case, "salt").parse().unwrap(),
        };
        let data = deployment.state_init().unwrap().data.unwrap();
        assert_eq!(data, cell(case, "data"));
        assert_eq!(deployment.address(), Ok(address(case, "address")));
        let fresh = RegistryState::read(network(case), &code().unwrap(), &data).unwrap();
        assert_eq!((fresh.owner, fresh.version), (deployment.owner, 0));
    }
}

#[test]
fn every_operation_is_sent_as_the_contract_reads_it() {
    let vectors = vectors();
    assert_eq!(list(&vectors["operations"]).len(), 13);
    for case in list(&vectors["operations"]) {
        assert_eq!(body(&operation(case)), Ok(cell(case, "body")), "{}", case["kind"]);
    }
}

#[test]
fn what_the_contract_would_refuse_is_not_built() {
    let set = |name: &str| body(&Operation::SetModel { hash: [1; 32], name: name.to_owned() });
    assert_eq!(set(""), Err(EncodeRegistryError::Name(0)));
    assert_eq!(set(&"x".repeat(65)), Err(EncodeRegistryError::Name(65)));
    assert_eq!(set(&"x".repeat(20_000)), Err(EncodeRegistryError::Name(20_000)));
    assert!(set(&"x".repeat(64)).is_ok());
    let masterchain = TonAddress { workchain: -1, hash: [1; 32] };
    let removed = body(&Operation::RemoveMaintainer(masterchain));
    assert_eq!(removed, Err(EncodeRegistryError::NotInBasechain(masterchain)));
}

#[test]
fn states_are_read_as_the_contract_wrote_them() {
    for case in list(&vectors()["states"]) {
        let read = RegistryState::read(network(case), &code().unwrap(), &cell(case, "data"));
        assert_eq!(read, Ok(state(case)), "{}", case["name"]);
    }
}

#[test]
fn another_networks_registry_and_other_code_are_refused() {
    let vectors = vectors();
    let case = &list(&vectors["states"])[2];
    let data = cell(case, "data");
    let read = RegistryState::read(Network::Devnet, &code().unwrap(), &data);
    assert_eq!(read, Err(ReadRegistryError::OtherNetwork { id: -239 }));
    let other = CellBuilder::build_from(1u8).unwrap();
    let read = RegistryState::read(Network::Mainnet, &other, &data);
    assert_eq!(read, Err(ReadRegistryError::UnknownCode { found: *other.repr_hash() }));
}

#[test]
fn names_do_not_reach_the_terminal_as_they_are() {
    assert_eq!(displayable("a\u{1b}[31mb\n\u{202e}"), "a\u{fffd}[31mb\u{fffd}\u{fffd}");
    assert_eq!(displayable("Größe-7B"), "Größe-7B");
}

proptest! {
    #[test]
    fn damaged_states_never_panic_and_never_grow(
        which in 0usize..5, at in 0usize..4_000, flip in 1u8..,
    ) {
        let vectors = vectors();
        let case = &list(&vectors["states"])[which];
        let mut damaged = hex::decode(text(case, "data")).unwrap();
        let at = at % damaged.len();
        damaged[at] ^= flip;
        if let Ok(data) = Boc::decode(&damaged)
            && let Ok(found) = RegistryState::read(network(case), &code().unwrap(), &data)
        {
            let expected = state(case);
            prop_assert!(found.fee.basis_points <= 1_000);
            prop_assert_eq!(found.models.len(), expected.models.len());
            prop_assert_eq!(found.maintainers.len(), expected.maintainers.len());
        }
    }
}
