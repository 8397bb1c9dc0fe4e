//! The two messages of attestation inside a session: the challenge and its answer.
//!
//! Owns: their bytes and bounds.
//! Must not: send, time out or verify; the channel does.

use std::fmt;

use bytes::Bytes;

use crate::attest::bytes::{Malformed, Reader};
use crate::attest::evidence::Evidence;
use crate::attest::gpu::{self, GpuEvidence};
use crate::attest::policy::PolicyId;
use crate::attest::tier::Tier;
use crate::identity::append_length_prefixed;
use crate::limits;

/// Length of the challenger's nonce.
pub const NONCE_BYTES: usize = 32;

const VERSION: u8 = 1;

/// A consumer's challenge. Nothing else may be sent before its answer was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestRequest {
    /// Fresh random bytes; the context of the exporter.
    pub nonce: [u8; NONCE_BYTES],
    /// The lowest tier that the consumer accepts. For `open` no quote need be made.
    pub want: Tier,
    /// Whether GPU evidence is asked for.
    pub gpu: bool,
    /// The policy that will judge: lets an operator see why consumers turn away.
    pub policy: PolicyId,
}

impl AttestRequest {
    /// Length of every encoded request.
    pub const BYTES: usize = 67;

    /// `version ‖ nonce ‖ want ‖ gpu ‖ policy`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.nonce);
        out.push(tier_byte(self.want));
        out.push(u8::from(self.gpu));
        out.extend_from_slice(self.policy.as_bytes());
        out
    }

    /// Reads an encoded request.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != VERSION {
            return Err(Malformed);
        }
        let nonce = reader.array()?;
        let want = match reader.byte()? {
            0 => Tier::Open,
            1 => Tier::Attested,
            2 => Tier::Confidential,
            _ => return Err(Malformed),
        };
        let gpu = match reader.byte()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed),
        };
        let policy = PolicyId::from_bytes(reader.array()?);
        reader.finish()?;
        Ok(Self { nonce, want, gpu, policy })
    }
}

const fn tier_byte(tier: Tier) -> u8 {
    match tier {
        Tier::Open => 0,
        Tier::Attested => 1,
        Tier::Confidential => 2,
    }
}

/// A provider's answer.
#[derive(Clone, PartialEq, Eq)]
pub struct AttestResponse {
    /// The node's signature (`Domain::SessionIdentity`) over the session's report data. Always
    /// there: in tier `open` it is the whole proof, above it the node stands beside its TEE.
    pub signature: [u8; 64],
    /// SHA-256 of the manifest of what the provider serves; `None` without a model.
    pub model_manifest: Option<[u8; 32]>,
    /// The session quote.
    pub evidence: Evidence,
    /// What a verifier needs beside the quotes, so that it never has to call a vendor: for TDX the
    /// DCAP collateral as JSON. Empty without a TEE.
    pub endorsements: Bytes,
    /// Evidence of the GPUs, where it was asked for; the session quote covers it.
    pub gpus: Vec<GpuEvidence>,
}

impl fmt::Debug for AttestResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttestResponse")
            .field("evidence", &self.evidence)
            .field("endorsements", &self.endorsements.len())
            .field("gpus", &self.gpus)
            .finish_non_exhaustive()
    }
}

