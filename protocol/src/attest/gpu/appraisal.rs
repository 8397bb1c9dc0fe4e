//! Whether the policy is content with the GPUs of a session, and which tier they earn.
//!
//! Owns: every check that does not need NVIDIA's format, and the reasons for refusing a GPU.
//! Must not: verify signatures; claims exist only after `node/attest` did.

use crate::attest::binding::GpuNonce;
use crate::attest::gpu::claims::{GpuArchitecture, GpuClaims};
use crate::attest::gpu::rules::{GpuGolden, GpuRules};
use crate::attest::measurement::Register;
use crate::attest::policy::{Policy, Trust};
use crate::attest::tier::Tier;
use crate::attest::trace::{GpuStep, Trace};
use crate::attest::verdict::Refusal;
use crate::units::Timestamp;

/// How well the policy knows what a GPU runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuStanding {
    /// A genuine GPU that names listed versions; its measurements were compared with nothing.
    IdentityOnly,
    /// Every measurement that the policy lists for these versions has a listed value.
    Golden,
}

impl GpuStanding {
    /// The label that people see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdentityOnly => "gpu-identity-only",
            Self::Golden => "gpu-golden",
        }
    }
}

/// What the policy found acceptable in one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuAppraisal {
    /// Its family.
    pub architecture: GpuArchitecture,
    /// SHA-256 of its device key.
    pub device: [u8; 32],
    /// The driver's version.
    pub driver: String,
    /// The VBIOS's version.
    pub vbios: String,
    /// How well the policy knows it.
    pub standing: GpuStanding,
    /// Its evidence is simulated.
    pub simulated: bool,
    /// Until when its certificates vouch for it.
    pub expires: Timestamp,
}

/// Which check refused a GPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuRefusal {
    /// The report is not in the form of SPDM 1.1 `GET_MEASUREMENTS` and its response.
    #[error("its report is malformed ({part})")]
    Report {
        /// Which part of it.
        part: &'static str,
    },
    /// The certificates are not in the form that NVIDIA gives.
    #[error("its certificates are malformed ({part})")]
    Certificates {
        /// Which part of them.
        part: &'static str,
    },
    /// Too few or too many certificates.
    #[error("it shows a chain of {count} certificates, where {expected} are expected")]
    ChainLength {
        /// How many there are.
        count: usize,
        /// How many there should be.
        expected: usize,
    },
    /// The chain ends at nobody whom the policy trusts.
    #[error("its certificates do not end at a trusted vendor")]
    UntrustedRoot,
    /// A certificate names another issuer than the one above it.
    #[error("certificate {depth} of its chain names another issuer")]
    Issuer {
        /// Place in the chain, the report's signer being 0.
        depth: usize,
    },
    /// A certificate was issued by one that may not issue.
    #[error("certificate {depth} of its chain was issued by one that is no authority")]
    NotAnAuthority {
        /// Place of the issued certificate.
        depth: usize,
    },
    /// The report's signer could issue certificates, or may not sign.
    #[error("the certificate of its report's key is not for signing reports")]
    KeyUsage,
    /// A certificate's signature does not hold.
    #[error("the signature on certificate {depth} of its chain does not hold")]
    CertificateSignature {
        /// Place in the chain.
        depth: usize,
    },
    /// Beyond its dates, or before them.
    #[error("certificate {depth} of its chain is outside its validity")]
    CertificateExpired {
        /// Place in the chain.
        depth: usize,
    },
    /// The policy names a certificate's key as revoked.
    #[error("the key of certificate {depth} of its chain is revoked by the policy")]
    Revoked {
        /// Place in the chain.
        depth: usize,
    },
    /// A family that this node does not know.
    #[error("its certificates are for `{found}`, which is no GPU that this node can check")]
    UnknownArchitecture {
        /// What the certificate says, cut to what is printable.
        found: String,
    },
    /// The report's key belongs to another part of the device, or to a device of another family.
    #[error("the certificate of its report's key is not for the attestation processor of a GPU")]
    NotTheAttestationProcessor,
    /// The device's firmware runs with its protections down.
    #[error("its firmware is in {mode} mode")]
    Debug {
        /// Which of the DICE flags is set.
        mode: &'static str,
    },
    /// The report's signature does not hold.
    #[error("the signature on its report does not hold")]
    ReportSignature,
    /// The report names another firmware than its key's certificate.
    #[error("its report names another firmware than the certificate of its key")]
    FirmwareMismatch,
    /// The report names no firmware.
    #[error("its report names no firmware; only a policy with `allow_missing_fwid` accepts that")]
    FirmwareMissing,
    /// GPUs that talk to each other through switches that show no evidence.
    #[error("it runs in protected-PCIe mode, which needs evidence of its switches")]
    ProtectedPcie,
    /// The report was made for another session.
    #[error("its report is not bound to this session: it may be replayed or relayed")]
    NotFresh,
    /// A simulated GPU under a policy for real ones.
    #[error("it is simulated; only a policy with `trust = \"dev\"` accepts that")]
    SimulatedNotAllowed,
    /// The policy has no rules for GPUs.
    #[error("the policy has no rules for GPUs; add [gpu] with golden values")]
    NoRules,
    /// The family is not listed.
    #[error("the policy's `arch` does not list {architecture}")]
    ArchitectureNotAllowed {
        /// What it is.
        architecture: GpuArchitecture,
    },
    /// One GPU shown twice.
    #[error("it was shown twice")]
    Duplicate,
    /// The driver is not listed.
    #[error("the policy lists no state for its driver {version}")]
    DriverNotAllowed {
        /// Its version.
        version: String,
    },
    /// The VBIOS is not listed for the driver.
    #[error("the policy lists no state for its VBIOS {version} with this driver")]
    VbiosNotAllowed {
        /// Its version.
        version: String,
    },
    /// A measurement has no listed value.
    #[error("its measurement {index} has a value that the policy does not list")]
    UnknownMeasurement {
        /// NVIDIA's index, from 0.
        index: u8,
    },
    /// A listed measurement is not in the report.
    #[error("its report lacks measurement {index}, which the policy lists")]
    MeasurementMissing {
        /// NVIDIA's index, from 0.
        index: u8,
    },
}

