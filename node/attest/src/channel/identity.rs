//! A node's identity in sessions: its TLS key, its certificate, its answers to challenges.
//!
//! Owns: the certificate and its renewal, and the rate at which the TEE is asked.
//! Must not: write the TLS key anywhere, or have anything quoted but the two bindings.

use std::fmt;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use cocoon_protocol::attest::{
    AttestRequest, AttestResponse, Evidence, EvidenceKind, GpuEvidence, IdentityBinding,
    IdentityRecord, NetworkId, ReportData, SessionBinding, SessionRole, Tier, gpu_nonces,
};
use cocoon_protocol::identity::{Domain, NodeId, NodeKey};
use cocoon_protocol::limits;
use cocoon_protocol::units::{Millis, Timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::server::ServerConfig;
use rustls::sign::CertifiedKey;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use crate::Clock;
use crate::attester::{ANSWER_TIMEOUT, Attester, QuoteError, Quoted};
use crate::certificate;
use crate::channel::error::ChannelError;
use crate::channel::quota::{QUOTE, QUOTE_WITH_GPUS, QuoteQuota};
use crate::channel::tls;
use crate::gpu::{self, GpuAttester};

/// A certificate is replaced this long before it ends, so that a session opened with it can still
/// be re-attested a few times.
const RENEW_BEFORE: Millis = Millis::from_secs(3600);

/// What a node's session identity is made of.
#[derive(Clone, Debug)]
pub struct IdentityOptions {
    /// The node's key.
    pub key: NodeKey,
    /// Its TEE, or [`crate::OpenAttester`].
    pub attester: Arc<dyn Attester>,
    /// The network that it serves.
    pub network: NetworkId,
    /// SHA-256 of the capabilities in its offer; a changed offer is another identity. Zeros for a
    /// consumer, which offers nothing.
    pub capabilities: [u8; 32],
    /// Digest of its configuration.
    pub configuration: [u8; 32],
    /// SHA-256 of the manifest of what it serves.
    pub model_manifest: Option<[u8; 32]>,
    /// The present.
    pub clock: Clock,
}

/// A node's identity: what a provider shows, and a consumer that a provider demands it of. One
/// serves any number of sessions.
pub struct ChannelIdentity {
    options: IdentityOptions,
    issued: Mutex<Option<Arc<Issued>>>,
    /// Where quotes are made.
    quotes: Desk,
    /// Where GPUs are asked: a desk of their own, so that neither those who wait for seconds nor one
    /// call of a driver that never returns keeps anybody from a quote.
    pub(super) gpus: Desk,
    quota: std::sync::Mutex<QuoteQuota>,
}

/// Quotes that may be wanted at a time. At about 50 ms each the last of them is ready well within
/// the ten seconds that its challenger waits; one more would be made for nobody.
const QUOTE_QUEUE: usize = 128;
/// Those who may wait for evidence of GPUs at a time. Where it takes a second, as many are served within
/// the ten seconds that a challenger waits, and some more where it takes less.
pub(super) const GPU_QUEUE: usize = 16;

/// One thing that is asked on blocking threads: one call at a time, for a queue here is fairer than one
/// in a driver.
pub(super) struct Desk {
    /// Those who wait for their turn or have it.
    pub(super) queue: Arc<Semaphore>,
    /// The one whose turn it is. A call that never returns keeps it.
    turn: Arc<Semaphore>,
}

impl Desk {
    fn new(queue: usize) -> Self {
        Self { queue: Arc::new(Semaphore::new(queue)), turn: Arc::new(Semaphore::new(1)) }
    }
}

/// A certificate in use.
pub(super) struct Issued {
    /// For a provider that serves anybody.
    pub(super) config: Arc<ServerConfig>,
    /// For a provider that demands attested consumers.
    pub(super) demanding: Arc<ServerConfig>,
    /// For a consumer of such a provider.
    pub(super) certified: Arc<CertifiedKey>,
    public_key: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// An answered challenge: the bytes to send, and what they prove.
pub(super) struct Answered {
    pub(super) response: Vec<u8>,
    pub(super) kind: EvidenceKind,
    /// What was asked for, as far as the evidence goes.
    pub(super) tier: Tier,
    /// Any of it is a simulation's.
    pub(super) simulated: bool,
    pub(super) evidence_digest: [u8; 32],
}

#[cfg(all(test, feature = "dev-tee"))]
impl Issued {
    /// SubjectPublicKeyInfo of the certificate, DER.
    pub(super) fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}

impl fmt::Debug for ChannelIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelIdentity")
            .field("peer", &self.options.key.id())
            .field("kind", &self.options.attester.kind())
            .finish_non_exhaustive()
    }
}

impl ChannelIdentity {
    /// An identity; its first certificate is made for its first session.
    pub fn new(options: IdentityOptions) -> Self {
        Self {
            options,
            issued: Mutex::default(),
            quotes: Desk::new(QUOTE_QUEUE),
            gpus: Desk::new(GPU_QUEUE),
            quota: std::sync::Mutex::default(),
        }
    }

