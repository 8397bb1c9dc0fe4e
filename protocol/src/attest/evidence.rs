//! Evidence as bytes: a quote, its endorsements, and the record inside a session certificate.
//!
//! Owns: the encoding of evidence and of the certificate extension, and its bounds.
//! Must not: judge evidence. A decoded quote is still a stranger's bytes.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::attest::bytes::{Malformed, Reader};
use crate::identity::{NodeId, append_length_prefixed};
use crate::limits;

/// Length of the user data in a TDX or SNP report: one SHA-512 hash.
pub const REPORT_DATA_BYTES: usize = 64;

/// Which kind of evidence a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvidenceKind {
    /// None: the node proves who it is and nothing else.
    None,
    /// An Intel TDX quote.
    Tdx,
    /// An AMD SEV-SNP attestation report.
    Snp,
    /// A quote in TDX's form under the public test root. Proves NOTHING about the hardware.
    SimulatedTdx,
    /// A report in SEV-SNP's form under the public test root. Proves NOTHING about the hardware.
    SimulatedSnp,
}

impl EvidenceKind {
    /// The kind's byte on the wire and in the binding.
    pub const fn as_byte(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Tdx => 1,
            Self::Snp => 2,
            Self::SimulatedTdx => 0xd1,
            Self::SimulatedSnp => 0xd2,
        }
    }

    /// The kind that `byte` stands for.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::Tdx),
            2 => Some(Self::Snp),
            0xd1 => Some(Self::SimulatedTdx),
            0xd2 => Some(Self::SimulatedSnp),
            _ => None,
        }
    }

    /// The kind's name for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tdx => "tdx",
            Self::Snp => "snp",
            Self::SimulatedTdx => "simulated-tdx",
            Self::SimulatedSnp => "simulated-snp",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::Tdx, Self::Snp, Self::SimulatedTdx, Self::SimulatedSnp]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }

    /// Whether anybody can forge it. Shown wherever the tier is shown.
    pub const fn is_simulated(self) -> bool {
        match self {
            Self::None | Self::Tdx | Self::Snp => false,
            Self::SimulatedTdx | Self::SimulatedSnp => true,
        }
    }
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Evidence of one attestation, unverified.
#[derive(Clone, PartialEq, Eq)]
pub enum Evidence {
    /// No TEE: tier `open`.
    None,
    /// A TDX quote.
    Tdx {
        /// The quote as the quoting enclave made it.
        quote: Bytes,
    },
    /// A SEV-SNP attestation report.
    Snp {
        /// The report as the secure processor made it.
        report: Bytes,
    },
    /// A simulated TDX quote.
    SimulatedTdx {
        /// The quote as the simulation forged it.
        quote: Bytes,
    },
    /// A simulated SEV-SNP report.
    SimulatedSnp {
        /// The report as the simulation forged it.
        report: Bytes,
    },
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Evidence({}, {} bytes)", self.kind(), self.quote().len())
    }
}

impl Evidence {
    /// Its kind.
    pub const fn kind(&self) -> EvidenceKind {
        match self {
            Self::None => EvidenceKind::None,
            Self::Tdx { .. } => EvidenceKind::Tdx,
            Self::Snp { .. } => EvidenceKind::Snp,
            Self::SimulatedTdx { .. } => EvidenceKind::SimulatedTdx,
            Self::SimulatedSnp { .. } => EvidenceKind::SimulatedSnp,
        }
    }

    /// Evidence of `kind` that consists of `quote`; `None` where one is there and the other is not.
    pub fn new(kind: EvidenceKind, quote: Bytes) -> Option<Self> {
        // One spelling for one meaning: nothing carries no bytes, a quote is never empty.
        if quote.is_empty() != (kind == EvidenceKind::None) {
            return None;
        }
        Some(match kind {
            EvidenceKind::None => Self::None,
            EvidenceKind::Tdx => Self::Tdx { quote },
            EvidenceKind::Snp => Self::Snp { report: quote },
            EvidenceKind::SimulatedTdx => Self::SimulatedTdx { quote },
            EvidenceKind::SimulatedSnp => Self::SimulatedSnp { report: quote },
        })
    }

    /// The quote or report; empty for [`Evidence::None`].
    pub fn quote(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Tdx { quote: bytes }
            | Self::Snp { report: bytes }
            | Self::SimulatedTdx { quote: bytes }
            | Self::SimulatedSnp { report: bytes } => bytes,
        }
    }

    /// SHA-256 of the encoded evidence: how a verdict names what it judged.
    pub fn digest(&self) -> [u8; 32] {
        let mut bytes = Vec::new();
        self.append(&mut bytes);
        Sha256::digest(&bytes).into()
    }

    /// Appends `kind ‖ LP(quote)`.
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        out.push(self.kind().as_byte());
        append_length_prefixed(out, self.quote());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = EvidenceKind::from_byte(reader.byte()?).ok_or(Malformed)?;
        let quote = reader.length_prefixed(limits::EVIDENCE_BYTES)?;
        Self::new(kind, Bytes::copy_from_slice(quote)).ok_or(Malformed)
    }
}

