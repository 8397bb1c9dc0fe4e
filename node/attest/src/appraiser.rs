//! Judges evidence by a policy: the verifier port.
//!
//! Owns: the roots that a policy's trust allows, the verdict cache, and the bound on parallel work.
//! Must not: loosen the policy for anyone; what it does not know it refuses.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cocoon_protocol::attest::{
    Appraisal, Claims, Evidence, Measured, Policy, REPORT_DATA_BYTES, Refusal, Trust, appraise,
};
use cocoon_protocol::units::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::cache::{CacheKey, VerdictCache};
use crate::certificate::SessionCertificate;
use crate::snp::{self, Asvk};
use crate::tdx;

/// Verifications that run at a time. One takes about a millisecond of a core, so this is room for
/// some thousands of sessions a second without crowding out the rest of the node.
const PARALLEL_VERIFICATIONS: usize = 4;

/// The roots that evidence may end at.
pub(crate) struct Anchors {
    pub(crate) tdx: tdx::Root,
    pub(crate) snp: snp::Roots,
}

impl Anchors {
    /// The vendors' own.
    fn vendors() -> Self {
        Self { tdx: tdx::Root::intel(), snp: snp::Roots::amd() }
    }
}

/// A policy at work.
pub struct Appraiser {
    policy: Policy,
    vendors: Anchors,
    #[cfg(feature = "dev-tee")]
    simulated: Option<Anchors>,
    cache: Mutex<VerdictCache>,
    workers: Semaphore,
}

/// What a judged quote proved.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) appraisal: Appraisal,
    pub(crate) measurements: Measured,
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
        let simulated = evidence.kind().is_simulated();
        let anchors = match simulated {
            true => self.simulated_anchors().ok_or(Refusal::SimulatedNotAllowed)?,
            false => &self.vendors,
        };
        let quote = evidence.quote();
        match evidence {
            Evidence::None => Err(Refusal::EvidenceMissing),
            Evidence::Tdx { .. } | Evidence::SimulatedTdx { .. } => {
                let verified = tdx::verify(simulated, quote, endorsements, &anchors.tdx, now)?;
                let claims = Claims::Tdx(verified.claims.clone());
                let judged = self.weigh(&claims, report_data, now)?;
                if let Some(rules) = self.policy.tdx() {
                    verified.cross_check(rules, now)?;
                }
                Ok(judged)
            }
            Evidence::Snp { .. } | Evidence::SimulatedSnp { .. } => {
                let none = Asvk::new();
                let asvk = self.policy.snp().map_or(&none, |rules| &rules.asvk);
                let claims = snp::verify(simulated, quote, endorsements, &anchors.snp, asvk, now)?;
                self.weigh(&Claims::Snp(claims), report_data, now)
            }
        }
    }

    fn weigh(
        &self,
        claims: &Claims,
        report_data: &[u8; REPORT_DATA_BYTES],
        now: Timestamp,
    ) -> Result<Judged, Refusal> {
        let appraisal = appraise(claims, &self.policy, report_data, now)?;
        Ok(Judged { appraisal, measurements: claims.measured() })
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
            collateral: Sha256::digest(endorsements).into(),
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