    /// Makes the certificate now if there is none, or the present one ends soon, so that no consumer
    /// has to wait for the quote in it.
    ///
    /// # Errors
    /// When the TEE makes no quote; sessions fail for the same reason.
    pub async fn prepare(&self) -> Result<(), ChannelError> {
        self.current().await.map(drop)
    }

    /// As [`Self::current`], for a session whose other end waits as long as for any other step.
    pub(super) async fn current_in_time(&self) -> Result<Arc<Issued>, ChannelError> {
        let current = timeout(limits::ATTEST_TIMEOUT.to_duration(), self.current());
        current.await.map_err(|_| QuoteError::TimedOut)?
    }

    /// The certificate for a new session: the present one, or a new one with a new key.
    pub(super) async fn current(&self) -> Result<Arc<Issued>, ChannelError> {
        let mut issued = self.issued.lock().await;
        let now = self.options.clock.now();
        if let Some(present) = &*issued
            && present.not_before <= now
            && now.after(RENEW_BEFORE) < present.not_after
        {
            return Ok(Arc::clone(present));
        }
        let fresh = Arc::new(self.issue(now).await?);
        *issued = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    async fn issue(&self, now: Timestamp) -> Result<Issued, ChannelError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|_| ChannelError::Certificate)?;
        let public_key = certificate::public_key(&key);
        let (not_before, not_after) = certificate::validity(now);
        let options = &self.options;
        let peer = options.key.id();
        let report_data = IdentityBinding {
            network: &options.network,
            kind: options.attester.kind(),
            peer: &peer,
            public_key: &public_key,
            capabilities: &options.capabilities,
            not_before,
            not_after,
            configuration: &options.configuration,
        }
        .report_data();
        let record = IdentityRecord {
            peer,
            capabilities: options.capabilities,
            configuration: options.configuration,
            evidence: self.quote(report_data, now).await?.evidence,
        };
        let certificate = certificate::issue(&key, &record, not_before, not_after)
            .map_err(|_| ChannelError::Certificate)?;
        let certified = tls::certified(certificate, key.serialize_der())?;
        let config = Arc::new(tls::server_config(&certified, false)?);
        let demanding = Arc::new(tls::server_config(&certified, true)?);
        tracing::info!(
            kind = %options.attester.kind(),
            until = not_after.as_unix_secs(),
            "made a session certificate"
        );
        Ok(Issued { config, demanding, certified, public_key, not_before, not_after })
    }

    /// Answers `peer`'s challenge in the session whose exporter for the request's nonce is
    /// `exporter`, as the end of it that `role` says.
    pub(super) async fn answer(
        &self,
        (role, peer): (SessionRole, NodeId),
        request: &AttestRequest,
        exporter: &[u8; 32],
        issued: &Issued,
    ) -> Result<Answered, QuoteError> {
        let options = &self.options;
        let now = options.clock.now();
        let quotes = request.want > Tier::Open && options.attester.kind() != EvidenceKind::None;
        // Without a TEE that vouches for them, GPUs prove nothing and are not asked.
        let asks_gpus = quotes && request.gpu && options.attester.gpus().is_some();
        let cost = if asks_gpus { QUOTE_WITH_GPUS } else { QUOTE };
        if quotes && !self.take_quota(peer, cost, now) {
            return Err(QuoteError::Quota);
        }
        let gpus = match asks_gpus {
            true => self.ask_gpus(request, exporter).await?,
            false => Vec::new(),
        };
        let report_data = SessionBinding {
            network: &options.network,
            role,
            exporter,
            nonce: &request.nonce,
            public_key: &issued.public_key,
            peer: &options.key.id(),
            gpu_digest: &GpuEvidence::digest(&gpus),
            model_manifest: options.model_manifest.as_ref(),
        }
        .report_data();
        let quoted = match request.want {
            Tier::Open => Quoted { evidence: Evidence::None, endorsements: Bytes::new() },
            Tier::Attested | Tier::Confidential => self.quote(report_data, now).await?,
        };
        let (kind, evidence_digest) = (quoted.evidence.kind(), quoted.evidence.digest());
        let shown = match (kind, gpus.is_empty()) {
            (EvidenceKind::None, _) => Tier::Open,
            (_, true) => Tier::Attested,
            (_, false) => Tier::Confidential,
        };
        let tier = request.want.min(shown);
        let simulated = kind.is_simulated() || gpus.iter().any(|gpu| gpu.kind.is_simulated());
        let response = AttestResponse {
            signature: options.key.sign(Domain::SessionIdentity, report_data.as_bytes()),
            model_manifest: options.model_manifest,
            evidence: quoted.evidence,
            endorsements: quoted.endorsements,
            gpus,
        }
        .to_bytes();
        if response.len() > limits::ATTEST_RESPONSE_BYTES {
            return Err(QuoteError::TooLarge);
        }
        Ok(Answered { response, kind, tier, simulated, evidence_digest })
    }

    fn take_quota(&self, peer: NodeId, cost: u32, now: Timestamp) -> bool {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner).take(peer, cost, now)
    }

    /// Evidence of the GPUs, each asked with its own nonce of this very session.
    async fn ask_gpus(
        &self,
        request: &AttestRequest,
        exporter: &[u8; 32],
    ) -> Result<Vec<GpuEvidence>, QuoteError> {
        let Some(count) = self.options.attester.gpus().map(GpuAttester::count) else {
            return Ok(Vec::new());
        };
        let nonces = gpu_nonces(exporter, &request.nonce, count);
        let work = move |attester: &dyn Attester| {
            attester.gpus().map_or(Ok(Vec::new()), |gpus| gpu::ask(gpus, &nonces))
        };
        self.at(&self.gpus, work).await
    }

    async fn quote(&self, report_data: ReportData, now: Timestamp) -> Result<Quoted, QuoteError> {
        let quoted =
            self.at(&self.quotes, move |attester| attester.quote(&report_data, now)).await?;
        if quoted.evidence.quote().len() > limits::EVIDENCE_BYTES {
            return Err(QuoteError::TooLarge);
        }
        Ok(quoted)
    }

    /// Does `work` on a blocking thread, one at a time, in a queue of bounded length.
    async fn at<T: Send + 'static>(
        &self,
        desk: &Desk,
        work: impl FnOnce(&dyn Attester) -> Result<T, QuoteError> + Send + 'static,
    ) -> Result<T, QuoteError> {
        let attester = Arc::clone(&self.options.attester);
        let place = Arc::clone(&desk.queue).try_acquire_owned().map_err(|_| QuoteError::Busy)?;
        let turn = Arc::clone(&desk.turn).acquire_owned();
        // Whoever has waited as long as a challenger does would be served for nobody.
        let turn = timeout(limits::ATTEST_TIMEOUT.to_duration(), turn).await;
        let turn = turn.map_err(|_| QuoteError::Busy)?.map_err(|_| QuoteError::Unavailable)?;
        let make = move || {
            let made = work(&*attester);
            // Here and not outside: whoever stops waiting does not stop the TEE, and the next
            // quote must not begin beside this one.
            drop((turn, place));
            made
        };
        let made = timeout(ANSWER_TIMEOUT, tokio::task::spawn_blocking(make)).await;
        made.map_err(|_| QuoteError::TimedOut)?.map_err(|_| QuoteError::Unavailable)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::tests::{Slow, consumer};

    fn identity(attester: Arc<dyn Attester>) -> Arc<ChannelIdentity> {
        Arc::new(ChannelIdentity::new(IdentityOptions {
            key: NodeKey::from_secret(&[1; 32]),
            attester,
            network: NetworkId::from_name("test"),
            capabilities: [0; 32],
            configuration: [0; 32],
            model_manifest: None,
            clock: Clock::new(|| Timestamp::from_unix_secs(1_800_000_000)),
        }))
    }

    async fn ask(identity: &ChannelIdentity, issued: &Issued) -> Result<(), QuoteError> {
        let policy = cocoon_protocol::attest::Policy::closed().id();
        let request = AttestRequest { nonce: [1; 32], want: Tier::Attested, gpu: false, policy };
        let asker = (SessionRole::Server, consumer());
        identity.answer(asker, &request, &[2; 32], issued).await.map(|_| ())
    }

    #[tokio::test]
    async fn the_tee_makes_one_quote_at_a_time_also_for_those_who_left() {
        let (tee, mut began, go_on) = Slow::new();
        let identity = identity(Arc::new(tee));
        go_on.send(()).unwrap();
        let issued = identity.current().await.unwrap();
        began.recv().await.unwrap();
        let asking = (Arc::clone(&identity), Arc::clone(&issued));
        let asking = tokio::spawn(async move { ask(&asking.0, &asking.1).await });
        began.recv().await.unwrap();
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        // Nobody waits for the quote, but it is still being made.
        assert_eq!(identity.quotes.turn.available_permits(), 0);
        go_on.send(()).unwrap();
        go_on.send(()).unwrap();
        assert_eq!(ask(&identity, &issued).await, Ok(()));
    }

    #[tokio::test]
    async fn a_crowd_is_told_at_once_that_the_tee_is_busy() {
        let (tee, _began, go_on) = Slow::new();
        let identity = identity(Arc::new(tee));
        go_on.send(()).unwrap();
        let issued = identity.current().await.unwrap();
        let crowd = u32::try_from(QUOTE_QUEUE).unwrap();
        let crowd = Arc::clone(&identity.quotes.queue).try_acquire_many_owned(crowd).unwrap();
        go_on.send(()).unwrap();
        assert_eq!(ask(&identity, &issued).await, Err(QuoteError::Busy));
        drop(crowd);
        assert_eq!(ask(&identity, &issued).await, Ok(()));
    }
}