/// Version of the identity record.
const IDENTITY_RECORD_VERSION: u8 = 1;
/// Media type of the identity record inside its conceptual message wrapper.
const IDENTITY_MEDIA_TYPE: &[u8] = b"application/vnd.cocoon.tee-identity";
/// `cm-type` of a wrapper that carries evidence (RFC 9999: bit 2).
const CMW_EVIDENCE: u8 = 4;

/// What a session certificate says about its node, beside the key and the dates: the content of
/// X.509 extension 1.3.6.1.5.5.7.1.35.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRecord {
    /// The node that the certificate belongs to.
    pub peer: NodeId,
    /// SHA-256 of the capabilities in the node's offer.
    pub capabilities: [u8; 32],
    /// Digest of the configuration that the node runs with.
    pub configuration: [u8; 32],
    /// The identity quote, bound to all of this by `IdentityBinding`.
    pub evidence: Evidence,
}

impl IdentityRecord {
    /// The extension's value: a DER octet string (`CMW ::= CHOICE { …, cbor OCTET STRING }`) around
    /// the CBOR array `[media type, record, evidence]` of RFC 9999.
    pub fn to_extension(&self) -> Vec<u8> {
        let mut record = vec![IDENTITY_RECORD_VERSION];
        record.extend_from_slice(self.peer.as_bytes());
        record.extend_from_slice(&self.capabilities);
        record.extend_from_slice(&self.configuration);
        self.evidence.append(&mut record);

        let mut wrapper = vec![CBOR_ARRAY_OF_THREE];
        append_cbor_head(&mut wrapper, CBOR_TEXT, IDENTITY_MEDIA_TYPE.len());
        wrapper.extend_from_slice(IDENTITY_MEDIA_TYPE);
        append_cbor_head(&mut wrapper, CBOR_BYTES, record.len());
        wrapper.extend_from_slice(&record);
        wrapper.push(CMW_EVIDENCE);

        let mut extension = vec![DER_OCTET_STRING];
        append_der_length(&mut extension, wrapper.len());
        extension.extend_from_slice(&wrapper);
        extension
    }

    /// Reads an extension's value. Only the one encoding that [`Self::to_extension`] makes is
    /// accepted, so that equal records are equal bytes.
    pub fn from_extension(extension: &[u8]) -> Result<Self, Malformed> {
        let mut outer = Reader::new(extension);
        if outer.byte()? != DER_OCTET_STRING {
            return Err(Malformed);
        }
        let length = read_der_length(&mut outer)?;
        let mut wrapper = Reader::new(outer.take(length)?);
        outer.finish()?;

        if wrapper.byte()? != CBOR_ARRAY_OF_THREE {
            return Err(Malformed);
        }
        let length = read_cbor_head(&mut wrapper, CBOR_TEXT)?;
        if wrapper.take(length)? != IDENTITY_MEDIA_TYPE {
            return Err(Malformed);
        }
        let length = read_cbor_head(&mut wrapper, CBOR_BYTES)?;
        let mut record = Reader::new(wrapper.take(length)?);
        if wrapper.byte()? != CMW_EVIDENCE {
            return Err(Malformed);
        }
        wrapper.finish()?;

        if record.byte()? != IDENTITY_RECORD_VERSION {
            return Err(Malformed);
        }
        let read = Self {
            peer: NodeId::from_bytes(record.array()?),
            capabilities: record.array()?,
            configuration: record.array()?,
            evidence: Evidence::read(&mut record)?,
        };
        record.finish()?;
        Ok(read)
    }
}

const DER_OCTET_STRING: u8 = 0x04;
const CBOR_ARRAY_OF_THREE: u8 = 0x83;
const CBOR_BYTES: u8 = 0x40;
const CBOR_TEXT: u8 = 0x60;

/// Appends a CBOR head (RFC 8949 §3) in its shortest form. Lengths here stay below 4 GiB.
fn append_cbor_head(out: &mut Vec<u8>, major: u8, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 24 => out.push(major | short),
        (Ok(one), _) => out.extend_from_slice(&[major | 24, one]),
        (_, Ok(two)) => {
            out.push(major | 25);
            out.extend_from_slice(&two.to_be_bytes());
        }
        _ => {
            out.push(major | 26);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}

/// Reads a CBOR head of the given major type; only the shortest form.
fn read_cbor_head(reader: &mut Reader<'_>, major: u8) -> Result<usize, Malformed> {
    let head = reader.byte()?;
    if head & 0xe0 != major {
        return Err(Malformed);
    }
    let (length, least) = match head & 0x1f {
        short @ 0..=23 => (u32::from(short), 0),
        24 => (u32::from(reader.byte()?), 24),
        25 => (u32::from(u16::from_be_bytes(reader.array()?)), 0x100),
        26 => (u32::from_be_bytes(reader.array()?), 0x1_0000),
        _ => return Err(Malformed),
    };
    if length < least {
        return Err(Malformed);
    }
    usize::try_from(length).map_err(|_| Malformed)
}

/// Appends a DER length (X.690 §10.1) in its shortest form.
fn append_der_length(out: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let digits = bytes.get(zeros..).unwrap_or_default();
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            out.extend_from_slice(digits);
        }
    }
}

