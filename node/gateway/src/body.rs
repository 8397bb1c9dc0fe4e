//! A request's body: only JSON, only so large, only so slow.
//!
//! Owns: the bounds of a body and the answers when one is broken.
//! Must not: look into the JSON.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::BytesMut;
use futures::StreamExt as _;

use crate::error::{ApiError, Kind};

/// Largest body. A prompt of `limits::PROMPT_BYTES` (1 MiB) fits with half of it escaped.
pub(crate) const BODY_BYTES: usize = 2 * 1024 * 1024;
/// How much of a body that is too large is read and thrown away, so that the client has finished
/// sending and reads the answer instead of a reset connection.
const DISCARDED_BYTES: usize = 4 * BODY_BYTES;

/// Reads the body of a JSON request within `allowance`.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    allowance: Duration,
) -> Result<BytesMut, ApiError> {
    // A page of another origin can make a browser send any body except this content type without
    // asking first. Demanding it keeps strangers' pages from spending money through localhost.
    if !is_json(headers) {
        let message = "send the body with `Content-Type: application/json`";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(ApiError::new(status, Kind::InvalidRequest, "unsupported_media_type", message));
    }
    tokio::time::timeout(allowance, collect(body)).await.unwrap_or_else(|_| {
        let message = "the body came too slowly; send it again over a better connection";
        let status = StatusCode::REQUEST_TIMEOUT;
        Err(ApiError::new(status, Kind::InvalidRequest, "request_timeout", message))
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

async fn collect(body: Body) -> Result<BytesMut, ApiError> {
    let mut stream = body.into_data_stream();
    let mut collected = BytesMut::new();
    let mut total = 0_usize;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| {
            let message = "the body ended too early";
            let status = StatusCode::BAD_REQUEST;
            ApiError::new(status, Kind::InvalidRequest, "incomplete_body", message)
        })?;
        total = total.saturating_add(piece.len());
        if total > DISCARDED_BYTES {
            break;
        }
        if total <= BODY_BYTES {
            collected.extend_from_slice(&piece);
        } else {
            collected = BytesMut::new();
        }
    }
    if total > BODY_BYTES {
        let message = format!("the body may have {BODY_BYTES} bytes at most; shorten the prompt");
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return Err(ApiError::new(status, Kind::InvalidRequest, "body_too_large", message));
    }
    Ok(collected)
}
