//! What a guest will be measured as, computed from the files that it boots from.
//!
//! Owns: the launch digest of SEV-SNP; MRTD, RTMR1 and RTMR2 of TDX for QEMU's direct boot.
//! Must not: say that a value is good; a person puts it into a policy. RTMR0 depends on the
//! machine's shape (ACPI tables, memory map) and is recorded on a reference host, not computed.
//!
//! The files are the user's own, but a firmware image is a format like any other: nothing in it
//! may make this panic, and firmware without the vendor's metadata is refused, never guessed at.

mod firmware;
mod pe;
mod snp;
mod tdvf;
mod tdx;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub use firmware::FirmwareError;
pub use pe::{PeError, authenticode_sha384};
pub use snp::{LARGEST_VCPU_COUNT, SnpLaunch, UnknownVcpuType, VcpuType, snp_launch_digest};
pub use tdvf::{PageOrder, mrtd};
pub use tdx::{InitrdOption, TdxBoot, TdxMeasured, measure_tdx};

/// Firmware, larger than any that exists: OVMF's images have 2 to 16 MiB.
const LARGEST_FIRMWARE: u64 = 64 << 20;
/// A kernel with all that may be linked into it.
const LARGEST_KERNEL: u64 = 1 << 30;
/// Linux on x86 reads this much of a command line, its closing zero included (`COMMAND_LINE_SIZE`);
/// what is behind would be measured but not obeyed.
const COMMAND_LINE_BYTES: usize = 2048;

/// What QEMU is given to boot directly: `-kernel`, `-initrd`, `-append`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFiles {
    /// A bzImage with an EFI stub.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: PathBuf,
    /// The command line, exactly as QEMU is given it.
    pub command_line: String,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is larger than one of its kind can be.
    #[error("{} has more than {limit} bytes; is it the right file?", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// How much there may be.
        limit: u64,
    },
    /// The firmware cannot be launched as such a guest.
    #[error("{} is no firmware for {}", path.display(), source.wanted())]
    Firmware {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: FirmwareError,
    },
    /// The kernel is no EFI image.
    #[error("{} is no kernel with an EFI stub", path.display())]
    Kernel {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: PeError,
    },
    /// A number of virtual processors that no machine has.
    #[error("a guest has between 1 and {LARGEST_VCPU_COUNT} virtual processors, not {found}")]
    VcpuCount {
        /// The number.
        found: u32,
    },
    /// The command line would be measured differently from what the kernel obeys.
    #[error("the command line {fault}")]
    CommandLine {
        /// What is wrong with it, and what to do.
        fault: &'static str,
    },
    /// The launch digest could not be computed.
    #[error("the launch digest cannot be computed: {reason}")]
    Digest {
        /// Why, in the words of the crate `sev`.
        reason: String,
    },
}

/// Reads a file that must not be larger than `limit`.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, MeasureError> {
    let failed = |source| MeasureError::Read { path: path.to_owned(), source };
    let mut content = Vec::new();
    let file = File::open(path).map_err(failed)?;
    // One byte more shows that there is more.
    file.take(limit.saturating_add(1)).read_to_end(&mut content).map_err(failed)?;
    let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
    if length > limit {
        return Err(MeasureError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(content)
}

/// Refuses command lines of which more is measured than is obeyed, or less.
fn check_command_line(text: &str) -> Result<(), MeasureError> {
    let fault = |fault| Err(MeasureError::CommandLine { fault });
    if text.trim() != text {
        return fault("begins or ends with white space, which tools disagree about: remove it");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return fault("holds something else than printable ASCII characters: remove it");
    }
    // The firmware puts `initrd=initrd ` in front.
    if text.len() + tdx::INITRD_OPTION.len() + 2 > COMMAND_LINE_BYTES {
        return fault("is longer than the 2032 characters that the kernel obeys: shorten it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        check_command_line(text).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn command_lines_that_are_obeyed_as_measured_pass() {
        for text in ["", "quiet", "panic=-1 console=ttyS0 -- --provide --model=\"a b\""] {
            assert_eq!(fault(text), "");
        }
        assert_eq!(fault(&"x".repeat(2032)), "");
    }

    #[test]
    fn a_command_line_with_white_space_around_it_is_refused() {
        for text in [" quiet", "quiet ", "quiet\n"] {
            assert!(fault(text).contains("white space"), "{text:?}");
        }
    }

    #[test]
    fn a_command_line_with_other_characters_is_refused() {
        for text in ["a\nb", "a\0b", "ä"] {
            assert!(fault(text).contains("printable ASCII"), "{text:?}");
        }
    }

    #[test]
    fn a_command_line_that_the_kernel_cuts_is_refused() {
        assert!(fault(&"x".repeat(2033)).contains("2032"));
    }

    #[test]
    fn a_file_beyond_its_limit_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0; 11]).unwrap();
        assert_eq!(read(file.path(), 11).unwrap().len(), 11);
        let error = read(file.path(), 10).unwrap_err();
        assert!(matches!(error, MeasureError::TooLarge { limit: 10, .. }), "{error}");
        let error = read(Path::new("no/such/file"), 10).unwrap_err();
        assert_eq!(error.to_string(), "cannot read no/such/file");
    }
}
