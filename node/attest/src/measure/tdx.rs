//! TDX's registers for QEMU's direct boot with an edk2 firmware.
//!
//! Owns: the events of that boot path, in their order, in RTMR1 and RTMR2.
//! Must not: guess at other paths: a UKI, a boot loader or `-shim` add events of their own.

use cocoon_protocol::attest::Register;
use sha2::{Digest as _, Sha384};

use super::tdvf::{PageOrder, mrtd};
use super::{
    BootFiles, LARGEST_FIRMWARE, LARGEST_KERNEL, MeasureError, authenticode_sha384,
    check_command_line, read,
};
use std::fs::File;
use std::path::PathBuf;

/// What edk2 adds to the command line when there is an initrd.
pub(super) const INITRD_OPTION: &str = "initrd=initrd ";

/// Where the firmware puts its `initrd=initrd` into the command line that the kernel measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitrdOption {
    /// In front: edk2 since `GenericQemuLoadImageLib` knows a shim; stable202511 does.
    #[default]
    Before,
    /// Behind: edk2 before; 2025.02 in Ubuntu 25.04 does.
    After,
}

/// A TDX guest that QEMU boots directly.
#[derive(Clone, Debug)]
pub struct TdxBoot {
    /// A TDVF: OVMF's IntelTdx build.
    pub firmware: PathBuf,
    /// What it boots; without, only the firmware is measured.
    pub boot: Option<BootFiles>,
    /// As the host does it.
    pub page_order: PageOrder,
    /// As the firmware does it.
    pub initrd_option: InitrdOption,
}

/// What such a guest will be measured as, as far as files tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdxMeasured {
    /// The firmware.
    pub mrtd: Register,
    /// The kernel, then the command line and initrd.
    pub rtmr1_and_2: Option<(Register, Register)>,
}

/// Measures a TDX guest's files.
///
/// Covered: QEMU 10.1 or newer (which gives a confidential guest's firmware the kernel as it is in
/// the file) with `-bios`, `-kernel`, `-initrd`, `-append` and no `-shim`, and edk2's IntelTdx
/// firmware. Not covered, and not computed: RTMR0; a UKI; a boot loader on a disk; QEMU before
/// 10.1, which changes the kernel's header by the size of its memory.
///
/// # Errors
/// A file cannot be read or is not what it should be.
pub fn measure_tdx(guest: &TdxBoot) -> Result<TdxMeasured, MeasureError> {
    let firmware = read(&guest.firmware, LARGEST_FIRMWARE)?;
    let mrtd = mrtd(&firmware, guest.page_order)
        .map_err(|source| MeasureError::Firmware { path: guest.firmware.clone(), source })?;
    let boot = guest.boot.as_ref();
    let rtmr1_and_2 = boot.map(|boot| registers(boot, guest.initrd_option)).transpose()?;
    Ok(TdxMeasured { mrtd, rtmr1_and_2 })
}

fn registers(
    boot: &BootFiles,
    initrd_option: InitrdOption,
) -> Result<(Register, Register), MeasureError> {
    check_command_line(&boot.command_line)?;
    let kernel = authenticode_sha384(&read(&boot.kernel, LARGEST_KERNEL)?)
        .map_err(|source| MeasureError::Kernel { path: boot.kernel.clone(), source })?;
    let failed = |source| MeasureError::Read { path: boot.initrd.clone(), source };
    let mut initrd = Sha384::new();
    std::io::copy(&mut File::open(&boot.initrd).map_err(failed)?, &mut Writer(&mut initrd))
        .map_err(failed)?;
    // TCG PC Client Platform Firmware Profile §3.3.4, with TDX's mapping of PCRs (TDVF Design
    // Guide §8): PCR 4 and 5 are RTMR1, PCR 8 to 15 are RTMR2.
    let rtmr1 = extend([
        kernel,
        Sha384::digest(b"Calling EFI Application from Boot Option").into(),
        // The separator between firmware and what it boots.
        Sha384::digest([0; 4]).into(),
        Sha384::digest(b"Exit Boot Services Invocation").into(),
        Sha384::digest(b"Exit Boot Services Returned with Success").into(),
    ]);
    // Linux's EFI stub measures its options as they were loaded, then the initrd.
    let options = load_options(&boot.command_line, initrd_option);
    let rtmr2 = extend([Sha384::digest(options).into(), initrd.finalize().into()]);
    Ok((rtmr1, rtmr2))
}

