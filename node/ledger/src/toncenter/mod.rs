//! A ledger somewhere else, over toncenter's HTTP interface (version 2).
//!
//! Owns: requests, time limits, repeated reads.
//! Must not: call anything that it read verified, or send a message twice.

mod answers;

pub(crate) use self::answers::exit_code;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::answers::read_any;

use std::fmt;
use std::time::Duration;

use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::{NanoTon, Timestamp};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::answers::{AccountAnswer, ConfigAnswer, Envelope, FaucetAnswer, TransactionAnswer};
use crate::address::FriendlyAddress;
use crate::message::{Message, MessageHash};
use crate::port::{AccountState, Ledger, LedgerError, LedgerFuture, Page};
use crate::transaction::TransactionSummary;

/// A request, the answer's body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a read is tried, and how long the first pause is; each pause is twice the one before,
/// so that three seconds pass before the caller hears of it.
const READ_ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// An answer: a hundred transactions of a vault are about 600 kB of JSON. A longer one is an error.
const ANSWER_BYTES: usize = 4 * 1_048_576;
/// Transactions in one answer, as the interface has it.
const PAGE: u16 = 100;
/// Configuration parameter with the network's id.
const PARAM_GLOBAL_ID: u32 = 19;

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct Toncenter {
    client: reqwest::Client,
    url: String,
    network: Network,
}

impl fmt::Debug for Toncenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The API key is inside `client`, and a URL may carry one too.
        f.debug_struct("Toncenter").field("network", &self.network).finish_non_exhaustive()
    }
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address of the interface is no HTTP URL.
    #[error("the ledger's URL must begin with http:// or https://")]
    BadUrl,
    /// The API key has characters that no header may have.
    #[error("the ledger's API key has characters that cannot be sent")]
    BadApiKey,
    /// The TLS library cannot start.
    #[error("the HTTP client cannot start")]
    Client(#[source] reqwest::Error),
}

impl Toncenter {
    /// A client of the interface below `url`, for example `https://toncenter.com` (without
    /// `/api/v2`). It does not connect yet.
    ///
    /// # Errors
    ///
    /// When the URL or the key cannot be used.
    pub fn new(url: &str, network: Network, api_key: Option<&str>) -> Result<Self, ClientError> {
        let url = url.trim().trim_end_matches('/');
        let url = url.strip_suffix("/api/v2").unwrap_or(url);
        let is_http = url.starts_with("http://") || url.starts_with("https://");
        if !is_http || reqwest::Url::parse(url).is_err() {
            return Err(ClientError::BadUrl);
        }
        let mut headers = HeaderMap::new();
        if let Some(api_key) = api_key {
            let mut value = HeaderValue::from_str(api_key).map_err(|_| ClientError::BadApiKey)?;
            value.set_sensitive(true);
            headers.insert("x-api-key", value);
        }
        let client = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .default_headers(headers)
            .build()
            .map_err(ClientError::Client)?;
        Ok(Self { client, url: url.to_owned(), network })
    }

    /// Asks the server which network it serves.
    ///
    /// # Errors
    ///
    /// When it does not answer, or serves another network than the client was made for.
    pub async fn check_network(&self) -> Result<(), LedgerError> {
        let parameters = json!({ "config_id": PARAM_GLOBAL_ID });
        let answer: ConfigAnswer = self.read("getConfigParam", &parameters).await?;
        if answer.global_id()? == self.network.global_id() {
            Ok(())
        } else {
            Err(LedgerError::OtherNetwork { expected: self.network })
        }
    }

    /// Asks the faucet of a devnet for play money.
    ///
    /// # Errors
    ///
    /// When the server is no devnet, or refuses the amount.
    pub async fn faucet(&self, to: TonAddress, amount: NanoTon) -> Result<NanoTon, LedgerError> {
        let body = json!({ "address": to.to_string(), "amount": amount.as_nano().to_string() });
        let answer: FaucetAnswer = self.post("/devnet/faucet", &body).await?;
        answer.balance()
    }

