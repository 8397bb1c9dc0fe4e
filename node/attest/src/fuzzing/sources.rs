//! What a provider is told by others than its peers: the vendors' services, the kernel, the host.
//!
//! Owns: a service and a kernel that give whatever the input says, and what must hold of what is
//! made of it. Must not: reach a network or the machine's own kernel.

use std::future::{Future, ready};
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use cocoon_protocol::attest::{Evidence, EvidenceKind, RecordBinding, SnpEndorsements};
use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;
use dcap_qvl::QuoteCollateralV3;

use super::{SNP_CRL, SNP_REPORT, SNP_THEN, TDX_COLLATERAL, TDX_QUOTE, TDX_THEN};
use crate::collateral::{self, Http, HttpAnswer, HttpFuture, Sources};
use crate::hardware::RawEvidence;
use crate::tsm::{Kernel, Tsm, TsmOptions, TsmProvider};

const VCEK: &[u8] = include_bytes!("../../testdata/snp/vcek_milan.der");
const ASK: &[u8] = include_bytes!("../../testdata/snp/ask-milan.der");
/// The key information of a report that a VLEK signs, and where it stands.
const KEY_INFORMATION: (usize, u8) = (0x48, 1 << 2);
/// Version 3 of a report, in which the processor's family is said: Milan.
const VERSION: (usize, u8) = (0, 3);
const FAMILY: (usize, u8) = (0x188, 0x19);
/// a8074bc2-a25a-483e-aae6-39c045a0b8a1: a VLEK, in a table of certificates.
const VLEK: [u8; 16] = [
    0xc2, 0x4b, 0x07, 0xa8, 0x5a, 0xa2, 0x3e, 0x48, 0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0, 0xb8, 0xa1,
];

/// A part of an input: two bytes of length in front, or what is left.
fn part<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, behind)) = rest.split_first_chunk::<2>() else {
        return std::mem::take(rest);
    };
    let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
    let (part, behind) = behind.split_at_checked(length).unwrap_or((behind, &[]));
    *rest = behind;
    part
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut input = Vec::new();
    for part in parts {
        input.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        input.extend_from_slice(part);
    }
    input
}

/// What a future gives that never waits.
pub(super) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// A service whose answers are the input's parts in turn, two for an answer: its header, whose first
/// byte is the status, and its body.
#[derive(Debug)]
struct Service(Mutex<Vec<u8>>);

/// The headers that are looked for.
const HEADERS: [&str; 4] = [
    "TCB-Info-Issuer-Chain",
    "SGX-Enclave-Identity-Issuer-Chain",
    "SGX-PCK-CRL-Issuer-Chain",
    "Retry-After",
];

impl Http for Service {
    fn get<'a>(&'a self, _: &'a str, _: usize) -> HttpFuture<'a> {
        let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = rest.as_slice();
        let (head, body) = (part(&mut left), part(&mut left).to_vec());
        let (status, header) = head.split_first().unwrap_or((&0, &[]));
        let value = String::from_utf8_lossy(header).into_owned();
        let status = [200, 404, 429].get(usize::from(*status)).map_or(503, |status| *status);
        let headers = HEADERS.map(|name| (name.to_owned(), value.clone())).to_vec();
        *rest = left.to_vec();
        Box::pin(ready(Ok(HttpAnswer { status, headers, body })))
    }
}

/// Answers of Intel's and AMD's services; the first byte says which is asked. Whatever is fetched is
/// of the form in which it travels, and has not ended.
pub fn service_answers(data: &[u8]) {
    let Some((kind, mut answers)) = data.split_first() else { return };
    let (evidence, then) = match kind {
        0 => (Evidence::Tdx { quote: TDX_QUOTE.into() }, TDX_THEN),
        1 => (Evidence::Snp { report: SNP_REPORT.into() }, SNP_THEN),
        _ => (Evidence::Snp { report: vlek_report().into() }, SNP_THEN),
    };
    let certificates = Bytes::copy_from_slice(part(&mut answers));
    let raw = RawEvidence { evidence, certificates };
    if let Some(fetched) = fetch(answers, &raw, then) {
        assert!(fetched.expires > then, "endorsements that have ended");
        let understood = match raw.evidence {
            Evidence::Tdx { .. } => {
                serde_json::from_slice::<QuoteCollateralV3>(&fetched.endorsements).is_ok()
            }
            Evidence::Snp { .. }
            | Evidence::None
            | Evidence::SimulatedTdx { .. }
            | Evidence::SimulatedSnp { .. } => {
                SnpEndorsements::from_bytes(&fetched.endorsements).is_ok()
            }
        };
        assert!(understood, "no verifier would read what was fetched");
    }
}

fn fetch(answers: &[u8], raw: &RawEvidence, then: Timestamp) -> Option<collateral::Fetched> {
    let service = Service(Mutex::new(answers.to_vec()));
    now(collateral::fetch(&service, &Sources::default(), raw, then))?.ok()
}

fn vlek_report() -> Vec<u8> {
    let mut report = SNP_REPORT.to_vec();
    for (place, value) in [KEY_INFORMATION, VERSION, FAMILY, (FAMILY.0 + 1, 0)] {
        if let Some(byte) = report.get_mut(place) {
            *byte = value;
        }
    }
    report
}

/// A kernel whose attributes are the input's parts: the provider, the generation before and after,
/// the report, the host's certificates.
#[derive(Debug)]
struct Attributes {
    parts: [Vec<u8>; 5],
    generations_read: Mutex<usize>,
}

