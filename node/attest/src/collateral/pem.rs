//! Certificates and revocation lists as services write them.
//!
//! Owns: PEM (RFC 7468) and percent-encoding (RFC 3986 §2.1), as much as is needed; the dates inside.
//! Must not: verify a signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cocoon_protocol::units::Timestamp;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Certificates in one chain.
const CHAIN: usize = 6;

/// The certificates of a PEM text, DER; `None` when there is none, too many, or one that is no
/// certificate.
pub(super) fn certificates(text: &str) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (body, after) = after.split_once(END)?;
        let digits: String = body.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(digits).ok()?;
        Certificate::from_der(&der).ok()?;
        found.push(der);
        rest = after;
    }
    (1..=CHAIN).contains(&found.len()).then_some(found)
}

/// When a certificate ends; `None` when it is none.
pub(super) fn not_after(der: &[u8]) -> Option<Timestamp> {
    let certificate = Certificate::from_der(der).ok()?;
    let end = certificate.tbs_certificate().validity().not_after;
    Some(Timestamp::from_unix_secs(end.to_unix_duration().as_secs()))
}

/// When a revocation list ends; `None` when it is none, or has no end.
pub(super) fn next_update(der: &[u8]) -> Option<Timestamp> {
    let list: CertificateList = CertificateList::from_der(der).ok()?;
    let end = list.tbs_cert_list.next_update?;
    Some(Timestamp::from_unix_secs(end.to_unix_duration().as_secs()))
}

/// A text of hexadecimal digits as bytes, anything else as it is: caches of Intel's service write
/// revocation lists as text, Intel itself as DER.
pub(super) fn binary(body: Vec<u8>) -> Vec<u8> {
    match hex::decode(body.trim_ascii()) {
        Ok(bytes) if !bytes.is_empty() => bytes,
        Ok(_) | Err(_) => body,
    }
}

/// Text without percent-encoding; `None` when it is not UTF-8 or ends within an escape.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let mut decoded = [0; 1];
            hex::decode_to_slice(digits, &mut decoded).ok()?;
            out.extend(decoded);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_and_broken_escapes_are_refused() {
        assert_eq!(percent_decoded("a%20b%0A%2b+").as_deref(), Some("a b\n++"));
        for broken in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(percent_decoded(broken), None, "{broken}");
        }
    }

    #[test]
    fn chains_are_whole_or_nothing() {
        let certificate = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert;
        let (pem, der) = (certificate.pem(), certificate.der().to_vec());
        assert_eq!(certificates(&format!("{pem}\n{pem}")), Some(vec![der.clone(), der.clone()]));
        assert!(not_after(&der).is_some_and(|end| end > Timestamp::EPOCH));
        assert_eq!(certificates(""), None);
        assert_eq!(certificates(&pem.repeat(CHAIN + 1)), None);
        assert_eq!(certificates(&pem.replace(END, "")), None);
        assert_eq!(certificates(&format!("{BEGIN}\nAAAA\n{END}")), None);
        assert_eq!((not_after(b"0"), next_update(&der)), (None, None));
    }

    #[test]
    fn hexadecimal_is_read_as_bytes_and_der_is_left_alone() {
        assert_eq!(binary(b"3001ff\n".to_vec()), [0x30, 1, 0xff]);
        assert_eq!(binary(vec![0x30, 0x82]), [0x30, 0x82]);
        assert_eq!(binary(Vec::new()), Vec::<u8>::new());
    }
}
