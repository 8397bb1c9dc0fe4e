//! AMD's revocation lists: which intermediates a root has withdrawn.
//!
//! Owns: a list's form, dates, issuer and signature, and the look-up.
//! Must not: be optional; without a current list nothing is accepted.

use cocoon_protocol::attest::{Refusal, SnpCheck};
use cocoon_protocol::units::Timestamp;
use x509_cert::certificate::Version;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;
use x509_cert::serial_number::SerialNumber;

use crate::snp::certificate::{is_rsa_pss, timestamp};
use crate::snp::chain::Chain;
use crate::snp::invalid;

/// A revocation list of the right form.
pub(super) struct RevocationList {
    der: Vec<u8>,
    parsed: CertificateList,
    pub(super) issued: Timestamp,
    pub(super) expires: Timestamp,
}

impl RevocationList {
    /// Reads a list. One without an end never expires by itself; AMD's have one. A critical extension
    /// could limit what the list speaks about, so none is accepted, in the list or in an entry.
    pub(super) fn read(der: &[u8]) -> Result<Self, Refusal> {
        let form = || invalid(SnpCheck::RevocationListForm);
        let parsed: CertificateList = CertificateList::from_der(der).map_err(|_| form())?;
        let body = &parsed.tbs_cert_list;
        let entries = body.revoked_certificates.iter().flatten();
        let mut extensions = body
            .crl_extensions
            .iter()
            .flatten()
            .chain(entries.flat_map(|entry| entry.crl_entry_extensions.iter().flatten()));
        let sound = body.version == Version::V2
            && is_rsa_pss(&body.signature, &parsed.signature_algorithm)
            && extensions.all(|extension| !extension.critical);
        let (Some(end), true) = (body.next_update, sound) else { return Err(form()) };
        let (issued, expires) = (timestamp(body.this_update), timestamp(end));
        Ok(Self { der: der.to_vec(), parsed, issued, expires })
    }

    /// The list is the root's, holds at `now`, and names no certificate of the chain.
    pub(super) fn check(&self, chain: &Chain<'_>, now: Timestamp) -> Result<(), Refusal> {
        let body = &self.parsed.tbs_cert_list;
        if body.issuer != *chain.ark.subject() {
            return Err(invalid(SnpCheck::RevocationListIssuer));
        }
        if !chain.ark.signed(&self.der, self.parsed.signature.as_bytes()) {
            return Err(invalid(SnpCheck::RevocationListSignature));
        }
        if now < self.issued {
            return Err(invalid(SnpCheck::NotYetValid));
        }
        if self.expires < now {
            return Err(Refusal::RevocationListExpired);
        }
        let revoked = |serial: &SerialNumber| {
            body.revoked_certificates.iter().flatten().any(|entry| entry.serial_number == *serial)
        };
        for (certificate, name) in [(&chain.ask, "intermediate (ASK)"), (chain.ark, "root (ARK)")] {
            if revoked(certificate.serial()) {
                return Err(Refusal::Revoked { certificate: name });
            }
        }
        Ok(())
    }
}
