//! The port to a TEE that makes quotes.
//!
//! Owns: the trait and its errors. Must not: decide what a quote is over; the channel does.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use cocoon_protocol::attest::{Evidence, EvidenceKind, ReportData};
use cocoon_protocol::units::Timestamp;

use crate::gpu::GpuAttester;

/// Longer than this neither a TEE nor its GPUs take to answer, unless a driver hangs: a quote takes some
/// 50 ms, and eight GPUs one after the other take seconds. Whoever challenges waits a third of it.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A quote and what a verifier needs to check it.
#[derive(Clone, Debug)]
pub struct Quoted {
    /// The quote.
    pub evidence: Evidence,
    /// Collateral, certificates and revocation lists; empty without a TEE.
    pub endorsements: Bytes,
}

/// Why no quote could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// The TEE's interface refused or is missing.
    #[error("the TEE could not make a quote; check that the guest offers its attestation device")]
    Unavailable,
    /// What consumers need beside the quote has not been fetched yet.
    #[error(
        "no endorsements yet; check that this node reaches Intel's PCS or AMD's KDS, or a mirror"
    )]
    NoEndorsements,
    /// The quote or its endorsements are larger than a verifier accepts.
    #[error("the TEE's evidence is larger than the protocol allows")]
    TooLarge,
    /// One peer has had more quotes made than its share.
    #[error("the peer asks for quotes faster than this node makes them")]
    Quota,
    /// More peers wait for quotes than can be served in time.
    #[error("too many peers ask for quotes at the moment")]
    Busy,
    /// The TEE or a GPU was asked and gave no answer at all.
    #[error(
        "the TEE or a GPU does not answer: its driver may hang; restart the guest if that does not pass"
    )]
    TimedOut,
    /// A GPU made no evidence, and one that proves nothing makes the others' worthless.
    #[error("the GPUs made no evidence; `cocoon-node tee detect` says what they lack")]
    Gpus,
    /// The simulation's own keys or certificates could not be made.
    #[error("the simulated TEE could not forge its evidence")]
    Simulation,
}

/// Makes quotes. Implementations may block for tens of milliseconds; the channel calls them on a
/// blocking thread, one at a time.
pub trait Attester: Send + Sync + fmt::Debug {
    /// The kind of evidence that it makes.
    fn kind(&self) -> EvidenceKind;

    /// A quote over exactly `report_data`.
    ///
    /// # Errors
    /// When the TEE cannot make one at the moment.
    fn quote(&self, report_data: &ReportData, now: Timestamp) -> Result<Quoted, QuoteError>;

    /// The machine's GPUs, where they can prove something beside this TEE; see [`crate::WithGpus`].
    fn gpus(&self) -> Option<&dyn GpuAttester> {
        None
    }
}

/// Report data for tests; `seed` tells one from another.
#[cfg(test)]
pub(crate) fn report_data(seed: u8) -> ReportData {
    cocoon_protocol::attest::RecordBinding {
        kind: EvidenceKind::None,
        nonce: &[seed; 32],
        made_at: Timestamp::EPOCH,
        configuration: &[0; 32],
        gpu_digest: &[0; 32],
    }
    .report_data()
}
