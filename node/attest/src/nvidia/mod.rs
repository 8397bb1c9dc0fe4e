//! Verification of NVIDIA GPU reports up to a trusted root, and what they claim.
//!
//! Owns: the report's form, the device certificates, both signatures, and the firmware's identity.
//! Must not: be content with a genuine GPU: `attest::appraise_gpus` judges the claims that come out, and
//! only a CPU TEE whose quote covers the report gives it a meaning.
//!
//! Sources: DMTF DSP0274 (SPDM) 1.1 for the two messages; TCG *DICE Attestation Architecture* for the
//! firmware's identity; and NVIDIA's published verifier for what is NVIDIA's own: the opaque fields, the
//! signature over both messages as they are, and measurements numbered from 0.

mod certificates;
mod firmware;
#[cfg(feature = "nvml")]
mod nvml;
mod report;

use cocoon_protocol::attest::{GpuClaims, GpuEvidence, GpuRefusal, GpuStep, Trace};
use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;

use crate::nvidia::certificates::Chain;
use crate::nvidia::firmware::Firmware;
use crate::nvidia::report::Report;

pub(crate) use certificates::Root;
pub use certificates::gpu_chain_from_pem;
#[cfg(feature = "nvml")]
pub use nvml::{NvidiaError, NvidiaGpu, NvidiaGpus, NvidiaSurvey};

/// Verifies one GPU's `evidence` under `root` at `now`. Takes about a millisecond of CPU.
pub(crate) fn verify(
    evidence: &GpuEvidence,
    root: &Root,
    now: Timestamp,
) -> Result<GpuClaims, GpuRefusal> {
    verify_traced(evidence, root, now, &mut Trace::default())
}

/// The same, noting every check that passes.
pub(crate) fn verify_traced(
    evidence: &GpuEvidence,
    root: &Root,
    now: Timestamp,
    trace: &mut Trace<GpuStep>,
) -> Result<GpuClaims, GpuRefusal> {
    if evidence.report.len() > limits::GPU_REPORT_BYTES {
        return Err(GpuRefusal::Report { part: "length" });
    }
    if evidence.chain.len() > limits::GPU_CHAIN_BYTES {
        return Err(GpuRefusal::Certificates { part: "length" });
    }
    let report = Report::parse(&evidence.report)?;
    trace.pass(GpuStep::Report);
    let chain = Chain::verify(&evidence.chain, root, now)?;
    trace.pass(GpuStep::Certificates);
    chain.verify_report(report.signed, report.signature)?;
    trace.pass(GpuStep::Signature);
    let names_firmware = check_firmware(&report, &chain.firmware()?)?;
    trace.pass(GpuStep::Firmware);
    if report.protected_pcie {
        return Err(GpuRefusal::ProtectedPcie);
    }
    trace.pass(GpuStep::Links);
    Ok(GpuClaims {
        kind: evidence.kind,
        architecture: chain.architecture,
        keys: chain.keys(),
        certificates_expire: chain.expires,
        nonce: report.nonce,
        driver: report.driver,
        vbios: report.vbios,
        names_firmware,
        decoder_disabled: report.decoder_disabled,
        measurements: report.measurements,
    })
}

/// Whether the report names its firmware; if so, it must be the one that its key was made for.
fn check_firmware(report: &Report<'_>, certified: &Firmware) -> Result<bool, GpuRefusal> {
    if let Some(mode) = certified.mode {
        return Err(GpuRefusal::Debug { mode });
    }
    match report.firmware {
        None => Ok(false),
        Some(named) if named == certified.identity => Ok(true),
        Some(_) => Err(GpuRefusal::FirmwareMismatch),
    }
}

#[cfg(test)]
mod tests;
