//! Judges evidence by a policy: the verifier port.
//!
//! Owns: the roots that a policy's trust allows, the verdict cache, and the bound on parallel work.
//! Must not: loosen the policy for anyone; what it does not know it refuses.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cocoon_protocol::attest::{
    Advisories, AdvisoryList, Appraisal, Claims, Evidence, GpuAppraisal, GpuEvidence,
    GpuEvidenceKind, GpuNonce, GpuRefusal, GpuStep, Measured, NONCE_BYTES, Policy,
    REPORT_DATA_BYTES, Refusal, Step, Trace, Trust, appraise_gpu_traced, appraise_gpus,
    appraise_traced, gpu_nonces,
};
use cocoon_protocol::units::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::cache::{CacheKey, VerdictCache};
use crate::certificate::SessionCertificate;
use crate::examination::{Examination, Examined, ExaminedGpu, GpuExamination, GpuWitness};
use crate::nvidia;
use crate::snp::{self, Asvk};
use crate::tdx;

/// Verifications that run at a time. One takes about a millisecond of a core, so this is room for
/// some thousands of sessions a second without crowding out the rest of the node.
const PARALLEL_VERIFICATIONS: usize = 4;

/// The roots that evidence may end at.
pub(crate) struct Anchors {
    pub(crate) tdx: tdx::Root,
    pub(crate) snp: snp::Roots,
    pub(crate) nvidia: Option<nvidia::Root>,
}

impl Anchors {
    /// The vendors' own.
    fn vendors() -> Self {
        Self { tdx: tdx::Root::intel(), snp: snp::Roots::amd(), nvidia: nvidia::Root::nvidia() }
    }
}

/// A policy at work.
pub struct Appraiser {
    policy: Policy,
    vendors: Anchors,
    #[cfg(feature = "dev-tee")]
    simulated: Option<Anchors>,
    /// What maintainers withdraw, and how often that has changed.
    advisories: RwLock<(u64, Arc<Advisories>)>,
    cache: Mutex<VerdictCache>,
    workers: Semaphore,
}

/// What a judged quote proved.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) appraisal: Appraisal,
    pub(crate) measurements: Measured,
}

/// What is seen of a judgement while it goes on.
#[derive(Debug, Default)]
struct Witness {
    trace: Trace,
    claims: Option<Claims>,
}

impl fmt::Debug for Appraiser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appraiser").field("policy", &self.policy.id()).finish_non_exhaustive()
    }
}

impl Appraiser {
    /// An appraiser for `policy`. With `trust = "dev"` and the feature `dev-tee` it accepts
    /// simulated TEEs, and says so in the log; without the feature it never does.
    pub fn new(policy: Policy) -> Self {
        if policy.trust() == Trust::Dev {
            tracing::warn!("the attestation policy trusts simulated TEEs: NO SECURITY");
        }
        Self {
            vendors: Anchors::vendors(),
            #[cfg(feature = "dev-tee")]
            simulated: match policy.trust() {
                Trust::Dev => crate::simulated::anchors(),
                Trust::Production => None,
            },
            advisories: RwLock::new((0, Arc::new(Advisories::none(policy.subscriptions())))),
            policy,
            cache: Mutex::default(),
            workers: Semaphore::new(PARALLEL_VERIFICATIONS),
        }
    }

    /// The policy.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Judges one quote that must carry `report_data`. Takes about a millisecond of CPU.
    pub(crate) fn judge(
        &self,
        evidence: &Evidence,
        endorsements: &[u8],
        report_data: &[u8; REPORT_DATA_BYTES],
        now: Timestamp,
    ) -> Result<Judged, Refusal> {
        let mut witness = Witness::default();
        self.observe(evidence, endorsements, Some(report_data), now, &mut witness)
    }

    /// Judges evidence that no session brought, and says how each check went. Without `report_data`
    /// there is nothing to hold the evidence's own against, and that check is shown as not made.
    pub fn examine(
        &self,
        evidence: &Evidence,
        endorsements: &[u8],
        report_data: Option<&[u8; REPORT_DATA_BYTES]>,
        now: Timestamp,
    ) -> Examination {
        let mut witness = Witness::default();
        let judged = self.observe(evidence, endorsements, report_data, now, &mut witness);
        let examined = Examined {
            kind: evidence.kind(),
            policy: &self.policy,
            trace: witness.trace,
            claims: witness.claims,
            bound: report_data.is_some(),
            outcome: judged.map(|judged| judged.appraisal),
            now,
        };
        examined.report()
    }