/// Reads a DER length of at most three bytes; only the shortest form.
fn read_der_length(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    let (length, least) = match reader.byte()? {
        short @ 0..=0x7f => (u32::from(short), 0),
        0x81 => (u32::from(reader.byte()?), 0x80),
        0x82 => (u32::from(u16::from_be_bytes(reader.array()?)), 0x100),
        0x83 => {
            let [high, middle, low] = reader.array()?;
            (u32::from_be_bytes([0, high, middle, low]), 0x1_0000)
        }
        _ => return Err(Malformed),
    };
    if length < least {
        return Err(Malformed);
    }
    usize::try_from(length).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(evidence: Evidence) -> IdentityRecord {
        IdentityRecord {
            peer: NodeId::from_bytes([1; 32]),
            capabilities: [2; 32],
            configuration: [3; 32],
            evidence,
        }
    }

    #[test]
    fn golden_extension_without_evidence() {
        let bytes = record(Evidence::None).to_extension();
        let expected = [
            // OCTET STRING, 143 bytes
            "04818f",
            // CBOR array of 3; text of 35
            "837823",
            &hex::encode(IDENTITY_MEDIA_TYPE),
            // bytes of 102: version 1
            "586601",
            &"01".repeat(32),
            &"02".repeat(32),
            &"03".repeat(32),
            // evidence: kind 0, length 0
            "0000000000",
            // cm-type evidence
            "04",
        ]
        .concat();
        assert_eq!(hex::encode(&bytes), expected);
        assert_eq!(IdentityRecord::from_extension(&bytes), Ok(record(Evidence::None)));
    }

    #[test]
    fn records_of_every_length_class_round_trip() {
        for length in [1, 22, 23, 24, 120, 130, 255, 256, 5_000, 65_535, 65_536] {
            let quote = Bytes::from(vec![7; length]);
            let record = record(Evidence::Tdx { quote });
            assert_eq!(IdentityRecord::from_extension(&record.to_extension()), Ok(record));
        }
    }

    #[test]
    fn a_quote_beyond_the_limit_is_refused() {
        let quote = Bytes::from(vec![7; limits::EVIDENCE_BYTES + 1]);
        let bytes = record(Evidence::Tdx { quote }).to_extension();
        assert_eq!(IdentityRecord::from_extension(&bytes), Err(Malformed));
    }

    #[test]
    fn an_empty_quote_and_a_quoted_nothing_are_refused() {
        let mut reader = Reader::new(&[1, 0, 0, 0, 0]);
        assert_eq!(Evidence::read(&mut reader), Err(Malformed));
        let mut reader = Reader::new(&[0, 0, 0, 0, 1, 9]);
        assert_eq!(Evidence::read(&mut reader), Err(Malformed));
    }

    #[test]
    fn every_truncation_and_every_appended_byte_is_refused() {
        let quote = Bytes::from_static(b"quote");
        let bytes = record(Evidence::SimulatedTdx { quote }).to_extension();
        for end in 0..bytes.len() {
            assert_eq!(IdentityRecord::from_extension(&bytes[..end]), Err(Malformed));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(IdentityRecord::from_extension(&longer), Err(Malformed));
    }

    #[test]
    fn lengths_in_a_longer_form_are_refused() {
        let mut reader = Reader::new(&[CBOR_BYTES | 24, 23]);
        assert_eq!(read_cbor_head(&mut reader, CBOR_BYTES), Err(Malformed));
        let mut reader = Reader::new(&[0x81, 0x7f]);
        assert_eq!(read_der_length(&mut reader), Err(Malformed));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = IdentityRecord::from_extension(&bytes);
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(
            position in 0usize..160, value: u8, quote in prop::collection::vec(any::<u8>(), 1..40),
        ) {
            let record = record(Evidence::Tdx { quote: Bytes::from(quote) });
            let mut bytes = record.to_extension();
            if let Some(byte) = bytes.get_mut(position) {
                *byte = value;
            }
            if let Ok(decoded) = IdentityRecord::from_extension(&bytes) {
                prop_assert_eq!(decoded.to_extension(), bytes);
            }
        }
    }
}
