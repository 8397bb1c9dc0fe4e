//! SEV-SNP's launch digest.
//!
//! Owns: which firmware may be given to the crate `sev`, which computes it.
//! Must not: let that crate see a damaged image, at which it would panic.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use cocoon_protocol::attest::Register;
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};

use super::firmware::{Blocks, FirmwareError, Guid, size, u32_at};
use super::{BootFiles, LARGEST_FIRMWARE, MeasureError, check_command_line, read};

/// What KVM gives a guest at most (`KVM_MAX_VCPUS`).
pub const LARGEST_VCPU_COUNT: u32 = 4096;

/// dc886566-984a-4798-a75e-5585a7bf67cc: where the SEV metadata is, from the image's end
/// (edk2, `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`).
const METADATA_OFFSET: Guid = [
    0x66, 0x65, 0x88, 0xdc, 0x4a, 0x98, 0x98, 0x47, 0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc,
];
/// 00f771de-1a7e-4fcb-890e-68c77e2fb44e: where the other processors begin.
const RESET_BLOCK: Guid = [
    0xde, 0x71, 0xf7, 0x00, 0x7e, 0x1a, 0xcb, 0x4f, 0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e,
];
/// 7255371f-3a3b-4b04-927b-1da6efa8d454: where the hashes of kernel, initrd and command line go.
const HASH_TABLE: Guid = [
    0x1f, 0x37, 0x55, 0x72, 0x3b, 0x3a, 0x04, 0x4b, 0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54,
];
const HEADER_BYTES: usize = 16;
const SECTION_BYTES: usize = 12;
const KERNEL_HASHES: u32 = 0x10;
const SECTION_KINDS: [u32; 5] = [1, 2, 3, 4, KERNEL_HASHES];
const PAGE: u32 = 4096;
/// The table of three hashes, padded (QEMU, `target/i386/sev.c`, `PaddedSevHashTable`).
const HASH_TABLE_BYTES: u32 = 176;
/// More than any firmware has at its start, all sections together: a bound for the time that this takes.
const MOST_MEMORY: u32 = 64 << 20;

/// A model of processor as QEMU names it: `EPYC-v4`, `EPYC-Milan`, `EPYC-Genoa-v1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VcpuType(CpuType);

/// No model of processor that can run SEV-SNP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no model of processor for SEV-SNP; QEMU's `-cpu help` lists them: EPYC-v4, \
     EPYC-Milan, EPYC-Genoa, EPYC-Turin, …"
)]
pub struct UnknownVcpuType(String);

impl FromStr for VcpuType {
    type Err = UnknownVcpuType;

    fn from_str(text: &str) -> Result<Self, UnknownVcpuType> {
        CpuType::try_from(text).map(Self).map_err(|_| UnknownVcpuType(text.to_owned()))
    }
}

impl fmt::Display for VcpuType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An SEV-SNP guest as QEMU launches it.
#[derive(Clone, Debug)]
pub struct SnpLaunch {
    /// OVMF in one file, given to QEMU by `-bios`.
    pub firmware: PathBuf,
    /// What is booted directly, with `kernel-hashes=on`; without, nothing of it is measured.
    pub boot: Option<BootFiles>,
    /// How many virtual processors.
    pub vcpus: u32,
    /// Their model.
    pub vcpu_type: VcpuType,
    /// `SEV_FEATURES` in the processors' first state: 1 for SNP alone, which is what QEMU sets.
    pub guest_features: u64,
}

/// The launch digest: `MEASUREMENT` in the guest's attestation reports.
///
/// Source: AMD, *SEV Secure Nested Paging Firmware ABI Specification* (56860), §8.17
/// `SNP_LAUNCH_UPDATE`; the order of the pages is QEMU's.
///
/// # Errors
/// A file cannot be read, or the firmware is not one for SEV-SNP.
pub fn snp_launch_digest(launch: &SnpLaunch) -> Result<Register, MeasureError> {
    if !(1..=LARGEST_VCPU_COUNT).contains(&launch.vcpus) {
        return Err(MeasureError::VcpuCount { found: launch.vcpus });
    }
    let firmware = read(&launch.firmware, LARGEST_FIRMWARE)?;
    check_firmware(&firmware, launch.boot.is_some())
        .map_err(|source| MeasureError::Firmware { path: launch.firmware.clone(), source })?;
    if let Some(boot) = &launch.boot {
        check_command_line(&boot.command_line)?;
        for path in [&boot.kernel, &boot.initrd] {
            let failed = |source| MeasureError::Read { path: path.clone(), source };
            std::fs::File::open(path).map_err(failed)?;
        }
    }
    let boot = launch.boot.as_ref();
    let digest = snp_calc_launch_digest(SnpMeasurementArgs {
        vcpus: launch.vcpus,
        vcpu_type: launch.vcpu_type.0,
        ovmf_file: launch.firmware.clone(),
        guest_features: GuestFeatures(launch.guest_features),
        kernel_file: boot.map(|boot| boot.kernel.clone()),
        initrd_file: boot.map(|boot| boot.initrd.clone()),
        append: boot.map(|boot| boot.command_line.as_str()),
        ovmf_hash_str: None,
        vmm_type: Some(VMMType::QEMU),
    });
    let failed = |reason: String| MeasureError::Digest { reason };
    let bytes: Vec<u8> = digest
        .map_err(|error| failed(error.to_string()))?
        .try_into()
        .map_err(|error: sev::error::MeasurementError| failed(error.to_string()))?;
    let bytes = bytes.try_into().map_err(|_| failed("it has another length".to_owned()))?;
    Ok(Register::from_bytes(bytes))
}

