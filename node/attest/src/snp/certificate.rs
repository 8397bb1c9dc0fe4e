//! AMD's certificates: read strictly, and checked one against its issuer.
//!
//! Owns: form, dates, authority, issuer's name and RSA-PSS signature of one certificate.
//! Must not: know which certificates make a chain.

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use cocoon_protocol::attest::{Refusal, SnpCheck};
use cocoon_protocol::units::Timestamp;
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{AnyRef, Decode as _, Reader as _, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use crate::snp::invalid;

/// `id-RSASSA-PSS` (RFC 4055). AMD signs with SHA-384 and a salt of 48 bytes; the verification below
/// takes nothing else, whatever the parameters say.
pub(super) const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// A certificate of AMD's form.
pub(crate) struct SnpCertificate {
    der: Vec<u8>,
    parsed: Certificate,
}

impl SnpCertificate {
    /// Reads a certificate: version 3, RSA-PSS inside and out, and nothing critical that is not
    /// understood here.
    pub(crate) fn read(der: &[u8]) -> Result<Self, Refusal> {
        let form = invalid(SnpCheck::CertificateForm);
        let parsed = Certificate::from_der(der).map_err(|_| form.clone())?;
        let body = parsed.tbs_certificate();
        let mut extensions = body.extensions().into_iter().flatten();
        let understood = |id| id == BASIC_CONSTRAINTS || id == KEY_USAGE;
        let sound = body.version() == Version::V3
            && is_rsa_pss(body.signature(), parsed.signature_algorithm())
            && extensions.all(|extension| !extension.critical || understood(extension.extn_id));
        if sound { Ok(Self { der: der.to_vec(), parsed }) } else { Err(form) }
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(super) fn subject(&self) -> &Name {
        self.parsed.tbs_certificate().subject()
    }

    pub(super) fn issuer(&self) -> &Name {
        self.parsed.tbs_certificate().issuer()
    }

    pub(super) fn serial(&self) -> &SerialNumber {
        self.parsed.tbs_certificate().serial_number()
    }

    /// The key's bits: an RSA key in PKCS #1, or a point.
    pub(super) fn public_key(&self) -> &[u8] {
        self.parsed.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
    }

    pub(super) fn expires(&self) -> Timestamp {
        timestamp(self.parsed.tbs_certificate().validity().not_after)
    }

    pub(super) fn check_dates(&self, now: Timestamp) -> Result<(), Refusal> {
        if now < timestamp(self.parsed.tbs_certificate().validity().not_before) {
            return Err(invalid(SnpCheck::NotYetValid));
        }
        if self.expires() < now { Err(Refusal::CollateralExpired) } else { Ok(()) }
    }

    /// May sign certificates.
    pub(super) fn check_authority(&self) -> Result<(), Refusal> {
        let body = self.parsed.tbs_certificate();
        let authority = matches!(
            body.get_extension::<BasicConstraints>(),
            Ok(Some((_, constraints))) if constraints.ca
        );
        let usage = matches!(
            body.get_extension::<KeyUsage>(),
            Ok(Some((_, usage))) if usage.key_cert_sign()
        );
        if authority && usage { Ok(()) } else { Err(invalid(SnpCheck::CertificateAuthority)) }
    }

    /// May not sign certificates.
    pub(super) fn check_no_authority(&self) -> Result<(), Refusal> {
        match self.parsed.tbs_certificate().get_extension::<BasicConstraints>() {
            Ok(None) => Ok(()),
            Ok(Some((_, constraints))) if !constraints.ca => Ok(()),
            Ok(Some(_)) | Err(_) => Err(invalid(SnpCheck::CertificateAuthority)),
        }
    }

    /// Was issued by `issuer`, by name and by signature.
    pub(super) fn check_issuer(&self, issuer: &Self) -> Result<(), Refusal> {
        if self.issuer() != issuer.subject() {
            return Err(invalid(SnpCheck::CertificateIssuer));
        }
        if issuer.signed(&self.der, self.parsed.signature().as_bytes()) {
            Ok(())
        } else {
            Err(invalid(SnpCheck::CertificateSignature))
        }
    }

    /// Whether this certificate's key made `signature` over the first part of `document`, which is a
    /// DER sequence as certificates and revocation lists are. The bytes are the document's own: what
    /// an encoder would make of the parsed form proves nothing.
    pub(super) fn signed(&self, document: &[u8], signature: Option<&[u8]>) -> bool {
        let (Some(part), Some(signature)) = (signed_part(document), signature) else {
            return false;
        };
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, self.public_key())
            .verify(part, signature)
            .is_ok()
    }

    /// The value of AMD's extension `id`; `None` if it is missing or there twice.
    pub(super) fn extension(&self, id: ObjectIdentifier) -> Option<&[u8]> {
        let all = self.parsed.tbs_certificate().extensions().into_iter().flatten();
        let mut found = all.filter(|extension| extension.extn_id == id);
        match (found.next(), found.next()) {
            (Some(extension), None) => Some(extension.extn_value.as_bytes()),
            _ => None,
        }
    }
}

/// The same algorithm inside and outside of what is signed, and the right one.
pub(super) fn is_rsa_pss(
    inner: &AlgorithmIdentifierOwned,
    outer: &AlgorithmIdentifierOwned,
) -> bool {
    inner == outer && inner.oid == RSA_PSS
}

/// The first element of a DER sequence, with its header.
fn signed_part(document: &[u8]) -> Option<&[u8]> {
    let content = AnyRef::from_der(document).ok()?.value();
    SliceReader::new(content).ok()?.tlv_bytes().ok()
}

pub(super) fn timestamp(time: Time) -> Timestamp {
    Timestamp::from_unix_secs(time.to_unix_duration().as_secs())
}
