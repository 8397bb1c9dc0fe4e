//! The attester of a node without a TEE.
//!
//! Owns: nothing to own. Must not: pretend.

use bytes::Bytes;
use cocoon_protocol::attest::{Evidence, EvidenceKind, ReportData};
use cocoon_protocol::units::Timestamp;

use crate::attester::{Attester, QuoteError, Quoted};

/// Makes no evidence: the node serves in tier `open`, and its signature over the session is all
/// that it proves.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAttester;

impl Attester for OpenAttester {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::None
    }

    fn quote(&self, _: &ReportData, _: Timestamp) -> Result<Quoted, QuoteError> {
        Ok(Quoted { evidence: Evidence::None, endorsements: Bytes::new() })
    }
}
