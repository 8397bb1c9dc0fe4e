//! Evidence of this machine's own NVIDIA GPUs, as the driver gives it through its management library (NVML).
//!
//! Owns: which GPUs there are, what state they have to be in to be asked, and the asking.
//! Must not: believe what it collects. The driver's word about a mode spares its owner a detour; a
//! consumer believes the signed report alone, and so does [`crate::try_gpus`].
//!
//! NVML is asked for all GPUs that the driver shows, whichever of them the engine uses: a GPU that proves
//! nothing is one that data can reach. The library stays open from the first call on: the driver takes a
//! GPU down when its last user leaves, and one in confidential-computing mode does not come up again
//! without a reset.

mod error;
mod library;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cocoon_protocol::attest::{GpuEvidence, GpuEvidenceKind, GpuNonce};
use cocoon_protocol::limits;

use crate::attester::QuoteError;
use crate::gpu::GpuAttester;
use crate::nvidia::gpu_chain_from_pem;

pub use error::NvidiaError;
use library::NvidiaLibrary;

/// What a GPU is asked for, in the words of messages.
const REPORT: &str = "the attestation report";
const CERTIFICATES: &str = "the certificate chain";

/// A GPU as the driver names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NvidiaGpu {
    /// NVIDIA's identifier of the device, which outlives reboots: `GPU-…`.
    pub uuid: String,
    /// The product: `NVIDIA H100 80GB HBM3`.
    pub product: String,
}

impl fmt::Display for NvidiaGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.product, self.uuid)
    }
}

/// What the driver says about confidential computing on all of its GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    /// It is on.
    confidential: bool,
    /// It is on for developers: with debuggers, without protection.
    developer_tools: bool,
    /// GPUs reach each other through switches in the clear.
    protected_pcie: bool,
    /// On, of a production environment, and ready for work.
    in_production: bool,
    /// The driver gives them work.
    ready: bool,
}

impl Mode {
    /// Confidential computing is off, and nothing else matters.
    const OFF: Self = Self {
        confidential: false,
        developer_tools: false,
        protected_pcie: false,
        in_production: false,
        ready: false,
    };

    /// Whether evidence of GPUs in this mode would be worth something.
    const fn check(self) -> Result<(), NvidiaError> {
        if !self.confidential {
            return Err(NvidiaError::NotConfidential);
        }
        if self.developer_tools {
            return Err(NvidiaError::DevTools);
        }
        if self.protected_pcie {
            return Err(NvidiaError::ProtectedPcie);
        }
        if !self.ready {
            return Err(NvidiaError::NotReady);
        }
        if !self.in_production {
            return Err(NvidiaError::NotProduction);
        }
        Ok(())
    }
}

/// Where the driver is reached.
pub(super) trait Library: Send + Sync + fmt::Debug {
    /// Opens it.
    fn open(&self) -> Result<Box<dyn Driver>, NvidiaError>;
}

/// The driver's calls that matter here. Each may block.
pub(super) trait Driver: Send + Sync + fmt::Debug {
    fn version(&self) -> Result<String, NvidiaError>;
    fn mode(&self) -> Result<Mode, NvidiaError>;
    /// How many GPUs there are, also such as this process may not use.
    fn count(&self) -> Result<u32, NvidiaError>;
    /// The GPU at `index` in the driver's order.
    fn gpu(&self, index: u32) -> Result<NvidiaGpu, NvidiaError>;
    /// The SPDM request that `nonce` makes and the response to it.
    fn report(&self, gpu: &NvidiaGpu, nonce: &[u8; 32]) -> Result<Vec<u8>, NvidiaError>;
    /// The device's certificates in PEM, the report's signer first.
    fn certificates(&self, gpu: &NvidiaGpu) -> Result<Vec<u8>, NvidiaError>;
}

/// What the driver says of the machine's GPUs, without asking one for evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvidiaSurvey {
    /// The driver's version.
    pub driver: String,
    /// Every GPU, ordered by identifier.
    pub gpus: Vec<NvidiaGpu>,
    /// Whether they are in a mode in which evidence would be worth something.
    pub mode: Result<(), NvidiaError>,
}

impl NvidiaSurvey {
    /// Asks the driver of this machine. May take a second, when nothing else uses its GPUs.
    ///
    /// # Errors
    /// When there is no driver, no GPU, or too many of them.
    pub fn of_this_machine() -> Result<Self, NvidiaError> {
        Self::of(&NvidiaLibrary::default())
    }

    fn of(library: &dyn Library) -> Result<Self, NvidiaError> {
        let driver = library.open()?;
        let version = driver.version()?;
        let gpus = all_gpus(&*driver)?;
        let mode = driver.mode().and_then(Mode::check);
        Ok(Self { driver: version, gpus, mode })
    }
}

/// Every GPU, ordered by identifier: the driver's own order may change with a reboot.
fn all_gpus(driver: &dyn Driver) -> Result<Vec<NvidiaGpu>, NvidiaError> {
    let count = driver.count()?;
    let limit = u32::try_from(limits::GPUS).unwrap_or(u32::MAX);
    if count == 0 {
        return Err(NvidiaError::NoGpu);
    }
    if count > limit {
        return Err(NvidiaError::TooMany { count, limit });
    }
    let mut gpus: Vec<_> = (0..count).map(|index| driver.gpu(index)).collect::<Result<_, _>>()?;
    gpus.sort();
    Ok(gpus)
}

