//! What a quote is bound to: the exact bytes that go into `report_data` and the GPU nonces.
//!
//! Owns: the hash inputs of `cocoon-node/tee/identity/v1` and `cocoon-node/tee/session/v1`.
//! Must not: know TLS or a TEE; the exporter, the key and the quote are arguments.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

use crate::attest::evidence::{EvidenceKind, REPORT_DATA_BYTES};
use crate::identity::{NodeId, append_length_prefixed};
use crate::units::Timestamp;

/// Label of the TLS exporter (RFC 8446 §7.5) that a session quote is bound to; its context is the
/// consumer's nonce and its length 32 bytes.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-cocoon-node-attest-v1";

/// The user data of a report: one hash of this module, and never bytes that somebody chose. TEEs quote
/// nothing else, so that no quote of this node's can be made to say what another party wants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReportData([u8; REPORT_DATA_BYTES]);

impl ReportData {
    /// Its 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; REPORT_DATA_BYTES] {
        &self.0
    }

    fn of(input: &[u8]) -> Self {
        Self(Sha512::digest(input).into())
    }
}

impl AsRef<[u8]> for ReportData {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ReportData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = hex::encode(self.0);
        write!(f, "ReportData({}…)", text.get(..12).unwrap_or(&text))
    }
}

const IDENTITY_DOMAIN: &[u8] = b"cocoon-node/tee/identity/v1";
const SESSION_DOMAIN: &[u8] = b"cocoon-node/tee/session/v1";
const RECORD_DOMAIN: &[u8] = b"cocoon-node/tee/record/v1";
const GPU_DOMAIN: &[u8] = b"cocoon-node/gpu/v1";
const GPU_RECORD_DOMAIN: &[u8] = b"cocoon-node/gpu/record/v1";

/// Which network a node belongs to: the SHA-256 hash of its name. A quote made for one network
/// is worth nothing in another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkId([u8; 32]);

impl NetworkId {
    /// The identity of the network called `name`.
    pub fn from_name(name: &str) -> Self {
        Self(Sha256::digest(name.as_bytes()).into())
    }

    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = hex::encode(self.0);
        write!(f, "NetworkId({}…)", text.get(..12).unwrap_or(&text))
    }
}

/// Which end of the session made the quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionRole {
    /// The end that accepted the connection: a provider.
    Server,
    /// The end that dialled: a consumer that attests itself where a provider demands it. Distinct,
    /// so that a server's quote can never be reflected as a client's.
    Client,
}

impl SessionRole {
    const fn as_byte(self) -> u8 {
        match self {
            Self::Server => 1,
            Self::Client => 2,
        }
    }
}

/// What the identity quote in a certificate is bound to.
#[derive(Clone, Copy, Debug)]
pub struct IdentityBinding<'a> {
    /// The network.
    pub network: &'a NetworkId,
    /// The kind of TEE.
    pub kind: EvidenceKind,
    /// The node.
    pub peer: &'a NodeId,
    /// The certificate's SubjectPublicKeyInfo, DER.
    pub public_key: &'a [u8],
    /// SHA-256 of the capabilities in the node's offer.
    pub capabilities: &'a [u8; 32],
    /// Begin of the certificate's validity; whole seconds count.
    pub not_before: Timestamp,
    /// End of the certificate's validity; whole seconds count.
    pub not_after: Timestamp,
    /// Digest of the configuration that the node runs with.
    pub configuration: &'a [u8; 32],
}

impl IdentityBinding<'_> {
    /// The 64 bytes that the identity quote must carry.
    pub fn report_data(&self) -> ReportData {
        let mut input = Vec::new();
        append_length_prefixed(&mut input, IDENTITY_DOMAIN);
        append_length_prefixed(&mut input, self.network.as_bytes());
        append_length_prefixed(&mut input, &[self.kind.as_byte()]);
        append_length_prefixed(&mut input, self.peer.as_bytes());
        append_length_prefixed(&mut input, self.public_key);
        append_length_prefixed(&mut input, self.capabilities);
        append_length_prefixed(&mut input, &self.not_before.as_unix_secs().to_be_bytes());
        append_length_prefixed(&mut input, &self.not_after.as_unix_secs().to_be_bytes());
        append_length_prefixed(&mut input, self.configuration);
        ReportData::of(&input)
    }
}

