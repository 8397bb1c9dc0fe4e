//! What a fuzzer calls and what the tests replay: one function for each parser of strangers' bytes.
//!
//! Owns: the list of targets, what must hold for any input, and the inputs that a run starts from.
//! Must not: parse anything itself, or be in a build that serves anybody.

mod files;
mod records;
mod sources;

use std::sync::LazyLock;

use bytes::Bytes;
use cocoon_protocol::attest::{
    AttestRequest, AttestResponse, Evidence, GpuClaims, GpuEvidence, GpuEvidenceKind,
    IdentityRecord, PolicyId, SnpClaims, SnpEndorsements, TdxClaims, Tier,
};
use cocoon_protocol::identity::{NodeId, NodeKey};
use cocoon_protocol::units::Timestamp;
use cocoon_protocol::wire::{
    SessionMessage, decode_offer, decode_signed_offer, encode_offer, encode_signed_offer,
};
use rcgen::KeyPair;

use crate::certificate::{self, SessionCertificate};
use crate::evidence_file::{EvidenceFile, Recorded};
use crate::nvidia::{self, gpu_chain_from_pem};
use crate::simulated::SimulatedSnpGuest;
use crate::simulated::snp::{endorsements, pki, sign, unsigned_report};
use crate::snp::{self, Asvk, Roots};
use crate::tdx::{self, Root};
use crate::{explain, parse_policy, read_advisories, sign_advisories};

pub use files::boot_files;
pub use records::records;
pub use sources::{guest_interface, service_answers};

const TDX_QUOTE: &[u8] = include_bytes!("../testdata/dcap/tdx_quote");
const TDX_COLLATERAL: &[u8] = include_bytes!("../testdata/dcap/tdx_quote_collateral.json");
/// A day after the fixture's collateral was issued.
const TDX_THEN: Timestamp = Timestamp::from_unix_secs(1_750_414_563);
/// Header and report of a version 4 quote: what its signature covers.
const TDX_SIGNED: usize = 632;
const SNP_REPORT: &[u8] = include_bytes!("../testdata/snp/report_milan.bin");
const SNP_CRL: &[u8] = include_bytes!("../testdata/snp-dev/crl.der");
/// 2027-01-15T08:00:00Z, in the middle of what the committed list covers.
const SNP_THEN: Timestamp = Timestamp::from_unix_secs(1_800_000_000);
/// What a report's signature covers.
const SNP_SIGNED: usize = 0x2a0;
const GPU_REPORT: &[u8] = include_bytes!("../testdata/nvidia/hopper_report.bin");
const GPU_CHAIN: &[u8] = include_bytes!("../testdata/nvidia/hopper_chain.pem");
/// The other family's, so that both forms of its firmware's identity are found.
const GPU_REPORT_BLACKWELL: &[u8] = include_bytes!("../testdata/nvidia/blackwell_report.bin");
const GPU_CHAIN_BLACKWELL: &[u8] = include_bytes!("../testdata/nvidia/blackwell_chain.pem");
/// `r` and `s` of the signature that ends a report.
const GPU_SIGNATURE: usize = 96;
const ADVISORIES: &str = include_str!("../testdata/advisories.toml");
const POLICY: &str = include_str!("../testdata/policy.toml");
/// A session message and an offer as they travel, in hexadecimal.
const WIRE: [&str; 4] = [
    include_str!("../../../protocol/testdata/wire/signed-offer.hex"),
    include_str!("../../../protocol/testdata/wire/job-request-chat.hex"),
    include_str!("../../../protocol/testdata/wire/channel-state-indebted.hex"),
    include_str!("../../../protocol/testdata/wire/payment.hex"),
];

