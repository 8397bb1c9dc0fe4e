//! The evidence that a provider offers: chosen, tried, and kept fresh.
//!
//! Owns: what `attester` means on this machine, the tier that follows, and the errors a person can
//! act on.
//! Must not: offer what was not tried: the TEE has made a quote, its register holds the
//! configuration, and endorsements lie ready, or the tier is `open`; every GPU has made evidence, or
//! it is `attested`.

use std::path::Path;
use std::sync::Arc;

use cocoon_attest::collateral::{Keeper, KeeperError, KeeperOptions, Refreshed, Sources};
use cocoon_attest::detect::{Interface, Standing, detect};
use cocoon_attest::{
    Attester, Clock, EndorsementShelf, HardwareAttester, OpenAttester, RtmrError, TDX_MEASUREMENTS,
    Tee, TsmOptions, WithGpus, extend_rtmr3, host_data,
};
use cocoon_protocol::attest::{HostData, Tier};

use crate::config::{AttesterChoice, Config, GpuAttesterChoice};
use crate::data_folder::DataFolder;
use crate::endorsements::{Client, Keeping, LookError, look};
use crate::gpu_standing::NotedGpus;
use crate::start::gpus::{self, GpuError, Gpus};

/// Why evidence that was asked for cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The machine has no TEE, or it cannot be used.
    #[error("`attester` asks for {wanted}, and this machine cannot prove that: {missing}")]
    NoTee {
        /// What was asked for.
        wanted: Tee,
        /// The first thing that is missing.
        missing: String,
    },
    /// The machine has the other vendor's TEE.
    #[error("`attester` asks for {wanted}, and this machine is a {found} guest")]
    OtherTee {
        /// What was asked for.
        wanted: Tee,
        /// What is there.
        found: Tee,
    },
    /// The TEE is there and makes no evidence.
    #[error("the TEE makes no evidence")]
    Look(#[source] LookError),
    /// RTMR3 does not hold the configuration.
    #[error("the configuration cannot be measured")]
    Register(#[source] RtmrError),
    /// The host launched the guest for another configuration.
    #[error(
        "the host launched this guest with host data {found}, which is not this configuration's \
         digest, {expected}"
    )]
    HostData {
        /// In the guest's report.
        found: HostData,
        /// What follows from the settings.
        expected: HostData,
    },
    /// The HTTP client cannot start.
    #[error("the HTTP client cannot start")]
    Client(#[source] reqwest::Error),
    /// There are no endorsements, neither from the vendor nor from an earlier run.
    #[error("what consumers need to verify this machine's evidence cannot be had")]
    Endorsements(#[source] KeeperError),
    /// GPUs were asked for by name, and there is no TEE.
    #[error("`gpu_attester` asks for GPUs, and without a TEE their evidence proves nothing")]
    GpusWithoutTee,
    /// GPUs were asked for by name, and cannot be offered.
    #[error("`gpu_attester` asks for GPUs that prove themselves, and none is offered")]
    Gpus(#[source] GpuError),
    /// The simulated TEE is not in this build.
    #[error("this build has no simulated TEE: build with the feature `dev-tee`")]
    NoSimulation,
}

impl EvidenceError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Gpus(error) => error.hint(),
            Self::GpusWithoutTee => {
                "`cocoon-node tee detect` says what this machine can prove and what is missing; \
                 `--gpu-attester none` serves without evidence of GPUs"
            }
            Self::NoTee { .. } | Self::OtherTee { .. } | Self::Look(_) | Self::Client(_) => {
                "`cocoon-node tee detect` says what this machine can prove and what is missing; \
                 `--attester open` serves without evidence"
            }
            Self::Register(_) => "reboot the guest, or serve without evidence: `--attester open`",
            Self::HostData { .. } => {
                "launch the guest with this digest as its host data, or with none"
            }
            Self::Endorsements(_) => {
                "`cocoon-node tee detect --online` tries the services; `--intel-pcs` and `--amd-kds` \
                 name mirrors, `--endorsements` a file"
            }
            Self::NoSimulation => "build with `--features dev-tee`, or use `--attester auto`",
        }
    }
}