/// The NVIDIA GPUs of this machine, all of them or none.
#[derive(Debug)]
pub struct NvidiaGpus {
    library: Box<dyn Library>,
    gpus: Vec<NvidiaGpu>,
    /// Open while all goes well. An error closes it, and the next call opens it again: the driver may
    /// have been restarted.
    driver: Mutex<Option<Arc<dyn Driver>>>,
}

impl NvidiaGpus {
    /// Finds the GPUs of this machine, and asks the driver whether they are in a mode to be asked. May
    /// take a second, when nothing else uses them.
    ///
    /// # Errors
    /// When there are none, or they are not in confidential-computing mode.
    pub fn of_this_machine() -> Result<Self, NvidiaError> {
        Self::of(Box::new(NvidiaLibrary::default()))
    }

    fn of(library: Box<dyn Library>) -> Result<Self, NvidiaError> {
        let driver = library.open()?;
        let gpus = all_gpus(&*driver)?;
        driver.mode()?.check()?;
        Ok(Self { library, gpus, driver: Mutex::new(Some(Arc::from(driver))) })
    }

    /// The GPUs, in the order of their evidence.
    pub fn names(&self) -> &[NvidiaGpu] {
        &self.gpus
    }

    fn driver(&self) -> Result<Arc<dyn Driver>, NvidiaError> {
        let mut kept = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = &*kept {
            return Ok(Arc::clone(driver));
        }
        let driver: Arc<dyn Driver> = Arc::from(self.library.open()?);
        if all_gpus(&*driver)? != self.gpus {
            return Err(NvidiaError::Changed);
        }
        driver.mode()?.check()?;
        *kept = Some(Arc::clone(&driver));
        Ok(driver)
    }

    /// Asks every GPU at once, each with its nonce.
    ///
    /// # Errors
    /// When a single one of them cannot make evidence.
    pub fn collect(&self, nonces: &[GpuNonce]) -> Result<Vec<GpuEvidence>, NvidiaError> {
        if nonces.len() != self.gpus.len() {
            return Err(NvidiaError::Changed);
        }
        let collected = self.driver().and_then(|driver| ask_all(&*driver, &self.gpus, nonces));
        if collected.is_err() {
            *self.driver.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        collected
    }
}

/// A GPU takes its time over a report, so that eight one after the other would outlast the deadline of an
/// answer.
fn ask_all(
    driver: &dyn Driver,
    gpus: &[NvidiaGpu],
    nonces: &[GpuNonce],
) -> Result<Vec<GpuEvidence>, NvidiaError> {
    std::thread::scope(|scope| {
        let ended = |reason: String| NvidiaError::Refused { call: REPORT, reason };
        let start = |(gpu, nonce): (_, &'_ GpuNonce)| {
            let nonce = *nonce.as_bytes();
            std::thread::Builder::new()
                .spawn_scoped(scope, move || ask(driver, gpu, &nonce))
                .map_err(|error| ended(format!("no thread to ask on ({error})")))
        };
        let asked: Vec<_> = gpus.iter().zip(nonces).map(start).collect();
        // All are joined, also behind the first that failed: a scope panics for a thread that did.
        let joined: Vec<_> = asked
            .into_iter()
            .map(|thread| {
                let panicked = |_| Err(ended("the thread that asked has ended".to_owned()));
                thread?.join().unwrap_or_else(panicked)
            })
            .collect();
        joined.into_iter().collect()
    })
}

fn ask(driver: &dyn Driver, gpu: &NvidiaGpu, nonce: &[u8; 32]) -> Result<GpuEvidence, NvidiaError> {
    let report = driver.report(gpu, nonce)?;
    let pem = driver.certificates(gpu)?;
    let chain = gpu_chain_from_pem(&pem)
        .ok_or_else(|| NvidiaError::Certificates { gpu: gpu.to_string() })?;
    let bounds = [
        (REPORT, report.len(), limits::GPU_REPORT_BYTES),
        (CERTIFICATES, chain.len(), limits::GPU_CHAIN_BYTES),
    ];
    for (call, bytes, limit) in bounds {
        if !(1..=limit).contains(&bytes) {
            return Err(NvidiaError::TooLarge { call, gpu: gpu.to_string(), bytes, limit });
        }
    }
    let (report, chain) = (Bytes::from(report), Bytes::from(chain));
    Ok(GpuEvidence { kind: GpuEvidenceKind::Nvidia, report, chain })
}

impl GpuAttester for NvidiaGpus {
    fn count(&self) -> usize {
        self.gpus.len()
    }

    fn evidence(&self, nonces: &[GpuNonce]) -> Result<Vec<GpuEvidence>, QuoteError> {
        self.collect(nonces).map_err(|error| {
            tracing::error!(%error, hint = error.hint(), "the GPUs made no evidence");
            QuoteError::Gpus
        })
    }
}

#[cfg(test)]
mod tests;