/// One parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its file in `fuzz_targets` and of its folder in `corpus`.
    pub name: &'static str,
    /// Gives it one input; panics when something does not hold.
    pub run: fn(&[u8]),
    /// Inputs that are understood, from the fixtures.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "tdx_quote", run: tdx_quote, seeds: || vec![TDX_QUOTE.to_vec()] },
    Target { name: "tdx_collateral", run: tdx_collateral, seeds: || vec![TDX_COLLATERAL.to_vec()] },
    Target { name: "snp_report", run: snp_report, seeds: snp_reports },
    Target { name: "snp_endorsements", run: snp_endorsements, seeds: snp_endorsement_seeds },
    Target { name: "gpu_report", run: gpu_report, seeds: gpu_reports },
    Target { name: "gpu_chain", run: gpu_chain, seeds: gpu_chains },
    Target { name: "identity_extension", run: identity_extension, seeds: identity_extensions },
    Target { name: "session_certificate", run: session_certificate, seeds: session_certificates },
    Target { name: "attest_messages", run: attest_messages, seeds: attest_message_seeds },
    Target { name: "policy_toml", run: policy_toml, seeds: || vec![POLICY.as_bytes().to_vec()] },
    Target { name: "evidence_file", run: evidence_file, seeds: evidence_files },
    Target { name: "advisory_list", run: advisory_list, seeds: advisory_lists },
    Target { name: "wire_messages", run: wire_messages, seeds: wire_message_seeds },
    Target { name: "records", run: records, seeds: records::record_seeds },
    Target { name: "service_answers", run: service_answers, seeds: sources::service_answer_seeds },
    Target { name: "guest_interface", run: guest_interface, seeds: sources::guest_interface_seeds },
    Target { name: "boot_files", run: boot_files, seeds: files::boot_file_seeds },
];

fn verify_tdx(quote: &[u8], collateral: &[u8]) -> Option<TdxClaims> {
    static INTEL: LazyLock<Root> = LazyLock::new(Root::intel);
    let verified = tdx::verify(false, quote, collateral, &INTEL, TDX_THEN);
    verified.ok().map(|verified| verified.claims)
}

/// A quote, with genuine collateral. Accepted is only what Intel's platform signed.
pub fn tdx_quote(data: &[u8]) {
    if verify_tdx(data, TDX_COLLATERAL).is_some() {
        assert_eq!(data.get(..TDX_SIGNED), TDX_QUOTE.get(..TDX_SIGNED), "a forged quote passed");
    }
}

/// Collateral, for a genuine quote. Whatever passes says what Intel's says.
pub fn tdx_collateral(data: &[u8]) {
    static GENUINE: LazyLock<Option<TdxClaims>> =
        LazyLock::new(|| verify_tdx(TDX_QUOTE, TDX_COLLATERAL));
    let claims = verify_tdx(TDX_QUOTE, data);
    assert!(claims.is_none() || claims == *GENUINE, "forged collateral changed the claims");
}

fn verify_snp(report: &[u8], endorsements: &[u8]) -> Option<SnpClaims> {
    static TEST: LazyLock<Roots> = LazyLock::new(pki::roots);
    snp::verify(true, report, endorsements, &TEST, &Asvk::new(), SNP_THEN).ok()
}

/// A report, under the test chain. Accepted is only what the key in it signed.
pub fn snp_report(data: &[u8]) {
    static GENUINE: LazyLock<(Vec<u8>, Vec<u8>)> =
        LazyLock::new(|| (signed_report(), snp_endorsement_bytes()));
    let (report, endorsements) = &*GENUINE;
    if verify_snp(data, endorsements).is_some() {
        assert_eq!(data.get(..SNP_SIGNED), report.get(..SNP_SIGNED), "a forged report passed");
    }
}

/// What travels with a SEV-SNP report: one spelling for one meaning, and whatever passes says what the
/// genuine certificates and list say.
pub fn snp_endorsements(data: &[u8]) {
    static GENUINE: LazyLock<(Vec<u8>, Option<SnpClaims>)> = LazyLock::new(|| {
        let report = signed_report();
        let claims = verify_snp(&report, &snp_endorsement_bytes());
        (report, claims)
    });
    if let Ok(endorsements) = SnpEndorsements::from_bytes(data) {
        assert_eq!(endorsements.to_bytes(), data, "two spellings of the same endorsements");
    }
    let claims = verify_snp(&GENUINE.0, data);
    assert!(claims.is_none() || claims == GENUINE.1, "forged endorsements changed the claims");
}

