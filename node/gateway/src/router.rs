//! Which path does what.
//!
//! Owns: the routes, the door in front of them, models and health.
//! Must not: read a field of a job's request; `request` does.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;

use crate::access::{ApiKey, caller, is_authorised, is_own_host};
use crate::answer::{self, Frame};
use crate::error::ApiError;
use crate::port::{Jobs, ModelListing, model_hash_text};
use crate::request::{self, Asked, Delivery, Endpoint};
use crate::{body, fields};

/// What the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) jobs: Arc<dyn Jobs>,
    pub(crate) keys: Arc<[ApiKey]>,
    pub(crate) allowed_hosts: Arc<[String]>,
    pub(crate) body_allowance: Duration,
}

/// Random seeds stay below 2⁵³, so that every JSON reader gives them back exactly.
const RANDOM_SEED_MASK: u64 = (1 << 53) - 1;

/// The whole interface.
pub(crate) fn router(gateway: Gateway) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/health", get(health))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(gateway.clone(), door))
        .with_state(gateway)
}

/// Lets a request pass to its handler, or refuses it before its body is read.
async fn door(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if gateway.keys.is_empty() && !is_own_host(headers, &gateway.allowed_hosts) {
        return ApiError::strange_host().into_response();
    }
    // Health is for load balancers and scripts that hold no key; it tells strangers one word.
    if request.uri().path() != "/health" && !is_authorised(headers, &gateway.keys) {
        return ApiError::unauthorised().into_response();
    }
    next.run(request).await
}

async fn chat(State(gateway): State<Gateway>, headers: HeaderMap, body: Body) -> Response {
    run(&gateway, Endpoint::Chat, &headers, body).await.unwrap_or_else(|e| e.into_response())
}

async fn completion(State(gateway): State<Gateway>, headers: HeaderMap, body: Body) -> Response {
    run(&gateway, Endpoint::Completion, &headers, body).await.unwrap_or_else(|e| e.into_response())
}

/// Runs one job. When the client goes away, the connection drops this future or the answer's body,
/// and with it the job.
async fn run(
    gateway: &Gateway,
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(headers, body, gateway.body_allowance).await?;
    let random_seed = getrandom::u64().map_err(|_| ApiError::no_randomness())? & RANDOM_SEED_MASK;
    let Asked { mut request, delivery, .. } = request::read(endpoint, &body, headers, random_seed)?;
    request.caller = caller(headers, &gateway.keys);
    drop(body);
    let (model, seed) = (request.model.clone(), request.sampling.seed);
    let job = gateway.jobs.submit(request).await.map_err(|error| {
        let error = ApiError::of_job(error, endpoint);
        tracing::info!(code = error.code(), "a request was refused");
        error
    })?;
    let frame = Frame::new(endpoint, model, seed, unix_seconds(), &job.accepted);
    Ok(match delivery {
        Delivery::Whole => answer::whole(frame, job).await,
        Delivery::Stream { usage } => answer::stream(frame, job, usage),
    })
}

/// For `created`, which people read and nothing depends on.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[derive(Debug, Serialize)]
struct ModelList {
    object: &'static str,
    data: Vec<ModelObject>,
}

/// OpenAI's model object and what one has to know before choosing.
#[derive(Debug, Serialize)]
struct ModelObject {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    cocoon: ModelOffers,
}

#[derive(Debug, Serialize)]
struct ModelOffers {
    hash: String,
    offers: u32,
    tiers: Vec<&'static str>,
    context_tokens: Option<u32>,
    prompt_nanoton_per_million_tokens: Option<u64>,
    completion_nanoton_per_million_tokens: Option<u64>,
}

impl From<ModelListing> for ModelObject {
    fn from(model: ModelListing) -> Self {
        let cocoon = ModelOffers {
            hash: model_hash_text(model.hash),
            offers: model.offers,
            tiers: model.tiers.iter().map(|tier| tier.as_str()).collect(),
            context_tokens: model.context.map(|context| context.get()),
            prompt_nanoton_per_million_tokens: model.cheapest.map(|p| p.prompt.as_nano()),
            completion_nanoton_per_million_tokens: model.cheapest.map(|p| p.completion.as_nano()),
        };
        // A hash has no date of birth and no owner; clients want both fields.
        Self { id: model.id(), object: "model", created: 0, owned_by: "cocoon", cocoon }
    }
}

async fn models(State(gateway): State<Gateway>) -> Json<ModelList> {
    let data = gateway.jobs.models().await.into_iter().map(ModelObject::from).collect();
    Json(ModelList { object: "list", data })
}

async fn model(
    State(gateway): State<Gateway>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelObject>, ApiError> {
    // What is not UTF-8 once decoded is no model's name.
    let Path(id) = id.map_err(|_| ApiError::unknown_model(""))?;
    let mut models = gateway.jobs.models().await.into_iter();
    let found = models.find(|model| model.id() == id || model_hash_text(model.hash) == id);
    found.map(|model| Json(model.into())).ok_or_else(|| ApiError::unknown_model(&id))
}

#[derive(Debug, Serialize)]
struct HealthObject {
    status: &'static str,
    #[serde(flatten)]
    detail: Option<HealthDetail>,
}

/// Only for those who may call at all.
#[derive(Debug, Serialize)]
struct HealthDetail {
    problem: Option<String>,
    node: String,
    peers: u32,
    offers: u32,
    jobs: u32,
}

async fn health(State(gateway): State<Gateway>, headers: HeaderMap) -> Response {
    let health = gateway.jobs.health().await;
    let (code, status) = match health.problem {
        None => (StatusCode::OK, "ok"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let detail = is_authorised(&headers, &gateway.keys).then(|| HealthDetail {
        problem: health.problem,
        node: health.node.to_string(),
        peers: health.peers,
        offers: health.offers,
        jobs: health.jobs,
    });
    (code, Json(HealthObject { status, detail })).into_response()
}

async fn unknown_path(method: Method, uri: Uri) -> ApiError {
    let path = fields::quoted(uri.path());
    ApiError::unknown_path(&format!("{} {path}", fields::quoted(method.as_str())))
}

async fn wrong_method(method: Method) -> ApiError {
    ApiError::wrong_method(method.as_str())
}
