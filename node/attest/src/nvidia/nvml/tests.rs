//! Collection of evidence: through the real library binding, and through a driver that fails at will.
//!
//! Owns: a library that is compiled for each test in the place of NVIDIA's, and a fake of the driver's calls.
//! Must not: need a GPU.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use cocoon_protocol::attest::{GpuRefusal, gpu_nonces};
use cocoon_protocol::units::Timestamp;

use super::*;
use crate::nvidia::{self, Root};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/nvidia/nvml.c");
const REPORT_BYTES: &[u8] = include_bytes!("../../../testdata/nvidia/hopper_report.bin");
const CHAIN_PEM: &[u8] = include_bytes!("../../../testdata/nvidia/hopper_chain.pem");

/// A library as NVIDIA's, in a folder of its own.
struct Fake(tempfile::TempDir);

impl Fake {
    /// Compiles it with `defines`. A C compiler is there: this crate cannot be built without one.
    fn new(defines: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("report"), REPORT_BYTES).unwrap();
        std::fs::write(folder.path().join("chain"), CHAIN_PEM).unwrap();
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let done = Command::new(compiler)
            .args(["-shared", "-fPIC", "-Wall", "-Werror"])
            .arg(format!("-DFOLDER=\"{}\"", folder.path().display()))
            .args(defines.iter().map(|define| format!("-D{define}")))
            .args([Path::new(SOURCE), Path::new("-o"), &folder.path().join("library.so")])
            .status()
            .unwrap();
        assert!(done.success());
        Self(folder)
    }

    fn library(&self) -> Box<NvidiaLibrary> {
        Box::new(NvidiaLibrary { path: Some(self.0.path().join("library.so")) })
    }

    fn find(&self) -> Result<NvidiaGpus, NvidiaError> {
        NvidiaGpus::of(self.library())
    }

    fn collect(&self, gpus: &NvidiaGpus) -> Result<Vec<GpuEvidence>, NvidiaError> {
        gpus.collect(&nonces(gpus.count()))
    }
}

fn nonces(count: usize) -> Vec<GpuNonce> {
    gpu_nonces(&[1; 32], &[2; 32], count)
}

fn gpu(uuid: &str) -> NvidiaGpu {
    NvidiaGpu { uuid: uuid.to_owned(), product: "NOT A GPU".to_owned() }
}

#[test]
fn a_genuine_report_comes_through_the_library_and_verifies() {
    let fake = Fake::new(&[]);
    let driver = fake.library().open().unwrap();
    assert_eq!(driver.version().unwrap(), "550.90.07");
    // The nonce that the sample was made with, so that its signature holds.
    let nonce = REPORT_BYTES[4..36].try_into().unwrap();
    let evidence = ask(&*driver, &gpu("GPU-a"), &nonce).unwrap();
    assert_eq!(evidence.report, REPORT_BYTES);
    let root = Root::nvidia().unwrap();
    let now = Timestamp::from_unix_secs(1_800_000_000);
    let claims = nvidia::verify(&evidence, &root, now).unwrap();
    assert_eq!((claims.driver.as_str(), claims.nonce), ("550.90.07", nonce));
}

#[test]
fn every_gpu_is_asked_with_its_own_nonce_in_the_order_of_identifiers() {
    let fake = Fake::new(&["GPUS=3"]);
    let gpus = fake.find().unwrap();
    assert_eq!(gpus.names(), [gpu("GPU-a"), gpu("GPU-b"), gpu("GPU-c")]);
    assert_eq!(gpus.names()[0].to_string(), "NOT A GPU (GPU-a)");
    let nonces = nonces(3);
    let evidence = gpus.evidence(&nonces).unwrap();
    for (evidence, nonce) in evidence.iter().zip(&nonces) {
        assert_eq!(evidence.report[4..36], nonce.as_bytes()[..]);
        assert_eq!(evidence.report[36..], REPORT_BYTES[36..]);
        assert_eq!(evidence.chain, gpu_chain_from_pem(CHAIN_PEM).unwrap());
        assert_eq!(evidence.kind, GpuEvidenceKind::Nvidia);
    }
    assert_eq!(evidence.len(), 3);
    // Fewer nonces than GPUs would leave one unasked.
    assert_eq!(gpus.collect(&nonces[..2]), Err(NvidiaError::Changed));
}

#[test]
fn a_length_beyond_the_driver_s_own_buffer_is_an_error_and_no_panic() {
    for (define, call) in [("REPORT_SIZE=0x2001", REPORT), ("CHAIN_SIZE=0xffffffffu", CERTIFICATES)]
    {
        let fake = Fake::new(&[define]);
        let gpus = fake.find().unwrap();
        assert_eq!(fake.collect(&gpus), Err(NvidiaError::Length { call }));
        assert_eq!(gpus.evidence(&nonces(2)), Err(QuoteError::Gpus));
    }
}