fn verify_gpu(report: &[u8], chain: &[u8]) -> Option<GpuClaims> {
    static NVIDIA: LazyLock<Option<nvidia::Root>> = LazyLock::new(nvidia::Root::nvidia);
    let evidence = GpuEvidence {
        kind: GpuEvidenceKind::Nvidia,
        report: Bytes::copy_from_slice(report),
        chain: Bytes::copy_from_slice(chain),
    };
    nvidia::verify(&evidence, NVIDIA.as_ref()?, SNP_THEN).ok()
}

/// A GPU's report, with its genuine certificates. Accepted is only what the GPU signed.
pub fn gpu_report(data: &[u8]) {
    static CHAIN: LazyLock<Vec<u8>> =
        LazyLock::new(|| gpu_chain_from_pem(GPU_CHAIN).unwrap_or_default());
    if verify_gpu(data, &CHAIN).is_some() {
        let signed = |report: &[u8]| report.len().checked_sub(GPU_SIGNATURE);
        let (found, genuine) = (signed(data), signed(GPU_REPORT));
        let same =
            found.and_then(|end| data.get(..end)) == genuine.and_then(|end| GPU_REPORT.get(..end));
        assert!(same, "a forged report passed");
    }
}

/// A GPU's certificates, for a genuine report. Whatever passes names the same GPU in the same state.
pub fn gpu_chain(data: &[u8]) {
    static GENUINE: LazyLock<Option<GpuClaims>> = LazyLock::new(|| {
        verify_gpu(GPU_REPORT, &gpu_chain_from_pem(GPU_CHAIN).unwrap_or_default())
    });
    let claims = verify_gpu(GPU_REPORT, data);
    assert!(claims.is_none() || claims == *GENUINE, "forged certificates changed the claims");
    // As a driver gives them.
    if let Some(chain) = gpu_chain_from_pem(data) {
        let claims = verify_gpu(GPU_REPORT, &chain);
        assert!(claims.is_none() || claims == *GENUINE, "forged certificates changed the claims");
    }
}

/// A file of evidence: what is read can be written and read again.
pub fn evidence_file(data: &[u8]) {
    if let Ok(file) = EvidenceFile::from_json(data) {
        let again =
            file.to_json().ok().and_then(|text| EvidenceFile::from_json(text.as_bytes()).ok());
        assert_eq!(again, Some(file), "it changed on the way");
    }
}

/// A maintainer's list. Nothing is understood that its maintainer did not sign.
pub fn advisory_list(data: &[u8]) {
    if let Ok(list) = read_advisories(data) {
        let known = advisory_lists();
        assert!(list.fault().is_none() && known.iter().any(|it| it == data), "a forged list");
    }
    // The content behind the signature too.
    if let Ok(content) = std::str::from_utf8(data)
        && let Ok(signed) = sign_advisories(content, &maintainer())
    {
        assert!(read_advisories(signed.as_bytes()).is_ok(), "what was signed cannot be read");
    }
}

/// The certificate extension: one spelling for one meaning.
pub fn identity_extension(data: &[u8]) {
    if let Ok(record) = IdentityRecord::from_extension(data) {
        assert_eq!(record.to_extension(), data, "two spellings of one record");
    }
}

/// A session certificate at the time of the seed's.
pub fn session_certificate(data: &[u8]) {
    if let Ok(certificate) = SessionCertificate::read(data, TDX_THEN) {
        let life = certificate.not_after.since(certificate.not_before);
        assert!(life <= cocoon_protocol::limits::CERTIFICATE_LIFETIME, "it lives too long");
    }
}

/// Challenge and answer: one spelling for one meaning, within their bounds.
pub fn attest_messages(data: &[u8]) {
    if let Ok(request) = AttestRequest::from_bytes(data) {
        assert_eq!(request.to_bytes(), data, "two spellings of one challenge");
    }
    if let Ok(response) = AttestResponse::from_bytes(data) {
        assert_eq!(response.to_bytes(), data, "two spellings of one answer");
    }
}

