//! Errors in OpenAI's shape, and which status each of ours has.
//!
//! Owns: status, type, code and parameter of every refusal, and whether a client should retry.
//! Must not: say more about a request than the client itself sent.
//!
//! Official clients retry 408, 409, 429 and every 5xx twice, unless `x-should-retry` says no. So
//! that header is always set: true when nothing was paid and another attempt may succeed.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cocoon_protocol::job::{FinishReason, JobError, ProviderRefusal};
use cocoon_protocol::units::Millis;
use serde::Serialize;

use crate::answer::Provenance;
use crate::fields::FieldError;
use crate::request::Endpoint;

/// Millisecond precision for official clients, beside the standard header in seconds.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Longest wait that is suggested; official clients ignore more than a minute.
const RETRY_AFTER_MAX: Millis = Millis::from_secs(60);

/// OpenAI's `type` of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Kind {
    #[serde(rename = "invalid_request_error")]
    InvalidRequest,
    #[serde(rename = "authentication_error")]
    Authentication,
    #[serde(rename = "permission_error")]
    Permission,
    #[serde(rename = "insufficient_quota")]
    InsufficientQuota,
    #[serde(rename = "rate_limit_error")]
    RateLimit,
    #[serde(rename = "server_error")]
    Server,
}

/// One error as a client sees it.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: Kind,
    code: &'static str,
    param: Option<String>,
    message: String,
    /// When to try again; `None` says not to.
    retry_after: Option<Millis>,
    /// Which job failed and what it had cost, once one had begun.
    provenance: Option<Box<Provenance>>,
}

/// The body of every error.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cocoon: Option<&'a Provenance>,
}

#[derive(Debug, Serialize)]
struct ErrorDetail<'a> {
    message: &'a str,
    r#type: Kind,
    param: Option<&'a str>,
    code: &'static str,
}

impl ApiError {
    pub(crate) fn new(
        status: StatusCode,
        kind: Kind,
        code: &'static str,
        message: impl ToString,
    ) -> Self {
        let message = message.to_string();
        Self { status, kind, code, param: None, message, retry_after: None, provenance: None }
    }

    fn param(self, param: &str) -> Self {
        Self { param: Some(param.to_owned()), ..self }
    }

    fn retry_after(self, after: Millis) -> Self {
        Self { retry_after: Some(after.min(RETRY_AFTER_MAX)), ..self }
    }

    /// The same error for a job that had begun: something may have been paid, so that a client
    /// must not repeat it by itself.
    pub(crate) fn after_start(self, provenance: Provenance) -> Self {
        Self { retry_after: None, provenance: Some(Box::new(provenance)), ..self }
    }

    /// What is sent, as a whole body or as the last event of a stream.
    pub(crate) fn body(&self) -> ErrorBody<'_> {
        let error = ErrorDetail {
            message: &self.message,
            r#type: self.kind,
            param: self.param.as_deref(),
            code: self.code,
        };
        ErrorBody { error, cocoon: self.provenance.as_deref() }
    }

    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn unauthorised() -> Self {
        let message = "this node wants its API key: send `Authorization: Bearer <key>`";
        Self::new(StatusCode::UNAUTHORIZED, Kind::Authentication, "invalid_api_key", message)
    }

    pub(crate) fn strange_host() -> Self {
        let message = "without an API key this node answers only to `localhost` and addresses, so \
                       that no web page can spend your money under a name of its own; set an API \
                       key or allow the host in the configuration";
        Self::new(StatusCode::FORBIDDEN, Kind::Permission, "host_not_allowed", message)
    }

    pub(crate) fn unknown_path(path: &str) -> Self {
        let message = format!(
            "{path} is not served; this node has POST /v1/chat/completions, POST /v1/completions, \
             GET /v1/models and GET /health"
        );
        Self::new(StatusCode::NOT_FOUND, Kind::InvalidRequest, "unknown_url", message)
    }

    pub(crate) fn wrong_method(method: &str) -> Self {
        let message = format!(
            "{} is not allowed here; see the `Allow` header",
            crate::fields::quoted(method)
        );
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, Kind::InvalidRequest, "method_not_allowed", message)
    }

    pub(crate) fn unknown_model(name: &str) -> Self {
        Self::from(JobError::UnknownModel { name: crate::fields::quoted(name) })
    }

    pub(crate) fn no_randomness() -> Self {
        let message = "the operating system gave no random bytes; send a `seed`";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Server, "no_randomness", message)
    }

    /// The node dropped a job without an end: a defect of this node, not of the client.
    pub(crate) fn lost_job() -> Self {
        let message = "this node lost the job; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Server, "job_lost", message)
    }

    pub(crate) fn answer_too_long() -> Self {
        let message = "the provider sent far more text than its tokens can hold; the job was ended";
        Self::new(StatusCode::BAD_GATEWAY, Kind::Server, "provider_misbehaved", message)
    }

    /// `None` for the endings that OpenAI has words for.
    pub(crate) fn of_finish(reason: FinishReason) -> Option<Self> {
        let error = |status, code, message: &str| Self::new(status, Kind::Server, code, message);
        match reason {
            FinishReason::Stop | FinishReason::Length => None,
            FinishReason::Cancelled => Some(error(
                StatusCode::SERVICE_UNAVAILABLE,
                "job_cancelled",
                "the job was cancelled on this node before the answer was complete",
            )),
            FinishReason::Unpaid => Some(error(
                StatusCode::PAYMENT_REQUIRED,
                "job_unpaid",
                "the provider stopped because no payment reached it; see `cocoon-node wallet`",
            )),
            FinishReason::Failed => Some(error(
                StatusCode::BAD_GATEWAY,
                "engine_failed",
                "the provider's engine failed in the middle of the answer; send the request again",
            )),
            FinishReason::Draining => Some(error(
                StatusCode::SERVICE_UNAVAILABLE,
                "provider_draining",
                "the provider shut down in the middle of the answer; send the request again",
            )),
        }
    }

    /// `refusal` as the answer to a request to `endpoint`, whose prompt field it may concern.
    pub(crate) fn of_job(error: JobError, endpoint: Endpoint) -> Self {
        let concerns_prompt = matches!(
            error,
            JobError::Refused(
                ProviderRefusal::ContextExceeded { .. } | ProviderRefusal::BadRequest { .. }
            )
        );
        let error = Self::from(error);
        if concerns_prompt { error.param(endpoint.prompt_field()) } else { error }
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        let (status, kind) = (StatusCode::BAD_REQUEST, Kind::InvalidRequest);
        let refusal = Self::new(status, kind, error.code(), &error);
        match error.param() {
            Some(param) => refusal.param(param),
            None => refusal,
        }
    }
}