#[test]
fn an_empty_report_or_chain_is_an_error() {
    let fake = Fake::new(&["REPORT_SIZE=0"]);
    let refused = fake.collect(&fake.find().unwrap()).unwrap_err();
    assert!(matches!(refused, NvidiaError::TooLarge { call: REPORT, bytes: 0, .. }), "{refused}");
    let fake = Fake::new(&["CHAIN_SIZE=0"]);
    let refused = fake.collect(&fake.find().unwrap()).unwrap_err();
    assert_eq!(refused, NvidiaError::Certificates { gpu: gpu("GPU-a").to_string() });
}

#[test]
fn a_mode_that_protects_nothing_is_named() {
    let modes = [
        ("CONFIDENTIAL=0", NvidiaError::NotConfidential),
        ("DEVELOPER_TOOLS=1", NvidiaError::DevTools),
        ("MULTI_GPU=1", NvidiaError::ProtectedPcie),
        ("READY=0", NvidiaError::NotReady),
        ("ENVIRONMENT=1", NvidiaError::NotProduction),
        ("NO_SETTINGS", NvidiaError::TooOld { call: "the confidential-computing mode" }),
    ];
    for (define, error) in modes {
        let fake = Fake::new(&[define]);
        assert_eq!(fake.find().unwrap_err(), error, "{define}");
        assert!(!error.hint().is_empty());
        // A survey lists the GPUs all the same.
        let survey = NvidiaSurvey::of(&*fake.library()).unwrap();
        assert_eq!((survey.mode, survey.gpus.len()), (Err(error), 2));
    }
    // Several GPUs with encrypted links are as good as single ones.
    assert_eq!(Fake::new(&["MULTI_GPU=2"]).find().unwrap().count(), 2);
}

#[test]
fn no_gpus_and_too_many_are_named() {
    assert_eq!(Fake::new(&["GPUS=0"]).find().unwrap_err(), NvidiaError::NoGpu);
    assert_eq!(Fake::new(&["GPUS=8"]).find().unwrap().count(), 8);
    let many = Fake::new(&["GPUS=9"]).find().unwrap_err();
    assert_eq!(many, NvidiaError::TooMany { count: 9, limit: 8 });
}

#[test]
fn what_the_driver_returns_is_said_in_its_words() {
    let lost = NvidiaError::Lost { gpu: gpu("GPU-a").to_string() };
    let refused = |reason: &str| NvidiaError::Refused { call: REPORT, reason: reason.to_owned() };
    let unknown = refused("an internal driver error occurred");
    // NVML_ERROR_NO_PERMISSION, _GPU_IS_LOST, _RESET_REQUIRED, _UNKNOWN, and one of a later library.
    for (code, error) in [
        ("4", NvidiaError::Denied { call: REPORT }),
        ("15", lost.clone()),
        ("16", lost),
        ("999", unknown),
        ("77", refused("unexpected enum variant value: 77")),
    ] {
        let fake = Fake::new(&[&format!("REPORT_ERROR={code}")]);
        assert_eq!(fake.collect(&fake.find().unwrap()), Err(error), "{code}");
    }
    let nowhere = NvidiaLibrary { path: Some("/nowhere/libnvidia-ml.so.1".into()) };
    let missing = NvidiaSurvey::of(&nowhere).unwrap_err();
    assert!(matches!(missing, NvidiaError::NoLibrary { .. }), "{missing}");
    // A library that is something else.
    let other = Fake::new(&["nvmlInit_v2=something_else"]);
    assert_eq!(other.find().unwrap_err(), NvidiaError::TooOld { call: "initialisation" });
}

#[test]
fn a_gpu_that_is_lost_stops_the_evidence_until_it_is_back() {
    let fake = Fake::new(&[]);
    let gpus = fake.find().unwrap();
    fake.collect(&gpus).unwrap();
    std::fs::write(fake.0.path().join("lost"), b"").unwrap();
    let lost = NvidiaError::Lost { gpu: gpu("GPU-a").to_string() };
    assert_eq!(fake.collect(&gpus), Err(lost));
    // The library was closed; opening it again fails as well.
    assert!(matches!(fake.collect(&gpus), Err(NvidiaError::Refused { .. })));
    std::fs::remove_file(fake.0.path().join("lost")).unwrap();
    fake.collect(&gpus).unwrap();
}

