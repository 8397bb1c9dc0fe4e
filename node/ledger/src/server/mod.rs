//! The embedded ledger over HTTP, as toncenter v2 speaks: `GET` and `POST /api/v2/{method}`,
//! JSON-RPC at `/api/v2/jsonRPC`, and the devnet's own: `POST /devnet/faucet`, `/devnet/advance`.
//!
//! Owns: routes, limits, and what an error looks like outside.
//! Must not: execute anything itself, or show what failed inside (that goes to the log).

pub mod adnl;
mod methods;
mod parameters;
mod shapes;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use self::parameters::Parameters;
use crate::embedded::EmbeddedLedger;
use crate::port::LedgerError;

/// A request's body: the largest message, 65,535 bytes, is 87,380 characters of base64; the rest
/// is room for JSON. A larger body is refused with 413.
const BODY_BYTES: usize = 131_072;
/// Requests that are worked on at a time; each may run a virtual machine or wait for the disk.
/// More are refused with 429 and come again.
const REQUESTS: usize = 64;

#[derive(Clone, Debug)]
struct Shared {
    ledger: EmbeddedLedger,
    requests: Arc<Semaphore>,
}

/// The routes that show `ledger` to other nodes. The owner binds and serves them.
pub fn router(ledger: EmbeddedLedger) -> Router {
    let shared = Shared { ledger, requests: Arc::new(Semaphore::new(REQUESTS)) };
    Router::new()
        .route("/api/v2/jsonRPC", post(json_rpc))
        .route("/api/v2/{method}", get(by_query).post(by_body))
        .route("/devnet/faucet", post(faucet))
        .route("/devnet/advance", post(advance))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(shared)
}

/// Serves `ledger` on `listener` until `stop` is cancelled; requests under way are answered.
///
/// # Errors
///
/// When the listener fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    ledger: EmbeddedLedger,
    stop: tokio_util::sync::CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(ledger)).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Why a request got no result. `Display` is what the client reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("there is no method `{0}`")]
    NoSuchMethod(String),
    #[error("the parameter `{0}` is missing")]
    Missing(&'static str),
    #[error("the parameter `{0}` cannot be read")]
    Unreadable(&'static str),
    #[error("the body is not the JSON object that the method needs")]
    NotJson,
    #[error("the body is larger than {BODY_BYTES} bytes")]
    TooLarge,
    #[error("too many requests at a time; try again")]
    Busy,
    // The wording of the C++ liteserver, which clients look into for the exit code.
    #[error(
        "LITE_SERVER_UNKNOWN: cannot apply external message to current state : External message \
         was not accepted\nCannot run message on account: inbound external message rejected by \
         transaction:\nexitcode={exit_code}, steps=0, gas_used=0\n"
    )]
    NotAccepted { exit_code: i32 },
    #[error("the ledger cannot do it: {0}")]
    Refused(LedgerError),
    #[error("the ledger failed; its operator's log says why")]
    Failed,
}

impl From<LedgerError> for RequestError {
    fn from(error: LedgerError) -> Self {
        match error {
            // Exit code −1 stands for "none", as in the liteserver's text.
            LedgerError::NotAccepted { exit_code } => {
                Self::NotAccepted { exit_code: exit_code.unwrap_or(-1) }
            }
            LedgerError::Full | LedgerError::RateLimited => Self::Busy,
            LedgerError::InvalidMessage(_) | LedgerError::FaucetEmpty => Self::Refused(error),
            LedgerError::Unreachable(_)
            | LedgerError::ServerFailed { .. }
            | LedgerError::BadAnswer { .. }
            | LedgerError::NoAgreement { .. }
            | LedgerError::OutOfDate { .. }
            | LedgerError::LiteserverRefused { .. }
            | LedgerError::OtherNetwork { .. }
            | LedgerError::NoFaucet
            | LedgerError::Storage(_)
            | LedgerError::Damaged { .. }
            | LedgerError::Execution(_)
            | LedgerError::Stopped => {
                tracing::error!(error = &error as &dyn std::error::Error, "ledger request failed");
                Self::Failed
            }
        }
    }
}

impl RequestError {
    const fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchMethod(_) => StatusCode::NOT_FOUND,
            Self::Missing(_) | Self::Unreadable(_) | Self::NotJson | Self::Refused(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::NotAccepted { .. } | Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What goes around a result or an error: toncenter's envelope, with JSON-RPC's fields if asked.
fn envelope(result: Result<Value, RequestError>, id: Option<Value>) -> Response {
    let (status, mut body) = match result {
        Ok(result) => (StatusCode::OK, json!({ "ok": true, "result": result })),
        Err(error) => {
            let status = error.status();
            let body = json!({ "ok": false, "error": error.to_string(), "code": status.as_u16() });
            (status, body)
        }
    };
    if let (Some(id), Some(fields)) = (id, body.as_object_mut()) {
        fields.insert("jsonrpc".to_owned(), json!("2.0"));
        fields.insert("id".to_owned(), id);
    }
    (status, Json(body)).into_response()
}

async fn call(
    shared: &Shared,
    method: &str,
    parameters: Parameters,
) -> Result<Value, RequestError> {
    let _permit = shared.requests.try_acquire().map_err(|_| RequestError::Busy)?;
    methods::call(&shared.ledger, method, &parameters).await
}

async fn by_query(
    State(shared): State<Shared>,
    Path(method): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let parameters = Parameters::from_query(query.as_deref().unwrap_or_default());
    envelope(call(&shared, &method, parameters).await, None)
}

async fn by_body(
    State(shared): State<Shared>,
    Path(method): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let result = async {
        let parameters = Parameters::from_object(read_object(body)?);
        call(&shared, &method, parameters).await
    };
    envelope(result.await, None)
}

async fn json_rpc(State(shared): State<Shared>, body: Result<Bytes, BytesRejection>) -> Response {
    let mut id = Value::Null;
    let result = async {
        let mut request = read_object(body)?;
        id = request.remove("id").filter(|id| id.is_string() || id.is_number()).unwrap_or_default();
        let Some(Value::String(method)) = request.remove("method") else {
            return Err(RequestError::Missing("method"));
        };
        let parameters = match request.remove("params") {
            Some(Value::Object(parameters)) => Parameters::from_object(parameters),
            None | Some(Value::Null) => Parameters::from_object(Map::new()),
            Some(_) => return Err(RequestError::Unreadable("params")),
        };
        call(&shared, &method, parameters).await
    };
    let result = result.await;
    envelope(result, Some(id))
}

async fn faucet(State(shared): State<Shared>, body: Result<Bytes, BytesRejection>) -> Response {
    let result = async {
        let parameters = Parameters::from_object(read_object(body)?);
        let _permit = shared.requests.try_acquire().map_err(|_| RequestError::Busy)?;
        methods::faucet(&shared.ledger, &parameters).await
    };
    envelope(result.await, None)
}

async fn advance(State(shared): State<Shared>, body: Result<Bytes, BytesRejection>) -> Response {
    let result = async {
        let parameters = Parameters::from_object(read_object(body)?);
        let _permit = shared.requests.try_acquire().map_err(|_| RequestError::Busy)?;
        methods::advance(&shared.ledger, &parameters).await
    };
    envelope(result.await, None)
}

fn read_object(body: Result<Bytes, BytesRejection>) -> Result<Map<String, Value>, RequestError> {
    let body = body.map_err(|_| RequestError::TooLarge)?;
    serde_json::from_slice(&body).map_err(|_| RequestError::NotJson)
}
