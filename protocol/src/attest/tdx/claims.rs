//! What a verified TDX quote says about a guest and its platform.
//!
//! Owns: the vocabulary of Intel's standing, platform flags and registers.
//! Must not: judge; the appraisal beside it does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attest::evidence::REPORT_DATA_BYTES;
use crate::attest::measurement::Register;
use crate::units::Timestamp;

/// How far a platform is behind Intel's advice (Intel DCAP, `tcbStatus`; the last two are the
/// quote verification library's, for guests that outlived a module update).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TcbStatus {
    /// Nothing is known against it.
    UpToDate,
    /// Software in the guest must mitigate something.
    #[serde(rename = "SWHardeningNeeded")]
    SwHardeningNeeded,
    /// The platform's configuration may be unsafe.
    ConfigurationNeeded,
    /// Both of the above.
    #[serde(rename = "ConfigurationAndSWHardeningNeeded")]
    ConfigurationAndSwHardeningNeeded,
    /// Firmware with published holes.
    OutOfDate,
    /// Firmware with published holes, and a doubtful configuration.
    OutOfDateConfigurationNeeded,
    /// The platform's keys are known to be compromised.
    Revoked,
    /// The guest was launched on an old TDX module that was updated since.
    #[serde(rename = "TDRelaunchAdvised")]
    TdRelaunchAdvised,
    /// As above, with a doubtful configuration.
    #[serde(rename = "TDRelaunchAdvisedConfigurationNeeded")]
    TdRelaunchAdvisedConfigurationNeeded,
}

impl TcbStatus {
    /// Intel's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::Revoked => "Revoked",
            Self::TdRelaunchAdvised => "TDRelaunchAdvised",
            Self::TdRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the platform's certificate says about the machine. Absent flags count as unset, as Intel's
/// library has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlatformFlags {
    /// Packages may be added after registration.
    pub dynamic_platform: bool,
    /// The vendor caches the platform's root keys.
    pub cached_keys: bool,
    /// Hyper-threading is on.
    pub smt: bool,
}

/// Everything that a TDX guest was measured as (Intel TDX module specification, TDINFO_STRUCT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdxMeasurements {
    /// The initial content of the guest: its firmware.
    pub mrtd: Register,
    /// RTMR0: firmware configuration and the machine's shape. RTMR1: kernel. RTMR2: command line
    /// and initrd. RTMR3: ours, the node's configuration.
    pub rtmr: [Register; 4],
    /// Configuration identity that the host set at launch.
    pub mr_config_id: Register,
    /// Owner that the host set at launch.
    pub mr_owner: Register,
    /// Owner's configuration that the host set at launch.
    pub mr_owner_config: Register,
}

/// What a TDX quote claims, after every signature was verified up to a trusted root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxClaims {
    /// The root was the public test root.
    pub simulated: bool,
    /// TD attributes, little-endian (Intel TDX module ABI, `ATTRIBUTES`).
    pub attributes: u64,
    /// What runs in the guest.
    pub measurements: TdxMeasurements,
    /// What the guest bound the quote to.
    pub report_data: [u8; REPORT_DATA_BYTES],
    /// The platform's standing.
    pub tcb_status: TcbStatus,
    /// Intel's advisories that apply to it.
    pub advisories: Vec<String>,
    /// The lower `tcbEvaluationDataNumber` of TCB info and QE identity.
    pub tcb_evaluation_data_number: u32,
    /// When the older of TCB info and QE identity was issued.
    pub collateral_issued: Timestamp,
    /// When the first piece of collateral ends.
    pub collateral_expires: Timestamp,
    /// The platform's flags.
    pub platform: PlatformFlags,
    /// The platform's provisioning identity (PPID).
    pub ppid: Vec<u8>,
}
