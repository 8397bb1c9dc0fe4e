//! Phrases, addresses, comments, messages and vouchers against two libraries that we did not write:
//! `@ton/ton` (`testdata/shared.mjs`) and `pytoniq-core` (`testdata/shared.py`).
//!
//! Owns: the comparison. Must not: compute an expected value itself.

use cocoon_ledger::address::FriendlyAddress;
use cocoon_ledger::message::{Transfer, comment_cell, comment_text};
use cocoon_ledger::wallet::{Mnemonic, Wallet, v4r2_address};
use cocoon_protocol::channel::{VaultKey, Voucher};
use cocoon_protocol::identity::{Network, NodeId, NodeKey, TonAddress};
use cocoon_protocol::units::{NanoTon, Timestamp};
use ed25519_dalek::SigningKey;
use serde_json::Value;

use crate::vectors::account;

/// The inputs, and what `@ton/ton` makes of them.
const TON: &str = include_str!("../../testdata/shared-ton.json");
/// What `pytoniq-core` makes of the same inputs.
const PYTONIQ: &str = include_str!("../../testdata/shared-pytoniq.json");
/// Cases of each kind, at least.
const CASES: usize = 20;

/// Calls `ours` with every case of a kind, and compares what it gives with both libraries.
fn compare(kind: &str, ours: impl Fn(&Value) -> Vec<(&'static str, String)>) {
    let [ton, pytoniq]: [Value; 2] = [TON, PYTONIQ].map(|text| serde_json::from_str(text).unwrap());
    let (ton, pytoniq) = (ton[kind].as_array().unwrap(), pytoniq[kind].as_array().unwrap());
    assert!(ton.len() >= CASES && ton.len() == pytoniq.len(), "{kind}: {}", ton.len());
    for (place, (case, other)) in ton.iter().zip(pytoniq).enumerate() {
        for (field, found) in ours(case) {
            assert_eq!(found, text(case, field), "@ton/ton: {field} of {kind} {place}");
            assert_eq!(found, text(other, field), "pytoniq-core: {field} of {kind} {place}");
        }
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text `{field}` in {value}"))
}

fn bytes(value: &Value, field: &str) -> [u8; 32] {
    hex::decode(text(value, field)).unwrap().try_into().unwrap()
}

fn nano(value: &Value) -> NanoTon {
    NanoTon::from_nano(text(value, "nano").parse().unwrap())
}

fn number(value: &Value, field: &str) -> u32 {
    u32::try_from(value[field].as_u64().unwrap()).unwrap()
}

fn network(value: &Value) -> Network {
    match text(value, "network") {
        "mainnet" => Network::Mainnet,
        "testnet" => Network::Testnet,
        "devnet" => Network::Devnet,
        other => panic!("no network {other}"),
    }
}

fn transfer(case: &Value) -> Transfer {
    let destination = TonAddress::from_raw(text(case, "to")).unwrap();
    let bounce = case["bounce"].as_bool().unwrap();
    let transfer = Transfer { bounce, ..Transfer::plain(destination, nano(case)) };
    transfer.with_comment(text(case, "comment")).unwrap()
}

#[test]
fn phrases_are_phrases_for_all_and_give_the_same_keys() {
    let pytoniq: Value = serde_json::from_str(PYTONIQ).unwrap();
    let cases: Value = serde_json::from_str(TON).unwrap();
    let mut counts = [0; 2];
    for (case, other) in
        cases["mnemonics"].as_array().unwrap().iter().zip(pytoniq["mnemonics"].as_array().unwrap())
    {
        let words = Mnemonic::parse(text(case, "phrase"));
        assert_eq!(case["valid"].as_bool(), Some(words.is_ok()), "{case}");
        assert_eq!(other["valid"].as_bool(), Some(words.is_ok()), "{case}");
        counts[usize::from(words.is_ok())] += 1;
        let Ok(words) = words else { continue };
        let key = words.to_key();
        for library in [case, other] {
            assert_eq!(key.to_bytes(), bytes(library, "secret"));
            assert_eq!(key.verifying_key().to_bytes(), bytes(library, "public"));
        }
    }
    assert!(counts.iter().all(|count| *count >= CASES), "{counts:?}");
}

#[test]
fn addresses_are_the_same_in_every_form() {
    // A wallet of ours needs its secret; the phrases have it.
    let all: Value = serde_json::from_str(TON).unwrap();
    let secrets = all["mnemonics"].as_array().unwrap();
    compare("addresses", |case| {
        let address = if text(case, "version") == "v4r2" {
            let workchain = i8::try_from(case["workchain"].as_i64().unwrap()).unwrap();
            v4r2_address(&bytes(case, "public"), workchain).unwrap()
        } else {
            let owner = secrets.iter().find(|it| it["public"] == case["public"]).unwrap();
            let key = SigningKey::from_bytes(&bytes(owner, "secret"));
            Wallet::new(key, network(case)).unwrap().address()
        };
        let form = |bounceable, test_only| {
            let form = FriendlyAddress { address, bounceable, test_only };
            // Both ways.
            assert_eq!(form.to_string().parse(), Ok(form));
            form.to_string()
        };
        vec![
            ("raw", address.to_string()),
            ("bounceable", form(true, false)),
            ("non_bounceable", form(false, false)),
            ("test_bounceable", form(true, true)),
            ("test_non_bounceable", form(false, true)),
        ]
    });
}

#[test]
fn comments_are_the_same_cells_and_are_read_back() {
    compare("comments", |case| {
        let cell = comment_cell(text(case, "text")).unwrap();
        assert_eq!(comment_text(&cell).as_deref(), Some(text(case, "text")));
        vec![("hash", cell.repr_hash().to_string())]
    });
}

#[test]
fn the_messages_inside_are_the_same_cells() {
    compare("internals", |case| {
        vec![("hash", transfer(case).to_cell().unwrap().repr_hash().to_string())]
    });
}

#[test]
fn the_messages_to_the_wallet_are_the_same_cells() {
    compare("externals", |case| {
        let wallet =
            Wallet::new(SigningKey::from_bytes(&bytes(case, "secret")), network(case)).unwrap();
        let account = account(wallet.address(), number(case, "seqno"));
        let until = Timestamp::from_unix_secs(u64::from(number(case, "valid_until")));
        let message = wallet.sign(&account, &[transfer(&case["transfer"])], until).unwrap();
        vec![
            ("body_hash", message.body().unwrap().repr_hash().to_string()),
            ("message_hash", message.hash().to_string()),
        ]
    });
}

#[test]
fn vouchers_are_the_same_cells_under_the_same_signatures() {
    compare("vouchers", |case| {
        let provider = NodeKey::from_secret(&bytes(case, "provider_secret")).id();
        assert_eq!(provider, NodeId::from_bytes(bytes(case, "provider")));
        let voucher = Voucher {
            vault: TonAddress::from_raw(text(case, "vault")).unwrap(),
            provider,
            epoch: number(case, "epoch"),
            cumulative: nano(case),
            receipts_root: bytes(case, "root"),
        };
        let key = VaultKey::from_secret(&bytes(case, "payer_secret"));
        let signed = key.sign(voucher);
        assert!(signed.verify(&key.public()).is_ok());
        vec![
            ("hash", hex::encode(voucher.cell_hash())),
            ("signature", hex::encode(signed.signature)),
            ("provider", provider.to_string()),
        ]
    });
}