/// How long a client should wait when another moment may bring another provider.
const SOON: Millis = Millis::from_secs(2);
/// How long when something on this node has to recover first.
const LATER: Millis = Millis::from_secs(5);

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        let message = error.to_string();
        let with = |status, kind, code| Self::new(status, kind, code, &message);
        let unavailable = |code| with(StatusCode::SERVICE_UNAVAILABLE, Kind::Server, code);
        let broken = |code| with(StatusCode::BAD_GATEWAY, Kind::Server, code);
        match error {
            JobError::UnknownModel { .. } => {
                with(StatusCode::NOT_FOUND, Kind::InvalidRequest, "model_not_found").param("model")
            }
            JobError::NoProvider { .. } => unavailable("no_provider").retry_after(LATER),
            JobError::PriceTooHigh { .. } => {
                with(StatusCode::PAYMENT_REQUIRED, Kind::InvalidRequest, "price_too_high")
                    .param("cocoon.max_cost")
            }
            JobError::PriceAboveCap { .. } => {
                with(StatusCode::PAYMENT_REQUIRED, Kind::InvalidRequest, "price_above_cap")
            }
            JobError::SpendingCap { retry_after: Some(after), .. } => {
                with(StatusCode::TOO_MANY_REQUESTS, Kind::RateLimit, "spending_cap_reserved")
                    .retry_after(after)
            }
            JobError::SpendingCap { retry_after: None, .. } => {
                with(StatusCode::TOO_MANY_REQUESTS, Kind::InsufficientQuota, "spending_cap_reached")
            }
            JobError::TierNotAvailable { .. } => {
                with(StatusCode::FORBIDDEN, Kind::Permission, "tier_not_available")
                    .param("cocoon.tier")
            }
            JobError::PolicyForbidsTier { .. } => {
                with(StatusCode::FORBIDDEN, Kind::Permission, "policy_forbids_tier")
                    .param("cocoon.tier")
            }
            JobError::AttestationRefused { .. } => {
                with(StatusCode::FORBIDDEN, Kind::Permission, "attestation_refused")
            }
            JobError::FundsExhausted { .. } => {
                with(StatusCode::PAYMENT_REQUIRED, Kind::InsufficientQuota, "insufficient_funds")
            }
            JobError::LedgerUnavailable { .. } => {
                unavailable("ledger_unavailable").retry_after(LATER)
            }
            JobError::Refused(refusal) => Self::of_refusal(&refusal, &message),
            JobError::Unreachable { .. } => unavailable("provider_unreachable").retry_after(SOON),
            JobError::ProviderLost { .. } => broken("provider_lost"),
            JobError::ProviderMisbehaved { .. } => broken("provider_misbehaved"),
            JobError::TooManyJobs => {
                with(StatusCode::TOO_MANY_REQUESTS, Kind::RateLimit, "too_many_jobs")
                    .retry_after(SOON)
            }
            JobError::ShuttingDown => unavailable("shutting_down").retry_after(LATER),
        }
    }
}

impl ApiError {
    fn of_refusal(refusal: &ProviderRefusal, message: &str) -> Self {
        let with = |status, kind, code| Self::new(status, kind, code, message);
        let unavailable = |code| with(StatusCode::SERVICE_UNAVAILABLE, Kind::Server, code);
        let bad = |code| with(StatusCode::BAD_REQUEST, Kind::InvalidRequest, code);
        match refusal {
            ProviderRefusal::Busy { retry_after } => {
                with(StatusCode::TOO_MANY_REQUESTS, Kind::RateLimit, "provider_busy")
                    .retry_after(*retry_after)
            }
            // The offer was wrong or old; the book will have learnt it by the next attempt.
            ProviderRefusal::UnknownModel => unavailable("no_provider").retry_after(SOON),
            ProviderRefusal::ContextExceeded { .. } => bad("context_length_exceeded"),
            ProviderRefusal::BadRequest { .. } => bad("provider_refused_request"),
            ProviderRefusal::NoHeadroom { .. } => {
                unavailable("channel_exhausted").retry_after(LATER)
            }
            ProviderRefusal::StaleOffer => unavailable("offer_changed").retry_after(SOON),
            ProviderRefusal::Draining => unavailable("provider_draining").retry_after(SOON),
            ProviderRefusal::EngineFailed => {
                with(StatusCode::BAD_GATEWAY, Kind::Server, "engine_failed").retry_after(SOON)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        let retry = if self.retry_after.is_some() { "true" } else { "false" };
        headers.insert(SHOULD_RETRY, HeaderValue::from_static(retry));
        if let Some(after) = self.retry_after {
            let seconds = after.get().div_ceil(1000);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(after.get()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(provenance) = &self.provenance {
            provenance.write_headers(headers);
        }
        response
    }
}
