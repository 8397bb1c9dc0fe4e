//! Certificates and revocation lists, good and bad, under the public test keys.
//!
//! Owns: their writing. Must not: share code with what reads them.

use aws_lc_rs::signature::RsaKeyPair;
use cocoon_protocol::attest::SnpTcb;
use cocoon_protocol::units::Timestamp;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use crate::simulated::der::{self, element, object_identifier, octets, sequence};
use crate::simulated::snp::pki::{Keys, date};

use super::keys;

const SET: u8 = 0x31;
const UTF8: u8 = 0x0c;
const BOOLEAN: u8 = 0x01;
const EXPLICIT_3: u8 = 0xa3;
const AMD: &str = "1.3.6.1.4.1.3704.1";

/// An extension: identifier, critical, value.
pub(super) type Extension = (String, bool, Vec<u8>);

/// A distinguished name of one part.
pub(super) fn common_name(name: &str) -> Vec<u8> {
    let part = sequence(&[object_identifier("2.5.4.3"), element(UTF8, name.as_bytes())]);
    sequence(&[element(SET, &part)])
}

/// Everything that a certificate says.
#[derive(Clone)]
pub(super) struct CertificateSpec {
    pub(super) version: u8,
    pub(super) serial: Vec<u8>,
    pub(super) algorithm: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) begins: Timestamp,
    pub(super) ends: Timestamp,
    pub(super) subject: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) extensions: Vec<Extension>,
    /// What stands outside of the signed part; `None` for the same as inside.
    pub(super) outer_algorithm: Option<Vec<u8>>,
}

impl CertificateSpec {
    /// What an existing certificate says.
    pub(super) fn of(certificate: &[u8]) -> Self {
        let certificate = Certificate::from_der(certificate).unwrap();
        let body = certificate.tbs_certificate();
        let seconds = |time: x509_cert::time::Time| {
            Timestamp::from_unix_secs(time.to_unix_duration().as_secs())
        };
        let extensions = body.extensions().unwrap().iter().map(|extension| {
            let value = extension.extn_value.as_bytes().to_vec();
            (extension.extn_id.to_string(), extension.critical, value)
        });
        Self {
            version: 2,
            serial: body.serial_number().as_bytes().to_vec(),
            algorithm: body.signature().to_der().unwrap(),
            issuer: body.issuer().to_der().unwrap(),
            begins: seconds(body.validity().not_before),
            ends: seconds(body.validity().not_after),
            subject: body.subject().to_der().unwrap(),
            key: body.subject_public_key_info().to_der().unwrap(),
            extensions: extensions.collect(),
            outer_algorithm: None,
        }
    }

    pub(super) fn root(name: &str) -> Self {
        let name = common_name(name);
        Self { issuer: name.clone(), subject: name, ..Self::of(super::ARK) }
    }

    pub(super) fn intermediate(name: &str, issuer: &Self) -> Self {
        Self { issuer: issuer.subject.clone(), subject: common_name(name), ..Self::of(super::ASK) }
    }

    pub(super) fn vcek(issuer: &Self, chip: &[u8], tcb: &SnpTcb, fmc: bool) -> Self {
        let mut certificate = Self { issuer: issuer.subject.clone(), ..Self::of(super::VCEK) };
        certificate.extensions = vec![(format!("{AMD}.4"), false, chip.to_vec())];
        let arcs = [("3.9", tcb.fmc), ("3.1", tcb.boot_loader), ("3.2", tcb.tee)];
        let arcs = arcs.into_iter().chain([("3.3", tcb.snp), ("3.8", tcb.microcode)]);
        for (arc, version) in arcs.skip(usize::from(!fmc)) {
            certificate.set(arc, Some(integer(version)));
        }
        certificate
    }

    pub(super) fn vlek(issuer: &Self, tcb: &SnpTcb) -> Self {
        let mut certificate = Self::vcek(issuer, &[], tcb, false);
        certificate.set("4", None);
        certificate.set("5", Some(b"a provider".to_vec()));
        certificate
    }

