//! The JSON of toncenter v2, field by field.
//!
//! Owns: names and forms as third-party libraries expect them.
//! Must not: leave out a field that `@ton/ton` demands; a test there would fail, not here.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cocoon_protocol::identity::TonAddress;
use num_bigint::{BigInt, Sign};
use serde_json::{Value, json};
use tycho_types::boc::Boc;
use tycho_types::cell::Cell;

use crate::address::FriendlyAddress;
use crate::embedded::{Pair, Sealed};
use crate::get_method::{GetMethodOutput, StackEntry};
use crate::port::{AccountState, AccountStatus};
use crate::transaction::{MessageSummary, TransactionId, TransactionSummary};

/// The masterchain's only shard, as toncenter spells it.
const MASTERCHAIN_SHARD: &str = "-9223372036854775808";

pub(super) fn hash(hash: &[u8; 32]) -> String {
    BASE64_STANDARD.encode(hash)
}

fn boc(cell: &Cell) -> String {
    BASE64_STANDARD.encode(Boc::encode(cell))
}

fn friendly(address: TonAddress) -> String {
    FriendlyAddress { address, bounceable: true, test_only: false }.to_string()
}

pub(super) const fn status(status: AccountStatus) -> &'static str {
    match status {
        AccountStatus::Absent | AccountStatus::Uninitialised => "uninitialized",
        AccountStatus::Active => "active",
        AccountStatus::Frozen => "frozen",
    }
}

fn transaction_id(id: Option<TransactionId>) -> Value {
    let id = id.unwrap_or(TransactionId { lt: 0, hash: [0; 32] });
    json!({ "@type": "internal.transactionId", "lt": id.lt.to_string(), "hash": hash(&id.hash) })
}

fn block_id(block: &Sealed) -> Value {
    json!({
        "@type": "ton.blockIdExt",
        "workchain": -1,
        "shard": MASTERCHAIN_SHARD,
        "seqno": block.seqno,
        "root_hash": hash(&block.master.root_hash),
        "file_hash": hash(&block.master.file_hash),
    })
}

/// `block` is the newest block there is; what happened since is already in the account.
pub(super) fn account(account: &AccountState, block: &Sealed) -> Value {
    json!({
        "@type": "raw.fullAccountState",
        "balance": account.balance.as_nano().to_string(),
        "extra_currencies": [],
        "code": account.code.as_ref().map(boc).unwrap_or_default(),
        "data": account.data.as_ref().map(boc).unwrap_or_default(),
        "last_transaction_id": transaction_id(account.last_transaction),
        "block_id": block_id(block),
        "frozen_hash": "",
        "sync_utime": account.as_of.as_unix_secs(),
        "state": status(account.status),
    })
}

pub(super) fn wallet(account: &AccountState, seqno: Option<u32>) -> Value {
    let mut shape = json!({
        "wallet": seqno.is_some(),
        "balance": account.balance.as_nano().to_string(),
        "account_state": status(account.status),
        "last_transaction_id": transaction_id(account.last_transaction),
    });
    if let (Some(seqno), Some(fields)) = (seqno, shape.as_object_mut()) {
        fields.insert("wallet_type".to_owned(), json!("wallet v5 r1"));
        fields.insert("seqno".to_owned(), json!(seqno));
    }
    shape
}

pub(super) fn masterchain(newest: &Pair, zero: &Sealed) -> Value {
    json!({
        "@type": "blocks.masterchainInfo",
        "last": block_id(&newest.sealed),
        "state_root_hash": hash(&newest.master_state.repr_hash().0),
        "init": {
            "@type": "ton.blockIdExt",
            "workchain": -1,
            "shard": "0",
            "seqno": 0,
            "root_hash": hash(&zero.master.root_hash),
            "file_hash": hash(&zero.master.file_hash),
        },
    })
}

pub(super) fn config(cell: &Cell) -> Value {
    json!({ "@type": "configInfo", "config": { "@type": "tvm.cell", "bytes": boc(cell) } })
}