/// Whether the image is firmware for SEV-SNP that `sev` reads without a panic: that crate takes
/// lengths and places from the image unchecked.
fn check_firmware(image: &[u8], with_kernel: bool) -> Result<(), FirmwareError> {
    let broken = |fault| FirmwareError::BrokenSevMetadata { fault };
    let blocks = Blocks::read(image)?;
    let missing = |block| FirmwareError::NoSevMetadata { block };
    let metadata = blocks.get(&METADATA_OFFSET).ok_or_else(|| missing("SEV metadata"))?;
    let reset = blocks.get(&RESET_BLOCK).ok_or_else(|| missing("reset block for SEV-ES"))?;
    u32_at(reset, 0).ok_or_else(|| broken("its reset block is too short"))?;
    if !image.len().is_multiple_of(size(PAGE)) {
        return Err(broken("the image is not made of whole pages"));
    }
    let from_end = size(u32_at(metadata, 0).ok_or_else(|| broken("its place is missing"))?);
    let start = image.len().checked_sub(from_end);
    let metadata = start.and_then(|start| image.get(start..));
    let metadata = metadata.ok_or_else(|| broken("its place is outside the image"))?;
    if metadata.get(..4) != Some(b"ASEV") {
        return Err(broken("it does not begin with `ASEV`"));
    }
    let length = size(u32_at(metadata, 4).ok_or_else(|| broken("its end is missing"))?);
    if u32_at(metadata, 8) != Some(1) {
        return Err(broken("its version is not 1, the only one that is known"));
    }
    let count = size(u32_at(metadata, 12).ok_or_else(|| broken("its end is missing"))?);
    let sections =
        metadata.get(HEADER_BYTES..length).ok_or_else(|| broken("its end is missing"))?;
    if count.checked_mul(SECTION_BYTES) != Some(sections.len()) {
        return Err(broken("its length does not fit its number of sections"));
    }
    let mut takes_hashes = false;
    let mut memory: u32 = 0;
    for section in sections.chunks_exact(SECTION_BYTES) {
        let number = |offset| u32_at(section, offset).unwrap_or_default();
        let (address, length, kind) = (number(0), number(4), number(8));
        if !SECTION_KINDS.contains(&kind) {
            return Err(broken("a section is of a kind that is not known"));
        }
        if length % PAGE != 0 || address % PAGE != 0 {
            return Err(broken("a section is not made of whole pages"));
        }
        memory = memory.saturating_add(length);
        if memory > MOST_MEMORY {
            return Err(broken("its sections are far too large"));
        }
        if kind == KERNEL_HASHES {
            takes_hashes = length == PAGE && !takes_hashes;
        }
    }
    if with_kernel {
        let table = blocks.get(&HASH_TABLE).and_then(|table| u32_at(table, 0));
        let table = table.filter(|address| *address != 0 && takes_hashes);
        let table = table.ok_or(FirmwareError::NoKernelHashes)?;
        if table % PAGE > PAGE - HASH_TABLE_BYTES {
            return Err(broken("its hashes of the kernel would cross a page's end"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::firmware::tests::image as firmware_image;
    use super::*;
    use proptest::prelude::*;

    /// The end of OVMF's AmdSev build: crate `sev` 8.0.0, `tests/measurement`.
    const AMDSEV: &[u8] = include_bytes!("../../testdata/measure/ovmf_AmdSev_suffix.bin");
    /// The end of OVMF's generic build: it takes no hashes of a kernel.
    const GENERIC: &[u8] = include_bytes!("../../testdata/measure/ovmf_OvmfX64_suffix.bin");

    fn launch(folder: &tempfile::TempDir, firmware: &[u8]) -> SnpLaunch {
        let write = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        SnpLaunch {
            firmware: write("firmware", firmware),
            boot: Some(BootFiles {
                kernel: write("kernel", b""),
                initrd: write("initrd", b""),
                command_line: String::new(),
            }),
            vcpus: 1,
            vcpu_type: "EPYC-v4".parse().unwrap(),
            guest_features: 0x21,
        }
    }

    fn refusal(firmware: &[u8]) -> FirmwareError {
        let folder = tempfile::tempdir().unwrap();
        let error = snp_launch_digest(&launch(&folder, firmware)).unwrap_err();
        let MeasureError::Firmware { source, .. } = error else { panic!("{error}") };
        source
    }

    /// The value that `sev-snp-measure` and crate `sev` have for this in their own tests.
    #[test]
    fn golden_digest_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let digest = snp_launch_digest(&launch(&folder, AMDSEV)).unwrap();
        assert_eq!(
            digest.to_string(),
            "329c8ce0972ae52343b64d34a434a86f245dfd74f5ed7aae15d22efc78fb9683632b9b50e4e1d7fa41179ef98a7ef198"
        );
    }

    #[test]
    fn everything_that_is_launched_counts() {
        let folder = tempfile::tempdir().unwrap();
        let base = launch(&folder, AMDSEV);
        let mut seen = vec![snp_launch_digest(&base).unwrap()];
        let mut differs = |launch: &SnpLaunch| {
            let digest = snp_launch_digest(launch).unwrap();
            assert!(!seen.contains(&digest), "{launch:?}");
            seen.push(digest);
        };
        differs(&SnpLaunch { vcpus: 2, ..base.clone() });
        differs(&SnpLaunch { vcpu_type: "EPYC-Genoa".parse().unwrap(), ..base.clone() });
        differs(&SnpLaunch { guest_features: 1, ..base.clone() });
        differs(&SnpLaunch { boot: None, ..base.clone() });
        let boot = base.boot.clone().unwrap();
        let with = |boot| SnpLaunch { boot: Some(boot), ..base.clone() };
        differs(&with(BootFiles { command_line: "quiet".to_owned(), ..boot.clone() }));
        let other = folder.path().join("other");
        std::fs::write(&other, b"other").unwrap();
        differs(&with(BootFiles { kernel: other.clone(), ..boot.clone() }));
        differs(&with(BootFiles { initrd: other, ..boot }));
    }

    #[test]
    fn firmware_without_sev_metadata_is_refused() {
        let image = firmware_image(4096, &[([1; 16], b"else")]);
        let error = refusal(&image);
        assert_eq!(error, FirmwareError::NoSevMetadata { block: "SEV metadata" });
        assert!(error.to_string().contains("AmdSev build"), "{error}");
        assert_eq!(refusal(&[0; 4096]), FirmwareError::NoTable);
        let image = firmware_image(4096, &[(METADATA_OFFSET, &[0; 4])]);
        assert_eq!(
            refusal(&image),
            FirmwareError::NoSevMetadata { block: "reset block for SEV-ES" }
        );
    }

    #[test]
    fn firmware_that_checks_no_kernel_is_refused_when_there_is_one() {
        assert_eq!(refusal(GENERIC), FirmwareError::NoKernelHashes);
        let folder = tempfile::tempdir().unwrap();
        let launch = SnpLaunch { boot: None, ..launch(&folder, GENERIC) };
        snp_launch_digest(&launch).unwrap();
    }

    #[test]
    fn damaged_metadata_is_refused() {
        let start = AMDSEV.windows(4).position(|window| window == b"ASEV").unwrap();
        let fault = |offset: usize, value: u32| {
            let mut image = AMDSEV.to_vec();
            image[start + offset..start + offset + 4].copy_from_slice(&value.to_le_bytes());
            let error = refusal(&image);
            let FirmwareError::BrokenSevMetadata { fault } = error else { panic!("{error}") };
            fault
        };
        assert!(fault(0, 0).contains("begin with"));
        assert!(fault(4, 17).contains("does not fit"));
        assert!(fault(4, 0xffff).contains("its end is missing"));
        assert!(fault(8, 2).contains("version"));
        assert!(fault(12, 0xffff_ffff).contains("does not fit"));
        assert!(fault(16 + 8, 9).contains("kind"));
        assert!(fault(16 + 4, 0xffff_f000).contains("far too large"));
        assert!(fault(16, 1).contains("whole pages"));
        // One section may have all of the memory, but not one and the others.
        assert!(fault(16 + 4, 64 << 20).contains("far too large"));
        let image = [&[0; 7], AMDSEV].concat();
        assert_eq!(
            refusal(&image),
            FirmwareError::BrokenSevMetadata { fault: "the image is not made of whole pages" }
        );
    }

    #[test]
    fn a_number_of_processors_that_no_machine_has_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for vcpus in [0, LARGEST_VCPU_COUNT + 1, u32::MAX] {
            let launch = SnpLaunch { vcpus, ..launch(&folder, AMDSEV) };
            let error = snp_launch_digest(&launch).unwrap_err();
            assert!(matches!(error, MeasureError::VcpuCount { found } if found == vcpus));
        }
    }

    #[test]
    fn an_unknown_model_of_processor_is_refused() {
        let error = "Opteron".parse::<VcpuType>().unwrap_err();
        assert!(error.to_string().contains("EPYC-Milan"));
        assert_eq!("epyc-genoa-v1".parse::<VcpuType>().unwrap().to_string(), "EPYC-Genoa-v1");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_firmware_panics(changes in prop::collection::vec((0usize..1024, any::<u8>()), 1..8)) {
            let folder = tempfile::tempdir().unwrap();
            let mut image = AMDSEV.to_vec();
            let length = image.len();
            for (place, value) in changes {
                image[length - 1 - place] = value;
            }
            let _ = snp_launch_digest(&launch(&folder, &image));
        }
    }
}
