//! The report: an SPDM 1.1 `GET_MEASUREMENTS` request, the response to it, and a signature over both.
//!
//! Owns: its form, exactly. What is read twice, left over or repeated is refused.
//! Must not: judge what it reads; the bytes are a stranger's until the signature holds.

use std::collections::BTreeMap;

use cocoon_protocol::attest::{GpuRefusal, Register};

/// ECDSA P-384: two numbers of 48 bytes, big-endian.
pub(super) const SIGNATURE_BYTES: usize = 96;

/// SPDM version 1.1, the only one in which these reports come.
const SPDM_VERSION: u8 = 0x11;
const GET_MEASUREMENTS: u8 = 0xe0;
const MEASUREMENTS: u8 = 0x60;
/// `MeasurementSpecification`: DMTF's own form.
const DMTF: u8 = 1;
/// Bit 7 of `DMTFSpecMeasurementValueType`: the value is no digest.
const RAW_VALUE: u8 = 0x80;

// Types of NVIDIA's opaque fields.
const DRIVER_VERSION: u16 = 3;
const VBIOS_VERSION: u16 = 6;
const DECODER_STATUS: u16 = 11;
const FIRMWARE_IDENTITY: u16 = 20;
const PROTECTED_PCIE_STATUS: u16 = 21;
const FEATURE_FLAG: u16 = 36;

/// What NVIDIA writes for "off" into a status of one byte; "on" is 0xaa.
const STATUS_DISABLED: u8 = 0x55;
const STATUS_ENABLED: u8 = 0xaa;
/// Values of the feature flag: one GPU passed through, and several with encrypted links.
const SINGLE_PASS_THROUGH: u64 = 0;
const MULTIPLE_PASS_THROUGH: u64 = 1;

/// A version of a driver is far shorter; it is shown to people.
const VERSION_TEXT_BYTES: usize = 32;

/// A report, read and not yet verified.
pub(super) struct Report<'a> {
    /// Everything before the signature.
    pub(super) signed: &'a [u8],
    pub(super) signature: &'a [u8],
    /// The requester's nonce. The responder's own is covered by the signature and means nothing here.
    pub(super) nonce: [u8; 32],
    pub(super) driver: String,
    pub(super) vbios: String,
    pub(super) firmware: Option<[u8; 48]>,
    pub(super) decoder_disabled: bool,
    pub(super) protected_pcie: bool,
    /// Digests of 48 bytes by NVIDIA's index, from 0. Raw values have no golden values.
    pub(super) measurements: BTreeMap<u8, Register>,
}

const fn malformed(part: &'static str) -> GpuRefusal {
    GpuRefusal::Report { part }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, part: &'static str) -> Result<&'a [u8], GpuRefusal> {
        let (head, tail) = self.0.split_at_checked(count).ok_or_else(|| malformed(part))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], GpuRefusal> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or_else(|| malformed(part))?;
        self.0 = tail;
        Ok(*head)
    }

    fn u16(&mut self, part: &'static str) -> Result<u16, GpuRefusal> {
        Ok(u16::from_le_bytes(self.array(part)?))
    }
}

impl<'a> Report<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, GpuRefusal> {
        let length = bytes.len().checked_sub(SIGNATURE_BYTES).ok_or(malformed("length"))?;
        let (signed, signature) = bytes.split_at_checked(length).ok_or(malformed("length"))?;
        let mut reader = Reader(signed);

        // Request: version, code, two parameters, nonce, slot.
        let [version, code, ..] = reader.array::<4>("request")?;
        if (version, code) != (SPDM_VERSION, GET_MEASUREMENTS) {
            return Err(malformed("request"));
        }
        let nonce = reader.array("request")?;
        reader.take(1, "request")?;

        // Response: version, code, two parameters, count and length of the blocks; the blocks; the
        // responder's nonce; the opaque fields.
        let [version, code, _, _, count, low, middle, high] = reader.array("response")?;
        if (version, code) != (SPDM_VERSION, MEASUREMENTS) {
            return Err(malformed("response"));
        }
        let length = u32::from_le_bytes([low, middle, high, 0]);
        let length = usize::try_from(length).map_err(|_| malformed("measurement record"))?;
        let measurements = parse_blocks(reader.take(length, "measurement record")?, count)?;
        reader.array::<32>("responder's nonce")?;
        let length = usize::from(reader.u16("opaque fields")?);
        let opaque = parse_opaque(reader.take(length, "opaque fields")?)?;
        if !reader.0.is_empty() {
            return Err(malformed("length"));
        }
        let required =
            |field: u16, part| opaque.get(&field).copied().ok_or_else(|| malformed(part));
        Ok(Self {
            signed,
            signature,
            nonce,
            driver: version_text(required(DRIVER_VERSION, "driver version")?)?,
            vbios: vbios_version(required(VBIOS_VERSION, "VBIOS version")?)?,
            firmware: opaque
                .get(&FIRMWARE_IDENTITY)
                .map(|identity| (*identity).try_into().map_err(|_| malformed("firmware identity")))
                .transpose()?,
            decoder_disabled: match opaque.get(&DECODER_STATUS) {
                Some([STATUS_DISABLED]) => true,
                Some([STATUS_ENABLED]) | None => false,
                Some(_) => return Err(malformed("decoder status")),
            },
            protected_pcie: protected_pcie(&opaque)?,
            measurements,
        })
    }
}