/// Evidence that is ready to be offered.
pub(crate) struct Proof {
    /// Makes quotes.
    pub(crate) attester: Arc<dyn Attester>,
    /// The tier that they earn.
    pub(crate) tier: Tier,
    /// Whether any of it is a simulation's.
    pub(crate) simulated: bool,
    /// The GPUs beside the TEE; to be followed.
    pub(crate) gpus: Option<Arc<NotedGpus>>,
    /// What keeps endorsements fresh.
    pub(crate) keeping: Option<Keeping>,
}

impl Proof {
    fn open() -> Self {
        let attester = Arc::new(OpenAttester);
        Self { attester, tier: Tier::Open, simulated: false, gpus: None, keeping: None }
    }

    #[cfg(feature = "dev-tee")]
    fn simulated(attester: impl Attester + 'static) -> Self {
        tracing::warn!("this provider's TEE is simulated: it protects nothing");
        let attester = Arc::new(attester);
        Self { attester, tier: Tier::Attested, simulated: true, gpus: None, keeping: None }
    }
}

/// What the attester is made for.
#[derive(Debug)]
pub(crate) struct Purpose<'a> {
    pub(crate) config: &'a Config,
    pub(crate) folder: &'a DataFolder,
    /// Digest of the configuration.
    pub(crate) configuration: [u8; 32],
    pub(crate) clock: &'a Clock,
}

/// Makes the evidence that the settings ask for.
///
/// # Errors
/// When a TEE or GPUs were asked for by name and cannot be used. `auto` falls to `open` or `attested`
/// instead, and says so.
pub(crate) async fn prove(purpose: &Purpose<'_>) -> Result<Proof, EvidenceError> {
    let proof = prove_tee(purpose).await?;
    let config = purpose.config;
    let by_name = match config.gpu_attester {
        GpuAttesterChoice::Nvidia | GpuAttesterChoice::Simulated => true,
        GpuAttesterChoice::Auto | GpuAttesterChoice::None => false,
    };
    if proof.tier == Tier::Open {
        // Without a TEE GPUs prove nothing and are not asked.
        return if by_name { Err(EvidenceError::GpusWithoutTee) } else { Ok(proof) };
    }
    let found = gpus::offered(config.gpu_attester, config.simulated_gpus, purpose.clock).await;
    beside(proof, found, by_name)
}

/// The proof of a TEE together with the GPUs that were found, or as it is and why.
fn beside(
    proof: Proof,
    found: Result<Gpus, GpuError>,
    by_name: bool,
) -> Result<Proof, EvidenceError> {
    match found {
        Ok(found) => {
            let noted = NotedGpus::new(found.attester);
            let cpu = proof.attester;
            Ok(Proof {
                attester: Arc::new(WithGpus::new(cpu, Arc::<NotedGpus>::clone(&noted))),
                tier: Tier::Confidential,
                simulated: proof.simulated || found.simulated,
                gpus: Some(noted),
                keeping: proof.keeping,
            })
        }
        Err(error) if by_name => Err(EvidenceError::Gpus(error)),
        Err(error) if error.is_absence() => {
            tracing::info!(reason = %error, "no GPU proves itself: tier attested");
            Ok(proof)
        }
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                hint = error.hint(),
                "THIS MACHINE HAS GPUS AND THEY CANNOT PROVE THEMSELVES: tier ATTESTED, in which the \
                 owner of a machine can read what crosses its bus to a GPU"
            );
            Ok(proof)
        }
    }
}

/// The evidence of the TEE alone.
async fn prove_tee(purpose: &Purpose<'_>) -> Result<Proof, EvidenceError> {
    match purpose.config.attester {
        AttesterChoice::Open => Ok(Proof::open()),
        AttesterChoice::Simulated => simulated_tdx(),
        AttesterChoice::SimulatedSnp => simulated_snp(),
        AttesterChoice::Tdx => hardware(purpose, Tee::Tdx).await,
        AttesterChoice::Snp => hardware(purpose, Tee::Snp).await,
        AttesterChoice::Auto => {
            let Some((tee, interface)) = detected().await.ok() else {
                tracing::info!("no TEE here (`cocoon-node tee detect` says why): tier open");
                return Ok(Proof::open());
            };
            match hardware_through(purpose, tee, interface).await {
                Ok(proof) => Ok(proof),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        hint = error.hint(),
                        "THIS MACHINE HAS {tee} AND CANNOT PROVE IT: tier OPEN, in which the owner \
                         of a machine can read every prompt on it"
                    );
                    Ok(Proof::open())
                }
            }
        }
    }
}