/// A policy's file. What is a policy can be put into words.
pub fn policy_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse_policy(text) {
        Ok(policy) => assert!(!explain(&policy).sections.is_empty(), "a policy without words"),
        Err(error) => {
            let lines = text.split('\n').count();
            assert!(error.line().is_none_or(|line| (1..=lines).contains(&line)), "no such line");
        }
    }
}

/// Session messages and offers: what is read can be written and read again.
pub fn wire_messages(data: &[u8]) {
    if let Ok(message) = SessionMessage::decode(data) {
        assert_eq!(SessionMessage::decode(&message.encode()), Ok(message), "it changed on the way");
    }
    if let Ok(offer) = decode_offer(data) {
        assert_eq!(decode_offer(&encode_offer(&offer)), Ok(offer), "it changed on the way");
    }
    if let Ok((offer, signature)) = decode_signed_offer(data) {
        let again = encode_signed_offer(&offer, &signature);
        assert_eq!(decode_signed_offer(&again), Ok((offer, signature)), "it changed on the way");
    }
}

fn identity_records() -> [IdentityRecord; 2] {
    let quoted = Evidence::Tdx { quote: vec![7; 40].into() };
    [Evidence::None, quoted].map(|evidence| IdentityRecord {
        peer: NodeId::from_bytes([1; 32]),
        capabilities: [2; 32],
        configuration: [3; 32],
        evidence,
    })
}

fn signed_report() -> Vec<u8> {
    let mut report = unsigned_report(&SimulatedSnpGuest::default(), &[7; 64]);
    // Without the key, which lies in the repository, the seed is refused, and a test says so.
    if let Ok(keys) = pki::keys() {
        let _unsigned = sign(keys, &mut report);
    }
    report
}

fn snp_reports() -> Vec<Vec<u8>> {
    vec![signed_report(), SNP_REPORT.to_vec()]
}

fn snp_endorsement_bytes() -> Vec<u8> {
    endorsements(SNP_CRL.to_vec()).to_bytes()
}

fn snp_endorsement_seeds() -> Vec<Vec<u8>> {
    vec![snp_endorsement_bytes()]
}

fn gpu_reports() -> Vec<Vec<u8>> {
    vec![GPU_REPORT.to_vec(), GPU_REPORT_BLACKWELL.to_vec()]
}

fn gpu_chains() -> Vec<Vec<u8>> {
    let pem = [GPU_CHAIN, GPU_CHAIN_BLACKWELL];
    pem.into_iter().filter_map(gpu_chain_from_pem).chain([GPU_CHAIN.to_vec()]).collect()
}

fn evidence_files() -> Vec<Vec<u8>> {
    let file = |evidence, record| EvidenceFile {
        made_at: TDX_THEN,
        evidence,
        endorsements: vec![1; 10].into(),
        gpus: vec![GpuEvidence {
            kind: GpuEvidenceKind::Nvidia,
            report: vec![2; 8].into(),
            chain: vec![3; 8].into(),
        }],
        record,
        made_by: "cocoon-node".to_owned(),
    };
    let recorded = Recorded { nonce: [4; 32], configuration: [5; 32] };
    let files = [
        file(Evidence::Tdx { quote: vec![6; 16].into() }, None),
        file(Evidence::Snp { report: vec![7; 16].into() }, Some(recorded)),
    ];
    files.iter().filter_map(|file| file.to_json().ok().map(String::into_bytes)).collect()
}

fn maintainer() -> NodeKey {
    NodeKey::from_secret(&[9; 32])
}

/// A list, signed and not.
fn advisory_lists() -> Vec<Vec<u8>> {
    let signed = sign_advisories(ADVISORIES, &maintainer()).unwrap_or_default();
    vec![signed.into_bytes(), ADVISORIES.as_bytes().to_vec()]
}

fn identity_extensions() -> Vec<Vec<u8>> {
    identity_records().iter().map(IdentityRecord::to_extension).collect()
}

fn session_certificates() -> Vec<Vec<u8>> {
    let issued = identity_records().into_iter().filter_map(|record| {
        let (not_before, not_after) = certificate::validity(TDX_THEN);
        certificate::issue(&KeyPair::generate().ok()?, &record, not_before, not_after).ok()
    });
    issued.collect()
}

