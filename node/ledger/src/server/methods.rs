//! The methods of toncenter v2 that wallets, libraries and our own client use.
//!
//! Owns: what each method asks the ledger.
//! Must not: read parameters or form JSON by hand.

use cocoon_protocol::units::{Millis, NanoTon};
use serde_json::{Value, json};

use super::RequestError;
use super::parameters::Parameters;
use super::shapes;
use crate::embedded::EmbeddedLedger;
use crate::get_method::{GetMethodError, GetMethodOutput};
use crate::message::Message;
use crate::port::{Ledger as _, LedgerError, Page};
use crate::transaction::TransactionId;
use crate::wallet;

/// Transactions in one answer, as toncenter has it.
const PAGE: u16 = 100;
const DEFAULT_PAGE: u16 = 10;
/// The most that one request to the faucet gives. Play money, but a typing error shall not use up
/// the supply.
const FAUCET_MAX: NanoTon = NanoTon::from_nano(10_000_000_000_000);
/// The furthest that one request moves the clock: a month. TON's clock ends in the year 2106.
const ADVANCE_MAX: u64 = 31 * 24 * 3_600;
/// The exit code that toncenter shows for an account without code.
const EXIT_CODE_NO_CODE: i32 = -13;

pub(super) async fn call(
    ledger: &EmbeddedLedger,
    method: &str,
    parameters: &Parameters,
) -> Result<Value, RequestError> {
    match method {
        "getAddressInformation" => {
            let account = ledger.account(parameters.address()?).await?;
            Ok(shapes::account(&account, &ledger.known_block().sealed))
        }
        "getAddressBalance" => {
            let account = ledger.account(parameters.address()?).await?;
            Ok(json!(account.balance.as_nano().to_string()))
        }
        "getAddressState" => {
            let account = ledger.account(parameters.address()?).await?;
            Ok(json!(shapes::status(account.status)))
        }
        "getWalletInformation" => wallet_information(ledger, parameters).await,
        "getTransactions" => transactions(ledger, parameters).await,
        "sendBoc" => {
            send(ledger, parameters).await?;
            Ok(json!({ "@type": "ok" }))
        }
        "sendBocReturnHash" => {
            let message = send(ledger, parameters).await?;
            let normalised = message.normalised_hash().map_err(LedgerError::InvalidMessage)?;
            Ok(json!({
                "@type": "raw.extMessageInfo",
                "hash": shapes::hash(&message.hash().0),
                "hash_norm": shapes::hash(&normalised.0),
            }))
        }
        "runGetMethod" => run_get_method(ledger, parameters).await,
        "getMasterchainInfo" => {
            let newest = ledger.newest_block().await?;
            Ok(shapes::masterchain(&newest, &ledger.zero_state().sealed))
        }
        "getConfigParam" => {
            let id = parameters.number("config_id")?.or(parameters.number("param")?);
            let id = id.ok_or(RequestError::Missing("config_id"))?;
            let id = u32::try_from(id).map_err(|_| RequestError::Unreadable("config_id"))?;
            let cell = ledger.parameter(Some(id)).ok_or(RequestError::Unreadable("config_id"))?;
            Ok(shapes::config(&cell))
        }
        "getConfigAll" => Ok(shapes::config(&ledger.parameter(None).ok_or(RequestError::Failed)?)),
        other => Err(RequestError::NoSuchMethod(other.chars().take(64).collect())),
    }
}

pub(super) async fn faucet(
    ledger: &EmbeddedLedger,
    parameters: &Parameters,
) -> Result<Value, RequestError> {
    let to = parameters.address()?;
    let amount = parameters.nano("amount")?;
    if amount == NanoTon::ZERO || amount > FAUCET_MAX {
        return Err(RequestError::Unreadable("amount"));
    }
    ledger.faucet(to, amount).await?;
    let account = ledger.account(to).await?;
    Ok(json!({ "balance": account.balance.as_nano().to_string() }))
}

/// Moves the devnet's clock ahead, for tests and demonstrations of what takes hours.
pub(super) async fn advance(
    ledger: &EmbeddedLedger,
    parameters: &Parameters,
) -> Result<Value, RequestError> {
    let seconds = parameters.number("seconds")?.ok_or(RequestError::Missing("seconds"))?;
    if seconds > ADVANCE_MAX {
        return Err(RequestError::Unreadable("seconds"));
    }
    ledger.advance(Millis::from_secs(seconds)).await?;
    Ok(json!({ "now": ledger.now().await?.as_unix_secs() }))
}

async fn send(ledger: &EmbeddedLedger, parameters: &Parameters) -> Result<Message, RequestError> {
    let message = Message::from_boc(&parameters.bytes("boc")?);
    let message =
        message.map_err(|error| RequestError::Refused(LedgerError::InvalidMessage(error)))?;
    ledger.send(message.clone()).await?;
    Ok(message)
}

async fn transactions(
    ledger: &EmbeddedLedger,
    parameters: &Parameters,
) -> Result<Value, RequestError> {
    let address = parameters.address()?;
    let limit = parameters
        .number("limit")?
        .map_or(DEFAULT_PAGE, |limit| u16::try_from(limit).unwrap_or(PAGE).clamp(1, PAGE));
    let oldest = parameters.number("to_lt")?.unwrap_or(0);
    // The page starts with the named transaction itself, which is before the next logical time.
    let before = parameters
        .number("lt")?
        .map(|lt| TransactionId { lt: lt.saturating_add(1), hash: [0; 32] });
    let found = ledger.transactions(address, Page { limit, before }).await?;
    let named = parameters.hash("hash")?;
    if let (Some(hash), Some(_), Some(first)) = (named, before, found.first())
        && first.id.hash != hash
    {
        return Err(RequestError::Unreadable("hash"));
    }
    let shown = found.iter().filter(|transaction| transaction.id.lt > oldest);
    Ok(shown.map(|transaction| shapes::transaction(address, transaction)).collect())
}

async fn run_get_method(
    ledger: &EmbeddedLedger,
    parameters: &Parameters,
) -> Result<Value, RequestError> {
    let address = parameters.address()?;
    let method = parameters.method()?;
    let output = ledger.run_get_method(address, method, parameters.stack()?).await?;
    match output {
        Ok(output) => Ok(shapes::get_method(&output)),
        Err(GetMethodError::NoCode) => Ok(shapes::get_method(&GetMethodOutput {
            exit_code: EXIT_CODE_NO_CODE,
            gas_used: 0,
            stack: Vec::new(),
        })),
        Err(GetMethodError::BadArgument) => Err(RequestError::Unreadable("stack")),
        Err(GetMethodError::BadConfig) => Err(RequestError::Failed),
    }
}

async fn wallet_information(
    ledger: &EmbeddedLedger,
    parameters: &Parameters,
) -> Result<Value, RequestError> {
    let account = ledger.account(parameters.address()?).await?;
    let is_wallet = wallet::is_wallet(account.code.as_ref());
    let seqno = if is_wallet { wallet::seqno_of(account.data.as_ref()) } else { None };
    Ok(shapes::wallet(&account, seqno))
}