/// What the quote of one session is bound to.
#[derive(Clone, Copy)]
pub struct SessionBinding<'a> {
    /// The network.
    pub network: &'a NetworkId,
    /// Which end attests.
    pub role: SessionRole,
    /// `TLS-Exporter(EXPORTER_LABEL, nonce, 32)` of this very connection.
    pub exporter: &'a [u8; 32],
    /// The challenger's nonce.
    pub nonce: &'a [u8; 32],
    /// The certificate's SubjectPublicKeyInfo, DER.
    pub public_key: &'a [u8],
    /// The node that attests.
    pub peer: &'a NodeId,
    /// [`gpu_digest`] of the GPU evidence that travels along.
    pub gpu_digest: &'a [u8; 32],
    /// SHA-256 of the model manifest; `None` hashes as the empty string.
    pub model_manifest: Option<&'a [u8; 32]>,
}

impl fmt::Debug for SessionBinding<'_> {
    /// Without the exporter: it is key material of the session.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBinding")
            .field("role", &self.role)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl SessionBinding<'_> {
    /// The 64 bytes that the session quote must carry. Also what a node signs with its identity
    /// key, so that tier `open` proves the peer over the same bytes.
    pub fn report_data(&self) -> ReportData {
        let mut input = Vec::new();
        append_length_prefixed(&mut input, SESSION_DOMAIN);
        append_length_prefixed(&mut input, self.network.as_bytes());
        append_length_prefixed(&mut input, &[self.role.as_byte()]);
        append_length_prefixed(&mut input, self.exporter);
        append_length_prefixed(&mut input, self.nonce);
        append_length_prefixed(&mut input, self.public_key);
        append_length_prefixed(&mut input, self.peer.as_bytes());
        append_length_prefixed(&mut input, self.gpu_digest);
        append_length_prefixed(&mut input, self.model_manifest.map_or(&[][..], |digest| digest));
        ReportData::of(&input)
    }
}

/// What evidence is bound to that nobody connects with: a record of a reference host, or a node's own
/// look at its TEE when it starts. Its domain keeps it from ever standing for an identity or a session.
#[derive(Clone, Copy, Debug)]
pub struct RecordBinding<'a> {
    /// The kind of TEE.
    pub kind: EvidenceKind,
    /// Drawn for this record.
    pub nonce: &'a [u8; 32],
    /// When it was made; whole seconds count.
    pub made_at: Timestamp,
    /// Digest of the configuration that the node runs with.
    pub configuration: &'a [u8; 32],
    /// [`gpu_digest`] of the GPU evidence that is recorded along.
    pub gpu_digest: &'a [u8; 32],
}

impl RecordBinding<'_> {
    /// The 64 bytes that the recorded evidence must carry.
    pub fn report_data(&self) -> ReportData {
        let mut input = Vec::new();
        append_length_prefixed(&mut input, RECORD_DOMAIN);
        append_length_prefixed(&mut input, &[self.kind.as_byte()]);
        append_length_prefixed(&mut input, self.nonce);
        append_length_prefixed(&mut input, &self.made_at.as_unix_secs().to_be_bytes());
        append_length_prefixed(&mut input, self.configuration);
        append_length_prefixed(&mut input, self.gpu_digest);
        ReportData::of(&input)
    }
}

/// What one GPU is asked with: a hash of this module, as [`ReportData`] is, so that no GPU of this
/// node's vouches for another party's challenge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GpuNonce([u8; 32]);

impl GpuNonce {
    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl AsRef<[u8]> for GpuNonce {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for GpuNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = hex::encode(self.0);
        write!(f, "GpuNonce({}…)", text.get(..12).unwrap_or(&text))
    }
}