impl AttestResponse {
    /// `version ‖ signature ‖ LP(model manifest) ‖ evidence ‖ LP(endorsements) ‖ GPU evidence`, the last
    /// as a byte for the count and `kind ‖ LP(report) ‖ LP(chain)` for each.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.signature);
        append_length_prefixed(&mut out, self.model_manifest.as_ref().map_or(&[][..], |m| m));
        self.evidence.append(&mut out);
        append_length_prefixed(&mut out, &self.endorsements);
        gpu::append_list(&mut out, &self.gpus);
        out
    }

    /// Reads an encoded answer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > limits::ATTEST_RESPONSE_BYTES {
            return Err(Malformed);
        }
        let mut reader = Reader::new(bytes);
        if reader.byte()? != VERSION {
            return Err(Malformed);
        }
        let signature = reader.array()?;
        let model_manifest = match reader.length_prefixed(32)? {
            [] => None,
            digest => Some(digest.try_into().map_err(|_| Malformed)?),
        };
        let evidence = Evidence::read(&mut reader)?;
        let endorsements = reader.length_prefixed(limits::ATTEST_RESPONSE_BYTES)?;
        let gpus = gpu::read_list(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            signature,
            model_manifest,
            evidence,
            endorsements: Bytes::copy_from_slice(endorsements),
            gpus,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> AttestRequest {
        AttestRequest {
            nonce: [1; 32],
            want: Tier::Attested,
            gpu: true,
            policy: PolicyId::from_bytes([2; 32]),
        }
    }

    fn response() -> AttestResponse {
        AttestResponse {
            signature: [3; 64],
            model_manifest: Some([4; 32]),
            evidence: Evidence::Tdx { quote: Bytes::from_static(b"quote") },
            endorsements: Bytes::from_static(b"{}"),
            gpus: Vec::new(),
        }
    }

    #[test]
    fn golden_request_and_response() {
        let bytes = request().to_bytes();
        let expected = ["01", &"01".repeat(32), "01", "01", &"02".repeat(32)].concat();
        assert_eq!(hex::encode(&bytes), expected);
        assert_eq!(bytes.len(), AttestRequest::BYTES);
        assert_eq!(AttestRequest::from_bytes(&bytes), Ok(request()));

        let bytes = response().to_bytes();
        let expected = [
            "01",
            &"03".repeat(64),
            "00000020",
            &"04".repeat(32),
            // kind, LP("quote")
            "01000000057175 6f7465".replace(' ', "").as_str(),
            // LP("{}")
            "000000027b7d",
            // no GPUs
            "00",
        ]
        .concat();
        assert_eq!(hex::encode(&bytes), expected);
        assert_eq!(AttestResponse::from_bytes(&bytes), Ok(response()));
    }

    #[test]
    fn every_truncation_and_every_appended_byte_is_refused() {
        let bytes = request().to_bytes();
        for end in 0..bytes.len() {
            assert_eq!(AttestRequest::from_bytes(&bytes[..end]), Err(Malformed));
        }
        assert_eq!(AttestRequest::from_bytes(&[&bytes[..], &[0]].concat()), Err(Malformed));
        let bytes = response().to_bytes();
        for end in 0..bytes.len() {
            assert_eq!(AttestResponse::from_bytes(&bytes[..end]), Err(Malformed));
        }
        assert_eq!(AttestResponse::from_bytes(&[&bytes[..], &[0]].concat()), Err(Malformed));
    }

    #[test]
    fn unknown_versions_tiers_and_gpu_evidence_are_refused() {
        for (position, value) in [(0, 2), (33, 3), (34, 2)] {
            let mut bytes = request().to_bytes();
            bytes[position] = value;
            assert_eq!(AttestRequest::from_bytes(&bytes), Err(Malformed));
        }
        let mut bytes = response().to_bytes();
        *bytes.last_mut().unwrap() = 1;
        assert_eq!(AttestResponse::from_bytes(&bytes), Err(Malformed));
    }

    #[test]
    fn an_answer_beyond_the_limit_is_refused() {
        let long = AttestResponse {
            endorsements: Bytes::from(vec![0; limits::ATTEST_RESPONSE_BYTES]),
            ..response()
        };
        assert_eq!(AttestResponse::from_bytes(&long.to_bytes()), Err(Malformed));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = AttestRequest::from_bytes(&bytes);
            let _ = AttestResponse::from_bytes(&bytes);
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(position in 0usize..130, value: u8) {
            let mut bytes = response().to_bytes();
            if let Some(byte) = bytes.get_mut(position) {
                *byte = value;
            }
            if let Ok(decoded) = AttestResponse::from_bytes(&bytes) {
                prop_assert_eq!(decoded.to_bytes(), bytes);
            }
        }
    }
}