/// The measurement blocks: index (from 1, rising), specification, length, and DMTF's value.
fn parse_blocks(record: &[u8], count: u8) -> Result<BTreeMap<u8, Register>, GpuRefusal> {
    const PART: &str = "measurement block";
    let mut reader = Reader(record);
    let mut measurements = BTreeMap::new();
    let mut last = 0;
    for _ in 0..count {
        let [index, specification] = reader.array(PART)?;
        if index <= last || specification != DMTF {
            return Err(malformed(PART));
        }
        last = index;
        let length = usize::from(reader.u16(PART)?);
        let mut block = Reader(reader.take(length, PART)?);
        let [kind] = block.array(PART)?;
        let length = usize::from(block.u16(PART)?);
        if block.0.len() != length {
            return Err(malformed(PART));
        }
        if let (Ok(digest), true) = (block.0.try_into(), kind & RAW_VALUE == 0) {
            measurements.insert(index.saturating_sub(1), Register::from_bytes(digest));
        }
    }
    if !reader.0.is_empty() {
        return Err(malformed("measurement record"));
    }
    Ok(measurements)
}

/// NVIDIA's fields: type, length, value. None may be there twice.
fn parse_opaque(bytes: &[u8]) -> Result<BTreeMap<u16, &[u8]>, GpuRefusal> {
    const PART: &str = "opaque field";
    let mut reader = Reader(bytes);
    let mut fields = BTreeMap::new();
    while !reader.0.is_empty() {
        let field = reader.u16(PART)?;
        let length = usize::from(reader.u16(PART)?);
        if fields.insert(field, reader.take(length, PART)?).is_some() {
            return Err(malformed("repeated opaque field"));
        }
    }
    Ok(fields)
}

/// Whether GPUs reach each other through switches in the clear. Such a machine is protected only
/// together with its switches' evidence.
fn protected_pcie(opaque: &BTreeMap<u16, &[u8]>) -> Result<bool, GpuRefusal> {
    let by_status = match opaque.get(&PROTECTED_PCIE_STATUS) {
        None | Some([STATUS_DISABLED]) => false,
        Some([STATUS_ENABLED]) => true,
        Some(_) => return Err(malformed("protected-PCIe status")),
    };
    let by_feature = match opaque.get(&FEATURE_FLAG) {
        None => false,
        Some(flag) if (1..=8).contains(&flag.len()) => {
            let value = flag.iter().rev().fold(0, |all: u64, byte| (all << 8) | u64::from(*byte));
            !matches!(value, SINGLE_PASS_THROUGH | MULTIPLE_PASS_THROUGH)
        }
        Some(_) => return Err(malformed("feature flag")),
    };
    Ok(by_status || by_feature)
}

/// A version as text that ends with a zero byte: `550.90.07`.
fn version_text(field: &[u8]) -> Result<String, GpuRefusal> {
    const PART: &str = "driver version";
    let text = field.strip_suffix(&[0]).ok_or(malformed(PART))?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > VERSION_TEXT_BYTES || !text.iter().all(plain) {
        return Err(malformed(PART));
    }
    Ok(text.iter().copied().map(char::from).collect())
}

/// Eight bytes: four of the version in reverse, its last one, and three zeros. NVIDIA writes it as
/// `96.00.9F.00.01`.
fn vbios_version(field: &[u8]) -> Result<String, GpuRefusal> {
    match field {
        [d, c, b, a, e, 0, 0, 0] => Ok(format!("{a:02X}.{b:02X}.{c:02X}.{d:02X}.{e:02X}")),
        _ => Err(malformed("VBIOS version")),
    }
}