/// The SPDM nonce of the GPU at `index`, so that a GPU's report belongs to one session only.
pub fn gpu_nonce(exporter: &[u8; 32], nonce: &[u8; 32], index: u16) -> GpuNonce {
    let mut input = Vec::new();
    append_length_prefixed(&mut input, GPU_DOMAIN);
    append_length_prefixed(&mut input, exporter);
    append_length_prefixed(&mut input, nonce);
    append_length_prefixed(&mut input, &index.to_be_bytes());
    GpuNonce(Sha256::digest(&input).into())
}

/// The nonces of a session's first `count` GPUs.
pub fn gpu_nonces(exporter: &[u8; 32], nonce: &[u8; 32], count: usize) -> Vec<GpuNonce> {
    (0..=u16::MAX).take(count).map(|index| gpu_nonce(exporter, nonce, index)).collect()
}

/// What the first `count` GPUs are asked with for a record, whose random `nonce` stands in for a
/// session. Their evidence is in [`RecordBinding`] as its hash, so this is hashed without it; the
/// domain keeps a recorded report from ever being one of a session.
pub fn record_gpu_nonces(nonce: &[u8; 32], count: usize) -> Vec<GpuNonce> {
    let of_index = |index: u16| {
        let mut input = Vec::new();
        append_length_prefixed(&mut input, GPU_RECORD_DOMAIN);
        append_length_prefixed(&mut input, nonce);
        append_length_prefixed(&mut input, &index.to_be_bytes());
        GpuNonce(Sha256::digest(&input).into())
    };
    (0..=u16::MAX).take(count).map(of_index).collect()
}

/// One GPU's evidence as it enters [`gpu_digest`].
#[derive(Clone, Copy, Debug)]
pub struct GpuEvidenceParts<'a> {
    /// The SPDM report.
    pub report: &'a [u8],
    /// The certificate chain of the device.
    pub chain: &'a [u8],
}

