//! An answer as server-sent events.
//!
//! Owns: which chunks are sent in which order, and what ends a stream.
//! Must not: buffer. The job's bounded channel is read only when the connection has room for the
//! next event, so that a client which reads slowly slows the job.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::{Frame, log_end, log_failure, log_takeover};
use crate::error::ApiError;
use crate::port::{JobEvent, JobStream};

/// A comment is sent when nothing else was for this long, for proxies that close silent
/// connections after 30 seconds or more.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What ends a complete stream. One that ends without it is not complete.
const DONE: &str = "[DONE]";
/// Tells nginx and its kind to pass each event on at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Answers with the job's events as they come. `with_usage` adds the chunk with the token counts.
pub(crate) fn stream(frame: Frame, job: JobStream, with_usage: bool) -> Response {
    let provenance = frame.provenance.clone();
    let events = Events::new(frame, job, with_usage);
    let events = futures::stream::unfold(events, |mut events| async move {
        let event = events.next().await?;
        Some((Ok::<Event, Infallible>(event), events))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    provenance.write_headers(headers);
    response
}

/// The events of one answer: at most three wait here, and only at the end.
#[derive(Debug)]
struct Events {
    frame: Frame,
    /// `None` after the end; dropping it cancels the job.
    job: Option<JobStream>,
    with_usage: bool,
    ready: VecDeque<Event>,
}

impl Events {
    fn new(frame: Frame, job: JobStream, with_usage: bool) -> Self {
        let ready = frame.opening(with_usage).map(|chunk| event(&chunk)).into_iter().collect();
        Self { frame, job: Some(job), with_usage, ready }
    }

    /// The next event; `None` when the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let happened = self.job.as_mut()?.events.recv().await;
            self.on(happened);
        }
    }

    /// Makes the events that one event of the job becomes.
    fn on(&mut self, happened: Option<JobEvent>) {
        if let Some(happened) = &happened {
            self.frame.provenance.note(happened);
        }
        match happened {
            // A token that ends within a character brings no text yet.
            Some(JobEvent::Text { text, .. }) if text.is_empty() => {}
            Some(JobEvent::Text { text, .. }) => {
                self.ready.push_back(event(&self.frame.text(&text, self.with_usage)));
            }
            Some(JobEvent::TakenOver(_)) => log_takeover(&self.frame),
            Some(JobEvent::Finished { reason, usage, cost, .. }) => {
                if let Some(error) = ApiError::of_finish(reason) {
                    return self.fail(error);
                }
                self.job = None;
                let closing = self.frame.closing(reason.as_str(), self.with_usage);
                self.ready.push_back(event(&closing));
                if self.with_usage {
                    self.ready.push_back(event(&self.frame.counts(usage)));
                }
                self.ready.push_back(Event::default().data(DONE));
                log_end(&self.frame, usage, cost);
            }
            Some(JobEvent::Failed(error)) => {
                self.fail(ApiError::of_job(error, self.frame.endpoint));
            }
            None => self.fail(ApiError::lost_job()),
        }
    }

    /// Ends the stream with an error and without [`DONE`], so that nobody takes it for complete.
    fn fail(&mut self, error: ApiError) {
        self.job = None;
        log_failure(&self.frame, error.code());
        let error = error.after_start(self.frame.provenance.clone());
        self.ready.push_back(event(&error.body()));
    }
}

/// One event. JSON has no raw line breaks, so each is one `data:` line.
fn event(body: &impl Serialize) -> Event {
    // Plain structs of strings and numbers always serialise; if one ever did not, an empty object
    // tells a client more than a broken connection.
    Event::default().data(serde_json::to_string(body).unwrap_or_else(|_| "{}".to_owned()))
}