    /// A read: tried again when the server is busy or out of reach.
    async fn read<T: DeserializeOwned>(
        &self,
        method: &'static str,
        parameters: &Value,
    ) -> Result<T, LedgerError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..READ_ATTEMPTS {
            match self.call(method, parameters).await {
                Err(
                    error @ (LedgerError::Unreachable(_)
                    | LedgerError::RateLimited
                    | LedgerError::ServerFailed { status: 500.. }),
                ) => {
                    tracing::debug!(method, %error, "the ledger's server failed; trying again");
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2);
                }
                done => return done,
            }
        }
        self.call(method, parameters).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        parameters: &Value,
    ) -> Result<T, LedgerError> {
        let request =
            json!({ "id": "1", "jsonrpc": "2.0", "method": method, "params": parameters });
        self.post("/api/v2/jsonRPC", &request).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, LedgerError> {
        let url = format!("{}{path}", self.url);
        // `without_url`: the URL may carry a key and would be in the error's text.
        let unreachable =
            |error: reqwest::Error| LedgerError::Unreachable(error.without_url().into());
        let mut response = self.client.post(url).json(body).send().await.map_err(unreachable)?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(LedgerError::RateLimited);
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len().saturating_add(chunk.len()) > ANSWER_BYTES {
                return Err(LedgerError::BadAnswer { field: "body of a reasonable length" });
            }
            bytes.extend_from_slice(&chunk);
        }
        Envelope::open(&bytes, status.as_u16())
    }
}

impl Ledger for Toncenter {
    fn network(&self) -> Network {
        self.network
    }

    fn now(&self) -> LedgerFuture<'_, Timestamp> {
        // Every account's answer carries the ledger's time; the zero address is on every network.
        let zero = TonAddress { workchain: 0, hash: [0; 32] };
        Box::pin(async move { Ok(self.account(zero).await?.as_of) })
    }

    fn account(&self, address: TonAddress) -> LedgerFuture<'_, AccountState> {
        Box::pin(async move {
            let parameters = json!({ "address": friendly(address) });
            let answer: AccountAnswer = self.read("getAddressInformation", &parameters).await?;
            answer.into_state(address)
        })
    }

    fn transactions(
        &self,
        address: TonAddress,
        page: Page,
    ) -> LedgerFuture<'_, Vec<TransactionSummary>> {
        Box::pin(async move {
            // The server's page starts with the named transaction, ours with the one before it.
            let limit = page.limit.saturating_add(u16::from(page.before.is_some())).min(PAGE);
            let mut parameters = json!({ "address": friendly(address), "limit": limit });
            if let (Some(before), Some(fields)) = (page.before, parameters.as_object_mut()) {
                fields.insert("lt".to_owned(), json!(before.lt.to_string()));
                fields.insert("hash".to_owned(), json!(hex::encode(before.hash)));
            }
            let answers: Vec<TransactionAnswer> = self.read("getTransactions", &parameters).await?;
            let found = answers.into_iter().map(TransactionAnswer::into_summary);
            let mut found = found.collect::<Result<Vec<_>, _>>()?;
            if let Some(before) = page.before {
                found.retain(|transaction| transaction.id.lt < before.lt);
            }
            found.truncate(usize::from(page.limit));
            Ok(found)
        })
    }

    fn send(&self, message: Message) -> LedgerFuture<'_, MessageHash> {
        Box::pin(async move {
            // Once, and never again: whether it was taken is for the contract's seqno to say.
            let parameters = json!({ "boc": answers::encode(&message.to_boc()) });
            let _taken: Value = self.call("sendBoc", &parameters).await?;
            Ok(message.hash())
        })
    }
}

fn friendly(address: TonAddress) -> String {
    FriendlyAddress { address, bounceable: true, test_only: false }.to_string()
}