pub(super) fn transaction(address: TonAddress, transaction: &TransactionSummary) -> Value {
    let other = transaction.fees.saturating_sub(transaction.storage_fees);
    let mut shape = json!({
        "@type": "raw.transaction",
        "address": { "@type": "accountAddress", "account_address": friendly(address) },
        "utime": transaction.at.as_unix_secs(),
        "data": boc(&transaction.cell),
        "transaction_id": transaction_id(Some(transaction.id)),
        "fee": transaction.fees.as_nano().to_string(),
        "storage_fee": transaction.storage_fees.as_nano().to_string(),
        "other_fee": other.as_nano().to_string(),
        "out_msgs": transaction.sent.iter().map(message).collect::<Vec<_>>(),
    });
    if let (Some(received), Some(fields)) = (&transaction.received, shape.as_object_mut()) {
        fields.insert("in_msg".to_owned(), message(received));
    }
    shape
}

fn message(message: &MessageSummary) -> Value {
    json!({
        "@type": "raw.message",
        "hash": hash(&message.hash.0),
        "source": message.source.map(friendly).unwrap_or_default(),
        "destination": message.destination.map(friendly).unwrap_or_default(),
        "value": message.value.as_nano().to_string(),
        "extra_currencies": [],
        "fwd_fee": message.forward_fee.as_nano().to_string(),
        "ihr_fee": "0",
        "created_lt": message.created_lt.to_string(),
        "body_hash": hash(&message.body.repr_hash().0),
        "msg_data": { "@type": "msg.dataRaw", "body": boc(&message.body), "init_state": "" },
        "message": "",
    })
}

pub(super) fn get_method(output: &GetMethodOutput) -> Value {
    json!({
        "@type": "smc.runResult",
        "gas_used": output.gas_used,
        "stack": output.stack.iter().map(stack_pair).collect::<Vec<_>>(),
        "exit_code": output.exit_code,
    })
}

/// A value at the top level: `["num", "0x1f"]`.
fn stack_pair(entry: &StackEntry) -> Value {
    match entry {
        // What toncenter makes of null.
        StackEntry::Null => json!(["list", { "@type": "tvm.list", "elements": [] }]),
        StackEntry::NotANumber => json!(["num", "NaN"]),
        StackEntry::Integer(value) => json!(["num", hexadecimal(value)]),
        StackEntry::Cell(cell) => json!(["cell", { "bytes": boc(cell) }]),
        StackEntry::Slice(cell) => json!(["slice", { "bytes": boc(cell) }]),
        StackEntry::Builder(cell) => json!(["builder", { "bytes": boc(cell) }]),
        StackEntry::Tuple(entries) => json!(["tuple", tuple(entries)]),
        StackEntry::Unsupported => json!(["unsupported", null]),
    }
}

fn hexadecimal(value: &BigInt) -> String {
    let sign = if value.sign() == Sign::Minus { "-" } else { "" };
    format!("{sign}0x{}", value.magnitude().to_str_radix(16))
}

fn tuple(entries: &[StackEntry]) -> Value {
    json!({
        "@type": "tvm.tuple",
        "elements": entries.iter().map(stack_object).collect::<Vec<_>>(),
    })
}

/// A value inside a tuple: `{"@type": "tvm.stackEntryNumber", …}`.
fn stack_object(entry: &StackEntry) -> Value {
    let cell = |kind: &str, cell: &Cell| json!({ "@type": kind, "bytes": boc(cell) });
    match entry {
        StackEntry::Null => json!({
            "@type": "tvm.stackEntryList",
            "list": { "@type": "tvm.list", "elements": [] },
        }),
        StackEntry::Integer(value) => json!({
            "@type": "tvm.stackEntryNumber",
            "number": { "@type": "tvm.numberDecimal", "number": value.to_string() },
        }),
        StackEntry::Cell(inner) | StackEntry::Builder(inner) => {
            json!({ "@type": "tvm.stackEntryCell", "cell": cell("tvm.cell", inner) })
        }
        StackEntry::Slice(inner) => {
            json!({ "@type": "tvm.stackEntrySlice", "slice": cell("tvm.slice", inner) })
        }
        StackEntry::Tuple(entries) => {
            json!({ "@type": "tvm.stackEntryTuple", "tuple": tuple(entries) })
        }
        StackEntry::NotANumber | StackEntry::Unsupported => {
            json!({ "@type": "tvm.stackEntryUnsupported" })
        }
    }
}