fn attest_message_seeds() -> Vec<Vec<u8>> {
    let request = AttestRequest {
        nonce: [1; 32],
        want: Tier::Attested,
        gpu: true,
        policy: PolicyId::from_bytes([2; 32]),
    };
    let mut seeds = vec![request.to_bytes()];
    for (record, model_manifest) in identity_records().into_iter().zip([None, Some([3; 32])]) {
        let response = AttestResponse {
            signature: [4; 64],
            model_manifest,
            evidence: record.evidence,
            endorsements: vec![5; 20].into(),
            gpus: vec![GpuEvidence {
                kind: GpuEvidenceKind::Nvidia,
                report: vec![6; 12].into(),
                chain: vec![7; 9].into(),
            }],
        };
        seeds.push(response.to_bytes());
    }
    seeds
}

fn wire_message_seeds() -> Vec<Vec<u8>> {
    // The files are commented and wrapped for people.
    let digits = |text: &str| -> String {
        let bare = text.lines().filter_map(|line| line.split('#').next());
        bare.flat_map(str::chars).filter(char::is_ascii_hexdigit).collect()
    };
    WIRE.iter().filter_map(|text| hex::decode(digits(text)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn fuzz(folder: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder)
    }

    /// The committed inputs of a target: what fuzzing found worth keeping, and every finding.
    fn corpus(target: &Target) -> Vec<Vec<u8>> {
        let Ok(entries) = std::fs::read_dir(fuzz("corpus").join(target.name)) else {
            return Vec::new();
        };
        entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn every_input_of_the_corpus_holds() {
        for target in TARGETS {
            for input in corpus(target).iter().chain(&(target.seeds)()) {
                (target.run)(input);
            }
        }
    }

    #[test]
    fn seeds_are_understood() {
        let [request, response, ..] = &attest_message_seeds()[..] else { panic!("no seeds") };
        assert!(AttestRequest::from_bytes(request).is_ok());
        assert!(AttestResponse::from_bytes(response).is_ok());
        assert!(verify_tdx(TDX_QUOTE, TDX_COLLATERAL).is_some());
        assert!(verify_snp(&signed_report(), &snp_endorsement_bytes()).is_some());
        let chain = gpu_chain_from_pem(GPU_CHAIN).unwrap();
        assert!(verify_gpu(GPU_REPORT, &chain).is_some());
        let [signed, content] = &advisory_lists()[..] else { panic!("no seeds") };
        assert!(read_advisories(signed).is_ok() && read_advisories(content).is_err());
        for file in evidence_files() {
            assert!(EvidenceFile::from_json(&file).is_ok());
        }
        for extension in identity_extensions() {
            assert!(IdentityRecord::from_extension(&extension).is_ok());
        }
        let certificates = session_certificates();
        assert_eq!(certificates.len(), 2);
        for certificate in certificates {
            assert!(SessionCertificate::read(&certificate, TDX_THEN).is_ok());
        }
        let [offer, messages @ ..] = &wire_message_seeds()[..] else { panic!("no seeds") };
        assert!(decode_signed_offer(offer).is_ok());
        for message in messages {
            assert!(SessionMessage::decode(message).is_ok());
        }
    }

    /// Every seed, cut and altered in a few hundred places: what the fuzzer does for minutes, for
    /// a moment.
    #[test]
    fn altered_seeds_hold() {
        for target in TARGETS {
            for seed in (target.seeds)() {
                let step = (seed.len() / 200).max(1);
                for at in (0..seed.len()).step_by(step) {
                    (target.run)(&seed[..at]);
                    let mut altered = seed.clone();
                    altered[at] ^= 0x41;
                    (target.run)(&altered);
                }
            }
        }
    }

    #[test]
    fn every_target_has_its_file_and_every_file_its_target() {
        let files = std::fs::read_dir(fuzz("fuzz_targets")).unwrap();
        let mut files: Vec<_> = files
            .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        files.sort();
        let mut names: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
        names.sort();
        assert_eq!(files, names);
    }
}
