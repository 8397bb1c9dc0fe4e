//! The vault's client, held to what the reference library and the contract itself have written.
//!
//! Owns: reading `protocol/testdata/vault.json`. Must not: make expectations of its own where the
//! vectors have one.

use cocoon_protocol::channel::settlement::{AllocationRequest, Command, Parameters};
use cocoon_protocol::channel::{
    Allocation, Release, SignedRelease, SignedVoucher, VaultKey, VaultPublicKey, Voucher,
};
use cocoon_protocol::identity::{Network, NodeId, NodeKey, TonAddress};
use cocoon_protocol::units::{NanoTon, Timestamp};
use proptest::prelude::*;
use serde_json::Value;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, HashBytes};

use super::{CODE_HASH, Deployment, EncodeVaultError, ReadVaultError, VaultState, code, message};

const VECTORS: &str = include_str!("../../../../protocol/testdata/vault.json");
const HASHES: &str = include_str!("../../../../contracts/build/hashes.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn cases(value: &Value) -> &[Value] {
    let cases = value.as_array().unwrap();
    assert!(!cases.is_empty());
    cases
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

fn amount(value: &Value, field: &str) -> NanoTon {
    NanoTon::from_nano(text(value, field).parse().unwrap())
}

fn address(value: &Value, field: &str) -> TonAddress {
    TonAddress::from_raw(text(value, field)).unwrap()
}

fn node(value: &Value, field: &str) -> NodeId {
    NodeId::from_bytes(bytes(value, field))
}

fn cell(value: &Value, field: &str) -> Cell {
    Boc::decode(hex::decode(text(value, field)).unwrap()).unwrap()
}

fn payer(vectors: &Value) -> VaultKey {
    VaultKey::from_secret(&bytes(&vectors["keys"]["payer"], "seed"))
}

fn deployment(parameters: &Value) -> Deployment {
    let network_id = parameters["network_id"].as_i64().unwrap();
    Deployment {
        parameters: Parameters {
            client_key: VaultPublicKey::from_bytes(bytes(parameters, "client_key")),
            owner: address(parameters, "owner"),
            release_delay: number(parameters, "release_delay_seconds"),
            daily_cap: amount(parameters, "daily_cap_nano"),
            fee_basis_points: u16::try_from(number(parameters, "fee_basis_points")).unwrap(),
            treasury: address(parameters, "treasury"),
        },
        network: [Network::Devnet, Network::Testnet, Network::Mainnet]
            .into_iter()
            .find(|network| i64::from(network.global_id()) == network_id)
            .unwrap(),
        salt: text(parameters, "salt").parse().unwrap(),
    }
}

fn request(value: &Value) -> AllocationRequest {
    AllocationRequest {
        provider: node(value, "provider"),
        payout: address(value, "payout"),
        amount: amount(value, "amount_nano"),
    }
}

fn command(vault: TonAddress, value: &Value) -> Command {
    match text(value, "kind") {
        "allocate" => Command::Allocate(request(value)),
        "rebalance" => Command::Rebalance(cases(&value["requests"]).iter().map(request).collect()),
        "request_release" => Command::RequestRelease(node(value, "provider")),
        "finalize_release" => Command::FinalizeRelease(node(value, "provider")),
        "release" => Command::Release(SignedRelease {
            release: Release {
                vault,
                provider: node(value, "provider"),
                epoch: number(value, "epoch"),
                cumulative: amount(value, "cumulative_nano"),
            },
            signature: bytes(value, "signature"),
        }),
        "withdraw" => Command::Withdraw(amount(value, "amount_nano")),
        "close" => Command::Close,
        "rotate_key" => Command::RotateKey(VaultPublicKey::from_bytes(bytes(value, "key"))),
        other => panic!("unknown command `{other}`"),
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

fn state(value: &Value) -> VaultState {
    let key = VaultPublicKey::from_bytes(bytes(value, "key"));
    let made_under = |value: &Value| VaultPublicKey::from_bytes(bytes(value, "key"));
    let allocations = value["allocations"].as_array().unwrap();
    let former = allocations.iter().filter(|value| made_under(value) != key);
    VaultState {
        deployment: deployment(&value["parameters"]),
        key,
        seqno: number(value, "seqno"),
        next_epoch: number(value, "next_epoch"),
        reserved: amount(value, "reserved_nano"),
        accrued: amount(value, "accrued_nano"),
        day: number(value, "day"),
        allocated_today: amount(value, "allocated_today_nano"),
        allocations: allocations.iter().map(allocation).collect(),
        former_keys: former.map(|value| (node(value, "provider"), made_under(value))).collect(),
    }
}

fn read(value: &Value, data: &Cell) -> Result<VaultState, ReadVaultError> {
    VaultState::read(address(value, "address"), &code().unwrap(), data)
}

#[test]
fn the_committed_code_is_the_one_that_the_client_knows() {
    let hashes: Value = serde_json::from_str(HASHES).unwrap();
    let committed: [u8; 32] = bytes(&hashes["contracts"]["vault"], "code_hash");
    assert_eq!(code().unwrap().repr_hash(), &HashBytes(CODE_HASH));
    assert_eq!(committed, CODE_HASH);
    assert_eq!(bytes(&vectors(), "code_hash"), CODE_HASH);
}

#[test]
fn addresses_follow_from_parameters_as_in_the_reference_library() {
    let vectors = vectors();
    for case in cases(&vectors["deployments"]) {
        let deployment = deployment(&case["parameters"]);
        let init = deployment.state_init().unwrap();
        assert_eq!(init.data.as_ref(), Some(&cell(case, "data")), "{}", case["name"]);
        let hash = *CellBuilder::build_from(&init).unwrap().repr_hash();
        assert_eq!(hash.0, bytes(case, "state_init_hash"), "{}", case["name"]);
        assert_eq!(deployment.address(), Ok(address(case, "address")), "{}", case["name"]);
        let state = read(case, &cell(case, "data")).unwrap();
        let first_key = deployment.parameters.client_key;
        assert_eq!((state.deployment, state.next_epoch, state.key), (deployment, 1, first_key));
        assert!(state.allocations.is_empty());
    }
}

#[test]
fn every_command_is_signed_and_sent_as_the_contract_reads_it() {
    let vectors = vectors();
    let messages = &vectors["messages"];
    let vault = address(messages, "vault");
    let key = payer(&vectors);
    for case in cases(&messages["orders"]) {
        let command = command(vault, &case["command"]);
        let valid_until = Timestamp::from_unix_secs(u64::from(number(case, "valid_until")));
        let body = message::order(vault, number(case, "seqno"), valid_until, &command, &key);
        assert_eq!(body, Ok(cell(case, "external_body")), "{}", case["command"]);
        let body = message::owner_command(&command);
        assert_eq!(body, Ok(cell(case, "owner_body")), "{}", case["command"]);
    }
}

#[test]
fn every_settlement_is_sent_as_the_contract_reads_it() {
    let vectors = vectors();
    let messages = &vectors["messages"];
    let vault = address(messages, "vault");
    for case in cases(&messages["settlements"]) {
        let claim = &case["voucher"];
        let voucher = Voucher {
            vault,
            provider: node(claim, "provider"),
            epoch: number(claim, "epoch"),
            cumulative: amount(claim, "cumulative_nano"),
            receipts_root: bytes(claim, "receipts_root"),
        };
        let signed = payer(&vectors).sign(voucher);
        assert_eq!(signed.signature, bytes(case, "signature"));
        let consent = bytes(case, "consent");
        assert!(signed.has_consent(&consent));
        let external = message::settle_external(&signed, &consent);
        assert_eq!(external, Ok(cell(case, "external_body")));
        assert_eq!(message::settle_internal(&signed), Ok(cell(case, "internal_body")));
    }
    assert_eq!(message::sweep(), Ok(cell(messages, "sweep_body")));
}

#[test]
fn states_are_read_as_the_contract_wrote_them() {
    let vectors = vectors();
    for case in cases(&vectors["states"]) {
        let expected = state(case);
        let found = read(case, &cell(case, "data")).unwrap();
        assert_eq!(found, expected, "{}", case["name"]);
        let balance = amount(case, "balance_nano");
        assert_eq!(found.free(balance), amount(case, "free_nano"), "{}", case["name"]);
        assert!(found.is_covered(balance));
        assert!(!found.is_covered(found.reserved) || found.accrued == NanoTon::ZERO);
    }
}

#[test]
fn an_account_with_other_code_is_no_vault() {
    let vectors = vectors();
    let case = &cases(&vectors["states"])[0];
    let other = CellBuilder::build_from(1u8).unwrap();
    let read = VaultState::read(address(case, "address"), &other, &cell(case, "data"));
    assert_eq!(read, Err(ReadVaultError::UnknownCode { found: *other.repr_hash() }));
}

/// Somebody deploys the vault's own code, but with an allocation to an accomplice that is not in
/// the reserved sum, so that it can be paid from what others were promised.
#[test]
fn a_vault_that_did_not_start_empty_is_refused() {
    let vectors = vectors();
    let case = &cases(&vectors["states"])[1];
    let elsewhere = TonAddress { workchain: 0, hash: [1; 32] };
    let read = VaultState::read(elsewhere, &code().unwrap(), &cell(case, "data"));
    assert_eq!(read, Err(ReadVaultError::ForgedStart));
}

/// The data cell of a vault with one allocation, with one field replaced: its offset, its width,
/// its new value.
fn with_field(offset: u16, width: u16, value: u64) -> Result<VaultState, ReadVaultError> {
    let vectors = vectors();
    let case = cases(&vectors["states"]).iter().find(|case| case["name"] == "one allocation");
    let data = cell(case.unwrap(), "data");
    let mut builder = CellBuilder::new();
    let mut slice = data.as_slice().unwrap();
    builder.store_slice_data(slice.load_prefix(offset, 0).unwrap()).unwrap();
    slice.skip_first(width, 0).unwrap();
    builder.store_uint(value, width).unwrap();
    builder.store_slice(slice).unwrap();
    read(case.unwrap(), &builder.build().unwrap())
}

#[test]
fn contradictions_are_refused_by_name() {
    let inconsistent = |field| Err(ReadVaultError::Inconsistent { field });
    // reserved:u64 accrued:u64 allocations:maybe seqno:u32 next_epoch:u32 count:u8 …
    assert_eq!(with_field(0, 64, 1_000_000_001), inconsistent("reserved amount"));
    assert!(with_field(0, 64, 1_000_000_000).is_ok());
    assert_eq!(with_field(161, 32, 1), inconsistent("epochs"));
    assert_eq!(with_field(193, 8, 2), inconsistent("count of allocations"));
}

#[test]
fn a_cell_with_more_than_the_state_is_refused() {
    let vectors = vectors();
    let case = &cases(&vectors["states"])[0];
    let mut builder = CellBuilder::new();
    builder.store_slice(cell(case, "data").as_slice().unwrap()).unwrap();
    builder.store_bit_zero().unwrap();
    assert_eq!(read(case, &builder.build().unwrap()), Err(ReadVaultError::Malformed));
    assert_eq!(read(case, &Cell::default()), Err(ReadVaultError::Malformed));
}

#[test]
fn messages_that_the_contract_would_refuse_are_not_built() {
    let vectors = vectors();
    let key = payer(&vectors);
    let vault = address(&vectors["messages"], "vault");
    let build = |command: &Command| {
        message::order(vault, 0, Timestamp::from_unix_secs(1), command, &key).map(|_| ())
    };
    let request = AllocationRequest {
        provider: NodeId::from_bytes([1; 32]),
        payout: TonAddress { workchain: -1, hash: [2; 32] },
        amount: NanoTon::from_nano(1),
    };
    let masterchain = EncodeVaultError::NotInBasechain(request.payout);
    assert_eq!(build(&Command::Allocate(request)), Err(masterchain));
    let good = AllocationRequest { payout: vault, ..request };
    for length in [0, 17, 300] {
        let batch = Command::Rebalance(vec![good; length]);
        assert_eq!(build(&batch), Err(EncodeVaultError::BatchLength(length)));
    }
    let huge = AllocationRequest { amount: NanoTon::MAX, ..good };
    assert_eq!(build(&Command::Rebalance(vec![huge; 2])), Err(EncodeVaultError::BatchTotal));
    let release = Release {
        vault: TonAddress { workchain: 0, hash: [9; 32] },
        provider: NodeId::from_bytes([1; 32]),
        epoch: 1,
        cumulative: NanoTon::ZERO,
    };
    let signed = release.sign(&NodeKey::from_secret(&[3; 32]));
    assert_eq!(build(&Command::Release(signed)), Err(EncodeVaultError::OtherVault));
    let late = Timestamp::from_unix_secs(1 << 32);
    let order = message::order(vault, 0, late, &Command::Close, &key);
    assert_eq!(order, Err(EncodeVaultError::ValidUntil));
}

proptest! {
    #[test]
    fn damaged_states_never_panic_and_never_read_as_something_else(
        which in 0usize..8, at in 0usize..40_000, flip in 1u8..,
    ) {
        let vectors = vectors();
        let case = &cases(&vectors["states"])[which];
        let whole = hex::decode(text(case, "data")).unwrap();
        let mut damaged = whole.clone();
        let at = at % damaged.len();
        damaged[at] ^= flip;
        if let Ok(data) = Boc::decode(&damaged)
            && let Ok(found) = read(case, &data)
        {
            // What is left after the checks: fields that nothing else determines.
            let expected = state(case);
            prop_assert_eq!(found.deployment, expected.deployment);
            prop_assert_eq!(found.reserved, expected.reserved);
            prop_assert_eq!(found.allocations.len(), expected.allocations.len());
        }
    }

    #[test]
    fn random_cells_are_no_state(bits in prop::collection::vec(any::<u8>(), 0..127), refs in 0usize..4) {
        let vectors = vectors();
        let case = &cases(&vectors["states"])[0];
        let mut builder = CellBuilder::new();
        builder.store_raw(&bits, u16::try_from(bits.len() * 8).unwrap()).unwrap();
        for _ in 0..refs {
            builder.store_reference(Cell::default()).unwrap();
        }
        prop_assert!(read(case, &builder.build().unwrap()).is_err());
    }

    #[test]
    fn a_vouchers_cell_hash_is_the_one_that_was_signed(
        hash: [u8; 32], workchain in -1i8..1, provider: [u8; 32], epoch: u32, nano: u64, root: [u8; 32],
    ) {
        let voucher = Voucher {
            vault: TonAddress { workchain, hash },
            provider: NodeId::from_bytes(provider),
            epoch,
            cumulative: NanoTon::from_nano(nano),
            receipts_root: root,
        };
        let signed = SignedVoucher { voucher, signature: [0; 64] };
        let body = message::settle_internal(&signed).unwrap();
        let claim = body.reference(0).unwrap();
        prop_assert_eq!(claim.repr_hash().0, voucher.cell_hash());
    }
}
