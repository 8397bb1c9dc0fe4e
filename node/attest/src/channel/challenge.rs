//! The challenging side of attestation: what it asks, and how it judges the answer.
//!
//! Owns: the whole decision about a session, from the answer's bytes to the verdict.
//! Must not: send or receive; the same code judges providers and consumers, the first answer and
//! every later one.

use std::sync::Arc;

use bytes::Bytes;
use cocoon_protocol::attest::{
    AttestRequest, AttestResponse, Evidence, GpuAppraisal, GpuEvidence, IdentityBinding,
    NONCE_BYTES, NetworkId, REPORT_DATA_BYTES, Refusal, SessionBinding, SessionRole, Tier, Verdict,
    tier_with_gpus,
};
use cocoon_protocol::identity::{Domain, NodeId};
use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;

use crate::Clock;
use crate::appraiser::{Appraiser, Judged};
use crate::certificate::SessionCertificate;
use crate::channel::error::ChannelError;

/// Everything that a session's evidence is held against.
#[derive(Debug)]
pub(super) struct Challenger {
    /// Who attests: the dialled provider, or the consumer that the layer below authenticated.
    pub(super) peer: NodeId,
    /// Which end of the session that is.
    pub(super) role: SessionRole,
    pub(super) network: NetworkId,
    pub(super) appraiser: Arc<Appraiser>,
    /// The lowest tier that will do, as the policy demands it; also the one that the session is of.
    pub(super) want: Tier,
    pub(super) capabilities: Option<[u8; 32]>,
    pub(super) clock: Clock,
    pub(super) certificate: SessionCertificate,
}

impl Challenger {
    /// A refusal in the words of this end.
    pub(super) fn refused(&self, refusal: Refusal) -> ChannelError {
        match self.role {
            SessionRole::Server => ChannelError::Refused(refusal),
            SessionRole::Client => ChannelError::ConsumerRefused(refusal),
        }
    }