impl GpuRefusal {
    /// The refusal of the GPU at `position`, counted from 0.
    pub fn of(self, position: usize) -> Refusal {
        Refusal::Gpu { position, reason: Box::new(self) }
    }
}

/// Judges the GPUs of one session by `policy`. `claims` and `nonces` belong together by position.
///
/// # Errors
/// [`Refusal::GpuEvidenceMissing`] for none, or [`Refusal::Gpu`] for the first that failed a check.
pub fn appraise_gpus(
    claims: &[GpuClaims],
    nonces: &[GpuNonce],
    policy: &Policy,
) -> Result<Vec<GpuAppraisal>, Refusal> {
    if claims.is_empty() || claims.len() != nonces.len() {
        return Err(Refusal::GpuEvidenceMissing);
    }
    let mut appraisals: Vec<GpuAppraisal> = Vec::with_capacity(claims.len());
    for (position, (claims, nonce)) in claims.iter().zip(nonces).enumerate() {
        let nonce = nonce.as_bytes();
        let appraisal = appraise_gpu_traced(claims, nonce, policy, &mut Trace::default())
            .map_err(|why| why.of(position))?;
        if appraisals.iter().any(|before| before.device == appraisal.device) {
            return Err(GpuRefusal::Duplicate.of(position));
        }
        appraisals.push(appraisal);
    }
    Ok(appraisals)
}