/// Whether the weights must not be read from the disk while they are used: where the disk belongs to
/// a host that is not trusted. A simulation does the same, so that it shows the same.
#[cfg(feature = "llama")]
pub(crate) async fn private_weights(attester: AttesterChoice) -> bool {
    match attester {
        AttesterChoice::Open => false,
        AttesterChoice::Tdx | AttesterChoice::Snp => true,
        AttesterChoice::Simulated | AttesterChoice::SimulatedSnp => cfg!(target_os = "linux"),
        AttesterChoice::Auto => detected().await.is_ok(),
    }
}

/// The TEE of this machine, or the first thing that is missing.
pub(crate) async fn detected() -> Result<(Tee, Interface), String> {
    let found = tokio::task::spawn_blocking(|| detect(Path::new("/"))).await;
    let found = found.map_err(|_| "the look at the machine was cut off".to_owned())?;
    found.tee.ok_or_else(|| {
        let mut missing = found.steps.into_iter().filter(|it| it.standing == Standing::Missing);
        missing.next().map_or_else(String::new, |step| format!("{}: {}", step.name, step.found))
    })
}

async fn hardware(purpose: &Purpose<'_>, wanted: Tee) -> Result<Proof, EvidenceError> {
    match detected().await {
        Ok((found, interface)) if found == wanted => {
            hardware_through(purpose, wanted, interface).await
        }
        Ok((found, _)) => Err(EvidenceError::OtherTee { wanted, found }),
        Err(missing) => Err(EvidenceError::NoTee { wanted, missing }),
    }
}

async fn hardware_through(
    purpose: &Purpose<'_>,
    tee: Tee,
    interface: Interface,
) -> Result<Proof, EvidenceError> {
    let shelf = EndorsementShelf::default();
    let attester = Arc::new(attester(tee, interface, shelf.clone()));
    if tee == Tee::Tdx {
        measure(&purpose.configuration)?;
    }
    let now = purpose.clock.now();
    let raw = look(&attester, &purpose.configuration, now).await.map_err(EvidenceError::Look)?;
    check_host_data(host_data(&raw.evidence), &purpose.configuration)?;
    let mut keeper = keeper(purpose.config, purpose.folder, shelf)?;
    let kept = keeper.restore(&raw, now);
    let Refreshed { origin, expires, again } = match keeper.refresh(&raw, now).await {
        Ok(refreshed) => refreshed,
        Err(error) => {
            let kept = kept.ok_or_else(|| EvidenceError::Endorsements(error.clone()))?;
            let again = keeper.wait(&error, 0);
            tracing::warn!(%error, "using the endorsements of an earlier run");
            Refreshed { again, ..kept }
        }
    };
    tracing::info!(%tee, %interface, ?origin, until = expires.as_unix_secs(), "the TEE is ready");
    let (configuration, clock) = (purpose.configuration, purpose.clock.clone());
    let keeping =
        Keeping { keeper, attester: Arc::clone(&attester), configuration, clock, first: again };
    let keeping = Some(keeping);
    Ok(Proof { attester, tier: Tier::Attested, simulated: false, gpus: None, keeping })
}

/// The attester of this machine.
pub(crate) fn attester(
    tee: Tee,
    interface: Interface,
    shelf: EndorsementShelf,
) -> HardwareAttester {
    match interface {
        Interface::Tsm => HardwareAttester::tsm(tee, TsmOptions::default(), shelf),
        Interface::SevGuest => HardwareAttester::sev_guest(0, shelf),
    }
}

/// What fetches endorsements, as the settings say.
pub(crate) fn keeper(
    config: &Config,
    folder: &DataFolder,
    shelf: EndorsementShelf,
) -> Result<Keeper, EvidenceError> {
    let http = Arc::new(Client::new().map_err(EvidenceError::Client)?);
    let sources = Sources { pcs: config.intel_pcs.to_string(), kds: config.amd_kds.to_string() };
    let file = config.endorsements.clone();
    Ok(Keeper::new(KeeperOptions { http, sources, file, folder: folder.endorsements(), shelf }))
}

