//! The layout of an attestation report (AMD 56860, `ATTESTATION_REPORT`), versions 2 to 5.
//!
//! Owns: where each field lies, and the checks of form. Must not: verify or judge.

use cocoon_protocol::attest::{Refusal, SnpCheck, SnpProduct, SnpSigningKey, SnpTcb};

use crate::snp::invalid;

/// Length of a report.
pub(super) const BYTES: usize = 0x4a0;
/// Length of what the signature covers.
pub(super) const SIGNED: usize = 0x2a0;
/// Length of `r` and of `s` in the report, little-endian; P-384 uses the first 48 bytes.
const SCALAR: usize = 72;
const SCALAR_USED: usize = 48;
/// ECDSA P-384 with SHA-384.
const ALGORITHM: u32 = 1;

/// A report of right length, version and algorithm. Its signature is not verified.
pub(super) struct Report {
    bytes: [u8; BYTES],
    key: SnpSigningKey,
}

impl Report {
    /// Reads a report's form.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let bytes: [u8; BYTES] = bytes.try_into().map_err(|_| Refusal::Malformed)?;
        let mut report = Self { bytes, key: SnpSigningKey::Vcek };
        if !(2..=5).contains(&report.version()) {
            return Err(invalid(SnpCheck::ReportVersion));
        }
        if report.number(0x34) != ALGORITHM {
            return Err(invalid(SnpCheck::SignatureAlgorithm));
        }
        // Behind each scalar and behind both: the 368 bytes that end the report.
        let zeros =
            |from, to| report.bytes.get(from..to).is_some_and(|b| b.iter().all(|b| *b == 0));
        let (r, s) = (SIGNED, SIGNED + SCALAR);
        if !(zeros(r + SCALAR_USED, r + SCALAR) && zeros(s + SCALAR_USED, BYTES)) {
            return Err(invalid(SnpCheck::SignaturePadding));
        }
        report.key = report.signing_key().ok_or_else(|| invalid(SnpCheck::SigningKey))?;
        Ok(report)
    }

    /// `KEY_INFO`: bit 0 says that an author key is there, bit 1 that the signature is masked, bits 2
    /// to 4 which key signed. A key of none, of a reserved kind, or bits that are not known yet, are
    /// refused.
    fn signing_key(&self) -> Option<SnpSigningKey> {
        match self.number(0x48) >> 2 {
            0 => Some(SnpSigningKey::Vcek),
            1 => Some(SnpSigningKey::Vlek),
            _ => None,
        }
    }

    /// The `N` bytes at `offset`; every caller's lie within the report, and a test holds them to it.
    fn field<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.bytes
            .get(offset..)
            .and_then(|rest| rest.first_chunk::<N>())
            .copied()
            .unwrap_or([0xff; N])
    }

    fn number(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.field(offset))
    }

    fn version(&self) -> u32 {
        self.number(0)
    }

    pub(super) const fn key(&self) -> SnpSigningKey {
        self.key
    }

    pub(super) fn signed(&self) -> &[u8] {
        self.bytes.get(..SIGNED).unwrap_or_default()
    }

    /// `r ‖ s`, big-endian, as the rest of the world writes it.
    pub(super) fn signature(&self) -> [u8; 2 * SCALAR_USED] {
        let mut signature = [0; 2 * SCALAR_USED];
        for (index, scalar) in signature.chunks_exact_mut(SCALAR_USED).enumerate() {
            let mut bytes = self.field::<SCALAR_USED>(SIGNED + index * SCALAR);
            bytes.reverse();
            scalar.copy_from_slice(&bytes);
        }
        signature
    }

    /// The processor's family by its CPUID: `None` before version 3, `Some(None)` for one that this
    /// node does not know. Never converted by a library's `into`: one of those panics here.
    pub(super) fn product(&self) -> Option<Option<SnpProduct>> {
        if self.version() < 3 {
            return None;
        }
        let [family, model] = self.field(0x188);
        Some(match (family, model) {
            (0x19, 0x00..=0x0f) => Some(SnpProduct::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(SnpProduct::Genoa),
            (0x1a, 0x00..=0x11) => Some(SnpProduct::Turin),
            _ => None,
        })
    }

    pub(super) fn guest_svn(&self) -> u32 {
        self.number(0x04)
    }

    pub(super) fn guest_policy(&self) -> u64 {
        u64::from_le_bytes(self.field(0x08))
    }

    pub(super) fn vmpl(&self) -> u32 {
        self.number(0x30)
    }

    pub(super) fn platform_info(&self) -> u64 {
        u64::from_le_bytes(self.field(0x40))
    }

    pub(super) fn report_data(&self) -> [u8; 64] {
        self.field(0x50)
    }

    pub(super) fn measurement(&self) -> [u8; 48] {
        self.field(0x90)
    }

    pub(super) fn host_data(&self) -> [u8; 32] {
        self.field(0xc0)
    }

    pub(super) fn id_key_digest(&self) -> [u8; 48] {
        self.field(0xe0)
    }

    pub(super) fn author_key_digest(&self) -> [u8; 48] {
        self.field(0x110)
    }

    pub(super) fn reported_tcb(&self) -> [u8; 8] {
        self.field(0x180)
    }

    pub(super) fn chip_id(&self) -> [u8; 64] {
        self.field(0x1a0)
    }

    pub(super) fn launch_tcb(&self) -> [u8; 8] {
        self.field(0x1f0)
    }
}

/// A firmware level as `product` writes it. `None` where a reserved byte is not zero: a component
/// that nobody here could hold against a minimum.
pub(super) const fn tcb(bytes: [u8; 8], product: SnpProduct) -> Option<SnpTcb> {
    match (product, bytes) {
        (SnpProduct::Milan | SnpProduct::Genoa, [boot_loader, tee, 0, 0, 0, 0, snp, microcode]) => {
            Some(SnpTcb { fmc: 0, boot_loader, tee, snp, microcode })
        }
        (SnpProduct::Turin, [fmc, boot_loader, tee, snp, 0, 0, 0, microcode]) => {
            Some(SnpTcb { fmc, boot_loader, tee, snp, microcode })
        }
        _ => None,
    }
}
