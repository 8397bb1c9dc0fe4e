//! What a verifier needs beside a SEV-SNP report: two certificates and a revocation list.
//!
//! Owns: their encoding and bounds. Must not: trust them; they are a stranger's bytes.

use bytes::Bytes;

use crate::attest::bytes::{Malformed, Reader};
use crate::identity::append_length_prefixed;

const VERSION: u8 = 1;
/// AMD's certificates are below 1.7 kB.
const CERTIFICATE_BYTES: usize = 8_192;
/// AMD's lists name intermediates of one family only, and hold a handful of entries.
const CRL_BYTES: usize = 65_536;

/// Endorsements of a SEV-SNP report. The root is not among them: a verifier has its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpEndorsements {
    /// The certificate of the key that signed the report (VCEK or VLEK), DER.
    pub vek: Bytes,
    /// The certificate of its issuer (ASK or ASVK), DER.
    pub ask: Bytes,
    /// The revocation list of the family's root, DER.
    pub crl: Bytes,
}

impl SnpEndorsements {
    /// `version ‖ LP(vek) ‖ LP(ask) ‖ LP(crl)`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for part in [&self.vek, &self.ask, &self.crl] {
            append_length_prefixed(&mut out, part);
        }
        out
    }

    /// Reads encoded endorsements.
    ///
    /// # Errors
    /// Another version, a part beyond its bound, or bytes too many or too few.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != VERSION {
            return Err(Malformed);
        }
        let mut part = |limit| reader.length_prefixed(limit).map(Bytes::copy_from_slice);
        let (vek, ask) = (part(CERTIFICATE_BYTES)?, part(CERTIFICATE_BYTES)?);
        let crl = part(CRL_BYTES)?;
        reader.finish()?;
        Ok(Self { vek, ask, crl })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endorsements() -> SnpEndorsements {
        let part = Bytes::from_static;
        SnpEndorsements { vek: part(b"vek"), ask: part(b"as"), crl: part(b"c") }
    }

    #[test]
    fn golden_endorsements() {
        let bytes = endorsements().to_bytes();
        assert_eq!(hex::encode(&bytes), "010000000376656b0000000261730000000163");
        assert_eq!(SnpEndorsements::from_bytes(&bytes), Ok(endorsements()));
    }

    #[test]
    fn every_truncation_every_appended_byte_and_other_versions_are_refused() {
        let bytes = endorsements().to_bytes();
        for end in 0..bytes.len() {
            assert_eq!(SnpEndorsements::from_bytes(&bytes[..end]), Err(Malformed));
        }
        assert_eq!(SnpEndorsements::from_bytes(&[&bytes[..], &[0]].concat()), Err(Malformed));
        for version in [0, 2, 0xff] {
            let other = [&[version], &bytes[1..]].concat();
            assert_eq!(SnpEndorsements::from_bytes(&other), Err(Malformed));
        }
    }

    #[test]
    fn every_part_has_its_bound() {
        let of = |length: usize| Bytes::from(vec![0; length]);
        let at = SnpEndorsements {
            vek: of(CERTIFICATE_BYTES),
            ask: of(CERTIFICATE_BYTES),
            crl: of(CRL_BYTES),
        };
        assert_eq!(SnpEndorsements::from_bytes(&at.to_bytes()), Ok(at.clone()));
        let beyond = [
            SnpEndorsements { vek: of(CERTIFICATE_BYTES + 1), ..at.clone() },
            SnpEndorsements { ask: of(CERTIFICATE_BYTES + 1), ..at.clone() },
            SnpEndorsements { crl: of(CRL_BYTES + 1), ..at },
        ];
        for beyond in beyond {
            assert_eq!(SnpEndorsements::from_bytes(&beyond.to_bytes()), Err(Malformed));
        }
    }
}
