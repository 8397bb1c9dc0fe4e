//! Reports from `/dev/sev-guest`, for SEV-SNP guests whose kernel has no configfs-tsm.
//!
//! Owns: the device behind a trait, and the words for its errors.
//! Must not: ask for the host's certificate table: the library follows offsets that the host wrote
//! without checking them, and the endorsements come from AMD anyway.
//!
//! Linux `Documentation/virt/coco/sev-guest.rst`; the requests are the `sev` crate's. It has not run
//! on hardware.

use std::fmt;
use std::io;

use cocoon_protocol::attest::{REPORT_DATA_BYTES, ReportData};
#[cfg(target_os = "linux")]
use sev::error::UserApiError;
#[cfg(target_os = "linux")]
use sev::firmware::guest::Firmware;

/// The device.
pub const DEVICE: &str = "/dev/sev-guest";
/// Version of the request: the first, which every firmware understands.
#[cfg(target_os = "linux")]
const REQUEST_VERSION: u32 = 1;

/// Why the device made no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SevGuestError {
    /// There is no device.
    #[error("there is no `{DEVICE}`; load its driver (`modprobe sev-guest`) in a SEV-SNP guest")]
    Missing,
    /// The process may not.
    #[error("not permitted to use `{DEVICE}`; run the node as root in the guest")]
    Denied,
    /// The firmware or the host refused.
    #[error("the AMD secure processor made no report: {reason}")]
    Refused {
        /// In the library's words.
        reason: String,
    },
}

impl From<io::Error> for SevGuestError {
    fn from(error: io::Error) -> Self {
        let kind = error.kind();
        if kind == io::ErrorKind::NotFound {
            Self::Missing
        } else if kind == io::ErrorKind::PermissionDenied {
            Self::Denied
        } else {
            Self::Refused { reason: error.to_string() }
        }
    }
}

/// Something that makes attestation reports as the device does.
pub(crate) trait SevGuestDevice: Send + Sync + fmt::Debug {
    /// A report over `data`, for the privilege level (VMPL) `level`.
    fn report(&self, data: &[u8; REPORT_DATA_BYTES], level: u8) -> Result<Vec<u8>, SevGuestError>;
}

/// The machine's own; opened for each report, so that nothing is held while nothing is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device;

impl SevGuestDevice for Device {
    #[cfg(target_os = "linux")]
    fn report(&self, data: &[u8; REPORT_DATA_BYTES], level: u8) -> Result<Vec<u8>, SevGuestError> {
        let mut firmware = Firmware::open()?;
        let made = firmware.get_report(Some(REQUEST_VERSION), Some(*data), Some(level.into()));
        made.map_err(|error| {
            if let UserApiError::IOError(error) = error {
                error.into()
            } else {
                SevGuestError::Refused { reason: error.to_string() }
            }
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn report(&self, _: &[u8; REPORT_DATA_BYTES], _: u8) -> Result<Vec<u8>, SevGuestError> {
        Err(SevGuestError::Missing)
    }
}

/// Asks `device`; the only way to it, so that it too sees nothing but bound report data.
pub(crate) fn report(
    device: &dyn SevGuestDevice,
    report_data: &ReportData,
    level: u8,
) -> Result<Vec<u8>, SevGuestError> {
    device.report(report_data.as_bytes(), level)
}