/// The configuration into RTMR3. A kernel that cannot is no reason to stop: the register then stays
/// zero, and a policy that lists another value refuses this node.
fn measure(configuration: &[u8; 32]) -> Result<(), EvidenceError> {
    match extend_rtmr3(Path::new(TDX_MEASUREMENTS), configuration) {
        Ok(register) => tracing::info!(%register, "RTMR3 holds the configuration"),
        Err(error @ RtmrError::NoInterface { .. }) => tracing::warn!(%error, "RTMR3 is not used"),
        Err(error) => return Err(EvidenceError::Register(error)),
    }
    Ok(())
}

/// A host that says what it launched must have launched this.
fn check_host_data(found: Option<HostData>, configuration: &[u8; 32]) -> Result<(), EvidenceError> {
    let expected = HostData::from_bytes(*configuration);
    match found {
        Some(found) if found != HostData::ZERO && found != expected => {
            Err(EvidenceError::HostData { found, expected })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(feature = "dev-tee")]
#[expect(clippy::unnecessary_wraps, reason = "as its counterpart")]
fn simulated_tdx() -> Result<Proof, EvidenceError> {
    use cocoon_attest::simulated::{SimulatedAttester, SimulatedGuest};
    Ok(Proof::simulated(SimulatedAttester::new(SimulatedGuest::default())))
}

#[cfg(not(feature = "dev-tee"))]
const fn simulated_tdx() -> Result<Proof, EvidenceError> {
    Err(EvidenceError::NoSimulation)
}

#[cfg(feature = "dev-tee")]
#[expect(clippy::unnecessary_wraps, reason = "as its counterpart")]
fn simulated_snp() -> Result<Proof, EvidenceError> {
    use cocoon_attest::simulated::{SimulatedSnp, SimulatedSnpGuest};
    Ok(Proof::simulated(SimulatedSnp::new(SimulatedSnpGuest::default())))
}

#[cfg(not(feature = "dev-tee"))]
const fn simulated_snp() -> Result<Proof, EvidenceError> {
    Err(EvidenceError::NoSimulation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_launched_another_configuration_is_refused() {
        let zero = Some(HostData::ZERO);
        let same = Some(HostData::from_bytes([4; 32]));
        let other = Some(HostData::from_bytes([5; 32]));
        for fine in [None, zero, same] {
            assert!(check_host_data(fine, &[4; 32]).is_ok());
        }
        let refused = check_host_data(other, &[4; 32]).unwrap_err();
        assert!(matches!(refused, EvidenceError::HostData { .. }));
        assert!(refused.to_string().contains(&"05".repeat(32)), "{refused}");
        assert!(refused.hint().contains("host data"));
    }

    #[cfg(feature = "dev-tee")]
    #[test]
    fn gpus_that_cannot_prove_themselves_leave_the_tee_s_own_tier_unless_they_were_asked_for() {
        use cocoon_attest::simulated::{SimulatedGpu, SimulatedGpus};
        use cocoon_attest::{GpuTrialError, QuoteError};
        let proof = || simulated_tdx().unwrap();
        let failing = || Err(GpuError::Trial(GpuTrialError::NoEvidence(QuoteError::Unavailable)));
        let absent = || Err(GpuError::Trial(GpuTrialError::None));
        for error in [failing(), absent(), Err(GpuError::NotAsked)] {
            let left = beside(proof(), error, false).unwrap();
            assert_eq!((left.tier, left.attester.gpus().is_some()), (Tier::Attested, false));
        }
        for error in [failing(), absent()] {
            let refused = beside(proof(), error, true).map(|proof| proof.tier).unwrap_err();
            assert!(matches!(refused, EvidenceError::Gpus(_)));
            assert!(refused.hint().contains("--gpu-attester none"), "{}", refused.hint());
        }
        let attester = Arc::new(SimulatedGpus::new(vec![SimulatedGpu::new(0)]));
        let genuine = Proof { simulated: false, ..proof() };
        let both = beside(genuine, Ok(Gpus { attester, simulated: true }), false).unwrap();
        assert_eq!((both.tier, both.simulated), (Tier::Confidential, true));
        assert_eq!(both.attester.gpus().map(cocoon_attest::GpuAttester::count), Some(1));
    }
}