/// The driver's calls as a test has them.
#[derive(Debug, Default)]
struct FakeDriver {
    names: Vec<&'static str>,
    /// This one makes no report.
    broken: Option<&'static str>,
    panics: bool,
}

/// A library that opens one driver after the other.
#[derive(Debug)]
struct Drivers {
    first: AtomicBool,
    /// What is there when it is opened again.
    again: Vec<&'static str>,
    broken: Option<&'static str>,
    panics: bool,
}

impl Drivers {
    fn new(broken: Option<&'static str>, again: Vec<&'static str>) -> Self {
        Self { first: AtomicBool::new(true), again, broken, panics: false }
    }
}

const NAMES: [&str; 3] = ["GPU-2", "GPU-0", "GPU-1"];

impl Library for Drivers {
    fn open(&self) -> Result<Box<dyn Driver>, NvidiaError> {
        let first = self.first.swap(false, Ordering::Relaxed);
        let names = if first { NAMES.to_vec() } else { self.again.clone() };
        let broken = self.broken.filter(|_| first);
        Ok(Box::new(FakeDriver { names, broken, panics: self.panics }))
    }
}

impl Driver for FakeDriver {
    fn version(&self) -> Result<String, NvidiaError> {
        Ok("1".to_owned())
    }

    fn mode(&self) -> Result<Mode, NvidiaError> {
        Ok(Mode { confidential: true, in_production: true, ready: true, ..Mode::OFF })
    }

    fn count(&self) -> Result<u32, NvidiaError> {
        Ok(u32::try_from(self.names.len()).unwrap())
    }

    fn gpu(&self, index: u32) -> Result<NvidiaGpu, NvidiaError> {
        Ok(gpu(self.names[usize::try_from(index).unwrap()]))
    }

    fn report(&self, gpu: &NvidiaGpu, nonce: &[u8; 32]) -> Result<Vec<u8>, NvidiaError> {
        assert!(!self.panics, "as a binding might");
        if self.broken == Some(gpu.uuid.as_str()) {
            return Err(NvidiaError::Lost { gpu: gpu.to_string() });
        }
        Ok([gpu.uuid.as_bytes(), nonce].concat())
    }

    fn certificates(&self, _: &NvidiaGpu) -> Result<Vec<u8>, NvidiaError> {
        Ok(CHAIN_PEM.to_vec())
    }
}

#[test]
fn one_gpu_without_evidence_leaves_none() {
    let gpus = NvidiaGpus::of(Box::new(Drivers::new(Some("GPU-1"), NAMES.to_vec()))).unwrap();
    let lost = NvidiaError::Lost { gpu: gpu("GPU-1").to_string() };
    assert_eq!(gpus.collect(&nonces(3)), Err(lost));
    // The driver was restarted: the same GPUs, and all of them answer.
    let evidence = gpus.collect(&nonces(3)).unwrap();
    let begins: Vec<_> = evidence.iter().map(|gpu| gpu.report.slice(..5)).collect();
    assert_eq!(begins, ["GPU-0", "GPU-1", "GPU-2"]);
}

#[test]
fn other_gpus_after_a_restart_of_the_driver_are_not_taken_for_the_first_ones() {
    for again in [vec!["GPU-0", "GPU-1"], vec!["GPU-0", "GPU-1", "GPU-3"]] {
        let gpus = NvidiaGpus::of(Box::new(Drivers::new(Some("GPU-0"), again))).unwrap();
        assert!(matches!(gpus.collect(&nonces(3)), Err(NvidiaError::Lost { .. })));
        assert_eq!(gpus.collect(&nonces(3)), Err(NvidiaError::Changed));
    }
}

#[test]
fn a_panic_while_a_gpu_is_asked_is_an_error() {
    let drivers = Drivers { panics: true, ..Drivers::new(None, NAMES.to_vec()) };
    let gpus = NvidiaGpus::of(Box::new(drivers)).unwrap();
    assert!(matches!(gpus.collect(&nonces(3)), Err(NvidiaError::Refused { call: REPORT, .. })));
}

/// The whole way through the library into the trial, in which a sample for another nonce is no evidence.
#[test]
fn a_genuine_report_for_another_nonce_fails_the_trial() {
    let fake = Fake::new(&["GPUS=1"]);
    let gpus = fake.find().unwrap();
    let tried = crate::try_gpus(&gpus, Timestamp::from_unix_secs(1_800_000_000));
    let reason = Box::new(GpuRefusal::ReportSignature);
    assert_eq!(tried, Err(crate::GpuTrialError::Refused { position: 0, reason }));
}
