//! The GPUs that prove themselves beside the TEE: chosen and tried.
//!
//! Owns: what `gpu_attester` means on this machine, and what to do where it cannot be had.
//! Must not: ask GPUs without a TEE, or offer any that were not tried: a GPU's report means something
//! only because a measured guest has asked for it and covers it with its own quote.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use cocoon_attest::{ANSWER_TIMEOUT, Clock, GpuAttester, GpuTrialError, record_gpus, try_gpus};
#[cfg(feature = "nvml")]
use cocoon_attest::{NvidiaError, NvidiaGpus};
use cocoon_protocol::attest::{GpuClaims, GpuEvidence};
use cocoon_protocol::units::Timestamp;

use crate::config::GpuAttesterChoice;

/// How long the driver may take to start and every GPU to make its first evidence: a driver that no
/// other program has started takes seconds for each GPU before it answers anything.
const FIRST_TIMEOUT: Duration = ANSWER_TIMEOUT.saturating_mul(2);

/// Why no GPU proves itself.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The settings say so.
    #[error("`gpu_attester = \"none\"`")]
    NotAsked,
    /// NVIDIA's GPUs cannot be asked.
    #[cfg(feature = "nvml")]
    #[error(transparent)]
    Nvidia(#[from] NvidiaError),
    /// The engine may compute on GPUs that nobody asks.
    #[cfg(feature = "nvml")]
    #[error("this build's engine also computes on GPUs of other vendors, which prove nothing")]
    OtherVendors,
    /// Nothing in this program asks a real GPU.
    #[cfg(not(feature = "nvml"))]
    #[error("this build asks no GPU for evidence")]
    NotBuilt,
    /// The simulated GPUs are not in this build.
    #[error("this build has no simulated GPUs: build with the feature `dev-tee`")]
    NoSimulation,
    /// Those that were found cannot be offered.
    #[error(transparent)]
    Trial(#[from] GpuTrialError),
    /// The driver does not answer.
    #[error("the driver of the GPUs was asked and does not answer")]
    TimedOut,
    /// The trial was cut off.
    #[error("the trial of the GPUs was cut off")]
    Cut,
}

impl GpuError {
    /// Whether there is nothing wrong: nobody asked, or there is nobody to ask.
    pub(crate) const fn is_absence(&self) -> bool {
        match self {
            Self::NotAsked | Self::Trial(GpuTrialError::None) => true,
            #[cfg(feature = "nvml")]
            Self::Nvidia(error) => error.is_absence(),
            #[cfg(not(feature = "nvml"))]
            Self::NotBuilt => true,
            #[cfg(feature = "nvml")]
            Self::OtherVendors => false,
            Self::NoSimulation | Self::Trial(_) | Self::TimedOut | Self::Cut => false,
        }
    }

    /// What to do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NotAsked => "`--gpu-attester auto` offers the GPUs that can prove themselves",
            #[cfg(feature = "nvml")]
            Self::Nvidia(error) => error.hint(),
            #[cfg(feature = "nvml")]
            Self::OtherVendors => "build with `cuda`, and without `vulkan` and `rocm`",
            #[cfg(not(feature = "nvml"))]
            Self::NotBuilt => {
                "build with the feature `nvml` (or `cuda`, which brings it), or serve without evidence \
                 of GPUs: `--gpu-attester none`"
            }
            Self::NoSimulation => "build with `--features dev-tee`, or use `--gpu-attester auto`",
            Self::TimedOut => {
                "`nvidia-smi` hangs too where the driver does: restart the guest, or serve without \
                 evidence of GPUs: `--gpu-attester none`"
            }
            Self::Trial(_) | Self::Cut => {
                "`cocoon-node tee detect` says what this machine can prove; `--gpu-attester none` \
                 serves without evidence of GPUs"
            }
        }
    }
}

/// GPUs that can be asked, and whether they are a simulation.
#[derive(Clone)]
pub(crate) struct Gpus {
    /// Asks them.
    pub(crate) attester: Arc<dyn GpuAttester>,
    /// Their evidence is worth nothing.
    pub(crate) simulated: bool,
}

impl fmt::Debug for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gpus").field(&self.attester).finish()
    }
}

