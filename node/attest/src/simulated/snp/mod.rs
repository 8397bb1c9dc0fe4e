//! Forges SEV-SNP reports (AMD 56860, version 3) under the test root. **NO SECURITY.**
//!
//! Owns: the report's layout and the simulated guest. Must not: touch hardware.

pub(crate) mod pki;

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use bytes::Bytes;
use cocoon_protocol::attest::{
    Evidence, EvidenceKind, HostData, Register, ReportData, SnpEndorsements, SnpMeasurements,
    SnpTcb,
};
use cocoon_protocol::units::{Millis, Timestamp};

use crate::attester::{Attester, QuoteError, Quoted};
use crate::simulated::snp::pki::Keys;

/// What the simulation pretends to be: a guest on a Milan chip.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedSnpGuest {
    /// What was launched.
    pub measurements: SnpMeasurements,
    /// The guest's policy. Bit 17 is set on every honest guest, bit 19 is debug.
    pub guest_policy: u64,
    /// The platform's configuration.
    pub platform_info: u64,
    /// The privilege level that asks.
    pub vmpl: u32,
    /// The firmware level that the report claims. The test certificate was made for
    /// [`SimulatedSnpGuest::default`]'s; with any other the report lies, and is refused.
    pub reported_tcb: SnpTcb,
    /// The firmware level at launch.
    pub launch_tcb: SnpTcb,
}

const TCB: SnpTcb = SnpTcb { fmc: 0, boot_loader: 3, tee: 0, snp: 8, microcode: 115 };

impl Default for SimulatedSnpGuest {
    /// An up-to-date guest. Its measurement spells that it is none.
    fn default() -> Self {
        let mut measurement = [0; 48];
        for (byte, letter) in measurement.iter_mut().zip(b"NOT A TEE: simulated SEV-SNP guest") {
            *byte = *letter;
        }
        Self {
            measurements: SnpMeasurements {
                measurement: Register::from_bytes(measurement),
                host_data: HostData::ZERO,
                id_key_digest: Register::ZERO,
                author_key_digest: Register::ZERO,
                guest_svn: 0,
            },
            guest_policy: 1 << 17,
            platform_info: 0,
            vmpl: 0,
            reported_tcb: TCB,
            launch_tcb: TCB,
        }
    }
}

/// A revocation list is signed anew each hour, as collateral is; it ends after half a year, as AMD's.
const LIST_STEP_SECONDS: u64 = 3600;
const LIST_LIFETIME: Millis = Millis::from_secs(183 * 24 * 3600);

/// An attester without a TEE, for tests and demos. **NO SECURITY.**
#[derive(Debug)]
pub struct SimulatedSnp {
    guest: SimulatedSnpGuest,
    endorsements: Mutex<Option<(Timestamp, Bytes)>>,
}

impl SimulatedSnp {
    /// Simulates `guest`, and warns in the log.
    pub fn new(guest: SimulatedSnpGuest) -> Self {
        tracing::warn!("this node simulates a TEE: its evidence is worth NOTHING");
        Self { guest, endorsements: Mutex::default() }
    }

    fn endorsements(&self, keys: &Keys, now: Timestamp) -> Result<Bytes, QuoteError> {
        let step = now.as_unix_secs() / LIST_STEP_SECONDS;
        let issued = Timestamp::from_unix_secs(step * LIST_STEP_SECONDS);
        let mut kept = self.endorsements.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, bytes)) = &*kept
            && *at == issued
        {
            return Ok(bytes.clone());
        }
        let crl = keys.revocation_list(issued, issued.after(LIST_LIFETIME), &[])?;
        let bytes = Bytes::from(endorsements(crl).to_bytes());
        *kept = Some((issued, bytes.clone()));
        Ok(bytes)
    }
}

/// The test chain with this revocation list.
pub(crate) fn endorsements(crl: Vec<u8>) -> SnpEndorsements {
    SnpEndorsements {
        vek: Bytes::from_static(pki::VCEK),
        ask: Bytes::from_static(pki::ASK),
        crl: Bytes::from(crl),
    }
}

impl Attester for SimulatedSnp {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::SimulatedSnp
    }

    fn quote(&self, report_data: &ReportData, now: Timestamp) -> Result<Quoted, QuoteError> {
        let keys = pki::keys()?;
        let mut report = unsigned_report(&self.guest, report_data.as_bytes());
        sign(keys, &mut report)?;
        Ok(Quoted {
            evidence: Evidence::SimulatedSnp { report: Bytes::from(report) },
            endorsements: self.endorsements(keys, now)?,
        })
    }
}

const REPORT_BYTES: usize = 0x4a0;
const SIGNED_BYTES: usize = 0x2a0;
const SCALAR_BYTES: usize = 72;
/// `r ‖ s` of P-384.
const SIGNATURE_BYTES: usize = 96;

/// A report without its signature.
pub(crate) fn unsigned_report(guest: &SimulatedSnpGuest, report_data: &[u8; 64]) -> Vec<u8> {
    let measured = &guest.measurements;
    let mut out = Vec::with_capacity(REPORT_BYTES);
    out.extend(3_u32.to_le_bytes());
    out.extend(measured.guest_svn.to_le_bytes());
    out.extend(guest.guest_policy.to_le_bytes());
    // FAMILY_ID, IMAGE_ID.
    out.extend([0; 32]);
    out.extend(guest.vmpl.to_le_bytes());
    // ECDSA P-384 with SHA-384.
    out.extend(1_u32.to_le_bytes());
    out.extend(milan_level(&guest.reported_tcb));
    out.extend(guest.platform_info.to_le_bytes());
    // KEY_INFO: VCEK. Reserved.
    out.extend([0; 8]);
    out.extend(report_data);
    out.extend(measured.measurement.as_bytes());
    out.extend(measured.host_data.as_bytes());
    out.extend(measured.id_key_digest.as_bytes());
    out.extend(measured.author_key_digest.as_bytes());
    // REPORT_ID; there is no migration agent.
    out.extend([0xde; 32]);
    out.extend([0xff; 32]);
    out.extend(milan_level(&guest.reported_tcb));
    // CPUID family, model, stepping: Milan. Reserved.
    out.extend([0x19, 0x01, 0x01]);
    out.extend([0; 21]);
    // CHIP_ID, as the test certificate has it.
    out.extend([0xde; 64]);
    out.extend(milan_level(&guest.reported_tcb));
    // Versions of the firmware, current and committed.
    out.extend([0; 8]);
    out.extend(milan_level(&guest.launch_tcb));
    out.resize(REPORT_BYTES, 0);
    out
}

const fn milan_level(tcb: &SnpTcb) -> [u8; 8] {
    [tcb.boot_loader, tcb.tee, 0, 0, 0, 0, tcb.snp, tcb.microcode]
}

/// Signs the first part of a report with the public test key, and writes the signature behind it.
pub(crate) fn sign(keys: &Keys, report: &mut [u8]) -> Result<(), QuoteError> {
    let (signed, signature) =
        report.split_at_mut_checked(SIGNED_BYTES).ok_or(QuoteError::Simulation)?;
    let made = keys.vcek.sign(&SystemRandom::new(), signed).map_err(|_| QuoteError::Simulation)?;
    let scalars = made.as_ref().chunks_exact(SIGNATURE_BYTES / 2);
    for (field, scalar) in signature.chunks_exact_mut(SCALAR_BYTES).zip(scalars) {
        for (byte, from) in field.iter_mut().zip(scalar.iter().rev()) {
            *byte = *from;
        }
    }
    Ok(())
}