    /// A request with a fresh nonce; `None` when the operating system has no randomness to give.
    pub(super) fn request(&self) -> Option<AttestRequest> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).ok()?;
        Some(AttestRequest {
            nonce,
            want: self.want,
            gpu: self.wants_gpus(),
            policy: self.appraiser.policy().id(),
        })
    }

    /// Whether GPU evidence is asked for: where the tier needs it, or the policy demands it of every
    /// session with evidence.
    fn wants_gpus(&self) -> bool {
        let required = self.appraiser.policy().gpu().is_some_and(|rules| rules.required);
        self.want == Tier::Confidential || (self.want > Tier::Open && required)
    }

    /// Judges the answer to `nonce` in the session whose exporter for it is `exporter`, on a
    /// blocking thread.
    pub(super) async fn judge(
        self: &Arc<Self>,
        nonce: [u8; NONCE_BYTES],
        exporter: [u8; 32],
        answer: Bytes,
    ) -> Result<Verdict, Refusal> {
        let challenger = Arc::clone(self);
        let work = move |appraiser: &Appraiser| {
            challenger.judge_now(appraiser, &nonce, &exporter, &answer)
        };
        self.appraiser.offload(work).await
    }

    fn judge_now(
        &self,
        appraiser: &Appraiser,
        nonce: &[u8; NONCE_BYTES],
        exporter: &[u8; 32],
        answer: &[u8],
    ) -> Result<Verdict, Refusal> {
        let now = self.clock.now();
        if self.certificate.not_after < now {
            return Err(Refusal::CertificateExpired);
        }
        if self.capabilities.is_some_and(|chosen| chosen != self.certificate.record.capabilities) {
            return Err(Refusal::OfferMismatch);
        }
        let response = AttestResponse::from_bytes(answer).map_err(|_| Refusal::Malformed)?;
        let report_data = SessionBinding {
            network: &self.network,
            role: self.role,
            exporter,
            nonce,
            public_key: &self.certificate.public_key,
            peer: &self.peer,
            gpu_digest: &GpuEvidence::digest(&response.gpus),
            model_manifest: response.model_manifest.as_ref(),
        }
        .report_data();
        if !self.peer.verify(Domain::SessionIdentity, report_data.as_bytes(), &response.signature) {
            return Err(Refusal::NotSigned);
        }
        let judged = match &response.evidence {
            Evidence::None if self.want == Tier::Open => None,
            Evidence::None => return Err(Refusal::EvidenceMissing),
            evidence @ (Evidence::Tdx { .. }
            | Evidence::Snp { .. }
            | Evidence::SimulatedTdx { .. }
            | Evidence::SimulatedSnp { .. }) => {
                let identity = self.judge_identity(appraiser, &response, now)?;
                let endorsements = &response.endorsements;
                let session = appraiser.judge(evidence, endorsements, report_data.as_bytes(), now);
                if session.is_err() {
                    appraiser.forget_identity(&self.certificate, &identity);
                }
                Some(session?)
            }
        };
        let cpu = judged.as_ref().map_or(Tier::Open, |judged| judged.appraisal.tier);
        // Only now: the CPU's quote is what ties these GPUs to this session and to its software.
        let gpus = match self.wants_gpus() {
            true => appraiser.judge_gpus(&response.gpus, exporter, nonce, now)?,
            false if response.gpus.is_empty() => Vec::new(),
            false => return Err(Refusal::Malformed),
        };
        let earned = tier_with_gpus(cpu, &gpus);
        if earned < self.want {
            return Err(Refusal::TierTooLow { asked: self.want, earned });
        }
        // What was not asked for is not claimed: both ends then name the same tier, the provider in
        // the receipt that it signs.
        Ok(self.verdict(&response, (judged, gpus), earned.min(self.want), now))
    }

    /// Judges the certificate's quote, and returns what it had to be over.
    fn judge_identity(
        &self,
        appraiser: &Appraiser,
        response: &AttestResponse,
        now: Timestamp,
    ) -> Result<[u8; REPORT_DATA_BYTES], Refusal> {
        let certificate = &self.certificate;
        let record = &certificate.record;
        if record.evidence.kind() != response.evidence.kind() {
            return Err(Refusal::IdentityNotBound);
        }
        let report_data = IdentityBinding {
            network: &self.network,
            kind: record.evidence.kind(),
            peer: &self.peer,
            public_key: &certificate.public_key,
            capabilities: &record.capabilities,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            configuration: &record.configuration,
        }
        .report_data();
        let report_data = report_data.as_bytes();
        appraiser.judge_identity(certificate, &response.endorsements, report_data, now)?;
        Ok(*report_data)
    }

    fn verdict(
        &self,
        response: &AttestResponse,
        (judged, gpus): (Option<Judged>, Vec<GpuAppraisal>),
        tier: Tier,
        now: Timestamp,
    ) -> Verdict {
        let expires = now.after(limits::REATTEST_AFTER).min(self.certificate.not_after);
        let kind = response.evidence.kind();
        let simulated = kind.is_simulated() || gpus.iter().any(|gpu| gpu.simulated);
        if simulated {
            tracing::warn!(peer = %self.peer, "accepted a SIMULATED TEE: NO SECURITY");
        }
        let (appraisal, measurements) =
            judged.map(|judged| (judged.appraisal, judged.measurements)).unzip();
        let ends = appraisal.iter().map(|judged| judged.expires);
        let expires = ends.chain(gpus.iter().map(|gpu| gpu.expires)).fold(expires, Timestamp::min);
        Verdict {
            peer: self.peer,
            tier,
            simulated,
            kind,
            evidence_digest: response.evidence.digest(),
            expires,
            image: appraisal.map(|appraisal| appraisal.image),
            measurements,
            gpus,
            model_manifest: response.model_manifest,
            capabilities: self.certificate.record.capabilities,
            policy: self.appraiser.policy().id(),
            attested_at: now,
        }
    }
}
