//! An answer as one JSON document.
//!
//! Owns: collecting the text, within a bound.
//! Must not: send a part of an answer as if it were the whole.

use axum::Json;
use axum::response::{IntoResponse as _, Response};

use super::{Frame, log_end, log_failure, log_takeover};
use crate::error::ApiError;
use crate::port::{JobEvent, JobStream};

/// Text of a whole answer. `limits::MAX_COMPLETION` tokens of 16 bytes each; a provider that sends
/// more makes up text, and the job ends.
const ANSWER_BYTES: usize = 16_000_000;

/// Waits for the end of the job and answers with all of it.
pub(crate) async fn whole(mut frame: Frame, mut job: JobStream) -> Response {
    let mut text = String::new();
    let error = loop {
        let Some(event) = job.events.recv().await else {
            break ApiError::lost_job();
        };
        frame.provenance.note(&event);
        match event {
            JobEvent::Text { text: more, .. } => {
                if text.len().saturating_add(more.len()) > ANSWER_BYTES {
                    break ApiError::answer_too_long();
                }
                text.push_str(&more);
            }
            JobEvent::TakenOver(_) => log_takeover(&frame),
            JobEvent::Finished { reason, usage, cost, .. } => {
                if let Some(error) = ApiError::of_finish(reason) {
                    break error;
                }
                log_end(&frame, usage, cost);
                let mut response = Json(frame.whole(&text, reason.as_str(), usage)).into_response();
                frame.provenance.write_headers(response.headers_mut());
                return response;
            }
            JobEvent::Failed(error) => break ApiError::of_job(error, frame.endpoint),
        }
    };
    log_failure(&frame, error.code());
    error.after_start(frame.provenance).into_response()
}
