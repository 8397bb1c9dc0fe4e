//! The one thing that fetching asks of a network: a bounded GET.
//!
//! Owns: the port, and what a status means. Must not: know reqwest; the node brings a client.

use std::future::Future;
use std::pin::Pin;

use cocoon_protocol::units::Millis;

use super::{Document, FetchError};

/// Seconds that a service may ask to be left alone for; more is not believed.
const RETRY_AFTER_SECONDS: u64 = 6 * 3600;

/// An answer, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpAnswer {
    /// HTTP status.
    pub status: u16,
    /// Headers, as sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// A header by its name in any case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Nobody answers, or the connection broke.
    #[error("the service cannot be reached ({reason})")]
    Unreachable {
        /// In the client's words, without the URL.
        reason: String,
    },
    /// The answer did not come in time.
    #[error("the service did not answer in time")]
    TimedOut,
    /// The body is longer than any document.
    #[error("the service's answer is longer than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: usize,
    },
}

/// What [`Http::get`] returns.
pub type HttpFuture<'a> = Pin<Box<dyn Future<Output = Result<HttpAnswer, HttpError>> + Send + 'a>>;

/// A client: GET without redirects, within a deadline of its own.
pub trait Http: Send + Sync + std::fmt::Debug {
    /// Gets `url`, reading at most `limit` bytes of body.
    fn get<'a>(&'a self, url: &'a str, limit: usize) -> HttpFuture<'a>;
}

/// Gets one document; anything but 200 is an error.
pub(super) async fn get(
    http: &dyn Http,
    document: Document,
    url: &str,
    limit: usize,
) -> Result<HttpAnswer, FetchError> {
    let answer = http.get(url, limit).await;
    let answer = answer.map_err(|source| FetchError::Http { document, source })?;
    if answer.body.len() > limit {
        let source = HttpError::TooLong { limit };
        return Err(FetchError::Http { document, source });
    }
    match answer.status {
        200 => Ok(answer),
        404 => Err(FetchError::Unknown { document }),
        429 => {
            let seconds = answer.header("retry-after").and_then(|text| text.trim().parse().ok());
            let wait = |seconds: u64| Millis::from_secs(seconds.min(RETRY_AFTER_SECONDS));
            Err(FetchError::RateLimited { document, retry_after: seconds.map(wait) })
        }
        status => Err(FetchError::Status { document, status }),
    }
}
