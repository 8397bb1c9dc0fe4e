//! Session certificates: made by a provider, read by a consumer.
//!
//! Owns: their form and dates, on both sides.
//! Must not: trust their content; the identity quote inside is judged by the appraiser.

use cocoon_protocol::attest::{IdentityRecord, Refusal};
use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, PublicKeyData as _,
};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::{Decode as _, Encode as _};

/// `id-pe-cmw` (RFC 9999).
const CMW_OID: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 35];
const CMW_OID_TEXT: &str = "1.3.6.1.5.5.7.1.35";

/// What a consumer has read from a provider's certificate. Form and dates are checked; the
/// identity quote is not.
#[derive(Clone, Debug)]
pub(crate) struct SessionCertificate {
    /// SHA-256 of the certificate.
    pub(crate) digest: [u8; 32],
    /// SubjectPublicKeyInfo, DER.
    pub(crate) public_key: Vec<u8>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) record: IdentityRecord,
}

impl SessionCertificate {
    /// Reads a certificate that must be valid at `now`. Its own signature is not looked at: TLS
    /// proves that the peer holds the key, and the identity quote covers key and dates.
    pub(crate) fn read(der: &[u8], now: Timestamp) -> Result<Self, Refusal> {
        let invalid = |_| Refusal::CertificateInvalid;
        let certificate = Certificate::from_der(der).map_err(invalid)?;
        let body = certificate.tbs_certificate();
        if body.version() != Version::V3 {
            return Err(Refusal::CertificateInvalid);
        }
        let seconds = |time: x509_cert::time::Time| {
            Timestamp::from_unix_secs(time.to_unix_duration().as_secs())
        };
        let validity = body.validity();
        let (not_before, not_after) = (seconds(validity.not_before), seconds(validity.not_after));
        if not_before > now.after(limits::CLOCK_SKEW) || not_after < now {
            return Err(Refusal::CertificateExpired);
        }
        if not_after < not_before || not_after.since(not_before) > limits::CERTIFICATE_LIFETIME {
            return Err(Refusal::CertificateTooLong);
        }
        let mut wrappers = body
            .extensions()
            .into_iter()
            .flatten()
            .filter(|extension| extension.extn_id.to_string() == CMW_OID_TEXT);
        let (Some(wrapper), None) = (wrappers.next(), wrappers.next()) else {
            return Err(Refusal::CertificateInvalid);
        };
        let record = IdentityRecord::from_extension(wrapper.extn_value.as_bytes())
            .map_err(|_| Refusal::Malformed)?;
        Ok(Self {
            digest: Sha256::digest(der).into(),
            public_key: body.subject_public_key_info().to_der().map_err(invalid)?,
            not_before,
            not_after,
            record,
        })
    }
}

/// The dates of a certificate made at `now`: from a little earlier, for clocks that are behind, for
/// the allowed life. Whole seconds, as X.509 has them.
pub(crate) fn validity(now: Timestamp) -> (Timestamp, Timestamp) {
    let begin = now.as_unix_secs().saturating_sub(limits::CLOCK_SKEW.get() / 1000);
    let not_before = Timestamp::from_unix_secs(begin);
    (not_before, not_before.after(limits::CERTIFICATE_LIFETIME))
}

/// Makes the self-signed certificate of `key` with `record` inside, DER.
pub(crate) fn issue(
    key: &KeyPair,
    record: &IdentityRecord,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<Vec<u8>, rcgen::Error> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "cocoon session");
    parameters.not_before = date(not_before)?;
    parameters.not_after = date(not_after)?;
    // Not critical: TLS libraries refuse certificates with critical extensions that they do not
    // know, and the consumer demands this one anyway.
    let extension = CustomExtension::from_oid_content(&CMW_OID, record.to_extension());
    parameters.custom_extensions.push(extension);
    Ok(parameters.self_signed(key)?.der().to_vec())
}

fn date(at: Timestamp) -> Result<OffsetDateTime, rcgen::Error> {
    i64::try_from(at.as_unix_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(rcgen::Error::Time)
}

/// The SubjectPublicKeyInfo of `key`, DER.
pub(crate) fn public_key(key: &KeyPair) -> Vec<u8> {
    key.subject_public_key_info()
}