/// Judges one GPU, whose report must carry `nonce`, noting every check that passes. Whether it is
/// another one than those beside it only [`appraise_gpus`] says.
///
/// # Errors
/// The first check that failed; the order is the order of the code.
pub fn appraise_gpu_traced(
    claims: &GpuClaims,
    nonce: &[u8; 32],
    policy: &Policy,
    trace: &mut Trace<GpuStep>,
) -> Result<GpuAppraisal, GpuRefusal> {
    if claims.kind.is_simulated() && policy.trust() != Trust::Dev {
        return Err(GpuRefusal::SimulatedNotAllowed);
    }
    if claims.nonce != *nonce {
        return Err(GpuRefusal::NotFresh);
    }
    trace.pass(GpuStep::Binding);
    let rules = policy.gpu().ok_or(GpuRefusal::NoRules)?;
    trace.pass(GpuStep::Rules);
    let revoked = |hash: &[u8; 32]| rules.revoked_keys.contains(hash);
    if let Some(depth) = claims.keys.iter().position(revoked) {
        return Err(GpuRefusal::Revoked { depth });
    }
    trace.pass(GpuStep::Revocation);
    let architecture = claims.architecture;
    if !rules.architectures.contains(&architecture) {
        return Err(GpuRefusal::ArchitectureNotAllowed { architecture });
    }
    trace.pass(GpuStep::Architecture);
    if !claims.names_firmware && !rules.allow_missing_fwid {
        return Err(GpuRefusal::FirmwareMissing);
    }
    trace.pass(GpuStep::FirmwareNamed);
    let standing = standing(claims, rules)?;
    trace.pass(GpuStep::State);
    Ok(GpuAppraisal {
        architecture,
        device: claims.device(),
        driver: claims.driver.clone(),
        vbios: claims.vbios.clone(),
        standing,
        simulated: claims.kind.is_simulated(),
        expires: claims.certificates_expire,
    })
}

/// The standing that the rules give. A GPU with listed golden values for its versions must have
/// them: it cannot fall back to its identity alone.
fn standing(claims: &GpuClaims, rules: &GpuRules) -> Result<GpuStanding, GpuRefusal> {
    let mut mismatch = None;
    let of_versions = |golden: &&GpuGolden| {
        golden.driver == claims.driver && golden.vbios.eq_ignore_ascii_case(&claims.vbios)
    };
    for golden in rules.golden.iter().filter(of_versions) {
        match first_mismatch(claims, golden) {
            None => return Ok(GpuStanding::Golden),
            Some(refusal) => mismatch = mismatch.or(Some(refusal)),
        }
    }
    if let Some(refusal) = mismatch {
        return Err(refusal);
    }
    let same_driver = |golden: &GpuGolden| golden.driver == claims.driver;
    let mut known_driver = rules.golden.iter().any(same_driver);
    if let Some(only) = &rules.identity_only {
        let listed = |version: &String| version.eq_ignore_ascii_case(&claims.vbios);
        match (only.drivers.contains(&claims.driver), only.vbios.iter().any(listed)) {
            (true, true) => return Ok(GpuStanding::IdentityOnly),
            (driver, _) => known_driver |= driver,
        }
    }
    Err(if known_driver {
        GpuRefusal::VbiosNotAllowed { version: claims.vbios.clone() }
    } else {
        GpuRefusal::DriverNotAllowed { version: claims.driver.clone() }
    })
}

/// Measurement of the video decoder's firmware. NVIDIA's own verifier does not compare it while the
/// decoder is off, for there is then no firmware to measure; the GPU signs whether it is.
const DECODER_MEASUREMENT: u8 = 35;

fn first_mismatch(claims: &GpuClaims, golden: &GpuGolden) -> Option<GpuRefusal> {
    let mut compared = false;
    for (&index, values) in &golden.measurements {
        if index == DECODER_MEASUREMENT && claims.decoder_disabled {
            continue;
        }
        let Some(measured) = claims.measurements.get(&index) else {
            return Some(GpuRefusal::MeasurementMissing { index });
        };
        if !values.contains(measured) {
            return Some(GpuRefusal::UnknownMeasurement { index });
        }
        compared |= *measured != Register::ZERO;
    }
    // A state that lists the decoder alone would otherwise match anything with the decoder off.
    (!compared).then_some(GpuRefusal::MeasurementMissing { index: DECODER_MEASUREMENT })
}

/// The tier of a session whose CPU earned `cpu` and whose GPUs were judged as `gpus`:
/// `confidential` only for a CPU TEE with at least one GPU, every one of them in a listed state.
pub fn tier_with_gpus(cpu: Tier, gpus: &[GpuAppraisal]) -> Tier {
    let golden = |gpu: &GpuAppraisal| gpu.standing == GpuStanding::Golden;
    if cpu >= Tier::Attested && !gpus.is_empty() && gpus.iter().all(golden) {
        Tier::Confidential
    } else {
        cpu
    }
}

#[cfg(test)]
mod tests;