/// The hash of all GPU evidence that goes into the CPU's quote; zeros when there is none.
pub fn gpu_digest(evidence: &[GpuEvidenceParts<'_>]) -> [u8; 32] {
    if evidence.is_empty() {
        return [0; 32];
    }
    let mut input = Vec::new();
    for gpu in evidence {
        append_length_prefixed(&mut input, gpu.report);
        append_length_prefixed(&mut input, gpu.chain);
    }
    Sha256::digest(&input).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity<'a>(network: &'a NetworkId, peer: &'a NodeId) -> IdentityBinding<'a> {
        IdentityBinding {
            network,
            kind: EvidenceKind::Tdx,
            peer,
            public_key: b"spki",
            capabilities: &[3; 32],
            not_before: Timestamp::from_unix_secs(1_800_000_000),
            not_after: Timestamp::from_unix_secs(1_800_021_600),
            configuration: &[4; 32],
        }
    }

    fn session<'a>(network: &'a NetworkId, peer: &'a NodeId) -> SessionBinding<'a> {
        SessionBinding {
            network,
            role: SessionRole::Server,
            exporter: &[5; 32],
            nonce: &[6; 32],
            public_key: b"spki",
            peer,
            gpu_digest: &[0; 32],
            model_manifest: Some(&[7; 32]),
        }
    }

    // The golden values were computed with Python's hashlib from the text of the specification.
    #[test]
    fn golden_identity_and_session_report_data() {
        let (network, peer) = (NetworkId([1; 32]), NodeId::from_bytes([2; 32]));
        assert_eq!(
            hex::encode(identity(&network, &peer).report_data()),
            "93a281007f5c9ec0827d3b3fa2a8bfa32a90c3bd51164bbbde89b3ee202aa0e2\
             d841c6f5e80ed8c529a082d5162805a89bb0340805274ec6ad9aca816ce0f286"
        );
        assert_eq!(
            hex::encode(session(&network, &peer).report_data()),
            "02710e5f68f5043676f9aa7f7301a586ddf362b72cf84c9ed9bf51cb61fba3b1\
             fa9d1fb0016c1c968ce33b0a2fd6c2b107fea5390bb24f0c6ce5d3e70c72de1e"
        );
        let without_model =
            SessionBinding { model_manifest: None, ..session(&network, &peer) }.report_data();
        assert_eq!(
            hex::encode(without_model),
            "78b32021e8ab9339272ba0502dafdb54b0834d573816d8b9d39687f514d2f099\
             f14103e60356dda653c3fcb2ec31dbb1c13ca6302152f8341faffe586987a854"
        );
    }

    #[test]
    fn golden_gpu_nonce_and_digest() {
        assert_eq!(
            hex::encode(gpu_nonce(&[5; 32], &[6; 32], 3)),
            "01efa4474179d0c716ff327da7eed1f1adc069c10fb611ad03213dc6699881d1"
        );
        let recorded = record_gpu_nonces(&[6; 32], 4);
        assert_eq!(
            [hex::encode(recorded[0]), hex::encode(recorded[3])],
            [
                "661656102777009c33eea0c38d4dbd829449dcd9cd73ba9c90ab1b60c3168558",
                "4d0997d91e607512e0e3266ee9d76130780e0f93efd1717e9d64ec41fd95434b"
            ]
        );
        assert_eq!(gpu_digest(&[]), [0; 32]);
        let gpu = GpuEvidenceParts { report: b"report", chain: b"chain" };
        assert_eq!(
            hex::encode(gpu_digest(&[gpu, gpu])),
            "0cd9a0d6fc750d6df09d02c2043f4eb1358a16ea240e3905379f3e51c17ffba7"
        );
    }

    #[test]
    fn golden_record_report_data() {
        let record = RecordBinding {
            kind: EvidenceKind::Tdx,
            nonce: &[6; 32],
            made_at: Timestamp::from_unix_secs(1_800_000_000),
            configuration: &[4; 32],
            gpu_digest: &[0; 32],
        };
        assert_eq!(
            hex::encode(record.report_data()),
            "0f208aa649da8a66a6c8fd9f8b29fb95db5c35f19a1a9693a23f48f255951b86\
             162e2840cd2a1087c81ac5ab2dcd77f7b6380772bfe82ae2e953768997acc465"
        );
    }

    #[test]
    fn every_part_of_a_session_changes_its_report_data() {
        let (network, peer) = (NetworkId([1; 32]), NodeId::from_bytes([2; 32]));
        let (other_network, other_peer) = (NetworkId([9; 32]), NodeId::from_bytes([9; 32]));
        let base = session(&network, &peer);
        let variants = [
            SessionBinding { network: &other_network, ..base },
            SessionBinding { role: SessionRole::Client, ..base },
            SessionBinding { exporter: &[9; 32], ..base },
            SessionBinding { nonce: &[9; 32], ..base },
            SessionBinding { public_key: b"other", ..base },
            SessionBinding { peer: &other_peer, ..base },
            SessionBinding { gpu_digest: &[9; 32], ..base },
            SessionBinding { model_manifest: None, ..base },
        ];
        let mut seen: Vec<_> = variants.iter().map(|it| *it.report_data().as_bytes()).collect();
        seen.push(*base.report_data().as_bytes());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), variants.len() + 1);
    }

    #[test]
    fn every_part_of_an_identity_changes_its_report_data() {
        let (network, peer) = (NetworkId([1; 32]), NodeId::from_bytes([2; 32]));
        let (other_network, other_peer) = (NetworkId([9; 32]), NodeId::from_bytes([9; 32]));
        let base = identity(&network, &peer);
        let later = Timestamp::from_unix_secs(1_900_000_000);
        let variants = [
            IdentityBinding { network: &other_network, ..base },
            IdentityBinding { kind: EvidenceKind::SimulatedTdx, ..base },
            IdentityBinding { peer: &other_peer, ..base },
            IdentityBinding { public_key: b"other", ..base },
            IdentityBinding { capabilities: &[9; 32], ..base },
            IdentityBinding { not_before: later, ..base },
            IdentityBinding { not_after: later, ..base },
            IdentityBinding { configuration: &[9; 32], ..base },
        ];
        let mut seen: Vec<_> = variants.iter().map(|it| *it.report_data().as_bytes()).collect();
        seen.push(*base.report_data().as_bytes());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), variants.len() + 1);
    }
}
