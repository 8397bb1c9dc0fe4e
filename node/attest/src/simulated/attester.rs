//! Forges TDX quotes (Intel, *DCAP Quote Generation Library*, version 4) under the test root.
//!
//! Owns: the quote's layout and the simulated guest. Must not: touch hardware.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::signature::KeyPair as _;
use bytes::Bytes;
use cocoon_protocol::attest::{
    Evidence, EvidenceKind, REPORT_DATA_BYTES, Register, ReportData, TcbStatus, TdxMeasurements,
};
use cocoon_protocol::units::Timestamp;
use dcap_qvl::INTEL_QE_VENDOR_ID;
use sha2::{Digest as _, Sha256};

use crate::attester::{Attester, QuoteError, Quoted};
use crate::simulated::pki::{self, Pki, sign};

/// What the simulation pretends to be.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedGuest {
    /// What was measured.
    pub measurements: TdxMeasurements,
    /// TD attributes. Bit 28 (SEPT_VE_DISABLE) is set on every honest guest, bit 0 is debug.
    pub attributes: u64,
    /// The platform's standing.
    pub tcb_status: TcbStatus,
    /// The evaluation that the collateral belongs to.
    pub tcb_evaluation_data_number: u32,
}

impl Default for SimulatedGuest {
    /// An up-to-date guest. Its registers spell that it is none.
    fn default() -> Self {
        let register = |text: &str| {
            let mut bytes = [0; 48];
            for (byte, letter) in bytes.iter_mut().zip(text.bytes()) {
                *byte = letter;
            }
            Register::from_bytes(bytes)
        };
        Self {
            measurements: TdxMeasurements {
                mrtd: register("NOT A TEE: simulated firmware"),
                rtmr: [
                    register("NOT A TEE: simulated machine"),
                    register("NOT A TEE: simulated kernel"),
                    register("NOT A TEE: simulated command line"),
                    register("NOT A TEE: simulated configuration"),
                ],
                mr_config_id: Register::ZERO,
                mr_owner: Register::ZERO,
                mr_owner_config: Register::ZERO,
            },
            attributes: 1 << 28,
            tcb_status: TcbStatus::UpToDate,
            tcb_evaluation_data_number: 100,
        }
    }
}

/// Collateral is issued anew each hour: real collateral is fetched and kept for about as long, and
/// the consumer's cache depends on its bytes.
const COLLATERAL_STEP_SECONDS: u64 = 3600;

/// An attester without a TEE, for tests and demos. **NO SECURITY.**
#[derive(Debug)]
pub struct SimulatedAttester {
    guest: SimulatedGuest,
    collateral: Mutex<Option<(Timestamp, Bytes)>>,
}

impl SimulatedAttester {
    /// Simulates `guest`, and warns in the log.
    pub fn new(guest: SimulatedGuest) -> Self {
        tracing::warn!("this node simulates a TEE: its evidence is worth NOTHING");
        Self { guest, collateral: Mutex::default() }
    }

    fn collateral(&self, pki: &Pki, now: Timestamp) -> Result<Bytes, QuoteError> {
        let step = now.as_unix_secs() / COLLATERAL_STEP_SECONDS;
        let issued = Timestamp::from_unix_secs(step * COLLATERAL_STEP_SECONDS);
        let mut kept = self.collateral.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, bytes)) = &*kept
            && *at == issued
        {
            return Ok(bytes.clone());
        }
        let guest = &self.guest;
        let fresh = pki.collateral(guest.tcb_status, guest.tcb_evaluation_data_number, issued)?;
        let bytes = Bytes::from(serde_json::to_vec(&fresh).map_err(|_| QuoteError::Simulation)?);
        *kept = Some((issued, bytes.clone()));
        Ok(bytes)
    }
}

impl Attester for SimulatedAttester {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::SimulatedTdx
    }

    fn quote(&self, report_data: &ReportData, now: Timestamp) -> Result<Quoted, QuoteError> {
        let pki = pki::shared()?;
        let quote = forge_quote(pki, &self.guest, report_data.as_bytes())?;
        Ok(Quoted {
            evidence: Evidence::SimulatedTdx { quote: Bytes::from(quote) },
            endorsements: self.collateral(pki, now)?,
        })
    }
}

