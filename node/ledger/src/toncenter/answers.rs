//! Reading toncenter's answers: whatever the server sends becomes a typed value or a typed error.
//!
//! Owns: the envelope, and the fields that we need.
//! Must not: trust a field to be there, or a text to be short.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::{NanoTon, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tycho_types::boc::Boc;
use tycho_types::cell::Cell;

use crate::port::{AccountState, AccountStatus, LedgerError};
use crate::transaction::{TransactionId, TransactionSummary};

pub(super) fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn bad(field: &'static str) -> LedgerError {
    LedgerError::BadAnswer { field }
}

fn cell(text: &str, field: &'static str) -> Result<Cell, LedgerError> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| bad(field))?;
    Boc::decode(bytes).map_err(|_| bad(field))
}

fn optional_cell(text: &str, field: &'static str) -> Result<Option<Cell>, LedgerError> {
    if text.is_empty() { Ok(None) } else { cell(text, field).map(Some) }
}

/// `{"ok": true, "result": …}` or `{"ok": false, "error": "…", "code": …}`.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope {
    ok: bool,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Value,
}

impl Envelope {
    pub(super) fn open<T: DeserializeOwned>(bytes: &[u8], status: u16) -> Result<T, LedgerError> {
        let Ok(envelope) = serde_json::from_slice::<Self>(bytes) else {
            // A proxy's own page, perhaps.
            let is_success = (200..300).contains(&status);
            let failed = LedgerError::ServerFailed { status };
            return Err(if is_success { bad("JSON envelope") } else { failed });
        };
        if envelope.ok {
            return serde_json::from_value(envelope.result).map_err(|_| bad("result"));
        }
        let text = envelope.error.as_str().unwrap_or_default();
        match exit_code(text) {
            Some(exit_code) => Err(LedgerError::NotAccepted { exit_code }),
            None => Err(LedgerError::ServerFailed { status }),
        }
    }
}

/// `Some` when the text says that a contract did not accept a message, as the C++ liteserver words
/// it; inside, the exit code if it is there.
pub(crate) fn exit_code(text: &str) -> Option<Option<i32>> {
    if !text.contains("not accepted") && !text.contains("exitcode=") {
        return None;
    }
    let (_, code) = text.split_once("exitcode=").unwrap_or_default();
    let end = code.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(code.len());
    Some(code.get(..end).and_then(|code| code.parse().ok()))
}

/// A number that comes as a number or as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

impl Number {
    fn read(&self, field: &'static str) -> Result<u64, LedgerError> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Text(text) => text.parse().map_err(|_| bad(field)),
        }
    }
}

#[derive(Debug, Deserialize)]
struct IdAnswer {
    lt: Number,
    hash: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct AccountAnswer {
    balance: Number,
    #[serde(default)]
    code: String,
    #[serde(default)]
    data: String,
    last_transaction_id: IdAnswer,
    sync_utime: u64,
    state: String,
}

impl AccountAnswer {
    pub(super) fn into_state(self, address: TonAddress) -> Result<AccountState, LedgerError> {
        let lt = self.last_transaction_id.lt.read("last_transaction_id.lt")?;
        let hash = BASE64_STANDARD
            .decode(&self.last_transaction_id.hash)
            .ok()
            .and_then(|hash| <[u8; 32]>::try_from(hash).ok());
        let last_transaction = match (lt, hash) {
            (0, _) => None,
            (lt, Some(hash)) => Some(TransactionId { lt, hash }),
            (_, None) => return Err(bad("last_transaction_id.hash")),
        };
        // The server does not tell an account that was never used from one without code.
        let status = match self.state.as_str() {
            "active" => AccountStatus::Active,
            "frozen" => AccountStatus::Frozen,
            "uninitialized" if last_transaction.is_none() => AccountStatus::Absent,
            "uninitialized" => AccountStatus::Uninitialised,
            _ => return Err(bad("state")),
        };
        Ok(AccountState {
            address,
            balance: NanoTon::from_nano(self.balance.read("balance")?),
            status,
            code: optional_cell(&self.code, "code")?,
            data: optional_cell(&self.data, "data")?,
            last_transaction,
            as_of: Timestamp::from_unix_secs(self.sync_utime),
            verified: false,
        })
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct TransactionAnswer {
    data: String,
}

impl TransactionAnswer {
    pub(super) fn into_summary(self) -> Result<TransactionSummary, LedgerError> {
        let cell = cell(&self.data, "transaction data")?;
        TransactionSummary::from_cell(cell).map_err(|_| bad("transaction data"))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ConfigAnswer {
    config: CellAnswer,
}

#[derive(Debug, Deserialize)]
struct CellAnswer {
    bytes: String,
}

impl ConfigAnswer {
    pub(super) fn global_id(&self) -> Result<i32, LedgerError> {
        let cell = cell(&self.config.bytes, "config")?;
        cell.parse::<i32>().map_err(|_| bad("config"))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct FaucetAnswer {
    balance: Number,
}

impl FaucetAnswer {
    pub(super) fn balance(&self) -> Result<NanoTon, LedgerError> {
        self.balance.read("balance").map(NanoTon::from_nano)
    }
}

/// Reads a body as every answer there is: for fuzzers.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_any(body: &[u8]) {
    let address = TonAddress { workchain: 0, hash: [0; 32] };
    let account = Envelope::open::<AccountAnswer>(body, 200);
    let _ = account.and_then(|answer| answer.into_state(address));
    let transactions = Envelope::open::<Vec<TransactionAnswer>>(body, 200);
    for answer in transactions.into_iter().flatten() {
        let _ = answer.into_summary();
    }
    let _ = Envelope::open::<ConfigAnswer>(body, 200).and_then(|answer| answer.global_id());
    let _ = Envelope::open::<FaucetAnswer>(body, 200).and_then(|answer| answer.balance());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_exit_code_is_found_in_the_liteservers_words() {
        // As toncenter.com words it.
        let text = "LITE_SERVER_UNKNOWN: cannot apply external message to current state : External \
                    message was not accepted\nCannot run message on account: inbound external \
                    message rejected by transaction A1B2:\nexitcode=133, steps=22, gas_used=0\n";
        assert_eq!(exit_code(text), Some(Some(133)));
        assert_eq!(exit_code("External message was not accepted"), Some(None));
        assert_eq!(exit_code("exitcode=-14, steps=1"), Some(Some(-14)));
        assert_eq!(exit_code("Incorrect address"), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}", status: u16) {
            let _ = Envelope::open::<AccountAnswer>(&bytes, status);
            let _ = exit_code(&format!("exitcode={text}"));
            let answer = format!(
                "{{\"ok\":true,\"result\":{{\"balance\":1,\"data\":{text:?},\"state\":\"active\",\
                 \"last_transaction_id\":{{\"lt\":\"1\",\"hash\":{text:?}}},\"sync_utime\":1}}}}"
            );
            if let Ok(answer) = Envelope::open::<AccountAnswer>(answer.as_bytes(), 200) {
                let _ = answer.into_state(TonAddress { workchain: 0, hash: [0; 32] });
            }
        }
    }
}
