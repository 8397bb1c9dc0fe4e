//! The port to GPUs that make evidence, and a machine that has both a TEE and such GPUs.
//!
//! Owns: the trait, the bounds on what it may return, and the trial before anybody depends on it.
//! Must not: decide what a GPU is asked with; the channel derives every nonce from its session.

use std::fmt;
use std::sync::Arc;

use cocoon_protocol::attest::{
    EvidenceKind, GpuClaims, GpuEvidence, GpuEvidenceKind, GpuNonce, GpuRefusal, ReportData,
    gpu_nonces, record_gpu_nonces,
};
use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;

use crate::attester::{Attester, QuoteError, Quoted};
use crate::nvidia;

/// The GPUs of this machine. Implementations may block for seconds, and for ever where a driver hangs; the
/// channel calls them on a blocking thread, one call at a time, and waits no longer than
/// [`crate::ANSWER_TIMEOUT`].
pub trait GpuAttester: Send + Sync + fmt::Debug {
    /// How many GPUs there are: all that the engine may use, and at most [`limits::GPUS`].
    fn count(&self) -> usize;

    /// Evidence of every GPU, in the same order each time. `nonces` has as many as there are GPUs.
    ///
    /// # Errors
    /// When a single one of them cannot make evidence: the others then prove nothing about it.
    fn evidence(&self, nonces: &[GpuNonce]) -> Result<Vec<GpuEvidence>, QuoteError>;
}

/// Asks `gpus`, and holds the answer against its bounds.
pub(crate) fn ask(
    gpus: &dyn GpuAttester,
    nonces: &[GpuNonce],
) -> Result<Vec<GpuEvidence>, QuoteError> {
    let evidence = gpus.evidence(nonces)?;
    if evidence.len() != nonces.len() {
        return Err(QuoteError::Unavailable);
    }
    if evidence.len() > limits::GPUS || !evidence.iter().all(GpuEvidence::is_within_limits) {
        return Err(QuoteError::TooLarge);
    }
    Ok(evidence)
}

/// Why GPUs that were found cannot be offered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuTrialError {
    /// There is none that could prove anything.
    #[error("there is no GPU that could prove anything")]
    None,
    /// More than a session carries evidence of.
    #[error(
        "there are {count} GPUs, and a session carries the evidence of at most {}; give this \
         machine fewer",
        limits::GPUS
    )]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// They make none.
    #[error("they make no evidence")]
    NoEvidence(#[source] QuoteError),
    /// No consumer would accept what one of them makes.
    #[error("no consumer accepts GPU {position}: {reason}")]
    Refused {
        /// Which, counted from 0.
        position: usize,
        /// The check that it fails.
        reason: Box<GpuRefusal>,
    },
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    Random,
}

/// Has every GPU make evidence once, verifies it up to the vendor's root at `now`, and returns what it
/// claims. Whether a consumer is content with these claims is its policy's matter. May block for
/// seconds.
///
/// # Errors
/// The first thing for which consumers would refuse a session with them, whatever their policy.
pub fn try_gpus(gpus: &dyn GpuAttester, now: Timestamp) -> Result<Vec<GpuClaims>, GpuTrialError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|_| GpuTrialError::Random)?;
    // In the place of a session's exporter, which nobody else has either.
    let (_, claims) = ask_verified(gpus, |count| gpu_nonces(&random, &random, count), now)?;
    Ok(claims)
}

/// Evidence of every GPU for a record whose random `nonce` stands in for a session, and what it claims:
/// verified as [`try_gpus`] does. May block for seconds.
///
/// # Errors
/// As [`try_gpus`].
pub fn record_gpus(
    gpus: &dyn GpuAttester,
    nonce: &[u8; 32],
    now: Timestamp,
) -> Result<(Vec<GpuEvidence>, Vec<GpuClaims>), GpuTrialError> {
    ask_verified(gpus, |count| record_gpu_nonces(nonce, count), now)
}

fn ask_verified(
    gpus: &dyn GpuAttester,
    nonces: impl FnOnce(usize) -> Vec<GpuNonce>,
    now: Timestamp,
) -> Result<(Vec<GpuEvidence>, Vec<GpuClaims>), GpuTrialError> {
    let count = gpus.count();
    if count == 0 {
        return Err(GpuTrialError::None);
    }
    if count > limits::GPUS {
        return Err(GpuTrialError::TooMany { count });
    }
    let nonces = nonces(count);
    let evidence = ask(gpus, &nonces).map_err(GpuTrialError::NoEvidence)?;
    let mut tried: Vec<GpuClaims> = Vec::with_capacity(count);
    for (position, (evidence, nonce)) in evidence.iter().zip(&nonces).enumerate() {
        let refused = |reason| GpuTrialError::Refused { position, reason: Box::new(reason) };
        let root = root(evidence.kind).ok_or_else(|| refused(GpuRefusal::UntrustedRoot))?;
        let claims = nvidia::verify(evidence, &root, now).map_err(refused)?;
        if claims.nonce != *nonce.as_bytes() {
            return Err(refused(GpuRefusal::NotFresh));
        }
        if tried.iter().any(|before| before.device() == claims.device()) {
            return Err(refused(GpuRefusal::Duplicate));
        }
        tried.push(claims);
    }
    Ok((evidence, tried))
}

