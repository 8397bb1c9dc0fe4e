//! Simulated GPUs: reports in NVIDIA's form under a public test root. **NO SECURITY: every private key
//! follows from a constant in this file, and there is no GPU.**
//!
//! Owns: the test chain of GPUs and the reports under it.
//! Must not: look like anything else: the root's subject says NOT A GPU.

use std::collections::BTreeMap;

use aws_lc_rs::agreement::{ECDH_P384, PrivateKey};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use bytes::Bytes;
use cocoon_protocol::attest::{GpuEvidence, GpuEvidenceKind, GpuNonce, Register};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PublicKeyData as _, date_time_ymd,
};
use sha2::{Digest as _, Sha384};

use crate::attester::QuoteError;
use crate::gpu::GpuAttester;
use crate::nvidia::Root;
use crate::simulated::der;

/// The subject of the test root of GPUs.
pub const GPU_ROOT_COMMON_NAME: &str = "COCOON DEV GPU ROOT - NOT A GPU";

/// What every private key is derived from. Publishing it is intended.
const SEED: &[u8] = b"COCOON DEV GPU PKI - NO SECURITY - ANYBODY CAN SIGN WITH THESE KEYS";
/// In place of NVIDIA's name in the subjects below the root.
const VENDOR: &str = "COCOON DEV";

/// What a simulated GPU pretends to be.
#[derive(Clone, Debug)]
pub struct SimulatedGpu {
    /// Which one it is; each has its own certificates.
    pub number: u8,
    /// The driver's version, of at most 32 plain characters.
    pub driver: String,
    /// The VBIOS's version, byte by byte as it is written.
    pub vbios: [u8; 5],
    /// SHA-384 of the firmware that holds the report's key.
    pub firmware: [u8; 48],
    /// Measurements that are not zero, by NVIDIA's index from 0.
    pub measurements: BTreeMap<u8, Register>,
}

impl SimulatedGpu {
    /// A GPU in the one state that the dev policy lists. Its measurements spell that it is none.
    pub fn new(number: u8) -> Self {
        let register = |text: &str| {
            let mut bytes = [0; 48];
            bytes.iter_mut().zip(text.bytes()).for_each(|(byte, letter)| *byte = letter);
            Register::from_bytes(bytes)
        };
        Self {
            number,
            driver: "0.0.0-simulated".to_owned(),
            vbios: [0xde, 0xad, 0, 0, 1],
            firmware: *register("NOT A GPU: simulated firmware").as_bytes(),
            measurements: BTreeMap::from([
                (1, register("NOT A GPU: simulated VBIOS")),
                (21, register("NOT A GPU: simulated driver")),
            ]),
        }
    }

    /// The VBIOS's version as a policy names it.
    pub fn vbios_version(&self) -> String {
        let [a, b, c, d, e] = self.vbios;
        format!("{a:02X}.{b:02X}.{c:02X}.{d:02X}.{e:02X}")
    }
}

/// GPUs without a GPU, for tests and demos. **NO SECURITY.**
#[derive(Clone, Debug)]
pub struct SimulatedGpus(Vec<SimulatedGpu>);

impl SimulatedGpus {
    /// Simulates `gpus`, and warns in the log.
    pub fn new(gpus: Vec<SimulatedGpu>) -> Self {
        tracing::warn!("this node simulates GPUs: their evidence is worth NOTHING");
        Self(gpus)
    }
}

impl GpuAttester for SimulatedGpus {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn evidence(&self, nonces: &[GpuNonce]) -> Result<Vec<GpuEvidence>, QuoteError> {
        let forge = |(gpu, nonce): (&SimulatedGpu, &GpuNonce)| {
            Ok(GpuEvidence {
                kind: GpuEvidenceKind::SimulatedNvidia,
                report: Bytes::from(forge_report(gpu, nonce.as_bytes())?),
                chain: Bytes::from(forge_chain(gpu, |_, _| {})?),
            })
        };
        self.0.iter().zip(nonces).map(forge).collect()
    }
}

/// The test root; only what it says counts, so every process has the same.
pub(super) fn root() -> Option<Root> {
    let key = issuing_key("root").ok()?;
    let certificate = parameters(0, &SimulatedGpu::new(0)).ok()?.self_signed(&key).ok()?;
    Root::new(certificate.der(), VENDOR)
}

/// A key that the whole world knows.
fn public_private_key(role: &str) -> Result<EcdsaKeyPair, QuoteError> {
    let failed = |_| QuoteError::Simulation;
    let scalar = Sha384::new().chain_update(SEED).chain_update(role).finalize();
    let key =
        PrivateKey::from_private_key(&ECDH_P384, &scalar).map_err(|_| QuoteError::Simulation)?;
    let public = key.compute_public_key().map_err(|_| QuoteError::Simulation)?;
    let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, &scalar, public.as_ref())
        .map_err(failed)
}

/// The same key for the certificate library.
fn issuing_key(role: &str) -> Result<KeyPair, QuoteError> {
    let document = public_private_key(role)?.to_pkcs8v1().map_err(|_| QuoteError::Simulation)?;
    KeyPair::from_pkcs8_der_and_sign_algo(&document.as_ref().into(), &PKCS_ECDSA_P384_SHA384)
        .map_err(|_| QuoteError::Simulation)
}