/// The command line as edk2 hands it to the kernel: UTF-16, closed with a zero.
fn load_options(command_line: &str, initrd_option: InitrdOption) -> Vec<u8> {
    let text = match initrd_option {
        InitrdOption::Before => format!("{INITRD_OPTION}{command_line}\0"),
        InitrdOption::After => format!("{command_line} {}\0", INITRD_OPTION.trim_end()),
    };
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A register after these events: `TDG.MR.RTMR.EXTEND` hashes the register and the event's digest.
fn extend<const N: usize>(events: [[u8; 48]; N]) -> Register {
    let register = events.into_iter().fold([0; 48], |register, event| {
        Sha384::new().chain_update(register).chain_update(event).finalize().into()
    });
    Register::from_bytes(register)
}

/// A hash as something to write to.
struct Writer<'a>(&'a mut Sha384);

impl std::io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{pe, tdvf};
    use super::*;

    fn guest(folder: &tempfile::TempDir) -> TdxBoot {
        let write = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        TdxBoot {
            firmware: write("firmware", &tdvf::tests::image()),
            boot: Some(BootFiles {
                kernel: write("kernel", &pe::tests::image()),
                initrd: write("initrd", b"an initrd"),
                command_line: "quiet -- --provide".to_owned(),
            }),
            page_order: PageOrder::Page,
            initrd_option: InitrdOption::Before,
        }
    }

    /// By `rtmr1(kernel())` and `rtmr2` of `node/tests/measurement_tools/check.py`, whose digest of
    /// the kernel is the library LIEF's.
    #[test]
    fn golden_registers() {
        let folder = tempfile::tempdir().unwrap();
        let (rtmr1, rtmr2) = measure_tdx(&guest(&folder)).unwrap().rtmr1_and_2.unwrap();
        assert_eq!(
            rtmr1.to_string(),
            "4067733c57d221490788e3f9457b369b96cd2fa5f412db1ea310e3b1848225851ccc07df599e7a2d6e4b25c134b16b24"
        );
        assert_eq!(
            rtmr2.to_string(),
            "04156c4a43a5a89acbb11eded492954a9e540f279992261e7e1c34c52b647711b567d46bd22b85a6260068ece599c006"
        );
    }

    #[test]
    fn each_file_changes_its_own_registers() {
        let folder = tempfile::tempdir().unwrap();
        let guest = guest(&folder);
        let good = measure_tdx(&guest).unwrap();
        let (rtmr1, rtmr2) = good.rtmr1_and_2.unwrap();
        let boot = guest.boot.clone().unwrap();

        let other = |change: &dyn Fn(&mut BootFiles)| {
            let mut boot = boot.clone();
            change(&mut boot);
            let guest = TdxBoot { boot: Some(boot), ..guest.clone() };
            let measured = measure_tdx(&guest).unwrap();
            assert_eq!(measured.mrtd, good.mrtd);
            let (other1, other2) = measured.rtmr1_and_2.unwrap();
            (other1 == rtmr1, other2 == rtmr2)
        };
        assert_eq!(other(&|boot| boot.command_line.push('x')), (true, false));
        std::fs::write(folder.path().join("initrd.2"), b"another").unwrap();
        assert_eq!(other(&|boot| boot.initrd = folder.path().join("initrd.2")), (true, false));
        let mut kernel = pe::tests::image();
        kernel[0x210] ^= 1;
        std::fs::write(folder.path().join("kernel.2"), kernel).unwrap();
        assert_eq!(other(&|boot| boot.kernel = folder.path().join("kernel.2")), (false, true));
    }

    #[test]
    fn the_initrd_option_stands_where_the_firmware_puts_it() {
        let text = |option| {
            let bytes = load_options("quiet", option);
            let units = bytes.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
            String::from_utf16(&units.collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(text(InitrdOption::Before), "initrd=initrd quiet\0");
        assert_eq!(text(InitrdOption::After), "quiet initrd=initrd\0");
    }

    #[test]
    fn without_boot_files_only_the_firmware_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let guest = TdxBoot { boot: None, ..guest(&folder) };
        assert_eq!(measure_tdx(&guest).unwrap().rtmr1_and_2, None);
    }

    #[test]
    fn a_kernel_without_an_efi_stub_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let guest = guest(&folder);
        std::fs::write(folder.path().join("kernel"), b"\x7fELF").unwrap();
        let error = measure_tdx(&guest).unwrap_err();
        assert!(matches!(error, MeasureError::Kernel { .. }), "{error}");
    }
}