fn root(kind: GpuEvidenceKind) -> Option<nvidia::Root> {
    match kind {
        GpuEvidenceKind::Nvidia => nvidia::Root::nvidia(),
        #[cfg(feature = "dev-tee")]
        GpuEvidenceKind::SimulatedNvidia => crate::simulated::gpu_root(),
        #[cfg(not(feature = "dev-tee"))]
        GpuEvidenceKind::SimulatedNvidia => None,
    }
}

/// A TEE together with the GPUs that its guest drives: what tier `confidential` takes.
#[derive(Clone, Debug)]
pub struct WithGpus {
    cpu: Arc<dyn Attester>,
    gpus: Arc<dyn GpuAttester>,
}

impl WithGpus {
    /// The TEE `cpu` with `gpus`. Without a TEE, GPUs prove nothing and are not asked.
    pub fn new(cpu: Arc<dyn Attester>, gpus: Arc<dyn GpuAttester>) -> Self {
        Self { cpu, gpus }
    }
}

impl Attester for WithGpus {
    fn kind(&self) -> EvidenceKind {
        self.cpu.kind()
    }

    fn quote(&self, report_data: &ReportData, now: Timestamp) -> Result<Quoted, QuoteError> {
        self.cpu.quote(report_data, now)
    }

    fn gpus(&self) -> Option<&dyn GpuAttester> {
        Some(&*self.gpus)
    }
}

#[cfg(all(test, feature = "dev-tee"))]
mod tests {
    use super::*;
    use crate::simulated::{SimulatedGpu, SimulatedGpus};

    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

    fn gpus(count: u8) -> SimulatedGpus {
        SimulatedGpus::new((0..count).map(SimulatedGpu::new).collect())
    }

    /// What GPUs answer in a test.
    struct Answering<F>(F);

    impl<F> fmt::Debug for Answering<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Answering")
        }
    }

    impl<F> GpuAttester for Answering<F>
    where
        F: Fn(&[GpuNonce]) -> Result<Vec<GpuEvidence>, QuoteError> + Send + Sync,
    {
        fn count(&self) -> usize {
            2
        }

        fn evidence(&self, nonces: &[GpuNonce]) -> Result<Vec<GpuEvidence>, QuoteError> {
            (self.0)(nonces)
        }
    }

    fn trial<F>(answer: F) -> Result<Vec<GpuClaims>, GpuTrialError>
    where
        F: Fn(&[GpuNonce]) -> Result<Vec<GpuEvidence>, QuoteError> + Send + Sync,
    {
        try_gpus(&Answering(answer), NOW)
    }

    #[test]
    fn gpus_that_make_evidence_pass_the_trial_with_what_they_claim() {
        let claims = try_gpus(&gpus(2), NOW).unwrap();
        let drivers: Vec<_> = claims.iter().map(|it| it.driver.as_str()).collect();
        assert_eq!(drivers, ["0.0.0-simulated", "0.0.0-simulated"]);
    }

    #[test]
    fn a_record_s_evidence_carries_the_record_s_nonces() {
        let (evidence, claims) = record_gpus(&gpus(2), &[7; 32], NOW).unwrap();
        let nonces: Vec<_> = claims.iter().map(|it| it.nonce).collect();
        let expected = record_gpu_nonces(&[7; 32], 2);
        assert_eq!(nonces, [*expected[0].as_bytes(), *expected[1].as_bytes()]);
        assert_eq!(evidence.len(), 2);
        let failed = record_gpus(&gpus(0), &[7; 32], NOW);
        assert_eq!(failed, Err(GpuTrialError::None));
    }

    #[test]
    fn no_gpu_and_too_many_fail_the_trial() {
        assert_eq!(try_gpus(&gpus(0), NOW), Err(GpuTrialError::None));
        assert_eq!(try_gpus(&gpus(9), NOW), Err(GpuTrialError::TooMany { count: 9 }));
    }

    #[test]
    fn gpus_that_fail_or_answer_too_little_fail_the_trial() {
        for error in [QuoteError::Unavailable, QuoteError::Simulation] {
            let failing = error.clone();
            let found = trial(move |_| Err(failing.clone()));
            assert_eq!(found, Err(GpuTrialError::NoEvidence(error)));
        }
        let one = trial(|nonces| gpus(1).evidence(nonces));
        assert_eq!(one, Err(GpuTrialError::NoEvidence(QuoteError::Unavailable)));
    }

    #[test]
    fn evidence_that_no_consumer_would_accept_fails_the_trial() {
        let refused =
            |position, reason| Err(GpuTrialError::Refused { position, reason: Box::new(reason) });
        let old = gpu_nonces(&[1; 32], &[2; 32], 2);
        let replayed = trial(move |_| gpus(2).evidence(&old));
        assert_eq!(replayed, refused(0, GpuRefusal::NotFresh));
        let twice = trial(|nonces| {
            nonces.iter().map(|it| Ok(gpus(1).evidence(&[*it])?.remove(0))).collect()
        });
        assert_eq!(twice, refused(1, GpuRefusal::Duplicate));
        let disguised = trial(|nonces| {
            let mut evidence = gpus(2).evidence(nonces)?;
            evidence[1].kind = GpuEvidenceKind::Nvidia;
            Ok(evidence)
        });
        assert_eq!(disguised, refused(1, GpuRefusal::UntrustedRoot));
    }
}
