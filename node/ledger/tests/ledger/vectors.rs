//! Our wallet against vectors made by `@ton/crypto` and `@ton/ton` (`testdata/generate.mjs`).
//!
//! Owns: the comparison. Must not: compute an expected value itself.

use cocoon_ledger::address::FriendlyAddress;
use cocoon_ledger::message::Transfer;
use cocoon_ledger::tycho_types::cell::{Cell, CellBuilder, CellFamily as _};
use cocoon_ledger::wallet::{Mnemonic, MnemonicError, Wallet};
use cocoon_ledger::{AccountState, AccountStatus, address};
use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::{NanoTon, Timestamp};
use serde_json::Value;

const VECTORS: &str = include_str!("../../testdata/wallet.json");

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap()
}

fn comment(text: &str) -> Cell {
    if text.is_empty() {
        return Cell::empty_cell();
    }
    let mut builder = CellBuilder::new();
    builder.store_u32(0).unwrap();
    builder.store_raw(text.as_bytes(), u16::try_from(text.len() * 8).unwrap()).unwrap();
    builder.build().unwrap()
}

fn transfer(value: &Value) -> Transfer {
    Transfer {
        destination: TonAddress::from_raw(text(value, "to")).unwrap(),
        value: NanoTon::from_nano(text(value, "nano").parse().unwrap()),
        bounce: value["bounce"].as_bool().unwrap(),
        init: None,
        body: comment(text(value, "comment")),
    }
}

/// The wallet's account with this sequence number; zero is before it is deployed.
pub(crate) fn account(address: TonAddress, seqno: u32) -> AccountState {
    let mut data = CellBuilder::new();
    data.store_bit_one().unwrap();
    data.store_u32(seqno).unwrap();
    AccountState {
        address,
        balance: NanoTon::ZERO,
        status: if seqno == 0 { AccountStatus::Absent } else { AccountStatus::Active },
        code: None,
        data: Some(data.build().unwrap()),
        last_transaction: None,
        as_of: Timestamp::EPOCH,
        verified: true,
    }
}

#[test]
fn phrases_keys_addresses_and_messages_are_those_of_the_reference() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let wallets = vectors["wallets"].as_array().unwrap();
    assert!(wallets.len() >= 20);
    for entry in wallets {
        let key = Mnemonic::parse(text(entry, "phrase")).unwrap().to_key();
        assert_eq!(hex::encode(key.verifying_key().to_bytes()), text(entry, "publicKey"));
        for (name, network) in [
            ("mainnet", Network::Mainnet),
            ("testnet", Network::Testnet),
            ("devnet", Network::Devnet),
        ] {
            let expected = &entry["networks"][name];
            let wallet = Wallet::new(key.clone(), network).unwrap();
            assert_eq!(wallet.address().to_string(), text(expected, "address"));
            assert_eq!(wallet.friendly_address().to_string(), text(expected, "wallet"));
            let bounceable: FriendlyAddress = text(expected, "bounceable").parse().unwrap();
            assert!(bounceable.bounceable);
            assert_eq!(bounceable.to_string(), text(expected, "bounceable"));
            assert_eq!(address::parse(text(expected, "wallet"), network), Ok(wallet.address()));

            let account =
                account(wallet.address(), u32::try_from(number(expected, "seqno")).unwrap());
            let transfers: Vec<_> =
                expected["transfers"].as_array().unwrap().iter().map(transfer).collect();
            let until = Timestamp::from_unix_secs(number(expected, "validUntil"));
            let message = wallet.sign(&account, &transfers, until).unwrap();
            assert_eq!(message.hash().to_string(), text(expected, "messageHash"), "{name}");
        }
    }
}

#[test]
fn phrases_that_the_reference_refuses_are_refused() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let swapped = Mnemonic::parse(text(&vectors, "swapped")).map(|_| ());
    assert_eq!(swapped, Err(MnemonicError::Checksum));
    let locked = Mnemonic::parse(text(&vectors, "locked")).map(|_| ());
    assert_eq!(locked, Err(MnemonicError::NeedsPassword));
}
