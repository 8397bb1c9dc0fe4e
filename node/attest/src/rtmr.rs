//! The node's configuration in RTMR3 of a TDX guest.
//!
//! Owns: what is extended, once for each boot, and which value follows from it.
//! Must not: touch the other registers; firmware and kernel own them.
//!
//! Linux 6.16 and later, `Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest`: writing 48
//! bytes to `rtmr3:sha384` extends the register with them. It has not run on hardware.

use std::io;
use std::path::{Path, PathBuf};

use cocoon_protocol::attest::Register;
use sha2::{Digest as _, Sha384};

use crate::tsm::{Filesystem, Kernel};

/// Where the kernel shows the registers.
pub const MEASUREMENTS: &str = "/sys/devices/virtual/misc/tdx_guest/measurements";
const RTMR3: &str = "rtmr3:sha384";
const REGISTER_BYTES: usize = 48;
const DOMAIN: &[u8] = b"cocoon-node/tee/rtmr3/v1";

/// Why RTMR3 does not hold the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtmrError {
    /// The kernel shows no registers.
    #[error(
        "the kernel shows no `{}`; needs Linux 6.16 or later in a TDX guest. Until then RTMR3 stays \
         as it is, and only the identity quote holds the configuration",
        path.display()
    )]
    NoInterface {
        /// Where it should be.
        path: PathBuf,
    },
    /// The process may not.
    #[error("not permitted to extend RTMR3; run the node as root in the guest")]
    Denied,
    /// The register was extended with something else since the guest booted.
    #[error(
        "RTMR3 is {found}, and this configuration makes it {expected}: the configuration has changed \
         since the guest booted, or something else extends the register. Reboot the guest"
    )]
    OtherValue {
        /// What it holds.
        found: Register,
        /// What it should hold.
        expected: Register,
    },
    /// Anything else that the kernel said.
    #[error("the kernel could not read or extend RTMR3: {0}")]
    Failed(io::ErrorKind),
}

impl RtmrError {
    fn of(path: &Path, error: &io::Error) -> Self {
        let kind = error.kind();
        if kind == io::ErrorKind::NotFound {
            Self::NoInterface { path: path.to_owned() }
        } else if kind == io::ErrorKind::PermissionDenied {
            Self::Denied
        } else {
            Self::Failed(kind)
        }
    }
}

/// The value of RTMR3 in a guest that runs this configuration, and nothing else that extends the
/// register: what a policy's image lists.
pub fn expected_rtmr3(configuration: &[u8; 32]) -> Register {
    let extended = Sha384::new_with_prefix(Register::ZERO.as_bytes())
        .chain_update(event(configuration))
        .finalize();
    Register::from_bytes(extended.into())
}

/// What the register is extended with.
fn event(configuration: &[u8; 32]) -> [u8; REGISTER_BYTES] {
    Sha384::new_with_prefix(DOMAIN).chain_update(configuration).finalize().into()
}

/// Makes RTMR3 hold `configuration`; returns its value. A node that was started again in the same
/// boot finds it done. `folder` is [`MEASUREMENTS`].
///
/// # Errors
/// When the kernel cannot, or the register holds something else.
pub fn extend_rtmr3(folder: &Path, configuration: &[u8; 32]) -> Result<Register, RtmrError> {
    extend(&Filesystem, folder, configuration)
}

/// The register as it is.
///
/// # Errors
/// When the kernel does not show it.
pub fn read_rtmr3(folder: &Path) -> Result<Register, RtmrError> {
    read(&Filesystem, &folder.join(RTMR3))
}

fn read(kernel: &dyn Kernel, path: &Path) -> Result<Register, RtmrError> {
    let bytes = kernel.read(path, REGISTER_BYTES).map_err(|error| RtmrError::of(path, &error))?;
    let bytes = <[u8; REGISTER_BYTES]>::try_from(bytes);
    bytes.map(Register::from_bytes).map_err(|_| RtmrError::Failed(io::ErrorKind::InvalidData))
}

fn extend(
    kernel: &dyn Kernel,
    folder: &Path,
    configuration: &[u8; 32],
) -> Result<Register, RtmrError> {
    let path = folder.join(RTMR3);
    let expected = expected_rtmr3(configuration);
    if read(kernel, &path)? == Register::ZERO {
        kernel.write(&path, &event(configuration)).map_err(|error| RtmrError::of(&path, &error))?;
    }
    match read(kernel, &path)? {
        found if found == expected => Ok(expected),
        found => Err(RtmrError::OtherValue { found, expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files as the kernel shows them; a write extends, as the TDX module does.
    #[derive(Debug)]
    struct Module;

    impl Kernel for Module {
        fn create(&self, _: &Path) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn remove(&self, _: &Path) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn read(&self, attribute: &Path, limit: usize) -> io::Result<Vec<u8>> {
            Filesystem.read(attribute, limit)
        }

        fn write(&self, attribute: &Path, bytes: &[u8]) -> io::Result<()> {
            let old = std::fs::read(attribute)?;
            let event =
                <[u8; REGISTER_BYTES]>::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
            let new = Sha384::new_with_prefix(old).chain_update(event).finalize();
            Filesystem.write(attribute, &new)
        }

        fn entries(&self, _: &Path) -> io::Result<Vec<String>> {
            Ok(Vec::new())
        }
    }

    fn registers(value: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(RTMR3), value).unwrap();
        folder
    }

    // Computed with Python's hashlib from the text above.
    #[test]
    fn golden_register() {
        assert_eq!(
            expected_rtmr3(&[4; 32]).to_string(),
            "4fd2c4c8e4c2d65a34de657becc153576ef7641b1324f5dc\
             eedbecfaec4bafe7ba2d3b1db5df40c0d3eabe9aa8ae65dd"
        );
    }

    #[test]
    fn the_register_is_extended_once_for_each_boot() {
        let folder = registers(&[0; 48]);
        let first = extend(&Module, folder.path(), &[4; 32]).unwrap();
        assert_eq!(first, expected_rtmr3(&[4; 32]));
        assert_eq!(read_rtmr3(folder.path()), Ok(first));
        assert_eq!(extend(&Module, folder.path(), &[4; 32]), Ok(first));
    }

    #[test]
    fn a_register_that_holds_something_else_is_refused() {
        let folder = registers(&[0; 48]);
        let found = extend(&Module, folder.path(), &[4; 32]).unwrap();
        let expected = expected_rtmr3(&[5; 32]);
        let refusal = extend(&Module, folder.path(), &[5; 32]).unwrap_err();
        assert_eq!(refusal, RtmrError::OtherValue { found, expected });
        assert!(refusal.to_string().contains("Reboot the guest"));
    }

    #[test]
    fn a_kernel_without_registers_is_told_from_one_that_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RTMR3);
        let missing = extend_rtmr3(folder.path(), &[4; 32]);
        assert_eq!(missing, Err(RtmrError::NoInterface { path }));
        let short = registers(&[0; 47]);
        let failed = RtmrError::Failed(io::ErrorKind::InvalidData);
        assert_eq!(extend_rtmr3(short.path(), &[4; 32]), Err(failed));
    }
}