/// The GPUs that the settings choose, not tried yet: [`offered`] tries them, and `tee` commands ask
/// them on their own. `simulated` is how many a simulation has. May block for seconds.
///
/// # Errors
/// Why there are none; with `auto` that is no failure, but a reason to tell.
pub(crate) fn choose(choice: GpuAttesterChoice, simulated: NonZeroU16) -> Result<Gpus, GpuError> {
    match choice {
        GpuAttesterChoice::None => Err(GpuError::NotAsked),
        GpuAttesterChoice::Simulated => simulation(simulated),
        GpuAttesterChoice::Auto | GpuAttesterChoice::Nvidia => nvidia(),
    }
}

/// Whether the engine finds devices by an interface that NVIDIA's driver does not answer for. The host
/// could pass another vendor's GPU through, and prompts would leave for it under a tier that denies it.
#[cfg(feature = "nvml")]
pub(crate) const REACHES_OTHERS: bool =
    cfg!(any(feature = "vulkan", feature = "rocm", feature = "metal"));

/// NVIDIA's GPUs in this machine.
#[cfg(feature = "nvml")]
fn nvidia() -> Result<Gpus, GpuError> {
    if REACHES_OTHERS {
        return Err(GpuError::OtherVendors);
    }
    let found = NvidiaGpus::of_this_machine()?;
    for (position, gpu) in found.names().iter().enumerate() {
        tracing::info!(gpu = position, name = %gpu, "in confidential-computing mode");
    }
    Ok(Gpus { attester: Arc::new(found), simulated: false })
}

#[cfg(not(feature = "nvml"))]
const fn nvidia() -> Result<Gpus, GpuError> {
    Err(GpuError::NotBuilt)
}

#[cfg(feature = "dev-tee")]
fn simulation(count: NonZeroU16) -> Result<Gpus, GpuError> {
    use cocoon_attest::simulated::{SimulatedGpu, SimulatedGpus};
    // More than there are numbers are too many for a session as well, which the trial says.
    let gpus = (0..count.get()).map_while(|number| u8::try_from(number).ok());
    let attester = Arc::new(SimulatedGpus::new(gpus.map(SimulatedGpu::new).collect()));
    Ok(Gpus { attester, simulated: true })
}

#[cfg(not(feature = "dev-tee"))]
const fn simulation(_: NonZeroU16) -> Result<Gpus, GpuError> {
    Err(GpuError::NoSimulation)
}

/// Evidence of the GPUs that the settings choose, for a record with `nonce`, and what it claims.
///
/// # Errors
/// Why there is none.
pub(crate) async fn recorded(
    choice: GpuAttesterChoice,
    simulated: NonZeroU16,
    nonce: [u8; 32],
    now: Timestamp,
) -> Result<(Vec<GpuEvidence>, Vec<GpuClaims>), GpuError> {
    let work = move || Ok(record_gpus(&*choose(choice, simulated)?.attester, &nonce, now)?);
    in_time(work).await
}

/// The GPUs that the settings choose, tried: each has just made evidence that verifies.
///
/// # Errors
/// Why none can be offered.
pub(crate) async fn offered(
    choice: GpuAttesterChoice,
    simulated: NonZeroU16,
    clock: &Clock,
) -> Result<Gpus, GpuError> {
    let now = clock.now();
    let work = move || {
        let gpus = choose(choice, simulated)?;
        for (position, claims) in try_gpus(&*gpus.attester, now)?.iter().enumerate() {
            tracing::info!(
                gpu = position,
                architecture = %claims.architecture,
                driver = claims.driver,
                vbios = claims.vbios,
                simulated = gpus.simulated,
                "a GPU proves itself"
            );
        }
        Ok(gpus)
    };
    in_time(work).await
}

/// Does `work` on a blocking thread, which is left behind when a driver never returns.
async fn in_time<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GpuError> + Send + 'static,
) -> Result<T, GpuError> {
    let done = tokio::time::timeout(FIRST_TIMEOUT, tokio::task::spawn_blocking(work)).await;
    done.map_err(|_| GpuError::TimedOut)?.map_err(|_| GpuError::Cut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_driver_that_never_answers_is_told_and_not_waited_for() {
        let (let_go, stuck) = std::sync::mpsc::channel::<()>();
        let (began, beginning) = tokio::sync::oneshot::channel();
        let trial = tokio::spawn(in_time(move || {
            let _ = began.send(());
            let _ = stuck.recv();
            Ok(())
        }));
        beginning.await.unwrap();
        tokio::time::advance(FIRST_TIMEOUT).await;
        let error = trial.await.unwrap().unwrap_err();
        assert!(matches!(error, GpuError::TimedOut), "{error}");
        assert!(!error.is_absence() && error.hint().contains("restart the guest"));
        drop(let_go);
    }
}
