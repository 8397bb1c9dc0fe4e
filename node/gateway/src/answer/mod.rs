//! From a running job to an HTTP answer.
//!
//! Owns: OpenAI's answer objects, whole and in chunks, and what Cocoon adds to them.
//! Must not: hold back text: what has come is sent as fast as the client reads, and no faster.

mod shape;
mod stream;
mod whole;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use cocoon_protocol::job::Usage;
use cocoon_protocol::units::NanoTon;
use serde::Serialize;

use crate::port::{Accepted, JobEvent, model_hash_text};
use crate::request::Endpoint;

pub(crate) use stream::stream;
pub(crate) use whole::whole;

const PROVIDER_HEADER: HeaderName = HeaderName::from_static("x-cocoon-provider");
const TIER_HEADER: HeaderName = HeaderName::from_static("x-cocoon-tier");
const SIMULATED_HEADER: HeaderName = HeaderName::from_static("x-cocoon-simulated");
const JOB_HEADER: HeaderName = HeaderName::from_static("x-cocoon-job");
/// What official clients show as the request's id.
const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Where an answer came from and what it cost: the `cocoon` object of every answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Provenance {
    job: String,
    provider: String,
    tier: &'static str,
    /// True when the tier rests on a test root and protects nothing.
    simulated: bool,
    model: String,
    seed: u64,
    /// Those that had the job before and were lost, in their order; absent when there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost_providers: Vec<String>,
    /// Unknown (null) when the job was lost before its end.
    price_nanoton: Option<u64>,
    receipt: Option<String>,
    vouchers: Option<u32>,
}

impl Provenance {
    /// What is known at the start.
    fn of(accepted: &Accepted, seed: u64) -> Self {
        Self {
            job: accepted.job.to_string(),
            provider: accepted.provider.to_string(),
            tier: accepted.tier.as_str(),
            simulated: accepted.simulated,
            model: model_hash_text(accepted.model),
            seed,
            lost_providers: Vec::new(),
            price_nanoton: None,
            receipt: None,
            vouchers: None,
        }
    }

    /// Adds what an event brings.
    fn note(&mut self, event: &JobEvent) {
        match event {
            JobEvent::TakenOver(accepted) => {
                let next = Self::of(accepted, self.seed);
                let lost = std::mem::replace(self, next);
                self.lost_providers = lost.lost_providers;
                self.lost_providers.push(lost.provider);
            }
            JobEvent::Finished { cost, receipt, vouchers, .. } => {
                self.price_nanoton = Some(NanoTon::as_nano(*cost));
                self.receipt = receipt.map(|receipt| receipt.to_string());
                self.vouchers = Some(*vouchers);
            }
            JobEvent::Text { .. } | JobEvent::Failed(_) => {}
        }
    }

    /// The headers that say the same as far as it is known at the start.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(TIER_HEADER, HeaderValue::from_static(self.tier));
        let simulated = if self.simulated { "true" } else { "false" };
        headers.insert(SIMULATED_HEADER, HeaderValue::from_static(simulated));
        let texts = [
            (PROVIDER_HEADER, &self.provider),
            (JOB_HEADER, &self.job),
            (REQUEST_ID_HEADER, &self.job),
        ];
        for (name, text) in texts {
            // Hexadecimal digits always make a header value.
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
    }
}

/// What every part of one answer repeats.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    endpoint: Endpoint,
    /// OpenAI's id of the answer; the job's id with the prefix that clients expect.
    id: String,
    /// The model as the client named it.
    model: String,
    /// Seconds since the Unix epoch.
    created: u64,
    provenance: Provenance,
}

impl Frame {
    pub(crate) fn new(
        endpoint: Endpoint,
        model: String,
        seed: u64,
        created: u64,
        accepted: &Accepted,
    ) -> Self {
        let prefix = match endpoint {
            Endpoint::Chat => "chatcmpl-",
            Endpoint::Completion => "cmpl-",
        };
        let provenance = Provenance::of(accepted, seed);
        Self { endpoint, id: format!("{prefix}{}", accepted.job), model, created, provenance }
    }
}

/// Says in the log that a job ended; never a word of it.
fn log_end(frame: &Frame, usage: Usage, cost: NanoTon) {
    tracing::info!(
        job = %frame.provenance.job,
        provider = %frame.provenance.provider,
        tier = frame.provenance.tier,
        simulated = frame.provenance.simulated,
        prompt_tokens = usage.prompt.get(),
        completion_tokens = usage.completion.get(),
        cost_nanoton = cost.as_nano(),
        "answered"
    );
}

/// Says in the log that another provider has the job now.
fn log_takeover(frame: &Frame) {
    tracing::info!(
        job = %frame.provenance.job,
        provider = %frame.provenance.provider,
        lost = frame.provenance.lost_providers.len(),
        "a provider was lost; another one goes on with the answer"
    );
}

/// Says in the log that a job failed, by the code that the client got.
fn log_failure(frame: &Frame, code: &'static str) {
    tracing::warn!(
        job = %frame.provenance.job,
        provider = %frame.provenance.provider,
        code,
        "the answer could not be completed"
    );
}