    fn observe(
        &self,
        evidence: &Evidence,
        endorsements: &[u8],
        report_data: Option<&[u8; REPORT_DATA_BYTES]>,
        now: Timestamp,
        witness: &mut Witness,
    ) -> Result<Judged, Refusal> {
        let simulated = evidence.kind().is_simulated();
        let anchors = match simulated {
            true => self.simulated_anchors().ok_or(Refusal::SimulatedNotAllowed)?,
            false => &self.vendors,
        };
        witness.trace.pass(Step::Trust);
        let quote = evidence.quote();
        match evidence {
            Evidence::None => Err(Refusal::EvidenceMissing),
            Evidence::Tdx { .. } | Evidence::SimulatedTdx { .. } => {
                let verified = tdx::verify(simulated, quote, endorsements, &anchors.tdx, now)?;
                let claims = Claims::Tdx(verified.claims.clone());
                let judged = self.weigh(claims, report_data, now, witness)?;
                if let Some(rules) = self.policy.tdx() {
                    verified.cross_check(rules, now)?;
                }
                witness.trace.pass(Step::SecondOpinion);
                Ok(judged)
            }
            Evidence::Snp { .. } | Evidence::SimulatedSnp { .. } => {
                let none = Asvk::new();
                let asvk = self.policy.snp().map_or(&none, |rules| &rules.asvk);
                let claims = snp::verify(simulated, quote, endorsements, &anchors.snp, asvk, now)?;
                self.weigh(Claims::Snp(claims), report_data, now, witness)
            }
        }
    }

    fn weigh(
        &self,
        claims: Claims,
        report_data: Option<&[u8; REPORT_DATA_BYTES]>,
        now: Timestamp,
        witness: &mut Witness,
    ) -> Result<Judged, Refusal> {
        witness.trace.pass(Step::Signatures);
        let claims = &*witness.claims.insert(claims);
        let expected = report_data.unwrap_or_else(|| claims.report_data());
        let trace = &mut witness.trace;
        let mut appraisal = appraise_traced(claims, &self.policy, expected, now, trace)?;
        // After the policy, which has the first word: what comes over a network can only refuse.
        let (_, advisories) = self.advisories();
        advisories.check(claims, now)?;
        trace.pass(Step::Advisories);
        appraisal.expires = appraisal.expires.min(advisories.expires());
        Ok(Judged { appraisal, measurements: claims.measured() })
    }