const QUOTE_VERSION: u16 = 4;
const KEY_TYPE_ECDSA_P256: u16 = 2;
const TEE_TYPE_TDX: u32 = 0x81;
const CERTIFICATION_PCK_CHAIN: u16 = 5;
const CERTIFICATION_QE_REPORT: u16 = 6;
/// x87, SSE, AVX and friends: what a Linux guest runs with.
const XFAM: u64 = 0x0006_02e7;
const QE_AUTHENTICATION_DATA: [u8; 32] = [0xaa; 32];

fn forge_quote(
    pki: &Pki,
    guest: &SimulatedGuest,
    report_data: &[u8; REPORT_DATA_BYTES],
) -> Result<Vec<u8>, QuoteError> {
    let mut quote = signed_part(guest, report_data);
    let signature = sign(&pki.attestation_key, &quote)?;
    // The point without its leading 0x04.
    let attestation_key = pki.attestation_key.public_key().as_ref().get(1..).unwrap_or_default();
    let qe_report = qe_report(attestation_key);

    let mut certification = qe_report.clone();
    certification.extend(sign(&pki.platform_key, &qe_report)?);
    append_u16_sized(&mut certification, &QE_AUTHENTICATION_DATA)?;
    certification.extend(CERTIFICATION_PCK_CHAIN.to_le_bytes());
    append_u32_sized(&mut certification, pki.platform_chain.as_bytes())?;

    let mut authentication = signature;
    authentication.extend_from_slice(attestation_key);
    authentication.extend(CERTIFICATION_QE_REPORT.to_le_bytes());
    append_u32_sized(&mut authentication, &certification)?;

    append_u32_sized(&mut quote, &authentication)?;
    Ok(quote)
}

/// Header and TD report: what the attestation key signs.
fn signed_part(guest: &SimulatedGuest, report_data: &[u8; REPORT_DATA_BYTES]) -> Vec<u8> {
    let measured = &guest.measurements;
    let mut out = Vec::with_capacity(4096);
    out.extend(QUOTE_VERSION.to_le_bytes());
    out.extend(KEY_TYPE_ECDSA_P256.to_le_bytes());
    out.extend(TEE_TYPE_TDX.to_le_bytes());
    // QE and PCE security versions, as version 4 leaves them.
    out.extend([0; 4]);
    out.extend(INTEL_QE_VENDOR_ID);
    out.extend([0; 20]);
    // TEE_TCB_SVN, MRSEAM, MRSIGNERSEAM, SEAMATTRIBUTES.
    out.extend([0; 16 + 48 + 48 + 8]);
    out.extend(guest.attributes.to_le_bytes());
    out.extend(XFAM.to_le_bytes());
    let registers =
        [&measured.mrtd, &measured.mr_config_id, &measured.mr_owner, &measured.mr_owner_config];
    for register in registers.into_iter().chain(&measured.rtmr) {
        out.extend_from_slice(register.as_bytes());
    }
    out.extend_from_slice(report_data);
    out
}

/// The quoting enclave's report: it vouches for the attestation key.
fn qe_report(attestation_key: &[u8]) -> Vec<u8> {
    let mut key_hash = Sha256::new();
    key_hash.update(attestation_key);
    key_hash.update(QE_AUTHENTICATION_DATA);
    let mut report = vec![0; 128];
    report.extend(pki::QE_MRSIGNER);
    report.extend([0; 96]);
    report.extend(pki::QE_PRODUCT.to_le_bytes());
    report.extend(pki::QE_SVN.to_le_bytes());
    report.extend([0; 60]);
    report.extend(key_hash.finalize());
    report.extend([0; 32]);
    report
}

fn append_u16_sized(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), QuoteError> {
    let length = u16::try_from(bytes.len()).map_err(|_| QuoteError::Simulation)?;
    out.extend(length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn append_u32_sized(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), QuoteError> {
    let length = u32::try_from(bytes.len()).map_err(|_| QuoteError::Simulation)?;
    out.extend(length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}
