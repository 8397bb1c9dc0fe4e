//! Endorsements over HTTP, and what a provider in a TEE does again and again: fetch them, and renew
//! its identity before it ends.
//!
//! Owns: the HTTP client for vendors' services, and the two background loops.
//! Must not: judge what was fetched; consumers do.

use std::sync::Arc;
use std::time::Duration;

use cocoon_attest::channel::ChannelIdentity;
use cocoon_attest::collateral::{
    Http, HttpAnswer, HttpError, HttpFuture, Keeper, KeeperError, Refreshed,
};
use cocoon_attest::{Attester as _, Clock, HardwareAttester, HardwareError, RawEvidence};
use cocoon_protocol::attest::{RecordBinding, gpu_digest};
use cocoon_protocol::units::{Millis, Timestamp};

use crate::shutdown::Tasks;

/// A document of a few kilobytes; services under load take seconds.
const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the identity is looked at. It renews itself an hour before its certificate ends.
const IDENTITY_EVERY: Duration = Duration::from_secs(600);

/// The client. It follows no redirects: a document comes from where the settings say, or not at all.
#[derive(Clone, Debug)]
pub(crate) struct Client(reqwest::Client);

impl Client {
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        Self::with_timeout(TIMEOUT)
    }

    fn with_timeout(timeout: Duration) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("cocoon-node/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self(client))
    }

    async fn read(&self, url: &str, limit: usize) -> Result<HttpAnswer, HttpError> {
        let failed = |error: reqwest::Error| {
            if error.is_timeout() {
                return HttpError::TimedOut;
            }
            // The innermost cause is the one that says something: "connection refused".
            let error = error.without_url();
            let mut reason = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                reason = inner.to_string();
                cause = inner.source();
            }
            HttpError::Unreachable { reason }
        };
        let mut response = self.0.get(url).send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let text =
            |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
                Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
            };
        let headers = response.headers().iter().filter_map(text).collect();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len().saturating_add(chunk.len()) > limit {
                return Err(HttpError::TooLong { limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(HttpAnswer { status, headers, body })
    }
}

impl Http for Client {
    fn get<'a>(&'a self, url: &'a str, limit: usize) -> HttpFuture<'a> {
        Box::pin(self.read(url, limit))
    }
}

/// Why the TEE could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The TEE failed.
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    Random,
    /// The blocking thread ended.
    #[error("the look at the TEE was cut off")]
    Cut,
}

/// Asks the TEE for evidence over a fresh record, on a blocking thread.
pub(crate) async fn look(
    attester: &Arc<HardwareAttester>,
    configuration: &[u8; 32],
    now: Timestamp,
) -> Result<RawEvidence, LookError> {
    let record = RecordBinding {
        kind: attester.kind(),
        nonce: &record_nonce()?,
        made_at: now,
        configuration,
        gpu_digest: &gpu_digest(&[]),
    };
    record_evidence(attester, &record).await
}

/// The nonce of a record.
pub(crate) fn record_nonce() -> Result<[u8; 32], LookError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| LookError::Random)?;
    Ok(nonce)
}

/// Asks the TEE for evidence over `record`, on a blocking thread.
pub(crate) async fn record_evidence(
    attester: &Arc<HardwareAttester>,
    record: &RecordBinding<'_>,
) -> Result<RawEvidence, LookError> {
    let (attester, report_data) = (Arc::clone(attester), record.report_data());
    let raw = tokio::task::spawn_blocking(move || attester.raw(&report_data)).await;
    Ok(raw.map_err(|_| LookError::Cut)??)
}

/// What keeps a hardware attester's endorsements fresh.
#[derive(Debug)]
pub(crate) struct Keeping {
    pub(crate) keeper: Keeper,
    pub(crate) attester: Arc<HardwareAttester>,
    pub(crate) configuration: [u8; 32],
    pub(crate) clock: Clock,
    /// Until the first refresh.
    pub(crate) first: Millis,
}

impl Keeping {
    /// Refreshes until the node ends. Each round looks at the TEE again: the host may have brought
    /// the firmware to another level, which has another certificate.
    pub(crate) fn start(mut self, tasks: &Tasks) {
        let stopping = tasks.stopping().clone();
        tasks.spawn_leaf(async move {
            let mut wait = self.first;
            while stopping
                .run_until_cancelled(tokio::time::sleep(wait.to_duration()))
                .await
                .is_some()
            {
                let Some(next) = stopping.run_until_cancelled(self.round()).await else { return };
                wait = next;
            }
        });
    }

    /// One refresh; returns how long to wait.
    async fn round(&mut self) -> Millis {
        let now = self.clock.now();
        let raw = match look(&self.attester, &self.configuration, now).await {
            Ok(raw) => raw,
            Err(error) => {
                tracing::error!(%error, "the TEE makes no evidence; trying again");
                return Millis::from_secs(60);
            }
        };
        match self.keeper.refresh(&raw, now).await {
            Ok(Refreshed { expires, again, .. }) => {
                tracing::info!(until = expires.as_unix_secs(), "endorsements are fresh");
                again
            }
            Err(error) => {
                let wait = self.after(&error);
                let seconds = wait.get() / 1000;
                tracing::warn!(%error, seconds, "endorsements stay as they are; trying again");
                wait
            }
        }
    }

    fn after(&self, error: &KeeperError) -> Millis {
        let mut random = [0; 2];
        // Without randomness providers come back together: no reason to stop.
        let _ = getrandom::fill(&mut random);
        self.keeper.wait(error, u16::from_le_bytes(random))
    }
}

/// Makes the provider's certificate now, and later ones before the earlier end, so that no consumer
/// waits for a quote that could have been made ahead.
pub(crate) fn keep_identity(identity: Arc<ChannelIdentity>, tasks: &Tasks) {
    let stopping = tasks.stopping().clone();
    tasks.spawn_leaf(async move {
        loop {
            match stopping.run_until_cancelled(prepared(&identity)).await {
                None => return,
                Some(()) => {
                    let pause = tokio::time::sleep(IDENTITY_EVERY);
                    if stopping.run_until_cancelled(pause).await.is_none() {
                        return;
                    }
                }
            }
        }
    });
}

async fn prepared(identity: &ChannelIdentity) {
    if let Err(error) = identity.prepare().await {
        tracing::error!(%error, "no certificate for sessions; consumers are turned away");
    }
}

#[cfg(test)]
mod tests;