/// Roles of the chain's keys, from the root down.
fn roles(gpu: &SimulatedGpu) -> [String; 5] {
    let firmware = hex::encode(gpu.firmware);
    let number = gpu.number;
    let fixed = |role: &str| role.to_owned();
    let (device, signer) = (format!("device-{number}"), format!("signer-{number}-{firmware}"));
    [fixed("root"), fixed("family"), fixed("provisioner"), device, signer]
}

/// The certificate at `depth` from the root.
fn parameters(depth: usize, gpu: &SimulatedGpu) -> Result<CertificateParams, rcgen::Error> {
    let number = gpu.number;
    let name = match depth {
        0 => GPU_ROOT_COMMON_NAME.to_owned(),
        1 => format!("{VENDOR} GH100 Identity"),
        2 => format!("{VENDOR} GH100 Provisioner - NOT A GPU"),
        3 => format!("{VENDOR} GH100 {number} - NOT A GPU"),
        _ => format!("GH100 {VENDOR} {number} - NOT A GPU - GSP FMC LF"),
    };
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.not_before = date_time_ymd(2024, 1, 1);
    parameters.not_after = date_time_ymd(2049, 1, 1);
    if depth < 4 {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    } else {
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    }
    Ok(parameters)
}

/// The chain of `gpu` as it travels. `change` may spoil each certificate, by its depth from the root.
pub(crate) fn forge_chain(
    gpu: &SimulatedGpu,
    change: impl Fn(usize, &mut CertificateParams),
) -> Result<Vec<u8>, QuoteError> {
    let failed = |_| QuoteError::Simulation;
    let mut certificates: Vec<Vec<u8>> = Vec::new();
    let mut issuer: Option<Issuer<'_, KeyPair>> = None;
    for (depth, role) in roles(gpu).iter().enumerate() {
        let key = issuing_key(role)?;
        let mut parameters = parameters(depth, gpu).map_err(failed)?;
        if depth == 4 {
            let content = der::composite_device_id(&key.subject_public_key_info(), &gpu.firmware);
            let extension = CustomExtension::from_oid_content(&[2, 23, 133, 5, 4, 1], content);
            parameters.custom_extensions.push(extension);
        }
        change(depth, &mut parameters);
        let certificate = match &issuer {
            None => parameters.self_signed(&key),
            Some(issuer) => parameters.signed_by(&key, issuer),
        };
        certificates.push(certificate.map_err(failed)?.der().to_vec());
        issuer = Some(Issuer::new(parameters, key));
    }
    certificates.reverse();
    Ok(certificates.concat())
}

/// The report of `gpu` over `nonce`: request, response, opaque fields and signature.
pub(crate) fn forge_report(gpu: &SimulatedGpu, nonce: &[u8; 32]) -> Result<Vec<u8>, QuoteError> {
    const MEASUREMENTS: u8 = 64;
    let mut out = vec![0x11, 0xe0, 0x01, 0xff];
    out.extend_from_slice(nonce);
    out.push(0);

    let mut record = Vec::new();
    for index in 0..MEASUREMENTS {
        // Index from 1, DMTF, 51 bytes; an immutable digest of 48 bytes.
        record.extend([index.saturating_add(1), 1, 51, 0, 1, 48, 0]);
        let value = gpu.measurements.get(&index).unwrap_or(&Register::ZERO);
        record.extend_from_slice(value.as_bytes());
    }
    let length = u32::try_from(record.len()).map_err(|_| QuoteError::Simulation)?;
    let [low, middle, high, _] = length.to_le_bytes();
    out.extend([0x11, 0x60, 0, 0, MEASUREMENTS, low, middle, high]);
    out.extend(record);
    // The responder's nonce is nobody's business; a fixed one is as good.
    out.extend([0; 32]);

    let [a, b, c, d, e] = gpu.vbios;
    let driver = [gpu.driver.as_bytes(), &[0]].concat();
    let mut opaque = Vec::new();
    append_field(&mut opaque, 6, &[d, c, b, a, e, 0, 0, 0])?;
    append_field(&mut opaque, 3, &driver)?;
    append_field(&mut opaque, 11, &[0x55])?;
    append_field(&mut opaque, 20, &gpu.firmware)?;
    append_field(&mut opaque, 21, &[0x55])?;
    let length = u16::try_from(opaque.len()).map_err(|_| QuoteError::Simulation)?;
    out.extend(length.to_le_bytes());
    out.extend(opaque);
    sign_report(gpu, out)
}

/// Appends the signature that the key of `gpu` makes over `report`.
fn sign_report(gpu: &SimulatedGpu, mut report: Vec<u8>) -> Result<Vec<u8>, QuoteError> {
    let [.., signer] = roles(gpu);
    let signature = public_private_key(&signer)?
        .sign(&SystemRandom::new(), &report)
        .map_err(|_| QuoteError::Simulation)?;
    report.extend_from_slice(signature.as_ref());
    Ok(report)
}

/// Signs `report`, less its old signature, anew.
#[cfg(test)]
pub(crate) fn resign_report(gpu: &SimulatedGpu, report: &[u8]) -> Vec<u8> {
    sign_report(gpu, report[..report.len() - 96].to_vec()).unwrap()
}

fn append_field(out: &mut Vec<u8>, field: u16, value: &[u8]) -> Result<(), QuoteError> {
    let length = u16::try_from(value.len()).map_err(|_| QuoteError::Simulation)?;
    out.extend(field.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend_from_slice(value);
    Ok(())
}