    /// Replaces, adds or removes AMD's extension.
    pub(super) fn set(&mut self, arc: &str, value: Option<Vec<u8>>) {
        let id = format!("{AMD}.{arc}");
        self.extensions.retain(|(known, ..)| *known != id);
        self.extensions.extend(value.map(|value| (id, false, value)));
    }

    pub(super) fn signed_by(&self, key: &RsaKeyPair) -> Vec<u8> {
        let extensions = written(&self.extensions);
        let mut parts = vec![
            element(der::INTEGER, &self.serial),
            self.algorithm.clone(),
            self.issuer.clone(),
            sequence(&[date(self.begins).unwrap(), date(self.ends).unwrap()]),
            self.subject.clone(),
            self.key.clone(),
        ];
        // Version 1 has no number and no extensions.
        if self.version > 0 {
            parts.insert(0, element(der::EXPLICIT_0, &element(der::INTEGER, &[self.version])));
            parts.push(element(EXPLICIT_3, &extensions));
        }
        let outer = self.outer_algorithm.as_ref().unwrap_or(&self.algorithm);
        Keys::signed_as(outer, key, &parts).unwrap()
    }
}

fn written(extensions: &[Extension]) -> Vec<u8> {
    let extensions = extensions.iter().map(|(id, critical, value)| {
        let mut parts = vec![object_identifier(id)];
        parts.extend(critical.then(|| element(BOOLEAN, &[0xff])));
        parts.push(octets(value));
        sequence(&parts)
    });
    sequence(&extensions.collect::<Vec<_>>())
}

/// A DER integer of a byte.
pub(super) fn integer(value: u8) -> Vec<u8> {
    let digits: &[u8] = if value < 0x80 { &[value] } else { &[0, value] };
    element(der::INTEGER, digits)
}

/// Everything that a revocation list says.
#[derive(Clone)]
pub(super) struct ListSpec {
    pub(super) version: Option<u8>,
    pub(super) algorithm: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) begins: Timestamp,
    pub(super) ends: Option<Timestamp>,
    pub(super) revoked: Vec<Vec<u8>>,
    pub(super) extensions: Vec<Extension>,
    /// As a certificate's.
    pub(super) outer_algorithm: Option<Vec<u8>>,
}

impl ListSpec {
    /// An empty list of this root, current around the tests' present.
    pub(super) fn of(root: &CertificateSpec) -> Self {
        Self {
            version: Some(1),
            algorithm: keys().algorithm(),
            issuer: root.subject.clone(),
            begins: Timestamp::from_unix_secs(1_799_900_000),
            ends: Some(Timestamp::from_unix_secs(1_815_000_000)),
            revoked: Vec::new(),
            extensions: vec![("2.5.29.20".to_owned(), false, integer(1))],
            outer_algorithm: None,
        }
    }

    pub(super) fn signed_by(&self, key: &RsaKeyPair) -> Vec<u8> {
        let mut parts: Vec<_> =
            self.version.iter().map(|version| element(der::INTEGER, &[*version])).collect();
        parts.extend([self.algorithm.clone(), self.issuer.clone(), date(self.begins).unwrap()]);
        parts.extend(self.ends.map(|ends| date(ends).unwrap()));
        if !self.revoked.is_empty() {
            let entries = self.revoked.iter().map(|serial| {
                sequence(&[element(der::INTEGER, serial), date(self.begins).unwrap()])
            });
            parts.push(sequence(&entries.collect::<Vec<_>>()));
        }
        if !self.extensions.is_empty() {
            parts.push(element(der::EXPLICIT_0, &written(&self.extensions)));
        }
        let outer = self.outer_algorithm.as_ref().unwrap_or(&self.algorithm);
        Keys::signed_as(outer, key, &parts).unwrap()
    }
}
