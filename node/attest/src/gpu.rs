//! The port to GPUs that make evidence, and a machine that has both a TEE and such GPUs.
//!
//! Owns: the trait, and the bounds on what it may return.
//! Must not: decide what a GPU is asked with; the channel derives every nonce from its session.

use std::fmt;
use std::sync::Arc;

use cocoon_protocol::attest::{EvidenceKind, GpuEvidence, GpuNonce, ReportData};
use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;

use crate::attester::{Attester, QuoteError, Quoted};

/// The GPUs of this machine. Implementations may block for seconds; the channel calls them on a
/// blocking thread, one call at a time.
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