impl Kernel for Attributes {
    fn create(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, attribute: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let [provider, before, after, report, certificates] = &self.parts;
        let content = match attribute.file_name().and_then(|name| name.to_str()) {
            Some("provider") => provider,
            Some("generation") => {
                let mut read = self.generations_read.lock().unwrap_or_else(PoisonError::into_inner);
                *read += 1;
                if *read % 2 == 1 { before } else { after }
            }
            Some("outblob") => report,
            Some("auxblob") => certificates,
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(content.get(..=limit).unwrap_or(content).to_vec())
    }

    fn write(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn entries(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// What the kernel and through it the host give a guest. A report that is taken is of the vendor that
/// was asked for, and nobody else wrote in between; which platform it is of can be said or not.
pub fn guest_interface(data: &[u8]) {
    let mut rest = data;
    let mut next = || part(&mut rest).to_vec();
    let parts = [next(), next(), next(), next(), next()];
    let [provider, before, after, ..] = parts.clone();
    let options = TsmOptions {
        reports: std::env::temp_dir(),
        privilege_level: None,
        lock_within: Duration::from_secs(60),
    };
    let kernel = Attributes { parts, generations_read: Mutex::new(0) };
    let tsm = Tsm::with_kernel(options, Arc::new(kernel));
    let report_data = RecordBinding {
        kind: EvidenceKind::None,
        nonce: &[7; 32],
        made_at: Timestamp::EPOCH,
        configuration: &[0; 32],
        gpu_digest: &[0; 32],
    }
    .report_data();
    for expected in [TsmProvider::Tdx, TsmProvider::Snp] {
        let Ok(report) = tsm.report(expected, &report_data) else { continue };
        assert_eq!(provider.trim_ascii(), expected.as_str().as_bytes(), "of another vendor");
        assert_ne!(before, after, "the request was lost");
        assert!((1..=limits::EVIDENCE_BYTES).contains(&report.quote.len()));
        let quote: Bytes = report.quote.into();
        let evidence = match expected {
            TsmProvider::Tdx => Evidence::Tdx { quote },
            TsmProvider::Snp => Evidence::Snp { report: quote },
        };
        if let Ok(name) = collateral::platform_of(&evidence) {
            assert!(
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
                "{name}"
            );
        }
        let _ = crate::host_data(&evidence);
        // Nobody answers: what is left is what the host handed in.
        let raw = RawEvidence { evidence, certificates: report.certificates.into() };
        let _ = fetch(&[0, 1, 1], &raw, SNP_THEN);
    }
}

fn percent_encoded(text: &str) -> Vec<u8> {
    let encoded = text.replace('%', "%25").replace('\n', "%0A").replace(' ', "%20");
    [&[0], encoded.as_bytes()].concat()
}

/// A table of one certificate, as a host lays it out (AMD 56421, §4.1.8.1).
fn table(guid: [u8; 16], certificate: &[u8]) -> Vec<u8> {
    let length = u32::try_from(certificate.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&guid[..], &48u32.to_le_bytes(), &length, &[0; 24], certificate].concat()
}

fn pem_chain() -> Vec<u8> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(ASK);
    // Form is all that is looked at: the root's place is taken by the intermediate.
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n").repeat(2).into()
}

pub(super) fn service_answer_seeds() -> Vec<Vec<u8>> {
    let Ok(it) = serde_json::from_slice::<QuoteCollateralV3>(TDX_COLLATERAL) else {
        return Vec::new();
    };
    let signed = |field: &str, json: &str, signature: &[u8]| {
        format!("{{\"{field}\":{json},\"signature\":\"{}\"}}", hex::encode(signature))
    };
    let intel = joined(&[
        &[],
        &percent_encoded(&it.tcb_info_issuer_chain),
        signed("tcbInfo", &it.tcb_info, &it.tcb_info_signature).as_bytes(),
        &percent_encoded(&it.qe_identity_issuer_chain),
        signed("enclaveIdentity", &it.qe_identity, &it.qe_identity_signature).as_bytes(),
        &percent_encoded(&it.pck_crl_issuer_chain),
        &it.pck_crl,
        &[0],
        hex::encode(it.root_ca_crl).as_bytes(),
    ]);
    let amd = joined(&[&[], &[0], VCEK, &[0], &pem_chain(), &[0], SNP_CRL]);
    let vlek = joined(&[&table(VLEK, VCEK), &[0], &pem_chain(), &[0], SNP_CRL]);
    [(0, intel), (1, amd), (2, vlek)].map(|(kind, rest)| [vec![kind], rest].concat()).to_vec()
}

pub(super) fn guest_interface_seeds() -> Vec<Vec<u8>> {
    vec![
        joined(&[b"tdx_guest\n", b"0\n", b"1\n", TDX_QUOTE, b""]),
        joined(&[b"sev_guest\n", b"7", b"8", SNP_REPORT, b""]),
        joined(&[b"sev_guest\n", b"7", b"8", &vlek_report(), &table(VLEK, VCEK)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_understood() {
        for seed in service_answer_seeds() {
            let (kind, mut answers) = seed.split_first().unwrap();
            let certificates = Bytes::copy_from_slice(part(&mut answers));
            let (evidence, then) = match kind {
                0 => (Evidence::Tdx { quote: TDX_QUOTE.into() }, TDX_THEN),
                1 => (Evidence::Snp { report: SNP_REPORT.into() }, SNP_THEN),
                _ => (Evidence::Snp { report: vlek_report().into() }, SNP_THEN),
            };
            let raw = RawEvidence { evidence, certificates };
            assert!(fetch(answers, &raw, then).is_some(), "seed {kind}");
        }
        assert_eq!(guest_interface_seeds().len(), 3);
    }
}