    fn advisories(&self) -> (u64, Arc<Advisories>) {
        self.advisories.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the policy's maintainers withdraw at the moment.
    pub fn followed(&self) -> Arc<Advisories> {
        self.advisories().1
    }

    /// Puts a maintainer's list in force, unless the policy does not follow them or a newer list is
    /// in force. From then on every verdict takes it into account, remembered ones too.
    pub fn follow(&self, list: &AdvisoryList) -> bool {
        let mut guard = self.advisories.write().unwrap_or_else(PoisonError::into_inner);
        let (changes, advisories) = &mut *guard;
        let taken = Arc::make_mut(advisories).update(list);
        *changes = changes.saturating_add(u64::from(taken));
        taken
    }

    /// Judges the GPUs of one session, whose CPU quote covers this very evidence and was judged
    /// before. Takes about a millisecond of CPU for each.
    pub(crate) fn judge_gpus(
        &self,
        gpus: &[GpuEvidence],
        exporter: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        now: Timestamp,
    ) -> Result<Vec<GpuAppraisal>, Refusal> {
        let mut claims = Vec::with_capacity(gpus.len());
        for (position, gpu) in gpus.iter().enumerate() {
            let verified = self.gpu_root(gpu.kind).and_then(|root| nvidia::verify(gpu, root, now));
            claims.push(verified.map_err(|why| why.of(position))?);
        }
        let nonces = gpu_nonces(exporter, nonce, gpus.len());
        appraise_gpus(&claims, &nonces, &self.policy)
    }

    /// Judges GPUs that no session brought, and says how each check of each went. `nonces` has what
    /// they had to be asked with; without, that check is shown as not made.
    pub fn examine_gpus(
        &self,
        gpus: &[GpuEvidence],
        nonces: Option<&[GpuNonce]>,
        now: Timestamp,
    ) -> Vec<GpuExamination> {
        let mut devices = Vec::new();
        let examine = |(position, gpu): (usize, &GpuEvidence)| {
            // Fewer nonces than GPUs bind nobody: what is missing is as wrong as what differs.
            let nonce = nonces.map(|nonces| nonces.get(position));
            let mut witness = GpuWitness::default();
            let mut outcome = match nonce {
                Some(None) => Err(GpuRefusal::NotFresh),
                None => self.observe_gpu(gpu, None, now, &mut witness),
                Some(nonce) => self.observe_gpu(gpu, nonce, now, &mut witness),
            };
            if let Some(device) = outcome.as_ref().ok().map(|found| found.device) {
                match devices.contains(&device) {
                    true => outcome = Err(GpuRefusal::Duplicate),
                    false => witness.trace.pass(GpuStep::Distinct),
                }
                devices.push(device);
            }
            let (kind, policy, nonce) = (gpu.kind, &self.policy, nonce.flatten());
            ExaminedGpu { kind, policy, witness, nonce, outcome }.report()
        };
        gpus.iter().enumerate().map(examine).collect()
    }

    fn observe_gpu(
        &self,
        gpu: &GpuEvidence,
        nonce: Option<&GpuNonce>,
        now: Timestamp,
        witness: &mut GpuWitness,
    ) -> Result<GpuAppraisal, GpuRefusal> {
        let root = self.gpu_root(gpu.kind)?;
        witness.trace.pass(GpuStep::Trust);
        let claims = nvidia::verify_traced(gpu, root, now, &mut witness.trace)?;
        let claims = &*witness.claims.insert(claims);
        let nonce = nonce.map_or(&claims.nonce, GpuNonce::as_bytes);
        appraise_gpu_traced(claims, nonce, &self.policy, &mut witness.trace)
    }

    fn gpu_root(&self, kind: GpuEvidenceKind) -> Result<&nvidia::Root, GpuRefusal> {
        let anchors = match kind {
            GpuEvidenceKind::Nvidia => &self.vendors,
            GpuEvidenceKind::SimulatedNvidia => {
                self.simulated_anchors().ok_or(GpuRefusal::SimulatedNotAllowed)?
            }
        };
        anchors.nvidia.as_ref().ok_or(GpuRefusal::UntrustedRoot)
    }

    #[cfg(feature = "dev-tee")]
    const fn simulated_anchors(&self) -> Option<&Anchors> {
        self.simulated.as_ref()
    }

    #[cfg(not(feature = "dev-tee"))]
    const fn simulated_anchors(&self) -> Option<&Anchors> {
        None
    }

    /// Judges the identity quote in `certificate`, from memory where that still holds.
    pub(crate) fn judge_identity(
        &self,
        certificate: &SessionCertificate,
        endorsements: &[u8],
        report_data: &[u8; REPORT_DATA_BYTES],
        now: Timestamp,
    ) -> Result<Appraisal, Refusal> {
        let key = CacheKey {
            certificate: certificate_key(certificate, report_data),
            policy: self.policy.id(),
            // What maintainers withdraw vouches against, as endorsements vouch for.
            collateral: Sha256::new()
                .chain_update(self.advisories().0.to_be_bytes())
                .chain_update(endorsements)
                .finalize()
                .into(),
        };
        if let Some(known) = self.lock_cache().find(&key, now) {
            return known.clone();
        }
        let judgement = self
            .judge(&certificate.record.evidence, endorsements, report_data, now)
            .map(|judged| judged.appraisal)
            .map_err(|refusal| {
                // The same check, but what is not bound here is a certificate.
                let unbound = refusal == Refusal::NotFresh;
                if unbound { Refusal::IdentityNotBound } else { refusal }
            });
        self.lock_cache().insert(key, judgement.clone(), certificate.not_after, now);
        judgement
    }

    /// Forgets what was judged about the identity quote in `certificate`: a session of its holder has
    /// failed, and the next one is judged from the beginning.
    pub(crate) fn forget_identity(
        &self,
        certificate: &SessionCertificate,
        report_data: &[u8; REPORT_DATA_BYTES],
    ) {
        self.lock_cache().forget(&certificate_key(certificate, report_data));
    }

    /// How many judgements are remembered.
    #[cfg(all(test, feature = "dev-tee"))]
    pub(crate) fn remembered(&self) -> usize {
        self.lock_cache().len()
    }

    fn lock_cache(&self) -> std::sync::MutexGuard<'_, VerdictCache> {
        // The cache is whole after every call, even one that panicked elsewhere.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` with this appraiser on a blocking thread, a few at a time.
    pub(crate) async fn offload<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let appraiser = Arc::clone(self);
        // The semaphore is never closed, and a panic in `work` is a refusal: fail closed.
        let Ok(_permit) = self.workers.acquire().await else {
            return Err(Refusal::Malformed);
        };
        tokio::task::spawn_blocking(move || work(&appraiser))
            .await
            .unwrap_or(Err(Refusal::Malformed))
    }
}

/// A certificate, and what the quote in it must be over.
fn certificate_key(
    certificate: &SessionCertificate,
    report_data: &[u8; REPORT_DATA_BYTES],
) -> [u8; 32] {
    Sha256::new().chain_update(certificate.digest).chain_update(report_data).finalize().into()
}

#[cfg(all(test, feature = "dev-tee"))]
mod tests {
    use super::*;
    use cocoon_protocol::attest::{Rules, Tier};

    #[test]
    fn the_roots_of_the_simulation_are_not_there_in_production() {
        let anchors = |trust| {
            let policy = Policy::new(trust, Tier::Open, Rules::default()).unwrap();
            Appraiser::new(policy).simulated.is_some()
        };
        assert_eq!((anchors(Trust::Production), anchors(Trust::Dev)), (false, true));
    }
}
