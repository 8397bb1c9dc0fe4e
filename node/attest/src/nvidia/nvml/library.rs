//! The driver through `nvml-wrapper`, which loads NVIDIA's library where it is there.
//!
//! Owns: the meaning of NVML's answers and errors here. Must not: let a panic out of a foreign crate.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::{CERTIFICATES, Driver, Library, Mode, NvidiaError, NvidiaGpu, REPORT};

const START: &str = "initialisation";
const LIST: &str = "the list of GPUs";
const MODE: &str = "the confidential-computing mode";

/// NVIDIA's library.
#[derive(Debug, Default)]
pub(super) struct NvidiaLibrary {
    /// Where it lies; by default, where the loader finds `libnvidia-ml.so.1`.
    pub(super) path: Option<PathBuf>,
}

impl Library for NvidiaLibrary {
    fn open(&self) -> Result<Box<dyn Driver>, NvidiaError> {
        let nvml = call(START, None, || match &self.path {
            None => Nvml::init(),
            Some(path) => Nvml::builder().lib_path(path.as_os_str()).init(),
        })?;
        Ok(Box::new(OpenLibrary(nvml)))
    }
}

#[derive(Debug)]
struct OpenLibrary(Nvml);

impl OpenLibrary {
    fn device(&self, gpu: &NvidiaGpu) -> Result<Device<'_>, NvmlError> {
        self.0.device_by_uuid(gpu.uuid.as_str())
    }
}

impl Driver for OpenLibrary {
    fn version(&self) -> Result<String, NvidiaError> {
        call("its version", None, || self.0.sys_driver_version())
    }

    fn mode(&self) -> Result<Mode, NvidiaError> {
        call(MODE, None, || {
            // The mode is the system's; the crate asks for it through any device.
            let device = self.0.device_by_index(0)?;
            let confidential = match device.is_cc_enabled() {
                // A GPU, or a platform, that does not have it at all.
                Err(NvmlError::NotSupported) => false,
                answer => answer?,
            };
            if !confidential {
                return Ok(Mode::OFF);
            }
            Ok(Mode {
                confidential,
                developer_tools: device.is_cc_dev_mode_enabled()?,
                protected_pcie: device.is_multi_gpu_protected_pcie_enabled()?,
                in_production: device.check_confidential_compute_status()?,
                ready: device.get_confidential_compute_state()?,
            })
        })
    }

    fn count(&self) -> Result<u32, NvidiaError> {
        call(LIST, None, || self.0.device_count())
    }

    fn gpu(&self, index: u32) -> Result<NvidiaGpu, NvidiaError> {
        call(LIST, None, || {
            let device = self.0.device_by_index(index)?;
            Ok(NvidiaGpu { uuid: device.uuid()?, product: device.name()? })
        })
    }

    fn report(&self, gpu: &NvidiaGpu, nonce: &[u8; 32]) -> Result<Vec<u8>, NvidiaError> {
        call(REPORT, Some(gpu), || {
            let report = self.device(gpu)?.confidential_compute_gpu_attestation_report(*nonce)?;
            Ok(report.attestation_report)
        })
    }

    fn certificates(&self, gpu: &NvidiaGpu) -> Result<Vec<u8>, NvidiaError> {
        call(CERTIFICATES, Some(gpu), || {
            // Not `cert_chain`, which is the device's without the report's key.
            Ok(self.device(gpu)?.confidential_compute_gpu_certificate()?.attestation_cert_chain)
        })
    }
}

/// Calls the library. `nvml-wrapper` 0.13 cuts the driver's buffers at the lengths that the driver
/// returned, with an index that panics where a length exceeds its buffer. A driver's mistake must not
/// end a thread that others wait for, so the panic is caught here. Nothing is left half done by it: the
/// crate keeps no state but the loaded library, and what it had copied is dropped.
fn call<T>(
    call: &'static str,
    gpu: Option<&NvidiaGpu>,
    work: impl FnOnce() -> Result<T, NvmlError>,
) -> Result<T, NvidiaError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(answer) => answer.map_err(|error| meaning(&error, call, gpu)),
        Err(_panic) => Err(NvidiaError::Length { call }),
    }
}

fn meaning(error: &NvmlError, call: &'static str, gpu: Option<&NvidiaGpu>) -> NvidiaError {
    match (error, gpu) {
        (NvmlError::LibloadingError(error), _) => {
            NvidiaError::NoLibrary { reason: error.to_string() }
        }
        (NvmlError::DriverNotLoaded, _) => NvidiaError::NoDriver,
        (NvmlError::LibRmVersionMismatch, _) => NvidiaError::VersionMismatch,
        (NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound, _) => {
            NvidiaError::TooOld { call }
        }
        (NvmlError::NoPermission | NvmlError::OperatingSystem, _) => NvidiaError::Denied { call },
        (NvmlError::GpuLost | NvmlError::ResetRequired | NvmlError::NotFound, Some(gpu)) => {
            NvidiaError::Lost { gpu: gpu.to_string() }
        }
        (other, _) => NvidiaError::Refused { call, reason: other.to_string() },
    }
}
