//! Which part of a SEV-SNP report or its endorsements did not verify.
//!
//! Owns: the names of the checks that need no policy. Must not: check.

use std::fmt;

/// A check that failed. The certificates are the root (ARK), the intermediate (ASK, or ASVK for a
/// provider of machines) and the one that signs reports (VCEK, or VLEK likewise).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnpCheck {
    /// The report's version is none that this node understands.
    ReportVersion,
    /// The report names another signature algorithm than ECDSA P-384 with SHA-384.
    SignatureAlgorithm,
    /// Bytes around the signature that must be zero are not.
    SignaturePadding,
    /// The report's signature is not of the key in the certificate.
    ReportSignature,
    /// The report was signed by no key, by one of a reserved kind, or by another kind of key than
    /// the certificate's.
    SigningKey,
    /// The report's processor is of another family than the certificates.
    Product,
    /// The endorsements are not certificate, intermediate and revocation list.
    EndorsementForm,
    /// A certificate has another form than AMD's.
    CertificateForm,
    /// A certificate was not issued by the next one.
    CertificateIssuer,
    /// An issuer may not issue, or the signing certificate may.
    CertificateAuthority,
    /// A certificate's signature does not verify.
    CertificateSignature,
    /// A certificate or the revocation list begins in the future.
    NotYetValid,
    /// The revocation list is none.
    RevocationListForm,
    /// The revocation list is another issuer's than the root's.
    RevocationListIssuer,
    /// The revocation list's signature does not verify.
    RevocationListSignature,
    /// The certificate was made for another firmware level than the report claims.
    TcbBinding,
    /// The certificate was made for another chip than the report names.
    ChipBinding,
    /// The guest's policy has bits that this node does not know, or lacks the one that is always set.
    GuestPolicyForm,
}

impl fmt::Display for SnpCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReportVersion => "version of the report",
            Self::SignatureAlgorithm => "signature algorithm of the report",
            Self::SignaturePadding => "zeros around the signature",
            Self::ReportSignature => "signature of the report",
            Self::SigningKey => "kind of the signing key",
            Self::Product => "processor family",
            Self::EndorsementForm => "form of the endorsements",
            Self::CertificateForm => "form of a certificate",
            Self::CertificateIssuer => "issuer of a certificate",
            Self::CertificateAuthority => "authority of a certificate",
            Self::CertificateSignature => "signature of a certificate",
            Self::NotYetValid => "begin of validity; check both clocks",
            Self::RevocationListForm => "form of the revocation list",
            Self::RevocationListIssuer => "issuer of the revocation list",
            Self::RevocationListSignature => "signature of the revocation list",
            Self::TcbBinding => "firmware level in the certificate",
            Self::ChipBinding => "chip in the certificate",
            Self::GuestPolicyForm => "reserved bits of the guest policy",
        })
    }
}
